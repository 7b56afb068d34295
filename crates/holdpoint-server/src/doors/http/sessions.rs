//! The threads of legacy clients (`Mcp-Session-Id`): who holds which, how many, for how long.
//!
//! Owns the register and each thread's way to its own line of the server. Must never let one agent
//! find another agent's thread.

use super::front::Front;
use super::hub;
use super::streams::{Deliveries, Streams};
use crate::doors::stdio::{self, AfterKill, Use, Wrap};
use crate::governor::Governor;
use bytes::Bytes;
use holdpoint_resources::mcp::{Era, RpcId};
use holdpoint_resources::{PassageReceiver, PassageSender};
use holdpoint_types::{AgentName, Door, ServerName};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How much may wait in one direction between a thread and its line, in bytes.
const PIPE_BYTES: usize = 64 << 10;

/// How many threads there may be and how long they live unused.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    /// Most threads of one agent; the longest unused one makes room for a new one.
    pub per_agent_max: usize,
    /// Most threads of all agents.
    pub all_max: usize,
    /// How long a thread lives while nobody uses it.
    pub idle: Duration,
}

/// All threads.
pub(super) struct Sessions {
    limits: SessionLimits,
    open: Arc<Mutex<BTreeMap<String, Arc<ClientThread>>>>,
    tasks: TaskTracker,
}

/// One client's thread: its own line to one server, or a front of several such lines.
pub(super) struct ClientThread {
    pub(super) id: String,
    pub(super) agent: AgentName,
    /// The server at the other end; none for a thread over all servers.
    pub(super) server: Option<ServerName>,
    /// What a thread over all servers has instead of a line.
    pub(super) front: Option<Front>,
    /// Shared by a front and the lines behind it.
    pub(super) streams: Arc<Mutex<Streams>>,
    /// Lines to the door behind this thread; taken when the thread ends.
    input: tokio::sync::Mutex<Option<DuplexStream>>,
    used: Mutex<Instant>,
    over: CancellationToken,
}

/// Why there is no new thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoSession {
    /// The agent, or all together, have too many in use.
    TooMany,
    /// No id can be made.
    NoRandomness,
}

/// The thread is over: its client must begin anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Over;

// === impl SessionLimits ===

impl Default for SessionLimits {
    fn default() -> Self {
        Self { per_agent_max: 64, all_max: 1024, idle: Duration::from_secs(30 * 60) }
    }
}

// === impl Sessions ===

impl Sessions {
    pub(super) fn new(limits: SessionLimits) -> Self {
        Self { limits, open: Arc::default(), tasks: TaskTracker::new() }
    }

    /// The thread `id`, if it is the agent's and leads to `server`.
    pub(super) fn find(
        &self,
        id: &str,
        agent: &AgentName,
        server: Option<&ServerName>,
    ) -> Option<Arc<ClientThread>> {
        let session = self.open.lock().get(id).cloned()?;
        let fits = session.agent == *agent && server == session.server.as_ref();
        (fits && !session.over.is_cancelled()).then_some(session)
    }

    /// Begins a thread that `wrap` governs, with `passage` as its own line.
    pub(super) fn begin(
        &self,
        governor: &Governor,
        (wrap, server_era): (Wrap, Option<Era>),
        passage: (PassageSender, PassageReceiver),
        behind: Option<&Arc<ClientThread>>,
    ) -> Result<Arc<ClientThread>, NoSession> {
        let (near_in, far_in) = tokio::io::duplex(PIPE_BYTES);
        let (far_out, near_out) = tokio::io::duplex(PIPE_BYTES);
        let session = Arc::new(ClientThread {
            id: new_id()?,
            agent: wrap.agent.clone(),
            server: Some(wrap.server.clone()),
            front: None,
            streams: behind.map(|front| Arc::clone(&front.streams)).unwrap_or_default(),
            input: tokio::sync::Mutex::new(Some(near_in)),
            used: Mutex::new(Instant::now()),
            over: CancellationToken::new(),
        });
        self.enter(&session)?;
        let speaks_for = behind.map(|_| wrap.server.clone());
        let has_front = behind.is_some();
        let delivered = self.tasks.spawn(deliver(Arc::clone(&session), near_out, speaks_for));
        self.tasks.spawn(live(Arc::clone(&session), self.limits.idle));
        let (governor, open) = (governor.clone(), Arc::clone(&self.open));
        let (line, grace) = (Arc::clone(&session), wrap.grace);
        self.tasks.spawn(async move {
            let as_what = Use { door: Door::McpHttp, after_kill: AfterKill::End, server_era };
            let from = BufReader::new(far_in);
            let ran = stdio::run_as(as_what, (governor, wrap), passage, from, far_out);
            tokio::pin!(ran);
            tokio::select! {
                _ = &mut ran => {}
                () = line.over.cancelled() => {
                    // Its input ends, so the line ends as when an agent leaves a wrap.
                    drop(line.input.lock().await.take());
                    let patience = grace.saturating_mul(4).saturating_add(stdio::LANDING);
                    let _ = tokio::time::timeout(patience, ran).await;
                }
            }
            line.over.cancel();
            open.lock().remove(&line.id);
            // The line's last words are answers that clients wait for.
            if tokio::time::timeout(grace, delivered).await.is_err() {
                tracing::warn!(server = ?line.server, "a thread's last words were not delivered");
            }
            if !has_front {
                line.streams.lock().end();
            }
        });
        Ok(session)
    }

    /// Begins a thread over all servers; its lines are opened later.
    pub(super) fn begin_front(
        &self,
        agent: &AgentName,
        front: Front,
    ) -> Result<Arc<ClientThread>, NoSession> {
        let session = Arc::new(ClientThread {
            id: new_id()?,
            agent: agent.clone(),
            server: None,
            front: Some(front),
            streams: Arc::default(),
            input: tokio::sync::Mutex::default(),
            used: Mutex::new(Instant::now()),
            over: CancellationToken::new(),
        });
        self.enter(&session)?;
        self.tasks.spawn(live(Arc::clone(&session), self.limits.idle));
        let (open, thread) = (Arc::clone(&self.open), Arc::clone(&session));
        self.tasks.spawn(async move {
            thread.over.cancelled().await;
            for line in thread.front.iter().flat_map(Front::lines) {
                line.end();
            }
            open.lock().remove(&thread.id);
            thread.streams.lock().end();
        });
        Ok(session)
    }

    /// Ends the threads to certain servers.
    pub(super) fn end_of(&self, ends: impl Fn(&ServerName) -> bool) {
        for session in
            self.open.lock().values().filter(|session| session.server.as_ref().is_some_and(&ends))
        {
            session.end();
        }
    }

    /// Ends all threads and waits until their lines are gone.
    pub(super) async fn end_all(&self) {
        for session in self.open.lock().values() {
            session.end();
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn enter(&self, session: &Arc<ClientThread>) -> Result<(), NoSession> {
        let mut open = self.open.lock();
        let of_agent = |other: &&Arc<ClientThread>| other.agent == session.agent;
        let full = open.values().filter(of_agent).count() >= self.limits.per_agent_max
            || open.len() >= self.limits.all_max;
        if full {
            let unused = open.values().filter(of_agent).filter(|other| !other.is_busy());
            let oldest = unused.min_by_key(|other| *other.used.lock()).cloned();
            let oldest = oldest.ok_or(NoSession::TooMany)?;
            open.remove(&oldest.id);
            oldest.end();
        }
        open.insert(session.id.clone(), Arc::clone(session));
        Ok(())
    }
}

// === impl ClientThread ===

impl ClientThread {
    /// Ends the thread: its line closes, its streams end.
    pub(super) fn end(&self) {
        self.over.cancel();
        self.streams.lock().close_own();
    }

    /// Sends a request; gives where all that belongs to it will come. `None` if a request with this
    /// id is in flight.
    pub(super) async fn ask(
        &self,
        text: &[u8],
        (id, progress): (&RpcId, Option<serde_json::Value>),
    ) -> Result<Option<Deliveries>, Over> {
        let Some(deliveries) = self.streams.lock().open(id, progress) else { return Ok(None) };
        self.tell(text).await.map(|()| Some(deliveries))
    }

    /// Sends a request of our own; gives where its answer will come.
    pub(super) async fn ask_aside(
        &self,
        text: &[u8],
        id: &RpcId,
    ) -> Result<Option<Deliveries>, Over> {
        let Some(deliveries) = self.streams.lock().open_aside(id) else { return Ok(None) };
        self.tell(text).await.map(|()| Some(deliveries))
    }

    /// Sends a message that has no answer of its own, as the client wrote it.
    pub(super) async fn tell(&self, text: &[u8]) -> Result<(), Over> {
        self.touch();
        // Between the parts of a JSON text a line's end is space, and inside of strings none
        // occurs.
        let space = |byte: &u8| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte };
        let mut line: Vec<u8> = text.iter().map(space).collect();
        line.push(b'\n');
        let mut input = self.input.lock().await;
        let Some(pipe) = input.as_mut() else { return Err(Over) };
        let written = tokio::select! {
            written = pipe.write_all(&line) => written,
            () = self.over.cancelled() => return Err(Over),
        };
        written.map_err(|_| {
            self.over.cancel();
            Over
        })
    }

    /// Ready once nothing comes back any more.
    pub(super) async fn ended(&self) {
        self.over.cancelled().await;
    }

    /// True once nothing comes back any more.
    pub(super) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    pub(super) fn touch(&self) {
        *self.used.lock() = Instant::now();
    }

    fn is_busy(&self) -> bool {
        self.streams.lock().is_busy()
    }
}

fn new_id() -> Result<String, NoSession> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| NoSession::NoRandomness)?;
    Ok(hex::encode(random))
}

/// Brings what the line says to the streams of its client.
/// Lines behind a front speak for their server: ids of what it asks are translated.
async fn deliver(session: Arc<ClientThread>, from: DuplexStream, speaks_for: Option<ServerName>) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    // The line's own reader has bounded what a server may say at once.
    while let Ok(1..) = from.read_until(b'\n', &mut line).await {
        let mut text = Bytes::copy_from_slice(line.trim_ascii_end());
        if let Some(server) = &speaks_for {
            text = hub::outward(server, text);
        }
        session.streams.lock().deliver(text);
        line.clear();
    }
    session.over.cancel();
}

/// Ends the thread once nobody used it for `idle`.
async fn live(session: Arc<ClientThread>, idle: Duration) {
    loop {
        if session.is_busy() {
            session.touch();
        }
        let left = idle.saturating_sub(session.used.lock().elapsed());
        if left.is_zero() {
            tracing::debug!(agent = %session.agent, server = ?session.server, "a thread expired");
            return session.end();
        }
        tokio::select! {
            () = tokio::time::sleep(left) => {}
            () = session.over.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ClientThread, NoSession, SessionLimits, Sessions, live};
    use holdpoint_resources::mcp::RpcId;
    use parking_lot::Mutex;
    use std::sync::Arc;
    use std::time::{Duration, Instant};
    use tokio_util::sync::CancellationToken;

    fn opened(id: &str, agent: &str) -> Arc<ClientThread> {
        Arc::new(ClientThread {
            id: id.to_owned(),
            agent: agent.parse().unwrap(),
            server: Some("fs".parse().unwrap()),
            front: None,
            streams: Arc::default(),
            input: tokio::sync::Mutex::default(),
            used: Mutex::new(Instant::now()),
            over: CancellationToken::new(),
        })
    }

    fn sessions(per_agent_max: usize, all_max: usize) -> Sessions {
        Sessions::new(SessionLimits { per_agent_max, all_max, idle: Duration::from_secs(1) })
    }

    #[test]
    fn the_longest_unused_thread_makes_room() {
        let all = sessions(2, 3);
        let (one, two) = (opened("1", "a"), opened("2", "a"));
        all.enter(&one).unwrap();
        all.enter(&two).unwrap();
        one.touch();
        all.enter(&opened("3", "a")).unwrap();
        let server = "fs".parse().unwrap();
        let known =
            |id: &str, agent: &str| all.find(id, &agent.parse().unwrap(), Some(&server)).is_some();
        assert!(known("1", "a") && !known("2", "a") && known("3", "a"));
        assert!(!known("1", "b"), "it is another agent's");
        assert!(two.over.is_cancelled());
        // What is in use stays, and another agent's threads make no room.
        let _waits = one.streams.lock().open(&RpcId::Number(1), None).unwrap();
        all.enter(&opened("4", "b")).unwrap();
        all.enter(&opened("5", "a")).unwrap();
        assert!(known("1", "a") && !known("3", "a") && known("5", "a"));
        let refused = all.enter(&opened("6", "c"));
        assert_eq!(refused, Err(NoSession::TooMany));
    }

    #[tokio::test]
    async fn an_unused_thread_ends_and_one_in_use_does_not() {
        let unused = opened("1", "a");
        live(Arc::clone(&unused), Duration::from_millis(5)).await;
        assert!(unused.over.is_cancelled());
        let used = opened("2", "a");
        let _waits = used.streams.lock().open(&RpcId::Number(1), None).unwrap();
        let lived = live(Arc::clone(&used), Duration::from_millis(5));
        assert!(tokio::time::timeout(Duration::from_millis(50), lived).await.is_err());
        assert!(!used.over.is_cancelled());
    }
}
