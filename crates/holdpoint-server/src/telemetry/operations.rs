//! The operations door: `/healthz`, `/readyz`, `/metrics`, for whoever runs the machine.
//!
//! Nothing here needs a key, so nothing here may show a parameter, a secret or what an agent said.
//! Must never change anything.

use crate::doors::http::oauth::KeyHealth;
use crate::governor::Governor;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use std::net::IpAddr;
use std::time::Duration;

/// How long the store may take to show that it can be written.
const STORE_PATIENCE: Duration = Duration::from_secs(2);
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The routes.
pub fn router(governor: Governor) -> Router {
    Router::new()
        .route("/healthz", get(async || "the process lives\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .layer(middleware::from_fn(only_by_address))
        .with_state(governor)
}

async fn ready(State(governor): State<Governor>) -> Response {
    let not_draining = match governor.telemetry().is_draining() {
        true => Err("the process is about to end".to_owned()),
        false => Ok(()),
    };
    let mut checks = vec![
        ("not_draining", not_draining),
        ("store_writable", store_writable(&governor).await),
        ("policies_loaded", Ok(())),
    ];
    checks.extend(governor.telemetry().issuer().map(|issuer| ("issuer_keys", issuer_keys(issuer))));
    let all = checks.iter().all(|(_, result)| result.is_ok());
    let status = if all { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let told = checks.into_iter().map(|(name, result)| {
        let text = result.err().unwrap_or_else(|| "ok".to_owned());
        (name.to_owned(), json!(text))
    });
    let told: serde_json::Map<_, _> = told.collect();
    let policy = governor.policy().digest().to_string();
    let body = json!({ "ready": all, "checks": told, "policy": policy });
    (status, Json(body)).into_response()
}

/// Access tokens can be checked.
fn issuer_keys(issuer: KeyHealth) -> Result<(), String> {
    if issuer.keys > 0 {
        return Ok(());
    }
    let waiting = match issuer.age {
        Some(_) => "the issuer's keys are too old, and it does not answer",
        None => "the issuer's keys were not fetched yet",
    };
    Err(issuer.fault.unwrap_or_else(|| waiting.to_owned()))
}

/// The last write succeeded, and an empty one succeeds now.
async fn store_writable(governor: &Governor) -> Result<(), String> {
    let store = governor.store();
    let before = store.health();
    let now = tokio::time::timeout(STORE_PATIENCE, store.flush()).await;
    let now = now.map_err(|_| "the store does not answer".to_owned())?;
    // A fault that was there counts although an empty write went well: the disk may be full.
    now.and(before).map_err(|fault| fault.to_string())
}

async fn metrics(State(governor): State<Governor>) -> Response {
    let looked = tokio::task::spawn_blocking(move || governor.telemetry().render(&governor)).await;
    match looked {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Ok(Err(_)) | Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A web page may make a browser ask by a name of its own; it cannot make it ask by an address.
async fn only_by_address(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = host.and_then(|host| host.parse::<axum::http::uri::Authority>().ok());
    let plain = authority.is_some_and(|authority| {
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<IpAddr>().is_ok()
    });
    if plain && !request.headers().contains_key(header::ORIGIN) {
        return next.run(request).await;
    }
    let detail = "ask by address, not by name\n";
    (StatusCode::FORBIDDEN, detail).into_response()
}
