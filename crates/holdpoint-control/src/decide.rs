//! The decision: everything that speaks about one action, joined.
//!
//! Pure and total: the same request, facts and policies give the same decision, byte for byte. Must
//! never look at anything else.

use crate::settings::OWNER;
use holdpoint_policy::PolicySets;
use holdpoint_types::{
    Cause, ClassSource, Decision, EffectClass, Facts, Finding, Mode, PlanFit, Reason, Request,
    Ruling, Stop, ToolState,
};

/// Decides one action.
///
/// Every check speaks for itself and none can take back what another said: the decision is the
/// join, so adding a check or a rule can only make it stricter.
pub fn decide(request: &Request, facts: &Facts, policies: &PolicySets) -> Decision {
    Decision::from_iter(policies.evaluate(request, facts))
        .join(facts.stops.iter().map(halted))
        .join(identity(facts))
        .join(autonomy(facts))
        .join(excepted(facts))
        .join(catalog(facts))
        .join(grants(facts))
        .join(plan(facts))
        .join(facts.findings.iter().filter_map(Finding::cause))
        .join(unseen(facts))
        .join(refusal(facts))
        .with_approved(|name| approved(request, facts, name))
}

/// What nobody could see before. What is large, or what a server would run all the same, is for a
/// person to decide.
fn unseen(facts: &Facts) -> Option<Cause> {
    let unseen = facts.unseen.as_ref()?;
    let cause = |ruling| Cause::new(ruling, unseen.reason, unseen.detail.clone());
    Some(match unseen.reason {
        Reason::PreviewTooLarge | Reason::UnseenTooLarge => cause(Ruling::Hold).needing(OWNER),
        _ => cause(Ruling::Deny),
    })
}

/// A no that a person said to exactly this call.
fn refusal(facts: &Facts) -> Option<Cause> {
    let approval = facts.approval.as_ref()?;
    let denied = approval.denied.as_ref()?;
    let rule = format!("approval {}", approval.asked.id);
    let text = format!("{}: {}", denied.by, denied.because);
    Some(Cause::new(Ruling::Deny, Reason::ApprovalDenied, text).by_rule(rule))
}

/// True if the approval of this name is given to exactly this call.
fn approved(request: &Request, facts: &Facts, name: &str) -> bool {
    facts.approval.as_ref().is_some_and(|approval| approval.answers(name, request.at))
}

/// What a stop says to every action that it covers.
pub(crate) fn halted(stop: &Stop) -> Cause {
    let rule = format!("stop {} on {}", stop.id, stop.scope);
    Cause::new(Ruling::Halt, Reason::Stopped, stop.reason.clone()).by_rule(rule)
}

fn identity(facts: &Facts) -> Option<Cause> {
    match &facts.agent {
        None => Some(deny(Reason::AgentUnknown)),
        Some(agent) if agent.owner.is_none() => Some(deny(Reason::AgentUnowned)),
        Some(_) => None,
    }
}

/// What the agent's mode says about a call of this class.
///
/// Reads stay possible down to `read-only`: an agent that may only plan must be able to look.
fn autonomy(facts: &Facts) -> Option<Cause> {
    let mode = facts.agent.as_ref()?.mode;
    let changes = class(facts) > EffectClass::Read;
    let cause = match mode {
        Mode::Auto => return None,
        Mode::Quarantined => deny(Reason::AgentQuarantined),
        Mode::ApproveWrites | Mode::PlanOnly | Mode::ReadOnly if !changes => return None,
        Mode::ApproveWrites => voice(Ruling::Hold, Reason::AgentApproveWrites).needing(OWNER),
        Mode::PlanOnly => voice(Ruling::PlanOnly, Reason::AgentPlanOnly),
        Mode::ReadOnly => deny(Reason::AgentReadOnly),
    };
    Some(cause.by_rule(format!("mode {mode}")))
}

/// A freeze from which an approval excepts holds every change for it.
fn excepted(facts: &Facts) -> impl Iterator<Item = Cause> {
    let changes = class(facts) > EffectClass::Read;
    let freezes = facts.freeze_exceptions.iter().filter(move |_| changes);
    freezes.map(|(freeze, approval)| {
        let cause = voice(Ruling::Hold, Reason::FreezeHolds).needing(approval);
        cause.by_rule(format!("freeze {freeze}"))
    })
}

fn catalog(facts: &Facts) -> Option<Cause> {
    let Some(tool) = &facts.tool else {
        return Some(deny(Reason::ToolUnknown));
    };
    match &tool.state {
        ToolState::Pinned => None,
        ToolState::Changed { pinned } => {
            let rule = format!("pinned {}, offered {}", pinned.short(), tool.definition.short());
            Some(deny(Reason::ToolQuarantined).by_rule(rule))
        }
    }
}

fn grants(facts: &Facts) -> impl Iterator<Item = Cause> {
    // What nobody offers can be granted to nobody: `catalog` says so already.
    let offered = facts.tool.is_some();
    let lacking = facts.aims().filter(move |aim| offered && aim.grant.by.is_none());
    lacking.map(|aim| match aim.class {
        EffectClass::Destructive => {
            let text = aim.told(why_destructive(facts));
            Cause::new(Ruling::Deny, Reason::DestructiveNotGranted, text)
        }
        EffectClass::Read | EffectClass::Write => {
            let text = aim.told(Reason::NotGranted.meaning());
            Cause::new(Ruling::Deny, Reason::NotGranted, text)
        }
    })
}

/// A plan that was accepted is a promise: what is no part of it does not run.
fn plan(facts: &Facts) -> Option<Cause> {
    let plan = facts.plan.as_ref()?;
    match &plan.fit {
        PlanFit::Step { .. } | PlanFit::FreeRead => None,
        PlanFit::Condition { .. } if class(facts) == EffectClass::Read => None,
        PlanFit::Condition { step, .. } => {
            let text = "a condition is looked at by what only reads";
            let cause = Cause::new(Ruling::Deny, Reason::PlanDeviation, text);
            Some(cause.by_rule(format!("plan {} step {step}", plan.plan)))
        }
        PlanFit::Deviation { nearest, why } => {
            let step = nearest.as_ref().map_or_else(String::new, |step| format!(" step {step}"));
            let cause = Cause::new(Ruling::Deny, Reason::PlanDeviation, why.clone());
            Some(cause.by_rule(format!("plan {}{step}", plan.plan)))
        }
    }
}

/// Where the class came from decides what an operator would have to change.
fn why_destructive(facts: &Facts) -> &'static str {
    match facts.tool.as_ref().map(|tool| tool.class_source) {
        Some(ClassSource::Operator) => {
            "The tool is classified as destructive and the agent has no grant that names it."
        }
        Some(ClassSource::Annotation) => {
            "The tool says of itself that it destroys or overwrites, and the agent has no grant \
             that names it as destructive."
        }
        Some(ClassSource::Unclassified) => {
            "Nobody classified the tool, so it counts as destructive, and the agent has no grant \
             that names it."
        }
        Some(ClassSource::Effects) => {
            "The call would destroy something, or may, and the agent has no grant that names the \
             tool as destructive."
        }
        Some(ClassSource::Unlooked) => {
            "Each call of the tool is judged by what it would do, and the agent has no grant that \
             reaches the tool."
        }
        Some(ClassSource::Protocol) | None => Reason::DestructiveNotGranted.meaning(),
    }
}

/// The class to judge by: an unknown tool counts as destructive.
fn class(facts: &Facts) -> EffectClass {
    facts.tool.as_ref().map_or(EffectClass::Destructive, |tool| tool.class)
}

fn deny(reason: Reason) -> Cause {
    voice(Ruling::Deny, reason)
}

fn voice(ruling: Ruling, reason: Reason) -> Cause {
    Cause::new(ruling, reason, reason.meaning())
}
