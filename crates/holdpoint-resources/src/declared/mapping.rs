//! Where the arguments of a declared call come from, and what a target is expected to become.
//! Must never make up what is not there.

use super::captured::Target;
use super::{Expected, Reading};
use crate::resource::ResourceFault;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What stands for a member that no preview shows.
const REDACTED: &str = "(redacted)";

/// A tool, and where its arguments come from.
#[derive(Clone, Debug)]
pub struct Mapped {
    /// The tool, of the same server.
    pub tool: String,
    /// Its arguments.
    pub arguments: BTreeMap<String, Source>,
}

/// Where a value comes from. Texts are JSON pointers (RFC 6901).
#[derive(Clone, Debug)]
pub enum Source {
    /// From the parameters of the call.
    Parameter(String),
    /// From the target as it was before.
    Before(String),
    /// From the result of the call.
    Result(String),
    /// Always this.
    Constant(Value),
}

/// What values may come from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    pub(super) parameters: &'a Value,
    pub(super) before: Option<&'a Value>,
    pub(super) result: Option<&'a Value>,
}

// === impl Mapped ===

impl Mapped {
    /// True if an argument comes from the result.
    pub(super) fn needs_result(&self) -> bool {
        self.arguments.values().any(|source| matches!(source, Source::Result(_)))
    }

    /// The arguments; `None` if there is no result yet that they need.
    pub(super) fn arguments(&self, known: &Known<'_>) -> Result<Option<Value>, ResourceFault> {
        if self.needs_result() && known.result.is_none() {
            return Ok(None);
        }
        let mut arguments = Map::new();
        for (name, source) in &self.arguments {
            // An optional parameter that the call left out is left out here too.
            match (source.value(known), source) {
                (Some(value), _) => drop(arguments.insert(name.clone(), value.clone())),
                (None, Source::Parameter(_)) => {}
                (None, Source::Before(_) | Source::Result(_) | Source::Constant(_)) => {
                    let text = format!("argument `{name}` of `{}` is not known", self.tool);
                    return Err(ResourceFault::Impossible(text));
                }
            }
        }
        Ok(Some(Value::Object(arguments)))
    }

    pub(super) fn pointers(&self) -> impl Iterator<Item = &String> {
        self.arguments.values().filter_map(Source::pointer)
    }
}

// === impl Source ===

impl Source {
    fn value<'a>(&'a self, known: &Known<'a>) -> Option<&'a Value> {
        match self {
            Self::Parameter(pointer) => known.parameters.pointer(pointer),
            Self::Before(pointer) => known.before?.pointer(pointer),
            Self::Result(pointer) => known.result?.pointer(pointer),
            Self::Constant(value) => Some(value),
        }
    }

    fn pointer(&self) -> Option<&String> {
        match self {
            Self::Parameter(pointer) | Self::Before(pointer) | Self::Result(pointer) => {
                Some(pointer)
            }
            Self::Constant(_) => None,
        }
    }
}

// === impl Expected ===

impl Expected {
    pub(super) fn pointers(&self) -> impl Iterator<Item = &String> {
        let members = match self {
            Self::Unknown | Self::Gone => None,
            Self::With(members) => Some(members),
        };
        let members = members.into_iter().flatten();
        members.flat_map(|(at, from)| [Some(at), from.pointer()]).flatten()
    }

    /// What becomes of `state`; `None` if nobody can say.
    pub(super) fn of(
        &self,
        state: Option<Value>,
        known: &Known<'_>,
    ) -> Result<Option<Target>, ResourceFault> {
        let members = match self {
            Self::Unknown => return Ok(None),
            Self::Gone => return Ok(Some(Target { state: None })),
            Self::With(members) => members,
        };
        let mut state = state.unwrap_or_else(|| Value::Object(Map::new()));
        for (pointer, source) in members {
            // What the call does not say stays, and so does what only its result will tell.
            if let Some(value) = source.value(known) {
                put(&mut state, pointer, value.clone())?;
            }
        }
        Ok(Some(Target { state: Some(state) }))
    }
}

// === impl Reading ===

impl Reading {
    pub(super) fn pointers(&self) -> impl Iterator<Item = &String> {
        let own = [&self.state].into_iter().chain(&self.volatile).chain(&self.redacted);
        own.chain(self.expected.pointers())
    }

    /// A target without what changes by itself.
    pub(super) fn steady(&self, mut state: Value) -> Value {
        for pointer in &self.volatile {
            take(&mut state, pointer);
        }
        state
    }

    /// A target as a preview may show it.
    pub(super) fn shown(&self, state: &Value) -> Value {
        let mut state = state.clone();
        for pointer in &self.redacted {
            if let Some(member) = state.pointer_mut(pointer) {
                *member = REDACTED.into();
            }
        }
        state
    }
}

/// Sets the member at `pointer`, whose parent must be there.
fn put(state: &mut Value, pointer: &str, value: Value) -> Result<(), ResourceFault> {
    if let Some(member) = state.pointer_mut(pointer) {
        *member = value;
        return Ok(());
    }
    let (parent, name) = pointer.rsplit_once('/').unwrap_or_default();
    match state.pointer_mut(parent) {
        Some(Value::Object(members)) => {
            members.insert(name.replace("~1", "/").replace("~0", "~"), value);
            Ok(())
        }
        _ => {
            let text = format!("the target has nothing at `{parent}`");
            Err(ResourceFault::Invalid(text))
        }
    }
}

/// Removes the member at `pointer`, if it is there.
fn take(state: &mut Value, pointer: &str) {
    let (parent, name) = pointer.rsplit_once('/').unwrap_or_default();
    if let Some(Value::Object(members)) = state.pointer_mut(parent) {
        members.shift_remove(&name.replace("~1", "/").replace("~0", "~"));
    }
}

#[cfg(test)]
mod tests {
    use super::{put, take};
    use serde_json::json;

    #[test]
    fn members_are_set_and_removed_by_their_pointers() {
        let mut state = json!({ "a": { "b/c": 1, "d": 2 } });
        put(&mut state, "/a/b~1c", json!(3)).unwrap();
        put(&mut state, "/a/new~0", json!(4)).unwrap();
        assert!(put(&mut state, "/x/y", json!(5)).is_err());
        assert!(put(&mut state, "/a/d/e", json!(5)).is_err());
        take(&mut state, "/a/d");
        take(&mut state, "/x/y");
        assert_eq!(state, json!({ "a": { "b/c": 3, "new~": 4 } }));
        put(&mut state, "", json!([1])).unwrap();
        assert_eq!(state, json!([1]));
    }
}
