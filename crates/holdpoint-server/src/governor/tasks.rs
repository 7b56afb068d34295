//! Calls that servers answered with a task (MCP's extension of 2026-07-28): actions that go on
//! after their answer.
//!
//! INVARIANT: that a task was given is durable before its agent hears of it. Must never give a task
//! to anybody but the agent of its action, and never record two outcomes of one action.

use super::{Call, Governor};
use crate::store::StoreFault;
use holdpoint_control::{Input, Output};
use holdpoint_resources::mcp::tasks::{self, Status, Task};
use holdpoint_resources::mcp::{Outcome, era};
use holdpoint_resources::{Answer, Cancels, Ended, Upstream};
use holdpoint_types::{
    ActionId, ActionRecord, AgentName, DecisionRecord, Digest, GatewayId, Reason, RecordBody,
    TaskRecord, Timestamp, ToolRef,
};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

/// Most tasks of one agent that go on at one time.
pub(crate) const TASKS_MAX: usize = 64;
/// How long a task may go on, however long its server keeps it.
const AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest id that a server may give a task, in bytes.
const ID_BYTES_MAX: usize = 512;
/// Most questions of one task.
const ASKED_MAX: usize = 256;
/// How often a server is asked whether a task that was cancelled has ended.
const LOOK: Duration = Duration::from_millis(50);
/// Separates the action from the server's own id. No action's id contains it.
const SEPARATOR: char = '.';

/// The tasks that this process looks after.
#[derive(Default)]
pub(super) struct Tasks {
    open: Mutex<BTreeMap<ActionId, Open>>,
    takes: tokio::sync::Mutex<()>,
}

struct Open {
    agent: AgentName,
    /// Where its end is told.
    told: mpsc::Sender<Ended>,
    /// What it asked, and why the agent does not hear of it if that is so.
    asked: BTreeMap<Digest, Option<(Reason, String)>>,
}

/// A task at its server.
#[derive(Clone, Debug)]
struct Place {
    upstream: Upstream,
    id: String,
}

/// A task that its agent follows.
#[derive(Clone, Debug)]
pub(crate) struct Followed {
    /// The action that goes on.
    pub(crate) action: ActionId,
    /// What was called.
    pub(crate) tool: ToolRef,
    /// The id that the server knows.
    pub(crate) id: String,
    /// Its records, if its process is gone and nobody knows how it ended.
    orphan: Option<Box<(ActionRecord<DecisionRecord>, Timestamp)>>,
}

/// What the records say about the task of an action.
#[derive(Default)]
struct Recorded {
    decision: Option<(ActionRecord<DecisionRecord>, Timestamp)>,
    given: Option<(Digest, GatewayId)>,
    ended: bool,
}

#[derive(Deserialize)]
struct Code {
    code: i64,
}

// === impl Governor ===

impl Governor {
    /// True if `agent` may be given one more task.
    pub(crate) fn may_be_given_a_task(&self, agent: &AgentName) -> bool {
        let open = self.inner.tasks.open.lock();
        open.values().filter(|task| task.agent == *agent).count() < TASKS_MAX
    }

    /// Takes note of a task that a server answered with, and looks after it until it ends: what the
    /// agent is told, or how the call ended because nobody can follow the task.
    pub(super) async fn task_given(
        &self,
        (action, call): (ActionId, &Call),
        (body, upstream): (Answer, Option<Upstream>),
        cancels: Cancels,
    ) -> Result<Answer, Ended> {
        let Some(upstream) = upstream else {
            return Err(Ended::Task { body, upstream: None }.without_task());
        };
        let task = Task::read(body.raw()).and_then(|task| match task.id.len() {
            1..=ID_BYTES_MAX => Ok(task),
            _ => Err(format!("`taskId` is empty, or longer than {ID_BYTES_MAX} bytes")),
        });
        let task = task.map_err(|detail| in_doubt(Reason::UpstreamInvalid, &detail))?;
        let place = Place { upstream, id: task.id.clone() };
        let refused = match () {
            () if cancels.stop.is_cancelled() => Some(Reason::CancelledByStop),
            () if cancels.agent.is_cancelled() => Some(Reason::CancelledByAgent),
            () if !self.may_be_given_a_task(&call.agent) => Some(Reason::Overloaded),
            () => self.record_task(action, &task).await.err().map(|_| Reason::LedgerUnavailable),
        };
        if let Some(reason) = refused {
            let cancel = async move { place.ask("tasks/cancel").await };
            tokio::spawn(cancel);
            return Err(in_doubt(reason, "the server answered with a task; it was told to cancel"));
        }
        let patience = patience(task.ttl_ms());
        let own_id = format!("{action}{SEPARATOR}{}", task.id);
        // What it asks, or what came of it, its agent hears when it asks after the task.
        let answer = task.seed().under(&own_id).map(Answer::Result);
        self.look_after(action, (&call.agent, &call.tool), place, (cancels, patience));
        answer.ok_or_else(|| in_doubt(Reason::UpstreamInvalid, "the task cannot be told"))
    }

    /// The task that `agent` calls `own_id`; `None` if it has none here of that name.
    pub(crate) fn task(
        &self,
        agent: &AgentName,
        own_id: &str,
    ) -> Result<Option<Followed>, StoreFault> {
        let Some((action, id)) = own_id.split_once(SEPARATOR) else { return Ok(None) };
        let Ok(action) = action.parse::<ActionId>() else { return Ok(None) };
        let found = self.recorded_task(action)?;
        let (Some((decision, at)), Some((task, gateway))) = (found.decision, found.given) else {
            return Ok(None);
        };
        if decision.agent != *agent || Digest::of(id.as_bytes()) != task {
            return Ok(None);
        }
        let ours = gateway == self.gateway() || self.inner.tasks.open.lock().contains_key(&action);
        let orphaned = !found.ended && !ours;
        if orphaned && self.inner.store.is_live(gateway)? {
            // Another process looks after it.
            return Ok(None);
        }
        let tool = decision.more.request.tool.clone();
        let orphan = orphaned.then(|| Box::new((decision, at)));
        Ok(Some(Followed { action, tool, id: id.to_owned(), orphan }))
    }

    /// Looks after a task whose process is gone, and records that this one does.
    ///
    /// # Errors
    /// When it cannot be recorded.
    pub(crate) async fn take_over(
        &self,
        followed: &Followed,
        upstream: &Upstream,
    ) -> Result<(), StoreFault> {
        let Some((decision, at)) = followed.orphan.as_deref().cloned() else { return Ok(()) };
        let place = Place { upstream: upstream.clone(), id: followed.id.clone() };
        let age = u64::try_from(self.now().0.saturating_sub(at.0)).unwrap_or_default();
        let left = AGE_MAX.saturating_sub(Duration::from_millis(age));
        let (action, cancels) = (followed.action, Cancels::default());
        // One after the other: who looks after it must have said so before the task can end.
        let _takes = self.inner.tasks.takes.lock().await;
        if self.inner.tasks.open.lock().contains_key(&action) {
            return Ok(());
        }
        let agent = decision.agent.clone();
        self.inner.cancels.lock().insert(action, cancels.clone());
        let task = TaskRecord { task: Digest::of(followed.id.as_bytes()) };
        let written = self.write_task(Input::TaskTakenOver(Box::new(decision), task, at)).await;
        match &written {
            Ok(()) => self.look_after(action, (&agent, &followed.tool), place, (cancels, left)),
            Err(_) => self.forget_task(action),
        }
        written
    }

    /// Takes in what the server says about a task that its agent asked after.
    ///
    /// # Errors
    /// Why the agent must not be told that.
    pub(crate) fn note_task(
        &self,
        action: ActionId,
        said: &Outcome,
    ) -> Result<(), (Reason, String)> {
        let Some(ended) = ended(said) else { return Ok(()) };
        let told = self.inner.tasks.open.lock().get(&action).map(|open| open.told.clone());
        if let Some(told) = told {
            // Somebody may have been first: one end is enough.
            let _ = told.try_send(ended.clone());
        }
        match ended {
            Ended::InDoubt { reason, detail }
                if matches!(reason, Reason::UpstreamInvalid | Reason::TaskRefused) =>
            {
                Err((reason, detail))
            }
            _ => Ok(()),
        }
    }

    /// What was ruled before on a question of a task; `None` if it was not asked yet.
    pub(crate) fn ruled(
        &self,
        action: ActionId,
        question: Digest,
    ) -> Option<Result<(), (Reason, String)>> {
        let open = self.inner.tasks.open.lock();
        let ruled = open.get(&action)?.asked.get(&question)?.clone();
        Some(ruled.map_or(Ok(()), Err))
    }

    /// Keeps in mind what was ruled on a question of a task. False if it asks too much.
    pub(crate) fn note_ruled(
        &self,
        action: ActionId,
        question: Digest,
        refused: Option<(Reason, String)>,
    ) -> bool {
        let mut open = self.inner.tasks.open.lock();
        let Some(open) = open.get_mut(&action) else { return true };
        open.asked.insert(question, refused);
        open.asked.len() <= ASKED_MAX
    }

    /// The agent told the server to cancel a task.
    pub(crate) fn task_taken_back(&self, action: ActionId) {
        if self.inner.tasks.open.lock().contains_key(&action) {
            self.feed(Input::CancelAsked(action));
        }
    }

    async fn record_task(&self, action: ActionId, task: &Task) -> Result<(), StoreFault> {
        let record = TaskRecord { task: Digest::of(task.id.as_bytes()) };
        self.write_task(Input::TaskGiven(action, record)).await
    }

    async fn write_task(&self, input: Input) -> Result<(), StoreFault> {
        for output in self.feed(input) {
            if let Output::Record(body) = output {
                self.write(body).await.inspect_err(|fault| {
                    tracing::error!(%fault, "a task could not be recorded");
                })?;
            }
        }
        Ok(())
    }

    fn forget_task(&self, action: ActionId) {
        self.inner.cancels.lock().remove(&action);
        self.feed(Input::Unrecorded(action));
    }

    /// True if the records say that another process looks after a task, or that it has ended.
    fn is_out_of_hand(&self, action: ActionId) -> bool {
        self.recorded_task(action).is_ok_and(|found| {
            found.ended || found.given.is_none_or(|(_, gateway)| gateway != self.gateway())
        })
    }

    fn recorded_task(&self, action: ActionId) -> Result<Recorded, StoreFault> {
        let mut found = Recorded::default();
        for stored in self.inner.store.of_action(action)? {
            match stored.record.body {
                RecordBody::Decision(record) => {
                    found.decision = Some((*record, stored.record.at_ms));
                }
                RecordBody::TaskGiven(record) => {
                    found.given = Some((record.more.task, stored.record.gateway));
                }
                RecordBody::Outcome(_) => found.ended = true,
                _ => {}
            }
        }
        Ok(found)
    }

    fn look_after(
        &self,
        action: ActionId,
        (agent, tool): (&AgentName, &ToolRef),
        place: Place,
        (cancels, patience): (Cancels, Duration),
    ) {
        let (told, mut ends) = mpsc::channel(1);
        match self.inner.tasks.open.lock().entry(action) {
            // Somebody looks after it already.
            Entry::Occupied(_) => return,
            Entry::Vacant(place) => {
                let agent = agent.clone();
                place.insert(Open { agent, told, asked: BTreeMap::new() });
            }
        }
        self.inner.cancels.lock().insert(action, cancels.clone());
        let (governor, tool) = (self.clone(), tool.clone());
        tokio::spawn(async move {
            let begun = std::time::Instant::now();
            let ended = governor.wait_for(&place, &mut ends, (&cancels, patience)).await;
            governor.inner.tasks.open.lock().remove(&action);
            if governor.is_out_of_hand(action) {
                // Two processes took it over at one time: the last that said so ends it.
                return governor.forget_task(action);
            }
            let governed = governor.finish(action, ended);
            governor.tell_end(&tool, &governed, begun.elapsed());
        });
    }

    /// How a task ends: by what its agent hears, by its cancellation, or by its age.
    async fn wait_for(
        &self,
        place: &Place,
        ends: &mut mpsc::Receiver<Ended>,
        (cancels, patience): (&Cancels, Duration),
    ) -> Ended {
        let deadline = Instant::now() + patience;
        let (mut stopped, mut taken_back) = (false, false);
        loop {
            let ended = tokio::select! {
                biased;
                Some(ended) = ends.recv() => Some(ended),
                () = cancels.stop.cancelled(), if !stopped => {
                    stopped = true;
                    place.ask("tasks/cancel").await;
                    self.settle(place).await
                }
                // The agent's own request has told the server.
                () = cancels.agent.cancelled(), if !taken_back => {
                    taken_back = true;
                    self.settle(place).await
                }
                () = sleep_until(deadline) => {
                    let late = || in_doubt(Reason::TaskLost, "the task did not end in its time");
                    Some(place.look().await.unwrap_or_else(late))
                }
            };
            if let Some(ended) = ended {
                return ended;
            }
        }
    }

    /// Waits a moment for the end of a task whose server was told to cancel it. One that goes on
    /// stays open: it still runs.
    async fn settle(&self, place: &Place) -> Option<Ended> {
        let deadline = Instant::now() + self.inner.limits.load().stop_grace;
        loop {
            if let Some(ended) = place.look().await {
                return Some(ended);
            }
            if Instant::now() >= deadline {
                return None;
            }
            sleep(LOOK).await;
        }
    }
}

// === impl Place ===

impl Place {
    async fn ask(&self, method: &str) -> Option<Outcome> {
        let params = Map::from_iter([("taskId".to_owned(), Value::from(self.id.as_str()))]);
        let meta = json!({ era::META_CLIENT_CAPABILITIES: tasks::declaration() });
        let asked = self.upstream.follow(method, params, &meta).await;
        asked.inspect_err(|fault| tracing::warn!(method, %fault, "a task does not answer")).ok()
    }

    /// How the task ended, if it has.
    async fn look(&self) -> Option<Ended> {
        ended(&self.ask("tasks/get").await?)
    }
}

/// The end that an answer to `tasks/get` tells of; `None` if the task goes on, or nothing is told.
fn ended(said: &Outcome) -> Option<Ended> {
    let task = match said {
        Outcome::Result(raw) => Task::read(raw).ok()?,
        Outcome::Error(raw) => {
            let error: Code = serde_json::from_str(raw.get()).ok()?;
            let lost = || in_doubt(Reason::TaskLost, "the server does not know the task any more");
            return (error.code == era::INVALID_PARAMS).then(lost);
        }
    };
    let member = |name: &str| task.member(name).map(ToOwned::to_owned);
    let missing = || in_doubt(Reason::UpstreamInvalid, "the task ended without what came of it");
    match task.status {
        Status::Working | Status::InputRequired => None,
        Status::Completed => Some(member("result").map_or_else(missing, |result| {
            // A task cannot end as another one.
            Ended::by(Outcome::Result(result)).without_task()
        })),
        Status::Failed => {
            Some(member("error").map_or_else(missing, |error| Ended::by(Outcome::Error(error))))
        }
        Status::Cancelled => {
            Some(in_doubt(Reason::TaskCancelled, "the server says that the task was cancelled"))
        }
    }
}

/// How long a task may go on that its server keeps for so long.
fn patience(ttl_ms: Option<u64>) -> Duration {
    ttl_ms.map_or(AGE_MAX, |ttl| AGE_MAX.min(Duration::from_millis(ttl)))
}

fn in_doubt(reason: Reason, detail: &str) -> Ended {
    Ended::InDoubt { reason, detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::{AGE_MAX, ended, patience};
    use holdpoint_resources::mcp::Outcome;
    use serde_json::json;
    use serde_json::value::to_raw_value;
    use std::time::Duration;

    #[test]
    fn a_task_has_a_day_or_what_its_server_gives_it() {
        assert_eq!(patience(None), Duration::from_secs(86_400));
        assert_eq!(patience(Some(u64::MAX)), AGE_MAX);
        assert_eq!(patience(Some(1500)), Duration::from_millis(1500));
    }

    #[test]
    fn a_task_ends_by_its_final_states_alone() {
        let check = |task: serde_json::Value, expected: &str| {
            let raw = to_raw_value(&task).unwrap();
            let found = ended(&Outcome::Result(raw)).map(|ended| format!("{ended:?}"));
            let found = found.unwrap_or_default();
            assert!(found.contains(expected), "{task}: {found}");
            assert_eq!(found.is_empty(), expected.is_empty(), "{task}: {found}");
        };
        check(json!({"taskId": "a", "status": "working"}), "");
        check(json!({"taskId": "a", "status": "input_required"}), "");
        check(json!({"status": "completed"}), "");
        let result = json!({"isError": true});
        check(json!({"taskId": "a", "status": "completed", "result": result}), "tool_error: true");
        check(json!({"taskId": "a", "status": "completed"}), "UpstreamInvalid");
        let task = json!({"resultType": "task"});
        check(json!({"taskId": "a", "status": "completed", "result": task}), "TaskRefused");
        let error = json!({"code": 1});
        check(json!({"taskId": "a", "status": "failed", "error": error}), "tool_error: true");
        check(json!({"taskId": "a", "status": "failed"}), "UpstreamInvalid");
        check(json!({"taskId": "a", "status": "cancelled"}), "TaskCancelled");
        let error = |code: i64| Outcome::Error(to_raw_value(&json!({ "code": code })).unwrap());
        assert!(format!("{:?}", ended(&error(-32602))).contains("TaskLost"));
        assert!(ended(&error(-32603)).is_none(), "a fault tells nothing about the task");
    }
}
