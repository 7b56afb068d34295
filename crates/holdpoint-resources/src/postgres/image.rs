//! Rows as texts: read from before a change and from within it, and compared.
//!
//! Owns the two-snapshot diff. Must never miss a row that changed: what could have changed is taken
//! for a candidate, and only equality of both images clears it.

use super::catalog::{Table, get};
use super::link::{Failed, Link};
use super::spec::PostgresLimits;
use super::text::name;
use crate::resource::ResourceFault;
use futures::StreamExt as _;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use tokio_postgres::types::{ToSql, Type};

/// How many keys are asked for at one time.
const KEYS_AT_ONCE: usize = 5000;
/// How many members of row locks others may make while we look.
const MULTI_SLACK: i64 = 1 << 20;

/// The values of a row in the order of the table's columns; absent for NULL.
pub(super) type Image = Vec<Option<String>>;
/// The values that tell a row from the others of its table.
pub(super) type Key = Vec<String>;
/// Rows by key.
pub(super) type Rows = BTreeMap<Key, Image>;

/// Where a transaction began, in the counters of the server.
#[derive(Clone, Debug)]
pub(super) struct Start {
    /// The snapshot, for others to look from.
    pub(super) snapshot: String,
    /// No transaction before the snapshot has this number or a later one.
    first: i64,
    /// No lock of several transactions before the snapshot has this number or a later one.
    multi: i64,
    /// The time zone in which statements run.
    pub(super) zone: String,
}

/// The changed rows of one table.
#[derive(Clone, Debug)]
pub(super) struct TableDiff {
    pub(super) table: Table,
    /// Old and new image of each.
    pub(super) rows: BTreeMap<Key, (Option<Image>, Option<Image>)>,
}

/// How much may still be read.
pub(super) struct Budget {
    rows_max: u64,
    /// Most rows of a change that people approved by its size.
    whole_rows_max: u64,
    bytes_left: u64,
    bytes_max: u64,
    /// How many rows the server says were written.
    written: u64,
}

// === impl Start ===

impl Start {
    /// Where the transaction of `link` begins. Must come before its first change.
    pub(super) async fn of(link: &Link) -> Result<Self, Failed> {
        let sql = "SELECT pg_catalog.pg_export_snapshot(), \
            pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::pg_catalog.text, \
            pg_catalog.mxid_age('1')::pg_catalog.int8, pg_catalog.current_setting('TimeZone')";
        let row = link.row(sql, &[]).await?;
        let first: String = get(&row, 1)?;
        let first: u64 = first.parse().unwrap_or_default();
        let multi: i64 = get(&row, 2)?;
        let first = i64::try_from(first & 0xffff_ffff).unwrap_or_default();
        let multi = multi.wrapping_add(1) & 0xffff_ffff;
        Ok(Self { snapshot: get(&row, 0)?, first, multi, zone: get(&row, 3)? })
    }
}

// === impl Budget ===

impl Budget {
    /// What one call may read.
    pub(super) fn new(limits: &PostgresLimits, written: u64) -> Self {
        let bytes_max = limits.preview_bytes_max;
        let (rows_max, whole_rows_max) = (limits.rows_max, limits.whole().rows_max);
        Self { rows_max, whole_rows_max, bytes_left: bytes_max, bytes_max, written }
    }

    fn too_many(&self, rows: u64) -> Failed {
        let (rows, rows_max) = (rows.max(self.written), self.rows_max);
        let text = format!("{rows} rows, and `rows_max` is {rows_max}");
        match rows > self.whole_rows_max {
            true => ResourceFault::TooLarge(text).into(),
            false => ResourceFault::Large(text).into(),
        }
    }

    /// Takes a row into account.
    fn take(&mut self, image: &Image) -> Result<(), Failed> {
        let bytes: usize = image.iter().flatten().map(String::len).sum();
        let left = self.bytes_left.checked_sub(bytes as u64);
        self.bytes_left = left.ok_or_else(|| {
            // Who approves this approves so many rows: more of them are another size.
            let (rows, bytes_max) = (self.written, self.bytes_max);
            let bytes = format!("more than {bytes_max} bytes");
            let of_rows = format!("{rows} rows with {bytes}");
            ResourceFault::Large(if rows > 0 { of_rows } else { bytes })
        })?;
        Ok(())
    }
}

// === functions ===

/// What is different for `now`, which changes `tables`, from what `old` sees, which looks from the
/// snapshot where `now` began.
pub(super) async fn diff(
    (now, old): (&Link, &Link),
    start: &Start,
    tables: Vec<Table>,
    budget: &mut Budget,
) -> Result<Vec<TableDiff>, Failed> {
    let (mut diffs, mut count) = (Vec::new(), 0_u64);
    for table in tables {
        let rows = diff_table((now, old), start, &table, budget).await?;
        count = count.saturating_add(rows.len() as u64);
        if count > budget.rows_max {
            return Err(budget.too_many(count));
        }
        if !rows.is_empty() {
            diffs.push(TableDiff { table, rows });
        }
    }
    Ok(diffs)
}

async fn diff_table(
    (now, old): (&Link, &Link),
    start: &Start,
    table: &Table,
    budget: &mut Budget,
) -> Result<BTreeMap<Key, (Option<Image>, Option<Image>)>, Failed> {
    let mut new_rows = written(now, start, table, budget).await?;
    let mut old_rows = marked((now, old), start, table, budget).await?;
    let only = |these: &Rows, those: &Rows| -> Vec<Key> {
        these.keys().filter(|key| !those.contains_key(*key)).cloned().collect()
    };
    let (not_old, not_new) = (only(&new_rows, &old_rows), only(&old_rows, &new_rows));
    old_rows.extend(by_key(old, table, &not_old, budget).await?);
    new_rows.extend(by_key(now, table, &not_new, budget).await?);
    let keys: BTreeSet<Key> = old_rows.keys().chain(new_rows.keys()).cloned().collect();
    let pairs = keys.into_iter().map(|key| {
        let pair = (old_rows.remove(&key), new_rows.remove(&key));
        (key, pair)
    });
    Ok(pairs.filter(|(_, (before, after))| before != after).collect())
}

/// Rows as this transaction wrote them: whatever it sees that was written since it began is its
/// own, for it looks from one snapshot.
async fn written(
    now: &Link,
    start: &Start,
    table: &Table,
    budget: &mut Budget,
) -> Result<Rows, Failed> {
    let sql = format!(
        "SELECT {} FROM ONLY {} AS t WHERE pg_catalog.age(t.xmin) OPERATOR(pg_catalog.<=) \
         pg_catalog.age('{}'::pg_catalog.xid)",
        values(table),
        table.sql(),
        start.first
    );
    let rows_max = budget.rows_max;
    read(now, (&sql, &[]), (table, rows_max), budget).await
}

/// Rows that were there before and are marked as deleted, replaced or locked by a transaction
/// since, alone or among several.
async fn marked(
    (now, old): (&Link, &Link),
    start: &Start,
    table: &Table,
    budget: &mut Budget,
) -> Result<Rows, Failed> {
    let span = multis_since(now, start).await?.saturating_add(MULTI_SLACK);
    let sql = format!(
        "SELECT {} FROM ONLY {} AS t WHERE t.xmax OPERATOR(pg_catalog.<>) 0 AND \
         (pg_catalog.age(t.xmax) OPERATOR(pg_catalog.<=) pg_catalog.age('{}'::pg_catalog.xid) OR \
         ((t.xmax::pg_catalog.text::pg_catalog.int8 OPERATOR(pg_catalog.-) {}) \
         OPERATOR(pg_catalog.&) 4294967295) OPERATOR(pg_catalog.<=) {span})",
        values(table),
        table.sql(),
        start.first,
        start.multi
    );
    // Others may have locked some, which are cleared later.
    let rows_max = budget.rows_max.saturating_mul(2).saturating_add(1000);
    let rows = read(old, (&sql, &[]), (table, rows_max), budget).await?;
    if multis_since(now, start).await? > span {
        let why = "others lock too many rows to be sure which ones changed";
        return Err(ResourceFault::Unavailable(why.to_owned()).into());
    }
    Ok(rows)
}

async fn multis_since(link: &Link, start: &Start) -> Result<i64, Failed> {
    let sql = "SELECT pg_catalog.mxid_age('1')::pg_catalog.int8";
    let next: i64 = get(&link.row(sql, &[]).await?, 0)?;
    Ok(next.wrapping_add(1).wrapping_sub(start.multi) & 0xffff_ffff)
}

/// The rows with these keys that are there.
pub(super) async fn by_key(
    link: &Link,
    table: &Table,
    keys: &[Key],
    budget: &mut Budget,
) -> Result<Rows, Failed> {
    let mut found = Rows::new();
    for keys in keys.chunks(KEYS_AT_ONCE) {
        let columns = turned(table.key.len(), keys.iter().map(|key| key.iter().map(Some)));
        let sql = format!(
            "SELECT {} FROM ONLY {} AS t JOIN {} ON {}",
            values(table),
            table.sql(),
            listed(1, table.key.len()),
            matches(table)
        );
        let p: Vec<&(dyn ToSql + Sync)> = columns.iter().map(|column| column as _).collect();
        let rows_max = keys.len() as u64;
        found.extend(read(link, (&sql, &p), (table, rows_max), budget).await?);
    }
    // What an operator takes for equal may be another text: it is another row then.
    let asked: BTreeSet<&Key> = keys.iter().collect();
    found.retain(|key, _| asked.contains(key));
    Ok(found)
}

/// Reads images by key.
async fn read(
    link: &Link,
    (sql, columns): (&str, &[&(dyn ToSql + Sync)]),
    (table, rows_max): (&Table, u64),
    budget: &mut Budget,
) -> Result<Rows, Failed> {
    let parameters = columns.iter().map(|column| (*column, Type::TEXT_ARRAY));
    let opened = link.timed(link.client().query_typed_raw(sql, parameters)).await?;
    let mut stream = pin!(opened);
    let mut rows = Rows::new();
    while let Some(row) = link.timed(async { stream.next().await.transpose() }).await? {
        let image = (0..table.columns.len()).map(|at| get(&row, at));
        let image = image.collect::<Result<Image, Failed>>()?;
        budget.take(&image)?;
        rows.insert(key_of(table, &image)?, image);
        if rows.len() as u64 > rows_max {
            return Err(budget.too_many(rows.len() as u64));
        }
    }
    Ok(rows)
}

pub(super) fn key_of(table: &Table, image: &Image) -> Result<Key, Failed> {
    let value = |at: usize| image.get(at).cloned().flatten();
    let key: Option<Key> = table.key.iter().map(|key| value(key.column)).collect();
    key.ok_or_else(|| ResourceFault::Invalid("a row has no key".to_owned()).into())
}

/// The values of a row `t`, as the output of their types writes them. No cast: casts to text lose
/// the blanks at the end of `char(n)`, and a type may have a cast of its own.
pub(super) fn values(table: &Table) -> String {
    let value = |column: &super::catalog::Column| {
        let column = format!("t.{}", name(&column.name));
        format!(
            "CASE WHEN pg_catalog.num_nulls({column}) OPERATOR(pg_catalog.=) 0 \
             THEN pg_catalog.format('%s', {column}) END"
        )
    };
    table.columns.iter().map(value).collect::<Vec<_>>().join(", ")
}

/// A list of rows `r` with the columns `c0`, `c1`, …, out of so many parameters from `first` on.
pub(super) fn listed(first: usize, count: usize) -> String {
    let arrays = (first..first + count).map(|at| format!("${at}::pg_catalog.text[]"));
    let names = (0..count).map(|at| format!("c{at}"));
    let (arrays, names): (Vec<_>, Vec<_>) = (arrays.collect(), names.collect());
    format!("unnest({}) AS r({})", arrays.join(", "), names.join(", "))
}

/// Where the key of `t` is that of `r`, whose first columns it is.
pub(super) fn matches(table: &Table) -> String {
    let equal = table.key_columns().enumerate().map(|(at, (key, column))| {
        format!("t.{} {} r.c{at}::{}", name(&column.name), key.equals, column.kind)
    });
    equal.collect::<Vec<_>>().join(" AND ")
}

/// Rows turned into so many columns.
pub(super) fn turned<T, R: Iterator<Item = T>>(
    count: usize,
    rows: impl Iterator<Item = R>,
) -> Vec<Vec<T>> {
    let mut columns: Vec<Vec<T>> = (0..count).map(|_| Vec::new()).collect();
    for row in rows {
        for (column, value) in columns.iter_mut().zip(row) {
            column.push(value);
        }
    }
    columns
}

/// The address of a row.
pub(super) fn address(place: &str, table: &Table, key: &Key) -> String {
    let pairs = table.key_columns().zip(key);
    let pairs = pairs.map(|((_, column), value)| format!("{}={}", column.name, escaped(value)));
    format!("{place}/{}/{}", table.shown(), pairs.collect::<Vec<_>>().join(","))
}

/// A value in an address: what would cut the address is written by its bytes.
pub(super) fn escaped(value: &str) -> String {
    let mut text = String::new();
    for c in value.chars() {
        if c.is_alphanumeric() || "-_.:@+ ".contains(c) {
            text.push(c);
        } else {
            let mut bytes = [0; 4];
            text.extend(c.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")));
        }
    }
    text
}

/// A value as JSON, where JSON has the very same.
pub(super) fn typed(kind: &str, text: &str) -> Value {
    match (kind, text) {
        ("boolean", "t") => Value::Bool(true),
        ("boolean", "f") => Value::Bool(false),
        ("smallint" | "integer", _) => {
            text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from)
        }
        _ => Value::from(text),
    }
}
