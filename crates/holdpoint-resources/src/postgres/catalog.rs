//! What the database says about itself: how tables are made, and what a transaction touched.
//! Must never ask by a name that a `search_path` could turn into another thing.

use super::link::{Failed, Link};
use super::text::name;
use std::collections::BTreeMap;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// Settings under which every value has one text, from which it comes back as it was.
pub(super) const IMAGES: &str = "SET LOCAL search_path TO ''; SET LOCAL datestyle TO 'ISO, YMD'; \
    SET LOCAL intervalstyle TO 'postgres'; SET LOCAL timezone TO 'UTC'; \
    SET LOCAL extra_float_digits TO 1; SET LOCAL bytea_output TO 'hex'; \
    SET LOCAL lc_monetary TO 'C'; SET LOCAL xmloption TO 'content'; \
    SET LOCAL standard_conforming_strings TO on";

/// A table.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) columns: Vec<Column>,
    /// What tells its rows apart; empty if nothing does.
    pub(super) key: Vec<KeyColumn>,
    /// Triggers of users that fire, and whether they always do.
    pub(super) triggers: Vec<(String, bool)>,
    /// True if we may read all of it.
    pub(super) readable: bool,
    /// True if we may change its definition.
    pub(super) owned: bool,
    /// True if rules rewrite what is done to it.
    pub(super) ruled: bool,
}

/// A column.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    /// Its type, as a cast names it.
    pub(super) kind: String,
    /// True if the database computes it.
    pub(super) generated: bool,
}

/// A column of a key.
#[derive(Clone, Debug)]
pub(super) struct KeyColumn {
    /// Where it is among the columns.
    pub(super) column: usize,
    /// The operator that finds its values.
    pub(super) equals: String,
}

/// What a transaction touched.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Tables that may hold changed rows, and how many rows were written.
    pub(super) tables: BTreeMap<u32, i64>,
    /// Sequences that moved or were looked at.
    pub(super) sequences: Vec<String>,
    /// Tables of other servers.
    pub(super) foreign: Vec<String>,
    /// Relations that nobody else may read any more.
    pub(super) locked: Vec<String>,
    /// Tables of the catalog whose rows changed: definitions, large objects, rights.
    pub(super) catalogs: Vec<String>,
}

// === impl Table ===

impl Table {
    /// Its name as SQL wants it.
    pub(super) fn sql(&self) -> String {
        format!("{}.{}", name(&self.schema), name(&self.name))
    }

    /// Its name as people write it.
    pub(super) fn shown(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// The columns of its key.
    pub(super) fn key_columns(&self) -> impl Iterator<Item = (&KeyColumn, &Column)> {
        self.key.iter().filter_map(|key| Some((key, self.columns.get(key.column)?)))
    }

    /// True if rows can be put back without anything else happening.
    pub(super) fn is_quiet(&self) -> bool {
        !self.ruled && (self.owned || self.triggers.is_empty())
    }
}

// === functions ===

/// What this backend touched since its transaction began, `old` looking from before. A fresh
/// connection is assumed: one that was used before could count an earlier transaction.
pub(super) async fn touched(link: &Link, old: &Link) -> Result<Touched, Failed> {
    let mut touched = Touched::default();
    let gone = link.rows(GONE, &[]).await?;
    let gone = gone.iter().map(|row| get(row, 0)).collect::<Result<Vec<u32>, _>>()?;
    for row in old.rows(NAMES, &[(&gone as _, Type::OID_ARRAY)]).await? {
        touched.locked.push(get(&row, 0)?);
    }
    for row in link.rows(LOCKED, &[]).await? {
        let (oid, kind, shown): (u32, i8, String) = (get(&row, 0)?, get(&row, 1)?, get(&row, 2)?);
        let (written, counted, exclusive): (i64, bool, bool) =
            (get(&row, 3)?, get(&row, 4)?, get(&row, 5)?);
        match u8::try_from(kind).unwrap_or_default() {
            _ if exclusive => touched.locked.push(shown),
            b'S' => touched.sequences.push(shown),
            b'f' => touched.foreign.push(shown),
            b'r' if written > 0 || !counted => {
                touched.tables.insert(oid, written);
            }
            _ => {}
        }
    }
    for row in link.rows(CATALOGS, &[]).await? {
        touched.catalogs.push(get(&row, 0)?);
    }
    Ok(touched)
}

const LOCKED: &str = "SELECT c.oid, c.relkind, pg_catalog.concat(n.nspname, '.', c.relname), \
    pg_catalog.pg_stat_get_xact_tuples_inserted(c.oid) \
    + pg_catalog.pg_stat_get_xact_tuples_updated(c.oid) \
    + pg_catalog.pg_stat_get_xact_tuples_deleted(c.oid), \
    pg_catalog.current_setting('track_counts')::pg_catalog.bool, \
    pg_catalog.bool_or(l.mode = 'AccessExclusiveLock') \
    FROM pg_catalog.pg_locks l \
    JOIN pg_catalog.pg_database d ON d.oid = l.database \
    JOIN pg_catalog.pg_class c ON c.oid = l.relation \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE l.locktype = 'relation' AND l.granted AND l.pid = pg_catalog.pg_backend_pid() \
    AND d.datname = pg_catalog.current_database() \
    AND l.mode NOT IN ('AccessShareLock', 'RowShareLock') AND c.relpersistence <> 't' \
    AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') \
    GROUP BY 1, 2, 3 ORDER BY 3";

/// Relations that were dropped, and more that never were.
const GONE: &str = "SELECT DISTINCT l.relation FROM pg_catalog.pg_locks l \
    JOIN pg_catalog.pg_database d ON d.oid = l.database WHERE l.locktype = 'relation' \
    AND l.pid = pg_catalog.pg_backend_pid() AND d.datname = pg_catalog.current_database() \
    AND l.mode = 'AccessExclusiveLock' \
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = l.relation)";

const NAMES: &str = "SELECT pg_catalog.concat(n.nspname, '.', c.relname) \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.oid = ANY ($1) AND n.nspname <> 'pg_toast' ORDER BY 1";

const CATALOGS: &str = "SELECT c.relname::pg_catalog.text FROM pg_catalog.pg_class c \
    WHERE c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace AND c.relkind = 'r' \
    AND pg_catalog.pg_stat_get_xact_tuples_inserted(c.oid) \
    + pg_catalog.pg_stat_get_xact_tuples_updated(c.oid) \
    + pg_catalog.pg_stat_get_xact_tuples_deleted(c.oid) > 0 ORDER BY 1";

/// How these tables are made, in the order of their names. One that is gone is left out.
pub(super) async fn describe(link: &Link, oids: &[u32]) -> Result<Vec<Table>, Failed> {
    let oids = oids.to_vec();
    let asked = [(&oids as _, Type::OID_ARRAY)];
    let mut tables = Vec::new();
    for row in link.rows(TABLES, &asked).await? {
        tables.push(Table {
            oid: get(&row, 0)?,
            schema: get(&row, 1)?,
            name: get(&row, 2)?,
            readable: get(&row, 3)?,
            owned: get(&row, 4)?,
            ruled: get(&row, 5)?,
            columns: Vec::new(),
            key: Vec::new(),
            triggers: Vec::new(),
        });
    }
    for row in link.rows(COLUMNS, &asked).await? {
        let Some(table) = of(&mut tables, get(&row, 0)?) else { continue };
        let (name, kind, generated) = (get(&row, 1)?, get(&row, 2)?, get(&row, 3)?);
        table.columns.push(Column { name, kind, generated });
    }
    for row in link.rows(KEYS, &asked).await? {
        let Some(table) = of(&mut tables, get(&row, 0)?) else { continue };
        let (column, schema, sign): (String, String, String) =
            (get(&row, 1)?, get(&row, 2)?, get(&row, 3)?);
        let at = table.columns.iter().position(|known| known.name == column);
        let equals = format!("OPERATOR({}.{sign})", name(&schema));
        table.key.extend(at.map(|column| KeyColumn { column, equals }));
    }
    for row in link.rows(TRIGGERS, &asked).await? {
        let Some(table) = of(&mut tables, get(&row, 0)?) else { continue };
        table.triggers.push((get(&row, 1)?, get(&row, 2)?));
    }
    Ok(tables)
}

const TABLES: &str = "SELECT c.oid, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, \
    pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
    AND pg_catalog.has_table_privilege(c.oid, 'SELECT') \
    AND NOT pg_catalog.row_security_active(c.oid), \
    pg_catalog.pg_has_role(c.relowner, 'USAGE'), c.relhasrules \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.oid = ANY ($1) AND c.relkind = 'r' \
    ORDER BY n.nspname COLLATE pg_catalog.\"C\", c.relname COLLATE pg_catalog.\"C\"";

const COLUMNS: &str = "SELECT a.attrelid, a.attname::pg_catalog.text, \
    pg_catalog.format_type(a.atttypid, a.atttypmod), a.attgenerated <> '' \
    FROM pg_catalog.pg_attribute a WHERE a.attrelid = ANY ($1) AND a.attnum > 0 \
    AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum";

/// The columns of the primary key, or else of the oldest unique index that leaves no row out.
const KEYS: &str = "WITH chosen AS (SELECT DISTINCT ON (i.indrelid) i.* \
    FROM pg_catalog.pg_index i WHERE i.indrelid = ANY ($1) AND i.indisunique AND i.indisvalid \
    AND i.indpred IS NULL AND i.indexprs IS NULL AND NOT EXISTS (SELECT FROM \
    pg_catalog.generate_series(0, i.indnkeyatts - 1) p JOIN pg_catalog.pg_attribute a \
    ON a.attrelid = i.indrelid AND a.attnum = i.indkey[p] WHERE NOT a.attnotnull) \
    ORDER BY i.indrelid, i.indisprimary DESC, i.indexrelid) \
    SELECT c.indrelid, a.attname::pg_catalog.text, s.nspname::pg_catalog.text, \
    o.oprname::pg_catalog.text FROM chosen c \
    CROSS JOIN LATERAL pg_catalog.generate_series(0, c.indnkeyatts - 1) p \
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.indrelid AND a.attnum = c.indkey[p] \
    JOIN pg_catalog.pg_opclass k ON k.oid = c.indclass[p] \
    JOIN pg_catalog.pg_amop m ON m.amopfamily = k.opcfamily AND m.amoplefttype = k.opcintype \
    AND m.amoprighttype = k.opcintype AND m.amopstrategy = 3 \
    JOIN pg_catalog.pg_operator o ON o.oid = m.amopopr \
    JOIN pg_catalog.pg_namespace s ON s.oid = o.oprnamespace ORDER BY c.indrelid, p";

const TRIGGERS: &str = "SELECT t.tgrelid, t.tgname::pg_catalog.text, t.tgenabled = 'A' \
    FROM pg_catalog.pg_trigger t WHERE t.tgrelid = ANY ($1) AND NOT t.tgisinternal \
    AND t.tgenabled IN ('O', 'A') ORDER BY 1, 2";

fn of(tables: &mut [Table], oid: u32) -> Option<&mut Table> {
    tables.iter_mut().find(|table| table.oid == oid)
}

/// A value of a row of a query of our own.
pub(super) fn get<'r, T: tokio_postgres::types::FromSql<'r>>(
    row: &'r Row,
    at: usize,
) -> Result<T, Failed> {
    row.try_get(at).map_err(Failed::Server)
}
