//! The doors: where requests come in, are authenticated, and are handed to the governor.
//! Must never forward anything that the governor has not answered for.

mod answer;
mod asks;
mod held;
pub mod hook;
pub mod http;
pub mod local;
pub(crate) mod plans;
mod reads;
pub mod stdio;
mod tasks;

pub use answer::{decision_json, refusal_json, refusal_text};
