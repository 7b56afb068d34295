//! What a table is: its columns, and what tells its rows apart.
//!
//! Owns reading the schema and quoting names. Must never build SQL from a name that is not quoted.

use super::value::{Image, decode, encode, weight};
use rusqlite::types::Value as Cell;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};

/// One ordinary table of the database.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// Its name as the schema writes it.
    pub(super) name: String,
    /// `main`, or what is attached.
    database: &'static str,
    /// Its columns in their order, generated ones too.
    pub(super) columns: Vec<Column>,
    /// The columns of its declared primary key, in the key's order.
    pub(super) primary: Vec<String>,
    /// A name by which the rowid can be asked for; absent for a table without.
    pub(super) rowid: Option<&'static str>,
    /// True if the only column of the primary key is the rowid by another name.
    alias: bool,
    /// True if there are rowids, and columns hide them.
    hidden: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) generated: bool,
}

/// Where a row lies now.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    pub(super) rowid: Option<i64>,
    pub(super) image: Image,
}

// === impl Table ===

impl Table {
    /// The table called `name`. `None` if there is none, or it is virtual or a view.
    pub(super) fn read(
        conn: &Connection,
        database: &'static str,
        name: &str,
    ) -> rusqlite::Result<Option<Self>> {
        let kind = "SELECT name, type, wr FROM pragma_table_list WHERE schema = ?1 \
                    AND lower(name) = lower(?2)";
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?));
        let found = conn.query_row(kind, [database, name], read).optional()?;
        let found: Option<(String, String, bool)> = found;
        let Some((name, kind, without_rowid)) = found else { return Ok(None) };
        if kind != "table" && kind != "shadow" {
            return Ok(None);
        }
        let listed = columns(conn, database, &name)?;
        let mut primary: Vec<_> = listed.iter().filter(|(_, place, _)| *place > 0).collect();
        primary.sort_by_key(|(_, place, _)| *place);
        let alias = !without_rowid
            && matches!(*primary, [(_, _, kind)] if kind.eq_ignore_ascii_case("integer"));
        let primary = primary.iter().map(|(column, ..)| column.name.clone()).collect();
        let columns: Vec<Column> = listed.into_iter().map(|(column, ..)| column).collect();
        let free = |word: &&'static str| {
            !columns.iter().any(|column| column.name.eq_ignore_ascii_case(word))
        };
        let rowid = ["rowid", "_rowid_", "oid"].into_iter().find(free);
        let rowid = rowid.filter(|_| !without_rowid);
        let hidden = rowid.is_none() && !without_rowid;
        Ok(Some(Self { name, database, columns, primary, rowid, alias, hidden }))
    }

    /// What tells rows apart within one transaction: the rowid, or the primary key. Empty if
    /// nothing does, because columns hide the rowid.
    pub(super) fn key(&self) -> Vec<String> {
        match self.rowid {
            Some(rowid) => vec![rowid.to_owned()],
            None if self.hidden => Vec::new(),
            None => self.primary.iter().map(|name| quoted(name)).collect(),
        }
    }

    /// The columns, quoted, each after `prefix`.
    pub(super) fn listed(&self, prefix: &str) -> Vec<String> {
        self.columns.iter().map(|column| format!("{prefix}{}", quoted(&column.name))).collect()
    }

    /// The name, quoted, with its database.
    pub(super) fn quoted(&self) -> String {
        format!("{}.{}", self.database, quoted(&self.name))
    }

    /// The image in the columns of `row` from `first` on, and its weight in bytes.
    pub(super) fn image(&self, row: &Row<'_>, first: usize) -> rusqlite::Result<(Image, usize)> {
        let (mut image, mut bytes) = (Image::new(), 0_usize);
        for (at, column) in self.columns.iter().enumerate() {
            let cell = row.get_ref(first.saturating_add(at))?;
            bytes = bytes.saturating_add(weight(cell));
            image.insert(column.name.clone(), encode(cell));
        }
        Ok((image, bytes))
    }

    /// The row that has the key of `image`, which lay at `rowid`.
    pub(super) fn find(
        &self,
        conn: &Connection,
        image: &Image,
        rowid: Option<i64>,
    ) -> rusqlite::Result<Option<Found>> {
        let (condition, key) = self.condition(image, rowid);
        let shown = self.rowid.unwrap_or("NULL");
        let columns = self.listed("").join(", ");
        let sql = format!("SELECT {shown}, {columns} FROM {} WHERE {condition}", self.quoted());
        let mut statement = conn.prepare_cached(&sql)?;
        let read = |row: &Row<'_>| Ok(Found { rowid: row.get(0)?, image: self.image(row, 1)?.0 });
        let found = statement.query_row(params_from_iter(key), read).optional()?;
        // A collation may take another key for the same, and a rowid may be another row's by now.
        let same = |found: &Found| {
            self.primary.iter().all(|name| found.image.get(name) == image.get(name))
        };
        Ok(found.filter(same))
    }

    /// The row at `rowid`.
    pub(super) fn find_rowid(
        &self,
        conn: &Connection,
        rowid: i64,
    ) -> rusqlite::Result<Option<Image>> {
        let Some(name) = self.rowid else { return Ok(None) };
        let (columns, from) = (self.listed("").join(", "), self.quoted());
        let sql = format!("SELECT {columns} FROM {from} WHERE {name} = ?1");
        let read = |row: &Row<'_>| Ok(self.image(row, 0)?.0);
        conn.prepare_cached(&sql)?.query_row([rowid], read).optional()
    }

    /// Takes the row with the key of `image` away.
    pub(super) fn delete(&self, conn: &Connection, found: &Found) -> rusqlite::Result<()> {
        let (condition, key) = match (self.rowid, found.rowid) {
            (Some(name), Some(rowid)) => (format!("{name} = ?1"), vec![Cell::Integer(rowid)]),
            _ => self.condition(&found.image, None),
        };
        let sql = format!("DELETE FROM {} WHERE {condition}", self.quoted());
        conn.prepare_cached(&sql)?.execute(params_from_iter(key)).map(drop)
    }

    /// Puts a row back, at `rowid`; one that has a key goes elsewhere if that is taken. Gives where
    /// it lies.
    pub(super) fn insert(
        &self,
        conn: &Connection,
        image: &Image,
        rowid: Option<i64>,
    ) -> rusqlite::Result<Option<i64>> {
        let own: Vec<&Column> = self.columns.iter().filter(|column| !column.generated).collect();
        let mut names: Vec<String> = own.iter().map(|column| quoted(&column.name)).collect();
        let mut places: Vec<String> = (1..=own.len()).map(|at| format!("?{at}")).collect();
        let null = serde_json::Value::Null;
        let cells = own.iter().map(|column| image.get(&column.name).unwrap_or(&null));
        let mut cells: Vec<Cell> = cells.filter_map(decode).collect();
        if let (Some(name), false) = (self.rowid, self.alias) {
            let at = cells.len().saturating_add(1);
            let table = self.quoted();
            let taken = format!("EXISTS (SELECT 1 FROM {table} WHERE {name} = ?{at})");
            places.push(match self.address_key(image) {
                Some(_) => format!("CASE WHEN {taken} THEN NULL ELSE ?{at} END"),
                // Nothing else tells it apart.
                None => format!("?{at}"),
            });
            names.push(name.to_owned());
            cells.push(rowid.map_or(Cell::Null, Cell::Integer));
        }
        let (names, places) = (names.join(", "), places.join(", "));
        // The clause overrules one of the schema that would replace what is there.
        let into = self.quoted();
        let sql = format!("INSERT OR ABORT INTO {into} ({names}) VALUES ({places})");
        conn.prepare_cached(&sql)?.execute(params_from_iter(cells))?;
        Ok(self.rowid.map(|_| conn.last_insert_rowid()))
    }

    /// True if the columns are those of `image`, and all its values can be put back.
    pub(super) fn fits(&self, image: &Image) -> bool {
        let known = self.columns.iter().all(|column| image.contains_key(&column.name));
        known
            && image.len() == self.columns.len()
            && image.values().all(|value| decode(value).is_some())
    }

    /// The columns of a row's address with their values.
    pub(super) fn address_key<'a>(
        &'a self,
        image: &'a Image,
    ) -> Option<Vec<(&'a str, &'a serde_json::Value)>> {
        let key: Option<Vec<_>> =
            self.primary.iter().map(|name| Some((name.as_str(), image.get(name)?))).collect();
        key.filter(|key| !key.is_empty() && key.iter().all(|(_, value)| !value.is_null()))
    }

    /// A condition that finds the row with the key of `image`: its primary key if it has a whole
    /// one, for rowids may move; else its rowid.
    fn condition(&self, image: &Image, rowid: Option<i64>) -> (String, Vec<Cell>) {
        let key = self.address_key(image).unwrap_or_default();
        let cells: Vec<Cell> = key.iter().filter_map(|(_, value)| decode(value)).collect();
        if !cells.is_empty() && cells.len() == key.len() {
            let names = key.iter().enumerate();
            let parts: Vec<String> = names
                .map(|(at, (name, _))| format!("{} = ?{}", quoted(name), at.saturating_add(1)))
                .collect();
            return (parts.join(" AND "), cells);
        }
        let name = self.rowid.unwrap_or("NULL");
        (format!("{name} = ?1"), vec![rowid.map_or(Cell::Null, Cell::Integer)])
    }
}

/// A name as SQL writes it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Each column with its place in the primary key, from one, and its declared type.
fn columns(
    conn: &Connection,
    database: &str,
    table: &str,
) -> rusqlite::Result<Vec<(Column, i64, String)>> {
    let sql = "SELECT name, hidden, pk, type FROM pragma_table_xinfo(?1, ?2) ORDER BY cid";
    let mut statement = conn.prepare(sql)?;
    let read = |row: &Row<'_>| {
        let column = Column { name: row.get(0)?, generated: row.get::<_, i64>(1)? > 1 };
        Ok((column, row.get(2)?, row.get(3)?))
    };
    statement.query_map([table, database], read)?.collect()
}
