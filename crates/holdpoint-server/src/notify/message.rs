//! What is told about an approval, as plain JSON or as Slack reads it.
//!
//! INVARIANT: a text of somebody else is short, on one line, without what was redacted, and no
//! markup. Must never tell a value of the target, nor parameters unless the operator wants that.

use crate::shown::{counted, is_hidden};
use holdpoint_resources::{redacted_text, redacted_value};
use holdpoint_types::{
    ActionId, ActionRecord, ApprovalAsked, ApprovalRecord, DecisionRecord, Timestamp,
};
use serde_json::{Value, json};

/// Longest text of somebody else in a message, in characters of the message.
const PART_CHARS_MAX: usize = 300;
/// Most reasons in a message.
const REASONS_MAX: usize = 4;
/// Longest parameters in a message, in characters of the message.
const PARAMETERS_CHARS_MAX: usize = 1_000;

/// What a message looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An object with everything by name.
    Json,
    /// What incoming webhooks of Slack, and of those that take the same, read.
    Slack,
}

/// What happened.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event<'a> {
    /// A call waits for it.
    Asked,
    /// A yes, and how many more are needed.
    Given(&'a ApprovalRecord, u64),
    /// A no.
    Denied(&'a ApprovalRecord),
    /// Its time is over.
    Expired,
}

/// All that one message tells.
#[derive(Debug)]
pub(super) struct Told<'a> {
    pub(super) event: Event<'a>,
    pub(super) asked: &'a ApprovalAsked,
    pub(super) decided: &'a ActionRecord<DecisionRecord>,
    /// True if the parameters are told, too.
    pub(super) parameters: bool,
    /// True if nothing is told that somebody else wrote.
    pub(super) brief: bool,
    /// Where whoever reads it can decide.
    pub(super) link: Option<String>,
}

// === impl Event ===

impl Event<'_> {
    fn code(self) -> &'static str {
        match self {
            Self::Asked => "approval_asked",
            Self::Given(..) => "approval_given",
            Self::Denied(_) => "approval_denied",
            Self::Expired => "approval_expired",
        }
    }

    fn said(&self) -> Option<&ApprovalRecord> {
        match self {
            Self::Given(said, _) | Self::Denied(said) => Some(said),
            Self::Asked | Self::Expired => None,
        }
    }
}

// === impl Told ===

impl Told<'_> {
    /// The body of the request.
    pub(super) fn body(&self, shape: Shape) -> String {
        match shape {
            Shape::Json => self.plain().to_string(),
            Shape::Slack => slack(&self.text()),
        }
    }

    fn plain(&self) -> Value {
        let Self { event, asked, decided, brief, .. } = self;
        let (request, facts) = (&decided.more.request, &decided.more.facts);
        let ActionRecord { agent, .. } = decided;
        let counts = facts.preview.as_ref().map(|preview| {
            let counts = preview.counts;
            json!({
                "created": counts.created, "updated": counts.updated, "deleted": counts.deleted,
                "exact": preview.exact,
            })
        });
        let mut told = json!({
            "event": event.code(),
            "approval": asked.id,
            "agent": agent,
            "tool": request.tool,
            "needs": asked.needs,
            "expires_ms": asked.expires_ms,
            "command": command(asked.id),
        });
        if let Some(link) = &self.link {
            told["link"] = json!(link);
        }
        if *brief {
            return told;
        }
        let more = json!({
            "class": facts.tool.as_ref().map(|tool| tool.class),
            "target": short(&facts.target.resource),
            "environment": short(&facts.target.environment),
            "because": self.reasons().map(|text| short(&text)).collect::<Vec<_>>(),
            "preview": counts,
        });
        if let (Some(told), Value::Object(more)) = (told.as_object_mut(), more) {
            told.extend(more);
        }
        if self.parameters {
            told["parameters"] = json!(within(&self.all_parameters(), PARAMETERS_CHARS_MAX, bare));
        }
        if let Some(said) = event.said() {
            told["by"] = json!(said.by);
            told["said"] = json!(short(&said.because));
        }
        if let Event::Given(_, missing) = event {
            told["missing"] = json!(missing);
        }
        told
    }

    fn text(&self) -> String {
        let Self { event, asked, decided, .. } = self;
        let more = &decided.more;
        let (agent, tool) = (code(decided.agent.as_str()), code(&more.request.tool.to_string()));
        let call = format!("{agent} → {tool}");
        let by = |said: &ApprovalRecord| match self.brief {
            true => code(said.by.as_str()),
            false => format!("{}: {}", code(said.by.as_str()), code(&said.because)),
        };
        let text = match event {
            Event::Asked if self.brief => format!("*A call waits for an approval*: {call}"),
            Event::Asked => format!("*A call waits for an approval*: {call}{}", self.wanted()),
            Event::Given(said, 0) => format!("*Approved*: {call}\nby {}", by(said)),
            Event::Given(said, missing) => {
                format!("*A yes, {missing} more needed*: {call}\nby {}", by(said))
            }
            Event::Denied(said) => format!("*Denied*: {call}\nby {}", by(said)),
            Event::Expired => format!("*Ended without an approval*: {call}"),
        };
        let link = self.link.as_ref().map(|link| {
            let link = within(link, usize::MAX, mrkdwn);
            format!("\n<{link}|Look at it and decide>")
        });
        format!("{text}\n`{}`{}", command(asked.id), link.unwrap_or_default())
    }

    /// What the call would do, and what is wanted for it.
    fn wanted(&self) -> String {
        let facts = &self.decided.more.facts;
        let class = facts.tool.as_ref().map(|tool| format!(" ({})", tool.class));
        let target = &facts.target;
        let mut text = class.unwrap_or_default();
        let (resource, environment) = (code(&target.resource), code(&target.environment));
        text.push_str(&format!("\non {resource} in {environment}"));
        for reason in self.reasons() {
            text.push_str(&format!("\nbecause of {}", code(&reason)));
        }
        match (&facts.preview, &facts.unseen) {
            (Some(preview), _) => text.push_str(&format!("\nwould do {}", counted(preview))),
            (None, Some(unseen)) => {
                text.push_str(&format!("\nwould do: {}", code(&unseen.detail)));
            }
            (None, None) => {}
        }
        if self.parameters {
            let parameters = within(&self.all_parameters(), PARAMETERS_CHARS_MAX, mrkdwn);
            text.push_str(&format!("\nparameters `{parameters}`"));
        }
        let needs = self.asked.needs.iter();
        let needs: Vec<_> = needs.map(|(name, count)| format!("{name} × {count}")).collect();
        let until = time(self.asked.expires_ms);
        text.push_str(&format!("\nneeds {} until {until}", code(&needs.join(", "))));
        text
    }

    /// Why it is held.
    fn reasons(&self) -> impl Iterator<Item = String> {
        let causes = self.decided.more.decision.deciding().take(REASONS_MAX);
        causes.map(|cause| {
            let rule = cause.rule.as_deref().unwrap_or(cause.reason.code());
            format!("{rule}: {}", cause.text)
        })
    }

    fn all_parameters(&self) -> String {
        redacted_value(self.decided.more.request.parameters.clone()).to_string()
    }
}

/// A text for Slack. A link that is looked at for a picture of it is looked at in vain.
pub(super) fn slack(text: &str) -> String {
    json!({ "text": text, "unfurl_links": false, "unfurl_media": false }).to_string()
}

/// How to see all of it.
fn command(id: ActionId) -> String {
    format!("holdpoint approvals {id}")
}

/// A text of somebody else in JSON.
pub(super) fn short(text: &str) -> String {
    within(&redacted_text(text), PART_CHARS_MAX, bare)
}

/// A text of somebody else in a message for Slack: as code, where nothing is markup but what is
/// written between angle brackets.
pub(super) fn code(text: &str) -> String {
    let told = within(&redacted_text(text), PART_CHARS_MAX, mrkdwn);
    if told.is_empty() { "–".to_owned() } else { format!("`{told}`") }
}

/// What is told of `text`, within so many characters.
fn within(text: &str, chars_max: usize, as_told: fn(char, &mut String)) -> String {
    let (mut told, mut room) = (String::new(), chars_max);
    for found in text.chars() {
        let mut piece = String::new();
        as_told(if is_hidden(found) { ' ' } else { found }, &mut piece);
        match room.checked_sub(piece.chars().count()) {
            Some(left) => room = left,
            None => {
                told.push('…');
                break;
            }
        }
        told.push_str(&piece);
    }
    told
}

fn bare(found: char, told: &mut String) {
    told.push(found);
}

/// Source: "Formatting text for app surfaces" and "Escaping text" in Slack's documentation.
fn mrkdwn(found: char, told: &mut String) {
    match found {
        '&' => told.push_str("&amp;"),
        '<' => told.push_str("&lt;"),
        '>' => told.push_str("&gt;"),
        // It would end the code.
        '`' => told.push('\''),
        _ => told.push(found),
    }
}

pub(super) fn time(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| at.0.to_string(), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::{code, short};

    #[test]
    fn a_text_of_somebody_else_is_short_and_no_markup() {
        assert_eq!(code("a<!channel> & `b`\n*c*"), "`a&lt;!channel&gt; &amp; 'b' *c*`");
        assert_eq!(code(""), "–");
        assert_eq!(short("a\u{202e}b\u{7}<c>"), "a b <c>");
        let long = code(&"<".repeat(1_000));
        assert!(long.ends_with("&lt;…`") && long.chars().count() <= 303, "{long}");
        assert_eq!(short(&"x".repeat(301)), format!("{}…", "x".repeat(300)));
        assert!(!short("PASSWORD=hunter2").contains("hunter2"));
    }
}
