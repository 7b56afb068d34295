//! What a pod may do to the machine it runs on. Must never look for pods only where it knows
//! them: custom resources hold them too.

use super::{LISTS, Object, at, is_true, list};
use crate::effects::{Effects, NoteCode};
use holdpoint_types::{Effect, EffectClass, Verb};
use serde_json::Value;

/// Notes pods of `object` that reach out of their container.
pub(super) fn look(object: &Object<'_>, effects: &mut Effects) {
    let mut found = Vec::new();
    find(object.body, &mut found);
    found.sort_unstable();
    found.dedup();
    for why in found {
        let evidence = format!("{why}: {}", object.resource);
        effects.note(NoteCode::PrivilegeWidened, evidence.clone());
        let effect = Effect::new(Verb::Execute, &object.resource, evidence);
        effects.add(effect.at_least(EffectClass::Destructive));
    }
}

/// What only pods have: a part of one, as a patch applies it, has some of it.
const PARTS: &[&str] = &[
    "containers",
    "initContainers",
    "ephemeralContainers",
    "volumes",
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "nodeName",
];

/// Whatever has parts of a pod is one. How deep it goes is limited where it was read.
fn find(value: &Value, found: &mut Vec<&'static str>) {
    match value {
        Value::Object(map) => {
            let parts = PARTS.iter().filter_map(|part| map.get(*part));
            if parts
                .into_iter()
                .any(|part| part.is_array() || part.is_boolean() || part.is_string())
            {
                pod(value, found);
            }
            for inner in map.values() {
                find(inner, found);
            }
        }
        Value::Array(inner) => {
            for inner in inner {
                find(inner, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn pod(pod: &Value, found: &mut Vec<&'static str>) {
    for (key, why) in [
        ("hostNetwork", "a pod in the network of its node"),
        ("hostPID", "a pod among the processes of its node"),
        ("hostIPC", "a pod in the memory of its node"),
    ] {
        if is_true(at(pod, &[key])) {
            found.push(why);
        }
    }
    if list(at(pod, &["volumes"])).any(|volume| volume.get("hostPath").is_some()) {
        found.push("a pod with a folder of its node");
    }
    let listed = ["containers", "initContainers"].iter().any(|key| pod.get(key).is_some());
    if listed && pod.get("nodeName").is_some() {
        found.push("a pod put on a node past the scheduler");
    }
    if is_unconfined(at(pod, &["securityContext"])) {
        found.push("a pod without a filter of system calls");
    }
    let windows = at(pod, &["securityContext", "windowsOptions", "hostProcess"]);
    if is_true(windows) {
        found.push("a process of the node itself");
    }
    for kind in ["containers", "initContainers", "ephemeralContainers"] {
        for container in list(at(pod, &[kind])) {
            self::container(container, found);
        }
    }
}

fn container(container: &Value, found: &mut Vec<&'static str>) {
    let rights = at(container, &["securityContext"]);
    if is_true(at(rights, &["privileged"])) {
        found.push("a privileged container");
    }
    if is_true(at(rights, &["allowPrivilegeEscalation"])) {
        found.push("a container that may raise its rights");
    }
    if is_unconfined(rights) {
        found.push("a container without a filter of system calls");
    }
    if at(rights, &["procMount"]).as_str() == Some("Unmasked") {
        found.push("a container that sees all of `/proc`");
    }
    let added = list(at(rights, &["capabilities", "add"])).filter_map(Value::as_str);
    let mut strong = added.filter(|name| {
        let name = name.to_uppercase();
        !LISTS.mild_capabilities.contains(name.strip_prefix("CAP_").unwrap_or(&name))
    });
    if strong.next().is_some() {
        found.push("a container with more capabilities");
    }
    if list(at(container, &["ports"])).any(|port| port.get("hostPort").is_some()) {
        found.push("a port of the node");
    }
}

fn is_unconfined(rights: &Value) -> bool {
    ["seccompProfile", "appArmorProfile"]
        .iter()
        .any(|profile| at(rights, &[profile, "type"]).as_str() == Some("Unconfined"))
}
