//! Asks governing processes on this machine, through their sockets.
//! Must never wait for ever: every question has a deadline.

use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;

/// Longest accepted answer, in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Why a governing process gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskFault {
    /// Nobody is there, or the connection broke.
    #[error("the process cannot be reached: {0}")]
    Unreachable(String),
    /// It answered with an error.
    #[error("the process answered {status}: {text}")]
    Answered {
        /// The HTTP status.
        status: u16,
        /// What it said.
        text: String,
    },
    /// It did not answer in time.
    #[error("the process did not answer within {0:?}")]
    Late(Duration),
}

/// Asks `method path` at `socket`.
///
/// # Errors
/// When nobody answers, in time, with what was asked for.
pub async fn ask<T: DeserializeOwned>(
    socket: &Path,
    (method, path): (&str, &str),
    patience: Duration,
) -> Result<T, AskFault> {
    tell(socket, (method, path), Bytes::new(), patience).await
}

/// Asks `method path` at `socket`, with a JSON text.
///
/// # Errors
/// When nobody answers, in time, with what was asked for.
pub async fn tell<T: DeserializeOwned>(
    socket: &Path,
    (method, path): (&str, &str),
    json: Bytes,
    patience: Duration,
) -> Result<T, AskFault> {
    let late = |_| AskFault::Late(patience);
    let asked = exchange(socket, (method, path), json);
    let (status, body) = tokio::time::timeout(patience, asked).await.map_err(late)??;
    if status != 200 {
        let text = String::from_utf8_lossy(&body).into_owned();
        return Err(AskFault::Answered { status, text });
    }
    serde_json::from_slice(&body).map_err(|fault| AskFault::Unreachable(fault.to_string()))
}

/// True if whoever answers on `socket` is the owner of the folder that it lies in, or root.
pub fn is_trusted(socket: &Path, stream: &UnixStream) -> bool {
    let owner = socket.parent().and_then(|dir| std::fs::symlink_metadata(dir).ok());
    let owner = owner.map(|dir| std::os::unix::fs::MetadataExt::uid(&dir));
    let peer = stream.peer_cred().ok().map(|peer| peer.uid());
    peer.is_some() && (peer == owner || peer == Some(0))
}

async fn exchange(
    socket: &Path,
    (method, path): (&str, &str),
    json: Bytes,
) -> Result<(u16, Bytes), AskFault> {
    let fault = |fault: &dyn std::fmt::Display| AskFault::Unreachable(fault.to_string());
    let stream = UnixStream::connect(socket).await.map_err(|error| fault(&error))?;
    if !is_trusted(socket, &stream) {
        return Err(fault(&"its socket belongs to another user than its folder"));
    }
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| fault(&error))?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "local")
        .header("content-type", "application/json")
        .body(Full::new(json))
        .map_err(|error| fault(&error))?;
    let response = sender.send_request(request).await.map_err(|error| fault(&error))?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    Ok((status, body.map_err(|error| fault(&error))?.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::{ANSWER_BYTES_MAX, AskFault, ask};
    use std::path::Path;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    /// Asks a process whose answer is a JSON text of this length.
    async fn asked(socket: &Path, bytes: usize) -> Result<String, AskFault> {
        let listener = UnixListener::bind(socket).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut head).await.unwrap();
            }
            let text = format!("\"{}\"", "x".repeat(bytes - 2));
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n{text}");
            // Who reads no further closes.
            let _ = stream.write_all(answer.as_bytes()).await;
        });
        ask(socket, ("GET", "/"), Duration::from_secs(20)).await
    }

    #[tokio::test]
    async fn a_process_that_answers_without_end_is_as_good_as_silent() {
        let dir = tempfile::tempdir().unwrap();
        let answer = asked(&dir.path().join("a"), ANSWER_BYTES_MAX).await.unwrap();
        assert_eq!(answer.len(), ANSWER_BYTES_MAX - 2);
        let fault = asked(&dir.path().join("b"), ANSWER_BYTES_MAX + 1).await.unwrap_err();
        assert!(matches!(fault, AskFault::Unreachable(_)), "{fault}");
    }
}
