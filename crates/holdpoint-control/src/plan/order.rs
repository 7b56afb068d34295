//! In which order the steps of a plan come. Must not know what has been done.

use super::{PlanSeverity, note};
use holdpoint_types::{PlanCode, PlanNote, PlanStep, StepName};
use std::collections::{BTreeMap, BTreeSet};

/// Which steps come before which, by position.
#[derive(Clone, Debug, Default)]
pub(super) struct Order {
    before: Vec<BTreeSet<usize>>,
}

// === impl Order ===

impl Order {
    /// The order of `steps`. Of steps with one name the last counts; names that there are not count
    /// for nothing, and both are what the checker complains about.
    pub(super) fn of(steps: &[PlanStep]) -> Self {
        let places: BTreeMap<&StepName, usize> =
            steps.iter().enumerate().map(|(at, step)| (&step.id, at)).collect();
        let before = |(at, step): (usize, &PlanStep)| match &step.after {
            Some(names) => names.iter().filter_map(|name| places.get(name).copied()).collect(),
            None => at.checked_sub(1).into_iter().collect(),
        };
        Self { before: steps.iter().enumerate().map(before).collect() }
    }

    /// The steps that must be done right before `step`.
    pub(super) fn before(&self, step: usize) -> impl Iterator<Item = usize> {
        self.before.get(step).into_iter().flatten().copied()
    }

    /// The steps that wait for `step` and for nothing between.
    pub(super) fn behind(&self, step: usize) -> impl Iterator<Item = usize> {
        let waits = move |(_, before): &(usize, &BTreeSet<usize>)| before.contains(&step);
        self.before.iter().enumerate().filter(waits).map(|(at, _)| at)
    }

    /// All steps that are done when `step` begins.
    pub(super) fn all_before(&self, step: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut next: Vec<usize> = self.before(step).collect();
        while let Some(at) = next.pop() {
            if found.insert(at) {
                next.extend(self.before(at));
            }
        }
        found
    }
}

/// What is wrong with names and order.
pub(super) fn faults(steps: &[PlanStep], order: &Order) -> Vec<PlanNote> {
    let mut notes = Vec::new();
    let mut seen = BTreeSet::new();
    for step in steps {
        if !seen.insert(&step.id) {
            let text = "another step has this name; give each its own";
            notes.push(note(PlanSeverity::Blocking, PlanCode::StepRepeated, step, text));
        }
    }
    for (at, step) in steps.iter().enumerate() {
        for name in step.after.iter().flatten().filter(|name| !seen.contains(name)) {
            let text = format!("there is no step `{name}`; name one that there is in `after`");
            notes.push(note(PlanSeverity::Blocking, PlanCode::AfterUnknown, step, text));
        }
        if order.all_before(at).contains(&at) {
            let text = "it waits for itself, by way of `after`; take one of the names out";
            notes.push(note(PlanSeverity::Blocking, PlanCode::AfterCycle, step, text));
        }
    }
    notes
}
