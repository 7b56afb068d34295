//! Why there is no credential to send, and what became of asking for one.
//! Must never hold a credential, nor more of what an authorization server said than helps.

use super::VaultFault;
use crate::upstream::UpstreamFault;
use rmcp::transport::auth::AuthError;

/// Longest word of an authorization server that is shown, in characters.
const WORD_CHARS_MAX: usize = 300;
/// How the authorization server's own refusals begin in the words of the OAuth crate.
const SERVER_SAID: &str = "Server returned error response";

/// Why there is no credential to send.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialFault {
    /// There is none, or it is good no more; somebody must log in.
    #[error("{0}")]
    Missing(String),
    /// It does not reach far enough.
    #[error("{0}")]
    Scope(String),
    /// The authorization server cannot be reached now.
    #[error("{0}")]
    Unavailable(String),
    /// The authorization server, or what it says of itself, cannot be used.
    #[error("{0}")]
    Refused(String),
    /// What is kept cannot be read or written.
    #[error(transparent)]
    Vault(#[from] VaultFault),
}

// === impl CredentialFault ===

impl CredentialFault {
    /// What went wrong at the authorization server while `doing` something.
    pub(super) fn of(doing: &str, error: &AuthError) -> Self {
        let text = format!("{doing}: {}", in_words(error));
        match error {
            AuthError::DiscoveryRequestFailed { .. }
            | AuthError::HttpError(_)
            | AuthError::TokenRefreshFailed(_) => Self::Unavailable(text),
            _ => Self::Refused(text),
        }
    }
}

impl From<CredentialFault> for UpstreamFault {
    fn from(fault: CredentialFault) -> Self {
        let text = fault.to_string();
        match fault {
            CredentialFault::Scope(_) => Self::Scope(text),
            CredentialFault::Unavailable(_) => Self::Unavailable(text),
            CredentialFault::Missing(_)
            | CredentialFault::Refused(_)
            | CredentialFault::Vault(_) => Self::Unauthorized(text),
        }
    }
}

fn in_words(error: &AuthError) -> String {
    let text = match error {
        // What cannot be read may hold what must not be shown.
        AuthError::TokenExchangeFailed(text) if !text.starts_with(SERVER_SAID) => {
            "the answer holds no token that can be read".to_owned()
        }
        AuthError::ClientCredentialsError(text) if !text.contains(SERVER_SAID) => {
            "the answer holds no token that can be read".to_owned()
        }
        AuthError::DiscoveryRequestFailed { url, source } => {
            format!("`{url}` cannot be read: {}", chain(source.as_ref()))
        }
        error => error.to_string(),
    };
    let shown = text.chars().take(WORD_CHARS_MAX);
    shown.map(|found| if found.is_control() { ' ' } else { found }).collect()
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
