//! `kubectl`: objects that a command line names or a manifest holds go to the analyser of
//! Kubernetes.
//!
//! Owns how a command line names objects. It must never judge an object itself.

use super::{Argv, Call, Looks, apply, unlisted};
use crate::Effects;
use crate::kubernetes::{Cluster, Objects, kubernetes_manifest, kubernetes_verb};
use crate::shell::{Feed, Shell};
use crate::words::Arg;
use holdpoint_types::Verb;

/// Most objects of one call that are told apart.
const OBJECTS_MAX: usize = 16;

/// Adds what one call of `kubectl` does.
pub(super) fn run(shell: &mut Shell<'_>, call: &Call<'_>) {
    let argv = call.options(None).part(call.args);
    let mut words = argv.operands.iter();
    let verb = words.next().and_then(Arg::exact).unwrap_or_default();
    let file = argv.value("-f").or_else(|| argv.value("--filename"));
    let dry = argv.has_any(&call.program.dry);
    let written = match verb {
        "apply" | "replace" => Some(Verb::Update),
        "create" => Some(Verb::Create),
        "delete" => Some(Verb::Delete),
        _ => None,
    };
    let cluster = cluster(&argv);
    let mut effects = Effects::default();
    match (written, file, call.feed) {
        (Some(written), Some(file), Feed::Text(text))
            if !dry && matches!(file.text.as_str(), "-" | "/dev/stdin") && !text.is_unknown() =>
        {
            kubernetes_manifest(&text.text, &cluster, written, &mut effects);
        }
        (Some(Verb::Delete), None, _) if !dry && !argv.has("-k") => {
            let named: Vec<Arg> = words.cloned().collect();
            delete(&named, &argv, &cluster, &mut effects);
        }
        _ => {}
    }
    match effects.is_empty() {
        true => apply(shell, call),
        false => {
            unlisted(shell, call, &argv, Looks::AndMore);
            shell.take(effects);
        }
    }
}

fn cluster(argv: &Argv) -> Cluster {
    let name = argv.value("--context").or_else(|| argv.value("--cluster"));
    let name = name.map_or_else(|| "*".to_owned(), Arg::shown);
    Cluster { address: format!("k8s://{name}"), namespace: "default".to_owned() }
}

/// `delete kind name…`, `delete kind/name…` and `delete kind,kind`.
fn delete(named: &[Arg], argv: &Argv, cluster: &Cluster, effects: &mut Effects) {
    let everywhere = argv.has("-A") || argv.has("--all-namespaces");
    let namespace = argv.value("-n").or_else(|| argv.value("--namespace")).map(Arg::shown);
    let namespace = if everywhere { Some("*".to_owned()) } else { namespace };
    let mut add = |kind: &str, name: Option<&str>| {
        let objects = Objects { kind, name, namespace: namespace.as_deref() };
        kubernetes_verb("delete", &objects, cluster, effects);
    };
    let shown: Vec<String> = named.iter().map(Arg::shown).collect();
    let Some((first, rest)) = shown.split_first() else { return };
    if first.contains('/') {
        for object in shown.iter().take(OBJECTS_MAX) {
            match object.split_once('/') {
                Some((kind, name)) => add(kind, Some(name)),
                None => add(object, None),
            }
        }
    } else {
        for kind in first.split(',').take(OBJECTS_MAX) {
            match rest {
                [] => add(kind, None),
                names => names.iter().take(OBJECTS_MAX).for_each(|name| add(kind, Some(name))),
            }
        }
    }
    if shown.len() > OBJECTS_MAX {
        add("all", None);
    }
}
