//! The vocabulary of Holdpoint: the words that every other crate uses.
//!
//! Owns ids, effect classes, modes, requests, facts, rulings, decisions, records, and canonical
//! JSON. It must never do I/O, read a clock, draw randomness, or know about Cedar, MCP or a
//! database.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

mod approval;
mod canonical;
mod class;
mod decision;
mod digest;
mod effect;
mod facts;
mod ids;
mod json;
mod mode;
mod plan;
mod preview;
mod reason;
mod record;
mod revert;
mod stop;

pub use approval::{ApprovalAsked, ApprovalDenied, ApprovalFacts, ApprovalRecord, TimedGrant};
pub use canonical::Canonical;
pub use class::{ClassSource, EffectClass, ParseClassError};
pub use decision::{Cause, Decision, Finding, FindingResult, Ruling, Severity};
pub use digest::{Digest, ParseDigestError};
pub use effect::{Certainty, Effect, Extent, Reversibility, Verb};
pub use facts::{
    AgentFacts, Aim, Door, EffectFacts, Facts, GrantFacts, Intent, IntentSource, Request,
    TargetFacts, ToolFacts, ToolState,
};
pub use ids::{
    ActionId, AgentName, Epoch, GatewayId, InvalidName, OperatorName, PlanId, READ_REQUESTS,
    ServerName, StepName, TaskId, TeamName, Timestamp, ToolRef,
};
pub use json::{
    JsonFault, JsonLimits, canonical_bytes, canonical_digest, canonical_form, check, parse,
};
pub use mode::{Mode, ParseModeError};
pub use plan::{
    Plan, PlanBasis, PlanBudget, PlanCheck, PlanCode, PlanCondition, PlanDraft, PlanEnd, PlanEnded,
    PlanFacts, PlanFit, PlanLooked, PlanNote, PlanProposed, PlanReads, PlanRuled, PlanSeverity,
    PlanState, PlanStep, PlanWhen,
};
pub use preview::{ChangeCounts, Disclosure, PreviewFacts, Unseen};
pub use reason::{Reason, Stage};
pub use record::{
    ActionRecord, AskedRecord, AskedRuling, CheckDue, CheckPlan, CheckRecord, DecisionRecord,
    Field, GuardRecord, Lineage, OutcomeRecord, OutcomeStatus, PolicySource, Record, RecordBody,
    RepliedRecord, ReplyStatus, TaskRecord, ToolOutput,
};
pub use revert::{RevertConflict, RevertRecord, RevertStatus};
pub use stop::{ParseScopeError, Stop, StopId, StopScope};
