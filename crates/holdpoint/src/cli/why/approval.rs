//! The approval that an action asked for or was made with: what people said to it, and what came of
//! it. Must not know who may say what.

use super::chain::Said;
use crate::cli::approvals::{missing, tone};
use crate::cli::look::{Look, SHORT_CHARS_MAX, Tone, escaped, shortened};
use crate::cli::tree::Branch;
use holdpoint_server::store::{ApprovalRow, RecordQuery, Store};
use holdpoint_server::wire::ApprovalState;
use holdpoint_types::{
    ActionId, ApprovalAsked, ApprovalDenied, ApprovalFacts, ApprovalRecord, DecisionRecord, Epoch,
    RecordBody, Request, Ruling, Timestamp,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How many records are read at a time.
const PAGE: u32 = 500;

/// An approval and its story.
#[derive(Debug)]
pub struct Asked {
    /// How it stands.
    pub row: ApprovalRow,
    /// The epoch now.
    pub epoch: Epoch,
    /// What people said, in order.
    pub words: Vec<Word>,
    /// The action that was made with it.
    pub used_by: Option<ActionId>,
}

/// What somebody said.
#[derive(Debug)]
pub struct Word {
    /// When.
    pub at: Timestamp,
    /// What.
    pub said: ApprovalRecord,
}

// === impl Asked ===

impl Asked {
    /// The approval that the action asked for or was made with.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn gather(store: &Store, decided: &Said<DecisionRecord>) -> anyhow::Result<Option<Self>> {
        let Some(asked) = asked_of(&decided.record.more) else { return Ok(None) };
        let used_by = match decided.record.more.decision.ruling() {
            Ruling::Permit => Some(decided.record.action),
            Ruling::PlanOnly | Ruling::Hold | Ruling::Deny | Ruling::Halt => {
                used_by(store, asked, (&decided.record.more.request, decided.at))?
            }
        };
        let words = words(store, asked.id)?;
        Ok(Some(Self::new(decided, (asked, words), used_by, store.control()?.epoch)))
    }

    pub(super) fn new(
        decided: &Said<DecisionRecord>,
        (asked, words): (&ApprovalAsked, Vec<Word>),
        used_by: Option<ActionId>,
        epoch: Epoch,
    ) -> Self {
        let more = &decided.record.more;
        let row = ApprovalRow {
            facts: facts(asked, &words),
            agent: decided.record.agent.clone(),
            owner: more.facts.agent.as_ref().and_then(|agent| agent.owner.clone()),
            tool: more.request.tool.clone(),
            epoch: more.facts.epoch,
            asked_ms: decided.at,
        };
        Self { row, epoch, words, used_by }
    }

    fn state(&self, now: Timestamp) -> (Tone, &'static str) {
        if self.used_by.is_some() {
            return (Tone::Good, "used");
        }
        let state = ApprovalState::of(&self.row, self.epoch, now);
        (tone(state), state.as_str())
    }

    /// True if somebody can still decide it.
    pub fn waits(&self, now: Timestamp) -> bool {
        self.used_by.is_none()
            && ApprovalState::of(&self.row, self.epoch, now) == ApprovalState::Waits
    }

    /// For people.
    pub fn branch(&self, look: &Look) -> Branch {
        let ApprovalAsked { id, needs, expires_ms, requester, binding, instead_of } =
            &self.row.facts.asked;
        let (tone, state) = self.state(look.now);
        let needs: Vec<_> = needs.iter().map(|(name, count)| needed(name, *count)).collect();
        let mut under = vec![
            Branch::new("needs", escaped(&needs.join(", "))),
            Branch::new("until", look.time_and_age(*expires_ms)),
            Branch::new("bound to", binding.to_string()),
        ];
        if let Some(requester) = requester {
            under.push(Branch::new("asked by", requester.to_string()));
        }
        if let Some(before) = instead_of {
            under.push(Branch::new("instead of", format!("{before}, a yes to the call as it was")));
        }
        under.extend(self.words.iter().map(|word| word.branch(look)));
        let missing = missing(&self.row, look.now);
        if state == ApprovalState::Waits.as_str() && !missing.is_empty() {
            under.push(Branch::new("missing", escaped(&missing.join(", "))).toned(Tone::Careful));
        }
        if let Some(action) = self.used_by {
            under.push(Branch::new("used by", action.to_string()));
        }
        Branch::new("approval", format!("{id}, {state}")).toned(tone).with(under)
    }

    /// For programs.
    pub fn to_json(&self, now: Timestamp) -> Value {
        let ApprovalFacts { asked, given, denied } = &self.row.facts;
        json!({
            "id": asked.id,
            "state": self.state(now).1,
            "binding": asked.binding,
            "needs": asked.needs,
            "given": given,
            "denied": denied,
            "requester": asked.requester,
            "instead_of": asked.instead_of,
            "expires_ms": asked.expires_ms,
            "said": self.words.iter().map(Word::to_json).collect::<Vec<_>>(),
            "used_by": self.used_by,
        })
    }
}

// === impl Word ===

impl Word {
    fn is_yes(&self) -> bool {
        !self.said.counts_for.is_empty()
    }

    fn branch(&self, look: &Look) -> Branch {
        let ApprovalRecord { counts_for, by, because, way, .. } = &self.said;
        let names: Vec<_> = counts_for.iter().map(String::as_str).collect();
        let (tone, title, names) = match self.is_yes() {
            true => (Tone::Good, "yes", format!(" as {}", names.join(", "))),
            false => (Tone::Bad, "no", String::new()),
        };
        let because = shortened(because, SHORT_CHARS_MAX);
        let (at, names, way) = (look.time(self.at), escaped(&names), escaped(way));
        Branch::new(title, format!("by {by}{names} at {at} ({way}): {because}")).toned(tone)
    }

    fn to_json(&self) -> Value {
        let ApprovalRecord { counts_for, by, because, way, .. } = &self.said;
        let answer = if self.is_yes() { "yes" } else { "no" };
        json!({
            "at_ms": self.at.0, "answer": answer, "by": by, "because": because, "way": way,
            "counts_for": counts_for,
        })
    }
}

/// What the action asked for or was made with.
pub(super) fn asked_of(decided: &DecisionRecord) -> Option<&ApprovalAsked> {
    let seen = decided.facts.approval.as_ref().map(|seen| &seen.asked);
    decided.approval.as_ref().or(seen)
}

fn needed(name: &str, count: u32) -> String {
    if count == 1 { name.to_owned() } else { format!("{name} ({count} people)") }
}

/// What was said to an approval, in order.
///
/// # Errors
/// When the store cannot be read.
pub fn words(store: &Store, approval: ActionId) -> anyhow::Result<Vec<Word>> {
    let records = store.of_action(approval)?;
    let words = records.into_iter().filter_map(|stored| match stored.record.body {
        RecordBody::Approved(said) | RecordBody::Disapproved(said) => {
            Some(Word { at: stored.record.at_ms, said: *said })
        }
        _ => None,
    });
    Ok(words.collect())
}

fn facts(asked: &ApprovalAsked, words: &[Word]) -> ApprovalFacts {
    let mut facts = ApprovalFacts { asked: asked.clone(), given: BTreeMap::new(), denied: None };
    for Word { said, .. } in words {
        if said.counts_for.is_empty() {
            let (by, because) = (said.by.clone(), said.because.clone());
            facts.denied.get_or_insert(ApprovalDenied { by, because });
        }
        for name in &said.counts_for {
            facts.given.entry(name.clone()).or_default().insert(said.by.clone());
        }
    }
    facts
}

/// The action that was made with the approval, for which `request` asked at `since`: it is the same
/// agent's and tool's, and came before the approval ended.
///
/// # Errors
/// When the store cannot be read.
pub fn used_by(
    store: &Store,
    asked: &ApprovalAsked,
    (request, since): (&Request, Timestamp),
) -> anyhow::Result<Option<ActionId>> {
    let mut query = RecordQuery {
        agent: Some(request.agent.clone()),
        tool: Some(request.tool.clone()),
        ruling: Some(Ruling::Permit),
        kind: Some("decision".to_owned()),
        since: Some(since),
        until: Some(asked.expires_ms),
        limit: PAGE,
        ..RecordQuery::default()
    };
    loop {
        let page = store.records(&query)?;
        let Some(last) = page.last() else { return Ok(None) };
        query.after_seq = Some(last.seq);
        let found = page.into_iter().find_map(|stored| match stored.record.body {
            RecordBody::Decision(made) => {
                let seen = made.more.facts.approval.as_ref()?;
                (seen.asked.id == asked.id).then_some(made.action)
            }
            _ => None,
        });
        if found.is_some() {
            return Ok(found);
        }
    }
}
