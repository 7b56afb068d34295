//! The way in for the fuzz targets, which alone are built with `cfg(fuzzing)`: reads what a server
//! answered without a server. Must hold no logic of its own.

use super::{HttpLink, HttpRequest};
use crate::mcp::{RpcId, RpcRequest, RpcResponse};
use crate::upstream::changes::Changes;
use crate::upstream::{Limits, UpstreamFault};
use serde_json::json;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// Longest message that is read, in bytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

static LINK: LazyLock<Result<HttpLink, UpstreamFault>> = LazyLock::new(|| {
    let limits = Limits {
        message_bytes_max: MESSAGE_BYTES_MAX,
        calls_pending_max: 1,
        flood_bytes_max: MESSAGE_BYTES_MAX,
        start_timeout: Duration::ZERO,
        probe_timeout: Duration::ZERO,
        grace: Duration::ZERO,
    };
    HttpLink::new("http://127.0.0.1:9/mcp", &[], limits, &Arc::new(Changes::default()))
});

/// Reads the answer to the request with this id.
///
/// # Errors
/// As a call's: when the answer is not one.
pub async fn read_answer(
    id: RpcId,
    answer: http::Response<reqwest::Body>,
) -> Result<RpcResponse, UpstreamFault> {
    let link = LINK.as_ref().map_err(Clone::clone)?;
    let request = RpcRequest::new(id.clone(), "tools/call", json!({}));
    let asking = HttpRequest { request, headers: Vec::new(), progress: None };
    if answer.status().is_success() {
        link.read_success(answer.into(), &asking).await
    } else {
        link.read_refusal(answer.into(), &id).await
    }
}
