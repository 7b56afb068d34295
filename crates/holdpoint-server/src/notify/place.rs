//! How far somebody was told, in a file of the store, and which approvals they wait to hear the end
//! of. One process at a time has it.
//!
//! INVARIANT: what is written down was told. Must not tell anything itself.

use crate::policies::replace_file;
use crate::store::{ApprovalRow, Store, StoreFault};
use holdpoint_types::{ActionId, ApprovalAsked, ApprovalRecord, OperatorName, Timestamp};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Most approvals whose end is waited for.
const OPEN_MAX: usize = 10_000;
/// Most records that are passed over without writing down that there was nothing to tell.
const UNWRITTEN_MAX: u64 = 10_000;

/// How far somebody was told.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    kept: Kept,
    /// The position that the file holds.
    written: u64,
    _lock: File,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// The position of the first record that is still to be looked at.
    next: u64,
    /// What was asked for and has neither come nor ended.
    open: BTreeMap<ActionId, Open>,
}

/// An approval that was asked for and has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Open {
    expires_ms: Timestamp,
    needs: BTreeMap<String, u32>,
    given: BTreeMap<String, BTreeSet<OperatorName>>,
}

// === impl Place ===

impl Place {
    /// The place of `name`; `None` while another process has it. Who is told for the first time is
    /// told of what comes from now on.
    pub(super) fn take(
        store: &Store,
        name: &str,
        now: Timestamp,
    ) -> Result<Option<Self>, StoreFault> {
        let folder = store.dir().join("notify");
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| StoreFault::file(&folder, &error))?;
        let Some(lock) = lock(&folder.join(format!("{name}.lock")))? else { return Ok(None) };
        let path = folder.join(format!("{name}.json"));
        let fault = |error: io::Error| StoreFault::file(&path, &error);
        let kept = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| fault(error.into()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::new(store, now)?,
            Err(error) => return Err(fault(error)),
        };
        let mut place = Self { path, written: kept.next, kept, _lock: lock };
        place.keep()?;
        Ok(Some(place))
    }

    /// The position of the first record that is still to be looked at.
    pub(super) fn next(&self) -> u64 {
        self.kept.next
    }

    /// Everything before `next` was told.
    pub(super) fn told(&mut self, next: u64) -> Result<(), StoreFault> {
        self.kept.next = next;
        self.keep()
    }

    /// There is nothing to be told before `next`.
    pub(super) fn pass(&mut self, next: u64) -> Result<(), StoreFault> {
        self.kept.next = next;
        if next.abs_diff(self.written) > UNWRITTEN_MAX { self.keep() } else { Ok(()) }
    }

    /// Waits for the end of what was `asked`.
    pub(super) fn open(&mut self, asked: &ApprovalAsked) {
        if self.kept.open.len() < OPEN_MAX {
            self.kept.open.entry(asked.id).or_insert_with(|| Open::new(asked));
        }
    }

    /// Hears a yes; how many more are needed.
    pub(super) fn hear(&mut self, said: &ApprovalRecord) -> u64 {
        self.kept.open.get_mut(&said.approval).map_or(0, |open| open.hear(said))
    }

    /// What was asked for as `id` has been decided.
    pub(super) fn close(&mut self, id: ActionId) {
        self.kept.open.remove(&id);
    }

    /// What had ended by `now`, the first one first.
    pub(super) fn ended(&self, now: Timestamp) -> Vec<(Timestamp, ActionId)> {
        let ended = self.kept.open.iter().filter(|(_, open)| open.expires_ms <= now);
        let mut ended: Vec<_> = ended.map(|(id, open)| (open.expires_ms, *id)).collect();
        ended.sort();
        ended
    }

    /// It was told that `id` ended.
    pub(super) fn told_end(&mut self, id: ActionId) -> Result<(), StoreFault> {
        self.close(id);
        self.keep()
    }

    fn keep(&mut self) -> Result<(), StoreFault> {
        let fault = |error: io::Error| StoreFault::file(&self.path, &error);
        let bytes = serde_json::to_vec(&self.kept).map_err(|error| fault(error.into()))?;
        replace_file(&self.path, &bytes).map_err(fault)?;
        self.written = self.kept.next;
        Ok(())
    }
}

// === impl Kept ===

impl Kept {
    /// Begins now, with what waits already.
    fn new(store: &Store, now: Timestamp) -> Result<Self, StoreFault> {
        // Whatever is recorded in between is heard twice, which changes nothing.
        let next = store.size()?;
        let rows = store.approvals()?.into_iter();
        let waits = |row: &ApprovalRow| {
            let over = row.facts.asked.expires_ms <= now || row.facts.is_whole(now);
            row.facts.denied.is_none() && !over
        };
        let open = rows.filter(waits).take(OPEN_MAX).map(|row| {
            let open = Open { given: row.facts.given, ..Open::new(&row.facts.asked) };
            (row.facts.asked.id, open)
        });
        Ok(Self { next, open: open.collect() })
    }
}

// === impl Open ===

impl Open {
    fn new(asked: &ApprovalAsked) -> Self {
        let (expires_ms, needs) = (asked.expires_ms, asked.needs.clone());
        Self { expires_ms, needs, given: BTreeMap::new() }
    }

    fn hear(&mut self, said: &ApprovalRecord) -> u64 {
        for name in &said.counts_for {
            self.given.entry(name.clone()).or_default().insert(said.by.clone());
        }
        let missing = self.needs.iter().map(|(name, wanted)| {
            let given = self.given.get(name).map_or(0, BTreeSet::len);
            u64::from(*wanted).saturating_sub(u64::try_from(given).unwrap_or(u64::MAX))
        });
        missing.sum()
    }
}

/// The lock at `path`, unless another process has it. The file stays: who takes it away may take it
/// from somebody who has just locked it.
fn lock(path: &Path) -> Result<Option<File>, StoreFault> {
    let mut how = OpenOptions::new();
    how.create(true).truncate(false).write(true).mode(0o600);
    let file = how.open(path).map_err(|error| StoreFault::file(path, &error))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(StoreFault::file(path, &error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::Place;
    use crate::store::{Access, Store, StoreOptions};
    use holdpoint_types::{ActionId, ApprovalAsked, ApprovalRecord, Digest, GatewayId, Timestamp};

    fn store(dir: &std::path::Path) -> Store {
        let gateway = GatewayId::new(Timestamp(1_000), [1; 10]);
        Store::open(dir, StoreOptions::new(gateway, Access::Govern)).unwrap()
    }

    fn asked(number: u16) -> ApprovalAsked {
        let [high, low] = number.to_be_bytes();
        ApprovalAsked {
            id: ActionId::new(Timestamp(1_000), [0, 0, 0, 0, 0, 0, 0, 0, high, low]),
            binding: Digest::of(b""),
            needs: [("owner".to_owned(), 2)].into(),
            expires_ms: Timestamp(i64::from(number)),
            requester: None,
            instead_of: None,
        }
    }

    fn said(asked: &ApprovalAsked, by: &str) -> ApprovalRecord {
        ApprovalRecord {
            approval: asked.id,
            binding: asked.binding,
            agent: "coder".parse().unwrap(),
            counts_for: ["owner".to_owned()].into(),
            by: by.parse().unwrap(),
            because: "fine".to_owned(),
            way: "link".to_owned(),
        }
    }

    #[test]
    fn a_place_is_one_process_s_and_outlives_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let take = || Place::take(&store, "chat", Timestamp(0)).unwrap();
        let mut place = take().unwrap();
        assert!(take().is_none());
        assert_eq!(place.next(), 0);
        place.open(&asked(5));
        assert_eq!(place.hear(&said(&asked(5), "ada")), 1);
        // The same person twice is one person.
        assert_eq!(place.hear(&said(&asked(5), "ada")), 1);
        place.told(7).unwrap();
        drop(place);
        let mut place = take().unwrap();
        assert_eq!(place.next(), 7);
        assert_eq!(place.hear(&said(&asked(5), "bob")), 0);
        assert_eq!(place.ended(Timestamp(4)), []);
        assert_eq!(place.ended(Timestamp(5)), [(Timestamp(5), asked(5).id)]);
        place.told_end(asked(5).id).unwrap();
        drop(place);
        assert_eq!(take().unwrap().ended(Timestamp(5)), []);
        std::fs::write(dir.path().join("notify/chat.json"), "{").unwrap();
        assert!(Place::take(&store, "chat", Timestamp(0)).is_err());
    }

    #[test]
    fn whose_end_is_waited_for_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let take = || Place::take(&store, "chat", Timestamp(0)).unwrap().unwrap();
        let mut place = take();
        for number in 0..10_001 {
            place.open(&asked(number));
        }
        assert_eq!(place.ended(Timestamp(20_000)).len(), 10_000);
        // What was passed over is written down now and then.
        place.pass(10_000).unwrap();
        drop(place);
        let mut place = take();
        assert_eq!(place.next(), 0);
        place.pass(10_001).unwrap();
        drop(place);
        assert_eq!(take().next(), 10_001);
    }
}
