//! What an operator does to a store and the processes that govern on it: stop, release.
//!
//! INVARIANT: the stop is durable in the store before any process is told, and every admission
//! checks the store's epoch in its own transaction; so once a stop is acknowledged nothing is
//! admitted, even by a process that cannot be reached.

use crate::doors::local;
use crate::store::{ReleaseOf, Store, StoreFault};
use crate::wire::{Acknowledgement, ObeyReply, StatusReply};
use futures::future::join_all;
use holdpoint_types::{Epoch, Stop, StopScope, Timestamp};
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
