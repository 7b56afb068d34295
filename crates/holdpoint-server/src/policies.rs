//! The operator's policy files: read, signatures checked, loaded whole or not at all.
//!
//! INVARIANT: a guard set comes into force only if enough of its signers signed exactly these
//! files, and never behind a version that was in force before. Must not evaluate a policy.

use holdpoint_ledger::{NoteFault, Verifier, open_note_of_some};
use holdpoint_policy::{
    Guard, GuardFault, GuardScope, Manifest, ManifestFault, PolicyFault, PolicySet, PolicySets,
    SOURCE_BYTES_MAX, starter_pack,
};
use holdpoint_types::{GuardRecord, PolicySource, Timestamp};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The file beside a guard set's policies that holds what was signed, and the signatures.
pub const NOTE_NAME: &str = "guard.note";
/// Most policy files of a set.
const POLICY_FILES_MAX: usize = 1_000;
/// Largest note, in bytes; the ledger refuses longer ones, too.
const NOTE_BYTES_MAX: u64 = 1 << 20;

/// Where the policies are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicySpec {
    /// The folder of the ordinary set; absent for the starter pack.
    pub ordinary: Option<PathBuf>,
    /// The guard sets.
    pub guards: Vec<GuardSpec>,
}

/// A guard set as the operator declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardSpec {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// What it guards.
    pub scope: GuardScope,
    /// Who may sign it.
    pub signers: Vec<Verifier>,
    /// How many of them must have; at least 1.
    pub signatures_min: usize,
}

/// Why policies do not come into force.
#[derive(Debug, thiserror::Error)]
pub enum PoliciesFault {
    /// Files cannot be read.
    #[error("the policies in `{folder}` cannot be read: {fault}")]
    Files {
        /// The folder.
        folder: String,
        /// What the system said.
        fault: io::Error,
    },
    /// The ordinary set is wrong.
    #[error("the policies are not valid: {}", join(.0))]
    Ordinary(Vec<PolicyFault>),
    /// A guard set.
    #[error("the guard set `{name}`: {fault}")]
    Guard {
        /// Its name.
        name: String,
        /// Why.
        fault: SignedFault,
    },
}

/// Why a guard set does not count.
#[derive(Debug, thiserror::Error)]
pub enum SignedFault {
    /// Nobody signed it.
    #[error("it is not signed: there is no `{0}`; see `holdpoint policy sign`")]
    Unsigned(String),
    /// Its files cannot be read.
    #[error("its files cannot be read: {0}")]
    Files(io::Error),
    /// Its note is none, or carries a wrong signature.
    #[error(transparent)]
    Note(#[from] NoteFault),
    /// Too few signed it.
    #[error("{have} of its signers signed it, {need} must: not yet {lacking}")]
    Short {
        /// How many signed it.
        have: usize,
        /// How many must.
        need: usize,
        /// Who did not.
        lacking: String,
    },
    /// What was signed is no manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestFault),
    /// The files are others, or wrong.
    #[error(transparent)]
    Set(#[from] GuardFault),
    /// What was signed is about another set.
    #[error("what is signed is the set `{0}`")]
    OtherName(String),
    /// The configuration has it guard something else than what was signed.
    #[error("what is signed guards {signed}, the configuration says {declared}")]
    OtherScope {
        /// What was signed.
        signed: String,
        /// What is declared.
        declared: String,
    },
    /// It is no longer good.
    #[error("it expired on {0}")]
    Expired(String),
    /// An older one than was in force, or another one of the same version.
    #[error(
        "version {version} is not newer than version {known}, which was in force; have it \
        signed anew with `holdpoint policy sign`"
    )]
    NotNewer {
        /// Its version.
        version: u64,
        /// The version that was in force.
        known: u64,
    },
    /// A record says something else than its note.
    #[error("the record does not fit the note")]
    Record,
}

// === impl PolicySpec ===

impl PolicySpec {
    /// Loads all sets, or nothing. `store` is the folder that knows which guard sets were in force.
    ///
    /// # Errors
    /// When a file cannot be read, a policy is not valid, or a guard set does not count at `now`.
    pub fn load(&self, now: Timestamp, store: &Path) -> Result<PolicySets, PoliciesFault> {
        let sources = match &self.ordinary {
            None => starter_pack(),
            Some(folder) => read_policies(folder)
                .map_err(|fault| PoliciesFault::Files { folder: text_of(folder), fault })?,
        };
        let ordinary = PolicySet::load(&sources).map_err(PoliciesFault::Ordinary)?;
        let guards = self.guards.iter().map(|spec| {
            let guard = spec.load(now).and_then(|guard| {
                check_newer(store, guard.manifest())?;
                Ok(guard)
            });
            guard.map_err(|fault| PoliciesFault::Guard { name: spec.name.clone(), fault })
        });
        let guards = guards.collect::<Result<Vec<_>, _>>()?;
        for doubt in guards.iter().map(Guard::set).chain([&ordinary]).flat_map(PolicySet::doubts) {
            let (place, help) = (doubt.to_string(), doubt.suggestion.unwrap_or_default());
            tracing::warn!(place, help, "a policy does not mean what it says");
        }
        Ok(PolicySets::new(ordinary, guards))
    }

    /// True if there are files that may change.
    pub fn has_files(&self) -> bool {
        self.ordinary.is_some() || !self.guards.is_empty()
    }

    /// Name, size, times of change and place of every file.
    pub(crate) fn fingerprint(&self) -> Vec<Option<Seen>> {
        let guards = self.guards.iter().map(|spec| &spec.folder);
        let folders: Vec<_> = self.ordinary.iter().chain(guards).collect();
        let mut seen = Vec::new();
        for folder in folders {
            match policy_files(folder) {
                Ok(files) => seen.extend(files.into_iter().map(seen_at)),
                Err(_) => seen.push(None),
            }
            seen.push(seen_at(folder.join(NOTE_NAME)));
        }
        seen
    }
}

/// A file as it was last seen.
pub(crate) type Seen = (PathBuf, u64, Option<SystemTime>, [i64; 2], u64);

fn seen_at(path: PathBuf) -> Option<Seen> {
    let metadata = fs::metadata(&path).ok()?;
    // The time of change can be set by anybody; when the file itself was touched cannot.
    let touched = [metadata.ctime(), metadata.ctime_nsec()];
    Some((path, metadata.len(), metadata.modified().ok(), touched, metadata.ino()))
}

// === impl GuardSpec ===

impl GuardSpec {
    /// Loads the set, if it counts at `now`.
    ///
    /// # Errors
    /// When it does not.
    pub fn load(&self, now: Timestamp) -> Result<Guard, SignedFault> {
        let sources = self.sources()?;
        let Some(note) = self.note()? else {
            return Err(SignedFault::Unsigned(text_of(&self.folder.join(NOTE_NAME))));
        };
        let (signed, signed_by) = opened(&note, &self.signers, self.signatures_min)?;
        let manifest = Manifest::parse(signed)?;
        if manifest.name != self.name {
            return Err(SignedFault::OtherName(manifest.name));
        }
        if manifest.scope != self.scope {
            let (signed, declared) = (told(&manifest.scope), told(&self.scope));
            return Err(SignedFault::OtherScope { signed, declared });
        }
        if let Some(expires) = manifest.expires.filter(|expires| now >= *expires) {
            return Err(SignedFault::Expired(time(expires)));
        }
        let record = GuardRecord {
            note: note.clone(),
            signers: self.signers.iter().map(ToString::to_string).collect(),
            signatures_min: u64::try_from(self.signatures_min).unwrap_or(u64::MAX),
            signed_by,
        };
        Ok(Guard::load(signed, &sources, record)?)
    }

    /// The files of the set, signed or not.
    ///
    /// # Errors
    /// When they cannot be read, or a link leads out of the folder.
    pub fn sources(&self) -> Result<Vec<PolicySource>, SignedFault> {
        let read = policy_files(&self.folder).and_then(|files| {
            files.iter().try_for_each(|file| check_inside(&self.folder, file))?;
            read_policies(&self.folder)
        });
        read.map_err(SignedFault::Files)
    }

    /// The note beside the files, if there is one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn note(&self) -> Result<Option<String>, SignedFault> {
        let path = self.folder.join(NOTE_NAME);
        match fs::symlink_metadata(&path) {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(fault) => return Err(SignedFault::Files(fault)),
            Ok(_) => {}
        }
        check_inside(&self.folder, &path).map_err(SignedFault::Files)?;
        read_within(&path, NOTE_BYTES_MAX).map(Some).map_err(SignedFault::Files)
    }

    /// Which of the signers signed `note`, whatever it says.
    ///
    /// # Errors
    /// When it is no note, or carries a wrong signature of one of them.
    pub fn signed_by<'a>(&'a self, note: &str) -> Result<Vec<&'a Verifier>, NoteFault> {
        open_note_of_some(note, &self.signers).map(|(_, signers)| signers)
    }
}

/// A guard set out of the ledger, with the signatures checked by the keys that its record names.
///
/// # Errors
/// When the record does not hold a set that these keys signed.
pub fn recorded_guard(
    record: &GuardRecord,
    sources: &[PolicySource],
) -> Result<Guard, SignedFault> {
    let signers = record.signers.iter().map(|text| text.parse());
    let signers: Vec<Verifier> = signers.collect::<Result<_, _>>()?;
    let signatures_min = usize::try_from(record.signatures_min).unwrap_or(usize::MAX);
    let (signed, signed_by) = opened(&record.note, &signers, signatures_min)?;
    if signed_by != record.signed_by {
        return Err(SignedFault::Record);
    }
    Ok(Guard::load(signed, sources, record.clone())?)
}

/// What was in force last under the name of a guard set, if anything was.
///
/// # Errors
/// When that cannot be told.
pub fn in_force(store: &Path, name: &str) -> Result<Option<Manifest>, SignedFault> {
    let path = kept(store, name);
    match fs::symlink_metadata(&path) {
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(fault) => return Err(SignedFault::Files(fault)),
        Ok(_) => {}
    }
    let text = read_within(&path, NOTE_BYTES_MAX).map_err(SignedFault::Files)?;
    Ok(Some(Manifest::parse(&text)?))
}

/// The guard sets that were in force in this store and are not declared any more.
pub fn lapsed(store: &Path, spec: &PolicySpec) -> Vec<String> {
    let entries = fs::read_dir(store.join("guards")).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_suffix(".signed").map(str::to_owned)
    });
    let declared = |name: &String| spec.guards.iter().any(|guard| guard.name == *name);
    let mut lapsed: Vec<_> = names.filter(|name| !declared(name)).collect();
    lapsed.sort();
    lapsed
}

/// Keeps for later starts which guard sets come into force.
///
/// # Errors
/// When the store's folder cannot be written.
pub(crate) fn keep(store: &Path, sets: &PolicySets) -> io::Result<()> {
    for guard in sets.guards() {
        let path = kept(store, guard.name());
        let text = guard.manifest().text();
        // Another process may have been quicker, with a newer one.
        check_newer(store, guard.manifest()).map_err(io::Error::other)?;
        if read_within(&path, NOTE_BYTES_MAX).is_ok_and(|known| known == text) {
            continue;
        }
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        replace_file(&path, text.as_bytes())?;
    }
    Ok(())
}

/// Writes a file so that nobody ever sees half of it.
///
/// # Errors
/// When the folder cannot be written.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::other("not a file name"));
    };
    let draft = folder.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let mut file = File::create(&draft)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    let named = written.and_then(|()| fs::rename(&draft, path));
    if let Err(fault) = named {
        let _ = fs::remove_file(&draft);
        return Err(fault);
    }
    File::open(folder)?.sync_all()
}

/// Reads every `*.cedar` file of a folder, in the order of their names.
///
/// # Errors
/// When the folder or a file cannot be read, is too large, or is not UTF-8.
pub fn read_policies(folder: &Path) -> io::Result<Vec<PolicySource>> {
    let each = policy_files(folder)?.into_iter().map(|path| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let text = read_within(&path, SOURCE_BYTES_MAX)?;
        Ok(PolicySource { name: name.unwrap_or_default(), text })
    });
    each.collect()
}

fn policy_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
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

/// Refuses a file that a link brings in from elsewhere.
fn check_inside(folder: &Path, path: &Path) -> io::Result<()> {
    if path.canonicalize()?.starts_with(folder.canonicalize()?) {
        return Ok(());
    }
    Err(io::Error::other(format!("`{}` leads out of its folder", path.display())))
}

fn read_within(path: &Path, bytes_max: u64) -> io::Result<String> {
    // A pipe would keep us waiting.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other(format!("`{}` is no file", path.display())));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > bytes_max) {
        let what = format!("`{}` is larger than {bytes_max} bytes", path.display());
        return Err(io::Error::other(what));
    }
    let not_text = |_| io::Error::other(format!("`{}` is not UTF-8", path.display()));
    String::from_utf8(bytes).map_err(not_text)
}

/// The text of `note` and who signed it, if these were enough.
fn opened<'a>(
    note: &'a str,
    signers: &[Verifier],
    need: usize,
) -> Result<(&'a str, Vec<String>), SignedFault> {
    let (signed, by) = open_note_of_some(note, signers)?;
    let have = by.len();
    if have < need.max(1) {
        let lacking = signers.iter().filter(|one| !by.contains(one));
        let lacking: Vec<_> = lacking.map(Verifier::name).collect();
        let lacking = lacking.join(", ");
        return Err(SignedFault::Short { have, need, lacking });
    }
    Ok((signed, by.into_iter().map(|one| one.name().to_owned()).collect()))
}

/// Refuses what was in force before something newer was.
fn check_newer(store: &Path, manifest: &Manifest) -> Result<(), SignedFault> {
    let Some(known) = in_force(store, &manifest.name)? else { return Ok(()) };
    let (version, same) = (manifest.version, *manifest == known);
    if version > known.version || same {
        return Ok(());
    }
    Err(SignedFault::NotNewer { version, known: known.version })
}

fn kept(store: &Path, name: &str) -> PathBuf {
    store.join("guards").join(format!("{name}.signed"))
}

/// What is guarded, in words.
fn told(scope: &GuardScope) -> String {
    let surfaces = scope.surfaces.iter().map(|name| format!("surface `{name}`"));
    let environments = scope.environments.iter().map(|name| format!("environment `{name}`"));
    surfaces.chain(environments).collect::<Vec<_>>().join(", ")
}

fn time(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| at.0.to_string(), |at| at.to_string())
}

fn text_of(path: &Path) -> String {
    path.display().to_string()
}

fn join(faults: &[PolicyFault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
