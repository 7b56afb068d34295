//! What `holdpoint demo` needs besides Holdpoint itself: a tool server and incidents to play.
//!
//! Owns the demo tool server and the scenario files. Must never take part in governing: the demo
//! goes through the same doors as any other agent and any other server.

pub mod endpoint;
pub mod people;
pub mod play;
pub mod scenario;
pub mod server;
pub mod stage;
pub mod timeline;
