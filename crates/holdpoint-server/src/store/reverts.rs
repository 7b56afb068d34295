//! The actions whose revert is stuck: a list that follows from the records. Must not forget one
//! before somebody took it back after all.

use super::batch::int;
use super::fault::StoreFault;
use super::query::{self, whole};
use super::{Store, StoredRecord, schema};
use holdpoint_types::{Record, RecordBody, RevertStatus};
use rusqlite::{Connection, params};
use std::collections::BTreeMap;

/// The list as it follows from the records that were read so far: for each action, the position of
/// the record that says how it stands.
#[derive(Default)]
pub(super) struct Derived {
    rows: BTreeMap<String, u64>,
}

// === impl Derived ===

impl Derived {
    pub(super) fn apply(&mut self, record: &Record, seq: u64) {
        if let RecordBody::Reverted(reverted) = &record.body {
            let of = reverted.of.to_string();
            match reverted.status == RevertStatus::Stuck {
                true => self.rows.insert(of, seq),
                false => self.rows.remove(&of),
            };
        }
    }

    /// True if the list is what follows from the records.
    pub(super) fn fits(&self, connection: &Connection) -> Result<bool, StoreFault> {
        let rows = self.rows.iter().map(|(of, seq)| (of.clone(), *seq));
        Ok(all(connection)?.into_iter().eq(rows))
    }
}

// === impl Store ===

impl Store {
    /// The newest `reverted` record of each action that nobody could take back, and nobody can tell
    /// how its target is; by action.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn stuck_reverts(&self) -> Result<Vec<StoredRecord>, StoreFault> {
        let reader = self.inner.reader.lock();
        let snapshot = reader.unchecked_transaction()?;
        all(&snapshot)?.into_iter().map(|(_, seq)| query::at(&snapshot, seq)).collect()
    }
}

/// Notes what `record` means for the list.
pub(super) fn note(connection: &Connection, record: &Record, seq: u64) -> Result<(), StoreFault> {
    let RecordBody::Reverted(reverted) = &record.body else { return Ok(()) };
    let of = reverted.of.to_string();
    match reverted.status == RevertStatus::Stuck {
        true => {
            let sql = "INSERT OR REPLACE INTO stuck_reverts (action, seq) VALUES (?1, ?2)";
            connection.prepare_cached(sql)?.execute(params![of, int(seq)?])?;
        }
        false => {
            let sql = "DELETE FROM stuck_reverts WHERE action = ?1";
            connection.prepare_cached(sql)?.execute([of])?;
        }
    }
    Ok(())
}

fn all(connection: &Connection) -> Result<Vec<(String, u64)>, StoreFault> {
    if !schema::lists_approvals(connection)? {
        return Ok(Vec::new());
    }
    let sql = "SELECT action, seq FROM stuck_reverts ORDER BY action";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push((row.get(0)?, whole(row.get(1)?)?));
    }
    Ok(found)
}
