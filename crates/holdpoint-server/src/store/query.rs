//! Everything that is read from the store. Must not write, and must not give out a record whose
//! bytes do not fit its hash.

use super::batch::int;
use super::blocks;
use super::fault::StoreFault;
use super::rows::{
    ControlRow, Inclusion, KeyRow, PinRow, RecordQuery, Seen as SeenRow, StoredRecord,
};
use holdpoint_ledger::{Verifier, decode, inclusion_proof, leaf_hash, open_checkpoint};
use holdpoint_types::{
    ActionId, ActionRecord, CheckRecord, Digest, Epoch, Field, GatewayId, Stop, Timestamp, ToolRef,
};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};
use std::str::FromStr;

const KEY_COLUMNS: &str = "SELECT key_id, hash, agent, owner, issued_ms, revoked_ms FROM keys";
const PIN_COLUMNS: &str =
    "SELECT tool, definition, json, by, at_ms, seen, seen_json, seen_ms FROM pins";
/// With the condition of an index, word by word, so that it is used.
pub(super) const OF_PEOPLE: &str = "SELECT seq, leaf, body FROM records \
     WHERE (kind = 'approved' OR kind = 'disapproved' OR kind = 'reverted') AND seq >= ?1 \
     ORDER BY seq";

/// What a reader saw last, to tell whether others wrote since.
#[derive(Debug)]
pub(super) struct Seen {
    version: i64,
    size: u64,
}

/// The conditions of a query, as they are added.
#[derive(Default)]
struct Conditions {
    sql: Vec<String>,
    values: Vec<Value>,
}

// === impl Seen ===

impl Seen {
    /// What is there now.
    pub(super) fn now(connection: &Connection) -> Result<Self, StoreFault> {
        Ok(Self { version: version(connection)?, size: size(connection)? })
    }

    /// True if the log grew by more than this process's own writer, which left it at `own_size`.
    pub(super) fn moved(
        &mut self,
        connection: &Connection,
        own_size: Option<u64>,
    ) -> Result<bool, StoreFault> {
        let version = version(connection)?;
        if version == self.version {
            return Ok(false);
        }
        let size = size(connection)?;
        let grown = size != self.size;
        *self = Self { version, size };
        Ok(grown && own_size != Some(size))
    }
}

// === impl Conditions ===

impl Conditions {
    fn add(&mut self, condition: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.values.push(value.into());
            self.sql.push(condition.replace('?', &format!("?{}", self.values.len())));
        }
    }

    fn of(connection: &Connection, query: &RecordQuery) -> Result<Self, StoreFault> {
        let mut all = Self::default();
        all.add("agent = ?", query.agent.as_ref().map(ToString::to_string));
        all.add("tool = ?", query.tool.as_ref().map(ToString::to_string));
        all.add("instr(resource, ?) > 0", query.resource.clone());
        all.add("ruling = ?", query.ruling.map(|ruling| ruling.as_str().to_owned()));
        all.add("kind = ?", query.kind.clone());
        all.add("seq > ?", query.after_seq.map(int).transpose()?);
        // Time never goes backwards in the log, so a span of time is a span of positions.
        let at = |at: Option<Timestamp>| at.map(|at| first_at(connection, at)).transpose();
        all.add("seq >= ?", at(query.since)?);
        all.add("seq < ?", at(query.until)?);
        Ok(all)
    }
}

/// The records that `query` wants.
pub(super) fn records(
    connection: &Connection,
    query: &RecordQuery,
) -> Result<Vec<StoredRecord>, StoreFault> {
    let conditions = Conditions::of(connection, query)?;
    let filter = match conditions.sql.is_empty() {
        true => String::new(),
        false => format!("WHERE {}", conditions.sql.join(" AND ")),
    };
    let order = if query.newest_first { "DESC" } else { "ASC" };
    let limit = query.limit;
    let sql =
        format!("SELECT seq, leaf, body FROM records {filter} ORDER BY seq {order} LIMIT {limit}");
    read_records(connection, &sql, conditions.values)
}

/// What people said to approvals, and what was taken back, since `since`; oldest first.
pub(super) fn of_people(
    connection: &Connection,
    since: Timestamp,
) -> Result<Vec<StoredRecord>, StoreFault> {
    let snapshot = connection.unchecked_transaction()?;
    read_records(&snapshot, OF_PEOPLE, vec![first_at(&snapshot, since)?.into()])
}

/// The records about approvals and plans in a span of positions, oldest first, at most so many:
/// what was held or proposed, what was said, and which plans ended.
pub(super) fn about_approvals(
    connection: &Connection,
    (from, before): (u64, u64),
    most: u32,
) -> Result<Vec<StoredRecord>, StoreFault> {
    let sql = "SELECT seq, leaf, body FROM records WHERE seq >= ?1 AND seq < ?2 \
               AND (ruling = 'hold' OR kind IN ('approved', 'disapproved', 'plan_proposed', \
               'plan_accepted', 'plan_refused', 'plan_ended')) ORDER BY seq LIMIT ?3";
    let values = vec![int(from)?.into(), int(before)?.into(), i64::from(most).into()];
    read_records(connection, sql, values)
}

/// The position of the first record that was written at `at` or later.
fn first_at(connection: &Connection, at: Timestamp) -> Result<i64, StoreFault> {
    let mut written = connection.prepare_cached("SELECT at_ms FROM records WHERE seq = ?1")?;
    let (mut low, mut high) = (0, int(size(connection)?)?);
    while low < high {
        let middle = low + (high - low) / 2;
        let found: Option<i64> = written.query_row([middle], |row| row.get(0)).optional()?;
        match found {
            Some(found) if found < at.0 => low = middle + 1,
            Some(_) => high = middle,
            None => return Err(StoreFault::corrupt(format!("record {middle} is missing"))),
        }
    }
    Ok(low)
}

/// The records of one action, oldest first.
pub(super) fn of_action(
    connection: &Connection,
    action: ActionId,
) -> Result<Vec<StoredRecord>, StoreFault> {
    let snapshot = connection.unchecked_transaction()?;
    of_action_in(&snapshot, action)
}

/// The record at position `seq`.
pub(super) fn at(connection: &Connection, seq: u64) -> Result<StoredRecord, StoreFault> {
    let sql = "SELECT seq, leaf, body FROM records WHERE seq = ?1";
    let found = read_records(connection, sql, vec![int(seq)?.into()])?.pop();
    found.ok_or_else(|| StoreFault::corrupt(format!("record {seq} is missing")))
}

/// The same inside a transaction.
pub(super) fn of_action_in(
    snapshot: &Connection,
    action: ActionId,
) -> Result<Vec<StoredRecord>, StoreFault> {
    let sql = "SELECT seq, leaf, body FROM records WHERE seq IN \
               (SELECT seq FROM action_records WHERE action = ?1 UNION ALL \
               SELECT seq FROM records WHERE seq >= ?2 AND action = ?1) ORDER BY seq";
    // The first record of the open block; while a block is filled, this is a little more.
    let fresh = int(blocks::end(size(snapshot)?))?;
    read_records(snapshot, sql, vec![action.to_string().into(), fresh.into()])
}

/// The validator that made a check.
pub(super) fn checked_by(checked: &ActionRecord<CheckRecord>) -> Option<&str> {
    match &checked.lineage.post_validation {
        Field::Present(findings) => findings.first().map(|found| found.validator.as_str()),
        Field::Absent(_) => None,
    }
}

/// Permitted actions without an outcome, with who permitted them.
pub(super) fn open_actions(
    connection: &Connection,
) -> Result<Vec<(ActionId, GatewayId)>, StoreFault> {
    let snapshot = connection.unchecked_transaction()?;
    let fresh = int(blocks::end(size(&snapshot)?))?;
    let opened = "SELECT action, gateway FROM open_actions UNION \
                  SELECT action, gateway FROM records WHERE seq >= ?1 AND ruling = 'permit'";
    let ended = "SELECT action FROM records WHERE seq >= ?1 AND kind = 'outcome'";
    let sql = format!("SELECT * FROM ({opened}) WHERE action NOT IN ({ended}) ORDER BY action");
    all(&snapshot, (&sql, &[fresh]), |row| Ok((text(row, 0)?, text(row, 1)?)))
}

/// Permitted actions without an outcome, as the store listed them after its last whole block.
pub(super) fn listed_open(connection: &Connection) -> Result<Vec<(String, String)>, StoreFault> {
    let sql = "SELECT action, gateway FROM open_actions ORDER BY action";
    all(connection, (sql, &[]), |row| Ok((row.get(0)?, row.get(1)?)))
}

/// How many records the index of actions has, and how many it should have with `indexed` records in
/// whole blocks; equal sets give equal numbers three times.
pub(super) fn index_counts(connection: &Connection, indexed: u64) -> Result<[u64; 3], StoreFault> {
    let sql = "SELECT (SELECT count(*) FROM action_records), \
               (SELECT count(action) FROM records WHERE seq < ?1), \
               (SELECT count(*) FROM records JOIN action_records USING (action, seq) \
               WHERE seq < ?1)";
    let row = |row: &Row<'_>| Ok([row.get(0)?, row.get(1)?, row.get(2)?]);
    let [index, records, both] = connection.query_row(sql, [int(indexed)?], row)?;
    Ok([whole(index)?, whole(records)?, whole(both)?])
}

/// When the newest record was written.
pub(super) fn last_at(connection: &Connection) -> Result<Option<Timestamp>, StoreFault> {
    let sql = "SELECT last_at_ms FROM log_state";
    let at: Option<i64> = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    Ok(at.map(Timestamp))
}

/// How many records the log has.
pub(super) fn size(connection: &Connection) -> Result<u64, StoreFault> {
    let sql = "SELECT size FROM log_state";
    connection
        .prepare_cached(sql)?
        .query_row([], |row| row.get(0))
        .map_err(Into::into)
        .and_then(whole)
}

/// The newest checkpoint.
pub(super) fn checkpoint(connection: &Connection) -> Result<Option<String>, StoreFault> {
    let sql = "SELECT note FROM log_state";
    Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

/// The proof that record `seq` is in the log.
pub(super) fn inclusion(
    connection: &Connection,
    key: &Verifier,
    seq: u64,
) -> Result<Option<Inclusion>, StoreFault> {
    let snapshot = connection.unchecked_transaction()?;
    let Some(note) = checkpoint(&snapshot)? else { return Ok(None) };
    let size = open_checkpoint(&note, key)?.size;
    let mut leaves = Vec::new();
    let mut statement =
        snapshot.prepare_cached("SELECT leaf FROM records WHERE seq < ?1 ORDER BY seq")?;
    let mut rows = statement.query([int(size)?])?;
    while let Some(row) = rows.next()? {
        leaves.push(Digest::from_bytes(row.get(0)?));
    }
    let Some(proof) = inclusion_proof(&leaves, seq) else { return Ok(None) };
    let leaf = usize::try_from(seq).ok().and_then(|seq| leaves.get(seq)).copied();
    Ok(leaf.map(|leaf| Inclusion { seq, leaf, proof, note }))
}

/// The epoch and the stops in force.
pub(super) fn control(connection: &Connection) -> Result<ControlRow, StoreFault> {
    let snapshot = connection.unchecked_transaction()?;
    let sql = "SELECT epoch FROM log_state";
    let epoch = snapshot.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    Ok(ControlRow { epoch: Epoch(whole(epoch)?), stops: stops(&snapshot)? })
}

/// The stops in force, oldest first.
pub(super) fn stops(connection: &Connection) -> Result<Vec<Stop>, StoreFault> {
    let sql = "SELECT id, scope, reason, by, since_ms FROM stops ORDER BY id";
    all(connection, (sql, &[]), |row| {
        let since = Timestamp(row.get(4)?);
        let (reason, by) = (row.get(2)?, row.get(3)?);
        Ok(Stop { id: whole(row.get(0)?)?, scope: text(row, 1)?, reason, by, since })
    })
}

/// The largest number that a stop ever had, as the database remembers it.
pub(super) fn stop_numbers(connection: &Connection) -> Result<Vec<(String, u64)>, StoreFault> {
    let sql = "SELECT name, seq FROM sqlite_sequence";
    all(connection, (sql, &[]), |row| Ok((row.get(0)?, whole(row.get(1)?)?)))
}

/// How many records each checkpoint signs, smallest first.
pub(super) fn checkpoint_sizes(connection: &Connection) -> Result<Vec<u64>, StoreFault> {
    all(connection, ("SELECT size FROM checkpoints ORDER BY size", &[]), |row| whole(row.get(0)?))
}

/// The pin of one tool.
pub(super) fn pin(connection: &Connection, tool: &ToolRef) -> Result<Option<PinRow>, StoreFault> {
    let mut statement = connection.prepare_cached(&format!("{PIN_COLUMNS} WHERE tool = ?1"))?;
    let mut rows = statement.query([tool.to_string()])?;
    rows.next()?.map(pin_row).transpose()
}

/// All pins, by tool.
pub(super) fn pins(connection: &Connection) -> Result<Vec<PinRow>, StoreFault> {
    all(connection, (&format!("{PIN_COLUMNS} ORDER BY tool"), &[]), pin_row)
}

/// The key with this id.
pub(super) fn key(connection: &Connection, key_id: &str) -> Result<Option<KeyRow>, StoreFault> {
    let mut statement = connection.prepare_cached(&format!("{KEY_COLUMNS} WHERE key_id = ?1"))?;
    let mut rows = statement.query([key_id])?;
    rows.next()?.map(key_row).transpose()
}

/// All keys, oldest first.
pub(super) fn keys(connection: &Connection) -> Result<Vec<KeyRow>, StoreFault> {
    all(connection, (&format!("{KEY_COLUMNS} ORDER BY issued_ms, key_id"), &[]), key_row)
}

/// A text column as the type it was made from.
pub(super) fn text<T: FromStr>(row: &Row<'_>, column: usize) -> Result<T, StoreFault> {
    let text: String = row.get(column)?;
    text.parse().map_err(|_| StoreFault::corrupt(format!("unexpected `{text}`")))
}

/// A number column as the type it was made from.
pub(super) fn whole(number: i64) -> Result<u64, StoreFault> {
    u64::try_from(number).map_err(|_| StoreFault::corrupt(format!("unexpected `{number}`")))
}

fn all<T>(
    connection: &Connection,
    (sql, values): (&str, &[i64]),
    read: impl Fn(&Row<'_>) -> Result<T, StoreFault>,
) -> Result<Vec<T>, StoreFault> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut values = Vec::new();
    while let Some(row) = rows.next()? {
        values.push(read(row)?);
    }
    Ok(values)
}

fn read_records(
    connection: &Connection,
    sql: &str,
    values: Vec<Value>,
) -> Result<Vec<StoredRecord>, StoreFault> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        records.push(stored_record(row)?);
    }
    Ok(records)
}

fn stored_record(row: &Row<'_>) -> Result<StoredRecord, StoreFault> {
    let seq = whole(row.get(0)?)?;
    let leaf = Digest::from_bytes(row.get(1)?);
    let bytes: Vec<u8> = row.get(2)?;
    if leaf_hash(&bytes) != leaf {
        return Err(StoreFault::corrupt(format!("record {seq} was altered")));
    }
    let record = decode(&bytes);
    let record = record.map_err(|fault| StoreFault::corrupt(format!("record {seq}: {fault}")))?;
    Ok(StoredRecord { seq, leaf, bytes, record })
}

fn pin_row(row: &Row<'_>) -> Result<PinRow, StoreFault> {
    let seen: Option<[u8; 32]> = row.get(5)?;
    let seen = match seen {
        Some(seen) => {
            let (definition, at) = (Digest::from_bytes(seen), Timestamp(row.get(7)?));
            Some(SeenRow { definition, json: json(row, 6)?, at })
        }
        None => None,
    };
    let definition = Digest::from_bytes(row.get(1)?);
    let (by, at) = (row.get(3)?, Timestamp(row.get(4)?));
    Ok(PinRow { tool: text(row, 0)?, definition, json: json(row, 2)?, by, at, seen })
}

fn json(row: &Row<'_>, column: usize) -> Result<serde_json::Value, StoreFault> {
    let text: String = row.get(column)?;
    let value = serde_json::from_str(&text);
    value.map_err(|error| StoreFault::corrupt(format!("a tool's definition: {error}")))
}

fn key_row(row: &Row<'_>) -> Result<KeyRow, StoreFault> {
    let revoked_at: Option<i64> = row.get(5)?;
    Ok(KeyRow {
        key_id: row.get(0)?,
        hash: Digest::from_bytes(row.get(1)?),
        agent: text(row, 2)?,
        owner: text(row, 3)?,
        issued_at: Timestamp(row.get(4)?),
        revoked_at: revoked_at.map(Timestamp),
    })
}

/// Moves whenever another connection changed the database.
fn version(connection: &Connection) -> Result<i64, StoreFault> {
    Ok(connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?)
}
