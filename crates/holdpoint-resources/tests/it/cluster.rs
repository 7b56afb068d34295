//! A real PostgreSQL for tests, and short ways to ask it.

use super::permits::{NOW, permit};
use holdpoint_resources::resource::{
    Executed, Forward, Preview, Proposed, Resource as _, ResourceFault, Reverting, Undo,
};
use holdpoint_resources::{Cancels, Ended, SecretText};
use holdpoint_resources::{Postgres, PostgresLimits, PostgresPrepared, PostgresSpec};
use holdpoint_types::ToolRef;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// A server of its own; stopped when the last test that uses it is done.
pub struct Cluster {
    pub dir: TempDir,
}

/// A database of one test.
pub struct Database {
    pub cluster: Arc<Cluster>,
    pub name: String,
    port: u16,
}

/// What the tests ask for.
pub const LIMITS: PostgresLimits = PostgresLimits {
    lock_timeout: std::time::Duration::from_millis(300),
    statement_timeout: std::time::Duration::from_secs(20),
    rows_max: 500,
    preview_bytes_max: 1 << 20,
    hold_open_max: std::time::Duration::from_secs(60),
    trash_keep: std::time::Duration::from_secs(3600),
};

// === impl Cluster ===

impl Cluster {
    /// Starts one with the settings that `prepare` gives.
    pub fn start(prepare: impl FnOnce(&Self) -> String) -> Self {
        let dir = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
        // It refuses to run as root, so the folder must be open to whom it runs as.
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        let cluster = Self { dir };
        let (data, socket) = (cluster.data(), cluster.socket());
        let options = ["-D", &data, "-A", "trust", "-U", "root", "-N", "--locale=C.UTF-8"];
        cluster.must("initdb", &options);
        let settings = prepare(&cluster);
        let options = format!(
            "-c listen_addresses='' -c fsync=off -c max_connections=200 -k {socket} {settings}"
        );
        let log = format!("{data}/log");
        cluster.must("pg_ctl", &["-D", &data, "-l", &log, "-o", &options, "-w", "start"]);
        cluster
    }

    fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let running = shared.upgrade().unwrap_or_else(|| Arc::new(Self::start(|_| String::new())));
        *shared = Arc::downgrade(&running);
        running
    }

    /// The folder of its socket.
    pub fn socket(&self) -> String {
        self.dir.path().display().to_string()
    }

    /// The folder of its data.
    pub fn data(&self) -> String {
        format!("{}/data", self.socket())
    }

    /// Runs one of its programs; as its own user if we are root.
    pub fn must(&self, program: &str, arguments: &[&str]) {
        let known = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let known = known.map(|version| version.path().join("bin").join(program));
        let program = known.into_iter().find(|path| path.exists()).unwrap_or(program.into());
        let root = rustix::process::getuid().is_root();
        let mut command = Command::new(if root { "runuser".into() } else { program.clone() });
        if root {
            command.args(["-u", "postgres", "--"]).arg(&program);
        }
        let run = command.current_dir(self.dir.path()).args(arguments);
        let run = run.stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(run.is_ok_and(|run| run.success()), "this test needs PostgreSQL: {program:?}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.must("pg_ctl", &["-D", &self.data(), "-m", "immediate", "-w", "stop"]);
    }
}

// === impl Database ===

impl Database {
    /// A new database with an owner `app`, who is no superuser, and this in it.
    pub async fn new(setup: &str) -> Self {
        Self::on_port(Cluster::shared(), 5432, setup).await
    }

    /// The same on a given server.
    pub async fn on_port(cluster: Arc<Cluster>, port: u16, setup: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("shop{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let database = Self { cluster, name, port };
        let root = database.connect("postgres", "root").await;
        let role = "DO $$ BEGIN CREATE ROLE app LOGIN; EXCEPTION WHEN duplicate_object OR \
                    unique_violation THEN NULL; END $$";
        root.batch_execute(role).await.unwrap();
        let create = format!("CREATE DATABASE {} OWNER app", database.name);
        root.batch_execute(&create).await.unwrap();
        database.root().await.batch_execute("GRANT ALL ON SCHEMA public TO app").await.unwrap();
        database.run(setup).await;
        database
    }

    async fn connect(&self, name: &str, role: &str) -> Client {
        let url =
            format!("host={} port={} user={role} dbname={name}", self.cluster.socket(), self.port);
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// A connection of the superuser.
    pub async fn root(&self) -> Client {
        self.connect(&self.name, "root").await
    }

    /// A connection of another writer.
    pub async fn client(&self) -> Client {
        self.connect(&self.name, "app").await
    }

    /// Runs SQL as the owner.
    pub async fn run(&self, sql: &str) {
        self.client().await.batch_execute(sql).await.unwrap();
    }

    /// The first value that a query gives.
    pub async fn value(&self, sql: &str) -> String {
        one(&self.client().await, sql).await
    }

    /// The resource, as the owner.
    pub fn postgres(&self) -> Postgres {
        self.postgres_as("app", LIMITS)
    }

    /// The resource, as somebody, with limits.
    pub fn postgres_as(&self, role: &str, limits: PostgresLimits) -> Postgres {
        let socket = self.cluster.socket().replace('/', "%2F");
        let url = SecretText::new(format!("postgresql://{role}@{socket}/{}", self.name));
        let (server, place) = ("db".parse().unwrap(), "pg://shop".to_owned());
        Postgres::new(PostgresSpec { server, place, url, limits }).unwrap()
    }
}

// === functions ===

/// The first value that a query gives; empty for NULL or no row.
pub async fn one(client: &Client, sql: &str) -> String {
    let messages = client.simple_query(sql).await.unwrap();
    let mut rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    rows.next().unwrap_or_default().to_owned()
}

/// All rows of these tables, by table and the text of the whole row.
pub async fn dump(client: &Client, tables: &[&str]) -> BTreeMap<String, Vec<String>> {
    let mut dumped = BTreeMap::new();
    for table in tables {
        let sql = format!("SELECT whole::text FROM {table} whole ORDER BY 1");
        let messages = client.simple_query(&sql).await.unwrap();
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        dumped.insert((*table).to_owned(), rows.collect());
    }
    dumped
}

pub fn tool(name: &str) -> ToolRef {
    ToolRef::new("db".parse().unwrap(), name).unwrap()
}

/// The preview of `sql_execute`.
pub async fn preview(
    postgres: &Postgres,
    sql: &str,
) -> Result<(Preview, PostgresPrepared), ResourceFault> {
    preview_with(postgres, "sql_execute", &json!({ "sql": sql })).await
}

pub async fn preview_with(
    postgres: &Postgres,
    name: &str,
    parameters: &Value,
) -> Result<(Preview, PostgresPrepared), ResourceFault> {
    let tool = tool(name);
    let proposed = Proposed { tool: &tool, parameters, effects: &[], now: NOW };
    postgres.preview(proposed).await.map(|found| found.expect("a tool of this server"))
}

/// Executes what `sql_execute` with `sql` prepared.
pub async fn execute(postgres: &Postgres, sql: &str, prepared: PostgresPrepared) -> Executed {
    execute_with(postgres, ("sql_execute", &json!({ "sql": sql })), prepared).await
}

pub async fn execute_with(
    postgres: &Postgres,
    (name, parameters): (&str, &Value),
    prepared: PostgresPrepared,
) -> Executed {
    let permit = permit(&tool(name), parameters);
    let around = (Cancels::default(), nowhere());
    postgres.execute(permit, prepared, around).await
}

/// Nothing is ever forwarded: the tools are served here.
pub fn nowhere() -> Forward {
    Box::new(|_| Box::pin(async { unreachable!("nothing is forwarded") }))
}

/// Previews and executes; what can be taken back.
pub async fn change(postgres: &Postgres, sql: &str) -> (Preview, Option<Undo>) {
    let (preview, prepared) = preview(postgres, sql).await.unwrap();
    let undo = postgres.undo(&prepared);
    must(execute(postgres, sql, prepared).await);
    (preview, undo)
}

/// Prepares a revert.
pub async fn reverting(
    postgres: &Postgres,
    undo: &Undo,
) -> Result<Reverting<PostgresPrepared>, ResourceFault> {
    postgres.revert(undo, NOW).await
}

/// Executes a revert.
pub async fn revert(postgres: &Postgres, undo: &Undo) -> Reverting<()> {
    let Reverting { preview, conflicts, prepared } = reverting(postgres, undo).await.unwrap();
    let call = ("holdpoint_revert", &json!({}));
    must(execute_with(postgres, call, prepared).await);
    Reverting { preview, conflicts, prepared: () }
}

/// The result of what was executed, which must have worked.
pub fn must(executed: Executed) -> Value {
    match executed.ended {
        Ended::Answered { body, tool_error: false } => result(&body),
        other => panic!("{other:?}"),
    }
}

pub fn result(body: &holdpoint_resources::mcp::Outcome) -> Value {
    match body {
        holdpoint_resources::mcp::Outcome::Result(raw) => serde_json::from_str(raw.get()).unwrap(),
        holdpoint_resources::mcp::Outcome::Error(raw) => panic!("{raw}"),
    }
}
