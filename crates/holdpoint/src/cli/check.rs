//! `holdpoint check`: everything that is wrong with the configuration, the policies and the
//! catalog, at once. Must not start a server, nor change anything.

use super::{Exit, Format, Globals, answer, operator, print_report};
use crate::config::{self, Config, Loaded, Report, Severity, Unusable};
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
fn examine(file: &Path) -> Result<(Option<Config>, Report), Unusable> {
    let (config, mut report) = match config::load(file) {
        Ok(Loaded { config, report }) => (config, report),
        Err(Unusable::Faulty { report, .. }) => return Ok((None, report)),
        Err(error) => return Err(error),
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
    report.append(catalog_report(&config));
    Ok((Some(config), report))
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
