//! Upstream MCP servers: connected when needed, restarted when dead, called with a permit.
//!
//! Owns the connection of each server and what it agreed on. It must never decide, never retry a
//! call that may have reached its server, and never give one call's answer to another.

mod agents;
mod call;
mod changes;
mod health;
pub(crate) mod http;
mod negotiate;
mod spec;
mod stdio;

pub use health::{Condition, Health};
#[cfg(fuzzing)]
pub use http::fuzzing::read_answer;
pub use spec::{
    Answer, Cancels, Ended, Limits, SecretText, ToolCall, Transport, UpstreamFault, UpstreamSpec,
};

use crate::credentials::Bearer;
use crate::mcp::era::{self, Identity};
use crate::mcp::headers::{self, ParamHeader};
use crate::mcp::{Era, Outcome, RpcResponse, governed, tasks};
use agents::Signs;
use changes::Changes;
use http::HttpLink;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use stdio::StdioLink;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

/// Why nothing can be asked of a server that is none.
const SERVED_HERE: &str = "Holdpoint serves these tools itself, and nothing besides";
/// Most tools that one server may offer.
const TOOLS_MAX: usize = 10_000;
/// Most pages of one list of tools.
const PAGES_MAX: usize = 100;
/// The first pause before a restart; it doubles with every failure.
const BACK_OFF_MIN: Duration = Duration::from_millis(250);
/// The longest pause before a restart.
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// A call waits this long for a restart; beyond that it fails at once.
const BACK_OFF_WAIT_MAX: Duration = Duration::from_secs(1);
/// A server that lived this long starts its failures anew.
const STEADY: Duration = Duration::from_secs(30);

/// One upstream server. Cheap to clone; when the last one is dropped, the server is closed.
#[derive(Clone, Debug)]
pub struct Upstream(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    spec: UpstreamSpec,
    signs: Signs,
    slot: Mutex<Slot>,
    tools_changed: Arc<Changes>,
    /// The names of the tools that were listed last.
    offered: Mutex<BTreeSet<String>>,
    /// Which parameters of which tool go into headers (modern HTTP only).
    mirrors: Mutex<BTreeMap<String, Vec<ParamHeader>>>,
    closed: CancellationToken,
}

/// The one connection, and what is remembered about the ones before.
#[derive(Debug, Default)]
struct Slot {
    state: State,
    failures: u32,
    not_before: Option<Instant>,
    last_fault: Option<(UpstreamFault, Instant)>,
    /// How often a connection was opened.
    opened: u64,
}

type Opened = Option<Result<Arc<Connected>, UpstreamFault>>;

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    Connecting(watch::Receiver<Opened>),
    Up(Arc<Connected>),
}

/// A server that has agreed on an era.
#[derive(Debug)]
struct Connected {
    link: Link,
    era: Era,
    /// True if the server declares the tasks extension.
    tasks: bool,
    since: Instant,
}

#[derive(Debug)]
enum Link {
    Stdio(StdioLink),
    Http(Box<HttpLink>),
}

/// Why a request has no response.
#[derive(Clone, Debug)]
struct Fault {
    /// False only if no byte of the request can have reached the server.
    may_have_arrived: bool,
    kind: UpstreamFault,
}

// === impl Upstream ===

impl Upstream {
    /// A server, not yet connected.
    pub fn new(spec: UpstreamSpec) -> Self {
        let signs = Signs::of(&spec);
        Self::signed_by(spec, signs)
    }

    fn signed_by(spec: UpstreamSpec, signs: Signs) -> Self {
        Self(Arc::new(Inner {
            spec,
            signs,
            slot: Mutex::default(),
            tools_changed: Arc::default(),
            offered: Mutex::default(),
            mirrors: Mutex::default(),
            closed: CancellationToken::new(),
        }))
    }

    /// What it was made from.
    pub fn spec(&self) -> &UpstreamSpec {
        &self.0.spec
    }

    /// Connects if need be and tells the era that the server speaks.
    ///
    /// # Errors
    /// When the server cannot be reached, or agrees on nothing that we speak.
    pub async fn era(&self) -> Result<Era, UpstreamFault> {
        if self.is_own() {
            return Ok(Era::Modern);
        }
        Ok(self.connect().await?.era)
    }

    /// True if there is no server: Holdpoint serves these tools itself.
    pub fn is_own(&self) -> bool {
        matches!(self.0.spec.transport, Transport::Own(_))
    }

    /// True once after the server said that its tools changed, or was started anew.
    pub fn tools_changed(&self) -> bool {
        self.0.tools_changed.take_tools()
    }

    /// What the server says of its lists from now on, by the methods of its notifications.
    pub fn changes(&self) -> broadcast::Receiver<&'static str> {
        self.0.tools_changed.follow()
    }

    /// Every tool that the server offers, as it describes them.
    ///
    /// # Errors
    /// When the server cannot be reached, does not answer in time, or breaks the protocol: more
    /// than 10,000 tools or 100 pages, a repeated cursor, a list that is none.
    pub async fn list_tools(&self) -> Result<Vec<Value>, UpstreamFault> {
        let listed = match &self.0.spec.transport {
            Transport::Own(tools) => Ok(tools.to_vec()),
            Transport::Stdio(_) | Transport::Http { .. } => self.list_pages().await,
        };
        let names = listed.iter().flatten().filter_map(|tool| tool.get("name")?.as_str());
        *self.offered() = names.map(str::to_owned).collect();
        listed
    }

    async fn list_pages(&self) -> Result<Vec<Value>, UpstreamFault> {
        let connected = self.connect().await?;
        let (mut tools, mut cursors) = (Vec::new(), BTreeSet::new());
        let mut cursor = None;
        for _ in 0..PAGES_MAX {
            let page = self.list_page(&connected, cursor.take()).await?;
            tools.extend(page.tools);
            if tools.len() > TOOLS_MAX {
                return Err(invalid(format!("more than {TOOLS_MAX} tools")));
            }
            match page.next {
                None => return Ok(self.keep_usable(&connected, tools)),
                Some(next) if !cursors.insert(next.clone()) => {
                    return Err(invalid("a cursor of `tools/list` came twice"));
                }
                Some(next) => cursor = Some(next),
            }
        }
        Err(invalid(format!("more than {PAGES_MAX} pages of tools")))
    }

    /// Asks something that is not governed, in the era that the server speaks. `params` without our
    /// own metadata.
    ///
    /// # Errors
    /// When the method is a governed one, or the server does not answer in time.
    pub async fn ask(
        &self,
        method: &str,
        params: Map<String, Value>,
    ) -> Result<Outcome, UpstreamFault> {
        if governed::is_governed(method) {
            return Err(invalid(format!("`{method}` needs a permit")));
        }
        self.ask_for(method, params, None).await
    }

    /// Follows, feeds or cancels a task that the server gave, for who declares this in `meta`.
    ///
    /// # Errors
    /// As for [`Self::ask`].
    pub async fn follow(
        &self,
        method: &str,
        params: Map<String, Value>,
        meta: &Value,
    ) -> Result<Outcome, UpstreamFault> {
        if !tasks::is_request(method) {
            return Err(invalid(format!("`{method}` follows no task")));
        }
        self.ask_for(method, params, Some(meta)).await
    }

    async fn ask_for(
        &self,
        method: &str,
        params: Map<String, Value>,
        meta: Option<&Value>,
    ) -> Result<Outcome, UpstreamFault> {
        let connected = self.connect().await?;
        let mut params = era::params_for(connected.era, params, &Identity::holdpoint());
        era::declare_capabilities(&mut params, meta);
        let asked = connected.ask(method, params);
        match tokio::time::timeout(self.0.spec.timeout, asked).await {
            Ok(response) => Ok(response.map_err(|fault| fault.kind)?.outcome),
            Err(_) => Err(UpstreamFault::Timeout(format!("`{method}` timed out"))),
        }
    }

    /// Closes the server: its input ends, and a process that does not follow is killed as a tree.
    /// Calls in flight end in doubt; later ones are not sent.
    pub async fn close(&self) {
        self.0.closed.cancel();
        for own in self.0.signs.agents() {
            Box::pin(own.close()).await;
        }
        let state = std::mem::take(&mut self.slot().state);
        if let State::Up(connected) = state {
            match &connected.link {
                Link::Stdio(link) => link.close().await,
                Link::Http(link) => link.close().await,
            }
        }
    }

    fn offered(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.offered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.0.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn list_page(
        &self,
        connected: &Connected,
        cursor: Option<String>,
    ) -> Result<Page, UpstreamFault> {
        let mut params = Map::new();
        params.extend(cursor.map(|cursor| ("cursor".to_owned(), Value::from(cursor))));
        let params = era::params_for(connected.era, params, &Identity::holdpoint());
        let asked = connected.ask("tools/list", params);
        let response = match tokio::time::timeout(self.0.spec.timeout, asked).await {
            Ok(response) => response.map_err(|fault| fault.kind)?,
            Err(_) => return Err(UpstreamFault::Timeout("`tools/list` timed out".to_owned())),
        };
        Page::read(&response)
    }

    /// Remembers which parameters go into headers, and drops tools whose schema forbids to know.
    fn keep_usable(&self, connected: &Connected, mut tools: Vec<Value>) -> Vec<Value> {
        let mirrored = matches!(connected.link, Link::Http(_)) && connected.era == Era::Modern;
        if !mirrored {
            return tools;
        }
        let mut mirrors = BTreeMap::new();
        tools.retain(|tool| {
            let name = tool.get("name").and_then(Value::as_str).unwrap_or_default();
            let schema = tool.get("inputSchema").unwrap_or(&Value::Null);
            match headers::param_headers(schema) {
                Ok(found) => {
                    mirrors.insert(name.to_owned(), found);
                    true
                }
                Err(fault) => {
                    tracing::warn!(server = %self.0.spec.server, name, %fault, "tool left out");
                    false
                }
            }
        });
        *self.0.mirrors.lock().unwrap_or_else(PoisonError::into_inner) = mirrors;
        tools
    }

    /// The connection: the present one, or a new one.
    async fn connect(&self) -> Result<Arc<Connected>, UpstreamFault> {
        if self.is_own() {
            return Err(invalid(SERVED_HERE));
        }
        // Before anything else: what is missing is no failure of the server, and is not waited for.
        if let Some(bearer) = self.0.signs.bearer()? {
            bearer.header().await?;
        }
        let mut opening = match self.present_or_opening()? {
            Ok(connected) => return Ok(connected),
            Err(opening) => opening,
        };
        let opened = match opening.wait_for(Option::is_some).await {
            Ok(opened) => opened.clone(),
            Err(_) => None,
        };
        opened.unwrap_or_else(|| {
            self.slot().state = State::Idle;
            Err(unavailable("the connection attempt was abandoned"))
        })
    }

    fn present_or_opening(
        &self,
    ) -> Result<Result<Arc<Connected>, watch::Receiver<Opened>>, UpstreamFault> {
        if self.0.closed.is_cancelled() {
            return Err(unavailable("the server is closed"));
        }
        let mut slot = self.slot();
        match &slot.state {
            State::Up(connected) if !connected.is_dead() => return Ok(Ok(Arc::clone(connected))),
            State::Up(connected) => {
                let steady = connected.since.elapsed() > STEADY;
                slot.fail(steady, unavailable("the server died"));
            }
            State::Connecting(opening) => return Ok(Err(opening.clone())),
            State::Idle => {}
        }
        let pause = slot.pause();
        if pause > BACK_OFF_WAIT_MAX {
            let why = slot.last_fault.as_ref().map(|(fault, _)| fault.to_string());
            let why = why.unwrap_or_default();
            let text = format!("restarts in {} ms after: {why}", pause.as_millis());
            return Err(unavailable(text));
        }
        let (tell, opening) = watch::channel(None);
        slot.state = State::Connecting(opening.clone());
        drop(slot);
        tokio::spawn(open(self.clone(), pause, tell));
        Ok(Err(opening))
    }
}

// === impl Slot ===

impl Slot {
    fn fail(&mut self, steady: bool, fault: UpstreamFault) {
        self.failures = if steady { 1 } else { self.failures.saturating_add(1) };
        let doublings = self.failures.saturating_sub(1).min(16);
        let pause = BACK_OFF_MIN.saturating_mul(1 << doublings).min(BACK_OFF_MAX);
        self.not_before = Instant::now().checked_add(pause);
        self.last_fault = Some((fault, Instant::now()));
        self.state = State::Idle;
    }

    fn pause(&self) -> Duration {
        let left = self.not_before.map(|at| at.saturating_duration_since(Instant::now()));
        left.unwrap_or_default()
    }
}

// === impl Connected ===

impl Connected {
    fn is_dead(&self) -> bool {
        match &self.link {
            Link::Stdio(link) => link.is_dead(),
            Link::Http(_) => false,
        }
    }

    /// Asks something that is not a call.
    async fn ask(&self, method: &str, params: Value) -> Result<RpcResponse, Fault> {
        match &self.link {
            Link::Stdio(link) => link.ask(method, params).await,
            Link::Http(link) => link.ask(link.plain(method, params)).await,
        }
    }
}

// === impl Fault ===

impl Fault {
    fn unsent(kind: UpstreamFault) -> Self {
        Self { may_have_arrived: false, kind }
    }

    fn doubtful(kind: UpstreamFault) -> Self {
        Self { may_have_arrived: true, kind }
    }
}

/// One page of a list of tools.
#[derive(serde::Deserialize)]
struct Page {
    tools: Vec<Value>,
    #[serde(rename = "nextCursor", default)]
    next: Option<String>,
}

// === impl Page ===

impl Page {
    fn read(response: &RpcResponse) -> Result<Self, UpstreamFault> {
        let raw = match &response.outcome {
            Outcome::Result(raw) => raw,
            Outcome::Error(raw) => {
                let text: String = raw.get().chars().take(512).collect();
                return Err(invalid(format!("`tools/list` failed: {text}")));
            }
        };
        serde_json::from_str(raw.get()).map_err(|error| invalid(format!("list of tools: {error}")))
    }
}

/// Opens the connection of `upstream` and puts it into its slot.
async fn open(upstream: Upstream, pause: Duration, tell: watch::Sender<Opened>) {
    let inner = &upstream.0;
    let attempt = async {
        tokio::time::sleep(pause).await;
        let bearer = inner.signs.bearer()?.cloned();
        let opened = negotiate::open((&inner.spec, bearer), &inner.tools_changed);
        match tokio::time::timeout(inner.spec.limits.start_timeout, opened).await {
            Ok(opened) => opened,
            Err(_) => Err(UpstreamFault::Timeout("the server did not start in time".to_owned())),
        }
    };
    let opened = tokio::select! {
        opened = attempt => opened.map(Arc::new),
        () = inner.closed.cancelled() => Err(unavailable("the server is closed")),
    };
    let mut slot = upstream.slot();
    match &opened {
        Ok(connected) if !inner.closed.is_cancelled() => {
            slot.state = State::Up(Arc::clone(connected));
            slot.opened = slot.opened.saturating_add(1);
            inner.tools_changed.mark_tools();
        }
        Ok(_) => slot.state = State::Idle,
        Err(fault) => {
            tracing::warn!(server = %inner.spec.server, %fault, "upstream cannot be used");
            slot.fail(false, fault.clone());
        }
    }
    drop(slot);
    let _ = tell.send(Some(opened));
}

fn invalid(text: impl Into<String>) -> UpstreamFault {
    UpstreamFault::Invalid(text.into())
}

fn unavailable(text: impl Into<String>) -> UpstreamFault {
    UpstreamFault::Unavailable(text.into())
}
