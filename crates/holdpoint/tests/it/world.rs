//! One Holdpoint in a folder of its own: configuration, store, and the real binary.

use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};
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
    /// Where health and metrics are, if the configuration wants them: `http://…`.
    pub operations: Option<String>,
}

/// The beginning of a configuration with the small server of `tests/servers/peer.mjs`, whose tools
/// read, but for `touch` and `append`, which write.
pub const PEER: &str = r#"
[listen]
http = "127.0.0.1:0"

[limits]
stop_grace_ms = 300
message_bytes_max = 65536

[team.platform]
on_call = "platform on-call"

[agent.coder]
owner = "platform"
grants = [{ class = "read", tools = ["*"] }, { class = "write", tools = ["*"] }]

[server.peer]
command = ["node", "${peer}"]
environment = "dev"
timeout_ms = 3000
read = ["*"]
write = ["touch", "append"]
tool.touch.resource = "file://{/path}"
"#;

/// How long anything may take that a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Fails all tests that need Node.js if there is none.
static NODE: LazyLock<()> = LazyLock::new(|| {
    let version = Command::new("node").arg("--version").output();
    assert!(version.is_ok_and(|run| run.status.success()), "these tests need `node` and `npm`");
});

/// Where the npm packages are, installed once from the lock file.
static NPM: LazyLock<PathBuf> = LazyLock::new(|| install_npm("tests-npm"));

/// Where the authorization server and a client for it are.
static NPM_OAUTH: LazyLock<PathBuf> = LazyLock::new(|| install_npm("tests-npm/oauth"));

/// Where the coding agent is whose hooks are answered.
static NPM_CLAUDE: LazyLock<PathBuf> = LazyLock::new(|| install_npm("tests-npm/claude"));

/// Where the npm client programs are, with their packages.
static NPM_CLIENTS: LazyLock<PathBuf> = LazyLock::new(|| install_npm("tests-npm/clients"));

/// Python with the packages of its tests; `None` if there is no Python.
static PYTHON: LazyLock<Option<Python>> = LazyLock::new(install_python);

/// Python and the programs for it.
#[derive(Clone)]
pub struct Python {
    /// Its interpreter.
    pub program: PathBuf,
    /// The folder of the programs.
    pub tests: PathBuf,
}

// === impl World ===

impl World {
    /// A folder with this `holdpoint.toml` and an empty `files` folder. `${files}` in it becomes
    /// that folder's path, `${peer}` the program of the small server, `${asker}` that of the one
    /// that asks, `${tasker}` that of the one with tasks, `${npm:NAME}` the program of an npm server, `${python}` Python, `${tests-py}` its
    /// programs.
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
        text = text.replace("${peer}", &peer().display().to_string());
        text = text.replace("${asker}", &asker().display().to_string());
        text = text.replace("${tasker}", &tasker().display().to_string());
        for name in ["filesystem", "memory", "everything"] {
            let place = format!("${{npm:{name}}}");
            if text.contains(&place) {
                text = text.replace(&place, &npm_server(name).display().to_string());
            }
        }
        if text.contains("${python}") {
            let python = python().expect("only with Python");
            text = text.replace("${python}", &python.program.display().to_string());
            text = text.replace("${tests-py}", &python.tests.display().to_string());
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
        let mut command = self.command(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        // What should end and does not is killed, so that its test fails instead of standing still.
        let (ended, end) = std::sync::mpsc::channel::<()>();
        let pid = child.id().to_string();
        let watch = std::thread::spawn(move || {
            if end.recv_timeout(10 * PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                Command::new("kill").args(["-9", &pid]).status().unwrap();
            }
        });
        let output = child.wait_with_output().unwrap();
        drop(ended);
        watch.join().unwrap();
        output
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
        self.serve_by(self.command(&["serve", "--format", "json"]))
    }

    /// As [`Self::serve`], by a command that ends up as one.
    pub fn serve_by(&self, mut command: Command) -> Serve {
        let log = std::fs::File::create(self.path().join("serve.log")).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Ok(answer) = serde_json::from_str::<Value>(&line) else {
            let log = std::fs::read_to_string(self.path().join("serve.log")).unwrap();
            panic!("serve did not start: {line}\n{log}");
        };
        let url = answer["url"].as_str().unwrap().to_owned();
        Serve { child, url, operations: answer["operations"].as_str().map(str::to_owned) }
    }

    /// What the last `serve` logged.
    pub fn serve_log(&self) -> String {
        text(&std::fs::read(self.path().join("serve.log")).unwrap())
    }

    /// The processes whose working folder is this world's and whose command line has `part`.
    pub fn processes(&self, part: &str) -> Vec<u32> {
        let here = self.path().canonicalize().unwrap();
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let ours = pids.filter(|pid| {
            let cwd = std::fs::read_link(format!("/proc/{pid}/cwd"));
            cwd.is_ok_and(|cwd| cwd == here) && command_line(*pid).contains(part)
        });
        ours.collect()
    }

    /// Every record of the ledger as JSON, oldest first.
    pub fn records(&self) -> Vec<Value> {
        let answer = self.json(&["log", "--limit", "1000000"]);
        answer["records"].as_array().unwrap().clone()
    }
}

// === impl Serve ===

impl Serve {
    /// Where it listens: host and port.
    pub fn address(&self) -> &str {
        self.url.split_once("://").unwrap().1.trim_end_matches("/mcp")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits until it has ended by itself; gives the exit code.
    pub fn wait(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Ends it as an operator would, and waits.
    pub fn end(mut self) {
        self.signal(rustix::process::Signal::TERM);
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }

    /// Ends it as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The same, while others still talk to it.
    pub fn kill_now(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks until the answer is there; fails after [`PATIENCE`].
pub fn until<T>(what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        assert!(Instant::now() < end, "this never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How a process was started, as everybody on this machine can read.
pub fn command_line(pid: u32) -> String {
    text(&std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).replace('\0', " ")
}

/// The program of the small server that is hostile by tool name.
pub fn peer() -> PathBuf {
    LazyLock::force(&NODE);
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/peer.mjs")
}

/// The program of the server that asks its callers, in the era that its argument names.
pub fn asker() -> PathBuf {
    LazyLock::force(&NODE);
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/asker.mjs")
}

/// The program of the server with tasks, in the era that its argument names.
pub fn tasker() -> PathBuf {
    LazyLock::force(&NODE);
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/tasker.mjs")
}

/// The program of an npm server.
pub fn npm_server(name: &str) -> PathBuf {
    LazyLock::force(&NODE);
    NPM.join(format!("@modelcontextprotocol/server-{name}/dist/index.js"))
}

/// The program of the coding agent, and that of a model that plays by a script.
pub fn claude_and_model() -> (PathBuf, PathBuf) {
    LazyLock::force(&NODE);
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/model.mjs");
    (NPM_CLAUDE.join(".bin/claude"), model)
}

/// The npm packages with the authorization server.
pub fn oauth_modules() -> PathBuf {
    LazyLock::force(&NODE);
    NPM_OAUTH.clone()
}

/// A client program of `tests-npm/clients`.
pub fn npm_client(name: &str) -> PathBuf {
    LazyLock::force(&NODE);
    NPM_CLIENTS.with_file_name(name)
}

/// Python for the tests; `None` if there is none, which is a failure where CI is set.
pub fn python() -> Option<Python> {
    PYTHON.clone()
}

/// Bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn install_npm(folder: &str) -> PathBuf {
    let dir = repository().join(folder);
    let modules = dir.join("node_modules");
    // npm writes this file last.
    if !modules.join(".package-lock.json").exists() {
        let mut npm = Command::new("npm");
        let output = output_of(npm.args(["ci", "--no-audit", "--no-fund"]).current_dir(&dir));
        assert!(output.status.success(), "npm ci: {}", text(&output.stderr));
    }
    modules
}

/// Says what is left out, past the harness, which keeps what tests that pass have printed.
pub fn left_out(why: &str) {
    let _ = writeln!(std::io::stderr(), "left out: {why}");
}

fn install_python() -> Option<Python> {
    let tests = repository().join("tests-py");
    let (venv, wanted) = (tests.join(".venv"), tests.join("requirements.txt"));
    let python = Python { program: venv.join("bin/python"), tests };
    // Written last: what is installed.
    let installed = venv.join("installed.txt");
    let same = std::fs::read(&installed).is_ok_and(|had| had == std::fs::read(&wanted).unwrap());
    if same {
        return Some(python);
    }
    let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv).output();
    if !made.is_ok_and(|made| made.status.success()) {
        let lacks = "these tests need `python3` with `venv` (on Debian: python3-venv)";
        assert!(std::env::var_os("CI").is_none(), "{lacks}");
        left_out(&format!("Python clients and servers: {lacks}"));
        return None;
    }
    let mut pip = Command::new(&python.program);
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--requirement"]).arg(&wanted);
    let output = pip.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "pip install: {}", text(&output.stderr));
    std::fs::copy(&wanted, &installed).unwrap();
    Some(python)
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn output_of(command: &mut Command) -> Output {
    match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(fault) => panic!("`npm` is needed for the tests with real MCP servers: {fault}"),
    }
}
