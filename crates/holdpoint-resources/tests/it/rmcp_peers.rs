//! Servers made with `rmcp`, an implementation that shares no code with ours, in both eras.

use crate::peer::{call, limits, pipe, role, said, upstream};
use holdpoint_resources::mcp::Era;
use holdpoint_resources::{Transport, Upstream, UpstreamSpec};
use rmcp::ServerHandler;
use rmcp::ServiceExt as _;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ListToolsResult,
    PaginatedRequestParams, ProtocolVersion, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::json;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// Offers one tool, `add`.
#[derive(Clone)]
struct Adder {
    revisions: &'static [ProtocolVersion],
}

const LEGACY: &[ProtocolVersion] = &[ProtocolVersion::V_2025_06_18, ProtocolVersion::V_2025_11_25];
const MODERN: &[ProtocolVersion] = &[ProtocolVersion::V_2026_07_28];

impl ServerHandler for Adder {
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
        let a = json!({"type": "integer", "x-mcp-header": "A"});
        let schema = json!({"type": "object", "properties": {"a": a}});
        let schema = Arc::new(schema.as_object().unwrap().clone());
        Ok(ListToolsResult::with_all_items(vec![Tool::new("add", "adds one", schema)]))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _call: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, rmcp::ErrorData> {
        let a = request.arguments.as_ref().and_then(|found| found.get("a")?.as_i64());
        let Some(a) = a else {
            return Err(rmcp::ErrorData::invalid_params("`a` is missing", None));
        };
        let text = ContentBlock::text((a + 1).to_string());
        Ok(CallToolResult::success(vec![text]).into())
    }
}

fn adder(role: &str) -> Adder {
    Adder { revisions: if role == "rmcp-legacy" { LEGACY } else { MODERN } }
}

#[test]
#[ignore = "the server that other tests start"]
fn serve() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let pipes = (tokio::io::stdin(), tokio::fs::File::from_std(pipe()));
        let running = adder(&role()).serve(pipes).await.unwrap();
        running.waiting().await.unwrap();
    });
}

/// Serves over HTTP on a port of its own and returns an upstream for it.
async fn http(role: &str, json_response: bool) -> Upstream {
    let adder = adder(role);
    let mut config = StreamableHttpServerConfig::default().with_sse_keep_alive(None);
    config.json_response = json_response;
    config.legacy_session_mode = !json_response;
    let service = StreamableHttpService::new(
        move || Ok(adder.clone()),
        Arc::new(LocalSessionManager::default()),
        config,
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let router = axum::Router::new().nest_service("/mcp", service);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let transport = Transport::Http { url, headers: Vec::new(), oauth: None };
    let (server, timeout) = ("peer".parse().unwrap(), Duration::from_secs(20));
    Upstream::new(UpstreamSpec { server, transport, timeout, limits: limits() })
}

async fn check(upstream: Upstream, era: Era, what: &str) {
    assert_eq!(upstream.era().await, Ok(era), "{what}");
    let tools = upstream.list_tools().await.unwrap();
    assert_eq!(tools.len(), 1, "{what}");
    assert_eq!(tools[0]["name"], "add", "{what}");
    let answered = said(&call(&upstream, "add", json!({"a": 41})).await);
    assert!(
        answered.starts_with("answered false: ") && answered.contains(r#""text":"42""#),
        "{what}: {answered}"
    );
    let refused = said(&call(&upstream, "add", json!({})).await);
    assert!(
        refused.starts_with("answered true: ") && refused.contains("-32602"),
        "{what}: {refused}"
    );
    upstream.close().await;
}

#[tokio::test]
async fn both_eras_over_stdio() {
    check(upstream("rmcp-modern"), Era::Modern, "modern").await;
    check(upstream("rmcp-legacy"), Era::Legacy, "legacy").await;
}

#[tokio::test]
async fn both_eras_over_http() {
    for json_response in [false, true] {
        let what = format!("JSON {json_response}");
        check(http("rmcp-modern", json_response).await, Era::Modern, &what).await;
        check(http("rmcp-legacy", json_response).await, Era::Legacy, &what).await;
    }
}
