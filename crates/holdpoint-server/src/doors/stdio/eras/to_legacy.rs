//! A modern agent, a legacy server: its questions become results that the agent comes back with.
//!
//! Owns the calls that wait for their agent (*parked* calls). INVARIANT: a parked call goes on only
//! with the state that it was parked with, of its own agent, for its own parameters, once. Must
//! never send a call anew when its agent comes back: it is the same call.

use super::state::{Binding, Parking};
use super::{Move, answered_anyway, is_own, own_id, reserved, words};
use crate::doors::answer::refused_data;
use crate::doors::{asks, held};
use holdpoint_resources::mcp::era::{self, META_LOG_LEVEL, META_PROGRESS, META_SUBSCRIPTION};
use holdpoint_resources::mcp::{
    Identity, Message, Outcome, RpcId, RpcNotification, RpcRequest, RpcResponse, governed,
};
use holdpoint_types::{AgentName, Digest, Reason, ServerName, canonical_digest};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a parked call waits for its agent.
pub(super) const PARKED_FOR: Duration = Duration::from_secs(5 * 60);
/// Most calls that are parked on one line at one time.
pub(super) const PARKED_MAX: usize = 32;
/// Most requests of an agent that wait at one time.
pub(super) const CALLS_MAX: usize = 4096;
/// Most questions of one call that wait for its agent to come back.
pub(super) const QUEUED_MAX: usize = 16;
/// Where a modern agent subscribes.
const LISTEN: &str = "subscriptions/listen";

/// The bridge of one line.
pub(super) struct ToLegacy {
    whose: (AgentName, ServerName),
    /// What the server said of itself.
    server: Map<String, Value>,
    /// From which level on the server tells its log.
    level: Option<Value>,
    /// By the ids that the server knows.
    calls: BTreeMap<RpcId, Call>,
    listens: BTreeMap<RpcId, Listen>,
    last: u64,
}

/// A request that the server has not answered, or whose agent has not heard the answer.
struct Call {
    number: u64,
    method: String,
    binding: Binding,
    capabilities: Value,
    waits: Waits,
    /// Where progress goes: the token that the server knows, and the agent's present one.
    progress: (Option<Value>, Option<Value>),
    /// How often it was parked.
    round: u64,
    /// Questions that came while it was parked.
    queued: Vec<RpcRequest>,
}

/// Who waits for a request's answer.
enum Waits {
    /// The agent, under this id.
    Agent(RpcId),
    /// The agent will come back; until then the answer is kept, if it came.
    Parked(Parked),
    /// A subscription of the agent.
    Listen(RpcId),
    /// Nobody.
    Nobody,
}

struct Parked {
    until: Instant,
    /// By their keys.
    questions: BTreeMap<String, RpcRequest>,
    landed: Option<Outcome>,
}

struct Listen {
    /// What the agent hears of.
    honoured: Map<String, Value>,
    uris: Vec<String>,
    /// Subscriptions that the server has not confirmed.
    open: BTreeSet<RpcId>,
}

// === impl ToLegacy ===

impl ToLegacy {
    pub(super) fn new(whose: (AgentName, ServerName), server: Map<String, Value>) -> Self {
        let (calls, listens) = (BTreeMap::new(), BTreeMap::new());
        Self { whose, server, level: None, calls, listens, last: 0 }
    }

    pub(super) fn heard(&mut self, message: &Message) -> Option<Vec<Move>> {
        let request = match message {
            Message::Request(request) => request,
            Message::Notification(note) if note.method == "notifications/cancelled" => {
                return Some(self.cancelled(note));
            }
            Message::Notification(_) | Message::Response(_) => return None,
        };
        if let Some(refused) = reserved(request) {
            return Some(refused);
        }
        match era::era_of(request) {
            // Not of the modern era: as it is.
            Ok(era::Era::Legacy) => return None,
            Ok(era::Era::Modern) => {}
            Err(fault) => return Some(vec![answered(fault.response(request))]),
        }
        let governed = governed::is_governed(&request.method);
        Some(match request.method.as_str() {
            "server/discover" => {
                let result = words::discover_result(&self.server);
                vec![answered(RpcResponse::result_value(request.id.clone(), &result))]
            }
            _ if governed && comes_back(request) => self.come_back(request),
            _ if self.calls.len() >= CALLS_MAX => {
                vec![refusal(&request.id, Reason::Overloaded, "too many requests wait")]
            }
            LISTEN => self.listen(request),
            _ => self.pass(request),
        })
    }

    pub(super) fn said(&mut self, message: Message) -> Option<Vec<Move>> {
        match message {
            Message::Response(response) => self.landed(response),
            Message::Request(request) => Some(self.asked(request)),
            Message::Notification(note) => self.told(note),
        }
    }

    /// Ends a parked call whose agent did not come back.
    pub(super) fn expired(&mut self, number: u64, round: u64) -> Vec<Move> {
        let id = own_id(number);
        let Some(call) = self.calls.get_mut(&id) else { return Vec::new() };
        let Waits::Parked(parked) = &mut call.waits else { return Vec::new() };
        if call.round != round {
            return Vec::new();
        }
        let questions = std::mem::take(&mut parked.questions);
        let over = parked.landed.is_some();
        let queued = std::mem::take(&mut call.queued);
        let unanswered = questions.into_values().chain(queued);
        let text = "the agent did not come back with an answer";
        let mut moves: Vec<_> =
            unanswered.map(|asked| error(&asked.id, Reason::QuestionUnanswered, text)).collect();
        if over {
            self.calls.remove(&id);
        } else {
            call.waits = Waits::Nobody;
            moves.push(cancel(&id, text));
        }
        moves
    }

    /// Passes a request on in the words of the server's era.
    fn pass(&mut self, request: &RpcRequest) -> Vec<Move> {
        let mut moves = self.level(request);
        let token = request.meta().and_then(|meta| meta.get(META_PROGRESS)).cloned();
        let waits = Waits::Agent(request.id.clone());
        let id = self.enter(request, (waits, token));
        let mut params = request.params.clone();
        words::strip_modern(&mut params);
        let method = request.method.clone();
        moves.push(Move::ToServer(Message::Request(RpcRequest { id, method, params })));
        moves
    }

    fn enter(&mut self, request: &RpcRequest, (waits, token): (Waits, Option<Value>)) -> RpcId {
        self.last += 1;
        let call = Call {
            number: self.last,
            method: request.method.clone(),
            binding: self.binding(request),
            capabilities: words::capabilities(request),
            waits,
            progress: (token.clone(), token),
            round: 0,
            queued: Vec::new(),
        };
        self.calls.insert(own_id(self.last), call);
        own_id(self.last)
    }

    /// What a parked call is bound to: method and parameters, without what comes back with it.
    fn binding(&self, request: &RpcRequest) -> Binding {
        let mut params = governed::governed_parameters(request);
        if let (true, Some(params)) =
            (request.method != governed::TOOLS_CALL, params.as_object_mut())
        {
            params.remove("inputResponses");
            params.remove("requestState");
        }
        let name = request.param("name");
        let asked = json!({ "method": request.method, "name": name, "parameters": params });
        let digest =
            canonical_digest(&asked).unwrap_or_else(|_| Digest::of(asked.to_string().as_bytes()));
        Binding::new(&self.whose.0, &self.whose.1, digest)
    }

    /// Tells the server from which level on the agent wants to read its log.
    fn level(&mut self, request: &RpcRequest) -> Vec<Move> {
        let wanted = request.meta().and_then(|meta| meta.get(META_LOG_LEVEL)).cloned();
        let logs = self.offers("logging", None);
        if wanted.is_none() || wanted == self.level || !logs {
            return Vec::new();
        }
        self.level.clone_from(&wanted);
        let params = json!({ "level": wanted });
        let own = RpcRequest::new(request.id.clone(), "logging/setLevel", params.clone());
        let id = self.enter(&own, (Waits::Nobody, None));
        let level = RpcRequest::new(id, "logging/setLevel", params);
        vec![Move::ToServer(Message::Request(level))]
    }

    fn offers(&self, what: &str, detail: Option<&str>) -> bool {
        let found = self.server.get("capabilities").and_then(|able| able.get(what));
        match detail {
            None => found.is_some_and(Value::is_object),
            Some(detail) => found.and_then(|found| found.get(detail)) == Some(&Value::Bool(true)),
        }
    }

    // What the server asks.

    fn asked(&mut self, request: RpcRequest) -> Vec<Move> {
        if request.method == "ping" {
            let pong = RpcResponse::result_value(request.id, &json!({}));
            return vec![Move::ToServer(Message::Response(pong))];
        }
        if !asks::is_question(&request.method) {
            return vec![error(
                &request.id,
                Reason::MethodUnknown,
                "the client serves no such request",
            )];
        }
        let running = |call: &&mut Call| governed::is_governed(&call.method);
        let waiting = |call: &&mut Call| matches!(call.waits, Waits::Agent(_));
        let mut calls: Vec<_> = self.calls.values_mut().filter(running).collect();
        // Which call a question belongs to cannot be known where several run: they are all of one
        // agent, and the newest is the likeliest.
        calls.sort_by_key(|call| (waiting(call), call.number));
        let newest = calls.pop().filter(|call| !matches!(call.waits, Waits::Nobody));
        let Some(call) = newest else {
            let text = "no call is running that the client could be asked about";
            return vec![error(&request.id, Reason::QuestionUnanswered, text)];
        };
        if !words::can_answer(&call.capabilities, &request.method, request.params.as_ref()) {
            let text = format!("the client did not declare what `{}` needs", request.method);
            return vec![error(&request.id, Reason::CapabilityMissing, &text)];
        }
        if matches!(call.waits, Waits::Parked(_)) {
            if call.queued.len() >= QUEUED_MAX {
                return vec![error(&request.id, Reason::Overloaded, "too many questions wait")];
            }
            call.queued.push(request);
            return Vec::new();
        }
        let number = call.number;
        self.park(number, vec![request])
    }

    /// Lets a call wait for its agent, who is told what the server asks.
    fn park(&mut self, number: u64, questions: Vec<RpcRequest>) -> Vec<Move> {
        let mut moves = self.make_room();
        let Some(call) = self.calls.get_mut(&own_id(number)) else { return moves };
        let Waits::Agent(agent) = &call.waits else { return moves };
        let agent = agent.clone();
        call.round += 1;
        let until_ms = now_ms().saturating_add(millis(PARKED_FOR));
        let parking = Parking { call: number, round: call.round, until_ms };
        let Some(state) = parking.seal(call.binding) else {
            let text = "no state can be sealed";
            let refused = |asked: &RpcRequest| error(&asked.id, Reason::CouldNotDecide, text);
            moves.extend(questions.iter().map(refused));
            return moves;
        };
        let mut asked = Map::new();
        let mut keyed = BTreeMap::new();
        for (at, question) in questions.into_iter().enumerate() {
            let key = format!("{}-{at}", call.round);
            let params = question.params.clone().unwrap_or_else(|| json!({}));
            asked.insert(key.clone(), json!({ "method": question.method, "params": params }));
            keyed.insert(key, question);
        }
        let until = Instant::now() + PARKED_FOR;
        call.waits = Waits::Parked(Parked { until, questions: keyed, landed: None });
        let mut result = Map::new();
        result.insert("resultType".into(), era::RESULT_INPUT_REQUIRED.into());
        result.insert("inputRequests".into(), Value::Object(asked));
        result.insert("requestState".into(), state.into());
        let result = era::result_for(era::Era::Modern, result, &Identity::holdpoint());
        moves.push(answered(RpcResponse::result_value(agent, &result)));
        moves.push(Move::Watch(number, call.round, PARKED_FOR));
        moves
    }

    /// Ends the oldest parked call if there is no place for another one.
    fn make_room(&mut self) -> Vec<Move> {
        let parked = self.calls.values().filter_map(|call| match &call.waits {
            Waits::Parked(parked) => Some((parked.until, call.number, call.round)),
            Waits::Agent(_) | Waits::Listen(_) | Waits::Nobody => None,
        });
        let parked: Vec<_> = parked.collect();
        match parked.iter().min() {
            Some((_, number, round)) if parked.len() >= PARKED_MAX => self.expired(*number, *round),
            Some(_) | None => Vec::new(),
        }
    }

    /// The agent comes back to a parked call.
    fn come_back(&mut self, request: &RpcRequest) -> Vec<Move> {
        let refuse = |text: &str| vec![refusal(&request.id, Reason::RequestStateRefused, text)];
        let binding = self.binding(request);
        let state = request.param("requestState").and_then(Value::as_str).unwrap_or_default();
        let Some(parking) = Parking::open(state, binding) else {
            return refuse("the state is not one that this agent was given for this request");
        };
        if parking.until_ms <= now_ms() {
            return refuse("the state is too old");
        }
        let id = own_id(parking.call);
        let call = self.calls.get_mut(&id).filter(|call| call.round == parking.round);
        let Some(call) = call else { return refuse("the call does not wait any more") };
        let Waits::Parked(parked) = &mut call.waits else {
            return refuse("the state was used before");
        };
        let replies = request.param("inputResponses").and_then(Value::as_object);
        let mut moves = Vec::new();
        let mut left = Vec::new();
        for (key, question) in std::mem::take(&mut parked.questions) {
            match replies.and_then(|replies| replies.get(&key)).filter(|reply| reply.is_object()) {
                Some(reply) => {
                    let reply = RpcResponse::result_value(question.id, reply);
                    moves.push(Move::ToServer(Message::Response(reply)));
                }
                None => left.push(question),
            }
        }
        let landed = parked.landed.take();
        left.append(&mut call.queued);
        call.waits = Waits::Agent(request.id.clone());
        call.progress.1 = request.meta().and_then(|meta| meta.get(META_PROGRESS)).cloned();
        call.capabilities = words::capabilities(request);
        match landed {
            Some(outcome) => {
                let outcome = words::for_modern(&call.method, outcome);
                self.calls.remove(&id);
                moves.push(answered(RpcResponse { id: Some(request.id.clone()), outcome }));
            }
            // What the agent did not answer is asked again.
            None if !left.is_empty() => moves.extend(self.park(parking.call, left)),
            None => {}
        }
        moves
    }

    // What the server answers and tells.

    fn landed(&mut self, response: RpcResponse) -> Option<Vec<Move>> {
        let id = response.id.as_ref()?;
        let Some(call) = self.calls.get_mut(id) else { return is_own(id).then(Vec::new) };
        let outcome = response.outcome;
        if let Waits::Parked(parked) = &mut call.waits {
            // It ended by itself, or by a stop; the agent hears of it when it comes back.
            parked.landed = Some(outcome);
            return Some(Vec::new());
        }
        let call = self.calls.remove(id)?;
        Some(match call.waits {
            Waits::Agent(agent) => {
                let outcome = words::for_modern(&call.method, outcome);
                vec![answered(RpcResponse { id: Some(agent), outcome })]
            }
            Waits::Listen(listen) => self.subscribed(&listen, id, outcome),
            Waits::Nobody | Waits::Parked(_) => Vec::new(),
        })
    }

    fn told(&mut self, mut note: RpcNotification) -> Option<Vec<Move>> {
        match note.method.as_str() {
            "notifications/progress" => {
                let token = note.params.as_ref()?.get(META_PROGRESS)?.clone();
                let known = |call: &&Call| call.progress.0.as_ref() == Some(&token);
                let call = self.calls.values().find(known)?;
                let Some(now) = &call.progress.1 else { return Some(Vec::new()) };
                note.params.as_mut()?.as_object_mut()?.insert(META_PROGRESS.into(), now.clone());
                Some(vec![tell(&note)])
            }
            // The server takes a question back; its agent may come back all the same.
            "notifications/cancelled" => Some(Vec::new()),
            "notifications/tools/list_changed" => Some(self.publish(&note, "toolsListChanged")),
            "notifications/prompts/list_changed" => Some(self.publish(&note, "promptsListChanged")),
            "notifications/resources/list_changed" => {
                Some(self.publish(&note, "resourcesListChanged"))
            }
            "notifications/resources/updated" => Some(self.publish(&note, "resourceSubscriptions")),
            _ => None,
        }
    }

    fn cancelled(&mut self, note: &RpcNotification) -> Vec<Move> {
        let id = note.params.as_ref().and_then(|params| params.get("requestId"));
        let Some(id) = id.and_then(RpcId::from_value) else { return Vec::new() };
        if let Some(listen) = self.listens.remove(&id) {
            let uris = listen.uris.into_iter();
            return uris.map(|uri| self.unsubscribe(&uri)).collect();
        }
        let waits = |call: &Call| matches!(&call.waits, Waits::Agent(agent) if *agent == id);
        let found = self.calls.iter().find(|(_, call)| waits(call));
        let Some((own, call)) = found.map(|(own, call)| (own.clone(), call)) else {
            return Vec::new();
        };
        if !answered_anyway(&call.method) {
            // The server need not answer it; what it answers all the same reaches nobody.
            self.calls.remove(&own);
        }
        vec![cancel(&own, "the agent cancelled the request")]
    }

    // Subscriptions.

    fn listen(&mut self, request: &RpcRequest) -> Vec<Move> {
        let filter = request.param("notifications").and_then(Value::as_object);
        let Some(filter) = filter.filter(|_| self.listens.len() < QUEUED_MAX) else {
            let text = "`notifications` must be an object, and subscriptions few";
            return vec![refusal(&request.id, Reason::ParametersInvalid, text)];
        };
        let mut honoured = Map::new();
        for (name, what) in [
            ("toolsListChanged", "tools"),
            ("promptsListChanged", "prompts"),
            ("resourcesListChanged", "resources"),
        ] {
            if filter.get(name) == Some(&Value::Bool(true))
                && self.offers(what, Some("listChanged"))
            {
                honoured.insert(name.into(), true.into());
            }
        }
        let uris = filter.get("resourceSubscriptions").and_then(Value::as_array);
        let uris = uris.filter(|_| self.offers("resources", Some("subscribe")));
        let uris = uris.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
        let uris: Vec<_> = uris.take(CALLS_MAX.saturating_sub(self.calls.len())).collect();
        if !uris.is_empty() {
            honoured.insert("resourceSubscriptions".into(), json!(uris));
        }
        let (mut moves, mut open) = (Vec::new(), BTreeSet::new());
        for uri in &uris {
            let params = json!({ "uri": uri });
            let own = RpcRequest::new(request.id.clone(), "resources/subscribe", params.clone());
            let id = self.enter(&own, (Waits::Listen(request.id.clone()), None));
            open.insert(id.clone());
            let subscribe = RpcRequest::new(id, "resources/subscribe", params);
            moves.push(Move::ToServer(Message::Request(subscribe)));
        }
        let listen = Listen { honoured, uris, open };
        if listen.open.is_empty() {
            moves.push(acknowledge(&request.id, &listen));
        }
        self.listens.insert(request.id.clone(), listen);
        moves
    }

    fn subscribed(&mut self, listen: &RpcId, id: &RpcId, outcome: Outcome) -> Vec<Move> {
        let Some(found) = self.listens.get_mut(listen) else { return Vec::new() };
        match outcome {
            Outcome::Result(_) => {
                found.open.remove(id);
                match found.open.is_empty() {
                    true => vec![acknowledge(listen, found)],
                    false => Vec::new(),
                }
            }
            Outcome::Error(raw) => {
                self.listens.remove(listen);
                let outcome = Outcome::Error(raw);
                vec![answered(RpcResponse { id: Some(listen.clone()), outcome })]
            }
        }
    }

    fn unsubscribe(&mut self, uri: &str) -> Move {
        let params = json!({ "uri": uri });
        let own = RpcRequest::new(RpcId::Number(0), "resources/unsubscribe", params.clone());
        let id = self.enter(&own, (Waits::Nobody, None));
        Move::ToServer(Message::Request(RpcRequest::new(id, "resources/unsubscribe", params)))
    }

    /// A change, to every subscription that wants to hear of it.
    fn publish(&self, note: &RpcNotification, what: &str) -> Vec<Move> {
        let uri = note.params.as_ref().and_then(|params| params.get("uri")?.as_str());
        let wants = |listen: &Listen| match (what, uri) {
            ("resourceSubscriptions", Some(uri)) => listen.uris.iter().any(|one| one == uri),
            _ => listen.honoured.contains_key(what),
        };
        let listens = self.listens.iter().filter(|(_, listen)| listen.open.is_empty());
        let wanting = listens.filter(|(_, listen)| wants(listen));
        wanting.map(|(id, _)| tell(&subscribed(note.clone(), id))).collect()
    }
}

fn subscribed(mut note: RpcNotification, listen: &RpcId) -> RpcNotification {
    let params = note.params.get_or_insert_with(|| json!({}));
    if let Some(params) = params.as_object_mut() {
        let meta = params.entry("_meta").or_insert_with(|| json!({}));
        if let Some(meta) = meta.as_object_mut() {
            meta.insert(META_SUBSCRIPTION.into(), listen.to_value());
        }
    }
    note
}

fn acknowledge(id: &RpcId, listen: &Listen) -> Move {
    let params = json!({ "notifications": listen.honoured });
    let note = RpcNotification::new("notifications/subscriptions/acknowledged", params);
    tell(&subscribed(note, id))
}

fn answered(response: RpcResponse) -> Move {
    Move::ToAgent(response.to_bytes())
}

fn tell(note: &RpcNotification) -> Move {
    Move::ToAgent(note.to_bytes())
}

fn cancel(id: &RpcId, why: &str) -> Move {
    Move::ToServer(Message::Notification(RpcNotification::cancelled(id, why)))
}

/// A request of the agent that goes no further.
fn refusal(id: &RpcId, reason: Reason, text: &str) -> Move {
    let data = refused_data(reason, text);
    answered(RpcResponse::error(Some(id.clone()), era::INVALID_PARAMS, text, data))
}

/// A question of the server that goes no further.
fn error(id: &RpcId, reason: Reason, text: &str) -> Move {
    let code = match reason {
        Reason::CapabilityMissing | Reason::MethodUnknown => era::METHOD_NOT_FOUND,
        _ => era::INTERNAL_ERROR,
    };
    let refused = RpcResponse::error(Some(id.clone()), code, text, refused_data(reason, text));
    Move::ToServer(Message::Response(refused))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(millis).unwrap_or(u64::MAX)
}

/// True if `request` comes back from what its server asked.
fn comes_back(request: &RpcRequest) -> bool {
    request.param("requestState").is_some() && !held::is_ours(request)
}
