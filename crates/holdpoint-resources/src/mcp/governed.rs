//! Which requests of an agent are governed, and what of each a permit covers.
//! Must never let a governed request pass for another one.

use super::message::RpcRequest;
use holdpoint_types::{READ_REQUESTS, ToolRef};
use serde_json::{Map, Value};

/// The request that calls a tool.
pub const TOOLS_CALL: &str = "tools/call";

/// True for a request that must not be sent without a permit.
pub fn is_governed(method: &str) -> bool {
    method == TOOLS_CALL || READ_REQUESTS.contains(&method)
}

/// The method by which `tool` is reached.
pub fn method_of(tool: &ToolRef) -> &str {
    if tool.is_read_request() { tool.name() } else { TOOLS_CALL }
}

/// True if `request` is the one by which `tool` is reached.
pub fn reaches(request: &RpcRequest, tool: &ToolRef) -> bool {
    if request.method != method_of(tool) {
        return false;
    }
    tool.is_read_request() || request.param("name").and_then(Value::as_str) == Some(tool.name())
}

/// The parameters that are decided on: a call's arguments (absent ones count as `{}`), else all but
/// `_meta`.
pub fn governed_parameters(request: &RpcRequest) -> Value {
    if request.method == TOOLS_CALL {
        let arguments = request.param("arguments").cloned();
        return arguments.unwrap_or_else(|| Value::Object(Map::new()));
    }
    let mut parameters = request.params.clone().unwrap_or_else(|| Value::Object(Map::new()));
    if let Some(members) = parameters.as_object_mut() {
        members.remove("_meta");
    }
    parameters
}

/// The members of a call's `params` besides its name, its arguments and `_meta`.
pub fn further_members(request: &RpcRequest) -> Map<String, Value> {
    let members = request.params.as_ref().and_then(Value::as_object);
    let known = |key: &str| matches!(key, "name" | "arguments" | "_meta");
    let further = members.into_iter().flatten().filter(|(key, _)| !known(key));
    further.map(|(key, value)| (key.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::{governed_parameters, is_governed, reaches};
    use crate::mcp::{RpcId, RpcRequest};
    use serde_json::json;

    #[test]
    fn a_tool_call_cannot_pass_for_a_request_that_reads() {
        let request = |method: &str, params| RpcRequest::new(RpcId::Number(1), method, params);
        let read = request("resources/read", json!({"uri": "a://b", "_meta": {"x": 1}}));
        let disguised = request("tools/call", json!({"name": "resources/read", "uri": "a://b"}));
        let tool = "fs__resources/read".parse().unwrap();
        assert!(reaches(&read, &tool));
        assert!(!reaches(&disguised, &tool));
        assert_eq!(governed_parameters(&read), json!({"uri": "a://b"}));
        assert_eq!(governed_parameters(&disguised), json!({}));
        assert!(is_governed("prompts/get") && !is_governed("prompts/list"));
    }
}
