//! Stops: locks that an operator puts on a part of what agents may do.
//! Must not know how a stop reaches a running call.

use crate::ids::{AgentName, ServerName, Timestamp, ToolRef};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The number of a stop, unique in one store.
pub type StopId = u64;

/// What a stop locks. Its text is `all`, `agent:NAME`, `tool:SERVER__TOOL` or `server:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StopScope {
    /// Every action of every agent.
    All,
    /// Every action of one agent.
    Agent(AgentName),
    /// Every call of one tool.
    Tool(ToolRef),
    /// Every call of every tool of one server.
    Server(ServerName),
}

/// One stop in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// The number by which it is released.
    pub id: StopId,
    /// What it locks.
    pub scope: StopScope,
    /// Why, in the operator's words.
    pub reason: String,
    /// Who put it there.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
}

/// The text names no stop scope.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no scope; use `all`, `agent:NAME`, `tool:SERVER__TOOL` or `server:NAME`")]
pub struct ParseScopeError(String);

// === impl StopScope ===

impl StopScope {
    /// True if this scope locks a call of `tool` by `agent`.
    pub fn covers(&self, agent: &AgentName, tool: &ToolRef) -> bool {
        match self {
            Self::All => true,
            Self::Agent(name) => name == agent,
            Self::Tool(name) => name == tool,
            Self::Server(name) => name == tool.server(),
        }
    }
}

impl fmt::Display for StopScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Agent(name) => write!(f, "agent:{name}"),
            Self::Tool(name) => write!(f, "tool:{name}"),
            Self::Server(name) => write!(f, "server:{name}"),
        }
    }
}

impl FromStr for StopScope {
    type Err = ParseScopeError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fault = || ParseScopeError(text.to_owned());
        if text == "all" {
            return Ok(Self::All);
        }
        let (kind, name) = text.split_once(':').ok_or_else(fault)?;
        match kind {
            "agent" => name.parse().map(Self::Agent).map_err(|_| fault()),
            "tool" => name.parse().map(Self::Tool).map_err(|_| fault()),
            "server" => name.parse().map(Self::Server).map_err(|_| fault()),
            _ => Err(fault()),
        }
    }
}

impl Serialize for StopScope {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StopScope {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::StopScope;

    #[test]
    fn a_scope_survives_its_text_and_covers_what_it_says() {
        let agent = "coder".parse().unwrap();
        let tool = "fs__read".parse().unwrap();
        let covering = ["all", "agent:coder", "tool:fs__read", "server:fs"];
        for text in covering {
            let scope: StopScope = text.parse().unwrap();
            assert_eq!(scope.to_string(), text);
            assert!(scope.covers(&agent, &tool), "{text}");
        }
        for text in ["agent:other", "tool:fs__write", "server:db"] {
            assert!(!text.parse::<StopScope>().unwrap().covers(&agent, &tool), "{text}");
        }
        for text in ["", "everything", "agent:", "task:1", "tool:x"] {
            assert!(text.parse::<StopScope>().is_err(), "{text}");
        }
    }
}
