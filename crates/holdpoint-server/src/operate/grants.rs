//! Grants for a limited time: given, taken back, and read as what counts. Must never give one that
//! the configuration would refuse, nor one without an end.

use super::Speaker;
use crate::store::{NewGrant, Store, StoreFault};
use holdpoint_control::{ApproverFault, Settings, Timed, TimedFault};
use holdpoint_types::{AgentName, EffectClass, TimedGrant, Timestamp};

/// Longest time for which something can be granted, in milliseconds.
const FOR_MS_MAX: i64 = 24 * 60 * 60 * 1_000;

/// What is to be granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// To whom.
    pub agent: AgentName,
    /// In which class.
    pub class: EffectClass,
    /// Patterns over `server__tool`.
    pub tools: Vec<String>,
    /// For how long, in milliseconds.
    pub for_ms: i64,
}

/// Why nothing is granted.
#[derive(Debug, thiserror::Error)]
pub enum GrantingFault {
    /// Nobody declared the agent.
    #[error("the agent `{0}` is not declared; add it first, with `holdpoint agent add`")]
    Agent(AgentName),
    /// It would end at once, or too late.
    #[error("a grant lasts longer than nothing and at most 24 hours")]
    Length,
    /// The patterns or their class.
    #[error(transparent)]
    Tools(#[from] TimedFault),
    /// Who grants it may not.
    #[error(transparent)]
    Approver(#[from] ApproverFault),
    /// The agent has enough of them.
    #[error("`{0}` has too many grants for a limited time; revoke some first")]
    Full(AgentName),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreFault),
}

/// Grants `wish` from `at` on.
///
/// # Errors
/// When the configuration would refuse it, `speaker` may not grant it, or it cannot be recorded.
pub async fn grant(
    (store, settings): (&Store, &Settings),
    speaker: &Speaker,
    wish: Wish,
    (because, at): (String, Timestamp),
) -> Result<TimedGrant, GrantingFault> {
    let Wish { agent, class, tools, for_ms } = wish;
    if !settings.parts().agents.contains_key(&agent) {
        return Err(GrantingFault::Agent(agent));
    }
    if for_ms <= 0 || for_ms > FOR_MS_MAX {
        return Err(GrantingFault::Length);
    }
    if !speaker.sole {
        settings.may_grant(&speaker.name, &agent)?;
    }
    let until = Timestamp(at.0.saturating_add(for_ms));
    let by = speaker.name.to_string();
    let asked = TimedGrant {
        id: 0,
        agent: agent.clone(),
        class,
        tools: tools.clone(),
        until_ms: until,
        by: by.clone(),
        because: because.clone(),
    };
    compiled(asked)?;
    let new = NewGrant { agent: agent.clone(), class, tools, until, by, because };
    store.grant(new, at).await?.ok_or(GrantingFault::Full(agent))
}

/// Takes back the grant `id`, if it is in force; nothing else.
///
/// # Errors
/// When it could not be recorded; then it stands.
pub async fn revoke(
    store: &Store,
    id: u64,
    (speaker, because): (&Speaker, String),
    at: Timestamp,
) -> Result<Option<TimedGrant>, StoreFault> {
    store.revoke_grant(id, (speaker.name.to_string(), because), at).await
}

/// The grants of `store` that are in force at `now`, compiled. One that the configuration would
/// refuse counts for nothing.
///
/// # Errors
/// When the store cannot be read.
pub fn in_force(store: &Store, now: Timestamp) -> Result<Vec<Timed>, StoreFault> {
    let mut timed = Vec::new();
    for grant in store.grants()?.into_iter().filter(|grant| grant.until_ms > now) {
        let id = grant.id;
        match compiled(grant) {
            Ok(grant) => timed.push(grant),
            Err(fault) => tracing::warn!(id, %fault, "a grant for a limited time cannot be used"),
        }
    }
    Ok(timed)
}

fn compiled(grant: TimedGrant) -> Result<Timed, TimedFault> {
    let until = jiff::Timestamp::from_millisecond(grant.until_ms.0);
    let until = until.map_or_else(|_| grant.until_ms.0.to_string(), |until| until.to_string());
    let named = format!("grant {} (until {until})", grant.id);
    Timed::new(grant, named)
}
