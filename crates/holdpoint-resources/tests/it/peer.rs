//! A hand-written MCP server over standard input and output, well-behaved or hostile by tool name.
//!
//! It is this very test binary, started again by [`spec`]; its tool names say what they do.

use holdpoint_resources::{
    Cancels, Ended, Limits, ProcessSpec, ToolCall, Transport, Upstream, UpstreamSpec,
};
use holdpoint_types::ToolRef;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead as _, Write as _};
use std::time::Duration;

/// Tells the started binary which server to be.
const ROLE: &str = "PEER_ROLE";

/// A result with everything that typed readers lose: unknown members, odd numbers, order, spaces.
pub const ODD: &str = r#"{ "zeta":1.0e+2,"content":[{"type":"text","text":"\u00e9\/","x-new":[1e400,-0.0]}],"big":12345678901234567890123,"isError":false,"a":{"a":1,"a":2} }"#;

/// How to start a peer. `role` is `modern`, `legacy`, `mute-legacy`, `touchy-legacy`, `future`, …
pub fn spec(role: &str) -> ProcessSpec {
    let exe = std::env::current_exe().unwrap().to_string_lossy().into_owned();
    // The test harness talks on standard output, so the server gets the pipe as number 3 instead.
    let script = r#"exec "$0" --exact "$1" --ignored --nocapture 3>&1 >/dev/null"#;
    let target = match role.split(['-', ':']).next() {
        Some("rmcp") => "rmcp_peers::serve",
        Some("desk") => "declared::serve",
        _ => "peer::serve",
    };
    let command = ["sh", "-c", script, &exe, target].map(str::to_owned).to_vec();
    let env = [(ROLE.to_owned(), role.to_owned())].into();
    ProcessSpec { command, env, ..ProcessSpec::default() }
}

/// The role this process was started for.
pub fn role() -> String {
    std::env::var(ROLE).unwrap_or_default()
}

/// The pipe to whoever started this process.
pub fn pipe() -> File {
    File::options().write(true).open("/dev/fd/3").unwrap()
}

/// Limits that let tests end soon, yet not so soon that a busy machine makes them fail.
pub fn limits() -> Limits {
    Limits {
        message_bytes_max: 256 << 10,
        flood_bytes_max: 1 << 20,
        grace: Duration::from_millis(300),
        ..Limits::default()
    }
}

/// An upstream whose server is a peer.
pub fn upstream(role: &str) -> Upstream {
    let transport = Transport::Stdio(spec(role));
    let (server, timeout) = ("peer".parse().unwrap(), Duration::from_secs(20));
    Upstream::new(UpstreamSpec { server, transport, timeout, limits: limits() })
}

/// Names a tool of the peer.
pub fn tool(name: &str) -> ToolRef {
    ToolRef::new("peer".parse().unwrap(), name).unwrap()
}

/// Calls a tool with a fresh permit.
pub async fn call(upstream: &Upstream, name: &str, parameters: Value) -> Ended {
    call_with(upstream, name, parameters, Cancels::default()).await
}

/// Calls a tool with a fresh permit, cancellable.
pub async fn call_with(
    upstream: &Upstream,
    name: &str,
    parameters: Value,
    cancels: Cancels,
) -> Ended {
    let tool = tool(name);
    let permit = crate::permits::permit(&tool, &parameters);
    let call = ToolCall::new(tool, parameters);
    upstream.call(permit, call, crate::permits::NOW, cancels).await
}

/// Says in one line how a call ended.
pub fn said(ended: &Ended) -> String {
    match ended {
        Ended::Answered { body, tool_error } => format!("answered {tool_error}: {}", body.raw()),
        Ended::NotSent { reason, detail } => format!("not sent, {reason}: {detail}"),
        Ended::Task { body, .. } => format!("task {}", body.raw().get()),
        Ended::InDoubt { reason, detail } => format!("in doubt, {reason}: {detail}"),
    }
}

#[test]
#[ignore = "the server that other tests start"]
fn serve() {
    let mut peer = Peer { role: role(), out: pipe(), slow: None, cancellations: 0 };
    if peer.role == "instant-death" {
        std::process::exit(9);
    }
    if peer.role == "greeting" {
        peer.write("hello, I am a server that greets on its standard output");
    }
    for line in std::io::stdin().lock().lines() {
        let message: Value = serde_json::from_str(&line.unwrap()).unwrap();
        peer.hear(&message);
    }
}

struct Peer {
    role: String,
    out: File,
    /// The call that waits for its cancellation, and what it does then.
    slow: Option<(Value, String)>,
    /// How many cancellations came.
    cancellations: u32,
}

impl Peer {
    fn hear(&mut self, message: &Value) {
        let id = message["id"].clone();
        match message["method"].as_str() {
            Some("server/discover") => self.discover(&id),
            Some("initialize") => self.initialize(&id),
            Some("tools/list") => self.list(&id, &message["params"]),
            Some("tools/call") => self.call(&id, &message["params"]),
            Some("notifications/cancelled") => self.cancelled(&message["params"]["requestId"]),
            Some(_) => {}
            None => {
                // The client's answer to our own request: the waiting call tells what it said.
                let (call, _) = self.slow.take().unwrap();
                let text = json!({"content": [], "code": message["error"]["code"]});
                self.result(&call, &text.to_string());
            }
        }
    }

    fn discover(&mut self, id: &Value) {
        match self.role.as_str() {
            "mute-legacy" => {}
            "touchy-legacy" => std::process::exit(4),
            "future" => self.error(id, -32022, json!({"supported": ["2031-01-01"]})),
            role if role.ends_with("legacy") => self.error(id, -32601, Value::Null),
            _ => {
                let versions = json!({
                    "resultType": "complete",
                    "supportedVersions": ["2026-07-28"],
                    "capabilities": {"tools": {}},
                });
                self.result(id, &versions.to_string());
            }
        }
    }

    fn initialize(&mut self, id: &Value) {
        let result = json!({
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "peer", "version": "1"},
        });
        self.result(id, &result.to_string());
    }

    fn list(&mut self, id: &Value, params: &Value) {
        let page = params["cursor"].as_str().map_or(0, |cursor| cursor.parse::<u32>().unwrap());
        let next = match self.role.as_str() {
            "loops" => r#","nextCursor":"0""#.to_owned(),
            "endless" => format!(r#","nextCursor":"{}""#, page + 1),
            _ if page < 2 => format!(r#","nextCursor":"{}""#, page + 1),
            _ => String::new(),
        };
        let tools = if self.role == "crowd" {
            vec![r#"{"name":"t","inputSchema":{}}"#; 5000].join(",")
        } else {
            format!(r#"{{"name":"t{page}","inputSchema":{{"type":"object"}},"x-new":1.50}}"#)
        };
        self.result(id, &format!(r#"{{"tools":[{tools}]{next}}}"#));
    }

    fn call(&mut self, id: &Value, params: &Value) {
        match params["name"].as_str().unwrap() {
            "odd" => self.result(id, ODD),
            "echo" => self.result(id, &json!({"content": [], "params": params}).to_string()),
            "environment" => self.environment(id),
            "cancellations" => self.result(id, &json!({"n": self.cancellations}).to_string()),
            "verbose-nulls" => {
                self.write(
                    r#"{"jsonrpc":"2.0","id":null,"method":"n","params":null,"error":null}"#,
                );
                self.write(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}},"error":null}}"#));
            }
            "tool-error" => self.result(id, r#"{"content":[],"isError":true}"#),
            "rpc-error" => self.error(id, -32602, json!({"x": 1})),
            "input" => self.result(id, r#"{"resultType":"input_required","inputRequests":{}}"#),
            "result-list" => self.result(id, "[]"),
            "flag-text" => self.result(id, r#"{"isError":"no"}"#),
            "old-rpc" => self.write(&format!(r#"{{"jsonrpc":"1.0","id":{id},"result":{{}}}}"#)),
            "twice" => {
                self.result(id, r#"{"n":1}"#);
                self.result(id, r#"{"n":2}"#);
            }
            "wrong-id" => {
                self.result(&json!(999_999), r#"{"n":"wrong"}"#);
                self.result(&json!(id.to_string()), r#"{"n":"text"}"#);
                self.result(id, r#"{"n":"right"}"#);
            }
            "changed" => {
                self.write(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#);
                self.result(id, "{}");
            }
            "ask" => {
                self.slow = Some((id.clone(), "ask".to_owned()));
                self.write(r#"{"jsonrpc":"2.0","id":"s1","method":"sampling/createMessage"}"#);
            }
            name => self.misbehave(name, id, params),
        }
    }

    fn misbehave(&mut self, name: &str, id: &Value, params: &Value) {
        match name {
            "die" => std::process::exit(3),
            "huge" => self.result(id, &format!(r#"{{"n":"{}"}}"#, "x".repeat(300 << 10))),
            "not-utf8" => self.out.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":\"\xff\"}\n").unwrap(),
            "cut-off" => self.write(&format!(r#"{{"jsonrpc":"2.0","id":{id},"resu"#)),
            "batch" => self.write(&format!(r#"[{{"jsonrpc":"2.0","id":{id},"result":{{}}}}]"#)),
            "flood" => loop {
                let params = json!({"data": "x".repeat(1000)});
                let noise =
                    json!({"jsonrpc": "2.0", "method": "notifications/x", "params": params});
                self.write(&noise.to_string());
            },
            "hang" | "yield" | "finish" => {
                // Whoever waits for the call to be under way reads this file.
                if let Some(path) = params["arguments"]["file"].as_str() {
                    std::fs::write(path, "under way").unwrap();
                }
                self.slow = Some((id.clone(), name.to_owned()));
            }
            "fork" => {
                let mark = params["arguments"]["mark"].as_str().unwrap();
                let file = params["arguments"]["file"].as_str().unwrap();
                // One left the group, one also its parents, one ignores SIGTERM.
                let script = format!(
                    "setsid sleep {mark} & (setsid sh -c 'sleep {mark} & echo up > {file}' &) ; \
                     sh -c 'trap \"\" TERM; sleep {mark}; sleep {mark}' &"
                );
                let mut shell = std::process::Command::new("sh");
                shell.args(["-c", &script]).stdout(std::process::Stdio::null());
                shell.status().unwrap();
                self.slow = Some((id.clone(), "hang".to_owned()));
            }
            _ => self.error(id, -32602, Value::Null),
        }
    }

    fn cancelled(&mut self, id: &Value) {
        self.cancellations += 1;
        let Some((call, name)) = self.slow.clone() else { return };
        match name.as_str() {
            "yield" if call == *id => self.error(&call, -32000, Value::Null),
            "finish" if call == *id => self.result(&call, r#"{"content":[],"n":"finished"}"#),
            _ => {}
        }
    }

    fn environment(&mut self, id: &Value) {
        let names: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
        self.result(id, &json!({"names": names}).to_string());
    }

    fn result(&mut self, id: &Value, result: &str) {
        self.write(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#));
    }

    fn error(&mut self, id: &Value, code: i64, data: Value) {
        let error = json!({"code": code, "message": "no", "data": data});
        self.write(&format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#));
    }

    fn write(&mut self, line: &str) {
        if self.out.write_all(format!("{line}\n").as_bytes()).is_err() {
            std::process::exit(0);
        }
    }
}
