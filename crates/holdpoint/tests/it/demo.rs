//! The README's first command.

use crate::world::text;
use std::process::{Command, Output, Stdio};

fn demo(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdpoint"));
    command.arg("demo").args(arguments).env("NO_COLOR", "1").stdin(Stdio::null());
    command.output().unwrap()
}

fn scenario() -> String {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scenarios/freeze-drop.toml");
    std::fs::read_to_string(file).unwrap()
}

#[test]
fn the_incident_is_played_and_stays_without_impact() {
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("kept");
    let output = demo(&["--keep", kept.to_str().unwrap()]);
    let (said, complained) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}\n{complained}");
    assert_eq!(complained, "");
    for line in [
        "THE INCIDENT",
        "THE BENIGN TWIN",
        "deny  policy_forbids [change-freeze]",
        "halt  stopped [stop 1 on agent:coder]",
        "prod: byte-identical",
        "preview   exactly 1 changed; to be taken back: exact",
        "+name: \"Harbor Ledger Ltd\"",
        "approve   on-call: one row, and the right one",
        "restored  prod__sql_execute: 1 changed back",
        "prod: as it was before, row by row",
        "records verified with the public key alone",
        "Wrong without impact. Every step was as expected.",
    ] {
        assert!(said.contains(line), "`{line}` is missing:\n{said}");
    }
    assert!(!said.contains("UNEXPECTED"), "{said}");
    // What was kept can be looked at with the ordinary commands.
    for act in ["incident", "twin"] {
        let store = kept.join(act).join("store");
        let mut verify = Command::new(env!("CARGO_BIN_EXE_holdpoint"));
        let verify = verify.args(["verify", "--store", store.to_str().unwrap()]).output().unwrap();
        assert_eq!(verify.status.code(), Some(0), "{verify:?}");
    }
}

#[test]
fn an_expectation_that_fails_fails_the_demo() {
    let right = "ruling = \"deny\", reasons = [\"policy_forbids\"]";
    let wrong = "ruling = \"permit\"";
    let text_of = scenario();
    assert!(text_of.contains(right), "{text_of}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("doctored.toml");
    std::fs::write(&file, text_of.replacen(right, wrong, 1)).unwrap();
    let output = demo(&["--scenario", file.to_str().unwrap()]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("UNEXPECTED"), "{said}");
}

#[test]
fn a_scenario_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("broken.toml");
    for broken in ["", "title = 7", "[[[["] {
        std::fs::write(&file, broken).unwrap();
        let output = demo(&["--scenario", file.to_str().unwrap()]);
        assert!([Some(1), Some(2)].contains(&output.status.code()), "{output:?}");
        assert!(!output.stderr.is_empty());
    }
}
