//! Effect classes: how dangerous a tool or an effect is. Must not know how a class was found.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a call can do to the world, ordered from harmless to dangerous.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectClass {
    /// Looks, changes nothing.
    Read,
    /// Changes something that can be changed back.
    Write,
    /// Deletes, revokes, destroys, or is not known well enough to say less.
    Destructive,
}

/// Where a tool's class came from; operators see it next to the class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassSource {
    /// The operator wrote it in the configuration.
    Operator,
    /// The operator wrote a laxer one and the tool's own annotations made it stricter.
    Annotation,
    /// Nobody classified the tool, so it counts as destructive.
    Unclassified,
    /// MCP itself says so: a request that reads a resource or a prompt.
    Protocol,
    /// The call was analysed: it is the class of its strictest effect.
    Effects,
    /// Calls of the tool are analysed, but not this one: no grant of the agent reaches the tool.
    Unlooked,
}

/// The text is none of `read`, `write`, `destructive`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not an effect class; use `read`, `write` or `destructive`")]
pub struct ParseClassError(String);

// === impl EffectClass ===

impl EffectClass {
    /// All classes, mildest first.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Destructive];

    /// The stable word used in configuration, records and the CLI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Destructive => "destructive",
        }
    }
}

impl fmt::Display for EffectClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EffectClass {
    type Err = ParseClassError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|class| class.as_str() == text);
        found.ok_or_else(|| ParseClassError(text.to_owned()))
    }
}
