//! The timeline that a person follows: what happens, what Holdpoint said, what became of it.
//! Must not know how a scenario is played.

use super::people::{Deed, Operated, ruling, word};
use super::play::{Over, Played, Told};
use super::scenario::{Act, Call, PendingStep, counted};
use crate::cli::approvals;
use crate::cli::look::{Look, Tone, duration, escaped, shortened};
use holdpoint_server::operate::Answer;
use holdpoint_server::store::PlanRow;
use holdpoint_types::{
    ChangeCounts, OutcomeStatus, PlanState, PreviewFacts, Reason, Reversibility, RevertRecord,
    RevertStatus, Ruling, ToolRef,
};
use serde_json::Value;

/// Width of a line, in characters: what a terminal shows without breaking it.
const WIDTH: usize = 80;
/// Where what is labelled begins.
const LABELLED: usize = 20;
/// Longest part of a call, a reason or an answer that is shown, in characters.
const PART_CHARS_MAX: usize = 120;
/// Most lines of a preview.
const PREVIEW_LINES_MAX: usize = 8;

/// The head of an act.
pub fn opening(title: &str, act: &Act, look: &Look) -> String {
    let mut text = format!("\n{}\n", look.paint(Tone::Strong, title));
    for line in wrapped(&act.story.split_whitespace().collect::<Vec<_>>().join(" "), WIDTH - 2) {
        text.push_str(&format!("  {}\n", look.paint(Tone::Dim, &line)));
    }
    if let Some(ask) = &act.ask {
        let asked = wrapped(&escaped(ask), WIDTH - 9).join("\n         ");
        text.push_str(&format!("  {} {asked}\n", look.paint(Tone::Strong, "asked:")));
    }
    text
}

/// One step, played or not.
pub fn told(told: &Told<'_>, look: &Look) -> String {
    match told {
        Told::Played(played) => step(played, look),
        Told::Operated(operated) => by_person(operated, look),
        Told::Pending(step) => pending(step, look),
        Told::LeftOut(step, why) => left_out(&step.say, why, look),
    }
}

/// What was not as expected in a step, and what the agent was told; nothing if all was.
pub fn unexpected(one: &Told<'_>, look: &Look) -> String {
    let all_met = match one {
        Told::Played(played) => played.unmet.is_empty(),
        Told::Operated(operated) => operated.unmet.is_empty(),
        Told::Pending(_) | Told::LeftOut(..) => true,
    };
    if all_met { String::new() } else { told(one, look) }
}

/// One step: the line of the story, the call, the decision, the end.
fn step(played: &Played<'_>, look: &Look) -> String {
    let clock = format!("{:>6.2} s", played.at.as_secs_f64());
    let mut text = said(&clock, played.say, look);
    if let Some(agent) = played.agent {
        text.push_str(&line("agent", agent.as_str(), look));
    }
    let tool = played.call.tool.to_string();
    text.push_str(&explained("call", &tool, &called(played.call), look));
    text.push_str(&decided(played, look));
    text.push_str(&previewed(played, look));
    if let Some((acknowledged, took)) = &played.stopped {
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        for stop in &acknowledged.stops {
            let title = format!(
                "{} on {}, acknowledged after {}: {}",
                stop.id,
                stop.scope,
                duration(ms),
                escaped(&stop.reason)
            );
            text.push_str(&line("stop", &look.paint(Tone::Bad, &title), look));
        }
    }
    text.push_str(&ended(played, look));
    text.push_str(&unmet(&played.unmet, look));
    text
}

/// What a person did: the line of the story, what was said, how it stands.
fn by_person(operated: &Operated<'_>, look: &Look) -> String {
    let clock = format!("{:>6.2} s", operated.at.as_secs_f64());
    let mut text = said(&clock, operated.say, look);
    match &operated.deed {
        Deed::Answered { step, stands, .. } => {
            let spoken = format!("{}: {}", step.by, escaped(&step.reason));
            text.push_str(&line(word(step.answer), &spoken, look));
            if let Some((state, missing)) = stands {
                let (tone, means) = match step.answer {
                    Answer::No => (Tone::Bad, "the agent reads why when it asks again".to_owned()),
                    Answer::Yes if missing.is_empty() => {
                        (Tone::Good, "exactly this call may be made, once".to_owned())
                    }
                    Answer::Yes => {
                        (Tone::Careful, format!("still missing: {}", missing.join(", ")))
                    }
                };
                let state = look.paint(tone, state.as_str());
                text.push_str(&line("approval", &format!("{state}  {means}"), look));
            }
        }
        Deed::Reverted { step, ends } => {
            let spoken = format!("{}: {}", step.by, escaped(&step.reason));
            text.push_str(&line("revert", &spoken, look));
            for (tool, record) in ends {
                text.push_str(&line("", &taken_back(tool, record, look), look));
            }
        }
        Deed::Proposed(step, row) => {
            let purpose = step.plan.get("purpose").and_then(Value::as_str).unwrap_or_default();
            text.push_str(&line("proposal", &escaped(purpose), look));
            text.push_str(&row.as_ref().map_or_else(String::new, |row| plan(row, look)));
        }
        Deed::Ruled(step, row) => {
            let spoken = format!("{}: {}", step.by, escaped(&step.reason));
            text.push_str(&line(ruling(step.answer), &spoken, look));
            let state = row.as_ref().map(|row| plan_state(row, look));
            text.push_str(&state.map_or_else(String::new, |state| line("plan", &state, look)));
        }
        Deed::Changed(step) => {
            let sql = step.sql.split_whitespace().collect::<Vec<_>>().join(" ");
            let sql = shortened(&sql, PART_CHARS_MAX);
            text.push_str(&line("meanwhile", &format!("{}: {sql}", step.database), look));
        }
    }
    text.push_str(&unmet(&operated.unmet, look));
    text
}

/// The steps of a plan, what each would do, and how the plan stands.
fn plan(row: &PlanRow, look: &Look) -> String {
    let mut text = String::new();
    for step in &row.plan.steps {
        let targets = step.targets.join(", ");
        let head = format!("{} ({}) {}", step.tool, step.class, escaped(&targets));
        text.push_str(&line("step", &head, look));
        if let Some(seen) = row.plan.basis.targets.get(&step.id) {
            text.push_str(&line("", &would(seen), look));
        }
    }
    text + &line("plan", &plan_state(row, look), look)
}

fn plan_state(row: &PlanRow, look: &Look) -> String {
    let (tone, means) = match row.state {
        PlanState::Proposed => (Tone::Careful, "  it waits for somebody to accept it"),
        PlanState::Accepted => (Tone::Good, "  from here on this is what may be changed"),
        PlanState::Refused | PlanState::Ended(_) => (Tone::Bad, ""),
    };
    format!("{}{means}", look.paint(tone, row.state.as_str()))
}

fn taken_back(tool: &ToolRef, record: &RevertRecord, look: &Look) -> String {
    let tone = match record.status {
        RevertStatus::Restored | RevertStatus::Unchanged => Tone::Good,
        RevertStatus::Partly => Tone::Careful,
        RevertStatus::Impossible | RevertStatus::Stuck => Tone::Bad,
    };
    let ChangeCounts { created, updated, deleted } = record.restored;
    let all = [(created, "made again"), (updated, "changed back"), (deleted, "removed")];
    let some = all.iter().filter(|(count, _)| *count > 0);
    let words: Vec<_> = some.map(|(count, what)| format!("{count} {what}")).collect();
    let status = look.paint(tone, record.status.as_str());
    let mut text = format!("{status}  {tool}");
    if !words.is_empty() {
        text.push_str(&format!(": {}", words.join(", ")));
    }
    if let Some(detail) = record.detail.as_deref().filter(|detail| !detail.is_empty()) {
        text.push_str(&format!("; {}", shortened(detail, PART_CHARS_MAX)));
    }
    text
}

fn unmet(all: &[String], look: &Look) -> String {
    let told = all.iter().map(|unmet| {
        let title = format!("UNEXPECTED: {}", escaped(unmet));
        line("", &look.paint(Tone::Bad, &title), look)
    });
    told.collect()
}

fn pending(step: &PendingStep, look: &Look) -> String {
    let mut text = said(" pending", &step.say, look);
    let title = format!("not played: Holdpoint has no {} yet", step.lacks.as_str());
    text.push_str(&line("pending", &look.paint(Tone::Careful, &title), look));
    text
}

fn left_out(say: &str, why: &str, look: &Look) -> String {
    let title = look.paint(Tone::Careful, &format!("not played here: {}", escaped(why)));
    said("left out", say, look) + &line("left out", &title, look)
}

/// The line of the story.
fn said(clock: &str, say: &str, look: &Look) -> String {
    let lines = wrapped(&escaped(say), WIDTH - 10);
    format!("\n{}  {}\n", look.paint(Tone::Dim, clock), lines.join("\n          "))
}

/// The end of an act.
pub fn closing(over: &Over, look: &Look) -> String {
    let mut text = String::from("\n");
    for (name, (before, after)) in &over.kept {
        let same = match over.moved.contains(name) {
            true => "byte-identical, but for what somebody else changed".to_owned(),
            false => format!("byte-identical, sha256 {}", before.short()),
        };
        text.push_str(&kept("kept", name, (&same, before == after), look));
    }
    for (name, (before, after)) in &over.restored {
        let same = "as it was before, row by row";
        text.push_str(&kept("restored", name, (same, before == after), look));
    }
    let title = match over.unexpected {
        0 => look.paint(Tone::Good, "as expected, every step"),
        1 => look.paint(Tone::Bad, "1 step was not as expected"),
        many => look.paint(Tone::Bad, &format!("{many} steps were not as expected")),
    };
    text.push_str(&line("result", &title, look));
    text
}

fn kept(label: &str, name: &str, (same, is_same): (&str, bool), look: &Look) -> String {
    let (tone, title) = if is_same { (Tone::Good, same) } else { (Tone::Bad, "CHANGED") };
    line(label, &format!("{name}: {}", look.paint(tone, title)), look)
}

/// Something labelled, on as many lines as it needs.
pub fn line(label: &str, text: &str, look: &Look) -> String {
    let label = look.paint(Tone::Dim, &format!("{label:<9}"));
    let indent = format!("\n{}", " ".repeat(LABELLED));
    format!("          {label} {}\n", wrapped(text, WIDTH - LABELLED).join(&indent))
}

/// Something labelled with what explains it: on the same line, if there is room.
fn explained(label: &str, head: &str, words: &str, look: &Look) -> String {
    let room = WIDTH - LABELLED;
    if words.is_empty() || seen(head) + seen(words) + 2 <= room {
        return line(label, format!("{head}  {words}").trim_end(), look);
    }
    line(label, head, look) + &line("", words, look)
}

fn called(call: &Call) -> String {
    let parameters = Value::Object(call.parameters.clone()).to_string();
    let parameters = parameters.replace("\\n", " ");
    let parameters = parameters.split_whitespace().collect::<Vec<_>>().join(" ");
    shortened(&parameters, PART_CHARS_MAX)
}

fn decided(played: &Played<'_>, look: &Look) -> String {
    let ruling = played.decision.ruling();
    let mark = if ruling == Ruling::Permit { "permit" } else { ruling.as_str() };
    let mark = look.paint(Tone::of_ruling(ruling), mark);
    let mut text = String::new();
    for cause in played.decision.deciding() {
        let rule = cause.rule.as_ref().map_or_else(String::new, |rule| format!(" [{rule}]"));
        let words = shortened(&cause.text, PART_CHARS_MAX);
        let head = format!("{mark}  {}{rule}", cause.reason);
        text.push_str(&explained("decision", &head, &words, look));
    }
    text
}

/// What was seen before, and, where somebody is to decide, what they get to read.
fn previewed(played: &Played<'_>, look: &Look) -> String {
    let Some(seen) = &played.seen else { return String::new() };
    let facts = &seen.facts;
    if facts.guarantee == Reversibility::NoEffect {
        return String::new();
    }
    let mut text = line("preview", &would(facts), look);
    let Some(preview) = &played.preview else { return text };
    let rendered = approvals::render(preview, look);
    let lines = rendered.lines().count();
    for shown in rendered.lines().take(PREVIEW_LINES_MAX) {
        text.push_str(&format!(
            "{}{}\n",
            " ".repeat(LABELLED - 2),
            cut(shown, WIDTH - LABELLED + 2)
        ));
    }
    if lines > PREVIEW_LINES_MAX {
        text.push_str(&line("", &format!("… {} more lines", lines - PREVIEW_LINES_MAX), look));
    }
    text
}

fn would(facts: &PreviewFacts) -> String {
    let would = match (facts.counts.total(), facts.exact) {
        (0, false) => "nobody can tell exactly".to_owned(),
        (_, true) => format!("exactly {}", counted(facts.counts)),
        (_, false) => format!("about {}", counted(facts.counts)),
    };
    format!("{would}; to be taken back: {}", facts.guarantee.as_str())
}

fn ended(played: &Played<'_>, look: &Look) -> String {
    let Some(outcome) = &played.outcome else {
        return line("outcome", "never reached the server", look);
    };
    let tone = match outcome.status {
        OutcomeStatus::Succeeded => Tone::Good,
        OutcomeStatus::ToolError | OutcomeStatus::NotSent | OutcomeStatus::InDoubt => Tone::Careful,
    };
    let status = look.paint(tone, outcome.status.as_str());
    let words = match (outcome.status, &outcome.detail) {
        (_, Some(detail)) => {
            let reason = outcome.reason.map_or("", Reason::code);
            format!("{reason}: {}", shortened(detail, PART_CHARS_MAX))
        }
        (_, None) => {
            let words = played.text.split_whitespace().collect::<Vec<_>>().join(" ");
            shortened(&words, PART_CHARS_MAX)
        }
    };
    let head = format!("{status} after {}", duration(outcome.duration_ms));
    explained("outcome", &head, &words, look)
}

/// Lines of at most `width` characters, broken between words, and words only if they are longer.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(last) if seen(last) + 1 + seen(word) <= width => {
                last.push(' ');
                last.push_str(word);
            }
            _ => lines.extend(pieces(word, width)),
        }
    }
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

/// A word in pieces of at most `width` characters.
fn pieces(word: &str, width: usize) -> Vec<String> {
    if seen(word) <= width {
        return vec![word.to_owned()];
    }
    let chars: Vec<char> = word.chars().collect();
    chars.chunks(width.max(1)).map(|piece| piece.iter().collect()).collect()
}

/// The beginning of a line, with its colours.
fn cut(line: &str, width: usize) -> String {
    if seen(line) <= width {
        return line.to_owned();
    }
    let (mut text, mut room, mut colour) = (String::new(), width.saturating_sub(1), false);
    for one in line.chars() {
        colour |= one == '\u{1b}';
        if colour {
            text.push(one);
            colour = one != 'm';
        } else if room > 0 {
            text.push(one);
            room -= 1;
            if room == 0 {
                text.push('…');
            }
        }
    }
    text
}

/// How many characters of a text are seen: colours are not.
fn seen(text: &str) -> usize {
    let mut colour = false;
    let is_seen = |one: &char| {
        colour |= *one == '\u{1b}';
        let seen = !colour;
        colour &= *one != 'm';
        seen
    };
    text.chars().filter(is_seen).count()
}
