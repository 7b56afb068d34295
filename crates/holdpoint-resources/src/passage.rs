//! A server whose messages pass through a door one by one (`holdpoint wrap`, and sessions).
//!
//! Owns the child, or the connection, and both directions of what is said. It must never let a
//! governed request through without a permit, and never change a byte of what the server says.

mod bridge;

use crate::credentials::Bearer;
use crate::lines::{Line, LineReader, Outgoing, QUEUE_MAX, Ticket, write_lines};
use crate::mcp::{
    Message, MessageFault, Outcome, RpcId, RpcNotification, RpcRequest, era, governed,
};
use crate::process::{Process, ProcessFault, ProcessSpec};
use crate::upstream::{SecretText, UpstreamFault};
use bytes::Bytes;
use holdpoint_control::{Permit, PermitFault};
use holdpoint_types::{Timestamp, ToolRef, canonical_digest};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncRead;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

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
    lines: LineReader<Box<dyn Source>>,
    bytes_max: usize,
    peer: Peer,
}

/// Where a server's lines come from.
trait Source: AsyncRead + Unpin + Send + fmt::Debug {}

impl<T: AsyncRead + Unpin + Send + fmt::Debug> Source for T {}

/// What is behind a passage.
#[derive(Debug)]
enum Peer {
    /// A child process.
    Child(Box<Process>),
    /// A server behind a URL; the token ends the bridge to it.
    Bridge(CancellationToken),
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
    #[error("the request needs a permit")]
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
        let source: Box<dyn Source> = Box::new(pipes.stdout);
        let lines = LineReader::new(source, line_bytes_max);
        let peer = Peer::Child(Box::new(process));
        let receiver = PassageReceiver { lines, bytes_max: line_bytes_max, peer };
        Ok((PassageSender { queue, injected: Arc::default() }, receiver))
    }

    /// Opens a passage to a legacy server behind a URL, with an `Mcp-Session-Id` of its own. The
    /// server hears of it with the first message; each carries the headers, and the credential.
    ///
    /// # Errors
    /// When the URL or a header cannot be used.
    pub fn connect(
        url: &str,
        signed: (&[(String, SecretText)], Option<Bearer>),
        line_bytes_max: usize,
    ) -> Result<(PassageSender, PassageReceiver), UpstreamFault> {
        let (queue, lines) = mpsc::channel(QUEUE_MAX);
        let (far, near) = tokio::io::duplex(bridge::PIPE_BYTES);
        tokio::spawn(write_lines(lines, far));
        let over = CancellationToken::new();
        let source = bridge::open(url, signed, (near, line_bytes_max), over.clone())?;
        let source: Box<dyn Source> = Box::new(source);
        let lines = LineReader::new(source, line_bytes_max);
        let peer = Peer::Bridge(over);
        let receiver = PassageReceiver { lines, bytes_max: line_bytes_max, peer };
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
    /// When the message is a governed request, uses one of our ids, or the child takes no more
    /// input.
    pub async fn send_ungoverned(&self, message: &Message) -> Result<(), SendFault> {
        check_ungoverned(message)?;
        self.write(message.to_bytes()).await
    }

    /// Passes on a message as the very line that the agent wrote, which `message` was read from.
    ///
    /// # Errors
    /// As [`Self::send_ungoverned`].
    pub async fn send_line(&self, message: &Message, line: &[u8]) -> Result<(), SendFault> {
        check_ungoverned(message)?;
        // INVARIANT: one line stays one line; between the parts of a JSON text an end is space.
        let space = |byte: &u8| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte };
        self.write(line.iter().map(space).collect()).await
    }

    /// Sends the one governed request that `permit` is for, without Holdpoint's own `_meta` keys.
    ///
    /// # Errors
    /// When the message is no call of `tool`, the permit is not for exactly its
    /// [`governed::governed_parameters`], or the child takes no more input.
    pub async fn send_call(
        &self,
        permit: Permit,
        tool: &ToolRef,
        request: &RpcRequest,
        now: Timestamp,
    ) -> Result<(), SendFault> {
        check_call(tool, request)?;
        let digest = canonical_digest(&governed::governed_parameters(request));
        let digest = digest.map_err(|_| PermitFault::OtherParameters)?;
        permit.check(tool, digest, now)?;
        if !permit.is_approved() {
            return self.write(call_bytes(request)).await;
        }
        let mut request = request.clone();
        if let Some(params) = request.params.as_mut().and_then(serde_json::Value::as_object_mut) {
            era::strip_unapproved(params);
        }
        self.write(call_bytes(&request)).await
    }

    /// Sends a request of our own, whose response comes as [`Received::Injected`]. Never a call.
    ///
    /// # Errors
    /// When `method` is a governed one, or the child takes no more input.
    pub async fn inject(&self, method: &str, params: Value) -> Result<Injected, SendFault> {
        if governed::is_governed(method) {
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
            Ok(Line::Text(line)) => match (read(line, self.bytes_max), &self.peer) {
                (Received::Invalid { line, fault }, Peer::Bridge(_)) => bridge::lost(line, fault),
                (received, _) => received,
            },
            Ok(Line::TooLong) => {
                let bytes_max = self.bytes_max;
                let fault =
                    holdpoint_types::JsonFault::TooLarge { bytes: bytes_max + 1, bytes_max };
                Received::Invalid { line: Bytes::new(), fault: fault.into() }
            }
            Ok(Line::End) | Err(_) => Received::End,
        }
    }

    /// The last 64 KiB of the child's standard error; nothing for a server behind a URL.
    pub fn last_words(&self) -> String {
        match &self.peer {
            Peer::Child(process) => process.last_words(),
            Peer::Bridge(_) => String::new(),
        }
    }

    /// Waits for the child to end.
    ///
    /// # Errors
    /// When the operating system cannot say how it ended, or there is no child.
    pub async fn wait(&mut self) -> std::io::Result<std::process::ExitStatus> {
        match &mut self.peer {
            Peer::Child(process) => process.wait().await,
            Peer::Bridge(_) => Err(std::io::ErrorKind::Unsupported.into()),
        }
    }

    /// Ends the child and everything it started: asks first, after `grace` does not ask.
    pub async fn kill_tree(&mut self, grace: Duration) {
        match &mut self.peer {
            Peer::Child(process) => process.kill_tree(grace).await,
            Peer::Bridge(over) => over.cancel(),
        }
    }

    /// Gives the child `grace` to end by itself after all senders are dropped, then kills its tree.
    pub async fn close(&mut self, grace: Duration) {
        match &mut self.peer {
            Peer::Child(process) => process.close(grace).await,
            Peer::Bridge(over) => over.cancel(),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        match self {
            // It kills its whole tree by itself.
            Self::Child(_) => {}
            Self::Bridge(over) => over.cancel(),
        }
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

fn check_ungoverned(message: &Message) -> Result<(), SendFault> {
    if message.method().is_some_and(governed::is_governed) {
        return Err(SendFault::NeedsPermit);
    }
    match message {
        Message::Request(request) => refuse_reserved(&request.id),
        Message::Notification(_) | Message::Response(_) => Ok(()),
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
    if !governed::reaches(request, tool) {
        return Err(SendFault::OtherMessage(tool.clone()));
    }
    Ok(())
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
