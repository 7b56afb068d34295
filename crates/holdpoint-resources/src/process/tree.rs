//! Finding and signalling a process and its descendants.
//!
//! On Linux through `/proc`: the group, the children's children, and whoever carries the mark that
//! its environment inherited, so that a daemon which left group and parents is found too. Elsewhere
//! only the group. Must never signal a process that merely got a recycled id.

use rustix::process::{Pid, Signal, kill_process_group};
#[cfg(target_os = "linux")]
use std::collections::BTreeMap;

/// The environment variable that marks a child and all that inherit from it.
pub(super) const MARK: &str = "HOLDPOINT_CHILD";

/// A started child as the root of a tree.
#[derive(Debug)]
pub(super) struct Tree {
    root: u32,
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only /proc shows marks"))]
    mark: String,
    /// Members seen so far: process id to start time.
    #[cfg(target_os = "linux")]
    seen: BTreeMap<u32, u64>,
}

/// What `/proc/<id>/stat` says.
#[cfg(target_os = "linux")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    alive: bool,
    parent: u32,
    group: u32,
    started: u64,
}

// === impl Tree ===

impl Tree {
    pub(super) fn new(root: u32, mark: String) -> Self {
        Self {
            root,
            mark,
            #[cfg(target_os = "linux")]
            seen: BTreeMap::new(),
        }
    }

    pub(super) fn root(&self) -> u32 {
        self.root
    }

    /// Asks the group to end.
    pub(super) fn ask(&self) {
        self.signal_group(Signal::TERM);
    }

    fn signal_group(&self, signal: Signal) {
        let group = i32::try_from(self.root).ok().and_then(Pid::from_raw);
        if let Some(group) = group {
            // The only likely error is that nobody is left.
            let _ = kill_process_group(group, signal);
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Tree {
    /// Looks for members: nothing to see without `/proc`.
    pub(super) fn look(&mut self) {}

    /// Kills the group; nobody can be counted.
    pub(super) fn kill(&mut self, _root_ended: bool) -> usize {
        self.signal_group(Signal::KILL);
        0
    }
}

#[cfg(target_os = "linux")]
impl Tree {
    /// Remembers every member that can be seen now.
    pub(super) fn look(&mut self) {
        let all = snapshot();
        let marked = format!("{MARK}={}", self.mark);
        if let Some(root) = all.get(&self.root) {
            self.seen.entry(self.root).or_insert(root.started);
        }
        // After the root's death its id may belong to a stranger, and so may the group.
        let root = all.get(&self.root).map(|root| root.started);
        let own = root.is_none() || root == self.seen.get(&self.root).copied();
        for (&id, stat) in &all {
            let grouped = own && stat.group == self.root;
            if stat.alive && (grouped || carries(id, &marked)) {
                self.seen.entry(id).or_insert(stat.started);
            }
        }
        // Children of members are members; their children are found in the next round.
        loop {
            let before = self.seen.len();
            for (&id, stat) in &all {
                let parent = all.get(&stat.parent).map(|parent| parent.started);
                let kin = parent.is_some() && self.seen.get(&stat.parent).copied() == parent;
                if stat.alive && kin {
                    self.seen.entry(id).or_insert(stat.started);
                }
            }
            if self.seen.len() == before {
                return;
            }
        }
    }

    /// Kills everybody seen, and whoever they started meanwhile; returns how many were alive. Call
    /// it until nobody is.
    pub(super) fn kill(&mut self, root_ended: bool) -> usize {
        if !root_ended {
            self.signal_group(Signal::KILL);
        }
        self.look();
        self.kill_seen()
    }

    /// Signals every living member; returns how many there were.
    fn kill_seen(&mut self) -> usize {
        // INVARIANT: only a process with the start time that was seen is signalled.
        let same =
            |id: u32, started| stat(id).is_some_and(|now| now.alive && now.started == started);
        self.seen.retain(|&id, started| same(id, *started));
        for &id in self.seen.keys() {
            let id = i32::try_from(id).ok().and_then(Pid::from_raw);
            if let Some(id) = id {
                let _ = rustix::process::kill_process(id, Signal::KILL);
            }
        }
        self.seen.len()
    }
}

/// Every process that can be seen.
#[cfg(target_os = "linux")]
fn snapshot() -> BTreeMap<u32, Stat> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter_map(|id| Some((id, stat(id)?))).collect()
}

#[cfg(target_os = "linux")]
fn stat(id: u32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
}

/// Reads `id (name) state parent group …` (proc_pid_stat(5)); the name may hold anything.
#[cfg(target_os = "linux")]
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Stat {
        alive: !matches!(*fields.first()?, "Z" | "X" | "x"),
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(target_os = "linux")]
fn carries(id: u32, marked: &str) -> bool {
    let Ok(environment) = std::fs::read(format!("/proc/{id}/environ")) else { return false };
    environment.split(|&byte| byte == 0).any(|entry| entry == marked.as_bytes())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::{Stat, parse_stat, stat};

    #[test]
    fn names_cannot_confuse_the_reader() {
        let text = "42 (a) b) (c) Z 7 9 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 777 0 0";
        let expected = Stat { alive: false, parent: 7, group: 9, started: 777 };
        assert_eq!(parse_stat(text), Some(expected));
        for text in ["", "1 (x)", "1 (x) S", "1 (x) S a b", "nothing"] {
            assert_eq!(parse_stat(text), None, "{text}");
        }
    }

    #[test]
    fn this_process_can_be_seen() {
        let own = stat(std::process::id()).unwrap();
        assert!(own.alive && own.started > 0);
    }
}
