//! One transaction that changes rows, held open while it is looked at and decided on.
//!
//! Owns the way from `BEGIN` to the diff, and from the permit to `COMMIT`. Must never run anything
//! a second time, and never say that nothing happened when a `COMMIT` has left.

use super::answer::result_of;
use super::catalog::{self, IMAGES, Table};
use super::drawn::{self, Drawn};
use super::image::{self, Budget, Start, TableDiff};
use super::kept::Kept;
use super::link::{Failed, Link, Target};
use super::reach::{self, Reach};
use super::spec::PostgresLimits;
use super::statement::Command;
use crate::clearance::{answered, in_doubt, not_sent};
use crate::resource::{Preview, ResourceFault, Undo};
use crate::upstream::Ended;
use holdpoint_types::{Disclosure, Reason, Reversibility};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How often it is tried again when others changed the same rows.
const TRIES: usize = 4;

/// Asks for the number of the transaction, if it has changed anything.
const XID: &str = "SELECT pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text";

/// What became of statements that were to be looked at.
pub(super) enum Tried {
    /// They are done but for the commit.
    Done(Preview, Box<Changing>),
    /// They reach what does not end with a transaction, and were not run.
    Escapes(Vec<String>),
}

/// A transaction that has done everything but commit.
pub(super) struct Changing {
    link: Link,
    /// Its number; absent if it changed nothing.
    xid: Option<String>,
    since: Instant,
    /// What the agent gets when it is committed.
    result: Value,
    pub(super) undo: Option<Undo>,
}

/// Two connections that see the same: one changes, the other keeps looking from before.
pub(super) struct Pair {
    pub(super) now: Link,
    pub(super) old: Link,
    pub(super) start: Start,
}

/// What a transaction did.
pub(super) struct Done {
    pub(super) diffs: Vec<TableDiff>,
    notes: Vec<String>,
    /// False if it did more than the diffs say.
    exact: bool,
    guarantee: Reversibility,
    disclosure: Disclosure,
    xid: Option<String>,
}

// === impl Pair ===

impl Pair {
    /// Begins.
    pub(super) async fn begin(target: &Target, limits: &PostgresLimits) -> Result<Self, Failed> {
        let now = target.connect().await?;
        let timeouts = timeouts(limits);
        now.run(&format!("BEGIN ISOLATION LEVEL REPEATABLE READ; {timeouts}")).await?;
        let start = Start::of(&now).await?;
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
             SET TRANSACTION SNAPSHOT '{}'; {timeouts}; {IMAGES}",
            start.snapshot
        );
        let old = target.look(&begin).await?;
        Ok(Self { now, old, start })
    }

    /// Lets everything happen that would happen at the end, and tells what happened; not what we
    /// did to the catalogs `ours`.
    pub(super) async fn settle(
        &self,
        limits: &PostgresLimits,
        ours: &[&str],
    ) -> Result<Done, Failed> {
        self.now.run("SET CONSTRAINTS ALL IMMEDIATE").await?;
        // Functions that ran may have set something else.
        self.now.run(&format!("{}; {IMAGES}", timeouts(limits))).await?;
        let xid: Option<String> = catalog::get(&self.now.row(XID, &[]).await?, 0)?;
        let mut touched = catalog::touched(&self.now, &self.old).await?;
        touched.catalogs.retain(|catalog| !ours.contains(&catalog.as_str()));
        if !touched.locked.is_empty() {
            let why = format!("it changes the definition of {}", touched.locked.join(", "));
            return Err(ResourceFault::Impossible(format!("no preview: {why}")).into());
        }
        let oids: Vec<u32> = touched.tables.keys().copied().collect();
        let tables = catalog::describe(&self.now, &oids).await?;
        let written: i64 = touched.tables.values().sum();
        let mut done = Done::new(xid);
        done.note_touched(&touched);
        let tables = done.keep_visible(tables, &touched);
        if done.xid.is_some() {
            let mut budget = Budget::new(limits, u64::try_from(written).unwrap_or_default());
            let links = (&self.now, &self.old);
            done.diffs = image::diff(links, &self.start, tables, &mut budget).await?;
        }
        done.weigh();
        Ok(done)
    }
}

// === impl Done ===

impl Done {
    fn new(xid: Option<String>) -> Self {
        Self {
            diffs: Vec::new(),
            notes: Vec::new(),
            exact: true,
            guarantee: Reversibility::NoEffect,
            disclosure: Disclosure::Contained,
            xid,
        }
    }

    fn note(&mut self, guarantee: Reversibility, note: String) {
        self.guarantee = self.guarantee.max(guarantee);
        self.notes.push(note);
    }

    fn blind(&mut self, note: String) {
        self.exact = false;
        self.note(Reversibility::Irreversible, note);
    }

    fn note_touched(&mut self, touched: &catalog::Touched) {
        for table in &touched.foreign {
            self.blind(format!("what changes in {table} is on another server, and not shown"));
        }
        if !touched.catalogs.is_empty() {
            let catalogs = touched.catalogs.join(", ");
            self.blind(format!("definitions or large objects change ({catalogs}), not shown"));
        }
        for sequence in &touched.sequences {
            let note = format!("the sequence {sequence} moves on and does not go back");
            self.note(Reversibility::NoEffect, note);
        }
    }

    fn note_reach(&mut self, reach: &Reach) {
        if reach.notifies {
            self.exact = false;
            self.disclosure = Disclosure::Wider;
            let note = "who listens may be told something, and cannot be untold";
            self.note(Reversibility::Compensable, note.to_owned());
        }
        if !reach.volatile.is_empty() && !self.diffs.is_empty() {
            let words = reach.volatile.join(", ");
            let note = format!("it may write other values each time it runs ({words})");
            self.note(Reversibility::NoEffect, note);
        }
    }

    /// The tables whose changes can be shown; the others are noted.
    fn keep_visible(&mut self, tables: Vec<Table>, touched: &catalog::Touched) -> Vec<Table> {
        let mut visible = Vec::new();
        for table in tables {
            let why = match () {
                () if !table.readable => "not all of it may be read",
                () if table.key.is_empty() => "it has no key that tells its rows apart",
                () => {
                    visible.push(table);
                    continue;
                }
            };
            let count = touched.tables.get(&table.oid).copied().unwrap_or_default();
            self.blind(format!("{count} rows written to {} are not shown: {why}", table.shown()));
        }
        visible
    }

    /// Judges how well the diffs could be taken back.
    fn weigh(&mut self) {
        if !self.diffs.is_empty() {
            self.guarantee = self.guarantee.max(Reversibility::Exact);
        }
        let loud = self.diffs.iter().map(|diff| &diff.table).filter(|table| !table.is_quiet());
        let loud: Vec<String> = loud.map(Table::shown).collect();
        for table in loud {
            let note = format!("taking back what changes in {table} would run its triggers again");
            self.note(Reversibility::Compensable, note);
        }
    }

    /// What it is for people and decisions.
    pub(super) fn preview(&self, place: &str, drawn: &Drawn) -> Preview {
        Preview {
            changes: self.diffs.iter().flat_map(|diff| drawn.changes(place, diff)).collect(),
            exact: self.exact,
            guarantee: self.guarantee,
            until: None,
            disclosure: self.disclosure,
            notes: self.notes.clone(),
        }
    }

    /// What must be kept to take it back; absent if there is nothing.
    pub(super) fn undo(&self) -> Result<Option<Undo>, ResourceFault> {
        if self.diffs.is_empty() {
            return Ok(None);
        }
        let data = Kept::rows(&self.diffs).to_value()?;
        Ok(Some(Undo { guarantee: self.guarantee, until: None, data }))
    }

    /// The transaction, ready to be committed.
    pub(super) fn hold(self, link: Link, result: Value) -> Result<Changing, ResourceFault> {
        let undo = self.undo()?;
        Ok(Changing { link, xid: self.xid, since: Instant::now(), result, undo })
    }
}

// === impl Changing ===

impl Changing {
    /// Runs the statements, unless they would reach further, and tells what they did.
    ///
    /// # Errors
    /// When they fail, or what they did cannot be told.
    pub(super) async fn run(
        (target, limits): (&Target, &PostgresLimits),
        commands: &[Command],
        place: &str,
    ) -> Result<Tried, ResourceFault> {
        for _ in 1..TRIES {
            match Self::run_once((target, limits), commands, place).await {
                Err(failed) if failed.is_passing() => {}
                other => return other.map_err(Failed::fault),
            }
        }
        let last = Self::run_once((target, limits), commands, place).await;
        last.map_err(Failed::fault)
    }

    async fn run_once(
        (target, limits): (&Target, &PostgresLimits),
        commands: &[Command],
        place: &str,
    ) -> Result<Tried, Failed> {
        let pair = Pair::begin(target, limits).await?;
        let texts: Vec<(&str, bool)> = commands.iter().map(Command::text).collect();
        let reach = reach::reach(&pair.old, &texts).await?;
        if !reach.escapes.is_empty() {
            target.rest(pair.old).await;
            return Ok(Tried::Escapes(reach.escapes));
        }
        let before = drawn::sequences(&pair.old, &reach.words).await?;
        let mut answers = Vec::new();
        for command in commands {
            answers.push(command.run(&pair.now, limits).await?);
        }
        let mut done = pair.settle(limits, &[]).await?;
        done.note_reach(&reach);
        target.rest(pair.old).await;
        let before = (&before, pair.start.zone.as_str());
        let drawn = Drawn::find(&pair.now, before, &done.diffs).await?;
        let preview = done.preview(place, &drawn);
        Ok(Tried::Done(preview, Box::new(done.hold(pair.now, result_of(&answers))?)))
    }

    /// What has just been done in the transaction of `link`, without anything to take it back.
    pub(super) async fn of(link: Link, result: Value) -> Result<Self, Failed> {
        let row = link.row(XID, &[]).await?;
        let xid = catalog::get(&row, 0)?;
        Ok(Self { link, xid, since: Instant::now(), result, undo: None })
    }

    /// How long it has been held open.
    fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Commits it.
    pub(super) async fn commit(self, limits: &PostgresLimits) -> Ended {
        if self.age() > limits.hold_open_max {
            let detail = "it was held open for too long, and is taken back: ask again";
            return not_sent(Reason::TargetMoved, detail);
        }
        let alive = match self.link.row(XID, &[]).await {
            Ok(row) => catalog::get::<Option<String>>(&row, 0),
            Err(failed) => Err(failed),
        };
        match alive {
            Ok(xid) if xid == self.xid => {}
            Ok(_) => return not_sent(Reason::TargetMoved, "its transaction is another one"),
            Err(failed) => return not_sent(Reason::TargetMoved, failed.fault().to_string()),
        }
        if let Err(failed) = self.link.run("COMMIT").await {
            return self.without_answer(failed);
        }
        let Some(xid) = &self.xid else { return self.answered() };
        // `COMMIT` of a transaction that failed is answered without an error.
        let sql = format!("SELECT pg_catalog.pg_xact_status('{xid}')");
        let status = match self.link.row(&sql, &[]).await {
            Ok(row) => catalog::get::<Option<String>>(&row, 0).unwrap_or_default(),
            Err(_) => None,
        };
        match status.as_deref() {
            Some("committed") => self.answered(),
            Some("aborted") => not_sent(Reason::TargetMoved, "the database took it back"),
            Some(_) | None => {
                let detail = "whether it was committed is not known";
                in_doubt(Reason::UpstreamUnavailable, detail)
            }
        }
    }

    fn answered(&self) -> Ended {
        answered(&self.result.to_string(), &self.result)
    }

    fn without_answer(&self, failed: Failed) -> Ended {
        let refused = failed.is_answer();
        let why = failed.fault().to_string();
        if refused || self.xid.is_none() {
            not_sent(Reason::TargetMoved, why)
        } else {
            in_doubt(Reason::UpstreamUnavailable, why)
        }
    }
}

// === functions ===

/// What begins a look at one state of everything.
pub(super) fn looking(limits: &PostgresLimits) -> String {
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    format!("{begin}; {}; {IMAGES}", timeouts(limits))
}

/// Settings that let go of everything in time, whoever has died.
pub(super) fn timeouts(limits: &PostgresLimits) -> String {
    let idle = limits.hold_open_max.saturating_add(limits.statement_timeout);
    format!(
        "SET LOCAL lock_timeout TO {}; SET LOCAL statement_timeout TO {}; \
         SET LOCAL idle_in_transaction_session_timeout TO {}; \
         SET LOCAL standard_conforming_strings TO on",
        limits.lock_timeout.as_millis().max(1),
        limits.statement_timeout.as_millis().max(1),
        idle.as_millis().max(1)
    )
}
