//! The values that go into the store and come out of it. Must not know SQL.

use holdpoint_types::{
    ActionId, AgentName, CheckDue, Digest, Epoch, GatewayId, Record, Ruling, ServerName, Stop,
    StopId, StopScope, TeamName, Timestamp, ToolRef,
};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

/// What a process may do with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Decide and record; holds the run lock of its gateway.
    Govern,
    /// Change control state (stops, pins, keys) without governing.
    Operate,
    /// Look only.
    ReadOnly,
}

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Who opens it.
    pub gateway: GatewayId,
    /// What for.
    pub access: Access,
}

/// What became of a decision that was to be recorded in one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Recorded, durably.
    Recorded {
        /// Its position in the log.
        seq: u64,
    },
    /// Not recorded: somebody stopped or released something since.
    EpochMoved {
        /// The epoch now.
        epoch: Epoch,
    },
    /// Not recorded: the approval that it builds on was used, denied, or is over since.
    ApprovalMoved,
    /// Not recorded: the plan that it builds on went on or ended since, or one came into force.
    PlanMoved,
}

/// How far the log is behind what was asked of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// How many changes wait to become durable.
    pub waiting: usize,
    /// How long ago this process last made something durable.
    pub commit_age: Duration,
}

/// What to release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReleaseOf {
    /// One stop, by its number.
    Id(StopId),
    /// All stops of exactly this scope.
    Scope(StopScope),
}

/// The control state, read at one point in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlRow {
    /// The epoch.
    pub epoch: Epoch,
    /// The stops in force, oldest first.
    pub stops: Vec<Stop>,
}

/// A check that is due after an action.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CheckRow {
    /// When, and which validator is asked.
    pub due: CheckDue,
    /// The action.
    pub action: ActionId,
    /// The process whose turn it is, while it lives.
    pub gateway: GatewayId,
}

/// Which checks a process takes up.
#[derive(Clone, Debug)]
pub struct DueQuery {
    /// Those that were due by now.
    pub now: Timestamp,
    /// Whoever's turn it is: those that were due by then.
    pub overdue: Timestamp,
    /// The process that asks: its own are always wanted.
    pub own: GatewayId,
    /// Others that live: theirs are wanted only when they are overdue.
    pub living: BTreeSet<GatewayId>,
    /// The validators that can be asked; what others have to be asked is left to who can, until it
    /// is overdue.
    pub able: BTreeSet<String>,
    /// The validators that cannot be asked right now.
    pub busy: BTreeSet<String>,
    /// At most so many.
    pub most: u32,
}

/// A tool's definition that is to be vouched for.
#[derive(Clone, Debug, PartialEq)]
pub struct Pin {
    /// The tool.
    pub tool: ToolRef,
    /// Digest of the definition's canonical form.
    pub definition: Digest,
    /// The definition.
    pub json: Value,
}

/// A pin as it stands in the store.
#[derive(Clone, Debug, PartialEq)]
pub struct PinRow {
    /// The tool.
    pub tool: ToolRef,
    /// Digest of the definition's canonical form.
    pub definition: Digest,
    /// The definition.
    pub json: Value,
    /// Who pinned it: `first-sight`, or an operator.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// The other definition that was seen since, if any.
    pub seen: Option<Seen>,
}

/// A definition that differs from the pinned one.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Digest of the definition's canonical form.
    pub definition: Digest,
    /// The definition.
    pub json: Value,
    /// When it was seen first.
    pub at: Timestamp,
}

/// A key that is to be issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    /// The public part of the key.
    pub key_id: String,
    /// Digest of the key.
    pub hash: Digest,
    /// Whose key it is.
    pub agent: AgentName,
    /// The team that answers for the agent.
    pub owner: TeamName,
}

/// A credential for an upstream server that was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCredential {
    /// The agent; absent if all agents share it.
    pub agent: Option<AgentName>,
    /// The server that it is for.
    pub server: ServerName,
    /// The authorization server that it came from.
    pub issuer: String,
    /// Who Holdpoint is to that server.
    pub client: String,
    /// What it was granted for.
    pub scopes: Vec<String>,
}

/// A key as it stands in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// The public part of the key.
    pub key_id: String,
    /// Digest of the key.
    pub hash: Digest,
    /// Whose key it is.
    pub agent: AgentName,
    /// The team that answered for the agent when the key was issued.
    pub owner: TeamName,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// Which records are wanted. The default wants the first hundred.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordQuery {
    /// Records about this agent.
    pub agent: Option<AgentName>,
    /// Records about this tool.
    pub tool: Option<ToolRef>,
    /// Records whose target resource contains this text.
    pub resource: Option<String>,
    /// Decisions with this ruling.
    pub ruling: Option<Ruling>,
    /// Records of this kind, as in `RecordBody::kind`.
    pub kind: Option<String>,
    /// Records written at this time or later.
    pub since: Option<Timestamp>,
    /// Records written before this time.
    pub until: Option<Timestamp>,
    /// Records after this position.
    pub after_seq: Option<u64>,
    /// At most this many.
    pub limit: u32,
    /// Newest first instead of oldest first.
    pub newest_first: bool,
}

/// A record as it stands in the log. Its bytes fit its leaf hash.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRecord {
    /// Its position in the log, from 0.
    pub seq: u64,
    /// Its leaf hash.
    pub leaf: Digest,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What they say.
    pub record: Record,
}

/// The proof that one record is in the log that a checkpoint signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inclusion {
    /// The record's position in the log.
    pub seq: u64,
    /// Its leaf hash.
    pub leaf: Digest,
    /// The sibling hashes from the leaf to the root.
    pub proof: Vec<Digest>,
    /// The signed checkpoint.
    pub note: String,
}

// === impl StoreOptions ===

impl StoreOptions {
    /// Opens as `gateway`, for `access`.
    pub fn new(gateway: GatewayId, access: Access) -> Self {
        Self { gateway, access }
    }
}

// === impl Pin ===

impl Pin {
    /// Vouches for the definition `json` of `tool`, whose canonical form has the digest
    /// `definition`.
    pub fn new(tool: ToolRef, definition: Digest, json: Value) -> Self {
        Self { tool, definition, json }
    }
}

// === impl RecordQuery ===

impl Default for RecordQuery {
    fn default() -> Self {
        Self {
            agent: None,
            tool: None,
            resource: None,
            ruling: None,
            kind: None,
            since: None,
            until: None,
            after_seq: None,
            limit: 100,
            newest_first: false,
        }
    }
}
