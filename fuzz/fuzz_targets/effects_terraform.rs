//! Plans, manifests and policy documents: any text has an answer, and a resource that is deleted
//! beside others is still deleted. The first byte says which. Must never read a state.

#![no_main]

use holdpoint_effects::{Cluster, Effects, iam, kubernetes_manifest, terraform};
use holdpoint_types::{EffectClass, Verb};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

fuzz_target!(|data: &[u8]| {
    let Some((kind, text)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(text);
    let mut effects = Effects::default();
    match kind % 4 {
        0 | 1 => plan(&text, &mut effects),
        2 => {
            let (before, after) = text.split_once('\0').unwrap_or(("{}", &text));
            iam(Some(before), after, "aws://prod/role/ci", &mut effects);
        }
        _ => {
            let verb = if kind & 4 == 0 { Verb::Update } else { Verb::Delete };
            let cluster = Cluster { address: "k8s://prod".into(), namespace: "default".into() };
            kubernetes_manifest(&text, &cluster, verb, &mut effects);
        }
    }
    assert!(effects.class().is_some(), "a document that does nothing at all");
    assert!(!effects.is_opaque() || effects.class() == Some(EffectClass::Destructive));
});

fn plan(text: &str, effects: &mut Effects) {
    terraform(text, "prod", effects);
    let Ok(Value::Object(mut plan)) = serde_json::from_str(text) else { return };
    let Some(changes) = plan.get_mut("resource_changes").and_then(Value::as_array_mut) else {
        return;
    };
    changes.push(json!({
        "address": "aws_db_instance.fuzz", "mode": "managed", "type": "aws_db_instance",
        "name": "fuzz", "change": {"actions": ["delete"], "before": {}, "after": null},
    }));
    let mut more = Effects::default();
    terraform(&Value::Object(plan).to_string(), "prod", &mut more);
    assert_eq!(more.class(), Some(EffectClass::Destructive), "a deletion is hidden");
}
