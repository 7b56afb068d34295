//! MCP's tasks: where they are not governed nobody is offered one, and none is followed.

use crate::raw::{self, Pipe, modern_able, reason};
use crate::world::{Serve, World, tasker};
use serde_json::{Value, json};

const CONFIG: &str = r#"
[listen]
http = "127.0.0.1:0"

[team.platform]
on_call = "platform on-call"

[agent.coder]
owner = "platform"
grants = [{ class = "read", tools = ["*"] }]

[server.older]
command = ["node", "${tasker}", "legacy"]
environment = "dev"
read = ["*"]

[server.younger]
command = ["node", "${tasker}", "modern"]
environment = "dev"
read = ["*"]
"#;

/// What the servers' eras are called, and what their `tasks/…` requests are.
const ERAS: [(&str, &str); 2] = [("older", "legacy"), ("younger", "modern")];
const FOLLOWING: [&str; 5] =
    ["tasks/get", "tasks/update", "tasks/cancel", "tasks/result", "tasks/list"];

/// A client that can follow tasks of either era.
fn able() -> Value {
    json!({
        "tasks": { "list": {}, "cancel": {} }, "sampling": {},
        "extensions": { "io.modelcontextprotocol/tasks": {}, "com.example/other": {} },
    })
}

/// A request of an agent that speaks the server's era.
fn request(era: &str, id: impl Into<Value>, method: &str, params: Value) -> Value {
    match era {
        "modern" => modern_able(id, method, (params, able())),
        _ => json!({ "jsonrpc": "2.0", "id": id.into(), "method": method, "params": params }),
    }
}

fn call(era: &str, tool: &str) -> Value {
    request(era, 1, "tools/call", json!({ "name": tool, "arguments": {} }))
}

/// A `wrap` around a server of this era, its client's opening, and the answer to that.
fn wrap(world: &World, server: &str, (ours, theirs): (&str, &str)) -> (Pipe, Value) {
    let mut command =
        world.command(&["wrap", "--agent", "coder", "--server", server, "--", "node"]);
    command.arg(tasker()).arg(theirs);
    let mut pipe = Pipe::of(command);
    pipe.tell(&match ours {
        "modern" => request(ours, "open", "server/discover", json!({})),
        _ => request(
            ours,
            "open",
            "initialize",
            json!({
                "protocolVersion": "2025-11-25", "capabilities": able(),
                "clientInfo": { "name": "test", "version": "1" },
            }),
        ),
    });
    let opened = pipe.answer("open");
    (pipe, opened)
}

fn ask(pipe: &mut Pipe, request: &Value) -> Value {
    pipe.tell(request);
    pipe.answer(request["id"].clone())
}

fn said(answer: &Value) -> Value {
    let text = answer["result"]["content"][0]["text"].as_str();
    serde_json::from_str(text.unwrap_or_else(|| panic!("{answer}"))).unwrap()
}

/// What a server was told and heard of tasks.
fn offers(seen: &Value) -> [bool; 2] {
    let offers = |able: &Value| {
        let extensions = able["extensions"].as_object();
        able.get("tasks").is_some()
            || extensions.is_some_and(|all| all.contains_key("io.modelcontextprotocol/tasks"))
    };
    [offers(&seen["client"]), !seen["heard"].as_array().unwrap().is_empty()]
}

fn post(serve: &Serve, place: (&str, &str), era: &str, message: &Value) -> Value {
    match era {
        "modern" => raw::post_modern(serve, place, message).body,
        _ => raw::post(serve, place, message).body,
    }
}

fn outcomes(world: &World) -> Vec<(Value, Value)> {
    let all = world.records().into_iter().filter(|record| record["kind"] == "outcome");
    all.map(|record| (record["status"].clone(), record["reason"].clone())).collect()
}

#[test]
fn tasks_are_offered_to_neither_side_of_a_wrap() {
    let world = World::new(CONFIG);
    for (server, theirs) in ERAS {
        for ours in ["legacy", "modern"] {
            let (mut pipe, opened) = wrap(&world, server, (ours, theirs));
            let shown = &opened["result"]["capabilities"];
            assert!(shown["tools"].is_object(), "{opened}");
            assert!(!shown.to_string().contains("tasks"), "{opened}");
            let kept = &shown["extensions"]["com.example/other"];
            assert_eq!(kept.is_object(), theirs == "modern", "{opened}");
            let seen = said(&ask(&mut pipe, &call(ours, "seen")));
            assert_eq!(offers(&seen), [false, false], "{ours} {theirs}: {seen}");
        }
    }
}

#[test]
fn what_asks_for_a_task_or_follows_one_is_refused_in_a_wrap() {
    let world = World::new(CONFIG);
    for (server, theirs) in ERAS {
        for ours in ["legacy", "modern"] {
            let (mut pipe, _) = wrap(&world, server, (ours, theirs));
            let params = json!({ "name": "work", "arguments": {}, "task": { "ttl": 60000 } });
            let refused = ask(&mut pipe, &request(ours, 2, "tools/call", params));
            assert_eq!(raw::row(&refused), "-32602 task_refused", "{refused}");
            for (at, method) in FOLLOWING.into_iter().enumerate() {
                let params = json!({ "taskId": "task-1", "inputResponses": {} });
                let refused = ask(&mut pipe, &request(ours, 10 + at, method, params));
                assert_eq!(raw::row(&refused), "-32601 task_refused", "{method}: {refused}");
            }
            let note = json!({ "taskId": "task-1", "status": "working" });
            let note =
                json!({ "jsonrpc": "2.0", "method": "notifications/tasks/status", "params": note });
            pipe.tell(&note);
            if (ours, theirs) == ("modern", "modern") {
                let filter = json!({ "notifications": { "taskIds": ["task-1"] } });
                pipe.tell(&request(ours, 20, "subscriptions/listen", filter));
                let confirmed = pipe.next().unwrap();
                assert_eq!(confirmed["params"]["notifications"], json!({}), "{confirmed}");
            }
            let seen = said(&ask(&mut pipe, &call(ours, "seen")));
            assert_eq!(offers(&seen), [false, false], "{ours} {theirs}: {seen}");
        }
    }
    let decided = world.records().into_iter().filter(|record| record["kind"] == "decision");
    assert_eq!(decided.count(), 4, "of what was refused nothing was decided");
}

#[test]
fn a_task_that_nobody_agreed_to_leaves_its_action_in_doubt() {
    let world = World::new(CONFIG);
    let mut times = 0;
    for (server, theirs) in ERAS {
        for ours in ["legacy", "modern"] {
            let (mut pipe, _) = wrap(&world, server, (ours, theirs));
            let answer = ask(&mut pipe, &call(ours, "rude"));
            assert_eq!(reason(&answer), "task_refused", "{answer}");
            assert_eq!(answer["result"]["isError"], true, "{answer}");
            assert!(!answer.to_string().contains("task-1"), "{answer}");
            pipe.end();
            times += 1;
        }
    }
    let key = world.key("coder");
    let serve = world.serve();
    for (server, _) in ERAS {
        for era in ["legacy", "modern"] {
            let one = post(&serve, (&format!("/{server}"), &key), era, &call(era, "rude"));
            let all = call(era, &format!("{server}__rude"));
            let all = post(&serve, ("", &key), era, &all);
            assert_eq!(
                (reason(&one), reason(&all)),
                ("task_refused".into(), "task_refused".into())
            );
            times += 2;
        }
    }
    serve.end();
    let expected = vec![(json!("in_doubt"), json!("task_refused")); times];
    assert_eq!(outcomes(&world), expected);
    world.must(&["verify"]);
}

#[test]
fn a_server_gets_no_task_from_an_agent_and_asks_it_about_none() {
    let world = World::new(CONFIG);
    let (mut pipe, _) = wrap(&world, "older", ("legacy", "legacy"));
    // Nothing that the server asks reaches the agent: the next message is the answer.
    pipe.tell(&call("legacy", "poke"));
    let answer = pipe.next().unwrap();
    let error = |code: i64| json!({ "error": { "code": code, "reason": "task_refused" } });
    assert_eq!(said(&answer), json!([error(-32601), error(-32601), error(-32602)]));
    pipe.end();
    let asked = world.records().into_iter().find(|record| record["kind"] == "asked").unwrap();
    assert_eq!(asked["ruling"], "forbidden");
}

#[test]
fn over_http_too_tasks_are_neither_offered_nor_asked_for_nor_followed() {
    let world = World::new(CONFIG);
    let key = world.key("coder");
    let serve = world.serve();
    for era in ["legacy", "modern"] {
        for (below, prefix) in
            [("/older", ""), ("/younger", ""), ("", "younger__"), ("", "older__")]
        {
            let ask = |message: &Value| post(&serve, (below, &key), era, message);
            let work = json!({ "name": format!("{prefix}work"), "arguments": {}, "task": {} });
            let refused = ask(&request(era, 2, "tools/call", work));
            assert_eq!(raw::row(&refused), "-32602 task_refused", "{refused}");
            for method in FOLLOWING {
                let refused = ask(&request(era, 3, method, json!({ "taskId": "task-1" })));
                assert_eq!(raw::row(&refused), "-32601 task_refused", "{method}: {refused}");
            }
            let seen = said(&ask(&call(era, &format!("{prefix}seen"))));
            assert_eq!(offers(&seen), [false, false], "{era} {below} {prefix}: {seen}");
        }
    }
    for below in ["", "/younger"] {
        let discover = request("modern", 4, "server/discover", json!({}));
        let shown = post(&serve, (below, &key), "modern", &discover);
        assert!(!shown["result"]["capabilities"].to_string().contains("tasks"), "{shown}");
    }
}

#[test]
fn a_thread_over_all_servers_refuses_tasks() {
    let world = World::new(CONFIG);
    let key = world.key("coder");
    let serve = world.serve();
    let opening = json!({
        "protocolVersion": "2025-11-25", "capabilities": able(),
        "clientInfo": { "name": "test", "version": "1" },
    });
    for (below, prefix) in [("/older", ""), ("/younger", ""), ("", "older__"), ("", "younger__")] {
        let opened =
            raw::post(&serve, (below, &key), &request("legacy", 1, "initialize", opening.clone()));
        assert!(!opened.body["result"]["capabilities"].to_string().contains("tasks"));
        let thread = opened.header("mcp-session-id").unwrap().to_owned();
        let ask = |message: Value| {
            let head = [
                format!("Authorization: Bearer {key}"),
                "Content-Type: application/json".to_owned(),
                format!("Mcp-Session-Id: {thread}"),
            ];
            let head: Vec<_> = head.iter().map(String::as_str).collect();
            let body = message.to_string();
            raw::exchange(&serve, &format!("POST /mcp{below}"), &head, body.as_bytes()).body
        };
        let work = json!({ "name": format!("{prefix}work"), "arguments": {}, "task": {} });
        let refused = ask(request("legacy", 2, "tools/call", work));
        assert_eq!(raw::row(&refused), "-32602 task_refused", "{refused}");
        for method in FOLLOWING {
            let refused = ask(request("legacy", 3, method, json!({ "taskId": "task-1" })));
            assert_eq!(raw::row(&refused), "-32601 task_refused", "{method}: {refused}");
        }
        let rude = ask(call("legacy", &format!("{prefix}rude")));
        assert_eq!(reason(&rude), "task_refused", "{rude}");
        let seen = said(&ask(call("legacy", &format!("{prefix}seen"))));
        assert_eq!(offers(&seen), [false, false], "{below} {prefix}: {seen}");
    }
}
