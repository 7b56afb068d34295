//! MCP's tasks, calls that outlive their answer: `tasks` in revision 2025-11-25, and the extension
//! `io.modelcontextprotocol/tasks` of 2026-07-28.
//!
//! Owns how they are offered, asked for and told apart. Must never decide whether one is allowed.

use super::era::META_CLIENT_CAPABILITIES;
use super::message::{RpcRequest, RpcResponse};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The extension of 2026-07-28, as both sides declare it.
pub const EXTENSION: &str = "io.modelcontextprotocol/tasks";
/// The capability of 2025-11-25; also the member by which a request asks to become a task.
const CAPABILITY: &str = "tasks";
/// Where a peer declares extensions.
const EXTENSIONS: &str = "extensions";
/// The member that names a task.
const TASK_ID: &str = "taskId";
/// What a task holds besides its state.
const DETAILS: [&str; 3] = ["inputRequests", "result", "error"];
/// Where a modern subscription names tasks.
const SUBSCRIBED: &str = "taskIds";

/// Takes tasks out of what a peer says that it can do; true if they were there.
pub fn withhold(capabilities: &mut Value) -> bool {
    let Some(declared) = capabilities.as_object_mut() else { return false };
    let older = declared.remove(CAPABILITY).is_some();
    let extensions = declared.get_mut(EXTENSIONS).and_then(Value::as_object_mut);
    extensions.is_some_and(|extensions| extensions.remove(EXTENSION).is_some()) || older
}

/// Takes tasks out of what the client of a modern request declares; true if they were there.
pub fn withhold_declared(params: &mut Value) -> bool {
    let meta = params.get_mut("_meta");
    meta.and_then(|meta| meta.get_mut(META_CLIENT_CAPABILITIES)).is_some_and(withhold)
}

/// True if capabilities of the modern era offer tasks.
pub fn is_declared(capabilities: &Value) -> bool {
    let extensions = capabilities.get(EXTENSIONS);
    extensions.and_then(|all| all.get(EXTENSION)).is_some_and(Value::is_object)
}

/// True if the client of a modern request follows tasks.
pub fn follows(params: &Value) -> bool {
    let meta = params.get("_meta");
    meta.and_then(|meta| meta.get(META_CLIENT_CAPABILITIES)).is_some_and(is_declared)
}

/// Capabilities that offer tasks, in the modern era, and nothing else.
pub fn declaration() -> Value {
    json!({ EXTENSIONS: { EXTENSION: {} } })
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
    request.param(TASK_ID)?.as_str()
}

/// What a peer says about a task, each member as the bytes it was.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its id.
    pub id: String,
    /// How it stands.
    pub status: Status,
    members: BTreeMap<String, Box<RawValue>>,
}

/// How a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It goes on.
    Working,
    /// It waits for its client.
    InputRequired,
    /// It ended with a result.
    Completed,
    /// It ended with a JSON-RPC error.
    Failed,
    /// It was cancelled.
    Cancelled,
}

// === impl Task ===

impl Task {
    /// Reads what a server of the modern era says about a task.
    ///
    /// # Errors
    /// When it is no object, or lacks an id or a status that the extension knows.
    pub fn read(raw: &RawValue) -> Result<Self, String> {
        let members: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(raw.get()).map_err(|_| "a task is an object".to_owned())?;
        let id = member(&members, TASK_ID).ok_or("`taskId` is no text")?;
        let status = member(&members, "status").ok_or("`status` is no task's status")?;
        Ok(Self { id, status, members })
    }

    /// A member's bytes.
    pub fn member(&self, name: &str) -> Option<&RawValue> {
        self.members.get(name).map(AsRef::as_ref)
    }

    /// How long its server keeps it, from its begin, in milliseconds.
    pub fn ttl_ms(&self) -> Option<u64> {
        member(&self.members, "ttlMs")
    }

    /// The same without what only an answer to `tasks/get` may hold.
    #[must_use]
    pub fn seed(mut self) -> Self {
        self.members.retain(|name, _| !DETAILS.contains(&name.as_str()));
        self
    }

    /// The same under another id; all else keeps its bytes.
    pub fn under(mut self, id: &str) -> Option<Box<RawValue>> {
        self.members.insert(TASK_ID.to_owned(), to_raw_value(id).ok()?);
        to_raw_value(&self.members).ok()
    }
}

fn member<T: DeserializeOwned>(members: &BTreeMap<String, Box<RawValue>>, name: &str) -> Option<T> {
    serde_json::from_str(members.get(name)?.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::{Status, Task, is_notification, withhold, without_offer};
    use crate::mcp::{RpcId, RpcResponse};
    use serde_json::json;
    use serde_json::value::RawValue;

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
    fn a_task_under_another_id_keeps_its_bytes() {
        let read = |text: &str| Task::read(&RawValue::from_string(text.to_owned()).unwrap());
        let task = read(r#"{"taskId":"a","status":"completed","ttlMs":7,"result":{ "x":1.50}}"#);
        let task = task.unwrap();
        assert_eq!(
            (task.id.as_str(), task.status, task.ttl_ms()),
            ("a", Status::Completed, Some(7))
        );
        let seed = r#"{"status":"completed","taskId":"b","ttlMs":7}"#;
        assert_eq!(task.clone().seed().under("b").unwrap().get(), seed);
        let renamed = task.under("b").unwrap();
        let expected = r#"{"result":{ "x":1.50},"status":"completed","taskId":"b","ttlMs":7}"#;
        assert_eq!(renamed.get(), expected);
        for text in [
            "[]",
            "{}",
            r#"{"taskId":"a"}"#,
            r#"{"taskId":1,"status":"working"}"#,
            r#"{"taskId":"a","status":"done"}"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn notifications_of_tasks_are_known_in_both_eras() {
        assert!(is_notification("notifications/tasks"));
        assert!(is_notification("notifications/tasks/status"));
        assert!(!is_notification("notifications/tasksmith"));
    }
}
