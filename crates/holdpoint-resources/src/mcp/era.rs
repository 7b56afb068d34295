//! The two eras of MCP: handshake (`initialize`, until 2025-11-25) and per-request metadata
//! (2026-07-28).
//!
//! Owns revisions, `_meta` keys, error codes and the shapes of the opening requests and results,
//! for both directions. The one module (with [`super::headers`]) that may know both eras. Must
//! never do I/O.

use super::message::{RpcRequest, RpcResponse};
use serde_json::{Map, Value, json};

/// The revision of the modern era.
pub const REVISION_MODERN: &str = "2026-07-28";
/// The newest revision of the legacy era; the one we ask servers for.
pub const REVISION_LEGACY: &str = "2025-11-25";
/// The oldest revision that Holdpoint serves to agents.
pub const REVISION_LEGACY_OLDEST: &str = "2025-06-18";
/// What Holdpoint serves to agents, newest first.
pub const REVISIONS: [&str; 3] = [REVISION_MODERN, REVISION_LEGACY, REVISION_LEGACY_OLDEST];
/// What Holdpoint accepts from legacy servers: for tools, older revisions read the same.
pub const REVISIONS_UPSTREAM_LEGACY: [&str; 4] =
    [REVISION_LEGACY, REVISION_LEGACY_OLDEST, "2025-03-26", "2024-11-05"];

/// The prefix of the protocol's own `_meta` keys.
pub const META_PREFIX_MCP: &str = "io.modelcontextprotocol/";
/// The prefix of Holdpoint's `_meta` keys; they go no further than Holdpoint.
pub const META_PREFIX_OWN: &str = "io.holdpoint/";
/// Names the revision of a request.
pub const META_PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// Names the client.
pub const META_CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
/// Names what the client can do.
pub const META_CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// Names the server, in results.
pub const META_SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
/// Names the `subscriptions/listen` that a notification belongs to.
pub const META_SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
/// Opts a request into log notifications, from a level on.
pub const META_LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
/// What the protocol itself knows of the `params` of a call.
const CALL_MEMBERS: [&str; 6] =
    ["name", "arguments", "_meta", "task", "inputResponses", "requestState"];
/// Name the trace that a request belongs to.
const TRACE: [&str; 2] = ["traceparent", "tracestate"];
/// Opts a request into progress notifications.
pub const META_PROGRESS: &str = "progressToken";

/// The text is not JSON.
pub const PARSE_ERROR: i64 = -32700;
/// The JSON is no request.
pub const INVALID_REQUEST: i64 = -32600;
/// Nobody serves this method.
pub const METHOD_NOT_FOUND: i64 = -32601;
/// The parameters are wrong.
pub const INVALID_PARAMS: i64 = -32602;
/// Something failed inside.
pub const INTERNAL_ERROR: i64 = -32603;
/// A mirrored header is missing or differs from the body.
pub const HEADER_MISMATCH: i64 = -32020;
/// The request needs a capability that the client did not declare.
pub const MISSING_CLIENT_CAPABILITY: i64 = -32021;
/// The server does not speak the revision.
pub const UNSUPPORTED_PROTOCOL_VERSION: i64 = -32022;

/// The `resultType` of a finished request.
pub const RESULT_COMPLETE: &str = "complete";
/// The `resultType` of a request that waits for the client's input.
pub const RESULT_INPUT_REQUIRED: &str = "input_required";
/// The `resultType` of a task instead of a result (extension `io.modelcontextprotocol/tasks`).
pub const RESULT_TASK: &str = "task";

/// How two peers agree on what they speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// By an `initialize` handshake.
    Legacy,
    /// By metadata on every request.
    Modern,
}

/// A name and a version, as peers introduce themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The program's name.
    pub name: String,
    /// The program's version.
    pub version: String,
}

/// Why a request belongs to no era that we serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EraFault {
    /// The revision is not one of ours.
    #[error("protocol version `{requested}` is not supported")]
    Unsupported {
        /// What was asked for.
        requested: String,
    },
    /// A modern request lacks metadata that it must carry, or carries it in the wrong shape.
    #[error("`_meta` must carry `{key}` as {shape}")]
    Metadata {
        /// The key.
        key: &'static str,
        /// What it must be.
        shape: &'static str,
    },
}

// === impl Identity ===

impl Identity {
    /// Holdpoint itself.
    pub fn holdpoint() -> Self {
        Self { name: "holdpoint".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
    }

    /// As an MCP `Implementation`.
    pub fn to_value(&self) -> Value {
        json!({ "name": self.name, "version": self.version })
    }
}

// === impl EraFault ===

impl EraFault {
    /// The JSON-RPC error code.
    pub fn code(&self) -> i64 {
        match self {
            Self::Unsupported { .. } => UNSUPPORTED_PROTOCOL_VERSION,
            Self::Metadata { .. } => INVALID_PARAMS,
        }
    }

    /// The member `data` of the JSON-RPC error; null if there is none.
    pub fn data(&self) -> Value {
        match self {
            Self::Unsupported { requested } => {
                json!({ "supported": REVISIONS, "requested": requested })
            }
            Self::Metadata { .. } => Value::Null,
        }
    }

    /// The response that refuses `request`.
    pub fn response(&self, request: &RpcRequest) -> RpcResponse {
        let id = Some(request.id.clone());
        RpcResponse::error(id, self.code(), &self.to_string(), self.data())
    }
}

// What a client sends.

/// The parameters of `initialize`, without any client capability: Holdpoint answers no requests.
pub fn initialize_params(identity: &Identity) -> Value {
    json!({
        "protocolVersion": REVISION_LEGACY,
        "capabilities": {},
        "clientInfo": identity.to_value(),
    })
}

/// The `_meta` members that a modern request must carry.
pub fn request_meta(identity: &Identity) -> Map<String, Value> {
    let mut meta = Map::new();
    meta.insert(META_PROTOCOL_VERSION.into(), REVISION_MODERN.into());
    meta.insert(META_CLIENT_INFO.into(), identity.to_value());
    meta.insert(META_CLIENT_CAPABILITIES.into(), json!({}));
    meta
}

/// Parameters for a request in `era`: `params` and, in the modern era, our `_meta` over its own.
pub fn params_for(era: Era, mut params: Map<String, Value>, identity: &Identity) -> Value {
    if era == Era::Modern {
        let mut meta = match params.remove("_meta") {
            Some(Value::Object(meta)) => meta,
            Some(_) | None => Map::new(),
        };
        meta.extend(request_meta(identity));
        params.insert("_meta".into(), Value::Object(meta));
    }
    Value::Object(params)
}

/// What an agent's `_meta` keeps on its way upstream: not the keys that speak about the agent's own
/// connection, nor Holdpoint's. `None` if nothing is left.
pub fn forwarded_meta(meta: Option<&Value>) -> Option<Map<String, Value>> {
    let kept = |key: &String| {
        key != META_PROGRESS
            && !key.starts_with(META_PREFIX_MCP)
            && !key.starts_with(META_PREFIX_OWN)
    };
    let meta = meta?.as_object()?.iter().filter(|(key, _)| kept(key));
    let meta: Map<_, _> = meta.map(|(key, value)| (key.clone(), value.clone())).collect();
    (!meta.is_empty()).then_some(meta)
}

/// Leaves of the `params` of a call only what the protocol knows, and of its `_meta` what speaks
/// about the connection or names a trace. The rest could mean something to a server, and whoever
/// approved the call did not see it.
pub fn strip_unapproved(params: &mut Map<String, Value>) {
    params.retain(|key, _| CALL_MEMBERS.contains(&&**key));
    if let Some(meta) = params.get_mut("_meta").and_then(Value::as_object_mut) {
        meta.retain(|key, _| {
            key == META_PROGRESS || key.starts_with(META_PREFIX_MCP) || TRACE.contains(&&**key)
        });
    }
}

/// Asks for progress notifications under `token`.
pub fn set_progress(params: &mut Option<Value>, token: Value) {
    let params = params.get_or_insert_with(|| json!({}));
    let Some(params) = params.as_object_mut() else { return };
    let meta = params.entry("_meta").or_insert_with(|| json!({}));
    if let Some(meta) = meta.as_object_mut() {
        meta.insert(META_PROGRESS.into(), token);
    }
}

/// Tells a modern server what the agent of a request can do, so that it may ask for input.
pub fn declare_capabilities(params: &mut Value, agent_meta: Option<&Value>) {
    let declared = agent_meta.and_then(|meta| meta.get(META_CLIENT_CAPABILITIES));
    let Some(declared) = declared.filter(|declared| declared.is_object()) else { return };
    if let Some(meta) = params.get_mut("_meta").and_then(Value::as_object_mut) {
        meta.insert(META_CLIENT_CAPABILITIES.into(), declared.clone());
    }
}

/// Takes Holdpoint's own keys out of the `_meta` of `params`.
pub fn strip_own_meta(params: &mut Value) {
    let Some(meta) = params.get_mut("_meta").and_then(Value::as_object_mut) else { return };
    let had = meta.len();
    meta.retain(|key, _| !key.starts_with(META_PREFIX_OWN));
    if meta.is_empty() && had > 0 {
        params.as_object_mut().and_then(|params| params.remove("_meta"));
    }
}

/// True for the error codes by which a modern server is recognised.
pub fn is_modern_error(code: i64) -> bool {
    matches!(code, HEADER_MISMATCH | MISSING_CLIENT_CAPABILITY | UNSUPPORTED_PROTOCOL_VERSION)
}

/// What the list of revisions in a `DiscoverResult` or an `UnsupportedProtocolVersion` error lets
/// us speak; `None` if we have none in common.
pub fn common_era(supported: &[String]) -> Option<Era> {
    let has = |revision: &str| supported.iter().any(|entry| entry == revision);
    if has(REVISION_MODERN) {
        return Some(Era::Modern);
    }
    let legacy = REVISIONS_UPSTREAM_LEGACY.into_iter().any(has);
    legacy.then_some(Era::Legacy)
}

// What a server checks and sends.

/// The era of a request, as the request itself says: metadata makes it modern.
///
/// # Errors
/// When the metadata names a revision that is not [`REVISION_MODERN`], or is incomplete.
pub fn era_of(request: &RpcRequest) -> Result<Era, EraFault> {
    let Some(version) = request.meta().and_then(|meta| meta.get(META_PROTOCOL_VERSION)) else {
        if request.method == "server/discover" {
            let key = META_PROTOCOL_VERSION;
            return Err(EraFault::Metadata { key, shape: "a string" });
        }
        return Ok(Era::Legacy);
    };
    let Some(version) = version.as_str() else {
        return Err(EraFault::Metadata { key: META_PROTOCOL_VERSION, shape: "a string" });
    };
    if version != REVISION_MODERN {
        return Err(EraFault::Unsupported { requested: version.chars().take(64).collect() });
    }
    let capabilities = request.meta().and_then(|meta| meta.get(META_CLIENT_CAPABILITIES));
    if !capabilities.is_some_and(Value::is_object) {
        return Err(EraFault::Metadata { key: META_CLIENT_CAPABILITIES, shape: "an object" });
    }
    Ok(Era::Modern)
}

/// The legacy revision to answer an `initialize` with: the asked one if we serve it, else our
/// newest.
pub fn legacy_revision(request: &RpcRequest) -> &'static str {
    let asked = request.param("protocolVersion").and_then(Value::as_str);
    let served = [REVISION_LEGACY, REVISION_LEGACY_OLDEST];
    served.into_iter().find(|revision| Some(*revision) == asked).unwrap_or(REVISION_LEGACY)
}

/// The result of `initialize`.
pub fn initialize_result(request: &RpcRequest, identity: &Identity, capabilities: Value) -> Value {
    json!({
        "protocolVersion": legacy_revision(request),
        "capabilities": capabilities,
        "serverInfo": identity.to_value(),
    })
}

/// The result of `server/discover`.
pub fn discover_result(identity: &Identity, capabilities: Value) -> Value {
    let mut result = Map::new();
    result.insert("supportedVersions".into(), json!(REVISIONS));
    result.insert("capabilities".into(), capabilities);
    // How long clients may keep this: not at all, for grants change at any time.
    result.insert("ttlMs".into(), 0.into());
    result.insert("cacheScope".into(), "private".into());
    result_for(Era::Modern, result, identity)
}

/// A result of our own in `era`: in the modern one with `resultType` and the server's name.
pub fn result_for(era: Era, mut result: Map<String, Value>, identity: &Identity) -> Value {
    if era == Era::Modern {
        result.entry("resultType").or_insert_with(|| RESULT_COMPLETE.into());
        let meta = result.entry("_meta").or_insert_with(|| json!({}));
        if let Some(meta) = meta.as_object_mut() {
            meta.insert(META_SERVER_INFO.into(), identity.to_value());
        }
    }
    Value::Object(result)
}

#[cfg(test)]
mod tests {
    use super::{
        Era, Identity, common_era, discover_result, era_of, forwarded_meta, initialize_result,
        params_for, strip_own_meta,
    };
    use crate::mcp::{RpcId, RpcRequest};
    use expect_test::{Expect, expect};
    use serde_json::{Map, Value, json};

    fn request(method: &str, params: Value) -> RpcRequest {
        RpcRequest::new(RpcId::Number(1), method, params)
    }

    fn check(method: &str, params: Value, expected: Expect) {
        let request = request(method, params);
        let said = match era_of(&request) {
            Ok(era) => format!("{era:?}"),
            Err(fault) => String::from_utf8(fault.response(&request).to_bytes()).unwrap(),
        };
        expected.assert_eq(&said);
    }

    #[test]
    fn a_request_says_its_era() {
        check("initialize", json!({"protocolVersion": "2025-11-25"}), expect!["Legacy"]);
        check("tools/list", json!({}), expect!["Legacy"]);
        let modern = params_for(Era::Modern, Map::new(), &Identity::holdpoint());
        check("tools/list", modern, expect!["Modern"]);
        check(
            "server/discover",
            json!({}),
            expect![[
                r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"`_meta` must carry `io.modelcontextprotocol/protocolVersion` as a string"}}"#
            ]],
        );
        check(
            "tools/list",
            json!({"_meta": {"io.modelcontextprotocol/protocolVersion": "1900-01-01"}}),
            expect![[
                r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32022,"message":"protocol version `1900-01-01` is not supported","data":{"supported":["2026-07-28","2025-11-25","2025-06-18"],"requested":"1900-01-01"}}}"#
            ]],
        );
        check(
            "tools/list",
            json!({"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}),
            expect![[
                r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"`_meta` must carry `io.modelcontextprotocol/clientCapabilities` as an object"}}"#
            ]],
        );
    }

    #[test]
    fn opening_results_have_their_shape() {
        let identity = Identity { name: "h".into(), version: "1".into() };
        let asked = request("initialize", json!({"protocolVersion": "2025-06-18"}));
        expect![[r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"h","version":"1"}}"#]]
            .assert_eq(&initialize_result(&asked, &identity, json!({"tools": {}})).to_string());
        let other = request("initialize", json!({"protocolVersion": "2030-01-01"}));
        assert_eq!(
            initialize_result(&other, &identity, json!({}))["protocolVersion"],
            "2025-11-25"
        );
        expect![[r#"{"supportedVersions":["2026-07-28","2025-11-25","2025-06-18"],"capabilities":{"tools":{}},"ttlMs":0,"cacheScope":"private","resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"h","version":"1"}}}"#]]
            .assert_eq(&discover_result(&identity, json!({"tools": {}})).to_string());
    }

    #[test]
    fn metadata_about_the_connection_stays_behind() {
        let meta = json!({
            "progressToken": 7,
            "io.modelcontextprotocol/clientInfo": {},
            "io.holdpoint/task": "t",
            "traceparent": "00-1-2-01",
            "com.example/x": 1.5,
        });
        let kept = Value::Object(forwarded_meta(Some(&meta)).unwrap());
        assert_eq!(kept, json!({"traceparent": "00-1-2-01", "com.example/x": 1.5}));
        assert_eq!(forwarded_meta(Some(&json!({"progressToken": 1}))), None);
        assert_eq!(forwarded_meta(Some(&json!("text"))), None);
        let mut params = json!({"name": "x", "_meta": {"io.holdpoint/task": "t"}});
        strip_own_meta(&mut params);
        assert_eq!(params, json!({"name": "x"}));
    }

    #[test]
    fn the_newest_common_era_wins() {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(common_era(&list(&["2025-11-25", "2026-07-28"])), Some(Era::Modern));
        assert_eq!(common_era(&list(&["2024-11-05"])), Some(Era::Legacy));
        assert_eq!(common_era(&list(&["2027-01-01"])), None);
        assert_eq!(common_era(&[]), None);
    }
}
