//! Plans and the calls that were permitted as parts of them: a list that follows from the records,
//! so that no process needs to remember how far a plan has come. Must not check a plan, nor compare
//! a call with one.

mod access;
mod changes;

pub use changes::PLAN_CHECKER;

use super::batch::int;
use super::fault::StoreFault;
use super::query::{self, text, whole};
use super::schema;
use holdpoint_control::plan::{CallState, PlanCall, Progress};
use holdpoint_types::{
    ActionId, AgentName, DecisionRecord, EffectClass, OutcomeStatus, Plan, PlanBudget, PlanEnd,
    PlanFit, PlanId, PlanLooked, PlanNote, PlanProposed, PlanState, Record, RecordBody, Ruling,
    TaskId, Timestamp,
};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::collections::BTreeMap;

const COLUMNS: &str =
    "SELECT id, agent, task, parent, state, bound, version, expires_ms, seq FROM plans";

/// A plan as it stands in the store.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanRow {
    /// The plan.
    pub plan: Plan,
    /// What the checker remarks.
    pub notes: Vec<PlanNote>,
    /// What has become of it.
    pub state: PlanState,
    /// True if it was in force at any time: its task stays held to it.
    pub was_in_force: bool,
    /// How many changes it has seen.
    pub version: u64,
    /// The calls that were permitted as parts of it, in the order of their actions.
    pub calls: Vec<PlanCall>,
    /// What was found of the conditions after its steps.
    pub looks: Vec<PlanLooked>,
}

/// What is to become of a proposal at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnProposal {
    /// It waits for an operator.
    Wait,
    /// It is in force.
    Accept,
    /// It is refused.
    Refuse,
}

/// Whether a plan was proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proposed {
    /// It was.
    Recorded,
    /// Another plan of the task is open; a revision of it is what can be proposed.
    TaskTaken(PlanId),
    /// The agent has too many open plans.
    TooMany(u64),
    /// The plan that it revises is not open.
    ParentClosed,
}

/// Whether a plan was ruled about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanRuling {
    /// It was.
    Recorded,
    /// There is no such plan.
    Unknown,
    /// It is not waiting any more, but this.
    NotWaiting(PlanState),
}

/// One line of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    agent: String,
    task: String,
    parent: Option<String>,
    state: String,
    bound: bool,
    version: u64,
    expires_ms: i64,
    seq: u64,
}

/// The list as it follows from the records that were read so far.
#[derive(Default)]
pub(super) struct Derived {
    plans: BTreeMap<String, Line>,
    calls: BTreeMap<ActionId, (String, PlanCall)>,
    looks: BTreeMap<(String, String), u64>,
}

/// What a record means for the list.
enum Change<'a> {
    Nothing,
    Proposed(&'a PlanProposed),
    State(PlanId, PlanState),
    Called(PlanId, PlanCall),
    Looked(&'a PlanLooked),
    Ended(ActionId, CallState),
    InDoubt(&'a [ActionId]),
}

// === impl PlanRow ===

impl PlanRow {
    /// How far it has come.
    pub fn progress(&self) -> Progress {
        Progress::of(self.version, &self.calls).looked(&self.looks)
    }
}

// === impl Change ===

impl<'a> Change<'a> {
    fn of(record: &'a Record) -> Self {
        match &record.body {
            RecordBody::PlanProposed(proposed) => Self::Proposed(proposed),
            RecordBody::PlanAccepted(ruled) => Self::State(ruled.plan, PlanState::Accepted),
            RecordBody::PlanRefused(ruled) => Self::State(ruled.plan, PlanState::Refused),
            RecordBody::PlanEnded(ended) => Self::State(ended.plan, PlanState::Ended(ended.end)),
            RecordBody::PlanLooked(looked) => Self::Looked(looked),
            RecordBody::Decision(decided) => step_of(decided.action, &decided.more)
                .map_or(Self::Nothing, |(plan, call)| Self::Called(plan, call)),
            RecordBody::Outcome(ended) => {
                let state = match ended.more.status {
                    OutcomeStatus::Succeeded => CallState::Succeeded,
                    OutcomeStatus::ToolError => CallState::ToolError,
                    OutcomeStatus::NotSent => CallState::NotSent,
                    OutcomeStatus::InDoubt => CallState::InDoubt,
                };
                Self::Ended(ended.action, state)
            }
            RecordBody::Started { in_doubt, .. } | RecordBody::FoundInDoubt { in_doubt } => {
                Self::InDoubt(in_doubt)
            }
            _ => Self::Nothing,
        }
    }
}

// === impl Derived ===

impl Derived {
    pub(super) fn apply(&mut self, record: &Record, seq: u64) {
        match Change::of(record) {
            Change::Nothing => {}
            Change::Proposed(proposed) => {
                self.plans.insert(proposed.plan.id.to_string(), Line::of(&proposed.plan, seq));
            }
            Change::State(plan, state) => {
                if let Some(line) = self.plans.get_mut(&plan.to_string()) {
                    line.state = state.as_str().to_owned();
                    line.bound |= state == PlanState::Accepted;
                    line.version += 1;
                }
            }
            Change::Called(plan, call) => {
                self.moved(&plan.to_string());
                self.calls.insert(call.action, (plan.to_string(), call));
            }
            Change::Looked(looked) => {
                let plan = looked.plan.to_string();
                self.moved(&plan);
                self.looks.insert((plan, looked.step.to_string()), seq);
            }
            Change::Ended(action, state) => {
                if let Some((plan, call)) = self.calls.get_mut(&action) {
                    call.state = state;
                    let plan = plan.clone();
                    self.moved(&plan);
                }
            }
            Change::InDoubt(actions) => {
                for action in actions {
                    let Some((plan, call)) = self.calls.get_mut(action) else { continue };
                    if call.state == CallState::Running {
                        call.state = CallState::InDoubt;
                        let plan = plan.clone();
                        self.moved(&plan);
                    }
                }
            }
        }
    }

    fn moved(&mut self, plan: &str) {
        if let Some(line) = self.plans.get_mut(plan) {
            line.version += 1;
        }
    }

    /// True if the list is what follows from the records.
    pub(super) fn fits(&self, connection: &Connection) -> Result<bool, StoreFault> {
        if !schema::lists_approvals(connection)? {
            return Ok(self.plans.is_empty());
        }
        let plans: BTreeMap<_, _> = lines(connection, "", params![])?.into_iter().collect();
        let calls = calls(connection, "", params![])?.into_iter();
        let calls: BTreeMap<_, _> = calls.map(|(plan, call)| (call.action, (plan, call))).collect();
        let looks = looks(connection, "", params![])?.into_iter();
        let looks = looks.map(|(plan, step, seq)| ((plan, step), seq)).collect();
        Ok(plans == self.plans && calls == self.calls && self.looks == looks)
    }
}

// === impl Line ===

impl Line {
    fn of(plan: &Plan, seq: u64) -> Self {
        Self {
            agent: plan.agent.to_string(),
            task: plan.task.to_string(),
            parent: plan.basis.parent.map(|parent| parent.to_string()),
            state: PlanState::Proposed.as_str().to_owned(),
            bound: false,
            version: 1,
            expires_ms: plan.expires.0,
            seq,
        }
    }

    fn state(&self) -> Result<PlanState, StoreFault> {
        let found = PlanState::ALL.into_iter().find(|state| state.as_str() == self.state);
        found.ok_or_else(|| StoreFault::corrupt(format!("unexpected `{}`", self.state)))
    }
}

/// Notes what `record`, at position `seq`, means for the list.
pub(super) fn note(connection: &Connection, record: &Record, seq: u64) -> Result<(), StoreFault> {
    match Change::of(record) {
        Change::Nothing => Ok(()),
        Change::Proposed(proposed) => insert(connection, &proposed.plan, seq),
        Change::State(plan, state) => {
            let sql = "UPDATE plans SET state = ?2, bound = bound OR ?3, version = version + 1 \
                       WHERE id = ?1";
            let bound = state == PlanState::Accepted;
            let values = params![plan.to_string(), state.as_str(), bound];
            connection.prepare_cached(sql)?.execute(values)?;
            Ok(())
        }
        Change::Called(plan, call) => {
            let sql = "INSERT OR REPLACE INTO plan_calls (action, plan, step, uses, state) \
                       VALUES (?1, ?2, ?3, ?4, ?5)";
            let uses = serde_json::to_string(&call.uses);
            let uses = uses.map_err(|fault| StoreFault::corrupt(fault.to_string()))?;
            let PlanCall { action, step, state, .. } = call;
            let values =
                params![action.to_string(), plan.to_string(), step.as_str(), uses, state.as_str()];
            connection.prepare_cached(sql)?.execute(values)?;
            moved(connection, &plan.to_string())
        }
        Change::Looked(looked) => {
            let sql = "INSERT OR REPLACE INTO plan_looks (plan, step, seq) VALUES (?1, ?2, ?3)";
            let plan = looked.plan.to_string();
            let values = params![plan, looked.step.as_str(), int(seq)?];
            connection.prepare_cached(sql)?.execute(values)?;
            moved(connection, &plan)
        }
        Change::Ended(action, state) => set_state(connection, action, state),
        Change::InDoubt(actions) => {
            for action in actions {
                if call_state(connection, *action)?.is_some_and(|was| was == CallState::Running) {
                    set_state(connection, *action, CallState::InDoubt)?;
                }
            }
            Ok(())
        }
    }
}

/// Whose plan a record is about.
pub(super) fn agent_of(body: &RecordBody) -> Option<String> {
    match body {
        RecordBody::PlanProposed(proposed) => Some(proposed.plan.agent.to_string()),
        RecordBody::PlanAccepted(ruled) | RecordBody::PlanRefused(ruled) => {
            Some(ruled.agent.to_string())
        }
        RecordBody::PlanEnded(ended) => Some(ended.agent.to_string()),
        RecordBody::PlanLooked(looked) => Some(looked.agent.to_string()),
        _ => None,
    }
}

/// The step that a decision permits a call of.
fn step_of(action: ActionId, decided: &DecisionRecord) -> Option<(PlanId, PlanCall)> {
    let facts = decided.facts.plan.as_ref()?;
    let PlanFit::Step { step, uses } = &facts.fit else { return None };
    let (step, uses, state) = (step.clone(), *uses, CallState::Running);
    match decided.decision.ruling() {
        Ruling::Permit => Some((facts.plan, PlanCall { action, step, uses, state })),
        Ruling::PlanOnly | Ruling::Hold | Ruling::Deny | Ruling::Halt => None,
    }
}

fn insert(connection: &Connection, plan: &Plan, seq: u64) -> Result<(), StoreFault> {
    let sql = "INSERT INTO plans (id, agent, task, parent, state, bound, version, expires_ms, seq) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let line = Line::of(plan, seq);
    let version = int(line.version)?;
    connection.prepare_cached(sql)?.execute(params![
        plan.id.to_string(),
        line.agent,
        line.task,
        line.parent,
        line.state,
        line.bound,
        version,
        line.expires_ms,
        int(seq)?,
    ])?;
    Ok(())
}

fn moved(connection: &Connection, plan: &str) -> Result<(), StoreFault> {
    let sql = "UPDATE plans SET version = version + 1 WHERE id = ?1";
    connection.prepare_cached(sql)?.execute([plan])?;
    Ok(())
}

fn call_state(connection: &Connection, action: ActionId) -> Result<Option<CallState>, StoreFault> {
    let sql = "SELECT state FROM plan_calls WHERE action = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let found: Option<String> =
        statement.query_row([action.to_string()], |row| row.get(0)).optional()?;
    found.as_deref().map(state_of_call).transpose()
}

fn set_state(
    connection: &Connection,
    action: ActionId,
    state: CallState,
) -> Result<(), StoreFault> {
    // Asked first: most calls are part of no plan, and what returns rows is given a table for them.
    let id = action.to_string();
    let mut plan_of = connection.prepare_cached("SELECT plan FROM plan_calls WHERE action = ?1")?;
    let plan: Option<String> = plan_of.query_row([&id], |row| row.get(0)).optional()?;
    let Some(plan) = plan else { return Ok(()) };
    let sql = "UPDATE plan_calls SET state = ?2 WHERE action = ?1";
    connection.prepare_cached(sql)?.execute(params![id, state.as_str()])?;
    moved(connection, &plan)
}

fn state_of_call(text: &str) -> Result<CallState, StoreFault> {
    let found = CallState::ALL.into_iter().find(|state| state.as_str() == text);
    found.ok_or_else(|| StoreFault::corrupt(format!("unexpected `{text}`")))
}

/// True if the plan that a decision permits a call by is as far as it was when the call was
/// compared with it; and, of a call without one, if there is none that holds it.
pub(super) fn stands(
    connection: &Connection,
    decided: &DecisionRecord,
    at: Timestamp,
) -> Result<bool, StoreFault> {
    let request = &decided.request;
    let Some(facts) = &decided.facts.plan else {
        let reads = decided.facts.aims().all(|aim| aim.class == EffectClass::Read);
        return Ok(reads || !holds(connection, (&request.agent, request.task))?);
    };
    let PlanFit::Step { .. } = facts.fit else { return Ok(true) };
    let Some((_, line)) = one(connection, facts.plan)? else { return Ok(false) };
    let same = line.version == facts.version && line.state()? == PlanState::Accepted;
    Ok(same && at.0 < line.expires_ms)
}

/// True if a call of this agent and task is held to some plan, unless it only reads.
fn holds(
    connection: &Connection,
    (agent, task): (&AgentName, Option<TaskId>),
) -> Result<bool, StoreFault> {
    Ok(!holding_lines(connection, (agent, task))?.is_empty())
}

/// The plans that hold a call: with a task, the newest of the task that was in force at any time.
/// Without, all of the agent that are in force; if there is none, the newest that was, if it ended
/// before it was done: nobody gets free by letting a plan die.
fn holding_lines(
    connection: &Connection,
    (agent, task): (&AgentName, Option<TaskId>),
) -> Result<Vec<(String, Line)>, StoreFault> {
    const NEWEST: &str = "ORDER BY state = 'accepted' DESC, seq DESC LIMIT 1";
    if let Some(task) = task {
        let which = format!("WHERE agent = ?1 AND task = ?2 AND bound {NEWEST}");
        return lines(connection, &which, params![agent.as_str(), task.to_string()]);
    }
    let in_force = "WHERE agent = ?1 AND state = 'accepted' ORDER BY seq";
    let found = lines(connection, in_force, params![agent.as_str()])?;
    if !found.is_empty() {
        return Ok(found);
    }
    let which = format!("WHERE agent = ?1 AND bound {NEWEST}");
    let mut found = lines(connection, &which, params![agent.as_str()])?;
    let died = [PlanState::Ended(PlanEnd::Void), PlanState::Ended(PlanEnd::Expired)];
    found.retain(|(_, line)| died.iter().any(|state| state.as_str() == line.state));
    Ok(found)
}

// Reading.

/// The plans that hold a call of this agent and task.
pub(super) fn holding(
    connection: &Connection,
    (agent, task): (&AgentName, Option<TaskId>),
) -> Result<Vec<PlanRow>, StoreFault> {
    let snapshot = connection.unchecked_transaction()?;
    let found = holding_lines(&snapshot, (agent, task))?;
    found.iter().map(|found| row(&snapshot, found)).collect()
}

/// The agents with plans that are or were in force.
pub(super) fn held_agents(connection: &Connection) -> Result<Vec<AgentName>, StoreFault> {
    if !schema::lists_approvals(connection)? {
        return Ok(Vec::new());
    }
    let sql = "SELECT DISTINCT agent FROM plans WHERE bound ORDER BY agent";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(text(row, 0)?);
    }
    Ok(found)
}

/// The plan with this id.
pub(super) fn plan(connection: &Connection, id: PlanId) -> Result<Option<PlanRow>, StoreFault> {
    let snapshot = connection.unchecked_transaction()?;
    one(&snapshot, id)?.map(|found| row(&snapshot, &found)).transpose()
}

/// The plans that are open, or the newest `most` whatever became of them; the oldest first.
pub(super) fn list(connection: &Connection, most: Option<u32>) -> Result<Vec<PlanRow>, StoreFault> {
    let snapshot = connection.unchecked_transaction()?;
    let found = match most {
        None => {
            lines(&snapshot, "WHERE state IN ('proposed', 'accepted') ORDER BY seq", params![])?
        }
        Some(most) => {
            let mut found = lines(&snapshot, "ORDER BY seq DESC LIMIT ?1", params![most])?;
            found.reverse();
            found
        }
    };
    found.iter().map(|found| row(&snapshot, found)).collect()
}

/// The newest `most` plans of an agent, the oldest first.
pub(super) fn of_agent(
    connection: &Connection,
    agent: &AgentName,
    most: u32,
) -> Result<Vec<PlanRow>, StoreFault> {
    let snapshot = connection.unchecked_transaction()?;
    let which = "WHERE agent = ?1 ORDER BY seq DESC LIMIT ?2";
    let found = lines(&snapshot, which, params![agent.as_str(), most])?;
    found.iter().rev().map(|found| row(&snapshot, found)).collect()
}

/// The plan that the call `action` was permitted as a part of.
pub(super) fn of_call(
    connection: &Connection,
    action: ActionId,
) -> Result<Option<PlanRow>, StoreFault> {
    let snapshot = connection.unchecked_transaction()?;
    let of_action = "WHERE action = ?1";
    let found = calls(&snapshot, of_action, params![action.to_string()])?.pop();
    let Some((plan, _)) = found else { return Ok(None) };
    one(&snapshot, id_of(&plan)?)?.map(|found| row(&snapshot, &found)).transpose()
}

fn one(connection: &Connection, id: PlanId) -> Result<Option<(String, Line)>, StoreFault> {
    Ok(lines(connection, "WHERE id = ?1", params![id.to_string()])?.pop())
}

fn lines(
    connection: &Connection,
    which: &str,
    values: impl rusqlite::Params,
) -> Result<Vec<(String, Line)>, StoreFault> {
    if !schema::lists_approvals(connection)? {
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare_cached(&format!("{COLUMNS} {which}"))?;
    let mut rows = statement.query(values)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let line = Line {
            agent: row.get(1)?,
            task: row.get(2)?,
            parent: row.get(3)?,
            state: row.get(4)?,
            bound: row.get(5)?,
            version: whole(row.get(6)?)?,
            expires_ms: row.get(7)?,
            seq: whole(row.get(8)?)?,
        };
        found.push((row.get(0)?, line));
    }
    Ok(found)
}

fn calls(
    connection: &Connection,
    which: &str,
    values: impl rusqlite::Params,
) -> Result<Vec<(String, PlanCall)>, StoreFault> {
    let sql = format!("SELECT plan, action, step, uses, state FROM plan_calls {which}");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(values)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let state: String = row.get(4)?;
        let (uses, state) = (budget(row)?, state_of_call(&state)?);
        let call = PlanCall { action: text(row, 1)?, step: text(row, 2)?, uses, state };
        found.push((row.get(0)?, call));
    }
    Ok(found)
}

/// What was found of the conditions after steps: the plan, the step, and the record's position.
fn looks(
    connection: &Connection,
    which: &str,
    values: impl rusqlite::Params,
) -> Result<Vec<(String, String, u64)>, StoreFault> {
    let sql = format!("SELECT plan, step, seq FROM plan_looks {which}");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(values)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push((row.get(0)?, row.get(1)?, whole(row.get(2)?)?));
    }
    Ok(found)
}

/// The record at this position, which says what was found of the conditions after a step.
fn look_at(connection: &Connection, seq: u64) -> Result<PlanLooked, StoreFault> {
    match query::at(connection, seq)?.record.body {
        RecordBody::PlanLooked(looked) => Ok(looked),
        _ => Err(StoreFault::corrupt(format!("record {seq} looks at no step"))),
    }
}

fn budget(row: &Row<'_>) -> Result<PlanBudget, StoreFault> {
    let text: String = row.get(3)?;
    serde_json::from_str(&text).map_err(|_| unexpected(&text))
}

fn row(connection: &Connection, (id, line): &(String, Line)) -> Result<PlanRow, StoreFault> {
    let stored = query::at(connection, line.seq)?;
    let RecordBody::PlanProposed(proposed) = stored.record.body else {
        return Err(StoreFault::corrupt(format!("record {} proposes no plan", line.seq)));
    };
    let PlanProposed { plan, notes } = *proposed;
    if plan.id.to_string() != *id {
        return Err(StoreFault::corrupt(format!("record {} proposes another plan", line.seq)));
    }
    let of_plan = "WHERE plan = ?1 ORDER BY action";
    let calls = calls(connection, of_plan, params![id])?.into_iter().map(|(_, call)| call);
    let found = looks(connection, "WHERE plan = ?1 ORDER BY step", params![id])?.into_iter();
    let looks = found.map(|(.., seq)| look_at(connection, seq)).collect::<Result<_, _>>()?;
    Ok(PlanRow {
        looks,
        notes,
        state: line.state()?,
        was_in_force: line.bound,
        version: line.version,
        calls: calls.collect(),
        plan,
    })
}

fn id_of(text: &str) -> Result<PlanId, StoreFault> {
    text.parse().map_err(|_| unexpected(text))
}

fn unexpected(text: &str) -> StoreFault {
    StoreFault::corrupt(format!("unexpected `{text}`"))
}
