//! Checks after calls: on the outcome and on the target, at once and on a schedule, and whoever
//! does not answer counts as an objection.

use crate::effects;
use crate::postgres::Postgres;
use crate::raw::{Pipe, call, reason};
use crate::world::{PEER, World, text, until};
use serde_json::{Value, json};

/// A world with the small server and this validator after calls.
fn world(validator: &str) -> World {
    World::new(&peer(validator))
}

fn peer(validator: &str) -> String {
    format!("{PEER}\n[validator.after]\nwhen = \"after\"\n{validator}\n")
}

/// Writes a file through the gateway.
fn touch(world: &World, name: &str) -> Pipe {
    let mut pipe = Pipe::wrap(world);
    pipe.tell(&json!({ "jsonrpc": "2.0", "id": 0, "method": "tools/list" }));
    pipe.answer(0);
    pipe.tell(&call(1, "touch", json!({ "path": world.files().join(name) })));
    assert_eq!(reason(&pipe.answer(1)), "answered");
    pipe
}

/// The records of checks, once there are so many.
fn checked(world: &World, count: usize) -> Vec<Value> {
    until("the checks are made", || {
        let log = world.json(&["log", "--kind", "checked"]);
        let records = log["records"].as_array()?.clone();
        (records.len() >= count).then_some(records)
    })
}

fn finding(record: &Value) -> (&str, &str, &str) {
    let found = &record["lineage"]["post_validation"]["present"][0];
    let of = |name: &str| found[name].as_str().unwrap();
    (of("result"), of("reason"), of("evidence"))
}

#[test]
fn an_outcome_is_checked_at_once_and_on_a_schedule() {
    let cel = "cel = \"outcome.status == 'succeeded' && output.content.size() == 1 && \
               check.at_ms >= check.due_ms\"\nafter_s = [1, 0, 86400]";
    let world = world(cel);
    let pipe = touch(&world, "made");
    let records = checked(&world, 2);
    for record in &records {
        assert_eq!(finding(record), ("pass", "validator_objects", ""));
        assert_eq!(record["lineage"]["tool_output"]["present"].get("body"), None);
    }
    let due = |record: &Value| record["due_ms"].as_i64().unwrap();
    assert_eq!(due(&records[1]) - due(&records[0]), 1000);
    let action = records[0]["action"].as_str().unwrap().to_owned();
    let why = world.json(&["why", &action]);
    assert_eq!(why["checks"].as_array().unwrap().len(), 2);
    assert_eq!(why["checks_due"][0]["due_ms"], due(&records[0]) + 86_400_000);
    let told = world.must(&["why", &action]);
    assert!(told.contains("checks") && told.contains("due at"), "{told}");
    let open = world.json(&["checks"]);
    assert_eq!(open["due"].as_array().unwrap().len(), 1);
    assert_eq!(open["checks"], json!([]));
    let told = world.must(&["checks"]);
    assert!(told.contains("no check has failed") && told.contains("1 check due"), "{told}");
    assert!(told.contains("in 23 h") || told.contains("in 24 h"), "{told}");
    assert_eq!(pipe.end().0, Some(0));
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[test]
fn who_objects_or_cannot_tell_after_a_call_fails_its_check() {
    let check = |validator: &str, expected: (&str, &str)| {
        let world = world(&format!("{validator}\nafter_s = [0]"));
        let pipe = touch(&world, "made");
        let records = checked(&world, 1);
        let (result, reason, evidence) = finding(&records[0]);
        assert_eq!((result, reason), expected, "{validator}: {evidence}");
        let failed = matches!(result, "fail" | "opaque");
        let run = world.run(&["checks"]);
        assert_eq!(run.status.code(), Some(if failed { 5 } else { 0 }), "{validator}");
        assert_eq!(text(&run.stdout).contains("after"), failed, "{validator}");
        pipe.end();
        world.must(&["verify"]);
    };
    check("cel = \"outcome.status != 'succeeded'\"", ("fail", "validator_objects"));
    check("cel = \"output.nothing == 1\"", ("opaque", "validator_unavailable"));
    let says = |script: &str| format!("command = [\"bash\", \"-c\", {}]", json!(script));
    let fail = "read line; echo '{\"result\":\"fail\",\"evidence\":\"rows are gone\"}'";
    check(&says(fail), ("fail", "validator_objects"));
    check(&format!("{}\nresult = \"warn\"", says(fail)), ("warn", "validator_objects"));
    check(&format!("{}\ntimeout_ms = 100", says("sleep 60")), ("opaque", "validator_unavailable"));
    check(&says("exit 3"), ("opaque", "validator_unavailable"));
    // Whatever a failing validator says last, it cannot write lines into our log.
    let forging = world(&says("printf '\\nINFO all is well\\033[2J' >&2"));
    let pipe = touch(&forging, "made");
    checked(&forging, 1);
    pipe.end();
    let log = std::fs::read_to_string(forging.path().join("wrap.log")).unwrap();
    assert!(log.contains("all is well") && !log.contains("\nINFO all is well"), "{log}");
    assert!(!log.contains('\u{1b}'), "{log}");
}

#[test]
fn only_calls_that_ran_and_count_are_checked() {
    let world = world("cel = \"false\"\nafter_s = [0]");
    let mut pipe = touch(&world, "made");
    // A read, and a call that is refused.
    assert_eq!(reason(&pipe.call(2, "echo", json!({ "text": "hi" }))), "answered");
    assert_ne!(reason(&pipe.call(3, "nothing", json!({}))), "answered");
    let records = checked(&world, 1);
    pipe.end();
    assert_eq!(records.len(), 1);
    let log = world.records();
    let outcomes = log.iter().filter(|record| record["kind"] == "outcome");
    let due: Vec<_> = outcomes.filter_map(|outcome| outcome.get("checks")).collect();
    assert_eq!(due.len(), 1, "{log:?}");
}

#[test]
fn a_check_outlives_the_process_whose_call_it_is_about() {
    let world = world("cel = \"outcome.status == 'in_doubt'\"\nafter_s = [0, 86400]");
    let mut pipe = Pipe::wrap(&world);
    pipe.tell(&json!({ "jsonrpc": "2.0", "id": 0, "method": "tools/list" }));
    pipe.answer(0);
    let path = world.files().join("made");
    pipe.begin(1, "touch", json!({ "path": path, "then": "hang" }));
    until("the file is there", || path.exists().then_some(()));
    pipe.kill();
    drop(pipe);
    let other = touch(&world, "other");
    let records = checked(&world, 2);
    let results: Vec<_> = records.iter().map(|record| finding(record).0).collect();
    let doubts = world.json(&["log", "--in-doubt"]);
    let doubtful = &doubts["records"][0]["action"];
    for (record, result) in records.iter().zip(results) {
        let expected = if record["action"] == *doubtful { "pass" } else { "fail" };
        assert_eq!(result, expected, "{record}");
    }
    other.end();
    // Another start promises nothing twice.
    let due = |world: &World| {
        let open = world.run(&["checks", "--format", "json"]);
        let open: Value = serde_json::from_slice(&open.stdout).unwrap();
        open["due"].as_array().unwrap().len()
    };
    assert_eq!(due(&world), 2);
    let third = touch(&world, "third");
    until("its call is checked", || (checked(&world, 3).len() == 3).then_some(()));
    third.end();
    assert_eq!(due(&world), 3);
    world.must(&["verify"]);
}

#[test]
fn who_lives_notices_who_died_and_checks_what_that_left() {
    let world = world("cel = \"outcome.status == 'in_doubt'\"\nafter_s = [0]");
    let living = touch(&world, "living");
    checked(&world, 1);
    let mut dying = Pipe::wrap(&world);
    dying.tell(&json!({ "jsonrpc": "2.0", "id": 0, "method": "tools/list" }));
    dying.answer(0);
    let path = world.files().join("made");
    dying.begin(1, "touch", json!({ "path": path, "then": "hang" }));
    until("the file is there", || path.exists().then_some(()));
    dying.kill();
    drop(dying);
    // Nobody starts anew.
    let records = checked(&world, 2);
    assert_eq!(finding(&records[1]).0, "pass", "{records:?}");
    let found = world.json(&["log", "--kind", "found_in_doubt"]);
    assert_eq!(found["records"][0]["in_doubt"][0], records[1]["action"]);
    living.end();
    world.must(&["verify"]);
}

#[test]
fn a_process_that_ends_makes_the_checks_that_are_due() {
    let world = world("cel = \"true\"\nafter_s = [0, 86400]");
    let pipe = touch(&world, "made");
    assert_eq!(pipe.end().0, Some(0));
    let log = world.json(&["log", "--kind", "checked"]);
    assert_eq!(log["records"].as_array().unwrap().len(), 1, "{log}");
}

#[test]
fn a_slow_validator_makes_no_other_late() {
    let slow = "command = [\"bash\", \"-c\", \"sleep 60\"]\ntimeout_ms = 20000\nafter_s = [0]";
    let quick = "[validator.quick]\nwhen = \"after\"\nafter_s = [0]\ncel = \"true\"";
    let world = world(&format!("{slow}\n{quick}"));
    let mut pipe = touch(&world, "0");
    for id in 2..40 {
        let path = world.files().join(id.to_string());
        assert_eq!(reason(&pipe.call(id, "touch", json!({ "path": path }))), "answered");
    }
    // Four at a time wait for the slow one, for 20 s each: ten times as long as a test may wait.
    let records = checked(&world, 39);
    let quick = records.iter().filter(|record| finding(record).0 == "pass");
    assert_eq!(quick.count(), 39);
    pipe.kill();
}

#[test]
fn a_check_that_nobody_can_make_any_more_has_failed() {
    let world = world("cel = \"true\"\nafter_s = [2]");
    let serve = world.serve();
    let pipe = touch(&world, "made");
    world.write_config(PEER);
    serve.signal(rustix::process::Signal::HUP);
    let records = checked(&world, 1);
    assert_eq!(finding(&records[0]).1, "check_missing");
    assert_eq!(finding(&records[0]).0, "opaque");
    pipe.end();
    serve.end();
    assert!(world.serve_log().contains("a check after an action failed"), "{}", world.serve_log());
    world.must(&["verify"]);
}

/// The agent's server writes as one role; the check looks as another one that can only read.
#[test]
fn a_target_is_checked_under_an_identity_that_can_only_read() {
    let postgres = Postgres::start();
    let script = r#"
        q() { psql -XAtq -U auditor shop -c "$1" 2>&1; }
        read line
        q 'DELETE FROM users' | grep -q 'permission denied' || exit 1
        left=$(q 'SELECT count(DISTINCT id) FROM users')
        [ "$left" = 5 ] && echo '{"result":"pass"}' ||
            echo '{"result":"fail","evidence":"'"$left"' of 5 users are left"}'
    "#;
    let world = effects::world();
    let validator = format!(
        "[validator.users]\nwhen = \"after\"\nafter_s = [0, 1]\ntimeout_ms = 10000\n\
         tools = [\"box__postgres\"]\nenv = {{ PGHOST = {} }}\n\
         command = [\"bash\", \"-c\", {}]\n",
        json!(postgres.host()),
        json!(script)
    );
    let config = effects::CONFIG.replace("${tools}", &effects::tools());
    world.write_config(&format!("{config}\n{validator}"));
    postgres.run(
        "CREATE TABLE users(id int); INSERT INTO users SELECT generate_series(1, 5); \
         CREATE ROLE auditor LOGIN; GRANT SELECT ON users TO auditor",
    );
    let mut command = effects::wrap(&world, "coder");
    command.env("PGHOST", postgres.host()).env("PGUSER", "shop");
    let mut pipe = effects::opened(command);
    let mut call =
        |id: u32, sql: &str| effects::came(&pipe.call(id, "postgres", json!({ "sql": sql })));
    assert_eq!(call(1, "UPDATE users SET id = 6 WHERE id = 5"), "");
    let all: Vec<_> = checked(&world, 2).iter().map(|one| finding(one).0.to_owned()).collect();
    assert_eq!(all, ["pass", "pass"]);
    // No rule forbids it, the answer says nothing, and yet it is found.
    assert_eq!(call(2, "UPDATE users SET id = 0 WHERE id > 2"), "");
    let records = checked(&world, 4);
    for record in &records[2..] {
        assert_eq!(finding(record), ("fail", "validator_objects", "3 of 5 users are left"));
    }
    pipe.end();
}

/// What holds data goes only if somebody else has kept it, whatever the agent says.
#[test]
fn what_holds_data_goes_only_with_a_recovery_point_elsewhere() {
    let world = effects::world();
    std::fs::write(world.path().join("kept"), "tf://shop/aws_db_instance.old\n").unwrap();
    let script = r#"
        read -r call
        for resource in $(grep -oE '"resource":"[^"]*"' <<< "$call" | cut -d'"' -f4); do
          grep -qxF "$resource" "$KEPT" || { echo '{"result":"fail","evidence":"not kept"}'; exit; }
        done
        echo '{"result":"pass"}'
    "#;
    let config = effects::CONFIG.replace("${tools}", &effects::tools());
    world.write_config(&format!(
        "{config}\n[invariant]\nstateful_delete.result = \"warn\"\n\
         [validator.recovery-point]\nclass = \"destructive\"\ntimeout_ms = 10000\n\
         tools = [\"box__terraform_apply\"]\nenv = {{ KEPT = {} }}\n\
         command = [\"bash\", \"-c\", {}]\n",
        json!(world.path().join("kept")),
        json!(script)
    ));
    let mut pipe = effects::opened(effects::wrap(&world, "janitor"));
    let mut destroy = |id: u32, name: &str| {
        let change =
            json!({ "actions": ["delete"], "before": { "identifier": name }, "after": null });
        let plan = json!({
            "format_version": "1.2", "terraform_version": "1.9.5",
            "planned_values": { "root_module": {} },
            "resource_changes": [{
                "address": format!("aws_db_instance.{name}"), "mode": "managed",
                "type": "aws_db_instance", "change": change,
            }],
        });
        reason(&pipe.call(id, "terraform_apply", json!({ "plan": plan.to_string() })))
    };
    assert_eq!(destroy(1, "courses"), "validator_objects");
    // Whatever becomes of it now, it was permitted.
    assert_ne!(destroy(2, "old"), "validator_objects");
    for ruling in ["deny", "permit"] {
        let log = world.json(&["log", "--tool", "box__terraform_apply", "--decision", ruling]);
        assert_eq!(log["records"].as_array().unwrap().len(), 1, "{log}");
    }
    pipe.end();
}

#[test]
fn so_many_checks_may_wait() {
    let config = peer("cel = \"true\"\nafter_s = [3600, 7200]");
    let config = config.replace("[limits]", "[limits]\nchecks_open_max = 3");
    let world = World::new(&config);
    let mut pipe = touch(&world, "first");
    let mut call = |id: u32, tool: &str| {
        let path = world.files().join(format!("{tool}{id}"));
        reason(&pipe.call(id, tool, json!({ "path": path, "text": "" })))
    };
    assert_eq!(call(2, "touch"), "answered");
    // Two wait for each of the two calls.
    assert_eq!(call(3, "touch"), "checks_full");
    assert_eq!(call(4, "echo"), "answered", "it needs no check");
    let log = world.json(&["log", "--decision", "deny"]);
    assert_eq!(log["records"][0]["decision"][1]["reason"], "checks_full", "{log}");
    pipe.end();
}

#[test]
fn a_faulty_check_is_found_before_anything_starts() {
    let check = |validator: &str, fault: &str| {
        let world = world(validator);
        let run = world.run(&["check"]);
        let said = text(&run.stderr) + &text(&run.stdout);
        assert_eq!(run.status.code(), Some(2), "{validator}: {said}");
        assert!(said.contains(fault), "{validator}: {said}");
    };
    check("cel = \"true\"\nafter_s = []", "a call is checked 1 to 16 times");
    let many: Vec<u32> = (0..17).collect();
    let many = format!("cel = \"true\"\nafter_s = {}", json!(many));
    check(&many, "a call is checked 1 to 16 times");
    check("cel = \"true\"\nafter_s = [2592001]", "30 days");
    check("cel = \"outcom == 1\"", "`outcom` is not known");
    let before = "cel = \"true\"\n[validator.before]\ncel = \"true\"\nafter_s = [0]";
    check(before, "`after_s` needs `when");
}

#[test]
fn a_finding_has_a_code_and_a_severity() {
    let check = |answer: &str, more: &str, expected: (&str, &str, &str)| {
        let script = format!("read line; echo '{answer}'");
        let command = format!("command = [\"bash\", \"-c\", {}]\n{more}", json!(script));
        let world = world(&format!("{command}\nafter_s = [0]"));
        let pipe = touch(&world, "made");
        let records = checked(&world, 1);
        let found = &records[0]["lineage"]["post_validation"]["present"][0];
        let of = |name: &str, absent: &'static str| {
            found.get(name).map_or(absent, |value| value.as_str().unwrap()).to_owned()
        };
        let found = (of("result", "?"), of("code", ""), of("severity", "high"));
        let found = (found.0.as_str(), found.1.as_str(), found.2.as_str());
        assert_eq!(found, expected, "{answer}");
        pipe.end();
    };
    let fails = r#"{"result":"fail","code":"rows_gone","severity":"critical"}"#;
    check(fails, "", ("fail", "rows_gone", "critical"));
    check(r#"{"result":"fail"}"#, "", ("fail", "", "high"));
    check(r#"{"result":"fail"}"#, "severity = \"low\"", ("fail", "", "low"));
    check(r#"{"result":"fail","severity":"awful"}"#, "", ("opaque", "", "high"));
    check(r#"{"result":"fail","code":"Rows gone"}"#, "", ("opaque", "", "high"));
    let long = "x".repeat(65);
    check(&json!({ "result": "fail", "code": long }).to_string(), "", ("opaque", "", "high"));
}
