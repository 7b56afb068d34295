//! Plans as agents, operators and programs read them. Must not decide anything.

use crate::store::PlanRow;
use holdpoint_control::plan::{Progress, StepState};
use holdpoint_types::{AgentName, PlanBudget, PlanDraft, PlanId, PlanNote, PlanState, PlanStep};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// What an operator says to a plan that waits.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanAsk {
    /// Whether it is accepted.
    pub accept: bool,
    /// Why.
    pub because: String,
}

/// What a host proposes for one of its agents.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanProposeAsk {
    /// Whose calls it is about.
    pub agent: AgentName,
    /// The plan.
    pub plan: PlanDraft,
    /// The plan that it revises.
    #[serde(default)]
    pub revises: Option<PlanId>,
}

/// A plan, how far it has come, and what may be done next.
pub fn plan_json(row: &PlanRow) -> Value {
    let plan = &row.plan;
    let progress = row.progress();
    let states = progress.states(&plan.steps);
    let steps = plan.steps.iter().zip(&states).map(|(step, state)| {
        let mut told = step_json(step, state, &progress);
        if let Some(seen) = plan.basis.targets.get(&step.id) {
            told["would"] = json!(seen);
        }
        told
    });
    let mut told = json!({
        "plan": plan.id,
        "state": row.state.as_str(),
        "agent": plan.agent,
        "task": plan.task,
        "purpose": plan.purpose,
        "reads": plan.reads,
        "expires_ms": plan.expires,
        "notes": row.notes.iter().map(note_json).collect::<Vec<_>>(),
        "steps": steps.collect::<Vec<_>>(),
        "next": next_steps(row),
    });
    if let (Some(parent), Some(told)) = (plan.basis.parent, told.as_object_mut()) {
        told.insert("revises".to_owned(), json!(parent));
    }
    told
}

/// The names of the steps that can take calls now.
pub fn next_steps(row: &PlanRow) -> Vec<String> {
    if row.state != PlanState::Accepted {
        return Vec::new();
    }
    let states = row.progress().states(&row.plan.steps);
    let steps = row.plan.steps.iter().zip(states);
    let open = steps.filter(|(_, state)| matches!(state, StepState::Open(_)));
    open.map(|(step, _)| step.id.to_string()).collect()
}

/// The steps that go no further because something does not hold after them, and what.
pub fn unmet_steps(row: &PlanRow) -> Vec<(String, String)> {
    let steps = row.plan.steps.iter().zip(row.progress().states(&row.plan.steps));
    let unmet = steps.filter_map(|(step, state)| match state {
        StepState::Unmet(unmet) => Some((step.id.to_string(), unmet)),
        _ => None,
    });
    unmet.collect()
}

fn note_json(note: &PlanNote) -> Value {
    json!({
        "severity": note.severity.as_str(), "code": note.code.as_str(),
        "step": note.step, "text": note.text,
    })
}

fn step_json(step: &PlanStep, state: &StepState, progress: &Progress) -> Value {
    let mut told = json!({
        "id": step.id,
        "tool": step.tool,
        "class": step.class,
        "targets": step.targets,
        "state": state.as_str(),
        "calls": { "taken": progress.taken(&step.id), "most": step.calls },
    });
    let mut more = Map::new();
    match state {
        StepState::Waiting(names) => {
            more.insert("waits_for".to_owned(), json!(names));
        }
        StepState::InDoubt(action) => {
            more.insert("in_doubt".to_owned(), json!(action));
        }
        StepState::Unmet(unmet) => {
            more.insert("unmet".to_owned(), json!(unmet));
        }
        StepState::Open(_)
        | StepState::Running
        | StepState::Done
        | StepState::Spent
        | StepState::Unlooked => {}
    }
    if !step.budget.is_open() {
        more.insert("budget".to_owned(), json!(step.budget));
        more.insert("used".to_owned(), used(step.budget, progress.used(&step.id)));
    }
    let conditions =
        [("preconditions", &step.preconditions), ("postconditions", &step.postconditions)];
    for (name, conditions) in conditions.into_iter().filter(|(_, all)| !all.is_empty()) {
        more.insert(name.to_owned(), json!(conditions));
    }
    if let Some(told) = told.as_object_mut() {
        told.extend(more);
    }
    told
}

/// How much of each bound is gone.
fn used(budget: PlanBudget, used: PlanBudget) -> Value {
    let each = budget.bounds().into_iter().zip(used.bounds());
    let bounded = each.filter(|((_, bound), _)| bound.is_some());
    let pairs = bounded.map(|((name, _), (_, used))| (name.to_owned(), json!(used.unwrap_or(0))));
    Value::Object(pairs.collect())
}
