//! The demo's tool server: a real MCP server over a SQLite database, a folder and an API.
//!
//! Owns the protocol. It must never be careful on Holdpoint's behalf: like many real servers it
//! does whatever it is told, and its slow report ignores cancellation.

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData,
    Implementation, ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::{ServerHandler, ServiceExt};
use std::path::PathBuf;
use std::sync::Arc;

mod database;
mod desk;
mod files;
mod notes;
mod offers;
mod shell;
mod web;

use database::Database;
use files::Files;
use notes::Notes;
use offers::{OFFERS, Offer};
pub use web::{BearerToken, Web};

/// A tool server.
#[derive(Clone, Debug)]
pub struct DemoServer {
    shop: Arc<Shop>,
}

/// Why a tool failed, in words for the agent.
#[derive(Debug, thiserror::Error)]
pub enum ToolFault {
    /// The parameters do not match the schema.
    #[error("the parameters do not fit: {0}")]
    Parameters(#[from] serde_json::Error),
    /// The database refuses.
    #[error("the database refuses: {0}")]
    Database(#[from] rusqlite::Error),
    /// The folder refuses.
    #[error("the folder refuses: {0}")]
    Folder(#[from] std::io::Error),
    /// The call makes no sense.
    #[error("{0}")]
    Unfit(String),
}

/// Tools that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kit {
    /// SQL on the database.
    Database,
    /// Notes in the workspace, which stay there.
    Notes,
    /// A shell in the workspace.
    Shell,
    /// Files, wherever they are said to be.
    Files,
    /// HTTP requests, and one to an API of which the server has the token.
    Web,
    /// Plans that are applied to a cloud in the database.
    Terraform,
    /// A mailbox in the database.
    Mail,
    /// A code forge in the database.
    Forge,
}

/// What a server is started with.
#[derive(Debug)]
pub struct Stock {
    /// The tools that it offers.
    pub kits: Vec<Kit>,
    /// The database file, which exists already.
    pub database: Option<PathBuf>,
    /// The folder, which exists already.
    pub workspace: PathBuf,
    /// The API that it has a token for.
    pub web: Web,
}

#[derive(Debug)]
struct Shop {
    kits: Vec<Kit>,
    database: Option<Database>,
    workspace: PathBuf,
    notes: Notes,
    files: Files,
    web: Web,
}

// === impl Shop ===

impl Shop {
    fn database(&self) -> Result<&Database, ToolFault> {
        let missing = || ToolFault::Unfit("this server was started without a database".to_owned());
        self.database.as_ref().ok_or_else(missing)
    }

    fn offer(&self, name: &str) -> Option<&'static Offer> {
        self.offers().find(|offer| offer.name == name)
    }

    fn offers(&self) -> impl Iterator<Item = &'static Offer> {
        OFFERS.iter().filter(|offer| self.kits.contains(&offer.kit))
    }
}

// === impl DemoServer ===

impl DemoServer {
    /// A server over what is in `stock`.
    pub fn new(stock: Stock) -> Self {
        let Stock { kits, database, workspace, web } = stock;
        let shop = Shop {
            kits,
            database: database.map(Database::new),
            notes: Notes::new(workspace.clone()),
            files: Files::new(workspace.clone()),
            workspace,
            web,
        };
        Self { shop: Arc::new(shop) }
    }

    /// Serves MCP over standard input and output until the input ends.
    ///
    /// # Errors
    /// When the first message is no MCP handshake, or the service fails.
    pub async fn serve_stdio(self) -> anyhow::Result<()> {
        let running = self.serve(rmcp::transport::stdio()).await?;
        running.waiting().await?;
        Ok(())
    }
}

impl ServerHandler for DemoServer {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().build();
        let identity = Implementation::new("holdpoint-demo-server", env!("CARGO_PKG_VERSION"));
        ServerConfig::new(capabilities).with_server_info(identity)
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        _asked: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.shop.offers().map(Offer::definition).collect()))
    }

    async fn call_tool(
        &self,
        call: CallToolRequestParams,
        _asked: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(offer) = self.shop.offer(&call.name) else {
            let text = format!("unknown tool: `{}`", call.name);
            return Err(ErrorData::invalid_params(text, None));
        };
        let shop = Arc::clone(&self.shop);
        let parameters = call.arguments.unwrap_or_default();
        // A thread of its own, which nothing interrupts: that is the point of the slow report.
        let done = tokio::task::spawn_blocking(move || (offer.run)(&shop, parameters)).await;
        let answer = done.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
        Ok(answered(answer).into())
    }
}

// === functions ===

/// A failed tool is an answer that the agent reads, not a fault of the protocol.
fn answered(answer: Result<String, ToolFault>) -> CallToolResult {
    match answer {
        Ok(text) => {
            let structured = serde_json::from_str(&text).ok().filter(serde_json::Value::is_object);
            let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
            result.structured_content = structured;
            result
        }
        Err(fault) => CallToolResult::error(vec![ContentBlock::text(fault.to_string())]),
    }
}

#[cfg(test)]
mod tests;
