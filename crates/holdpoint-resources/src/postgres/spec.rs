//! What a PostgreSQL database is, how much it may take, and the tools that are served with it.

use crate::resource::{WHOLE_BYTES_TIMES, WHOLE_ROWS_TIMES};
use crate::upstream::SecretText;
use holdpoint_types::ServerName;
use serde_json::{Value, json};
use std::time::Duration;

/// The tool that reads.
pub(super) const QUERY: &str = "sql_query";
/// The tool that writes.
pub(super) const EXECUTE: &str = "sql_execute";

/// How much a database may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostgresLimits {
    /// How long one statement may wait for what others hold.
    pub lock_timeout: Duration,
    /// How long one statement may take.
    pub statement_timeout: Duration,
    /// Most rows that one call may change, and most rows of an answer.
    pub rows_max: u64,
    /// Most bytes of old and new rows of one call, and of an answer.
    pub preview_bytes_max: u64,
    /// How long a previewed change may stay open until it is executed. Rows that it would change
    /// are locked meanwhile.
    pub hold_open_max: Duration,
    /// How long a dropped table can be got back.
    pub trash_keep: Duration,
}

/// One database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresSpec {
    /// The name of the server whose tools are served with it.
    pub server: ServerName,
    /// What the addresses of its rows begin with: `pg://orders`.
    pub place: String,
    /// Where it is and who we are there: `postgresql://user:secret@host/database`. Without an
    /// `sslmode` it must be reached by TLS with a verified name, or by a socket of this machine.
    pub url: SecretText,
    /// How much it may be asked for.
    pub limits: PostgresLimits,
}

// === impl PostgresLimits ===

impl PostgresLimits {
    /// Room for what people approved although it is larger.
    pub(super) fn whole(self) -> Self {
        let (rows, bytes) = (WHOLE_ROWS_TIMES, WHOLE_BYTES_TIMES);
        Self {
            rows_max: self.rows_max.saturating_mul(rows.into()),
            preview_bytes_max: self.preview_bytes_max.saturating_mul(bytes.into()),
            ..self
        }
    }
}

impl Default for PostgresLimits {
    fn default() -> Self {
        Self {
            lock_timeout: Duration::from_secs(2),
            statement_timeout: Duration::from_secs(15),
            rows_max: 1000,
            preview_bytes_max: 4 << 20,
            hold_open_max: Duration::from_secs(30),
            trash_keep: Duration::from_secs(7 * 24 * 60 * 60),
        }
    }
}

// === functions ===

/// The tools as MCP describes them.
pub(super) fn tools() -> Vec<Value> {
    let schema = |sql: &str| {
        json!({
            "type": "object",
            "properties": {
                "sql": { "type": "string", "minLength": 1, "description": sql },
                "params": {
                    "type": "array",
                    "description": "Values for $1, $2, …; only with a single statement.",
                },
            },
            "required": ["sql"],
            "additionalProperties": false,
        })
    };
    let output = json!({
        "type": "object",
        "properties": { "statements": { "type": "array", "items": { "type": "object" } } },
        "required": ["statements"],
    });
    let read = "One SELECT, VALUES, TABLE, WITH, EXPLAIN or SHOW statement of PostgreSQL. It runs \
                in a read-only transaction that is rolled back.";
    let write = "INSERT, UPDATE, DELETE, MERGE, SELECT, CALL or DO statements of PostgreSQL, run \
                 in one transaction; or one statement that changes definitions. Without \
                 transaction control, COPY, SET, TRUNCATE.";
    vec![
        json!({
            "name": QUERY,
            "title": "Read from the database",
            "description": read,
            "inputSchema": schema("One statement."),
            "outputSchema": output,
            "annotations": {
                "readOnlyHint": true,
                "destructiveHint": false,
                "idempotentHint": true,
                "openWorldHint": false,
            },
        }),
        json!({
            "name": EXECUTE,
            "title": "Change the database",
            "description": write,
            "inputSchema": schema("One or more statements, separated by `;`."),
            "outputSchema": output,
            "annotations": {
                "readOnlyHint": false,
                "destructiveHint": true,
                "idempotentHint": false,
                "openWorldHint": false,
            },
        }),
    ]
}
