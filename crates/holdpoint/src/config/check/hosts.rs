//! Checks hosts, which execute tools themselves, and what is known about their tools without being
//! told. What the operator says wins. Must not let a host pass for a server.

use super::servers::first_key;
use super::{Checker, nearest};
use crate::config::checked::UndoRules;
use crate::config::raw::{At, Named, RawAgent, RawClass, RawHost, RawServer};
use holdpoint_control::{ResourceTemplate, ServerRules, ToolPattern, ToolRules, ToolSet};
use holdpoint_effects::{Analyser, Family, FileAct, Place, Source};
use holdpoint_resources::FileShape;
use holdpoint_server::doors::hook::{self, Host};
use holdpoint_types::{ServerName, ToolRef};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Where a call's own folder is in its parameters.
const CWD: &str = "/io.holdpoint~1cwd";

/// The tools of a host that are known, or that the operator classified.
struct HostTools<'a> {
    name: &'a ServerName,
    names: Vec<String>,
    listed: ToolSet,
}

// === impl HostTools ===

impl<'a> HostTools<'a> {
    fn of(name: &'a ServerName, rules: &ServerRules) -> Option<Self> {
        let lists = [&rules.read, &rules.write, &rules.destructive].into_iter().flatten();
        let lists = lists.map(ToString::to_string);
        let names: Vec<_> = lists.chain(rules.tools.keys().cloned()).collect();
        let patterns = names.iter().filter_map(|own| {
            let pattern = format!("{name}__{own}");
            ToolPattern::parse(&pattern).ok()
        });
        let listed = ToolSet::new(&patterns.collect::<Vec<_>>()).ok()?;
        Some(Self { name, names, listed })
    }
}

// === impl RawHost ===

impl From<RawHost> for Host {
    fn from(raw: RawHost) -> Self {
        match raw {
            RawHost::ClaudeCode => Self::ClaudeCode,
        }
    }
}

// === impl Checker ===

impl Checker<'_> {
    /// The hosts, each with the name under which its tools are known, and how their changes are
    /// taken back.
    pub(super) fn hosts(
        &mut self,
        raw: &Named<RawServer>,
    ) -> (BTreeMap<Host, ServerName>, BTreeMap<ServerName, UndoRules>) {
        let (mut hosts, mut hosted) = (BTreeMap::new(), BTreeMap::new());
        for (name, server) in raw {
            let Some(host) = &server.get().host else { continue };
            self.refuse_servers_keys(server.get());
            let undo = self.undo(server.get());
            let (span, host) = (host.span(), Host::from(*host.get()));
            // A malformed name has its own fault.
            let Ok(name) = name.get().parse::<ServerName>() else { continue };
            hosted.extend(undo.map(|undo| (name.clone(), undo)));
            match hosts.entry(host) {
                Entry::Vacant(place) => {
                    place.insert(name);
                }
                Entry::Occupied(first) => {
                    let message = format!("`{}` is this host already", first.get());
                    self.fault(span, message, "declare it once".to_owned());
                }
            }
        }
        (hosts, hosted)
    }

    /// Warns of grants that name a tool which the host is not known to have.
    pub(super) fn warn_of_unknown_tools(
        &mut self,
        agents: &Named<RawAgent>,
        rules: &BTreeMap<ServerName, ServerRules>,
    ) {
        let hosts = rules.iter().filter(|(_, rules)| rules.hosted);
        let hosts: Vec<_> = hosts.filter_map(|(name, rules)| HostTools::of(name, rules)).collect();
        let agents = agents.values().map(At::get);
        let grants = agents.flat_map(|agent| agent.grant.iter().chain(&agent.grants));
        for grant in grants.map(At::get) {
            for text in grant.tools.iter().flatten() {
                let Ok(tool) = text.get().parse::<ToolRef>() else { continue };
                let Some(host) = hosts.iter().find(|host| host.name == tool.server()) else {
                    continue;
                };
                if host.listed.contains(&tool) {
                    continue;
                }
                let near = nearest(tool.name(), host.names.iter().map(String::as_str));
                // What nobody knows destroys, so that is how the tools that we do not know of are
                // granted.
                if near.is_none() && matches!(grant.class, Some(RawClass::Destructive)) {
                    continue;
                }
                let suggestion = match near {
                    Some(near) => format!("did you mean `{}__{near}`?", tool.server()),
                    None => format!("if it has, classify it in `[server.{}]`", tool.server()),
                };
                let message = format!("this host is not known to have a tool `{}`", tool.name());
                self.warn(text.span(), message, suggestion);
            }
        }
    }

    /// Keys that mean something for servers alone: somebody meant something else.
    fn refuse_servers_keys(&mut self, raw: &RawServer) {
        let keys = [
            ("command", raw.command.as_ref().map(At::span)),
            ("url", raw.url.as_ref().map(At::span)),
            ("serves", raw.serves.as_ref().map(At::span)),
            ("env", first_key(&raw.env)),
            ("headers", first_key(&raw.headers)),
            ("oauth", raw.oauth.as_ref().map(At::span)),
            ("cwd", raw.cwd.as_ref().map(At::span)),
            ("timeout_ms", raw.timeout_ms.as_ref().map(At::span)),
            ("strict", raw.strict.as_ref().map(At::span)),
        ];
        for (key, span) in keys {
            if let Some(span) = span {
                let message = format!("`{key}` means nothing for a host, which executes by itself");
                self.fault(span, message, None);
            }
        }
        for tool in raw.tool.values() {
            if let Some(undo) = &tool.get().undo {
                let message = "what takes calls back is no tool of a host".to_owned();
                let suggestion = "keep its files: `undo = { files = [\"/srv/app\"] }`";
                self.fault(undo.span(), message, suggestion.to_owned());
            }
        }
    }
}

/// What the parameters of the host's tools say about files.
pub(super) fn known_shapes(host: RawHost) -> Vec<(String, FileShape)> {
    match host {
        RawHost::ClaudeCode => FileShape::of_claude_code(),
    }
}

/// Tools of the host that only read, by their names alone.
pub(super) fn known_reads(raw: &RawServer) -> Vec<ToolPattern> {
    match raw.host.as_ref().map(|host| *host.get()) {
        Some(RawHost::ClaudeCode) => {
            let reads = hook::known_reads().into_iter();
            reads.filter_map(|name| ToolPattern::parse(name).ok()).collect()
        }
        None => Vec::new(),
    }
}

/// How calls of the host's tools are analysed.
pub(super) fn known_tools(raw: &RawServer, place: &Place) -> BTreeMap<String, ToolRules> {
    match raw.host.as_ref().map(|host| *host.get()) {
        Some(RawHost::ClaudeCode) => claude_code(place).into_iter().flatten().collect(),
        None => BTreeMap::new(),
    }
}

fn claude_code(place: &Place) -> [Option<(String, ToolRules)>; 7] {
    let source = |text: &str| Source::parse(text).ok();
    let file = |act, path: &str, other: Option<&str>, before: Option<&str>| {
        let (other, before) = (other.and_then(source), before.and_then(source));
        Some(Family::File { act, path: source(path)?, other, before })
    };
    let tool = |name: &str, resource: &str, family: Option<Family>| {
        let effects = vec![Analyser { place: place.clone(), family: family? }];
        let resource = ResourceTemplate::parse(resource).ok();
        Some((name.to_owned(), ToolRules { class: None, resource, effects }))
    };
    let (path, at) = ("/file_path", "file://{/file_path}");
    let shell = source("/command").map(|text| Family::Shell { text, cwd: source(CWD) });
    let fetch =
        source("/url").map(|url| Family::Http { url, method: None, headers: None, body: None });
    let edit = file(FileAct::Edit, path, Some("/new_string"), Some("/old_string"));
    [
        tool("Bash", "host://localhost", shell),
        tool("Edit", at, edit),
        tool("MultiEdit", at, file(FileAct::Edit, path, Some("/edits"), None)),
        tool(
            "NotebookEdit",
            "file://{/notebook_path}",
            file(FileAct::Write, "/notebook_path", None, None),
        ),
        tool("Read", at, file(FileAct::Read, path, None, None)),
        tool("WebFetch", "https://*", fetch),
        tool("Write", at, file(FileAct::Write, path, Some("/content"), None)),
    ]
}

#[cfg(test)]
mod tests {
    use super::claude_code;
    use holdpoint_effects::Place;

    #[test]
    fn everything_that_is_known_of_hosts_is_well_formed() {
        for tool in claude_code(&Place::default()) {
            let (name, rules) = tool.expect("a tool that cannot be read");
            assert!(rules.resource.is_some(), "{name}");
        }
    }
}
