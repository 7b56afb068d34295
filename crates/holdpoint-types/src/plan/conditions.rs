//! What must hold before and after a step of a plan: words, or a read and what its result must be.
//!
//! A part of the ledger's format. Must not look at anything.

use crate::ids::{ActionId, AgentName, PlanId, StepName, ToolRef};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What must hold before or after a step.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum PlanCondition {
    /// Words for whoever accepts the plan. Nothing evaluates them.
    Words(String),
    /// A read, and what its result must be.
    Check(PlanCheck),
}

/// A condition that can be looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanCheck {
    /// What holds then, in the agent's words.
    pub says: String,
    /// The tool that reads it.
    pub tool: ToolRef,
    /// The parameters of that read.
    #[serde(default)]
    pub arguments: Map<String, Value>,
    /// A JSON Schema that the result must fit: its structured content, else its text as JSON,
    /// else its text.
    pub result: Value,
}

/// When a condition must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanWhen {
    /// Before the first call of its step.
    Before,
    /// After the last one.
    After,
}

/// A record of what was found of the conditions after a step. The step is done, or the plan goes
/// no further.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanLooked {
    /// The plan.
    pub plan: PlanId,
    /// Whose plan it is.
    pub agent: AgentName,
    /// The step.
    pub step: StepName,
    /// The reads that were made, in the order of the conditions; the last one found the condition
    /// that does not hold, if one does not.
    pub reads: Vec<ActionId>,
    /// What does not hold, and what was found instead; absent if all of them hold.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unmet: Option<String>,
}

// === impl PlanCondition ===

impl PlanCondition {
    /// How it is looked at, if it can be.
    pub fn check(&self) -> Option<&PlanCheck> {
        match self {
            Self::Words(_) => None,
            Self::Check(check) => Some(check),
        }
    }

    /// What holds then, in the agent's words.
    pub fn says(&self) -> &str {
        match self {
            Self::Words(says) => says,
            Self::Check(check) => &check.says,
        }
    }
}

impl<'de> Deserialize<'de> for PlanCondition {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // By hand: a fault of a check is told by its field.
        match Value::deserialize(from)? {
            Value::String(words) => Ok(Self::Words(words)),
            other => {
                let check = PlanCheck::deserialize(other).map_err(|fault| {
                    serde::de::Error::custom(format!("a condition is words or a check: {fault}"))
                })?;
                Ok(Self::Check(check))
            }
        }
    }
}

// === impl PlanWhen ===

impl PlanWhen {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Before, Self::After];

    /// The stable word used in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PlanCondition;

    #[test]
    fn a_condition_is_words_or_a_check() {
        let read = |condition: &str| serde_json::from_str::<PlanCondition>(condition);
        let check = r#"{"says":"there","tool":"db__query","arguments":{"a":1},"result":{}}"#;
        for condition in [r#""words""#, check] {
            let found = read(condition).unwrap();
            assert_eq!(serde_json::to_string(&found).unwrap(), condition);
        }
        assert_eq!(read(check).unwrap().says(), "there");
        for (faulty, why) in [
            (r#"{"says":"x","tool":"db__query","result":{},"then":1}"#, "unknown field `then`"),
            (r#"{"says":"x","tool":"db__query"}"#, "missing field `result`"),
            ("7", "words or a check"),
        ] {
            let fault = read(faulty).unwrap_err().to_string();
            assert!(fault.contains(why), "{faulty}: {fault}");
        }
    }
}
