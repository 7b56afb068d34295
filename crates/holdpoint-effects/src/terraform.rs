//! Terraform: what applying a plan would do, from the JSON of `terraform show -json`. Format:
//! <https://developer.hashicorp.com/terraform/internals/json-format>.
//!
//! Owns the reading of plans and the recognition of state files. Must never leave a change out of
//! a plan, nor take an action that it does not know for none.

use crate::effects::{Effects, NoteCode};
use crate::iam;
use holdpoint_types::{Certainty, Effect, EffectClass, JsonLimits, Reversibility, Verb};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

mod widening;

/// Longest plan, in bytes: plans carry the whole configuration with them.
const PLAN_BYTES_MAX: usize = 4 << 20;
/// Deepest nesting of a plan.
const DEPTH_MAX: usize = 64;
/// From so many resources on, a plan that creates everything looks like a lost state.
const ALL_CREATED_MIN: usize = 3;

static LISTS: LazyLock<Lists> =
    LazyLock::new(|| toml::from_str(include_str!("../data/terraform.toml")).unwrap_or_default());

/// What is known about types of resources.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    stateful: BTreeSet<String>,
    access_prefixes: Vec<String>,
    access_parts: Vec<String>,
    policy_attributes: BTreeSet<String>,
    network_attributes: BTreeSet<String>,
    everywhere: BTreeSet<String>,
    opening: BTreeMap<String, Value>,
    unguarding: BTreeMap<String, Value>,
}

/// What a plan says is done to one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Nothing,
    Read,
    Create,
    Update,
    Delete,
    Replace,
    Forget,
}

/// One resource of a plan.
struct Change<'p> {
    kind: &'p str,
    resource: String,
    action: Action,
    before: &'p Value,
    after: &'p Value,
    after_unknown: &'p Value,
}

// === impl Action ===

impl Action {
    fn read(actions: &Value) -> Option<Self> {
        let words: Vec<_> = actions.as_array()?.iter().map(Value::as_str).collect();
        Some(match words.as_slice() {
            [Some("no-op")] => Self::Nothing,
            [Some("read")] => Self::Read,
            [Some("create")] => Self::Create,
            [Some("update")] => Self::Update,
            [Some("delete")] => Self::Delete,
            [Some("delete"), Some("create")] | [Some("create"), Some("delete")] => Self::Replace,
            [Some("forget")] => Self::Forget,
            _ => return None,
        })
    }
}

// === functions ===

/// Adds to `effects` what applying the plan `text` would do. `state` names the workspace or state
/// that it is for: a resource is `tf://{state}/{address}`. A state file is recognised, and is a
/// note: nothing but Terraform should write one.
pub fn terraform(text: &str, state: &str, effects: &mut Effects) {
    let root = format!("tf://{state}");
    if text.len() > PLAN_BYTES_MAX {
        let evidence = format!("a plan of {} bytes", text.len());
        return effects.add_opaque(&root, NoteCode::TooLarge, evidence);
    }
    let limits = JsonLimits { bytes_max: PLAN_BYTES_MAX, depth_max: DEPTH_MAX };
    let Ok(Value::Object(document)) = holdpoint_types::parse(text.as_bytes(), limits) else {
        return effects.add_opaque(&root, NoteCode::Unreadable, "a plan that cannot be read");
    };
    if is_state_object(&document) {
        let evidence = "a state file written by hand";
        effects.note(NoteCode::StateFileWritten, evidence);
        let effect = Effect::new(Verb::Update, root, evidence).whole();
        return effects.add(effect.at_least(EffectClass::Destructive));
    }
    plan(&document, &root, effects);
}

/// True if `text` is the JSON of a state file.
pub fn is_terraform_state(text: &str) -> bool {
    let value = serde_json::from_str::<Value>(text);
    value.is_ok_and(|value| value.as_object().is_some_and(is_state_object))
}

fn is_state_object(document: &Map<String, Value>) -> bool {
    ["lineage", "serial", "terraform_version"].iter().all(|key| document.contains_key(*key))
}

fn plan(document: &Map<String, Value>, root: &str, effects: &mut Effects) {
    let is_plan = document.contains_key("format_version")
        && document.contains_key("terraform_version")
        && (document.contains_key("planned_values") || document.contains_key("resource_changes"));
    if !is_plan {
        return effects.add_opaque(root, NoteCode::Unreadable, "JSON that is no plan");
    }
    if document.get("errored") == Some(&Value::Bool(true)) {
        effects.add_opaque(root, NoteCode::Unreadable, "a plan that ended with an error");
    }
    let changes = match document.get("resource_changes") {
        None => Vec::new(),
        Some(Value::Array(changes)) => changes.iter().collect(),
        Some(_) => {
            return effects.add_opaque(root, NoteCode::Unreadable, "changes that are no list");
        }
    };
    let mut actions = Vec::new();
    for change in changes {
        match read_change(change, root) {
            Some(read) => {
                resource_change(&read, effects);
                actions.push((read.action, change.get("mode")));
            }
            None => {
                let evidence = "a change of a kind that is not known";
                effects.add_opaque(root, NoteCode::Unreadable, evidence);
            }
        }
    }
    let managed: Vec<_> = actions
        .iter()
        .filter(|(_, mode)| *mode != Some(&Value::from("data")))
        .map(|(action, _)| *action)
        .collect();
    lost_state(document, &managed, effects);
    outputs(document, root, effects);
    for (key, what) in [
        ("action_invocations", "actions run that a plan does not show"),
        ("deferred_changes", "changes are put off that are not planned yet"),
    ] {
        let empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        if document.get(key).is_some_and(|value| !empty(value)) {
            effects.add_opaque(root, NoteCode::UnseenCode, what);
        }
    }
    if effects.class().is_none() {
        effects.add(Effect::new(Verb::Read, root, "a plan without changes"));
    }
}

fn read_change<'p>(change: &'p Value, root: &str) -> Option<Change<'p>> {
    let address = change.get("address")?.as_str()?;
    let inner = change.get("change")?;
    // An object that was deposed is deleted besides the one with its address.
    let deposed = change.get("deposed").and_then(Value::as_str);
    let deposed = deposed.map_or(String::new(), |key| format!("#{key}"));
    Some(Change {
        kind: change.get("type")?.as_str()?,
        resource: format!("{root}/{address}{deposed}"),
        action: Action::read(inner.get("actions")?)?,
        before: inner.get("before").unwrap_or(&Value::Null),
        after: inner.get("after").unwrap_or(&Value::Null),
        after_unknown: inner.get("after_unknown").unwrap_or(&Value::Null),
    })
}

fn resource_change(change: &Change<'_>, effects: &mut Effects) {
    let resource = change.resource.as_str();
    let kind = change.kind;
    match change.action {
        Action::Nothing => return,
        Action::Read => {
            return effects.add(Effect::new(Verb::Read, resource, "reads"));
        }
        Action::Create => {
            effects.add(Effect::new(Verb::Create, resource, format!("creates `{kind}`")));
        }
        Action::Update => {
            effects.add(Effect::new(Verb::Update, resource, format!("changes `{kind}`")));
        }
        Action::Delete => deletes(change, effects),
        Action::Replace => {
            deletes(change, effects);
            effects.add(Effect::new(Verb::Create, resource, format!("replaces `{kind}`")));
        }
        Action::Forget => {
            let evidence = "is forgotten: nobody looks after it any more";
            let effect = Effect::new(Verb::Update, resource, evidence);
            effects.add(effect.at_least(EffectClass::Destructive));
        }
    }
    if change.action != Action::Delete && change.action != Action::Forget {
        access(change, effects);
        widening::network(change, effects);
        widening::guards(change, effects);
    }
}

fn deletes(change: &Change<'_>, effects: &mut Effects) {
    let evidence = format!("deletes `{}`", change.kind);
    let stateful = LISTS.stateful.contains(change.kind);
    let ceiling = match stateful {
        true => Reversibility::Irreversible,
        false => Reversibility::Compensable,
    };
    if stateful {
        effects.note(NoteCode::StatefulDelete, format!("{evidence}: {}", change.resource));
    }
    let effect = Effect::new(Verb::Delete, &change.resource, evidence).whole();
    effects.add(effect.reversible(ceiling));
}

/// Who may do what: policies are compared, other grants are changes of rights.
fn access(change: &Change<'_>, effects: &mut Effects) {
    let mut compared = false;
    for attribute in &LISTS.policy_attributes {
        let after = change.after.get(attribute);
        let unknown = change.after_unknown.get(attribute) == Some(&Value::Bool(true));
        if unknown {
            compared = true;
            let evidence = format!("`{attribute}` is known only when it is applied");
            effects.add_opaque(&change.resource, NoteCode::PrivilegeWidened, evidence);
        }
        let Some(after) = after.and_then(document) else { continue };
        if !iam::is_policy(&after) {
            continue;
        }
        compared = true;
        let before = change.before.get(attribute).and_then(document);
        iam::change(before.as_ref(), &after, &change.resource, effects);
    }
    let kind = change.kind;
    let grants = LISTS.access_prefixes.iter().any(|start| kind.starts_with(start.as_str()))
        || LISTS.access_parts.iter().any(|part| kind.contains(part.as_str()));
    if grants && !compared && change.before != change.after {
        let evidence = format!("`{kind}` changes who may do what");
        effects.add(Effect::new(Verb::Grant, &change.resource, evidence.clone()));
        effects.note(NoteCode::PrivilegeWidened, evidence);
        widening::roles(change, effects);
    }
}

/// A policy is an object, or JSON within a string.
fn document(value: &Value) -> Option<Value> {
    match value {
        Value::String(text) => {
            let limits = JsonLimits { bytes_max: PLAN_BYTES_MAX, depth_max: DEPTH_MAX };
            holdpoint_types::parse(text.as_bytes(), limits).ok()
        }
        Value::Object(_) => Some(value.clone()),
        _ => None,
    }
}

/// Everything is created, and nothing was there before: what exists is not known to this state.
fn lost_state(document: &Map<String, Value>, actions: &[Action], effects: &mut Effects) {
    let all_created =
        actions.len() >= ALL_CREATED_MIN && actions.iter().all(|action| *action == Action::Create);
    let prior = document
        .get("prior_state")
        .and_then(|state| state.get("values"))
        .and_then(|values| values.get("root_module"))
        .and_then(Value::as_object);
    let empty = prior.is_none_or(|module| {
        module.get("resources").and_then(Value::as_array).is_none_or(|list| {
            list.iter().all(|resource| resource.get("mode") == Some(&Value::from("data")))
        }) && !module.contains_key("child_modules")
    });
    if all_created && empty {
        let evidence = format!("all {} resources are created", actions.len());
        effects.note(NoteCode::StateLossSuspected, evidence);
    }
}

/// A changed output is read by others.
fn outputs(document: &Map<String, Value>, root: &str, effects: &mut Effects) {
    let changes = document.get("output_changes").and_then(Value::as_object);
    for (name, change) in changes.into_iter().flatten() {
        let resource = format!("{root}/output.{name}");
        let verb = match change.get("actions").and_then(Action::read) {
            Some(Action::Nothing | Action::Read) => continue,
            Some(Action::Create) => Verb::Create,
            Some(Action::Update | Action::Replace) => Verb::Update,
            Some(Action::Delete | Action::Forget) => Verb::Update,
            None => {
                let evidence = "an output changed in a way that is not known";
                effects.add_opaque(&resource, NoteCode::Unreadable, evidence);
                continue;
            }
        };
        let effect = Effect::new(verb, resource, "an output changes");
        effects.add(effect.no_surer_than(Certainty::Bounded));
    }
}

#[cfg(test)]
mod tests {
    use super::LISTS;

    #[test]
    fn the_list_can_be_read_and_knows_sixty_stateful_types() {
        assert!(LISTS.stateful.len() >= 60);
        for cloud in ["aws_", "azurerm_", "google_"] {
            assert!(LISTS.stateful.iter().filter(|kind| kind.starts_with(cloud)).count() >= 20);
        }
        assert!(!LISTS.unguarding.is_empty() && !LISTS.opening.is_empty());
    }
}
