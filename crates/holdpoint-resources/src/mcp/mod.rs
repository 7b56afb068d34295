//! The Model Context Protocol as raw JSON-RPC: messages, eras, and headers mirrored from the body.
//! Must never parse what Holdpoint does not govern into typed models: they lose fields and numbers.

pub mod era;
pub mod governed;
pub mod headers;
pub mod message;
pub mod tasks;

pub use era::{Era, EraFault, Identity};
pub use headers::{HeaderFault, ParamHeader};
pub use message::{
    Message, MessageFault, Outcome, RpcId, RpcNotification, RpcRequest, RpcResponse,
};
