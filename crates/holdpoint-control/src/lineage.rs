//! Builds the records of an action, each with the eight fields of its lineage.
//! Must never leave a field out: what has no source says why it is absent.

use holdpoint_types::{
    ActionRecord, AgentName, CheckPlan, CheckRecord, DecisionRecord, Digest, Facts, Field, Finding,
    Lineage, OutcomeRecord, OutcomeStatus, RecordBody, Request, Ruling, TaskRecord, Timestamp,
    ToolOutput, ToolRef,
};

/// What the records of one action share, kept from decision to outcome.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Origin {
    agent: AgentName,
    action: holdpoint_types::ActionId,
    lineage: Lineage,
    checks: Vec<CheckPlan>,
}

// === impl Origin ===

impl Origin {
    pub(crate) fn new(
        request: &Request,
        facts: &Facts,
        (policy, parameters): (Digest, Digest),
        checks: Vec<CheckPlan>,
    ) -> Self {
        let lineage = Lineage {
            user_intent: present_or(request.intent.clone(), "nobody declared what the user wanted"),
            policy_version: Field::Present(policy),
            retrieved_context: match request.retrieved.is_empty() {
                true => Field::Absent("the agent declared nothing it had retrieved".to_owned()),
                false => Field::Present(request.retrieved.clone()),
            },
            tool: Field::Present(request.tool.clone()),
            parameters: Field::Present(parameters),
            target_resource: Field::Present(facts.target.resource.clone()),
            tool_output: Field::Absent("not executed yet".to_owned()),
            post_validation: Field::Absent(match checks.is_empty() {
                true => "no validator looks at it after it has ended".to_owned(),
                false => "each check is a record of its own".to_owned(),
            }),
        };
        Self { agent: request.agent.clone(), action: request.action, lineage, checks }
    }

    /// What the record of a decision tells.
    pub(crate) fn recorded(record: ActionRecord<DecisionRecord>) -> Self {
        let ActionRecord { action, agent, lineage, more } = record;
        Self { agent, action, lineage, checks: more.checks }
    }

    pub(crate) fn agent(&self) -> &AgentName {
        &self.agent
    }

    pub(crate) fn tool(&self) -> Option<&ToolRef> {
        match &self.lineage.tool {
            Field::Present(tool) => Some(tool),
            Field::Absent(_) => None,
        }
    }

    pub(crate) fn decision(&self, mut more: DecisionRecord) -> RecordBody {
        let mut lineage = self.lineage.clone();
        let ruling = more.decision.ruling();
        if ruling != Ruling::Permit {
            let why = format!("never executed: the decision is {ruling}");
            lineage.tool_output = Field::Absent(why.clone());
            lineage.post_validation = Field::Absent(why);
        }
        more.checks = match ruling {
            Ruling::Permit => self.checks.clone(),
            Ruling::PlanOnly | Ruling::Hold | Ruling::Deny | Ruling::Halt => Vec::new(),
        };
        RecordBody::Decision(Box::new(self.record(lineage, more)))
    }

    pub(crate) fn outcome(
        &self,
        output: Field<ToolOutput>,
        mut outcome: OutcomeRecord,
        now: Timestamp,
    ) -> RecordBody {
        let mut lineage = self.lineage.clone();
        lineage.tool_output = output;
        match outcome.status {
            OutcomeStatus::NotSent => {
                lineage.post_validation = Field::Absent("never sent".to_owned());
            }
            OutcomeStatus::Succeeded | OutcomeStatus::ToolError | OutcomeStatus::InDoubt => {
                let due = self.checks.iter().flat_map(|plan| plan.due_after(now));
                outcome.checks = due.collect();
            }
        }
        RecordBody::Outcome(Box::new(self.record(lineage, outcome)))
    }

    pub(crate) fn task(&self, task: TaskRecord) -> RecordBody {
        let mut lineage = self.lineage.clone();
        lineage.tool_output = Field::Absent("its task goes on".to_owned());
        RecordBody::TaskGiven(Box::new(self.record(lineage, task)))
    }

    fn record<T>(&self, lineage: Lineage, more: T) -> ActionRecord<T> {
        ActionRecord { action: self.action, agent: self.agent.clone(), lineage, more }
    }
}

/// The record of a check of the action that `decision` permitted and that gave `output`.
pub fn check_record(
    decision: ActionRecord<DecisionRecord>,
    output: Field<ToolOutput>,
    check: CheckRecord,
    finding: Finding,
) -> RecordBody {
    let origin = Origin::recorded(decision);
    let mut lineage = origin.lineage.clone();
    // The outcome's record has its text.
    lineage.tool_output = match output {
        Field::Present(output) => Field::Present(ToolOutput { body: None, ..output }),
        Field::Absent(why) => Field::Absent(why),
    };
    lineage.post_validation = Field::Present(vec![finding]);
    RecordBody::Checked(Box::new(origin.record(lineage, check)))
}

fn present_or<T>(value: Option<T>, absent: &str) -> Field<T> {
    value.map_or_else(|| Field::Absent(absent.to_owned()), Field::Present)
}
