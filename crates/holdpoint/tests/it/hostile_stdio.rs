//! Hostile and mistaken clients on a `wrap`'s pipes.

use crate::raw::{Pipe, REVISION, call, modern, reason, row, wrap_command};
use crate::world::{PEER, World, text, until};
use expect_test::expect;
use serde_json::{Value, json};
use std::process::{Command, Stdio};

/// A wrap, and the rows of what it answered.
struct Door {
    world: World,
    pipe: Pipe,
    rows: String,
}

// === impl Door ===

impl Door {
    fn new() -> Self {
        let world = World::new(PEER);
        let pipe = Pipe::wrap(&world);
        Self { world, pipe, rows: String::new() }
    }

    /// Sends a line and notes the next answer.
    fn line(&mut self, what: &str, line: impl AsRef<[u8]>) {
        self.pipe.send(line);
        self.pipe.send("\n");
        let answer = self.pipe.next().expect("an answer");
        self.rows.push_str(&format!("{what:34} {} {}\n", answer["id"], row(&answer)));
    }

    fn message(&mut self, what: &str, message: &Value) {
        self.line(what, message.to_string());
    }

    /// The wrap still works, has nothing more to say, and ends well.
    fn end(mut self) {
        let answer = self.pipe.call("end", "echo", json!({ "text": "hi" }));
        assert_eq!(answer["result"]["content"][0]["text"], "hi", "{answer}");
        let (code, rest) = self.pipe.end();
        assert_eq!((code, rest), (Some(0), vec![]));
        let log = std::fs::read_to_string(self.world.path().join("wrap.log")).unwrap();
        assert!(!log.contains("panicked"), "{log}");
        self.world.must(&["verify"]);
    }
}

/// For worlds where the end of input must not cut anything off, however busy the machine is.
fn patient() -> String {
    PEER.replace("stop_grace_ms = 300", "stop_grace_ms = 20000")
}

fn cancelled(id: i64) -> Value {
    let params = json!({ "requestId": id });
    json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params })
}

fn echo(id: impl Into<Value>) -> Value {
    call(id, "echo", json!({ "text": "hi" }))
}

#[test]
fn lines_that_are_no_message_are_refused_and_the_wrap_goes_on() {
    let mut door = Door::new();
    door.line("not JSON", "{\"jsonrpc\":");
    door.line("a batch", format!("[{}]", echo(1)));
    door.line("id null", r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#);
    door.line("id a fraction", r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#);
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    door.line("10,000 deep", echo(1).to_string().replace("\"hi\"", &deep));
    door.line("a key twice", echo(1).to_string().replace("\"hi\"", "1,\"text\":2"));
    door.line("a number beyond doubles", echo(1).to_string().replace("\"hi\"", "1e400"));
    door.line("a number beyond 2^53", echo(1).to_string().replace("\"hi\"", "9007199254740993"));
    door.line("not UTF-8", b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}");
    door.line("binary", (0..=255u8).filter(|byte| *byte != b'\n').collect::<Vec<_>>());
    door.line("5 MB", echo(1).to_string().replace("hi", &"x".repeat(5_000_000)));
    // Blank lines are nothing at all.
    door.pipe.send("\n\r\n  \n");
    expect![[r#"
        not JSON                           null -32700 message_malformed
        a batch                            null -32600 message_malformed
        id null                            null -32600 message_malformed
        id a fraction                      null -32600 message_malformed
        10,000 deep                        null -32600 message_too_deep
        a key twice                        null -32600 duplicate_key
        a number beyond doubles            null -32600 number_out_of_range
        a number beyond 2^53               null -32600 number_out_of_range
        not UTF-8                          null -32700 message_not_utf8
        binary                             null -32700 message_not_utf8
        5 MB                               null -32600 message_too_large
    "#]]
    .assert_eq(&door.rows);
    door.end();
}

#[test]
fn requests_that_make_no_sense_are_refused_with_a_reason() {
    let mut door = Door::new();
    let mut old = modern(1, "tools/list", json!({}));
    old["params"]["_meta"][REVISION] = "1900-01-01".into();
    door.message("list: unknown revision", &old);
    let mut old = modern(1, "tools/call", json!({ "name": "echo" }));
    old["params"]["_meta"][REVISION] = "1900-01-01".into();
    door.message("call: unknown revision", &old);
    door.message(
        "unknown method (the server's word)",
        &json!({ "jsonrpc": "2.0", "id": 1, "method": "x" }),
    );
    door.message("unknown tool", &call(1, "rm_rf", json!({})));
    door.message("a tool with no such name", &call(1, "a b", json!({})));
    door.message("no tool", &json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call" }));
    door.message("arguments an array", &call(1, "echo", json!([1])));
    door.message("a parameter of another type", &call(1, "touch", json!({ "path": 7 })));
    door.message("a reserved id: call", &echo("holdpoint-0"));
    let list = json!({ "jsonrpc": "2.0", "id": "holdpoint-1", "method": "tools/list" });
    door.message("a reserved id: list", &list);
    let ping = json!({ "jsonrpc": "2.0", "id": "holdpoint-2", "method": "ping" });
    door.message("a reserved id: passing", &ping);
    let params = json!({ "name": "echo", "arguments": { "text": "hi" } });
    door.message("a modern call", &modern(1, "tools/call", params));
    expect![[r#"
        list: unknown revision             1 -32022 revision_unsupported
        call: unknown revision             1 -32022 revision_unsupported
        unknown method (the server's word) 1 -32601 -
        unknown tool                       1 - tool_unknown
        a tool with no such name           1 -32602 tool_unknown
        no tool                            1 -32602 parameters_invalid
        arguments an array                 1 -32602 parameters_invalid
        a parameter of another type        1 - parameters_invalid
        a reserved id: call                "holdpoint-0" -32600 message_malformed
        a reserved id: list                "holdpoint-1" -32600 message_malformed
        a reserved id: passing             "holdpoint-2" -32600 message_malformed
        a modern call                      1 - answered
    "#]]
    .assert_eq(&door.rows);
    door.end();
}

#[test]
fn an_id_that_is_in_flight_cannot_be_used_again() {
    let mut door = Door::new();
    let busy = "-32600 message_malformed";
    door.pipe.begin(1, "hang", json!({}));
    assert_eq!(row(&door.pipe.call(1, "echo", json!({ "text": "hi" }))), busy);
    // Nor may what passes ungoverned take the answer of a governed call, or the other way round.
    door.pipe.tell(&json!({ "jsonrpc": "2.0", "id": 1, "method": "test/echo" }));
    assert_eq!(row(&door.pipe.answer(1)), busy);
    door.pipe.tell(&json!({ "jsonrpc": "2.0", "id": 2, "method": "test/hang" }));
    assert_eq!(row(&door.pipe.call(2, "echo", json!({ "text": "hi" }))), busy);
    assert_eq!(reason(&door.pipe.answer(1)), "upstream_timeout");
    // Its answer may still come, so nobody else may wait under that id.
    assert_eq!(row(&door.pipe.call(1, "echo", json!({ "text": "hi" }))), busy);
    assert_eq!(reason(&door.pipe.call(3, "echo", json!({ "text": "hi" }))), "answered");
    door.pipe.tell(&cancelled(2));
    assert_eq!(reason(&door.pipe.call(2, "echo", json!({ "text": "hi" }))), "answered");
    door.end();
}

#[test]
fn a_cancelled_call_ends_and_is_recorded() {
    let mut door = Door::new();
    assert_eq!(reason(&door.pipe.call(0, "echo", json!({ "text": "hi" }))), "answered");
    door.pipe.begin(1, "hang", json!({}));
    door.pipe.tell(&cancelled(1));
    assert_eq!(reason(&door.pipe.answer(1)), "cancelled_by_agent");
    let is_it = |record: &Value| record["reason"] == "cancelled_by_agent";
    until("the outcome is recorded", || door.world.records().iter().find(|it| is_it(it)).cloned());
    door.end();
}

#[test]
fn what_was_asked_before_the_end_of_input_is_answered() {
    let world = World::new(&patient());
    let mut pipe = Pipe::wrap(&world);
    let file = world.files().join("a");
    pipe.begin(1, "touch", json!({ "path": file }));
    pipe.tell(&json!({ "jsonrpc": "2.0", "id": 2, "method": "test/echo", "params": { "a": 1 } }));
    // A last line without an end is a line.
    pipe.send(echo(3).to_string());
    let (code, mut rest) = pipe.end();
    rest.sort_by_key(|answer| answer["id"].as_i64());
    assert_eq!(code, Some(0));
    let reasons: Vec<_> = rest.iter().map(reason).collect();
    assert_eq!(reasons, ["answered", "answered", "answered"], "{rest:?}");
    assert_eq!(rest[1]["result"], json!({ "a": 1 }));
    assert!(file.exists());
    assert_eq!(world.json(&["status"])["in_doubt"], 0);
}

#[test]
fn a_client_that_leaves_at_once_leaves_nothing_behind() {
    let world = World::new(PEER);
    let (code, rest) = Pipe::wrap(&world).end();
    assert_eq!((code, rest), (Some(0), vec![]));
    until("the server is gone", || world.processes("peer.mjs").is_empty().then_some(()));
    // A client that is killed leaves no more behind.
    let mut pipe = Pipe::wrap(&world);
    pipe.begin(1, "hang", json!({}));
    pipe.kill();
    until("the server is gone", || world.processes("peer.mjs").is_empty().then_some(()));
    world.must(&["verify"]);
}

/// What a wrap says to a little of everything.
fn said_to_everything(world: &World) -> Vec<String> {
    let mut pipe = Pipe::wrap(world);
    let file = world.files().join("file");
    let lines = [
        echo(1).to_string(),
        "rubbish".to_owned(),
        echo(2).to_string().replace("hi", &"x".repeat(70_000)),
        echo("holdpoint-0").to_string(),
        call(3, "nothing", json!({})).to_string(),
        call(4, "touch", json!({ "path": file })).to_string(),
        call(5, "malformed", json!({})).to_string(),
        json!({ "jsonrpc": "2.0", "id": 6, "method": "test/echo", "params": {} }).to_string(),
        modern(7, "tools/call", json!({ "name": "echo", "arguments": { "text": "" } })).to_string(),
    ];
    let mut said = Vec::new();
    for line in lines {
        pipe.send(format!("{line}\n"));
        let answer = pipe.next().expect("an answer");
        said.push(format!("{} {}", answer["id"], row(&answer)));
    }
    pipe.begin(8, "echo", json!({ "text": "last" }));
    let (code, rest) = pipe.end();
    said.push(format!("{code:?} {}", rest.iter().map(reason).collect::<Vec<_>>().join(" ")));
    until("the server is gone", || world.processes("peer.mjs").is_empty().then_some(()));
    assert!(file.exists());
    said
}

#[test]
fn a_wrap_says_the_same_whether_a_serve_governs_it_or_not() {
    let alone = said_to_everything(&World::new(&patient()));
    assert_eq!(alone.last().map(String::as_str), Some("Some(0) answered"));
    let world = World::new(&patient());
    let serve = world.serve();
    assert_eq!(said_to_everything(&world), alone);
    serve.end();
    let gateways = world.records().into_iter().map(|record| record["gateway"].to_string());
    assert_eq!(gateways.collect::<std::collections::BTreeSet<_>>().len(), 1, "the serve governed");
    world.must(&["verify"]);
}

#[test]
fn a_wrap_ends_with_the_serve_that_governs_it() {
    let world = World::new(PEER);
    let serve = world.serve();
    let mut pipe = Pipe::wrap(&world);
    assert_eq!(reason(&pipe.call(1, "echo", json!({ "text": "hi" }))), "answered");
    pipe.begin(2, "hang", json!({}));
    until("the call is in flight", || {
        let status = world.json(&["status"]);
        (status["gateways"][0]["running"].as_array()?.len() == 1).then_some(())
    });
    serve.kill();
    assert_eq!(pipe.next(), None);
    assert_ne!(pipe.end().0, Some(0));
    until("the server is gone", || world.processes("peer.mjs").is_empty().then_some(()));
    // The next wrap governs by itself, and says what is in doubt.
    let mut pipe = Pipe::wrap(&world);
    assert_eq!(reason(&pipe.call(1, "echo", json!({ "text": "hi" }))), "answered");
    let doubts = world.json(&["log", "--in-doubt"]);
    assert_eq!(doubts["records"].as_array().unwrap().len(), 1);
    pipe.end();
    world.must(&["verify"]);
}

#[test]
fn an_agent_nobody_declared_gets_no_wrap() {
    let world = World::new(PEER);
    let output = world.run(&["wrap", "--agent", "nobody", "--", "node", "--version"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let said = crate::world::text(&output.stderr);
    assert!(said.contains("no agent is called `nobody`") && said.contains("coder"), "{said}");
}

#[test]
fn standard_output_carries_the_protocol_and_nothing_else() {
    let world = World::new(PEER);
    let mut command = wrap_command(&world);
    command.env("HOLDPOINT_LOG", "trace");
    let mut pipe = Pipe::of(command);
    // `Pipe` refuses every line that is no JSON.
    assert_eq!(reason(&pipe.call(1, "chatter", json!({}))), "answered");
    assert_eq!(reason(&pipe.call(2, "nothing", json!({}))), "tool_unknown");
    pipe.send("rubbish\n");
    assert_eq!(reason(&pipe.next().unwrap()), "message_malformed");
    assert_eq!(pipe.end(), (Some(0), vec![]));
}

#[test]
fn a_wrap_takes_no_configuration_from_the_folder_it_is_started_in() {
    let world = World::new(PEER);
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdpoint"));
    command.current_dir(world.path()).env_remove("HOLDPOINT_CONFIG");
    command.env("XDG_CONFIG_HOME", world.files()).env("HOME", world.files());
    command.args(["wrap", "--agent", "coder", "--", "true"]).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = text(&output.stderr);
    assert!(said.contains("no configuration found"), "{said}");
}

#[test]
fn a_call_as_a_task_is_refused() {
    let mut door = Door::new();
    let params = json!({ "name": "echo", "arguments": { "text": "hi" }, "task": { "ttl": 1 } });
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    door.pipe.tell(&call);
    assert_eq!(reason(&door.pipe.answer(1)), "task_refused");
    door.end();
}
