//! The incidents of `scenarios/`: the shipped program plays them all, and counts what it cannot.

use crate::world::text;
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
        for step in acts[1]["steps"].as_array().unwrap() {
            let ran = step["ruling"] == "permit" && step["outcome"] == "succeeded";
            assert!(ran || step["pending"].is_string(), "a twin is hindered: {step}");
        }
        for step in acts.iter().flat_map(|act| act["steps"].as_array().unwrap()) {
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
    let waiting = json!({
        "approvals": 3, "breakers": 3, "labels": 4, "plans": 1, "previews": 2, "secrets": 1,
        "undo": 2,
    });
    assert_eq!(total["pending"], waiting);
}

#[test]
fn a_scenario_is_told_in_a_line_for_each_act_or_in_full() {
    let toxic = file("toxic-flow");
    let output = scenario(&["run", &toxic, "silent-mkdir"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for line in [
        "toxic-flow       incident  ok  3 of 3 steps as expected, 2 pending: labels 2",
        "silent-mkdir     twin      ok  3 of 3 steps as expected, 1 pending: previews 1",
        "2 scenarios, 14 steps as expected, 4 pending: labels 2, previews 1, undo 1",
    ] {
        assert!(said.contains(line), "`{line}` is missing:\n{said}");
    }
    let said = text(&scenario(&["run", "--verbose", "silent-mkdir"]).stdout);
    for line in
        ["THE INCIDENT", "not played: Holdpoint has no undo yet", "workspace: byte-identical"]
    {
        assert!(said.contains(line), "`{line}` is missing:\n{said}");
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
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
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
fn what_is_no_scenario_is_refused_before_anything_is_played() {
    let (code, said) = doctored("toxic-flow", "pending = \"labels\"", "pending = \"wishes\"");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("unknown variant `wishes`, expected one of `approvals`"), "{said}");
    let (code, said) = doctored("toxic-flow", "class = \"read\"", "class = \"reed\"");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("`reed`") && said.contains("1 fault"), "{said}");
    let output = scenario(&["run", "toxic-flow", "nowhere.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "");
    assert!(text(&output.stderr).contains("cannot read `nowhere.toml`"));
}
