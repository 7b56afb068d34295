//! Real servers from npm behind `wrap` and `serve`, driven by a real client.

use crate::client::{self, Opens, call, failed, reasons, text, tools};
use crate::world::{World, npm_server};
use serde_json::json;

const CONFIG: &str = r#"
[listen]
http = "127.0.0.1:0"

[team.platform]
on_call = "platform on-call"

[agent.coder]
owner = "platform"
grants = [
  { class = "read", tools = ["*"] },
  { class = "write", tools = ["memory__*"] },
  # It overwrites, says its own annotation, so the operator's milder word does not count.
  { class = "destructive", tools = ["fs__write_file"] },
]

[server.fs]
command = ["node", "${npm:filesystem}", "${files}"]
environment = "dev"
read = ["read_*", "list_*", "get_*", "search_*", "directory_tree"]
write = ["write_file", "edit_file", "create_directory"]
destructive = ["move_file"]
tool.write_file.resource = "file://{/path}"

[server.memory]
command = ["node", "${npm:memory}"]
env = { MEMORY_FILE_PATH = "${files}/memory.jsonl" }
environment = "dev"
read = ["read_*", "search_*", "open_*"]
write = ["create_*", "add_*"]
destructive = ["delete_*"]

[server.everything]
command = ["node", "${npm:everything}"]
environment = "dev"
read = ["echo", "get-sum", "trigger-long-running-operation"]

[[surface]]
name = "secrets"
resources = ["file://${files}/secrets/**"]
"#;

#[tokio::test]
async fn wrap_governs_the_filesystem_server() {
    let world = World::new(CONFIG);
    let (program, files) = (npm_server("filesystem"), world.files());
    let program = program.to_str().unwrap();
    let command = ["node", program, files.to_str().unwrap()];
    let client = client::wrap(&world, "fs", &command, Opens::Legacy).await;
    let names = tools(&client).await;
    assert!(names.contains(&"read_text_file".to_owned()), "{names:?}");
    assert!(names.contains(&"write_file".to_owned()), "{names:?}");
    // Not granted: not shown.
    assert!(!names.contains(&"edit_file".to_owned()), "{names:?}");
    assert!(!names.contains(&"move_file".to_owned()), "{names:?}");

    let path = files.join("a.txt");
    let written = json!({ "path": path, "content": "hello" });
    let result = call(&client, "write_file", written).await;
    assert!(!failed(&result), "{}", text(&result));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "hello");
    let result = call(&client, "read_text_file", json!({ "path": path })).await;
    assert_eq!(text(&result), "hello");

    let moved = json!({ "source": path, "destination": files.join("b.txt") });
    let result = call(&client, "move_file", moved).await;
    assert_eq!(reasons(&result), ["no_policy_permits", "destructive_not_granted"]);
    assert!(path.exists());
    let secret = files.join("secrets/key");
    let result = call(&client, "write_file", json!({ "path": secret, "content": "x" })).await;
    assert_eq!(reasons(&result).first().map(String::as_str), Some("policy_holds"));
    let result = call(&client, "write_file", json!({ "path": 7 })).await;
    assert!(text(&result).contains("at `/path`"), "{}", text(&result));
    client.cancel().await.unwrap();

    world.must(&["verify"]);
    let decisions: Vec<_> = world.records().into_iter().collect();
    let of = |kind: &str| decisions.iter().filter(|record| record["kind"] == kind).count();
    assert_eq!((of("decision"), of("outcome")), (5, 2));
    world.must(&["why", "last"]);
}

#[tokio::test]
async fn an_imported_filesystem_server_has_its_reading_tools_as_read() {
    let world = World::new("");
    std::fs::remove_file(world.path().join("holdpoint.toml")).unwrap();
    let (program, files) = (npm_server("filesystem"), world.files());
    let command = json!({ "command": "node", "args": [program, files] });
    let clients = world.path().join("mcp.json");
    std::fs::write(&clients, json!({ "mcpServers": { "fs": command } }).to_string()).unwrap();
    let dir = world.path().to_str().unwrap();
    world.must(&["init", "--from", clients.to_str().unwrap(), "--dir", dir]);
    let command = ["node", program.to_str().unwrap(), files.to_str().unwrap()];
    let client = client::wrap(&world, "fs", &command, Opens::Legacy).await;
    assert!(tools(&client).await.contains(&"directory_tree".to_owned()));
    let tree = call(&client, "directory_tree", json!({ "path": files })).await;
    assert!(!failed(&tree), "{}", text(&tree));
    client.cancel().await.unwrap();
    let listed = world.json(&["tools"]);
    let mut reading = 0;
    for tool in listed.as_array().unwrap() {
        let name = tool["tool"].as_str().unwrap();
        let shown = world.json(&["tools", "show", name]);
        if shown["pinned_definition"]["annotations"]["readOnlyHint"] == true {
            assert_eq!(tool["class"], "read", "{name}");
            reading += 1;
        }
    }
    assert!(reading >= 8, "{listed}");
}

#[tokio::test]
async fn wrap_governs_the_memory_server() {
    let world = World::new(CONFIG);
    let program = npm_server("memory");
    let file = format!("MEMORY_FILE_PATH={}/memory.jsonl", world.files().display());
    let command = ["env", &file, "node", program.to_str().unwrap()];
    let client = client::wrap(&world, "memory", &command, Opens::Legacy).await;
    assert!(!tools(&client).await.contains(&"delete_entities".to_owned()));
    let entity = json!({ "name": "n", "entityType": "t", "observations": ["o"] });
    let result = call(&client, "create_entities", json!({ "entities": [entity] })).await;
    assert!(!failed(&result), "{}", text(&result));
    assert!(text(&call(&client, "read_graph", json!({})).await).contains("\"n\""));
    let result = call(&client, "delete_entities", json!({ "entityNames": ["n"] })).await;
    assert!(reasons(&result).contains(&"destructive_not_granted".to_owned()));
    assert!(text(&call(&client, "read_graph", json!({})).await).contains("\"n\""));
    client.cancel().await.unwrap();
    world.must(&["verify"]);
}

#[tokio::test]
async fn serve_governs_three_servers_in_both_eras() {
    let world = World::new(CONFIG);
    let key = world.key("coder");
    let serve = world.serve();
    for opens in Opens::ALL {
        let client = client::http(&serve, "", &key, opens).await;
        let names = tools(&client).await;
        for name in ["fs__read_text_file", "memory__create_entities", "everything__echo"] {
            assert!(names.contains(&name.to_owned()), "{opens:?} {name}: {names:?}");
        }
        assert!(!names.contains(&"memory__delete_entities".to_owned()), "{names:?}");
        let path = world.files().join(format!("{opens:?}.txt"));
        let written = json!({ "path": path, "content": "hello" });
        let result = call(&client, "fs__write_file", written).await;
        assert!(!failed(&result), "{}", text(&result));
        let result = call(&client, "fs__read_text_file", json!({ "path": path })).await;
        assert_eq!(text(&result), "hello");
        let result = call(&client, "everything__echo", json!({ "message": "hi" })).await;
        assert_eq!(text(&result), "Echo: hi");
        let entity = json!({ "name": "n", "entityType": "t", "observations": ["o"] });
        let entities = json!({ "entities": [entity] });
        let result = call(&client, "memory__create_entities", entities).await;
        assert!(!failed(&result), "{}", text(&result));
        let result =
            call(&client, "memory__delete_entities", json!({ "entityNames": ["n"] })).await;
        assert!(reasons(&result).contains(&"destructive_not_granted".to_owned()));
        client.cancel().await.unwrap();

        let one = client::http(&serve, "/memory", &key, opens).await;
        assert!(tools(&one).await.contains(&"create_entities".to_owned()));
        let result = call(&one, "read_graph", json!({})).await;
        assert!(text(&result).contains("\"n\""), "{}", text(&result));
        one.cancel().await.unwrap();
    }
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[tokio::test]
async fn a_wrap_lets_a_running_serve_govern() {
    let world = World::new(CONFIG);
    let serve = world.serve();
    let program = npm_server("everything");
    let command = ["node", program.to_str().unwrap()];
    let client = client::wrap(&world, "everything", &command, Opens::Legacy).await;
    let result = call(&client, "echo", json!({ "message": "hi" })).await;
    assert_eq!(text(&result), "Echo: hi");
    client.cancel().await.unwrap();
    let gateways: std::collections::BTreeSet<_> = world
        .records()
        .iter()
        .map(|record| record["gateway"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(gateways.len(), 1, "only the serve wrote records");
    serve.end();
}
