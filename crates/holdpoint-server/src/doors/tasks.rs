//! MCP's tasks where they are not governed: neither asked for nor followed.
//! Must never pass a request on whose effect would outlive its answer unwatched.

use super::answer::refused_data;
use holdpoint_resources::mcp::era::{INVALID_PARAMS, METHOD_NOT_FOUND};
use holdpoint_resources::mcp::{RpcRequest, RpcResponse, governed, tasks};
use holdpoint_types::Reason;
use serde_json::Value;

/// Takes tasks out of what an agent declares and subscribes to; true if they were there.
pub(super) fn withhold(request: &mut RpcRequest) -> bool {
    let opening = request.method == "initialize";
    let listens = request.method == "subscriptions/listen";
    let Some(params) = &mut request.params else { return false };
    let taken_out = |from: Option<&mut Value>, out: fn(&mut Value) -> bool| from.is_some_and(out);
    let opened = opening && taken_out(params.get_mut("capabilities"), tasks::withhold);
    let filter = params.get_mut("notifications").filter(|_| listens);
    let subscribed = taken_out(filter, tasks::withhold_subscription);
    tasks::withhold_declared(params) || opened || subscribed
}

/// Why a request about tasks goes nowhere: the JSON-RPC error code, and the text. `None` for any
/// other request.
pub(super) fn refused(request: &RpcRequest) -> Option<(i64, &'static str)> {
    let asks =
        governed::is_governed(&request.method) && tasks::asks_for_one(request.params.as_ref());
    match (tasks::is_request(&request.method), asks) {
        (true, _) => Some((METHOD_NOT_FOUND, "tasks are not governed here, so none is followed")),
        (_, true) => {
            let text = "`params.task`: calls as tasks are not governed here, so they are refused";
            Some((INVALID_PARAMS, text))
        }
        (false, false) => None,
    }
}

/// The answer to a request about tasks.
pub(super) fn refusal(request: &RpcRequest) -> Option<RpcResponse> {
    let (code, text) = refused(request)?;
    let data = refused_data(Reason::TaskRefused, text);
    Some(RpcResponse::error(Some(request.id.clone()), code, text, data))
}
