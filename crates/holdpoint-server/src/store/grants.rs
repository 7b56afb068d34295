//! The grants for a limited time: a list that follows from the records. Must not know what a
//! pattern means.

use super::batch::{Batch, int};
use super::fault::StoreFault;
use super::query::{text, whole};
use super::{Store, schema};
use holdpoint_types::{AgentName, EffectClass, Record, RecordBody, TimedGrant, Timestamp};
use rusqlite::{Connection, params};
use std::collections::BTreeMap;

/// Most grants of one agent that are in force.
const GRANTS_MAX: usize = 100;

/// A grant that is still to get its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewGrant {
    /// Whose it is.
    pub agent: AgentName,
    /// In which class.
    pub class: EffectClass,
    /// Patterns over `server__tool`.
    pub tools: Vec<String>,
    /// When it ends.
    pub until: Timestamp,
    /// Who grants it.
    pub by: String,
    /// Why.
    pub because: String,
}

/// The list as it follows from the records that were read so far.
#[derive(Default)]
pub(super) struct Derived {
    rows: BTreeMap<u64, TimedGrant>,
}

// === impl Derived ===

impl Derived {
    pub(super) fn apply(&mut self, record: &Record) {
        match &record.body {
            RecordBody::Granted(grant) => {
                self.rows.retain(|_, row| row.until_ms > record.at_ms);
                self.rows.insert(grant.id, (**grant).clone());
            }
            RecordBody::GrantRevoked { id, .. } => {
                self.rows.remove(id);
            }
            _ => {}
        }
    }

    /// True if the list is what follows from the records.
    pub(super) fn fits(&self, connection: &Connection) -> Result<bool, StoreFault> {
        Ok(all(connection)?.iter().eq(self.rows.values()))
    }
}

// === impl Store ===

impl Store {
    /// The grants for a limited time, by number; some may be over.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn grants(&self) -> Result<Vec<TimedGrant>, StoreFault> {
        all(&self.inner.reader.lock())
    }

    /// Grants something for a limited time; nothing if the agent has too much of that.
    ///
    /// # Errors
    /// When it could not be made durable; then nothing is granted.
    pub async fn grant(
        &self,
        new: NewGrant,
        at: Timestamp,
    ) -> Result<Option<TimedGrant>, StoreFault> {
        self.change(move |batch| grant(batch, new, at)).await
    }

    /// Takes a grant back; nothing if none with this number is in force.
    ///
    /// # Errors
    /// When it could not be made durable; then it stands.
    pub async fn revoke_grant(
        &self,
        id: u64,
        word: (String, String),
        at: Timestamp,
    ) -> Result<Option<TimedGrant>, StoreFault> {
        self.change(move |batch| revoke(batch, id, word, at)).await
    }
}

/// Notes what `record` means for the list.
pub(super) fn note(connection: &Connection, record: &Record) -> Result<(), StoreFault> {
    match &record.body {
        RecordBody::Granted(grant) => {
            let sql = "DELETE FROM grants WHERE until_ms <= ?1";
            connection.prepare_cached(sql)?.execute([record.at_ms.0])?;
            put(connection, grant)
        }
        RecordBody::GrantRevoked { id, .. } => {
            connection.prepare_cached("DELETE FROM grants WHERE id = ?1")?.execute([int(*id)?])?;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Grants `new`, if the agent has not too many. Its number is the position of its record in the
/// log.
pub(super) fn grant(
    batch: &mut Batch<'_>,
    new: NewGrant,
    at: Timestamp,
) -> Result<Option<TimedGrant>, StoreFault> {
    let NewGrant { agent, class, tools, until: until_ms, by, because } = new;
    let now = batch.written_at(at);
    let counts = |grant: &TimedGrant| grant.agent == agent && grant.until_ms > now;
    if all(batch.txn())?.into_iter().filter(counts).count() >= GRANTS_MAX {
        return Ok(None);
    }
    let id = batch.position();
    let grant = TimedGrant { id, agent, class, tools, until_ms, by, because };
    batch.write(RecordBody::Granted(Box::new(grant.clone())), at)?;
    Ok(Some(grant))
}

/// Takes a grant back; nothing if it is not in force.
pub(super) fn revoke(
    batch: &mut Batch<'_>,
    id: u64,
    (by, because): (String, String),
    at: Timestamp,
) -> Result<Option<TimedGrant>, StoreFault> {
    let now = batch.written_at(at);
    let wanted = |grant: &TimedGrant| grant.id == id && grant.until_ms > now;
    let Some(grant) = all(batch.txn())?.into_iter().find(wanted) else { return Ok(None) };
    let agent = grant.agent.clone();
    batch.write(RecordBody::GrantRevoked { id, agent, because, by }, at)?;
    Ok(Some(grant))
}

/// All grants that are listed, by number; some may be over.
pub(super) fn all(connection: &Connection) -> Result<Vec<TimedGrant>, StoreFault> {
    if !schema::lists_approvals(connection)? {
        return Ok(Vec::new());
    }
    let sql = "SELECT id, agent, class, tools, until_ms, by, because FROM grants ORDER BY id";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let tools: String = row.get(3)?;
        let tools = serde_json::from_str(&tools)
            .map_err(|fault| StoreFault::corrupt(format!("a grant cannot be read: {fault}")))?;
        found.push(TimedGrant {
            id: whole(row.get(0)?)?,
            agent: text(row, 1)?,
            class: text(row, 2)?,
            tools,
            until_ms: Timestamp(row.get(4)?),
            by: row.get(5)?,
            because: row.get(6)?,
        });
    }
    Ok(found)
}

fn put(connection: &Connection, grant: &TimedGrant) -> Result<(), StoreFault> {
    let sql = "INSERT INTO grants (id, agent, class, tools, until_ms, by, because) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    connection.prepare_cached(sql)?.execute(params![
        int(grant.id)?,
        grant.agent.as_str(),
        grant.class.as_str(),
        serde_json::json!(grant.tools).to_string(),
        grant.until_ms.0,
        grant.by,
        grant.because,
    ])?;
    Ok(())
}
