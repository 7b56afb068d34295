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
#[derive(Clone, Default)]
pub(super) struct Questions {
    open: Arc<Mutex<BTreeMap<RpcId, Waiting>>>,
    /// When the last reply came.
    replied: Arc<Mutex<Option<Instant>>>,
}

// === impl Questions ===

impl Questions {
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
            if begun.elapsed() > timeout.saturating_add(HELD_UP_MAX) {
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
