//! Offline verification of a whole log: entries and signed checkpoints in, a verdict with a place
//! out.
//!
//! Must not read where entries are stored, and needs nothing but the public key.

use crate::checkpoint::{Checkpoint, open_checkpoint};
use crate::encoding::{EncodingFault, decode};
use crate::merkle::{Frontier, leaf_hash};
use crate::note::{NoteFault, Verifier};
use holdpoint_types::{Digest, Record, Timestamp};
use std::collections::VecDeque;

/// One stored entry.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its position in the log, from 0.
    pub seq: u64,
    /// The leaf hash that was stored with it.
    pub leaf: Digest,
    /// The bytes of its record.
    pub bytes: &'a [u8],
}

/// A log in which nothing was found wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// How many records it has.
    pub records: u64,
    /// The root of its tree.
    pub root: Digest,
    /// How many signed checkpoints it was compared with.
    pub checkpoints: u64,
}

/// What is wrong with a log, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogFault {
    /// The bytes of an entry are not those that its hash was made of.
    #[error("record {seq} was altered: its bytes do not fit its hash")]
    Altered {
        /// Which entry.
        seq: u64,
    },
    /// Entries are not there.
    #[error("records {from} to {to} are missing")]
    Missing {
        /// The first missing entry.
        from: u64,
        /// The last missing entry.
        to: u64,
    },
    /// An entry stands where another one was expected.
    #[error("record {found} stands where record {expected} is expected: inserted or reordered")]
    OutOfOrder {
        /// The position that was due.
        expected: u64,
        /// The position that the entry claims.
        found: u64,
    },
    /// An entry whose hash fits, but that holds no record.
    #[error("record {seq} cannot be read: {fault}")]
    Unreadable {
        /// Which entry.
        seq: u64,
        /// Why.
        fault: EncodingFault,
    },
    /// A record is older than the one before it.
    #[error("record {seq} is older than the one before it: reordered")]
    TimeWentBack {
        /// Which entry.
        seq: u64,
    },
    /// Entries between two checkpoints are not those that were signed.
    #[error(
        "records {from} to {to} are not what the checkpoint of {} records signed: altered, \
         inserted or reordered",
        to + 1
    )]
    Differs {
        /// The first entry that no good checkpoint covers.
        from: u64,
        /// The last entry that the broken checkpoint covers.
        to: u64,
    },
    /// The log ends before a checkpoint that was signed.
    #[error(
        "the log has {records} records, but {promised} were signed: some are missing at the end, \
         or anywhere after the first {sound}"
    )]
    Truncated {
        /// How many of its first records a good checkpoint covers.
        sound: u64,
        /// How many there are.
        records: u64,
        /// How many there were.
        promised: u64,
    },
    /// Entries after the last checkpoint.
    #[error("records {from} to {to} are not covered by any checkpoint: inserted")]
    Unsigned {
        /// The first of them.
        from: u64,
        /// The last of them.
        to: u64,
    },
    /// A checkpoint that the key did not sign.
    #[error("checkpoint {number} is forged or damaged: {fault}")]
    Forged {
        /// Which one, from 0, in the order they were given.
        number: u64,
        /// Why it does not open.
        fault: NoteFault,
    },
    /// Checkpoints out of order, or two different ones of the same size.
    #[error("checkpoint {number} contradicts the one before it")]
    Contradiction {
        /// Which one, from 0, in the order they were given.
        number: u64,
    },
}

/// Checks a log that is fed to it: first its checkpoints, by size, then its entries, in order.
#[derive(Debug)]
pub struct LogVerifier {
    key: Verifier,
    frontier: Frontier,
    last_at: Option<Timestamp>,
    /// Entries before this one are covered by a good checkpoint.
    covered: u64,
    checked: u64,
    given: u64,
    due: VecDeque<Checkpoint>,
}

// === impl LogVerifier ===

impl LogVerifier {
    /// A verifier of the log whose checkpoints `key` signs.
    pub fn new(key: Verifier) -> Self {
        let due = VecDeque::new();
        let frontier = Frontier::default();
        Self { key, frontier, last_at: None, covered: 0, checked: 0, given: 0, due }
    }

    /// Adds a checkpoint that the log must fit. Give all of them, smallest first, before the
    /// entries.
    ///
    /// # Errors
    /// When it is forged, smaller than the one before, or contradicts it.
    pub fn checkpoint(&mut self, note: &str) -> Result<(), LogFault> {
        let number = self.given;
        self.given += 1;
        let opened = open_checkpoint(note, &self.key);
        let checkpoint = opened.map_err(|fault| LogFault::Forged { number, fault })?;
        let fits = match self.due.back() {
            Some(last) if last.size == checkpoint.size => last.root == checkpoint.root,
            Some(last) => last.size < checkpoint.size,
            None => self.frontier.size() <= checkpoint.size,
        };
        if !fits {
            return Err(LogFault::Contradiction { number });
        }
        self.due.push_back(checkpoint);
        self.compare()
    }

    /// Adds the next entry; gives its record back.
    ///
    /// # Errors
    /// When it is not the entry that was written there.
    pub fn entry(&mut self, entry: Entry<'_>) -> Result<Record, LogFault> {
        let expected = self.frontier.size();
        let seq = entry.seq;
        if seq > expected {
            return Err(LogFault::Missing { from: expected, to: seq - 1 });
        }
        if seq < expected {
            return Err(LogFault::OutOfOrder { expected, found: seq });
        }
        if leaf_hash(entry.bytes) != entry.leaf {
            return Err(LogFault::Altered { seq });
        }
        let record = decode(entry.bytes);
        let record = record.map_err(|fault| LogFault::Unreadable { seq, fault })?;
        if self.last_at.is_some_and(|last| record.at_ms < last) {
            return Err(LogFault::TimeWentBack { seq });
        }
        self.last_at = Some(record.at_ms);
        self.frontier.push(entry.leaf);
        self.compare()?;
        Ok(record)
    }

    /// Ends the log.
    ///
    /// # Errors
    /// When a checkpoint promises more entries, or entries follow the last checkpoint.
    pub fn finish(self) -> Result<Verified, LogFault> {
        let records = self.frontier.size();
        if let Some(last) = self.due.back() {
            let (sound, promised) = (self.covered, last.size);
            return Err(LogFault::Truncated { sound, records, promised });
        }
        if self.covered < records {
            return Err(LogFault::Unsigned { from: self.covered, to: records - 1 });
        }
        Ok(Verified { records, root: self.frontier.root(), checkpoints: self.checked })
    }

    /// The edge of the tree so far.
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// Compares the tree with every checkpoint of exactly this size.
    fn compare(&mut self) -> Result<(), LogFault> {
        let size = self.frontier.size();
        while self.due.front().is_some_and(|due| due.size == size) {
            let Some(due) = self.due.pop_front() else { break };
            if due.root != self.frontier.root() {
                let from = self.covered;
                return Err(LogFault::Differs { from, to: size.saturating_sub(1) });
            }
            self.covered = size;
            self.checked += 1;
        }
        Ok(())
    }
}
