//! Operators and approvals as they are written. Must not check what values mean.

use super::{At, RawReference};
use schemars::JsonSchema;
use serde::Deserialize;

/// A person or system that may speak for the operator: stop, release, approve.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawOperator {
    /// Where its bearer key for the API is: `{ from_env = "NAME" }` or `{ from_file = "PATH" }`.
    /// The key has at least 32 characters. It has a key, a `user`, or both.
    pub key: Option<At<RawReference>>,
    /// Its account on this machine, as which the command line knows it.
    pub user: Option<At<String>>,
    /// The declared teams that it belongs to: it may approve as `owner` what their agents do.
    pub teams: Vec<At<String>>,
    /// What else it may approve as.
    pub roles: Vec<At<String>>,
}

/// What an approval needs. Its name is what policies call it: `@hold("NAME")`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawApproval {
    /// Who may give it: operators with one of these roles. `owner` means the team that answers for
    /// the agent.
    #[schemars(extend("x-default" = "the approval's name"))]
    pub roles: Option<Vec<At<String>>>,
    /// How many different operators have to give it (1 to 16).
    #[schemars(extend("x-default" = 1))]
    pub count: Option<At<u64>>,
    /// How long it can be given and used after it was asked for, in seconds (1 to 604800).
    #[schemars(extend("x-default" = 3600))]
    pub expires_s: Option<At<u64>>,
}
