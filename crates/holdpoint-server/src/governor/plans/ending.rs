//! Ends plans: done, expired, or void because their basis moved. Whoever comes second writes
//! nothing. Must not end one that another process may still hold to other policies, unless it is
//! asked about just that plan.

use super::super::Governor;
use crate::store::{PlanRow, StoreFault};
use holdpoint_types::{Digest, PlanEnd, PlanState};

// === impl Governor ===

impl Governor {
    /// Ends what is done or over.
    pub(in crate::governor) async fn settle_plans(&self) -> Result<(), StoreFault> {
        for row in self.inner.store.plans(None)? {
            self.settle_plan(&row).await?;
        }
        Ok(())
    }

    /// Ends the plan if it is done or over.
    pub(super) async fn settle_plan(&self, row: &PlanRow) -> Result<bool, StoreFault> {
        let progress = row.progress();
        let (steps, accepted) = (&row.plan.steps, row.state == PlanState::Accepted);
        let done = || (PlanEnd::Done, "every step is done".to_owned());
        let end = if accepted && progress.is_exhausted(steps) {
            done()
        } else if row.plan.expires > self.now() {
            return Ok(false);
        } else if accepted && progress.is_complete(steps) {
            done()
        } else {
            (PlanEnd::Expired, "its time is over".to_owned())
        };
        self.end_plan(row, end).await
    }

    /// Ends what was made for the policies that were in force before.
    pub(in crate::governor) async fn void_plans(&self, before: Digest) -> Result<(), StoreFault> {
        for row in self.inner.store.plans(None)? {
            if row.plan.basis.policy != before {
                continue;
            }
            if let Some(moved) = self.moved(&row.plan) {
                self.end_plan(&row, (PlanEnd::Void, moved)).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn end_plan(
        &self,
        row: &PlanRow,
        (end, detail): (PlanEnd, String),
    ) -> Result<bool, StoreFault> {
        let (plan, agent) = (row.plan.id, &row.plan.agent);
        let ended = self.inner.store.end_plan(plan, (end, detail.clone()), self.now()).await?;
        if ended {
            tracing::info!(%plan, %agent, end = end.as_str(), %detail, "a plan ended");
        }
        Ok(ended)
    }
}
