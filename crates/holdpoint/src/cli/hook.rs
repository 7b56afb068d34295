//! `holdpoint hook`: answers the hooks of a coding agent's host, one event for each process.
//!
//! INVARIANT: whatever goes wrong ends with exit code 2, which is what blocks a call; no other code
//! does. Must never wait for people, nor longer than [`PATIENCE`].

use super::{Exit, Globals, WrongUsage, complain, operator};
use crate::gateway::runtime_spec;
use anyhow::{Context as _, bail};
use holdpoint_server::doors::hook::{self, BYTES_MAX, HookAsk, Host};
use holdpoint_server::doors::local::Kind;
use holdpoint_server::runtime::Runtime;
use holdpoint_types::AgentName;
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::time::Duration;

/// How long all of it may take. Hosts let a call pass whose hook is later than they wait for.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a `serve` may take to answer.
const SERVE_PATIENCE: Duration = Duration::from_secs(15);
/// The exit code that blocks a call.
const BLOCKS: i32 = 2;

/// Decide a call that a coding agent's host executes itself. Reads the host's event from standard
/// input and answers in its words; exit code 2 blocks the call. Register it as `holdpoint hook
/// --agent NAME || exit 2` for the host's events before and after a call.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Who acts.
    #[arg(long, value_name = "NAME")]
    agent: AgentName,
    /// Whose hook it is. A server with this `host` must be declared.
    #[arg(long, value_enum, default_value_t = HostName::ClaudeCode)]
    host: HostName,
}

/// A host, as it is named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum HostName {
    /// Claude Code.
    ClaudeCode,
}

// === impl HostName ===

impl From<HostName> for Host {
    fn from(name: HostName) -> Self {
        match name {
            HostName::ClaudeCode => Self::ClaudeCode,
        }
    }
}

/// Runs `holdpoint hook`. Never fails otherwise than by blocking the call.
///
/// # Errors
/// Never: what goes wrong is told on standard error.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    block_when_broken();
    match answer(args, globals).and_then(|answer| write(&answer)) {
        Ok(()) => Ok(Exit::Ok),
        Err(fault) => {
            complain(&fault.context("the call is blocked"));
            Ok(Exit::Usage)
        }
    }
}

/// Ends the process so that the call is blocked if something panics or takes too long.
fn block_when_broken() {
    std::panic::set_hook(Box::new(|panic| {
        operator::note(&format!("the call is blocked: {panic}"));
        std::process::exit(BLOCKS);
    }));
    std::thread::spawn(|| {
        std::thread::sleep(PATIENCE);
        operator::note(&format!("the call is blocked: no decision within {PATIENCE:?}"));
        std::process::exit(BLOCKS);
    });
}

fn answer(args: &Args, globals: &Globals) -> anyhow::Result<Value> {
    let said = read()?;
    // A project may bring a configuration of its own: the agent could have written that.
    let config = globals.load_unattended()?;
    let host = Host::from(args.host);
    let Some(server) = config.hosts.get(&host).cloned() else {
        let host = host.as_str();
        let wrong = format!("no server is declared with `host = \"{host}\"`");
        return Err(WrongUsage(wrong).into());
    };
    let (agent, bytes_max) = (args.agent.clone(), config.limits.message_bytes_max);
    let ask = HookAsk { agent, host, server, bytes_max, said };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        if let Some(answer) = hook::ask_serve(&config.store, &ask, SERVE_PATIENCE).await? {
            return Ok(answer);
        }
        let (spec, rest) = runtime_spec(config, Kind::Hook)?;
        let resources = rest.host_resources()?;
        let runtime = Runtime::start(spec).await?;
        runtime.governor().replace_resources(resources);
        let answer = hook::answer(runtime.governor(), ask).await;
        runtime.shut_down().await;
        Ok(answer?)
    })
}

fn read() -> anyhow::Result<String> {
    let limit = u64::try_from(BYTES_MAX)?.saturating_add(1);
    let mut bytes = Vec::new();
    std::io::stdin().take(limit).read_to_end(&mut bytes).context("standard input")?;
    if bytes.len() > BYTES_MAX {
        bail!("what the host said is larger than {BYTES_MAX} bytes");
    }
    String::from_utf8(bytes).context("what the host said is not UTF-8")
}

/// Writes the answer, all of it: whoever sees a part must not see success.
fn write(answer: &Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let text = format!("{answer}\n");
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("standard output")
}
