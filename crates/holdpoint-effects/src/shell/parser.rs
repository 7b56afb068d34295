//! The grammar of bash: lists, pipelines, compound commands, redirections and here-documents.
//!
//! Owns its limits: depth and steps are bounded, whatever the text. It must never skip what it
//! does not know: that is an error, and the caller calls the whole text opaque.

use super::redirects::Waiting;
use super::syntax::{AndOr, Assignment, Body, Command, Joint, Piece, Script, Word};
use std::rc::Rc;

/// How deep brackets, quotes and substitutions may be nested.
pub(super) const DEPTH_MAX: usize = 24;
/// Steps that any text may take, and how many more for each of its characters.
const STEPS_MIN: usize = 4096;
const STEPS_PER_CHAR: usize = 12;

/// Words that open or close a compound command.
const CLOSING: &[&str] = &["then", "do", "done", "fi", "elif", "else", "esac", "}"];

/// Why a text could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Something is opened and not closed.
    Open,
    /// Something stands where bash does not allow it, or is not known here.
    Unexpected,
    /// Too deep or too long.
    TooLarge,
}

/// A place in a text.
pub(super) struct Parser {
    pub(super) chars: Vec<char>,
    pub(super) at: usize,
    pub(super) depth: usize,
    steps: usize,
    pub(super) waiting: Vec<Waiting>,
}

/// Reads a whole text.
pub(super) fn parse(text: &str, depth: usize) -> Result<Script, Fault> {
    Parser::new(text, depth)?.program()
}

// === impl Parser ===

impl Parser {
    pub(super) fn new(text: &str, depth: usize) -> Result<Self, Fault> {
        if depth > DEPTH_MAX {
            return Err(Fault::TooLarge);
        }
        let chars: Vec<char> = text.chars().filter(|c| *c != '\0').collect();
        let steps = STEPS_MIN.saturating_add(chars.len().saturating_mul(STEPS_PER_CHAR));
        Ok(Self { chars, at: 0, depth, steps, waiting: Vec::new() })
    }

    pub(super) fn char(&self, at: usize) -> Option<char> {
        self.chars.get(at).copied()
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.char(self.at)
    }

    pub(super) fn peek_at(&self, ahead: usize) -> Option<char> {
        self.char(self.at + ahead)
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    pub(super) fn eat(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        self.at += usize::from(found);
        found
    }

    /// True if the ASCII `text` stands here.
    pub(super) fn looks_at(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(ahead, c)| self.peek_at(ahead) == Some(c))
    }

    /// Spends one step.
    pub(super) fn burn(&mut self) -> Result<(), Fault> {
        self.steps = self.steps.checked_sub(1).ok_or(Fault::TooLarge)?;
        Ok(())
    }

    pub(super) fn until(&mut self, end: char) -> Result<String, Fault> {
        let mut text = String::new();
        loop {
            match self.next().ok_or(Fault::Open)? {
                c if c == end => return Ok(text),
                c => text.push(c),
            }
        }
    }

    pub(super) fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            let first = name.is_empty();
            if !(c == '_' || c.is_ascii_alphabetic() || !first && c.is_ascii_digit()) {
                break;
            }
            name.push(c);
            self.at += 1;
        }
        name
    }

    /// The whole text as one list.
    pub(super) fn program(&mut self) -> Result<Script, Fault> {
        let script = self.list()?;
        if self.peek().is_some() {
            return Err(Fault::Unexpected);
        }
        self.documents()?;
        Ok(script)
    }

    /// A list one level deeper, and the character that closes it.
    pub(super) fn nested_until(&mut self, end: char) -> Result<Script, Fault> {
        let script = self.nested(Self::list)?;
        if self.eat(end) { Ok(script) } else { Err(Fault::Open) }
    }

    fn nested<T>(&mut self, read: fn(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.depth >= DEPTH_MAX {
            return Err(Fault::TooLarge);
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    fn list(&mut self) -> Result<Script, Fault> {
        let mut script = Script::default();
        loop {
            self.space_and_lines()?;
            if self.list_ends() {
                return Ok(script);
            }
            script.0.push(self.and_or()?);
            self.blanks();
            match self.peek() {
                Some(';') if !matches!(self.peek_at(1), Some(';' | '&')) => self.at += 1,
                Some('&') => self.at += 1,
                Some('\n') => {}
                _ => return Ok(script),
            }
        }
    }

    fn list_ends(&self) -> bool {
        match self.peek() {
            None | Some(')') => true,
            Some(';') => matches!(self.peek_at(1), Some(';' | '&')),
            Some(_) => CLOSING.contains(&self.raw_word().as_str()),
        }
    }

    /// The characters up to the next that could end a reserved word.
    fn raw_word(&self) -> String {
        let rest = self.chars.get(self.at..).unwrap_or_default();
        // No reserved word begins with another sign than one of these.
        if !rest.first().is_some_and(|first| "tdfe}!-{iwusc[]".contains(*first)) {
            return String::new();
        }
        let ends = |c: &char| c.is_whitespace() || ";&|<>()".contains(*c);
        rest.iter().take(9).take_while(|c| !ends(c)).collect()
    }

    fn keyword(&mut self, word: &str) -> Result<(), Fault> {
        self.space_and_lines()?;
        if self.raw_word() != word {
            return Err(if self.peek().is_none() { Fault::Open } else { Fault::Unexpected });
        }
        self.at += word.len();
        Ok(())
    }

    fn and_or(&mut self) -> Result<AndOr, Fault> {
        let mut parts = vec![(Joint::First, self.pipeline()?)];
        loop {
            self.blanks();
            let joint = match (self.peek(), self.peek_at(1)) {
                (Some('&'), Some('&')) => Joint::And,
                (Some('|'), Some('|')) => Joint::Or,
                _ => return Ok(AndOr(parts)),
            };
            self.at += 2;
            self.space_and_lines()?;
            parts.push((joint, self.pipeline()?));
        }
    }

    fn pipeline(&mut self) -> Result<Vec<Command>, Fault> {
        loop {
            self.blanks();
            match self.raw_word().as_str() {
                word @ ("!" | "time") => self.at += word.len(),
                "-p" => self.at += 2,
                _ => break,
            }
        }
        let mut commands = Vec::new();
        loop {
            self.burn()?;
            commands.push(self.nested(Self::command)?);
            self.blanks();
            if self.peek() != Some('|') || self.peek_at(1) == Some('|') {
                return Ok(commands);
            }
            self.at += 1;
            self.eat('&');
            self.space_and_lines()?;
        }
    }

    fn command(&mut self) -> Result<Command, Fault> {
        self.blanks();
        let body = match self.peek() {
            Some('(') => self.parenthesis()?,
            _ => match self.compound()? {
                Some(body) => body,
                None => return self.simple(),
            },
        };
        let mut redirects = Vec::new();
        loop {
            self.blanks();
            match self.redirect()? {
                Some(redirect) => redirects.push(redirect),
                None => return Ok(Command { body, redirects }),
            }
        }
    }

    fn parenthesis(&mut self) -> Result<Body, Fault> {
        let from = self.at;
        if self.peek_at(1) == Some('(') {
            self.at += 2;
            match self.arithmetic("))") {
                Ok(word) => return Ok(Body::Words(vec![vec![Piece::Arithmetic(word)]])),
                Err(Fault::TooLarge) => return Err(Fault::TooLarge),
                Err(Fault::Open | Fault::Unexpected) => self.at = from,
            }
        }
        self.at += 1;
        Ok(Body::Subshell(self.nested_until(')')?))
    }

    fn compound(&mut self) -> Result<Option<Body>, Fault> {
        let word = self.raw_word();
        let read: fn(&mut Self) -> Result<Body, Fault> = match word.as_str() {
            "{" => Self::group,
            "if" => Self::branches,
            "while" | "until" => Self::repeat,
            "for" | "select" => Self::for_each,
            "case" => Self::case,
            "function" => Self::function,
            "[[" => Self::test,
            "coproc" => return Err(Fault::Unexpected),
            _ => return Ok(None),
        };
        self.at += word.len();
        read(self).map(Some)
    }

    fn group(&mut self) -> Result<Body, Fault> {
        let script = self.list()?;
        self.keyword("}")?;
        Ok(Body::Group(script))
    }

    fn branches(&mut self) -> Result<Body, Fault> {
        let mut scripts = vec![self.list()?];
        self.keyword("then")?;
        scripts.push(self.list()?);
        loop {
            self.space_and_lines()?;
            match self.raw_word().as_str() {
                "elif" => {
                    self.at += 4;
                    scripts.push(self.list()?);
                    self.keyword("then")?;
                }
                "else" => self.at += 4,
                _ => break,
            }
            scripts.push(self.list()?);
        }
        self.keyword("fi")?;
        Ok(Body::Branches(scripts))
    }

    fn repeat(&mut self) -> Result<Body, Fault> {
        let mut script = self.list()?;
        script.0.extend(self.do_group()?.0);
        Ok(Body::Loop(script))
    }

    fn do_group(&mut self) -> Result<Script, Fault> {
        self.keyword("do")?;
        let script = self.list()?;
        self.keyword("done")?;
        Ok(script)
    }

    fn for_each(&mut self) -> Result<Body, Fault> {
        self.blanks();
        if self.looks_at("((") {
            self.at += 2;
            let head = self.arithmetic("))")?;
            self.blanks();
            self.eat(';');
            self.space_and_lines()?;
            let (name, words) = (String::new(), Some(vec![vec![Piece::Arithmetic(head)]]));
            return Ok(Body::For { name, words, body: self.do_or_group()? });
        }
        let name = self.name();
        if name.is_empty() {
            return Err(Fault::Unexpected);
        }
        self.space_and_lines()?;
        let mut words = None;
        if self.raw_word() == "in" {
            self.at += 2;
            words = Some(self.words()?);
        }
        self.blanks();
        self.eat(';');
        Ok(Body::For { name, words, body: self.do_or_group()? })
    }

    fn do_or_group(&mut self) -> Result<Script, Fault> {
        self.space_and_lines()?;
        if self.raw_word() != "{" {
            return self.do_group();
        }
        self.at += 1;
        let script = self.list()?;
        self.keyword("}")?;
        Ok(script)
    }

    fn words(&mut self) -> Result<Vec<Word>, Fault> {
        let mut words = Vec::new();
        loop {
            self.blanks();
            match self.word()? {
                Some(word) => words.push(word),
                None => return Ok(words),
            }
        }
    }

    fn case(&mut self) -> Result<Body, Fault> {
        self.blanks();
        let subject = self.word()?.ok_or(Fault::Unexpected)?;
        self.keyword("in")?;
        let (mut patterns, mut arms) = (Vec::new(), Vec::new());
        loop {
            self.space_and_lines()?;
            if self.raw_word() == "esac" {
                self.at += 4;
                return Ok(Body::Case { subject, patterns, arms });
            }
            self.eat('(');
            loop {
                self.blanks();
                patterns.push(self.word()?.ok_or(Fault::Unexpected)?);
                self.blanks();
                match self.next().ok_or(Fault::Open)? {
                    '|' => {}
                    ')' => break,
                    _ => return Err(Fault::Unexpected),
                }
            }
            arms.push(self.list()?);
            self.space_and_lines()?;
            while self.eat(';') || self.eat('&') {}
        }
    }

    fn function(&mut self) -> Result<Body, Fault> {
        self.blanks();
        let name = self.until_blank();
        self.blanks();
        if self.eat('(') {
            self.blanks();
            if !self.eat(')') {
                return Err(Fault::Unexpected);
            }
        }
        self.function_body(name)
    }

    fn until_blank(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.peek().filter(|c| !c.is_whitespace() && !";&|<>()".contains(*c)) {
            name.push(c);
            self.at += 1;
        }
        name
    }

    fn function_body(&mut self, name: String) -> Result<Body, Fault> {
        self.space_and_lines()?;
        let body = self.nested(Self::command)?;
        match body.body {
            Body::Simple { .. } => Err(Fault::Unexpected),
            Body::Group(_)
            | Body::Subshell(_)
            | Body::Branches(_)
            | Body::Loop(_)
            | Body::For { .. }
            | Body::Case { .. }
            | Body::Function { .. }
            | Body::Words(_) => Ok(Body::Function { name, body: Rc::new(body) }),
        }
    }

    /// `[[ … ]]`: only its words matter here.
    fn test(&mut self) -> Result<Body, Fault> {
        let mut words = Vec::new();
        loop {
            self.burn()?;
            self.space_and_lines()?;
            if self.raw_word() == "]]" {
                self.at += 2;
                return Ok(Body::Words(words));
            }
            match self.word()? {
                Some(word) => words.push(word),
                None => {
                    self.next().ok_or(Fault::Open)?;
                }
            }
        }
    }

    fn simple(&mut self) -> Result<Command, Fault> {
        let (mut assignments, mut words, mut redirects) = (Vec::new(), Vec::new(), Vec::new());
        let from = self.at;
        loop {
            self.burn()?;
            self.blanks();
            if let Some(redirect) = self.redirect()? {
                redirects.push(redirect);
                continue;
            }
            if words.is_empty()
                && let Some(assignment) = self.assignment()?
            {
                assignments.push(assignment);
                continue;
            }
            let start = self.at;
            match self.word()? {
                Some(word) => words.push(word),
                None if self.peek() == Some('(') && words.len() == 1 && start > from => {
                    return self.function_after(&words);
                }
                None if self.peek() == Some('(') && self.array_follows() => {
                    self.at += 1;
                    words.extend(self.array()?);
                }
                None => break,
            }
        }
        if assignments.is_empty() && words.is_empty() && redirects.is_empty() {
            return Err(if self.peek().is_none() { Fault::Open } else { Fault::Unexpected });
        }
        Ok(Command { body: Body::Simple { assignments, words }, redirects })
    }

    /// `declare x=(…)`: the bracket stands right after `=`.
    fn array_follows(&self) -> bool {
        self.at.checked_sub(1).and_then(|at| self.char(at)) == Some('=')
    }

    fn function_after(&mut self, words: &[Word]) -> Result<Command, Fault> {
        self.at += 1;
        self.blanks();
        let name = match words {
            [word] => match word.as_slice() {
                [Piece::Text { text, quoted: false }] if self.eat(')') => text.clone(),
                _ => return Err(Fault::Unexpected),
            },
            _ => return Err(Fault::Unexpected),
        };
        Ok(Command { body: self.function_body(name)?, redirects: Vec::new() })
    }

    fn assignment(&mut self) -> Result<Option<Assignment>, Fault> {
        let from = self.at;
        let name = self.name();
        let mut plain = true;
        let mut values = Vec::new();
        if !name.is_empty() && self.eat('[') {
            plain = false;
            match self.arithmetic("]") {
                Ok(index) => values.push(index),
                Err(Fault::TooLarge) => return Err(Fault::TooLarge),
                Err(Fault::Open | Fault::Unexpected) => {
                    self.at = from;
                    return Ok(None);
                }
            }
        }
        let append = self.peek() == Some('+') && self.peek_at(1) == Some('=');
        self.at += usize::from(append);
        if name.is_empty() || !self.eat('=') {
            self.at = from;
            return Ok(None);
        }
        if self.eat('(') {
            values.extend(self.array()?);
            return Ok(Some(Assignment { name, append, plain: false, values }));
        }
        values.extend(self.word()?);
        Ok(Some(Assignment { name, append, plain, values }))
    }

    fn array(&mut self) -> Result<Vec<Word>, Fault> {
        let mut words = Vec::new();
        loop {
            self.space_and_lines()?;
            if self.eat(')') {
                return Ok(words);
            }
            words.push(self.word()?.ok_or(Fault::Unexpected)?);
        }
    }

    pub(super) fn blanks(&mut self) {
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\r') => self.at += 1,
                Some('\\') if self.peek_at(1) == Some('\n') => self.at += 2,
                Some('#') if self.starts_word() => {
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn starts_word(&self) -> bool {
        let before = self.at.checked_sub(1).and_then(|at| self.char(at));
        before.is_none_or(|c| c.is_whitespace() || ";&|()`".contains(c))
    }

    fn space_and_lines(&mut self) -> Result<(), Fault> {
        loop {
            self.blanks();
            if !self.eat('\n') {
                return Ok(());
            }
            self.documents()?;
        }
    }
}
