//! What was known of an action before it was decided: its preview, its agent's plan, and the
//! freezes; and what was found after the plan's step. Must not show a value of a target.

use crate::cli::approvals::counted;
use crate::cli::look::{Look, SHORT_CHARS_MAX, Tone, escaped, shortened};
use crate::cli::tree::Branch;
use holdpoint_types::{Facts, PlanBudget, PlanFacts, PlanFit, PlanLooked, PreviewFacts};

/// What would come of it, or why that was not seen.
pub fn preview(facts: &Facts, look: &Look) -> Branch {
    match (&facts.preview, &facts.unseen) {
        (Some(known), _) => seen(known, look),
        (None, Some(unseen)) => {
            let text = format!("not seen, {}: {}", unseen.reason, short(&unseen.detail));
            Branch::new("preview", text).toned(Tone::Careful)
        }
        (None, None) => Branch::new("preview", "none").toned(Tone::Dim),
    }
}

fn seen(known: &PreviewFacts, look: &Look) -> Branch {
    let until = known.until.map(|until| format!(" until {}", look.time_and_age(until)));
    let back = format!("{}{}", known.guarantee.as_str(), until.unwrap_or_default());
    Branch::new("preview", counted(known))
        .with([
            Branch::new("guarantee", back),
            Branch::new("disclosure", known.disclosure.as_str()),
            Branch::new("digest", known.digest.to_string()),
        ])
        .with(known.notes.iter().map(|note| Branch::new("unseen", short(note))))
}

/// How it stood to a plan of its agent.
pub fn plan(plan: Option<&PlanFacts>) -> Branch {
    let Some(PlanFacts { plan, fit, .. }) = plan else {
        return Branch::new("plan", "none").toned(Tone::Dim);
    };
    match fit {
        PlanFit::Step { step, uses } => {
            Branch::new("plan", format!("{plan}, step {step}{}", used(*uses)))
        }
        PlanFit::Condition { step, when, number } => {
            let which = format!("condition {number} {} step {step}", when.as_str());
            Branch::new("plan", format!("{plan}, looks at {which}"))
        }
        PlanFit::FreeRead => Branch::new("plan", format!("{plan}, which leaves reads free")),
        PlanFit::Deviation { nearest, why } => {
            let nearest = nearest.as_ref().map(|step| format!(", nearest step {step}"));
            let nearest = nearest.unwrap_or_default();
            let text = format!("no part of {plan}{nearest}: {}", short(why));
            Branch::new("plan", text).toned(Tone::Bad)
        }
    }
}

/// What was found after the step of the plan that it was a call of.
pub fn looked(looked: &PlanLooked) -> Branch {
    let step = &looked.step;
    let branch = match &looked.unmet {
        None => Branch::new("after step", format!("{step}: what must hold does")),
        Some(unmet) => {
            let goes = format!("{step}: goes no further");
            Branch::new("after step", goes)
                .toned(Tone::Bad)
                .with([Branch::new("unmet", short(unmet))])
        }
    };
    branch.with(looked.reads.iter().map(|read| Branch::new("read", read.to_string())))
}

fn used(uses: PlanBudget) -> String {
    let PlanBudget { rows, files, resources } = uses;
    let each = [("rows", rows), ("files", files), ("resources", resources)];
    let each = each.into_iter().filter_map(|(what, some)| Some(format!("{} {what}", some?)));
    let each: Vec<_> = each.collect();
    if each.is_empty() { String::new() } else { format!(", uses {}", each.join(", ")) }
}

/// The freezes in force: those that only forbid, and those from which an approval excepts.
pub fn freezes(facts: &Facts) -> String {
    let strict = facts.freezes.iter().cloned();
    let excepted = facts.freeze_exceptions.iter();
    let excepted = excepted.map(|(name, approval)| format!("{name} (excepted by {approval})"));
    let all: Vec<_> = strict.chain(excepted).collect();
    if all.is_empty() { "none".to_owned() } else { short(&escaped(&all.join(", "))) }
}

fn short(text: &str) -> String {
    shortened(text, SHORT_CHARS_MAX)
}
