//! `holdpoint stop`: stops a part of what agents do, and says what became of what was running.
//! Must never say that something is stopped before the store says so.

use super::look::{Look, Table, Tone, count, escaped, json_lines, shortened};
use super::operator::{self, StoreArgs};
use super::{Exit, Format, Globals, WrongUsage, answer};
use crate::config::Config;
use clap::ArgGroup;
use holdpoint_server::operate;
use holdpoint_server::store::Access;
use holdpoint_server::wire::{Acknowledgement, ObeyReply, RunningReply};
use holdpoint_types::{AgentName, ServerName, Stop, StopScope, Timestamp, ToolRef};

/// Longest account of what became of a call, in characters.
const BECAME_CHARS_MAX: usize = 120;

/// Stop a part of what agents do. Answers when nothing more can be admitted.
#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("what").required(true)
    .args(["agent", "tool", "server", "all"])))]
pub struct Args {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Why. It is recorded, and agents are told.
    #[arg(long, value_name = "TEXT", value_parser = operator::parse_reason)]
    reason: String,
    #[command(flatten)]
    store: StoreArgs,
}

/// What to stop or to release: at most one of these.
#[derive(Clone, Debug, clap::Args)]
pub struct ScopeArgs {
    /// Everything that one agent does.
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentName>,
    /// Every call of one tool.
    #[arg(long, value_name = "SERVER__TOOL")]
    tool: Option<ToolRef>,
    /// Every call of every tool of one server.
    #[arg(long, value_name = "NAME")]
    server: Option<ServerName>,
    /// Everything.
    #[arg(long)]
    all: bool,
}

// === impl ScopeArgs ===

impl ScopeArgs {
    /// The scope that was asked for.
    pub fn scope(&self) -> Option<StopScope> {
        let agent = self.agent.clone().map(StopScope::Agent);
        let tool = || self.tool.clone().map(StopScope::Tool);
        let server = || self.server.clone().map(StopScope::Server);
        agent.or_else(tool).or_else(server).or(self.all.then_some(StopScope::All))
    }
}

/// Runs `holdpoint stop`: exit 0 if the stop is in force and everything that it covers has ended;
/// exit 1 if the stop is in force, but a process could not be reached or a call still runs.
///
/// # Errors
/// When the stop cannot be written: then nothing is stopped.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    let Some(scope) = args.scope.scope() else {
        return Err(WrongUsage("say what to stop".to_owned()).into());
    };
    let (store, config) = args.store.open_with_config(globals, Access::Operate)?;
    if let Some(unknown) = config.and_then(|config| undeclared(&scope, &config)) {
        operator::note(&format!("no {unknown} is declared; the stop is put in force all the same"));
    }
    let word = operator::word(&store, &args.reason)?;
    let acknowledged =
        operator::wait(async { Ok(operate::stop((store.dir(), &store), scope, word).await?) })?;
    match globals.format {
        Format::Json => answer(&to_json(&acknowledged)?)?,
        Format::Text => answer(&render(&acknowledged, &Look::of_terminal()))?,
    }
    Ok(if all_ended(&acknowledged) { Exit::Ok } else { Exit::Fault })
}

/// What the scope names and nobody declared: perhaps a slip of the pen.
fn undeclared(scope: &StopScope, config: &Config) -> Option<String> {
    let parts = config.settings.parts();
    match scope {
        StopScope::All => None,
        StopScope::Agent(name) => {
            (!parts.agents.contains_key(name)).then(|| format!("agent `{name}`"))
        }
        StopScope::Tool(name) => {
            let server = name.server();
            (!parts.servers.contains_key(server)).then(|| format!("server `{server}`"))
        }
        StopScope::Server(name) => {
            (!parts.servers.contains_key(name)).then(|| format!("server `{name}`"))
        }
    }
}

/// True if every process obeyed and nothing of what was stopped still runs.
fn all_ended(acknowledged: &Acknowledgement) -> bool {
    let mut calls = acknowledged.gateways.iter().flat_map(|gateway| &gateway.in_flight);
    let running = |call: &RunningReply| {
        call.became.as_deref().is_some_and(|became| became.starts_with("still running"))
    };
    acknowledged.unreachable.is_empty() && !calls.any(running)
}

/// An acknowledgement for programs: `stops`, `epoch`, `gateways` with their `in_flight`, and
/// `unreachable`.
pub fn to_json(acknowledged: &Acknowledgement) -> anyhow::Result<String> {
    Ok(json_lines(&serde_json::to_value(acknowledged)?))
}

fn render(acknowledged: &Acknowledgement, look: &Look) -> String {
    let mut text = String::new();
    for stop in &acknowledged.stops {
        let title = format!("stop {} on {} is in force", stop.id, stop.scope);
        text.push_str(&format!("{}\n", look.paint(Tone::Bad, &title)));
        text.push_str(&describe(stop, look));
    }
    let epoch = acknowledged.epoch;
    text.push_str(&format!(
        "  epoch    {epoch}: what was decided in an earlier one is not admitted any more\n"
    ));
    text.push_str(&render_in_flight(&acknowledged.gateways, look));
    text.push_str(&render_gateways(acknowledged, look));
    for stop in &acknowledged.stops {
        text.push_str(&format!("release it with: holdpoint release {} --reason …\n", stop.id));
    }
    text
}

/// Why, who and since when, one below the other.
pub fn describe(stop: &Stop, look: &Look) -> String {
    format!(
        "  reason   {}\n  by       {}, {}\n",
        escaped(&stop.reason),
        escaped(&stop.by),
        look.time_and_age(stop.since)
    )
}

fn render_in_flight(gateways: &[ObeyReply], look: &Look) -> String {
    let calls: Vec<_> = gateways.iter().flat_map(|gateway| &gateway.in_flight).collect();
    if gateways.is_empty() {
        return String::new();
    }
    if calls.is_empty() {
        return "no call was in flight\n".to_owned();
    }
    let number = u64::try_from(calls.len()).unwrap_or(u64::MAX);
    let mut table = Table::default();
    for call in calls {
        table.push(row(call, look));
    }
    let verb = if number == 1 { "was" } else { "were" };
    format!("{} {verb} in flight:\n{}", count(number, "call"), table.render("  ", look))
}

/// One running call as a row: who, what, since when, which, and what became of it.
pub fn row(call: &RunningReply, look: &Look) -> Vec<(Tone, String)> {
    let mut row = vec![
        (Tone::Plain, escaped(&call.agent)),
        (Tone::Plain, escaped(&call.tool)),
        (Tone::Plain, format!("began {}", look.age(Timestamp(call.since_ms)))),
        (Tone::Dim, escaped(&call.action)),
    ];
    let became = call.became.as_ref().map(|became| shortened(became, BECAME_CHARS_MAX));
    row.extend(became.map(|became| (Tone::Careful, became)));
    row
}

/// Which processes obeyed, and which could not be asked.
pub fn render_gateways(acknowledged: &Acknowledgement, look: &Look) -> String {
    let Acknowledgement { gateways, unreachable, .. } = acknowledged;
    let mut text = String::new();
    if gateways.is_empty() && unreachable.is_empty() {
        text.push_str("no process governs now; this is in the store and binds whoever starts\n");
    }
    let behind = gateways.iter().filter(|gateway| gateway.epoch < acknowledged.epoch);
    for gateway in behind {
        let title = format!("still in epoch {}: {}", gateway.epoch, escaped(&gateway.gateway));
        text.push_str(&format!("{}\n", look.paint(Tone::Bad, &title)));
    }
    for process in unreachable {
        let title = format!("not reached: {}", escaped(process));
        text.push_str(&format!("{}\n", look.paint(Tone::Bad, &title)));
    }
    if !unreachable.is_empty() {
        text.push_str(
            "  the store lets it admit nothing that is stopped, but what it had already sent may \
             still run:\n  look at the process, and end it if in doubt\n",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{all_ended, render, to_json};
    use crate::cli::look::tests::look;
    use expect_test::expect;
    use holdpoint_server::wire::{Acknowledgement, ObeyReply, RunningReply};
    use holdpoint_types::{Stop, Timestamp};

    fn call(action: &str, became: &str) -> RunningReply {
        RunningReply {
            action: action.to_owned(),
            agent: "coder".to_owned(),
            tool: "db__query".to_owned(),
            since_ms: 1_753_000_000_000,
            became: Some(became.to_owned()),
        }
    }

    fn acknowledgement() -> Acknowledgement {
        let stop = Stop {
            id: 7,
            scope: "agent:coder".parse().unwrap(),
            reason: "it deletes\u{1b}[2J tables".to_owned(),
            by: "ada".to_owned(),
            since: Timestamp(1_753_000_009_000),
        };
        let in_flight = vec![
            call("01982", "in_doubt: a stop cancelled it\nnow"),
            call("01983", "still running after the grace period"),
        ];
        let gateway = ObeyReply { gateway: "0198".to_owned(), epoch: 12, in_flight };
        let unreachable = vec!["0199 (pid 77): the process did not answer".to_owned()];
        Acknowledgement { stops: vec![stop], epoch: 12, gateways: vec![gateway], unreachable }
    }

    #[test]
    fn a_stop_says_what_was_in_flight_and_what_became_of_it() {
        expect![[r#"
            stop 7 on agent:coder is in force
              reason   it deletes\u{1b}[2J tables
              by       ada, 2025-07-20T08:26:49.000+00:00 (1 s ago)
              epoch    12: what was decided in an earlier one is not admitted any more
            2 calls were in flight:
              coder  db__query  began 10 s ago  01982  in_doubt: a stop cancelled it\nnow
              coder  db__query  began 10 s ago  01983  still running after the grace period
            not reached: 0199 (pid 77): the process did not answer
              the store lets it admit nothing that is stopped, but what it had already sent may still run:
              look at the process, and end it if in doubt
            release it with: holdpoint release 7 --reason …
        "#]].assert_eq(&render(&acknowledgement(), &look()));
    }

    #[test]
    fn a_stop_is_done_when_all_obeyed_and_nothing_runs() {
        let nobody = Acknowledgement { gateways: vec![], unreachable: vec![], ..acknowledgement() };
        assert!(all_ended(&nobody));
        assert!(!all_ended(&acknowledgement()));
        let silent = Acknowledgement { gateways: vec![], ..acknowledgement() };
        assert!(!all_ended(&silent), "one was not reached");
        let running = Acknowledgement { unreachable: vec![], ..acknowledgement() };
        assert!(!all_ended(&running), "one call still runs");
    }

    #[test]
    fn a_stop_without_a_server_says_so() {
        let nobody = Acknowledgement { gateways: vec![], unreachable: vec![], ..acknowledgement() };
        expect![[r#"
            stop 7 on agent:coder is in force
              reason   it deletes\u{1b}[2J tables
              by       ada, 2025-07-20T08:26:49.000+00:00 (1 s ago)
              epoch    12: what was decided in an earlier one is not admitted any more
            no process governs now; this is in the store and binds whoever starts
            release it with: holdpoint release 7 --reason …
        "#]]
        .assert_eq(&render(&nobody, &look()));
        let idle = ObeyReply { gateway: "0198".to_owned(), epoch: 11, in_flight: vec![] };
        let idle = Acknowledgement { gateways: vec![idle], ..nobody };
        expect![[r#"
            stop 7 on agent:coder is in force
              reason   it deletes\u{1b}[2J tables
              by       ada, 2025-07-20T08:26:49.000+00:00 (1 s ago)
              epoch    12: what was decided in an earlier one is not admitted any more
            no call was in flight
            still in epoch 11: 0198
            release it with: holdpoint release 7 --reason …
        "#]]
        .assert_eq(&render(&idle, &look()));
    }

    #[test]
    fn a_stop_for_programs() {
        expect![[r#"
            {
              "stops": [
                {
                  "id": 7,
                  "scope": "agent:coder",
                  "reason": "it deletes\u001b[2J tables",
                  "by": "ada",
                  "since": 1753000009000
                }
              ],
              "epoch": 12,
              "gateways": [
                {
                  "gateway": "0198",
                  "epoch": 12,
                  "in_flight": [
                    {
                      "action": "01982",
                      "agent": "coder",
                      "tool": "db__query",
                      "since_ms": 1753000000000,
                      "became": "in_doubt: a stop cancelled it\nnow"
                    },
                    {
                      "action": "01983",
                      "agent": "coder",
                      "tool": "db__query",
                      "since_ms": 1753000000000,
                      "became": "still running after the grace period"
                    }
                  ]
                }
              ],
              "unreachable": [
                "0199 (pid 77): the process did not answer"
              ]
            }
        "#]]
        .assert_eq(&to_json(&acknowledgement()).unwrap());
    }
}
