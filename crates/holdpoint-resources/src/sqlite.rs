//! SQLite databases: read and changed through tools that Holdpoint serves itself.
//!
//! Owns the tools, and the one transaction in which a change is previewed and then committed. Must
//! never commit anything but what was previewed, and never without a permit.

mod apply;
mod capture;
mod image;
mod open;
mod run;
mod scratch;
mod table;
mod value;

use crate::clearance::{Clearance, answered, in_doubt, not_sent, tool_error};
use crate::resource::{
    Change, Conflict, Executed, Forward, Preview, Proposed, Resource, ResourceFault, Reverting,
    TargetState, Undo, WHOLE_BYTES_TIMES, WHOLE_ROWS_TIMES,
};
use crate::upstream::{Cancels, Ended};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use capture::{Capture, Room, RowChange};
use holdpoint_control::Permit;
use holdpoint_types::{Digest, Disclosure, Reason, Reversibility, ServerName, Timestamp, ToolRef};
use open::{Identity, OURS, Opened, Purpose, told};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How much one call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqliteLimits {
    /// How long it waits for a lock of somebody else.
    pub busy: Duration,
    /// How long its statements may run.
    pub statement: Duration,
    /// Most rows that a preview shows, and that a query or `RETURNING` gives.
    pub rows_max: usize,
    /// Most bytes of the same, and of a database that is kept as a whole.
    pub bytes_max: usize,
    /// Most bytes of the files in which SQLite sorts and notes, of all databases together.
    pub scratch_bytes_max: u64,
    /// How long a database that was kept as a whole can be put back.
    pub kept: Duration,
}

/// One database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteSpec {
    /// The server whose tools these are.
    pub server: ServerName,
    /// What its addresses begin with: `sqlite://orders`.
    pub place: String,
    /// Where it lies.
    pub path: PathBuf,
    /// How much one call may take.
    pub limits: SqliteLimits,
}

/// One SQLite database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sqlite(std::sync::Arc<SqliteSpec>);

/// A previewed call, or a revert. Dropping it undoes everything.
#[derive(Debug)]
pub struct SqlitePrepared {
    clearance: Clearance,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// Reads.
    Query(String),
    /// Commits the open transaction, and tells the agent this.
    Commit { opened: Box<Opened>, undo: Box<Undo>, answer: Value },
}

/// What lies in [`Undo::data`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kept {
    /// Every row that changes.
    Rows(Vec<RowChange>),
    /// The whole database, and the digests of what it was and became.
    Image { image: String, before: Digest, after: Digest },
}

/// A transaction that ran and is not committed.
struct Pending {
    opened: Opened,
    changes: Vec<Change>,
    kept: Kept,
    notes: Vec<String>,
    answer: Value,
}

/// How a commit ended.
enum Committed {
    Durable,
    /// Nothing was changed.
    Refused(rusqlite::Error),
    Unknown(rusqlite::Error),
}

// === impl SqliteLimits ===

impl Default for SqliteLimits {
    fn default() -> Self {
        Self {
            busy: Duration::from_secs(5),
            statement: Duration::from_secs(30),
            rows_max: 10_000,
            bytes_max: 16 << 20,
            scratch_bytes_max: scratch::SCRATCH_BYTES_MAX,
            kept: Duration::from_secs(30 * 24 * 60 * 60),
        }
    }
}

impl SqliteLimits {
    /// Room for what people approved although it is larger.
    fn whole(self) -> Self {
        Self {
            rows_max: self.rows_max.saturating_mul(WHOLE_ROWS_TIMES as usize),
            bytes_max: self.bytes_max.saturating_mul(WHOLE_BYTES_TIMES as usize),
            ..self
        }
    }

    /// What is said of a change of so many rows.
    fn too_many(&self, rows: usize) -> ResourceFault {
        let text = format!("{rows} rows, and `rows_max` is {}", self.rows_max);
        match rows > self.whole().rows_max {
            true => ResourceFault::TooLarge(text),
            false => ResourceFault::Large(text),
        }
    }
}

// === impl Sqlite ===

impl Sqlite {
    /// The database of `spec`; it is opened for each call.
    pub fn new(spec: SqliteSpec) -> Self {
        Self(std::sync::Arc::new(spec))
    }

    /// What it was made from.
    pub fn spec(&self) -> &SqliteSpec {
        &self.0
    }

    /// The definitions of the tools that it serves, as `tools/list` gives them.
    pub fn tools() -> Vec<Value> {
        let schema = |what: &str| {
            json!({
                "type": "object",
                "properties": { "sql": { "type": "string", "description": what, "minLength": 1 } },
                "required": ["sql"],
                "additionalProperties": false,
            })
        };
        vec![
            json!({
                "name": "sql_query",
                "description": "Reads from the SQLite database with one `SELECT`.",
                "inputSchema": schema("One statement that only reads."),
                "annotations": { "readOnlyHint": true, "openWorldHint": false },
            }),
            json!({
                "name": "sql_execute",
                "description": "Changes the SQLite database: one or more statements, all of them \
                                or none. The transaction is Holdpoint's: no `BEGIN`, `COMMIT`, \
                                `ATTACH` or `PRAGMA`.",
                "inputSchema": schema("One or more statements, separated by `;`."),
                "annotations": {
                    "readOnlyHint": false, "destructiveHint": true, "openWorldHint": false,
                },
            }),
        ]
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&SqliteSpec) -> Result<T, ResourceFault> + Send + 'static,
    ) -> Result<T, ResourceFault> {
        let spec = std::sync::Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || work(&spec)).await;
        done.unwrap_or_else(|fault| Err(ResourceFault::Unavailable(fault.to_string())))
    }
}

impl Resource for Sqlite {
    type Prepared = SqlitePrepared;

    fn keeps_busy(&self, tool: &ToolRef) -> bool {
        tool.name() == "sql_execute"
    }

    async fn preview(
        &self,
        proposed: Proposed<'_>,
    ) -> Result<Option<(Preview, SqlitePrepared)>, ResourceFault> {
        let name = proposed.tool.name();
        if *proposed.tool.server() != self.0.server || !["sql_query", "sql_execute"].contains(&name)
        {
            return Ok(None);
        }
        let clearance = Clearance::call(proposed)?;
        let sql = proposed.parameters.get("sql").and_then(Value::as_str);
        let sql = sql.ok_or_else(|| ResourceFault::Invalid("`sql` is no text".to_owned()))?;
        if sql.to_ascii_lowercase().contains(OURS) {
            let why = format!("names that begin with `{OURS}` are Holdpoint's own");
            return Err(ResourceFault::Refused(why));
        }
        let (sql, now) = (sql.to_owned(), proposed.now);
        if name == "sql_query" {
            let preview = preview(Vec::new(), Vec::new(), (Reversibility::NoEffect, None));
            return Ok(Some((preview, SqlitePrepared { clearance, work: Work::Query(sql) })));
        }
        let (preview, work) =
            self.blocking(move |spec| Ok(pending(spec, &sql)?.prepared(spec, now))).await?;
        Ok(Some((preview, SqlitePrepared { clearance, work })))
    }

    async fn preview_whole(
        &self,
        proposed: Proposed<'_>,
    ) -> Result<Option<(Preview, SqlitePrepared)>, ResourceFault> {
        let limits = self.0.limits.whole();
        Self::new(SqliteSpec { limits, ..SqliteSpec::clone(&self.0) }).preview(proposed).await
    }

    fn undo(&self, prepared: &SqlitePrepared) -> Option<Undo> {
        match &prepared.work {
            Work::Commit { undo, .. } => Some(Undo::clone(undo)),
            Work::Query(_) => None,
        }
    }

    async fn execute(
        &self,
        permit: Permit,
        prepared: SqlitePrepared,
        (cancels, _): (Cancels, Forward),
    ) -> Executed {
        let SqlitePrepared { clearance, work } = prepared;
        if let Err(ended) = clearance.consume(permit) {
            return ended.into();
        }
        let stop = cancels.stop.child_token();
        let token = stop.clone();
        let mut done = Box::pin(self.blocking(move |spec| Ok(finish(spec, work, &token))));
        let done = tokio::select! {
            biased;
            done = &mut done => done,
            () = cancels.agent.cancelled() => {
                stop.cancel();
                done.await
            }
        };
        cancels.gone.cancel();
        let lost = |fault: ResourceFault| in_doubt(Reason::UpstreamUnavailable, fault.to_string());
        done.unwrap_or_else(lost).into()
    }

    async fn verify(&self, undo: &Undo) -> Result<TargetState, ResourceFault> {
        let kept = kept(undo)?;
        self.blocking(move |spec| {
            let opened = Opened::open(spec, Purpose::Read, &CancellationToken::new())?;
            opened.conn.execute_batch("BEGIN").map_err(|fault| told(&fault))?;
            state(spec, &opened.conn, &kept)
        })
        .await
    }

    async fn revert(
        &self,
        undo: &Undo,
        now: Timestamp,
    ) -> Result<Reverting<SqlitePrepared>, ResourceFault> {
        let late = undo.until.is_some_and(|until| now > until);
        if late {
            let text = "what was kept to take it back is past its time".to_owned();
            return Err(ResourceFault::Impossible(text));
        }
        let kept = kept(undo)?;
        let clearance = Clearance::revert(now);
        let (conflicts, (preview, work)) = self
            .blocking(move |spec| {
                let (pending, conflicts) = match kept {
                    Kept::Rows(rows) => rows_back(spec, &rows)?,
                    Kept::Image { .. } => image_back(spec, &kept)?,
                };
                Ok((conflicts, pending.prepared(spec, now)))
            })
            .await?;
        Ok(Reverting { preview, conflicts, prepared: SqlitePrepared { clearance, work } })
    }
}

// === impl Pending ===

impl Pending {
    fn prepared(self, spec: &SqliteSpec, now: Timestamp) -> (Preview, Work) {
        let Self { opened, changes, kept, notes, answer } = self;
        let guarantee = match &kept {
            Kept::Rows(rows) if rows.is_empty() => (Reversibility::NoEffect, None),
            Kept::Rows(_) => (Reversibility::Exact, None),
            Kept::Image { .. } => {
                let kept = i64::try_from(spec.limits.kept.as_millis()).unwrap_or(i64::MAX);
                (Reversibility::ExactUntil, Some(Timestamp(now.0.saturating_add(kept))))
            }
        };
        let data = serde_json::to_value(&kept).unwrap_or_default();
        let undo = Box::new(Undo { guarantee: guarantee.0, until: guarantee.1, data });
        let preview = preview(changes, notes, guarantee);
        (preview, Work::Commit { opened: Box::new(opened), undo, answer })
    }
}

/// Runs `sql` in a transaction that stays open.
fn pending(spec: &SqliteSpec, sql: &str) -> Result<Pending, ResourceFault> {
    let opened = begun(spec)?;
    let mut capture = Capture::default();
    let ran = run::run(&opened, sql, &spec.limits, Some(&mut capture))?;
    if let Some(why) = ran.beyond_rows {
        drop(opened);
        return whole(spec, sql, why);
    }
    let SqliteLimits { rows_max, bytes_max, .. } = spec.limits;
    let room = Room { rows_max, bytes_max };
    let captured =
        capture.changes(&opened.conn, &spec.place, room).map_err(|fault| opened.told(&fault))?;
    if captured.rows > rows_max {
        return Err(spec.limits.too_many(captured.rows));
    }
    if captured.bytes > bytes_max {
        let text = format!("{} bytes, and at most {bytes_max} are shown", captured.bytes);
        return Err(ResourceFault::Large(text));
    }
    if !captured.restorable {
        drop(opened);
        return whole(spec, sql, "a value is text that is not UTF-8".to_owned());
    }
    let changes = captured.changes.iter().map(RowChange::shown).collect();
    let answer = json!({ "statements": ran.statements });
    Ok(Pending { opened, changes, kept: Kept::Rows(captured.changes), notes: Vec::new(), answer })
}

/// The same for what rows do not tell: the whole database is kept.
fn whole(spec: &SqliteSpec, sql: &str, why: String) -> Result<Pending, ResourceFault> {
    let opened = begun(spec)?;
    let ran = run::run(&opened, sql, &spec.limits, None)?;
    let notes = vec![format!("{why}: rows are counted and digested, not shown")];
    let answer = json!({ "statements": ran.statements });
    closed(spec, opened, (notes, answer))
}

/// What is pending on `opened`, with the whole database as it was.
fn closed(
    spec: &SqliteSpec,
    opened: Opened,
    (notes, answer): (Vec<String>, Value),
) -> Result<Pending, ResourceFault> {
    // Virtual tables write what they hold back at a savepoint.
    let flush = "SAVEPOINT flush; RELEASE flush;";
    let fault = |fault: rusqlite::Error| told(&fault);
    opened.conn.execute_batch(flush).map_err(fault)?;
    // Nobody else can commit while our transaction is open, so this is what it began with.
    let mut reader = Opened::open(spec, Purpose::Read, &CancellationToken::new())?;
    let image = image::read(&mut reader, spec.limits.bytes_max)?;
    let before = image::describe(&reader.conn).map_err(fault)?;
    let after = image::describe(&opened.conn).map_err(fault)?;
    let changes = image::differences(&spec.place, &before, &after);
    let (before, after) = (image::digest(&before)?, image::digest(&after)?);
    let kept = Kept::Image { image: STANDARD.encode(image), before, after };
    Ok(Pending { opened, changes, kept, notes, answer })
}

/// A connection within a transaction that may write.
fn begun(spec: &SqliteSpec) -> Result<Opened, ResourceFault> {
    let opened = Opened::open(spec, Purpose::Write, &CancellationToken::new())?;
    opened.conn.execute_batch("BEGIN IMMEDIATE").map_err(|fault| told(&fault))?;
    Ok(opened)
}

/// The same, where neither triggers nor foreign keys do more than is asked for.
fn begun_bare(spec: &SqliteSpec, attached: Option<&[u8]>) -> Result<Opened, ResourceFault> {
    let mut opened = Opened::open(spec, Purpose::Write, &CancellationToken::new())?;
    let conn = &mut opened.conn;
    let bare = (|| {
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, attached.is_none())?;
        if let Some(image) = attached {
            image::attach(conn, image)?;
        }
        conn.execute_batch("PRAGMA foreign_keys = OFF; BEGIN IMMEDIATE;")
    })();
    bare.map_err(|fault: rusqlite::Error| told(&fault))?;
    Ok(opened)
}

fn rows_back(
    spec: &SqliteSpec,
    rows: &[RowChange],
) -> Result<(Pending, Vec<Conflict>), ResourceFault> {
    let opened = begun_bare(spec, None)?;
    let applied = apply::put_back(&opened.conn, rows)?;
    let back = applied.restored.into_iter().filter_map(|at| Some(rows.get(at)?.inverted()));
    let back: Vec<RowChange> = back.collect();
    let changes = back.iter().map(RowChange::shown).collect();
    let answer = json!({ "rows_restored": back.len(), "rows_kept": applied.conflicts.len() });
    let pending = Pending { opened, changes, kept: Kept::Rows(back), notes: Vec::new(), answer };
    Ok((pending, applied.conflicts.into_iter().collect()))
}

fn image_back(spec: &SqliteSpec, kept: &Kept) -> Result<(Pending, Vec<Conflict>), ResourceFault> {
    let Kept::Image { image, before, .. } = kept else {
        return Err(ResourceFault::Invalid("no database was kept".to_owned()));
    };
    let image = STANDARD.decode(image);
    let image = image.map_err(|fault| ResourceFault::Invalid(fault.to_string()))?;
    let opened = begun_bare(spec, Some(&image))?;
    let nothing = |opened, conflicts| {
        let (kept, answer) = (Kept::Rows(Vec::new()), json!({ "restored": false }));
        Ok((Pending { opened, changes: Vec::new(), kept, notes: Vec::new(), answer }, conflicts))
    };
    match state(spec, &opened.conn, kept)? {
        TargetState::After => {}
        TargetState::Before => return nothing(opened, Vec::new()),
        TargetState::Changed(conflicts) => return nothing(opened, conflicts),
        TargetState::Unknown(why) => return Err(ResourceFault::Unavailable(why)),
    }
    image::restore(&opened.conn).map_err(|fault| told(&fault))?;
    let restored = image::describe(&opened.conn).map_err(|fault| told(&fault))?;
    if image::digest(&restored)? != *before {
        let text = "the kept database cannot be put back as it was".to_owned();
        return Err(ResourceFault::Impossible(text));
    }
    let answer = json!({ "restored": true });
    Ok((closed(spec, opened, (Vec::new(), answer))?, Vec::new()))
}

fn state(spec: &SqliteSpec, conn: &Connection, kept: &Kept) -> Result<TargetState, ResourceFault> {
    let fault = |fault: rusqlite::Error| told(&fault);
    match kept {
        Kept::Rows(rows) => apply::state(conn, rows).map_err(fault),
        Kept::Image { before, after, .. } => {
            let now = image::digest(&image::describe(conn).map_err(fault)?)?;
            Ok(match now {
                now if now == *after => TargetState::After,
                now if now == *before => TargetState::Before,
                _ => TargetState::Changed(vec![Conflict {
                    resource: spec.place.clone(),
                    why: "something else in the database changed since".to_owned(),
                }]),
            })
        }
    }
}

fn finish(spec: &SqliteSpec, work: Work, stop: &CancellationToken) -> Ended {
    if stop.is_cancelled() {
        return not_sent(Reason::CancelledByStop, "stopped before anything was changed");
    }
    match work {
        Work::Query(sql) => match query(spec, &sql, stop) {
            Ok(found) => answered(&found.to_string(), &found),
            Err(_) if stop.is_cancelled() => not_sent(Reason::CancelledByStop, "stopped"),
            Err(fault) => tool_error(&fault.to_string()),
        },
        Work::Commit { opened, .. } if Identity::of(&spec.path) != Some(opened.identity) => {
            not_sent(Reason::TargetMoved, "the file of the database is another one by now")
        }
        Work::Commit { opened, answer, .. } => match commit(opened.conn) {
            Committed::Durable => answered(&answer.to_string(), &answer),
            Committed::Refused(fault) => match fault.sqlite_error_code() {
                Some(ErrorCode::ConstraintViolation) => tool_error(&told(&fault).to_string()),
                _ => not_sent(Reason::UpstreamUnavailable, told(&fault).to_string()),
            },
            Committed::Unknown(fault) => {
                in_doubt(Reason::UpstreamUnavailable, format!("the commit failed: {fault}"))
            }
        },
    }
}

fn query(spec: &SqliteSpec, sql: &str, stop: &CancellationToken) -> Result<Value, ResourceFault> {
    let opened = Opened::open(spec, Purpose::Read, stop)?;
    opened.conn.execute_batch("BEGIN").map_err(|fault| told(&fault))?;
    run::read(&opened, sql, &spec.limits)
}

fn commit(mut conn: Connection) -> Committed {
    // What is committed is not interrupted.
    let unlimited = conn.progress_handler(0, None::<fn() -> bool>);
    match unlimited.and_then(|()| conn.execute_batch("COMMIT")) {
        Ok(()) => Committed::Durable,
        Err(fault) => {
            let open = !conn.is_autocommit();
            let clean = matches!(
                fault.sqlite_error_code(),
                Some(
                    ErrorCode::DatabaseBusy
                        | ErrorCode::DatabaseLocked
                        | ErrorCode::ConstraintViolation
                )
            );
            match conn.execute_batch("ROLLBACK") {
                Ok(()) if open && clean => Committed::Refused(fault),
                _ => Committed::Unknown(fault),
            }
        }
    }
}

fn preview(
    changes: Vec<Change>,
    notes: Vec<String>,
    (guarantee, until): (Reversibility, Option<Timestamp>),
) -> Preview {
    let disclosure = Disclosure::Contained;
    Preview { changes, exact: true, guarantee, until, disclosure, notes }
}

fn kept(undo: &Undo) -> Result<Kept, ResourceFault> {
    Kept::deserialize(&undo.data).map_err(|fault| ResourceFault::Invalid(fault.to_string()))
}
