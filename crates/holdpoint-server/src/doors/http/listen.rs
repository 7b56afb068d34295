//! The listener: who gets a connection, and for how long.
//!
//! Owns accepting, TLS, and the limits of every connection: how many, how long a head may take, how
//! long silence may last, how slowly a peer may read. Must never look into a message, and must
//! never let one peer take what others need.

mod connection;
mod guarded;
mod pulse;
mod seats;
mod tls;

pub use tls::{TlsFault, TlsFiles};

use crate::telemetry::Telemetry;
use arc_swap::ArcSwap;
use axum::Router;
use connection::Attendance;
use rustls::ServerConfig;
use seats::Seats;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The pause after a failed accept: the machine may be out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What a peer without a seat is told, before TLS is spoken.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n\
                      connection: close\r\ncontent-length: 0\r\n\r\n";

/// How much one listener grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontLimits {
    /// Most connections at one time.
    pub connections_max: usize,
    /// Most connections from one address (from one /64 network for IPv6).
    pub connections_per_address_max: usize,
    /// Longest head of a request, in bytes; at least 8192.
    pub header_bytes_max: usize,
    /// Most headers of a request (HTTP/1).
    pub header_count_max: usize,
    /// How long TLS and the head of a request may take.
    pub header_timeout: Duration,
    /// How long the body of a request may take.
    pub body_timeout: Duration,
    /// How long a connection may be silent between requests.
    pub idle_timeout: Duration,
    /// How long a peer may take no byte of what is sent to it.
    pub write_timeout: Duration,
}

/// The settings of a listener; they may be replaced while it runs.
pub struct Front {
    limits: ArcSwap<FrontLimits>,
    tls: Option<ArcSwap<ServerConfig>>,
    seats: Arc<Seats>,
}

/// Whose counters a listener feeds.
pub trait Counted: Clone + Send + Sync + 'static {
    /// The counters.
    fn telemetry(&self) -> &Telemetry;
}

// === impl FrontLimits ===

impl Default for FrontLimits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            connections_per_address_max: 256,
            header_bytes_max: 16 << 10,
            header_count_max: 100,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
        }
    }
}

// === impl Front ===

impl Front {
    /// A listener with `limits`, that speaks TLS if it is given.
    pub fn new(limits: FrontLimits, tls: Option<Arc<ServerConfig>>) -> Self {
        let limits = ArcSwap::from_pointee(limits);
        Self { limits, tls: tls.map(ArcSwap::new), seats: Arc::default() }
    }

    /// True if it speaks TLS. That does not change while it runs.
    pub fn speaks_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Replaces the limits, and the TLS settings if it speaks TLS, for connections to come.
    pub fn replace(&self, limits: FrontLimits, tls: Option<Arc<ServerConfig>>) {
        self.limits.store(Arc::new(limits));
        if let (Some(own), Some(tls)) = (&self.tls, tls) {
            own.store(tls);
        }
    }
}

/// Serves `router` until `done` fires and every connection has ended. Dropping the future cuts what
/// is left.
pub async fn serve<C: Counted>(
    listener: TcpListener,
    router: Router,
    (front, counted): (Arc<Front>, C),
    done: CancellationToken,
) {
    let tasks = TaskTracker::new();
    let cut = CancellationToken::new();
    let _cut_when_dropped = cut.clone().drop_guard();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = done.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(fault) => {
                pause_after(&fault).await;
                continue;
            }
        };
        let limits = **front.limits.load();
        let Some(seat) = front.seats.take(peer.ip(), &limits) else {
            turn_away(&stream, peer, counted.telemetry());
            continue;
        };
        let tls = front.tls.as_ref().map(ArcSwap::load_full);
        let attendance = Attendance {
            router: router.clone(),
            limits,
            counted: counted.clone(),
            done: done.clone(),
            seat,
        };
        let cut = cut.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = attendance.attend(stream, tls) => {}
                () = cut.cancelled() => {}
            }
        });
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

fn turn_away(stream: &TcpStream, peer: SocketAddr, telemetry: &Telemetry) {
    telemetry.cut("too_many");
    tracing::debug!(%peer, "a connection was turned away: too many");
    // Whoever does not take it at once gets nothing.
    let _ = stream.try_write(FULL);
}

async fn pause_after(fault: &io::Error) {
    // The peer was gone before it was accepted: nothing is wrong here.
    let gone = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset];
    if gone.contains(&fault.kind()) {
        return;
    }
    tracing::error!(%fault, "no connection can be accepted");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}
