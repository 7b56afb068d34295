//! Rulings, causes and decisions: a lattice where joining can only make stricter.
//! Must not know where a cause came from, nor execute anything.

use crate::reason::Reason;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// What may happen to an action, mildest first; joining takes the strictest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ruling {
    /// It runs, once.
    Permit,
    /// It is planned, not executed.
    PlanOnly,
    /// It waits for an approval.
    Hold,
    /// It does not run.
    Deny,
    /// It does not run, and nothing like it does: an operator stopped it.
    Halt,
}

/// One voice in a decision.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cause {
    /// What this voice wants.
    pub ruling: Ruling,
    /// Why, as a stable code.
    pub reason: Reason,
    /// The rule that fired: a policy `@id`, a grant, a stop, a validator.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<String>,
    /// The rule's own words.
    pub text: String,
    /// The approval that would lift a hold, for example `owner`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub approval: Option<String>,
}

/// The join of everything that was said about one action.
///
/// # Invariants
/// A decision without causes denies: silence is not consent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Decision {
    causes: BTreeSet<Cause>,
}

/// What one validator found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingResult {
    /// Nothing to object to.
    Pass,
    /// Worth a look, no reason to deny.
    Warn,
    /// A fault.
    Fail,
    /// Could not tell; counts as a fault.
    Opaque,
}

/// One validator's word about one action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which validator.
    pub validator: String,
    /// What it found.
    pub result: FindingResult,
    /// Why, as a stable code.
    pub reason: Reason,
    /// How bad it is, if it is anything to object to.
    #[serde(skip_serializing_if = "Severity::is_usual", default)]
    pub severity: Severity,
    /// The validator's own stable code for what it found, if it gave one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<String>,
    /// Where and what, for people: the path and the rule that was broken.
    pub evidence: String,
}

/// How bad a finding is. It decides nothing: it is for whoever is told.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Low,
    /// Worth a look during the day.
    Medium,
    /// What a finding is unless somebody says otherwise.
    #[default]
    High,
    /// Worth waking somebody.
    Critical,
}

// === impl Ruling ===

impl Ruling {
    /// All rulings, mildest first.
    pub const ALL: [Self; 5] = [Self::Permit, Self::PlanOnly, Self::Hold, Self::Deny, Self::Halt];

    /// The stable word used in records and the CLI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::PlanOnly => "plan-only",
            Self::Hold => "hold",
            Self::Deny => "deny",
            Self::Halt => "halt",
        }
    }
}

impl fmt::Display for Ruling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Cause ===

impl Cause {
    /// A cause without a named rule or approval.
    pub fn new(ruling: Ruling, reason: Reason, text: impl Into<String>) -> Self {
        Self { ruling, reason, rule: None, text: text.into(), approval: None }
    }

    /// The same cause, naming the rule that fired.
    #[must_use]
    pub fn by_rule(mut self, rule: impl Into<String>) -> Self {
        self.rule = Some(rule.into());
        self
    }

    /// The same cause, naming the approval that would lift it.
    #[must_use]
    pub fn needing(mut self, approval: impl Into<String>) -> Self {
        self.approval = Some(approval.into());
        self
    }
}

// === impl Decision ===

impl Decision {
    /// Joins this decision with more voices. Never milder than either side.
    #[must_use]
    pub fn join(mut self, causes: impl IntoIterator<Item = Cause>) -> Self {
        self.causes.extend(causes);
        self
    }

    /// The same, where the holds that `approved` names by their approvals are permits now. No other
    /// voice is touched.
    #[must_use]
    pub fn with_approved(self, approved: impl Fn(&str) -> bool) -> Self {
        let answered = |cause: Cause| match &cause.approval {
            Some(name) if cause.ruling == Ruling::Hold && approved(name) => {
                Cause { ruling: Ruling::Permit, reason: Reason::Approved, ..cause }
            }
            Some(_) | None => cause,
        };
        self.causes.into_iter().map(answered).collect()
    }

    /// The strictest ruling among the causes; `Deny` if there are none.
    pub fn ruling(&self) -> Ruling {
        // Causes sort by ruling first, so the last one is the strictest.
        self.causes.last().map_or(Ruling::Deny, |cause| cause.ruling)
    }

    /// Every cause, mildest first.
    pub fn causes(&self) -> impl DoubleEndedIterator<Item = &Cause> {
        self.causes.iter()
    }

    /// The causes that carry the ruling: those as strict as the decision itself.
    pub fn deciding(&self) -> impl Iterator<Item = &Cause> {
        let ruling = self.ruling();
        self.causes.iter().filter(move |cause| cause.ruling == ruling)
    }
}

impl FromIterator<Cause> for Decision {
    fn from_iter<I: IntoIterator<Item = Cause>>(causes: I) -> Self {
        Self::default().join(causes)
    }
}

// === impl FindingResult ===

impl FindingResult {
    /// The stable word used in records, configuration and the CLI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Opaque => "opaque",
        }
    }
}

// === impl Severity ===

impl Severity {
    /// The stable word used in records, configuration and the CLI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

// === impl Finding ===

impl Finding {
    /// A finding of the usual severity, without a code of the validator's own.
    pub fn new(
        validator: impl Into<String>,
        (result, reason): (FindingResult, Reason),
        evidence: impl Into<String>,
    ) -> Self {
        let (validator, evidence) = (validator.into(), evidence.into());
        let (severity, code) = (Severity::default(), None);
        Self { validator, result, reason, severity, code, evidence }
    }

    /// The evidence, after the validator's own code if it gave one.
    pub fn told(&self) -> String {
        match &self.code {
            Some(code) if self.evidence.is_empty() => code.clone(),
            Some(code) => format!("{code}: {}", self.evidence),
            None => self.evidence.clone(),
        }
    }

    /// What this finding says in a decision: nothing if it passed or only warns.
    pub fn cause(&self) -> Option<Cause> {
        match self.result {
            FindingResult::Pass | FindingResult::Warn => None,
            FindingResult::Fail | FindingResult::Opaque => {
                let cause = Cause::new(Ruling::Deny, self.reason, self.told());
                Some(cause.by_rule(self.validator.clone()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cause, Decision, Ruling};
    use crate::Reason;
    use proptest::prelude::*;

    fn cause() -> impl Strategy<Value = Cause> {
        let ruling = prop::sample::select(Ruling::ALL.to_vec());
        let reason = prop::sample::select(Reason::ALL.to_vec());
        (ruling, reason, "[a-c]{0,2}")
            .prop_map(|(ruling, reason, text)| Cause::new(ruling, reason, text))
    }

    fn causes() -> impl Strategy<Value = Vec<Cause>> {
        prop::collection::vec(cause(), 0..6)
    }

    #[test]
    fn silence_denies() {
        assert_eq!(Decision::default().ruling(), Ruling::Deny);
    }

    proptest! {
        #[test]
        fn the_join_is_monotone(some in causes().prop_filter("voices", |c| !c.is_empty()),
                                more in causes()) {
            let before = Decision::from_iter(some);
            let after = before.clone().join(more);
            prop_assert!(after.ruling() >= before.ruling());
        }

        #[test]
        fn the_join_ignores_order_and_repetition(some in causes(), more in causes()) {
            let one = Decision::from_iter(some.clone()).join(more.clone());
            let other = Decision::from_iter(more).join(some.clone()).join(some);
            prop_assert_eq!(one, other);
        }
    }
}
