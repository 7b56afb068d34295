//! `holdpoint check`: everything that is wrong with the configuration, the policies and the
//! catalog, at once, and what served databases say of our rights. Must not start a server, nor
//! change anything.

use super::{Exit, Format, Globals, answer, operator, print_report};
use crate::config::{
    self, Asked, Config, Loaded, Report, Served, Severity, Transport, UndoRules, Unusable,
    UpstreamCommand,
};
use crate::gateway::without_links;
use holdpoint_server::policies::GuardSpec;
use serde_json::json;
use std::path::Path;

/// What to do about the rights of a role.
const RIGHTS: &str = "give it a role of its own, with the rights that docs/reversibility.md names \
                      and no others";
/// What to do about a database that does not answer.
const UNREACHED: &str = "see whether it runs, and whether its URL is right: its tools fail";

/// Report everything that is wrong with the configuration and the policies.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Whether `serve` would begin in this environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begins {
    Yes,
    NotHere,
}

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
            if let Some((config, begins)) = config.filter(|_| !report.has_faults()) {
                answer(&summary(&file, &config, begins))?;
            }
        }
    }
    Ok(if report.has_faults() { Exit::Usage } else { Exit::Ok })
}

/// Everything that is wrong, and whether `serve` would begin here; the configuration is absent if
/// it has faults itself.
fn examine(file: &Path) -> anyhow::Result<(Option<(Config, Begins)>, Report)> {
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
    let lacking = lacking_report(&config);
    let begins = if lacking.count(Severity::Warning) == 0 { Begins::Yes } else { Begins::NotHere };
    report.append(lacking);
    report.append(target_report(&config));
    report.append(exposed_report(&config));
    report.append(catalog_report(&config));
    if !report.has_faults() {
        report.append(database_report(&config)?);
    }
    Ok((Some((config, begins)), report))
}

/// The programs of validators that this machine does not have, as far as this user can tell.
fn validator_report(config: &Config) -> Report {
    let mut report = Report::default();
    for validator in &config.validators {
        let Asked::Command(command) = &validator.asked else { continue };
        if !is_there(command) {
            let (name, program) = (&validator.name, &command.program);
            let message = format!("validator `{name}`: there is no program `{program}`");
            report.warn(&config.file, message, "install it, or write its path in full");
        }
    }
    report
}

/// What `serve` needs and does not find here, as far as this user can tell. Warnings: a service may
/// have another environment.
fn lacking_report(config: &Config) -> Report {
    let mut report = Report::default();
    let unset = crate::gateway::lacking_for_serve(config).into_iter();
    let shells = config.servers.iter().filter_map(|(name, server)| match &server.transport {
        Transport::Serves(serves) => match &serves.served {
            Served::Shell { workspace, .. } => {
                let fault = without_links(workspace).err()?;
                Some(format!("server `{name}`: {fault:#}"))
            }
            Served::Sqlite { .. }
            | Served::Postgres { .. }
            | Served::Git { .. }
            | Served::Terraform { .. } => None,
        },
        Transport::Command(_) | Transport::Url(_) => None,
    });
    for message in unset.chain(shells) {
        report.warn(&config.file, message, "`serve` does not begin where this is so");
    }
    report
}

/// The files and folders on which calls work that are not there, as far as this user can tell.
fn target_report(config: &Config) -> Report {
    let mut report = Report::default();
    let undo = config.servers.iter().filter_map(|(name, one)| Some((name, one.undo.as_ref()?)));
    for (name, rules) in undo.chain(&config.hosted) {
        let UndoRules::Files { roots, .. } = rules else { continue };
        for root in roots.iter().filter(|root| !root.is_dir()) {
            let message = format!("server `{name}`: there is no folder `{}`", root.display());
            let advice = "make it, or change `undo`: calls that change files there are refused";
            report.warn(&config.file, message, advice);
        }
    }
    for (name, server) in &config.servers {
        let Transport::Serves(serves) = &server.transport else { continue };
        let (what, path, there) = match &serves.served {
            Served::Sqlite { path } => ("database", path, path.is_file()),
            Served::Git { repository, .. } => ("folder", repository, repository.is_dir()),
            Served::Terraform { directory, .. } => ("folder", directory, directory.is_dir()),
            Served::Postgres { .. } | Served::Shell { .. } => continue,
        };
        if !there {
            let message = format!("server `{name}`: there is no {what} `{}`", path.display());
            report.warn(&config.file, message, "make it, or change `serves`: its tools fail");
        }
    }
    report
}

/// What databases that are served say of the rights with which they are reached. Warnings: a
/// service may have another environment, and a database may come later.
fn database_report(config: &Config) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = Report::default();
    for (server, said) in runtime.block_on(crate::gateway::warnings(config)) {
        let (text, advice) = match said {
            Ok(text) => (text, RIGHTS),
            Err(fault) => (format!("it cannot be looked at: {fault}"), UNREACHED),
        };
        report.warn(&config.file, format!("server `{server}`: {text}"), advice);
    }
    Ok(report)
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

fn summary(file: &Path, config: &Config, begins: Begins) -> String {
    let parts = config.settings.parts();
    let policies = match &config.policies.ordinary {
        Some(folder) => folder.display().to_string(),
        None => "the starter pack".to_owned(),
    };
    let begins = match begins {
        Begins::Yes => "",
        Begins::NotHere => ", but `serve` does not begin in this environment: see above",
    };
    format!(
        "{}: fit to run{begins}\n  agents {}, servers {}, environments {}, surfaces {}, freezes \
         {}\n  policies: {policies}\n",
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
