//! Plans over HTTP, behind an operator's key: which there are, accept and refuse.
//! Must never accept an agent's key.

use super::admin::{Body, operator, read, speaker};
use super::{HttpDoor, plain};
use crate::operate::{self, PlanFault};
use crate::store::StoreFault;
use crate::wire::{PlanAsk, plan_json};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use holdpoint_types::{PlanId, Reason};
use serde_json::json;
use std::sync::Arc;

/// `GET /api/v1/plans`.
pub(super) async fn list(State(door): State<Arc<HttpDoor>>, headers: HeaderMap) -> Response {
    if let Err(refused) = operator(&door, &headers) {
        return *refused;
    }
    match door.governor.store().plans(None) {
        Ok(rows) => {
            let plans: Vec<_> = rows.iter().map(plan_json).collect();
            Json(json!({ "plans": plans })).into_response()
        }
        Err(fault) => unavailable(&fault),
    }
}

/// `POST /api/v1/plans/{id}`.
pub(super) async fn rule(
    State(door): State<Arc<HttpDoor>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body<PlanAsk>,
) -> Response {
    let (by, ask) = match operator(&door, &headers).and_then(|by| Ok((by, read(body)?))) {
        Ok(asked) => asked,
        Err(refused) => return *refused,
    };
    let malformed = |detail: &str| plain(StatusCode::BAD_REQUEST, Reason::MessageMalformed, detail);
    let Ok(id) = id.parse::<PlanId>() else { return malformed("the id is none") };
    let (speaker, because) = match speaker(&by, &ask.because) {
        Ok(speaks) => speaks,
        Err(refused) => return *refused,
    };
    let (settings, at) = (door.governor.settings(), door.governor.now());
    let place = (door.governor.store(), &*settings);
    match operate::rule_plan(place, &speaker, (id, ask.accept), (because, at)).await {
        Ok(row) => Json(plan_json(&row)).into_response(),
        Err(fault) => refused(&fault),
    }
}

fn refused(fault: &PlanFault) -> Response {
    let detail = fault.to_string();
    match fault {
        PlanFault::Store(fault) => unavailable(fault),
        PlanFault::Unknown(_) => plain(StatusCode::NOT_FOUND, Reason::PlanUnknown, &detail),
        PlanFault::NotWaiting(..) => plain(StatusCode::CONFLICT, Reason::PlanConflict, &detail),
        PlanFault::Requester(_) => plain(StatusCode::FORBIDDEN, Reason::ApproverRefused, &detail),
    }
}

fn unavailable(fault: &StoreFault) -> Response {
    plain(StatusCode::SERVICE_UNAVAILABLE, Reason::LedgerUnavailable, &fault.to_string())
}
