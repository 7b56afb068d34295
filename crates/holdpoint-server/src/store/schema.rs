//! The database's tables and how connections are opened. Must not read or write rows.

use super::fault::{LOCK_WAIT_S, StoreFault};
use super::files::Layout;
use holdpoint_ledger::Frontier;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

/// The newest format that this version knows.
const FORMAT: i64 = 3;
/// `PRAGMA application_id`: "Hold" in ASCII.
const APPLICATION: i64 = 0x486f_6c64;
/// How long to wait between two tries to get the write lock: short, so that a stop by another
/// process finds the gap between two commits of a busy one.
const LOCK_PAUSE: Duration = Duration::from_micros(500);

const TABLES: &str = "
    CREATE TABLE log_state (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        size INTEGER NOT NULL,
        frontier BLOB NOT NULL,
        note TEXT,
        last_at_ms INTEGER,
        epoch INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE records (
        seq INTEGER PRIMARY KEY,
        leaf BLOB NOT NULL,
        kind TEXT NOT NULL,
        gateway TEXT NOT NULL,
        action TEXT,
        agent TEXT,
        tool TEXT,
        resource TEXT,
        ruling TEXT,
        at_ms INTEGER NOT NULL,
        body BLOB NOT NULL
    ) STRICT;
    CREATE TABLE checkpoints (size INTEGER PRIMARY KEY, note TEXT NOT NULL) STRICT;
    CREATE TABLE action_records (
        action TEXT NOT NULL,
        seq INTEGER NOT NULL,
        PRIMARY KEY (action, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE open_actions (
        action TEXT PRIMARY KEY,
        gateway TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE stops (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        scope TEXT NOT NULL,
        reason TEXT NOT NULL,
        by TEXT NOT NULL,
        since_ms INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE pins (
        tool TEXT PRIMARY KEY,
        definition BLOB NOT NULL,
        json TEXT NOT NULL,
        by TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        seen BLOB,
        seen_json TEXT,
        seen_ms INTEGER
    ) STRICT;
    CREATE TABLE keys (
        key_id TEXT PRIMARY KEY,
        hash BLOB NOT NULL,
        agent TEXT NOT NULL,
        owner TEXT NOT NULL,
        issued_ms INTEGER NOT NULL,
        revoked_ms INTEGER
    ) STRICT;
";

/// What format 2 adds.
const TABLES_2: &str = "
    CREATE TABLE open_checks (
        due_ms INTEGER NOT NULL,
        action TEXT NOT NULL,
        validator TEXT NOT NULL,
        gateway TEXT NOT NULL,
        PRIMARY KEY (due_ms, action, validator)
    ) STRICT, WITHOUT ROWID;
";

/// What format 3 adds. SQLite makes a table of a list (`IN`) of three each time a record is added.
const TABLES_3: &str = "
    CREATE TABLE approvals (
        id TEXT PRIMARY KEY,
        binding BLOB NOT NULL,
        agent TEXT NOT NULL,
        owner TEXT,
        tool TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        asked_ms INTEGER NOT NULL,
        expires_ms INTEGER NOT NULL,
        facts TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX approvals_by_binding ON approvals (binding);
    CREATE TABLE grants (
        id INTEGER PRIMARY KEY,
        agent TEXT NOT NULL,
        class TEXT NOT NULL,
        tools TEXT NOT NULL,
        until_ms INTEGER NOT NULL,
        by TEXT NOT NULL,
        because TEXT NOT NULL
    ) STRICT;
    CREATE TABLE plans (
        id TEXT PRIMARY KEY,
        agent TEXT NOT NULL,
        task TEXT NOT NULL,
        parent TEXT,
        state TEXT NOT NULL,
        bound INTEGER NOT NULL,
        version INTEGER NOT NULL,
        expires_ms INTEGER NOT NULL,
        seq INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX plans_by_agent ON plans (agent, task);
    CREATE TABLE plan_calls (
        action TEXT PRIMARY KEY,
        plan TEXT NOT NULL,
        step TEXT NOT NULL,
        uses TEXT NOT NULL,
        state TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX plan_calls_by_plan ON plan_calls (plan);
    CREATE TABLE plan_looks (
        plan TEXT NOT NULL,
        step TEXT NOT NULL,
        seq INTEGER NOT NULL,
        PRIMARY KEY (plan, step)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX records_of_people ON records (kind)
        WHERE kind = 'approved' OR kind = 'disapproved' OR kind = 'reverted';
    CREATE TABLE stuck_reverts (
        action TEXT PRIMARY KEY,
        seq INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
";

/// One entry of the database's own list of what it holds.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Object {
    kind: String,
    name: String,
    table: String,
    sql: Option<String>,
}

/// The writer's connection; makes the database if it is absent.
pub(super) fn open_to_write(layout: &Layout) -> Result<Connection, StoreFault> {
    let path = layout.database();
    layout.create_database()?;
    let mut connection = open(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    create_tables(&mut connection)?;
    let mode = write_ahead(&connection)?;
    if mode != "wal" {
        let detail = format!("its journal mode is `{mode}`, not `wal`");
        return Err(StoreFault::Database { detail });
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

/// Asks for a write-ahead log; gives the mode that is in force. Of two processes that ask at one
/// time SQLite refuses one at once, without waiting: each would wait for the other.
fn write_ahead(connection: &Connection) -> rusqlite::Result<String> {
    let deadline = Instant::now() + Duration::from_secs(LOCK_WAIT_S);
    loop {
        let asked = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0));
        match asked {
            Err(fault)
                if fault.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && Instant::now() < deadline =>
            {
                std::thread::sleep(LOCK_PAUSE);
            }
            other => return other,
        }
    }
}

/// A connection that cannot write.
pub(super) fn open_to_read(layout: &Layout) -> Result<Connection, StoreFault> {
    let path = layout.database();
    if !path.exists() {
        return Err(StoreFault::Absent { dir: layout.dir().display().to_string() });
    }
    let connection = open(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    match check_format(&connection) {
        // A folder that cannot be written has no room for the files that readers share. If nothing
        // waits in the write-ahead log, the database file alone is the whole store.
        Err(StoreFault::NotWritable { .. }) if !has_log(&path) => {
            let connection = open_immutable(&path)?;
            check_format(&connection)?;
            Ok(connection)
        }
        Err(fault) => Err(fault),
        Ok(()) => Ok(connection),
    }
}

fn has_log(path: &Path) -> bool {
    let log = path.with_extension("db-wal");
    std::fs::metadata(log).is_ok_and(|metadata| metadata.len() > 0)
}

fn open_immutable(path: &Path) -> Result<Connection, StoreFault> {
    let text = path.to_string_lossy();
    let escaped = text.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let uri = format!("file:{escaped}?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Ok(configure(Connection::open_with_flags(uri, flags)?)?)
}

fn open(path: &Path, flags: OpenFlags) -> Result<Connection, StoreFault> {
    Ok(configure(Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?)?)
}

fn configure(mut connection: Connection) -> rusqlite::Result<Connection> {
    let tries_max = Duration::from_secs(LOCK_WAIT_S).as_micros() / LOCK_PAUSE.as_micros();
    let tries_max = i32::try_from(tries_max).unwrap_or(i32::MAX);
    connection.busy_handler(Some(move |tries| {
        std::thread::sleep(LOCK_PAUSE);
        tries < tries_max
    }))?;
    connection.set_prepared_statement_cache_capacity(64);
    // Nothing that somebody else puts into the file runs here.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.pragma_update(None, "trusted_schema", "OFF")?;
    connection.pragma_update(None, "cell_size_check", "ON")?;
    Ok(connection)
}

/// Makes what is missing: everything, or what later formats added.
fn create_tables(connection: &mut Connection) -> Result<(), StoreFault> {
    if format_of(connection)? < FORMAT {
        let txn = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have been quicker.
        if format_of(&txn)? == 0 {
            create_first(&txn)?;
        }
        check_objects(&txn)?;
        if format_of(&txn)? < 2 {
            txn.execute_batch(TABLES_2)?;
        }
        if format_of(&txn)? < 3 {
            txn.execute_batch(TABLES_3)?;
        }
        txn.pragma_update(None, "user_version", FORMAT)?;
        txn.commit()?;
    }
    check_format(connection)
}

fn create_first(connection: &Connection) -> Result<(), StoreFault> {
    let tables = "SELECT count(*) FROM sqlite_schema";
    if connection.query_row(tables, [], |row| row.get::<_, i64>(0))? > 0 {
        return Err(StoreFault::corrupt("`ledger.db` is another program's database"));
    }
    connection.execute_batch(TABLES)?;
    let sql = "INSERT INTO log_state (id, size, frontier, epoch) VALUES (1, 0, ?1, 0)";
    connection.execute(sql, [Frontier::default().to_bytes()])?;
    connection.pragma_update(None, "application_id", APPLICATION)?;
    connection.pragma_update(None, "user_version", 1)?;
    Ok(())
}

/// Checks that this is a store that can be read, at one point in time: another process may be about
/// to carry it on.
fn check_format(connection: &Connection) -> Result<(), StoreFault> {
    let snapshot = connection.unchecked_transaction()?;
    check_objects(&snapshot)
}

/// True if the store lists open checks: one of an earlier format that is only read has none.
pub(super) fn lists_checks(connection: &Connection) -> Result<bool, StoreFault> {
    Ok(format_of(connection)? >= 2)
}

/// True if the store lists approvals, grants for a limited time, plans and stuck reverts.
pub(super) fn lists_approvals(connection: &Connection) -> Result<bool, StoreFault> {
    Ok(format_of(connection)? >= 3)
}

/// Compares the tables and indices with those of its format. Anything else may make the database
/// answer otherwise than the log says: an index can hide rows, a trigger can undo a stop.
fn check_objects(connection: &Connection) -> Result<(), StoreFault> {
    let application: i64 =
        connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let found = format_of(connection)?;
    if application != APPLICATION || found < 1 {
        return Err(StoreFault::corrupt("`ledger.db` is not a store"));
    }
    if found > FORMAT {
        return Err(StoreFault::Newer { found, known: FORMAT });
    }
    let fresh = Connection::open_in_memory()?;
    fresh.execute_batch(TABLES)?;
    if found >= 2 {
        fresh.execute_batch(TABLES_2)?;
    }
    if found >= 3 {
        fresh.execute_batch(TABLES_3)?;
    }
    let (expected, found) = (objects(&fresh)?, objects(connection)?);
    if let Some(Object { kind, name, .. }) = found.difference(&expected).next() {
        let (kind, name) = (kind.escape_debug(), name.escape_debug());
        let detail = format!("holdpoint did not make its {kind} `{name}` this way");
        return Err(StoreFault::corrupt(detail));
    }
    if let Some(Object { kind, name, .. }) = expected.difference(&found).next() {
        return Err(StoreFault::corrupt(format!("its {kind} `{name}` is missing")));
    }
    Ok(())
}

fn objects(connection: &Connection) -> rusqlite::Result<BTreeSet<Object>> {
    let mut statement =
        connection.prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema")?;
    let rows = statement.query_map([], |row| {
        let (kind, name) = (row.get(0)?, row.get(1)?);
        Ok(Object { kind, name, table: row.get(2)?, sql: row.get(3)? })
    })?;
    rows.collect()
}

fn format_of(connection: &Connection) -> Result<i64, StoreFault> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}
