//! SQLite databases: real files, with the real `sqlite3` program as the human who is faster.

use crate::permits::{NOW, permit};
use holdpoint_resources::resource::{
    Executed, Forward, Preview, Proposed, Resource, ResourceFault, TargetState, Undo,
};
use holdpoint_resources::{Cancels, Ended, Sqlite, SqliteLimits, SqlitePrepared, SqliteSpec};
use holdpoint_types::{Reason, Reversibility, Timestamp, ToolRef};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// A database in a folder of its own.
pub struct Stage {
    pub sqlite: Sqlite,
    pub path: PathBuf,
    _folder: TempDir,
}

// === impl Stage ===

impl Stage {
    pub fn new(schema: &str) -> Self {
        Self::limited(
            schema,
            SqliteLimits { busy: Duration::from_millis(50), ..SqliteLimits::default() },
        )
    }

    pub fn limited(schema: &str, limits: SqliteLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("orders.db");
        Connection::open(&path).unwrap().execute_batch(schema).unwrap();
        let spec = SqliteSpec {
            server: "orders".parse().unwrap(),
            place: "sqlite://orders".to_owned(),
            path: path.clone(),
            limits,
        };
        Self { sqlite: Sqlite::new(spec), path, _folder: folder }
    }

    /// Somebody else, on a connection of their own.
    pub fn human(&self, sql: &str) {
        let conn = Connection::open(&self.path).unwrap();
        conn.busy_timeout(Duration::from_millis(100)).unwrap();
        conn.execute_batch(sql).unwrap();
    }

    pub fn rows(&self, sql: &str) -> Vec<String> {
        let conn = Connection::open(&self.path).unwrap();
        let mut statement = conn.prepare(sql).unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            let cells = (0..columns).map(|at| format!("{:?}", row.get_ref(at).unwrap()));
            Ok(cells.collect::<Vec<_>>().join("|"))
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    pub async fn preview(&self, sql: &str) -> Result<(Preview, SqlitePrepared), ResourceFault> {
        self.preview_of("sql_execute", sql).await
    }

    async fn preview_of(
        &self,
        name: &str,
        sql: &str,
    ) -> Result<(Preview, SqlitePrepared), ResourceFault> {
        let (tool, parameters) = (tool(name), json!({ "sql": sql }));
        let proposed = Proposed { tool: &tool, parameters: &parameters, effects: &[], now: NOW };
        self.sqlite.preview(proposed).await.map(Option::unwrap)
    }

    pub async fn execute(&self, sql: &str, prepared: SqlitePrepared) -> Executed {
        let permit = permit(&tool("sql_execute"), &json!({ "sql": sql }));
        self.sqlite.execute(permit, prepared, unused()).await
    }

    /// Previews and executes.
    pub async fn act(&self, sql: &str) -> (Preview, Undo) {
        let (preview, prepared) = self.preview(sql).await.unwrap();
        let undo = self.sqlite.undo(&prepared).unwrap();
        let ended = self.execute(sql, prepared).await.ended;
        assert!(matches!(ended, Ended::Answered { tool_error: false, .. }), "{ended:?}");
        (preview, undo)
    }

    /// Reverts, and gives what was restored and what was kept.
    pub async fn revert(&self, undo: &Undo) -> (Vec<String>, Vec<(String, String)>) {
        let reverting = self.sqlite.revert(undo, NOW).await.unwrap();
        let restored = reverting.preview.changes.iter().map(|change| change.resource.clone());
        let restored = restored.collect();
        let kept = reverting.conflicts.into_iter().map(|kept| (kept.resource, kept.why));
        let kept = kept.collect();
        let ended = self.execute("", reverting.prepared).await.ended;
        assert!(matches!(ended, Ended::Answered { tool_error: false, .. }), "{ended:?}");
        (restored, kept)
    }

    async fn query(&self, sql: &str) -> Ended {
        let (preview, prepared) = self.preview_of("sql_query", sql).await.unwrap();
        assert!(preview.changes.is_empty() && preview.guarantee == Reversibility::NoEffect);
        assert!(self.sqlite.undo(&prepared).is_none());
        let permit = permit(&tool("sql_query"), &json!({ "sql": sql }));
        self.sqlite.execute(permit, prepared, unused()).await.ended
    }
}

fn tool(name: &str) -> ToolRef {
    ToolRef::new("orders".parse().unwrap(), name).unwrap()
}

/// What stands around a call; nothing is forwarded.
fn unused() -> (Cancels, Forward) {
    (Cancels::default(), Box::new(|_| panic!("there is no server")))
}

/// True if it is too large, and these words say how much that is.
fn too_large(fault: &ResourceFault, words: &str) -> bool {
    matches!(fault, ResourceFault::Large(text) if text.contains(words))
}

/// What the agent was told, and whether as an error.
fn said(ended: &Ended) -> (Value, bool) {
    let Ended::Answered { body, tool_error } = ended else { panic!("{ended:?}") };
    let body: Value = serde_json::from_str(body.raw().get()).unwrap();
    let text = body["content"][0]["text"].as_str().unwrap();
    (serde_json::from_str(text).unwrap_or_else(|_| text.into()), *tool_error)
}

fn lines(preview: &Preview) -> Vec<String> {
    let side = |side: &Option<Value>| side.as_ref().map_or("-".to_owned(), Value::to_string);
    let change = preview.changes.iter();
    change
        .map(|change| {
            format!("{}: {} => {}", change.resource, side(&change.before), side(&change.after))
        })
        .collect()
}

const SHOP: &str = "
    CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL, big TEXT AS (upper(name)));
    CREATE TABLE orders (id INTEGER PRIMARY KEY, user REFERENCES users ON DELETE CASCADE, sum REAL);
    CREATE TABLE audit (what TEXT);
    CREATE TRIGGER gone AFTER DELETE ON orders BEGIN
        INSERT INTO audit VALUES ('order ' || OLD.id);
    END;
    INSERT INTO users (id, name) VALUES (1, 'ann'), (2, 'bob');
    INSERT INTO orders VALUES (10, 1, 5.0), (11, 1, 6.5), (12, 2, 7.5);
";

#[tokio::test]
async fn a_sqlite_preview_shows_rows_of_cascades_triggers_and_generated_columns() {
    let stage = Stage::new(SHOP);
    let sql = "DELETE FROM users WHERE id = 1; UPDATE users SET name = 'rob' WHERE id = 2";
    let (preview, prepared) = stage.preview(sql).await.unwrap();
    assert_eq!(
        lines(&preview),
        [
            r#"sqlite://orders/audit/rowid=1: - => {"what":"order 10"}"#,
            r#"sqlite://orders/audit/rowid=2: - => {"what":"order 11"}"#,
            r#"sqlite://orders/orders/id=10: {"id":10,"user":1,"sum":{"real":"5.0"}} => -"#,
            r#"sqlite://orders/orders/id=11: {"id":11,"user":1,"sum":6.5} => -"#,
            r#"sqlite://orders/users/id=1: {"id":1,"name":"ann","big":"ANN"} => -"#,
            r#"sqlite://orders/users/id=2: {"id":2,"name":"bob","big":"BOB"} => {"id":2,"name":"rob","big":"ROB"}"#,
        ]
    );
    assert!(preview.exact && preview.guarantee == Reversibility::Exact);
    // Until it is executed nobody else can write, and nobody else sees anything of it.
    assert_eq!(stage.rows("SELECT count(*) FROM orders"), ["Integer(3)"]);
    drop(prepared);
    stage.human("UPDATE orders SET sum = 1.0 WHERE id = 12");
    assert_eq!(stage.rows("SELECT count(*) FROM orders"), ["Integer(3)"]);
}

#[tokio::test]
async fn a_sqlite_execution_commits_what_was_previewed_and_reverts() {
    let stage = Stage::new(SHOP);
    let all = "SELECT * FROM users UNION ALL SELECT * FROM orders \
               UNION ALL SELECT what, 0, 0 FROM audit";
    let before = stage.rows(all);
    let sql = "DELETE FROM users WHERE id = 1; UPDATE users SET name = 'rob' WHERE id = 2 \
               RETURNING id, name;";
    let (preview, prepared) = stage.preview(sql).await.unwrap();
    let undo = stage.sqlite.undo(&prepared).unwrap();
    assert_eq!(stage.sqlite.verify(&undo).await, Ok(TargetState::Before));
    let told = json!({ "statements": [
        { "rows_changed": 1 },
        { "rows_changed": 1, "columns": ["id", "name"], "rows": [[2, "rob"]] },
    ]});
    assert_eq!(said(&stage.execute(sql, prepared).await.ended), (told, false));
    assert_eq!(stage.sqlite.verify(&undo).await, Ok(TargetState::After));
    assert_eq!(stage.rows("SELECT count(*) FROM orders"), ["Integer(1)"]);

    let reverting = stage.sqlite.revert(&undo, NOW).await.unwrap();
    let counts = reverting.preview.counts();
    assert_eq!((counts.created, counts.updated, counts.deleted), (3, 1, 2));
    let back = stage.sqlite.undo(&reverting.prepared).unwrap();
    drop(reverting);
    let (restored, kept) = stage.revert(&undo).await;
    assert_eq!((restored.len(), kept.len()), (preview.changes.len(), 0));
    assert_eq!(stage.rows(all), before);
    assert_eq!(stage.sqlite.verify(&undo).await, Ok(TargetState::Before));
    assert_eq!(stage.revert(&undo).await, (vec![], vec![]));
    assert_eq!(stage.rows(all), before);
    // A revert can be taken back like anything else.
    assert_eq!(stage.revert(&back).await.0.len(), 6);
    assert_eq!(stage.sqlite.verify(&undo).await, Ok(TargetState::After));
}

#[tokio::test]
async fn a_sqlite_revert_keeps_later_edits_and_reports_them() {
    let stage = Stage::new(SHOP);
    let (_, undo) = stage
        .act(
            "UPDATE users SET name = name || '!'; DELETE FROM orders; \
              INSERT INTO users (id, name) VALUES (3, 'eve'), (4, 'kim')",
        )
        .await;
    let edits = "UPDATE users SET name = 'bobby' WHERE id = 2;
         INSERT INTO orders VALUES (11, 2, 99.5), (20, 3, 1.5);
         DELETE FROM audit WHERE what = 'order 12'";
    match std::process::Command::new("sqlite3").arg(&stage.path).arg(edits).status() {
        Ok(status) => assert!(status.success()),
        Err(fault) if std::env::var_os("CI").is_some() => panic!("sqlite3: {fault}"),
        Err(fault) => {
            println!("the human uses the library: no program `sqlite3`: {fault}");
            stage.human(edits);
        }
    }
    let (restored, kept) = stage.revert(&undo).await;
    let kept: Vec<(&str, &str)> = kept.iter().map(|(at, why)| (&**at, &**why)).collect();
    assert_eq!(
        kept,
        [
            ("sqlite://orders/orders/id=11", "another row took its key since"),
            ("sqlite://orders/users/id=2", "it was changed since"),
            ("sqlite://orders/users/id=3", "a row that was added since refers to it"),
        ]
    );
    assert!(restored.contains(&"sqlite://orders/users/id=1".to_owned()), "{restored:?}");
    assert_eq!(stage.rows("SELECT id || name FROM users"), ["1ann", "2bobby", "3eve"].map(text));
    assert_eq!(stage.revert(&undo).await.0, Vec::<String>::new());
}

fn text(text: &str) -> String {
    format!("{:?}", rusqlite::types::ValueRef::Text(text.as_bytes()))
}

#[tokio::test]
async fn a_sqlite_revert_does_not_restore_what_would_be_an_orphan() {
    let stage = Stage::new(SHOP);
    let (_, undo) = stage.act("DELETE FROM orders WHERE id = 12").await;
    stage.human("DELETE FROM users WHERE id = 2");
    let (restored, kept) = stage.revert(&undo).await;
    assert_eq!(restored, ["sqlite://orders/audit/rowid=1"]);
    let why = "it refers to a row that is not there any more".to_owned();
    assert_eq!(kept, [("sqlite://orders/orders/id=12".to_owned(), why)]);
}

#[tokio::test]
async fn replaced_rows_of_sqlite_are_seen_and_come_back() {
    let schema = "
        CREATE TABLE t (id INTEGER PRIMARY KEY, code TEXT UNIQUE, v);
        CREATE TABLE w (a TEXT COLLATE NOCASE, b, PRIMARY KEY (a, b)) WITHOUT ROWID;
        CREATE TABLE k (code TEXT UNIQUE ON CONFLICT REPLACE, v);
        INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3);
        INSERT INTO w VALUES ('x', 1), ('y', 2);
        INSERT INTO k VALUES ('a', 1), ('b', 2);";
    let stage = Stage::new(schema);
    let all = "SELECT * FROM t UNION ALL SELECT a, b, 0 FROM w UNION ALL SELECT rowid, * FROM k";
    let before = stage.rows(all);
    let sql = "INSERT OR REPLACE INTO t VALUES (1, 'b', 9); UPDATE w SET a = 'X' WHERE a = 'x'; \
               INSERT INTO k VALUES ('a', 7)";
    let (preview, undo) = stage.act(sql).await;
    assert_eq!(
        lines(&preview),
        [
            r#"sqlite://orders/k/rowid=1: {"code":"a","v":1} => -"#,
            r#"sqlite://orders/k/rowid=3: - => {"code":"a","v":7}"#,
            r#"sqlite://orders/t/id=1: {"id":1,"code":"a","v":1} => {"id":1,"code":"b","v":9}"#,
            r#"sqlite://orders/t/id=2: {"id":2,"code":"b","v":2} => -"#,
            r#"sqlite://orders/w/a=X,b=1: - => {"a":"X","b":1}"#,
            r#"sqlite://orders/w/a=x,b=1: {"a":"x","b":1} => -"#,
        ]
    );
    // Neither does a revert replace what somebody put there.
    stage.human("INSERT INTO t VALUES (7, 'a', 7)");
    let (_, kept) = stage.revert(&undo).await;
    let why = "what it was does not fit beside what is there now".to_owned();
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert_eq!(kept[0], ("sqlite://orders/t/id=1".to_owned(), why));
    stage.human("DELETE FROM t WHERE id = 7");
    assert_eq!(stage.revert(&undo).await.1, []);
    assert_eq!(stage.rows(all), before);
}

#[tokio::test]
async fn what_an_agent_may_not_do_to_sqlite_is_refused() {
    let stage = Stage::new(SHOP);
    let elsewhere = stage.path.with_file_name("other.db");
    let attach = format!("ATTACH '{}' AS x", elsewhere.display());
    let vacuum = format!("VACUUM INTO '{}'", elsewhere.display());
    for (sql, why) in [
        (attach.as_str(), "attaching another database is not allowed"),
        ("PRAGMA foreign_keys = OFF", "`PRAGMA foreign_keys` is not allowed"),
        ("PRAGMA writable_schema = ON", "`PRAGMA writable_schema` is not allowed"),
        ("COMMIT", "beginning or ending a transaction is not allowed"),
        ("DELETE FROM users; COMMIT", "beginning or ending a transaction is not allowed"),
        ("SAVEPOINT x", "beginning or ending a transaction is not allowed"),
        ("DELETE FROM users WHERE load_extension('x')", "load_extension"),
        ("CREATE TEMP TABLE x (y)", "writing here is not allowed"),
        ("DROP TABLE temp.holdpoint_0", "are Holdpoint's own"),
        ("DELETE FROM users; DELETE FROM holdpoint_0", "are Holdpoint's own"),
        ("SELECT * FROM users", "`sql_query` reads"),
        ("DELETE FROM users WHERE id = ?", "have no value"),
        ("DELETE FROM nobody", "no such table"),
        ("INSERT INTO users (id, name) VALUES (1, 'x')", "UNIQUE constraint failed"),
        ("UPDATE sqlite_schema SET sql = ''", "may not be modified"),
        ("UPDATE sqlite_temp_schema SET sql = ''", "may not be modified"),
        (" -- nothing", "there is no statement"),
        (vacuum.as_str(), "VACUUM"),
    ] {
        let fault = stage.preview(sql).await.unwrap_err().to_string();
        assert!(fault.contains(why), "{sql}: {fault}");
    }
    for sql in [
        "DELETE FROM users",
        "PRAGMA journal_mode = WAL",
        "SELECT 1; SELECT 2",
        "BEGIN",
        &attach,
        &vacuum,
        "SELECT * FROM nobody",
        "EXPLAIN DELETE FROM users; DROP TABLE users",
    ] {
        let (told, tool_error) = said(&stage.query(sql).await);
        assert!(tool_error, "{sql}: {told}");
    }
    assert!(!elsewhere.exists());
    assert_eq!(stage.rows("SELECT count(*) FROM users"), ["Integer(2)"]);
}

#[tokio::test]
async fn sqlite_queries_read_within_limits() {
    let limits = SqliteLimits {
        rows_max: 10,
        bytes_max: 1_000,
        statement: Duration::from_millis(200),
        ..SqliteLimits::default()
    };
    let stage = Stage::limited(SHOP, limits);
    let found = json!({ "columns": ["id", "sum"], "rows": [[10, { "real": "5.0" }], [11, 6.5]] });
    let sql = "SELECT id, sum FROM orders WHERE user = 1";
    assert_eq!(said(&stage.query(sql).await), (found, false));
    let columns = json!({ "columns": ["name"], "rows": [["what"]] });
    let sql = "SELECT name FROM pragma_table_info('audit')";
    assert_eq!(said(&stage.query(sql).await), (columns, false));
    stage.human("CREATE VIRTUAL TABLE notes USING fts5 (body); INSERT INTO notes VALUES ('one')");
    let sql = "SELECT body FROM notes WHERE notes MATCH 'one'";
    let notes = json!({ "columns": ["body"], "rows": [["one"]] });
    assert_eq!(said(&stage.query(sql).await), (notes, false));
    let endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT";
    for (sql, why) in [
        (format!("{endless} x FROM n"), "too large: more than 10 rows"),
        (format!("{endless} count(*) FROM n"), "unavailable: stopped, or not done within"),
        ("SELECT hex(zeroblob(1000))".to_owned(), "too large: more than 1000 bytes"),
        ("SELECT hex(zeroblob(1 << 29))".to_owned(), "too large: a value"),
    ] {
        let (told, tool_error) = said(&stage.query(&sql).await);
        assert!(tool_error && told.as_str().unwrap().starts_with(why), "{told}");
    }
}

#[tokio::test]
async fn a_sqlite_preview_beyond_its_limits_says_how_large_it_is() {
    let limits = SqliteLimits { rows_max: 100, bytes_max: 1 << 20, ..SqliteLimits::default() };
    let stage = Stage::limited("CREATE TABLE t (id INTEGER PRIMARY KEY, v)", limits);
    let many = "INSERT INTO t WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n \
                WHERE x < 10001) SELECT x, NULL FROM n";
    let fault = stage.preview(many).await.unwrap_err();
    assert_eq!(fault.to_string(), "too large: 10001 rows, and `rows_max` is 100");
    let fault = stage.preview("INSERT INTO t VALUES (1, zeroblob(2000000))").await.unwrap_err();
    assert!(too_large(&fault, " bytes, and at most 1048576"), "{fault}");
    stage.human("INSERT INTO t VALUES (1, zeroblob(2000000))");
    let fault = stage.preview("DROP TABLE t").await.unwrap_err();
    assert!(too_large(&fault, " bytes, and at most 1048576"), "{fault}");
    let grows = "INSERT INTO t VALUES (10, zeroblob(1000000)), (11, zeroblob(1000000))";
    let fault = stage.preview(grows).await.unwrap_err();
    assert!(matches!(&fault, ResourceFault::Large(_)), "{fault}");
    let fault =
        stage.preview("INSERT INTO t VALUES (2, hex(zeroblob(1 << 24)))").await.unwrap_err();
    assert_eq!(fault.to_string(), "too large: a value");
    let endless = "INSERT INTO t WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) \
                   SELECT x, NULL FROM n";
    let limits = SqliteLimits { statement: Duration::from_millis(200), ..limits };
    let slow = Stage::limited("CREATE TABLE t (id INTEGER PRIMARY KEY, v)", limits);
    let fault = slow.preview(endless).await.unwrap_err();
    assert!(matches!(fault, ResourceFault::Unavailable(_)), "{fault}");
}

#[tokio::test]
async fn scratch_files_of_sqlite_do_not_grow_without_end() {
    let scratch_bytes_max = 8 << 20;
    let statement = Duration::from_secs(120);
    let limits = SqliteLimits { scratch_bytes_max, statement, ..SqliteLimits::default() };
    let stage = Stage::limited("CREATE TABLE t (id INTEGER PRIMARY KEY, v)", limits);
    let full = "too large: SQLite would need more scratch files than the limit";
    // Sorted, remembered to tell repetitions, and put aside: the table itself does not grow.
    let endless = [
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) \
         SELECT x, randomblob(1000) FROM n ORDER BY 2",
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION SELECT x + 1 FROM n) SELECT x, x FROM n WHERE x < 0",
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) \
         SELECT x, x FROM n WHERE x IN (SELECT -x FROM n)",
    ];
    for select in endless {
        let fault = stage.preview(&format!("INSERT INTO t {select}")).await.unwrap_err();
        assert_eq!(fault.to_string(), full, "{select}");
        let read = said(&stage.query(select).await);
        assert_eq!(read, (full.into(), true), "{select}");
    }
    let few = "INSERT INTO t WITH RECURSIVE n(x) AS (SELECT 1 UNION SELECT x + 1 FROM n WHERE \
               x < 1000) SELECT x, randomblob(1000) FROM n ORDER BY 2";
    let (preview, _) = stage.act(few).await;
    assert_eq!(preview.changes.len(), 1000);
}

#[tokio::test]
async fn a_sqlite_permit_for_another_call_changes_nothing() {
    let stage = Stage::new(SHOP);
    let sql = "DELETE FROM orders WHERE id = 10";
    for (name, asked, now) in [
        ("sql_execute", "DELETE FROM orders WHERE id = 11", NOW),
        ("sql_query", sql, NOW),
        ("sql_execute", sql, Timestamp(NOW.0 + 60_000)),
    ] {
        let tool_called = tool("sql_execute");
        let parameters = json!({ "sql": sql });
        let proposed = Proposed { tool: &tool_called, parameters: &parameters, effects: &[], now };
        let (_, prepared) = stage.sqlite.preview(proposed).await.unwrap().unwrap();
        let permit = permit(&tool(name), &json!({ "sql": asked }));
        let ended = stage.sqlite.execute(permit, prepared, unused()).await.ended;
        assert!(matches!(ended, Ended::NotSent { .. }), "{ended:?}");
    }
    let (_, prepared) = stage.preview(sql).await.unwrap();
    let (cancels, forward) = unused();
    cancels.stop.cancel();
    let permit = permit(&tool("sql_execute"), &json!({ "sql": sql }));
    let ended = stage.sqlite.execute(permit, prepared, (cancels, forward)).await.ended;
    assert!(matches!(ended, Ended::NotSent { reason: Reason::CancelledByStop, .. }), "{ended:?}");
    assert_eq!(stage.rows("SELECT count(*) FROM orders"), ["Integer(3)"]);
}

#[tokio::test]
async fn a_sqlite_database_that_is_locked_late_or_gone_is_told() {
    let stage = Stage::new(SHOP);
    let other = Connection::open(&stage.path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let fault = stage.preview("DELETE FROM orders").await.unwrap_err();
    assert_eq!(fault.to_string(), "unavailable: database is locked");
    other.execute_batch("ROLLBACK").unwrap();
    // A reader that does not let go keeps a commit out; nothing is changed then.
    let (_, prepared) = stage.preview("DELETE FROM orders").await.unwrap();
    other.execute_batch("BEGIN; SELECT * FROM orders;").unwrap();
    let ended = stage.execute("DELETE FROM orders", prepared).await.ended;
    assert!(matches!(ended, Ended::NotSent { .. }), "{ended:?}");
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(stage.rows("SELECT count(*) FROM orders"), ["Integer(3)"]);
    // A constraint that waits for the commit.
    let deferred = Stage::new(
        "CREATE TABLE p (id INTEGER PRIMARY KEY);
         CREATE TABLE c (p REFERENCES p DEFERRABLE INITIALLY DEFERRED)",
    );
    let (_, prepared) = deferred.preview("INSERT INTO c VALUES (7)").await.unwrap();
    let (told, tool_error) =
        said(&deferred.execute("INSERT INTO c VALUES (7)", prepared).await.ended);
    assert!(tool_error && told.as_str().unwrap().contains("FOREIGN KEY"), "{told}");
    // Another database takes the place of the one that was previewed, or none does.
    let moved = stage.path.with_extension("old");
    let (_, first) = stage.preview("DELETE FROM orders").await.unwrap();
    std::fs::rename(&stage.path, &moved).unwrap();
    let ended = stage.execute("DELETE FROM orders", first).await.ended;
    assert!(matches!(ended, Ended::NotSent { reason: Reason::TargetMoved, .. }), "{ended:?}");
    std::fs::copy(&moved, &stage.path).unwrap();
    let (_, second) = stage.preview("DELETE FROM orders").await.unwrap();
    std::fs::rename(&moved, &stage.path).unwrap();
    let ended = stage.execute("DELETE FROM orders", second).await.ended;
    assert!(matches!(ended, Ended::NotSent { reason: Reason::TargetMoved, .. }), "{ended:?}");
    assert_eq!(stage.rows("SELECT count(*) FROM orders"), ["Integer(3)"]);
    std::fs::remove_file(&stage.path).unwrap();
    let fault = stage.preview("DELETE FROM orders").await.unwrap_err();
    assert!(matches!(fault, ResourceFault::Gone(_)), "{fault}");
    std::fs::write(&stage.path, "no database, but long enough to be read as the header of one")
        .unwrap();
    let fault = stage.preview("DELETE FROM orders").await.unwrap_err();
    assert!(matches!(fault, ResourceFault::Unavailable(_)), "{fault}");
}

/// Everything in the database that SQL can see, whatever the order in the file.
fn dump(stage: &Stage) -> Vec<String> {
    let mut rows = stage.rows("SELECT type, name, sql FROM sqlite_schema ORDER BY type, name");
    for table in ["a", "b", "free", "notes", "notes_data", "sqlite_sequence", "w"] {
        let known = format!("SELECT 1 FROM sqlite_schema WHERE name = '{table}'");
        if stage.rows(&known).is_empty() {
            continue;
        }
        rows.extend(stage.rows(&format!("SELECT '{table}', * FROM {table} ORDER BY 2")));
    }
    rows
}

const MIXED: &str = "
    CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT UNIQUE);
    CREATE TABLE b (id INTEGER PRIMARY KEY, a REFERENCES a ON DELETE CASCADE, twice AS (id * 2));
    CREATE TABLE free (v, w);
    CREATE TABLE w (k TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID;
    CREATE INDEX by_v ON free (v);
    CREATE VIEW seen AS SELECT v FROM a;
    CREATE VIRTUAL TABLE notes USING fts5 (body);
    CREATE TRIGGER t AFTER INSERT ON a BEGIN INSERT INTO free VALUES (NEW.v, NEW.id); END;
    INSERT INTO a (v) VALUES ('x'), ('y'), ('z');
    INSERT INTO b (id, a) VALUES (1, 1), (2, 2);
    INSERT INTO w VALUES ('k', x'00ff');
    INSERT INTO notes VALUES ('one two'), ('two three');
    DELETE FROM a WHERE id = 3;
";

#[tokio::test]
async fn what_rows_of_sqlite_do_not_tell_keeps_the_whole_database() {
    for (sql, resources) in [
        ("DROP TABLE a", vec!["a"]),
        ("DROP TABLE b; DROP VIEW seen; DROP INDEX by_v", vec!["b", "by_v", "seen"]),
        ("ALTER TABLE a RENAME TO c", vec!["a", "b", "seen", "t"]),
        ("ALTER TABLE free ADD COLUMN n DEFAULT 7; UPDATE free SET n = 8", vec!["free"]),
        ("DROP TRIGGER t; ALTER TABLE free DROP COLUMN w", vec!["free", "t"]),
        (
            "CREATE TABLE new AS SELECT * FROM a; INSERT INTO a (v) VALUES ('n')",
            vec!["a", "free", "new"],
        ),
        ("INSERT INTO notes VALUES ('four')", vec!["notes_content", "notes_data"]),
        ("DELETE FROM notes", vec![]),
        ("DROP TRIGGER t; DELETE FROM a; DELETE FROM w", vec!["a", "b", "t", "w"]),
        ("DROP TABLE w; CREATE TABLE w (z)", vec!["w"]),
    ] {
        let stage = Stage::new(MIXED);
        let before = dump(&stage);
        let (preview, prepared) = stage.preview(sql).await.unwrap();
        let undo = stage.sqlite.undo(&prepared).unwrap();
        assert_eq!(preview.guarantee, Reversibility::ExactUntil);
        assert_eq!(preview.until, Some(Timestamp(NOW.0 + 30 * 24 * 60 * 60 * 1_000)));
        let shown: Vec<&str> = preview.changes.iter().map(|change| &*change.resource).collect();
        for name in resources {
            let address = format!("sqlite://orders/{name}");
            assert!(shown.contains(&&*address), "{sql}: {shown:?}");
        }
        assert_eq!(dump(&stage), before, "{sql}");
        let ended = stage.execute(sql, prepared).await.ended;
        assert!(matches!(ended, Ended::Answered { tool_error: false, .. }), "{sql}: {ended:?}");
        assert_eq!(stage.sqlite.verify(&undo).await, Ok(TargetState::After), "{sql}");
        assert_ne!(dump(&stage), before, "{sql}");
        let (restored, kept) = stage.revert(&undo).await;
        assert_eq!((restored.len(), kept), (preview.changes.len(), vec![]), "{sql}");
        assert_eq!(dump(&stage), before, "{sql}");
        assert_eq!(stage.sqlite.verify(&undo).await, Ok(TargetState::Before));
        assert_eq!(stage.revert(&undo).await, (vec![], vec![]), "{sql}");
        let found = stage.rows("SELECT count(*) FROM notes WHERE notes MATCH 'two'");
        assert_eq!(found, ["Integer(2)"], "{sql}");
        stage.human("INSERT INTO notes (notes) VALUES ('integrity-check'); PRAGMA integrity_check");
    }
}

#[tokio::test]
async fn a_sqlite_database_is_not_put_back_over_later_work() {
    let stage = Stage::new(MIXED);
    let (_, undo) = stage.act("DROP TABLE b").await;
    stage.human("UPDATE a SET v = 'human' WHERE id = 1");
    let (restored, kept) = stage.revert(&undo).await;
    assert_eq!(restored, Vec::<String>::new());
    assert_eq!(kept[0].0, "sqlite://orders");
    assert_eq!(stage.rows("SELECT count(*) FROM a WHERE v = 'human'"), ["Integer(1)"]);
    stage.human("UPDATE a SET v = 'x' WHERE id = 1; VACUUM");
    let late = Timestamp(undo.until.unwrap().0 + 1);
    let fault = stage.sqlite.revert(&undo, late).await.unwrap_err();
    assert!(matches!(fault, ResourceFault::Impossible(_)), "{fault}");
    let (restored, kept) = stage.revert(&undo).await;
    assert_eq!((restored, kept), (vec!["sqlite://orders/b".to_owned()], vec![]));
}

#[tokio::test]
async fn a_sqlite_database_with_a_write_ahead_log_is_no_other() {
    let stage = Stage::new("PRAGMA journal_mode = WAL;");
    stage.human(MIXED);
    let before = dump(&stage);
    // A reader does not keep a commit out, and goes on seeing what it saw.
    let reader = Connection::open(&stage.path).unwrap();
    reader.execute_batch("BEGIN; SELECT * FROM a;").unwrap();
    let (_, undo) = stage.act("DELETE FROM a; DELETE FROM free").await;
    let (_, dropped) = stage.act("DROP TABLE free").await;
    let seen = reader.query_row("SELECT count(*) FROM a", [], |row| row.get::<_, i64>(0));
    assert_eq!(seen, Ok(2));
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(stage.revert(&dropped).await.1, []);
    assert_eq!(stage.revert(&undo).await.1, []);
    assert_eq!(dump(&stage), before);
}

/// Runs in a process that may not write large files.
#[tokio::test]
#[ignore = "started by `a_sqlite_commit_that_fails_is_in_doubt`"]
async fn commits_on_a_full_disk() {
    let stage = Stage::new("CREATE TABLE t (v); INSERT INTO t VALUES (1)");
    let sql = "INSERT INTO t VALUES (zeroblob(400000))";
    let (_, prepared) = stage.preview(sql).await.unwrap();
    let undo = stage.sqlite.undo(&prepared).unwrap();
    let ended = stage.execute(sql, prepared).await.ended;
    assert!(matches!(ended, Ended::InDoubt { .. }), "{ended:?}");
    // Whoever looks later sees what came of it.
    assert_eq!(stage.sqlite.verify(&undo).await, Ok(TargetState::Before));
    assert_eq!(stage.rows("SELECT v FROM t"), ["Integer(1)"]);
}

#[test]
fn a_sqlite_commit_that_fails_is_in_doubt() {
    let exe = std::env::current_exe().unwrap();
    let script =
        "trap '' XFSZ; ulimit -f 200; exec \"$0\" --exact sqlite::commits_on_a_full_disk --ignored";
    let ran = std::process::Command::new("sh").arg("-c").arg(script).arg(exe).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
async fn what_views_and_rows_that_refer_to_themselves_change_is_seen() {
    let stage = Stage::new(
        "CREATE TABLE tree (id INTEGER PRIMARY KEY, up REFERENCES tree ON DELETE CASCADE);
         CREATE TABLE log (what);
         CREATE VIEW leaves AS SELECT id FROM tree;
         CREATE TRIGGER cut INSTEAD OF DELETE ON leaves BEGIN
             DELETE FROM tree WHERE id = OLD.id;
             INSERT INTO log SELECT count(*) FROM tree;
         END;
         INSERT INTO tree VALUES (1, NULL), (2, 1), (3, 2), (4, NULL), (5, 5);",
    );
    let (preview, undo) = stage.act("DELETE FROM leaves WHERE id = 1 RETURNING id").await;
    let shown: Vec<&str> = preview.changes.iter().map(|change| &*change.resource).collect();
    assert_eq!(
        shown,
        [
            "sqlite://orders/log/rowid=1",
            "sqlite://orders/tree/id=1",
            "sqlite://orders/tree/id=2",
            "sqlite://orders/tree/id=3",
        ]
    );
    assert_eq!(stage.rows("SELECT count(*) FROM tree"), ["Integer(2)"]);
    assert_eq!(stage.revert(&undo).await.1, []);
    assert_eq!(stage.rows("SELECT count(*) FROM tree"), ["Integer(5)"]);
    assert_eq!(stage.rows("SELECT count(*) FROM log"), ["Integer(0)"]);
    let (_, undo) = stage.act("DELETE FROM tree WHERE id = 5").await;
    stage.human("DELETE FROM tree WHERE id = 1");
    assert_eq!(stage.revert(&undo).await, (vec!["sqlite://orders/tree/id=5".to_owned()], vec![]));
}

#[tokio::test]
async fn nothing_in_a_sqlite_database_passes_for_holdpoints_own() {
    let stage = Stage::new("CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    for sql in [
        "CREATE TRIGGER holdpoint_x AFTER INSERT ON t BEGIN DELETE FROM t; END",
        "WITH HoldPoint_0 AS (SELECT 1) INSERT INTO t SELECT 1, 2",
    ] {
        let fault = stage.preview(sql).await.unwrap_err();
        assert!(matches!(&fault, ResourceFault::Refused(why) if why.contains("own")), "{fault}");
    }
    stage.human("CREATE TRIGGER Holdpoint_x AFTER INSERT ON t BEGIN DELETE FROM t; END");
    let fault = stage.preview("INSERT INTO t VALUES (1, 2)").await.unwrap_err();
    assert!(matches!(&fault, ResourceFault::Impossible(_)), "{fault}");
}
