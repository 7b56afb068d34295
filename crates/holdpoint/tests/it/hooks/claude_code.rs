//! The real Claude Code with a model by script: what its hooks let through, and what not.

use super::files::kept;
use super::{of_kind, world};
use crate::world::{World, claude_and_model, text};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A notebook with one cell.
const NOTEBOOK: &str = r#"{"cells":[{"cell_type":"code","id":"a1","metadata":{},"outputs":[],
"execution_count":null,"source":["x = 1\n"]}],"metadata":{"language_info":{"name":"python"}},
"nbformat":4,"nbformat_minor":5}"#;

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

#[test]
fn what_claude_code_edits_is_as_foreseen_and_a_revert_restores_it_byte_for_byte() {
    let world = kept("auto", "");
    register(&world);
    let place = |name: &str| world.files().join(name);
    let file = |name: &str, bytes: &[u8], mode| {
        std::fs::write(place(name), bytes).unwrap();
        std::fs::set_permissions(place(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    file("main.rs", b"fn main() {\n    old();\n    old();\n}\n", 0o640);
    file("lines", b"a\r\nb\r\n", 0o600);
    file("marked", b"\xef\xbb\xbfa\n", 0o644);
    file("quotes", "it’s “q”\nand\nso\n".as_bytes(), 0o755);
    file("n.ipynb", NOTEBOOK.as_bytes(), 0o644);
    let read = |name: &str| json!({ "name": "Read", "input": { "file_path": place(name) } });
    let write = |name: &str, content: &str| {
        let input = json!({ "file_path": place(name), "content": content });
        json!({ "name": "Write", "input": input })
    };
    let edit = |name: &str, old: &str, new: &str, all: bool| {
        let input = json!({
            "file_path": place(name), "old_string": old, "new_string": new, "replace_all": all,
        });
        json!({ "name": "Edit", "input": input })
    };
    let notebook = json!({ "notebook_path": place("n.ipynb"), "cell_id": "a1", "new_source": "2" });
    // Each change, and whether its preview is to be exact.
    let changes = [
        (edit("main.rs", "main", "$& $1 $$", false), true),
        (edit("main.rs", "    old();", "    new();  ", true), true),
        (edit("main.rs", "}\n", "", false), true),
        (edit("main.rs", "();", "", true), false),
        (write("lines", "a\nb\nc\n"), true),
        (edit("lines", "b\n", "é  \n", false), true),
        (write("marked", "b\n"), false),
        (edit("quotes", "it's \"q\"", "it's \"r\"", false), false),
        (edit("quotes", "and", "", false), false),
        (edit("fresh", "", "new\n", false), true),
        (write("a/b/made ", "x\r\ny  \n"), true),
        (write("a/empty", ""), true),
        (json!({ "name": "NotebookEdit", "input": notebook }), false),
    ];
    let looks = ["main.rs", "lines", "marked", "quotes", "n.ipynb"].map(read);
    let calls = looks.into_iter().chain(changes.iter().map(|(call, _)| call.clone()));
    let before = all(&world);
    let said = play(&world, &json!(calls.collect::<Vec<_>>()));
    assert!(!said.iter().any(|one| one.contains("\"is_error\":true")), "{said:#?}");
    let seen: Vec<_> = of_kind(&world, "decision")
        .into_iter()
        .filter(|decided| decided["request"]["tool"] != "claude__Read")
        .map(|decided| decided["facts"]["preview"]["exact"].clone())
        .collect();
    let expected: Vec<_> = changes.iter().map(|(_, exact)| json!(exact)).collect();
    assert_eq!(seen, expected, "{said:#?}");
    assert_ne!(all(&world), before);
    // Previews say nothing of the modes of files that are there: the host keeps them.
    for (name, mode) in [("main.rs", 0o640), ("lines", 0o600), ("quotes", 0o755)] {
        let kept = std::fs::metadata(place(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(kept, mode, "{name}");
    }
    let made = of_kind(&world, "decision");
    let task = made[0]["request"]["task"].as_str().unwrap();
    let told = world.must(&["revert", "--task", task, "--because", "all of it"]);
    assert_eq!(all(&world), before, "{told}");
    world.must(&["verify"]);
    world.must(&["replay"]);
}

/// Every file below the `files` folder, with its mode and its bytes.
fn all(world: &World) -> Vec<(PathBuf, u32, Vec<u8>)> {
    let (mut found, mut folders) = (Vec::new(), vec![world.files()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            if path.is_dir() {
                folders.push(path.clone());
                found.push((path, mode, Vec::new()));
            } else {
                found.push((path.clone(), mode, std::fs::read(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}
