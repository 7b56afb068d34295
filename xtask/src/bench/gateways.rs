//! Stores, configurations and gateways for a run. Must only write below the scratch folder.

use super::Places;
use super::process::Served;
use anyhow::{Context, bail};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// How many grants one agent of a large configuration has.
const GRANTS_EACH: usize = 100;

/// What a configuration holds.
#[derive(Default)]
pub(super) struct Config {
    /// The URL of the server `echo`; none for a
    /// command, as for `wrap`.
    pub(super) upstream: Option<String>,
    /// How many grants there are besides the caller's.
    pub(super) grants: usize,
    /// How many more agents may call: `caller-0` and so on.
    pub(super) callers: usize,
}

/// The folder in which stores and configurations are made.
pub(super) struct Stores {
    scratch: PathBuf,
}

// === impl Stores ===

impl Stores {
    pub(super) fn new(scratch: &Path) -> Self {
        Self { scratch: scratch.to_owned() }
    }

    /// Where the store called `name` is.
    pub(super) fn store(&self, name: &str) -> String {
        self.scratch.join(name).to_string_lossy().into_owned()
    }

    /// Writes the configuration of the store called `name`, and gives its path.
    pub(super) fn configure(&self, name: &str, config: &Config) -> anyhow::Result<String> {
        let path = self.scratch.join(format!("{name}.toml"));
        std::fs::write(&path, text(&self.store(name), config)?)?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// Issues a key for each of `agents` in the store called `name`: one a line.
    pub(super) fn keys(
        &self,
        places: &Places,
        name: &str,
        agents: impl Iterator<Item = String>,
    ) -> anyhow::Result<String> {
        let mut issue = places.program("bench-inside");
        issue.args(["keys", &self.store(name)]).args(agents);
        let output = issue.output()?;
        if !output.status.success() {
            bail!("no key: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }
}

/// Starts the product.
pub(super) fn serve(places: &Places, config: &str) -> anyhow::Result<Served> {
    let mut product = places.program("holdpoint");
    product.args(["--config", config, "--format", "json", "serve"]);
    Served::start(product).context("holdpoint serve")
}

fn text(store: &str, config: &Config) -> anyhow::Result<String> {
    let mut text = format!(
        "[store]\npath = \"{store}\"\n[listen]\nhttp = \"127.0.0.1:0\"\n[team.bench]\n\
         [agent.caller]\nowner = \"bench\"\n\
         grants = [{{ class = \"read\", tools = [\"echo__*\"] }}]\n\
         [server.echo]\nenvironment = \"dev\"\nread = [\"echo\"]\n"
    );
    match &config.upstream {
        Some(url) => writeln!(text, "url = \"{url}\"")?,
        None => writeln!(text, "command = [\"bench-echo\", \"stdio\"]")?,
    }
    for agent in 0..config.callers {
        writeln!(text, "[agent.caller-{agent}]\nowner = \"bench\"")?;
        writeln!(text, "grants = [{{ class = \"read\", tools = [\"echo__*\"] }}]")?;
    }
    for agent in 0..config.grants / GRANTS_EACH {
        let tools = (0..GRANTS_EACH).map(|tool| format!("\"echo__{agent}_{tool}_*\""));
        let tools = tools.collect::<Vec<_>>().join(", ");
        writeln!(text, "[agent.agent-{agent}]\nowner = \"bench\"")?;
        writeln!(text, "grants = [{{ class = \"read\", tools = [{tools}] }}]")?;
    }
    Ok(text)
}
