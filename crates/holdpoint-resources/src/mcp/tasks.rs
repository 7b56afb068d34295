//! MCP's tasks, calls that outlive their answer: `tasks` in revision 2025-11-25, and the extension
//! `io.modelcontextprotocol/tasks` of 2026-07-28.
//!
//! Owns how they are offered, asked for and told apart. Must never decide whether one is allowed.

use super::message::{RpcRequest, RpcResponse};
use serde_json::{Map, Value};

/// The extension of 2026-07-28, as both sides declare it.
pub const EXTENSION: &str = "io.modelcontextprotocol/tasks";
/// The capability of 2025-11-25; also the member by which a request asks to become a task.
const CAPABILITY: &str = "tasks";
/// Where a peer declares extensions.
const EXTENSIONS: &str = "extensions";
/// Where a modern subscription names tasks.
const SUBSCRIBED: &str = "taskIds";

/// Takes tasks out of what a peer says that it can do; true if they were there.
pub fn withhold(capabilities: &mut Value) -> bool {
    let Some(declared) = capabilities.as_object_mut() else { return false };
    let older = declared.remove(CAPABILITY).is_some();
    let extensions = declared.get_mut(EXTENSIONS).and_then(Value::as_object_mut);
    extensions.is_some_and(|extensions| extensions.remove(EXTENSION).is_some()) || older
}

/// Takes tasks out of what a `subscriptions/listen` wants to hear of; true if they were there.
pub fn withhold_subscription(filter: &mut Value) -> bool {
    filter.as_object_mut().is_some_and(|filter| filter.remove(SUBSCRIBED).is_some())
}

/// An opening's answer without an offer of tasks; `None` if it has none.
pub fn without_offer(response: &RpcResponse) -> Option<RpcResponse> {
    let mut result: Map<String, Value> = serde_json::from_str(response.outcome.raw().get()).ok()?;
    let offered = withhold(result.get_mut("capabilities")?);
    let id = response.id.clone().filter(|_| offered)?;
    Some(RpcResponse::result_value(id, &Value::Object(result)))
}

/// True for a request that follows, feeds or ends a task.
pub fn is_request(method: &str) -> bool {
    method.starts_with("tasks/")
}

/// True for a notification of a task's state.
pub fn is_notification(method: &str) -> bool {
    method == "notifications/tasks" || method.starts_with("notifications/tasks/")
}

/// True for parameters by which a request asks to become a task.
pub fn asks_for_one(params: Option<&Value>) -> bool {
    params.is_some_and(|params| params.get("task").is_some())
}

/// The task that a `tasks/…` request is about.
pub fn id_of(request: &RpcRequest) -> Option<&str> {
    request.param("taskId")?.as_str()
}

#[cfg(test)]
mod tests {
    use super::{is_notification, withhold, without_offer};
    use crate::mcp::{RpcId, RpcResponse};
    use serde_json::json;

    #[test]
    fn an_offer_of_tasks_is_taken_out_and_nothing_else() {
        let both = json!({
            "tools": {}, "tasks": { "list": {} },
            "extensions": { "io.modelcontextprotocol/tasks": {}, "com.example/x": {} },
        });
        let kept = json!({ "tools": {}, "extensions": { "com.example/x": {} } });
        let mut found = both.clone();
        assert!(withhold(&mut found));
        assert_eq!(found, kept);
        assert!(!withhold(&mut found));
        assert_eq!(found, kept);
        let answer = |result| RpcResponse::result_value(RpcId::Number(1), &result);
        let changed = without_offer(&answer(json!({ "capabilities": both, "x": 1.5 }))).unwrap();
        let changed: serde_json::Value = serde_json::from_slice(&changed.to_bytes()).unwrap();
        assert_eq!(changed["result"], json!({ "capabilities": kept, "x": 1.5 }));
        for result in [json!({ "capabilities": kept }), json!({}), json!([]), json!(null)] {
            assert!(without_offer(&answer(result)).is_none());
        }
    }

    #[test]
    fn notifications_of_tasks_are_known_in_both_eras() {
        assert!(is_notification("notifications/tasks"));
        assert!(is_notification("notifications/tasks/status"));
        assert!(!is_notification("notifications/tasksmith"));
    }
}
