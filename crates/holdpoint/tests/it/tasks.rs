//! MCP's tasks: where they are not governed nobody is offered one, and none is followed; at the door
//! of 2026-07-28 an action goes on as its task, is followed by its own agent, and ends once.

use crate::issuer::Issuer;
use crate::oauth::config;
use crate::raw::{self, Pipe, modern, modern_able, reason};
use crate::world::{Serve, World, tasker, text, until};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

const CONFIG: &str = r#"
[listen]
http = "127.0.0.1:0"

[team.platform]
on_call = "platform on-call"

[agent.coder]
owner = "platform"
grants = [{ class = "read", tools = ["*"] }]

[agent.other]
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

[server.twin]
command = ["node", "${tasker}", "modern"]
environment = "dev"
read = ["*"]

[server.plain]
command = ["node", "${tasker}", "plain"]
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
    for server in ["older", "younger", "plain"] {
        for era in ["legacy", "modern"] {
            let rude = |tool: String| match (era, server) {
                // This one would be followed.
                ("modern", "younger") => {
                    modern(1, "tools/call", json!({ "name": tool, "arguments": {} }))
                }
                _ => call(era, &tool),
            };
            let one = post(&serve, (&format!("/{server}"), &key), era, &rude("rude".into()));
            let all = post(&serve, ("", &key), era, &rude(format!("{server}__rude")));
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
    let places = [("/older", ""), ("/plain", ""), ("", "plain__"), ("", "older__")];
    let legacy = [("/younger", ""), ("", "younger__")];
    for (era, places) in [("legacy", &places[..]), ("modern", &places), ("legacy", &legacy)] {
        for (below, prefix) in places {
            let ask = |message: &Value| post(&serve, (below, &key), era, message);
            let work = json!({ "name": format!("{prefix}work"), "arguments": {}, "task": {} });
            let refused = ask(&request(era, 2, "tools/call", work));
            assert_eq!(raw::row(&refused), "-32602 task_refused", "{refused}");
            for (at, method) in FOLLOWING.into_iter().enumerate() {
                let refused = ask(&request(era, 3, method, json!({ "taskId": "task-1" })));
                let expected = match (era, at) {
                    ("modern", 0..3) => "-32602 task_unknown",
                    _ => "-32601 task_refused",
                };
                assert_eq!(raw::row(&refused), expected, "{method}: {refused}");
            }
            let seen = said(&ask(&call(era, &format!("{prefix}seen"))));
            assert_eq!(offers(&seen), [false, false], "{era} {below} {prefix}: {seen}");
        }
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

/// An agent of 2026-07-28 that follows tasks.
struct Agent<'a> {
    serve: &'a Serve,
    below: &'a str,
    key: String,
}

// === impl Agent ===

impl Agent<'_> {
    fn ask(&self, method: &str, params: Value) -> Value {
        let able =
            json!({ "elicitation": {}, "extensions": { "io.modelcontextprotocol/tasks": {} } });
        let asked = modern_able(1, method, (params, able));
        raw::post_modern(self.serve, (self.below, &self.key), &asked).body
    }

    fn call(&self, tool: &str, arguments: Value) -> Value {
        self.ask("tools/call", json!({ "name": tool, "arguments": arguments }))
    }

    /// Calls `work`; gives the task's id.
    fn work(&self, tool: &str, arguments: Value) -> String {
        let given = self.call(tool, arguments);
        assert_eq!(given["result"]["resultType"], "task", "{given}");
        given["result"]["taskId"].as_str().unwrap_or_else(|| panic!("{given}")).to_owned()
    }

    fn get(&self, task: &str) -> Value {
        self.ask("tasks/get", json!({ "taskId": task }))
    }
}

fn status(answer: &Value) -> &str {
    answer["result"]["status"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

/// The outcome of a task's action, once it is there.
fn outcome(world: &World, task: &str) -> (String, String) {
    let action = task.split('.').next().unwrap();
    let of_action = |record: &Value| record["kind"] == "outcome" && record["action"] == action;
    let found = until("the task's outcome", || world.records().into_iter().find(of_action));
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    assert_eq!(world.records().iter().filter(|record| of_action(record)).count(), 1);
    (word(&found["status"]), word(&found["reason"]))
}

fn pair(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn a_task_is_followed_to_its_end_and_leaves_one_outcome() {
    let world = World::new(CONFIG);
    let key = world.key("coder");
    let serve = world.serve();
    let rows = [("completed", "succeeded"), ("error", "tool_error"), ("failed", "tool_error")];
    for (below, prefix) in [("/younger", ""), ("", "twin__")] {
        let agent = Agent { serve: &serve, below, key: key.clone() };
        let shown = agent.ask("server/discover", json!({}));
        let offered = &shown["result"]["capabilities"]["extensions"];
        assert_eq!(*offered, json!({ "io.modelcontextprotocol/tasks": {} }), "{shown}");
        for (at, (how, expected)) in rows.into_iter().enumerate() {
            let task = agent.work(&format!("{prefix}work"), json!({}));
            let (action, theirs) = task.split_once('.').unwrap();
            assert_eq!(theirs, format!("task-{}", at + 1));
            let kinds: Vec<_> = world
                .records()
                .into_iter()
                .filter(|record| record["action"] == action)
                .map(|record| record["kind"].clone())
                .collect();
            assert_eq!(
                kinds,
                ["decision", "task_given"],
                "the agent has heard of it, so it is durable"
            );
            let going = agent.get(&task);
            assert_eq!((status(&going), &going["result"]["taskId"]), ("working", &json!(task)));
            assert!(world.must(&["status"]).contains(action), "it still runs");
            agent.call(&format!("{prefix}finish"), json!({ "task": theirs, "how": how }));
            let done = agent.get(&task);
            assert_eq!(done["result"]["resultType"], "complete", "{done}");
            assert_eq!(status(&done), if how == "failed" { "failed" } else { "completed" });
            assert_eq!(outcome(&world, &task), pair(expected, "-"));
            assert_eq!(agent.get(&task), done, "it may be asked after again");
        }
    }
    assert!(!world.must(&["status"]).contains("younger__work"));
    serve.end();
    assert_eq!(outcomes(&world).len(), 12, "six tasks, and six calls that ended them");
    world.must(&["verify"]);
}

#[test]
fn a_task_asks_its_agent_on_record_once() {
    let world = World::new(&format!(
        "{CONFIG}\n[server.quiet]\ncommand = [\"node\", \"${{tasker}}\", \
        \"modern\"]\nenvironment = \"dev\"\nread = [\"*\"]\nelicitation = \"forbid\"\n"
    ));
    let key = world.key("coder");
    let serve = world.serve();
    let agent = Agent { serve: &serve, below: "/younger", key: key.clone() };
    let task = agent.work("work", json!({ "need": "input" }));
    for _ in 0..3 {
        let asks = agent.get(&task);
        assert_eq!(status(&asks), "input_required");
        assert_eq!(asks["result"]["inputRequests"]["user"]["method"], "elicitation/create");
    }
    let malformed = agent.ask("tasks/update", json!({ "taskId": task, "inputResponses": [] }));
    assert_eq!(reason(&malformed), "parameters_invalid");
    let replies = json!({ "user": { "action": "decline" } });
    let taken = agent.ask("tasks/update", json!({ "taskId": task, "inputResponses": replies }));
    assert_eq!(taken["result"]["resultType"], "complete", "{taken}");
    agent.call("finish", json!({ "task": "task-1" }));
    assert!(agent.get(&task).to_string().contains("decline"));
    assert_eq!(outcome(&world, &task), pair("succeeded", "-"));
    let quiet = Agent { serve: &serve, below: "/quiet", key };
    let silent = quiet.work("work", json!({ "need": "input" }));
    for _ in 0..3 {
        let refused = quiet.get(&silent);
        assert_eq!(reason(&refused), "question_forbidden", "{refused}");
    }
    serve.end();
    let of_kind = |kind: &str| -> Vec<Value> {
        world.records().into_iter().filter(|record| record["kind"] == kind).collect()
    };
    let asked = of_kind("asked");
    let rulings: Vec<_> = asked.iter().map(|asked| asked["ruling"].as_str().unwrap()).collect();
    assert_eq!(rulings, ["passed", "forbidden"]);
    assert_eq!(asked[0]["action"], task.split('.').next().unwrap());
    let replied = of_kind("replied");
    assert_eq!((replied.len(), &replied[0]["status"]), (1, &json!("declined")));
}

#[test]
fn a_task_is_its_agents_alone() {
    let world = World::new(CONFIG);
    let (key, other) = (world.key("coder"), world.key("other"));
    let serve = world.serve();
    let agent = |below, key: &str| Agent { serve: &serve, below, key: key.to_owned() };
    let all = agent("", &key);
    let (one, two) = (all.work("younger__work", json!({})), all.work("twin__work", json!({})));
    assert!(one.ends_with(".task-1") && two.ends_with(".task-1"), "the servers give the same ids");
    let third = all.work("younger__work", json!({}));
    let swapped = format!("{}.task-2", one.split('.').next().unwrap());
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        let row = |agent: &Agent<'_>, task: &str| {
            raw::row(&agent.ask(method, json!({ "taskId": task, "inputResponses": {} })))
        };
        let unknown = "-32602 task_unknown";
        assert_eq!(row(&agent("", &other), &one), unknown, "another agent's");
        assert_eq!(row(&agent("/twin", &key), &one), unknown, "another server's");
        for task in [&swapped, "", "task-1", ".task-1", &one[..36], &format!("{one}0")] {
            assert_eq!(row(&all, task), unknown, "{task}");
        }
        let params = json!({ "taskId": one, "inputResponses": {} });
        let undeclared = raw::post_modern(&serve, ("", &key), &modern(1, method, params)).body;
        assert_eq!(raw::row(&undeclared), "-32021 capability_missing");
        let wanted = &undeclared["error"]["data"]["requiredCapabilities"];
        assert!(wanted["extensions"]["io.modelcontextprotocol/tasks"].is_object(), "{undeclared}");
    }
    // Nobody reached a server with any of that.
    let seen = said(&all.call("younger__seen", json!({})));
    assert_eq!(seen["heard"], json!([]));
    // Each id leads to its own server.
    all.call("twin__finish", json!({ "task": "task-1" }));
    assert_eq!(status(&all.get(&one)), "working");
    assert_eq!(status(&all.get(&two)), "completed");
    let taken_back = all.ask("tasks/cancel", json!({ "taskId": third }));
    assert_eq!(taken_back["result"]["resultType"], "complete", "{taken_back}");
    assert_eq!(outcome(&world, &third), pair("in_doubt", "cancelled_by_agent"));
    assert_eq!(status(&all.get(&third)), "cancelled");
    assert_eq!(status(&all.get(&one)), "working");
}

#[test]
fn a_stop_cancels_tasks_and_nobody_follows_them_meanwhile() {
    let world = World::new(CONFIG);
    let (key, other) = (world.key("coder"), world.key("other"));
    let serve = world.serve();
    let agent = Agent { serve: &serve, below: "/younger", key };
    let task = agent.work("work", json!({}));
    let stopped = world.must(&["stop", "--agent", "coder", "--reason", "test"]);
    // The gateway may have seen the stop in the store, and obeyed, before it was told of it.
    let told = stopped.contains(task.split('.').next().unwrap());
    assert!(told || stopped.contains("no call was in flight"), "{stopped}");
    assert_eq!(outcome(&world, &task), pair("in_doubt", "cancelled_by_stop"));
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        let refused = agent.ask(method, json!({ "taskId": task, "inputResponses": {} }));
        assert_eq!(raw::row(&refused), "-32010 stopped", "{method}: {refused}");
    }
    let watcher = Agent { serve: &serve, below: "/younger", key: other };
    let heard = said(&watcher.call("seen", json!({})))["heard"].clone();
    assert_eq!(heard[0], "tasks/cancel", "{heard}");
    assert!(!heard.as_array().unwrap().contains(&json!("tasks/update")), "{heard}");
    world.must(&["release", "--agent", "coder", "--reason", "test"]);
    assert_eq!(status(&agent.get(&task)), "cancelled");
}

#[test]
fn a_task_that_ignores_its_cancellation_shows_as_running() {
    let world = World::new(&format!("{CONFIG}\n[limits]\nstop_grace_ms = 100\n"));
    let key = world.key("coder");
    let serve = world.serve();
    let agent = Agent { serve: &serve, below: "/younger", key };
    let task = agent.work("work", json!({ "need": "stubborn" }));
    let action = task.split('.').next().unwrap();
    let stopped = world.run(&["stop", "--agent", "coder", "--reason", "test"]);
    assert_eq!(stopped.status.code(), Some(1), "{stopped:?}");
    let said = text(&stopped.stdout);
    assert!(said.contains(action) && said.contains("still running"), "{said}");
    assert!(world.must(&["status"]).contains(action));
    // It is known how it ended once somebody asks.
    world.must(&["release", "--agent", "coder", "--reason", "test"]);
    agent.call("finish", json!({ "task": "task-1" }));
    assert_eq!(status(&agent.get(&task)), "completed");
    assert_eq!(outcome(&world, &task), pair("succeeded", "-"));
}

/// A server that outlives ours.
struct Lasting(Child, String);

impl Lasting {
    fn start() -> Self {
        let mut command = Command::new("node");
        command.arg(tasker()).arg("http").stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self(child, line.trim().to_owned())
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_task_outlives_the_process_that_gave_it() {
    let lasting = Lasting::start();
    let world = World::new(&format!(
        "{CONFIG}\n[server.lasting]\nurl = \"http://127.0.0.1:{}/mcp\"\nenvironment = \"dev\"\n\
         read = [\"*\"]\n",
        lasting.1
    ));
    let (key, other) = (world.key("coder"), world.key("other"));
    let serve = world.serve();
    let agent = Agent { serve: &serve, below: "/lasting", key: key.clone() };
    let (task, second) = (agent.work("work", json!({})), agent.work("work", json!({})));
    // While that process lives, no other one follows its tasks.
    let beside = world.serve();
    let twin = Agent { serve: &beside, below: "/lasting", key: key.clone() };
    assert_eq!(raw::row(&twin.get(&task)), "-32602 task_unknown");
    beside.end();
    serve.kill();
    let serve = world.serve();
    let action = task.split('.').next().unwrap();
    assert!(world.must(&["log", "--in-doubt"]).contains(action));
    let thief = Agent { serve: &serve, below: "/lasting", key: other };
    assert_eq!(raw::row(&thief.get(&task)), "-32602 task_unknown");
    let agent = Agent { serve: &serve, below: "/lasting", key };
    assert_eq!(status(&agent.get(&task)), "working");
    assert!(world.must(&["status"]).contains(action), "it is looked after again");
    let beside = world.serve();
    let twin = Agent { serve: &beside, below: "/lasting", key: agent.key.clone() };
    assert_eq!(raw::row(&twin.get(&task)), "-32602 task_unknown", "by one process alone");
    beside.end();
    agent.call("finish", json!({ "task": "task-1" }));
    assert_eq!(status(&agent.get(&task)), "completed");
    assert_eq!(outcome(&world, &task), pair("succeeded", "-"));
    // A stop reaches what was taken over, too.
    assert_eq!(status(&agent.get(&second)), "working");
    world.must(&["stop", "--agent", "coder", "--reason", "test"]);
    assert_eq!(outcome(&world, &second), pair("in_doubt", "cancelled_by_stop"));
    serve.end();
    assert!(!world.must(&["log", "--in-doubt"]).contains(action));
    world.must(&["verify"]);
}

#[test]
fn an_agent_has_so_many_tasks() {
    let world = World::new(CONFIG);
    let (key, other) = (world.key("coder"), world.key("other"));
    let serve = world.serve();
    let agent = Agent { serve: &serve, below: "/younger", key };
    let first = agent.work("work", json!({}));
    for _ in 1..64 {
        agent.work("work", json!({}));
    }
    // The server is told that no more can be followed; one that gives a task all the same is told
    // to cancel it.
    assert_eq!(agent.call("work", json!({}))["error"]["code"], -32021);
    assert_eq!(reason(&agent.call("rude", json!({}))), "task_refused");
    let second = Agent { serve: &serve, below: "/younger", key: other };
    second.work("work", json!({}));
    agent.call("finish", json!({ "task": "task-1" }));
    assert_eq!(status(&agent.get(&first)), "completed");
    until("room for one more", || {
        let given = agent.call("work", json!({}));
        (given["result"]["resultType"] == "task").then_some(())
    });
    // Who goes on is not waited for, and is in doubt afterwards.
    serve.end();
    assert_eq!(world.must(&["log", "--in-doubt"]).lines().count(), 65);
}

#[test]
fn a_task_that_does_not_end_in_its_time_is_in_doubt() {
    let world = World::new(CONFIG);
    let key = world.key("coder");
    let serve = world.serve();
    let agent = Agent { serve: &serve, below: "/younger", key };
    let task = agent.work("work", json!({ "need": "short" }));
    assert_eq!(outcome(&world, &task), pair("in_doubt", "task_lost"));
}

#[test]
fn a_task_with_an_endless_name_is_in_doubt() {
    let world = World::new(CONFIG);
    let key = world.key("coder");
    let serve = world.serve();
    let agent = Agent { serve: &serve, below: "/younger", key };
    let refused = agent.call("work", json!({ "need": "long" }));
    assert_eq!(reason(&refused), "upstream_invalid", "{refused}");
    serve.end();
    assert_eq!(outcomes(&world), [(json!("in_doubt"), json!("upstream_invalid"))]);
}

#[test]
fn a_task_that_asks_without_end_is_not_heard() {
    let world = World::new(CONFIG);
    let key = world.key("coder");
    let serve = world.serve();
    let agent = Agent { serve: &serve, below: "/younger", key };
    let task = agent.work("work", json!({ "need": "curious" }));
    for _ in 0..4 {
        assert_eq!(status(&agent.get(&task)), "input_required");
    }
    assert_eq!(reason(&agent.get(&task)), "overloaded");
}

#[test]
fn who_feeds_a_task_needs_what_its_call_needed() {
    let issuer = Issuer::start();
    let tasker = "[server.younger]\ncommand = [\"node\", \"${tasker}\", \"modern\"]\n\
                  environment = \"dev\"\nwrite = [\"*\"]\n";
    let world = World::new(&format!("{}\n{tasker}", config(&issuer.url, "")));
    let serve = world.serve();
    let resource = format!("{}/younger", serve.url);
    let agent = |scope| {
        let key = issuer.issue("coder-client", &resource, scope);
        Agent { serve: &serve, below: "/younger", key }
    };
    let (write, read) = (agent("mcp:write"), agent("mcp:read"));
    let task = write.work("work", json!({ "need": "input" }));
    assert_eq!(status(&read.get(&task)), "input_required");
    let replies = json!({ "taskId": task, "inputResponses": { "user": { "action": "accept" } } });
    assert_eq!(reason(&read.ask("tasks/update", replies.clone())), "scope_insufficient");
    assert_eq!(status(&read.get(&task)), "input_required");
    assert_eq!(write.ask("tasks/update", replies)["result"]["resultType"], "complete");
    assert_eq!(status(&read.get(&task)), "working");
}
