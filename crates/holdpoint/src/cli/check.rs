//! `holdpoint check`: everything that is wrong with the configuration, the policies and the
//! catalog, at once, and what served databases say of our rights. Must not start a server, nor
//! change anything.

use super::{Exit, Format, Globals, answer, operator, print_report};
use crate::config::{self, Asked, Config, Loaded, Report, Severity, Unusable, UpstreamCommand};
use holdpoint_server::policies::GuardSpec;
use serde_json::json;
use std::path::Path;

/// Report everything that is wrong with the configuration and the policies.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `holdpoint check`: exit 0 if nothing is wrong (warnings are allowed), else 2.
///
/// # Errors
/// When there is no configuration, or something cannot be read.
pub fn run(_: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    let file = config::find(globals.config.as_deref(), config::Search::HereFirst)?;
    let (config, report) = examine(&file)?;
    match globals.format {
        Format::Json => answer(&to_json(&file, &report))?,
        Format::Text => {
            print_report(&report);
            if let Some(config) = config.filter(|_| !report.has_faults()) {
                answer(&summary(&file, &config))?;
            }
        }
    }
    Ok(if report.has_faults() { Exit::Usage } else { Exit::Ok })
}

/// Everything that is wrong; the configuration is absent if it has faults itself.
fn examine(file: &Path) -> anyhow::Result<(Option<Config>, Report)> {
    let (config, mut report) = match config::load(file) {
        Ok(Loaded { config, report }) => (config, report),
        Err(Unusable::Faulty { report, .. }) => return Ok((None, report)),
        Err(error) => return Err(error.into()),
    };
    let sources = config::policy_sources(&config)?;
    report.append(config::policy_report(&config, &sources));
    let now = operator::now();
    for guard in &config.policies.guards {
        if let Err(fault) = guard.load(now) {
            report.append(config::guard_report(guard, &fault));
        }
    }
    report.append(config::lapsed_report(&config));
    report.append(validator_report(&config));
    report.append(notify_report(&config));
    report.append(exposed_report(&config));
    report.append(catalog_report(&config));
    if !report.has_faults() {
        report.append(database_report(&config)?);
    }
    Ok((Some(config), report))
}

/// What validators need and this machine does not have, as far as this user can tell. Warnings: a
/// service may have another environment.
fn validator_report(config: &Config) -> Report {
    let mut report = Report::default();
    for validator in &config.validators {
        let (values, command) = match &validator.asked {
            Asked::Cel(_) => continue,
            Asked::Command(command) => (&command.env, Some(command)),
            Asked::Url(url) => (&url.headers, None),
        };
        let name = &validator.name;
        if let Some(command) = command.filter(|command| !is_there(command)) {
            let message = format!("validator `{name}`: there is no program `{}`", command.program);
            report.warn(&config.file, message, "install it, or write its path in full");
        }
        for fault in values.values().filter_map(|source| crate::gateway::value(source).err()) {
            let message = format!("validator `{name}`: {fault:#}");
            report.warn(&config.file, message, "it is read when a process begins to govern");
        }
    }
    report
}

/// What databases that are served say of the rights with which they are reached. Warnings: a
/// service may have another environment, and a database may come later.
fn database_report(config: &Config) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = Report::default();
    for (server, text) in runtime.block_on(crate::gateway::warnings(config)) {
        let suggestion = "give it a role of its own, with the rights that docs/reversibility.md \
                          names and no others";
        report.warn(&config.file, format!("server `{server}`: {text}"), suggestion);
    }
    Ok(report)
}

/// What is not there that is needed to tell others of approvals, as far as this user can tell.
fn notify_report(config: &Config) -> Report {
    let mut report = Report::default();
    for one in &config.notify {
        let sources = std::iter::once(&one.url).chain(one.headers.values());
        for fault in sources.filter_map(|source| crate::gateway::value(source).err()) {
            let message = format!("`notify.{}`: {fault:#}", one.name);
            report.warn(&config.file, message, "it is read when `serve` begins");
        }
    }
    report
}

/// What other users of this machine can read and should not.
fn exposed_report(config: &Config) -> Report {
    let mut report = Report::default();
    for one in crate::gateway::exposed(config) {
        report.warn(&config.file, one.text(), &one.advice());
    }
    report
}

/// True if the program can be found, as whoever starts it would look for it.
fn is_there(command: &UpstreamCommand) -> bool {
    let program = Path::new(&command.program);
    if program.components().count() > 1 {
        let folder = command.cwd.as_deref().unwrap_or(Path::new("."));
        return program.is_file() || folder.join(program).is_file();
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(program).is_file())
}

/// What is wrong with the catalog: the slot for pins whose tools or servers are gone, and for
/// tools in quarantine. Empty until there is a store to ask.
fn catalog_report(_: &Config) -> Report {
    Report::default()
}

fn summary(file: &Path, config: &Config) -> String {
    let parts = config.settings.parts();
    let policies = match &config.policies.ordinary {
        Some(folder) => folder.display().to_string(),
        None => "the starter pack".to_owned(),
    };
    format!(
        "{}: fit to run\n  agents {}, servers {}, environments {}, surfaces {}, freezes {}\n  \
         policies: {policies}\n",
        file.display(),
        parts.agents.len(),
        parts.servers.len(),
        parts.environments.len(),
        parts.surfaces.len(),
        parts.freezes.len(),
    ) + &config.policies.guards.iter().filter_map(guard_line).collect::<String>()
}

/// A guard set that counts, on a line.
fn guard_line(guard: &GuardSpec) -> Option<String> {
    let loaded = guard.load(operator::now()).ok()?;
    let version = loaded.manifest().version;
    let signed_by = loaded.record().signed_by.join(", ");
    Some(format!(
        "  guard set {}: version {version}, {}, signed by {signed_by}\n",
        guard.name,
        loaded.digest(),
    ))
}

fn to_json(file: &Path, report: &Report) -> String {
    let answer = json!({
        "config": file.display().to_string(),
        "fit": !report.has_faults(),
        "faults": report.count(Severity::Fault),
        "warnings": report.count(Severity::Warning),
        "diagnostics": report.to_json(),
    });
    format!("{answer:#}\n")
}
