//! An upstream server over streamable HTTP: one POST per message, JSON or an event stream back.
//!
//! Owns the client, the agreed revision and the server's own `Mcp-Session-Id`. Must never follow a
//! redirect, resend a call that may have been processed, or print a secret header.

use super::changes::Changes;
use super::negotiate::{
    Probe, Spoken, initialized, nothing_in_common, probe_params, read_initialize, read_probe,
};
use super::{Fault, Limits, SecretText, UpstreamFault, invalid, unavailable};
use crate::credentials::{Bearer, Judged};
use crate::events::EventReader;
use crate::mcp::era::{self, Identity, METHOD_NOT_FOUND};
use crate::mcp::headers as names;
use crate::mcp::{Era, Message, RpcId, RpcNotification, RpcRequest, RpcResponse};
use futures::{Stream, StreamExt};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use reqwest::{Client, Response, Url};
use rustls_platform_verifier::ConfigVerifierExt as _;
use serde_json::Value;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

#[cfg(fuzzing)]
pub(super) mod fuzzing;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection is kept for the next request. Node.js and uvicorn close an idle one after
/// five seconds; a request that meets the close is lost, and nobody can say whether it was done.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a message that nobody waits for may take.
pub(crate) const ASIDE_TIMEOUT: Duration = Duration::from_secs(2);
/// How much longer an event may be than the message in it, in bytes.
const EVENT_BYTES_MORE: usize = 1024;
/// Most requests of a server that are refused within one event stream; later ones are ignored.
const REFUSALS_MAX: usize = 16;

/// A server at a URL.
#[derive(Debug)]
pub(super) struct HttpLink {
    client: Client,
    url: Url,
    headers: HeaderMap,
    /// Whose credential goes with every request.
    bearer: Option<Bearer>,
    limits: Limits,
    tools_changed: Arc<Changes>,
    last: AtomicI64,
    slots: Semaphore,
    agreed: Mutex<Agreed>,
}

/// A request for an HTTP server.
#[derive(Debug)]
pub(super) struct HttpRequest {
    pub(super) request: RpcRequest,
    /// Headers that mirror parameters.
    pub(super) headers: Vec<(String, String)>,
    /// Where the parameters of progress notifications go.
    pub(super) progress: Option<mpsc::Sender<Value>>,
}

/// What the server and we have agreed on.
#[derive(Clone, Debug)]
struct Agreed {
    era: Era,
    revision: String,
    thread: Option<HeaderValue>,
}

/// An answer, or the news that the server forgot us.
enum Exchanged {
    Answer(RpcResponse, Option<HeaderValue>),
    Forgotten,
}

// === impl HttpLink ===

impl HttpLink {
    pub(super) fn new(
        url: &str,
        headers: &[(String, SecretText)],
        limits: Limits,
        tools_changed: &Arc<Changes>,
    ) -> Result<Self, UpstreamFault> {
        let url: Url = url.parse().map_err(|_| unavailable("the server's URL is malformed"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(unavailable("the server's URL is neither http nor https"));
        }
        let agreed =
            Agreed { era: Era::Modern, revision: era::REVISION_MODERN.to_owned(), thread: None };
        Ok(Self {
            client: client(&url)?,
            url,
            headers: header_map(headers)?,
            bearer: None,
            limits,
            tools_changed: Arc::clone(tools_changed),
            last: AtomicI64::new(0),
            slots: Semaphore::new(limits.calls_pending_max.min(Semaphore::MAX_PERMITS)),
            agreed: Mutex::new(agreed),
        })
    }

    /// The same, with a credential.
    pub(super) fn with_bearer(self, bearer: Option<Bearer>) -> Self {
        Self { bearer, ..self }
    }

    /// Finds out the server's era and, in the legacy one, shakes hands.
    pub(super) async fn negotiate(&mut self) -> Result<Spoken, UpstreamFault> {
        if let Some(bearer) = &self.bearer {
            // Renewing may take longer than the server may take to answer.
            bearer.header().await?;
        }
        let probe = self.ask(self.plain("server/discover", probe_params()));
        let answer = tokio::time::timeout(self.limits.probe_timeout, probe).await;
        let found = match answer {
            Ok(Ok(response)) => read_probe(&response),
            Ok(Err(fault)) if !fault.may_have_arrived => return Err(fault.kind),
            // Legacy servers refuse what they do not know in ways of their own, or stay silent.
            Ok(Err(_)) | Err(_) => Probe::Legacy,
        };
        match found {
            Probe::Modern(spoken) => Ok(spoken),
            Probe::Nothing => Err(nothing_in_common()),
            Probe::Legacy => {
                self.initialize().await.map_err(|fault| fault.kind)?;
                Ok(Spoken::LEGACY)
            }
        }
    }

    /// A request with an id of its own.
    pub(super) fn request(&self, method: &str, params: Value) -> RpcRequest {
        let number = self.last.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        RpcRequest::new(RpcId::Number(number), method, params)
    }

    /// A request that mirrors nothing and is not followed.
    pub(super) fn plain(&self, method: &str, params: Value) -> HttpRequest {
        let request = self.request(method, params);
        HttpRequest { request, headers: Vec::new(), progress: None }
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn ask(&self, asking: HttpRequest) -> Result<RpcResponse, Fault> {
        let busy = |_| Fault::unsent(unavailable("too many calls wait for this server"));
        let _slot = self.slots.try_acquire().map_err(busy)?;
        if let Exchanged::Answer(response, _) = self.exchange(&self.agreed(), &asking).await? {
            return Ok(response);
        }
        // INVARIANT: a server that forgot us has not looked at the request (2025-11-25,
        // transports).
        self.initialize().await.map_err(|fault| Fault { may_have_arrived: false, ..fault })?;
        match self.exchange(&self.agreed(), &asking).await? {
            Exchanged::Answer(response, _) => Ok(response),
            Exchanged::Forgotten => {
                Err(Fault::unsent(invalid("the server forgets every `Mcp-Session-Id`")))
            }
        }
    }

    /// Tells a legacy server to stop working on a request. A modern one hears it when the request
    /// is dropped.
    pub(super) fn cancel(&self, id: &RpcId, reason: &str) {
        if self.agreed().era == Era::Legacy {
            self.aside(&Message::Notification(RpcNotification::cancelled(id, reason)));
        }
    }

    /// Tells a legacy server that we go.
    pub(super) async fn close(&self) {
        let agreed = self.agreed();
        if agreed.thread.is_none() {
            return;
        }
        let headers = self.headers_for(&agreed);
        let headers = self.signed(headers);
        let farewell = self.client.request(Method::DELETE, self.url.clone()).headers(headers);
        let _ = tokio::time::timeout(ASIDE_TIMEOUT, farewell.send()).await;
    }

    fn agreed(&self) -> Agreed {
        self.agreed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn agree(&self, agreed: Agreed) {
        *self.agreed.lock().unwrap_or_else(PoisonError::into_inner) = agreed;
    }

    async fn initialize(&self) -> Result<(), Fault> {
        let params = era::initialize_params(&Identity::holdpoint());
        let request = self.plain("initialize", params);
        let revision = era::REVISION_LEGACY.to_owned();
        let opening = Agreed { era: Era::Legacy, revision, thread: None };
        let Exchanged::Answer(response, thread) = self.exchange(&opening, &request).await? else {
            return Err(Fault::doubtful(unavailable("the server has no MCP endpoint there")));
        };
        let revision = read_initialize(&response).map_err(Fault::doubtful)?;
        let agreed = Agreed { era: Era::Legacy, revision, thread };
        self.agree(agreed.clone());
        let sent = self.send(&agreed, initialized().to_bytes(), HeaderMap::new()).await?;
        if !sent.status().is_success() {
            let text = format!("`initialized` was refused with HTTP {}", sent.status().as_u16());
            return Err(Fault::doubtful(invalid(text)));
        }
        Ok(())
    }

    async fn exchange(&self, agreed: &Agreed, asking: &HttpRequest) -> Result<Exchanged, Fault> {
        let HttpRequest { request, headers, .. } = asking;
        let mut extra = HeaderMap::new();
        if agreed.era == Era::Modern {
            let standard = names::standard(request).into_iter();
            let standard = standard.map(|(name, value)| (name.to_owned(), value));
            for (name, value) in standard.chain(headers.iter().cloned()) {
                insert(&mut extra, &name, &value).map_err(Fault::unsent)?;
            }
        }
        let response = self.send(agreed, request.to_bytes(), extra).await?;
        let status = response.status();
        if status == StatusCode::NOT_FOUND && agreed.thread.is_some() {
            return Ok(Exchanged::Forgotten);
        }
        let thread = response.headers().get(names::SESSION_ID).cloned();
        let answer = if status.is_success() {
            self.read_success(response, asking).await
        } else {
            self.read_refusal(response, &request.id).await
        };
        Ok(Exchanged::Answer(answer.map_err(Fault::doubtful)?, thread))
    }

    /// Posts a message with the credential that the server wants.
    async fn send(
        &self,
        agreed: &Agreed,
        message: Vec<u8>,
        mut extra: HeaderMap,
    ) -> Result<Response, Fault> {
        let Some(bearer) = &self.bearer else { return self.post(agreed, message, extra).await };
        let unsent = |fault| Fault::unsent(UpstreamFault::from(fault));
        for _ in 0..2 {
            let used = bearer.header().await.map_err(unsent)?;
            extra.insert(AUTHORIZATION, used.clone());
            let response = self.post(agreed, message.clone(), extra.clone()).await?;
            // INVARIANT: a server that turned the credential away has not looked at the message
            // (RFC 6750, section 3.1): it may be sent again, and was not executed.
            let answer = (response.status(), response.headers());
            match bearer.judge(&used, answer).await.map_err(unsent)? {
                Judged::Answer => return Ok(response),
                Judged::Renewed => {}
            }
        }
        Err(unsent(bearer.turned_away()))
    }

    async fn post(
        &self,
        agreed: &Agreed,
        message: Vec<u8>,
        extra: HeaderMap,
    ) -> Result<Response, Fault> {
        let mut headers = self.headers_for(agreed);
        headers.extend(extra);
        let post = self.client.post(self.url.clone()).headers(headers).body(message);
        post.send().await.map_err(|error| {
            // Without a connection no byte was sent; any later failure leaves the question open.
            let may_have_arrived = !(error.is_connect() || error.is_builder());
            Fault { may_have_arrived, kind: unavailable(in_words(error)) }
        })
    }

    /// The headers with the credential as it is, for what nobody waits for.
    fn signed(&self, mut headers: HeaderMap) -> HeaderMap {
        if let Some(header) = self.bearer.as_ref().and_then(Bearer::header_now) {
            headers.insert(AUTHORIZATION, header);
        }
        headers
    }

    fn headers_for(&self, agreed: &Agreed) -> HeaderMap {
        let mut headers = self.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let both = HeaderValue::from_static("application/json, text/event-stream");
        headers.insert(ACCEPT, both);
        if let Ok(revision) = HeaderValue::from_str(&agreed.revision) {
            headers.insert(HeaderName::from_static(names::PROTOCOL_VERSION), revision);
        }
        if let Some(thread) = &agreed.thread {
            headers.insert(HeaderName::from_static(names::SESSION_ID), thread.clone());
        }
        headers
    }

    async fn read_success(
        &self,
        response: Response,
        asking: &HttpRequest,
    ) -> Result<RpcResponse, UpstreamFault> {
        let id = &asking.request.id;
        if is_type(&response, "text/event-stream") {
            return self.read_events(response, asking).await;
        }
        if !is_type(&response, "application/json") {
            let status = response.status().as_u16();
            return Err(invalid(format!("HTTP {status} with neither JSON nor an event stream")));
        }
        let body = self.read_body(response).await?;
        match Message::from_upstream(&body, self.limits.message_bytes_max) {
            Ok(Message::Response(response)) if is_ours(&response, id) => Ok(response),
            Ok(_) => Err(invalid("the answer is not the one to this request")),
            Err(fault) => Err(invalid(fault.to_string())),
        }
    }

    /// A status other than success: a JSON-RPC error if the body is one.
    async fn read_refusal(
        &self,
        response: Response,
        id: &RpcId,
    ) -> Result<RpcResponse, UpstreamFault> {
        let status = response.status();
        if status.is_redirection() {
            return Err(invalid("the server redirects, and redirects are not followed"));
        }
        if is_type(&response, "application/json") {
            let body = self.read_body(response).await?;
            let read = Message::from_upstream(&body, self.limits.message_bytes_max);
            if let Ok(Message::Response(response)) = read
                && is_ours(&response, id)
            {
                return Ok(response);
            }
        }
        let hint = match (status, &self.bearer) {
            (StatusCode::UNAUTHORIZED, None) => ": it wants a credential (`headers` or `oauth`)",
            _ => "",
        };
        Err(unavailable(format!("the server answered HTTP {}{hint}", status.as_u16())))
    }

    async fn read_body(&self, response: Response) -> Result<Vec<u8>, UpstreamFault> {
        let max = self.limits.message_bytes_max;
        let mut body = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| unavailable(in_words(error)))?;
            if body.len().saturating_add(chunk.len()) > max {
                return Err(invalid(format!("a message longer than {max} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    async fn read_events(
        &self,
        response: Response,
        asking: &HttpRequest,
    ) -> Result<RpcResponse, UpstreamFault> {
        let id = &asking.request.id;
        let mut events =
            events(response, (self.limits.message_bytes_max, self.limits.flood_bytes_max));
        let mut refusals = 0;
        let broken = |error| invalid(format!("event stream: {error}"));
        while let Some(event) = events.next().await.map_err(broken)? {
            if event.data.is_empty() {
                continue;
            }
            let message = Message::from_upstream(&event.data, self.limits.message_bytes_max);
            match message.map_err(|fault| invalid(fault.to_string()))? {
                Message::Response(response) if is_ours(&response, id) => return Ok(response),
                Message::Response(response) => {
                    tracing::warn!(id = ?response.id, "an answer that nobody waits for");
                }
                Message::Request(request) if refusals < REFUSALS_MAX => {
                    refusals += 1;
                    self.refuse(request);
                }
                Message::Request(_) => {}
                Message::Notification(notification) => self.note(notification, asking),
            }
        }
        Err(unavailable("the event stream ended without the answer"))
    }

    fn note(&self, notification: RpcNotification, asking: &HttpRequest) {
        match (notification.method.as_str(), notification.params) {
            ("notifications/progress", Some(params)) => {
                let own = asking.request.id.to_value();
                if let Some(follower) = &asking.progress
                    && params.get("progressToken") == Some(&own)
                {
                    // Who follows too slowly misses some.
                    let _ = follower.try_send(params);
                }
            }
            (method, _) => self.tools_changed.note(method),
        }
    }

    /// Holdpoint declared no capability, so there is nothing that a server may ask.
    fn refuse(&self, request: RpcRequest) {
        let text = "this client serves no requests";
        let refusal = RpcResponse::error(Some(request.id), METHOD_NOT_FOUND, text, Value::Null);
        self.aside(&Message::Response(refusal));
    }

    /// Sends a message whose fate nobody waits for.
    fn aside(&self, message: &Message) {
        let headers = self.signed(self.headers_for(&self.agreed()));
        let post = self.client.post(self.url.clone()).headers(headers).body(message.to_bytes());
        tokio::spawn(tokio::time::timeout(ASIDE_TIMEOUT, post.send()));
    }
}

pub(crate) fn client(url: &Url) -> Result<Client, UpstreamFault> {
    let mut builder = Client::builder()
        .tls_backend_preconfigured(tls()?)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT);
    if is_loopback(url) {
        // A proxy named in the environment cannot reach what listens on this machine.
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| unavailable(in_words(error)))
}

/// How TLS is spoken to servers. Every client has the same, because each would read the system's
/// certificates for itself: a third of a megabyte for every thread of an agent.
fn tls() -> Result<rustls::ClientConfig, UpstreamFault> {
    static SHARED: OnceLock<rustls::ClientConfig> = OnceLock::new();
    if let Some(shared) = SHARED.get() {
        return Ok(shared.clone());
    }
    // Installing twice fails, and the first one stays: just what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = rustls::ClientConfig::with_platform_verifier();
    let mut config = config.map_err(|error| unavailable(format!("no TLS: {error}")))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(SHARED.get_or_init(|| config).clone())
}

pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let address = host.parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

pub(crate) fn header_map(headers: &[(String, SecretText)]) -> Result<HeaderMap, UpstreamFault> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        insert(&mut map, name, value.expose())?;
    }
    Ok(map)
}

fn insert(map: &mut HeaderMap, name: &str, value: &str) -> Result<(), UpstreamFault> {
    let fault = || unavailable(format!("header `{name}` cannot be sent"));
    let name: HeaderName = name.parse().map_err(|_| fault())?;
    let mut value = HeaderValue::from_str(value).map_err(|_| fault())?;
    value.set_sensitive(true);
    map.insert(name, value);
    Ok(())
}

pub(crate) fn is_type(response: &Response, wanted: &str) -> bool {
    let found = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let found = found.and_then(|found| found.split(';').next()).unwrap_or_default();
    found.trim().eq_ignore_ascii_case(wanted)
}

/// An error without an id answers the request of its own exchange: there is no other.
fn is_ours(response: &RpcResponse, id: &RpcId) -> bool {
    response.id.as_ref().is_none_or(|found| found == id)
}

/// The events of a response; the whole stream may have at least as many bytes as one message.
pub(crate) fn events(
    response: Response,
    (message_max, whole_max): (usize, usize),
) -> EventReader<impl Stream<Item = std::io::Result<bytes::Bytes>> + Unpin> {
    let pieces = response.bytes_stream();
    let pieces = pieces.map(|piece| piece.map_err(|error| std::io::Error::other(in_words(error))));
    // A message's bytes, the name of its field, and what else its event says.
    let event_max = message_max.saturating_add(EVENT_BYTES_MORE);
    EventReader::new(pieces, (event_max, whole_max.max(event_max)))
}

/// The body in pieces, ending with an error when an event or the whole stream grows too large.
pub(crate) fn limited(
    response: Response,
    (event_max, whole_max): (usize, usize),
    since_event: Arc<AtomicUsize>,
) -> impl Stream<Item = std::io::Result<bytes::Bytes>> {
    let mut whole = 0_usize;
    response.bytes_stream().map(move |chunk| {
        let chunk = chunk.map_err(|error| std::io::Error::other(in_words(error)))?;
        whole = whole.saturating_add(chunk.len());
        let event = since_event.fetch_add(chunk.len(), Ordering::Relaxed);
        if whole > whole_max || event.saturating_add(chunk.len()) > event_max {
            return Err(std::io::Error::other("too many bytes without an answer"));
        }
        Ok(chunk)
    })
}

/// What went wrong, without the URL: it may hold a secret.
pub(crate) fn in_words(error: reqwest::Error) -> String {
    use std::error::Error as _;
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
