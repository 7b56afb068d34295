//! Logging in and out: the grant with a person's consent, and taking a credential back.
//!
//! Owns the order: nothing is kept before the authorization server's answer was checked. Must never
//! wait for a person; whoever brings the redirect does.

use super::grant::{self, Found};
use super::kept::Kept;
use super::{ClientIdentity, CredentialFault, Holder, OAuthSpec, Sharing};
use crate::upstream::http;
use reqwest::Url;
use rmcp::transport::auth::{AuthorizationCallback, OAuthClientConfig};
use std::time::Duration;
use subtle::ConstantTimeEq as _;

/// What Holdpoint calls itself where it registers.
const CLIENT_NAME: &str = "Holdpoint";
/// A scope that lets a credential be renewed (OpenID Connect).
const OFFLINE: &str = "offline_access";
/// How long an authorization server may take to revoke something.
const REVOKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A login that waits for a person.
pub struct Login {
    found: Found,
    holder: Holder,
    client_secret: Option<String>,
    url: String,
    state: String,
}

/// A credential that was issued. Holds no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// By which authorization server.
    pub issuer: String,
    /// To which client.
    pub client: String,
    /// The granted scopes.
    pub scopes: Vec<String>,
    /// When it expires, in seconds since 1970.
    pub expires_at: Option<u64>,
}

/// What became of a credential that was deleted here, at its authorization server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// It was revoked there.
    Done,
    /// The server offers no revocation, or there was nothing left to revoke.
    NotOffered,
    /// It could not be revoked.
    Failed(String),
}

// === impl Login ===

impl Login {
    /// Prepares the login of `holder`, who comes back to `redirect`. Asks for `scopes` on top of
    /// the configured and of those that the holder has.
    ///
    /// # Errors
    /// When the authorization server cannot be found or used, or Holdpoint cannot be its client.
    pub async fn start(
        spec: &OAuthSpec,
        holder: &Holder,
        scopes: &[String],
        redirect: &str,
    ) -> Result<Self, CredentialFault> {
        fits(spec, holder)?;
        let challenge = grant::challenge_of(spec).await;
        let mut found = Found::of(spec, challenge.as_deref()).await?;
        let scopes = wanted(spec, holder, scopes, &found).await;
        let client = register(spec, &mut found, (&scopes, redirect)).await?;
        let client_secret = client.client_secret.clone();
        let doing = "no login can be prepared";
        let fault = |error| CredentialFault::of(doing, &error);
        found.asking.configure_client(client).map_err(fault)?;
        let scopes: Vec<_> = scopes.iter().map(String::as_str).collect();
        let url = found.asking.get_authorization_url(&scopes).await.map_err(fault)?;
        let state = Url::parse(&url).ok().and_then(|url| parameter(&url, "state"));
        let state = state.unwrap_or_default();
        Ok(Self { found, holder: holder.clone(), client_secret, url, state })
    }

    /// Where the person consents.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// True if `redirected` comes from this login and not from anybody else.
    pub fn is_ours(&self, redirected: &Url) -> bool {
        let state = parameter(redirected, "state").unwrap_or_default();
        !state.is_empty() && bool::from(state.as_bytes().ct_eq(self.state.as_bytes()))
    }

    /// Takes what the authorization server sent the person back with, and keeps the credential.
    ///
    /// # Errors
    /// When the person declined, or what came back is not for this login or from this server.
    pub async fn complete(
        self,
        spec: &OAuthSpec,
        redirected: &Url,
    ) -> Result<Issued, CredentialFault> {
        if !self.is_ours(redirected) {
            let why = "what came back is not from this login".to_owned();
            return Err(CredentialFault::Refused(why));
        }
        let issuer = parameter(redirected, "iss");
        // An error is checked for its sender as a code is (RFC 9207, section 2.4).
        if issuer.as_deref().is_some_and(|issuer| issuer != self.found.issuer()) {
            let why = "what came back is from another authorization server".to_owned();
            return Err(CredentialFault::Refused(why));
        }
        if let Some(error) = parameter(redirected, "error") {
            let shown: String = error.chars().filter(char::is_ascii_graphic).take(64).collect();
            let why = format!("the authorization server declined: {shown}");
            return Err(CredentialFault::Refused(why));
        }
        let doing = "the login failed";
        let fault = |error| CredentialFault::of(doing, &error);
        let back = AuthorizationCallback::from_redirect_url(redirected.as_str()).map_err(fault)?;
        let asking = &self.found.asking;
        let (code, state) = (&back.code, &back.csrf_token);
        let exchanged =
            asking.exchange_code_for_token_with_issuer(code, state, back.issuer.as_deref()).await;
        exchanged.map_err(fault)?;
        let credentials = self.found.taken().await?;
        let kept = Kept { credentials, client_secret: self.client_secret, died: None };
        keep(spec, (&self.found.label(spec, &self.holder), &kept)).await
    }
}

/// Gets a credential for `holder` where no person is needed.
///
/// # Errors
/// When the authorization server gives none.
pub async fn log_in_alone(spec: &OAuthSpec, holder: &Holder) -> Result<Issued, CredentialFault> {
    fits(spec, holder)?;
    let (label, kept) = grant::without_person(spec, holder, (None, None)).await?;
    keep(spec, (&label, &kept)).await
}

/// Deletes the credential of `holder`, and revokes it where the server offers that. `None` if there
/// was none.
///
/// # Errors
/// When it cannot be deleted.
pub async fn log_out(
    spec: &OAuthSpec,
    holder: &Holder,
) -> Result<Option<Revoked>, CredentialFault> {
    let opened = spec.vault.read(&spec.server, holder);
    // One that cannot be opened is deleted all the same.
    let kept = opened
        .ok()
        .flatten()
        .and_then(|opened| Some((opened.label.clone(), Kept::of(&opened).ok()?)));
    if !spec.vault.remove(&spec.server, holder)? {
        return Ok(None);
    }
    let Some((label, kept)) = kept.filter(|(_, kept)| kept.tokens().is_some()) else {
        return Ok(Some(Revoked::NotOffered));
    };
    let revoking = async {
        let found = Found::of(spec, None).await?;
        if found.issuer() != label.issuer {
            let why = "the server now trusts another authorization server".to_owned();
            return Err(CredentialFault::Refused(why));
        }
        revoke(spec, &found, &kept).await
    };
    let revoked = tokio::time::timeout(REVOKE_TIMEOUT, revoking).await;
    Ok(Some(match revoked {
        Ok(Ok(revoked)) => revoked,
        Ok(Err(fault)) => Revoked::Failed(fault.to_string()),
        Err(_) => Revoked::Failed("the authorization server took too long".to_owned()),
    }))
}

fn fits(spec: &OAuthSpec, holder: &Holder) -> Result<(), CredentialFault> {
    let why = match (spec.sharing, holder) {
        (Sharing::PerAgent, Holder::Everybody) => "each agent has a credential of its own",
        (Sharing::Shared, Holder::Agent(_)) => "all agents share one credential",
        (Sharing::PerAgent, Holder::Agent(_)) | (Sharing::Shared, Holder::Everybody) => {
            return Ok(());
        }
    };
    Err(CredentialFault::Refused(format!("for `{}`, {why}", spec.server)))
}

/// The scopes to ask for: what the operator says, on top of what the holder has.
async fn wanted(
    spec: &OAuthSpec,
    holder: &Holder,
    further: &[String],
    found: &Found,
) -> Vec<String> {
    let mut scopes = match spec.scopes.as_slice() {
        [] => found.asking.select_initial_scopes(&[]).await,
        scopes => scopes.to_vec(),
    };
    if !further.is_empty() {
        let opened = spec.vault.read(&spec.server, holder).ok().flatten();
        let kept = opened.and_then(|opened| Kept::of(&opened).ok());
        scopes.extend(kept.into_iter().flat_map(|kept| kept.credentials.granted_scopes));
        scopes.extend(further.iter().cloned());
    }
    let offered = found.metadata.scopes_supported.iter().flatten().any(|scope| scope == OFFLINE);
    if offered && !scopes.is_empty() {
        scopes.push(OFFLINE.to_owned());
    }
    let mut seen = std::collections::BTreeSet::new();
    scopes.retain(|scope| seen.insert(scope.clone()));
    scopes
}

/// Who we are to the authorization server; registers with it where nothing else is configured.
async fn register(
    spec: &OAuthSpec,
    found: &mut Found,
    (scopes, redirect): (&[String], &str),
) -> Result<OAuthClientConfig, CredentialFault> {
    let by_document = found.further("client_id_metadata_document_supported");
    let by_document = by_document.and_then(serde_json::Value::as_bool) == Some(true);
    match &spec.client {
        ClientIdentity::Registered { id, secret } => {
            let client = OAuthClientConfig::new(id, redirect);
            Ok(match secret {
                Some(secret) => client.with_client_secret(secret.expose()),
                None => client,
            })
        }
        ClientIdentity::MetadataDocument(url) if by_document => {
            Ok(OAuthClientConfig::new(url, redirect))
        }
        // The last resort (MCP 2026-07-28, client registration).
        ClientIdentity::MetadataDocument(_) | ClientIdentity::Dynamic => {
            let scopes: Vec<_> = scopes.iter().map(String::as_str).collect();
            let registered = found.asking.register_client(CLIENT_NAME, redirect, &scopes).await;
            registered.map_err(|error| {
                let doing = "Holdpoint cannot register as a client; set `oauth.client_id`";
                CredentialFault::of(doing, &error)
            })
        }
    }
}

async fn keep(
    spec: &OAuthSpec,
    (label, kept): (&super::Label, &Kept),
) -> Result<Issued, CredentialFault> {
    let (vault, server, holder) = (spec.vault.clone(), spec.server.clone(), label.holder.clone());
    let locked = tokio::task::spawn_blocking(move || vault.lock(&server, &holder)).await;
    let _lock = locked.map_err(|fault| CredentialFault::Unavailable(fault.to_string()))??;
    kept.write(&spec.vault, label)?;
    Ok(Issued {
        issuer: label.issuer.clone(),
        client: kept.credentials.client_id.clone(),
        scopes: kept.credentials.granted_scopes.clone(),
        expires_at: kept.expires_at(),
    })
}

/// Revokes all tokens (RFC 7009), the one that could get others first.
async fn revoke(spec: &OAuthSpec, found: &Found, kept: &Kept) -> Result<Revoked, CredentialFault> {
    let fault = |text: String| CredentialFault::Unavailable(text);
    let endpoint = found.further("revocation_endpoint").and_then(serde_json::Value::as_str);
    let Some(endpoint) = endpoint.and_then(|url| Url::parse(url).ok()) else {
        return Ok(Revoked::NotOffered);
    };
    // Who takes tokens back must be who gives them: this one is not looked up as carefully.
    let issuing = Url::parse(&found.metadata.token_endpoint).ok();
    if issuing.is_none_or(|issuing| issuing.origin() != endpoint.origin()) {
        return Err(fault("its endpoint for revocation is elsewhere".to_owned()));
    }
    let client = http::client(&endpoint).map_err(|error| fault(error.to_string()))?;
    for (kind, token) in kept.revocable() {
        let mut form = vec![("token", token.expose()), ("token_type_hint", kind)];
        let id = kept.credentials.client_id.as_str();
        let secret = grant::secret_of(spec, kept);
        let mut post = client.post(endpoint.clone());
        match &secret {
            Some(secret) => post = post.basic_auth(id, Some(secret)),
            None => form.push(("client_id", id)),
        }
        let body = form_of(&form);
        let post = post.header("content-type", "application/x-www-form-urlencoded").body(body);
        let answer = post.send().await.map_err(|error| fault(http::in_words(error)))?;
        if !answer.status().is_success() {
            let status = answer.status().as_u16();
            return Err(fault(format!("the authorization server answered HTTP {status}")));
        }
    }
    Ok(Revoked::Done)
}

fn form_of(pairs: &[(&str, &str)]) -> String {
    let mut url = Url::parse("http://form/").ok();
    if let Some(url) = url.as_mut() {
        url.query_pairs_mut().extend_pairs(pairs);
    }
    url.as_ref().and_then(Url::query).unwrap_or_default().to_owned()
}

fn parameter(url: &Url, name: &str) -> Option<String> {
    let mut pairs = url.query_pairs().filter(|(key, _)| key == name);
    pairs.next().map(|(_, value)| value.into_owned())
}
