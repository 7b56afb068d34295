//! Who is told of approvals, as it is written. Must not check what values mean.

use super::{At, RawReference, RawValue};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Somebody who is told by `serve` of approvals and of plans that wait: each request, each yes and
/// no, and what ended without one, as a POST. See
/// [operations.md](operations.md#telling-people-of-approvals).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawNotify {
    /// Where the URL is, `{ from_env = "NAME" }` or `{ from_file = "PATH" }`: whoever knows the URL
    /// of a webhook can write there. Plain `http` only on this machine.
    #[schemars(extend("x-required" = true))]
    pub url: Option<At<RawReference>>,
    /// Headers on every request, written like a server's.
    pub headers: BTreeMap<At<String>, At<RawValue>>,
    /// What a message looks like: `slack`, as incoming webhooks of Slack and others take it, or
    /// `json`.
    #[schemars(extend("x-default" = "slack"))]
    pub format: Option<RawShape>,
    /// `true` tells the parameters of calls, too, shortened and without what looks like a secret.
    #[schemars(extend("x-default" = false))]
    pub parameters: Option<At<bool>>,
    /// Links by which one operator decides. Whoever reads them is that operator: only for what
    /// nobody else reads.
    pub links: Option<At<RawLinks>>,
}

/// Links by which one operator decides: whoever has one speaks as that operator, until the approval
/// ends.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawLinks {
    /// Where that operator's browser reaches this server, for example
    /// `https://holdpoint.example.com`. Plain `http` only on this machine.
    #[schemars(extend("x-required" = true))]
    pub base: Option<At<String>>,
    /// The declared operator who reads what is told.
    #[schemars(extend("x-required" = true))]
    pub operator: Option<At<String>>,
}

/// What a message looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawShape {
    /// As incoming webhooks of Slack take it.
    #[default]
    Slack,
    /// Everything by name.
    Json,
}
