//! Builds the records of an action, each with the eight fields of its lineage.
//! Must never leave a field out: what has no source says why it is absent.

use holdpoint_types::{
    ActionRecord, AgentName, Decision, DecisionRecord, Digest, Facts, Field, Lineage,
    OutcomeRecord, RecordBody, Request, Ruling, TaskRecord, ToolOutput, ToolRef,
};

/// What the records of one action share, kept from decision to outcome.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Origin {
    agent: AgentName,
    action: holdpoint_types::ActionId,
    lineage: Lineage,
}

// === impl Origin ===

impl Origin {
    pub(crate) fn new(
        request: &Request,
        facts: &Facts,
        policy: Digest,
        parameters: Digest,
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
            post_validation: Field::Absent("no post-action validator is configured".to_owned()),
        };
        Self { agent: request.agent.clone(), action: request.action, lineage }
    }

    /// What the record of a decision tells.
    pub(crate) fn recorded(record: ActionRecord<DecisionRecord>) -> Self {
        Self { agent: record.agent, action: record.action, lineage: record.lineage }
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

    pub(crate) fn decision(
        &self,
        request: Request,
        facts: Facts,
        decision: Decision,
    ) -> RecordBody {
        let mut lineage = self.lineage.clone();
        if decision.ruling() != Ruling::Permit {
            let why = format!("never executed: the decision is {}", decision.ruling());
            lineage.tool_output = Field::Absent(why.clone());
            lineage.post_validation = Field::Absent(why);
        }
        let more = DecisionRecord { request, facts, decision };
        RecordBody::Decision(Box::new(self.record(lineage, more)))
    }

    pub(crate) fn outcome(&self, output: Field<ToolOutput>, outcome: OutcomeRecord) -> RecordBody {
        let mut lineage = self.lineage.clone();
        lineage.tool_output = output;
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

fn present_or<T>(value: Option<T>, absent: &str) -> Field<T> {
    value.map_or_else(|| Field::Absent(absent.to_owned()), Field::Present)
}
