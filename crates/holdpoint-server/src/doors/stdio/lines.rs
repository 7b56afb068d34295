//! Lines to and from an agent. Must not know what they say.

use std::io;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// Reads past the end of a line that is too long to be kept.
pub(super) async fn skip_line(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<()> {
    loop {
        let buffer = from.fill_buf().await?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(buffer.len(), |end| end + 1);
        let done = end.is_some() || used == 0;
        from.consume(used);
        if done {
            return Ok(());
        }
    }
}

/// Writes what comes, until nobody sends or nobody reads.
pub(super) async fn write_lines(
    mut lines: mpsc::Receiver<Vec<u8>>,
    mut to: impl AsyncWrite + Unpin,
) {
    while let Some(mut line) = lines.recv().await {
        line.push(b'\n');
        if to.write_all(&line).await.is_err() {
            return;
        }
        if lines.is_empty() && to.flush().await.is_err() {
            return;
        }
    }
}
