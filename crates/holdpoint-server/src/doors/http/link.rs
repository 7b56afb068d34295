//! The page behind a link: one approval, for one operator, who looks at it and says yes or no.
//!
//! INVARIANT: to look decides nothing, however often and whoever looks: programs that show links
//! fetch them. Who decides is who the link was made for. Must never tell anything without a link.

mod page;

use super::HttpDoor;
use super::admin::{BECAUSE, one_line};
use super::approvals::preview_of;
use super::timely::Late;
use crate::notify::{Link, LinkKey};
use crate::operate::{self, Answer, SpeakFault, Speaker};
use crate::store::{ApprovalRow, StoreFault};
use crate::wire::{ApprovalReply, ApprovalState};
use axum::body::{Body, to_bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use holdpoint_types::{ActionRecord, DecisionRecord};
use page::{Shown, Written};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Longest form, in bytes: a reason of the longest kind, each character written as `%XX` of up to
/// four bytes, and the link.
const FORM_BYTES_MAX: usize = 16 << 10;

/// Why nothing is shown, or nothing was said.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("This address names another server.")]
    Host,
    #[error(
        "This did not come from the page that the link leads to. Open the link and decide there."
    )]
    CrossSite,
    #[error("This link is not valid: it was cut short, changed, or made by somebody else.")]
    Forged,
    #[error("Links of this operator are not in use any more.")]
    Unused,
    #[error("The approval ended. If the agent makes the call again, it asks for a new one.")]
    Over,
    #[error("This is no answer to an approval.")]
    Malformed,
    #[error("Nothing was said: {BECAUSE}.")]
    Because,
    #[error("Nothing was said: {0}.")]
    Speak(SpeakFault),
    /// What is wrong with it is nobody's business who has but a link, or none.
    #[error("This cannot be answered now. Nothing was decided.")]
    Store(#[from] StoreFault),
}

/// What came with a request, each name once.
type Fields = BTreeMap<String, String>;

// === impl Refusal ===

impl From<SpeakFault> for Refusal {
    fn from(fault: SpeakFault) -> Self {
        match fault {
            SpeakFault::Store(fault) => Self::Store(fault),
            fault @ (SpeakFault::Unknown(_)
            | SpeakFault::Expired
            | SpeakFault::Void
            | SpeakFault::Denied { .. }
            | SpeakFault::Approver(_)) => Self::Speak(fault),
        }
    }
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Host | Self::CrossSite | Self::Forged | Self::Unused => StatusCode::FORBIDDEN,
            Self::Over => StatusCode::GONE,
            Self::Malformed | Self::Because => StatusCode::BAD_REQUEST,
            Self::Speak(fault) => match fault {
                SpeakFault::Approver(_) => StatusCode::FORBIDDEN,
                SpeakFault::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
                SpeakFault::Unknown(_)
                | SpeakFault::Expired
                | SpeakFault::Void
                | SpeakFault::Denied { .. } => StatusCode::GONE,
            },
            Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// `GET /approve`.
pub(super) async fn look(
    State(door): State<Arc<HttpDoor>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    answer(shown(&door, query.as_deref().unwrap_or_default(), &headers).await)
}

/// `POST /approve`.
pub(super) async fn say(
    State(door): State<Arc<HttpDoor>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    answer(said(&door, &headers, body).await)
}

fn answer(came: Result<Written, Refusal>) -> Response {
    match came {
        Ok(page) => page.respond(StatusCode::OK),
        Err(refusal) => {
            if let Refusal::Store(fault) = &refusal {
                tracing::error!(%fault, "a link cannot be followed");
            }
            tracing::info!(%refusal, "a link was not followed");
            Written::sentence("Not decided", &refusal.to_string()).respond(refusal.status())
        }
    }
}

async fn shown(door: &HttpDoor, query: &str, headers: &HeaderMap) -> Result<Written, Refusal> {
    door.check_host(headers).map_err(|_| Refusal::Host)?;
    let fields = fields(query.as_bytes(), &LINK)?;
    let (link, mac) = checked(door, &fields)?;
    let row = waiting(door, &link)?;
    let (settings, now) = (door.governor.settings(), door.governor.now());
    let epoch = door.governor.store().control()?.epoch;
    let decided: Option<ActionRecord<DecisionRecord>> =
        door.governor.store().decision(link.approval)?;
    let preview = preview_of(door, link.approval).await;
    let counts =
        settings.counts_for(&link.operator, (&row.agent, row.owner.as_ref()), &row.facts.asked);
    let reply = ApprovalReply::new(&row, &settings, (epoch, now));
    Ok(page::of(&Shown {
        link: &link,
        mac,
        reply: &reply,
        decided: decided.as_ref(),
        preview: preview.as_ref(),
        cannot: counts.err().map(|fault| fault.to_string()),
    }))
}

async fn said(door: &HttpDoor, headers: &HeaderMap, body: Body) -> Result<Written, Refusal> {
    if !door.is_from_here(headers) {
        return Err(Refusal::CrossSite);
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|value| value.split(';').next()).map(str::trim);
    if kind != Some("application/x-www-form-urlencoded") {
        return Err(Refusal::Malformed);
    }
    let bytes = to_bytes(body, FORM_BYTES_MAX).await.map_err(|fault| {
        if let Some(late) = Late::among(&fault) {
            tracing::info!(%late, "a form did not arrive");
        }
        Refusal::Malformed
    })?;
    let fields = fields(&bytes, &FORM)?;
    let (link, _) = checked(door, &fields)?;
    let answer = match fields.get("answer").map(String::as_str) {
        Some("yes") => Answer::Yes,
        Some("no") => Answer::No,
        Some(_) | None => return Err(Refusal::Malformed),
    };
    let because = fields.get("because").map(String::as_str).unwrap_or_default();
    let because = one_line(because).ok_or(Refusal::Because)?;
    waiting(door, &link)?;
    let speaker = Speaker { name: link.operator.clone(), way: "link", sole: false };
    let (settings, at) = (door.governor.settings(), door.governor.now());
    let place = (door.governor.store(), &*settings);
    let spoken = (link.approval, answer);
    let (row, _) = operate::speak(place, &speaker, spoken, (because, at)).await?;
    let epoch = door.governor.store().control()?.epoch;
    Ok(page::told(&link, answer, (&row, ApprovalState::of(&row, epoch, at))))
}

/// The names that a link has.
const LINK: [&str; 5] = ["id", "binding", "by", "until", "mac"];
/// The names that a form has.
const FORM: [&str; 7] = ["id", "binding", "by", "until", "mac", "because", "answer"];

/// What is written in `bytes`, if it is what may be there, each once.
fn fields(bytes: &[u8], names: &[&str]) -> Result<Fields, Refusal> {
    let mut fields = Fields::new();
    for (name, value) in url::form_urlencoded::parse(bytes) {
        let known = names.contains(&&*name);
        if !known || fields.insert(name.into_owned(), value.into_owned()).is_some() {
            return Err(Refusal::Forged);
        }
    }
    Ok(fields)
}

/// The link that the fields are, with its proof, if it was made here and is good.
fn checked<'a>(door: &HttpDoor, fields: &'a Fields) -> Result<(Link, &'a str), Refusal> {
    let (link, mac) = link_of(fields).ok_or(Refusal::Forged)?;
    let key = LinkKey::known(door.governor.store())?.ok_or(Refusal::Forged)?;
    if !key.fits(&link, mac) {
        return Err(Refusal::Forged);
    }
    if !door.settings.load().links.contains(&link.operator) {
        return Err(Refusal::Unused);
    }
    if link.until <= door.governor.now() {
        return Err(Refusal::Over);
    }
    Ok((link, mac))
}

fn link_of(fields: &Fields) -> Option<(Link, &str)> {
    let link = Link {
        approval: fields.get("id")?.parse().ok()?,
        binding: fields.get("binding")?.parse().ok()?,
        operator: fields.get("by")?.parse().ok()?,
        until: holdpoint_types::Timestamp(fields.get("until")?.parse().ok()?),
    };
    Some((link, fields.get("mac")?))
}

/// The approval that the link is for, if a call still waits for it.
fn waiting(door: &HttpDoor, link: &Link) -> Result<ApprovalRow, Refusal> {
    let row = door.governor.store().approval(link.approval)?;
    row.filter(|row| row.facts.asked.binding == link.binding)
        .ok_or(Refusal::Speak(SpeakFault::Unknown(link.approval)))
}
