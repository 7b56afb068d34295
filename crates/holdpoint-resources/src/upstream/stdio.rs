//! An upstream server as a child process: one line, one message.
//!
//! Owns the process, the requests that wait for its answers, and their ids. Must never deliver an
//! answer twice or to a request that did not ask, and never keep what nobody asked for.

use super::changes::Changes;
use super::{Fault, Limits, UpstreamFault, invalid, unavailable};
use crate::lines::{Line, LineReader, Outgoing, QUEUE_MAX, Ticket, write_lines};
use crate::mcp::{
    Message, MessageFault, RpcId, RpcNotification, RpcRequest, RpcResponse,
    era::{self, METHOD_NOT_FOUND},
};
use crate::process::{Process, ProcessSpec};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::process::ChildStdout;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// How long a killed process may take to obey SIGTERM: it has had its grace before.
const KILL_GRACE: Duration = Duration::from_millis(250);
/// How long a process that closed its output may take to say how it ended.
const STATUS_WAIT: Duration = Duration::from_millis(500);

type Answer = Result<RpcResponse, UpstreamFault>;

/// A running server. Dropping it closes the server.
#[derive(Debug)]
pub(super) struct StdioLink {
    queue: Mutex<Option<mpsc::Sender<Outgoing>>>,
    shared: Arc<Shared>,
    limits: Limits,
}

/// A request on its way. Dropping it cancels the request.
#[derive(Debug)]
pub(super) struct Flight {
    number: i64,
    ticket: Arc<Ticket>,
    answer: oneshot::Receiver<Answer>,
    shared: Arc<Shared>,
    queue: mpsc::Sender<Outgoing>,
    /// False once nobody needs to be told that we stopped waiting.
    armed: bool,
}

/// A request for a stdio server.
#[derive(Debug)]
pub(super) struct StdioRequest<'a> {
    pub(super) method: &'a str,
    pub(super) params: Value,
    /// Where the parameters of progress notifications go.
    pub(super) progress: Option<mpsc::Sender<Value>>,
}

/// Who waits for an answer.
#[derive(Debug)]
struct Waiting {
    tell: oneshot::Sender<Answer>,
    progress: Option<mpsc::Sender<Value>>,
}

/// What the link, its flights and its supervisor share.
#[derive(Debug)]
struct Shared {
    pending: Mutex<Pending>,
    tools_changed: Arc<Changes>,
    kill: CancellationToken,
    close: CancellationToken,
    ended: CancellationToken,
}

#[derive(Debug, Default)]
struct Pending {
    last: i64,
    waiting: BTreeMap<i64, Waiting>,
    dead: Option<UpstreamFault>,
    /// Answers that nobody waited for.
    dropped: u64,
}

/// Why the supervisor stopped reading.
enum End {
    Killed,
    Closed,
    Died,
    Broken(UpstreamFault),
}

/// Reads what the server says.
struct Ear {
    lines: LineReader<ChildStdout>,
    shared: Arc<Shared>,
    queue: mpsc::WeakSender<Outgoing>,
    limits: Limits,
    /// Bytes that came while requests waited, since the last answer.
    unasked: usize,
}

// === impl StdioLink ===

impl StdioLink {
    /// Starts the server.
    pub(super) fn start(
        spec: &ProcessSpec,
        limits: Limits,
        tools_changed: &Arc<Changes>,
    ) -> Result<Self, UpstreamFault> {
        let started = Process::spawn(spec).map_err(|fault| unavailable(fault.to_string()))?;
        let (process, pipes) = started;
        let (queue, lines) = mpsc::channel(QUEUE_MAX);
        let shared = Arc::new(Shared {
            pending: Mutex::default(),
            tools_changed: Arc::clone(tools_changed),
            kill: CancellationToken::new(),
            close: CancellationToken::new(),
            ended: CancellationToken::new(),
        });
        let ear = Ear {
            lines: LineReader::new(pipes.stdout, limits.message_bytes_max),
            shared: Arc::clone(&shared),
            queue: queue.downgrade(),
            limits,
            unasked: 0,
        };
        tokio::spawn(write_lines(lines, pipes.stdin));
        tokio::spawn(supervise(process, ear));
        Ok(Self { queue: Mutex::new(Some(queue)), shared, limits })
    }

    pub(super) fn is_dead(&self) -> bool {
        self.shared.pending().dead.is_some()
    }

    /// Sends a request. Nothing is sent if the future is dropped before it is ready.
    pub(super) async fn begin(&self, method: &str, params: Value) -> Result<Flight, UpstreamFault> {
        self.begin_with(StdioRequest { method, params, progress: None }).await
    }

    /// The same, for a request whose progress somebody follows.
    pub(super) async fn begin_with(
        &self,
        request: StdioRequest<'_>,
    ) -> Result<Flight, UpstreamFault> {
        let StdioRequest { method, params, progress } = request;
        let follows = progress.is_some();
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let queue = queue.ok_or_else(|| unavailable("the server is closed"))?;
        let slot = queue.reserve().await.map_err(|_| unavailable("the server takes no input"))?;
        let (tell, answer) = oneshot::channel();
        let waiting = Waiting { tell, progress };
        let number = self.shared.pending().enter(waiting, self.limits.calls_pending_max)?;
        let ticket = Arc::new(Ticket::default());
        let mut request = RpcRequest::new(RpcId::Number(number), method, params);
        if follows {
            era::set_progress(&mut request.params, number.into());
        }
        slot.send(Outgoing::ticketed(request.to_bytes(), Arc::clone(&ticket)));
        let shared = Arc::clone(&self.shared);
        Ok(Flight { number, ticket, answer, shared, queue, armed: true })
    }

    /// Asks and waits for the answer.
    pub(super) async fn ask(&self, method: &str, params: Value) -> Result<RpcResponse, Fault> {
        let mut flight = self.begin(method, params).await.map_err(Fault::unsent)?;
        flight.answer().await
    }

    /// Sends a notification.
    pub(super) async fn notify(&self, notification: &RpcNotification) -> Result<(), UpstreamFault> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let queue = queue.ok_or_else(|| unavailable("the server is closed"))?;
        let sent = queue.send(Outgoing::plain(notification.to_bytes())).await;
        sent.map_err(|_| unavailable("the server takes no input"))
    }

    /// Closes the server's input and waits until its whole tree has ended.
    pub(super) async fn close(&self) {
        self.shared.close.cancel();
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.shared.ended.cancelled().await;
    }
}

impl Drop for StdioLink {
    fn drop(&mut self) {
        self.shared.close.cancel();
    }
}

// === impl Flight ===

impl Flight {
    /// The answer. May be dropped and called again until it was ready once.
    pub(super) async fn answer(&mut self) -> Result<RpcResponse, Fault> {
        let answer = match (&mut self.answer).await {
            Ok(answer) => answer,
            Err(_) => Err(unavailable("the server is gone")),
        };
        self.armed = false;
        answer.map_err(|kind| Fault { may_have_arrived: !self.withdraw(), kind })
    }

    /// The answer, if it is there already.
    pub(super) fn answer_now(&mut self) -> Option<RpcResponse> {
        self.answer.try_recv().ok()?.ok()
    }

    /// Takes the request back. True only if no byte of it was or will be written.
    pub(super) fn withdraw(&self) -> bool {
        self.ticket.withdraw()
    }

    /// Tells the server to stop working on the request; goes on waiting for its answer.
    pub(super) fn cancel(&mut self, reason: &str) {
        self.armed = false;
        let text = RpcNotification::cancelled(&RpcId::Number(self.number), reason);
        // A full queue means a server that does not read: it would not see this one either.
        let _ = self.queue.try_send(Outgoing::plain(text.to_bytes()));
    }

    /// Stops waiting without telling the server.
    pub(super) fn forget(&mut self) {
        self.armed = false;
    }

    /// Kills the server's whole tree; ready when it is dead.
    pub(super) async fn kill_server(&self) {
        self.shared.kill.cancel();
        self.shared.ended.cancelled().await;
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let waited = self.shared.pending().waiting.remove(&self.number).is_some();
        if self.armed && waited && !self.withdraw() {
            self.cancel("nobody waits for the answer any more");
        }
    }
}

// === impl Shared ===

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail_all(&self, fault: &UpstreamFault) {
        let mut pending = self.pending();
        pending.dead = Some(fault.clone());
        for waiting in std::mem::take(&mut pending.waiting).into_values() {
            let _ = waiting.tell.send(Err(fault.clone()));
        }
    }
}

// === impl Pending ===

impl Pending {
    fn enter(&mut self, waiting: Waiting, max: usize) -> Result<i64, UpstreamFault> {
        if let Some(fault) = &self.dead {
            return Err(fault.clone());
        }
        if self.waiting.len() >= max {
            return Err(unavailable("too many calls wait for this server"));
        }
        self.last += 1;
        self.waiting.insert(self.last, waiting);
        Ok(self.last)
    }

    /// Passes on the progress of a request to who follows it.
    fn progress(&self, params: Option<Value>) {
        let token = params.as_ref().and_then(|params| params.get("progressToken")?.as_i64());
        let follower = token.and_then(|token| self.waiting.get(&token)?.progress.as_ref());
        if let (Some(follower), Some(params)) = (follower, params) {
            // Who follows too slowly misses some.
            let _ = follower.try_send(params);
        }
    }

    /// Delivers an answer to who waits for it. False if nobody does.
    fn deliver(&mut self, id: Option<&RpcId>, answer: Answer) -> bool {
        let waiting = match id {
            Some(RpcId::Number(number)) => self.waiting.remove(number),
            Some(RpcId::Text(_)) | None => None,
        };
        match waiting {
            Some(waiting) => waiting.tell.send(answer).is_ok(),
            None => {
                self.dropped = self.dropped.saturating_add(1);
                tracing::warn!(?id, dropped = self.dropped, "an answer that nobody waits for");
                false
            }
        }
    }
}

// === impl Ear ===

impl Ear {
    async fn listen(&mut self) -> End {
        let shared = Arc::clone(&self.shared);
        loop {
            let line = tokio::select! {
                biased;
                () = shared.kill.cancelled() => return End::Killed,
                () = shared.close.cancelled() => return End::Closed,
                line = self.lines.next() => line,
            };
            let heard = match line {
                Ok(Line::Text(line)) => self.hear(&line),
                Ok(Line::TooLong) => {
                    let max = self.limits.message_bytes_max;
                    Err(invalid(format!("a message longer than {max} bytes")))
                }
                Ok(Line::End) | Err(_) => return End::Died,
            };
            if let Err(fault) = heard {
                return End::Broken(fault);
            }
        }
    }

    fn hear(&mut self, line: &[u8]) -> Result<(), UpstreamFault> {
        self.count(line.len())?;
        if !line.starts_with(b"{") && !line.starts_with(b"[") && std::str::from_utf8(line).is_ok() {
            // Some servers greet on their standard output; clients live with it, and so do we.
            tracing::warn!("a line that is no message");
            return Ok(());
        }
        match Message::from_upstream(line, self.limits.message_bytes_max) {
            Ok(Message::Response(response)) => self.deliver(response),
            Ok(Message::Request(request)) => self.refuse(request),
            Ok(Message::Notification(notification)) => match notification.method.as_str() {
                "notifications/progress" => {
                    self.shared.pending().progress(notification.params);
                }
                method => self.shared.tools_changed.note(method),
            },
            Err(fault) => return self.blame(&fault),
        }
        Ok(())
    }

    fn count(&mut self, bytes: usize) -> Result<(), UpstreamFault> {
        if self.shared.pending().waiting.is_empty() {
            self.unasked = 0;
            return Ok(());
        }
        self.unasked = self.unasked.saturating_add(bytes).saturating_add(1);
        let max = self.limits.flood_bytes_max.max(self.limits.message_bytes_max);
        if self.unasked > max {
            return Err(invalid(format!("more than {max} bytes without an answer")));
        }
        Ok(())
    }

    fn deliver(&mut self, response: RpcResponse) {
        let id = response.id.clone();
        if self.shared.pending().deliver(id.as_ref(), Ok(response)) {
            self.unasked = 0;
        }
    }

    /// Holdpoint declared no capability, so there is nothing that a server may ask.
    fn refuse(&self, request: RpcRequest) {
        let text = "this client serves no requests";
        let refusal = RpcResponse::error(Some(request.id), METHOD_NOT_FOUND, text, Value::Null);
        let Some(queue) = self.queue.upgrade() else { return };
        let _ = queue.try_send(Outgoing::plain(refusal.to_bytes()));
    }

    /// Finds out whose answer a broken message was; if that cannot be known, it may be anybody's.
    fn blame(&self, fault: &MessageFault) -> Result<(), UpstreamFault> {
        let fault_text = fault.to_string();
        let mut pending = self.shared.pending();
        if pending.waiting.is_empty() {
            tracing::warn!(%fault, "a broken message while nothing was asked");
            return Ok(());
        }
        let known =
            matches!(fault.id(), Some(RpcId::Number(id)) if pending.waiting.contains_key(id));
        if known {
            pending.deliver(fault.id(), Err(invalid(fault_text)));
            return Ok(());
        }
        Err(invalid(fault_text))
    }
}

/// Listens to the server until it ends or must end, then sees to it that its whole tree is dead.
async fn supervise(mut process: Process, mut ear: Ear) {
    let end = ear.listen().await;
    let shared = Arc::clone(&ear.shared);
    let grace = ear.limits.grace;
    match end {
        End::Killed => {
            shared.fail_all(&unavailable("the server was killed"));
            process.kill_tree(KILL_GRACE).await;
        }
        End::Closed => {
            shared.fail_all(&unavailable("the server was closed"));
            process.close(grace).await;
        }
        End::Broken(fault) => {
            tracing::warn!(%fault, "an upstream broke the protocol and is killed");
            shared.fail_all(&fault);
            process.kill_tree(KILL_GRACE).await;
        }
        End::Died => {
            // New requests must not be written to a server that is going.
            shared.pending().dead = Some(unavailable("the server died"));
            let status = tokio::time::timeout(STATUS_WAIT, process.wait()).await;
            let how = match status {
                Ok(Ok(status)) => format!("the server ended: {status}"),
                Ok(Err(_)) | Err(_) => "the server closed its output".to_owned(),
            };
            shared.fail_all(&unavailable(&how));
            tracing::warn!(how, last_words = tail(&process.last_words()), "an upstream died");
            process.kill_tree(KILL_GRACE).await;
        }
    }
    shared.ended.cancel();
}

fn tail(words: &str) -> &str {
    let start = words.len().saturating_sub(2048);
    let start = (start..=words.len()).find(|&at| words.is_char_boundary(at));
    start.and_then(|at| words.get(at..)).unwrap_or_default()
}
