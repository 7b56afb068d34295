//! Requests and facts: all that a decision may look at, gathered before it is made.
//! They are part of the decision record, so that every decision can be replayed from the ledger.

use crate::approval::ApprovalFacts;
use crate::class::{ClassSource, EffectClass};
use crate::decision::Finding;
use crate::digest::Digest;
use crate::effect::Effect;
use crate::ids::{ActionId, AgentName, Epoch, TaskId, TeamName, Timestamp, ToolRef};
use crate::mode::Mode;
use crate::plan::PlanFacts;
use crate::preview::{PreviewFacts, Unseen};
use crate::stop::Stop;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The edge through which a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    /// `holdpoint wrap`: MCP over standard input and output.
    McpStdio,
    /// `holdpoint serve`: MCP over streamable HTTP.
    McpHttp,
    /// `holdpoint try`: a question, never executed.
    Try,
    /// An operator who takes an action back.
    Operator,
    /// `holdpoint hook`: a host asks before it executes a call itself.
    Hook,
    /// A plan in force: Holdpoint looks at a condition of it for its agent.
    Plan,
}

/// How we know what the user wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IntentSource {
    /// The agent says so, which is no evidence.
    AgentDeclared,
    /// An operator said so, whom this machine or a key vouches for.
    Operator,
}

/// What the user wanted, word for word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The request.
    pub text: String,
    /// How we know.
    pub source: IntentSource,
}

/// One proposed tool call, as it came through a door.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The action it becomes.
    pub action: ActionId,
    /// Who asks, as the door has authenticated it.
    pub agent: AgentName,
    /// Through which door.
    pub door: Door,
    /// The tool.
    pub tool: ToolRef,
    /// The parameters, exactly as they will be forwarded: a JSON object.
    pub parameters: Value,
    /// The task it belongs to, if the agent names one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub task: Option<TaskId>,
    /// What the user wanted, if anybody told us.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub intent: Option<Intent>,
    /// Ids of what the agent says it had retrieved before.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub retrieved: Vec<String>,
    /// Digest of what the host calls it, if a host executes it: by that it says how it ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host_call: Option<Digest>,
    /// When it arrived.
    pub at: Timestamp,
}

/// What is known about the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentFacts {
    /// The team that answers for it. Without one, nothing runs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub owner: Option<TeamName>,
    /// How much it may do by itself.
    pub mode: Mode,
}

/// Whether a tool may be used at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolState {
    /// Its definition is the pinned one.
    Pinned,
    /// Its definition differs from the pinned one.
    Changed {
        /// The digest that was pinned.
        pinned: Digest,
    },
}

/// What the catalog says about the tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolFacts {
    /// Digest of the definition that the server offers now.
    pub definition: Digest,
    /// Whether that is the pinned one.
    pub state: ToolState,
    /// Its effect class.
    pub class: EffectClass,
    /// Where the class came from.
    pub class_source: ClassSource,
    /// True if the tool says it reaches beyond its own domain (`openWorldHint`).
    pub open_world: bool,
}

/// Which of the agent's grants reach the call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantFacts {
    /// The grant that reaches the tool in its class, as the operator wrote it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub by: Option<String>,
}

/// What the call is aimed at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetFacts {
    /// The typed address of the resource.
    pub resource: String,
    /// The environment it lies in. An unresolved one is `prod`.
    pub environment: String,
    /// False if no rule of the operator names the environment.
    pub environment_resolved: bool,
    /// The surfaces it belongs to.
    pub surfaces: BTreeSet<String>,
}

/// One effect of the call, and what is known about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectFacts {
    /// What would be done.
    pub effect: Effect,
    /// The agent's grants for it.
    pub grant: GrantFacts,
    /// What it is aimed at.
    pub target: TargetFacts,
}

/// One thing that a call must be allowed to do: an effect of it, or, where nobody can tell its
/// effects, the call itself.
#[derive(Clone, Copy, Debug)]
pub struct Aim<'a> {
    /// How dangerous it is.
    pub class: EffectClass,
    /// The agent's grants for it.
    pub grant: &'a GrantFacts,
    /// What it is aimed at.
    pub target: &'a TargetFacts,
    /// The effect; absent if it is the call itself.
    pub effect: Option<&'a Effect>,
}

/// Everything a decision may look at besides the request, the policies and the time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The agent; absent if unknown.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agent: Option<AgentFacts>,
    /// The tool; absent if the server does not offer it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tool: Option<ToolFacts>,
    /// The agent's grants for this call: for its strictest effect, if they are known.
    pub grant: GrantFacts,
    /// The target: that of the strictest effect, if they are known.
    pub target: TargetFacts,
    /// What the call would do, for tools whose calls are analysed.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub effects: Vec<EffectFacts>,
    /// Names of the change freezes that are in force, and from which nothing excepts.
    pub freezes: BTreeSet<String>,
    /// The change freezes in force from which an approval excepts, each with that approval.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub freeze_exceptions: BTreeMap<String, String>,
    /// The stops that lock this call.
    pub stops: Vec<Stop>,
    /// The epoch in which these facts were gathered.
    pub epoch: Epoch,
    /// What validators found, the schema check first.
    pub findings: Vec<Finding>,
    /// What would come of the call, where that can be seen before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub preview: Option<PreviewFacts>,
    /// Why that cannot be seen, where it should be.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unseen: Option<Unseen>,
    /// What people said to exactly this call.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub approval: Option<ApprovalFacts>,
    /// How the call stands to a plan of its agent; absent if it is held to none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub plan: Option<PlanFacts>,
}

// === impl Aim ===

impl Aim<'_> {
    /// `text`, with the effect that it is about.
    pub fn told(&self, text: &str) -> String {
        match self.effect {
            None => text.to_owned(),
            Some(Effect { verb, resource, evidence, .. }) => {
                format!("{text} ({verb} {resource}: {evidence})")
            }
        }
    }
}

// === impl EffectFacts ===

impl EffectFacts {
    fn aim(&self) -> Aim<'_> {
        let Self { effect, grant, target } = self;
        Aim { class: effect.class, grant, target, effect: Some(effect) }
    }
}

// === impl Facts ===

impl Facts {
    /// True if the call is a part of an accepted plan.
    pub fn is_planned(&self) -> bool {
        self.plan.as_ref().is_some_and(PlanFacts::is_planned)
    }

    /// Everything that the call must be allowed to do; never nothing. An unknown tool counts as
    /// destructive.
    pub fn aims(&self) -> impl Iterator<Item = Aim<'_>> {
        let class = self.tool.as_ref().map_or(EffectClass::Destructive, |tool| tool.class);
        let call = Aim { class, grant: &self.grant, target: &self.target, effect: None };
        let call = self.effects.is_empty().then_some(call);
        call.into_iter().chain(self.effects.iter().map(EffectFacts::aim))
    }
}
