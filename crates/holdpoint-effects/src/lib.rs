//! What a concrete call would do, read as its target would read it.
//!
//! Owns the analysers, one module a family, and the invariants that they can see broken. It must
//! never do I/O, know about policies or control, believe what a tool says of itself, or panic:
//! any bytes in, a result out. What cannot be resolved is opaque, and opaque counts as
//! destructive; nothing is ever read as "no effect" because it could not be read.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

mod analyser;
mod data;
mod deferred;
mod effects;
mod files;
mod git;
mod graphql;
mod http;
mod iam;
mod kept;
mod kubernetes;
mod options;
mod patch;
mod place;
mod programs;
mod ranges;
mod requests;
mod shell;
mod sql;
mod terraform;
mod words;
mod yaml;

pub use analyser::{Analyser, Family, FileAct, Source, SourceFault};
pub use effects::{EFFECTS_MAX, Effects, NESTING_MAX, Note, NoteCode, Severity, TEXT_BYTES_MAX};
pub use files::{
    file_delete, file_edit, file_move, file_read, file_replace, file_write, folder_create,
    folder_delete,
};
pub use graphql::graphql;
pub use http::{
    Body, HttpRequest, HttpRules, OPENAPI_BYTES_MAX, OpenApiFault, Operation, Operations, http,
    openapi, server_url,
};
pub use iam::iam;
pub use kept::{Keep, PatternFault};
pub use kubernetes::{Cluster, Objects, kubernetes_manifest, kubernetes_verb};
pub use patch::patch;
pub use place::Place;
pub use shell::shell;
pub use sql::{Database, Dialect, sql};
pub use terraform::{is_terraform_state, terraform};
