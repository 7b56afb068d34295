//! The way of a call to its permit: facts, decision, preview, people, record.
//!
//! INVARIANT: a permit comes back only after the decision is durable in the store, in the epoch
//! that it was made in. Must never execute anything.

use super::preview::HeldOpen;
use super::{Call, Governor, Refusal, TRIES_MAX, deny, unavailable};
use crate::store::{Admission, StoreFault};
use holdpoint_control::{Input, Output, Permit, Proposal};
use holdpoint_effects::Effects;
use holdpoint_policy::PolicySets;
use holdpoint_resources::resource::Preview;
use holdpoint_resources::{Cancels, Resources};
use holdpoint_types::{
    ActionId, ApprovalAsked, Decision, Epoch, Facts, PreviewFacts, Reason, Record, RecordBody,
    Request, Ruling, Timestamp, canonical_digest,
};
use std::sync::Arc;

/// What became of a proposal.
pub(super) enum Admitted {
    Permit(Permit, Cancels),
    Refused(Refusal),
    DecideAgain,
}

/// A call that policies and validators have spoken about, with what it would do.
pub(super) struct Judged {
    pub(super) request: Request,
    pub(super) facts: Facts,
    pub(super) decision: Decision,
    pub(super) diff: Option<Preview>,
}

// === impl Governor ===

impl Governor {
    /// Decides until the decision is recorded in the epoch that it was made in. What a permit is
    /// for is executed by what it comes with.
    pub(super) async fn admit(
        &self,
        action: ActionId,
        call: &Call,
    ) -> Result<(Permit, Cancels, Arc<Resources>), Refusal> {
        let effects = self.analyse((&call.agent, &call.tool), &call.parameters).await?;
        let _turn = self.plan_turn(call, effects.as_deref()).await;
        let mut held_open = HeldOpen::new(self, (action, &call.tool), None);
        for _ in 0..TRIES_MAX {
            match self.try_admit((call, effects.as_deref()), &mut held_open).await? {
                Admitted::Permit(permit, cancel) => {
                    return Ok((permit, cancel, held_open.goes_on()));
                }
                Admitted::Refused(refusal) => return Err(refusal),
                Admitted::DecideAgain => self.read_stops().map_err(|fault| unavailable(&fault))?,
            }
        }
        Err(deny(Reason::CouldNotDecide, "stops keep changing; ask again").into())
    }

    async fn try_admit(
        &self,
        call: (&Call, Option<&Effects>),
        held_open: &mut HeldOpen<'_>,
    ) -> Result<Admitted, Refusal> {
        let now = self.inner.clock.now();
        let now = now.map_err(|fault| deny(Reason::ClockStepped, &fault.to_string()))?;
        let (request, mut facts) = self.gather(held_open.action(), call, now);
        let policy = self.policy();
        match &call.0.condition {
            Some(condition) => facts.plan = Some(condition.facts()),
            None => {
                let planned = self.plan_or_look(&request, &mut facts, &policy).await;
                planned.map_err(|fault| unavailable(&fault))?;
            }
        }
        let judged = self.judge(&request, facts, &policy).await;
        let judged = self.meet_conditions(&request, judged, (&policy, held_open)).await;
        let judged = judged.map_err(|fault| unavailable(&fault))?;
        let ahead = self.look_ahead(&request, judged, call.1, (&policy, held_open)).await;
        let held = self.hold_to_plan(&request, ahead, &policy).await;
        let (facts, decision, diff) = held.map_err(|fault| unavailable(&fault))?;
        self.propose(Judged { request, facts, decision, diff }, &policy).await
    }

    /// Asks people if need be, then writes the decision down; a permit comes of it at most once.
    pub(super) async fn propose(
        &self,
        judged: Judged,
        policy: &PolicySets,
    ) -> Result<Admitted, Refusal> {
        let (action, now) = (judged.request.action, judged.request.at);
        let (Judged { request, facts, decision, diff }, approval) =
            self.asked(judged, policy).map_err(|fault| unavailable(&fault))?;
        let large = facts.unseen.as_ref().map(|unseen| unseen.reason);
        let (judged, approval) = match (decision.ruling(), large) {
            (Ruling::Permit, Some(Reason::PreviewTooLarge)) => {
                let whole = self.whole_by_plan(&request, (facts, decision), policy).await;
                let (facts, decision, diff) = whole.map_err(|fault| unavailable(&fault))?;
                let judged = Judged { request, facts, decision, diff };
                self.asked(judged, policy).map_err(|fault| unavailable(&fault))?
            }
            _ => (Judged { request, facts, decision, diff }, approval),
        };
        let Judged { request, facts, decision, diff } = judged;
        let (checks, decision) = self.promise_checks(&request, &facts, decision);
        let parameters = canonical_digest(&request.parameters)
            .map_err(|fault| deny(Reason::CouldNotDecide, &fault.to_string()))?;
        let (policy, guards) = (policy.digest(), policy.guards_of(&facts));
        let (asked, preview) = (approval.clone(), facts.preview.clone());
        if decision.ruling() != Ruling::Permit {
            let why = (decision.ruling(), approval.as_ref());
            self.let_go((action, &request.tool), why, diff).await;
        }
        let proposal =
            Proposal { request, facts, decision, policy, guards, parameters, checks, approval };
        let mut outputs = self.hand_over(proposal, now)?;
        let written = match outputs.pop() {
            Some(Output::Admit(body, epoch)) => self.write_admission(body, epoch, now).await,
            Some(Output::Record(body)) => self.write(body).await.map(|_| true),
            other => {
                tracing::error!(?other, "control answered a proposal with something else");
                Ok(false)
            }
        };
        match written {
            Ok(true) => Ok(self.recorded(action, (asked, preview))),
            Ok(false) => {
                self.feed(Input::Unrecorded(action));
                Ok(Admitted::DecideAgain)
            }
            Err(fault) => {
                self.feed(Input::Unrecorded(action));
                tracing::error!(%action, %fault, "a decision could not be recorded: denied");
                Err(unavailable(&fault).into())
            }
        }
    }

    /// The same after people were asked, if need be, and what they are asked.
    fn asked(
        &self,
        judged: Judged,
        policy: &PolicySets,
    ) -> Result<(Judged, Option<ApprovalAsked>), StoreFault> {
        let Judged { request, facts, decision, diff } = judged;
        let asked = self.ask_people(&request, (facts, decision), policy)?;
        let (facts, decision, approval) = asked;
        Ok((Judged { request, facts, decision, diff }, approval))
    }

    /// Hands a proposal to control, if there is room.
    fn hand_over(&self, proposal: Proposal, now: Timestamp) -> Result<Vec<Output>, Refusal> {
        let mut control = self.inner.control.lock();
        // Under the lock: whoever drains counts either this call or its refusal.
        if self.inner.telemetry.is_draining() {
            return Err(deny(Reason::Draining, Reason::Draining.meaning()).into());
        }
        if control.in_flight() >= self.inner.limits.load().calls_in_flight_max {
            return Err(deny(Reason::Overloaded, Reason::Overloaded.meaning()).into());
        }
        Ok(control.handle(Input::Proposed(Box::new(proposal)), now))
    }

    async fn write_admission(
        &self,
        body: RecordBody,
        epoch: Epoch,
        at_ms: Timestamp,
    ) -> Result<bool, StoreFault> {
        let record = Record { at_ms, gateway: self.inner.gateway, body };
        Ok(match self.inner.store.admit(record, epoch).await? {
            Admission::Recorded { .. } => true,
            Admission::EpochMoved { .. } | Admission::ApprovalMoved | Admission::PlanMoved => false,
        })
    }

    fn recorded(
        &self,
        action: ActionId,
        (approval, preview): (Option<ApprovalAsked>, Option<PreviewFacts>),
    ) -> Admitted {
        let cancel = Cancels::default();
        // Known before the permit exists, so that no stop can fall between.
        self.inner.cancels.lock().insert(action, cancel.clone());
        let outputs = self.feed(Input::Recorded(action));
        for output in outputs {
            match output {
                Output::Execute(permit) => return Admitted::Permit(permit, cancel),
                Output::Refuse(_, decision) => {
                    self.inner.cancels.lock().remove(&action);
                    let (approval, preview) = (approval.map(Box::new), preview.map(Box::new));
                    return Admitted::Refused(Refusal { decision, approval, preview });
                }
                _ => {}
            }
        }
        self.inner.cancels.lock().remove(&action);
        Admitted::DecideAgain
    }
}
