//! A scenario as it is written, and the way from there to one that can be played.
//!
//! Owns the keys of the file and the checks. Must never be seen outside `scenario`.

use super::{
    Act, Call, CallStep, Expectation, Lack, PendingStep, Scenario, ScenarioFault, Step, StopStep,
    WORKSPACE, fill, fill_json,
};
use holdpoint_types::{AgentName, Ruling, StopScope, ToolRef};
use serde::Deserialize;
use serde_json::{Map, Number, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};
use toml::{Spanned, Table};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScenario {
    title: String,
    agent: Spanned<AgentName>,
    #[serde(default)]
    config: Table,
    #[serde(default)]
    database: BTreeMap<Spanned<String>, RawDatabase>,
    #[serde(default)]
    files: BTreeMap<Spanned<String>, String>,
    endpoint: Option<RawEndpoint>,
    policies: Option<String>,
    incident: Spanned<RawAct>,
    twin: Spanned<RawAct>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDatabase {
    seed: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEndpoint {
    database: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAct {
    story: String,
    #[serde(default)]
    ask: Option<String>,
    #[serde(default)]
    unchanged: Vec<Spanned<String>>,
    #[serde(default)]
    config: Table,
    step: Vec<Spanned<RawStep>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    say: String,
    pending: Option<Lack>,
    tool: Option<ToolRef>,
    parameters: Option<Table>,
    operator: Option<Operator>,
    scope: Option<StopScope>,
    reason: Option<String>,
    #[serde(rename = "while")]
    during: Option<RawCall>,
    expect: Option<Expectation>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCall {
    tool: ToolRef,
    #[serde(default)]
    parameters: Table,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Operator {
    Stop,
}

/// What messages need to say where a fault is.
struct Whence<'a> {
    file: &'a str,
    text: &'a str,
}

/// What both acts share.
struct Shared<'a> {
    whence: Whence<'a>,
    config: &'a Table,
    databases: &'a BTreeMap<String, String>,
    agent: &'a AgentName,
    endpoint: bool,
}

// === impl Whence ===

impl Whence<'_> {
    fn fault(&self, start: usize, text: impl Into<String>) -> ScenarioFault {
        let before = self.text.as_bytes().iter().take(start);
        let line = before.filter(|byte| **byte == b'\n').count() + 1;
        ScenarioFault::Content { file: self.file.to_owned(), line, text: text.into() }
    }
}

// === impl Shared ===

impl Shared<'_> {
    fn act(&self, raw: Spanned<RawAct>) -> Result<Act, ScenarioFault> {
        let start = raw.span().start;
        let raw = raw.into_inner();
        let config = merged(self.config.clone(), raw.config);
        self.check_config(&config, start)?;
        let mut steps = Vec::new();
        for step in raw.step {
            let at = step.span().start;
            let step = step.into_inner().checked().map_err(|text| self.whence.fault(at, text))?;
            self.check_call(&step, &config).map_err(|text| self.whence.fault(at, text))?;
            steps.push(step);
        }
        if steps.iter().all(|step| matches!(step, Step::Pending(_))) {
            let text = "an act needs at least one `step` that is not pending";
            return Err(self.whence.fault(start, text));
        }
        let unchanged = self.unchanged(raw.unchanged)?;
        let (story, ask) = (raw.story.trim().to_owned(), raw.ask);
        Ok(Act { story, ask, unchanged, steps, config })
    }

    fn unchanged(&self, names: Vec<Spanned<String>>) -> Result<BTreeSet<String>, ScenarioFault> {
        let mut unchanged = BTreeSet::new();
        for name in names {
            let known = self.databases.contains_key(name.get_ref());
            if !known && name.get_ref() != WORKSPACE {
                let text = format!("no `[database.{}]` is declared", name.get_ref());
                return Err(self.whence.fault(name.span().start, text));
            }
            unchanged.insert(name.into_inner());
        }
        Ok(unchanged)
    }

    fn check_config(&self, config: &Table, start: usize) -> Result<(), ScenarioFault> {
        if !declares(config, "agent", self.agent.as_str()) {
            let text = format!("no `[config.agent.{}]` is declared for `agent`", self.agent);
            return Err(self.whence.fault(start, text));
        }
        let mut filled = config.clone();
        for value in filled.iter_mut().map(|(_, value)| value) {
            let done = fill(value, &|name| self.place(name));
            done.map_err(|fault| self.whence.fault(start, fault.to_string()))?;
        }
        Ok(())
    }

    fn check_call(&self, step: &Step, config: &Table) -> Result<(), String> {
        let call = match step {
            Step::Call(step) => &step.call,
            Step::Stop(step) => &step.during,
            Step::Pending(_) => return Ok(()),
        };
        if !declares(config, "server", call.tool.server().as_str()) {
            let tool = &call.tool;
            return Err(format!("no `[config.server.{}]` is declared for `{tool}`", tool.server()));
        }
        let mut filled = call.parameters.clone();
        let done = filled.values_mut().try_for_each(|v| fill_json(v, &|name| self.place(name)));
        done.map_err(|fault| fault.to_string())
    }

    /// Something for every `${…}` that can be filled in.
    fn place(&self, name: &str) -> Option<String> {
        let known = match name {
            "holdpoint" | "workspace" => true,
            "endpoint" => self.endpoint,
            name => name.strip_prefix("database.").is_some_and(|n| self.databases.contains_key(n)),
        };
        known.then(String::new)
    }
}

// === impl RawStep ===

impl RawStep {
    fn checked(self) -> Result<Step, String> {
        if let Some(lacks) = self.pending {
            return self.pending(lacks);
        }
        let expect = self.expect.clone().ok_or("a step needs `expect`, or `pending`")?;
        check_expectation(&expect)?;
        match self.operator {
            None => self.call(expect),
            Some(Operator::Stop) => self.stop(expect),
        }
    }

    /// It is not played, so it has nothing that could go stale unnoticed.
    fn pending(self, lacks: Lack) -> Result<Step, String> {
        let call = self.tool.is_some() || self.parameters.is_some() || self.expect.is_some();
        let stop = self.operator.is_some() || self.scope.is_some() || self.reason.is_some();
        if call || stop || self.during.is_some() {
            return Err("a pending step has only `say`: nothing else of it is checked".to_owned());
        }
        Ok(Step::Pending(PendingStep { say: self.say, lacks }))
    }

    fn call(self, expect: Expectation) -> Result<Step, String> {
        if self.scope.is_some() || self.reason.is_some() || self.during.is_some() {
            return Err("`scope`, `reason` and `while` belong to `operator = \"stop\"`".to_owned());
        }
        let tool = self.tool.ok_or("a step needs `tool`, or `operator = \"stop\"`")?;
        let parameters = to_object(self.parameters.unwrap_or_default())?;
        let call = Call { tool, parameters };
        Ok(Step::Call(CallStep { say: self.say, call, expect }))
    }

    fn stop(self, expect: Expectation) -> Result<Step, String> {
        if self.tool.is_some() || self.parameters.is_some() {
            return Err("a stop's call is written as `while = { tool, parameters }`".to_owned());
        }
        if expect.ruling != Ruling::Permit {
            return Err("only a call that is permitted can be in flight during a stop".to_owned());
        }
        let scope = self.scope.ok_or("a stop needs `scope`, for example `agent:coder`")?;
        let reason = self.reason.ok_or("a stop needs `reason`")?;
        let during = self.during.ok_or("a stop needs `while`, the call in flight")?;
        let during = Call { tool: during.tool, parameters: to_object(during.parameters)? };
        let say = self.say;
        Ok(Step::Stop(StopStep { say, scope, reason, during, expect }))
    }
}

// === functions ===

/// Reads and checks a scenario.
pub fn parse(file: &str, text: &str) -> Result<Scenario, ScenarioFault> {
    let raw: RawScenario = toml::from_str(text)
        .map_err(|fault| ScenarioFault::Format { file: file.to_owned(), fault: Box::new(fault) })?;
    let whence = Whence { file, text };
    let databases = databases(&whence, raw.database)?;
    let files = files(&whence, raw.files)?;
    let endpoint = raw.endpoint.map(|endpoint| endpoint.database);
    if let Some(name) = endpoint.as_ref().filter(|name| !databases.contains_key(name.get_ref())) {
        let text = format!("no `[database.{}]` is declared", name.get_ref());
        return Err(whence.fault(name.span().start, text));
    }
    let agent = raw.agent.into_inner();
    let shared = Shared {
        whence,
        config: &raw.config,
        databases: &databases,
        agent: &agent,
        endpoint: endpoint.is_some(),
    };
    let (incident, twin) = (shared.act(raw.incident)?, shared.act(raw.twin)?);
    let endpoint = endpoint.map(Spanned::into_inner);
    let (title, policies) = (raw.title, raw.policies);
    Ok(Scenario { title, agent, databases, files, endpoint, policies, incident, twin })
}

fn databases(
    whence: &Whence<'_>,
    raw: BTreeMap<Spanned<String>, RawDatabase>,
) -> Result<BTreeMap<String, String>, ScenarioFault> {
    let named = raw.into_iter().map(|(name, raw)| match name.get_ref() == WORKSPACE {
        true => {
            let text = format!("`{WORKSPACE}` means the folder of files; choose another name");
            Err(whence.fault(name.span().start, text))
        }
        false => Ok((name.into_inner(), raw.seed)),
    });
    named.collect()
}

/// INVARIANT: a file stays below the workspace.
fn files(
    whence: &Whence<'_>,
    raw: BTreeMap<Spanned<String>, String>,
) -> Result<BTreeMap<String, String>, ScenarioFault> {
    let mut files = BTreeMap::new();
    for (path, text) in raw {
        let mut parts = Path::new(path.get_ref()).components();
        if path.get_ref().is_empty() || !parts.all(|part| matches!(part, Component::Normal(_))) {
            let text = format!("`{}` is no path below the workspace", path.get_ref());
            return Err(whence.fault(path.span().start, text));
        }
        files.insert(path.into_inner(), text);
    }
    Ok(files)
}

fn check_expectation(expect: &Expectation) -> Result<(), String> {
    let ends = expect.outcome.is_some() || expect.outcome_reason.is_some();
    if expect.ruling != Ruling::Permit && (ends || expect.output.is_some()) {
        let ruling = expect.ruling;
        return Err(format!("`{ruling}` runs nothing, so expect no `outcome` or `output`"));
    }
    if expect.ruling != Ruling::Permit && expect.reasons.is_empty() {
        return Err(format!("say by which `reasons` the call gets `{}`", expect.ruling));
    }
    Ok(())
}

fn declares(config: &Table, section: &str, name: &str) -> bool {
    let section = config.get(section).and_then(toml::Value::as_table);
    section.is_some_and(|section| section.contains_key(name))
}

/// Tables are joined key by key; of anything else the upper one counts.
fn merged(mut lower: Table, upper: Table) -> Table {
    for (key, value) in upper {
        let joined = match (lower.remove(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => {
                toml::Value::Table(merged(below, above))
            }
            (_, value) => value,
        };
        lower.insert(key, joined);
    }
    lower
}

fn to_object(table: Table) -> Result<Map<String, Value>, String> {
    table.into_iter().map(|(key, value)| Ok((key, to_json(value)?))).collect()
}

fn to_json(value: toml::Value) -> Result<Value, String> {
    match value {
        toml::Value::String(text) => Ok(Value::String(text)),
        toml::Value::Integer(whole) => Ok(Value::from(whole)),
        toml::Value::Float(real) => {
            let number = Number::from_f64(real).map(Value::Number);
            number.ok_or_else(|| format!("`{real}` is no number in JSON"))
        }
        toml::Value::Boolean(flag) => Ok(Value::Bool(flag)),
        toml::Value::Datetime(time) => {
            Err(format!("write the time `{time}` as a text: JSON has no times"))
        }
        toml::Value::Array(items) => items.into_iter().map(to_json).collect(),
        toml::Value::Table(table) => to_object(table).map(Value::Object),
    }
}
