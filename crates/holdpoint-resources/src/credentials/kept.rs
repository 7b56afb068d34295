//! What is sealed: the tokens of one holder for one server, and what is known about them.
//! Must never be printed; only [`Standing`], which holds no token, may be shown.

use super::vault::{Label, Opened};
use super::{CredentialFault, Holder, Vault};
use crate::upstream::SecretText;
use holdpoint_types::ServerName;
use http::HeaderValue;
use oauth2::TokenResponse as _;
use rmcp::transport::auth::{OAuthTokenResponse, StoredCredentials};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A token is renewed this long before it expires, or after half its life if that is shorter.
const AHEAD_SECONDS: u64 = 60;

/// The tokens of one holder for one server.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) credentials: StoredCredentials,
    /// The secret of a client that registered itself.
    #[serde(default)]
    pub(super) client_secret: Option<String>,
    /// Why they are good no more; then there are no tokens.
    #[serde(default)]
    pub(super) died: Option<String>,
}

/// How a credential stands. Holds no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The server that it is for.
    pub server: ServerName,
    /// Whose it is.
    pub holder: Holder,
    /// The authorization server that it came from; empty if it cannot be read.
    pub issuer: String,
    /// The granted scopes.
    pub scopes: Vec<String>,
    /// When the token expires, in seconds since 1970.
    pub expires_at: Option<u64>,
    /// True if it can be renewed without anybody's help.
    pub renewable: bool,
    /// Why it cannot be used.
    pub fault: Option<String>,
}

// === impl Kept ===

impl Kept {
    /// What is in an opened file.
    pub(super) fn of(opened: &Opened) -> Result<Self, CredentialFault> {
        let read = serde_json::from_slice(&opened.plain);
        // Its words may hold what it read.
        read.map_err(|_| CredentialFault::Refused("a kept credential cannot be read".to_owned()))
    }

    /// Seals them under `label`.
    pub(super) fn write(&self, vault: &Vault, label: &Label) -> Result<(), CredentialFault> {
        let plain = serde_json::to_vec(self).map(Zeroizing::new);
        let plain = plain
            .map_err(|_| CredentialFault::Refused("a credential cannot be kept".to_owned()))?;
        Ok(vault.write(label, &plain)?)
    }

    /// The same without tokens.
    pub(super) fn dead(mut self, why: String) -> Self {
        self.credentials.token_response = None;
        self.client_secret = None;
        self.died = Some(why);
        self
    }

    pub(super) fn tokens(&self) -> Option<&OAuthTokenResponse> {
        self.credentials.token_response.as_ref()
    }

    /// The value of `Authorization`.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let token = self.tokens()?.access_token().secret();
        let text = Zeroizing::new(format!("Bearer {token}"));
        let mut header = HeaderValue::from_str(&text).ok()?;
        header.set_sensitive(true);
        Some(header)
    }

    /// When the token expires, in seconds since 1970.
    pub(super) fn expires_at(&self) -> Option<u64> {
        let life = self.tokens()?.expires_in()?.as_secs();
        Some(self.credentials.token_received_at?.saturating_add(life))
    }

    /// When it should be renewed, in seconds since 1970.
    pub(super) fn renew_at(&self) -> Option<u64> {
        let life = self.tokens()?.expires_in()?.as_secs();
        Some(self.expires_at()?.saturating_sub(AHEAD_SECONDS.min(life / 2)))
    }

    /// The refresh token, and the access token, as what a server revokes.
    pub(super) fn revocable(&self) -> Vec<(&'static str, SecretText)> {
        let Some(tokens) = self.tokens() else { return Vec::new() };
        let refresh = tokens.refresh_token().map(|refresh| refresh.secret());
        let refresh = refresh.map(|secret| ("refresh_token", SecretText::new(secret)));
        let access = ("access_token", SecretText::new(tokens.access_token().secret()));
        refresh.into_iter().chain([access]).collect()
    }

    fn is_renewable(&self) -> bool {
        self.tokens().is_some_and(|tokens| tokens.refresh_token().is_some())
    }
}

// === impl Standing ===

impl Standing {
    /// How every credential in the vault stands.
    ///
    /// # Errors
    /// When the vault cannot be listed.
    pub fn all(vault: &Vault) -> Result<Vec<Self>, CredentialFault> {
        let places = vault.list()?.into_iter();
        Ok(places.map(|(server, holder)| Self::of(vault, server, holder)).collect())
    }

    fn of(vault: &Vault, server: ServerName, holder: Holder) -> Self {
        let blank = Self {
            server,
            holder,
            issuer: String::new(),
            scopes: Vec::new(),
            expires_at: None,
            renewable: false,
            fault: None,
        };
        let opened = match vault.read(&blank.server, &blank.holder) {
            Ok(Some(opened)) => opened,
            Ok(None) => return Self { fault: Some("it is gone".to_owned()), ..blank },
            Err(fault) => return Self { fault: Some(fault.to_string()), ..blank },
        };
        let issuer = opened.label.issuer.clone();
        match Kept::of(&opened) {
            Ok(kept) => Self {
                issuer,
                scopes: kept.credentials.granted_scopes.clone(),
                expires_at: kept.expires_at(),
                renewable: kept.is_renewable(),
                fault: kept.died.clone(),
                ..blank
            },
            Err(fault) => Self { issuer, fault: Some(fault.to_string()), ..blank },
        }
    }
}
