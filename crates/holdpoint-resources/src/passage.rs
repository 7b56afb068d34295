//! A stdio server whose messages pass through a door one by one (`holdpoint wrap`).
//!
//! Owns the child and both directions of its pipes. It must never let a `tools/call` through
//! without a permit, and never change a byte of what the child says.

use crate::lines::{Line, LineReader, Outgoing, QUEUE_MAX, Ticket, write_lines};
use crate::mcp::{Message, MessageFault, Outcome, RpcId, RpcNotification, RpcRequest, era};
use crate::process::{Process, ProcessFault, ProcessSpec};
use bytes::Bytes;
use holdpoint_control::{Permit, PermitFault};
use holdpoint_types::{Timestamp, ToolRef, canonical_digest};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::process::ChildStdout;
use tokio::sync::{mpsc, oneshot};

/// What the ids of our own requests start with; a client's request may not use such an id.
const INJECTED_PREFIX: &str = "holdpoint-";

/// Starts passages.
#[derive(Debug)]
pub struct Passage;

/// The way to the child. Cheap to clone; when the last one is dropped, the child's input closes.
#[derive(Clone, Debug)]
pub struct PassageSender {
    queue: mpsc::Sender<Outgoing>,
    injected: Arc<AtomicU64>,
}

/// The way from the child, and the child itself. Dropping it kills the child's whole tree.
#[derive(Debug)]
pub struct PassageReceiver {
    lines: LineReader<ChildStdout>,
    bytes_max: usize,
    process: Process,
}

/// The number of a request of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Injected(u64);

/// What came from the child.
#[derive(Debug)]
pub enum Received {
    /// A message to pass on.
    Message {
        /// Its bytes, without the line's end.
        line: Bytes,
        /// The same, read.
        message: Message,
    },
    /// The response to a request of our own; the client must not see it.
    Injected {
        /// Which request.
        request: Injected,
        /// What it says.
        outcome: Outcome,
    },
    /// A line that is no message.
    Invalid {
        /// Its bytes; empty if it was too long to keep.
        line: Bytes,
        /// What is wrong with it.
        fault: MessageFault,
    },
    /// The child closed its output: it ended, or soon will.
    End,
}

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendFault {
    /// Only [`PassageSender::send_call`] sends this.
    #[error("`tools/call` needs a permit")]
    NeedsPermit,
    /// The message is not the call that the permit is for.
    #[error("the message is not a call of `{0}`")]
    OtherMessage(ToolRef),
    /// The permit does not fit.
    #[error(transparent)]
    Permit(#[from] PermitFault),
    /// Ids that start with `holdpoint-` are ours.
    #[error("the id `{0}` is reserved")]
    ReservedId(RpcId),
    /// The child takes no more input; no byte of this message reached it.
    #[error("the server has closed its input")]
    Closed,
    /// The child stopped taking input while this message was being written.
    #[error("the server closed its input while the message was being written")]
    Broken,
}

/// Takes a queued line back when whoever waits for it goes away.
struct Withdraw(Arc<Ticket>);

// === impl Passage ===

impl Passage {
    /// Starts the child. `line_bytes_max` is the longest accepted message.
    ///
    /// # Errors
    /// When the child cannot be started.
    pub fn spawn(
        spec: &ProcessSpec,
        line_bytes_max: usize,
    ) -> Result<(PassageSender, PassageReceiver), ProcessFault> {
        let (process, pipes) = Process::spawn(spec)?;
        let (queue, lines) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(write_lines(lines, pipes.stdin));
        let lines = LineReader::new(pipes.stdout, line_bytes_max);
        let receiver = PassageReceiver { lines, bytes_max: line_bytes_max, process };
        Ok((PassageSender { queue, injected: Arc::default() }, receiver))
    }

    /// True if `id` is one that only our own requests may use.
    pub fn reserves(id: &RpcId) -> bool {
        Injected::from_id(id).is_some()
    }
}

// === impl PassageSender ===

impl PassageSender {
    /// Passes on a message that Holdpoint does not govern. Waits while the child is slow to read,
    /// so keep receiving meanwhile.
    ///
    /// # Errors
    /// When the message is a `tools/call`, uses one of our ids, or the child takes no more input.
    pub async fn send_ungoverned(&self, message: &Message) -> Result<(), SendFault> {
        if message.method() == Some("tools/call") {
            return Err(SendFault::NeedsPermit);
        }
        if let Message::Request(request) = message {
            refuse_reserved(&request.id)?;
        }
        self.write(message.to_bytes()).await
    }

    /// Sends the one call that `permit` is for, without Holdpoint's own `_meta` keys.
    ///
    /// # Errors
    /// When the message is no call of `tool`, the permit is not for exactly its arguments (absent
    /// ones count as `{}`), or the child takes no more input.
    pub async fn send_call(
        &self,
        permit: Permit,
        tool: &ToolRef,
        request: &RpcRequest,
        now: Timestamp,
    ) -> Result<(), SendFault> {
        check_call(tool, request)?;
        let arguments = arguments_of(request);
        let digest = canonical_digest(&arguments);
        let digest = digest.map_err(|_| PermitFault::OtherParameters)?;
        permit.check(tool, digest, now)?;
        self.write(call_bytes(request)).await
    }

    /// Sends a request of our own, whose response comes as [`Received::Injected`]. Never a call.
    ///
    /// # Errors
    /// When `method` is `tools/call`, or the child takes no more input.
    pub async fn inject(&self, method: &str, params: Value) -> Result<Injected, SendFault> {
        if method == "tools/call" {
            return Err(SendFault::NeedsPermit);
        }
        let number = Injected(self.injected.fetch_add(1, Ordering::Relaxed));
        let request = RpcRequest::new(number.id(), method, params);
        self.write(request.to_bytes()).await?;
        Ok(number)
    }

    /// Tells the child that a request is cancelled.
    ///
    /// # Errors
    /// When the child takes no more input.
    pub async fn cancel(&self, id: &RpcId, reason: &str) -> Result<(), SendFault> {
        self.write(RpcNotification::cancelled(id, reason).to_bytes()).await
    }

    async fn write(&self, bytes: Vec<u8>) -> Result<(), SendFault> {
        let ticket = Arc::new(Ticket::default());
        let (tell, written) = oneshot::channel();
        let line = Outgoing::ticketed(bytes, Arc::clone(&ticket)).telling(tell);
        let guard = Withdraw(ticket);
        self.queue.send(line).await.map_err(|_| SendFault::Closed)?;
        match written.await {
            Ok(()) => Ok(()),
            Err(_) if guard.0.withdraw() => Err(SendFault::Closed),
            Err(_) => Err(SendFault::Broken),
        }
    }
}

// === impl PassageReceiver ===

impl PassageReceiver {
    /// What the child says next. Nothing is lost if the future is dropped.
    pub async fn receive(&mut self) -> Received {
        match self.lines.next().await {
            Ok(Line::Text(line)) => read(line, self.bytes_max),
            Ok(Line::TooLong) => {
                let bytes_max = self.bytes_max;
                let fault =
                    holdpoint_types::JsonFault::TooLarge { bytes: bytes_max + 1, bytes_max };
                Received::Invalid { line: Bytes::new(), fault: fault.into() }
            }
            Ok(Line::End) | Err(_) => Received::End,
        }
    }

    /// The last 64 KiB of the child's standard error.
    pub fn last_words(&self) -> String {
        self.process.last_words()
    }

    /// The child's process id.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Waits for the child to end.
    ///
    /// # Errors
    /// When the operating system cannot say how it ended.
    pub async fn wait(&mut self) -> std::io::Result<std::process::ExitStatus> {
        self.process.wait().await
    }

    /// Ends the child and everything it started: asks first, after `grace` does not ask.
    pub async fn kill_tree(&mut self, grace: Duration) {
        self.process.kill_tree(grace).await;
    }

    /// Gives the child `grace` to end by itself after all senders are dropped, then kills its tree.
    pub async fn close(&mut self, grace: Duration) {
        self.process.close(grace).await;
    }
}

// === impl Injected ===

impl Injected {
    fn id(self) -> RpcId {
        RpcId::Text(format!("{INJECTED_PREFIX}{}", self.0))
    }

    fn from_id(id: &RpcId) -> Option<Self> {
        let RpcId::Text(text) = id else { return None };
        text.strip_prefix(INJECTED_PREFIX)?.parse().ok().map(Self)
    }
}

// === impl SendFault ===

impl SendFault {
    /// False only if no byte of the message can have reached the child.
    pub fn may_have_arrived(&self) -> bool {
        matches!(self, Self::Broken)
    }
}

// === impl Withdraw ===

impl Drop for Withdraw {
    fn drop(&mut self) {
        self.0.withdraw();
    }
}

fn refuse_reserved(id: &RpcId) -> Result<(), SendFault> {
    match Injected::from_id(id) {
        Some(_) => Err(SendFault::ReservedId(id.clone())),
        None => Ok(()),
    }
}

fn check_call(tool: &ToolRef, request: &RpcRequest) -> Result<(), SendFault> {
    refuse_reserved(&request.id)?;
    let named = request.param("name").and_then(Value::as_str) == Some(tool.name());
    if request.method != "tools/call" || !named {
        return Err(SendFault::OtherMessage(tool.clone()));
    }
    Ok(())
}

fn arguments_of(request: &RpcRequest) -> Value {
    request.param("arguments").cloned().unwrap_or_else(|| Value::Object(Map::new()))
}

fn call_bytes(request: &RpcRequest) -> Vec<u8> {
    let mut request = request.clone();
    if let Some(params) = &mut request.params {
        era::strip_own_meta(params);
    }
    request.to_bytes()
}

fn read(line: Bytes, bytes_max: usize) -> Received {
    let message = match Message::from_upstream(&line, bytes_max) {
        Ok(message) => message,
        Err(fault) => return Received::Invalid { line, fault },
    };
    if let Message::Response(response) = &message
        && let Some(request) = response.id.as_ref().and_then(Injected::from_id)
    {
        let outcome = response.outcome.clone();
        return Received::Injected { request, outcome };
    }
    Received::Message { line, message }
}
