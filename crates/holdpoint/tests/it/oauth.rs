//! Access tokens of a real authorization server at the HTTP door.

use crate::issuer::{Issuer, http};
use crate::operate::get;
use crate::privacy::{files, holds};
use crate::raw::{Answer, call, exchange, post, reason};
use crate::world::{PEER, Serve, World, oauth_modules, text, until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// The small server, tokens of `issuer`, and `coder` for the client of that name.
pub fn config(issuer: &str, more: &str) -> String {
    let listen = "[listen]\noperations = \"127.0.0.1:0\"\n";
    let oauth = format!("[listen.oauth]\nissuer = \"{issuer}\"\n{more}\n[limits]\n");
    let agent = "[agent.coder]\noauth = { client_id = \"coder-client\" }\n";
    let config = PEER.replace("[listen]\n", listen).replace("[limits]\n", &oauth);
    config.replace("[agent.coder]\n", agent)
}

fn echo() -> Value {
    call(1, "echo", json!({ "text": "hi" }))
}

fn touch(world: &World) -> Value {
    call(2, "touch", json!({ "path": world.files().join("touched") }))
}

fn resource(serve: &Serve) -> String {
    format!("{}/peer", serve.url)
}

/// What a refusal says should be done.
pub fn challenge(answer: &Answer) -> &str {
    answer.header("www-authenticate").unwrap_or_default()
}

#[test]
fn a_token_acts_as_its_agent_as_far_as_its_scopes_reach() {
    let mut issuer = Issuer::start();
    let world = World::new(&config(&issuer.url, ""));
    let key = world.key("coder");
    let serve = world.serve();
    for algorithm in ["RS256", "PS512", "ES256", "EdDSA"] {
        issuer.tell(&format!("sign {algorithm}"));
        let token = issuer.issue("coder-client", &resource(&serve), "mcp:read");
        let answer = post(&serve, ("/peer", &token), &echo());
        assert_eq!(reason(&answer.body), "answered", "{algorithm}: {answer:?}");
    }
    let read = issuer.issue("coder-client", &resource(&serve), "mcp:read");
    let refused = post(&serve, ("/peer", &read), &touch(&world));
    assert_eq!((refused.status, reason(&refused.body).as_str()), (403, "scope_insufficient"));
    let place = format!("http://{}/.well-known/oauth-protected-resource", serve.address());
    let expected = format!(
        "Bearer error=\"insufficient_scope\", error_description=\"the tool needs more than the \
         token's scopes\", resource_metadata=\"{place}/mcp/peer\", scope=\"mcp:write\""
    );
    assert_eq!(challenge(&refused), expected);
    assert_eq!(refused.body["id"], 2);
    assert!(!world.files().join("touched").exists());
    // A tool that nobody offers has no scope that would do.
    let unknown = post(&serve, ("/peer", &read), &call(1, "nothing", json!({})));
    assert_eq!((unknown.status, reason(&unknown.body).as_str()), (200, "tool_unknown"));
    let write = issuer.issue("coder-client", &resource(&serve), "mcp:write");
    assert_eq!(reason(&post(&serve, ("/peer", &write), &touch(&world)).body), "answered");
    assert_eq!(reason(&post(&serve, ("/peer", &write), &echo()).body), "answered");
    assert!(world.files().join("touched").exists());
    // Keys are as good as ever, and a key that was guessed is no token.
    assert_eq!(reason(&post(&serve, ("/peer", &key), &touch(&world)).body), "answered");
    let guessed = post(&serve, ("/peer", &format!("{key}0")), &echo());
    assert_eq!((guessed.status, reason(&guessed.body).as_str()), (401, "unauthenticated"));
    serve.end();
    let records = world.records();
    let decisions: Vec<_> = records.iter().filter(|it| it["kind"] == "decision").collect();
    assert!(decisions.iter().all(|it| it["request"]["agent"] == "coder"));
    assert_eq!(decisions.len(), 7, "what was refused at the door is no action");
}

#[test]
fn whoever_comes_without_a_good_token_learns_where_to_get_one() {
    let issuer = Issuer::start();
    let world = World::new(&config(&issuer.url, ""));
    let serve = world.serve();
    let base = format!("http://{}", serve.address());
    let place = format!("{base}/.well-known/oauth-protected-resource");
    let json = ["Content-Type: application/json"];
    for below in ["/mcp", "/mcp/peer", "/mcp/nobody"] {
        let answer = exchange(&serve, &format!("POST {below}"), &json, b"{}");
        let expected = format!("Bearer resource_metadata=\"{place}{below}\", scope=\"mcp:read\"");
        assert_eq!((answer.status, challenge(&answer)), (401, expected.as_str()));
        // Names of servers are nobody's business before that: they all have the same metadata.
        let (status, body) = http(&format!("{place}{below}"), "GET", ("X: y", ""));
        let metadata: Value = serde_json::from_str(&body).unwrap();
        let expected = json!({
            "resource": format!("{base}{below}"), "authorization_servers": [issuer.url],
            "scopes_supported": ["mcp:read"], "bearer_methods_supported": ["header"],
            "resource_name": "Holdpoint",
        });
        assert_eq!((status, metadata), (200, expected));
    }
    let (status, root) = http(&place, "GET", ("X: y", ""));
    assert_eq!((status, root.contains(&format!("\"{base}/mcp\""))), (200, true));
    assert_eq!(http(&format!("{place}/mcp/a/b"), "GET", ("X: y", "")).0, 404);
    let stranger = exchange(
        &serve,
        "GET /.well-known/oauth-protected-resource",
        &["Host: evil.example.com"],
        b"",
    );
    assert_eq!(stranger.status, 403);

    let row = |resource: &str, client: &str, scope: &str| {
        let token = issuer.issue(client, resource, scope);
        let answer = post(&serve, ("/peer", &token), &echo());
        let error = challenge(&answer).split_once("error=\"").map(|(_, rest)| rest);
        let error = error.and_then(|rest| rest.split('"').next()).unwrap_or("-").to_owned();
        (answer.status, reason(&answer.body), error)
    };
    let row = |resource: &str, client, scope| {
        let (status, reason, error) = row(resource, client, scope);
        format!("{status} {reason} {error}")
    };
    let own = resource(&serve);
    let invalid = "401 token_invalid invalid_token";
    assert_eq!(row(&own, "coder-client", "mcp:read"), "200 answered -");
    assert_eq!(row(&serve.url, "coder-client", "mcp:read"), invalid);
    assert_eq!(row(&format!("{own}/"), "coder-client", "mcp:read"), invalid);
    assert_eq!(row("http://127.0.0.1:1/mcp/peer", "coder-client", "mcp:read"), invalid);
    assert_eq!(row(&own, "other-client", "mcp:read"), "403 token_unmapped -");
    let scopeless = "403 scope_insufficient insufficient_scope";
    assert_eq!(row(&own, "coder-client", ""), scopeless);
    serve.end();
}

#[test]
fn a_session_reaches_as_far_as_the_token_of_each_request() {
    let issuer = Issuer::start();
    let world = World::new(&config(&issuer.url, ""));
    let serve = world.serve();
    for (below, prefix) in [("/peer", ""), ("", "peer__")] {
        let resource = format!("{}{below}", serve.url);
        let read = issuer.issue("coder-client", &resource, "mcp:read");
        let write = issuer.issue("coder-client", &resource, "mcp:write");
        let send = |token: &str, session: Option<&str>, message: &Value| {
            let bearer = format!("Authorization: Bearer {token}");
            let session = session.map(|id| format!("Mcp-Session-Id: {id}"));
            let mut head = vec![bearer.as_str(), "Content-Type: application/json"];
            head.extend(session.as_deref());
            head.push("MCP-Protocol-Version: 2025-11-25");
            let what = format!("POST /mcp{below}");
            exchange(&serve, &what, &head, message.to_string().as_bytes())
        };
        let hello = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": { "name": "test", "version": "1" } } });
        let begun = send(&read, None, &hello);
        let session = begun.header("mcp-session-id").unwrap().to_owned();
        let named = format!("Mcp-Session-Id: {session}");
        let session = Some(session.as_str());
        send(&read, session, &json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        let file = world.files().join(format!("touched-{prefix}"));
        let touch = call(2, &format!("{prefix}touch"), json!({ "path": file }));
        let echo = call(1, &format!("{prefix}echo"), json!({ "text": "hi" }));
        assert_eq!(reason(&send(&read, session, &echo).body), "answered");
        let refused = send(&read, session, &touch);
        assert_eq!((refused.status, reason(&refused.body).as_str()), (403, "scope_insufficient"));
        assert!(challenge(&refused).contains("scope=\"mcp:write\""));
        assert!(!file.exists());
        assert_eq!(reason(&send(&write, session, &touch).body), "answered");
        for what in ["GET", "DELETE"] {
            let answer = exchange(&serve, &format!("{what} /mcp{below}"), &[&named], b"");
            assert_eq!(answer.status, 401, "{what}");
        }
    }
    serve.end();
}

#[test]
fn rotated_keys_are_found_and_old_ones_forgotten() {
    let mut issuer = Issuer::start();
    let world = World::new(&config(&issuer.url, ""));
    let serve = world.serve();
    let old = issuer.issue("coder-client", &resource(&serve), "mcp:read");
    assert_eq!(post(&serve, ("/peer", &old), &echo()).status, 200);
    issuer.tell("rotate");
    let new = issuer.issue("coder-client", &resource(&serve), "mcp:read");
    assert_eq!(post(&serve, ("/peer", &new), &echo()).status, 200, "at once");
    assert_eq!(post(&serve, ("/peer", &old), &echo()).status, 401);
    serve.end();
}

#[test]
fn an_issuer_that_is_down_is_shown_and_a_reload_takes_another() {
    let issuer = Issuer::start();
    let world = World::new(&config("http://127.0.0.1:1", ""));
    let key = world.key("coder");
    let serve = world.serve();
    let ready = until("the first fetch has failed", || {
        let (status, body) = get(&serve, "/readyz");
        body.contains("cannot be reached").then_some((status, body))
    });
    assert_eq!(ready.0, 503, "{}", ready.1);
    let status = world.json(&["status"]);
    assert_eq!(status["gateways"][0]["issuer"]["keys"], 0);
    assert_eq!(crate::limits::metric(&serve, "holdpoint_issuer_keys"), Some(0.0));
    let token = issuer.issue("coder-client", &resource(&serve), "mcp:read");
    let answer = post(&serve, ("/peer", &token), &echo());
    assert_eq!((answer.status, reason(&answer.body).as_str()), (503, "issuer_unavailable"));
    assert_eq!(reason(&post(&serve, ("/peer", &key), &echo()).body), "answered");

    world.write_config(&config(&issuer.url, ""));
    serve.signal(Signal::HUP);
    until("the other issuer is in force", || {
        (post(&serve, ("/peer", &token), &echo()).status == 200).then_some(())
    });
    assert_eq!(get(&serve, "/readyz").0, 200);
    assert!(crate::limits::metric(&serve, "holdpoint_issuer_keys") >= Some(3.0));
    let shown = world.must(&["status"]);
    assert!(shown.contains(&format!("tokens of {}", issuer.url)), "{shown}");

    // A file that is not there refuses the whole configuration.
    world.write_config(&config(&issuer.url, "jwks_file = \"jwks.json\""));
    serve.signal(Signal::HUP);
    until("the fault is told", || world.serve_log().contains("jwks.json").then_some(()));
    assert_eq!(post(&serve, ("/peer", &token), &echo()).status, 200);
    serve.end();
}

#[test]
fn tokens_are_handed_on_to_nobody_and_written_nowhere() {
    let issuer = Issuer::start();
    let (port, heard) = crate::privacy::listener();
    let web = format!(
        "[server.web]\nurl = \"http://127.0.0.1:{port}/mcp\"\nread = [\"*\"]\n\
         environment = \"dev\"\ntimeout_ms = 1000\n"
    );
    let world = World::new(&format!("{}\n{web}", config(&issuer.url, "")));
    let mut command = world.command(&["serve", "--format", "json"]);
    command.env("HOLDPOINT_LOG", "trace");
    let serve = world.serve_by(command);
    let token = issuer.issue("coder-client", &resource(&serve), "mcp:read");
    assert_eq!(reason(&post(&serve, ("/peer", &token), &echo()).body), "answered");
    let web = issuer.issue("coder-client", &format!("{}/web", serve.url), "mcp:read");
    post(&serve, ("/web", &web), &echo());
    let sent = heard.recv_timeout(crate::world::PATIENCE).unwrap();
    assert!(!sent.to_lowercase().contains("authorization"), "{sent}");
    let forged = format!("{token}AA");
    assert_eq!(post(&serve, ("/peer", &forged), &echo()).status, 401);
    serve.end();
    let signatures = [&token, &web].map(|token| token.rsplit('.').next().unwrap().to_owned());
    for (name, bytes) in files(world.path()) {
        for signature in &signatures {
            assert!(!holds(&bytes, signature), "a token is in {name}");
        }
    }
    assert!(world.serve_log().contains("TRACE"), "this was the most that can be logged");
}

#[test]
fn the_official_client_finds_the_issuer_gets_tokens_and_steps_up() {
    let issuer = Issuer::start();
    let config =
        config(&issuer.url, "").replace("client_id = \"coder-client\"", "subject = \"ada\"");
    let world = World::new(&config);
    let serve = world.serve();
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/oauth_client.mjs");
    let mut command = Command::new("node");
    command.arg(program).arg(oauth_modules()).arg(resource(&serve));
    let output = command.arg(world.files().join("touched")).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let scopes: Vec<_> = said["asked"].as_array().unwrap().iter().map(|it| &it["scope"]).collect();
    assert_eq!(scopes.len(), 2, "{said}");
    assert_eq!(scopes[0], "mcp:read");
    assert!(scopes[1].as_str().unwrap().contains("mcp:write"), "{said}");
    assert_eq!(said["asked"][0]["resource"], resource(&serve));
    for call in ["before", "touched", "after"] {
        assert!(said[call]["content"].is_array() && said[call]["isError"] != true, "{said}");
    }
    assert!(world.files().join("touched").exists());
    serve.end();
}
