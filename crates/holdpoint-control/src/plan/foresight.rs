//! What the calls of a plan would do if they were made at once: which of them can be looked at, and
//! what the checker remarks about what was seen. Must not look at anything itself.

use super::order::Order;
use super::{FORESEEN_MAX, note};
use holdpoint_types::{
    EffectClass, Plan, PlanCode, PlanNote, PlanSeverity, PlanStep, PreviewFacts, Reversibility,
    StepName,
};
use std::collections::BTreeMap;

/// The steps whose call stands in the plan word for word and changes something that no other step
/// may have changed before: what it would do is known when the plan is made.
pub fn foreseeable(plan: &Plan) -> Vec<&PlanStep> {
    let order = Order::of(&plan.steps);
    let steps = plan.steps.iter().enumerate();
    let alone = steps.filter(|(at, step)| step.call.is_some() && is_first(plan, &order, *at));
    alone.map(|(_, step)| step).take(FORESEEN_MAX).collect()
}

/// Remarks on what was seen in `plan.basis`, and on steps that were looked at in vain, with why.
pub fn note_foreseen(plan: &Plan, unseen: &BTreeMap<StepName, String>) -> Vec<PlanNote> {
    let foreseeable = foreseeable(plan);
    let mut notes = Vec::new();
    for step in plan.steps.iter().filter(|step| step.call.is_some()) {
        if let Some(seen) = plan.basis.targets.get(&step.id) {
            notes.extend(of_seen(step, seen));
        } else if let Some(why) = unseen.get(&step.id) {
            let text = format!("what its call would do is not seen: {why}");
            notes.push(note(PlanSeverity::Advisory, PlanCode::TargetUnseen, step, text));
        } else if !foreseeable.iter().any(|one| one.id == step.id) {
            let text = "what its call would do is not seen: other steps change something before";
            notes.push(note(PlanSeverity::Advisory, PlanCode::TargetUnseen, step, text));
        }
    }
    notes
}

/// True if no other step that changes something of the same server can be made before it.
fn is_first(plan: &Plan, order: &Order, at: usize) -> bool {
    let Some(step) = plan.steps.get(at) else { return false };
    plan.steps.iter().enumerate().all(|(other, one)| {
        let same = one.tool.server() == step.tool.server() && one.class > EffectClass::Read;
        other == at || !same || order.all_before(other).contains(&at)
    })
}

fn of_seen(step: &PlanStep, seen: &PreviewFacts) -> Option<PlanNote> {
    let total = seen.counts.total();
    let rows = step.budget.rows.filter(|rows| total > *rows && seen.exact);
    if let Some(rows) = rows {
        let text = format!("its call would touch {total} rows, more than the {rows} of its budget");
        return Some(note(PlanSeverity::Blocking, PlanCode::BudgetTooSmall, step, text));
    }
    let lasts = seen.guarantee > Reversibility::ExactUntil && step.class > EffectClass::Write;
    lasts.then(|| {
        let text = "what its call would do could not be taken back exactly";
        note(PlanSeverity::Advisory, PlanCode::RecoveryMissing, step, text)
    })
}
