//! Writes files whole or not at all, and keeps old ones. Must never overwrite a backup.

use anyhow::Context as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Most backups of one file.
const BACKUPS_MAX: u32 = 1000;

/// Writes `text` beside `path` and moves it there, so that nobody ever sees half of it.
///
/// # Errors
/// When the folder or the file cannot be written.
pub(super) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let failed = || format!("cannot write `{}`", path.display());
    // A link stays a link: what it points to is replaced.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).with_context(failed)?;
    let mut draft = tempfile::NamedTempFile::new_in(folder).with_context(failed)?;
    draft.write_all(text.as_bytes()).with_context(failed)?;
    let permissions = match path.metadata() {
        Ok(found) => found.permissions(),
        Err(_) => std::fs::Permissions::from_mode(0o644),
    };
    draft.as_file().set_permissions(permissions).with_context(failed)?;
    draft.as_file().sync_all().with_context(failed)?;
    draft.persist(&path).with_context(failed)?;
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(failed)
}

/// Copies `path` to `path.bak`, or to `path.bak.1` and so on if that exists.
///
/// # Errors
/// When the copy cannot be written, or a thousand of them exist.
pub(super) fn back_up(path: &Path) -> anyhow::Result<PathBuf> {
    let failed = || format!("cannot keep a copy of `{}`", path.display());
    let content = std::fs::read(path).with_context(failed)?;
    let mode = path.metadata().with_context(failed)?.permissions().mode();
    for number in 0..BACKUPS_MAX {
        let mut name = path.as_os_str().to_owned();
        name.push(".bak");
        if number > 0 {
            name.push(format!(".{number}"));
        }
        let mut options = OpenOptions::new();
        match options.write(true).create_new(true).mode(mode & 0o777).open(&name) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(failed),
            Ok(mut file) => {
                file.write_all(&content).with_context(failed)?;
                file.sync_all().with_context(failed)?;
                return Ok(PathBuf::from(name));
            }
        }
    }
    anyhow::bail!("{BACKUPS_MAX} copies of `{}` exist already", path.display())
}

#[cfg(test)]
mod tests {
    use super::{BACKUPS_MAX, back_up};
    use std::fs;

    #[test]
    fn a_file_has_so_many_copies_and_none_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mcp.json");
        fs::write(&file, "new").unwrap();
        for number in 0..BACKUPS_MAX {
            let end = if number > 0 { format!(".{number}") } else { String::new() };
            fs::write(dir.path().join(format!("mcp.json.bak{end}")), "old").unwrap();
        }
        let fault = back_up(&file).unwrap_err().to_string();
        assert!(fault.starts_with("1000 copies of `"), "{fault}");
        let all: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(all.len(), usize::try_from(BACKUPS_MAX).unwrap() + 1);
        let new = all.iter().filter(|entry| fs::read_to_string(entry.path()).unwrap() == "new");
        assert_eq!(new.count(), 1);
        let last = dir.path().join("mcp.json.bak.999");
        fs::remove_file(&last).unwrap();
        assert_eq!(back_up(&file).unwrap(), last);
    }
}
