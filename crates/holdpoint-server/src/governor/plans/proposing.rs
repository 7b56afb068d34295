//! Takes in plans: what an agent proposes is checked, recorded, and accepted where the operator
//! leaves that to the checker. Must never let one come into force unrecorded.

use super::super::Governor;
use crate::catalog::Schema;
use crate::store::{OnProposal, PlanRow, Proposed, StoreFault};
use holdpoint_control::Settings;
use holdpoint_control::plan::{CHECKS_MAX, ConditionPlace, Known, PlanAccept, PlanRules, check};
use holdpoint_effects::Effects;
use holdpoint_types::{
    AgentName, Certainty, EffectClass, FindingResult, Mode, Plan, PlanBasis, PlanCheck, PlanDraft,
    PlanEnd, PlanId, PlanNote, PlanProposed, PlanSeverity, PlanState, PlanStep, Reason, StepName,
    StopScope, TaskId, Timestamp, ToolFacts, ToolRef, canonical_bytes,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Longest plan, in bytes of its canonical form.
const PLAN_BYTES_MAX: usize = 256 << 10;
/// Most plans of an agent that it is told about, the newest.
const TOLD_MAX: u32 = 32;

/// A plan that an agent proposes.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// Who proposes it.
    pub agent: AgentName,
    /// What is proposed.
    pub draft: PlanDraft,
    /// The plan that it revises.
    pub parent: Option<PlanId>,
    /// The operator's key with which a host proposes it; absent if the agent does.
    pub by: Option<String>,
}

/// Why a plan was not taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanRefused {
    /// Why, as a stable code.
    pub reason: Reason,
    /// Why, for the agent.
    pub text: String,
}

/// What the checker is told, gathered.
struct Gathered {
    tools: BTreeMap<ToolRef, ToolFacts>,
    previewed: BTreeSet<ToolRef>,
    /// What the reads of conditions would be, where calls of their tools are analysed.
    looks: BTreeMap<ConditionPlace, EffectClass>,
    /// Why that cannot be found out.
    unread: BTreeMap<ConditionPlace, String>,
}

// === impl PlanRefused ===

impl PlanRefused {
    fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }

    fn plain(reason: Reason) -> Self {
        Self::new(reason, reason.meaning())
    }
}

impl From<StoreFault> for PlanRefused {
    fn from(fault: StoreFault) -> Self {
        tracing::error!(%fault, "a plan cannot be recorded or read");
        Self::new(Reason::LedgerUnavailable, fault.to_string())
    }
}

// === impl Governor ===

impl Governor {
    /// True if agents can propose plans.
    pub fn takes_plans(&self) -> bool {
        self.settings().parts().plans.is_some()
    }

    /// Takes in a plan; gives it as it stands then. One with blocking notes is refused, and
    /// recorded all the same.
    ///
    /// # Errors
    /// Why it was not taken in: nothing was recorded.
    pub async fn propose_plan(&self, proposal: Proposal) -> Result<PlanRow, PlanRefused> {
        let settings = self.settings();
        let Some(rules) = settings.parts().plans.clone() else {
            return Err(PlanRefused::plain(Reason::ToolUnknown));
        };
        self.may_propose(&proposal.agent)?;
        let now = self.inner.clock.now();
        let now = now.map_err(|fault| PlanRefused::new(Reason::ClockStepped, fault.to_string()))?;
        let mut plan = self.plan_from(proposal, now)?;
        let bytes = canonical_bytes(&plan);
        let bytes = bytes
            .map_err(|fault| PlanRefused::new(Reason::ParametersInvalid, fault.to_string()))?;
        if bytes.len() > PLAN_BYTES_MAX {
            let text = format!("the plan has {} bytes, more than {PLAN_BYTES_MAX}", bytes.len());
            return Err(PlanRefused::new(Reason::PlanBlocked, text));
        }
        let (looks, unread) = self.looks_of(&plan).await;
        let gathered = Gathered { looks, unread, ..self.gathered(&plan, &settings) };
        let (of_check, accept) = ((plan.clone(), rules.clone()), rules.accept);
        // Patterns are compared with each other: not where calls are waited for.
        let looking = move || notes(&of_check.0, (&settings, &of_check.1), &gathered, now);
        let mut notes = tokio::task::spawn_blocking(looking).await.map_err(|fault| {
            tracing::error!(%fault, "the checker of plans failed inside");
            PlanRefused::plain(Reason::CouldNotDecide)
        })?;
        // Nobody looks at targets for a plan that is refused anyway, or not even recorded.
        if !notes.iter().any(|note| note.severity == PlanSeverity::Blocking) {
            if let Some(barred) = self.inner.store.bars_plan(&plan)?.and_then(barred) {
                return Err(barred);
            }
            notes.extend(self.foresee(&mut plan).await);
        }
        self.record_plan(PlanProposed { plan, notes }, accept, now).await
    }

    /// The agent's plan with this id, or all that it can still do something about and some that it
    /// cannot; as the records say. Each with what could not be looked at just now, by step.
    ///
    /// # Errors
    /// When there is none, or the store cannot be read.
    pub async fn plans_of(
        &self,
        agent: &AgentName,
        id: Option<PlanId>,
    ) -> Result<Vec<(PlanRow, BTreeMap<StepName, String>)>, PlanRefused> {
        self.inner.store.flush().await?;
        let found = match id {
            Some(id) => self.inner.store.plan(id)?.into_iter().collect(),
            None => self.inner.store.plans_of(agent, TOLD_MAX)?,
        };
        let mut own = Vec::new();
        for row in found.into_iter().filter(|row| row.plan.agent == *agent) {
            own.push(self.as_it_stands(row).await?);
        }
        self.read_plans()?;
        if own.is_empty() && id.is_some() {
            return Err(PlanRefused::plain(Reason::PlanUnknown));
        }
        Ok(own)
    }

    /// The plan, after what ended it is recorded, with what could not be looked at.
    async fn as_it_stands(
        &self,
        row: PlanRow,
    ) -> Result<(PlanRow, BTreeMap<StepName, String>), StoreFault> {
        let mut unseen = BTreeMap::new();
        let ended = match row.state {
            PlanState::Accepted => match self.moved(&row.plan) {
                Some(moved) => self.end_plan(&row, (PlanEnd::Void, moved)).await?,
                None => {
                    unseen = self.look_after_row(&row).await?;
                    let now = self.inner.store.plan(row.plan.id)?;
                    self.settle_plan(now.as_ref().unwrap_or(&row)).await?
                }
            },
            PlanState::Proposed => self.settle_plan(&row).await?,
            PlanState::Refused | PlanState::Ended(_) => false,
        };
        let again = match ended || row.state == PlanState::Accepted {
            true => self.inner.store.plan(row.plan.id)?,
            false => None,
        };
        Ok((again.unwrap_or(row), unseen))
    }

    fn may_propose(&self, agent: &AgentName) -> Result<(), PlanRefused> {
        let known = self.settings().agent(agent);
        let Some(known) = known else { return Err(PlanRefused::plain(Reason::AgentUnknown)) };
        if known.owner.is_none() {
            return Err(PlanRefused::plain(Reason::AgentUnowned));
        }
        if known.mode == Mode::Quarantined {
            return Err(PlanRefused::plain(Reason::AgentQuarantined));
        }
        let covers = |scope: &StopScope| match scope {
            StopScope::All => true,
            StopScope::Agent(stopped) => stopped == agent,
            StopScope::Tool(_) | StopScope::Server(_) => false,
        };
        if let Some(stop) = self.stops().iter().find(|stop| covers(&stop.scope)) {
            return Err(PlanRefused::new(Reason::Stopped, stop.reason.clone()));
        }
        match self.inner.telemetry.is_draining() {
            true => Err(PlanRefused::plain(Reason::Draining)),
            false => Ok(()),
        }
    }

    /// The plan that a proposal becomes, with its id, its task and its basis.
    fn plan_from(&self, proposal: Proposal, now: Timestamp) -> Result<Plan, PlanRefused> {
        let Proposal { agent, draft, parent, by } = proposal;
        let of_parent = match parent {
            None => None,
            Some(id) => {
                let row = self.inner.store.plan(id)?.filter(|row| row.plan.agent == agent);
                let Some(row) = row else { return Err(PlanRefused::plain(Reason::PlanUnknown)) };
                if draft.task.is_some_and(|task| task != row.plan.task) {
                    let text = "a revision is for the task of the plan that it revises";
                    return Err(PlanRefused::new(Reason::PlanConflict, text));
                }
                Some(row.plan.task)
            }
        };
        let task = draft.task.or(of_parent).unwrap_or_else(|| TaskId::new(now, random()));
        let catalog = &self.inner.catalog;
        let named = draft.steps.iter().flat_map(PlanStep::tools);
        let tools = named.filter_map(|name| Some((name.clone(), catalog.tool(name)?.digest)));
        let (policy, tools, targets) = (self.policy().digest(), tools.collect(), BTreeMap::new());
        let basis = PlanBasis { policy, tools, targets, parent };
        let plan = Plan::of(draft, PlanId::new(now, random()), (agent, task), now, basis);
        Ok(Plan { by, ..plan })
    }

    async fn looks_of(
        &self,
        plan: &Plan,
    ) -> (BTreeMap<ConditionPlace, EffectClass>, BTreeMap<ConditionPlace, String>) {
        let (mut looks, mut unread) = (BTreeMap::new(), BTreeMap::new());
        for (place, PlanCheck { tool, arguments, .. }) in places(plan) {
            let parameters = Value::Object(arguments.clone());
            let class = match self.analyse((&plan.agent, tool), &parameters).await {
                Ok(None) => continue,
                Ok(Some(effects)) => {
                    if let Some(why) = self.unreadable(tool, &parameters, &effects) {
                        unread.insert(place, why);
                    }
                    effects.class()
                }
                // What is refused for what it is, is no read.
                Err(_) => None,
            };
            looks.insert(place, class.unwrap_or(EffectClass::Destructive));
        }
        (looks, unread)
    }

    /// What is wrong with the parameters of a call that cannot be read.
    fn unreadable(&self, tool: &ToolRef, parameters: &Value, effects: &Effects) -> Option<String> {
        let opaque = effects.iter().find(|effect| effect.certainty == Certainty::Opaque)?;
        let schema = self.inner.catalog.tool(tool)?.validate(parameters);
        Some(match schema.result {
            FindingResult::Fail => format!("do not fit its schema: {}", schema.evidence),
            FindingResult::Pass | FindingResult::Warn | FindingResult::Opaque => {
                format!("cannot be read: {}; write them more simply", opaque.evidence)
            }
        })
    }

    fn gathered(&self, plan: &Plan, settings: &Settings) -> Gathered {
        let names: BTreeSet<&ToolRef> = plan.steps.iter().flat_map(PlanStep::tools).collect();
        let resources = self.resources();
        let previewed = names.iter().filter(|tool| resources.stands_for(tool.server()));
        let previewed = previewed.map(|tool| (*tool).clone()).collect();
        let facts = |tool: &ToolRef| Some(self.inner.catalog.tool(tool)?.facts(settings));
        let tools = names.into_iter().filter_map(|tool| Some((tool.clone(), facts(tool)?)));
        Gathered {
            tools: tools.collect(),
            previewed,
            looks: BTreeMap::new(),
            unread: BTreeMap::new(),
        }
    }

    async fn record_plan(
        &self,
        proposed: PlanProposed,
        accept: PlanAccept,
        now: Timestamp,
    ) -> Result<PlanRow, PlanRefused> {
        let (id, agent) = (proposed.plan.id, proposed.plan.agent.clone());
        let then = match (proposed.is_blocked(), accept) {
            (true, _) => OnProposal::Refuse,
            (false, PlanAccept::Checker) => OnProposal::Accept,
            (false, PlanAccept::Operator) => OnProposal::Wait,
        };
        let notes = proposed.notes.len();
        if let Some(barred) = barred(self.inner.store.propose_plan(proposed, then, now).await?) {
            return Err(barred);
        }
        tracing::info!(plan = %id, %agent, notes, then = ?then, "a plan was proposed");
        self.read_plans()?;
        let row = self.inner.store.plan(id)?;
        row.ok_or_else(|| PlanRefused::plain(Reason::PlanUnknown))
    }
}

/// Why the store did not take a plan in, if it did not.
fn barred(proposed: Proposed) -> Option<PlanRefused> {
    let text = match proposed {
        Proposed::Recorded => return None,
        Proposed::TaskTaken(other) => {
            format!("plan {other} is open for this task; revise that one")
        }
        Proposed::TooMany(most) => {
            format!("{most} plans are open already; revise one, or let it end")
        }
        Proposed::ParentClosed => {
            "the plan that it revises is not open any more; propose a new one".to_owned()
        }
    };
    Some(PlanRefused::new(Reason::PlanConflict, text))
}

fn notes(
    plan: &Plan,
    (settings, rules): (&Settings, &PlanRules),
    gathered: &Gathered,
    now: Timestamp,
) -> Vec<PlanNote> {
    let steps = plan.steps.iter().enumerate();
    let faults = steps.filter_map(|(at, step)| {
        let constraint = Schema::of_constraint(step.parameters.as_ref()?);
        Some((at, constraint.fault()?))
    });
    let schema_faults = &faults.collect();
    let faults = places(plan)
        .filter_map(|(place, check)| Some((place, Schema::of_constraint(&check.result).fault()?)));
    let result_faults = &faults.collect();
    let Gathered { tools, previewed, looks, unread } = gathered;
    let known = Known {
        settings,
        rules,
        tools,
        previewed,
        schema_faults,
        looks,
        unread,
        result_faults,
        now,
    };
    check(plan, known)
}

/// The conditions that are looked at, as far as a plan may have such.
fn places(plan: &Plan) -> impl Iterator<Item = (ConditionPlace, &PlanCheck)> {
    let steps = plan.steps.iter().enumerate();
    let all = steps.flat_map(|(at, step)| {
        let conditions = super::conditions::of(std::slice::from_ref(step));
        conditions.map(move |(_, when, number, check)| ((at, when, number), check))
    });
    all.take(CHECKS_MAX)
}

fn random() -> [u8; 10] {
    let mut random = [0; 10];
    if let Err(fault) = getrandom::fill(&mut random) {
        tracing::error!(%fault, "no randomness; ids are only as unique as the clock");
    }
    random
}
