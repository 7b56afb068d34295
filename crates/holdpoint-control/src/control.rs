//! The state machine: the life of every action between decision and outcome.
//!
//! Owns the epoch, the stops and the actions in flight; it alone mints permits. Inputs say what
//! happened, outputs say what to do; it does nothing itself.
//!
//! INVARIANT: a permit is minted only after the decision's record is durable, and only if neither
//! the epoch nor a stop has moved since the facts were gathered.

use crate::decide::halted;
use crate::lineage::Origin;
use crate::permit::Permit;
use holdpoint_types::{
    ActionId, ActionRecord, AgentName, ApprovalAsked, Cause, CheckPlan, Decision, DecisionRecord,
    Digest, Epoch, Facts, Field, OutcomeRecord, OutcomeStatus, Reason, RecordBody, Request, Ruling,
    Stop, TaskRecord, Timestamp, ToolOutput, ToolRef,
};
use std::collections::BTreeMap;

/// How long a permit is good for after it was minted, in milliseconds.
const PERMIT_LIFETIME_MS: i64 = 30_000;

/// One decided action, on its way into the ledger.
#[derive(Debug)]
pub struct Proposal {
    /// The request.
    pub request: Request,
    /// The facts it was decided on.
    pub facts: Facts,
    /// The decision.
    pub decision: Decision,
    /// Digest of the policy set that decided.
    pub policy: Digest,
    /// Digests of the guard sets that had a voice, by name.
    pub guards: BTreeMap<String, Digest>,
    /// Digest of the canonical form of the parameters.
    pub parameters: Digest,
    /// The checks that it needs once it has ended.
    pub checks: Vec<CheckPlan>,
    /// The approval that it asks for, if it is held.
    pub approval: Option<ApprovalAsked>,
}

/// How an executed action ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// How it ended.
    pub status: OutcomeStatus,
    /// Why, if it did not simply answer.
    pub reason: Option<Reason>,
    /// Detail for people.
    pub detail: Option<String>,
    /// What came back.
    pub output: Option<ToolOutput>,
}

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// An action was decided.
    Proposed(Box<Proposal>),
    /// The decision's record is durable.
    Recorded(ActionId),
    /// The decision's record could not be written; the action is forgotten, nothing ran. Or another
    /// process looks after its task.
    Unrecorded(ActionId),
    /// A server answered a permitted action with a task: it goes on.
    TaskGiven(ActionId, TaskRecord),
    /// An action of a process that is gone, whose task may go on: this process looks after it now.
    /// It was decided at this time.
    TaskTakenOver(Box<ActionRecord<DecisionRecord>>, TaskRecord, Timestamp),
    /// The host that asked executes a permitted action itself: its permit is used up.
    HandedOver(Permit),
    /// A host says how an action ended that was handed over to it, decided at this time.
    HostTold(Box<ActionRecord<DecisionRecord>>, Timestamp, Ending),
    /// A permitted action ended.
    Ended(ActionId, Ending),
    /// The agent took its call back.
    CancelAsked(ActionId),
    /// The store's stops, read anew.
    StopsRead {
        /// The epoch they belong to.
        epoch: Epoch,
        /// All stops in force.
        stops: Vec<Stop>,
    },
}

/// Something to do.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Write the decision's record, but only if the store's epoch still is this one; then report
    /// [`Input::Recorded`] or [`Input::Unrecorded`].
    Admit(RecordBody, Epoch),
    /// Write the decision's record, durably; then report as for `Admit`.
    Record(RecordBody),
    /// Write the record with the next flush.
    RecordLater(RecordBody),
    /// Execute.
    Execute(Permit),
    /// Do not execute: tell the agent why.
    Refuse(ActionId, Decision),
    /// Cancel a running call.
    Cancel(ActionId, Reason),
}

/// A running action, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The action.
    pub action: ActionId,
    /// Who acts.
    pub agent: AgentName,
    /// Which tool.
    pub tool: ToolRef,
    /// Since when.
    pub since: Timestamp,
    /// True if it was asked to end.
    pub cancelling: bool,
    /// True if the server answered with a task, which goes on.
    pub task: bool,
}

/// The state machine.
#[derive(Debug, Default)]
pub struct Control {
    epoch: Epoch,
    stops: Vec<Stop>,
    actions: BTreeMap<ActionId, Action>,
    /// How many of them are tasks.
    tasks: usize,
}

#[derive(Debug)]
struct Action {
    origin: Origin,
    since: Timestamp,
    state: State,
    /// True once a task goes on in its place: nobody waits for an answer.
    task: bool,
}

#[derive(Debug)]
enum State {
    /// The decision is on its way into the ledger.
    Recording { decision: Decision, permit: Option<Unminted> },
    /// A permit is out.
    Running,
    /// A permit is out and the call was asked to end.
    Cancelling(Reason),
}

/// What a permit will say, once the record is durable.
#[derive(Debug)]
struct Unminted {
    tool: ToolRef,
    parameters: Digest,
    policy: Digest,
    epoch: Epoch,
    /// True if a person approved the call.
    approved: bool,
}

// === impl Control ===

impl Control {
    /// The current epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// All stops in force.
    pub fn stops(&self) -> &[Stop] {
        &self.stops
    }

    /// The stops that lock a call of `tool` by `agent`.
    pub fn stops_on(&self, agent: &AgentName, tool: &ToolRef) -> Vec<Stop> {
        self.stops.iter().filter(|stop| stop.scope.covers(agent, tool)).cloned().collect()
    }

    /// Every action for which a permit is out, oldest first.
    pub fn running(&self) -> Vec<Running> {
        self.actions.iter().filter_map(|(id, action)| action.running(*id)).collect()
    }

    /// How many actions are between decision and outcome and wait for an answer: tasks do not.
    pub fn in_flight(&self) -> usize {
        self.actions.len().saturating_sub(self.tasks)
    }

    /// Takes in what happened and says what to do.
    pub fn handle(&mut self, input: Input, now: Timestamp) -> Vec<Output> {
        match input {
            Input::Proposed(proposal) => self.proposed(*proposal, now),
            Input::Recorded(id) => self.recorded(id, now),
            Input::Unrecorded(id) => {
                self.forget(id);
                Vec::new()
            }
            Input::TaskGiven(id, task) => self.task_given(id, task),
            Input::TaskTakenOver(record, task, since) => self.task_taken_over(*record, task, since),
            Input::HandedOver(permit) => self.handed_over(permit, now),
            Input::HostTold(record, since, ending) => {
                let (origin, state) = (Origin::recorded(*record), State::Running);
                let action = Action { origin, since, state, task: false };
                vec![Output::Record(action.outcome(ending, now))]
            }
            Input::Ended(id, ending) => self.ended(id, ending, now),
            Input::CancelAsked(id) => {
                let reason = Reason::CancelledByAgent;
                self.actions
                    .get_mut(&id)
                    .and_then(|action| action.cancel(id, reason))
                    .into_iter()
                    .collect()
            }
            Input::StopsRead { epoch, stops } => self.stops_read(epoch, stops),
        }
    }

    fn proposed(&mut self, proposal: Proposal, now: Timestamp) -> Vec<Output> {
        let Proposal { request, facts, decision, policy, guards, parameters, .. } = proposal;
        let Proposal { checks, approval, .. } = proposal;
        let id = request.action;
        let origin = Origin::new(&request, &facts, (policy, parameters), checks);
        let epoch = facts.epoch;
        let permit = match decision.ruling() {
            Ruling::Permit => {
                let (tool, approved) = (request.tool.clone(), facts.approval.is_some());
                Some(Unminted { tool, parameters, policy, epoch, approved })
            }
            Ruling::PlanOnly | Ruling::Hold | Ruling::Deny | Ruling::Halt => None,
        };
        // The origin knows which checks a permitted action needs.
        let (decided, checks) = (decision.clone(), Vec::new());
        let more = DecisionRecord { request, facts, decision: decided, checks, guards, approval };
        let record = origin.decision(more);
        let output = match permit {
            Some(_) => Output::Admit(record, epoch),
            None => Output::Record(record),
        };
        let state = State::Recording { decision, permit };
        self.actions.insert(id, Action { origin, since: now, state, task: false });
        vec![output]
    }

    fn recorded(&mut self, id: ActionId, now: Timestamp) -> Vec<Output> {
        let Some(mut action) = self.actions.remove(&id) else { return Vec::new() };
        let (decision, permit) = match std::mem::replace(&mut action.state, State::Running) {
            State::Recording { decision, permit } => (decision, permit),
            // Told twice: the permit is out already.
            state @ (State::Running | State::Cancelling(_)) => {
                action.state = state;
                self.actions.insert(id, action);
                return Vec::new();
            }
        };
        let Some(permit) = permit else { return vec![Output::Refuse(id, decision)] };
        let stops = self.stops_on(action.origin.agent(), &permit.tool);
        if permit.epoch != self.epoch || !stops.is_empty() {
            let ending = Ending::not_sent(Reason::Stopped, "a stop came before it was sent");
            let outcome = action.outcome(ending, now);
            let refused = decision.join(stops.iter().map(halted)).join(moved(stops.is_empty()));
            return vec![Output::RecordLater(outcome), Output::Refuse(id, refused)];
        }
        let expires = Timestamp(now.0.saturating_add(PERMIT_LIFETIME_MS));
        let Unminted { tool, parameters, policy, epoch, approved } = permit;
        let permit = Permit::mint(id, (tool, parameters), policy, epoch, expires);
        let permit = if approved { permit.after_approval() } else { permit };
        self.actions.insert(id, action);
        vec![Output::Execute(permit)]
    }

    fn task_given(&mut self, id: ActionId, task: TaskRecord) -> Vec<Output> {
        let Some(action) = self.actions.get_mut(&id).filter(|action| !action.task) else {
            return Vec::new();
        };
        match action.state {
            State::Recording { .. } => Vec::new(),
            State::Running | State::Cancelling(_) => {
                action.task = true;
                self.tasks += 1;
                vec![Output::Record(action.origin.task(task))]
            }
        }
    }

    fn task_taken_over(
        &mut self,
        record: ActionRecord<DecisionRecord>,
        task: TaskRecord,
        since: Timestamp,
    ) -> Vec<Output> {
        let id = record.action;
        if self.actions.contains_key(&id) {
            return Vec::new();
        }
        let origin = Origin::recorded(record);
        let given = Output::Record(origin.task(task));
        self.actions.insert(id, Action { origin, since, state: State::Running, task: true });
        self.tasks += 1;
        let stops = std::mem::take(&mut self.stops);
        let mut outputs = vec![given];
        outputs.extend(self.stops_read(self.epoch, stops));
        outputs
    }

    fn ended(&mut self, id: ActionId, mut ending: Ending, now: Timestamp) -> Vec<Output> {
        let Some(action) = self.forget(id) else { return Vec::new() };
        if let State::Cancelling(reason) = action.state
            && ending.status == OutcomeStatus::InDoubt
        {
            ending.reason = Some(reason);
        }
        vec![Output::RecordLater(action.outcome(ending, now))]
    }

    /// Lets go of an action that its host executes: nobody here can cancel it, nor see it end. One
    /// that a stop covers by now, or that nobody knows, is not handed over.
    fn handed_over(&mut self, permit: Permit, now: Timestamp) -> Vec<Output> {
        let id = permit.action();
        let stops = self.forget(id).map(|action| {
            let covering = self.stops_on(action.origin.agent(), permit.tool());
            (action, covering)
        });
        match stops {
            Some((Action { state: State::Running, .. }, stops)) if stops.is_empty() => Vec::new(),
            Some((action, stops)) => {
                let ending =
                    Ending::not_sent(Reason::Stopped, "a stop came before the host went on");
                let why = stops.iter().map(halted).chain(moved(stops.is_empty()));
                let refused = Output::Refuse(id, Decision::from_iter(why));
                vec![Output::RecordLater(action.outcome(ending, now)), refused]
            }
            None => vec![Output::Refuse(id, Decision::from_iter(moved(true)))],
        }
    }

    fn forget(&mut self, id: ActionId) -> Option<Action> {
        let action = self.actions.remove(&id)?;
        self.tasks -= usize::from(action.task);
        Some(action)
    }

    fn stops_read(&mut self, epoch: Epoch, stops: Vec<Stop>) -> Vec<Output> {
        // Reads may arrive out of order; an older one must not take a stop back.
        if epoch < self.epoch {
            return Vec::new();
        }
        self.epoch = epoch;
        self.stops = stops;
        let mut outputs = Vec::new();
        for (id, action) in &mut self.actions {
            let Some(tool) = action.origin.tool() else { continue };
            let covers = |stop: &Stop| stop.scope.covers(action.origin.agent(), tool);
            if self.stops.iter().any(covers) {
                outputs.extend(action.cancel(*id, Reason::CancelledByStop));
            }
        }
        outputs
    }
}

// === impl Action ===

impl Action {
    fn running(&self, action: ActionId) -> Option<Running> {
        let cancelling = match self.state {
            State::Recording { .. } => return None,
            State::Running => false,
            State::Cancelling(_) => true,
        };
        let (agent, tool) = (self.origin.agent().clone(), self.origin.tool()?.clone());
        Some(Running { action, agent, tool, since: self.since, cancelling, task: self.task })
    }

    /// Asks a running call to end; says nothing if it does not run or was asked as firmly before.
    fn cancel(&mut self, id: ActionId, reason: Reason) -> Option<Output> {
        match self.state {
            // A stop outranks the agent's own cancellation, never the other way round.
            State::Cancelling(before) if before == reason || before == Reason::CancelledByStop => {
                None
            }
            State::Running | State::Cancelling(_) => {
                self.state = State::Cancelling(reason);
                Some(Output::Cancel(id, reason))
            }
            State::Recording { .. } => None,
        }
    }

    fn outcome(&self, ending: Ending, now: Timestamp) -> RecordBody {
        let Ending { status, reason, detail, output } = ending;
        let elapsed = now.0.saturating_sub(self.since.0);
        let duration_ms = u64::try_from(elapsed).unwrap_or(0);
        let output = match output {
            Some(output) => Field::Present(output),
            None => Field::Absent("nothing came back".to_owned()),
        };
        let checks = Vec::new();
        let outcome = OutcomeRecord { status, reason, detail, duration_ms, checks };
        self.origin.outcome(output, outcome, now)
    }
}

// === impl Ending ===

impl Ending {
    /// An action that never left the house.
    pub fn not_sent(reason: Reason, detail: &str) -> Self {
        let detail = Some(detail.to_owned());
        Self { status: OutcomeStatus::NotSent, reason: Some(reason), detail, output: None }
    }
}

/// A permit whose epoch passed without a stop that covers it is refused all the same.
fn moved(unexplained: bool) -> Option<Cause> {
    let text = "stops changed while the decision was recorded; ask again";
    unexplained.then(|| Cause::new(Ruling::Deny, Reason::CouldNotDecide, text))
}

#[cfg(test)]
mod tests;
