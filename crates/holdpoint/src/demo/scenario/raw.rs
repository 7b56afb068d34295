//! A scenario as it is written, and the way from there to one that can be played.
//!
//! Owns the keys of the file and the checks. Must never be seen outside `scenario`.

mod expected;

use super::{
    Act, ApprovalStep, Call, CallStep, Expectation, Lack, MeanwhileStep, Need, PendingStep,
    ProposalStep, RevertOf, RevertStep, RulingStep, Scenario, ScenarioFault, Step, StopStep,
    WORKSPACE, fill, fill_json,
};
use expected::RawExpectation;
use holdpoint_server::operate::Answer;
use holdpoint_types::{AgentName, OperatorName, Ruling, StopScope, ToolRef};
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
    restored: Vec<Spanned<String>>,
    #[serde(default)]
    config: Table,
    step: Vec<Spanned<RawStep>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    say: String,
    pending: Option<Lack>,
    agent: Option<AgentName>,
    needs: Option<Need>,
    tool: Option<ToolRef>,
    parameters: Option<Table>,
    operator: Option<Operator>,
    by: Option<OperatorName>,
    scope: Option<StopScope>,
    of: Option<RevertOf>,
    reason: Option<String>,
    #[serde(rename = "while")]
    during: Option<RawCall>,
    meanwhile: Option<RawChange>,
    propose: Option<Table>,
    expect: Option<RawExpectation>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCall {
    tool: ToolRef,
    #[serde(default)]
    parameters: Table,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawChange {
    database: String,
    sql: String,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Operator {
    Stop,
    Approve,
    Deny,
    Revert,
    Accept,
    Refuse,
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
            let fault = |text| self.whence.fault(at, text);
            let step = step.into_inner().checked().map_err(fault)?;
            self.check_call(&step, &config).map_err(fault)?;
            self.check_operator(&step, (&steps, raw.ask.is_some()), &config).map_err(fault)?;
            steps.push(step);
        }
        if steps.iter().all(|step| matches!(step, Step::Pending(_))) {
            let text = "an act needs at least one `step` that is not pending";
            return Err(self.whence.fault(start, text));
        }
        let unchanged = self.kept(raw.unchanged)?;
        let restored = self.kept(raw.restored)?;
        if restored.contains(WORKSPACE) {
            let text = "`restored` is for databases; files belong to `unchanged`";
            return Err(self.whence.fault(start, text));
        }
        let (story, ask) = (raw.story.trim().to_owned(), raw.ask);
        Ok(Act { story, ask, unchanged, restored, steps, config })
    }

    fn kept(&self, names: Vec<Spanned<String>>) -> Result<BTreeSet<String>, ScenarioFault> {
        let mut kept = BTreeSet::new();
        for name in names {
            let known = self.databases.contains_key(name.get_ref());
            if !known && name.get_ref() != WORKSPACE {
                let text = format!("no `[database.{}]` is declared", name.get_ref());
                return Err(self.whence.fault(name.span().start, text));
            }
            kept.insert(name.into_inner());
        }
        Ok(kept)
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
        let (call, agent) = match step {
            Step::Call(step) => (&step.call, step.agent.as_ref()),
            Step::Stop(step) => (&step.during, None),
            Step::Proposal(step) => {
                let mut filled = step.plan.clone();
                return self.check_places(&mut filled);
            }
            _ => return Ok(()),
        };
        if let Some(agent) = agent.filter(|agent| !declares(config, "agent", agent.as_str())) {
            return Err(format!("no `[config.agent.{agent}]` is declared"));
        }
        if !declares(config, "server", call.tool.server().as_str()) {
            let tool = &call.tool;
            return Err(format!("no `[config.server.{}]` is declared for `{tool}`", tool.server()));
        }
        self.check_places(&mut call.parameters.clone())
    }

    fn check_places(&self, parameters: &mut Map<String, Value>) -> Result<(), String> {
        let mut values = parameters.values_mut();
        let done = values.try_for_each(|value| fill_json(value, &|name| self.place(name)));
        done.map_err(|fault| fault.to_string())
    }

    /// There must be something for the operator to speak to, and somebody else somebody to be.
    fn check_operator(
        &self,
        step: &Step,
        (before, asked): (&[Step], bool),
        config: &Table,
    ) -> Result<(), String> {
        let came = |ruling: Ruling| {
            let rules = |step: &Step| match step {
                Step::Call(step) => step.expect.ruling == ruling,
                Step::Stop(step) => step.expect.ruling == ruling,
                _ => false,
            };
            before.iter().any(rules)
        };
        let by = match step {
            Step::Approval(_) if !came(Ruling::Hold) => {
                return Err("no call before it is held, so nothing waits for an answer".to_owned());
            }
            Step::Revert(_) if !came(Ruling::Permit) => {
                return Err("no call before it is permitted, so nothing was done".to_owned());
            }
            Step::Revert(step) if step.of == RevertOf::Task && !asked => {
                return Err("an act without `ask` has no task to take back".to_owned());
            }
            Step::Meanwhile(step) if !self.databases.contains_key(&step.database) => {
                return Err(format!("no `[database.{}]` is declared", step.database));
            }
            Step::Ruling(_) if !before.iter().any(|step| matches!(step, Step::Proposal(_))) => {
                return Err("no plan is proposed before it".to_owned());
            }
            Step::Proposal(_) if !config.contains_key("plans") => {
                return Err("no `[config.plans]` lets agents propose plans".to_owned());
            }
            Step::Approval(step) => &step.by,
            Step::Revert(step) => &step.by,
            Step::Ruling(step) => &step.by,
            _ => return Ok(()),
        };
        // As in configuration: where nobody is declared, whoever owns the store may.
        match config.contains_key("operator") && !declares(config, "operator", by.as_str()) {
            true => Err(format!("no `[config.operator.{by}]` is declared")),
            false => Ok(()),
        }
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
    fn checked(mut self) -> Result<Step, String> {
        if let Some(lacks) = self.pending {
            self.has_only(&["pending"])?;
            return Ok(Step::Pending(PendingStep { say: self.say, lacks }));
        }
        if let Some(change) = self.meanwhile.take() {
            self.has_only(&[])?;
            let RawChange { database, sql } = change;
            return Ok(Step::Meanwhile(MeanwhileStep { say: self.say, database, sql }));
        }
        let expect = self.expect.take();
        let expect = expect.ok_or("a step needs `expect`, or `pending`, or `meanwhile`")?;
        match self.operator {
            None if self.propose.is_some() => self.proposal(&expect),
            None => self.call(expect.of_call()?),
            Some(Operator::Stop) => self.stop(expect.of_call()?),
            Some(Operator::Approve) => self.approval(Answer::Yes, &expect),
            Some(Operator::Deny) => self.approval(Answer::No, &expect),
            Some(Operator::Revert) => self.revert(&expect),
            Some(Operator::Accept) => self.ruling(Answer::Yes, &expect),
            Some(Operator::Refuse) => self.ruling(Answer::No, &expect),
        }
    }

    /// What is written, besides `say` and `expect`, belongs to this kind of step.
    fn has_only(&self, keys: &[&str]) -> Result<(), String> {
        let written = [
            ("pending", self.pending.is_some()),
            ("agent", self.agent.is_some()),
            ("needs", self.needs.is_some()),
            ("tool", self.tool.is_some()),
            ("parameters", self.parameters.is_some()),
            ("operator", self.operator.is_some()),
            ("by", self.by.is_some()),
            ("scope", self.scope.is_some()),
            ("of", self.of.is_some()),
            ("reason", self.reason.is_some()),
            ("while", self.during.is_some()),
            ("meanwhile", self.meanwhile.is_some()),
            ("propose", self.propose.is_some()),
            ("expect", self.expect.is_some()),
        ];
        let astray = written.iter().find(|(key, there)| *there && !keys.contains(key));
        astray.map_or(Ok(()), |(key, _)| Err(format!("`{key}` does not belong to {}", self.kind())))
    }

    fn kind(&self) -> &'static str {
        match self.operator {
            _ if self.pending.is_some() => "a pending step: nothing of it is checked",
            Some(Operator::Stop) => "a stop",
            Some(Operator::Approve | Operator::Deny) => "an answer to an approval",
            Some(Operator::Revert) => "a revert",
            Some(Operator::Accept | Operator::Refuse) => "an answer to a plan",
            None if self.propose.is_some() => "a proposal",
            None if self.tool.is_some() => "a call",
            None => "a step of this kind",
        }
    }

    fn call(self, expect: Expectation) -> Result<Step, String> {
        let tool = self.tool.clone();
        let tool = tool.ok_or("a step needs `tool`, `operator`, `meanwhile` or `pending`")?;
        self.has_only(&["agent", "needs", "tool", "parameters"])?;
        let parameters = to_object(self.parameters.clone().unwrap_or_default())?;
        let call = Call { tool, parameters };
        let Self { say, agent, needs, .. } = self;
        Ok(Step::Call(CallStep { say, agent, needs, call, expect }))
    }

    fn stop(self, expect: Expectation) -> Result<Step, String> {
        if self.tool.is_some() || self.parameters.is_some() {
            return Err("a stop's call is written as `while = { tool, parameters }`".to_owned());
        }
        self.has_only(&["operator", "scope", "reason", "while"])?;
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

    fn approval(self, answer: Answer, expect: &RawExpectation) -> Result<Step, String> {
        self.has_only(&["operator", "by", "reason"])?;
        let by = self.by.ok_or("an answer to an approval needs `by`, an operator")?;
        let reason = self.reason.ok_or("an answer to an approval needs `reason`")?;
        let state = expect.state("an approval")?;
        Ok(Step::Approval(ApprovalStep { say: self.say, answer, by, reason, state }))
    }

    fn proposal(self, expect: &RawExpectation) -> Result<Step, String> {
        self.has_only(&["propose"])?;
        let state = expect.state("a plan")?;
        let plan = to_object(self.propose.unwrap_or_default())?;
        Ok(Step::Proposal(ProposalStep { say: self.say, plan, state }))
    }

    fn ruling(self, answer: Answer, expect: &RawExpectation) -> Result<Step, String> {
        self.has_only(&["operator", "by", "reason"])?;
        let state = expect.state("a plan")?;
        let by = self.by.ok_or("an answer to a plan needs `by`, an operator")?;
        let reason = self.reason.ok_or("an answer to a plan needs `reason`")?;
        Ok(Step::Ruling(RulingStep { say: self.say, answer, by, reason, state }))
    }

    fn revert(self, expect: &RawExpectation) -> Result<Step, String> {
        self.has_only(&["operator", "by", "of", "reason"])?;
        let of = self.of.ok_or("a revert needs `of`: `last` or `task`")?;
        let by = self.by.ok_or("a revert needs `by`, an operator")?;
        let reason = self.reason.ok_or("a revert needs `reason`")?;
        let (status, restored) = expect.of_revert()?;
        Ok(Step::Revert(RevertStep { say: self.say, of, by, reason, status, restored }))
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
