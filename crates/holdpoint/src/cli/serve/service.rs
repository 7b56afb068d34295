//! The parts of a running `serve`: doors, upstream servers, runtime.
//! Must never leave one part in force without the others.

use crate::gateway::Rest;
use anyhow::Context as _;
use holdpoint_resources::Upstream;
use holdpoint_server::doors::http::listen::{self, Front};
use holdpoint_server::doors::http::oauth::IssuerKeys;
use holdpoint_server::doors::http::{HttpDoor, HttpSettings};
use holdpoint_server::doors::stdio::host;
use holdpoint_server::governor::Governor;
use holdpoint_server::notify::Tellers;
use holdpoint_server::runtime::{Runtime, RuntimeSpec};
use holdpoint_server::telemetry::operations;
use holdpoint_types::ServerName;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest accepted message of a wrapped server, in bytes.
pub const SERVER_BYTES_MAX: usize = 16 << 20;
/// How long answers may take to reach agents after the last call has ended.
const PARTING: Duration = Duration::from_secs(5);

/// A running `serve`.
pub struct Service {
    runtime: Runtime,
    upstreams: BTreeMap<ServerName, Upstream>,
    door: Arc<HttpDoor>,
    front: Arc<Front>,
    address: SocketAddr,
    operations: Option<(SocketAddr, Arc<Front>)>,
    drain: Duration,
    tellers: Tellers,
    /// Ends the doors for agents.
    done: CancellationToken,
    serving: JoinHandle<()>,
}

// === impl Service ===

impl Service {
    /// Opens all doors.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub async fn start(runtime: Runtime, rest: &Rest) -> anyhow::Result<Self> {
        let upstreams = rest.upstreams()?;
        let governor = runtime.governor().clone();
        let notify = rest.notify()?;
        governor.replace_resources(rest.resources(&upstreams)?);
        tokio::spawn(warn(governor.clone()));
        let tls = rest.tls()?;
        let listener = bind(rest.listen.http).await?;
        let address = listener.local_addr()?;
        let settings = http_settings(rest, address, None)?;
        let door = Arc::new(HttpDoor::new(governor.clone(), upstreams.clone(), settings)?);
        door.reach();
        door.limit(rest.turns());
        let done = CancellationToken::new();
        let operations = open_operations(&runtime, rest).await?;
        let wraps = host::WrapLimits {
            json: rest.json(),
            server_bytes_max: SERVER_BYTES_MAX,
            grace: rest.grace(),
        };
        host::open(governor.clone(), &runtime.sockets().wrap_socket, wraps, done.clone())
            .context("cannot open the socket for wraps")?;
        tokio::spawn(follow_keys(Arc::clone(&door), runtime.store_moved()));
        let front = Arc::new(Front::new(rest.front(), tls));
        let router = Arc::clone(&door).router();
        let how = (Arc::clone(&front), governor);
        let serving = tokio::spawn(listen::serve(listener, router, how, done.clone()));
        let tellers = Tellers::start(runtime.governor(), notify)?;
        let drain = rest.drain();
        Ok(Self {
            runtime,
            upstreams,
            door,
            front,
            address,
            operations,
            drain,
            tellers,
            done,
            serving,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where agents find it.
    pub fn url(&self) -> String {
        let scheme = if self.front.speaks_tls() { "https" } else { "http" };
        format!("{scheme}://{}/mcp", self.address)
    }

    /// Where health and metrics are.
    pub fn operations(&self) -> Option<SocketAddr> {
        self.operations.as_ref().map(|(address, _)| *address)
    }

    /// Reads the agents' keys anew, after one was issued through this very process.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn read_keys(&self) -> anyhow::Result<()> {
        Ok(self.door.read_keys()?)
    }

    /// Who governs.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Brings another configuration into force. Servers that stay as they are stay connected; of
    /// the others, calls in flight end as they would have. True if the settings differ.
    ///
    /// # Errors
    /// When a part of the new one cannot be had; then all of the old one stays in force.
    pub async fn replace(&mut self, spec: RuntimeSpec, rest: &Rest) -> anyhow::Result<bool> {
        let settings = http_settings(rest, self.address, self.door.issuer_keys())?;
        let tls = rest.tls()?;
        let mut upstreams = rest.upstreams()?;
        for (name, upstream) in &mut upstreams {
            match self.upstreams.get(name) {
                Some(before) if before.spec() == upstream.spec() => *upstream = before.clone(),
                Some(_) | None => {}
            }
        }
        let resources = rest.resources(&upstreams)?;
        let governor = self.runtime.governor();
        // They begin once those before them have ended.
        let tellers = Tellers::start(governor, rest.notify()?)?;
        let RuntimeSpec { settings: rules, strict, limits, validators, .. } = spec;
        let differs = governor.replace_settings(rules, strict, limits).await?;
        // From here on nothing can fail.
        governor.replace_validators(validators);
        governor.replace_resources(resources);
        tokio::spawn(warn(governor.clone()));
        for (name, before) in &self.upstreams {
            if upstreams.get(name).is_none_or(|now| now.spec() != before.spec()) {
                tracing::info!(server = %name, "an upstream server was removed or replaced");
                governor.catalog().forget(name);
            }
        }
        self.tellers = tellers;
        self.door.replace(upstreams.clone(), settings);
        self.door.limit(rest.turns());
        self.front.replace(rest.front(), tls);
        if let Some((_, front)) = &self.operations {
            front.replace(rest.front(), None);
        }
        self.drain = rest.drain();
        self.upstreams = upstreams;
        Ok(differs)
    }

    /// Admits nothing any more, lets calls in flight end, then closes everything.
    pub async fn end(self) {
        let drained = self.runtime.governor().drain(self.drain).await;
        if drained.cancelled > 0 {
            let (cancelled, left) = (drained.cancelled, drained.left);
            tracing::warn!(cancelled, left, "calls were stopped because their time was over");
        }
        drop(self.tellers);
        self.done.cancel();
        if tokio::time::timeout(PARTING, self.door.end_sessions()).await.is_err() {
            tracing::warn!("sessions did not end in time: their servers are killed");
        }
        if tokio::time::timeout(PARTING, self.serving).await.is_err() {
            tracing::warn!("connections were cut: their peers take no answers");
        }
        for upstream in self.upstreams.values() {
            upstream.close().await;
        }
        self.runtime.shut_down().await;
        tracing::info!("ended: every record is durable");
    }
}

/// Opens the door for health and metrics. It stays open until the process ends, so that a drain can
/// be watched.
async fn open_operations(
    runtime: &Runtime,
    rest: &Rest,
) -> anyhow::Result<Option<(SocketAddr, Arc<Front>)>> {
    let Some(address) = rest.listen.operations else { return Ok(None) };
    let listener = bind(address).await?;
    let address = listener.local_addr()?;
    let governor = runtime.governor().clone();
    let front = Arc::new(Front::new(rest.front(), None));
    let router = operations::router(governor.clone());
    let how = (Arc::clone(&front), governor);
    tokio::spawn(listen::serve(listener, router, how, CancellationToken::new()));
    Ok(Some((address, front)))
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("cannot listen on `{address}`"))
}

/// The hosts that the configuration names, with the port that was really bound.
fn http_settings(
    rest: &Rest,
    address: SocketAddr,
    issuer_keys: Option<Arc<IssuerKeys>>,
) -> anyhow::Result<HttpSettings> {
    let bound = |host: &String| match host.strip_suffix(":0") {
        Some(name) => format!("{name}:{}", address.port()),
        None => host.clone(),
    };
    let scheme = if rest.listen.tls.is_some() { "https" } else { "http" };
    Ok(HttpSettings {
        store: rest.store.clone(),
        hosts: rest.listen.hosts.iter().map(bound).collect(),
        anonymous: rest.listen.anonymous_agent.clone(),
        operators: rest.operator_keys()?,
        links: rest.linked(),
        oauth: rest.oauth(&format!("{scheme}://{address}"), issuer_keys)?,
        json: rest.json(),
    })
}

/// Says what an operator should know of how targets are reached. Nobody waits for it.
async fn warn(governor: Governor) {
    for (server, said) in governor.resources().warnings().await {
        match said {
            Ok(text) => tracing::warn!(%server, "{text} (docs/reversibility.md)"),
            Err(fault) => tracing::warn!(%server, "it cannot be looked at: {fault}"),
        }
    }
}

async fn follow_keys(door: Arc<HttpDoor>, mut moved: tokio::sync::watch::Receiver<u64>) {
    while moved.changed().await.is_ok() {
        if let Err(fault) = door.read_keys() {
            tracing::error!(%fault, "the agents' keys cannot be read anew");
        }
    }
}
