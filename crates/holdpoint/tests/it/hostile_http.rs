//! Hostile and mistaken HTTP requests: each gets a clear answer, and the server goes on.

use crate::raw::{Answer, REVISION, call, exchange, modern, post, reason};
use crate::world::{PEER, Serve, World, until};
use expect_test::expect;
use serde_json::{Value, json};

const JSON: &str = "Content-Type: application/json";

/// A served world with the key of an agent, and the rows of what was answered.
struct Door {
    world: World,
    serve: Serve,
    key: String,
    bearer: String,
    rows: String,
}

// === impl Door ===

impl Door {
    fn new() -> Self {
        let other = "[agent.other]\nowner = \"platform\"\n\
                     grants = [{ class = \"read\", tools = [\"peer__echo\"] }]\n";
        let world = World::new(&format!("{PEER}\n{other}"));
        let key = world.key("coder");
        let serve = world.serve();
        let bearer = format!("Authorization: Bearer {key}");
        Self { world, serve, key, bearer, rows: String::new() }
    }

    /// Notes what was answered.
    fn note(&mut self, what: &str, answer: &Answer) {
        self.rows.push_str(&format!("{what:34} {}\n", answer.row()));
    }

    /// Posts bytes with the right key and content type.
    fn bytes(&mut self, what: &str, body: impl AsRef<[u8]>) {
        let answer = exchange(&self.serve, "POST /mcp/peer", &[&self.bearer, JSON], body.as_ref());
        self.note(what, &answer);
    }

    /// Posts a message with more headers.
    fn with(&mut self, what: &str, more: &[&str], message: &Value) {
        let mut headers = vec![self.bearer.as_str(), JSON];
        headers.extend(more);
        let body = message.to_string();
        let answer = exchange(&self.serve, "POST /mcp/peer", &headers, body.as_bytes());
        self.note(what, &answer);
    }

    /// Does anything else.
    fn other(&mut self, what: &str, request: &str, headers: &[&str], body: &Value) {
        let answer = exchange(&self.serve, request, headers, body.to_string().as_bytes());
        self.note(what, &answer);
    }

    fn still_answers(&self) {
        let answer = post(&self.serve, ("/peer", &self.key), &echo(1));
        assert_eq!((answer.status, reason(&answer.body).as_str()), (200, "answered"));
        assert_eq!(answer.body["result"]["content"][0]["text"], "hi", "{answer:?}");
    }

    fn end(self) {
        self.still_answers();
        let log = self.world.serve_log();
        assert!(!log.contains("panicked"), "{log}");
        self.serve.end();
        self.world.must(&["verify"]);
    }
}

fn echo(id: impl Into<Value>) -> Value {
    call(id, "echo", json!({ "text": "hi" }))
}

#[test]
fn bytes_that_are_no_message_are_refused_at_the_door() {
    let mut door = Door::new();
    door.bytes("nothing", "");
    door.bytes("not JSON", "{\"jsonrpc\":");
    door.bytes("a batch", format!("[{}]", echo(1)));
    door.bytes("a number", "7");
    door.bytes("wrong version", json!({ "jsonrpc": "1.0", "id": 1, "method": "ping" }).to_string());
    door.bytes("id null", json!({ "jsonrpc": "2.0", "id": null, "method": "ping" }).to_string());
    door.bytes("id a fraction", r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#);
    door.bytes("params an array", r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#);
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    door.bytes("10,000 deep", echo(1).to_string().replace("\"hi\"", &deep));
    door.bytes("deep and open", "[".repeat(60_000));
    let twice = echo(1).to_string().replace("\"hi\"", "1,\"text\":2");
    door.bytes("a key twice", twice);
    door.bytes("a number beyond 2^53", echo(1).to_string().replace("\"hi\"", "9007199254740993"));
    door.bytes("a number beyond doubles", echo(1).to_string().replace("\"hi\"", "1e400"));
    door.bytes("not UTF-8", b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}");
    door.bytes("a lone surrogate", echo(1).to_string().replace("hi", "\\ud800"));
    door.bytes("a NUL", b"\0\0\0\0");
    door.bytes("too large", echo(1).to_string().replace("hi", &"x".repeat(70_000)));
    expect![[r#"
        nothing                            400 -32700 message_malformed
        not JSON                           400 -32700 message_malformed
        a batch                            400 -32600 message_malformed
        a number                           400 -32600 message_malformed
        wrong version                      400 -32600 message_malformed
        id null                            400 -32600 message_malformed
        id a fraction                      400 -32600 message_malformed
        params an array                    400 -32600 message_malformed
        10,000 deep                        400 -32600 message_too_deep
        deep and open                      400 -32600 message_too_deep
        a key twice                        400 -32600 duplicate_key
        a number beyond 2^53               400 -32600 number_out_of_range
        a number beyond doubles            400 -32600 number_out_of_range
        not UTF-8                          400 -32700 message_not_utf8
        a lone surrogate                   400 -32700 message_malformed
        a NUL                              400 -32700 message_malformed
        too large                          413 -32600 message_too_large
    "#]]
    .assert_eq(&door.rows);
    door.end();
}

#[test]
fn requests_that_fit_no_era_are_refused_at_the_door() {
    let mut door = Door::new();
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
    let modern_list = modern(1, "tools/list", json!({}));
    let version = "MCP-Protocol-Version: 2026-07-28";
    let mut old = modern_list.clone();
    old["params"]["_meta"][REVISION] = "1900-01-01".into();
    let mut odd = modern_list.clone();
    odd["params"]["_meta"][REVISION] = 7.into();
    let method = "Mcp-Method: tools/list";
    door.with("legacy: unknown revision", &["MCP-Protocol-Version: 1900-01-01"], &list);
    door.with("legacy: modern header", &[version, method], &list);
    door.with("legacy: known revision", &["MCP-Protocol-Version: 2025-11-25"], &list);
    door.with("modern: right", &[version, method], &modern_list);
    door.with("modern: unknown revision", &["MCP-Protocol-Version: 1900-01-01", method], &old);
    door.with("modern: revision no text", &[version, method], &odd);
    door.with("modern: no headers", &[], &modern_list);
    door.with("modern: no Mcp-Method", &[version], &modern_list);
    door.with("modern: other Mcp-Method", &[version, "Mcp-Method: tools/call"], &modern_list);
    let other = "MCP-Protocol-Version: 2025-11-25";
    door.with("modern: other revision in header", &[other, method], &modern_list);
    let params = json!({ "name": "echo", "arguments": { "text": "hi" } });
    let calls = modern(1, "tools/call", params);
    let method = "Mcp-Method: tools/call";
    door.with("modern: a call", &[version, method, "Mcp-Name: echo"], &calls);
    door.with("modern: no Mcp-Name", &[version, method], &calls);
    door.with("modern: other Mcp-Name", &[version, method, "Mcp-Name: touch"], &calls);
    let unknown = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/forge" });
    door.with("legacy: unknown method", &[], &unknown);
    let unknown = modern(1, "tools/forge", json!({}));
    door.with("modern: unknown method", &[version, "Mcp-Method: tools/forge"], &unknown);
    let discover = json!({ "jsonrpc": "2.0", "id": 1, "method": "server/discover" });
    door.with("discover without metadata", &[], &discover);
    expect![[r#"
        legacy: unknown revision           400 -32022 revision_unsupported
        legacy: modern header              400 -32020 header_mismatch
        legacy: known revision             200 - answered
        modern: right                      200 - answered
        modern: unknown revision           400 -32022 revision_unsupported
        modern: revision no text           400 -32602 revision_unsupported
        modern: no headers                 400 -32020 header_mismatch
        modern: no Mcp-Method              400 -32020 header_mismatch
        modern: other Mcp-Method           400 -32020 header_mismatch
        modern: other revision in header   400 -32020 header_mismatch
        modern: a call                     200 - answered
        modern: no Mcp-Name                400 -32020 header_mismatch
        modern: other Mcp-Name             400 -32020 header_mismatch
        legacy: unknown method             200 -32601 method_unknown
        modern: unknown method             404 -32601 method_unknown
        discover without metadata          400 -32602 revision_unsupported
    "#]]
    .assert_eq(&door.rows);
    door.end();
}

#[test]
fn whoever_may_not_come_in_is_told_so() {
    let mut door = Door::new();
    let (bearer, wrong) = (door.bearer.clone(), format!("{}0", door.bearer));
    let key = bearer.as_str();
    let address = door.serve.address().to_owned();
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
    let mcp = "POST /mcp";
    door.other("no content type", mcp, &[key], &list);
    door.other("text", mcp, &[key, "Content-Type: text/plain"], &list);
    door.other("no key", mcp, &[JSON], &list);
    door.other("wrong key", mcp, &[&wrong, JSON], &list);
    door.other("no key, only a name", mcp, &["Authorization: Bearer coder", JSON], &list);
    door.other("basic", mcp, &["Authorization: Basic Y29kZXI6Y29kZXI=", JSON], &list);
    door.other("foreign host", mcp, &[key, JSON, "Host: evil.example"], &list);
    door.other("foreign origin", mcp, &[key, JSON, "Origin: https://evil.example"], &list);
    door.other("origin null", mcp, &[key, JSON, "Origin: null"], &list);
    let own = format!("Origin: http://{address}");
    door.other("own origin", mcp, &[key, JSON, &own], &list);
    door.other("unknown server", "POST /mcp/nobody", &[key, JSON], &list);
    door.other("unknown server, no key", "POST /mcp/nobody", &[JSON], &list);
    door.other("GET", "GET /mcp", &[key], &Value::Null);
    door.other("DELETE", "DELETE /mcp", &[key], &Value::Null);
    door.other("GET a server", "GET /mcp/peer", &[key], &Value::Null);
    door.other("nowhere", "POST /elsewhere", &[key, JSON], &list);
    let stop = json!({ "scope": "all", "reason": "an agent stops its operator" });
    door.other("an agent's key stops", "POST /api/v1/stop", &[key, JSON], &stop);
    door.other("no key stops", "POST /api/v1/stop", &[JSON], &stop);
    let release = json!({ "id": 1, "reason": "an agent releases itself" });
    door.other("an agent's key releases", "POST /api/v1/release", &[key, JSON], &release);
    door.other("an agent's key asks", "GET /api/v1/status", &[key], &Value::Null);
    expect![[r#"
        no content type                    415 -32600 message_malformed
        text                               415 -32600 message_malformed
        no key                             401 -32600 unauthenticated
        wrong key                          401 -32600 unauthenticated
        no key, only a name                401 -32600 unauthenticated
        basic                              401 -32600 unauthenticated
        foreign host                       403 -32600 origin_refused
        foreign origin                     403 -32600 origin_refused
        origin null                        403 -32600 origin_refused
        own origin                         200 - answered
        unknown server                     404 -32600 server_unknown
        unknown server, no key             401 -32600 unauthenticated
        GET                                405 - -
        DELETE                             405 - -
        GET a server                       405 - -
        nowhere                            404 - -
        an agent's key stops               401 - unauthenticated
        no key stops                       401 - unauthenticated
        an agent's key releases            401 - unauthenticated
        an agent's key asks                401 - unauthenticated
    "#]]
    .assert_eq(&door.rows);
    assert_eq!(door.world.json(&["status"])["stops"], json!([]));
    door.end();
}

#[test]
fn a_revoked_key_is_of_no_use_at_once() {
    let door = Door::new();
    let key = door.world.key("other");
    let ask = || post(&door.serve, ("/peer", &key), &echo(1)).row();
    until("the new key is known", || (ask() == "200 - answered").then_some(()));
    door.world.must(&["agent", "revoke", "other"]);
    until("the key is refused", || (ask() == "401 -32600 unauthenticated").then_some(()));
    door.end();
}

#[test]
fn calls_that_make_no_sense_are_refused_with_a_reason() {
    let mut door = Door::new();
    let unknown = json!({});
    door.with("unknown tool", &[], &call(1, "rm_rf", unknown.clone()));
    door.with("no tool", &[], &json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call" }));
    door.with("a tool with no such name", &[], &call(1, "a b", unknown.clone()));
    door.with("a very long name", &[], &call(1, &"x".repeat(10_000), unknown));
    door.with("arguments an array", &[], &call(1, "echo", json!([1])));
    door.with("arguments a text", &[], &call(1, "echo", json!("x")));
    door.with("a parameter missing", &[], &call(1, "touch", json!({})));
    door.with("a parameter of another type", &[], &call(1, "touch", json!({ "path": 7 })));
    let both = exchange(
        &door.serve,
        "POST /mcp",
        &[&door.bearer, JSON],
        call(1, "nobody__echo", json!({})).to_string().as_bytes(),
    );
    door.note("a tool of an unknown server", &both);
    expect![[r#"
        unknown tool                       200 - tool_unknown
        no tool                            200 -32602 parameters_invalid
        a tool with no such name           200 -32602 tool_unknown
        a very long name                   200 -32602 tool_unknown
        arguments an array                 200 -32602 parameters_invalid
        arguments a text                   200 -32602 parameters_invalid
        a parameter missing                200 - parameters_invalid
        a parameter of another type        200 - parameters_invalid
        a tool of an unknown server        200 -32602 tool_unknown
    "#]]
    .assert_eq(&door.rows);
    let missing = post(&door.serve, ("/peer", &door.key), &call(1, "touch", json!({ "path": 7 })));
    let text = missing.body["result"]["content"][0]["text"].as_str().unwrap().to_owned();
    assert!(text.contains("at `/path`") && text.contains("/properties/path/type"), "{text}");
    door.end();
}

#[test]
fn requests_that_never_end_hold_nobody_up() {
    use std::io::Write as _;
    let door = Door::new();
    let mut open = Vec::new();
    for part in ["", "POST /mcp", "POST /mcp HTTP/1.1\r\nContent-Length: 99999\r\n\r\n{"] {
        let mut stream = std::net::TcpStream::connect(door.serve.address()).unwrap();
        stream.write_all(part.as_bytes()).unwrap();
        open.push(stream);
    }
    door.still_answers();
    drop(open);
    door.end();
}

#[test]
fn clients_with_equal_request_ids_do_not_disturb_each_other() {
    let door = Door::new();
    door.still_answers();
    let calls = |who: usize| {
        let text = format!("from {who}");
        let answer =
            post(&door.serve, ("/peer", &door.key), &call(1, "echo", json!({ "text": text })));
        assert_eq!(answer.body["result"]["content"][0]["text"], text, "{answer:?}");
    };
    std::thread::scope(|scope| {
        for who in 0..16 {
            scope.spawn(move || calls(who));
        }
    });
    door.end();
}
