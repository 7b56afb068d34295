//! Plans: an ordered contract of steps that an agent proposes before it acts, and what became of
//! it.
//!
//! Plans are part of the ledger's format: fields may be added, never renamed or reused. Must not
//! check a plan, nor compare a call with one.

mod conditions;

pub use conditions::{PlanCheck, PlanCondition, PlanLooked, PlanWhen};

use crate::class::EffectClass;
use crate::digest::Digest;
use crate::ids::{AgentName, PlanId, StepName, TaskId, Timestamp, ToolRef};
use crate::preview::PreviewFacts;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What an agent proposes: a plan without what Holdpoint adds to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanDraft {
    /// The task that it is for; a new one, if absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub task: Option<TaskId>,
    /// What it is for, in the agent's words.
    pub purpose: String,
    /// Whether calls that only read need a step.
    #[serde(default)]
    pub reads: PlanReads,
    /// The steps.
    pub steps: Vec<PlanStep>,
    /// When it ends, in seconds from now; may lie in the past, which is then refused.
    #[serde(default = "expires_in_s_usual")]
    pub expires_in_s: i64,
}

/// A plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Its id.
    pub id: PlanId,
    /// Whose calls it is about.
    pub agent: AgentName,
    /// The task whose calls it is about.
    pub task: TaskId,
    /// What it is for, in the agent's words.
    pub purpose: String,
    /// Whether calls that only read need a step.
    pub reads: PlanReads,
    /// The steps.
    pub steps: Vec<PlanStep>,
    /// When it ends, whatever was done by then.
    pub expires: Timestamp,
    /// What it was made for; it is void once that moves.
    pub basis: PlanBasis,
    /// The operator with whose key a host proposed it; absent if the agent did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub by: Option<String>,
}

/// Whether calls that only read need a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanReads {
    /// They need none.
    #[default]
    Free,
    /// They need one, as every other call.
    Listed,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanStep {
    /// Its name, unique in the plan.
    pub id: StepName,
    /// The tool that it calls.
    pub tool: ToolRef,
    /// The most dangerous class that its calls may have.
    pub class: EffectClass,
    /// Patterns over the resources that its calls may be aimed at.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub targets: Vec<String>,
    /// The surfaces that its calls may touch.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    pub surfaces: BTreeSet<String>,
    /// A JSON Schema that the parameters must fit, besides the tool's own.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub parameters: Option<Value>,
    /// The parameters of its one call, word for word. What it would do is looked at when the plan
    /// is proposed, where that can be seen.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub call: Option<Map<String, Value>>,
    /// How many calls it may take at most.
    #[serde(skip_serializing_if = "is_once", default = "once")]
    pub calls: u32,
    /// How much all its calls together may touch.
    #[serde(skip_serializing_if = "PlanBudget::is_open", default)]
    pub budget: PlanBudget,
    /// True if it makes what later steps are taken back with: a backup, a snapshot, a branch.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub recovery_point: bool,
    /// What must hold before it.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub preconditions: Vec<PlanCondition>,
    /// What must hold after it.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub postconditions: Vec<PlanCondition>,
    /// The steps that must be done before it; if absent, the one that stands before it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<BTreeSet<StepName>>,
}

/// How much a step may touch; what is absent is not bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanBudget {
    /// Rows of tables.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rows: Option<u64>,
    /// Files.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub files: Option<u64>,
    /// Resources of any kind.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resources: Option<u64>,
}

/// What a plan was made for. It is void once any of it moves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanBasis {
    /// The policy set in force.
    pub policy: Digest,
    /// The definitions of the tools in its steps, as far as they were known.
    pub tools: BTreeMap<ToolRef, Digest>,
    /// What the calls of its steps would have done to their targets, as far as that was seen.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub targets: BTreeMap<StepName, PreviewFacts>,
    /// The plan that it revises.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub parent: Option<PlanId>,
}

/// How bad a note on a plan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanSeverity {
    /// Worth knowing for whoever accepts the plan.
    Advisory,
    /// The plan is refused.
    Blocking,
}

/// One remark of the checker on a plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PlanNote {
    /// How bad it is.
    pub severity: PlanSeverity,
    /// What it is about.
    pub code: PlanCode,
    /// The step that it is about; absent if it is about all of the plan.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub step: Option<StepName>,
    /// What to change, and why.
    pub text: String,
}

/// How the end of a plan came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanEnd {
    /// Every step is done.
    Done,
    /// Its time was over before.
    Expired,
    /// The policies, the definition of a tool or a target are other than those it was made for.
    Void,
    /// A revision of it was accepted.
    Revised,
}

/// What has become of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PlanState {
    /// It waits for somebody to accept it.
    Proposed,
    /// It is in force.
    Accepted,
    /// It was refused.
    Refused,
    /// It ended.
    Ended(PlanEnd),
}

/// A record that a plan was proposed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanProposed {
    /// The plan.
    pub plan: Plan,
    /// What the checker remarks.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub notes: Vec<PlanNote>,
}

/// A record that a plan was accepted or refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRuled {
    /// The plan.
    pub plan: PlanId,
    /// Whose plan it is.
    pub agent: AgentName,
    /// Who did: `checker`, or an operator.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// A record that a plan ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanEnded {
    /// The plan.
    pub plan: PlanId,
    /// Whose plan it is.
    pub agent: AgentName,
    /// How.
    pub end: PlanEnd,
    /// What moved, for people.
    pub detail: String,
}

/// How a call stands to its agent's plan: a part of the facts of its decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanFacts {
    /// The plan.
    pub plan: PlanId,
    /// How many changes the plan's progress had seen: the call is admitted only if that is still
    /// so.
    pub version: u64,
    /// How it stands to it.
    #[serde(flatten)]
    pub fit: PlanFit,
}

/// How a call stands to a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fit", rename_all = "snake_case")]
pub enum PlanFit {
    /// It is a call of this step.
    Step {
        /// The step.
        step: StepName,
        /// How much of the step's budget it uses up.
        #[serde(skip_serializing_if = "PlanBudget::is_open", default)]
        uses: PlanBudget,
    },
    /// It only reads, and the plan leaves that free.
    FreeRead,
    /// It is the read by which Holdpoint looks at a condition of this step.
    Condition {
        /// The step.
        step: StepName,
        /// Whether it is one of the conditions before or after it.
        when: PlanWhen,
        /// Which of them, counted from 1.
        number: u32,
    },
    /// It is no part of the plan.
    Deviation {
        /// The step that comes nearest; absent if no step is left.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        nearest: Option<StepName>,
        /// What is other than the step says.
        why: String,
    },
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident, $code:literal;)*) => {
        /// What a note on a plan is about. A code, once released, never changes its meaning.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub enum PlanCode {
            $($(#[$doc])* #[serde(rename = $code)] $variant,)*
        }

        impl PlanCode {
            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable code.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }
        }
    };
}

codes! {
    /// It has no steps.
    NoSteps, "no_steps";
    /// It has more steps than anybody can judge.
    TooManySteps, "too_many_steps";
    /// Two steps have one name.
    StepRepeated, "step_repeated";
    /// A step comes after one that there is not.
    AfterUnknown, "after_unknown";
    /// Steps wait for each other.
    AfterCycle, "after_cycle";
    /// It ends before it begins.
    ExpiryPast, "expiry_past";
    /// It would be in force for too long.
    ExpiryTooFar, "expiry_too_far";
    /// No server is known to offer the tool.
    ToolUnknown, "tool_unknown";
    /// The tool's definition is not the pinned one.
    ToolQuarantined, "tool_quarantined";
    /// The agent has no grant that reaches the tool in the step's class.
    NotGranted, "not_granted";
    /// A step that changes something does not say what.
    TargetMissing, "target_missing";
    /// A target is no pattern over resources.
    TargetInvalid, "target_invalid";
    /// A target covers everything.
    TargetEverything, "target_everything";
    /// No call of the tool can be aimed at any of the targets.
    TargetUnresolved, "target_unresolved";
    /// The step touches a surface that plans may not touch.
    SurfaceForbidden, "surface_forbidden";
    /// The step touches a surface that it does not name.
    SurfaceUnnamed, "surface_unnamed";
    /// The step names a surface that nobody declared.
    SurfaceUnknown, "surface_unknown";
    /// The step's class is milder than the tool's.
    ClassTooMild, "class_too_mild";
    /// The class of each call is found out when it is made.
    ClassPerCall, "class_per_call";
    /// A step that destroys has no recovery point before it.
    RecoveryMissing, "recovery_missing";
    /// A step changes what an earlier one destroys.
    Recreates, "recreates";
    /// A step may take no call, or too many.
    CallsOutOfRange, "calls_out_of_range";
    /// A step that destroys does not say how much.
    BudgetMissing, "budget_missing";
    /// A budget is larger than the operator allows.
    BudgetTooLarge, "budget_too_large";
    /// Nobody can count what the budget bounds.
    BudgetUncountable, "budget_uncountable";
    /// The constraint on the parameters is no usable JSON Schema.
    SchemaInvalid, "schema_invalid";
    /// Made now, a step's call would touch more than the step's budget.
    BudgetTooSmall, "budget_too_small";
    /// What a step's call would do was not seen.
    TargetUnseen, "target_unseen";
    /// A step, or the plan, names more targets than anybody can judge.
    TooManyTargets, "too_many_targets";
    /// No server is known to offer the tool that a condition is read with.
    ConditionUnknown, "condition_unknown";
    /// A condition would be looked at with a tool that does not only read.
    ConditionNotRead, "condition_not_read";
    /// A step, or the plan, has more conditions to be looked at than anybody waits for.
    TooManyConditions, "too_many_conditions";
    /// There are more notes than are told.
    MoreNotes, "more_notes";
}

// === impl Plan ===

impl Plan {
    /// The plan that a draft becomes.
    pub fn of(
        draft: PlanDraft,
        id: PlanId,
        (agent, task): (AgentName, TaskId),
        now: Timestamp,
        basis: PlanBasis,
    ) -> Self {
        let PlanDraft { purpose, reads, steps, expires_in_s, .. } = draft;
        // A number that every reader of a record keeps exactly, whatever was asked for.
        let span_s = expires_in_s.clamp(-1, i64::from(u32::MAX));
        let expires = Timestamp(now.0.saturating_add(span_s.saturating_mul(1000)));
        Self { id, agent, task, purpose, reads, steps, expires, basis, by: None }
    }

    /// The step of this name.
    pub fn step(&self, name: &StepName) -> Option<&PlanStep> {
        self.steps.iter().find(|step| step.id == *name)
    }
}

// === impl PlanStep ===

impl PlanStep {
    /// The conditions that can be looked at, each with its number among all of them, from 1.
    pub fn checks(&self, when: PlanWhen) -> impl Iterator<Item = (u32, &PlanCheck)> {
        let all = match when {
            PlanWhen::Before => &self.preconditions,
            PlanWhen::After => &self.postconditions,
        };
        (1..).zip(all).filter_map(|(number, condition)| Some((number, condition.check()?)))
    }

    /// Every tool that it names: its own, and those that its conditions are read with.
    pub fn tools(&self) -> impl Iterator<Item = &ToolRef> {
        let checks = PlanWhen::ALL.into_iter().flat_map(|when| self.checks(when));
        std::iter::once(&self.tool).chain(checks.map(|(_, check)| &check.tool))
    }
}

// === impl PlanReads ===

impl PlanReads {
    /// The stable word used in records and the CLI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Listed => "listed",
        }
    }
}

// === impl PlanBudget ===

impl PlanBudget {
    /// True if nothing is bounded.
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }

    /// What two calls use up together; what neither counts stays uncounted.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let add = |one: Option<u64>, more: Option<u64>| match (one, more) {
            (None, None) => None,
            (one, more) => Some(one.unwrap_or(0).saturating_add(more.unwrap_or(0))),
        };
        Self {
            rows: add(self.rows, other.rows),
            files: add(self.files, other.files),
            resources: add(self.resources, other.resources),
        }
    }

    /// Each bound with its name.
    pub fn bounds(self) -> [(&'static str, Option<u64>); 3] {
        [("rows", self.rows), ("files", self.files), ("resources", self.resources)]
    }
}

// === impl PlanSeverity ===

impl PlanSeverity {
    /// The stable word used in records and the CLI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Advisory => "advisory",
            Self::Blocking => "blocking",
        }
    }
}

// === impl PlanEnd ===

impl PlanEnd {
    /// The stable word used in records and the CLI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Expired => "expired",
            Self::Void => "void",
            Self::Revised => "revised",
        }
    }
}

// === impl PlanState ===

impl PlanState {
    /// All states.
    pub const ALL: [Self; 7] = [
        Self::Proposed,
        Self::Accepted,
        Self::Refused,
        Self::Ended(PlanEnd::Done),
        Self::Ended(PlanEnd::Expired),
        Self::Ended(PlanEnd::Void),
        Self::Ended(PlanEnd::Revised),
    ];

    /// The stable word used in the store, answers and the CLI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Ended(end) => end.as_str(),
        }
    }

    /// True if it may still come to something.
    pub fn is_open(self) -> bool {
        match self {
            Self::Proposed | Self::Accepted => true,
            Self::Refused | Self::Ended(_) => false,
        }
    }
}

// === impl PlanProposed ===

impl PlanProposed {
    /// True if a note keeps the plan from coming into force.
    pub fn is_blocked(&self) -> bool {
        self.notes.iter().any(|note| note.severity == PlanSeverity::Blocking)
    }
}

// === impl PlanFacts ===

impl PlanFacts {
    /// True if the call is a part of the plan.
    pub fn is_planned(&self) -> bool {
        match self.fit {
            PlanFit::Step { .. } | PlanFit::FreeRead | PlanFit::Condition { .. } => true,
            PlanFit::Deviation { .. } => false,
        }
    }
}

// === impl PlanCode ===

impl fmt::Display for PlanCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn once() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_once(calls: &u32) -> bool {
    *calls == once()
}

/// An hour.
fn expires_in_s_usual() -> i64 {
    3600
}

#[cfg(test)]
mod tests {
    use super::{PlanBudget, PlanCode, PlanDraft};
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_unique() {
        let codes: BTreeSet<_> = PlanCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(codes.len(), PlanCode::ALL.len());
        for code in PlanCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }

    #[test]
    fn what_is_counted_twice_adds_up() {
        let rows = |rows| PlanBudget { rows: Some(rows), ..PlanBudget::default() };
        let files = PlanBudget { files: Some(2), ..PlanBudget::default() };
        assert_eq!(rows(3).plus(rows(u64::MAX)), rows(u64::MAX));
        let both = PlanBudget { rows: Some(3), files: Some(2), resources: None };
        assert_eq!(rows(3).plus(files), both);
        assert!(PlanBudget::default().plus(PlanBudget::default()).is_open());
    }

    #[test]
    fn a_draft_says_only_what_is_known() {
        let read = |text: &str| serde_json::from_str::<PlanDraft>(text);
        let draft = read(
            r#"{"purpose":"x","steps":[{"id":"a","tool":"fs__x","class":"write","calls":2}]}"#,
        );
        assert_eq!(draft.unwrap().steps[0].calls, 2);
        assert!(read(r#"{"purpose":"x","steps":[],"force":true}"#).is_err());
        let step = r#"{"purpose":"x","steps":[{"id":"a","tool":"fs__x","class":"write","x":1}]}"#;
        assert!(read(step).is_err());
    }
}
