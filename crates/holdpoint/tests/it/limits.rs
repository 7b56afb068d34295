//! Every limit of the HTTP door, exceeded.

use crate::raw::{call, exchange, post, reason};
use crate::world::{PATIENCE, PEER, Serve, World, text, until};
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A running server with these `[limits]`, and the key of `coder`.
fn serve(limits: &str) -> (World, Serve, String) {
    let listen = "[listen]\noperations = \"127.0.0.1:0\"\n";
    let other = "[agent.other]\nowner = \"platform\"\n\
                 grants = [{ class = \"read\", tools = [\"*\"] }]\n\n[server.peer]\n";
    let config = PEER.replace("[listen]\n", listen).replace("[server.peer]\n", other);
    let world = World::new(&config.replace("[limits]\n", &format!("[limits]\n{limits}\n")));
    let key = world.key("coder");
    let serve = world.serve();
    (world, serve, key)
}

fn connect(serve: &Serve) -> TcpStream {
    let stream = TcpStream::connect(serve.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    stream
}

/// Everything until the server closes the connection. A reset is an end, too.
fn rest(stream: &mut TcpStream) -> String {
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(length) => bytes.extend(&part[..length]),
            Err(fault) => {
                assert_ne!(fault.kind(), std::io::ErrorKind::WouldBlock, "it stays open");
                break;
            }
        }
    }
    text(&bytes)
}

/// A ping on a connection that stays open.
fn ping(stream: &mut TcpStream, serve: &Serve, key: &str) {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        serve.address(),
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}}") && !answer.ends_with(b"{}}") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    assert!(text(&answer).starts_with("HTTP/1.1 200"), "{}", text(&answer));
}

/// The value of a metric, by its name with labels.
pub fn metric(serve: &Serve, name: &str) -> Option<f64> {
    let page = crate::operate::get(serve, "/metrics").1;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

#[test]
fn connections_are_limited_from_one_address_and_in_all() {
    for limits in ["connections_per_address_max = 2", "connections_max = 2"] {
        let (_world, serve, key) = serve(limits);
        let mut first = connect(&serve);
        let mut second = connect(&serve);
        ping(&mut first, &serve, &key);
        ping(&mut second, &serve, &key);
        let refused = rest(&mut connect(&serve));
        assert!(refused.starts_with("HTTP/1.1 503"), "{limits}: {refused}");
        assert!(refused.contains("retry-after: 1"), "{limits}: {refused}");
        ping(&mut first, &serve, &key);
        drop(second);
        until("a seat is free again", || {
            let mut again = connect(&serve);
            again.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
            rest(&mut again).starts_with("HTTP/1.0 404").then_some(())
        });
    }
}

#[test]
fn a_slow_head_is_cut_however_it_trickles() {
    let (_world, serve, key) = serve("header_timeout_ms = 300");
    for start in ["", "P", "POST /mcp HTTP/1.1\r\nHost: x\r\nA: "] {
        let mut stream = connect(&serve);
        let begun = Instant::now();
        stream.write_all(start.as_bytes()).unwrap();
        assert_eq!(rest(&mut stream), "", "{start:?}");
        assert!(begun.elapsed() >= Duration::from_millis(250), "{start:?}");
    }
    // Second requests on a connection have no more time than first ones.
    let mut stream = connect(&serve);
    ping(&mut stream, &serve, &key);
    let begun = Instant::now();
    stream.write_all(b"POST /mcp HTTP/1.1\r\nHost: x\r\n").unwrap();
    let mut trickling = stream.try_clone().unwrap();
    let trickle = std::thread::spawn(move || {
        while trickling.write_all(b"A").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    assert_eq!(rest(&mut stream), "");
    assert!(begun.elapsed() < PATIENCE);
    trickle.join().unwrap();
    let cut = "holdpoint_connections_refused_total{why=\"slow_head\"}";
    until("the cuts are counted", || (metric(&serve, cut)? >= 4.0).then_some(()));
    assert_eq!(exchange(&serve, "GET /nowhere", &[], b"").status, 404);
}

#[test]
fn a_slow_body_is_refused() {
    let (_world, serve, key) = serve("body_timeout_ms = 200");
    let mut stream = connect(&serve);
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{",
        serve.address()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let answer = rest(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("message_late"), "{answer}");
}

#[test]
fn a_silent_connection_is_closed() {
    let (_world, serve, key) = serve("idle_timeout_ms = 200");
    let mut stream = connect(&serve);
    ping(&mut stream, &serve, &key);
    assert_eq!(rest(&mut stream), "");
}

#[test]
fn a_connection_that_waits_for_an_answer_is_not_silent() {
    let (_world, serve, key) = serve("idle_timeout_ms = 100\nheader_timeout_ms = 100");
    // Ends by itself after the server's `timeout_ms`.
    let answer = post(&serve, ("/peer", &key), &call(1, "hang", json!({})));
    assert_eq!(reason(&answer.body), "upstream_timeout");
}

#[test]
fn a_stream_that_waits_for_events_is_not_silent() {
    let (_world, serve, key) = serve("idle_timeout_ms = 100\nheader_timeout_ms = 100");
    let client = json!({ "name": "test", "version": "1" });
    let params = json!({
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client,
    });
    let hello = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params });
    let answer = post(&serve, ("/peer", &key), &hello);
    let thread = answer.header("mcp-session-id").unwrap().to_owned();
    let mut stream = connect(&serve);
    let head = format!(
        "GET /mcp/peer HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {key}\r\n\
         Accept: text/event-stream\r\nMcp-Session-Id: {thread}\r\n\r\n",
        serve.address()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut seen = Vec::new();
    let fault = loop {
        let mut part = [0; 1024];
        match stream.read(&mut part) {
            Ok(0) => panic!("it was closed: {}", text(&seen)),
            Ok(length) => seen.extend(&part[..length]),
            Err(fault) => break fault,
        }
    };
    assert_eq!(fault.kind(), std::io::ErrorKind::WouldBlock, "{fault}");
    assert!(text(&seen).starts_with("HTTP/1.1 200"), "{}", text(&seen));
    // A listener for events does not hold up the end.
    let begun = Instant::now();
    serve.end();
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[test]
fn a_large_head_and_too_many_headers_are_refused() {
    let (_world, serve, _) = serve("header_bytes_max = 8192\nheader_count_max = 16");
    let large = format!("A: {}", "x".repeat(9000));
    assert_eq!(exchange(&serve, "POST /mcp", &[&large], b"").status, 431);
    let many: Vec<_> = (0..20).map(|at| format!("A{at}: x")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    assert_eq!(exchange(&serve, "POST /mcp", &many, b"").status, 431);
    assert_eq!(exchange(&serve, "POST /mcp", &many[..10], b"").status, 401);
}

#[test]
fn a_peer_that_takes_no_answers_is_cut() {
    let (_world, serve, key) = serve("write_timeout_ms = 300");
    let words = "x".repeat(60_000);
    let body = call(1, "echo", json!({ "text": words })).to_string();
    let request = format!(
        "POST /mcp/peer HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        serve.address(),
        body.len()
    );
    let mut stream = connect(&serve);
    // Answers fill every buffer on the way, then the server stops to read.
    while stream.write_all(request.as_bytes()).is_ok() {}
    let cut = "holdpoint_connections_refused_total{why=\"slow_reader\"}";
    until("it is cut", || (metric(&serve, cut)? >= 1.0).then_some(()));
    let answer = post(&serve, ("/peer", &key), &call(2, "echo", json!({ "text": "hi" })));
    assert_eq!(reason(&answer.body), "answered");
}

#[test]
fn a_compressed_message_is_refused() {
    let (_world, serve, key) = serve("");
    let bearer = format!("Authorization: Bearer {key}");
    for encoding in ["gzip", "deflate", "br", "zstd", "identity, gzip"] {
        let encoding = format!("Content-Encoding: {encoding}");
        let head = [bearer.as_str(), "Content-Type: application/json", &encoding];
        let answer = exchange(&serve, "POST /mcp", &head, b"\x1f\x8b");
        assert_eq!((answer.status, reason(&answer.body).as_str()), (415, "message_malformed"));
    }
}

/// Issues a key and waits until the running server has heard of it.
fn known_key(world: &World, serve: &Serve, agent: &str) -> String {
    let key = world.key(agent);
    let ping = json!({ "jsonrpc": "2.0", "id": 0, "method": "ping" });
    until("the key is known", || (post(serve, ("/peer", &key), &ping).status != 401).then_some(()));
    key
}

#[test]
fn an_agent_has_so_many_calls_and_so_many_wait() {
    let limits = "agent_calls_max = 1\nagent_queue_max = 1\nqueue_wait_ms = 20000";
    let (world, serve, key) = serve(limits);
    let other = known_key(&world, &serve, "other");
    let echo = |id: u64| call(id, "echo", json!({ "text": "hi" }));
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| post(&serve, ("/peer", &key), &call(1, "hang", json!({}))));
        until("it runs", || (metric(&serve, "holdpoint_calls_in_flight")? >= 1.0).then_some(()));
        let waits = scope.spawn(|| post(&serve, ("/peer", &key), &echo(2)));
        until("one waits", || (metric(&serve, "holdpoint_requests_waiting")? >= 1.0).then_some(()));
        let refused = post(&serve, ("/peer", &key), &echo(3));
        assert_eq!((refused.status, reason(&refused.body).as_str()), (503, "overloaded"));
        assert_eq!(refused.header("retry-after"), Some("1"));
        let free = post(&serve, ("/peer", &other), &echo(4));
        assert_eq!(reason(&free.body), "answered", "another agent has its own turn");
        assert_eq!(reason(&slow.join().unwrap().body), "upstream_timeout");
        assert_eq!(reason(&waits.join().unwrap().body), "answered");
    });
}

#[test]
fn nobody_waits_longer_than_the_limit_and_all_share_one_limit() {
    let limits = "calls_in_flight_max = 1\nqueue_wait_ms = 50";
    let (world, serve, key) = serve(limits);
    let other = known_key(&world, &serve, "other");
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| post(&serve, ("/peer", &key), &call(1, "hang", json!({}))));
        until("it runs", || (metric(&serve, "holdpoint_calls_in_flight")? >= 1.0).then_some(()));
        let begun = Instant::now();
        let refused = post(&serve, ("/peer", &other), &call(2, "echo", json!({ "text": "hi" })));
        assert_eq!((refused.status, reason(&refused.body).as_str()), (503, "overloaded"));
        assert!(begun.elapsed() >= Duration::from_millis(50));
        assert_eq!(reason(&slow.join().unwrap().body), "upstream_timeout");
    });
}
