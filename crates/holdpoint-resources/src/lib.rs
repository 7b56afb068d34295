//! Where permitted actions are previewed, executed, verified and taken back.
//!
//! Owns the processes and connections of upstream servers, the bytes that go to them, the
//! credentials that they want, and the resources whose changes can be seen before and undone
//! after. It must never decide anything, and never send a `tools/call` without consuming a
//! [`holdpoint_control::Permit`] that was checked against exactly the value it sends, unless the
//! operator declared the call: the read of a target, and the inverse in a permitted revert.

mod archive;
mod clearance;
mod client;
mod credentials;
mod declared;
mod events;
mod files;
mod git;
mod lines;
pub mod mcp;
mod passage;
mod postgres;
mod process;
mod program;
mod redaction;
mod registry;
pub mod resource;
mod sqlite;
mod terraform;
mod upstream;

#[cfg(fuzzing)]
pub use upstream::read_answer;

pub use archive::{Archive, Kept, Label as ArchiveLabel};
pub use client::{HttpClient, TellFault};
pub use credentials::{
    Bearer, ClientIdentity, CredentialFault, GrantKind, Holder, Issued, Login, OAuthSpec, Revoked,
    Sharing, Standing, Vault, VaultFault, log_in_alone, log_out,
};
pub use declared::{
    Declared, DeclaredFault, DeclaredPrepared, DeclaredSpec, DeclaredTools, Expected, Inverse,
    Mapped, Reading, Source as MappedSource, result_content,
};
pub use files::{
    Executor, FileShape, Files, FilesLimits, FilesPrepared, FilesSpec, Shell, ShellPrepared,
    ShellSpec,
};
pub use git::{Git, GitLimits, GitPrepared, GitSpec};
pub use passage::{Injected, Passage, PassageReceiver, PassageSender, Received, SendFault};
pub use postgres::{Postgres, PostgresLimits, PostgresPrepared, PostgresSpec};
pub use process::{Pipes, Process, ProcessFault, ProcessSpec};
pub use redaction::{redacted, redacted_text, redacted_value};
pub use registry::{Place, Resources, RevertPreview};
pub use sqlite::{Sqlite, SqliteLimits, SqlitePrepared, SqliteSpec};
pub use terraform::{Terraform, TerraformLimits, TerraformPrepared, TerraformSpec};
pub use upstream::{
    Answer, Cancels, Condition, Ended, Health, Limits, SecretText, ToolCall, Transport, Upstream,
    UpstreamFault, UpstreamSpec,
};
