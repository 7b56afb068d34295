//! `tools/list` through a wrap: what the agent sees, and what the catalog learns of it.
//! Must never show a tool that is not the pinned one, or that no grant reaches.

use super::{Between, PAGES_MAX, failed, revision_refused};
use crate::catalog::Tool;
use crate::doors::plans;
use holdpoint_control::Settings;
use holdpoint_resources::mcp::era::{self, Era};
use holdpoint_resources::mcp::{Identity, Outcome, RpcRequest, RpcResponse};
use holdpoint_types::{Reason, ToolRef, ToolState};
use serde_json::{Map, Value, json};
use std::sync::Arc;

// === impl Between ===

impl Between {
    /// Passes `tools/list` on and shows the agent what its grants reach.
    pub(super) fn list(&self, request: RpcRequest) {
        let door = self.clone();
        self.tasks.spawn(async move {
            let response = door.answer_list(request).await;
            door.send(&response).await;
        });
    }

    async fn answer_list(&self, request: RpcRequest) -> RpcResponse {
        let id = request.id.clone();
        match era::era_of(&request) {
            Ok(era) => self.look(era).await,
            Err(fault) => return revision_refused(&request, &fault),
        }
        let params = request.params.clone().unwrap_or_else(|| json!({}));
        match self.ask("tools/list", params).await {
            Ok(Outcome::Result(raw)) => match serde_json::from_str(raw.get()) {
                Ok(result) => RpcResponse::result_value(id, &self.shown(result)),
                Err(fault) => failed(id, Reason::UpstreamInvalid, &fault.to_string()),
            },
            Ok(error @ Outcome::Error(_)) => RpcResponse { id: Some(id), outcome: error },
            Err(detail) => failed(id, Reason::UpstreamUnavailable, &detail),
        }
    }

    /// A page of tools without those that the agent's grants do not reach.
    fn shown(&self, mut result: Map<String, Value>) -> Value {
        let settings = self.governor.settings();
        if let Some(tools) = result.get_mut("tools").and_then(Value::as_array_mut) {
            tools.retain(|definition| self.reaches(definition, &settings));
        }
        let is_last = result.get("nextCursor").is_none_or(Value::is_null);
        if is_last && self.governor.takes_plans() {
            let tools = result.entry("tools").or_insert_with(|| json!([]));
            if let Some(tools) = tools.as_array_mut() {
                tools.extend(plans::definitions());
            }
        }
        Value::Object(result)
    }

    fn reaches(&self, definition: &Value, settings: &Settings) -> bool {
        let name = definition.get("name").and_then(Value::as_str);
        let name = name.and_then(|name| ToolRef::new(self.wrap.server.clone(), name).ok());
        let tool = name.and_then(|name| self.governor.catalog().tool(&name));
        let granted = |tool: &Arc<Tool>| {
            let class = tool.class(settings);
            // What is shown must be what is pinned, not what was sent a moment later.
            tool.state == ToolState::Pinned
                && tool.definition == *definition
                && settings.reaches(&self.wrap.agent, &tool.name, class)
        };
        tool.as_ref().is_some_and(granted)
    }

    /// Reads all of the server's tools into the catalog. A failure leaves the catalog as it was.
    pub(super) async fn look(&self, era: Era) {
        let looked = tokio::time::timeout(self.wrap.timeout, self.list_all(era)).await;
        let definitions = match looked {
            Ok(Ok(definitions)) => definitions,
            Ok(Err(fault)) => return self.forget_tools(&fault),
            Err(_) => return self.forget_tools("the server did not answer in time"),
        };
        match self.governor.observe(&self.wrap.server, definitions).await {
            Ok(observed) => {
                for (tool, pinned, seen) in &observed.changed {
                    tracing::warn!(%tool, %pinned, %seen, "its definition changed: quarantined");
                }
                for why in &observed.unusable {
                    tracing::warn!(%why, "a tool cannot be used");
                }
            }
            Err(fault) => tracing::error!(%fault, "the tools cannot be pinned"),
        }
    }

    /// A server that does not say what its tools are now has none.
    fn forget_tools(&self, fault: &str) {
        tracing::warn!(%fault, "the tools cannot be listed");
        self.governor.catalog().forget(&self.wrap.server);
    }

    pub(super) async fn list_all(&self, era: Era) -> Result<Vec<Value>, String> {
        let mut definitions = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let mut params = Map::new();
            if let Some(cursor) = &cursor {
                params.insert("cursor".into(), cursor.as_str().into());
            }
            let params = era::params_for(era, params, &Identity::holdpoint());
            let page = match self.ask("tools/list", params).await? {
                Outcome::Result(raw) => serde_json::from_str::<Map<String, Value>>(raw.get()),
                Outcome::Error(raw) => return Err(raw.get().to_owned()),
            };
            let mut page = page.map_err(|fault| fault.to_string())?;
            if let Some(Value::Array(tools)) = page.remove("tools") {
                definitions.extend(tools);
            }
            let next = page.get("nextCursor").and_then(Value::as_str).map(str::to_owned);
            if next.is_none() || next == cursor {
                return Ok(definitions);
            }
            cursor = next;
        }
        Err(format!("the server's list of tools has more than {PAGES_MAX} pages"))
    }
}
