//! Keys and secrets stay where they belong: not in the store, not in logs, not where every process
//! of this machine can read them.

use crate::raw::{call, post, reason};
use crate::world::{PEER, World, command_line, text, until};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

const ENV_SECRET: &str = "env-secret-9f3b1c7d5e";
const FILE_SECRET: &str = "file-secret-4a8e2d6c0b";
const HEADER_SECRET: &str = "header-secret-7c1f5b9d3a";

/// Every file below a folder, with its bytes.
pub fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if kind.is_file() {
            let bytes = std::fs::read(entry.path()).unwrap();
            found.push((entry.path().display().to_string(), bytes));
        }
    }
    found
}

/// True if the text is among the bytes.
pub fn holds(bytes: &[u8], needle: &str) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
}

/// A server that only notes what it is sent: the heads of requests.
pub fn listener() -> (u16, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut bytes = vec![0; 4096];
            let read = stream.read(&mut bytes).unwrap_or_default();
            let _ = tell.send(text(&bytes[..read]));
            let answer = b"HTTP/1.1 500 Sorry\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(answer);
        }
    });
    (port, heard)
}

#[test]
fn check_and_serve_warn_of_secrets_that_everybody_can_read() {
    let world = World::new(&format!(
        "{PEER}env = {{ PEER_FILE_SECRET = {{ from_file = \"it's secret.txt\" }} }}\n\
         [operator.ada]\nkey = {{ from_file = \"ada.key\" }}\n"
    ));
    let path = |name: &str| world.path().join(name);
    let mode = |name: &str, mode: u32| {
        std::fs::set_permissions(path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for name in ["it's secret.txt", "ada.key"] {
        std::fs::write(path(name), "a secret of at least thirty-two characters").unwrap();
        // A group may be made for it.
        mode(name, 0o640);
    }
    world.key("coder");
    let told = || world.json(&["check"])["diagnostics"].as_array().unwrap().clone();
    assert_eq!(told(), Vec::<Value>::new());

    mode("it's secret.txt", 0o644);
    mode("ada.key", 0o602);
    mode(".holdpoint", 0o750);
    mode(".holdpoint/ledger.key", 0o604);
    let all = told();
    let line = |one: &Value| format!("{} {}", one["message"], one["suggestion"]);
    let lines: Vec<_> = all.iter().map(line).collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(all.iter().all(|one| one["severity"] == "warning"), "{all:?}");
    for (by, shown, how) in [
        ("server `peer`", "0644", "'"),
        ("operator `ada`", "0602", "o= '"),
        ("the store", "0750", "go= '"),
        ("the store", "0604", "go= '"),
    ] {
        let found = lines
            .iter()
            .any(|line| line.contains(by) && line.contains(shown) && line.contains(how));
        assert!(found, "{by} {shown}: {lines:?}");
    }
    // What is said to do does it.
    for one in &all {
        let advice = one["suggestion"].as_str().unwrap();
        let command = advice.split('`').nth(1).unwrap();
        let run = Command::new("sh").args(["-c", command]).status().unwrap();
        assert!(run.success(), "{command}");
    }
    assert_eq!(told(), Vec::<Value>::new());

    mode("ada.key", 0o644);
    let serve = world.serve();
    until("serve warns", || world.serve_log().contains("ada.key` (mode 0644)").then_some(()));
    serve.end();
}

#[test]
fn keys_and_secrets_are_nowhere_to_be_found() {
    let (port, heard) = listener();
    let env = "timeout_ms = 3000\nenv = { PEER_SECRET = { from_env = \"TEST_SECRET\" }, \
               PEER_FILE_SECRET = { from_file = \"secret.txt\" } }";
    let web = format!(
        "[server.web]\nurl = \"http://127.0.0.1:{port}/mcp\"\n\
         headers = {{ x-secret = {{ from_env = \"TEST_HEADER\" }} }}\nread = [\"*\"]\n\
         environment = \"dev\"\ntimeout_ms = 1000\n"
    );
    let other = "[server.other]\ncommand = [\"node\", \"${peer}\", \"other\"]\nread = [\"*\"]\n";
    let world = World::new(&format!("{}\n{web}\n{other}", PEER.replace("timeout_ms = 3000", env)));
    std::fs::write(world.path().join("secret.txt"), format!("{FILE_SECRET}\n")).unwrap();
    let key = world.key("coder");

    let mut command = world.command(&["serve", "--format", "json"]);
    command.env("HOLDPOINT_LOG", "trace");
    command.env("TEST_SECRET", ENV_SECRET).env("TEST_HEADER", HEADER_SECRET);
    let serve = world.serve_by(command);
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
    let all = post(&serve, ("", &key), &list);
    assert_eq!(all.status, 200);
    let sent = heard.recv_timeout(crate::world::PATIENCE).unwrap();
    assert!(sent.contains(HEADER_SECRET), "the header is sent: {sent}");
    let echo = call(1, "echo", json!({ "text": "hi" }));
    assert_eq!(reason(&post(&serve, ("/peer", &key), &echo).body), "answered");
    let wrong = format!("{key}0");
    assert_eq!(post(&serve, ("/peer", &wrong), &echo).status, 401);

    let secrets = [key.as_str(), ENV_SECRET, FILE_SECRET, HEADER_SECRET];
    let children = world.processes("peer.mjs");
    assert_eq!(children.len(), 2);
    for pid in world.processes("") {
        for secret in secrets {
            assert!(!command_line(pid).contains(secret), "{}", command_line(pid));
        }
    }
    for pid in children {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        let own = !command_line(pid).contains("other");
        assert_eq!(holds(&environ, ENV_SECRET), own, "a server has its own secrets only");
        assert_eq!(holds(&environ, FILE_SECRET), own, "a server has its own secrets only");
        assert!(!holds(&environ, HEADER_SECRET));
    }
    serve.end();
    world.must(&["why", "last"]);
    until("the log is whole", || world.serve_log().contains("asked to end").then_some(()));
    let mut looked_at = 0;
    for (name, bytes) in files(world.path()) {
        if name.ends_with("secret.txt") {
            continue;
        }
        looked_at += 1;
        for secret in secrets {
            assert!(!holds(&bytes, secret), "`{secret}` is in {name}");
        }
    }
    assert!(looked_at >= 5, "{looked_at}");
    assert!(world.serve_log().contains("TRACE"), "this was the most that can be logged");
}

#[test]
fn a_secret_that_is_absent_is_named_and_not_guessed() {
    let env = "timeout_ms = 3000\nenv = { PEER_SECRET = { from_env = \"TEST_ABSENT_SECRET\" } }";
    let world = World::new(&PEER.replace("timeout_ms = 3000", env));
    let output = world.run(&["serve"]);
    assert!([Some(1), Some(2)].contains(&output.status.code()), "{output:?}");
    assert!(text(&output.stderr).contains("TEST_ABSENT_SECRET"), "{}", text(&output.stderr));
}

#[test]
fn what_an_agent_sends_is_logged_nowhere_but_in_the_ledger() {
    let world = World::new(PEER);
    let key = world.key("coder");
    let serve = world.serve();
    let needle = "something-private-2b7e151628";
    let echo = call(1, "echo", json!({ "text": needle }));
    assert_eq!(reason(&post(&serve, ("/peer", &key), &echo).body), "answered");
    let denied = call(1, "nothing", json!({ "text": needle }));
    assert_eq!(reason(&post(&serve, ("/peer", &key), &denied).body), "tool_unknown");
    serve.end();
    assert!(!world.serve_log().contains(needle), "{}", world.serve_log());
    assert!(world.records().iter().any(|it| it["request"]["parameters"]["text"] == needle));
}
