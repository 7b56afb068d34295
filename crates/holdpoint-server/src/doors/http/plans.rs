//! Plans over HTTP, behind an operator's key: which there are, propose for an agent, accept and
//! refuse. Must never accept an agent's key, nor accept what it proposes.

use super::admin::{Body, operator, read, speaker};
use super::{HttpDoor, plain};
use crate::governor::{PlanProposal, PlanRefused};
use crate::operate::{self, PlanFault};
use crate::store::StoreFault;
use crate::wire::{PlanAsk, PlanProposeAsk, plan_json};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use holdpoint_types::{PlanId, PlanStep, Reason};
use serde_json::json;
use std::collections::BTreeMap;
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

/// `POST /api/v1/plans`: a host proposes a plan for one of its agents, which the checker and
/// whoever accepts plans see as if the agent had proposed it.
pub(super) async fn propose(
    State(door): State<Arc<HttpDoor>>,
    headers: HeaderMap,
    body: Body<PlanProposeAsk>,
) -> Response {
    let (by, ask) = match operator(&door, &headers).and_then(|by| Ok((by, read(body)?))) {
        Ok(asked) => asked,
        Err(refused) => return *refused,
    };
    if !door.governor.takes_plans() {
        let detail = "agents cannot propose plans here: there is no `[plans]`";
        return plain(StatusCode::NOT_FOUND, Reason::PlanUnknown, detail);
    }
    let PlanProposeAsk { agent, plan: draft, revises: parent } = ask;
    // The checker knows the tools of servers that were listed.
    let named = draft.steps.iter().flat_map(PlanStep::tools);
    let tools = named.map(|tool| (tool.server().clone(), tool.clone()));
    for tool in tools.collect::<BTreeMap<_, _>>().into_values() {
        door.class_of(&agent, &tool).await;
    }
    match door.governor.propose_plan(PlanProposal { agent, draft, parent, by: Some(by) }).await {
        Ok(row) => (StatusCode::CREATED, Json(plan_json(&row))).into_response(),
        Err(PlanRefused { reason, text }) => {
            let status = match reason {
                Reason::LedgerUnavailable => StatusCode::SERVICE_UNAVAILABLE,
                Reason::PlanUnknown => StatusCode::NOT_FOUND,
                Reason::PlanConflict => StatusCode::CONFLICT,
                _ => StatusCode::UNPROCESSABLE_ENTITY,
            };
            plain(status, reason, &text)
        }
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
        Ok(row) => {
            // Binding from this answer on, not only from the next look at the store.
            if let Err(fault) = door.governor.read_plans() {
                return unavailable(&fault);
            }
            Json(plan_json(&row)).into_response()
        }
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
