//! Answers that may take a while: plain JSON, or a stream once progress comes before the answer.
//! Must never hold back the answer for progress, nor send progress after it.

use super::{Asked, respond};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use holdpoint_resources::mcp::era::{self, Era, META_PROGRESS};
use holdpoint_resources::mcp::{Outcome, RpcNotification, RpcResponse};
use serde_json::Value;
use std::convert::Infallible;
use tokio::sync::mpsc;

/// How much progress may wait for a slow client; what comes then is lost.
const WAITING_MAX: usize = 64;

/// The progress of one request.
#[derive(Debug)]
pub(super) struct Progress {
    /// How the client calls it.
    token: Value,
    coming: mpsc::Receiver<Value>,
}

/// Members of a JSON-RPC error.
#[derive(serde::Deserialize)]
pub(super) struct Code {
    pub(super) code: i64,
}

// === impl Progress ===

impl Progress {
    /// If the client of `asked` wants progress and reads events: where progress is sent to, and
    /// where it is read.
    pub(super) fn of(asked: &Asked<'_>) -> Option<(mpsc::Sender<Value>, Self)> {
        let token = asked.request.meta()?.get(META_PROGRESS).filter(|_| asked.events)?.clone();
        let (sender, coming) = mpsc::channel(WAITING_MAX);
        Some((sender, Self { token, coming }))
    }

    /// Progress under the client's own token: one line.
    fn text(&self, mut params: Value) -> String {
        if let Some(params) = params.as_object_mut() {
            params.insert(META_PROGRESS.into(), self.token.clone());
        }
        let note = RpcNotification::new("notifications/progress", params);
        String::from_utf8_lossy(&note.to_bytes()).into_owned()
    }
}

/// What `work` answers, after its progress.
pub(super) async fn answer(
    era: Era,
    progress: Option<Progress>,
    work: impl Future<Output = RpcResponse> + Send + 'static,
) -> Response {
    let Some(mut progress) = progress else { return in_era(era, &work.await) };
    let mut work = Box::pin(work);
    let first = tokio::select! {
        biased;
        Some(params) = progress.coming.recv() => progress.text(params),
        response = &mut work => return in_era(era, &response),
    };
    let rest = stream::unfold(Some((progress, work)), async |state| {
        let (mut progress, mut work) = state?;
        tokio::select! {
            biased;
            Some(params) = progress.coming.recv() => {
                Some((progress.text(params), Some((progress, work))))
            }
            response = &mut work => {
                Some((String::from_utf8_lossy(&response.to_bytes()).into_owned(), None))
            }
        }
    });
    let all = futures::StreamExt::chain(stream::iter([first]), rest);
    let all = futures::StreamExt::map(all, |text| {
        // In a JSON text on one line a carriage return can only be space.
        Ok::<_, Infallible>(Event::default().data(text.replace('\r', " ")))
    });
    Sse::new(all).keep_alive(KeepAlive::default()).into_response()
}

/// A response with the status that its era wants: the modern one names some errors by it.
fn in_era(era: Era, response: &RpcResponse) -> Response {
    let code = match &response.outcome {
        Outcome::Error(raw) if era == Era::Modern => {
            serde_json::from_str::<Code>(raw.get()).ok().map(|error| error.code)
        }
        Outcome::Error(_) | Outcome::Result(_) => None,
    };
    let mut answer = respond(response);
    if code.is_some_and(era::is_modern_error) {
        *answer.status_mut() = StatusCode::BAD_REQUEST;
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::{Progress, WAITING_MAX, answer};
    use crate::doors::http::Asked;
    use axum::http::HeaderMap;
    use holdpoint_resources::mcp::era::Era;
    use holdpoint_resources::mcp::{RpcId, RpcRequest, RpcResponse};
    use serde_json::json;

    #[tokio::test]
    async fn progress_that_nobody_reads_is_lost_and_the_answer_is_not() {
        let meta = json!({ "_meta": { "progressToken": "p" } });
        let asked = Asked {
            agent: "coder".parse().unwrap(),
            server: None,
            era: Era::Modern,
            events: true,
            headers: &HeaderMap::new(),
            request: RpcRequest::new(RpcId::Number(7), "tools/call", meta),
        };
        let (sender, progress) = Progress::of(&asked).unwrap();
        let sent = (0..1000).filter(|at| sender.try_send(json!({ "progress": at })).is_ok());
        assert_eq!(sent.count(), WAITING_MAX);
        let work = async { RpcResponse::result_value(RpcId::Number(7), &json!({})) };
        let response = answer(Era::Modern, Some(progress), work).await;
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        let events: Vec<_> = body.split_terminator("\n\n").collect();
        assert_eq!(events.len(), WAITING_MAX + 1);
        let (last, before) = events.split_last().unwrap();
        assert!(before.iter().all(|event| event.contains("notifications/progress")));
        assert!(last.contains(r#""result":{}"#), "{last}");
    }
}
