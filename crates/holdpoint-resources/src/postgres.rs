//! PostgreSQL: rows that can be seen before they change, and put back after.
//!
//! Owns the two tools that Holdpoint itself serves with a database. A change is previewed by doing
//! it in a transaction that is held open, and executed by committing that very transaction. Must
//! never run a change twice, and never call something exact that could do more than it showed.

mod answer;
mod catalog;
mod change;
mod image;
mod kept;
mod link;
mod reach;
mod references;
mod revert;
mod spec;
mod statement;
mod text;
mod tls;

pub use spec::{PostgresLimits, PostgresSpec};

use crate::clearance::{Clearance, answered, in_doubt, tool_error};
use crate::resource::{
    Executed, Forward, Preview, Proposed, Resource, ResourceFault, Reverting, TargetState, Undo,
};
use crate::upstream::{Cancels, Ended};
use answer::{Answer, result_of};
use change::{Changing, Tried, looking, timeouts};
use holdpoint_control::Permit;
use holdpoint_types::{Disclosure, Reason, Reversibility, Timestamp};
use image::Budget;
use kept::{Kept, state_of};
use link::{Failed, Target};
use serde_json::Value;
use statement::{Asked, Command};
use std::fmt;
use tokio_postgres::error::SqlState;

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

    async fn prepare(&self, asked: Asked) -> Result<(Preview, Work), ResourceFault> {
        match asked {
            Asked::Read(command) => {
                let escapes = self.escapes(&command).await.map_err(Failed::fault)?;
                let preview = if escapes.is_empty() { unchanged() } else { escaping(&escapes) };
                Ok((preview, Work::Read(command)))
            }
            Asked::Change(commands) => {
                let on = (&self.target, &self.spec.limits);
                match Changing::run(on, &commands, &self.spec.place).await? {
                    Tried::Done(preview, changing) => Ok((preview, Work::Change(changing))),
                    Tried::Escapes(escapes) => Ok((escaping(&escapes), Work::Unseen(commands))),
                }
            }
            Asked::Drop(statement) | Asked::Define(statement) => {
                let note = "a statement that changes definitions is not tried before it is run";
                Ok((unseen(note.to_owned()), Work::Define(statement.text)))
            }
        }
    }

    async fn escapes(&self, command: &Command) -> Result<Vec<String>, Failed> {
        let link = self.target.look(&looking(&self.spec.limits)).await?;
        let reach = reach::reach(&link, &[command.text()]).await?;
        self.target.rest(link).await;
        Ok(reach.escapes)
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
}

impl Resource for Postgres {
    type Prepared = PostgresPrepared;

    async fn preview(
        &self,
        proposed: Proposed<'_>,
    ) -> Result<Option<(Preview, PostgresPrepared)>, ResourceFault> {
        if *proposed.tool.server() != self.spec.server {
            return Ok(None);
        }
        let Some(asked) = Asked::of(&proposed)? else { return Ok(None) };
        let clearance = Clearance::call(proposed)?;
        let (preview, work) = self.prepare(asked).await?;
        Ok(Some((preview, PostgresPrepared { clearance, work })))
    }

    fn undo(&self, prepared: &PostgresPrepared) -> Option<Undo> {
        match &prepared.work {
            Work::Change(changing) => changing.undo.clone(),
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
        let Kept::Rows { tables } = Kept::read(&undo.data)?;
        let faced = async {
            let link = self.target.look(&looking(&self.spec.limits)).await?;
            let mut budget = Budget::new(&self.spec.limits, 0);
            let mut faced = Vec::new();
            for table in &tables {
                faced.push(table.face(&link, &mut budget).await?);
            }
            self.target.rest(link).await;
            Ok::<_, Failed>(faced)
        };
        let faced = faced.await.map_err(Failed::fault)?;
        Ok(state_of(&faced, &self.spec.place))
    }

    async fn revert(
        &self,
        undo: &Undo,
        now: Timestamp,
    ) -> Result<Reverting<PostgresPrepared>, ResourceFault> {
        let Kept::Rows { tables } = Kept::read(&undo.data)?;
        let on = (&self.target, &self.spec.limits);
        let clearance = Clearance::revert(now);
        let ready = revert::prepare(on, &tables, &self.spec.place).await?;
        let revert::Ready { preview, conflicts, changing } = ready;
        let work = Work::Change(Box::new(changing));
        let prepared = PostgresPrepared { clearance, work };
        Ok(Reverting { preview, conflicts, prepared })
    }
}

impl Postgres {
    async fn execute_cleared(&self, work: Work, cancels: &Cancels) -> Ended {
        if let Work::Change(_) = work {
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
