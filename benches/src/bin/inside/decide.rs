//! The time of one decision: facts in memory, policies loaded, nothing recorded.
//! Must use what the governor uses: `decide`, whole, with the starter pack among the policies.

use anyhow::bail;
use holdpoint_bench::{Latencies, SAID};
use holdpoint_control::decide;
use holdpoint_policy::{PolicySet, PolicySets, starter_pack};
use holdpoint_types::{
    ActionId, AgentFacts, ClassSource, Digest, Door, EffectClass, Epoch, Facts, Finding,
    FindingResult, GrantFacts, Mode, PolicySource, Reason, Request, Ruling, TargetFacts, Timestamp,
    ToolFacts, ToolState,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::hint::black_box;
use std::time::Instant;

const TEAMS: usize = 100;
const AGENTS: usize = 1_000;
const REQUESTS: usize = 256;
const DECISIONS: usize = 40_960;

/// Decides 40,960 times over 256 different requests, of which half are permitted.
pub(super) fn measure(policies: usize) -> anyhow::Result<Value> {
    let (set, load) = load(policies)?;
    let asked: Vec<_> = (0..REQUESTS).map(|number| asked(number, policies)).collect();
    let asked = asked.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let permits = |(request, facts): &&(Request, Facts)| {
        decide(request, facts, &set).ruling() == Ruling::Permit
    };
    let permitted = asked.iter().filter(permits).count();
    if permitted != REQUESTS / 2 {
        bail!("{permitted} of {REQUESTS} requests are permitted, not half of them");
    }
    let mut latencies = Latencies::default();
    for (request, facts) in asked.iter().cycle().take(DECISIONS) {
        let begun = Instant::now();
        black_box(decide(black_box(request), black_box(facts), &set));
        latencies.add(begun.elapsed());
    }
    let mut report = latencies.report();
    report["policies"] = set.ordinary().len().into();
    report["load_ms"] = load.into();
    Ok(report)
}

/// The starter pack and enough grants of teams to make `policies` in all.
fn load(policies: usize) -> anyhow::Result<(PolicySets, u64)> {
    let mut sources = starter_pack();
    let starter = match PolicySet::load(&sources) {
        Ok(starter) => starter.len(),
        Err(faults) => bail!("the starter pack is not valid: {faults:?}"),
    };
    let text = (0..policies.saturating_sub(starter)).map(grant).collect();
    sources.push(PolicySource { name: "zz-teams.cedar".to_owned(), text });
    let begun = Instant::now();
    match PolicySet::load(&sources) {
        Ok(set) => Ok((set.into(), u64::try_from(begun.elapsed().as_millis())?)),
        Err(faults) => bail!("the policies are not valid: {:?}", faults.first()),
    }
}

/// One policy: a team may use one tool to write.
fn grant(number: usize) -> String {
    let (team, tool) = (number % TEAMS, number / TEAMS);
    format!(
        "@id(\"grant-{number}\") @reason(\"Team {team} writes with tool {tool}.\")\n\
         permit (principal in Team::\"team-{team}\", action == Action::\"write\",\n\
         resource in Tool::\"srv__tool-{tool}\");\n"
    )
}

/// The even requests are writes outside prod with a policy of the team's own, the odd ones writes
/// in prod without one.
fn asked(number: usize, policies: usize) -> anyhow::Result<(Request, Facts)> {
    let agent = number * 37 % AGENTS;
    let rows = (policies / TEAMS).saturating_sub(1).max(1);
    let (tool, environment) = match number.is_multiple_of(2) {
        true => (format!("srv__tool-{}", number / 2 % rows), "dev"),
        false => (format!("other__tool-{number}"), "prod"),
    };
    let team = format!("team-{}", agent % TEAMS);
    let at = Timestamp(1_753_000_000_000);
    let request = Request {
        action: ActionId::new(at, [7; 10]),
        agent: format!("agent-{agent}").parse()?,
        door: Door::McpHttp,
        tool: tool.parse()?,
        parameters: json!({ "path": "/srv/app/a.txt", "text": SAID, "mode": 420 }),
        task: None,
        intent: None,
        retrieved: Vec::new(),
        at,
        host_call: None,
    };
    Ok((request, facts(&team, &tool, environment)?))
}

fn facts(team: &str, tool: &str, environment: &str) -> anyhow::Result<Facts> {
    let tool_facts = ToolFacts {
        definition: Digest::of(tool.as_bytes()),
        state: ToolState::Pinned,
        class: EffectClass::Write,
        class_source: ClassSource::Operator,
        open_world: true,
    };
    let target = TargetFacts {
        resource: format!("mcp://{tool}"),
        environment: environment.to_owned(),
        environment_resolved: true,
        surfaces: BTreeSet::from(["web".to_owned()]),
    };
    let passed = (FindingResult::Pass, Reason::ParametersInvalid);
    let finding = Finding::new("schema", passed, "");
    Ok(Facts {
        agent: Some(AgentFacts { owner: Some(team.parse()?), mode: Mode::Auto }),
        tool: Some(tool_facts),
        grant: GrantFacts { by: Some("write srv__*".to_owned()) },
        target,
        effects: Vec::new(),
        freezes: BTreeSet::new(),
        stops: Vec::new(),
        epoch: Epoch(0),
        findings: vec![finding],
        preview: None,
        unseen: None,
        approval: None,
        plan: None,
        freeze_exceptions: Default::default(),
    })
}
