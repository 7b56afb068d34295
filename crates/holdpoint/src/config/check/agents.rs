//! Checks teams, agents and grants.

use super::Checker;
use crate::config::raw::{At, Named, RawAgent, RawGrant, RawTeam};
use holdpoint_control::{Agent, Grant, Team, ToolPattern};
use holdpoint_server::governor::OPERATOR;
use holdpoint_types::{AgentName, EffectClass, Mode, TeamName};
use std::collections::BTreeMap;
use std::ops::Range;

// === impl Checker ===

impl Checker<'_> {
    pub(super) fn teams(&mut self, raw: &Named<RawTeam>) -> BTreeMap<TeamName, Team> {
        let mut teams = BTreeMap::new();
        for (name, team) in raw {
            let on_call = team.get().on_call.as_ref().map(|route| route.get().clone());
            if let Some(name) = self.parse_name(name) {
                teams.insert(name, Team { on_call });
            }
        }
        teams
    }

    pub(super) fn agents(&mut self, raw: &Named<RawAgent>) -> BTreeMap<AgentName, Agent> {
        let mut agents = BTreeMap::new();
        for (name, agent) in raw {
            let parsed = self.parse_name(name);
            if name.get() == OPERATOR {
                let message = "no agent can be called `operator`: reverts act under this name";
                self.fault(name.span(), message.to_owned(), None);
            }
            let checked = self.agent(name, agent);
            if let (Some(name), Some(agent)) = (parsed, checked) {
                agents.insert(name, agent);
            }
        }
        agents
    }

    fn agent(&mut self, name: &At<String>, raw: &At<RawAgent>) -> Option<Agent> {
        let span = raw.span();
        let RawAgent { owner, mode, grant, grants, requesters, oauth: _ } = raw.get();
        let owner = self.owner(&span, owner.as_ref());
        let written: Vec<_> = grant.iter().chain(grants).collect();
        let taken = ["grant", "grants"].iter().any(|key| self.dropped.has(span.start, key));
        if written.is_empty() && !taken {
            // Those for a limited time stand in the store, which is not looked at here.
            let message = format!(
                "the agent `{}` has no standing grants: it reaches only what `holdpoint grant` \
                 opens for a limited time",
                name.get()
            );
            let example = "add `grants = [{ class = \"read\", tools = [\"*\"] }]`".to_owned();
            self.warn(name.span(), message, example);
        }
        let grants = written.into_iter().filter_map(|grant| self.grant(grant)).collect();
        let mode = mode.map_or(Mode::Auto, Mode::from);
        let requesters = requesters.iter().filter_map(|name| self.reference("operator", name));
        let requesters = requesters.collect();
        Some(Agent { owner: owner?, mode, grants, requesters })
    }

    fn owner(&mut self, agent: &Range<usize>, owner: Option<&At<String>>) -> Option<TeamName> {
        if owner.is_none() {
            let team = self.declared.teams.first().map_or("TEAM", String::as_str);
            let example = format!("\"{team}\"");
            self.missing(agent, "owner", &example);
        }
        self.reference("team", owner?)
    }

    fn grant(&mut self, raw: &At<RawGrant>) -> Option<Grant> {
        let span = raw.span();
        let RawGrant { class, tools } = raw.get();
        if class.is_none() {
            self.missing(&span, "class", "\"read\"");
        }
        if tools.is_none() {
            self.missing(&span, "tools", "[\"SERVER__*\"]");
        }
        let tools = tools.as_ref()?;
        let class = EffectClass::from((*class)?);
        let patterns = self.granted_tools(class, tools);
        if tools.is_empty() {
            self.warn(span, "this grant reaches nothing".to_owned(), None);
        }
        Grant::new(class, patterns).ok()
    }

    fn granted_tools(&mut self, class: EffectClass, tools: &[At<String>]) -> Vec<ToolPattern> {
        let mut patterns = Vec::new();
        for text in tools {
            let Some(pattern) = self.pattern(text, ToolPattern::parse) else { continue };
            if class == EffectClass::Destructive && pattern.full_name().is_none() {
                let message = format!(
                    "a destructive grant must name each tool in full, and `{pattern}` does not"
                );
                let example = "write `server__tool`, one entry for each tool".to_owned();
                self.fault(text.span(), message, example);
                continue;
            }
            self.warn_of_unknown_server(text, &pattern);
            patterns.push(pattern);
        }
        patterns
    }

    pub(super) fn warn_of_unknown_server(&mut self, text: &At<String>, pattern: &ToolPattern) {
        if !pattern.has_wildcard() && !pattern.as_str().contains("__") {
            let message = format!("`{pattern}` matches no tool, because tools are `server__tool`");
            self.warn(text.span(), message, None);
            return;
        }
        let Some(server) = pattern.server() else { return };
        if self.declared.servers.contains(server) {
            return;
        }
        let declared = self.declared.servers.iter().map(String::as_str);
        let near = super::nearest(server, declared);
        let suggestion = near.map(|near| format!("did you mean `{near}`?"));
        let message = format!("`{pattern}` matches nothing: the server `{server}` is not declared");
        self.warn(text.span(), message, suggestion);
    }
}
