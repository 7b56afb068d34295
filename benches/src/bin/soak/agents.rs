//! The load of a soak: agents that call, hang up, follow streams, and leave.
//! Must never count a text as acknowledged that did not come back.

use crate::Whistle;
use crate::stage::{AGENTS, SERVERS, Stage};
use anyhow::Context as _;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Tasks of each agent that call.
const TASKS_EACH: usize = 2;
/// Every so many calls is slow, and the client of every second slow one hangs up.
const SLOW_EVERY: u64 = 16;
const HANG_UP_AFTER: Duration = Duration::from_millis(60);
/// How long a client follows a stream.
const FOLLOWS: Duration = Duration::from_millis(1500);
const MODERN: &str = "2026-07-28";
const LEGACY: &str = "2025-11-25";
const SESSION: &str = "mcp-session-id";

/// All agents at work.
pub struct Load(Vec<JoinHandle<anyhow::Result<()>>>);

/// One client of one agent.
#[derive(Clone)]
pub struct Agent {
    stage: Arc<Stage>,
    name: &'static str,
    client: Client,
}

// === impl Load ===

impl Load {
    /// Starts everybody; together they make `rate` calls a second.
    pub fn start(stage: &Arc<Stage>, whistle: &Whistle, rate: f64) -> Self {
        let pause = Duration::from_secs_f64((AGENTS.len() * TASKS_EACH) as f64 / rate);
        let mut tasks = Vec::new();
        for name in AGENTS {
            for _ in 0..TASKS_EACH {
                tasks.push(tokio::spawn(call_on(Agent::new(stage, name), whistle.clone(), pause)));
            }
        }
        tasks.push(tokio::spawn(follow_on(Agent::new(stage, "a4"), whistle.clone())));
        tasks.push(tokio::spawn(thread_on(Agent::new(stage, "a5"), whistle.clone())));
        Self(tasks)
    }

    /// Waits until everybody has left.
    pub async fn end(self) -> anyhow::Result<()> {
        for task in self.0 {
            task.await??;
        }
        Ok(())
    }
}

// === impl Agent ===

impl Agent {
    pub fn new(stage: &Arc<Stage>, name: &'static str) -> Self {
        Self { stage: Arc::clone(stage), name, client: Client::new() }
    }

    /// Calls `echo` of a server with a new text, and notes what came of it.
    pub async fn call(&self, server: &str, kind: &str) -> anyhow::Result<()> {
        let text = self.text(kind);
        let came = self.echo(server, &text).await;
        self.stage.note(&text, came);
        Ok(())
    }

    /// As [`Agent::call`], while a stop is in force that covers it.
    pub async fn call_stopped(&self, server: &str) -> anyhow::Result<()> {
        let text = self.text("stopped");
        self.stage.forbid(&text);
        let came = self.echo(server, &text).await;
        self.stage.note(&text, came);
        Ok(())
    }

    fn text(&self, kind: &str) -> String {
        format!("{kind}-{}-{}", self.name, self.stage.number())
    }

    async fn echo(&self, server: &str, text: &str) -> Result<(), String> {
        let body = request("tools/call", json!({ "name": "echo", "arguments": { "text": text } }));
        let answer = self.modern(server, &body).send().await.map_err(|_| "no connection")?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(|_| "cut off")?;
        let Ok(answer) = serde_json::from_slice::<Value>(&body) else {
            return Err(format!("HTTP {status}"));
        };
        let result = &answer["result"];
        if result["content"][0]["text"] == text && result["isError"] != true {
            return Ok(());
        }
        let causes = &result["_meta"]["io.holdpoint/decision"]["causes"];
        let reason = causes[0]["reason"].as_str().or(answer["error"]["data"]["reason"].as_str());
        Err(reason.map_or_else(|| format!("HTTP {status}, no reason"), str::to_owned))
    }

    /// A modern request with the headers that it must carry.
    fn modern(&self, server: &str, body: &Value) -> RequestBuilder {
        let method = body["method"].as_str().unwrap_or_default();
        let post = self.post(server).header("mcp-protocol-version", MODERN);
        let post = post.header("mcp-method", method);
        let post = match body["params"]["name"].as_str() {
            Some(name) => post.header("mcp-name", name),
            None => post,
        };
        post.body(body.to_string())
    }

    fn post(&self, server: &str) -> RequestBuilder {
        self.with_key(self.client.post(format!("{}/{server}", self.stage.url)))
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
    }

    fn with_key(&self, request: RequestBuilder) -> RequestBuilder {
        let key = self.stage.keys.get(self.name).map_or("", String::as_str);
        request.bearer_auth(key).timeout(Duration::from_secs(20))
    }

    /// A legacy client's thread: opened, read, called in, closed.
    async fn thread(&self, server: &str) -> anyhow::Result<()> {
        let opening = json!({
            "jsonrpc": "2.0", "id": 0, "method": "initialize",
            "params": {
                "protocolVersion": LEGACY, "capabilities": {},
                "clientInfo": { "name": "soak", "version": "1" },
            },
        });
        let answer = self.post(server).body(opening.to_string()).send().await?;
        let Some(thread) = answer.headers().get(SESSION).cloned() else { return Ok(()) };
        answer.bytes().await?;
        let told = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let told = self.post(server).header(SESSION, &thread).body(told.to_string());
        told.send().await?.bytes().await?;
        let url = format!("{}/{server}", self.stage.url);
        let stream = self.with_key(self.client.get(&url)).header(SESSION, &thread);
        let stream = stream.header("accept", "text/event-stream").send().await?;
        let text = self.text("thread");
        let call = json!({
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": { "name": "echo", "arguments": { "text": text } },
        });
        let call = self.post(server).header(SESSION, &thread).body(call.to_string());
        let answer = call.send().await?.text().await?;
        let came = answer.contains(&text) && !answer.contains("\"isError\":true");
        self.stage.note(&text, came.then_some(()).ok_or("refused in a thread".to_owned()));
        drop(stream);
        let end = self.with_key(self.client.delete(&url)).header(SESSION, &thread);
        end.send().await?.bytes().await?;
        Ok(())
    }
}

async fn call_on(agent: Agent, whistle: Whistle, pause: Duration) -> anyhow::Result<()> {
    let mut number = u64::from(agent.name.as_bytes().last().copied().unwrap_or_default());
    while !whistle.blown() {
        number += 1;
        let server = SERVERS[usize::try_from(number)? % SERVERS.len()];
        if number % SLOW_EVERY == 0 {
            let slow = agent.call(server, "slow");
            if number % (2 * SLOW_EVERY) == 0 {
                // Dropped in the middle: the connection closes.
                let _ = tokio::time::timeout(HANG_UP_AFTER, slow).await;
            } else {
                slow.await?;
            }
        } else {
            agent.call(server, "text").await?;
        }
        whistle.pause(pause).await;
    }
    Ok(())
}

/// A modern client that follows what changes on a server, and hangs up.
async fn follow_on(agent: Agent, whistle: Whistle) -> anyhow::Result<()> {
    let mut number = 0;
    while !whistle.blown() {
        number += 1;
        let server = SERVERS[number % SERVERS.len()];
        let wanted = json!({ "notifications": { "toolsListChanged": true } });
        let body = request("subscriptions/listen", wanted);
        if let Ok(mut stream) = agent.modern(server, &body).send().await {
            let _ = tokio::time::timeout(FOLLOWS, async {
                while let Ok(Some(_)) = stream.chunk().await {}
            })
            .await;
        }
        whistle.pause(Duration::from_millis(300)).await;
    }
    Ok(())
}

async fn thread_on(agent: Agent, whistle: Whistle) -> anyhow::Result<()> {
    let mut number = 0;
    while !whistle.blown() {
        number += 1;
        // A server may crash in the middle: what counts is that nothing is left of it.
        if let Err(fault) = agent.thread(SERVERS[number % SERVERS.len()]).await {
            let kind = fault.downcast_ref::<reqwest::Error>().context("not of the network")?;
            agent.stage.note("", Err(format!("thread: {}", words(kind))));
        }
        whistle.pause(Duration::from_millis(500)).await;
    }
    Ok(())
}

fn words(fault: &reqwest::Error) -> &'static str {
    if fault.is_timeout() { "late" } else { "broken" }
}

fn request(method: &str, mut params: Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": { "name": "soak", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })
}
