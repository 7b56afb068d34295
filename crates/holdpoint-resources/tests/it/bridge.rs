//! Passages to a legacy server behind a URL, and what waits on them.

use crate::process::until;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use holdpoint_resources::mcp::{Message, MessageFault};
use holdpoint_resources::{Passage, PassageReceiver, PassageSender, Received};
use holdpoint_types::JsonLimits;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::watch;

/// A legacy server that lets requests wait, or breaks its streams off.
#[derive(Clone)]
struct Peer {
    /// How many requests wait, and how many did at most.
    waiting: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    /// How often a stream was taken up again.
    resumed: Arc<AtomicUsize>,
    /// True once nobody waits any more.
    open: watch::Sender<bool>,
}

async fn answer(State(peer): State<Peer>, body: String) -> Response {
    let message: Value = serde_json::from_str(&body).unwrap();
    let result = match message["method"].as_str().unwrap() {
        "initialize" => json!({ "protocolVersion": "2025-11-25", "capabilities": {} }),
        "test/wait" => {
            let waiting = peer.waiting.fetch_add(1, Ordering::SeqCst) + 1;
            peer.most.fetch_max(waiting, Ordering::SeqCst);
            peer.open.subscribe().wait_for(|open| *open).await.unwrap();
            peer.waiting.fetch_sub(1, Ordering::SeqCst);
            json!({})
        }
        "test/break" => return broken_off(),
        _ => return StatusCode::ACCEPTED.into_response(),
    };
    let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
    ([(header::CONTENT_TYPE, "application/json")], answer.to_string()).into_response()
}

/// The stream of an answer that is taken up again, and that of the server, which there is not.
async fn listen(State(peer): State<Peer>, headers: HeaderMap) -> Response {
    if !headers.contains_key("last-event-id") {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    peer.resumed.fetch_add(1, Ordering::SeqCst);
    broken_off()
}

fn broken_off() -> Response {
    ([(header::CONTENT_TYPE, "text/event-stream")], "id: 1\nretry: 0\ndata:\n\n").into_response()
}

/// A passage whose handshake is done.
async fn passage() -> (Peer, PassageSender, PassageReceiver) {
    let (waiting, most, resumed, open) = Default::default();
    let peer = Peer { waiting, most, resumed, open };
    let router = Router::new().route("/", post(answer).get(listen)).with_state(peer.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let (to, mut from) = Passage::connect(&url, (&[], None), 64 << 10).unwrap();
    tell(&to, json!({ "jsonrpc": "2.0", "id": "open", "method": "initialize" })).await;
    assert!(matches!(from.receive().await, Received::Message { .. }));
    tell(&to, json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
    (peer, to, from)
}

async fn tell(to: &PassageSender, message: Value) {
    let message = message.to_string();
    let message = Message::from_agent(message.as_bytes(), JsonLimits::default()).unwrap();
    to.send_ungoverned(&message).await.unwrap();
}

#[tokio::test]
async fn so_many_messages_of_a_bridged_line_wait_and_the_rest_comes_later() {
    let (peer, to, mut from) = passage().await;
    for id in 0..400 {
        tell(&to, json!({ "jsonrpc": "2.0", "id": id, "method": "test/wait" })).await;
    }
    // As many as may wait, and the one for whose answer the line itself waits.
    let most = 256 + 1;
    until(|| peer.waiting.load(Ordering::SeqCst) >= most).await;
    peer.open.send_replace(true);
    let mut answered = BTreeSet::new();
    for _ in 0..400 {
        let Received::Message { line, .. } = from.receive().await else { panic!("no answer") };
        let answer: Value = serde_json::from_slice(&line).unwrap();
        assert!(answered.insert(answer["id"].as_i64().unwrap()));
    }
    assert_eq!(peer.most.load(Ordering::SeqCst), most);
}

#[tokio::test]
async fn a_stream_that_always_breaks_off_is_given_up() {
    let (peer, to, mut from) = passage().await;
    tell(&to, json!({ "jsonrpc": "2.0", "id": 7, "method": "test/break" })).await;
    let Received::Invalid { fault, .. } = from.receive().await else { panic!("an answer") };
    assert!(matches!(&fault, MessageFault::Lost { .. }), "{fault}");
    assert_eq!(peer.resumed.load(Ordering::SeqCst), 16);
}
