//! What became of taking an action back, or of the action that takes another back. Must not call
//! anything restored that its record does not.

use crate::cli::look::{Look, SHORT_CHARS_MAX, escaped, shortened};
use crate::cli::revert::{meaning, put_back, tone};
use crate::cli::tree::Branch;
use holdpoint_server::store::Store;
use holdpoint_types::{
    ActionId, ActionRecord, DecisionRecord, Door, RecordBody, RevertRecord, Timestamp,
};
use serde_json::{Value, json};

/// How an attempt to take an action back ended.
#[derive(Debug)]
pub struct Reverted {
    /// When.
    pub at: Timestamp,
    /// How.
    pub record: RevertRecord,
}

/// What an action was to take back.
#[derive(Debug)]
pub struct TakesBack {
    /// The action.
    pub of: ActionId,
    /// How it ended, if it did.
    pub became: Option<Reverted>,
}

// === impl Reverted ===

impl Reverted {
    /// For people.
    pub fn branch(&self, look: &Look) -> Branch {
        let RevertRecord { action, status, restored, conflicts, detail, by, because, .. } =
            &self.record;
        let (by, because) = (escaped(by), short(because));
        let text = format!("{} (by {by} at {}: {because})", meaning(*status), look.time(self.at));
        let counts = (restored.total() > 0).then(|| Branch::new("put back", put_back(*restored)));
        let kept = conflicts.iter().map(|one| {
            Branch::new("kept", format!("{}: {}", short(&one.resource), short(&one.why)))
        });
        let detail = detail.as_deref().filter(|detail| !detail.is_empty());
        let detail = detail.map(|detail| Branch::new("detail", short(detail)));
        let action = action.map(|action| Branch::new("by action", action.to_string()));
        Branch::new(status.as_str(), text)
            .toned(tone(*status))
            .with(counts)
            .with(kept)
            .with(detail)
            .with(action)
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        let mut told = json!(self.record);
        told["at_ms"] = json!(self.at);
        told
    }
}

// === impl TakesBack ===

impl TakesBack {
    /// What the action was to take back, if an operator made it for that.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn gather(
        store: &Store,
        decided: &ActionRecord<DecisionRecord>,
    ) -> anyhow::Result<Option<Self>> {
        let request = &decided.more.request;
        let named = request.parameters.get("action").and_then(Value::as_str);
        let of = named.filter(|_| request.door == Door::Operator).and_then(|id| id.parse().ok());
        let Some(of) = of else { return Ok(None) };
        let records = store.of_action(of)?;
        let became = records.into_iter().find_map(|stored| match stored.record.body {
            RecordBody::Reverted(record) if record.action == Some(decided.action) => {
                Some(Reverted { at: stored.record.at_ms, record: *record })
            }
            _ => None,
        });
        Ok(Some(Self { of, became }))
    }

    /// For people.
    pub fn branch(&self, look: &Look) -> Branch {
        Branch::new("takes back", self.of.to_string())
            .with(self.became.iter().map(|became| became.branch(look)))
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        json!({ "of": self.of, "became": self.became.as_ref().map(Reverted::to_json) })
    }
}

fn short(text: &str) -> String {
    shortened(text, SHORT_CHARS_MAX)
}
