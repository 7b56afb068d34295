//! Checks how credentials for an upstream server are got.

use super::Checker;
use crate::config::checked::{Credentials, OAuthClient};
use crate::config::raw::{At, RawCredentials, RawGrantKind, RawServer, RawSharing};
use holdpoint_resources::{GrantKind, Sharing};
use reqwest::Url;

/// Longest scope, in bytes.
const SCOPE_BYTES_MAX: usize = 256;

// === impl Checker ===

impl Checker<'_> {
    /// The `oauth` of a server at `url`.
    pub(super) fn credentials(&mut self, server: &RawServer, url: &str) -> Option<Credentials> {
        let raw = server.oauth.as_ref()?;
        let url = Url::parse(url).ok()?;
        if !is_safe(&url) {
            let message = "credentials would cross the network in plain text".to_owned();
            self.fault(raw.span(), message, "use an `https` URL".to_owned());
        }
        let headers = &mut server.headers.keys();
        if let Some(name) = headers.find(|name| name.get().eq_ignore_ascii_case("authorization")) {
            let message = "`Authorization` is set by `oauth`".to_owned();
            self.fault(name.span(), message, "remove one of the two".to_owned());
        }
        let RawCredentials { credentials, grant, scopes, issuer, redirect_port, .. } = raw.get();
        let grant = match grant {
            Some(RawGrantKind::ClientCredentials) => GrantKind::ClientCredentials,
            Some(RawGrantKind::AuthorizationCode) | None => GrantKind::AuthorizationCode,
        };
        let sharing = match credentials {
            Some(RawSharing::Shared) => Sharing::Shared,
            Some(RawSharing::PerAgent) | None => Sharing::PerAgent,
        };
        let port = redirect_port.as_ref().and_then(|port| match u16::try_from(*port.get()) {
            Ok(port) if port > 0 => Some(port),
            Ok(_) | Err(_) => {
                self.fault(port.span(), "a port is between 1 and 65535".to_owned(), None);
                None
            }
        });
        Some(Credentials {
            sharing,
            grant,
            scopes: scopes.iter().filter_map(|scope| self.oauth_scope(scope)).collect(),
            client: self.oauth_client(raw, grant)?,
            issuer: issuer.as_ref().and_then(|issuer| self.safe_url("issuer", issuer)),
            redirect_port: port,
        })
    }

    fn oauth_client(&mut self, raw: &At<RawCredentials>, grant: GrantKind) -> Option<OAuthClient> {
        let RawCredentials { client_id, client_secret, client_metadata, .. } = raw.get();
        let secret = match client_secret {
            Some(secret) => Some(self.value_reference(secret.span(), secret.get())?),
            None => None,
        };
        if grant == GrantKind::ClientCredentials {
            if client_id.is_none() {
                self.missing(&raw.span(), "client_id", "\"…\"");
            }
            if client_secret.is_none() {
                self.missing(&raw.span(), "client_secret", "{ from_env = \"NAME\" }");
            }
        }
        match (client_id, client_metadata) {
            (Some(id), Some(_)) => {
                let message = "a client has either `client_id` or `client_metadata`, not both";
                self.fault(id.span(), message.to_owned(), None);
                None
            }
            (Some(id), None) => Some(OAuthClient::Registered { id: id.get().clone(), secret }),
            (None, document) => {
                if let (Some(place), GrantKind::AuthorizationCode) = (client_secret, grant) {
                    let message = "`client_secret` works only with `client_id`".to_owned();
                    self.fault(place.span(), message, None);
                }
                let url = match document {
                    Some(document) => Some(self.safe_url("client_metadata", document)?),
                    None => None,
                };
                Some(url.map_or(OAuthClient::Dynamic, OAuthClient::MetadataDocument))
            }
        }
    }

    fn oauth_scope(&mut self, scope: &At<String>) -> Option<String> {
        let text = scope.get();
        if is_scope(text) {
            return Some(text.clone());
        }
        self.fault(scope.span(), format!("{text:?} is no scope"), None);
        None
    }

    fn safe_url(&mut self, key: &str, text: &At<String>) -> Option<String> {
        let url = Url::parse(text.get()).ok().filter(is_safe);
        if url.is_none() {
            let message = format!("`{key}` must be an `https` URL");
            self.fault(text.span(), message, None);
        }
        url.map(|_| text.get().clone())
    }
}

/// True for one scope (RFC 6749, section 3.3).
pub fn is_scope(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !b"\"\\".contains(&byte);
    (1..=SCOPE_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

fn is_safe(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let address = host.parse::<std::net::IpAddr>();
    let here = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    url.scheme() == "https" || (url.scheme() == "http" && here)
}

#[cfg(test)]
mod tests {
    use crate::config::fault::Colour;
    use std::path::Path;

    /// What is found wrong with a server at `url` with this `oauth`.
    fn faults(url: &str, more: &str) -> String {
        let text = format!("[server.a]\nurl = \"{url}\"\n{more}\n");
        let found = crate::config::check("holdpoint.toml", Path::new("/hp/holdpoint.toml"), &text);
        assert_eq!(found.0.is_none(), found.1.has_faults());
        found.1.render(Colour::Never)
    }

    #[test]
    fn a_giant_scope_is_a_fault() {
        let with = |bytes: usize| {
            let scope = "x".repeat(bytes);
            faults("https://mcp.example.com/mcp", &format!("oauth = {{ scopes = [\"{scope}\"] }}"))
        };
        assert_eq!(with(super::SCOPE_BYTES_MAX), "");
        assert!(with(super::SCOPE_BYTES_MAX + 1).contains("is no scope"));
    }

    #[test]
    fn credentials_go_nowhere_in_plain_text_and_secrets_stand_nowhere() {
        let https = "https://mcp.example.com/mcp";
        for (url, more) in [
            (https, "oauth = {}"),
            ("http://127.0.0.1:8080/mcp", "oauth = { credentials = \"shared\" }"),
            (https, "oauth = { client_id = \"x\", client_secret = { from_env = \"X\" } }"),
            (https, "oauth = { client_metadata = \"https://a.example/c.json\", scopes = [\"a\"] }"),
        ] {
            assert_eq!(faults(url, more), "", "{more}");
        }
        let machine = "oauth = { grant = \"client-credentials\" }";
        for (url, more, part) in [
            ("http://mcp.example.com/mcp", "oauth = {}", "plain text"),
            (https, "oauth = { issuer = \"http://as.example.com\" }", "`https` URL"),
            (https, "oauth = { client_metadata = \"http://as.example.com/x\" }", "`https` URL"),
            (https, "oauth = { client_id = \"x\", client_secret = \"y\" }", "client_secret"),
            (https, "oauth = { client_secret = { from_env = \"X\" } }", "only with `client_id`"),
            (https, "oauth = { scopes = [\"a b\"] }", "is no scope"),
            (https, "oauth = { redirect_port = 70000 }", "between 1 and 65535"),
            (https, machine, "the key `client_id` is missing"),
            (https, machine, "the key `client_secret` is missing"),
            (https, "headers = { authorization = \"x\" }\noauth = {}", "is set by `oauth`"),
        ] {
            let found = faults(url, more);
            assert!(found.contains(part), "{more}: {found}");
        }
        let both = "oauth = { client_id = \"x\", client_metadata = \"https://a.example/c\" }";
        assert!(faults(https, both).contains("not both"));
        let text = "[server.a]\ncommand = [\"x\"]\noauth = {}\n";
        let found = crate::config::check("holdpoint.toml", Path::new("/hp/holdpoint.toml"), text);
        assert!(found.1.render(Colour::Never).contains("`oauth` works only with `url`"));
    }
}
