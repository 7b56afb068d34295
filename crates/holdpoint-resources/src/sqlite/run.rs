//! Running SQL of an agent within a transaction, and reading.
//!
//! Owns the split into statements and what an agent is told of each. Must never commit.

use super::SqliteLimits;
use super::capture::{Capture, Noted};
use super::open::{Opened, Purpose, Wants, full, told};
use super::value::{encode, weight};
use crate::resource::ResourceFault;
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::{Batch, Connection, Statement};
use serde_json::{Value, json};
use std::time::Instant;

/// What came of the statements.
#[derive(Debug, Default)]
pub(super) struct Ran {
    /// What the agent is told of each.
    pub(super) statements: Vec<Value>,
    /// Why rows alone do not tell all that changes.
    pub(super) beyond_rows: Option<String>,
}

/// Rows that are read, within limits.
struct Reading<'a> {
    limits: &'a SqliteLimits,
    rows: usize,
    bytes: usize,
}

/// Runs every statement of `sql`. With a capture, ends early if rows do not tell all.
pub(super) fn run(
    opened: &Opened,
    sql: &str,
    limits: &SqliteLimits,
    mut capture: Option<&mut Capture>,
) -> Result<Ran, ResourceFault> {
    let (mut ran, begun) = (Ran::default(), Instant::now());
    let noted = noted(&opened.conn, sql).map_err(|fault| told(&fault))?;
    let mut batch = Batch::new(&opened.conn, sql);
    loop {
        if begun.elapsed() > limits.statement {
            return Err(ResourceFault::Unavailable("not done within the time limit".to_owned()));
        }
        let (next, wants) = opened.guarded(Purpose::Write, |_| {
            let next = batch.next()?;
            Ok(next.map(|next| (text_of(&next), next.readonly() && next.column_count() > 0)))
        });
        let Some((text, reads)) = allowed(next, &wants)? else { break };
        let text = text?;
        if reads {
            let why = "`sql_query` reads, `sql_execute` does not".to_owned();
            return Err(ResourceFault::Refused(why));
        }
        if let Some(capture) = capture.as_deref_mut() {
            ran.beyond_rows = watch(&opened.conn, capture, &wants, noted)?;
            if ran.beyond_rows.is_some() {
                return Ok(ran);
            }
        }
        ran.statements.push(step(opened, &text, limits)?);
    }
    if ran.statements.is_empty() {
        return Err(ResourceFault::Invalid("there is no statement".to_owned()));
    }
    Ok(ran)
}

/// Reads with one statement.
pub(super) fn read(
    opened: &Opened,
    sql: &str,
    limits: &SqliteLimits,
) -> Result<Value, ResourceFault> {
    let (done, wants) = opened.guarded(Purpose::Read, |conn| {
        let mut statement = conn.prepare(sql)?;
        if statement.parameter_count() > 0 || !statement.readonly() || statement.column_count() == 0
        {
            return Ok(None);
        }
        let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let mut reading = Reading { limits, rows: 0, bytes: 0 };
        reading.rows(&mut statement).map(|rows| Some((columns, rows)))
    });
    let Some((columns, rows)) = allowed(done, &wants)? else {
        return Err(ResourceFault::Refused("not one statement that only reads".to_owned()));
    };
    Ok(json!({ "columns": columns, "rows": rows? }))
}

// === impl Reading ===

impl Reading<'_> {
    /// All rows, or that there are too many.
    fn rows(
        &mut self,
        statement: &mut Statement<'_>,
    ) -> rusqlite::Result<Result<Vec<Value>, ResourceFault>> {
        let (columns, mut listed) = (statement.column_count(), Vec::new());
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            self.rows = self.rows.saturating_add(1);
            let mut cells = Vec::with_capacity(columns);
            for at in 0..columns {
                let cell = row.get_ref(at)?;
                self.bytes = self.bytes.saturating_add(weight(cell));
                cells.push(encode(cell));
            }
            if self.rows > self.limits.rows_max {
                let text = format!("more than {} rows", self.limits.rows_max);
                return Ok(Err(ResourceFault::TooLarge(text)));
            }
            if self.bytes > self.limits.bytes_max {
                let text = format!("more than {} bytes", self.limits.bytes_max);
                return Ok(Err(ResourceFault::TooLarge(text)));
            }
            listed.push(Value::Array(cells));
        }
        Ok(Ok(listed))
    }
}

/// Runs one statement to its end.
fn step(opened: &Opened, text: &str, limits: &SqliteLimits) -> Result<Value, ResourceFault> {
    let (done, wants) = opened.guarded(Purpose::Write, |conn| {
        let mut statement = conn.prepare(text)?;
        let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
        // What is returned is for the agent; the rows that change have a limit of their own.
        let mut reading = Reading { limits, rows: 0, bytes: 0 };
        let total = conn.total_changes();
        let rows = reading.rows(&mut statement)?;
        let changed = if conn.total_changes() == total { 0 } else { conn.changes() };
        Ok((columns, rows, changed))
    });
    let (columns, rows, changed) = allowed(done, &wants)?;
    let mut told = json!({ "rows_changed": changed });
    if let (false, Some(members)) = (columns.is_empty(), told.as_object_mut()) {
        members.insert("columns".to_owned(), columns.into());
        members.insert("rows".to_owned(), rows?.into());
    }
    Ok(told)
}

/// Watches the tables that a statement writes, unless rows do not tell all.
fn watch(
    conn: &Connection,
    capture: &mut Capture,
    wants: &Wants,
    noted: Noted,
) -> Result<Option<String>, ResourceFault> {
    if wants.schema {
        return Ok(Some("the schema changes".to_owned()));
    }
    for table in &wants.tables {
        match is_view(conn, table).and_then(|view| Ok(view || capture.watch(conn, table, noted)?)) {
            Ok(true) => {}
            Ok(false) => return Ok(Some(format!("rows of `{table}` cannot be told apart"))),
            Err(fault) => return Err(told(&fault)),
        }
    }
    Ok(None)
}

fn is_view(conn: &Connection, name: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM main.sqlite_schema WHERE type = 'view' AND lower(name) = lower(?1)";
    conn.prepare(sql)?.exists([name])
}

/// Statements that replace rows do not tell triggers which, so where one may be at work, all rows
/// of the tables are noted at first.
fn noted(conn: &Connection, sql: &str) -> rusqlite::Result<Noted> {
    let mut statement = conn.prepare("SELECT sql FROM main.sqlite_schema WHERE sql IS NOT NULL")?;
    let schema = statement.query_map([], |row| row.get(0))?;
    let schema = schema.collect::<rusqlite::Result<Vec<String>>>()?;
    let replaces =
        |text: &str| text.as_bytes().windows(7).any(|word| word.eq_ignore_ascii_case(b"replace"));
    let any = replaces(sql) || schema.iter().any(|text| replaces(text));
    Ok(if any { Noted::All } else { Noted::AsTheyChange })
}

fn text_of(statement: &Statement<'_>) -> Result<String, ResourceFault> {
    if statement.parameter_count() > 0 {
        return Err(ResourceFault::Refused("parameters such as `?` have no value".to_owned()));
    }
    let unknown = || ResourceFault::Refused("a statement has no text".to_owned());
    statement.expanded_sql().ok_or_else(unknown)
}

/// What was done, unless the agent may not.
fn allowed<T>(done: rusqlite::Result<T>, wants: &Wants) -> Result<T, ResourceFault> {
    match (&wants.refused, done) {
        (Some(what), _) => Err(ResourceFault::Refused(format!("{what} is not allowed"))),
        (None, Ok(done)) => Ok(done),
        (None, Err(_)) if wants.full => Err(full()),
        (None, Err(fault)) => Err(told(&fault)),
    }
}
