//! An agent of one era and a server of the other on one line.
//!
//! Owns which way a line goes, and the handshake that the agent's era does not have. Whatever goes
//! to the server goes the way of the agent's own messages: it is governed there. Must never touch a
//! message between peers of one era.

mod state;
mod to_legacy;
mod to_modern;
mod words;

use super::{Between, failed, id_refused};
use crate::doors::asks;
use holdpoint_resources::mcp::era::{self, Era, META_PROTOCOL_VERSION};
use holdpoint_resources::mcp::{
    Message, Outcome, RpcId, RpcNotification, RpcRequest, RpcResponse, governed,
};
use holdpoint_types::{AgentName, Reason, ServerName};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use to_legacy::ToLegacy;
use to_modern::ToModern;

/// What the ids of our own requests start with; an agent's request may not use such an id.
const OWN_PREFIX: &str = "holdpoint-era-";
/// How long a server may take to tell that it is modern.
const PROBE_PATIENCE: Duration = Duration::from_secs(3);
/// Most messages of an agent that wait for a handshake.
const HELD_MAX: usize = 64;

/// Which way one line goes. A cheap handle.
#[derive(Clone)]
pub(super) struct Eras {
    whose: Arc<(AgentName, ServerName)>,
    way: Arc<Mutex<Way>>,
}

enum Way {
    /// Nothing was said yet; the server's era, if that is known.
    Unknown(Option<Era>),
    /// The agent's opening is with the server, whose answer will tell.
    Probing(RpcRequest),
    /// We shake hands; what the agent says meanwhile waits.
    Opening(VecDeque<Message>),
    /// Both are of one era.
    Same,
    ToLegacy(Box<ToLegacy>),
    ToModern(Box<ToModern>),
}

/// Something to do.
pub(super) enum Move {
    /// Send it to the server, governed as everything.
    ToServer(Message),
    /// Tell the agent.
    ToAgent(Vec<u8>),
    /// Take it as if the agent said it now.
    Hear(Message),
    /// Shake hands with the server.
    Open(Opening),
    /// Look after a parked call when its time is over.
    Watch(u64, u64, Duration),
}

/// A handshake to make.
pub(super) enum Opening {
    /// The agent is modern, and the server is legacy, or may be.
    Older(RpcRequest, Option<Era>),
    /// The agent is legacy, and the server refused its `initialize` so.
    Newer(RpcRequest, Vec<u8>),
}

// === impl Eras ===

impl Eras {
    pub(super) fn new(agent: AgentName, server: ServerName, known: Option<Era>) -> Self {
        let way = Arc::new(Mutex::new(Way::Unknown(known)));
        Self { whose: Arc::new((agent, server)), way }
    }

    /// What to do about a message of the agent; `None` to pass it on as it is.
    pub(super) fn heard(&self, message: &Message) -> Option<Vec<Move>> {
        let mut way = self.way.lock();
        match &mut *way {
            Way::Same => None,
            Way::Unknown(known) => {
                let Message::Request(request) = message else {
                    *way = Way::Same;
                    return None;
                };
                let (next, moves) = begin(request, *known);
                *way = next;
                moves
            }
            Way::Probing(_) => None,
            Way::Opening(held) if held.len() < HELD_MAX => {
                held.push_back(message.clone());
                Some(Vec::new())
            }
            Way::Opening(_) => Some(refused(message)),
            Way::ToLegacy(bridge) => bridge.heard(message),
            Way::ToModern(bridge) => bridge.heard(message),
        }
    }

    /// What to do about a line for the agent; `None` to pass it on as it is.
    pub(super) fn said(&self, line: &[u8]) -> Option<Vec<Move>> {
        let mut way = self.way.lock();
        match &mut *way {
            Way::Same | Way::Unknown(_) | Way::Opening(_) => None,
            Way::Probing(opening) => {
                let opening = opening.clone();
                let (next, moves) = probed(opening, line)?;
                *way = next;
                moves
            }
            Way::ToLegacy(bridge) => bridge.said(read(line)?),
            Way::ToModern(bridge) => bridge.said(read(line)?),
        }
    }

    /// The time of a parked call is over.
    fn expired(&self, call: u64, round: u64) -> Vec<Move> {
        match &mut *self.way.lock() {
            Way::ToLegacy(bridge) => bridge.expired(call, round),
            _ => Vec::new(),
        }
    }

    /// Goes on in a new way; gives what waited for it.
    fn go(&self, next: Way) -> VecDeque<Message> {
        match std::mem::replace(&mut *self.way.lock(), next) {
            Way::Opening(held) => held,
            _ => VecDeque::new(),
        }
    }
}

// === impl Between ===

impl Between {
    /// Does what is to be done, and what follows from it.
    pub(super) async fn make(&self, moves: Vec<Move>) {
        let mut moves = VecDeque::from(moves);
        while let Some(next) = moves.pop_front() {
            match next {
                Move::ToServer(message) => {
                    let line = message.to_bytes();
                    self.forward(message, &line).await;
                }
                Move::ToAgent(line) => self.put(line).await,
                Move::Hear(message) => match self.eras.heard(&message) {
                    Some(more) => moves.extend(more),
                    None => {
                        let line = message.to_bytes();
                        self.forward(message, &line).await;
                    }
                },
                Move::Open(opening) => {
                    let door = self.clone();
                    self.tasks.spawn(async move { door.open(opening).await });
                }
                Move::Watch(call, round, patience) => {
                    let (eras, inbox) = (self.eras.clone(), self.inbox.downgrade());
                    tokio::spawn(async move {
                        tokio::time::sleep(patience).await;
                        let Some(inbox) = inbox.upgrade() else { return };
                        for next in eras.expired(call, round) {
                            let _ = inbox.send(next).await;
                        }
                    });
                }
            }
        }
    }

    async fn open(&self, opening: Opening) {
        let held = match opening {
            Opening::Older(request, known) => self.open_older(request, known).await,
            Opening::Newer(request, refusal) => self.open_newer(&request, refusal).await,
        };
        for message in held {
            let _ = self.inbox.send(Move::Hear(message)).await;
        }
    }

    async fn open_older(&self, request: RpcRequest, known: Option<Era>) -> VecDeque<Message> {
        let capabilities = words::capabilities(&request);
        if known.is_none() {
            let params = words::modern_params(Map::new(), (&capabilities, None, None));
            let asked = self.ask("server/discover", params);
            let found = tokio::time::timeout(PROBE_PATIENCE, asked).await;
            if let Ok(Ok(Outcome::Result(raw))) = found
                && words::is_modern(&raw)
            {
                return self.eras.go(Way::Same);
            }
        }
        match self.initialize(&request).await {
            // A modern server that was slow to start.
            Ok(None) => self.eras.go(Way::Same),
            Ok(Some(server)) => {
                let whose = (self.eras.whose.0.clone(), self.eras.whose.1.clone());
                self.eras.go(Way::ToLegacy(Box::new(ToLegacy::new(whose, server))))
            }
            Err(why) => {
                tracing::warn!(why, "the server shakes no hands");
                for message in self.eras.go(Way::Unknown(known)) {
                    if let Message::Request(request) = message {
                        let reason = Reason::UpstreamUnavailable;
                        self.put(failed(request.id, reason, &why).to_bytes()).await;
                    }
                }
                VecDeque::new()
            }
        }
    }

    /// Shakes hands with a legacy server for a modern agent; `None` if it says that it is modern.
    async fn initialize(&self, request: &RpcRequest) -> Result<Option<Map<String, Value>>, String> {
        let params = words::initialize_params(request);
        let mut opening = RpcRequest::new(RpcId::Number(0), "initialize", params);
        asks::withhold(&self.governor.settings(), &self.wrap.server, &mut opening);
        let params = opening.params.unwrap_or_default();
        let raw = match self.ask("initialize", params).await? {
            Outcome::Result(raw) => raw,
            Outcome::Error(raw) if words::code(&raw).is_some_and(era::is_modern_error) => {
                return Ok(None);
            }
            Outcome::Error(raw) => return Err(format!("`initialize`: {:.512}", raw.get())),
        };
        let server = serde_json::from_str(raw.get()).map_err(|fault| fault.to_string())?;
        let done = RpcNotification { method: "notifications/initialized".to_owned(), params: None };
        let done = Message::Notification(done);
        self.server.send_ungoverned(&done).await.map_err(|fault| fault.to_string())?;
        Ok(Some(server))
    }

    async fn open_newer(&self, request: &RpcRequest, refusal: Vec<u8>) -> VecDeque<Message> {
        let capabilities = request.param("capabilities").cloned();
        let capabilities = capabilities.unwrap_or_else(|| Value::Object(Map::new()));
        let client = request.param("clientInfo").cloned();
        let params = words::modern_params(Map::new(), (&capabilities, client.as_ref(), None));
        let found = tokio::time::timeout(PROBE_PATIENCE, self.ask("server/discover", params)).await;
        let Ok(Ok(Outcome::Result(raw))) = found else {
            let held = self.eras.go(Way::Same);
            self.put(refusal).await;
            return held;
        };
        let found = serde_json::from_str::<Map<String, Value>>(raw.get());
        let (Ok(server), true) = (found, words::is_modern(&raw)) else {
            let held = self.eras.go(Way::Same);
            self.put(refusal).await;
            return held;
        };
        let result = words::initialize_result(request, &server);
        let bridge = ToModern::new((capabilities, client), server);
        let held = self.eras.go(Way::ToModern(Box::new(bridge)));
        self.put(RpcResponse::result_value(request.id.clone(), &result).to_bytes()).await;
        held
    }

    /// Does later what a line for the agent wants done: whoever speaks for the server waits for
    /// nothing.
    pub(super) fn follow_up(&self, next: Move) {
        if self.inbox.try_send(next).is_err() {
            tracing::error!("too much waits between two eras: dropped");
        }
    }
}

/// The first request of an agent.
fn begin(request: &RpcRequest, known: Option<Era>) -> (Way, Option<Vec<Move>>) {
    let modern = request.meta().is_some_and(|meta| meta.contains_key(META_PROTOCOL_VERSION));
    let discovers = request.method == "server/discover";
    match (modern, known) {
        (true, Some(Era::Modern)) => (Way::Same, None),
        (true, None) if discovers => (Way::Probing(request.clone()), None),
        (true, known) => {
            let held = VecDeque::from([Message::Request(request.clone())]);
            let open = Move::Open(Opening::Older(request.clone(), known));
            (Way::Opening(held), Some(vec![open]))
        }
        (false, _) if request.method == "initialize" => (Way::Probing(request.clone()), None),
        (false, _) => (Way::Same, None),
    }
}

/// A line for the agent while its opening is with the server; `None` if it does not tell.
fn probed(opening: RpcRequest, line: &[u8]) -> Option<(Way, Option<Vec<Move>>)> {
    let Message::Response(response) = read(line)? else { return None };
    if response.id.as_ref() != Some(&opening.id) {
        return None;
    }
    let Outcome::Error(raw) = &response.outcome else { return Some((Way::Same, None)) };
    if opening.method == "initialize" {
        let open = Move::Open(Opening::Newer(opening, line.to_vec()));
        return Some((Way::Opening(VecDeque::new()), Some(vec![open])));
    }
    if words::code(raw).is_some_and(era::is_modern_error) {
        return Some((Way::Same, None));
    }
    let held = VecDeque::from([Message::Request(opening.clone())]);
    let open = Move::Open(Opening::Older(opening, Some(Era::Legacy)));
    Some((Way::Opening(held), Some(vec![open])))
}

fn refused(message: &Message) -> Vec<Move> {
    let Message::Request(request) = message else { return Vec::new() };
    let refused = failed(request.id.clone(), Reason::Overloaded, "too much waits for the server");
    vec![Move::ToAgent(refused.to_bytes())]
}

/// The refusal of an id that is one of ours.
fn reserved(request: &RpcRequest) -> Option<Vec<Move>> {
    let refused = || id_refused(request.id.clone(), "the id is reserved").to_bytes();
    is_own(&request.id).then(|| vec![Move::ToAgent(refused())])
}

fn is_own(id: &RpcId) -> bool {
    matches!(id, RpcId::Text(text) if text.starts_with(OWN_PREFIX))
}

/// True for what is answered here even after it was cancelled: by us, not by the server.
fn answered_anyway(method: &str) -> bool {
    governed::is_governed(method) || method == "tools/list"
}

fn own_id(number: u64) -> RpcId {
    RpcId::Text(format!("{OWN_PREFIX}{number}"))
}

fn read(line: &[u8]) -> Option<Message> {
    Message::from_upstream(line, usize::MAX).ok()
}

#[cfg(test)]
mod tests;
