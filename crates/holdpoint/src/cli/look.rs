//! How values look to a person: escaped, shortened, in local time, coloured if that is wanted.
//!
//! INVARIANT: text that came from an agent or a server reaches the terminal only through
//! [`escaped`], [`json_lines`] or what builds on them. Must not know what it shows.

pub use holdpoint_server::shown::{shortened, visible as escaped};

use crate::config::Colour;
use anstyle::{AnsiColor, Style};
use holdpoint_server::shown::is_hidden;
use holdpoint_types::{EffectClass, Ruling, Timestamp};
use jiff::tz::TimeZone;
use std::fmt::Write as _;
use std::io::IsTerminal as _;

/// Longest value in a line of text, in characters; `--format json` shows it whole.
pub const SHORT_CHARS_MAX: usize = 160;

/// For whom something is shown: when, where, and whether with colours.
#[derive(Clone, Debug)]
pub struct Look {
    /// The current time, for ages.
    pub now: Timestamp,
    /// The time zone of the reader.
    pub zone: TimeZone,
    /// Whether colours may be used.
    pub colour: Colour,
}

/// How serious something is, as a colour says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Nothing special.
    Plain,
    /// Of less interest.
    Dim,
    /// A title.
    Strong,
    /// It goes well.
    Good,
    /// Worth a look.
    Careful,
    /// It does not go.
    Bad,
}

/// Rows whose columns are aligned. The last column is not padded.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<(Tone, String)>>,
}

// === impl Look ===

impl Look {
    /// For the person at standard output. Colours only on a terminal, and never with `NO_COLOR`.
    pub fn of_terminal() -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let coloured = std::io::stdout().is_terminal() && !set("NO_COLOR") && !dumb;
        let colour = if coloured { Colour::Always } else { Colour::Never };
        let now = Timestamp(jiff::Timestamp::now().as_millisecond());
        Self { now, zone: TimeZone::system(), colour }
    }

    /// The same without colours.
    pub fn plain() -> Self {
        Self { colour: Colour::Never, ..Self::of_terminal() }
    }

    /// A time, as RFC 3339 in the reader's zone.
    pub fn time(&self, at: Timestamp) -> String {
        let Ok(time) = jiff::Timestamp::from_millisecond(at.0) else {
            return format!("{} ms since 1970", at.0);
        };
        time.to_zoned_datetime(self.zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string()
    }

    /// How long ago a time was.
    pub fn age(&self, at: Timestamp) -> String {
        let ms = self.now.0.saturating_sub(at.0);
        match ms {
            ..0 => format!("in {}", duration(ms.unsigned_abs())),
            0..1000 => "just now".to_owned(),
            1000.. => format!("{} ago", duration(ms.unsigned_abs())),
        }
    }

    /// A time with its age.
    pub fn time_and_age(&self, at: Timestamp) -> String {
        format!("{} ({})", self.time(at), self.age(at))
    }

    /// `text` in the colour of `tone`.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        let style = tone.style();
        if self.colour == Colour::Never || style.is_plain() {
            return text.to_owned();
        }
        format!("{style}{text}{style:#}")
    }
}

// === impl Tone ===

impl Tone {
    /// The tone of a ruling.
    pub fn of_ruling(ruling: Ruling) -> Self {
        match ruling {
            Ruling::Permit => Self::Good,
            Ruling::PlanOnly | Ruling::Hold => Self::Careful,
            Ruling::Deny | Ruling::Halt => Self::Bad,
        }
    }

    /// The tone of an effect class.
    pub fn of_class(class: EffectClass) -> Self {
        match class {
            EffectClass::Read => Self::Good,
            EffectClass::Write => Self::Careful,
            EffectClass::Destructive => Self::Bad,
        }
    }

    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Dim => Style::new().dimmed(),
            Self::Strong => Style::new().bold(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Careful => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
        }
    }
}

// === impl Table ===

impl Table {
    /// Adds a row. Cells are escaped by whoever makes them.
    pub fn push(&mut self, row: Vec<(Tone, String)>) {
        self.rows.push(row);
    }

    /// Adds a row of dim titles.
    pub fn titles(&mut self, titles: &[&str]) {
        self.push(titles.iter().map(|title| (Tone::Dim, (*title).to_owned())).collect());
    }

    /// The rows, each on its line after `indent`.
    pub fn render(&self, indent: &str, look: &Look) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width_of = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|(_, text)| text.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width_of).collect();
        self.rows.iter().map(|row| render_row(row, &widths, indent, look)).collect()
    }
}

fn render_row(row: &[(Tone, String)], widths: &[usize], indent: &str, look: &Look) -> String {
    let mut line = indent.to_owned();
    let last = row.len().saturating_sub(1);
    for (column, ((tone, text), width)) in row.iter().zip(widths).enumerate() {
        line.push_str(&look.paint(*tone, text));
        if column < last {
            let missing = width.saturating_sub(text.chars().count());
            line.push_str(&" ".repeat(missing.saturating_add(2)));
        }
    }
    let end = line.trim_end().len();
    line.truncate(end);
    line.push('\n');
    line
}

/// A JSON value on one line, shortened.
pub fn short_json(value: &serde_json::Value) -> String {
    shortened(&value.to_string(), SHORT_CHARS_MAX)
}

/// JSON over several lines, with a line's end. Means the same, but hides and obeys nothing.
pub fn json_lines(value: &serde_json::Value) -> String {
    visible_json(&format!("{value:#}\n"))
}

/// JSON on one line, with a line's end. Means the same, but hides and obeys nothing.
pub fn json_line(value: &serde_json::Value) -> String {
    visible_json(&format!("{value}\n"))
}

/// Writes what JSON lets stand in strings, but a terminal would obey or hide, as JSON escapes.
fn visible_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for found in json.chars() {
        if found == '\n' || !is_hidden(found) {
            shown.push(found);
            continue;
        }
        for unit in found.encode_utf16(&mut [0; 2]) {
            // Writing into a string cannot fail.
            let _ = write!(shown, "\\u{unit:04x}");
        }
    }
    shown
}

/// `1 record`, `2 records`.
pub fn count(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// A length of time in its largest useful unit.
pub fn duration(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{} s", ms / 1000),
        60_000..3_600_000 => format!("{} min", ms / 60_000),
        3_600_000..172_800_000 => format!("{} h", ms / 3_600_000),
        172_800_000.. => format!("{} d", ms / 86_400_000),
    }
}

/// A number of bytes in its largest useful unit.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = bytes.saturating_mul(10) / 1024;
    let mut units = UNITS.iter().peekable();
    while let Some(unit) = units.next() {
        if tenths < 10_240 || units.peek().is_none() {
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
        tenths /= 1024;
    }
    format!("{bytes} B")
}

#[cfg(test)]
pub mod tests {
    use super::{Look, Table, Tone, bytes, duration, escaped, json_lines, shortened};
    use crate::config::Colour;
    use expect_test::expect;
    use holdpoint_types::Timestamp;
    use jiff::tz::TimeZone;
    use proptest::prelude::*;

    /// A look without colours at a fixed time and place.
    pub fn look() -> Look {
        let now = Timestamp(1_753_000_010_000);
        Look { now, zone: TimeZone::UTC, colour: Colour::Never }
    }

    #[test]
    fn times_and_ages() {
        let look = look();
        assert_eq!(look.time(Timestamp(1_753_000_000_123)), "2025-07-20T08:26:40.123+00:00");
        assert_eq!(look.time(Timestamp(i64::MAX)), "9223372036854775807 ms since 1970");
        let ages = [-5_000, 0, 3_000, 61_000, 7_200_000, 300_000_000_000];
        let ages = ages.map(|ms| look.age(Timestamp(look.now.0 - ms)));
        expect![[r#"
            [
                "in 5 s",
                "just now",
                "3 s ago",
                "1 min ago",
                "2 h ago",
                "3472 d ago",
            ]
        "#]]
        .assert_debug_eq(&ages);
        assert_eq!(look.age(Timestamp(i64::MIN)), format!("{} ago", duration(i64::MAX as u64)));
    }

    #[test]
    fn sizes() {
        let sizes = [0, 1023, 1024, 1536, 1 << 20, 5 << 30, u64::MAX].map(bytes);
        expect![[r#"
            [
                "0 B",
                "1023 B",
                "1.0 KiB",
                "1.5 KiB",
                "1.0 MiB",
                "5.0 GiB",
                "1677721.5 TiB",
            ]
        "#]]
        .assert_debug_eq(&sizes);
    }

    #[test]
    fn hostile_text_is_shown_and_not_obeyed() {
        let text = "a\u{1b}[2J\r\nb\u{202e}c\u{9b}31m\u{e0041}\u{7f}ü漢";
        let shown = r"a\u{1b}[2J\r\nb\u{202e}c\u{9b}31m\u{e0041}\u{7f}ü漢";
        assert_eq!(escaped(text), shown);
        assert_eq!(shortened("abcdef", 3), "abc… (3 more characters)");
        assert_eq!(shortened("abc", 3), "abc");
    }

    #[test]
    fn columns_are_aligned_and_coloured_only_on_request() {
        let mut table = Table::default();
        table.titles(&["tool", "class"]);
        table.push(vec![(Tone::Plain, "fs__wüst".to_owned()), (Tone::Bad, "deny".to_owned())]);
        assert_eq!(table.render("  ", &look()), "  tool      class\n  fs__wüst  deny\n");
        let coloured = Look { colour: Colour::Always, ..look() };
        assert!(table.render("", &coloured).contains("\u{1b}[31m"), "no colour");
    }

    proptest! {
        #[test]
        fn nothing_escapes_the_escaping(text in any::<String>(), max in 0..50usize) {
            let plain = |shown: &str| !shown.chars().any(super::is_hidden);
            prop_assert!(plain(&escaped(&text)));
            prop_assert!(plain(&shortened(&text, max)));
            let value = serde_json::json!({ "text": text });
            let json = json_lines(&value);
            prop_assert!(json.lines().all(plain));
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), value);
        }
    }
}
