//! The issuer's keys over time: fetched in the background, kept while they are fresh enough.
//!
//! A token never waits for a fetch unless it names a key that is not known, and such tokens cause
//! few fetches, however many come. Must never take keys that are too old for good.

use super::fetch::{self, FetchFault};
use super::jwk::PublicKeys;
use parking_lot::Mutex;
use reqwest::{Client, Url};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Shortest and longest pause after a failed fetch.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long a token waits for a fetch that may bring its key.
const PATIENCE: Duration = Duration::from_secs(3);
/// Tokens with unknown keys cause one fetch in this time, on average …
const ASKED_EVERY: Duration = Duration::from_secs(15);
/// … and at most this many at once.
const ASKED_AT_ONCE: u32 = 4;

/// Whose keys, from where, and how long they are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// The issuer.
    pub issuer: String,
    /// Where its keys are.
    pub source: KeySource,
    /// How often they are fetched anew.
    pub refresh: Duration,
    /// How long they are good after the last fetch that succeeded.
    pub stale: Duration,
}

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// Where its metadata says.
    Issuer,
    /// At this URI.
    Uri(String),
    /// In this file.
    File(PathBuf),
}

/// How the keys of an issuer are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyHealth {
    /// The issuer.
    pub issuer: String,
    /// How many keys can be used now.
    pub keys: usize,
    /// How long ago they were fetched.
    pub age: Option<Duration>,
    /// What went wrong with the last fetch.
    pub fault: Option<String>,
}

/// The keys of one issuer. The fetching ends when this is dropped.
#[derive(Debug)]
pub struct IssuerKeys {
    spec: KeySpec,
    state: watch::Receiver<State>,
    wanted: Arc<Notify>,
    allowance: Mutex<Allowance>,
    _fetching: DropGuard,
}

#[derive(Clone, Debug, Default)]
struct State {
    keys: Option<(Arc<PublicKeys>, Instant)>,
    fault: Option<String>,
    /// How many fetches have ended.
    fetches: u64,
}

/// How many fetches tokens may still cause: a bucket that fills with time.
#[derive(Debug)]
struct Allowance {
    /// When the bucket is, or was, full.
    full_at: Instant,
}

// === impl IssuerKeys ===

impl IssuerKeys {
    /// Begins to fetch.
    ///
    /// # Errors
    /// When the issuer or the URI is no URL, or a file's keys cannot be used.
    pub fn start(spec: KeySpec) -> Result<Self, FetchFault> {
        let place = match &spec.source {
            KeySource::Uri(uri) => uri,
            KeySource::Issuer | KeySource::File(_) => &spec.issuer,
        };
        let url = Url::parse(place)
            .map_err(|fault| FetchFault::Unreachable(place.clone(), fault.to_string()))?;
        let client = fetch::client(&url)?;
        let first = match &spec.source {
            KeySource::File(path) => {
                let keys = (Arc::new(fetch::read_file(path)?), Instant::now());
                State { keys: Some(keys), fault: None, fetches: 1 }
            }
            KeySource::Issuer | KeySource::Uri(_) => State::default(),
        };
        let (tell, state) = watch::channel(first);
        let (wanted, done) = (Arc::new(Notify::new()), CancellationToken::new());
        tokio::spawn(keep_fetching(
            (client, spec.clone()),
            tell,
            Arc::clone(&wanted),
            done.clone(),
        ));
        let allowance = Mutex::new(Allowance { full_at: Instant::now() });
        Ok(Self { spec, state, wanted, allowance, _fetching: done.drop_guard() })
    }

    /// What it was started with.
    pub fn spec(&self) -> &KeySpec {
        &self.spec
    }

    /// The keys, unless there are none that are fresh enough. Waits only for the first fetch of
    /// all.
    pub(super) async fn current(&self) -> Option<Arc<PublicKeys>> {
        if self.state.borrow().fetches == 0 {
            self.wait_beyond(0).await;
        }
        self.fresh()
    }

    /// The keys after another fetch, if tokens may cause one now.
    pub(super) async fn newer(&self) -> Option<Arc<PublicKeys>> {
        let before = self.state.borrow().fetches;
        if !self.allowance.lock().take(Instant::now()) {
            return None;
        }
        self.wanted.notify_one();
        self.wait_beyond(before).await;
        self.fresh()
    }

    /// How they are.
    pub fn health(&self) -> KeyHealth {
        let state = self.state.borrow().clone();
        KeyHealth {
            issuer: self.spec.issuer.clone(),
            keys: self.fresh().map_or(0, |keys| keys.len()),
            age: state.keys.map(|(_, at)| at.elapsed()),
            fault: state.fault,
        }
    }

    fn fresh(&self) -> Option<Arc<PublicKeys>> {
        let state = self.state.borrow();
        let keys = state.keys.as_ref().filter(|(_, at)| at.elapsed() <= self.spec.stale);
        keys.map(|(keys, _)| Arc::clone(keys))
    }

    async fn wait_beyond(&self, fetches: u64) {
        let mut state = self.state.clone();
        let ended = state.wait_for(|state| state.fetches > fetches);
        // Late or over: what is known must do.
        let _ = tokio::time::timeout(PATIENCE, ended).await;
    }
}

// === impl Allowance ===

impl Allowance {
    fn take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now);
        let most = ASKED_EVERY.saturating_mul(ASKED_AT_ONCE.saturating_sub(1));
        if full_at.saturating_duration_since(now) > most {
            return false;
        }
        self.full_at = full_at.checked_add(ASKED_EVERY).unwrap_or(full_at);
        true
    }
}

async fn keep_fetching(
    (client, spec): (Client, KeySpec),
    tell: watch::Sender<State>,
    wanted: Arc<Notify>,
    done: CancellationToken,
) {
    let mut pause = if tell.borrow().fetches > 0 { spec.refresh } else { Duration::ZERO };
    let mut retry = RETRY.0;
    loop {
        tokio::select! {
            () = done.cancelled() => return,
            () = wanted.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
        match fetch::fetch(&client, &spec).await {
            Ok(keys) => {
                if tell.borrow().fault.is_some() {
                    tracing::info!(issuer = %spec.issuer, "its keys could be fetched again");
                }
                tracing::debug!(issuer = %spec.issuer, keys = keys.len(), "keys fetched");
                let keys = Some((Arc::new(keys), Instant::now()));
                tell.send_modify(|state| {
                    *state = State { keys, fault: None, fetches: state.fetches.saturating_add(1) };
                });
                (pause, retry) = (spec.refresh, RETRY.0);
            }
            Err(fault) => {
                tracing::warn!(issuer = %spec.issuer, %fault, "its keys cannot be fetched");
                tell.send_modify(|state| {
                    state.fault = Some(fault.to_string());
                    state.fetches = state.fetches.saturating_add(1);
                });
                pause = retry.min(spec.refresh);
                retry = retry.saturating_mul(2).min(RETRY.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ASKED_AT_ONCE, ASKED_EVERY, Allowance};
    use std::time::{Duration, Instant};

    #[test]
    fn tokens_cause_a_few_fetches_at_once_and_then_one_in_a_while() {
        let begin = Instant::now();
        let mut allowance = Allowance { full_at: begin };
        let mut taken = |at: Duration| allowance.take(begin + at);
        let at_once = (0..1000).filter(|_| taken(Duration::ZERO)).count();
        assert_eq!(at_once, usize::try_from(ASKED_AT_ONCE).unwrap());
        assert!(taken(ASKED_EVERY));
        assert!(!taken(ASKED_EVERY));
        let much_later = ASKED_EVERY * 1000;
        let at_once = (0..1000).filter(|_| taken(much_later)).count();
        assert_eq!(at_once, usize::try_from(ASKED_AT_ONCE).unwrap());
    }
}
