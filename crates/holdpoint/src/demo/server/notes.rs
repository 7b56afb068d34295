//! The demo's workspace: a folder of notes.
//!
//! Owns the reading and writing of notes. Must never touch a file outside its folder, nor replace
//! one.

use super::ToolFault;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;

/// Longest note, in bytes.
pub const NOTE_BYTES_MAX: u64 = 64 * 1024;
/// Longest name of a note, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// A folder of notes.
#[derive(Debug)]
pub struct Notes {
    folder: PathBuf,
}

// === impl Notes ===

impl Notes {
    /// The notes in `folder`, which exists already.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The text of one note.
    ///
    /// # Errors
    /// When the name is unfit, or no such note can be read.
    pub fn read(&self, name: &str) -> Result<String, ToolFault> {
        let file = self.path(name)?;
        if !fs::symlink_metadata(&file)?.is_file() {
            return Err(ToolFault::Unfit(format!("`{name}` is no note")));
        }
        let mut text = String::new();
        File::open(&file)?.take(NOTE_BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    }

    /// Writes a note that does not exist yet.
    ///
    /// # Errors
    /// When the name is unfit, the text too long, or the name taken.
    pub fn write(&self, name: &str, text: &str) -> Result<String, ToolFault> {
        let file = self.path(name)?;
        let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
        if bytes > NOTE_BYTES_MAX {
            return Err(ToolFault::Unfit(format!("a note has at most {NOTE_BYTES_MAX} bytes")));
        }
        let mut file = OpenOptions::new().write(true).create_new(true).open(file)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(format!("wrote `{name}`, {bytes} bytes"))
    }

    fn path(&self, name: &str) -> Result<PathBuf, ToolFault> {
        // INVARIANT: a name holds no separator and is no `.` or `..`, so it stays in the folder.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let fits = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain);
        if !fits || name.starts_with(['.', '-']) {
            let rule = "use 1 to 64 letters, digits, `_`, `.` or `-`, first a letter, digit or `_`";
            return Err(ToolFault::Unfit(format!("that is no name of a note: {rule}")));
        }
        Ok(self.folder.join(name))
    }
}
