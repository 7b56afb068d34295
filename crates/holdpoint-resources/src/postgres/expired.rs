//! Schemas with dropped tables whose time is over.
//!
//! Owns the mark that says until when which tables are kept. Must never drop what is not
//! Holdpoint's own: a schema of ours, by name, owner and mark, with nothing in it but the tables of
//! the mark.

use super::catalog::get;
use super::change::timeouts;
use super::link::{Failed, Link};
use super::spec::PostgresLimits;
use super::text::name;
use super::trash::TRASH;
use crate::resource::ResourceFault;
use holdpoint_types::Timestamp;
use tokio_postgres::types::Type;

/// What the mark of a schema begins with.
const MARK: &str = "holdpoint: kept until ";
/// What stands between the time and the tables.
const TABLES: &str = ", tables ";

/// Until when which tables are kept, as the comment of their schema says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) until: Timestamp,
    pub(super) tables: Vec<u32>,
}

// === impl Mark ===

impl Mark {
    /// The comment. Nothing in it has to be quoted.
    pub(super) fn text(&self) -> String {
        let tables: Vec<String> = self.tables.iter().map(u32::to_string).collect();
        format!("{MARK}{}{TABLES}{}", self.until.0, tables.join(" "))
    }

    /// What a comment says; `None` if it is not exactly one of ours.
    fn read(text: &str) -> Option<Self> {
        let (until, tables) = text.strip_prefix(MARK)?.split_once(TABLES)?;
        let tables = tables.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
        let mark = Self { until: Timestamp(until.parse().ok()?), tables };
        (mark.text() == text).then_some(mark)
    }
}

// === functions ===

/// The marked schemas of our role, with their marks; with a name only that one.
const MARKED: &str = "SELECT n.nspname::pg_catalog.text, d.description \
    FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_description d \
    ON d.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.objoid = n.oid \
    JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner AND r.rolname = current_user \
    WHERE pg_catalog.starts_with(n.nspname::pg_catalog.text, $1) ORDER BY 1 LIMIT 1000";

/// The names of the schemas whose time is over, a bounded number of them.
pub(super) async fn find(link: &Link, now: Timestamp) -> Result<Vec<String>, Failed> {
    let marked = marked(link, TRASH).await?;
    let over = marked.into_iter().filter(|(_, mark)| mark.until <= now);
    Ok(over.map(|(schema, _)| schema).collect())
}

/// Drops the schema `schema` with its tables, if its time is over and it is ours; all or nothing.
pub(super) async fn let_go(
    link: &Link,
    (schema, now): (&str, Timestamp),
    limits: &PostgresLimits,
) -> Result<(), Failed> {
    link.run(&format!("BEGIN; {}", timeouts(limits))).await?;
    let found = marked(link, schema).await?.into_iter().find(|(found, _)| found == schema);
    let Some((_, mark)) = found.filter(|(_, mark)| mark.until <= now) else {
        return Err(ResourceFault::Gone("it is there no longer, or not ours".to_owned()).into());
    };
    let there = "SELECT c.relname::pg_catalog.text FROM pg_catalog.pg_class c \
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE n.nspname = $1 AND c.relkind = 'r' AND c.oid = ANY ($2) ORDER BY 1";
    let asked = [(&schema as _, Type::TEXT), (&mark.tables as _, Type::OID_ARRAY)];
    let mut tables = Vec::new();
    for row in link.rows(there, &asked).await? {
        tables.push(format!("{}.{}", name(schema), name(&get::<String>(&row, 0)?)));
    }
    if !tables.is_empty() {
        link.run(&format!("DROP TABLE {} RESTRICT", tables.join(", "))).await?;
    }
    // Whatever else somebody put there keeps all of it.
    link.run(&format!("DROP SCHEMA {} RESTRICT; COMMIT", name(schema))).await
}

async fn marked(link: &Link, begins: &str) -> Result<Vec<(String, Mark)>, Failed> {
    let mut marked = Vec::new();
    for row in link.rows(MARKED, &[(&begins as _, Type::TEXT)]).await? {
        let (schema, text): (String, String) = (get(&row, 0)?, get(&row, 1)?);
        let mark = Mark::read(&text).filter(|_| is_ours(&schema));
        marked.extend(mark.map(|mark| (schema, mark)));
    }
    Ok(marked)
}

/// True if this is exactly a name that we give: two numbers.
fn is_ours(schema: &str) -> bool {
    let numbers = schema.strip_prefix(TRASH).and_then(|rest| rest.split_once('_'));
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers.is_some_and(|(oid, time)| number(oid) && number(time))
}

#[cfg(test)]
mod tests {
    use super::{Mark, is_ours};
    use holdpoint_types::Timestamp;

    #[test]
    fn a_mark_is_read_as_it_was_written_and_nothing_else_is_one() {
        let mark = Mark { until: Timestamp(17), tables: vec![3, 40] };
        assert_eq!(mark.text(), "holdpoint: kept until 17, tables 3 40");
        assert_eq!(Mark::read(&mark.text()), Some(mark));
        for text in [
            "",
            "holdpoint: kept until 17",
            "holdpoint: kept until 17, tables ",
            "holdpoint: kept until 17, tables 3  40",
            "holdpoint: kept until +17, tables 3",
            "holdpoint: kept until 17, tables 3 and mine",
            "holdpoint: kept until 017, tables 3",
            " holdpoint: kept until 17, tables 3",
        ] {
            assert_eq!(Mark::read(text), None, "{text}");
        }
        assert!(is_ours("holdpoint_trash_12_345"));
        for schema in ["holdpoint_trash_12", "holdpoint_trash_1_", "holdpoint_trash_1_2_3"] {
            assert!(!is_ours(schema), "{schema}");
        }
        assert!(!is_ours("holdpoint_trash_1_2x") && !is_ours("trash_1_2"));
    }
}
