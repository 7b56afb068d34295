//! Looks at what a call would do before it is decided, where its target can tell. Must never let
//! what a preview holds open outlive a call that does not run.

use super::Governor;
use super::looks::Turn;
use crate::store::StoreFault;
use holdpoint_control::decide;
use holdpoint_effects::Effects;
use holdpoint_policy::PolicySets;
use holdpoint_resources::resource::{Preview, Proposed, ResourceFault};
use holdpoint_resources::{Place, Resources, redacted};
use holdpoint_types::{
    ActionId, ApprovalAsked, Cause, Decision, Facts, PreviewFacts, Reason, Request, Ruling,
    ToolRef, Unseen,
};
use std::sync::Arc;

/// Lets go of what a preview holds open, however deciding ends, unless the call goes on.
pub(super) struct HeldOpen<'a> {
    /// What stood for servers when deciding began: whoever saw a call executes it.
    resources: Arc<Resources>,
    action: ActionId,
    tool: &'a ToolRef,
    /// The agent's turn at a target that is kept busy.
    turn: Option<Turn>,
    goes_on: bool,
}

// === impl HeldOpen ===

impl<'a> HeldOpen<'a> {
    pub(super) fn new(
        governor: &Governor,
        (action, tool): (ActionId, &'a ToolRef),
        turn: Option<Turn>,
    ) -> Self {
        Self { resources: governor.resources(), action, tool, turn, goes_on: false }
    }

    /// The action.
    pub(super) fn action(&self) -> ActionId {
        self.action
    }

    /// Gives back what an earlier look holds open, and the turn: something else is looked at first.
    pub(super) fn let_go(&mut self) {
        self.resources.forget(self.action, self.tool.server());
        self.turn = None;
    }

    /// A permit is out: what is held open is executed, by what is given back.
    pub(super) fn goes_on(mut self) -> Arc<Resources> {
        if let Some(turn) = self.turn.take() {
            turn.was_fruitful();
        }
        self.goes_on = true;
        Arc::clone(&self.resources)
    }
}

impl Drop for HeldOpen<'_> {
    fn drop(&mut self) {
        if !self.goes_on {
            self.resources.forget(self.action, self.tool.server());
        }
    }
}

// === impl Governor ===

impl Governor {
    /// Replaces what stands for servers; calls being decided keep what they began with.
    pub fn replace_resources(&self, resources: Resources) {
        self.inner.resources.store(Arc::new(resources));
        self.inner.targets.notify_one();
    }

    /// What stands for servers.
    pub fn resources(&self) -> Arc<Resources> {
        self.inner.resources.load_full()
    }

    /// The decision with what the call would do. Nobody looks where the call is refused anyway.
    pub(super) async fn look_ahead(
        &self,
        request: &Request,
        (mut facts, decision): (Facts, Decision),
        effects: Option<&Effects>,
        (policy, held_open): (&PolicySets, &mut HeldOpen<'_>),
    ) -> (Facts, Decision, Option<Preview>) {
        let resources = Arc::clone(&held_open.resources);
        let server = request.tool.server();
        if decision.ruling() >= Ruling::Deny || !resources.stands_for(server) {
            return (facts, decision, None);
        }
        let (tool, parameters, now) = (&request.tool, &request.parameters, request.at);
        let effects: Vec<_> = effects.into_iter().flat_map(Effects::iter).cloned().collect();
        let proposed = Proposed { tool, parameters, effects: &effects, now };
        // If stops moved meanwhile: what was held open must not be waited for.
        resources.forget(request.action, server);
        if let Err(detail) = self.take_turn(request, &resources, held_open).await {
            facts.unseen = Some(Unseen { reason: Reason::PreviewTooSoon, detail });
            let decision = decide(request, &facts, policy);
            return (facts, decision, None);
        }
        let seen = resources.preview(request.action, proposed).await;
        let preview = match known(seen) {
            Ok(None) => return (facts, decision, None),
            Ok(Some((preview, known))) => {
                facts.preview = Some(known);
                Some(preview)
            }
            Err(fault) => {
                facts.unseen = Some(unseen(&fault, resources.place_of(server)));
                None
            }
        };
        let decision = decide(request, &facts, policy);
        (facts, decision, preview)
    }

    /// Looks at a change that people approved by its size, so that it runs as it is seen then and
    /// can be taken back. Whoever decides about what is seen is asked as usual: a yes to the size
    /// is none to what holds it only now. While they have not answered, nobody looks again.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) async fn look_whole(
        &self,
        request: &Request,
        (mut facts, decision): (Facts, Decision),
        policy: &PolicySets,
    ) -> Result<(Facts, Decision, Option<Preview>), StoreFault> {
        if let Some(seen) = self.seen_before(request, &facts, policy)? {
            let decision = decide(request, &seen, policy);
            return Ok((seen, decision, None));
        }
        let (tool, parameters, now) = (&request.tool, &request.parameters, request.at);
        let proposed = Proposed { tool, parameters, effects: &[], now };
        let resources = self.resources();
        let size = facts.approval.take();
        let before = decide(request, &facts, policy);
        let seen = resources.preview_whole(request.action, proposed).await;
        let preview = match known(seen) {
            Ok(None) => {
                facts.approval = size;
                return Ok((facts, decision, None));
            }
            Ok(Some((preview, known))) => {
                (facts.preview, facts.unseen) = (Some(known), None);
                Some(preview)
            }
            Err(fault) => {
                let reason = match fault {
                    ResourceFault::Large(_) => Reason::ChangeTooLarge,
                    ref fault => unseen(fault, resources.place_of(request.tool.server())).reason,
                };
                facts.unseen = Some(Unseen { reason, detail: fault.to_string() });
                None
            }
        };
        let decision = decide(request, &facts, policy);
        if holds_anew(&decision, &before) {
            return Ok((facts, decision, preview));
        }
        facts.approval = size;
        let decision = decide(request, &facts, policy);
        Ok((facts, decision, preview))
    }

    /// Waits for the agent's turn, where a look keeps its target from others.
    async fn take_turn(
        &self,
        request: &Request,
        resources: &Resources,
        held_open: &mut HeldOpen<'_>,
    ) -> Result<(), String> {
        if held_open.turn.is_some() || !resources.keeps_busy(&request.tool) {
            return Ok(());
        }
        let turn = self.inner.looks.turn(&request.agent, request.tool.server()).await?;
        held_open.turn = Some(turn);
        Ok(())
    }

    /// Lets go of what a call that does not run would have done, and keeps its preview for whoever
    /// decides it or reads the plan.
    pub(super) async fn let_go(
        &self,
        (action, tool): (ActionId, &ToolRef),
        (ruling, approval): (Ruling, Option<&ApprovalAsked>),
        preview: Option<Preview>,
    ) {
        let resources = self.resources();
        let server = tool.server();
        resources.forget(action, server);
        let wanted = match ruling {
            Ruling::Hold => approval.is_some_and(|asked| asked.id == action),
            Ruling::PlanOnly => true,
            Ruling::Permit | Ruling::Deny | Ruling::Halt => false,
        };
        if let Some(preview) = preview.filter(|_| wanted) {
            let kept = (redacted(preview), self.now());
            if let Err(fault) = resources.keep_preview(action, server, kept).await {
                tracing::warn!(%action, %fault, "a preview cannot be kept for who decides");
            }
        }
    }
}

/// True if something holds a call in `now` that did not hold it `before`.
fn holds_anew(now: &Decision, before: &Decision) -> bool {
    let voice = |cause: &Cause| (cause.reason, cause.rule.clone(), cause.approval.clone());
    let known: Vec<_> = before.deciding().map(voice).collect();
    now.ruling() == Ruling::Hold && now.deciding().any(|cause| !known.contains(&voice(cause)))
}

/// What was seen, with what decisions and records see of it.
fn known(
    seen: Result<Option<Preview>, ResourceFault>,
) -> Result<Option<(Preview, PreviewFacts)>, ResourceFault> {
    let Some(preview) = seen? else { return Ok(None) };
    let known = preview.facts()?;
    Ok(Some((preview, known)))
}

/// Why nobody can see what a call would do, as a decision takes it.
fn unseen(fault: &ResourceFault, place: Option<Place>) -> Unseen {
    let reason = match fault {
        // Its server runs what nobody looked at; what Holdpoint serves does not.
        ResourceFault::Large(_) | ResourceFault::TooLarge(_) if place == Some(Place::Beside) => {
            Reason::UnseenTooLarge
        }
        ResourceFault::Large(_) => Reason::PreviewTooLarge,
        ResourceFault::TooLarge(_) => Reason::ChangeTooLarge,
        ResourceFault::Refused(_) | ResourceFault::Gone(_) | ResourceFault::Invalid(_) => {
            Reason::TargetRefuses
        }
        ResourceFault::Unavailable(_) | ResourceFault::Impossible(_) => Reason::PreviewUnavailable,
    };
    Unseen { reason, detail: fault.to_string() }
}
