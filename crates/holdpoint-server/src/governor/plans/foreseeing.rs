//! Looks at what the calls of a plan would do if they were made at once, so that the plan is bound
//! to how its targets are. Must never leave anything held open, nor let a call pass.

use super::super::preview::HeldOpen;
use super::super::{Call, Governor};
use holdpoint_control::plan::{foreseeable, note_foreseen};
use holdpoint_types::{
    Door, Plan, PlanBudget, PlanFacts, PlanFit, PlanNote, PlanStep, PreviewFacts, Ruling,
};
use serde_json::Value;
use std::collections::BTreeMap;

// === impl Governor ===

impl Governor {
    /// Looks, takes what is seen into the basis of `plan`, and gives the checker's remarks on it.
    pub(super) async fn foresee(&self, plan: &mut Plan) -> Vec<PlanNote> {
        let resources = self.resources();
        let mut unseen = BTreeMap::new();
        let mut seen = BTreeMap::new();
        for step in foreseeable(plan) {
            if !resources.stands_for(step.tool.server()) {
                continue;
            }
            match self.foresee_step(plan, step).await {
                Ok(preview) => {
                    seen.insert(step.id.clone(), preview);
                }
                Err(why) => {
                    unseen.insert(step.id.clone(), why);
                }
            }
        }
        plan.basis.targets = seen;
        note_foreseen(plan, &unseen)
    }

    /// What the step's call would do, were it made now and the plan in force; or why nobody sees.
    async fn foresee_step(&self, plan: &Plan, step: &PlanStep) -> Result<PreviewFacts, String> {
        let parameters = Value::Object(step.call.clone().unwrap_or_default());
        let (agent, tool) = (plan.agent.clone(), step.tool.clone());
        let call = Call { agent, door: Door::Try, tool, parameters, meta: None, condition: None };
        let effects = self.analyse((&call.agent, &call.tool), &call.parameters).await;
        let effects = effects.map_err(|refused| told(&refused))?;
        let action = self.new_action();
        let mut held_open = HeldOpen::new(self, (action, &call.tool), None);
        let now = self.inner.clock.now().map_err(|fault| fault.to_string())?;
        let (mut request, mut facts) = self.gather(action, (&call, effects.as_deref()), now);
        request.task = Some(plan.task);
        let (step, uses) = (step.id.clone(), PlanBudget::default());
        let fit = PlanFit::Step { step, uses };
        facts.plan = Some(PlanFacts { plan: plan.id, version: 0, fit });
        let policy = self.policy();
        let judged = self.judge(&request, facts, &policy).await;
        if judged.1.ruling() >= Ruling::Deny {
            return Err(format!("it would be refused: {}", told(&judged.1)));
        }
        let on = (&*policy, &mut held_open);
        let (facts, decision, _) = self.look_ahead(&request, judged, effects.as_deref(), on).await;
        match (facts.preview, facts.unseen) {
            (Some(preview), _) if decision.ruling() < Ruling::Deny => Ok(preview),
            (Some(_), _) => Err(format!("it would be refused: {}", told(&decision))),
            (None, Some(unseen)) => Err(unseen.detail),
            (None, None) => Err("nobody can look at calls like it".to_owned()),
        }
    }
}

fn told(decision: &holdpoint_types::Decision) -> String {
    let causes: Vec<_> = decision.deciding().map(|cause| cause.text.clone()).collect();
    causes.join("; ")
}
