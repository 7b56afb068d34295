//! Approvals: what a held action asks for, and what people said to it. Each is for one digest of
//! what will happen, never for a tool in general. Must not know who may say what.

use crate::class::EffectClass;
use crate::digest::Digest;
use crate::ids::{ActionId, AgentName, OperatorName, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What a held action asks for. The first action that asks gives the approval its id; the same
/// call, made again, asks for the same approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalAsked {
    /// The approval's id: that of the first action that asked for it.
    pub id: ActionId,
    /// What it is for: digest of agent, tool, parameters, preview, policies and epoch.
    pub binding: Digest,
    /// How many people have to say yes, by the name of the approval as the rule names it.
    pub needs: BTreeMap<String, u32>,
    /// When it ends, whatever was said.
    pub expires_ms: Timestamp,
    /// The operator who asks for it, if one does: whose yes does not count.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub requester: Option<OperatorName>,
    /// An approval of the same call as it was before, to which somebody said yes. It is none for
    /// what the call would do now, or for what judges it now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub instead_of: Option<ActionId>,
}

/// What people said so far to what a call asks for, as a decision sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalFacts {
    /// What was asked for.
    #[serde(flatten)]
    pub asked: ApprovalAsked,
    /// Who said yes, by the name of the approval that it counts for.
    pub given: BTreeMap<String, BTreeSet<OperatorName>>,
    /// Who said no, and why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub denied: Option<ApprovalDenied>,
}

/// A no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalDenied {
    /// Who said it.
    pub by: OperatorName,
    /// Why.
    pub because: String,
}

/// What an operator said to one approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRecord {
    /// The approval.
    pub approval: ActionId,
    /// What it is for.
    pub binding: Digest,
    /// Whose call waits for it.
    pub agent: AgentName,
    /// The names of approvals that it counts for; empty for a no.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    pub counts_for: BTreeSet<String>,
    /// Who said it.
    pub by: OperatorName,
    /// Why.
    pub because: String,
    /// By which way: `cli`, `api` or `link`.
    pub way: String,
}

/// A grant for a limited time, beside those of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimedGrant {
    /// Its number.
    pub id: u64,
    /// Whose it is.
    pub agent: AgentName,
    /// In which class.
    pub class: EffectClass,
    /// Patterns over `server__tool`, as in the configuration.
    pub tools: Vec<String>,
    /// When it ends.
    pub until_ms: Timestamp,
    /// Who granted it.
    pub by: String,
    /// Why.
    pub because: String,
}

// === impl ApprovalFacts ===

impl ApprovalFacts {
    /// True if enough people said yes for the approval that a rule calls `name`, nobody said no,
    /// and it is not over at `now`.
    pub fn answers(&self, name: &str, now: Timestamp) -> bool {
        let enough = |count: &u32| {
            let given = self.given.get(name).map_or(0, BTreeSet::len);
            *count > 0 && u32::try_from(given).is_ok_and(|given| given >= *count)
        };
        let asked = self.asked.needs.get(name).is_some_and(enough);
        asked && self.denied.is_none() && now < self.asked.expires_ms
    }

    /// True if every approval that is asked for is given.
    pub fn is_whole(&self, now: Timestamp) -> bool {
        self.asked.needs.keys().all(|name| self.answers(name, now))
    }
}
