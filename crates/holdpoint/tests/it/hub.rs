//! Clients of all servers at one place: a legacy thread with everything in it, and one stream of
//! changes for modern clients.

use crate::raw::{modern_able, reason};
use crate::threads::Thread;
use crate::world::World;
use reqwest::StatusCode;
use serde_json::{Value, json};

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
command = ["node", "${asker}", "legacy"]
environment = "dev"
read = ["*"]

[server.twin]
command = ["node", "${asker}", "legacy"]
environment = "dev"
read = ["*"]

[server.younger]
command = ["node", "${asker}", "modern"]
environment = "dev"
read = ["*"]

[server.everything]
command = ["node", "${npm:everything}"]
environment = "dev"
read = ["*"]
"#;

#[tokio::test]
async fn a_thread_over_all_servers_has_everything_in_it() {
    let world = World::new(CONFIG);
    let (key, other) = (world.key("coder"), world.key("other"));
    let serve = world.serve();
    let (mut thread, opened) = Thread::open_at(&serve, "", &key).await;
    assert_eq!(opened["result"]["serverInfo"]["name"], "holdpoint", "{opened}");
    let (listed, _) = thread.ask("tools/list", json!({})).await;
    assert!(listed.to_string().contains("older__chain"), "{listed}");
    assert!(listed.to_string().contains("younger__chain"), "{listed}");
    // Servers of both eras ask, and are answered.
    for server in ["older", "younger"] {
        let (answer, before) = thread.call(&format!("{server}__chain"), json!({})).await;
        let asked: Vec<_> = before.iter().filter(|message| message.get("id").is_some()).collect();
        assert_eq!(asked.len(), 3, "{before:?}");
        assert!(answer.to_string().contains("sampled words"), "{answer}");
        assert!(answer.to_string().contains("file:///srv"), "{answer}");
    }
    // Progress under the client's own token; levels of logs for lines that are open.
    let (answer, before) = thread.call("older__confirm", json!({})).await;
    assert!(answer.to_string().contains("decline"), "{answer}");
    let progress = before.iter().find(|note| note["method"] == "notifications/progress").unwrap();
    assert_eq!(progress["params"]["progressToken"], "tok");
    let (answer, _) = thread.ask("logging/setLevel", json!({ "level": "debug" })).await;
    assert_eq!(answer["result"], json!({}));
    let told = thread.own_stream_until("level set").await;
    assert!(told.contains("debug"), "{told}");
    // Resources are followed where they are, and completion finds its server.
    let uri = json!({ "uri": "demo://resource/dynamic/text/1" });
    let (answer, _) = thread.ask("resources/subscribe", uri.clone()).await;
    assert_eq!(answer["result"], json!({}), "{answer}");
    let (answer, _) = thread.ask("resources/unsubscribe", uri.clone()).await;
    assert_eq!(answer["result"], json!({}), "{answer}");
    let (answer, _) = thread.ask("resources/read", uri).await;
    assert!(answer["result"]["contents"][0]["text"].is_string(), "{answer}");
    let (answer, _) =
        thread.ask("prompts/get", json!({ "name": "everything__simple-prompt" })).await;
    assert!(answer["result"]["messages"].is_array(), "{answer}");
    let (answer, _) = thread.call("nowhere__x", json!({})).await;
    assert_eq!(reason(&answer), "tool_unknown", "{answer}");
    // It is its agent's alone, and its lines go with it.
    let mut thief = Thread::new(&serve, "", &other);
    thief.id.clone_from(&thread.id);
    let ping = thread.request(7, "ping", json!({}));
    assert_eq!(thief.post(&ping).await.status(), StatusCode::NOT_FOUND);
    let lines = world.processes("asker.mjs").len();
    assert_eq!(thread.delete().await.status(), StatusCode::NO_CONTENT);
    assert_eq!(thread.post(&ping).await.status(), StatusCode::NOT_FOUND);
    crate::world::until("the lines of the thread are gone", || {
        (world.processes("asker.mjs").len() + 2 <= lines).then_some(())
    });
    serve.end();
    world.must(&["verify"]);
}

#[tokio::test]
async fn two_servers_that_ask_under_one_id_get_their_own_answers() {
    let world = World::new(CONFIG);
    let key = world.key("coder");
    let serve = world.serve();
    let (thread, _) = Thread::open_at(&serve, "", &key).await;
    let call = |id: i64, tool: &str| {
        thread.request(id, "tools/call", json!({ "name": tool, "arguments": {} }))
    };
    let mut first = thread.post(&call(1, "older__confirm")).await;
    let asked_first = next_event(&mut first).await;
    let mut second = thread.post(&call(2, "twin__confirm")).await;
    let asked_second = next_event(&mut second).await;
    assert_ne!(asked_first["id"], asked_second["id"]);
    for (asked, word) in [(&asked_second, "second"), (&asked_first, "first")] {
        let result = json!({ "action": "accept", "content": { "word": word } });
        let reply = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result });
        assert_eq!(thread.post(&reply).await.status(), StatusCode::ACCEPTED);
    }
    assert!(next_event(&mut first).await.to_string().contains("first"));
    assert!(next_event(&mut second).await.to_string().contains("second"));
    serve.end();
}

#[tokio::test]
async fn a_call_is_taken_back_and_what_was_missed_comes_again() {
    let world = World::new(CONFIG);
    let key = world.key("coder");
    let serve = world.serve();
    let (mut thread, _) = Thread::open_at(&serve, "", &key).await;
    let call = json!({ "name": "older__confirm", "arguments": {} });
    let mut answer = thread.post(&thread.request(50, "tools/call", call)).await;
    let (asked, place) = next_event_at(&mut answer).await;
    drop(answer);
    // The client comes back to where it was.
    let result = json!({ "action": "accept", "content": {} });
    let reply = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result });
    assert_eq!(thread.post(&reply).await.status(), StatusCode::ACCEPTED);
    let mut resumed = thread.get(Some(&place)).await;
    assert!(next_event(&mut resumed).await.to_string().contains("accept"));
    let call = json!({ "name": "older__confirm", "arguments": {} });
    let mut answer = thread.post(&thread.request(51, "tools/call", call)).await;
    next_event(&mut answer).await;
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled",
        "params": { "requestId": 51 } });
    thread.post(&cancel).await;
    let ended = next_event(&mut answer).await;
    assert_eq!(reason(&ended), "cancelled_by_agent", "{ended}");
    let (runs, _) = thread.call("older__runs", json!({})).await;
    assert!(runs.to_string().contains(r#"[51]"#), "{runs}");
    serve.end();
}

#[tokio::test]
async fn what_changes_anywhere_is_told_in_the_thread() {
    let world = World::new(CONFIG);
    let key = world.key("coder");
    let serve = world.serve();
    let (thread, _) = Thread::open_at(&serve, "", &key).await;
    // Somebody else's call makes the server change; this thread has no line to it.
    let mut other = Thread::new(&serve, "", &key);
    let (answer, _) = other.call("older__change", json!({})).await;
    assert!(answer.get("result").is_some(), "{answer}");
    let told = thread.own_stream_until("list_changed").await;
    assert!(told.contains("notifications/tools/list_changed"), "{told}");
    serve.end();
}

#[tokio::test]
async fn a_modern_client_follows_all_servers_in_one_stream() {
    let world = World::new(CONFIG);
    let key = world.key("coder");
    let serve = world.serve();
    let mut client = Thread::new(&serve, "", &key);
    client.headers =
        vec![("mcp-protocol-version", "2026-07-28"), ("mcp-method", "subscriptions/listen")];
    let filter = json!({ "toolsListChanged": true,
        "resourceSubscriptions": ["demo://resource/dynamic/text/1"] });
    let listen =
        modern_able(9, "subscriptions/listen", (json!({ "notifications": filter }), json!({})));
    let mut stream = client.post(&listen).await;
    let first = next_event(&mut stream).await;
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged", "{first}");
    assert_eq!(first["params"]["notifications"], filter, "{first}");
    let subscription = &first["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"];
    assert_eq!(subscription, 9);
    let next = next_event(&mut stream).await;
    assert_eq!(next["method"], "notifications/tools/list_changed", "{next}");
    assert_eq!(next["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 9);
    drop(stream);
    serve.end();
}

async fn next_event(stream: &mut reqwest::Response) -> Value {
    next_event_at(stream).await.0
}

/// The next message of a stream, and its id. The server sends each as a piece of its own.
async fn next_event_at(stream: &mut reqwest::Response) -> (Value, String) {
    let mut text = String::new();
    loop {
        let chunk = stream.chunk().await.unwrap().expect("the stream ended");
        text.push_str(std::str::from_utf8(&chunk).unwrap());
        for event in text.split_inclusive("\n\n").filter(|event| event.ends_with("\n\n")) {
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
            let Some(data) = field("data: ") else { continue };
            let place = field("id: ").unwrap_or_default().to_owned();
            return (serde_json::from_str(data).unwrap(), place);
        }
    }
}
