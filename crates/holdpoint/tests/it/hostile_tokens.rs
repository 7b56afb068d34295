//! Tokens and issuers that mean harm, at the HTTP door.

use crate::issuer::{Keys, Manner};
use crate::oauth::{challenge, config};
use crate::operate::get;
use crate::raw::{call, post, reason};
use crate::world::{Serve, World, until};
use ring::hmac;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const ISSUER: &str = "https://issuer.example.com";

/// Somebody who signs tokens, and a server that trusts them.
struct Place {
    pair: Ed25519KeyPair,
    keys: Keys,
    world: World,
    serve: Serve,
}

impl Place {
    fn new(more: &str) -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let keys = Keys::start(Keys::good(&jwk(&pair)));
        let more = format!("jwks_uri = \"{}\"\n{more}", keys.uri);
        let world = World::new(&config(ISSUER, &more));
        let serve = world.serve();
        Self { pair, keys, world, serve }
    }

    fn issue(&self, head: Value, claims: Value) -> String {
        let signed = self.unsigned(head, claims);
        let signature = self.pair.sign(signed.as_bytes());
        format!("{signed}.{}", encode(signature.as_ref()))
    }

    fn unsigned(&self, head: Value, claims: Value) -> String {
        let good = json!({
            "iss": ISSUER, "aud": format!("{}/peer", self.serve.url), "exp": now() + 60,
            "client_id": "coder-client", "scope": "mcp:read",
        });
        let head = merged(json!({ "alg": "EdDSA", "kid": "one", "typ": "JWT" }), head);
        let claims = merged(good, claims);
        format!("{}.{}", encode(head.to_string().as_bytes()), encode(claims.to_string().as_bytes()))
    }

    fn good(&self) -> String {
        self.issue(json!({}), json!({}))
    }

    fn send(&self, token: &str) -> (u16, String) {
        let answer = post(&self.serve, ("/peer", token), &call(1, "echo", json!({ "text": "hi" })));
        if answer.status == 401 {
            assert!(challenge(&answer).contains("error=\"invalid_token\""), "{answer:?}");
        }
        (answer.status, reason(&answer.body))
    }

    fn until_answer(&self, status: u16) {
        until("the answer is another", || (self.send(&self.good()).0 == status).then_some(()));
    }
}

fn jwk(pair: &Ed25519KeyPair) -> Value {
    let x = encode(pair.public_key().as_ref());
    json!({ "kty": "OKP", "crv": "Ed25519", "kid": "one", "use": "sig", "x": x })
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn merged(mut base: Value, changes: Value) -> Value {
    for (key, value) in changes.as_object().unwrap() {
        base[key] = value.clone();
    }
    base
}

fn encode(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

#[test]
fn forged_and_foreign_tokens_do_not_come_in() {
    let place = Place::new("");
    assert_eq!(place.send(&place.good()), (200, "answered".to_owned()));
    let spy = Keys::start(Keys::good(&jwk(&place.pair)));
    let one = |head, claims| place.issue(head, claims);
    let none = place.unsigned(json!({ "alg": "none" }), json!({}));
    let shared = place.unsigned(json!({ "alg": "HS256" }), json!({}));
    let key = hmac::Key::new(hmac::HMAC_SHA256, place.pair.public_key().as_ref());
    let shared = format!("{shared}.{}", encode(hmac::sign(&key, shared.as_bytes()).as_ref()));
    let pointing = json!({ "kid": "two", "jku": spy.uri, "x5u": spy.uri });
    for (what, forged) in [
        ("alg none", format!("{none}.")),
        ("alg none, signed", one(json!({ "alg": "none" }), json!({}))),
        ("the public key as a secret", shared),
        ("another algorithm", one(json!({ "alg": "RS256" }), json!({}))),
        ("keys of its own", one(pointing, json!({}))),
        ("another kid", one(json!({ "kid": "two" }), json!({}))),
        ("another issuer", one(json!({}), json!({ "iss": "https://evil.example.com" }))),
        ("another resource", one(json!({}), json!({ "aud": "https://other.example.com/mcp" }))),
        ("expired", one(json!({}), json!({ "exp": now() - 31 }))),
        ("not yet", one(json!({}), json!({ "nbf": now() + 60 }))),
        ("for a log-out", one(json!({ "typ": "logout+jwt" }), json!({}))),
        ("bound to a key", one(json!({}), json!({ "cnf": { "jkt": "abc" } }))),
        ("too long", one(json!({}), json!({ "pad": "x".repeat(6_500) }))),
        ("changed", place.good().replacen('.', ".eyJhIjoxfQ", 1)),
        ("no token", "guess".to_owned()),
        ("nothing", String::new()),
    ] {
        assert_eq!(place.send(&forged).0, 401, "{what}");
    }
    let long = one(json!({}), json!({ "pad": "x".repeat(20_000) }));
    assert_eq!(post(&place.serve, ("/peer", &long), &json!({})).status, 431);
    assert_eq!(spy.asked(), 0, "nobody goes where a token points");
    assert_eq!(place.send(&place.good()), (200, "answered".to_owned()));
    // The word of the operator's API is a key of its own.
    let status = crate::raw::exchange(
        &place.serve,
        "GET /api/v1/status",
        &[&format!("Authorization: Bearer {}", place.good())],
        b"",
    );
    assert_eq!(status.status, 401);
    place.serve.end();
}

#[test]
fn a_flood_of_unknown_keys_is_no_flood_for_the_issuer_nor_for_others() {
    let place = Place::new("");
    assert_eq!(place.send(&place.good()).0, 200);
    assert_eq!(place.keys.asked(), 1);
    // The issuer becomes slow: whoever names a known key does not notice.
    place.keys.turn(Manner::Silent);
    std::thread::scope(|scope| {
        let floods: Vec<_> = (0..16)
            .map(|flood| {
                let place = &place;
                scope.spawn(move || {
                    for number in 0..20 {
                        let kid = format!("{flood}-{number}");
                        let forged = place.issue(json!({ "kid": kid }), json!({}));
                        assert_eq!(place.send(&forged).0, 401);
                    }
                })
            })
            .collect();
        until("the issuer is asked again", || (place.keys.asked() > 1).then_some(()));
        let begin = Instant::now();
        for _ in 0..20 {
            assert_eq!(place.send(&place.good()).0, 200);
        }
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(2), "others waited: {took:?}");
        for flood in floods {
            flood.join().unwrap();
        }
    });
    assert!(place.keys.asked() <= 6, "{} fetches for 320 tokens", place.keys.asked());
    place.serve.end();
}

#[test]
fn broken_keys_of_an_issuer_let_nobody_in_until_they_are_good_again() {
    let place = Place::new("keys_refresh_s = 1\nkeys_stale_s = 2");
    assert_eq!(place.send(&place.good()).0, 200);
    let spy = Keys::start(Keys::good(&jwk(&place.pair)));
    let answer =
        |status, headers: String, body: &str| Manner::Answer(status, headers, body.to_owned());
    let good = Keys::good(&jwk(&place.pair));
    for (manner, word) in [
        (Manner::Down, "cannot be reached"),
        (Manner::Endless, "sent more than"),
        (answer("302 Found", format!("Location: {}\r\n", spy.uri), ""), "answered 302"),
        (answer("500 Sorry", String::new(), ""), "answered 500"),
        (answer("200 OK", String::new(), "<html>"), "no JWK Set"),
        (answer("200 OK", String::new(), "{\"keys\":[]}"), "no asymmetric"),
        (answer("200 OK", String::new(), "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AA\"}]}"), "asymm"),
        (Manner::Silent, "cannot be reached"),
    ] {
        place.keys.turn(manner);
        // Keys that were good stay so for their time, and no longer.
        place.until_answer(503);
        until(word, || get(&place.serve, "/readyz").1.contains(word).then_some(()));
        assert_eq!(get(&place.serve, "/readyz").0, 503);
        place.keys.turn(good.clone());
        place.until_answer(200);
    }
    assert_eq!(spy.asked(), 0, "redirects are not followed");
    assert_eq!(get(&place.serve, "/readyz").0, 200);
    place.serve.end();
}

#[test]
fn keys_from_a_file_need_no_network_and_change_with_it() {
    let place = Place::new("");
    let file = place.world.path().join("jwks.json");
    let write = |keys: Value| std::fs::write(&file, json!({ "keys": keys }).to_string()).unwrap();
    write(json!([jwk(&place.pair)]));
    let world = &place.world;
    world.write_config(&config(ISSUER, "jwks_file = \"jwks.json\"\naudiences = [\"api://hp\"]"));
    place.serve.signal(rustix::process::Signal::HUP);
    until("the file is in force", || {
        (place.send(&place.issue(json!({}), json!({ "aud": "api://hp" }))).0 == 200).then_some(())
    });
    let mut other = jwk(&place.pair);
    other["kid"] = json!("two");
    write(json!([other]));
    assert_eq!(place.send(&place.issue(json!({ "kid": "two" }), json!({}))).0, 200);
    assert_eq!(place.send(&place.good()).0, 401);
    std::fs::remove_file(&file).unwrap();
    world.write_config(&config(ISSUER, "jwks_file = \"jwks.json\"\nleeway_s = 0"));
    place.serve.signal(rustix::process::Signal::HUP);
    until("the fault is told", || world.serve_log().contains("cannot be read").then_some(()));
    assert_eq!(place.send(&place.issue(json!({ "kid": "two" }), json!({}))).0, 200);
    place.serve.end();
    assert_eq!(world.run(&["serve"]).status.code(), Some(1), "and none starts without");
}
