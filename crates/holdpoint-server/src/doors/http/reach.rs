//! The way by which conditions of plans are looked at where servers are reached over HTTP's door.
//! Must never run what no permit is for.

use super::HttpDoor;
use crate::governor::Reach;
use futures::future::BoxFuture;
use holdpoint_control::Permit;
use holdpoint_resources::{Cancels, Ended, ToolCall};
use holdpoint_types::{AgentName, Reason, ServerName, ToolRef};
use serde_json::Value;
use std::sync::Arc;

// === impl HttpDoor ===

impl HttpDoor {
    /// Lets conditions of plans be looked at through this door, as long as it is there.
    pub fn reach(self: &Arc<Self>) {
        let door: Arc<dyn Reach> = Arc::<Self>::clone(self);
        self.governor.reach_by(Arc::downgrade(&door));
    }
}

impl Reach for HttpDoor {
    fn leads_to(&self, _: &AgentName, server: &ServerName) -> bool {
        self.upstreams.load().contains_key(server)
    }

    fn find<'a>(&'a self, agent: &'a AgentName, tool: &'a ToolRef) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let _known = self.class_of(agent, tool).await;
        })
    }

    fn run(
        self: Arc<Self>,
        (agent, tool, parameters): (AgentName, ToolRef, Value),
        permit: Permit,
        cancels: Cancels,
    ) -> BoxFuture<'static, Ended> {
        Box::pin(async move {
            let Some(upstream) = self.upstreams.load().get(tool.server()).cloned() else {
                let detail = format!("`{}` is not reached any more", tool.server());
                return Ended::NotSent { reason: Reason::UpstreamUnavailable, detail };
            };
            let call = ToolCall::new(tool, parameters);
            let upstream = upstream.for_agent(&agent);
            upstream.call(permit, call, self.governor.now(), cancels).await
        })
    }
}
