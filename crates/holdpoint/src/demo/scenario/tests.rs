//! Tests of the scenario format: what ships can be played, and what cannot be played is refused.

use super::{Call, Ending, Expectation, FREEZE_DROP, Lack, Places, SHIPPED, Scenario, Step};
use expect_test::{Expect, expect};
use holdpoint_types::{Cause, Decision, FindingResult, OutcomeStatus, Reason, Ruling};
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
        incident: call prod__query: permit [granted-reads]
        incident: call prod__query: permit
        incident: call prod__execute_sql: deny [change-freeze]
        incident: call prod__execute_sql: deny [change-freeze]
        incident: call prod__query: deny
        incident: call prod__insert_rows: deny [change-freeze]
        incident: pending breakers
        incident: stop during prod__slow_report: permit
        incident: call prod__query: halt
        incident: pending undo
        twin: call dev__query: permit [granted-reads]
        twin: call dev__execute_sql: permit [granted-destroys-outside-prod]
        twin: call dev__execute_sql: permit
        twin: call dev__insert_rows: permit [granted-writes-outside-prod]
        twin: call dev__slow_report: permit
    "#]]
    .assert_eq(&course);
}

#[test]
fn the_twin_makes_the_same_calls_on_the_other_database() {
    let calls = |act: &super::Act| -> BTreeSet<String> {
        let called = act.steps.iter().filter_map(|step| match step {
            Step::Call(step) => Some(&step.call),
            Step::Stop(_) | Step::Pending(_) => None,
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
    let command = incident["server"]["prod"]["command"].as_array().unwrap();
    let words: Vec<&str> = command.iter().map(|word| word.as_str().unwrap()).collect();
    let database = "/p \"quoted\".db";
    let expected = ["/bin/holdpoint", "demo-server", "--database", database, "--workspace", "/w"];
    assert_eq!(words, expected);
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
            unknown field `expected`, expected one of `say`, `pending`, `tool`, `parameters`, `operator`, `scope`, `reason`, `while`, `expect`
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
            a.toml:12: a step needs `tool`, or `operator = "stop"`
        "#]],
        ),
        (
            format!("{STEP}\nscope = \"all\""),
            expect![[r#"
            a.toml:12: `scope`, `reason` and `while` belong to `operator = "stop"`
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
    let pending = "say = \"Somebody agrees.\"\npending = \"approvals\"";
    let beside = format!("{}[[incident.step]]\n{pending}\n", with_step(STEP));
    let scenario = Scenario::parse("a.toml", &beside).unwrap();
    let Some(Step::Pending(step)) = scenario.incident.steps.last() else { panic!("not pending") };
    assert_eq!((step.lacks, step.say.as_str()), (Lack::Approvals, "Somebody agrees."));
    refused(
        &with_step(pending),
        expect![[r#"
            a.toml:10: an act needs at least one `step` that is not pending
        "#]],
    );
    refused(
        &with_step(&format!("{STEP}\npending = \"approvals\"")),
        expect![[r#"
            a.toml:12: a pending step has only `say`: nothing else of it is checked
        "#]],
    );
    refused(
        &with_step(&pending.replace("approvals", "wishes")),
        expect![[r#"
            a.toml: TOML parse error at line 14, column 11
               |
            14 | pending = "wishes"
               |           ^^^^^^^^
            unknown variant `wishes`, expected one of `approvals`, `breakers`, `labels`, `plans`, `previews`, `secrets`, `undo`
        "#]],
    );
    refused(
        &with_step("say = \"s\"\ntool = \"prod__query\""),
        expect![[r#"
            a.toml:12: a step needs `expect`, or `pending`
        "#]],
    );
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
                Step::Stop(_) | Step::Pending(_) => None,
            });
            of.collect()
        };
        let name = shipped.name;
        let incident = rulings(&scenario.incident);
        assert!(incident.iter().any(|ruling| *ruling != Ruling::Permit), "{name}");
        assert!(!scenario.incident.unchanged.is_empty(), "{name}");
        let twin = rulings(&scenario.twin);
        assert!(twin.iter().all(|ruling| *ruling == Ruling::Permit), "{name}");
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
