//! What operators watch: counters and histograms of everything that is decided and done.
//!
//! Owns the metrics and their names. Must never take a label from an agent: labels are stable
//! words, or names that the operator declared or a pinned tool has, bounded in number. Must never
//! hold a call up.

mod gauges;
mod names;
pub mod operations;

use crate::doors::http::oauth::{IssuerKeys, KeyHealth};
use gauges::Gauges;
use holdpoint_resources::Upstream;
use holdpoint_types::{Finding, Reason, Ruling, ServerName, ToolRef};
use names::Names;
use parking_lot::{Mutex, RwLock};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Most agents that have a label of their own.
const AGENTS_MAX: usize = 256;
/// Most tools that have a label of their own.
const TOOLS_MAX: usize = 512;
/// Most validators that have a label of their own.
const VALIDATORS_MAX: usize = 256;
/// Upper bounds of the time that a decision takes, its durable record included, in seconds.
const DECISION_SECONDS: [f64; 12] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];
/// Upper bounds of the time that an upstream server takes, in seconds.
const CALL_SECONDS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0, 300.0];

/// The labels of one metric: names and values.
type Labels<const N: usize> = [(&'static str, Cow<'static, str>); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Latencies<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;

/// What is counted while it happens.
pub struct Telemetry {
    registry: Registry,
    gauges: Gauges,
    requests: Counters<2>,
    refusals: Counters<1>,
    decisions: Counters<2>,
    agents: Counters<2>,
    decision_seconds: Latencies<1>,
    calls: Counters<3>,
    call_seconds: Latencies<1>,
    checks: Counters<3>,
    reloads: Counters<2>,
    connections: Gauge,
    connections_refused: Counters<1>,
    waiting: Gauge,
    agent_names: Names,
    tool_names: Names,
    validator_names: Names,
    upstreams: RwLock<BTreeMap<ServerName, Upstream>>,
    issuer: RwLock<Option<Arc<IssuerKeys>>>,
    policies_refused: Mutex<Option<String>>,
    told: Mutex<BTreeMap<String, Option<String>>>,
    draining: AtomicBool,
}

/// Whether something that was loaded anew came into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// It did.
    InForce,
    /// It was refused; what was in force before still is.
    Refused,
}

// === impl Telemetry ===

impl Default for Telemetry {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("holdpoint");
        let gauges = Gauges::register(&mut registry);
        let decision_seconds: Latencies<1> =
            Family::new_with_constructor(|| Histogram::new(DECISION_SECONDS));
        let call_seconds: Latencies<1> =
            Family::new_with_constructor(|| Histogram::new(CALL_SECONDS));
        let mut all = Self {
            registry: Registry::default(),
            gauges,
            requests: Family::default(),
            refusals: Family::default(),
            decisions: Family::default(),
            agents: Family::default(),
            decision_seconds,
            calls: Family::default(),
            call_seconds,
            checks: Family::default(),
            reloads: Family::default(),
            connections: Gauge::default(),
            connections_refused: Family::default(),
            waiting: Gauge::default(),
            agent_names: Names::new(AGENTS_MAX),
            tool_names: Names::new(TOOLS_MAX),
            validator_names: Names::new(VALIDATORS_MAX),
            upstreams: RwLock::default(),
            issuer: RwLock::default(),
            policies_refused: Mutex::default(),
            told: Mutex::default(),
            draining: AtomicBool::new(false),
        };
        all.register(&mut registry);
        all.registry = registry;
        all
    }
}

impl Telemetry {
    fn register(&self, to: &mut Registry) {
        let text = "Requests over HTTP, by method and status";
        to.register("http_requests", text, self.requests.clone());
        let text = "Messages that got no further than a door, by reason";
        to.register("door_refusals", text, self.refusals.clone());
        let text = "Decisions, by ruling and by the reason that decided";
        to.register("decisions", text, self.decisions.clone());
        to.register("agent_decisions", "Decisions, by agent and ruling", self.agents.clone());
        let text = "Seconds from a call's arrival to its durable decision, by ruling";
        to.register("decision_seconds", text, self.decision_seconds.clone());
        let text = "Executed calls, by server, tool and how they ended";
        to.register("calls", text, self.calls.clone());
        let text = "Seconds from permit to end of a call, by server";
        to.register("call_seconds", text, self.call_seconds.clone());
        let text = "Checks after calls, by validator, result and severity";
        to.register("checks", text, self.checks.clone());
        let text = "Configurations and policies loaded while running, by what came of it";
        to.register("reloads", text, self.reloads.clone());
        to.register("connections", "Open connections", self.connections.clone());
        let text = "Connections that were refused or cut, by why";
        to.register("connections_refused", text, self.connections_refused.clone());
        let text = "Requests that wait for their turn";
        to.register("requests_waiting", text, self.waiting.clone());
    }

    /// A request over HTTP was answered.
    pub(crate) fn requested(&self, method: &'static str, status: u16) {
        let status = Cow::Owned(status.to_string());
        self.requests.get_or_create(&[("method", method.into()), ("status", status)]).inc();
    }

    /// A message got no further than a door.
    pub(crate) fn refused(&self, reason: Reason) {
        self.refusals.get_or_create(&[("reason", reason.code().into())]).inc();
    }

    /// A decision was made. `agent` is absent if the operator declared none of that name.
    pub(crate) fn decided(
        &self,
        (ruling, reason): (Ruling, Reason),
        agent: Option<&str>,
        took: Duration,
    ) {
        let ruling = ("ruling", Cow::Borrowed(ruling.as_str()));
        let reason = ("reason", Cow::Borrowed(reason.code()));
        self.decisions.get_or_create(&[ruling.clone(), reason]).inc();
        let agent = ("agent", self.agent_names.label(agent));
        self.agents.get_or_create(&[agent, ruling.clone()]).inc();
        self.decision_seconds.get_or_create(&[ruling]).observe(took.as_secs_f64());
    }

    /// An executed call ended.
    pub(crate) fn called(&self, tool: &ToolRef, outcome: &'static str, took: Duration) {
        let server = Cow::<'static, str>::Owned(tool.server().to_string());
        // Only tools of the catalog are ever permitted, so the name is no agent's invention.
        let tool = ("tool", self.tool_names.label(Some(&tool.to_string())));
        let labels = [("server", server.clone()), tool, ("outcome", outcome.into())];
        self.calls.get_or_create(&labels).inc();
        self.call_seconds.get_or_create(&[("server", server)]).observe(took.as_secs_f64());
    }

    /// A check after a call was made, or was due and nobody made it in time.
    pub(crate) fn checked(&self, found: &Finding) {
        let validator = ("validator", self.validator_names.label(Some(&found.validator)));
        let result = ("result", Cow::Borrowed(found.result.as_str()));
        let severity = ("severity", Cow::Borrowed(found.severity.as_str()));
        self.checks.get_or_create(&[validator, result, severity]).inc();
    }

    /// Something was loaded anew.
    pub fn reloaded(&self, what: &'static str, came: Reload) {
        let result = match came {
            Reload::InForce => "in_force",
            Reload::Refused => "refused",
        };
        self.reloads.get_or_create(&[("what", what.into()), ("result", result.into())]).inc();
    }

    /// Policies were loaded anew, or refused for a reason that stays until others come into force.
    pub(crate) fn policies_reloaded(&self, came: Result<(), String>) {
        self.reloaded("policies", if came.is_ok() { Reload::InForce } else { Reload::Refused });
        *self.policies_refused.lock() = came.err();
    }

    /// Why the policies that lie there are not in force, if they are not.
    pub fn policies_refused(&self) -> Option<String> {
        self.policies_refused.lock().clone()
    }

    /// Replaces who is told of approvals.
    pub(crate) fn tells(&self, names: impl Iterator<Item = String>) {
        *self.told.lock() = names.map(|name| (name, None)).collect();
    }

    /// Somebody was told of an approval, or could not be.
    pub(crate) fn told(&self, name: &str, fault: Option<String>) {
        if let Some(known) = self.told.lock().get_mut(name) {
            *known = fault;
        }
    }

    /// Who is told of approvals, and why that did not work the last time, if it did not.
    pub fn those_told(&self) -> BTreeMap<String, Option<String>> {
        self.told.lock().clone()
    }

    /// A connection was opened.
    pub(crate) fn connected(&self) {
        self.connections.inc();
    }

    /// A connection ended.
    pub(crate) fn disconnected(&self) {
        self.connections.dec();
    }

    /// A connection was refused or cut.
    pub(crate) fn cut(&self, why: &'static str) {
        self.connections_refused.get_or_create(&[("why", why.into())]).inc();
    }

    /// A request began to wait for its turn.
    pub(crate) fn waits(&self) {
        self.waiting.inc();
    }

    /// A request waits no longer.
    pub(crate) fn waited(&self) {
        self.waiting.dec();
    }

    /// Replaces the upstream servers whose health is shown.
    pub fn watch(&self, upstreams: BTreeMap<ServerName, Upstream>) {
        *self.upstreams.write() = upstreams;
    }

    /// The upstream servers whose health is shown.
    pub fn upstreams(&self) -> BTreeMap<ServerName, Upstream> {
        self.upstreams.read().clone()
    }

    /// Replaces the issuer of access tokens whose keys are shown.
    pub fn watch_issuer(&self, keys: Option<Arc<IssuerKeys>>) {
        *self.issuer.write() = keys;
    }

    /// How the keys of the issuer of access tokens are, if there is one.
    pub fn issuer(&self) -> Option<KeyHealth> {
        self.issuer.read().as_ref().map(|keys| keys.health())
    }

    /// From now on the process is not ready.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// True once the process was asked to end.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

impl Telemetry {
    /// Everything, as OpenMetrics text. Reads the store: blocks.
    ///
    /// # Errors
    /// When a metric cannot be written as text.
    pub fn render(&self, governor: &crate::governor::Governor) -> Result<String, std::fmt::Error> {
        self.gauges.measure(governor);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
