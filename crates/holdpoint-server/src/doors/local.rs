//! The operator's door on this machine: a Unix socket per governing process.
//!
//! Owns the socket, its registration in the store's `run` folder, and the answers. Only the user
//! that runs the process (and root) gets in. Must never be reachable from a network.

pub mod client;
mod registry;

use crate::doors::hook::{self, HookAsk};
use crate::governor::Governor;
use crate::wire::{GuardReply, IssuerReply, ObeyReply, RunningReply, StatusReply, UpstreamReply};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use std::io;
use std::path::Path;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

pub use registry::{Kind, Registered, Registration, live};

/// Longest question of a hook, in bytes: an event as a JSON text in which every byte is escaped.
const HOOK_BYTES_MAX: usize = 6 * hook::BYTES_MAX + (64 << 10);

/// Accepts only peers of this user, or root.
struct OwnUser(UnixListener);

/// Answers operators until `done` fires.
///
/// # Errors
/// When the socket cannot be made or registered.
pub fn open(
    governor: Governor,
    (dir, kind): (&Path, Kind),
    done: CancellationToken,
) -> io::Result<Registered> {
    let (registered, listener) = registry::register(dir, governor.gateway(), kind)?;
    let router = router(governor);
    tokio::spawn(async move {
        let served = axum::serve(OwnUser(listener), router)
            .with_graceful_shutdown(async move { done.cancelled().await });
        if let Err(fault) = served.await {
            tracing::error!(%fault, "the operator's socket failed");
        }
    });
    Ok(registered)
}

fn router(governor: Governor) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/obey", post(obey))
        .route("/v1/hook", post(ask_hook).layer(DefaultBodyLimit::max(HOOK_BYTES_MAX)))
        .with_state(governor)
}

async fn status(State(governor): State<Governor>) -> Json<StatusReply> {
    Json(status_of(&governor))
}

/// What `governor` answers for itself.
pub fn status_of(governor: &Governor) -> StatusReply {
    let upstreams = governor.telemetry().upstreams();
    StatusReply {
        gateway: governor.gateway().to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        epoch: governor.epoch().0,
        policy: governor.policy().digest().to_string(),
        guards: governor.policy().guards().map(GuardReply::from).collect(),
        policies_refused: governor.telemetry().policies_refused(),
        stops: governor.stops(),
        running: governor.running().iter().map(RunningReply::from).collect(),
        tools: governor.catalog().all().len(),
        draining: governor.telemetry().is_draining(),
        upstreams: upstreams
            .iter()
            .map(|(name, one)| UpstreamReply::new(name, one.health()))
            .collect(),
        issuer: governor.telemetry().issuer().map(IssuerReply::from),
        notify: governor.telemetry().those_told(),
    }
}

async fn obey(State(governor): State<Governor>) -> Response {
    match governor.obey().await {
        Ok(report) => Json(ObeyReply::from(&report)).into_response(),
        Err(fault) => (StatusCode::SERVICE_UNAVAILABLE, fault.to_string()).into_response(),
    }
}

/// Answers for a hook, whose process passes on what it was given.
async fn ask_hook(State(governor): State<Governor>, Json(ask): Json<HookAsk>) -> Response {
    match hook::answer(&governor, ask).await {
        Ok(answer) => Json(answer).into_response(),
        Err(fault) => (StatusCode::UNPROCESSABLE_ENTITY, fault.to_string()).into_response(),
    }
}

// === impl OwnUser ===

impl axum::serve::Listener for OwnUser {
    type Io = UnixStream;
    type Addr = ();

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.0.accept().await {
                Ok((stream, _)) if is_own_user(&stream) => return (stream, ()),
                Ok(_) => tracing::warn!("another user tried the operator's socket"),
                Err(fault) => {
                    tracing::warn!(%fault, "the operator's socket refused a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(())
    }
}

/// True if the peer is the user that runs this process, or root.
pub(crate) fn is_own_user(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}
