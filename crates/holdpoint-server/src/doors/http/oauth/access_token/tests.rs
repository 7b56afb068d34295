//! Tokens, good and hostile, judged without a network or a clock.

use super::{Claims, DEPTH_MAX, Expected, TOKEN_BYTES_MAX, TokenFault, Unverified};
use crate::doors::http::oauth::jwk::{self, Algorithm, JwksFault, KeyFault, PublicKeys};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdpoint_types::Timestamp;
use proptest::prelude::*;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const ISSUER: &str = "https://auth.example.com";
const RESOURCE: &str = "https://holdpoint.example.com/mcp/fs";
const NOW_S: i64 = 1_800_000_000;

/// Somebody who signs.
enum Signer {
    Ec(EcdsaKeyPair, &'static str, &'static str),
    Ed(Ed25519KeyPair),
}

impl Signer {
    fn ec(how: &'static EcdsaSigningAlgorithm, name: &'static str, curve: &'static str) -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(how, &random).unwrap();
        Self::Ec(EcdsaKeyPair::from_pkcs8(how, pkcs8.as_ref(), &random).unwrap(), name, curve)
    }

    fn p256() -> Self {
        Self::ec(&ECDSA_P256_SHA256_FIXED_SIGNING, "ES256", "P-256")
    }

    fn p384() -> Self {
        Self::ec(&ECDSA_P384_SHA384_FIXED_SIGNING, "ES384", "P-384")
    }

    fn ed() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Ec(_, name, _) => name,
            Self::Ed(_) => "EdDSA",
        }
    }

    fn public(&self) -> &[u8] {
        match self {
            Self::Ec(pair, _, _) => pair.public_key().as_ref(),
            Self::Ed(pair) => pair.public_key().as_ref(),
        }
    }

    fn jwk(&self, kid: &str) -> Value {
        match self {
            Self::Ec(_, _, curve) => {
                let (x, y) = self.public()[1..].split_at((self.public().len() - 1) / 2);
                json!({ "kty": "EC", "crv": curve, "kid": kid, "x": encode(x), "y": encode(y) })
            }
            Self::Ed(_) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": encode(self.public()) })
            }
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Ec(pair, _, _) => {
                pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
            }
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// A token with these changes to a good header and good claims; `null` takes a member away.
    fn issue(&self, head: Value, claims: Value) -> String {
        let head = merged(json!({ "alg": self.algorithm(), "kid": "one" }), head);
        let signed = unsigned(&head.to_string(), &merged(good(), claims).to_string());
        format!("{signed}.{}", encode(&self.sign(signed.as_bytes())))
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn unsigned(head: &str, claims: &str) -> String {
    format!("{}.{}", encode(head.as_bytes()), encode(claims.as_bytes()))
}

fn good() -> Value {
    json!({
        "iss": ISSUER, "aud": RESOURCE, "exp": NOW_S + 600, "sub": "ada", "client_id": "coder",
        "scope": "mcp:read mcp:write",
    })
}

fn merged(mut base: Value, changes: Value) -> Value {
    for (key, value) in changes.as_object().unwrap() {
        if value.is_null() {
            base.as_object_mut().unwrap().remove(key);
        } else {
            base[key] = value.clone();
        }
    }
    base
}

fn set(keys: &[Value]) -> PublicKeys {
    PublicKeys::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn judge_by(
    token: &str,
    keys: &PublicKeys,
    algorithms: &[Algorithm],
) -> Result<Claims, TokenFault> {
    let algorithms: BTreeSet<_> = algorithms.iter().copied().collect();
    let audiences = [RESOURCE, "api://holdpoint"];
    let expected =
        Expected { issuer: ISSUER, audiences: &audiences, algorithms: &algorithms, leeway_s: 30 };
    Unverified::read(token)?.verify(expected, keys, Timestamp(NOW_S * 1000))
}

fn judge(token: &str, keys: &PublicKeys) -> Result<Claims, TokenFault> {
    judge_by(token, keys, &Algorithm::ALL)
}

#[test]
fn a_good_token_says_who_comes() {
    for signer in [Signer::p256(), Signer::p384(), Signer::ed()] {
        let keys = set(&[signer.jwk("one")]);
        let claims = judge(&signer.issue(json!({}), json!({})), &keys).unwrap();
        assert_eq!(claims.client.as_deref(), Some("coder"));
        assert_eq!(claims.subject.as_deref(), Some("ada"));
        assert_eq!(claims.scopes, ["mcp:read", "mcp:write"].map(str::to_owned).into());
    }
}

#[test]
fn other_ways_to_say_the_same_are_understood() {
    let signer = Signer::p256();
    let keys = set(&[signer.jwk("one")]);
    let profile = json!({ "typ": "at+JWT" });
    for (head, claims) in [
        (json!({}), json!({ "aud": ["https://other.example.com", RESOURCE] })),
        (json!({}), json!({ "aud": "api://holdpoint" })),
        (json!({}), json!({ "client_id": null, "azp": "coder" })),
        (json!({}), json!({ "azp": "coder" })),
        (json!({}), json!({ "scope": null, "scp": ["mcp:read", "mcp:write"] })),
        (json!({}), json!({ "scope": null, "scp": "mcp:read mcp:write" })),
        (json!({}), json!({ "exp": NOW_S - 29, "nbf": NOW_S + 30 })),
        (json!({}), json!({ "exp": 1_800_000_600.25 })),
        (json!({ "typ": "JWT" }), json!({})),
        (json!({ "kid": null }), json!({})),
        (profile, json!({ "iat": NOW_S, "jti": "1" })),
    ] {
        let token = signer.issue(head.clone(), claims.clone());
        let judged = judge(&token, &keys).map(|claims| (claims.client, claims.scopes.len()));
        assert_eq!(judged, Ok((Some("coder".to_owned()), 2)), "{head} {claims}");
    }
}

#[test]
fn a_token_that_does_not_fit_is_refused() {
    let signer = Signer::p256();
    let keys = set(&[signer.jwk("one")]);
    let profile = json!({ "typ": "application/at+jwt" });
    for (head, claims, fault) in [
        (json!({ "typ": "logout+jwt" }), json!({}), TokenFault::Type),
        (json!({ "typ": 7 }), json!({}), TokenFault::Type),
        (json!({ "crit": ["b64"], "b64": false }), json!({}), TokenFault::Critical),
        (json!({ "alg": "none" }), json!({}), TokenFault::Algorithm),
        (json!({ "alg": "None" }), json!({}), TokenFault::Algorithm),
        (json!({ "alg": "HS256" }), json!({}), TokenFault::Algorithm),
        (json!({ "alg": null }), json!({}), TokenFault::Algorithm),
        (json!({ "kid": 7 }), json!({}), TokenFault::Malformed("`kid` is no text")),
        (json!({ "kid": "two" }), json!({}), KeyFault::Unknown.into()),
        (json!({ "alg": "RS256" }), json!({}), KeyFault::OtherKind.into()),
        (json!({ "alg": "EdDSA" }), json!({}), KeyFault::OtherKind.into()),
        (json!({}), json!({ "iss": "https://auth.example.com/" }), TokenFault::Issuer),
        (json!({}), json!({ "iss": null }), TokenFault::Issuer),
        (json!({}), json!({ "iss": [ISSUER] }), TokenFault::Claim("iss")),
        (json!({}), json!({ "aud": null }), TokenFault::Claim("aud")),
        (json!({}), json!({ "aud": { "a": RESOURCE } }), TokenFault::Claim("aud")),
        (json!({}), json!({ "aud": [RESOURCE, 7] }), TokenFault::Claim("aud")),
        (json!({}), json!({ "aud": [] }), TokenFault::Audience),
        (json!({}), json!({ "aud": format!("{RESOURCE}/") }), TokenFault::Audience),
        (json!({}), json!({ "aud": "https://holdpoint.example.com/mcp" }), TokenFault::Audience),
        (json!({}), json!({ "aud": "coder" }), TokenFault::Audience),
        (json!({}), json!({ "exp": null }), TokenFault::Claim("exp")),
        (json!({}), json!({ "exp": "never" }), TokenFault::Claim("exp")),
        (json!({}), json!({ "exp": 2_000_000_000_000_000.5 }), TokenFault::Claim("exp")),
        (json!({}), json!({ "exp": NOW_S - 30 }), TokenFault::Expired),
        (json!({}), json!({ "exp": -1 }), TokenFault::Expired),
        (json!({}), json!({ "nbf": NOW_S + 31 }), TokenFault::NotYet),
        (json!({}), json!({ "nbf": true }), TokenFault::Claim("nbf")),
        (json!({}), json!({ "sub": 7 }), TokenFault::Claim("sub")),
        (json!({}), json!({ "azp": "other" }), TokenFault::Clients),
        (json!({}), json!({ "scope": ["mcp:read", 7] }), TokenFault::Claim("scope")),
        (json!({}), json!({ "scope": 7 }), TokenFault::Claim("scope")),
        (json!({}), json!({ "cnf": { "jkt": "x" } }), TokenFault::Bound),
        (profile.clone(), json!({ "jti": "1" }), TokenFault::Claim("iat")),
        (profile, json!({ "iat": NOW_S }), TokenFault::Claim("jti")),
    ] {
        let token = signer.issue(head.clone(), claims.clone());
        assert_eq!(judge(&token, &keys), Err(fault), "{head} {claims}");
    }
}

#[test]
fn what_a_token_says_about_keys_is_not_followed() {
    let (issuer, thief) = (Signer::p256(), Signer::p256());
    let keys = set(&[issuer.jwk("one")]);
    for head in [
        json!({ "jwk": thief.jwk("one") }),
        json!({ "jku": "https://thief.example.com/jwks", "x5u": "https://thief.example.com/x5u" }),
        json!({ "x5c": ["MIIB"] }),
    ] {
        let forged = thief.issue(head.clone(), json!({}));
        assert_eq!(judge(&forged, &keys), Err(KeyFault::Signature.into()), "{head}");
        assert!(judge(&issuer.issue(head, json!({})), &keys).is_ok());
    }
}

#[test]
fn a_public_key_is_no_shared_secret() {
    let signer = Signer::p256();
    let keys = set(&[signer.jwk("one"), json!({ "kty": "oct", "kid": "two", "k": "AAAA" })]);
    let secrets = [signer.public(), &[0; 3]];
    for (kid, secret) in ["one", "two"].into_iter().zip(secrets) {
        let head = json!({ "alg": "HS256", "kid": kid });
        let signed = unsigned(&head.to_string(), &good().to_string());
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let token = format!("{signed}.{}", encode(hmac::sign(&key, signed.as_bytes()).as_ref()));
        assert_eq!(judge(&token, &keys), Err(TokenFault::Algorithm));
    }
}

#[test]
fn only_the_algorithms_that_were_chosen_are_accepted() {
    let signer = Signer::p256();
    let keys = set(&[signer.jwk("one")]);
    let token = signer.issue(json!({}), json!({}));
    assert!(judge_by(&token, &keys, &[Algorithm::Es256]).is_ok());
    assert_eq!(judge_by(&token, &keys, &[Algorithm::Rs256]), Err(TokenFault::Algorithm));
    // A key that says what it is for is for nothing else.
    let own = merged(signer.jwk("one"), json!({ "alg": "ES384" }));
    assert_eq!(judge(&token, &set(&[own])), Err(KeyFault::OtherKind.into()));
}

#[test]
fn a_token_without_a_key_id_must_leave_no_choice() {
    let (one, two) = (Signer::p256(), Signer::p256());
    let token = two.issue(json!({ "kid": null }), json!({}));
    let both = set(&[one.jwk("one"), two.jwk("two")]);
    assert_eq!(judge(&token, &both), Err(KeyFault::Ambiguous.into()));
    assert!(judge(&token, &set(&[Signer::ed().jwk("one"), two.jwk("two")])).is_ok());
    // Two keys under one id are both looked at.
    let token = two.issue(json!({}), json!({}));
    assert!(judge(&token, &set(&[one.jwk("one"), two.jwk("one")])).is_ok());
}

#[test]
fn what_is_no_signed_token_is_refused() {
    let signer = Signer::p256();
    let keys = set(&[signer.jwk("one")]);
    let token = signer.issue(json!({}), json!({}));
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let twice = unsigned(
        r#"{"alg":"ES256","kid":"one"}"#,
        &good().to_string().replacen('{', &format!("{{\"aud\":\"{RESOURCE}\","), 1),
    );
    let twice = format!("{twice}.{}", encode(&signer.sign(twice.as_bytes())));
    let long = signer.issue(json!({}), json!({ "pad": "x".repeat(TOKEN_BYTES_MAX) }));
    assert_eq!(judge(&long, &keys), Err(TokenFault::TooLong));
    for broken in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        &format!("{token}."),
        &format!(".{token}"),
        signed,
        &format!("{signed}.{signature}="),
        &format!("{signed}. {signature}"),
        &format!("a.{signed}.x.{signature}"),
        &twice,
        &format!("{}.e30.{signature}", encode(b"[]")),
    ] {
        let judged = judge(broken, &keys);
        assert!(matches!(judged, Err(TokenFault::Malformed(_))), "{broken}: {judged:?}");
    }
    for unsigned in [format!("{signed}."), format!("{signed}.{}", encode(&[0; 64]))] {
        assert_eq!(judge(&unsigned, &keys), Err(KeyFault::Signature.into()));
    }
}

/// A value that is nested this deep.
fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(1), |inner, _| json!([inner]))
}

#[test]
fn a_token_whose_claims_are_nested_deeply_is_refused() {
    let signer = Signer::p256();
    let keys = set(&[signer.jwk("one")]);
    let judged = |depth: usize| {
        let token = signer.issue(json!({}), json!({ "more": nested(depth - 1) }));
        judge(&token, &keys).map(|_| ())
    };
    assert_eq!(judged(DEPTH_MAX), Ok(()));
    assert!(matches!(judged(DEPTH_MAX + 1), Err(TokenFault::Malformed(_))));
}

#[test]
fn a_key_set_beyond_its_limits_is_refused() {
    let one = Signer::p256().jwk("one");
    let parse = |keys: &[Value], depth: usize, pad: usize| {
        let set = json!({ "keys": keys, "more": nested(depth - 1), "pad": "x".repeat(pad) });
        PublicKeys::parse(set.to_string().as_bytes())
    };
    let full = vec![one.clone(); jwk::KEYS_MAX];
    assert_eq!(parse(&full, jwk::DEPTH_MAX, 200 << 10).unwrap().len(), jwk::KEYS_MAX);
    let more = vec![one.clone(); jwk::KEYS_MAX + 1];
    assert!(matches!(parse(&more, 3, 0), Err(JwksFault::TooMany)));
    let deep = parse(std::slice::from_ref(&one), jwk::DEPTH_MAX + 1, 0);
    assert!(matches!(deep, Err(JwksFault::Malformed(_))), "{deep:?}");
    let long = parse(&[one], 3, jwk::JWKS_BYTES_MAX);
    assert!(matches!(long, Err(JwksFault::Malformed(_))), "{long:?}");
}

#[test]
fn keys_of_no_use_are_passed_over_and_a_set_of_none_is_refused() {
    let signer = Signer::p256();
    let short = encode(&[0xff; 128]);
    let useless = [
        json!(7),
        json!({ "kty": "oct", "k": "AAAA" }),
        json!({ "kty": "RSA", "n": short, "e": "AQAB" }),
        json!({ "kty": "RSA", "n": encode(&[0xff; 2048]), "e": "AQAB" }),
        json!({ "kty": "RSA", "n": encode(&[0; 256]), "e": "AQAB" }),
        json!({ "kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA" }),
        json!({ "kty": "OKP", "crv": "X25519", "x": encode(&[0; 32]) }),
        merged(signer.jwk("one"), json!({ "use": "enc" })),
        merged(signer.jwk("one"), json!({ "key_ops": ["sign"] })),
        merged(signer.jwk("one"), json!({ "x": "AA" })),
        merged(signer.jwk("one"), json!({ "kty": null })),
    ];
    let parse = |keys: Value| PublicKeys::parse(json!({ "keys": keys }).to_string().as_bytes());
    assert!(matches!(parse(json!(useless)), Err(JwksFault::Empty)));
    let mut some = useless.to_vec();
    some.push(merged(signer.jwk("one"), json!({ "use": "sig", "key_ops": ["verify"] })));
    let keys = parse(json!(some)).unwrap();
    assert_eq!(keys.len(), 1);
    assert!(judge(&signer.issue(json!({}), json!({})), &keys).is_ok());
    assert!(matches!(parse(json!({})), Err(JwksFault::Malformed(_))));
    assert!(matches!(PublicKeys::parse(b"<html>"), Err(JwksFault::Malformed(_))));
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[A-Za-z0-9_.-]{0,200}") {
        let keys = set(&[Signer::ed().jwk("one")]);
        prop_assert!(judge(&text, &keys).is_err());
    }

    #[test]
    fn no_changed_byte_of_a_token_goes_unnoticed(at in 0..1000usize, to in 0..64usize) {
        let signer = Signer::ed();
        let keys = set(&[signer.jwk("one")]);
        let token = signer.issue(json!({}), json!({}));
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut bytes = token.clone().into_bytes();
        let at = at % bytes.len();
        bytes[at] = letters[to];
        let changed = String::from_utf8(bytes).unwrap();
        prop_assert_eq!(judge(&changed, &keys).is_ok(), changed == token);
    }
}
