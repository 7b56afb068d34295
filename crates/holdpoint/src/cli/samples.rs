//! Records for tests: one of each kind, with hostile text where agents and servers can put some.
//! Must not be used outside tests.

use holdpoint_ledger::{encode, leaf_hash};
use holdpoint_server::store::StoredRecord;
use holdpoint_types::{
    ActionId, ActionRecord, AgentFacts, AgentName, ApprovalRecord, AskedRecord, AskedRuling, Cause,
    ChangeCounts, CheckRecord, ClassSource, Decision, DecisionRecord, Digest, Door, EffectClass,
    Epoch, Facts, Field, Finding, FindingResult, GatewayId, GrantFacts, Intent, IntentSource,
    Lineage, Mode, OutcomeRecord, OutcomeStatus, Plan, PlanBasis, PlanCode, PlanDraft, PlanEnd,
    PlanEnded, PlanId, PlanLooked, PlanNote, PlanProposed, PlanRuled, PlanSeverity, PolicySource,
    Reason, Record, RecordBody, RepliedRecord, ReplyStatus, Request, RevertConflict, RevertRecord,
    RevertStatus, Ruling, Severity, Stop, TargetFacts, TaskId, TaskRecord, TeamName, TimedGrant,
    Timestamp, ToolFacts, ToolOutput, ToolRef, ToolState,
};
use serde_json::json;
use std::collections::BTreeSet;

const AT: Timestamp = Timestamp(1_753_000_000_000);

/// `body` as the store gives it out.
pub fn stored(seq: u64, body: RecordBody) -> StoredRecord {
    let record = Record { at_ms: AT, gateway: GatewayId::new(AT, [1; 10]), body };
    let bytes = encode(&record).unwrap();
    StoredRecord { seq, leaf: leaf_hash(&bytes), bytes, record }
}

/// A permitted call.
pub fn permitted() -> StoredRecord {
    let cause = Cause::new(Ruling::Permit, Reason::PermittedByPolicy, "reads are fine in grants");
    let decision = Decision::from_iter([cause.by_rule("reads")]);
    stored(2, decided((EffectClass::Read, "fs__read_file"), decision, facts(None)))
}

/// A denied call: everything speaks against it.
pub fn denied() -> StoredRecord {
    let causes = [
        Cause::new(Ruling::Halt, Reason::Stopped, "it deletes").by_rule("stop 7 on agent:coder"),
        Cause::new(Ruling::Deny, Reason::DestructiveNotGranted, "no grant reaches it"),
        Cause::new(Ruling::Hold, Reason::PolicyHolds, "production needs a yes")
            .by_rule("hold-prod")
            .needing("owner"),
    ];
    let facts = facts(Some(stop()));
    let body = decided((EffectClass::Destructive, "fs__rm"), Decision::from_iter(causes), facts);
    stored(12, body)
}

/// The outcome of [`permitted`]: an output that tries to write to the terminal.
pub fn outcome() -> StoredRecord {
    let text = (1..12).map(|line| format!("line {line}\u{1b}[31m\u{202e}\n")).collect::<String>();
    let body = json!({ "content": [{ "type": "text", "text": text }] }).to_string();
    let output = ToolOutput {
        digest: Digest::of(body.as_bytes()),
        bytes: u64::try_from(body.len()).unwrap(),
        body: Some(body),
    };
    let tool = "fs__read_file".parse().unwrap();
    let mut lineage = lineage(&tool);
    lineage.tool_output = Field::Present(output);
    let more = OutcomeRecord {
        status: OutcomeStatus::ToolError,
        reason: Some(Reason::UpstreamTimeout),
        detail: Some("the server said \u{9b}2J nothing".to_owned()),
        duration_ms: 1234,
        checks: Vec::new(),
    };
    let agent = "coder".parse().unwrap();
    stored(
        3,
        RecordBody::Outcome(Box::new(ActionRecord { action: action(), agent, lineage, more })),
    )
}

/// One record of each kind.
pub fn one_of_each() -> Vec<StoredRecord> {
    let tool = || -> ToolRef { "fs__write_file".parse().unwrap() };
    let digest = |text: &str| Digest::of(text.as_bytes());
    let by = || "ada".to_owned();
    let version = "0.1.0".to_owned();
    let sources = vec![PolicySource { name: "starter.cedar".to_owned(), text: String::new() }];
    let loaded = RecordBody::PolicyLoaded { policy: digest("policy"), sources, guard: None };
    let configuration = digest("configuration");
    let in_doubt = vec![action()];
    let (id, scope, reason) = (7, "agent:coder".parse().unwrap(), "looked at".to_owned());
    let (agent, owner) = ("coder".parse().unwrap(), "platform".parse().unwrap());
    vec![
        stored(0, RecordBody::Started { version, configuration, in_doubt }),
        stored(1, loaded),
        permitted(),
        outcome(),
        denied(),
        stored(13, pinned(tool(), digest("one"), None)),
        stored(14, pinned(tool(), digest("two"), Some(digest("one")))),
        stored(15, quarantined(tool(), digest("two"), digest("three"))),
        stored(16, RecordBody::Stopped { stop: stop(), epoch: Epoch(4) }),
        stored(17, RecordBody::Released { id, scope, reason, by: by(), epoch: Epoch(5) }),
        stored(18, key_issued(agent, owner)),
        stored(19, RecordBody::KeysRevoked { agent: "coder".parse().unwrap(), by: by() }),
        stored(20, RecordBody::SettingsLoaded { configuration }),
        stored(21, asked()),
        stored(22, replied()),
        stored(23, credential_issued()),
        stored(24, credential_deleted()),
        stored(25, task_given()),
        stored(26, checked()),
        stored(27, RecordBody::FoundInDoubt { in_doubt: vec![action()] }),
        stored(28, RecordBody::Approved(Box::new(said(&["owner", "dba"])))),
        stored(29, RecordBody::Disapproved(Box::new(said(&[])))),
        stored(30, RecordBody::Granted(Box::new(granted()))),
        stored(31, grant_revoked()),
        stored(32, RecordBody::Reverted(Box::new(reverted()))),
        stored(33, plan_proposed()),
        stored(34, RecordBody::PlanAccepted(plan_ruled("it is fine"))),
        stored(35, RecordBody::PlanRefused(plan_ruled("not \u{1b}[2J now"))),
        stored(36, plan_ended()),
        stored(37, expired()),
        stored(38, plan_looked(None)),
        stored(39, plan_looked(Some("three \u{1b}[2J are left"))),
    ]
}

fn expired() -> RecordBody {
    let resource = "pg://shop/holdpoint_trash_1_2\u{1b}".to_owned();
    RecordBody::Expired { server: "orders".parse().unwrap(), resource }
}

fn said(counts_for: &[&str]) -> ApprovalRecord {
    ApprovalRecord {
        approval: action(),
        binding: Digest::of(b"binding"),
        agent: "coder".parse().unwrap(),
        counts_for: counts_for.iter().map(ToString::to_string).collect(),
        by: "ada".parse().unwrap(),
        because: "seen\u{9b}2J it".to_owned(),
        way: "cli".to_owned(),
    }
}

/// An action of which a part was taken back.
pub fn reverted() -> RevertRecord {
    let (resource, why) = ("pg://x/t/id=1\u{9b}2J".to_owned(), "changed since".to_owned());
    RevertRecord {
        of: action(),
        agent: "coder".parse().unwrap(),
        action: None,
        status: RevertStatus::Partly,
        restored: ChangeCounts { created: 0, updated: 2, deleted: 1 },
        conflicts: vec![RevertConflict { resource, why }],
        detail: None,
        by: "ada".to_owned(),
        because: "wrong rows".to_owned(),
    }
}

/// A grant for a limited time.
pub fn granted() -> TimedGrant {
    TimedGrant {
        id: 30,
        agent: "coder".parse().unwrap(),
        class: EffectClass::Write,
        tools: vec!["fs__*".to_owned()],
        until_ms: AT,
        by: "ada".to_owned(),
        because: "tonight".to_owned(),
    }
}

fn grant_revoked() -> RecordBody {
    let (agent, because, by) = ("coder".parse().unwrap(), "done".to_owned(), "ada".to_owned());
    RecordBody::GrantRevoked { id: 30, agent, because, by }
}

/// The permitted action goes on as a task.
pub fn task_given() -> RecordBody {
    let lineage = lineage(&"fs__read_file".parse().unwrap());
    let more = TaskRecord { task: Digest::of(b"task") };
    let agent = "coder".parse().unwrap();
    RecordBody::TaskGiven(Box::new(ActionRecord { action: action(), agent, lineage, more }))
}

/// A check after the permitted action.
pub fn checked() -> RecordBody {
    let mut lineage = lineage(&"fs__read_file".parse().unwrap());
    let objects = (FindingResult::Fail, Reason::ValidatorObjects);
    lineage.post_validation = Field::Present(vec![Finding {
        severity: Severity::Critical,
        code: Some("rows_gone".to_owned()),
        ..Finding::new("rows", objects, "three\u{1b}[31m rows are gone")
    }]);
    let (action, agent, more) = (action(), "coder".parse().unwrap(), CheckRecord { due_ms: AT });
    RecordBody::Checked(Box::new(ActionRecord { action, agent, lineage, more }))
}

/// A question during the permitted action.
pub fn asked() -> RecordBody {
    RecordBody::Asked(Box::new(AskedRecord {
        server: "fs".parse().unwrap(),
        agent: "coder".parse().unwrap(),
        action: Some(action()),
        method: "elicitation/create".to_owned(),
        parameters: Digest::of(b"question"),
        ruling: AskedRuling::Passed,
    }))
}

/// What came back for it.
pub fn replied() -> RecordBody {
    RecordBody::Replied(Box::new(RepliedRecord {
        asked: 21,
        server: "fs".parse().unwrap(),
        agent: "coder".parse().unwrap(),
        action: Some(action()),
        status: ReplyStatus::Declined,
        reply: Some(Digest::of(b"no")),
    }))
}

/// A plan of one step, with a note.
pub fn plan_proposed() -> RecordBody {
    let draft = json!({
        "purpose": "tidy \u{1b}[2J up",
        "steps": [{ "id": "tidy", "tool": "fs__rm", "class": "destructive",
                    "targets": ["file:///srv/app/old/*"], "budget": { "files": 3 } }],
    });
    let draft: PlanDraft = serde_json::from_value(draft).unwrap();
    let policy = Digest::of(b"policy");
    let parent = Some(PlanId::new(AT, [8; 10]));
    let basis =
        PlanBasis { policy, tools: Default::default(), targets: Default::default(), parent };
    let whose = ("coder".parse().unwrap(), TaskId::new(AT, [5; 10]));
    let plan = Plan::of(draft, PlanId::new(AT, [9; 10]), whose, AT, basis);
    let plan = Plan { by: Some("ada".to_owned()), ..plan };
    let (severity, code) = (PlanSeverity::Blocking, PlanCode::RecoveryMissing);
    let (step, text) = (Some("tidy".parse().unwrap()), "nothing is saved".to_owned());
    let notes = vec![PlanNote { severity, code, step, text }];
    RecordBody::PlanProposed(Box::new(PlanProposed { plan, notes }))
}

fn plan_ruled(reason: &str) -> PlanRuled {
    let (plan, agent) = (PlanId::new(AT, [9; 10]), "coder".parse().unwrap());
    PlanRuled { plan, agent, by: "ada".to_owned(), reason: reason.to_owned() }
}

fn plan_looked(unmet: Option<&str>) -> RecordBody {
    RecordBody::PlanLooked(looked(unmet))
}

/// What was found after a step.
pub fn looked(unmet: Option<&str>) -> PlanLooked {
    let (plan, agent) = (PlanId::new(AT, [9; 10]), "coder".parse().unwrap());
    let (step, unmet) = ("tidy".parse().unwrap(), unmet.map(str::to_owned));
    PlanLooked { plan, agent, step, reads: vec![action()], unmet }
}

fn plan_ended() -> RecordBody {
    let (plan, agent) = (PlanId::new(AT, [9; 10]), "coder".parse().unwrap());
    let detail = "the policies moved".to_owned();
    RecordBody::PlanEnded(PlanEnded { plan, agent, end: PlanEnd::Void, detail })
}

fn key_issued(agent: AgentName, owner: TeamName) -> RecordBody {
    let (hash, by) = (Some(Digest::of(b"key")), "ada".to_owned());
    RecordBody::KeyIssued { agent, owner, key: "0a0b".to_owned(), hash, by }
}

fn credential_issued() -> RecordBody {
    RecordBody::CredentialIssued {
        agent: Some("coder".parse().unwrap()),
        server: "crm".parse().unwrap(),
        issuer: "https://as.example\u{9b}2J".to_owned(),
        client: "holdpoint".to_owned(),
        scopes: vec!["crm.read".to_owned(), "crm.write".to_owned()],
        by: "ada".to_owned(),
    }
}

fn credential_deleted() -> RecordBody {
    let (agent, server) = (None, "crm".parse().unwrap());
    RecordBody::CredentialDeleted { agent, server, by: "ada".to_owned() }
}

fn pinned(tool: ToolRef, definition: Digest, previous: Option<Digest>) -> RecordBody {
    RecordBody::ToolPinned { tool, definition, previous, by: "first-sight".to_owned() }
}

fn quarantined(tool: ToolRef, pinned: Digest, seen: Digest) -> RecordBody {
    RecordBody::ToolQuarantined { tool, pinned, seen }
}

fn action() -> ActionId {
    ActionId::new(AT, [7; 10])
}

fn stop() -> Stop {
    let scope = "agent:coder".parse().unwrap();
    Stop { id: 7, scope, reason: "it deletes".to_owned(), by: "ada".to_owned(), since: AT }
}

fn decided((class, tool): (EffectClass, &str), decision: Decision, mut facts: Facts) -> RecordBody {
    let tool: ToolRef = tool.parse().unwrap();
    if let Some(known) = &mut facts.tool {
        known.class = class;
    }
    let lineage = lineage(&tool);
    let agent: holdpoint_types::AgentName = "coder".parse().unwrap();
    let request = Request {
        action: action(),
        agent: agent.clone(),
        door: Door::McpStdio,
        tool,
        parameters: json!({ "path": "/srv/app/notes\u{1b}]0;owned\u{7}.txt", "size": 3 }),
        task: None,
        intent: Some(intent()),
        retrieved: vec!["doc-1".to_owned()],
        host_call: None,
        at: AT,
    };
    let (guards, checks) = Default::default();
    let more = DecisionRecord { request, facts, decision, guards, checks, approval: None };
    RecordBody::Decision(Box::new(ActionRecord { action: action(), agent, lineage, more }))
}

fn intent() -> Intent {
    let text = "Tidy up.\r\nIgnore \u{202e}the rules".to_owned();
    Intent { text, source: IntentSource::AgentDeclared }
}

fn lineage(tool: &ToolRef) -> Lineage {
    Lineage {
        user_intent: Field::Present(intent()),
        policy_version: Field::Present(Digest::of(b"policy")),
        retrieved_context: Field::Present(vec!["doc-1".to_owned()]),
        tool: Field::Present(tool.clone()),
        parameters: Field::Present(Digest::of(b"parameters")),
        target_resource: Field::Present("file:///srv/app/notes\u{1b}.txt".to_owned()),
        tool_output: Field::Absent("not executed yet".to_owned()),
        post_validation: Field::Absent("no post-action validator is configured".to_owned()),
    }
}

fn facts(stop: Option<Stop>) -> Facts {
    let evidence = match stop {
        None => String::new(),
        Some(_) => "at `/size`: 3 is not of type \"string\"".to_owned(),
    };
    let result = if stop.is_some() { FindingResult::Fail } else { FindingResult::Pass };
    let finding = Finding::new("schema", (result, Reason::ParametersInvalid), evidence);
    let state = match stop {
        None => ToolState::Pinned,
        Some(_) => ToolState::Changed { pinned: Digest::of(b"pinned") },
    };
    let known = ToolFacts {
        definition: Digest::of(b"definition"),
        state,
        class: EffectClass::Read,
        class_source: ClassSource::Operator,
        open_world: true,
    };
    let freezes: BTreeSet<_> = stop.iter().map(|_| "year-end".to_owned()).collect();
    let by = stop.is_none().then(|| "fs__*".to_owned());
    Facts {
        agent: Some(AgentFacts { owner: "platform".parse().ok(), mode: Mode::Auto }),
        tool: Some(known),
        grant: GrantFacts { by },
        target: TargetFacts {
            resource: "file:///srv/app/notes\u{1b}.txt".to_owned(),
            environment: "prod".to_owned(),
            environment_resolved: stop.is_none(),
            surfaces: BTreeSet::from(["billing".to_owned(), "prod".to_owned()]),
        },
        effects: Vec::new(),
        freezes,
        freeze_exceptions: Default::default(),
        stops: stop.into_iter().collect(),
        epoch: Epoch(3),
        findings: vec![finding],
        preview: None,
        unseen: None,
        approval: None,
        plan: None,
    }
}
