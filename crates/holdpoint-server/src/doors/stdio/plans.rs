//! The tools of plans on a line: they are ours, and no server hears of them.

use super::Between;
use crate::doors::plans::{self, Asking};
use holdpoint_resources::mcp::era::Era;
use holdpoint_resources::mcp::{RpcRequest, RpcResponse};

// === impl Between ===

impl Between {
    /// True if the request calls one of these tools.
    pub(super) fn is_about_plans(&self, request: &RpcRequest) -> bool {
        plans::is_call(request) && self.governor.takes_plans()
    }

    pub(super) async fn answer_about_plans(&self, request: &RpcRequest, era: Era) -> RpcResponse {
        let (agent, server) = (&self.wrap.agent, Some(&self.wrap.server));
        if !plans::unknown_tools((&self.governor, server), request).is_empty() {
            self.look(era).await;
        }
        let asking = Asking { agent, server, era };
        let outcome = plans::answer(&self.governor, asking, request).await;
        RpcResponse { id: Some(request.id.clone()), outcome }
    }
}
