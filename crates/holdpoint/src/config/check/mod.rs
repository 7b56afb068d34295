//! From raw structs to the checked configuration, collecting every fault on the way.
//! Must not touch the network, nor look for secrets; of the disk it reads only the documents that
//! the file names.

mod agents;
mod credentials;
mod edges;
mod effects;
mod freezes;
mod hosts;
mod notify;
mod oauth;
mod openapi;
mod operators;
mod places;
mod plans;
mod policies;
mod servers;
mod serves;
mod undo;
mod validators;

pub use credentials::is_scope;

use super::checked::Config;
use super::fault::{Diagnostic, Report, Severity, nearest};
use super::raw::{At, RawConfig};
use super::read::{Dropped, read};
use holdpoint_control::{
    PatternFault, ResourcePattern, Settings, SettingsParts, ToolPattern, normalise,
};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Reads and checks a configuration.
///
/// `name` is how diagnostics call the file, `file` its absolute path. The configuration is absent
/// exactly if the report has faults.
pub fn check(name: &str, file: &Path, text: &str) -> (Option<Config>, Report) {
    let mut reading = read(name, text);
    let mut checker = Checker {
        name,
        folder: file.parent().unwrap_or(Path::new("/")).to_owned(),
        dropped: std::mem::take(&mut reading.dropped),
        declared: Declared::of(&reading.raw),
        found: Vec::new(),
        keeps: Vec::new(),
        elsewhere: Vec::new(),
        documents: Vec::new(),
        secrets: Vec::new(),
    };
    let config = checker.check_all(&reading.raw, file);
    let broken =
        |found: &Diagnostic| found.span.as_ref().is_some_and(|span| reading.is_broken(text, span));
    checker.found.retain(|found| !broken(found));
    let mut report = Report::default();
    report.add_text(name, mask(text, &checker.secrets));
    checker.documents.into_iter().for_each(|(name, text)| report.add_text(name, text));
    let found = reading.faults.into_iter().chain(checker.found).chain(checker.elsewhere);
    found.for_each(|diagnostic| report.push(diagnostic));
    let config = if report.has_faults() { None } else { config };
    (config, report)
}

/// Collects faults while it turns raw tables into checked ones.
struct Checker<'a> {
    name: &'a str,
    folder: PathBuf,
    dropped: Dropped,
    declared: Declared,
    found: Vec<Diagnostic>,
    /// The code that must stay: paths and pattern.
    keeps: Vec<(Vec<String>, String)>,
    /// What is wrong with documents that the file names.
    elsewhere: Vec<Diagnostic>,
    /// Those documents, by the names in `elsewhere`.
    documents: Vec<(String, String)>,
    /// Where secrets stand in plain text; nothing may show them.
    secrets: Vec<Range<usize>>,
}

/// Every name that the file declares, well-formed or not.
struct Declared {
    teams: BTreeSet<String>,
    agents: BTreeSet<String>,
    servers: BTreeSet<String>,
    operators: BTreeSet<String>,
}

// === impl Declared ===

impl Declared {
    fn of(raw: &RawConfig) -> Self {
        let text = |name: &At<String>| name.get().clone();
        Self {
            teams: raw.team.keys().map(text).collect(),
            agents: raw.agent.keys().map(text).collect(),
            servers: raw.server.keys().map(text).collect(),
            operators: raw.operator.keys().map(text).collect(),
        }
    }
}

// === impl Checker ===

impl Checker<'_> {
    fn check_all(&mut self, raw: &RawConfig, file: &Path) -> Option<Config> {
        let limits = self.limits(&raw.limits);
        let mut listen = self.listen(&raw.listen);
        let oauth = self.oauth(&raw.listen, &raw.agent);
        if let Some(listen) = &mut listen {
            listen.oauth = oauth;
        }
        self.keeps = self.keeps(&raw.invariant);
        let (hosts, hosted) = self.hosts(&raw.server);
        let (servers, rules) = self.servers(&raw.server, limits.call_timeout_ms);
        self.warn_of_unknown_tools(&raw.agent, &rules);
        let (speakers, operators) = self.operators(&raw.operator);
        let approvals = self.approvals(&raw.approval, &speakers);
        let parts = SettingsParts {
            teams: self.teams(&raw.team),
            agents: self.agents(&raw.agent),
            servers: rules,
            environments: self.environments(&raw.environment),
            surfaces: self.surfaces(&raw.surface),
            freezes: self.freezes(&raw.freeze, &raw.approval),
            invariants: self.invariants(&raw.invariant),
            operators: speakers,
            approvals,
            plans: self.plans(raw),
        };
        let validators = self.validators(&raw.validator);
        let notify = self.notify(&raw.notify, &raw.listen);
        let store = self.path(raw.store.path.as_ref()).unwrap_or(self.folder.join(".holdpoint"));
        let key = raw.store.credential_key.as_ref();
        let credential_key = key.and_then(|key| self.value_reference(key.span(), key.get()));
        let policies = self.policies(raw);
        let mut own = vec![file.to_owned(), store.clone()];
        own.extend(policies.ordinary.clone());
        own.extend(policies.guards.iter().map(|guard| guard.folder.clone()));
        let places = raw.server.values().filter_map(|server| server.get().place.as_ref());
        let documents = places.flat_map(|place| &place.get().openapi);
        let documents = documents.filter_map(|document| document.get().file.as_ref());
        own.extend(documents.map(|document| self.folder.join(document.get())));
        self.reach(&raw.server, &own);
        if self.has_faults() {
            return None;
        }
        let settings = match Settings::new(parts) {
            Ok(settings) => settings,
            Err(error) => {
                self.fault(None, error.to_string(), None);
                return None;
            }
        };
        let file = file.to_owned();
        Some(Config {
            file,
            store,
            credential_key,
            listen: listen?,
            policies,
            limits,
            operators,
            servers,
            hosts,
            hosted,
            settings,
            validators,
            notify,
        })
    }

    fn has_faults(&self) -> bool {
        let mut found = self.found.iter().chain(&self.elsewhere);
        found.any(|found| found.severity == Severity::Fault)
    }

    fn fault(
        &mut self,
        span: impl Into<Option<Range<usize>>>,
        message: String,
        suggestion: impl Into<Option<String>>,
    ) {
        self.push(Severity::Fault, span.into(), (message, suggestion.into()));
    }

    fn warn(
        &mut self,
        span: impl Into<Option<Range<usize>>>,
        message: String,
        suggestion: impl Into<Option<String>>,
    ) {
        self.push(Severity::Warning, span.into(), (message, suggestion.into()));
    }

    fn push(
        &mut self,
        severity: Severity,
        span: Option<Range<usize>>,
        (message, suggestion): (String, Option<String>),
    ) {
        let file = self.name.to_owned();
        self.found.push(Diagnostic { severity, file, span, message, suggestion });
    }

    /// Complains about a missing key, unless it was there and already complained about.
    fn missing(&mut self, table: &Range<usize>, key: &str, example: &str) {
        if !self.dropped.has(table.start, key) {
            let message = format!("the key `{key}` is missing");
            self.fault(table.clone(), message, format!("add `{key} = {example}`"));
        }
    }

    /// A name of the vocabulary.
    fn parse_name<T>(&mut self, name: &At<String>) -> Option<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        match name.get().parse() {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                let better = sanitise(name.get());
                let usable = !better.is_empty() && better.parse::<T>().is_ok();
                let suggestion = usable.then(|| format!("for example `{better}`"));
                self.fault(name.span(), error.to_string(), suggestion);
                None
            }
        }
    }

    /// The name of an environment, a surface or a freeze: the same rule as for teams.
    fn word(
        &mut self,
        what: &str,
        table: &Range<usize>,
        name: Option<&At<String>>,
    ) -> Option<String> {
        let Some(name) = name else {
            self.missing(table, "name", "\"…\"");
            return None;
        };
        if name.get().parse::<holdpoint_types::TeamName>().is_ok() {
            return Some(name.get().clone());
        }
        let rule = "use 1 to 64 of `a-z`, `0-9`, `-`, `.` and single `_`, starting with a letter";
        let message = format!("`{}` is not a valid {what} name: {rule}", name.get());
        let better = sanitise(name.get());
        self.fault(
            name.span(),
            message,
            (!better.is_empty()).then(|| format!("for example `{better}`")),
        );
        None
    }

    /// A reference to something that must be declared as `[what.NAME]`.
    fn reference<T>(&mut self, what: &str, name: &At<String>) -> Option<T>
    where
        T: FromStr,
    {
        let declared = match what {
            "team" => &self.declared.teams,
            "agent" => &self.declared.agents,
            "operator" => &self.declared.operators,
            _ => &self.declared.servers,
        };
        if declared.contains(name.get()) {
            // A declared name that is malformed has its own fault where it is declared.
            return name.get().parse().ok();
        }
        let near = nearest(name.get(), declared.iter().map(String::as_str));
        let suggestion = near.map_or_else(
            || format!("declare it as `[{what}.{}]`", name.get()),
            |near| format!("did you mean `{near}`?"),
        );
        let message = format!("the {what} `{}` is not declared", name.get());
        self.fault(name.span(), message, suggestion);
        None
    }

    fn tool_patterns(&mut self, texts: &[At<String>]) -> Vec<ToolPattern> {
        let parse = |text: &At<String>| self.pattern(text, ToolPattern::parse);
        texts.iter().filter_map(parse).collect()
    }

    fn resource_patterns(&mut self, texts: &[At<String>]) -> Vec<ResourcePattern> {
        let parse = |text: &At<String>| self.pattern(text, ResourcePattern::parse);
        texts.iter().filter_map(parse).collect()
    }

    fn pattern<P>(
        &mut self,
        text: &At<String>,
        parse: fn(&str) -> Result<P, PatternFault>,
    ) -> Option<P> {
        match parse(text.get()) {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                let suggestion = pattern_suggestion(text.get(), &error);
                self.fault(text.span(), error.to_string(), suggestion);
                None
            }
        }
    }

    /// A path relative to the configuration file.
    fn path(&mut self, path: Option<&At<String>>) -> Option<PathBuf> {
        let path = path?;
        if path.get().is_empty() || path.get().chars().any(char::is_control) {
            self.fault(path.span(), format!("{:?} is no path", path.get()), None);
            return None;
        }
        if path.get().starts_with('~') {
            let message = format!("`{}` is not expanded", path.get());
            self.fault(path.span(), message, "write the path in full".to_owned());
            return None;
        }
        Some(self.folder.join(path.get()))
    }
}

/// The text with stars for what stands in `secrets`, so that every position stays the same.
fn mask(text: &str, secrets: &[Range<usize>]) -> String {
    let mut masked = String::with_capacity(text.len());
    for (at, found) in text.char_indices() {
        let hidden = secrets.iter().any(|secret| secret.contains(&at));
        if hidden && !"\"'\n".contains(found) {
            masked.extend(std::iter::repeat_n('*', found.len_utf8()));
        } else {
            masked.push(found);
        }
    }
    masked
}

/// The closest text that satisfies the rule for names; empty if nothing of it can stay.
pub fn sanitise(text: &str) -> String {
    let mut name = String::new();
    for found in text.to_lowercase().chars() {
        let plain = found.is_ascii_lowercase() || found.is_ascii_digit() || "-.".contains(found);
        let found = if plain { found } else { '_' };
        if found == '_' && name.ends_with('_') {
            continue;
        }
        name.push(found);
    }
    let name = name.trim_start_matches(|first: char| !first.is_ascii_lowercase());
    let short: String = name.chars().take(64).collect();
    short.trim_end_matches('_').to_owned()
}

fn pattern_suggestion(text: &str, fault: &PatternFault) -> Option<String> {
    match fault {
        PatternFault::ToolStars(_) => {
            let mut single = text.to_owned();
            while single.contains("**") {
                single = single.replace("**", "*");
            }
            Some(format!("write `{single}`"))
        }
        PatternFault::NoScheme(_) if text.starts_with('/') => {
            Some(format!("write `{}`", normalise(&format!("file://{text}"))))
        }
        PatternFault::NoScheme(_) => Some("for example `file:///srv/prod/**`".to_owned()),
        PatternFault::Stars(_) => Some("for example `file:///srv/**/secrets/*`".to_owned()),
        PatternFault::NotNormal { normal, .. } => Some(format!("write `{normal}`")),
        PatternFault::ToolCharacter { .. } => {
            Some("patterns are over `server__tool`, for example `fs__read_*`".to_owned())
        }
        PatternFault::Empty
        | PatternFault::TooLong
        | PatternFault::Control(_)
        | PatternFault::Compile { .. } => None,
    }
}

#[cfg(test)]
mod tests;
