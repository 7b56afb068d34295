//! Changes of attributes that open a network, give a role away or end a protection. Must never
//! compare only what is new with nothing where the old value is known.

use super::{Action, Change, LISTS};
use crate::effects::{Effects, NoteCode};
use crate::{iam, ranges};
use holdpoint_types::{Effect, EffectClass, Verb};
use serde_json::Value;
use std::collections::BTreeSet;

/// Most values of one resource that are looked at.
const VALUES_MAX: usize = 20_000;

/// Notes addresses that can reach more than before.
pub(super) fn network(change: &Change<'_>, effects: &mut Effects) {
    let mut before = BTreeSet::new();
    let mut after = BTreeSet::new();
    let mut left = VALUES_MAX;
    everywhere(change.before, "", &mut before, &mut left);
    everywhere(change.after, "", &mut after, &mut left);
    if left == 0 {
        return effects.add_opaque(&change.resource, NoteCode::TooLarge, "many values");
    }
    let outgoing = is_outgoing(change.after);
    for place in after.difference(&before).filter(|_| !outgoing) {
        opens(change, format!("`{place}` is open to everybody"), effects);
    }
    for (name, open) in &LISTS.opening {
        let old = change.before.get(name);
        let is_open = change.after.get(name) == Some(open);
        if is_open && old != Some(open) {
            // What guards a bucket is closed only where it is set: its absence is no change.
            opens(change, format!("`{name}` is `{open}`"), effects);
        }
    }
}

/// Notes protections that end.
pub(super) fn guards(change: &Change<'_>, effects: &mut Effects) {
    if change.action != Action::Update {
        return;
    }
    for (name, off) in &LISTS.unguarding {
        let old = change.before.get(name);
        let ends = change.after.get(name) == Some(off);
        if ends && old.is_some_and(|old| !old.is_null() && old != off) {
            let evidence = format!("`{name}` becomes `{off}`");
            effects.note(NoteCode::StatefulDelete, format!("a protection ends: {evidence}"));
            let effect = Effect::new(Verb::Update, &change.resource, evidence);
            effects.add(effect.at_least(EffectClass::Destructive));
        }
    }
}

/// Notes roles that allow everything and members that are everybody.
pub(super) fn roles(change: &Change<'_>, effects: &mut Effects) {
    let after = change.after;
    let text = |name: &str| after.get(name).and_then(Value::as_str);
    let names = ["role_definition_name", "role_definition_id", "policy_arn", "role"];
    let role = names.iter().find_map(|name| text(name));
    let members = after.get("members").and_then(Value::as_array).into_iter().flatten();
    let members = members.filter_map(Value::as_str);
    let members: Vec<_> = members.chain(text("member")).chain(text("principal")).collect();
    let wide = role.is_some_and(iam::is_wide_role) || members.iter().any(|m| iam::is_public(m));
    if wide {
        let evidence = format!("{} to {}", role.unwrap_or("a role"), members.join(", "));
        effects.note(NoteCode::WildcardPrivilege, evidence);
    }
}

fn opens(change: &Change<'_>, evidence: String, effects: &mut Effects) {
    effects.note(NoteCode::NetworkWidened, format!("{evidence}: {}", change.resource));
    effects.add(Effect::new(Verb::Grant, &change.resource, evidence));
}

/// A rule for what goes out opens nothing for those outside.
fn is_outgoing(after: &Value) -> bool {
    ["type", "direction"].iter().any(|name| {
        let value = after.get(name).and_then(Value::as_str).unwrap_or("");
        ["egress", "outbound"].contains(&value.to_lowercase().as_str())
    })
}

/// Collects where in `value` an address stands that means everybody, with what stands beside it:
/// a port more that is open to everybody is more than before.
fn everywhere(value: &Value, place: &str, found: &mut BTreeSet<String>, left: &mut usize) {
    *left = left.saturating_sub(1);
    if *left == 0 {
        return;
    }
    match value {
        Value::Object(map) => {
            let open = map
                .iter()
                .filter(|(name, _)| LISTS.network_attributes.contains(*name))
                .any(|(name, value)| is_everywhere(value) && (name != "value" || is_range(value)));
            if open && !is_allow_less(map) {
                let beside =
                    ["from_port", "to_port", "protocol", "ports", "destination_port_range"];
                let beside = beside.iter().filter_map(|name| map.get(*name));
                let beside: Vec<_> = beside.map(Value::to_string).collect();
                found.insert(format!("{place} {}", beside.join(" ")).trim().to_owned());
            }
            for (name, inner) in map {
                if name != "egress" && name != "tags" {
                    everywhere(inner, name, found, left);
                }
            }
        }
        Value::Array(list) => {
            for inner in list {
                everywhere(inner, place, found, left);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A rule that forbids opens nothing.
fn is_allow_less(map: &serde_json::Map<String, Value>) -> bool {
    let access = map.get("access").or_else(|| map.get("rule_action")).and_then(Value::as_str);
    access.is_some_and(|access| access.eq_ignore_ascii_case("deny"))
}

/// An attribute called `value` holds many things; only a range in it is one of addresses.
fn is_range(value: &Value) -> bool {
    value.as_str().is_some_and(|text| ranges::are_everybody(std::iter::once(text)))
}

fn is_everywhere(value: &Value) -> bool {
    match value {
        Value::String(text) => {
            LISTS.everywhere.contains(text) || ranges::are_everybody(std::iter::once(text.as_str()))
        }
        Value::Array(list) => {
            let ranges = list.iter().filter_map(Value::as_str);
            list.iter().any(is_everywhere) || ranges::are_everybody(ranges)
        }
        Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
