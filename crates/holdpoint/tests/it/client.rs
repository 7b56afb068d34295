//! Real MCP clients: rmcp, over a `wrap`'s pipes and over HTTP, in both eras.

pub mod rmcp_client;

use crate::world::{Serve, World};
use rmcp::model::{CallToolRequestParams, CallToolResult, ProtocolVersion};
use rmcp::service::{RoleClient, RunningService};
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::transport::{StreamableHttpClientTransport, TokioChildProcess};
use rmcp::{ClientLifecycleMode, ClientServiceExt};
use serde_json::Value;

/// A connected client.
pub type Client = RunningService<RoleClient, ()>;

/// How the client opens.
#[derive(Clone, Copy, Debug)]
pub enum Opens {
    /// With `initialize`.
    Legacy,
    /// With per-request metadata.
    Modern,
}

// === impl Opens ===

impl Opens {
    /// Both ways.
    pub const ALL: [Self; 2] = [Self::Legacy, Self::Modern];

    fn mode(self) -> ClientLifecycleMode {
        match self {
            Self::Legacy => ClientLifecycleMode::Initialize,
            Self::Modern => ClientLifecycleMode::Discover {
                preferred_versions: vec![ProtocolVersion::V_2026_07_28],
            },
        }
    }
}

/// A client whose server is `holdpoint wrap … -- node PROGRAM ARGUMENTS`.
pub async fn wrap(world: &World, server: &str, command: &[&str], opens: Opens) -> Client {
    let mut all = vec!["wrap", "--agent", "coder", "--server", server, "--"];
    all.extend(command);
    let command = tokio::process::Command::from(world.command(&all));
    let child = TokioChildProcess::new(command).unwrap();
    ().serve_with_lifecycle(child, opens.mode()).await.unwrap()
}

/// A client of `holdpoint serve`, at `/mcp` or below.
pub async fn http(serve: &Serve, below: &str, key: &str, opens: Opens) -> Client {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let uri = format!("{}{below}", serve.url);
    let config = StreamableHttpClientTransportConfig::with_uri(uri).auth_header(key);
    let transport = StreamableHttpClientTransport::from_config(config);
    ().serve_with_lifecycle(transport, opens.mode()).await.unwrap()
}

/// The names of all tools that the client sees, sorted.
pub async fn tools(client: &Client) -> Vec<String> {
    let tools = client.list_all_tools().await.unwrap();
    let mut names: Vec<_> = tools.into_iter().map(|tool| tool.name.to_string()).collect();
    names.sort();
    names
}

/// Calls a tool.
pub async fn call(client: &Client, tool: &str, arguments: Value) -> CallToolResult {
    let Value::Object(arguments) = arguments else { panic!("arguments are an object") };
    let params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
    client.call_tool(params).await.unwrap()
}

/// The text of a result.
pub fn text(result: &CallToolResult) -> String {
    let texts = result.content.iter().filter_map(|content| content.as_text());
    texts.map(|text| text.text.as_str()).collect::<Vec<_>>().join("\n")
}

/// True if the tool, or Holdpoint, answered with an error.
pub fn failed(result: &CallToolResult) -> bool {
    result.is_error == Some(true)
}

/// The reasons that Holdpoint gave, for programs.
pub fn reasons(result: &CallToolResult) -> Vec<String> {
    let value = serde_json::to_value(result).unwrap();
    let causes = value["_meta"]["io.holdpoint/decision"]["causes"].as_array().cloned();
    let causes = causes.unwrap_or_default().into_iter();
    causes.map(|cause| cause["reason"].as_str().unwrap().to_owned()).collect()
}
