//! Where a call runs: the host, the folder, the workspace, and what the operator said of them.
//!
//! Owns how a path becomes an address. It must never look at a disk: links are not followed.

use crate::files;
use crate::http::HttpRules;
use crate::kept::Keep;
use crate::words::{Arg, UNKNOWN};
use crate::{Effects, NoteCode};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Where a call runs.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The host, if it is not the agent's own.
    pub host: Option<String>,
    /// The folder in which it runs, as an absolute path.
    pub cwd: Option<String>,
    /// The home folder of whom it runs as.
    pub home: Option<String>,
    /// The folder that the agent may change.
    pub workspace: Option<String>,
    /// The name of the repository that it works on.
    pub repository: Option<String>,
    /// Branches that nobody pushes to or rewrites without more than a grant.
    pub protected_branches: BTreeSet<String>,
    /// What is known of the hosts that requests go to.
    pub http: HttpRules,
    /// Code that must stay in its files.
    pub keeps: Arc<Vec<Keep>>,
}

/// A place at one point of a text: the folder and the host may have changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot<'a> {
    pub(crate) place: &'a Place,
    pub(crate) host: Option<&'a str>,
    pub(crate) cwd: Option<&'a str>,
}

/// What is done to a file or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Read,
    Create,
    /// Written anew, with this text where it is known.
    Write(Option<Arg>),
    /// Added to.
    Append(Option<Arg>),
    /// Changed, moved or marked, in ways that do not replace its text.
    Update,
    Delete,
    /// Deleted with everything in it.
    DeleteTree,
    /// May be replaced by another file.
    Replace,
    /// Others may do more with it.
    Grant,
}

/// A path as far as it is known.
pub(crate) struct Path {
    /// Normalised and absolute; what is not known is `*`.
    pub(crate) text: String,
    /// False if not even the folder is known.
    pub(crate) rooted: bool,
    /// True if a part of it is not known or a pattern.
    pub(crate) bounded: bool,
}

// === impl Place ===

impl Place {
    pub(crate) fn spot(&self) -> Spot<'_> {
        Spot { place: self, host: self.host.as_deref(), cwd: self.cwd.as_deref() }
    }
}

// === impl Spot ===

impl Spot<'_> {
    /// Adds what `act` on `file` is, and what is wrong with it.
    pub(crate) fn touch(&self, act: Act, file: &Arg, evidence: &str, effects: &mut Effects) {
        files::touch(self, act, file, evidence, effects);
    }

    /// The path that `file` names here.
    pub(crate) fn path(&self, file: &Arg) -> Path {
        let bounded = file.is_unknown() || file.glob;
        let relative = !file.text.starts_with('/');
        if file.starts_unknown() || relative && self.cwd.is_none() {
            return Path { text: file.shown(), rooted: false, bounded };
        }
        let text = match self.cwd {
            Some(cwd) if relative => format!("{cwd}/{}", file.text),
            _ => file.text.clone(),
        };
        Path { text: normalise(&text), rooted: true, bounded }
    }

    /// `file:///path`, with the host if it is another one.
    pub(crate) fn address(&self, path: &Path) -> String {
        let host = self.host.unwrap_or_default();
        match path.rooted {
            true => format!("file://{host}{}", path.text),
            false => format!("file://{host}/*"),
        }
    }

    /// The path inside of the workspace, if it lies there.
    pub(crate) fn in_workspace<'p>(&self, path: &'p Path) -> Option<&'p str> {
        let workspace = self.place.workspace.as_deref()?.trim_end_matches('/');
        let rest = path.text.strip_prefix(workspace).filter(|_| path.rooted)?;
        (self.host == self.place.host.as_deref() && (rest.is_empty() || rest.starts_with('/')))
            .then(|| rest.trim_start_matches('/'))
    }

    /// Notes that something outside of the workspace is changed.
    pub(crate) fn note_outside(&self, path: &Path, effects: &mut Effects) {
        let temporary = path.text.starts_with("/tmp/") || path.text.starts_with("/var/tmp/");
        let unset = self.place.workspace.is_none() && self.host == self.place.host.as_deref();
        if !temporary && !unset && self.in_workspace(path).is_none() {
            effects.note(NoteCode::OutsideWorkspace, path.text.clone());
        }
    }
}

/// An absolute path without `.`, `..` and doubled slashes; unknown parts become `*`.
pub(crate) fn normalise(path: &str) -> String {
    let mut done = String::with_capacity(path.len() + 1);
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => done.truncate(done.rfind('/').unwrap_or_default()),
            part => {
                done.push('/');
                done.extend(part.chars().map(|c| if c == UNKNOWN { '*' } else { c }));
            }
        }
    }
    if done.is_empty() {
        done.push('/');
    }
    done
}

#[cfg(test)]
mod tests {
    use super::normalise;

    #[test]
    fn traversal_ends_at_the_root() {
        assert_eq!(normalise("/srv/app/../../../etc//./passwd"), "/etc/passwd");
        assert_eq!(normalise("/.."), "/");
        assert_eq!(normalise(""), "/");
    }
}
