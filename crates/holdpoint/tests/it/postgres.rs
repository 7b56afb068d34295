//! A real PostgreSQL for tests.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A PostgreSQL server of its own, with a database `shop`; stopped when dropped.
pub struct Postgres {
    dir: TempDir,
}

// === impl Postgres ===

impl Postgres {
    /// Starts one.
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
        // It refuses to run as root, so the folder must be open to whom it runs as.
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        let postgres = Self { dir };
        let data = postgres.data();
        postgres.must("initdb", &["-D", &data, "-A", "trust", "-U", "shop", "-N"]);
        let options = format!("-c listen_addresses='' -c fsync=off -k {}", postgres.host());
        let log = format!("{data}/log");
        postgres.must("pg_ctl", &["-D", &data, "-l", &log, "-o", &options, "-w", "start"]);
        let create = ["-h", &postgres.host(), "-U", "shop", "shop"];
        postgres.must("createdb", &create);
        postgres
    }

    /// The folder of its socket: what `PGHOST` wants.
    pub fn host(&self) -> String {
        self.dir.path().display().to_string()
    }

    /// Runs SQL as the owner of the database.
    pub fn run(&self, sql: &str) {
        self.must("psql", &["-Xq", "-h", &self.host(), "-U", "shop", "shop", "-c", sql]);
    }

    /// The one value that SQL asks for.
    pub fn ask(&self, sql: &str) -> String {
        let run = Command::new("psql")
            .args(["-XqAt", "-h", &self.host(), "-U", "shop", "shop", "-c", sql])
            .output()
            .unwrap();
        assert!(run.status.success(), "{sql}: {}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8_lossy(&run.stdout).trim().to_owned()
    }

    fn data(&self) -> String {
        format!("{}/data", self.host())
    }

    /// Runs one of its programs; as its own user if we are root.
    fn must(&self, program: &str, arguments: &[&str]) {
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

impl Drop for Postgres {
    fn drop(&mut self) {
        self.must("pg_ctl", &["-D", &self.data(), "-m", "immediate", "stop"]);
    }
}
