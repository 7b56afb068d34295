//! Calls and sets for the tests.

use holdpoint_policy::PolicySet;
use holdpoint_types::{
    ActionId, AgentFacts, Cause, ClassSource, Digest, Door, EffectClass, Epoch, Facts, GrantFacts,
    Mode, PolicySource, Request, TargetFacts, Timestamp, ToolFacts, ToolState,
};
use serde_json::json;
use std::collections::BTreeSet;

/// One call by `coder`, owned by `platform`, of `fs__write_file`, granted, in `dev`.
pub(crate) fn call(class: EffectClass) -> (Request, Facts) {
    let request = Request {
        action: ActionId::new(Timestamp(0), [0; 10]),
        agent: "coder".parse().unwrap(),
        door: Door::McpStdio,
        tool: "fs__write_file".parse().unwrap(),
        parameters: json!({ "path": "/srv/app/x", "options": [{ "mode": 420 }] }),
        task: None,
        intent: None,
        retrieved: Vec::new(),
        host_call: None,
        at: Timestamp(0),
    };
    let definition = Digest::of(b"definition");
    let (state, class_source) = (ToolState::Pinned, ClassSource::Operator);
    let agent = AgentFacts { owner: Some("platform".parse().unwrap()), mode: Mode::Auto };
    let facts = Facts {
        agent: Some(agent),
        tool: Some(ToolFacts { definition, state, class, class_source, open_world: false }),
        grant: GrantFacts { by: Some("fs__write_file".to_owned()) },
        target: TargetFacts {
            resource: "file:///srv/app/x".to_owned(),
            environment: "dev".to_owned(),
            environment_resolved: true,
            surfaces: BTreeSet::new(),
        },
        effects: Vec::new(),
        freezes: BTreeSet::new(),
        freeze_exceptions: Default::default(),
        stops: Vec::new(),
        epoch: Epoch(0),
        findings: Vec::new(),
        preview: None,
        unseen: None,
        approval: None,
        plan: None,
    };
    (request, facts)
}

pub(crate) fn source(name: &str, text: &str) -> PolicySource {
    PolicySource { name: name.to_owned(), text: text.to_owned() }
}

/// A set out of one file without faults.
pub(crate) fn set(text: &str) -> PolicySet {
    PolicySet::load(&[source("test.cedar", text)]).unwrap()
}

/// One line for each cause.
pub(crate) fn lines(causes: &[Cause]) -> String {
    let line = |cause: &Cause| {
        let rule = cause.rule.as_deref().unwrap_or("-");
        let approval = cause.approval.as_ref().map_or_else(String::new, |who| format!(" [{who}]"));
        format!("{} {} {rule}{approval}:\n    {}", cause.ruling, cause.reason, cause.text)
    };
    causes.iter().map(line).collect::<Vec<_>>().join("\n")
}
