//! The upstream server: `rmcp` with one tool, `echo`, so that the peer shares no code with us.
//!
//! `bench-echo stdio`, `bench-echo stateless` (2026-07-28, JSON answers) or `bench-echo sessions`
//! (2025-06-18, event streams). Over HTTP it prints its URL on one line.

use anyhow::bail;
use holdpoint_bench::TOOL;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ListToolsResult,
    PaginatedRequestParams, ProtocolVersion, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ServerHandler, ServiceExt as _};
use serde_json::json;
use std::borrow::Cow;
use std::sync::Arc;

const LEGACY: &[ProtocolVersion] = &[ProtocolVersion::V_2025_06_18, ProtocolVersion::V_2025_11_25];
const MODERN: &[ProtocolVersion] = &[ProtocolVersion::V_2026_07_28];

/// Says what it is told.
#[derive(Clone)]
struct Echo {
    revisions: &'static [ProtocolVersion],
}

// === impl Echo ===

impl ServerHandler for Echo {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(self.revisions)
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _call: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, rmcp::ErrorData> {
        let schema = json!({
            "type": "object",
            "properties": { "text": { "type": "string", "maxLength": 4096 } },
            "required": ["text"],
            "additionalProperties": false,
        });
        let schema = schema.as_object().cloned().unwrap_or_default();
        Ok(ListToolsResult::with_all_items(vec![Tool::new(TOOL, "says it", Arc::new(schema))]))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _call: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, rmcp::ErrorData> {
        let text = request.arguments.as_ref().and_then(|found| found.get("text")?.as_str());
        let Some(text) = text else {
            return Err(rmcp::ErrorData::invalid_params("`text` is missing", None));
        };
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mode = std::env::args().nth(1).unwrap_or_default();
    match mode.as_str() {
        "stdio" => {
            let pipes = (tokio::io::stdin(), tokio::io::stdout());
            Echo { revisions: LEGACY }.serve(pipes).await?.waiting().await?;
            Ok(())
        }
        "stateless" => serve(Echo { revisions: MODERN }, true).await,
        "sessions" => serve(Echo { revisions: LEGACY }, false).await,
        _ => bail!("usage: bench-echo stdio | stateless | sessions"),
    }
}

async fn serve(echo: Echo, stateless: bool) -> anyhow::Result<()> {
    let mut config = StreamableHttpServerConfig::default().with_sse_keep_alive(None);
    config.json_response = stateless;
    config.legacy_session_mode = !stateless;
    let sessions = Arc::new(LocalSessionManager::default());
    let service = StreamableHttpService::new(move || Ok(echo.clone()), sessions, config);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/mcp", listener.local_addr()?);
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        // An event stream comes in two writes; the second would wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
    });
    let router = axum::Router::new().nest_service("/mcp", service);
    Ok(axum::serve(listener, router).await?)
}
