//! The operator's settings, compiled: who may reach what, how dangerous a tool is, and where it
//! acts. Must never do I/O, nor decide: it only answers the questions that facts are made of.

mod approvers;
mod effects;
mod freezes;
mod parts;
mod pattern;
mod reach;
mod template;
mod timed;

pub use approvers::{ApprovalRule, ApproverFault, OWNER, Operator};
pub use freezes::{Freeze, FreezeFault, Recurring};
pub use parts::{
    Agent, Environment, Grant, GrantFault, Invariant, ServerAsk, ServerRules, SettingsParts,
    Surface, Team, ToolRules,
};
pub use pattern::{PatternFault, ResourcePattern, ResourceSet, ToolPattern, ToolSet};
pub use reach::{Aimed, Touch};
pub use template::{ResourceTemplate, TemplateFault, normalise};
pub use timed::{Timed, TimedFault};

use holdpoint_types::{
    AgentFacts, AgentName, ClassSource, Digest, EffectClass, ServerName, TargetFacts, TeamName,
    ToolRef, canonical_digest,
};
use pattern::Matcher;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The environment that counts when no rule of the operator names one.
pub const PROD: &str = "prod";

/// The checked settings, ready to be asked once per action.
#[derive(Clone, Debug)]
pub struct Settings {
    parts: SettingsParts,
    digest: Digest,
    grants: BTreeMap<AgentName, AgentGrants>,
    timed: Vec<Timed>,
    classes: BTreeMap<ServerName, Matcher>,
    environment_resources: Matcher,
    surface_resources: Matcher,
    surface_tools: Matcher,
}

/// What a tool says about itself (MCP annotations). Only what it says in words counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ToolHints {
    /// `readOnlyHint`.
    pub read_only: Option<bool>,
    /// `destructiveHint`.
    pub destructive: Option<bool>,
    /// `openWorldHint`.
    pub open_world: Option<bool>,
}

/// Settings that contradict themselves.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SettingsFault {
    /// An agent without a declared owner may not exist.
    #[error("the owner `{owner}` of the agent `{agent}` is not declared")]
    UndeclaredOwner {
        /// The agent.
        agent: AgentName,
        /// The team that nobody declared.
        owner: TeamName,
    },
    /// The patterns of one rule cannot be compiled.
    #[error(transparent)]
    Pattern(#[from] PatternFault),
    /// The settings have no canonical form.
    #[error("the settings have no digest: {0}")]
    Digest(String),
}

/// One agent's grants: per class a matcher over patterns, and the patterns as they were written.
#[derive(Clone, Debug, Default)]
struct AgentGrants {
    by_class: BTreeMap<EffectClass, (Matcher, Vec<String>)>,
}

/// An environment, and whether a rule of the operator names it.
struct Located {
    environment: String,
    resolved: Resolved,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Resolved {
    ByRule,
    ByDefault,
}

// === impl ToolHints ===

impl ToolHints {
    /// What a tool's definition says of itself.
    pub fn of(definition: &Value) -> Self {
        let hint = |key: &str| definition.get("annotations")?.get(key)?.as_bool();
        Self {
            read_only: hint("readOnlyHint"),
            destructive: hint("destructiveHint"),
            open_world: hint("openWorldHint"),
        }
    }
}

// === impl Settings ===

impl Settings {
    /// Compiles the parts.
    ///
    /// # Errors
    /// When an agent's owner is not declared, or patterns are together too large to compile.
    pub fn new(parts: SettingsParts) -> Result<Self, SettingsFault> {
        for (agent, declared) in &parts.agents {
            if !parts.teams.contains_key(&declared.owner) {
                let (agent, owner) = (agent.clone(), declared.owner.clone());
                return Err(SettingsFault::UndeclaredOwner { agent, owner });
            }
        }
        let digest = canonical_digest(&parts.describe())
            .map_err(|error| SettingsFault::Digest(error.to_string()))?;
        let grants = parts
            .agents
            .iter()
            .map(|(name, agent)| AgentGrants::compile(agent).map(|grants| (name.clone(), grants)));
        let classes = parts
            .servers
            .iter()
            .map(|(name, rules)| compile_classes(rules).map(|matcher| (name.clone(), matcher)));
        Ok(Self {
            digest,
            grants: grants.collect::<Result<_, _>>()?,
            timed: Vec::new(),
            classes: classes.collect::<Result<_, _>>()?,
            environment_resources: Matcher::of_resources(owned(&parts.environments, |rule| {
                &rule.resources
            }))?,
            surface_resources: Matcher::of_resources(owned(&parts.surfaces, |s| &s.resources))?,
            surface_tools: Matcher::of_tools(owned(&parts.surfaces, |s| &s.tools))?,
            parts,
        })
    }

    /// What was declared.
    pub fn parts(&self) -> &SettingsParts {
        &self.parts
    }

    /// Digest of the canonical form of everything that was declared.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What is known about an agent; absent if nobody declared it.
    pub fn agent(&self, name: &AgentName) -> Option<AgentFacts> {
        let agent = self.parts.agents.get(name)?;
        Some(AgentFacts { owner: Some(agent.owner.clone()), mode: agent.mode })
    }

    /// The grant by which `agent` reaches `tool` in `class`, as the operator wrote it.
    ///
    /// A grant of one class never reaches a tool of another.
    pub fn grant_for(
        &self,
        agent: &AgentName,
        tool: &ToolRef,
        class: EffectClass,
    ) -> Option<String> {
        let declared = self.grants.get(agent)?.by_class.get(&class).and_then(|(matcher, texts)| {
            let first = matcher.owners(&tool.to_string()).into_iter().next()?;
            texts.get(first).cloned()
        });
        declared.or_else(|| self.timed_grant_for(agent, tool, class))
    }

    /// The effect class of `tool`, and who said so. `hints` can only make it stricter.
    pub fn classify(&self, tool: &ToolRef, hints: ToolHints) -> (EffectClass, ClassSource) {
        if tool.is_read_request() {
            return (EffectClass::Read, ClassSource::Protocol);
        }
        let Some(declared) = self.declared_class(tool) else {
            return (EffectClass::Destructive, ClassSource::Unclassified);
        };
        let class = declared.max(hints.floor());
        if class > declared {
            return (class, ClassSource::Annotation);
        }
        (declared, ClassSource::Operator)
    }

    /// What a call of `tool` with `parameters` is aimed at.
    pub fn target(&self, tool: &ToolRef, parameters: &Value) -> TargetFacts {
        let rules = self.parts.servers.get(tool.server());
        let template = rules
            .and_then(|rules| rules.tools.get(tool.name()))
            .and_then(|tool| tool.resource.as_ref());
        let base = rules.and_then(|rules| rules.base.as_deref());
        let named = template.map(|template| template.resolve(parameters, base));
        let named = named
            .or_else(|| tool.is_read_request().then(|| template::read_request(tool, parameters)));
        // A template that the parameters do not fill means that the call aims at something that we
        // cannot name, so no rule about the server as a whole may vouch for it.
        let vouched = !matches!(named, Some(None));
        let resource = named
            .flatten()
            .unwrap_or_else(|| normalise(&format!("mcp://{}/{}", tool.server(), tool.name())));
        let located = if vouched { self.locate(&resource, tool) } else { Located::unknown() };
        let mut surfaces = self.surfaces(&resource, tool);
        if !vouched {
            // It may lie on any of them, so it counts as lying on all.
            let drawn = self.parts.surfaces.iter().filter(|one| !one.resources.is_empty());
            surfaces.extend(drawn.map(|one| one.name.clone()));
        }
        TargetFacts {
            surfaces,
            resource,
            environment: located.environment,
            environment_resolved: located.resolved == Resolved::ByRule,
        }
    }

    /// What `server` may not ask of agents.
    pub fn forbidden_asks(&self, server: &ServerName) -> Option<&BTreeSet<ServerAsk>> {
        let rules = self.parts.servers.get(server)?;
        (!rules.forbidden_asks.is_empty()).then_some(&rules.forbidden_asks)
    }

    fn declared_class(&self, tool: &ToolRef) -> Option<EffectClass> {
        let rules = self.parts.servers.get(tool.server())?;
        let by_name = rules.tools.get(tool.name()).and_then(|tool| tool.class);
        by_name.or_else(|| {
            let matches = self.classes.get(tool.server())?.owners(tool.name());
            // Owners are positions in `EffectClass::ALL`, so the last one is the strictest.
            matches.last().and_then(|at| EffectClass::ALL.get(*at).copied())
        })
    }

    fn locate(&self, resource: &str, tool: &ToolRef) -> Located {
        let environments = &self.parts.environments;
        let by_resource = self.environment_resources.owners(resource).into_iter();
        let by_resource = by_resource.filter_map(|at| environments.get(at));
        if let Some(located) = Located::among(by_resource) {
            return located;
        }
        self.locate_server(tool)
    }

    /// Where the tool's server is, for what no rule about resources places.
    fn locate_server(&self, tool: &ToolRef) -> Located {
        let environments = &self.parts.environments;
        let by_server = environments.iter().filter(|rule| rule.servers.contains(tool.server()));
        if let Some(located) = Located::among(by_server) {
            return located;
        }
        let rules = self.parts.servers.get(tool.server());
        let of_server = rules.and_then(|rules| rules.environment.clone());
        of_server.map_or_else(Located::unknown, Located::by_rule)
    }

    fn surfaces(&self, resource: &str, tool: &ToolRef) -> BTreeSet<String> {
        let mut found = self.surface_resources.owners(resource);
        found.extend(self.surface_tools.owners(&tool.to_string()));
        let surfaces = found.into_iter().filter_map(|at| self.parts.surfaces.get(at));
        surfaces.map(|surface| surface.name.clone()).collect()
    }
}

// === impl ToolHints ===

impl ToolHints {
    /// The mildest class that the tool's own words allow.
    fn floor(self) -> EffectClass {
        match (self.read_only, self.destructive) {
            (Some(true), _) | (None, None | Some(false)) => EffectClass::Read,
            (Some(false) | None, Some(true)) => EffectClass::Destructive,
            (Some(false), None | Some(false)) => EffectClass::Write,
        }
    }
}

// === impl AgentGrants ===

impl AgentGrants {
    fn compile(agent: &Agent) -> Result<Self, PatternFault> {
        let mut by_class = BTreeMap::new();
        for class in EffectClass::ALL {
            let grants = agent.grants.iter().filter(|grant| grant.class() == class);
            let patterns: Vec<_> = grants.flat_map(Grant::tools).collect();
            let matcher = Matcher::of_tools(patterns.iter().copied().enumerate())?;
            let texts = patterns.iter().map(|pattern| format!("{class} {pattern}")).collect();
            by_class.insert(class, (matcher, texts));
        }
        Ok(Self { by_class })
    }
}

// === impl Located ===

impl Located {
    fn by_rule(environment: String) -> Self {
        Self { environment, resolved: Resolved::ByRule }
    }

    fn unknown() -> Self {
        Self { environment: PROD.to_owned(), resolved: Resolved::ByDefault }
    }

    /// The one environment that matches; of several, `prod` if it is among them, else none.
    fn among<'a>(matching: impl Iterator<Item = &'a Environment>) -> Option<Self> {
        let names: BTreeSet<_> = matching.map(|rule| rule.name.as_str()).collect();
        let first = names.first()?;
        if names.contains(PROD) {
            return Some(Self::by_rule(PROD.to_owned()));
        }
        if names.len() == 1 {
            Some(Self::by_rule((*first).to_owned()))
        } else {
            Some(Self::unknown())
        }
    }
}

/// The three lists of a server in the order of [`EffectClass::ALL`].
fn compile_classes(rules: &ServerRules) -> Result<Matcher, PatternFault> {
    let lists = [&rules.read, &rules.write, &rules.destructive];
    Matcher::of_tools(owned(&lists, |list| list))
}

/// Every pattern together with the position of the item that holds it.
fn owned<'a, T, P>(items: &'a [T], patterns: fn(&'a T) -> &'a [P]) -> Vec<(usize, &'a P)> {
    let each = items.iter().enumerate();
    each.flat_map(|(at, item)| patterns(item).iter().map(move |pattern| (at, pattern))).collect()
}

#[cfg(test)]
mod tests {
    use super::{
        Agent, Environment, Freeze, Grant, ResourcePattern, ResourceTemplate, ServerRules,
        Settings, SettingsFault, SettingsParts, Surface, Team, ToolHints, ToolPattern, ToolRules,
    };
    use holdpoint_types::{ClassSource, EffectClass, Mode, Timestamp, ToolRef};
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::collections::{BTreeMap, BTreeSet};

    fn tools(texts: &[&str]) -> Vec<ToolPattern> {
        texts.iter().map(|text| ToolPattern::parse(text).unwrap()).collect()
    }

    fn resources(texts: &[&str]) -> Vec<ResourcePattern> {
        texts.iter().map(|text| ResourcePattern::parse(text).unwrap()).collect()
    }

    fn grant(class: EffectClass, texts: &[&str]) -> Grant {
        Grant::new(class, tools(texts)).unwrap()
    }

    fn environment(name: &str, resource: &[&str], servers: &[&str]) -> Environment {
        Environment {
            name: name.to_owned(),
            resources: resources(resource),
            servers: servers.iter().map(|name| name.parse().unwrap()).collect(),
        }
    }

    fn files() -> ServerRules {
        let resource = Some(ResourceTemplate::parse("file://{/path}").unwrap());
        let rules = |class| ToolRules { class, resource: resource.clone(), effects: Vec::new() };
        ServerRules {
            environment: Some("dev".to_owned()),
            base: Some("/srv/app".to_owned()),
            read: tools(&["read_*", "list_*", "odd"]),
            write: tools(&["write_*", "odd"]),
            destructive: tools(&["*_all"]),
            tools: BTreeMap::from([
                ("write_file".to_owned(), rules(None)),
                ("read_all".to_owned(), rules(Some(EffectClass::Read))),
            ]),
            forbidden_asks: BTreeSet::new(),
            sealed: false,
            hosted: false,
            behind: None,
        }
    }

    fn parts() -> SettingsParts {
        let coder = Agent {
            owner: "platform".parse().unwrap(),
            mode: Mode::Auto,
            grants: vec![
                grant(EffectClass::Read, &["fs__list_*", "*"]),
                grant(EffectClass::Write, &["fs__*"]),
                grant(EffectClass::Destructive, &["fs__delete_all"]),
            ],
            requesters: BTreeSet::new(),
        };
        let bare = ServerRules::default();
        SettingsParts {
            teams: BTreeMap::from([("platform".parse().unwrap(), Team::default())]),
            agents: BTreeMap::from([("coder".parse().unwrap(), coder)]),
            servers: BTreeMap::from([
                ("fs".parse().unwrap(), files()),
                ("pg".parse().unwrap(), bare.clone()),
                ("bare".parse().unwrap(), bare),
            ]),
            environments: vec![
                environment("prod", &["file:///srv/prod/**"], &[]),
                environment("stage", &["file:///srv/*/stage/**"], &["pg"]),
                environment("test", &["file:///srv/*/stage/t"], &[]),
            ],
            surfaces: vec![
                Surface {
                    name: "secrets".to_owned(),
                    resources: resources(&["file:///**/.env"]),
                    tools: vec![],
                },
                Surface { name: "billing".to_owned(), resources: vec![], tools: tools(&["pg__*"]) },
            ],
            invariants: BTreeMap::new(),
            freezes: vec![
                Freeze::new("year-end".to_owned(), Timestamp(10), Timestamp(20)).unwrap(),
                Freeze::new("launch".to_owned(), Timestamp(15), Timestamp(16)).unwrap(),
            ],
            ..SettingsParts::default()
        }
    }

    fn settings() -> Settings {
        Settings::new(parts()).unwrap()
    }

    fn tool(text: &str) -> ToolRef {
        text.parse().unwrap()
    }

    #[test]
    fn a_grant_reaches_its_own_class_only() {
        use EffectClass::{Destructive, Read, Write};
        let settings = settings();
        let coder = "coder".parse().unwrap();
        for (name, class, expected) in [
            ("fs__list_files", Read, Some("read fs__list_*")),
            ("pg__query", Read, Some("read *")),
            ("fs__write_file", Write, Some("write fs__*")),
            ("pg__insert", Write, None),
            ("fs__delete_all", Destructive, Some("destructive fs__delete_all")),
            ("fs__delete_one", Destructive, None),
        ] {
            let found = settings.grant_for(&coder, &tool(name), class);
            assert_eq!(found.as_deref(), expected, "{name} {class}");
        }
        let nobody = "nobody".parse().unwrap();
        assert_eq!(settings.grant_for(&nobody, &tool("fs__list_files"), Read), None);
    }

    #[test]
    fn destruction_is_never_granted_by_a_wildcard() {
        for text in ["*", "fs__*", "fs__delete_?", "delete"] {
            assert!(Grant::new(EffectClass::Destructive, tools(&[text])).is_err(), "{text}");
        }
    }

    #[test]
    fn the_stricter_list_wins_and_the_single_tool_wins_over_lists() {
        use EffectClass::{Destructive, Read, Write};
        let settings = settings();
        for (name, class, source) in [
            ("fs__read_file", Read, ClassSource::Operator),
            ("fs__odd", Write, ClassSource::Operator),
            ("fs__write_all", Destructive, ClassSource::Operator),
            ("fs__read_all", Read, ClassSource::Operator),
            ("fs__other", Destructive, ClassSource::Unclassified),
            ("bare__read_x", Destructive, ClassSource::Unclassified),
            ("unknown__read_x", Destructive, ClassSource::Unclassified),
        ] {
            let found = settings.classify(&tool(name), ToolHints::default());
            assert_eq!(found, (class, source), "{name}");
        }
    }

    #[test]
    fn hints_only_make_it_stricter() {
        use EffectClass::{Destructive, Read, Write};
        let settings = settings();
        for (name, read_only, destructive, expected) in [
            ("fs__read_x", Some(true), Some(true), Read),
            ("fs__read_x", Some(false), None, Write),
            ("fs__read_x", Some(false), Some(false), Write),
            ("fs__read_x", Some(false), Some(true), Destructive),
            ("fs__read_x", None, Some(true), Destructive),
            ("fs__write_x", Some(true), Some(false), Write),
            ("fs__write_x", None, Some(true), Destructive),
            ("fs__write_all", Some(true), Some(false), Destructive),
            ("fs__unclassified", Some(true), Some(false), Destructive),
        ] {
            let hints = ToolHints { read_only, destructive, open_world: None };
            let (class, source) = settings.classify(&tool(name), hints);
            assert_eq!(class, expected, "{name} {hints:?}");
            let (plain, _) = settings.classify(&tool(name), ToolHints::default());
            assert_eq!(source == ClassSource::Annotation, class > plain, "{name} {hints:?}");
        }
    }

    fn located(name: &str, parameters: &Value) -> (String, String, bool) {
        let target = settings().target(&tool(name), parameters);
        (target.resource, target.environment, target.environment_resolved)
    }

    #[test]
    fn the_target_follows_resource_then_server_then_the_servers_environment() {
        for (name, path, resource, environment, resolved) in [
            ("fs__write_file", "/srv/prod/x", "file:///srv/prod/x", "prod", true),
            ("fs__write_file", "/srv/app/../prod", "file:///srv/prod", "prod", true),
            ("fs__write_file", "../prod/x", "file:///srv/prod/x", "prod", true),
            ("fs__write_file", "/srv/a/stage/x", "file:///srv/a/stage/x", "stage", true),
            ("fs__write_file", "/srv/prod/stage/x", "file:///srv/prod/stage/x", "prod", true),
            ("fs__write_file", "/srv/a/stage/t", "file:///srv/a/stage/t", "prod", false),
            ("fs__write_file", "/home/x", "file:///home/x", "dev", true),
            ("fs__write_file", "", "mcp://fs/write_file", "prod", false),
            ("fs__list", "/srv/prod/x", "mcp://fs/list", "dev", true),
            ("pg__query", "", "mcp://pg/query", "stage", true),
            ("bare__x", "", "mcp://bare/x", "prod", false),
            ("unknown__x", "", "mcp://unknown/x", "prod", false),
        ] {
            let expected = (resource.to_owned(), environment.to_owned(), resolved);
            assert_eq!(located(name, &json!({ "path": path })), expected, "{name} {path}");
        }
    }

    #[test]
    fn surfaces_match_by_resource_or_by_tool() {
        let settings = settings();
        let surfaces = |name: &str, parameters: Value| {
            settings.target(&tool(name), &parameters).surfaces.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(surfaces("fs__write_file", json!({"path": "x/.env"})), ["secrets"]);
        assert_eq!(surfaces("fs__write_file", json!({"path": "x/env"})), [""; 0]);
        assert_eq!(surfaces("pg__query", json!({})), ["billing"]);
    }

    #[test]
    fn a_target_that_cannot_be_named_lies_on_every_surface_of_resources() {
        let settings = settings();
        for path in [json!({}), json!({"path": "~/x"}), json!({"path": "/proc/self/root/x"})] {
            let target = settings.target(&tool("fs__write_file"), &path);
            assert!(target.surfaces.contains("secrets"), "{path}: {target:?}");
            assert_eq!((target.environment.as_str(), target.environment_resolved), ("prod", false));
        }
    }

    #[test]
    fn a_freeze_covers_its_first_but_not_its_last_moment() {
        let settings = settings();
        for (at, expected) in
            [(9, vec![]), (10, vec!["year-end"]), (15, vec!["launch", "year-end"]), (20, vec![])]
        {
            let expected: BTreeSet<_> = expected.into_iter().map(str::to_owned).collect();
            assert_eq!(settings.freezes_at(Timestamp(at)), expected, "{at}");
        }
        assert!(Freeze::new("x".to_owned(), Timestamp(5), Timestamp(5)).is_err());
    }

    #[test]
    fn agents_have_declared_owners() {
        let facts = settings().agent(&"coder".parse().unwrap()).unwrap();
        assert_eq!((facts.owner, facts.mode), (Some("platform".parse().unwrap()), Mode::Auto));
        assert_eq!(settings().agent(&"nobody".parse().unwrap()), None);
        let mut orphaned = parts();
        orphaned.teams.clear();
        let fault = Settings::new(orphaned).unwrap_err();
        assert!(matches!(fault, SettingsFault::UndeclaredOwner { .. }));
    }

    #[test]
    fn the_digest_moves_with_every_part() {
        let mut digests = BTreeSet::from([settings().digest().to_string()]);
        let changes: [fn(&mut SettingsParts); 6] = [
            |parts| drop(parts.teams.insert("other".parse().unwrap(), Team::default())),
            |parts| parts.agents.values_mut().for_each(|agent| agent.mode = Mode::PlanOnly),
            |parts| parts.servers.values_mut().for_each(|server| server.base = None),
            |parts| drop(parts.environments.pop()),
            |parts| drop(parts.surfaces.pop()),
            |parts| drop(parts.freezes.pop()),
        ];
        for change in changes {
            let mut parts = parts();
            change(&mut parts);
            digests.insert(Settings::new(parts).unwrap().digest().to_string());
        }
        assert_eq!(digests.len(), changes.len() + 1);
        assert_eq!(settings().digest(), settings().digest());
    }

    proptest! {
        #[test]
        fn a_target_never_panics_and_never_leaves_prod_by_dots(
            path in prop_oneof![any::<String>(), "(/|\\.|\\.\\.|srv|prod|stage|[a-z]){0,12}"],
        ) {
            let target = settings().target(&tool("fs__write_file"), &json!({ "path": path }));
            let dotted = target.resource.split('/').any(|part| part == ".." || part == ".");
            prop_assert!(!dotted, "{}", target.resource);
            let inside = target.resource.starts_with("file:///srv/prod/");
            prop_assert!(!inside || target.environment == "prod", "{:?}", target);
        }
    }
}
