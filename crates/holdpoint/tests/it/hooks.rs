//! Hooks of a coding agent's host: by the raw contract, standard input and output.

mod claude_code;
mod files;

use crate::world::{PEER, World, text};
use serde_json::{Value, json};
use std::io::Write as _;
use std::process::{Output, Stdio};

/// What a host with `coder` needs, whose calls in `dev` are as they are.
const HOST: &str = r#"
[server.claude]
host = "claude-code"
environment = "dev"
"#;

fn world(mode: &str, more: &str) -> World {
    let config = PEER.replace("[agent.coder]\n", &format!("[agent.coder]\nmode = \"{mode}\"\n"));
    World::new(&format!("{config}\n{HOST}\n{more}\n"))
}

/// Runs the hook with these bytes on its standard input.
fn run(world: &World, said: &[u8]) -> Output {
    let mut command = world.command(&["hook", "--agent", "coder"]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Whoever refuses what is too large reads no further.
    let _ = child.stdin.take().unwrap().write_all(said);
    child.wait_with_output().unwrap()
}

/// An event before a call of `tool` with `input`, which the host calls `id`.
fn before(world: &World, id: &str, (tool, input): (&str, Value)) -> Value {
    json!({
        "session_id": "0b7e4e9c-30a5-4d8e-9d0b-2c6f8f0f8f11",
        "transcript_path": "/tmp/transcript.jsonl",
        "cwd": world.files(),
        "permission_mode": "default",
        "hook_event_name": "PreToolUse",
        "tool_name": tool,
        "tool_input": input,
        "tool_use_id": id,
    })
}

/// The same after it.
fn after(world: &World, id: &str, tool: &str) -> Value {
    let mut event = before(world, id, (tool, json!({})));
    event["hook_event_name"] = "PostToolUse".into();
    event["tool_response"] = json!({ "stdout": "done" });
    event
}

/// What the hook answers: `allow` or `deny`, and why.
fn decision(output: &Output) -> (String, String) {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let said = &answer["hookSpecificOutput"];
    assert_eq!(said["hookEventName"], "PreToolUse", "{answer}");
    let part = |key: &str| said[key].as_str().unwrap().to_owned();
    (part("permissionDecision"), part("permissionDecisionReason"))
}

fn ask(world: &World, id: &str, call: (&str, Value)) -> (String, String) {
    decision(&run(world, before(world, id, call).to_string().as_bytes()))
}

fn write(world: &World, name: &str) -> (&'static str, Value) {
    ("Write", json!({ "file_path": world.files().join(name), "content": "hello\n" }))
}

/// The call is blocked by the only exit code that does that, and standard error says why.
fn blocked(output: &Output, why: &str) {
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
    assert!(told.contains(why), "{told}");
}

/// The approval that a denial names.
fn held((decision, why): (String, String)) -> String {
    assert_eq!(decision, "deny", "{why}");
    assert!(why.contains("same call again"), "{why}");
    let (_, rest) = why.split_once("The approval ").unwrap_or_else(|| panic!("no id: {why}"));
    rest.split(' ').next().unwrap().to_owned()
}

fn of_kind(world: &World, kind: &str) -> Vec<Value> {
    world.json(&["log", "--kind", kind])["records"].as_array().unwrap().clone()
}

#[test]
fn a_host_is_told_yes_after_the_record_and_tells_how_the_call_ended() {
    let world = world("auto", "");
    let (said, why) = ask(&world, "toolu_1", write(&world, "made"));
    assert_eq!(said, "allow", "{why}");
    let decided = of_kind(&world, "decision").remove(0);
    let (action, request) = (decided["action"].as_str().unwrap(), &decided["request"]);
    assert!(why.contains(action), "{why}");
    assert_eq!(request["door"], "hook");
    assert_eq!(request["tool"], "claude__Write");
    assert_eq!(request["task"], "0b7e4e9c-30a5-4d8e-9d0b-2c6f8f0f8f11");
    assert_eq!(request["parameters"]["io.holdpoint/cwd"], json!(world.files()));
    // The process that decided is gone, and the host is at it.
    assert_eq!(world.json(&["status"])["in_doubt"], 0);
    assert!(of_kind(&world, "outcome").is_empty());

    let told = run(&world, after(&world, "toolu_1", "Write").to_string().as_bytes());
    assert_eq!((told.status.code(), text(&told.stdout)), (Some(0), "{}\n".to_owned()));
    let outcome = of_kind(&world, "outcome").remove(0);
    assert_eq!((&outcome["action"], &outcome["status"]), (&action.into(), &"succeeded".into()));
    // Once is enough, and nobody tells of what was not permitted.
    let again = run(&world, after(&world, "toolu_1", "Write").to_string().as_bytes());
    blocked(&again, "no permitted call is open");
    blocked(
        &run(&world, after(&world, "toolu_2", "Write").to_string().as_bytes()),
        "no permitted call is open",
    );
    let mut failed = before(&world, "toolu_3", ("Bash", json!({ "command": "ls missing" })));
    assert_eq!(decision(&run(&world, failed.to_string().as_bytes())).0, "allow");
    failed["hook_event_name"] = "PostToolUseFailure".into();
    failed["error"] = "Exit code 2".into();
    assert_eq!(run(&world, failed.to_string().as_bytes()).status.code(), Some(0));
    assert_eq!(of_kind(&world, "outcome")[1]["status"], "tool_error");
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[test]
fn a_held_call_of_a_host_is_denied_with_the_id_and_runs_once_after_approval() {
    for by_serve in [false, true] {
        let world = world("approve-writes", "");
        let serve = by_serve.then(|| world.serve());
        let id = held(ask(&world, "toolu_1", write(&world, "made")));
        // Nobody waits, and the same call finds the same approval.
        assert_eq!(held(ask(&world, "toolu_2", write(&world, "made"))), id);
        world.must(&["approve", &id, "--because", "it is only a file"]);
        // Another file, and the same file from another folder, are other calls.
        assert_ne!(held(ask(&world, "toolu_3", write(&world, "other"))), id);
        let mut elsewhere = before(&world, "toolu_4", write(&world, "made"));
        elsewhere["cwd"] = "/".into();
        let elsewhere = run(&world, elsewhere.to_string().as_bytes());
        assert_ne!(held(decision(&elsewhere)), id);
        let (said, why) = ask(&world, "toolu_5", write(&world, "made"));
        assert_eq!(said, "allow", "{why}");
        assert_ne!(held(ask(&world, "toolu_6", write(&world, "made"))), id);
        let told = run(&world, after(&world, "toolu_5", "Write").to_string().as_bytes());
        assert_eq!(told.status.code(), Some(0), "{}", text(&told.stderr));
        assert_eq!(of_kind(&world, "outcome").len(), 1);
        let starts = of_kind(&world, "started").len();
        assert_eq!(starts == 1, by_serve, "{starts} processes governed");
        if let Some(serve) = serve {
            serve.end();
        }
        world.must(&["verify"]);
        world.must(&["replay"]);
    }
}

#[test]
fn a_stop_denies_what_a_host_asks() {
    let world = world("auto", "");
    assert_eq!(ask(&world, "toolu_1", write(&world, "made")).0, "allow");
    world.must(&["stop", "--agent", "coder", "--reason", "drill"]);
    let (said, why) = ask(&world, "toolu_2", write(&world, "made"));
    assert_eq!(said, "deny");
    assert!(why.contains("drill"), "{why}");
    // What was permitted before may still be told.
    let told = run(&world, after(&world, "toolu_1", "Write").to_string().as_bytes());
    assert_eq!(told.status.code(), Some(0), "{}", text(&told.stderr));
}

#[test]
fn policies_know_the_door_of_hooks() {
    let world = world("auto", "[policies]\npath = \"policies\"");
    let starter = include_str!("../../../../policies/starter.cedar");
    let more = r#"
@id("not-by-itself")
@reason("Nothing goes past the gateway.")
forbid (principal, action, resource) when { context.door == "hook" };
"#;
    std::fs::create_dir(world.path().join("policies")).unwrap();
    let file = world.path().join("policies/all.cedar");
    std::fs::write(file, format!("{starter}{more}")).unwrap();
    let (said, why) = ask(&world, "toolu_1", ("Bash", json!({ "command": "ls" })));
    assert_eq!(said, "deny");
    assert!(why.contains("not-by-itself"), "{why}");
    // A word that is never there would be warned of.
    let check = world.run(&["check"]);
    assert_eq!(check.status.code(), Some(0), "{}", text(&check.stderr));
    assert!(!text(&check.stderr).contains("context.door"), "{}", text(&check.stderr));
}

#[test]
fn what_a_host_would_do_is_judged_by_its_effects() {
    let world = world("auto", "");
    let check = |call: (&str, Value), expected: &str, part: &str| {
        let (said, why) = ask(&world, "toolu_1", call.clone());
        assert_eq!(said, expected, "{call:?}: {why}");
        assert!(why.contains(part), "{call:?}: {why}");
    };
    check(("Read", json!({ "file_path": "/etc/hostname" })), "allow", "");
    check(("Grep", json!({ "pattern": "x" })), "allow", "");
    check(("Bash", json!({ "command": "ls -l" })), "allow", "");
    check(("Bash", json!({ "command": "rm -rf ." })), "deny", "destructive_not_granted");
    check(("Bash", json!({ "run": "ls" })), "deny", "destructive_not_granted");
    let approve = json!({ "command": "holdpoint approve last --because fine" });
    check(("Bash", approve), "deny", "destructive_not_granted");
    // Tools that nobody knows destroy, whatever they are called.
    check(("ReadMinds", json!({})), "deny", "destructive_not_granted");
    check(("mcp__github__create_issue", json!({})), "deny", "destructive_not_granted");
    let tools = of_kind(&world, "tool_pinned");
    let last = tools.last().unwrap();
    assert_eq!(last["tool"], "claude__mcp__github__create_issue");
    world.must(&["replay"]);
}

#[test]
fn what_cannot_be_read_is_blocked() {
    let world = world("auto", "");
    let good = before(&world, "toolu_1", write(&world, "made"));
    assert_eq!(decision(&run(&world, good.to_string().as_bytes())).0, "allow");
    blocked(&run(&world, b""), "cannot be read");
    blocked(&run(&world, b"{"), "cannot be read");
    blocked(&run(&world, b"\xff"), "not UTF-8");
    let with = |key: &str, value: Value| {
        let mut event = good.clone();
        event[key] = value;
        event.to_string().into_bytes()
    };
    for key in ["session_id", "cwd", "tool_name", "tool_input", "tool_use_id"] {
        blocked(&run(&world, &with(key, Value::Null)), key);
    }
    blocked(&run(&world, &with("hook_event_name", "PermissionRequest".into())), "none of");
    blocked(&run(&world, &with("cwd", "here".into())), "absolute");
    blocked(&run(&world, &with("tool_name", "a b".into())), "not a valid tool name");
    blocked(&run(&world, &with("tool_use_id", "x".repeat(600).into())), "longer than");
    blocked(&run(&world, &with("tool_input", json!({ "io.holdpoint/cwd": "/" }))), "reserved");
    // Two readers must not see two calls.
    let twice = good.to_string().replace("\"content\":", "\"content\":\"x\",\"content\":");
    blocked(&run(&world, twice.as_bytes()), "twice");
    let most = 65_536;
    blocked(&run(&world, &with("tool_input", json!({ "content": "x".repeat(most) }))), "limit");
    blocked(&run(&world, &vec![b' '; (32 << 20) + 1]), "larger than");
    assert_eq!(of_kind(&world, "decision").len(), 1);
}

#[test]
fn without_a_configuration_that_is_good_a_host_is_blocked() {
    let world = World::new(PEER);
    let event = before(&world, "toolu_1", ("Read", json!({ "file_path": "/x" }))).to_string();
    blocked(&run(&world, event.as_bytes()), "host = \"claude-code\"");
    std::fs::write(world.path().join("holdpoint.toml"), "[server.claude]\nhost = \"vim\"").unwrap();
    blocked(&run(&world, event.as_bytes()), "vim");
    std::fs::remove_file(world.path().join("holdpoint.toml")).unwrap();
    blocked(&run(&world, event.as_bytes()), "no configuration found");
    // A store that cannot be had.
    let broken = self::world("auto", "[store]\npath = \"holdpoint.toml/store\"");
    blocked(&run(&broken, event.as_bytes()), "the call is blocked");
    // An agent that nobody declared is denied, and that is recorded.
    let stranger = self::world("auto", "");
    let mut command = stranger.command(&["hook", "--agent", "nobody"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(event.as_bytes()).unwrap();
    let (said, why) = decision(&child.wait_with_output().unwrap());
    assert_eq!(said, "deny", "{why}");
    assert!(why.contains("agent_unknown"), "{why}");
}

#[test]
fn a_project_cannot_bring_the_configuration_of_a_hook() {
    let world = world("auto", "");
    let event = before(&world, "toolu_1", write(&world, "made")).to_string();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_holdpoint"));
    let command = command.args(["hook", "--agent", "coder"]).current_dir(world.path());
    // Only the working folder has one.
    let command = command.env_remove("HOLDPOINT_CONFIG").env("HOME", world.files());
    let command = command.env("XDG_CONFIG_HOME", world.files());
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(event.as_bytes()).unwrap();
    blocked(&child.wait_with_output().unwrap(), "no configuration found");
}

#[test]
fn a_host_that_says_nothing_is_blocked_in_time() {
    let world = world("auto", "");
    let mut command = world.command(&["hook", "--agent", "coder"]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let open = child.stdin.take();
    let begun = std::time::Instant::now();
    blocked(&child.wait_with_output().unwrap(), "no decision within");
    assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{:?}", begun.elapsed());
    drop(open);
}
