//! What a validator is told, before a decision and after an end. Must never hold a key, a token or
//! a header of an agent.

use super::When;
use holdpoint_types::{
    DecisionRecord, EffectClass, Facts, OutcomeRecord, OutcomeStatus, Request, Timestamp,
    ToolOutput,
};
use serde_json::{Value, json};

/// What every validator is told, by name.
const ALWAYS: [&str; 15] = [
    "when",
    "agent",
    "owner",
    "tool",
    "parameters",
    "intent",
    "action",
    "at_ms",
    "class",
    "resource",
    "environment",
    "surfaces",
    "freezes",
    "effects",
    "findings",
];
/// What it is told besides once the call has ended.
const AFTER: [&str; 3] = ["outcome", "output", "check"];

/// A call that has ended, or of which nobody knows how it ended.
pub(crate) struct Checked<'a> {
    /// What was decided.
    pub(crate) decision: &'a DecisionRecord,
    /// How it ended; absent if its process is gone and recorded nothing.
    pub(crate) outcome: Option<&'a OutcomeRecord>,
    /// What came back.
    pub(crate) output: Option<&'a ToolOutput>,
    /// When the check was due, and what time it is.
    pub(crate) times: (Timestamp, Timestamp),
}

/// The names that there are then.
pub(super) fn names(when: &When) -> Vec<&'static str> {
    match when {
        When::Before => ALWAYS.to_vec(),
        When::After(_) => ALWAYS.into_iter().chain(AFTER).collect(),
    }
}

/// Before the decision: the request, what is known, and each effect.
pub(super) fn before(request: &Request, facts: &Facts, class: EffectClass) -> Value {
    let effects = facts.effects.iter().map(|one| {
        let mut effect = json!(one.effect);
        effect["environment"] = one.target.environment.as_str().into();
        effect["surfaces"] = json!(one.target.surfaces);
        effect
    });
    json!({
        "when": "before",
        "agent": request.agent,
        "owner": facts.agent.as_ref().and_then(|agent| agent.owner.as_ref()),
        "tool": request.tool,
        "parameters": request.parameters,
        "intent": request.intent.as_ref().map(|intent| intent.text.as_str()),
        "action": request.action,
        "at_ms": request.at.0,
        "class": class,
        "resource": facts.target.resource,
        "environment": facts.target.environment,
        "surfaces": facts.target.surfaces,
        "freezes": facts.freezes,
        "effects": effects.collect::<Vec<_>>(),
        "findings": facts.findings,
    })
}

/// After the end: the same, how it ended, and what came back.
pub(super) fn after(ended: &Checked<'_>, class: EffectClass) -> Value {
    let DecisionRecord { request, facts, .. } = ended.decision;
    let mut told = before(request, facts, class);
    let (due, now) = ended.times;
    let unknown = OutcomeStatus::InDoubt.as_str();
    told["when"] = "after".into();
    told["outcome"] = json!({
        "status": ended.outcome.map_or(unknown, |outcome| outcome.status.as_str()),
        "reason": ended.outcome.and_then(|outcome| outcome.reason),
        "detail": ended.outcome.and_then(|outcome| outcome.detail.as_deref()),
        "duration_ms": ended.outcome.map(|outcome| outcome.duration_ms),
        "output_bytes": ended.output.map_or(0, |output| output.bytes),
        "output_kept": ended.output.is_some_and(|output| output.body.is_some()),
    });
    // What is too long to be kept, nobody is told.
    let body = ended.output.and_then(|output| output.body.as_deref());
    told["output"] = body.and_then(|body| serde_json::from_str(body).ok()).unwrap_or_default();
    told["check"] = json!({ "due_ms": due.0, "at_ms": now.0 });
    told
}
