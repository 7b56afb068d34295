//! What is said and done in a scenario besides calls: people answer approvals and plans, take
//! actions back, and change things past Holdpoint; the agent proposes plans.
//!
//! They use what the command line uses. Must not print, and must not let anybody do what the
//! product does not let them.

use super::scenario::{
    ApprovalStep, MeanwhileStep, PlanWord, ProposalStep, RevertOf, RevertStep, RulingStep, counted,
};
use super::stage::Stage;
use crate::cli::approvals;
use anyhow::Context as _;
use holdpoint_server::doors::refusal_text;
use holdpoint_server::governor::{Reverting, Wanted, Whole};
use holdpoint_server::operate::{self, Answer, Speaker, Word};
use holdpoint_server::store::PlanRow;
use holdpoint_server::wire::ApprovalState;
use holdpoint_types::{
    ActionId, AgentName, ChangeCounts, PlanId, RecordBody, RevertRecord, ToolRef,
};
use std::time::Duration;

/// The tool by which agents propose plans.
const PROPOSE: &str = "holdpoint_plan_propose";
/// The tool by which they learn how their plans stand.
const STATUS: &str = "holdpoint_plan_status";

/// What a person did.
#[derive(Debug)]
pub struct Operated<'a> {
    /// What the timeline says about it.
    pub say: &'a str,
    /// What it was.
    pub deed: Deed<'a>,
    /// When it was over, counted from the act's begin.
    pub at: Duration,
    /// Every way in which it differs from what was expected.
    pub unmet: Vec<String>,
}

/// Something that a person does.
#[derive(Debug)]
pub enum Deed<'a> {
    /// Said yes or no to a held call.
    Answered {
        /// What was to be said.
        step: &'a ApprovalStep,
        /// The approval.
        approval: Option<ActionId>,
        /// How it stands, and what is missing; absent if what was said does not count.
        stands: Option<(ApprovalState, Vec<String>)>,
    },
    /// Took actions back.
    Reverted {
        /// What was to be taken back.
        step: &'a RevertStep,
        /// What became of each.
        ends: Vec<(ToolRef, RevertRecord)>,
    },
    /// Proposed a plan: how it stands.
    Proposed(&'a ProposalStep, Option<PlanRow>),
    /// Accepted or refused a plan: how it stands, if that counts.
    Ruled(&'a RulingStep, Option<PlanRow>),
    /// Changed a database.
    Changed(&'a MeanwhileStep),
}

// === functions ===

/// Says yes or no to the approval `held`.
///
/// # Errors
/// When the store fails.
pub async fn approve<'a>(
    stage: &Stage,
    step: &'a ApprovalStep,
    held: Option<ActionId>,
) -> anyhow::Result<Operated<'a>> {
    let governor = stage.service.runtime().governor();
    let settings = governor.settings();
    let sole = settings.parts().operators.is_empty();
    let speaker = Speaker { name: step.by.clone(), way: "cli", sole };
    let mut unmet = Vec::new();
    let mut stands = None;
    match held {
        None => unmet.push("expected that a call waits for an answer".to_owned()),
        Some(id) => {
            let word = (step.reason.clone(), governor.now());
            let place = (stage.store(), &*settings);
            match operate::speak(place, &speaker, (id, step.answer), word).await {
                Ok((row, _)) => {
                    let now = governor.now();
                    let state = ApprovalState::of(&row, stage.store().control()?.epoch, now);
                    stands = Some((state, approvals::missing(&row, now)));
                }
                Err(fault) => {
                    unmet.push(format!("what `{}` says does not count: {fault}", step.by))
                }
            }
        }
    }
    if let Some((state, _)) = &stands
        && *state != step.state
    {
        let (wanted, found) = (step.state.as_str(), state.as_str());
        unmet.push(format!("expected that the approval is `{wanted}`, not `{found}`"));
    }
    let deed = Deed::Answered { step, approval: held, stands };
    Ok(Operated { say: &step.say, deed, at: Duration::ZERO, unmet })
}

/// Takes back what was permitted last, or the task of `agent`, the newest action first.
///
/// # Errors
/// When the store fails.
pub async fn revert<'a>(
    stage: &Stage,
    step: &'a RevertStep,
    (permitted, agent): (Option<ActionId>, &AgentName),
) -> anyhow::Result<Operated<'a>> {
    let governor = stage.service.runtime().governor();
    let actions = match step.of {
        RevertOf::Last => permitted.into_iter().collect(),
        RevertOf::Task => governor.actions_of(Whole::Task(stage.task(agent)?))?,
    };
    let mut unmet = Vec::new();
    if actions.is_empty() {
        unmet.push("expected that there is something to take back".to_owned());
    }
    let mut ends = Vec::new();
    for of in actions {
        let (reason, by) = (step.reason.clone(), step.by.to_string());
        let word = Word { reason, by, at: governor.now() };
        match governor.revert(of, (&word, Wanted::Do)).await? {
            Reverting::Ended(record) => ends.push((tool_of(stage, of)?, *record)),
            Reverting::Refused(action, refusal) => {
                unmet.push(format!("it is refused: {}", refusal_text(action, &refusal)));
            }
            Reverting::Seen(_) => unmet.push("it was only looked at".to_owned()),
        }
        // What came later must be taken back before what came earlier.
        let goes_on = ends.last().is_some_and(|(_, record)| record.status.goes_on());
        if !unmet.is_empty() || !goes_on {
            break;
        }
    }
    for (tool, record) in ends.iter().filter(|(_, record)| record.status != step.status) {
        let (wanted, found) = (step.status.as_str(), record.status.as_str());
        unmet.push(format!("expected that `{tool}` is `{wanted}`, not `{found}`"));
    }
    let restored = ends.iter().fold(ChangeCounts::default(), |sum, (_, record)| ChangeCounts {
        created: sum.created.saturating_add(record.restored.created),
        updated: sum.updated.saturating_add(record.restored.updated),
        deleted: sum.deleted.saturating_add(record.restored.deleted),
    });
    if restored != step.restored {
        let (wanted, found) = (counted(step.restored), counted(restored));
        unmet.push(format!("expected that putting back is {wanted}, not {found}"));
    }
    let deed = Deed::Reverted { step, ends };
    Ok(Operated { say: &step.say, deed, at: Duration::ZERO, unmet })
}

/// Proposes a plan as the agent, through its client.
///
/// # Errors
/// When the machinery fails.
pub async fn propose<'a>(
    stage: &Stage,
    step: &'a ProposalStep,
) -> anyhow::Result<(Option<PlanId>, Operated<'a>)> {
    let params = stage.asking(&stage.agent, PROPOSE, stage.plan(step)?)?;
    let answer = stage.peer(&stage.agent)?.call_tool(params).await?;
    let told = answer.structured_content.clone().unwrap_or_default();
    let id: Option<PlanId> = told.get("plan").and_then(|id| id.as_str()?.parse().ok());
    let row = match id {
        Some(id) => stage.store().plan(id)?,
        None => None,
    };
    let mut unmet = stands_as(row.as_ref(), step.state);
    if row.is_none() {
        let texts = answer.content.iter().filter_map(|content| content.as_text());
        unmet.extend(texts.map(|text| text.text.clone()));
    }
    let deed = Deed::Proposed(step, row);
    Ok((id, Operated { say: &step.say, deed, at: Duration::ZERO, unmet }))
}

/// Accepts or refuses `plan`. The agent asks how it stands, as it has to: nobody calls it.
///
/// # Errors
/// When the machinery fails.
pub async fn rule<'a>(
    stage: &Stage,
    step: &'a RulingStep,
    plan: Option<PlanId>,
) -> anyhow::Result<Operated<'a>> {
    let governor = stage.service.runtime().governor();
    let settings = governor.settings();
    let sole = settings.parts().operators.is_empty();
    let speaker = Speaker { name: step.by.clone(), way: "cli", sole };
    let (mut unmet, mut row) = (Vec::new(), None);
    match plan {
        None => unmet.push("expected that a plan waits for an answer".to_owned()),
        Some(id) => {
            let word = (step.reason.clone(), governor.now());
            let place = (stage.store(), &*settings);
            let ruling = (id, step.answer == Answer::Yes);
            match operate::rule_plan(place, &speaker, ruling, word).await {
                Ok(ruled) => row = Some(ruled),
                Err(fault) => {
                    unmet.push(format!("what `{}` says does not count: {fault}", step.by))
                }
            }
            let asks = serde_json::Map::from_iter([("plan".to_owned(), id.to_string().into())]);
            let params = stage.asking(&stage.agent, STATUS, asks)?;
            let answer = stage.peer(&stage.agent)?.call_tool(params).await?;
            if answer.is_error == Some(true) {
                unmet.push("expected that the agent learns how its plan stands".to_owned());
            }
        }
    }
    unmet.extend(stands_as(row.as_ref(), step.state));
    let deed = Deed::Ruled(step, row);
    Ok(Operated { say: &step.say, deed, at: Duration::ZERO, unmet })
}

fn stands_as(row: Option<&PlanRow>, wanted: PlanWord) -> Vec<String> {
    let found = row.map_or("none", |row| row.state.as_str());
    let wanted = wanted.as_str();
    match found == wanted {
        true => Vec::new(),
        false => vec![format!("expected that the plan is `{wanted}`, not `{found}`")],
    }
}

/// Changes a database as somebody who has never heard of Holdpoint.
///
/// # Errors
/// When the database refuses.
pub fn change<'a>(stage: &Stage, step: &'a MeanwhileStep) -> anyhow::Result<Operated<'a>> {
    let database = rusqlite::Connection::open(stage.database(&step.database)?)?;
    database.execute_batch(&step.sql).context("nobody can change the database like this")?;
    database.close().map_err(|(_, fault)| fault)?;
    Ok(Operated {
        say: &step.say,
        deed: Deed::Changed(step),
        at: Duration::ZERO,
        unmet: Vec::new(),
    })
}

/// The word of what is said.
pub const fn word(answer: Answer) -> &'static str {
    match answer {
        Answer::Yes => "approve",
        Answer::No => "deny",
    }
}

/// The word of what is said to a plan.
pub const fn ruling(answer: Answer) -> &'static str {
    match answer {
        Answer::Yes => "accept",
        Answer::No => "refuse",
    }
}

fn tool_of(stage: &Stage, of: ActionId) -> anyhow::Result<ToolRef> {
    let decided =
        stage.store().of_action(of)?.into_iter().find_map(|stored| match stored.record.body {
            RecordBody::Decision(decided) => Some(decided.more.request.tool),
            _ => None,
        });
    decided.context("an action without a decision")
}
