//! Comparing a call with a plan: the step that it is a part of, or the nearest one and what is
//! other than it says. Must not rule: a deviation is a fact.

use super::order::Order;
use super::progress::{Progress, StepState};
use crate::settings::{PatternFault, ResourcePattern, ResourceSet};
use holdpoint_types::{
    Certainty, EffectClass, Extent, Facts, Plan, PlanBudget, PlanFit, PlanReads, PlanStep,
    PreviewFacts, Request, Reversibility, StepName, Timestamp,
};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// What a file's address begins with.
const FILE: &str = "file://";

/// A plan, ready to be compared with.
#[derive(Debug)]
pub struct PlanMatcher {
    plan: Plan,
    order: Order,
    targets: Vec<ResourceSet>,
}

/// A call that is to be compared.
#[derive(Clone, Copy)]
pub struct Called<'a> {
    /// The call.
    pub request: &'a Request,
    /// What is known about it.
    pub facts: &'a Facts,
    /// What would come of it.
    pub foreseen: Foreseen<'a>,
    /// What of its parameters breaks the constraint of the step at this place, if anything does.
    pub schema_fault: &'a dyn Fn(usize) -> Option<String>,
}

/// Whether it is known what would come of a call.
#[derive(Clone, Copy, Debug)]
pub enum Foreseen<'a> {
    /// Nobody can see that.
    Never,
    /// Somebody will look, if nothing else speaks against the call: it is compared again then.
    Later,
    /// It is this.
    Seen(&'a PreviewFacts),
}

/// A step, where it stands, and how the call fits it.
type Looked<'a> = (&'a PlanStep, StepState, Result<PlanBudget, Misfit>);

/// How far a call fits a step: the further, the nearer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Misfit {
    Tool,
    Class(String),
    Target(String),
    Surface(String),
    Parameters(String),
    /// It is another call than the one that the step says word for word.
    Call,
    /// What it would do is other than when the plan was made.
    Moved(String),
    Budget(String),
    /// It cannot be taken back.
    Lasting,
}

// === impl PlanMatcher ===

impl PlanMatcher {
    /// Prepares `plan`.
    ///
    /// # Errors
    /// When a target is no pattern, which the checker would have said.
    pub fn new(plan: Plan) -> Result<Self, PatternFault> {
        let of_step = |step: &PlanStep| {
            let patterns = step.targets.iter().map(|text| ResourcePattern::parse(text));
            ResourceSet::new(&patterns.collect::<Result<Vec<_>, _>>()?)
        };
        let targets = plan.steps.iter().map(of_step).collect::<Result<_, _>>()?;
        Ok(Self { order: Order::of(&plan.steps), targets, plan })
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How a call stands to the plan.
    pub fn fit(&self, progress: &Progress, call: Called<'_>) -> PlanFit {
        if call.request.at >= self.plan.expires {
            return over(self.plan.expires);
        }
        let reads = call.facts.aims().all(|aim| aim.class == EffectClass::Read);
        if reads && self.plan.reads == PlanReads::Free {
            return PlanFit::FreeRead;
        }
        let steps = self.plan.steps.iter().enumerate();
        let looked: Vec<Looked<'_>> = steps
            .map(|(at, step)| {
                let state = progress.state(&self.plan.steps, &self.order, at);
                (step, state, self.misfit(at, step, (progress, call)))
            })
            .collect();
        let is_open = |state: &StepState| matches!(state, StepState::Open(_));
        let fitting = looked.iter().find_map(|(step, state, found)| match found {
            Ok(uses) if is_open(state) => Some((*step, *uses)),
            _ => None,
        });
        if let Some((step, uses)) = fitting {
            return PlanFit::Step { step: step.id.clone(), uses };
        }
        // A step that the call fits, at the wrong time; else the open one that it comes nearest.
        let untimely = || looked.iter().filter(|(.., found)| found.is_ok());
        let early = untimely().find(|(_, state, _)| matches!(state, StepState::Waiting(_)));
        if let Some((step, state, _)) = early.or_else(|| untimely().next()) {
            let why =
                format!("the call is one of step `{}`, but {}", step.id, told(state, &looked));
            return PlanFit::Deviation { nearest: Some(step.id.clone()), why };
        }
        let open = looked.iter().filter(|(_, state, _)| is_open(state));
        let mut nearest: Option<(&PlanStep, &Misfit)> = None;
        for (step, _, found) in open {
            if let Err(misfit) = found
                && nearest.is_none_or(|(_, before)| rank(misfit) > rank(before))
            {
                nearest = Some((step, misfit));
            }
        }
        match nearest {
            Some((step, misfit)) => {
                let why = format!("next is step `{}`, {}", step.id, misfit.told(step, call));
                PlanFit::Deviation { nearest: Some(step.id.clone()), why }
            }
            None => {
                let stuck = looked.iter().find(|(_, state, _)| *state != StepState::Done);
                let why = match stuck {
                    Some((step, state, _)) => {
                        format!("no step is open: of step `{}`, {}", step.id, told(state, &looked))
                    }
                    None => "every step is done".to_owned(),
                };
                PlanFit::Deviation { nearest: stuck.map(|(step, ..)| step.id.clone()), why }
            }
        }
    }

    /// What moved of the target of an open step since the plan was made, if `call` is its call and
    /// what it would do is seen.
    pub fn target_moved(&self, progress: &Progress, call: Called<'_>) -> Option<String> {
        let Foreseen::Seen(_) = call.foreseen else { return None };
        self.plan.steps.iter().enumerate().find_map(|(at, step)| {
            let state = progress.state(&self.plan.steps, &self.order, at);
            match (state, self.misfit(at, step, (progress, call))) {
                (StepState::Open(_), Err(Misfit::Moved(why))) => {
                    Some(format!("the target of step `{}` moved: {why}", step.id))
                }
                _ => None,
            }
        })
    }

    /// How much of the step's budget the call uses up, or how it differs from the step.
    fn misfit(
        &self,
        at: usize,
        step: &PlanStep,
        (progress, call): (&Progress, Called<'_>),
    ) -> Result<PlanBudget, Misfit> {
        if step.tool != call.request.tool {
            return Err(Misfit::Tool);
        }
        for aim in call.facts.aims() {
            let resource = &aim.target.resource;
            if aim.class > step.class {
                return Err(Misfit::Class(format!("{} on `{resource}`", aim.class)));
            }
            let named = self.targets.get(at).is_some_and(|targets| targets.contains(resource));
            if !step.targets.is_empty() && !named {
                return Err(Misfit::Target(resource.clone()));
            }
            let unnamed = aim.target.surfaces.iter().find(|name| !step.surfaces.contains(*name));
            // Whatever only looks around may lie on surfaces that policies rule about.
            if let Some(surface) = unnamed.filter(|_| aim.class > EffectClass::Read) {
                return Err(Misfit::Surface(surface.clone()));
            }
        }
        if let Some(fault) = (call.schema_fault)(at) {
            return Err(Misfit::Parameters(fault));
        }
        if step.call.is_some() && call.request.parameters.as_object() != step.call.as_ref() {
            return Err(Misfit::Call);
        }
        if let Some(then) = self.plan.basis.targets.get(&step.id)
            && let Some(why) = moved(then, call.foreseen)
        {
            return Err(Misfit::Moved(why));
        }
        let uses = spend(step, progress.used(&step.id), call).map_err(Misfit::Budget)?;
        if step.class == EffectClass::Destructive && !self.is_saved(at) && lasts(call.foreseen) {
            return Err(Misfit::Lasting);
        }
        Ok(uses)
    }

    /// True if a step before it saves what it destroys.
    fn is_saved(&self, at: usize) -> bool {
        let before = self.order.all_before(at).into_iter();
        before.filter_map(|at| self.plan.steps.get(at)).any(saves)
    }
}

// === impl Misfit ===

impl Misfit {
    fn told(&self, step: &PlanStep, call: Called<'_>) -> String {
        match self {
            Self::Tool => format!("which calls `{}`, not `{}`", step.tool, call.request.tool),
            Self::Class(what) => format!("which is `{}`; the call is {what}", step.class),
            Self::Target(resource) => {
                let mut text = String::from("which is aimed at");
                for (at, target) in step.targets.iter().take(3).enumerate() {
                    let comma = if at > 0 { "," } else { "" };
                    let _ = write!(text, "{comma} `{target}`");
                }
                let more = if step.targets.len() > 3 { " and others" } else { "" };
                format!("{text}{more}; the call is aimed at `{resource}`")
            }
            Self::Surface(surface) => format!("which does not name the surface `{surface}`"),
            Self::Parameters(fault) => format!("whose `parameters` the call breaks: {fault}"),
            Self::Call => "whose `call` has other parameters".to_owned(),
            Self::Moved(why) => format!("whose target moved since the plan was made: {why}"),
            Self::Budget(why) => format!("whose budget does not suffice: {why}"),
            Self::Lasting => {
                "before which nothing is saved; the call could not be taken back exactly".to_owned()
            }
        }
    }
}

fn rank(misfit: &Misfit) -> u8 {
    match misfit {
        Misfit::Tool => 0,
        Misfit::Class(_) => 1,
        Misfit::Target(_) => 2,
        Misfit::Surface(_) => 3,
        Misfit::Parameters(_) => 4,
        Misfit::Call => 5,
        Misfit::Moved(_) => 6,
        Misfit::Budget(_) => 7,
        Misfit::Lasting => 8,
    }
}

fn over(expires: Timestamp) -> PlanFit {
    let why = format!("the plan expired at {} ms; propose another", expires.0);
    PlanFit::Deviation { nearest: None, why }
}

/// Why a step takes no such call now, and what helps.
fn told(state: &StepState, looked: &[Looked<'_>]) -> String {
    match state {
        StepState::Waiting(names) => waits(names, looked),
        StepState::Open(_) => "it is open".to_owned(),
        StepState::Running => "all its calls are under way".to_owned(),
        StepState::Done => "it is done; revise the plan if there is more to do".to_owned(),
        StepState::Spent => "its calls are used up and none succeeded; revise the plan".to_owned(),
        StepState::Unlooked => {
            "what must hold after it was not looked at yet; ask for the plan's status".to_owned()
        }
        StepState::Unmet(unmet) => {
            format!("what must hold after it does not; revise the plan: {unmet}")
        }
        StepState::InDoubt(action) => {
            format!("nobody knows what its call {action} did; revise the plan")
        }
    }
}

/// What a step waits for, and what of that, or before it, goes no further.
fn waits(names: &[StepName], looked: &[Looked<'_>]) -> String {
    let each: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    let text = format!("it waits for {}", each.join(", "));
    let (mut open, mut seen) = (names.iter().rev().collect::<Vec<_>>(), BTreeSet::new());
    while let Some(name) = open.pop() {
        let found = looked.iter().find(|(step, ..)| step.id == *name);
        let Some((_, state, _)) = found.filter(|_| seen.insert(name)) else { continue };
        let why = match state {
            StepState::Waiting(more) => {
                open.extend(more);
                continue;
            }
            StepState::Unmet(_) => "whose postcondition does not hold".to_owned(),
            StepState::Spent => "whose calls are used up and none succeeded".to_owned(),
            StepState::InDoubt(action) => format!("whose call {action} is in doubt"),
            StepState::Open(_) | StepState::Running | StepState::Done | StepState::Unlooked => {
                continue;
            }
        };
        let whose = match names {
            [_] if names.contains(name) => String::new(),
            _ => format!(" and in the end for `{name}`,"),
        };
        return format!("{text},{whose} {why}: revise the plan");
    }
    text
}

/// True if a step makes what later ones are taken back with.
pub(super) fn saves(step: &PlanStep) -> bool {
    step.recovery_point && step.class < EffectClass::Destructive
}

/// True if what would come of a call cannot be taken back exactly.
fn lasts(foreseen: Foreseen<'_>) -> bool {
    match foreseen {
        Foreseen::Never => true,
        Foreseen::Later => false,
        Foreseen::Seen(preview) => preview.guarantee > Reversibility::ExactUntil,
    }
}

/// How what a call would do differs from what it would have done `then`.
fn moved(then: &PreviewFacts, foreseen: Foreseen<'_>) -> Option<String> {
    match foreseen {
        Foreseen::Later => None,
        Foreseen::Never => Some("nobody can see now what the call would do".to_owned()),
        Foreseen::Seen(now) => (now.digest != then.digest).then(|| {
            let (then, now) = (then.counts, now.counts);
            format!("then the call {then}; now it {now}, or other things")
        }),
    }
}

/// What a call uses up of the budget of `step`, of which `used` is gone.
fn spend(step: &PlanStep, used: PlanBudget, call: Called<'_>) -> Result<PlanBudget, String> {
    let take = |name: &str, bound: Option<u64>, used: Option<u64>, touched: Option<u64>| {
        let Some(bound) = bound else { return Ok(None) };
        let left = bound.saturating_sub(used.unwrap_or(0));
        match touched {
            None => Err(format!("nobody can tell how many {name} the call touches")),
            Some(touched) if touched > left => {
                Err(format!("the call touches {touched} {name}, and {left} of {bound} are left"))
            }
            Some(touched) => Ok(Some(touched)),
        }
    };
    let (files, resources) = touched(call.facts);
    let is_file = |resource: &str| resource.starts_with(FILE);
    let of_files = call.facts.aims().any(|aim| is_file(&aim.target.resource));
    let (rows, files) = match call.foreseen {
        Foreseen::Never => (None, files),
        Foreseen::Later => (Some(0), Some(0)),
        Foreseen::Seen(preview) => {
            let changes = preview.exact.then(|| preview.counts.total());
            if of_files { (Some(0), changes) } else { (changes, files) }
        }
    };
    let budget = step.budget;
    Ok(PlanBudget {
        rows: take("rows", budget.rows, used.rows, rows)?,
        files: take("files", budget.files, used.files, files)?,
        resources: take("resources", budget.resources, used.resources, resources)?,
    })
}

/// How many files and resources a call changes, by what is known of its effects; absent where that
/// cannot be told.
fn touched(facts: &Facts) -> (Option<u64>, Option<u64>) {
    let mut files = BTreeSet::new();
    let mut resources = BTreeSet::new();
    let mut is_known = true;
    for aim in facts.aims().filter(|aim| aim.class > EffectClass::Read) {
        let resource = aim.target.resource.as_str();
        let is_file = resource.starts_with(FILE);
        if let Some(effect) = aim.effect {
            let wild = effect.certainty > Certainty::Exact && resource.contains(['*', '?', '[']);
            // All of a table is one table; all of a folder is any number of files.
            let tree = is_file && effect.extent == Extent::Whole;
            is_known &= effect.certainty < Certainty::Opaque && !wild && !tree;
        }
        resources.insert(resource);
        if is_file {
            files.insert(resource);
        }
    }
    let count = |found: usize| is_known.then(|| u64::try_from(found).unwrap_or(u64::MAX));
    (count(files.len()), count(resources.len()))
}
