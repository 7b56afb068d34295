//! A legacy client's thread at `/mcp`: one thread in front, a line to each server behind it.
//!
//! Lines are opened when they are first needed, with what the client said of itself. Ids of what
//! servers ask are translated, so that two servers never answer for each other. Must never pass a
//! message to another server than the one whose it is.

use super::front::Front;
use super::sessions::{ClientThread, Over};
use super::threads::{accepts_events, ask, no_room, no_thread};
use super::turns::Turn;
use super::{Asked, Caller, HttpDoor, Refused, check_era, respond, tools};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use holdpoint_resources::Upstream;
use holdpoint_resources::mcp::era::{self, INTERNAL_ERROR};
use holdpoint_resources::mcp::{
    Identity, Message, Outcome, RpcId, RpcNotification, RpcRequest, RpcResponse, headers,
};
use holdpoint_types::{Reason, ServerName};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::broadcast;

/// Separates a server's name from the id that the server chose. No name contains it.
const SEPARATOR: char = '/';

// === impl HttpDoor ===

impl HttpDoor {
    /// Begins a thread over all servers.
    pub(super) fn open_hub(&self, asked: &Asked<'_>) -> Result<Response, Box<Refused>> {
        let front = Front::new(asked.request.clone());
        let begun = self.sessions.begin_front(&asked.agent, front);
        let thread = begun.map_err(|fault| no_room(fault).about(&asked.request))?;
        for (server, upstream) in self.upstreams.load().iter() {
            if self.reaches(asked, server) {
                tokio::spawn(tell_changes(
                    Arc::clone(&thread),
                    upstream.for_agent(&asked.agent).changes(),
                ));
            }
        }
        let capabilities = json!({
            "tools": { "listChanged": true },
            "resources": { "subscribe": true, "listChanged": true },
            "prompts": { "listChanged": true },
            "completions": {},
            "logging": {},
        });
        let result = era::initialize_result(&asked.request, &Identity::holdpoint(), capabilities);
        let id = asked.request.id.clone();
        let mut response = respond(&RpcResponse::result_value(id, &result));
        if let Ok(id) = HeaderValue::from_str(&thread.id) {
            response.headers_mut().insert(HeaderName::from_static(headers::SESSION_ID), id);
        }
        Ok(response)
    }

    /// Takes one message of a thread over all servers.
    pub(super) async fn in_hub(
        &self,
        caller: &Caller,
        thread: Arc<ClientThread>,
        (sent, message): (&HeaderMap, Message),
    ) -> Result<Response, Box<Refused>> {
        thread.touch();
        let Some(front) = &thread.front else { return Err(no_thread()) };
        match message {
            Message::Request(request) => {
                let era = check_era(sent, &request)?;
                let turn = self.turn(caller, None, &request).await?;
                let events = accepts_events(sent);
                let agent = thread.agent.clone();
                let asked = Asked { agent, server: None, era, events, headers: sent, request };
                return self.ask_hub(&thread, asked, turn).await;
            }
            Message::Notification(note) => tell(front, note).await,
            Message::Response(response) => {
                let place = response.id.as_ref().and_then(inward);
                if let Some((server, id)) = place
                    && let Some(line) = front.line(&server)
                {
                    let response = RpcResponse { id: Some(id), outcome: response.outcome };
                    let _ = line.tell(&response.to_bytes()).await;
                }
            }
        }
        Ok(StatusCode::ACCEPTED.into_response())
    }

    async fn ask_hub(
        &self,
        thread: &Arc<ClientThread>,
        asked: Asked<'_>,
        turn: Turn,
    ) -> Result<Response, Box<Refused>> {
        let (server, request) = match asked.request.method.as_str() {
            "initialize" => {
                let detail = "the session is open already".to_owned();
                let refused = Refused::new(StatusCode::OK, Reason::MessageMalformed, detail);
                return Err(refused.about(&asked.request));
            }
            "logging/setLevel" => return self.set_level(thread, &asked).await,
            "tools/call" if self.is_about_plans(&asked.request) => {
                return self.dispatch(asked, turn).await;
            }
            "tools/call" if self.is_served_here(&asked.request) => {
                return self.dispatch(asked, turn).await;
            }
            "tools/call" => {
                let tool = tools::tool_of(None, &asked.request)?;
                let mut request = asked.request.clone();
                tools::rename(&mut request, tool.name());
                (tool.server().clone(), request)
            }
            "resources/read"
            | "resources/subscribe"
            | "resources/unsubscribe"
            | "prompts/get"
            | "completion/complete" => {
                let upstreams = self.upstreams.load_full();
                self.routed(&asked, &upstreams).await?
            }
            _ => return self.dispatch(asked, turn).await,
        };
        let line = self.hub_line(thread, &server, &asked).await?;
        if let Some(front) = &thread.front {
            front.note_route(&request.id, &server, &thread.streams.lock());
        }
        ask(&line, &request.to_bytes(), &request, (asked.events, turn)).await
    }

    /// True for a call of a tool that Holdpoint serves itself: there is no server behind it.
    fn is_served_here(&self, request: &RpcRequest) -> bool {
        let Ok(tool) = tools::tool_of(None, request) else { return false };
        self.upstreams.load().get(tool.server()).is_some_and(Upstream::is_own)
    }

    /// The thread's line to `server`, opened if need be.
    async fn hub_line(
        &self,
        thread: &Arc<ClientThread>,
        server: &ServerName,
        asked: &Asked<'_>,
    ) -> Result<Arc<ClientThread>, Box<Refused>> {
        let Some(front) = &thread.front else { return Err(no_thread()) };
        // One after the other: two calls at once must not open two lines.
        let _opens = front.opens.lock().await;
        if let Some(line) = front.line(server) {
            return Ok(line);
        }
        let unavailable = |text: String| {
            let refused = Refused::new(StatusCode::OK, Reason::UpstreamUnavailable, text);
            refused.coded(INTERNAL_ERROR).about(&asked.request)
        };
        let begun = self.begin_thread(asked, server, (None, Some(thread))).await?;
        let Some((line, upstream)) = begun else {
            if self.upstreams.load().contains_key(server) {
                return Err(unavailable("the server cannot be reached".to_owned()));
            }
            return Err(tools::unknown_tool(&asked.request, server.as_str()));
        };
        let patience = upstream.spec().limits.start_timeout;
        let opened = tokio::time::timeout(patience, open(&line, front)).await;
        let opened = opened.unwrap_or_else(|_| Err("the server did not start in time".to_owned()));
        if let Err(why) = opened {
            line.end();
            return Err(unavailable(why));
        }
        front.enter(server.clone(), Arc::clone(&line));
        if thread.is_over() {
            line.end();
        }
        Ok(line)
    }

    /// Tells every server from which level on the client wants to read logs, now and later.
    async fn set_level(
        &self,
        thread: &Arc<ClientThread>,
        asked: &Asked<'_>,
    ) -> Result<Response, Box<Refused>> {
        if let Some(front) = &thread.front {
            let level = asked.request.param("level").cloned().unwrap_or(Value::Null);
            *front.level.lock() = Some(level.clone());
            for line in front.lines() {
                let _ = tell_level(&line, front, &level).await;
            }
        }
        Ok(respond(&RpcResponse::result_value(asked.request.id.clone(), &json!({}))))
    }
}

/// What a line of a thread over all servers says, in ids that only this server has.
pub(super) fn outward(server: &ServerName, text: Bytes) -> Bytes {
    match Message::from_upstream(&text, usize::MAX) {
        Ok(Message::Request(mut request)) => {
            request.id = translated(server, &request.id);
            let meta = request.params.as_mut().and_then(|params| params.get_mut("_meta"));
            translate(server, meta, "progressToken");
            request.to_bytes().into()
        }
        Ok(Message::Notification(mut note)) if note.method == "notifications/cancelled" => {
            translate(server, note.params.as_mut(), "requestId");
            note.to_bytes().into()
        }
        Ok(Message::Notification(_) | Message::Response(_)) | Err(_) => text,
    }
}

fn translated(server: &ServerName, id: &RpcId) -> RpcId {
    RpcId::Text(format!("{server}{SEPARATOR}{}", id.to_value()))
}

fn translate(server: &ServerName, of: Option<&mut Value>, member: &str) {
    let Some(of) = of.and_then(Value::as_object_mut) else { return };
    let id = of.get(member).and_then(RpcId::from_value);
    if let Some(id) = id {
        of.insert(member.to_owned(), translated(server, &id).to_value());
    }
}

/// Whose id it is, and what it is there.
fn inward(id: &RpcId) -> Option<(ServerName, RpcId)> {
    let RpcId::Text(text) = id else { return None };
    let (server, id) = text.split_once(SEPARATOR)?;
    let id = serde_json::from_str::<Value>(id).ok()?;
    Some((server.parse().ok()?, RpcId::from_value(&id)?))
}

/// Passes a notification of the client on to whom it concerns.
async fn tell(front: &Front, mut note: RpcNotification) {
    let member = |name: &str| note.params.as_ref().and_then(|params| params.get(name));
    let to = match note.method.as_str() {
        // Each line was told when it was opened.
        "notifications/initialized" => return,
        "notifications/cancelled" => {
            let id = member("requestId").and_then(RpcId::from_value);
            let Some(server) = id.and_then(|id| front.route(&id)) else { return };
            Some(server)
        }
        "notifications/progress" => {
            let token = member("progressToken").and_then(RpcId::from_value);
            let Some((server, token)) = token.as_ref().and_then(inward) else { return };
            if let Some(params) = note.params.as_mut().and_then(Value::as_object_mut) {
                params.insert("progressToken".into(), token.to_value());
            }
            Some(server)
        }
        _ => None,
    };
    let lines = match to {
        Some(server) => front.line(&server).into_iter().collect(),
        None => front.lines(),
    };
    for line in lines {
        let _ = line.tell(&note.to_bytes()).await;
    }
}

/// Tells the client what a server says of its lists where no line of its own is open to it.
async fn tell_changes(thread: Arc<ClientThread>, mut changes: broadcast::Receiver<&'static str>) {
    loop {
        let method = tokio::select! {
            method = changes.recv() => method,
            () = thread.ended() => return,
        };
        match method {
            Ok(method) => {
                let note = RpcNotification { method: method.to_owned(), params: None };
                thread.streams.lock().deliver(Bytes::from(note.to_bytes()));
            }
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Shakes hands on a new line, as the client did with us.
async fn open(line: &ClientThread, front: &Front) -> Result<(), String> {
    let over = |Over| "the server ended at once".to_owned();
    let id = front.own_id();
    let opening = RpcRequest { id: id.clone(), ..front.opening.clone() };
    let deliveries = line.ask_aside(&opening.to_bytes(), &id).await.map_err(over)?;
    let mut deliveries = deliveries.ok_or("too many requests wait")?;
    let answer = loop {
        let delivery = deliveries.recv().await.ok_or("the server ended at once")?;
        if delivery.last {
            break Message::from_upstream(&delivery.text, usize::MAX);
        }
    };
    match answer {
        Ok(Message::Response(RpcResponse { outcome: Outcome::Result(_), .. })) => {}
        Ok(Message::Response(RpcResponse { outcome: Outcome::Error(raw), .. })) => {
            return Err(format!("`initialize`: {:.512}", raw.get()));
        }
        Ok(Message::Request(_) | Message::Notification(_)) | Err(_) => {
            return Err("`initialize` has no answer".to_owned());
        }
    }
    let done = RpcNotification { method: "notifications/initialized".to_owned(), params: None };
    line.tell(&done.to_bytes()).await.map_err(over)?;
    let level = front.level.lock().clone();
    match level {
        Some(level) => tell_level(line, front, &level).await.map_err(over),
        None => Ok(()),
    }
}

async fn tell_level(line: &ClientThread, front: &Front, level: &Value) -> Result<(), Over> {
    let id = front.own_id();
    let request = RpcRequest::new(id.clone(), "logging/setLevel", json!({ "level": level }));
    // A server without logs refuses, which concerns nobody.
    line.ask_aside(&request.to_bytes(), &id).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::{inward, outward};
    use bytes::Bytes;
    use holdpoint_resources::mcp::{Message, RpcId};

    #[test]
    fn ids_of_two_servers_never_meet() {
        for id in ["7", r#""7""#, r#""a/b""#, "-1"] {
            let said = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
            let mut seen = Vec::new();
            for server in ["one", "two"] {
                let server = server.parse().unwrap();
                let out = outward(&server, Bytes::from(said.clone()));
                let Ok(Message::Request(request)) = Message::from_upstream(&out, usize::MAX) else {
                    panic!()
                };
                let back = serde_json::from_str(id).unwrap();
                let own = RpcId::from_value(&back).unwrap();
                assert_eq!(inward(&request.id), Some((server, own)));
                seen.push(request.id);
            }
            assert_ne!(seen[0], seen[1]);
        }
        for id in ["", "one", "one/", "one/null", "one/1.5", "/1"] {
            assert_eq!(inward(&RpcId::Text(id.to_owned())), None, "{id}");
        }
    }
}
