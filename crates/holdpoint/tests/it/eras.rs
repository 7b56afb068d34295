//! Agents of one era with servers of the other: questions, their answers, and what must not work.

use crate::raw::{self, Pipe, modern_able, reason};
use crate::threads::{Remote, Thread};
use crate::world::{Serve, World, asker};
use serde_json::{Value, json};

const CONFIG: &str = r#"
[listen]
http = "127.0.0.1:0"

[limits]
stop_grace_ms = 300

[team.platform]
on_call = "platform on-call"

[agent.coder]
owner = "platform"
grants = [{ class = "read", tools = ["*"] }]

[agent.thief]
owner = "platform"
grants = [{ class = "read", tools = ["*"] }]

[server.older]
command = ["node", "${asker}", "legacy"]
environment = "dev"
read = ["*"]

[server.younger]
command = ["node", "${asker}", "modern"]
environment = "dev"
read = ["*"]
"#;

/// How a server is reached as a modern client.
enum Reach<'a> {
    Wrap(&'a mut Pipe),
    Http(&'a Serve, &'a str, &'a str),
}

// === impl Reach ===

impl Reach<'_> {
    fn ask(&mut self, id: u64, method: &str, params: (Value, Value)) -> Value {
        let request = modern_able(id, method, params);
        match self {
            Self::Wrap(pipe) => {
                pipe.tell(&request);
                pipe.answer(id)
            }
            Self::Http(serve, below, key) => raw::post_modern(serve, (below, key), &request).body,
        }
    }

    fn call(&mut self, id: u64, tool: &str, more: &Value) -> Value {
        let mut params = json!({ "name": tool, "arguments": { "a": 1 } });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.ask(id, "tools/call", (params, able()))
    }

    /// Calls a tool and answers what it asks; gives the end and what was asked.
    fn through(&mut self, tool: &str) -> (Value, Vec<String>) {
        let (mut more, mut asked) = (json!({}), Vec::new());
        for id in 100.. {
            let answer = self.call(id, tool, &more);
            if answer["result"]["resultType"] != "input_required" {
                return (answer, asked);
            }
            more = replies(&answer, &mut asked);
        }
        unreachable!()
    }
}

/// What a client comes back with.
fn replies(answer: &Value, asked: &mut Vec<String>) -> Value {
    let mut found = json!({});
    for (key, question) in answer["result"]["inputRequests"].as_object().unwrap() {
        let method = question["method"].as_str().unwrap();
        asked.push(method.to_owned());
        found[key] = reply(method);
    }
    json!({ "inputResponses": found, "requestState": answer["result"]["requestState"] })
}

fn reply(method: &str) -> Value {
    match method {
        "elicitation/create" => json!({ "action": "accept", "content": { "x": 1 } }),
        "sampling/createMessage" => json!({ "role": "assistant", "model": "m",
            "content": { "type": "text", "text": "sampled words" } }),
        "roots/list" => json!({ "roots": [{ "uri": "file:///srv" }] }),
        other => panic!("{other}"),
    }
}

fn able() -> Value {
    json!({ "elicitation": {}, "sampling": {}, "roots": {} })
}

const ALL: [&str; 3] = ["elicitation/create", "sampling/createMessage", "roots/list"];

fn wrap(world: &World, server: &str, era: &str) -> Pipe {
    let mut command =
        world.command(&["wrap", "--agent", "coder", "--server", server, "--", "node"]);
    command.arg(asker()).arg(era);
    Pipe::of(command)
}

fn said(answer: &Value) -> Value {
    let text = answer["result"]["content"][0]["text"].as_str();
    let text = text.unwrap_or_else(|| panic!("no text: {answer}"));
    serde_json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {answer}"))
}

fn kinds(world: &World, kind: &str) -> Vec<Value> {
    world.records().into_iter().filter(|record| record["kind"] == kind).collect()
}

/// How many calls of a tool were decided on.
fn decided(world: &World, tool: &str) -> usize {
    let all = kinds(world, "decision");
    all.iter().filter(|record| record["request"]["tool"] == tool).count()
}

fn check_chain(answer: &Value, asked: &[String]) {
    assert_eq!(asked, ALL);
    let said = said(answer);
    assert_eq!(said["user"]["action"], "accept", "{said}");
    assert_eq!(said["model"]["content"]["text"], "sampled words", "{said}");
    assert_eq!(said["roots"]["roots"][0]["uri"], "file:///srv", "{said}");
    assert_eq!(answer["result"]["resultType"], "complete");
}

#[test]
fn a_modern_agent_answers_a_legacy_server_through_a_wrap() {
    let world = World::new(CONFIG);
    let mut pipe = wrap(&world, "older", "legacy");
    let mut reach = Reach::Wrap(&mut pipe);
    let found = reach.ask(1, "server/discover", (json!({}), able()));
    assert_eq!(found["result"]["supportedVersions"], json!(["2026-07-28"]), "{found}");
    assert_eq!(found["result"]["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "asker");
    let listed = reach.ask(2, "tools/list", (json!({}), able()));
    assert_eq!(listed["result"]["tools"][0]["name"], "confirm", "{listed}");
    assert_eq!(
        (&listed["result"]["ttlMs"], &listed["result"]["cacheScope"]),
        (&json!(0), &json!("private"))
    );
    let (answer, asked) = reach.through("chain");
    check_chain(&answer, &asked);
    assert_eq!(said(&reach.call(3, "runs", &json!({})))["runs"], 1);
    let read = reach.ask(4, "resources/read", (json!({ "uri": "x://y" }), able()));
    assert_eq!(read["result"]["contents"][0]["text"], "read", "{read}");
    assert_eq!(read["result"]["cacheScope"], "private");
    assert_eq!(pipe.end().0, Some(0));
    // One action, one permit, however often its agent came back.
    assert_eq!(decided(&world, "older__chain"), 1);
    assert_eq!((kinds(&world, "asked").len(), kinds(&world, "replied").len()), (3, 3));
    world.must(&["verify"]);
}

#[test]
fn a_modern_agent_that_asks_nothing_first_is_understood_as_well() {
    let world = World::new(CONFIG);
    for (server, era) in [("older", "legacy"), ("younger", "modern")] {
        let mut pipe = wrap(&world, server, era);
        let (answer, asked) = Reach::Wrap(&mut pipe).through("chain");
        check_chain(&answer, &asked);
        pipe.end();
    }
}

#[test]
fn a_legacy_agent_answers_a_modern_server_through_a_wrap() {
    let world = World::new(CONFIG);
    let mut pipe = wrap(&world, "younger", "modern");
    let opening = json!({ "protocolVersion": "2025-06-18", "capabilities": able(),
        "clientInfo": { "name": "test", "version": "1" } });
    pipe.tell(&legacy(0, "initialize", opening));
    let opened = pipe.answer(0);
    assert_eq!(opened["result"]["protocolVersion"], "2025-06-18", "{opened}");
    assert_eq!(opened["result"]["serverInfo"]["name"], "asker");
    pipe.tell(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
    // What changed is told without being asked for, as a legacy server does.
    assert_eq!(pipe.next().unwrap()["method"], "notifications/tools/list_changed");
    pipe.tell(&legacy(1, "ping", json!({})));
    assert_eq!(pipe.answer(1)["result"], json!({}));
    let (answer, asked) = answer_all(&mut pipe, 2, "chain");
    check_chain(&answer, &asked);
    pipe.begin(3, "runs", json!({}));
    assert_eq!(said(&pipe.answer(3))["runs"], 1);
    pipe.tell(&legacy(4, "resources/subscribe", json!({ "uri": "x://y" })));
    assert_eq!(pipe.answer(4)["result"], json!({}));
    let updated = pipe.next().unwrap();
    assert_eq!(updated["params"], json!({ "uri": "x://y" }), "{updated}");
    pipe.end();
    // Each round is a request to the server, and is decided on as one.
    assert_eq!(decided(&world, "younger__chain"), 4);
    assert_eq!((kinds(&world, "asked").len(), kinds(&world, "replied").len()), (3, 3));
    world.must(&["verify"]);
}

fn legacy(id: u64, method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

/// Calls a tool as a legacy client that answers everything.
fn answer_all(pipe: &mut Pipe, id: u64, tool: &str) -> (Value, Vec<String>) {
    pipe.begin(id, tool, json!({ "a": 1 }));
    let mut asked = Vec::new();
    loop {
        let next = pipe.next().unwrap();
        if next["id"] == id && next.get("method").is_none() {
            return (next, asked);
        }
        let Some(method) = next["method"].as_str().filter(|_| next.get("id").is_some()) else {
            continue;
        };
        asked.push(method.to_owned());
        let result = reply(method);
        pipe.tell(&json!({ "jsonrpc": "2.0", "id": next["id"], "result": result }));
    }
}

#[test]
fn a_state_is_good_for_its_own_call_once() {
    let world = World::new(CONFIG);
    let mut pipe = wrap(&world, "older", "legacy");
    let mut reach = Reach::Wrap(&mut pipe);
    let first = reach.call(1, "confirm", &json!({}));
    let back = replies(&first, &mut Vec::new());
    let state = back["requestState"].as_str().unwrap();
    let with = |state: &str| {
        let mut back = back.clone();
        back["requestState"] = state.into();
        back
    };
    let flipped = format!("{}{}", if state.starts_with('1') { '2' } else { '1' }, &state[1..]);
    let mut refused = |id, tool: &str, more: &Value| reason(&reach.call(id, tool, more));
    assert_eq!(refused(2, "confirm", &with(&flipped)), "request_state_refused");
    assert_eq!(refused(3, "confirm", &with("")), "request_state_refused");
    assert_eq!(refused(4, "chain", &back), "request_state_refused");
    let mut other = back.clone();
    other["arguments"] = json!({ "a": 2 });
    assert_eq!(refused(5, "confirm", &other), "request_state_refused");
    // It still waits, and goes on with the right one; then never again.
    assert_eq!(said(&reach.call(6, "confirm", &back))["user"]["action"], "accept");
    assert_eq!(reason(&reach.call(7, "confirm", &back)), "request_state_refused");
    assert_eq!(said(&reach.call(8, "runs", &json!({})))["runs"], 1);
    pipe.end();
    assert_eq!(decided(&world, "older__confirm"), 1);
}

#[test]
fn what_a_client_cannot_answer_it_is_not_asked() {
    let world = World::new(CONFIG);
    // A legacy server hears it as an error.
    let mut pipe = wrap(&world, "older", "legacy");
    let mut reach = Reach::Wrap(&mut pipe);
    let params = json!({ "name": "confirm", "arguments": {} });
    let answer = reach.ask(1, "tools/call", (params, json!({ "sampling": {} })));
    assert_eq!(said(&answer)["user"]["reason"], "capability_missing", "{answer}");
    pipe.end();
    // A modern server cannot hear it, so its client does.
    let mut pipe = wrap(&world, "younger", "modern");
    pipe.tell(&legacy(
        0,
        "initialize",
        json!({ "protocolVersion": "2025-11-25",
        "capabilities": {}, "clientInfo": { "name": "test", "version": "1" } }),
    ));
    pipe.answer(0);
    pipe.begin(1, "confirm", json!({}));
    let answer = pipe.answer(1);
    assert_eq!(reason(&answer), "capability_missing", "{answer}");
    pipe.end();
}

#[test]
fn a_server_that_never_has_enough_is_left() {
    let world = World::new(CONFIG);
    let mut pipe = wrap(&world, "younger", "modern");
    pipe.tell(&legacy(
        0,
        "initialize",
        json!({ "protocolVersion": "2025-11-25",
        "capabilities": able(), "clientInfo": { "name": "test", "version": "1" } }),
    ));
    pipe.answer(0);
    let (answer, asked) = answer_all(&mut pipe, 1, "endless");
    assert_eq!(reason(&answer), "upstream_invalid", "{answer}");
    assert_eq!(asked.len(), 16);
    pipe.end();
}

#[test]
fn a_client_that_fails_to_answer_ends_its_call() {
    let world = World::new(CONFIG);
    let mut pipe = wrap(&world, "younger", "modern");
    pipe.tell(&legacy(
        0,
        "initialize",
        json!({ "protocolVersion": "2025-11-25",
        "capabilities": able(), "clientInfo": { "name": "test", "version": "1" } }),
    ));
    pipe.answer(0);
    pipe.begin(1, "chain", json!({}));
    loop {
        let next = pipe.next().unwrap();
        match next["method"].as_str() {
            Some("sampling/createMessage") => {
                let error = json!({ "code": -1, "message": "the user says no" });
                pipe.tell(&json!({ "jsonrpc": "2.0", "id": next["id"], "error": error }));
            }
            Some(method) if next.get("id").is_some() => {
                let result = reply(method);
                pipe.tell(&json!({ "jsonrpc": "2.0", "id": next["id"], "result": result }));
            }
            Some(_) => {}
            None => {
                assert_eq!(reason(&next), "question_unanswered", "{next}");
                break;
            }
        }
    }
    pipe.end();
}

#[test]
fn a_modern_agent_answers_a_legacy_server_through_serve() {
    let world = World::new(CONFIG);
    let (key, thief) = (world.key("coder"), world.key("thief"));
    let serve = world.serve();
    for (below, prefix) in [("/older", ""), ("", "older__")] {
        let mut reach = Reach::Http(&serve, below, &key);
        let (answer, asked) = reach.through(&format!("{prefix}chain"));
        check_chain(&answer, &asked);
    }
    // Another agent cannot go on with what is not its own.
    let mut reach = Reach::Http(&serve, "/older", &key);
    let first = reach.call(1, "confirm", &json!({}));
    let back = replies(&first, &mut Vec::new());
    let stolen = Reach::Http(&serve, "/older", &thief).call(2, "confirm", &back);
    assert_eq!(reason(&stolen), "request_state_refused", "{stolen}");
    let answer = reach.call(3, "confirm", &back);
    assert_eq!(said(&answer)["user"]["action"], "accept", "{answer}");
    let late = reach.call(4, "confirm", &back);
    assert_eq!(reason(&late), "request_state_refused", "{late}");
    serve.end();
    assert_eq!(decided(&world, "older__chain"), 2);
    assert_eq!(decided(&world, "older__confirm"), 1);
    world.must(&["verify"]);
}

#[tokio::test]
async fn a_legacy_thread_answers_a_modern_server_behind_a_url() {
    let remote = Remote::of(|port| {
        let mut command = std::process::Command::new("node");
        command.arg(asker()).args(["modern", &port.to_string()]);
        command
    });
    let there =
        format!("[server.far]\nurl = \"{}\"\nenvironment = \"dev\"\nread = [\"*\"]\n", remote.url);
    let world = World::new(&format!("{CONFIG}\n{there}"));
    let key = world.key("coder");
    let serve = world.serve();
    let (mut thread, opened) = Thread::open_at(&serve, "/far", &key).await;
    assert_eq!(opened["result"]["protocolVersion"], "2025-11-25", "{opened}");
    let (answer, before) = thread.call("chain", json!({ "a": 1 })).await;
    let methods = before.iter().filter(|message| message.get("id").is_some());
    let asked: Vec<_> = methods.filter_map(|message| message["method"].as_str()).collect();
    assert_eq!(asked, ALL, "{before:?} {answer}");
    let said = said(&answer);
    assert_eq!(said["user"]["action"], "decline", "{said}");
    assert_eq!(said["model"]["content"]["text"], "sampled words", "{said}");
    assert_eq!(said["roots"]["roots"][0]["uri"], "file:///srv", "{said}");
    let uri = json!({ "uri": "x://y" });
    let (answer, _) = thread.ask("resources/subscribe", uri).await;
    assert_eq!(answer["result"], json!({}), "{answer}");
    let told = thread.own_stream_until("notifications/resources/updated").await;
    assert!(told.contains("x://y"), "{told}");
    assert_eq!(thread.delete().await.status(), 204);
    serve.end();
    // Each round is a request to the server, and is decided on as one.
    assert_eq!(decided(&world, "far__chain"), 4);
    assert_eq!((kinds(&world, "asked").len(), kinds(&world, "replied").len()), (3, 3));
    world.must(&["verify"]);
}

#[test]
fn a_stop_ends_a_call_that_waits_for_its_agent() {
    let world = World::new(CONFIG);
    let key = world.key("coder");
    let serve = world.serve();
    let mut reach = Reach::Http(&serve, "/older", &key);
    let first = reach.call(1, "confirm", &json!({}));
    assert_eq!(first["result"]["resultType"], "input_required", "{first}");
    world.must(&["stop", "--agent", "coder", "--reason", "test"]);
    let answer = reach.call(2, "confirm", &replies(&first, &mut Vec::new()));
    assert!(answer.get("error").is_some() || answer["result"]["isError"] == true, "{answer}");
    serve.end();
    let outcomes = kinds(&world, "outcome");
    let last = outcomes.last().unwrap();
    assert_eq!(
        (&last["status"], &last["reason"]),
        (&json!("in_doubt"), &json!("cancelled_by_stop"))
    );
    assert_eq!(kinds(&world, "replied")[0]["status"], "unanswered");
}
