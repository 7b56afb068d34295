//! Previews as decisions and records see them: how much would change, and how well it could be
//! taken back. The diff itself lies elsewhere, sealed. Must not hold a value of a target.

use crate::digest::Digest;
use crate::effect::Reversibility;
use crate::ids::Timestamp;
use crate::reason::Reason;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How far what an action shows or sends gets; it can never be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disclosure {
    /// D0: it stays where it was.
    Contained,
    /// D1: more people or systems inside can read it.
    Wider,
    /// D2: it leaves for where nobody here has a say.
    Left,
}

/// How many things would be made, changed and deleted: rows, files, refs, resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeCounts {
    /// Made.
    pub created: u64,
    /// Changed.
    pub updated: u64,
    /// Deleted.
    pub deleted: u64,
}

/// What would come of an action, as far as a decision looks at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewFacts {
    /// Digest of the whole diff, values included.
    pub digest: Digest,
    /// How much would change.
    pub counts: ChangeCounts,
    /// False if more may happen than the diff says.
    pub exact: bool,
    /// How well it could be taken back.
    pub guarantee: Reversibility,
    /// Until when; only for [`Reversibility::ExactUntil`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until: Option<Timestamp>,
    /// How far what it shows or sends would get.
    pub disclosure: Disclosure,
    /// What the diff cannot show, and why; for people. Holds no value of a target.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub notes: Vec<String>,
}

/// Why what would come of an action cannot be seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unseen {
    /// Why.
    pub reason: Reason,
    /// Why, for people. Holds no value of a target.
    pub detail: String,
}

// === impl Disclosure ===

impl Disclosure {
    /// The stable word used in records, policies and the CLI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Contained => "contained",
            Self::Wider => "wider",
            Self::Left => "left",
        }
    }
}

// === impl ChangeCounts ===

impl fmt::Display for ChangeCounts {
    /// `makes 1, changes 2, deletes 0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { created, updated, deleted } = self;
        write!(f, "makes {created}, changes {updated}, deletes {deleted}")
    }
}

impl ChangeCounts {
    /// All of them.
    pub fn total(self) -> u64 {
        self.created.saturating_add(self.updated).saturating_add(self.deleted)
    }
}
