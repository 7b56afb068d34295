//! The incidents of `scenarios/`: the shipped program plays them all, and counts what it cannot.

use crate::world::{left_out, text};
use serde_json::{Value, json};
use std::process::{Command, Output, Stdio};

fn scenario(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdpoint"));
    command.arg("scenario").args(arguments).env("NO_COLOR", "1").stdin(Stdio::null());
    command.output().unwrap()
}

fn file(name: &str) -> String {
    format!("{}/../../scenarios/{name}.toml", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_scenario_is_played_as_written() {
    let output = scenario(&["run", "--format", "json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut astray = Vec::new();
    let mut pending = 0;
    for scenario in said["scenarios"].as_array().unwrap() {
        let acts = scenario["acts"].as_array().unwrap();
        assert_eq!(acts.len(), 2, "{scenario}");
        let twin = acts[1]["steps"].as_array().unwrap();
        for step in twin.iter().filter(|step| step["ruling"].is_string()) {
            let ran = step["ruling"] == "permit" && step["outcome"] == "succeeded";
            assert!(ran || step["ruling"] == "hold", "a twin is hindered: {step}");
        }
        let calls: Vec<_> = twin.iter().filter(|step| step["ruling"].is_string()).collect();
        assert_eq!(calls.last().unwrap()["outcome"], "succeeded", "{twin:?}");
        for step in acts.iter().flat_map(|act| act["steps"].as_array().unwrap()) {
            if step["left_out"].is_string() {
                left_out(&step.to_string());
                continue;
            }
            match &step["pending"] {
                Value::Null if step["unmet"] == json!([]) => {}
                Value::Null => astray.push(format!("{}: {step}", scenario["name"])),
                _ => pending += 1,
            }
        }
    }
    assert!(astray.is_empty(), "{astray:#?}");
    let total = &said["total"];
    assert_eq!(output.status.code(), Some(0), "{total}");
    assert_eq!(said["good"], true);
    assert_eq!((&total["scenarios"], &total["changed"]), (&json!(7), &json!(0)));
    assert_eq!(total["pending_steps"], pending);
    // A later issue that brings one of these changes its steps, and this list.
    assert_eq!(total["pending"], json!({ "breakers": 3, "labels": 4, "secrets": 1 }));
    // Only a box may be missing, and not where everything has to be played.
    let left_out = total["left_out"].as_u64().unwrap();
    assert!(left_out <= 1 && (left_out == 0 || std::env::var_os("CI").is_none()), "{total}");
}

#[test]
fn a_scenario_is_told_in_a_line_for_each_act_or_in_full() {
    let toxic = file("toxic-flow");
    let output = scenario(&["run", &toxic, "tf-stale-state"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for line in [
        "toxic-flow       incident  ok  3 of 3 steps as expected, 2 pending: labels 2",
        "tf-stale-state   twin      ok  7 of 7 steps as expected",
        "2 scenarios, 32 steps as expected, 2 pending: labels 2",
    ] {
        assert!(said.contains(line), "`{line}` is missing:\n{said}");
    }
    let said = text(&scenario(&["run", "--verbose", "found-token", "tf-stale-state"]).stdout);
    for line in [
        "THE INCIDENT",
        "not played: Holdpoint has no secrets yet",
        "workspace: byte-identical",
        "cloud: byte-identical, but for what somebody else changed",
        "+value: \"https://login.staging.example.com\"",
        "approve   ada: it looks like one of the duplicates",
        "approval  waits  still missing: owner (1 of 2)",
        "approval  given  exactly this call may be made, once",
        "approval  denied  the agent reads why when it asks again",
        "meanwhile cloud: INSERT INTO resources",
        "plan      proposed  it waits for somebody to accept it",
        "accept    ada: a name, nothing else",
        "the plan is void: the target of step `rename` moved",
    ] {
        assert!(said.contains(line), "`{line}` is missing:\n{said}");
    }
    // It fits a terminal of 80 columns, up to what `why` says.
    for act in said.split("THE ").skip(1) {
        let timeline = act.split("holdpoint why").next().unwrap();
        let long = timeline.lines().find(|line| line.chars().count() > 80);
        assert_eq!(long, None, "{timeline}");
    }
    let listed = text(&scenario(&["list"]).stdout);
    assert_eq!(listed.lines().count(), 7, "{listed}");
    assert!(listed.contains("found-token      The token that lay around"), "{listed}");
}

/// Plays a shipped scenario in which `right` was changed to `wrong`.
fn doctored(name: &str, right: &str, wrong: &str) -> (Option<i32>, String) {
    let written = std::fs::read_to_string(file(name)).unwrap();
    assert!(written.contains(right), "{written}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("doctored.toml");
    std::fs::write(&file, written.replacen(right, wrong, 1)).unwrap();
    let output = scenario(&["run", file.to_str().unwrap()]);
    let said = text(&output.stdout) + &text(&output.stderr);
    // Lines are broken where a terminal ends.
    (output.status.code(), said.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[test]
fn an_expectation_that_fails_fails_the_run() {
    let expected = "reasons = [\"policy_forbids\"], rules = [\"secrets-stay-secret\"]";
    let (code, said) = doctored("support-ticket", expected, "reasons = [\"policy_holds\"]");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("UNEXPECTED: expected reason `policy_holds`"), "{said}");
    assert!(said.contains("8 steps as expected, 1 not as expected"), "{said}");
}

#[test]
fn what_people_do_is_compared_with_what_was_expected() {
    // Without the second yes nothing is given, and with the state unmoved the plan would run.
    let (code, said) = doctored("tf-stale-state", "by = \"bob\"", "by = \"ada\"");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("expected that the approval is `given`, not `waits`"), "{said}");
    let unmoved = "sql = \"SELECT 1\" }";
    let moved =
        "sql = \"INSERT INTO resources VALUES ('aws_lb_listener.web', 'aws_lb_listener')\" }";
    let (code, said) = doctored("tf-stale-state", moved, unmoved);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("expected `hold`, not `permit`"), "{said}");
    assert!(said.contains("`cloud` was changed"), "{said}");
    // A plan whose state did not move is not void: its call waits as any other in production.
    let moved = moved.replace(".web'", ".api'");
    let (code, said) = doctored("tf-stale-state", &moved, unmoved);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("expected `deny`, not `hold`"), "{said}");
    let (code, said) = doctored("tf-stale-state", "operator = \"accept\"", "operator = \"refuse\"");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("expected that the plan is `accepted`, not `refused`"), "{said}");
    // Who is of no team cannot approve for it.
    let (code, said) = doctored("bulk-inbox", "teams = [\"office\"]", "teams = []");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("what `olga` says does not count"), "{said}");
    // A preview that says something else is seen, and so is what is not put back.
    let (code, said) = doctored("bulk-inbox", "deleted = 50", "deleted = 49");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("a preview that says 49 deleted, not 50 deleted"), "{said}");
    let (code, said) = doctored("silent-mkdir", "of = \"task\"", "of = \"last\"");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("expected that putting back is"), "{said}");
    assert!(said.contains("`workspace` was changed"), "{said}");
}

#[test]
fn what_somebody_else_changes_does_not_hide_what_the_agent_changed() {
    // Where one yes is enough, the plan runs, and only then somebody else changes the cloud.
    let (code, said) = doctored("tf-stale-state", "count = 2", "count = 1");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("expected that the approval is `waits`, not `given`"), "{said}");
    assert!(said.contains("`cloud` was changed"), "{said}");
}

#[test]
fn an_incident_that_is_let_through_really_happens_and_is_seen() {
    // Where nobody minds a token in a call, and all is staging, the volume is gone.
    let (code, said) = doctored(
        "found-token",
        "resources = [\"cloud://staging/**\"]",
        "resources = [\"http://127.0.0.1:*/**\"]\n[config.invariant]\ncredential_in_call.result = \"warn\"",
    );
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("`cloud` was changed"), "{said}");
    assert!(said.contains("{\"data\":{\"volumeDelete\":true}}"), "{said}");
    // Who may destroy, may move one file onto the other: then one is left of three.
    let (code, said) = doctored(
        "silent-mkdir",
        "{ class = \"write\", tools = [\"box__*\"] }]",
        "{ class = \"write\", tools = [\"box__*\"] }, { class = \"destructive\", \
         tools = [\"box__move_file\"] }]",
    );
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("`workspace` was changed"), "{said}");
    assert!(said.contains("1 thing changed that must not"), "{said}");
}

#[test]
fn what_the_machine_does_not_allow_is_left_out_and_said_so() {
    // A namespace in which there are no further ones: no command can be boxed there.
    let forbid =
        "echo 0 > /proc/sys/user/max_mnt_namespaces && exec \"$0\" scenario run silent-mkdir";
    let mut command = Command::new("unshare");
    let command = command.args(["-Ur", "sh", "-c", forbid, env!("CARGO_BIN_EXE_holdpoint")]);
    let output = command.env("NO_COLOR", "1").stdin(Stdio::null()).output().unwrap();
    let (said, complained) = (text(&output.stdout), text(&output.stderr));
    if said.is_empty() {
        assert!(std::env::var_os("CI").is_none(), "{complained}");
        left_out(&format!("a machine without boxes: {complained}"));
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{said}{complained}");
    let line = "1 scenario, 11 steps as expected, 1 left out: this machine does not allow it";
    assert!(said.contains(line), "{said}");
}

#[test]
fn what_is_no_scenario_is_refused_before_anything_is_played() {
    let (code, said) = doctored("toxic-flow", "pending = \"labels\"", "pending = \"wishes\"");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("unknown variant `wishes`, expected one of `breakers`"), "{said}");
    let (code, said) = doctored("toxic-flow", "class = \"read\"", "class = \"reed\"");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("`reed`") && said.contains("1 fault"), "{said}");
    let output = scenario(&["run", "toxic-flow", "nowhere.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "");
    assert!(text(&output.stderr).contains("cannot read `nowhere.toml`"));
}
