//! Stops with teeth: acknowledged, binding, across processes and restarts.

use crate::client::{self, Opens, call, failed, reasons, text};
use crate::raw::{Pipe, reason};
use crate::world::{PEER, World, command_line, npm_server};
use serde_json::{Value, json};
use std::time::Duration;

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

[server.everything]
command = ["node", "${npm:everything}"]
environment = "dev"
read = ["echo", "trigger-long-running-operation"]
"#;

const SLOW: &str = "trigger-long-running-operation";

fn long() -> Value {
    json!({ "duration": 600, "steps": 600 })
}

/// Waits until a call is in flight somewhere.
async fn until_running(world: &World) {
    for _ in 0..600 {
        let status = world.json(&["status"]);
        let running = status["gateways"].as_array().into_iter().flatten();
        if running.flat_map(|gateway| gateway["running"].as_array().cloned()).flatten().count() > 0
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no call got in flight: {}", world.must(&["status"]));
}

/// The processes of this world's servers that are alive, but for the wraps.
fn servers_alive(world: &World) -> usize {
    let program = npm_server("everything").display().to_string();
    let all = world.processes(&program).into_iter();
    all.filter(|pid| !command_line(*pid).contains(" wrap ")).count()
}

#[tokio::test]
async fn a_stop_ends_a_slow_call_kills_the_child_and_survives_a_restart() {
    let world = World::new(CONFIG);
    let key = world.key("coder");
    let serve = world.serve();
    let client = client::http(&serve, "/everything", &key, Opens::Legacy).await;
    assert!(!failed(&call(&client, "echo", json!({ "message": "hi" })).await));
    assert_eq!(servers_alive(&world), 1);

    let peer = client.peer().clone();
    let slow = tokio::spawn(async move {
        let params = rmcp::model::CallToolRequestParams::new(SLOW);
        let Value::Object(arguments) = long() else { unreachable!() };
        peer.call_tool(params.with_arguments(arguments)).await
    });
    until_running(&world).await;
    let stopped = world.json(&["stop", "--agent", "coder", "--reason", "test"]);
    let in_flight = &stopped["gateways"][0]["in_flight"];
    assert_eq!(in_flight.as_array().unwrap().len(), 1, "{stopped}");
    assert!(in_flight[0]["became"].as_str().unwrap().starts_with("in_doubt"), "{stopped}");
    assert_eq!(servers_alive(&world), 0, "the child that did not obey is gone");
    let slow = slow.await.unwrap().unwrap();
    assert!(text(&slow).contains("cancelled_by_stop"), "{}", text(&slow));

    let refused = call(&client, "echo", json!({ "message": "hi" })).await;
    assert_eq!(reasons(&refused).first().map(String::as_str), Some("stopped"));
    client.cancel().await.unwrap();
    serve.kill();

    let serve = world.serve();
    let client = client::http(&serve, "/everything", &key, Opens::Modern).await;
    let refused = call(&client, "echo", json!({ "message": "hi" })).await;
    assert_eq!(reasons(&refused).first().map(String::as_str), Some("stopped"));
    world.must(&["release", "--agent", "coder", "--reason", "test over"]);
    assert!(!failed(&call(&client, "echo", json!({ "message": "hi" })).await));
    client.cancel().await.unwrap();
    serve.end();

    let records = world.records();
    let released = records.iter().find(|record| record["kind"] == "released").unwrap();
    assert_eq!(released["reason"], "test over");
    assert!(!released["by"].as_str().unwrap().is_empty());
    world.must(&["verify"]);
}

#[tokio::test]
async fn a_stop_binds_every_wrap_on_the_store_without_a_server() {
    let world = World::new(CONFIG);
    let program = npm_server("everything");
    let command = ["node", program.to_str().unwrap()];
    let one = client::wrap(&world, "everything", &command, Opens::Legacy).await;
    let two = client::wrap(&world, "everything", &command, Opens::Legacy).await;
    for client in [&one, &two] {
        assert!(!failed(&call(client, "echo", json!({ "message": "hi" })).await));
    }
    let peer = one.peer().clone();
    let slow = tokio::spawn(async move {
        let params = rmcp::model::CallToolRequestParams::new(SLOW);
        let Value::Object(arguments) = long() else { unreachable!() };
        peer.call_tool(params.with_arguments(arguments)).await
    });
    until_running(&world).await;
    let before = servers_alive(&world);
    let stopped = world.json(&["stop", "--all", "--reason", "test"]);
    assert_eq!(stopped["gateways"].as_array().unwrap().len(), 2, "{stopped}");
    assert_eq!(stopped["unreachable"].as_array().unwrap().len(), 0, "{stopped}");
    assert_eq!(servers_alive(&world), before - 1, "the child with the slow call is gone");
    assert!(text(&slow.await.unwrap().unwrap()).contains("cancelled_by_stop"));
    for client in [&one, &two] {
        let refused = call(client, "echo", json!({ "message": "hi" })).await;
        assert_eq!(reasons(&refused).first().map(String::as_str), Some("stopped"));
    }
    world.must(&["release", "--all", "--reason", "over"]);
    assert!(!failed(&call(&two, "echo", json!({ "message": "hi" })).await));
    one.cancel().await.unwrap();
    two.cancel().await.unwrap();
    world.must(&["verify"]);
}

#[test]
fn a_stop_also_ends_a_call_that_the_agent_took_back() {
    let world = World::new(PEER);
    let mut pipe = Pipe::wrap(&world);
    pipe.begin(7, "hang", json!({}));
    pipe.tell(&json!({
        "jsonrpc": "2.0",
        "method": "notifications/cancelled",
        "params": { "requestId": 7 },
    }));
    assert_eq!(reason(&pipe.answer(7)), "cancelled_by_agent");
    let stopped = world.json(&["stop", "--all", "--reason", "test"]);
    let in_flight = stopped["gateways"][0]["in_flight"].as_array().unwrap();
    assert_eq!(in_flight.len(), 1, "{stopped}");
    let became = in_flight[0]["became"].as_str().unwrap();
    assert!(became.contains("its server was killed"), "{became}");
    assert_eq!(reason(&pipe.call(8, "echo", json!({ "text": "hi" }))), "stopped");
}

#[test]
fn a_stop_needs_no_faultless_configuration() {
    let world = World::new(PEER);
    world.serve().end();
    let config = world.path().join("holdpoint.toml");
    let good = std::fs::read_to_string(&config).unwrap();
    let named = format!("[store]\npath = \".holdpoint\"\n{good}");
    let wrong = "[agent.x]\nowner = \"nobody\"\n";
    for (text, fault) in [(&good, wrong), (&named, wrong), (&named, "[limits\n")] {
        std::fs::write(&config, format!("{text}\n{fault}")).unwrap();
        assert_eq!(world.run(&["check"]).status.code(), Some(2), "{fault}");
        world.must(&["stop", "--all", "--reason", "panic"]);
        assert!(world.must(&["status"]).contains("panic"), "{fault}");
        world.must(&["release", "--all", "--reason", "over"]);
    }
    // What may name another store stops nothing.
    std::fs::write(&config, format!("{good}\n[limits\n")).unwrap();
    let stopped = world.run(&["stop", "--all", "--reason", "panic"]);
    assert_eq!(stopped.status.code(), Some(2));
    assert!(crate::world::text(&stopped.stderr).contains("--store DIR"));
}
