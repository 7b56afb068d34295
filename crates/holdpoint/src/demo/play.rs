//! Plays an act step by step and compares what Holdpoint recorded with what was expected.
//!
//! The evidence is the ledger, never what the client or the agent says. Must not print.

use super::people::{Operated, approve, change, propose, revert, rule};
use super::scenario::{
    Act, Call, CallStep, Ending, Expectation, Lack, Need, PendingStep, Showing, Step, StopStep,
};
use super::stage::{OPERATOR, Stage};
use crate::cli::approvals;
use crate::cli::look::Look;
use anyhow::{Context as _, bail};
use holdpoint_resources::resource::Preview;
use holdpoint_server::operate::{self, Word};
use holdpoint_server::store::RecordQuery;
use holdpoint_server::wire::Acknowledgement;
use holdpoint_types::{
    ActionId, AgentName, Decision, Digest, Field, FindingResult, OutcomeRecord, PlanId,
    PreviewFacts, Reason, RecordBody, Ruling, ToolOutput,
};
use rmcp::model::{CallToolRequestParams, CallToolResult};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long a call may take to get in flight before a stop is pressed.
const IN_FLIGHT_PATIENCE: Duration = Duration::from_secs(30);
/// How long a check after a call may take.
const CHECK_PATIENCE: Duration = Duration::from_secs(30);

/// Where an answer says what was decided.
const DECISION_KEY: &str = "io.holdpoint/decision";

/// What Holdpoint says where the system allows no box.
const NO_BOX: &str = "this system lets no command be boxed";

/// What is told of each step.
#[derive(Debug)]
pub enum Told<'a> {
    /// A call was played.
    Played(Box<Played<'a>>),
    /// A person did something.
    Operated(Box<Operated<'a>>),
    /// It cannot be played yet.
    Pending(&'a PendingStep),
    /// It cannot be played on this machine, and why.
    LeftOut(&'a CallStep, String),
}

/// What one step came to.
#[derive(Debug)]
pub struct Played<'a> {
    /// What the timeline says about it.
    pub say: &'a str,
    /// Whose call it was, if not the scenario's agent's.
    pub agent: Option<&'a AgentName>,
    /// The call.
    pub call: &'a Call,
    /// The call's action.
    pub action: ActionId,
    /// What was decided.
    pub decision: Decision,
    /// What was seen before, and what people get to read of it.
    pub seen: Option<Showing>,
    /// The same for people, where it was kept for them: where something waits.
    pub preview: Option<Preview>,
    /// The approval that it waits for.
    pub waits_for: Option<ActionId>,
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
    /// What had to be as it was again: digest of all rows before and after.
    pub restored: BTreeMap<String, (Digest, Digest)>,
    /// What somebody else changed meanwhile: compared before and after that.
    pub moved: BTreeSet<String>,
    /// The first action that was not permitted.
    pub refused: Option<ActionId>,
    /// How many steps were played.
    pub played: usize,
    /// How many of them were not as expected.
    pub unexpected: usize,
    /// How many steps cannot be played yet, by what is missing.
    pub pending: BTreeMap<Lack, usize>,
    /// How many steps this machine does not allow.
    pub left_out: usize,
}

/// What steps before leave to those after.
struct Course<'a> {
    agent: &'a AgentName,
    held: Option<ActionId>,
    permitted: Option<ActionId>,
    plan: Option<PlanId>,
}

/// An answer as the agent gets it.
struct Answered {
    text: String,
    /// The approval that it waits for.
    waits_for: Option<ActionId>,
}

// === impl Over ===

impl Over {
    /// True if everything was as expected.
    pub fn is_good(&self) -> bool {
        self.unexpected == 0 && self.changed().is_empty()
    }

    /// What is not as it had to be.
    pub fn changed(&self) -> Vec<&str> {
        let all = self.kept.iter().chain(&self.restored);
        let changed = all.filter(|(_, (before, after))| before != after);
        changed.map(|(name, _)| name.as_str()).collect()
    }

    /// Counts a step, and tells of it.
    fn add(&mut self, unmet: &[String]) {
        self.played += 1;
        self.unexpected += usize::from(!unmet.is_empty());
    }
}

// === impl Course ===

impl<'a> Course<'a> {
    fn note(&mut self, played: &Played<'a>) {
        self.agent = played.agent.unwrap_or(self.agent);
        self.held = played.waits_for.or(self.held);
        if played.decision.ruling() == Ruling::Permit {
            self.permitted = Some(played.action);
        }
    }
}

// === functions ===

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
    let mut over = Over::default();
    let mut before = digests(&act.unchanged, |name| stage.digest(name))?;
    let rows = digests(&act.restored, |name| stage.rows(name))?;
    let mut course = Course { agent: &stage.agent, held: None, permitted: None, plan: None };
    for step in &act.steps {
        let told = play_step(stage, step, (&mut course, &mut before, &mut over)).await?;
        let at = began.elapsed();
        let told = match told {
            Told::Played(mut played) => {
                played.at = at;
                if played.outcome.is_none() {
                    over.refused = over.refused.or(Some(played.action));
                }
                over.add(&played.unmet);
                Told::Played(played)
            }
            Told::Operated(mut operated) => {
                operated.at = at;
                over.add(&operated.unmet);
                Told::Operated(operated)
            }
            Told::LeftOut(step, why) => {
                over.left_out += 1;
                Told::LeftOut(step, why)
            }
            Told::Pending(pending) => {
                *over.pending.entry(pending.lacks).or_default() += 1;
                Told::Pending(pending)
            }
        };
        tell(&told)?;
    }
    over.kept = compared(before, |name| stage.digest(name))?;
    over.restored = compared(rows, |name| stage.rows(name))?;
    Ok(over)
}

async fn play_step<'a>(
    stage: &Stage,
    step: &'a Step,
    (course, kept, over): (&mut Course<'a>, &mut BTreeMap<String, Digest>, &mut Over),
) -> anyhow::Result<Told<'a>> {
    let played = match step {
        Step::Call(call) => {
            let played = play_call(stage, call).await?;
            if let Some(why) = call.needs.and_then(|need| denied(need, &played)) {
                return Ok(Told::LeftOut(call, why));
            }
            played
        }
        Step::Stop(stop) => play_stop(stage, stop).await?,
        Step::Approval(said) => {
            return Ok(Told::Operated(Box::new(approve(stage, said, course.held).await?)));
        }
        Step::Revert(back) => {
            let what = (course.permitted, course.agent);
            return Ok(Told::Operated(Box::new(revert(stage, back, what).await?)));
        }
        Step::Proposal(proposal) => {
            let (plan, operated) = propose(stage, proposal).await?;
            course.plan = plan;
            return Ok(Told::Operated(Box::new(operated)));
        }
        Step::Ruling(ruling) => {
            return Ok(Told::Operated(Box::new(rule(stage, ruling, course.plan).await?)));
        }
        Step::Meanwhile(moves) => {
            // What the agent did before must not pass for what somebody else does now.
            let untouched = match kept.get(&moves.database) {
                Some(before) => *before == stage.digest(&moves.database)?,
                None => false,
            };
            let operated = change(stage, moves)?;
            over.moved.insert(moves.database.clone());
            if untouched {
                kept.insert(moves.database.clone(), stage.digest(&moves.database)?);
            }
            return Ok(Told::Operated(Box::new(operated)));
        }
        Step::Pending(pending) => return Ok(Told::Pending(pending)),
    };
    course.note(&played);
    Ok(Told::Played(Box::new(played)))
}

/// Why the machine does not allow what a step needs, as Holdpoint says it.
fn denied(need: Need, played: &Played<'_>) -> Option<String> {
    let Need::Box = need;
    let mut causes = played.decision.deciding();
    let no_box = causes
        .find(|cause| cause.reason == Reason::PreviewUnavailable && cause.text.contains(NO_BOX));
    no_box.map(|cause| cause.text.clone())
}

fn digests(
    names: &BTreeSet<String>,
    digest: impl Fn(&str) -> anyhow::Result<Digest>,
) -> anyhow::Result<BTreeMap<String, Digest>> {
    names.iter().map(|name| Ok((name.clone(), digest(name)?))).collect()
}

fn compared(
    before: BTreeMap<String, Digest>,
    digest: impl Fn(&str) -> anyhow::Result<Digest>,
) -> anyhow::Result<BTreeMap<String, (Digest, Digest)>> {
    let each = before.into_iter();
    each.map(|(name, before)| digest(&name).map(|after| (name, (before, after)))).collect()
}

async fn play_call<'a>(stage: &Stage, step: &'a CallStep) -> anyhow::Result<Played<'a>> {
    let before = last_seq(stage)?;
    let agent = step.agent.as_ref().unwrap_or(&stage.agent);
    let answered = ask(stage.peer(agent)?, stage.params(agent, &step.call)?).await?;
    let mut played = found(stage, (&step.call, before), &step.expect, answered).await?;
    played.say = &step.say;
    played.agent = step.agent.as_ref();
    Ok(played)
}

async fn play_stop<'a>(stage: &Stage, stop: &'a StopStep) -> anyhow::Result<Played<'a>> {
    let before = last_seq(stage)?;
    let agent = &stage.agent;
    let running = tokio::spawn(ask(stage.peer(agent)?, stage.params(agent, &stop.during)?));
    until_in_flight(stage).await?;
    let governor = stage.service.runtime().governor();
    let word = Word { reason: stop.reason.clone(), by: OPERATOR.to_owned(), at: governor.now() };
    let pressed = Instant::now();
    let place = (stage.store().dir(), stage.store());
    let acknowledged = operate::stop(place, stop.scope.clone(), word).await?;
    let took = pressed.elapsed();
    let answered = running.await??;
    let mut played = found(stage, (&stop.during, before), &stop.expect, answered).await?;
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
) -> anyhow::Result<Answered> {
    let result = peer.call_tool(params).await?;
    let texts = result.content.iter().filter_map(|content| content.as_text());
    let text = texts.map(|text| text.text.as_str()).collect::<Vec<_>>().join("\n");
    Ok(Answered { text, waits_for: waits_for(&result) })
}

/// The approval that the answer tells the agent of.
fn waits_for(result: &CallToolResult) -> Option<ActionId> {
    let decision = result.meta.as_ref()?.get(DECISION_KEY)?;
    decision.get("held")?.get("id")?.as_str()?.parse().ok()
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
    answered: Answered,
) -> anyhow::Result<Played<'a>> {
    stage.store().flush().await?;
    let tool = Some(call.tool.clone());
    let query = RecordQuery { tool, after_seq: before, ..RecordQuery::default() };
    let (mut decided, mut ended) = (None, None);
    for stored in stage.store().records(&query)? {
        match stored.record.body {
            RecordBody::Decision(record) => decided = Some((record.action, record.more)),
            RecordBody::Outcome(record) => ended = Some((record.more, record.lineage.tool_output)),
            _ => {}
        }
    }
    let (action, decided) = decided.context("the ledger has no decision about this call")?;
    let output = ended.as_ref().and_then(|(_, output)| body(output)).unwrap_or_default();
    let end = ended.as_ref().map(|(outcome, _)| Ending {
        outcome: outcome.status,
        reason: outcome.reason,
        output: &output,
    });
    let Answered { text, waits_for } = answered;
    let decision = decided.decision;
    let shown = waits_for.unwrap_or(action);
    let preview = stage.service.runtime().governor().resources().kept_preview(shown)?;
    let seen = decided.facts.preview.map(|facts| showing(facts, preview.as_ref()));
    let mut unmet = expect.unmet_by(&decision);
    unmet.extend(expect.unmet_by_end(end));
    unmet.extend(expect.unmet_by_checks(&checks(stage, action, expect.checks.len()).await?));
    unmet.extend(expect.preview.iter().flat_map(|wanted| wanted.unmet_by(seen.as_ref())));
    let outcome = ended.map(|(outcome, _)| outcome);
    let (say, agent, stopped, at) = ("", None, None, Duration::ZERO);
    Ok(Played {
        say,
        agent,
        call,
        action,
        decision,
        seen,
        preview,
        waits_for,
        outcome,
        text,
        stopped,
        at,
        unmet,
    })
}

fn showing(facts: PreviewFacts, preview: Option<&Preview>) -> Showing {
    let text = preview.map(|preview| approvals::render(preview, &Look::plain()));
    Showing { facts, text: text.unwrap_or_default() }
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
