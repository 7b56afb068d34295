//! What an operator declares, piece by piece and already checked: teams, agents, grants, servers,
//! environments and surfaces. Must not hold secrets, commands or paths of this machine,
//! except the folder against which a server reads relative paths.

use super::approvers::{ApprovalRule, Operator};
use super::freezes::Freeze;
use super::pattern::{ResourcePattern, ToolPattern};
use super::template::ResourceTemplate;
use crate::plan::PlanRules;
use holdpoint_effects::{Analyser, NoteCode};
use holdpoint_types::{
    AgentName, Digest, EffectClass, FindingResult, Mode, OperatorName, ServerName, TeamName,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that an operator declares about who may do what, and where.
#[derive(Clone, Debug, Default)]
pub struct SettingsParts {
    /// The teams that own agents.
    pub teams: BTreeMap<TeamName, Team>,
    /// The agents.
    pub agents: BTreeMap<AgentName, Agent>,
    /// The upstream servers.
    pub servers: BTreeMap<ServerName, ServerRules>,
    /// The environments that have rules.
    pub environments: Vec<Environment>,
    /// The surfaces.
    pub surfaces: Vec<Surface>,
    /// The change freezes.
    pub freezes: Vec<Freeze>,
    /// Who may speak for the operator.
    pub operators: BTreeMap<OperatorName, Operator>,
    /// What approvals need, by the names that rules call them.
    pub approvals: BTreeMap<String, ApprovalRule>,
    /// What the operator says about single invariants.
    pub invariants: BTreeMap<NoteCode, Invariant>,
    /// What the operator says about plans; without it nobody can propose any.
    pub plans: Option<PlanRules>,
}

/// A team that answers for agents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Team {
    /// How to reach whoever is on call, in the operator's words.
    pub on_call: Option<String>,
}

/// A named identity that acts.
#[derive(Clone, Debug)]
pub struct Agent {
    /// The team that answers for it.
    pub owner: TeamName,
    /// How much it may do by itself.
    pub mode: Mode,
    /// What it may reach. Nothing, if empty.
    pub grants: Vec<Grant>,
    /// The operators for whom it acts: they cannot approve what it does.
    pub requesters: BTreeSet<OperatorName>,
}

/// Tools that an agent may reach in one effect class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    class: EffectClass,
    tools: Vec<ToolPattern>,
}

/// A destructive grant that does not name its tools in full.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "a destructive grant must name each tool in full as `server__tool`, and `{pattern}` does not"
)]
pub struct GrantFault {
    /// The pattern that names no single tool.
    pub pattern: String,
}

/// How the tools of one server are classified, and where they act.
#[derive(Clone, Debug, Default)]
pub struct ServerRules {
    /// The environment of its tools where no `[[environment]]` says otherwise.
    pub environment: Option<String>,
    /// The absolute folder against which it reads relative paths, if that is known.
    pub base: Option<String>,
    /// Patterns over its own tool names that only read.
    pub read: Vec<ToolPattern>,
    /// Patterns over its own tool names that write.
    pub write: Vec<ToolPattern>,
    /// Patterns over its own tool names that destroy.
    pub destructive: Vec<ToolPattern>,
    /// Rules for single tools, by the tool's own name.
    pub tools: BTreeMap<String, ToolRules>,
    /// What it may not ask of agents.
    pub forbidden_asks: BTreeSet<ServerAsk>,
    /// True if nothing outside of its environment can be reached from it, whatever it is told.
    pub sealed: bool,
    /// True if it is no server but a host, which executes its tools itself and asks before.
    pub hosted: bool,
    /// Digest of what is behind it: a command, a URL, a database. An approval is for that one.
    pub behind: Option<Digest>,
}

/// What a server can ask of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServerAsk {
    /// To have its model say something (`sampling/createMessage`).
    Sampling,
    /// To ask its user something (`elicitation/create`).
    Elicitation,
    /// Where it works (`roots/list`).
    Roots,
}

/// What the operator says about one tool.
#[derive(Clone, Debug, Default)]
pub struct ToolRules {
    /// Its class; wins over the server's patterns.
    pub class: Option<EffectClass>,
    /// How its parameters name the resource.
    pub resource: Option<ResourceTemplate>,
    /// How its calls are analysed; not at all, if empty.
    pub effects: Vec<Analyser>,
}

/// What is done when an invariant is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invariant {
    /// What its finding is.
    pub result: FindingResult,
    /// The environments where it speaks; all, if there are none.
    pub environments: BTreeSet<String>,
}

/// Where resources live, as far as danger is concerned: `prod`, `dev`, ….
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// Its name.
    pub name: String,
    /// The resources that lie in it.
    pub resources: Vec<ResourcePattern>,
    /// The servers all of whose tools act in it.
    pub servers: BTreeSet<ServerName>,
}

/// A named set of resources with shared danger: `auth`, `billing`, ….
#[derive(Clone, Debug, Default)]
pub struct Surface {
    /// Its name.
    pub name: String,
    /// The resources that belong to it.
    pub resources: Vec<ResourcePattern>,
    /// The tools all of whose calls belong to it.
    pub tools: Vec<ToolPattern>,
}

// === impl SettingsParts ===

impl SettingsParts {
    /// Every part as JSON with a fixed shape; its canonical form is what the digest covers.
    pub(super) fn describe(&self) -> Value {
        let teams = self
            .teams
            .iter()
            .map(|(name, team)| (name.to_string(), json!({ "on_call": team.on_call })));
        let agents = self.agents.iter().map(|(name, agent)| (name.to_string(), agent.describe()));
        let servers = self.servers.iter().map(|(name, rules)| (name.to_string(), rules.describe()));
        let invariants = self.invariants.iter();
        let invariants = invariants.map(|(code, rule)| (code.as_str().to_owned(), rule.describe()));
        let operators = self.operators.iter().map(|(name, one)| (name.to_string(), one.describe()));
        let approvals = self.approvals.iter().map(|(name, rule)| (name.clone(), rule.describe()));
        json!({
            "teams": teams.collect::<serde_json::Map<_, _>>(),
            "agents": agents.collect::<serde_json::Map<_, _>>(),
            "servers": servers.collect::<serde_json::Map<_, _>>(),
            "environments": self.environments.iter().map(Environment::describe).collect::<Vec<_>>(),
            "surfaces": self.surfaces.iter().map(Surface::describe).collect::<Vec<_>>(),
            "freezes": self.freezes.iter().map(Freeze::describe).collect::<Vec<_>>(),
            "invariants": invariants.collect::<serde_json::Map<_, _>>(),
            "operators": operators.collect::<serde_json::Map<_, _>>(),
            "approvals": approvals.collect::<serde_json::Map<_, _>>(),
            "plans": self.plans.as_ref().map(PlanRules::describe),
        })
    }
}

// === impl Agent ===

impl Agent {
    fn describe(&self) -> Value {
        let grants: Vec<_> = self.grants.iter().map(Grant::describe).collect();
        let (owner, mode) = (self.owner.as_str(), self.mode.as_str());
        json!({ "owner": owner, "mode": mode, "grants": grants, "requesters": self.requesters })
    }
}

// === impl Grant ===

impl Grant {
    /// Grants `tools` in `class`.
    ///
    /// # Errors
    /// When the class is destructive and a pattern is not the full name of one tool.
    pub fn new(class: EffectClass, tools: Vec<ToolPattern>) -> Result<Self, GrantFault> {
        if class == EffectClass::Destructive {
            let vague = tools.iter().find(|pattern| pattern.full_name().is_none());
            if let Some(vague) = vague {
                return Err(GrantFault { pattern: vague.as_str().to_owned() });
            }
        }
        Ok(Self { class, tools })
    }

    /// The class in which it reaches the tools.
    pub fn class(&self) -> EffectClass {
        self.class
    }

    /// The tools that it reaches.
    pub fn tools(&self) -> &[ToolPattern] {
        &self.tools
    }

    fn describe(&self) -> Value {
        json!({ "class": self.class.as_str(), "tools": tool_texts(&self.tools) })
    }
}

// === impl ServerRules ===

impl ServerRules {
    fn describe(&self) -> Value {
        let tools = self.tools.iter().map(|(name, rules)| (name.clone(), rules.describe()));
        let forbidden = self.forbidden_asks.iter().map(|ask| ask.as_str());
        json!({
            "forbidden_asks": forbidden.collect::<Vec<_>>(),
            "environment": self.environment,
            "base": self.base,
            "read": tool_texts(&self.read),
            "write": tool_texts(&self.write),
            "destructive": tool_texts(&self.destructive),
            "tools": tools.collect::<serde_json::Map<_, _>>(),
            "sealed": self.sealed,
            "hosted": self.hosted,
            "behind": self.behind,
        })
    }
}

// === impl Invariant ===

impl Invariant {
    fn describe(&self) -> Value {
        json!({ "result": self.result.as_str(), "environments": self.environments })
    }
}

// === impl ServerAsk ===

impl ServerAsk {
    /// Everything that a server can ask.
    pub const ALL: [Self; 3] = [Self::Sampling, Self::Elicitation, Self::Roots];

    /// The word for it: an agent's capability, and the beginning of the method's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sampling => "sampling",
            Self::Elicitation => "elicitation",
            Self::Roots => "roots",
        }
    }

    /// What the method `method` of a server asks for; absent if it is none of these.
    pub fn of_method(method: &str) -> Option<Self> {
        let (family, _) = method.split_once('/')?;
        Self::ALL.into_iter().find(|ask| ask.as_str() == family)
    }
}

// === impl ToolRules ===

impl ToolRules {
    fn describe(&self) -> Value {
        let resource = self.resource.as_ref().map(ResourceTemplate::as_str);
        let effects: Vec<_> = self.effects.iter().map(|one| format!("{one:?}")).collect();
        let class = self.class.map(EffectClass::as_str);
        json!({ "class": class, "resource": resource, "effects": effects })
    }
}

// === impl Environment ===

impl Environment {
    fn describe(&self) -> Value {
        let servers: Vec<_> = self.servers.iter().map(ServerName::as_str).collect();
        let resources = resource_texts(&self.resources);
        json!({ "name": self.name, "resources": resources, "servers": servers })
    }
}

// === impl Surface ===

impl Surface {
    fn describe(&self) -> Value {
        let resources = resource_texts(&self.resources);
        json!({ "name": self.name, "resources": resources, "tools": tool_texts(&self.tools) })
    }
}

fn tool_texts(patterns: &[ToolPattern]) -> Vec<&str> {
    patterns.iter().map(ToolPattern::as_str).collect()
}

fn resource_texts(patterns: &[ResourcePattern]) -> Vec<&str> {
    patterns.iter().map(ResourcePattern::as_str).collect()
}
