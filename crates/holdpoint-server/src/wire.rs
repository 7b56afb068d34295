//! The JSON that operators' commands and governing processes exchange.
//! Edge types, converted by hand; must never be used inside.

mod approvals;
mod plans;

pub use approvals::{ApprovalAnswer, ApprovalAsk, ApprovalReply, ApprovalState, could_approve};
pub use plans::{PlanAsk, PlanProposeAsk, next_steps, plan_json, unmet_steps};

use crate::doors::http::oauth::KeyHealth;
use crate::governor::{Became, StopReport};
use holdpoint_control::Running;
use holdpoint_policy::Guard;
use holdpoint_resources::Health;
use holdpoint_resources::mcp::era::Era;
use holdpoint_types::{ServerName, Stop, StopScope};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A process that governs, as it answers for itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusReply {
    /// Its id in records.
    pub gateway: String,
    /// The product's version.
    pub version: String,
    /// The epoch in force there.
    pub epoch: u64,
    /// Digest of the policies in force there.
    pub policy: String,
    /// The guard sets in force there.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub guards: Vec<GuardReply>,
    /// Why the policies that lie there are not in force, if they are not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub policies_refused: Option<String>,
    /// The stops in force there.
    pub stops: Vec<Stop>,
    /// The calls for which a permit is out.
    pub running: Vec<RunningReply>,
    /// How many tools it knows.
    pub tools: usize,
    /// True once it was asked to end.
    #[serde(default)]
    pub draining: bool,
    /// The upstream servers that it leads to over HTTP.
    #[serde(default)]
    pub upstreams: Vec<UpstreamReply>,
    /// The issuer whose access tokens it accepts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub issuer: Option<IssuerReply>,
    /// Who is told of approvals, and why that did not work the last time, if it did not.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub notify: BTreeMap<String, Option<String>>,
}

/// A guard set in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GuardReply {
    /// Its name.
    pub name: String,
    /// Its digest.
    pub digest: String,
    /// Its version.
    pub version: u64,
    /// Who signed it.
    pub signed_by: Vec<String>,
    /// The surfaces that it guards.
    pub surfaces: Vec<String>,
    /// The environments that it guards.
    pub environments: Vec<String>,
    /// When it expires.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires_ms: Option<i64>,
}

/// How the keys of an issuer of access tokens are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IssuerReply {
    /// The issuer.
    pub issuer: String,
    /// How many keys can be used.
    pub keys: usize,
    /// How long ago they were fetched, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub age_ms: Option<u64>,
    /// What went wrong with the last fetch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_fault: Option<String>,
}

/// How an upstream server is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UpstreamReply {
    /// Its name.
    pub server: String,
    /// `idle`, `connecting`, `up` or `down`.
    pub condition: String,
    /// `legacy` or `modern`, while it is up.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub era: Option<String>,
    /// How often it was started or reached anew.
    pub restarts: u64,
    /// Its failures in a row.
    pub failures: u32,
    /// What went wrong last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_fault: Option<String>,
    /// How long ago that was, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_fault_age_ms: Option<u64>,
}

/// A running call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunningReply {
    /// The action.
    pub action: String,
    /// Who acts.
    pub agent: String,
    /// Which tool.
    pub tool: String,
    /// Since when, in milliseconds since 1970.
    pub since_ms: i64,
    /// What became of it after a stop; absent in a status.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub became: Option<String>,
}

/// A process's answer to "obey the stops in the store".
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ObeyReply {
    /// Its id in records.
    pub gateway: String,
    /// The epoch in force there.
    pub epoch: u64,
    /// The calls that were running, with what became of each.
    pub in_flight: Vec<RunningReply>,
}

/// An operator's wish to stop something.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopAsk {
    /// What to stop.
    pub scope: StopScope,
    /// Why.
    pub reason: String,
}

/// An operator's wish to release something: one of `id` and `scope`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseAsk {
    /// The number of the stop.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<u64>,
    /// Or what it locks.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub scope: Option<StopScope>,
    /// Why.
    pub reason: String,
}

/// The acknowledgement of a stop or a release.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// The stop, or the stops released.
    pub stops: Vec<Stop>,
    /// The epoch that begins with it: nothing decided in an earlier one is admitted any more.
    pub epoch: u64,
    /// What every governing process answered.
    pub gateways: Vec<ObeyReply>,
    /// Governing processes that did not answer. They cannot admit anything either: the store
    /// refuses.
    pub unreachable: Vec<String>,
}

// === impl GuardReply ===

impl From<&Guard> for GuardReply {
    fn from(guard: &Guard) -> Self {
        let (manifest, scope) = (guard.manifest(), guard.scope());
        Self {
            name: guard.name().to_owned(),
            digest: guard.digest().to_string(),
            version: manifest.version,
            signed_by: guard.record().signed_by.clone(),
            surfaces: scope.surfaces.iter().cloned().collect(),
            environments: scope.environments.iter().cloned().collect(),
            expires_ms: manifest.expires.map(|at| at.0),
        }
    }
}

// === impl RunningReply ===

impl From<&Running> for RunningReply {
    fn from(running: &Running) -> Self {
        Self {
            action: running.action.to_string(),
            agent: running.agent.to_string(),
            tool: running.tool.to_string(),
            since_ms: running.since.0,
            became: None,
        }
    }
}

// === impl UpstreamReply ===

impl UpstreamReply {
    /// How `server` is.
    pub(crate) fn new(server: &ServerName, health: Health) -> Self {
        let era = health.era.map(|era| match era {
            Era::Legacy => "legacy".to_owned(),
            Era::Modern => "modern".to_owned(),
        });
        let (last_fault, age) = health.last_fault.unzip();
        let age = age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        Self {
            server: server.to_string(),
            condition: health.condition.as_str().to_owned(),
            era,
            restarts: health.restarts,
            failures: health.failures,
            last_fault,
            last_fault_age_ms: age,
        }
    }
}

// === impl IssuerReply ===

impl From<KeyHealth> for IssuerReply {
    fn from(health: KeyHealth) -> Self {
        let age_ms = health.age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let KeyHealth { issuer, keys, fault, .. } = health;
        Self { issuer, keys, age_ms, last_fault: fault }
    }
}

// === impl ObeyReply ===

impl From<&StopReport> for ObeyReply {
    fn from(report: &StopReport) -> Self {
        let in_flight = report.in_flight.iter().map(|(running, became)| {
            let became = Some(describe(became));
            RunningReply { became, ..RunningReply::from(running) }
        });
        Self {
            gateway: report.gateway.to_string(),
            epoch: report.epoch.0,
            in_flight: in_flight.collect(),
        }
    }
}

fn describe(became: &Became) -> String {
    match became {
        Became::Ended(status, None) => status.as_str().to_owned(),
        Became::Ended(status, Some(detail)) => format!("{}: {detail}", status.as_str()),
        Became::StillRunning => "still running after the grace period".to_owned(),
    }
}
