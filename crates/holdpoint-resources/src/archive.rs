//! Where previews and what was captured to take actions back lie: one sealed file each, for its
//! owner only, until its time is over.
//!
//! Must never write a value of a target in plain text, and never give back what was changed or put
//! in the place of another.

use crate::credentials::vault::{draft, read_limited, sync, write_new};
use crate::credentials::{Vault, VaultFault};
use holdpoint_types::{ActionId, ServerName, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The first line of every file: format and version.
const MAGIC: &str = "holdpoint-archive-1\n";
/// How the names of sealed files end.
const ENDING: &str = ".sealed";
/// Largest sealed file, in bytes.
const SEALED_BYTES_MAX: u64 = 512 << 20;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// What a held or planned action would do.
    Preview,
    /// What takes an action back.
    Undo,
}

/// Whose it is and how long it is kept. Readable without the key, and cannot be changed without it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// The action.
    pub action: ActionId,
    /// What is kept of it.
    pub kept: Kept,
    /// The server whose tool it called.
    pub server: ServerName,
    /// Until when it is kept.
    pub until_ms: Timestamp,
}

/// The folder. Cheap to clone; reads its files anew each time.
#[derive(Clone, Debug)]
pub struct Archive {
    dir: PathBuf,
    vault: Vault,
    /// Largest sealed file, in bytes.
    bytes_max: u64,
}

// === impl Archive ===

impl Archive {
    /// The archive of the store in `store`, sealed with the key of its vault.
    pub fn new(store: &Path, vault: Vault) -> Self {
        Self { dir: store.join("archive"), vault, bytes_max: SEALED_BYTES_MAX }
    }

    /// Keeps `value` under `label`, in place of what was kept there; durable when it is back.
    ///
    /// # Errors
    /// When it is too large, or cannot be sealed or written; what was there before stays.
    pub fn keep<T: Serialize>(&self, label: &Label, value: &T) -> Result<(), VaultFault> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(|error| fault(&self.dir, &error))?;
        let path = self.path(label.action, label.kept);
        let not_json = |error: serde_json::Error| altered(&path, &error.to_string());
        let head = head(label).map_err(not_json)?;
        let plain = zeroize::Zeroizing::new(serde_json::to_vec(value).map_err(not_json)?);
        let sealed = self.vault.seal(head.as_bytes(), &plain)?;
        let bytes: Vec<u8> = head.into_bytes().into_iter().chain(sealed).collect();
        if bytes.len() as u64 > self.bytes_max {
            let detail = format!("{} bytes, and at most {} are kept", bytes.len(), self.bytes_max);
            return Err(VaultFault::File { path: path.display().to_string(), detail });
        }
        let draft = draft(&path);
        let written = write_new(&draft, &bytes).and_then(|()| std::fs::rename(&draft, &path));
        if let Err(error) = written {
            let _ = std::fs::remove_file(&draft);
            return Err(fault(&path, &error));
        }
        sync(&self.dir)
    }

    /// What is kept of `action`, if it still is.
    ///
    /// # Errors
    /// When it cannot be read, or is not what was kept there.
    pub fn read<T: DeserializeOwned>(
        &self,
        action: ActionId,
        kept: Kept,
    ) -> Result<Option<(Label, T)>, VaultFault> {
        let path = self.path(action, kept);
        let Some((bytes, _)) = read_limited(&path, self.bytes_max)? else { return Ok(None) };
        let (label, at) = label_of(&bytes).ok_or_else(|| altered(&path, "it is cut short"))?;
        if label.action != action || label.kept != kept {
            return Err(altered(&path, "it belongs to another action"));
        }
        let (head, sealed) = bytes.split_at(at);
        let plain = self.vault.open(head, sealed.to_vec())?;
        let plain =
            plain.ok_or_else(|| altered(&path, "it was changed, or sealed with another key"))?;
        let value = serde_json::from_slice(&plain);
        let value = value.map_err(|error| altered(&path, &error.to_string()))?;
        Ok(Some((label, value)))
    }

    /// Deletes what is kept no longer at `now`; gives how many files that were.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn prune(&self, now: Timestamp) -> Result<usize, VaultFault> {
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(fault(&self.dir, &error)),
        };
        let mut gone = 0;
        for path in entries.flatten().map(|entry| entry.path()) {
            let sealed = path.to_str().is_some_and(|name| name.ends_with(ENDING));
            if !sealed {
                continue;
            }
            let Some((bytes, _)) = read_limited(&path, self.bytes_max)? else { continue };
            let over = label_of(&bytes).is_some_and(|(label, _)| label.until_ms <= now);
            gone += usize::from(over && std::fs::remove_file(&path).is_ok());
        }
        Ok(gone)
    }

    fn path(&self, action: ActionId, kept: Kept) -> PathBuf {
        let kept = match kept {
            Kept::Preview => "preview",
            Kept::Undo => "undo",
        };
        self.dir.join(format!("{action}.{kept}{ENDING}"))
    }
}

fn head(label: &Label) -> Result<String, serde_json::Error> {
    Ok(format!("{MAGIC}{}\n", serde_json::to_string(label)?))
}

/// The label of a file, and where what is sealed begins.
fn label_of(bytes: &[u8]) -> Option<(Label, usize)> {
    let rest = bytes.strip_prefix(MAGIC.as_bytes())?;
    let line = rest.iter().position(|byte| *byte == b'\n')?;
    let label = serde_json::from_slice(rest.get(..line)?).ok()?;
    Some((label, MAGIC.len() + line + 1))
}

fn fault(path: &Path, error: &std::io::Error) -> VaultFault {
    VaultFault::File { path: path.display().to_string(), detail: error.to_string() }
}

fn altered(path: &Path, detail: &str) -> VaultFault {
    VaultFault::Altered { path: path.display().to_string(), detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::{Archive, Kept, Label};
    use crate::credentials::{Vault, VaultFault};
    use holdpoint_types::{ActionId, Timestamp};
    use std::path::Path;

    fn label(byte: u8, kept: Kept, until: i64) -> Label {
        let action = ActionId::new(Timestamp(1), [byte; 10]);
        Label { action, kept, server: "orders".parse().unwrap(), until_ms: Timestamp(until) }
    }

    fn archive(dir: &Path) -> Archive {
        Archive::new(dir, Vault::new(dir, None))
    }

    fn files(dir: &Path) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(dir.join("archive")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn what_is_kept_lies_sealed_until_its_time_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let archive = archive(dir.path());
        let (undo, preview) = (label(1, Kept::Undo, 100), label(1, Kept::Preview, 50));
        archive.keep(&undo, &"the row of ada".to_owned()).unwrap();
        archive.keep(&undo, &"the row of bob".to_owned()).unwrap();
        archive.keep(&preview, &"a diff".to_owned()).unwrap();
        let found = archive.read::<String>(undo.action, Kept::Undo).unwrap();
        assert_eq!(found, Some((undo.clone(), "the row of bob".to_owned())));
        for file in files(dir.path()) {
            let bytes = std::fs::read(file).unwrap();
            let shown = String::from_utf8_lossy(&bytes);
            assert!(!shown.contains("row of") && !shown.contains("a diff"), "{shown}");
        }
        assert_eq!(archive.prune(Timestamp(50)), Ok(1));
        assert_eq!(archive.read::<String>(preview.action, Kept::Preview), Ok(None));
        assert_eq!(archive.prune(Timestamp(100)), Ok(1));
        assert_eq!(archive.read::<String>(undo.action, Kept::Undo), Ok(None));
    }

    #[test]
    fn what_is_too_large_is_not_kept_and_what_was_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive { bytes_max: 1000, ..archive(dir.path()) };
        let undo = label(1, Kept::Undo, 100);
        archive.keep(&undo, &"small").unwrap();
        let whole = archive.keep(&undo, &"x".repeat(1000));
        let Err(VaultFault::File { detail, .. }) = whole else { panic!("{whole:?}") };
        assert!(detail.ends_with("bytes, and at most 1000 are kept"), "{detail}");
        let found = archive.read::<String>(undo.action, Kept::Undo).unwrap();
        assert_eq!(found.map(|(_, value)| value).as_deref(), Some("small"));
        assert_eq!(files(dir.path()).len(), 1, "nothing else is left there");
        // What is exactly as large as may be is kept, and can be read.
        let room = 1000 - std::fs::metadata(&files(dir.path())[0]).unwrap().len();
        let most = "x".repeat(usize::try_from(room).unwrap() + "small".len());
        archive.keep(&undo, &most).unwrap();
        assert_eq!(archive.read::<String>(undo.action, Kept::Undo).unwrap(), Some((undo, most)));
    }

    #[test]
    fn no_changed_byte_and_no_exchanged_file_passes() {
        let dir = tempfile::tempdir().unwrap();
        let archive = archive(dir.path());
        let (one, two) = (label(1, Kept::Undo, 9), label(2, Kept::Undo, 9));
        archive.keep(&one, &"one").unwrap();
        let path = files(dir.path()).remove(0);
        let whole = std::fs::read(&path).unwrap();
        let read = |label: &Label| archive.read::<String>(label.action, Kept::Undo);
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            std::fs::write(&path, changed).unwrap();
            assert!(matches!(read(&one), Err(VaultFault::Altered { .. })), "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(matches!(read(&one), Err(VaultFault::Altered { .. })), "cut at {at}");
        }
        let other = path.with_file_name(format!("{}.undo.sealed", two.action));
        std::fs::write(other, &whole).unwrap();
        assert!(matches!(read(&two), Err(VaultFault::Altered { .. })));
    }
}
