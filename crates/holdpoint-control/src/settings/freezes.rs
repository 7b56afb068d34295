//! Change freezes: when they are in force, and which approval excepts from them. Must not know a
//! calendar: whoever declares a freeze that recurs computes its spans.
//!
//! INVARIANT: a freeze that recurs is in force wherever its spans are not known.

use super::Settings;
use holdpoint_types::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A span of time: its first moment, and the first that is not in it.
pub type Span = (Timestamp, Timestamp);

/// Spans of time in which changes are not wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freeze {
    name: String,
    bounds: (Option<Timestamp>, Option<Timestamp>),
    recurs: Option<Recurring>,
    exception: Option<String>,
}

/// When a freeze recurs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recurring {
    /// The rules, as they were written.
    pub every: Vec<String>,
    /// The time zone that they are written in.
    pub zone: String,
    /// Where the spans are known.
    pub known: Span,
    /// The spans, in any order.
    pub spans: Vec<Span>,
}

/// A freeze that ends before it begins.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the freeze `{name}` must end after it begins")]
pub struct FreezeFault {
    /// Its name.
    pub name: String,
}

// === impl Freeze ===

impl Freeze {
    /// A freeze from `from` (included) until `until` (not included).
    ///
    /// # Errors
    /// When `until` is not later than `from`.
    pub fn new(name: String, from: Timestamp, until: Timestamp) -> Result<Self, FreezeFault> {
        if until <= from {
            return Err(FreezeFault { name });
        }
        let bounds = (Some(from), Some(until));
        Ok(Self { name, bounds, recurs: None, exception: None })
    }

    /// A freeze that recurs within `bounds`.
    ///
    /// # Errors
    /// When the bounds hold nothing.
    pub fn recurring(
        name: String,
        mut recurs: Recurring,
        bounds: (Option<Timestamp>, Option<Timestamp>),
    ) -> Result<Self, FreezeFault> {
        if let (Some(from), Some(until)) = bounds
            && until <= from
        {
            return Err(FreezeFault { name });
        }
        recurs.spans = merged(recurs.spans);
        Ok(Self { name, bounds, recurs: Some(recurs), exception: None })
    }

    /// The same freeze, from which the approval `exception` excepts.
    #[must_use]
    pub fn excepted_by(self, exception: String) -> Self {
        Self { exception: Some(exception), ..self }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The approval that excepts from it.
    pub fn exception(&self) -> Option<&str> {
        self.exception.as_deref()
    }

    /// True if it is in force at `now`.
    pub fn covers(&self, now: Timestamp) -> bool {
        self.span(now).is_some_and(|(from, _)| from <= now)
    }

    /// The span that it is in force at `now`, or else the next one.
    pub fn span(&self, now: Timestamp) -> Option<Span> {
        let (from, until) = self.bounds;
        let from = from.unwrap_or(Timestamp(i64::MIN));
        let until = until.unwrap_or(Timestamp(i64::MAX));
        let at = now.max(from);
        let (begin, end) = match &self.recurs {
            None => (from, until),
            Some(recurs) => recurs.span(at)?,
        };
        let (begin, end) = (begin.max(from), end.min(until));
        (at < end && begin < end).then_some((begin, end))
    }

    pub(super) fn describe(&self) -> Value {
        let (from, until) = self.bounds;
        let (from, until) = (from.map(|at| at.0), until.map(|at| at.0));
        let (name, exception) = (&self.name, &self.exception);
        match (&self.recurs, exception) {
            // The form of those that do not recur is the one that they always had.
            (None, None) => json!({ "name": name, "from": from, "until": until }),
            (recurs, _) => json!({
                "name": name,
                "from": from,
                "until": until,
                "every": recurs.as_ref().map(|recurs| &recurs.every),
                "zone": recurs.as_ref().map(|recurs| &recurs.zone),
                "exception": exception,
            }),
        }
    }
}

// === impl Recurring ===

impl Recurring {
    /// The span that holds `at`, or else the next one.
    fn span(&self, at: Timestamp) -> Option<Span> {
        let (first, last) = self.known;
        if at < first {
            return Some((Timestamp(i64::MIN), first));
        }
        let unknown = (last, Timestamp(i64::MAX));
        let next = self.spans.partition_point(|(_, end)| *end <= at);
        Some(self.spans.get(next).copied().filter(|_| at < last).unwrap_or(unknown))
    }
}

// === impl Settings ===

impl Settings {
    /// Names of the freezes in force at `now` from which nothing excepts.
    pub fn freezes_at(&self, now: Timestamp) -> BTreeSet<String> {
        let covering = self.parts.freezes.iter().filter(|freeze| freeze.covers(now));
        let strict = covering.filter(|freeze| freeze.exception.is_none());
        strict.map(|freeze| freeze.name.clone()).collect()
    }

    /// The freezes in force at `now` from which an approval excepts, each with that approval.
    pub fn freeze_exceptions_at(&self, now: Timestamp) -> BTreeMap<String, String> {
        let covering = self.parts.freezes.iter().filter(|freeze| freeze.covers(now));
        let excepted = covering.filter_map(|freeze| {
            let exception = freeze.exception.clone()?;
            Some((freeze.name.clone(), exception))
        });
        excepted.collect()
    }
}

/// The spans in order, those that touch as one.
fn merged(mut spans: Vec<Span>) -> Vec<Span> {
    spans.retain(|(from, until)| from < until);
    spans.sort_unstable();
    let mut found: Vec<Span> = Vec::with_capacity(spans.len());
    for (from, until) in spans {
        match found.last_mut() {
            Some((_, end)) if from <= *end => *end = until.max(*end),
            Some(_) | None => found.push((from, until)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Freeze, Recurring};
    use holdpoint_types::Timestamp;

    fn at(ms: i64) -> Timestamp {
        Timestamp(ms)
    }

    fn recurring(spans: &[(i64, i64)], from: Option<i64>, until: Option<i64>) -> Freeze {
        let recurs = Recurring {
            every: vec!["fri 16:00 - mon 08:00".to_owned()],
            zone: "Europe/Berlin".to_owned(),
            known: (at(0), at(1_000)),
            spans: spans.iter().map(|(from, until)| (at(*from), at(*until))).collect(),
        };
        Freeze::recurring("weekends".to_owned(), recurs, (from.map(at), until.map(at))).unwrap()
    }

    #[test]
    fn a_recurring_freeze_covers_its_spans_within_its_bounds() {
        let freeze = recurring(&[(300, 400), (100, 200), (150, 250)], None, None);
        for (now, covered) in
            [(99, false), (100, true), (249, true), (250, false), (300, true), (400, false)]
        {
            assert_eq!(freeze.covers(at(now)), covered, "{now}");
        }
        assert_eq!(freeze.span(at(50)), Some((at(100), at(250))));
        assert_eq!(freeze.span(at(120)), Some((at(100), at(250))));
        let bounded = recurring(&[(100, 200), (300, 400)], Some(150), Some(350));
        for (now, covered) in
            [(-5, false), (120, false), (150, true), (200, false), (349, true), (350, false)]
        {
            assert_eq!(bounded.covers(at(now)), covered, "{now}");
        }
        assert_eq!(bounded.span(at(0)), Some((at(150), at(200))));
        assert_eq!(bounded.span(at(210)), Some((at(300), at(350))));
        assert_eq!(bounded.span(at(350)), None);
        let between = recurring(&[(100, 200), (300, 400)], Some(210), Some(290));
        assert!((0..1_500).all(|now| !between.covers(at(now)) && between.span(at(now)).is_none()));
    }

    #[test]
    fn a_freeze_whose_spans_are_not_known_is_in_force() {
        let freeze = recurring(&[(100, 200)], None, None);
        for (now, covered) in [(-1, true), (0, false), (999, false), (1_000, true)] {
            assert_eq!(freeze.covers(at(now)), covered, "{now}");
        }
        assert_eq!(freeze.span(at(500)), Some((at(1_000), at(i64::MAX))));
        let over = recurring(&[(100, 200)], None, Some(600));
        assert!(!over.covers(at(1_000)));
    }
}
