//! The real Claude Code with a model by script: what its hooks let through, and what not.

use super::{of_kind, world};
use crate::world::{World, claude_and_model, text};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

/// Lets Claude Code ask `holdpoint hook` before and after every call, in the `files` folder.
fn register(world: &World) {
    let (program, config) = (env!("CARGO_BIN_EXE_holdpoint"), world.path().join("holdpoint.toml"));
    let command =
        format!("'{program}' --config '{}' hook --agent coder || exit 2", config.display());
    let hook = json!([{
        "matcher": "*",
        "hooks": [{ "type": "command", "command": command, "timeout": 60, "onFailure": "block" }],
    }]);
    let hooks = json!({
        "PreToolUse": hook, "PostToolUse": hook, "PostToolUseFailure": hook,
    });
    let folder = world.files().join(".claude");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("settings.json"), json!({ "hooks": hooks }).to_string()).unwrap();
}

/// Has Claude Code make these calls; gives the text of each one's result as the model sees it.
fn play(world: &World, calls: &Value) -> Vec<String> {
    let (claude, model) = claude_and_model();
    let mut node = Command::new("node");
    let node = node.arg(model).arg(calls.to_string()).stdout(Stdio::piped());
    let mut model = node.spawn().unwrap();
    let mut lines = BufReader::new(model.stdout.take().unwrap()).lines();
    let port = lines.next().unwrap().unwrap();
    let mut run = Command::new(claude);
    run.args(["-p", "go", "--output-format", "json"]).current_dir(world.files()).env_clear();
    run.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", world.path());
    run.env("ANTHROPIC_BASE_URL", format!("http://127.0.0.1:{port}"));
    run.envs([("ANTHROPIC_API_KEY", "none"), ("DISABLE_AUTOUPDATER", "1")]);
    run.env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1");
    let output: Output = run.stdin(Stdio::null()).output().unwrap();
    model.kill().unwrap();
    model.wait().unwrap();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    lines.map(|line| line.unwrap()).collect()
}

#[test]
fn claude_code_runs_a_held_call_once_after_its_approval_and_nothing_past_its_hook() {
    let world = world("approve-writes", "");
    register(&world);
    let made = world.files().join("made");
    let write = json!({ "name": "Write", "input": { "file_path": made, "content": "hello\n" } });
    let list = json!({ "name": "Bash", "input": { "command": "ls missing" } });
    let said = play(&world, &json!([write, list]));
    let asked = &of_kind(&world, "decision")[0]["approval"]["id"];
    let id = asked.as_str().unwrap_or_else(|| panic!("no approval: {said:?}"));
    assert!(said[0].contains(id) && said[0].contains("same call again"), "{said:?}");
    assert!(!made.exists());
    // What only reads runs, and how it ended is recorded.
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(of_kind(&world, "outcome")[0]["status"], "tool_error", "{said:?}");

    world.must(&["approve", id, "--because", "it is only a file"]);
    let said = play(&world, &json!([write, write]));
    assert_eq!(std::fs::read_to_string(&made).unwrap(), "hello\n", "{said:?}");
    assert!(said[1].contains("The approval ") && !said[1].contains(id), "{said:?}");
    let outcomes = of_kind(&world, "outcome");
    assert_eq!(outcomes.len(), 2, "{outcomes:?}");
    assert_eq!(outcomes[1]["status"], "succeeded");
    world.must(&["verify"]);
    world.must(&["replay"]);

    // A hook that cannot decide blocks, even what only reads.
    std::fs::remove_file(world.path().join("holdpoint.toml")).unwrap();
    let touch = json!({ "name": "Bash", "input": { "command": "pwd" } });
    let said = play(&world, &json!([touch]));
    assert!(said[0].contains("the call is blocked"), "{said:?}");
}
