//! `holdpoint init`: writes a first configuration, and leads an existing MCP client through
//! Holdpoint. Must not overwrite what it was not told to, nor copy a secret.

mod client;
mod files;
mod template;

use super::{Exit, Format, Globals, WrongUsage, answer};
use crate::config;
use anyhow::Context as _;
use client::{Client, Endpoint, Imported, Led};
use holdpoint_types::{AgentName, TeamName};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Write a first configuration, or import an existing `mcpServers` file.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Import the servers of this client configuration, and lead it through Holdpoint. The old
    /// file is kept beside it.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// The folder in which `holdpoint.toml` is written.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// The name of the first agent.
    #[arg(long, value_name = "NAME", default_value = "coder")]
    agent: AgentName,
    /// The name of the team that owns it.
    #[arg(long, value_name = "NAME", default_value = "platform")]
    team: TeamName,
    /// Also write the starter pack into a `policies` folder, to be changed there; where there is a
    /// `holdpoint.toml` already, nothing but that.
    #[arg(long)]
    policies: bool,
    /// Overwrite files that exist; the old ones are kept beside them.
    #[arg(long)]
    force: bool,
}

/// What was done, in the order in which it was done.
#[derive(Debug, Default)]
struct Done {
    written: Vec<PathBuf>,
    backup: Option<PathBuf>,
    replaced: Vec<PathBuf>,
    /// Servers that only the replaced configuration declares.
    dropped: Vec<String>,
    client: Option<(PathBuf, Client)>,
    /// The configuration was there already, and is as it was.
    policies_only: bool,
}

/// Runs `holdpoint init`.
///
/// # Errors
/// When a file exists already, or cannot be read or written.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    let (program, listed) = (program_name(), args.dir.join(config::FILE_NAME));
    let done = init(args, &program)?;
    match globals.format {
        Format::Text => answer(&done.to_text(&listed))?,
        Format::Json => answer(&format!("{:#}\n", done.to_json()))?,
    }
    Ok(Exit::Ok)
}

/// Plans everything, then writes: a fault in the plan leaves every file as it was.
fn init(args: &Args, program: &str) -> anyhow::Result<Done> {
    let file = std::path::absolute(&args.dir)?.join(config::FILE_NAME);
    if args.policies && args.from.is_none() && !args.force && file.is_file() {
        return add_policies(args);
    }
    let mut client = match &args.from {
        None => None,
        Some(from) => Some((from.clone(), read_client(from, &file)?)),
    };
    let servers = client.as_ref().map(|(_, client)| client.servers.as_slice()).unwrap_or_default();
    let text = template::config_text(args, servers);
    let (checked, report) = config::check(config::FILE_NAME, &file, &text);
    let Some(checked) = checked else {
        anyhow::bail!("{}", report.render(config::Colour::Never));
    };
    let mut outputs = vec![(args.dir.join(config::FILE_NAME), text)];
    if args.policies {
        outputs.extend(starter_pack(args));
    }
    refuse_to_overwrite(args, &outputs)?;
    let mut done = Done { dropped: dropped(&file, &checked), ..Done::default() };
    if let Some((from, client)) = &mut client
        && client.lead_through(program, &file, args.agent.as_str())
    {
        done.backup = Some(files::back_up(from)?);
    }
    for (path, text) in outputs {
        if path.symlink_metadata().is_ok() {
            done.replaced.push(files::back_up(&path)?);
        }
        files::write(&path, &text)?;
        done.written.push(path);
    }
    if let (Some(_), Some((from, client))) = (&done.backup, &client) {
        files::write(from, &client.to_text()?)?;
        done.written.push(from.clone());
    }
    done.client = client;
    Ok(done)
}

/// Writes the starter pack beside a configuration that stays as it is.
fn add_policies(args: &Args) -> anyhow::Result<Done> {
    let outputs: Vec<_> = starter_pack(args).collect();
    refuse_to_overwrite(args, &outputs)?;
    let mut done = Done { policies_only: true, ..Done::default() };
    for (path, text) in outputs {
        files::write(&path, &text)?;
        done.written.push(path);
    }
    Ok(done)
}

fn starter_pack(args: &Args) -> impl Iterator<Item = (PathBuf, String)> {
    let folder = args.dir.join("policies");
    let pack = holdpoint_policy::starter_pack().into_iter();
    pack.map(move |source| (folder.join(source.name), source.text))
}

/// The servers that the file which is there declares, and `new` does not.
fn dropped(file: &Path, new: &config::Config) -> Vec<String> {
    let old = config::load(file).ok();
    let names = old.iter().flat_map(|old| old.config.servers.keys());
    names.filter(|name| !new.servers.contains_key(*name)).map(ToString::to_string).collect()
}

fn read_client(from: &Path, ours: &Path) -> anyhow::Result<Client> {
    let text = config::read_text(from)?;
    Client::parse(&text, ours).with_context(|| format!("cannot import `{}`", from.display()))
}

fn refuse_to_overwrite(args: &Args, outputs: &[(PathBuf, String)]) -> anyhow::Result<()> {
    let taken = outputs.iter().find(|(path, _)| path.symlink_metadata().is_ok());
    match taken {
        Some((path, _)) if !args.force => {
            let text = format!("`{}` exists; `--force` overwrites it", path.display());
            Err(WrongUsage(text).into())
        }
        Some(_) | None => Ok(()),
    }
}

/// How a client can start this program: by name if it is found that way, else by its path.
fn program_name() -> String {
    let named = PathBuf::from("holdpoint");
    let folders = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&folders).any(|folder| folder.join(&named).is_file()) {
        return named.display().to_string();
    }
    std::env::current_exe().unwrap_or(named).display().to_string()
}

// === impl Done ===

impl Done {
    fn to_text(&self, config: &Path) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = self.write_text(config, &mut text);
        config::printable_lines(&text)
    }

    fn write_text(&self, config: &Path, text: &mut String) -> std::fmt::Result {
        if let (Some(backup), Some((from, _))) = (&self.backup, &self.client) {
            writeln!(text, "kept    {} as {}", from.display(), backup.display())?;
        }
        for path in &self.replaced {
            writeln!(text, "kept    the old file as {}", path.display())?;
        }
        for path in &self.written {
            writeln!(text, "wrote   {}", path.display())?;
        }
        for name in &self.dropped {
            writeln!(text, "dropped `{name}`: only the old configuration declares it")?;
        }
        if let Some((_, client)) = &self.client {
            for server in &client.servers {
                server.write_text(text)?;
            }
            for name in &client.led_before {
                writeln!(text, "skipped `{name}`: it goes through Holdpoint already")?;
            }
            for (name, why) in &client.unusable {
                writeln!(text, "skipped `{name}`: {why}")?;
            }
        }
        if self.policies_only {
            writeln!(text, "\nNext: let {} say, if it does not yet,", config.display())?;
            writeln!(text, "  [policies]\n  path = \"policies\"")?;
            return writeln!(text, "then restart what governs: only that takes a new path up");
        }
        writeln!(text, "\nNext: review {}, then run", config.display())?;
        writeln!(text, "  holdpoint check --config {}", config.display())
    }

    fn to_json(&self) -> Value {
        let paths = |paths: &[PathBuf]| -> Vec<String> {
            paths.iter().map(|path| path.display().to_string()).collect()
        };
        let client = self.client.as_ref().map(|(_, client)| client);
        let servers = client.map(|client| client.servers.as_slice()).unwrap_or_default();
        let unusable = client.map(|client| client.unusable.as_slice()).unwrap_or_default();
        let unusable = unusable.iter().map(|(name, why)| json!({ "name": name, "why": why }));
        json!({
            "written": paths(&self.written),
            "replaced": paths(&self.replaced),
            "backup": self.backup.as_ref().map(|path| path.display().to_string()),
            "dropped": self.dropped,
            "servers": servers.iter().map(Imported::to_json).collect::<Vec<_>>(),
            "already_led": client.map(|client| client.led_before.as_slice()).unwrap_or_default(),
            "unusable": unusable.collect::<Vec<_>>(),
        })
    }
}

// === impl Imported ===

impl Imported {
    fn write_text(&self, text: &mut String) -> std::fmt::Result {
        let name = &self.name;
        match &self.endpoint {
            Endpoint::Command { .. } if self.led == Led::Already => {
                writeln!(text, "server  {name}: its calls go through `holdpoint wrap` already")?;
            }
            Endpoint::Command { .. } => {
                writeln!(text, "server  {name}: its calls now go through `holdpoint wrap`")?;
            }
            Endpoint::Url { .. } => {
                writeln!(text, "server  {name}: in the client, point it at {}", self.served_at())?;
            }
        }
        if self.listed_as != name.as_str() {
            writeln!(text, "        was called `{}`", self.listed_as)?;
        }
        for (key, variable) in self.references() {
            writeln!(text, "        {key} was not copied: it is read from ${variable}")?;
        }
        if self.hidden > 0 {
            writeln!(
                text,
                "        {} of its arguments look like secrets: not copied",
                self.hidden
            )?;
        }
        Ok(())
    }

    fn to_json(&self) -> Value {
        let references = self.references().map(|(key, variable)| (key.to_owned(), json!(variable)));
        json!({
            "name": self.name.as_str(),
            "listed_as": self.listed_as,
            "served_at": self.served_at(),
            "from_env": references.collect::<serde_json::Map<_, _>>(),
            "arguments_not_copied": self.hidden,
        })
    }

    fn served_at(&self) -> String {
        format!("http://127.0.0.1:4747/mcp/{}", self.name)
    }
}

#[cfg(test)]
mod tests;
