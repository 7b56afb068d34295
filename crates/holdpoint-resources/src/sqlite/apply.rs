//! Putting rows back, each only if it still is what the action left.
//!
//! Owns the comparison with captured rows and the order of writing. Must never overwrite, delete or
//! orphan a row that somebody else changed or added.

use super::capture::RowChange;
use super::table::{Found, Table};
use super::value::Image;
use crate::resource::{Conflict, ResourceFault, TargetState};
use rusqlite::{Connection, ErrorCode, Row};
use std::collections::{BTreeMap, BTreeSet};

/// What one row is now.
#[derive(Clone, Debug, PartialEq)]
enum RowState {
    Before,
    /// As the action left it, and where it lies.
    After(Option<Found>),
    Changed(&'static str),
}

/// What was put back, by its place among the changes, and what was kept.
#[derive(Debug, Default)]
pub(super) struct Applied {
    pub(super) restored: Vec<usize>,
    pub(super) conflicts: BTreeSet<Conflict>,
}

/// A row that refers to a row that is not there.
type Orphan = (String, Option<i64>, String, i64);

/// The rows that are to be put back.
struct Work<'a> {
    tables: &'a BTreeMap<String, Table>,
    rows: &'a [RowChange],
    /// What is left to do, and where each row lies now.
    todo: BTreeMap<usize, Option<Found>>,
    kept: BTreeMap<usize, &'static str>,
}

/// What the target is, compared with `rows`.
pub(super) fn state(conn: &Connection, rows: &[RowChange]) -> rusqlite::Result<TargetState> {
    let tables = tables(conn, rows)?;
    let (mut before, mut after, mut other) = (0_usize, 0_usize, Vec::new());
    for change in rows {
        let why = match row_state(conn, &tables, change)? {
            RowState::Before => {
                before = before.saturating_add(1);
                continue;
            }
            RowState::After(_) => {
                after = after.saturating_add(1);
                "it is as the action left it"
            }
            RowState::Changed(why) => why,
        };
        other.push(Conflict { resource: change.resource.clone(), why: why.to_owned() });
    }
    Ok(match () {
        () if after == rows.len() => TargetState::After,
        () if before == rows.len() => TargetState::Before,
        () => TargetState::Changed(other),
    })
}

/// Puts back what still is as the action left it. Within a transaction, with neither triggers nor
/// foreign keys in force.
pub(super) fn put_back(conn: &Connection, rows: &[RowChange]) -> Result<Applied, ResourceFault> {
    let told = |fault: rusqlite::Error| super::open::told(&fault);
    let tables = tables(conn, rows).map_err(told)?;
    let mut work = Work { tables: &tables, rows, todo: BTreeMap::new(), kept: BTreeMap::new() };
    for (at, change) in rows.iter().enumerate() {
        match row_state(conn, &tables, change).map_err(told)? {
            RowState::Before => {}
            RowState::After(found) => {
                work.todo.insert(at, found);
            }
            RowState::Changed(why) => {
                work.kept.insert(at, why);
            }
        }
    }
    let orphans = orphans(conn).map_err(told)?;
    conn.execute_batch("SAVEPOINT put_back").map_err(told)?;
    while !work.attempt(conn, &orphans).map_err(told)? {
        conn.execute_batch("ROLLBACK TO put_back").map_err(told)?;
    }
    conn.execute_batch("RELEASE put_back").map_err(told)?;
    Ok(work.done())
}

// === impl Work ===

impl Work<'_> {
    /// Puts all back that is left to do. False if something had to be given up, and all has to
    /// begin anew without it.
    fn attempt(&mut self, conn: &Connection, orphans_before: &[Orphan]) -> rusqlite::Result<bool> {
        let mut given_up = BTreeMap::new();
        for found in self.todo.iter().filter_map(|(at, found)| Some((at, found.as_ref()?))) {
            if let Some((table, _)) = self.at(*found.0) {
                table.delete(conn, found.1)?;
            }
        }
        let mut laid = BTreeMap::new();
        for (at, found, before) in self.lost() {
            let Some((table, change)) = self.at(at) else { continue };
            let rowid = found.as_ref().and_then(|found| found.rowid).or(change.rowid);
            match table.insert(conn, before, rowid) {
                Ok(rowid) => {
                    laid.insert(at, rowid);
                }
                Err(fault) => match fault.sqlite_error_code() {
                    Some(ErrorCode::ConstraintViolation) => {
                        given_up.insert(at, "what it was does not fit beside what is there now");
                    }
                    _ => return Err(fault),
                },
            }
        }
        if given_up.is_empty() {
            for orphan in orphans(conn)?.iter().filter(|orphan| !orphans_before.contains(orphan)) {
                self.give_up_for(conn, orphan, &laid, &mut given_up)?;
            }
        }
        self.todo.retain(|at, _| !given_up.contains_key(at));
        let done = given_up.is_empty();
        self.kept.append(&mut given_up);
        Ok(done)
    }

    /// The rows that are to lie where they lay, those first that only that tells apart.
    fn lost(&self) -> Vec<(usize, &Option<Found>, &Image)> {
        let lost = self.todo.iter().filter_map(|(&at, found)| {
            let (table, change) = self.at(at)?;
            let before = change.before.as_ref()?;
            Some((table.address_key(before).is_some(), (at, found, before)))
        });
        let mut lost: Vec<_> = lost.collect();
        lost.sort_by_key(|(keyed, _)| *keyed);
        lost.into_iter().map(|(_, lost)| lost).collect()
    }

    /// Gives up what makes an orphan: the row itself, if it was put back, or the deletion of what
    /// it refers to.
    fn give_up_for(
        &self,
        conn: &Connection,
        orphan: &Orphan,
        laid: &BTreeMap<usize, Option<i64>>,
        given_up: &mut BTreeMap<usize, &'static str>,
    ) -> rusqlite::Result<()> {
        const LONELY: &str = "it refers to a row that is not there any more";
        const NEEDED: &str = "a row that was added since refers to it";
        let (child, rowid, parent, _) = orphan;
        let is = |change: &RowChange, name: &str| change.table.eq_ignore_ascii_case(name);
        let own = laid.iter().find(|(at, lies)| {
            rowid.is_some()
                && **lies == *rowid
                && self.rows.get(**at).is_some_and(|change| is(change, child))
        });
        if let Some((at, _)) = own {
            given_up.insert(*at, LONELY);
            return Ok(());
        }
        let wanted = wanted(conn, orphan)?;
        let fits = |at: &usize| {
            self.rows.get(*at).is_some_and(|change| {
                let same = |image: &Image| {
                    wanted.iter().flatten().all(|(name, value)| image.get(name) == Some(value))
                };
                is(change, parent) && change.after.as_ref().is_some_and(same)
            })
        };
        let mut found: Vec<usize> = self.todo.keys().copied().filter(fits).collect();
        if found.is_empty() {
            let either = |at: &usize| {
                self.rows.get(*at).is_some_and(|change| is(change, parent) || is(change, child))
            };
            found = self.todo.keys().copied().filter(either).collect();
        }
        given_up.extend(found.into_iter().map(|at| (at, NEEDED)));
        Ok(())
    }

    fn at(&self, at: usize) -> Option<(&Table, &RowChange)> {
        let change = self.rows.get(at)?;
        Some((self.tables.get(&change.table)?, change))
    }

    fn done(self) -> Applied {
        let conflict = |(at, why): (usize, &str)| {
            let resource = self.rows.get(at)?.resource.clone();
            Some(Conflict { resource, why: why.to_owned() })
        };
        let conflicts = self.kept.into_iter().filter_map(conflict).collect();
        Applied { restored: self.todo.into_keys().collect(), conflicts }
    }
}

fn tables(conn: &Connection, rows: &[RowChange]) -> rusqlite::Result<BTreeMap<String, Table>> {
    let mut tables = BTreeMap::new();
    for name in rows.iter().map(|change| &change.table).collect::<BTreeSet<_>>() {
        if let Some(table) = Table::read(conn, "main", name)? {
            tables.insert(name.clone(), table);
        }
    }
    Ok(tables)
}

fn row_state(
    conn: &Connection,
    tables: &BTreeMap<String, Table>,
    change: &RowChange,
) -> rusqlite::Result<RowState> {
    let Some(table) = tables.get(&change.table) else {
        return Ok(RowState::Changed("the table is not there any more"));
    };
    if !change.before.iter().chain(&change.after).all(|image| table.fits(image)) {
        return Ok(RowState::Changed("the columns of the table changed since"));
    }
    let find = |image: &Option<Image>| match image {
        Some(image) => table.find(conn, image, change.rowid),
        None => Ok(None),
    };
    let (left, was) = (find(&change.after)?, find(&change.before)?);
    let same = |found: &Option<Found>, image: &Option<Image>| {
        found.as_ref().map(|found| &found.image) == image.as_ref()
    };
    Ok(match (&change.before, &change.after) {
        (Some(_), None) if was.is_none() => RowState::After(None),
        (_, Some(_)) if same(&left, &change.after) => RowState::After(left),
        (Some(_), _) if same(&was, &change.before) => RowState::Before,
        (None, Some(_)) if left.is_none() => RowState::Before,
        (Some(_), Some(_)) if left.is_none() => RowState::Changed("it was deleted since"),
        (_, Some(_)) => RowState::Changed("it was changed since"),
        (_, None) => RowState::Changed("another row took its key since"),
    })
}

/// Rows that refer to rows that are not there.
fn orphans(conn: &Connection) -> rusqlite::Result<Vec<Orphan>> {
    let mut statement = conn.prepare("PRAGMA main.foreign_key_check")?;
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
    statement.query_map([], read)?.collect()
}

/// The columns of the row that an orphan refers to, and their values; `None` if that is not known.
fn wanted(
    conn: &Connection,
    (child, rowid, parent, key): &Orphan,
) -> rusqlite::Result<Option<Image>> {
    let (Some(table), Some(rowid)) = (Table::read(conn, "main", child)?, *rowid) else {
        return Ok(None);
    };
    let sql = "SELECT \"from\", \"to\" FROM pragma_foreign_key_list(?1) WHERE id = ?2 ORDER BY seq";
    let mut statement = conn.prepare(sql)?;
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let pairs = statement.query_map((child, key), read)?;
    let pairs = pairs.collect::<rusqlite::Result<Vec<(String, Option<String>)>>>()?;
    let primary = Table::read(conn, "main", parent)?.map(|table| table.primary);
    let by_rowid = table.find_rowid(conn, rowid)?;
    let Some(row) = by_rowid else { return Ok(None) };
    let mut wanted = Image::new();
    for (at, (from, to)) in pairs.into_iter().enumerate() {
        let to = to.or_else(|| primary.as_ref()?.get(at).cloned());
        let (Some(to), Some(value)) = (to, row.get(&from)) else { return Ok(None) };
        wanted.insert(to, value.clone());
    }
    Ok(Some(wanted))
}
