//! A gateway whose calls do not wait for their records: shows what is ours and what is the disk's.
//!
//! `bench-unawaited STORE UPSTREAM-URL AGENT`. Exists only with the feature `unawaited`, which the
//! product is never built with. Must never be used to govern anything.

use anyhow::{Context, bail};
use holdpoint_bench::TOOL;
use holdpoint_control::{Agent, Grant, ServerRules, Settings, SettingsParts, Team, ToolPattern};
use holdpoint_resources::{Limits as UpstreamLimits, Transport, Upstream, UpstreamSpec};
use holdpoint_server::doors::http::{self, HttpDoor, HttpSettings};
use holdpoint_server::doors::local::Kind;
use holdpoint_server::governor::Limits;
use holdpoint_server::runtime::{Runtime, RuntimeSpec};
use holdpoint_types::{EffectClass, JsonLimits, Mode, ServerName};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// As in the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [store, url, agent] = words.as_slice() else {
        bail!("usage: bench-unawaited STORE UPSTREAM-URL AGENT");
    };
    let server: ServerName = TOOL.parse()?;
    let store = PathBuf::from(store);
    let spec = RuntimeSpec {
        store: store.clone(),
        kind: Kind::Serve,
        settings: settings(agent, &server)?,
        policies: None,
        strict: BTreeSet::new(),
        limits: Limits {
            calls_in_flight_max: 256,
            output_stored_bytes_max: 64 << 10,
            stop_grace: Duration::from_secs(2),
        },
    };
    let runtime = Runtime::start(spec).await?;
    let upstreams = BTreeMap::from([(server.clone(), upstream(server, url))]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let http_settings = HttpSettings {
        store,
        hosts: vec![address.to_string()],
        anonymous: None,
        operators: Vec::new(),
        json: JsonLimits::default(),
    };
    let door = HttpDoor::new(runtime.governor().clone(), upstreams, http_settings)?;
    println!("http://{address}/mcp");
    http::serve(listener, Arc::new(door), CancellationToken::new()).await.context("the door failed")
}

fn upstream(server: ServerName, url: &str) -> Upstream {
    let transport = Transport::Http { url: url.to_owned(), headers: Vec::new() };
    let timeout = Duration::from_secs(60);
    Upstream::new(UpstreamSpec { server, transport, timeout, limits: UpstreamLimits::default() })
}

fn settings(agent: &str, server: &ServerName) -> anyhow::Result<Settings> {
    let read = vec![ToolPattern::parse(TOOL)?];
    let granted = vec![ToolPattern::parse(&format!("{server}__*"))?];
    let grants = vec![Grant::new(EffectClass::Read, granted)?];
    let agent_rules = Agent { owner: "bench".parse()?, mode: Mode::Auto, grants };
    let environment = Some("dev".to_owned());
    let rules = ServerRules { environment, read, ..ServerRules::default() };
    let parts = SettingsParts {
        teams: BTreeMap::from([("bench".parse()?, Team::default())]),
        agents: BTreeMap::from([(agent.parse()?, agent_rules)]),
        servers: BTreeMap::from([(server.clone(), rules)]),
        ..SettingsParts::default()
    };
    Ok(Settings::new(parts)?)
}
