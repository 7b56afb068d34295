//! Approvals as programs read them, and what is said to them. Must not decide what counts.

use crate::store::ApprovalRow;
use holdpoint_control::Settings;
use holdpoint_resources::resource::Preview;
use holdpoint_types::{
    ActionId, ActionRecord, AgentName, ApprovalDenied, DecisionRecord, Digest, Epoch, OperatorName,
    Timestamp, ToolRef,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Whether an approval can still be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalState {
    /// It waits for people.
    Waits,
    /// It is given; the agent may make the call.
    Given,
    /// Somebody said no.
    Denied,
    /// Its time is over.
    Expired,
    /// A stop or a release came after it was asked for.
    Void,
}

/// An approval that a call waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalReply {
    /// Its id.
    pub id: ActionId,
    /// Whether it can still be given.
    pub state: ApprovalState,
    /// Whose call it is.
    pub agent: AgentName,
    /// Which tool.
    pub tool: ToolRef,
    /// What it is for.
    pub binding: Digest,
    /// How many people have to say yes, by the names of approvals.
    pub needs: BTreeMap<String, u32>,
    /// Who said yes.
    pub given: BTreeMap<String, BTreeSet<OperatorName>>,
    /// Who said no.
    pub denied: Option<ApprovalDenied>,
    /// Who could say yes, and did not yet.
    pub could_approve: Vec<OperatorName>,
    /// The epoch that it is good in.
    pub epoch: Epoch,
    /// When it was asked for.
    pub asked_ms: Timestamp,
    /// When it ends.
    pub expires_ms: Timestamp,
}

/// What an operator says to an approval.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalAsk {
    /// Yes or no.
    pub answer: ApprovalAnswer,
    /// Why.
    pub because: String,
}

/// Yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalAnswer {
    /// It may happen.
    Yes,
    /// It may not.
    No,
}

// === impl ApprovalState ===

impl ApprovalState {
    /// The state of `row` at `now`, in `epoch`.
    pub fn of(row: &ApprovalRow, epoch: Epoch, now: Timestamp) -> Self {
        if row.facts.denied.is_some() {
            Self::Denied
        } else if row.facts.asked.expires_ms <= now {
            Self::Expired
        } else if row.epoch != epoch {
            Self::Void
        } else if row.facts.is_whole(now) {
            Self::Given
        } else {
            Self::Waits
        }
    }

    /// The stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waits => "waits",
            Self::Given => "given",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Void => "void",
        }
    }

    /// True if something can still come of it.
    pub fn is_open(self) -> bool {
        match self {
            Self::Waits | Self::Given => true,
            Self::Denied | Self::Expired | Self::Void => false,
        }
    }
}

// === impl ApprovalReply ===

impl ApprovalReply {
    /// What stands about `row` at `now`, in `epoch`.
    pub fn new(row: &ApprovalRow, settings: &Settings, (epoch, now): (Epoch, Timestamp)) -> Self {
        let asked = &row.facts.asked;
        Self {
            id: asked.id,
            state: ApprovalState::of(row, epoch, now),
            agent: row.agent.clone(),
            tool: row.tool.clone(),
            binding: asked.binding,
            needs: asked.needs.clone(),
            given: row.facts.given.clone(),
            denied: row.facts.denied.clone(),
            could_approve: could_approve(row, settings),
            epoch: row.epoch,
            asked_ms: row.asked_ms,
            expires_ms: asked.expires_ms,
        }
    }

    /// The same with what was decided and what the call would do.
    pub fn whole(
        &self,
        decided: Option<&ActionRecord<DecisionRecord>>,
        preview: Option<&Preview>,
    ) -> Value {
        let mut told = json!(self);
        told["preview"] = json!(preview);
        told["decision"] = json!(decided.map(|record| &record.more));
        told
    }
}

/// The operators who could still say yes: each counts once.
pub fn could_approve(row: &ApprovalRow, settings: &Settings) -> Vec<OperatorName> {
    let mut able = settings.approvers((&row.agent, row.owner.as_ref()), &row.facts.asked);
    able.retain(|name| !row.facts.given.values().any(|given| given.contains(name)));
    able
}
