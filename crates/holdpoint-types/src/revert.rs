//! What became of taking an action back. Must not hold a value of a target.

use crate::ids::{ActionId, AgentName};
use crate::preview::ChangeCounts;
use serde::{Deserialize, Serialize};

/// An action that was taken back, or could not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevertRecord {
    /// The action that was to be taken back.
    pub of: ActionId,
    /// Whose it was.
    pub agent: AgentName,
    /// The action that took it back; absent if none was needed or possible.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub action: Option<ActionId>,
    /// How it stands now.
    pub status: RevertStatus,
    /// What was put back.
    pub restored: ChangeCounts,
    /// What was kept as it is.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub conflicts: Vec<RevertConflict>,
    /// Why it stands so, for people.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
    /// Who asked for it.
    pub by: String,
    /// Why.
    pub because: String,
}

/// Something that was not put back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RevertConflict {
    /// What.
    pub resource: String,
    /// Why it is kept as it is.
    pub why: String,
}

/// How an action that was to be taken back stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevertStatus {
    /// Everything is as it was before, and that was looked at afterwards.
    Restored,
    /// Everything was as it was before already.
    Unchanged,
    /// What nobody changed since is as it was before; the rest is kept and listed.
    Partly,
    /// It can never be taken back.
    Impossible,
    /// It failed, or nobody can tell how the target is: somebody has to look.
    Stuck,
}

// === impl RevertStatus ===

impl RevertStatus {
    /// True if what was done before it may be taken back next. What cannot be taken back at all
    /// stays where it is, and is compared with what is put back below it as anybody's later work.
    pub fn goes_on(self) -> bool {
        match self {
            Self::Restored | Self::Unchanged | Self::Impossible => true,
            Self::Partly | Self::Stuck => false,
        }
    }

    /// The stable word used in records and the CLI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Restored => "restored",
            Self::Unchanged => "unchanged",
            Self::Partly => "partly",
            Self::Impossible => "impossible",
            Self::Stuck => "stuck",
        }
    }
}
