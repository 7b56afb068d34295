//! What the rest of the server asks the store about plans. Must not know SQL.

use super::{OnProposal, PlanRow, PlanRuling, Proposed, changes};
use crate::store::{Store, StoreFault};
use holdpoint_types::{
    ActionId, AgentName, Plan, PlanEnd, PlanId, PlanLooked, PlanProposed, TaskId, Timestamp,
};

// === impl Store: plans ===

impl Store {
    /// Records a proposed plan, and rules about it at once if that is wanted.
    ///
    /// # Errors
    /// When it could not be made durable; then nothing was proposed.
    pub async fn propose_plan(
        &self,
        proposed: PlanProposed,
        then: OnProposal,
        at: Timestamp,
    ) -> Result<Proposed, StoreFault> {
        self.change(move |batch| changes::propose(batch, proposed, then, at)).await
    }

    /// Why `plan` would not be recorded if it were proposed and nothing refused it, if so.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn bars_plan(&self, plan: &Plan) -> Result<Option<Proposed>, StoreFault> {
        let open = changes::open(&self.inner.reader.lock(), &plan.agent)?;
        changes::bar(&open, plan, OnProposal::Wait)
    }

    /// Accepts or refuses a plan that waits. `word` is by whom and why.
    ///
    /// # Errors
    /// When it could not be made durable; then the plan still waits.
    pub async fn rule_plan(
        &self,
        what: (PlanId, OnProposal),
        word: (String, String),
        at: Timestamp,
    ) -> Result<PlanRuling, StoreFault> {
        self.change(move |batch| changes::rule(batch, what, word, at)).await
    }

    /// Ends a plan; false if it is not open.
    ///
    /// # Errors
    /// When it could not be made durable; then it is open.
    pub async fn end_plan(
        &self,
        id: PlanId,
        end: (PlanEnd, String),
        at: Timestamp,
    ) -> Result<bool, StoreFault> {
        self.change(move |batch| changes::end(batch, id, end, at)).await
    }

    /// Records what was found of the conditions after a step of the plan that is as far as
    /// `version`; false if it is another one now, and nothing was recorded.
    ///
    /// # Errors
    /// When it could not be made durable; then nothing was found.
    pub async fn looked_at_step(
        &self,
        looked: PlanLooked,
        version: u64,
        at: Timestamp,
    ) -> Result<bool, StoreFault> {
        self.change(move |batch| changes::looked(batch, looked, version, at)).await
    }

    /// The plan that the call `action` was permitted as a part of.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn plan_of_call(&self, action: ActionId) -> Result<Option<PlanRow>, StoreFault> {
        super::of_call(&self.inner.reader.lock(), action)
    }

    /// The plan with this id.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn plan(&self, id: PlanId) -> Result<Option<PlanRow>, StoreFault> {
        super::plan(&self.inner.reader.lock(), id)
    }

    /// The plans that are open, or the newest `most` whatever became of them; the oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn plans(&self, most: Option<u32>) -> Result<Vec<PlanRow>, StoreFault> {
        super::list(&self.inner.reader.lock(), most)
    }

    /// The newest `most` plans of an agent, the oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn plans_of(&self, agent: &AgentName, most: u32) -> Result<Vec<PlanRow>, StoreFault> {
        super::of_agent(&self.inner.reader.lock(), agent, most)
    }

    /// The plans that hold a call of this agent and task.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn plans_holding(
        &self,
        call: (&AgentName, Option<TaskId>),
    ) -> Result<Vec<PlanRow>, StoreFault> {
        super::holding(&self.inner.reader.lock(), call)
    }

    /// The agents with plans that are or were in force.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn held_agents(&self) -> Result<Vec<AgentName>, StoreFault> {
        super::held_agents(&self.inner.reader.lock())
    }
}
