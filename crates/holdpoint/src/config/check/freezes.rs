//! Checks change freezes, and computes when those that recur are in force: the one place that knows
//! calendars and time zones. Must not read the clock.

use super::Checker;
use crate::config::fault::nearest;
use crate::config::raw::{At, Named, RawApproval, RawFreeze, RawTime};
use holdpoint_control::{Freeze, Recurring};
use holdpoint_types::Timestamp;
use jiff::civil::{Date, Time, Weekday, date};
use jiff::tz::TimeZone;
use std::collections::BTreeSet;

/// Most rules of one freeze.
const EVERY_MAX: usize = 50;
/// From when on spans are computed; before, and after the last, a freeze that recurs is in force.
const KNOWN_FROM: Date = date(2025, 1, 1);
/// Until when.
const KNOWN_UNTIL: Date = date(2056, 1, 1);
/// How a rule is written.
const EXAMPLE: &str = "write `fri 16:00 - mon 08:00` or `daily 22:00 - 06:00`";
const WEEKDAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// A rule of a freeze that recurs: on which days it begins, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    /// The day on which it begins; absent if it is every day.
    day: Option<Weekday>,
    from: Time,
    until: Time,
    /// On which day after its first one it ends.
    days: i8,
}

// === impl Checker ===

impl Checker<'_> {
    pub(super) fn freezes(
        &mut self,
        raw: &[At<RawFreeze>],
        approvals: &Named<RawApproval>,
    ) -> Vec<Freeze> {
        let mut freezes = Vec::new();
        let mut names = BTreeSet::new();
        for freeze in raw {
            if let Some(name) = freeze.get().name.as_ref()
                && !names.insert(name.get().clone())
            {
                let message = format!("the freeze `{}` is declared twice", name.get());
                self.fault(name.span(), message, "give each freeze its own name".to_owned());
            }
            let found = self.freeze(freeze);
            let exception = freeze.get().exception.as_ref();
            let exception = exception.and_then(|name| self.exception(name, approvals));
            freezes.extend(match (found, exception) {
                (Some(freeze), Some(exception)) => Some(freeze.excepted_by(exception)),
                (found, _) => found,
            });
        }
        freezes
    }

    fn freeze(&mut self, raw: &At<RawFreeze>) -> Option<Freeze> {
        let span = raw.span();
        let RawFreeze { name, from, until, every, time_zone, exception: _ } = raw.get();
        let recurs = !every.is_empty() || self.dropped.has(span.start, "every");
        for (key, time) in [("from", from), ("until", until)] {
            if time.is_none() && !recurs {
                self.missing(&span, key, "2026-12-18T00:00:00Z");
            }
        }
        let name = self.word("freeze", &span, name.as_ref());
        let begin = from.as_ref().and_then(|time| self.time(time));
        let end = until.as_ref().and_then(|time| self.time(time));
        if let (Some(begin), Some(end)) = (begin, end)
            && end <= begin
        {
            let place = until.as_ref().map(At::span);
            let message = "`until` must be later than `from`".to_owned();
            self.fault(place, message, "swap the two, or correct the year".to_owned());
            return None;
        }
        if !recurs {
            if let Some(zone) = time_zone {
                let message = "`time_zone` means nothing without `every`".to_owned();
                let add = "delete it: `from` and `until` carry their offset".to_owned();
                self.fault(zone.span(), message, add);
            }
            return Freeze::new(name?, begin?, end?).ok();
        }
        if time_zone.is_none() {
            self.missing(&span, "time_zone", "\"Europe/Berlin\"");
        }
        let zone = time_zone.as_ref().and_then(|zone| self.zone(zone));
        let recurs = self.recurs(every, zone?)?;
        Freeze::recurring(name?, recurs, (begin, end)).ok()
    }

    fn recurs(
        &mut self,
        every: &[At<String>],
        (name, zone): (String, TimeZone),
    ) -> Option<Recurring> {
        if every.len() > EVERY_MAX {
            let message = format!("a freeze has at most {EVERY_MAX} rules");
            self.fault(every.last().map(At::span), message, None);
            return None;
        }
        let rules: Vec<_> = every.iter().map(|text| self.rule(text)).collect();
        let rules: Vec<Rule> = rules.into_iter().collect::<Option<_>>()?;
        let mut spans = Vec::new();
        for rule in rules {
            spans.extend(rule.spans(&zone));
        }
        let known = (moment(&zone, KNOWN_FROM)?, moment(&zone, KNOWN_UNTIL)?);
        let every = every.iter().map(|text| text.get().clone()).collect();
        Some(Recurring { every, zone: name, known, spans })
    }

    fn rule(&mut self, text: &At<String>) -> Option<Rule> {
        match Rule::parse(text.get()) {
            Ok(rule) => Some(rule),
            Err(message) => {
                self.fault(text.span(), message, EXAMPLE.to_owned());
                None
            }
        }
    }

    fn zone(&mut self, name: &At<String>) -> Option<(String, TimeZone)> {
        let text = name.get();
        // Names that mean another zone on another machine, or are no names.
        let plain = text == "UTC" || text.contains('/');
        if let Some(zone) = TimeZone::get(text).ok().filter(|_| plain) {
            return Some((text.clone(), zone));
        }
        let all: Vec<_> = jiff::tz::db().available().map(|name| name.to_string()).collect();
        let near = nearest(text, all.iter().map(String::as_str).filter(|name| name.contains('/')));
        let suggestion = near.map_or_else(
            || "use a name of the IANA such as `Europe/Berlin`, or `UTC`".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        self.fault(name.span(), format!("`{text}` is no time zone"), suggestion);
        None
    }

    /// The approval that excepts from a freeze: declared, and from at least two people.
    fn exception(&mut self, name: &At<String>, approvals: &Named<RawApproval>) -> Option<String> {
        let declared = approvals.iter().find(|(declared, _)| declared.get() == name.get());
        let count = declared.map(|(_, rule)| rule.get().count.as_ref().map_or(1, |at| *at.get()));
        let message = match count {
            None => format!("the approval `{}` is not declared", name.get()),
            Some(count) if count < 2 => {
                format!("the approval `{}` excepts from a freeze and needs one person", name.get())
            }
            Some(_) => return Some(name.get().clone()),
        };
        let add = format!("an exception has two approvers: `[approval.{}] count = 2`", name.get());
        self.fault(name.span(), message, add);
        None
    }

    fn time(&mut self, time: &At<RawTime>) -> Option<Timestamp> {
        let written = time.get().0.to_string();
        if let Ok(parsed) = written.parse::<jiff::Timestamp>() {
            return Some(Timestamp(parsed.as_millisecond()));
        }
        let message = format!("`{written}` is not one point in time");
        let suggestion = "write date, time and offset: 2026-12-18T00:00:00Z".to_owned();
        self.fault(time.span(), message, suggestion);
        None
    }
}

// === impl Rule ===

impl Rule {
    /// Reads `fri 16:00 - mon 08:00` or `daily 22:00 - 06:00`.
    fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<_> = text.split_ascii_whitespace().collect();
        let (day, from, end, until) = match words.as_slice() {
            ["daily", from, "-", until] => (None, from, None, until),
            [day, from, "-", end, until] => (Some(weekday(day)?), from, Some(weekday(end)?), until),
            _ => return Err(format!("`{text}` does not say when the freeze begins and ends")),
        };
        let (from, until) = (clock(from)?, clock(until)?);
        let days = match (day, end) {
            (Some(day), Some(end)) => day.until(end),
            _ => 0,
        };
        if days == 0 && from == until {
            return Err(format!("`{text}` ends when it begins"));
        }
        let again = if day.is_some() { 7 } else { 1 };
        let days = if days == 0 && until < from { again } else { days };
        Ok(Self { day, from, until, days })
    }

    /// When it is in force. A clock that is put back or forward makes a span longer, never shorter.
    fn spans(self, zone: &TimeZone) -> Vec<(Timestamp, Timestamp)> {
        // One that began before may still be in force at the beginning.
        let first = KNOWN_FROM.checked_sub(jiff::Span::new().days(8)).unwrap_or(KNOWN_FROM);
        let days = first.series(jiff::Span::new().days(1)).take_while(|day| *day < KNOWN_UNTIL);
        let begins = days.filter(|day| self.day.is_none_or(|wanted| day.weekday() == wanted));
        let each = begins.filter_map(|day| {
            let end = day.checked_add(jiff::Span::new().days(self.days)).ok()?;
            let from = zone.to_ambiguous_timestamp(day.to_datetime(self.from)).earlier().ok()?;
            let until = zone.to_ambiguous_timestamp(end.to_datetime(self.until)).later().ok()?;
            Some((Timestamp(from.as_millisecond()), Timestamp(until.as_millisecond())))
        });
        each.collect()
    }
}

fn weekday(text: &str) -> Result<Weekday, String> {
    let found = WEEKDAYS.iter().find(|(name, _)| text == *name);
    found.map(|(_, day)| *day).ok_or_else(|| {
        format!("`{text}` is no day of the week: mon, tue, wed, thu, fri, sat or sun")
    })
}

fn clock(text: &str) -> Result<Time, String> {
    let shape =
        |(at, byte): (usize, u8)| if at == 2 { byte == b':' } else { byte.is_ascii_digit() };
    let well_formed = text.len() == 5 && text.bytes().enumerate().all(shape);
    let parsed = text.parse::<Time>().ok().filter(|_| well_formed);
    parsed.ok_or_else(|| format!("`{text}` is no time of day"))
}

/// The first moment of a day.
fn moment(zone: &TimeZone, day: Date) -> Option<Timestamp> {
    let first = zone.to_ambiguous_timestamp(day.to_datetime(Time::midnight())).earlier().ok()?;
    Some(Timestamp(first.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use crate::config::check::check;
    use crate::config::fault::Colour;
    use expect_test::expect_file;
    use holdpoint_control::Freeze;
    use holdpoint_types::Timestamp;
    use std::path::Path;

    fn read(text: &str) -> (Option<crate::config::Config>, String) {
        let path = Path::new("/etc/hp/holdpoint.toml");
        let (config, report) = check("holdpoint.toml", path, text);
        (config, report.render(Colour::Never))
    }

    fn freeze(text: &str) -> Freeze {
        let (config, report) = read(&format!("[[freeze]]\nname = \"f\"\n{text}"));
        config.expect(&report).settings.parts().freezes[0].clone()
    }

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    }

    /// The span at or after `now`, in UTC.
    fn span(freeze: &Freeze, now: &str) -> String {
        let told = |at: Timestamp| jiff::Timestamp::from_millisecond(at.0).unwrap().to_string();
        let (from, until) = freeze.span(at(now)).unwrap();
        format!("{} {}", told(from), told(until))
    }

    #[test]
    fn a_freeze_recurs_in_its_time_zone_over_changes_of_the_clock() {
        let berlin = "every = [\"fri 16:00 - mon 08:00\"]\ntime_zone = \"Europe/Berlin\"";
        let weekends = freeze(berlin);
        for (now, expected) in [
            // Winter, the change to summer time (2026-03-29), summer, and the change back.
            ("2026-01-15T00:00:00Z", "2026-01-16T15:00:00Z 2026-01-19T07:00:00Z"),
            ("2026-03-28T00:00:00Z", "2026-03-27T15:00:00Z 2026-03-30T06:00:00Z"),
            ("2026-07-15T00:00:00Z", "2026-07-17T14:00:00Z 2026-07-20T06:00:00Z"),
            ("2026-10-24T00:00:00Z", "2026-10-23T14:00:00Z 2026-10-26T07:00:00Z"),
            ("2055-12-31T12:00:00Z", "2055-12-31T15:00:00Z 2056-01-03T07:00:00Z"),
        ] {
            assert_eq!(span(&weekends, now), expected, "{now}");
        }
        assert!(!weekends.covers(at("2026-07-17T13:59:59.999Z")));
        assert!(weekends.covers(at("2026-07-17T14:00:00Z")));
        assert!(!weekends.covers(at("2026-07-20T06:00:00Z")));
    }

    #[test]
    fn where_a_clock_is_changed_the_longer_freeze_counts() {
        // 02:30 does not exist on 2026-03-29, and comes twice on 2026-10-25.
        let zone = "time_zone = \"Europe/Berlin\"";
        let night = freeze(&format!("every = [\"daily 02:30 - 02:45\"]\n{zone}"));
        for (now, expected) in [
            ("2026-03-28T12:00:00Z", "2026-03-29T00:30:00Z 2026-03-29T01:45:00Z"),
            ("2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z 2026-10-25T01:45:00Z"),
            ("2026-10-25T12:00:00Z", "2026-10-26T01:30:00Z 2026-10-26T01:45:00Z"),
        ] {
            assert_eq!(span(&night, now), expected, "{now}");
        }
    }

    #[test]
    fn several_rules_and_bounds_make_one_freeze() {
        let freeze = freeze(
            "every = [\"sat 00:00 - mon 00:00\", \"daily 22:00 - 06:00\", \"wed 10:00 - wed 09:00\"]\n\
             time_zone = \"UTC\"\nfrom = 2026-06-01T00:00:00Z\nuntil = 2026-06-02T23:00:00Z",
        );
        for (now, expected) in [
            ("2026-01-01T00:00:00Z", "2026-06-01T00:00:00Z 2026-06-02T23:00:00Z"),
            ("2026-06-02T22:30:00Z", "2026-06-01T00:00:00Z 2026-06-02T23:00:00Z"),
        ] {
            assert_eq!(span(&freeze, now), expected, "{now}");
        }
        assert_eq!(freeze.span(at("2026-06-02T23:00:00Z")), None);
    }

    #[test]
    fn freezes_that_cannot_be_are_explained() {
        let many = vec!["\"mon 10:00 - mon 11:00\""; 51].join(", ");
        let text = format!(
            r#"
[approval.alone]
[approval.pair]
count = 2
[[freeze]]
name = "a"
every = ["fri 16:00 to mon 08:00", "fry 16:00 - mon 08:00", "fri 4pm - mon 08:00"]
time_zone = "Europe/Berlin"
[[freeze]]
name = "b"
every = ["fri 16:00 - fri 16:00", "daily 24:00 - 01:00", ""]
time_zone = "UTC"
[[freeze]]
name = "c"
every = ["fri 16:00 - mon 08:00"]
[[freeze]]
name = "d"
every = ["fri 16:00 - mon 08:00"]
time_zone = "Europe/Berlni"
exception = "par"
[[freeze]]
name = "e"
from = 2026-12-18T00:00:00Z
until = 2026-12-19T00:00:00Z
time_zone = "CET"
exception = "alone"
[[freeze]]
name = "f"
every = ["fri 16:00 - mon 08:00"]
time_zone = "CET"
from = 2026-12-19T00:00:00Z
until = 2026-12-18T00:00:00Z
[[freeze]]
name = "g"
every = []
[[freeze]]
name = "h"
time_zone = "UTC"
every = [{many}]
"#
        );
        let (config, report) = read(&text);
        assert!(config.is_none());
        expect_file!["snapshots/freezes.txt"].assert_eq(&report);
    }
}
