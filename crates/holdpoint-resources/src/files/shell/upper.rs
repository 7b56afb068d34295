//! What a command left in the upper folder of an overlay, as what it does to the workspace.
//!
//! Owns the signs of overlayfs: a device 0,0 for what is gone, an attribute for a folder that hides
//! what was there. Source: Documentation/filesystems/overlayfs.rst of Linux.

use crate::files::tree::{FilesLimits, Grounds, Snapshot, Watch, check_depth};
use crate::resource::ResourceFault;
use rustix::fs::lgetxattr;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The attribute that says that a folder hides what was there.
const OPAQUE: &str = "user.overlay.opaque";

/// What a command left.
#[derive(Debug, Default)]
pub(super) struct Upper {
    /// What it touched in the workspace.
    pub(super) watched: BTreeSet<Watch>,
    /// What is there now, by where it belongs.
    pub(super) there: Snapshot,
    /// Whatever was at or below these is gone, unless it is in `there`.
    hidden: BTreeSet<String>,
}

/// Both sides while they are walked.
struct Walk<'a> {
    upper: &'a Path,
    workspace: &'a Path,
    files_max: usize,
    found: Upper,
    entries: Vec<Watch>,
}

// === impl Upper ===

impl Upper {
    /// Reads the folder, in which nothing runs any more.
    pub(super) fn read(
        upper: &Path,
        workspace: &Path,
        limits: FilesLimits,
    ) -> Result<Self, ResourceFault> {
        let files_max = limits.files_max;
        let found = Self::default();
        let mut walk = Walk { upper, workspace, files_max, found, entries: Vec::new() };
        walk.enter(upper)?;
        let Walk { mut found, entries, .. } = walk;
        let roots = [upper.to_owned()];
        let (nodes, _) = Grounds::new(&roots, limits).look(&entries)?;
        for (path, node) in nodes {
            let belongs = belongs(Path::new(&path), upper, workspace)?;
            found.there.insert(belongs, node);
        }
        Ok(found)
    }

    /// What the workspace becomes, where it was `before`.
    pub(super) fn over(&self, before: &Snapshot) -> Snapshot {
        let gone = |path: &str| {
            self.hidden.iter().any(|hidden| {
                let rest = path.strip_prefix(hidden.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
        };
        let left = before.iter().filter(|(path, _)| !gone(path));
        let both = left.chain(&self.there);
        both.map(|(path, node)| (path.clone(), node.clone())).collect()
    }
}

// === impl Walk ===

impl Walk<'_> {
    fn enter(&mut self, folder: &Path) -> Result<(), ResourceFault> {
        let fault = |fault: std::io::Error| ResourceFault::Unavailable(format!("upper: {fault}"));
        for entry in fs::read_dir(folder).map_err(fault)? {
            let path = entry.map_err(fault)?.path();
            self.take(&path, &fs::symlink_metadata(&path).map_err(fault)?)?;
        }
        Ok(())
    }

    fn take(&mut self, path: &Path, meta: &fs::Metadata) -> Result<(), ResourceFault> {
        let belongs = belongs(path, self.upper, self.workspace)?;
        check_depth(&belongs)?;
        let whiteout = meta.file_type().is_char_device() && meta.rdev() == 0;
        let opaque = meta.is_dir() && is_opaque(path);
        let deep = whiteout || opaque || !meta.is_dir();
        if deep {
            self.found.hidden.insert(belongs.clone());
        }
        self.found.watched.insert(Watch { path: belongs, deep });
        if self.found.watched.len() > self.files_max {
            let text = format!("more than {} files", self.files_max);
            return Err(ResourceFault::TooLarge(text));
        }
        if !whiteout {
            let text = path.to_string_lossy().into_owned();
            self.entries.push(Watch { path: text, deep: false });
        }
        if meta.is_dir() {
            self.enter(path)?;
        }
        Ok(())
    }
}

fn is_opaque(path: &Path) -> bool {
    let mut value = [0_u8; 1];
    lgetxattr(path, OPAQUE, &mut value[..]).is_ok() && value == *b"y"
}

/// Where something of the upper folder belongs in the workspace.
fn belongs(path: &Path, upper: &Path, workspace: &Path) -> Result<String, ResourceFault> {
    let below = path.strip_prefix(upper).ok();
    let belongs: Option<PathBuf> = below.map(|below| workspace.join(below));
    let text = belongs.and_then(|path| path.to_str().map(str::to_owned));
    text.ok_or_else(|| ResourceFault::Refused("a name is not UTF-8".to_owned()))
}
