//! Tables that are dropped by being moved out of sight, and moved back.
//!
//! Owns the schemas `holdpoint_trash_…`. Must never look at definitions by changing them: what a
//! drop would do is found by reading, and the move waits for its permit. Must never let go of a
//! table for good: that is for `expired`.

use super::catalog::get;
use super::change::{Changing, timeouts};
use super::expired::Mark;
use super::kept::Kept;
use super::link::{Failed, Link, Target};
use super::spec::PostgresLimits;
use super::text::{Piece, Statement, name, tokens};
use crate::resource::{Change, Conflict, Preview, ResourceFault, TargetState, Undo};
use holdpoint_types::{Disclosure, Reversibility, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio_postgres::types::Type;

/// What a schema with dropped tables is called, before its number.
pub(super) const TRASH: &str = "holdpoint_trash_";

/// One table on its way out or back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Moved {
    oid: u32,
    schema: String,
    name: String,
    /// Names and types.
    columns: Vec<(String, String)>,
    /// Foreign keys, which would hold rows of other tables: names and definitions.
    references: Vec<(String, String)>,
}

/// What a `DROP TABLE` comes to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Drop {
    /// The tables can be moved away.
    Movable {
        tables: Vec<Moved>,
        /// Tables that need not be there, and are not.
        missing: Vec<String>,
    },
    /// They cannot, and why.
    Gone(&'static str),
}

/// A move that waits for its permit.
#[derive(Clone, Debug)]
pub(super) enum Moving {
    /// Out of sight.
    Away { statement: Statement, found: Drop, trash: String, undo: Option<Undo> },
    /// Back.
    Back { tables: Vec<Moved>, trash: String },
}

/// Where a table is.
enum Where {
    Home,
    Trash,
    /// Neither, and why that is so.
    Lost(&'static str),
}

// === impl Moved ===

impl Moved {
    fn home(&self) -> String {
        format!("{}.{}", name(&self.schema), name(&self.name))
    }

    fn in_trash(&self, trash: &str) -> String {
        format!("{}.{}", name(trash), name(&self.name))
    }

    fn address(&self, place: &str) -> String {
        format!("{place}/{}.{}", self.schema, self.name)
    }

    fn shown(&self) -> Value {
        let columns = self.columns.iter().map(|(name, kind)| (name.clone(), kind.clone().into()));
        json!({ "columns": columns.collect::<Map<_, Value>>() })
    }

    /// Where it is now.
    async fn find(&self, link: &Link, trash: &str) -> Result<Where, Failed> {
        let sql = "SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text, \
            pg_catalog.to_regclass($2) IS NULL FROM (SELECT) one \
            LEFT JOIN (pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n \
            ON n.oid = c.relnamespace) ON c.oid = $1";
        let home = self.home();
        let asked = [(&self.oid as _, Type::OID), (&home as _, Type::TEXT)];
        let row = link.row(sql, &asked).await?;
        let (schema, table): (Option<String>, Option<String>) = (get(&row, 0)?, get(&row, 1)?);
        let free: bool = get(&row, 2)?;
        let (Some(schema), Some(table)) = (schema, table) else {
            return Ok(Where::Lost("it was dropped for good"));
        };
        Ok(match () {
            () if table != self.name => Where::Lost("it was renamed since"),
            () if schema == self.schema => Where::Home,
            () if schema != trash => Where::Lost("it was moved since"),
            () if !free => Where::Lost("another table has its name now"),
            () => Where::Trash,
        })
    }
}

// === impl Drop ===

impl Drop {
    /// What `statement` comes to, by reading only.
    pub(super) async fn find(link: &Link, statement: &Statement) -> Result<Self, Failed> {
        let (names, optional) = match names(&statement.text) {
            Some(Names { cascade: false, names, optional }) => (names, optional),
            Some(Names { cascade: true, .. }) => {
                let why = "CASCADE would drop what is not named: drop that first, by name";
                return Err(ResourceFault::Refused(why.to_owned()).into());
            }
            None => return Ok(Self::Gone("its names are not simply names of tables")),
        };
        let (mut tables, mut missing) = (Vec::new(), Vec::new());
        for name in names {
            let row = link.row(FIND, &[(&name as _, Type::TEXT)]).await?;
            let oid: Option<u32> = get(&row, 0)?;
            let Some(oid) = oid else {
                if optional {
                    missing.push(name);
                    continue;
                }
                let why = format!("there is no table {name}");
                return Err(ResourceFault::Refused(why).into());
            };
            match (get::<bool>(&row, 1)?, get::<bool>(&row, 2)?, get::<bool>(&row, 3)?) {
                (false, ..) => return Ok(Self::Gone("it is not a table that stands alone")),
                (_, false, _) => return Ok(Self::Gone("only its owner may move it away")),
                (_, _, false) => return Ok(Self::Gone("we may not make the schema to keep it in")),
                (true, true, true) => tables.push(describe(link, oid).await?),
            }
        }
        free_of_others(link, &tables).await?;
        Ok(Self::Movable { tables, missing })
    }

    /// What it is for people and decisions.
    pub(super) fn preview(&self, place: &str, limits: &PostgresLimits) -> Preview {
        let blank = Preview {
            changes: Vec::new(),
            exact: true,
            guarantee: Reversibility::NoEffect,
            until: None,
            disclosure: Disclosure::Contained,
            notes: Vec::new(),
        };
        match self {
            Self::Gone(why) => Preview {
                exact: false,
                guarantee: Reversibility::Irreversible,
                notes: vec![format!("it cannot be kept: {why}")],
                ..blank
            },
            Self::Movable { tables, missing } => {
                let change = |table: &Moved| Change {
                    resource: table.address(place),
                    before: Some(table.shown()),
                    after: None,
                };
                let mut notes: Vec<String> =
                    missing.iter().map(|name| format!("there is no table {name}")).collect();
                if tables.is_empty() {
                    return Preview { notes, ..blank };
                }
                let kept = limits.trash_keep.as_secs();
                notes.push(format!("moved into a schema `{TRASH}…`, kept for {kept} s"));
                let changes = tables.iter().map(change).collect();
                Preview { changes, guarantee: Reversibility::ExactUntil, notes, ..blank }
            }
        }
    }
}

/// Whether this is a table, on its own, ours, and there may be a schema for it.
const FIND: &str = "SELECT c.oid, c.relkind = 'r' AND NOT c.relispartition \
    AND c.relpersistence <> 't' AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits h \
    WHERE c.oid IN (h.inhrelid, h.inhparent)), pg_catalog.pg_has_role(c.relowner, 'USAGE'), \
    pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') \
    FROM (SELECT) one LEFT JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass($1)";

const COLUMNS: &str = "SELECT a.attname::pg_catalog.text, \
    pg_catalog.format_type(a.atttypid, a.atttypmod) FROM pg_catalog.pg_attribute a \
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

const REFERENCES: &str = "SELECT k.conname::pg_catalog.text, \
    pg_catalog.pg_get_constraintdef(k.oid) FROM pg_catalog.pg_constraint k \
    WHERE k.conrelid = $1 AND k.contype = 'f' AND k.confrelid <> $1 ORDER BY 1";

/// What a server would not let a table be dropped for: what depends on it, or on its type, and is
/// no part of any of these tables.
const DEPENDENTS: &str = "SELECT DISTINCT \
    pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid) FROM pg_catalog.pg_depend d \
    JOIN pg_catalog.pg_class c ON c.oid = ANY ($1) AND (d.refclassid = 'pg_catalog.pg_class'::\
    pg_catalog.regclass AND d.refobjid = c.oid OR d.refclassid = 'pg_catalog.pg_type'::\
    pg_catalog.regclass AND d.refobjid IN (c.reltype, \
    (SELECT t.typarray FROM pg_catalog.pg_type t WHERE t.oid = c.reltype AND c.reltype <> 0))) \
    WHERE d.deptype = 'n' AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k \
    WHERE d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND k.oid = d.objid \
    AND k.conrelid = ANY ($1)) AND NOT EXISTS (SELECT FROM pg_catalog.pg_attrdef a \
    WHERE d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND a.oid = d.objid \
    AND a.adrelid = ANY ($1)) AND NOT EXISTS (SELECT FROM pg_catalog.pg_policy p \
    WHERE d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND p.oid = d.objid \
    AND p.polrelid = ANY ($1)) AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t \
    WHERE d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND t.oid = d.objid \
    AND t.tgrelid = ANY ($1)) AND NOT EXISTS (SELECT FROM pg_catalog.pg_rewrite w \
    WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND w.oid = d.objid \
    AND w.ev_class = ANY ($1)) ORDER BY 1";

// === impl Moving ===

impl Moving {
    /// A drop, and what takes it back.
    pub(super) fn away(
        (statement, found): (Statement, Drop),
        now: Timestamp,
        limits: &PostgresLimits,
    ) -> Result<Self, ResourceFault> {
        let (trash, mut undo) = (String::new(), None);
        let tables = match &found {
            Drop::Movable { tables, .. } => tables.clone(),
            Drop::Gone(_) => Vec::new(),
        };
        let Some(first) = tables.first() else {
            return Ok(Self::Away { statement, found, trash, undo });
        };
        let trash = format!("{TRASH}{}_{}", first.oid, now.0);
        let keep = i64::try_from(limits.trash_keep.as_millis()).unwrap_or(i64::MAX);
        let until = Some(Timestamp(now.0.saturating_add(keep)));
        let data = Kept::Trash { trash: trash.clone(), tables }.to_value()?;
        undo.replace(Undo { guarantee: Reversibility::ExactUntil, until, data });
        Ok(Self::Away { statement, found, trash, undo })
    }

    /// What is kept of it.
    pub(super) fn undo(&self) -> Option<Undo> {
        match self {
            Self::Away { undo, .. } => undo.clone(),
            Self::Back { .. } => None,
        }
    }

    /// Does it, but for the commit.
    ///
    /// # Errors
    /// When it cannot be done, or is no longer what was looked at. Nothing is changed then.
    pub(super) async fn run(
        &self,
        target: &Target,
        limits: &PostgresLimits,
    ) -> Result<Changing, Failed> {
        let link = target.connect().await?;
        link.run(&format!("BEGIN; {}", timeouts(limits))).await?;
        let count = match self {
            Self::Away { statement, found, trash, undo } => {
                let until = undo.as_ref().and_then(|undo| undo.until);
                move_away(&link, (statement, found), (trash, until)).await?
            }
            Self::Back { tables, trash } => move_back(&link, tables, trash).await?,
        };
        Changing::of(link, json!({ "tables_moved": count })).await
    }
}

// === functions ===

async fn describe(link: &Link, oid: u32) -> Result<Moved, Failed> {
    let asked = [(&oid as _, Type::OID)];
    let row = link
        .row(
            "SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.oid = $1",
            &asked,
        )
        .await?;
    let pairs = |rows: Vec<tokio_postgres::Row>| -> Result<Vec<(String, String)>, Failed> {
        rows.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?))).collect()
    };
    let columns = pairs(link.rows(COLUMNS, &asked).await?)?;
    let references = pairs(link.rows(REFERENCES, &asked).await?)?;
    Ok(Moved { oid, schema: get(&row, 0)?, name: get(&row, 1)?, columns, references })
}

async fn free_of_others(link: &Link, tables: &[Moved]) -> Result<(), Failed> {
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let rows = link.rows(DEPENDENTS, &[(&oids as _, Type::OID_ARRAY)]).await?;
    let others = rows.iter().map(|row| get(row, 0)).collect::<Result<Vec<String>, _>>()?;
    if others.is_empty() {
        return Ok(());
    }
    let why = format!("others depend on it: {}", others.join(", "));
    Err(ResourceFault::Refused(why).into())
}

async fn move_away(
    link: &Link,
    (statement, found): (&Statement, &Drop),
    (trash, until): (&str, Option<Timestamp>),
) -> Result<usize, Failed> {
    let Drop::Movable { tables, .. } = found else {
        return link.run_alone(&statement.text).await.map(|_| 1);
    };
    if tables.is_empty() {
        return Ok(0);
    }
    link.run(&format!("CREATE SCHEMA {}", name(trash))).await?;
    if let Some(until) = until {
        let mark = Mark { until, tables: tables.iter().map(|table| table.oid).collect() };
        link.run(&format!("COMMENT ON SCHEMA {} IS '{}'", name(trash), mark.text())).await?;
    }
    for table in tables {
        link.run(&format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", table.home())).await?;
    }
    // Whoever changed one of them is done now, and nobody changes them any more.
    if Drop::find(link, statement).await? != *found {
        let why = "its tables are not what they were when they were looked at".to_owned();
        return Err(ResourceFault::Gone(why).into());
    }
    for table in tables {
        for (reference, _) in &table.references {
            let drop = format!("ALTER TABLE {} DROP CONSTRAINT {}", table.home(), name(reference));
            link.run(&drop).await?;
        }
        link.run(&format!("ALTER TABLE {} SET SCHEMA {}", table.home(), name(trash))).await?;
    }
    Ok(tables.len())
}

async fn move_back(link: &Link, tables: &[Moved], trash: &str) -> Result<usize, Failed> {
    if tables.is_empty() {
        return Ok(0);
    }
    for table in tables {
        let (from, to) = (table.in_trash(trash), name(&table.schema));
        link.run(&format!("LOCK TABLE {from} IN ACCESS EXCLUSIVE MODE")).await?;
        if !matches!(table.find(link, trash).await?, Where::Trash) {
            let why = "a table is not where it was when it was looked for".to_owned();
            return Err(ResourceFault::Gone(why).into());
        }
        link.run(&format!("ALTER TABLE {from} SET SCHEMA {to}")).await?;
    }
    for table in tables {
        for (reference, definition) in &table.references {
            let (table, reference) = (table.home(), name(reference));
            link.run(&format!("ALTER TABLE {table} ADD CONSTRAINT {reference} {definition}"))
                .await?;
        }
    }
    let left = "SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n \
        ON n.oid = c.relnamespace WHERE n.nspname = $1";
    let trash_name = trash.to_owned();
    if link.rows(left, &[(&trash_name as _, Type::TEXT)]).await?.is_empty() {
        link.run(&format!("DROP SCHEMA {}", name(trash))).await?;
    }
    Ok(tables.len())
}

/// What is to be moved back: the tables that still lie there, and why others do not.
pub(super) async fn back(
    link: &Link,
    (trash, tables): (&str, &[Moved]),
    place: &str,
) -> Result<(Moving, Preview, Vec<Conflict>), Failed> {
    let (mut found, mut conflicts) = (Vec::new(), Vec::new());
    for table in tables {
        match table.find(link, trash).await? {
            Where::Home => {}
            Where::Trash => found.push(table.clone()),
            Where::Lost(why) => {
                conflicts.push(Conflict { resource: table.address(place), why: why.to_owned() });
            }
        }
    }
    let change = |table: &Moved| Change {
        resource: table.address(place),
        before: None,
        after: Some(table.shown()),
    };
    let guarantee =
        if found.is_empty() { Reversibility::NoEffect } else { Reversibility::Compensable };
    let preview = Preview {
        changes: found.iter().map(change).collect(),
        exact: true,
        guarantee,
        until: None,
        disclosure: Disclosure::Contained,
        notes: Vec::new(),
    };
    Ok((Moving::Back { tables: found, trash: trash.to_owned() }, preview, conflicts))
}

/// Where the tables are, all of them together.
pub(super) async fn state_of(
    link: &Link,
    (trash, tables): (&str, &[Moved]),
    place: &str,
) -> Result<TargetState, Failed> {
    let (mut home, mut others) = (0, Vec::new());
    for table in tables {
        let why = match table.find(link, trash).await? {
            Where::Trash => continue,
            Where::Home => {
                home += 1;
                "it is as it was before"
            }
            Where::Lost(why) => why,
        };
        others.push(Conflict { resource: table.address(place), why: why.to_owned() });
    }
    Ok(match others.len() {
        0 => TargetState::After,
        _ if home == tables.len() => TargetState::Before,
        _ => TargetState::Changed(others),
    })
}

/// What a `DROP TABLE` names.
struct Names {
    /// As SQL wants them.
    names: Vec<String>,
    optional: bool,
    cascade: bool,
}

/// What a `DROP TABLE` names; `None` if it says something else besides.
fn names(sql: &str) -> Option<Names> {
    let tokens = tokens(sql)?;
    let mut rest = tokens.iter().skip(2).peekable();
    let word = |token: &&Piece, word: &str| **token == Piece::Word(word.to_owned());
    let mut optional = false;
    if rest.next_if(|token| word(token, "if")).is_some() {
        rest.next_if(|token| word(token, "exists"))?;
        optional = true;
    }
    let (mut names, mut cascade) = (Vec::new(), false);
    loop {
        let mut parts = vec![rest.next()?.name()?];
        while rest.next_if_eq(&&Piece::Sign('.')).is_some() {
            parts.push(rest.next()?.name()?);
        }
        names.push(parts.join("."));
        match rest.next() {
            Some(Piece::Sign(',')) => {}
            None => break,
            Some(token) => {
                cascade = word(&token, "cascade");
                let ends = cascade || word(&token, "restrict");
                return (ends && rest.next().is_none()).then_some(Names {
                    names,
                    optional,
                    cascade,
                });
            }
        }
    }
    Some(Names { names, optional, cascade })
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_drop_names_its_tables() {
        let of = |sql: &str| {
            let found = names(sql)?;
            Some((found.names.join(" "), found.optional, found.cascade))
        };
        let some = |names: &str, optional, cascade| Some((names.to_owned(), optional, cascade));
        assert_eq!(of("DROP TABLE Users"), some("\"users\"", false, false));
        assert_eq!(
            of("drop /* x */ table IF EXISTS a.\"B \"\"c\", d -- e\n restrict"),
            some("\"a\".\"B \"\"c\" \"d\"", true, false)
        );
        assert_eq!(of("DROP TABLE a CASCADE"), some("\"a\"", false, true));
        for sql in [
            "DROP TABLE",
            "DROP TABLE a b",
            "DROP TABLE a,",
            "DROP TABLE a.",
            "DROP TABLE 'a'",
            "DROP TABLE IF a",
            "DROP TABLE a CASCADE b",
            "DROP TABLE U&\"a\"",
        ] {
            assert_eq!(of(sql), None, "{sql}");
        }
    }
}
