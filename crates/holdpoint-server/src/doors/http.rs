//! The MCP door over streamable HTTP, for both eras, and the operator's API beside it.
//!
//! Owns admission to the door (host, origin, key, size) and the way of one message. Must never let
//! a request without an agent reach the governor.

mod admin;
mod approvals;
mod following;
mod front;
mod hosts;
mod hub;
mod keys;
mod lines;
mod link;
pub mod listen;
mod methods;
pub mod oauth;
mod plans;
mod progress;
mod reach;
mod resources;
mod sessions;
mod streams;
mod tasks;
mod threads;
mod timely;
mod tools;
mod turns;

pub use keys::{AgentKey, InvalidKey, OperatorKey};
pub use sessions::SessionLimits;
pub use turns::TurnLimits;

use super::answer::refused_data;
use super::reads::List;
use crate::governor::Governor;
use crate::telemetry::Telemetry;
use arc_swap::ArcSwap;
use axum::body::{Body, to_bytes};
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use holdpoint_resources::Upstream;
use holdpoint_resources::mcp::era::{self, Era};
use holdpoint_resources::mcp::{
    HeaderFault, Identity, Message, RpcId, RpcRequest, RpcResponse, headers,
};
use holdpoint_types::{AgentName, EffectClass, JsonLimits, OperatorName, Reason, ServerName};
use keys::Keys;
use lines::Lines;
use listen::{Counted, Front, FrontLimits};
use methods::known_method;
use oauth::ResourceServer;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use sessions::Sessions;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use timely::Late;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use turns::{Turn, Turns};

/// How the door is set up.
#[derive(Debug)]
pub struct HttpSettings {
    /// The store's folder, where the other governing processes are registered.
    pub store: PathBuf,
    /// Accepted authorities in `Host`, and in `Origin` after its scheme.
    pub hosts: Vec<String>,
    /// The agent that requests without a key act as, if the operator allows such.
    pub anonymous: Option<AgentName>,
    /// Operators that may stop and release over HTTP.
    pub operators: Vec<OperatorKey>,
    /// Operators who may decide approvals by links.
    pub links: BTreeSet<OperatorName>,
    /// Whose access tokens are accepted besides agents' keys, if any.
    pub oauth: Option<ResourceServer>,
    /// How much JSON is accepted.
    pub json: JsonLimits,
}

/// The door.
pub struct HttpDoor {
    governor: Governor,
    upstreams: ArcSwap<BTreeMap<ServerName, Upstream>>,
    settings: ArcSwap<HttpSettings>,
    keys: Keys,
    sessions: Sessions,
    lines: Lines,
    turns: Arc<Turns>,
    /// The newest call in flight of each agent and request id, which a notification may cancel.
    cancellable: Arc<Mutex<InFlight>>,
    calls: AtomicU64,
}

/// The newest call of each agent and request id.
type InFlight = BTreeMap<(AgentName, RpcId), (u64, CancellationToken)>;

/// A message that got no further than the door.
struct Refused {
    status: StatusCode,
    reason: Reason,
    code: i64,
    detail: String,
    request: Option<RpcId>,
    data: Value,
    /// What would let in who was refused: the value of `WWW-Authenticate`.
    challenge: Option<String>,
}

/// Who sends a request.
#[derive(Debug, PartialEq, Eq)]
struct Caller {
    agent: AgentName,
    /// The most dangerous class of tools that what it showed reaches; grants are another matter.
    reach: EffectClass,
}

/// One request on its way.
struct Asked<'a> {
    agent: AgentName,
    /// The one server that the endpoint serves; `None` for all.
    server: Option<&'a ServerName>,
    era: Era,
    /// True if the client reads event streams.
    events: bool,
    headers: &'a HeaderMap,
    request: RpcRequest,
}

// === impl HttpSettings ===

impl HttpSettings {
    fn issuer(&self) -> Option<Arc<oauth::IssuerKeys>> {
        self.oauth.as_ref().map(|oauth| Arc::clone(oauth.keys()))
    }
}

// === impl HttpDoor ===

impl HttpDoor {
    /// A door to `upstreams`, governed by `governor`.
    pub fn new(
        governor: Governor,
        upstreams: BTreeMap<ServerName, Upstream>,
        settings: HttpSettings,
    ) -> Result<Self, crate::store::StoreFault> {
        let keys = Keys::read(governor.store())?;
        governor.telemetry().watch(upstreams.clone());
        governor.telemetry().watch_issuer(settings.issuer());
        governor.catalog().replace_apart(per_agent(&upstreams));
        Ok(Self {
            governor,
            upstreams: ArcSwap::from_pointee(upstreams),
            settings: ArcSwap::from_pointee(settings),
            keys,
            sessions: Sessions::new(SessionLimits::default()),
            lines: Lines::default(),
            turns: Arc::default(),
            cancellable: Arc::default(),
            calls: AtomicU64::new(0),
        })
    }

    /// Replaces what the door leads to and whom it lets in. Calls in flight keep their server,
    /// which is closed after the last of them.
    pub fn replace(&self, upstreams: BTreeMap<ServerName, Upstream>, settings: HttpSettings) {
        self.governor.telemetry().watch(upstreams.clone());
        self.governor.catalog().replace_apart(per_agent(&upstreams));
        let before = self.upstreams.load_full();
        self.sessions.end_of(|server| {
            let spec =
                |of: &BTreeMap<ServerName, Upstream>| of.get(server).map(|one| one.spec().clone());
            spec(&before) != spec(&upstreams)
        });
        self.upstreams.store(Arc::new(upstreams));
        self.governor.telemetry().watch_issuer(settings.issuer());
        self.settings.store(Arc::new(settings));
    }

    /// The issuer's keys, if access tokens are accepted.
    pub fn issuer_keys(&self) -> Option<Arc<oauth::IssuerKeys>> {
        self.settings.load().issuer()
    }

    /// Replaces the limits on requests at one time.
    pub fn limit(&self, limits: TurnLimits) {
        self.turns.limit(limits);
    }

    /// Reads the agents' keys anew, after another process may have changed them.
    ///
    /// # Errors
    /// When the store cannot be read; the keys known before stay in force.
    pub fn read_keys(&self) -> Result<(), crate::store::StoreFault> {
        self.keys.refresh(self.governor.store())
    }

    /// The routes: `/mcp`, `/mcp/{server}`, their metadata, `/api/v1/*`, `/approve`.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/mcp", post(all_servers).get(threads::listen).delete(threads::end))
            .route("/mcp/{server}", post(one_server).get(threads::listen).delete(threads::end))
            .route("/.well-known/oauth-protected-resource", get(oauth::metadata_of_all))
            .route("/.well-known/oauth-protected-resource/mcp", get(oauth::metadata_of_all))
            .route(
                "/.well-known/oauth-protected-resource/mcp/{server}",
                get(oauth::metadata_of_one),
            )
            .nest("/api/v1", admin::routes())
            .route("/approve", get(link::look).post(link::say))
            .with_state(self)
    }

    async fn answer(
        &self,
        server: Option<&ServerName>,
        request: axum::extract::Request,
    ) -> Response {
        let mut method = "none";
        let response = match self.take(server, request, &mut method).await {
            Ok(response) => response,
            Err(refused) => {
                self.governor.telemetry().refused(refused.reason);
                refused.into_response()
            }
        };
        self.governor.telemetry().requested(method, response.status().as_u16());
        response
    }

    async fn take(
        &self,
        server: Option<&ServerName>,
        request: axum::extract::Request,
        method: &mut &'static str,
    ) -> Result<Response, Box<Refused>> {
        let (head, body) = request.into_parts();
        self.check_host(&head.headers)?;
        let caller = self.authenticate(&head.headers, server).await?;
        let bytes = self.read(&head.headers, body).await?;
        let json = self.settings.load().json;
        let message = Message::from_agent(&bytes, json).map_err(|fault| {
            let status = StatusCode::BAD_REQUEST;
            Refused::new(status, fault.reason(), fault.to_string()).coded(fault.code())
        })?;
        if let Some(id) = threads::thread_of(&head.headers, &message) {
            *method = message.method().map_or("other", known_method);
            return self.in_thread((&caller, server), (id, &head.headers), (message, &bytes)).await;
        }
        let request = match message {
            Message::Request(request) => request,
            Message::Notification(notification) => {
                if notification.method == "notifications/cancelled" {
                    self.cancel(&caller.agent, notification.params.as_ref());
                }
                return Ok(StatusCode::ACCEPTED.into_response());
            }
            Message::Response(_) => return Ok(StatusCode::ACCEPTED.into_response()),
        };
        *method = known_method(&request.method);
        let era = check_era(&head.headers, &request)?;
        let turn = self.turn(&caller, server, &request).await?;
        let events = threads::accepts_events(&head.headers);
        let headers = &head.headers;
        let asked = Asked { agent: caller.agent, server, era, events, headers, request };
        self.dispatch(asked, turn).await
    }

    /// Waits for the agent's turn, and sees that what the caller showed reaches so far.
    async fn turn(
        &self,
        caller: &Caller,
        server: Option<&ServerName>,
        request: &RpcRequest,
    ) -> Result<Turn, Box<Refused>> {
        let busy = |reason: Reason| {
            let detail = reason.meaning().to_owned();
            Refused::new(StatusCode::SERVICE_UNAVAILABLE, reason, detail).about(request)
        };
        let telemetry = self.governor.telemetry();
        if telemetry.is_draining() {
            return Err(busy(Reason::Draining));
        }
        let turn = self.turns.take(&caller.agent, telemetry).await;
        let turn = turn.ok_or_else(|| busy(Reason::Overloaded))?;
        self.check_reach(caller, server, request).await?;
        Ok(turn)
    }

    async fn dispatch(&self, asked: Asked<'_>, turn: Turn) -> Result<Response, Box<Refused>> {
        tasks::check(&asked)?;
        let identity = Identity::holdpoint();
        let id = asked.request.id.clone();
        let capabilities =
            json!({ "tools": {}, "resources": {}, "prompts": {}, "completions": {} });
        let result = match (asked.request.method.as_str(), asked.era) {
            ("initialize", Era::Legacy) => {
                let Some(server) = asked.server else { return self.open_hub(&asked) };
                if let Some(response) = self.open_thread(&asked, server).await? {
                    return Ok(response);
                }
                era::initialize_result(&asked.request, &identity, capabilities)
            }
            ("ping", Era::Legacy) => json!({}),
            ("server/discover", Era::Modern) => tasks::discovered(&identity, capabilities),
            ("tools/list", _) => self.list_tools(&asked).await?,
            ("tools/call", _) => return self.call_tool(asked, turn).await,
            ("tasks/get" | "tasks/update" | "tasks/cancel", Era::Modern) => {
                return self.follow_task(asked, turn).await;
            }
            ("subscriptions/listen", Era::Modern) => {
                // A stream is as long as its reader wants: it takes no turn from the calls.
                drop(turn);
                return match asked.server {
                    Some(server) => self.follow(&asked, server).await,
                    None => self.follow_all(&asked).await,
                };
            }
            ("resources/read" | "prompts/get" | "completion/complete", _) => {
                return self.read_resource(asked, turn).await;
            }
            (method, _) => match List::of(method) {
                Some(list) => self.list_entries(&asked, list).await?,
                None => return Err(unknown_method(&asked)),
            },
        };
        Ok(respond(&RpcResponse::result_value(id, &result)))
    }

    async fn authenticate(
        &self,
        headers: &HeaderMap,
        server: Option<&ServerName>,
    ) -> Result<Caller, Box<Refused>> {
        let whole = |agent| Caller { agent, reach: EffectClass::Destructive };
        let settings = self.settings.load_full();
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            let anonymous = settings.anonymous.clone().map(whole);
            let detail = "neither an agent key nor an access token was sent";
            return anonymous.ok_or_else(|| self.unauthenticated(server, (detail, "")));
        };
        let sent = value.to_str().ok().and_then(bearer);
        if let Some(agent) = sent.and_then(|key| self.keys.agent(key)) {
            return Ok(whole(agent));
        }
        match (&settings.oauth, sent) {
            (Some(oauth), Some(token)) if !keys::looks_like_one(token) => {
                self.by_token((oauth, token), server).await
            }
            (Some(_) | None, _) => {
                let detail = ("the agent key is not valid", "error=\"invalid_token\", ");
                Err(self.unauthenticated(server, detail))
            }
        }
    }

    async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Box<Refused>> {
        let json = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let json = json.is_some_and(|value| {
            value.split(';').next().is_some_and(|kind| kind.trim() == "application/json")
        });
        if !json {
            let detail = "Content-Type must be application/json".to_owned();
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Refused::new(status, Reason::MessageMalformed, detail));
        }
        if headers.contains_key(header::CONTENT_ENCODING) {
            let detail = "the message must not be compressed".to_owned();
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Refused::new(status, Reason::MessageMalformed, detail));
        }
        let bytes_max = self.settings.load().json.bytes_max;
        let bytes = to_bytes(body, bytes_max).await.map_err(|fault| {
            if let Some(late) = Late::among(&fault) {
                let status = StatusCode::REQUEST_TIMEOUT;
                return Refused::new(status, Reason::MessageLate, late.to_string());
            }
            let detail = format!("the message did not arrive whole within {bytes_max} bytes");
            Refused::new(StatusCode::PAYLOAD_TOO_LARGE, Reason::MessageTooLarge, detail)
        })?;
        Ok(bytes.into())
    }

    fn cancel(&self, agent: &AgentName, params: Option<&Value>) {
        let id = params.and_then(|params| params.get("requestId")).and_then(RpcId::from_value);
        let Some(id) = id else { return };
        if let Some((_, asked)) = self.cancellable.lock().get(&(agent.clone(), id)) {
            asked.cancel();
        }
    }
}

// === impl Refused ===

impl Refused {
    fn new(status: StatusCode, reason: Reason, detail: String) -> Box<Self> {
        let code = era::INVALID_REQUEST;
        let data = refused_data(reason, &detail);
        Box::new(Self { status, reason, code, detail, request: None, data, challenge: None })
    }

    /// The same, with another JSON-RPC error code.
    fn coded(mut self: Box<Self>, code: i64) -> Box<Self> {
        self.code = code;
        self
    }

    /// The same, saying what would let in.
    fn challenging(mut self: Box<Self>, challenge: String) -> Box<Self> {
        self.challenge = Some(challenge);
        self
    }

    /// The same, as the answer to `request`.
    fn about(mut self: Box<Self>, request: &RpcRequest) -> Box<Self> {
        self.request = Some(request.id.clone());
        self
    }

    /// The same, with what the protocol wants to be said for programs.
    fn telling(mut self: Box<Self>, data: Value) -> Box<Self> {
        if let (Value::Object(own), Value::Object(data)) = (&mut self.data, data) {
            own.extend(data);
        }
        self
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        tracing::info!(reason = %self.reason, detail = %self.detail, "refused at the door");
        let body = RpcResponse::error(self.request, self.code, &self.detail, self.data);
        let mut response = respond(&body);
        *response.status_mut() = self.status;
        let challenge = self.challenge.and_then(|text| header::HeaderValue::try_from(text).ok());
        if let Some(challenge) = challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            let pause = header::HeaderValue::from_static("1");
            response.headers_mut().insert(header::RETRY_AFTER, pause);
        }
        response
    }
}

// === impl Counted ===

impl Counted for Governor {
    fn telemetry(&self) -> &Telemetry {
        Self::telemetry(self)
    }
}

/// Serves the door with default limits until `done` fires and the last call is answered.
///
/// # Errors
/// None today: a listener that fails is tried again.
pub async fn serve(
    listener: TcpListener,
    door: Arc<HttpDoor>,
    done: CancellationToken,
) -> std::io::Result<()> {
    let front = Arc::new(Front::new(FrontLimits::default(), None));
    let governor = door.governor.clone();
    listen::serve(listener, door.router(), (front, governor), done).await;
    Ok(())
}

async fn all_servers(
    State(door): State<Arc<HttpDoor>>,
    request: axum::extract::Request,
) -> Response {
    door.answer(None, request).await
}

async fn one_server(
    State(door): State<Arc<HttpDoor>>,
    UrlPath(server): UrlPath<String>,
    request: axum::extract::Request,
) -> Response {
    let name: Option<ServerName> = server.parse().ok();
    let known = name.as_ref().filter(|name| door.upstreams.load().contains_key(name));
    match known {
        Some(name) => door.answer(Some(name), request).await,
        // The same answer as without a key: names of servers are nobody's business before that.
        None => {
            let headers = request.headers();
            let came = match door.check_host(headers) {
                Ok(()) => door.authenticate(headers, name.as_ref()).await,
                Err(refused) => Err(refused),
            };
            match came {
                Ok(_) => {
                    let detail = "no upstream server has this name".to_owned();
                    Refused::new(StatusCode::NOT_FOUND, Reason::ServerUnknown, detail)
                        .into_response()
                }
                Err(refused) => refused.into_response(),
            }
        }
    }
}

/// There is no stream to open by GET and no thread of requests to end by DELETE.
fn not_allowed() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "POST")]).into_response()
}

fn check_era(headers_sent: &HeaderMap, request: &RpcRequest) -> Result<Era, Box<Refused>> {
    let refuse = |reason, code, detail: String, data| {
        let refused = Refused::new(StatusCode::BAD_REQUEST, reason, detail);
        refused.coded(code).about(request).telling(data)
    };
    let lookup = by_name(headers_sent);
    let body = request.meta().and_then(|meta| meta.get(era::META_PROTOCOL_VERSION));
    let body = body.and_then(Value::as_str);
    let header = lookup(headers::PROTOCOL_VERSION);
    if header.is_some() && body.is_some() && header != body {
        // Whoever routes by the header must not take the request for another one.
        let detail = "the header `mcp-protocol-version` differs from the body".to_owned();
        return Err(refuse(Reason::HeaderMismatch, era::HEADER_MISMATCH, detail, Value::Null));
    }
    let era = era::era_of(request).map_err(|fault| {
        refuse(Reason::RevisionUnsupported, fault.code(), fault.to_string(), fault.data())
    })?;
    headers::check_headers(lookup, request).map_err(|fault| misfit(&fault, request))?;
    Ok(era)
}

/// Finds the value of a header by its lower-case name.
fn by_name<'a>(headers: &'a HeaderMap) -> impl Fn(&str) -> Option<&'a str> {
    |name| headers.get(name).and_then(|value| value.to_str().ok())
}

/// The answer to a request whose headers do not fit it.
fn misfit(fault: &HeaderFault, request: &RpcRequest) -> Box<Refused> {
    let reason = match fault {
        HeaderFault::Unsupported { .. } => Reason::RevisionUnsupported,
        _ => Reason::HeaderMismatch,
    };
    let refused = Refused::new(StatusCode::BAD_REQUEST, reason, fault.to_string());
    refused.coded(fault.code()).about(request).telling(fault.data())
}

fn unknown_method(asked: &Asked<'_>) -> Box<Refused> {
    let detail = format!("method `{}` is not served here", asked.request.method);
    let status = match asked.era {
        Era::Modern => StatusCode::NOT_FOUND,
        Era::Legacy => StatusCode::OK,
    };
    let refused = Refused::new(status, Reason::MethodUnknown, detail);
    refused.coded(era::METHOD_NOT_FOUND).about(&asked.request)
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
}

fn respond(response: &RpcResponse) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], response.to_bytes()).into_response()
}

fn respond_json(body: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn own_result(era: Era, result: Map<String, Value>) -> Value {
    era::result_for(era, result, &Identity::holdpoint())
}

/// An operator's answer that is not JSON-RPC.
fn plain(status: StatusCode, reason: Reason, detail: &str) -> Response {
    (status, Json(json!({ "reason": reason.code(), "detail": detail }))).into_response()
}

/// The servers that offer each agent tools of its own.
fn per_agent(upstreams: &BTreeMap<ServerName, Upstream>) -> BTreeSet<ServerName> {
    let apart = upstreams.iter().filter(|(_, upstream)| upstream.is_per_agent());
    apart.map(|(server, _)| server.clone()).collect()
}
