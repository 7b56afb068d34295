//! What Holdpoint serves itself, as it is written. Must not check what values mean.

use super::{At, RawReference};
use schemars::JsonSchema;
use serde::Deserialize;

/// What Holdpoint serves itself, so that it sees each change before and can take it back. Exactly
/// one of `sqlite`, `postgres`, `git`, `terraform` and `shell`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawServes {
    /// The file of a SQLite database, relative to this file: tools `sql_query` and `sql_execute`.
    pub sqlite: Option<At<String>>,
    /// Where the URL of a PostgreSQL database is, `{ from_env = "NAME" }` or
    /// `{ from_file = "PATH" }`: tools `sql_query` and `sql_execute`.
    pub postgres: Option<At<RawReference>>,
    /// The folder of a git repository, relative to this file: tools `git_status`, `git_diff`,
    /// `git_log`, `git_commit`, `git_branch`, `git_branch_delete` and `git_push`.
    pub git: Option<At<String>>,
    /// The folder of an initialised Terraform root module, relative to this file: tools
    /// `terraform_plan` and `terraform_apply`.
    pub terraform: Option<At<String>>,
    /// The folder that shell commands may change, relative to this file and without links: tool
    /// `shell_execute`. Each command runs in a box first, on Linux only.
    pub shell: Option<At<String>>,
    /// What the addresses of its resources begin with; not of a shell, whose resources are files.
    #[schemars(extend("x-default" = "`sqlite`, `pg`, `git` or `tf`, and `://SERVER`"))]
    pub address: Option<At<String>>,
    /// Of databases: most rows that a query gives and a preview shows (1 to 1000000).
    #[schemars(extend("x-default" = 1_000))]
    pub rows_max: Option<At<u64>>,
    /// Of databases: how long statements may run, in milliseconds (1 to 3600000).
    #[schemars(extend("x-default" = 10_000))]
    pub statement_timeout_ms: Option<At<u64>>,
    /// Of databases: how long to wait for a lock of somebody else, in milliseconds (1 to 600000).
    #[schemars(extend("x-default" = 2_000))]
    pub lock_timeout_ms: Option<At<u64>>,
    /// Of git: whose commits these are.
    #[schemars(extend("x-default" = "Holdpoint <holdpoint@localhost>"))]
    pub author: Option<At<String>>,
    /// Of git: the transports that remotes may use.
    #[schemars(extend("x-default" = ["https", "ssh"]))]
    pub transports: Option<Vec<At<String>>>,
    /// Of git: `true` says that remotes are as trusted as the repository. Else a push counts as
    /// leaving.
    #[schemars(extend("x-default" = false))]
    pub remote_inside: Option<At<bool>>,
    /// Of git: `true` lets hooks and programs run that the repository's configuration names.
    #[schemars(extend("x-default" = false))]
    pub programs: Option<At<bool>>,
    /// Of Terraform: the workspace.
    #[schemars(extend("x-default" = "default"))]
    pub workspace: Option<At<String>>,
    /// Of Terraform: types of resources whose deletion cannot be taken back.
    pub stateful: Vec<At<String>>,
    /// Of a shell: folders that commands may read, besides that of `shell` and the system's
    /// programs. What listens there on a pipe or a socket can be written to.
    pub readable: Vec<At<String>>,
    /// Of git and Terraform: the program.
    #[schemars(extend("x-default" = "`git` or `terraform`, as `PATH` finds it"))]
    pub program: Option<At<String>>,
}
