//! Plays an act step by step and compares what Holdpoint recorded with what was expected.
//!
//! The evidence is the ledger, never what the client or the agent says. Must not print.

use super::scenario::{
    Act, Call, CallStep, Ending, Expectation, Lack, PendingStep, Step, StopStep,
};
use super::stage::{OPERATOR, Stage};
use anyhow::{Context as _, bail};
use holdpoint_server::operate::{self, Word};
use holdpoint_server::store::RecordQuery;
use holdpoint_server::wire::Acknowledgement;
use holdpoint_types::{
    ActionId, Decision, Digest, Field, FindingResult, OutcomeRecord, RecordBody, ToolOutput,
};
use rmcp::model::CallToolRequestParams;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a call may take to get in flight before a stop is pressed.
const IN_FLIGHT_PATIENCE: Duration = Duration::from_secs(30);
/// How long a check after a call may take.
const CHECK_PATIENCE: Duration = Duration::from_secs(30);

/// What is told of each step.
#[derive(Debug)]
pub enum Told<'a> {
    /// It was played.
    Played(Box<Played<'a>>),
    /// It cannot be played yet.
    Pending(&'a PendingStep),
}

/// What one step came to.
#[derive(Debug)]
pub struct Played<'a> {
    /// What the timeline says about it.
    pub say: &'a str,
    /// The call.
    pub call: &'a Call,
    /// The call's action.
    pub action: ActionId,
    /// What was decided.
    pub decision: Decision,
    /// How it ended, if it ran.
    pub outcome: Option<OutcomeRecord>,
    /// What the tool answered, or what the agent was told.
    pub text: String,
    /// The acknowledgement of the stop, and how long that took.
    pub stopped: Option<(Acknowledgement, Duration)>,
    /// When it was over, counted from the act's begin.
    pub at: Duration,
    /// Every way in which it differs from what was expected.
    pub unmet: Vec<String>,
}

/// What an act came to.
#[derive(Debug, Default)]
pub struct Over {
    /// What had to stay as it was: digest before and after.
    pub kept: BTreeMap<String, (Digest, Digest)>,
    /// The first action that was not permitted.
    pub refused: Option<ActionId>,
    /// How many steps were played.
    pub played: usize,
    /// How many of them were not as expected.
    pub unexpected: usize,
    /// How many steps cannot be played yet, by what is missing.
    pub pending: BTreeMap<Lack, usize>,
}

// === impl Over ===

impl Over {
    /// True if everything was as expected.
    pub fn is_good(&self) -> bool {
        self.unexpected == 0 && self.kept.values().all(|(before, after)| before == after)
    }
}

/// Plays `act` on `stage`; `tell` hears of each step when it is over.
///
/// # Errors
/// When the machinery fails; an expectation that is not met is no error.
pub async fn play(
    act: &Act,
    stage: &Stage,
    mut tell: impl FnMut(&Told<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<Over> {
    let began = Instant::now();
    let mut before = BTreeMap::new();
    for name in &act.unchanged {
        before.insert(name.clone(), stage.digest(name)?);
    }
    let mut over = Over::default();
    for step in &act.steps {
        let mut played = match step {
            Step::Call(call) => play_call(stage, call).await?,
            Step::Stop(stop) => play_stop(stage, stop).await?,
            Step::Pending(pending) => {
                *over.pending.entry(pending.lacks).or_default() += 1;
                tell(&Told::Pending(pending))?;
                continue;
            }
        };
        played.at = began.elapsed();
        if played.outcome.is_none() {
            over.refused = over.refused.or(Some(played.action));
        }
        over.played += 1;
        over.unexpected += usize::from(!played.unmet.is_empty());
        tell(&Told::Played(Box::new(played)))?;
    }
    for (name, before) in before {
        let after = stage.digest(&name)?;
        over.kept.insert(name, (before, after));
    }
    Ok(over)
}

async fn play_call<'a>(stage: &Stage, step: &'a CallStep) -> anyhow::Result<Played<'a>> {
    let before = last_seq(stage)?;
    let text = ask(stage.client.peer().clone(), stage.params(&step.call)?).await?;
    let mut played = found(stage, (&step.call, before), &step.expect, text).await?;
    played.say = &step.say;
    Ok(played)
}

async fn play_stop<'a>(stage: &Stage, stop: &'a StopStep) -> anyhow::Result<Played<'a>> {
    let before = last_seq(stage)?;
    let running = tokio::spawn(ask(stage.client.peer().clone(), stage.params(&stop.during)?));
    until_in_flight(stage).await?;
    let governor = stage.service.runtime().governor();
    let word = Word { reason: stop.reason.clone(), by: OPERATOR.to_owned(), at: governor.now() };
    let pressed = Instant::now();
    let place = (stage.store().dir(), stage.store());
    let acknowledged = operate::stop(place, stop.scope.clone(), word).await?;
    let took = pressed.elapsed();
    let text = running.await??;
    let mut played = found(stage, (&stop.during, before), &stop.expect, text).await?;
    played.say = &stop.say;
    if !acknowledged.unreachable.is_empty() {
        played.unmet.push("expected that every process obeys the stop".to_owned());
    }
    played.stopped = Some((acknowledged, took));
    Ok(played)
}

async fn ask(
    peer: rmcp::Peer<rmcp::RoleClient>,
    params: CallToolRequestParams,
) -> anyhow::Result<String> {
    let result = peer.call_tool(params).await?;
    let texts = result.content.iter().filter_map(|content| content.as_text());
    Ok(texts.map(|text| text.text.as_str()).collect::<Vec<_>>().join("\n"))
}

async fn until_in_flight(stage: &Stage) -> anyhow::Result<()> {
    let began = Instant::now();
    while stage.service.runtime().governor().running().is_empty() {
        if began.elapsed() > IN_FLIGHT_PATIENCE {
            bail!("the call did not get in flight");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

fn last_seq(stage: &Stage) -> anyhow::Result<Option<u64>> {
    let newest = RecordQuery { limit: 1, newest_first: true, ..RecordQuery::default() };
    Ok(stage.store().records(&newest)?.first().map(|record| record.seq))
}

/// What the ledger says about the call that was made after `before`.
async fn found<'a>(
    stage: &Stage,
    (call, before): (&'a Call, Option<u64>),
    expect: &Expectation,
    text: String,
) -> anyhow::Result<Played<'a>> {
    stage.store().flush().await?;
    let tool = Some(call.tool.clone());
    let query = RecordQuery { tool, after_seq: before, ..RecordQuery::default() };
    let (mut decided, mut ended) = (None, None);
    for stored in stage.store().records(&query)? {
        match stored.record.body {
            RecordBody::Decision(record) => decided = Some((record.action, record.more.decision)),
            RecordBody::Outcome(record) => ended = Some((record.more, record.lineage.tool_output)),
            _ => {}
        }
    }
    let (action, decision) = decided.context("the ledger has no decision about this call")?;
    let output = ended.as_ref().and_then(|(_, output)| body(output)).unwrap_or_default();
    let end = ended.as_ref().map(|(outcome, _)| Ending {
        outcome: outcome.status,
        reason: outcome.reason,
        output: &output,
    });
    let mut unmet = expect.unmet_by(&decision);
    unmet.extend(expect.unmet_by_end(end));
    unmet.extend(expect.unmet_by_checks(&checks(stage, action, expect.checks.len()).await?));
    let outcome = ended.map(|(outcome, _)| outcome);
    let at = Duration::ZERO;
    Ok(Played { say: "", call, action, decision, outcome, text, stopped: None, at, unmet })
}

/// What was found after an action, once so many validators have looked, or it takes too long.
async fn checks(
    stage: &Stage,
    action: ActionId,
    count: usize,
) -> anyhow::Result<BTreeMap<String, FindingResult>> {
    let began = Instant::now();
    loop {
        let mut found = BTreeMap::new();
        for stored in stage.store().of_action(action)? {
            let RecordBody::Checked(checked) = stored.record.body else { continue };
            let Field::Present(findings) = checked.lineage.post_validation else { continue };
            found.extend(findings.into_iter().map(|found| (found.validator, found.result)));
        }
        if found.len() >= count || began.elapsed() > CHECK_PATIENCE {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The text in a recorded tool output.
fn body(output: &Field<ToolOutput>) -> Option<String> {
    let Field::Present(output) = output else { return None };
    let result: serde_json::Value = serde_json::from_str(output.body.as_ref()?).ok()?;
    let texts = result.get("content")?.as_array()?.iter();
    let texts = texts.filter_map(|content| content.get("text")?.as_str());
    Some(texts.collect::<Vec<_>>().join("\n"))
}
