//! What kind of statement a call holds, and how it is run.
//!
//! Owns the list of what is refused and why. Must never let a statement decide about the
//! transaction that it is previewed in, nor run what it does not know.

use super::answer::Answer;
use super::link::{Failed, Link};
use super::spec::{EXECUTE, PostgresLimits, QUERY};
use super::text::{self, Statement};
use super::trash::TRASH;
use crate::resource::{Proposed, ResourceFault};
use serde_json::Value;

/// What a call asks for.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    /// Something to read.
    Read(Command),
    /// Statements that change rows, or may.
    Change(Vec<Command>),
    /// Tables to be dropped.
    Drop(Statement),
    /// A statement that changes definitions, or cannot be undone otherwise.
    Define(Statement),
}

/// One statement with its values.
#[derive(Clone, Debug)]
pub(super) struct Command {
    text: String,
    params: Vec<Value>,
    way: Way,
}

/// How a statement is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Prepared under a name and executed by it: the server takes nothing for that but a statement
    /// about rows.
    Prepared,
    /// Sent alone.
    Alone,
    /// Sent alone, for the text that it gives.
    Text,
}

// === impl Asked ===

impl Asked {
    /// What `proposed` asks for; `None` if it is for another tool.
    ///
    /// # Errors
    /// When it holds what is refused, and why.
    pub(super) fn of(proposed: &Proposed<'_>) -> Result<Option<Self>, ResourceFault> {
        let tool = proposed.tool.name();
        if tool != QUERY && tool != EXECUTE {
            return Ok(None);
        }
        let (sql, params) = parameters(proposed.parameters)?;
        let mut statements = text::statements(sql)?;
        let single = statements.len() == 1;
        if !params.is_empty() && !single {
            return Err(invalid("`params` go with a single statement"));
        }
        if tool == QUERY {
            let (true, Some(statement)) = (single, statements.pop()) else {
                return Err(invalid("`sql_query` takes a single statement"));
            };
            return Ok(Some(Self::Read(read(statement, params)?)));
        }
        if let (true, Some(statement)) = (single, statements.first())
            && is_definition(statement)
        {
            if statement.text.to_ascii_lowercase().contains(TRASH) {
                return Err(refused(
                    "what is kept of dropped tables is Holdpoint's: revert the drop",
                ));
            }
            if !params.is_empty() {
                return Err(invalid("a statement that changes definitions takes no `params`"));
            }
            let dropped = statement.word(0) == "DROP" && statement.word(1) == "TABLE";
            let statement = statement.clone();
            return Ok(Some(if dropped { Self::Drop(statement) } else { Self::Define(statement) }));
        }
        let commands = statements.into_iter().map(|statement| change(statement, &params));
        Ok(Some(Self::Change(commands.collect::<Result<_, _>>()?)))
    }
}

// === impl Command ===

impl Command {
    /// Its text, and whether all of it is run, whatever it holds.
    pub(super) fn text(&self) -> (&str, bool) {
        (&self.text, self.way == Way::Alone)
    }

    /// Runs it in the transaction of `link`.
    pub(super) async fn run(&self, link: &Link, limits: &PostgresLimits) -> Result<Answer, Failed> {
        match self.way {
            Way::Alone => Ok(Answer::count(link.run_alone(&self.text).await?)),
            Way::Text => Answer::texts(link, &self.text, limits).await,
            Way::Prepared => {
                let named = format!("PREPARE holdpoint_call AS {}", self.text);
                link.run_alone(&named).await?;
                let values = self.params.iter().map(text::literal);
                let values = values.collect::<Result<Vec<_>, _>>()?.join(", ");
                let list = if values.is_empty() { values } else { format!("({values})") };
                let execute = format!("EXECUTE holdpoint_call{list}");
                let answer = Answer::rows(link, &execute, limits).await?;
                link.run("DEALLOCATE holdpoint_call").await?;
                Ok(answer)
            }
        }
    }
}

// === functions ===

fn parameters(parameters: &Value) -> Result<(&str, Vec<Value>), ResourceFault> {
    let members = parameters.as_object().ok_or_else(|| invalid("the parameters are no object"))?;
    if let Some(other) = members.keys().find(|key| !["sql", "params"].contains(&key.as_str())) {
        return Err(invalid(&format!("there is no parameter `{other}`")));
    }
    let sql = members.get("sql").and_then(Value::as_str);
    let sql = sql.ok_or_else(|| invalid("`sql` must be a text"))?;
    let params = match members.get("params") {
        None => Vec::new(),
        Some(Value::Array(values)) => values.clone(),
        Some(_) => return Err(invalid("`params` must be a list")),
    };
    Ok((sql, params))
}

fn read(statement: Statement, params: Vec<Value>) -> Result<Command, ResourceFault> {
    let way = match statement.word(0) {
        "SELECT" | "VALUES" | "TABLE" | "WITH" => Way::Prepared,
        "EXPLAIN" | "SHOW" if params.is_empty() => Way::Text,
        _ => return Err(refused("`sql_query` only reads: use `sql_execute`")),
    };
    Ok(Command { text: statement.text, params, way })
}

fn change(statement: Statement, params: &[Value]) -> Result<Command, ResourceFault> {
    let way = match statement.word(0) {
        "SELECT" | "VALUES" | "TABLE" | "WITH" | "INSERT" | "UPDATE" | "DELETE" | "MERGE" => {
            Way::Prepared
        }
        "CALL" | "DO" | "NOTIFY" if params.is_empty() => Way::Alone,
        _ => return Err(refused(why_not(&statement))),
    };
    Ok(Command { text: statement.text, params: params.to_vec(), way })
}

fn is_definition(statement: &Statement) -> bool {
    matches!(
        statement.word(0),
        "ALTER"
            | "ANALYZE"
            | "CHECKPOINT"
            | "CLUSTER"
            | "COMMENT"
            | "CREATE"
            | "DROP"
            | "GRANT"
            | "IMPORT"
            | "REASSIGN"
            | "REFRESH"
            | "REINDEX"
            | "REVOKE"
            | "SECURITY"
            | "VACUUM"
    )
}

fn why_not(statement: &Statement) -> &'static str {
    match statement.word(0) {
        "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" | "SAVEPOINT" | "RELEASE" => {
            "Holdpoint begins and ends the transaction: leave that out"
        }
        "SET" | "RESET" | "DISCARD" => "settings of the connection are Holdpoint's: leave that out",
        "PREPARE" | "EXECUTE" | "DEALLOCATE" => "send the statement itself, with `params`",
        "DECLARE" | "FETCH" | "MOVE" | "CLOSE" => "there are no cursors: use `sql_query`",
        "COPY" => "COPY goes past the preview: use INSERT, or SELECT in `sql_query`",
        "TRUNCATE" => "TRUNCATE leaves no rows to put back: use DELETE",
        "LISTEN" | "UNLISTEN" => "nobody would hear: the connection ends with the call",
        "LOCK" => "locks end with the call: leave that out",
        "LOAD" => "a library cannot be unloaded",
        "EXPLAIN" | "SHOW" => "use `sql_query` for that",
        "CALL" | "DO" | "NOTIFY" => "`params` do not go with that statement",
        _ if is_definition(statement) => "a statement that changes definitions must come alone",
        _ => "this is no statement that Holdpoint knows",
    }
}

fn invalid(text: &str) -> ResourceFault {
    ResourceFault::Invalid(text.to_owned())
}

fn refused(text: &str) -> ResourceFault {
    ResourceFault::Refused(text.to_owned())
}
