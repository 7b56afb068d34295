//! Validators, as they are written. Must not check what it means.

use super::{At, RawClass, RawInvariantResult, RawValue};
use holdpoint_types::Severity;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// When a validator is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawWhen {
    /// Before the decision.
    #[default]
    Before,
    /// After the end of the call.
    After,
}

/// An independent voice about calls, before they are decided or after they have ended. Asked by
/// exactly one of `cel`, `command` and `url`; [validators.md](validators.md) says what it is told
/// and how it answers.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawValidator {
    /// When it is asked: `before` the decision, or `after` the end of the call.
    #[schemars(extend("x-default" = "before"))]
    pub when: Option<RawWhen>,
    /// How many seconds after the end, each time (at most 16, up to 30 days); only with
    /// `when = "after"`. A check that nobody makes in time counts as failed.
    #[schemars(extend("x-default" = "[0, 60, 900, 86400]"))]
    pub after_s: Option<At<Vec<At<u32>>>>,
    /// A CEL expression that must be true: `effects.all(e, e.environment != 'prod')`.
    pub cel: Option<At<String>>,
    /// A program and its arguments: it reads one line of JSON and writes one.
    pub command: Option<At<Vec<At<String>>>>,
    /// An endpoint that takes JSON and gives JSON.
    pub url: Option<At<String>>,
    /// Environment variables for the command, written like a server's.
    pub env: BTreeMap<At<String>, At<RawValue>>,
    /// Headers for the URL, written like a server's.
    pub headers: BTreeMap<At<String>, At<RawValue>>,
    /// Patterns over `server__tool`, whose calls it looks at.
    #[schemars(extend("x-default" = "all tools"))]
    pub tools: Option<Vec<At<String>>>,
    /// The mildest class of calls that it looks at.
    #[schemars(extend("x-default" = "read; write with when = after"))]
    pub class: Option<RawClass>,
    /// How long an answer may take, in milliseconds (1 to 20000).
    #[schemars(extend("x-default" = 2000))]
    pub timeout_ms: Option<At<u64>>,
    /// What its objection does: `fail` denies, `warn` is recorded.
    #[schemars(extend("x-default" = "fail"))]
    pub result: Option<At<RawInvariantResult>>,
    /// How bad its objection is, for whoever is told: `low`, `medium`, `high` or `critical`. Its
    /// own answer may say otherwise.
    #[schemars(extend("x-default" = "high"))]
    pub severity: Option<RawSeverity>,
}

/// How bad an objection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawSeverity {
    /// Worth knowing.
    Low,
    /// Worth a look during the day.
    Medium,
    /// What it is unless somebody says otherwise.
    High,
    /// Worth waking somebody.
    Critical,
}

// === impl RawSeverity ===

impl From<RawSeverity> for Severity {
    fn from(raw: RawSeverity) -> Self {
        match raw {
            RawSeverity::Low => Self::Low,
            RawSeverity::Medium => Self::Medium,
            RawSeverity::High => Self::High,
            RawSeverity::Critical => Self::Critical,
        }
    }
}
