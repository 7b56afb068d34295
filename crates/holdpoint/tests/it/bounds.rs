//! Limits besides those of the HTTP door, exceeded: what is kept, how long a call takes, and how
//! large files may be.

use crate::raw::{call, post, reason};
use crate::world::{PATIENCE, PEER, World, text};
use serde_json::{Value, json};
use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// The only record of this kind.
fn only(world: &World, kind: &str) -> Value {
    let records = world.records().into_iter();
    let found: Vec<_> = records.filter(|record| record["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

#[test]
fn a_long_output_leaves_its_digest_alone() {
    let config = PEER.replace("[limits]\n", "[limits]\noutput_stored_bytes_max = 100\n");
    for (length, kept) in [(1, true), (200, false)] {
        let world = World::new(&config);
        let key = world.key("coder");
        let serve = world.serve();
        let said = "x".repeat(length);
        let answer = post(&serve, ("/peer", &key), &call(1, "echo", json!({ "text": said })));
        assert_eq!(answer.body["result"]["content"][0]["text"], said);
        serve.end();
        let output = only(&world, "outcome")["lineage"]["tool_output"]["present"].clone();
        assert!(output["digest"].is_string(), "{output}");
        assert_eq!(output["body"].is_string(), kept, "{output}");
    }
}

#[test]
fn a_call_without_a_limit_of_its_server_has_the_common_one() {
    let config = PEER.replace("timeout_ms = 3000\n", "");
    let world = World::new(&config.replace("[limits]\n", "[limits]\ncall_timeout_ms = 300\n"));
    let key = world.key("coder");
    let serve = world.serve();
    let answer = post(&serve, ("/peer", &key), &call(1, "hang", json!({})));
    assert_eq!(reason(&answer.body), "upstream_timeout");
    serve.end();
}

#[test]
fn what_an_agent_declares_is_kept_within_bounds() {
    let world = World::new(PEER);
    let key = world.key("coder");
    let serve = world.serve();
    let mut retrieved: Vec<_> = (0..300).map(|number| format!("doc-{number}")).collect();
    retrieved[0] = "d".repeat(513);
    let task = json!({ "intent": "ä".repeat(20_000), "retrieved": retrieved });
    let mut asked = call(1, "echo", json!({ "text": "hi" }));
    asked["params"]["_meta"]["io.holdpoint/task"] = task;
    assert_eq!(reason(&post(&serve, ("/peer", &key), &asked).body), "answered");
    serve.end();
    let request = only(&world, "decision")["request"].clone();
    let intent = request["intent"]["text"].as_str().unwrap();
    assert_eq!(intent.chars().count(), 16 << 10);
    let kept = request["retrieved"].as_array().unwrap();
    assert_eq!((kept.len(), &kept[0]), (256, &json!("doc-1")));
}

/// Fails to start, and says these words.
fn does_not_start(world: &World, words: &str) {
    let mut command = world.command(&["serve"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if begun.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(5)),
            None => {
                child.kill().unwrap();
                panic!("it starts, though it should say: {words}");
            }
        }
    };
    let said = text(&child.wait_with_output().unwrap().stderr);
    assert!(!status.success() && said.contains(words), "{said}");
}

#[test]
fn files_that_are_far_too_large_are_not_read() {
    let large = |bytes: usize| "#".repeat(bytes + 1);
    let world = World::new(PEER);
    world.write_config(&large(1 << 20));
    does_not_start(&world, "is larger than 1048576 bytes");

    let key = "\n[operator.night]\nkey = { from_file = \"operator.key\" }\n";
    let world = World::new(&format!("{PEER}{key}"));
    std::fs::write(world.path().join("operator.key"), large(64 << 10)).unwrap();
    does_not_start(&world, "is larger than 65536 bytes");

    let world = World::new(&format!("{PEER}\n[policies]\npath = \"policies\"\n"));
    let policies = world.path().join("policies");
    std::fs::create_dir(&policies).unwrap();
    std::fs::write(policies.join("a.cedar"), large(4 << 20).replace('#', "/")).unwrap();
    does_not_start(&world, "is larger than 4194304 bytes");
    let checked = world.run(&["check"]);
    let said = text(&checked.stdout) + &text(&checked.stderr);
    assert!(!checked.status.success() && said.contains("is larger than 4194304 bytes"), "{said}");
    std::fs::remove_file(policies.join("a.cedar")).unwrap();
    for number in 0..=1_000 {
        std::fs::write(policies.join(format!("{number}.cedar")), "").unwrap();
    }
    does_not_start(&world, "more than 1000 policy files");
}

#[test]
fn a_trial_of_a_giant_call_is_refused() {
    let world = World::new(PEER);
    let mut command = world.command(&["try", "--as", "coder", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let giant = " ".repeat((16 << 20) + 1);
    // It may be gone before all was written.
    let _ = input.write_all(giant.as_bytes());
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("the limit is 4194304"), "{}", text(&output.stderr));
}
