//! A JWT access token (RFC 7519, RFC 9068), read and judged.
//!
//! INVARIANT: claims leave this file only after the issuer's signature over them was verified. Must
//! not do I/O or look at a clock, and must never follow what a token says about where keys are.

use super::jwk::{Algorithm, KeyFault, PublicKeys};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdpoint_types::{JsonLimits, Timestamp, parse};
use serde_json::Value;
use std::collections::BTreeSet;

/// Longest token, in bytes.
pub(super) const TOKEN_BYTES_MAX: usize = 8 << 10;
/// Deepest nesting of a token's claims.
const DEPTH_MAX: usize = 16;
/// What RFC 9068 (section 2.2) requires of a token that says to follow it.
const PROFILE_CLAIMS: [&str; 7] = ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"];

/// What a token must say to be good here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected<'a> {
    /// Who must have issued it.
    pub(super) issuer: &'a str,
    /// For whom: one of these.
    pub(super) audiences: &'a [&'a str],
    /// How it may be signed.
    pub(super) algorithms: &'a BTreeSet<Algorithm>,
    /// How far clocks may differ, in seconds.
    pub(super) leeway_s: u32,
}

/// A token of which nothing is believed yet.
#[derive(Debug)]
pub(super) struct Unverified<'t> {
    algorithm: Algorithm,
    key: Option<String>,
    claims: Value,
    /// The token's type says that it follows RFC 9068.
    profile: bool,
    signed: &'t str,
    signature: Vec<u8>,
}

/// What the issuer says about who comes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) subject: Option<String>,
    pub(super) client: Option<String>,
    pub(super) scopes: BTreeSet<String>,
}

/// Why a token is not good here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenFault {
    #[error("it is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    #[error("it is no signed JWT: {0}")]
    Malformed(&'static str),
    #[error("its algorithm is not accepted")]
    Algorithm,
    #[error("it has critical headers that are not understood")]
    Critical,
    #[error("it is a token for something else: its type is no access token's")]
    Type,
    #[error("the claim `{0}` is missing or malformed")]
    Claim(&'static str),
    #[error("another issuer made it")]
    Issuer,
    #[error("it was issued for another resource")]
    Audience,
    #[error("it has expired")]
    Expired,
    #[error("it is not valid yet")]
    NotYet,
    #[error("it is bound to a key whose possession is not shown (`cnf`)")]
    Bound,
    #[error("`client_id` and `azp` name different clients")]
    Clients,
    #[error("{0}")]
    Key(#[from] KeyFault),
}

// === impl Unverified ===

impl<'t> Unverified<'t> {
    /// Takes a token apart.
    pub(super) fn read(token: &'t str) -> Result<Self, TokenFault> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenFault::TooLong);
        }
        let parts = token.rsplit_once('.');
        let (signed, signature) = parts.ok_or(TokenFault::Malformed("it has no three parts"))?;
        let (head, body) =
            signed.split_once('.').ok_or(TokenFault::Malformed("it has no three parts"))?;
        // More points, as an encrypted token has, are no Base64.
        let head = object(head)?;
        let text = |name: &str| head.get(name).and_then(Value::as_str);
        let algorithm = text("alg").and_then(|name| name.parse().ok());
        let algorithm = algorithm.ok_or(TokenFault::Algorithm)?;
        if head.get("crit").is_some() {
            return Err(TokenFault::Critical);
        }
        let profile = is_profile(head.get("typ"))?;
        let key = text("kid").map(str::to_owned);
        if head.get("kid").is_some() && key.is_none() {
            return Err(TokenFault::Malformed("`kid` is no text"));
        }
        let signature = decode(signature)?;
        Ok(Self { algorithm, key, claims: object(body)?, profile, signed, signature })
    }

    /// The claims, if all of them fit and the issuer signed them.
    ///
    /// Whether they fit is looked at first, because it costs less: who sends a token that was never
    /// meant for us has no key looked for.
    pub(super) fn verify(
        &self,
        expected: Expected<'_>,
        keys: &PublicKeys,
        now: Timestamp,
    ) -> Result<Claims, TokenFault> {
        if !expected.algorithms.contains(&self.algorithm) {
            return Err(TokenFault::Algorithm);
        }
        if self.text("iss")? != Some(expected.issuer) {
            return Err(TokenFault::Issuer);
        }
        self.check_audience(expected.audiences)?;
        self.check_time(expected.leeway_s, now)?;
        if self.claims.get("cnf").is_some() {
            return Err(TokenFault::Bound);
        }
        let missing = |name: &&str| self.claims.get(name).is_none();
        if let Some(name) = PROFILE_CLAIMS.into_iter().find(missing).filter(|_| self.profile) {
            return Err(TokenFault::Claim(name));
        }
        let claims = Claims {
            subject: self.text_owned("sub")?,
            client: self.client()?,
            scopes: self.scopes()?,
        };
        let signed = self.signed.as_bytes();
        keys.verify(self.key.as_deref(), self.algorithm, signed, &self.signature)?;
        Ok(claims)
    }

    fn check_audience(&self, accepted: &[&str]) -> Result<(), TokenFault> {
        let fits = |value: &Value| value.as_str().is_some_and(|one| accepted.contains(&one));
        let found = match self.claims.get("aud") {
            Some(Value::Array(all)) if all.iter().all(Value::is_string) => all.iter().any(fits),
            Some(one) if one.is_string() => fits(one),
            Some(_) | None => return Err(TokenFault::Claim("aud")),
        };
        if found { Ok(()) } else { Err(TokenFault::Audience) }
    }

    fn check_time(&self, leeway_s: u32, now: Timestamp) -> Result<(), TokenFault> {
        let leeway_ms = i64::from(leeway_s).saturating_mul(1000);
        let expires = self.time_ms("exp")?.ok_or(TokenFault::Claim("exp"))?;
        if now.0 >= expires.saturating_add(leeway_ms) {
            return Err(TokenFault::Expired);
        }
        let begins = self.time_ms("nbf")?;
        if begins.is_some_and(|begins| now.0.saturating_add(leeway_ms) < begins) {
            return Err(TokenFault::NotYet);
        }
        Ok(())
    }

    /// A point in time, in milliseconds since 1970. RFC 7519 writes seconds, perhaps with parts.
    fn time_ms(&self, name: &'static str) -> Result<Option<i64>, TokenFault> {
        let Some(value) = self.claims.get(name) else { return Ok(None) };
        let whole = value.as_i64().or_else(|| {
            // A fraction of a second decides nothing here.
            let seconds = value.as_f64().filter(|seconds| seconds.abs() < 1e15)?;
            #[expect(clippy::cast_possible_truncation, reason = "bounded above")]
            Some(seconds.floor() as i64)
        });
        let whole = whole.ok_or(TokenFault::Claim(name))?;
        Ok(Some(whole.saturating_mul(1000)))
    }

    fn client(&self) -> Result<Option<String>, TokenFault> {
        match (self.text("client_id")?, self.text("azp")?) {
            (Some(one), Some(other)) if one != other => Err(TokenFault::Clients),
            (one, other) => Ok(one.or(other).map(str::to_owned)),
        }
    }

    /// The scopes: `scope` as RFC 9068 writes it, or `scp` as some issuers do.
    fn scopes(&self) -> Result<BTreeSet<String>, TokenFault> {
        let found = self.claims.get("scope").map(|value| ("scope", value));
        let found = found.or_else(|| self.claims.get("scp").map(|value| ("scp", value)));
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let scopes = match found {
            None => Vec::new(),
            Some((_, Value::String(text))) => words(text),
            Some((name, Value::Array(all))) => {
                let all = all.iter().map(|one| one.as_str().map(str::to_owned));
                all.collect::<Option<_>>().ok_or(TokenFault::Claim(name))?
            }
            Some((name, _)) => return Err(TokenFault::Claim(name)),
        };
        Ok(scopes.into_iter().filter(|scope| !scope.is_empty()).collect())
    }

    fn text(&self, name: &'static str) -> Result<Option<&str>, TokenFault> {
        match self.claims.get(name) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or(TokenFault::Claim(name)),
        }
    }

    fn text_owned(&self, name: &'static str) -> Result<Option<String>, TokenFault> {
        Ok(self.text(name)?.map(str::to_owned))
    }
}

/// Whether a token of this type follows RFC 9068. Tokens for other purposes are none (RFC 8725,
/// section 3.11).
fn is_profile(kind: Option<&Value>) -> Result<bool, TokenFault> {
    let Some(kind) = kind else { return Ok(false) };
    let kind = kind.as_str().ok_or(TokenFault::Type)?.to_ascii_lowercase();
    match kind.strip_prefix("application/").unwrap_or(&kind) {
        "at+jwt" => Ok(true),
        "jwt" => Ok(false),
        _ => Err(TokenFault::Type),
    }
}

fn decode(part: &str) -> Result<Vec<u8>, TokenFault> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenFault::Malformed("a part is no Base64"))
}

fn object(part: &str) -> Result<Value, TokenFault> {
    let limits = JsonLimits { bytes_max: TOKEN_BYTES_MAX, depth_max: DEPTH_MAX };
    let value = parse(&decode(part)?, limits).ok().filter(Value::is_object);
    value.ok_or(TokenFault::Malformed("a part is no JSON object that reads in one way"))
}

#[cfg(test)]
mod tests;
