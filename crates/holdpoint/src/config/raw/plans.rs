//! Plans, as they are written. Must not check what it means.

use super::At;
use schemars::JsonSchema;
use serde::Deserialize;

/// Who accepts plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawAccept {
    /// The checker, at once, unless it has blocking notes.
    Checker,
    /// An operator, with `holdpoint plan accept`.
    Operator,
}

/// Plans: what agents want to do, step by step, before they do it. With this table, even an empty
/// one, agents can propose plans; an accepted one holds them to it. [plans.md](plans.md) says how.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawPlans {
    /// Who accepts them: the `checker`, or an `operator`.
    #[schemars(extend("x-default" = "operator"))]
    pub accept: Option<RawAccept>,
    /// How long one may be in force, in seconds (up to 30 days).
    #[schemars(extend("x-default" = 86400))]
    pub expires_s_max: Option<At<u64>>,
    /// How many rows all steps of one may touch together.
    #[schemars(extend("x-default" = 10_000))]
    pub rows_max: Option<At<u64>>,
    /// How many files.
    #[schemars(extend("x-default" = 1000))]
    pub files_max: Option<At<u64>>,
    /// How many resources of any kind.
    #[schemars(extend("x-default" = 1000))]
    pub resources_max: Option<At<u64>>,
    /// Declared surfaces that no plan may touch.
    pub forbidden_surfaces: Vec<At<String>>,
}
