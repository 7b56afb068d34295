//! The person at the command line: who they are, and the store that they work on.
//!
//! Who somebody is comes from the operating system, never from the environment, which anybody can
//! set. Must not know what is done with the store.

use super::Globals;
use crate::config::{self, Config, Unusable};
use anyhow::Context as _;
use holdpoint_server::Clock;
use holdpoint_server::operate::Word;
use holdpoint_server::store::{Access, Store, StoreFault, StoreOptions};
use holdpoint_types::{GatewayId, Timestamp};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Where the system says which user has which number.
const PASSWD: &str = "/etc/passwd";
/// The file without which a folder is no store.
const DATABASE: &str = "ledger.db";
/// Longest accepted reason, in characters.
const REASON_CHARS_MAX: usize = 1000;

/// Which store.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct StoreArgs {
    /// The store's folder, instead of the configuration's: works without a configuration.
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
}

// === impl StoreArgs ===

impl StoreArgs {
    /// The store's folder.
    ///
    /// # Errors
    /// When it is not given and the configuration cannot be read.
    pub fn dir(&self, globals: &Globals) -> anyhow::Result<PathBuf> {
        Ok(self.dir_and_config(globals)?.0)
    }

    /// The store's folder, and the configuration if that had to be read to know it.
    fn dir_and_config(&self, globals: &Globals) -> anyhow::Result<(PathBuf, Option<Config>)> {
        match &self.store {
            Some(dir) => Ok((dir.clone(), None)),
            None => match globals.load() {
                Ok(config) => Ok((config.store.clone(), Some(config))),
                Err(Unusable::Faulty { file, report }) => {
                    let store = config::store_despite_faults(Path::new(&file));
                    let Some(store) = store.filter(|dir| dir.join(DATABASE).is_file()) else {
                        note(
                            "name the store with `--store DIR` to go on without the configuration",
                        );
                        return Err(Unusable::Faulty { file, report }.into());
                    };
                    note(&format!("`{file}` has faults; going on with `{}`", store.display()));
                    Ok((store, None))
                }
                Err(fault) => Err(fault.into()),
            },
        }
    }

    /// Opens the store, which must exist: a slip of the pen, or an empty configuration, must not
    /// put a stop into a new store that nobody obeys.
    ///
    /// # Errors
    /// When there is none, or it cannot be used.
    pub fn open(&self, globals: &Globals, access: Access) -> anyhow::Result<Store> {
        self.open_with_config(globals, access).map(|(store, _)| store)
    }

    /// As [`Self::open`], with the configuration if that had to be read.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with_config(
        &self,
        globals: &Globals,
        access: Access,
    ) -> anyhow::Result<(Store, Option<Config>)> {
        let (dir, config) = self.dir_and_config(globals)?;
        open_existing(&dir, access).map(|store| (store, config))
    }

    /// As [`Self::open`], for who has read the configuration: its warnings are told once.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_by(&self, config: &Config, access: Access) -> anyhow::Result<Store> {
        open_existing(self.store.as_deref().unwrap_or(&config.store), access)
    }
}

fn open_existing(dir: &Path, access: Access) -> anyhow::Result<Store> {
    if !dir.join(DATABASE).is_file() {
        return Err(StoreFault::Absent { dir: dir.display().to_string() }.into());
    }
    open(dir, access)
}

/// Opens the store in `dir`. One that the operator changes may be made; one to look at must exist.
///
/// # Errors
/// When there is none, or it cannot be used.
pub fn open(dir: &Path, access: Access) -> anyhow::Result<Store> {
    let mut random = [0; 10];
    getrandom::fill(&mut random).context("the system gives no randomness")?;
    let gateway = GatewayId::new(now(), random);
    let store = Store::open(dir, StoreOptions::new(gateway, access));
    store.with_context(|| format!("cannot open the store `{}`", dir.display()))
}

/// What the operator says now, about `store`.
///
/// # Errors
/// When the store cannot be read.
pub fn word(store: &Store, reason: &str) -> anyhow::Result<Word> {
    let at = Clock::new(store.last_at()?).now_for_record();
    Ok(Word { reason: reason.to_owned(), by: name(), at })
}

/// Runs what waits for the store or for governing processes.
///
/// # Errors
/// When no runtime can be made, or the work fails.
pub fn wait<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(work)
}

/// The time now, where nothing is recorded.
pub fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}

/// Says something that is not part of the answer.
pub fn note(text: &str) {
    // There is nobody left to tell if standard error is gone.
    let _ = writeln!(std::io::stderr(), "holdpoint: {}", config::printable(text));
}

/// A reason as somebody may give it: not empty, on one line, not endless.
///
/// # Errors
/// When it is none of these.
pub fn parse_reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("say why, in a few words".to_owned());
    }
    if text.chars().count() > REASON_CHARS_MAX || text.contains(char::is_control) {
        return Err(format!("use one line of at most {REASON_CHARS_MAX} characters"));
    }
    Ok(text.to_owned())
}

/// The operator's name, as the system knows this process's user.
pub fn name() -> String {
    let uid = rustix::process::getuid().as_raw();
    let passwd = std::fs::read_to_string(PASSWD).unwrap_or_default();
    user_of(&passwd, uid).unwrap_or_else(|| format!("uid:{uid}"))
}

/// The first user with this number.
fn user_of(passwd: &str, uid: u32) -> Option<String> {
    let named = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let number: u32 = fields.nth(1)?.parse().ok()?;
        let plain = !name.is_empty() && name.chars().all(|found| found.is_ascii_graphic());
        (number == uid && plain).then(|| name.to_owned())
    };
    passwd.lines().find_map(named)
}

#[cfg(test)]
mod tests {
    use super::{parse_reason, user_of};

    #[test]
    fn the_name_is_the_systems() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\n::7:\na\u{7}:x:8:\nada:x:1000:1000\n";
        assert_eq!(user_of(passwd, 1000).as_deref(), Some("ada"));
        assert_eq!(user_of(passwd, 0).as_deref(), Some("root"));
        for uid in [1, 7, 8] {
            assert_eq!(user_of(passwd, uid), None, "{uid}");
        }
    }

    #[test]
    fn a_reason_says_something() {
        assert_eq!(parse_reason(" it deletes \n"), Ok("it deletes".to_owned()));
        for text in ["", "  ", "a\nb", "a\u{1b}b", &"x".repeat(1001)] {
            assert!(parse_reason(text).is_err(), "{text:?}");
        }
    }
}
