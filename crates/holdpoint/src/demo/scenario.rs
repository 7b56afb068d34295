//! Scenarios: incidents as files, with what Holdpoint must answer at every step, and a benign twin.
//!
//! Owns the format, which `scenarios/README.md` describes. Must never play a scenario, nor let one
//! pass that a player could not play: every fault is found here.

use holdpoint_server::operate::Answer;
use holdpoint_server::wire::ApprovalState;
use holdpoint_types::{AgentName, ChangeCounts, OperatorName, RevertStatus, StopScope, ToolRef};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use toml::Table;

mod expectation;
mod raw;

pub use expectation::{Ending, Expectation, PreviewExpectation, Showing, counted};

/// A file of `scenarios/`, compiled into the program.
macro_rules! shipped {
    ($name:literal) => {
        Shipped {
            name: $name,
            text: include_str!(concat!("../../../../scenarios/", $name, ".toml")),
        }
    };
}

/// The incident of July 2025, as shipped.
pub const FREEZE_DROP: Shipped = shipped!("freeze-drop");

/// Every scenario that comes with the program, in the order in which they are played.
pub const SHIPPED: &[Shipped] = &[
    FREEZE_DROP,
    shipped!("tf-stale-state"),
    shipped!("found-token"),
    shipped!("toxic-flow"),
    shipped!("support-ticket"),
    shipped!("silent-mkdir"),
    shipped!("bulk-inbox"),
];

/// What an act names to have the folder of files compared.
pub const WORKSPACE: &str = "workspace";

/// A scenario that comes with the program.
#[derive(Clone, Copy, Debug)]
pub struct Shipped {
    /// Its name.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

/// One incident and its benign twin.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// What it is called.
    pub title: String,
    /// The agent that makes every call.
    pub agent: AgentName,
    /// The databases to make before each act: name to the SQL that fills it.
    pub databases: BTreeMap<String, String>,
    /// The files to write before each act: path below the workspace to text.
    pub files: BTreeMap<String, String>,
    /// The database behind the HTTP endpoint, if there is to be one.
    pub endpoint: Option<String>,
    /// Cedar policies besides the starter pack, if there are to be any.
    pub policies: Option<String>,
    /// What went wrong once, and must not again.
    pub incident: Act,
    /// The same wish where it is harmless: Holdpoint must not be in the way.
    pub twin: Act,
}

/// A course of steps under one configuration, on fresh databases.
#[derive(Clone, Debug, PartialEq)]
pub struct Act {
    /// What happens, for the reader.
    pub story: String,
    /// What the user asked for, as the agent declares it with every call.
    pub ask: Option<String>,
    /// What must be byte-identical afterwards: databases, or [`WORKSPACE`] for all files.
    pub unchanged: BTreeSet<String>,
    /// The databases that must hold afterwards what they held before, row by row.
    pub restored: BTreeSet<String>,
    /// What happens, in order.
    pub steps: Vec<Step>,
    config: Table,
}

/// What happens next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The agent calls a tool and waits for the answer.
    Call(CallStep),
    /// The operator stops something while a call is in flight.
    Stop(StopStep),
    /// An operator says yes or no to the call that was held last.
    Approval(ApprovalStep),
    /// An operator takes back what was done.
    Revert(RevertStep),
    /// The agent says beforehand what it wants to do, step by step.
    Proposal(ProposalStep),
    /// An operator accepts or refuses the plan that was proposed last.
    Ruling(RulingStep),
    /// Somebody else changes a database, past Holdpoint.
    Meanwhile(MeanwhileStep),
    /// Something that cannot be played yet.
    Pending(PendingStep),
}

/// The agent calls a tool and waits for the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct CallStep {
    /// What the timeline says about it.
    pub say: String,
    /// Whose call it is, if not the scenario's agent's.
    pub agent: Option<AgentName>,
    /// What the machine that plays must allow; where it does not, the step is left out.
    pub needs: Option<Need>,
    /// What the agent calls.
    pub call: Call,
    /// What must become of it.
    pub expect: Expectation,
}

/// What not every machine allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Need {
    /// A box for commands: namespaces of Linux.
    Box,
}

/// The operator stops something while a call is in flight.
#[derive(Clone, Debug, PartialEq)]
pub struct StopStep {
    /// What the timeline says about it.
    pub say: String,
    /// What is stopped.
    pub scope: StopScope,
    /// Why, in the operator's words.
    pub reason: String,
    /// The call that is in flight meanwhile.
    pub during: Call,
    /// What must become of that call.
    pub expect: Expectation,
}

/// An operator says yes or no to the call that was held last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalStep {
    /// What the timeline says about it.
    pub say: String,
    /// Yes or no.
    pub answer: Answer,
    /// Who says it.
    pub by: OperatorName,
    /// Why, in the operator's words.
    pub reason: String,
    /// How the approval must stand then.
    pub state: ApprovalState,
}

/// An operator takes back what was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevertStep {
    /// What the timeline says about it.
    pub say: String,
    /// What is taken back.
    pub of: RevertOf,
    /// Who does it.
    pub by: OperatorName,
    /// Why, in the operator's words.
    pub reason: String,
    /// How every action that is taken back must stand then.
    pub status: RevertStatus,
    /// How much must be put back, all of them together.
    pub restored: ChangeCounts,
}

/// What an operator takes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RevertOf {
    /// The action that was permitted last.
    Last,
    /// Every action of the task of whoever made the last call, the newest first.
    Task,
}

/// The agent says beforehand what it wants to do, step by step.
#[derive(Clone, Debug, PartialEq)]
pub struct ProposalStep {
    /// What the timeline says about it.
    pub say: String,
    /// The plan, as written: [`ProposalStep::plan`] fills it in.
    pub plan: Map<String, Value>,
    /// How the plan must stand then.
    pub state: PlanWord,
}

/// An operator accepts or refuses the plan that was proposed last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulingStep {
    /// What the timeline says about it.
    pub say: String,
    /// Whether it is accepted.
    pub answer: Answer,
    /// Who says so.
    pub by: OperatorName,
    /// Why, in the operator's words.
    pub reason: String,
    /// How the plan must stand then.
    pub state: PlanWord,
}

/// How a plan may stand after somebody did something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlanWord {
    /// It waits for an operator.
    Proposed,
    /// It is in force.
    Accepted,
    /// It was refused.
    Refused,
}

/// Somebody else changes a database, past Holdpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeanwhileStep {
    /// What the timeline says about it.
    pub say: String,
    /// Which one.
    pub database: String,
    /// How.
    pub sql: String,
}

/// Something that cannot be played yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingStep {
    /// What is to happen once it can be.
    pub say: String,
    /// What is missing.
    pub lacks: Lack,
}

/// What Holdpoint does not have yet. A word goes when the last step that waits for it is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lack {
    /// An agent that misbehaves loses its mode by itself.
    Breakers,
    /// What came from where, and for whose eyes it is.
    Labels,
    /// Credentials are found in what tools answer, and kept from the agent.
    Secrets,
}

/// One tool call.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The tool.
    pub tool: ToolRef,
    /// Its parameters, as written: [`Call::parameters`] fills them in.
    pub parameters: Map<String, Value>,
}

/// Where things are on the machine that plays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The `holdpoint` program: `${holdpoint}`.
    pub holdpoint: String,
    /// The folder of notes: `${workspace}`.
    pub workspace: String,
    /// The file of each database: `${database.NAME}`.
    pub databases: BTreeMap<String, String>,
    /// The URL of the HTTP endpoint, if there is one: `${endpoint}`.
    pub endpoint: Option<String>,
}

/// Why a scenario cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioFault {
    /// The file is no TOML, or has a key or value that the format does not know.
    #[error("{file}: {fault}")]
    Format {
        /// The file.
        file: String,
        /// What is wrong, with line and column.
        fault: Box<toml::de::Error>,
    },
    /// The file says something that makes no sense.
    #[error("{file}:{line}: {text}")]
    Content {
        /// The file.
        file: String,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong and what to do.
        text: String,
    },
    /// A `${…}` that stands for nothing.
    #[error(
        "`${{{0}}}` stands for nothing; use `holdpoint`, `workspace`, `endpoint` or \
             `database.NAME`"
    )]
    Placeholder(String),
    /// A `${` without its `}`.
    #[error("`{0}` has a `${{` without its `}}`")]
    Unclosed(String),
}

// === impl Scenario ===

impl Scenario {
    /// Reads a scenario; `file` is only for messages.
    ///
    /// # Errors
    /// When the text is no TOML, has an unknown key, or says something that cannot be played.
    pub fn parse(file: &str, text: &str) -> Result<Self, ScenarioFault> {
        raw::parse(file, text)
    }
}

// === impl Act ===

impl Act {
    /// Who makes calls besides the scenario's agent.
    pub fn agents(&self) -> impl Iterator<Item = &AgentName> {
        self.steps.iter().filter_map(|step| match step {
            Step::Call(step) => step.agent.as_ref(),
            _ => None,
        })
    }

    /// The configuration of Holdpoint for this act, with every `${…}` filled in. The player adds
    /// what is its own business: store and listener.
    ///
    /// # Errors
    /// When `places` lacks a database that the configuration names.
    pub fn config(&self, places: &Places) -> Result<Table, ScenarioFault> {
        let mut config = self.config.clone();
        for value in config.iter_mut().map(|(_, value)| value) {
            fill(value, &|name| places.get(name))?;
        }
        Ok(config)
    }
}

// === impl Lack ===

impl Lack {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Breakers => "breakers",
            Self::Labels => "labels",
            Self::Secrets => "secrets",
        }
    }
}

// === impl PlanWord ===

impl PlanWord {
    /// The word, as Holdpoint writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::Accepted => "accepted",
            Self::Refused => "refused",
        }
    }
}

// === impl ProposalStep ===

impl ProposalStep {
    /// The plan with every `${…}` filled in.
    ///
    /// # Errors
    /// When `places` lacks something that it names.
    pub fn plan(&self, places: &Places) -> Result<Map<String, Value>, ScenarioFault> {
        let mut plan = self.plan.clone();
        plan.values_mut().try_for_each(|value| fill_json(value, &|name| places.get(name)))?;
        Ok(plan)
    }
}

// === impl Call ===

impl Call {
    /// The parameters with every `${…}` filled in.
    ///
    /// # Errors
    /// When `places` lacks something that they name.
    pub fn parameters(&self, places: &Places) -> Result<Map<String, Value>, ScenarioFault> {
        let mut parameters = self.parameters.clone();
        parameters.values_mut().try_for_each(|value| fill_json(value, &|name| places.get(name)))?;
        Ok(parameters)
    }
}

// === impl Places ===

impl Places {
    fn get(&self, name: &str) -> Option<String> {
        match name {
            "holdpoint" => Some(self.holdpoint.clone()),
            "workspace" => Some(self.workspace.clone()),
            "endpoint" => self.endpoint.clone(),
            _ => self.databases.get(name.strip_prefix("database.")?).cloned(),
        }
    }
}

// === functions ===

/// Replaces every `${NAME}` in the texts of `value`.
fn fill(
    value: &mut toml::Value,
    place: &dyn Fn(&str) -> Option<String>,
) -> Result<(), ScenarioFault> {
    match value {
        toml::Value::String(text) => *text = filled(text, place)?,
        toml::Value::Array(items) => items.iter_mut().try_for_each(|item| fill(item, place))?,
        toml::Value::Table(table) => {
            table.iter_mut().try_for_each(|(_, item)| fill(item, place))?;
        }
        toml::Value::Integer(_)
        | toml::Value::Float(_)
        | toml::Value::Boolean(_)
        | toml::Value::Datetime(_) => {}
    }
    Ok(())
}

/// The same for JSON.
fn fill_json(
    value: &mut Value,
    place: &dyn Fn(&str) -> Option<String>,
) -> Result<(), ScenarioFault> {
    match value {
        Value::String(text) => *text = filled(text, place)?,
        Value::Array(items) => items.iter_mut().try_for_each(|item| fill_json(item, place))?,
        Value::Object(object) => {
            object.values_mut().try_for_each(|item| fill_json(item, place))?;
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    Ok(())
}

fn filled(text: &str, place: &dyn Fn(&str) -> Option<String>) -> Result<String, ScenarioFault> {
    let mut done = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let fault = || ScenarioFault::Unclosed(text.to_owned());
        let (name, behind) = after.split_once('}').ok_or_else(fault)?;
        done.push_str(before);
        done.push_str(&place(name).ok_or_else(|| ScenarioFault::Placeholder(name.to_owned()))?);
        rest = behind;
    }
    done.push_str(rest);
    Ok(done)
}

#[cfg(test)]
mod tests;
