//! The operator's API over HTTP: the same words as on the command line, behind an operator's key.
//! Must never accept an agent's key.

use super::{HttpDoor, approvals, bearer, plain, plans};
use crate::doors::local::status_of;
use crate::operate::{self, Speaker, Word};
use crate::store::{ReleaseOf, StoreFault};
use crate::wire::{Acknowledgement, ReleaseAsk, StopAsk};
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use holdpoint_types::Reason;
use std::sync::Arc;

/// Longest reason, in characters.
pub(super) const REASON_CHARS_MAX: usize = 1000;
/// What a reason is.
pub(super) const BECAUSE: &str = "`because` is one line of at most 1000 characters, and not empty";

pub(super) type Body<T> = Result<Json<T>, JsonRejection>;

/// The routes below `/api/v1`.
pub(super) fn routes() -> Router<Arc<HttpDoor>> {
    Router::new()
        .route("/status", get(status))
        .route("/stop", post(stop))
        .route("/release", post(release))
        .route("/approvals", get(approvals::list))
        .route("/approvals/{id}", get(approvals::show).post(approvals::speak))
        .route("/plans", get(plans::list).post(plans::propose))
        .route("/plans/{id}", post(plans::rule))
}

/// `GET /api/v1/status`.
async fn status(State(door): State<Arc<HttpDoor>>, headers: HeaderMap) -> Response {
    match operator(&door, &headers) {
        Ok(_) => Json(status_of(&door.governor)).into_response(),
        Err(refused) => *refused,
    }
}

/// `POST /api/v1/stop`.
async fn stop(
    State(door): State<Arc<HttpDoor>>,
    headers: HeaderMap,
    body: Body<StopAsk>,
) -> Response {
    let (by, ask) = match operator(&door, &headers).and_then(|by| Ok((by, read(body)?))) {
        Ok(asked) => asked,
        Err(refused) => return *refused,
    };
    let word = Word { reason: ask.reason, by, at: door.governor.now() };
    let settings = door.settings.load_full();
    let place = (settings.store.as_path(), door.governor.store());
    acknowledge(operate::stop(place, ask.scope, word).await)
}

/// `POST /api/v1/release`.
async fn release(
    State(door): State<Arc<HttpDoor>>,
    headers: HeaderMap,
    body: Body<ReleaseAsk>,
) -> Response {
    let (by, ask) = match operator(&door, &headers).and_then(|by| Ok((by, read(body)?))) {
        Ok(asked) => asked,
        Err(refused) => return *refused,
    };
    let what = match (ask.id, ask.scope) {
        (Some(id), None) => ReleaseOf::Id(id),
        (None, Some(scope)) => ReleaseOf::Scope(scope),
        (Some(_), Some(_)) | (None, None) => {
            let detail = "name one of `id` and `scope`";
            return plain(StatusCode::BAD_REQUEST, Reason::MessageMalformed, detail);
        }
    };
    let word = Word { reason: ask.reason, by, at: door.governor.now() };
    let settings = door.settings.load_full();
    let place = (settings.store.as_path(), door.governor.store());
    acknowledge(operate::release(place, what, word).await)
}

/// Who calls, if it is an operator.
pub(super) fn operator(door: &HttpDoor, headers: &HeaderMap) -> Result<String, Box<Response>> {
    if door.check_host(headers).is_err() {
        let detail = "the Host or Origin header names another server";
        return Err(Box::new(plain(StatusCode::FORBIDDEN, Reason::OriginRefused, detail)));
    }
    let key = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = key.and_then(bearer).unwrap_or_default();
    let settings = door.settings.load();
    let known = settings.operators.iter().find(|operator| operator.fits(key));
    known.map(|operator| operator.name.clone()).ok_or_else(|| {
        let detail = "no valid operator key was sent";
        Box::new(plain(StatusCode::UNAUTHORIZED, Reason::Unauthenticated, detail))
    })
}

/// Who speaks, and why, in one line.
pub(super) fn speaker(by: &str, because: &str) -> Result<(Speaker, String), Box<Response>> {
    let malformed =
        |detail: &str| Box::new(plain(StatusCode::BAD_REQUEST, Reason::MessageMalformed, detail));
    let Some(because) = one_line(because) else { return Err(malformed(BECAUSE)) };
    let name = by.parse().map_err(|_| malformed("the operator has no usable name"))?;
    Ok((Speaker { name, way: "api", sole: false }, because))
}

/// Why somebody says something, if it is a reason that can be recorded.
pub(super) fn one_line(because: &str) -> Option<String> {
    let because = because.trim();
    let fits = (1..=REASON_CHARS_MAX).contains(&because.chars().count());
    (fits && !because.contains(char::is_control)).then(|| because.to_owned())
}

/// The body of a request.
pub(super) fn read<T>(body: Body<T>) -> Result<T, Box<Response>> {
    let refused = |fault: JsonRejection| {
        let detail = fault.body_text();
        Box::new(plain(StatusCode::BAD_REQUEST, Reason::MessageMalformed, &detail))
    };
    body.map(|Json(asked)| asked).map_err(refused)
}

fn acknowledge(done: Result<Acknowledgement, StoreFault>) -> Response {
    match done {
        Ok(acknowledgement) => Json(acknowledgement).into_response(),
        Err(fault) => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            plain(status, Reason::LedgerUnavailable, &fault.to_string())
        }
    }
}
