//! What a saved plan says, from `terraform show -json`. Format:
//! <https://developer.hashicorp.com/terraform/internals/json-format>.
//!
//! Owns the words for what is done, and the redaction of what is sensitive. Must never leave a
//! change out, nor take an action that it does not know for none.

use crate::resource::{Change, ResourceFault};
use holdpoint_types::Reversibility;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// What stands for a value that must not be shown.
const SENSITIVE: &str = "(sensitive)";
/// What stands for a value that only the apply makes.
const UNKNOWN: &str = "(known after apply)";
/// From this length on a secret is looked for within longer texts.
const HELD_BYTES: usize = 6;
/// Deepest nesting of a value that is looked through.
const DEPTH_MAX: usize = 64;

/// What is done to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Action {
    Create,
    Update,
    Delete,
    Replace,
    /// Terraform no longer looks after it.
    Forget,
}

/// One managed resource that is changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Planned {
    pub(super) address: String,
    pub(super) kind: String,
    pub(super) action: Action,
    /// What is known of it after the apply, secrets included.
    pub(super) after: Value,
    pub(super) after_unknown: Value,
}

/// A plan, read.
#[derive(Debug)]
pub(super) struct Plan {
    /// What would change, redacted.
    pub(super) changes: Vec<Change>,
    pub(super) planned: Vec<Planned>,
    pub(super) notes: Vec<String>,
    /// How many managed resources there are before.
    existing: usize,
    /// True if something runs programs when it is made or destroyed.
    provisions: bool,
}

/// The texts that must not be shown.
#[derive(Default)]
struct Secrets(BTreeSet<String>);

#[derive(Deserialize)]
struct Document {
    format_version: String,
    #[serde(default)]
    variables: Map<String, Value>,
    #[serde(default)]
    resource_changes: Vec<ResourceChange>,
    #[serde(default)]
    resource_drift: Vec<Value>,
    #[serde(default)]
    output_changes: Map<String, Value>,
    #[serde(default)]
    configuration: Value,
    #[serde(default)]
    errored: bool,
    #[serde(default)]
    complete: Option<bool>,
}

#[derive(Deserialize)]
struct ResourceChange {
    address: String,
    mode: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    deposed: Option<String>,
    #[serde(default)]
    previous_address: Option<String>,
    #[serde(default)]
    action_reason: Option<String>,
    change: Difference,
}

#[derive(Clone, Deserialize)]
struct Difference {
    actions: Vec<String>,
    #[serde(default)]
    importing: Option<Value>,
    #[serde(default)]
    before: Value,
    #[serde(default)]
    after: Value,
    #[serde(default)]
    after_unknown: Value,
    #[serde(default)]
    before_sensitive: Value,
    #[serde(default)]
    after_sensitive: Value,
}

// === impl Action ===

impl Action {
    /// `None` for what changes nothing.
    fn read(actions: &[String]) -> Result<Option<Self>, ResourceFault> {
        let words: Vec<&str> = actions.iter().map(String::as_str).collect();
        Ok(Some(match words.as_slice() {
            ["no-op"] | ["read"] => return Ok(None),
            ["create"] => Self::Create,
            ["update"] => Self::Update,
            ["delete"] => Self::Delete,
            ["delete", "create"] | ["create", "delete"] => Self::Replace,
            ["forget"] => Self::Forget,
            _ => return Err(invalid("the plan does what is not known here")),
        }))
    }

    fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Replace => "replace",
            Self::Forget => "forget",
        }
    }

    fn takes_away(self) -> bool {
        matches!(self, Self::Delete | Self::Replace)
    }
}

// === impl Plan ===

impl Plan {
    pub(super) fn read(text: &str, place: &str) -> Result<Self, ResourceFault> {
        let document: Document =
            serde_json::from_str(text).map_err(|_| invalid("the plan cannot be read"))?;
        // A derived reader takes an array for an object.
        if !text.trim_start().starts_with('{') || !document.format_version.starts_with("1.") {
            return Err(invalid("the plan is in a format that is not known here"));
        }
        if document.errored {
            return Err(invalid("the plan has errors"));
        }
        let mut plan = Self {
            changes: Vec::new(),
            planned: Vec::new(),
            notes: Vec::new(),
            existing: 0,
            provisions: false,
        };
        let secrets = Secrets::of(&document);
        let mut provisioned = BTreeSet::new();
        let root = document.configuration.get("root_module").unwrap_or(&Value::Null);
        provisioners(root, 0, &mut provisioned);
        for change in &document.resource_changes {
            plan.add_resource(change, place, (&provisioned, &secrets))?;
        }
        for (name, change) in &document.output_changes {
            plan.add_output((name, change), place, &secrets)?;
        }
        if !document.resource_drift.is_empty() {
            let count = document.resource_drift.len();
            plan.notes.push(format!("{count} resources were changed outside of Terraform"));
        }
        if document.complete == Some(false) {
            plan.notes.push("the plan is not complete: another one has to follow".to_owned());
        }
        Ok(plan)
    }

    fn add_resource(
        &mut self,
        change: &ResourceChange,
        place: &str,
        (provisioned, secrets): (&BTreeSet<(String, String)>, &Secrets),
    ) -> Result<(), ResourceFault> {
        let managed = change.mode == "managed";
        let difference = &change.change;
        if managed && !difference.before.is_null() {
            self.existing += 1;
        }
        // Of these only the state changes, so they may come with no action.
        if let Some(from) = &change.previous_address {
            self.notes.push(format!("{from} is called {} from now on", change.address));
        }
        if difference.importing.is_some() {
            self.notes.push(format!("{} is imported", change.address));
        }
        let Some(action) = Action::read(&difference.actions)? else { return Ok(()) };
        let address = match &change.deposed {
            None => change.address.clone(),
            Some(key) => format!("{} (deposed {key})", change.address),
        };
        if action != Action::Create && action != Action::Update {
            let why = change.action_reason.as_ref().map(|why| format!(" ({why})"));
            let why = why.unwrap_or_default();
            self.notes.push(format!("{} {address}{why}", action.word()));
        }
        if provisioned.contains(&(change.kind.clone(), change.name.clone())) {
            self.provisions = true;
            self.notes.push(format!("{address} runs programs by provisioners"));
        }
        self.changes.push(Change {
            resource: format!("{place}/{address}"),
            before: difference.before(secrets),
            after: difference.after(secrets),
        });
        self.planned.push(Planned {
            address,
            kind: change.kind.clone(),
            action,
            after: difference.after.clone(),
            after_unknown: difference.after_unknown.clone(),
        });
        Ok(())
    }

    fn add_output(
        &mut self,
        (name, change): (&str, &Value),
        place: &str,
        secrets: &Secrets,
    ) -> Result<(), ResourceFault> {
        let difference = Difference::deserialize(change)
            .map_err(|_| invalid("an output of the plan cannot be read"))?;
        if Action::read(&difference.actions)?.is_none() {
            return Ok(());
        }
        self.changes.push(Change {
            resource: format!("{place}/output.{name}"),
            before: difference.before(secrets),
            after: difference.after(secrets),
        });
        Ok(())
    }

    /// One line for each resource.
    pub(super) fn summary(&self) -> String {
        let line = |it: &Planned| format!("{} {}", it.action.word(), it.address);
        let lines: Vec<String> = self.planned.iter().map(line).collect();
        match lines.is_empty() {
            true => "no resource changes".to_owned(),
            false => lines.join("\n"),
        }
    }

    /// Refuses a plan that leaves nothing of what there is.
    pub(super) fn check_something_stays(&self) -> Result<(), ResourceFault> {
        let deleted = self.planned.iter().filter(|it| it.action == Action::Delete).count();
        if deleted == 0 || deleted < self.existing {
            return Ok(());
        }
        Err(ResourceFault::Refused(format!(
            "the plan destroys everything there is: {deleted} resources"
        )))
    }

    /// How well it can be taken back if the configuration from before is known.
    pub(super) fn guarantee(&self, stateful: &BTreeSet<String>) -> Reversibility {
        let lost = |it: &Planned| it.action.takes_away() && stateful.contains(&it.kind);
        match self.provisions || self.planned.iter().any(lost) {
            true => Reversibility::Irreversible,
            false => Reversibility::Compensable,
        }
    }
}

// === impl Difference ===

impl Difference {
    fn before(&self, secrets: &Secrets) -> Option<Value> {
        secrets.side(&self.before, &self.before_sensitive, &Value::Null)
    }

    fn after(&self, secrets: &Secrets) -> Option<Value> {
        secrets.side(&self.after, &self.after_sensitive, &self.after_unknown)
    }
}

// === impl Secrets ===

impl Secrets {
    /// All that the plan marks as sensitive anywhere. Providers copy values into places that
    /// carry no mark, and there they are no less secret.
    fn of(document: &Document) -> Self {
        let mut secrets = Self::default();
        let outputs = document.output_changes.values();
        let outputs = outputs.filter_map(|it| Difference::deserialize(it).ok());
        let resources = document.resource_changes.iter().map(|it| it.change.clone());
        for it in resources.chain(outputs) {
            secrets.collect(&it.before, &it.before_sensitive, 0);
            secrets.collect(&it.after, &it.after_sensitive, 0);
        }
        let declared = document.configuration.pointer("/root_module/variables");
        for (name, variable) in declared.and_then(Value::as_object).into_iter().flatten() {
            let sensitive = variable.get("sensitive").cloned().unwrap_or_default();
            let value = document.variables.get(name).and_then(|it| it.get("value"));
            secrets.collect(value.unwrap_or(&Value::Null), &sensitive, 0);
        }
        secrets
    }

    fn collect(&mut self, value: &Value, sensitive: &Value, depth: usize) {
        if depth > DEPTH_MAX {
            return;
        }
        let all = *sensitive == Value::Bool(true);
        let mark = |part: Option<&Value>| match all {
            true => Value::Bool(true),
            false => part.cloned().unwrap_or_default(),
        };
        match value {
            Value::String(text) if all && !text.is_empty() => {
                self.0.insert(text.clone());
            }
            Value::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    self.collect(item, &mark(sensitive.get(at)), depth + 1);
                }
            }
            Value::Object(members) => {
                for (name, member) in members {
                    self.collect(member, &mark(sensitive.get(name)), depth + 1);
                }
            }
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// True if `text` is a secret, or holds one that is long enough not to be there by chance.
    fn are_in(&self, text: &str) -> bool {
        let held = |secret: &String| secret.len() >= HELD_BYTES && text.contains(secret.as_str());
        self.0.contains(text) || self.0.iter().any(held)
    }

    /// One side of a change, as it may be shown.
    fn side(&self, value: &Value, sensitive: &Value, unknown: &Value) -> Option<Value> {
        let shown = self.shown(value, sensitive, unknown, 0);
        (!shown.is_null()).then_some(shown)
    }

    /// `value` with a word in place of what is sensitive and of what is not known yet.
    fn shown(&self, value: &Value, sensitive: &Value, unknown: &Value, depth: usize) -> Value {
        if *sensitive == Value::Bool(true) || depth > DEPTH_MAX {
            return SENSITIVE.into();
        }
        if *unknown == Value::Bool(true) {
            return UNKNOWN.into();
        }
        let within = |part: &Value, key: &str| part.get(key).cloned().unwrap_or_default();
        match (value, unknown) {
            (Value::Object(_), _) | (Value::Null, Value::Object(_)) => {
                let names = [value, unknown].into_iter().filter_map(Value::as_object);
                let names: BTreeSet<&String> = names.flat_map(Map::keys).collect();
                let each = names.into_iter().map(|name| {
                    let (part, hidden) = (within(value, name), within(sensitive, name));
                    let unknown = within(unknown, name);
                    (name.clone(), self.shown(&part, &hidden, &unknown, depth + 1))
                });
                let members: Map<String, Value> = each.collect();
                // An object that only says that nothing in it is unknown is none.
                match value.is_null() && members.values().all(Value::is_null) {
                    true => Value::Null,
                    false => members.into(),
                }
            }
            (Value::Array(items), _) => {
                let at = |part: &Value, at: usize| part.get(at).cloned().unwrap_or_default();
                let each = items.iter().enumerate();
                each.map(|(n, it)| self.shown(it, &at(sensitive, n), &at(unknown, n), depth + 1))
                    .collect()
            }
            (Value::String(text), _) if self.are_in(text) => SENSITIVE.into(),
            _ => value.clone(),
        }
    }
}

/// Types and names of resources that run programs, in all modules.
fn provisioners(module: &Value, depth: usize, found: &mut BTreeSet<(String, String)>) {
    if depth > DEPTH_MAX {
        return;
    }
    let text = |value: &Value, name: &str| {
        value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    for resource in module.get("resources").and_then(Value::as_array).into_iter().flatten() {
        if resource.get("provisioners").is_some() {
            found.insert((text(resource, "type"), text(resource, "name")));
        }
    }
    for call in module.get("module_calls").and_then(Value::as_object).into_iter().flatten() {
        provisioners(call.1.get("module").unwrap_or(&Value::Null), depth + 1, found);
    }
}

fn invalid(text: &str) -> ResourceFault {
    ResourceFault::Invalid(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{DEPTH_MAX, Plan, Secrets};
    use serde_json::{Value, json};

    #[test]
    fn what_is_sensitive_or_unknown_is_a_word() {
        let none = Secrets::default();
        let shown = |value: &Value, sensitive: &Value, unknown: &Value| {
            none.shown(value, sensitive, unknown, 0)
        };
        let value = json!({ "a": "x", "b": { "c": "secret", "d": 1 }, "e": ["y", "secret"] });
        let sensitive = json!({ "b": { "c": true }, "e": [false, true] });
        let unknown = json!({ "f": true, "b": {}, "g": { "h": false } });
        assert_eq!(
            shown(&value, &sensitive, &unknown).to_string(),
            r#"{"a":"x","b":{"c":"(sensitive)","d":1},"e":["y","(sensitive)"],"f":"(known after apply)","g":null}"#
        );
        assert_eq!(shown(&value, &json!(true), &Value::Null), json!("(sensitive)"));
        assert_eq!(shown(&Value::Null, &json!(false), &json!({})), Value::Null);
        let deep = (0..=DEPTH_MAX + 1).fold(json!("secret"), |deep, _| json!([deep]));
        let mut secrets = Secrets::default();
        secrets.collect(&value, &sensitive, 0);
        let told = json!({ "url": "https://u:secret@x", "is": "secret", "a": "x" });
        let told = secrets.shown(&told, &Value::Null, &Value::Null, 0).to_string();
        assert_eq!(told, r#"{"a":"x","is":"(sensitive)","url":"(sensitive)"}"#);
        assert!(!shown(&deep, &Value::Null, &Value::Null).to_string().contains("secret"));
    }

    #[test]
    fn a_plan_that_is_not_understood_is_none() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"format_version":"2.0"}"#,
            r#"{"format_version":"1.2","errored":true}"#,
            r#"{"format_version":"1.2","resource_changes":[{"address":"a.b","mode":"managed","type":"a",
                "change":{"actions":["explode"]}}]}"#,
            r#"{"format_version":"1.2","resource_changes":[{"address":"a.b"}]}"#,
            r#"{"format_version":"1.2","output_changes":{"x":{"actions":[]}}}"#,
        ] {
            assert!(Plan::read(text, "tf://x").is_err(), "{text}");
        }
        assert!(Plan::read(r#"{"format_version":"1.2"}"#, "tf://x").is_ok());
    }
}
