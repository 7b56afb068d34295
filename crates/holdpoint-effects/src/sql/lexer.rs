//! Cuts a text into statements the way the server does, and rewrites each so that a parser can
//! only read it one way: no comments, no escapes in strings. Must never guess: what two servers
//! would read differently, or what only hides something, is a fault of the statement.

use super::Dialect;
use std::collections::BTreeSet;

/// Most statements of one text.
const STATEMENTS_MAX: usize = 512;
/// Deepest nesting of brackets.
const BRACKETS_MAX: usize = 40;
/// Most words and signs between two commas, brackets counted: what a parser makes a deep tree of.
const CHAIN_MAX: usize = 3000;
/// Most joins in one statement: the parser nests them without a limit of its own.
const JOINS_MAX: usize = 60;
/// Words at the beginning of a statement that are kept to tell what it is.
const HEAD_WORDS: usize = 8;
/// Stands in a string for what was escaped.
pub(super) const ESCAPED: char = '\u{fffd}';

/// One statement.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// The statement, without comments and escapes.
    pub(super) text: String,
    /// Its first words, upper case.
    pub(super) head: Vec<String>,
    /// Why it cannot be read.
    pub(super) fault: Option<&'static str>,
    /// The line is a command to the client program, not to the server.
    pub(super) client: Option<String>,
}

/// A whole text.
#[derive(Debug, Default)]
pub(super) struct Lexed {
    pub(super) pieces: Vec<Piece>,
    /// The versions of MySQL's comments that are executed; an empty one is always executed.
    pub(super) versions: BTreeSet<String>,
}

/// Whether what stands in a `/*! … */` is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Executable {
    Read,
    Skipped,
}

#[derive(Default)]
struct Level {
    run: usize,
    inner: usize,
    deepest: usize,
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    dialect: Dialect,
    executable: Executable,
    in_executable: bool,
    levels: Vec<Level>,
    joins: usize,
    /// The last word was one before the name of a table.
    table_follows: bool,
    piece: Piece,
    lexed: Lexed,
}

// === impl Level ===

impl Level {
    fn comma(&mut self) {
        self.deepest = self.depth();
        self.run = 0;
        self.inner = 0;
    }

    fn depth(&self) -> usize {
        self.deepest.max(self.run + self.inner)
    }
}

// === impl Lexer ===

impl<'t> Lexer<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.text.as_bytes().get(self.at + ahead).copied().unwrap_or(0)
    }

    fn fault(&mut self, what: &'static str) {
        self.piece.fault.get_or_insert(what);
    }

    fn run(mut self) -> Lexed {
        while self.at < self.text.len() && self.lexed.pieces.len() < STATEMENTS_MAX {
            self.step();
        }
        if self.at < self.text.len() {
            self.fault("too many statements");
        }
        if self.in_executable {
            self.fault("a comment does not end");
        }
        self.finish();
        self.lexed
    }

    fn step(&mut self) {
        let first = self.peek(0);
        match first {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0c => {
                self.at += 1;
                self.space();
            }
            0..=0x1f | 0x7f => {
                self.at += 1;
                self.fault("a control character");
            }
            b'\'' => self.string(self.dialect == Dialect::Mysql),
            b'"' if self.dialect == Dialect::Mysql => self.string(true),
            b'"' => self.quoted_name('"'),
            b'`' if self.dialect != Dialect::Postgres => self.quoted_name('`'),
            b'[' if self.dialect == Dialect::Sqlite => self.quoted_name(']'),
            b'$' if self.dialect == Dialect::Postgres => self.dollar(),
            b'\\' => self.client_line(),
            b'.' if self.dialect == Dialect::Sqlite && self.starts_line() => self.client_line(),
            _ if first.is_ascii_digit() => self.number(),
            _ if first.is_ascii_alphabetic() || first == b'_' || first >= 0x80 => self.word(),
            _ => self.sign(first),
        }
    }

    fn starts_line(&self) -> bool {
        let before = self.text.get(..self.at).unwrap_or("");
        self.piece.text.trim().is_empty() && (before.is_empty() || before.ends_with('\n'))
    }

    fn space(&mut self) {
        if !self.piece.text.ends_with(' ') {
            self.piece.text.push(' ');
        }
    }

    fn count(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            level.run += 1;
            if level.depth() > CHAIN_MAX {
                self.fault("too deep to be judged");
            }
        }
    }

    fn sign(&mut self, first: u8) {
        if self.comment(first) {
            return;
        }
        self.at += 1;
        match first {
            b';' if self.ends_here() => return self.finish(),
            b',' => self.comma(),
            b'(' | b'[' | b'{' => self.open(),
            b')' | b']' | b'}' => self.close(),
            b'`' => self.fault("a quote that this dialect does not have"),
            b'-' if self.piece.text.ends_with('-') => self.piece.text.push(' '),
            _ => {}
        }
        self.count();
        self.piece.text.push(char::from(first));
    }

    fn comma(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            level.comma();
        }
    }

    fn open(&mut self) {
        match self.levels.len() < BRACKETS_MAX {
            true => self.levels.push(Level::default()),
            false => self.fault("brackets too deep to be judged"),
        }
    }

    fn close(&mut self) {
        if self.levels.len() < 2 {
            return self.fault("a bracket closes that was not opened");
        }
        let depth = self.levels.pop().map_or(0, |level| level.depth());
        if let Some(level) = self.levels.last_mut() {
            level.inner = level.inner.max(depth);
        }
    }

    /// True if a `;` ends the statement: not within brackets, and not within a trigger or stored
    /// program.
    fn ends_here(&self) -> bool {
        if self.levels.len() > 1 {
            return false;
        }
        let makes = self.piece.head.first().is_some_and(|word| word == "CREATE");
        let has = |what: &str| self.piece.head.iter().skip(1).any(|word| word == what);
        let second = self.piece.head.get(1).map_or("", String::as_str);
        match self.dialect {
            Dialect::Postgres => true,
            Dialect::Sqlite if makes && has("TRIGGER") && second != "TABLE" => {
                let text = self.piece.text.trim_end();
                let end = text.len().checked_sub(3).and_then(|at| text.get(at..));
                let inner = text.len().checked_sub(3).and_then(|at| text.get(..at));
                end.is_some_and(|end| end.eq_ignore_ascii_case("end"))
                    && inner.is_some_and(|inner| inner.trim_end().ends_with(';'))
            }
            Dialect::Mysql if makes && !["TABLE", "VIEW", "INDEX"].contains(&second) => {
                !["PROCEDURE", "FUNCTION", "TRIGGER", "EVENT"].into_iter().any(has)
            }
            Dialect::Sqlite | Dialect::Mysql => true,
        }
    }

    /// Takes a comment if one begins here.
    fn comment(&mut self, first: u8) -> bool {
        let second = self.peek(1);
        let third = self.peek(2);
        let dashes = first == b'-' && second == b'-';
        match self.dialect {
            Dialect::Postgres | Dialect::Sqlite if dashes => self.line_comment(),
            Dialect::Mysql if dashes && (third <= b' ' || third == 0x7f) => self.line_comment(),
            Dialect::Mysql if first == b'#' => self.line_comment(),
            _ if first == b'/' && second == b'*' => self.block_comment(third),
            _ if first == b'*' && second == b'/' && self.in_executable => {
                self.in_executable = false;
                self.at += 2;
                self.space();
            }
            _ => return false,
        }
        true
    }

    fn line_comment(&mut self) {
        let ends: &[char] = match self.dialect {
            Dialect::Postgres => &['\n', '\r'],
            Dialect::Sqlite | Dialect::Mysql => &['\n'],
        };
        let rest = self.rest();
        self.at += rest.find(ends).unwrap_or(rest.len());
        self.space();
    }

    fn block_comment(&mut self, third: u8) {
        let rest = self.rest();
        let maria = rest.starts_with("/*M!");
        if self.dialect == Dialect::Mysql && (third == b'!' || maria) {
            return self.executable_comment(if maria { 4 } else { 3 });
        }
        let mut depth = 0_usize;
        let bytes = rest.as_bytes();
        let mut at = 0;
        while let Some(pair) = bytes.get(at..at + 2) {
            match pair {
                b"/*" if depth == 0 || self.dialect == Dialect::Postgres => depth += 1,
                b"*/" => depth -= 1,
                _ => {
                    at += 1;
                    continue;
                }
            }
            at += 2;
            if depth == 0 {
                self.at += at;
                return self.space();
            }
        }
        self.fault("a comment does not end");
        self.at = self.text.len();
    }

    fn executable_comment(&mut self, prefix: usize) {
        let body = self.rest().get(prefix..).unwrap_or("");
        let digits = body.bytes().take(6).take_while(u8::is_ascii_digit).count();
        // Five digits are a version, and six since MySQL 8; anything else is text.
        let digits = if digits >= 5 { digits } else { 0 };
        self.lexed.versions.insert(body.get(..digits).unwrap_or("").to_owned());
        if self.in_executable {
            self.fault("an executed comment within another");
        }
        if self.executable == Executable::Read {
            self.in_executable = true;
            self.at += prefix + digits;
            return self.space();
        }
        match self.rest().find("*/") {
            Some(end) => self.at += end + 2,
            None => {
                self.fault("a comment does not end");
                self.at = self.text.len();
            }
        }
        self.space();
    }

    /// A string that begins here, with its quote as the next sign.
    fn string(&mut self, escapes: bool) {
        self.count();
        let quote = self.peek(0);
        self.at += 1;
        self.piece.text.push('\'');
        loop {
            let Some(next) = self.rest().chars().next() else {
                self.fault("a string does not end");
                break;
            };
            self.at += next.len_utf8();
            if next == char::from(quote) {
                if self.peek(0) == quote {
                    self.at += 1;
                    self.piece.text.push(ESCAPED);
                } else if !self.continues() {
                    break;
                }
            } else if next == '\\' && escapes {
                self.escape();
            } else {
                self.piece.text.push(plain(next));
            }
        }
        self.piece.text.push('\'');
    }

    fn escape(&mut self) {
        self.piece.text.push(ESCAPED);
        let Some(next) = self.rest().chars().next() else { return };
        self.at += next.len_utf8();
        if self.dialect == Dialect::Postgres && (next.is_ascii_digit() || "xuU".contains(next)) {
            let digits = self.rest().bytes().take(8).take_while(u8::is_ascii_hexdigit).count();
            self.at += digits;
        }
    }

    /// True if the string goes on behind a line break, as SQL has it; goes there.
    fn continues(&mut self) -> bool {
        let rest = self.rest();
        let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0c']).len();
        let (gap, after) = rest.split_at_checked(blank).unwrap_or((rest, ""));
        let goes_on = match self.dialect {
            Dialect::Postgres => gap.contains(['\n', '\r']) && after.starts_with('\''),
            Dialect::Mysql | Dialect::Sqlite => false,
        };
        if goes_on {
            self.at += blank + 1;
        }
        goes_on
    }

    fn quoted_name(&mut self, end: char) {
        self.count();
        self.at += 1;
        let mut name = String::new();
        loop {
            let Some(next) = self.rest().chars().next() else {
                return self.fault("a quoted name does not end");
            };
            self.at += next.len_utf8();
            if next != end {
                name.push(next);
            } else if end != ']' && self.rest().starts_with(end) {
                self.at += 1;
                name.push(end);
            } else {
                break;
            }
        }
        if name.chars().any(|c| c.is_control() || c == '"' || c == '`') {
            self.fault("a quote or control character in a name");
        }
        let quote = if self.dialect == Dialect::Mysql { '`' } else { '"' };
        self.piece.text.push(quote);
        self.piece.text.push_str(&name);
        self.piece.text.push(quote);
    }

    fn dollar(&mut self) {
        let rest = self.rest();
        let tag_ends = rest.get(1..).and_then(|tag| {
            let length = tag.find(|c: char| !c.is_alphanumeric() && c != '_')?;
            let starts_well = !tag.starts_with(|c: char| c.is_ascii_digit());
            (starts_well && tag.get(length..)?.starts_with('$')).then_some(length + 2)
        });
        let Some(tag) = tag_ends.and_then(|end| rest.get(..end)) else {
            self.at += 1;
            self.count();
            return self.piece.text.push('$');
        };
        self.count();
        let body = rest.get(tag.len()..).unwrap_or("");
        let Some(end) = body.find(tag) else {
            self.fault("a string does not end");
            self.at = self.text.len();
            return;
        };
        self.piece.text.push('\'');
        self.piece.text.extend(body.get(..end).unwrap_or("").chars().map(plain));
        self.piece.text.push('\'');
        self.at += tag.len() + end + tag.len();
    }

    fn number(&mut self) {
        self.count();
        let rest = self.rest();
        let ends = |c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.';
        let length = rest.find(ends).unwrap_or(rest.len());
        self.piece.text.push_str(rest.get(..length).unwrap_or(""));
        self.at += length;
    }

    fn word(&mut self) {
        let rest = self.rest();
        let ends = |c: char| !c.is_alphanumeric() && c != '_' && c != '$';
        let length = rest.find(ends).unwrap_or(rest.len());
        let word = rest.get(..length).unwrap_or("");
        if word.is_empty() {
            self.at += rest.chars().next().map_or(1, char::len_utf8);
            return self.fault("a sign that only looks like another");
        }
        self.at += length;
        if self.prefixes_string(word) {
            let escapes = self.dialect == Dialect::Mysql || word.eq_ignore_ascii_case("e");
            return self.string(escapes);
        }
        self.count();
        if word.eq_ignore_ascii_case("join") {
            self.joins += 1;
            if self.joins > JOINS_MAX {
                self.fault("too many joins to be judged");
            }
        }
        // The parser takes PostgreSQL's `FROM ONLY t` for a table called `only`; no table can be
        // called that there, and what it leaves out is what other tables inherit.
        let table_follows = std::mem::take(&mut self.table_follows);
        if self.dialect == Dialect::Postgres && table_follows && word.eq_ignore_ascii_case("only") {
            return;
        }
        let before = ["from", "update", "join", "table", "truncate", "into", "using"];
        self.table_follows = before.iter().any(|known| word.eq_ignore_ascii_case(known));
        if self.piece.head.len() < HEAD_WORDS {
            self.piece.head.push(word.to_ascii_uppercase());
        }
        self.piece.text.push_str(word);
    }

    fn prefixes_string(&mut self, word: &str) -> bool {
        let is = |letters: &str| word.len() == 1 && letters.contains(&word.to_ascii_lowercase());
        if is("u") && self.peek(0) == b'&' && matches!(self.peek(1), b'\'' | b'"') {
            self.fault("a name or string written in code points");
        }
        let prefix = match self.dialect {
            Dialect::Postgres => is("ebxn"),
            Dialect::Mysql => is("bxn"),
            Dialect::Sqlite => is("x"),
        };
        prefix && self.peek(0) == b'\''
    }

    /// A command to the client program takes the rest of the line.
    fn client_line(&mut self) {
        let rest = self.rest();
        let length = rest.find('\n').unwrap_or(rest.len());
        let line = rest.get(..length).unwrap_or("").trim().to_owned();
        self.at += length;
        if self.dialect == Dialect::Sqlite && !line.starts_with('.') {
            return self.fault("a backslash outside of a string");
        }
        self.finish();
        self.lexed.pieces.push(Piece { client: Some(line), ..Piece::default() });
    }

    fn finish(&mut self) {
        if self.levels.len() > 1 {
            self.fault("a bracket does not close");
        }
        let piece = std::mem::take(&mut self.piece);
        self.levels.clear();
        self.joins = 0;
        self.levels.push(Level::default());
        if piece.fault.is_some() || !piece.text.trim().is_empty() {
            self.lexed.pieces.push(piece);
        }
    }
}

// === functions ===

/// Cuts `text` into statements.
pub(super) fn lex(text: &str, dialect: Dialect, executable: Executable) -> Lexed {
    let lexer = Lexer {
        text,
        at: 0,
        dialect,
        executable,
        in_executable: false,
        levels: vec![Level::default()],
        joins: 0,
        table_follows: false,
        piece: Piece { text: String::with_capacity(text.len()), ..Piece::default() },
        lexed: Lexed::default(),
    };
    lexer.run()
}

/// What may stand in a string without meaning anything to a parser.
fn plain(letter: char) -> char {
    match letter {
        '\'' | '\\' => ESCAPED,
        other if other.is_control() => ' ',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::{Dialect, Executable, lex};
    use expect_test::{Expect, expect};

    fn check(dialect: Dialect, text: &str, expected: Expect) {
        let mut out = String::new();
        for piece in lex(text, dialect, Executable::Skipped).pieces {
            let text = piece.client.unwrap_or(piece.text);
            let fault = piece.fault.map_or(String::new(), |fault| format!(" <{fault}>"));
            out.push_str(&format!("{}{fault}\n", text.trim()));
        }
        expected.assert_eq(&out);
    }

    #[test]
    fn a_comment_ends_where_the_server_ends_it() {
        let nested = "/* /* */ DROP TABLE a; */ SELECT 1";
        check(
            Dialect::Postgres,
            nested,
            expect![[r#"
            SELECT 1
        "#]],
        );
        check(
            Dialect::Mysql,
            nested,
            expect![[r#"
            DROP TABLE a
            */ SELECT 1
        "#]],
        );
        check(
            Dialect::Mysql,
            "SELECT 1--1; # x; y\nSELECT 2 -- z",
            expect![[r#"
            SELECT 1- -1
            SELECT 2
        "#]],
        );
        check(
            Dialect::Postgres,
            "SELECT 1 -- a\rDROP TABLE b",
            expect![[r#"
            SELECT 1 DROP TABLE b
        "#]],
        );
    }

    #[test]
    fn a_string_ends_where_the_server_ends_it() {
        check(
            Dialect::Postgres,
            r"SELECT '\'; DROP TABLE a; --'",
            expect![[r#"
            SELECT '�'
            DROP TABLE a
        "#]],
        );
        check(
            Dialect::Postgres,
            r"SELECT E'\'; DROP TABLE a; --'",
            expect![[r#"
            SELECT '�; DROP TABLE a; --'
        "#]],
        );
        check(
            Dialect::Mysql,
            r#"SELECT "\"; DROP TABLE a; --""#,
            expect![[r#"
            SELECT '�; DROP TABLE a; --'
        "#]],
        );
        check(
            Dialect::Postgres,
            "SELECT $a$ ; $$ ' $a$, a$$ FROM b; x",
            expect![[r#"
            SELECT ' ; $$ � ', a$$ FROM b
            x
        "#]],
        );
        check(
            Dialect::Postgres,
            "SELECT E'a'\n'\\'; DROP TABLE b'",
            expect![[r#"
            SELECT 'a�; DROP TABLE b'
        "#]],
        );
        check(
            Dialect::Sqlite,
            "SELECT 'open; DROP TABLE a",
            expect![[r#"
            SELECT 'open; DROP TABLE a' <a string does not end>
        "#]],
        );
    }

    #[test]
    fn commands_to_the_client_are_told_apart() {
        check(
            Dialect::Postgres,
            "SELECT 1 \\g |sh\n\\! rm x\nSELECT 2;",
            expect![[r#"
            SELECT 1
            \g |sh
            \! rm x
            SELECT 2
        "#]],
        );
        check(
            Dialect::Sqlite,
            ".shell rm x\nSELECT 1; SELECT .5",
            expect![[r#"
            .shell rm x
            SELECT 1
            SELECT .5
        "#]],
        );
    }

    #[test]
    fn a_trigger_of_sqlite_is_one_statement() {
        let text = "CREATE TRIGGER a AFTER INSERT ON b BEGIN DELETE FROM c; END; SELECT 1";
        check(
            Dialect::Sqlite,
            text,
            expect![[r#"
            CREATE TRIGGER a AFTER INSERT ON b BEGIN DELETE FROM c; END
            SELECT 1
        "#]],
        );
    }
}
