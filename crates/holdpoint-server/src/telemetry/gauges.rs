//! What is measured at the moment somebody looks: stops, ledger, upstream servers, keys.
//! Must never write, and must never fail a whole look because one part cannot be read.

use super::Labels;
use crate::governor::Governor;
use holdpoint_resources::Condition;
use holdpoint_types::{StopScope, ToolState};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::borrow::Cow;
use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

type Gauges1<const N: usize> = Family<Labels<N>, Gauge>;
type Seconds = Gauge<f64, AtomicU64>;

/// The gauges that are set anew at each look.
#[derive(Default)]
pub(super) struct Gauges {
    calls_in_flight: Gauge,
    epoch: Gauge,
    stops: Gauges1<1>,
    tools: Gauges1<1>,
    keys: Gauge,
    ledger_records: Gauge,
    ledger_waiting: Gauge,
    ledger_commit_age: Seconds,
    ledger_ok: Gauge,
    checks_open: Gauge,
    checks_overdue: Seconds,
    ready: Gauge,
    issuer_keys: Gauge,
    issuer_keys_age: Seconds,
    upstream: Gauges1<2>,
    upstream_restarts: Gauges1<1>,
    upstream_failures: Gauges1<1>,
}

// === impl Gauges ===

impl Gauges {
    pub(super) fn register(to: &mut Registry) -> Self {
        let own = Self::default();
        let version = Cow::Borrowed(env!("CARGO_PKG_VERSION"));
        to.register("build", "This build", Info::new([("version", version)]));
        let started: Seconds = Gauge::default();
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        started.set(elapsed.as_secs_f64());
        to.register("start_time_seconds", "When the process began to govern, since 1970", started);
        let text = "Calls between decision and outcome";
        to.register("calls_in_flight", text, own.calls_in_flight.clone());
        to.register("epoch", "The epoch in force", own.epoch.clone());
        to.register("stops", "Stops in force, by what they lock", own.stops.clone());
        to.register("tools", "Tools known, by state", own.tools.clone());
        to.register("agent_keys", "Agents' keys in force", own.keys.clone());
        let text = "Keys of the issuer of access tokens that can be used";
        to.register("issuer_keys", text, own.issuer_keys.clone());
        let text = "Seconds since the issuer's keys were fetched";
        to.register("issuer_keys_age_seconds", text, own.issuer_keys_age.clone());
        to.register("ready", "1 while the process takes calls", own.ready.clone());
        own.register_ledger(to);
        let text = "1 for the condition that a server is in";
        to.register("upstream", text, own.upstream.clone());
        let text = "How often a server was started or reached anew";
        to.register("upstream_restarts", text, own.upstream_restarts.clone());
        let text = "A server's failures in a row";
        to.register("upstream_failures", text, own.upstream_failures.clone());
        own
    }

    fn register_ledger(&self, to: &mut Registry) {
        to.register("ledger_records", "Records in the ledger", self.ledger_records.clone());
        let text = "What waits to become durable";
        to.register("ledger_waiting", text, self.ledger_waiting.clone());
        let text = "Seconds since this process last made something durable";
        to.register("ledger_commit_age_seconds", text, self.ledger_commit_age.clone());
        let text = "Checks after calls that are still to be made";
        to.register("checks_open", text, self.checks_open.clone());
        let text = "How long the longest overdue check after a call waits";
        to.register("checks_overdue_seconds", text, self.checks_overdue.clone());
        let text = "1 while the last write to the ledger succeeded";
        to.register("ledger_ok", text, self.ledger_ok.clone());
    }

    /// Measures everything.
    pub(super) fn measure(&self, governor: &Governor) {
        self.calls_in_flight.set(count(governor.in_flight()));
        self.epoch.set(i64::try_from(governor.epoch().0).unwrap_or(i64::MAX));
        self.ready.set(i64::from(!governor.telemetry().is_draining()));
        let issuer = governor.telemetry().issuer();
        self.issuer_keys.set(count(issuer.as_ref().map_or(0, |issuer| issuer.keys)));
        let age = issuer.and_then(|issuer| issuer.age).unwrap_or_default();
        self.issuer_keys_age.set(age.as_secs_f64());
        self.measure_stops(governor);
        self.measure_tools(governor);
        self.measure_ledger(governor);
        self.measure_upstreams(governor);
    }

    fn measure_stops(&self, governor: &Governor) {
        let stops = governor.stops();
        for kind in ["all", "agent", "server", "tool"] {
            let of_kind = stops.iter().filter(|stop| kind_of(&stop.scope) == kind);
            let labels = [("scope", Cow::Borrowed(kind))];
            self.stops.get_or_create(&labels).set(count(of_kind.count()));
        }
    }

    fn measure_tools(&self, governor: &Governor) {
        let tools = governor.catalog().all();
        let pinned = tools.iter().filter(|tool| tool.state == ToolState::Pinned).count();
        let labels = |state| [("state", Cow::Borrowed(state))];
        self.tools.get_or_create(&labels("pinned")).set(count(pinned));
        let locked = tools.len().saturating_sub(pinned);
        self.tools.get_or_create(&labels("quarantined")).set(count(locked));
    }

    fn measure_ledger(&self, governor: &Governor) {
        let store = governor.store();
        if let Ok(size) = store.size() {
            self.ledger_records.set(i64::try_from(size).unwrap_or(i64::MAX));
        }
        if let Ok(keys) = store.keys() {
            self.keys.set(count(keys.iter().filter(|key| key.revoked_at.is_none()).count()));
        }
        self.checks_open.set(i64::try_from(governor.open_checks()).unwrap_or(i64::MAX));
        self.checks_overdue.set(governor.checks_overdue().as_secs_f64());
        let lag = store.lag();
        self.ledger_waiting.set(count(lag.waiting));
        self.ledger_commit_age.set(lag.commit_age.as_secs_f64());
        self.ledger_ok.set(i64::from(store.health().is_ok()));
    }

    fn measure_upstreams(&self, governor: &Governor) {
        // A server that was removed must not stay as it was last.
        self.upstream.clear();
        self.upstream_restarts.clear();
        self.upstream_failures.clear();
        for (server, upstream) in governor.telemetry().upstreams() {
            let health = upstream.health();
            let server = ("server", Cow::<'static, str>::Owned(server.to_string()));
            for condition in Condition::ALL {
                let labels = [server.clone(), ("condition", condition.as_str().into())];
                let is = i64::from(condition == health.condition);
                self.upstream.get_or_create(&labels).set(is);
            }
            let restarts = i64::try_from(health.restarts).unwrap_or(i64::MAX);
            let labels = [server];
            self.upstream_restarts.get_or_create(&labels).set(restarts);
            self.upstream_failures.get_or_create(&labels).set(i64::from(health.failures));
        }
    }
}

fn kind_of(scope: &StopScope) -> &'static str {
    match scope {
        StopScope::All => "all",
        StopScope::Agent(_) => "agent",
        StopScope::Server(_) => "server",
        StopScope::Tool(_) => "tool",
    }
}

fn count(some: usize) -> i64 {
    i64::try_from(some).unwrap_or(i64::MAX)
}
