//! The demo's shell: whatever bash is told, in the workspace.
//!
//! Owns the process and the limit on what it prints. Must never look at the command.

use super::ToolFault;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Longest output that is kept, in bytes.
const OUTPUT_BYTES_MAX: u64 = 64 << 10;

/// What `command` prints.
///
/// # Errors
/// When there is no bash, or the command ends with anything but 0.
pub fn run(workspace: &Path, command: &str) -> Result<String, ToolFault> {
    let (reader, writer) = std::io::pipe()?;
    let mut bash = Command::new("bash");
    bash.args(["-c", command]).current_dir(workspace).stdin(Stdio::null()).env_clear();
    bash.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
    bash.env("HOME", workspace).env("CHECKPOINT_DISABLE", "1");
    bash.stdout(writer.try_clone()?).stderr(writer);
    let mut child = bash.spawn()?;
    // The builder holds the other end of the pipe, which would never be at its end.
    drop(bash);
    let mut printed = Vec::new();
    let read = reader.take(OUTPUT_BYTES_MAX).read_to_end(&mut printed);
    let status = child.wait()?;
    read?;
    let text = String::from_utf8_lossy(&printed).into_owned();
    if status.success() { Ok(text) } else { Err(ToolFault::Unfit(format!("{status}: {text}"))) }
}
