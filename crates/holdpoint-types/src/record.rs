//! The ledger's records: what is written down, in which shape.
//!
//! This is a file format: fields may be added, never renamed or reused. The bytes of a record are
//! the canonical JSON of [`Record`]. Must not know how records are stored or proved.

use crate::approval::{ApprovalAsked, ApprovalRecord, TimedGrant};
use crate::decision::{Decision, Finding};
use crate::digest::Digest;
use crate::facts::{Facts, Intent, Request};
use crate::ids::{ActionId, AgentName, Epoch, GatewayId, ServerName, TeamName, Timestamp, ToolRef};
use crate::plan::{PlanEnded, PlanLooked, PlanProposed, PlanRuled};
use crate::reason::Reason;
use crate::revert::RevertRecord;
use crate::stop::{Stop, StopId, StopScope};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One immutable entry in the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When it was written.
    pub at_ms: Timestamp,
    /// The process that wrote it.
    pub gateway: GatewayId,
    /// What it says.
    #[serde(flatten)]
    pub body: RecordBody,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RecordBody {
    /// An action was decided. Durable before the effect.
    Decision(Box<ActionRecord<DecisionRecord>>),
    /// A permitted action ended.
    Outcome(Box<ActionRecord<OutcomeRecord>>),
    /// A server answered a call with a task: the action goes on. Durable before the agent hears of
    /// the task.
    TaskGiven(Box<ActionRecord<TaskRecord>>),
    /// A check after an action was made, or was due and nobody made it. What was found is the
    /// lineage's `post_validation`.
    Checked(Box<ActionRecord<CheckRecord>>),
    /// A process began to govern.
    Started {
        /// The product's version.
        version: String,
        /// Digest of the checked configuration.
        configuration: Digest,
        /// Permitted actions of dead processes whose outcome nobody recorded.
        in_doubt: Vec<ActionId>,
    },
    /// A process found actions of processes that died meanwhile.
    FoundInDoubt {
        /// Permitted actions whose outcome nobody recorded.
        in_doubt: Vec<ActionId>,
    },
    /// Other settings came into force in a running process.
    SettingsLoaded {
        /// Digest of the checked configuration.
        configuration: Digest,
    },
    /// A policy set came into force. Holds the sources, so that decisions can be replayed.
    PolicyLoaded {
        /// The set's digest, as decisions name it.
        policy: Digest,
        /// Its files.
        sources: Vec<PolicySource>,
        /// What a guard set was signed with; absent for the ordinary set.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        guard: Option<Box<GuardRecord>>,
    },
    /// A tool's definition was pinned.
    ToolPinned {
        /// The tool.
        tool: ToolRef,
        /// Digest of the definition.
        definition: Digest,
        /// The digest that was pinned before.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        previous: Option<Digest>,
        /// Who pinned it: `first-sight`, or an operator.
        by: String,
    },
    /// A tool was seen with another definition than the pinned one.
    ToolQuarantined {
        /// The tool.
        tool: ToolRef,
        /// The pinned digest.
        pinned: Digest,
        /// The digest that was seen.
        seen: Digest,
    },
    /// An operator stopped something.
    Stopped {
        /// The stop.
        stop: Stop,
        /// The epoch that begins with it.
        epoch: Epoch,
    },
    /// An operator released a stop.
    Released {
        /// The number of the stop.
        id: StopId,
        /// What it locked.
        scope: StopScope,
        /// Why it was released.
        reason: String,
        /// Who released it.
        by: String,
        /// The epoch that begins with the release.
        epoch: Epoch,
    },
    /// An agent got a key. The key itself is nowhere.
    KeyIssued {
        /// The agent.
        agent: AgentName,
        /// The team that answers for it.
        owner: TeamName,
        /// The public part of the key.
        key: String,
        /// Digest of the whole key; absent in records of versions that did not note it.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        hash: Option<Digest>,
        /// Who issued it.
        by: String,
    },
    /// An agent's keys were revoked.
    KeysRevoked {
        /// The agent.
        agent: AgentName,
        /// Who revoked them.
        by: String,
    },
    /// An agent proposed a plan.
    PlanProposed(Box<PlanProposed>),
    /// A plan came into force: it holds its task from here on.
    PlanAccepted(PlanRuled),
    /// A plan was refused.
    PlanRefused(PlanRuled),
    /// A plan ended.
    PlanEnded(PlanEnded),
    /// The conditions after a step of a plan were looked at.
    PlanLooked(PlanLooked),
    /// A server asked an agent something. Durable before the agent hears of it.
    Asked(Box<AskedRecord>),
    /// What came back for such a question.
    Replied(Box<RepliedRecord>),
    /// An agent got a credential for an upstream server. The credential itself is in no record.
    CredentialIssued {
        /// The agent; absent if all agents share the credential.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        agent: Option<AgentName>,
        /// The server that it is for.
        server: ServerName,
        /// The authorization server that it came from.
        issuer: String,
        /// Who Holdpoint is to that server.
        client: String,
        /// What it was granted for.
        scopes: Vec<String>,
        /// Who let it be issued.
        by: String,
    },
    /// An operator said yes to what a held action asks for.
    Approved(Box<ApprovalRecord>),
    /// An operator said no to what a held action asks for.
    Disapproved(Box<ApprovalRecord>),
    /// An action was taken back, or could not be.
    Reverted(Box<RevertRecord>),
    /// An operator granted something for a limited time.
    Granted(Box<TimedGrant>),
    /// An operator took a grant back before its time.
    GrantRevoked {
        /// Its number.
        id: u64,
        /// Whose it was.
        agent: AgentName,
        /// Why.
        because: String,
        /// Who took it back.
        by: String,
    },
    /// What was kept in a target to take an action back is about to be deleted there: its time is
    /// over.
    Expired {
        /// The server whose target it is in.
        server: ServerName,
        /// What, as a typed address.
        resource: String,
    },
    /// A credential for an upstream server was deleted.
    CredentialDeleted {
        /// The agent; absent if all agents shared the credential.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        agent: Option<AgentName>,
        /// The server that it was for.
        server: ServerName,
        /// Who deleted it.
        by: String,
    },
}

/// One file of a policy set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PolicySource {
    /// Its name, without folders.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// What a guard set was signed with: all that is needed to check it again. What it guards stands in
/// the note.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardRecord {
    /// The signed note (C2SP signed-note).
    pub note: String,
    /// The public keys of which some had to sign.
    pub signers: Vec<String>,
    /// How many of them had to.
    pub signatures_min: u64,
    /// The names of those who did.
    pub signed_by: Vec<String>,
}

/// A record about an action: the eight fields of its lineage, and what this record adds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActionRecord<T> {
    /// The action.
    pub action: ActionId,
    /// Who acts.
    pub agent: AgentName,
    /// The eight fields.
    pub lineage: Lineage,
    /// What this record adds.
    #[serde(flatten)]
    pub more: T,
}

/// The eight fields that every record of an action carries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lineage {
    /// What the user wanted.
    pub user_intent: Field<Intent>,
    /// The policy set that decided.
    pub policy_version: Field<Digest>,
    /// What the agent had retrieved.
    pub retrieved_context: Field<Vec<String>>,
    /// The tool.
    pub tool: Field<ToolRef>,
    /// Digest of the parameters' canonical form; the decision record holds the parameters.
    pub parameters: Field<Digest>,
    /// The target.
    pub target_resource: Field<String>,
    /// What came back.
    pub tool_output: Field<ToolOutput>,
    /// What was found afterwards.
    pub post_validation: Field<Vec<Finding>>,
}

/// A value, or the reason why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field<T> {
    /// The value.
    Present(T),
    /// Why there is none.
    Absent(String),
}

/// What a decision record adds to the lineage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// The request.
    pub request: Request,
    /// The facts.
    pub facts: Facts,
    /// The decision.
    pub decision: Decision,
    /// The guard sets that had a voice, by name: their digests.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub guards: BTreeMap<String, Digest>,
    /// The checks that the action needs once it has ended.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub checks: Vec<CheckPlan>,
    /// The approval that a held action asks for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub approval: Option<ApprovalAsked>,
}

/// When a validator is asked about an action after it has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckPlan {
    /// The validator.
    pub validator: String,
    /// How long after the end, in seconds, each time.
    pub after_s: Vec<u32>,
}

/// A check that is due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CheckDue {
    /// When.
    pub due_ms: Timestamp,
    /// Which validator is asked.
    pub validator: String,
}

/// What a record of a check adds to the lineage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRecord {
    /// When it was due.
    pub due_ms: Timestamp,
}

/// What came back from a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolOutput {
    /// Digest of the bytes that came back.
    pub digest: Digest,
    /// How many they were.
    pub bytes: u64,
    /// The bytes themselves, up to `limits.output_stored_bytes_max`; absent if they were more.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub body: Option<String>,
}

/// How a permitted action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeStatus {
    /// The tool answered without an error.
    Succeeded,
    /// The tool answered with an error.
    ToolError,
    /// It was never sent: a stop or a fault came first.
    NotSent,
    /// It was sent, and what it did is not known.
    InDoubt,
}

/// What an outcome record adds to the lineage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeRecord {
    /// How it ended.
    pub status: OutcomeStatus,
    /// Why, if it did not simply answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Reason>,
    /// Detail for people.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
    /// From permit to answer, in milliseconds.
    pub duration_ms: u64,
    /// The checks that are due from now on; none if it was never sent.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub checks: Vec<CheckDue>,
}

/// What a record of a task adds to the lineage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Digest of the id that the server gave it.
    pub task: Digest,
}

/// A question of a server: sampling, elicitation or roots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedRecord {
    /// Who asks.
    pub server: ServerName,
    /// Who is asked.
    pub agent: AgentName,
    /// The action during which it is asked; absent if no single one was running.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub action: Option<ActionId>,
    /// What is asked.
    pub method: String,
    /// Digest of the question's parameters.
    pub parameters: Digest,
    /// Whether the agent hears of it.
    pub ruling: AskedRuling,
}

/// Whether an agent hears of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AskedRuling {
    /// It does.
    Passed,
    /// The operator forbids this server to ask that.
    Forbidden,
}

/// What came back for a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepliedRecord {
    /// The position of the question's record in the log.
    pub asked: u64,
    /// Who asked.
    pub server: ServerName,
    /// Who was asked.
    pub agent: AgentName,
    /// The action during which it was asked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub action: Option<ActionId>,
    /// What came back.
    pub status: ReplyStatus,
    /// Digest of the reply; absent if none came.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reply: Option<Digest>,
}

/// What came back for a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplyStatus {
    /// An answer.
    Answered,
    /// The user declined.
    Declined,
    /// The user dismissed it.
    Dismissed,
    /// An error.
    Error,
    /// Nothing, before the connection ended.
    Unanswered,
}

// === impl AskedRuling ===

impl AskedRuling {
    /// The stable word used in records and the CLI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Forbidden => "forbidden",
        }
    }
}

// === impl ReplyStatus ===

impl ReplyStatus {
    /// The stable word used in records and the CLI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Declined => "declined",
            Self::Dismissed => "dismissed",
            Self::Error => "error",
            Self::Unanswered => "unanswered",
        }
    }
}

// === impl CheckPlan ===

impl CheckPlan {
    /// The checks that are due after an action that ended at `end`.
    pub fn due_after(&self, end: Timestamp) -> impl Iterator<Item = CheckDue> {
        self.after_s.iter().map(move |after_s| {
            let due_ms = Timestamp(end.0.saturating_add(i64::from(*after_s) * 1000));
            CheckDue { due_ms, validator: self.validator.clone() }
        })
    }
}

// === impl OutcomeStatus ===

impl OutcomeStatus {
    /// The stable word used in records and the CLI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::ToolError => "tool_error",
            Self::NotSent => "not_sent",
            Self::InDoubt => "in_doubt",
        }
    }
}

// === impl RecordBody ===

impl RecordBody {
    /// The stable word in `kind`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Decision(_) => "decision",
            Self::Outcome(_) => "outcome",
            Self::TaskGiven(_) => "task_given",
            Self::Checked(_) => "checked",
            Self::Started { .. } => "started",
            Self::FoundInDoubt { .. } => "found_in_doubt",
            Self::SettingsLoaded { .. } => "settings_loaded",
            Self::PolicyLoaded { .. } => "policy_loaded",
            Self::ToolPinned { .. } => "tool_pinned",
            Self::ToolQuarantined { .. } => "tool_quarantined",
            Self::Stopped { .. } => "stopped",
            Self::Released { .. } => "released",
            Self::KeyIssued { .. } => "key_issued",
            Self::KeysRevoked { .. } => "keys_revoked",
            Self::PlanProposed(_) => "plan_proposed",
            Self::PlanAccepted(_) => "plan_accepted",
            Self::PlanRefused(_) => "plan_refused",
            Self::PlanEnded(_) => "plan_ended",
            Self::PlanLooked(_) => "plan_looked",
            Self::Asked(_) => "asked",
            Self::Replied(_) => "replied",
            Self::CredentialIssued { .. } => "credential_issued",
            Self::CredentialDeleted { .. } => "credential_deleted",
            Self::Approved(_) => "approved",
            Self::Disapproved(_) => "disapproved",
            Self::Reverted(_) => "reverted",
            Self::Granted(_) => "granted",
            Self::GrantRevoked { .. } => "grant_revoked",
            Self::Expired { .. } => "expired",
        }
    }
}
