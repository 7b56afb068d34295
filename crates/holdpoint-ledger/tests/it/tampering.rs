//! What was done to a log is found, and the place is named.

use holdpoint_ledger::{
    Entry, Frontier, LogFault, LogVerifier, Signer, Verified, encode, leaf_hash, sign_checkpoint,
};
use holdpoint_types::{AgentName, Digest, GatewayId, Record, RecordBody, Timestamp};
use proptest::prelude::*;
use proptest::sample::Index;

/// A log as it is stored.
#[derive(Clone, Debug)]
struct Log {
    entries: Vec<(u64, Digest, Vec<u8>)>,
    checkpoints: Vec<String>,
}

fn signer() -> Signer {
    Signer::new("holdpoint.test/log", &[7; 32]).unwrap()
}

fn record(number: u64, at_ms: i64) -> Vec<u8> {
    let agent: AgentName = format!("agent-{number}").parse().unwrap();
    let gateway = GatewayId::new(Timestamp(0), [0; 10]);
    let body = RecordBody::KeysRevoked { agent, by: "ana".into() };
    encode(&Record { at_ms: Timestamp(at_ms), gateway, body }).unwrap()
}

/// A log of `size` records with a checkpoint at every multiple of `every`, and at the end.
fn log(size: u64, every: u64) -> Log {
    let mut frontier = Frontier::default();
    let mut log = Log { entries: Vec::new(), checkpoints: Vec::new() };
    for seq in 0..size {
        let bytes = record(seq, 1_000 + i64::try_from(seq / 3).unwrap());
        let leaf = leaf_hash(&bytes);
        frontier.push(leaf);
        log.entries.push((seq, leaf, bytes));
        if frontier.size() % every == 0 || frontier.size() == size {
            log.checkpoints.push(sign_checkpoint(&frontier, &signer()).unwrap());
        }
    }
    log
}

fn verify(log: &Log) -> Result<Verified, LogFault> {
    let mut verifier = LogVerifier::new(signer().verifier());
    for note in &log.checkpoints {
        verifier.checkpoint(note)?;
    }
    for (seq, leaf, bytes) in &log.entries {
        verifier.entry(Entry { seq: *seq, leaf: *leaf, bytes })?;
    }
    verifier.finish()
}

/// Gives every entry the position where it stands, as a careful forger would.
fn renumber(log: &mut Log) {
    for (seq, entry) in log.entries.iter_mut().enumerate() {
        entry.0 = seq as u64;
    }
}

/// True if `fault` names a place that contains `seq`.
fn names(fault: &LogFault, seq: u64) -> bool {
    match fault {
        LogFault::Altered { seq: found }
        | LogFault::Unreadable { seq: found, .. }
        | LogFault::TimeWentBack { seq: found } => *found == seq,
        LogFault::Missing { from, to }
        | LogFault::Differs { from, to }
        | LogFault::Unsigned { from, to } => (*from..=*to).contains(&seq),
        LogFault::OutOfOrder { expected, .. } => *expected == seq,
        LogFault::Truncated { sound, promised, .. } => (*sound..*promised).contains(&seq),
        LogFault::Forged { .. } | LogFault::Contradiction { .. } => false,
    }
}

#[test]
fn a_sound_log_verifies() {
    for size in [0, 1, 7, 8, 9, 40] {
        let log = log(size, 8);
        let verified = verify(&log).unwrap();
        assert_eq!(verified.records, size);
        assert_eq!(verified.checkpoints, log.checkpoints.len() as u64);
    }
}

#[test]
fn a_careful_forger_is_located_between_two_checkpoints() {
    let mut forged = log(40, 8);
    let bytes = record(999, 1_004);
    forged.entries[13] = (13, leaf_hash(&bytes), bytes);
    assert_eq!(verify(&forged), Err(LogFault::Differs { from: 8, to: 15 }));
}

#[test]
fn forged_and_contradicting_checkpoints_are_found() {
    let sound = log(40, 8);
    let mut forged = sound.clone();
    let other = Signer::new("holdpoint.test/log", &[8; 32]).unwrap();
    let mut frontier = Frontier::default();
    frontier.extend(forged.entries.iter().map(|entry| entry.1));
    forged.checkpoints[4] = sign_checkpoint(&frontier, &other).unwrap();
    assert!(matches!(verify(&forged), Err(LogFault::Forged { number: 4, .. })));

    let mut swapped = sound.clone();
    swapped.checkpoints.swap(1, 2);
    assert_eq!(verify(&swapped), Err(LogFault::Contradiction { number: 2 }));

    let mut split = sound.clone();
    let mut other = Frontier::default();
    other.extend((0..8_u8).map(|byte| leaf_hash(&[byte])));
    split.checkpoints.insert(1, sign_checkpoint(&other, &signer()).unwrap());
    assert_eq!(verify(&split), Err(LogFault::Contradiction { number: 1 }));

    let mut unsigned = sound;
    unsigned.checkpoints.pop();
    assert_eq!(verify(&unsigned), Err(LogFault::Unsigned { from: 32, to: 39 }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_flipped_bit_is_found_at_its_record(
        at in any::<Index>(),
        byte in any::<Index>(),
        bit in 0..8,
    ) {
        let mut log = log(40, 8);
        let at = at.index(40);
        let bytes = &mut log.entries[at].2;
        let byte = byte.index(bytes.len());
        bytes[byte] ^= 1_u8 << bit;
        prop_assert_eq!(verify(&log), Err(LogFault::Altered { seq: at as u64 }));
    }

    #[test]
    fn any_flipped_bit_whose_hash_was_made_to_fit_is_located(
        at in any::<Index>(),
        byte in any::<Index>(),
        bit in 0..8,
    ) {
        let mut log = log(40, 8);
        let at = at.index(40);
        let (_, leaf, bytes) = &mut log.entries[at];
        let byte = byte.index(bytes.len());
        bytes[byte] ^= 1_u8 << bit;
        *leaf = leaf_hash(bytes);
        let fault = verify(&log).unwrap_err();
        // A time moved forward shows at the next record.
        let next = matches!(&fault, LogFault::TimeWentBack { seq } if *seq == at as u64 + 1);
        prop_assert!(next || names(&fault, at as u64), "{fault}");
    }

    #[test]
    fn any_flipped_bit_of_a_checkpoint_is_found(
        at in any::<Index>(),
        byte in any::<Index>(),
        bit in 0..7,
    ) {
        let mut log = log(40, 8);
        let at = at.index(log.checkpoints.len());
        let mut bytes = log.checkpoints[at].clone().into_bytes();
        let byte = byte.index(bytes.len());
        bytes[byte] ^= 1_u8 << bit;
        if let Ok(note) = String::from_utf8(bytes) {
            log.checkpoints[at] = note;
            let number = at as u64;
            let fault = verify(&log);
            let found = matches!(fault, Err(LogFault::Forged { number: n, .. }) if n == number);
            prop_assert!(found);
        }
    }

    #[test]
    fn any_dropped_record_is_located(
        at in any::<Index>(),
        careful in any::<bool>(),
    ) {
        let mut log = log(40, 8);
        let at = at.index(40);
        log.entries.remove(at);
        if careful {
            renumber(&mut log);
        }
        let fault = verify(&log).unwrap_err();
        prop_assert!(names(&fault, at as u64), "{fault}");
    }

    #[test]
    fn any_swapped_records_are_located(
        one in any::<Index>(),
        other in any::<Index>(),
        careful in any::<bool>(),
    ) {
        let mut log = log(40, 8);
        let (one, other) = (one.index(40), other.index(40));
        prop_assume!(one != other);
        log.entries.swap(one, other);
        if careful {
            renumber(&mut log);
        }
        let fault = verify(&log).unwrap_err();
        let (first, last) = (one.min(other) as u64, one.max(other) as u64);
        // A record from later in an earlier place makes those between look too old.
        let next = matches!(&fault, LogFault::TimeWentBack { seq } if (first..=last).contains(seq));
        prop_assert!(next || names(&fault, first), "{fault}");
    }

    #[test]
    fn any_inserted_or_repeated_record_is_located(
        at in 0_usize..=40,
        repeated in any::<bool>(),
        careful in any::<bool>(),
    ) {
        let mut log = log(40, 8);
        let entry = if repeated && at > 0 {
            log.entries[at - 1].clone()
        } else {
            let at_ms = 1_000 + i64::try_from(at / 3).unwrap();
            let bytes = record(999, at_ms);
            (at as u64, leaf_hash(&bytes), bytes)
        };
        log.entries.insert(at, entry);
        if careful {
            renumber(&mut log);
        }
        let fault = verify(&log).unwrap_err();
        let next = at as u64 + 1;
        let after = matches!(&fault, LogFault::OutOfOrder { expected, .. } if *expected == next);
        prop_assert!(after || names(&fault, at as u64), "{fault}");
    }

    #[test]
    fn any_truncation_is_found_against_a_later_checkpoint(
        at in any::<Index>(),
    ) {
        let mut log = log(40, 8);
        let records = at.index(40) as u64;
        log.entries.truncate(usize::try_from(records).unwrap());
        let sound = records - records % 8;
        prop_assert_eq!(verify(&log), Err(LogFault::Truncated { sound, records, promised: 40 }));
    }

    #[test]
    fn any_bytes_give_a_verdict(
        bytes in prop::collection::vec(any::<u8>(), 0..60),
        note in ".{0,60}",
    ) {
        let mut verifier = LogVerifier::new(signer().verifier());
        prop_assert!(verifier.checkpoint(&note).is_err());
        let entry = Entry { seq: 0, leaf: leaf_hash(&bytes), bytes: &bytes };
        prop_assert!(verifier.entry(entry).is_err());
    }
}
