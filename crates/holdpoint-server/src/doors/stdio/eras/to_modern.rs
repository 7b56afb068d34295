//! A legacy agent, a modern server: questions in results become requests to the agent, and its
//! replies go to the server with the same request again.
//!
//! Each round is a request of its own to the server, and is decided on and recorded as one. Must
//! never change a `requestState`, nor ask an agent what it did not say it can answer.

use super::{Move, answered_anyway, is_own, own_id, reserved, words};
use crate::doors::answer::refused_data;
use crate::doors::asks::Wanted;
use holdpoint_resources::mcp::era::{self, META_SUBSCRIPTION};
use holdpoint_resources::mcp::{
    Message, Outcome, RpcId, RpcNotification, RpcRequest, RpcResponse, governed,
};
use holdpoint_types::Reason;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Most rounds of one request.
pub(super) const ROUNDS_MAX: u32 = 16;
/// Most requests of an agent that wait at one time.
pub(super) const CALLS_MAX: usize = 4096;
/// Most resources that an agent follows.
pub(super) const FOLLOWED_MAX: usize = 1024;
/// Where changes are followed.
const LISTEN: &str = "subscriptions/listen";

/// The bridge of one line.
pub(super) struct ToModern {
    capabilities: Value,
    client: Option<Value>,
    /// What the server said of itself.
    server: Map<String, Value>,
    /// From which level on the agent wants to read the server's log.
    level: Option<Value>,
    /// By the ids that the server knows.
    calls: BTreeMap<RpcId, Call>,
    /// By the ids that the agent knows: the call that waits, and the question's key.
    questions: BTreeMap<RpcId, (RpcId, String)>,
    /// The resources that the agent follows, with the requests that follow them.
    followed: BTreeMap<String, RpcId>,
    last: u64,
}

/// A request that the agent has not got an answer to.
struct Call {
    request: RpcRequest,
    round: u32,
    asking: Option<Asking>,
}

/// A round of questions.
struct Asking {
    state: Option<String>,
    /// What is asked by each key, and the reply, once it is there.
    wanted: BTreeMap<String, (String, Option<Value>)>,
}

// === impl ToModern ===

impl ToModern {
    pub(super) fn new(
        (capabilities, client): (Value, Option<Value>),
        server: Map<String, Value>,
    ) -> Self {
        Self {
            capabilities,
            client,
            server,
            level: None,
            calls: BTreeMap::new(),
            questions: BTreeMap::new(),
            followed: BTreeMap::new(),
            last: 0,
        }
    }

    pub(super) fn heard(&mut self, message: &Message) -> Option<Vec<Move>> {
        Some(match message {
            Message::Request(request) => match reserved(request) {
                Some(refused) => refused,
                None => self.requested(request),
            },
            Message::Response(response) => self.replied(response),
            Message::Notification(note) => match note.method.as_str() {
                "notifications/initialized" => self.follow_lists(),
                "notifications/cancelled" => self.cancelled(note),
                // A modern server hears nothing but requests and their end.
                _ => Vec::new(),
            },
        })
    }

    pub(super) fn said(&mut self, message: Message) -> Option<Vec<Move>> {
        match message {
            Message::Response(response) => self.landed(response),
            Message::Request(request) => {
                let text = "a server of this revision sends no requests";
                let data = refused_data(Reason::MethodUnknown, text);
                let code = era::METHOD_NOT_FOUND;
                let refused = RpcResponse::error(Some(request.id), code, text, data);
                Some(vec![Move::ToServer(Message::Response(refused))])
            }
            Message::Notification(note) => self.told(note),
        }
    }

    fn requested(&mut self, request: &RpcRequest) -> Vec<Move> {
        let done = || vec![answer(&request.id, &json!({}))];
        match request.method.as_str() {
            "ping" => done(),
            "initialize" => vec![refusal(
                request.id.clone(),
                Reason::MessageMalformed,
                "the session is open already",
            )],
            "logging/setLevel" => {
                self.level = request.param("level").cloned();
                done()
            }
            "resources/unsubscribe" => {
                let uri = request.param("uri").and_then(Value::as_str).unwrap_or_default();
                let mut moves = done();
                moves.extend(self.followed.remove(uri).map(|id| cancel(&id)));
                moves
            }
            _ if self.calls.len() >= CALLS_MAX => {
                let text = "too many requests wait";
                vec![refusal(request.id.clone(), Reason::Overloaded, text)]
            }
            "resources/subscribe" => self.follow(request),
            _ => {
                let call = Call { request: request.clone(), round: 0, asking: None };
                self.calls.insert(request.id.clone(), call);
                let mut passed = request.clone();
                passed.params = Some(self.params(request.params.as_ref()));
                vec![Move::ToServer(Message::Request(passed))]
            }
        }
    }

    fn params(&self, params: Option<&Value>) -> Value {
        let params = params.and_then(Value::as_object).cloned().unwrap_or_default();
        let who = (&self.capabilities, self.client.as_ref(), self.level.as_ref());
        words::modern_params(params, who)
    }

    // Rounds.

    fn landed(&mut self, response: RpcResponse) -> Option<Vec<Move>> {
        let id = response.id.clone()?;
        let Some(mut call) = self.calls.remove(&id) else {
            // The end of a subscription, which an agent of this era does not wait for.
            let followed = self.followed.values().any(|one| *one == id);
            return (followed || is_own(&id)).then(Vec::new);
        };
        let agent = call.request.id.clone();
        let method = call.request.method.clone();
        let wanted = match &response.outcome {
            Outcome::Result(raw) if method != LISTEN => Wanted::read(raw),
            Outcome::Result(_) | Outcome::Error(_) => Ok(None),
        };
        let wanted = match wanted {
            Ok(None) if method == LISTEN => return Some(self.unfollowed(agent, response.outcome)),
            Ok(None) => {
                let outcome = response.outcome;
                let response = RpcResponse { id: Some(agent), outcome };
                return Some(vec![Move::ToAgent(response.to_bytes())]);
            }
            Ok(Some(wanted)) => wanted,
            Err(why) => return Some(vec![refusal(agent, Reason::UpstreamInvalid, &why)]),
        };
        if !governed::is_governed(&method) || call.round >= ROUNDS_MAX {
            let text = format!("the server asked again after {ROUNDS_MAX} rounds");
            return Some(vec![refusal(agent, Reason::UpstreamInvalid, &text)]);
        }
        call.round += 1;
        Some(self.ask(id, call, wanted))
    }

    fn ask(&mut self, id: RpcId, mut call: Call, wanted: Wanted) -> Vec<Move> {
        let able = |method: &str, params| words::can_answer(&self.capabilities, method, params);
        let mut requests = wanted.requests.iter();
        let unable = requests.find(|(_, one)| !able(&one.method, Some(&one.params)));
        if let Some((_, unable)) = unable {
            let text = format!("the client did not declare what `{}` needs", unable.method);
            return vec![refusal(call.request.id, Reason::CapabilityMissing, &text)];
        }
        let mut asking = Asking { state: wanted.state, wanted: BTreeMap::new() };
        let mut moves = Vec::new();
        for (key, one) in wanted.requests {
            self.last += 1;
            let question = own_id(self.last);
            self.questions.insert(question.clone(), (id.clone(), key.clone()));
            asking.wanted.insert(key, (one.method.clone(), None));
            let params = if one.params.is_null() { json!({}) } else { one.params };
            let asked = RpcRequest::new(question, one.method, params);
            moves.push(Move::ToAgent(asked.to_bytes()));
        }
        call.asking = Some(asking);
        self.calls.insert(id.clone(), call);
        if moves.is_empty() { self.ask_again(&id) } else { moves }
    }

    fn replied(&mut self, response: &RpcResponse) -> Vec<Move> {
        let question = response.id.as_ref().and_then(|id| self.questions.remove(id));
        let Some((id, key)) = question else { return Vec::new() };
        let Some(call) = self.calls.get_mut(&id) else { return Vec::new() };
        let Some(asking) = &mut call.asking else { return Vec::new() };
        let Some((method, reply)) = asking.wanted.get_mut(&key) else { return Vec::new() };
        *reply = match &response.outcome {
            Outcome::Result(raw) => serde_json::from_str(raw.get()).ok(),
            // The one way in which a modern reply can say no.
            Outcome::Error(_) if method.starts_with("elicitation/") => {
                Some(json!({ "action": "cancel" }))
            }
            Outcome::Error(raw) => {
                let text = format!("the client answered `{method}` with {:.512}", raw.get());
                return self.give_up(&id, &text);
            }
        };
        let all = asking.wanted.values().all(|(_, reply)| reply.is_some());
        if all { self.ask_again(&id) } else { Vec::new() }
    }

    /// Sends the request again, with what the agent replied.
    fn ask_again(&mut self, id: &RpcId) -> Vec<Move> {
        let Some(mut call) = self.calls.remove(id) else { return Vec::new() };
        let Some(asking) = call.asking.take() else { return Vec::new() };
        let mut params = self.params(call.request.params.as_ref());
        if let Some(params) = params.as_object_mut() {
            let replies = asking.wanted.into_iter();
            let replies = replies.filter_map(|(key, (_, reply))| Some((key, reply?)));
            params.insert("inputResponses".into(), Value::Object(replies.collect()));
            params.extend(asking.state.map(|state| ("requestState".to_owned(), state.into())));
        }
        self.last += 1;
        let again = RpcRequest::new(own_id(self.last), call.request.method.clone(), params);
        self.calls.insert(again.id.clone(), call);
        vec![Move::ToServer(Message::Request(again))]
    }

    fn give_up(&mut self, id: &RpcId, why: &str) -> Vec<Move> {
        self.questions.retain(|_, (of, _)| of != id);
        let Some(call) = self.calls.remove(id) else { return Vec::new() };
        vec![refusal(call.request.id, Reason::QuestionUnanswered, why)]
    }

    fn cancelled(&mut self, note: &RpcNotification) -> Vec<Move> {
        let id = note.params.as_ref().and_then(|params| params.get("requestId"));
        let Some(agent) = id.and_then(RpcId::from_value) else { return Vec::new() };
        let found = self.calls.iter().find(|(_, call)| call.request.id == agent);
        let Some((id, call)) = found.map(|(id, call)| (id.clone(), call)) else {
            return Vec::new();
        };
        if call.asking.is_some() {
            // Between two rounds nothing runs that could be cancelled.
            self.questions.retain(|_, (of, _)| *of != id);
            self.calls.remove(&id);
            return Vec::new();
        }
        if !answered_anyway(&call.request.method) {
            // The server need not answer it; what it answers all the same reaches nobody.
            self.calls.remove(&id);
        }
        vec![cancel(&id)]
    }

    // Changes.

    /// Follows the changes that a legacy server would tell by itself.
    fn follow_lists(&mut self) -> Vec<Move> {
        let able = self.server.get("capabilities");
        let changes = |what: &str| {
            let found = able.and_then(|able| able.get(what)?.get("listChanged"));
            found == Some(&Value::Bool(true))
        };
        let mut filter = Map::new();
        for (name, what) in [
            ("toolsListChanged", "tools"),
            ("promptsListChanged", "prompts"),
            ("resourcesListChanged", "resources"),
        ] {
            if changes(what) {
                filter.insert(name.into(), true.into());
            }
        }
        if filter.is_empty() {
            return Vec::new();
        }
        self.last += 1;
        let params = self.params(Some(&json!({ "notifications": filter })));
        let listen = RpcRequest::new(own_id(self.last), LISTEN, params);
        vec![Move::ToServer(Message::Request(listen))]
    }

    fn follow(&mut self, request: &RpcRequest) -> Vec<Move> {
        let uri = request.param("uri").and_then(Value::as_str);
        let Some(uri) = uri.filter(|_| self.followed.len() < FOLLOWED_MAX) else {
            let text = "`uri` must be a text, and subscriptions not too many";
            return vec![refusal(request.id.clone(), Reason::ParametersInvalid, text)];
        };
        let before = self.followed.remove(uri).map(|id| cancel(&id));
        self.last += 1;
        let id = own_id(self.last);
        self.followed.insert(uri.to_owned(), id.clone());
        let own = RpcRequest { method: LISTEN.to_owned(), ..request.clone() };
        self.calls.insert(id.clone(), Call { request: own, round: 0, asking: None });
        let filter = json!({ "notifications": { "resourceSubscriptions": [uri] } });
        let listen = RpcRequest::new(id, LISTEN, self.params(Some(&filter)));
        before.into_iter().chain([Move::ToServer(Message::Request(listen))]).collect()
    }

    /// A subscription ended before it was confirmed.
    fn unfollowed(&mut self, agent: RpcId, outcome: Outcome) -> Vec<Move> {
        let outcome = match outcome {
            Outcome::Error(raw) => Outcome::Error(raw),
            Outcome::Result(_) => Outcome::Result(empty()),
        };
        vec![Move::ToAgent(RpcResponse { id: Some(agent), outcome }.to_bytes())]
    }

    fn told(&mut self, mut note: RpcNotification) -> Option<Vec<Move>> {
        let meta = note.params.as_ref().and_then(|params| params.get("_meta"));
        let listen = meta.and_then(|meta| meta.get(META_SUBSCRIPTION)).and_then(RpcId::from_value);
        let listen = listen?;
        if note.method == "notifications/subscriptions/acknowledged" {
            let confirmed = self.calls.remove(&listen);
            let confirmed = confirmed.map(|call| answer(&call.request.id, &json!({})));
            return Some(confirmed.into_iter().collect());
        }
        words::strip_subscription(&mut note.params);
        Some(vec![Move::ToAgent(note.to_bytes())])
    }
}

fn empty() -> Box<RawValue> {
    serde_json::value::to_raw_value(&json!({})).unwrap_or_default()
}

fn answer(id: &RpcId, result: &Value) -> Move {
    Move::ToAgent(RpcResponse::result_value(id.clone(), result).to_bytes())
}

fn cancel(id: &RpcId) -> Move {
    let note = RpcNotification::cancelled(id, "the agent does not wait any more");
    Move::ToServer(Message::Notification(note))
}

fn refusal(id: RpcId, reason: Reason, text: &str) -> Move {
    let code = match reason {
        Reason::UpstreamInvalid | Reason::QuestionUnanswered => era::INTERNAL_ERROR,
        Reason::CapabilityMissing => era::MISSING_CLIENT_CAPABILITY,
        _ => era::INVALID_REQUEST,
    };
    let refused = RpcResponse::error(Some(id), code, text, refused_data(reason, text));
    Move::ToAgent(refused.to_bytes())
}
