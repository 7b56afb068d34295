//! Records about plans, on one line. Must not choose which are shown.

use super::{PART_CHARS_MAX, in_width, word};
use crate::cli::look::{Look, Tone, count, escaped, shortened};
use holdpoint_types::{PlanProposed, PlanRuled, RecordBody};

/// What a record says, if it is about a plan.
pub(super) fn said(body: &RecordBody, look: &Look) -> Option<String> {
    Some(match body {
        RecordBody::PlanProposed(proposed) => planned(proposed, look),
        RecordBody::PlanAccepted(said) => {
            ruled(&look.paint(Tone::Good, &in_width("accepted")), said)
        }
        RecordBody::PlanRefused(said) => ruled(&look.paint(Tone::Bad, &in_width("refused")), said),
        RecordBody::PlanEnded(ended) => {
            let word = in_width(ended.end.as_str());
            let detail = shortened(&ended.detail, PART_CHARS_MAX);
            format!("{word} {}  {}: {detail}", ended.agent, ended.plan)
        }
        RecordBody::PlanLooked(looked) => {
            let (tone, word, unmet) = match &looked.unmet {
                None => (Tone::Good, "holds", String::new()),
                Some(unmet) => {
                    (Tone::Bad, "unmet", format!(": {}", shortened(unmet, PART_CHARS_MAX)))
                }
            };
            let painted = look.paint(tone, &in_width(word));
            let (agent, plan, step) = (&looked.agent, looked.plan, &looked.step);
            format!("{painted} {agent}  {plan}, after step {step}{unmet}")
        }
        _ => return None,
    })
}

fn ruled(painted: &str, said: &PlanRuled) -> String {
    format!("{painted} {}  {}{}", said.agent, said.plan, word(&said.reason, &said.by))
}

fn planned(proposed: &PlanProposed, look: &Look) -> String {
    let (tone, word) = match proposed.is_blocked() {
        true => (Tone::Bad, "blocked"),
        false => (Tone::Careful, "proposed"),
    };
    let plan = &proposed.plan;
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let steps = count(number(plan.steps.len()), "step");
    let notes = match proposed.notes.len() {
        0 => String::new(),
        some => format!(", {}", count(number(some), "note")),
    };
    let revises = plan.basis.parent.map(|parent| format!(", revises {parent}"));
    let by = plan.by.as_deref().map(|by| format!(", by {}", escaped(by)));
    let purpose = shortened(&plan.purpose, PART_CHARS_MAX);
    format!(
        "{} {}  {}{}{}, {steps}{notes}: {purpose}",
        look.paint(tone, &in_width(word)),
        plan.agent,
        plan.id,
        revises.unwrap_or_default(),
        by.unwrap_or_default(),
    )
}
