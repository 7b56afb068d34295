//! What a concrete call would do, read as its target would read it.
//!
//! Owns the analysers, one module a family, and the invariants that they can see broken. It must
//! never do I/O, know about policies or control, believe what a tool says of itself, or panic:
//! any bytes in, a result out. What cannot be resolved is opaque, and opaque counts as
//! destructive; nothing is ever read as "no effect" because it could not be read.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

mod effects;
mod iam;
mod kubernetes;
mod sql;
mod terraform;

pub use effects::{EFFECTS_MAX, Effects, NESTING_MAX, Note, NoteCode, Severity, TEXT_BYTES_MAX};
pub use iam::iam;
pub use kubernetes::{Cluster, Objects, kubernetes_manifest, kubernetes_verb};
pub use sql::{Database, Dialect, sql};
pub use terraform::{is_terraform_state, terraform};
