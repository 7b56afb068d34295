//! One governing process: store, governor, operator's socket and the watches beside them.
//!
//! Owns the order in which they start and end. Must never let a call in before all of them stand.

use crate::catalog::Catalog;
use crate::doors::local::{self, Kind, Registered};
use crate::governor::{Governor, Limits};
use crate::store::{Access, Store, StoreFault, StoreOptions};
use crate::telemetry::Reload;
use crate::validators::Validators;
use holdpoint_control::Settings;
use holdpoint_policy::{PolicyFault, PolicySet, SOURCE_BYTES_MAX, starter_pack};
use holdpoint_types::{GatewayId, PolicySource, ServerName, Timestamp};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often the store is looked at for what other processes wrote. Stops do not wait for it: who
/// stops something also tells every process through its socket.
const STORE_LOOK: Duration = Duration::from_millis(50);
/// How often it is looked whether a check is due.
const CHECK_LOOK: Duration = Duration::from_millis(200);
/// How often the policies' folder is looked at.
const POLICY_LOOK: Duration = Duration::from_millis(500);
/// Most policy files.
const POLICY_FILES_MAX: usize = 1_000;

/// What a governing process needs to start.
#[derive(Debug)]
pub struct RuntimeSpec {
    /// The store's folder.
    pub store: PathBuf,
    /// How it governs.
    pub kind: Kind,
    /// Who may reach what.
    pub settings: Settings,
    /// The folder of the policies; absent for the starter pack.
    pub policies: Option<PathBuf>,
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
    /// The policies cannot be read.
    #[error("the policies in `{dir}` cannot be read: {fault}")]
    PolicyFiles {
        /// The folder.
        dir: String,
        /// What the system said.
        fault: io::Error,
    },
    /// The policies are wrong.
    #[error("the policies are not valid: {}", join(.0))]
    Policy(Vec<PolicyFault>),
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
        let policy = load_policies(spec.policies.as_deref())?;
        let gateway = new_gateway()?;
        let options = StoreOptions { gateway, access: Access::Govern };
        let dir = spec.store.clone();
        // Opening may wait for another process's lock.
        let store = tokio::task::spawn_blocking(move || Store::open(&dir, options)).await;
        let store = store.map_err(|fault| StartFault::Socket(io::Error::other(fault)))??;
        let catalog = Catalog::new(spec.strict);
        let voices = (spec.settings, policy);
        let governor = Governor::start(store, catalog, voices, spec.limits).await?;
        governor.replace_validators(spec.validators);
        let done = CancellationToken::new();
        let place = (spec.store.as_path(), spec.kind);
        let registered = local::open(governor.clone(), place, done.clone());
        let registered = registered.map_err(StartFault::Socket)?;
        let (tell, moved) = watch::channel(0);
        tokio::spawn(watch_store(governor.clone(), tell, done.clone()));
        tokio::spawn(watch_checks(governor.clone(), done.clone()));
        if let Some(dir) = spec.policies {
            tokio::spawn(watch_policies(governor.clone(), dir, done.clone()));
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

/// Loads the policies of a folder, or the starter pack.
///
/// # Errors
/// When they cannot be read or are not valid.
pub fn load_policies(dir: Option<&Path>) -> Result<PolicySet, StartFault> {
    let sources = match dir {
        None => starter_pack(),
        Some(dir) => read_policies(dir)
            .map_err(|fault| StartFault::PolicyFiles { dir: dir.display().to_string(), fault })?,
    };
    PolicySet::load(&sources).map_err(StartFault::Policy)
}

/// Reads every `*.cedar` file of a folder, in the order of their names.
///
/// # Errors
/// When the folder or a file cannot be read, is too large, or is not UTF-8.
pub fn read_policies(dir: &Path) -> io::Result<Vec<PolicySource>> {
    let mut sources = Vec::new();
    for path in policy_files(dir)? {
        if fs::metadata(&path)?.len() > SOURCE_BYTES_MAX {
            let what = format!("`{}` is larger than {SOURCE_BYTES_MAX} bytes", path.display());
            return Err(io::Error::other(what));
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let text = fs::read_to_string(&path)?;
        sources.push(PolicySource { name: name.unwrap_or_default(), text });
    }
    Ok(sources)
}

fn policy_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "cedar") {
            files.push(path);
        }
    }
    if files.len() > POLICY_FILES_MAX {
        return Err(io::Error::other(format!("more than {POLICY_FILES_MAX} policy files")));
    }
    files.sort();
    Ok(files)
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

/// Makes the checks that are due after actions.
async fn watch_checks(governor: Governor, done: CancellationToken) {
    let mut failing = false;
    loop {
        tokio::select! {
            () = done.cancelled() => return,
            () = tokio::time::sleep(CHECK_LOOK) => {}
        }
        match governor.begin_checks() {
            Ok(()) => failing = false,
            Err(fault) if !failing => {
                failing = true;
                tracing::error!(%fault, "it cannot be read which checks are due");
            }
            Err(_) => {}
        }
    }
}

/// Brings changed policies into force, all or nothing; the old ones stay if the new are not valid.
async fn watch_policies(governor: Governor, dir: PathBuf, done: CancellationToken) {
    let mut known = fingerprint(&dir).ok();
    loop {
        tokio::select! {
            () = done.cancelled() => return,
            () = tokio::time::sleep(POLICY_LOOK) => {}
        }
        let seen = fingerprint(&dir).ok();
        if seen == known {
            continue;
        }
        known = seen;
        match load_policies(Some(&dir)) {
            Ok(policy) => {
                let digest = policy.digest();
                let came = match governor.replace_policy(policy).await {
                    Ok(()) => {
                        tracing::info!(%digest, "policies in force");
                        Reload::InForce
                    }
                    Err(fault) => {
                        tracing::error!(%fault, "new policies could not be recorded");
                        Reload::Refused
                    }
                };
                governor.telemetry().reloaded("policies", came);
            }
            Err(fault) => {
                let kept = governor.policy().digest();
                tracing::error!(%fault, %kept, "new policies refused: the old ones stay in force");
                governor.telemetry().reloaded("policies", Reload::Refused);
            }
        }
    }
}

/// Name, size and time of change of every policy file.
fn fingerprint(dir: &Path) -> io::Result<Vec<(PathBuf, u64, Option<SystemTime>)>> {
    let each = policy_files(dir)?.into_iter().map(|path| {
        let metadata = fs::metadata(&path)?;
        Ok((path, metadata.len(), metadata.modified().ok()))
    });
    each.collect()
}

fn new_gateway() -> Result<GatewayId, StartFault> {
    let mut random = [0; 10];
    getrandom::fill(&mut random).map_err(|fault| StartFault::Randomness(fault.to_string()))?;
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Timestamp(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX));
    Ok(GatewayId::new(now, random))
}

fn join(faults: &[PolicyFault]) -> String {
    let each = faults
        .iter()
        .map(|fault| format!("{}:{}:{}: {}", fault.file, fault.line, fault.column, fault.message));
    each.collect::<Vec<_>>().join("; ")
}
