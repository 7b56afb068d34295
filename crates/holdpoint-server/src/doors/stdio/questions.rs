//! What the wrapped server asks of its agent, from the question to the reply.
//! Must never pass on a question that is not recorded, nor wait for ever on replies.

use super::{Between, asks};
use crate::governor::{Governor, Question, Waiting};
use holdpoint_resources::mcp::{Outcome, RpcId, RpcRequest};
use holdpoint_types::Reason;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most questions that wait for their reply at one time.
const OPEN_MAX: usize = 1024;

/// How long questions may hold up a call in all.
const HELD_UP_MAX: Duration = Duration::from_secs(10 * 60);

/// The questions that wait. A cheap handle.
#[derive(Clone)]
pub(super) struct Questions {
    /// How long they may hold up a call in all.
    held_up_max: Duration,
    open: Arc<Mutex<BTreeMap<RpcId, Waiting>>>,
    /// When the last reply came.
    replied: Arc<Mutex<Option<Instant>>>,
}

// === impl Questions ===

impl Default for Questions {
    fn default() -> Self {
        Self::new(HELD_UP_MAX)
    }
}

impl Questions {
    fn new(held_up_max: Duration) -> Self {
        Self { held_up_max, open: Arc::default(), replied: Arc::default() }
    }

    /// Records what came back, if it is for a question that waits.
    pub(super) fn replied(&self, governor: &Governor, id: &RpcId, reply: &Outcome) {
        let waiting = self.open.lock().remove(id);
        if let Some(waiting) = waiting {
            *self.replied.lock() = Some(Instant::now());
            governor.note_reply(waiting, Some(reply));
        }
    }

    /// Ready when a call that begins now has taken too long. A server that waits for its agent is
    /// not late; its time begins anew with the reply.
    pub(super) async fn too_long(&self, timeout: Duration) {
        let begun = Instant::now();
        let mut from = begun;
        loop {
            tokio::time::sleep_until((from + timeout).into()).await;
            let waits = !self.open.lock().is_empty();
            let replied = self.replied.lock().filter(|at| *at > from);
            from = match (waits, replied) {
                (true, _) => Instant::now(),
                (false, Some(at)) => at,
                (false, None) => return,
            };
            if begun.elapsed() > timeout.saturating_add(self.held_up_max) {
                return;
            }
        }
    }

    /// Records that nothing came back for what still waits.
    pub(super) fn unanswered(&self, governor: &Governor) {
        for waiting in std::mem::take(&mut *self.open.lock()).into_values() {
            governor.note_reply(waiting, None);
        }
    }
}

// === impl Between ===

impl Between {
    /// Records a question of the server; it may be passed on only if that succeeds.
    pub(super) async fn hear(&self, request: &RpcRequest) -> Result<(), (Reason, String)> {
        let full = {
            let open = self.questions.open.lock();
            open.len() >= OPEN_MAX || open.contains_key(&request.id)
        };
        if full {
            let text = "too many questions wait, or one with this id does".to_owned();
            return Err((Reason::Overloaded, text));
        }
        let question = Question {
            server: self.wrap.server.clone(),
            agent: self.wrap.agent.clone(),
            action: self.calls.only_action(),
            method: request.method.clone(),
            parameters: request.params.clone().unwrap_or(Value::Null),
        };
        let waiting = asks::hear(&self.governor, &question).await?;
        self.questions.open.lock().insert(request.id.clone(), waiting);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{OPEN_MAX, Questions};
    use crate::doors::stdio::tests::line;
    use holdpoint_resources::mcp::{Outcome, RpcId, RpcRequest};
    use holdpoint_types::Reason;
    use serde_json::json;
    use std::time::{Duration, Instant};

    fn question(id: i64) -> RpcRequest {
        RpcRequest::new(RpcId::Number(id), "roots/list", json!({}))
    }

    #[tokio::test]
    async fn so_many_questions_wait_for_their_reply() {
        let dir = tempfile::tempdir().unwrap();
        let line = line(dir.path(), "sleep 60").await;
        let questions = &line.door.questions;
        line.door.hear(&question(0)).await.unwrap();
        let waiting = questions.open.lock()[&RpcId::Number(0)].clone();
        for id in 1..i64::try_from(OPEN_MAX).unwrap() {
            questions.open.lock().insert(RpcId::Number(id), waiting.clone());
        }
        let refused = line.door.hear(&question(-1)).await.unwrap_err();
        assert_eq!(refused.0, Reason::Overloaded);
        let reply = Outcome::Result(serde_json::value::to_raw_value(&json!({})).unwrap());
        questions.replied(&line.door.governor, &RpcId::Number(7), &reply);
        line.door.hear(&question(-1)).await.unwrap();
        // An id that waits is not asked twice.
        questions.replied(&line.door.governor, &RpcId::Number(8), &reply);
        assert_eq!(line.door.hear(&question(-1)).await.unwrap_err().0, Reason::Overloaded);
        line.end().await;
    }

    #[tokio::test]
    async fn questions_hold_a_call_up_but_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let line = line(dir.path(), "sleep 60").await;
        let (timeout, held_up_max) = (Duration::from_millis(20), Duration::from_millis(200));
        let questions = Questions::new(held_up_max);
        let lasts = async || {
            let begun = Instant::now();
            let late = questions.too_long(timeout);
            tokio::time::timeout(Duration::from_secs(20), late).await.expect("it never ends");
            begun.elapsed()
        };
        assert!(lasts().await >= timeout);
        line.door.hear(&question(0)).await.unwrap();
        let waiting = std::mem::take(&mut *line.door.questions.open.lock());
        *questions.open.lock() = waiting;
        assert!(lasts().await > timeout + held_up_max, "the agent has time to reply");
        line.end().await;
    }
}
