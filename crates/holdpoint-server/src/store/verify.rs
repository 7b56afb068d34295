//! Verification of a whole store, offline: the log first, then everything that is derived from it.
//! Must not write, and must not trust any column besides the bytes of records.

use super::batch::{Columns, LogState, is_outcome, may_run};
use super::fault::StoreFault;
use super::files::Layout;
use super::{query, schema};
use holdpoint_ledger::{Entry, LogFault, LogVerifier, Verified, Verifier, open_checkpoint};
use holdpoint_types::{Digest, Epoch, Record, RecordBody, Stop, Timestamp, canonical_digest};
use rusqlite::{Connection, Row};
use std::collections::{BTreeMap, BTreeSet};

/// What is wrong with a store, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyFault {
    /// The log is not what was written and signed.
    #[error(transparent)]
    Log(#[from] LogFault),
    /// The log is sound, but what the store derives from it is not.
    #[error("record {seq} is sound, but the store's index of it says another `{column}`")]
    Index {
        /// Which record.
        seq: u64,
        /// Which column.
        column: &'static str,
    },
    /// The log is sound, but the state that gateways act on does not follow from it.
    #[error("the log is sound, but the store's {what} does not follow from it")]
    State {
        /// What.
        what: &'static str,
    },
    /// The database file cannot be read on.
    #[error("the database is damaged; its first {readable} records could be read: {detail}")]
    Damaged {
        /// How many records could be read before.
        readable: u64,
        /// What SQLite said.
        detail: String,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreFault),
}

/// The state that follows from the records read so far.
#[derive(Default)]
struct Derived {
    epoch: Epoch,
    last_at: Option<Timestamp>,
    stops: BTreeMap<u64, Stop>,
    pins: BTreeMap<String, Digest>,
    keys: BTreeMap<String, (String, bool)>,
    open: BTreeSet<String>,
}

/// Verifies the store at `layout`.
pub(super) fn verify(
    layout: &Layout,
    key: &Verifier,
    against: Option<&str>,
) -> Result<Verified, VerifyFault> {
    let connection = schema::open_to_read(layout)?;
    let snapshot = connection.unchecked_transaction().map_err(StoreFault::from)?;
    let mut log = LogVerifier::new(key.clone());
    for note in checkpoints(&snapshot, key, against)? {
        log.checkpoint(&note)?;
    }
    let derived = read_log(&snapshot, &mut log)?;
    let frontier = log.frontier().clone();
    let verified = log.finish()?;
    let state = LogState::read(&snapshot)?;
    let (epoch, last_at) = (derived.epoch, derived.last_at);
    if state != (LogState { frontier, last_at, epoch }) {
        return Err(VerifyFault::State { what: "end of the log" });
    }
    derived.compare(&snapshot)?;
    check_database(&snapshot, verified.records)?;
    Ok(verified)
}

// === impl Derived ===

impl Derived {
    fn apply(&mut self, record: &Record, columns: &Columns) {
        self.last_at = Some(record.at_ms);
        if let Some(action) = &columns.action {
            if is_outcome(&record.body) {
                self.open.remove(action);
            }
            if may_run(&record.body) {
                self.open.insert(action.clone());
            }
        }
        match &record.body {
            RecordBody::Stopped { stop, epoch } => {
                self.epoch = *epoch;
                self.stops.insert(stop.id, stop.clone());
            }
            RecordBody::Released { id, epoch, .. } => {
                self.epoch = *epoch;
                self.stops.remove(id);
            }
            RecordBody::ToolPinned { tool, definition, .. } => {
                self.pins.insert(tool.to_string(), *definition);
            }
            RecordBody::KeyIssued { agent, key, .. } => {
                self.keys.insert(key.clone(), (agent.to_string(), true));
            }
            RecordBody::KeysRevoked { agent, .. } => {
                let of_agent = self.keys.values_mut().filter(|(name, _)| name == agent.as_str());
                of_agent.for_each(|(_, valid)| *valid = false);
            }
            RecordBody::Decision(_)
            | RecordBody::Outcome(_)
            | RecordBody::Started { .. }
            | RecordBody::SettingsLoaded { .. }
            | RecordBody::PolicyLoaded { .. }
            | RecordBody::ToolQuarantined { .. } => {}
        }
    }

    /// Compares with what the tables say.
    fn compare(self, connection: &Connection) -> Result<(), VerifyFault> {
        let differs = |what| Err(VerifyFault::State { what });
        if query::stops(connection)? != self.stops.into_values().collect::<Vec<_>>() {
            return differs("list of stops");
        }
        let pins = query::pins(connection)?;
        if pins.iter().any(|row| canonical_digest(&row.json).ok() != Some(row.definition)) {
            return differs("list of pins");
        }
        let pins = pins.into_iter().map(|row| (row.tool.to_string(), row.definition));
        if pins.collect::<BTreeMap<_, _>>() != self.pins {
            return differs("list of pins");
        }
        let keys = query::keys(connection)?.into_iter();
        let keys = keys.map(|row| (row.key_id, (row.agent.to_string(), row.revoked_at.is_none())));
        if keys.collect::<BTreeMap<_, _>>() != self.keys {
            return differs("list of keys");
        }
        let open = query::open_actions(connection)?.into_iter();
        if open.map(|(action, _)| action.to_string()).collect::<BTreeSet<_>>() != self.open {
            return differs("list of open actions");
        }
        Ok(())
    }
}

/// All checkpoints by size, with the one that was kept elsewhere in its place.
fn checkpoints(
    connection: &Connection,
    key: &Verifier,
    against: Option<&str>,
) -> Result<Vec<String>, VerifyFault> {
    let mut notes = Vec::new();
    let sql = "SELECT size, note FROM checkpoints ORDER BY size";
    let mut statement = connection.prepare(sql).map_err(StoreFault::from)?;
    let mut rows = statement.query([]).map_err(StoreFault::from)?;
    while let Some(row) = rows.next().map_err(StoreFault::from)? {
        let size = query::whole(row.get(0).map_err(StoreFault::from)?)?;
        let note: String = row.get(1).map_err(StoreFault::from)?;
        notes.push((size, note));
    }
    if let Some(note) = against {
        let number = notes.len() as u64;
        let opened = open_checkpoint(note, key);
        let size = opened.map_err(|fault| LogFault::Forged { number, fault })?.size;
        let place = notes.partition_point(|(other, _)| *other < size);
        notes.insert(place, (size, note.to_owned()));
    }
    Ok(notes.into_iter().map(|(_, note)| note).collect())
}

/// Feeds every record to `log`, and gives the state that follows from them.
fn read_log(connection: &Connection, log: &mut LogVerifier) -> Result<Derived, VerifyFault> {
    let sql = "SELECT seq, leaf, body, kind, gateway, action, agent, tool, resource, ruling, at_ms \
               FROM records ORDER BY seq";
    let mut statement = connection.prepare(sql).map_err(StoreFault::from)?;
    let mut rows = statement.query([]).map_err(StoreFault::from)?;
    let mut derived = Derived::default();
    loop {
        let readable = log.frontier().size();
        let damaged = |error: rusqlite::Error| damage(readable, error);
        let Some(row) = rows.next().map_err(damaged)? else { return Ok(derived) };
        let seq = query::whole(row.get(0).map_err(damaged)?)?;
        let leaf = Digest::from_bytes(row.get(1).map_err(damaged)?);
        let bytes: Vec<u8> = row.get(2).map_err(damaged)?;
        let record = log.entry(Entry { seq, leaf, bytes: &bytes })?;
        let columns = Columns::of(&record);
        compare_index(row, (seq, &record), &columns).map_err(damaged)??;
        derived.apply(&record, &columns);
    }
}

/// Compares the index columns of a row with its record.
fn compare_index(
    row: &Row<'_>,
    (seq, record): (u64, &Record),
    columns: &Columns,
) -> rusqlite::Result<Result<(), VerifyFault>> {
    let stored = Columns {
        kind: row.get(3)?,
        gateway: row.get(4)?,
        action: row.get(5)?,
        agent: row.get(6)?,
        tool: row.get(7)?,
        resource: row.get(8)?,
        ruling: row.get(9)?,
    };
    let same = [
        ("kind", stored.kind == columns.kind),
        ("gateway", stored.gateway == columns.gateway),
        ("action", stored.action == columns.action),
        ("agent", stored.agent == columns.agent),
        ("tool", stored.tool == columns.tool),
        ("resource", stored.resource == columns.resource),
        ("ruling", stored.ruling == columns.ruling),
        ("at_ms", row.get::<_, i64>(10)? == record.at_ms.0),
    ];
    let other = same.into_iter().find(|(_, same)| !same);
    Ok(other.map_or(Ok(()), |(column, _)| Err(VerifyFault::Index { seq, column })))
}

/// Asks SQLite to check its own structures: indexes, free pages, orderings.
fn check_database(connection: &Connection, readable: u64) -> Result<(), VerifyFault> {
    let sql = "PRAGMA integrity_check(1)";
    let said = connection.query_row(sql, [], |row| row.get::<_, String>(0));
    match said.map_err(|error| damage(readable, error))?.as_str() {
        "ok" => Ok(()),
        detail => Err(VerifyFault::Damaged { readable, detail: detail.to_owned() }),
    }
}

fn damage(readable: u64, error: rusqlite::Error) -> VerifyFault {
    match StoreFault::from(error) {
        StoreFault::Corrupt { detail } => VerifyFault::Damaged { readable, detail },
        fault => VerifyFault::Store(fault),
    }
}
