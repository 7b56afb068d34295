//! The only clock: system time that refuses to go back.
//! Must never invent a time: when the clock cannot be trusted, nothing is decided.

use holdpoint_types::Timestamp;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// How far the clock may step back before decisions stop, in milliseconds. Smaller steps, as time
/// synchronisation makes them, are smoothed over by standing still.
const STEP_BACK_MS_MAX: i64 = 60_000;

/// A monotone reading of system time.
#[derive(Debug)]
pub struct Clock {
    latest: AtomicI64,
}

/// The clock is behind what was already recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the clock is {behind_ms} ms behind the last record")]
pub struct SteppedBack {
    /// How far behind, in milliseconds.
    pub behind_ms: i64,
}

// === impl Clock ===

impl Clock {
    /// A clock that knows when the last record was written.
    pub fn new(last_record: Option<Timestamp>) -> Self {
        Self { latest: AtomicI64::new(last_record.map_or(0, |at| at.0)) }
    }

    /// The current time, never earlier than any time given before.
    ///
    /// # Errors
    /// When system time is more than a minute behind a time given before or the last record.
    pub fn now(&self) -> Result<Timestamp, SteppedBack> {
        self.observe(system_time_ms())
    }

    /// The current time for a record, even if the clock stepped back: then the latest one known.
    pub fn now_for_record(&self) -> Timestamp {
        self.now().unwrap_or_else(|_| Timestamp(self.latest.load(Ordering::Relaxed)))
    }

    fn observe(&self, system_ms: i64) -> Result<Timestamp, SteppedBack> {
        let before = self.latest.fetch_max(system_ms, Ordering::Relaxed);
        let behind_ms = before.saturating_sub(system_ms);
        if behind_ms > STEP_BACK_MS_MAX {
            return Err(SteppedBack { behind_ms });
        }
        Ok(Timestamp(before.max(system_ms)))
    }
}

fn system_time_ms() -> i64 {
    // A clock before 1970 reads as 0, which is far behind any record.
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Clock, SteppedBack};
    use holdpoint_types::Timestamp;

    #[test]
    fn small_steps_back_stand_still_and_large_ones_are_refused() {
        let clock = Clock::new(Some(Timestamp(100_000)));
        assert_eq!(clock.observe(120_000), Ok(Timestamp(120_000)));
        assert_eq!(clock.observe(119_000), Ok(Timestamp(120_000)));
        assert_eq!(clock.observe(59_999), Err(SteppedBack { behind_ms: 60_001 }));
        assert_eq!(clock.observe(121_000), Ok(Timestamp(121_000)));
    }

    #[test]
    fn a_clock_behind_the_last_record_is_refused() {
        let clock = Clock::new(Some(Timestamp(i64::MAX)));
        assert!(clock.now().is_err());
        assert_eq!(clock.now_for_record(), Timestamp(i64::MAX));
    }
}
