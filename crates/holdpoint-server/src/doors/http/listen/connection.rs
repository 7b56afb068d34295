//! One connection, from its first byte to its last.
//! Must never outlive the listener by more than the answer that it owes.

use super::guarded::Guarded;
use super::pulse::{Look, Pulse};
use super::seats::Seat;
use super::{Counted, FrontLimits};
use crate::doors::http::timely::Timely;
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

/// How long a connection may take to end after it was asked to, if it owes no answer.
const PARTING: Duration = Duration::from_secs(1);
/// Most requests at one time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;
/// How often an HTTP/2 peer is asked whether it is there, and how long it may take to answer.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_PATIENCE: Duration = Duration::from_secs(20);
/// What hyper takes without extra work.
const HEADER_COUNT_PLAIN: usize = 100;

/// All that one connection needs.
pub(super) struct Attendance<C: Counted> {
    pub(super) router: Router,
    pub(super) limits: FrontLimits,
    pub(super) counted: C,
    pub(super) done: CancellationToken,
    pub(super) seat: Seat,
}

/// Counts a connection while it lasts.
struct Open<C: Counted>(C);

// === impl Attendance ===

impl<C: Counted> Attendance<C> {
    /// Serves the connection to its end.
    pub(super) async fn attend(self, stream: TcpStream, tls: Option<Arc<ServerConfig>>) {
        self.counted.telemetry().connected();
        let _open = Open(self.counted.clone());
        // Answers are small and whole; waiting for more to send helps nobody.
        let _ = stream.set_nodelay(true);
        let pulse = Arc::new(Pulse::new());
        let guarded = Guarded::new(stream, Arc::clone(&pulse), self.limits.write_timeout);
        let Some(tls) = tls else { return self.serve(guarded, pulse).await };
        let shaken = TlsAcceptor::from(tls).accept(guarded);
        match timeout(self.limits.header_timeout, shaken).await {
            Ok(Ok(stream)) => self.serve(stream, pulse).await,
            Ok(Err(fault)) => {
                self.counted.telemetry().cut("tls");
                tracing::debug!(%fault, "a TLS handshake failed");
            }
            Err(_) => self.counted.telemetry().cut("slow_head"),
        }
    }

    async fn serve<S>(self, stream: S, pulse: Arc<Pulse>)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let Self { router, limits, counted, done, seat } = self;
        let builder = builder(&limits);
        let noted = Arc::clone(&pulse);
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let beat = noted.request(request.version());
            let mut router = router.clone();
            async move {
                let body_timeout = limits.body_timeout;
                let request = request.map(|body| Body::new(Timely::new(body, body_timeout)));
                let answered = router.call(request).await;
                let response = answered.unwrap_or_else(|never| match never {});
                Ok::<_, Infallible>(response.map(|body| beat.until_sent(body)))
            }
        });
        let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut look = pin!(sleep(limits.header_timeout.min(limits.idle_timeout)));
        let mut parting = false;
        let end = loop {
            tokio::select! {
                end = serving.as_mut() => break end.err().map(|fault| fault.to_string()),
                () = done.cancelled(), if !parting => {
                    parting = true;
                    serving.as_mut().graceful_shutdown();
                    look.as_mut().reset(Instant::now() + PARTING);
                }
                () = look.as_mut() => match pulse.look(&limits) {
                    _ if parting && pulse.is_quiet(PARTING) => break None,
                    Look::Again(after) => {
                        let after = if parting { after.min(PARTING) } else { after };
                        look.as_mut().reset(Instant::now() + after);
                    }
                    Look::SlowHead => {
                        counted.telemetry().cut("slow_head");
                        break None;
                    }
                    Look::Silent => {
                        parting = true;
                        serving.as_mut().graceful_shutdown();
                        look.as_mut().reset(Instant::now() + PARTING);
                    }
                },
            }
        };
        if pulse.stalled() {
            counted.telemetry().cut("slow_reader");
        }
        if let Some(fault) = end {
            tracing::debug!(%fault, "a connection broke");
        }
        drop(seat);
    }
}

// === impl Open ===

impl<C: Counted> Drop for Open<C> {
    fn drop(&mut self) {
        self.0.telemetry().disconnected();
    }
}

fn builder(limits: &FrontLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().max_buf_size(limits.header_bytes_max);
    if limits.header_count_max != HEADER_COUNT_PLAIN {
        builder.http1().max_headers(limits.header_count_max);
    }
    let header_bytes_max = u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX);
    let mut http2 = builder.http2();
    http2.timer(TokioTimer::new()).max_header_list_size(header_bytes_max);
    http2.max_concurrent_streams(STREAMS_MAX);
    http2.keep_alive_interval(PING_EVERY).keep_alive_timeout(PING_PATIENCE);
    builder
}
