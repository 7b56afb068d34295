//! The bytes of every kind of record. They are a file format: a difference here breaks old logs.

use expect_test::{Expect, expect};
use holdpoint_ledger::{EncodingFault, decode, encode};
use holdpoint_types::{
    ActionId, ActionRecord, AgentFacts, AskedRecord, AskedRuling, Cause, ChangeCounts, CheckPlan,
    CheckRecord, ClassSource, Decision, DecisionRecord, Digest, Disclosure, Door, EffectClass,
    Epoch, Facts, Field, Finding, FindingResult, GatewayId, GrantFacts, GuardRecord, Intent,
    IntentSource, Lineage, Mode, OutcomeRecord, OutcomeStatus, Plan, PlanBasis, PlanBudget,
    PlanCode, PlanEnd, PlanEnded, PlanFacts, PlanFit, PlanId, PlanLooked, PlanNote, PlanProposed,
    PlanRuled, PlanSeverity, PlanWhen, PolicySource, PreviewFacts, Reason, Record, RecordBody,
    RepliedRecord, ReplyStatus, Request, Reversibility, Ruling, Severity, Stop, StopScope,
    TargetFacts, TaskId, Timestamp, ToolFacts, ToolOutput, ToolState,
};
use proptest::prelude::{Just, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};
use serde_json::{Value, json};

fn check(body: RecordBody, expected: Expect) {
    let gateway = GatewayId::new(Timestamp(1_700_000_000_000), [1; 10]);
    let record = Record { at_ms: Timestamp(1_700_000_000_123), gateway, body };
    let bytes = encode(&record).unwrap();
    expected.assert_eq(std::str::from_utf8(&bytes).unwrap());
    let again = encode(&decode(&bytes).unwrap()).unwrap();
    assert_eq!(again, bytes);
}

fn action() -> ActionId {
    ActionId::new(Timestamp(1_700_000_000_100), [2; 10])
}

fn lineage() -> Lineage {
    let intent = Intent { text: "why is it empty?".into(), source: IntentSource::AgentDeclared };
    Lineage {
        user_intent: Field::Present(intent),
        policy_version: Field::Present(Digest::of(b"policy")),
        retrieved_context: Field::Present(vec!["doc-1".into()]),
        tool: Field::Present("db__query".parse().unwrap()),
        parameters: Field::Present(Digest::of(b"{}")),
        target_resource: Field::Present("pg://prod/users".into()),
        tool_output: Field::Absent("not executed yet".into()),
        post_validation: Field::Absent("no check is configured".into()),
    }
}

#[test]
fn a_guard_set() {
    let source = PolicySource { name: "crown.cedar".to_owned(), text: "forbid".to_owned() };
    let guard = GuardRecord {
        note: "holdpoint guard set v1\n\n\u{2014} ada AAAA\n".to_owned(),
        signers: vec!["ada+00000000+AA==".to_owned()],
        signatures_min: 1,
        signed_by: vec!["ada".to_owned()],
    };
    let (policy, guard) = (Digest::of(b"guard"), Some(Box::new(guard)));
    let body = RecordBody::PolicyLoaded { policy, sources: vec![source], guard };
    check(
        body,
        expect![[
            r#"{"at_ms":1700000000123,"gateway":"018bcfe5-6800-7101-8101-010101010101","guard":{"note":"holdpoint guard set v1\n\n— ada AAAA\n","signatures_min":1,"signed_by":["ada"],"signers":["ada+00000000+AA=="]},"kind":"policy_loaded","policy":"sha256:a9d4034da07d8ef31db1cd4119b6a4552fdfbd19787e2848e71c8ee3b47703a7","sources":[{"name":"crown.cedar","text":"forbid"}]}"#
        ]],
    );
    let mut more = decision();
    more.guards.insert("crown".to_owned(), policy);
    let text = String::from_utf8(holdpoint_types::canonical_bytes(&more.guards).unwrap()).unwrap();
    expect![[
        r#"{"crown":"sha256:a9d4034da07d8ef31db1cd4119b6a4552fdfbd19787e2848e71c8ee3b47703a7"}"#
    ]]
    .assert_eq(&text);
}

fn decision() -> DecisionRecord {
    let request = Request {
        action: action(),
        agent: "coder".parse().unwrap(),
        door: Door::McpStdio,
        tool: "db__query".parse().unwrap(),
        parameters: json!({ "z": 1.0, "a": [-0.0, 1e-7, "\u{e9}\u{1}"], "": null }),
        task: None,
        intent: None,
        retrieved: vec!["doc-1".into()],
        host_call: None,
        at: Timestamp(1_700_000_000_100),
    };
    let tool = ToolFacts {
        definition: Digest::of(b"new"),
        state: ToolState::Changed { pinned: Digest::of(b"old") },
        class: EffectClass::Write,
        class_source: ClassSource::Operator,
        open_world: false,
    };
    let facts = Facts {
        agent: Some(AgentFacts { owner: Some("sre".parse().unwrap()), mode: Mode::Auto }),
        tool: Some(tool),
        grant: GrantFacts { by: Some("write db__*".into()) },
        target: TargetFacts {
            resource: "pg://prod/users".into(),
            environment: "prod".into(),
            environment_resolved: true,
            surfaces: ["billing".to_owned()].into(),
        },
        effects: Vec::new(),
        freezes: ["july".to_owned()].into(),
        freeze_exceptions: Default::default(),
        stops: vec![stop()],
        epoch: Epoch(3),
        findings: vec![finding()],
        preview: None,
        unseen: None,
        approval: None,
        plan: None,
    };
    let cause = Cause::new(Ruling::Hold, Reason::Stopped, "wait").by_rule("r1").needing("owner");
    let decision = Decision::from_iter([cause]);
    let (guards, checks) = Default::default();
    DecisionRecord { request, facts, decision, guards, checks, approval: None }
}

fn finding() -> Finding {
    Finding::new("schema", (FindingResult::Pass, Reason::CouldNotDecide), "")
}

fn stop() -> Stop {
    Stop {
        id: 7,
        scope: StopScope::All,
        reason: "looks wrong".into(),
        by: "ana".into(),
        since: Timestamp(1_700_000_000_000),
    }
}

#[test]
fn a_decision() {
    let agent = "coder".parse().unwrap();
    let record = ActionRecord { action: action(), agent, lineage: lineage(), more: decision() };
    check(
        RecordBody::Decision(Box::new(record)),
        expect![[
            r#"{"action":"018bcfe5-6864-7202-8202-020202020202","agent":"coder","at_ms":1700000000123,"decision":[{"approval":"owner","reason":"stopped","rule":"r1","ruling":"hold","text":"wait"}],"facts":{"agent":{"mode":"auto","owner":"sre"},"epoch":3,"findings":[{"evidence":"","reason":"could_not_decide","result":"pass","validator":"schema"}],"freezes":["july"],"grant":{"by":"write db__*"},"stops":[{"by":"ana","id":7,"reason":"looks wrong","scope":"all","since":1700000000000}],"target":{"environment":"prod","environment_resolved":true,"resource":"pg://prod/users","surfaces":["billing"]},"tool":{"class":"write","class_source":"operator","definition":"sha256:11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437","open_world":false,"state":{"changed":{"pinned":"sha256:cba06b5736faf67e54b07b561eae94395e774c517a7d910a54369e1263ccfbd4"}}}},"gateway":"018bcfe5-6800-7101-8101-010101010101","kind":"decision","lineage":{"parameters":{"present":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"policy_version":{"present":"sha256:823412d1eacb67956220e532959f0104603057c88704863ca38e7cd188fda812"},"post_validation":{"absent":"no check is configured"},"retrieved_context":{"present":["doc-1"]},"target_resource":{"present":"pg://prod/users"},"tool":{"present":"db__query"},"tool_output":{"absent":"not executed yet"},"user_intent":{"present":{"source":"agent-declared","text":"why is it empty?"}}},"request":{"action":"018bcfe5-6864-7202-8202-020202020202","agent":"coder","at":1700000000100,"door":"mcp_stdio","parameters":{"":null,"a":[0,1e-7,"é\u0001"],"z":1},"retrieved":["doc-1"],"tool":"db__query"}}"#
        ]],
    );
}

#[test]
fn an_outcome() {
    let more = OutcomeRecord {
        status: OutcomeStatus::ToolError,
        reason: Some(Reason::UpstreamTimeout),
        detail: Some("no answer".into()),
        duration_ms: 12,
        checks: Vec::new(),
    };
    let output = ToolOutput { digest: Digest::of(b"rows"), bytes: 4, body: Some("rows".into()) };
    let lineage = Lineage { tool_output: Field::Present(output), ..lineage() };
    let agent = "coder".parse().unwrap();
    let record = ActionRecord { action: action(), agent, lineage, more };
    check(
        RecordBody::Outcome(Box::new(record)),
        expect![[
            r#"{"action":"018bcfe5-6864-7202-8202-020202020202","agent":"coder","at_ms":1700000000123,"detail":"no answer","duration_ms":12,"gateway":"018bcfe5-6800-7101-8101-010101010101","kind":"outcome","lineage":{"parameters":{"present":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"policy_version":{"present":"sha256:823412d1eacb67956220e532959f0104603057c88704863ca38e7cd188fda812"},"post_validation":{"absent":"no check is configured"},"retrieved_context":{"present":["doc-1"]},"target_resource":{"present":"pg://prod/users"},"tool":{"present":"db__query"},"tool_output":{"present":{"body":"rows","bytes":4,"digest":"sha256:bc51e9e65d79e1c90ba544ab2eae1044ccdf8c1af7a559ba375cba4276f7d99e"}},"user_intent":{"present":{"source":"agent-declared","text":"why is it empty?"}}},"reason":"upstream_timeout","status":"tool_error"}"#
        ]],
    );
}

#[test]
fn checks_after_an_action() {
    let agent = || "coder".parse().unwrap();
    let plan = CheckPlan { validator: "rows".into(), after_s: vec![0, 60] };
    let due_ms = Timestamp(1_700_000_000_200);
    let more = OutcomeRecord {
        status: OutcomeStatus::Succeeded,
        reason: None,
        detail: None,
        duration_ms: 12,
        checks: plan.due_after(due_ms).collect(),
    };
    let ended = ActionRecord { action: action(), agent: agent(), lineage: lineage(), more };
    check(
        RecordBody::Outcome(Box::new(ended)),
        expect![[
            r#"{"action":"018bcfe5-6864-7202-8202-020202020202","agent":"coder","at_ms":1700000000123,"checks":[{"due_ms":1700000000200,"validator":"rows"},{"due_ms":1700000060200,"validator":"rows"}],"duration_ms":12,"gateway":"018bcfe5-6800-7101-8101-010101010101","kind":"outcome","lineage":{"parameters":{"present":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"policy_version":{"present":"sha256:823412d1eacb67956220e532959f0104603057c88704863ca38e7cd188fda812"},"post_validation":{"absent":"no check is configured"},"retrieved_context":{"present":["doc-1"]},"target_resource":{"present":"pg://prod/users"},"tool":{"present":"db__query"},"tool_output":{"absent":"not executed yet"},"user_intent":{"present":{"source":"agent-declared","text":"why is it empty?"}}},"status":"succeeded"}"#
        ]],
    );
    let more = DecisionRecord { checks: vec![plan], ..decision() };
    let decided = ActionRecord { action: action(), agent: agent(), lineage: lineage(), more };
    check(
        RecordBody::Decision(Box::new(decided)),
        expect![[
            r#"{"action":"018bcfe5-6864-7202-8202-020202020202","agent":"coder","at_ms":1700000000123,"checks":[{"after_s":[0,60],"validator":"rows"}],"decision":[{"approval":"owner","reason":"stopped","rule":"r1","ruling":"hold","text":"wait"}],"facts":{"agent":{"mode":"auto","owner":"sre"},"epoch":3,"findings":[{"evidence":"","reason":"could_not_decide","result":"pass","validator":"schema"}],"freezes":["july"],"grant":{"by":"write db__*"},"stops":[{"by":"ana","id":7,"reason":"looks wrong","scope":"all","since":1700000000000}],"target":{"environment":"prod","environment_resolved":true,"resource":"pg://prod/users","surfaces":["billing"]},"tool":{"class":"write","class_source":"operator","definition":"sha256:11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437","open_world":false,"state":{"changed":{"pinned":"sha256:cba06b5736faf67e54b07b561eae94395e774c517a7d910a54369e1263ccfbd4"}}}},"gateway":"018bcfe5-6800-7101-8101-010101010101","kind":"decision","lineage":{"parameters":{"present":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"policy_version":{"present":"sha256:823412d1eacb67956220e532959f0104603057c88704863ca38e7cd188fda812"},"post_validation":{"absent":"no check is configured"},"retrieved_context":{"present":["doc-1"]},"target_resource":{"present":"pg://prod/users"},"tool":{"present":"db__query"},"tool_output":{"absent":"not executed yet"},"user_intent":{"present":{"source":"agent-declared","text":"why is it empty?"}}},"request":{"action":"018bcfe5-6864-7202-8202-020202020202","agent":"coder","at":1700000000100,"door":"mcp_stdio","parameters":{"":null,"a":[0,1e-7,"é\u0001"],"z":1},"retrieved":["doc-1"],"tool":"db__query"}}"#
        ]],
    );
    let found = Finding {
        severity: Severity::Critical,
        code: Some("rows_gone".into()),
        ..Finding::new("rows", (FindingResult::Fail, Reason::ValidatorObjects), "3 are gone")
    };
    let lineage = Lineage { post_validation: Field::Present(vec![found]), ..lineage() };
    let more = CheckRecord { due_ms };
    let checked = ActionRecord { action: action(), agent: agent(), lineage, more };
    check(
        RecordBody::Checked(Box::new(checked)),
        expect![[
            r#"{"action":"018bcfe5-6864-7202-8202-020202020202","agent":"coder","at_ms":1700000000123,"due_ms":1700000000200,"gateway":"018bcfe5-6800-7101-8101-010101010101","kind":"checked","lineage":{"parameters":{"present":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"policy_version":{"present":"sha256:823412d1eacb67956220e532959f0104603057c88704863ca38e7cd188fda812"},"post_validation":{"present":[{"code":"rows_gone","evidence":"3 are gone","reason":"validator_objects","result":"fail","severity":"critical","validator":"rows"}]},"retrieved_context":{"present":["doc-1"]},"target_resource":{"present":"pg://prod/users"},"tool":{"present":"db__query"},"tool_output":{"absent":"not executed yet"},"user_intent":{"present":{"source":"agent-declared","text":"why is it empty?"}}}}"#
        ]],
    );
}

#[test]
fn a_start_and_a_policy() {
    let body = RecordBody::Started {
        version: "0.1.0".into(),
        configuration: Digest::of(b"toml"),
        in_doubt: vec![action()],
    };
    check(
        body,
        expect![[
            r#"{"at_ms":1700000000123,"configuration":"sha256:bf0a902215950f951e1fd6cf23398f0de79d27b779637c5e29f24c8b930e6300","gateway":"018bcfe5-6800-7101-8101-010101010101","in_doubt":["018bcfe5-6864-7202-8202-020202020202"],"kind":"started","version":"0.1.0"}"#
        ]],
    );
    let source = PolicySource { name: "base.cedar".into(), text: "permit(\n);".into() };
    let body = RecordBody::PolicyLoaded {
        policy: Digest::of(b"policy"),
        sources: vec![source],
        guard: None,
    };
    check(
        body,
        expect![[
            r#"{"at_ms":1700000000123,"gateway":"018bcfe5-6800-7101-8101-010101010101","kind":"policy_loaded","policy":"sha256:823412d1eacb67956220e532959f0104603057c88704863ca38e7cd188fda812","sources":[{"name":"base.cedar","text":"permit(\n);"}]}"#
        ]],
    );
}

#[test]
fn pins() {
    let tool: holdpoint_types::ToolRef = "fs__read".parse().unwrap();
    let (pinned, seen) = (Digest::of(b"old"), Digest::of(b"new"));
    let body = RecordBody::ToolPinned {
        tool: tool.clone(),
        definition: seen,
        previous: Some(pinned),
        by: "ana".into(),
    };
    check(
        body,
        expect![[
            r#"{"at_ms":1700000000123,"by":"ana","definition":"sha256:11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437","gateway":"018bcfe5-6800-7101-8101-010101010101","kind":"tool_pinned","previous":"sha256:cba06b5736faf67e54b07b561eae94395e774c517a7d910a54369e1263ccfbd4","tool":"fs__read"}"#
        ]],
    );
    check(
        RecordBody::ToolQuarantined { tool, pinned, seen },
        expect![[
            r#"{"at_ms":1700000000123,"gateway":"018bcfe5-6800-7101-8101-010101010101","kind":"tool_quarantined","pinned":"sha256:cba06b5736faf67e54b07b561eae94395e774c517a7d910a54369e1263ccfbd4","seen":"sha256:11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437","tool":"fs__read"}"#
        ]],
    );
}

#[test]
fn stops() {
    check(
        RecordBody::Stopped { stop: stop(), epoch: Epoch(4) },
        expect![[
            r#"{"at_ms":1700000000123,"epoch":4,"gateway":"018bcfe5-6800-7101-8101-010101010101","kind":"stopped","stop":{"by":"ana","id":7,"reason":"looks wrong","scope":"all","since":1700000000000}}"#
        ]],
    );
    let body = RecordBody::Released {
        id: 7,
        scope: StopScope::All,
        reason: "fixed".into(),
        by: "ben".into(),
        epoch: Epoch(5),
    };
    check(
        body,
        expect![[
            r#"{"at_ms":1700000000123,"by":"ben","epoch":5,"gateway":"018bcfe5-6800-7101-8101-010101010101","id":7,"kind":"released","reason":"fixed","scope":"all"}"#
        ]],
    );
}

#[test]
fn keys() {
    let agent: holdpoint_types::AgentName = "coder".parse().unwrap();
    let body = RecordBody::KeyIssued {
        agent: agent.clone(),
        owner: "sre".parse().unwrap(),
        key: "k1".into(),
        hash: Some(Digest::of(b"secret")),
        by: "ana".into(),
    };
    check(
        body,
        expect![[
            r#"{"agent":"coder","at_ms":1700000000123,"by":"ana","gateway":"018bcfe5-6800-7101-8101-010101010101","hash":"sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b","key":"k1","kind":"key_issued","owner":"sre"}"#
        ]],
    );
    // Records of keys were written without their hash before.
    let body = RecordBody::KeyIssued {
        agent: agent.clone(),
        owner: "sre".parse().unwrap(),
        key: "k1".into(),
        hash: None,
        by: "ana".into(),
    };
    check(
        body,
        expect![[
            r#"{"agent":"coder","at_ms":1700000000123,"by":"ana","gateway":"018bcfe5-6800-7101-8101-010101010101","key":"k1","kind":"key_issued","owner":"sre"}"#
        ]],
    );
    check(
        RecordBody::KeysRevoked { agent, by: "ana".into() },
        expect![[
            r#"{"agent":"coder","at_ms":1700000000123,"by":"ana","gateway":"018bcfe5-6800-7101-8101-010101010101","kind":"keys_revoked"}"#
        ]],
    );
}

#[test]
fn questions() {
    let mut asked = AskedRecord {
        server: "fs".parse().unwrap(),
        agent: "coder".parse().unwrap(),
        action: Some(action()),
        method: "elicitation/create".into(),
        parameters: Digest::of(b"{}"),
        ruling: AskedRuling::Passed,
    };
    check(
        RecordBody::Asked(Box::new(asked.clone())),
        expect![[
            r#"{"action":"018bcfe5-6864-7202-8202-020202020202","agent":"coder","at_ms":1700000000123,"gateway":"018bcfe5-6800-7101-8101-010101010101","kind":"asked","method":"elicitation/create","parameters":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","ruling":"passed","server":"fs"}"#
        ]],
    );
    asked.action = None;
    asked.ruling = AskedRuling::Forbidden;
    check(
        RecordBody::Asked(Box::new(asked)),
        expect![[
            r#"{"agent":"coder","at_ms":1700000000123,"gateway":"018bcfe5-6800-7101-8101-010101010101","kind":"asked","method":"elicitation/create","parameters":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","ruling":"forbidden","server":"fs"}"#
        ]],
    );
    let mut replied = RepliedRecord {
        asked: 7,
        server: "fs".parse().unwrap(),
        agent: "coder".parse().unwrap(),
        action: Some(action()),
        status: ReplyStatus::Declined,
        reply: Some(Digest::of(b"{}")),
    };
    check(
        RecordBody::Replied(Box::new(replied.clone())),
        expect![[
            r#"{"action":"018bcfe5-6864-7202-8202-020202020202","agent":"coder","asked":7,"at_ms":1700000000123,"gateway":"018bcfe5-6800-7101-8101-010101010101","kind":"replied","reply":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","server":"fs","status":"declined"}"#
        ]],
    );
    (replied.status, replied.reply) = (ReplyStatus::Unanswered, None);
    check(
        RecordBody::Replied(Box::new(replied)),
        expect![[
            r#"{"action":"018bcfe5-6864-7202-8202-020202020202","agent":"coder","asked":7,"at_ms":1700000000123,"gateway":"018bcfe5-6800-7101-8101-010101010101","kind":"replied","server":"fs","status":"unanswered"}"#
        ]],
    );
}

fn two_deleted() -> PreviewFacts {
    PreviewFacts {
        digest: Digest::of(b"diff"),
        counts: ChangeCounts { created: 0, updated: 0, deleted: 2 },
        exact: true,
        guarantee: Reversibility::Exact,
        until: None,
        disclosure: Disclosure::Contained,
        notes: Vec::new(),
    }
}

#[test]
fn plans() {
    let id = |number: u8| PlanId::new(Timestamp(1_700_000_000_000), [number; 10]);
    let draft = json!({
        "purpose": "clean up",
        "steps": [
            { "id": "save", "tool": "fs__copy", "class": "write", "recovery_point": true,
              "targets": ["file:///srv/app/*"], "after": [] },
            { "id": "clean", "tool": "fs__delete", "class": "destructive", "calls": 3,
              "targets": ["file:///srv/app/*"], "surfaces": ["auth"],
              "parameters": { "required": ["path"] }, "budget": { "files": 3 },
              "preconditions": ["nobody works there"], "postconditions": ["it is empty", {
                  "says": "none left", "tool": "fs__list", "arguments": { "path": "/" },
                  "result": { "maxItems": 0 } }] },
            { "id": "tidy", "tool": "db__sql_execute", "class": "write",
              "targets": ["sql://app/**"], "call": { "sql": "DELETE FROM t" } },
        ],
    });
    let draft = serde_json::from_value(draft).unwrap();
    let tools = [("fs__copy".parse().unwrap(), Digest::of(b"copy"))].into();
    let targets = [("tidy".parse().unwrap(), two_deleted())].into();
    let basis = PlanBasis { policy: Digest::of(b"policy"), tools, targets, parent: Some(id(8)) };
    let whose = ("coder".parse().unwrap(), TaskId::new(Timestamp(1_700_000_000_000), [5; 10]));
    let plan = Plan::of(draft, id(9), whose, Timestamp(1_700_000_000_000), basis);
    let (severity, code) = (PlanSeverity::Advisory, PlanCode::Recreates);
    let note = PlanNote { severity, code, step: Some("clean".parse().unwrap()), text: "x".into() };
    let proposed =
        PlanProposed { plan: Plan { by: Some("ada".into()), ..plan }, notes: vec![note] };
    check(
        RecordBody::PlanProposed(Box::new(proposed)),
        expect![[
            r#"{"at_ms":1700000000123,"gateway":"018bcfe5-6800-7101-8101-010101010101","kind":"plan_proposed","notes":[{"code":"recreates","severity":"advisory","step":"clean","text":"x"}],"plan":{"agent":"coder","basis":{"parent":"018bcfe5-6800-7808-8808-080808080808","policy":"sha256:823412d1eacb67956220e532959f0104603057c88704863ca38e7cd188fda812","targets":{"tidy":{"counts":{"created":0,"deleted":2,"updated":0},"digest":"sha256:df087996d45b03e7eb8c133c0298fd98d35113fca26aaba58612fef3cc212cad","disclosure":"contained","exact":true,"guarantee":"exact"}},"tools":{"fs__copy":"sha256:6f5a6034e770acbfb3f797e6a7eb7948d470d45f9928f92b7d72dc7c45e6d0cd"}},"by":"ada","expires":1700003600000,"id":"018bcfe5-6800-7909-8909-090909090909","purpose":"clean up","reads":"free","steps":[{"after":[],"class":"write","id":"save","recovery_point":true,"targets":["file:///srv/app/*"],"tool":"fs__copy"},{"budget":{"files":3},"calls":3,"class":"destructive","id":"clean","parameters":{"required":["path"]},"postconditions":["it is empty",{"arguments":{"path":"/"},"result":{"maxItems":0},"says":"none left","tool":"fs__list"}],"preconditions":["nobody works there"],"surfaces":["auth"],"targets":["file:///srv/app/*"],"tool":"fs__delete"},{"call":{"sql":"DELETE FROM t"},"class":"write","id":"tidy","targets":["sql://app/**"],"tool":"db__sql_execute"}],"task":"018bcfe5-6800-7505-8505-050505050505"}}"#
        ]],
    );
    let ruled = PlanRuled {
        plan: id(9),
        agent: "coder".parse().unwrap(),
        by: "checker".into(),
        reason: "no note blocks it".into(),
    };
    check(
        RecordBody::PlanAccepted(ruled.clone()),
        expect![[
            r#"{"agent":"coder","at_ms":1700000000123,"by":"checker","gateway":"018bcfe5-6800-7101-8101-010101010101","kind":"plan_accepted","plan":"018bcfe5-6800-7909-8909-090909090909","reason":"no note blocks it"}"#
        ]],
    );
    check(
        RecordBody::PlanRefused(ruled),
        expect![[
            r#"{"agent":"coder","at_ms":1700000000123,"by":"checker","gateway":"018bcfe5-6800-7101-8101-010101010101","kind":"plan_refused","plan":"018bcfe5-6800-7909-8909-090909090909","reason":"no note blocks it"}"#
        ]],
    );
    let ended = PlanEnded {
        plan: id(9),
        agent: "coder".parse().unwrap(),
        end: PlanEnd::Void,
        detail: "the policies moved".into(),
    };
    check(
        RecordBody::PlanEnded(ended),
        expect![[
            r#"{"agent":"coder","at_ms":1700000000123,"detail":"the policies moved","end":"void","gateway":"018bcfe5-6800-7101-8101-010101010101","kind":"plan_ended","plan":"018bcfe5-6800-7909-8909-090909090909"}"#
        ]],
    );
}

#[test]
fn what_was_found_after_a_step() {
    let action = |number: u8| ActionId::new(Timestamp(1_700_000_000_000), [number; 10]);
    let looked = |unmet: Option<&str>| PlanLooked {
        plan: PlanId::new(Timestamp(1_700_000_000_000), [9; 10]),
        agent: "coder".parse().unwrap(),
        step: "clean".parse().unwrap(),
        reads: vec![action(6), action(7)],
        unmet: unmet.map(str::to_owned),
    };
    check(
        RecordBody::PlanLooked(looked(None)),
        expect![[
            r#"{"agent":"coder","at_ms":1700000000123,"gateway":"018bcfe5-6800-7101-8101-010101010101","kind":"plan_looked","plan":"018bcfe5-6800-7909-8909-090909090909","reads":["018bcfe5-6800-7606-8606-060606060606","018bcfe5-6800-7707-8707-070707070707"],"step":"clean"}"#
        ]],
    );
    check(
        RecordBody::PlanLooked(looked(Some("three are left"))),
        expect![[
            r#"{"agent":"coder","at_ms":1700000000123,"gateway":"018bcfe5-6800-7101-8101-010101010101","kind":"plan_looked","plan":"018bcfe5-6800-7909-8909-090909090909","reads":["018bcfe5-6800-7606-8606-060606060606","018bcfe5-6800-7707-8707-070707070707"],"step":"clean","unmet":"three are left"}"#
        ]],
    );
}

#[test]
fn how_a_call_stands_to_a_plan() {
    let check = |fit: PlanFit, expected: Expect| {
        let plan = PlanId::new(Timestamp(1_700_000_000_000), [9; 10]);
        let facts = PlanFacts { plan, version: 4, fit };
        let bytes = holdpoint_types::canonical_bytes(&facts).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        expected.assert_eq(&text);
        assert_eq!(serde_json::from_str::<PlanFacts>(&text).unwrap(), facts);
    };
    let uses = PlanBudget { files: Some(1), ..PlanBudget::default() };
    check(
        PlanFit::Step { step: "clean".parse().unwrap(), uses },
        expect![[
            r#"{"fit":"step","plan":"018bcfe5-6800-7909-8909-090909090909","step":"clean","uses":{"files":1},"version":4}"#
        ]],
    );
    check(
        PlanFit::FreeRead,
        expect![[
            r#"{"fit":"free_read","plan":"018bcfe5-6800-7909-8909-090909090909","version":4}"#
        ]],
    );
    check(
        PlanFit::Condition { step: "clean".parse().unwrap(), when: PlanWhen::After, number: 2 },
        expect![[
            r#"{"fit":"condition","number":2,"plan":"018bcfe5-6800-7909-8909-090909090909","step":"clean","version":4,"when":"after"}"#
        ]],
    );
    let nearest = Some("save".parse().unwrap());
    check(
        PlanFit::Deviation { nearest, why: "no".into() },
        expect![[
            r#"{"fit":"deviation","nearest":"save","plan":"018bcfe5-6800-7909-8909-090909090909","version":4,"why":"no"}"#
        ]],
    );
}

#[test]
fn numbers_that_readers_disagree_about_are_not_written() {
    let gateway = GatewayId::new(Timestamp(0), [0; 10]);
    let body = |epoch| RecordBody::Stopped { stop: stop(), epoch: Epoch(epoch) };
    let record = |epoch, at_ms| Record { at_ms: Timestamp(at_ms), gateway, body: body(epoch) };
    let largest = (1 << 53) - 1;
    assert!(decode(&encode(&record(largest, 0)).unwrap()).is_ok());
    for record in [record(largest + 1, 0), record(u64::MAX, 0), record(0, i64::MIN)] {
        assert!(matches!(encode(&record), Err(EncodingFault::NotEncodable(_))));
    }
}

fn with_parameters(parameters: Value) -> Record {
    let gateway = GatewayId::new(Timestamp(0), [0; 10]);
    let mut more = decision();
    more.request.parameters = parameters;
    let agent = "coder".parse().unwrap();
    let body = ActionRecord { action: action(), agent, lineage: lineage(), more };
    Record { at_ms: Timestamp(5), gateway, body: RecordBody::Decision(Box::new(body)) }
}

#[test]
fn what_the_reader_takes_for_something_else_is_not_written() {
    let (raw, number) = ("$serde_json::private::RawValue", "$serde_json::private::Number");
    for parameters in [
        json!({ "x": { raw: "junk" } }),
        json!({ raw: "{\"a\":1}" }),
        json!([{ "a": 1 }, { number: "1" }]),
        json!({ "a": 1, "$serde_json::private::later \" \\": { "b": [] } }),
        json!({ "a": { "!": 0, raw: null, "z": 1 } }),
    ] {
        let refused = encode(&with_parameters(parameters.clone()));
        assert!(matches!(refused, Err(EncodingFault::NotEncodable(_))), "{parameters}");
    }
    for parameters in [
        json!({ "x": raw, "y": [raw, number], "z": format!("{raw}\":") }),
        json!({ "x": format!("\"{raw}\":1"), "y": format!("\\\"{raw}\":") }),
        json!({ format!("\"{raw}"): 1, format!(" {raw}"): 2, "serde_json::private::": 3 }),
    ] {
        let record = with_parameters(parameters.clone());
        assert_eq!(decode(&encode(&record).unwrap()).as_ref(), Ok(&record), "{parameters}");
    }
}

#[test]
fn what_is_nested_deeper_than_the_reader_reads_is_not_written() {
    let nested = |depth| (0..depth).fold(json!("[[[["), |inner, _| json!([inner]));
    let record = with_parameters(nested(100));
    assert_eq!(decode(&encode(&record).unwrap()), Ok(record));
    let refused = encode(&with_parameters(nested(130)));
    assert!(matches!(refused, Err(EncodingFault::NotEncodable(_))));
}

/// JSON that an agent could choose to do harm.
fn hostile() -> impl Strategy<Value = Value> {
    let text =
        || "(\\$serde_json::private::(RawValue|Number)?|[\"\\\\:,{}\\[\\]$a\u{1}\u{e9}]){0,4}";
    let leaf = prop_oneof![
        text().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(Value::Null),
    ];
    leaf.prop_recursive(5, 24, 4, move |inner| {
        let key = || "(\\$serde_json::private::(RawValue|Number)?|[\"\\\\:,$a]){0,3}";
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key(), inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_is_written_can_be_read(parameters in hostile()) {
        if let Ok(bytes) = encode(&with_parameters(parameters)) {
            let again = encode(&decode(&bytes).unwrap()).unwrap();
            prop_assert_eq!(again, bytes);
        }
    }
}

#[test]
fn other_bytes_are_refused() {
    let gateway = GatewayId::new(Timestamp(0), [0; 10]);
    let body = RecordBody::KeysRevoked { agent: "a".parse().unwrap(), by: "b".into() };
    let record = Record { at_ms: Timestamp(5), gateway, body };
    let text = String::from_utf8(encode(&record).unwrap()).unwrap();
    for other in [
        format!("{text} "),
        text.replace(":5,", ":5.0,"),
        text.replace(":5,", ": 5,"),
        text.replace("\"b\"", "\"\\u0062\""),
        text.replace("\"by\":\"b\"", "\"by\":\"b\",\"extra\":1"),
    ] {
        assert_ne!(other, text);
        let result = decode(other.as_bytes());
        assert!(result.is_err(), "{other}");
    }
    for other in ["", "{}", "null", "[]", "\u{0}", "{\"kind\":\"else\"}"] {
        assert!(matches!(decode(other.as_bytes()), Err(EncodingFault::NotARecord(_))), "{other}");
    }
    let deep = "[".repeat(100_000);
    assert!(decode(deep.as_bytes()).is_err());
}
