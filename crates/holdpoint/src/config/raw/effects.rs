//! How calls are analysed, as it is written. Must not check what it means.

use super::{At, RawClass};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// One way to read a tool's parameters. Where a text is wanted, `/sql` takes the parameter at that
/// JSON Pointer, and `git log {/branch}` is a text with parameters in it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawEffects {
    /// What the parameters hold: `sql`, `shell`, `file`, `patch`, `http`, `graphql`, `terraform`,
    /// `kubernetes`, `kubectl` or `iam`.
    #[schemars(extend("x-required" = true))]
    pub family: Option<At<RawFamily>>,
    /// The statements, command, patch, document, plan, manifest or policy. A list is the words of a
    /// command.
    pub text: Option<At<String>>,
    /// What it works on: `pg://orders-prod/orders`, `tf://network`, `k8s://prod`, the URL of a
    /// GraphQL endpoint. Also the beginning of the resources of effects.
    pub address: Option<At<String>>,
    /// Of `sql`: `postgres`, `sqlite` or `mysql`.
    pub dialect: Option<At<RawDialect>>,
    /// Of `sql`: the tables behind each view, as `schema.table`.
    pub views: BTreeMap<String, Vec<String>>,
    /// Of `sql`: functions of the database that only look.
    pub read_functions: Vec<String>,
    /// Of `shell`: the folder that the command runs in.
    #[schemars(extend("x-default" = "`cwd` of `place`"))]
    pub cwd: Option<At<String>>,
    /// Of `file`: `read`, `write`, `edit`, `delete`, `delete_folder`, `create_folder` or `move`.
    pub act: Option<At<String>>,
    /// Of `file`: the path, or a list of paths.
    pub path: Option<At<String>>,
    /// Of `file`: what is written. Of an edit also a list of objects, each with what is replaced
    /// and by what: `oldText` and `newText`, `old_string` and `new_string`, and the like.
    pub contents: Option<At<String>>,
    /// Of `file`: where it is moved to.
    pub to: Option<At<String>>,
    /// Of `http`: the URL.
    pub url: Option<At<String>>,
    /// Of `http`: the method.
    #[schemars(extend("x-default" = "`GET`, or `POST` with a body"))]
    pub method: Option<At<String>>,
    /// Of `http`: an object of headers.
    pub headers: Option<At<String>>,
    /// Of `http`: the body.
    pub body: Option<At<String>>,
    /// Of `kubernetes`: what is done with the objects: `create`, `update`, `delete` or `read`.
    /// Of `kubectl`: the verb.
    #[schemars(extend("x-default" = "update"))]
    pub verb: Option<At<String>>,
    /// Of `kubectl`: the kind of object.
    pub kind: Option<At<String>>,
    /// Of `kubectl`: the object's name.
    pub name: Option<At<String>>,
    /// Of `kubectl`: the namespace. Of `kubernetes`: the namespace of objects that name none, word
    /// for word.
    #[schemars(extend("x-default" = "default"))]
    pub namespace: Option<At<String>>,
    /// Of `iam`: the policy before. Of a `file` that is edited: the text that is replaced.
    pub before: Option<At<String>>,
}

/// What a tool's parameters hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawFamily {
    /// SQL.
    Sql,
    /// A command of a shell.
    Shell,
    /// A path.
    File,
    /// A patch to files: a unified diff, or the envelope of `apply_patch`.
    Patch,
    /// An HTTP request.
    Http,
    /// A GraphQL document or body.
    Graphql,
    /// A Terraform plan as JSON.
    Terraform,
    /// A manifest.
    Kubernetes,
    /// What `kubectl` would do.
    Kubectl,
    /// An access policy as JSON.
    Iam,
}

/// Which SQL a database speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawDialect {
    /// PostgreSQL.
    Postgres,
    /// SQLite.
    Sqlite,
    /// MySQL and MariaDB.
    Mysql,
}

/// Where calls run, for analyses.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawPlace {
    /// `true` says that nothing outside of the server's environment can be reached from it,
    /// whatever it is told: a sandbox without network. Then even what cannot be read lies there.
    #[schemars(extend("x-default" = false))]
    pub sealed: Option<At<bool>>,
    /// The folder in which commands run and against which paths are read.
    #[schemars(extend("x-default" = "`cwd` of the server"))]
    pub cwd: Option<At<String>>,
    /// The home folder of whom commands run as.
    pub home: Option<At<String>>,
    /// The folder that agents may change.
    pub workspace: Option<At<String>>,
    /// The name of the repository that is worked on, for `git://NAME#branch`.
    pub repository: Option<At<String>>,
    /// Branches that nobody rewrites: names, or patterns with `*`.
    pub protected_branches: Vec<String>,
    /// The hosts that may be addressed: names, or `*.example.org` for all below. Without any,
    /// every host may.
    pub hosts: Vec<String>,
    /// Headers whose credentials Holdpoint itself puts in.
    pub brokered_headers: Vec<String>,
    /// GraphQL mutations by their field, and what each is.
    pub mutations: BTreeMap<String, RawClass>,
    /// OpenAPI documents of the hosts that are addressed.
    pub openapi: Vec<At<RawOpenApi>>,
}

/// An OpenAPI 3 document: on its hosts, what it does not declare is opaque.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawOpenApi {
    /// The document, JSON or YAML, relative to this file.
    #[schemars(extend("x-required" = true))]
    pub file: Option<At<String>>,
    /// Where the API is served: `https://api.example.com/v1`.
    #[schemars(extend("x-default" = "the document's own `servers`"))]
    pub servers: Vec<At<String>>,
    /// What single operations are, by `operationId` or as `POST /orders/{id}`. Only here can one be
    /// milder than its method.
    pub classes: BTreeMap<At<String>, RawClass>,
}

/// What a broken invariant does.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawInvariant {
    /// `fail` denies, `warn` is recorded, `off` says nothing.
    #[schemars(extend("x-default" = "fail"))]
    pub result: Option<At<RawInvariantResult>>,
    /// The environments where it speaks.
    #[schemars(extend("x-default" = "all"))]
    pub environments: Vec<At<String>>,
    /// Of `check_removed`: the code that must stay.
    pub keeps: Vec<At<RawKeep>>,
}

/// Code that must stay where it is.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawKeep {
    /// The files that have it: patterns with `*` and `**`, from `/` or a server's workspace on.
    #[schemars(extend("x-required" = true))]
    pub paths: Vec<At<String>>,
    /// The code: words and signs as they stand; `$X` is one argument, `$$$` any number of pieces.
    #[schemars(extend("x-required" = true))]
    pub pattern: Option<At<String>>,
}

/// What a broken invariant does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawInvariantResult {
    /// Denies.
    Fail,
    /// Is recorded.
    Warn,
    /// Says nothing.
    Off,
}
