//! Latencies of one run and their percentiles. Must not average: a mean hides what is slow.

use serde_json::{Value, json};
use std::time::Duration;

/// Latencies of calls, in the order in which they were measured.
#[derive(Debug, Default)]
pub struct Latencies {
    each: Vec<Duration>,
}

// === impl Latencies ===

impl Latencies {
    /// Notes one.
    pub fn add(&mut self, latency: Duration) {
        self.each.push(latency);
    }

    /// Takes in those of another run.
    pub fn merge(&mut self, other: Self) {
        self.each.extend(other.each);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.each.len()
    }

    /// `count`, and `p50_us`, `p90_us`, `p99_us` in microseconds; null where nothing was measured.
    pub fn report(mut self) -> Value {
        self.each.sort_unstable();
        let at = |hundredth: usize| {
            let at = self.each.len().saturating_sub(1) * hundredth / 100;
            self.each.get(at).map(|latency| latency.as_nanos() as f64 / 1_000.0)
        };
        json!({
            "count": self.each.len(), "p50_us": at(50), "p90_us": at(90), "p99_us": at(99),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Latencies;
    use std::time::Duration;

    #[test]
    fn percentiles_are_measured_values() {
        let mut latencies = Latencies::default();
        for us in (1..=101).rev() {
            latencies.add(Duration::from_micros(us));
        }
        let report = latencies.report();
        assert_eq!((&report["p50_us"], &report["p90_us"]), (&51.0.into(), &91.0.into()));
        assert_eq!((&report["p99_us"], &report["count"]), (&100.0.into(), &101.into()));
    }

    #[test]
    fn nothing_measured_is_null() {
        assert!(Latencies::default().report()["p50_us"].is_null());
    }
}
