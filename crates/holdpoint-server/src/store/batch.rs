//! One transaction of the writer: the log's edge is read, records are appended, one checkpoint is
//! signed. Must not begin or commit the transaction, nor sign over a log that it did not check.

use super::fault::StoreFault;
use super::{approvals, blocks, checks, grants, plans, query, reverts};
use holdpoint_ledger::{
    Frontier, Signer, Verifier, encode, leaf_hash, open_checkpoint, sign_checkpoint,
};
use holdpoint_types::{
    ActionRecord, DecisionRecord, Digest, Epoch, Field, GatewayId, Record, RecordBody, Stop,
    StopId, StopScope, Timestamp,
};
use rusqlite::{Connection, Transaction, params};
use std::collections::BTreeMap;

/// Longest record, in bytes.
const RECORD_BYTES_MAX: usize = 64 << 20;

/// A record with all that can be computed before its place in the log is known.
#[derive(Debug)]
pub(super) struct Draft {
    record: Record,
    bytes: Vec<u8>,
    leaf: Digest,
    columns: Columns,
}

/// The derived index of a record: what queries filter by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) kind: String,
    pub(super) gateway: String,
    pub(super) action: Option<String>,
    pub(super) agent: Option<String>,
    pub(super) tool: Option<String>,
    pub(super) resource: Option<String>,
    pub(super) ruling: Option<String>,
}

/// The single row that says where the log ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogState {
    pub(super) frontier: Frontier,
    pub(super) last_at: Option<Timestamp>,
    pub(super) epoch: Epoch,
}

/// An open transaction.
#[derive(Debug)]
pub(super) struct Batch<'t> {
    txn: &'t Transaction<'t>,
    signer: &'t Signer,
    gateway: GatewayId,
    state: LogState,
    begun_at: u64,
    /// The stops that this batch put (`Some`) or lifted (`None`).
    stops: BTreeMap<StopId, Option<Stop>>,
}

// === impl Draft ===

impl Draft {
    /// Prepares `record`.
    pub(super) fn new(record: Record) -> Result<Self, StoreFault> {
        let bytes = encode(&record)?;
        if bytes.len() > RECORD_BYTES_MAX {
            let bytes_max = RECORD_BYTES_MAX;
            return Err(StoreFault::TooLarge { bytes: bytes.len(), bytes_max });
        }
        let leaf = leaf_hash(&bytes);
        let columns = Columns::of(&record);
        Ok(Self { record, bytes, leaf, columns })
    }

    /// The same record, written at `at`.
    fn moved_to(&self, at: Timestamp) -> Result<Self, StoreFault> {
        Self::new(Record { at_ms: at, ..self.record.clone() })
    }
}

// === impl Columns ===

impl Columns {
    /// The index of `record`.
    pub(super) fn of(record: &Record) -> Self {
        let mut columns = Self {
            kind: record.body.kind().to_owned(),
            gateway: record.gateway.to_string(),
            action: None,
            agent: None,
            tool: None,
            resource: None,
            ruling: None,
        };
        columns.fill(&record.body);
        columns
    }

    fn fill(&mut self, body: &RecordBody) {
        match body {
            RecordBody::Decision(decision) => {
                let DecisionRecord { request, facts, decision: ruled, .. } = &decision.more;
                self.action = Some(decision.action.to_string());
                self.agent = Some(decision.agent.to_string());
                self.tool = Some(request.tool.to_string());
                self.resource = Some(facts.target.resource.clone());
                self.ruling = Some(ruled.ruling().to_string());
            }
            RecordBody::Outcome(outcome) => self.fill_from(outcome),
            RecordBody::Checked(checked) => self.fill_from(checked),
            RecordBody::TaskGiven(given) => self.fill_from(given),
            RecordBody::ToolPinned { tool, .. } | RecordBody::ToolQuarantined { tool, .. } => {
                self.tool = Some(tool.to_string());
            }
            RecordBody::Stopped { stop, .. } => self.fill_scope(&stop.scope),
            RecordBody::Released { scope, .. } => self.fill_scope(scope),
            RecordBody::KeyIssued { agent, .. } | RecordBody::KeysRevoked { agent, .. } => {
                self.agent = Some(agent.to_string());
            }
            RecordBody::PlanProposed(_)
            | RecordBody::PlanAccepted(_)
            | RecordBody::PlanRefused(_)
            | RecordBody::PlanEnded(_)
            | RecordBody::PlanLooked(_) => self.agent = plans::agent_of(body),
            RecordBody::Asked(asked) => {
                self.action = asked.action.map(|action| action.to_string());
                self.agent = Some(asked.agent.to_string());
            }
            RecordBody::Replied(replied) => {
                self.action = replied.action.map(|action| action.to_string());
                self.agent = Some(replied.agent.to_string());
            }
            RecordBody::Approved(said) | RecordBody::Disapproved(said) => {
                self.action = Some(said.approval.to_string());
                self.agent = Some(said.agent.to_string());
            }
            RecordBody::Reverted(reverted) => {
                self.action = Some(reverted.of.to_string());
                self.agent = Some(reverted.agent.to_string());
            }
            RecordBody::Granted(grant) => self.agent = Some(grant.agent.to_string()),
            RecordBody::GrantRevoked { agent, .. } => self.agent = Some(agent.to_string()),
            RecordBody::CredentialIssued { agent, .. }
            | RecordBody::CredentialDeleted { agent, .. } => {
                self.agent = agent.as_ref().map(ToString::to_string);
            }
            RecordBody::Expired { resource, .. } => self.resource = Some(resource.clone()),
            RecordBody::Started { .. }
            | RecordBody::FoundInDoubt { .. }
            | RecordBody::SettingsLoaded { .. }
            | RecordBody::PolicyLoaded { .. } => {}
        }
    }

    fn fill_from<T>(&mut self, record: &ActionRecord<T>) {
        self.action = Some(record.action.to_string());
        self.agent = Some(record.agent.to_string());
        self.tool = present(&record.lineage.tool);
        self.resource = present(&record.lineage.target_resource);
    }

    fn fill_scope(&mut self, scope: &StopScope) {
        match scope {
            StopScope::Agent(agent) => self.agent = Some(agent.to_string()),
            StopScope::Tool(tool) => self.tool = Some(tool.to_string()),
            StopScope::All | StopScope::Server(_) => {}
        }
    }
}

// === impl LogState ===

impl LogState {
    /// Reads the row.
    pub(super) fn read(connection: &Connection) -> Result<Self, StoreFault> {
        let sql = "SELECT size, frontier, last_at_ms, epoch FROM log_state";
        let mut statement = connection.prepare_cached(sql)?;
        let row = statement.query_row([], |row| {
            let edge: Vec<u8> = row.get(1)?;
            Ok((row.get::<_, i64>(0)?, edge, row.get::<_, Option<i64>>(2)?, row.get::<_, i64>(3)?))
        });
        let (size, edge, last_at, epoch) = row?;
        let frontier = Frontier::from_bytes(&edge)?;
        if Ok(frontier.size()) != u64::try_from(size) {
            return Err(StoreFault::corrupt("the log's size and its tree edge differ"));
        }
        let epoch = u64::try_from(epoch).map_err(|_| StoreFault::corrupt("negative epoch"))?;
        Ok(Self { frontier, last_at: last_at.map(Timestamp), epoch: Epoch(epoch) })
    }

    /// Checks that the newest checkpoint signs exactly this edge.
    fn check_signed(&self, connection: &Connection, key: &Verifier) -> Result<(), StoreFault> {
        let (size, root) = match query::checkpoint(connection)? {
            Some(note) => {
                let checkpoint = open_checkpoint(&note, key)?;
                (checkpoint.size, checkpoint.root)
            }
            None => (0, Frontier::default().root()),
        };
        if (size, root) != (self.frontier.size(), self.frontier.root()) {
            return Err(StoreFault::corrupt("the log's edge is not what its checkpoint signs"));
        }
        Ok(())
    }
}

// === impl Batch ===

impl<'t> Batch<'t> {
    /// Reads where the log ends. `trusted` is the edge that this process wrote last: if another one
    /// is found, it must be signed, or everything signed later would vouch for it.
    pub(super) fn open(
        txn: &'t Transaction<'t>,
        (signer, gateway): (&'t Signer, GatewayId),
        trusted: Option<&Frontier>,
    ) -> Result<Self, StoreFault> {
        let state = LogState::read(txn)?;
        if trusted != Some(&state.frontier) {
            state.check_signed(txn, &signer.verifier())?;
        }
        let begun_at = state.frontier.size();
        Ok(Self { txn, signer, gateway, state, begun_at, stops: BTreeMap::new() })
    }

    /// The transaction.
    pub(super) fn txn(&self) -> &Transaction<'t> {
        self.txn
    }

    /// The epoch, with what this batch already changed.
    pub(super) fn epoch(&self) -> Epoch {
        self.state.epoch
    }

    /// How many records the log had before this batch.
    pub(super) fn begun_at(&self) -> u64 {
        self.begun_at
    }

    /// The position that the next record gets.
    pub(super) fn position(&self) -> u64 {
        self.state.frontier.size()
    }

    /// The time under which a record of `at` is written: never before the last one.
    pub(super) fn written_at(&self, at: Timestamp) -> Timestamp {
        self.state.last_at.map_or(at, |last| last.max(at))
    }

    /// Promises that, when this batch ends, `id` is `stop`, or no stop.
    pub(super) fn promise(&mut self, id: StopId, stop: Option<Stop>) {
        self.stops.insert(id, stop);
    }

    /// Begins the next epoch.
    pub(super) fn next_epoch(&mut self) -> Result<Epoch, StoreFault> {
        let next = self.state.epoch.0.checked_add(1).ok_or(StoreFault::corrupt("epoch overflow"));
        self.state.epoch = Epoch(next?);
        Ok(self.state.epoch)
    }

    /// True if the approval that the decision in `draft` builds on still stands.
    pub(super) fn stands(&self, draft: &Draft) -> Result<bool, StoreFault> {
        match &draft.record.body {
            RecordBody::Decision(decided) => {
                let at = self.written_at(draft.record.at_ms);
                approvals::stands(self.txn, &decided.more, at)
            }
            _ => Ok(true),
        }
    }

    /// True if the plan that the decision in `draft` builds on is as far as it was.
    pub(super) fn plan_stands(&self, draft: &Draft) -> Result<bool, StoreFault> {
        match &draft.record.body {
            RecordBody::Decision(decided) => {
                let at = self.written_at(draft.record.at_ms);
                plans::stands(self.txn, &decided.more, at)
            }
            _ => Ok(true),
        }
    }

    /// Appends what this process says itself.
    pub(super) fn write(&mut self, body: RecordBody, at: Timestamp) -> Result<u64, StoreFault> {
        let record = Record { at_ms: at, gateway: self.gateway, body };
        self.append(&Draft::new(record)?)
    }

    /// Appends one record; gives its position.
    pub(super) fn append(&mut self, draft: &Draft) -> Result<u64, StoreFault> {
        let (asked, at) = (draft.record.at_ms, self.written_at(draft.record.at_ms));
        let seq = match at == asked {
            true => self.insert(draft)?,
            // Time never goes backwards inside the log, whatever clocks do.
            false => self.insert(&draft.moved_to(at)?)?,
        };
        let size = self.state.frontier.size();
        if size.is_multiple_of(blocks::BLOCK) {
            let note = sign_checkpoint(&self.state.frontier, self.signer)?;
            let sql = "INSERT INTO checkpoints (size, note) VALUES (?1, ?2)";
            self.txn.prepare_cached(sql)?.execute(params![int(size)?, note])?;
            blocks::close(self.txn, size)?;
        }
        Ok(seq)
    }

    /// Signs the log's edge and notes it. Gives the edge; nothing is written if nothing was
    /// appended.
    pub(super) fn close(self) -> Result<Frontier, StoreFault> {
        let size = self.state.frontier.size();
        if size == self.begun_at {
            return Ok(self.state.frontier);
        }
        let note = sign_checkpoint(&self.state.frontier, self.signer)?;
        let sql = "UPDATE log_state SET size = ?1, frontier = ?2, note = ?3, last_at_ms = ?4, \
                   epoch = ?5";
        let edge = self.state.frontier.to_bytes();
        let at = self.state.last_at.map(|at| at.0);
        let row = params![int(size)?, edge, note, at, int(self.state.epoch.0)?];
        self.txn.prepare_cached(sql)?.execute(row)?;
        if !self.stops.is_empty() {
            self.check_promises()?;
        }
        Ok(self.state.frontier)
    }

    /// Reads again what gateways will obey. An acknowledged stop that is not there would be worse
    /// than one that failed.
    fn check_promises(&self) -> Result<(), StoreFault> {
        if LogState::read(self.txn)? != self.state {
            return Err(StoreFault::corrupt("the log's end is not what was just written"));
        }
        let found = query::stops(self.txn)?;
        let is_kept = |(id, promised): (&StopId, &Option<Stop>)| {
            found.iter().find(|stop| stop.id == *id) == promised.as_ref()
        };
        match self.stops.iter().find(|promise| !is_kept(*promise)) {
            Some((id, _)) => {
                Err(StoreFault::corrupt(format!("stop {id} is not what was just written")))
            }
            None => Ok(()),
        }
    }

    fn insert(&mut self, draft: &Draft) -> Result<u64, StoreFault> {
        let seq = self.state.frontier.size();
        let sql = "INSERT INTO records (seq, leaf, kind, gateway, action, agent, tool, resource, \
                   ruling, at_ms, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        let columns = &draft.columns;
        self.txn.prepare_cached(sql)?.execute(params![
            int(seq)?,
            draft.leaf.as_bytes(),
            columns.kind,
            columns.gateway,
            columns.action,
            columns.agent,
            columns.tool,
            columns.resource,
            columns.ruling,
            draft.record.at_ms.0,
            draft.bytes,
        ])?;
        checks::note(self.txn, &draft.record)?;
        approvals::note(self.txn, &draft.record)?;
        grants::note(self.txn, &draft.record)?;
        plans::note(self.txn, &draft.record, seq)?;
        reverts::note(self.txn, &draft.record, seq)?;
        self.state.frontier.push(draft.leaf);
        self.state.last_at = Some(draft.record.at_ms);
        Ok(seq)
    }
}

/// A number as SQLite keeps it.
pub(super) fn int(number: u64) -> Result<i64, StoreFault> {
    i64::try_from(number).map_err(|_| StoreFault::corrupt(format!("`{number}` is too large")))
}

fn present<T: ToString>(field: &Field<T>) -> Option<String> {
    match field {
        Field::Present(value) => Some(value.to_string()),
        Field::Absent(_) => None,
    }
}
