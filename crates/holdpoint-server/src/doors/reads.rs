//! Requests that read resources and prompts: what they propose, and which lists an agent sees.
//! Must never decide: it only names what the governor rules on.

use crate::governor::Call;
use holdpoint_control::Settings;
use holdpoint_resources::mcp::era::{self, Era};
use holdpoint_resources::mcp::{Identity, RpcRequest, governed};
use holdpoint_types::{AgentName, Door, EffectClass, ServerName, ToolRef};
use serde_json::{Map, Value, json};

/// A request that lists what another one reads.
#[derive(Debug)]
pub(super) struct List {
    /// The request.
    pub(super) method: &'static str,
    /// Where its result holds the list.
    pub(super) member: &'static str,
    /// What reads an entry; without a grant for it nothing is shown.
    pub(super) reads: &'static str,
}

/// The lists besides the tools.
pub(super) const LISTS: [List; 3] = [
    List { method: "resources/list", member: "resources", reads: "resources/read" },
    List {
        method: "resources/templates/list",
        member: "resourceTemplates",
        reads: "resources/read",
    },
    List { method: "prompts/list", member: "prompts", reads: "prompts/get" },
];

// === impl List ===

impl List {
    /// The list that `method` asks for.
    pub(super) fn of(method: &str) -> Option<&'static Self> {
        LISTS.iter().find(|list| list.method == method)
    }

    /// True if `agent` has a grant that reaches what the list shows of `server`.
    pub(super) fn is_shown(
        &self,
        settings: &Settings,
        agent: &AgentName,
        server: &ServerName,
    ) -> bool {
        let tool = ToolRef::new(server.clone(), self.reads);
        let grant = |tool| settings.grant_for(agent, &tool, EffectClass::Read);
        tool.ok().and_then(grant).is_some()
    }

    /// The result with these entries.
    pub(super) fn result(&self, era: Era, entries: Vec<Value>) -> Value {
        let mut result = Map::new();
        result.insert(self.member.into(), entries.into());
        if era == Era::Modern {
            // Grants and stops change at any time: a list is good for the moment.
            result.insert("ttlMs".into(), 0.into());
            result.insert("cacheScope".into(), "private".into());
        }
        era::result_for(era, result, &Identity::holdpoint())
    }
}

/// The action that a request that reads proposes on `server`. `None` for any other request.
pub(super) fn proposed(
    agent: &AgentName,
    door: Door,
    server: &ServerName,
    request: &RpcRequest,
) -> Option<Call> {
    let tool = ToolRef::new(server.clone(), &request.method).ok()?;
    tool.is_read_request().then(|| Call {
        agent: agent.clone(),
        door,
        tool,
        parameters: governed::governed_parameters(request),
        meta: request.param("_meta").cloned(),
        condition: None,
    })
}

/// The subscriptions that a modern `subscriptions/listen` asks for, each as the legacy request that
/// it stands for.
pub(super) fn subscriptions(request: &RpcRequest) -> Vec<RpcRequest> {
    let filter = request.param("notifications");
    let uris = filter.and_then(|filter| filter.get("resourceSubscriptions"));
    let uris = match uris {
        Some(Value::Array(uris)) => uris.as_slice(),
        // Whatever else it is, it is decided on and denied as malformed.
        Some(other) => std::slice::from_ref(other),
        None => &[],
    };
    let of = |uri: &Value| {
        let mut params = json!({ "uri": uri });
        if let (Some(meta), Some(params)) = (request.param("_meta"), params.as_object_mut()) {
            params.insert("_meta".into(), meta.clone());
        }
        RpcRequest::new(request.id.clone(), "resources/subscribe", params)
    };
    uris.iter().map(of).collect()
}
