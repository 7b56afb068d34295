//! Tests of the scenario format: what ships can be played, and what cannot be played is refused.

use super::{
    Call, Ending, Expectation, FREEZE_DROP, Lack, Places, PreviewExpectation, SHIPPED, Scenario,
    Showing, Step,
};
use crate::demo::people::word;
use expect_test::{Expect, expect};
use holdpoint_types::{
    Cause, ChangeCounts, Decision, Digest, Disclosure, FindingResult, OutcomeStatus, PreviewFacts,
    Reason, Reversibility, Ruling,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const HEAD: &str = r#"
title = "A title"
agent = "coder"
[database.prod]
seed = "CREATE TABLE t (id INTEGER)"
[config.agent.coder]
owner = "platform"
[config.server.prod]
command = ["${holdpoint}", "--database", "${database.prod}"]
"#;

const STEP: &str = r#"
say = "It looks."
tool = "prod__query"
parameters = { sql = "SELECT 1" }
expect = { ruling = "permit" }
"#;

fn shipped() -> Scenario {
    Scenario::parse("scenarios/freeze-drop.toml", FREEZE_DROP.text).unwrap()
}

/// A scenario whose incident has this one step, which starts in line 12.
fn with_step(step: &str) -> String {
    format!("{HEAD}[incident]\nstory = \"s\"\n[[incident.step]]\n{step}\n{}", twin())
}

fn twin() -> String {
    format!("[twin]\nstory = \"s\"\n[[twin.step]]\n{STEP}\n")
}

fn refused(text: &str, expected: Expect) {
    let fault = Scenario::parse("a.toml", text).unwrap_err();
    expected.assert_eq(&format!("{}\n", fault.to_string().trim_end()));
}

fn places() -> Places {
    let files = [("prod", "/p \"quoted\".db"), ("dev", "/d.db")];
    let databases = files.into_iter().map(|(name, file)| (name.into(), file.into())).collect();
    Places { holdpoint: "/bin/holdpoint".into(), workspace: "/w".into(), databases, endpoint: None }
}

#[test]
fn the_shipped_incident_reads_as_its_story_says() {
    let scenario = shipped();
    let mut course = String::new();
    for (name, act) in [("incident", &scenario.incident), ("twin", &scenario.twin)] {
        for step in &act.steps {
            let (what, tool, expect) = match step {
                Step::Call(step) => ("call", &step.call.tool, &step.expect),
                Step::Stop(step) => ("stop during", &step.during.tool, &step.expect),
                Step::Approval(step) => {
                    let (word, state) = (word(step.answer), step.state.as_str());
                    course.push_str(&format!("{name}: {word} by {}: {state}\n", step.by));
                    continue;
                }
                Step::Revert(step) => {
                    let (of, status) = (step.of, step.status.as_str());
                    course.push_str(&format!("{name}: revert {of:?} by {}: {status}\n", step.by));
                    continue;
                }
                Step::Proposal(_) | Step::Ruling(_) => continue,
                Step::Meanwhile(step) => {
                    course.push_str(&format!("{name}: meanwhile {}\n", step.database));
                    continue;
                }
                Step::Pending(step) => {
                    course.push_str(&format!("{name}: pending {}\n", step.lacks.as_str()));
                    continue;
                }
            };
            course.push_str(&format!("{name}: {what} {tool}: {}", expect.ruling));
            course.push_str(
                &expect.rules.iter().map(|rule| format!(" [{rule}]")).collect::<String>(),
            );
            course.push('\n');
        }
    }
    expect![[r#"
        incident: call prod__sql_query: permit [granted-reads]
        incident: call prod__sql_query: permit
        incident: call prod__sql_execute: deny [change-freeze]
        incident: call prod__sql_execute: deny [change-freeze]
        incident: call prod__sql_query: deny
        incident: call prod__sql_execute: deny [change-freeze]
        incident: pending breakers
        incident: stop during reports__slow_report: permit
        incident: call prod__sql_query: halt
        twin: call dev__sql_query: permit [granted-reads]
        twin: call dev__sql_execute: permit [granted-destroys-outside-prod]
        twin: call dev__sql_execute: permit
        twin: call dev__sql_execute: permit [granted-writes-outside-prod]
        twin: call reports__slow_report: permit
        twin: revert Task by on-call: restored
        twin: call prod__sql_execute: hold [prod-environment-holds]
        twin: approve by on-call: given
        twin: call prod__sql_execute: permit
        twin: revert Last by on-call: restored
    "#]]
    .assert_eq(&course);
}

#[test]
fn the_twin_makes_the_same_calls_on_the_other_database() {
    let calls = |act: &super::Act| -> BTreeSet<String> {
        let called = act.steps.iter().filter_map(|step| match step {
            Step::Call(step) => Some(&step.call),
            _ => None,
        });
        let text = |call: &super::Call| format!("{} {:?}", call.tool.name(), call.parameters);
        called.map(text).collect()
    };
    let scenario = shipped();
    let only_there = |call: &String| call.contains("count(*)") || call.contains("/* a look */");
    let incident = calls(&scenario.incident).into_iter().filter(|call| !only_there(call));
    let twin = calls(&scenario.twin);
    assert!(incident.into_iter().all(|call| twin.contains(&call)));
}

#[test]
fn the_seed_of_every_shipped_database_is_sql() {
    for (name, seed) in &shipped().databases {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        connection.execute_batch(seed).unwrap_or_else(|error| panic!("{name}: {error}"));
        let count = "SELECT count(*) FROM executives";
        let rows: i64 = connection.query_row(count, [], |row| row.get(0)).unwrap();
        assert!(rows > 0, "{name}");
    }
}

#[test]
fn only_the_incident_is_frozen_and_places_are_filled_in() {
    let scenario = shipped();
    let incident = scenario.incident.config(&places()).unwrap();
    let twin = scenario.twin.config(&places()).unwrap();
    assert!(incident.contains_key("freeze") && !twin.contains_key("freeze"));
    let command = incident["server"]["reports"]["command"].as_array().unwrap();
    let words: Vec<&str> = command.iter().map(|word| word.as_str().unwrap()).collect();
    let expected = ["/bin/holdpoint", "demo-server", "--database", "/d.db", "--workspace", "/w"];
    assert_eq!(words, expected);
    let served = &incident["server"]["prod"]["serves"]["sqlite"];
    assert_eq!(served.as_str(), Some("/p \"quoted\".db"));
    let written = toml::to_string(&incident).unwrap();
    assert_eq!(written.parse::<toml::Table>().unwrap(), incident);
}

#[test]
fn a_missing_place_is_an_error() {
    let empty = Places { databases: BTreeMap::new(), ..places() };
    let fault = shipped().incident.config(&empty).unwrap_err().to_string();
    expect![
        "`${database.dev}` stands for nothing; use `holdpoint`, `workspace`, `endpoint` or `database.NAME`"
    ]
    .assert_eq(&fault);
}

#[test]
fn unknown_keys_and_words_are_refused_with_their_line() {
    refused(
        &with_step(&format!("{STEP}\nexpected = 1")),
        expect![[r#"
            a.toml: TOML parse error at line 19, column 1
               |
            19 | expected = 1
               | ^^^^^^^^
            unknown field `expected`, expected one of `say`, `pending`, `agent`, `needs`, `tool`, `parameters`, `operator`, `by`, `scope`, `of`, `reason`, `while`, `meanwhile`, `propose`, `expect`
        "#]],
    );
    refused(
        &with_step(&STEP.replace("permit", "allow")),
        expect![[r#"
        a.toml: TOML parse error at line 17, column 21
           |
        17 | expect = { ruling = "allow" }
           |                     ^^^^^^^
        unknown variant `allow`, expected one of `permit`, `plan-only`, `hold`, `deny`, `halt`
    "#]],
    );
    refused(
        &with_step(&STEP.replace("prod__query", "query")),
        expect![[r#"
        a.toml: TOML parse error at line 15, column 8
           |
        15 | tool = "query"
           |        ^^^^^^^
        `query` is not a valid tool name: expected `server__tool`
    "#]],
    );
    refused(
        "title",
        expect![[r#"
            a.toml: TOML parse error at line 1, column 6
              |
            1 | title
              |      ^
            key with no value, expected `=`
        "#]],
    );
}

#[test]
fn steps_that_cannot_be_played_are_refused_with_their_line() {
    let deny = r#"expect = { ruling = "deny", reasons = ["policy_forbids"], output = "x" }"#;
    for (step, expected) in [
        (
            "say = \"s\"\nexpect = { ruling = \"permit\" }".to_owned(),
            expect![[r#"
                a.toml:12: a step needs `tool`, `operator`, `meanwhile` or `pending`
            "#]],
        ),
        (
            format!("{STEP}\nscope = \"all\""),
            expect![[r#"
                a.toml:12: `scope` does not belong to a call
            "#]],
        ),
        (
            STEP.replace("expect = { ruling = \"permit\" }", deny),
            expect![[r#"
            a.toml:12: `deny` runs nothing, so expect no `outcome` or `output`
        "#]],
        ),
        (
            STEP.replace("\"permit\"", "\"deny\""),
            expect![[r#"
            a.toml:12: say by which `reasons` the call gets `deny`
        "#]],
        ),
        (
            STEP.replace("prod__", "other__"),
            expect![[r#"
            a.toml:12: no `[config.server.other]` is declared for `other__query`
        "#]],
        ),
        (
            STEP.replace("\"SELECT 1\"", "2025-07-01"),
            expect![[r#"
            a.toml:12: write the time `2025-07-01` as a text: JSON has no times
        "#]],
        ),
        (
            format!("{STEP}\noperator = \"stop\""),
            expect![[r#"
            a.toml:12: a stop's call is written as `while = { tool, parameters }`
        "#]],
        ),
        (
            "say = \"s\"\noperator = \"stop\"\nscope = \"all\"\nexpect = { ruling = \"permit\" }"
                .to_owned(),
            expect![[r#"
                a.toml:12: a stop needs `reason`
            "#]],
        ),
    ] {
        refused(&with_step(&step), expected);
    }
}

#[test]
fn a_world_that_does_not_hang_together_is_refused() {
    let good = with_step(STEP);
    refused(
        &good.replace("\"coder\"", "\"writer\""),
        expect![[r#"
        a.toml:10: no `[config.agent.writer]` is declared for `agent`
    "#]],
    );
    refused(
        &good.replace("${database.prod}", "${database.dev}"),
        expect![[r#"
            a.toml:10: `${database.dev}` stands for nothing; use `holdpoint`, `workspace`, `endpoint` or `database.NAME`
        "#]],
    );
    refused(
        &good.replace("${holdpoint}", "${holdpoint"),
        expect![[r#"
            a.toml:10: `${holdpoint` has a `${` without its `}`
        "#]],
    );
    let unchanged = "[incident]\nunchanged = [\"dev\"]";
    refused(
        &good.replace("[incident]", unchanged),
        expect![[r#"
        a.toml:11: no `[database.dev]` is declared
    "#]],
    );
}

#[test]
fn a_pending_step_names_what_is_missing_and_promises_nothing() {
    let pending = "say = \"Somebody agrees.\"\npending = \"breakers\"";
    let beside = format!("{}[[incident.step]]\n{pending}\n", with_step(STEP));
    let scenario = Scenario::parse("a.toml", &beside).unwrap();
    let Some(Step::Pending(step)) = scenario.incident.steps.last() else { panic!("not pending") };
    assert_eq!((step.lacks, step.say.as_str()), (Lack::Breakers, "Somebody agrees."));
    refused(
        &with_step(pending),
        expect![[r#"
            a.toml:10: an act needs at least one `step` that is not pending
        "#]],
    );
    refused(
        &with_step(&format!("{STEP}\npending = \"breakers\"")),
        expect![[r#"
            a.toml:12: `tool` does not belong to a pending step: nothing of it is checked
        "#]],
    );
    refused(
        &with_step(&pending.replace("breakers", "wishes")),
        expect![[r#"
            a.toml: TOML parse error at line 14, column 11
               |
            14 | pending = "wishes"
               |           ^^^^^^^^
            unknown variant `wishes`, expected one of `breakers`, `labels`, `secrets`
        "#]],
    );
    refused(
        &with_step("say = \"s\"\ntool = \"prod__query\""),
        expect![[r#"
            a.toml:12: a step needs `expect`, or `pending`, or `meanwhile`
        "#]],
    );
}

const HELD: &str = r#"
say = "It changes."
tool = "prod__execute"
expect = { ruling = "hold", reasons = ["policy_holds"] }
"#;

/// The fault of a second step.
fn second_refused(first: &str, second: &str, expected: Expect) {
    let second = format!("{first}\n[[incident.step]]\nsay = \"s\"\n{second}");
    refused(&with_step(&second), expected);
}

const YES: &str = "operator = \"approve\"\nby = \"ada\"\nreason = \"r\"\n";
const GIVEN: &str = "expect = { state = \"given\" }";

#[test]
fn an_answer_to_nothing_or_of_nobody_is_refused() {
    let (yes, given) = (YES, GIVEN);
    second_refused(
        STEP,
        &format!("{yes}{given}"),
        expect![[r#"
        a.toml:19: no call before it is held, so nothing waits for an answer
    "#]],
    );
    second_refused(
        HELD,
        yes,
        expect![[r#"
        a.toml:18: a step needs `expect`, or `pending`, or `meanwhile`
    "#]],
    );
    second_refused(
        HELD,
        &format!("{yes}expect = {{ status = \"restored\" }}"),
        expect![[r#"
            a.toml:18: `status` is nothing to expect of an approval
        "#]],
    );
    second_refused(
        HELD,
        &format!("{yes}of = \"last\"\n{given}"),
        expect![[r#"
        a.toml:18: `of` does not belong to an answer to an approval
    "#]],
    );
    second_refused(
        HELD,
        &format!("operator = \"deny\"\n{given}"),
        expect![[r#"
        a.toml:18: an answer to an approval needs `by`, an operator
    "#]],
    );
    let somebody = "[config.operator.bob]\nuser = \"bob\"\n[config.agent.coder]";
    let text = format!("{HELD}\n[[incident.step]]\nsay = \"s\"\n{yes}{given}");
    let text = with_step(&text).replace("[config.agent.coder]", somebody);
    refused(
        &text,
        expect![[r#"
        a.toml:20: no `[config.operator.ada]` is declared
    "#]],
    );
}

#[test]
fn a_revert_of_nothing_is_refused() {
    let back = "operator = \"revert\"\nby = \"ada\"\nreason = \"r\"\n";
    let restored = "expect = { status = \"restored\", restored = { created = 1 } }";
    second_refused(
        HELD,
        &format!("{back}of = \"last\"\n{restored}"),
        expect![[r#"
        a.toml:18: no call before it is permitted, so nothing was done
    "#]],
    );
    second_refused(
        STEP,
        &format!("{back}{restored}"),
        expect![[r#"
        a.toml:19: a revert needs `of`: `last` or `task`
    "#]],
    );
    second_refused(
        STEP,
        &format!("{back}of = \"task\"\n{restored}"),
        expect![[r#"
        a.toml:19: an act without `ask` has no task to take back
    "#]],
    );
    second_refused(
        STEP,
        &format!("{back}of = \"last\"\nexpect = {{ status = \"restored\" }}"),
        expect![[r#"
            a.toml:19: expect how much is `restored`
        "#]],
    );
}

#[test]
fn a_plan_that_nobody_may_propose_or_did_is_refused() {
    let plan = "propose = { purpose = \"p\", steps = [] }\nexpect = { state = \"proposed\" }";
    let text = with_step(&format!("say = \"s\"\n{plan}"));
    refused(
        &text,
        expect![[r#"
        a.toml:12: no `[config.plans]` lets agents propose plans
    "#]],
    );
    let plans =
        |text: &str| text.replace("[config.agent.coder]", "[config.plans]\n[config.agent.coder]");
    assert!(Scenario::parse("a.toml", &plans(&text)).is_ok());
    refused(
        &plans(&text.replace("\"proposed\"", "\"given\"")),
        expect![[r#"
        a.toml:13: `state` of a plan: unknown variant `given`, expected one of `proposed`, `accepted`, `refused`
    "#]],
    );
    let accept =
        "operator = \"accept\"\nby = \"ada\"\nreason = \"r\"\nexpect = { state = \"accepted\" }";
    second_refused(
        STEP,
        accept,
        expect![[r#"
        a.toml:19: no plan is proposed before it
    "#]],
    );
    second_refused(
        STEP,
        &accept.replace("by = \"ada\"\n", ""),
        expect![[r#"
        a.toml:19: an answer to a plan needs `by`, an operator
    "#]],
    );
    let text = with_step(&format!("say = \"s\"\nof = \"last\"\n{plan}"));
    refused(
        &plans(&text),
        expect![[r#"
        a.toml:13: `of` does not belong to a proposal
    "#]],
    );
}

#[test]
fn what_does_not_belong_to_a_step_is_refused() {
    let given = GIVEN;
    let moves = "meanwhile = { database = \"dev\", sql = \"SELECT 1\" }";
    second_refused(
        STEP,
        moves,
        expect![[r#"
        a.toml:19: no `[database.dev]` is declared
    "#]],
    );
    let moves = moves.replace("dev", "prod");
    second_refused(
        STEP,
        &format!("{moves}\n{given}"),
        expect![[r#"
        a.toml:19: `expect` does not belong to a step of this kind
    "#]],
    );
    refused(
        &with_step(&format!("{STEP}\nagent = \"writer\"")),
        expect![[r#"
        a.toml:12: no `[config.agent.writer]` is declared
    "#]],
    );
    let shows = "permit\", preview = { shows = [\"x\"] }";
    refused(
        &with_step(&STEP.replace("permit\"", shows)),
        expect![[r#"
        a.toml:12: nobody reads a preview of what gets `permit`: no `shows`
    "#]],
    );
    let files = with_step(STEP).replace("[incident]", "[incident]\nrestored = [\"workspace\"]");
    refused(
        &files,
        expect![[r#"
        a.toml:10: `restored` is for databases; files belong to `unchanged`
    "#]],
    );
}

#[test]
fn previews_are_compared_by_what_they_say() {
    let counts = ChangeCounts { created: 0, updated: 1, deleted: 0 };
    let facts = PreviewFacts {
        digest: Digest::of(b"x"),
        counts,
        exact: true,
        guarantee: Reversibility::Exact,
        until: None,
        disclosure: Disclosure::Contained,
        notes: Vec::new(),
    };
    let seen = Showing { facts, text: "+name: \"x\"".to_owned() };
    let wanted = PreviewExpectation {
        updated: 1,
        exact: Some(true),
        guarantee: Some(Reversibility::Exact),
        shows: vec!["+name".to_owned()],
        ..PreviewExpectation::default()
    };
    assert_eq!(wanted.unmet_by(Some(&seen)), Vec::<String>::new());
    let other = PreviewExpectation {
        deleted: 2,
        exact: Some(false),
        guarantee: Some(Reversibility::Compensable),
        shows: vec!["-name".to_owned()],
        ..PreviewExpectation::default()
    };
    expect![[r#"
        expected a preview that says 2 deleted, not 1 changed
        expected a preview that is not exact
        expected the guarantee `compensable`, not `exact`
        expected `-name` in the preview"#]]
    .assert_eq(&other.unmet_by(Some(&seen)).join("\n"));
    expect!["expected that it is seen before, and it was not"]
        .assert_eq(&other.unmet_by(None).join("\n"));
}

#[test]
fn files_stay_below_the_workspace_and_names_mean_one_thing() {
    for path in ["/etc/passwd", "../x", "a/../../x", "", "."] {
        let text = with_step(STEP)
            .replace("[database.prod]", &format!("[files]\n\"{path}\" = \"x\"\n[database.prod]"));
        let fault = Scenario::parse("a.toml", &text).unwrap_err().to_string();
        assert!(fault.ends_with("is no path below the workspace"), "{path}: {fault}");
    }
    refused(
        &with_step(STEP)
            .replace("[database.prod]", "[database.workspace]\nseed = \"\"\n[database.prod]"),
        expect![[r#"
            a.toml:4: `workspace` means the folder of files; choose another name
        "#]],
    );
    refused(
        &with_step(STEP)
            .replace("[database.prod]", "[endpoint]\ndatabase = \"cloud\"\n[database.prod]"),
        expect![[r#"
            a.toml:5: no `[database.cloud]` is declared
        "#]],
    );
    refused(
        &with_step(&STEP.replace("SELECT 1", "${endpoint}")),
        expect![[r#"
        a.toml:12: `${endpoint}` stands for nothing; use `holdpoint`, `workspace`, `endpoint` or `database.NAME`
    "#]],
    );
}

#[test]
fn parameters_are_filled_in_wherever_they_are() {
    let parameters = json!({ "a": ["${workspace}/x"], "b": { "c": "${endpoint}" }, "d": 7 });
    let Value::Object(parameters) = parameters else { panic!("not an object") };
    let call = Call { tool: "prod__query".parse().unwrap(), parameters };
    let with = Places { endpoint: Some("http://e".into()), ..places() };
    let filled = Value::Object(call.parameters(&with).unwrap());
    assert_eq!(filled, json!({ "a": ["/w/x"], "b": { "c": "http://e" }, "d": 7 }));
    assert!(call.parameters(&places()).is_err());
}

#[test]
fn every_file_of_the_folder_is_shipped_and_has_an_incident_and_a_twin_that_runs() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scenarios");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|file| file.extension().is_some_and(|ending| ending == "toml"));
    let files: BTreeSet<_> = files.map(|file| file.file_stem().unwrap().to_owned()).collect();
    assert_eq!(files, SHIPPED.iter().map(|shipped| shipped.name.into()).collect());
    for shipped in SHIPPED {
        let scenario = Scenario::parse(shipped.name, shipped.text).unwrap();
        let rulings = |act: &super::Act| -> Vec<Ruling> {
            let of = act.steps.iter().filter_map(|step| match step {
                Step::Call(step) => Some(step.expect.ruling),
                _ => None,
            });
            of.collect()
        };
        let name = shipped.name;
        let incident = rulings(&scenario.incident);
        assert!(incident.iter().any(|ruling| *ruling != Ruling::Permit), "{name}");
        assert!(!scenario.incident.unchanged.is_empty(), "{name}");
        // A twin may wait for somebody's yes, and is never refused.
        let twin = rulings(&scenario.twin);
        let runs = |ruling: &Ruling| matches!(ruling, Ruling::Permit | Ruling::Hold);
        assert!(twin.iter().all(runs) && twin.last() == Some(&Ruling::Permit), "{name}");
    }
}

fn expectation() -> Expectation {
    Expectation {
        ruling: Ruling::Deny,
        reasons: BTreeSet::from([Reason::PolicyForbids]),
        rules: BTreeSet::from(["change-freeze".to_owned()]),
        outcome: None,
        outcome_reason: None,
        output: None,
        checks: BTreeMap::new(),
        preview: None,
    }
}

#[test]
fn checks_afterwards_are_compared_by_name() {
    let checks = BTreeMap::from([("rows".to_owned(), FindingResult::Fail)]);
    let expects = Expectation { checks, ..expectation() };
    let found = |result| BTreeMap::from([("rows".to_owned(), result)]);
    assert_eq!(expects.unmet_by_checks(&found(FindingResult::Fail)), Vec::<String>::new());
    assert_eq!(
        expects.unmet_by_checks(&found(FindingResult::Pass)),
        ["expected check `rows` to find `fail`, not `pass`"]
    );
    assert_eq!(
        expects.unmet_by_checks(&BTreeMap::new()),
        ["expected check `rows` to find `fail`, not `nothing`"]
    );
    assert_eq!(expectation().unmet_by_checks(&found(FindingResult::Fail)), Vec::<String>::new());
}

#[test]
fn a_decision_is_compared_by_its_deciding_causes() {
    let forbids = Cause::new(Ruling::Deny, Reason::PolicyForbids, "a freeze");
    let held = Cause::new(Ruling::Hold, Reason::PolicyHolds, "prod").by_rule("change-freeze");
    let met = Decision::from_iter([forbids.clone().by_rule("change-freeze"), held.clone()]);
    assert_eq!(expectation().unmet_by(&met), Vec::<String>::new());
    let milder = Decision::from_iter([held]);
    assert_eq!(
        expectation().unmet_by(&milder),
        ["expected `deny`, not `hold`", "expected reason `policy_forbids`"]
    );
    let unnamed = Decision::from_iter([forbids]);
    assert_eq!(expectation().unmet_by(&unnamed), ["expected rule `change-freeze`"]);
}

#[test]
fn an_end_is_compared_only_where_something_is_expected() {
    let end = Ending { outcome: OutcomeStatus::ToolError, reason: None, output: "no such table" };
    assert_eq!(expectation().unmet_by_end(None), Vec::<String>::new());
    assert_eq!(expectation().unmet_by_end(Some(end)), ["expected that it never runs"]);
    let permit = Expectation { ruling: Ruling::Permit, ..expectation() };
    assert_eq!(permit.unmet_by_end(Some(end)), Vec::<String>::new());
    assert_eq!(permit.unmet_by_end(None), ["expected that it runs"]);
    let exact = Expectation {
        outcome: Some(OutcomeStatus::InDoubt),
        outcome_reason: Some(Reason::CancelledByStop),
        output: Some("rows".to_owned()),
        ..permit
    };
    assert_eq!(
        exact.unmet_by_end(Some(end)),
        [
            "expected outcome `in_doubt`, not `tool_error`",
            "expected that it ends by `cancelled_by_stop`",
            "expected `rows` in the answer",
        ]
    );
}
