//! Credentials for upstream servers that want OAuth: how they are got, where they lie, and the
//! header that carries them.
//!
//! Each belongs to one agent, unless the operator shares it. It is bound to its server's URL and to
//! the authorization server that it came from. Must never send one to anybody else, print one, or
//! give one agent another agent's.

mod bearer;
mod fault;
mod grant;
mod kept;
mod login;
pub(crate) mod vault;

pub use bearer::Bearer;
pub(crate) use bearer::Judged;
pub use fault::CredentialFault;
pub use kept::Standing;
pub use login::{Issued, Login, Revoked, log_in_alone, log_out};
pub use vault::{Label, Vault, VaultFault};

use crate::upstream::SecretText;
use holdpoint_types::{AgentName, ServerName};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Whose a credential is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// One agent's.
    Agent(AgentName),
    /// Shared by all agents.
    Everybody,
}

/// How credentials for one server are got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuthSpec {
    /// The server.
    pub server: ServerName,
    /// Its endpoint.
    pub url: String,
    /// Whether each agent has its own.
    pub sharing: Sharing,
    /// The scopes to ask for; those that the server names if there are none.
    pub scopes: Vec<String>,
    /// Who Holdpoint is to the authorization server.
    pub client: ClientIdentity,
    /// The only authorization server to trust, if the operator names one.
    pub issuer: Option<String>,
    /// By which grant.
    pub grant: GrantKind,
    /// Where they lie.
    pub vault: Vault,
}

/// Whether agents share a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Each agent has its own.
    PerAgent,
    /// All agents use one.
    Shared,
}

/// Who Holdpoint is to an authorization server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientIdentity {
    /// Registered by the operator.
    Registered {
        /// The client's id.
        id: String,
        /// Its secret, if it has one.
        secret: Option<SecretText>,
    },
    /// The URL of a Client ID Metadata Document.
    MetadataDocument(String),
    /// Registered by itself, at each login.
    Dynamic,
}

/// How a credential is granted (RFC 6749).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantKind {
    /// A person consents in a browser; with PKCE.
    AuthorizationCode,
    /// Holdpoint itself is the client.
    ClientCredentials,
}

// === impl OAuthSpec ===

impl OAuthSpec {
    /// Whose credential the calls of `agent` use.
    pub fn holder(&self, agent: &AgentName) -> Holder {
        match self.sharing {
            Sharing::PerAgent => Holder::Agent(agent.clone()),
            Sharing::Shared => Holder::Everybody,
        }
    }

    /// What an operator runs to get a credential.
    pub(crate) fn command(&self, holder: &Holder) -> String {
        let server = &self.server;
        match holder {
            Holder::Agent(agent) => format!("holdpoint login {server} --agent {agent}"),
            Holder::Everybody => format!("holdpoint login {server}"),
        }
    }
}

// === impl Holder ===

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(agent) => agent.fmt(f),
            Self::Everybody => f.write_str("all agents"),
        }
    }
}
