//! Asks people about held calls, without waiting for them: the agent makes the same call again,
//! and what people said meanwhile is then one of its facts. Must never let a yes to one call count
//! for another.

use super::Governor;
use crate::store::StoreFault;
use holdpoint_control::decide;
use holdpoint_policy::PolicySets;
use holdpoint_types::{
    ActionId, ApprovalAsked, ApprovalFacts, Cause, Decision, Digest, Door, Epoch, Facts, Reason,
    Request, Ruling, Timestamp, canonical_digest,
};
use serde_json::json;
use std::collections::BTreeSet;

/// Most calls of one agent that wait for approvals.
const OPEN_MAX: u64 = 100;

// === impl Governor ===

impl Governor {
    /// The decision with what people said to exactly this call, and what is asked of them if it is
    /// held all the same.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn ask_people(
        &self,
        request: &Request,
        (mut facts, decision): (Facts, Decision),
        policy: &PolicySets,
    ) -> Result<(Facts, Decision, Option<ApprovalAsked>), StoreFault> {
        if decision.ruling() != Ruling::Hold {
            return Ok((facts, decision, None));
        }
        let settings = self.settings();
        let wanted = wanted(request, (&facts, &decision), policy, settings.digest());
        let Some((names, binding)) = wanted else {
            return Ok((facts, decision, None));
        };
        if let Some(row) = self.inner.store.approval_for(binding, request.at)? {
            let asked = row.facts.asked.clone();
            facts.approval = Some(row.facts);
            let decision = decide(request, &facts, policy);
            let held = decision.ruling() == Ruling::Hold;
            return Ok((facts, decision, held.then_some(asked)));
        }
        if self.inner.store.approvals_of(&request.agent, (facts.epoch, request.at))? >= OPEN_MAX {
            let full = Reason::ApprovalsFull;
            let full = Cause::new(Ruling::Deny, full, full.meaning());
            return Ok((facts, decision.join([full]), None));
        }
        let (needs, for_ms) = settings.approval_needs(names.iter().map(String::as_str));
        let for_ms = i64::try_from(for_ms).unwrap_or(i64::MAX);
        let expires_ms = Timestamp(request.at.0.saturating_add(for_ms));
        let by = request.parameters.get("by").and_then(|by| by.as_str()?.parse().ok());
        let requester = by.filter(|_| request.door == Door::Operator);
        let instead_of = self.given_before(request, facts.epoch)?;
        let id = request.action;
        let asked = ApprovalAsked { id, binding, needs, expires_ms, requester, instead_of };
        Ok((facts, decision, Some(asked)))
    }

    /// The facts with what was seen of exactly this call when an approval was asked for that is
    /// still to be given. Nobody need look again before: whatever is seen then, it does not run.
    pub(super) fn seen_before(
        &self,
        request: &Request,
        facts: &Facts,
        policy: &PolicySets,
    ) -> Result<Option<Facts>, StoreFault> {
        let (store, settings) = (&self.inner.store, self.settings());
        for row in store.waiting_of(&request.agent, (facts.epoch, request.at))? {
            if row.tool != request.tool || row.facts.is_whole(request.at) {
                continue;
            }
            let Some(decided) = store.decision(row.facts.asked.id)? else { continue };
            if decided.more.facts.preview.is_none() {
                continue;
            }
            let preview = decided.more.facts.preview;
            let seen = Facts { preview, unseen: None, approval: None, ..facts.clone() };
            let decision = decide(request, &seen, policy);
            let wanted = wanted(request, (&seen, &decision), policy, settings.digest());
            if wanted.is_some_and(|(_, binding)| binding == row.facts.asked.binding) {
                return Ok(Some(seen));
            }
        }
        Ok(None)
    }

    /// The newest approval of the same call as it was, to which somebody said yes in vain.
    fn given_before(
        &self,
        request: &Request,
        epoch: Epoch,
    ) -> Result<Option<ActionId>, StoreFault> {
        let store = &self.inner.store;
        for row in store.waiting_of(&request.agent, (epoch, request.at))?.iter().rev() {
            let ApprovalFacts { asked, given, denied } = &row.facts;
            let yes = !given.is_empty() && denied.is_none();
            if row.tool != request.tool || !yes {
                continue;
            }
            let id = asked.id;
            let decided = store.decision(id)?;
            if decided.is_some_and(|one| one.more.request.parameters == request.parameters) {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }
}

/// By which approvals people can lift a hold, and what exactly these are for; nothing if nobody
/// can, because it asks for nothing.
fn wanted(
    request: &Request,
    (facts, decision): (&Facts, &Decision),
    policy: &PolicySets,
    settings: Digest,
) -> Option<(BTreeSet<String>, Digest)> {
    let names = decision.deciding().map(|cause| cause.approval.clone());
    let names = names.collect::<Option<BTreeSet<_>>>()?;
    let binding = binding(request, facts, (policy, &names), settings)?;
    Some((names, binding))
}

/// What an approval is for: who would do what, with which parameters and which consequences, under
/// which policies and settings, by which approvals, in which epoch. If any of it is another, so is
/// the digest.
fn binding(
    request: &Request,
    facts: &Facts,
    (policy, names): (&PolicySets, &BTreeSet<String>),
    settings: Digest,
) -> Option<Digest> {
    let guards = policy.guards_of(facts);
    let bound = json!({
        "agent": request.agent,
        "door": request.door,
        "tool": request.tool,
        "definition": facts.tool.as_ref().map(|tool| tool.definition),
        "parameters": canonical_digest(&request.parameters).ok()?,
        "preview": facts.preview.as_ref().map(|preview| preview.digest),
        "unseen": facts.unseen.as_ref().map(|unseen| &unseen.detail),
        "policy": policy.digest(),
        "guards": guards,
        "approvals": names,
        "epoch": facts.epoch,
        "target": facts.target,
        "settings": settings,
    });
    canonical_digest(&bound).ok()
}
