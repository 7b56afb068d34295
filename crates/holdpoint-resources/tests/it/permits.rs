//! Permits for tests, minted the only way there is: by the control state machine.

use holdpoint_control::{Control, Input, Output, Permit, Proposal};
use holdpoint_types::{
    ActionId, ApprovalAsked, ApprovalFacts, Cause, Decision, Digest, Door, Epoch, Facts,
    GrantFacts, Reason, Request, Ruling, TargetFacts, Timestamp, ToolRef, canonical_digest,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The time of every test.
pub const NOW: Timestamp = Timestamp(1_000_000);

/// A permit for one call.
pub fn permit(tool: &ToolRef, parameters: &Value) -> Permit {
    permit_with(tool, parameters, None)
}

/// A permit for one call that a person approved.
pub fn approved(tool: &ToolRef, parameters: &Value) -> Permit {
    let (id, binding) = (ActionId::new(NOW, [6; 10]), Digest::of(b"binding"));
    let asked = ApprovalAsked {
        id,
        binding,
        needs: Default::default(),
        expires_ms: Timestamp(NOW.0 + 1000),
        requester: None,
        instead_of: None,
    };
    permit_with(
        tool,
        parameters,
        Some(ApprovalFacts { asked, given: BTreeMap::new(), denied: None }),
    )
}

fn permit_with(tool: &ToolRef, parameters: &Value, approval: Option<ApprovalFacts>) -> Permit {
    let action = ActionId::new(NOW, [7; 10]);
    let proposal = Proposal {
        request: Request {
            action,
            agent: "coder".parse().unwrap(),
            door: Door::McpStdio,
            tool: tool.clone(),
            parameters: parameters.clone(),
            task: None,
            intent: None,
            retrieved: Vec::new(),
            host_call: None,
            at: NOW,
        },
        facts: Facts {
            agent: None,
            tool: None,
            grant: GrantFacts::default(),
            target: TargetFacts {
                resource: "mcp://peer".to_owned(),
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
            approval,
            plan: None,
        },
        decision: Decision::from_iter([Cause::new(Ruling::Permit, Reason::PermittedByPolicy, "")]),
        policy: Digest::of(b"policy"),
        guards: Default::default(),
        parameters: canonical_digest(parameters).unwrap(),
        checks: Vec::new(),
        approval: None,
    };
    let mut control = Control::default();
    control.handle(Input::Proposed(Box::new(proposal)), NOW);
    let outputs = control.handle(Input::Recorded(action), NOW);
    match outputs.into_iter().next() {
        Some(Output::Execute(permit)) => permit,
        other => panic!("no permit: {other:?}"),
    }
}
