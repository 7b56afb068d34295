//! PostgreSQL: rows that can be seen before they change, and put back after.
//!
//! Owns the two tools that Holdpoint itself serves with a database. A change is previewed by doing
//! it in a transaction that is held open, and executed by committing that very transaction. Must
//! never run a change twice, and never call something exact that could do more than it showed.

mod answer;
mod catalog;
mod change;
mod drawn;
mod expired;
mod image;
mod kept;
mod link;
mod reach;
mod references;
mod revert;
mod rights;
mod spec;
mod statement;
mod text;
mod tls;
mod trash;

pub use spec::{PostgresLimits, PostgresSpec};

use crate::clearance::{Clearance, answered, in_doubt, not_sent, tool_error};
use crate::resource::{
    Conflict, Executed, Forward, Preview, Proposed, Resource, ResourceFault, Reverting,
    TargetState, Undo,
};
use crate::upstream::{Cancels, Ended};
use answer::{Answer, result_of};
use change::{Changing, Tried, looking, timeouts};
use holdpoint_control::Permit;
use holdpoint_types::{Disclosure, Reason, Reversibility, Timestamp, ToolRef};
use image::Budget;
use kept::{Kept, state_of};
use link::{Failed, Target};
use serde_json::Value;
use statement::{Asked, Command};
use std::fmt;
use text::Statement;
use tokio_postgres::error::SqlState;
use trash::{Drop, Moved, Moving};

/// A database.
pub struct Postgres {
    spec: PostgresSpec,
    target: Target,
}

/// What a preview holds open.
pub struct PostgresPrepared {
    clearance: Clearance,
    work: Work,
}

/// What is left to be done.
enum Work {
    /// Reading, which has not begun.
    Read(Command),
    /// A transaction to be committed.
    Change(Box<Changing>),
    /// Statements about rows that nobody could look at before.
    Unseen(Vec<Command>),
    /// A statement about definitions.
    Define(String),
    /// Tables to be moved away or back.
    Move(Box<Moving>),
}

// === impl Postgres ===

impl Postgres {
    /// A database, not yet connected.
    ///
    /// # Errors
    /// When its URL cannot be used, or does not say how TLS is spoken.
    pub fn new(spec: PostgresSpec) -> Result<Self, ResourceFault> {
        let target = Target::new(&spec.url, spec.limits)?;
        Ok(Self { spec, target })
    }

    /// What it was made from.
    pub fn spec(&self) -> &PostgresSpec {
        &self.spec
    }

    /// The tools that are served with it, as MCP describes them.
    pub fn tools() -> Vec<Value> {
        spec::tools()
    }

    async fn look(
        &self,
        proposed: Proposed<'_>,
        limits: &PostgresLimits,
    ) -> Result<Option<(Preview, PostgresPrepared)>, ResourceFault> {
        if *proposed.tool.server() != self.spec.server {
            return Ok(None);
        }
        let Some(asked) = Asked::of(&proposed)? else { return Ok(None) };
        let (clearance, now) = (Clearance::call(proposed)?, proposed.now);
        let (preview, work) = self.prepare(asked, now, limits).await?;
        Ok(Some((preview, PostgresPrepared { clearance, work })))
    }

    async fn prepare(
        &self,
        asked: Asked,
        now: Timestamp,
        limits: &PostgresLimits,
    ) -> Result<(Preview, Work), ResourceFault> {
        match asked {
            Asked::Read(command) => {
                let escapes = self.escapes(&command).await.map_err(Failed::fault)?;
                let preview = if escapes.is_empty() { unchanged() } else { escaping(&escapes) };
                Ok((preview, Work::Read(command)))
            }
            Asked::Change(commands) => {
                let on = (&self.target, limits);
                match Changing::run(on, &commands, &self.spec.place).await? {
                    Tried::Done(preview, changing) => Ok((preview, Work::Change(changing))),
                    Tried::Escapes(escapes) => Ok((escaping(&escapes), Work::Unseen(commands))),
                }
            }
            Asked::Drop(statement) => {
                let found = self.dropped(&statement).await.map_err(Failed::fault)?;
                let preview = found.preview(&self.spec.place, &self.spec.limits);
                let moving = Moving::away((statement, found), now, &self.spec.limits)?;
                Ok((preview, Work::Move(Box::new(moving))))
            }
            Asked::Define(statement) => {
                let note = "a statement that changes definitions is not tried before it is run";
                Ok((unseen(note.to_owned()), Work::Define(statement.text)))
            }
        }
    }

    async fn dropped(&self, statement: &Statement) -> Result<Drop, Failed> {
        // Names are found as they would be when the statement ran.
        let path = "SET LOCAL search_path TO DEFAULT";
        let begin = format!("{}; {path}", looking(&self.spec.limits));
        let link = self.target.look(&begin).await?;
        let found = Drop::find(&link, statement).await?;
        self.target.rest(link).await;
        Ok(found)
    }

    async fn escapes(&self, command: &Command) -> Result<Vec<String>, Failed> {
        let link = self.target.look(&looking(&self.spec.limits)).await?;
        let reach = reach::reach(&link, &[command.text()]).await?;
        self.target.rest(link).await;
        Ok(reach.escapes)
    }

    async fn expired(&self, now: Timestamp) -> Result<Vec<String>, Failed> {
        let link = self.target.look(&looking(&self.spec.limits)).await?;
        let found = expired::find(&link, now).await?;
        self.target.rest(link).await;
        Ok(found.into_iter().map(|schema| format!("{}/{schema}", self.spec.place)).collect())
    }

    async fn drop_expired(&self, schema: &str, now: Timestamp) -> Result<(), Failed> {
        let link = self.target.connect().await?;
        expired::let_go(&link, (schema, now), &self.spec.limits).await
    }

    async fn beyond(&self) -> Result<Vec<String>, Failed> {
        let link = self.target.look(&looking(&self.spec.limits)).await?;
        let rights = rights::beyond(&link).await?;
        self.target.rest(link).await;
        Ok(rights)
    }

    async fn read(&self, command: &Command) -> Result<Ended, Failed> {
        let link = self.target.connect().await?;
        let timeouts = timeouts(&self.spec.limits);
        link.run(&format!("BEGIN READ ONLY; {timeouts}")).await?;
        let answer = command.run(&link, &self.spec.limits).await?;
        link.run("ROLLBACK").await?;
        Ok(answer_of(&[answer]))
    }

    /// Runs statements about rows in a transaction.
    async fn run_unseen(&self, commands: &[Command]) -> Result<Ended, Failed> {
        let link = self.target.connect().await?;
        link.run(&format!("BEGIN; {}", timeouts(&self.spec.limits))).await?;
        let mut answers = Vec::new();
        for command in commands {
            answers.push(command.run(&link, &self.spec.limits).await?);
        }
        link.run("COMMIT").await?;
        Ok(answer_of(&answers))
    }

    /// Runs a statement in a transaction, or outside where the server wants it so.
    async fn define(&self, sql: &str) -> Result<Ended, Failed> {
        let link = self.target.connect().await?;
        link.run(&format!("BEGIN; {}", timeouts(&self.spec.limits))).await?;
        let count = match link.run_alone(sql).await {
            // It said so before it did anything.
            Err(error) if error.code() == Some(&SqlState::ACTIVE_SQL_TRANSACTION) => {
                link.run("ROLLBACK").await?;
                link.run_alone(sql).await?
            }
            done => {
                let count = done?;
                link.run("COMMIT").await?;
                count
            }
        };
        Ok(answer_of(&[Answer::count(count)]))
    }

    async fn finish(&self, work: Work) -> Ended {
        let done = match work {
            Work::Change(changing) => return changing.commit(&self.spec.limits).await,
            Work::Move(moving) => match moving.run(&self.target, &self.spec.limits).await {
                Ok(changing) => return changing.commit(&self.spec.limits).await,
                Err(Failed::Fault(fault @ ResourceFault::Gone(_))) => {
                    return not_sent(Reason::TargetMoved, fault.to_string());
                }
                // Without a commit, nothing of it is left.
                Err(failed) => return tool_error(&failed.fault().to_string()),
            },
            Work::Read(command) => self.read(&command).await,
            Work::Unseen(commands) => self.run_unseen(&commands).await,
            Work::Define(sql) => self.define(&sql).await,
        };
        done.unwrap_or_else(|error| {
            let (is_answer, detail) = (error.is_answer(), error.fault().to_string());
            if is_answer {
                tool_error(&detail)
            } else {
                in_doubt(Reason::UpstreamUnavailable, detail)
            }
        })
    }

    async fn state(&self, kept: &Kept) -> Result<TargetState, Failed> {
        let link = self.target.look(&looking(&self.spec.limits)).await?;
        let place = &self.spec.place;
        let state = match kept {
            Kept::Trash { trash, tables } => trash::state_of(&link, (trash, tables), place).await?,
            Kept::Rows { tables } => {
                let mut budget = Budget::new(&self.spec.limits, 0);
                let mut faced = Vec::new();
                for table in tables {
                    faced.push(table.face(&link, &mut budget).await?);
                }
                state_of(&faced, place)
            }
        };
        self.target.rest(link).await;
        Ok(state)
    }

    async fn back(
        &self,
        trash: &str,
        tables: &[Moved],
    ) -> Result<(Moving, Preview, Vec<Conflict>), Failed> {
        let link = self.target.look(&looking(&self.spec.limits)).await?;
        let back = trash::back(&link, (trash, tables), &self.spec.place).await?;
        self.target.rest(link).await;
        Ok(back)
    }

    async fn execute_cleared(&self, work: Work, cancels: &Cancels) -> Ended {
        if let Work::Change(_) | Work::Move(_) = work {
            // Nothing calls a `COMMIT` back.
            return self.finish(work).await;
        }
        let doubt = |reason| {
            in_doubt(reason, "the statement was running; the database was asked to end it")
        };
        tokio::select! {
            biased;
            () = cancels.stop.cancelled() => doubt(Reason::CancelledByStop),
            () = cancels.agent.cancelled() => doubt(Reason::CancelledByAgent),
            ended = self.finish(work) => ended,
        }
    }
}

impl Resource for Postgres {
    type Prepared = PostgresPrepared;

    fn keeps_busy(&self, tool: &ToolRef) -> bool {
        tool.name() == spec::EXECUTE
    }

    async fn expired(&self, now: Timestamp) -> Result<Vec<String>, ResourceFault> {
        Self::expired(self, now).await.map_err(Failed::fault)
    }

    async fn let_go(&self, expired: &str, now: Timestamp) -> Result<(), ResourceFault> {
        let place = expired.strip_prefix(&self.spec.place);
        let schema = place.and_then(|rest| rest.strip_prefix('/'));
        let other = || ResourceFault::Gone("it belongs to another database".to_owned());
        let schema = schema.ok_or_else(other)?;
        self.drop_expired(schema, now).await.map_err(Failed::fault)
    }

    async fn warnings(&self) -> Result<Vec<String>, ResourceFault> {
        let rights = self.beyond().await.map_err(Failed::fault)?;
        Ok(rights.into_iter().map(|right| format!("its role {right}")).collect())
    }

    async fn preview(
        &self,
        proposed: Proposed<'_>,
    ) -> Result<Option<(Preview, PostgresPrepared)>, ResourceFault> {
        self.look(proposed, &self.spec.limits).await
    }

    async fn preview_whole(
        &self,
        proposed: Proposed<'_>,
    ) -> Result<Option<(Preview, PostgresPrepared)>, ResourceFault> {
        self.look(proposed, &self.spec.limits.whole()).await
    }

    fn undo(&self, prepared: &PostgresPrepared) -> Option<Undo> {
        match &prepared.work {
            Work::Change(changing) => changing.undo.clone(),
            Work::Move(moving) => moving.undo(),
            Work::Read(_) | Work::Unseen(_) | Work::Define(_) => None,
        }
    }

    async fn execute(
        &self,
        permit: Permit,
        prepared: PostgresPrepared,
        (cancels, _): (Cancels, Forward),
    ) -> Executed {
        let ended = match prepared.clearance.begin(permit, &cancels) {
            Err(ended) => ended,
            Ok(()) => self.execute_cleared(prepared.work, &cancels).await,
        };
        cancels.gone.cancel();
        ended.into()
    }

    async fn verify(&self, undo: &Undo) -> Result<TargetState, ResourceFault> {
        let kept = Kept::read(&undo.data)?;
        self.state(&kept).await.map_err(Failed::fault)
    }

    async fn revert(
        &self,
        undo: &Undo,
        now: Timestamp,
    ) -> Result<Reverting<PostgresPrepared>, ResourceFault> {
        let clearance = Clearance::revert(now);
        if undo.until.is_some_and(|until| until <= now) {
            return Err(ResourceFault::Impossible("it is kept no longer".to_owned()));
        }
        let (preview, conflicts, work) = match Kept::read(&undo.data)? {
            Kept::Rows { tables } => {
                // What was done can be as large as people approved.
                let limits = self.spec.limits.whole();
                let on = (&self.target, &limits);
                let ready = revert::prepare(on, &tables, &self.spec.place).await?;
                let revert::Ready { preview, conflicts, changing } = ready;
                (preview, conflicts, Work::Change(Box::new(changing)))
            }
            Kept::Trash { trash, tables } => {
                let back = self.back(&trash, &tables).await.map_err(Failed::fault)?;
                let (moving, preview, conflicts) = back;
                (preview, conflicts, Work::Move(Box::new(moving)))
            }
        };
        let prepared = PostgresPrepared { clearance, work };
        Ok(Reverting { preview, conflicts, prepared })
    }
}

// === impl PostgresPrepared ===

impl fmt::Debug for PostgresPrepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresPrepared").finish_non_exhaustive()
    }
}

// === functions ===

fn answer_of(answers: &[Answer]) -> Ended {
    let result = result_of(answers);
    answered(&result.to_string(), &result)
}

fn unchanged() -> Preview {
    Preview {
        changes: Vec::new(),
        exact: true,
        guarantee: Reversibility::NoEffect,
        until: None,
        disclosure: Disclosure::Contained,
        notes: Vec::new(),
    }
}

fn escaping(escapes: &[String]) -> Preview {
    let names = escapes.join(", ");
    let note =
        format!("it reaches {names}, which does not end with a transaction: it is not tried");
    Preview { disclosure: Disclosure::Left, ..unseen(note) }
}

fn unseen(note: String) -> Preview {
    Preview {
        exact: false,
        guarantee: Reversibility::Irreversible,
        notes: vec![note],
        ..unchanged()
    }
}
