//! The checked configuration: what the edges need in plain structs, and the pure settings.
//! Must not hold a secret: only where to find it.

use holdpoint_control::{Settings, ToolPattern};
use holdpoint_resources::{Declared, FileShape, GrantKind, Sharing};
use holdpoint_server::doors::hook::Host;
use holdpoint_server::doors::http::oauth::{Algorithm, KeySpec, Scopes};
use holdpoint_server::notify::Shape;
use holdpoint_server::policies::PolicySpec;
use holdpoint_server::validators::When;
use holdpoint_types::{AgentName, EffectClass, FindingResult, OperatorName, ServerName, Severity};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

/// A configuration in which everything has been checked.
#[derive(Debug)]
pub struct Config {
    /// The absolute path of the file.
    pub file: PathBuf,
    /// The store's folder, absolute.
    pub store: PathBuf,
    /// The key that seals credentials; absent if it lies in the store.
    pub credential_key: Option<ValueSource>,
    /// Where `serve` listens.
    pub listen: Listen,
    /// Where the policies are, in absolute folders.
    pub policies: PolicySpec,
    /// The limits.
    pub limits: Limits,
    /// Who may stop and release over HTTP, and where each one's key is.
    pub operators: BTreeMap<OperatorName, ValueSource>,
    /// How to reach each upstream server.
    pub servers: BTreeMap<ServerName, Upstream>,
    /// Under which names the tools of hosts are known.
    pub hosts: BTreeMap<Host, ServerName>,
    /// How changes by the tools of hosts are seen before and taken back.
    pub hosted: BTreeMap<ServerName, UndoRules>,
    /// Who may reach what, and where it acts.
    pub settings: Settings,
    /// Who else has a voice.
    pub validators: Vec<Validator>,
    /// Who is told of approvals.
    pub notify: Vec<Notify>,
}

/// Somebody who is told of approvals.
#[derive(Clone, Debug)]
pub struct Notify {
    /// Its name.
    pub name: String,
    /// Where its URL is.
    pub url: ValueSource,
    /// Headers on every request.
    pub headers: BTreeMap<String, ValueSource>,
    /// What a message looks like.
    pub shape: Shape,
    /// True if the parameters of calls are told, too.
    pub parameters: bool,
    /// Links by which one operator decides.
    pub links: Option<Links>,
}

/// Links by which one operator decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Links {
    /// Where that operator's browser reaches this server.
    pub base: String,
    /// The operator.
    pub operator: OperatorName,
}

/// An independent voice about calls.
#[derive(Debug)]
pub struct Validator {
    /// Its name.
    pub name: String,
    /// The tools whose calls it looks at.
    pub tools: Vec<ToolPattern>,
    /// The mildest class of calls that it looks at.
    pub class: EffectClass,
    /// When it is asked.
    pub when: When,
    /// How it is asked.
    pub asked: Asked,
    /// How long an answer may take, in milliseconds.
    pub timeout_ms: u64,
    /// What its objection is.
    pub objection: FindingResult,
    /// How bad its objection is.
    pub severity: Severity,
}

/// How a validator is asked.
#[derive(Debug)]
pub enum Asked {
    /// A CEL expression that must be true.
    Cel(String),
    /// A process, a line in and a line out.
    Command(UpstreamCommand),
    /// An endpoint.
    Url(UpstreamUrl),
}

/// Where `serve` listens, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address.
    pub http: SocketAddr,
    /// The authorities that `Host` and `Origin` may name, in lower case.
    pub hosts: Vec<String>,
    /// The agent as which requests without a key act.
    pub anonymous_agent: Option<AgentName>,
    /// The address for health and metrics.
    pub operations: Option<SocketAddr>,
    /// The files for TLS.
    pub tls: Option<Tls>,
    /// Whose access tokens are accepted.
    pub oauth: Option<Oauth>,
}

/// Whose access tokens are accepted, and which agents they act as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oauth {
    /// The issuer, where its keys are, and how long they are good.
    pub keys: KeySpec,
    /// Where agents reach this server; absent for the address.
    pub resource: Option<String>,
    /// More audiences that are accepted.
    pub audiences: Vec<String>,
    /// How tokens may be signed.
    pub algorithms: BTreeSet<Algorithm>,
    /// How far clocks may differ, in seconds.
    pub leeway_s: u32,
    /// The names of scopes.
    pub scopes: Scopes,
    /// The agents that clients act as.
    pub clients: BTreeMap<String, AgentName>,
    /// The agents that subjects act as.
    pub subjects: BTreeMap<String, AgentName>,
}

/// The PEM files for TLS, absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of clients' certificates.
    pub client_ca: Option<PathBuf>,
}

/// Limits on everything that others could make large or slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest message, in bytes.
    pub message_bytes_max: usize,
    /// Longest output that is stored, in bytes.
    pub output_stored_bytes_max: usize,
    /// Most calls at one time.
    pub calls_in_flight_max: usize,
    /// Most checks after calls that wait.
    pub checks_open_max: u64,
    /// How long previews, and what takes actions back, are kept, in seconds.
    pub undo_keep_s: u64,
    /// How long a call may take, in milliseconds.
    pub call_timeout_ms: u64,
    /// How long a stopped call may take to end, in milliseconds.
    pub stop_grace_ms: u64,
    /// How long calls may take to end when the process is asked to end, in milliseconds.
    pub drain_ms: u64,
    /// What the HTTP door grants.
    pub door: DoorLimits,
}

/// What the HTTP door grants to its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoorLimits {
    /// Most requests of one agent.
    pub agent_calls_max: usize,
    /// Most requests of one agent that wait.
    pub agent_queue_max: usize,
    /// How long one may wait, in milliseconds.
    pub queue_wait_ms: u64,
    /// Most connections.
    pub connections_max: usize,
    /// Most connections from one address.
    pub connections_per_address_max: usize,
    /// Longest head, in bytes.
    pub header_bytes_max: usize,
    /// Most headers.
    pub header_count_max: usize,
    /// How long a head may take, in milliseconds.
    pub header_timeout_ms: u64,
    /// How long a body may take, in milliseconds.
    pub body_timeout_ms: u64,
    /// How long a connection may be silent, in milliseconds.
    pub idle_timeout_ms: u64,
    /// How long a peer may take nothing, in milliseconds.
    pub write_timeout_ms: u64,
}

/// How to reach an upstream server.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// By which transport.
    pub transport: Transport,
    /// How long a call may take, in milliseconds.
    pub timeout_ms: u64,
    /// What happens to parameters that the schema does not name.
    pub unknown_parameters: UnknownParameters,
    /// How changes through it are seen before and taken back.
    pub undo: Option<UndoRules>,
}

/// How changes through a server are seen before and taken back.
#[derive(Clone, Debug)]
pub enum UndoRules {
    /// Files of this machine are looked at.
    Files {
        /// The folders in which the server works.
        roots: Vec<PathBuf>,
        /// What the parameters of its tools say.
        shapes: BTreeMap<String, FileShape>,
    },
    /// Other tools of the server tell and take back.
    Declared(BTreeMap<String, Declared>),
}

/// The transport to an upstream server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A child process that speaks on its standard input and output.
    Command(UpstreamCommand),
    /// An endpoint that speaks streamable HTTP.
    Url(UpstreamUrl),
    /// Nothing else: Holdpoint serves it.
    Serves(Box<Serves>),
}

/// What Holdpoint serves itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serves {
    /// What it is.
    pub served: Served,
    /// What the addresses of its resources begin with.
    pub address: String,
    /// Most rows of an answer or a preview.
    pub rows_max: u64,
    /// How long statements may run, in milliseconds.
    pub statement_timeout_ms: u64,
    /// How long to wait for a lock, in milliseconds.
    pub lock_timeout_ms: u64,
    /// Variables for the program.
    pub env: BTreeMap<String, ValueSource>,
}

/// A database, a repository, infrastructure, or a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// A SQLite database.
    Sqlite {
        /// Its file.
        path: PathBuf,
    },
    /// A PostgreSQL database.
    Postgres {
        /// Where its URL is.
        url: ValueSource,
    },
    /// A git repository.
    Git {
        /// The work tree.
        repository: PathBuf,
        /// The program.
        program: PathBuf,
        /// Whose commits these are: name and address.
        author: (String, String),
        /// The transports that remotes may use.
        transports: Vec<String>,
        /// True if remotes are as trusted as the repository.
        remote_inside: bool,
        /// True if hooks and configured programs may run.
        programs: bool,
    },
    /// A Terraform root module.
    Terraform {
        /// Its folder.
        directory: PathBuf,
        /// The program.
        program: PathBuf,
        /// The workspace.
        workspace: Option<String>,
        /// Types of resources whose deletion cannot be taken back.
        stateful: BTreeSet<String>,
    },
    /// A shell in a box.
    Shell {
        /// The folder that commands may change.
        workspace: PathBuf,
        /// What they may read besides.
        readable: Vec<PathBuf>,
    },
}

/// A child process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamCommand {
    /// The program.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Environment variables on top of the inherited ones.
    pub env: BTreeMap<String, ValueSource>,
    /// Its absolute working folder; absent to inherit it.
    pub cwd: Option<PathBuf>,
}

/// An HTTP endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamUrl {
    /// The endpoint, `http` or `https`.
    pub url: String,
    /// Headers on every request.
    pub headers: BTreeMap<String, ValueSource>,
    /// How credentials are got, if the server wants OAuth.
    pub oauth: Option<Credentials>,
}

/// How credentials for an endpoint are got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Whether each agent has its own.
    pub sharing: Sharing,
    /// By which grant.
    pub grant: GrantKind,
    /// The scopes to ask for.
    pub scopes: Vec<String>,
    /// Who Holdpoint is to the authorization server.
    pub client: OAuthClient,
    /// The only authorization server to trust.
    pub issuer: Option<String>,
    /// The port to which the browser comes back.
    pub redirect_port: Option<u16>,
}

/// Who Holdpoint is to an authorization server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OAuthClient {
    /// Registered by the operator.
    Registered {
        /// The client's id.
        id: String,
        /// Where its secret is.
        secret: Option<ValueSource>,
    },
    /// The URL of a Client ID Metadata Document.
    MetadataDocument(String),
    /// Registered by itself.
    Dynamic,
}

/// A text, or where to find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueSource {
    /// The text; no secret.
    Literal(String),
    /// The environment variable that holds it.
    Env(String),
    /// The absolute path of the file that holds it.
    File(PathBuf),
}

/// What happens to parameters that a tool's schema does not name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownParameters {
    /// The schema decides.
    #[default]
    AsSchema,
    /// They are refused, whatever the schema says.
    Refuse,
}

// === impl Served ===

impl Served {
    /// What addresses of such resources begin with.
    pub fn scheme(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "sqlite",
            Self::Postgres { .. } => "pg",
            Self::Git { .. } => "git",
            Self::Terraform { .. } => "tf",
            Self::Shell { .. } => "file",
        }
    }
}
