//! The demo's files: written, moved and deleted as told.
//!
//! Must be no more careful than `mv` and `rm` are: what is in the way is replaced.

use super::ToolFault;
use std::fs;
use std::path::{Path, PathBuf};

/// Files against a folder.
#[derive(Debug)]
pub struct Files {
    folder: PathBuf,
}

// === impl Files ===

impl Files {
    /// Relative paths are meant from `folder`.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Writes a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &str, text: &str) -> Result<String, ToolFault> {
        fs::write(self.folder.join(path), text)?;
        Ok(format!("wrote `{path}`"))
    }

    /// Moves a file into a folder, or onto a name.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn shift(&self, from: &str, to: &str) -> Result<String, ToolFault> {
        let (source, mut target) = (self.folder.join(from), self.folder.join(to));
        if let Some(name) = Path::new(from).file_name().filter(|_| target.is_dir()) {
            target = target.join(name);
        }
        fs::rename(source, target)?;
        Ok(format!("moved `{from}` to `{to}`"))
    }

    /// Deletes files, one after the other.
    ///
    /// # Errors
    /// When one cannot be deleted; those before it are gone.
    pub fn delete(&self, paths: &[String]) -> Result<String, ToolFault> {
        for path in paths {
            fs::remove_file(self.folder.join(path))?;
        }
        Ok(format!("deleted {} files", paths.len()))
    }
}
