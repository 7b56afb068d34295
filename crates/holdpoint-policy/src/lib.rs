//! Policies: Cedar in, causes out.
//!
//! Owns the Cedar schema, the annotations, the loading of policy sets and their evaluation. It must
//! never do I/O, read a clock, draw randomness, or let a Cedar word (`forbid`, diagnostics) out.
//!
//! A call needs a permit of the ordinary set and of every guard set that guards what it touches.
//! A set is loaded whole or not at all, and is immutable afterwards. Evaluation is total and
//! deterministic: the same set, request and facts give the same causes.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

mod doubts;
mod fault;
mod guard;
mod index;
mod load;
mod manifest;
mod packs;
mod question;
mod rule;
mod schema;
mod set;
mod sets;
mod sight;
mod statements;
mod suggest;
mod tags;

pub use fault::PolicyFault;
pub use guard::{Guard, GuardFault};
pub use load::SOURCE_BYTES_MAX;
pub use manifest::{GuardScope, Manifest, ManifestFault};
pub use packs::starter_pack;
pub use rule::{Rule, RuleEffect};
pub use schema::schema_text;
pub use set::PolicySet;
pub use sets::PolicySets;
pub use suggest::{Shape, ShapeAim, Suggestion};
