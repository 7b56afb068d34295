//! The MCP door of `holdpoint wrap`: one agent, one stdio server, messages passed through.
//!
//! Owns the way between the agent's pipes and the server's. What is not governed passes unchanged;
//! `tools/list` is filtered and `tools/call` is governed. Must never pass a call on its own.

mod calls;
mod eras;
pub mod host;
mod lines;
mod listing;
mod plans;
mod questions;
mod reach;
mod resources;

use super::answer::{self, refused_data};
use super::held::{self, Client};
use super::{asks, reads, tasks};
use crate::governor::{Call, Governed, Governor, Reach};
use calls::{Begun, Calls, Whose};
use eras::{Eras, Move};
use holdpoint_control::Permit;
use holdpoint_resources::mcp::era::{self, Era, EraFault};
use holdpoint_resources::mcp::{
    Message, MessageFault, Outcome, RpcId, RpcNotification, RpcRequest, RpcResponse, governed,
    tasks as protocol,
};
use holdpoint_resources::{Passage, PassageReceiver, PassageSender, Received, SendFault};
use holdpoint_types::{AgentName, Door, JsonLimits, Reason, ServerName, StopScope, ToolRef};
use lines::{skip_line, write_lines};
use questions::Questions;
use serde_json::{Value, json};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The modern request that follows what changes.
const LISTEN: &str = "subscriptions/listen";
/// What may be asked while everything is stopped: it does nothing but tell who is there.
const KEEPING_IN_TOUCH: [&str; 7] = [
    "initialize",
    "ping",
    "server/discover",
    "tools/list",
    "resources/list",
    "resources/templates/list",
    "prompts/list",
];
/// How many messages may wait for a slow agent.
const QUEUE_MAX: usize = 256;
/// Most pages of a server's `tools/list`.
const PAGES_MAX: usize = 100;
/// Most refusals that wait for a server to read them.
const REFUSALS_MAX: usize = 64;
/// How long the requests of a thread that ended may take to be answered.
pub(super) const LANDING: Duration = Duration::from_secs(8);
/// What an agent is told that uses an id twice.
const IN_FLIGHT: &str = "a request with this id is in flight, or too many are";

/// What a wrap governs.
#[derive(Clone, Debug)]
pub struct Wrap {
    /// The agent behind the pipes.
    pub agent: AgentName,
    /// The name of the wrapped server.
    pub server: ServerName,
    /// How much JSON is accepted.
    pub json: JsonLimits,
    /// How long one call may take.
    pub timeout: Duration,
    /// How long a cancelled call may take to end before the server is killed.
    pub grace: Duration,
}

/// How a wrap ended.
#[derive(Debug, PartialEq, Eq)]
pub enum WrapEnd {
    /// The agent closed its side.
    AgentLeft,
    /// The server ended by itself; its last words, if it had any.
    ServerEnded(String),
}

#[derive(Clone)]
struct Between {
    governor: Governor,
    wrap: Arc<Wrap>,
    server: PassageSender,
    agent: mpsc::Sender<Vec<u8>>,
    calls: Calls,
    questions: Questions,
    /// The requests that are being answered here.
    tasks: TaskTracker,
    /// Fired when a stop wants the server dead.
    kill: CancellationToken,
    /// Refusals on their way to the server.
    refusals: TaskTracker,
    /// What records call the way that the messages came.
    wrap_door: Door,
    /// What becomes of the agent's side once a stop has killed the server.
    after_kill: AfterKill,
    /// Which eras the two speak.
    eras: Eras,
    /// What is still to be done between the eras.
    inbox: mpsc::Sender<Move>,
}

/// How a door uses a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Use {
    /// What records call the way that the messages came.
    pub(super) door: Door,
    /// What becomes of the agent's side once a stop has killed the server.
    pub(super) after_kill: AfterKill,
    /// The server's era, if it is known.
    pub(super) server_era: Option<Era>,
}

/// What becomes of the agent's side once a stop has killed the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterKill {
    /// It stays, and is told that it was stopped.
    Stay,
    /// It ends: the agent may begin anew.
    End,
}

/// Runs a wrap until either side ends. The server's whole process tree is gone afterwards.
///
/// # Errors
/// When the agent's pipes fail.
pub async fn run(
    governor: Governor,
    wrap: Wrap,
    passage: (PassageSender, PassageReceiver),
    from_agent: impl AsyncBufRead + Unpin,
    to_agent: impl AsyncWrite + Unpin + Send + 'static,
) -> io::Result<WrapEnd> {
    let as_what = Use { door: Door::McpStdio, after_kill: AfterKill::Stay, server_era: None };
    run_as(as_what, (governor, wrap), passage, from_agent, to_agent).await
}

/// The same for any door that has lines to and from one agent.
pub(super) async fn run_as(
    Use { door: wrap_door, after_kill, server_era }: Use,
    (governor, wrap): (Governor, Wrap),
    (server, mut child): (PassageSender, PassageReceiver),
    from_agent: impl AsyncBufRead + Unpin,
    to_agent: impl AsyncWrite + Unpin + Send + 'static,
) -> io::Result<WrapEnd> {
    let grace = wrap.grace;
    let (agent, lines) = mpsc::channel(QUEUE_MAX);
    let writer = tokio::spawn(write_lines(lines, to_agent));
    let (inbox, mut moves) = mpsc::channel(QUEUE_MAX);
    let door = Between {
        governor,
        eras: Eras::new(wrap.agent.clone(), wrap.server.clone(), server_era),
        inbox,
        wrap: Arc::new(wrap),
        server,
        agent,
        calls: Calls::default(),
        questions: Questions::default(),
        tasks: TaskTracker::new(),
        kill: CancellationToken::new(),
        refusals: TaskTracker::new(),
        wrap_door,
        after_kill,
    };
    let way: Arc<dyn Reach> = Arc::new(door.clone());
    if after_kill == AfterKill::Stay {
        door.governor.reach_by(Arc::downgrade(&way));
    }
    let end = {
        // Whatever follows between the eras is done beside what the server says.
        let mut server = pin!(async {
            tokio::select! {
                end = door.read_server(&mut child) => end,
                () = door.keep_making(&mut moves) => std::future::pending().await,
            }
        });
        tokio::select! {
            read = door.read_agent(from_agent) => {
                // What was asked before the end of input is still answered, as without a wrap.
                let patience = match after_kill {
                    AfterKill::Stay => grace,
                    AfterKill::End => grace.max(LANDING),
                };
                let landed = tokio::time::timeout(patience, door.landed());
                tokio::select! {
                    _ = landed => {}
                    _ = &mut server => {}
                }
                read.map(|()| WrapEnd::AgentLeft)
            }
            end = &mut server => Ok(end),
        }
    };
    // An agent that reads nothing is not waited for.
    let _ = tokio::time::timeout(grace, door.fail_all()).await;
    door.questions.unanswered(&door.governor);
    drop((door, way));
    child.close(grace).await;
    // The agent may be gone already; whatever still waits for it is lost with it.
    let _ = tokio::time::timeout(grace, writer).await;
    end
}

// === impl Between ===

impl Between {
    async fn read_agent(&self, mut from: impl AsyncBufRead + Unpin) -> io::Result<()> {
        let bytes_max = self.wrap.json.bytes_max;
        let mut line = Vec::new();
        loop {
            line.clear();
            let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
            let read = (&mut from).take(limit).read_until(b'\n', &mut line).await?;
            if read == 0 {
                return Ok(());
            }
            let whole = line.last() == Some(&b'\n');
            if !whole && line.len() > bytes_max {
                skip_line(&mut from).await?;
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            self.take(&line).await;
        }
    }

    async fn take(&self, line: &[u8]) {
        let message = match Message::from_agent(line.trim_ascii_end(), self.wrap.json) {
            Ok(message) => message,
            Err(fault) => {
                let (text, reason) = (fault.to_string(), fault.reason());
                let data = refused_data(reason, &text);
                let id = fault.id().cloned();
                return self.send(&RpcResponse::error(id, fault.code(), &text, data)).await;
            }
        };
        match self.eras.heard(&message) {
            Some(moves) => self.make(moves).await,
            None => self.forward(message, line.trim_ascii()).await,
        }
    }

    /// Passes a message on to the server, or governs it.
    async fn forward(&self, mut message: Message, line: &[u8]) {
        let withheld = match &mut message {
            Message::Request(request) => {
                let settings = self.governor.settings();
                asks::withhold(&settings, &self.wrap.server, request) | tasks::withhold(request)
            }
            Message::Notification(_) | Message::Response(_) => false,
        };
        if let Message::Request(request) = &message
            && let Some(response) = self.hidden(request)
        {
            return self.send(&response).await;
        }
        match message {
            Message::Notification(note) if protocol::is_notification(&note.method) => {
                tracing::debug!(method = %note.method, "about a task that nobody has: dropped");
            }
            Message::Request(request) if Passage::reserves(&request.id) => {
                self.send(&id_refused(request.id, "the id is reserved")).await;
            }
            Message::Request(request) if let Some(refusal) = tasks::refusal(&request) => {
                self.send(&refusal).await;
            }
            Message::Request(request) if governed::is_governed(&request.method) => {
                self.call(request);
            }
            Message::Request(request) if request.method == "tools/list" => self.list(request),
            Message::Request(request)
                if request.method == LISTEN && !reads::subscriptions(&request).is_empty() =>
            {
                self.subscribe(request);
            }
            Message::Request(request) if self.is_stopped_for(&request.method) => {
                let detail = "an operator stopped this agent or this server";
                self.send(&failed(request.id, Reason::Stopped, detail)).await;
            }
            Message::Request(request) if !self.calls.begin_passing(&request) => {
                self.send(&id_refused(request.id, IN_FLIGHT)).await;
            }
            Message::Notification(note)
                if note.method == "notifications/cancelled" && self.cancelled(&note) => {}
            message => {
                if let Message::Response(RpcResponse { id: Some(id), outcome }) = &message {
                    self.questions.replied(&self.governor, id, outcome);
                }
                let sent = match withheld {
                    true => self.server.send_ungoverned(&message).await,
                    false => self.server.send_line(&message, line).await,
                };
                if let Err(fault) = sent {
                    self.unsent(&message, &fault).await;
                }
            }
        }
    }

    /// True if a stop covers everything here, and `method` is more than keeping in touch.
    fn is_stopped_for(&self, method: &str) -> bool {
        !KEEPING_IN_TOUCH.contains(&method)
            && self.governor.stops().iter().any(|stop| match &stop.scope {
                StopScope::All => true,
                StopScope::Agent(agent) => *agent == self.wrap.agent,
                StopScope::Server(server) => *server == self.wrap.server,
                StopScope::Tool(_) => false,
            })
    }

    /// Waits until every request has its answer.
    async fn landed(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.calls.landed().await;
    }

    /// Gives up on the server, and tells the agent what will not be answered any more.
    async fn fail_all(&self) {
        for id in self.calls.fail_all() {
            self.send(&failed(id, Reason::UpstreamUnavailable, "the server ended")).await;
        }
    }

    /// True if the notification was about a governed call, which the governor then ends.
    fn cancelled(&self, note: &RpcNotification) -> bool {
        let id = note.params.as_ref().and_then(|params| params.get("requestId"));
        let Some(id) = id.and_then(RpcId::from_value) else { return false };
        let governed = self.calls.cancel(&id);
        // Who cancels wants no answer, and a server need not give one.
        if !governed {
            self.calls.whose(&id);
        }
        governed
    }

    /// Lets a governed call run beside the others.
    fn call(&self, mut request: RpcRequest) {
        held::strip(&mut request);
        let (id, door) = (request.id.clone(), self.clone());
        // In flight from here on: a cancellation may come right behind it.
        let begun = self.calls.begin(&id);
        self.tasks.spawn(async move {
            let response = match begun {
                None => id_refused(id, IN_FLIGHT),
                Some(begun) => {
                    let response = door.answer_call(request, begun).await;
                    door.calls.end(&id);
                    response
                }
            };
            door.send(&response).await;
        });
    }

    async fn answer_call(&self, request: RpcRequest, (answer, asked): Begun) -> RpcResponse {
        let id = request.id.clone();
        let era = match era::era_of(&request) {
            Ok(era) => era,
            Err(fault) => return revision_refused(&request, &fault),
        };
        if self.is_about_plans(&request) {
            return self.answer_about_plans(&request, era).await;
        }
        if let Some(call) = self.proposed(&request) {
            let governed = self.govern(call, request, (answer, asked)).await;
            return RpcResponse { id: Some(id), outcome: answer::read_outcome(governed) };
        }
        let (tool, parameters) = match self.read_call(&request) {
            Ok(call) => call,
            Err(refused) => return *refused,
        };
        if self.governor.catalog().tool(&tool).is_none() || self.calls.tools_changed() {
            self.look(era).await;
        }
        let client = Client::of(era, &request);
        let (meta, agent) = (request.param("_meta").cloned(), self.wrap.agent.clone());
        let call = Call { agent, door: self.wrap_door, tool, parameters, meta, condition: None };
        let outcome = answer::outcome(self.govern(call, request, (answer, asked)).await, client);
        RpcResponse { id: Some(id), outcome }
    }

    /// Decides on a call and lets the server run it.
    async fn govern(&self, call: Call, request: RpcRequest, (answer, asked): Begun) -> Governed {
        let whose = (&self.wrap.server, &self.wrap.agent);
        asks::note_replies(&self.governor, whose, &request);
        let (door, tool) = (self.clone(), call.tool.clone());
        let mut answer = answer;
        let execute = async move |permit: Permit, cancels| {
            let now = door.governor.now();
            door.calls.note_action(&request.id, permit.action());
            let sending = door.server.send_call(permit, &tool, &request, now);
            match calls::send(&door, sending, (&mut answer, &cancels)).await {
                Ok(()) => calls::wait(&door, (&request.id, answer), cancels).await,
                Err(ended) => ended,
            }
        };
        let governed = self.governor.govern(call, asked, execute).await;
        asks::screen(&self.governor, whose, governed).await
    }

    fn read_call(&self, request: &RpcRequest) -> Result<(ToolRef, Value), Box<RpcResponse>> {
        let invalid = |reason, text: &str| {
            let data = refused_data(reason, text);
            let id = Some(request.id.clone());
            Box::new(RpcResponse::error(id, era::INVALID_PARAMS, text, data))
        };
        let name = request.param("name").and_then(Value::as_str);
        let name = name
            .ok_or_else(|| invalid(Reason::ParametersInvalid, "`params.name` must be a string"))?;
        let tool = ToolRef::new(self.wrap.server.clone(), name)
            .map_err(|fault| invalid(Reason::ToolUnknown, &fault.to_string()))?;
        if tool.is_read_request() {
            return Err(invalid(Reason::ToolUnknown, "this is a request, no tool"));
        }
        let parameters = request.param("arguments").cloned().unwrap_or_else(|| json!({}));
        if !parameters.is_object() {
            let text = "`params.arguments` must be an object";
            return Err(invalid(Reason::ParametersInvalid, text));
        }
        Ok((tool, parameters))
    }

    /// Asks the server something of our own.
    async fn ask(&self, method: &str, params: Value) -> Result<Outcome, String> {
        let number = self.server.inject(method, params).await.map_err(|fault| fault.to_string())?;
        let answer = self.calls.expect(number);
        let answered = tokio::time::timeout(self.wrap.timeout, answer).await;
        match answered {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(_)) => Err("the server gave no usable answer".to_owned()),
            Err(_) => Err("the server did not answer in time".to_owned()),
        }
    }

    async fn read_server(&self, child: &mut PassageReceiver) -> WrapEnd {
        loop {
            let received = tokio::select! {
                received = child.receive() => received,
                () = self.kill.cancelled() => {
                    child.kill_tree(self.wrap.grace).await;
                    self.fail_all().await;
                    if self.after_kill == AfterKill::End {
                        return WrapEnd::ServerEnded(child.last_words());
                    }
                    // The agent stays connected: it must be told that it was stopped.
                    return std::future::pending().await;
                }
            };
            match received {
                Received::Message { line, message } => self.pass(line.to_vec(), message).await,
                Received::Injected { request, outcome } => self.calls.found(request, outcome),
                Received::Invalid { line, fault } => self.blame(&line, &fault).await,
                Received::End => return WrapEnd::ServerEnded(child.last_words()),
            }
        }
    }

    async fn pass(&self, line: Vec<u8>, message: Message) {
        if let Message::Response(RpcResponse { id: Some(id), outcome }) = message {
            return match self.calls.whose(&id) {
                Whose::Governed => self.calls.answered(&id, Ok(outcome)),
                Whose::Passing => self.say(line).await,
                Whose::Opening => {
                    let response = RpcResponse { id: Some(id), outcome };
                    let changed = protocol::without_offer(&response);
                    self.say(changed.map_or(line, |response| response.to_bytes())).await;
                }
                Whose::Nobody => tracing::warn!(%id, "the server answers what nobody asked"),
            };
        }
        if let Message::Request(request) = &message
            && asks::is_question(&request.method)
            && let Err(why) = self.hear(request).await
        {
            return self.refuse(asks::refusal(request.id.clone(), (why.0, &why.1)));
        }
        if let Message::Request(request) = &message
            && let Some(refusal) = tasks::refusal(request)
        {
            return self.refuse(refusal);
        }
        if message.method().is_some_and(protocol::is_notification) {
            return tracing::debug!("the server tells of a task that nobody has: dropped");
        }
        if message.method() == Some("notifications/tools/list_changed") {
            self.calls.note_tools_changed();
        }
        self.say(line).await;
    }

    /// Tells the server that it may not ask that. Does not wait: a server that reads nothing while
    /// it asks must not hold up what it says.
    fn refuse(&self, refusal: RpcResponse) {
        if self.refusals.len() < REFUSALS_MAX {
            let server = self.server.clone();
            self.refusals.spawn(async move {
                let _ = server.send_ungoverned(&Message::Response(refusal)).await;
            });
        }
    }

    /// A line that is no message may have been an answer: who waits for it must not wait for ever.
    async fn blame(&self, line: &[u8], fault: &MessageFault) {
        tracing::warn!(%fault, "the server said something that is no message: dropped");
        let chatter = !line.is_empty() && !line.starts_with(b"{") && !line.starts_with(b"[");
        if chatter && std::str::from_utf8(line).is_ok() {
            // Some servers greet on their standard output; clients live with it, and so do we.
            return;
        }
        let text = fault.to_string();
        for id in self.calls.blame(fault.id(), &text) {
            self.send(&failed(id, Reason::UpstreamInvalid, &text)).await;
        }
    }

    async fn send(&self, response: &RpcResponse) {
        self.say(response.to_bytes()).await;
    }

    /// Tells the agent something, in its own era.
    async fn say(&self, line: Vec<u8>) {
        match self.eras.said(&line) {
            None => self.put(line).await,
            Some(moves) => {
                for next in moves {
                    match next {
                        Move::ToAgent(line) => self.put(line).await,
                        other => self.follow_up(other),
                    }
                }
            }
        }
    }

    async fn put(&self, line: Vec<u8>) {
        // An agent that is gone misses nothing.
        let _ = self.agent.send(line).await;
    }

    async fn keep_making(&self, moves: &mut mpsc::Receiver<Move>) {
        while let Some(next) = moves.recv().await {
            self.make(vec![next]).await;
        }
    }

    async fn unsent(&self, message: &Message, fault: &SendFault) {
        if let Message::Request(request) = message
            && matches!(self.calls.whose(&request.id), Whose::Passing | Whose::Opening)
        {
            let reason = Reason::UpstreamUnavailable;
            self.send(&failed(request.id.clone(), reason, &fault.to_string())).await;
        }
    }
}

fn id_refused(id: RpcId, text: &str) -> RpcResponse {
    let data = refused_data(Reason::MessageMalformed, text);
    RpcResponse::error(Some(id), era::INVALID_REQUEST, text, data)
}

fn revision_refused(request: &RpcRequest, fault: &EraFault) -> RpcResponse {
    let text = fault.to_string();
    let mut data = refused_data(Reason::RevisionUnsupported, &text);
    if let (Value::Object(data), Value::Object(more)) = (&mut data, fault.data()) {
        data.extend(more);
    }
    RpcResponse::error(Some(request.id.clone()), fault.code(), &text, data)
}

fn failed(id: RpcId, reason: Reason, detail: &str) -> RpcResponse {
    let data = refused_data(reason, detail);
    RpcResponse::error(Some(id), era::INTERNAL_ERROR, detail, data)
}

#[cfg(test)]
mod tests;
