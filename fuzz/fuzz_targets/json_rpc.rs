//! JSON-RPC over lines: whatever an agent or a server sends is read the same however it arrives,
//! and what is accepted can be written again with the same meaning. Must never know a wire format.

#![no_main]

use bytes::{Bytes, BytesMut};
use holdpoint_resources::mcp::{Message, Outcome, RpcId};
use holdpoint_types::{JsonLimits, canonical_bytes, canonical_digest};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tokio_util::io::StreamReader;

#[expect(dead_code, reason = "only the reading half is a target")]
#[path = "../../crates/holdpoint-resources/src/lines.rs"]
mod lines;

use lines::{Line, LineReader};

fuzz_target!(|data: &[u8]| {
    json(data);
    from_agent(data);
    from_upstream(data);
    framing(data);
});

/// What the strict parser accepts is JSON to everyone, and keeps its digest when written again.
fn json(data: &[u8]) {
    let limits = JsonLimits::default();
    let Ok(value) = holdpoint_types::parse(data, limits) else { return };
    let lenient: Value = serde_json::from_slice(data).expect("strict JSON is JSON");
    assert_eq!(digest(&lenient), digest(&value), "two readers, two meanings");
    holdpoint_types::check(&value, limits).expect("what was parsed passes the check");
    let written = value.to_string();
    let again = holdpoint_types::parse(written.as_bytes(), limits).expect("written JSON is strict");
    assert_eq!(again, value);
    let canonical = canonical_bytes(&value).expect("strict JSON has a canonical form");
    let slow = serde_json_canonicalizer::to_vec(&value).expect("and the slow way finds it, too");
    assert_eq!(canonical, slow, "the fast canonical form differs from the slow one");
    let reread = holdpoint_types::parse(&canonical, limits).expect("canonical JSON is strict");
    assert_eq!(canonical_bytes(&reread).expect("still canonical"), canonical);
}

/// A message of an agent is one line, and reads as the same message to everyone further on.
fn from_agent(data: &[u8]) {
    let Ok(message) = Message::from_agent(data, JsonLimits::default()) else { return };
    let line = one_line(&message);
    let again = Message::from_agent(&line, JsonLimits::default());
    same(&message, &again.expect("a written message is read again"));
    let upstream = Message::from_upstream(&line, usize::MAX);
    same(&message, &upstream.expect("a server reads what we write"));
}

/// A message of a server keeps the bytes of its result.
fn from_upstream(data: &[u8]) {
    let Ok(message) = Message::from_upstream(data, usize::MAX) else { return };
    let line = one_line(&message);
    let again = Message::from_upstream(&line, usize::MAX);
    same(&message, &again.expect("a written message is read again"));
    if let Message::Response(response) = &message {
        let raw = response.outcome.raw().get();
        let text = std::str::from_utf8(data).expect("a message is text");
        assert!(text.contains(raw), "the bytes of the result are not the server's");
    }
    assert!(Message::from_upstream(data, data.len().saturating_sub(1)).is_err(), "over the limit");
}

/// Lines do not depend on how bytes arrive, and no line is longer than the limit.
fn framing(data: &[u8]) {
    for bytes_max in [16, 4096] {
        let expected = split(data, bytes_max);
        for step in [1, 7, 4096] {
            assert_eq!(read(data, bytes_max, step), expected, "limit {bytes_max}, step {step}");
        }
    }
}

/// The rule of lines, said once more in the simplest way.
fn split(data: &[u8], bytes_max: usize) -> Vec<Line> {
    let lines = data.split(|byte| *byte == b'\n');
    let line = |line: &[u8]| {
        let text = line.trim_ascii();
        match line.len() > bytes_max {
            true => Some(Line::TooLong),
            false if text.is_empty() => None,
            false => Some(Line::Text(Bytes::copy_from_slice(text))),
        }
    };
    lines.filter_map(line).collect()
}

fn read(data: &[u8], bytes_max: usize, step: usize) -> Vec<Line> {
    let pieces = data.chunks(step).map(|piece| Ok::<_, std::io::Error>(BytesMut::from(piece)));
    let mut reader = LineReader::new(StreamReader::new(futures::stream::iter(pieces)), bytes_max);
    futures::executor::block_on(async {
        let mut found = Vec::new();
        loop {
            match reader.next().await.expect("reading memory cannot fail") {
                Line::End => return found,
                line => found.push(line),
            }
        }
    })
}

fn one_line(message: &Message) -> Vec<u8> {
    let line = message.to_bytes();
    assert!(!line.contains(&b'\n') && !line.contains(&b'\r'), "a message is one line");
    line
}

fn same(one: &Message, other: &Message) {
    assert_eq!(parts(one), parts(other));
}

type Parts<'a> = (&'static str, Option<&'a RpcId>, Option<&'a str>, Option<Value>);

fn parts(message: &Message) -> Parts<'_> {
    match message {
        Message::Request(one) => ("request", Some(&one.id), Some(&one.method), one.params.clone()),
        Message::Notification(one) => ("note", None, Some(&one.method), one.params.clone()),
        Message::Response(one) => {
            let kind = match one.outcome {
                Outcome::Result(_) => "result",
                Outcome::Error(_) => "error",
            };
            let value = serde_json::from_str(one.outcome.raw().get());
            (kind, one.id.as_ref(), None, value.ok())
        }
    }
}

fn digest(value: &Value) -> String {
    canonical_digest(value).expect("JSON has a digest").to_string()
}
