//! What the programs of `cargo xtask bench` share: messages, latencies, and where things are.
//!
//! Owns the one call that everything is measured with. Must never be part of the product.

mod latency;
mod message;

pub use latency::Latencies;
pub use message::{Era, SAID, TOOL, call, initialize, initialized, is_echo};
