//! What an operator does to a store and the processes that govern on it: stop, release, approve,
//! grant.
//!
//! INVARIANT: the stop is durable in the store before any process is told, and every admission
//! checks the store's epoch in its own transaction; so once a stop is acknowledged nothing is
//! admitted, even by a process that cannot be reached.

mod grants;

pub use grants::{GrantingFault, Wish, grant, in_force, revoke};

use crate::doors::local;
use crate::store::{
    ApprovalRow, OnProposal, PlanRow, PlanRuling, ReleaseOf, Spoken, Store, StoreFault,
};
use crate::wire::{Acknowledgement, ObeyReply, StatusReply};
use futures::future::join_all;
use holdpoint_control::{ApproverFault, Settings};
use holdpoint_types::{
    ActionId, ApprovalRecord, Epoch, OperatorName, PlanId, Stop, StopScope, Timestamp,
};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// How long a governing process may take to end what a stop covers and to answer.
const OBEY_PATIENCE: Duration = Duration::from_secs(30);
/// How long a governing process may take to say how it is.
const STATUS_PATIENCE: Duration = Duration::from_secs(5);

/// Who does something, why, and when.
#[derive(Clone, Debug)]
pub struct Word {
    /// Why.
    pub reason: String,
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// Who says something to an approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speaker {
    /// Who.
    pub name: OperatorName,
    /// By which way: `cli`, `api` or `link`.
    pub way: &'static str,
    /// True for the one who owns the store where nobody is declared: a yes counts for everything.
    pub sole: bool,
}

/// Why what was said to a plan does not count.
#[derive(Debug, thiserror::Error)]
pub enum PlanFault {
    /// There is none.
    #[error("there is no plan {0}")]
    Unknown(PlanId),
    /// Somebody was before, or its time is over.
    #[error("plan {0} does not wait any more: it is {1}")]
    NotWaiting(PlanId, &'static str),
    /// Nobody accepts what they asked for themselves.
    #[error("`{0}` asks for it, and cannot accept it too: somebody else has to")]
    Requester(OperatorName),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreFault),
}

/// What somebody says to an approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It may happen.
    Yes,
    /// It may not.
    No,
}

/// Why what somebody says does not count.
#[derive(Debug, thiserror::Error)]
pub enum SpeakFault {
    /// There is no such approval.
    #[error("no call waits for the approval {0}: it was used, has ended, or was never asked for")]
    Unknown(ActionId),
    /// The time is over.
    #[error("the approval ended; if the agent makes the call again, it asks for a new one")]
    Expired,
    /// A stop or release came since.
    #[error(
        "a stop or a release came after it was asked for, so it is void; if the agent makes the \
         call again, it asks for a new one"
    )]
    Void,
    /// Somebody said no before.
    #[error("`{by}` said no before: {because}")]
    Denied {
        /// Who.
        by: OperatorName,
        /// Why.
        because: String,
    },
    /// Who speaks may not approve it.
    #[error(transparent)]
    Approver(#[from] ApproverFault),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreFault),
}

/// Says yes or no to the approval `id`. Gives what stands now, and whether this changed it: to say
/// the same twice changes nothing.
///
/// # Errors
/// When it does not count.
pub async fn speak(
    (store, settings): (&Store, &Settings),
    speaker: &Speaker,
    (id, said): (ActionId, Answer),
    (because, at): (String, Timestamp),
) -> Result<(ApprovalRow, bool), SpeakFault> {
    let row = store.approvals()?.into_iter().find(|row| row.facts.asked.id == id);
    let row = row.ok_or(SpeakFault::Unknown(id))?;
    let asked = &row.facts.asked;
    let counts_for = match said {
        Answer::No => BTreeSet::new(),
        Answer::Yes if speaker.sole => asked.needs.keys().cloned().collect(),
        Answer::Yes => {
            settings.counts_for(&speaker.name, (&row.agent, row.owner.as_ref()), asked)?
        }
    };
    let said = ApprovalRecord {
        approval: id,
        binding: asked.binding,
        agent: row.agent.clone(),
        counts_for,
        by: speaker.name.clone(),
        because,
        way: speaker.way.to_owned(),
    };
    match store.speak(said, at).await? {
        Spoken::Counted(row) => Ok((*row, true)),
        Spoken::Repeated(row) => Ok((*row, false)),
        Spoken::Unknown => Err(SpeakFault::Unknown(id)),
        Spoken::Expired(_) => Err(SpeakFault::Expired),
        Spoken::EpochMoved => Err(SpeakFault::Void),
        Spoken::Denied(denied) => {
            Err(SpeakFault::Denied { by: denied.by, because: denied.because })
        }
    }
}

/// Accepts or refuses a plan that waits. Gives it as it stands then.
///
/// # Errors
/// When that does not count.
pub async fn rule_plan(
    (store, settings): (&Store, &Settings),
    speaker: &Speaker,
    (id, accept): (PlanId, bool),
    (because, at): (String, Timestamp),
) -> Result<PlanRow, PlanFault> {
    let row = store.plan(id)?.ok_or(PlanFault::Unknown(id))?;
    let agent = settings.parts().agents.get(&row.plan.agent);
    let asks = agent.is_some_and(|agent| agent.requesters.contains(&speaker.name));
    let proposed = row.plan.by.as_deref() == Some(speaker.name.as_str());
    if accept && (asks || proposed) && !speaker.sole {
        return Err(PlanFault::Requester(speaker.name.clone()));
    }
    let then = if accept { OnProposal::Accept } else { OnProposal::Refuse };
    let word = (speaker.name.to_string(), because);
    match store.rule_plan((id, then), word, at).await? {
        PlanRuling::Recorded => store.plan(id)?.ok_or(PlanFault::Unknown(id)),
        PlanRuling::Unknown => Err(PlanFault::Unknown(id)),
        PlanRuling::NotWaiting(state) => Err(PlanFault::NotWaiting(id, state.as_str())),
    }
}

/// Stops `scope` for every process that governs on the store in `dir`.
///
/// # Errors
/// When the stop cannot be written: then nothing is stopped.
pub async fn stop(
    (dir, store): (&Path, &Store),
    scope: StopScope,
    word: Word,
) -> Result<Acknowledgement, StoreFault> {
    let (stop, epoch) = store.stop(scope, word.reason, word.by, word.at).await?;
    Ok(tell(dir, vec![stop], epoch).await)
}

/// Releases stops.
///
/// # Errors
/// When there is no such stop, or the release cannot be written.
pub async fn release(
    (dir, store): (&Path, &Store),
    what: ReleaseOf,
    word: Word,
) -> Result<Acknowledgement, StoreFault> {
    let (stops, epoch) = store.release(what, word.reason, word.by, word.at).await?;
    Ok(tell(dir, stops, epoch).await)
}

/// How every process that governs on the store in `dir` is; `Err` holds the ids of the silent ones.
pub async fn status(dir: &Path) -> Vec<Result<StatusReply, String>> {
    let live = local::live(dir).unwrap_or_default();
    let asked = live.into_iter().map(|process| async move {
        let question = ("GET", "/v1/status");
        let answer = local::client::ask(&process.socket, question, STATUS_PATIENCE).await;
        answer.map_err(|fault| format!("{}: {fault}", process.gateway))
    });
    join_all(asked).await
}

async fn tell(dir: &Path, stops: Vec<Stop>, epoch: Epoch) -> Acknowledgement {
    let live = match local::live(dir) {
        Ok(live) => live,
        Err(fault) => {
            tracing::warn!(%fault, "the governing processes cannot be listed");
            Vec::new()
        }
    };
    let told = live.into_iter().map(|process| async move {
        let question = ("POST", "/v1/obey");
        let answer = local::client::ask(&process.socket, question, OBEY_PATIENCE).await;
        answer.map_err(|fault| format!("{} (pid {}): {fault}", process.gateway, process.pid))
    });
    let mut gateways: Vec<ObeyReply> = Vec::new();
    let mut unreachable = Vec::new();
    for answer in join_all(told).await {
        match answer {
            Ok(reply) => gateways.push(reply),
            Err(fault) => unreachable.push(fault),
        }
    }
    Acknowledgement { stops, epoch: epoch.0, gateways, unreachable }
}
