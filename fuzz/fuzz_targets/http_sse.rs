//! HTTP and event streams: answers of servers, headers that mirror bodies, and where a client's
//! streams go on. The first byte says which. Must never open a connection.

#![no_main]

use futures::executor::block_on;
use holdpoint_resources::mcp::era::{META_PROTOCOL_VERSION, REVISION_MODERN};
use holdpoint_resources::mcp::{Message, RpcId, headers};
use holdpoint_resources::read_answer;
use holdpoint_types::JsonLimits;
use http::{HeaderName, HeaderValue, StatusCode};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

#[expect(dead_code, reason = "some of it is for the door only")]
#[path = "../../crates/holdpoint-server/src/doors/http/streams.rs"]
mod streams;

use streams::{Deliveries, Delivery, Place, Resumed, Streams};

/// Most messages that a thread keeps for those who return.
const KEPT_MAX: usize = 256;

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 4 {
        0 => answer(rest),
        1 => mirrored(rest),
        2 => annotated(rest),
        _ => returning(rest),
    }
});

/// What a server answers is read the same in whatever pieces it comes, and is the answer to the
/// request that was asked.
fn answer(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    let status = [200, 202, 301, 400, 404, 500].get(usize::from(kind >> 2) % 6).copied();
    let kinds = ["text/event-stream", "application/json; charset=utf-8", "text/html", "\t"];
    let content_type = kinds[usize::from(kind % 4)];
    let read = |step: usize| {
        let pieces: Vec<_> = body.chunks(step).map(<[u8]>::to_vec).collect();
        let pieces = futures::stream::iter(pieces.into_iter().map(Ok::<_, Infallible>));
        let answer = http::Response::builder()
            .status(StatusCode::from_u16(status.unwrap_or(200)).expect("a status"))
            .header("content-type", content_type)
            .body(reqwest::Body::wrap_stream(pieces))
            .expect("a response");
        // Refusals of a server's requests are sent aside: they die with the runtime, unsent.
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().build().expect("a runtime");
        runtime.block_on(read_answer(RpcId::Number(1), answer))
    };
    let whole = read(body.len().max(1));
    let pieces = read(3);
    match (whole, pieces) {
        (Ok(one), Ok(other)) => {
            assert!(one.id.is_none_or(|id| id == RpcId::Number(1)), "another request's answer");
            assert_eq!(one.outcome.raw().get(), other.outcome.raw().get());
        }
        (Err(one), Err(other)) => assert_eq!(one, other),
        (one, other) => panic!("whole {one:?}, in pieces {other:?}"),
    }
}

/// Headers before an empty line, a message after it: only headers that say what the body says pass.
fn mirrored(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let value = headers::encode(&text);
    assert!(HeaderValue::from_str(&value).is_ok(), "`{value:?}` is no header value");
    assert_eq!(headers::decode(&value).as_deref(), Some(text.as_ref()));
    let Some((head, body)) = text.split_once("\n\n") else { return };
    let sent: Vec<_> = head.lines().filter_map(|line| line.split_once(": ")).collect();
    let find = |name: &str| sent.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    let message = Message::from_agent(body.as_bytes(), JsonLimits::default());
    let Ok(Message::Request(request)) = message else { return };
    let checked = headers::check_headers(find, &request);
    let version = request.meta().and_then(|meta| meta.get(META_PROTOCOL_VERSION)?.as_str());
    match (checked, version) {
        (Ok(()), Some(version)) => {
            assert_eq!(find(headers::PROTOCOL_VERSION), Some(version));
            assert_eq!(find(headers::METHOD), Some(request.method.as_str()));
            for (name, value) in headers::standard(&request) {
                let said = find(name).and_then(headers::decode);
                assert_eq!(said, headers::decode(&value), "{name}");
            }
        }
        (Ok(()), None) => assert_ne!(find(headers::PROTOCOL_VERSION), Some(REVISION_MODERN)),
        (Err(fault), _) => assert!(fault.to_string().chars().count() < 1000 && fault.code() < 0),
    }
}

/// A tool's schema and arguments: every header that they ask for can be sent, once, and says what
/// the argument says.
fn annotated(data: &[u8]) {
    let Ok(input) = holdpoint_types::parse(data, JsonLimits::default()) else { return };
    let (schema, arguments) = (&input["schema"], &input["arguments"]);
    let Ok(found) = headers::param_headers(schema) else { return };
    let mut names = BTreeSet::new();
    for header in &found {
        let name: HeaderName = header.name.parse().expect("a header name");
        assert!(header.name.starts_with(headers::PARAM_PREFIX) && name == header.name.as_str());
        assert!(names.insert(&header.name), "two parameters in one header");
        let Some((_, value)) = header.mirror(arguments) else { continue };
        assert!(HeaderValue::from_str(&value).is_ok(), "`{value:?}` is no header value");
        let argument = header.path.iter().try_fold(arguments, |value, step| value.get(step));
        let argument = match argument.expect("what is mirrored is there") {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        assert_eq!(headers::decode(&value), Some(argument));
    }
}

/// One client's streams under a script: each message goes to one place, nobody gets one twice, and
/// who returns gets what came after.
fn returning(script: &[u8]) {
    let mut world = World::default();
    for step in script.chunks_exact(2).take(600) {
        world.step(step[0] % 9, step[1]);
    }
    let mut clients = std::mem::take(&mut world.clients);
    clients.iter_mut().for_each(|client| world.read(client));
}

#[derive(Default)]
struct World {
    streams: Streams,
    clients: Vec<Client>,
    /// Every message that was seen, by place.
    seen: BTreeMap<(u64, u64), Delivery>,
    /// Those that somebody has read from the thread's own stream.
    read_own: BTreeSet<u64>,
    ended: BTreeSet<u64>,
    sent: u64,
}

struct Client {
    deliveries: Deliveries,
    stream: Option<u64>,
    after: u64,
}

impl World {
    fn step(&mut self, action: u8, argument: u8) {
        let id = json!(argument % 4);
        self.sent += 1;
        let unique = self.sent;
        match action {
            0 => {
                let progress = (argument > 127).then(|| id.clone());
                let opened = self.streams.open(&RpcId::Number((argument % 4).into()), progress);
                self.clients.extend(opened.map(|deliveries| Client::new(deliveries, None, 0)));
            }
            1 => self.say(json!({"id": id, "result": {"n": unique}})),
            2 => self.note("notifications/progress", json!({"progressToken": id, "n": unique})),
            3 => self.note("notifications/x", json!({"n": unique})),
            4 => self.say(json!({"id": unique, "method": "ping", "params": {"n": unique}})),
            5 => drop(self.clients.pop()),
            6 => {
                let Some(mut client) = self.clients.pop() else { return };
                self.read(&mut client);
                self.clients.insert(0, client);
            }
            7 => self.resume(None),
            _ => {
                let text = format!("{}-{}", argument % 8, argument / 8);
                let place = Place::parse(&text).expect("a place");
                assert_eq!(place.text(), text);
                self.resume(Some((place, (argument % 8).into(), (argument / 8).into())));
            }
        }
    }

    fn note(&mut self, method: &str, params: Value) {
        self.say(json!({"method": method, "params": params}));
    }

    fn say(&mut self, mut message: Value) {
        message["jsonrpc"] = "2.0".into();
        self.streams.deliver(message.to_string().into());
    }

    fn resume(&mut self, place: Option<(Place, u64, u64)>) {
        let (stream, after) = place.map_or((0, 0), |(_, stream, number)| (stream, number));
        match self.streams.resume(place.map(|(place, ..)| place)) {
            Resumed::Taken => assert!(place.is_none(), "who says where it was is never refused"),
            Resumed::Stream(missed, coming) => {
                assert!(missed.len() <= KEPT_MAX, "more is kept than may be");
                let mut last = after;
                for delivery in missed {
                    let (of, number) = numbers(&delivery);
                    assert!(of == stream && number > last, "not what came after");
                    let again = place.is_none() && self.read_own.contains(&number);
                    assert!(!again, "somebody read this before");
                    last = number;
                    self.remember(delivery);
                }
                // A client may lie about what it has seen; what then comes has smaller numbers.
                let last = if last == after { 0 } else { last };
                self.clients.extend(coming.map(|coming| Client::new(coming, Some(stream), last)));
            }
        }
    }

    fn read(&mut self, client: &mut Client) {
        while let Ok(delivery) = client.deliveries.try_recv() {
            let (stream, number) = numbers(&delivery);
            assert_eq!(*client.stream.get_or_insert(stream), stream, "two streams in one");
            assert!(number > client.after, "not in order");
            client.after = number;
            if delivery.last {
                assert!(stream != 0, "the thread's own stream has no answer");
                self.ended.insert(stream);
                assert!(block_on(client.deliveries.recv()).is_none(), "more after the answer");
            }
            self.remember(delivery);
        }
    }

    fn remember(&mut self, delivery: Delivery) {
        let (stream, number) = numbers(&delivery);
        if stream == 0 {
            self.read_own.insert(number);
        }
        let before = self.seen.insert((stream, number), delivery.clone());
        assert!(before.is_none_or(|before| before == delivery), "one place, two messages");
    }
}

impl Client {
    fn new(deliveries: Deliveries, stream: Option<u64>, after: u64) -> Self {
        Self { deliveries, stream, after }
    }
}

fn numbers(delivery: &Delivery) -> (u64, u64) {
    let text = delivery.place.text();
    assert_eq!(Place::parse(&text), Some(delivery.place));
    let (stream, number) = text.split_once('-').expect("a place has two numbers");
    (stream.parse().expect("a number"), number.parse().expect("a number"))
}
