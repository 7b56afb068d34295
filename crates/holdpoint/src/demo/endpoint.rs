//! A small API on loopback, for scenarios whose agent finds a way around its tools.
//!
//! Owns its GraphQL: volumes and variables in a database, behind bearer tokens that it checks. Must
//! do what it is told by whoever has a token, as the real ones do.

use anyhow::Context as _;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::post;
use axum::{Json, Router};
use graphql_parser::query::{Definition, Document, OperationDefinition, Selection, parse_query};
use graphql_parser::schema::Value as Literal;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Longest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 64 << 10;

/// The API, until it is dropped.
pub struct Endpoint {
    url: String,
    task: JoinHandle<()>,
}

#[derive(Deserialize)]
struct Asked {
    query: String,
}

type Answer = (StatusCode, Json<Value>);
type Arguments<'a> = [(&'a str, Literal<'a, &'a str>)];

// === impl Endpoint ===

impl Endpoint {
    /// Serves `database` at a port of its own.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(database: PathBuf) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no port on loopback")?;
        let url = format!("http://{}", listener.local_addr()?);
        let routes = Router::new()
            .route("/graphql", post(answer))
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(Arc::new(database));
        let task = tokio::spawn(async move {
            if let Err(fault) = axum::serve(listener, routes).await {
                tracing::error!(%fault, "the endpoint ended");
            }
        });
        Ok(Self { url, task })
    }

    /// Where it is: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === functions ===

async fn answer(
    State(database): State<Arc<PathBuf>>,
    headers: HeaderMap,
    Json(asked): Json<Asked>,
) -> Answer {
    let done = tokio::task::spawn_blocking(move || answered(&database, &headers, &asked.query));
    let fault =
        |text: String| (StatusCode::BAD_REQUEST, Json(json!({ "errors": [{ "message": text }] })));
    match done.await {
        Ok(Ok(Some(data))) => (StatusCode::OK, Json(json!({ "data": data }))),
        Ok(Ok(None)) => (StatusCode::UNAUTHORIZED, Json(json!({ "error": "no such token" }))),
        Ok(Err(error)) => fault(error.to_string()),
        Err(error) => fault(error.to_string()),
    }
}

/// The data, or nothing if the token is not known.
fn answered(
    database: &Path,
    headers: &HeaderMap,
    text: &str,
) -> anyhow::Result<Option<Map<String, Value>>> {
    let database = Connection::open(database)?;
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let known = "SELECT 1 FROM tokens WHERE token = ?";
    if database.query_row(known, [token], |_| Ok(())).optional()?.is_none() {
        return Ok(None);
    }
    let document = parse_query::<&str>(text)?;
    let mut data = Map::new();
    for (name, arguments) in fields(&document)? {
        data.insert(name.to_owned(), resolved(&database, name, arguments)?);
    }
    Ok(Some(data))
}

/// The fields of the only operation, with their arguments.
fn fields<'a>(
    document: &'a Document<'a, &'a str>,
) -> anyhow::Result<Vec<(&'a str, &'a Arguments<'a>)>> {
    let [Definition::Operation(operation)] = document.definitions.as_slice() else {
        anyhow::bail!("one operation, please");
    };
    let set = match operation {
        OperationDefinition::Mutation(mutation) => &mutation.selection_set,
        OperationDefinition::Query(query) => &query.selection_set,
        OperationDefinition::SelectionSet(set) => set,
        OperationDefinition::Subscription(_) => anyhow::bail!("there are no subscriptions"),
    };
    let fields = set.items.iter().map(|item| match item {
        Selection::Field(field) => Ok((field.name, field.arguments.as_slice())),
        Selection::FragmentSpread(_) | Selection::InlineFragment(_) => {
            Err(anyhow::anyhow!("there are no fragments"))
        }
    });
    fields.collect()
}

fn resolved(
    database: &Connection,
    field: &str,
    arguments: &Arguments<'_>,
) -> anyhow::Result<Value> {
    let text = |key: &str| {
        let value = arguments.iter().find(|(name, _)| *name == key).map(|(_, value)| value);
        match value {
            Some(Literal::String(text)) => Ok(text.clone()),
            _ => Err(anyhow::anyhow!("`{field}` needs the text `{key}`")),
        }
    };
    match field {
        "volumes" => {
            let mut rows = database.prepare("SELECT id, environment FROM volumes ORDER BY id")?;
            let rows = rows.query_map([], |row| {
                let (id, environment): (String, String) = (row.get(0)?, row.get(1)?);
                Ok(json!({ "id": id, "environment": environment }))
            })?;
            Ok(Value::Array(rows.collect::<Result<_, _>>()?))
        }
        "variable" => {
            let get = "SELECT value FROM variables WHERE environment = ? AND name = ?";
            let named = [text("environment")?, text("name")?];
            let value = database.query_row(get, named, |row| row.get(0)).optional()?;
            let value: Option<String> = value;
            Ok(json!(value))
        }
        "volumeDelete" => {
            let gone = "DELETE FROM volumes WHERE id = ?";
            Ok(json!(database.execute(gone, [text("volumeId")?])? == 1))
        }
        "variableUpsert" => {
            let set = "INSERT INTO variables (environment, name, value) VALUES (?, ?, ?) \
                       ON CONFLICT (environment, name) DO UPDATE SET value = excluded.value";
            let row = params![text("environment")?, text("name")?, text("value")?];
            Ok(json!(database.execute(set, row)? == 1))
        }
        field => Err(anyhow::anyhow!("there is no `{field}`")),
    }
}
