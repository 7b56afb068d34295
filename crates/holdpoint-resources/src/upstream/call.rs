//! One call: cleared by its permit, sent, awaited, cancelled.
//!
//! Owns the question how a call ended. Must never say `NotSent` unless no byte can have arrived,
//! and never send parameters other than those that the permit was checked against.

use super::http::{HttpLink, HttpRequest};
use super::spec::{Cancels, Ended, ToolCall};
use super::stdio::{Flight, StdioLink, StdioRequest};
use super::{Connected, Fault, Link, Upstream};
use crate::declared::DeclaredCall;
use crate::mcp::era::{self, Identity, RESULT_TASK};
use crate::mcp::headers::ParamHeader;
use crate::mcp::{Era, Outcome, RpcResponse, governed, tasks};
use holdpoint_control::{Permit, PermitFault};
use holdpoint_types::{Reason, Timestamp, canonical_digest};
use serde_json::Value;
use std::pin::pin;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::time::Instant;

/// How long a call that was given up is kept in mind.
const LINGER: Duration = Duration::from_secs(15 * 60);

/// A call that may be sent: its permit has cleared it, or the operator declared it. Made in two
/// places only.
#[derive(Debug)]
struct Cleared(ToolCall);

/// Why we stop waiting for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Early {
    Stop,
    Agent,
    Timeout,
}

/// What can be told about a result without reading all of it.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shallow {
    #[serde(default)]
    is_error: Option<bool>,
    #[serde(default)]
    result_type: Option<Value>,
    /// What a task is, until 2025-11-25.
    #[serde(default)]
    task: Option<Value>,
}

// === impl Upstream ===

impl Upstream {
    /// Executes one call, once. Connects if need be; waits at most `spec.timeout`, plus `grace`
    /// after a cancellation. If the future is dropped, the call is cancelled and nothing is known
    /// about it.
    pub async fn call(
        &self,
        permit: Permit,
        call: ToolCall,
        now: Timestamp,
        cancels: Cancels,
    ) -> Ended {
        match clear(&permit, call, now) {
            Ok(cleared) => self.run(cleared, &cancels).await,
            Err(fault) => {
                let detail = fault.to_string();
                Ended::NotSent { reason: Reason::CouldNotDecide, detail }
            }
        }
    }

    /// Executes a call that the operator declared, once: the one door that takes no permit. What
    /// goes through it can only be made by the module that reads declarations, which says when.
    pub(crate) async fn run_declared(&self, declared: DeclaredCall, cancels: &Cancels) -> Ended {
        self.run(Cleared(declared.into_call()), cancels).await
    }

    async fn run(&self, cleared: Cleared, cancels: &Cancels) -> Ended {
        let server = &self.spec().server;
        if cleared.0.tool.server() != server {
            let detail = format!("`{}` is no tool of `{server}`", cleared.0.tool);
            return Ended::NotSent { reason: Reason::ToolUnknown, detail };
        }
        let deadline = Instant::now() + self.spec().timeout;
        let connected = tokio::select! {
            biased;
            early = cancels.early(deadline) => return early.not_sent("the server was starting"),
            connected = self.connect() => connected,
        };
        match connected {
            Ok(connected) => self.run_on(&connected, &cleared.0, (cancels, deadline)).await,
            Err(kind) => ended_without(Fault::unsent(kind)),
        }
    }

    async fn run_on(
        &self,
        connected: &Connected,
        call: &ToolCall,
        until: (&Cancels, Instant),
    ) -> Ended {
        let grace = self.spec().limits.grace;
        let mut params = params_of(connected.era, call);
        let method = governed::method_of(&call.tool);
        let progress = call.progress.clone();
        let follows = connected.tasks && method == governed::TOOLS_CALL && tasks::follows(&params);
        if !follows {
            tasks::withhold_declared(&mut params);
        }
        let ended = match &connected.link {
            Link::Stdio(link) => {
                let request = StdioRequest { method, params, progress };
                run_stdio(link, request, until, grace).await
            }
            Link::Http(link) => {
                let mut request = link.request(method, params);
                if progress.is_some() {
                    era::set_progress(&mut request.params, request.id.to_value());
                }
                let headers = self.mirrored(call);
                let request = HttpRequest { request, headers, progress };
                let grace = if connected.era == Era::Modern { Duration::ZERO } else { grace };
                run_http(link, request, until, grace).await
            }
        };
        if follows { ended.with_task_of(self) } else { ended.without_task() }
    }

    fn mirrored(&self, call: &ToolCall) -> Vec<(String, String)> {
        let mirrors = self.0.mirrors.lock().unwrap_or_else(PoisonError::into_inner);
        let headers = mirrors.get(call.tool.name()).into_iter().flatten();
        headers.filter_map(|header: &ParamHeader| header.mirror(&call.parameters)).collect()
    }
}

// === impl Cancels ===

impl Cancels {
    /// Ready when the call must end early. A stop comes before everything else.
    async fn early(&self, deadline: Instant) -> Early {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Early::Stop,
            () = self.agent.cancelled() => Early::Agent,
            () = tokio::time::sleep_until(deadline) => Early::Timeout,
        }
    }
}

// === impl Ended ===

impl Ended {
    /// The end of a call that was sent and got this answer.
    pub fn by(answer: Outcome) -> Self {
        let in_doubt = |reason, detail: &str| Self::InDoubt { reason, detail: detail.to_owned() };
        let tool_error = match &answer {
            Outcome::Error(_) => true,
            Outcome::Result(raw) => match serde_json::from_str::<Shallow>(raw.get()) {
                // A derived reader takes an array for an object.
                Ok(shallow) if raw.get().starts_with('{') => {
                    if shallow.is_task() {
                        return Self::Task { body: answer, upstream: None };
                    }
                    shallow.is_error == Some(true)
                }
                Ok(_) | Err(_) => {
                    let detail = "the result is no object, or `isError` no boolean";
                    return in_doubt(Reason::UpstreamInvalid, detail);
                }
            },
        };
        Self::Answered { body: answer, tool_error }
    }

    /// The end of a call whose agent follows no tasks.
    #[must_use]
    pub fn without_task(self) -> Self {
        match self {
            Self::Task { .. } => {
                let detail = "the server answered with a task, which goes on unwatched".to_owned();
                Self::InDoubt { reason: Reason::TaskRefused, detail }
            }
            other => other,
        }
    }

    /// The end of a call whose agent follows tasks of `server`.
    fn with_task_of(self, server: &Upstream) -> Self {
        match self {
            Self::Task { body, .. } => Self::Task { body, upstream: Some(server.clone()) },
            other => other,
        }
    }
}

// === impl Shallow ===

impl Shallow {
    /// True for a task instead of a result, in the words of either era.
    fn is_task(&self) -> bool {
        let older = self.task.as_ref().and_then(|task| task.get("taskId"));
        self.result_type.as_ref().is_some_and(|kind| kind == RESULT_TASK) || older.is_some()
    }
}

// === impl Early ===

impl Early {
    fn reason(self) -> Reason {
        match self {
            Self::Stop => Reason::CancelledByStop,
            Self::Agent => Reason::CancelledByAgent,
            Self::Timeout => Reason::UpstreamTimeout,
        }
    }

    /// What the server is told.
    fn word(self) -> &'static str {
        match self {
            Self::Stop => "stopped by the operator",
            Self::Agent => "cancelled by the agent",
            Self::Timeout => "timed out",
        }
    }

    fn not_sent(self, detail: &str) -> Ended {
        Ended::NotSent { reason: self.reason(), detail: detail.to_owned() }
    }

    fn in_doubt(self, detail: impl Into<String>) -> Ended {
        Ended::InDoubt { reason: self.reason(), detail: detail.into() }
    }

    /// What an answer that came after the cancellation tells.
    fn late(self, answer: Result<RpcResponse, Fault>) -> Ended {
        match answer {
            Ok(RpcResponse { outcome: Outcome::Error(_), .. }) => {
                self.in_doubt("the server ended the cancelled call with an error")
            }
            Ok(response) => ended_of(response),
            Err(fault) if !fault.may_have_arrived => self.not_sent(&fault.kind.to_string()),
            Err(fault) => self.in_doubt(format!("after the cancellation: {}", fault.kind)),
        }
    }
}

/// The one way from a permit to a call.
fn clear(permit: &Permit, mut call: ToolCall, now: Timestamp) -> Result<Cleared, PermitFault> {
    let digest = canonical_digest(&call.parameters).map_err(|_| PermitFault::OtherParameters)?;
    permit.check(&call.tool, digest, now)?;
    if permit.is_approved() {
        call.more.extend(call.meta.take().map(|meta| ("_meta".to_owned(), meta)));
        era::strip_unapproved(&mut call.more);
        call.meta = call.more.remove("_meta");
    }
    Ok(Cleared(call))
}

fn params_of(era: Era, call: &ToolCall) -> Value {
    let mut params = call.more.clone();
    match (call.tool.is_read_request(), &call.parameters) {
        (true, Value::Object(parameters)) => params.extend(parameters.clone()),
        _ => {
            params.insert("name".into(), call.tool.name().into());
            params.insert("arguments".into(), call.parameters.clone());
        }
    }
    let meta = era::forwarded_meta(call.meta.as_ref()).map(Value::Object);
    params.extend(meta.map(|meta| ("_meta".to_owned(), meta)));
    let mut params = era::params_for(era, params, &Identity::holdpoint());
    if era == Era::Modern {
        era::declare_capabilities(&mut params, call.meta.as_ref());
    }
    params
}

async fn run_stdio(
    link: &StdioLink,
    request: StdioRequest<'_>,
    (cancels, deadline): (&Cancels, Instant),
    grace: Duration,
) -> Ended {
    let flight = tokio::select! {
        biased;
        early = cancels.early(deadline) => return early.not_sent("the server takes no input"),
        flight = link.begin_with(request) => flight,
    };
    let flight = match flight {
        Ok(flight) => flight,
        Err(kind) => return ended_without(Fault::unsent(kind)),
    };
    fly(flight, (cancels, deadline), grace).await
}

async fn fly(
    mut flight: Flight,
    (cancels, deadline): (&Cancels, Instant),
    grace: Duration,
) -> Ended {
    let early = tokio::select! {
        biased;
        answer = flight.answer() => return answer.map_or_else(ended_without, ended_of),
        early = cancels.early(deadline) => early,
    };
    if flight.withdraw() {
        return early.not_sent("cancelled before the server took it");
    }
    flight.cancel(early.word());
    match early {
        Early::Timeout => {
            linger(flight, cancels.clone());
            early.in_doubt("no answer in time; the server was told to cancel")
        }
        Early::Agent => wait_for_agent(flight, cancels, grace).await,
        Early::Stop => stop(flight, grace).await,
    }
}

async fn wait_for_agent(mut flight: Flight, cancels: &Cancels, grace: Duration) -> Ended {
    let ended = tokio::select! {
        biased;
        answer = flight.answer() => Some(Early::Agent.late(answer)),
        () = cancels.stop.cancelled() => None,
        () = tokio::time::sleep(grace) => {
            linger(flight, cancels.clone());
            let detail = "the server was told to cancel and said nothing more";
            return Early::Agent.in_doubt(detail);
        }
    };
    match ended {
        Some(ended) => ended,
        None => stop(flight, grace).await,
    }
}

/// Keeps an eye on a call that was given up while its server may still be at it: a stop that comes
/// later kills the server all the same.
fn linger(mut flight: Flight, cancels: Cancels) {
    tokio::spawn(async move {
        tokio::select! {
            biased;
            _ = flight.answer() => {}
            () = cancels.stop.cancelled() => {
                flight.forget();
                flight.kill_server().await;
            }
            () = tokio::time::sleep(LINGER) => {}
        }
        cancels.gone.cancel();
    });
}

/// Waits for a call that was told to stop; a server that stays silent is killed, for silence does
/// not tell obedience from defiance.
async fn stop(mut flight: Flight, grace: Duration) -> Ended {
    if let Ok(answer) = tokio::time::timeout(grace, flight.answer()).await {
        return Early::Stop.late(answer);
    }
    flight.forget();
    flight.kill_server().await;
    Early::Stop.in_doubt("the server did not end the call in time; its processes were killed")
}

async fn run_http(
    link: &HttpLink,
    asking: HttpRequest,
    (cancels, deadline): (&Cancels, Instant),
    grace: Duration,
) -> Ended {
    let id = asking.request.id.clone();
    let mut answer = pin!(link.ask(asking));
    let early = tokio::select! {
        biased;
        answer = &mut answer => return answer.map_or_else(ended_without, ended_of),
        early = cancels.early(deadline) => early,
    };
    link.cancel(&id, early.word());
    if early != Early::Timeout
        && let Ok(answer) = tokio::time::timeout(grace, answer).await
    {
        return early.late(answer);
    }
    // Returning drops the request, which is how a modern server hears of the cancellation.
    early.in_doubt("no answer; the server was told to cancel and the request was dropped")
}

fn ended_of(response: RpcResponse) -> Ended {
    Ended::by(response.outcome)
}

fn ended_without(fault: Fault) -> Ended {
    let (reason, detail) = (fault.kind.reason(), fault.kind.to_string());
    if fault.may_have_arrived {
        return Ended::InDoubt { reason, detail };
    }
    Ended::NotSent { reason, detail }
}
