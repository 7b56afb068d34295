//! Calls that were cancelled or late and whose server stayed silent: it may still be at them.
//!
//! Their outcome is recorded as in doubt and the agent was told; but a stop that comes later must
//! end them all the same. Must never forget one that may still run, short of its limits.

use super::{Became, Governor};
use holdpoint_control::{Ending, Running};
use holdpoint_resources::Cancels;
use holdpoint_types::{ActionId, OutcomeStatus, Reason, Stop};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;

/// Most calls kept in mind; the oldest go first.
const GIVEN_UP_MAX: usize = 4096;

/// The calls that were given up.
#[derive(Default)]
pub(super) struct GivenUp {
    calls: Mutex<BTreeMap<ActionId, (Running, Cancels)>>,
}

// === impl GivenUp ===

impl GivenUp {
    fn keep(&self, running: Running, cancels: Cancels) {
        let mut calls = self.calls.lock();
        calls.retain(|_, (_, cancels)| !cancels.gone.is_cancelled());
        if calls.len() >= GIVEN_UP_MAX {
            calls.pop_first();
        }
        calls.insert(running.action, (running, cancels));
    }
}

// === impl Governor ===

impl Governor {
    /// Keeps a call in mind if it ends without anybody knowing whether its server is done.
    pub(super) fn note_given_up(
        &self,
        action: ActionId,
        cancels: Option<Cancels>,
        ending: &Ending,
    ) {
        let silent = [Some(Reason::CancelledByAgent), Some(Reason::UpstreamTimeout)];
        if ending.status != OutcomeStatus::InDoubt || !silent.contains(&ending.reason) {
            return;
        }
        let running = self.running().into_iter().find(|running| running.action == action);
        let (Some(running), Some(cancels)) = (running, cancels) else { return };
        self.inner.given_up.keep(running, cancels);
    }

    /// Ends what was given up and is covered by a stop; gives what is to be waited for.
    pub(super) fn stop_given_up(&self) -> Vec<(Running, Cancels)> {
        let stops = self.stops();
        let mut calls = self.inner.given_up.calls.lock();
        calls.retain(|_, (_, cancels)| !cancels.gone.is_cancelled());
        let covered = |running: &Running| {
            let covers = |stop: &Stop| stop.scope.covers(&running.agent, &running.tool);
            stops.iter().any(covers)
        };
        let covered = calls.values().filter(|(running, _)| covered(running));
        covered.inspect(|(_, cancels)| cancels.stop.cancel()).cloned().collect()
    }
}

/// Waits until what was given up is gone, all together at most for `patience`.
pub(super) async fn wait(
    calls: Vec<(Running, Cancels)>,
    patience: Duration,
) -> Vec<(Running, Became)> {
    let deadline = tokio::time::Instant::now() + patience;
    let mut became = Vec::new();
    for (running, cancels) in calls {
        let gone = tokio::time::timeout_at(deadline, cancels.gone.cancelled()).await.is_ok();
        let became_now = if gone {
            let detail = "given up before, in doubt; its server was killed";
            Became::Ended(OutcomeStatus::InDoubt, Some(detail.to_owned()))
        } else {
            Became::StillRunning
        };
        became.push((running, became_now));
    }
    became
}

#[cfg(test)]
mod tests {
    use super::{GIVEN_UP_MAX, GivenUp};
    use holdpoint_control::Running;
    use holdpoint_resources::Cancels;
    use holdpoint_types::{ActionId, Timestamp};

    #[test]
    fn so_many_calls_that_were_given_up_are_kept_in_mind() {
        let given_up = GivenUp::default();
        let action = |at: i64| ActionId::new(Timestamp(at), [0; 10]);
        let keep = |at: i64| {
            let (agent, tool) = ("coder".parse().unwrap(), "fs__write".parse().unwrap());
            let since = Timestamp(at);
            let action = action(at);
            let cancels = Cancels::default();
            let running = Running { action, agent, tool, since, cancelling: true, task: false };
            given_up.keep(running, cancels.clone());
            cancels
        };
        let most = i64::try_from(GIVEN_UP_MAX).unwrap();
        let kept: Vec<_> = (0..most).map(keep).collect();
        // One that is gone makes room, and only then the oldest does.
        for (at, oldest) in [(most, 0), (most + 1, 1), (most + 2, 2)] {
            if at == most {
                kept[7].gone.cancel();
            }
            keep(at);
            let calls = given_up.calls.lock();
            assert_eq!(calls.len(), GIVEN_UP_MAX);
            assert_eq!(calls.keys().next(), Some(&action(oldest)));
            assert!(calls.contains_key(&action(at)) && !calls.contains_key(&action(7)));
        }
    }
}
