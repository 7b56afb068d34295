//! The MCP door over streamable HTTP, for both eras, and the operator's API beside it.
//!
//! Owns admission to the door (host, origin, key, size) and the way of one message. Must never let
//! a request without an agent reach the governor.

mod admin;
mod keys;
mod tools;

pub use keys::{AgentKey, InvalidKey, OperatorKey};

use super::answer::refused_data;
use crate::governor::Governor;
use axum::body::{Body, to_bytes};
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use holdpoint_resources::Upstream;
use holdpoint_resources::mcp::era::{self, Era};
use holdpoint_resources::mcp::{HeaderFault, Identity, Message, RpcId, RpcRequest, RpcResponse, headers};
use holdpoint_types::{AgentName, JsonLimits, Reason, ServerName};
use keys::Keys;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

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
    /// How much JSON is accepted.
    pub json: JsonLimits,
}

/// The door.
pub struct HttpDoor {
    governor: Governor,
    upstreams: BTreeMap<ServerName, Upstream>,
    settings: HttpSettings,
    keys: Keys,
    /// The newest call in flight of each agent and request id, which a notification may cancel.
    cancellable: Mutex<BTreeMap<(AgentName, RpcId), (u64, CancellationToken)>>,
    calls: AtomicU64,
}

/// A message that got no further than the door.
struct Refused {
    status: StatusCode,
    reason: Reason,
    code: i64,
    detail: String,
    request: Option<RpcId>,
    data: Value,
}

/// One request on its way.
struct Asked<'a> {
    agent: AgentName,
    /// The one server that the endpoint serves; `None` for all.
    server: Option<&'a ServerName>,
    era: Era,
    request: RpcRequest,
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
        Ok(Self {
            governor,
            upstreams,
            settings,
            keys,
            cancellable: Mutex::default(),
            calls: AtomicU64::new(0),
        })
    }

    /// Reads the agents' keys anew, after another process may have changed them.
    ///
    /// # Errors
    /// When the store cannot be read; the keys known before stay in force.
    pub fn read_keys(&self) -> Result<(), crate::store::StoreFault> {
        self.keys.refresh(self.governor.store())
    }

    /// The routes: `/mcp`, `/mcp/{server}`, `/api/v1/*`.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/mcp", post(all_servers).get(not_allowed).delete(not_allowed))
            .route("/mcp/{server}", post(one_server).get(not_allowed).delete(not_allowed))
            .route("/api/v1/status", get(admin::status))
            .route("/api/v1/stop", post(admin::stop))
            .route("/api/v1/release", post(admin::release))
            .with_state(self)
    }

    async fn answer(
        &self,
        server: Option<&ServerName>,
        request: axum::extract::Request,
    ) -> Response {
        match self.take(server, request).await {
            Ok(response) => response,
            Err(refused) => refused.into_response(),
        }
    }

    async fn take(
        &self,
        server: Option<&ServerName>,
        request: axum::extract::Request,
    ) -> Result<Response, Box<Refused>> {
        let (head, body) = request.into_parts();
        self.check_host(&head.headers)?;
        let agent = self.authenticate(&head.headers)?;
        let bytes = self.read(&head.headers, body).await?;
        let message = Message::from_agent(&bytes, self.settings.json).map_err(|fault| {
            let status = StatusCode::BAD_REQUEST;
            Refused::new(status, fault.reason(), fault.to_string()).coded(fault.code())
        })?;
        let request = match message {
            Message::Request(request) => request,
            Message::Notification(notification) => {
                if notification.method == "notifications/cancelled" {
                    self.cancel(&agent, notification.params.as_ref());
                }
                return Ok(StatusCode::ACCEPTED.into_response());
            }
            Message::Response(_) => return Ok(StatusCode::ACCEPTED.into_response()),
        };
        let era = check_era(&head.headers, &request)?;
        let asked = Asked { agent, server, era, request };
        self.dispatch(asked).await
    }

    async fn dispatch(&self, asked: Asked<'_>) -> Result<Response, Box<Refused>> {
        let identity = Identity::holdpoint();
        let id = asked.request.id.clone();
        let capabilities = json!({ "tools": {} });
        let result = match (asked.request.method.as_str(), asked.era) {
            ("initialize", Era::Legacy) => {
                era::initialize_result(&asked.request, &identity, capabilities)
            }
            ("ping", Era::Legacy) => json!({}),
            ("server/discover", Era::Modern) => era::discover_result(&identity, capabilities),
            ("tools/list", _) => self.list_tools(&asked).await?,
            ("tools/call", _) => return self.call_tool(asked).await,
            _ => return Err(unknown_method(&asked)),
        };
        Ok(respond(&RpcResponse::result_value(id, &result)))
    }

    fn check_host(&self, headers: &HeaderMap) -> Result<(), Box<Refused>> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let known = |authority: &str| {
            self.settings.hosts.iter().any(|host| host.eq_ignore_ascii_case(authority))
        };
        let host_fits = text(header::HOST).is_some_and(known);
        let origin = text(header::ORIGIN);
        let authority = |origin: &str| {
            origin.strip_prefix("http://").or(origin.strip_prefix("https://")).is_some_and(known)
        };
        if host_fits && origin.is_none_or(authority) {
            return Ok(());
        }
        let detail = "the Host or Origin header names another server".to_owned();
        Err(Refused::new(StatusCode::FORBIDDEN, Reason::OriginRefused, detail))
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<AgentName, Box<Refused>> {
        let unauthenticated = |detail: &str| {
            Refused::new(StatusCode::UNAUTHORIZED, Reason::Unauthenticated, detail.to_owned())
        };
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            let anonymous = self.settings.anonymous.clone();
            return anonymous.ok_or_else(|| unauthenticated("no agent key was sent"));
        };
        let key = value.to_str().ok().and_then(bearer);
        let agent = key.and_then(|key| self.keys.agent(key));
        agent.ok_or_else(|| unauthenticated("the agent key is not valid"))
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
        let bytes_max = self.settings.json.bytes_max;
        let bytes = to_bytes(body, bytes_max).await.map_err(|_| {
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
        Box::new(Self { status, reason, code, detail, request: None, data })
    }

    /// The same, with another JSON-RPC error code.
    fn coded(mut self: Box<Self>, code: i64) -> Box<Self> {
        self.code = code;
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
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = header::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// Serves the door until `done` fires and the last call is answered.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    door: Arc<HttpDoor>,
    done: CancellationToken,
) -> std::io::Result<()> {
    let ending = async move { done.cancelled().await };
    axum::serve(listener, door.router()).with_graceful_shutdown(ending).await
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
    let known = server.parse().ok().filter(|name| door.upstreams.contains_key(name));
    match known {
        Some(name) => door.answer(Some(&name), request).await,
        // The same answer as without a key: names of servers are nobody's business before that.
        None => {
            match door.check_host(request.headers()).and(door.authenticate(request.headers())) {
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
async fn not_allowed() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "POST")]).into_response()
}

fn check_era(headers_sent: &HeaderMap, request: &RpcRequest) -> Result<Era, Box<Refused>> {
    let refuse = |reason, code, detail: String, data| {
        let refused = Refused::new(StatusCode::BAD_REQUEST, reason, detail);
        refused.coded(code).about(request).telling(data)
    };
    let lookup = |name: &str| headers_sent.get(name).and_then(|value| value.to_str().ok());
    let era = era::era_of(request).map_err(|fault| {
        refuse(Reason::RevisionUnsupported, fault.code(), fault.to_string(), fault.data())
    })?;
    headers::check_headers(lookup, request).map_err(|fault| {
        let reason = match fault {
            HeaderFault::Unsupported { .. } => Reason::RevisionUnsupported,
            _ => Reason::HeaderMismatch,
        };
        refuse(reason, fault.code(), fault.to_string(), fault.data())
    })?;
    Ok(era)
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

fn own_result(era: Era, result: Map<String, Value>) -> Value {
    era::result_for(era, result, &Identity::holdpoint())
}

/// An operator's answer that is not JSON-RPC.
fn plain(status: StatusCode, reason: Reason, detail: &str) -> Response {
    (status, Json(json!({ "reason": reason.code(), "detail": detail }))).into_response()
}
