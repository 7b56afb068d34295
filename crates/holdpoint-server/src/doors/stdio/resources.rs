//! Resources and prompts of the wrapped server: governed as reads, listed where a grant reaches
//! them. Must never pass on a subscription that the governor has not ruled on.

use super::{Between, IN_FLIGHT, id_refused, reads};
use crate::doors::answer;
use crate::governor::{Call, Governed};
use holdpoint_resources::Ended;
use holdpoint_resources::mcp::era::{self, Era};
use holdpoint_resources::mcp::{Message, Outcome, RpcRequest, RpcResponse};
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

// === impl Between ===

impl Between {
    /// The answer to a list of which the agent may see nothing.
    pub(super) fn hidden(&self, request: &RpcRequest) -> Option<RpcResponse> {
        let list = reads::List::of(&request.method)?;
        let settings = self.governor.settings();
        if list.is_shown(&settings, &self.wrap.agent, &self.wrap.server) {
            return None;
        }
        // A malformed revision is answered by who understands it.
        let era = era::era_of(request).unwrap_or(Era::Legacy);
        Some(RpcResponse::result_value(request.id.clone(), &list.result(era, Vec::new())))
    }

    /// The action that a request that reads proposes.
    pub(super) fn proposed(&self, request: &RpcRequest) -> Option<Call> {
        reads::proposed(&self.wrap.agent, self.wrap_door, &self.wrap.server, request)
    }

    /// Decides on each subscription of a `subscriptions/listen`; passes it on if all are permitted.
    pub(super) fn subscribe(&self, request: RpcRequest) {
        let door = self.clone();
        // Not among the tasks that the end waits for: the stream itself has no end of its own.
        tokio::spawn(async move {
            if let Some(response) = door.refused_subscription(&request).await {
                return door.send(&response).await;
            }
            if !door.calls.begin_passing(&request) {
                return door.send(&id_refused(request.id, IN_FLIGHT)).await;
            }
            let message = Message::Request(request);
            if let Err(fault) = door.server.send_ungoverned(&message).await {
                door.unsent(&message, &fault).await;
            }
        });
    }

    async fn refused_subscription(&self, request: &RpcRequest) -> Option<RpcResponse> {
        for subscription in reads::subscriptions(request) {
            let call = self.proposed(&subscription)?;
            // The permit opens the way of the one request that follows all of them.
            let execute = async move |_permit, _cancels| Ended::Answered {
                body: Outcome::Result(RawValue::NULL.to_owned()),
                tool_error: false,
            };
            let governed = self.governor.govern(call, CancellationToken::new(), execute).await;
            if !matches!(governed, Governed::Answered(..)) {
                let outcome = answer::read_outcome(governed);
                return Some(RpcResponse { id: Some(request.id.clone()), outcome });
            }
        }
        None
    }
}
