//! The demo's tool server: a real MCP server over a SQLite database and a folder of notes.
//!
//! Owns the tools and their definitions. It must never be careful on Holdpoint's behalf: like many
//! real servers it does whatever SQL it is given, and its slow report ignores cancellation.

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData,
    Implementation, JsonObject, ListToolsResult, PaginatedRequestParams, ServerCapabilities,
    ServerConfig, Tool, ToolAnnotations,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::{ServerHandler, ServiceExt};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

mod database;
mod notes;

use database::Database;
use notes::Notes;

/// The longest report, in seconds; the schema says so too.
const REPORT_SECONDS_MAX: u64 = 600;

/// A tool server over one database and one folder.
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

/// One tool: how it is listed and what it does.
struct Offer {
    name: &'static str,
    about: &'static str,
    effect: Effect,
    schema: fn() -> Value,
    run: fn(&Shop, JsonObject) -> Result<String, ToolFault>,
}

/// What a tool says about itself in its annotations.
#[derive(Clone, Copy)]
enum Effect {
    Reads,
    Adds,
    Destroys,
}

#[derive(Debug)]
struct Shop {
    database: Database,
    notes: Notes,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sql {
    sql: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Insert {
    table: String,
    rows: Vec<JsonObject>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Report {
    seconds: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoteName {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    name: String,
    text: String,
}

const OFFERS: &[Offer] = &[
    Offer {
        name: "query",
        about: "Runs one SQL query and returns its rows. The database is opened read-only.",
        effect: Effect::Reads,
        schema: sql_schema,
        run: |shop, parameters| shop.database.query(&read::<Sql>(parameters)?.sql),
    },
    Offer {
        name: "insert_rows",
        about: "Inserts rows into one table, all or none.",
        effect: Effect::Adds,
        schema: insert_schema,
        run: |shop, parameters| {
            let insert: Insert = read(parameters)?;
            shop.database.insert(&insert.table, &insert.rows)
        },
    },
    Offer {
        name: "execute_sql",
        about: "Executes any SQL statements, one after the other.",
        effect: Effect::Destroys,
        schema: sql_schema,
        run: |shop, parameters| shop.database.execute(&read::<Sql>(parameters)?.sql),
    },
    Offer {
        name: "slow_report",
        about: "Computes a report for as many seconds as asked. It does not stop when cancelled.",
        effect: Effect::Reads,
        schema: report_schema,
        run: |shop, parameters| match read::<Report>(parameters)?.seconds {
            seconds @ 1..=REPORT_SECONDS_MAX => shop.database.report(seconds),
            seconds => Err(ToolFault::Unfit(format!("`{seconds}` is not 1 to 600 seconds"))),
        },
    },
    Offer {
        name: "read_note",
        about: "Reads one note of the workspace.",
        effect: Effect::Reads,
        schema: note_name_schema,
        run: |shop, parameters| shop.notes.read(&read::<NoteName>(parameters)?.name),
    },
    Offer {
        name: "write_note",
        about: "Writes a new note to the workspace. It never replaces a note.",
        effect: Effect::Adds,
        schema: note_schema,
        run: |shop, parameters| {
            let note: Note = read(parameters)?;
            shop.notes.write(&note.name, &note.text)
        },
    },
];

// === impl DemoServer ===

impl DemoServer {
    /// A server over the database file and the folder, which both exist already.
    pub fn new(database: PathBuf, workspace: PathBuf) -> Self {
        let shop = Shop { database: Database::new(database), notes: Notes::new(workspace) };
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
        Ok(ListToolsResult::with_all_items(OFFERS.iter().map(Offer::definition).collect()))
    }

    async fn call_tool(
        &self,
        call: CallToolRequestParams,
        _asked: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(offer) = OFFERS.iter().find(|offer| offer.name == call.name) else {
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

// === impl Offer ===

impl Offer {
    fn definition(&self) -> Tool {
        let schema = match (self.schema)() {
            Value::Object(schema) => schema,
            _ => JsonObject::new(),
        };
        Tool::new(self.name, self.about, schema).with_annotations(self.effect.annotations())
    }
}

// === impl Effect ===

impl Effect {
    fn annotations(self) -> ToolAnnotations {
        let closed = ToolAnnotations::new().open_world(false);
        match self {
            Self::Reads => closed.read_only(true).idempotent(true),
            Self::Adds => closed.read_only(false).destructive(false).idempotent(false),
            Self::Destroys => closed.read_only(false).destructive(true).idempotent(false),
        }
    }
}

// === functions ===

/// A failed tool is an answer that the agent reads, not a fault of the protocol.
fn answered(answer: Result<String, ToolFault>) -> CallToolResult {
    match answer {
        Ok(text) => CallToolResult::success(vec![ContentBlock::text(text)]),
        Err(fault) => CallToolResult::error(vec![ContentBlock::text(fault.to_string())]),
    }
}

fn read<T: DeserializeOwned>(parameters: JsonObject) -> Result<T, ToolFault> {
    Ok(serde_json::from_value(Value::Object(parameters))?)
}

fn object(properties: Value) -> Value {
    let names: Vec<&String> =
        properties.as_object().into_iter().flat_map(|all| all.keys()).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": properties,
        "required": names,
        "additionalProperties": false,
    })
}

fn sql_schema() -> Value {
    object(json!({ "sql": { "type": "string", "minLength": 1, "description": "SQL of SQLite" } }))
}

fn insert_schema() -> Value {
    let scalar = json!({ "type": ["string", "number", "boolean", "null"] });
    let row = json!({ "type": "object", "minProperties": 1, "additionalProperties": scalar });
    object(json!({
        "table": { "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]{0,62}$" },
        "rows": {
            "type": "array",
            "minItems": 1,
            "maxItems": database::ROWS_MAX,
            "items": row,
            "description": "Each row as an object: column name to value",
        },
    }))
}

fn report_schema() -> Value {
    object(json!({
        "seconds": { "type": "integer", "minimum": 1, "maximum": REPORT_SECONDS_MAX },
    }))
}

fn note_name_property() -> Value {
    json!({ "type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$" })
}

fn note_name_schema() -> Value {
    object(json!({ "name": note_name_property() }))
}

fn note_schema() -> Value {
    let text = json!({ "type": "string", "maxLength": notes::NOTE_BYTES_MAX });
    object(json!({ "name": note_name_property(), "text": text }))
}

#[cfg(test)]
mod tests;
