//! The chain of an action as JSON, whole. Fields may be added, never renamed.

use super::approval::Asked;
use super::chain::{Chain, Proved, Question};
use super::reverts::{Reverted, TakesBack};
use holdpoint_types::{Ruling, Timestamp};
use serde_json::{Value, json};

/// The chain for programs. The preview and the plan are among the facts.
pub fn to_json(chain: &Chain, now: Timestamp) -> Value {
    let decision = &chain.decision.record;
    let ruling = decision.more.decision.ruling();
    json!({
        "action": decision.action,
        "agent": decision.agent,
        "ruling": ruling,
        "state": chain.state.as_str(),
        "decided_at_ms": chain.decision.at.0,
        "gateway": chain.decision.gateway,
        "request": decision.more.request,
        "facts": decision.more.facts,
        "policy": { "digest": chain.policy(), "files": chain.policy_files },
        "guards": chain.guards.iter().map(|guard| json!({
            "name": guard.name,
            "digest": guard.digest,
            "signed_by": guard.record.as_ref().map(|record| &record.signed_by),
        })).collect::<Vec<_>>(),
        "decision": { "ruling": ruling, "causes": decision.more.decision },
        "permitted": ruling == Ruling::Permit,
        "approval": chain.approval.as_ref().map(|asked: &Asked| asked.to_json(now)),
        "reverts": chain.reverts.iter().map(Reverted::to_json).collect::<Vec<_>>(),
        "takes_back": chain.takes_back.as_ref().map(TakesBack::to_json),
        "outcome": chain.outcome.as_ref().map(|outcome| json!({
            "at_ms": outcome.at.0,
            "gateway": outcome.gateway,
            "status": outcome.record.more.status,
            "reason": outcome.record.more.reason,
            "detail": outcome.record.more.detail,
            "duration_ms": outcome.record.more.duration_ms,
        })),
        "checks": chain.checks.iter().map(|check| json!({
            "at_ms": check.at.0,
            "gateway": check.gateway,
            "due_ms": check.record.more.due_ms,
            "findings": check.record.lineage.post_validation,
        })).collect::<Vec<_>>(),
        "checks_due": chain.due,
        "plan_looked": chain.looked,
        "questions": chain.questions.iter().map(question).collect::<Vec<_>>(),
        "lineage": chain.lineage(),
        "records": chain.records.iter().map(record).collect::<Vec<_>>(),
    })
}

fn question(question: &Question) -> Value {
    json!({ "seq": question.seq, "asked": question.asked, "replied": question.replied })
}

fn record(proved: &Proved) -> Value {
    let signed = proved.proof.as_ref().ok();
    json!({
        "seq": proved.seq,
        "kind": proved.kind,
        "leaf": proved.leaf,
        "verified": signed.is_some(),
        "log_size": signed.map(|signed| signed.size),
        "log_root": signed.map(|signed| signed.root),
        "unverified_because": proved.proof.as_ref().err(),
    })
}
