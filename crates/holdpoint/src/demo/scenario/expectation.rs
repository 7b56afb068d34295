//! What a step must come to, and how that differs from what it came to.
//!
//! Must not know how a scenario is written or played.

use holdpoint_types::{
    ChangeCounts, Decision, FindingResult, OutcomeStatus, PreviewFacts, Reason, Reversibility,
    Ruling,
};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// What must become of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The ruling, exactly.
    pub ruling: Ruling,
    /// Reasons that must be among the deciding causes.
    pub reasons: BTreeSet<Reason>,
    /// Rules that must be among the deciding causes.
    pub rules: BTreeSet<String>,
    /// How a permitted call must end; any end will do if absent.
    pub outcome: Option<OutcomeStatus>,
    /// Why a permitted call must end so.
    pub outcome_reason: Option<Reason>,
    /// What the answer's text must hold.
    pub output: Option<String>,
    /// What these validators must find afterwards.
    pub checks: BTreeMap<String, FindingResult>,
    /// What must be seen before it is done.
    pub preview: Option<PreviewExpectation>,
}

/// What must be seen before a call is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreviewExpectation {
    /// How many things are made.
    #[serde(default)]
    pub created: u64,
    /// How many are changed.
    #[serde(default)]
    pub updated: u64,
    /// How many are deleted.
    #[serde(default)]
    pub deleted: u64,
    /// Whether nothing else would happen; either will do if absent.
    pub exact: Option<bool>,
    /// How well it can be taken back; any way will do if absent.
    pub guarantee: Option<Reversibility>,
    /// What people must read in it.
    #[serde(default)]
    pub shows: Vec<String>,
}

/// What was seen before a call, for comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Showing {
    /// What the decision looked at.
    pub facts: PreviewFacts,
    /// What people get to read.
    pub text: String,
}

/// How a permitted call ended, for comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending<'a> {
    /// How it ended.
    pub outcome: OutcomeStatus,
    /// Why, if it did not simply answer.
    pub reason: Option<Reason>,
    /// The text of the answer.
    pub output: &'a str,
}

// === impl Expectation ===

impl Expectation {
    /// Every way in which the decision differs from what was expected; empty is good.
    pub fn unmet_by(&self, decision: &Decision) -> Vec<String> {
        let mut unmet = Vec::new();
        if decision.ruling() != self.ruling {
            unmet.push(format!("expected `{}`, not `{}`", self.ruling, decision.ruling()));
        }
        let reasons: BTreeSet<Reason> = decision.deciding().map(|cause| cause.reason).collect();
        for reason in self.reasons.difference(&reasons) {
            unmet.push(format!("expected reason `{reason}`"));
        }
        let rules: BTreeSet<&str> =
            decision.deciding().filter_map(|cause| cause.rule.as_deref()).collect();
        for rule in self.rules.iter().filter(|rule| !rules.contains(rule.as_str())) {
            unmet.push(format!("expected rule `{rule}`"));
        }
        unmet
    }

    /// Every way in which the end differs from what was expected; empty is good. `None` is a call
    /// that never ran.
    pub fn unmet_by_end(&self, end: Option<Ending<'_>>) -> Vec<String> {
        let mut unmet = Vec::new();
        let ran = self.ruling == Ruling::Permit;
        if ran != end.is_some() {
            unmet.push(format!("expected that it {}", if ran { "runs" } else { "never runs" }));
        }
        let Some(end) = end else { return unmet };
        if let Some(outcome) = self.outcome.filter(|outcome| *outcome != end.outcome) {
            let found = end.outcome.as_str();
            unmet.push(format!("expected outcome `{}`, not `{found}`", outcome.as_str()));
        }
        if let Some(reason) = self.outcome_reason.filter(|reason| Some(*reason) != end.reason) {
            unmet.push(format!("expected that it ends by `{reason}`"));
        }
        if let Some(text) = self.output.as_ref().filter(|text| !end.output.contains(*text)) {
            unmet.push(format!("expected `{text}` in the answer"));
        }
        unmet
    }

    /// Every way in which checks afterwards differ from what was expected; empty is good.
    pub fn unmet_by_checks(&self, found: &BTreeMap<String, FindingResult>) -> Vec<String> {
        let differs = self.checks.iter().filter(|(name, result)| found.get(*name) != Some(result));
        let told = differs.map(|(name, result)| {
            let found = found.get(name).map_or("nothing", |found| found.as_str());
            format!("expected check `{name}` to find `{}`, not `{found}`", result.as_str())
        });
        told.collect()
    }
}

// === impl PreviewExpectation ===

impl PreviewExpectation {
    /// Every way in which what was seen before differs from what was expected; empty is good.
    pub fn unmet_by(&self, seen: Option<&Showing>) -> Vec<String> {
        let Some(seen) = seen else {
            return vec!["expected that it is seen before, and it was not".to_owned()];
        };
        let (facts, mut unmet) = (&seen.facts, Vec::new());
        let Self { created, updated, deleted, .. } = *self;
        let counts = ChangeCounts { created, updated, deleted };
        if facts.counts != counts {
            let (wanted, found) = (counted(counts), counted(facts.counts));
            unmet.push(format!("expected a preview that says {wanted}, not {found}"));
        }
        if let Some(exact) = self.exact.filter(|exact| *exact != facts.exact) {
            let wanted = if exact { "exact" } else { "not exact" };
            unmet.push(format!("expected a preview that is {wanted}"));
        }
        if let Some(wanted) = self.guarantee.filter(|wanted| *wanted != facts.guarantee) {
            let (wanted, found) = (wanted.as_str(), facts.guarantee.as_str());
            unmet.push(format!("expected the guarantee `{wanted}`, not `{found}`"));
        }
        for text in self.shows.iter().filter(|text| !seen.text.contains(*text)) {
            unmet.push(format!("expected `{text}` in the preview"));
        }
        unmet
    }
}

// === functions ===

/// Counts in words.
pub fn counted(counts: ChangeCounts) -> String {
    let ChangeCounts { created, updated, deleted } = counts;
    let all = [(created, "made"), (updated, "changed"), (deleted, "deleted")];
    let some = all.iter().filter(|(count, _)| *count > 0);
    let words: Vec<_> = some.map(|(count, what)| format!("{count} {what}")).collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}
