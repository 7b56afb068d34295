//! A body that must arrive in time. Must never hold more than the frame it passes on.

use axum::BoxError;
use axum::body::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Sleep, sleep};

/// The body did not arrive in time.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the body did not arrive within {} ms", .0.as_millis())]
pub(super) struct Late(Duration);

/// A body, and how long all of it may take from when it is first waited for.
pub(super) struct Timely<B> {
    inner: B,
    patience: Duration,
    /// Set once the body was waited for.
    deadline: Option<Pin<Box<Sleep>>>,
}

// === impl Late ===

impl Late {
    /// Finds it among the causes of `fault`.
    pub(super) fn among(fault: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut causes = std::iter::successors(Some(fault), |fault| fault.source());
        causes.find_map(|cause| cause.downcast_ref().copied())
    }
}

// === impl Timely ===

impl<B> Timely<B> {
    pub(super) fn new(inner: B, patience: Duration) -> Self {
        Self { inner, patience, deadline: None }
    }
}

impl<B> Body for Timely<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let patience = self.patience;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(patience)));
        match deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err(Late(patience).into()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
