//! What is told about a plan that waits for somebody to accept it, as plain JSON or as Slack reads
//! it.
//!
//! INVARIANT: as for approvals: a text of somebody else is short, on one line, without what was
//! redacted, and no markup. Must never tell the parameters of a step.

use super::message::{Shape, code, short, slack, time};
use crate::store::PlanRow;
use holdpoint_types::{PlanEnded, PlanId, PlanNote, PlanRuled, PlanStep};
use serde_json::{Value, json};

/// Most steps in a message.
const STEPS_MAX: usize = 8;
/// Most targets of a step in a message.
const TARGETS_MAX: usize = 3;
/// Most notes in a message.
const NOTES_MAX: usize = 4;

/// What happened to a plan.
#[derive(Clone, Copy, Debug)]
pub(super) enum PlanEvent<'a> {
    /// It waits for somebody to accept it.
    Proposed,
    /// Somebody did.
    Accepted(&'a PlanRuled),
    /// Somebody refused it.
    Refused(&'a PlanRuled),
    /// It ended before anybody accepted it.
    Ended(&'a PlanEnded),
}

/// All that one message tells.
#[derive(Debug)]
pub(super) struct PlanTold<'a> {
    pub(super) event: PlanEvent<'a>,
    pub(super) row: &'a PlanRow,
    /// True if nothing is told that somebody else wrote.
    pub(super) brief: bool,
}

// === impl PlanEvent ===

impl PlanEvent<'_> {
    fn code(self) -> &'static str {
        match self {
            Self::Proposed => "plan_proposed",
            Self::Accepted(_) => "plan_accepted",
            Self::Refused(_) => "plan_refused",
            Self::Ended(_) => "plan_ended",
        }
    }
}

// === impl PlanTold ===

impl PlanTold<'_> {
    /// The body of the request.
    pub(super) fn body(&self, shape: Shape) -> String {
        match shape {
            Shape::Json => self.plain().to_string(),
            Shape::Slack => slack(&self.text()),
        }
    }

    fn plain(&self) -> Value {
        let plan = &self.row.plan;
        let mut told = json!({
            "event": self.event.code(),
            "plan": plan.id,
            "agent": plan.agent,
            "expires_ms": plan.expires,
            "command": command(plan.id),
        });
        if let (PlanEvent::Proposed, Some(parent)) = (self.event, plan.basis.parent) {
            told["revises"] = json!(parent);
        }
        let ruled = match self.event {
            PlanEvent::Accepted(ruled) | PlanEvent::Refused(ruled) => Some(ruled),
            PlanEvent::Proposed | PlanEvent::Ended(_) => None,
        };
        if let Some(ruled) = ruled {
            told["by"] = json!(ruled.by);
        }
        if self.brief {
            return told;
        }
        told["purpose"] = json!(short(&plan.purpose));
        if let Some(ruled) = ruled {
            told["said"] = json!(short(&ruled.reason));
        }
        match self.event {
            PlanEvent::Proposed => {
                let steps: Vec<_> = plan.steps.iter().take(STEPS_MAX).map(step_json).collect();
                let notes: Vec<_> = self.row.notes.iter().take(NOTES_MAX).map(note_json).collect();
                told["steps"] = json!({ "count": plan.steps.len(), "first": steps });
                told["notes"] = json!({ "count": self.row.notes.len(), "first": notes });
            }
            PlanEvent::Ended(ended) => {
                told["end"] = json!(ended.end);
                told["because"] = json!(short(&ended.detail));
            }
            PlanEvent::Accepted(_) | PlanEvent::Refused(_) => {}
        }
        told
    }

    fn text(&self) -> String {
        let (plan, brief) = (&self.row.plan, self.brief);
        let agent = code(plan.agent.as_str());
        let by = |ruled: &PlanRuled| match brief {
            true => code(&ruled.by),
            false => format!("{}: {}", code(&ruled.by), code(&ruled.reason)),
        };
        let what = match brief {
            true => agent,
            false => format!("{agent}, {}", code(&plan.purpose)),
        };
        let text = match self.event {
            PlanEvent::Proposed if brief => format!("*A plan waits to be accepted*: {what}"),
            PlanEvent::Proposed => {
                format!("*A plan waits to be accepted*: {what}{}", self.wanted())
            }
            PlanEvent::Accepted(ruled) => format!("*Plan accepted*: {what}\nby {}", by(ruled)),
            PlanEvent::Refused(ruled) => format!("*Plan refused*: {what}\nby {}", by(ruled)),
            PlanEvent::Ended(ended) => {
                let why = if brief { String::new() } else { format!("\n{}", code(&ended.detail)) };
                format!("*A plan ended that nobody accepted*: {what}{why}")
            }
        };
        format!("{text}\n`{}`", command(plan.id))
    }

    /// What is planned, and what the checker remarks.
    fn wanted(&self) -> String {
        let (plan, notes) = (&self.row.plan, &self.row.notes);
        let mut text = String::new();
        for step in plan.steps.iter().take(STEPS_MAX) {
            let (id, tool) = (code(step.id.as_str()), code(&step.tool.to_string()));
            let targets: Vec<_> =
                step.targets.iter().take(TARGETS_MAX).map(|at| code(at)).collect();
            let more = rest(step.targets.len(), TARGETS_MAX);
            let on = if targets.is_empty() { String::new() } else { " on ".to_owned() };
            let (class, calls, targets) = (step.class, step.calls, targets.join(", "));
            text.push_str(&format!("\nstep {id}: {tool} ({class}, × {calls}){on}{targets}{more}"));
        }
        text.push_str(&line_of_rest(plan.steps.len(), STEPS_MAX));
        for note in notes.iter().take(NOTES_MAX) {
            let about = match &note.step {
                Some(step) => format!(" on step {}", code(step.as_str())),
                None => String::new(),
            };
            let (severity, about_code) = (note.severity.as_str(), note.code.as_str());
            let words = code(&note.text);
            text.push_str(&format!("\n{severity} note `{about_code}`{about}: {words}"));
        }
        text.push_str(&line_of_rest(notes.len(), NOTES_MAX));
        text.push_str(&format!("\nit would end {}", code(&time(plan.expires))));
        text
    }
}

fn rest(all: usize, shown: usize) -> String {
    match all.saturating_sub(shown) {
        0 => String::new(),
        more => format!(" … {more} more"),
    }
}

fn line_of_rest(all: usize, shown: usize) -> String {
    let rest = rest(all, shown);
    if rest.is_empty() { rest } else { format!("\n{}", rest.trim_start()) }
}

/// How to see all of it. Whoever has seen it accepts or refuses by the commands that this names.
fn command(id: PlanId) -> String {
    format!("holdpoint plan show {id}")
}

fn step_json(step: &PlanStep) -> Value {
    let targets: Vec<_> = step.targets.iter().take(TARGETS_MAX).map(|at| short(at)).collect();
    json!({
        "id": step.id, "tool": step.tool, "class": step.class, "calls": step.calls,
        "targets": { "count": step.targets.len(), "first": targets },
    })
}

fn note_json(note: &PlanNote) -> Value {
    json!({
        "severity": note.severity.as_str(), "code": note.code.as_str(), "step": note.step,
        "text": short(&note.text),
    })
}

#[cfg(test)]
mod tests {
    use super::{NOTES_MAX, PlanEvent, PlanTold, STEPS_MAX, TARGETS_MAX};
    use crate::notify::Shape;
    use crate::store::PlanRow;
    use holdpoint_types::{
        Digest, Plan, PlanBasis, PlanCode, PlanId, PlanNote, PlanReads, PlanSeverity, PlanState,
        PlanStep, Timestamp,
    };
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    fn row(steps: usize, targets: usize, notes: usize) -> PlanRow {
        let targets: Vec<_> = (0..targets).map(|at| format!("file:///srv/{at}")).collect();
        let step = |at: usize| -> PlanStep {
            let step = json!({ "id": format!("s{at}"), "tool": "fs__write", "class": "write",
                               "targets": targets });
            serde_json::from_value(step).unwrap()
        };
        let note = PlanNote {
            severity: PlanSeverity::Advisory,
            code: PlanCode::TargetUnseen,
            step: None,
            text: "nobody saw <it>".to_owned(),
        };
        let plan = Plan {
            id: PlanId::new(Timestamp(1_000), [1; 10]),
            agent: "coder".parse().unwrap(),
            task: "00000000-0000-7000-8000-000000000001".parse().unwrap(),
            purpose: "a lot".to_owned(),
            reads: PlanReads::Free,
            steps: (0..steps).map(step).collect(),
            expires: Timestamp(2_000),
            basis: PlanBasis {
                policy: Digest::of(b""),
                tools: BTreeMap::new(),
                targets: BTreeMap::new(),
                parent: None,
            },
            by: None,
        };
        PlanRow {
            plan,
            notes: vec![note; notes],
            state: PlanState::Proposed,
            was_in_force: false,
            version: 0,
            calls: Vec::new(),
            looks: Vec::new(),
        }
    }

    #[test]
    fn a_plan_with_much_in_it_is_told_in_short() {
        let row = row(STEPS_MAX + 2, TARGETS_MAX + 1, NOTES_MAX + 3);
        let told = |brief, shape| {
            let told = PlanTold { event: PlanEvent::Proposed, row: &row, brief };
            serde_json::from_str::<Value>(&told.body(shape)).unwrap()
        };
        let text = told(false, Shape::Slack)["text"].as_str().unwrap().to_owned();
        assert_eq!(text.matches("\nstep ").count(), STEPS_MAX, "{text}");
        assert_eq!(text.matches("\nadvisory note `target_unseen`: ").count(), NOTES_MAX, "{text}");
        for part in ["`file:///srv/2` … 1 more\n", "\n… 2 more\n", "\n… 3 more\n", "saw &lt;it&gt;"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        let plain = told(false, Shape::Json);
        let (steps, notes) = (&plain["steps"], &plain["notes"]);
        assert_eq!((&steps["count"], &notes["count"]), (&json!(10), &json!(7)), "{plain}");
        assert_eq!(steps["first"].as_array().unwrap().len(), STEPS_MAX);
        assert_eq!(notes["first"].as_array().unwrap().len(), NOTES_MAX);
        // Nothing that an agent wrote, where that was turned away before.
        for told in [told(true, Shape::Slack), told(true, Shape::Json)] {
            assert!(!told.to_string().contains("a lot"), "{told}");
            assert!(told.to_string().contains("holdpoint plan show "), "{told}");
        }
    }
}
