//! The configuration: where it lies, what it says, and everything that is wrong with it.
//! Must not start anything, nor read a secret.

mod check;
mod checked;
mod fault;
mod policies;
mod raw;
mod read;
mod reference;
mod schema;
mod secret;

pub use check::{check, is_scope, sanitise};
pub use checked::{
    Asked, Config, Limits, Listen, Notify, OAuthClient, Served, Serves, Transport, UndoRules,
    UnknownParameters, Upstream, UpstreamCommand, UpstreamUrl, Validator, ValueSource,
};
pub use fault::{Colour, Report, Severity, nearest, printable, printable_lines};
pub use policies::{guard_report, lapsed_report, policy_report, policy_sources};
pub use reference::{config_reference, errors_reference};
pub use schema::config_schema;
pub use secret::{is_plain_value, is_secret_option, is_secret_value, variable_for};

use std::io::Read as _;
use std::path::{Path, PathBuf};

/// The name of the file in a folder.
pub const FILE_NAME: &str = "holdpoint.toml";
/// Longest configuration, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A configuration, and what may not be as it was meant.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings only.
    pub report: Report,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// No file lies where one is looked for.
    #[error("no configuration found ({0}); write one with `holdpoint init`")]
    Missing(String),
    /// The file cannot be read.
    #[error("cannot read `{file}`: {error}")]
    Unreadable {
        /// The file.
        file: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file is far larger than any configuration.
    #[error("`{file}` is larger than {bytes_max} bytes")]
    TooLarge {
        /// The file.
        file: String,
        /// The most that is read.
        bytes_max: u64,
    },
    /// The file has faults.
    #[error("`{file}` has faults")]
    Faulty {
        /// The file.
        file: String,
        /// The faults.
        report: Report,
    },
}

/// Whether the working folder is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// A person works in it.
    HereFirst,
    /// A client chose it, perhaps a stranger's project that brings a configuration of its own.
    NotHere,
}

/// Finds the configuration: the one named, else the first that exists of `./holdpoint.toml`,
/// `$XDG_CONFIG_HOME/holdpoint/holdpoint.toml` and `/etc/holdpoint/holdpoint.toml`.
///
/// # Errors
/// When none exists.
pub fn find(named: Option<&Path>, search: Search) -> Result<PathBuf, Unusable> {
    let places = named.map_or_else(|| usual_places(search), |named| vec![named.to_owned()]);
    if let Some(found) = places.iter().find(|place| place.is_file()) {
        return Ok(found.clone());
    }
    let tried: Vec<_> = places.iter().map(|place| format!("`{}`", place.display())).collect();
    Err(Unusable::Missing(format!("tried {}", tried.join(", "))))
}

/// Reads and checks a configuration.
///
/// # Errors
/// When the file cannot be read, or has faults.
pub fn load(path: &Path) -> Result<Loaded, Unusable> {
    let name = path.display().to_string();
    let text = read_text(path)?;
    let unreadable = |error| Unusable::Unreadable { file: name.clone(), error };
    let file = std::path::absolute(path).map_err(unreadable)?;
    match check(&name, &file, &text) {
        (Some(config), report) => Ok(Loaded { config, report }),
        (None, report) => Err(Unusable::Faulty { file: name, report }),
    }
}

/// The store that a configuration names although it has faults: whoever has to stop something must
/// not have to mend a file first. Nothing if that part of it cannot be read for certain.
pub fn store_despite_faults(path: &Path) -> Option<PathBuf> {
    let text = read_text(path).ok()?;
    let file = std::path::absolute(path).ok()?;
    let folder = file.parent()?;
    let reading = read::read(&path.display().to_string(), &text);
    let named = reading.raw.store.path.as_ref().map(|path| folder.join(path.get()));
    // Where lines are broken, the one that names the folder may be among them, or be gone.
    let silent = reading.broken_lines.is_empty()
        && !text.lines().any(|line| {
            let key = line.trim_start_matches(|sign: char| " \t['\"".contains(sign));
            key.starts_with("store")
        });
    named.or_else(|| silent.then(|| folder.join(".holdpoint")))
}

/// Reads a text file that people write, within a sensible size.
///
/// # Errors
/// When it cannot be read, is too large, or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, Unusable> {
    read_text_within(path, FILE_BYTES_MAX)
}

fn read_text_within(path: &Path, bytes_max: u64) -> Result<String, Unusable> {
    let name = path.display().to_string();
    let unreadable = |error| Unusable::Unreadable { file: name.clone(), error };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > bytes_max) {
        return Err(Unusable::TooLarge { file: name, bytes_max });
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
        let line = line.filter(|byte| **byte == b'\n').count().saturating_add(1);
        unreadable(std::io::Error::other(format!("line {line} is not UTF-8")))
    })
}

fn usual_places(search: Search) -> Vec<PathBuf> {
    let mut places = match search {
        Search::HereFirst => vec![PathBuf::from(FILE_NAME)],
        Search::NotHere => Vec::new(),
    };
    let folder = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let folder = folder.filter(|folder| folder.is_absolute());
    let folder =
        folder.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
    places.extend(folder.map(|folder| folder.join("holdpoint").join(FILE_NAME)));
    places.push(Path::new("/etc/holdpoint").join(FILE_NAME));
    places
}
