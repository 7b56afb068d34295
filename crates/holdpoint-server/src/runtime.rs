//! One governing process: store, governor, operator's socket and the watches beside them.
//!
//! Owns the order in which they start and end. Must never let a call in before all of them stand.

use crate::catalog::Catalog;
use crate::doors::local::{self, Kind, Registered};
use crate::governor::{Governor, Limits};
use crate::policies::{self, PoliciesFault, PolicySpec, Seen};
use crate::store::{Access, Store, StoreFault, StoreOptions};
use crate::validators::Validators;
use holdpoint_control::Settings;
use holdpoint_types::{GatewayId, ServerName, Timestamp};
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often the store is looked at for what other processes wrote. Stops do not wait for it: who
/// stops something also tells every process through its socket.
const STORE_LOOK: Duration = Duration::from_millis(50);
/// How often the policies' folders are looked at.
const POLICY_LOOK: Duration = Duration::from_millis(500);

/// What a governing process needs to start.
#[derive(Debug)]
pub struct RuntimeSpec {
    /// The store's folder.
    pub store: PathBuf,
    /// How it governs.
    pub kind: Kind,
    /// Who may reach what.
    pub settings: Settings,
    /// Where the policies are.
    pub policies: PolicySpec,
    /// Servers whose tools refuse parameters that their schema does not name.
    pub strict: BTreeSet<ServerName>,
    /// How much is done at once.
    pub limits: Limits,
    /// Who else has a voice.
    pub validators: Validators,
}

/// A governing process, until it is dropped.
pub struct Runtime {
    governor: Governor,
    registered: Registered,
    done: CancellationToken,
    moved: watch::Receiver<u64>,
}

/// Why a process cannot govern.
#[derive(Debug, thiserror::Error)]
pub enum StartFault {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// The policies.
    #[error(transparent)]
    Policies(#[from] PoliciesFault),
    /// The operator's socket.
    #[error("the operator's socket cannot be opened: {0}")]
    Socket(io::Error),
    /// No randomness.
    #[error("the system gives no randomness: {0}")]
    Randomness(String),
}

// === impl Runtime ===

impl Runtime {
    /// Starts to govern.
    ///
    /// # Errors
    /// When any part cannot start; nothing governs then.
    pub async fn start(spec: RuntimeSpec) -> Result<Self, StartFault> {
        // Before they are read, so that no change falls between.
        let seen = spec.policies.fingerprint();
        let policies = spec.policies.load(time_now(), &spec.store)?;
        for guard in policies::lapsed(&spec.store, &spec.policies) {
            tracing::warn!(guard, "this guard set was in force and is not declared any more");
        }
        let gateway = new_gateway()?;
        let options = StoreOptions { gateway, access: Access::Govern };
        let dir = spec.store.clone();
        // Opening may wait for another process's lock.
        let store = tokio::task::spawn_blocking(move || Store::open(&dir, options)).await;
        let store = store.map_err(|fault| StartFault::Socket(io::Error::other(fault)))??;
        let catalog = Catalog::new(spec.strict);
        let voices = (spec.settings, policies);
        let governor = Governor::start(store, catalog, voices, spec.limits).await?;
        governor.replace_validators(spec.validators);
        let done = CancellationToken::new();
        let place = (spec.store.as_path(), spec.kind);
        let registered = local::open(governor.clone(), place, done.clone());
        let registered = registered.map_err(StartFault::Socket)?;
        let (tell, moved) = watch::channel(0);
        tokio::spawn(watch_store(governor.clone(), tell, done.clone()));
        let (checking, until) = (governor.clone(), done.clone());
        tokio::spawn(async move { checking.make_checks(until).await });
        tokio::spawn(governor.clone().prune_until(done.clone()));
        if spec.policies.has_files() {
            let files = (spec.policies, seen);
            tokio::spawn(watch_policies(governor.clone(), files, done.clone()));
        }
        Ok(Self { governor, registered, done, moved })
    }

    /// The governor.
    pub fn governor(&self) -> &Governor {
        &self.governor
    }

    /// Where this process's sockets are.
    pub fn sockets(&self) -> &local::Registration {
        &self.registered.registration
    }

    /// Changes whenever another process wrote to the store.
    pub fn store_moved(&self) -> watch::Receiver<u64> {
        self.moved.clone()
    }

    /// Ends: no more questions from operators, everything queued durable.
    pub async fn shut_down(self) {
        self.done.cancel();
        if self.governor.store().flush().await.is_ok() {
            self.governor.make_last_checks().await;
        }
        if let Err(fault) = self.governor.store().flush().await {
            tracing::error!(%fault, "the last records could not be written");
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.done.cancel();
    }
}

async fn watch_store(governor: Governor, moved: watch::Sender<u64>, done: CancellationToken) {
    let mut failing = false;
    loop {
        tokio::select! {
            () = done.cancelled() => return,
            () = tokio::time::sleep(STORE_LOOK) => {}
        }
        match governor.keep_up() {
            Ok(true) => moved.send_modify(|count| *count += 1),
            Ok(false) => failing = false,
            Err(fault) if !failing => {
                failing = true;
                tracing::error!(%fault, "the store cannot be read");
            }
            Err(_) => {}
        }
    }
}

/// Brings changed policies into force, all or nothing; the old ones stay if the new are not valid.
async fn watch_policies(
    governor: Governor,
    (spec, mut known): (PolicySpec, Vec<Option<Seen>>),
    done: CancellationToken,
) {
    loop {
        tokio::select! {
            () = done.cancelled() => return,
            () = tokio::time::sleep(POLICY_LOOK) => {}
        }
        let seen = spec.fingerprint();
        if seen == known {
            continue;
        }
        known = seen;
        let came = bring_into_force(&governor, &spec).await;
        if let Err(refused) = &came {
            let kept = governor.policy().digest();
            let fault = refused.as_str();
            tracing::error!(fault, %kept, "new policies refused: the old ones stay in force");
        }
        governor.telemetry().policies_reloaded(came);
    }
}

/// Replaces the policies, or says why not.
async fn bring_into_force(governor: &Governor, spec: &PolicySpec) -> Result<(), String> {
    let policies = spec.load(governor.now(), governor.store().dir());
    let policies = policies.map_err(|fault| fault.to_string())?;
    let digest = policies.digest();
    let replaced = governor.replace_policies(policies).await;
    replaced.map_err(|fault| format!("they could not be recorded: {fault}"))?;
    tracing::info!(%digest, "policies in force");
    Ok(())
}

fn new_gateway() -> Result<GatewayId, StartFault> {
    let mut random = [0; 10];
    getrandom::fill(&mut random).map_err(|fault| StartFault::Randomness(fault.to_string()))?;
    Ok(GatewayId::new(time_now(), random))
}

fn time_now() -> Timestamp {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}
