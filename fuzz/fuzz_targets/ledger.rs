//! The ledger's formats: what decodes is the only encoding of it, no note opens that was not
//! signed, no proof proves what is not so, and no change to a log stays unseen. The first byte says
//! which. Must never read a disk.

#![no_main]

use holdpoint_ledger::{
    Entry, Frontier, LogFault, LogVerifier, Signer, Verified, Verifier, consistency_proof, decode,
    encode, inclusion_proof, leaf_hash, open_checkpoint, open_note, sign_checkpoint,
    verify_consistency, verify_inclusion,
};
use holdpoint_types::{AgentName, Digest, GatewayId, Record, RecordBody, Timestamp};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// The log that is tampered with.
static LOG: LazyLock<Log> = LazyLock::new(|| Log::new(12, 4));
static SIGNER: LazyLock<Signer> = LazyLock::new(|| {
    Signer::new("holdpoint.test/log", &[7; 32]).expect("the name is allowed in notes")
});

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 6 {
        0 => record(rest),
        1 => note(rest),
        2 => key(rest),
        3 => frontier(rest),
        4 => proofs(rest),
        _ => tampered(rest),
    }
});

/// Bytes that hold a record are its only encoding.
fn record(data: &[u8]) {
    let Ok(record) = decode(data) else { return };
    let again = encode(&record).expect("what was decoded can be encoded");
    assert_eq!(again, data);
}

/// A note opens only if the key signed this very text.
fn note(data: &[u8]) {
    let Ok(note) = std::str::from_utf8(data) else { return };
    let verifier = SIGNER.verifier();
    if let Ok(text) = open_note(note, &verifier) {
        assert!(LOG.signed(text), "a forged note opens: {text:?}");
    }
    if let Ok(checkpoint) = open_checkpoint(note, &verifier) {
        let honest = LOG
            .heads
            .iter()
            .any(|(size, root)| (checkpoint.size, checkpoint.root) == (*size, *root));
        assert!(honest && checkpoint.origin == verifier.name(), "a forged checkpoint opens");
    }
}

/// A key has one text.
fn key(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(verifier) = text.parse::<Verifier>() else { return };
    assert_eq!(verifier.to_string(), text);
    for note in &LOG.checkpoints {
        let ours = verifier == SIGNER.verifier();
        assert_eq!(open_note(note, &verifier).is_ok(), ours, "another key opens the note");
    }
}

/// The stored edge of a tree has one form, and the tree goes on growing from it.
fn frontier(data: &[u8]) {
    let Ok(mut frontier) = Frontier::from_bytes(data) else { return };
    assert_eq!(frontier.to_bytes(), data);
    let (size, root) = (frontier.size(), frontier.root());
    frontier.push(leaf_hash(b"next"));
    assert_eq!(frontier.size(), size + 1);
    assert_ne!(frontier.root(), root);
    let again = Frontier::from_bytes(&frontier.to_bytes()).ok();
    assert!(again.is_none_or(|again| again == frontier));
}

/// Right proofs prove, and no other proof does.
fn proofs(data: &[u8]) {
    let [size, old, index, place, flip, proof @ ..] = data else { return };
    let size = u64::from(*size % 70);
    let leaves: Vec<_> = (0..size).map(|number| leaf_hash(&number.to_be_bytes())).collect();
    let root = root_of(&leaves);
    let (hashes, _) = proof.as_chunks::<32>();
    let given: Vec<_> = hashes.iter().map(|hash| Digest::from_bytes(*hash)).collect();
    let index = u64::from(*index);
    let right = inclusion_proof(&leaves, index);
    assert_eq!(right.is_some(), index < size);
    if let Some(right) = right {
        let leaf = leaf_hash(&index.to_be_bytes());
        assert_eq!(verify_inclusion(leaf, (index, size), &right, root), Ok(()));
        for wrong in wrongs(&right, (*place, *flip), &given) {
            assert!(verify_inclusion(leaf, (index, size), &wrong, root).is_err());
        }
        let other = leaf_hash(data);
        assert!(other == leaf || verify_inclusion(other, (index, size), &right, root).is_err());
    }
    let old = u64::from(*old);
    let right = consistency_proof(&leaves, old);
    assert_eq!(right.is_some(), old <= size);
    if let Some(right) = right {
        let old_root = root_of(leaves.get(..usize::from(data[1])).unwrap_or_default());
        let (old, new) = ((old, old_root), (size, root));
        assert_eq!(verify_consistency(old, new, &right), Ok(()));
        for wrong in wrongs(&right, (*place, *flip), &given) {
            assert!(verify_consistency(old, new, &wrong).is_err());
        }
        let other = (old.0, leaf_hash(data));
        assert!(old.0 == 0 || verify_consistency(other, new, &right).is_err());
    }
}

/// Proofs that differ from the right one.
fn wrongs(right: &[Digest], (place, flip): (u8, u8), given: &[Digest]) -> Vec<Vec<Digest>> {
    let mut flipped = right.to_vec();
    if let Some(hash) = flipped.get_mut(usize::from(place) % right.len().max(1)) {
        let mut bytes = *hash.as_bytes();
        bytes[usize::from(place) % 32] ^= flip;
        *hash = Digest::from_bytes(bytes);
    }
    let mut longer = right.to_vec();
    longer.push(leaf_hash(&[flip]));
    let shorter = right.get(1..).unwrap_or_default().to_vec();
    let all = [flipped, longer, shorter, given.to_vec()];
    all.into_iter().filter(|wrong| wrong != right).collect()
}

/// A log that was changed in any way does not verify.
fn tampered(script: &[u8]) {
    let mut log = LOG.clone();
    for change in script.chunks_exact(3).take(8) {
        log.change(change[0], usize::from(change[1]), change[2]);
    }
    let verified = log.verify();
    if log.entries == LOG.entries && log.checkpoints == LOG.checkpoints {
        assert_eq!(verified.expect("a sound log verifies").records, 12);
        return;
    }
    let Ok(verified) = verified else { return };
    // What still verifies is a shorter or less often signed log, every record of it as it was.
    let records = usize::try_from(verified.records).expect("a small log");
    assert_eq!(log.entries, LOG.entries[..records], "a change stayed unseen");
    assert!(records == 0 || log.checkpoints.last() == LOG.checkpoints.get(records / 4 - 1));
}

#[derive(Clone)]
struct Log {
    entries: Vec<(u64, Digest, Vec<u8>)>,
    checkpoints: Vec<String>,
    /// Size and root at each checkpoint.
    heads: Vec<(u64, Digest)>,
}

impl Log {
    /// A log of `size` records with a checkpoint after each `every`.
    fn new(size: u64, every: u64) -> Self {
        let mut frontier = Frontier::default();
        let mut log = Self { entries: Vec::new(), checkpoints: Vec::new(), heads: Vec::new() };
        for seq in 0..size {
            let agent: AgentName = format!("agent-{seq}").parse().expect("a name");
            let gateway = GatewayId::new(Timestamp(0), [0; 10]);
            let body = RecordBody::KeysRevoked { agent, by: "ana".into() };
            let at_ms = Timestamp(1_000 + i64::try_from(seq / 3).expect("small"));
            let bytes = encode(&Record { at_ms, gateway, body }).expect("a record");
            let leaf = leaf_hash(&bytes);
            frontier.push(leaf);
            log.entries.push((seq, leaf, bytes));
            if frontier.size() % every == 0 {
                let signed = sign_checkpoint(&frontier, &SIGNER).expect("a checkpoint");
                log.checkpoints.push(signed);
                log.heads.push((frontier.size(), frontier.root()));
            }
        }
        log
    }

    /// True if `text` is that of one of the log's checkpoints.
    fn signed(&self, text: &str) -> bool {
        self.checkpoints.iter().any(|note| {
            note.split_once("\n\n")
                .is_some_and(|(signed, _)| text.strip_suffix('\n') == Some(signed))
        })
    }

    fn change(&mut self, kind: u8, place: usize, byte: u8) {
        let count = self.entries.len().max(1);
        let (here, there) = (place % count, usize::from(byte) % count);
        match kind % 8 {
            0 => drop((here < self.entries.len()).then(|| self.entries.remove(here))),
            1 if there < self.entries.len() => self.entries.swap(here, there),
            2 if there < self.entries.len() => {
                let copy = self.entries[here].clone();
                self.entries.insert(there, copy);
            }
            3 => {
                let Some((_, leaf, bytes)) = self.entries.get_mut(there) else { return };
                let at = place % bytes.len();
                bytes[at] ^= 1 << (byte % 8);
                // A careful forger makes the hash fit.
                *leaf = leaf_hash(bytes);
            }
            4 => self.entries.iter_mut().zip(0..).for_each(|(entry, seq)| entry.0 = seq),
            5 if !self.checkpoints.is_empty() => {
                self.checkpoints.remove(place % self.checkpoints.len());
            }
            6 => {
                let number = place % self.checkpoints.len().max(1);
                let Some(note) = self.checkpoints.get_mut(number) else { return };
                let mut bytes = std::mem::take(note).into_bytes();
                let at = usize::from(byte) % bytes.len();
                bytes[at] = bytes[at].wrapping_add(1) & 0x7f;
                *note = String::from_utf8_lossy(&bytes).into_owned();
            }
            _ => self.entries.truncate(place),
        }
    }

    fn verify(&self) -> Result<Verified, LogFault> {
        let mut verifier = LogVerifier::new(SIGNER.verifier());
        for note in &self.checkpoints {
            verifier.checkpoint(note)?;
        }
        for (seq, leaf, bytes) in &self.entries {
            verifier.entry(Entry { seq: *seq, leaf: *leaf, bytes })?;
        }
        verifier.finish()
    }
}

fn root_of(leaves: &[Digest]) -> Digest {
    let mut frontier = Frontier::default();
    frontier.extend(leaves.iter().copied());
    frontier.root()
}
