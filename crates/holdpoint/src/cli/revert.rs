//! `holdpoint revert`: shows what taking an action back would do, does it, and says honestly what
//! became of it. Must not call anything restored that nobody looked at.

use super::approvals::headline;
use super::approve;
use super::look::{Look, Tone, count, escaped, json_lines};
use super::operator;
use super::why::{self, Found, find_action, used_by};
use super::{Exit, Format, Globals, WrongUsage, answer};
use crate::gateway::{Rest, lacking_for_revert, lacking_for_validators, runtime_spec};
use clap::ArgGroup;
use holdpoint_resources::RevertPreview;
use holdpoint_server::doors::local::Kind;
use holdpoint_server::doors::refusal_text;
use holdpoint_server::governor::{Refusal, Reverting, Wanted, Whole};
use holdpoint_server::operate::Word;
use holdpoint_server::runtime::Runtime;
use holdpoint_server::store::{RecordQuery, Store};
use holdpoint_types::{
    ActionId, ChangeCounts, Door, EffectClass, PlanId, RecordBody, RevertRecord, RevertStatus,
    Ruling, TaskId, ToolRef,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Most changes that are shown to people.
const SHOWN_MAX: usize = 50;
/// How many permitted calls `last` looks through for one that changed something.
const LAST_MAX: u32 = 1000;

/// Take back what an action did, as far as it can be. What somebody changed since is kept and
/// listed. Of several, what cannot be taken back is passed over; where one is kept in part, fails
/// or waits for an approval, those before it are not tried. Exit 0 if everything is as it was
/// before, 4 if an approval is needed, 5 otherwise.
#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("what").required(true).args(["action", "task", "plan"])))]
pub struct Args {
    /// The action's id, at least its first 6 hex digits, or `last` for the newest that changed
    /// something.
    #[arg(value_name = "ACTION")]
    action: Option<why::Wanted>,
    /// All actions of this task, the newest first. Its id in full.
    #[arg(long, value_name = "TASK", value_parser = parse_task)]
    task: Option<TaskId>,
    /// All actions that are a part of this plan, the newest first.
    #[arg(long, value_name = "PLAN")]
    plan: Option<PlanId>,
    /// Only show what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Why. It is recorded.
    #[arg(long, visible_alias = "reason", value_name = "TEXT", required_unless_present = "dry_run",
          value_parser = operator::parse_reason)]
    because: Option<String>,
}

/// An action, and what became of taking it back.
struct Back {
    of: ActionId,
    /// Its tool, and at what it was aimed.
    what: Option<(ToolRef, String)>,
    became: Reverting,
}

/// All that were to be taken back.
struct Backs {
    all: Vec<Back>,
    /// Those before them that were not tried.
    untried: Vec<ActionId>,
}

/// Runs `holdpoint revert`.
///
/// # Errors
/// When there is no such action, or the store or the configuration cannot be used.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    let config = globals.load()?;
    // As whom approvals know it: nobody approves what they asked for.
    let by = approve::speaker(&config)?.name.to_string();
    has_all(&lacking_for_validators(&config.validators))?;
    let (spec, rest) = runtime_spec(config, Kind::Revert)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let backs = runtime.block_on(async {
        let runtime = Runtime::start(spec).await?;
        let backs = revert_all(&runtime, rest, (args, by)).await;
        runtime.shut_down().await;
        backs
    })?;
    match globals.format {
        Format::Json => {
            let told: Vec<_> = backs.all.iter().map(to_json).collect();
            let told = json!({ "reverts": told, "untried": backs.untried });
            answer(&json_lines(&told))?;
        }
        Format::Text => answer(&render_all(&backs, &Look::of_terminal()))?,
    }
    let exits = backs.all.iter().map(|back| exit_of(&back.became));
    Ok(exits.max_by_key(|exit| weight(*exit)).unwrap_or(Exit::Ok))
}

/// A task. It is never guessed from its first digits: that could take back another's work.
fn parse_task(text: &str) -> Result<TaskId, String> {
    text.parse().map_err(|fault| {
        format!("{fault}; give the task's id in full, as `holdpoint why` shows it for its actions")
    })
}

async fn revert_all(
    runtime: &Runtime,
    mut rest: Rest,
    (args, by): (&Args, String),
) -> anyhow::Result<Backs> {
    let governor = runtime.governor();
    let actions = match (&args.action, args.task, args.plan) {
        (Some(action), _, _) => vec![find(governor.store(), action)?],
        (None, Some(task), _) => governor.actions_of(Whole::Task(task))?,
        (None, None, Some(plan)) => governor.actions_of(Whole::Plan(plan))?,
        (None, None, None) => Vec::new(),
    };
    if actions.is_empty() {
        return Err(WrongUsage("no action of it was permitted".to_owned()).into());
    }
    // Whoever takes something back need not be able to reach anything else.
    let mut whats = whats_of(governor.store(), &actions)?;
    let servers: BTreeSet<_> = whats.values().map(|(tool, _)| tool.server().clone()).collect();
    rest.servers.retain(|name, _| servers.contains(name));
    has_all(&lacking_for_revert(&rest))?;
    governor.replace_resources(rest.resources(&rest.upstreams()?)?);
    let reason = args.because.clone().unwrap_or_default();
    let word = Word { reason, by, at: governor.now() };
    let wanted = if args.dry_run { Wanted::Look } else { Wanted::Do };
    let mut backs = Backs { all: Vec::new(), untried: Vec::new() };
    let mut actions = actions.into_iter();
    for of in actions.by_ref() {
        let became = governor.revert(of, (&word, wanted)).await?;
        // What came later must be taken back before what came earlier.
        let goes_on = match &became {
            Reverting::Seen(_) => true,
            Reverting::Refused(..) => wanted == Wanted::Look,
            Reverting::Ended(record) => wanted == Wanted::Look || record.status.goes_on(),
        };
        backs.all.push(Back { of, what: whats.remove(&of), became });
        if !goes_on {
            break;
        }
    }
    backs.untried = actions.collect();
    Ok(backs)
}

/// Refuses to begin while something is lacking without which targets are not reached.
fn has_all(lacking: &[String]) -> Result<(), WrongUsage> {
    if lacking.is_empty() {
        return Ok(());
    }
    Err(WrongUsage(format!(
        "nothing was looked at or changed: a revert reaches servers itself, so it needs what \
         `serve` is given, and lacks this: {}; set the variables for this command, as for `serve`, \
         or have the configuration name files that you may read (`from_file`)",
        lacking.join("; ")
    )))
}

/// The tools of `actions`, and at what each was aimed.
fn whats_of(
    store: &Store,
    actions: &[ActionId],
) -> anyhow::Result<BTreeMap<ActionId, (ToolRef, String)>> {
    let mut whats = BTreeMap::new();
    for action in actions {
        whats.extend(store.of_action(*action)?.into_iter().find_map(|stored| {
            match stored.record.body {
                RecordBody::Decision(decided) => {
                    let more = decided.more;
                    Some((*action, (more.request.tool, more.facts.target.resource)))
                }
                _ => None,
            }
        }));
    }
    Ok(whats)
}

fn find(store: &Store, text: &why::Wanted) -> anyhow::Result<ActionId> {
    if let why::Wanted::Last = text {
        let text = format!("none of the last {LAST_MAX} permitted calls changed anything");
        return last_change(store)?.ok_or_else(|| WrongUsage(text).into());
    }
    match find_action(store, text)? {
        Found::One(action) => match nothing_of(store, action)? {
            None => Ok(action),
            Some(why) => Err(WrongUsage(why).into()),
        },
        Found::None => Err(WrongUsage(format!("no action is known as `{text}`")).into()),
        Found::Many(some) => {
            Err(WrongUsage(format!("`{text}` fits {} actions; write more", some.len())).into())
        }
    }
}

/// The newest call that was permitted to change something, and is no revert itself.
fn last_change(store: &Store) -> anyhow::Result<Option<ActionId>> {
    let ruling = Some(Ruling::Permit);
    let query = RecordQuery { ruling, newest_first: true, limit: LAST_MAX, ..Default::default() };
    let changed = store.records(&query)?.into_iter().find_map(|stored| match stored.record.body {
        RecordBody::Decision(decided) => {
            let class = decided.more.facts.tool.as_ref().map(|tool| tool.class);
            let changes = class > Some(EffectClass::Read);
            let by_agent = decided.more.request.door != Door::Operator;
            (changes && by_agent).then_some(decided.action)
        }
        _ => None,
    });
    Ok(changed)
}

/// Why `action` is none that can be taken back, and which one may be meant.
fn nothing_of(store: &Store, action: ActionId) -> anyhow::Result<Option<String>> {
    let decided = store.of_action(action)?.into_iter().find_map(|stored| {
        let at = stored.record.at_ms;
        match stored.record.body {
            RecordBody::Decision(decided) => Some((decided.more, at)),
            _ => None,
        }
    });
    let Some((decided, at)) = decided else { return Ok(None) };
    if decided.request.door == Door::Operator {
        let of = decided.request.parameters.get("action").and_then(Value::as_str);
        let of = of.map_or_else(String::new, |of| format!(", of {}", escaped(of)));
        return Ok(Some(format!(
            "{action} is a revert itself{of}; taking it back would do again what was taken back, \
             unseen: have the call made again instead, or name another action"
        )));
    }
    let ruling = decided.decision.ruling();
    if ruling == Ruling::Permit {
        return Ok(None);
    }
    let made = match &decided.approval {
        Some(asked) => used_by(store, asked, (&decided.request, at))?,
        None => None,
    };
    Ok(Some(match made {
        Some(made) => format!(
            "{action} was held and never ran; what ran after its approval is {made}: revert that"
        ),
        None => format!("{action} never ran ({ruling}), so there is nothing to take back"),
    }))
}

fn exit_of(became: &Reverting) -> Exit {
    match became {
        Reverting::Seen(seen) if seen.conflicts.is_empty() => Exit::Ok,
        Reverting::Seen(_) => Exit::Unverified,
        Reverting::Refused(_, refusal) if refusal.decision.ruling() == Ruling::Hold => Exit::Held,
        Reverting::Refused(..) => Exit::Denied,
        Reverting::Ended(record) => match record.status {
            RevertStatus::Restored | RevertStatus::Unchanged => Exit::Ok,
            RevertStatus::Partly | RevertStatus::Impossible | RevertStatus::Stuck => {
                Exit::Unverified
            }
        },
    }
}

/// What weighs more is what is told.
fn weight(exit: Exit) -> u8 {
    match exit {
        Exit::Ok => 0,
        Exit::Held => 1,
        Exit::Denied => 2,
        Exit::Unverified => 3,
        Exit::Fault | Exit::Usage => 4,
    }
}

fn to_json(back: &Back) -> Value {
    let of = back.of;
    let mut told = match &back.became {
        Reverting::Seen(seen) => json!({
            "of": of,
            "would": { "preview": seen.preview, "conflicts": seen.conflicts },
        }),
        Reverting::Refused(action, refusal) => json!({
            "of": of,
            "refused": holdpoint_server::doors::refusal_json(*action, refusal),
        }),
        Reverting::Ended(record) => json!(record),
    };
    if let (Some(told), Some((tool, target))) = (told.as_object_mut(), &back.what) {
        told.insert("tool".to_owned(), json!(tool));
        told.insert("target".to_owned(), json!(target));
    }
    told
}

fn render_all(backs: &Backs, look: &Look) -> String {
    let mut text: String = backs.all.iter().map(|back| render(back, look)).collect();
    if !backs.untried.is_empty() {
        let them: Vec<_> = backs.untried.iter().map(ToString::to_string).collect();
        text.push_str(&format!(
            "not tried, because they came before it: {}\n  look at what stands above, then revert \
             each by its id, the first one first\n",
            them.join(", "),
        ));
    }
    text
}

fn render(back: &Back, look: &Look) -> String {
    let text = match &back.became {
        Reverting::Seen(seen) => seen_text(back.of, seen, look),
        Reverting::Refused(action, refusal) => refused(*action, refusal),
        Reverting::Ended(record) => ended(record, look),
    };
    let Some((tool, target)) = &back.what else { return text };
    let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
    format!("{first}\n  of {tool}, {}\n{rest}", escaped(target))
}

fn seen_text(of: ActionId, seen: &RevertPreview, look: &Look) -> String {
    let until = match seen.undo.until {
        Some(until) => format!(", until {}", look.time_and_age(until)),
        None => String::new(),
    };
    let guarantee = seen.undo.guarantee.as_str();
    let mut text = format!("{of} could be taken back ({guarantee}{until})\n");
    let preview = holdpoint_resources::redacted(seen.preview.clone());
    for change in preview.changes.iter().take(SHOWN_MAX) {
        text.push_str(&format!("  {}\n", headline(change, look)));
    }
    let more = preview.changes.len().saturating_sub(SHOWN_MAX);
    if more > 0 {
        text.push_str(&format!("  … {more} more\n"));
    }
    for conflict in &seen.conflicts {
        let (resource, why) = (escaped(&conflict.resource), escaped(&conflict.why));
        text.push_str(&format!("  {} {resource}: {why}\n", look.paint(Tone::Careful, "keep  ")));
    }
    for note in &preview.notes {
        text.push_str(&format!("  note    {}\n", escaped(note)));
    }
    if preview.changes.is_empty() {
        text.push_str("  nothing to put back\n");
    }
    text
}

fn refused(action: ActionId, refusal: &Refusal) -> String {
    let mut text = refusal_text(action, refusal);
    if let Some(asked) = &refusal.approval {
        text.push_str(&format!(
            "\nAfter `holdpoint approve {}`, by somebody else than you, run this command again.",
            asked.id
        ));
    }
    text.lines().map(|line| format!("{}\n", escaped(line))).collect()
}

/// The tone of how it stands.
pub fn tone(status: RevertStatus) -> Tone {
    match status {
        RevertStatus::Restored | RevertStatus::Unchanged => Tone::Good,
        RevertStatus::Partly => Tone::Careful,
        RevertStatus::Impossible | RevertStatus::Stuck => Tone::Bad,
    }
}

/// How it stands, in words.
pub fn meaning(status: RevertStatus) -> &'static str {
    match status {
        RevertStatus::Restored => "everything is as it was before; that was looked at",
        RevertStatus::Unchanged => "everything was as it was before already",
        RevertStatus::Partly => "what somebody changed since is kept; the rest is as it was before",
        RevertStatus::Impossible => "it cannot be taken back",
        RevertStatus::Stuck => "it failed, or nobody can tell how the target is: look at it",
    }
}

/// How much was put back.
pub fn put_back(restored: ChangeCounts) -> String {
    let things = count(restored.total(), "thing");
    format!(
        "{things}: {} made again, {} changed back, {} removed",
        restored.created, restored.updated, restored.deleted,
    )
}

fn ended(record: &RevertRecord, look: &Look) -> String {
    let word = look.paint(tone(record.status), record.status.as_str());
    let nothing = record.status == RevertStatus::Partly && record.restored.total() == 0;
    let meaning = match nothing {
        true => "what somebody changed since is kept; nothing was put back",
        false => meaning(record.status),
    };
    let mut text = format!("{word} {}: {meaning}\n", record.of);
    if record.restored.total() > 0 {
        text.push_str(&format!("  put back {}\n", put_back(record.restored)));
    }
    for conflict in &record.conflicts {
        let (resource, why) = (escaped(&conflict.resource), escaped(&conflict.why));
        text.push_str(&format!("  kept {resource}: {why}\n"));
    }
    if let Some(detail) = record.detail.as_deref().filter(|detail| !detail.is_empty()) {
        text.push_str(&format!("  {}\n", escaped(detail)));
    }
    if let Some(action) = record.action {
        text.push_str(&format!("  by action {action}\n"));
    }
    text
}
