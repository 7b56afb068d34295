//! Classes of approved calls for which no rule is proposed, and why. Must not find that out itself:
//! whoever leaves a class out says so.

use super::classes::{APPROVALS_MIN, DAYS};
use crate::cli::look::{Look, SHORT_CHARS_MAX, Tone, count, shortened};
use holdpoint_policy::Shape;
use serde_json::{Value, json};

/// Most classes that are shown to people.
const SHOWN_MAX: usize = 20;

/// A class for which no rule is proposed.
#[derive(Debug)]
pub struct LeftOut {
    /// What it is.
    pub shape: Shape,
    /// How many calls of it were approved.
    pub approved: usize,
    /// Why.
    pub why: Why,
}

/// Why no rule is proposed for a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Not enough calls were approved.
    TooFew,
    /// Not enough of the approved calls ran and succeeded.
    TooFewRan {
        /// How many did.
        ran: usize,
    },
    /// Somebody said no.
    SaidNo,
    /// One was taken back.
    TakenBack,
    /// A check afterwards found fault.
    FoundFault,
    /// The tool is another one now.
    OtherDefinition,
    /// Its agent is declared no more.
    NoAgent,
    /// Its calls need no approval any more.
    Permitted,
}

// === impl LeftOut ===

impl LeftOut {
    /// For programs.
    pub fn to_json(&self) -> Value {
        let Self { shape, approved, why } = self;
        json!({
            "agent": shape.agent,
            "tool": shape.tool,
            "effects": super::classes::aims(shape),
            "approved": approved,
            "why": why.as_str(),
            "text": why.text(),
        })
    }

    fn line(&self, look: &Look) -> String {
        let Self { shape, approved, why } = self;
        let aims = shape.aims.iter().map(|aim| format!("{} {}", aim.verb, aim.resource));
        let aims = shortened(&aims.collect::<Vec<_>>().join(", "), SHORT_CHARS_MAX);
        let times = count(u64::try_from(*approved).unwrap_or(u64::MAX), "approved call");
        let why = look.paint(Tone::Careful, &why.text());
        format!("  {} calling {} ({aims}), {times}: {why}\n", shape.agent, shape.tool)
    }
}

// === impl Why ===

impl Why {
    /// For programs.
    fn as_str(self) -> &'static str {
        match self {
            Self::TooFew => "too_few",
            Self::TooFewRan { .. } => "too_few_ran",
            Self::SaidNo => "said_no",
            Self::TakenBack => "taken_back",
            Self::FoundFault => "found_fault",
            Self::OtherDefinition => "other_definition",
            Self::NoAgent => "no_agent",
            Self::Permitted => "permitted",
        }
    }

    /// For people.
    fn text(self) -> String {
        match self {
            Self::TooFew => {
                format!("{APPROVALS_MIN} are needed, of the last {DAYS} days")
            }
            Self::TooFewRan { ran } => {
                format!("{ran} of them ran and succeeded, {APPROVALS_MIN} are needed")
            }
            Self::SaidNo => format!("somebody said no to one in the last {DAYS} days"),
            Self::TakenBack => format!("one was taken back in the last {DAYS} days"),
            Self::FoundFault => "a check afterwards found fault with one".to_owned(),
            Self::OtherDefinition => "the tool's definition is another one since then".to_owned(),
            Self::NoAgent => "the agent is not declared any more".to_owned(),
            Self::Permitted => "such calls are permitted by now".to_owned(),
        }
    }
}

/// The classes for people; nothing if there are none.
pub fn render(all: &[LeftOut], look: &Look) -> String {
    if all.is_empty() {
        return String::new();
    }
    let mut text = "left out:\n".to_owned();
    all.iter().take(SHOWN_MAX).for_each(|one| text.push_str(&one.line(look)));
    let more = all.len().saturating_sub(SHOWN_MAX);
    if more > 0 {
        text.push_str(&format!("  … {more} more, which `--format json` lists\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{LeftOut, SHOWN_MAX, Why, render};
    use crate::cli::look::tests::look;
    use expect_test::expect;
    use holdpoint_policy::{Shape, ShapeAim};
    use holdpoint_types::{ChangeCounts, Disclosure, EffectClass, Reversibility};
    use std::collections::BTreeSet;

    fn left_out(approved: usize, why: Why) -> LeftOut {
        let aim = ShapeAim {
            class: EffectClass::Write,
            resource: "sqlite://orders/main.t".to_owned(),
            environment: "prod".to_owned(),
            verb: "update",
            extent: "one",
        };
        let shape = Shape {
            agent: "coder".parse().unwrap(),
            tool: "orders__sql_execute".parse().unwrap(),
            aims: BTreeSet::from([aim]),
            guarantee: Reversibility::Exact,
            disclosure: Disclosure::Contained,
            counts: ChangeCounts::default(),
        };
        LeftOut { shape, approved, why }
    }

    #[test]
    fn every_class_that_is_left_out_says_why() {
        assert_eq!(render(&[], &look()), "");
        let all = [
            left_out(2, Why::TooFew),
            left_out(4, Why::TooFewRan { ran: 1 }),
            left_out(3, Why::SaidNo),
            left_out(3, Why::TakenBack),
            left_out(3, Why::FoundFault),
            left_out(3, Why::OtherDefinition),
            left_out(3, Why::NoAgent),
            left_out(3, Why::Permitted),
        ];
        expect![[r#"
            left out:
              coder calling orders__sql_execute (update sqlite://orders/main.t), 2 approved calls: 3 are needed, of the last 30 days
              coder calling orders__sql_execute (update sqlite://orders/main.t), 4 approved calls: 1 of them ran and succeeded, 3 are needed
              coder calling orders__sql_execute (update sqlite://orders/main.t), 3 approved calls: somebody said no to one in the last 30 days
              coder calling orders__sql_execute (update sqlite://orders/main.t), 3 approved calls: one was taken back in the last 30 days
              coder calling orders__sql_execute (update sqlite://orders/main.t), 3 approved calls: a check afterwards found fault with one
              coder calling orders__sql_execute (update sqlite://orders/main.t), 3 approved calls: the tool's definition is another one since then
              coder calling orders__sql_execute (update sqlite://orders/main.t), 3 approved calls: the agent is not declared any more
              coder calling orders__sql_execute (update sqlite://orders/main.t), 3 approved calls: such calls are permitted by now
        "#]].assert_eq(&render(&all, &look()));
        expect![[r#"{"agent":"coder","tool":"orders__sql_execute","effects":[{"class":"write","resource":"sqlite://orders/main.t","environment":"prod","verb":"update","extent":"one"}],"approved":4,"why":"too_few_ran","text":"1 of them ran and succeeded, 3 are needed"}"#]].assert_eq(&all[1].to_json().to_string());
    }

    #[test]
    fn so_many_classes_that_are_left_out_are_shown() {
        let all: Vec<_> = (0..SHOWN_MAX + 2).map(|_| left_out(1, Why::TooFew)).collect();
        let shown = render(&all, &look());
        assert_eq!(shown.lines().count(), SHOWN_MAX + 2);
        assert!(shown.ends_with("  … 2 more, which `--format json` lists\n"), "{shown}");
    }
}
