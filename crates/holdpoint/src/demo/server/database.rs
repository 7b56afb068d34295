//! The demo's database: what each tool does to the SQLite file.
//!
//! Owns the SQL. Opens the file anew for every call, so that nothing is held open between calls and
//! the file's bytes can be compared. Must never judge a statement.

use super::ToolFault;
use rmcp::model::JsonObject;
use rusqlite::types::{Value as Cell, ValueRef};
use rusqlite::{Connection, OpenFlags, Row, params_from_iter};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How many rows one call inserts or returns at most.
pub const ROWS_MAX: usize = 10_000;

/// How long a call waits for another call's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// One step of the slow report: long enough to keep a processor busy, short enough to end in time.
const REPORT_STEP: &str = "WITH RECURSIVE n(i) AS \
     (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) SELECT sum(i * i % 7) FROM n";

/// A SQLite file.
#[derive(Debug)]
pub struct Database {
    file: PathBuf,
}

// === impl Database ===

impl Database {
    /// The database in `file`, which exists already.
    pub fn new(file: PathBuf) -> Self {
        Self { file }
    }

    /// The rows of one query, as JSON.
    ///
    /// # Errors
    /// When SQLite refuses, for instance because the statement would write.
    pub fn query(&self, sql: &str) -> Result<String, ToolFault> {
        let connection = self.open(OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut statement = connection.prepare(sql)?;
        let names: Vec<String> = statement.column_names().map(ToOwned::to_owned).collect();
        let mut rows = statement.query([])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            if found.len() == ROWS_MAX {
                return Err(ToolFault::Unfit(format!("more than {ROWS_MAX} rows; ask for fewer")));
            }
            found.push(row_to_json(row, &names)?);
        }
        Ok(json!({ "rows": found }).to_string())
    }

    /// Inserts all rows or none.
    ///
    /// # Errors
    /// When SQLite refuses a row, or a value is no scalar.
    pub fn insert(&self, table: &str, rows: &[JsonObject]) -> Result<String, ToolFault> {
        if !(1..=ROWS_MAX).contains(&rows.len()) {
            let text = format!("{} rows; insert 1 to {ROWS_MAX} in one call", rows.len());
            return Err(ToolFault::Unfit(text));
        }
        let mut connection = self.open(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let transaction = connection.transaction()?;
        for row in rows {
            let cells = row.values().map(cell).collect::<Result<Vec<Cell>, ToolFault>>()?;
            transaction
                .prepare_cached(&insert_sql(table, row))?
                .execute(params_from_iter(cells))?;
        }
        transaction.commit()?;
        Ok(format!("inserted {} rows into `{table}`", rows.len()))
    }

    /// Executes any statements.
    ///
    /// # Errors
    /// When SQLite refuses one; those before it are done.
    pub fn execute(&self, sql: &str) -> Result<String, ToolFault> {
        let connection = self.open(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let before = connection.total_changes();
        connection.execute_batch(sql)?;
        let changed = connection.total_changes().saturating_sub(before);
        Ok(format!("done, {changed} rows changed"))
    }

    /// Does `work` in one transaction: all of it or nothing.
    ///
    /// # Errors
    /// When `work` fails, or SQLite refuses.
    pub fn with<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, ToolFault>,
    ) -> Result<T, ToolFault> {
        let mut connection = self.open(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let transaction = connection.transaction()?;
        let done = work(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }

    /// Computes for `seconds`, whatever happens.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn report(&self, seconds: u64) -> Result<String, ToolFault> {
        let connection = self.open(OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let start = Instant::now();
        let mut steps = 0_u64;
        while start.elapsed() < Duration::from_secs(seconds) {
            connection.query_row(REPORT_STEP, [], |row| row.get::<_, i64>(0))?;
            steps = steps.saturating_add(1);
        }
        Ok(format!("report finished after {seconds} s and {steps} steps"))
    }

    fn open(&self, access: OpenFlags) -> Result<Connection, ToolFault> {
        let connection =
            Connection::open_with_flags(&self.file, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        Ok(connection)
    }
}

// === functions ===

fn insert_sql(table: &str, row: &JsonObject) -> String {
    let columns: Vec<String> = row.keys().map(|name| quoted(name)).collect();
    let marks = vec!["?"; columns.len()].join(", ");
    format!("INSERT INTO {} ({}) VALUES ({marks})", quoted(table), columns.join(", "))
}

/// A name as SQL takes it, whatever it holds.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn cell(value: &Value) -> Result<Cell, ToolFault> {
    match value {
        Value::Null => Ok(Cell::Null),
        Value::Bool(flag) => Ok(Cell::Integer(i64::from(*flag))),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Ok(Cell::Integer(whole)),
            (None, Some(real)) => Ok(Cell::Real(real)),
            (None, None) => Err(ToolFault::Unfit(format!("`{number}` fits no column"))),
        },
        Value::String(text) => Ok(Cell::Text(text.clone())),
        Value::Array(_) | Value::Object(_) => {
            Err(ToolFault::Unfit("a value is a text, a number, a truth value or null".to_owned()))
        }
    }
}

fn row_to_json(row: &Row<'_>, names: &[String]) -> Result<Value, ToolFault> {
    let mut object = JsonObject::new();
    for (index, name) in names.iter().enumerate() {
        object.insert(name.clone(), to_json(row.get_ref(index)?));
    }
    Ok(Value::Object(object))
}

fn to_json(cell: ValueRef<'_>) -> Value {
    match cell {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(whole) => json!(whole),
        ValueRef::Real(real) => json!(real),
        ValueRef::Text(text) => json!(String::from_utf8_lossy(text)),
        ValueRef::Blob(bytes) => json!(format!("<{} bytes>", bytes.len())),
    }
}
