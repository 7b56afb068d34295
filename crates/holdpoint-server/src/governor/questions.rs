//! What servers ask of agents (sampling, elicitation, roots): recorded, with what came back.
//!
//! INVARIANT: a question's record is durable before anybody can pass the question on. Must never
//! keep what was asked or replied, only digests.

use super::Governor;
use crate::store::StoreFault;
use holdpoint_control::ServerAsk;
use holdpoint_resources::mcp::{Outcome, tasks};
use holdpoint_types::{
    ActionId, AgentName, AskedRecord, AskedRuling, Digest, Record, RecordBody, RepliedRecord,
    ReplyStatus, ServerName, canonical_digest,
};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeMap;

/// Most questions whose reply will come with another request; the oldest go first.
const HANDED_MAX: usize = 4096;

/// One question.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// Who asks.
    pub(crate) server: ServerName,
    /// Who is asked.
    pub(crate) agent: AgentName,
    /// The action during which it is asked, if that is known.
    pub(crate) action: Option<ActionId>,
    /// What is asked.
    pub(crate) method: String,
    /// About what.
    pub(crate) parameters: Value,
}

/// A recorded question that waits for its reply.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    seq: u64,
    server: ServerName,
    agent: AgentName,
    action: Option<ActionId>,
}

/// Questions that were handed to agents in results; replies come with a later request.
#[derive(Default)]
pub(super) struct Handed {
    waiting: Mutex<BTreeMap<u64, (Place, Waiting)>>,
}

/// Where a reply to a handed question will be: the digest of the state that comes with it, and its
/// key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place(Digest, String);

// === impl Question ===

impl Question {
    /// True if it wants to be answered by a task, which nobody would follow.
    pub(crate) fn is_task(&self) -> bool {
        tasks::asks_for_one(Some(&self.parameters))
    }
}

// === impl Governor ===

impl Governor {
    /// Rules on a question, and records it. The caller may pass it on only if this says so.
    ///
    /// # Errors
    /// When it could not be recorded: then nobody may hear of it.
    pub(crate) async fn note_question(
        &self,
        question: &Question,
    ) -> Result<(AskedRuling, Waiting), StoreFault> {
        let Question { server, agent, action, method, parameters } = question;
        let forbidden = ServerAsk::of_method(method).is_some_and(|ask| {
            self.settings().forbidden_asks(server).is_some_and(|asks| asks.contains(&ask))
        });
        let ruling = if forbidden || question.is_task() {
            AskedRuling::Forbidden
        } else {
            AskedRuling::Passed
        };
        let record = AskedRecord {
            server: server.clone(),
            agent: agent.clone(),
            action: *action,
            method: method.clone(),
            parameters: digest_of(parameters),
            ruling,
        };
        let seq = self.write(RecordBody::Asked(Box::new(record))).await?;
        let (server, agent, action) = (server.clone(), agent.clone(), *action);
        Ok((ruling, Waiting { seq, server, agent, action }))
    }

    /// Records what came back for a question; nothing came if there is no reply.
    pub(crate) fn note_reply(&self, waiting: Waiting, reply: Option<&Outcome>) {
        let value =
            reply.map(|reply| serde_json::from_str(reply.raw().get()).unwrap_or(Value::Null));
        let status = match (reply, &value) {
            (Some(Outcome::Error(_)), _) => ReplyStatus::Error,
            (Some(Outcome::Result(_)), Some(value)) => status_of(value),
            (Some(Outcome::Result(_)) | None, _) => ReplyStatus::Unanswered,
        };
        self.write_reply(waiting, status, value.as_ref().map(digest_of));
    }

    /// Keeps a question in mind that is handed to its agent under `key`, with `state`.
    pub(crate) fn hand_question(&self, waiting: Waiting, state: Option<&str>, key: &str) {
        let mut handed = self.inner.questions.waiting.lock();
        handed.insert(waiting.seq, (place(state, key), waiting));
        while handed.len() > HANDED_MAX {
            handed.pop_first();
        }
    }

    /// Records a reply that came with another request, to a question that was handed to `agent`.
    pub(crate) fn note_handed_reply(
        &self,
        (server, agent): (&ServerName, &AgentName),
        (state, key): (Option<&str>, &str),
        reply: &Value,
    ) {
        let place = place(state, key);
        let taken = {
            let mut handed = self.inner.questions.waiting.lock();
            let found = handed.iter().rev().find(|(_, (at, waiting))| {
                *at == place && waiting.server == *server && waiting.agent == *agent
            });
            let seq = found.map(|(seq, _)| *seq);
            seq.and_then(|seq| handed.remove(&seq))
        };
        if let Some((_, waiting)) = taken {
            self.write_reply(waiting, status_of(reply), Some(digest_of(reply)));
        }
    }

    fn write_reply(&self, waiting: Waiting, status: ReplyStatus, reply: Option<Digest>) {
        let Waiting { seq: asked, server, agent, action } = waiting;
        let replied = RepliedRecord { asked, server, agent, action, status, reply };
        let body = RecordBody::Replied(Box::new(replied));
        let record = Record { at_ms: self.now(), gateway: self.inner.gateway, body };
        if let Err(fault) = self.inner.store.append_later(record) {
            tracing::error!(%fault, "a reply to a server could not be recorded");
        }
    }
}

fn place(state: Option<&str>, key: &str) -> Place {
    Place(Digest::of(state.unwrap_or_default().as_bytes()), key.to_owned())
}

/// What a reply says, as far as its shape tells: only elicitation has other words than an answer.
fn status_of(reply: &Value) -> ReplyStatus {
    match reply.get("action").and_then(Value::as_str) {
        Some("decline") => ReplyStatus::Declined,
        Some("cancel") => ReplyStatus::Dismissed,
        Some(_) | None => ReplyStatus::Answered,
    }
}

/// The digest of the canonical form, or of the text where a value has none.
fn digest_of(value: &Value) -> Digest {
    canonical_digest(value).unwrap_or_else(|_| Digest::of(value.to_string().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::{HANDED_MAX, Waiting};
    use serde_json::json;

    #[tokio::test]
    async fn so_many_questions_wait_for_a_later_request_and_the_oldest_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = crate::tests::runtime(dir.path()).await;
        let governor = runtime.governor();
        let (server, agent) = ("fs".parse().unwrap(), "coder".parse().unwrap());
        let most = u64::try_from(HANDED_MAX).unwrap();
        for seq in 0..most + 2 {
            let (server, agent) = (Clone::clone(&server), Clone::clone(&agent));
            let waiting = Waiting { seq, server, agent, action: None };
            governor.hand_question(waiting, None, &format!("q{seq}"));
        }
        let left = |key: &str| {
            governor.note_handed_reply((&server, &agent), (None, key), &json!({}));
            governor.inner.questions.waiting.lock().len()
        };
        assert_eq!((left("q0"), left("q1")), (HANDED_MAX, HANDED_MAX), "forgotten");
        assert_eq!(left("q2"), HANDED_MAX - 1);
        assert_eq!(left("q2"), HANDED_MAX - 1, "once");
        assert_eq!(left(&format!("q{most}")), HANDED_MAX - 2);
        runtime.shut_down().await;
    }
}
