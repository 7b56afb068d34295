//! Checkpoints: signed statements of how many entries a log has and what its root is
//! (C2SP tlog-checkpoint, c2sp.org/tlog-checkpoint).
//!
//! Owns the text of a checkpoint. Must not decide which checkpoints are kept or compared.

use crate::merkle::Frontier;
use crate::note::{NoteFault, Signer, Verifier, open_note, sign_note};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdpoint_types::Digest;

/// The head of a log at one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: equal to the name of the key that signs.
    pub origin: String,
    /// How many entries the log has.
    pub size: u64,
    /// The root of its Merkle tree.
    pub root: Digest,
}

/// Signs the head of the log that `frontier` is the edge of. The log is named as the signer.
///
/// # Errors
/// Never for a signer that was made with [`Signer::new`]; the fault is of [`sign_note`].
pub fn sign_checkpoint(frontier: &Frontier, signer: &Signer) -> Result<String, NoteFault> {
    let root = STANDARD.encode(frontier.root().as_bytes());
    sign_note(&format!("{}\n{}\n{root}\n", signer.name(), frontier.size()), signer)
}

/// The checkpoint in `note`, if `verifier` signed it and it is about the verifier's log.
///
/// # Errors
/// When the note does not open, is no checkpoint, or is about another log.
pub fn open_checkpoint(note: &str, verifier: &Verifier) -> Result<Checkpoint, NoteFault> {
    let text = open_note(note, verifier)?;
    let mut lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
    let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
        return Err(NoteFault::NotACheckpoint("it has fewer than three lines"));
    };
    if origin.is_empty() || lines.any(str::is_empty) {
        return Err(NoteFault::NotACheckpoint("it has an empty line"));
    }
    let size = parse_size(size).ok_or(NoteFault::NotACheckpoint("its size is no number"))?;
    let root = STANDARD.decode(root).ok().and_then(|bytes| bytes.try_into().ok());
    let root = root.ok_or(NoteFault::NotACheckpoint("its root is no SHA-256 hash"))?;
    if origin != verifier.name() {
        return Err(NoteFault::OtherLog(origin.to_owned()));
    }
    Ok(Checkpoint { origin: origin.to_owned(), size, root: Digest::from_bytes(root) })
}

/// Decimal digits without leading zeroes, and nothing else.
fn parse_size(text: &str) -> Option<u64> {
    let size: u64 = text.parse().ok()?;
    Some(size).filter(|size| size.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::{Checkpoint, open_checkpoint, sign_checkpoint};
    use crate::merkle::{Frontier, leaf_hash};
    use crate::note::{NoteFault, Signer, sign_note};
    use expect_test::expect;

    fn signer() -> Signer {
        Signer::new("holdpoint.test/log", &[7; 32]).unwrap()
    }

    #[test]
    fn a_checkpoint_survives_its_text() {
        let mut frontier = Frontier::default();
        let empty = sign_checkpoint(&frontier, &signer()).unwrap();
        assert_eq!(open_checkpoint(&empty, &signer().verifier()).unwrap().size, 0);
        frontier.extend((0..11_u8).map(|byte| leaf_hash(&[byte])));
        let note = sign_checkpoint(&frontier, &signer()).unwrap();
        expect![[r#"
            holdpoint.test/log
            11
            4XetWooXEI2tZ8cKUSZmgaoCueK3rWoDV1hbpCiZgqw=

            — holdpoint.test/log gqCqvvFCjP9bHsourwK7K5hvazg9FUaCJAiydmRLqjPF2MToMH+J/wczTpPd6cO6DSoIlmrF+6KmkDooLhh3avA9AQs=
        "#]]
        .assert_eq(&note);
        let origin = "holdpoint.test/log".to_owned();
        let checkpoint = Checkpoint { origin, size: 11, root: frontier.root() };
        assert_eq!(open_checkpoint(&note, &signer().verifier()), Ok(checkpoint));
    }

    #[test]
    fn texts_that_are_no_checkpoints_are_refused() {
        let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
        let open = |text: &str| {
            let note = sign_note(text, &signer()).unwrap();
            open_checkpoint(&note, &signer().verifier())
        };
        let log = "holdpoint.test/log";
        assert!(open(&format!("{log}\n3\n{root}\n")).is_ok());
        assert!(open(&format!("{log}\n3\n{root}\nextension\n")).is_ok());
        let refused = [
            format!("{log}\n3\n"),
            format!("{log}\n03\n{root}\n"),
            format!("{log}\n+3\n{root}\n"),
            format!("{log}\n-3\n{root}\n"),
            format!("{log}\n\n{root}\n"),
            format!("{log}\n18446744073709551616\n{root}\n"),
            format!("{log}\n3\nAAAA\n"),
            format!("{log}\n3\n{root} \n"),
            format!("{log}\n3\n{root}\n\nextension\n"),
            format!("\n3\n{root}\n"),
        ];
        for text in refused {
            assert!(matches!(open(&text), Err(NoteFault::NotACheckpoint(_))), "{text:?}");
        }
        let other = open(&format!("another/log\n3\n{root}\n"));
        assert_eq!(other, Err(NoteFault::OtherLog("another/log".to_owned())));
    }
}
