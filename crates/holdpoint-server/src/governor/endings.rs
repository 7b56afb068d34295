//! How actions end: turns what a server did into an ending, and tells those who wait for it.
//! Must never hold an action up: whoever listens too slowly misses endings, and says so.

use super::{Became, Governor};
use holdpoint_control::Ending;
use holdpoint_resources::{Answer, Ended};
use holdpoint_types::{ActionId, Digest, OutcomeStatus, Reason, ToolOutput};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::broadcast;

/// How many endings a listener may lag behind.
const LAG_MAX: usize = 4096;

/// Where endings are told.
pub(super) struct Endings {
    sender: broadcast::Sender<(ActionId, Became)>,
}

/// Hears every ending from now on.
pub(super) struct Listener {
    receiver: broadcast::Receiver<(ActionId, Became)>,
}

/// Ends an action as in doubt if the code that executes it panics.
pub(super) struct Unfinished<'a> {
    pub(super) governor: &'a Governor,
    pub(super) action: Option<ActionId>,
}

// === impl Endings ===

impl Default for Endings {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(LAG_MAX) }
    }
}

impl Endings {
    pub(super) fn listen(&self) -> Listener {
        Listener { receiver: self.sender.subscribe() }
    }

    pub(super) fn tell(&self, action: ActionId, became: Became) {
        // Nobody listens most of the time.
        let _ = self.sender.send((action, became));
    }
}

// === impl Listener ===

impl Listener {
    /// Waits until every one of `waiting` ended, at most for `patience`.
    pub(super) async fn collect(
        &mut self,
        mut waiting: BTreeSet<ActionId>,
        patience: Duration,
    ) -> BTreeMap<ActionId, Became> {
        let mut ended = BTreeMap::new();
        let deadline = tokio::time::sleep(patience);
        tokio::pin!(deadline);
        while !waiting.is_empty() {
            let told = tokio::select! {
                told = self.receiver.recv() => told,
                () = &mut deadline => break,
            };
            match told {
                Ok((action, became)) if waiting.remove(&action) => {
                    ended.insert(action, became);
                }
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => break,
            }
        }
        ended
    }
}

// === impl Unfinished ===

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let Some(action) = self.action else { return };
        let detail = Some("the code that executed it failed".to_owned());
        let reason = Some(Reason::UpstreamUnavailable);
        let status = OutcomeStatus::InDoubt;
        self.governor.end(action, Ending { status, reason, detail, output: None });
    }
}

/// What the records say about how a call ended.
pub(super) fn ending(ended: &Ended, stored_bytes_max: usize) -> Ending {
    match ended {
        Ended::Answered { body, tool_error } => {
            let (text, protocol_error) = match body {
                Answer::Result(raw) => (raw.get(), false),
                Answer::Error(raw) => (raw.get(), true),
            };
            let status = match *tool_error || protocol_error {
                true => OutcomeStatus::ToolError,
                false => OutcomeStatus::Succeeded,
            };
            let output = Some(output(text, stored_bytes_max));
            Ending { status, reason: None, detail: None, output }
        }
        Ended::NotSent { reason, detail } => Ending::not_sent(*reason, detail),
        Ended::Task { .. } => ending(&ended.clone().without_task(), stored_bytes_max),
        Ended::InDoubt { reason, detail } => {
            let status = OutcomeStatus::InDoubt;
            Ending { status, reason: Some(*reason), detail: Some(detail.clone()), output: None }
        }
    }
}

fn output(text: &str, stored_bytes_max: usize) -> ToolOutput {
    let body = (text.len() <= stored_bytes_max).then(|| text.to_owned());
    let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
    ToolOutput { digest: Digest::of(text.as_bytes()), bytes, body }
}

#[cfg(test)]
mod tests {
    use super::{Became, Endings, LAG_MAX};
    use holdpoint_types::{ActionId, OutcomeStatus, Timestamp};
    use std::time::Duration;

    #[tokio::test]
    async fn who_listens_too_slowly_misses_the_oldest_endings_and_waits_no_longer() {
        let endings = Endings::default();
        let mut listener = endings.listen();
        let most = i64::try_from(LAG_MAX.next_power_of_two()).unwrap();
        let action = |at: i64| ActionId::new(Timestamp(at), [0; 10]);
        for at in 0..=most {
            endings.tell(action(at), Became::Ended(OutcomeStatus::Succeeded, None));
        }
        let all = (0..=most).map(action).collect();
        let ended = listener.collect(all, Duration::from_millis(200)).await;
        assert_eq!(ended.len(), LAG_MAX);
        assert!(!ended.contains_key(&action(0)) && ended.contains_key(&action(most)));
    }
}
