//! The words of Claude Code's hooks (<https://code.claude.com/docs/en/hooks>): what `PreToolUse`,
//! `PostToolUse` and `PostToolUseFailure` are given, and what they answer. Must never answer `ask`:
//! a person at the keyboard is no approval.

use super::{HookFault, HostId, ID_BYTES_MAX, Said, Wanted};
use crate::doors::refusal_text;
use crate::governor::Refusal;
use holdpoint_resources::Ended;
use holdpoint_resources::mcp::Outcome;
use holdpoint_types::{ActionId, JsonLimits, Reason, parse};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// Longest event, in bytes: those after a call hold what came of it.
pub const BYTES_MAX: usize = 32 << 20;

/// The event's name, to know what the rest means.
#[derive(Deserialize)]
struct Event {
    hook_event_name: String,
}

/// An event after a call. What came of it is not looked into.
#[derive(Deserialize)]
struct After {
    session_id: String,
    tool_name: String,
    tool_use_id: String,
    #[serde(default)]
    tool_response: Option<Box<RawValue>>,
    #[serde(default)]
    error: Option<Box<RawValue>>,
    #[serde(default)]
    is_interrupt: bool,
}

/// The tools of Claude Code that read, or keep its own lists, besides those whose calls are
/// analysed. What a sub-agent does comes through the hook itself.
pub fn known_reads() -> [&'static str; 18] {
    [
        "Agent",
        "AskUserQuestion",
        "BashOutput",
        "EnterPlanMode",
        "ExitPlanMode",
        "Glob",
        "Grep",
        "LS",
        "ListAgents",
        "Task",
        "TaskCreate",
        "TaskGet",
        "TaskList",
        "TaskOutput",
        "TaskUpdate",
        "TodoWrite",
        "ToolSearch",
        "WebSearch",
    ]
}

/// Reads an event of at most `bytes_max` bytes if it is before a call.
pub(super) fn read(bytes: &[u8], bytes_max: usize) -> Result<Said, HookFault> {
    let event: Event = serde_json::from_slice(bytes).map_err(unreadable)?;
    match event.hook_event_name.as_str() {
        "PreToolUse" => before(bytes, bytes_max).map(Said::Wants),
        "PostToolUse" | "PostToolUseFailure" => after(bytes),
        other => {
            let name: String = other.chars().take(64).collect();
            let what =
                format!("`{name}` is none of `PreToolUse`, `PostToolUse` and `PostToolUseFailure`");
            Err(HookFault::Unreadable(what))
        }
    }
}

/// What Claude Code is told.
pub(super) fn ruled(action: ActionId, refused: Option<&Refusal>) -> Value {
    let (decision, reason) = match refused {
        None => ("allow", format!("Holdpoint permitted this call (action {action}).")),
        Some(refusal) => ("deny", refusal_text(action, refusal)),
    };
    json!({ "hookSpecificOutput": {
        "hookEventName": "PreToolUse",
        "permissionDecision": decision,
        "permissionDecisionReason": reason,
    }})
}

fn before(bytes: &[u8], bytes_max: usize) -> Result<Wanted, HookFault> {
    let limits = JsonLimits { bytes_max, ..JsonLimits::default() };
    // What is decided about is read strictly: two readers must not see two calls in it.
    let mut event = parse(bytes, limits)?;
    let text = |event: &Value, key: &str| {
        let found = event.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        found.map(str::to_owned).ok_or_else(|| missing(key))
    };
    let (session, call) = (text(&event, "session_id")?, text(&event, "tool_use_id")?);
    let (tool, cwd) = (text(&event, "tool_name")?, text(&event, "cwd")?);
    let id = host_id(session, call)?;
    match event.get_mut("tool_input").map(Value::take) {
        Some(Value::Object(input)) => Ok(Wanted { tool, input, cwd, id }),
        Some(_) | None => Err(missing("tool_input")),
    }
}

fn after(bytes: &[u8]) -> Result<Said, HookFault> {
    let event: After = serde_json::from_slice(bytes).map_err(unreadable)?;
    let After { session_id, tool_name, tool_use_id, tool_response, error, is_interrupt } = event;
    let id = host_id(session_id, tool_use_id)?;
    let ended = match (error, tool_response) {
        _ if is_interrupt => Ended::InDoubt {
            reason: Reason::CancelledByAgent,
            detail: "the host's user interrupted it".to_owned(),
        },
        (Some(error), _) => Ended::Answered { body: Outcome::Result(error), tool_error: true },
        (None, Some(body)) => Ended::Answered { body: Outcome::Result(body), tool_error: false },
        (None, None) => return Err(missing("tool_response")),
    };
    Ok(Said::Ended { tool: tool_name, id, ended })
}

fn host_id(session: String, call: String) -> Result<HostId, HookFault> {
    if session.len() > ID_BYTES_MAX || call.len() > ID_BYTES_MAX {
        let what = format!("an id is longer than {ID_BYTES_MAX} bytes");
        return Err(HookFault::Unreadable(what));
    }
    Ok(HostId { session, call })
}

fn missing(key: &str) -> HookFault {
    HookFault::Unreadable(format!("`{key}` is missing, or of another kind than expected"))
}

fn unreadable(fault: serde_json::Error) -> HookFault {
    HookFault::Unreadable(fault.to_string())
}

#[cfg(test)]
mod tests {
    use super::{Refusal, Said, read, ruled};
    use holdpoint_resources::Ended;
    use holdpoint_types::{ActionId, Cause, Decision, Reason, Ruling, Timestamp};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn event(name: &str, more: &Value) -> String {
        let mut event = json!({
            "session_id": "s", "cwd": "/srv", "hook_event_name": name,
            "tool_name": "Bash", "tool_input": { "command": "ls" }, "tool_use_id": "toolu_1",
        });
        if let (Some(event), Some(more)) = (event.as_object_mut(), more.as_object()) {
            event.extend(more.clone());
        }
        event.to_string()
    }

    fn ended(name: &str, more: &Value) -> String {
        match read(event(name, more).as_bytes(), 1 << 12) {
            Ok(Said::Ended { ended: Ended::Answered { tool_error, .. }, .. }) => {
                format!("answered, error: {tool_error}")
            }
            Ok(Said::Ended { ended, .. }) => format!("{ended:?}"),
            Ok(Said::Wants(_)) => "wanted".to_owned(),
            Err(fault) => fault.to_string(),
        }
    }

    #[test]
    fn how_a_call_ended_is_what_the_host_says() {
        let check = |name: &str, more: Value, expected: &str| {
            let found = ended(name, &more);
            assert!(found.contains(expected), "{name} {more}: {found}");
        };
        check("PreToolUse", json!({}), "wanted");
        check("PostToolUse", json!({ "tool_response": "text" }), "answered, error: false");
        check("PostToolUse", json!({}), "`tool_response` is missing");
        check("PostToolUseFailure", json!({ "error": "Exit code 1" }), "answered, error: true");
        let interrupted = json!({ "error": "stopped", "is_interrupt": true });
        check("PostToolUseFailure", interrupted, "CancelledByAgent");
        // A number that no strict reader takes: nothing is decided about what came of a call.
        check("PostToolUse", json!({ "tool_response": u64::MAX }), "answered, error: false");
        check("PreToolUse", json!({ "tool_input": { "n": u64::MAX } }), "cannot be read");
    }

    #[test]
    fn nothing_but_a_permit_is_allowed_and_nothing_asks_a_user() {
        let action = ActionId::new(Timestamp(1), [7; 10]);
        let said = |refused: Option<&Refusal>| {
            let told = ruled(action, refused);
            told["hookSpecificOutput"]["permissionDecision"].as_str().unwrap().to_owned()
        };
        assert_eq!(said(None), "allow");
        for ruling in [Ruling::PlanOnly, Ruling::Hold, Ruling::Deny, Ruling::Halt] {
            let cause = Cause::new(ruling, Reason::PolicyHolds, "");
            let refusal = Decision::from_iter([cause]).into();
            assert_eq!(said(Some(&refusal)), "deny");
        }
    }

    proptest! {
        #[test]
        fn any_event_has_an_answer(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            at in 0..150_usize,
            with in any::<u8>(),
        ) {
            prop_assert!(read(&bytes, 1 << 12).is_err());
            let mut bytes = event("PreToolUse", &json!({})).into_bytes();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = with;
            }
            let _ = read(&bytes, 1 << 12);
        }
    }
}
