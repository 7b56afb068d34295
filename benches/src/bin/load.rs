//! The load generator: calls one tool in closed loops and prints what it took, as JSON.
//!
//! `bench-load http URL ERA CONCURRENCY SECONDS [KEY]`,
//! `bench-load calls URL CONCURRENCY CALLS KEYS`, which takes the keys of a file in turn, or
//! `bench-load stdio CONCURRENCY SECONDS COMMAND…`. Must never count an answer that is not the
//! tool's.

use anyhow::{Context, bail};
use bytes::Bytes;
use holdpoint_bench::{Era, Latencies, TOOL, call, initialize, initialized, is_echo};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// The part of a run that is not measured, so that caches and pools are warm.
const WARM_PART: f64 = 0.2;
const SESSION_ID: &str = "mcp-session-id";

/// What one run did.
#[derive(Default)]
struct Run {
    latencies: Latencies,
    /// Every call, those before measuring included: what the gateway's CPU time is divided by.
    calls: u64,
    faults: u64,
}

/// When a run measures, and when it ends.
#[derive(Clone, Copy)]
struct Span {
    warm: Instant,
    end: Instant,
}

/// One connection of an agent.
struct Agent {
    sender: SendRequest<Full<Bytes>>,
    path: String,
    era: Era,
    headers: HeaderMap,
    last: u64,
}

/// A server over standard input and output.
struct Piped {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let report = match words.as_slice() {
        ["http", url, era, concurrency, seconds, key @ ..] => {
            let agent = (*url, era.parse()?, key.first().copied());
            load_http(agent, concurrency.parse()?, seconds.parse()?).await?
        }
        ["calls", url, concurrency, calls, keys] => {
            load_calls(url, concurrency.parse()?, calls.parse()?, Path::new(keys)).await?
        }
        ["stdio", concurrency, seconds, command @ ..] => {
            load_stdio(command, concurrency.parse()?, seconds.parse()?).await?
        }
        _ => bail!("usage: bench-load http URL ERA CONCURRENCY SECONDS [KEY] | calls … | stdio …"),
    };
    println!("{report}");
    Ok(())
}

async fn load_http(
    (url, era, key): (&str, Era, Option<&str>),
    concurrency: usize,
    seconds: f64,
) -> anyhow::Result<Value> {
    let mut agents = Vec::new();
    for _ in 0..concurrency {
        agents.push(Agent::open(url, era, key).await?);
    }
    let span = Span::starting_now(seconds);
    let runs = agents.into_iter().map(|agent| tokio::spawn(agent.run(span)));
    let mut all = Run::default();
    for run in runs.collect::<Vec<_>>() {
        all.merge(run.await??);
    }
    Ok(all.report(span, None))
}

/// So many calls, each by the next of many agents.
async fn load_calls(
    url: &str,
    concurrency: usize,
    calls: usize,
    keys: &Path,
) -> anyhow::Result<Value> {
    let keys = std::fs::read_to_string(keys)?;
    let bearer = |key: &str| Ok(format!("Bearer {key}").parse()?);
    let keys: anyhow::Result<Vec<HeaderValue>> = keys.lines().map(bearer).collect();
    let keys = Arc::new(keys?);
    let begun = Instant::now();
    let mut runs = Vec::new();
    for slot in 0..concurrency {
        let agent = Agent::open(url, Era::Modern, None).await?;
        let numbers = (slot..calls).step_by(concurrency);
        runs.push(tokio::spawn(agent.run_as(Arc::clone(&keys), numbers)));
    }
    let mut all = Run::default();
    for run in runs {
        all.merge(run.await??);
    }
    Ok(all.report(Span { warm: begun, end: Instant::now() }, None))
}

async fn load_stdio(command: &[&str], concurrency: u64, seconds: f64) -> anyhow::Result<Value> {
    let begun = Instant::now();
    let mut piped = Piped::spawn(command)?;
    piped.send(&initialize(0)).await?;
    piped.line().await?;
    let started = begun.elapsed();
    piped.send(&initialized()).await?;
    if seconds == 0.0 {
        return Ok(json!({ "start_us": started.as_micros() as u64 }));
    }
    let span = Span::starting_now(seconds);
    let run = piped.run(concurrency, span).await?;
    Ok(run.report(span, Some(started)))
}

// === impl Run ===

impl Run {
    fn merge(&mut self, other: Self) {
        self.latencies.merge(other.latencies);
        self.calls += other.calls;
        self.faults += other.faults;
    }

    fn note(&mut self, begun: Instant, good: bool, span: Span) {
        self.calls += 1;
        if !good {
            self.faults += 1;
        } else if begun >= span.warm {
            self.latencies.add(begun.elapsed());
        }
    }

    fn report(self, span: Span, started: Option<Duration>) -> Value {
        let seconds = span.end.duration_since(span.warm).as_secs_f64();
        let per_second = self.latencies.count() as f64 / seconds;
        let mut report = self.latencies.report();
        report["per_second"] = per_second.into();
        report["calls"] = self.calls.into();
        report["faults"] = self.faults.into();
        report["start_us"] = started.map(|started| started.as_micros() as u64).into();
        report
    }
}

// === impl Span ===

impl Span {
    fn starting_now(seconds: f64) -> Self {
        let now = Instant::now();
        let warm = now + Duration::from_secs_f64(seconds * WARM_PART);
        Self { warm, end: warm + Duration::from_secs_f64(seconds) }
    }
}

// === impl Agent ===

impl Agent {
    /// Connects, and shakes hands in the legacy era.
    async fn open(url: &str, era: Era, key: Option<&str>) -> anyhow::Result<Self> {
        let rest = url.strip_prefix("http://").context("the URL must begin with http://")?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let headers = headers(host, era, key)?;
        let path = format!("/{path}");
        let mut agent = Self { sender, path, era, headers, last: 0 };
        if era == Era::Legacy {
            agent.shake_hands().await?;
        }
        Ok(agent)
    }

    async fn shake_hands(&mut self) -> anyhow::Result<()> {
        let (headers, _) = self.post(initialize(0)).await?;
        if let Some(thread) = headers.get(SESSION_ID) {
            self.headers.insert(SESSION_ID, thread.clone());
        }
        self.post(initialized()).await?;
        Ok(())
    }

    async fn run(mut self, span: Span) -> anyhow::Result<Run> {
        let mut run = Run::default();
        loop {
            let begun = Instant::now();
            if begun >= span.end {
                return Ok(run);
            }
            self.last += 1;
            let message = call(self.era, self.last);
            let (_, answer) = self.post(message).await?;
            let good = is_echo(&answer);
            if !good && run.calls == 0 {
                bail!("not an echo: {}", String::from_utf8_lossy(&answer));
            }
            run.note(begun, good, span);
        }
    }

    async fn run_as(
        mut self,
        keys: Arc<Vec<HeaderValue>>,
        numbers: impl Iterator<Item = usize>,
    ) -> anyhow::Result<Run> {
        let mut run = Run::default();
        for number in numbers {
            let key = keys.get(number % keys.len().max(1)).context("no keys")?;
            self.headers.insert(AUTHORIZATION, key.clone());
            let begun = Instant::now();
            self.last += 1;
            let (_, answer) = self.post(call(self.era, self.last)).await?;
            run.calls += 1;
            match is_echo(&answer) {
                true => run.latencies.add(begun.elapsed()),
                false => run.faults += 1,
            }
        }
        Ok(run)
    }

    async fn post(&mut self, message: String) -> anyhow::Result<(HeaderMap, Bytes)> {
        let mut request = Request::post(&self.path).body(Full::new(Bytes::from(message)))?;
        *request.headers_mut() = self.headers.clone();
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        Ok((head.headers, body.collect().await?.to_bytes()))
    }
}

fn headers(host: &str, era: Era, key: Option<&str>) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(HOST, host.parse()?);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    headers.insert("mcp-protocol-version", era.revision().parse()?);
    if era == Era::Modern {
        headers.insert("mcp-method", HeaderValue::from_static("tools/call"));
        headers.insert("mcp-name", HeaderValue::from_static(TOOL));
    }
    if let Some(key) = key {
        headers.insert(AUTHORIZATION, format!("Bearer {key}").parse()?);
    }
    Ok(headers)
}

// === impl Piped ===

impl Piped {
    fn spawn(command: &[&str]) -> anyhow::Result<Self> {
        let (program, arguments) = command.split_first().context("a command is missing")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let input = child.stdin.take().context("no input")?;
        let output = child.stdout.take().context("no output")?;
        Ok(Self { _child: child, input, output: BufReader::new(output).lines() })
    }

    async fn send(&mut self, message: &str) -> anyhow::Result<()> {
        self.input.write_all(format!("{message}\n").as_bytes()).await?;
        Ok(self.input.flush().await?)
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        self.output.next_line().await?.context("the server ended")
    }

    /// Keeps `concurrency` calls in flight. Ids tell the slot: `id % concurrency`.
    async fn run(&mut self, concurrency: u64, span: Span) -> anyhow::Result<Run> {
        let mut begun = Vec::new();
        for id in 1..=concurrency {
            begun.push(Instant::now());
            self.send(&call(Era::Legacy, concurrency + id - 1)).await?;
        }
        let (mut run, mut waiting) = (Run::default(), concurrency);
        while waiting > 0 {
            let line = self.line().await?;
            let message: Value = serde_json::from_str(&line)?;
            let Some(id) = message["id"].as_u64() else { continue };
            let slot = usize::try_from(id % concurrency)?;
            run.note(begun[slot], is_echo(line.as_bytes()), span);
            begun[slot] = Instant::now();
            if begun[slot] < span.end {
                self.send(&call(Era::Legacy, id + concurrency)).await?;
            } else {
                waiting -= 1;
            }
        }
        Ok(run)
    }
}
