//! Ending well: no new calls, those in flight get time, the rest is cancelled as by a stop. And
//! what is told about each call.
//!
//! Must never wait longer than it was told to, and never lose the record of what it cancelled.

use super::{Call, Governed, Governor, Refusal};
use holdpoint_resources::Answer;
use holdpoint_types::{ActionId, Reason, Ruling, ToolRef};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often it is looked whether the last call has ended.
const LOOK: Duration = Duration::from_millis(10);
/// What a killed server may take beyond its grace.
const KILL: Duration = Duration::from_secs(3);

/// What became of the calls that were in flight when a drain began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// How many were cancelled because their time was over.
    pub cancelled: usize,
    /// How many had not ended even then; they will show as in doubt.
    pub left: usize,
}

// === impl Governor ===

impl Governor {
    /// Admits nothing any more, waits up to `patience` for calls in flight, then cancels them as an
    /// operator's stop would.
    pub async fn drain(&self, patience: Duration) -> Drained {
        self.inner.telemetry.drain();
        if self.idle_within(patience).await {
            return Drained { cancelled: 0, left: 0 };
        }
        // A task is not waited for: its agent can come back for it later.
        let late = self.running().into_iter().filter(|running| !running.task);
        let late: Vec<_> = late.map(|running| running.action).collect();
        for cancels in
            late.iter().filter_map(|action| self.inner.cancels.lock().get(action).cloned())
        {
            cancels.stop.cancel();
        }
        let grace = self.inner.limits.load().stop_grace;
        self.idle_within(grace.saturating_add(KILL)).await;
        Drained { cancelled: late.len(), left: self.in_flight() }
    }

    async fn idle_within(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.in_flight() > 0 {
            if Instant::now() >= deadline {
                return false;
            }
            sleep(LOOK).await;
        }
        true
    }

    pub(super) fn tell_decision(
        &self,
        action: ActionId,
        call: &Call,
        (refused, took): (Option<&Refusal>, Duration),
    ) {
        let Call { agent, tool, .. } = call;
        let (ruling, reason) = match refused {
            None => (Ruling::Permit, Reason::PermittedByPolicy),
            Some(Refusal { decision, .. }) => {
                let first = decision.deciding().next().map(|cause| cause.reason);
                (decision.ruling(), first.unwrap_or(Reason::NoPolicyPermits))
            }
        };
        if refused.is_none() {
            tracing::debug!(%action, %agent, %tool, "permitted");
        } else {
            tracing::info!(%action, %agent, %tool, %ruling, %reason, "refused");
        }
        let declared = self.settings().parts().agents.contains_key(agent);
        let agent = declared.then(|| agent.as_str());
        self.inner.telemetry.decided((ruling, reason), agent, took);
    }

    pub(super) fn tell_end(&self, tool: &ToolRef, governed: &Governed, took: Duration) {
        let (action, outcome) = match governed {
            Governed::Answered(action, Answer::Result(_)) => (action, "answered"),
            Governed::Answered(action, Answer::Error(_)) => (action, "error"),
            Governed::Failed { action, sent: false, .. } => (action, "not_sent"),
            Governed::Failed { action, .. } => (action, "in_doubt"),
            Governed::Refused(..) => return,
        };
        tracing::debug!(%action, %tool, outcome, took_us = took.as_micros(), "ended");
        if let Governed::Failed { reason, detail, .. } = governed {
            tracing::info!(%action, %tool, %reason, %detail, outcome, "a call did not end well");
        }
        self.inner.telemetry.called(tool, outcome, took);
    }
}
