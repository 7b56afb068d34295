//! What an upstream server is, and what is known about how a call on it ended.
//! Must never show a secret: header values and variables have no `Debug` text.

use super::Upstream;
use crate::credentials::OAuthSpec;
use crate::mcp::Outcome;
use crate::process::ProcessSpec;
use holdpoint_types::{Reason, ServerName, ToolRef};
use serde_json::{Map, Value};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// A text that is never printed, and overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Zeroizing<String>);

/// How a server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A child process.
    Stdio(ProcessSpec),
    /// None: Holdpoint serves these tools itself.
    Own(Arc<Vec<Value>>),
    /// Streamable HTTP.
    Http {
        /// The endpoint, `http:` or `https:`.
        url: String,
        /// Headers for every request, names and secret values.
        headers: Vec<(String, SecretText)>,
        /// How its credentials are got, if it wants OAuth.
        oauth: Option<Arc<OAuthSpec>>,
    },
}

/// How much an upstream may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest accepted message, in bytes.
    pub message_bytes_max: usize,
    /// Most calls that wait for an answer at one time.
    pub calls_pending_max: usize,
    /// Most bytes that a server may send while calls wait and none is answered.
    pub flood_bytes_max: usize,
    /// How long a server may take to start and agree on a revision.
    pub start_timeout: Duration,
    /// How long a server may take to answer `server/discover` before it counts as legacy.
    pub probe_timeout: Duration,
    /// How long a cancelled call may take to end, and a process to obey SIGTERM.
    pub grace: Duration,
}

/// One upstream server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSpec {
    /// Its name.
    pub server: ServerName,
    /// How it is reached.
    pub transport: Transport,
    /// How long one request may take.
    pub timeout: Duration,
    /// How much it may take.
    pub limits: Limits,
}

/// One call, or another governed request, exactly as it was decided on.
#[derive(Clone, Debug)]
pub struct ToolCall {
    /// The tool.
    pub tool: ToolRef,
    /// The parameters: a JSON object.
    pub parameters: Value,
    /// The agent's `_meta`, if it sent any.
    pub meta: Option<Value>,
    /// Further members of a call's `params`, passed on as they are.
    pub more: Map<String, Value>,
    /// Where the parameters of progress notifications go; what comes too fast is lost.
    pub progress: Option<mpsc::Sender<Value>>,
}

/// What can end a call early.
#[derive(Clone, Debug, Default)]
pub struct Cancels {
    /// An operator's stop: a stdio server that does not obey is killed.
    pub stop: CancellationToken,
    /// The agent's own wish: the server is asked, never killed.
    pub agent: CancellationToken,
    /// Fired when nothing of the call can run any more: it was answered, or its server is gone.
    /// Later than the end of the call where that was cancelled or late and the server stayed
    /// silent; until then `stop` still kills.
    pub gone: CancellationToken,
}

/// What an upstream answered, as the bytes it was.
pub type Answer = Outcome;

/// How a call ended.
#[derive(Clone, Debug)]
pub enum Ended {
    /// The server answered.
    Answered {
        /// What it answered.
        body: Answer,
        /// True for a JSON-RPC error, and for a result with `isError`.
        tool_error: bool,
    },
    /// The server answered with a task: the call goes on.
    Task {
        /// What it answered.
        body: Answer,
        /// Where the task can be followed, if its agent does that.
        upstream: Option<Upstream>,
    },
    /// No byte of the call reached the server, or the server turned it away unread because of its
    /// credential.
    NotSent {
        /// Why.
        reason: Reason,
        /// Why, for people.
        detail: String,
    },
    /// The call was sent, and what it did is not known.
    InDoubt {
        /// Why.
        reason: Reason,
        /// Why, for people.
        detail: String,
    },
}

/// Why an upstream cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamFault {
    /// It cannot be reached, or died.
    #[error("{0}")]
    Unavailable(String),
    /// It did not answer in time.
    #[error("{0}")]
    Timeout(String),
    /// What it said breaks the protocol.
    #[error("{0}")]
    Invalid(String),
    /// There is no credential that it takes; it has not looked at the request.
    #[error("{0}")]
    Unauthorized(String),
    /// The credential does not reach far enough; it has not looked at the request.
    #[error("{0}")]
    Scope(String),
}

// === impl SecretText ===

impl SecretText {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text, for the wire only.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(…)")
    }
}

// === impl ToolCall ===

impl ToolCall {
    /// A call that carries nothing but its parameters.
    pub fn new(tool: ToolRef, parameters: Value) -> Self {
        Self { tool, parameters, meta: None, more: Map::new(), progress: None }
    }
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 16 << 20,
            calls_pending_max: 256,
            flood_bytes_max: 64 << 20,
            start_timeout: Duration::from_secs(60),
            probe_timeout: Duration::from_secs(3),
            grace: Duration::from_secs(2),
        }
    }
}

// === impl Cancels ===

impl From<CancellationToken> for Cancels {
    /// Cancels by an operator's stop only.
    fn from(stop: CancellationToken) -> Self {
        Self { stop, ..Self::default() }
    }
}

// === impl UpstreamFault ===

impl UpstreamFault {
    /// The stable reason code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unavailable(_) => Reason::UpstreamUnavailable,
            Self::Timeout(_) => Reason::UpstreamTimeout,
            Self::Invalid(_) => Reason::UpstreamInvalid,
            Self::Unauthorized(_) => Reason::CredentialMissing,
            Self::Scope(_) => Reason::CredentialTooNarrow,
        }
    }
}
