//! What an agent is told about a decision: the one place where rulings become MCP results.
//! A denial teaches: it names the reason, the rule, and the next step. Must never show one agent
//! what belongs to another.

use super::held::{self, Client};
use crate::governor::{Governed, Refusal};
use holdpoint_resources::Answer;
use holdpoint_resources::mcp::era::{self, Era};
use holdpoint_resources::mcp::{Identity, Outcome};
use holdpoint_types::{ActionId, ApprovalAsked, Cause, Decision, Reason, Ruling, Timestamp};
use serde_json::{Map, Value, json};

/// The JSON-RPC error code of a refusal, from the range that is free for implementations.
pub(super) const DENIED: i64 = -32010;
/// Where a result carries the decision for programs.
const DECISION_KEY: &str = "io.holdpoint/decision";

/// The outcome of `tools/call` for what became of it.
pub(super) fn outcome(governed: Governed, client: Client) -> Outcome {
    match governed {
        Governed::Answered(_, Answer::Result(raw)) => Outcome::Result(raw),
        Governed::Answered(_, Answer::Error(raw)) => Outcome::Error(raw),
        Governed::Refused(action, refusal) => {
            let text = refusal_text(action, &refusal);
            if let Some(result) = client.result(&text, &refusal) {
                return Outcome::Result(raw(&held::finished(client, result)));
            }
            tool_error(&text, refusal_json(action, &refusal), client.era)
        }
        Governed::Failed { action, reason, detail, sent } => {
            let known = if sent { "What it did is not known." } else { "It was not sent." };
            let text = format!(
                "The call did not end with an answer (action {action}).\n- {reason}: {detail}\n\
                 {known} What to do: {}",
                reason.for_agent()
            );
            let decision = json!({ "action": action.to_string(), "reason": reason.code() });
            tool_error(&text, decision, client.era)
        }
    }
}

/// The outcome of a request that reads, for what became of it: such results have no place for an
/// error, so a refusal is a JSON-RPC error.
pub(super) fn read_outcome(governed: Governed) -> Outcome {
    match governed {
        Governed::Answered(_, outcome) => outcome,
        Governed::Refused(action, refusal) => {
            let text = refusal_text(action, &refusal);
            rpc_error(DENIED, &text, refusal_json(action, &refusal))
        }
        Governed::Failed { action, reason, detail, .. } => {
            let mut data = refused_data(reason, &detail);
            if let Some(data) = data.as_object_mut() {
                data.insert("action".into(), action.to_string().into());
            }
            rpc_error(era::INTERNAL_ERROR, &detail, data)
        }
    }
}

fn rpc_error(code: i64, message: &str, data: Value) -> Outcome {
    Outcome::Error(raw(&json!({ "code": code, "message": message, "data": data })))
}

/// What an agent reads when it is refused.
pub fn refusal_text(action: ActionId, refusal: &Refusal) -> String {
    let Refusal { decision, approval, preview } = refusal;
    let what = match decision.ruling() {
        Ruling::Permit => "permitted",
        Ruling::PlanOnly => "did not execute",
        Ruling::Hold => "holds",
        Ruling::Deny => "denied",
        Ruling::Halt => "stopped",
    };
    let mut text = format!("Holdpoint {what} this call (action {action}).");
    for cause in decision.deciding() {
        text.push_str(&format!("\n- {}", cause_text(cause)));
    }
    if let Some(preview) = preview {
        text.push_str(&format!("\n{}", held::told(preview)));
    }
    if let Some(ApprovalAsked { id, expires_ms, instead_of, .. }) = approval.as_deref() {
        if let Some(before) = instead_of {
            text.push_str(&format!(
                "\nThe yes to {before} is none to this: what the call would do, or what it is \
                 judged by, is other now."
            ));
        }
        let until = told_time(*expires_ms);
        text.push_str(&format!("\nThe approval {id} is asked for, until {until}."));
    }
    let mut next: Vec<&str> = Vec::new();
    for cause in decision.deciding() {
        let step = cause.reason.for_agent();
        if !next.contains(&step) {
            next.push(step);
        }
    }
    text.push_str(&format!("\nWhat to do: {}", next.join(" ")));
    text
}

/// A refusal for programs: the decision, and the approval that a held call waits for.
pub fn refusal_json(action: ActionId, refusal: &Refusal) -> Value {
    let mut told = decision_json(action, &refusal.decision);
    if let (Some(members), true) = (told.as_object_mut(), refusal.approval.is_some()) {
        members.insert("held".into(), held::to_json(refusal));
    }
    told
}

/// A decision for programs.
pub fn decision_json(action: ActionId, decision: &Decision) -> Value {
    let causes = decision.causes().rev().map(|cause| {
        json!({
            "ruling": cause.ruling.as_str(),
            "reason": cause.reason.code(),
            "rule": cause.rule,
            "text": cause.text,
            "approval": cause.approval,
        })
    });
    json!({
        "action": action.to_string(),
        "ruling": decision.ruling().as_str(),
        "causes": causes.collect::<Vec<_>>(),
    })
}

fn told_time(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| at.0.to_string(), |at| at.to_string())
}

fn cause_text(cause: &Cause) -> String {
    let rule = cause.rule.as_ref().map_or_else(String::new, |rule| format!(" [{rule}]"));
    let approval = cause.approval.as_ref();
    let approval = approval.map_or_else(String::new, |who| format!(" Needs approval by: {who}."));
    let meaning = if cause.text.is_empty() { cause.reason.meaning() } else { &cause.text };
    format!("{}{rule}: {meaning}{approval}", cause.reason)
}

fn tool_error(text: &str, decision: Value, era: Era) -> Outcome {
    let mut result = Map::new();
    result.insert("content".into(), json!([{ "type": "text", "text": text }]));
    result.insert("isError".into(), true.into());
    result.insert("_meta".into(), json!({ DECISION_KEY: decision }));
    Outcome::Result(raw(&era::result_for(era, result, &Identity::holdpoint())))
}

/// A JSON-RPC error's `data` for a message that a door refused.
pub(super) fn refused_data(reason: Reason, detail: &str) -> Value {
    json!({ "reason": reason.code(), "detail": detail, "next": reason.for_agent() })
}

pub(super) fn raw(value: &Value) -> Box<serde_json::value::RawValue> {
    // A `Value` always serialises; `null` would be the answer if it ever did not.
    serde_json::value::to_raw_value(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::refusal_text;
    use expect_test::expect;
    use holdpoint_types::{ActionId, Cause, Decision, Reason, Ruling, Timestamp};

    #[test]
    fn a_denial_teaches() {
        let action = ActionId::new(Timestamp(1_753_000_000_000), [7; 10]);
        let freeze = Cause::new(Ruling::Deny, Reason::PolicyForbids, "Nothing but reads.")
            .by_rule("change-freeze");
        let grant = Reason::DestructiveNotGranted;
        let grant = Cause::new(Ruling::Deny, grant, grant.meaning());
        let hold = Cause::new(Ruling::Hold, Reason::PolicyHolds, "Prod holds.").needing("owner");
        let decision = Decision::from_iter([freeze, grant, hold.clone()]);
        expect![[r#"
            Holdpoint denied this call (action 019826f1-3a00-7707-8707-070707070707).
            - destructive_not_granted: The tool counts as destructive and the agent has no explicit grant for it.
            - policy_forbids [change-freeze]: Nothing but reads.
            What to do: Find a way that destroys nothing, or report what you would need. Do not retry; find another way or report what you would need."#]].assert_eq(&refusal_text(action, &decision.into()));
        expect![[r#"
            Holdpoint holds this call (action 019826f1-3a00-7707-8707-070707070707).
            - policy_holds: Prod holds. Needs approval by: owner.
            What to do: Go on with other work, and make the same call again once the approval is given."#]]
        .assert_eq(&refusal_text(action, &Decision::from_iter([hold]).into()));
    }
}
