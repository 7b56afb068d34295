//! Which calls wait for the wrapped server's answer, and what ends each.
//! Must never lose a waiting call: it is answered, cancelled, late, or failed with the server.

use super::Between;
use holdpoint_resources::mcp::{Outcome, RpcId};
use holdpoint_resources::{Cancels, Ended, Injected, SendFault};
use holdpoint_types::Reason;
use parking_lot::Mutex;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// How long a killed process tree may take to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(2);
/// Most answers that are kept for somebody who does not wait yet.
const EARLY_MAX: usize = 16;

/// The calls in flight. A cheap handle.
#[derive(Clone, Default)]
pub(super) struct Calls {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    governed: Mutex<BTreeMap<RpcId, Waiting>>,
    own: Mutex<Own>,
    tools_changed: AtomicBool,
}

/// Answers to our own requests may come before somebody waits for them.
#[derive(Default)]
struct Own {
    waiting: BTreeMap<Injected, oneshot::Sender<Outcome>>,
    early: BTreeMap<Injected, Outcome>,
    over: bool,
}

struct Waiting {
    /// Taken when the answer comes; a second answer finds nobody.
    answer: Option<oneshot::Sender<Outcome>>,
    asked: CancellationToken,
}

/// All that is read of a tool's result.
#[derive(Deserialize)]
struct Flag {
    #[serde(rename = "isError", default)]
    is_error: bool,
}

// === impl Calls ===

impl Calls {
    /// Begins to wait for `id`; `None` if that is in flight already.
    pub(super) fn begin(
        &self,
        id: &RpcId,
    ) -> Option<(oneshot::Receiver<Outcome>, CancellationToken)> {
        let mut governed = self.inner.governed.lock();
        if governed.contains_key(id) {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        let asked = CancellationToken::new();
        let waiting = Waiting { answer: Some(sender), asked: asked.clone() };
        governed.insert(id.clone(), waiting);
        Some((receiver, asked))
    }

    pub(super) fn end(&self, id: &RpcId) {
        self.inner.governed.lock().remove(id);
    }

    pub(super) fn is_governed(&self, id: &RpcId) -> bool {
        self.inner.governed.lock().contains_key(id)
    }

    pub(super) fn answered(&self, id: &RpcId, outcome: Outcome) {
        let mut governed = self.inner.governed.lock();
        let answer = governed.get_mut(id).and_then(|waiting| waiting.answer.take());
        match answer {
            Some(answer) => {
                let _ = answer.send(outcome);
            }
            None => tracing::warn!(%id, "the server answered twice: dropped"),
        }
    }

    /// Takes a governed call back; false if there is none with this id.
    pub(super) fn cancel(&self, id: &RpcId) -> bool {
        let governed = self.inner.governed.lock();
        governed.get(id).inspect(|waiting| waiting.asked.cancel()).is_some()
    }

    /// The answer to a request of our own.
    pub(super) fn expect(&self, request: Injected) -> oneshot::Receiver<Outcome> {
        let (sender, receiver) = oneshot::channel();
        let mut own = self.inner.own.lock();
        match own.early.remove(&request) {
            Some(outcome) => {
                let _ = sender.send(outcome);
            }
            None if own.over => drop(sender),
            None => {
                own.waiting.insert(request, sender);
            }
        }
        receiver
    }

    pub(super) fn found(&self, request: Injected, outcome: Outcome) {
        let mut own = self.inner.own.lock();
        match own.waiting.remove(&request) {
            Some(sender) => {
                let _ = sender.send(outcome);
            }
            None if own.early.len() < EARLY_MAX => {
                own.early.insert(request, outcome);
            }
            None => tracing::warn!("the server answers what was not asked: dropped"),
        }
    }

    /// The server is gone: nobody will be answered any more.
    pub(super) fn fail_all(&self) {
        for waiting in self.inner.governed.lock().values_mut() {
            waiting.answer = None;
        }
        let mut own = self.inner.own.lock();
        own.over = true;
        own.waiting.clear();
    }

    pub(super) fn note_tools_changed(&self) {
        self.inner.tools_changed.store(true, Ordering::Relaxed);
    }

    /// True once after the server said that its tools changed.
    pub(super) fn tools_changed(&self) -> bool {
        self.inner.tools_changed.swap(false, Ordering::Relaxed)
    }
}

/// Waits for the answer to a call that was sent.
pub(super) async fn wait(
    between: &Between,
    (id, mut answer): (&RpcId, oneshot::Receiver<Outcome>),
    cancels: Cancels,
) -> Ended {
    let timeout = between.wrap.timeout;
    let early = tokio::select! {
        outcome = &mut answer => return ended(outcome.ok()),
        () = cancels.stop.cancelled() => Reason::CancelledByStop,
        () = cancels.agent.cancelled() => Reason::CancelledByAgent,
        () = tokio::time::sleep(timeout) => Reason::UpstreamTimeout,
    };
    // A server whose pipe is full cannot be told; it then counts as one that does not obey.
    let grace = between.wrap.grace;
    let told = between.server.cancel(id, early.meaning());
    let _ = tokio::time::timeout(grace, told).await;
    let stop = cancels.stop.cancelled();
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(grace, &mut answer) => outcome.ok().and_then(Result::ok),
        () = stop, if early != Reason::CancelledByStop => None,
    };
    if outcome.is_some() {
        return ended(outcome);
    }
    let stopped = cancels.stop.is_cancelled();
    if stopped {
        between.kill.cancel();
        // Closed once the whole process tree is gone.
        let _ = tokio::time::timeout(grace + KILL_PATIENCE, &mut answer).await;
    }
    let (reason, detail) = match (stopped, early) {
        (true, _) => {
            (Reason::CancelledByStop, "no answer within the grace period: the server was killed")
        }
        (false, Reason::CancelledByAgent) => (early, "the server was told and gave no answer"),
        (false, _) => (early, "no answer in time; the server was told to cancel"),
    };
    Ended::InDoubt { reason, detail: detail.to_owned() }
}

/// What it means that a call could not be sent.
pub(super) fn unsent(fault: &SendFault) -> Ended {
    let detail = fault.to_string();
    match fault.may_have_arrived() {
        true => Ended::InDoubt { reason: Reason::UpstreamUnavailable, detail },
        false => Ended::NotSent { reason: Reason::UpstreamUnavailable, detail },
    }
}

fn ended(outcome: Option<Outcome>) -> Ended {
    let Some(body) = outcome else {
        let detail = "the server ended before it answered".to_owned();
        return Ended::InDoubt { reason: Reason::UpstreamUnavailable, detail };
    };
    let tool_error = match &body {
        Outcome::Result(raw) => {
            serde_json::from_str::<Flag>(raw.get()).is_ok_and(|flag| flag.is_error)
        }
        Outcome::Error(_) => true,
    };
    Ended::Answered { body, tool_error }
}
