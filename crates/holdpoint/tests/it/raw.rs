//! Clients that send any bytes: over a `wrap`'s pipes, and over HTTP written by hand.

use crate::world::{PATIENCE, Serve, World, peer, text};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// The member of `_meta` that names a request's revision.
pub const REVISION: &str = "io.modelcontextprotocol/protocolVersion";

/// The agent's end of a `wrap`. The process is killed when it is dropped.
pub struct Pipe {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Vec<u8>>,
}

/// What came back over HTTP.
#[derive(Debug)]
pub struct Answer {
    /// The status line's number.
    pub status: u16,
    /// The status line and the headers.
    pub head: String,
    /// The body; `null` if it is no JSON.
    pub body: Value,
    /// The body as it came.
    pub text: String,
}

// === impl Pipe ===

impl Pipe {
    /// `holdpoint wrap` around the small server.
    pub fn wrap(world: &World) -> Self {
        Self::of(wrap_command(world))
    }

    /// The process that a command starts.
    pub fn of(mut command: Command) -> Self {
        let log = command.get_current_dir().unwrap().join("wrap.log");
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut line = Vec::new();
            while stdout.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                if sender.send(std::mem::take(&mut line)).is_err() {
                    return;
                }
            }
        });
        Self { child, stdin, lines }
    }

    /// Sends bytes as they are; a process that is gone gets none.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(bytes.as_ref()).and_then(|()| stdin.flush());
        }
    }

    /// Sends a message.
    pub fn tell(&mut self, message: &Value) {
        self.send(format!("{message}\n"));
    }

    /// Sends a call of a tool.
    pub fn begin(&mut self, id: impl Into<Value>, tool: &str, arguments: Value) {
        self.tell(&call(id, tool, arguments));
    }

    /// What comes next; `None` at the end of output.
    pub fn next(&self) -> Option<Value> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                let read = serde_json::from_slice(&line);
                Some(read.unwrap_or_else(|_| panic!("not JSON on stdout: {}", text(&line))))
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the wrap says nothing"),
        }
    }

    /// What comes within this time, if anything does.
    pub fn next_within(&self, time: Duration) -> Option<Value> {
        let line = self.lines.recv_timeout(time).ok()?;
        Some(serde_json::from_slice(&line).unwrap())
    }

    /// The answer to a request; what comes before it must not be an answer to the same.
    pub fn answer(&self, id: impl Into<Value>) -> Value {
        let id = id.into();
        loop {
            let next = self.next().expect("the wrap ended before it answered");
            if next["id"] == id && next.get("method").is_none() {
                return next;
            }
        }
    }

    /// Calls a tool and waits for the answer.
    pub fn call(&mut self, id: impl Into<Value>, tool: &str, arguments: Value) -> Value {
        let id = id.into();
        self.begin(id.clone(), tool, arguments);
        self.answer(id)
    }

    /// Closes the pipe to the process.
    pub fn close(&mut self) {
        drop(self.stdin.take());
    }

    /// Closes the pipe and waits for the end: the exit code, and all that was still said.
    pub fn end(mut self) -> (Option<i32>, Vec<Value>) {
        self.close();
        let rest = std::iter::from_fn(|| self.next()).collect();
        let status = self.child.wait().unwrap();
        (status.code(), rest)
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === impl Answer ===

impl Answer {
    /// Status, JSON-RPC error code and reason on one line.
    pub fn row(&self) -> String {
        format!("{} {}", self.status, row(&self.body))
    }

    /// A header's value, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut pairs = self.head.lines().filter_map(|line| line.split_once(": "));
        pairs.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// The command that wraps the small server.
pub fn wrap_command(world: &World) -> Command {
    let program = peer().display().to_string();
    world.command(&["wrap", "--agent", "coder", "--server", "peer", "--", "node", &program])
}

/// A call of a tool, of the legacy era.
pub fn call(id: impl Into<Value>, tool: &str, arguments: Value) -> Value {
    let params = json!({ "name": tool, "arguments": arguments });
    json!({ "jsonrpc": "2.0", "id": id.into(), "method": "tools/call", "params": params })
}

/// A request as the modern era wants it.
pub fn modern(id: impl Into<Value>, method: &str, params: Value) -> Value {
    modern_able(id, method, (params, json!({})))
}

/// The same, of a client with these capabilities.
pub fn modern_able(
    id: impl Into<Value>,
    method: &str,
    (mut params, capabilities): (Value, Value),
) -> Value {
    params["_meta"][REVISION] = "2026-07-28".into();
    params["_meta"]["io.modelcontextprotocol/clientInfo"] =
        json!({ "name": "test", "version": "1" });
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = capabilities;
    json!({ "jsonrpc": "2.0", "id": id.into(), "method": method, "params": params })
}

/// The JSON-RPC error code and the reason of an answer on one line.
pub fn row(answer: &Value) -> String {
    let code = answer["error"]["code"].as_i64().map_or("-".to_owned(), |code| code.to_string());
    format!("{code} {}", reason(answer))
}

/// The reason in an answer, whichever way it is given; `answered` if the tool answered. Several
/// that weigh the same are joined by `+`.
pub fn reason(answer: &Value) -> String {
    let decision = &answer["result"]["_meta"]["io.holdpoint/decision"];
    if let Some(causes) = decision["causes"].as_array() {
        let deciding = causes.iter().filter(|cause| cause["ruling"] == decision["ruling"]);
        let reasons: Vec<_> = deciding.filter_map(|cause| cause["reason"].as_str()).collect();
        return reasons.join("+");
    }
    let places = [&answer["error"]["data"]["reason"], &decision["reason"], &answer["reason"]];
    let found = places.into_iter().find_map(Value::as_str).map(str::to_owned);
    let answered = answer.get("result").is_some();
    found.unwrap_or_else(|| if answered { "answered".to_owned() } else { "-".to_owned() })
}

/// Posts a message to `/mcp` and below with a key.
pub fn post(serve: &Serve, place: (&str, &str), message: &Value) -> Answer {
    try_post(serve, place, message).expect("an HTTP answer")
}

/// Posts a modern request, with the headers that say what it says.
pub fn post_modern(serve: &Serve, (below, key): (&str, &str), message: &Value) -> Answer {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let params = &message["params"];
    let name =
        [&params["name"], &params["uri"], &params["taskId"]].into_iter().find_map(Value::as_str);
    let head = [
        format!("Authorization: Bearer {key}"),
        "Content-Type: application/json".to_owned(),
        "Accept: application/json, text/event-stream".to_owned(),
        "MCP-Protocol-Version: 2026-07-28".to_owned(),
        format!("Mcp-Method: {}", word(&message["method"])),
        format!("Mcp-Name: {}", name.unwrap_or("none")),
    ];
    let head: Vec<_> = head.iter().map(String::as_str).collect();
    exchange(serve, &format!("POST /mcp{below}"), &head, message.to_string().as_bytes())
}

/// As [`post`], to a server that may be gone.
pub fn try_post(serve: &Serve, (below, key): (&str, &str), message: &Value) -> Option<Answer> {
    let bearer = format!("Authorization: Bearer {key}");
    let head = [bearer.as_str(), "Content-Type: application/json"];
    try_exchange(serve, &format!("POST /mcp{below}"), &head, message.to_string().as_bytes())
}

/// One HTTP exchange. `Host` is right unless a header says otherwise.
pub fn exchange(serve: &Serve, what: &str, headers: &[&str], body: &[u8]) -> Answer {
    let answer = try_exchange(serve, what, headers, body);
    answer.unwrap_or_else(|| panic!("no HTTP answer to {what}"))
}

fn try_exchange(serve: &Serve, what: &str, headers: &[&str], body: &[u8]) -> Option<Answer> {
    let mut stream = TcpStream::connect(serve.address()).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut head = format!("{what} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|header| header.starts_with("Host:")) {
        head.push_str(&format!("Host: {}\r\n", serve.address()));
    }
    for header in headers {
        head.push_str(&format!("{header}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    // A server that has seen enough may answer before it has read everything.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = text(&answer);
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let head = head.to_owned();
    let text = body.to_owned();
    Some(Answer { status, head, body: serde_json::from_str(body).unwrap_or_default(), text })
}
