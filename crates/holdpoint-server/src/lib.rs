//! The edges of Holdpoint: doors for agents, the store, the operator's socket, and the loop
//! between.
//!
//! Owns everything that touches sockets, files, clocks and randomness on behalf of control. It must
//! never decide by itself: every ruling comes out of `holdpoint-control`.

pub mod catalog;
mod clock;
pub mod doors;
pub mod governor;
pub mod notify;
pub mod operate;
pub mod policies;
pub mod runtime;
pub mod shown;
pub mod store;
pub mod telemetry;
pub mod validators;
pub mod wire;

pub use clock::{Clock, SteppedBack};

#[cfg(test)]
mod tests;
