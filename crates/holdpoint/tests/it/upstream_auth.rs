//! Upstream servers that want OAuth: a real authorization server, a real resource server, and the
//! part of the person's browser played over HTTP.

use crate::client::{self, Opens, call, failed, text as said, tools};
use crate::world::{PATIENCE, Serve, World, oauth_modules, text, until};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// The servers of `tests/servers/oauth.mjs`; killed when dropped.
struct OAuth {
    child: Child,
    mcp: String,
    issuer: String,
    other: String,
}

const CONFIG: &str = r#"
[listen]
http = "127.0.0.1:0"

[team.platform]
on_call = "platform on-call"

[agent.coder]
owner = "platform"
grants = [{ class = "read", tools = ["*"] }]

[agent.other]
owner = "platform"
grants = [{ class = "read", tools = ["*"] }]

[server.notes]
url = "${mcp}"
environment = "dev"
timeout_ms = 20000
read = ["*"]
"#;

const CODE: &str = "oauth = { client_id = \"holdpoint\" }";

// === impl OAuth ===

impl OAuth {
    /// Starts them; tokens live for `seconds`.
    fn start(seconds: u32) -> Self {
        let program = servers().join("oauth.mjs");
        let mut command = Command::new("node");
        command.arg(program).arg(oauth_modules()).arg(seconds.to_string());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        let of = |key: &str| told[key].as_str().unwrap().to_owned();
        Self { child, mcp: of("mcp"), issuer: of("issuer"), other: of("other") }
    }

    /// A world whose server `notes` is this one, with this `oauth`.
    fn world(&self, oauth: &str) -> World {
        World::new(&format!("{}{oauth}\n", CONFIG.replace("${mcp}", &self.mcp)))
    }

    /// Changes what the servers do.
    async fn rule(&self, rules: Value) {
        let url = self.mcp.replace("/mcp", "/control");
        let post = reqwest::Client::new().post(url).body(rules.to_string());
        assert!(post.send().await.unwrap().status().is_success());
    }

    /// What the servers saw.
    async fn seen(&self) -> Value {
        let url = self.mcp.replace("/mcp", "/control");
        let answer = reqwest::get(url).await.unwrap().bytes().await.unwrap();
        serde_json::from_slice(&answer).unwrap()
    }

    /// The calls that reached the resource server.
    async fn calls(&self) -> Vec<Value> {
        let all = self.seen().await["mcp"].as_array().unwrap().clone();
        all.into_iter().filter(|one| one["method"] == "tools/call").collect()
    }

    /// How often a refresh token was used.
    async fn renewals(&self) -> usize {
        let all = self.seen().await["tokens"].as_array().unwrap().clone();
        all.iter().filter(|one| one["grant"] == "refresh_token").count()
    }
}

impl Drop for OAuth {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn servers() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers")
}

/// Does what a person does with a browser.
fn consent(url: &str, how: &[&str]) -> Output {
    let mut command = Command::new("node");
    command.arg(servers().join("consent.mjs")).arg(url).args(how);
    command.output().unwrap()
}

/// Runs `holdpoint login` with a person who consents as `how` says; gives all that was said.
fn login(world: &World, arguments: &[&str], how: &[&str]) -> (bool, String) {
    login_after(world, arguments, how, |_| {})
}

/// As [`login`]; `before` sees the URL before the person does.
fn login_after(
    world: &World,
    arguments: &[&str],
    how: &[&str],
    before: impl FnOnce(&str),
) -> (bool, String) {
    let mut all = vec!["--format", "json", "login", "notes", "--wait", "60"];
    all.extend(arguments);
    let mut command = world.command(&all);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    out.read_line(&mut said).unwrap();
    if let Ok(told) = serde_json::from_str::<Value>(&said) {
        let url = told["open"].as_str().unwrap();
        before(url);
        consent(url, how);
    }
    out.read_to_string(&mut said).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap().success(), said)
}

/// Logs `agent` in as `account` and demands success.
fn must_log_in(world: &World, agent: &str, account: &str) {
    let (good, said) = login(world, &["--agent", agent], &[account]);
    assert!(good, "{said}");
}

/// Calls a tool of `notes` as the holder of `key`.
async fn ask(serve: &Serve, key: &str, tool: &str) -> Result<Value, String> {
    let client = client::http(serve, "", key, Opens::Modern).await;
    let params = rmcp::model::CallToolRequestParams::new(format!("notes__{tool}"));
    let called = client.call_tool(params).await;
    client.cancel().await.unwrap();
    let result = called.map_err(|fault| fault.to_string())?;
    if failed(&result) {
        return Err(said(&result));
    }
    Ok(serde_json::from_str(&said(&result)).unwrap())
}

fn refused(answer: &Result<Value, String>, parts: &[&str]) {
    let why = answer.as_ref().unwrap_err();
    for part in parts {
        assert!(why.contains(part), "`{part}` is not in: {why}");
    }
}

/// Waits for the record of a call that ended because of `reason`, and was not executed.
fn not_sent(world: &World, reason: &str) {
    let ended = |one: &Value| one["kind"] == "outcome" && one["reason"] == reason;
    let record = until("the record", || world.records().into_iter().rfind(ended));
    assert_eq!(record["status"], "not_sent");
}

#[tokio::test]
async fn each_agent_calls_with_its_own_credential() {
    let oauth = OAuth::start(3600);
    let world = oauth.world(CODE);
    let (coder, other) = (world.key("coder"), world.key("other"));
    let serve = world.serve();
    refused(&ask(&serve, &coder, "whoami").await, &["holdpoint login notes --agent coder"]);
    assert!(oauth.seen().await["mcp"].as_array().unwrap().is_empty(), "nothing was sent");

    must_log_in(&world, "coder", "alice");
    assert_eq!(ask(&serve, &coder, "whoami").await.unwrap()["account"], "alice");
    // Known by now, so it is decided on and recorded; still nothing is sent.
    refused(&ask(&serve, &other, "whoami").await, &["holdpoint login notes --agent other"]);
    not_sent(&world, "credential_missing");
    assert_eq!(oauth.calls().await.len(), 1);

    must_log_in(&world, "other", "bob");
    assert_eq!(ask(&serve, &other, "whoami").await.unwrap()["account"], "bob");
    assert_eq!(ask(&serve, &coder, "whoami").await.unwrap()["account"], "alice");
    for (key, own, foreign) in
        [(&coder, "only_alice", "only_bob"), (&other, "only_bob", "only_alice")]
    {
        for below in ["", "/notes"] {
            let client = client::http(&serve, below, key, Opens::Modern).await;
            let names = tools(&client).await.join(" ");
            assert!(names.contains(own) && !names.contains(foreign), "{names}");
            client.cancel().await.unwrap();
        }
        // A legacy client has a line of its own to the server.
        let client = client::http(&serve, "/notes", key, Opens::Legacy).await;
        assert!(said(&call(&client, "whoami", json!({})).await).contains(&own[5..]));
        client.cancel().await.unwrap();
    }
    serve.end();
    world.must(&["verify"]);
    let issued = world.records().into_iter().filter(|one| one["kind"] == "credential_issued");
    let issued: Vec<_> = issued.collect();
    assert_eq!(issued.len(), 2);
    assert_eq!(issued[0]["issuer"], json!(oauth.issuer));
}

#[tokio::test]
async fn a_credential_in_the_place_of_another_is_refused() {
    let oauth = OAuth::start(3600);
    let world = oauth.world(CODE);
    let other = world.key("other");
    must_log_in(&world, "coder", "alice");
    must_log_in(&world, "other", "bob");
    let folder = world.store().join("credentials");
    let (own, foreign) = (folder.join("notes@other.sealed"), folder.join("notes@coder.sealed"));
    let kept = std::fs::read(&own).unwrap();
    let serve = world.serve();
    assert_eq!(ask(&serve, &other, "whoami").await.unwrap()["account"], "bob");
    std::fs::copy(&foreign, &own).unwrap();
    refused(&ask(&serve, &other, "whoami").await, &["belongs to another agent"]);
    std::fs::write(&own, &kept[..kept.len() / 2]).unwrap();
    refused(&ask(&serve, &other, "whoami").await, &["is not the credential that was kept"]);
    std::fs::write(&own, &kept).unwrap();
    assert_eq!(ask(&serve, &other, "whoami").await.unwrap()["account"], "bob");
    // A thief of the folder without the key has nothing.
    std::fs::write(world.store().join("credentials.key"), format!("{}\n", "7".repeat(64))).unwrap();
    std::fs::write(&own, &kept).unwrap();
    refused(&ask(&serve, &other, "whoami").await, &["sealed with another key"]);
    drop(serve);
    assert_eq!(oauth.calls().await.len(), 2);
}

#[tokio::test]
async fn a_refused_credential_is_renewed_once() {
    let oauth = OAuth::start(3600);
    let world = oauth.world(CODE);
    let coder = world.key("coder");
    must_log_in(&world, "coder", "alice");
    let serve = world.serve();
    let before = ask(&serve, &coder, "whoami").await.unwrap();
    oauth.rule(json!({ "refuse": 1 })).await;
    let after = ask(&serve, &coder, "whoami").await.unwrap();
    assert_ne!(before["token"], after["token"]);
    assert_eq!(oauth.renewals().await, 1);
    let all = oauth.seen().await["tokens"].as_array().unwrap().clone();
    assert!(all.iter().all(|one| one["resource"] == json!(oauth.mcp)), "RFC 8707: {all:?}");

    // What a fresh one does not help with is not tried for ever.
    oauth.rule(json!({ "refuse": 1000 })).await;
    refused(&ask(&serve, &coder, "whoami").await, &["turns away a fresh one"]);
    oauth.rule(json!({ "refuse": 0 })).await;
    assert!(oauth.renewals().await <= 2);
    let turned_away = oauth.calls().await.iter().filter(|one| one["answered"] == 401).count();
    assert!((2..=3).contains(&turned_away), "{turned_away}");
    not_sent(&world, "credential_missing");
    // The same in a legacy client's own line.
    oauth.rule(json!({ "refuse": 1 })).await;
    serve.end();
    let serve = world.serve();
    let client = client::http(&serve, "/notes", &coder, Opens::Legacy).await;
    assert!(said(&call(&client, "whoami", json!({})).await).contains("alice"));
    client.cancel().await.unwrap();
    serve.end();
    world.must(&["verify"]);
}

#[tokio::test]
async fn a_credential_is_renewed_ahead_and_by_one_at_a_time() {
    let oauth = OAuth::start(4);
    let world = oauth.world(CODE);
    let coder = world.key("coder");
    must_log_in(&world, "coder", "alice");
    let serve = world.serve();
    let start = std::time::Instant::now();
    let mut tokens = std::collections::BTreeSet::new();
    // Four calls at a time, over a few lives of the token: none is turned away.
    while tokens.len() < 4 {
        assert!(start.elapsed() < PATIENCE, "{tokens:?}");
        let one = || ask(&serve, &coder, "whoami");
        let (a, b, c, d) = tokio::join!(one(), one(), one(), one());
        for answer in [a, b, c, d] {
            tokens.insert(answer.unwrap()["token"].as_str().unwrap().to_owned());
        }
    }
    assert!(oauth.calls().await.iter().all(|one| one["answered"].is_null()));
    // A refresh token that is used twice takes the whole grant back.
    assert_eq!(oauth.renewals().await, tokens.len() - 1);
    serve.end();
}

#[tokio::test]
async fn a_missing_scope_is_named_and_can_be_added() {
    let oauth = OAuth::start(3600);
    let world = oauth.world(CODE);
    let coder = world.key("coder");
    must_log_in(&world, "coder", "alice");
    let serve = world.serve();
    assert_eq!(ask(&serve, &coder, "whoami").await.unwrap()["scope"], "notes:read");
    let command = "holdpoint login notes --agent coder --scope notes:write";
    refused(&ask(&serve, &coder, "write").await, &["credential_too_narrow", command]);
    not_sent(&world, "credential_too_narrow");
    let (good, said) = login(&world, &["--agent", "coder", "--scope", "notes:write"], &["alice"]);
    assert!(good, "{said}");
    let scope = ask(&serve, &coder, "write").await.unwrap()["scope"].clone();
    assert_eq!(scope, "notes:read notes:write");
}

#[tokio::test]
async fn logging_out_deletes_and_revokes() {
    let oauth = OAuth::start(3600);
    let world = oauth.world(CODE);
    let coder = world.key("coder");
    must_log_in(&world, "coder", "alice");
    let path = world.store().join("credentials/notes@coder.sealed");
    let kept = std::fs::read(&path).unwrap();
    let serve = world.serve();
    assert_eq!(ask(&serve, &coder, "whoami").await.unwrap()["account"], "alice");
    let answer = world.json(&["logout", "notes", "--agent", "coder"]);
    assert_eq!(answer["revoked"], "revoked");
    refused(&ask(&serve, &coder, "whoami").await, &["there is none", "holdpoint login notes"]);
    assert_eq!(oauth.calls().await.len(), 1);
    let last = |kind: &str| world.records().into_iter().rfind(|one| one["kind"] == kind).unwrap();
    assert_eq!(last("credential_deleted")["agent"], "coder");
    assert_eq!(world.run(&["logout", "notes", "--agent", "coder"]).status.code(), Some(1));

    // Who brings the file back has what was taken back at the authorization server.
    std::fs::write(&path, kept).unwrap();
    refused(&ask(&serve, &coder, "whoami").await, &["no longer accepts it"]);
    let standing = &world.json(&["status"])["credentials"][0];
    assert!(standing["fault"].as_str().unwrap().contains("no longer accepts it"), "{standing}");
    must_log_in(&world, "coder", "alice");
    assert_eq!(ask(&serve, &coder, "whoami").await.unwrap()["account"], "alice");
    let standing = &world.json(&["status"])["credentials"][0];
    assert!(standing["fault"].is_null() && standing["renewable"] == true, "{standing}");
    assert_eq!(standing["issuer"], json!(oauth.issuer));
}

#[tokio::test]
async fn a_credential_dies_with_its_issuer() {
    let oauth = OAuth::start(3600);
    let world = oauth.world(CODE);
    let coder = world.key("coder");
    must_log_in(&world, "coder", "alice");
    let serve = world.serve();
    assert_eq!(ask(&serve, &coder, "whoami").await.unwrap()["account"], "alice");
    oauth.rule(json!({ "other": true, "refuse": 1 })).await;
    let moved = format!("now trusts `{}`", oauth.other);
    refused(&ask(&serve, &coder, "whoami").await, &[&moved, "holdpoint login notes"]);
    assert_eq!(oauth.renewals().await, 0, "the refresh token was sent to nobody");
    oauth.rule(json!({ "other": false })).await;
    refused(&ask(&serve, &coder, "whoami").await, &[&moved]);
    serve.end();
    // With a pinned issuer not even a person logs in elsewhere.
    let pinned = format!("oauth = {{ client_id = \"holdpoint\", issuer = \"{}\" }}", oauth.other);
    let config = format!("{}{pinned}\n", CONFIG.replace("${mcp}", &oauth.mcp));
    world.write_config(&config);
    let (good, said) = login(&world, &["--agent", "coder"], &["alice"]);
    assert!(!good && said.contains("the configuration names"), "{said}");
}

#[tokio::test]
async fn only_the_login_that_waits_is_answered() {
    let oauth = OAuth::start(3600);
    let world = oauth.world("oauth = {}");
    let (good, said) = login(&world, &["--agent", "coder"], &["alice", "decline"]);
    assert!(!good && said.contains("access_denied"), "{said}");
    assert!(!world.store().join("credentials/notes@coder.sealed").exists());
    let forge = |url: &str| {
        let url = reqwest::Url::parse(url).unwrap();
        let back = url.query_pairs().find(|(key, _)| key == "redirect_uri").unwrap().1;
        for query in ["?code=x&state=y", "?code=x", "", "?error=access_denied&state="] {
            let output = consent(&format!("{back}{query}"), &["nobody"]);
            assert!(text(&output.stdout).starts_with("400"), "{query}: {output:?}");
        }
    };
    // Registered by itself: nothing else is configured.
    let (good, said) = login_after(&world, &["--agent", "coder"], &["alice"], forge);
    assert!(good && said.contains(&oauth.issuer), "{said}");
    for (arguments, part) in [
        (vec!["login", "notes"], "add --agent"),
        (vec!["login", "notes", "--agent", "nobody"], "no agent is called"),
        (vec!["login", "nothing", "--agent", "coder"], "no server is called"),
    ] {
        let output = world.run(&arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(part), "{output:?}");
    }
}

#[tokio::test]
async fn a_machine_needs_no_person() {
    let oauth = OAuth::start(3600);
    let machine = "oauth = { grant = \"client-credentials\", credentials = \"shared\", \
        client_id = \"machine\", client_secret = { from_env = \"MACHINE\" }, \
        scopes = [\"notes:read\"] }";
    let world = oauth.world(machine);
    let coder = world.key("coder");
    let mut command = world.command(&["serve", "--format", "json"]);
    command.env("MACHINE", "machine-secret");
    let serve = world.serve_by(command);
    let who = ask(&serve, &coder, "whoami").await.unwrap();
    assert_eq!((&who["account"], &who["scope"]), (&json!("machine"), &json!("notes:read")));
    refused(&ask(&serve, &coder, "write").await, &["an operator adds it to `oauth.scopes`"]);
    // The secret goes to no other server because of what the resource server says.
    oauth.rule(json!({ "other": true, "refuse": 1 })).await;
    refused(&ask(&serve, &coder, "whoami").await, &["now trusts"]);
    let tokens = oauth.seen().await["tokens"].as_array().unwrap().len();
    assert_eq!(tokens, 1);
}

#[tokio::test]
async fn tokens_are_nowhere_to_be_found() {
    let oauth = OAuth::start(3600);
    let world = oauth.world(CODE);
    let coder = world.key("coder");
    let mut all = String::new();
    let (good, said) = login(&world, &["--agent", "coder"], &["alice"]);
    assert!(good, "{said}");
    all.push_str(&said);
    let mut command = world.command(&["serve", "--format", "json"]);
    command.env("HOLDPOINT_LOG", "trace");
    let serve = world.serve_by(command);
    ask(&serve, &coder, "whoami").await.unwrap();
    oauth.rule(json!({ "refuse": 1 })).await;
    ask(&serve, &coder, "whoami").await.unwrap();
    all.push_str(&ask(&serve, &coder, "write").await.unwrap_err());
    for pid in world.processes("") {
        all.push_str(&crate::world::command_line(pid));
    }
    all.push_str(&world.must(&["status"]));
    all.push_str(&world.must(&["log"]));
    serve.end();
    until("the log is whole", || world.serve_log().contains("asked to end").then_some(()));
    assert!(world.serve_log().contains("TRACE"), "this was the most that can be logged");
    let issued = oauth.seen().await["issued"].as_array().unwrap().clone();
    assert!(issued.len() >= 4, "{issued:?}");
    let files = crate::privacy::files(world.path());
    for token in issued.iter().map(|token| token.as_str().unwrap()) {
        assert!(token.len() > 20 && !all.contains(token), "{token}");
        for (name, bytes) in &files {
            assert!(!text(bytes).contains(token), "`{token}` is in {name}");
        }
    }
}
