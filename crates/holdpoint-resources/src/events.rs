//! Server-sent events out of a body that arrives in pieces (WHATWG HTML, section 9.2.6).
//!
//! Owns the framing of event streams: the same events come out wherever the network cuts them. Must
//! never hold more than one event of the allowed size and one piece.

use bytes::{Buf as _, Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use std::io;

/// What some writers put before the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// One event. What else it says (`event`, unknown fields) means nothing in MCP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its id, if it has one.
    pub(crate) id: Option<String>,
    /// Its data, lines joined by line feeds; empty if it has none.
    pub(crate) data: Vec<u8>,
    /// How long to wait before the stream is taken up again, in milliseconds.
    pub(crate) retry_ms: Option<u64>,
}

/// Reads events.
#[derive(Debug)]
pub(crate) struct EventReader<S> {
    pieces: S,
    event_bytes_max: usize,
    /// How many bytes the rest of the stream may have.
    bytes_left: usize,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line end.
    scanned: usize,
    /// True if a line feed that comes next belongs to the line before.
    after_return: bool,
    started: bool,
    event: Event,
    has_data: bool,
}

// === impl EventReader ===

impl<S: Stream<Item = io::Result<Bytes>> + Unpin> EventReader<S> {
    /// A reader that gives up on an event, or a whole stream, of more bytes.
    pub(crate) fn new(pieces: S, (event_bytes_max, bytes_max): (usize, usize)) -> Self {
        Self {
            pieces,
            event_bytes_max,
            bytes_left: bytes_max,
            buffer: BytesMut::new(),
            scanned: 0,
            after_return: false,
            started: false,
            event: Event::default(),
            has_data: false,
        }
    }

    /// The next event with an id or data; `None` at the end. An event that is cut off is none.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Event>> {
        loop {
            while let Some(line) = self.line() {
                if let Some(event) = self.take(&line)? {
                    return Ok(Some(event));
                }
            }
            self.check(self.buffer.len())?;
            let Some(piece) = self.pieces.next().await.transpose()? else { return Ok(None) };
            self.bytes_left = self.bytes_left.checked_sub(piece.len()).ok_or_else(too_much)?;
            self.buffer.extend_from_slice(&piece);
        }
    }

    fn line(&mut self) -> Option<BytesMut> {
        if let Some(first) = self.buffer.first() {
            let rest_of_end = std::mem::take(&mut self.after_return) && *first == b'\n';
            self.buffer.advance(usize::from(rest_of_end));
        }
        let fresh = self.buffer.get(self.scanned..).unwrap_or_default();
        let Some(at) = fresh.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
            self.scanned = self.buffer.len();
            return None;
        };
        self.after_return = fresh.get(at) == Some(&b'\r');
        let line = self.buffer.split_to(self.scanned.saturating_add(at));
        self.buffer.advance(1);
        self.scanned = 0;
        Some(line)
    }

    /// Takes one line into account; gives the event that it ends.
    fn take(&mut self, line: &[u8]) -> io::Result<Option<Event>> {
        let first = !std::mem::replace(&mut self.started, true);
        let line = if first { line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line) } else { line };
        if line.is_empty() {
            self.has_data = false;
            let event = std::mem::take(&mut self.event);
            return Ok((event.id.is_some() || !event.data.is_empty()).then_some(event));
        }
        self.check(line.len())?;
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (field, rest) = line.split_at(colon);
        let value = rest.strip_prefix(b":").unwrap_or(rest);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push(b'\n');
                }
                self.event.data.extend_from_slice(value);
            }
            // An id that no header could carry back is none.
            b"id" if !value.contains(&0) => {
                self.event.id = std::str::from_utf8(value).ok().map(str::to_owned);
            }
            b"retry" if value.iter().all(u8::is_ascii_digit) => {
                let text = std::str::from_utf8(value).unwrap_or_default();
                self.event.retry_ms = text.parse().ok();
            }
            _ => {}
        }
        Ok(None)
    }

    /// Checks that the event may grow by a line of this length.
    fn check(&self, line_bytes: usize) -> io::Result<()> {
        let held = self.event.data.len().saturating_add(line_bytes);
        if held > self.event_bytes_max { Err(too_much()) } else { Ok(()) }
    }
}

fn too_much() -> io::Error {
    io::Error::other("too many bytes without an answer")
}

#[cfg(test)]
mod tests {
    use super::{Event, EventReader};
    use bytes::Bytes;
    use futures::executor::block_on;

    /// Reads all events of a text that comes in pieces of `step` bytes.
    fn read(text: &str, step: usize, sizes: (usize, usize)) -> Result<Vec<Event>, String> {
        let pieces = text.as_bytes().chunks(step).map(|piece| Ok(Bytes::copy_from_slice(piece)));
        let mut reader = EventReader::new(futures::stream::iter(pieces), sizes);
        let mut found = Vec::new();
        loop {
            match block_on(reader.next()).map_err(|error| error.to_string())? {
                Some(event) => found.push(event),
                None => return Ok(found),
            }
        }
    }

    fn event(id: Option<&str>, data: &str) -> Event {
        Event { id: id.map(str::to_owned), data: data.into(), retry_ms: None }
    }

    #[test]
    fn events_are_the_same_wherever_the_network_cuts_them() {
        let text = "\u{feff}: hi\r\nid: 1\rdata: a\ndata:b\r\n\r\nid: 2\r\n\nunknown: x\nno colon\n\
                    event: message\nretry: soon\ndata\ndata:  c\n\nid: x\0\n\ndata:\n\nid\ndata: d\
                    \n\ndata: cut off";
        let expected = [
            event(Some("1"), "a\nb"),
            event(Some("2"), ""),
            event(None, "\n c"),
            event(Some(""), "d"),
        ];
        for step in 1..=text.len() {
            assert_eq!(read(text, step, (1000, 1000)).unwrap(), expected, "step {step}");
        }
    }

    #[test]
    fn a_pause_is_a_number() {
        let pause = |text: &str| read(text, 9, (100, 100)).unwrap().remove(0).retry_ms;
        assert_eq!(pause("id: 1\nretry: 500\ndata:\n\n"), Some(500));
        for text in ["soon", "-1", "", "99999999999999999999999"] {
            assert_eq!(pause(&format!("id: 1\nretry: {text}\n\n")), None, "{text}");
        }
    }

    #[test]
    fn an_answer_counts_though_nonsense_follows_it() {
        let text = "data: answer\n\n\u{1}\u{2}\n:\n";
        assert_eq!(read(text, 100, (100, 100)).unwrap(), [event(None, "answer")]);
    }

    #[test]
    fn events_and_streams_have_limits() {
        let over = |text: &str, sizes| read(text, 3, sizes).is_err();
        assert!(!over("data: 12345\n\ndata: 12345\n\n", (11, 100)));
        assert!(over("data: 123456\n\n", (11, 100)));
        assert!(over("data: 12345\ndata: 1\n\n", (11, 100)));
        assert!(over(": 12345678901", (11, 100)));
        assert!(over("data: 1\n\ndata: 2\n\n", (11, 17)));
        assert!(!over("data: 1\n\ndata: 2\n\n", (11, 18)));
        // Many small events in one piece are no large event.
        assert_eq!(read(&"data: 1\n\n".repeat(50), 450, (11, 450)).unwrap().len(), 50);
    }
}
