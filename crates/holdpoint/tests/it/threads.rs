//! Legacy clients over HTTP with a thread of their own, against the server that offers everything:
//! resources, prompts, completion, progress, sampling, elicitation, roots, logging.

use crate::world::{Serve, World, npm_server};
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};

const CONFIG: &str = r#"
[listen]
http = "127.0.0.1:0"

[team.platform]
on_call = "platform on-call"

[agent.coder]
owner = "platform"
grants = [{ class = "read", tools = ["*"] }, { class = "write", tools = ["*"] }]

[agent.blind]
owner = "platform"
grants = [{ class = "read", tools = ["everything__echo", "everything__prompts/*"] }]

[server.everything]
command = ["node", "${npm:everything}"]
environment = "dev"
read = ["*"]

[server.quiet]
command = ["node", "${npm:everything}"]
environment = "dev"
read = ["*"]
sampling = "forbid"

[[surface]]
name = "secrets"
resources = ["demo://resource/static/document/features.md"]
"#;

/// One client.
pub struct Thread {
    client: Client,
    url: String,
    key: String,
    /// The id of the thread, once there is one.
    pub id: Option<String>,
    /// Headers of every request besides the usual ones.
    pub headers: Vec<(&'static str, &'static str)>,
    last: i64,
}

// === impl Thread ===

impl Thread {
    pub fn new(serve: &Serve, server: &str, key: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().no_proxy().build().unwrap();
        let url = format!("{}{server}", serve.url);
        Self { client, url, key: key.to_owned(), id: None, headers: Vec::new(), last: 0 }
    }

    async fn open(serve: &Serve, server: &str, key: &str) -> Self {
        let (thread, opened) = Self::open_at(serve, server, key).await;
        assert_eq!(opened["result"]["serverInfo"]["title"], "Everything Reference Server");
        thread
    }

    /// A thread, and the answer to its opening.
    pub async fn open_at(serve: &Serve, server: &str, key: &str) -> (Self, Value) {
        let mut thread = Self::new(serve, server, key);
        let capabilities = json!({ "sampling": {}, "elicitation": {}, "roots": {} });
        let opening = json!({ "protocolVersion": "2025-11-25", "capabilities": capabilities,
            "clientInfo": { "name": "test", "version": "1" } });
        let answer = thread.post(&thread.request(0, "initialize", opening)).await;
        let id = answer.headers().get("mcp-session-id").expect("a thread");
        thread.id = Some(id.to_str().unwrap().to_owned());
        let opened: Value = answer.json().await.unwrap();
        let told = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        assert_eq!(thread.post(&told).await.status(), StatusCode::ACCEPTED);
        (thread, opened)
    }

    /// Opens the thread's own stream, or comes back to where one was.
    pub async fn get(&self, place: Option<&str>) -> Response {
        let mut get = self.client.get(&self.url).bearer_auth(&self.key);
        get = get.header("accept", "text/event-stream");
        get = get.header("mcp-session-id", self.id.as_deref().unwrap());
        if let Some(place) = place {
            get = get.header("last-event-id", place);
        }
        let stream = get.send().await.unwrap();
        assert_eq!(stream.status(), StatusCode::OK);
        stream
    }

    /// What the thread's own stream brings until it has brought this text.
    pub async fn own_stream_until(&self, wanted: &str) -> String {
        let mut stream = self.get(None).await;
        let mut all = String::new();
        while !all.contains(wanted) {
            let chunk = stream.chunk().await.unwrap().expect("the stream ended");
            all.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        all
    }

    /// Ends the thread.
    pub async fn delete(&self) -> Response {
        let delete = self.client.delete(&self.url).bearer_auth(&self.key);
        delete.header("mcp-session-id", self.id.as_deref().unwrap()).send().await.unwrap()
    }

    /// A request.
    pub fn request(&self, id: i64, method: &str, params: Value) -> Value {
        json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
    }

    /// Sends a message.
    pub async fn post(&self, body: &Value) -> Response {
        let mut post = self.client.post(&self.url).bearer_auth(&self.key).json(body);
        post = post.header("accept", "application/json, text/event-stream");
        for (name, value) in &self.headers {
            post = post.header(*name, *value);
        }
        if let Some(id) = &self.id {
            post = post.header("mcp-session-id", id);
        }
        post.send().await.unwrap()
    }

    /// Asks, and answers what the server asks meanwhile; gives the answer and all that came before.
    pub async fn ask(&mut self, method: &str, params: Value) -> (Value, Vec<Value>) {
        self.last += 1;
        let mut answer = self.post(&self.request(self.last, method, params)).await;
        assert_eq!(answer.status(), StatusCode::OK);
        if answer.headers()["content-type"] == "application/json" {
            return (answer.json().await.unwrap(), Vec::new());
        }
        let (mut text, mut before) = (String::new(), Vec::new());
        while let Some(chunk) = answer.chunk().await.unwrap() {
            text.push_str(std::str::from_utf8(&chunk).unwrap());
            while let Some((event, rest)) = text.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data: "));
                let message: Option<Value> = data.map(|data| serde_json::from_str(data).unwrap());
                text = rest.to_owned();
                let Some(message) = message else { continue };
                if message["id"] == self.last && message.get("method").is_none() {
                    return (message, before);
                }
                self.reply(&message).await;
                before.push(message);
            }
        }
        panic!("the stream ended without the answer: {before:?}");
    }

    async fn reply(&self, message: &Value) {
        let result = match message["method"].as_str().unwrap() {
            "sampling/createMessage" => json!({ "role": "assistant", "model": "m",
                "content": { "type": "text", "text": "sampled words" } }),
            "elicitation/create" => json!({ "action": "decline" }),
            "roots/list" => json!({ "roots": [{ "uri": "file:///srv", "name": "srv" }] }),
            _ => return,
        };
        let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
        assert_eq!(self.post(&answer).await.status(), StatusCode::ACCEPTED);
    }

    /// Calls a tool.
    pub async fn call(&mut self, tool: &str, arguments: Value) -> (Value, Vec<Value>) {
        let meta = json!({ "progressToken": "tok" });
        let params = json!({ "name": tool, "arguments": arguments, "_meta": meta });
        self.ask("tools/call", params).await
    }
}

/// A server behind a URL; killed when dropped.
pub struct Remote {
    child: std::process::Child,
    /// Where it is.
    pub url: String,
}

// === impl Remote ===

impl Remote {
    fn start() -> Self {
        Self::of(|port| {
            let mut command = std::process::Command::new("node");
            command.arg(npm_server("everything")).arg("streamableHttp");
            command.env("PORT", port.to_string());
            command
        })
    }

    /// The server that the command starts on a port.
    pub fn of(command: impl FnOnce(u16) -> std::process::Command) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = command(port);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let child = command.spawn().unwrap();
        crate::world::until("the remote server listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Self { child, url: format!("http://127.0.0.1:{port}/mcp") }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The methods of messages.
fn methods(messages: &[Value]) -> Vec<&str> {
    messages.iter().filter_map(|message| message["method"].as_str()).collect()
}

#[tokio::test]
async fn everything_passes_through_a_thread_of_its_own() {
    let world = World::new(CONFIG);
    let key = world.key("coder");
    let serve = world.serve();
    let mut thread = Thread::open(&serve, "/everything", &key).await;
    let long = json!({ "duration": 0.2, "steps": 2 });
    let (answer, before) = thread.call("trigger-long-running-operation", long).await;
    assert!(answer.to_string().contains("completed"), "{answer}");
    let progress: Vec<_> =
        before.iter().filter(|note| note["method"] == "notifications/progress").collect();
    assert_eq!(progress.len(), 2, "{before:?}");
    assert_eq!(progress[0]["params"]["progressToken"], "tok");
    let ask = json!({ "prompt": "say", "maxTokens": 10 });
    let (answer, before) = thread.call("trigger-sampling-request", ask).await;
    assert!(methods(&before).contains(&"sampling/createMessage"), "{before:?}");
    assert!(answer.to_string().contains("sampled words"), "{answer}");
    let (answer, before) = thread.call("trigger-elicitation-request", json!({})).await;
    assert!(methods(&before).contains(&"elicitation/create"), "{before:?}");
    assert!(answer.to_string().contains("declined"), "{answer}");
    let (answer, _) = thread.call("get-roots-list", json!({})).await;
    assert!(answer.to_string().contains("file:///srv"), "{answer}");

    let uri = json!({ "uri": "demo://resource/static/document/features.md" });
    let (answer, _) = thread.ask("resources/read", uri).await;
    assert!(answer["result"]["contents"][0]["text"].is_string(), "{answer}");
    let (answer, _) = thread.ask("prompts/get", json!({ "name": "simple-prompt" })).await;
    assert!(answer["result"]["messages"].is_array(), "{answer}");
    let reads: Vec<_> = world
        .records()
        .iter()
        .filter(|record| record["kind"] == "decision")
        .map(|record| record["facts"]["target"]["resource"].to_string())
        .collect();
    let text = format!("{reads:?}");
    assert!(text.contains("demo://resource/static/document/features.md"), "{text}");
    assert!(text.contains("prompt://everything/simple-prompt"), "{text}");
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[tokio::test]
async fn a_thread_is_its_agents_alone_and_ends_with_delete() {
    let world = World::new(CONFIG);
    let (key, other) = (world.key("coder"), world.key("blind"));
    let serve = world.serve();
    let mut thread = Thread::open(&serve, "/everything", &key).await;
    let ping = thread.request(7, "ping", json!({}));
    let mut thief = Thread::new(&serve, "/everything", &other);
    thief.id.clone_from(&thread.id);
    assert_eq!(thief.post(&ping).await.status(), StatusCode::NOT_FOUND);
    let mut elsewhere = Thread::new(&serve, "/quiet", &key);
    elsewhere.id.clone_from(&thread.id);
    assert_eq!(elsewhere.post(&ping).await.status(), StatusCode::NOT_FOUND);
    let (answer, _) = thread.ask("ping", json!({})).await;
    assert_eq!(answer["result"], json!({}));
    let delete = thread.client.delete(&thread.url).bearer_auth(&key);
    let id = thread.id.clone().unwrap();
    let deleted = delete.header("mcp-session-id", id).send().await.unwrap();
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    assert_eq!(thread.post(&ping).await.status(), StatusCode::NOT_FOUND);
    // The line of the thread goes with it.
    crate::world::until("the server of the thread is gone", || {
        world.processes("server-everything").is_empty().then_some(())
    });
    serve.end();
}

#[tokio::test]
async fn without_a_grant_nothing_is_listed_or_read() {
    let world = World::new(CONFIG);
    let key = world.key("blind");
    let serve = world.serve();
    for below in ["/everything", ""] {
        let mut thread = match below {
            "" => Thread::new(&serve, below, &key),
            _ => Thread::open(&serve, below, &key).await,
        };
        let (answer, _) = thread.ask("resources/list", json!({})).await;
        assert_eq!(answer["result"]["resources"], json!([]), "{answer}");
        let (answer, _) = thread.ask("prompts/list", json!({})).await;
        assert!(answer.to_string().contains("simple-prompt"), "{answer}");
    }
    let mut thread = Thread::open(&serve, "/everything", &key).await;
    let uri = json!({ "uri": "demo://resource/static/document/features.md" });
    let (answer, _) = thread.ask("resources/read", uri).await;
    assert_eq!(answer["error"]["code"], -32010, "{answer}");
    assert_eq!(answer["error"]["data"]["ruling"], "deny", "{answer}");
    serve.end();
}

#[tokio::test]
async fn what_the_operator_forbids_no_server_asks() {
    let world = World::new(CONFIG);
    let key = world.key("coder");
    let serve = world.serve();
    let mut thread = Thread::open(&serve, "/quiet", &key).await;
    let ask = json!({ "prompt": "say", "maxTokens": 10 });
    let (answer, before) = thread.call("trigger-sampling-request", ask).await;
    assert!(!methods(&before).contains(&"sampling/createMessage"), "{before:?}");
    assert!(!answer.to_string().contains("sampled words"), "{answer}");
    let (answer, _) = thread.call("trigger-elicitation-request", json!({})).await;
    assert!(answer.to_string().contains("declined"), "{answer}");
    serve.end();
}

#[tokio::test]
async fn without_a_thread_all_servers_are_read_in_one_place() {
    let world = World::new(CONFIG);
    let key = world.key("coder");
    let serve = world.serve();
    let mut all = Thread::new(&serve, "", &key);
    let (answer, _) = all.ask("prompts/list", json!({})).await;
    let text = answer.to_string();
    assert!(text.contains("everything__simple-prompt") && text.contains("quiet__simple-prompt"));
    let (answer, _) = all.ask("prompts/get", json!({ "name": "quiet__simple-prompt" })).await;
    assert!(answer["result"]["messages"].is_array(), "{answer}");
    let uri = json!({ "uri": "demo://resource/dynamic/text/1" });
    let (answer, _) = all.ask("resources/read", uri).await;
    assert!(answer["result"]["contents"][0]["text"].is_string(), "{answer}");
    let nowhere = json!({ "uri": "nowhere://x" });
    let (answer, _) = all.ask("resources/read", nowhere).await;
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
    let long = json!({ "duration": 0.2, "steps": 2 });
    let (answer, before) = all.call("everything__trigger-long-running-operation", long).await;
    assert!(answer.to_string().contains("completed"), "{answer}");
    assert_eq!(methods(&before), ["notifications/progress", "notifications/progress"]);
    assert_eq!(before[0]["params"]["progressToken"], "tok");
    serve.end();
}

#[tokio::test]
async fn a_server_behind_a_url_has_a_session_of_its_own() {
    let remote = Remote::start();
    let there = format!(
        "[server.remote]\nurl = \"{}\"\nenvironment = \"dev\"\nread = [\"*\"]\n",
        remote.url
    );
    let world = World::new(&format!("{CONFIG}\n{there}"));
    let key = world.key("coder");
    let serve = world.serve();
    let mut thread = Thread::open(&serve, "/remote", &key).await;
    let ask = json!({ "prompt": "say", "maxTokens": 10 });
    let (answer, before) = thread.call("trigger-sampling-request", ask).await;
    assert!(methods(&before).contains(&"sampling/createMessage"), "{before:?}");
    assert!(answer.to_string().contains("sampled words"), "{answer}");
    let long = json!({ "duration": 0.2, "steps": 2 });
    let (answer, before) = thread.call("trigger-long-running-operation", long).await;
    assert!(answer.to_string().contains("completed"), "{answer}");
    let progress = methods(&before).iter().filter(|one| **one == "notifications/progress").count();
    assert_eq!(progress, 2, "{before:?}");
    // It goes away in the middle: whoever waits hears of it.
    drop(remote);
    let (answer, _) = thread.call("echo", json!({ "message": "hi" })).await;
    assert!(answer.to_string().contains("upstream_"), "{answer}");
    serve.end();
    world.must(&["verify"]);
}
