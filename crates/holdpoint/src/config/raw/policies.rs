//! Where the policies are, as it is written. Must not check what it means.

use super::{At, Named};
use schemars::JsonSchema;
use serde::Deserialize;

/// Where the policies are.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawPolicies {
    /// The folder with the `*.cedar` files, relative to this file.
    #[schemars(extend("x-default" = "the built-in starter pack"))]
    pub path: Option<At<String>>,
    /// Guard sets: a call that touches what one guards needs its permit, too.
    pub guard: Named<RawGuard>,
}

/// A guard set: policies of higher integrity that count only as far as their signers signed them.
/// `holdpoint policy sign` signs them; only a restart changes this table.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawGuard {
    /// The folder with its `*.cedar` files and its `guard.note`, relative to this file.
    #[schemars(extend("x-required" = true))]
    pub path: Option<At<String>>,
    /// The declared surfaces that it guards.
    pub surfaces: Vec<At<String>>,
    /// The environments that it guards. What nobody can place lies in `prod`.
    pub environments: Vec<At<String>>,
    /// The public keys of those who may sign it, as `holdpoint policy keygen` prints them.
    #[schemars(extend("x-required" = true))]
    pub signers: Option<Vec<At<String>>>,
    /// How many of them must have signed it (1 to their number).
    #[schemars(extend("x-default" = "all of them"))]
    pub signatures: Option<At<u64>>,
}
