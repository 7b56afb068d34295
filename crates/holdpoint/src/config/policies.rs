//! Reads the operator's policy files and puts their faults into a report.
//! Must not evaluate a policy.

use super::checked::Config;
use super::fault::{Diagnostic, Report, Severity, span_at};
use super::{Unusable, read_text_within};
use holdpoint_control::Freeze;
use holdpoint_policy::{GuardFault, PolicyFault, PolicySet, SOURCE_BYTES_MAX, starter_pack};
use holdpoint_server::policies::{GuardSpec, SignedFault, lapsed};
use holdpoint_types::PolicySource;
use std::path::{Path, PathBuf};

/// The policies of a configuration: its folder's `*.cedar` files by name, or the starter pack.
///
/// # Errors
/// When the folder or one of its files cannot be read.
pub fn policy_sources(config: &Config) -> Result<Vec<PolicySource>, Unusable> {
    match &config.policies.ordinary {
        None => Ok(starter_pack()),
        Some(folder) => read_folder(folder),
    }
}

/// What is wrong with a configuration's policies, by themselves and together with the rest.
pub fn policy_report(config: &Config, sources: &[PolicySource]) -> Report {
    let mut report = Report::default();
    let file_of = |name: &str| match &config.policies.ordinary {
        Some(folder) => folder.join(name).display().to_string(),
        None => format!("the starter pack's {name}"),
    };
    for source in sources {
        report.add_text(file_of(&source.name), &source.text);
    }
    match PolicySet::load(sources) {
        Err(faults) => {
            for fault in faults {
                report.push(diagnose(file_of(&fault.file), sources, fault));
            }
        }
        Ok(set) => {
            warn(config, &set, &mut report);
            for doubt in set.doubts() {
                let found = diagnose(file_of(&doubt.file), sources, doubt);
                report.push(Diagnostic { severity: Severity::Warning, ..found });
            }
        }
    }
    report
}

fn warn(config: &Config, set: &PolicySet, report: &mut Report) {
    let place = config.policies.ordinary.as_ref().unwrap_or(&config.file).display().to_string();
    let mut warning = |message: &str, suggestion: &str| {
        report.push(Diagnostic {
            severity: Severity::Warning,
            file: place.clone(),
            span: None,
            message: message.to_owned(),
            suggestion: Some(suggestion.to_owned()),
        });
    };
    if set.is_empty() {
        warning(
            "there are no policies, so everything is denied",
            "copy the starter pack with `holdpoint init --policies`",
        );
    }
    let strict = |freeze: &Freeze| freeze.exception().is_none();
    if config.settings.parts().freezes.iter().any(strict) && !set.mentions_freezes() {
        warning(
            "a freeze is declared, but no policy mentions freezes",
            "forbid when `context.freezes` is not empty, as the starter pack does",
        );
    }
}

fn diagnose(file: String, sources: &[PolicySource], fault: PolicyFault) -> Diagnostic {
    let source = sources.iter().find(|source| source.name == fault.file);
    let place = |source: &PolicySource| span_at(&source.text, fault.line, fault.column);
    Diagnostic {
        severity: Severity::Fault,
        file,
        span: source.and_then(place),
        message: fault.message,
        suggestion: fault.suggestion,
    }
}

/// Guard sets that were in force and are not declared any more.
pub fn lapsed_report(config: &Config) -> Report {
    let mut report = Report::default();
    for name in lapsed(&config.store, &config.policies) {
        report.push(Diagnostic {
            severity: Severity::Warning,
            file: config.file.display().to_string(),
            span: None,
            message: format!("the guard set `{name}` was in force and is not declared any more"),
            suggestion: Some(format!(
                "declare it, or remove `{}` if that is meant",
                config.store.join("guards").join(format!("{name}.signed")).display()
            )),
        });
    }
    report
}

/// What keeps a guard set from counting.
pub fn guard_report(guard: &GuardSpec, fault: &SignedFault) -> Report {
    let mut report = Report::default();
    let file_of = |name: &str| guard.folder.join(name).display().to_string();
    let SignedFault::Set(GuardFault::Policies(faults)) = fault else {
        let suggestion = match fault {
            SignedFault::Note(_) | SignedFault::Files(_) | SignedFault::Record => None,
            _ => Some(format!("have it signed: `holdpoint policy sign {}`", guard.name)),
        };
        report.push(Diagnostic {
            severity: Severity::Fault,
            file: guard.folder.display().to_string(),
            span: None,
            message: format!("the guard set `{}` does not count: {fault}", guard.name),
            suggestion,
        });
        return report;
    };
    let sources = guard.sources().unwrap_or_default();
    for source in &sources {
        report.add_text(file_of(&source.name), &source.text);
    }
    for fault in faults {
        report.push(diagnose(file_of(&fault.file), &sources, fault.clone()));
    }
    report
}

fn read_folder(folder: &Path) -> Result<Vec<PolicySource>, Unusable> {
    let unreadable = |error| Unusable::Unreadable { file: folder.display().to_string(), error };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path: PathBuf = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "cedar") {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| read_source(path)).collect()
}

fn read_source(path: &Path) -> Result<PolicySource, Unusable> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(PolicySource {
        name: name.unwrap_or_default(),
        text: read_text_within(path, SOURCE_BYTES_MAX)?,
    })
}
