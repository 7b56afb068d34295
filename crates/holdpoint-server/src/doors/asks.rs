//! What servers ask of agents: sampling, elicitation, roots. Recorded, and refused where the
//! operator forbids it. Must never touch anything else that a server asks.

use super::answer::refused_data;
use crate::governor::{Governed, Governor, Question, Waiting};
use holdpoint_control::{ServerAsk, Settings};
use holdpoint_resources::mcp::era::{self, META_CLIENT_CAPABILITIES};
use holdpoint_resources::mcp::{Outcome, RpcId, RpcRequest, RpcResponse};
use holdpoint_types::{ActionId, AgentName, AskedRuling, Digest, Reason, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What servers ask.
pub(super) const QUESTIONS: [&str; 3] =
    ["sampling/createMessage", "elicitation/create", "roots/list"];
/// Most questions in one result.
const WANTED_MAX: usize = 64;

/// What a result asks of an agent.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    /// By the keys under which the replies come.
    #[serde(rename = "inputRequests", default)]
    pub(super) requests: BTreeMap<String, WantedRequest>,
    /// What comes back with the replies.
    #[serde(rename = "requestState", default)]
    pub(super) state: Option<String>,
}

/// One question in a result.
#[derive(Debug, Deserialize)]
pub(super) struct WantedRequest {
    /// What is asked.
    pub(super) method: String,
    /// About what.
    #[serde(default)]
    pub(super) params: Value,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "resultType", default)]
    result_type: Option<String>,
}

/// Takes what `server` may not ask out of the capabilities that an agent declares to it. True if
/// the operator forbids anything at all.
pub(super) fn withhold(settings: &Settings, server: &ServerName, request: &mut RpcRequest) -> bool {
    let Some(forbidden) = settings.forbidden_asks(server) else { return false };
    let opening = request.method == "initialize";
    let Some(params) = request.params.as_mut().and_then(Value::as_object_mut) else { return false };
    if opening && let Some(declared) = params.get_mut("capabilities") {
        remove(declared, forbidden);
    }
    let meta = params.get_mut("_meta").and_then(Value::as_object_mut);
    if let Some(declared) =
        meta.and_then(|meta: &mut Map<_, _>| meta.get_mut(META_CLIENT_CAPABILITIES))
    {
        remove(declared, forbidden);
    }
    true
}

/// What of a server's questions the client of a modern request says that it can answer.
pub(super) fn able(request: &RpcRequest) -> Map<String, Value> {
    let declared = request.meta().and_then(|meta| meta.get(META_CLIENT_CAPABILITIES));
    let declared = declared.and_then(Value::as_object).into_iter().flatten();
    let known = declared.filter(|(name, able)| {
        able.is_object() && ServerAsk::ALL.iter().any(|ask| ask.as_str() == *name)
    });
    known.map(|(name, able)| (name.clone(), able.clone())).collect()
}

/// True for what a server may ask of an agent.
pub(super) fn is_question(method: &str) -> bool {
    QUESTIONS.contains(&method)
}

/// Records a question; it may be passed on only if this gives it back.
///
/// # Errors
/// Why the agent must not hear of it.
pub(super) async fn hear(
    governor: &Governor,
    question: &Question,
) -> Result<Waiting, (Reason, String)> {
    let Question { server, agent, method, .. } = question;
    match governor.note_question(question).await {
        Ok((AskedRuling::Passed, waiting)) => {
            tracing::debug!(%server, %agent, %method, "a server asks an agent");
            Ok(waiting)
        }
        Ok((AskedRuling::Forbidden, _)) if question.is_task() => {
            tracing::info!(%server, %agent, %method, "a server asks for a task");
            Err((Reason::TaskRefused, "questions as tasks are not governed here".to_owned()))
        }
        Ok((AskedRuling::Forbidden, _)) => {
            tracing::info!(%server, %agent, %method, "a server asks what it may not ask");
            Err((Reason::QuestionForbidden, format!("the operator forbids this server `{method}`")))
        }
        Err(fault) => {
            tracing::error!(%server, %fault, "a question could not be recorded: not passed on");
            let text = "the question could not be recorded, so it is not passed on".to_owned();
            Err((Reason::LedgerUnavailable, text))
        }
    }
}

/// The answer to a server whose question is not passed on.
pub(super) fn refusal(id: RpcId, (reason, text): (Reason, &str)) -> RpcResponse {
    let code = match reason {
        Reason::QuestionForbidden => era::METHOD_NOT_FOUND,
        Reason::TaskRefused => era::INVALID_PARAMS,
        _ => era::INTERNAL_ERROR,
    };
    RpcResponse::error(Some(id), code, text, refused_data(reason, text))
}

/// Records what a result asks of its agent (2026-07-28, `input_required`). What must not be asked
/// is taken back with the whole result.
pub(super) async fn screen(
    governor: &Governor,
    (server, agent): (&ServerName, &AgentName),
    governed: Governed,
) -> Governed {
    let Governed::Answered(action, Outcome::Result(raw)) = &governed else { return governed };
    let found = match Wanted::read(raw) {
        Ok(None) => return governed,
        Ok(Some(found)) => found,
        Err(detail) => {
            let (reason, action) = (Reason::UpstreamInvalid, *action);
            return Governed::Failed { action, reason, detail, sent: true };
        }
    };
    let (action, mut refused) = (*action, None);
    for (key, wanted) in found.requests {
        let question = Question {
            server: server.clone(),
            agent: agent.clone(),
            action: Some(action),
            method: wanted.method,
            parameters: wanted.params,
        };
        match hear(governor, &question).await {
            Ok(waiting) => governor.hand_question(waiting, found.state.as_deref(), &key),
            Err(why) => refused = Some(why),
        }
    }
    match refused {
        Some((reason, detail)) => Governed::Failed { action, reason, detail, sent: true },
        None => governed,
    }
}

/// Records what a task asks of its agent, each question once however often the agent asks after
/// the task. `own_id` is what the agent calls it.
///
/// # Errors
/// Why the agent must not hear of one of them, nor of the rest of what `raw` says.
pub(super) async fn screen_task(
    governor: &Governor,
    (server, agent): (&ServerName, &AgentName),
    (action, own_id): (ActionId, &str),
    raw: &RawValue,
) -> Result<(), (Reason, String)> {
    let found = Wanted::parse(raw).map_err(|detail| (Reason::UpstreamInvalid, detail))?;
    for (key, WantedRequest { method, params }) in found.requests {
        let whole = json!([key, method, params]).to_string();
        let digest = Digest::of(whole.as_bytes());
        if let Some(ruled) = governor.ruled(action, digest) {
            ruled?;
            continue;
        }
        let (server, agent, action) = (server.clone(), agent.clone(), Some(action));
        let question = Question { server, agent, action, method, parameters: params };
        let heard = hear(governor, &question).await;
        let refused = heard.as_ref().err().cloned();
        let again = refused.as_ref().is_some_and(|(why, _)| *why == Reason::LedgerUnavailable);
        if !again && !action.is_none_or(|action| governor.note_ruled(action, digest, refused)) {
            return Err((Reason::Overloaded, "the task asks too much".to_owned()));
        }
        governor.hand_question(heard?, Some(own_id), &key);
    }
    Ok(())
}

/// Records the replies that a `tasks/update` carries to what its task asked.
pub(super) fn note_task_replies(
    governor: &Governor,
    whose: (&ServerName, &AgentName),
    own_id: &str,
    request: &RpcRequest,
) {
    let replies = request.param("inputResponses").and_then(Value::as_object);
    for (key, reply) in replies.into_iter().flatten().take(WANTED_MAX) {
        governor.note_handed_reply(whose, (Some(own_id), key), reply);
    }
}

/// Records the replies that a request carries to what was asked before.
pub(super) fn note_replies(
    governor: &Governor,
    (server, agent): (&ServerName, &AgentName),
    request: &RpcRequest,
) {
    let state = request.param("requestState").and_then(Value::as_str);
    let replies = request.param("inputResponses").and_then(Value::as_object);
    for (key, reply) in replies.into_iter().flatten().take(WANTED_MAX) {
        governor.note_handed_reply((server, agent), (state, key), reply);
    }
}

// === impl Wanted ===

impl Wanted {
    /// What a result asks for; `None` for a result that asks nothing.
    pub(super) fn read(raw: &RawValue) -> Result<Option<Self>, String> {
        // Nearly no result asks, and a result may be large. An escaped word is a word all the same.
        if !raw.get().contains(era::RESULT_INPUT_REQUIRED) && !raw.get().contains("\\u") {
            return Ok(None);
        }
        let kind = serde_json::from_str::<Kind>(raw.get()).map_err(|fault| fault.to_string())?;
        if kind.result_type.as_deref() != Some(era::RESULT_INPUT_REQUIRED) {
            return Ok(None);
        }
        Self::parse(raw).map(Some)
    }

    /// Reads what a task asks for.
    fn parse(raw: &RawValue) -> Result<Self, String> {
        let wanted = serde_json::from_str::<Self>(raw.get());
        let wanted = wanted.map_err(|fault| format!("`inputRequests`: {fault}"))?;
        if wanted.requests.len() > WANTED_MAX {
            return Err(format!("more than {WANTED_MAX} `inputRequests`"));
        }
        match wanted.requests.values().find(|wanted| !is_question(&wanted.method)) {
            Some(other) => Err(format!("`inputRequests`: `{:.64}` is no question", other.method)),
            None => Ok(wanted),
        }
    }
}

fn remove(declared: &mut Value, forbidden: &BTreeSet<ServerAsk>) {
    if let Some(declared) = declared.as_object_mut() {
        declared.retain(|name, _| forbidden.iter().all(|ask| ask.as_str() != name));
    }
}

#[cfg(test)]
mod tests {
    use super::{WANTED_MAX, Wanted};
    use serde_json::value::RawValue;
    use serde_json::{Value, json};

    fn read(count: usize) -> Result<usize, String> {
        let ask = |number| (format!("q{number}"), json!({ "method": "roots/list" }));
        let asks: Value = (0..count).map(ask).collect();
        let result = json!({ "resultType": "input_required", "inputRequests": asks });
        let raw = serde_json::value::to_raw_value(&result).unwrap();
        Wanted::read(&raw).map(|wanted| wanted.unwrap().requests.len())
    }

    #[test]
    fn a_result_that_asks_too_much_is_refused() {
        assert_eq!(read(WANTED_MAX), Ok(WANTED_MAX));
        assert_eq!(read(WANTED_MAX + 1), Err("more than 64 `inputRequests`".to_owned()));
    }

    #[test]
    fn a_question_is_found_however_it_is_written() {
        let asks = |text: &str| {
            let raw = RawValue::from_string(text.to_owned()).unwrap();
            Wanted::read(&raw).map(|wanted| wanted.is_some())
        };
        assert_eq!(asks(r#"{"resultType":"input_required"}"#), Ok(true));
        assert_eq!(asks(r#"{"resultType":"input_r\u0065quired"}"#), Ok(true));
        assert_eq!(asks(r#"{"r\u0065sultType":"input_required"}"#), Ok(true));
        assert_eq!(asks(r#"{"resultType":"complete","x":"input_required \u0065"}"#), Ok(false));
        assert_eq!(asks(r#"{"content":[]}"#), Ok(false));
    }
}
