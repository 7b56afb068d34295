//! What a configuration consists of: the files of its folder, kept so that it can be planned with
//! again. Must never follow a link out of the folder, nor take a state for a part of it.

use super::Terraform;
use crate::resource::ResourceFault;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Component, Path};

/// Most files of a configuration.
const FILES_MAX: usize = 2000;
/// Most folders in folders.
const DEPTH_MAX: usize = 16;

/// Files by their path within the folder, in base64. Absent if there were too many or too much.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Files(pub(super) Option<BTreeMap<String, String>>);

/// What is read so far.
struct Reading {
    files: BTreeMap<String, String>,
    bytes_left: usize,
}

// === impl Files ===

impl Files {
    /// Writes them into an empty folder.
    pub(super) fn write_to(&self, folder: &Path) -> Result<(), ResourceFault> {
        let unavailable = |fault: std::io::Error| ResourceFault::Unavailable(fault.to_string());
        let invalid = || ResourceFault::Invalid("what was captured is no configuration".to_owned());
        for (name, text) in self.0.iter().flatten() {
            let name = Path::new(name);
            if !name.components().all(|part| matches!(part, Component::Normal(_))) {
                return Err(invalid());
            }
            let bytes = STANDARD.decode(text).map_err(|_| invalid())?;
            let path = folder.join(name);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(unavailable)?;
            }
            std::fs::write(path, bytes).map_err(unavailable)?;
        }
        Ok(())
    }
}

// === impl Terraform ===

impl Terraform {
    /// The configuration as it lies there.
    pub(super) fn configuration(&self) -> Result<Files, ResourceFault> {
        let bytes_left = self.spec().limits.configuration_bytes_max;
        let mut reading = Reading { files: BTreeMap::new(), bytes_left };
        let whole = reading.folder(&self.spec().directory, "", 0);
        let whole =
            whole.map_err(|fault| ResourceFault::Gone(format!("configuration: {fault}")))?;
        Ok(Files(whole.then_some(reading.files)))
    }
}

// === impl Reading ===

impl Reading {
    /// Reads a folder; false if it is beyond the limits.
    fn folder(&mut self, folder: &Path, prefix: &str, depth: usize) -> std::io::Result<bool> {
        if depth > DEPTH_MAX {
            return Ok(false);
        }
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                return Ok(false);
            };
            let kind = entry.file_type()?;
            let path = format!("{prefix}{name}");
            let whole = match (kind.is_dir(), kind.is_file()) {
                (true, _)
                    if matches!(name.as_str(), ".terraform" | ".git" | "terraform.tfstate.d") =>
                {
                    true
                }
                (true, _) => self.folder(&entry.path(), &format!("{path}/"), depth + 1)?,
                (false, true) if is_state(&name) => true,
                (false, true) => self.file(&entry.path(), path)?,
                // A link may lead anywhere; without it the configuration is not whole.
                (false, false) => false,
            };
            if !whole {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn file(&mut self, file: &Path, path: String) -> std::io::Result<bool> {
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        if length > self.bytes_left || self.files.len() >= FILES_MAX {
            return Ok(false);
        }
        let bytes = std::fs::read(file)?;
        self.bytes_left = self.bytes_left.saturating_sub(bytes.len());
        self.files.insert(path, STANDARD.encode(bytes));
        Ok(true)
    }
}

/// True for states, their backups and their locks.
fn is_state(name: &str) -> bool {
    name.contains(".tfstate")
}

#[cfg(test)]
mod tests {
    use super::{DEPTH_MAX, FILES_MAX, Files, Reading};
    use std::collections::BTreeMap;

    fn read(folder: &std::path::Path) -> Files {
        let mut reading = Reading { files: BTreeMap::new(), bytes_left: 1000 };
        let whole = reading.folder(folder, "", 0).unwrap();
        Files(whole.then_some(reading.files))
    }

    #[test]
    fn a_configuration_that_is_kept_has_a_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        std::fs::create_dir_all(path.join("module/.terraform")).unwrap();
        std::fs::write(path.join("module/main.tf"), "x").unwrap();
        std::fs::write(path.join("module/.terraform/big"), vec![0; 2000]).unwrap();
        std::fs::write(path.join("terraform.tfstate.backup"), vec![0; 2000]).unwrap();
        let Files(Some(files)) = read(path) else { panic!("it is small") };
        assert_eq!(files.keys().collect::<Vec<_>>(), ["module/main.tf"]);
        let copy = tempfile::tempdir().unwrap();
        Files(Some(files)).write_to(copy.path()).unwrap();
        assert_eq!(read(copy.path()), read(path));
        for n in 0..FILES_MAX {
            std::fs::write(path.join(format!("{n}.tf")), "").unwrap();
        }
        assert_eq!(read(path), Files(None));
        let deep = tempfile::tempdir().unwrap();
        let inner = (0..=DEPTH_MAX).fold(deep.path().to_owned(), |path, _| path.join("in"));
        std::fs::create_dir_all(inner).unwrap();
        assert_eq!(read(deep.path()), Files(None));
    }

    #[test]
    fn what_was_captured_is_written_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["../x", "/tmp/x", "a/../../x"] {
            let files = Files(Some([(name.to_owned(), "eA==".to_owned())].into()));
            assert!(files.write_to(folder.path()).is_err(), "{name}");
        }
    }
}
