//! Standard input and output of a program that passes messages on.
//!
//! Pipes are opened anew, so that they can be read and written without waiting: the ones that we
//! were given may be shared with others, who expect them to wait. Must never close them early.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::unix::pipe::OpenOptions;

/// Standard input. What is no pipe is read on a thread of its own.
pub(super) fn input() -> Box<dyn AsyncRead + Unpin + Send> {
    match OpenOptions::new().open_receiver("/proc/self/fd/0") {
        Ok(pipe) => Box::new(pipe),
        Err(_) => Box::new(tokio::io::stdin()),
    }
}

/// Standard output. What is no pipe is written on a thread of its own.
pub(super) fn output() -> Box<dyn AsyncWrite + Unpin + Send> {
    match OpenOptions::new().open_sender("/proc/self/fd/1") {
        Ok(pipe) => Box::new(pipe),
        Err(_) => Box::new(tokio::io::stdout()),
    }
}
