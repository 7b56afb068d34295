//! The conversation with an authorization server, led by `rmcp`: finding it, renewing, and the
//! grant without a person.
//!
//! Owns the rules that come on top: the endpoints are reached over TLS, and a credential dies with
//! the issuer that it came from. Must never keep anything.

use super::kept::Kept;
use super::{ClientIdentity, CredentialFault, GrantKind, Holder, Label, OAuthSpec};
use crate::mcp::era::{self, Identity};
use crate::mcp::{Era, RpcId, RpcRequest, headers as names};
use crate::upstream::http;
use ::http::StatusCode;
use ::http::header::{ACCEPT, CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::Url;
use rmcp::transport::auth::{
    AuthError, AuthorizationManager, AuthorizationMetadata, ClientCredentialsConfig,
    CredentialStore as _, InMemoryCredentialStore, OAuthClientConfig, StoredCredentials,
};
use serde_json::Map;
use std::time::Duration;

/// A redirect that is named where none can happen.
const NO_REDIRECT: &str = "http://127.0.0.1/";
/// How long a server may take to say what it wants.
const CHALLENGE_TIMEOUT: Duration = Duration::from_secs(10);

/// An authorization server, found by what the upstream server says.
pub(super) struct Found {
    pub(super) asking: AuthorizationManager,
    pub(super) metadata: AuthorizationMetadata,
    /// Where tokens appear.
    pub(super) held: InMemoryCredentialStore,
}

// === impl Found ===

impl Found {
    /// Finds the authorization server of `spec` (RFC 9728, RFC 8414), from the `challenge` of an
    /// answer if there is one.
    pub(super) async fn of(
        spec: &OAuthSpec,
        challenge: Option<&str>,
    ) -> Result<Self, CredentialFault> {
        // Installing twice fails, and the first one stays: just what is wanted.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let doing = "the authorization server cannot be found";
        let fault = |error| CredentialFault::of(doing, &error);
        let base: Url = spec
            .url
            .parse()
            .map_err(|_| CredentialFault::Refused("the server's URL is malformed".to_owned()))?;
        let mut asking = AuthorizationManager::new(base.clone()).await.map_err(fault)?;
        let found = asking.resolve_metadata_from_challenge(challenge).await.map_err(fault)?;
        let metadata = found.metadata;
        check_endpoints(&base, &metadata)?;
        check_issuer(spec.issuer.as_deref(), issuer_of(&metadata), "the configuration names")?;
        asking.set_metadata(metadata.clone());
        let held = InMemoryCredentialStore::new();
        asking.set_credential_store(held.clone());
        Ok(Self { asking, metadata, held })
    }

    /// The name of the authorization server. One that does not say is named by its endpoint.
    pub(super) fn issuer(&self) -> &str {
        issuer_of(&self.metadata)
    }

    /// What the server supports besides what the standard names first.
    pub(super) fn further(&self, name: &str) -> Option<&serde_json::Value> {
        self.metadata.additional_fields.get(name)
    }

    /// The tokens that appeared.
    pub(super) async fn taken(&self) -> Result<StoredCredentials, CredentialFault> {
        let held = self.held.load().await.ok().flatten();
        held.filter(|held| held.token_response.is_some()).ok_or_else(|| {
            CredentialFault::Refused("the authorization server gave no token".to_owned())
        })
    }

    pub(super) fn label(&self, spec: &OAuthSpec, holder: &Holder) -> Label {
        Label {
            holder: holder.clone(),
            issuer: self.issuer().to_owned(),
            server: spec.server.clone(),
            url: spec.url.clone(),
        }
    }
}

/// What the server says it wants, to a request without a credential. Nothing if it says nothing.
pub(super) async fn challenge_of(spec: &OAuthSpec) -> Option<String> {
    let url: Url = spec.url.parse().ok()?;
    let client = http::client(&url).ok()?;
    let ours = Identity::holdpoint();
    let modern = era::params_for(Era::Modern, Map::new(), &ours);
    let modern = RpcRequest::new(RpcId::Number(0), "server/discover", modern);
    let legacy = era::initialize_params(&ours);
    let legacy = RpcRequest::new(RpcId::Number(0), "initialize", legacy);
    for (request, revision) in [(modern, era::REVISION_MODERN), (legacy, era::REVISION_LEGACY)] {
        let mut post = client.post(url.clone()).body(request.to_bytes());
        let modern = names::standard(&request).into_iter();
        for (name, value) in modern.filter(|_| revision == era::REVISION_MODERN) {
            post = post.header(name, value);
        }
        post = post.header(names::PROTOCOL_VERSION, revision);
        post = post.header(CONTENT_TYPE, "application/json");
        post = post.header(ACCEPT, "application/json, text/event-stream");
        let Ok(answer) = post.timeout(CHALLENGE_TIMEOUT).send().await else { return None };
        if answer.status() == StatusCode::UNAUTHORIZED {
            let all = answer.headers().get_all(WWW_AUTHENTICATE);
            let mut texts = all.iter().filter_map(|value| value.to_str().ok());
            let useful = |text: &&str| text.contains("resource_metadata") || text.contains("scope");
            return texts.find(useful).map(str::to_owned);
        }
    }
    None
}

/// Fresh tokens for those in `kept`; [`CredentialFault::Missing`] with the reason if they died.
pub(super) async fn renew(
    spec: &OAuthSpec,
    (label, kept): (&Label, &Kept),
    challenge: Option<&str>,
) -> Result<Kept, CredentialFault> {
    let mut found = Found::of(spec, challenge).await?;
    check_issuer(Some(&label.issuer), found.issuer(), "it came from")?;
    let client = OAuthClientConfig::new(&kept.credentials.client_id, NO_REDIRECT);
    let client = match secret_of(spec, kept) {
        Some(secret) => client.with_client_secret(secret),
        None => client,
    };
    let doing = "the credential cannot be renewed";
    found.asking.configure_client(client).map_err(|error| CredentialFault::of(doing, &error))?;
    found
        .held
        .save(kept.credentials.clone())
        .await
        .map_err(|error| CredentialFault::of(doing, &error))?;
    match found.asking.refresh_token().await {
        Ok(_) => {}
        Err(AuthError::AuthorizationRequired) => {
            let why = "it expired, and the authorization server gave nothing to renew it with";
            return Err(CredentialFault::Missing(why.to_owned()));
        }
        Err(AuthError::TokenRefreshRejected(_)) => {
            let why = "the authorization server no longer accepts it: it expired or was revoked";
            return Err(CredentialFault::Missing(why.to_owned()));
        }
        Err(error) => return Err(CredentialFault::of(doing, &error)),
    }
    Ok(Kept { credentials: found.taken().await?, ..kept.clone() })
}

/// Tokens for Holdpoint itself, without a person.
pub(super) async fn without_person(
    spec: &OAuthSpec,
    holder: &Holder,
    (bound, challenge): (Option<&str>, Option<&str>),
) -> Result<(Label, Kept), CredentialFault> {
    let mut found = Found::of(spec, challenge).await?;
    // The client's secret goes nowhere else because of what an upstream server says.
    check_issuer(bound, found.issuer(), "the credential came from")?;
    let ClientIdentity::Registered { id, secret: Some(secret) } = &spec.client else {
        let why = "client credentials need `client_id` and `client_secret`";
        return Err(CredentialFault::Refused(why.to_owned()));
    };
    let scopes = match spec.scopes.as_slice() {
        [] => found.asking.select_initial_scopes(&[]).await,
        scopes => scopes.to_vec(),
    };
    let config = ClientCredentialsConfig::ClientSecret {
        client_id: id.clone(),
        client_secret: secret.expose().to_owned(),
        scopes,
        resource: Some(spec.url.clone()),
    };
    let doing = "the authorization server gives no credential";
    let fault = |error| CredentialFault::of(doing, &error);
    found.asking.validate_client_credentials_metadata(&config).map_err(fault)?;
    found.asking.configure_client_credentials(&config).map_err(fault)?;
    found.asking.exchange_client_credentials(&config).await.map_err(fault)?;
    let credentials = found.taken().await?;
    let kept = Kept { credentials, client_secret: None, died: None };
    Ok((found.label(spec, holder), kept))
}

/// The client's secret: the operator's, or the one of a client that registered itself.
pub(super) fn secret_of(spec: &OAuthSpec, kept: &Kept) -> Option<String> {
    match &spec.client {
        ClientIdentity::Registered { secret, .. } => {
            secret.as_ref().map(|secret| secret.expose().to_owned())
        }
        ClientIdentity::MetadataDocument(_) | ClientIdentity::Dynamic => kept.client_secret.clone(),
    }
}

/// True if the tokens in `kept` are those that `spec` now asks for.
pub(super) fn is_for(spec: &OAuthSpec, (label, kept): (&Label, &Kept)) -> bool {
    let client = match &spec.client {
        ClientIdentity::Registered { id, .. } => *id == kept.credentials.client_id,
        ClientIdentity::MetadataDocument(_) | ClientIdentity::Dynamic => true,
    };
    client && label.url == spec.url
}

/// True if nobody needs to log in for `spec`.
pub(super) fn needs_no_person(spec: &OAuthSpec) -> bool {
    match spec.grant {
        GrantKind::AuthorizationCode => false,
        GrantKind::ClientCredentials => true,
    }
}

fn issuer_of(metadata: &AuthorizationMetadata) -> &str {
    metadata.issuer.as_deref().unwrap_or(&metadata.token_endpoint)
}

/// Refuses another authorization server than the expected one.
fn check_issuer(expected: Option<&str>, found: &str, whence: &str) -> Result<(), CredentialFault> {
    match expected {
        Some(expected) if expected != found => {
            let shown: String = found.chars().take(200).filter(|it| !it.is_control()).collect();
            let why = format!("{whence} `{expected}`, and the server now trusts `{shown}`");
            Err(CredentialFault::Missing(why))
        }
        Some(_) | None => Ok(()),
    }
}

/// Nothing secret goes over a wire that others can read, unless it never leaves this machine.
fn check_endpoints(base: &Url, metadata: &AuthorizationMetadata) -> Result<(), CredentialFault> {
    let named = [
        Some(&metadata.authorization_endpoint),
        Some(&metadata.token_endpoint),
        metadata.registration_endpoint.as_ref(),
        metadata.issuer.as_ref(),
    ];
    for text in named.into_iter().flatten() {
        let url = Url::parse(text).ok();
        let fits = url.as_ref().is_some_and(|url| match url.scheme() {
            "https" => true,
            "http" => is_loopback(base) && is_loopback(url),
            _ => false,
        });
        if !fits {
            let shown: String =
                text.chars().take(200).filter(|found| !found.is_control()).collect();
            let why = format!("the authorization server names `{shown}`, which is not `https`");
            return Err(CredentialFault::Refused(why));
        }
    }
    Ok(())
}

fn is_loopback(url: &Url) -> bool {
    http::is_loopback(url)
}
