//! What the governor takes in and gives back. Must not do anything.

use super::plans::ConditionCall;
use holdpoint_control::Running;
use holdpoint_resources::Answer;
use holdpoint_types::{
    ActionId, AgentName, ApprovalAsked, Decision, Door, Epoch, GatewayId, OutcomeStatus,
    PreviewFacts, Reason, ToolRef,
};
use serde_json::Value;
use std::time::Duration;

/// How much is done at once and how much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most actions between decision and outcome.
    pub calls_in_flight_max: usize,
    /// Most checks that wait to be made. Beyond, calls that need some are refused.
    pub checks_open_max: u64,
    /// Longest tool output that is stored whole, in bytes; of longer ones only the digest is kept.
    pub output_stored_bytes_max: usize,
    /// How long a cancelled call may take to end before its process tree is killed.
    pub stop_grace: Duration,
}

/// One proposed tool call, as a door hands it over.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who asks, as the door has authenticated it.
    pub agent: AgentName,
    /// Through which door.
    pub door: Door,
    /// The tool.
    pub tool: ToolRef,
    /// The parameters that will be forwarded: a JSON object.
    pub parameters: Value,
    /// The request's `_meta`, if it has one.
    pub meta: Option<Value>,
    /// The condition of a plan that it looks at, where no agent made it.
    pub condition: Option<ConditionCall>,
}

/// What became of a call.
#[derive(Debug)]
pub enum Governed {
    /// The tool answered.
    Answered(ActionId, Answer),
    /// It was not permitted.
    Refused(ActionId, Refusal),
    /// It was permitted and did not end with an answer.
    Failed {
        /// The action.
        action: ActionId,
        /// Why.
        reason: Reason,
        /// Detail for people.
        detail: String,
        /// False if it provably never reached the tool.
        sent: bool,
    },
}

/// Why a call was not permitted, and what would change that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The decision.
    pub decision: Decision,
    /// The approval that the call waits for, if it is held.
    pub approval: Option<Box<ApprovalAsked>>,
    /// What the call would do, if that could be seen.
    pub preview: Option<Box<PreviewFacts>>,
}

/// What a stop found and what became of it.
#[derive(Clone, Debug)]
pub struct StopReport {
    /// The process that reports.
    pub gateway: GatewayId,
    /// The epoch that is in force there.
    pub epoch: Epoch,
    /// The calls that were running, and what became of each.
    pub in_flight: Vec<(Running, Became)>,
}

/// What became of a call that was running when a stop came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Became {
    /// It ended, one way or another.
    Ended(OutcomeStatus, Option<String>),
    /// It has not ended within the grace period.
    StillRunning,
}

// === impl Refusal ===

impl From<Decision> for Refusal {
    fn from(decision: Decision) -> Self {
        Self { decision, approval: None, preview: None }
    }
}
