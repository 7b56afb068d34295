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

#[cfg(test)]
mod tests {
    use super::{FrontLimits, HEADER_COUNT_PLAIN, STREAMS_MAX, builder};
    use axum::body::Body;
    use axum::http::{Request, Response};
    use hyper::body::Incoming;
    use hyper_util::rt::TokioIo;
    use std::convert::Infallible;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    /// `GET http://x/`, as RFC 7541 writes it.
    const GET: [u8; 6] = [0x82, 0x86, 0x84, 0x41, 1, b'x'];

    /// A frame of HTTP/2 (RFC 9113, section 4.1).
    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// The payload of the next frame of this kind, and its stream.
    async fn next(stream: &mut DuplexStream, wanted: u8) -> (u32, Vec<u8>) {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            stream.read_exact(&mut payload).await.unwrap();
            if head[3] == wanted {
                return (u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload);
            }
        }
    }

    #[tokio::test]
    async fn an_http2_connection_has_so_many_streams() {
        let long = Duration::from_secs(60);
        let limits = FrontLimits {
            connections_max: 1,
            connections_per_address_max: 1,
            header_bytes_max: 16 << 10,
            header_count_max: HEADER_COUNT_PLAIN,
            header_timeout: long,
            body_timeout: long,
            idle_timeout: long,
            write_timeout: long,
        };
        let (mut client, server) = tokio::io::duplex(1 << 20);
        tokio::spawn(async move {
            // No request is ever answered.
            let service = hyper::service::service_fn(|_: Request<Incoming>| {
                std::future::pending::<Result<Response<Body>, Infallible>>()
            });
            builder(&limits).serve_connection(TokioIo::new(server), service).await
        });
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        client.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        let (_, settings) = next(&mut client, SETTINGS).await;
        let told = settings.chunks(6).find(|setting| setting[..2] == [0, 3]).unwrap();
        assert_eq!(told[2..], STREAMS_MAX.to_be_bytes());

        client.write_all(&frame(SETTINGS, 1, 0, &[])).await.unwrap();
        for number in 0..=STREAMS_MAX {
            client.write_all(&frame(HEADERS, 5, 2 * number + 1, &GET)).await.unwrap();
        }
        // A client that does not wait has its stream refused, unread (REFUSED_STREAM is 7).
        assert_eq!(next(&mut client, RST_STREAM).await, (2 * STREAMS_MAX + 1, vec![0, 0, 0, 7]));
    }
}
