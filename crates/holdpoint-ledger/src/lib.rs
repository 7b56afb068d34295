//! The tamper-evident log: record bytes, Merkle tree, signed checkpoints, proofs, offline
//! verification.
//!
//! Usable alone by an auditor: nothing here stores, fetches, reads a clock or draws randomness. The
//! formats are public ones (RFC 6962 trees, C2SP signed notes and checkpoints), so that other
//! tools can check what Holdpoint wrote. Must never do I/O, and must never panic on what it is
//! given.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

mod checkpoint;
mod encoding;
mod merkle;
mod note;
mod verification;

pub use checkpoint::{Checkpoint, open_checkpoint, sign_checkpoint};
pub use encoding::{EncodingFault, decode, encode};
pub use merkle::{
    Frontier, FrontierFault, ProofFault, consistency_proof, inclusion_proof, leaf_hash,
    verify_consistency, verify_inclusion,
};
pub use note::{NoteFault, Signer, Verifier, cosign_note, open_note, open_note_of_some, sign_note};
pub use verification::{Entry, LogFault, LogVerifier, Verified};
