//! Requests of modern clients whose legacy server may ask back: over a line of the agent's own.
//!
//! A question then reaches nobody else, and the call waits on its line until the client comes back.
//! Must never put two agents on one line.

use super::progress::{self, Progress};
use super::sessions::{ClientThread, Over};
use super::streams::Deliveries;
use super::turns::Turn;
use super::{Asked, HttpDoor, Refused};
use crate::doors::answer::refused_data;
use crate::doors::asks;
use axum::http::StatusCode;
use axum::response::Response;
use holdpoint_resources::Upstream;
use holdpoint_resources::mcp::era::{self, Era, INTERNAL_ERROR, META_PROGRESS};
use holdpoint_resources::mcp::{Message, RpcId, RpcNotification, RpcRequest, RpcResponse};
use holdpoint_types::{AgentName, Reason, ServerName};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// The lines of modern clients.
#[derive(Default)]
pub(super) struct Lines {
    open: Mutex<BTreeMap<Key, Arc<ClientThread>>>,
    last: AtomicU64,
}

/// Whose line to which server, and what its client can be asked.
type Key = (AgentName, ServerName, String);

/// What ends a request on a line.
struct Landing {
    deliveries: Deliveries,
    progress: Option<mpsc::Sender<Value>>,
    gone: CancellationToken,
    _turn: Turn,
}

// === impl HttpDoor ===

impl HttpDoor {
    /// The line for a request whose server may ask its client something; `None` if it needs none.
    pub(super) async fn asking_line(
        &self,
        asked: &Asked<'_>,
        server: &ServerName,
        upstream: &Upstream,
    ) -> Result<Option<Arc<ClientThread>>, Box<Refused>> {
        let comes_back = asked.request.param("requestState").is_some();
        let able = asks::able(&asked.request);
        if asked.era != Era::Modern || (able.is_empty() && !comes_back) {
            return Ok(None);
        }
        if upstream.era().await != Ok(Era::Legacy) {
            // A modern server is asked without a line; one that cannot be reached says so there.
            return Ok(None);
        }
        let key = (asked.agent.clone(), server.clone(), Value::Object(able).to_string());
        let known = self.lines.open.lock().get(&key).filter(|line| !line.is_over()).cloned();
        if let Some(line) = known {
            return Ok(Some(line));
        }
        let begun = self.begin_thread(asked, server, (Some(Era::Legacy), None)).await?;
        let Some((line, _)) = begun else {
            return Ok(None);
        };
        let mut open = self.lines.open.lock();
        open.retain(|_, line| !line.is_over());
        // Somebody may have been faster.
        match open.get(&key) {
            Some(faster) => {
                line.end();
                Ok(Some(Arc::clone(faster)))
            }
            None => {
                open.insert(key, Arc::clone(&line));
                Ok(Some(line))
            }
        }
    }

    /// Sends a request over a line, under an id of its own: many clients may share the agent.
    pub(super) async fn over_line(
        &self,
        line: Arc<ClientThread>,
        asked: &Asked<'_>,
        turn: Turn,
    ) -> Result<Response, Box<Refused>> {
        let number = self.lines.last.fetch_add(1, Ordering::Relaxed);
        let id = RpcId::Text(format!("line-{number}"));
        let mut request = RpcRequest { id: id.clone(), ..asked.request.clone() };
        let (sender, progress) = Progress::of(asked).unzip();
        forget_progress(&mut request);
        let token = sender.is_some().then(|| id.to_value());
        if let Some(token) = &token {
            era::set_progress(&mut request.params, token.clone());
        }
        let unavailable = |reason: Reason, text: &str| {
            let refused = Refused::new(StatusCode::OK, reason, text.to_owned());
            refused.coded(INTERNAL_ERROR).about(&asked.request)
        };
        let deliveries = match line.ask(&request.to_bytes(), (&id, token)).await {
            Ok(Some(deliveries)) => deliveries,
            Ok(None) => return Err(unavailable(Reason::Overloaded, "too many requests wait")),
            Err(Over) => {
                return Err(unavailable(Reason::UpstreamUnavailable, "the line is over"));
            }
        };
        let cancellable = self.cancellable(asked);
        let gone = cancellable.asked.clone();
        let (tell, told) = oneshot::channel();
        let landing = Landing { deliveries, progress: sender, gone, _turn: turn };
        tokio::spawn(async move { tell.send(landing.wait(&line, &id).await) });
        let own = asked.request.id.clone();
        let work = async move {
            let outcome = told.await.ok().flatten();
            drop(cancellable);
            let lost = "the server ended before it answered; what it did is not known";
            outcome.map_or_else(
                || lost_answer(own.clone(), lost),
                |outcome| RpcResponse { id: Some(own.clone()), outcome: outcome.outcome },
            )
        };
        Ok(progress::answer(Era::Modern, progress, work).await)
    }
}

// === impl Landing ===

impl Landing {
    /// The answer, if one comes. The request is taken back once its client went away.
    async fn wait(mut self, line: &ClientThread, id: &RpcId) -> Option<RpcResponse> {
        let mut told = false;
        loop {
            let delivery = tokio::select! {
                delivery = self.deliveries.recv() => delivery?,
                () = self.gone.cancelled(), if !told => {
                    told = true;
                    let note = RpcNotification::cancelled(id, "the client went away");
                    line.tell(&note.to_bytes()).await.ok()?;
                    continue;
                }
            };
            match Message::from_upstream(&delivery.text, usize::MAX).ok()? {
                Message::Response(response) if delivery.last => return Some(response),
                Message::Notification(note) if note.method == "notifications/progress" => {
                    if let (Some(progress), Some(params)) = (&self.progress, note.params) {
                        // Who follows too slowly misses some.
                        let _ = progress.try_send(params);
                    }
                }
                Message::Response(_) | Message::Notification(_) | Message::Request(_) => {}
            }
        }
    }
}

fn forget_progress(request: &mut RpcRequest) {
    let meta = request.params.as_mut().and_then(|params| params.get_mut("_meta"));
    if let Some(meta) = meta.and_then(Value::as_object_mut) {
        meta.remove(META_PROGRESS);
    }
}

fn lost_answer(id: RpcId, text: &str) -> RpcResponse {
    let reason = Reason::UpstreamUnavailable;
    RpcResponse::error(Some(id), INTERNAL_ERROR, text, refused_data(reason, text))
}
