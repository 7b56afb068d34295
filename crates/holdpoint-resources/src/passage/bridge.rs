//! A passage to a legacy server behind a URL: lines on this side, streamable HTTP on the other.
//!
//! Owns the requests to the server, its `Mcp-Session-Id` and its stream. Must never follow a
//! redirect, send anything twice, or change more of a message than the line ends between its parts.

use super::{Injected, Received};
use crate::credentials::{Bearer, Judged};
use crate::events::Event;
use crate::lines::{Line, LineReader};
use crate::mcp::headers::ParamHeader;
use crate::mcp::{Message, MessageFault, Outcome, RpcId, RpcResponse, era, headers as names};
use crate::upstream::http::{
    ASIDE_TIMEOUT, client, events, header_map, in_words, is_type, limited,
};
use crate::upstream::{SecretText, UpstreamFault};
use bytes::Bytes;
use futures::StreamExt;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use reqwest::{Client, RequestBuilder, Response, Url};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The request whose answer is a stream as long as both want.
const LISTEN: &str = "subscriptions/listen";
/// How much may wait in one direction, in bytes.
pub(super) const PIPE_BYTES: usize = 64 << 10;
/// Most messages that wait for the server's answer at one time.
const PENDING_MAX: usize = 256;
/// Most tools whose headers are remembered.
const TOOLS_MAX: usize = 10_000;
/// How long to wait before a stream that ended is opened again.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause that a server may ask for.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// The shortest one: it must not have us ask without end.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// How often the stream of one answer is taken up again.
const RESUMES_MAX: usize = 16;
/// Where a stream is taken up again.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

#[derive(Debug)]
struct Bridge {
    client: Client,
    url: Url,
    headers: HeaderMap,
    bearer: Option<Bearer>,
    bytes_max: usize,
    agreed: std::sync::Mutex<Agreed>,
    /// Modern requests that wait, with what takes each back.
    modern: std::sync::Mutex<BTreeMap<RpcId, CancellationToken>>,
    /// Which parameters of which tools a modern server wants in headers.
    mirrors: std::sync::Mutex<BTreeMap<String, Vec<ParamHeader>>>,
    /// Where the server's messages go.
    lines: tokio::sync::Mutex<DuplexStream>,
    over: CancellationToken,
}

/// What the server and the client behind us have agreed on.
#[derive(Clone, Debug, Default)]
struct Agreed {
    revision: Option<HeaderValue>,
    thread: Option<HeaderValue>,
    open: bool,
}

/// What of a list of tools the transport must know.
#[derive(serde::Deserialize)]
struct Listed {
    tools: Vec<ListedTool>,
}

#[derive(serde::Deserialize)]
struct ListedTool {
    name: String,
    #[serde(rename = "inputSchema", default)]
    input_schema: serde_json::Value,
}

/// What of an `InitializeResult` the transport must know.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Initialized {
    protocol_version: String,
}

/// What the bridge says where no answer came. No server can say it: an `error` is an object.
#[derive(serde::Deserialize)]
struct Lost {
    id: serde_json::Value,
    error: String,
}

/// How far a stream was read.
#[derive(Default)]
struct Place {
    last: Option<String>,
    retry: Option<Duration>,
}

/// What a line that is no message means, coming from a bridge.
pub(super) fn lost(line: Bytes, fault: MessageFault) -> Received {
    let found: Option<Lost> = serde_json::from_slice(&line).ok();
    let found = found.and_then(|Lost { id, error }| Some((RpcId::from_value(&id)?, error)));
    let Some((id, why)) = found else { return Received::Invalid { line, fault } };
    let Some(request) = Injected::from_id(&id) else {
        return Received::Invalid { line, fault: MessageFault::Lost { why, id } };
    };
    let error = serde_json::json!({ "code": era::INTERNAL_ERROR, "message": why });
    let raw = serde_json::value::to_raw_value(&error).unwrap_or_default();
    Received::Injected { request, outcome: Outcome::Error(raw) }
}

/// Opens a bridge that reads lines from `near` until `over` fires; gives the server's lines.
pub(super) fn open(
    url: &str,
    (headers, bearer): (&[(String, SecretText)], Option<Bearer>),
    (near, bytes_max): (DuplexStream, usize),
    over: CancellationToken,
) -> Result<DuplexStream, UpstreamFault> {
    let fault = || UpstreamFault::Unavailable("the server's URL is malformed".to_owned());
    let url: Url = url.parse().map_err(|_| fault())?;
    let (lines, source) = tokio::io::duplex(PIPE_BYTES);
    let bridge = Arc::new(Bridge {
        client: client(&url)?,
        headers: header_map(headers)?,
        bearer,
        url,
        bytes_max,
        agreed: std::sync::Mutex::default(),
        modern: std::sync::Mutex::default(),
        mirrors: std::sync::Mutex::default(),
        lines: tokio::sync::Mutex::new(lines),
        over: over.clone(),
    });
    tokio::spawn(async move {
        let ran = Arc::clone(&bridge).run(LineReader::new(near, usize::MAX));
        tokio::select! {
            () = ran => {}
            () = over.cancelled() => {}
        }
        over.cancel();
        bridge.farewell().await;
    });
    Ok(source)
}

// === impl Bridge ===

impl Bridge {
    async fn run(self: Arc<Self>, mut from: LineReader<DuplexStream>) {
        let mut tasks = JoinSet::new();
        loop {
            let line = tokio::select! {
                line = from.next() => line,
                Some(_) = tasks.join_next() => continue,
            };
            let Ok(Line::Text(line)) = line else { return };
            let message = Message::from_upstream(&line, usize::MAX).ok();
            if self.take_back(message.as_ref()) {
                continue;
            }
            let bridge = Arc::clone(&self);
            let open = self.agreed().open || is_modern(message.as_ref());
            // The handshake goes step by step; later messages do not wait for each other.
            if open && tasks.len() < PENDING_MAX {
                tasks.spawn(async move { bridge.send(line, message).await });
            } else {
                bridge.send(line, message).await;
                if !tasks.is_empty() || !self.agreed().open {
                    continue;
                }
                let bridge = Arc::clone(&self);
                tasks.spawn(async move { bridge.listen().await });
            }
        }
    }

    /// Sends one message and passes on all that comes back for it.
    async fn send(&self, line: Bytes, message: Option<Message>) {
        let modern = asked(message.as_ref()).filter(|_| is_modern(message.as_ref())).cloned();
        let Some(id) = modern else { return self.send_on(&line, message.as_ref()).await };
        let taken_back = CancellationToken::new();
        locked(&self.modern).insert(id.clone(), taken_back.clone());
        tokio::select! {
            () = self.send_on(&line, message.as_ref()) => {}
            // The connection closes, which is how a modern server hears of it.
            () = taken_back.cancelled() => {}
        }
        locked(&self.modern).remove(&id);
    }

    /// Takes back the modern request that a notification cancels; false if it cancels none.
    fn take_back(&self, message: Option<&Message>) -> bool {
        let Some(Message::Notification(note)) = message else { return false };
        let params = note.params.as_ref().filter(|_| note.method == "notifications/cancelled");
        let id = params.and_then(|params| params.get("requestId")).and_then(RpcId::from_value);
        let Some(id) = id else { return false };
        locked(&self.modern).get(&id).inspect(|token| token.cancel()).is_some()
    }

    async fn send_on(&self, line: &Bytes, message: Option<&Message>) {
        if let Err(why) = self.exchange(line, message).await {
            tracing::warn!(why, "a message got no answer over HTTP");
            if let Some(id) = asked(message) {
                // INVARIANT: an error that is no object is no answer, so that nobody takes it for
                // the server's word; the reader learns that this request was lost.
                let why = serde_json::Value::from(why);
                let lost = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{why}}}"#);
                self.say(lost.as_bytes()).await;
            }
        }
    }

    async fn exchange(&self, line: &Bytes, message: Option<&Message>) -> Result<(), String> {
        let id = asked(message);
        let method = message.and_then(Message::method);
        let opening = method == Some("initialize");
        let response = tokio::select! {
            response = self.post(line, message) => response?,
            () = self.over.cancelled() => return Err("the connection is over".to_owned()),
        };
        let status = response.status();
        if status == StatusCode::NOT_FOUND && self.agreed().thread.is_some() {
            // The server forgot us; whoever is behind us must begin anew.
            self.over.cancel();
            return Err("the server forgot the session".to_owned());
        }
        if status.is_success() && opening {
            self.agree(|agreed| agreed.thread = response.headers().get(names::SESSION_ID).cloned());
        }
        if status.is_success() && method == Some("notifications/initialized") {
            self.agree(|agreed| agreed.open = true);
        }
        match id {
            None => Ok(()),
            Some(id) if is_type(&response, "text/event-stream") => {
                self.follow(response, (id, opening)).await
            }
            Some(id) if method == Some(LISTEN) => self.lines(response, id).await,
            Some(id) => self.body(response, id, opening).await,
        }
    }

    /// Posts a message with the credential that the server wants. Which it turned away unread is
    /// posted once more.
    async fn post(&self, line: &Bytes, message: Option<&Message>) -> Result<Response, String> {
        let mirrored = self.mirrored(message);
        let post = || {
            let post = self.request(Method::POST, line.clone());
            post.headers(modern_headers(message)).headers(mirrored.clone())
        };
        let Some(bearer) = &self.bearer else { return post().send().await.map_err(in_words) };
        for _ in 0..2 {
            let used = bearer.header().await.map_err(|fault| fault.to_string())?;
            let post = post().header(AUTHORIZATION, used.clone());
            let response = post.send().await.map_err(in_words)?;
            let judged = bearer.judge(&used, (response.status(), response.headers())).await;
            match judged.map_err(|fault| fault.to_string())? {
                Judged::Answer => return Ok(response),
                Judged::Renewed => {}
            }
        }
        Err(bearer.turned_away().to_string())
    }

    /// Passes on a stream until the answer to `id`. One that ends before, but has told how far it
    /// was, is taken up there (MCP 2025-11-25, transports, resumability).
    async fn follow(
        &self,
        response: Response,
        (id, opening): (&RpcId, bool),
    ) -> Result<(), String> {
        let (mut response, mut place) = (response, Place::default());
        for _ in 0..RESUMES_MAX {
            if self.events(response, (Some(id), opening), &mut place).await? {
                return Ok(());
            }
            if place.last.is_none() {
                break;
            }
            tokio::time::sleep(place.pause()).await;
            let get = self.signed(self.resume(&place));
            response = get.send().await.map_err(in_words)?;
            if !is_type(&response, "text/event-stream") {
                break;
            }
        }
        Err("the stream ended without the answer".to_owned())
    }

    /// A request for the rest of a stream.
    fn resume(&self, place: &Place) -> RequestBuilder {
        let get = self.request(Method::GET, Bytes::new());
        match place.last.as_deref().and_then(|id| HeaderValue::from_str(id).ok()) {
            Some(id) => get.header(LAST_EVENT_ID, id),
            None => get,
        }
    }

    async fn body(&self, response: Response, id: &RpcId, opening: bool) -> Result<(), String> {
        let status = response.status().as_u16();
        if !is_type(&response, "application/json") {
            return Err(format!("HTTP {status} with neither JSON nor an event stream"));
        }
        let since = Arc::new(AtomicUsize::new(0));
        let mut chunks = Box::pin(limited(response, (self.bytes_max, self.bytes_max), since));
        let mut body = Vec::new();
        while let Some(chunk) = chunks.next().await {
            body.extend_from_slice(&chunk.map_err(|error| error.to_string())?);
        }
        match self.pass(&body, (Some(id), opening)).await? {
            true => Ok(()),
            false => Err(format!("HTTP {status} with something else than the answer")),
        }
    }

    /// Some servers answer `subscriptions/listen` with one JSON text a line instead of events.
    async fn lines(&self, response: Response, id: &RpcId) -> Result<(), String> {
        let since = Arc::new(AtomicUsize::new(0));
        let sizes = (self.bytes_max, usize::MAX);
        let mut chunks = Box::pin(limited(response, sizes, Arc::clone(&since)));
        let mut rest: Vec<u8> = Vec::new();
        while let Some(chunk) = chunks.next().await {
            rest.extend_from_slice(&chunk.map_err(|error| error.to_string())?);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                since.store(rest.len(), Ordering::Relaxed);
                let text = line.trim_ascii();
                if !text.is_empty() && self.pass(text, (Some(id), false)).await? {
                    return Ok(());
                }
            }
        }
        match self.pass(rest.trim_ascii(), (Some(id), false)).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err("the stream ended without the answer".to_owned()),
        }
    }

    /// Passes on all events; true once the answer to `id` was among them.
    async fn events(
        &self,
        response: Response,
        (id, opening): (Option<&RpcId>, bool),
        place: &mut Place,
    ) -> Result<bool, String> {
        let mut events = events(response, (self.bytes_max, usize::MAX));
        let broken = |error| format!("event stream: {error}");
        while let Some(event) = events.next().await.map_err(broken)? {
            place.note(&event);
            if !event.data.is_empty() && self.pass(&event.data, (id, opening)).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Passes on one message; true if it is the answer to `id`.
    async fn pass(
        &self,
        text: &[u8],
        (id, opening): (Option<&RpcId>, bool),
    ) -> Result<bool, String> {
        let message = Message::from_upstream(text, self.bytes_max);
        let message = message.map_err(|fault| fault.to_string())?;
        let answers = match &message {
            Message::Response(response) => id.is_some() && response.id.as_ref() == id,
            Message::Request(_) | Message::Notification(_) => false,
        };
        if let (true, Message::Response(response)) = (answers, &message) {
            self.learn(response);
        }
        if let (true, Message::Response(response)) = (answers && opening, &message)
            && let Outcome::Result(raw) = &response.outcome
            && let Ok(found) = serde_json::from_str::<Initialized>(raw.get())
        {
            let revision = HeaderValue::from_str(&found.protocol_version).ok();
            self.agree(|agreed| agreed.revision = revision);
        }
        self.say(text).await;
        Ok(answers)
    }

    /// Follows what the server says by itself, if it offers such a stream.
    async fn listen(&self) {
        let mut place = Place::default();
        loop {
            match self.signed(self.resume(&place)).send().await {
                Ok(response) if is_type(&response, "text/event-stream") => {
                    if let Err(why) = self.events(response, (None, false), &mut place).await {
                        tracing::warn!(why, "a server's stream broke");
                    }
                }
                // It offers none.
                Ok(_) => return,
                Err(error) => tracing::warn!(error = in_words(error), "a stream cannot be opened"),
            }
            tokio::time::sleep(place.pause()).await;
        }
    }

    /// Remembers which parameters of which tools go into headers.
    fn learn(&self, response: &RpcResponse) {
        let Outcome::Result(raw) = &response.outcome else { return };
        if !raw.get().contains(names::ANNOTATION) {
            return;
        }
        let Ok(listed) = serde_json::from_str::<Listed>(raw.get()) else { return };
        remember(&mut locked(&self.mirrors), listed.tools);
    }

    /// The headers that a modern call repeats parameters in.
    fn mirrored(&self, message: Option<&Message>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let Some(Message::Request(request)) = message.filter(|_| is_modern(message)) else {
            return headers;
        };
        let arguments = request.param("arguments").cloned().unwrap_or_default();
        let name = request.param("name").and_then(serde_json::Value::as_str).unwrap_or_default();
        let mirrors = locked(&self.mirrors);
        for header in mirrors.get(name).into_iter().flatten() {
            let mirrored = header.mirror(&arguments);
            let pair = mirrored.and_then(|(name, value)| {
                Some((name.parse::<HeaderName>().ok()?, HeaderValue::from_str(&value).ok()?))
            });
            headers.extend(pair);
        }
        headers
    }

    /// Writes one message as one line.
    async fn say(&self, text: &[u8]) {
        // Between the parts of a JSON text a line's end is space, and inside of strings none
        // occurs.
        let mut line: Vec<u8> = text
            .iter()
            .map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte })
            .collect();
        line.push(b'\n');
        let mut lines = self.lines.lock().await;
        if lines.write_all(&line).await.is_err() {
            self.over.cancel();
        }
    }

    fn request(&self, method: Method, body: Bytes) -> RequestBuilder {
        let agreed = self.agreed();
        let mut headers = self.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let accepted = match method == Method::GET {
            true => "text/event-stream",
            false => "application/json, text/event-stream",
        };
        headers.insert(ACCEPT, HeaderValue::from_static(accepted));
        if let Some(revision) = agreed.revision {
            headers.insert(HeaderName::from_static(names::PROTOCOL_VERSION), revision);
        }
        if let Some(thread) = agreed.thread {
            headers.insert(HeaderName::from_static(names::SESSION_ID), thread);
        }
        self.client.request(method, self.url.clone()).headers(headers).body(body)
    }

    /// The request with the credential as it is now.
    fn signed(&self, request: RequestBuilder) -> RequestBuilder {
        match self.bearer.as_ref().and_then(Bearer::header_now) {
            Some(header) => request.header(AUTHORIZATION, header),
            None => request,
        }
    }

    /// Tells the server that we go.
    async fn farewell(&self) {
        if self.agreed().thread.is_some() {
            let farewell = self.signed(self.request(Method::DELETE, Bytes::new())).send();
            let _ = tokio::time::timeout(ASIDE_TIMEOUT, farewell).await;
        }
        let _ = self.lines.lock().await.shutdown().await;
    }

    fn agreed(&self) -> Agreed {
        self.agreed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn agree(&self, change: impl FnOnce(&mut Agreed)) {
        change(&mut self.agreed.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

fn locked<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

// === impl Place ===

impl Place {
    fn note(&mut self, event: &Event) {
        if event.id.is_some() {
            self.last.clone_from(&event.id);
        }
        if let Some(retry) = event.retry_ms {
            self.retry = Some(Duration::from_millis(retry).clamp(RETRY_MIN, RETRY_MAX));
        }
    }

    fn pause(&self) -> Duration {
        self.retry.unwrap_or(REOPEN_PAUSE)
    }
}

/// Remembers the headers of tools, of so many at most over all lists.
fn remember(mirrors: &mut BTreeMap<String, Vec<ParamHeader>>, tools: Vec<ListedTool>) {
    for tool in tools {
        if mirrors.len() < TOOLS_MAX || mirrors.contains_key(&tool.name) {
            // Whoever lists tools for an agent leaves out those with unusable annotations.
            let found = names::param_headers(&tool.input_schema).unwrap_or_default();
            mirrors.insert(tool.name, found);
        }
    }
}

/// The id of a request.
fn asked(message: Option<&Message>) -> Option<&RpcId> {
    match message {
        Some(Message::Request(request)) => Some(&request.id),
        Some(Message::Notification(_) | Message::Response(_)) | None => None,
    }
}

/// True for a modern request.
fn is_modern(message: Option<&Message>) -> bool {
    let Some(Message::Request(request)) = message else { return false };
    request.meta().is_some_and(|meta| meta.contains_key(era::META_PROTOCOL_VERSION))
}

/// What a modern request says again in its headers; nothing for any other message.
fn modern_headers(message: Option<&Message>) -> HeaderMap {
    let mut found = HeaderMap::new();
    let Some(Message::Request(request)) = message else { return found };
    let revision = request.meta().and_then(|meta| meta.get(era::META_PROTOCOL_VERSION));
    let Some(revision) = revision.and_then(serde_json::Value::as_str) else { return found };
    let all = names::standard(request).into_iter();
    for (name, value) in all.chain([(names::PROTOCOL_VERSION, revision.to_owned())]) {
        if let Ok(value) = HeaderValue::from_str(&value) {
            found.insert(HeaderName::from_static(name), value);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Event, ListedTool, Place, RETRY_MAX, RETRY_MIN, TOOLS_MAX, remember};
    use serde_json::json;
    use std::collections::BTreeMap;
    use std::time::Duration;

    #[test]
    fn a_stream_asks_for_a_pause_within_bounds() {
        for (retry_ms, pause) in [
            (0, RETRY_MIN),
            (99, RETRY_MIN),
            (1500, Duration::from_millis(1500)),
            (60_001, RETRY_MAX),
            (u64::MAX, RETRY_MAX),
        ] {
            let mut place = Place::default();
            place.note(&Event { retry_ms: Some(retry_ms), ..Event::default() });
            assert_eq!(place.pause(), pause, "{retry_ms}");
        }
    }

    #[test]
    fn the_headers_of_so_many_tools_are_remembered() {
        let schema = |header: &str| {
            let region = json!({ "type": "string", "x-mcp-header": header });
            json!({ "properties": { "region": region } })
        };
        let listed =
            |name: String, header: &str| vec![ListedTool { name, input_schema: schema(header) }];
        let mut mirrors = BTreeMap::new();
        for number in 0..TOOLS_MAX + 10 {
            remember(&mut mirrors, listed(format!("t{number}"), "Region"));
        }
        assert_eq!(mirrors.len(), TOOLS_MAX);
        assert!(!mirrors.contains_key(&format!("t{TOOLS_MAX}")));
        // Those that are known may still change.
        let before = mirrors["t0"].clone();
        remember(&mut mirrors, listed("t0".to_owned(), "Zone"));
        assert_ne!(mirrors["t0"], before);
    }
}
