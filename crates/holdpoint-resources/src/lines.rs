//! Lines over a byte stream: reading with a limit, writing in order.
//!
//! Owns the framing of MCP over standard input and output. Must never hold more than one line of
//! the peer in memory, and never write a part of a line that was withdrawn.

use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

/// How many messages may wait to be written.
pub(crate) const QUEUE_MAX: usize = 64;

const QUEUED: u8 = 0;
const STARTED: u8 = 1;
const WITHDRAWN: u8 = 2;

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A line that is not blank, without its end.
    Text(Bytes),
    /// A line longer than the limit; it was skipped.
    TooLong,
    /// The peer closed its output.
    End,
}

/// Reads lines.
#[derive(Debug)]
pub(crate) struct LineReader<R> {
    source: R,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line end.
    scanned: usize,
    bytes_max: usize,
    skipping: bool,
}

/// Whether a line may still be withdrawn, shared by who asked for it and who writes it.
#[derive(Debug, Default)]
pub(crate) struct Ticket(AtomicU8);

/// A line on its way out.
#[derive(Debug)]
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    ticket: Option<Arc<Ticket>>,
    written: Option<oneshot::Sender<()>>,
}

// === impl LineReader ===

impl<R: AsyncRead + Unpin> LineReader<R> {
    pub(crate) fn new(source: R, bytes_max: usize) -> Self {
        let buffer = BytesMut::with_capacity(8 << 10);
        Self { source, buffer, scanned: 0, bytes_max, skipping: false }
    }

    /// The next line. Nothing is lost if the future is dropped.
    pub(crate) async fn next(&mut self) -> std::io::Result<Line> {
        loop {
            if let Some(line) = self.buffered() {
                return Ok(line);
            }
            if self.source.read_buf(&mut self.buffer).await? == 0 {
                return Ok(self.last());
            }
        }
    }

    fn buffered(&mut self) -> Option<Line> {
        loop {
            let fresh = self.buffer.get(self.scanned..).unwrap_or_default();
            let Some(at) = fresh.iter().position(|&byte| byte == b'\n') else {
                self.scanned = self.buffer.len();
                if self.scanned > self.bytes_max {
                    self.skipping = true;
                }
                if self.skipping {
                    self.buffer.clear();
                    self.scanned = 0;
                }
                return None;
            };
            let line = self.buffer.split_to(self.scanned + at + 1);
            self.scanned = 0;
            if std::mem::take(&mut self.skipping) || line.len() - 1 > self.bytes_max {
                return Some(Line::TooLong);
            }
            if let Some(text) = text_of(line) {
                return Some(Line::Text(text));
            }
        }
    }

    fn last(&mut self) -> Line {
        self.scanned = 0;
        if std::mem::take(&mut self.skipping) {
            return Line::TooLong;
        }
        // A last line without an end may be cut off anywhere; the reader of JSON will tell.
        text_of(self.buffer.split()).map_or(Line::End, Line::Text)
    }
}

// === impl Ticket ===

impl Ticket {
    /// Claims the line for writing; false if it was withdrawn.
    fn start(&self) -> bool {
        self.move_to(STARTED)
    }

    /// Takes the line back. True only if no byte of it was or will be written.
    pub(crate) fn withdraw(&self) -> bool {
        self.move_to(WITHDRAWN) || self.0.load(Ordering::Acquire) == WITHDRAWN
    }

    fn move_to(&self, state: u8) -> bool {
        self.0.compare_exchange(QUEUED, state, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

// === impl Outgoing ===

impl Outgoing {
    /// A line that nobody will withdraw.
    pub(crate) fn plain(bytes: Vec<u8>) -> Self {
        Self { bytes, ticket: None, written: None }
    }

    /// A line that may be withdrawn until it is being written.
    pub(crate) fn ticketed(bytes: Vec<u8>, ticket: Arc<Ticket>) -> Self {
        Self { bytes, ticket: Some(ticket), written: None }
    }

    /// The same line, telling when it was written as a whole.
    pub(crate) fn telling(self, written: oneshot::Sender<()>) -> Self {
        Self { written: Some(written), ..self }
    }
}

/// Writes lines until nobody can send any, or the peer closed its input; then closes it.
pub(crate) async fn write_lines(
    mut queue: mpsc::Receiver<Outgoing>,
    mut stdin: impl AsyncWrite + Unpin,
) {
    while let Some(mut line) = queue.recv().await {
        if line.ticket.as_ref().is_some_and(|ticket| !ticket.start()) {
            continue;
        }
        line.bytes.push(b'\n');
        let written = stdin.write_all(&line.bytes).await;
        if written.and(stdin.flush().await).is_err() {
            return;
        }
        if let Some(tell) = line.written {
            let _ = tell.send(());
        }
    }
}

fn text_of(line: BytesMut) -> Option<Bytes> {
    let text = line.freeze();
    let trimmed = text.trim_ascii();
    (!trimmed.is_empty()).then(|| text.slice_ref(trimmed))
}

#[cfg(test)]
mod tests {
    use super::{Line, LineReader, Ticket};
    use proptest::prelude::*;
    use std::io::Cursor;
    use tokio::io::AsyncReadExt as _;

    fn lines(text: &[u8], bytes_max: usize, step: u64) -> Vec<Line> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            // `take` in steps makes the reader meet lines in pieces.
            let mut source: Box<dyn tokio::io::AsyncRead + Unpin> = Box::new(tokio::io::empty());
            for piece in text.chunks(usize::try_from(step).unwrap()) {
                source = Box::new(source.chain(Cursor::new(piece.to_vec())));
            }
            let mut reader = LineReader::new(source, bytes_max);
            let mut found = Vec::new();
            loop {
                match reader.next().await.unwrap() {
                    Line::End => return found,
                    line => found.push(line),
                }
            }
        })
    }

    fn text(line: &str) -> Line {
        Line::Text(line.to_owned().into())
    }

    #[test]
    fn long_lines_are_skipped_and_blank_ones_ignored() {
        let input = b"one\n\n  \r\n12345678901\ntwo\r\nlast";
        for step in [1, 3, 100] {
            let expected = vec![text("one"), Line::TooLong, text("two"), text("last")];
            assert_eq!(lines(input, 10, step), expected, "{step}");
        }
        assert_eq!(lines(b"12345678901", 10, 4), vec![Line::TooLong]);
        assert_eq!(lines(b"1234567890\n", 10, 4), vec![text("1234567890")]);
    }

    #[test]
    fn a_line_is_written_or_withdrawn_never_both() {
        let ticket = Ticket::default();
        assert!(ticket.withdraw() && ticket.withdraw());
        assert!(!ticket.start());
        let ticket = Ticket::default();
        assert!(ticket.start());
        assert!(!ticket.withdraw());
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop::sample::select(vec![b'a', b'\n', b' ', 0xff]);
        prop::collection::vec(byte, 0..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn pieces_make_no_difference(input in bytes(), step in 1_u64..9) {
            prop_assert_eq!(lines(&input, 8, step), lines(&input, 8, 1000));
        }
    }
}
