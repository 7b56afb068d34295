//! The streams of one thread: which message goes into which, and what is kept for those who return.
//!
//! Each message goes into exactly one stream: an answer and progress into the stream of their
//! request, what a server asks meanwhile into the newest one, all else into the thread's own. Must
//! never wait for a slow client, and never keep more than its bounds.

use bytes::Bytes;
use holdpoint_resources::mcp::era::META_SUBSCRIPTION;
use holdpoint_resources::mcp::{Message, RpcId};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use tokio::sync::mpsc;

/// Most requests of one thread that wait at one time.
const REQUESTS_MAX: usize = 1024;
/// How many messages may wait for a client to read them; one that is slower must come back.
const WAITING_MAX: usize = 64;
/// Most messages that are kept for a client that comes back.
const KEPT_MAX: usize = 256;
/// Most bytes of them.
const KEPT_BYTES_MAX: usize = 512 << 10;
/// The stream that belongs to no request.
const OWN: u64 = 0;

/// Where a client reads one stream.
pub(super) type Deliveries = mpsc::Receiver<Delivery>;

/// One message on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    /// The stream, and the message's number in it.
    pub(super) place: Place,
    /// The message: one line.
    pub(super) text: Bytes,
    /// True for the answer that ends the stream.
    pub(super) last: bool,
}

/// Where in which stream a message stands; its text is an event's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    stream: u64,
    number: u64,
}

/// All streams of one thread.
#[derive(Debug, Default)]
pub(super) struct Streams {
    open: BTreeMap<u64, Stream>,
    last_stream: u64,
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    over: bool,
}

/// How a client comes back to a stream.
#[derive(Debug)]
pub(super) enum Resumed {
    /// What it missed, and what comes then; nothing comes if the stream has ended.
    Stream(Vec<Delivery>, Option<Deliveries>),
    /// Somebody reads the stream.
    Taken,
}

#[derive(Debug, Default)]
struct Stream {
    /// The request whose answer ends the stream; the own stream has none.
    request: Option<RpcId>,
    progress: Option<Value>,
    last: u64,
    client: Option<mpsc::Sender<Delivery>>,
    /// True for a request of our own: nothing else goes into its stream, and nobody comes back.
    aside: bool,
}

#[derive(Debug)]
struct Kept {
    delivery: Delivery,
    /// True once a client was given it.
    given: bool,
}

// === impl Place ===

impl Place {
    /// Reads an event's id.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (stream, number) = text.split_once('-')?;
        Some(Self { stream: stream.parse().ok()?, number: number.parse().ok()? })
    }

    /// The event's id.
    pub(super) fn text(self) -> String {
        format!("{}-{}", self.stream, self.number)
    }
}

// === impl Streams ===

impl Streams {
    /// Opens the stream of a request; `None` if one with its id is in flight, or too many are.
    pub(super) fn open(&mut self, id: &RpcId, progress: Option<Value>) -> Option<Deliveries> {
        let in_flight = self.open.values().any(|stream| stream.request.as_ref() == Some(id));
        if in_flight || self.open.len() >= REQUESTS_MAX || self.over {
            return None;
        }
        let (client, deliveries) = mpsc::channel(WAITING_MAX);
        self.last_stream += 1;
        let (request, client) = (Some(id.clone()), Some(client));
        let stream = Stream { request, progress, client, ..Stream::default() };
        self.open.insert(self.last_stream, stream);
        Some(deliveries)
    }

    /// The same, for a request of our own.
    pub(super) fn open_aside(&mut self, id: &RpcId) -> Option<Deliveries> {
        let deliveries = self.open(id, None)?;
        let stream = self.open.get_mut(&self.last_stream)?;
        stream.aside = true;
        Some(deliveries)
    }

    /// True while the request waits for its answer.
    pub(super) fn is_in_flight(&self, id: &RpcId) -> bool {
        self.of_request(Some(id)).is_some()
    }

    /// Lets a client read the thread's own stream, or come back to the one that `place` is in.
    pub(super) fn resume(&mut self, place: Option<Place>) -> Resumed {
        let stream = place.map_or(OWN, |place| place.stream);
        let missed = |kept: &Kept| {
            let found = kept.delivery.place;
            match place {
                Some(place) => found.stream == stream && found.number > place.number,
                None => found.stream == OWN && !kept.given,
            }
        };
        if stream == OWN && !self.over {
            self.open.entry(OWN).or_default();
        }
        if let Some(open) = self.open.get(&stream)
            && open.is_read()
            && place.is_none()
        {
            return Resumed::Taken;
        }
        let mut replay = Vec::new();
        for kept in self.kept.iter_mut().filter(|kept| missed(kept)) {
            kept.given = true;
            replay.push(kept.delivery.clone());
        }
        let deliveries = self.open.get_mut(&stream).map(|open| {
            let (client, deliveries) = mpsc::channel(WAITING_MAX);
            open.client = Some(client);
            deliveries
        });
        Resumed::Stream(replay, deliveries)
    }

    /// Puts a line of the server into its stream.
    pub(super) fn deliver(&mut self, text: Bytes) {
        let message = match Message::from_upstream(&text, usize::MAX) {
            Ok(message) => message,
            Err(fault) => return tracing::error!(%fault, "a line that is no message: dropped"),
        };
        let (number, last) = match &message {
            Message::Response(response) => match self.of_request(response.id.as_ref()) {
                Some(number) => (number, true),
                None => return tracing::warn!("an answer that no client waits for: dropped"),
            },
            Message::Request(_) => (self.newest(), false),
            Message::Notification(note) => match note.method.as_str() {
                "notifications/progress" => {
                    let token = note.params.as_ref().and_then(|params| params.get("progressToken"));
                    (self.of_progress(token), false)
                }
                "notifications/message" | "notifications/cancelled" => (self.newest(), false),
                _ => (self.of_subscription(note.params.as_ref()), false),
            },
        };
        self.put(number, text, last);
    }

    /// Lets go who reads the thread's own stream.
    pub(super) fn close_own(&mut self) {
        self.open.remove(&OWN);
    }

    /// Ends all streams.
    pub(super) fn end(&mut self) {
        self.over = true;
        self.open.clear();
        self.kept.clear();
        self.kept_bytes = 0;
    }

    /// True while a request waits or a client reads.
    pub(super) fn is_busy(&self) -> bool {
        self.open.values().any(|stream| stream.request.is_some() || stream.is_read())
    }

    fn put(&mut self, number: u64, text: Bytes, last: bool) {
        let stream = self.open.entry(number).or_default();
        stream.last += 1;
        let place = Place { stream: number, number: stream.last };
        let delivery = Delivery { place, text, last };
        let given = stream.give(delivery.clone());
        let aside = stream.aside;
        if last {
            self.open.remove(&number);
        }
        if aside {
            return;
        }
        self.keep(Kept { delivery, given });
    }

    fn keep(&mut self, kept: Kept) {
        self.kept_bytes = self.kept_bytes.saturating_add(kept.delivery.text.len());
        self.kept.push_back(kept);
        while self.kept.len() > KEPT_MAX || self.kept_bytes > KEPT_BYTES_MAX {
            let Some(oldest) = self.kept.pop_front() else { return };
            self.kept_bytes = self.kept_bytes.saturating_sub(oldest.delivery.text.len());
        }
    }

    fn of_request(&self, id: Option<&RpcId>) -> Option<u64> {
        let id = id?;
        let mut open = self.open.iter();
        open.find(|(_, stream)| stream.request.as_ref() == Some(id)).map(|(number, _)| *number)
    }

    fn of_progress(&self, token: Option<&Value>) -> u64 {
        let wanted = |stream: &Stream| token.is_some() && stream.progress.as_ref() == token;
        let found = self.open.iter().find(|(_, stream)| wanted(stream));
        found.map_or(OWN, |(number, _)| *number)
    }

    /// A modern subscription's notifications belong to the request that asked for them.
    fn of_subscription(&self, params: Option<&Value>) -> u64 {
        let id = params.and_then(|params| params.get("_meta")?.get(META_SUBSCRIPTION));
        let Some(wanted) = id.and_then(RpcId::from_value) else { return OWN };
        // Some servers write a number as a text here.
        let same = |id: &RpcId| plain(id) == plain(&wanted);
        let mut open = self.open.iter();
        let found = open.find(|(_, stream)| stream.request.as_ref().is_some_and(same));
        found.map_or(OWN, |(number, _)| *number)
    }

    /// The newest stream of a request whose client reads it.
    fn newest(&self) -> u64 {
        let mut open = self.open.iter().rev();
        let found = open.find(|(_, stream)| stream.takes_more());
        found.map_or(OWN, |(number, _)| *number)
    }
}

// === impl Stream ===

impl Stream {
    /// True for the stream of a client's request that it reads.
    fn takes_more(&self) -> bool {
        self.request.is_some() && !self.aside && self.is_read()
    }

    fn is_read(&self) -> bool {
        self.client.as_ref().is_some_and(|client| !client.is_closed())
    }

    /// Gives the client a message; a client that is too slow is let go.
    fn give(&mut self, delivery: Delivery) -> bool {
        let Some(client) = &self.client else { return false };
        let given = client.try_send(delivery).is_ok();
        if !given {
            self.client = None;
        }
        given
    }
}

fn plain(id: &RpcId) -> String {
    match id {
        RpcId::Number(number) => number.to_string(),
        RpcId::Text(text) => text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Deliveries, KEPT_MAX, Place, REQUESTS_MAX, Resumed, Streams, WAITING_MAX};
    use bytes::Bytes;
    use holdpoint_resources::mcp::RpcId;
    use serde_json::{Value, json};

    fn say(streams: &mut Streams, message: Value) {
        let mut message = message;
        message["jsonrpc"] = "2.0".into();
        streams.deliver(Bytes::from(message.to_string()));
    }

    fn heard(deliveries: &mut Deliveries) -> Vec<String> {
        let mut all = Vec::new();
        while let Ok(delivery) = deliveries.try_recv() {
            let text: Value = serde_json::from_slice(&delivery.text).unwrap();
            let what = text.get("method").or(text.get("id")).unwrap();
            all.push(format!(
                "{} {what}{}",
                delivery.place.text(),
                if delivery.last { "." } else { "" }
            ));
        }
        all
    }

    #[test]
    fn every_message_goes_into_one_stream() {
        let mut streams = Streams::default();
        let mut first = streams.open(&RpcId::Number(1), Some(json!("p"))).unwrap();
        let mut second = streams.open(&RpcId::Number(2), None).unwrap();
        assert!(streams.open(&RpcId::Number(2), None).is_none(), "in flight");
        let Resumed::Stream(replay, Some(mut own)) = streams.resume(None) else { panic!() };
        assert!(replay.is_empty());
        assert!(matches!(streams.resume(None), Resumed::Taken));
        say(
            &mut streams,
            json!({"method": "notifications/progress", "params": {"progressToken": "p"}}),
        );
        say(&mut streams, json!({"method": "sampling/createMessage", "id": 9}));
        say(&mut streams, json!({"method": "notifications/resources/updated"}));
        say(&mut streams, json!({"id": 1, "result": {}}));
        say(&mut streams, json!({"id": 1, "result": {}}));
        assert_eq!(heard(&mut first), ["1-1 \"notifications/progress\"", "1-2 1."]);
        assert_eq!(heard(&mut second), ["2-1 \"sampling/createMessage\""]);
        assert_eq!(heard(&mut own), ["0-1 \"notifications/resources/updated\""]);
        assert!(streams.is_busy());
        let subscribed = json!({"_meta": {"io.modelcontextprotocol/subscriptionId": "2"}});
        say(&mut streams, json!({"method": "notifications/x", "params": subscribed}));
        assert_eq!(heard(&mut second), ["2-2 \"notifications/x\""]);
    }

    #[test]
    fn who_comes_back_gets_what_it_missed_once() {
        let mut streams = Streams::default();
        let first = streams.open(&RpcId::Number(1), None).unwrap();
        say(&mut streams, json!({"method": "notifications/message"}));
        drop(first);
        say(&mut streams, json!({"id": 1, "result": {}}));
        let Resumed::Stream(replay, None) = streams.resume(Place::parse("1-1")) else { panic!() };
        assert_eq!(replay.len(), 1);
        assert!(replay[0].last);
        // What nobody was there to read waits for the first reader.
        say(&mut streams, json!({"method": "notifications/tools/list_changed"}));
        let Resumed::Stream(replay, Some(own)) = streams.resume(None) else { panic!() };
        assert_eq!(replay.len(), 1);
        drop(own);
        let Resumed::Stream(replay, Some(_)) = streams.resume(None) else { panic!() };
        assert!(replay.is_empty());
        assert_eq!(Place::parse("1-x"), None);
    }

    #[test]
    fn a_thread_has_so_many_requests_at_one_time() {
        let mut streams = Streams::default();
        let ids = (0_i64..).map(RpcId::Number);
        let open: Vec<_> = ids.map_while(|id| streams.open(&id, None)).take(9999).collect();
        assert_eq!(open.len(), REQUESTS_MAX);
        assert!(streams.open_aside(&RpcId::Text("own".into())).is_none());
        say(&mut streams, json!({"id": 7, "result": {}}));
        assert!(streams.open(&RpcId::Text("next".into()), None).is_some());
    }

    #[test]
    fn nothing_grows_without_bounds_and_nobody_is_waited_for() {
        let mut streams = Streams::default();
        let Resumed::Stream(_, Some(mut own)) = streams.resume(None) else { panic!() };
        for _ in 0..2 * KEPT_MAX {
            say(&mut streams, json!({"method": "notifications/x"}));
        }
        assert_eq!(streams.kept.len(), KEPT_MAX);
        assert_eq!(heard(&mut own).len(), WAITING_MAX);
        let large = "x".repeat(super::KEPT_BYTES_MAX);
        say(&mut streams, json!({"method": "notifications/x", "params": {"x": large}}));
        assert_eq!((streams.kept.len(), streams.kept_bytes), (0, 0));
        streams.end();
        assert!(streams.open(&RpcId::Number(1), None).is_none());
        assert!(!streams.is_busy());
    }
}
