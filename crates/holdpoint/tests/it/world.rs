//! One Holdpoint in a folder of its own: configuration, store, and the real binary.

use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use tempfile::TempDir;

/// A folder with a configuration.
pub struct World {
    dir: TempDir,
}

/// A running `holdpoint serve`; killed when dropped.
pub struct Serve {
    child: Child,
    /// Where it listens: `http://…/mcp`.
    pub url: String,
}

/// Where the npm packages are, installed once from the lock file.
static NPM: LazyLock<PathBuf> = LazyLock::new(install_npm);

// === impl World ===

impl World {
    /// A folder with this `holdpoint.toml` and an empty `files` folder. `${files}` in it becomes that
    /// folder's path, `${npm:NAME}` the program of an npm server.
    pub fn new(config: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("hp").tempdir().unwrap();
        std::fs::create_dir(dir.path().join("files")).unwrap();
        let world = Self { dir };
        world.write_config(config);
        world
    }

    /// Replaces the configuration.
    pub fn write_config(&self, config: &str) {
        let files = self.files().display().to_string();
        let mut text = config.replace("${files}", &files);
        for name in ["filesystem", "memory", "everything"] {
            let program = npm_server(name).display().to_string();
            text = text.replace(&format!("${{npm:{name}}}"), &program);
        }
        std::fs::write(self.path().join("holdpoint.toml"), text).unwrap();
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The folder that agents may work in.
    pub fn files(&self) -> PathBuf {
        self.path().join("files")
    }

    /// The store's folder.
    pub fn store(&self) -> PathBuf {
        self.path().join(".holdpoint")
    }

    /// The binary with this world's configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdpoint"));
        command.current_dir(self.path()).env_remove("HOLDPOINT_CONFIG").env("NO_COLOR", "1");
        command.arg("--config").arg(self.path().join("holdpoint.toml")).args(arguments);
        command
    }

    /// Runs the binary to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs the binary and demands success; gives standard output.
    pub fn must(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {}\n{out}\n{err}", output.status);
        out
    }

    /// As [`Self::must`], with the answer as JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--format", "json"];
        all.extend(arguments);
        serde_json::from_str(&self.must(&all)).unwrap()
    }

    /// Makes a key for a declared agent.
    pub fn key(&self, agent: &str) -> String {
        let answer = self.json(&["agent", "add", agent, "--owner", "platform"]);
        answer["key"].as_str().unwrap().to_owned()
    }

    /// Starts `holdpoint serve` and waits until it answers.
    pub fn serve(&self) -> Serve {
        let mut command = self.command(&["serve", "--format", "json"]);
        let log = std::fs::File::create(self.path().join("serve.log")).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Ok(answer) = serde_json::from_str::<Value>(&line) else {
            let log = std::fs::read_to_string(self.path().join("serve.log")).unwrap();
            panic!("serve did not start: {line}\n{log}");
        };
        Serve { child, url: answer["url"].as_str().unwrap().to_owned() }
    }

    /// Every record of the ledger as JSON, oldest first.
    pub fn records(&self) -> Vec<Value> {
        let answer = self.json(&["log", "--limit", "1000000"]);
        answer["records"].as_array().unwrap().clone()
    }
}

// === impl Serve ===

impl Serve {
    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as an operator would, and waits.
    pub fn end(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }

    /// Ends it as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program of an npm server.
pub fn npm_server(name: &str) -> PathBuf {
    NPM.join(format!("@modelcontextprotocol/server-{name}/dist/index.js"))
}

/// Bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn install_npm() -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests-npm").canonicalize().unwrap();
    let modules = dir.join("node_modules");
    // npm writes this file last.
    if !modules.join(".package-lock.json").exists() {
        let output = Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&dir);
        let output = output_of(output);
        assert!(output.status.success(), "npm ci: {}", text(&output.stderr));
    }
    modules
}

fn output_of(command: &mut Command) -> Output {
    match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(fault) => panic!("`npm` is needed for the tests with real MCP servers: {fault}"),
    }
}
