//! What a soak happens on: a store, a gateway, upstream servers with journals, keys.
//! Must only write below its scratch folder, and never leave a process behind.

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Who acts.
pub const AGENTS: [&str; 6] = ["a0", "a1", "a2", "a3", "a4", "a5"];
/// On what: two servers over standard input and output, two over HTTP.
pub const SERVERS: [&str; 4] = ["pipe0", "pipe1", "modern", "legacy"];
/// How many children the gateway has when nobody else is there.
pub const STDIO_SERVERS: usize = 2;

/// Everything that a run happens on.
pub struct Stage {
    programs: PathBuf,
    scratch: PathBuf,
    /// Where agents call: `http://…/mcp`.
    pub url: String,
    /// Where the metrics are.
    pub operations: String,
    /// Each agent's key.
    pub keys: BTreeMap<&'static str, String>,
    gateway: Mutex<Child>,
    /// The servers over HTTP: mode, address, process.
    remote: Mutex<Vec<(&'static str, String, Child)>>,
    acknowledged: Mutex<HashSet<String>>,
    /// Texts that were sent while a stop was acknowledged and not yet released.
    stopped: Mutex<HashSet<String>>,
    reasons: Mutex<BTreeMap<String, u64>>,
    next: AtomicU64,
}

/// What agents and servers have seen so far.
pub struct Seen {
    /// Texts that agents got back.
    pub acknowledged: HashSet<String>,
    /// Texts that servers were given, in their order.
    pub effects: Vec<String>,
    /// Texts that no server may have been given.
    pub stopped: HashSet<String>,
}

// === impl Stage ===

impl Stage {
    /// Starts everything.
    pub async fn build(programs: &Path, scratch: &Path) -> anyhow::Result<Arc<Self>> {
        std::fs::create_dir_all(scratch.join("policies"))?;
        std::fs::create_dir_all(scratch.join("journals"))?;
        for source in holdpoint_policy::starter_pack() {
            std::fs::write(scratch.join("policies").join(source.name), source.text)?;
        }
        let programs = programs.canonicalize()?;
        let scratch = scratch.canonicalize()?;
        let mut remote = Vec::new();
        for mode in ["stateless", "sessions"] {
            let address = free_address()?;
            let child = start_remote(&programs, &scratch, (mode, &address))?;
            remote.push((mode, address, child));
        }
        let addresses: Vec<_> = remote.iter().map(|(_, address, _)| address.as_str()).collect();
        let config = text(&programs, &scratch, &addresses);
        std::fs::write(scratch.join("holdpoint.toml"), config)?;
        let mut keys = BTreeMap::new();
        for agent in AGENTS {
            let mut command = command(&programs, &scratch);
            let made = command.args(["agent", "add", agent, "--owner", "soak"]).output()?;
            let made = json(&made).context("agent add")?;
            keys.insert(agent, made["key"].as_str().context("no key")?.to_owned());
        }
        let (gateway, url, operations) = start_gateway(&programs, &scratch)?;
        Ok(Arc::new(Self {
            programs,
            scratch,
            url,
            operations,
            keys,
            gateway: Mutex::new(gateway),
            remote: Mutex::new(remote),
            acknowledged: Mutex::default(),
            stopped: Mutex::default(),
            reasons: Mutex::default(),
            next: AtomicU64::new(0),
        }))
    }

    /// The store's folder.
    pub fn store(&self) -> PathBuf {
        self.scratch.join("store")
    }

    /// The gateway's process.
    pub fn pid(&self) -> u32 {
        lock(&self.gateway).id()
    }

    /// The product's command line with this store.
    pub fn command(&self) -> Command {
        command(&self.programs, &self.scratch)
    }

    /// A number that nobody else has.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Notes what came of a call: the text came back, or a reason did.
    pub fn note(&self, text: &str, came: Result<(), String>) {
        match came {
            Ok(()) => {
                lock(&self.acknowledged).insert(text.to_owned());
            }
            Err(reason) => *lock(&self.reasons).entry(reason).or_default() += 1,
        }
    }

    /// Notes a text that no server may be given.
    pub fn forbid(&self, text: &str) {
        lock(&self.stopped).insert(text.to_owned());
    }

    /// How often each reason came back instead of a text.
    pub fn reasons(&self) -> BTreeMap<String, u64> {
        lock(&self.reasons).clone()
    }

    /// What agents and servers have seen so far.
    pub fn seen(&self) -> anyhow::Result<Seen> {
        let acknowledged = lock(&self.acknowledged).clone();
        let stopped = lock(&self.stopped).clone();
        let mut effects = Vec::new();
        for entry in std::fs::read_dir(self.scratch.join("journals"))? {
            let journal = std::fs::read_to_string(entry?.path())?;
            effects.extend(journal.lines().map(str::to_owned));
        }
        Ok(Seen { acknowledged, effects, stopped })
    }

    /// Kills a server over HTTP as a power cut would, and starts it again at the same address.
    pub fn crash_remote(&self, which: usize) -> anyhow::Result<()> {
        let mut remote = lock(&self.remote);
        let count = remote.len();
        let (mode, address, child) = remote.get_mut(which % count).context("no server")?;
        child.kill()?;
        child.wait()?;
        *child = start_remote(&self.programs, &self.scratch, (*mode, address.as_str()))?;
        Ok(())
    }

    /// Asks the gateway to read its configuration anew, with another limit.
    pub fn reload(&self, calls: u64) -> anyhow::Result<()> {
        let file = self.scratch.join("holdpoint.toml");
        let config = std::fs::read_to_string(&file)?;
        let lines = config.lines().map(|line| match line.starts_with("agent_calls_max") {
            true => format!("agent_calls_max = {calls}\n"),
            false => format!("{line}\n"),
        });
        // Renamed into place: a command that read half a file would act on another store.
        let scratch = self.scratch.join("holdpoint.new");
        std::fs::write(&scratch, lines.collect::<String>())?;
        std::fs::rename(scratch, file)?;
        let pid = self.pid().to_string();
        ensure!(Command::new("kill").args(["-HUP", &pid]).status()?.success(), "no SIGHUP");
        Ok(())
    }

    /// Changes a policy file without changing what it rules.
    pub fn touch_policies(&self, number: u64) -> anyhow::Result<()> {
        let mut sources = holdpoint_policy::starter_pack();
        let source = sources.pop().context("no starter pack")?;
        let text = format!("// {number}\n{}", source.text);
        // Renamed into place, so that nobody reads half a file.
        let scratch = self.scratch.join("policy.new");
        std::fs::write(&scratch, text)?;
        Ok(std::fs::rename(scratch, self.scratch.join("policies").join(source.name))?)
    }

    /// Ends the gateway as an operator would.
    pub fn end(&self) -> anyhow::Result<()> {
        let mut gateway = lock(&self.gateway);
        let pid = gateway.id().to_string();
        ensure!(Command::new("kill").args(["-TERM", &pid]).status()?.success(), "no SIGTERM");
        let end = Instant::now() + Duration::from_secs(30);
        while Instant::now() < end {
            if let Some(status) = gateway.try_wait()? {
                ensure!(status.success(), "the gateway ended with {status}");
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the gateway does not end")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let mut children: Vec<Child> =
            lock(&self.remote).drain(..).map(|(.., child)| child).collect();
        let mut gateway = lock(&self.gateway);
        for child in children.iter_mut().chain([&mut *gateway]) {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The JSON that a command printed.
pub fn json(output: &Output) -> anyhow::Result<Value> {
    let told = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).with_context(|| format!("{}: {told}", output.status))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn command(programs: &Path, scratch: &Path) -> Command {
    let mut command = Command::new(programs.join("holdpoint"));
    command.arg("--config").arg(scratch.join("holdpoint.toml")).args(["--format", "json"]);
    command.stdin(Stdio::null());
    command
}

fn start_gateway(programs: &Path, scratch: &Path) -> anyhow::Result<(Child, String, String)> {
    let log = std::fs::File::create(scratch.join("serve.log"))?;
    let mut command = command(programs, scratch);
    // Refused calls are what is asked for here: a line for each would fill the disk.
    command.arg("serve").env("HOLDPOINT_LOG", "error").stdout(Stdio::piped()).stderr(log);
    let mut child = command.spawn().context("holdpoint serve")?;
    let line = first_line(&mut child)?;
    let told: Value = serde_json::from_str(&line).context("serve did not start")?;
    let place = |name: &str| told[name].as_str().map(str::to_owned).context("no address");
    Ok((child, place("url")?, place("operations")?))
}

fn start_remote(
    programs: &Path,
    scratch: &Path,
    (mode, address): (&str, &str),
) -> anyhow::Result<Child> {
    let mut command = Command::new(programs.join("bench-echo"));
    command.arg(mode).arg(scratch.join("journals").join(mode)).arg(address);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().context("bench-echo")?;
    first_line(&mut child)?;
    Ok(child)
}

fn first_line(child: &mut Child) -> anyhow::Result<String> {
    use std::io::BufRead as _;
    let mut line = String::new();
    let output = child.stdout.take().context("no output")?;
    std::io::BufReader::new(output).read_line(&mut line)?;
    ensure!(!line.is_empty(), "it ended before it served");
    Ok(line)
}

/// An address that was free a moment ago: a server that comes back must be where it was.
fn free_address() -> anyhow::Result<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.to_string())
}

fn text(programs: &Path, scratch: &Path, addresses: &[&str]) -> String {
    let (scratch, echo) = (scratch.display(), programs.join("bench-echo"));
    let mut text = format!(
        "[store]\npath = \"{scratch}/store\"\n[policies]\npath = \"{scratch}/policies\"\n\
         [listen]\nhttp = \"127.0.0.1:0\"\noperations = \"127.0.0.1:0\"\n\
         [limits]\nstop_grace_ms = 500\nagent_calls_max = 64\n[team.soak]\non_call = \"soak\"\n"
    );
    for agent in AGENTS {
        text.push_str(&format!(
            "[agent.{agent}]\nowner = \"soak\"\n\
             grants = [{{ class = \"read\", tools = [\"*\"] }}]\n"
        ));
    }
    let rest = "environment = \"dev\"\nread = [\"*\"]\ntimeout_ms = 5000\n";
    for number in 0..STDIO_SERVERS {
        text.push_str(&format!(
            "[server.pipe{number}]\n\
             command = [\"{}\", \"stdio\", \"{scratch}/journals/pipe{number}\"]\n{rest}",
            echo.display()
        ));
    }
    for (name, address) in ["modern", "legacy"].into_iter().zip(addresses) {
        text.push_str(&format!("[server.{name}]\nurl = \"http://{address}/mcp\"\n{rest}"));
    }
    text
}
