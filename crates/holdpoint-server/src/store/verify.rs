//! Verification of a whole store, offline: the log first, then everything that is derived from it.
//! Must not write, and must not trust any column besides the bytes of records.

use super::batch::{Columns, LogState};
use super::blocks;
use super::fault::StoreFault;
use super::files::Layout;
use super::rows::{KeyRow, PinRow};
use super::{approvals, checks, grants, plans, query, reverts, schema};
use holdpoint_ledger::{Entry, LogFault, LogVerifier, Verified, Verifier, open_checkpoint};
use holdpoint_types::{
    AgentName, Digest, Epoch, Record, RecordBody, Ruling, Stop, TeamName, Timestamp, ToolRef,
    canonical_digest,
};
use rusqlite::{Connection, Row};
use std::collections::BTreeMap;

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
    /// The largest number that a stop ever had.
    stop_last: u64,
    pins: BTreeMap<ToolRef, Pinned>,
    keys: BTreeMap<String, Issued>,
    /// Permitted actions without an outcome, and who permitted them.
    open: BTreeMap<String, String>,
    /// The same after the last whole block.
    open_then: BTreeMap<String, String>,
    checks: checks::Derived,
    approvals: approvals::Derived,
    grants: grants::Derived,
    plans: plans::Derived,
    reverts: reverts::Derived,
    size: u64,
}

/// What the log says about a pin.
struct Pinned {
    definition: Digest,
    by: String,
    at: Timestamp,
    seen: Option<(Digest, Timestamp)>,
}

/// What the log says about a key.
struct Issued {
    /// Absent in records of older versions.
    hash: Option<Digest>,
    agent: AgentName,
    owner: TeamName,
    at: Timestamp,
    revoked_at: Option<Timestamp>,
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
    check_kept(&snapshot, verified.records)?;
    check_database(&snapshot, verified.records)?;
    Ok(verified)
}

// === impl Derived ===

impl Derived {
    fn apply(&mut self, record: &Record, columns: &Columns) {
        self.last_at = Some(record.at_ms);
        self.checks.apply(record);
        self.approvals.apply(record);
        self.grants.apply(record);
        self.plans.apply(record, self.size);
        self.reverts.apply(record, self.size);
        self.apply_action(record, columns);
        let at = record.at_ms;
        match &record.body {
            RecordBody::Stopped { stop, epoch } => {
                self.epoch = *epoch;
                self.stop_last = self.stop_last.max(stop.id);
                self.stops.insert(stop.id, stop.clone());
            }
            RecordBody::Released { id, epoch, .. } => {
                self.epoch = *epoch;
                self.stops.remove(id);
            }
            RecordBody::ToolPinned { tool, definition, by, .. } => {
                let pinned = Pinned { definition: *definition, by: by.clone(), at, seen: None };
                self.pins.insert(tool.clone(), pinned);
            }
            RecordBody::ToolQuarantined { tool, seen, .. } => {
                if let Some(pinned) = self.pins.get_mut(tool) {
                    pinned.seen = Some((*seen, at));
                }
            }
            RecordBody::KeyIssued { agent, owner, key, hash, .. } => {
                let (agent, owner, hash) = (agent.clone(), owner.clone(), *hash);
                self.keys.insert(key.clone(), Issued { hash, agent, owner, at, revoked_at: None });
            }
            RecordBody::KeysRevoked { agent, .. } => {
                for key in self.keys.values_mut().filter(|key| key.agent == *agent) {
                    key.revoked_at.get_or_insert(at);
                }
            }
            RecordBody::Decision(_)
            | RecordBody::Outcome(_)
            | RecordBody::Checked(_)
            | RecordBody::TaskGiven(_)
            | RecordBody::Started { .. }
            | RecordBody::FoundInDoubt { .. }
            | RecordBody::SettingsLoaded { .. }
            | RecordBody::PolicyLoaded { .. }
            | RecordBody::PlanProposed(_)
            | RecordBody::PlanAccepted(_)
            | RecordBody::PlanRefused(_)
            | RecordBody::PlanEnded(_)
            | RecordBody::PlanLooked(_)
            | RecordBody::Asked(_)
            | RecordBody::Replied(_)
            | RecordBody::CredentialIssued { .. }
            | RecordBody::Approved(_)
            | RecordBody::Disapproved(_)
            | RecordBody::Reverted(_)
            | RecordBody::Granted(_)
            | RecordBody::GrantRevoked { .. }
            | RecordBody::Expired { .. }
            | RecordBody::CredentialDeleted { .. } => {}
        }
    }

    fn apply_action(&mut self, record: &Record, columns: &Columns) {
        if let Some(action) = &columns.action {
            match &record.body {
                RecordBody::Outcome(_) => {
                    self.open.remove(action);
                }
                RecordBody::Decision(decided)
                    if decided.more.decision.ruling() == Ruling::Permit =>
                {
                    self.open.insert(action.clone(), columns.gateway.clone());
                }
                _ => {}
            }
        }
        self.size += 1;
        if self.size.is_multiple_of(blocks::BLOCK) {
            self.open_then.clone_from(&self.open);
        }
    }

    /// Compares with what the tables say.
    fn compare(self, connection: &Connection) -> Result<(), VerifyFault> {
        let differs = |what| Err(VerifyFault::State { what });
        let numbers = query::stop_numbers(connection)?;
        let stop_last = (self.stop_last > 0).then(|| ("stops".to_owned(), self.stop_last));
        if numbers.into_iter().ne(stop_last)
            || query::stops(connection)?.into_iter().ne(self.stops.into_values())
        {
            return differs("list of stops");
        }
        let pins = query::pins(connection)?;
        let fits = |row: &PinRow| self.pins.get(&row.tool).is_some_and(|pin| pin.fits(row));
        if pins.len() != self.pins.len() || !pins.iter().all(fits) {
            return differs("list of pins");
        }
        let keys = query::keys(connection)?;
        let fits = |row: &KeyRow| self.keys.get(&row.key_id).is_some_and(|key| key.fits(row));
        if keys.len() != self.keys.len() || !keys.iter().all(fits) {
            return differs("list of keys");
        }
        if query::listed_open(connection)?.into_iter().ne(self.open_then) {
            return differs("list of open actions");
        }
        if !self.checks.fits(connection)? {
            return differs("list of open checks");
        }
        if !self.approvals.fits(connection)? {
            return differs("list of approvals");
        }
        if !self.grants.fits(connection)? {
            return differs("list of grants");
        }
        if !self.plans.fits(connection)? {
            return differs("list of plans");
        }
        if !self.reverts.fits(connection)? {
            return differs("list of stuck reverts");
        }
        let [index, records, both] = query::index_counts(connection, blocks::end(self.size))?;
        if index != records || both != records {
            return differs("index of actions");
        }
        Ok(())
    }
}

// === impl Pinned ===

impl Pinned {
    fn fits(&self, row: &PinRow) -> bool {
        let same = (row.definition, &row.by, row.at) == (self.definition, &self.by, self.at);
        // That a tool offers again what is pinned is not recorded, so nothing seen fits always.
        let seen = row.seen.as_ref().is_none_or(|seen| {
            self.seen == Some((seen.definition, seen.at))
                && canonical_digest(&seen.json).ok() == Some(seen.definition)
        });
        same && seen && canonical_digest(&row.json).ok() == Some(row.definition)
    }
}

// === impl Issued ===

impl Issued {
    fn fits(&self, row: &KeyRow) -> bool {
        let same = (&row.agent, &row.owner) == (&self.agent, &self.owner);
        let times = (row.issued_at, row.revoked_at) == (self.at, self.revoked_at);
        same && times && self.hash.is_none_or(|hash| hash == row.hash)
    }
}

/// Checks that the checkpoints are those that are kept: without them, damage is found all the same,
/// but not located.
fn check_kept(connection: &Connection, records: u64) -> Result<(), VerifyFault> {
    let regular = (1..=records / blocks::BLOCK).map(|number| number * blocks::BLOCK);
    if query::checkpoint_sizes(connection)?.into_iter().ne(regular) {
        return Err(VerifyFault::State { what: "list of checkpoints" });
    }
    Ok(())
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
    if let Some(note) = query::checkpoint(connection)? {
        let number = notes.len() as u64;
        let opened = open_checkpoint(&note, key);
        let size = opened.map_err(|fault| LogFault::Forged { number, fault })?.size;
        match notes.last() {
            // The end of a block is noted in both places, in the same words.
            Some((kept, same)) if *kept == size && *same == note => {}
            _ => notes.push((size, note)),
        }
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
