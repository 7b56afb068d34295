//! Which requests wait for the wrapped server's answer, and what ends each.
//! Must never lose a waiting call, and never give an answer to a request that did not ask for it.

use super::Between;
use holdpoint_resources::mcp::{Outcome, RpcId, RpcRequest};
use holdpoint_resources::{Cancels, Ended, Injected, SendFault};
use holdpoint_types::{ActionId, Reason};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

/// How long a call may take to be written; shorter than a permit lives.
const SEND_PATIENCE: Duration = Duration::from_secs(20);
/// How long a call that was given up is kept in mind.
const LINGER: Duration = Duration::from_secs(15 * 60);
/// How long a killed process tree may take to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(2);
/// Most answers that are kept for somebody who does not wait yet.
const EARLY_MAX: usize = 16;
/// Most requests that wait at one time without being governed.
const PASSING_MAX: usize = 4096;

/// A server's answer, or what is wrong with it.
pub(super) type Told = Result<Outcome, String>;
/// Where a governed call's answer comes, and where its cancellation does.
pub(super) type Begun = (oneshot::Receiver<Told>, CancellationToken);

/// The calls in flight. A cheap handle.
#[derive(Clone, Default)]
pub(super) struct Calls {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    flights: Mutex<Flights>,
    own: Mutex<Own>,
    tools_changed: AtomicBool,
    /// Told whenever a flight ends.
    landed: Notify,
}

/// The agent's requests that the server has not answered. No id is in both.
#[derive(Default)]
struct Flights {
    /// Ids of governed calls that were given up; an answer may still come.
    lingering: BTreeSet<RpcId>,
    governed: BTreeMap<RpcId, Waiting>,
    passing: BTreeSet<RpcId>,
    /// Those of them whose answer is not to be waited for: the end of a subscription.
    endless: BTreeSet<RpcId>,
    /// Those of them whose answer says what the server can do.
    openings: BTreeSet<RpcId>,
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
    answer: Option<oneshot::Sender<Told>>,
    asked: CancellationToken,
    /// Known once it is permitted.
    action: Option<ActionId>,
}

/// Whose answer a response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// A governed call's.
    Governed,
    /// A request's that passed unchanged; it waits no longer.
    Passing,
    /// The same, and it says what the server can do.
    Opening,
    /// Nobody asked, or it was answered before.
    Nobody,
}

// === impl Calls ===

impl Calls {
    /// Begins to wait for `id`; `None` if that is in flight already.
    pub(super) fn begin(&self, id: &RpcId) -> Option<Begun> {
        let mut flights = self.inner.flights.lock();
        if flights.has(id) {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        let asked = CancellationToken::new();
        let waiting = Waiting { answer: Some(sender), asked: asked.clone(), action: None };
        flights.governed.insert(id.clone(), waiting);
        Some((receiver, asked))
    }

    pub(super) fn end(&self, id: &RpcId) {
        let mut flights = self.inner.flights.lock();
        if !flights.lingering.contains(id) {
            flights.governed.remove(id);
        }
        drop(flights);
        self.inner.landed.notify_waiters();
    }

    /// Notes which action a governed call is.
    pub(super) fn note_action(&self, id: &RpcId, action: ActionId) {
        if let Some(waiting) = self.inner.flights.lock().governed.get_mut(id) {
            waiting.action = Some(action);
        }
    }

    /// The action that the server is at, if it is at a single one.
    pub(super) fn only_action(&self) -> Option<ActionId> {
        let flights = self.inner.flights.lock();
        let mut actions = flights.governed.values().filter_map(|waiting| waiting.action);
        actions.next().filter(|_| actions.next().is_none())
    }

    /// Keeps the id of a call that was given up: an answer may still come.
    fn keep(&self, id: &RpcId) {
        self.inner.flights.lock().lingering.insert(id.clone());
    }

    fn release(&self, id: &RpcId) {
        let mut flights = self.inner.flights.lock();
        flights.lingering.remove(id);
        flights.governed.remove(id);
    }

    /// Notes a request that passes unchanged; false if its id is in flight, or too many are.
    pub(super) fn begin_passing(&self, request: &RpcRequest) -> bool {
        let (mut flights, id) = (self.inner.flights.lock(), &request.id);
        let free = flights.passing.len() < PASSING_MAX && !flights.has(id);
        if free && request.method == super::LISTEN {
            flights.endless.insert(id.clone());
        }
        if free && matches!(request.method.as_str(), "initialize" | "server/discover") {
            flights.openings.insert(id.clone());
        }
        free && flights.passing.insert(id.clone())
    }

    /// Finds out whose answer a response is.
    pub(super) fn whose(&self, id: &RpcId) -> Whose {
        let mut flights = self.inner.flights.lock();
        if flights.governed.contains_key(id) {
            return Whose::Governed;
        }
        flights.endless.remove(id);
        let opening = flights.openings.remove(id);
        if !flights.passing.remove(id) {
            return Whose::Nobody;
        }
        self.inner.landed.notify_waiters();
        if opening { Whose::Opening } else { Whose::Passing }
    }

    pub(super) fn answered(&self, id: &RpcId, told: Told) {
        let mut flights = self.inner.flights.lock();
        let answer = flights.governed.get_mut(id).and_then(|waiting| waiting.answer.take());
        match answer {
            Some(answer) => {
                let _ = answer.send(told);
            }
            None => tracing::warn!(%id, "the server answered twice: dropped"),
        }
    }

    /// A message of the server is broken: fails the request that it answers, or, if that cannot be
    /// known, all that wait. Gives those that nobody here waits for: the agent must be told.
    pub(super) fn blame(&self, id: Option<&RpcId>, fault: &str) -> Vec<RpcId> {
        if let Some(id) = id {
            match self.whose(id) {
                Whose::Governed => self.answered(id, Err(fault.to_owned())),
                Whose::Passing | Whose::Opening => return vec![id.clone()],
                Whose::Nobody => {}
            }
            return Vec::new();
        }
        self.inner.own.lock().waiting.clear();
        let mut flights = self.inner.flights.lock();
        for waiting in flights.governed.values_mut() {
            if let Some(answer) = waiting.answer.take() {
                let _ = answer.send(Err(fault.to_owned()));
            }
        }
        flights.openings.clear();
        let passing = std::mem::take(&mut flights.passing);
        flights.endless.clear();
        self.inner.landed.notify_waiters();
        passing.into_iter().collect()
    }

    /// Takes a governed call back; false if there is none with this id.
    pub(super) fn cancel(&self, id: &RpcId) -> bool {
        let flights = self.inner.flights.lock();
        flights.governed.get(id).inspect(|waiting| waiting.asked.cancel()).is_some()
    }

    /// Waits until nothing is in flight.
    pub(super) async fn landed(&self) {
        loop {
            let landed = self.inner.landed.notified();
            if self.inner.flights.lock().is_empty() {
                return;
            }
            landed.await;
        }
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

    /// The server is gone: nobody will be answered any more. Gives the requests that nobody here
    /// waits for: the agent must be told.
    pub(super) fn fail_all(&self) -> Vec<RpcId> {
        let passing = {
            let mut flights = self.inner.flights.lock();
            for waiting in flights.governed.values_mut() {
                waiting.answer = None;
            }
            std::mem::take(&mut flights.passing)
        };
        let mut own = self.inner.own.lock();
        own.over = true;
        own.waiting.clear();
        passing.into_iter().collect()
    }

    pub(super) fn note_tools_changed(&self) {
        self.inner.tools_changed.store(true, Ordering::Relaxed);
    }

    /// True once after the server said that its tools changed.
    pub(super) fn tools_changed(&self) -> bool {
        self.inner.tools_changed.swap(false, Ordering::Relaxed)
    }
}

// === impl Flights ===

impl Flights {
    fn has(&self, id: &RpcId) -> bool {
        self.governed.contains_key(id) || self.passing.contains(id)
    }

    fn is_empty(&self) -> bool {
        self.governed.len() == self.lingering.len() && self.passing.is_subset(&self.endless)
    }
}

/// Waits until a call is written. A server that takes no input must not hold up a stop.
pub(super) async fn send(
    between: &Between,
    sending: impl Future<Output = Result<(), SendFault>>,
    (answer, cancels): (&mut oneshot::Receiver<Told>, &Cancels),
) -> Result<(), Ended> {
    let mut sending = pin!(sending);
    let early = tokio::select! {
        sent = &mut sending => return sent.map_err(|fault| unsent(&fault)),
        () = cancels.stop.cancelled() => Reason::CancelledByStop,
        () = cancels.agent.cancelled() => Reason::CancelledByAgent,
        () = tokio::time::sleep(between.wrap.timeout.min(SEND_PATIENCE)) => Reason::UpstreamTimeout,
    };
    // A server that is merely slow gets the call, and then is told that it is cancelled.
    if let Ok(sent) = tokio::time::timeout(between.wrap.grace, sending).await {
        return sent.map_err(|fault| unsent(&fault));
    }
    // INVARIANT: a server that may hold a part of a call never gets the rest of it later.
    between.kill.cancel();
    let _ = tokio::time::timeout(between.wrap.grace + KILL_PATIENCE, answer).await;
    let detail = "the server took no input; it was killed".to_owned();
    Err(Ended::InDoubt { reason: early, detail })
}

/// Waits for the answer to a call that was sent.
pub(super) async fn wait(
    between: &Between,
    (id, mut answer): (&RpcId, oneshot::Receiver<Told>),
    cancels: Cancels,
) -> Ended {
    let timeout = between.wrap.timeout;
    let early = tokio::select! {
        outcome = &mut answer => return ended(outcome.ok()),
        () = cancels.stop.cancelled() => Reason::CancelledByStop,
        () = cancels.agent.cancelled() => Reason::CancelledByAgent,
        () = between.questions.too_long(timeout) => Reason::UpstreamTimeout,
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
    } else {
        linger(between, (id.clone(), answer), cancels);
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

/// Keeps an eye on a call that was given up while the server may still be at it: a stop that comes
/// later kills the server all the same, and nobody else may use its id meanwhile.
fn linger(between: &Between, (id, mut answer): (RpcId, oneshot::Receiver<Told>), cancels: Cancels) {
    // Not the whole of `between`: who lingers must not keep the server's input open.
    let (calls, kill) = (between.calls.clone(), between.kill.clone());
    let patience = between.wrap.grace + KILL_PATIENCE;
    calls.keep(&id);
    tokio::spawn(async move {
        tokio::select! {
            _ = &mut answer => {}
            () = cancels.stop.cancelled() => {
                kill.cancel();
                let _ = tokio::time::timeout(patience, &mut answer).await;
            }
            () = tokio::time::sleep(LINGER) => {}
        }
        calls.release(&id);
        cancels.gone.cancel();
    });
}

/// What it means that a call could not be sent.
pub(super) fn unsent(fault: &SendFault) -> Ended {
    let detail = fault.to_string();
    match fault.may_have_arrived() {
        true => Ended::InDoubt { reason: Reason::UpstreamUnavailable, detail },
        false => Ended::NotSent { reason: Reason::UpstreamUnavailable, detail },
    }
}

fn ended(told: Option<Told>) -> Ended {
    match told {
        Some(Ok(answer)) => Ended::by(answer).without_task(),
        Some(Err(detail)) => Ended::InDoubt { reason: Reason::UpstreamInvalid, detail },
        None => {
            let detail = "the server ended before it answered".to_owned();
            Ended::InDoubt { reason: Reason::UpstreamUnavailable, detail }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Calls, EARLY_MAX, PASSING_MAX, Whose};
    use holdpoint_resources::mcp::{Outcome, RpcId, RpcRequest};
    use holdpoint_resources::{Passage, ProcessSpec};
    use serde_json::json;

    fn passing(calls: &Calls, method: &str, id: i64) -> bool {
        calls.begin_passing(&RpcRequest::new(RpcId::Number(id), method, json!({})))
    }

    #[test]
    fn so_many_requests_pass_at_one_time() {
        let calls = Calls::default();
        let begun = (0..).take_while(|id| passing(&calls, "ping", *id)).take(99_999).count();
        assert_eq!(begun, PASSING_MAX);
        // Governed calls have limits of their own.
        assert!(calls.begin(&RpcId::Text("call".into())).is_some());
        assert_eq!(calls.whose(&RpcId::Number(7)), Whose::Passing);
        assert!(passing(&calls, "ping", -1));
        assert!(!passing(&calls, "ping", -2));
    }

    #[tokio::test]
    async fn early_answers_to_our_own_requests_are_kept_within_bounds() {
        let echo = ProcessSpec { command: vec!["cat".to_owned()], ..ProcessSpec::default() };
        let (server, _child) = Passage::spawn(&echo, 1 << 10).unwrap();
        let calls = Calls::default();
        let mut early = Vec::new();
        for _ in 0..2 * EARLY_MAX {
            let own = server.inject("ping", json!({})).await.unwrap();
            let answer = serde_json::value::to_raw_value(&json!({})).unwrap();
            calls.found(own, Outcome::Result(answer));
            early.push(calls.inner.own.lock().early.len());
        }
        assert_eq!(early.last(), Some(&EARLY_MAX));
    }

    #[test]
    fn a_server_that_breaks_messages_leaves_nothing_behind() {
        let calls = Calls::default();
        for id in 0..100 {
            assert!(passing(&calls, super::super::LISTEN, id));
            assert_eq!(calls.blame(None, "broken"), [RpcId::Number(id)]);
        }
        let flights = calls.inner.flights.lock();
        assert!(flights.is_empty() && flights.endless.is_empty());
    }
}
