//! The two calls that no agent asked for: the read of a target, and an inverse.
//!
//! Owns the only values that a server is called with besides those that a permit was checked
//! against. Must never make one of anything but what the operator declared.

use super::{DeclaredTools, Reading};
use crate::mcp::Outcome;
use crate::resource::ResourceFault;
use crate::upstream::{Cancels, Ended, ToolCall};
use holdpoint_types::{ServerName, ToolRef};
use serde_json::Value;

/// Longest target that is previewed, in bytes.
const STATE_BYTES_MAX: usize = 256 << 10;

/// A call that the operator declared.
///
/// INVARIANT: it is made here only. A read is one by the operator's word, is asked for by the
/// preview, the check and the verification of a call, and its arguments come from that call. An
/// inverse is made after the permit of its revert was consumed.
#[derive(Debug)]
pub(crate) struct DeclaredCall(ToolCall);

/// What a read found.
#[derive(Debug)]
pub(super) enum Looked {
    Absent,
    There(Value),
}

// === impl DeclaredCall ===

impl DeclaredCall {
    /// The call itself.
    pub(crate) fn into_call(self) -> ToolCall {
        self.0
    }

    /// The inverse of a call. Whoever asks for it has consumed a permit for that.
    pub(super) fn inverse(
        server: &ServerName,
        tool: &str,
        arguments: Value,
    ) -> Result<Self, ResourceFault> {
        Self::new(server, tool, arguments)
    }

    fn read(
        server: &ServerName,
        reading: &Reading,
        arguments: Value,
    ) -> Result<Self, ResourceFault> {
        Self::new(server, &reading.call.tool, arguments)
    }

    fn new(server: &ServerName, tool: &str, arguments: Value) -> Result<Self, ResourceFault> {
        let tool = ToolRef::new(server.clone(), tool)
            .map_err(|fault| ResourceFault::Invalid(fault.to_string()))?;
        Ok(Self(ToolCall::new(tool, arguments)))
    }
}

// === impl DeclaredTools ===

impl DeclaredTools {
    /// Reads a target, as the operator declared.
    pub(super) async fn read(
        &self,
        reading: &Reading,
        arguments: Value,
    ) -> Result<Looked, ResourceFault> {
        let call = DeclaredCall::read(&self.spec.server, reading, arguments)?;
        let none = Cancels::default();
        let body = match self.upstream.run_declared(call, &none).await.without_task() {
            Ended::Answered { body: Outcome::Result(body), tool_error: false } => body,
            Ended::Answered { body: Outcome::Result(_), .. } if reading.error_is_absence => {
                return Ok(Looked::Absent);
            }
            // What a server says in an error may hold anything.
            Ended::Answered { .. } => return Err(unavailable("the read failed")),
            Ended::NotSent { detail, .. } | Ended::InDoubt { detail, .. } => {
                return Err(unavailable(&format!("the read: {detail}")));
            }
            Ended::Task { .. } => return Err(unavailable("the read became a task")),
        };
        let content = content(body.get());
        let content = content.ok_or_else(|| unavailable("the read has no content"))?;
        let Some(state) = content.pointer(&reading.state) else { return Ok(Looked::Absent) };
        let bytes = state.to_string().len();
        if bytes > STATE_BYTES_MAX {
            return Err(ResourceFault::TooLarge(format!("{bytes} bytes")));
        }
        match state.is_null() {
            true => Ok(Looked::Absent),
            false => Ok(Looked::There(reading.steady(state.clone()))),
        }
    }
}

/// What a result holds: its structured content, else its text as JSON, else its text. `None` if
/// it is unfinished, or holds neither.
pub fn content(result: &str) -> Option<Value> {
    let mut result: Value = serde_json::from_str(result).ok()?;
    let kind = result.get("resultType").and_then(Value::as_str);
    if !matches!(kind, None | Some("complete")) {
        return None;
    }
    if let Some(structured) = result.get_mut("structuredContent").map(Value::take) {
        return Some(structured);
    }
    let [only] = result.get("content")?.as_array()?.as_slice() else { return None };
    let text = only.get("text")?.as_str()?;
    Some(serde_json::from_str(text).unwrap_or_else(|_| text.into()))
}

fn unavailable(text: &str) -> ResourceFault {
    ResourceFault::Unavailable(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::content;
    use serde_json::json;

    #[test]
    fn content_is_structured_or_text_or_none() {
        let cases = [
            (json!({ "structuredContent": {"a": 1}, "content": [] }), Some(json!({"a": 1}))),
            (json!({ "content": [{"type": "text", "text": "{\"a\":2}"}] }), Some(json!({"a": 2}))),
            (json!({ "content": [{"type": "text", "text": "plain"}] }), Some(json!("plain"))),
            (json!({ "content": [{"type": "image", "data": "x"}] }), None),
            (json!({ "content": [] }), None),
            (json!({ "resultType": "input_required", "structuredContent": {} }), None),
            (json!([]), None),
        ];
        for (result, expected) in cases {
            assert_eq!(content(&result.to_string()), expected, "{result}");
        }
        assert_eq!(content("nonsense"), None);
    }
}
