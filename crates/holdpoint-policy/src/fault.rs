//! Faults of policy files: where, what, and what to do. Must not decide what counts as a fault.

use miette::Diagnostic;
use std::fmt::Display;

/// Longest message or suggestion, in characters; Cedar quotes what it was given.
const TEXT_CHARS_MAX: usize = 600;

/// One fault in one policy file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct PolicyFault {
    /// The file, as its source names it.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong, in one line.
    pub message: String,
    /// What would repair it.
    pub suggestion: Option<String>,
}

/// A place in a policy file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) file: &'a str,
    /// The whole text of the file.
    pub(crate) text: &'a str,
    /// Where in the text, in bytes.
    pub(crate) offset: usize,
}

// === impl PolicyFault ===

impl PolicyFault {
    pub(crate) fn new(place: Place<'_>, message: impl Display, suggestion: Option<String>) -> Self {
        let (line, column) = place.line_and_column();
        let message = one_line(&message);
        let suggestion = suggestion.map(|text| one_line(&text));
        Self { file: place.file.to_owned(), line, column, message, suggestion }
    }

    /// Translates what Cedar says about the text that begins at `place`.
    pub(crate) fn from_cedar(place: Place<'_>, said: &dyn Diagnostic) -> Self {
        let label = said.labels().and_then(|mut labels| labels.next());
        let within = label.as_ref().map_or(0, miette::LabeledSpan::offset);
        let help = said.help().map(|help| help.to_string());
        let hint = || label.as_ref().and_then(|label| label.label()).map(str::to_owned);
        let place = Place { offset: place.offset.saturating_add(within), ..place };
        Self::new(place, said, help.or_else(hint))
    }
}

// === impl Place ===

impl Place<'_> {
    /// Line and column of the place, both from 1.
    pub(crate) fn line_and_column(&self) -> (usize, usize) {
        let ends = |offset: &usize| self.text.is_char_boundary(*offset);
        let offset = (0..=self.offset.min(self.text.len())).rev().find(ends).unwrap_or(0);
        let before = self.text.get(..offset).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |tail| tail.chars().count()) + 1;
        (line, column)
    }
}

/// The text in one line, without what could forge a report: control characters become spaces, and
/// characters that change the direction of writing are spelt out.
fn one_line(text: &dyn Display) -> String {
    let text: String = text.to_string().chars().take(TEXT_CHARS_MAX).collect();
    text.chars().fold(String::new(), |mut line, char| {
        match char {
            control if control.is_control() => line.push(' '),
            '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => line.extend(char.escape_unicode()),
            plain => line.push(plain),
        }
        line
    })
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let text = "ab\nöx\n";
        let at = |offset| Place { file: "f", text, offset }.line_and_column();
        assert_eq!([at(0), at(2), at(3), at(5), at(7)], [(1, 1), (1, 3), (2, 1), (2, 2), (3, 1)]);
        assert_eq!(at(4), (2, 1), "inside a character counts as its beginning");
        assert_eq!(at(usize::MAX), (3, 1));
    }
}
