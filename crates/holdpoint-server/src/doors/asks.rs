//! What servers ask of agents: sampling and elicitation, where the operator forbids them.
//! Must never touch anything else that a server asks.

use super::answer::refused_data;
use holdpoint_control::{ServerAsk, Settings};
use holdpoint_resources::mcp::era::{self, META_CLIENT_CAPABILITIES};
use holdpoint_resources::mcp::{RpcRequest, RpcResponse};
use holdpoint_types::{Reason, ServerName};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Takes what `server` may not ask out of the capabilities that an agent declares to it. True if
/// the operator forbids anything at all.
pub(super) fn withhold(settings: &Settings, server: &ServerName, request: &mut RpcRequest) -> bool {
    let Some(forbidden) = settings.forbidden_asks(server) else { return false };
    let opening = request.method == "initialize";
    let Some(params) = request.params.as_mut().and_then(Value::as_object_mut) else { return false };
    if opening && let Some(declared) = params.get_mut("capabilities") {
        remove(declared, forbidden);
    }
    let meta = params.get_mut("_meta").and_then(Value::as_object_mut);
    if let Some(declared) =
        meta.and_then(|meta: &mut Map<_, _>| meta.get_mut(META_CLIENT_CAPABILITIES))
    {
        remove(declared, forbidden);
    }
    true
}

/// The answer to a server that asks what it may not ask of agents.
pub(super) fn refusal(
    settings: &Settings,
    server: &ServerName,
    request: &RpcRequest,
) -> Option<RpcResponse> {
    let ask = ServerAsk::of_method(&request.method)?;
    if !settings.forbidden_asks(server)?.contains(&ask) {
        return None;
    }
    let text = format!("the operator forbids this server `{}`", ask.as_str());
    let data = refused_data(Reason::MethodUnknown, &text);
    Some(RpcResponse::error(Some(request.id.clone()), era::METHOD_NOT_FOUND, &text, data))
}

fn remove(declared: &mut Value, forbidden: &BTreeSet<ServerAsk>) {
    if let Some(declared) = declared.as_object_mut() {
        declared.retain(|name, _| forbidden.iter().all(|ask| ask.as_str() != name));
    }
}
