//! `holdpoint agent`: adds agents, issues and revokes their keys.
//! Must never keep or show a key after it was issued.

mod section;

use super::look::{Look, Table, Tone, count, escaped, json_lines};
use super::{Exit, Format, Globals, WrongUsage, answer, operator};
use crate::config::Config;
use holdpoint_control::{Agent, Grant, ToolPattern};
use holdpoint_server::doors::http::AgentKey;
use holdpoint_server::doors::local;
use holdpoint_server::store::{Access, KeyRow, NewKey, StoreFault};
use holdpoint_types::{AgentName, EffectClass, Mode, TeamName, TimedGrant};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Add agents, issue and revoke their keys.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Issue a key to an agent; declare the agent in the configuration if it is not there yet.
    Add(AddArgs),
    /// List the agents, what they may reach, and their keys.
    List,
    /// Revoke all keys of an agent.
    Revoke {
        /// The agent.
        name: AgentName,
    },
}

#[derive(Debug, clap::Args)]
struct AddArgs {
    /// The agent.
    name: AgentName,
    /// The declared team that answers for it.
    #[arg(long, value_name = "TEAM")]
    owner: TeamName,
    /// How much it may do by itself [default: auto, for a new agent].
    #[arg(long)]
    mode: Option<Mode>,
    /// What a new agent may reach: `read:fs__*`. May be repeated.
    #[arg(long = "grant", value_name = "CLASS:PATTERN", value_parser = section::parse_grant)]
    grants: Vec<(EffectClass, ToolPattern)>,
}

/// What came of declaring an agent.
enum Declared {
    /// It was there already.
    Before,
    /// It was added to the file.
    Now,
    /// It cannot be declared like that, because of this.
    Refused(String),
}

/// One agent as it is listed.
struct Listed<'a> {
    name: &'a AgentName,
    agent: Option<&'a Agent>,
    /// What was granted for a limited time and is in force.
    timed: Vec<&'a TimedGrant>,
    keys: Vec<&'a KeyRow>,
}

/// What the store knows of agents.
#[derive(Default)]
struct Kept {
    keys: Vec<KeyRow>,
    /// Only those that are in force.
    timed: Vec<TimedGrant>,
}

/// Runs `holdpoint agent`.
///
/// # Errors
/// When the configuration or the store cannot be read or written.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    let config = globals.load()?;
    match &args.command {
        Command::Add(args) => add(args, config, globals.format),
        Command::List => list(&config, globals.format),
        Command::Revoke { name } => revoke(name, &config, globals.format),
    }
}

fn add(args: &AddArgs, config: Config, format: Format) -> anyhow::Result<Exit> {
    let declared = declare(args, &config)?;
    if let Declared::Refused(why) = declared {
        return Err(WrongUsage(why).into());
    }
    let store = operator::open(&config.store, Access::Operate)?;
    let key = AgentKey::generate()?;
    let row = NewKey {
        key_id: key.id().to_owned(),
        hash: key.digest(),
        agent: args.name.clone(),
        owner: args.owner.clone(),
    };
    let word = operator::word(&store, "a new key")?;
    operator::wait(async { Ok(store.issue_key(row, word.by, word.at).await?) })?;
    if matches!(declared, Declared::Now) {
        let file = config.file.display();
        operator::note(&format!("added [agent.{}] to `{file}`", args.name));
        if !local::live(&config.store)?.is_empty() {
            operator::note(
                "a `serve` that runs knows the agent after SIGHUP, a `wrap` once it is restarted",
            );
        }
    }
    answer(&match format {
        Format::Json => json_lines(&issued_json(&args.name, &key)),
        Format::Text => issued(&args.name, &key, &config),
    })?;
    Ok(Exit::Ok)
}

/// Makes sure that the agent is declared, and as the command line says.
fn declare(args: &AddArgs, config: &Config) -> anyhow::Result<Declared> {
    let parts = config.settings.parts();
    let (file, name, owner) = (config.file.display(), &args.name, &args.owner);
    if !parts.teams.contains_key(owner) {
        let why = format!("the team `{owner}` is not declared; add `[team.{owner}]` to `{file}`");
        return Ok(Declared::Refused(why));
    }
    if let Some(agent) = parts.agents.get(name) {
        return Ok(match differs(args, agent) {
            None => Declared::Before,
            Some(what) => Declared::Refused(format!(
                "`{name}` is declared with {what}; edit `[agent.{name}]` in `{file}`"
            )),
        });
    }
    let grants = section::grants(&args.grants)?;
    let mode = args.mode.unwrap_or(Mode::Auto);
    let requesters = BTreeSet::new();
    section::add(config, name, &Agent { owner: owner.clone(), mode, grants, requesters })?;
    Ok(Declared::Now)
}

/// What is declared otherwise than the command line says.
fn differs(args: &AddArgs, agent: &Agent) -> Option<String> {
    if agent.owner != args.owner {
        return Some(format!("the owner `{}`", agent.owner));
    }
    if args.mode.is_some_and(|mode| mode != agent.mode) {
        return Some(format!("the mode `{}`", agent.mode));
    }
    let pair = |class: EffectClass, tool: &ToolPattern| (class, tool.as_str().to_owned());
    let asked: BTreeSet<_> = args.grants.iter().map(|(class, tool)| pair(*class, tool)).collect();
    let declared = agent.grants.iter();
    let declared = declared
        .flat_map(|grant| grant.tools().iter().map(|tool| pair(grant.class(), tool)))
        .collect::<BTreeSet<_>>();
    let other = !asked.is_empty() && asked != declared;
    other.then(|| "other grants".to_owned())
}

fn issued_json(name: &AgentName, key: &AgentKey) -> Value {
    json!({ "agent": name, "key_id": key.id(), "key": key.reveal() })
}

fn issued(name: &AgentName, key: &AgentKey, config: &Config) -> String {
    format!(
        "the key of `{name}` ({}), shown this once and kept nowhere:\n\n{}\n\n\
         MCP over HTTP: http://{}/mcp with the header\n  Authorization: Bearer <key>\n\
         revoke it with: holdpoint agent revoke {name}\n",
        key.id(),
        key.reveal(),
        config.listen.http,
    )
}

fn list(config: &Config, format: Format) -> anyhow::Result<Exit> {
    let kept = kept(config)?;
    let agents = listed(config, &kept);
    answer(&match format {
        Format::Json => {
            let agents: Vec<_> = agents.iter().map(Listed::to_json).collect();
            json_lines(&Value::Array(agents))
        }
        Format::Text => render(&agents, &Look::of_terminal()),
    })?;
    Ok(Exit::Ok)
}

/// What the store knows of agents; nothing if there is no store yet.
fn kept(config: &Config) -> anyhow::Result<Kept> {
    let store = match operator::open(&config.store, Access::ReadOnly) {
        Ok(store) => store,
        Err(fault) => match fault.downcast_ref::<StoreFault>() {
            Some(StoreFault::Absent { .. }) => return Ok(Kept::default()),
            Some(_) | None => return Err(fault),
        },
    };
    let mut timed = store.grants()?;
    let now = operator::now();
    timed.retain(|grant| grant.until_ms > now);
    Ok(Kept { keys: store.keys()?, timed })
}

/// Every declared agent, and every agent that has a key.
fn listed<'a>(config: &'a Config, kept: &'a Kept) -> Vec<Listed<'a>> {
    let declared = &config.settings.parts().agents;
    let with_key = kept.keys.iter().map(|key| &key.agent);
    let names: BTreeSet<_> = declared.keys().chain(with_key).collect();
    let one = |name: &'a AgentName| Listed {
        name,
        agent: declared.get(name),
        timed: kept.timed.iter().filter(|grant| grant.agent == *name).collect(),
        keys: kept.keys.iter().filter(|key| key.agent == *name).collect(),
    };
    names.into_iter().map(one).collect()
}

fn render(agents: &[Listed<'_>], look: &Look) -> String {
    if agents.is_empty() {
        return "no agent is declared; add one: holdpoint agent add NAME --owner TEAM\n".to_owned();
    }
    agents.iter().map(|agent| agent.render(look)).collect()
}

fn revoke(name: &AgentName, config: &Config, format: Format) -> anyhow::Result<Exit> {
    let store = operator::open(&config.store, Access::Operate)?;
    if !store.keys()?.iter().any(|key| key.agent == *name) {
        operator::note(&format!("`{name}` never had a key; see holdpoint agent list"));
        return Ok(Exit::Fault);
    }
    let word = operator::word(&store, "keys revoked")?;
    let revoke = store.revoke_keys(name.clone(), word.by, word.at);
    let revoked = operator::wait(async { Ok(revoke.await?) })?;
    answer(&match format {
        Format::Json => json_lines(&json!({ "agent": name, "revoked": revoked })),
        Format::Text => format!("revoked {} of `{name}`\n", count(revoked, "key")),
    })?;
    Ok(Exit::Ok)
}

// === impl Listed ===

impl Listed<'_> {
    fn to_json(&self) -> Value {
        let grants = self.agent.map(|agent| {
            let one = |grant: &Grant| {
                let tools: Vec<_> = grant.tools().iter().map(ToolPattern::as_str).collect();
                json!({ "class": grant.class(), "tools": tools })
            };
            agent.grants.iter().map(one).collect::<Vec<_>>()
        });
        let keys = self.keys.iter().map(|key| {
            json!({
                "key_id": key.key_id,
                "issued_at_ms": key.issued_at.0,
                "revoked_at_ms": key.revoked_at.map(|at| at.0),
            })
        });
        json!({
            "agent": self.name,
            "declared": self.agent.is_some(),
            "owner": self.agent.map(|agent| &agent.owner),
            "mode": self.agent.map(|agent| agent.mode),
            "grants": grants,
            "timed_grants": self.timed,
            "keys": keys.collect::<Vec<_>>(),
        })
    }

    fn render(&self, look: &Look) -> String {
        let name = look.paint(Tone::Strong, self.name.as_str());
        let mut text = match self.agent {
            Some(agent) => format!("{name}  owner {}, mode {}\n", agent.owner, agent.mode),
            None => {
                let warning = "not declared: it is denied everything";
                format!("{name}  {}\n", look.paint(Tone::Bad, warning))
            }
        };
        text.push_str(&self.rows(look).render("  ", look));
        text
    }

    fn rows(&self, look: &Look) -> Table {
        let mut table = Table::default();
        let title = |text: &str| (Tone::Dim, text.to_owned());
        for grant in self.agent.iter().flat_map(|agent| &agent.grants) {
            let tools: Vec<_> = grant.tools().iter().map(ToolPattern::as_str).collect();
            let class = grant.class();
            let class = (Tone::of_class(class), class.to_string());
            table.push(vec![title("grant"), class, (Tone::Plain, tools.join(" "))]);
        }
        let standing = self.agent.is_none_or(|agent| !agent.grants.is_empty());
        if !standing && self.timed.is_empty() {
            table
                .push(vec![title("grant"), (Tone::Careful, "none: it reaches nothing".to_owned())]);
        }
        for TimedGrant { id, class, tools, until_ms, .. } in &self.timed {
            let until = look.time_and_age(*until_ms);
            let tools = format!("{} until {until} (grant {id})", escaped(&tools.join(" ")));
            let class = (Tone::of_class(*class), class.to_string());
            table.push(vec![title("timed"), class, (Tone::Plain, tools)]);
        }
        for key in &self.keys {
            let issued = format!("issued {}", look.time_and_age(key.issued_at));
            let state = match key.revoked_at {
                None => (Tone::Plain, issued),
                Some(at) => (Tone::Dim, format!("{issued}, revoked {}", look.time_and_age(at))),
            };
            table.push(vec![title("key"), (Tone::Plain, escaped(&key.key_id)), state]);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::{Kept, listed, render};
    use crate::cli::look::tests::look;
    use crate::config;
    use expect_test::expect;
    use holdpoint_server::store::KeyRow;
    use holdpoint_types::{Digest, EffectClass, TimedGrant, Timestamp};

    fn key(agent: &str, key_id: &str, revoked_at: Option<i64>) -> KeyRow {
        KeyRow {
            key_id: key_id.to_owned(),
            hash: Digest::of(b"key"),
            agent: agent.parse().unwrap(),
            owner: "platform".parse().unwrap(),
            issued_at: Timestamp(1_753_000_000_000),
            revoked_at: revoked_at.map(Timestamp),
        }
    }

    fn timed(agent: &str) -> TimedGrant {
        TimedGrant {
            id: 57,
            agent: agent.parse().unwrap(),
            class: EffectClass::Write,
            tools: vec!["fs__*".to_owned()],
            until_ms: Timestamp(1_753_003_600_000),
            by: "ada".to_owned(),
            because: "the release".to_owned(),
        }
    }

    #[test]
    fn the_list_shows_grants_and_keys() {
        let text = "[team.platform]\n[agent.idle]\nowner = \"platform\"\n\
            [agent.guest]\nowner = \"platform\"\n[agent.coder]\n\
            owner = \"platform\"\nmode = \"plan-only\"\ngrants = [{ class = \"read\", \
            tools = [\"fs__*\", \"db__query\"] }, { class = \"destructive\", \
            tools = [\"fs__rm\"] }]\n";
        let file = std::path::Path::new("/srv/holdpoint.toml");
        let config = config::check("holdpoint.toml", file, text).0.unwrap();
        let keys = [
            key("coder", "0a0b", Some(1_753_000_005_000)),
            key("coder", "0c0d", None),
            key("gone", "0e0f", None),
        ];
        let kept = Kept { keys: keys.into(), timed: vec![timed("coder"), timed("guest")] };
        let agents = listed(&config, &kept);
        expect![[r#"
            coder  owner platform, mode plan-only
              grant  read         fs__* db__query
              grant  destructive  fs__rm
              timed  write        fs__* until 2025-07-20T09:26:40.000+00:00 (in 59 min) (grant 57)
              key    0a0b         issued 2025-07-20T08:26:40.000+00:00 (10 s ago), revoked 2025-07-20T08:26:45.000+00:00 (5 s ago)
              key    0c0d         issued 2025-07-20T08:26:40.000+00:00 (10 s ago)
            gone  not declared: it is denied everything
              key  0e0f  issued 2025-07-20T08:26:40.000+00:00 (10 s ago)
            guest  owner platform, mode auto
              timed  write  fs__* until 2025-07-20T09:26:40.000+00:00 (in 59 min) (grant 57)
            idle  owner platform, mode auto
              grant  none: it reaches nothing
        "#]].assert_eq(&render(&agents, &look()));
        let json: Vec<_> = agents.iter().map(|agent| agent.to_json().to_string()).collect();
        expect![[r#"
            {"agent":"coder","declared":true,"owner":"platform","mode":"plan-only","grants":[{"class":"read","tools":["fs__*","db__query"]},{"class":"destructive","tools":["fs__rm"]}],"timed_grants":[{"id":57,"agent":"coder","class":"write","tools":["fs__*"],"until_ms":1753003600000,"by":"ada","because":"the release"}],"keys":[{"key_id":"0a0b","issued_at_ms":1753000000000,"revoked_at_ms":1753000005000},{"key_id":"0c0d","issued_at_ms":1753000000000,"revoked_at_ms":null}]}
            {"agent":"gone","declared":false,"owner":null,"mode":null,"grants":null,"timed_grants":[],"keys":[{"key_id":"0e0f","issued_at_ms":1753000000000,"revoked_at_ms":null}]}
            {"agent":"guest","declared":true,"owner":"platform","mode":"auto","grants":[],"timed_grants":[{"id":57,"agent":"guest","class":"write","tools":["fs__*"],"until_ms":1753003600000,"by":"ada","because":"the release"}],"keys":[]}
            {"agent":"idle","declared":true,"owner":"platform","mode":"auto","grants":[],"timed_grants":[],"keys":[]}"#]].assert_eq(&json.join("\n"));
    }
}
