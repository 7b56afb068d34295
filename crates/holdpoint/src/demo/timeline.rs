//! The timeline that a person follows: what happens, what Holdpoint said, what became of it.
//! Must not know how a scenario is played.

use super::play::{Over, Played, Told};
use super::scenario::{Act, Call, PendingStep};
use crate::cli::look::{Look, Tone, duration, escaped, shortened};
use holdpoint_types::{OutcomeStatus, Reason, Ruling};
use serde_json::Value;

/// Width of the text, in characters.
const WIDTH: usize = 96;

/// The head of an act.
pub fn opening(title: &str, act: &Act, look: &Look) -> String {
    let mut text = format!("\n{}\n", look.paint(Tone::Strong, title));
    for line in wrapped(&act.story.split_whitespace().collect::<Vec<_>>().join(" "), WIDTH - 2) {
        text.push_str(&format!("  {}\n", look.paint(Tone::Dim, &line)));
    }
    if let Some(ask) = &act.ask {
        text.push_str(&format!("  {} {}\n", look.paint(Tone::Strong, "asked:"), escaped(ask)));
    }
    text
}

/// One step, played or not.
pub fn told(told: &Told<'_>, look: &Look) -> String {
    match told {
        Told::Played(played) => step(played, look),
        Told::Pending(step) => pending(step, look),
    }
}

/// What was not as expected in a step, and what the agent was told; nothing if all was.
pub fn unexpected(played: &Played<'_>, look: &Look) -> String {
    if played.unmet.is_empty() { String::new() } else { step(played, look) }
}

/// One step: the line of the story, the call, the decision, the end.
fn step(played: &Played<'_>, look: &Look) -> String {
    let clock = format!("{:>6.2} s", played.at.as_secs_f64());
    let say = escaped(played.say);
    let mut text = format!("\n{}  {say}\n", look.paint(Tone::Dim, &clock));
    text.push_str(&line("call", &called(played.call), look));
    text.push_str(&decided(played, look));
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
    for unmet in &played.unmet {
        let title = format!("UNEXPECTED: {unmet}");
        text.push_str(&line("", &look.paint(Tone::Bad, &title), look));
    }
    text
}

fn pending(step: &PendingStep, look: &Look) -> String {
    let mut text = format!("\n{:>8}  {}\n", look.paint(Tone::Dim, "pending"), escaped(&step.say));
    let title = format!("not played: Holdpoint has no {} yet", step.lacks.as_str());
    text.push_str(&line("pending", &look.paint(Tone::Careful, &title), look));
    text
}

/// The end of an act.
pub fn closing(over: &Over, look: &Look) -> String {
    let mut text = String::from("\n");
    for (name, (before, after)) in &over.kept {
        let (tone, title) = match before == after {
            true => {
                (Tone::Good, format!("byte-identical, sha256 {} before and after", before.short()))
            }
            false => {
                (Tone::Bad, format!("CHANGED: {} before, {} after", before.short(), after.short()))
            }
        };
        text.push_str(&line("kept", &format!("{name}: {}", look.paint(tone, &title)), look));
    }
    let title = match over.unexpected {
        0 => look.paint(Tone::Good, "as expected, every step"),
        1 => look.paint(Tone::Bad, "1 step was not as expected"),
        many => look.paint(Tone::Bad, &format!("{many} steps were not as expected")),
    };
    text.push_str(&line("result", &title, look));
    text
}

/// One labelled line.
pub fn line(label: &str, text: &str, look: &Look) -> String {
    format!("          {} {text}\n", look.paint(Tone::Dim, &format!("{label:<9}")))
}

fn called(call: &Call) -> String {
    let parameters = Value::Object(call.parameters.clone()).to_string();
    let parameters = parameters.split_whitespace().collect::<Vec<_>>().join(" ");
    let room = WIDTH.saturating_sub(call.tool.to_string().len());
    format!("{} {}", call.tool, shortened(&parameters.replace("\\n", " "), room))
}

fn decided(played: &Played<'_>, look: &Look) -> String {
    let ruling = played.decision.ruling();
    let mark = if ruling == Ruling::Permit { "permit" } else { ruling.as_str() };
    let mark = look.paint(Tone::of_ruling(ruling), mark);
    let mut text = String::new();
    for cause in played.decision.deciding() {
        let rule = cause.rule.as_ref().map_or_else(String::new, |rule| format!(" [{rule}]"));
        let words = shortened(&cause.text, WIDTH);
        text.push_str(&line("decision", &format!("{mark}  {}{rule}  {words}", cause.reason), look));
    }
    text
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
            format!("{reason}: {}", shortened(detail, WIDTH))
        }
        (_, None) => {
            shortened(&played.text.split_whitespace().collect::<Vec<_>>().join(" "), WIDTH)
        }
    };
    line("outcome", &format!("{status} after {}  {words}", duration(outcome.duration_ms)), look)
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(last) if last.chars().count() + 1 + word.chars().count() <= width => {
                last.push(' ');
                last.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
