//! The approvals that calls wait for: a list that follows from the records. Must not know who may
//! say what, nor decide anything: it says what was said.
//!
//! INVARIANT: an approval is used at most once. The decision that uses it and its end are one
//! transaction.

use super::batch::Batch;
use super::fault::StoreFault;
use super::query::text;
use super::{Store, StoredRecord, files, schema};
use holdpoint_types::{
    ActionId, ActionRecord, AgentName, ApprovalAsked, ApprovalDenied, ApprovalFacts,
    ApprovalRecord, DecisionRecord, Digest, Epoch, Record, RecordBody, Ruling, TeamName, Timestamp,
    ToolRef,
};
use rusqlite::{Connection, Row, params};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// Most positions of the log at which one look for records about approvals looks.
const SPAN_MAX: u64 = 1_000;
/// Most records that one such look finds.
const FOUND_MAX: u32 = 16;

/// An approval that a call waits for, or a no that is still good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalRow {
    /// What was asked for and what was said.
    pub facts: ApprovalFacts,
    /// Whose call it is.
    pub agent: AgentName,
    /// The team that answers for it.
    pub owner: Option<TeamName>,
    /// Which tool.
    pub tool: ToolRef,
    /// The epoch that it is good in.
    pub epoch: Epoch,
    /// When it was asked for.
    pub asked_ms: Timestamp,
}

/// What became of an operator's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// It counts. What stands now.
    Counted(Box<ApprovalRow>),
    /// The same person said the same before; nothing was written.
    Repeated(Box<ApprovalRow>),
    /// There is no such approval: it was used, denied for good, or never asked for.
    Unknown,
    /// It ended at this time.
    Expired(Timestamp),
    /// A stop or a release came after it was asked for, so it is void.
    EpochMoved,
    /// Somebody said no before.
    Denied(ApprovalDenied),
}

/// The list as it follows from the records that were read so far.
#[derive(Default)]
pub(super) struct Derived {
    rows: BTreeMap<ActionId, ApprovalRow>,
}

// === impl Derived ===

impl Derived {
    pub(super) fn apply(&mut self, record: &Record) {
        match &record.body {
            RecordBody::Decision(decided) => {
                if let Some(id) = used(&decided.more) {
                    self.rows.remove(&id);
                }
                if let Some(row) = asked(decided, record.at_ms) {
                    self.rows.retain(|_, row| row.facts.asked.expires_ms > record.at_ms);
                    self.rows.insert(row.facts.asked.id, row);
                }
            }
            RecordBody::Approved(said) | RecordBody::Disapproved(said) => {
                if let Some(row) = self.rows.get_mut(&said.approval) {
                    row.hear(said);
                }
            }
            _ => {}
        }
    }

    /// True if the list is what follows from the records.
    pub(super) fn fits(&self, connection: &Connection) -> Result<bool, StoreFault> {
        let rows = match all(connection) {
            Err(StoreFault::Corrupt { .. }) => return Ok(false),
            rows => rows?.into_iter(),
        };
        let listed: BTreeMap<_, _> = rows.map(|row| (row.facts.asked.id, row)).collect();
        Ok(listed == self.rows)
    }
}

// === impl Store ===

impl Store {
    /// What stands about the approval that is for exactly `binding`, if one was asked for.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn approval_for(
        &self,
        binding: Digest,
        now: Timestamp,
    ) -> Result<Option<ApprovalRow>, StoreFault> {
        bound(&self.inner.reader.lock(), binding, now)
    }

    /// How many calls of `agent` wait for approvals that are good in `epoch`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn approvals_of(
        &self,
        agent: &AgentName,
        (epoch, now): (Epoch, Timestamp),
    ) -> Result<u64, StoreFault> {
        count(&self.inner.reader.lock(), agent, (epoch, now))
    }

    /// The calls of `agent` that wait for approvals that are good in `epoch`, the oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn waiting_of(
        &self,
        agent: &AgentName,
        (epoch, now): (Epoch, Timestamp),
    ) -> Result<Vec<ApprovalRow>, StoreFault> {
        let which = "WHERE agent = ?1 AND expires_ms > ?2 AND epoch = ?3 ORDER BY id";
        let values = params![agent.as_str(), now.0, super::batch::int(epoch.0)?];
        rows(&self.inner.reader.lock(), which, values)
    }

    /// The approval of this id, if it was asked for and not used; it may be over or void.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn approval(&self, id: ActionId) -> Result<Option<ApprovalRow>, StoreFault> {
        by_id(&self.inner.reader.lock(), id)
    }

    /// The approvals that were asked for and not used, the oldest first; some may be over or void.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn approvals(&self) -> Result<Vec<ApprovalRow>, StoreFault> {
        all(&self.inner.reader.lock())
    }

    /// The record of the decision about `action`, if there is one.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn decision(
        &self,
        action: ActionId,
    ) -> Result<Option<ActionRecord<DecisionRecord>>, StoreFault> {
        let mut records = self.of_action(action)?.into_iter();
        Ok(records.find_map(|stored| match stored.record.body {
            RecordBody::Decision(decided) => Some(*decided),
            _ => None,
        }))
    }

    /// The next records about approvals from position `from` on, and where to go on after them.
    /// Looks at a bounded part of the log: nothing more is there once that is `from` again.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn about_approvals(&self, from: u64) -> Result<(Vec<StoredRecord>, u64), StoreFault> {
        let reader = self.inner.reader.lock();
        let before = from.saturating_add(SPAN_MAX).min(super::query::size(&reader)?);
        let found = super::query::about_approvals(&reader, (from, before), FOUND_MAX)?;
        let whole = u32::try_from(found.len()).is_ok_and(|found| found < FOUND_MAX);
        let last = found.last().map_or(from, |last| last.seq.saturating_add(1));
        Ok((found, if whole { before } else { last }))
    }

    /// The key that signs links; made if there is none.
    ///
    /// # Errors
    /// When it cannot be read or made, or others may read it.
    pub fn link_key(&self) -> Result<Zeroizing<[u8; 32]>, StoreFault> {
        files::load_or_create_link_key(&self.inner.layout)
    }

    /// The same, if there is one.
    ///
    /// # Errors
    /// When it cannot be read, or others may read it.
    pub fn known_link_key(&self) -> Result<Option<Zeroizing<[u8; 32]>>, StoreFault> {
        files::load_link_key(&self.inner.layout)
    }

    /// Records what an operator says to an approval, if it can still count.
    ///
    /// # Errors
    /// When it could not be made durable; then nothing was said.
    pub async fn speak(&self, said: ApprovalRecord, at: Timestamp) -> Result<Spoken, StoreFault> {
        self.change(move |batch| speak(batch, said, at)).await
    }
}

// === impl ApprovalRow ===

impl ApprovalRow {
    fn hear(&mut self, said: &ApprovalRecord) {
        if said.counts_for.is_empty() {
            let (by, because) = (said.by.clone(), said.because.clone());
            self.facts.denied.get_or_insert(ApprovalDenied { by, because });
        }
        for name in &said.counts_for {
            self.facts.given.entry(name.clone()).or_default().insert(said.by.clone());
        }
    }

    fn has_heard(&self, said: &ApprovalRecord) -> bool {
        let given =
            |name: &String| self.facts.given.get(name).is_some_and(|all| all.contains(&said.by));
        !said.counts_for.is_empty() && said.counts_for.iter().all(given)
    }
}

/// Notes what `record` means for the list.
pub(super) fn note(connection: &Connection, record: &Record) -> Result<(), StoreFault> {
    match &record.body {
        RecordBody::Decision(decided) => {
            if let Some(id) = used(&decided.more) {
                let sql = "DELETE FROM approvals WHERE id = ?1";
                connection.prepare_cached(sql)?.execute([id.to_string()])?;
            }
            if let Some(row) = asked(decided, record.at_ms) {
                let sql = "DELETE FROM approvals WHERE expires_ms <= ?1";
                connection.prepare_cached(sql)?.execute([record.at_ms.0])?;
                put(connection, &row)?;
            }
            Ok(())
        }
        RecordBody::Approved(said) | RecordBody::Disapproved(said) => {
            let Some(mut row) = by_id(connection, said.approval)? else { return Ok(()) };
            row.hear(said);
            put(connection, &row)
        }
        _ => Ok(()),
    }
}

/// Records what an operator says, if it can still count.
pub(super) fn speak(
    batch: &mut Batch<'_>,
    said: ApprovalRecord,
    at: Timestamp,
) -> Result<Spoken, StoreFault> {
    let at = batch.written_at(at);
    let Some(row) = by_id(batch.txn(), said.approval)? else { return Ok(Spoken::Unknown) };
    if row.facts.asked.expires_ms <= at {
        return Ok(Spoken::Expired(row.facts.asked.expires_ms));
    }
    if row.epoch != batch.epoch() {
        return Ok(Spoken::EpochMoved);
    }
    if let Some(denied) = row.facts.denied {
        return Ok(Spoken::Denied(denied));
    }
    if row.facts.asked.binding != said.binding {
        return Ok(Spoken::Unknown);
    }
    if row.has_heard(&said) {
        return Ok(Spoken::Repeated(Box::new(row)));
    }
    let id = said.approval;
    let body = match said.counts_for.is_empty() {
        true => RecordBody::Disapproved(Box::new(said)),
        false => RecordBody::Approved(Box::new(said)),
    };
    batch.write(body, at)?;
    let row = by_id(batch.txn(), id)?.ok_or(StoreFault::corrupt("an approval is gone"))?;
    Ok(Spoken::Counted(Box::new(row)))
}

/// True if the approval that a decision builds on still stands as it was seen.
pub(super) fn stands(
    connection: &Connection,
    decided: &DecisionRecord,
    at: Timestamp,
) -> Result<bool, StoreFault> {
    let Some(seen) = &decided.facts.approval else { return Ok(true) };
    let row = by_id(connection, seen.asked.id)?;
    Ok(row.is_some_and(|row| row.facts == *seen && at < row.facts.asked.expires_ms))
}

/// The approval that is for exactly `binding`, the oldest if there are several.
pub(super) fn bound(
    connection: &Connection,
    binding: Digest,
    now: Timestamp,
) -> Result<Option<ApprovalRow>, StoreFault> {
    let which = "WHERE binding = ?1 AND expires_ms > ?2 ORDER BY id LIMIT 1";
    Ok(rows(connection, which, params![binding.as_bytes(), now.0])?.pop())
}

/// How many calls of `agent` wait.
pub(super) fn count(
    connection: &Connection,
    agent: &AgentName,
    (epoch, now): (Epoch, Timestamp),
) -> Result<u64, StoreFault> {
    let sql = "SELECT count(*) FROM approvals \
               WHERE agent = ?1 AND expires_ms > ?2 AND epoch = ?3";
    let row = |row: &Row<'_>| row.get(0);
    // Those of an earlier epoch are void.
    let values = params![agent.as_str(), now.0, super::batch::int(epoch.0)?];
    let count = connection.prepare_cached(sql)?.query_row(values, row)?;
    super::query::whole(count)
}

/// The approval with this id.
pub(super) fn by_id(
    connection: &Connection,
    id: ActionId,
) -> Result<Option<ApprovalRow>, StoreFault> {
    Ok(rows(connection, "WHERE id = ?1", params![id.to_string()])?.pop())
}

/// All approvals that are listed, the oldest first.
pub(super) fn all(connection: &Connection) -> Result<Vec<ApprovalRow>, StoreFault> {
    rows(connection, "ORDER BY id", params![])
}

fn used(decided: &DecisionRecord) -> Option<ActionId> {
    let permitted = decided.decision.ruling() == Ruling::Permit;
    decided.facts.approval.as_ref().filter(|_| permitted).map(|approval| approval.asked.id)
}

/// The row that a decision begins, if it is the first one that asks.
fn asked(decided: &ActionRecord<DecisionRecord>, at: Timestamp) -> Option<ApprovalRow> {
    let asked = decided.more.approval.as_ref().filter(|asked| asked.id == decided.action)?;
    let facts = ApprovalFacts { asked: asked.clone(), given: BTreeMap::new(), denied: None };
    Some(ApprovalRow {
        facts,
        agent: decided.agent.clone(),
        owner: decided.more.facts.agent.as_ref().and_then(|agent| agent.owner.clone()),
        tool: decided.more.request.tool.clone(),
        epoch: decided.more.facts.epoch,
        asked_ms: at,
    })
}

fn put(connection: &Connection, row: &ApprovalRow) -> Result<(), StoreFault> {
    let ApprovalAsked { id, binding, expires_ms, .. } = &row.facts.asked;
    let facts = serde_json::to_string(&row.facts)
        .map_err(|fault| StoreFault::corrupt(format!("an approval cannot be kept: {fault}")))?;
    let sql = "INSERT OR REPLACE INTO approvals \
               (id, binding, agent, owner, tool, epoch, asked_ms, expires_ms, facts) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    connection.prepare_cached(sql)?.execute(params![
        id.to_string(),
        binding.as_bytes(),
        row.agent.as_str(),
        row.owner.as_ref().map(TeamName::as_str),
        row.tool.to_string(),
        super::batch::int(row.epoch.0)?,
        row.asked_ms.0,
        expires_ms.0,
        facts,
    ])?;
    Ok(())
}

fn rows(
    connection: &Connection,
    which: &str,
    values: impl rusqlite::Params,
) -> Result<Vec<ApprovalRow>, StoreFault> {
    if !schema::lists_approvals(connection)? {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT agent, tool, epoch, asked_ms, facts, owner, id, binding, expires_ms \
         FROM approvals {which}"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(values)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let facts: String = row.get(4)?;
        let facts: ApprovalFacts = serde_json::from_str(&facts)
            .map_err(|fault| StoreFault::corrupt(format!("an approval cannot be read: {fault}")))?;
        // INVARIANT: it is found by what it is for.
        let ApprovalAsked { id, binding, expires_ms, .. } = &facts.asked;
        let listed = (text::<ActionId>(row, 6)?, row.get(7)?, Timestamp(row.get(8)?));
        if listed != (*id, *binding.as_bytes(), *expires_ms) {
            return Err(StoreFault::corrupt("an approval is listed as another one"));
        }
        found.push(ApprovalRow {
            facts,
            agent: text(row, 0)?,
            owner: owner(row.get(5)?)?,
            tool: text(row, 1)?,
            epoch: Epoch(super::query::whole(row.get(2)?)?),
            asked_ms: Timestamp(row.get(3)?),
        });
    }
    Ok(found)
}

fn owner(text: Option<String>) -> Result<Option<TeamName>, StoreFault> {
    let unexpected = |_| StoreFault::corrupt("an approval has an unexpected owner");
    text.map(|text| text.parse().map_err(unexpected)).transpose()
}
