//! Takes actions back: a revert is an action itself, with a preview, a decision, a permit and an
//! outcome, and afterwards somebody looks whether the target is as it was before.
//!
//! Must never overwrite what somebody changed since, and never call a failed revert done.

use super::admission::{Admitted, Judged};
use super::{Governed, Governor, Refusal, deny};
use crate::operate::Word;
use crate::store::StoreFault;
use holdpoint_control::decide;
use holdpoint_resources::resource::{
    Conflict, Forward, Proposed, ResourceFault, TargetState, Undo,
};
use holdpoint_resources::{Ended, RevertPreview};
use holdpoint_types::{
    ActionId, ActionRecord, AgentFacts, ChangeCounts, ClassSource, DecisionRecord, Digest, Door,
    EffectClass, Facts, GrantFacts, Intent, IntentSource, Mode, OutcomeStatus, PlanFit, PlanId,
    Reason, RecordBody, Request, RevertConflict, RevertRecord, RevertStatus, Ruling, TaskId,
    ToolFacts, ToolRef, ToolState,
};
use serde_json::json;
use std::time::Instant;

/// As whom reverts act. No agent can be declared under this name.
pub const OPERATOR: &str = "operator";
/// The tool that stands for taking something back; no server's tool can be called so by an agent.
const REVERT: &str = "holdpoint/revert";

/// What a revert would do, or what became of it.
#[derive(Debug)]
pub enum Reverting {
    /// What would be put back and what kept; nothing was changed.
    Seen(Box<RevertPreview>),
    /// A decision stands in the way; with an approval, it can be asked for again.
    Refused(ActionId, Box<Refusal>),
    /// It was done, or cannot be; recorded.
    Ended(Box<RevertRecord>),
}

/// Whether a revert is only looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Only what would be done.
    Look,
    /// Do it.
    Do,
}

/// Several actions that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    /// Those that name this task.
    Task(TaskId),
    /// Those that are a part of this plan.
    Plan(PlanId),
}

/// An action that is to be taken back.
struct Story {
    decided: ActionRecord<DecisionRecord>,
    status: Option<OutcomeStatus>,
}

// === impl Whole ===

impl Whole {
    /// True for what changes something, and is no revert itself.
    fn has(self, decided: &DecisionRecord) -> bool {
        let facts = &decided.facts;
        let reads = facts.tool.as_ref().is_some_and(|tool| tool.class == EffectClass::Read);
        if reads || decided.request.door == Door::Operator {
            return false;
        }
        match self {
            Self::Task(task) => decided.request.task == Some(task),
            Self::Plan(plan) => decided.facts.plan.as_ref().is_some_and(|facts| {
                facts.plan == plan && matches!(facts.fit, PlanFit::Step { .. })
            }),
        }
    }
}

// === impl Governor ===

impl Governor {
    /// Takes the action `of` back, or shows what that would do. Doing it twice changes nothing the
    /// second time.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn revert(
        &self,
        of: ActionId,
        (word, wanted): (&Word, Wanted),
    ) -> Result<Reverting, StoreFault> {
        let Some(story) = self.story_of(of)? else {
            let detail = "no such action was recorded, or it was never permitted";
            return Ok(Reverting::Refused(
                of,
                Box::new(deny(Reason::CouldNotDecide, detail).into()),
            ));
        };
        let undo = match self.undo_of(&story) {
            Ok(undo) => undo,
            Err(why) => {
                let record = self.reverted((&story, word), RevertStatus::Impossible, why);
                return self.ended(record, wanted).await;
            }
        };
        let request = self.revert_request(&story, word);
        let tool = request.tool.clone();
        let proposed = Proposed {
            tool: &tool,
            parameters: &request.parameters,
            effects: &[],
            now: request.at,
        };
        let resources = self.resources();
        let seen = match resources.revert((request.action, proposed), &undo).await {
            Ok(seen) => seen,
            Err(fault) => {
                let status = match fault {
                    ResourceFault::Impossible(_) | ResourceFault::Gone(_) => {
                        RevertStatus::Impossible
                    }
                    _ => RevertStatus::Stuck,
                };
                let record = self.reverted((&story, word), status, fault.to_string());
                return self.ended(record, wanted).await;
            }
        };
        let action = request.action;
        if wanted == Wanted::Look {
            resources.forget(action, tool.server());
            return Ok(Reverting::Seen(Box::new(seen)));
        }
        if seen.preview.changes.is_empty() {
            resources.forget(action, tool.server());
            let record = self.nothing_to_do((&story, word), &seen);
            return self.ended(record, wanted).await;
        }
        self.carry_out((request, undo), seen, (&story, word)).await
    }

    /// The permitted actions of a task or a plan, the newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn actions_of(&self, whole: Whole) -> Result<Vec<ActionId>, StoreFault> {
        let kind = Some("decision".to_owned());
        let ruling = Some(Ruling::Permit);
        let mut query =
            crate::store::RecordQuery { kind, ruling, limit: 1000, ..Default::default() };
        let mut found = Vec::new();
        loop {
            let page = self.store().records(&query)?;
            let Some(last) = page.last() else { break };
            query.after_seq = Some(last.seq);
            found.extend(page.iter().filter_map(|stored| match &stored.record.body {
                RecordBody::Decision(decided) if whole.has(&decided.more) => Some(decided.action),
                _ => None,
            }));
        }
        found.reverse();
        Ok(found)
    }

    /// Decides about a revert that is prepared, and does it.
    async fn carry_out(
        &self,
        (request, undo): (Request, Undo),
        seen: RevertPreview,
        (story, word): (&Story, &Word),
    ) -> Result<Reverting, StoreFault> {
        let begun = Instant::now();
        let (action, tool) = (request.action, request.tool.clone());
        let resources = self.resources();
        let known = match seen.preview.facts() {
            Ok(known) => known,
            Err(fault) => {
                resources.forget(action, tool.server());
                let record = self.reverted((story, word), RevertStatus::Stuck, fault.to_string());
                return self.ended(record, Wanted::Do).await;
            }
        };
        let policy = self.policy();
        let mut facts = self.revert_facts(story, &request, word);
        facts.preview = Some(known);
        let decision = decide(&request, &facts, &policy);
        let diff = Some(seen.preview.clone());
        let admitted = self.propose(Judged { request, facts, decision, diff }, &policy).await;
        let (permit, cancels) = match admitted {
            Ok(Admitted::Permit(permit, cancels)) => (permit, cancels),
            Ok(Admitted::Refused(refusal)) | Err(refusal) => {
                resources.forget(action, tool.server());
                return Ok(Reverting::Refused(action, Box::new(refusal)));
            }
            Ok(Admitted::DecideAgain) => {
                resources.forget(action, tool.server());
                let refusal = deny(Reason::CouldNotDecide, "stops changed meanwhile; try again");
                return Ok(Reverting::Refused(action, Box::new(refusal.into())));
            }
        };
        let forward: Forward = Box::new(|_| Box::pin(async { not_prepared() }));
        let ended = resources.execute(permit, self.now(), (cancels, forward)).await;
        let governed = self.finish(action, ended);
        self.tell_end(&tool, &governed, begun.elapsed());
        let state = resources.verify(tool.server(), &undo).await;
        let record = self.judge_revert((story, word), (action, &seen), (&governed, state));
        self.ended(record, Wanted::Do).await
    }

    /// How it stands after a revert was tried.
    fn judge_revert(
        &self,
        (story, word): (&Story, &Word),
        (action, seen): (ActionId, &RevertPreview),
        (governed, state): (&Governed, Result<TargetState, ResourceFault>),
    ) -> RevertRecord {
        let failed = match governed {
            Governed::Failed { reason, detail, .. } => Some(format!("{reason}: {detail}")),
            Governed::Answered(..) | Governed::Refused(..) => None,
        };
        let (status, detail) = match (failed, state) {
            (failed, Ok(TargetState::Before)) => (RevertStatus::Restored, failed),
            (None, Ok(TargetState::Changed(differs))) if is_kept(&differs, seen) => {
                (RevertStatus::Partly, None)
            }
            (Some(failed), _) => (RevertStatus::Stuck, Some(failed)),
            (None, Ok(TargetState::After)) => {
                let detail = "the target is still as the action left it".to_owned();
                (RevertStatus::Stuck, Some(detail))
            }
            (None, Ok(TargetState::Changed(differs))) => {
                let names: Vec<_> = differs.iter().map(|one| one.resource.as_str()).collect();
                let names = names.join(", ");
                (RevertStatus::Stuck, Some(format!("not as it was before: {names}")))
            }
            (None, Ok(TargetState::Unknown(why))) => {
                let detail = format!("done, but nobody can tell how the target is: {why}");
                (RevertStatus::Stuck, Some(detail))
            }
            (None, Err(fault)) => {
                let detail = format!("done, but the target cannot be looked at: {fault}");
                (RevertStatus::Stuck, Some(detail))
            }
        };
        let restored = match status {
            RevertStatus::Restored | RevertStatus::Partly => seen.preview.counts(),
            RevertStatus::Unchanged | RevertStatus::Impossible | RevertStatus::Stuck => {
                ChangeCounts::default()
            }
        };
        let record = self.reverted((story, word), status, String::new());
        let conflicts = conflicts(seen);
        RevertRecord { action: Some(action), restored, conflicts, detail, ..record }
    }

    fn nothing_to_do(&self, (story, word): (&Story, &Word), seen: &RevertPreview) -> RevertRecord {
        let conflicts = conflicts(seen);
        let status =
            if conflicts.is_empty() { RevertStatus::Unchanged } else { RevertStatus::Partly };
        let record = self.reverted((story, word), status, String::new());
        RevertRecord { conflicts, detail: None, ..record }
    }

    fn reverted(
        &self,
        (story, word): (&Story, &Word),
        status: RevertStatus,
        detail: String,
    ) -> RevertRecord {
        RevertRecord {
            of: story.decided.action,
            agent: story.decided.agent.clone(),
            action: None,
            status,
            restored: ChangeCounts::default(),
            conflicts: Vec::new(),
            detail: Some(detail),
            by: word.by.clone(),
            because: word.reason.clone(),
        }
    }

    /// Records how it stands, unless it was only looked at.
    async fn ended(&self, record: RevertRecord, wanted: Wanted) -> Result<Reverting, StoreFault> {
        if wanted == Wanted::Do {
            if record.status == RevertStatus::Stuck {
                let (of, detail) = (record.of, record.detail.as_deref().unwrap_or_default());
                tracing::error!(%of, detail, "a revert is stuck: somebody has to look");
            }
            self.write(RecordBody::Reverted(Box::new(record.clone()))).await?;
        }
        Ok(Reverting::Ended(Box::new(record)))
    }

    /// What is recorded of an action that was permitted.
    fn story_of(&self, of: ActionId) -> Result<Option<Story>, StoreFault> {
        let (mut decided, mut status) = (None, None);
        for stored in self.store().of_action(of)? {
            match stored.record.body {
                RecordBody::Decision(record) => {
                    let permitted = record.more.decision.ruling() == Ruling::Permit;
                    decided = permitted.then_some(*record);
                }
                RecordBody::Outcome(record) => status = Some(record.more.status),
                _ => {}
            }
        }
        Ok(decided.map(|decided| Story { decided, status }))
    }

    /// What was captured of it, or why it cannot be taken back.
    fn undo_of(&self, story: &Story) -> Result<Undo, String> {
        if story.status == Some(OutcomeStatus::NotSent) {
            return Err("it never ran, so there is nothing to take back".to_owned());
        }
        let kept = self.resources().kept_undo(story.decided.action);
        match kept.map_err(|fault| fault.to_string())? {
            Some((_, undo)) => Ok(undo),
            None => Err("nothing was captured that takes it back, or it is kept no longer".into()),
        }
    }

    fn revert_request(&self, story: &Story, word: &Word) -> Request {
        let of = story.decided.action;
        let server = story.decided.more.request.tool.server().clone();
        let intent = Intent { text: word.reason.clone(), source: IntentSource::Operator };
        Request {
            action: self.new_action(),
            agent: OPERATOR.parse().unwrap_or_else(|_| story.decided.agent.clone()),
            door: Door::Operator,
            // A name that is made of plain characters always is one.
            tool: ToolRef::new(server, REVERT)
                .unwrap_or_else(|_| story.decided.more.request.tool.clone()),
            parameters: json!({ "action": of, "by": word.by }),
            task: story.decided.more.request.task,
            intent: Some(intent),
            retrieved: Vec::new(),
            host_call: None,
            at: self.now(),
        }
    }

    fn revert_facts(&self, story: &Story, request: &Request, word: &Word) -> Facts {
        let (stops, epoch) = {
            let control = self.inner.control.lock();
            (control.stops_on(&request.agent, &request.tool), control.epoch())
        };
        let before = &story.decided.more.facts;
        let owner = before.agent.as_ref().and_then(|agent| agent.owner.clone());
        let tool = ToolFacts {
            definition: Digest::of(b"holdpoint/revert 1"),
            state: ToolState::Pinned,
            class: EffectClass::Destructive,
            class_source: ClassSource::Protocol,
            open_world: false,
        };
        let settings = self.settings();
        Facts {
            agent: Some(AgentFacts { owner, mode: Mode::Auto }),
            tool: Some(tool),
            grant: GrantFacts { by: Some(format!("operator {}", word.by)) },
            target: before.target.clone(),
            effects: Vec::new(),
            freezes: settings.freezes_at(request.at),
            freeze_exceptions: settings.freeze_exceptions_at(request.at),
            stops,
            epoch,
            findings: Vec::new(),
            preview: None,
            unseen: None,
            approval: None,
            plan: None,
        }
    }
}

/// True if only what was kept on purpose differs from what was before.
fn is_kept(differs: &[Conflict], seen: &RevertPreview) -> bool {
    let kept = |one: &Conflict| seen.conflicts.iter().any(|kept| kept.resource == one.resource);
    !differs.is_empty() && differs.iter().all(kept)
}

fn conflicts(seen: &RevertPreview) -> Vec<RevertConflict> {
    let each = seen.conflicts.iter();
    each.map(|one| RevertConflict { resource: one.resource.clone(), why: one.why.clone() })
        .collect()
}

/// A resource that prepared nothing executes nothing.
fn not_prepared() -> Ended {
    let detail = "nothing was prepared".to_owned();
    Ended::NotSent { reason: Reason::TargetMoved, detail }
}
