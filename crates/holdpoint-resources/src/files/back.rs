//! Putting files back, each only if it still is what the action left.
//!
//! Owns the atomic steps. Must never overwrite or delete what somebody else made: what a step took
//! away is looked at once more, and put back if it was not what was expected.

use super::tree::{BORROWED, Grounds, Node, Snapshot, Spot, glance, same};
use crate::resource::{Conflict, ResourceFault};
use rustix::fd::AsFd;
use rustix::fs::{
    AtFlags, Mode, OFlags, RenameFlags, fchmod, fsync, mkdirat, openat, renameat_with, symlinkat,
    unlinkat,
};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// One path that is to be other than it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) path: String,
    pub(super) now: Option<Node>,
    pub(super) then: Option<Node>,
}

/// What is done and what is kept.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) conflicts: BTreeSet<Conflict>,
}

/// Tells temporary names of one process apart.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Why a step did not happen.
enum Missed {
    Kept(&'static str),
    Fault(Errno),
}

// === impl Missed ===

impl From<Errno> for Missed {
    fn from(fault: Errno) -> Self {
        Self::Fault(fault)
    }
}

/// What to do so that `before` is again what `after` took its place.
pub(super) fn plan(
    grounds: &Grounds<'_>,
    (before, after): (&Snapshot, Option<&Snapshot>),
    now: &Snapshot,
) -> Plan {
    let mut plan = Plan::default();
    let none = Snapshot::new();
    let known = after.unwrap_or(&none);
    let paths: BTreeSet<&String> = before.keys().chain(known.keys()).collect();
    for path in paths {
        let (was, left, is) = (before.get(path), known.get(path), now.get(path));
        let untouched = after.is_some() && same(was, left);
        if untouched || same(is, was) {
            continue;
        }
        let why = match after {
            None => Some("what the action left there was not seen"),
            Some(_) if same(is, left) => None,
            Some(_) => Some("it was changed since"),
        };
        match why {
            Some(why) => plan.keep(path, why),
            None => plan.steps.push(Step {
                path: path.clone(),
                now: is.map(Node::lean),
                then: was.cloned(),
            }),
        }
    }
    if after.is_none() {
        let unknown = now.keys().filter(|path| !before.contains_key(*path));
        for path in unknown {
            plan.keep(path, "whether the action made it was not seen");
        }
    }
    plan.settle(grounds);
    plan.ground(grounds);
    plan
}

// === impl Plan ===

impl Plan {
    /// Does all steps, or as many as can be done, and gives what was kept besides.
    ///
    /// # Errors
    /// When the disk fails; some steps may be done.
    pub(super) fn perform(&self, grounds: &Grounds<'_>) -> Result<Vec<Conflict>, ResourceFault> {
        let (mut kept, mut missed) = (Vec::new(), BTreeSet::new());
        let gone = self.steps.iter().rev().filter(|step| step.clears());
        let made = self.steps.iter().filter(|step| step.then.is_some());
        for (step, clearing) in gone.map(|step| (step, true)).chain(made.map(|step| (step, false)))
        {
            if missed.contains(&step.path) {
                continue;
            }
            match step.perform(grounds, clearing) {
                Ok(()) => {}
                Err(Missed::Kept(why)) => {
                    missed.insert(step.path.clone());
                    kept.push(conflict(&step.path, why));
                }
                Err(Missed::Fault(fault)) => {
                    return Err(ResourceFault::Unavailable(format!("`{}`: {fault}", step.path)));
                }
            }
        }
        Ok(kept)
    }

    /// Gives up what would lie in a folder that is not there.
    fn ground(&mut self, grounds: &Grounds<'_>) {
        let mut made = BTreeSet::new();
        let mut kept = Vec::new();
        self.steps.retain(|step| {
            let folder = Path::new(&step.path).parent().and_then(Path::to_str);
            let there = folder.is_some_and(|folder| made.contains(folder))
                || matches!(grounds.spot(&step.path), Ok(Some(_)));
            match (&step.then, there) {
                (Some(Node::Folder { .. }), true) => {
                    made.insert(step.path.clone());
                }
                (Some(_), false) => kept.push(step.path.clone()),
                (Some(_), true) | (None, _) => {}
            }
            there || step.then.is_none()
        });
        for path in kept {
            self.keep(&path, "its folder is not there any more");
        }
    }

    fn keep(&mut self, path: &str, why: &str) {
        self.conflicts.insert(conflict(path, why));
    }

    /// Gives up folders in which something stays.
    fn settle(&mut self, grounds: &Grounds<'_>) {
        let gone = self.steps.iter().filter(|step| step.then.is_none());
        let mut going: BTreeSet<String> = gone.map(|step| step.path.clone()).collect();
        let mut kept = Vec::new();
        // What lies deepest first.
        for step in self.steps.iter().rev() {
            let folder = matches!(step.now, Some(Node::Folder { .. })) && step.clears();
            if folder && grounds.stranger(&step.path, |path| going.contains(path)) {
                going.remove(&step.path);
                kept.push(step.path.clone());
            }
        }
        self.steps.retain(|step| !kept.contains(&step.path));
        for path in kept {
            self.keep(&path, "something in it is kept");
        }
    }
}

// === impl Step ===

impl Step {
    /// True if what is there has to go before something else can come.
    fn clears(&self) -> bool {
        let both_files = matches!(
            (&self.now, &self.then),
            (Some(Node::File { .. }), Some(Node::File { .. }))
                | (Some(Node::Folder { .. }), Some(Node::Folder { .. }))
        );
        self.now.is_some() && !both_files
    }

    fn perform(&self, grounds: &Grounds<'_>, clearing: bool) -> Result<(), Missed> {
        let spot = match grounds.spot(&self.path) {
            Ok(Some(spot)) => spot,
            Ok(None) => return Err(Missed::Kept("its folder is not there any more")),
            Err(_) => return Err(Missed::Kept("the way to it changed since")),
        };
        match (clearing, &self.now, &self.then) {
            (true, Some(now), _) => clear(&spot, now)?,
            (false, Some(Node::File { .. }), Some(then @ Node::File { .. })) => {
                self.exchange(&spot, then)?;
            }
            (false, Some(Node::Folder { .. }), Some(Node::Folder { mode: Some(mode) })) => {
                let folder = openat(&spot.folder, &*spot.name, folder_flags(), Mode::empty())?;
                fchmod(&folder, Mode::from_raw_mode(*mode))?;
            }
            (false, _, Some(then)) => make(&spot, then)?,
            (_, _, None) | (true, None, _) => {}
        }
        fsync(&spot.folder).map_err(Missed::Fault)
    }

    /// Puts a file in the place of another, unless that is not the expected one.
    fn exchange(&self, spot: &Spot, then: &Node) -> Result<(), Missed> {
        let fresh = fresh_file(spot, then)?;
        let swap = || {
            let (folder, name) = (&spot.folder, &*spot.name);
            renameat_with(folder, &*fresh, folder, name, RenameFlags::EXCHANGE)
        };
        let swapped = swap();
        if let Err(fault) = swapped {
            unlinkat(&spot.folder, &*fresh, AtFlags::empty())?;
            return match fault {
                Errno::NOENT => Err(Missed::Kept("it was deleted since")),
                fault => Err(Missed::Fault(fault)),
            };
        }
        if same(glance(&spot.folder, &fresh)?.as_ref(), self.now.as_ref()) {
            return Ok(unlinkat(&spot.folder, &*fresh, AtFlags::empty())?);
        }
        swap()?;
        unlinkat(&spot.folder, &*fresh, AtFlags::empty())?;
        Err(Missed::Kept("it was changed since"))
    }
}

/// Takes away what is there, unless it is not the expected.
fn clear(spot: &Spot, now: &Node) -> Result<(), Missed> {
    let (folder, name) = (&spot.folder, &*spot.name);
    if let Node::Folder { .. } = now {
        return match unlinkat(folder, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Err(Missed::Kept("something in it is kept")),
            Err(Errno::NOTDIR) => Err(Missed::Kept("it was changed since")),
            Err(fault) => Err(Missed::Fault(fault)),
        };
    }
    let aside = fresh_name();
    match renameat_with(folder, name, folder, &*aside, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        Err(Errno::NOENT) => return Ok(()),
        Err(fault) => return Err(Missed::Fault(fault)),
    }
    if same(glance(folder, &aside)?.as_ref(), Some(now)) {
        return Ok(unlinkat(folder, &*aside, AtFlags::empty())?);
    }
    renameat_with(folder, &*aside, folder, name, RenameFlags::NOREPLACE)?;
    Err(Missed::Kept("it was changed since"))
}

/// Makes what was there, unless something is there now.
fn make(spot: &Spot, then: &Node) -> Result<(), Missed> {
    const TAKEN: Missed = Missed::Kept("something else is there now");
    let (folder, name) = (&spot.folder, &*spot.name);
    let fresh = match then {
        Node::Folder { mode } => {
            match mkdirat(folder, name, Mode::RWXU) {
                Ok(()) => {}
                Err(Errno::EXIST) => return Err(TAKEN),
                Err(fault) => return Err(Missed::Fault(fault)),
            }
            let made = openat(folder, name, folder_flags(), Mode::empty())?;
            fchmod(&made, Mode::from_raw_mode(mode.unwrap_or(0o755)))?;
            return Ok(());
        }
        Node::File { .. } => fresh_file(spot, then)?,
        Node::Link { target } => {
            let fresh = fresh_name();
            symlinkat(target, folder, &*fresh)?;
            fresh
        }
    };
    match renameat_with(folder, &*fresh, folder, name, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(fault) => {
            unlinkat(folder, &*fresh, AtFlags::empty())?;
            Err(if fault == Errno::EXIST { TAKEN } else { Missed::Fault(fault) })
        }
    }
}

/// A durable file beside the place where it belongs, under a name of its own.
fn fresh_file(spot: &Spot, then: &Node) -> Result<String, Missed> {
    let Node::File { content: Some(content), mode, .. } = then else {
        return Err(Missed::Kept("its contents were not kept"));
    };
    let fresh = fresh_name();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(&spot.folder, &*fresh, flags, Mode::RUSR | Mode::WUSR)?;
    let written = write(File::from(file), content, mode.unwrap_or(0o644));
    if let Err(fault) = written {
        unlinkat(&spot.folder, &*fresh, AtFlags::empty())?;
        return Err(Missed::Fault(Errno::from_io_error(&fault).unwrap_or(Errno::IO)));
    }
    Ok(fresh)
}

fn write(mut file: File, content: &[u8], mode: u32) -> std::io::Result<()> {
    file.write_all(content)?;
    // What is made here is ours: it must not lend our rights to whoever runs it.
    fchmod(file.as_fd(), Mode::from_raw_mode(mode & !BORROWED))?;
    file.sync_all()
}

fn fresh_name() -> String {
    let at = NEXT.fetch_add(1, Ordering::Relaxed);
    format!(".holdpoint-{}-{at}", std::process::id())
}

fn folder_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn conflict(path: &str, why: &str) -> Conflict {
    Conflict { resource: format!("file://{path}"), why: why.to_owned() }
}
