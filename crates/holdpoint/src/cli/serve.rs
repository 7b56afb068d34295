//! `holdpoint serve`: governs agents that come by HTTP, and `wrap`s on this machine.
//! Must not answer before every part stands, and must not leave before every record is durable.

use super::{Exit, Format, Globals, answer};
use crate::gateway::{Rest, runtime_spec};
use anyhow::Context as _;
use holdpoint_resources::Upstream;
use holdpoint_server::doors::http::{self, HttpDoor, HttpSettings};
use holdpoint_server::doors::local::Kind;
use holdpoint_server::doors::stdio::host;
use holdpoint_server::runtime::Runtime;
use holdpoint_types::ServerName;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Longest accepted message of a wrapped server, in bytes.
pub const SERVER_BYTES_MAX: usize = 16 << 20;
/// How long calls in flight may take to end when the process is asked to end.
const DRAIN: Duration = Duration::from_secs(10);

/// Govern agents over HTTP, and every `wrap` on this machine.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `holdpoint serve` until SIGINT or SIGTERM.
///
/// # Errors
/// When a part cannot start.
pub fn run(_args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    let config = globals.load()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        // Heard from the beginning: whoever reads the announcement may ask to end at once.
        let asked = asked_to_end()?;
        let (spec, rest) = runtime_spec(config, Kind::Serve);
        let service = Service::start(Runtime::start(spec).await?, &rest).await?;
        announce(&service, globals.format)?;
        asked.await;
        tracing::info!("asked to end: no new calls");
        service.end().await;
        anyhow::Ok(())
    });
    runtime.shutdown_background();
    served.map(|()| Exit::Ok)
}

/// A running `serve`.
pub struct Service {
    runtime: Runtime,
    upstreams: BTreeMap<ServerName, Upstream>,
    door: Arc<HttpDoor>,
    address: SocketAddr,
    done: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
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
        let wraps = host::WrapLimits {
            json: rest.json(),
            server_bytes_max: SERVER_BYTES_MAX,
            grace: rest.grace(),
        };
        let done = CancellationToken::new();
        let socket = &runtime.sockets().wrap_socket;
        host::open(governor.clone(), socket, wraps, done.clone())
            .context("cannot open the socket for wraps")?;
        let listener = TcpListener::bind(rest.listen.http).await;
        let listener =
            listener.with_context(|| format!("cannot listen on `{}`", rest.listen.http))?;
        let address = listener.local_addr()?;
        let settings = http_settings(rest, address)?;
        let door = Arc::new(HttpDoor::new(governor, upstreams.clone(), settings)?);
        tokio::spawn(follow_keys(Arc::clone(&door), runtime.store_moved()));
        let (ending, served) = (done.clone(), Arc::clone(&door));
        let serving = tokio::spawn(async move {
            let served = http::serve(listener, served, ending).await;
            if let Err(fault) = served {
                tracing::error!(%fault, "the HTTP door failed");
            }
        });
        Ok(Self { runtime, upstreams, door, address, done, serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
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

    /// Lets calls in flight end, then closes everything.
    pub async fn end(self) {
        self.done.cancel();
        if tokio::time::timeout(DRAIN, self.serving).await.is_err() {
            tracing::warn!("calls are still in flight: they will show as in doubt");
        }
        for upstream in self.upstreams.values() {
            upstream.close().await;
        }
        self.runtime.shut_down().await;
    }
}

/// The hosts that the configuration names, with the port that was really bound.
fn http_settings(rest: &Rest, address: SocketAddr) -> anyhow::Result<HttpSettings> {
    let bound = |host: &String| match host.strip_suffix(":0") {
        Some(name) => format!("{name}:{}", address.port()),
        None => host.clone(),
    };
    Ok(HttpSettings {
        store: rest.store.clone(),
        hosts: rest.listen.hosts.iter().map(bound).collect(),
        anonymous: rest.listen.anonymous_agent.clone(),
        operators: rest.operator_keys()?,
        json: rest.json(),
    })
}

async fn follow_keys(door: Arc<HttpDoor>, mut moved: tokio::sync::watch::Receiver<u64>) {
    while moved.changed().await.is_ok() {
        if let Err(fault) = door.read_keys() {
            tracing::error!(%fault, "the agents' keys cannot be read anew");
        }
    }
}

fn announce(service: &Service, format: Format) -> anyhow::Result<()> {
    let url = format!("http://{}/mcp", service.address());
    match format {
        Format::Json => answer(&format!("{}\n", json!({ "url": url }))),
        Format::Text => answer(&format!(
            "holdpoint governs at {url} (one server: {url}/NAME)\n\
             stop everything: holdpoint stop --all --reason …\n"
        )),
    }
}

/// Begins to listen for SIGINT and SIGTERM; ready when one came.
fn asked_to_end() -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
