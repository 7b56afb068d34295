//! The sans-I/O core: facts in, decision out; inputs in, outputs out.
//!
//! Owns the decision, the life of an action, permits and stops. It must never do I/O, read a clock, or
//! draw randomness: time and ids are input data.

mod permit;

pub use permit::{Permit, PermitFault};

/// The state machine that mints permits.
#[derive(Debug, Default)]
pub struct Control;
