//! Holds calls to the plans of their agents. How far a plan has come is read from the store each
//! time, never remembered.
//!
//! INVARIANT: a call is compared with what is durable, and admitted only if the store still says
//! the same. Must never let a call pass because its plan could not be read.

mod conditions;
mod ending;
mod foreseeing;
mod proposing;

pub use conditions::ConditionCall;
pub(crate) use conditions::Reach;
pub use proposing::{PlanRefused, Proposal as PlanProposal};

use super::{Call, Governor};
use crate::catalog::{Catalog, Schema};
use crate::store::{PlanRow, Store, StoreFault};
use arc_swap::ArcSwap;
use holdpoint_control::decide;
use holdpoint_control::plan::{Called, Foreseen, PlanMatcher, Progress, basis_moved};
use holdpoint_effects::Effects;
use holdpoint_policy::PolicySets;
use holdpoint_resources::resource::Preview;
use holdpoint_types::{
    AgentName, Decision, Digest, EffectClass, Facts, Plan, PlanEnd, PlanFacts, PlanFit, PlanId,
    PlanReads, PlanState, PlanWhen, Reason, Request, Ruling, StepName, Timestamp, ToolRef,
};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use tokio::sync::OwnedMutexGuard;

/// Most plans that are kept ready to be compared with.
const PREPARED_MAX: usize = 256;

/// What this process knows about plans; nothing that a decision rests on.
#[derive(Default)]
pub(super) struct Plans {
    /// The agents whose calls may be held to one.
    held: ArcSwap<BTreeSet<AgentName>>,
    prepared: Mutex<BTreeMap<PlanId, Arc<Prepared>>>,
    /// Whose turn it is to be compared and recorded, by agent.
    turns: Mutex<BTreeMap<AgentName, Arc<tokio::sync::Mutex<()>>>>,
    /// The ways by which this process reaches servers, the newest last.
    ways: Mutex<Vec<Weak<dyn Reach>>>,
}

/// A plan that is ready to be compared with.
struct Prepared {
    matcher: PlanMatcher,
    constraints: Vec<Option<Schema>>,
    /// What the results of conditions must fit.
    results: BTreeMap<(StepName, PlanWhen, u32), Schema>,
}

// === impl Prepared ===

impl Prepared {
    fn of(plan: Plan) -> Result<Self, String> {
        let constraint = |schema| Schema::of_constraint(schema);
        let steps = plan.steps.iter();
        let constraints = steps.map(|step| step.parameters.as_ref().map(constraint)).collect();
        let results = conditions::of(&plan.steps).map(|(step, when, number, check)| {
            ((step.id.clone(), when, number), constraint(&check.result))
        });
        let results = results.collect();
        let matcher = PlanMatcher::new(plan).map_err(|fault| fault.to_string())?;
        Ok(Self { matcher, constraints, results })
    }

    fn fit(
        &self,
        progress: &Progress,
        call: (&Request, &Facts),
        foreseen: Foreseen<'_>,
    ) -> PlanFit {
        self.with(call, foreseen, |called| self.matcher.fit(progress, called))
    }

    fn target_moved(
        &self,
        progress: &Progress,
        call: (&Request, &Facts),
        foreseen: Foreseen<'_>,
    ) -> Option<String> {
        self.with(call, foreseen, |called| self.matcher.target_moved(progress, called))
    }

    fn with<T>(
        &self,
        (request, facts): (&Request, &Facts),
        foreseen: Foreseen<'_>,
        compare: impl FnOnce(Called<'_>) -> T,
    ) -> T {
        let schema_fault = |at: usize| {
            let constraint = self.constraints.get(at)?.as_ref()?;
            constraint.broken_by(&request.parameters).unwrap_or_else(Some)
        };
        compare(Called { request, facts, foreseen, schema_fault: &schema_fault })
    }
}

// === impl Governor ===

impl Governor {
    /// Reads anew whose calls may be held to plans.
    pub(crate) fn read_plans(&self) -> Result<(), StoreFault> {
        let held = self.inner.store.held_agents()?;
        self.inner.plans.held.store(Arc::new(held.into_iter().collect()));
        Ok(())
    }

    /// Waits for the agent's turn: of its changes, one is compared with its plan and recorded after
    /// the other. Nobody waits who has no plan, or only reads.
    pub(super) async fn plan_turn(
        &self,
        call: &Call,
        effects: Option<&Effects>,
    ) -> Option<OwnedMutexGuard<()>> {
        let plans = &self.inner.plans;
        // Who looks at a condition does so in the turn of the call that needs it.
        if call.condition.is_some() || !plans.held.load().contains(&call.agent) {
            return None;
        }
        let settings = self.settings();
        let strictest = effects.and_then(|effects| effects.iter().map(|one| one.class).max());
        let tool = self.inner.catalog.tool(&call.tool);
        let class = strictest.or_else(|| tool.map(|tool| tool.class(&settings)));
        if class == Some(EffectClass::Read) {
            return None;
        }
        let turn = Arc::clone(plans.turns.lock().entry(call.agent.clone()).or_default());
        Some(turn.lock_owned().await)
    }

    /// How a call stands to a plan of its agent; nothing if it is held to none.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) async fn plan_of(
        &self,
        request: &Request,
        facts: &Facts,
    ) -> Result<Option<PlanFacts>, StoreFault> {
        let ahead = self.resources().stands_for(request.tool.server());
        let foreseen = if ahead { Foreseen::Later } else { Foreseen::Never };
        self.fit(request, facts, foreseen).await
    }

    /// The decision once it is known what would come of the call: a plan may bound that. What is
    /// too large to be seen before an approval is bounded by [`Self::whole_by_plan`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) async fn hold_to_plan(
        &self,
        request: &Request,
        (mut facts, decision, preview): (Facts, Decision, Option<Preview>),
        policy: &PolicySets,
    ) -> Result<(Facts, Decision, Option<Preview>), StoreFault> {
        let ahead = self.resources().stands_for(request.tool.server());
        let looks = matches!(&facts.plan, Some(PlanFacts { fit: PlanFit::Condition { .. }, .. }));
        if facts.plan.is_none() || looks || !ahead || decision.ruling() >= Ruling::Deny {
            return Ok((facts, decision, preview));
        }
        let seen = facts.preview.clone();
        let large = facts.unseen.as_ref().map(|unseen| unseen.reason);
        let unseen = match large {
            Some(Reason::PreviewTooLarge) => Foreseen::Later,
            _ => Foreseen::Never,
        };
        let foreseen = seen.as_ref().map_or(unseen, Foreseen::Seen);
        facts.plan = self.fit(request, &facts, foreseen).await?;
        let decision = decide(request, &facts, policy);
        Ok((facts, decision, preview))
    }

    /// The same about a change that is looked at whole, because people approved its size.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) async fn whole_by_plan(
        &self,
        request: &Request,
        judged: (Facts, Decision),
        policy: &PolicySets,
    ) -> Result<(Facts, Decision, Option<Preview>), StoreFault> {
        let (mut facts, decision, preview) = self.look_whole(request, judged, policy).await?;
        if facts.plan.is_none() || decision.ruling() >= Ruling::Deny {
            return Ok((facts, decision, preview));
        }
        let seen = facts.preview.clone();
        let foreseen = seen.as_ref().map_or(Foreseen::Never, Foreseen::Seen);
        facts.plan = self.fit(request, &facts, foreseen).await?;
        let decision = decide(request, &facts, policy);
        Ok((facts, decision, preview))
    }

    async fn fit(
        &self,
        request: &Request,
        facts: &Facts,
        foreseen: Foreseen<'_>,
    ) -> Result<Option<PlanFacts>, StoreFault> {
        if !self.inner.plans.held.load().contains(&request.agent) {
            return Ok(None);
        }
        let (found, ended) = self.compare((request, facts), foreseen).await?;
        if ended || found.as_ref().is_none_or(PlanFacts::is_planned) {
            return Ok(found);
        }
        // What just ended may be on its way into the store, and the end of a plan may be behind it.
        self.inner.store.flush().await?;
        let (found, _) = self.compare((request, facts), foreseen).await?;
        // A call more of a step that takes none is no sign that the agent went on to other things.
        let done = match &found {
            Some(PlanFacts { plan, fit: PlanFit::Deviation { nearest: None, .. }, .. }) => {
                self.inner.store.plan(*plan)?.filter(|row| row.state == PlanState::Accepted)
            }
            _ => None,
        };
        match done {
            Some(row) if self.settle_plan(&row).await? => {
                Ok(self.compare((request, facts), foreseen).await?.0)
            }
            _ => Ok(found),
        }
    }

    /// How the call stands to the plans in the store; true if it ended one.
    async fn compare(
        &self,
        call: (&Request, &Facts),
        foreseen: Foreseen<'_>,
    ) -> Result<(Option<PlanFacts>, bool), StoreFault> {
        let rows = self.inner.store.plans_holding((&call.0.agent, call.0.task))?;
        let (mut first, mut ended) = (None, false);
        for row in rows {
            let (found, ends) = self.compare_with(row, call, foreseen).await?;
            ended |= ends;
            match found {
                Some(found) if found.is_planned() => return Ok((Some(found), ended)),
                found => first = first.or(found),
            }
        }
        Ok((first, ended))
    }

    async fn compare_with(
        &self,
        row: PlanRow,
        call: (&Request, &Facts),
        foreseen: Foreseen<'_>,
    ) -> Result<(Option<PlanFacts>, bool), StoreFault> {
        let mut ended = false;
        let mut moved = self.moved(&row.plan);
        let mut prepared = match closed(&row, moved.as_deref(), call.0.at) {
            None => self.prepared(&row.plan),
            Some(why) => Err(why),
        };
        if let Ok(found) = &prepared {
            moved = found.target_moved(&row.progress(), call, foreseen);
        }
        if let (PlanState::Accepted, Some(moved)) = (row.state, &moved) {
            ended = self.end_plan(&row, (PlanEnd::Void, moved.clone())).await?;
            prepared = Err(void(moved));
        }
        let prepared = prepared.as_deref().map_err(String::as_str);
        Ok((facts_of(&row, prepared, call, foreseen), ended))
    }

    /// What moved of the basis of a plan.
    fn moved(&self, plan: &Plan) -> Option<String> {
        let policy = self.policy().digest();
        basis_moved(plan, policy, |tool| self.inner.catalog.tool(tool).map(|tool| tool.digest))
    }

    fn prepared(&self, plan: &Plan) -> Result<Arc<Prepared>, String> {
        let mut prepared = self.inner.plans.prepared.lock();
        if let Some(found) = prepared.get(&plan.id) {
            return Ok(Arc::clone(found));
        }
        let made = Arc::new(Prepared::of(plan.clone())?);
        if prepared.len() >= PREPARED_MAX {
            // The oldest: ids sort by time.
            prepared.pop_first();
        }
        prepared.insert(plan.id, Arc::clone(&made));
        Ok(made)
    }
}

/// How a call stands to a plan of its agent, for who only looks and records nothing.
///
/// # Errors
/// When the store cannot be read.
pub fn plan_facts(
    store: &Store,
    (catalog, policy): (&Catalog, Digest),
    call: (&Request, &Facts),
) -> Result<Option<PlanFacts>, StoreFault> {
    let mut first = None;
    for row in store.plans_holding((&call.0.agent, call.0.task))? {
        let offered = |tool: &ToolRef| catalog.tool(tool).map(|tool| tool.digest);
        let moved = basis_moved(&row.plan, policy, offered);
        let prepared = match closed(&row, moved.as_deref(), call.0.at) {
            None => Prepared::of(row.plan.clone()),
            Some(why) => Err(why),
        };
        let prepared = prepared.as_ref().map_err(String::as_str);
        match facts_of(&row, prepared, call, Foreseen::Later) {
            Some(found) if found.is_planned() => return Ok(Some(found)),
            found => first = first.or(found),
        }
    }
    Ok(first)
}

/// Why the plan is not in force, if it is not.
fn closed(row: &PlanRow, moved: Option<&str>, now: Timestamp) -> Option<String> {
    match (row.state, moved) {
        (PlanState::Accepted, Some(moved)) => Some(void(moved)),
        (PlanState::Accepted, None) => {
            (row.plan.expires <= now).then(|| "the plan has expired".to_owned())
        }
        (PlanState::Proposed | PlanState::Refused, _) => {
            Some("the plan is not accepted".to_owned())
        }
        (PlanState::Ended(end), _) => Some(format!("the plan of its task is {}", end.as_str())),
    }
}

fn void(moved: &str) -> String {
    format!("the plan is void: {moved}")
}

/// How a call stands to a plan that is `prepared`, or why it cannot be; nothing if it is free.
fn facts_of(
    row: &PlanRow,
    prepared: Result<&Prepared, &str>,
    call: (&Request, &Facts),
    foreseen: Foreseen<'_>,
) -> Option<PlanFacts> {
    let (plan, version) = (row.plan.id, row.version);
    let fit = match prepared {
        Ok(prepared) => prepared.fit(&row.progress(), call, foreseen),
        Err(why) => {
            // Whoever may read without a step may also read after the end.
            let reads = call.1.aims().all(|aim| aim.class == EffectClass::Read);
            if reads && row.plan.reads == PlanReads::Free {
                return None;
            }
            PlanFit::Deviation { nearest: None, why: format!("{why}; propose another") }
        }
    };
    Some(PlanFacts { plan, version, fit })
}

#[cfg(test)]
mod tests {
    use super::PREPARED_MAX;
    use holdpoint_types::{Digest, Plan, PlanBasis, PlanDraft, PlanId, TaskId, Timestamp};

    #[tokio::test]
    async fn so_many_plans_are_kept_ready() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = crate::tests::runtime(dir.path()).await;
        let governor = runtime.governor();
        let plan = |at: i64| {
            let draft = r#"{"purpose":"x","steps":[]}"#;
            let draft: PlanDraft = serde_json::from_str(draft).unwrap();
            let (policy, at) = (Digest::of(b"policy"), Timestamp(at));
            let basis = PlanBasis {
                policy,
                tools: Default::default(),
                targets: Default::default(),
                parent: None,
            };
            let whose = ("coder".parse().unwrap(), TaskId::new(at, [1; 10]));
            Plan::of(draft, PlanId::new(at, [1; 10]), whose, at, basis)
        };
        for at in 1..=300 {
            assert!(governor.prepared(&plan(at)).is_ok());
        }
        let kept: Vec<_> = governor.inner.plans.prepared.lock().keys().copied().collect();
        assert_eq!(kept.len(), PREPARED_MAX);
        assert!(kept.contains(&plan(300).id) && !kept.contains(&plan(1).id));
        runtime.shut_down().await;
    }
}
