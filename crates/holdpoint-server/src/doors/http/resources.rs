//! Resources, prompts and completions over HTTP without a thread: lists put together from all
//! servers, and requests brought to the server whose they are.
//!
//! Must never read what the governor has not ruled on, nor guess between servers without saying so.

use super::progress::{self, Code, Progress};
use super::turns::Turn;
use super::{Asked, HttpDoor, Refused};
use crate::doors::reads::{self, List};
use crate::doors::{answer, asks, tasks};
use axum::http::StatusCode;
use axum::response::Response;
use futures::future::join_all;
use holdpoint_resources::mcp::era::{self, METHOD_NOT_FOUND};
use holdpoint_resources::mcp::{Outcome, RpcRequest, RpcResponse};
use holdpoint_resources::{ToolCall, Upstream};
use holdpoint_types::{Door, Reason, ServerName};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What separates server and prompt where many servers share one endpoint.
const SEPARATOR: &str = "__";
/// Most pages of one list.
const PAGES_MAX: usize = 100;
/// Most entries of one server's list.
const ENTRIES_MAX: usize = 10_000;

// === impl HttpDoor ===

impl HttpDoor {
    /// The entries that the agent's grants reach, of every server that the endpoint serves.
    pub(super) async fn list_entries(
        &self,
        asked: &Asked<'_>,
        list: &List,
    ) -> Result<Value, Box<Refused>> {
        let settings = self.governor.settings();
        let upstreams = self.upstreams.load_full();
        let shown = |server: &ServerName| {
            asked.server.is_none_or(|one| one == server)
                && list.is_shown(&settings, &asked.agent, server)
        };
        let shown = upstreams.iter().filter(|(server, _)| shown(server));
        let own = |upstream: &Upstream| upstream.for_agent(&asked.agent);
        let looks =
            shown.map(async |(server, upstream)| (server, entries(&own(upstream), list).await));
        let mut all = Vec::new();
        for (server, found) in join_all(looks).await {
            match found {
                Ok(found) if asked.server.is_none() && list.member == "prompts" => {
                    all.extend(found.into_iter().map(|prompt| named(server, prompt)));
                }
                Ok(found) => all.extend(found),
                Err(why) if asked.server.is_some() => {
                    let refused = Refused::new(StatusCode::OK, Reason::UpstreamUnavailable, why);
                    return Err(refused.coded(era::INTERNAL_ERROR).about(&asked.request));
                }
                Err(why) => tracing::warn!(%server, why, method = list.method, "left out"),
            }
        }
        Ok(list.result(asked.era, all))
    }

    /// Reads a resource or a prompt, or completes an argument, once the governor has ruled on it.
    pub(super) async fn read_resource(
        &self,
        asked: Asked<'_>,
        turn: Turn,
    ) -> Result<Response, Box<Refused>> {
        let id = asked.request.id.clone();
        let upstreams = self.upstreams.load_full();
        let (server, mut request) = match asked.server {
            Some(server) => (server.clone(), asked.request.clone()),
            None => self.routed(&asked, &upstreams).await?,
        };
        if let Some(upstream) = upstreams.get(&server)
            && let Some(line) = self.asking_line(&asked, &server, upstream).await?
        {
            let asked = Asked { request, server: asked.server, agent: asked.agent, ..asked };
            return self.over_line(line, &asked, turn).await;
        }
        asks::withhold(&self.governor.settings(), &server, &mut request);
        tasks::withhold(&mut request);
        let call = reads::proposed(&asked.agent, Door::McpHttp, &server, &request);
        let (Some(call), Some(upstream)) = (call, upstreams.get(&server)) else {
            return Err(not_found(&asked.request));
        };
        let upstream = upstream.for_agent(&asked.agent);
        let mut read = ToolCall::new(call.tool.clone(), call.parameters.clone());
        read.meta.clone_from(&call.meta);
        let (sender, progress) = Progress::of(&asked).unzip();
        read.progress = sender;
        let cancellable = self.cancellable(&asked);
        let gone = cancellable.asked.clone();
        let now = self.governor.clone();
        let execute = async move |permit, cancels| {
            let _turn = turn;
            upstream.call(permit, read, now.now(), cancels).await
        };
        let (era, governor) = (asked.era, self.governor.clone());
        let whose = (server, call.agent.clone());
        asks::note_replies(&governor, (&whose.0, &whose.1), &request);
        let work = async move {
            let governed = governor.govern(call, gone, execute).await;
            let governed = asks::screen(&governor, (&whose.0, &whose.1), governed).await;
            drop(cancellable);
            RpcResponse { id: Some(id), outcome: answer::read_outcome(governed) }
        };
        Ok(progress::answer(era, progress, work).await)
    }

    /// The server whose the request is, and the request as that server knows it.
    pub(super) async fn routed(
        &self,
        asked: &Asked<'_>,
        upstreams: &BTreeMap<ServerName, Upstream>,
    ) -> Result<(ServerName, RpcRequest), Box<Refused>> {
        let of = asked.request.param("ref").or(asked.request.params.as_ref());
        let text = |key: &str| of.and_then(|of| of.get(key)).and_then(Value::as_str);
        if let Some(name) = text("name") {
            let (server, name) = name.split_once(SEPARATOR).unwrap_or_default();
            let server = server.parse().ok().filter(|server| upstreams.contains_key(server));
            let server: ServerName = server.ok_or_else(|| not_found(&asked.request))?;
            return Ok((server, renamed(&asked.request, name)));
        }
        let uri = text("uri").ok_or_else(|| not_found(&asked.request))?;
        let server = self.owner(asked, upstreams, uri).await;
        let server = server.ok_or_else(|| not_found(&asked.request))?;
        Ok((server, asked.request.clone()))
    }

    /// The first server by name that lists `uri`, or else one of whose templates it may be made.
    /// Only servers that the agent has a grant for are asked.
    pub(super) async fn owner(
        &self,
        asked: &Asked<'_>,
        upstreams: &BTreeMap<ServerName, Upstream>,
        uri: &str,
    ) -> Option<ServerName> {
        let settings = self.governor.settings();
        for (list, member) in
            [("resources/list", "uri"), ("resources/templates/list", "uriTemplate")]
        {
            let list = List::of(list)?;
            let shown = upstreams
                .iter()
                .filter(|(server, _)| list.is_shown(&settings, &asked.agent, server));
            let looks = shown.map(async |(server, upstream)| {
                let upstream = upstream.for_agent(&asked.agent);
                let found = entries(&upstream, list).await.unwrap_or_else(|why| {
                    tracing::warn!(%server, why, method = list.method, "left out");
                    Vec::new()
                });
                (server, found.iter().any(|entry| fits(entry.get(member), uri)))
            });
            let found = join_all(looks).await.into_iter().find(|(_, fits)| *fits);
            if let Some((server, _)) = found {
                return Some(server.clone());
            }
        }
        None
    }
}

/// All pages of a server's list; nothing from a server that does not know the request.
async fn entries(upstream: &Upstream, list: &List) -> Result<Vec<Value>, String> {
    let mut all = Vec::new();
    let mut cursor: Option<Value> = None;
    for _ in 0..PAGES_MAX {
        let mut params = Map::new();
        params.extend(cursor.clone().map(|cursor| ("cursor".to_owned(), cursor)));
        let outcome = upstream.ask(list.method, params).await;
        let raw = match outcome.map_err(|fault| fault.to_string())? {
            Outcome::Result(raw) => raw,
            Outcome::Error(raw) => match serde_json::from_str::<Code>(raw.get()) {
                Ok(error) if error.code == METHOD_NOT_FOUND => return Ok(all),
                Ok(_) | Err(_) => {
                    return Err(format!("`{}` failed: {:.512}", list.method, raw.get()));
                }
            },
        };
        let page = serde_json::from_str::<Map<String, Value>>(raw.get());
        let mut page = page.map_err(|fault| fault.to_string())?;
        if let Some(Value::Array(found)) = page.remove(list.member) {
            all.extend(found);
        }
        if all.len() > ENTRIES_MAX {
            return Err(format!("more than {ENTRIES_MAX} entries"));
        }
        let next = page.remove("nextCursor").filter(Value::is_string);
        if next.is_none() || next == cursor {
            return Ok(all);
        }
        cursor = next;
    }
    Err(format!("more than {PAGES_MAX} pages"))
}

/// True if `uri` is the text, or begins as the template does and ends as it does.
fn fits(text: Option<&Value>, uri: &str) -> bool {
    let Some(text) = text.and_then(Value::as_str) else { return false };
    let (Some(start), Some(end)) = (text.split('{').next(), text.rsplit('}').next()) else {
        return false;
    };
    // A completion names the template itself.
    text == uri || (text.contains('{') && uri.starts_with(start) && uri.ends_with(end))
}

fn named(server: &ServerName, mut prompt: Value) -> Value {
    let name = prompt.get("name").and_then(Value::as_str);
    let name = name.map(|name| format!("{server}{SEPARATOR}{name}"));
    if let (Some(name), Some(prompt)) = (name, prompt.as_object_mut()) {
        prompt.insert("name".into(), name.into());
    }
    prompt
}

/// The request with the prompt's name as its server knows it.
fn renamed(request: &RpcRequest, name: &str) -> RpcRequest {
    let mut request = request.clone();
    let params = request.params.as_mut().and_then(Value::as_object_mut);
    let Some(params) = params else { return request };
    let of = match params.contains_key("ref") {
        true => params.get_mut("ref").and_then(Value::as_object_mut),
        false => Some(params),
    };
    if let Some(of) = of {
        of.insert("name".into(), name.into());
    }
    request
}

pub(super) fn not_found(request: &RpcRequest) -> Box<Refused> {
    let detail = "no server offers such a resource or prompt to this agent".to_owned();
    let refused = Refused::new(StatusCode::OK, Reason::ToolUnknown, detail);
    let uri = request.param("uri").map_or(Value::Null, |uri| json!({ "uri": uri }));
    refused.coded(era::INVALID_PARAMS).about(request).telling(uri)
}

#[cfg(test)]
mod tests {
    use super::{ENTRIES_MAX, List, PAGES_MAX, entries, fits, named, renamed};
    use axum::extract::State;
    use axum::response::{IntoResponse, Response};
    use axum::routing::post;
    use axum::{Json, Router};
    use holdpoint_resources::mcp::{RpcId, RpcRequest};
    use holdpoint_resources::{Limits, Transport, Upstream, UpstreamSpec};
    use serde_json::{Value, json};
    use std::time::Duration;

    /// What a modern server with so many pages, of so many entries each, is asked.
    async fn answer(State((pages, each)): State<(usize, usize)>, body: String) -> Response {
        let asked: Value = serde_json::from_str(&body).unwrap();
        let result = match asked["method"].as_str().unwrap() {
            "server/discover" => json!({ "supportedVersions": ["2026-07-28"] }),
            "resources/list" => {
                let cursor = asked["params"]["cursor"].as_str().unwrap_or("1");
                let page: usize = cursor.parse().unwrap();
                let mut result = json!({ "resources": vec![json!({}); each] });
                if page < pages {
                    result["nextCursor"] = (page + 1).to_string().into();
                }
                result
            }
            other => panic!("{other}"),
        };
        Json(json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result })).into_response()
    }

    #[tokio::test]
    async fn all_pages_of_resources_are_read_within_bounds() {
        for (pages, each, expected) in [
            (PAGES_MAX, 1, Ok(PAGES_MAX)),
            (PAGES_MAX + 1, 1, Err("more than 100 pages")),
            (1, ENTRIES_MAX, Ok(ENTRIES_MAX)),
            (1, ENTRIES_MAX + 1, Err("more than 10000 entries")),
            (2, ENTRIES_MAX / 2 + 1, Err("more than 10000 entries")),
        ] {
            let router = Router::new().route("/", post(answer)).with_state((pages, each));
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/", listener.local_addr().unwrap());
            tokio::spawn(async move { axum::serve(listener, router).await });
            let transport = Transport::Http { url, headers: Vec::new(), oauth: None };
            let (server, timeout) = ("pages".parse().unwrap(), Duration::from_secs(20));
            let limits = Limits::default();
            let upstream = Upstream::new(UpstreamSpec { server, transport, timeout, limits });
            let found = entries(&upstream, List::of("resources/list").unwrap()).await;
            let found = found.map(|all| all.len());
            assert_eq!(found, expected.map_err(str::to_owned), "{pages} of {each}");
        }
    }

    #[test]
    fn resources_and_prompts_find_their_server() {
        let fit = |text: &str, uri: &str| fits(Some(&Value::from(text)), uri);
        assert!(fit("demo://a", "demo://a") && !fit("demo://a", "demo://ab"));
        assert!(fit("demo://a/{id}/end", "demo://a/1/end"));
        assert!(fit("demo://a/{id}", "demo://a/{id}"));
        assert!(!fit("demo://a/{id}/end", "demo://b/1/end"));
        assert!(!fits(None, "demo://a"));
        let prompt = named(&"one".parse().unwrap(), json!({"name": "p", "x": 1}));
        assert_eq!(prompt, json!({"name": "one__p", "x": 1}));
        let request = |method, params| RpcRequest::new(RpcId::Number(1), method, params);
        let completion = json!({"ref": {"type": "ref/prompt", "name": "one__p"}, "argument": {}});
        let found = renamed(&request("completion/complete", completion), "p");
        let expected = json!({"ref": {"type": "ref/prompt", "name": "p"}, "argument": {}});
        assert_eq!(found.params, Some(expected));
        let found = renamed(&request("prompts/get", json!({"name": "one__p"})), "p");
        assert_eq!(found.params, Some(json!({"name": "p"})));
    }
}
