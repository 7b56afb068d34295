//! The files in which SQLite sorts, remembers and notes while statements run.
//!
//! Owns how many bytes they may have together. Must never count what belongs to others.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Most bytes of all such files of this process.
pub(super) const SCRATCH_BYTES_MAX: u64 = 1 << 30;
/// How long statements run between two looks at the files.
const LOOK: Duration = Duration::from_millis(20);
/// Where a process sees what it has open.
const OPEN: &str = "/proc/self/fd";
/// What their names begin with: the kernel's, where a file never had a name, and SQLite's own,
/// which are unlinked at once. No folder shows them.
const NAMES: [&str; 2] = ["#", "etilqs_"];
/// What the kernel says of a file without a name.
const NAMELESS: &str = " (deleted)";

/// Watches the files on behalf of one connection.
#[derive(Debug)]
pub(super) struct Scratch {
    bytes_max: u64,
    looked: Instant,
    full: Arc<AtomicBool>,
}

// === impl Scratch ===

impl Scratch {
    /// Sets `full` once there are more than so many bytes.
    pub(super) fn new(bytes_max: u64, full: Arc<AtomicBool>) -> Self {
        Self { bytes_max, looked: Instant::now(), full }
    }

    /// True if there are too many.
    pub(super) fn is_full(&mut self) -> bool {
        if self.looked.elapsed() >= LOOK {
            self.full.fetch_or(bytes() > self.bytes_max, Ordering::Relaxed);
            self.looked = Instant::now();
        }
        self.full.load(Ordering::Relaxed)
    }
}

/// How many bytes the files have. Nothing, where processes cannot see what they have open.
fn bytes() -> u64 {
    let open = std::fs::read_dir(OPEN).into_iter().flatten().flatten();
    let scratch = open.map(|entry| entry.path()).filter(|path| is_scratch(path));
    let sizes = scratch.filter_map(|path| Some(std::fs::metadata(path).ok()?.len()));
    sizes.fold(0, u64::saturating_add)
}

fn is_scratch(open: &Path) -> bool {
    let file = std::fs::read_link(open).ok();
    let name = file.as_deref().and_then(|file| file.file_name()?.to_str());
    let begins = |name: &str| NAMES.iter().any(|begin| name.starts_with(begin));
    name.is_some_and(|name| begins(name) && name.ends_with(NAMELESS))
}
