//! `holdpoint approvals`: the calls that wait for people, and what exactly each would do.
//! Must not say yes or no to anything.

mod classes;
mod diff;
mod left_out;
mod proposal;

pub use classes::{APPROVALS_MIN, DAYS, given_before};
pub use diff::{headline, render};
pub use holdpoint_server::shown::counted;

use super::approve;
use super::look::{Look, Table, Tone, count, escaped, json_lines, shortened};
use super::operator::StoreArgs;
use super::{Exit, Format, Globals, answer};
use crate::gateway;
use holdpoint_control::Settings;
use holdpoint_resources::resource::Preview;
use holdpoint_resources::{Archive, Kept};
use holdpoint_server::shown;
use holdpoint_server::store::{Access, ApprovalRow, Store};
use holdpoint_server::wire::{ApprovalReply, ApprovalState, could_approve};
use holdpoint_types::{ActionRecord, DecisionRecord, Epoch, IntentSource, Timestamp};
use serde_json::json;

/// Longest parameters on a line, in characters.
const LINE_CHARS_MAX: usize = 100;

/// Show the calls that wait for approvals, or one of them in full.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show this one in full: its id, or at least 6 characters of how it begins or ends.
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// Show those that ended, were denied or are void, too, as long as they are listed.
    #[arg(long)]
    all: bool,
    /// Show rules for what was approved three times in 30 days, with nobody saying no to the like
    /// or taking it back. Changes nothing.
    #[arg(long, conflicts_with_all = ["id", "all"])]
    propose: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs `holdpoint approvals`: exit 4 if one waits.
///
/// # Errors
/// When there is no store, or it cannot be read.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    if args.propose {
        return proposal::run(&args.store, globals);
    }
    let config = globals.load()?;
    let store = args.store.open_by(&config, Access::ReadOnly)?;
    let look = Look::of_terminal();
    let epoch = store.control()?.epoch;
    let mut rows = store.approvals()?;
    if let Some(id) = &args.id {
        let id = approve::find(&store, id)?;
        rows.retain(|row| row.facts.asked.id == id);
        let Some(shown) = rows.first() else { return Ok(Exit::Fault) };
        let record = store.decision(shown.facts.asked.id)?;
        let vault = gateway::vault(store.dir(), config.credential_key.as_ref())?;
        let archive = Archive::new(store.dir(), vault);
        let preview = archive.read::<Preview>(id, Kept::Preview)?.map(|(_, preview)| preview);
        answer(&match globals.format {
            Format::Json => {
                let reply = ApprovalReply::new(shown, &config.settings, (epoch, look.now));
                json_lines(&reply.whole(record.as_ref(), preview.as_ref()))
            }
            Format::Text => {
                let mut text = whole(shown, record.as_ref(), (&config.settings, epoch), &look);
                text.push_str(&would(record.as_ref(), preview.as_ref(), &look));
                text
            }
        })?;
        return Ok(Exit::Ok);
    }
    let is_open = |row: &ApprovalRow| ApprovalState::of(row, epoch, look.now).is_open();
    rows.retain(|row| args.all || is_open(row));
    let waits =
        rows.iter().any(|row| ApprovalState::of(row, epoch, look.now) == ApprovalState::Waits);
    answer(&match globals.format {
        Format::Json => {
            let reply =
                |row: &ApprovalRow| ApprovalReply::new(row, &config.settings, (epoch, look.now));
            let told = rows.iter().map(reply);
            json_lines(&json!({ "approvals": told.collect::<Vec<_>>() }))
        }
        Format::Text => list(&store, &rows, (&config.settings, epoch), &look)?,
    })?;
    Ok(if waits { Exit::Held } else { Exit::Ok })
}

/// What is still missing for an approval to be whole, for people.
pub fn missing(row: &ApprovalRow, now: Timestamp) -> Vec<String> {
    let open = row.facts.asked.needs.iter().filter(|(name, _)| !row.facts.answers(name, now));
    let told = open.map(|(name, wanted)| {
        let given = row.facts.given.get(name).map_or(0, std::collections::BTreeSet::len);
        match wanted {
            1 => name.clone(),
            _ => format!("{name} ({given} of {wanted})"),
        }
    });
    told.collect()
}

/// The tone of how an approval stands.
pub fn tone(state: ApprovalState) -> Tone {
    match state {
        ApprovalState::Waits => Tone::Careful,
        ApprovalState::Given => Tone::Good,
        ApprovalState::Denied | ApprovalState::Void => Tone::Bad,
        ApprovalState::Expired => Tone::Dim,
    }
}

fn list(
    store: &Store,
    rows: &[ApprovalRow],
    (settings, epoch): (&Settings, Epoch),
    look: &Look,
) -> anyhow::Result<String> {
    if rows.is_empty() {
        return Ok("no call waits for an approval\n".to_owned());
    }
    let mut text = String::new();
    for row in rows {
        let mut table = Table::default();
        let state = ApprovalState::of(row, epoch, look.now);
        let id = row.facts.asked.id.to_string();
        let who = format!("{} wants {}", row.agent, row.tool);
        table.push(vec![
            (tone(state), state.as_str().to_owned()),
            (Tone::Plain, id),
            (Tone::Plain, who),
            (Tone::Dim, look.age(row.asked_ms)),
        ]);
        text.push_str(&table.render("", look));
        if let Some(record) = store.decision(row.facts.asked.id)? {
            let parameters = record.more.request.parameters.to_string();
            text.push_str(&format!("  {}\n", shortened(&parameters, LINE_CHARS_MAX)));
            if let Some(known) = &record.more.facts.preview {
                text.push_str(&format!("  would do {}\n", counted(known)));
            }
        }
        let needed = needed(row, settings, look);
        text.push_str(&format!("  {needed}\n"));
    }
    let number = u64::try_from(rows.len()).unwrap_or(u64::MAX);
    text.push_str(&format!(
        "{}; `holdpoint approvals ID` shows one in full, `holdpoint approve ID --because …` or \
         `holdpoint deny ID --because …` decides it\n",
        count(number, "call"),
    ));
    Ok(text)
}

/// Who has to say yes, who did, who could.
fn needed(row: &ApprovalRow, settings: &Settings, look: &Look) -> String {
    if let Some(denied) = &row.facts.denied {
        return format!("{} said no: {}", denied.by, escaped(&denied.because));
    }
    let missing = missing(row, look.now);
    let until = look.time_and_age(row.facts.asked.expires_ms);
    if missing.is_empty() {
        return format!("approved; waits for the agent to make the call again, until {until}");
    }
    let able = could_approve(row, settings);
    let able = match (able.as_slice(), settings.parts().operators.is_empty()) {
        (_, true) => "whoever owns the store".to_owned(),
        ([], false) => "nobody who is declared".to_owned(),
        (able, false) => able.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    format!("needs {}; could be given by {able}; until {until}", missing.join(", "))
}

fn whole(
    row: &ApprovalRow,
    record: Option<&ActionRecord<DecisionRecord>>,
    (settings, epoch): (&Settings, Epoch),
    look: &Look,
) -> String {
    let state = ApprovalState::of(row, epoch, look.now);
    let word = look.paint(tone(state), state.as_str());
    let mut text = format!("approval {}  {word}\n", row.facts.asked.id);
    let mut line = |name: &str, value: &str| text.push_str(&format!("  {name:<12} {value}\n"));
    line("agent", row.agent.as_str());
    line("tool", &row.tool.to_string());
    line("asked", &look.time_and_age(row.asked_ms));
    line("needed", &needed(row, settings, look));
    if let Some(before) = row.facts.asked.instead_of {
        line("instead of", &format!("{before}, a yes to the call as it was"));
    }
    line("bound to", &format!("{} (epoch {})", row.facts.asked.binding, row.epoch.0));
    let Some(ActionRecord { more, .. }) = record else { return text };
    line("target", &escaped(&more.facts.target.resource));
    line("environment", &escaped(&more.facts.target.environment));
    for cause in more.decision.deciding() {
        let rule = cause.rule.as_deref().unwrap_or(cause.reason.code());
        line("because of", &format!("{}: {}", escaped(rule), escaped(&cause.text)));
    }
    if let Some(intent) = &more.request.intent {
        let says = match intent.source {
            IntentSource::AgentDeclared => "the agent says",
            IntentSource::Operator => "an operator says",
        };
        line("intent", &format!("\"{}\" ({says})", shortened(&intent.text, 300)));
    }
    let pretty = serde_json::to_string_pretty(&more.request.parameters).unwrap_or_default();
    text.push_str("  parameters\n");
    for line in shown::whole(&pretty) {
        text.push_str(&format!("    {line}\n"));
    }
    text
}

/// What the call would do, as far as that was seen.
fn would(
    record: Option<&ActionRecord<DecisionRecord>>,
    preview: Option<&Preview>,
    look: &Look,
) -> String {
    let Some(facts) = record.map(|record| &record.more.facts) else { return String::new() };
    let mut text = match (&facts.preview, &facts.unseen) {
        (Some(known), _) => {
            let until = known.until.map(|until| look.time_and_age(until));
            let until = until.map_or_else(String::new, |until| format!(" until {until}"));
            let (counted, back) = (counted(known), known.guarantee.as_str());
            format!("  would do {counted}; to be taken back: {back}{until}\n")
        }
        (None, Some(unseen)) => format!("  would do: {}\n", escaped(&unseen.detail)),
        (None, None) => "  would do: nobody can see before; nothing takes it back\n".to_owned(),
    };
    match preview {
        Some(preview) => text.push_str(&diff::render(preview, look)),
        None if facts.preview.is_some() => {
            text.push_str("    the preview is not kept any more\n");
        }
        None => {}
    }
    text
}
