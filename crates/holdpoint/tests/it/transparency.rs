//! What Holdpoint does not govern passes as it is: hundreds of messages of every kind, with fields
//! that nobody knows, through a `wrap` and through a thread of `serve`, in both directions; and what
//! real clients and servers were heard to say.

use crate::clients::recorded;
use crate::world::{Serve, World, text};
use reqwest::Client;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

/// How many messages are made for each direction.
const MESSAGES: usize = 500;
/// How many of them are said at once.
const BATCH: usize = 25;

const CONFIG: &str = r#"
[listen]
http = "127.0.0.1:0"

[team.platform]
on_call = "platform on-call"

[agent.coder]
owner = "platform"
grants = [{ class = "read", tools = ["*"] }]

[server.mirror]
command = ["node", "${mirror}"]
environment = "dev"
read = ["*"]
"#;

/// Makes messages; the same ones every time.
struct Source(u64);

/// The agent's end of a `wrap`.
struct Pipe {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

/// A legacy client's thread.
struct Thread {
    client: Client,
    url: String,
    key: String,
    id: String,
}

// === impl Source ===

impl Source {
    fn next(&mut self, below: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % below
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.next(from.len())]
    }

    /// A JSON value, written as others may write it.
    fn value(&mut self, depth: usize) -> String {
        const SCALARS: [&str; 12] = [
            "null",
            "true",
            "false",
            "0",
            "-7",
            "1.50",
            "9007199254740991",
            "0.1e1",
            r#""""#,
            r#""a\/b\u00e9\n""#,
            r#""naïve ☃ 𝄞""#,
            r#""data: x""#,
        ];
        match if depth == 0 { 0 } else { self.next(4) } {
            0 | 1 => self.pick(&SCALARS).to_owned(),
            2 => format!("[{} , {}]", self.value(depth - 1), self.value(depth - 1)),
            _ => format!(
                r#"{{"x-{}": {},"é":{}}}"#,
                self.next(9),
                self.value(depth - 1),
                self.value(depth - 1)
            ),
        }
    }

    fn params(&mut self, known: &str) -> String {
        let (meta, unknown) = (self.value(2), self.value(3));
        format!(r#"{{{known}"_meta":{{"com.example/m":{meta}}}, "unknown" : {unknown}}}"#)
    }

    /// What a server may say by itself.
    fn of_server(&mut self, number: usize) -> String {
        const REQUESTS: [&str; 5] =
            ["sampling/createMessage", "elicitation/create", "roots/list", "ping", "x/asks"];
        const NOTES: [&str; 9] = [
            "notifications/message",
            "notifications/progress",
            "notifications/cancelled",
            "notifications/resources/updated",
            "notifications/resources/list_changed",
            "notifications/prompts/list_changed",
            "notifications/tools/list_changed",
            "notifications/elicitation/complete",
            "x/tells",
        ];
        let extra = self.value(2);
        match self.next(2) {
            0 => {
                let (method, params) = (self.pick(&REQUESTS), self.params(""));
                let id = match number % 2 {
                    0 => number.to_string(),
                    _ => format!(r#""s-{number}""#),
                };
                format!(
                    r#"{{"id":{id}, "jsonrpc":"2.0","method":"{method}","params":{params},"top":{extra}}}"#
                )
            }
            _ => {
                let (method, params) =
                    (self.pick(&NOTES), self.params(&format!(r#""n":{number},"#)));
                format!(
                    r#"{{"method":"{method}","top":{extra},"params":{params},"jsonrpc":"2.0"}}"#
                )
            }
        }
    }

    /// What an agent may say that nobody governs.
    fn of_agent(&mut self, number: usize) -> String {
        const REQUESTS: [&str; 5] =
            ["ping", "logging/setLevel", "resources/unsubscribe", "x/gets", "x/asks"];
        const NOTES: [&str; 3] =
            ["notifications/roots/list_changed", "notifications/progress", "x/tells"];
        let (extra, answer) = (self.value(2), json!(self.value(3)).to_string());
        match self.next(3) {
            0 => {
                let method = self.pick(&REQUESTS);
                let params = self.params(&format!(r#""answer":{answer},"#));
                format!(
                    r#"{{"jsonrpc":"2.0","id":"a-{number}","method":"{method}","params":{params},"top":{extra}}}"#
                )
            }
            1 => {
                let (method, params) = (self.pick(&NOTES), self.params(""));
                format!(
                    r#"{{"jsonrpc":"2.0","method":"{method}","params":{params},"top":{extra}}}"#
                )
            }
            _ if number.is_multiple_of(2) => {
                let result = self.params("");
                format!(r#"{{"jsonrpc":"2.0","id":{number},"result":{result},"top":{extra}}}"#)
            }
            _ => format!(
                r#"{{"jsonrpc":"2.0","id":{number},"error":{{"code":-1,"message":"m","data":{extra}}}}}"#
            ),
        }
    }
}

// === impl Pipe ===

impl Pipe {
    fn open(world: &World, tools: &BTreeSet<String>) -> Self {
        let mut command = world.command(&["wrap", "--agent", "coder", "--server", "mirror", "--"]);
        let command = command.arg("node").arg(mirror()).args(tools);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let to = child.stdin.take().unwrap();
        let from = BufReader::new(child.stdout.take().unwrap());
        Self { child, to, from }
    }

    fn send(&mut self, line: &str) {
        self.to.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn read(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the wrap ended");
        line.trim_end().to_owned()
    }

    fn ask(&mut self, message: Value) -> Value {
        self.send(&message.to_string());
        serde_json::from_str(&self.read()).unwrap()
    }

    fn heard(&mut self) -> Vec<Value> {
        let ask = json!({ "jsonrpc": "2.0", "id": "h", "method": "mirror/heard" });
        let lines = heard(&self.ask(ask));
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === impl Thread ===

impl Thread {
    async fn open(serve: &Serve, key: String) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().no_proxy().build().unwrap();
        let url = format!("{}/mirror", serve.url);
        let mut thread = Self { client, url, key, id: String::new() };
        let opening = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {},
        } });
        let answer = thread.post(&opening.to_string()).await;
        thread.id = answer.headers()["mcp-session-id"].to_str().unwrap().to_owned();
        assert!(answer.text().await.unwrap().contains(r#""name":"mirror""#));
        thread
    }

    async fn post(&self, body: &str) -> reqwest::Response {
        let mut post = self.client.post(&self.url).bearer_auth(&self.key).body(body.to_owned());
        post = post.header("content-type", "application/json");
        post = post.header("accept", "application/json, text/event-stream");
        if !self.id.is_empty() {
            post = post.header("mcp-session-id", &self.id);
        }
        let answer = post.send().await.unwrap();
        assert!(answer.status().is_success(), "{body}: {}", answer.status());
        answer
    }

    async fn ask(&self, message: Value) -> Value {
        let answer = self.post(&message.to_string()).await.text().await.unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    /// What the thread's own stream brings until it has brought the last line. Comes back to where
    /// it was, as a client must: what was given to a connection that is gone counts as given.
    async fn own_stream(&self, last: &str, place: &mut Option<String>) -> Vec<String> {
        let get = self.client.get(&self.url).bearer_auth(&self.key);
        let mut get = get.header("accept", "text/event-stream").header("mcp-session-id", &self.id);
        if let Some(place) = place.as_deref() {
            get = get.header("last-event-id", place);
        }
        let mut answer = get.send().await.unwrap();
        assert!(answer.status().is_success());
        let mut all = Vec::new();
        while !text(&all).contains(last) {
            all.extend_from_slice(&answer.chunk().await.unwrap().unwrap());
        }
        let all = text(&all);
        let id = all.lines().rfind(|line| line.starts_with("id:")).unwrap();
        *place = id.strip_prefix("id:").map(|id| id.trim().to_owned());
        events(&all)
    }
}

fn mirror() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/mirror.mjs")
}

fn world() -> World {
    World::new(&CONFIG.replace("${mirror}", &mirror().display().to_string()))
}

fn events(stream: &str) -> Vec<String> {
    let data = stream.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(str::to_owned).collect()
}

fn heard(answer: &Value) -> Vec<String> {
    let lines = answer["result"]["lines"].as_array().unwrap().iter();
    lines.map(|line| line.as_str().unwrap().to_owned()).collect()
}

/// The result that a request of [`Source::of_agent`] asks for.
fn wanted(line: &str) -> Option<String> {
    let message: Value = serde_json::from_str(line).unwrap();
    message.get("method")?;
    let id = message.get("id")?;
    let answer = message["params"]["answer"].as_str().unwrap();
    Some(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{answer}}}"#))
}

#[test]
fn a_wrap_passes_what_it_does_not_govern_byte_for_byte() {
    let world = world();
    let mut pipe = Pipe::open(&world, &BTreeSet::new());
    let mut source = Source(1);
    let lines: Vec<_> = (0..MESSAGES).map(|number| source.of_server(number)).collect();
    for said in lines.chunks(BATCH) {
        let params = json!({ "lines": said });
        let ask = json!({ "jsonrpc": "2.0", "id": 1, "method": "mirror/say", "params": params });
        pipe.send(&ask.to_string());
        for line in said {
            assert_eq!(pipe.read(), *line);
        }
        assert_eq!(pipe.read(), r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    }
    let lines: Vec<_> = (0..MESSAGES).map(|number| source.of_agent(number)).collect();
    for said in lines.chunks(BATCH) {
        for line in said {
            pipe.send(line);
        }
        for answer in said.iter().filter_map(|line| wanted(line)) {
            assert_eq!(pipe.read(), answer);
        }
        let ask = json!({ "jsonrpc": "2.0", "id": "h", "method": "mirror/heard" });
        assert_eq!(heard(&pipe.ask(ask)), said);
    }
}

#[tokio::test]
async fn a_thread_passes_what_it_does_not_govern_byte_for_byte() {
    let world = world();
    let key = world.key("coder");
    let serve = world.serve();
    let thread = Thread::open(&serve, key).await;
    let mut source = Source(2);
    let mut place = None;
    let lines: Vec<_> = (0..MESSAGES).map(|number| source.of_server(number)).collect();
    for (batch, said) in lines.chunks(BATCH).enumerate() {
        let last = format!(r#"{{"jsonrpc":"2.0","method":"x/last","params":{{"n":{batch}}}}}"#);
        let all: Vec<_> = said.iter().chain([&last]).collect();
        let params = json!({ "lines": all });
        let ask = json!({ "jsonrpc": "2.0", "id": 1, "method": "mirror/say", "params": params });
        let answer = thread.post(&ask.to_string()).await.text().await.unwrap();
        let mut found = events(&answer);
        if found.is_empty() {
            found.push(answer);
        }
        assert_eq!(found.pop().unwrap(), r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
        found.extend(thread.own_stream(&last, &mut place).await);
        let mut expected: Vec<_> = all.into_iter().cloned().collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }
    let lines: Vec<_> = (0..MESSAGES).map(|number| source.of_agent(number)).collect();
    for said in lines.chunks(BATCH) {
        for line in said {
            let answer = thread.post(line).await.text().await.unwrap();
            assert_eq!(answer, wanted(line).unwrap_or_default());
        }
        let ask = json!({ "jsonrpc": "2.0", "id": "h", "method": "mirror/heard" });
        assert_eq!(heard(&thread.ask(ask).await), said);
    }
    serve.end();
}

#[test]
fn what_is_governed_keeps_its_unknown_fields_but_for_our_own() {
    let world = world();
    let mut pipe = Pipe::open(&world, &BTreeSet::new());
    let ask = |meta: Value| {
        json!({ "jsonrpc": "2.0", "id": 5, "method": "resources/read", "params": {
            "uri": "demo://x", "unknown": [1.5, null], "answer": "{ \"contents\" :[], \"x\":0.10}",
            "_meta": meta,
        } })
    };
    let said = ask(json!({ "com.example/m": { "a": 1 }, "io.holdpoint/task": { "id": "no" } }));
    pipe.send(&said.to_string());
    assert_eq!(pipe.read(), r#"{"jsonrpc":"2.0","id":5,"result":{ "contents" :[], "x":0.10}}"#);
    let answer = pipe.ask(json!({ "jsonrpc": "2.0", "id": "h", "method": "mirror/heard" }));
    let heard: Value = serde_json::from_str(&heard(&answer)[0]).unwrap();
    assert_eq!(heard, ask(json!({ "com.example/m": { "a": 1 } })));
}

#[tokio::test]
async fn what_real_clients_and_servers_say_passes_unchanged() {
    let world = world();
    let [agents, servers] = recorded(&world).await;
    let read = |line: &String| serde_json::from_str::<Value>(line).unwrap();
    let tool = |line| read(line)["params"]["name"].as_str().map(str::to_owned);
    let mut pipe = Pipe::open(&world, &agents.iter().filter_map(tool).collect());
    let opening = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "clientInfo": {},
        "capabilities": { "roots": {}, "sampling": {}, "elicitation": {} },
    } });
    assert!(pipe.ask(opening)["result"].is_object());
    pipe.ask(json!({ "jsonrpc": "2.0", "id": 0, "method": "tools/list" }));

    let mut kinds = BTreeSet::new();
    for line in &servers {
        let said = read(line);
        kinds.insert(said["method"].as_str().unwrap_or("result").to_owned());
        if said["result"].is_object() {
            // A result as the answer to a request that nobody governs, and to one that is governed.
            for method in ["x/asks", "resources/read"] {
                let params = json!({ "uri": "demo://x", "answer": said["result"].to_string() });
                let ask = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
                assert_eq!(pipe.ask(ask)["result"], said["result"]);
            }
        } else if said.get("method").is_some() {
            let params = json!({ "lines": [line] });
            let ask =
                json!({ "jsonrpc": "2.0", "id": 1, "method": "mirror/say", "params": params });
            pipe.send(&ask.to_string());
            let mut came = [pipe.read(), pipe.read()];
            came.sort_by_key(|came| came != line);
            assert_eq!(came, [line, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#]);
            if let Some(id) = said.get("id") {
                // Answered, so that the next server may use the id for a question of its own.
                let reply = json!({ "jsonrpc": "2.0", "id": id, "result": {} });
                pipe.send(&reply.to_string());
                assert_eq!(pipe.heard().pop(), Some(reply));
            }
        }
    }
    pipe.heard();
    for line in &agents {
        let said = read(line);
        let method = said["method"].as_str().unwrap_or("result");
        kinds.insert(method.to_owned());
        // The mirror answers these by itself.
        if ["initialize", "tools/list"].contains(&method) {
            continue;
        }
        pipe.send(line);
        if said.get("method").is_some() && said.get("id").is_some() {
            assert!(pipe.read().contains("result"), "{line}");
        }
        assert_eq!(pipe.heard(), [said]);
    }
    for kind in ["tools/call", "elicitation/create", "notifications/progress", "result"] {
        assert!(kinds.contains(kind), "{kind} was never said: {kinds:?}");
    }
    assert!(agents.len() + servers.len() > 60, "{} and {}", agents.len(), servers.len());
}
