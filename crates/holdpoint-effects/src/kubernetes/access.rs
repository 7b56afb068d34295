//! Who may do what in a cluster, and what is let into it. Must never call a binding narrow whose
//! role it has not seen, unless the role is only named.

use super::{LISTS, Object, at, list};
use crate::effects::{Effects, NoteCode};
use holdpoint_types::{Effect, Verb};
use serde_json::Value;

/// Notes what `object` lets somebody do.
pub(super) fn look(object: &Object<'_>, effects: &mut Effects) {
    let kind = object.kind.as_str();
    if LISTS.access.contains(kind) {
        let evidence = format!("a {kind} changes who may do what: {}", object.resource);
        effects.add(Effect::new(Verb::Grant, &object.resource, evidence.clone()));
        effects.note(NoteCode::PrivilegeWidened, evidence);
    }
    match kind {
        "role" | "clusterrole" => role(object, effects),
        "rolebinding" | "clusterrolebinding" => binding(object, effects),
        "namespace" => {
            let labels = object.get(&["metadata", "labels"]);
            let enforced = labels.get("pod-security.kubernetes.io/enforce");
            if enforced.and_then(Value::as_str) == Some("privileged") {
                let evidence = "privileged pods are allowed in the namespace";
                effects.add(Effect::new(Verb::Grant, &object.resource, evidence));
                effects.note(NoteCode::PrivilegeWidened, evidence);
            }
        }
        _ => {}
    }
}

fn role(object: &Object<'_>, effects: &mut Effects) {
    for rule in list(object.get(&["rules"])) {
        let has = |key: &str, known: &dyn Fn(&str) -> bool| {
            list(at(rule, &[key])).filter_map(Value::as_str).any(known)
        };
        let star = |text: &str| text == "*";
        if has("verbs", &star) || has("resources", &star) || has("nonResourceURLs", &star) {
            let evidence = format!("`*` in a rule of {}", object.resource);
            effects.note(NoteCode::WildcardPrivilege, evidence);
        }
        let raises = has("verbs", &|verb| LISTS.raising_verbs.contains(verb));
        let strong = has("resources", &|what| LISTS.raising_resources.contains(what));
        if raises || strong {
            let evidence = format!("a rule that gives more than it says: {}", object.resource);
            effects.note(NoteCode::PrivilegeWidened, evidence);
        }
    }
}

fn binding(object: &Object<'_>, effects: &mut Effects) {
    let role = object.get(&["roleRef", "name"]).as_str().unwrap_or("");
    let subjects = list(object.get(&["subjects"]));
    let everybody = subjects
        .filter_map(|subject| subject.get("name").and_then(Value::as_str))
        .find(|name| LISTS.wide_subjects.contains(*name));
    if LISTS.wide_roles.contains(role) {
        effects.note(NoteCode::WildcardPrivilege, format!("role `{role}`: {}", object.resource));
    }
    if let Some(name) = everybody {
        effects.note(NoteCode::WildcardPrivilege, format!("to `{name}`: {}", object.resource));
    }
}
