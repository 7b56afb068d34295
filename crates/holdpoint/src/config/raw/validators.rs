//! Validators, as they are written. Must not check what it means.

use super::{At, RawClass, RawInvariantResult, RawValue};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// An independent voice about calls, before they are decided. Asked by exactly one of `cel`,
/// `command` and `url`; [validators.md](validators.md) says what it is told and how it answers.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawValidator {
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
    #[schemars(extend("x-default" = "read"))]
    pub class: Option<RawClass>,
    /// How long an answer may take, in milliseconds (1 to 20000).
    #[schemars(extend("x-default" = 2000))]
    pub timeout_ms: Option<At<u64>>,
    /// What its objection does: `fail` denies, `warn` is recorded.
    #[schemars(extend("x-default" = "fail"))]
    pub result: Option<At<RawInvariantResult>>,
}
