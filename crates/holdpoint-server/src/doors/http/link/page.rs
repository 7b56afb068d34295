//! The pages behind links, as HTML that needs nothing else: no script, no picture, no other server.
//!
//! INVARIANT: every text of somebody else is escaped. Must not decide anything.

use crate::notify::Link;
use crate::operate::Answer;
use crate::shown::{CHANGES_MAX, Difference, Side, counted, visible, whole};
use crate::store::ApprovalRow;
use crate::wire::{ApprovalReply, ApprovalState};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdpoint_resources::resource::{Change, Preview};
use holdpoint_types::{ActionRecord, DecisionRecord, IntentSource, Timestamp};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;

/// How pages look.
const STYLE: &str = "\
    body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
    color:#1b1b1b;background:#fff}h1{font-size:1.4rem}table{border-collapse:collapse}\
    th{text-align:left;vertical-align:top;padding:.15rem 1rem .15rem 0}\
    td{overflow-wrap:anywhere}pre{background:#f5f5f3;padding:.75rem;overflow:auto;\
    white-space:pre-wrap;overflow-wrap:anywhere}.b{color:#a3000b}.a{color:#0b6b2c}\
    .n{color:#7a4f00}form{margin:2rem 0;padding:1rem;border:1px solid #bbb}\
    input{width:100%;font:inherit;padding:.4rem;box-sizing:border-box}\
    button{font:inherit;padding:.5rem 1.5rem;margin:1rem 1rem 0 0}";

/// What the page about an approval shows.
pub(super) struct Shown<'a> {
    pub(super) link: &'a Link,
    pub(super) mac: &'a str,
    pub(super) reply: &'a ApprovalReply,
    pub(super) decided: Option<&'a ActionRecord<DecisionRecord>>,
    pub(super) preview: Option<&'a Preview>,
    /// Why a yes of this operator does not count, if it does not.
    pub(super) cannot: Option<String>,
}

/// A page that is written.
pub(super) struct Written(String);

/// A text of somebody else, for HTML.
struct Safe<'a>(&'a str);

// === impl Written ===

impl Written {
    /// A page that says one thing.
    pub(super) fn sentence(title: &str, text: &str) -> Self {
        Self::new(title, &format!("<p>{}</p>", Safe(text)))
    }

    /// A page with this body, which is HTML.
    fn new(title: &str, body: &str) -> Self {
        let title = Safe(title);
        Self(format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
             <style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n{body}\n</body></html>\n"
        ))
    }

    /// The page with what keeps a browser from doing anything with it but show it and send its
    /// form here.
    pub(super) fn respond(self, status: StatusCode) -> Response {
        let style = STANDARD.encode(Sha256::digest(STYLE));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{style}'; form-action 'self'; \
             frame-ancestors 'none'; base-uri 'none'"
        );
        let mut response = (status, self.0).into_response();
        let headers = response.headers_mut();
        if let Ok(policy) = HeaderValue::try_from(policy) {
            headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        for (name, value) in [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::CACHE_CONTROL, "no-store"),
            (header::X_FRAME_OPTIONS, "DENY"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (HeaderName::from_static("x-robots-tag"), "noindex"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

// === impl Safe ===

impl std::fmt::Display for Safe<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for found in visible(self.0).chars() {
            match found {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                _ => f.write_char(found)?,
            }
        }
        Ok(())
    }
}

/// The page about an approval.
pub(super) fn of(shown: &Shown<'_>) -> Written {
    let Shown { reply, .. } = shown;
    let mut body = String::from("<table>\n");
    rows(shown, &mut body);
    body.push_str("</table>\n");
    parameters(shown, &mut body);
    would(shown, &mut body);
    if reply.state.is_open() {
        form(shown, &mut body);
    }
    let title = format!("Approval: {} wants {}", reply.agent, reply.tool);
    Written::new(&title, &body)
}

/// The page after something was said.
pub(super) fn told(
    link: &Link,
    answer: Answer,
    (row, state): (&ApprovalRow, ApprovalState),
) -> Written {
    let (agent, until) = (&row.agent, time(row.facts.asked.expires_ms));
    let (title, text) = match (answer, state) {
        (Answer::No, _) => ("Denied", format!("{agent} reads why when it asks again.")),
        (Answer::Yes, ApprovalState::Given) => {
            ("Approved", format!("{agent} may make exactly this call once, until {until}."))
        }
        (Answer::Yes, _) => ("Your yes counts", "More are needed.".to_owned()),
    };
    let by = format!("Recorded as said by {}.", link.operator);
    Written::sentence(title, &format!("{text} {by}"))
}

fn rows(shown: &Shown<'_>, body: &mut String) {
    let Shown { reply, decided, .. } = shown;
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(body, "<tr><th>{name}</th><td>{}</td></tr>", Safe(value));
    };
    row("state", reply.state.as_str());
    row("agent", reply.agent.as_str());
    row("tool", &reply.tool.to_string());
    row("asked", &time(reply.asked_ms));
    row("ends", &time(reply.expires_ms));
    let needs = reply.needs.iter().map(|(name, count)| format!("{name} × {count}"));
    row("needs", &join(needs));
    let given = reply.given.iter().flat_map(|(name, by)| by.iter().map(move |by| (name, by)));
    row("given", &join(given.map(|(name, by)| format!("{name} by {by}"))));
    row("could be given by", &join(reply.could_approve.iter().map(ToString::to_string)));
    if let Some(denied) = &reply.denied {
        row("denied", &format!("by {}: {}", denied.by, denied.because));
    }
    row("bound to", &format!("{} (epoch {})", reply.binding, reply.epoch.0));
    let Some(ActionRecord { more, .. }) = decided else { return };
    row("target", &more.facts.target.resource);
    row("environment", &more.facts.target.environment);
    for cause in more.decision.deciding() {
        let rule = cause.rule.as_deref().unwrap_or(cause.reason.code());
        row("because of", &format!("{rule}: {}", cause.text));
    }
    if let Some(intent) = &more.request.intent {
        let says = match intent.source {
            IntentSource::AgentDeclared => "the agent says",
            IntentSource::Operator => "an operator says",
        };
        row("intent", &format!("\"{}\" ({says})", whole(&intent.text).join(" ")));
    }
}

fn parameters(shown: &Shown<'_>, body: &mut String) {
    let Some(ActionRecord { more, .. }) = shown.decided else { return };
    let pretty = serde_json::to_string_pretty(&more.request.parameters).unwrap_or_default();
    body.push_str("<h2>Parameters</h2>\n<pre>");
    for line in whole(&pretty) {
        let _ = writeln!(body, "{}", Safe(&line));
    }
    body.push_str("</pre>\n");
}

/// What the call would do, as far as that was seen.
fn would(shown: &Shown<'_>, body: &mut String) {
    let Some(facts) = shown.decided.map(|decided| &decided.more.facts) else { return };
    body.push_str("<h2>What it would do</h2>\n");
    let text = match (&facts.preview, &facts.unseen) {
        (Some(known), _) => {
            let until = known.until.map(|until| format!(" until {}", time(until)));
            let (counted, back) = (counted(known), known.guarantee.as_str());
            format!("{counted}; to be taken back: {back}{}", until.unwrap_or_default())
        }
        (None, Some(unseen)) => unseen.detail.clone(),
        (None, None) => "nobody can see before; nothing takes it back".to_owned(),
    };
    let _ = writeln!(body, "<p>{}</p>", Safe(&text));
    let Some(preview) = shown.preview else {
        if facts.preview.is_some() {
            body.push_str("<p>The preview is not kept any more.</p>\n");
        }
        return;
    };
    body.push_str("<pre>");
    for one in preview.changes.iter().take(CHANGES_MAX) {
        change(one, body);
    }
    let more = preview.changes.len().saturating_sub(CHANGES_MAX);
    if more > 0 {
        let _ = writeln!(body, "… {more} more changes");
    }
    for note in &preview.notes {
        let _ = writeln!(body, "<span class=\"n\">note</span> {}", Safe(note));
    }
    body.push_str("</pre>\n");
}

fn change(change: &Change, body: &mut String) {
    let verb = match (&change.before, &change.after) {
        (None, _) => "create",
        (Some(_), Some(_)) => "change",
        (Some(_), None) => "delete",
    };
    let _ = writeln!(body, "<b>{verb}</b> {}", Safe(&change.resource));
    let Difference { lines, more } = Difference::of(change);
    for (side, line) in &lines {
        let class = match side {
            Side::Before => "b",
            Side::After => "a",
            Side::Both => "c",
        };
        let _ = writeln!(body, "  <span class=\"{class}\">{}</span>", Safe(line));
    }
    if more > 0 {
        let _ = writeln!(body, "  … {more} more lines");
    }
}

fn form(shown: &Shown<'_>, body: &mut String) {
    let Link { approval, binding, operator, until } = shown.link;
    let hidden = [
        ("id", approval.to_string()),
        ("binding", binding.to_string()),
        ("by", operator.to_string()),
        ("until", until.0.to_string()),
        ("mac", shown.mac.to_owned()),
    ];
    body.push_str("<form method=\"post\" action=\"approve\">\n");
    for (name, value) in hidden {
        let value = Safe(&value);
        let _ = writeln!(body, "<input type=\"hidden\" name=\"{name}\" value=\"{value}\">");
    }
    let _ = writeln!(
        body,
        "<p>You decide as <b>{operator}</b>, for exactly this call.</p>\n\
         <label>Because <input name=\"because\" required maxlength=\"1000\" \
         autocomplete=\"off\"></label>",
    );
    // First, so that the key Enter does not approve.
    body.push_str("<button name=\"answer\" value=\"no\">Deny</button>\n");
    match &shown.cannot {
        Some(why) => {
            let _ = writeln!(body, "<p>You cannot approve it: {}.</p>", Safe(why));
        }
        None => body.push_str("<button name=\"answer\" value=\"yes\">Approve</button>\n"),
    }
    body.push_str("</form>\n");
}

fn join(all: impl Iterator<Item = String>) -> String {
    let all: Vec<_> = all.collect();
    if all.is_empty() { "nobody".to_owned() } else { all.join(", ") }
}

fn time(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| at.0.to_string(), |at| at.to_string())
}
