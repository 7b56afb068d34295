//! MCP's tasks over HTTP: what follows, feeds and cancels those of 2026-07-28; all else about tasks
//! is refused before anything is decided.
//!
//! Must never tell anybody but the agent that made the call that a task exists.

use super::turns::Turn;
use super::{Asked, HttpDoor, Refused, own_result, respond};
use crate::doors::answer::DENIED;
use crate::doors::{asks, tasks};
use crate::governor::Followed;
use crate::store::StoreFault;
use axum::http::StatusCode;
use axum::response::Response;
use holdpoint_resources::Upstream;
use holdpoint_resources::mcp::era::{self, Era, INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND};
use holdpoint_resources::mcp::tasks::{self as protocol, Task};
use holdpoint_resources::mcp::{Identity, Outcome, RpcRequest, RpcResponse};
use holdpoint_types::{AgentName, Mode, Reason, ToolRef};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// What an agent of 2026-07-28 may ask about a task of its own.
const FOLLOWING: [&str; 3] = ["tasks/get", "tasks/update", "tasks/cancel"];

/// What the door says of itself, with tasks, which only the modern era has here.
pub(super) fn discovered(identity: &Identity, mut capabilities: Value) -> Value {
    if let (Value::Object(all), Value::Object(tasks)) = (&mut capabilities, protocol::declaration())
    {
        all.extend(tasks);
    }
    era::discover_result(identity, capabilities)
}

/// Refuses what asks for a task, and what follows one in another era.
pub(super) fn check(asked: &Asked<'_>) -> Result<(), Box<Refused>> {
    if asked.era == Era::Modern && FOLLOWING.contains(&asked.request.method.as_str()) {
        return Ok(());
    }
    let Some((code, text)) = tasks::refused(&asked.request) else { return Ok(()) };
    let status = match (code, asked.era) {
        (METHOD_NOT_FOUND, Era::Modern) => StatusCode::NOT_FOUND,
        _ => StatusCode::OK,
    };
    let refused = Refused::new(status, Reason::TaskRefused, text.to_owned());
    Err(refused.coded(code).about(&asked.request))
}

// === impl HttpDoor ===

impl HttpDoor {
    /// Follows, feeds or cancels a task of the agent.
    pub(super) async fn follow_task(
        &self,
        asked: Asked<'_>,
        _turn: Turn,
    ) -> Result<Response, Box<Refused>> {
        if !asked.request.params.as_ref().is_some_and(protocol::follows) {
            return Err(undeclared(&asked));
        }
        let own_id = protocol::id_of(&asked.request).ok_or_else(|| unknown(&asked))?;
        let ledger = |fault: StoreFault| {
            tracing::error!(%fault, "a task cannot be looked up or recorded");
            refused(&asked, INTERNAL_ERROR, (Reason::LedgerUnavailable, fault.to_string()))
        };
        let found = self.governor.task(&asked.agent, own_id).map_err(ledger)?;
        let here = |followed: &Followed| {
            asked.server.is_none_or(|server| server == followed.tool.server())
        };
        let followed = found.filter(here).ok_or_else(|| unknown(&asked))?;
        let upstream = self.upstreams.load().get(followed.tool.server()).cloned();
        let upstream = upstream.ok_or_else(|| unknown(&asked))?.for_agent(&asked.agent);
        self.check_task(&asked, &followed).await?;
        self.governor.take_over(&followed, &upstream).await.map_err(ledger)?;
        let outcome = match self.ask_after(&asked, (&followed, own_id), &upstream).await {
            Ok(outcome) => outcome,
            Err(why) => return Err(refused(&asked, INTERNAL_ERROR, why)),
        };
        Ok(respond(&RpcResponse { id: Some(asked.request.id.clone()), outcome }))
    }

    /// The tool that a request reaches by feeding a task.
    pub(super) fn fed_tool(&self, agent: &AgentName, request: &RpcRequest) -> Option<ToolRef> {
        let id = protocol::id_of(request).filter(|_| request.method == "tasks/update")?;
        self.governor.task(agent, id).ok().flatten().map(|followed| followed.tool)
    }

    /// What was permitted once must still be: no stop, a mode that acts, a grant that reaches.
    async fn check_task(&self, asked: &Asked<'_>, followed: &Followed) -> Result<(), Box<Refused>> {
        let (agent, tool) = (&asked.agent, &followed.tool);
        let class = self.class_of(agent, tool).await;
        let settings = self.governor.settings();
        let mode = settings.agent(agent).map(|facts| facts.mode);
        let granted = class.and_then(|class| settings.grant_for(agent, tool, class)).is_some();
        let stops = self.governor.stops();
        let reason = match mode {
            _ if stops.iter().any(|stop| stop.scope.covers(agent, tool)) => Reason::Stopped,
            None => Reason::AgentUnknown,
            Some(Mode::Quarantined) => Reason::AgentQuarantined,
            Some(_) if !granted => Reason::NotGranted,
            Some(_) => return Ok(()),
        };
        Err(refused(asked, DENIED, (reason, reason.meaning().to_owned())))
    }

    async fn ask_after(
        &self,
        asked: &Asked<'_>,
        (followed, own_id): (&Followed, &str),
        upstream: &Upstream,
    ) -> Result<Outcome, (Reason, String)> {
        let method = asked.request.method.as_str();
        let whose = (followed.tool.server(), &asked.agent);
        let mut request = asked.request.clone();
        asks::withhold(&self.governor.settings(), followed.tool.server(), &mut request);
        let meta = request.param("_meta").cloned().unwrap_or_default();
        let mut params = Map::from_iter([("taskId".to_owned(), followed.id.as_str().into())]);
        if method == "tasks/update" {
            let replies = request.param("inputResponses").filter(|replies| replies.is_object());
            let malformed = || "`inputResponses` must be an object".to_owned();
            let replies = replies.ok_or_else(|| (Reason::ParametersInvalid, malformed()))?;
            params.insert("inputResponses".into(), replies.clone());
            asks::note_task_replies(&self.governor, whose, own_id, &request);
        }
        let outcome = upstream.follow(method, params, &meta).await;
        let outcome = outcome.map_err(|fault| (fault.reason(), fault.to_string()))?;
        match (method, &outcome) {
            ("tasks/get", Outcome::Result(raw)) => {
                let raw = self.shown(whose.1, (followed, own_id), raw).await?;
                Ok(Outcome::Result(raw))
            }
            ("tasks/get", Outcome::Error(_)) => {
                self.governor.note_task(followed.action, &outcome).map(|()| outcome)
            }
            (_, Outcome::Error(_)) => Ok(outcome),
            (_, Outcome::Result(_)) => {
                if method == "tasks/cancel" {
                    self.governor.task_taken_back(followed.action);
                }
                let done = own_result(Era::Modern, Map::new());
                Ok(RpcResponse::result_value(asked.request.id.clone(), &done).outcome)
            }
        }
    }

    /// What a server says about a task, as its agent may read it.
    async fn shown(
        &self,
        agent: &AgentName,
        (followed, own_id): (&Followed, &str),
        raw: &RawValue,
    ) -> Result<Box<RawValue>, (Reason, String)> {
        let invalid = |detail: String| (Reason::UpstreamInvalid, detail);
        let task = Task::read(raw).map_err(invalid)?;
        if task.id != followed.id {
            return Err(invalid("the server tells of another task".to_owned()));
        }
        if task.member("inputRequests").is_some() {
            let whose = (followed.tool.server(), agent);
            asks::screen_task(&self.governor, whose, (followed.action, own_id), raw).await?;
        }
        self.governor.note_task(followed.action, &Outcome::Result(raw.to_owned()))?;
        task.under(own_id).ok_or_else(|| invalid("the task cannot be told".to_owned()))
    }
}

fn refused(asked: &Asked<'_>, code: i64, (reason, detail): (Reason, String)) -> Box<Refused> {
    Refused::new(StatusCode::OK, reason, detail).coded(code).about(&asked.request)
}

/// The same for an id that nobody has and for one that another agent has.
fn unknown(asked: &Asked<'_>) -> Box<Refused> {
    let reason = Reason::TaskUnknown;
    refused(asked, INVALID_PARAMS, (reason, reason.meaning().to_owned()))
}

fn undeclared(asked: &Asked<'_>) -> Box<Refused> {
    let why = (Reason::CapabilityMissing, "the client does not declare tasks".to_owned());
    let wanted = json!({ "requiredCapabilities": protocol::declaration() });
    refused(asked, era::MISSING_CLIENT_CAPABILITY, why).telling(wanted)
}
