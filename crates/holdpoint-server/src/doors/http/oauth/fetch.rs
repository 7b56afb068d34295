//! Where an issuer's keys come from: its metadata (RFC 8414, OpenID Connect Discovery 1.0), a URI
//! or a file.
//!
//! Must never follow a redirect, read more than a key set can be long, or go from `https` to
//! `http`.

use super::jwk::{JWKS_BYTES_MAX, JwksFault, PublicKeys};
use super::keys::{KeySource, KeySpec};
use futures::StreamExt as _;
use holdpoint_types::{JsonLimits, parse};
use reqwest::{Client, Url};
use serde_json::Value;
use std::error::Error as _;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long one exchange may take, its body included.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest metadata of an issuer, in bytes.
const METADATA_BYTES_MAX: usize = 64 << 10;
/// Deepest nesting of an issuer's metadata.
const DEPTH_MAX: usize = 16;

/// Why the keys could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchFault {
    /// No exchange took place.
    #[error("`{0}` cannot be reached: {1}")]
    Unreachable(String, String),
    /// Another answer than 200. A redirect is one, too.
    #[error("`{0}` answered {1}")]
    Status(String, u16),
    /// More bytes than there can be.
    #[error("`{0}` sent more than {1} bytes")]
    TooLong(String, usize),
    /// The metadata cannot be used.
    #[error("the metadata at `{0}` cannot be used: {1}")]
    Metadata(String, &'static str),
    /// The file cannot be read.
    #[error("`{0}` cannot be read: {1}")]
    File(String, String),
    /// The key set cannot be used.
    #[error("the keys at `{0}` cannot be used: {1}")]
    Keys(String, String),
}

/// A client for the issuer at `url`.
///
/// # Errors
/// When TLS cannot be set up.
pub(super) fn client(url: &Url) -> Result<Client, FetchFault> {
    // Installing twice fails, and the first one stays: just what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(FETCH_TIMEOUT);
    if is_loopback(url) {
        // A proxy named in the environment cannot reach what listens on this machine.
        builder = builder.no_proxy();
    }
    builder.build().map_err(|fault| FetchFault::Unreachable(url.to_string(), in_words(fault)))
}

/// True if the host of `url` is this machine.
pub fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let address = host.parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The keys as they are now.
pub(super) async fn fetch(client: &Client, spec: &KeySpec) -> Result<PublicKeys, FetchFault> {
    let uri = match &spec.source {
        KeySource::File(path) => return read_file(path),
        KeySource::Uri(uri) => uri.clone(),
        KeySource::Issuer => discover(client, &spec.issuer).await?,
    };
    let text = get(client, &uri, JWKS_BYTES_MAX).await?;
    PublicKeys::parse(&text).map_err(|fault| unusable(uri, &fault))
}

/// The keys of a file. A file is short and on this machine: it is read at once.
pub(super) fn read_file(path: &Path) -> Result<PublicKeys, FetchFault> {
    let name = path.display().to_string();
    let unreadable = |fault: std::io::Error| FetchFault::File(name.clone(), fault.to_string());
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let most = u64::try_from(JWKS_BYTES_MAX).unwrap_or(u64::MAX);
    let mut text = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut text).map_err(unreadable)?;
    PublicKeys::parse(&text).map_err(|fault| unusable(name.clone(), &fault))
}

fn unusable(place: String, fault: &JwksFault) -> FetchFault {
    FetchFault::Keys(place, fault.to_string())
}

/// The `jwks_uri` that the issuer's metadata names.
async fn discover(client: &Client, issuer: &str) -> Result<String, FetchFault> {
    let mut first = None;
    for place in metadata_places(issuer) {
        let found = match get(client, &place, METADATA_BYTES_MAX).await {
            Ok(text) => jwks_uri(issuer, &text).map_err(|why| FetchFault::Metadata(place, why)),
            Err(fault) => Err(fault),
        };
        match found {
            Ok(uri) => return Ok(uri),
            Err(fault) => first = first.or(Some(fault)),
        }
    }
    let none = || FetchFault::Metadata(issuer.to_owned(), "the issuer is no URL");
    Err(first.unwrap_or_else(none))
}

/// Where the metadata of an issuer may be, in the order that MCP's authorization specification
/// gives.
fn metadata_places(issuer: &str) -> Vec<String> {
    let Ok(url) = Url::parse(issuer) else { return Vec::new() };
    let origin = url.origin().ascii_serialization();
    let path = url.path().trim_end_matches('/');
    let mut places = vec![
        format!("{origin}/.well-known/oauth-authorization-server{path}"),
        format!("{origin}/.well-known/openid-configuration{path}"),
    ];
    if !path.is_empty() {
        places.push(format!("{origin}{path}/.well-known/openid-configuration"));
    }
    places
}

fn jwks_uri(issuer: &str, metadata: &[u8]) -> Result<String, &'static str> {
    let limits = JsonLimits { bytes_max: METADATA_BYTES_MAX, depth_max: DEPTH_MAX };
    let metadata = parse(metadata, limits).map_err(|_| "it is no JSON that reads in one way")?;
    let text = |name: &str| metadata.get(name).and_then(Value::as_str);
    if text("issuer") != Some(issuer) {
        return Err("it is about another issuer");
    }
    let uri = text("jwks_uri").ok_or("it names no `jwks_uri`")?;
    let parsed = Url::parse(uri).map_err(|_| "its `jwks_uri` is no URL")?;
    // Only an issuer on this machine may be spoken to in plain text, and then about this machine.
    let local = Url::parse(issuer).is_ok_and(|issuer| is_loopback(&issuer)) && is_loopback(&parsed);
    match parsed.scheme() {
        "https" => Ok(uri.to_owned()),
        "http" if local => Ok(uri.to_owned()),
        _ => Err("its `jwks_uri` is not `https`"),
    }
}

async fn get(client: &Client, place: &str, bytes_max: usize) -> Result<Vec<u8>, FetchFault> {
    let unreachable = |fault| FetchFault::Unreachable(place.to_owned(), in_words(fault));
    let response = client.get(place).header("accept", "application/json").send().await;
    let response = response.map_err(unreachable)?;
    if response.status() != http::StatusCode::OK {
        return Err(FetchFault::Status(place.to_owned(), response.status().as_u16()));
    }
    let mut text = Vec::new();
    let mut parts = response.bytes_stream();
    while let Some(part) = parts.next().await {
        text.extend_from_slice(&part.map_err(unreachable)?);
        if text.len() > bytes_max {
            return Err(FetchFault::TooLong(place.to_owned(), bytes_max));
        }
    }
    Ok(text)
}

fn in_words(fault: reqwest::Error) -> String {
    let fault = fault.without_url();
    let mut text = fault.to_string();
    let mut source = fault.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{
        DEPTH_MAX, FetchFault, JWKS_BYTES_MAX, METADATA_BYTES_MAX, client, fetch, jwks_uri,
        metadata_places,
    };
    use crate::doors::http::oauth::{KeySource, KeySpec};
    use axum::Router;
    use axum::extract::State;
    use axum::routing::get;
    use expect_test::expect;
    use reqwest::Url;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn metadata_is_looked_for_where_both_standards_put_it() {
        expect![[r#"
            [
                "https://auth.example.com/.well-known/oauth-authorization-server",
                "https://auth.example.com/.well-known/openid-configuration",
            ]
        "#]]
        .assert_debug_eq(&metadata_places("https://auth.example.com"));
        expect![[r#"
            [
                "https://auth.example.com:8443/.well-known/oauth-authorization-server/realms/a",
                "https://auth.example.com:8443/.well-known/openid-configuration/realms/a",
                "https://auth.example.com:8443/realms/a/.well-known/openid-configuration",
            ]
        "#]]
        .assert_debug_eq(&metadata_places("https://auth.example.com:8443/realms/a/"));
    }

    #[test]
    fn metadata_of_another_issuer_or_in_plain_text_is_not_used() {
        let of = |issuer: &str, uri: &str| {
            let metadata = serde_json::json!({ "issuer": issuer, "jwks_uri": uri });
            jwks_uri("https://auth.example.com", metadata.to_string().as_bytes())
        };
        let own = "https://auth.example.com";
        assert!(of(own, "https://keys.example.net/jwks").is_ok());
        assert!(of("https://auth.example.com/", "https://auth.example.com/jwks").is_err());
        assert!(of(own, "http://auth.example.com/jwks").is_err());
        assert!(of(own, "http://127.0.0.1/jwks").is_err());
        assert!(of(own, "file:///etc/passwd").is_err());
        let twice = br#"{"issuer":"https://auth.example.com","jwks_uri":"https://a/","jwks_uri":"https://b/"}"#;
        assert!(jwks_uri(own, twice).is_err());
    }

    #[test]
    fn metadata_that_is_nested_deeply_is_not_used() {
        let own = "https://auth.example.com";
        let used = |depth: usize| {
            let nested = (1..depth).fold(json!(1), |inner, _| json!([inner]));
            let metadata = json!({ "issuer": own, "jwks_uri": own, "more": nested });
            jwks_uri(own, metadata.to_string().as_bytes()).is_ok()
        };
        assert!(used(DEPTH_MAX) && !used(DEPTH_MAX + 1));
    }

    /// Fetches keys from an issuer whose answers have this many bytes; gives the fault.
    async fn fetched(bytes: usize, source: impl FnOnce(&str) -> KeySource) -> FetchFault {
        let answer = get(async |State(bytes): State<usize>| "x".repeat(bytes));
        let router = Router::new().route("/{*path}", answer).with_state(bytes);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let source = source(&issuer);
        let often = Duration::from_secs(60);
        let spec = KeySpec { issuer: issuer.clone(), source, refresh: often, stale: often };
        let client = client(&Url::parse(&issuer).unwrap()).unwrap();
        fetch(&client, &spec).await.unwrap_err()
    }

    #[tokio::test]
    async fn an_issuers_long_answer_is_not_read_to_its_end() {
        let metadata = |_: &str| KeySource::Issuer;
        let keys = |issuer: &str| KeySource::Uri(format!("{issuer}/jwks"));
        let fault = fetched(METADATA_BYTES_MAX, metadata).await;
        assert!(matches!(fault, FetchFault::Metadata(..)), "read, and no metadata: {fault}");
        let fault = fetched(METADATA_BYTES_MAX + 1, metadata).await;
        assert!(matches!(fault, FetchFault::TooLong(_, METADATA_BYTES_MAX)), "{fault}");
        let fault = fetched(JWKS_BYTES_MAX, keys).await;
        assert!(matches!(fault, FetchFault::Keys(..)), "read, and no keys: {fault}");
        let fault = fetched(JWKS_BYTES_MAX + 1, keys).await;
        assert!(matches!(fault, FetchFault::TooLong(_, JWKS_BYTES_MAX)), "{fault}");
    }
}
