//! Policy files: any text is loaded whole or refused with its faults, and a loaded set holds every
//! policy that Cedar sees in it. Files are separated by NUL. Must never read a disk.

#![no_main]

use cedar_policy::PolicySet as CedarSet;
use holdpoint_policy::{PolicySet, RuleEffect};
use holdpoint_types::{
    ActionId, AgentFacts, ClassSource, Digest, Door, EffectClass, Epoch, Facts, GrantFacts, Mode,
    PolicySource, Request, TargetFacts, Timestamp, ToolFacts, ToolState,
};
use libfuzzer_sys::fuzz_target;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// The stack of the threads that load policies in the product.
const STACK_BYTES: usize = 2 << 20;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let text = text.to_owned();
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
    let thread = thread.spawn(move || load(&text)).expect("a thread");
    thread.join().expect("a panic ends the process before");
});

fn load(text: &str) {
    let sources: Vec<_> = text.split('\0').take(4).enumerate().map(source).collect();
    match PolicySet::load(&sources) {
        Ok(set) => loaded(&set, &sources),
        Err(faults) => {
            assert!(!faults.is_empty(), "refused without a reason");
            for fault in &faults {
                let file = sources.iter().find(|source| source.name == fault.file);
                let lines = file.expect("a fault names its file").text.split('\n').count();
                assert!((1..=lines).contains(&fault.line) && fault.column >= 1, "{fault}");
                assert!(!fault.message.is_empty() && !fault.message.contains('\n'), "{fault}");
            }
        }
    }
}

fn source((number, text): (usize, &str)) -> PolicySource {
    PolicySource { name: format!("{number}.cedar"), text: text.to_owned() }
}

fn loaded(set: &PolicySet, sources: &[PolicySource]) {
    let cedar = |source: &PolicySource| {
        let read: CedarSet = source.text.parse().expect("what is loaded is Cedar");
        assert_eq!(read.templates().count(), 0, "a template is no rule");
        read.policies().count()
    };
    assert_eq!(set.len(), sources.iter().map(cedar).sum::<usize>(), "a policy was lost or made");
    let mut ids = BTreeSet::new();
    for rule in set.rules() {
        assert!(ids.insert(&rule.id), "two rules called `{}`", rule.id);
        assert!(!rule.reason.trim().is_empty() && !rule.reason.contains('\n'));
        assert!(rule.hold.is_none() || rule.effect == RuleEffect::Permit, "a held `forbid`");
        assert_eq!(set.rule(&rule.id).map(|found| found.line), Some(rule.line));
    }
    let again = PolicySet::load(sources).expect("loaded again with the same end");
    assert_eq!(again.digest(), set.digest());
    for class in [EffectClass::Read, EffectClass::Write, EffectClass::Destructive] {
        let (request, facts) = call(class);
        let (mut slice, mut whole) =
            (set.evaluate(&request, &facts), set.evaluate_whole(&request, &facts));
        slice.sort();
        whole.sort();
        assert_eq!(slice, whole, "the slice decides otherwise than the whole set");
    }
}

fn call(class: EffectClass) -> (Request, Facts) {
    let request = Request {
        action: ActionId::new(Timestamp(0), [0; 10]),
        agent: "coder".parse().expect("a name"),
        door: Door::McpStdio,
        tool: "fs__write_file".parse().expect("a name"),
        parameters: json!({ "path": "/srv/app/x", "options": [{ "mode": 420 }], "on": true }),
        task: None,
        intent: None,
        retrieved: Vec::new(),
        at: Timestamp(0),
        host_call: None,
    };
    let owner = Some("platform".parse().expect("a name"));
    let facts = Facts {
        agent: Some(AgentFacts { owner, mode: Mode::Auto }),
        tool: Some(ToolFacts {
            definition: Digest::of(b"definition"),
            state: ToolState::Pinned,
            class,
            class_source: ClassSource::Operator,
            open_world: false,
        }),
        grant: GrantFacts { by: Some("fs__write_file".to_owned()) },
        target: TargetFacts {
            resource: "file:///srv/app/x".to_owned(),
            environment: "dev".to_owned(),
            environment_resolved: true,
            surfaces: ["prod".to_owned()].into(),
        },
        effects: Vec::new(),
        freezes: BTreeSet::new(),
        stops: Vec::new(),
        epoch: Epoch(0),
        findings: Vec::new(),
        preview: None,
        unseen: None,
        approval: None,
        plan: None,
        freeze_exceptions: BTreeMap::new(),
    };
    (request, facts)
}
