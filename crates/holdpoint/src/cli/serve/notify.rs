//! Tells the service manager how the daemon is: the protocol of `sd_notify(3)`.
//! Must never fail or wait: without a service manager nothing is told.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The service manager, if there is one.
pub(super) struct Supervisor {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How often it wants to hear that the process lives.
    beat: Option<Duration>,
}

// === impl Supervisor ===

impl Supervisor {
    /// The one that `NOTIFY_SOCKET` and `WATCHDOG_USEC` name.
    pub(super) fn of_environment() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let address = match name.as_bytes() {
                [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
                _ => SocketAddr::from_pathname(&name),
            };
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            Some((socket, address.ok()?))
        });
        let whole = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse::<u64>().ok());
        let own = std::process::id().to_string();
        let ours = std::env::var("WATCHDOG_PID").is_ok_and(|pid| pid == own);
        // Half the time that it is patient, as its documentation recommends.
        let beat = whole.filter(|_| ours).map(|micros| Duration::from_micros(micros / 2));
        Self { socket, beat: beat.filter(|beat| !beat.is_zero()) }
    }

    /// Tells one state.
    pub(super) fn tell(&self, state: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(fault) = socket.send_to_addr(state.as_bytes(), address) {
            tracing::warn!(%fault, state, "the service manager cannot be told");
        }
    }

    /// Waits until it wants to hear something; for ever if it does not.
    pub(super) async fn beat(&self) {
        match self.beat {
            Some(beat) => tokio::time::sleep(beat).await,
            None => std::future::pending().await,
        }
    }
}
