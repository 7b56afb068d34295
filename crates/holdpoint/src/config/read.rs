//! From text to raw structs, with every mistake and not only the first.
//!
//! serde stops at the first mistake. So the entry at fault is reported, taken out, and the rest is
//! read again, until nothing is at fault. Must not judge what values mean.

use super::fault::{Diagnostic, FAULTS_MAX, Severity, nearest};
use super::raw::RawConfig;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// What could be read, and what could not.
#[derive(Debug, Default)]
pub struct Reading {
    /// The file without the entries at fault.
    pub raw: RawConfig,
    /// What is wrong.
    pub faults: Vec<Diagnostic>,
    /// The entries that were taken out.
    pub dropped: Dropped,
    /// The lines, from 0, whose syntax is broken: what is read from them means nothing.
    pub broken_lines: BTreeSet<usize>,
}

/// Entries that were taken out, so that nobody complains that they are missing.
#[derive(Debug, Default)]
pub struct Dropped {
    entries: BTreeSet<(usize, String)>,
    unsure: Unsure,
}

/// Whether what is missing may just not have been readable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Unsure {
    #[default]
    No,
    Yes,
}

/// How a span is compared with the span of a mistake.
type Fits = fn(&Range<usize>, &Range<usize>) -> bool;

struct Explained {
    message: String,
    suggestion: Option<String>,
    meant: Option<String>,
}

// === impl Dropped ===

impl Dropped {
    /// True if `key` of the table that begins at `table` may have been taken out, or misspelt.
    pub fn has(&self, table: usize, key: &str) -> bool {
        self.unsure == Unsure::Yes || self.entries.contains(&(table, key.to_owned()))
    }
}

/// Reads a configuration; `file` is the name for diagnostics.
pub fn read(file: &str, text: &str) -> Reading {
    let (mut root, syntax) = DeTable::parse_recoverable(text);
    let mut reading = Reading::default();
    for error in syntax.iter().take(FAULTS_MAX) {
        reading.dropped.unsure = Unsure::Yes;
        reading.add(file, error.span(), Explained::plain(error.message()));
    }
    let spans = syntax.iter().filter_map(|error| error.span());
    reading.broken_lines = spans.map(|span| line_of(text, span.start)).collect();
    while reading.faults.len() < FAULTS_MAX {
        let error = match RawConfig::deserialize(toml::Deserializer::from(root.clone())) {
            Ok(raw) => {
                reading.raw = raw;
                return reading;
            }
            Err(error) => error,
        };
        let explained = explain(error.message());
        let taken = error.span().and_then(|span| take_out(&mut root, &span));
        let broken = error.span().is_some_and(|span| reading.is_broken(text, &span));
        let meant = explained.meant.clone();
        if !broken {
            reading.add(file, error.span(), explained);
        }
        let Some((table, key)) = taken else {
            // Nothing to take out, so the rest cannot be read; what is known must do.
            reading.dropped.unsure = Unsure::Yes;
            return reading;
        };
        reading.dropped.entries.extend(meant.map(|meant| (table, meant)));
        reading.dropped.entries.insert((table, key));
    }
    reading.dropped.unsure = Unsure::Yes;
    reading
}

// === impl Reading ===

impl Reading {
    /// True if the syntax is broken where this span begins.
    pub fn is_broken(&self, text: &str, span: &Range<usize>) -> bool {
        self.broken_lines.contains(&line_of(text, span.start))
    }

    fn add(&mut self, file: &str, span: Option<Range<usize>>, explained: Explained) {
        let fault = Diagnostic {
            severity: Severity::Fault,
            file: file.to_owned(),
            span,
            message: explained.message,
            suggestion: explained.suggestion,
        };
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }
}

// === impl Explained ===

impl Explained {
    fn plain(message: &str) -> Self {
        Self { message: message.to_owned(), suggestion: None, meant: None }
    }
}

/// Takes out the innermost entry at `span`; says in which table it stood, and its key.
fn take_out(root: &mut Spanned<DeTable<'_>>, span: &Range<usize>) -> Option<(usize, String)> {
    let exact: Fits = |place, span| place == span;
    let around: Fits = |place, span| place.start <= span.start && span.end <= place.end;
    let start = root.span().start;
    let table = root.get_mut();
    take_from_table(table, start, (span, exact))
        .or_else(|| take_from_table(table, start, (span, around)))
}

fn take_from_table(
    table: &mut DeTable<'_>,
    start: usize,
    wanted: (&Range<usize>, Fits),
) -> Option<(usize, String)> {
    let (span, fits) = wanted;
    let mut found = None;
    for (key, value) in table.iter_mut() {
        let name = key.get_ref().to_string();
        if let Some(inner) = take_from_value(value, &name, (start, span, fits)) {
            return Some(inner);
        }
        if fits(&key.span(), span) || fits(&value.span(), span) {
            found = Some(name);
            break;
        }
    }
    let name = found?;
    table.remove(name.as_str());
    Some((start, name))
}

fn take_from_value(
    value: &mut Spanned<DeValue<'_>>,
    name: &str,
    wanted: (usize, &Range<usize>, Fits),
) -> Option<(usize, String)> {
    let (table_start, span, fits) = wanted;
    let start = value.span().start;
    match value.get_mut() {
        DeValue::Table(table) => take_from_table(table, start, (span, fits)),
        DeValue::Array(array) => {
            for item in array.iter_mut() {
                if let Some(inner) = take_from_value(item, name, wanted) {
                    return Some(inner);
                }
            }
            let at = array.iter().position(|item| fits(&item.span(), span))?;
            let items = std::mem::replace(array, DeArray::new()).into_iter().enumerate();
            *array = items.filter(|(place, _)| *place != at).map(|(_, item)| item).collect();
            Some((table_start, name.to_owned()))
        }
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => None,
    }
}

/// Puts serde's words into ours, and finds what was probably meant.
fn explain(message: &str) -> Explained {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let (found, allowed) = quoted.split_first().map_or(("", &[][..]), |(f, rest)| (*f, rest));
    let choose = || {
        let near = nearest(found, allowed.iter().copied());
        let suggestion = near.map_or_else(
            || format!("use one of {}", list(allowed)),
            |near| format!("did you mean `{near}`?"),
        );
        (near.map(str::to_owned), Some(suggestion))
    };
    if message.starts_with("unknown field") {
        let (meant, suggestion) = choose();
        return Explained { message: format!("unknown key `{found}`"), suggestion, meant };
    }
    if message.starts_with("unknown variant") {
        let (meant, suggestion) = choose();
        return Explained { message: format!("`{found}` is not possible here"), suggestion, meant };
    }
    if message.starts_with("wanted string or table") {
        return Explained::plain("expected a string");
    }
    let Some((found, expected)) = mismatch(message) else {
        return Explained::plain(message);
    };
    let suggestion = match (found, expected) {
        ("a table", "an array") => Some("write the header with double brackets: `[[…]]`"),
        ("an array", "a table") => Some("write the header with single brackets: `[…]`"),
        (_, "a time") => Some("write it without quotes, with its offset: 2026-12-18T00:00:00Z"),
        _ => None,
    };
    Explained {
        message: format!("expected {expected}, found {found}"),
        suggestion: suggestion.map(str::to_owned),
        meant: None,
    }
}

/// What was found and what was expected, from `invalid type: …, expected …`.
fn mismatch(message: &str) -> Option<(&str, &str)> {
    let rest = message.strip_prefix("invalid type: ");
    let rest = rest.or_else(|| message.strip_prefix("invalid value: "))?;
    let (found, expected) = rest.rsplit_once(", expected ")?;
    let found = match found {
        "map" => "a table",
        "sequence" => "an array",
        other => other,
    };
    let expected = match expected {
        "a sequence" => "an array",
        "a map" => "a table",
        "a TOML datetime" => "a time",
        "u64" => "a whole number that is not negative",
        struct_name if struct_name.starts_with("struct ") => "a table",
        other => other,
    };
    Some((found, expected))
}

fn list(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::read;
    use proptest::prelude::*;

    fn messages(text: &str) -> Vec<String> {
        let faults = read("f", text).faults;
        let say = |fault: &super::Diagnostic| {
            let help = fault.suggestion.as_deref().unwrap_or("-");
            format!("{} | {help}", fault.message)
        };
        faults.iter().map(say).collect()
    }

    #[test]
    fn every_mistake_is_explained() {
        for (text, expected) in [
            ("stor = 1", "unknown key `stor` | did you mean `store`?"),
            ("store = 1", "expected a table, found integer `1` | -"),
            ("[store]\npath = 1", "expected a string, found integer `1` | -"),
            (
                "[environment]\nname = 'x'",
                "expected an array, found a table | write the header with double brackets: `[[…]]`",
            ),
            ("[agent.a]\nmode = 'Auto'", "`Auto` is not possible here | did you mean `auto`?"),
            ("[agent.a]\nmode = 5", "expected a string | -"),
            (
                "[limits]\nstop_grace_ms = -1",
                "expected a whole number that is not negative, found integer `-1` | -",
            ),
            (
                "[[freeze]]\nfrom = 'now'",
                "expected a time, found string \"now\" | write it without quotes, with its offset: \
                 2026-12-18T00:00:00Z",
            ),
            (
                "[server.a.env]\nA = 5",
                "expected a string, `{ from_env = \"NAME\" }` or `{ from_file = \"PATH\" }`, found \
                 integer `5` | -",
            ),
            ("[server.a.env]\nA = { from = 'x' }", "unknown key `from` | did you mean `from_env`?"),
        ] {
            assert_eq!(messages(text), [expected], "{text}");
        }
    }

    #[test]
    fn the_good_entries_survive_the_bad_ones() {
        let reading = read("f", "x = 1\n[agent.a]\nowner = 't'\nmode = 'no'\n[team.t]\ny = 2\n");
        assert_eq!(reading.faults.len(), 3);
        let owner = reading.raw.agent.values().next().and_then(|agent| agent.get().owner.as_ref());
        assert_eq!(owner.map(|owner| owner.get().as_str()), Some("t"));
        assert_eq!(reading.raw.team.len(), 1);
    }

    #[test]
    fn broken_syntax_does_not_hide_the_rest() {
        let found = messages("[store]\npath = \n[agent.a]\nownr = 't'\n");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.last().is_some_and(|last| last.contains("`ownr`")), "{found:?}");
    }

    #[test]
    fn the_number_of_faults_is_bounded() {
        let text: String = (0..5000).map(|number| format!("key{number} = 1\n")).collect();
        assert_eq!(messages(&text).len(), super::FAULTS_MAX);
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in any::<String>()) {
            read("f", &text);
        }

        #[test]
        fn reading_near_misses_never_panics(
            lines in prop::collection::vec(prop::sample::select(vec![
                "[agent.a]", "[[agent.a.grant]]", "[server.s.tool.t]", "[[freeze]]", "[store]",
                "owner = 5", "path = []", "class = {}", "grants = [1, {x = 2}, []]",
                "from = 1979-05-27",
                "env = { A = [], B = { from_env = 1 } }", "[agent]", "a.b.c = 1", "tools = [[[]]]",
                "[[store]]", "\"", "= 1", "resource = '''",
            ]), 0..12),
        ) {
            let reading = read("f", &lines.join("\n"));
            prop_assert!(reading.faults.len() <= super::FAULTS_MAX);
        }
    }
}
