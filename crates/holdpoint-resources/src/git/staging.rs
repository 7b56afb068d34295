//! The index where a commit goes past it: what is staged of the files that were committed.
//! Must never change what somebody else staged meanwhile.

use super::Git;
use super::plumbing::Ask;
use crate::resource::ResourceFault;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A file as git knows it: mode and blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Blob {
    pub(super) mode: String,
    pub(super) oid: String,
}

/// What is to be staged in place of what, by path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Staged(pub(super) BTreeMap<String, (Option<Blob>, Option<Blob>)>);

// === impl Staged ===

impl Staged {
    /// The same the other way.
    pub(super) fn inverse(&self) -> Self {
        let swap = |(path, (from, to)): (&String, &(Option<Blob>, Option<Blob>))| {
            (path.clone(), (to.clone(), from.clone()))
        };
        Self(self.0.iter().map(swap).collect())
    }
}

// === impl Git ===

impl Git {
    /// What is staged of these paths. Refuses what is not merged.
    pub(super) async fn staged(
        &self,
        paths: &[&str],
    ) -> Result<BTreeMap<String, Blob>, ResourceFault> {
        let mut found = BTreeMap::new();
        // A command line has room for so many.
        for some in paths.chunks(200) {
            let mut words = vec!["ls-files", "--stage", "-z", "--"];
            words.extend(some);
            let ran = self.git(&words, &Ask::default()).await?;
            for entry in ran.text().split_terminator('\0') {
                let (path, blob, stage) = read_entry(entry).ok_or_else(unreadable)?;
                if stage != "0" {
                    let text = "the index holds a merge that is not resolved";
                    return Err(ResourceFault::Refused(text.to_owned()));
                }
                found.insert(path, blob);
            }
        }
        Ok(found)
    }

    /// Stages what is to be, where still is what was.
    pub(super) async fn stage(&self, staged: &Staged) -> Result<(), ResourceFault> {
        let paths: Vec<&str> = staged.0.keys().map(String::as_str).collect();
        if paths.is_empty() {
            return Ok(());
        }
        let now = self.staged(&paths).await?;
        let mut input = Vec::new();
        for (path, (from, to)) in &staged.0 {
            if now.get(path) != from.as_ref() || from == to {
                continue;
            }
            let line = match (to, from) {
                (Some(Blob { mode, oid }), _) => format!("{mode} {oid}\t{path}"),
                (None, Some(Blob { oid, .. })) => format!("0 {}\t{path}", "0".repeat(oid.len())),
                (None, None) => continue,
            };
            input.extend_from_slice(line.as_bytes());
            input.push(0);
        }
        if input.is_empty() {
            return Ok(());
        }
        let words = ["update-index", "-z", "--replace", "--index-info"];
        self.git(&words, &Ask::input(&input)).await.map(drop)
    }
}

/// Reads `mode oid stage\tpath`.
fn read_entry(entry: &str) -> Option<(String, Blob, &str)> {
    let (head, path) = entry.split_once('\t')?;
    let mut words = head.split(' ');
    let (mode, oid, stage) = (words.next()?, words.next()?, words.next()?);
    let blob = Blob { mode: mode.to_owned(), oid: oid.to_owned() };
    Some((path.to_owned(), blob, stage))
}

pub(super) fn unreadable() -> ResourceFault {
    ResourceFault::Unavailable("git says what cannot be read".to_owned())
}
