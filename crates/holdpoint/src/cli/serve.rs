//! `holdpoint serve`: governs agents that come by HTTP, and `wrap`s on this machine.
//!
//! Owns the daemon's life: start, signals, reload, drain. Must not answer before every part stands,
//! and must not leave before every record is durable.

mod notify;
mod reload;
mod service;

pub use service::{SERVER_BYTES_MAX, Service};

use super::{Exit, Format, Globals, answer};
use crate::gateway::{exposed, runtime_spec};
use holdpoint_server::doors::local::Kind;
use holdpoint_server::runtime::Runtime;
use notify::Supervisor;
use reload::Fixed;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Govern agents over HTTP, and every `wrap` on this machine.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// The signals that a daemon listens to.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

/// Runs `holdpoint serve` until SIGINT or SIGTERM; SIGHUP reloads the configuration.
///
/// # Errors
/// When a part cannot start.
pub fn run(_args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    let config = globals.load()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let supervisor = Supervisor::of_environment();
        let fixed = Fixed::of(&config);
        for one in exposed(&config) {
            tracing::warn!("{}; {}", one.text(), one.advice());
        }
        let (spec, rest) = runtime_spec(config, Kind::Serve)?;
        let mut service = Service::start(Runtime::start(spec).await?, &rest).await?;
        announce(&service, globals.format)?;
        supervisor.tell("READY=1");
        tracing::info!(address = %service.address(), "governing");
        until_asked(&mut signals, (&mut service, &fixed), &supervisor).await;
        supervisor.tell("STOPPING=1");
        tracing::info!("asked to end: no new calls; a second signal ends at once");
        tokio::select! {
            () = service.end() => anyhow::Ok(Exit::Ok),
            () = signals.end() => {
                tracing::warn!("asked again: what is in flight will show as in doubt");
                // Nothing may hold this up, not even a store that does not answer.
                std::process::exit(1)
            }
        }
    });
    runtime.shutdown_background();
    served
}

// === impl Signals ===

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Reloads as often as asked, until asked to end.
async fn until_asked(
    signals: &mut Signals,
    (service, fixed): (&mut Service, &Fixed),
    supervisor: &Supervisor,
) {
    loop {
        tokio::select! {
            _ = signals.interrupt.recv() => return,
            _ = signals.terminate.recv() => return,
            _ = signals.hang_up.recv() => {
                supervisor.tell("RELOADING=1");
                reload::reload(service, fixed).await;
                supervisor.tell("READY=1");
            }
            () = supervisor.beat() => supervisor.tell("WATCHDOG=1"),
        }
    }
}

fn announce(service: &Service, format: Format) -> anyhow::Result<()> {
    let url = service.url();
    let operations = service.operations().map(|address| format!("http://{address}"));
    match format {
        Format::Json => answer(&format!("{}\n", json!({ "url": url, "operations": operations }))),
        Format::Text => {
            let operations = operations
                .map(|base| format!("health and metrics at {base}\n"))
                .unwrap_or_default();
            answer(&format!(
                "holdpoint governs at {url} (one server: {url}/NAME)\n{operations}\
                 stop everything: holdpoint stop --all --reason …\n"
            ))
        }
    }
}
