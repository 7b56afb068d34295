//! Finding out which era a server speaks (MCP 2026-07-28, versioning, backward compatibility).
//! Must never send anything but `server/discover`, `initialize` and `notifications/initialized`.

use super::changes::Changes;
use super::http::HttpLink;
use super::stdio::StdioLink;
use super::{Bearer, Connected, Link, Transport, UpstreamFault, UpstreamSpec, invalid};
use crate::mcp::era::{self, Identity};
use crate::mcp::{Era, Outcome, RpcNotification, RpcResponse, tasks};
use crate::process::ProcessSpec;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Instant;

/// What the answer to `server/discover` tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// The server speaks our modern revision.
    Modern(Spoken),
    /// The server wants the handshake.
    Legacy,
    /// The server is modern, but we have no revision in common.
    Nothing,
}

/// What a server has agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spoken {
    /// The era.
    pub(super) era: Era,
    /// True if it may answer a call with a task: by the extension of the modern era only.
    pub(super) tasks: bool,
}

/// Members of a `DiscoverResult`.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Discovered {
    supported_versions: Vec<String>,
    #[serde(default)]
    capabilities: Value,
}

/// Members of a JSON-RPC error.
#[derive(serde::Deserialize)]
struct Refused {
    code: i64,
    #[serde(default)]
    data: Value,
}

/// Members of an `InitializeResult`.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Initialized {
    protocol_version: String,
}

// === impl Spoken ===

impl Spoken {
    pub(super) const LEGACY: Self = Self { era: Era::Legacy, tasks: false };
}

/// Opens a connection and agrees on an era.
pub(super) async fn open(
    (spec, bearer): (&UpstreamSpec, Option<Bearer>),
    tools_changed: &Arc<Changes>,
) -> Result<Connected, UpstreamFault> {
    let (link, spoken) = match &spec.transport {
        Transport::Stdio(process) => {
            let (link, spoken) = open_stdio(process, spec, tools_changed).await?;
            (Link::Stdio(link), spoken)
        }
        Transport::Own(_) => return Err(UpstreamFault::Invalid(super::SERVED_HERE.to_owned())),
        Transport::Http { url, headers, .. } => {
            let link = HttpLink::new(url, headers, spec.limits, tools_changed)?;
            let mut link = link.with_bearer(bearer);
            let spoken = link.negotiate().await?;
            (Link::Http(Box::new(link)), spoken)
        }
    };
    let Spoken { era, tasks } = spoken;
    tracing::debug!(server = %spec.server, ?era, "upstream connected");
    Ok(Connected { link, era, tasks, since: Instant::now() })
}

/// Reads the answer to `server/discover`.
pub(super) fn read_probe(response: &RpcResponse) -> Probe {
    match &response.outcome {
        Outcome::Result(raw) => match serde_json::from_str::<Discovered>(raw.get()) {
            Ok(found) => {
                probe_of(&found.supported_versions, tasks::is_declared(&found.capabilities))
            }
            Err(_) => Probe::Legacy,
        },
        Outcome::Error(raw) => match serde_json::from_str::<Refused>(raw.get()) {
            Ok(refused) if era::is_modern_error(refused.code) => {
                let supported = refused.data.get("supported").and_then(Value::as_array);
                let texts = supported.into_iter().flatten().filter_map(Value::as_str);
                probe_of(&texts.map(str::to_owned).collect::<Vec<_>>(), false)
            }
            Ok(_) | Err(_) => Probe::Legacy,
        },
    }
}

/// Reads the answer to `initialize`: the revision that the server chose.
pub(super) fn read_initialize(response: &RpcResponse) -> Result<String, UpstreamFault> {
    let raw = match &response.outcome {
        Outcome::Result(raw) => raw,
        Outcome::Error(raw) => {
            let text: String = raw.get().chars().take(512).collect();
            return Err(invalid(format!("`initialize` was refused: {text}")));
        }
    };
    let found: Initialized = serde_json::from_str(raw.get())
        .map_err(|error| invalid(format!("answer to `initialize`: {error}")))?;
    if !era::REVISIONS_UPSTREAM_LEGACY.contains(&found.protocol_version.as_str()) {
        return Err(nothing_in_common());
    }
    Ok(found.protocol_version)
}

/// The parameters of `server/discover`.
pub(super) fn probe_params() -> Value {
    era::params_for(Era::Modern, Map::new(), &Identity::holdpoint())
}

pub(super) fn nothing_in_common() -> UpstreamFault {
    invalid("the server speaks no MCP revision that Holdpoint speaks")
}

fn probe_of(supported: &[String], tasks: bool) -> Probe {
    match era::common_era(supported) {
        Some(era @ Era::Modern) => Probe::Modern(Spoken { era, tasks }),
        Some(Era::Legacy) => Probe::Legacy,
        None => Probe::Nothing,
    }
}

async fn open_stdio(
    process: &ProcessSpec,
    spec: &UpstreamSpec,
    tools_changed: &Arc<Changes>,
) -> Result<(StdioLink, Spoken), UpstreamFault> {
    let start = || StdioLink::start(process, spec.limits, tools_changed);
    let link = start()?;
    let mut flight = link.begin("server/discover", probe_params()).await?;
    let answer = tokio::time::timeout(spec.limits.probe_timeout, flight.answer()).await;
    flight.forget();
    match answer {
        Ok(Ok(response)) => match read_probe(&response) {
            Probe::Modern(spoken) => return Ok((link, spoken)),
            Probe::Nothing => return Err(nothing_in_common()),
            Probe::Legacy => {}
        },
        Ok(Err(_)) => {
            // Some legacy servers do not survive an unknown opening: start again without it.
            drop(flight);
            link.close().await;
            let link = start()?;
            initialize(&link).await?;
            return Ok((link, Spoken::LEGACY));
        }
        Err(_) => {}
    }
    match initialize(&link).await {
        Ok(()) => Ok((link, Spoken::LEGACY)),
        // A modern server that was slow to start has answered the first question by now.
        Err(fault) => match flight.answer_now().map(|response| read_probe(&response)) {
            Some(Probe::Modern(spoken)) => Ok((link, spoken)),
            Some(Probe::Legacy | Probe::Nothing) | None => Err(fault),
        },
    }
}

async fn initialize(link: &StdioLink) -> Result<(), UpstreamFault> {
    let params = era::initialize_params(&Identity::holdpoint());
    let response = link.ask("initialize", params).await.map_err(|fault| fault.kind)?;
    read_initialize(&response)?;
    link.notify(&initialized()).await
}

/// The notification that ends the handshake.
pub(super) fn initialized() -> RpcNotification {
    RpcNotification { method: "notifications/initialized".to_owned(), params: None }
}
