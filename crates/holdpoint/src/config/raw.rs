//! The configuration file as it is written: one serde struct per table, every value with its place.
//! The documentation of each field is the configuration reference. Must not check what values mean.

mod agents;
mod credentials;
mod effects;
mod freezes;
mod notify;
mod operators;
mod plans;
mod policies;
mod serves;
mod undo;
mod validators;

pub use agents::{RawAgent, RawBearer, RawGrant};
pub use credentials::{RawCredentials, RawGrantKind, RawSharing};
pub use effects::{
    RawDialect, RawEffects, RawFamily, RawInvariant, RawInvariantResult, RawKeep, RawOpenApi,
    RawPlace,
};
pub use freezes::{RawFreeze, RawTime};
pub use notify::{RawLinks, RawNotify, RawShape};
pub use operators::{RawApproval, RawOperator};
pub use plans::{RawAccept, RawPlans};
pub use policies::{RawGuard, RawPolicies};
pub use serves::RawServes;
pub use undo::{RawDisclosure, RawInverse, RawMapped, RawRead, RawToolUndo, RawUndo};
pub use validators::{RawValidator, RawWhen};

use holdpoint_types::{EffectClass, Mode};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use toml::Spanned;

/// A value and where it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct At<T>(Spanned<T>);

/// A table whose keys are names that the operator chooses.
pub type Named<T> = BTreeMap<At<String>, At<T>>;

/// The configuration of Holdpoint.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "holdpoint.toml")]
pub struct RawConfig {
    /// Where records, pins, keys and stops are kept.
    pub store: RawStore,
    /// Where `holdpoint serve` listens.
    pub listen: RawListen,
    /// Where the policies are.
    pub policies: RawPolicies,
    /// Limits on everything that others could make large or slow.
    pub limits: RawLimits,
    /// The teams that own agents.
    pub team: Named<RawTeam>,
    /// Who may speak for the operator. Without one, only the account that owns the store may.
    pub operator: Named<RawOperator>,
    /// What approvals need, by the names that `@hold` calls them.
    pub approval: Named<RawApproval>,
    /// The agents. Nobody else may act.
    pub agent: Named<RawAgent>,
    /// The upstream servers whose tools agents may call.
    pub server: Named<RawServer>,
    /// Where resources live. An action whose environment nobody names counts as `prod`.
    pub environment: Vec<At<RawEnvironment>>,
    /// Named sets of resources with shared danger; policies refer to them.
    pub surface: Vec<At<RawSurface>>,
    /// Spans of time in which changes are not wanted; policies refer to them.
    pub freeze: Vec<At<RawFreeze>>,
    /// What agents may plan, and who accepts it. Without it they can propose no plans.
    pub plans: Option<At<RawPlans>>,
    /// Independent voices about calls; they can only make decisions stricter.
    pub validator: Named<RawValidator>,
    /// Who is told of approvals.
    pub notify: Named<RawNotify>,
    /// What breaking an invariant does, by its code; [effects.md](effects.md) lists them.
    pub invariant: Named<RawInvariant>,
}

/// Where records, pins, keys and stops are kept.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawStore {
    /// The store's folder, relative to this file.
    #[schemars(extend("x-default" = ".holdpoint"))]
    pub path: Option<At<String>>,
    /// Where the key is that seals the credentials for upstream servers, 64 hex digits:
    /// `{ from_env = "NAME" }` or `{ from_file = "PATH" }`.
    #[schemars(extend("x-default" = "`credentials.key` in the store"))]
    pub credential_key: Option<At<RawReference>>,
}

/// Where `holdpoint serve` listens.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawListen {
    /// Address and port for MCP over HTTP.
    #[schemars(extend("x-default" = "127.0.0.1:4747"))]
    pub http: Option<At<String>>,
    /// Address and port for `/healthz`, `/readyz` and `/metrics`, without keys; for example
    /// `127.0.0.1:4748`. Without it there are none.
    pub operations: Option<At<String>>,
    /// TLS for MCP over HTTP. Without it, plain HTTP.
    pub tls: Option<At<RawTls>>,
    /// `true` allows addresses that other machines can reach. Then use `[listen.tls]`, or put TLS
    /// in front.
    #[schemars(extend("x-default" = false))]
    pub exposed: Option<At<bool>>,
    /// The authorities that requests may name in `Host` and `Origin`.
    #[schemars(extend("x-default" = "the address, and `localhost` with its port"))]
    pub hosts: Option<Vec<At<String>>>,
    /// The declared agent as which requests without a key act. Without it they are refused.
    pub anonymous_agent: Option<At<String>>,
    /// Access tokens of an OAuth 2.1 issuer, besides agents' keys. Without it, keys only.
    pub oauth: Option<At<RawOauth>>,
}

/// TLS for MCP over HTTP, from PEM files. SIGHUP reads them anew.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawTls {
    /// The file with the certificate and those that lead to its authority, relative to this file.
    #[schemars(extend("x-required" = true))]
    pub certificate: Option<At<String>>,
    /// The file with the certificate's private key.
    #[schemars(extend("x-required" = true))]
    pub key: Option<At<String>>,
    /// The file with the authorities of clients' certificates. With it, a client without such a
    /// certificate gets no connection; it still needs its agent key.
    pub client_ca: Option<At<String>>,
}

/// Access tokens (JWT) of an OAuth 2.1 issuer, as MCP's authorization specification describes them.
/// Which agent a token acts as is said by `oauth` in `[agent.NAME]`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawOauth {
    /// The issuer, exactly as its tokens and its metadata write it. Plain `http` only on this
    /// machine.
    #[schemars(extend("x-required" = true))]
    pub issuer: Option<At<String>>,
    /// Where agents reach this server: scheme and authority, for example
    /// `https://holdpoint.example.com`. A token must be for this with `/mcp`, or `/mcp/NAME` at the
    /// endpoint of one server.
    #[schemars(extend("x-default" = "the address"))]
    pub resource: Option<At<String>>,
    /// More audiences that are accepted, at every endpoint; for issuers that do not know the
    /// `resource` parameter (RFC 8707).
    pub audiences: Vec<At<String>>,
    /// Where the issuer's keys are.
    #[schemars(extend("x-default" = "where its metadata says"))]
    pub jwks_uri: Option<At<String>>,
    /// The file with the issuer's keys, relative to this file. Either this or `jwks_uri`.
    pub jwks_file: Option<At<String>>,
    /// How tokens may be signed: some of `EdDSA`, `ES256`, `ES384`, `PS256`, `PS384`, `PS512`,
    /// `RS256`, `RS384` and `RS512`.
    #[schemars(extend("x-default" = "all of them"))]
    pub algorithms: Option<Vec<At<String>>>,
    /// How far the issuer's clock and ours may differ, in seconds (0 to 300).
    #[schemars(extend("x-default" = 30))]
    pub leeway_s: Option<At<u64>>,
    /// How often the keys are fetched anew, in seconds (1 to 86400).
    #[schemars(extend("x-default" = 300))]
    pub keys_refresh_s: Option<At<u64>>,
    /// How long keys are good after the last fetch that succeeded, in seconds (1 to 604800).
    #[schemars(extend("x-default" = 3600))]
    pub keys_stale_s: Option<At<u64>>,
    /// The names of scopes.
    pub scopes: RawScopes,
}

/// The scopes that a token needs. Each reaches the milder classes, too.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawScopes {
    /// To come in, and to call tools that read.
    #[schemars(extend("x-default" = "mcp:read"))]
    pub read: Option<At<String>>,
    /// To call tools that write.
    #[schemars(extend("x-default" = "mcp:write"))]
    pub write: Option<At<String>>,
    /// To call tools that destroy.
    #[schemars(extend("x-default" = "mcp:destructive"))]
    pub destructive: Option<At<String>>,
}

/// Limits on everything that others could make large or slow.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawLimits {
    /// Longest message in either direction, in bytes (1024 to 1073741824).
    #[schemars(extend("x-default" = 4_194_304))]
    pub message_bytes_max: Option<At<u64>>,
    /// Longest tool output that the ledger keeps word for word, in bytes (0 to 16777216). Of a
    /// longer one it keeps the digest.
    #[schemars(extend("x-default" = 65_536))]
    pub output_stored_bytes_max: Option<At<u64>>,
    /// Most calls at one time, of all agents together (1 to 65536).
    #[schemars(extend("x-default" = 256))]
    pub calls_in_flight_max: Option<At<u64>>,
    /// Most checks after calls that may wait to be made (1 to 10000000); beyond, calls that need
    /// some are refused.
    #[schemars(extend("x-default" = 100_000))]
    pub checks_open_max: Option<At<u64>>,
    /// How long previews, and what takes actions back, are kept, in seconds (60 to 31536000).
    #[schemars(extend("x-default" = 604_800))]
    pub undo_keep_s: Option<At<u64>>,
    /// How long a call may take where its server has no `timeout_ms`, in milliseconds (1 to
    /// 86400000).
    #[schemars(extend("x-default" = 60_000))]
    pub call_timeout_ms: Option<At<u64>>,
    /// How long a stopped call may take to end before its process is killed, in milliseconds (0 to
    /// 60000).
    #[schemars(extend("x-default" = 2_000))]
    pub stop_grace_ms: Option<At<u64>>,
    /// How long calls may take to end when `serve` is asked to end, before they are stopped, in
    /// milliseconds (0 to 3600000).
    #[schemars(extend("x-default" = 10_000))]
    pub drain_ms: Option<At<u64>>,
    /// Most requests of one agent at one time over HTTP (1 to 65536). More wait for their turn.
    #[schemars(extend("x-default" = 64))]
    pub agent_calls_max: Option<At<u64>>,
    /// Most requests of one agent that wait for their turn (0 to 65536). More are answered with
    /// 503.
    #[schemars(extend("x-default" = 64))]
    pub agent_queue_max: Option<At<u64>>,
    /// How long a request may wait for its turn, in milliseconds (1 to 600000).
    #[schemars(extend("x-default" = 5_000))]
    pub queue_wait_ms: Option<At<u64>>,
    /// Most connections over HTTP (1 to 65536).
    #[schemars(extend("x-default" = 1_024))]
    pub connections_max: Option<At<u64>>,
    /// Most connections from one IPv4 address or IPv6 /64 network (1 to 65536). Behind a proxy, all
    /// agents share its address.
    #[schemars(extend("x-default" = 256))]
    pub connections_per_address_max: Option<At<u64>>,
    /// Longest head of a request, in bytes (8192 to 1048576).
    #[schemars(extend("x-default" = 16_384))]
    pub header_bytes_max: Option<At<u64>>,
    /// Most headers of a request (16 to 1000).
    #[schemars(extend("x-default" = 100))]
    pub header_count_max: Option<At<u64>>,
    /// How long the TLS handshake and the head of a request may take, in milliseconds (10 to
    /// 600000).
    #[schemars(extend("x-default" = 10_000))]
    pub header_timeout_ms: Option<At<u64>>,
    /// How long the body of a request may take, in milliseconds (10 to 3600000).
    #[schemars(extend("x-default" = 30_000))]
    pub body_timeout_ms: Option<At<u64>>,
    /// How long a connection may be silent between requests, in milliseconds (10 to 3600000).
    #[schemars(extend("x-default" = 75_000))]
    pub idle_timeout_ms: Option<At<u64>>,
    /// How long a peer may take no byte of an answer, in milliseconds (10 to 3600000).
    #[schemars(extend("x-default" = 30_000))]
    pub write_timeout_ms: Option<At<u64>>,
}

/// A team that answers for agents.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawTeam {
    /// How to reach whoever is on call: a link, a channel, a number.
    pub on_call: Option<At<String>>,
}

/// An upstream server: a command that speaks MCP on its standard input and output, a URL that
/// speaks MCP over streamable HTTP, or something that Holdpoint serves itself.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawServer {
    /// The program and its arguments. Either this or `url`.
    pub command: Option<At<Vec<At<String>>>>,
    /// The endpoint. Either this or `command`.
    pub url: Option<At<String>>,
    /// What Holdpoint serves itself, instead of leading to a server.
    pub serves: Option<At<RawServes>>,
    /// The host whose tools these are, instead of a server's: it executes them itself, and its
    /// hooks ask `holdpoint hook` before. The only one is `claude-code`.
    pub host: Option<At<RawHost>>,
    /// Environment variables for the command: a text, or `{ from_env = "NAME" }` or
    /// `{ from_file = "PATH" }` for secrets.
    pub env: BTreeMap<At<String>, At<RawValue>>,
    /// Headers for the URL, written like `env`.
    pub headers: BTreeMap<At<String>, At<RawValue>>,
    /// OAuth for the URL.
    pub oauth: Option<At<RawCredentials>>,
    /// The command's working folder, relative to this file. Relative paths in parameters are read
    /// against it.
    pub cwd: Option<At<String>>,
    /// The environment of its tools where no `[[environment]]` says otherwise.
    #[schemars(extend("x-default" = "none, which counts as `prod`"))]
    pub environment: Option<At<String>>,
    /// How long a call may take, in milliseconds (1 to 86400000).
    #[schemars(extend("x-default" = "`limits.call_timeout_ms`"))]
    pub timeout_ms: Option<At<u64>>,
    /// `true` refuses parameters that the tool's schema does not name.
    #[schemars(extend("x-default" = false))]
    pub strict: Option<At<bool>>,
    /// Patterns over its own tool names that only read. A tool in two lists takes the stricter, a
    /// tool in none is destructive. Reading its resources and prompts always counts as `read`: as
    /// `SERVER__resources/read`, `SERVER__resources/subscribe`, `SERVER__prompts/get` and
    /// `SERVER__completion/complete` in grants.
    pub read: Vec<At<String>>,
    /// Patterns over its own tool names that write.
    pub write: Vec<At<String>>,
    /// Patterns over its own tool names that destroy.
    pub destructive: Vec<At<String>>,
    /// Rules for single tools.
    pub tool: Named<RawTool>,
    /// Where calls of its tools run, for analyses of what they would do.
    pub place: Option<At<RawPlace>>,
    /// How changes through it are seen before and taken back.
    pub undo: Option<At<RawUndo>>,
    /// Whether it may have an agent's model say something for it.
    #[schemars(extend("x-default" = "pass"))]
    pub sampling: Option<RawAsk>,
    /// Whether it may ask an agent's user something.
    #[schemars(extend("x-default" = "pass"))]
    pub elicitation: Option<RawAsk>,
    /// Whether it may ask where an agent works.
    #[schemars(extend("x-default" = "pass"))]
    pub roots: Option<RawAsk>,
}

/// A program that runs a coding agent, and executes its tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RawHost {
    /// Claude Code.
    ClaudeCode,
}

/// What holds for one tool, whatever the server's patterns say.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawTool {
    /// `read`, `write` or `destructive`; wins over the patterns.
    pub class: Option<RawClass>,
    /// What a call is aimed at, with JSON Pointers into the parameters: `file://{/path}`.
    #[schemars(extend("x-default" = "mcp://SERVER/TOOL"))]
    pub resource: Option<At<String>>,
    /// How its calls are analysed, so that each is judged by what it would do: tables such as
    /// `{ family = "shell", text = "/command" }`.
    pub effects: Vec<At<RawEffects>>,
    /// How its calls are seen before and taken back, by other tools of the server.
    pub undo: Option<At<RawToolUndo>>,
}

/// Where resources live, as far as danger is concerned.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawEnvironment {
    /// Its name: `prod`, `dev`, ….
    #[schemars(extend("x-required" = true))]
    pub name: Option<At<String>>,
    /// Patterns over resources: `*` stays within a segment, `**` spans segments.
    pub resources: Vec<At<String>>,
    /// Servers all of whose tools act in it.
    pub servers: Vec<At<String>>,
}

/// A named set of resources with shared danger.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawSurface {
    /// Its name. The starter pack holds changes to `prod`, `auth`, `network`, `billing`, `ci` and
    /// `secrets`.
    #[schemars(extend("x-required" = true))]
    pub name: Option<At<String>>,
    /// Patterns over resources: `*` stays within a segment, `**` spans segments.
    pub resources: Vec<At<String>>,
    /// Patterns over `server__tool`.
    pub tools: Vec<At<String>>,
}

/// What becomes of something that a server asks of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RawAsk {
    /// It passes unchanged.
    Pass,
    /// It is refused, and the server is told that the agent cannot do it.
    Forbid,
}

/// An effect class.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RawClass {
    /// Looks, changes nothing.
    Read,
    /// Changes something that can be changed back.
    Write,
    /// Deletes, revokes, destroys.
    Destructive,
}

/// A mode.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RawMode {
    /// Whatever policy permits.
    Auto,
    /// Every write is held for an approval.
    ApproveWrites,
    /// Reads run; anything else is planned, never executed.
    PlanOnly,
    /// Reads run; anything else is denied.
    ReadOnly,
    /// Nothing runs.
    Quarantined,
}

/// A text, or where to find it.
#[derive(Clone, Debug)]
pub enum RawValue {
    /// The text itself; never a secret.
    Literal(String),
    /// Where to find it.
    Reference(RawReference),
}

/// Where to find a secret. Exactly one of the two.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawReference {
    /// The environment variable that holds it.
    pub from_env: Option<At<String>>,
    /// The file that holds it, relative to this file.
    pub from_file: Option<At<String>>,
}

struct ValueVisitor;

// === impl At ===

impl<T> At<T> {
    /// The value.
    pub fn get(&self) -> &T {
        self.0.get_ref()
    }

    /// Where it stands, in bytes from the start of the file.
    pub fn span(&self) -> Range<usize> {
        self.0.span()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Self)
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

// === impl RawClass ===

impl From<RawClass> for EffectClass {
    fn from(class: RawClass) -> Self {
        match class {
            RawClass::Read => Self::Read,
            RawClass::Write => Self::Write,
            RawClass::Destructive => Self::Destructive,
        }
    }
}

// === impl RawMode ===

impl From<RawMode> for Mode {
    fn from(mode: RawMode) -> Self {
        match mode {
            RawMode::Auto => Self::Auto,
            RawMode::ApproveWrites => Self::ApproveWrites,
            RawMode::PlanOnly => Self::PlanOnly,
            RawMode::ReadOnly => Self::ReadOnly,
            RawMode::Quarantined => Self::Quarantined,
        }
    }
}

// === impl RawValue ===

impl<'de> Deserialize<'de> for RawValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

impl JsonSchema for RawValue {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Value".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let reference = generator.subschema_for::<RawReference>();
        json_schema!({ "anyOf": [{ "type": "string" }, reference] })
    }
}

// === impl ValueVisitor ===

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = RawValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, `{ from_env = \"NAME\" }` or `{ from_file = \"PATH\" }`")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RawValue, E> {
        Ok(RawValue::Literal(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawValue, A::Error> {
        RawReference::deserialize(MapAccessDeserializer::new(map)).map(RawValue::Reference)
    }
}
