//! The autonomy ladder of an agent. Must not decide what a mode means for a call: control does.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How much an agent may do by itself. Ordered from most to least autonomy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Whatever policy permits.
    Auto,
    /// Every write is held for an approval.
    ApproveWrites,
    /// Reads run; anything that would change something is planned, never executed.
    PlanOnly,
    /// Reads run; anything else is denied.
    ReadOnly,
    /// Nothing runs.
    Quarantined,
}

/// The text names no mode.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is not a mode; use `auto`, `approve-writes`, `plan-only`, `read-only` or `quarantined`"
)]
pub struct ParseModeError(String);

// === impl Mode ===

impl Mode {
    /// All modes, most autonomous first.
    pub const ALL: [Self; 5] =
        [Self::Auto, Self::ApproveWrites, Self::PlanOnly, Self::ReadOnly, Self::Quarantined];

    /// The stable word used in configuration, records and the CLI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::ApproveWrites => "approve-writes",
            Self::PlanOnly => "plan-only",
            Self::ReadOnly => "read-only",
            Self::Quarantined => "quarantined",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Mode {
    type Err = ParseModeError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|mode| mode.as_str() == text);
        found.ok_or_else(|| ParseModeError(text.to_owned()))
    }
}
