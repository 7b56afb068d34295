//! Classes of calls that people approve again and again: the same agent's calls of one tool with
//! the same effects on the same resources, whose previews are exact and of one kind. Must not count
//! what did not run, nor a class of which somebody said no or took one back.

use super::left_out::{LeftOut, Why};
use crate::cli::why::{Word, used_by, words};
use holdpoint_policy::Shape;
use holdpoint_server::store::Store;
use holdpoint_types::{
    ActionId, ActionRecord, ChangeCounts, DecisionRecord, Digest, Door, Field, Finding,
    OutcomeStatus, Reason, RecordBody, Ruling, Timestamp, canonical_digest,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Over how many days approvals count.
pub const DAYS: i64 = 30;
/// How many approvals of one class make a rule.
pub const APPROVALS_MIN: usize = 3;

/// A class, and the approvals of it that ran.
#[derive(Debug)]
pub struct Class {
    /// What it is; stable.
    pub digest: Digest,
    /// What its calls have in common, with the most that any of them changed.
    pub shape: Shape,
    /// Digest of the tool's definition.
    pub definition: Option<Digest>,
    /// The approvals, oldest first.
    pub given: Vec<Given>,
    /// The decision that asked for the newest.
    pub newest: DecisionRecord,
}

/// An approval whose call ran and succeeded.
#[derive(Debug)]
pub struct Given {
    /// Its id.
    pub approval: ActionId,
    /// The action that was made with it.
    pub action: ActionId,
    /// What was said to it.
    pub words: Vec<Word>,
}

/// What people said in the last days, by class.
#[derive(Debug, Default)]
struct Spoken {
    /// The approvals that somebody said yes to.
    yes: BTreeMap<Digest, Yes>,
    /// The classes of which somebody said no, or took one back.
    spoiled: BTreeMap<Digest, Why>,
}

/// What somebody said yes to, in a class.
#[derive(Debug)]
struct Yes {
    shape: Shape,
    approvals: BTreeSet<ActionId>,
}

// === impl Spoken ===

impl Spoken {
    fn gather(store: &Store, now: Timestamp) -> anyhow::Result<Self> {
        let since = now.0.saturating_sub(DAYS.saturating_mul(24 * 3_600_000));
        let mut all = Self::default();
        for stored in store.of_people(Timestamp(since))? {
            let (action, spoils) = match stored.record.body {
                RecordBody::Approved(said) => (said.approval, None),
                RecordBody::Disapproved(said) => (said.approval, Some(Why::SaidNo)),
                RecordBody::Reverted(reverted) => (reverted.of, Some(Why::TakenBack)),
                _ => continue,
            };
            let decided = decision(store, action)?;
            let class = decided.and_then(|(decided, _)| class_of(&decided.more));
            match (class, spoils) {
                (Some((class, shape)), None) => {
                    let new = Yes { shape, approvals: BTreeSet::new() };
                    all.yes.entry(class).or_insert(new).approvals.insert(action);
                }
                (Some((class, _)), Some(why)) => {
                    all.spoiled.insert(class, why);
                }
                (None, _) => {}
            }
        }
        Ok(all)
    }
}

// === impl Class ===

impl Class {
    /// What ran well of a class; nothing if a check found fault with one of its calls.
    fn gather(
        store: &Store,
        (digest, approvals): (Digest, &BTreeSet<ActionId>),
    ) -> anyhow::Result<Result<Option<Self>, Why>> {
        let mut class: Option<Self> = None;
        for approval in approvals {
            let Some((decided, at)) = decision(store, *approval)? else { continue };
            let Some((_, shape)) = class_of(&decided.more) else { continue };
            match ran(store, (*approval, &decided.more), at)? {
                Ran::Spoiled => return Ok(Err(Why::FoundFault)),
                Ran::Not => {}
                Ran::Well(action) => {
                    let one =
                        Given { approval: *approval, action, words: words(store, *approval)? };
                    let before = class.take();
                    let mut given = Vec::new();
                    let mut counts = shape.counts;
                    if let Some(before) = before {
                        counts = largest(before.shape.counts, counts);
                        given = before.given;
                    }
                    given.push(one);
                    let definition = decided.more.facts.tool.as_ref().map(|tool| tool.definition);
                    let shape = Shape { counts, ..shape };
                    class = Some(Self { digest, shape, definition, given, newest: decided.more });
                }
            }
        }
        Ok(Ok(class))
    }
}

/// The classes of which enough was approved, ran and succeeded, and those that are left out.
///
/// # Errors
/// When the store cannot be read.
pub fn gather(store: &Store, now: Timestamp) -> anyhow::Result<(Vec<Class>, Vec<LeftOut>)> {
    let spoken = Spoken::gather(store, now)?;
    let (mut classes, mut left_out) = (Vec::new(), Vec::new());
    for (digest, Yes { shape, approvals }) in spoken.yes {
        match enough(store, (digest, &approvals), spoken.spoiled.get(&digest))? {
            Ok(class) => classes.push(class),
            Err(why) => left_out.push(LeftOut { shape, approved: approvals.len(), why }),
        }
    }
    Ok((classes, left_out))
}

/// A class, or why there is not enough of it.
fn enough(
    store: &Store,
    (digest, approvals): (Digest, &BTreeSet<ActionId>),
    spoiled: Option<&Why>,
) -> anyhow::Result<Result<Class, Why>> {
    if let Some(why) = spoiled {
        return Ok(Err(*why));
    }
    if approvals.len() < APPROVALS_MIN {
        return Ok(Err(Why::TooFew));
    }
    Ok(match Class::gather(store, (digest, approvals))? {
        Err(why) => Err(why),
        Ok(Some(class)) if class.given.len() >= APPROVALS_MIN => Ok(class),
        Ok(class) => Err(Why::TooFewRan { ran: class.map_or(0, |class| class.given.len()) }),
    })
}

/// How many calls of the class that `approval` belongs to were approved before it, ran and
/// succeeded; none if no rule can speak about that class.
///
/// # Errors
/// When the store cannot be read.
pub fn given_before(
    store: &Store,
    (approval, now): (ActionId, Timestamp),
) -> anyhow::Result<usize> {
    let Some((decided, _)) = decision(store, approval)? else { return Ok(0) };
    let Some((class, _)) = class_of(&decided.more) else { return Ok(0) };
    let by_policy = |reason: Reason| reason == Reason::PolicyHolds;
    if !decided.more.decision.deciding().all(|cause| by_policy(cause.reason)) {
        return Ok(0);
    }
    let mut spoken = Spoken::gather(store, now)?;
    let Some(yes) = spoken.yes.get_mut(&class) else { return Ok(0) };
    if spoken.spoiled.contains_key(&class) {
        return Ok(0);
    }
    yes.approvals.remove(&approval);
    let class = Class::gather(store, (class, &yes.approvals))?;
    Ok(class.ok().flatten().map_or(0, |class| class.given.len()))
}

/// What became of an approved call.
enum Ran {
    /// It was not made, or not well.
    Not,
    /// Whoever looked afterwards found fault.
    Spoiled,
    /// It was made by this action, and succeeded.
    Well(ActionId),
}

fn ran(
    store: &Store,
    (approval, decided): (ActionId, &DecisionRecord),
    at: Timestamp,
) -> anyhow::Result<Ran> {
    let Some(asked) = decided.approval.as_ref().filter(|asked| asked.id == approval) else {
        return Ok(Ran::Not);
    };
    let Some(action) = used_by(store, asked, (&decided.request, at))? else {
        return Ok(Ran::Not);
    };
    let mut became = Ran::Not;
    for stored in store.of_action(action)? {
        match stored.record.body {
            RecordBody::Outcome(ended) if ended.more.status == OutcomeStatus::Succeeded => {
                became = Ran::Well(action);
            }
            RecordBody::Checked(checked) => {
                if let Field::Present(findings) = &checked.lineage.post_validation
                    && findings.iter().any(|finding: &Finding| finding.cause().is_some())
                {
                    return Ok(Ran::Spoiled);
                }
            }
            _ => {}
        }
    }
    Ok(became)
}

fn largest(one: ChangeCounts, other: ChangeCounts) -> ChangeCounts {
    ChangeCounts {
        created: one.created.max(other.created),
        updated: one.updated.max(other.updated),
        deleted: one.deleted.max(other.deleted),
    }
}

/// The class of a call, if its preview says exactly what would happen. What an operator takes back
/// is of none.
fn class_of(decided: &DecisionRecord) -> Option<(Digest, Shape)> {
    let DecisionRecord { request, facts, decision, .. } = decided;
    // What was denied by a rule was no question to people.
    if request.door == Door::Operator || decision.ruling() >= Ruling::Deny {
        return None;
    }
    let shape = Shape::of(request, facts)?;
    let ChangeCounts { created, updated, deleted } = shape.counts;
    let class = json!({
        "agent": shape.agent,
        "tool": shape.tool,
        "definition": facts.tool.as_ref().map(|tool| tool.definition),
        "aims": aims(&shape),
        "kinds": [created > 0, updated > 0, deleted > 0],
        "guarantee": shape.guarantee,
        "disclosure": shape.disclosure,
    });
    Some((canonical_digest(&class).ok()?, shape))
}

/// What calls of a shape do, for programs.
pub fn aims(shape: &Shape) -> Vec<Value> {
    let aim = |aim: &holdpoint_policy::ShapeAim| {
        json!({
            "class": aim.class, "resource": aim.resource, "environment": aim.environment,
            "verb": aim.verb, "extent": aim.extent,
        })
    };
    shape.aims.iter().map(aim).collect()
}

/// The decision about an action, and when it was made.
fn decision(
    store: &Store,
    action: ActionId,
) -> anyhow::Result<Option<(ActionRecord<DecisionRecord>, Timestamp)>> {
    let records = store.of_action(action)?;
    Ok(records.into_iter().find_map(|stored| match stored.record.body {
        RecordBody::Decision(decided) => Some((*decided, stored.record.at_ms)),
        _ => None,
    }))
}
