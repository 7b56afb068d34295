//! The whole database, for what cannot be told row by row: changes of the schema, virtual tables,
//! tables whose rows have no key.
//!
//! Owns how a database is described, kept and put back. Must never put one back over changes that
//! somebody else made.

use super::open::{Opened, told};
use super::table::{Table, quoted};
use super::value::object;
use crate::resource::{Change, ResourceFault};
use holdpoint_types::{Digest, canonical_digest};
use ring::digest::{Context, SHA256};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The name under which a kept database is attached.
const KEPT: &str = "image";
/// Where the header of a database says whether it has a write-ahead log, and what says no.
const JOURNAL: (std::ops::Range<usize>, [u8; 2]) = (18..20, [1, 1]);

/// Every object of a database, by name and kind.
pub(super) type Description = BTreeMap<(String, String), Value>;

/// One row of the schema.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Object {
    kind: String,
    name: String,
    sql: Option<String>,
}

/// The bytes of the database as it is committed.
pub(super) fn read(opened: &mut Opened, bytes_max: usize) -> Result<Vec<u8>, ResourceFault> {
    let size = |conn: &Connection| {
        let sql = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
        conn.query_row(sql, [], |row| row.get::<_, i64>(0))
    };
    let bytes = size(&opened.conn).map_err(|fault| told(&fault))?;
    if usize::try_from(bytes).map_or(true, |bytes| bytes > bytes_max) {
        let text = format!(
            "a database of {bytes} bytes, and at most {bytes_max} are kept as a whole to take \
             back what rows do not tell"
        );
        return Err(ResourceFault::Large(text));
    }
    let data = opened.conn.serialize("main").map_err(|fault| told(&fault))?;
    let mut image = data.to_vec();
    let (place, no) = JOURNAL;
    if let Some(flags) = image.get_mut(place) {
        flags.copy_from_slice(&no);
    }
    Ok(image)
}

/// Attaches a kept database. Only our own copy of it could be written, and nothing does.
pub(super) fn attach(conn: &mut Connection, image: &[u8]) -> rusqlite::Result<()> {
    conn.execute_batch(&format!("ATTACH ':memory:' AS {KEPT}"))?;
    conn.deserialize_read_exact(KEPT, image, image.len(), false)
}

/// What the main database is.
pub(super) fn describe(conn: &Connection) -> rusqlite::Result<Description> {
    described(conn, "main")
}

/// One digest of a description.
pub(super) fn digest(description: &Description) -> Result<Digest, ResourceFault> {
    let listed: Vec<_> = description.iter().collect();
    let form =
        serde_json::to_value(listed).map_err(|fault| ResourceFault::Invalid(fault.to_string()))?;
    canonical_digest(&form).map_err(|fault| ResourceFault::Invalid(fault.to_string()))
}

/// What differs, by object.
pub(super) fn differences(place: &str, before: &Description, after: &Description) -> Vec<Change> {
    let names = before.keys().chain(after.keys()).collect::<std::collections::BTreeSet<_>>();
    let sides = names.into_iter().map(|key| (key, before.get(key), after.get(key)));
    sides
        .filter(|(_, before, after)| before != after)
        .map(|((name, _), before, after)| Change {
            resource: object(place, name),
            before: before.cloned(),
            after: after.cloned(),
        })
        .collect()
}

/// Makes the main database what the attached one is. Within a transaction, with neither triggers
/// nor foreign keys in force.
pub(super) fn restore(conn: &Connection) -> rusqlite::Result<()> {
    let (now, then) = (own(conn, "main")?, own(conn, KEPT)?);
    for kind in ["trigger", "view", "index", "table"] {
        let gone = now.iter().filter(|object| object.kind == kind && !then.contains(object));
        for object in gone {
            let name = quoted(&object.name);
            conn.execute_batch(&format!("DROP {kind} IF EXISTS main.{name}"))?;
        }
    }
    build(conn, &then, |kind| kind == "table")?;
    let mut tables: Vec<Object> = objects(conn, KEPT)?;
    tables.retain(|object| object.kind == "table");
    // The counters last: filling a table moves them.
    tables.sort_by_key(|object| object.name.starts_with("sqlite_"));
    for object in &tables {
        refill(conn, &object.name)?;
    }
    build(conn, &then, |kind| kind != "table")
}

fn build(conn: &Connection, then: &[Object], fits: impl Fn(&str) -> bool) -> rusqlite::Result<()> {
    let now = own(conn, "main")?;
    let missing = then.iter().filter(|object| fits(&object.kind) && !now.contains(object));
    for sql in missing.filter_map(|object| object.sql.as_deref()) {
        conn.execute_batch(sql)?;
    }
    Ok(())
}

fn refill(conn: &Connection, name: &str) -> rusqlite::Result<()> {
    let (from, to) = (Table::read(conn, KEPT, name)?, Table::read(conn, "main", name)?);
    let (Some(from), Some(to)) = (from, to) else { return Ok(()) };
    if contents(conn, &from)? == contents(conn, &to)? {
        return Ok(());
    }
    let own = from.columns.iter().filter(|column| !column.generated);
    let mut columns: Vec<String> = own.map(|column| quoted(&column.name)).collect();
    columns.extend(from.rowid.map(str::to_owned));
    let (columns, to, from) = (columns.join(", "), to.quoted(), from.quoted());
    conn.execute_batch(&format!(
        "DELETE FROM {to}; INSERT OR ABORT INTO {to} ({columns}) SELECT {columns} FROM {from};"
    ))
}

fn described(conn: &Connection, database: &'static str) -> rusqlite::Result<Description> {
    let mut description = Description::new();
    for object in objects(conn, database)? {
        let table = match object.kind.as_str() {
            "table" => Table::read(conn, database, &object.name)?,
            _ => None,
        };
        let mut form = json!({ "kind": object.kind, "sql": object.sql });
        if let (Some(table), Some(members)) = (table, form.as_object_mut()) {
            let (rows, digest) = contents(conn, &table)?;
            if rows == 0 && object.name.starts_with("sqlite_") {
                continue;
            }
            members.insert("rows".to_owned(), rows.into());
            members.insert("contents".to_owned(), digest.to_string().into());
        }
        description.insert((object.name, object.kind), form);
    }
    Ok(description)
}

/// How many rows a table has, and a digest of all of them.
fn contents(conn: &Connection, table: &Table) -> rusqlite::Result<(u64, Digest)> {
    let columns = table.listed("");
    let mut shown = columns.clone();
    shown.extend(table.rowid.map(str::to_owned));
    let key = table.key();
    let order = if key.is_empty() { columns } else { key };
    let (listed, order, from) = (shown.join(", "), order.join(", "), table.quoted());
    let mut statement = conn.prepare(&format!("SELECT {listed} FROM {from} ORDER BY {order}"))?;
    let (mut rows, mut hash, mut count) = (statement.query([])?, Context::new(&SHA256), 0_u64);
    while let Some(row) = rows.next()? {
        count = count.saturating_add(1);
        for at in 0..shown.len() {
            hash_cell(&mut hash, row.get_ref(at)?);
        }
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.finish().as_ref());
    Ok((count, Digest::from_bytes(bytes)))
}

fn hash_cell(hash: &mut Context, cell: ValueRef<'_>) {
    let mut add = |kind: u8, bytes: &[u8]| {
        hash.update(&[kind]);
        hash.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(bytes);
    };
    match cell {
        ValueRef::Null => add(0, &[]),
        ValueRef::Integer(whole) => add(1, &whole.to_be_bytes()),
        ValueRef::Real(real) => add(2, &real.to_bits().to_be_bytes()),
        ValueRef::Text(bytes) => add(3, bytes),
        ValueRef::Blob(bytes) => add(4, bytes),
    }
}

/// The objects that SQL made, without those that belong to another.
fn own(conn: &Connection, database: &str) -> rusqlite::Result<Vec<Object>> {
    let shadows = "SELECT name FROM pragma_table_list WHERE schema = ?1 AND type = 'shadow'";
    let mut statement = conn.prepare(shadows)?;
    let read = statement.query_map([database], |row| row.get(0))?;
    let shadows = read.collect::<rusqlite::Result<std::collections::BTreeSet<String>>>()?;
    let mut all = objects(conn, database)?;
    all.retain(|object| {
        object.sql.is_some()
            && !object.name.starts_with("sqlite_")
            && !shadows.contains(&object.name)
    });
    Ok(all)
}

fn objects(conn: &Connection, database: &str) -> rusqlite::Result<Vec<Object>> {
    let sql = format!("SELECT type, name, sql FROM {database}.sqlite_schema ORDER BY rowid");
    let mut statement = conn.prepare(&sql)?;
    let read =
        |row: &Row<'_>| Ok(Object { kind: row.get(0)?, name: row.get(1)?, sql: row.get(2)? });
    statement.query_map([], read)?.collect()
}
