//! `holdpoint approve` and `holdpoint deny`: says yes or no to exactly one held call.
//! Must never approve a tool in general, nor more than one call.

use super::approvals::{self, APPROVALS_MIN, DAYS, given_before};
use super::look::{Look, json_lines};
use super::operator::{self, StoreArgs};
use super::why;
use super::{Exit, Format, Globals, WrongUsage, answer};
use crate::config::Config;
use anyhow::bail;
use holdpoint_server::operate::{self, Answer, Speaker};
use holdpoint_server::store::{Access, ApprovalRow, Store};
use holdpoint_server::wire::ApprovalReply;
use holdpoint_types::{ActionId, OperatorName};

/// Fewest characters of an id: an empty variable must not approve what happens to wait.
const DIGITS_MIN: usize = 6;

/// Say it to one held call, by the approval's id or its beginning; see `holdpoint approvals`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The approval's id, or at least 6 characters of how it begins or ends.
    #[arg(value_name = "ID")]
    id: String,
    /// Why. It is recorded, and a no is told to the agent.
    #[arg(long, visible_alias = "reason", value_name = "TEXT",
          value_parser = operator::parse_reason)]
    because: String,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs `holdpoint approve` or `holdpoint deny`.
///
/// # Errors
/// When what is said does not count, or cannot be recorded.
pub fn run(args: &Args, said: Answer, globals: &Globals) -> anyhow::Result<Exit> {
    let config = globals.load()?;
    let store = args.store.open_by(&config, Access::Operate)?;
    let id = find(&store, &args.id)?;
    let speaker = speaker(&config)?;
    let word = operator::word(&store, &args.because)?;
    let spoken = (id, said);
    let (row, changed) = operator::wait(async {
        let place = (&store, &config.settings);
        Ok(operate::speak(place, &speaker, spoken, (word.reason, word.at)).await?)
    })?;
    match globals.format {
        Format::Json => {
            let now = (store.control()?.epoch, operator::now());
            let reply = ApprovalReply::new(&row, &config.settings, now);
            answer(&json_lines(&serde_json::to_value(reply)?))?;
        }
        Format::Text => {
            let look = Look::of_terminal();
            let again = often(&store, &row, &look)?;
            answer(&format!("{}{again}", told(&row, said, changed, &look)))?;
        }
    }
    Ok(Exit::Ok)
}

/// A line for whoever says yes to the same again and again.
fn often(store: &Store, row: &ApprovalRow, look: &Look) -> anyhow::Result<String> {
    if row.facts.denied.is_some() || !row.facts.is_whole(look.now) {
        return Ok(String::new());
    }
    let times = given_before(store, (row.facts.asked.id, look.now))?.saturating_add(1);
    Ok(match times >= APPROVALS_MIN {
        false => String::new(),
        true => format!(
            "this class of call was approved {times} times in {DAYS} days: once this one has run, \
             `holdpoint approvals --propose` shows a rule for it\n"
        ),
    })
}

/// Who speaks: the operator with this account, or, where nobody is declared, whoever owns the
/// store.
///
/// # Errors
/// When operators are declared, and this account is none of theirs.
pub fn speaker(config: &Config) -> anyhow::Result<Speaker> {
    let user = operator::name();
    if let Some(name) = config.settings.operator_of_user(&user) {
        return Ok(Speaker { name: name.clone(), way: "cli", sole: false });
    }
    if config.settings.parts().operators.is_empty() {
        let name: OperatorName = user.parse()?;
        return Ok(Speaker { name, way: "cli", sole: true });
    }
    bail!(
        "the account `{user}` belongs to no declared operator: add `user = \"{user}\"` to the \
         `[operator.NAME]` that it belongs to"
    )
}

/// The approval whose id is `text`, or begins or ends with it.
///
/// # Errors
/// When there is none, or there are several.
pub fn find(store: &Store, text: &str) -> anyhow::Result<ActionId> {
    let wanted = text.to_ascii_lowercase();
    if wanted.len() < DIGITS_MIN {
        let why = format!("use the approval's id, at least {DIGITS_MIN} characters of it");
        return Err(WrongUsage(why).into());
    }
    let ids = store.approvals()?.into_iter().map(|row| row.facts.asked.id);
    let fits = |id: &ActionId| {
        let id = id.to_string();
        id.starts_with(&wanted) || id.ends_with(&wanted)
    };
    let found: Vec<_> = ids.filter(fits).collect();
    match found.as_slice() {
        [id] => Ok(*id),
        [] => {
            // An approval has the id of the call that was held.
            let asked = wanted.parse().ok().map(|wanted| why::find_action(store, &wanted));
            Err(WrongUsage(match asked.transpose()? {
                Some(why::Found::One(action)) if !store.of_action(action)?.is_empty() => format!(
                    "no call waits for an approval `{text}` any more; `holdpoint why {action}` \
                     shows what came of it"
                ),
                _ => format!(
                    "no call waits for an approval `{text}`; `holdpoint approvals` shows those \
                     that do"
                ),
            })
            .into())
        }
        several => Err(WrongUsage(format!(
            "`{text}` fits {} approvals; write more of the id",
            several.len()
        ))
        .into()),
    }
}

fn told(row: &ApprovalRow, said: Answer, changed: bool, look: &Look) -> String {
    let id = row.facts.asked.id;
    let again = if changed { "" } else { " (you said so before)" };
    match said {
        Answer::No => format!("denied {id}{again}; the agent reads why when it asks again\n"),
        Answer::Yes if row.facts.is_whole(look.now) => format!(
            "approved {id}{again}; {} may make exactly this call once, until {}\n",
            row.agent,
            look.time_and_age(row.facts.asked.expires_ms),
        ),
        Answer::Yes => {
            let missing = approvals::missing(row, look.now).join(", ");
            format!("your yes to {id} counts{again}; still missing: {missing}\n")
        }
    }
}
