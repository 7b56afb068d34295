//! Splits a policy file into its statements, so that one mistake does not hide the others.
//!
//! Must never leave a byte out: each belongs to a statement or to the rest, and Cedar parses both,
//! so a disagreement with Cedar's own lexer is a fault and never a lost rule.

/// Deepest accepted nesting of brackets; Cedar's parser recurses.
pub(crate) const DEPTH_MAX: usize = 64;
/// Most operators of one statement. Chains nest as deep as they are long, and Cedar gives up on an
/// expression that is deeper than the stack of the thread that happens to evaluate it.
pub(crate) const OPERATORS_MAX: usize = 200;
/// Longest accepted statement, in bytes.
pub(crate) const STATEMENT_BYTES_MAX: usize = 64 << 10;

/// One statement of a file, with the white space and comments before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Statement<'a> {
    /// The text up to and with the semicolon, or up to the end of the file.
    pub(crate) text: &'a str,
    /// Where that text begins in the file, in bytes.
    pub(crate) start: usize,
    /// Where its first word begins in the file, in bytes; none if there is no word in it.
    pub(crate) head: Option<usize>,
    /// How deep its brackets are nested.
    pub(crate) depth: usize,
    /// At least how many operators and conditionals it has.
    pub(crate) operators: usize,
}

/// Where in the grammar of tokens the scan stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scan {
    Code,
    Slash,
    Comment,
    Text,
    Escape,
}

/// What the scan knows about the statement that it is in.
struct Open {
    start: usize,
    head: Option<usize>,
    depth: usize,
    deepest: usize,
    operators: usize,
    last: u8,
}

// === impl Statement ===

impl<'a> Statement<'a> {
    /// The statement without what stands before its first word.
    pub(crate) fn body(&self) -> &'a str {
        let skipped = self.head.map_or(0, |head| head.saturating_sub(self.start));
        self.text.get(skipped..).unwrap_or(self.text)
    }
}

// === impl Open ===

impl Open {
    fn at(start: usize) -> Self {
        Self { start, head: None, depth: 0, deepest: 0, operators: 0, last: b' ' }
    }

    /// Takes one byte of code into account.
    fn see(&mut self, byte: u8, at: usize) {
        if !byte.is_ascii_whitespace() {
            self.head = self.head.or(Some(at));
        }
        match byte {
            b'(' | b'[' | b'{' => self.depth += 1,
            b')' | b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            b'+' | b'-' | b'*' | b'!' | b'.' => self.operators += 1,
            b'&' | b'|' if self.last == byte => self.operators += 1,
            0..=u8::MAX => {}
        }
        self.last = byte;
        self.deepest = self.deepest.max(self.depth);
    }

    fn close(self, text: &str, end: usize) -> Statement<'_> {
        let body = text.get(self.start..end).unwrap_or_default();
        // Words are counted wherever they stand: a few too many in strings and comments do no harm.
        let operators = self.operators.saturating_add(body.matches("else").count());
        Statement { text: body, start: self.start, head: self.head, depth: self.deepest, operators }
    }
}

/// The statements of `text` in order; the last one is what follows the last semicolon.
pub(crate) fn split(text: &str) -> Vec<Statement<'_>> {
    let mut found = Vec::new();
    let mut scan = Scan::Code;
    let mut open = Open::at(0);
    for (at, byte) in text.bytes().enumerate() {
        let was = scan;
        scan = step(was, byte);
        match (was, scan) {
            // A lone slash is no comment: Cedar will refuse it where it stands.
            (Scan::Slash, Scan::Code | Scan::Text) => open.see(b'/', at.saturating_sub(1)),
            (Scan::Code, Scan::Code | Scan::Text) => {}
            (Scan::Comment | Scan::Text | Scan::Escape, _)
            | (_, Scan::Slash | Scan::Comment | Scan::Escape) => continue,
        }
        open.see(byte, at);
        if byte == b';' && scan == Scan::Code {
            let end = at.saturating_add(1);
            found.push(std::mem::replace(&mut open, Open::at(end)).close(text, end));
        }
    }
    if scan == Scan::Slash {
        open.see(b'/', text.len().saturating_sub(1));
    }
    found.push(open.close(text, text.len()));
    found
}

/// Every word of the code in `text`, and every string as one word without its quotes.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut scan = Scan::Code;
    let mut start = 0;
    // The closing space ends a word that ends the text.
    text.bytes().chain([b' ']).enumerate().filter_map(move |(at, byte)| {
        let was = scan;
        scan = step(was, byte);
        let letter = byte.is_ascii_alphanumeric() || byte == b'_';
        if scan == was && (was != Scan::Code || letter) || scan == Scan::Escape {
            return None;
        }
        if was == Scan::Escape || (was == Scan::Slash && letter) {
            return None;
        }
        let word = text.get(start..at).filter(|_| was != Scan::Comment);
        start = at.saturating_add(1);
        word.filter(|word| !word.is_empty())
    })
}

/// The state after `byte`.
fn step(scan: Scan, byte: u8) -> Scan {
    match (scan, byte) {
        (Scan::Escape, _) => Scan::Text,
        (Scan::Text, b'\\') => Scan::Escape,
        (Scan::Text, b'"') => Scan::Code,
        (Scan::Text, _) => Scan::Text,
        // Cedar ends a comment at either kind of line break.
        (Scan::Comment, b'\n' | b'\r') => Scan::Code,
        (Scan::Comment, _) | (Scan::Slash, b'/') => Scan::Comment,
        (Scan::Code | Scan::Slash, b'"') => Scan::Text,
        (Scan::Code, b'/') => Scan::Slash,
        (Scan::Code | Scan::Slash, _) => Scan::Code,
    }
}

#[cfg(test)]
mod tests {
    use super::split;
    use proptest::prelude::*;

    #[test]
    fn semicolons_in_strings_and_comments_end_nothing() {
        let text = "// a; b\n@id(\"x;\\\";\")\npermit(principal);\n // c\rforbid(a, [(b)]); // d;";
        let found = split(text);
        let bodies: Vec<_> = found.iter().map(|statement| statement.body()).collect();
        let permit = "@id(\"x;\\\";\")\npermit(principal);";
        assert_eq!(bodies, [permit, "forbid(a, [(b)]);", " // d;"]);
        assert_eq!(found.last().unwrap().head, None);
        assert_eq!(found.iter().map(|one| one.depth).collect::<Vec<_>>(), [1, 3, 0]);
    }

    #[test]
    fn operators_are_counted_outside_of_strings() {
        let found = split("when { !a.b && -1 + 2 == 1 || if c then \"&&||\" else d & e };");
        assert_eq!(found.iter().map(|one| one.operators).collect::<Vec<_>>(), [7, 0]);
    }

    proptest! {
        #[test]
        fn no_byte_is_left_out(text in "[a;/\"\\\\\n\r (){}ö]{0,60}") {
            let found = split(&text);
            prop_assert_eq!(found.iter().map(|one| one.text).collect::<String>(), text);
        }
    }
}
