//! Looks at what must hold before and after the steps of plans, by reads that are actions of the
//! agent like any other: decided, recorded, executed with a permit, and bounded.
//!
//! INVARIANT: what cannot be looked at does not hold. Must never look by anything but a read that
//! the plan names, nor for a call that is denied anyway.

use super::super::preview::HeldOpen;
use super::super::{Call, Governed, Governor};
use super::Prepared;
use crate::store::{PlanRow, StoreFault};
use futures::future::BoxFuture;
use holdpoint_control::Permit;
use holdpoint_control::decide;
use holdpoint_control::plan::StepState;
use holdpoint_policy::PolicySets;
use holdpoint_resources::{Answer, Cancels, Ended, result_content};
use holdpoint_types::{
    ActionId, AgentName, Decision, Door, Facts, Finding, FindingResult, PlanBudget, PlanCheck,
    PlanFacts, PlanFit, PlanId, PlanLooked, PlanState, PlanStep, PlanWhen, Reason, Request, Ruling,
    ServerName, StepName, ToolRef,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long one condition may take to be looked at.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest result that is compared with a condition, in bytes.
const RESULT_BYTES_MAX: usize = 64 << 10;
/// Longest part of a condition's own words that a reason repeats, in characters.
const SAYS_CHARS_MAX: usize = 200;

/// A way by which this process reaches servers, for calls that no agent made itself.
pub(crate) trait Reach: Send + Sync {
    /// True if it leads to `server`, as `agent` reaches it.
    fn leads_to(&self, agent: &AgentName, server: &ServerName) -> bool;

    /// Makes sure that `tool` is known, if its server offers it.
    fn find<'a>(&'a self, agent: &'a AgentName, tool: &'a ToolRef) -> BoxFuture<'a, ()>;

    /// Runs what is permitted.
    fn run(
        self: Arc<Self>,
        call: (AgentName, ToolRef, Value),
        permit: Permit,
        cancels: Cancels,
    ) -> BoxFuture<'static, Ended>;
}

/// Says of a call that it looks at a condition. Only made here.
#[derive(Clone, Debug)]
pub struct ConditionCall {
    plan: PlanId,
    version: u64,
    step: StepName,
    when: PlanWhen,
    number: u32,
}

/// What was found of the conditions of a step.
struct Found {
    reads: Vec<ActionId>,
    fault: Option<Fault>,
}

/// Why conditions do not count as met.
enum Fault {
    /// One does not hold.
    Unmet(String),
    /// One could not be looked at.
    Unseen(String),
}

// === impl ConditionCall ===

impl ConditionCall {
    /// How it stands to its plan.
    pub(in crate::governor) fn facts(&self) -> PlanFacts {
        let (step, when, number) = (self.step.clone(), self.when, self.number);
        let fit = PlanFit::Condition { step, when, number };
        PlanFacts { plan: self.plan, version: self.version, fit }
    }
}

// === impl Found ===

impl Found {
    /// What a decision says about it.
    fn finding(self, plan: PlanId, step: &StepName) -> Finding {
        let (result, evidence) = match self.fault {
            None => {
                let reads: Vec<_> = self.reads.iter().map(ToString::to_string).collect();
                (FindingResult::Pass, format!("what must hold does, by {}", reads.join(", ")))
            }
            Some(Fault::Unmet(text)) => (FindingResult::Fail, text),
            Some(Fault::Unseen(text)) => (FindingResult::Opaque, text),
        };
        Finding::new(format!("plan {plan} step {step}"), (result, Reason::PlanCondition), evidence)
    }
}

// === impl Governor ===

impl Governor {
    /// Conditions are looked at by this way too, as long as somebody keeps it.
    pub(crate) fn reach_by(&self, way: Weak<dyn Reach>) {
        let mut ways = self.inner.plans.ways.lock();
        ways.retain(|way| way.strong_count() > 0);
        ways.push(way);
    }

    /// The decision, once it is seen whether the conditions before the step hold that the call
    /// would begin. Nobody looks where it is denied anyway.
    pub(in crate::governor) async fn meet_conditions(
        &self,
        request: &Request,
        (mut facts, decision): (Facts, Decision),
        (policy, held_open): (&PolicySets, &mut HeldOpen<'_>),
    ) -> Result<(Facts, Decision), StoreFault> {
        let (plan, name) = match &facts.plan {
            Some(PlanFacts { plan, fit: PlanFit::Step { step, .. }, .. }) => (*plan, step.clone()),
            _ => return Ok((facts, decision)),
        };
        if decision.ruling() >= Ruling::Deny || !self.may_want_looking(plan, &name) {
            return Ok((facts, decision));
        }
        let Some(row) = self.inner.store.plan(plan)? else { return Ok((facts, decision)) };
        let begun = row.progress().taken(&name) > 0;
        let Some(step) = row.plan.step(&name).filter(|step| !begun && has(step, PlanWhen::Before))
        else {
            return Ok((facts, decision));
        };
        // If this is decided once more: the target must be free for who looks.
        held_open.let_go();
        let found = self.look_at(&row, step, PlanWhen::Before).await;
        facts.findings.push(found.finding(plan, &name));
        let decision = decide(request, &facts, policy);
        Ok((facts, decision))
    }

    /// Fills in how a call stands to the plans of its agent. If it waits for a step that is only to
    /// be looked at, that is done now.
    pub(in crate::governor) async fn plan_or_look(
        &self,
        request: &Request,
        facts: &mut Facts,
        policy: &PolicySets,
    ) -> Result<(), StoreFault> {
        facts.plan = self.plan_of(request, facts).await?;
        let (id, version, nearest) = match &facts.plan {
            Some(PlanFacts {
                plan,
                version,
                fit: PlanFit::Deviation { nearest: Some(step), .. },
            }) => (*plan, *version, step.clone()),
            _ => return Ok(()),
        };
        let row = self.inner.store.plan(id)?.filter(|row| row.state == PlanState::Accepted);
        let Some(row) = row else { return Ok(()) };
        let waits = waited_for(&row, &nearest);
        if waits.is_empty() {
            return Ok(());
        }
        let deviation = facts.plan.take();
        let (step, uses) = (nearest, PlanBudget::default());
        let fit = PlanFit::Step { step, uses };
        facts.plan = Some(PlanFacts { plan: id, version, fit });
        let denied = decide(request, facts, policy).ruling() >= Ruling::Deny;
        facts.plan = deviation;
        if denied {
            return Ok(());
        }
        for step in waits {
            if let Some(fault) = self.look_at_end(id, &step).await? {
                let found = Found { reads: Vec::new(), fault: Some(fault) };
                facts.findings.push(found.finding(id, &step));
                return Ok(());
            }
        }
        facts.plan = self.plan_of(request, facts).await?;
        Ok(())
    }

    /// Looks at what must hold after the step that `action` was the last call of.
    pub(in crate::governor) async fn look_after_call(&self, action: ActionId, call: &Call) {
        if call.condition.is_some() || !self.inner.plans.held.load().contains(&call.agent) {
            return;
        }
        if let Err(fault) = self.try_look_after_call(action).await {
            tracing::error!(%action, %fault, "what must hold after a step cannot be recorded");
        }
    }

    async fn try_look_after_call(&self, action: ActionId) -> Result<(), StoreFault> {
        let Some(row) = self.inner.store.plan_of_call(action)? else { return Ok(()) };
        let call = row.calls.iter().find(|call| call.action == action);
        let step = call.and_then(|call| row.plan.step(&call.step));
        let Some(step) = step.filter(|step| has(step, PlanWhen::After)) else { return Ok(()) };
        self.inner.store.flush().await?;
        let Some(now) = self.inner.store.plan(row.plan.id)? else { return Ok(()) };
        let unlooked = now.progress().unlooked(&now.plan.steps);
        if unlooked.iter().any(|(one, left)| one.id == step.id && *left == 0) {
            self.look_at_end(row.plan.id, &step.id).await?;
        }
        Ok(())
    }

    /// Looks at what must hold after all steps of a plan in force that take no call any more. Gives
    /// what could not be looked at, by step.
    pub(super) async fn look_after_row(
        &self,
        row: &PlanRow,
    ) -> Result<BTreeMap<StepName, String>, StoreFault> {
        let mut unseen = BTreeMap::new();
        for (step, left) in row.progress().unlooked(&row.plan.steps) {
            if left == 0
                && let Some(Fault::Unseen(why) | Fault::Unmet(why)) =
                    self.look_at_end(row.plan.id, &step.id).await?
            {
                unseen.insert(step.id.clone(), why);
            }
        }
        Ok(unseen)
    }

    /// Looks at what must hold after a step whose calls are all well, and records what is found if
    /// that is final: it holds, or it does not and the step takes no call any more. Else gives what
    /// was found.
    async fn look_at_end(
        &self,
        plan: PlanId,
        name: &StepName,
    ) -> Result<Option<Fault>, StoreFault> {
        let Some(row) = self.inner.store.plan(plan)? else { return Ok(None) };
        let unlooked = row.progress().unlooked(&row.plan.steps);
        let Some((step, left)) = unlooked.into_iter().find(|(step, _)| step.id == *name) else {
            return Ok(None);
        };
        if row.state != PlanState::Accepted {
            return Ok(None);
        }
        let Found { reads, fault } = self.look_at(&row, step, PlanWhen::After).await;
        let unmet = match fault {
            None => None,
            Some(Fault::Unmet(text)) if left == 0 => Some(text),
            Some(fault) => return Ok(Some(fault)),
        };
        let agent = row.plan.agent.clone();
        if let Some(unmet) = &unmet {
            tracing::warn!(%plan, %agent, step = %name, unmet, "a plan goes no further");
        }
        let looked = PlanLooked { plan, agent, step: name.clone(), reads, unmet };
        self.inner.store.looked_at_step(looked, row.version, self.now()).await?;
        Ok(None)
    }

    /// False if the step is known to have nothing that must hold before it.
    fn may_want_looking(&self, plan: PlanId, step: &StepName) -> bool {
        let prepared = self.inner.plans.prepared.lock();
        let known = prepared.get(&plan).and_then(|found| found.matcher.plan().step(step));
        known.is_none_or(|step| has(step, PlanWhen::Before))
    }

    /// Looks at the conditions of a step one after the other, until one is not met.
    async fn look_at(&self, row: &PlanRow, step: &PlanStep, when: PlanWhen) -> Found {
        let mut found = Found { reads: Vec::new(), fault: None };
        let prepared = match self.prepared(&row.plan) {
            Ok(prepared) => prepared,
            Err(why) => return Found { fault: Some(Fault::Unseen(why)), ..found },
        };
        for (number, check) in step.checks(when) {
            let (id, name) = (row.plan.id, step.id.clone());
            let condition =
                ConditionCall { plan: id, version: row.version, step: name, when, number };
            let action = self.new_action();
            found.reads.push(action);
            let seen = self.look(row, (&condition, check), action).await;
            let seen = seen.map_err(Fault::Unseen);
            let met = seen.and_then(|result| prepared.meets(&condition, &result));
            if let Err(fault) = met {
                found.fault = Some(fault.told(&condition, check, action));
                break;
            }
        }
        found
    }

    /// The result of one read.
    async fn look(
        &self,
        row: &PlanRow,
        (condition, check): (&ConditionCall, &PlanCheck),
        action: ActionId,
    ) -> Result<Value, String> {
        let (agent, tool) = (row.plan.agent.clone(), check.tool.clone());
        let way = self.way_to(&agent, tool.server());
        let way = way.ok_or_else(|| format!("nobody here reaches `{}`", tool.server()))?;
        let parameters = Value::Object(check.arguments.clone());
        let call = Call {
            agent: agent.clone(),
            door: Door::Plan,
            tool: tool.clone(),
            parameters: parameters.clone(),
            meta: Some(json!({ "io.holdpoint/task": { "id": row.plan.task } })),
            condition: Some(condition.clone()),
        };
        let looking = async {
            way.find(&agent, &tool).await;
            self.read(action, call, (Arc::clone(&way), (agent.clone(), tool.clone(), parameters)))
                .await
        };
        match tokio::time::timeout(PATIENCE, looking).await {
            Ok(governed) => result_of(governed),
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }

    fn way_to(&self, agent: &AgentName, server: &ServerName) -> Option<Arc<dyn Reach>> {
        let ways = self.inner.plans.ways.lock();
        let mut ways = ways.iter().rev().filter_map(Weak::upgrade);
        ways.find(|way| way.leads_to(agent, server))
    }

    /// Governs one read. Whoever waits no longer cancels it.
    fn read(
        &self,
        action: ActionId,
        call: Call,
        (way, what): (Arc<dyn Reach>, (AgentName, ToolRef, Value)),
    ) -> BoxFuture<'static, Governed> {
        let governor = self.clone();
        Box::pin(async move {
            let asked = CancellationToken::new();
            let _gone = asked.clone().drop_guard();
            let execute = move |permit, cancels| way.run(what, permit, cancels);
            governor.govern_as(action, call, asked, execute).await
        })
    }
}

// === impl Prepared ===

impl Prepared {
    /// Whether a result is what the condition says.
    fn meets(&self, condition: &ConditionCall, result: &Value) -> Result<(), Fault> {
        let ConditionCall { step, when, number, .. } = condition;
        let Some(schema) = self.results.get(&(step.clone(), *when, *number)) else {
            return Err(Fault::Unseen("nobody knows what it says".to_owned()));
        };
        match schema.broken_by(result) {
            Err(why) => Err(Fault::Unseen(why)),
            Ok(Some(broken)) => Err(Fault::Unmet(broken)),
            Ok(None) => Ok(()),
        }
    }
}

// === impl Fault ===

impl Fault {
    /// The same with the condition's name, and the read.
    fn told(self, condition: &ConditionCall, check: &PlanCheck, action: ActionId) -> Self {
        let ConditionCall { step, when, number, .. } = condition;
        let which = match when {
            PlanWhen::Before => "precondition",
            PlanWhen::After => "postcondition",
        };
        let says: String = check.says.chars().take(SAYS_CHARS_MAX).collect();
        let told = |how: &str, why: &str| {
            // What is long comes last: wherever this is shortened, the read is still named.
            format!("{which} {number} of step `{step}` {how} (read {action}), `{says}`: {why}")
        };
        match self {
            Self::Unmet(why) => Self::Unmet(told("does not hold", &why)),
            Self::Unseen(why) => Self::Unseen(told("could not be looked at", &why)),
        }
    }
}

/// The conditions of steps that can be looked at.
pub(super) fn of(
    steps: &[PlanStep],
) -> impl Iterator<Item = (&PlanStep, PlanWhen, u32, &PlanCheck)> {
    steps.iter().flat_map(|step| {
        PlanWhen::ALL.into_iter().flat_map(move |when| {
            step.checks(when).map(move |(number, check)| (step, when, number, check))
        })
    })
}

fn has(step: &PlanStep, when: PlanWhen) -> bool {
    step.checks(when).next().is_some()
}

/// The steps that a call of `step` waits for only because nobody looked at them; none if it waits
/// for anything else too.
fn waited_for(row: &PlanRow, step: &StepName) -> Vec<StepName> {
    let progress = row.progress();
    let unlooked: Vec<_> =
        progress.unlooked(&row.plan.steps).into_iter().map(|(step, _)| &step.id).collect();
    let states = row.plan.steps.iter().zip(progress.states(&row.plan.steps));
    let state = states.into_iter().find(|(one, _)| one.id == *step).map(|(_, state)| state);
    match state {
        Some(StepState::Waiting(names)) if names.iter().all(|name| unlooked.contains(&name)) => {
            names
        }
        _ => Vec::new(),
    }
}

/// What a read found, or why it found nothing.
fn result_of(governed: Governed) -> Result<Value, String> {
    let body = match governed {
        Governed::Answered(_, Answer::Result(body)) => body,
        Governed::Answered(_, Answer::Error(_)) => return Err("the read failed".to_owned()),
        Governed::Refused(_, refusal) => {
            let causes = refusal.decision.deciding();
            let causes: Vec<_> =
                causes.map(|cause| format!("{}: {}", cause.reason, cause.text)).collect();
            return Err(format!("the read was not permitted: {}", causes.join("; ")));
        }
        Governed::Failed { reason, detail, .. } => return Err(format!("{reason}: {detail}")),
    };
    let bytes = body.get().len();
    if bytes > RESULT_BYTES_MAX {
        return Err(format!("the result has {bytes} bytes, more than {RESULT_BYTES_MAX}"));
    }
    let whole: Value = serde_json::from_str(body.get()).map_err(|fault| fault.to_string())?;
    if whole.get("isError") == Some(&Value::Bool(true)) {
        return Err("the read failed".to_owned());
    }
    result_content(body.get()).ok_or_else(|| "the read has no content".to_owned())
}
