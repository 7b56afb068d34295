//! Which change freezes are in force, and which comes next. Must not decide what a freeze means.

use crate::cli::look::{Look, Table, Tone, escaped};
use holdpoint_control::{Freeze, Settings};
use holdpoint_types::Timestamp;
use serde_json::{Value, json};

/// The freezes that are in force or to come, the first to begin first.
fn known(settings: &Settings, now: Timestamp) -> Vec<(&Freeze, Timestamp, Timestamp)> {
    let freezes = settings.parts().freezes.iter();
    let spans = freezes.filter_map(|freeze| {
        let (from, until) = freeze.span(now)?;
        Some((freeze, from, until))
    });
    let mut spans: Vec<_> = spans.collect();
    spans.sort_by_key(|(freeze, from, until)| (*from, *until, freeze.name()));
    spans
}

/// For programs: each that is in force or to come, with its span.
pub fn to_json(settings: &Settings, now: Timestamp) -> Value {
    let each = known(settings, now).into_iter().map(|(freeze, from, until)| {
        json!({
            "name": freeze.name(),
            "in_force": freeze.covers(now),
            "from_ms": from.0,
            "until_ms": until.0,
            "exception": freeze.exception(),
        })
    });
    each.collect()
}

/// For people: those in force, and the next one.
pub fn render(settings: &Settings, look: &Look) -> String {
    let mut table = Table::default();
    let spans = known(settings, look.now);
    let (now, next): (Vec<_>, Vec<_>) =
        spans.into_iter().partition(|(freeze, ..)| freeze.covers(look.now));
    for (freeze, _, until) in now {
        let exception = freeze.exception();
        let exception = exception.map(|name| format!("excepted by the approval {name}"));
        table.push(vec![
            (Tone::Careful, format!("freeze {}", escaped(freeze.name()))),
            (Tone::Careful, format!("in force until {}", time(until, look))),
            (Tone::Dim, exception.unwrap_or_default()),
        ]);
    }
    if let Some((freeze, from, _)) = next.first() {
        table.push(vec![
            (Tone::Plain, format!("freeze {}", escaped(freeze.name()))),
            (Tone::Plain, format!("next, from {}", time(*from, look))),
        ]);
    }
    table.render("", look)
}

/// A time that may be beyond all that is known.
fn time(at: Timestamp, look: &Look) -> String {
    match at {
        Timestamp(i64::MAX) => "a later version knows more".to_owned(),
        at => look.time_and_age(at),
    }
}

#[cfg(test)]
mod tests {
    use super::{render, to_json};
    use crate::cli::look::tests::look;
    use expect_test::expect;
    use holdpoint_control::{Freeze, Settings, SettingsParts};
    use holdpoint_types::Timestamp;
    use serde_json::json;

    fn freeze(name: &str, from: i64, until: i64) -> Freeze {
        let now = look().now.0;
        Freeze::new(name.to_owned(), Timestamp(now + from), Timestamp(now + until)).unwrap()
    }

    fn settings(freezes: Vec<Freeze>) -> Settings {
        Settings::new(SettingsParts { freezes, ..SettingsParts::default() }).unwrap()
    }

    #[test]
    fn a_status_shows_freezes_in_force_and_the_next() {
        let all = vec![
            freeze("later", 7_200_000, 9_000_000),
            freeze("over", -7_200_000, -3_600_000),
            freeze("now", -3_600_000, 3_600_000).excepted_by("pair".to_owned()),
            freeze("next", 3_600_000, 9_000_000),
        ];
        let all = settings(all);
        expect![[r#"
            freeze now   in force until 2025-07-20T09:26:50.000+00:00 (in 1 h)  excepted by the approval pair
            freeze next  next, from 2025-07-20T09:26:50.000+00:00 (in 1 h)
        "#]].assert_eq(&render(&all, &look()));
        let told = to_json(&all, look().now);
        let names: Vec<_> = told.as_array().unwrap().iter().map(|one| &one["name"]).collect();
        assert_eq!(names, ["now", "next", "later"]);
        assert_eq!((&told[0]["in_force"], &told[0]["exception"]), (&json!(true), &json!("pair")));
        assert_eq!(render(&settings(vec![]), &look()), "");
    }
}
