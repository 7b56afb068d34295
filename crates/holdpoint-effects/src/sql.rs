//! SQL: what a batch of statements would do to a database, read as that database reads it.
//!
//! Owns the order of things: cut the text into statements, parse each, walk through it, collect
//! effects. Must never drop a statement: what cannot be read is opaque, and the statements
//! around it are listed nevertheless.

use crate::effects::{Effects, NoteCode, TEXT_BYTES_MAX};
use holdpoint_types::{Certainty, Effect, Verb};
use lexer::{Executable, Lexed, Piece};
use sqlparser::ast::Statement;
use sqlparser::dialect::{MySqlDialect, PostgreSqlDialect, SQLiteDialect};
use sqlparser::parser::Parser;
use std::collections::{BTreeMap, BTreeSet};
use walk::Batch;

mod access;
mod alter;
mod lexer;
mod lists;
mod names;
mod objects;
mod predicate;
mod rows;
mod settings;
mod statement;
mod subquery;
mod walk;

/// How deep a statement may be nested; the parser's own limit.
const DEPTH_MAX: usize = 48;

/// Which SQL a database speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// PostgreSQL, with the settings of a fresh installation.
    Postgres,
    /// SQLite.
    Sqlite,
    /// MySQL and MariaDB, in their default SQL mode.
    Mysql,
}

/// The database that a statement is sent to, as its operator describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// Which SQL it speaks.
    pub dialect: Dialect,
    /// Its typed address: `pg://orders-prod/orders`, `sqlite://prod`, `mysql://shop-prod/shop`.
    /// A table's resource is `{address}/{schema}.{table}` for PostgreSQL, where the schema is
    /// `public` unless said otherwise; `{address}/{table}` for SQLite and MySQL. Names are folded
    /// as the server folds them, and signs other than letters, digits, `_`, `$` and `-` are
    /// written as `%2E`.
    pub address: String,
    /// The tables behind each view, both as they are called in a resource: `public.recent`.
    pub views: BTreeMap<String, Vec<String>>,
    /// Functions of the database itself that are known to only look, by their name in lower case.
    pub read_functions: BTreeSet<String>,
}

// === impl Database ===

impl Database {
    /// A database of which nothing is known but its address.
    pub fn new(dialect: Dialect, address: impl Into<String>) -> Self {
        Self {
            dialect,
            address: address.into(),
            views: BTreeMap::new(),
            read_functions: BTreeSet::new(),
        }
    }
}

// === functions ===

/// Adds to `effects` what the statements of `text` would do to `database`.
pub fn sql(text: &str, database: &Database, effects: &mut Effects) {
    if text.len() > TEXT_BYTES_MAX {
        let evidence = format!("SQL of {} bytes", text.len());
        return effects.add_opaque(&database.address, NoteCode::TooLarge, evidence);
    }
    let lexed = lexer::lex(text, database.dialect, Executable::Skipped);
    match lexed.versions.first() {
        None => run(lexed, database, effects),
        Some(_) => run_executable(text, lexed, database, effects),
    }
}

/// MySQL runs what stands in a `/*! … */`, and in a `/*!50100 … */` if it is new enough. Which it
/// is, is not known here: both readings count.
fn run_executable(text: &str, skipped: Lexed, database: &Database, effects: &mut Effects) {
    if skipped.versions.len() > 1 {
        let evidence = "executed comments for different versions";
        effects.add_opaque(&database.address, NoteCode::Unreadable, evidence);
    }
    if skipped.versions.iter().any(|version| !version.is_empty()) {
        run(skipped, database, effects);
    }
    run(lexer::lex(text, database.dialect, Executable::Read), database, effects);
}

fn run(lexed: Lexed, database: &Database, effects: &mut Effects) {
    let mut batch = Batch::new(database, effects);
    for piece in &lexed.pieces {
        run_piece(piece, &mut batch);
    }
    // Nothing that is stored is looked at: `SELECT 1`, or no statement at all.
    if effects.class().is_none() {
        effects.add(Effect::new(Verb::Read, &database.address, "looks at nothing stored"));
    }
}

fn run_piece(piece: &Piece, batch: &mut Batch<'_>) {
    if let Some(line) = &piece.client {
        return settings::client_line(line, batch);
    }
    let what = piece.head.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(" ");
    if let Some(fault) = piece.fault {
        return batch.opaque(NoteCode::Unreadable, format!("`{what}`: {fault}"));
    }
    if let Some(why) = batch.distrust {
        return batch.opaque(NoteCode::Unreadable, format!("`{what}` after {why}"));
    }
    let first = piece.head.first().map_or("", String::as_str);
    if first == "PRAGMA" && batch.database.dialect == Dialect::Sqlite {
        return settings::pragma(&piece.text, batch);
    }
    match parse(&piece.text, first, batch.database.dialect) {
        Some(statement) => walk::walk(&statement, batch),
        None if upkeep(piece, batch) => {}
        None => unparsed(&what, batch),
    }
}

/// Statements of upkeep that the parser does not know: they change how data lies, not what it is.
fn upkeep(piece: &Piece, batch: &mut Batch<'_>) -> bool {
    let head: Vec<&str> = piece.head.iter().map(String::as_str).collect();
    let known = match batch.database.dialect {
        Dialect::Postgres => {
            let empties = head.contains(&"NO") && head.contains(&"DATA");
            let refreshes = matches!(head.as_slice(), ["REFRESH", "MATERIALIZED", "VIEW", ..]);
            refreshes && !empties
                || matches!(
                    head.as_slice(),
                    ["CHECKPOINT"] | ["REINDEX" | "VACUUM" | "ANALYZE", ..]
                )
        }
        Dialect::Sqlite => matches!(head.as_slice(), ["REINDEX", ..]),
        Dialect::Mysql => matches!(
            head.as_slice(),
            ["OPTIMIZE" | "CHECK" | "CHECKSUM" | "REPAIR", "TABLE" | "TABLES", ..]
        ),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || " _.,`\"()\n".contains(c);
    let known = known && piece.text.chars().all(plain);
    if known {
        let evidence = format!("`{}` keeps what is stored", head.first().unwrap_or(&""));
        let effect = Effect::new(Verb::Update, &batch.database.address, evidence);
        batch.effects.add(effect.no_surer_than(Certainty::Bounded));
    }
    known
}

/// Exactly one statement, or nothing.
fn parse(text: &str, first: &str, dialect: Dialect) -> Option<Statement> {
    let text = match first {
        // The parser swallows what follows the name in `TABLE t`.
        "TABLE" => format!("SELECT * FROM {};", text.trim().get("TABLE".len()..)?),
        _ => format!("{};", text.trim()),
    };
    let parsed = match dialect {
        Dialect::Postgres => parse_as(&PostgreSqlDialect {}, &text),
        Dialect::Sqlite => parse_as(&SQLiteDialect {}, &text),
        Dialect::Mysql => parse_as(&MySqlDialect {}, &text),
    };
    let mut statements = parsed?;
    match statements.len() {
        1 => statements.pop(),
        _ => None,
    }
}

fn parse_as(dialect: &dyn sqlparser::dialect::Dialect, text: &str) -> Option<Vec<Statement>> {
    let parser = Parser::new(dialect).with_recursion_limit(DEPTH_MAX);
    parser.try_with_sql(text).ok()?.parse_statements().ok()
}

/// What the parser does not know. The first words say what kind of danger it is.
fn unparsed(what: &str, batch: &mut Batch<'_>) {
    let code = match what.split(' ').next() {
        Some("DO" | "CALL" | "LOAD" | "EXECUTE" | "PREPARE") => NoteCode::UnseenCode,
        Some(_) | None => NoteCode::Unreadable,
    };
    batch.opaque(code, format!("`{what}` cannot be read"));
}

#[cfg(test)]
mod tests;
