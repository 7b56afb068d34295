//! Hostile and broken servers behind `serve` and `wrap`: every call ends with the right reason, is
//! in the ledger with its decision and its outcome, and the next one works.

use crate::raw::{Answer, Pipe, call, exchange, post, reason, row, wrap_command};
use crate::world::{PEER, Serve, World, until};
use expect_test::expect;
use serde_json::{Value, json};

/// What the small server can do to a call.
const TRICKS: [&str; 13] = [
    "die",
    "hang",
    "flood",
    "twice",
    "wrong_id",
    "null_id",
    "large",
    "not_utf8",
    "malformed",
    "no_object",
    "chatter",
    "protocol_error",
    "echo",
];

fn config() -> String {
    PEER.replace("timeout_ms = 3000", "timeout_ms = 1500")
}

fn initialize() -> Value {
    json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": { "name": "test", "version": "1" },
    } })
}

/// A row about the one call in the ledger: what the agent was told, and what was recorded.
fn recorded(world: &World, tool: &str, answer: &Value) -> String {
    let decision = &answer["result"]["_meta"]["io.holdpoint/decision"]["action"];
    let outcome = until("the outcome is recorded", || {
        let records = world.records().into_iter();
        let mut outcomes = records.filter(|record| record["kind"] == "outcome");
        // An answer that passes as it is carries no action: then it is the newest one.
        match decision.as_str() {
            Some(action) => outcomes.find(|record| record["action"] == action),
            None => outcomes.next_back().filter(|record| is_about(record, tool)),
        }
    });
    let action = &outcome["action"];
    let decided = world.records().into_iter().find(|record| {
        record["kind"] == "decision" && record["action"] == *action && is_about(record, tool)
    });
    let decided = decided.expect("a decision");
    assert!(decided["seq"].as_u64() < outcome["seq"].as_u64(), "{decided} {outcome}");
    let why = outcome["reason"].as_str().unwrap_or("-");
    let status = outcome["status"].as_str().unwrap();
    format!("{tool:15} told {:28} recorded {status} {why}\n", row(answer))
}

fn is_about(record: &Value, tool: &str) -> bool {
    record["lineage"]["tool"]["present"] == format!("peer__{tool}")
}

#[test]
fn serve_survives_every_trick_of_a_server() {
    let mut rows = String::new();
    for trick in TRICKS {
        let world = World::new(&config());
        let key = world.key("coder");
        let serve = world.serve();
        let ask = |tool| post(&serve, ("/peer", &key), &call(1, tool, json!({ "text": "hi" })));
        let answer = ask(trick);
        assert_eq!(answer.status, 200, "{trick}: {answer:?}");
        rows.push_str(&recorded(&world, trick, &answer.body));
        // A server that was killed is started anew, by this very call.
        let after = ask("echo");
        assert_eq!(after.body["result"]["content"][0]["text"], "hi", "{trick}: {after:?}");
        assert!(!world.serve_log().contains("panicked"), "{}", world.serve_log());
        serve.end();
        world.must(&["verify"]);
        world.must(&["replay"]);
    }
    expect![[r#"
        die             told - upstream_unavailable       recorded in_doubt upstream_unavailable
        hang            told - upstream_timeout           recorded in_doubt upstream_timeout
        flood           told - upstream_invalid           recorded in_doubt upstream_invalid
        twice           told - answered                   recorded succeeded -
        wrong_id        told - upstream_timeout           recorded in_doubt upstream_timeout
        null_id         told - upstream_invalid           recorded in_doubt upstream_invalid
        large           told - upstream_invalid           recorded in_doubt upstream_invalid
        not_utf8        told - upstream_invalid           recorded in_doubt upstream_invalid
        malformed       told - upstream_invalid           recorded in_doubt upstream_invalid
        no_object       told - upstream_invalid           recorded in_doubt upstream_invalid
        chatter         told - answered                   recorded succeeded -
        protocol_error  told -32000 -                     recorded tool_error -
        echo            told - answered                   recorded succeeded -
    "#]]
    .assert_eq(&rows);
}

#[test]
fn a_thread_of_a_legacy_client_answers_before_it_ends() {
    let world = World::new(&config());
    let key = world.key("coder");
    let serve = world.serve();
    let bearer = format!("Authorization: Bearer {key}");
    let mut rows = String::new();
    for trick in TRICKS.into_iter().filter(|trick| *trick != "flood") {
        let send = |session: &str, message: &Value| {
            let session = format!("Mcp-Session-Id: {session}");
            let head = [bearer.as_str(), "Content-Type: application/json", &session];
            let head = if session.ends_with(' ') { &head[..2] } else { &head[..] };
            exchange(&serve, "POST /mcp/peer", head, message.to_string().as_bytes())
        };
        let opened = send("", &initialize());
        let session = opened.header("mcp-session-id").expect("a thread").to_owned();
        let told = send(&session, &call(1, trick, json!({ "text": "hi" })));
        // Whoever is told that a thread is unknown begins anew and asks again.
        assert_eq!(told.status, 200, "{trick}: {told:?}");
        let echo = || send(&session, &call(2, "echo", json!({ "text": "hi" })));
        let after = match trick {
            "die" => until("the thread is over", || Some(echo()).filter(|it| it.status == 404)),
            _ => echo(),
        };
        rows.push_str(&format!("{trick:15} {:32} then {}\n", told.row(), after.row()));
    }
    expect![[r#"
        die             200 - upstream_unavailable       then 404 -32600 message_malformed
        hang            200 - upstream_timeout           then 200 - answered
        twice           200 - answered                   then 200 - answered
        wrong_id        200 - upstream_timeout           then 200 - answered
        null_id         200 - upstream_invalid           then 200 - answered
        large           200 - upstream_invalid           then 200 - answered
        not_utf8        200 - upstream_invalid           then 200 - answered
        malformed       200 - upstream_invalid           then 200 - answered
        no_object       200 - upstream_invalid           then 200 - answered
        chatter         200 - answered                   then 200 - answered
        protocol_error  200 -32000 -                     then 200 - answered
        echo            200 - answered                   then 200 - answered
    "#]]
    .assert_eq(&rows);
    assert!(!world.serve_log().contains("panicked"), "{}", world.serve_log());
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[test]
fn a_wrap_survives_every_trick_of_a_server_or_ends_with_it() {
    let mut rows = String::new();
    for trick in TRICKS {
        let world = World::new(&config());
        let mut pipe = Pipe::wrap(&world);
        let answer = pipe.call(1, trick, json!({ "text": "hi" }));
        rows.push_str(&recorded(&world, trick, &answer));
        let mut pipe = match trick {
            // The server is gone and its wrap with it; a flood has no end. A new one works.
            "die" | "flood" => Pipe::wrap(&world),
            _ => pipe,
        };
        // Nothing of what was said before comes as an answer to what is asked now.
        let after = pipe.call(2, "echo", json!({ "text": trick }));
        assert_eq!(after["result"]["content"][0]["text"], trick, "{after}");
        assert_eq!(pipe.end(), (Some(0), vec![]), "{trick}");
        world.must(&["verify"]);
    }
    expect![[r#"
        die             told - upstream_unavailable       recorded in_doubt upstream_unavailable
        hang            told - upstream_timeout           recorded in_doubt upstream_timeout
        flood           told - upstream_timeout           recorded in_doubt upstream_timeout
        twice           told - answered                   recorded succeeded -
        wrong_id        told - upstream_timeout           recorded in_doubt upstream_timeout
        null_id         told - upstream_invalid           recorded in_doubt upstream_invalid
        large           told - upstream_invalid           recorded in_doubt upstream_invalid
        not_utf8        told - upstream_invalid           recorded in_doubt upstream_invalid
        malformed       told - upstream_invalid           recorded in_doubt upstream_invalid
        no_object       told - upstream_invalid           recorded in_doubt upstream_invalid
        chatter         told - answered                   recorded succeeded -
        protocol_error  told -32000 -                     recorded tool_error -
        echo            told - answered                   recorded succeeded -
    "#]]
    .assert_eq(&rows);
}

#[test]
fn a_server_that_does_not_start_is_unavailable() {
    let mut rows = String::new();
    for how in ["exit", "garbage"] {
        let env = format!("timeout_ms = 1500\nenv = {{ PEER_START = \"{how}\" }}");
        let world = World::new(&PEER.replace("timeout_ms = 3000", &env));
        let key = world.key("coder");
        let serve = world.serve();
        let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
        let listed = post(&serve, ("/peer", &key), &list);
        let called = post(&serve, ("/peer", &key), &call(2, "echo", json!({})));
        // One server that fails hides no other.
        let all = post(&serve, ("", &key), &list);
        assert_eq!(all.body["result"]["tools"], json!([]), "{all:?}");
        rows.push_str(&format!("serve {how:8} {} | {}\n", listed.row(), called.row()));
        serve.end();
        let mut command = wrap_command(&world);
        let mut pipe = Pipe::of({
            command.env("PEER_START", how);
            command
        });
        pipe.begin(1, "echo", json!({}));
        let answer = pipe.next().map_or("the end".to_owned(), |answer| row(&answer));
        rows.push_str(&format!("wrap  {how:8} {answer}\n"));
    }
    expect![[r#"
        serve exit     200 -32603 upstream_unavailable | 200 - tool_unknown
        wrap  exit     - tool_unknown
        serve garbage  200 -32603 upstream_unavailable | 200 - tool_unknown
        wrap  garbage  - tool_unknown
    "#]]
    .assert_eq(&rows);
}

#[test]
fn a_command_that_is_none_is_unavailable() {
    let world = World::new(&PEER.replace("\"node\", \"${peer}\"", "\"/nowhere/at-all\""));
    let key = world.key("coder");
    let serve = world.serve();
    let called = post(&serve, ("/peer", &key), &call(2, "echo", json!({})));
    assert_eq!(reason(&called.body), "tool_unknown");
    assert!(world.serve_log().contains("/nowhere/at-all"), "{}", world.serve_log());
    serve.end();
    let output = world.run(&["wrap", "--agent", "coder", "--", "/nowhere/at-all"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
}

#[test]
fn many_calls_at_one_time_of_a_dying_server_all_end() {
    let world = World::new(&config());
    let key = world.key("coder");
    let serve = world.serve();
    let ask = |tool: &str| post(&serve, ("/peer", &key), &call(1, tool, json!({ "text": "hi" })));
    assert_eq!(reason(&ask("echo").body), "answered");
    let told: Vec<Answer> = std::thread::scope(|scope| {
        let calls = (0..24).map(|at| scope.spawn(move || ask(["hang", "hang", "die"][at % 3])));
        calls.collect::<Vec<_>>().into_iter().map(|call| call.join().unwrap()).collect()
    });
    for answer in &told {
        let reason = reason(&answer.body);
        assert!(["upstream_unavailable", "upstream_timeout"].contains(&&*reason), "{answer:?}");
    }
    // Restarts are spaced out more and more, yet they come.
    until("the server is back", || (reason(&ask("echo").body) == "answered").then_some(()));
    serve.end();
    assert_eq!(world.json(&["log", "--in-doubt"])["records"], json!([]));
    world.must(&["verify"]);
}

#[test]
fn what_passes_ungoverned_is_answered_even_by_a_broken_server() {
    let world = World::new(&config());
    let mut pipe = Pipe::wrap(&world);
    pipe.tell(&json!({ "jsonrpc": "2.0", "id": 1, "method": "test/hang" }));
    // Nobody can tell whose answer that was.
    pipe.begin(2, "large", json!({}));
    let mut told = [pipe.next().unwrap(), pipe.next().unwrap()];
    told.sort_by_key(|answer| answer["id"].as_i64());
    assert_eq!(told.each_ref().map(reason), ["upstream_invalid", "upstream_invalid"], "{told:?}");
    pipe.tell(&json!({ "jsonrpc": "2.0", "id": 3, "method": "test/hang" }));
    pipe.begin(4, "die", json!({}));
    let mut told = [pipe.next().unwrap(), pipe.next().unwrap()];
    told.sort_by_key(|answer| answer["id"].as_i64());
    let expected = ["upstream_unavailable", "upstream_unavailable"];
    assert_eq!(told.each_ref().map(reason), expected, "{told:?}");
    let (code, rest) = pipe.end();
    assert_eq!((code, rest), (Some(1), vec![]));
}

#[test]
fn no_other_method_reaches_a_server_through_serve() {
    let world = World::new(PEER);
    let key = world.key("coder");
    let serve: Serve = world.serve();
    let bearer = format!("Authorization: Bearer {key}");
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "test/echo" }).to_string();
    let head = [bearer.as_str(), "Content-Type: application/json"];
    let answer = exchange(&serve, "POST /mcp/peer", &head, message.as_bytes());
    assert_eq!(answer.row(), "200 -32601 method_unknown");
    serve.end();
}
