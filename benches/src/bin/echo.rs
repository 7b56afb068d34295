//! The upstream server: `rmcp` with one tool, `echo`, so that the peer shares no code with us.
//!
//! `bench-echo stdio`, `bench-echo stateless` (2026-07-28, JSON answers) or `bench-echo sessions`
//! (2025-06-18, event streams). Over HTTP it prints its URL on one line.
//!
//! For the soak, a journal (a file that gets each text before it is answered) and an address may
//! follow. Texts that begin with `slow` take their time.

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
use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

const LEGACY: &[ProtocolVersion] = &[ProtocolVersion::V_2025_06_18, ProtocolVersion::V_2025_11_25];
const MODERN: &[ProtocolVersion] = &[ProtocolVersion::V_2026_07_28];

/// How long slow texts take.
const SLOW: Duration = Duration::from_millis(300);

/// Says what it is told.
#[derive(Clone)]
struct Echo {
    revisions: &'static [ProtocolVersion],
    journal: Option<Arc<File>>,
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
        if let Some(mut journal) = self.journal.as_deref() {
            // One write, so that neither another process nor a kill cuts a line in two.
            let written = journal.write_all(format!("{text}\n").as_bytes());
            written.map_err(|error| rmcp::ErrorData::internal_error(error.to_string(), None))?;
        }
        if text.starts_with("slow") {
            tokio::time::sleep(SLOW).await;
        }
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let journal = words.get(1).map(|path| File::options().create(true).append(true).open(path));
    let journal = journal.transpose()?.map(Arc::new);
    let address = words.get(2).map_or("127.0.0.1:0", String::as_str);
    let echo = |revisions| Echo { revisions, journal };
    match words.first().map(String::as_str) {
        Some("stdio") => {
            let pipes = (tokio::io::stdin(), tokio::io::stdout());
            echo(LEGACY).serve(pipes).await?.waiting().await?;
            Ok(())
        }
        Some("stateless") => serve(echo(MODERN), true, address).await,
        Some("sessions") => serve(echo(LEGACY), false, address).await,
        _ => bail!("usage: bench-echo stdio|stateless|sessions [JOURNAL [ADDRESS]]"),
    }
}

async fn serve(echo: Echo, stateless: bool, address: &str) -> anyhow::Result<()> {
    let mut config = StreamableHttpServerConfig::default().with_sse_keep_alive(None);
    config.json_response = stateless;
    config.legacy_session_mode = !stateless;
    let sessions = Arc::new(LocalSessionManager::default());
    let service = StreamableHttpService::new(move || Ok(echo.clone()), sessions, config);
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("http://{}/mcp", listener.local_addr()?);
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        // An event stream comes in two writes; the second would wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
    });
    let router = axum::Router::new().nest_service("/mcp", service);
    Ok(axum::serve(listener, router).await?)
}
