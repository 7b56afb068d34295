//! What is kept of a call, and what its target is compared with that.
//! Must never take for the call's own work what might be somebody else's.

use super::mapping::Known;
use super::{Declared, Inverse};
use crate::resource::{Conflict, ResourceFault, Undo};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the target of a call is, compared with what was captured.
#[derive(Debug)]
pub(super) enum Compared {
    Before,
    /// As the inverse leaves it.
    TakenBack,
    After,
    Elsewhere(Conflict),
    Unknown(&'static str),
}

/// What is kept of a call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Captured {
    pub(super) tool: String,
    pub(super) resource: String,
    pub(super) parameters: Value,
    pub(super) before: Option<Value>,
    /// What the target was expected to become; absent if nobody could say.
    pub(super) expected: Option<Target>,
    /// What it became; absent if nobody looked.
    pub(super) after: Option<Target>,
    pub(super) result: Option<Value>,
}

/// A target at some time. An absence within an absence would not survive being written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Target {
    /// Absent if it is not there.
    pub(super) state: Option<Value>,
}

// === impl Captured ===

impl Captured {
    pub(super) fn read(undo: &Undo) -> Result<Self, ResourceFault> {
        Self::deserialize(&undo.data)
            .map_err(|_| ResourceFault::Invalid("what was captured cannot be read".to_owned()))
    }

    pub(super) fn known(&self) -> Known<'_> {
        let Self { parameters, before, result, .. } = self;
        Known { parameters, before: before.as_ref(), result: result.as_ref() }
    }

    pub(super) fn undo(&self, declared: &Declared) -> Option<Undo> {
        declared.inverse.as_ref()?;
        let data = serde_json::to_value(self).ok()?;
        Some(Undo { guarantee: declared.guarantee(), until: None, data })
    }

    /// What the inverse makes of what the call left; `None` if that is what was before.
    pub(super) fn leaves(&self, inverse: &Inverse) -> Result<Option<Target>, ResourceFault> {
        let left = self.after.as_ref().or(self.expected.as_ref());
        inverse.leaves.of(left.and_then(|left| left.state.clone()), &self.known())
    }

    pub(super) fn compare(&self, declared: &Declared, now: Option<&Value>) -> Compared {
        if now == self.before.as_ref() {
            return Compared::Before;
        }
        let leaves = declared.inverse.as_ref().map(|inverse| self.leaves(inverse));
        if let Some(Ok(Some(left))) = &leaves
            && now == left.state.as_ref()
        {
            return Compared::TakenBack;
        }
        match self.after.as_ref().or(self.expected.as_ref()) {
            Some(left) if now == left.state.as_ref() => Compared::After,
            Some(_) => {
                let why = if now.is_none() { "it is gone" } else { "it was changed afterwards" };
                let resource = self.resource.clone();
                Compared::Elsewhere(Conflict { resource, why: why.to_owned() })
            }
            None => Compared::Unknown("nobody knows what the call left"),
        }
    }
}
