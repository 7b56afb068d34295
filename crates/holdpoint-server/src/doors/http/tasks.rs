//! MCP's tasks over HTTP: refused before anything is decided.
//! Must never let a request about a task reach a server.

use super::{Asked, Refused};
use crate::doors::tasks;
use axum::http::StatusCode;
use holdpoint_resources::mcp::era::{Era, METHOD_NOT_FOUND};
use holdpoint_types::Reason;

/// Refuses what asks for a task, or follows one.
pub(super) fn check(asked: &Asked<'_>) -> Result<(), Box<Refused>> {
    let Some((code, text)) = tasks::refused(&asked.request) else { return Ok(()) };
    let status = match (code, asked.era) {
        (METHOD_NOT_FOUND, Era::Modern) => StatusCode::NOT_FOUND,
        _ => StatusCode::OK,
    };
    let refused = Refused::new(status, Reason::TaskRefused, text.to_owned());
    Err(refused.coded(code).about(&asked.request))
}
