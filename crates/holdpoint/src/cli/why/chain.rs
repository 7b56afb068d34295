//! Gathers everything that the store knows about one action. Must not judge or format it.

use super::approval::Asked;
use super::reverts::{Reverted, TakesBack};
use holdpoint_ledger::{open_checkpoint, verify_inclusion};
use holdpoint_server::store::{RecordQuery, Store, StoredRecord};
use holdpoint_types::{
    ActionId, ActionRecord, AskedRecord, CheckDue, CheckRecord, DecisionRecord, Digest, Field,
    GatewayId, GuardRecord, Lineage, OutcomeRecord, PlanFacts, PlanFit, PlanLooked, RecordBody,
    RepliedRecord, Ruling, Timestamp,
};

/// How many records are read at a time.
const PAGE: u32 = 50;

/// Everything about one action.
#[derive(Debug)]
pub struct Chain {
    /// Its decision.
    pub decision: Said<DecisionRecord>,
    /// Its outcome, if it has one.
    pub outcome: Option<Said<OutcomeRecord>>,
    /// Where it stands.
    pub state: State,
    /// The approval that it asked for or was made with.
    pub approval: Option<Asked>,
    /// The attempts to take it back, in order.
    pub reverts: Vec<Reverted>,
    /// What it was to take back itself.
    pub takes_back: Option<TakesBack>,
    /// What its server asked the agent meanwhile, with what came back, in order.
    pub questions: Vec<Question>,
    /// The checks after it that were made, in order.
    pub checks: Vec<Said<CheckRecord>>,
    /// The checks after it that are still to be made, in order.
    pub due: Vec<CheckDue>,
    /// What was found after the step of a plan that it is a call of, if that is recorded.
    pub looked: Option<PlanLooked>,
    /// The names of the files of the policy set that decided, if the ledger knows it.
    pub policy_files: Option<Vec<String>>,
    /// The guard sets that had a voice.
    pub guards: Vec<GuardSaid>,
    /// Its records, each with its proof.
    pub records: Vec<Proved>,
}

/// A record about the action, and who wrote it when.
#[derive(Debug)]
pub struct Said<T> {
    /// When.
    pub at: Timestamp,
    /// Which process.
    pub gateway: GatewayId,
    /// What.
    pub record: ActionRecord<T>,
}

/// A guard set that had a voice.
#[derive(Debug)]
pub struct GuardSaid {
    /// Its name.
    pub name: String,
    /// Its digest.
    pub digest: Digest,
    /// What it was signed with, if the ledger knows the set.
    pub record: Option<GuardRecord>,
}

/// A question of the action's server.
#[derive(Debug)]
pub struct Question {
    /// The position of its record.
    pub seq: u64,
    /// What was asked.
    pub asked: AskedRecord,
    /// What came back, if anything did.
    pub replied: Option<RepliedRecord>,
}

/// Where an action stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It was not permitted, so it never ran.
    Refused,
    /// It was permitted, and its process still governs.
    Running,
    /// It was permitted, its process is gone, and nobody recorded what came of it.
    InDoubt,
    /// It has an outcome.
    Ended,
}

/// A record and what proves that it is in the log.
#[derive(Debug)]
pub struct Proved {
    /// Its position.
    pub seq: u64,
    /// Its kind.
    pub kind: &'static str,
    /// Its leaf hash.
    pub leaf: Digest,
    /// The signed log that it is in, or why that is not proved.
    pub proof: Result<Signed, String>,
}

/// The head of a log that a checkpoint signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// How many records it has.
    pub size: u64,
    /// Its root.
    pub root: Digest,
}

// === impl Chain ===

impl Chain {
    /// The eight fields as they stand last, with the findings of every check.
    pub fn lineage(&self) -> Lineage {
        let last = match &self.outcome {
            Some(outcome) => &outcome.record.lineage,
            None => &self.decision.record.lineage,
        };
        let mut lineage = last.clone();
        let found =
            self.checks.iter().filter_map(|check| match &check.record.lineage.post_validation {
                Field::Present(findings) => Some(findings.clone()),
                Field::Absent(_) => None,
            });
        let found: Vec<_> = found.flatten().collect();
        if !found.is_empty() {
            lineage.post_validation = Field::Present(found);
        }
        lineage
    }

    /// The digest of the policy set that decided.
    pub fn policy(&self) -> Option<Digest> {
        match self.decision.record.lineage.policy_version {
            Field::Present(digest) => Some(digest),
            Field::Absent(_) => None,
        }
    }
}

// === impl State ===

impl State {
    /// The stable word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Running => "running",
            Self::InDoubt => "in_doubt",
            Self::Ended => "ended",
        }
    }
}

/// Gathers the chain; none if the log has no decision about `action`.
///
/// # Errors
/// When the store cannot be read.
pub fn gather(store: &Store, action: ActionId) -> anyhow::Result<Option<Chain>> {
    let mut decision = None;
    let mut outcome = None;
    let mut questions = Vec::new();
    let mut checks = Vec::new();
    let mut reverts = Vec::new();
    let mut records = Vec::new();
    for stored in store.of_action(action)? {
        records.push(prove(store, &stored)?);
        let (at, gateway) = (stored.record.at_ms, stored.record.gateway);
        match stored.record.body {
            RecordBody::Decision(record) => decision = Some(Said { at, gateway, record: *record }),
            RecordBody::Outcome(record) => outcome = Some(Said { at, gateway, record: *record }),
            RecordBody::Checked(record) => checks.push(Said { at, gateway, record: *record }),
            RecordBody::Asked(asked) => {
                questions.push(Question { seq: stored.seq, asked: *asked, replied: None });
            }
            RecordBody::Replied(replied) => reply_to(&mut questions, *replied),
            RecordBody::Reverted(record) => reverts.push(Reverted { at, record: *record }),
            _ => {}
        }
    }
    let Some(decision) = decision else { return Ok(None) };
    let state = match (&outcome, decision.record.more.decision.ruling()) {
        (Some(_), _) => State::Ended,
        (None, Ruling::Permit) if store.in_doubt()?.contains(&action) => State::InDoubt,
        (None, Ruling::Permit) => State::Running,
        (None, _) => State::Refused,
    };
    let open = store.open_checks()?.into_iter().filter(|row| row.action == action);
    let due = open.map(|row| row.due).collect();
    let policy_files = match decision.record.lineage.policy_version {
        Field::Present(policy) => policy_loaded(store, policy)?.map(|(files, _)| files),
        Field::Absent(_) => None,
    };
    let guards = guards(store, &decision.record.more)?;
    Ok(Some(Chain {
        approval: Asked::gather(store, &decision)?,
        takes_back: TakesBack::gather(store, &decision.record)?,
        looked: looked_after(store, &decision.record)?,
        decision,
        outcome,
        state,
        reverts,
        questions,
        checks,
        due,
        policy_files,
        guards,
        records,
    }))
}

/// What was found after the step of a plan that the action is a call of.
fn looked_after(
    store: &Store,
    record: &ActionRecord<DecisionRecord>,
) -> anyhow::Result<Option<PlanLooked>> {
    let Some(PlanFacts { plan, fit: PlanFit::Step { step, .. }, .. }) = &record.more.facts.plan
    else {
        return Ok(None);
    };
    let Some(row) = store.plan(*plan)? else { return Ok(None) };
    let is_call = row.calls.iter().any(|call| call.action == record.action);
    Ok(row.looks.into_iter().find(|looked| is_call && looked.step == *step))
}

pub(super) fn reply_to(questions: &mut [Question], replied: RepliedRecord) {
    if let Some(question) = questions.iter_mut().find(|one| one.seq == replied.asked) {
        question.replied = Some(replied);
    }
}

fn prove(store: &Store, stored: &StoredRecord) -> anyhow::Result<Proved> {
    let proof = match store.inclusion(stored.seq)? {
        None => Err("no checkpoint covers it yet".to_owned()),
        Some(inclusion) => match open_checkpoint(&inclusion.note, store.verifier()) {
            Err(fault) => Err(fault.to_string()),
            Ok(head) => {
                let place = (stored.seq, head.size);
                // The leaf of the record that is shown, not the one that the proof comes with.
                verify_inclusion(stored.leaf, place, &inclusion.proof, head.root)
                    .map(|()| Signed { size: head.size, root: head.root })
                    .map_err(|fault| fault.to_string())
            }
        },
    };
    Ok(Proved { seq: stored.seq, kind: stored.record.body.kind(), leaf: stored.leaf, proof })
}

fn guards(store: &Store, decision: &DecisionRecord) -> anyhow::Result<Vec<GuardSaid>> {
    let each = decision.guards.iter().map(|(name, digest)| {
        let loaded = policy_loaded(store, *digest)?;
        let record = loaded.and_then(|(_, guard)| guard).map(|guard| *guard);
        Ok(GuardSaid { name: name.clone(), digest: *digest, record })
    });
    each.collect()
}

/// The names of a policy set's files, and what it was signed with.
type Loaded = (Vec<String>, Option<Box<GuardRecord>>);

/// What the ledger knows of a policy set.
fn policy_loaded(store: &Store, wanted: Digest) -> anyhow::Result<Option<Loaded>> {
    let kind = Some("policy_loaded".to_owned());
    let mut query = RecordQuery { kind, limit: PAGE, ..RecordQuery::default() };
    loop {
        let records = store.records(&query)?;
        let Some(last) = records.last() else { return Ok(None) };
        query.after_seq = Some(last.seq);
        for stored in records {
            match stored.record.body {
                RecordBody::PolicyLoaded { policy, sources, guard } if policy == wanted => {
                    let files = sources.into_iter().map(|source| source.name).collect();
                    return Ok(Some((files, guard)));
                }
                _ => {}
            }
        }
    }
}
