//! The door as an OAuth 2.1 resource server: which agent an access token acts as, and how far its
//! scopes reach. Follows MCP's authorization specification (revision 2026-07-28, and those before
//! it), RFC 9728, RFC 6750, RFC 8707 and RFC 9068.
//!
//! Must never hand a token on, log it or record it, nor let one through that was issued for another
//! resource.

mod access_token;
mod fetch;
mod jwk;
mod keys;

pub use fetch::{FetchFault, is_loopback};
pub use jwk::Algorithm;
pub use keys::{IssuerKeys, KeyHealth, KeySource, KeySpec};

use super::{Caller, HttpDoor, Refused, respond_json, tools};
use access_token::{Claims, Expected, TokenFault, Unverified};
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use holdpoint_resources::mcp::RpcRequest;
use holdpoint_types::{AgentName, EffectClass, Reason, ServerName, Timestamp};
use jwk::KeyFault;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Where metadata of a resource is, before the resource's own path (RFC 9728, section 3.1).
const METADATA_PATH: &str = "/.well-known/oauth-protected-resource";

/// The scopes that a token needs; each reaches the milder classes, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scopes {
    /// To come in, and to call what reads.
    pub read: String,
    /// To call what writes.
    pub write: String,
    /// To call what destroys.
    pub destructive: String,
}

/// Whose tokens are accepted, and what they say.
#[derive(Clone, Debug)]
pub struct OauthSettings {
    /// Where agents reach this server: scheme and authority.
    pub base: String,
    /// Audiences that are accepted at every endpoint, besides the endpoint's own URI.
    pub audiences: Vec<String>,
    /// The scopes.
    pub scopes: Scopes,
    /// How tokens may be signed.
    pub algorithms: BTreeSet<Algorithm>,
    /// How far clocks may differ, in seconds.
    pub leeway_s: u32,
    /// The agents that clients act as.
    pub clients: BTreeMap<String, AgentName>,
    /// The agents that subjects act as.
    pub subjects: BTreeMap<String, AgentName>,
}

/// The resource server.
#[derive(Clone, Debug)]
pub struct ResourceServer {
    settings: OauthSettings,
    keys: Arc<IssuerKeys>,
}

/// Why a token's bearer does not come in.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Unadmitted {
    #[error("the access token is not valid here: {0}")]
    Token(#[from] TokenFault),
    #[error("the issuer's keys are not known now, so no access token can be checked")]
    NoKeys,
    #[error("no agent is declared for the client and the subject of the access token")]
    NoAgent,
    #[error("the client and the subject of the access token are different agents")]
    TwoAgents,
    #[error("the access token has no scope that is known here")]
    NoScope,
}

// === impl Scopes ===

impl Scopes {
    /// The scope that reaches tools of `class`.
    fn of(&self, class: EffectClass) -> &str {
        match class {
            EffectClass::Read => &self.read,
            EffectClass::Write => &self.write,
            EffectClass::Destructive => &self.destructive,
        }
    }

    /// The most dangerous class that these scopes reach.
    fn reach(&self, granted: &BTreeSet<String>) -> Option<EffectClass> {
        EffectClass::ALL.into_iter().rev().find(|class| granted.contains(self.of(*class)))
    }
}

// === impl ResourceServer ===

impl ResourceServer {
    /// A server for these settings that trusts these keys.
    pub fn new(settings: OauthSettings, keys: Arc<IssuerKeys>) -> Self {
        Self { settings, keys }
    }

    /// The issuer's keys.
    pub fn keys(&self) -> &Arc<IssuerKeys> {
        &self.keys
    }

    /// The URI of an endpoint, which a token must be for.
    fn resource(&self, server: Option<&ServerName>) -> String {
        format!("{}{}", self.settings.base, path_of(server))
    }

    /// Who comes with this token.
    async fn caller(
        &self,
        token: &str,
        server: Option<&ServerName>,
        now: Timestamp,
    ) -> Result<Caller, Unadmitted> {
        let token = Unverified::read(token)?;
        let resource = self.resource(server);
        let more = self.settings.audiences.iter().map(String::as_str);
        let audiences: Vec<_> = more.chain([resource.as_str()]).collect();
        let expected = Expected {
            issuer: &self.keys.spec().issuer,
            audiences: &audiences,
            algorithms: &self.settings.algorithms,
            leeway_s: self.settings.leeway_s,
        };
        let keys = self.keys.current().await.ok_or(Unadmitted::NoKeys)?;
        let claims = match token.verify(expected, &keys, now) {
            Err(TokenFault::Key(KeyFault::Unknown)) => {
                // Perhaps a new key: worth a look, as long as looks are few.
                let newer = self.keys.newer().await.unwrap_or(keys);
                token.verify(expected, &newer, now)?
            }
            verified => verified?,
        };
        self.settings.admit(&claims)
    }

    /// The `WWW-Authenticate` of a refusal at an endpoint.
    fn challenge(&self, server: Option<&ServerName>, scope: &str, error: &str) -> String {
        let metadata = format!("{}{METADATA_PATH}{}", self.settings.base, path_of(server));
        format!("Bearer {error}resource_metadata=\"{metadata}\", scope=\"{scope}\"")
    }
}

// === impl OauthSettings ===

impl OauthSettings {
    /// The declared agent that acts for these claims, and how far.
    fn admit(&self, claims: &Claims) -> Result<Caller, Unadmitted> {
        let by = |name: &Option<String>, agents: &BTreeMap<String, AgentName>| {
            agents.get(name.as_ref()?).cloned()
        };
        let client = by(&claims.client, &self.clients);
        let subject = by(&claims.subject, &self.subjects);
        let agent = match (client, subject) {
            (Some(one), Some(other)) if one != other => return Err(Unadmitted::TwoAgents),
            (one, other) => one.or(other).ok_or(Unadmitted::NoAgent)?,
        };
        let reach = self.scopes.reach(&claims.scopes).ok_or(Unadmitted::NoScope)?;
        Ok(Caller { agent, reach })
    }
}

// === impl Unadmitted ===

impl Unadmitted {
    /// Status, reason, and the error code of a challenge, if another token could help.
    fn answer(&self) -> (StatusCode, Reason, Option<&'static str>) {
        match self {
            Self::Token(_) => {
                (StatusCode::UNAUTHORIZED, Reason::TokenInvalid, Some("invalid_token"))
            }
            Self::NoScope => {
                (StatusCode::FORBIDDEN, Reason::ScopeInsufficient, Some("insufficient_scope"))
            }
            Self::NoAgent | Self::TwoAgents => (StatusCode::FORBIDDEN, Reason::TokenUnmapped, None),
            Self::NoKeys => (StatusCode::SERVICE_UNAVAILABLE, Reason::IssuerUnavailable, None),
        }
    }
}

// === impl HttpDoor ===

impl HttpDoor {
    /// Who comes with an access token.
    pub(super) async fn by_token(
        &self,
        (oauth, token): (&ResourceServer, &str),
        server: Option<&ServerName>,
    ) -> Result<Caller, Box<Refused>> {
        let came = oauth.caller(token, server, self.governor.now()).await;
        came.map_err(|why| {
            let (status, reason, error) = why.answer();
            let refused = Refused::new(status, reason, why.to_string());
            let Some(error) = error else { return refused };
            // What may stand there is said by RFC 6750, section 3.
            let described = why.to_string().replace(['"', '\\'], "'");
            let error = format!("error=\"{error}\", error_description=\"{described}\", ");
            refused.challenging(oauth.challenge(server, &oauth.settings.scopes.read, &error))
        })
    }

    /// A refusal of who came without anything that lets in.
    pub(super) fn unauthenticated(
        &self,
        server: Option<&ServerName>,
        (detail, error): (&str, &str),
    ) -> Box<Refused> {
        let status = StatusCode::UNAUTHORIZED;
        let refused = Refused::new(status, Reason::Unauthenticated, detail.to_owned());
        match &self.settings.load().oauth {
            None => refused.challenging("Bearer".to_owned()),
            Some(oauth) => {
                let scope = &oauth.settings.scopes.read;
                refused.challenging(oauth.challenge(server, scope, error))
            }
        }
    }

    /// Sees whether the caller's token reaches what the request asks for.
    pub(super) async fn check_reach(
        &self,
        caller: &Caller,
        server: Option<&ServerName>,
        request: &RpcRequest,
    ) -> Result<(), Box<Refused>> {
        // Everything but a call, and what feeds one that goes on, reads, and nobody comes in with
        // less.
        if caller.reach == EffectClass::Destructive {
            return Ok(());
        }
        let tool = match request.method.as_str() {
            // A plan permits nothing: every call of it is looked at again.
            "tools/call" if self.is_about_plans(request) => return Ok(()),
            "tools/call" => tools::tool_of(server, request)?,
            _ => match self.fed_tool(&caller.agent, request) {
                Some(tool) => tool,
                None => return Ok(()),
            },
        };
        let class = self.class_of(&caller.agent, &tool).await;
        // What nobody offers has no class, and no scope would do.
        let class = class.ok_or_else(|| tools::unknown_tool(request, &tool.to_string()))?;
        let parameters = request.param("arguments").unwrap_or(&serde_json::Value::Null);
        let whose = (&caller.agent, &tool);
        // What cannot be read keeps the tool's own class, and is denied later.
        let effects = self.governor.analyse(whose, parameters).await.ok().flatten();
        let settings = self.governor.settings();
        let strictest = effects.and_then(|effects| {
            let facts = settings.effect_facts(&caller.agent, &tool, &effects);
            facts.first().map(|one| one.effect.class)
        });
        let class = strictest.unwrap_or(class);
        if class <= caller.reach {
            return Ok(());
        }
        let reason = Reason::ScopeInsufficient;
        let detail = format!("the access token's scopes do not reach `{tool}`, which is {class}");
        let refused = Refused::new(StatusCode::FORBIDDEN, reason, detail).about(request);
        let Some(oauth) = self.settings.load().oauth.clone() else { return Err(refused) };
        let scope = oauth.settings.scopes.of(class);
        let error = "error=\"insufficient_scope\", \
                     error_description=\"the tool needs more than the token's scopes\", ";
        let challenge = oauth.challenge(server, scope, error);
        Err(refused.challenging(challenge).telling(json!({ "scope": scope })))
    }

    /// What clients read to find the issuer. The same for every name, declared or not: which
    /// servers there are is nobody's business before a token.
    fn metadata(&self, headers: &HeaderMap, server: Option<&ServerName>) -> Response {
        if let Err(refused) = self.check_host(headers) {
            return refused.into_response();
        }
        let settings = self.settings.load();
        let Some(oauth) = &settings.oauth else { return StatusCode::NOT_FOUND.into_response() };
        respond_json(&json!({
            "resource": oauth.resource(server),
            "authorization_servers": [oauth.keys.spec().issuer],
            // The least that is of use; a call that needs more says so (MCP, scope selection).
            "scopes_supported": [oauth.settings.scopes.read],
            "bearer_methods_supported": ["header"],
            "resource_name": "Holdpoint",
        }))
    }
}

/// `GET /.well-known/oauth-protected-resource`, and below it with `/mcp`.
pub(super) async fn metadata_of_all(
    State(door): State<Arc<HttpDoor>>,
    headers: HeaderMap,
) -> Response {
    door.metadata(&headers, None)
}

/// `GET /.well-known/oauth-protected-resource/mcp/{server}`.
pub(super) async fn metadata_of_one(
    State(door): State<Arc<HttpDoor>>,
    UrlPath(server): UrlPath<String>,
    headers: HeaderMap,
) -> Response {
    match server.parse() {
        Ok(name) => door.metadata(&headers, Some(&name)),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

fn path_of(server: Option<&ServerName>) -> String {
    server.map_or_else(|| "/mcp".to_owned(), |server| format!("/mcp/{server}"))
}

#[cfg(test)]
mod tests;
