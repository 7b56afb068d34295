//! Kubernetes: what writing or deleting objects would do to a cluster.
//!
//! Owns the reading of manifests, YAML or JSON, and the addresses of objects. Must never skip a
//! document of a manifest, nor expand one without a limit.

use crate::effects::{Effects, NoteCode, TEXT_BYTES_MAX};
use crate::yaml;
use holdpoint_types::{Certainty, Effect, EffectClass, Extent, JsonLimits, Reversibility, Verb};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

mod access;
mod network;
mod pods;

/// Deepest nesting of an object.
const DEPTH_MAX: usize = 40;
/// Stands for the namespace of what belongs to none.
const NO_NAMESPACE: &str = "_cluster";

static LISTS: LazyLock<Lists> =
    LazyLock::new(|| toml::from_str(include_str!("../data/kubernetes.toml")).unwrap_or_default());

/// What is known about kinds and verbs.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    cluster_scoped: BTreeSet<String>,
    stateful: BTreeSet<String>,
    access: BTreeSet<String>,
    questions: BTreeSet<String>,
    system_namespaces: BTreeSet<String>,
    raising_verbs: BTreeSet<String>,
    raising_resources: BTreeSet<String>,
    wide_roles: BTreeSet<String>,
    wide_subjects: BTreeSet<String>,
    mild_capabilities: BTreeSet<String>,
    verbs: BTreeMap<String, Verb>,
    aliases: BTreeMap<String, String>,
}

/// The cluster that objects are written to, as its operator describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its typed address: `k8s://prod`. An object is `{address}/{namespace}/{kind}/{name}`, the
    /// kind in the singular and lower case, the namespace `_cluster` for what belongs to none.
    pub address: String,
    /// The namespace of an object that names none.
    pub namespace: String,
}

/// Objects as a `kubectl`-like call names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Objects<'a> {
    /// The kind: singular, plural or short, with or without a group.
    pub kind: &'a str,
    /// The name of one object; none for all of them, or those that a selector matches.
    pub name: Option<&'a str>,
    /// The namespace; none for the usual one, `*` for all.
    pub namespace: Option<&'a str>,
}

/// One object of a manifest.
struct Object<'m> {
    kind: String,
    resource: String,
    namespace: String,
    body: &'m Value,
}

// === impl Object ===

impl Object<'_> {
    fn get(&self, path: &[&str]) -> &Value {
        at(self.body, path)
    }
}

// === functions ===

/// Adds to `effects` what doing `verb` (one of create, update, delete and read) with all objects
/// of the manifest `text` would do.
pub fn kubernetes_manifest(text: &str, cluster: &Cluster, verb: Verb, effects: &mut Effects) {
    let address = cluster.address.as_str();
    if text.len() > TEXT_BYTES_MAX {
        let evidence = format!("a manifest of {} bytes", text.len());
        return effects.add_opaque(address, NoteCode::TooLarge, evidence);
    }
    let Some(documents) = documents(text) else {
        return effects.add_opaque(address, NoteCode::Unreadable, "a manifest that is no YAML");
    };
    for document in &documents {
        write(document, cluster, verb, effects);
    }
    if effects.class().is_none() {
        effects.add(Effect::new(Verb::Read, address, "a manifest without objects"));
    }
}

/// Adds to `effects` what the `kubectl` verb `verb` would do to `objects`.
pub fn kubernetes_verb(
    verb: &str,
    objects: &Objects<'_>,
    cluster: &Cluster,
    effects: &mut Effects,
) {
    let kind = kind_of(objects.kind);
    let namespace = match objects.namespace {
        _ if LISTS.cluster_scoped.contains(&kind) => NO_NAMESPACE,
        Some(namespace) => namespace,
        None => cluster.namespace.as_str(),
    };
    let name = objects.name.unwrap_or("*");
    let resource = match kind.as_str() {
        "all" => format!("{}/{namespace}/*", cluster.address),
        kind => format!("{}/{namespace}/{kind}/{name}", cluster.address),
    };
    let Some(found) = LISTS.verbs.get(verb) else {
        let evidence = format!("the verb `{verb}` is not known");
        return effects.add_opaque(&resource, NoteCode::Unreadable, evidence);
    };
    let evidence = format!("`{verb}` of {kind}");
    if verb == "drain" || (verb == "delete" && kind == "node") {
        effects.note(NoteCode::MassChange, "every pod of a node is evicted");
    }
    if *found == Verb::Delete && verb != "drain" && verb != "evict" {
        let reach = if objects.name.is_none() { Extent::Whole } else { Extent::Part };
        return delete(&kind, &resource, reach, effects);
    }
    if *found == Verb::Execute {
        effects.note(NoteCode::UnseenCode, evidence.clone());
    }
    let mut effect = Effect::new(*found, &resource, evidence.clone());
    if *found == Verb::Execute {
        effect = effect.at_least(EffectClass::Destructive);
    }
    if *found > Verb::Read && objects.name.is_none() {
        effect = effect.whole();
        effects.note(NoteCode::MassChange, evidence.clone());
    }
    if *found > Verb::Read && LISTS.access.contains(&kind) {
        effects.note(NoteCode::PrivilegeWidened, evidence.clone());
        effects.add(Effect::new(Verb::Grant, &resource, evidence));
    }
    if kind == "secret" {
        effects.note(NoteCode::CredentialTouched, "a secret");
    }
    effects.add(guarded(effect, namespace));
}

/// All documents of a manifest; none if one cannot be read.
fn documents(text: &str) -> Option<Vec<Value>> {
    if text.trim_start().starts_with('{') {
        let limits = JsonLimits { bytes_max: TEXT_BYTES_MAX, depth_max: DEPTH_MAX };
        if let Ok(value) = holdpoint_types::parse(text.as_bytes(), limits) {
            return Some(vec![value]);
        }
    }
    yaml::documents(text)
}

fn write(document: &Value, cluster: &Cluster, verb: Verb, effects: &mut Effects) {
    if document.is_null() {
        return;
    }
    let kind = document.get("kind").and_then(Value::as_str).unwrap_or("");
    if let (true, Some(items)) =
        (kind.ends_with("List"), document.get("items").and_then(Value::as_array))
    {
        for item in items {
            write(item, cluster, verb, effects);
        }
        return;
    }
    match object(document, cluster) {
        Some(object) => write_object(&object, verb, effects),
        None => {
            let evidence = "a document that is no object";
            effects.add_opaque(&cluster.address, NoteCode::Unreadable, evidence);
        }
    }
}

fn object<'m>(body: &'m Value, cluster: &Cluster) -> Option<Object<'m>> {
    body.get("apiVersion")?.as_str()?;
    let kind = body.get("kind")?.as_str()?.to_lowercase();
    let metadata = body.get("metadata")?;
    let name = match (metadata.get("name"), metadata.get("generateName")) {
        (Some(name), _) => name.as_str()?.to_owned(),
        (None, Some(start)) => format!("{}*", start.as_str()?),
        (None, None) if LISTS.questions.contains(&kind) => "*".to_owned(),
        (None, None) => return None,
    };
    let namespace = match metadata.get("namespace") {
        _ if LISTS.cluster_scoped.contains(&kind) => NO_NAMESPACE.to_owned(),
        Some(namespace) => namespace.as_str()?.to_owned(),
        None => cluster.namespace.clone(),
    };
    let odd = |text: &str| text.is_empty() || text.contains(['/', '%', ' ']);
    if odd(&kind) || odd(&name) || odd(&namespace) {
        return None;
    }
    let resource = format!("{}/{namespace}/{kind}/{name}", cluster.address);
    Some(Object { kind, resource, namespace, body })
}

fn write_object(object: &Object<'_>, verb: Verb, effects: &mut Effects) {
    let kind = object.kind.as_str();
    let resource = object.resource.as_str();
    if kind == "secret" {
        effects.note(NoteCode::CredentialTouched, format!("a secret: {resource}"));
    }
    match verb {
        _ if LISTS.questions.contains(kind) => {
            return effects.add(Effect::new(Verb::Read, resource, "asks a question"));
        }
        Verb::Delete => return delete(kind, resource, Extent::Part, effects),
        Verb::Read => return effects.add(Effect::new(Verb::Read, resource, "looks")),
        Verb::Create | Verb::Update => {}
        Verb::Grant | Verb::Send | Verb::Execute | Verb::Schedule | Verb::Unknown => {
            let evidence = format!("`{verb}` of a manifest");
            return effects.add_opaque(resource, NoteCode::Unreadable, evidence);
        }
    }
    let effect = Effect::new(verb, resource, format!("{verb} of a {kind}"));
    let effect = match object.resource.ends_with('*') {
        true => effect.no_surer_than(Certainty::Bounded),
        false => effect,
    };
    effects.add(guarded(effect, &object.namespace));
    if verb == Verb::Update {
        directives(object, effects);
    }
    if is_nothing(at(object.body, &["spec", "replicas"])) && verb != Verb::Create {
        let evidence = format!("no copies of a {kind} are left");
        let effect = Effect::new(Verb::Delete, resource, evidence).whole();
        effects.add(effect.reversible(Reversibility::Compensable));
    }
    if kind == "cronjob" {
        effects.note(NoteCode::DeferredExecution, format!("runs later: {resource}"));
        effects.add(Effect::new(Verb::Schedule, resource, "a `CronJob`"));
    }
    access::look(object, effects);
    network::look(object, effects);
    pods::look(object, effects);
}

/// What a strategic merge patch says it takes away.
fn directives(object: &Object<'_>, effects: &mut Effects) {
    let takes = |(key, value): (&String, &Value)| {
        key == "$patch" && matches!(value.as_str(), Some("delete" | "replace"))
            || key == "$retainKeys"
            || key.starts_with("$deleteFromPrimitiveList/")
    };
    if object.body.get("$patch").and_then(Value::as_str) == Some("delete") {
        return delete(&object.kind, &object.resource, Extent::Part, effects);
    }
    if object.body.as_object().is_some_and(|map| map.iter().any(takes)) {
        let evidence = "the patch takes the object away or replaces it";
        let effect = Effect::new(Verb::Delete, &object.resource, evidence).whole();
        return effects.add(effect.no_surer_than(Certainty::Bounded));
    }
    let mut waiting = vec![object.body];
    while let Some(value) = waiting.pop() {
        match value {
            Value::Object(map) if map.iter().any(takes) => {
                let evidence = "the patch takes a part away or replaces it";
                let effect = Effect::new(Verb::Delete, &object.resource, evidence);
                return effects.add(effect.no_surer_than(Certainty::Bounded));
            }
            Value::Object(map) => waiting.extend(map.values()),
            Value::Array(list) => waiting.extend(list),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

/// True for no copies, however the number is written.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64().is_some_and(|number| number <= 0.0),
        Value::String(text) => {
            let text = text.trim().trim_start_matches(['+', '-']).to_lowercase();
            let digits = ["0x", "0o", "0b"].iter().find_map(|prefix| text.strip_prefix(prefix));
            let digits = digits.unwrap_or(text.split('e').next().unwrap_or(&text));
            !digits.is_empty() && digits.chars().all(|c| "0._".contains(c))
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
    }
}

/// What the cluster itself lives in is no place for mild changes.
fn guarded(effect: Effect, namespace: &str) -> Effect {
    match effect.verb != Verb::Read && LISTS.system_namespaces.contains(namespace) {
        true => effect.at_least(EffectClass::Destructive),
        false => effect,
    }
}

/// What hangs on an object goes with it.
fn delete(kind: &str, resource: &str, reach: Extent, effects: &mut Effects) {
    let all = reach == Extent::Whole || kind == "all";
    let evidence = format!("deletes a {kind}");
    let stateful = LISTS.stateful.contains(kind);
    let ceiling = match stateful || all {
        true => Reversibility::Irreversible,
        false => Reversibility::Compensable,
    };
    let effect = Effect::new(Verb::Delete, resource, evidence.clone()).whole();
    effects.add(effect.reversible(ceiling));
    if stateful {
        effects.note(NoteCode::StatefulDelete, format!("{evidence}: {resource}"));
    }
    if all {
        effects.note(NoteCode::MassChange, format!("deletes more than one {kind}"));
    }
    let mut cascade = |reach: String| {
        let effect = Effect::new(Verb::Delete, reach, "goes with what is deleted").whole();
        effects.add(effect.no_surer_than(Certainty::Bounded));
    };
    match (kind, resource.split_once(&format!("/{NO_NAMESPACE}/{kind}/"))) {
        ("namespace", Some((cluster, name))) => cascade(format!("{cluster}/{name}/*")),
        ("customresourcedefinition", Some((cluster, name))) => {
            let custom = name.split_once('.').map_or(name, |(plural, _)| plural);
            cascade(format!("{cluster}/*/{}/*", kind_of(custom)));
        }
        _ => {}
    }
    if LISTS.access.contains(kind) {
        effects.add(Effect::new(Verb::Grant, resource, "who may do what is changed"));
    }
    if kind == "networkpolicy" {
        effects.note(NoteCode::NetworkWidened, format!("a network policy ends: {resource}"));
    }
    if kind == "secret" {
        effects.note(NoteCode::CredentialTouched, format!("a secret: {resource}"));
    }
}

/// The kind in the singular and lower case, without its group.
fn kind_of(text: &str) -> String {
    let text = text.to_lowercase();
    let text = text.split('.').next().unwrap_or("");
    if let Some(kind) = LISTS.aliases.get(text) {
        return kind.clone();
    }
    match text.strip_suffix("ies") {
        Some(stem) => format!("{stem}y"),
        None if text.ends_with("ss") => text.to_owned(),
        None => text.strip_suffix('s').unwrap_or(text).to_owned(),
    }
}

/// What stands at `path` in `value`; null if nothing does.
fn at<'v>(value: &'v Value, path: &[&str]) -> &'v Value {
    path.iter().try_fold(value, |value, key| value.get(*key)).unwrap_or(&Value::Null)
}

/// The elements of a list; none if it is anything else.
fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// True as the API server's YAML has it, which knows more words for it than this one.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Bool(yes) => *yes,
        Value::String(text) => ["true", "yes", "on", "y"].contains(&text.to_lowercase().as_str()),
        Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{Cluster, Effects, LISTS, Objects, kind_of, kubernetes_verb};
    use expect_test::{Expect, expect};

    fn of(verb: &str, kind: &str, name: Option<&str>) -> String {
        let cluster = Cluster { address: "k8s://c".to_owned(), namespace: "shop".to_owned() };
        let mut effects = Effects::default();
        let objects = Objects { kind, name, namespace: None };
        kubernetes_verb(verb, &objects, &cluster, &mut effects);
        let mut out = format!("{verb} {kind} {}\n", name.unwrap_or("-"));
        for effect in effects.iter() {
            let (verb, class) = (effect.verb, effect.class);
            out.push_str(&format!("  {verb} {class} {} {:?}\n", effect.resource, effect.extent));
        }
        for note in effects.notes() {
            out.push_str(&format!("  ! {}\n", note.code.as_str()));
        }
        out
    }

    fn check(calls: &[(&str, &str, Option<&str>)], expected: Expect) {
        let out: String = calls.iter().map(|(verb, kind, name)| of(verb, kind, *name)).collect();
        expected.assert_eq(&out);
    }

    #[test]
    fn verbs_of_kubectl_that_look_or_change() {
        let calls = [
            ("get", "po", None),
            ("get", "secrets", Some("db")),
            ("scale", "deploy", Some("api")),
            ("create", "clusterrolebinding", Some("b")),
            ("certificate approve", "csr", Some("x")),
            ("obliterate", "pod", Some("x")),
        ];
        check(
            &calls,
            expect![[r#"
            get po -
              read read k8s://c/shop/pod/* Part
            get secrets db
              read read k8s://c/shop/secret/db Part
              ! credential_touched
            scale deploy api
              update write k8s://c/shop/deployment/api Part
            create clusterrolebinding b
              create write k8s://c/_cluster/clusterrolebinding/b Part
              grant destructive k8s://c/_cluster/clusterrolebinding/b Part
              ! privilege_widened
            certificate approve csr x
              grant destructive k8s://c/_cluster/certificatesigningrequest/x Part
              ! privilege_widened
            obliterate pod x
              unknown destructive k8s://c/shop/pod/x Whole
              ! unreadable
        "#]],
        );
    }

    #[test]
    fn verbs_of_kubectl_that_delete_or_run() {
        let calls = [
            ("delete", "pods", Some("api-1")),
            ("delete", "ns", Some("shop")),
            ("delete", "all", None),
            ("delete", "pvc", None),
            ("drain", "node", Some("n1")),
            ("exec", "pod", Some("api-1")),
        ];
        check(
            &calls,
            expect![[r#"
            delete pods api-1
              delete destructive k8s://c/shop/pod/api-1 Whole
            delete ns shop
              delete destructive k8s://c/_cluster/namespace/shop Whole
              delete destructive k8s://c/shop/* Whole
              ! stateful_delete
            delete all -
              delete destructive k8s://c/shop/* Whole
              ! mass_change
            delete pvc -
              delete destructive k8s://c/shop/persistentvolumeclaim/* Whole
              ! mass_change
              ! stateful_delete
            drain node n1
              delete destructive k8s://c/_cluster/node/n1 Part
              ! mass_change
            exec pod api-1
              execute destructive k8s://c/shop/pod/api-1 Part
              ! unseen_code
        "#]],
        );
    }

    #[test]
    fn lists_can_be_read_and_kinds_have_one_name() {
        assert!(LISTS.verbs.len() > 30);
        for (text, kind) in [
            ("deploy", "deployment"),
            ("Deployments.apps", "deployment"),
            ("networkpolicies", "networkpolicy"),
            ("ingress", "ingress"),
            ("ns", "namespace"),
            ("endpoints", "endpoints"),
        ] {
            assert_eq!(kind_of(text), kind);
        }
    }
}
