//! The checker: what is wrong with a plan, before anybody accepts it.
//!
//! It knows the catalog and the operator's settings, not the policies: what they say is asked at
//! each call. Total and deterministic. Must not accept or refuse.

use super::matching::saves;
use super::order::{self, Order};
use super::{
    CHECKS_MAX, NOTES_MAX, PlanRules, STEP_CALLS_MAX, STEP_CHECKS_MAX, STEPS_MAX, TARGETS_MAX,
    note, note_of_plan,
};
use crate::settings::{Aimed, ResourcePattern, Settings, Touch};
use holdpoint_types::{
    EffectClass, Plan, PlanBudget, PlanCheck, PlanCode, PlanNote, PlanSeverity, PlanStep, PlanWhen,
    Timestamp, ToolFacts, ToolRef, ToolState,
};
use std::collections::{BTreeMap, BTreeSet};

/// A condition of a plan: the step's position, when it must hold, and its number.
pub type ConditionPlace = (usize, PlanWhen, u32);

/// What the checker knows besides the plan.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The operator's settings.
    pub settings: &'a Settings,
    /// What they say about plans.
    pub rules: &'a PlanRules,
    /// The tools that servers offer, as far as the plan names them.
    pub tools: &'a BTreeMap<ToolRef, ToolFacts>,
    /// Tools whose calls are previewed.
    pub previewed: &'a BTreeSet<ToolRef>,
    /// What is wrong with the constraints on parameters, by the step's position.
    pub schema_faults: &'a BTreeMap<usize, String>,
    /// What the reads of conditions would be, where that is found out from their parameters.
    pub looks: &'a BTreeMap<ConditionPlace, EffectClass>,
    /// Why what such a read would be cannot be found out, or that its tool does not take them.
    pub unread: &'a BTreeMap<ConditionPlace, String>,
    /// What is wrong with the constraints on their results.
    pub result_faults: &'a BTreeMap<ConditionPlace, String>,
    /// The time.
    pub now: Timestamp,
}

/// One step under the checker's eyes.
struct Looked<'a> {
    at: usize,
    step: &'a PlanStep,
    /// Its targets, as far as they can be read.
    targets: Vec<ResourcePattern>,
}

/// What is wrong with `plan`: the worst first, then in the order of its steps.
pub fn check(plan: &Plan, known: Known<'_>) -> Vec<PlanNote> {
    let mut notes = of_plan(plan, known);
    if plan.steps.len() > STEPS_MAX || targets(plan) > TARGETS_MAX || checks(plan) > CHECKS_MAX {
        return notes;
    }
    let order = Order::of(&plan.steps);
    notes.extend(order::faults(&plan.steps, &order));
    let steps: Vec<_> = plan.steps.iter().enumerate().map(Looked::at).collect();
    for one in &steps {
        notes.extend(one.tool(plan, known));
        notes.extend(one.aim(known));
        notes.extend(one.surfaces(known));
        notes.extend(one.extent(known));
        notes.extend(one.recovery(&steps, &order, known));
        notes.extend(one.recreates(&steps));
        notes.extend(one.conditions(plan, known));
    }
    notes.extend(budgets(plan, known));
    let place = |one: &PlanNote| {
        one.step.as_ref().and_then(|name| plan.steps.iter().position(|step| step.id == *name))
    };
    notes.sort_by_cached_key(|one| (std::cmp::Reverse(one.severity), place(one), one.clone()));
    notes.dedup();
    shorten(notes)
}

// === impl Looked ===

impl<'a> Looked<'a> {
    fn at((at, step): (usize, &'a PlanStep)) -> Self {
        let targets = step.targets.iter().filter_map(|text| ResourcePattern::parse(text).ok());
        Self { at, step, targets: targets.collect() }
    }

    fn blocks(&self, code: PlanCode, text: impl Into<String>) -> PlanNote {
        note(PlanSeverity::Blocking, code, self.step, text)
    }

    fn advises(&self, code: PlanCode, text: impl Into<String>) -> PlanNote {
        note(PlanSeverity::Advisory, code, self.step, text)
    }

    /// Whether it may call its tool, in which class, and how.
    fn tool(&self, plan: &Plan, known: Known<'_>) -> Vec<PlanNote> {
        let (step, tool) = (self.step, &self.step.tool);
        let mut notes = Vec::new();
        if let Some(fault) = known.schema_faults.get(&self.at) {
            let text = format!("`parameters` is no usable JSON Schema: {fault}");
            notes.push(self.blocks(PlanCode::SchemaInvalid, text));
        }
        if !(1..=STEP_CALLS_MAX).contains(&step.calls) {
            let text = format!("`calls` must be 1 to {STEP_CALLS_MAX}");
            notes.push(self.blocks(PlanCode::CallsOutOfRange, text));
        }
        if step.call.is_some() && step.calls != 1 {
            let text = "with `call` it takes that one call; leave `calls` out";
            notes.push(self.blocks(PlanCode::CallsOutOfRange, text));
        }
        let Some(facts) = known.tools.get(tool) else {
            let text = format!("no server is known to offer `{tool}`; see `tools/list`");
            notes.push(self.blocks(PlanCode::ToolUnknown, text));
            return notes;
        };
        if let ToolState::Changed { .. } = facts.state {
            let text = format!("`{tool}` changed since it was pinned; an operator must look at it");
            notes.push(self.blocks(PlanCode::ToolQuarantined, text));
        }
        let per_call = known.settings.analyses(tool);
        let class = if per_call { step.class } else { facts.class };
        if step.class < facts.class {
            let (said, is) = (step.class, facts.class);
            notes.push(match per_call {
                true => self.advises(
                    PlanCode::ClassPerCall,
                    format!("calls of `{tool}` can be {is}; those that are will not be `{said}`"),
                ),
                false => self.blocks(
                    PlanCode::ClassTooMild,
                    format!("`{tool}` is {is}; say `class: \"{is}\"`, or use a milder tool"),
                ),
            });
        }
        if known.settings.grant_for(&plan.agent, tool, class).is_none() {
            let text = format!("no grant reaches `{tool}` as {class}; its calls would be denied");
            notes.push(self.blocks(PlanCode::NotGranted, text));
        }
        notes
    }

    /// Whether its targets say something that a call can be compared with.
    fn aim(&self, known: Known<'_>) -> Vec<PlanNote> {
        let changes = self.step.class > EffectClass::Read;
        let mut notes = Vec::new();
        if self.step.targets.is_empty() && changes {
            let text = "it changes something; name the resources in `targets`";
            notes.push(self.blocks(PlanCode::TargetMissing, text));
        }
        for text in &self.step.targets {
            match ResourcePattern::parse(text) {
                Err(fault) => {
                    notes.push(self.blocks(PlanCode::TargetInvalid, fault.to_string()));
                }
                Ok(pattern) if pattern.is_everything() => {
                    let said = format!("`{text}` is everything; name what it is about");
                    let code = PlanCode::TargetEverything;
                    let note = if changes { Self::blocks } else { Self::advises };
                    notes.push(note(self, code, said));
                }
                Ok(_) => {}
            }
        }
        notes.extend(self.unresolved(known));
        notes
    }

    fn unresolved(&self, known: Known<'_>) -> Option<PlanNote> {
        let tool = &self.step.tool;
        let known_tool = known.tools.contains_key(tool);
        if self.targets.is_empty() || tool.is_read_request() || !known_tool {
            return None;
        }
        let (fits, aimed) = match known.settings.aimed(tool) {
            Aimed::ByEffects => return None,
            Aimed::Scheme(scheme) => {
                let fits = self.targets.iter().any(|target| target.scheme() == scheme);
                (fits, format!("`{scheme}://…`"))
            }
            Aimed::Tool(resource) => {
                let itself = ResourcePattern::parse(&resource).ok();
                let fits = itself
                    .is_some_and(|itself| self.targets.iter().any(|one| one.overlaps(&itself)));
                (fits, format!("`{resource}`"))
            }
        };
        let text = format!("calls of `{tool}` are aimed at {aimed}, which is none of its targets");
        (!fits).then(|| self.blocks(PlanCode::TargetUnresolved, text))
    }

    fn surfaces(&self, known: Known<'_>) -> Vec<PlanNote> {
        let mut notes = Vec::new();
        let touched = known.settings.surfaces_of(&self.step.tool, &self.targets);
        let forbidden = &known.rules.forbidden_surfaces;
        for name in &self.step.surfaces {
            let declared = known.settings.parts().surfaces.iter().any(|one| one.name == *name);
            if !declared {
                let text = format!("no surface is called `{name}`; take it out");
                notes.push(self.advises(PlanCode::SurfaceUnknown, text));
            } else if forbidden.contains(name) {
                let text = format!("no plan may touch `{name}`; aim beside it");
                notes.push(self.blocks(PlanCode::SurfaceForbidden, text));
            }
        }
        let unnamed = touched.iter().filter(|(name, _)| !self.step.surfaces.contains(*name));
        for (name, touch) in unnamed {
            let told = match touch {
                Touch::Surely if forbidden.contains(name) => {
                    let text = format!("it touches `{name}`, which no plan may; aim beside it");
                    self.blocks(PlanCode::SurfaceForbidden, text)
                }
                Touch::Surely => {
                    let text = format!("it touches `{name}`; name that in `surfaces`");
                    self.blocks(PlanCode::SurfaceUnnamed, text)
                }
                // Every call is looked at again: what touches it is then no part of the step.
                Touch::Perhaps if self.step.class > EffectClass::Read => {
                    let text = format!("changes that touch `{name}` will be no part of it");
                    self.advises(PlanCode::SurfaceUnnamed, text)
                }
                Touch::Perhaps => continue,
            };
            notes.push(told);
        }
        notes
    }

    /// Whether it says how much it touches, in a way that can be counted.
    fn extent(&self, known: Known<'_>) -> Vec<PlanNote> {
        let (step, tool) = (self.step, &self.step.tool);
        let mut notes = Vec::new();
        if step.class == EffectClass::Destructive && step.budget.is_open() {
            let text = "it destroys; bound how much by `budget`";
            notes.push(self.blocks(PlanCode::BudgetMissing, text));
        }
        let previewed = known.previewed.contains(tool);
        if step.budget.rows.is_some() && !previewed {
            let text =
                format!("nobody can count the rows that `{tool}` touches; bound `resources`");
            notes.push(self.blocks(PlanCode::BudgetUncountable, text));
        }
        let unnamed = matches!(known.settings.aimed(tool), Aimed::Tool(_));
        if step.budget.files.is_some() && unnamed && !previewed {
            let text =
                format!("nobody can count the files that `{tool}` touches; bound `resources`");
            notes.push(self.blocks(PlanCode::BudgetUncountable, text));
        }
        notes
    }

    /// Whether what it destroys can be had again.
    fn recovery(&self, steps: &[Looked<'_>], order: &Order, known: Known<'_>) -> Option<PlanNote> {
        if self.step.class < EffectClass::Destructive {
            return None;
        }
        let saved = |at: usize| steps.get(at).is_some_and(|before| saves(before.step));
        if order.all_before(self.at).into_iter().any(saved) {
            return None;
        }
        Some(match known.previewed.contains(&self.step.tool) {
            // Every preview says how well its call can be taken back.
            true => self.advises(
                PlanCode::RecoveryMissing,
                "nothing is saved before; calls that cannot be taken back exactly will be no part \
                 of it",
            ),
            false => self.blocks(
                PlanCode::RecoveryMissing,
                "what it does may be for ever, and nothing is saved; put a step before it that \
                 saves it, with `recovery_point: true`",
            ),
        })
    }

    /// Whether its conditions can be looked at, by nothing but reads that the agent may make.
    fn conditions(&self, plan: &Plan, known: Known<'_>) -> Vec<PlanNote> {
        let mut notes = Vec::new();
        let all = PlanWhen::ALL.into_iter().flat_map(|when| {
            self.step.checks(when).map(move |(number, check)| (when, number, check))
        });
        let all: Vec<_> = all.collect();
        if all.len() > STEP_CHECKS_MAX {
            let text =
                format!("{} conditions would be looked at, more than {STEP_CHECKS_MAX}", all.len());
            notes.push(self.blocks(PlanCode::TooManyConditions, text));
        }
        for (when, number, PlanCheck { tool, .. }) in all {
            let which = match when {
                PlanWhen::Before => format!("precondition {number}"),
                PlanWhen::After => format!("postcondition {number}"),
            };
            if let Some(fault) = known.result_faults.get(&(self.at, when, number)) {
                let text = format!("`result` of {which} is no usable JSON Schema: {fault}");
                notes.push(self.blocks(PlanCode::SchemaInvalid, text));
            }
            let servers = &known.settings.parts().servers;
            let hosted = servers.get(tool.server()).is_some_and(|rules| rules.hosted);
            let reached = !hosted && !tool.is_read_request();
            let Some(facts) = known.tools.get(tool).filter(|_| reached) else {
                let text = format!("nobody here offers `{tool}`, which reads {which}");
                notes.push(self.blocks(PlanCode::ConditionUnknown, text));
                continue;
            };
            if let ToolState::Changed { .. } = facts.state {
                let text = format!("`{tool}`, which reads {which}, changed since it was pinned");
                notes.push(self.blocks(PlanCode::ToolQuarantined, text));
            }
            let is = known.looks.get(&(self.at, when, number)).copied().unwrap_or(facts.class);
            if is > EffectClass::Read {
                let text = match known.unread.get(&(self.at, when, number)) {
                    Some(why) => format!("the `arguments` of {which} for `{tool}` {why}"),
                    None => format!("`{tool}` of {which} is {is}; name a tool that only reads"),
                };
                notes.push(self.blocks(PlanCode::ConditionNotRead, text));
            }
            let granted = known.settings.grant_for(&plan.agent, tool, EffectClass::Read);
            if granted.is_none() {
                let text = format!("no grant reaches `{tool}`, which reads {which}");
                notes.push(self.blocks(PlanCode::NotGranted, text));
            }
        }
        notes
    }

    /// Whether it makes again what a step before it destroyed.
    fn recreates(&self, steps: &[Looked<'_>]) -> Option<PlanNote> {
        if self.step.class == EffectClass::Read {
            return None;
        }
        let earlier = steps.iter().take(self.at);
        let mut destroying = earlier.filter(|one| one.step.class == EffectClass::Destructive);
        let same =
            |one: &Looked<'_>| one.targets.iter().any(|target| self.targets.contains(target));
        let before = destroying.find(|one| same(one))?;
        let text = format!(
            "it changes what `{}` destroys; change it in place instead, if that will do",
            before.step.id
        );
        Some(self.advises(PlanCode::Recreates, text))
    }
}

/// What is wrong with the plan as a whole, apart from the order of its steps.
fn of_plan(plan: &Plan, known: Known<'_>) -> Vec<PlanNote> {
    let mut notes = Vec::new();
    let mut block = |code, text: String| notes.push(note_of_plan(code, text));
    if plan.steps.is_empty() {
        block(PlanCode::NoSteps, "it has no steps; say what you want to do".to_owned());
    }
    if plan.steps.len() > STEPS_MAX {
        let text = format!("it has {} steps, more than {STEPS_MAX}; plan less", plan.steps.len());
        block(PlanCode::TooManySteps, text);
    }
    let targets = targets(plan);
    if targets > TARGETS_MAX {
        let text = format!("it has {targets} targets, more than {TARGETS_MAX}; use patterns");
        block(PlanCode::TooManyTargets, text);
    }
    let checks = checks(plan);
    if checks > CHECKS_MAX {
        let text = format!("{checks} of its conditions would be looked at, more than {CHECKS_MAX}");
        block(PlanCode::TooManyConditions, text);
    }
    let span_s = plan.expires.0.saturating_sub(known.now.0) / 1000;
    if plan.expires <= known.now {
        let text = "it is over before it begins; let it end later".to_owned();
        block(PlanCode::ExpiryPast, text);
    } else if span_s > i64::from(known.rules.expires_s_max) {
        let text =
            format!("it may last {} s at most; let it end sooner", known.rules.expires_s_max);
        block(PlanCode::ExpiryTooFar, text);
    }
    notes
}

fn targets(plan: &Plan) -> usize {
    plan.steps.iter().map(|step| step.targets.len()).fold(0, usize::saturating_add)
}

fn checks(plan: &Plan) -> usize {
    let of_step = |step: &PlanStep| {
        PlanWhen::ALL
            .into_iter()
            .map(|when| step.checks(when).count())
            .fold(0, usize::saturating_add)
    };
    plan.steps.iter().map(of_step).fold(0, usize::saturating_add)
}

/// Whether all steps together stay within what the operator allows.
fn budgets(plan: &Plan, known: Known<'_>) -> Vec<PlanNote> {
    let zero = PlanBudget::default();
    let all = plan.steps.iter().fold(zero, |sum, step| sum.plus(step.budget));
    let pairs = all.bounds().into_iter().zip(known.rules.budget_max.bounds());
    let over = pairs.filter_map(|((name, asked), (_, max))| {
        let (asked, max) = (asked?, max?);
        let text = format!("its steps ask for {asked} {name} in all, more than {max}; touch less");
        (asked > max).then(|| note_of_plan(PlanCode::BudgetTooLarge, text))
    });
    over.collect()
}

fn shorten(mut notes: Vec<PlanNote>) -> Vec<PlanNote> {
    if let Some(more) = notes.len().checked_sub(NOTES_MAX).filter(|more| *more > 0) {
        let rest = notes.split_off(NOTES_MAX);
        let severity = rest.first().map_or(PlanSeverity::Advisory, |one| one.severity);
        let text = format!("{more} more notes are not shown");
        notes.push(PlanNote { severity, code: PlanCode::MoreNotes, step: None, text });
    }
    notes
}
