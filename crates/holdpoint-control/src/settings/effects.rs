//! What the operator's settings say of the effects of a call: who may cause them, where they lie,
//! and which invariants they break. Must not know how effects are found, nor decide.

use super::{Environment, Located, Resolved, Settings};
use holdpoint_effects::{Effects, Note, NoteCode, Severity};
use holdpoint_types::{
    AgentName, Certainty, Effect, EffectClass, EffectFacts, Extent, Finding, FindingResult,
    GrantFacts, Reason, TargetFacts, ToolRef,
};
use serde_json::Value;
use std::collections::BTreeSet;

// === impl Settings ===

impl Settings {
    /// What a call of `tool` would do; absent if calls of the tool are not analysed.
    pub fn effects(&self, tool: &ToolRef, parameters: &Value) -> Option<Effects> {
        let rules = self.parts.servers.get(tool.server())?.tools.get(tool.name())?;
        if rules.effects.is_empty() {
            return None;
        }
        let mut effects = Effects::default();
        for analyser in &rules.effects {
            analyser.analyse(parameters, &mut effects);
        }
        Some(effects)
    }

    /// True if calls of `tool` are analysed.
    pub fn analyses(&self, tool: &ToolRef) -> bool {
        let rules = self.parts.servers.get(tool.server());
        let rules = rules.and_then(|rules| rules.tools.get(tool.name()));
        rules.is_some_and(|rules| !rules.effects.is_empty())
    }

    /// True if `agent` may call `tool` at all: in its class or, if calls are analysed, in any.
    pub fn reaches(&self, agent: &AgentName, tool: &ToolRef, class: EffectClass) -> bool {
        let granted = |class| self.grant_for(agent, tool, class).is_some();
        match self.analyses(tool) {
            true => EffectClass::ALL.into_iter().any(granted),
            false => granted(class),
        }
    }

    /// What is known about each of `effects`, for a call of `tool` by `agent`: the strictest first.
    pub fn effect_facts(
        &self,
        agent: &AgentName,
        tool: &ToolRef,
        effects: &Effects,
    ) -> Vec<EffectFacts> {
        // What the operator says of the tool by name is the mildest that its effects can be.
        let floor = self.parts.servers.get(tool.server());
        let floor = floor.and_then(|rules| rules.tools.get(tool.name())?.class);
        let mut facts: Vec<_> = effects
            .iter()
            .map(|effect| {
                let effect = effect.clone().at_least(floor.unwrap_or(EffectClass::Read));
                let by = self.grant_for(agent, tool, effect.class);
                let target = self.target_of(tool, &effect);
                EffectFacts { effect, grant: GrantFacts { by }, target }
            })
            .collect();
        facts.sort_by_key(|one| (std::cmp::Reverse(one.effect.class), one.grant.by.is_some()));
        facts
    }

    /// What `notes` say as findings, about a call with these effects.
    pub fn findings<'a>(
        &'a self,
        notes: impl Iterator<Item = &'a Note>,
        effects: &'a [EffectFacts],
    ) -> impl Iterator<Item = Finding> {
        let environments: BTreeSet<&str> =
            effects.iter().map(|one| one.target.environment.as_str()).collect();
        notes.filter_map(move |note| {
            let result = self.invariant(note.code, &environments)?;
            let (code, evidence) = (note.code.as_str(), note.evidence.clone());
            Some(Finding::new(code, (result, reason(note.code)), evidence))
        })
    }

    /// What breaking an invariant is, in any of `environments`.
    fn invariant(&self, code: NoteCode, environments: &BTreeSet<&str>) -> Option<FindingResult> {
        let Some(rule) = self.parts.invariants.get(&code) else {
            return Some(match (code.severity(), reason(code)) {
                (Severity::Warn, _) => FindingResult::Warn,
                (Severity::Fail, Reason::EffectsUnreadable) => FindingResult::Opaque,
                (Severity::Fail, _) => FindingResult::Fail,
            });
        };
        let speaks = rule.environments.is_empty()
            || environments.iter().any(|name| rule.environments.contains(*name));
        (speaks && rule.result != FindingResult::Pass).then_some(rule.result)
    }

    fn target_of(&self, tool: &ToolRef, effect: &Effect) -> TargetFacts {
        let resource = &effect.resource;
        let located = self.locate_effect(tool, effect);
        let mut surfaces = self.surfaces(resource, tool);
        let reach = Reach::of(effect);
        let drawn = self.parts.surfaces.iter().filter(|surface| {
            surface.resources.iter().any(|pattern| reach.may_touch(pattern.as_str()))
        });
        surfaces.extend(drawn.map(|surface| surface.name.clone()));
        TargetFacts {
            resource: resource.clone(),
            environment: located.environment,
            environment_resolved: located.resolved == Resolved::ByRule,
            surfaces,
        }
    }

    /// The environment in which an effect lies. What a server is said to be in vouches for what is
    /// its own: files of its host and what its tools are said to work on; for all, if it is sealed.
    fn locate_effect(&self, tool: &ToolRef, effect: &Effect) -> Located {
        let rules = self.parts.servers.get(tool.server());
        let environments = &self.parts.environments;
        let sealed = rules.is_some_and(|rules| rules.sealed);
        if sealed {
            return self.locate_server(tool);
        }
        let reach = Reach::of(effect);
        let named = self.environment_resources.owners(&effect.resource);
        let touches = |rule: &Environment| {
            rule.resources.iter().any(|pattern| reach.may_touch(pattern.as_str()))
        };
        let astray = |(at, rule): (usize, &Environment)| !named.contains(&at) && touches(rule);
        if matches!(reach, Reach::Anything) || environments.iter().enumerate().any(astray) {
            // It may lie in more environments than those that name it.
            return Located::unknown();
        }
        let named = named.into_iter().filter_map(|at| environments.get(at));
        if let Some(located) = Located::among(named) {
            return located;
        }
        let addresses = rules.and_then(|rules| rules.tools.get(tool.name()));
        let mut addresses = addresses.into_iter().flat_map(|rules| &rules.effects);
        let own = effect.resource.starts_with("file:///")
            || addresses.any(|one| within(&effect.resource, &one.address()));
        if own { self.locate_server(tool) } else { Located::unknown() }
    }
}

/// Which resources an effect may reach.
#[derive(Clone, Copy)]
enum Reach<'a> {
    /// The one that it names, and what lies in it if that is a folder.
    Itself(&'a str),
    /// Everything that begins like this.
    Beginning(&'a str),
    /// That one and everything below it.
    Below(&'a str),
    /// Nobody knows.
    Anything,
}

// === impl Reach ===

impl<'a> Reach<'a> {
    fn of(effect: &'a Effect) -> Self {
        let resource = effect.resource.as_str();
        // A name that is certain may hold such signs as they are.
        let wild: &[char] = match effect.certainty {
            Certainty::Exact => &['*'],
            Certainty::Bounded | Certainty::Opaque => &['*', '?', '['],
        };
        match (effect.certainty, resource.split_once(wild), effect.extent) {
            (Certainty::Opaque, _, _) => Self::Anything,
            (_, Some((prefix, _)), _) => Self::Beginning(prefix),
            (_, None, Extent::Whole) => Self::Below(resource.trim_end_matches('/')),
            (_, None, Extent::Part) => Self::Itself(resource.trim_end_matches('/')),
        }
    }

    /// True if something that `pattern` matches may be reached besides the resource itself.
    /// Patterns are compared by what stands before their first wildcard, so that this may say yes
    /// too often, never too rarely.
    fn may_touch(self, pattern: &str) -> bool {
        let literal = pattern.split(['*', '?', '[', '{', '\\']).next().unwrap_or_default();
        match self {
            Self::Itself(above) => {
                literal.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))
            }
            Self::Anything => true,
            Self::Beginning(prefix) => literal.starts_with(prefix) || prefix.starts_with(literal),
            Self::Below(above) => {
                let below = literal.strip_prefix(above);
                let inside = literal.len() < pattern.len() && above.starts_with(literal);
                inside || below.is_some_and(|rest| rest.starts_with('/'))
            }
        }
    }
}

fn within(resource: &str, address: &str) -> bool {
    let rest = resource.strip_prefix(address);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '.', '#']))
}

fn reason(code: NoteCode) -> Reason {
    match code {
        NoteCode::Unreadable | NoteCode::TooLarge => Reason::EffectsUnreadable,
        NoteCode::MassChange
        | NoteCode::StatefulDelete
        | NoteCode::WildcardPrivilege
        | NoteCode::PrivilegeWidened
        | NoteCode::NetworkWidened
        | NoteCode::StateLossSuspected
        | NoteCode::StateFileWritten
        | NoteCode::HistoryRewritten
        | NoteCode::PipelineChanged
        | NoteCode::CredentialInCall
        | NoteCode::CredentialTouched
        | NoteCode::OutsideWorkspace
        | NoteCode::HostNotAllowed
        | NoteCode::DeferredExecution
        | NoteCode::CheckRemoved
        | NoteCode::UnseenCode => Reason::InvariantBroken,
    }
}

#[cfg(test)]
mod tests {
    use super::Settings;
    use crate::settings::{
        Environment, Invariant, ResourcePattern, ServerRules, SettingsParts, Surface, ToolRules,
    };
    use holdpoint_effects::{Analyser, Database, Dialect, Family, NoteCode, Place, Source};
    use holdpoint_types::{EffectClass, FindingResult, ToolRef};
    use serde_json::{Value, json};
    use std::collections::{BTreeMap, BTreeSet};

    fn resources(texts: &[&str]) -> Vec<ResourcePattern> {
        texts.iter().map(|text| ResourcePattern::parse(text).unwrap()).collect()
    }

    fn surface(name: &str, patterns: &[&str]) -> Surface {
        Surface { name: name.to_owned(), resources: resources(patterns), tools: Vec::new() }
    }

    fn rules(family: Family, class: Option<EffectClass>) -> ToolRules {
        let place = Place { cwd: Some("/srv/app".to_owned()), ..Place::default() };
        ToolRules { class, resource: None, effects: vec![Analyser { place, family }] }
    }

    fn parts(sealed: bool) -> SettingsParts {
        let text = || Source::parse("/text").unwrap();
        let sql =
            Family::Sql { text: text(), database: Database::new(Dialect::Postgres, "pg://o") };
        let shell = || Family::Shell { text: text(), cwd: None };
        let tools = BTreeMap::from([
            ("sql".to_owned(), rules(sql, None)),
            ("run".to_owned(), rules(shell(), None)),
            ("careful".to_owned(), rules(shell(), Some(EffectClass::Write))),
        ]);
        let environment = Some("dev".to_owned());
        let server = ServerRules { environment, tools, sealed, ..ServerRules::default() };
        let environment = |name: &str, patterns: &[&str]| Environment {
            name: name.to_owned(),
            resources: resources(patterns),
            servers: BTreeSet::new(),
        };
        SettingsParts {
            servers: BTreeMap::from([("box".parse().unwrap(), server)]),
            environments: vec![
                environment("prod", &["file:///srv/prod/**"]),
                environment("test", &["file:///srv/test/**"]),
            ],
            surfaces: vec![
                surface("auth", &["file:///srv/app/auth/**"]),
                surface("orders", &["pg://o/public.orders"]),
            ],
            ..SettingsParts::default()
        }
    }

    /// Each effect of a call: class, verb, resource, environment and surfaces.
    fn said(parts: SettingsParts, tool: &str, text: &str) -> Vec<String> {
        let settings = Settings::new(parts).unwrap();
        let tool = ToolRef::new("box".parse().unwrap(), tool).unwrap();
        let effects = settings.effects(&tool, &json!({ "text": text })).unwrap();
        let facts = settings.effect_facts(&"coder".parse().unwrap(), &tool, &effects);
        let shown = facts.iter().map(|one| {
            let surfaces: Vec<_> = one.target.surfaces.iter().map(String::as_str).collect();
            let sure = if one.target.environment_resolved { "" } else { "?" };
            format!(
                "{} {} {} {}{sure} [{}]",
                one.effect.class,
                one.effect.verb,
                one.effect.resource,
                one.target.environment,
                surfaces.join(" "),
            )
        });
        shown.collect()
    }

    #[test]
    fn what_is_the_servers_own_lies_where_the_server_is() {
        let drop = said(parts(false), "sql", "DROP TABLE orders");
        assert_eq!(drop, ["destructive delete pg://o/public.orders dev [orders]"]);
        let file = said(parts(false), "run", "rm x");
        assert_eq!(file, ["destructive delete file:///srv/app/x dev []"]);
        let ruled = said(parts(false), "run", "rm /srv/test/x");
        assert_eq!(ruled, ["destructive delete file:///srv/test/x test []"]);
    }

    #[test]
    fn what_lies_elsewhere_counts_as_prod() {
        let other = said(parts(false), "run", "curl -X DELETE https://api.example.com/users/1");
        assert!(other[0].starts_with("destructive delete https://api.example.com/users/1 prod?"));
        let opaque = said(parts(false), "run", "python3 x.py");
        let hidden = "destructive execute host://localhost prod? [auth orders]";
        assert!(opaque.contains(&hidden.to_owned()), "{opaque:?}");
        let sealed = said(parts(true), "run", "python3 x.py");
        let hidden = "destructive execute host://localhost dev [auth orders]";
        assert!(sealed.contains(&hidden.to_owned()), "{sealed:?}");
    }

    #[test]
    fn what_reaches_further_counts_as_everywhere_that_it_reaches() {
        let tree = said(parts(false), "run", "rm -rf /srv");
        assert_eq!(tree, ["destructive delete file:///srv prod? [auth]"]);
        let glob = said(parts(false), "run", "rm /srv/*/x");
        assert!(glob[0].ends_with("prod? [auth]"), "{glob:?}");
        for glob in ["rm /srv/[p]rod/x", "rm /srv/p?od/x", "rm -r /srv/p?od"] {
            assert!(said(parts(false), "run", glob)[0].contains(" prod? "), "{glob}");
        }
        for folder in ["chmod -R 700 /srv", "mv /srv/app /srv/old"] {
            let found = said(parts(false), "run", folder);
            assert!(found.iter().any(|one| one.ends_with("[auth]")), "{found:?}");
        }
        let mut anywhere = parts(false);
        anywhere.surfaces.push(surface("keys", &["file:///**/keys/**"]));
        let tree = said(anywhere, "run", "rm -rf /srv/app");
        assert!(tree[0].ends_with("[auth keys]"), "{tree:?}");
        let inside = said(parts(false), "run", "rm -rf /srv/test/a");
        assert_eq!(inside, ["destructive delete file:///srv/test/a test []"]);
    }

    #[test]
    fn an_operators_class_is_the_mildest_that_counts() {
        assert_eq!(said(parts(false), "careful", "cat x"), ["write read file:///srv/app/x dev []"]);
    }

    #[test]
    fn invariants_speak_where_the_operator_lets_them() {
        let check = |rule: Option<(FindingResult, &[&str])>| {
            let mut parts = parts(false);
            let rule = rule.map(|(result, names)| {
                let environments = names.iter().map(|name| (*name).to_owned()).collect();
                (NoteCode::MassChange, Invariant { result, environments })
            });
            parts.invariants.extend(rule);
            let settings = Settings::new(parts).unwrap();
            let tool = ToolRef::new("box".parse().unwrap(), "sql").unwrap();
            let call: Value = json!({ "text": "DELETE FROM orders" });
            let effects = settings.effects(&tool, &call).unwrap();
            let facts = settings.effect_facts(&"coder".parse().unwrap(), &tool, &effects);
            let found = settings.findings(effects.notes(), &facts);
            let mass = found.filter(|finding| finding.validator == "mass_change");
            mass.map(|finding| finding.result).collect::<Vec<_>>()
        };
        assert_eq!(check(None), [FindingResult::Fail]);
        assert_eq!(check(Some((FindingResult::Warn, &[]))), [FindingResult::Warn]);
        assert_eq!(check(Some((FindingResult::Pass, &[]))), []);
        assert_eq!(check(Some((FindingResult::Fail, &["dev"]))), [FindingResult::Fail]);
        assert_eq!(check(Some((FindingResult::Fail, &["test"]))), []);
    }
}
