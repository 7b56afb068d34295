//! Approvals over HTTP, behind an operator's key: what waits, what each would do, yes and no.
//! Must never accept an agent's key.

use super::admin::{Body, operator, read, speaker};
use super::{HttpDoor, plain};
use crate::operate::{self, Answer, SpeakFault};
use crate::store::StoreFault;
use crate::wire::{ApprovalAnswer, ApprovalAsk, ApprovalReply};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use holdpoint_resources::resource::Preview;
use holdpoint_types::{ActionId, Reason};
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /api/v1/approvals`.
pub(super) async fn list(State(door): State<Arc<HttpDoor>>, headers: HeaderMap) -> Response {
    if let Err(refused) = operator(&door, &headers) {
        return *refused;
    }
    let (settings, now, epoch) = (door.governor.settings(), door.governor.now(), epoch(&door));
    match (door.governor.store().approvals(), epoch) {
        (Ok(rows), Ok(epoch)) => {
            let rows = rows.iter().map(|row| ApprovalReply::new(row, &settings, (epoch, now)));
            Json(json!({ "approvals": rows.collect::<Vec<_>>() })).into_response()
        }
        (Err(fault), _) | (_, Err(fault)) => unavailable(&fault),
    }
}

/// `GET /api/v1/approvals/{id}`.
pub(super) async fn show(
    State(door): State<Arc<HttpDoor>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = operator(&door, &headers) {
        return *refused;
    }
    let Ok(id) = id.parse::<ActionId>() else { return malformed("the id is none") };
    match whole(&door, id).await {
        Ok(Some(told)) => Json(told).into_response(),
        Ok(None) => refused(&SpeakFault::Unknown(id)),
        Err(fault) => unavailable(&fault),
    }
}

/// What `holdpoint approvals ID` shows.
async fn whole(door: &HttpDoor, id: ActionId) -> Result<Option<Value>, StoreFault> {
    let store = door.governor.store();
    let mut rows = store.approvals()?.into_iter();
    let Some(row) = rows.find(|row| row.facts.asked.id == id) else { return Ok(None) };
    let (settings, now) = (door.governor.settings(), door.governor.now());
    let reply = ApprovalReply::new(&row, &settings, (store.control()?.epoch, now));
    let decided = store.decision(id)?;
    Ok(Some(reply.whole(decided.as_ref(), preview_of(door, id).await.as_ref())))
}

/// What the call that asked for the approval would do, as far as that is kept.
pub(super) async fn preview_of(door: &HttpDoor, id: ActionId) -> Option<Preview> {
    let resources = door.governor.resources();
    let kept = tokio::task::spawn_blocking(move || resources.kept_preview(id)).await.ok()?;
    kept.inspect_err(|fault| tracing::warn!(%fault, "a preview cannot be shown")).ok()?
}

/// `POST /api/v1/approvals/{id}`.
pub(super) async fn speak(
    State(door): State<Arc<HttpDoor>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body<ApprovalAsk>,
) -> Response {
    let (by, ask) = match operator(&door, &headers).and_then(|by| Ok((by, read(body)?))) {
        Ok(asked) => asked,
        Err(refused) => return *refused,
    };
    let Ok(id) = id.parse::<ActionId>() else { return malformed("the id is none") };
    let (speaker, because) = match speaker(&by, &ask.because) {
        Ok(speaks) => speaks,
        Err(refused) => return *refused,
    };
    let said = match ask.answer {
        ApprovalAnswer::Yes => Answer::Yes,
        ApprovalAnswer::No => Answer::No,
    };
    let (settings, at) = (door.governor.settings(), door.governor.now());
    let place = (door.governor.store(), &*settings);
    match operate::speak(place, &speaker, (id, said), (because, at)).await {
        Ok((row, _)) => match epoch(&door) {
            Ok(epoch) => Json(ApprovalReply::new(&row, &settings, (epoch, at))).into_response(),
            Err(fault) => unavailable(&fault),
        },
        Err(fault) => refused(&fault),
    }
}

fn epoch(door: &HttpDoor) -> Result<holdpoint_types::Epoch, StoreFault> {
    Ok(door.governor.store().control()?.epoch)
}

fn malformed(detail: &str) -> Response {
    plain(StatusCode::BAD_REQUEST, Reason::MessageMalformed, detail)
}

fn refused(fault: &SpeakFault) -> Response {
    let detail = fault.to_string();
    match fault {
        SpeakFault::Store(fault) => unavailable(fault),
        SpeakFault::Unknown(_) => plain(StatusCode::NOT_FOUND, Reason::ApprovalUnknown, &detail),
        SpeakFault::Expired | SpeakFault::Void | SpeakFault::Denied { .. } => {
            plain(StatusCode::CONFLICT, Reason::ApprovalUnknown, &detail)
        }
        SpeakFault::Approver(_) => plain(StatusCode::FORBIDDEN, Reason::ApproverRefused, &detail),
    }
}

fn unavailable(fault: &StoreFault) -> Response {
    plain(StatusCode::SERVICE_UNAVAILABLE, Reason::LedgerUnavailable, &fault.to_string())
}
