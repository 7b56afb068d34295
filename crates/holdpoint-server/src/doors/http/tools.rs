//! `tools/list` and `tools/call` over HTTP: what an agent sees, and the way of its calls.
//! Must never show or call a tool that the governor has not ruled on.

use super::progress::{self, Progress};
use super::turns::Turn;
use super::{Asked, HttpDoor, InFlight, Refused, by_name, misfit, own_result, respond};
use crate::catalog::{Catalog, Tool};
use crate::doors::held::{self, Client};
use crate::doors::plans::{self, Asking};
use crate::doors::{answer, asks, tasks};
use crate::governor::Call;
use axum::http::StatusCode;
use axum::response::Response;
use futures::future::join_all;
use holdpoint_resources::mcp::era::{self, Era};
use holdpoint_resources::mcp::{RpcId, RpcRequest, RpcResponse, governed, headers};
use holdpoint_resources::{ToolCall, Upstream, UpstreamFault};
use holdpoint_types::{AgentName, Door, EffectClass, Reason, ServerName, ToolRef, ToolState};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio_util::sync::CancellationToken;

/// Takes a call out of the list of cancellable ones, and cancels it if the client went away.
pub(super) struct Cancellable {
    all: Arc<Mutex<InFlight>>,
    key: (AgentName, RpcId),
    number: u64,
    pub(super) asked: CancellationToken,
    era: Era,
}

// === impl HttpDoor ===

impl HttpDoor {
    /// The tools that the agent's grants reach, in the order of their names.
    pub(super) async fn list_tools(&self, asked: &Asked<'_>) -> Result<Value, Box<Refused>> {
        self.look_at_servers(asked).await?;
        let settings = self.governor.settings();
        let upstreams = self.upstreams.load_full();
        let reaches = |tool: &Arc<Tool>| {
            let here = asked.server.is_none_or(|server| server == tool.name.server());
            let class = tool.class(&settings);
            let upstream = upstreams.get(tool.name.server());
            here && tool.state == ToolState::Pinned
                && upstream.is_some_and(|one| one.offers(&asked.agent, tool.name.name()))
                && settings.reaches(&asked.agent, &tool.name, class)
        };
        let tools = self.governor.catalog().all().into_iter().filter(reaches);
        let tools = tools.map(|tool| match asked.server {
            Some(_) => tool.definition.clone(),
            None => named(&tool),
        });
        let own = self.governor.takes_plans().then(plans::definitions);
        let mut result = Map::new();
        result.insert("tools".into(), tools.chain(own.into_iter().flatten()).collect());
        if asked.era == Era::Modern {
            // Grants, pins and stops change at any time: a list is good for the moment.
            result.insert("ttlMs".into(), 0.into());
            result.insert("cacheScope".into(), "private".into());
        }
        Ok(own_result(asked.era, result))
    }

    pub(super) async fn call_tool(
        &self,
        mut asked: Asked<'_>,
        turn: Turn,
    ) -> Result<Response, Box<Refused>> {
        held::strip(&mut asked.request);
        if self.is_about_plans(&asked.request) {
            return Ok(self.answer_about_plans(&asked).await);
        }
        let (tool, parameters) = read(&asked)?;
        let id = asked.request.id.clone();
        let (era, client) = (asked.era, Client::of(asked.era, &asked.request));
        let upstreams = self.upstreams.load_full();
        let Some(upstream) = upstreams.get(tool.server()) else {
            return Err(unknown_tool(&asked.request, &tool.to_string()));
        };
        let upstream = upstream.for_agent(&asked.agent);
        self.look_for(&asked, (&tool, &upstream)).await?;
        self.check_params(&asked, &tool, &parameters)?;
        if let Some(line) = self.asking_line(&asked, tool.server(), &upstream).await? {
            rename(&mut asked.request, tool.name());
            return self.over_line(line, &asked, turn).await;
        }
        asks::withhold(&self.governor.settings(), tool.server(), &mut asked.request);
        if !self.governor.may_be_given_a_task(&asked.agent) {
            // A server that cannot do without says so, before it does anything.
            tasks::withhold(&mut asked.request);
        }
        let meta = asked.request.param("_meta").cloned();
        let call = Call {
            agent: asked.agent.clone(),
            door: Door::McpHttp,
            tool: tool.clone(),
            parameters: parameters.clone(),
            meta: meta.clone(),
            condition: None,
        };
        let cancellable = self.cancellable(&asked);
        let gone = cancellable.asked.clone();
        let more = governed::further_members(&asked.request);
        let (sender, progress) = Progress::of(&asked).unzip();
        let now = self.governor.clone();
        let execute = async move |permit, cancel| {
            // As long as the call runs, even if the agent went away.
            let _turn = turn;
            let call = ToolCall { meta, more, progress: sender, ..ToolCall::new(tool, parameters) };
            upstream.call(permit, call, now.now(), cancel).await
        };
        let governor = self.governor.clone();
        let whose = (call.tool.server().clone(), call.agent.clone());
        asks::note_replies(&governor, (&whose.0, &whose.1), &asked.request);
        let work = async move {
            let governed = governor.govern(call, gone, execute).await;
            let governed = asks::screen(&governor, (&whose.0, &whose.1), governed).await;
            drop(cancellable);
            RpcResponse { id: Some(id), outcome: answer::outcome(governed, client) }
        };
        Ok(progress::answer(era, progress, work).await)
    }

    /// True if the request calls one of our own tools.
    pub(super) fn is_about_plans(&self, request: &RpcRequest) -> bool {
        plans::is_call(request) && self.governor.takes_plans()
    }

    async fn answer_about_plans(&self, asked: &Asked<'_>) -> Response {
        let upstreams = self.upstreams.load_full();
        for tool in plans::unknown_tools((&self.governor, asked.server), &asked.request) {
            if let Some(upstream) = upstreams.get(tool.server()) {
                let upstream = upstream.for_agent(&asked.agent);
                // What cannot be listed is a tool that the checker does not know.
                let _ = self.look_for(asked, (&tool, &upstream)).await;
            }
        }
        let (agent, server, era) = (&asked.agent, asked.server, asked.era);
        let asking = Asking { agent, server, era };
        let outcome = plans::answer(&self.governor, asking, &asked.request).await;
        respond(&RpcResponse { id: Some(asked.request.id.clone()), outcome })
    }

    /// Checks the headers that mirror arguments, which only modern clients send. An unknown tool
    /// has none; it is denied later.
    fn check_params(
        &self,
        asked: &Asked<'_>,
        tool: &ToolRef,
        parameters: &Value,
    ) -> Result<(), Box<Refused>> {
        let Some(tool) = self.governor.catalog().tool(tool) else { return Ok(()) };
        if asked.era == Era::Legacy {
            return Ok(());
        }
        let schema = tool.definition.get("inputSchema").unwrap_or(&Value::Null);
        headers::check_params(by_name(asked.headers), schema, parameters)
            .map_err(|fault| misfit(&fault, &asked.request))
    }

    /// The class of a tool, whose server is asked for it if it is not known yet.
    pub(super) async fn class_of(&self, agent: &AgentName, tool: &ToolRef) -> Option<EffectClass> {
        let known = |door: &Self| {
            let settings = door.governor.settings();
            door.governor.catalog().tool(tool).map(|tool| tool.class(&settings))
        };
        if let Some(class) = known(self) {
            return Some(class);
        }
        let upstreams = self.upstreams.load_full();
        let upstream = upstreams.get(tool.server())?.for_agent(agent);
        if let Err(fault) = self.look_at(tool.server(), &upstream).await {
            tracing::warn!(server = %tool.server(), %fault, "its tools cannot be listed");
        }
        known(self)
    }

    /// Makes sure that `tool` is known, if its server offers it.
    async fn look_for(
        &self,
        asked: &Asked<'_>,
        (tool, upstream): (&ToolRef, &Upstream),
    ) -> Result<(), Box<Refused>> {
        let known = |catalog: &Catalog| catalog.tool(tool).is_some();
        if known(self.governor.catalog()) && !upstream.tools_changed() {
            return Ok(());
        }
        match self.look_at(tool.server(), upstream).await {
            Ok(()) => Ok(()),
            // What cannot even be looked up for want of a credential is not called unknown.
            Err(fault) if is_unauthorized(&fault) && !known(self.governor.catalog()) => {
                Err(unlisted(asked, &fault))
            }
            Err(fault) => {
                // Shows as an unknown tool, which is denied and recorded.
                tracing::warn!(server = %tool.server(), %fault, "its tools cannot be listed");
                Ok(())
            }
        }
    }

    /// Lists the tools of every server that the endpoint serves; a server that fails is left out.
    async fn look_at_servers(&self, asked: &Asked<'_>) -> Result<(), Box<Refused>> {
        let here = |server: &ServerName| asked.server.is_none_or(|one| one == server);
        let upstreams = self.upstreams.load_full();
        let looks = upstreams.iter().filter(|(server, _)| here(server));
        let looks = looks.map(|(server, upstream)| async move {
            let looked = self.look_at(server, &upstream.for_agent(&asked.agent)).await;
            looked.inspect_err(|fault| {
                tracing::warn!(%server, %fault, "its tools cannot be listed");
            })
        });
        let looked = join_all(looks).await;
        match (asked.server, looked.into_iter().next()) {
            (Some(_), Some(Err(fault))) => Err(unlisted(asked, &fault)),
            _ => Ok(()),
        }
    }

    async fn look_at(&self, server: &ServerName, upstream: &Upstream) -> Result<(), UpstreamFault> {
        let definitions = upstream.list_tools().await.inspect_err(|fault| {
            // A server that lives and does not say what its tools are now has none.
            if !matches!(fault, UpstreamFault::Unavailable(_)) && !is_unauthorized(fault) {
                self.governor.catalog().forget(server);
            }
        })?;
        let observed = self.governor.observe(server, definitions).await;
        let observed = observed.map_err(|fault| UpstreamFault::Unavailable(fault.to_string()))?;
        for (tool, pinned, seen) in &observed.changed {
            tracing::warn!(%tool, %pinned, %seen, "its definition changed: quarantined");
        }
        for why in &observed.unusable {
            tracing::warn!(%server, %why, "a tool cannot be used");
        }
        Ok(())
    }

    pub(super) fn cancellable(&self, asked: &Asked<'_>) -> Cancellable {
        let key = (asked.agent.clone(), asked.request.id.clone());
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let token = CancellationToken::new();
        self.cancellable.lock().insert(key.clone(), (number, token.clone()));
        Cancellable {
            all: Arc::clone(&self.cancellable),
            key,
            number,
            asked: token,
            era: asked.era,
        }
    }
}

// === impl Cancellable ===

impl Drop for Cancellable {
    fn drop(&mut self) {
        let mut cancellable = self.all.lock();
        // Another client of the same agent may have a call in flight under the same id.
        if cancellable.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            cancellable.remove(&self.key);
        }
        // A modern client cancels by going away; a legacy one may come back for the answer.
        if self.era == Era::Modern {
            self.asked.cancel();
        }
    }
}

/// A definition under its full name.
fn named(tool: &Tool) -> Value {
    let mut definition = tool.definition.clone();
    if let Some(object) = definition.as_object_mut() {
        object.insert("name".into(), tool.name.to_string().into());
    }
    definition
}

/// The tool that a `tools/call` names.
pub(super) fn tool_of(
    server: Option<&ServerName>,
    request: &RpcRequest,
) -> Result<ToolRef, Box<Refused>> {
    let name = request.param("name").and_then(Value::as_str);
    let name = name.ok_or_else(|| invalid(request, "`params.name` must be a string"))?;
    let tool = match server {
        Some(server) => ToolRef::new(server.clone(), name),
        None => name.parse(),
    };
    let tool = tool.map_err(|_| unknown_tool(request, name))?;
    if tool.is_read_request() {
        return Err(unknown_tool(request, name));
    }
    Ok(tool)
}

fn read(asked: &Asked<'_>) -> Result<(ToolRef, Value), Box<Refused>> {
    let request = &asked.request;
    let tool = tool_of(asked.server, request)?;
    let parameters = request.param("arguments").cloned().unwrap_or_else(|| json!({}));
    if !parameters.is_object() {
        return Err(invalid(request, "`params.arguments` must be an object"));
    }
    Ok((tool, parameters))
}

fn invalid(request: &RpcRequest, detail: &str) -> Box<Refused> {
    let status = StatusCode::OK;
    let refused = Refused::new(status, Reason::ParametersInvalid, detail.to_owned());
    refused.coded(era::INVALID_PARAMS).about(request)
}

/// The call under the name that the server knows.
pub(super) fn rename(request: &mut RpcRequest, name: &str) {
    if let Some(params) = request.params.as_mut().and_then(Value::as_object_mut) {
        params.insert("name".into(), name.into());
    }
}

fn is_unauthorized(fault: &UpstreamFault) -> bool {
    matches!(fault, UpstreamFault::Unauthorized(_) | UpstreamFault::Scope(_))
}

fn unlisted(asked: &Asked<'_>, fault: &UpstreamFault) -> Box<Refused> {
    let reason = if is_unauthorized(fault) { fault.reason() } else { Reason::UpstreamUnavailable };
    let refused = Refused::new(StatusCode::OK, reason, fault.to_string());
    refused.coded(era::INTERNAL_ERROR).about(&asked.request)
}

pub(super) fn unknown_tool(request: &RpcRequest, name: &str) -> Box<Refused> {
    let shown: String = name.chars().take(128).collect();
    let refused =
        Refused::new(StatusCode::OK, Reason::ToolUnknown, format!("unknown tool `{shown}`"));
    refused.coded(era::INVALID_PARAMS).about(request)
}
