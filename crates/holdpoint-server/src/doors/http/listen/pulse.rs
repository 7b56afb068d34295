//! The pulse of one connection: what it did last, and whether it has been silent for too long.
//! Must never count waiting for an answer as silence.

use super::FrontLimits;
use axum::body::{Body, HttpBody as _};
use futures::StreamExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// No head of a request is on its way.
const NONE: u64 = u64::MAX;

/// What a connection does, as its transport and its service see it.
pub(super) struct Pulse {
    begun: Instant,
    /// How many requests are being answered.
    answering: AtomicUsize,
    /// When something was sent or answered last, in milliseconds after `begun`.
    active_ms: AtomicU64,
    /// Since when the head of a request is on its way.
    reading_ms: AtomicU64,
    /// True once a request came by HTTP/2, where bytes between requests are not heads.
    multiplexed: AtomicBool,
    /// True once the peer took nothing for too long.
    stalled: AtomicBool,
}

/// One request that is being answered; over when dropped.
pub(super) struct Beat(Arc<Pulse>);

/// What to do about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Look again after this long.
    Again(Duration),
    /// The head of a request takes too long.
    SlowHead,
    /// Nothing happened for too long.
    Silent,
}

// === impl Pulse ===

impl Pulse {
    /// A connection that begins now; a head is expected from the start.
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            answering: AtomicUsize::new(0),
            active_ms: AtomicU64::new(0),
            reading_ms: AtomicU64::new(0),
            multiplexed: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
        }
    }

    /// Bytes came.
    pub(super) fn read(&self) {
        if self.answering.load(Ordering::Relaxed) == 0 {
            let now = self.now_ms();
            let order = Ordering::Relaxed;
            // Only the first byte counts: one that sends a byte now and then is as slow as silent.
            let _ = self.reading_ms.compare_exchange(NONE, now, order, order);
        }
    }

    /// Bytes went.
    pub(super) fn wrote(&self) {
        self.active_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// A request's head is complete.
    pub(super) fn request(self: &Arc<Self>, version: axum::http::Version) -> Beat {
        self.answering.fetch_add(1, Ordering::Relaxed);
        self.reading_ms.store(NONE, Ordering::Relaxed);
        if version == axum::http::Version::HTTP_2 {
            self.multiplexed.store(true, Ordering::Relaxed);
        }
        Beat(Arc::clone(self))
    }

    /// The peer took nothing for too long.
    pub(super) fn stall(&self) {
        self.stalled.store(true, Ordering::Relaxed);
    }

    /// True once the peer took nothing for too long.
    pub(super) fn stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    /// True if no request is being answered and nothing was sent for this long.
    pub(super) fn is_quiet(&self, since: Duration) -> bool {
        let active = Duration::from_millis(self.active_ms.load(Ordering::Relaxed));
        let silent = Duration::from_millis(self.now_ms()).saturating_sub(active);
        self.answering.load(Ordering::Relaxed) == 0 && silent >= since
    }

    /// How the connection is now.
    pub(super) fn look(&self, limits: &FrontLimits) -> Look {
        let now = Duration::from_millis(self.now_ms());
        let least = limits.header_timeout.min(limits.idle_timeout);
        if self.answering.load(Ordering::Relaxed) > 0 {
            return Look::Again(least);
        }
        let since = |ms: u64| now.saturating_sub(Duration::from_millis(ms));
        let reading = self.reading_ms.load(Ordering::Relaxed);
        if reading != NONE && !self.multiplexed.load(Ordering::Relaxed) {
            let left = limits.header_timeout.saturating_sub(since(reading));
            return if left.is_zero() { Look::SlowHead } else { Look::Again(left) };
        }
        let silent = since(self.active_ms.load(Ordering::Relaxed));
        let left = limits.idle_timeout.saturating_sub(silent);
        // Bytes may come at any time, and then the head's own time counts.
        if left.is_zero() { Look::Silent } else { Look::Again(left.min(least)) }
    }

    fn now_ms(&self) -> u64 {
        // Milliseconds of one connection fit for half a billion years.
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(NONE - 1)
    }
}

// === impl Beat ===

impl Beat {
    /// Lasts as long as `body` if that is a stream: its pauses are not silence. A body that is
    /// there as a whole is only a matter of writing.
    pub(super) fn until_sent(self, body: Body) -> Body {
        if body.size_hint().exact().is_some() {
            return body;
        }
        Body::from_stream(StreamExt::map(body.into_data_stream(), move |part| {
            let _lasts = &self;
            part
        }))
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.0.wrote();
        self.0.answering.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{FrontLimits, Look, Pulse};
    use std::sync::Arc;
    use std::time::Duration;

    fn limits(header_ms: u64, idle_ms: u64) -> FrontLimits {
        FrontLimits {
            header_timeout: Duration::from_millis(header_ms),
            idle_timeout: Duration::from_millis(idle_ms),
            ..FrontLimits::default()
        }
    }

    #[test]
    fn a_head_has_its_own_time_and_an_answer_has_all_time() {
        let pulse = Arc::new(Pulse::new());
        assert_eq!(pulse.look(&limits(0, 60_000)), Look::SlowHead);
        assert!(matches!(pulse.look(&limits(60_000, 0)), Look::Again(_)));
        let beat = pulse.request(axum::http::Version::HTTP_11);
        assert!(matches!(pulse.look(&limits(0, 0)), Look::Again(_)));
        drop(beat);
        assert_eq!(pulse.look(&limits(60_000, 0)), Look::Silent);
        assert!(matches!(pulse.look(&limits(0, 60_000)), Look::Again(_)));
        pulse.read();
        assert_eq!(pulse.look(&limits(0, 60_000)), Look::SlowHead);
    }

    #[test]
    fn bytes_between_requests_of_http_2_are_no_heads() {
        let pulse = Arc::new(Pulse::new());
        drop(pulse.request(axum::http::Version::HTTP_2));
        pulse.read();
        assert!(matches!(pulse.look(&limits(0, 60_000)), Look::Again(_)));
        assert_eq!(pulse.look(&limits(0, 0)), Look::Silent);
    }
}
