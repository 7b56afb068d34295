//! What an operator changes: stops, pins, quarantines, keys. Each change and its record are one
//! transaction. Must not decide who may change what.

use super::batch::{Batch, int};
use super::fault::StoreFault;
use super::rows::{CheckRow, NewCredential, NewKey, Pin, PinRow, ReleaseOf, Seen};
use super::{checks, query};
use holdpoint_ledger::EncodingFault;
use holdpoint_types::{
    AgentName, Digest, Epoch, RecordBody, ServerName, Stop, StopScope, Timestamp, ToolRef,
    canonical_digest,
};
use rusqlite::params;
use serde_json::Value;

/// Who pins a tool that nobody pinned before.
const FIRST_SIGHT: &str = "first-sight";

/// Stops `scope` and begins an epoch.
pub(super) fn stop(
    batch: &mut Batch<'_>,
    (scope, reason): (StopScope, String),
    by: String,
    at: Timestamp,
) -> Result<(Stop, Epoch), StoreFault> {
    let epoch = batch.next_epoch()?;
    let sql = "INSERT INTO stops (scope, reason, by, since_ms) VALUES (?1, ?2, ?3, ?4)";
    let row = params![scope.to_string(), reason, by, at.0];
    let id = batch.txn().prepare_cached(sql)?.insert(row)?;
    let id = u64::try_from(id).map_err(|_| StoreFault::corrupt("negative stop number"))?;
    let stop = Stop { id, scope, reason, by, since: at };
    batch.promise(id, Some(stop.clone()));
    batch.write(RecordBody::Stopped { stop: stop.clone(), epoch }, at)?;
    Ok((stop, epoch))
}

/// Releases the stops that `what` names and, if there are any, begins an epoch.
pub(super) fn release(
    batch: &mut Batch<'_>,
    (what, reason): (&ReleaseOf, &str),
    by: &str,
    at: Timestamp,
) -> Result<(Vec<Stop>, Epoch), StoreFault> {
    let mut stops = query::stops(batch.txn())?;
    stops.retain(|stop| match what {
        ReleaseOf::Id(id) => stop.id == *id,
        ReleaseOf::Scope(scope) => stop.scope == *scope,
    });
    if stops.is_empty() {
        return Ok((stops, batch.epoch()));
    }
    let epoch = batch.next_epoch()?;
    for stop in &stops {
        let sql = "DELETE FROM stops WHERE id = ?1";
        batch.txn().prepare_cached(sql)?.execute([int(stop.id)?])?;
        batch.promise(stop.id, None);
        let (id, scope) = (stop.id, stop.scope.clone());
        let (reason, by) = (reason.to_owned(), by.to_owned());
        batch.write(RecordBody::Released { id, scope, reason, by, epoch }, at)?;
    }
    Ok((stops, epoch))
}

/// Pins `pin`, whatever was pinned before.
pub(super) fn pin(
    batch: &mut Batch<'_>,
    pin: &Pin,
    by: &str,
    at: Timestamp,
) -> Result<Option<Digest>, StoreFault> {
    let (at, json) = (batch.written_at(at), definition(&pin.json, pin.definition)?);
    let previous = query::pin(batch.txn(), &pin.tool)?.map(|row| row.definition);
    let sql = "INSERT OR REPLACE INTO pins (tool, definition, json, by, at_ms) \
               VALUES (?1, ?2, ?3, ?4, ?5)";
    let row = params![pin.tool.to_string(), pin.definition.as_bytes(), json, by, at.0];
    batch.txn().prepare_cached(sql)?.execute(row)?;
    let (tool, definition, by) = (pin.tool.clone(), pin.definition, by.to_owned());
    batch.write(RecordBody::ToolPinned { tool, definition, previous, by }, at)?;
    Ok(previous)
}

/// Pins those of `pins` whose tools have none yet.
pub(super) fn pin_first(
    batch: &mut Batch<'_>,
    pins: &[Pin],
    at: Timestamp,
) -> Result<Vec<PinRow>, StoreFault> {
    let at = batch.written_at(at);
    let mut rows = Vec::with_capacity(pins.len());
    for new in pins {
        let row = match query::pin(batch.txn(), &new.tool)? {
            Some(row) => row,
            None => {
                pin(batch, new, FIRST_SIGHT, at)?;
                let Pin { tool, definition, json } = new.clone();
                PinRow { tool, definition, json, by: FIRST_SIGHT.to_owned(), at, seen: None }
            }
        };
        rows.push(row);
    }
    Ok(rows)
}

/// Notes another definition of a tool that is pinned as `pinned`, once.
pub(super) fn quarantine(
    batch: &mut Batch<'_>,
    (tool, pinned): (&ToolRef, Digest),
    seen: &Seen,
) -> Result<bool, StoreFault> {
    let Some(row) = query::pin(batch.txn(), tool)? else { return Ok(false) };
    let noted = row.seen.is_some_and(|noted| noted.definition == seen.definition);
    if noted || row.definition != pinned || pinned == seen.definition {
        return Ok(false);
    }
    let sql = "UPDATE pins SET seen = ?2, seen_json = ?3, seen_ms = ?4 WHERE tool = ?1";
    let (json, at) = (definition(&seen.json, seen.definition)?, batch.written_at(seen.at));
    let values = params![tool.to_string(), seen.definition.as_bytes(), json, at.0];
    batch.txn().prepare_cached(sql)?.execute(values)?;
    let tool = tool.clone();
    let body = RecordBody::ToolQuarantined { tool, pinned, seen: seen.definition };
    batch.write(body, at).map(|_| true)
}

/// Forgets the other definition of a tool that is still pinned as `pinned`.
pub(super) fn restore(
    batch: &mut Batch<'_>,
    (tool, pinned): (&ToolRef, Digest),
) -> Result<(), StoreFault> {
    let sql = "UPDATE pins SET seen = NULL, seen_json = NULL, seen_ms = NULL \
               WHERE tool = ?1 AND definition = ?2";
    let row = params![tool.to_string(), pinned.as_bytes()];
    batch.txn().prepare_cached(sql)?.execute(row)?;
    Ok(())
}

/// Records a check, unless somebody did before. False if somebody did.
pub(super) fn checked(
    batch: &mut Batch<'_>,
    row: &CheckRow,
    body: RecordBody,
    at: Timestamp,
) -> Result<bool, StoreFault> {
    if !checks::is_open(batch.txn(), row)? {
        return Ok(false);
    }
    batch.write(body, at).map(|_| true)
}

/// Issues a key. False if the key id is taken.
pub(super) fn issue_key(
    batch: &mut Batch<'_>,
    key: &NewKey,
    by: String,
    at: Timestamp,
) -> Result<bool, StoreFault> {
    let at = batch.written_at(at);
    let sql = "INSERT INTO keys (key_id, hash, agent, owner, issued_ms) \
               VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
    let (agent, owner) = (key.agent.clone(), key.owner.clone());
    let row = params![key.key_id, key.hash.as_bytes(), agent.as_str(), owner.as_str(), at.0];
    if batch.txn().prepare_cached(sql)?.execute(row)? == 0 {
        return Ok(false);
    }
    let (hash, key) = (Some(key.hash), key.key_id.clone());
    let body = RecordBody::KeyIssued { agent, owner, key, hash, by };
    batch.write(body, at).map(|_| true)
}

/// Revokes all keys of `agent`; nothing is recorded if it has none.
pub(super) fn revoke_keys(
    batch: &mut Batch<'_>,
    agent: AgentName,
    by: String,
    at: Timestamp,
) -> Result<u64, StoreFault> {
    let at = batch.written_at(at);
    let sql = "UPDATE keys SET revoked_ms = ?2 WHERE agent = ?1 AND revoked_ms IS NULL";
    let revoked = batch.txn().prepare_cached(sql)?.execute(params![agent.as_str(), at.0])?;
    if revoked > 0 {
        batch.write(RecordBody::KeysRevoked { agent, by }, at)?;
    }
    Ok(revoked as u64)
}

/// Records that a credential was issued.
pub(super) fn credential_issued(
    batch: &mut Batch<'_>,
    new: NewCredential,
    by: String,
    at: Timestamp,
) -> Result<(), StoreFault> {
    let NewCredential { agent, server, issuer, client, scopes } = new;
    let at = batch.written_at(at);
    batch
        .write(RecordBody::CredentialIssued { agent, server, issuer, client, scopes, by }, at)
        .map(|_| ())
}

/// Records that a credential was deleted.
pub(super) fn credential_deleted(
    batch: &mut Batch<'_>,
    (server, agent): (ServerName, Option<AgentName>),
    by: String,
    at: Timestamp,
) -> Result<(), StoreFault> {
    let at = batch.written_at(at);
    batch.write(RecordBody::CredentialDeleted { agent, server, by }, at).map(|_| ())
}

/// The text of a tool's definition, if what is read from it again has this digest.
fn definition(json: &Value, digest: Digest) -> Result<String, StoreFault> {
    let text = json.to_string();
    let again: Option<Value> = serde_json::from_str(&text).ok();
    if again.and_then(|again| canonical_digest(&again).ok()) == Some(digest) {
        return Ok(text);
    }
    let detail = "a tool's definition does not have its digest when it is read again";
    Err(StoreFault::NotRecordable(EncodingFault::NotEncodable(detail.to_owned())))
}
