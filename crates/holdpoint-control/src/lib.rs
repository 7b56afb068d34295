//! The sans-I/O core: facts in, decision out; inputs in, outputs out.
//!
//! Owns the decision, the life of an action, permits, stops, and the operator's settings as pure
//! functions. It must never do I/O, read a clock, or draw randomness: time and ids are input data.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

mod control;
mod decide;
mod lineage;
mod permit;
pub mod plan;
mod settings;

pub use control::{Control, Ending, Input, Output, Proposal, Running};
pub use decide::decide;
pub use lineage::check_record;
pub use permit::{Permit, PermitFault};
pub use settings::{
    Agent, Aimed, ApprovalRule, ApproverFault, Environment, Freeze, FreezeFault, Grant, GrantFault,
    Invariant, OWNER, Operator, PROD, PatternFault, Recurring, ResourcePattern, ResourceSet,
    ResourceTemplate, ServerAsk, ServerRules, Settings, SettingsFault, SettingsParts, Surface,
    Team, TemplateFault, Timed, TimedFault, ToolHints, ToolPattern, ToolRules, ToolSet, normalise,
};
