//! The demo's stand-ins for what a team works with: a mailbox, a code forge, a cloud.
//!
//! Each keeps its things in tables of the server's database. Must do what it is told, at once and
//! for good.

use super::ToolFault;
use super::database::Database;
use rusqlite::{Connection, params};
use serde::Deserialize;
use serde_json::{Value, json};

/// How many things one call changes at most.
pub const ITEMS_MAX: usize = 1000;

/// As much of a plan as applying it takes.
#[derive(Deserialize)]
struct Plan {
    resource_changes: Vec<Planned>,
}

#[derive(Deserialize)]
struct Planned {
    address: String,
    #[serde(rename = "type")]
    kind: String,
    change: Change,
}

#[derive(Deserialize)]
struct Change {
    actions: Vec<String>,
}

// === functions ===

/// Every message, without its text.
///
/// # Errors
/// When the database refuses.
pub fn messages(database: &Database) -> Result<String, ToolFault> {
    database.query("SELECT id, sender, subject, label FROM messages ORDER BY id")
}

/// Deletes messages for good.
///
/// # Errors
/// When the database refuses; then all are left.
pub fn delete_messages(database: &Database, ids: &[i64]) -> Result<String, ToolFault> {
    each(database, ids, |at, id| at.execute("DELETE FROM messages WHERE id = ?", [id]))
}

/// Puts a label on messages.
///
/// # Errors
/// When the database refuses; then none has it.
pub fn label_messages(database: &Database, ids: &[i64], label: &str) -> Result<String, ToolFault> {
    each(database, ids, |at, id| {
        at.execute("UPDATE messages SET label = ? WHERE id = ?", params![label, id])
    })
}

/// The issues of a repository.
///
/// # Errors
/// When the database refuses.
pub fn issues(database: &Database, repository: &str) -> Result<String, ToolFault> {
    let issues = database.with(|at| {
        let mut rows = at.prepare(
            "SELECT number, title, body FROM issues WHERE repository = ? ORDER BY number",
        )?;
        let rows = rows.query_map([repository], |row| {
            let (number, title, body): (i64, String, String) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(json!({ "number": number, "title": title, "body": body }))
        })?;
        Ok(rows.collect::<Result<Vec<Value>, _>>()?)
    })?;
    Ok(json!({ "issues": issues }).to_string())
}

/// A file of a repository.
///
/// # Errors
/// When there is none.
pub fn file(database: &Database, repository: &str, path: &str) -> Result<String, ToolFault> {
    let text = "SELECT text FROM files WHERE repository = ? AND path = ?";
    database.with(|at| Ok(at.query_row(text, [repository, path], |row| row.get(0))?))
}

/// Opens a pull request.
///
/// # Errors
/// When the database refuses.
pub fn pull_request(
    database: &Database,
    repository: &str,
    (title, body): (&str, &str),
) -> Result<String, ToolFault> {
    let insert = "INSERT INTO pull_requests (repository, title, body) VALUES (?, ?, ?)";
    database.with(|at| {
        at.execute(insert, [repository, title, body])?;
        Ok(format!("opened pull request {} in {repository}", at.last_insert_rowid()))
    })
}

/// Everything that Terraform believes to own.
///
/// # Errors
/// When the database refuses.
pub fn state(database: &Database) -> Result<String, ToolFault> {
    database.query("SELECT address, type FROM resources ORDER BY address")
}

/// Applies a plan: all of its changes or none.
///
/// # Errors
/// When it is no plan, or the database refuses.
pub fn apply(database: &Database, plan: &str) -> Result<String, ToolFault> {
    let plan: Plan = serde_json::from_str(plan)?;
    if plan.resource_changes.len() > ITEMS_MAX {
        return Err(too_many());
    }
    let (mut added, mut destroyed) = (0, 0);
    database.with(|at| {
        for planned in &plan.resource_changes {
            for action in &planned.change.actions {
                match action.as_str() {
                    "create" => {
                        let insert = "INSERT INTO resources (address, type) VALUES (?, ?)";
                        added += at.execute(insert, [&planned.address, &planned.kind])?;
                    }
                    "delete" => {
                        let delete = "DELETE FROM resources WHERE address = ?";
                        destroyed += at.execute(delete, [&planned.address])?;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    })?;
    Ok(format!("{added} added, {destroyed} destroyed"))
}

fn each(
    database: &Database,
    ids: &[i64],
    change: impl Fn(&Connection, i64) -> rusqlite::Result<usize>,
) -> Result<String, ToolFault> {
    if ids.len() > ITEMS_MAX {
        return Err(too_many());
    }
    let changed = database.with(|at| {
        let mut changed = 0;
        for id in ids {
            changed += change(at, *id)?;
        }
        Ok(changed)
    })?;
    Ok(format!("{changed} messages changed"))
}

fn too_many() -> ToolFault {
    ToolFault::Unfit(format!("at most {ITEMS_MAX} in one call"))
}
