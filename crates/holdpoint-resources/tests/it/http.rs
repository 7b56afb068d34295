//! Odd and hostile servers over HTTP, written by hand.

use crate::peer::{ODD, call, call_with, limits, said};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use expect_test::expect;
use holdpoint_resources::mcp::Era;
use holdpoint_resources::{Cancels, Limits, SecretText, Transport, Upstream, UpstreamSpec};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

/// A server whose tool names say what it answers.
#[derive(Clone, Default)]
struct Peer {
    legacy: bool,
    /// What it heard: methods and headers.
    heard: Arc<Mutex<Vec<(String, HeaderMap)>>>,
    /// Told when a call hangs.
    hanging: Arc<Notify>,
}

impl Peer {
    fn headers_of(&self, method: &str) -> Vec<HeaderMap> {
        let heard = self.heard.lock().unwrap();
        heard.iter().filter(|(found, _)| found == method).map(|(_, map)| map.clone()).collect()
    }

    fn count(&self, method: &str) -> usize {
        self.headers_of(method).len()
    }
}

async fn serve(peer: &Peer) -> Upstream {
    let router =
        Router::new().route("/mcp", post(answer).delete(farewell)).with_state(peer.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    at(url)
}

fn at(url: String) -> Upstream {
    let secret = SecretText::new("Bearer s3cret");
    let headers = vec![("Authorization".to_owned(), secret)];
    let transport = Transport::Http { url, headers, oauth: None };
    let (server, timeout) = ("peer".parse().unwrap(), Duration::from_secs(20));
    let limits = Limits { probe_timeout: Duration::from_secs(10), ..limits() };
    Upstream::new(UpstreamSpec { server, transport, timeout, limits })
}

async fn farewell(State(peer): State<Peer>, headers: HeaderMap) {
    peer.heard.lock().unwrap().push(("DELETE".to_owned(), headers));
}

async fn answer(State(peer): State<Peer>, headers: HeaderMap, body: String) -> Response {
    let message: Value = serde_json::from_str(&body).unwrap();
    let method = message["method"].as_str().unwrap_or("answer").to_owned();
    peer.heard.lock().unwrap().push((method.clone(), headers.clone()));
    let id = &message["id"];
    match method.as_str() {
        "server/discover" if peer.legacy => StatusCode::BAD_REQUEST.into_response(),
        "server/discover" => json_result(id, r#"{"supportedVersions":["2026-07-28"]}"#),
        "initialize" => {
            let thread = format!("thread-{}", peer.count("initialize"));
            let result = r#"{"protocolVersion":"2025-11-25","capabilities":{}}"#;
            ([("mcp-session-id", thread)], json_result(id, result)).into_response()
        }
        "tools/list" => json_result(id, TOOLS),
        "tools/call" => tool(&peer, &headers, &message).await,
        _ => StatusCode::ACCEPTED.into_response(),
    }
}

const TOOLS: &str = r#"{"tools":[
    {"name":"odd","inputSchema":{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"},
        "deep":{"properties":{"n":{"type":"integer","x-mcp-header":"N"}}}}}},
    {"name":"unusable","inputSchema":{"properties":{"x":{"type":"number","x-mcp-header":"X"}}}}]}"#;

async fn tool(peer: &Peer, headers: &HeaderMap, message: &Value) -> Response {
    let id = &message["id"];
    let reply =
        |id: &Value, result: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
    let note = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
    match message["params"]["name"].as_str().unwrap() {
        "odd" => json_result(id, ODD),
        "odd-events" => events(&[note, &reply(&json!(77), "{}"), &reply(id, ODD)]),
        "ask" => events(&[r#"{"jsonrpc":"2.0","id":"s","method":"roots/list"}"#, &reply(id, "{}")]),
        "ask-much" => {
            let ask = r#"{"jsonrpc":"2.0","id":"s","method":"roots/list"}"#;
            let mut all = vec![ask; 200];
            let reply = reply(id, "{}");
            all.push(&reply);
            events(&all)
        }
        "forgetful" if headers["mcp-session-id"] == "thread-1" => {
            StatusCode::NOT_FOUND.into_response()
        }
        "forgetful" => json_result(id, "{}"),
        "redirect" => {
            (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "/mcp")]).into_response()
        }
        "teapot" => StatusCode::IM_A_TEAPOT.into_response(),
        "refused" => (
            StatusCode::BAD_REQUEST,
            json_text(r#"{"jsonrpc":"2.0","error":{"code":-32020,"message":"no"}}"#),
        )
            .into_response(),
        "html" => "<html>".into_response(),
        "accepted" => StatusCode::ACCEPTED.into_response(),
        "wrong-id" => json_result(&json!(77), "{}"),
        "huge" => json_result(id, &format!(r#"{{"x":"{}"}}"#, "x".repeat(300 << 10))),
        "huge-event" => events(&[&reply(id, &format!(r#"{{"x":"{}"}}"#, "x".repeat(300 << 10)))]),
        "flood" => events(&vec![
            &*format!(
                r#"{{"jsonrpc":"2.0","method":"n","params":{{"x":"{}"}}}}"#,
                "x".repeat(50 << 10)
            );
            40
        ]),
        "cut-off" => events(&[note]),
        "broken-event" => events(&["{\"jsonrpc\""]),
        "hang" => {
            peer.hanging.notify_one();
            std::future::pending().await
        }
        name => panic!("{name}"),
    }
}

fn json_text(text: &str) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text.to_owned()).into_response()
}

fn json_result(id: &Value, result: &str) -> Response {
    json_text(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#))
}

fn events(texts: &[&str]) -> Response {
    let body: String = texts.iter().map(|text| format!(": a comment\ndata: {text}\n\n")).collect();
    ([(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")], Body::from(body)).into_response()
}

#[tokio::test]
async fn results_come_back_byte_for_byte() {
    for legacy in [false, true] {
        let upstream = serve(&Peer { legacy, ..Peer::default() }).await;
        let era = if legacy { Era::Legacy } else { Era::Modern };
        assert_eq!(upstream.era().await, Ok(era));
        upstream.tools_changed();
        for name in ["odd", "odd-events"] {
            let ended = call(&upstream, name, json!({})).await;
            assert_eq!(said(&ended), format!("answered false: {ODD}"));
        }
        assert!(upstream.tools_changed());
    }
}

#[tokio::test]
async fn modern_headers_mirror_the_body() {
    let peer = Peer::default();
    let upstream = serve(&peer).await;
    let tools = upstream.list_tools().await.unwrap();
    assert_eq!(tools.len(), 1, "a tool with an unusable annotation is left out");
    call(&upstream, "odd", json!({"region": "Zürich", "deep": {"n": 42}})).await;
    let heard = peer.headers_of("tools/call").remove(0);
    let shown = [
        "mcp-protocol-version",
        "mcp-method",
        "mcp-name",
        "mcp-param-region",
        "mcp-param-n",
        "authorization",
    ]
    .map(|name| format!("{name}: {}", heard[name].to_str().unwrap()));
    expect![[r#"
        mcp-protocol-version: 2026-07-28
        mcp-method: tools/call
        mcp-name: odd
        mcp-param-region: =?base64?WsO8cmljaA==?=
        mcp-param-n: 42
        authorization: Bearer s3cret"#]]
    .assert_eq(&shown.join("\n"));
    assert!(!heard.contains_key("mcp-session-id"));
    assert!(!format!("{:?}", upstream.spec()).contains("s3cret"));
}

#[tokio::test]
async fn a_forgetful_legacy_server_is_greeted_again() {
    let peer = Peer { legacy: true, ..Peer::default() };
    let upstream = serve(&peer).await;
    let ended = call(&upstream, "forgetful", json!({})).await;
    assert_eq!(said(&ended), "answered false: {}");
    let threads: Vec<_> =
        peer.headers_of("tools/call").iter().map(|map| map["mcp-session-id"].clone()).collect();
    assert_eq!(threads, ["thread-1", "thread-2"]);
    assert_eq!(peer.headers_of("tools/call")[1]["mcp-protocol-version"], "2025-11-25");
    upstream.close().await;
    assert_eq!(peer.headers_of("DELETE")[0]["mcp-session-id"], "thread-2");
}

#[tokio::test]
async fn what_is_no_answer_leaves_the_call_in_doubt() {
    let upstream = serve(&Peer::default()).await;
    let mut all = String::new();
    let names = [
        "redirect",
        "teapot",
        "refused",
        "html",
        "accepted",
        "wrong-id",
        "huge",
        "huge-event",
        "flood",
        "cut-off",
        "broken-event",
    ];
    for name in names {
        all += &format!("{name}: {}\n", said(&call(&upstream, name, json!({})).await));
    }
    expect![[r#"
        redirect: in doubt, upstream_invalid: the server redirects, and redirects are not followed
        teapot: in doubt, upstream_unavailable: the server answered HTTP 418
        refused: answered true: {"code":-32020,"message":"no"}
        html: in doubt, upstream_invalid: HTTP 200 with neither JSON nor an event stream
        accepted: in doubt, upstream_invalid: HTTP 202 with neither JSON nor an event stream
        wrong-id: in doubt, upstream_invalid: the answer is not the one to this request
        huge: in doubt, upstream_invalid: a message longer than 262144 bytes
        huge-event: in doubt, upstream_invalid: event stream: too many bytes without an answer
        flood: in doubt, upstream_invalid: event stream: too many bytes without an answer
        cut-off: in doubt, upstream_unavailable: the event stream ended without the answer
        broken-event: in doubt, upstream_invalid: the message is not JSON: EOF while parsing an object at line 1 column 10
    "#]].assert_eq(&all);
}

#[tokio::test]
async fn a_servers_questions_are_refused() {
    let peer = Peer { legacy: true, ..Peer::default() };
    let upstream = serve(&peer).await;
    assert_eq!(said(&call(&upstream, "ask", json!({})).await), "answered false: {}");
    crate::process::until(|| peer.count("answer") > 0).await;
}

#[tokio::test]
async fn a_server_that_asks_without_end_is_refused_a_few_times() {
    let peer = Peer { legacy: true, ..Peer::default() };
    let upstream = serve(&peer).await;
    assert_eq!(said(&call(&upstream, "ask-much", json!({})).await), "answered false: {}");
    crate::process::until(|| peer.count("answer") >= 16).await;
    // Whatever else was on its way is there before what is said now.
    assert_eq!(said(&call(&upstream, "ask", json!({})).await), "answered false: {}");
    crate::process::until(|| peer.count("answer") >= 17).await;
    assert_eq!(peer.count("answer"), 17);
}

#[tokio::test]
async fn so_many_calls_wait_for_one_server() {
    let peer = Peer::default();
    let mut spec = serve(&peer).await.spec().clone();
    spec.limits.calls_pending_max = 2;
    let upstream = Upstream::new(spec);
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let upstream = upstream.clone();
            tokio::spawn(async move { call(&upstream, "hang", json!({})).await })
        })
        .collect();
    crate::process::until(|| peer.count("tools/call") == 2).await;
    expect!["not sent, upstream_unavailable: too many calls wait for this server"]
        .assert_eq(&said(&call(&upstream, "odd", json!({})).await));
    for one in waiting {
        one.abort();
        assert!(one.await.unwrap_err().is_cancelled());
    }
    assert!(said(&call(&upstream, "odd", json!({})).await).starts_with("answered"));
    assert_eq!(peer.count("tools/call"), 3);
}

#[tokio::test]
async fn a_stop_drops_the_request() {
    let mut all = String::new();
    for legacy in [false, true] {
        let peer = Peer { legacy, ..Peer::default() };
        let (upstream, cancels) = (serve(&peer).await, Cancels::default());
        let call = call_with(&upstream, "hang", json!({}), cancels.clone());
        let stop = async {
            peer.hanging.notified().await;
            cancels.stop.cancel();
        };
        let ended = futures::join!(call, stop).0;
        all += &format!("{} {}\n", peer.count("notifications/cancelled"), said(&ended));
    }
    expect![[r#"
        0 in doubt, cancelled_by_stop: no answer; the server was told to cancel and the request was dropped
        1 in doubt, cancelled_by_stop: no answer; the server was told to cancel and the request was dropped
    "#]]
    .assert_eq(&all);
}

#[tokio::test]
async fn an_unreachable_server_gets_nothing() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    drop(listener);
    for url in [url, "ftp://127.0.0.1/".to_owned(), "nonsense".to_owned()] {
        let said = said(&call(&at(url), "odd", json!({})).await);
        assert!(said.starts_with("not sent, upstream_unavailable: "), "{said}");
    }
}
