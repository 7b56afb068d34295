//! What becomes of plans: each change and its records are one transaction. Must not decide who may
//! change what.

use super::{Line, OnProposal, PlanRuling, Proposed, id_of, lines, one, unexpected};
use crate::store::batch::Batch;
use crate::store::fault::StoreFault;
use holdpoint_types::{
    AgentName, Plan, PlanEnd, PlanEnded, PlanId, PlanLooked, PlanProposed, PlanRuled, PlanState,
    RecordBody, Timestamp,
};
use rusqlite::{Connection, params};

/// Most plans of one agent that are proposed or in force at one time.
const OPEN_MAX: u64 = 16;
/// Who accepts and refuses by notes alone.
pub const PLAN_CHECKER: &str = "checker";

/// The plans of `agent` that are proposed or in force.
pub(super) fn open(
    connection: &Connection,
    agent: &AgentName,
) -> Result<Vec<(String, Line)>, StoreFault> {
    let of_agent = "WHERE agent = ?1 AND state IN ('proposed', 'accepted')";
    lines(connection, of_agent, params![agent.as_str()])
}

/// Why `plan` cannot be taken in beside those that are `open`, if it cannot.
pub(super) fn bar(
    open: &[(String, Line)],
    plan: &Plan,
    then: OnProposal,
) -> Result<Option<Proposed>, StoreFault> {
    let (task, parent) = (plan.task.to_string(), plan.basis.parent);
    let revised = |(found, line): &(String, Line)| is_parent(parent, found) && line.task == task;
    if parent.is_some() && !open.iter().any(revised) {
        return Ok(Some(Proposed::ParentClosed));
    }
    if then == OnProposal::Refuse {
        return Ok(None);
    }
    let others = open.iter().filter(|(found, _)| !is_parent(parent, found));
    if others.clone().count() as u64 >= OPEN_MAX {
        return Ok(Some(Proposed::TooMany(OPEN_MAX)));
    }
    let mut of_task = others.filter(|(_, line)| line.task == task);
    of_task.next().map(|(other, _)| Ok(Proposed::TaskTaken(id_of(other)?))).transpose()
}

fn is_parent(parent: Option<PlanId>, found: &str) -> bool {
    parent.is_some_and(|parent| parent.to_string() == found)
}

/// Proposes a plan, and rules about it at once if that is wanted.
pub(super) fn propose(
    batch: &mut Batch<'_>,
    proposed: PlanProposed,
    then: OnProposal,
    at: Timestamp,
) -> Result<Proposed, StoreFault> {
    let at = batch.written_at(at);
    let (id, agent) = (proposed.plan.id, proposed.plan.agent.clone());
    let parent = proposed.plan.basis.parent;
    let open = open(batch.txn(), &agent)?;
    if let Some(bar) = bar(&open, &proposed.plan, then)? {
        return Ok(bar);
    }
    let waits = open.iter().any(|(found, line)| {
        is_parent(parent, found) && line.state == PlanState::Proposed.as_str()
    });
    batch.write(RecordBody::PlanProposed(Box::new(proposed)), at)?;
    let ruled = |reason: &str| PlanRuled {
        plan: id,
        agent: agent.clone(),
        by: PLAN_CHECKER.to_owned(),
        reason: reason.to_owned(),
    };
    match then {
        OnProposal::Refuse => {
            batch.write(RecordBody::PlanRefused(ruled("a note blocks it")), at)?;
        }
        OnProposal::Accept => {
            revised(batch, (parent, &agent), id, at)?;
            batch.write(RecordBody::PlanAccepted(ruled("no note blocks it")), at)?;
        }
        // What nobody has accepted yet need not stay until its revision is.
        OnProposal::Wait if waits => revised(batch, (parent, &agent), id, at)?,
        OnProposal::Wait => {}
    }
    Ok(Proposed::Recorded)
}

/// Accepts or refuses a plan that waits.
pub(super) fn rule(
    batch: &mut Batch<'_>,
    (id, then): (PlanId, OnProposal),
    (by, reason): (String, String),
    at: Timestamp,
) -> Result<PlanRuling, StoreFault> {
    let at = batch.written_at(at);
    let Some((_, line)) = one(batch.txn(), id)? else { return Ok(PlanRuling::Unknown) };
    let state = line.state()?;
    if state != PlanState::Proposed {
        return Ok(PlanRuling::NotWaiting(state));
    }
    let agent: AgentName = line.agent.parse().map_err(|_| unexpected(&line.agent))?;
    let ended = |end, detail: &str| PlanEnded {
        plan: id,
        agent: agent.clone(),
        end,
        detail: detail.to_owned(),
    };
    if line.expires_ms <= at.0 {
        let body = ended(PlanEnd::Expired, "nobody accepted it in time");
        batch.write(RecordBody::PlanEnded(body), at)?;
        return Ok(PlanRuling::NotWaiting(PlanState::Ended(PlanEnd::Expired)));
    }
    let parent = line.parent.as_deref().map(id_of).transpose()?;
    let ruled = PlanRuled { plan: id, agent: agent.clone(), by, reason };
    match then {
        OnProposal::Wait => {}
        OnProposal::Refuse => {
            batch.write(RecordBody::PlanRefused(ruled), at)?;
        }
        OnProposal::Accept => {
            // Another revision of the same plan may have been accepted meanwhile.
            let other = lines(
                batch.txn(),
                "WHERE agent = ?1 AND task = ?2 AND state = 'accepted'",
                params![line.agent, line.task],
            )?;
            if other.iter().any(|(other, _)| Some(other) != line.parent.as_ref()) {
                let body = ended(PlanEnd::Void, "another plan of its task was accepted before");
                batch.write(RecordBody::PlanEnded(body), at)?;
                return Ok(PlanRuling::NotWaiting(PlanState::Ended(PlanEnd::Void)));
            }
            revised(batch, (parent, &agent), id, at)?;
            batch.write(RecordBody::PlanAccepted(ruled), at)?;
        }
    }
    Ok(PlanRuling::Recorded)
}

/// Ends a plan that is open; nothing is recorded if it is not.
pub(super) fn end(
    batch: &mut Batch<'_>,
    id: PlanId,
    (end, detail): (PlanEnd, String),
    at: Timestamp,
) -> Result<bool, StoreFault> {
    let at = batch.written_at(at);
    let Some((_, line)) = one(batch.txn(), id)? else { return Ok(false) };
    if !line.state()?.is_open() {
        return Ok(false);
    }
    let agent = line.agent.parse().map_err(|_| unexpected(&line.agent))?;
    let body = PlanEnded { plan: id, agent, end, detail };
    batch.write(RecordBody::PlanEnded(body), at).map(|_| true)
}

/// Records what was found of the conditions after a step, if the plan is as far as `version` still.
pub(super) fn looked(
    batch: &mut Batch<'_>,
    looked: PlanLooked,
    version: u64,
    at: Timestamp,
) -> Result<bool, StoreFault> {
    let at = batch.written_at(at);
    let Some((_, line)) = one(batch.txn(), looked.plan)? else { return Ok(false) };
    if line.version != version || line.state()? != PlanState::Accepted {
        return Ok(false);
    }
    batch.write(RecordBody::PlanLooked(looked), at).map(|_| true)
}

fn revised(
    batch: &mut Batch<'_>,
    (parent, agent): (Option<PlanId>, &AgentName),
    by: PlanId,
    at: Timestamp,
) -> Result<(), StoreFault> {
    let Some(parent) = parent else { return Ok(()) };
    let Some((_, line)) = one(batch.txn(), parent)? else { return Ok(()) };
    if !line.state()?.is_open() {
        return Ok(());
    }
    let (end, detail) = (PlanEnd::Revised, format!("{by} is in its place"));
    let body = PlanEnded { plan: parent, agent: agent.clone(), end, detail };
    batch.write(RecordBody::PlanEnded(body), at).map(|_| ())
}
