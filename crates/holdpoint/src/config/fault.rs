//! What is wrong with a configuration: where, what, and what to write instead; and how that looks
//! on a terminal and in JSON. Must not find faults itself.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;

/// Most faults that are reported at once.
pub const FAULTS_MAX: usize = 100;

/// How bad a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing starts with it.
    Fault,
    /// It works, and is probably not what was meant.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file, as its reader named it.
    pub file: String,
    /// Where in the file, in bytes; absent if it concerns the file as a whole.
    pub span: Option<Range<usize>>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub suggestion: Option<String>,
}

/// Diagnostics together with the texts that they point into.
#[derive(Clone, Debug, Default)]
pub struct Report {
    texts: BTreeMap<String, String>,
    diagnostics: Vec<Diagnostic>,
}

/// Whether the text may carry colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Plain text.
    Never,
    /// ANSI colours.
    Always,
}

// === impl Severity ===

impl Severity {
    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fault => "fault",
            Self::Warning => "warning",
        }
    }
}

// === impl Report ===

impl Report {
    /// Makes the text of `file` known, so that diagnostics can show it.
    pub fn add_text(&mut self, file: impl Into<String>, text: impl Into<String>) {
        self.texts.insert(file.into(), text.into());
    }

    /// Adds a warning about a whole file.
    pub fn warn(&mut self, file: &Path, message: String, suggestion: &str) {
        self.push(Diagnostic {
            severity: Severity::Warning,
            file: file.display().to_string(),
            span: None,
            message,
            suggestion: Some(suggestion.to_owned()),
        });
    }

    /// Adds a diagnostic.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// Adds everything that another report says.
    pub fn append(&mut self, other: Self) {
        self.texts.extend(other.texts);
        self.diagnostics.extend(other.diagnostics);
    }

    /// Every diagnostic, in the order of files and lines.
    pub fn diagnostics(&self) -> Vec<&Diagnostic> {
        let mut sorted: Vec<_> = self.diagnostics.iter().collect();
        let start = |found: &Diagnostic| found.span.as_ref().map(|span| span.start);
        sorted.sort_by(|a, b| (&a.file, start(a)).cmp(&(&b.file, start(b))));
        sorted
    }

    /// True if nothing may start.
    pub fn has_faults(&self) -> bool {
        self.diagnostics.iter().any(|found| found.severity == Severity::Fault)
    }

    /// How many diagnostics have this severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.diagnostics.iter().filter(|found| found.severity == severity).count()
    }

    /// Line and column of a diagnostic, both from 1; columns count characters.
    pub fn place(&self, diagnostic: &Diagnostic) -> Option<(usize, usize)> {
        let text = self.texts.get(&diagnostic.file)?;
        let start = floor_boundary(text, diagnostic.span.as_ref()?.start);
        let before = text.get(..start)?;
        let line_start = before.rfind('\n').map_or(0, |at| at.saturating_add(1));
        let column = before.get(line_start..)?.chars().count().saturating_add(1);
        Some((before.matches('\n').count().saturating_add(1), column))
    }

    /// Everything for a terminal, ending with a line that counts.
    pub fn render(&self, colour: Colour) -> String {
        let mut text = String::new();
        for diagnostic in self.diagnostics() {
            text.push_str(&self.render_one(diagnostic, colour));
            text.push_str("\n\n");
        }
        if !self.diagnostics.is_empty() {
            let faults = count_of(self.count(Severity::Fault), "fault");
            let warnings = count_of(self.count(Severity::Warning), "warning");
            // Writing into a string cannot fail.
            let _ = writeln!(text, "{faults}, {warnings}");
        }
        // Quoted lines of the file have no other escapes left than ours, but all that lies beyond
        // ASCII; our own escapes hold nothing but ASCII.
        text.chars().map(|shown| if shown.is_ascii() { shown } else { visible(shown) }).collect()
    }

    /// Everything for programs.
    pub fn to_json(&self) -> Vec<Value> {
        let one = |found: &Diagnostic| {
            let (line, column) = self.place(found).unzip();
            json!({
                "severity": found.severity.as_str(),
                "file": found.file,
                "line": line,
                "column": column,
                "message": found.message,
                "suggestion": found.suggestion,
            })
        };
        self.diagnostics().into_iter().map(one).collect()
    }

    fn render_one(&self, diagnostic: &Diagnostic, colour: Colour) -> String {
        let level = match diagnostic.severity {
            Severity::Fault => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group =
            level.primary_title(printable(&diagnostic.message)).elements(self.snippet(diagnostic));
        if let Some(suggestion) = &diagnostic.suggestion {
            group = group.element(Level::HELP.message(printable(suggestion)));
        }
        let renderer = match colour {
            Colour::Never => Renderer::plain(),
            Colour::Always => Renderer::styled(),
        };
        let rendered = renderer.decor_style(DecorStyle::Ascii).render(&[group]);
        if diagnostic.span.is_some() && self.texts.contains_key(&diagnostic.file) {
            return rendered;
        }
        format!("{rendered}\n --> {}", printable(&diagnostic.file))
    }

    fn snippet<'a>(
        &'a self,
        diagnostic: &'a Diagnostic,
    ) -> Option<Snippet<'a, annotate_snippets::Annotation<'a>>> {
        let text = self.texts.get(&diagnostic.file)?;
        let span = diagnostic.span.as_ref()?;
        let start = floor_boundary(text, span.start);
        let end = floor_boundary(text, span.end).max(start);
        let annotation = AnnotationKind::Primary.span(start..end);
        Some(Snippet::source(text).path(diagnostic.file.as_str()).annotation(annotation))
    }
}

/// The byte range of a position that is given as line and column, both from 1.
pub fn span_at(text: &str, line: usize, column: usize) -> Option<Range<usize>> {
    let mut start: usize = 0;
    for _ in 1..line {
        let rest = text.get(start..)?;
        start = start.saturating_add(rest.find('\n')?.saturating_add(1));
    }
    let rest = text.get(start..)?;
    let rest = rest.split('\n').next().unwrap_or(rest);
    let before: usize = rest.chars().take(column.saturating_sub(1)).map(char::len_utf8).sum();
    let at = start.saturating_add(before);
    let width = rest.get(before..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
    Some(at..at.saturating_add(width))
}

/// The candidate that `text` was probably meant to be.
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = candidates.into_iter().map(|candidate| {
        let score = strsim::jaro_winkler(&text.to_lowercase(), &candidate.to_lowercase());
        (score, candidate)
    });
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    if best.0 >= 0.8 { Some(best.1) } else { None }
}

/// The text without characters that could move the cursor or hide what stands there.
pub fn printable(text: &str) -> String {
    text.chars().map(visible).collect()
}

fn visible(found: char) -> char {
    let hidden = found.is_control()
        || matches!(found, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}' | '\u{feff}');
    if hidden { '\u{fffd}' } else { found }
}

/// The same, line by line.
pub fn printable_lines(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", printable(line))).collect()
}

fn floor_boundary(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at.min(text.len()))
}

fn count_of(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::{Colour, Diagnostic, Report, Severity, nearest, printable, span_at};
    use expect_test::expect;
    use proptest::prelude::*;

    fn report(text: &str, span: std::ops::Range<usize>) -> Report {
        let mut report = Report::default();
        report.add_text("f.toml", text);
        report.push(Diagnostic {
            severity: Severity::Fault,
            file: "f.toml".to_owned(),
            span: Some(span),
            message: "wrong\u{1b}[2J".to_owned(),
            suggestion: Some("did you mean `owner`?".to_owned()),
        });
        report
    }

    #[test]
    fn a_quoted_line_moves_no_cursor() {
        for colour in [Colour::Never, Colour::Always] {
            let shown = report("a = \u{9c}\u{202e}\u{85}é\n", 4..6).render(colour);
            assert!(!shown.contains(['\u{9c}', '\u{202e}', '\u{85}']), "{shown:?}");
            assert!(shown.contains('é'));
        }
    }

    #[test]
    fn a_report_shows_the_place() {
        let report = report("a = 1\nünr = 2\n", 6..10);
        expect![[r#"
            error: wrong�[2J
             --> f.toml:2:1
              |
            2 | ünr = 2
              | ^^^
              |
              = help: did you mean `owner`?

            1 fault, 0 warnings
        "#]]
        .assert_eq(&report.render(Colour::Never));
        let place = report.diagnostics().first().and_then(|found| report.place(found));
        assert_eq!(place, Some((2, 1)));
    }

    #[test]
    fn a_position_finds_its_bytes() {
        let text = "ab\nüc\n";
        assert_eq!(span_at(text, 1, 2), Some(1..2));
        assert_eq!(span_at(text, 2, 2), Some(5..6));
        assert_eq!(span_at(text, 2, 9), Some(6..6));
        assert_eq!(span_at(text, 9, 1), None);
        assert_eq!(span_at(text, 0, 0), Some(0..1));
    }

    #[test]
    fn a_near_miss_is_recognised_and_a_far_one_is_not() {
        assert_eq!(nearest("ownr", ["owner", "mode"]), Some("owner"));
        assert_eq!(nearest("Platfrom", ["platform", "data"]), Some("platform"));
        assert_eq!(nearest("zzz", ["owner", "mode"]), None);
        assert_eq!(nearest("x", []), None);
    }

    #[test]
    fn hidden_characters_are_made_visible() {
        assert_eq!(printable("a\u{202e}b\nc"), "a\u{fffd}b\u{fffd}c");
    }

    proptest! {
        #[test]
        fn rendering_never_panics(text in any::<String>(), start in 0..40usize, len in 0..40usize) {
            let report = report(&text, start..start + len);
            report.render(Colour::Always);
            report.to_json();
        }
    }
}
