//! What a step expects, as it is written, and the checks of that. Must not know what steps are.

use crate::demo::scenario::{Expectation, PreviewExpectation};
use holdpoint_types::{ChangeCounts, FindingResult, OutcomeStatus, Reason, RevertStatus, Ruling};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What any kind of step may expect; which keys fit is checked with the step.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawExpectation {
    ruling: Option<Ruling>,
    reasons: Option<BTreeSet<Reason>>,
    rules: Option<BTreeSet<String>>,
    outcome: Option<OutcomeStatus>,
    outcome_reason: Option<Reason>,
    output: Option<String>,
    checks: Option<BTreeMap<String, FindingResult>>,
    preview: Option<PreviewExpectation>,
    state: Option<String>,
    status: Option<RevertStatus>,
    restored: Option<RawCounts>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCounts {
    #[serde(default)]
    created: u64,
    #[serde(default)]
    updated: u64,
    #[serde(default)]
    deleted: u64,
}

// === impl RawExpectation ===

impl RawExpectation {
    fn has_only(&self, keys: &[&str], kind: &str) -> Result<(), String> {
        let written = [
            ("ruling", self.ruling.is_some()),
            ("reasons", self.reasons.is_some()),
            ("rules", self.rules.is_some()),
            ("outcome", self.outcome.is_some()),
            ("outcome_reason", self.outcome_reason.is_some()),
            ("output", self.output.is_some()),
            ("checks", self.checks.is_some()),
            ("preview", self.preview.is_some()),
            ("state", self.state.is_some()),
            ("status", self.status.is_some()),
            ("restored", self.restored.is_some()),
        ];
        let astray = written.iter().find(|(key, there)| *there && !keys.contains(key));
        astray.map_or(Ok(()), |(key, _)| Err(format!("`{key}` is nothing to expect of {kind}")))
    }

    /// What is expected of a call.
    pub fn of_call(self) -> Result<Expectation, String> {
        let keys = ["ruling", "reasons", "rules", "outcome", "outcome_reason", "output", "checks"];
        self.has_only(&[&keys[..], &["preview"]].concat(), "a call")?;
        let expect = Expectation {
            ruling: self.ruling.ok_or("expect the `ruling` of the call")?,
            reasons: self.reasons.unwrap_or_default(),
            rules: self.rules.unwrap_or_default(),
            outcome: self.outcome,
            outcome_reason: self.outcome_reason,
            output: self.output,
            checks: self.checks.unwrap_or_default(),
            preview: self.preview,
        };
        check_expectation(&expect)?;
        check_shows(&expect)?;
        Ok(expect)
    }

    /// How something that people answer must stand then: one of the words of its kind.
    pub fn state<T: DeserializeOwned>(&self, kind: &str) -> Result<T, String> {
        self.has_only(&["state"], kind)?;
        let state = self.state.clone().ok_or_else(|| format!("expect the `state` of {kind}"))?;
        let state = serde_json::from_value(Value::String(state));
        state.map_err(|fault| format!("`state` of {kind}: {fault}"))
    }

    /// How a revert must end, and how much it must put back.
    pub fn of_revert(&self) -> Result<(RevertStatus, ChangeCounts), String> {
        self.has_only(&["status", "restored"], "a revert")?;
        let status = self.status.ok_or("expect the `status` of the revert: `restored` …")?;
        let restored = self.restored.as_ref().ok_or("expect how much is `restored`")?;
        let RawCounts { created, updated, deleted } = *restored;
        Ok((status, ChangeCounts { created, updated, deleted }))
    }
}

// === functions ===

fn check_expectation(expect: &Expectation) -> Result<(), String> {
    let ends = expect.outcome.is_some() || expect.outcome_reason.is_some();
    if expect.ruling != Ruling::Permit && (ends || expect.output.is_some()) {
        let ruling = expect.ruling;
        return Err(format!("`{ruling}` runs nothing, so expect no `outcome` or `output`"));
    }
    if expect.ruling != Ruling::Permit && expect.reasons.is_empty() {
        return Err(format!("say by which `reasons` the call gets `{}`", expect.ruling));
    }
    Ok(())
}

/// A preview is kept for people where somebody is to decide.
fn check_shows(expect: &Expectation) -> Result<(), String> {
    let shows = expect.preview.as_ref().is_some_and(|preview| !preview.shows.is_empty());
    match (shows, expect.ruling) {
        (true, Ruling::Permit | Ruling::Deny | Ruling::Halt) => {
            Err(format!("nobody reads a preview of what gets `{}`: no `shows`", expect.ruling))
        }
        _ => Ok(()),
    }
}
