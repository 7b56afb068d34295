//! Plans: checking one before it is accepted, and holding calls to it afterwards.
//!
//! Pure and total: what is known comes in, notes and comparisons go out. The checker knows neither
//! the policies nor what the agent wants. Must not store a plan, nor decide about a call.

mod check;
mod foresight;
mod matching;
mod order;
mod progress;

pub use check::{ConditionPlace, Known, check};
pub use foresight::{foreseeable, note_foreseen};
pub use matching::{Called, Foreseen, PlanMatcher};
pub use progress::{CallState, PlanCall, Progress, StepState};

use holdpoint_types::{
    Digest, Plan, PlanBudget, PlanCode, PlanNote, PlanSeverity, PlanStep, ToolRef,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Most steps of one plan.
pub const STEPS_MAX: usize = 100;
/// Most targets of all steps of a plan together.
const TARGETS_MAX: usize = 256;
/// Most calls of one step.
const STEP_CALLS_MAX: u32 = 1000;
/// Most conditions of one step that are looked at.
const STEP_CHECKS_MAX: usize = 8;
/// Most conditions of all steps of a plan together that are looked at.
pub const CHECKS_MAX: usize = 64;
/// Most notes on one plan.
const NOTES_MAX: usize = 100;
/// Most calls of one plan that are looked at when it is proposed.
const FORESEEN_MAX: usize = 16;

/// What the operator says about plans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanRules {
    /// Who accepts them.
    pub accept: PlanAccept,
    /// How long one may be in force, in seconds.
    pub expires_s_max: u32,
    /// How much all steps of one may touch together.
    pub budget_max: PlanBudget,
    /// Surfaces that no plan may touch.
    pub forbidden_surfaces: BTreeSet<String>,
}

/// Who accepts plans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlanAccept {
    /// The checker: a plan without blocking notes is accepted at once.
    Checker,
    /// An operator.
    #[default]
    Operator,
}

// === impl PlanRules ===

impl PlanRules {
    /// The rules as JSON with a fixed shape.
    pub(crate) fn describe(&self) -> Value {
        let max: BTreeMap<_, _> = self.budget_max.bounds().into_iter().collect();
        json!({
            "accept": self.accept.as_str(),
            "expires_s_max": self.expires_s_max,
            "budget_max": max,
            "forbidden_surfaces": self.forbidden_surfaces,
        })
    }
}

// === impl PlanAccept ===

impl PlanAccept {
    /// The stable word used in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Checker => "checker",
            Self::Operator => "operator",
        }
    }
}

/// What moved of the basis of `plan`, for people; absent if nothing did. A tool that nobody offers
/// right now has not moved: it is looked up before it is called.
pub fn basis_moved(
    plan: &Plan,
    policy: Digest,
    offered: impl Fn(&ToolRef) -> Option<Digest>,
) -> Option<String> {
    if plan.basis.policy != policy {
        let (then, now) = (plan.basis.policy.short(), policy.short());
        return Some(format!("the policies moved from {then} to {now}"));
    }
    let moved = |(tool, then): (&ToolRef, &Digest)| {
        let now = offered(tool).filter(|now| now != then)?;
        let (then, now) = (then.short(), now.short());
        Some(format!("the definition of `{tool}` moved from {then} to {now}"))
    };
    plan.basis.tools.iter().find_map(moved)
}

fn note(
    severity: PlanSeverity,
    code: PlanCode,
    step: &PlanStep,
    text: impl Into<String>,
) -> PlanNote {
    PlanNote { severity, code, step: Some(step.id.clone()), text: text.into() }
}

fn note_of_plan(code: PlanCode, text: String) -> PlanNote {
    PlanNote { severity: PlanSeverity::Blocking, code, step: None, text }
}

#[cfg(test)]
mod tests;
