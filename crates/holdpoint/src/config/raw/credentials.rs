//! How credentials for an upstream server are got, as it is written. Must not check what it means.

use super::{At, RawReference};
use schemars::JsonSchema;
use serde::Deserialize;

/// OAuth for the URL. Credentials are got with `holdpoint login`, lie encrypted in the store, and
/// go to this URL only.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawCredentials {
    /// Whose they are: `per-agent`, or `shared` by all agents.
    #[schemars(extend("x-default" = "per-agent"))]
    pub credentials: Option<RawSharing>,
    /// `authorization-code`: a person consents in a browser. `client-credentials`: Holdpoint itself
    /// is the client, and nobody logs in.
    #[schemars(extend("x-default" = "authorization-code"))]
    pub grant: Option<RawGrantKind>,
    /// The scopes to ask for.
    #[schemars(extend("x-default" = "those that the server names"))]
    pub scopes: Vec<At<String>>,
    /// The client that the operator registered at the authorization server.
    pub client_id: Option<At<String>>,
    /// Its secret, if it has one: `{ from_env = "NAME" }` or `{ from_file = "PATH" }`.
    pub client_secret: Option<At<RawReference>>,
    /// The `https` URL of a Client ID Metadata Document, in place of `client_id`. Without either,
    /// or where the authorization server takes none, Holdpoint registers itself at each login.
    pub client_metadata: Option<At<String>>,
    /// The only authorization server to trust. Without it, the one that the server names at the
    /// first login is trusted from then on.
    pub issuer: Option<At<String>>,
    /// The port of `http://127.0.0.1:PORT/callback`, to which the browser comes back.
    #[schemars(extend("x-default" = "any free one"))]
    pub redirect_port: Option<At<u64>>,
}

/// Whose a server's credentials are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RawSharing {
    /// Each agent has its own.
    PerAgent,
    /// All agents use one.
    Shared,
}

/// How credentials are granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RawGrantKind {
    /// A person consents.
    AuthorizationCode,
    /// Holdpoint itself is the client.
    ClientCredentials,
}
