//! `holdpoint try CALL.json --as AGENT`: the whole decision about one call, nothing executed.
//! Must never write to the store, nor start a server: it knows the tools that were seen before.

use super::look::{escaped, shortened};
use super::operator::{self, StoreArgs};
use super::{Exit, Format, Globals, answer};
use anyhow::{Context as _, bail};
use holdpoint_control::decide;
use holdpoint_policy::PolicySets;
use holdpoint_server::catalog::Catalog;
use holdpoint_server::doors::{decision_json, refusal_text};
use holdpoint_server::governor::{Call, Known, gather, plan_facts};
use holdpoint_server::operate;
use holdpoint_server::store::{Access, Store};
use holdpoint_types::{
    ActionId, AgentName, Decision, Door, EffectFacts, Facts, Finding, FindingResult, JsonLimits,
    Request, Ruling, ToolRef,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Longest accepted call, in bytes.
const CALL_BYTES_MAX: u64 = 16 << 20;

/// Show what would be decided about a call, without executing it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A file with `{"tool": "server__tool", "arguments": {…}}`, or a whole `tools/call` message;
    /// `-` for standard input.
    #[arg(value_name = "CALL.json")]
    call: PathBuf,
    /// The agent that would call.
    #[arg(long = "as", value_name = "AGENT")]
    agent: AgentName,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs `holdpoint try`: exit 0 if it would be permitted, 4 if held, 3 otherwise.
///
/// # Errors
/// When the call, the configuration, the policies or the store cannot be read.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    let config = globals.load()?;
    let call = read_call(&args.call, &args.agent)?;
    let dir = args.store.store.clone().unwrap_or_else(|| config.store.clone());
    let now = operator::now();
    let policies = config.policies.load(now, &dir)?;
    let store = operator::open(&dir, Access::ReadOnly);
    let store = store.context("no tool is known yet: let an agent list its tools once")?;
    let row = store.control()?;
    let covers = |stop: &holdpoint_types::Stop| stop.scope.covers(&call.agent, &call.tool);
    let stops: Vec<_> = row.stops.into_iter().filter(covers).collect();
    let strict = crate::gateway::strict(&config);
    let catalog = catalog(&store, Catalog::new(strict))?;
    let settings = &config.settings.with_timed(operate::in_force(&store, now)?);
    let effects = settings.effects(&call.tool, &call.parameters);
    let (stops, effects) = ((stops.as_slice(), row.epoch), effects.as_ref());
    let known = Known { settings, catalog: &catalog, stops, effects };
    let (request, mut facts) = gather(known, ActionId::new(now, [0; 10]), &call, now);
    facts.plan = plan_facts(&store, (&catalog, policies.digest()), (&request, &facts))?;
    let mut decision = decide(&request, &facts, &policies);
    // As a governing process does: nobody is asked about what is refused anyway.
    if decision.ruling() < Ruling::Deny {
        let validators = crate::gateway::validators(&config)?;
        facts.findings.extend(operator::wait(async {
            Ok::<_, anyhow::Error>(validators.look(&request, &facts).await)
        })?);
        decision = decide(&request, &facts, &policies);
    }
    match globals.format {
        Format::Json => {
            let mut told = decision_json(request.action, &decision);
            told["policy"] = policies.digest().to_string().into();
            told["guards"] = serde_json::to_value(policies.guards_of(&facts))?;
            told["request"] = serde_json::to_value(&request)?;
            told["facts"] = serde_json::to_value(&facts)?;
            answer(&format!("{}\n", serde_json::to_string_pretty(&told)?))?;
        }
        Format::Text => answer(&render((&request, &facts), &decision, &policies))?,
    }
    Ok(match decision.ruling() {
        Ruling::Permit => Exit::Ok,
        Ruling::Hold => Exit::Held,
        Ruling::PlanOnly | Ruling::Deny | Ruling::Halt => Exit::Denied,
    })
}

/// Reads a call of `agent`.
///
/// # Errors
/// When the file cannot be read, or holds no call.
pub(super) fn read_call(file: &Path, agent: &AgentName) -> anyhow::Result<Call> {
    let mut bytes = Vec::new();
    let limit = CALL_BYTES_MAX + 1;
    if file.as_os_str() == "-" {
        std::io::stdin().take(limit).read_to_end(&mut bytes)?;
    } else {
        let open = std::fs::File::open(file);
        let open = open.with_context(|| format!("cannot read `{}`", file.display()))?;
        open.take(limit).read_to_end(&mut bytes)?;
    }
    let value = holdpoint_types::parse(&bytes, JsonLimits::default())?;
    let (tool, from) = match value.get("method").and_then(Value::as_str) {
        Some("tools/call") => ("name", value.get("params").cloned().unwrap_or_default()),
        Some(method) => bail!("`{method}` is not `tools/call`"),
        None => ("tool", value),
    };
    let Some(name) = from.get(tool).and_then(Value::as_str) else {
        bail!(
            "the call names no tool: expected `{{\"tool\": \"server__tool\", \"arguments\": {{}}}}`"
        );
    };
    let parameters = from.get("arguments").cloned().unwrap_or_else(|| json!({}));
    if !parameters.is_object() {
        bail!("`arguments` must be an object");
    }
    let tool: ToolRef = name.parse()?;
    let meta = from.get("_meta").cloned();
    Ok(Call { agent: agent.clone(), door: Door::Try, tool, parameters, meta, condition: None })
}

/// The tools as they were seen last.
fn catalog(store: &Store, catalog: Catalog) -> anyhow::Result<Catalog> {
    let mut pins = BTreeMap::new();
    let mut by_server: BTreeMap<_, Vec<Value>> = BTreeMap::new();
    for pin in store.pins()? {
        let seen = pin.seen.map_or(pin.json, |seen| seen.json);
        by_server.entry(pin.tool.server().clone()).or_default().push(seen);
        pins.insert(pin.tool, pin.definition);
    }
    for (server, definitions) in by_server {
        catalog.observe(&server, definitions, &pins);
    }
    Ok(catalog)
}

fn render(
    (request, facts): (&Request, &Facts),
    decision: &Decision,
    policies: &PolicySets,
) -> String {
    let target = &facts.target;
    let surfaces: Vec<_> = target.surfaces.iter().map(String::as_str).collect();
    let surfaces = if surfaces.is_empty() { "none".to_owned() } else { surfaces.join(", ") };
    let class = facts.tool.as_ref().map_or("unknown", |tool| tool.class.as_str());
    let grant = facts.grant.by.as_deref().unwrap_or("none");
    let mut text = format!(
        "{} would be: {}\n  tool        {} ({class})\n  grant       {}\n  target      {}\n  \
         environment {}\n  surfaces    {}\n",
        request.agent,
        decision.ruling(),
        request.tool,
        escaped(grant),
        shortened(&target.resource, 120),
        escaped(&target.environment),
        escaped(&surfaces),
    );
    for guard in policies.guards().filter(|guard| guard.guards(facts)) {
        let (version, signed_by) = (guard.manifest().version, &guard.record().signed_by);
        let name = guard.name();
        let signed_by = signed_by.join(", ");
        let line = format!("{name} {}, version {version}, signed by {signed_by}", guard.digest());
        text.push_str(&format!("  guarded by  {}\n", shortened(&line, 200)));
    }
    for one in &facts.effects {
        text.push_str(&format!("  would       {}\n", shortened(&effect_line(one), 160)));
    }
    let spoken = |one: &&Finding| one.result != FindingResult::Pass;
    for one in facts.findings.iter().filter(spoken) {
        let line = format!("{} {}: {}", one.result.as_str(), one.validator, one.evidence);
        text.push_str(&format!("  finding     {}\n", shortened(&line, 200)));
    }
    for cause in decision.causes().rev() {
        let rule = cause.rule.as_ref().map_or_else(String::new, |rule| format!(" [{rule}]"));
        let line = format!("{} {}{rule}: {}", cause.ruling, cause.reason, cause.text);
        text.push_str(&format!("  - {}\n", shortened(&line, 300)));
    }
    if decision.ruling() != Ruling::Permit {
        text.push_str("the agent would read:\n");
        for line in refusal_text(request.action, &decision.clone().into()).lines() {
            text.push_str(&format!("  | {}\n", escaped(line)));
        }
    }
    text
}

/// One effect of a call on a line.
pub(super) fn effect_line(one: &EffectFacts) -> String {
    let EffectFacts { effect, grant, target } = one;
    let granted = if grant.by.is_some() { "" } else { ", not granted" };
    let sure = effect.certainty.as_str();
    format!(
        "{} {} ({}, {sure}, in {}{granted}): {}",
        effect.verb, effect.resource, effect.class, target.environment, effect.evidence
    )
}
