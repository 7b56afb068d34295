//! Agents and what they may reach, as it is written. Must not check what values mean.

use super::{At, RawClass, RawMode};
use schemars::JsonSchema;
use serde::Deserialize;

/// A named identity that acts.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawAgent {
    /// The declared team that answers for it.
    #[schemars(extend("x-required" = true))]
    pub owner: Option<At<String>>,
    /// How much it may do by itself: `auto`, `approve-writes`, `plan-only`, `read-only` or
    /// `quarantined`.
    #[schemars(extend("x-default" = "auto"))]
    pub mode: Option<RawMode>,
    /// The declared operators for whom it acts: they cannot approve what it does.
    pub requesters: Vec<At<String>>,
    /// Whose access tokens act as this agent; see `[listen.oauth]`.
    pub oauth: Option<At<RawBearer>>,
    /// What it may reach, as `[[agent.NAME.grant]]` tables.
    pub grant: Vec<At<RawGrant>>,
    /// The same, as an inline array.
    pub grants: Vec<At<RawGrant>>,
}

/// Whose access tokens act as an agent. Exactly one of the two.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawBearer {
    /// The client, as the claim `client_id` (or `azp`) names it.
    pub client_id: Option<At<String>>,
    /// The subject, as the claim `sub` names it.
    pub subject: Option<At<String>>,
}

/// Tools that an agent may reach in one effect class.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawGrant {
    /// `read`, `write` or `destructive`. A grant of one class reaches no tool of another.
    #[schemars(extend("x-required" = true))]
    pub class: Option<RawClass>,
    /// Patterns over `server__tool`, where `*` stands for any characters. Destructive tools are
    /// named in full.
    #[schemars(extend("x-required" = true))]
    pub tools: Option<Vec<At<String>>>,
}
