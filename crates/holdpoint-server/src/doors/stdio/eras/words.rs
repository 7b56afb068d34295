//! What one era says in the words of the other: openings, metadata, results.
//! Must never drop a member that it does not know, but for metadata about the agent's connection.

use holdpoint_resources::mcp::era::{
    self, META_CLIENT_CAPABILITIES, META_CLIENT_INFO, META_LOG_LEVEL, META_PREFIX_MCP,
    META_PROTOCOL_VERSION, META_SERVER_INFO, META_SUBSCRIPTION, REVISION_LEGACY, REVISION_MODERN,
};
use holdpoint_resources::mcp::{Identity, Outcome, RpcRequest, tasks};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// Methods whose modern results say how long they may be kept.
const CACHEABLE: [&str; 5] =
    ["tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read"];

#[derive(Deserialize)]
struct Code {
    code: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Discovered {
    supported_versions: Vec<String>,
}

/// The code of a JSON-RPC error.
pub(super) fn code(raw: &RawValue) -> Option<i64> {
    serde_json::from_str::<Code>(raw.get()).ok().map(|error| error.code)
}

/// True for the answer of a modern server to `server/discover`.
pub(super) fn is_modern(raw: &RawValue) -> bool {
    let found = serde_json::from_str::<Discovered>(raw.get());
    found.is_ok_and(|found| found.supported_versions.iter().any(|one| one == REVISION_MODERN))
}

/// What the agent of a modern request can do.
pub(super) fn capabilities(request: &RpcRequest) -> Value {
    let declared = request.meta().and_then(|meta| meta.get(META_CLIENT_CAPABILITIES));
    declared.cloned().unwrap_or_else(|| json!({}))
}

/// True if who has these capabilities can answer such a question.
pub(super) fn can_answer(capabilities: &Value, method: &str, params: Option<&Value>) -> bool {
    let family = method.split('/').next().unwrap_or_default();
    let Some(Value::Object(able)) = capabilities.get(family) else { return false };
    let mode = params.and_then(|params| params.get("mode")).and_then(Value::as_str);
    match (family, mode) {
        ("elicitation", Some("url")) => able.contains_key("url"),
        // A client that names no mode has forms.
        ("elicitation", _) => able.contains_key("form") || !able.contains_key("url"),
        _ => true,
    }
}

/// The opening of a legacy server, for the agent of a modern request.
pub(super) fn initialize_params(request: &RpcRequest) -> Value {
    let declared = capabilities(request);
    let known = |name: &&str| declared.get(*name).is_some_and(Value::is_object);
    let asks = ["sampling", "elicitation", "roots"].into_iter().filter(known);
    let asks: Map<_, _> = asks.map(|name| (name.to_owned(), declared[name].clone())).collect();
    let client = request.meta().and_then(|meta| meta.get(META_CLIENT_INFO)).cloned();
    let client = client.unwrap_or_else(|| Identity::holdpoint().to_value());
    json!({ "protocolVersion": REVISION_LEGACY, "capabilities": asks, "clientInfo": client })
}

/// What a legacy server is, for a modern agent.
pub(super) fn discover_result(server: &Map<String, Value>) -> Value {
    let mut result = Map::new();
    result.insert("supportedVersions".into(), json!([REVISION_MODERN]));
    let able = offered(server);
    result.insert("capabilities".into(), able);
    result.extend(server.get("instructions").map(|text| ("instructions".to_owned(), text.clone())));
    result.insert("ttlMs".into(), 0.into());
    result.insert("cacheScope".into(), "private".into());
    result.insert("resultType".into(), era::RESULT_COMPLETE.into());
    let info = server.get("serverInfo").cloned();
    let info = info.unwrap_or_else(|| Identity::holdpoint().to_value());
    result.insert("_meta".into(), json!({ META_SERVER_INFO: info }));
    Value::Object(result)
}

/// What a modern server is, for a legacy agent.
pub(super) fn initialize_result(request: &RpcRequest, server: &Map<String, Value>) -> Value {
    let able = offered(server);
    let mut result = era::initialize_result(request, &Identity::holdpoint(), able);
    let info = server.get("_meta").and_then(|meta| meta.get(META_SERVER_INFO));
    if let (Some(info), Some(result)) = (info, result.as_object_mut()) {
        result.insert("serverInfo".into(), info.clone());
    }
    if let (Some(text), Some(result)) = (server.get("instructions"), result.as_object_mut()) {
        result.insert("instructions".into(), text.clone());
    }
    result
}

/// What a server can do, but for tasks.
fn offered(server: &Map<String, Value>) -> Value {
    let mut able = server.get("capabilities").cloned().unwrap_or_else(|| json!({}));
    tasks::withhold(&mut able);
    able
}

/// Parameters with the metadata that a modern request must carry: what the agent can do, who it is,
/// and from which level on it wants to read logs.
pub(super) fn modern_params(
    mut params: Map<String, Value>,
    (capabilities, client, level): (&Value, Option<&Value>, Option<&Value>),
) -> Value {
    let mut meta = match params.remove("_meta") {
        Some(Value::Object(meta)) => meta,
        Some(_) | None => Map::new(),
    };
    meta.insert(META_PROTOCOL_VERSION.into(), REVISION_MODERN.into());
    let client = client.cloned().unwrap_or_else(|| Identity::holdpoint().to_value());
    meta.insert(META_CLIENT_INFO.into(), client);
    let mut capabilities = capabilities.clone();
    tasks::withhold(&mut capabilities);
    meta.insert(META_CLIENT_CAPABILITIES.into(), capabilities);
    meta.extend(level.map(|level| (META_LOG_LEVEL.to_owned(), level.clone())));
    params.insert("_meta".into(), Value::Object(meta));
    Value::Object(params)
}

/// Takes out of `params` what only modern servers read.
pub(super) fn strip_modern(params: &mut Option<Value>) {
    let Some(members) = params.as_mut().and_then(Value::as_object_mut) else { return };
    members.remove("inputResponses");
    members.remove("requestState");
    if let Some(meta) = members.get_mut("_meta").and_then(Value::as_object_mut) {
        meta.retain(|key, _| !key.starts_with(META_PREFIX_MCP));
        if meta.is_empty() {
            members.remove("_meta");
        }
    }
}

/// Takes the subscription out of a notification's parameters.
pub(super) fn strip_subscription(params: &mut Option<Value>) {
    let Some(members) = params.as_mut().and_then(Value::as_object_mut) else { return };
    if let Some(meta) = members.get_mut("_meta").and_then(Value::as_object_mut) {
        meta.remove(META_SUBSCRIPTION);
        if meta.is_empty() {
            members.remove("_meta");
        }
    }
}

/// A legacy result as modern agents want it: members are added at its front, and its own bytes stay
/// as they are.
pub(super) fn for_modern(method: &str, outcome: Outcome) -> Outcome {
    let Outcome::Result(raw) = &outcome else { return outcome };
    let Ok(found) = serde_json::from_str::<Map<String, Value>>(raw.get()) else { return outcome };
    let mut added = vec![("resultType", json!(era::RESULT_COMPLETE))];
    if CACHEABLE.contains(&method) {
        added.extend([("ttlMs", json!(0)), ("cacheScope", json!("private"))]);
    }
    let added = added.into_iter().filter(|(name, _)| !found.contains_key(*name));
    let added: Vec<_> = added.map(|(name, value)| format!("\"{name}\":{value}")).collect();
    let rest = raw.get().strip_prefix('{').unwrap_or_default();
    let comma = if found.is_empty() || added.is_empty() { "" } else { "," };
    let text = format!("{{{}{comma}{rest}", added.join(","));
    RawValue::from_string(text).map(Outcome::Result).unwrap_or(outcome)
}

#[cfg(test)]
mod tests {
    use super::{can_answer, for_modern};
    use holdpoint_resources::mcp::Outcome;
    use serde_json::json;
    use serde_json::value::RawValue;

    #[test]
    fn what_is_added_changes_no_byte_of_the_rest() {
        let check = |method: &str, text: &str, expected: &str| {
            let raw = RawValue::from_string(text.to_owned()).unwrap();
            assert_eq!(for_modern(method, Outcome::Result(raw)).raw().get(), expected);
        };
        check("tools/call", r#"{ "x":1.0}"#, r#"{"resultType":"complete", "x":1.0}"#);
        check("tools/call", "{}", r#"{"resultType":"complete"}"#);
        check("tools/call", r#"{"resultType":"x"}"#, r#"{"resultType":"x"}"#);
        check(
            "resources/read",
            r#"{"contents":[],"ttlMs":7}"#,
            r#"{"resultType":"complete","cacheScope":"private","contents":[],"ttlMs":7}"#,
        );
    }

    #[test]
    fn a_question_needs_its_capability() {
        let both = json!({ "elicitation": {}, "sampling": {} });
        let url = json!({ "mode": "url" });
        assert!(can_answer(&both, "elicitation/create", None));
        assert!(!can_answer(&both, "elicitation/create", Some(&url)));
        assert!(!can_answer(&both, "roots/list", None));
        assert!(can_answer(
            &json!({ "elicitation": { "url": {} } }),
            "elicitation/create",
            Some(&url)
        ));
        assert!(!can_answer(&json!({ "elicitation": { "url": {} } }), "elicitation/create", None));
    }
}
