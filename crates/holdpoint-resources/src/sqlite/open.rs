//! Connections to the database, and what SQL of agents may do on them.
//!
//! Owns the authorizer and the time limit. Must never let SQL of an agent attach a file, load code,
//! change a setting, or begin or end a transaction.

use super::scratch::Scratch;
use super::{SqliteLimits, SqliteSpec};
use crate::resource::ResourceFault;
use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// How many instructions of SQLite's machine run between two looks at the clock.
const STEPS: i32 = 1_000;
/// Values of so many bytes are always read.
const VALUE_BYTES: i32 = 1 << 20;
/// How many times the bytes that can be shown a database may grow by: rows lie in indexes too.
const GROWTH: usize = 8;
/// How many bytes wait in memory for a commit before some are written.
const SPILL_BYTES: i64 = 64 << 20;
/// What the names of our temporary tables and triggers begin with.
pub(super) const OURS: &str = "holdpoint_";
/// Settings that say how tables are built, and change nothing.
const READ_PRAGMAS: [&str; 7] = [
    "table_info",
    "table_xinfo",
    "table_list",
    "index_list",
    "index_info",
    "index_xinfo",
    "foreign_key_list",
];
/// Settings that virtual tables ask for; they must not be set.
const ASKED_PRAGMAS: [&str; 2] = ["data_version", "page_size"];
/// Functions that load code.
const FORBIDDEN: [&str; 2] = ["load_extension", "fts3_tokenizer"];

/// Whose SQL is prepared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Author {
    #[default]
    Holdpoint,
    Agent(Purpose),
}

/// For what a connection is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Read,
    Write,
}

/// What the SQL of an agent wants to do, as SQLite sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct Wants {
    author: Author,
    /// Tables that it writes, directly or through triggers, views and foreign keys.
    pub(super) tables: BTreeSet<String>,
    /// True if it changes the schema.
    pub(super) schema: bool,
    /// What it wants and may not.
    pub(super) refused: Option<String>,
    /// True if it was ended because of its scratch files.
    pub(super) full: bool,
}

/// One connection and what guards it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) conn: Connection,
    /// The file that was opened.
    pub(super) identity: Identity,
    wants: Arc<Mutex<Wants>>,
    full: Arc<AtomicBool>,
}

/// What tells one file from another that takes its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity(u64, u64);

// === impl Opened ===

impl Opened {
    /// Opens the database, which must be there, and lets it work for at most `time`.
    pub(super) fn open(
        spec: &SqliteSpec,
        purpose: Purpose,
        stop: &CancellationToken,
    ) -> Result<Self, ResourceFault> {
        let gone = || ResourceFault::Gone(format!("the database of {}", spec.place));
        let identity = Identity::of(&spec.path).ok_or_else(gone)?;
        let mode = match purpose {
            Purpose::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
            Purpose::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
        };
        let flags = mode | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&spec.path, flags).map_err(|fault| told(&fault))?;
        let (wants, full) = (Arc::default(), Arc::default());
        let mut opened = Self { conn, identity, wants, full };
        opened.refuse_namesakes()?;
        opened.prepare(spec, purpose, stop).map_err(|fault| told(&fault))?;
        Ok(opened)
    }

    /// What is called as our own triggers are would be taken for them, and not be looked at.
    fn refuse_namesakes(&self) -> Result<(), ResourceFault> {
        let sql = "SELECT count(*) FROM sqlite_schema WHERE lower(substr(name, 1, ?1)) = ?2";
        let length = i64::try_from(OURS.len()).unwrap_or(i64::MAX);
        let row = |row: &Row<'_>| row.get::<_, i64>(0);
        let found = self.conn.query_row(sql, rusqlite::params![length, OURS], row);
        match found.map_err(|fault| told(&fault))? {
            0 => Ok(()),
            _ => {
                let why = format!("the database has something whose name begins with `{OURS}`");
                Err(ResourceFault::Impossible(why))
            }
        }
    }

    fn prepare(
        &mut self,
        spec: &SqliteSpec,
        purpose: Purpose,
        stop: &CancellationToken,
    ) -> rusqlite::Result<()> {
        let conn = &mut self.conn;
        conn.busy_timeout(spec.limits.busy)?;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        // A commit is on the disk before it is told.
        conn.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")?;
        self.bound(spec.limits.bytes_max)?;
        let conn = &mut self.conn;
        if purpose == Purpose::Read {
            conn.execute_batch("PRAGMA query_only = ON;")?;
        }
        let wants = Arc::clone(&self.wants);
        conn.authorizer(Some(move |asked: AuthContext<'_>| lock(&wants).rule(asked)))?;
        self.limit(&spec.limits, stop)
    }

    /// Bounds memory and disk: no value, and no growth, far beyond what could be shown.
    fn bound(&self, bytes_max: usize) -> rusqlite::Result<()> {
        let value_max = i32::try_from(bytes_max.saturating_mul(2)).unwrap_or(i32::MAX);
        self.conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, value_max.max(VALUE_BYTES))?;
        let sql = "SELECT page_size, page_count FROM pragma_page_size, pragma_page_count";
        let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        let (size, pages) = self.conn.query_row(sql, [], read)?;
        let growth = i64::try_from(bytes_max.saturating_mul(GROWTH)).unwrap_or(i64::MAX);
        let room = growth.checked_div(size).unwrap_or_default();
        let pages_max = pages.saturating_add(room).clamp(1, i64::from(u32::MAX - 1));
        // What waits in the cache is not written early, which would shut out readers, as long as
        // it fits into memory.
        let spill = SPILL_BYTES.checked_div(size).unwrap_or_default().max(1);
        self.conn.execute_batch(&format!(
            "PRAGMA main.max_page_count = {pages_max}; PRAGMA main.cache_spill = {spill};"
        ))
    }

    /// From now on, work ends in time, with its scratch files, or when it is stopped.
    pub(super) fn limit(
        &mut self,
        limits: &SqliteLimits,
        stop: &CancellationToken,
    ) -> rusqlite::Result<()> {
        let (begun, time, stop) = (Instant::now(), limits.statement, stop.clone());
        let mut scratch = Scratch::new(limits.scratch_bytes_max, Arc::clone(&self.full));
        let over = move || begun.elapsed() > time || stop.is_cancelled() || scratch.is_full();
        self.conn.progress_handler(STEPS, Some(over))
    }

    /// Does `work` with SQL of an agent, and tells what that wanted.
    pub(super) fn guarded<T>(
        &self,
        purpose: Purpose,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> (rusqlite::Result<T>, Wants) {
        *lock(&self.wants) = Wants { author: Author::Agent(purpose), ..Wants::default() };
        let done = work(&self.conn);
        let wants = std::mem::take(&mut *lock(&self.wants));
        let full = self.full.load(Ordering::Relaxed);
        (done, Wants { full, ..wants })
    }

    /// What a fault of its SQLite means.
    pub(super) fn told(&self, fault: &rusqlite::Error) -> ResourceFault {
        if self.full.load(Ordering::Relaxed) { full() } else { told(fault) }
    }
}

// === impl Identity ===

impl Identity {
    /// The file at `path`; `None` if there is none.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let file = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        Some(Self(file.dev(), file.ino()))
    }
}

// === impl Wants ===

impl Wants {
    fn rule(&mut self, asked: AuthContext<'_>) -> Authorization {
        let Author::Agent(purpose) = self.author else { return Authorization::Allow };
        match self.objection(asked, purpose) {
            None => Authorization::Allow,
            Some(what) => {
                self.refused.get_or_insert(what);
                Authorization::Deny
            }
        }
    }

    /// What of it an agent may not do.
    fn objection(&mut self, asked: AuthContext<'_>, purpose: Purpose) -> Option<String> {
        let (database, accessor) = (asked.database_name, asked.accessor);
        let ours = accessor.is_some_and(|name| name.starts_with(OURS));
        if ours {
            return None;
        }
        let here = database.is_none_or(|name| name == "main");
        match asked.action {
            AuthAction::Select | AuthAction::Recursive => None,
            AuthAction::Read { .. } if here => None,
            // `ALTER TABLE` looks there for what refers to the table; SQL alone cannot write it.
            AuthAction::Read { table_name, .. } | AuthAction::Update { table_name, .. }
                if table_name == "sqlite_temp_master" =>
            {
                None
            }
            AuthAction::Function { function_name } => FORBIDDEN
                .iter()
                .any(|name| function_name.eq_ignore_ascii_case(name))
                .then(|| format!("the function `{function_name}`")),
            AuthAction::Pragma { pragma_name, pragma_value } => {
                let is = |name: &&str| pragma_name.eq_ignore_ascii_case(name);
                let reads = READ_PRAGMAS.iter().any(is)
                    || pragma_value.is_none() && ASKED_PRAGMAS.iter().any(is);
                (!reads).then(|| format!("`PRAGMA {pragma_name}`"))
            }
            AuthAction::Insert { table_name }
            | AuthAction::Delete { table_name }
            | AuthAction::Update { table_name, .. }
                if here && purpose == Purpose::Write =>
            {
                if !table_name.to_ascii_lowercase().starts_with("sqlite_") {
                    self.tables.insert(table_name.to_owned());
                }
                None
            }
            // Where other actions tell the database, this one may tell a column.
            AuthAction::AlterTable { database_name: "main", .. } if purpose == Purpose::Write => {
                self.schema = true;
                None
            }
            action if here && purpose == Purpose::Write && is_schema(&action) => {
                self.schema = true;
                None
            }
            action => Some(refused(&action).to_owned()),
        }
    }
}

fn is_schema(action: &AuthAction<'_>) -> bool {
    matches!(
        action,
        AuthAction::CreateIndex { .. }
            | AuthAction::CreateTable { .. }
            | AuthAction::CreateTrigger { .. }
            | AuthAction::CreateView { .. }
            | AuthAction::DropIndex { .. }
            | AuthAction::DropTable { .. }
            | AuthAction::DropTrigger { .. }
            | AuthAction::DropView { .. }
            | AuthAction::Reindex { .. }
    )
}

fn refused(action: &AuthAction<'_>) -> &'static str {
    match action {
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => "attaching another database",
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => {
            "beginning or ending a transaction"
        }
        AuthAction::CreateVtable { .. } | AuthAction::DropVtable { .. } => {
            "making or dropping a virtual table"
        }
        AuthAction::Insert { .. } | AuthAction::Update { .. } | AuthAction::Delete { .. } => {
            "writing here"
        }
        AuthAction::Read { .. } => "reading another database",
        _ => "this kind of statement",
    }
}

/// There are too many scratch files.
pub(super) fn full() -> ResourceFault {
    let text = "SQLite would need more scratch files than the limit";
    ResourceFault::TooLarge(text.to_owned())
}

/// What a fault of SQLite means.
pub(super) fn told(fault: &rusqlite::Error) -> ResourceFault {
    let text = fault.to_string();
    match fault.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => {
            ResourceFault::Unavailable("stopped, or not done within the time limit".to_owned())
        }
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::CannotOpen
            | ErrorCode::SystemIoFailure
            | ErrorCode::PermissionDenied
            | ErrorCode::ReadOnly,
        ) => ResourceFault::Unavailable(text),
        Some(ErrorCode::TooBig) => ResourceFault::TooLarge("a value".to_owned()),
        Some(ErrorCode::DiskFull) => {
            let text = "the database would grow by more bytes than the limit, or than there are";
            ResourceFault::TooLarge(text.to_owned())
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            ResourceFault::Unavailable(format!("not a sound database: {text}"))
        }
        _ => ResourceFault::Refused(text),
    }
}

fn lock(wants: &Mutex<Wants>) -> MutexGuard<'_, Wants> {
    wants.lock().unwrap_or_else(PoisonError::into_inner)
}
