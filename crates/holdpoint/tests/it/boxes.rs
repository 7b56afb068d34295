//! Shell commands that Holdpoint serves: they run in a box before they are decided, and what they
//! left there is approved, done and taken back.

use crate::raw::{call, post, reason};
use crate::world::{Serve, World, left_out, text};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::Command;

const CONFIG: &str = r#"
[listen]
http = "127.0.0.1:0"

[team.platform]
on_call = "platform on-call"

[agent.coder]
owner = "platform"
mode = "approve-writes"
grants = [
  { class = "read", tools = ["*"] },
  { class = "write", tools = ["*"] },
  { class = "destructive", tools = ["box__shell_execute"] },
]

[agent.reader]
owner = "platform"
grants = [{ class = "read", tools = ["*"] }]

[server.box]
environment = "dev"
serves = { shell = "files", readable = ["pipes"] }
env = { GREETING = "hello" }
"#;

/// What says outside of the box that a command ran in it.
struct Trace(fs::File);

// === impl Trace ===

impl Trace {
    fn new(world: &World) -> (Self, PathBuf) {
        let folder = world.path().join("pipes");
        fs::create_dir(&folder).unwrap();
        let pipe = folder.join("trace");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
        let mut options = fs::File::options();
        let file = options.read(true).write(true).custom_flags(nonblock).open(&pipe).unwrap();
        (Self(file), pipe)
    }

    /// What commands left since.
    fn left(&mut self) -> String {
        self.0.write_all(b".").unwrap();
        let mut bytes = [0; 1024];
        let read = self.0.read(&mut bytes).unwrap();
        text(&bytes[..read - 1])
    }
}

fn execute(serve: &Serve, key: &str, command: &str) -> Value {
    let message = call(1, "shell_execute", json!({ "command": command }));
    post(serve, ("/box", key), &message).body
}

/// The approval that an answer names; `None`, outside of CI, where the system allows no box.
fn held(answer: &Value) -> Option<String> {
    if answer.to_string().contains("this system lets no command be boxed") {
        assert!(std::env::var_os("CI").is_none(), "{answer}");
        left_out(&format!("boxed commands: {answer}"));
        return None;
    }
    let held = &answer["result"]["_meta"]["io.holdpoint/decision"]["held"];
    let id = held["id"].as_str().unwrap_or_else(|| panic!("no approval in {answer}"));
    Some(id.to_owned())
}

#[test]
fn a_command_is_seen_approved_done_and_taken_back() {
    let world = World::new(CONFIG);
    let files = world.files();
    fs::create_dir(world.path().join("pipes")).unwrap();
    fs::write(files.join("a.txt"), "one\n").unwrap();
    fs::write(files.join("b.txt"), "gone\n").unwrap();
    let key = world.key("coder");
    let serve = world.serve();
    let command = "echo $GREETING >> a.txt; rm b.txt; mkdir new; echo said";
    let asked = execute(&serve, &key, command);
    let Some(id) = held(&asked) else { return };
    let preview = &asked["result"]["_meta"]["io.holdpoint/decision"]["held"]["preview"];
    assert_eq!(preview["counts"], json!({ "created": 1, "updated": 1, "deleted": 1 }), "{asked}");
    assert_eq!((&preview["guarantee"], &preview["exact"]), (&json!("exact"), &json!(true)));
    let shown = world.must(&["approvals", &id]);
    assert!(shown.contains("+hello") && shown.contains("b.txt"), "{shown}");
    assert_eq!(fs::read_to_string(files.join("a.txt")).unwrap(), "one\n", "only a preview");

    world.must(&["approve", &id, "--because", "fine"]);
    // The target moves by one byte: what was approved is not what would happen.
    fs::write(files.join("a.txt"), "One\n").unwrap();
    assert_ne!(held(&execute(&serve, &key, command)).unwrap(), id);
    fs::write(files.join("a.txt"), "one\n").unwrap();
    let done = execute(&serve, &key, command);
    assert_eq!(reason(&done), "answered", "{done}");
    assert_eq!(done["result"]["structuredContent"]["stdout"], "said\n", "{done}");
    assert_eq!(fs::read_to_string(files.join("a.txt")).unwrap(), "one\nhello\n");
    assert!(!files.join("b.txt").exists() && files.join("new").is_dir());

    let back = world.must(&["revert", "last", "--because", "not today"]);
    assert!(back.contains("restored"), "{back}");
    assert_eq!(fs::read_to_string(files.join("a.txt")).unwrap(), "one\n");
    assert_eq!(fs::read_to_string(files.join("b.txt")).unwrap(), "gone\n");
    assert!(!files.join("new").exists());
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[test]
fn a_command_that_is_refused_never_runs_not_even_to_be_seen() {
    let world = World::new(CONFIG);
    let (mut trace, pipe) = Trace::new(&world);
    let (coder, reader) = (world.key("coder"), world.key("reader"));
    let serve = world.serve();
    let command = format!("echo ran > {}; touch x", pipe.display());
    // Whoever is only held is looked at: so the trace would show that a command ran.
    if held(&execute(&serve, &coder, &command)).is_none() {
        return;
    }
    assert_eq!(trace.left(), "ran\n");
    let denied = execute(&serve, &reader, &command);
    assert!(reason(&denied).contains("not_granted"), "{denied}");
    assert_eq!(trace.left(), "");
    // Analysis and invariants judge the text before anything of it runs.
    let broken = execute(&serve, &coder, &format!("{command}; cat y > terraform.tfstate"));
    assert!(reason(&broken).contains("invariant_broken"), "{broken}");
    assert_eq!(trace.left(), "");
    world.must(&["stop", "--agent", "coder", "--reason", "enough"]);
    let stopped = execute(&serve, &coder, &command);
    assert!(reason(&stopped).contains("stopped"), "{stopped}");
    assert_eq!(trace.left(), "");
    serve.end();
}

#[test]
fn a_workspace_by_another_name_is_refused() {
    let world = World::new(&CONFIG.replace("\"files\"", "\"link\""));
    std::os::unix::fs::symlink("files", world.path().join("link")).unwrap();
    let run = world.run(&["serve"]);
    assert!(!run.status.success());
    assert!(text(&run.stderr).contains("is another folder's name"), "{}", text(&run.stderr));
}
