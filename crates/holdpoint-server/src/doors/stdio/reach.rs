//! The way by which conditions of plans are looked at through a wrap: over the agent's own line to
//! the server. Must never let the agent see what is said for that.

use super::{Between, calls};
use crate::governor::Reach;
use futures::future::BoxFuture;
use holdpoint_control::Permit;
use holdpoint_resources::mcp::{RpcId, RpcRequest};
use holdpoint_resources::{Cancels, Ended};
use holdpoint_types::{AgentName, Reason, ServerName, ToolRef};
use serde_json::{Value, json};
use std::sync::Arc;

impl Reach for Between {
    fn leads_to(&self, agent: &AgentName, server: &ServerName) -> bool {
        (&self.wrap.agent, &self.wrap.server) == (agent, server)
    }

    /// The tools of a wrap are known as soon as its agent calls the first.
    fn find<'a>(&'a self, _: &'a AgentName, _: &'a ToolRef) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    fn run(
        self: Arc<Self>,
        (_, tool, parameters): (AgentName, ToolRef, Value),
        permit: Permit,
        cancels: Cancels,
    ) -> BoxFuture<'static, Ended> {
        Box::pin(async move {
            let id = RpcId::Text(format!("condition-{}", permit.action()));
            let Some((mut answer, _)) = self.calls.begin(&id) else {
                let detail = "another call has its id".to_owned();
                return Ended::NotSent { reason: Reason::CouldNotDecide, detail };
            };
            let params = json!({ "name": tool.name(), "arguments": parameters });
            let request = RpcRequest::new(id.clone(), "tools/call", params);
            self.calls.note_action(&id, permit.action());
            let sending = self.server.send_call(permit, &tool, &request, self.governor.now());
            let ended = match calls::send(&self, sending, (&mut answer, &cancels)).await {
                Ok(()) => calls::wait(&self, (&id, answer), cancels).await,
                Err(ended) => ended,
            };
            self.calls.end(&id);
            ended
        })
    }
}
