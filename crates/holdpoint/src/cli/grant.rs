//! `holdpoint grant`: grants something to an agent for a limited time, lists and revokes such
//! grants. Must never grant without an end: what an agent may always do is in the configuration.

mod known;

use super::look::{Look, Table, Tone, count, escaped, json_lines};
use super::operator::{self, StoreArgs};
use super::{Exit, Format, Globals, WrongUsage, answer, approve};
use holdpoint_server::operate::{self, GrantingFault, Wish};
use holdpoint_server::store::Access;
use holdpoint_types::{AgentName, EffectClass, TimedGrant};
use known::Known;
use serde_json::json;

/// Grant something to an agent for a limited time, beside what the configuration grants.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    grant: GrantArgs,
}

/// All but the store must be there unless a subcommand is.
#[derive(Debug, clap::Args)]
struct GrantArgs {
    /// The declared agent.
    #[arg(value_name = "AGENT", required = true)]
    agent: Option<AgentName>,
    /// In which effect class: `read`, `write` or `destructive`.
    #[arg(long, required = true)]
    class: Option<EffectClass>,
    /// Tools as `server__tool`, `*` for any characters; destructive ones only in full. May be
    /// repeated.
    #[arg(long, value_name = "PATTERN", required = true)]
    tools: Vec<String>,
    /// For how long: `30m`, `2h`; at most 24 hours.
    #[arg(long = "for", value_name = "TIME", required = true, value_parser = parse_length)]
    for_ms: Option<i64>,
    /// Why. It is recorded.
    #[arg(long, visible_alias = "reason", value_name = "TEXT", required = true,
          value_parser = operator::parse_reason)]
    because: Option<String>,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List what is granted for a limited time.
    List {
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Take a grant back before it ends.
    Revoke {
        /// Its number.
        id: u64,
        /// Why. It is recorded.
        #[arg(long, visible_alias = "reason", value_name = "TEXT",
              value_parser = operator::parse_reason)]
        because: String,
        #[command(flatten)]
        store: StoreArgs,
    },
}

/// Runs `holdpoint grant`: exit 1 if there is nothing to revoke.
///
/// # Errors
/// When the grant is not one that may be given, or cannot be recorded.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    match &args.command {
        Some(Command::List { store }) => list(store, globals),
        Some(Command::Revoke { id, because, store }) => revoke(*id, because, store, globals),
        None => give(&args.grant, globals),
    }
}

fn give(args: &GrantArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let GrantArgs { agent: Some(agent), class: Some(class), for_ms: Some(for_ms), .. } = args
    else {
        return Err(WrongUsage("say what to grant, to whom, and for how long".to_owned()).into());
    };
    let config = globals.load()?;
    let store = args.store.open_by(&config, Access::Operate)?;
    let speaker = approve::speaker(&config)?;
    let word = operator::word(&store, args.because.as_deref().unwrap_or_default())?;
    let pinned = store.pins()?.into_iter().map(|row| row.tool).collect();
    let known = Known::new(&config.settings, pinned);
    let doubts = known.doubts(&args.tools).map_err(WrongUsage)?;
    let (tools, for_ms) = (args.tools.clone(), *for_ms);
    let wish = Wish { agent: agent.clone(), class: *class, tools, for_ms };
    let place = (&store, &config.settings);
    let granted = operator::wait(async {
        Ok(operate::grant(place, &speaker, wish, (word.reason, word.at)).await)
    })?;
    let granted = match granted {
        Ok(granted) => granted,
        Err(fault @ (GrantingFault::Approver(_) | GrantingFault::Store(_))) => {
            return Err(fault.into());
        }
        Err(fault) => return Err(WrongUsage(fault.to_string()).into()),
    };
    doubts.iter().for_each(|doubt| operator::note(&format!("warning: {doubt}")));
    answer(&match globals.format {
        Format::Json => json_lines(&json!(granted)),
        Format::Text => {
            let look = Look::of_terminal();
            let TimedGrant { id, agent, class, tools, until_ms, .. } = &granted;
            let until = look.time_and_age(*until_ms);
            let tools = escaped(&tools.join(", "));
            format!(
                "grant {id}: {agent} reaches {tools} in class {class}, until {until}\n\
                 take it back with: holdpoint grant revoke {id} --because …\n"
            )
        }
    })?;
    Ok(Exit::Ok)
}

fn list(store: &StoreArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let store = store.open(globals, Access::ReadOnly)?;
    let look = Look::of_terminal();
    let mut grants = store.grants()?;
    grants.retain(|grant| grant.until_ms > look.now);
    answer(&match globals.format {
        Format::Json => json_lines(&json!({ "grants": grants })),
        Format::Text => render(&grants, &look),
    })?;
    Ok(Exit::Ok)
}

fn revoke(id: u64, because: &str, store: &StoreArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let config = globals.load()?;
    let store = store.open_by(&config, Access::Operate)?;
    let speaker = approve::speaker(&config)?;
    let word = operator::word(&store, because)?;
    let revoked = operator::wait(async {
        Ok(operate::revoke(&store, id, (&speaker, word.reason), word.at).await?)
    })?;
    answer(&match (globals.format, &revoked) {
        (Format::Json, _) => json_lines(&json!({ "revoked": revoked })),
        (Format::Text, Some(grant)) => {
            format!("grant {id} of {} counts for nothing any more\n", grant.agent)
        }
        (Format::Text, None) => format!("nothing is revoked: no grant {id} is in force\n"),
    })?;
    Ok(if revoked.is_some() { Exit::Ok } else { Exit::Fault })
}

fn render(grants: &[TimedGrant], look: &Look) -> String {
    let mut table = Table::default();
    for TimedGrant { id, agent, class, tools, until_ms, by, because } in grants {
        table.push(vec![
            (Tone::Plain, id.to_string()),
            (Tone::Plain, agent.to_string()),
            (Tone::of_class(*class), class.to_string()),
            (Tone::Plain, escaped(&tools.join(" "))),
            (Tone::Plain, format!("until {}", look.time_and_age(*until_ms))),
            (Tone::Dim, escaped(&format!("{by}: {because}"))),
        ]);
    }
    let number = u64::try_from(grants.len()).unwrap_or(u64::MAX);
    match grants {
        [] => "nothing is granted for a limited time\n".to_owned(),
        _ => format!("{}{}\n", table.render("", look), count(number, "grant")),
    }
}

/// A length of time as people write it, in milliseconds.
fn parse_length(text: &str) -> Result<i64, String> {
    let length: jiff::SignedDuration =
        text.parse().map_err(|_| "write a length such as `30m` or `2h`".to_owned())?;
    i64::try_from(length.as_millis()).map_err(|_| "too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{parse_length, render};
    use crate::cli::look::tests::look;
    use expect_test::expect;
    use holdpoint_types::{EffectClass, TimedGrant, Timestamp};

    #[test]
    fn lengths_are_written_as_people_do() {
        assert_eq!(parse_length("2h"), Ok(7_200_000));
        assert_eq!(parse_length("1h 30m"), Ok(5_400_000));
        assert_eq!(parse_length("90s"), Ok(90_000));
        for text in ["", "2", "h", "two hours", "1 month"] {
            assert!(parse_length(text).is_err(), "{text}");
        }
    }

    #[test]
    fn grants_for_people() {
        let grant = TimedGrant {
            id: 57,
            agent: "coder".parse().unwrap(),
            class: EffectClass::Write,
            tools: vec!["files__*".to_owned(), "git__push".to_owned()],
            until_ms: Timestamp(1_753_003_600_000),
            by: "ada".to_owned(),
            because: "the\u{7} release".to_owned(),
        };
        expect![[r#"
            57  coder  write  files__* git__push  until 2025-07-20T09:26:40.000+00:00 (in 59 min)  ada: the\u{7} release
            1 grant
        "#]].assert_eq(&render(&[grant], &look()));
        expect![[r#"
            nothing is granted for a limited time
        "#]]
        .assert_eq(&render(&[], &look()));
    }
}
