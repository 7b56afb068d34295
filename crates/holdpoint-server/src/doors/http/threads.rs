//! The way of a legacy client's thread over HTTP: begun by `initialize`, carried by
//! `Mcp-Session-Id`, read by GET, ended by DELETE.
//!
//! Must never answer one agent from another's thread: an id alone opens nothing.

use super::progress::Code;
use super::sessions::{ClientThread, NoSession, Over};
use super::streams::{Deliveries, Delivery, Place, Resumed};
use super::turns::Turn;
use super::{Asked, Caller, HttpDoor, Refused, check_era, unknown_method};
use crate::doors::stdio::Wrap;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use holdpoint_resources::mcp::era::{Era, INTERNAL_ERROR, META_PROTOCOL_VERSION, METHOD_NOT_FOUND};
use holdpoint_resources::mcp::{Message, Outcome, RpcRequest, headers};
use holdpoint_resources::{
    Bearer, Passage, PassageReceiver, PassageSender, Transport, Upstream, UpstreamFault,
};
use holdpoint_types::{Reason, ServerName};
use std::convert::Infallible;
use std::sync::Arc;

/// Where a client says what it saw last.
const LAST_EVENT_ID: &str = "last-event-id";

/// What becomes of an `initialize`.
enum Opened {
    /// The server's answer, on a thread of its own.
    Answered(Response),
    /// The server wants no handshake, or cannot be reached now: answer without a thread.
    Stateless,
}

/// The thread that a message names; modern requests belong to none.
pub(super) fn thread_of<'a>(sent: &'a HeaderMap, message: &Message) -> Option<&'a str> {
    let modern = match message {
        Message::Request(request) => {
            request.meta().is_some_and(|meta| meta.contains_key(META_PROTOCOL_VERSION))
        }
        Message::Notification(_) | Message::Response(_) => false,
    };
    let id = sent.get(headers::SESSION_ID).filter(|_| !modern)?;
    Some(id.to_str().unwrap_or("?"))
}

/// Ends a thread when nobody reads its one stream any more.
pub(super) struct Ending(pub(super) Arc<ClientThread>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

// === impl HttpDoor ===

impl HttpDoor {
    /// Ends every thread, and waits until its line is gone.
    pub async fn end_sessions(&self) {
        self.sessions.end_all().await;
    }

    /// Takes one message of a thread.
    pub(super) async fn in_thread(
        &self,
        (caller, server): (&Caller, Option<&ServerName>),
        (id, sent): (&str, &HeaderMap),
        (message, text): (Message, &[u8]),
    ) -> Result<Response, Box<Refused>> {
        let session = self.sessions.find(id, &caller.agent, server).ok_or_else(no_thread)?;
        if session.front.is_some() {
            return self.in_hub(caller, session, (sent, message)).await;
        }
        match &message {
            Message::Request(request) => {
                check_era(sent, request)?;
                let turn = self.turn(caller, server, request).await?;
                ask(&session, text, request, (accepts_events(sent), turn)).await
            }
            Message::Notification(_) | Message::Response(_) => {
                session.tell(text).await.map_err(|Over| no_thread())?;
                Ok(StatusCode::ACCEPTED.into_response())
            }
        }
    }

    /// Begins a thread for a legacy client, with its own line to the server. `None` if the server
    /// has no threads.
    pub(super) async fn open_thread(
        &self,
        asked: &Asked<'_>,
        server: &ServerName,
    ) -> Result<Option<Response>, Box<Refused>> {
        let begun = self.begin_thread(asked, server, (None, None)).await?;
        let Some((session, upstream)) = begun else {
            return Ok(None);
        };
        match shake_hands(&session, &upstream, &asked.request).await {
            Opened::Answered(mut response) => {
                if let Ok(id) = HeaderValue::from_str(&session.id) {
                    response.headers_mut().insert(HeaderName::from_static(headers::SESSION_ID), id);
                }
                Ok(Some(response))
            }
            Opened::Stateless => {
                session.end();
                Ok(None)
            }
        }
    }

    /// Lets a modern client follow what changes on one server, over a line of its own that lives as
    /// long as the answer is read.
    pub(super) async fn follow(
        &self,
        asked: &Asked<'_>,
        server: &ServerName,
    ) -> Result<Response, Box<Refused>> {
        let unavailable = || {
            let detail = "the server cannot be reached".to_owned();
            let refused = Refused::new(StatusCode::OK, Reason::UpstreamUnavailable, detail);
            refused.coded(INTERNAL_ERROR).about(&asked.request)
        };
        let upstream = self.upstreams.load().get(server).cloned().ok_or_else(unavailable)?;
        let upstream = upstream.for_agent(&asked.agent);
        let server_era = upstream.era().await.map_err(|_| unavailable())?;
        let begun = self.begin_thread(asked, server, (Some(server_era), None)).await?;
        let (session, upstream) = begun.ok_or_else(unavailable)?;
        let ending = Ending(Arc::clone(&session));
        let followed = session.ask(&asked.request.to_bytes(), (&asked.request.id, None)).await;
        let Ok(Some(mut deliveries)) = followed else { return Err(unavailable()) };
        let patience = upstream.spec().timeout;
        let first = tokio::time::timeout(patience, deliveries.recv()).await.ok().flatten();
        let first = first.ok_or_else(unavailable)?;
        if first.last && is_unknown_method(&first) {
            return Err(unknown_method(asked));
        }
        if first.last {
            return Ok(answer(first, deliveries, None));
        }
        Ok(events(vec![first], Some(deliveries), ending))
    }

    pub(super) async fn begin_thread(
        &self,
        asked: &Asked<'_>,
        server: &ServerName,
        (server_era, behind): (Option<Era>, Option<&Arc<ClientThread>>),
    ) -> Result<Option<(Arc<ClientThread>, Upstream)>, Box<Refused>> {
        let upstreams = self.upstreams.load_full();
        let Some(upstream) = upstreams.get(server) else { return Ok(None) };
        let upstream = upstream.for_agent(&asked.agent);
        if upstream.is_own() {
            return Ok(None);
        }
        let bearer = ready(&upstream).await.map_err(|fault| {
            let refused = Refused::new(StatusCode::OK, fault.reason(), fault.to_string());
            refused.coded(INTERNAL_ERROR).about(&asked.request)
        })?;
        let passage = match passage_to(&upstream, bearer) {
            Ok(passage) => passage,
            Err(why) => {
                tracing::warn!(%server, why, "no line for a thread");
                return Ok(None);
            }
        };
        let wrap = Wrap {
            agent: asked.agent.clone(),
            server: server.clone(),
            json: self.settings.load().json,
            timeout: upstream.spec().timeout,
            grace: upstream.spec().limits.grace,
        };
        let begun = self.sessions.begin(&self.governor, (wrap, server_era), passage, behind);
        let session = begun.map_err(|fault| no_room(fault).about(&asked.request))?;
        Ok(Some((session, upstream)))
    }

    async fn thread(
        &self,
        sent: &HeaderMap,
        server: Option<&ServerName>,
    ) -> Result<Option<Arc<ClientThread>>, Box<Refused>> {
        self.check_host(sent)?;
        let agent = self.authenticate(sent, server).await?.agent;
        let Some(id) = sent.get(headers::SESSION_ID) else { return Ok(None) };
        let id = id.to_str().unwrap_or("?");
        self.sessions.find(id, &agent, server).map(Some).ok_or_else(no_thread)
    }

    async fn listen(&self, sent: &HeaderMap, server: Option<&ServerName>) -> Response {
        let session = match self.thread(sent, server).await {
            Ok(Some(session)) => session,
            // Without a thread there is no stream to open.
            Ok(None) => return super::not_allowed().into_response(),
            Err(refused) => return refused.into_response(),
        };
        if !accepts_events(sent) {
            return StatusCode::NOT_ACCEPTABLE.into_response();
        }
        let last = sent.get(LAST_EVENT_ID).map(|id| id.to_str().unwrap_or("?"));
        let place = last.map(Place::parse);
        session.touch();
        match (place, session.streams.lock()) {
            (Some(None), _) => StatusCode::BAD_REQUEST.into_response(),
            (place, mut streams) => match streams.resume(place.flatten()) {
                Resumed::Taken => StatusCode::CONFLICT.into_response(),
                Resumed::Stream(missed, coming) => events(missed, coming, ()),
            },
        }
    }

    async fn end_thread(&self, sent: &HeaderMap, server: Option<&ServerName>) -> Response {
        match self.thread(sent, server).await {
            Ok(Some(session)) => {
                session.end();
                StatusCode::NO_CONTENT.into_response()
            }
            Ok(None) => super::not_allowed().into_response(),
            Err(refused) => refused.into_response(),
        }
    }
}

/// GET: the stream of a thread.
pub(super) async fn listen(
    State(door): State<Arc<HttpDoor>>,
    server: Option<UrlPath<String>>,
    sent: HeaderMap,
) -> Response {
    let server = server.and_then(|UrlPath(name)| name.parse().ok());
    door.listen(&sent, server.as_ref()).await
}

/// DELETE: the end of a thread.
pub(super) async fn end(
    State(door): State<Arc<HttpDoor>>,
    server: Option<UrlPath<String>>,
    sent: HeaderMap,
) -> Response {
    let server = server.and_then(|UrlPath(name)| name.parse().ok());
    door.end_thread(&sent, server.as_ref()).await
}

/// The credential that the line will carry, if one is wanted; it is there.
async fn ready(upstream: &Upstream) -> Result<Option<Bearer>, UpstreamFault> {
    let bearer = upstream.bearer()?;
    if let Some(bearer) = &bearer {
        bearer.header().await?;
    }
    Ok(bearer)
}

fn passage_to(
    upstream: &Upstream,
    bearer: Option<Bearer>,
) -> Result<(PassageSender, PassageReceiver), String> {
    let spec = upstream.spec();
    let bytes_max = spec.limits.message_bytes_max;
    match &spec.transport {
        Transport::Stdio(process) => {
            Passage::spawn(process, bytes_max).map_err(|fault| fault.to_string())
        }
        Transport::Own(_) => Err("there is no server behind it".to_owned()),
        Transport::Http { url, headers, .. } => {
            Passage::connect(url, (headers, bearer), bytes_max).map_err(|fault| fault.to_string())
        }
    }
}

async fn shake_hands(session: &ClientThread, upstream: &Upstream, request: &RpcRequest) -> Opened {
    let asked = session.ask(&request.to_bytes(), (&request.id, None)).await;
    let Ok(Some(mut deliveries)) = asked else { return Opened::Stateless };
    let patience = upstream.spec().limits.start_timeout;
    let Ok(Some(first)) = tokio::time::timeout(patience, deliveries.recv()).await else {
        return Opened::Stateless;
    };
    let refused = match Message::from_upstream(&first.text, usize::MAX) {
        Ok(Message::Response(response)) => matches!(response.outcome, Outcome::Error(_)),
        Ok(Message::Request(_) | Message::Notification(_)) | Err(_) => false,
    };
    if refused && upstream.era().await == Ok(Era::Modern) {
        return Opened::Stateless;
    }
    if refused {
        session.end();
    }
    Opened::Answered(answer(first, deliveries, None))
}

pub(super) async fn ask(
    session: &ClientThread,
    text: &[u8],
    request: &RpcRequest,
    (events, turn): (bool, Turn),
) -> Result<Response, Box<Refused>> {
    let progress = request.meta().and_then(|meta| meta.get("progressToken")).cloned();
    let asked = session.ask(text, (&request.id, progress)).await;
    let Some(mut deliveries) = asked.map_err(|Over| no_thread())? else {
        let detail = "a request with this id is in flight, or too many are".to_owned();
        let refused = Refused::new(StatusCode::OK, Reason::MessageMalformed, detail);
        return Err(refused.about(request));
    };
    while let Some(first) = deliveries.recv().await {
        if first.last || events {
            return Ok(answer(first, deliveries, Some(turn)));
        }
        // A client that reads no events gets only the answer.
    }
    // Not an unknown thread: the client would begin anew and ask again for what may have been done.
    let detail = "the server ended before it answered; what it did is not known".to_owned();
    let refused = Refused::new(StatusCode::OK, Reason::UpstreamUnavailable, detail);
    Err(refused.coded(INTERNAL_ERROR).about(request))
}

/// The answer alone, or a stream that begins with what came before it.
fn answer(first: Delivery, rest: Deliveries, turn: Option<Turn>) -> Response {
    if first.last {
        return ([(header::CONTENT_TYPE, "application/json")], first.text).into_response();
    }
    events(vec![first], Some(rest), turn)
}

fn events(first: Vec<Delivery>, rest: Option<Deliveries>, turn: impl Send + 'static) -> Response {
    let ended = first.last().is_some_and(|delivery| delivery.last);
    let rest = if ended { None } else { rest };
    let coming = stream::unfold((rest, turn), async |(rest, turn)| {
        let mut rest = rest?;
        let delivery = rest.recv().await?;
        let rest = (!delivery.last).then_some(rest);
        Some((delivery, (rest, turn)))
    });
    let all = futures::StreamExt::chain(stream::iter(first), coming);
    let all = futures::StreamExt::map(all, |delivery| Ok::<_, Infallible>(event(&delivery)));
    Sse::new(all).keep_alive(KeepAlive::default()).into_response()
}

fn event(delivery: &Delivery) -> Event {
    // In a JSON text on one line a carriage return can only be space.
    let text = String::from_utf8_lossy(&delivery.text).replace('\r', " ");
    Event::default().id(delivery.place.text()).data(text)
}

fn is_unknown_method(delivery: &Delivery) -> bool {
    let Ok(Message::Response(response)) = Message::from_upstream(&delivery.text, usize::MAX) else {
        return false;
    };
    let Outcome::Error(raw) = response.outcome else { return false };
    let code = serde_json::from_str::<Code>(raw.get()).ok().map(|error| error.code);
    code == Some(METHOD_NOT_FOUND)
}

pub(super) fn accepts_events(sent: &HeaderMap) -> bool {
    let mut accepted = sent.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.contains("text/event-stream") || value.contains("*/*"))
}

pub(super) fn no_thread() -> Box<Refused> {
    let detail = "the `Mcp-Session-Id` is not known; begin anew with `initialize`".to_owned();
    Refused::new(StatusCode::NOT_FOUND, Reason::MessageMalformed, detail)
}

pub(super) fn no_room(fault: NoSession) -> Box<Refused> {
    let (reason, detail) = match fault {
        NoSession::TooMany => (Reason::Overloaded, "too many sessions are in use"),
        NoSession::NoRandomness => (Reason::CouldNotDecide, "no session id can be made"),
    };
    Refused::new(StatusCode::SERVICE_UNAVAILABLE, reason, detail.to_owned())
}
