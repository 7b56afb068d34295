//! `holdpoint plan`: the plans of agents, what the checker remarks, how far each has come; accepts
//! and refuses them. Must not change what a plan says.

mod text;

use super::look::{Look, json_lines};
use super::operator::{self, StoreArgs};
use super::{Exit, Format, Globals, WrongUsage, answer, approve};
use holdpoint_server::operate;
use holdpoint_server::store::{Access, PlanRow, Store};
use holdpoint_server::wire::plan_json;
use holdpoint_types::{PlanId, PlanState};
use serde_json::json;

/// How many plans are looked through, the newest.
const NEWEST: u32 = 10_000;

/// Show the plans of agents, accept or refuse them.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Show the plans that wait or are in force. Exit 4 if one waits.
    List {
        /// Show those that ended or were refused, too.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Show one plan: its steps, the checker's notes, and how far it has come.
    Show {
        /// The plan's id, or how it begins or ends.
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Accept a plan that waits: from then on its task is held to it.
    Accept(Ruling),
    /// Refuse a plan that waits.
    Refuse(Ruling),
}

#[derive(Debug, clap::Args)]
struct Ruling {
    /// The plan's id, or how it begins or ends.
    #[arg(value_name = "ID")]
    id: String,
    /// Why. It is recorded.
    #[arg(long, visible_alias = "reason", value_name = "TEXT",
          value_parser = operator::parse_reason)]
    because: String,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs `holdpoint plan`.
///
/// # Errors
/// When there is no store, it cannot be used, or what is said does not count.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    match &args.what {
        What::List { all, store } => list(*all, store, globals),
        What::Show { id, store } => show(id, store, globals),
        What::Accept(ruling) => rule(ruling, Said::Accept, globals),
        What::Refuse(ruling) => rule(ruling, Said::Refuse, globals),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    Accept,
    Refuse,
}

fn list(all: bool, store: &StoreArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let store = store.open(globals, Access::ReadOnly)?;
    let look = Look::of_terminal();
    let mut rows = store.plans(all.then_some(NEWEST))?;
    if !all {
        // What is over, and nobody recorded that yet, waits for nobody.
        rows.retain(|row| row.plan.expires > look.now);
    }
    let waits = rows.iter().any(|row| row.state == PlanState::Proposed);
    answer(&match globals.format {
        Format::Json => {
            let plans: Vec<_> = rows.iter().map(plan_json).collect();
            json_lines(&json!({ "plans": plans }))
        }
        Format::Text => text::list(&rows, &look),
    })?;
    Ok(if waits { Exit::Held } else { Exit::Ok })
}

fn show(id: &str, store: &StoreArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let store = store.open(globals, Access::ReadOnly)?;
    let row = find(&store, id)?;
    answer(&match globals.format {
        Format::Json => json_lines(&plan_json(&row)),
        Format::Text => text::whole(&row, &Look::of_terminal()),
    })?;
    Ok(Exit::Ok)
}

fn rule(ruling: &Ruling, said: Said, globals: &Globals) -> anyhow::Result<Exit> {
    let config = globals.load()?;
    let store = ruling.store.open_by(&config, Access::Operate)?;
    let id = find(&store, &ruling.id)?.plan.id;
    let speaker = approve::speaker(&config)?;
    let word = operator::word(&store, &ruling.because)?;
    let row = operator::wait(async {
        let (place, then) = ((&store, &config.settings), (id, said == Said::Accept));
        Ok(operate::rule_plan(place, &speaker, then, (word.reason, word.at)).await?)
    })?;
    answer(&match globals.format {
        Format::Json => json_lines(&plan_json(&row)),
        Format::Text => match said {
            Said::Accept => format!(
                "accepted {id}; {} is held to it until {}\n",
                row.plan.agent,
                Look::of_terminal().time_and_age(row.plan.expires)
            ),
            Said::Refuse => format!("refused {id}; the agent reads that when it asks\n"),
        },
    })?;
    Ok(Exit::Ok)
}

/// The plan whose id is `text`, or begins or ends with it.
fn find(store: &Store, text: &str) -> anyhow::Result<PlanRow> {
    let wanted = text.to_ascii_lowercase();
    if let Ok(id) = wanted.parse::<PlanId>()
        && let Some(row) = store.plan(id)?
    {
        return Ok(row);
    }
    let fits = |row: &PlanRow| {
        let id = row.plan.id.to_string();
        id.starts_with(&wanted) || id.ends_with(&wanted)
    };
    let mut found: Vec<_> = store.plans(Some(NEWEST))?.into_iter().filter(fits).collect();
    match (found.pop(), found.len()) {
        (Some(row), 0) => Ok(row),
        (None, _) => {
            let hint = "`holdpoint plan list --all` shows those that there are";
            Err(WrongUsage(format!("there is no plan `{text}`; {hint}")).into())
        }
        (Some(_), more) => {
            let several = more.saturating_add(1);
            Err(WrongUsage(format!("`{text}` fits {several} plans; write more of the id")).into())
        }
    }
}
