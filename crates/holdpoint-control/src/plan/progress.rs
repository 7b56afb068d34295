//! How far a plan has come: a value that follows from the records of its calls alone. Must not
//! remember anything that no record says.

use super::order::Order;
use holdpoint_types::{ActionId, PlanBudget, PlanLooked, PlanStep, PlanWhen, StepName};
use std::collections::BTreeMap;

/// One call that was permitted as a part of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanCall {
    /// The action.
    pub action: ActionId,
    /// The step.
    pub step: StepName,
    /// How much of the step's budget it uses up.
    pub uses: PlanBudget,
    /// What has become of it.
    pub state: CallState,
}

/// What has become of a permitted call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallState {
    /// No outcome is recorded, and its process may live.
    Running,
    /// The tool answered without an error.
    Succeeded,
    /// The tool answered with an error; it may have done a part all the same.
    ToolError,
    /// It was never sent.
    NotSent,
    /// Nobody knows what it did.
    InDoubt,
}

/// How far a plan has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How many changes it has seen: a call that was compared with an older one is compared anew.
    pub version: u64,
    steps: BTreeMap<StepName, Taken>,
    looked: BTreeMap<StepName, Option<String>>,
}

/// The calls that one step has taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Taken {
    running: u32,
    succeeded: u32,
    failed: u32,
    in_doubt: Option<ActionId>,
    used: PlanBudget,
}

/// Where a step stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepState {
    /// It waits for these to be done.
    Waiting(Vec<StepName>),
    /// It can take so many calls more.
    Open(u32),
    /// All its calls are under way.
    Running,
    /// It has succeeded, and takes no call any more.
    Done,
    /// All its calls are used up, and none succeeded.
    Spent,
    /// It has succeeded and takes no call any more; what must hold after it was not looked at yet.
    Unlooked,
    /// This must hold after it, and does not: it goes no further.
    Unmet(String),
    /// Nobody knows what this call of it did: it goes no further.
    InDoubt(ActionId),
}

// === impl CallState ===

impl CallState {
    /// All states.
    pub const ALL: [Self; 5] =
        [Self::Running, Self::Succeeded, Self::ToolError, Self::NotSent, Self::InDoubt];

    /// The stable word used in the store and the CLI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::ToolError => "tool_error",
            Self::NotSent => "not_sent",
            Self::InDoubt => "in_doubt",
        }
    }
}

// === impl Progress ===

impl Progress {
    /// What follows from these calls.
    pub fn of<'a>(version: u64, calls: impl IntoIterator<Item = &'a PlanCall>) -> Self {
        let mut steps: BTreeMap<StepName, Taken> = BTreeMap::new();
        for call in calls {
            let taken = steps.entry(call.step.clone()).or_default();
            match call.state {
                // What provably never left the house gives back what it took.
                CallState::NotSent => continue,
                CallState::Running => taken.running = taken.running.saturating_add(1),
                CallState::Succeeded => taken.succeeded = taken.succeeded.saturating_add(1),
                CallState::ToolError => taken.failed = taken.failed.saturating_add(1),
                CallState::InDoubt => taken.in_doubt = Some(call.action),
            }
            taken.used = taken.used.plus(call.uses);
        }
        Self { version, steps, looked: BTreeMap::new() }
    }

    /// The same with what was found of the conditions after its steps.
    #[must_use]
    pub fn looked<'a>(mut self, all: impl IntoIterator<Item = &'a PlanLooked>) -> Self {
        let found = all.into_iter().map(|one| (one.step.clone(), one.unmet.clone()));
        self.looked.extend(found);
        self
    }

    /// How many calls of `step` count.
    pub fn taken(&self, step: &StepName) -> u32 {
        self.steps.get(step).map_or(0, Taken::count)
    }

    /// How much of its budget `step` has used up.
    pub fn used(&self, step: &StepName) -> PlanBudget {
        self.steps.get(step).map_or_else(PlanBudget::default, |taken| taken.used)
    }

    /// Where every step stands, in the order of the plan.
    pub fn states(&self, steps: &[PlanStep]) -> Vec<StepState> {
        let order = Order::of(steps);
        (0..steps.len()).map(|at| self.state(steps, &order, at)).collect()
    }

    /// True if nothing is left to do.
    pub fn is_complete(&self, steps: &[PlanStep]) -> bool {
        steps.iter().all(|step| self.has_succeeded(step))
    }

    /// The steps whose calls are all well, if there are no more of them, and whose conditions
    /// nobody has looked at; each with how many calls it still takes.
    pub fn unlooked<'a>(&self, steps: &'a [PlanStep]) -> Vec<(&'a PlanStep, u32)> {
        let states = self.states(steps).into_iter();
        let each = steps.iter().zip(states).filter_map(|(step, state)| match state {
            StepState::Unlooked => Some((step, 0)),
            StepState::Open(left) if self.wants_looking(step) => Some((step, left)),
            _ => None,
        });
        each.collect()
    }

    /// True if moreover no step takes a call any more.
    pub fn is_exhausted(&self, steps: &[PlanStep]) -> bool {
        self.states(steps).iter().all(|state| *state == StepState::Done)
    }

    /// Where the step at this place stands.
    pub(super) fn state(&self, steps: &[PlanStep], order: &Order, at: usize) -> StepState {
        let Some(step) = steps.get(at) else { return StepState::Done };
        let taken = self.steps.get(&step.id);
        if let Some(action) = taken.and_then(|taken| taken.in_doubt) {
            return StepState::InDoubt(action);
        }
        let named = |at: usize| steps.get(at);
        let waits = order.before(at).filter_map(named).filter(|step| !self.has_succeeded(step));
        let waits: Vec<_> = waits.map(|step| step.id.clone()).collect();
        if !waits.is_empty() {
            return StepState::Waiting(waits);
        }
        match self.looked.get(&step.id) {
            Some(Some(unmet)) => return StepState::Unmet(unmet.clone()),
            Some(None) => return StepState::Done,
            None => {}
        }
        if order.behind(at).filter_map(named).any(|step| self.taken(&step.id) > 0) {
            return StepState::Done;
        }
        let left = step.calls.saturating_sub(self.taken(&step.id));
        match (left, taken) {
            (0, Some(taken)) if taken.running > 0 => StepState::Running,
            (0, Some(_)) if self.wants_looking(step) => StepState::Unlooked,
            (0, Some(taken)) if taken.succeeded > 0 => StepState::Done,
            (0, _) => StepState::Spent,
            (left, _) => StepState::Open(left),
        }
    }

    /// True if a call of the step succeeded, none is under way, none is in doubt, and what must
    /// hold after it does.
    fn has_succeeded(&self, step: &PlanStep) -> bool {
        match self.looked.get(&step.id) {
            Some(unmet) => unmet.is_none() && self.is_well(step),
            None => self.is_well(step) && step.checks(PlanWhen::After).next().is_none(),
        }
    }

    /// True if all is well with the step but that nobody looked at what must hold after it.
    fn wants_looking(&self, step: &PlanStep) -> bool {
        let has_checks = step.checks(PlanWhen::After).next().is_some();
        has_checks && self.is_well(step) && !self.looked.contains_key(&step.id)
    }

    fn is_well(&self, step: &PlanStep) -> bool {
        let well =
            |taken: &Taken| taken.succeeded > 0 && taken.running == 0 && taken.in_doubt.is_none();
        self.steps.get(&step.id).is_some_and(well)
    }
}

// === impl Taken ===

impl Taken {
    fn count(&self) -> u32 {
        let sum = self.running.saturating_add(self.succeeded).saturating_add(self.failed);
        sum.saturating_add(u32::from(self.in_doubt.is_some()))
    }
}

// === impl StepState ===

impl StepState {
    /// The stable word used in answers and the CLI.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting(_) => "waiting",
            Self::Open(_) => "open",
            Self::Running => "running",
            Self::Done => "done",
            Self::Spent => "spent",
            Self::Unlooked => "unlooked",
            Self::Unmet(_) => "unmet",
            Self::InDoubt(_) => "in_doubt",
        }
    }

    /// True if it goes no further, whatever is called: only a revision of the plan helps.
    pub fn is_stuck(&self) -> bool {
        match self {
            Self::Spent | Self::Unmet(_) | Self::InDoubt(_) => true,
            Self::Waiting(_) | Self::Open(_) | Self::Running | Self::Done | Self::Unlooked => false,
        }
    }
}
