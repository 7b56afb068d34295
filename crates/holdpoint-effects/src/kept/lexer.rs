//! Source text of any language as words, signs and strings. Owns what a comment is, by the kind of
//! file. It must never give out what stands in a comment.

/// How a language writes comments and strings.
#[derive(Debug)]
pub(super) struct Style {
    /// What begins a comment to the end of the line.
    line: &'static [&'static str],
    /// What begins and ends a comment of many lines.
    block: &'static [(&'static str, &'static str)],
    /// What begins and ends a string that may have many lines; the longest first.
    long: &'static [&'static str],
    /// What begins and ends a string that ends with its line.
    short: &'static [&'static str],
    /// `#` begins a comment only where a word begins.
    spaced: bool,
    /// `'a` may be no string.
    lifetimes: bool,
}

const C: Style = Style {
    line: &["//"],
    block: &[("/*", "*/")],
    long: &["\"\"\"", "`"],
    short: &["\"", "'"],
    spaced: false,
    lifetimes: false,
};
const RUST: Style = Style { long: &["\""], short: &["'"], lifetimes: true, ..C };
const PHP: Style = Style { line: &["//", "#"], long: &["\"", "'"], short: &[], ..C };
const PYTHON: Style = Style {
    line: &["#"],
    block: &[],
    long: &["\"\"\"", "'''"],
    short: &["\"", "'"],
    spaced: false,
    lifetimes: false,
};
const RUBY: Style = Style {
    block: &[("\n=begin", "\n=end")],
    long: &["\"\"\"", "\"", "'", "`"],
    short: &[],
    ..PYTHON
};
const SHELL: Style = Style { block: &[], spaced: true, ..RUBY };
const YAML: Style = Style { long: &[], short: &["\"", "'"], ..SHELL };
const HCL: Style = Style { line: &["#", "//"], block: C.block, ..YAML };
const SQL: Style =
    Style { line: &["--"], block: &[("/*", "*/")], long: &["\"", "'", "`"], short: &[], ..PYTHON };
const LUA: Style =
    Style { line: &["--"], block: &[("--[[", "]]")], long: &[], short: PYTHON.short, ..PYTHON };
const HASKELL: Style = Style { block: &[("{-", "-}")], ..LUA };
const MARKUP: Style = Style { block: &[("<!--", "-->"), ("/*", "*/")], long: &["`"], ..C };

/// Which style the extension of a file, or its name, stands for.
const STYLES: &[(&[&str], &Style)] = &[
    (
        &[
            "js", "jsx", "mjs", "cjs", "ts", "tsx", "mts", "java", "kt", "kts", "scala", "go", "c",
            "h", "cc", "cpp", "hpp", "cs", "swift", "dart", "proto", "groovy", "json", "css",
            "scss",
        ],
        &C,
    ),
    (&["rs"], &RUST),
    (&["php"], &PHP),
    (&["py", "pyi"], &PYTHON),
    (&["rb", "pl", "pm", "ex", "exs", "cr", "r"], &RUBY),
    (&["sh", "bash", "zsh", "fish", "makefile", "dockerfile", "mk"], &SHELL),
    (&["yaml", "yml", "toml", "ini", "cfg", "conf"], &YAML),
    (&["tf", "hcl"], &HCL),
    (&["sql"], &SQL),
    (&["lua"], &LUA),
    (&["hs", "elm"], &HASKELL),
    (&["html", "htm", "xml", "vue", "svelte"], &MARKUP),
];

/// One piece of a text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Piece {
    /// Letters, digits and `_`, in any script.
    Word(String),
    /// A string without its quotes.
    Quoted(String),
    /// Any other sign.
    Sign(char),
}

/// Where a part of a file may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// In code.
    Code,
    /// In a comment that ends with its line.
    Comment,
    /// In a string.
    Quoted(&'static str),
}

/// A text, without its comments.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) pieces: Vec<Piece>,
    /// What is still open at the end: a comment, or a string.
    pub(super) open: Option<&'static str>,
    /// How many strings end with their line, and comments that did not begin.
    pub(super) odd: (usize, usize),
    /// True if it ends, or begins, within what may be a word.
    pub(super) joins: (bool, bool),
}

struct Lexer<'a> {
    style: &'a Style,
    rest: &'a str,
    before: Option<char>,
    text: Text,
}

// === impl Style ===

impl Style {
    /// How the file at `path` may be written: in all of these ways, if that is not known.
    pub(super) fn of(path: &str) -> Vec<&'static Self> {
        let name = path.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        let extension = name.rsplit('.').next().unwrap_or_default();
        let known = STYLES.iter().find(|(names, _)| names.contains(&extension));
        known.map_or_else(|| vec![&C, &PYTHON, &SQL], |(_, style)| vec![*style])
    }

    /// Everywhere that a part of a file may begin.
    pub(super) fn starts(&self) -> impl Iterator<Item = Start> {
        let quotes = self.long.iter().chain(self.short).map(|quote| Start::Quoted(quote));
        [Start::Code, Start::Comment].into_iter().chain(quotes)
    }

    /// True if `text` may begin like this.
    pub(super) fn may_begin(&self, start: Start, text: &str) -> bool {
        let line = text.split('\n').next().unwrap_or_default();
        match start {
            Start::Code => true,
            // What is indented begins with its line.
            Start::Comment => {
                let indented = text.starts_with('\t') || text.starts_with("  ");
                !self.line.is_empty() && !indented
            }
            Start::Quoted(quote) => {
                !self.ends_with_line(start) || line.contains(quote) || line.len() == text.len()
            }
        }
    }

    /// True if what begins like this ends with its line.
    pub(super) fn ends_with_line(&self, start: Start) -> bool {
        match start {
            Start::Code | Start::Comment => true,
            Start::Quoted(quote) => self.short.contains(&quote),
        }
    }

    /// True if `mark` begins a comment to the end of the line.
    pub(super) fn is_line(&self, mark: &str) -> bool {
        self.line.contains(&mark)
    }

    /// True if `c` may begin or end what begins or ends a comment.
    pub(super) fn is_edge(&self, c: char) -> bool {
        let block = self.block.iter().flat_map(|(open, close)| [open, close]);
        let mut marks = self.line.iter().chain(block).filter(|mark| mark.len() > 1);
        c == '\\' || marks.any(|mark| mark.starts_with(c) || mark.ends_with(c))
    }

    /// For patterns: nothing is a comment.
    pub(super) fn plain() -> &'static Self {
        const PLAIN: Style = Style { line: &[], block: &[], long: &[], ..C };
        &PLAIN
    }
}

// === impl Text ===

impl Text {
    /// All of a file.
    pub(super) fn read(text: &str, style: &Style) -> Self {
        Self::read_from(Start::Code, text, style)
    }

    /// A part of a file that begins in the middle of something.
    pub(super) fn read_from(start: Start, text: &str, style: &Style) -> Self {
        let is_word = |c: Option<char>| c.is_some_and(is_word);
        let joins = (is_word(text.chars().next()), is_word(text.chars().next_back()));
        let mut lexer = Lexer {
            style,
            rest: text,
            before: None,
            text: Self { pieces: Vec::new(), open: None, odd: (0, 0), joins },
        };
        match start {
            Start::Code => {}
            Start::Comment => {
                let end = text.find('\n');
                if end.is_none() {
                    lexer.text.open = Some("a comment");
                }
                lexer.take(end.unwrap_or(text.len()));
            }
            Start::Quoted(quote) => lexer.inside(quote),
        }
        while !lexer.rest.is_empty() {
            lexer.step();
        }
        lexer.text
    }

    /// How many brackets of each kind are opened more often than closed.
    pub(super) fn balance(&self) -> [i64; 3] {
        let mut balance = [0; 3];
        for piece in &self.pieces {
            let Piece::Sign(sign) = piece else { continue };
            for (count, (open, close)) in balance.iter_mut().zip(BRACKETS) {
                *count += i64::from(sign == open) - i64::from(sign == close);
            }
        }
        balance
    }
}

/// Words that may begin a string.
const PREFIXES: &[&str] =
    &["f", "r", "b", "u", "l", "q", "e", "x", "n", "s", "u8", "fr", "rf", "br", "rb"];
/// The kinds of brackets.
pub(super) const BRACKETS: &[(char, char)] = &[('(', ')'), ('[', ']'), ('{', '}')];

// === impl Lexer ===

impl Lexer<'_> {
    fn step(&mut self) {
        if let Some((open, close)) = self.style.block.iter().find(|(open, _)| self.begins(open)) {
            return self.skip_to(open.len(), close, open);
        }
        let comment = self.style.line.iter().find(|open| self.begins(open));
        if let Some(open) = comment.filter(|open| **open != "#" || self.may_be_comment()) {
            let end = self.rest.find('\n');
            if end.is_none() {
                self.text.open = Some(open);
            }
            return self.take(end.unwrap_or(self.rest.len()));
        }
        if let Some(quote) = self.style.long.iter().find(|quote| self.begins(quote)) {
            self.take(quote.len());
            return self.inside(quote);
        }
        if self.begins("'") && (self.is_apostrophe() || self.style.lifetimes && self.is_lifetime())
        {
            return self.sign();
        }
        if let Some(quote) = self.style.short.iter().find(|quote| self.begins(quote)) {
            self.take(quote.len());
            return self.inside(quote);
        }
        let length = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
        if length == 0 {
            let closes = self.style.block.iter().any(|(_, close)| self.begins(close));
            self.text.odd.1 += usize::from(closes);
            return self.sign();
        }
        let word = self.rest.get(..length).unwrap_or_default().to_owned();
        self.text.pieces.push(Piece::Word(word));
        self.take(length);
    }

    /// True if `sign` stands here; what begins with a line's end may stand at the very beginning.
    fn begins(&self, sign: &str) -> bool {
        let first = sign.strip_prefix('\n').filter(|_| self.before.is_none());
        self.rest.starts_with(sign) || first.is_some_and(|sign| self.rest.starts_with(sign))
    }

    fn may_be_comment(&self) -> bool {
        let begins = |c: char| c.is_whitespace() || ";&|(".contains(c);
        !self.style.spaced || self.before.is_none_or(begins)
    }

    /// Behind a word that no string begins with: `don't`.
    fn is_apostrophe(&self) -> bool {
        let joined = self.before.is_some_and(is_word);
        joined
            && self.rest.chars().nth(1).is_some_and(is_word)
            && !matches!(self.text.pieces.last(), Some(Piece::Word(word))
                if PREFIXES.contains(&word.to_ascii_lowercase().as_str()))
    }

    /// `'a` without a closing quote behind one sign.
    fn is_lifetime(&self) -> bool {
        let mut signs = self.rest.chars().skip(1);
        let first = signs.next();
        first.is_some_and(is_word) && signs.next() != Some('\'')
    }

    fn sign(&mut self) {
        let Some(sign) = self.rest.chars().next() else { return };
        if !sign.is_whitespace() {
            self.text.pieces.push(Piece::Sign(sign));
        }
        self.take(sign.len_utf8());
    }

    fn skip_to(&mut self, from: usize, close: &str, open: &'static str) {
        let found = self.rest.get(from..).and_then(|rest| rest.find(close));
        match found {
            Some(at) => self.take(from + at + close.len()),
            None => {
                self.text.open = Some(open);
                self.take(self.rest.len());
            }
        }
    }

    /// The rest of a string.
    fn inside(&mut self, quote: &'static str) {
        let ends_with_line = self.style.short.contains(&quote);
        let (mut at, mut escaped) = (0, false);
        let found = loop {
            let Some(rest) = self.rest.get(at..).filter(|rest| !rest.is_empty()) else {
                break None;
            };
            if !escaped && rest.starts_with(quote) {
                break Some(quote.len());
            }
            if ends_with_line && rest.starts_with('\n') {
                self.text.odd.0 += 1;
                break Some(0);
            }
            let sign = rest.chars().next().unwrap_or(' ');
            escaped = sign == '\\' && !escaped;
            at += sign.len_utf8();
        };
        if found.is_none() {
            self.text.open = Some(quote);
        }
        let inner = self.rest.get(..at).unwrap_or_default().to_owned();
        self.text.pieces.push(Piece::Quoted(inner));
        self.take(at + found.unwrap_or(0));
    }

    fn take(&mut self, length: usize) {
        let taken = self.rest.get(..length).unwrap_or(self.rest);
        self.before = taken.chars().next_back().or(self.before);
        self.rest = self.rest.get(length..).unwrap_or_default();
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}
