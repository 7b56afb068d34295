//! Which rows a transaction changes, with what they were and what they became.
//!
//! Owns the temporary tables and triggers that note each row before it changes first; triggers of
//! the schema, cascades and generated columns come out as they are. They live in the transaction's
//! own connection and vanish with it. Must never write to a table of the target.
//!
//! SQLite's session extension sees no table without a primary key and no row whose key is null,
//! and of an update only the columns that change; so it is not used.

use super::open::OURS;
use super::table::{Table, quoted};
use super::value::{Image, address, decode};
use crate::resource::Change;
use rusqlite::{Connection, Row};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// One row that is other than it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RowChange {
    /// Its address.
    pub(super) resource: String,
    pub(super) table: String,
    /// Where it lay or lies; absent in a table without rowids.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) rowid: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) before: Option<Image>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) after: Option<Image>,
}

/// All tables that are watched.
#[derive(Debug, Default)]
pub(super) struct Capture {
    watched: BTreeMap<String, (usize, Table)>,
}

/// What was captured.
#[derive(Debug, Default)]
pub(super) struct Captured {
    /// The changes, unless there are too many.
    pub(super) changes: Vec<RowChange>,
    /// How many rows changed.
    pub(super) rows: usize,
    /// How many bytes their images weigh.
    pub(super) bytes: usize,
    /// False if a value has no form in which it could be put back.
    pub(super) restorable: bool,
}

/// How much is kept; beyond that it is only counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) rows_max: usize,
    pub(super) bytes_max: usize,
}

// === impl RowChange ===

impl RowChange {
    /// What people see of it.
    pub(super) fn shown(&self) -> Change {
        let side = |image: &Option<Image>| image.clone().map(Value::Object);
        let (before, after) = (side(&self.before), side(&self.after));
        Change { resource: self.resource.clone(), before, after }
    }

    /// What takes it back.
    pub(super) fn inverted(&self) -> Self {
        let (before, after) = (self.after.clone(), self.before.clone());
        Self { before, after, ..self.clone() }
    }
}

// === impl Capture ===

impl Capture {
    /// Watches one more table. `whole` notes all its rows at once, for statements that replace rows
    /// without telling triggers. False if its rows cannot be told apart.
    pub(super) fn watch(
        &mut self,
        conn: &Connection,
        name: &str,
        whole: Noted,
    ) -> rusqlite::Result<bool> {
        if self.watched.contains_key(&name.to_lowercase()) {
            return Ok(true);
        }
        let Some(table) = Table::read(conn, "main", name)? else { return Ok(false) };
        if table.key().is_empty() {
            return Ok(false);
        }
        let at = self.watched.len();
        conn.execute_batch(&notes(&table, at))?;
        if whole == Noted::All {
            let (key, columns) = (table.key().join(", "), table.listed("").join(", "));
            let from = table.quoted();
            conn.execute_batch(&format!(
                "INSERT INTO temp.{OURS}{at} SELECT {key}, 1, {columns} FROM {from}"
            ))?;
        }
        self.watched.insert(name.to_lowercase(), (at, table));
        Ok(true)
    }

    /// Every row that is other than it was, ordered by table and key.
    pub(super) fn changes(
        &self,
        conn: &Connection,
        place: &str,
        room: Room,
    ) -> rusqlite::Result<Captured> {
        let mut captured = Captured { restorable: true, ..Captured::default() };
        for (at, table) in self.watched.values() {
            let mut statement = conn.prepare(&compared(table, *at))?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                captured.add(table, row, place, room)?;
            }
        }
        captured.changes = one_each(captured.changes);
        Ok(captured)
    }
}

/// Which rows are noted before anything changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noted {
    /// None: triggers note what changes.
    AsTheyChange,
    /// All of them.
    All,
}

// === impl Captured ===

impl Captured {
    fn add(
        &mut self,
        table: &Table,
        row: &Row<'_>,
        place: &str,
        room: Room,
    ) -> rusqlite::Result<()> {
        let (was, is): (bool, bool) = (row.get(0)?, row.get(1)?);
        let rowid: Option<i64> = row.get(2)?;
        let second = table.columns.len().saturating_add(3);
        let before = if was { Some(table.image(row, 3)?) } else { None };
        let after = if is { Some(table.image(row, second)?) } else { None };
        let weigh = |side: &Option<(Image, usize)>| side.as_ref().map_or(0, |(_, bytes)| *bytes);
        let bytes = weigh(&before).saturating_add(weigh(&after));
        let (before, after) = (before.map(|(image, _)| image), after.map(|(image, _)| image));
        if before == after {
            return Ok(());
        }
        let at = rowid.unwrap_or_default().into();
        let named = |image: &Image| {
            let key = table.address_key(image).unwrap_or_else(|| vec![("rowid", &at)]);
            address(place, &table.name, key.into_iter())
        };
        let sound = |image: &Image| image.values().all(|value| decode(value).is_some());
        self.restorable &= before.iter().chain(&after).all(sound);
        self.bytes = self.bytes.saturating_add(bytes);
        let name = table.name.clone();
        let change = |resource, before, after| RowChange {
            resource,
            table: name.clone(),
            rowid,
            before,
            after,
        };
        let (old, new) = (before.as_ref().map(named), after.as_ref().map(named));
        match (old, new) {
            // What gets another key is another row.
            (Some(old), Some(new)) if old != new => {
                self.push(change(old, before, None), room);
                self.push(change(new, None, after), room);
            }
            (old, new) => {
                self.push(change(new.or(old).unwrap_or_default(), before, after), room);
            }
        }
        Ok(())
    }

    fn push(&mut self, change: RowChange, room: Room) {
        self.rows = self.rows.saturating_add(1);
        if self.rows > room.rows_max || self.bytes > room.bytes_max {
            self.changes = Vec::new();
        } else {
            self.changes.push(change);
        }
    }
}

/// A row that was replaced lies elsewhere, but has the key that it had: one change, or none.
fn one_each(changes: Vec<RowChange>) -> Vec<RowChange> {
    let mut places = BTreeMap::new();
    let mut each: Vec<RowChange> = Vec::with_capacity(changes.len());
    for change in changes {
        let known = places.get(&change.resource).and_then(|at: &usize| each.get_mut(*at));
        match (known, &change.before, &change.after) {
            (Some(known), Some(_), None) if known.before.is_none() => known.before = change.before,
            (Some(known), None, Some(_)) if known.after.is_none() => {
                (known.after, known.rowid) = (change.after, change.rowid);
            }
            _ => {
                places.insert(change.resource.clone(), each.len());
                each.push(change);
            }
        }
    }
    each.retain(|change| change.before != change.after);
    each
}

/// The SQL that makes the notes of a table and what writes them.
///
/// Triggers of the temporary schema run before those of the table, so the first note of a row is
/// what it was. `INSERT OR IGNORE` would not do: the outer statement's clause overrules it.
fn notes(table: &Table, at: usize) -> String {
    let keys = table.key();
    let count = keys.len();
    let on = table.quoted();
    let noted = format!("{OURS}{at}");
    let key_columns: Vec<String> = (0..count).map(|key| format!("k{key}")).collect();
    let images: Vec<String> = (0..table.columns.len()).map(|column| format!("c{column}")).collect();
    let (listed, images) = (key_columns.join(", "), images.join(", "));
    let primary = match table.rowid {
        Some(_) => format!("k0 INTEGER PRIMARY KEY, there, {images}"),
        None => format!("{listed}, there, {images}"),
    };
    let known = |side: &str| {
        let pairs = keys.iter().zip(&key_columns);
        let same: Vec<String> = pairs.map(|(key, own)| format!("{own} = +{side}.{key}")).collect();
        format!("WHERE NOT EXISTS (SELECT 1 FROM {noted} WHERE {})", same.join(" AND "))
    };
    let of =
        |side: &str| keys.iter().map(|key| format!("{side}.{key}")).collect::<Vec<_>>().join(", ");
    let (old, new) = (of("OLD"), of("NEW"));
    let was = table.listed("OLD.").join(", ");
    let (old_unknown, new_unknown) = (known("OLD"), known("NEW"));
    let keep = format!("INSERT INTO {noted} SELECT {old}, 1, {was} {old_unknown};");
    let mark = format!("INSERT INTO {noted} ({listed}, there) SELECT {new}, 0 {new_unknown};");
    let trigger = |name: &str, when: &str, what: &str| {
        format!("CREATE TEMP TRIGGER {noted}_{name} {when} ON {on} BEGIN {what} END;")
    };
    let index = match table.rowid {
        Some(_) => String::new(),
        None => format!("CREATE INDEX temp.{noted}_k ON {noted} ({listed});"),
    };
    [
        format!("CREATE TEMP TABLE {noted} ({primary});"),
        index,
        trigger("u", "BEFORE UPDATE", &keep),
        trigger("d", "BEFORE DELETE", &keep),
        trigger("i", "AFTER INSERT", &mark),
        trigger("m", "AFTER UPDATE", &mark),
    ]
    .concat()
}

/// The SQL that sets each noted row beside what it is now: was it there, is it there, its rowid,
/// what it was, what it is.
fn compared(table: &Table, at: usize) -> String {
    let keys = table.key();
    let same: Vec<String> = keys
        .iter()
        .enumerate()
        .map(|(at, key)| match table.rowid {
            Some(_) => format!("t.{key} = n.k{at}"),
            // One finds by the key's index, the other tells apart what its collation does not.
            None => format!("t.{key} = n.k{at} AND t.{key} = n.k{at} COLLATE BINARY"),
        })
        .collect();
    let there = match keys.first() {
        Some(key) => format!("t.{key} IS NOT NULL"),
        None => "0".to_owned(),
    };
    let rowid = if table.rowid.is_some() { "n.k0" } else { "NULL" };
    let was: Vec<String> = (0..table.columns.len()).map(|column| format!("n.c{column}")).collect();
    let order: Vec<String> = (0..keys.len()).map(|key| format!("n.k{key}")).collect();
    format!(
        "SELECT n.there, {there}, {rowid}, {}, {} FROM temp.{} n LEFT JOIN {} t ON {} ORDER BY {}",
        was.join(", "),
        table.listed("t.").join(", "),
        quoted(&format!("{OURS}{at}")),
        table.quoted(),
        same.join(" AND "),
        order.join(", "),
    )
}
