//! Words: quoting, expansions and substitutions of a shell text. Owns where a word ends; must
//! never guess: what has no end is an error.

use super::parser::{DEPTH_MAX, Fault, Parser};
use super::syntax::{Change, Piece, Word};

/// Characters that end a word when they are not quoted.
const META: &[char] = &[' ', '\t', '\n', ';', '&', '|', '<', '>', '(', ')'];

// === impl Parser ===

impl Parser {
    /// Reads one word, if there is one here.
    pub(super) fn word(&mut self) -> Result<Option<Word>, Fault> {
        let mut word = Word::new();
        let from = self.at;
        while let Some(c) = self.peek() {
            self.burn()?;
            match c {
                '<' | '>' if self.peek_at(1) == Some('(') => self.process(&mut word)?,
                '(' if self.extends_glob(from) => self.glob_group(&mut word)?,
                _ if META.contains(&c) => break,
                '~' if self.tilde_may_stand(from) => self.tilde(&mut word),
                _ => self.piece(&mut word)?,
            }
        }
        Ok((self.at > from).then_some(word))
    }

    /// Reads one piece that is not inside of double quotes.
    fn piece(&mut self, word: &mut Word) -> Result<(), Fault> {
        match self.peek() {
            Some('\'') => {
                self.at += 1;
                let text = self.until('\'')?;
                word.push(Piece::Text { text, quoted: true });
            }
            Some('"') => self.double_quoted(word)?,
            Some('\\') => {
                self.at += 1;
                match self.next() {
                    None | Some('\n') => {}
                    Some(c) => push_text(word, c, true),
                }
            }
            Some('$') => self.dollar(word, false)?,
            Some('`') => self.backquoted(word, false)?,
            Some(c) => {
                self.at += 1;
                push_text(word, c, false);
            }
            None => {}
        }
        Ok(())
    }

    fn double_quoted(&mut self, word: &mut Word) -> Result<(), Fault> {
        self.at += 1;
        word.push(Piece::Text { text: String::new(), quoted: true });
        loop {
            self.burn()?;
            match self.peek().ok_or(Fault::Open)? {
                '"' => break self.at += 1,
                _ => self.soft_piece(word)?,
            }
        }
        Ok(())
    }

    /// Reads one piece inside of double quotes or of a here-document.
    fn soft_piece(&mut self, word: &mut Word) -> Result<(), Fault> {
        match self.peek() {
            Some('\\') => {
                self.at += 1;
                match self.next() {
                    Some('\n') => {}
                    Some(c @ ('$' | '`' | '"' | '\\')) => push_text(word, c, true),
                    Some(c) => {
                        push_text(word, '\\', true);
                        push_text(word, c, true);
                    }
                    None => push_text(word, '\\', true),
                }
            }
            Some('$') => self.dollar(word, true)?,
            Some('`') => self.backquoted(word, true)?,
            Some(c) => {
                self.at += 1;
                push_text(word, c, true);
            }
            None => {}
        }
        Ok(())
    }

    /// Expands the text of a here-document.
    pub(super) fn soft_text(text: &str, depth: usize) -> Result<Word, Fault> {
        let mut inner = Self::new(text, depth)?;
        let mut word = Word::new();
        while inner.peek().is_some() {
            inner.burn()?;
            inner.soft_piece(&mut word)?;
        }
        Ok(word)
    }

    fn dollar(&mut self, word: &mut Word, quoted: bool) -> Result<(), Fault> {
        if self.depth >= DEPTH_MAX {
            return Err(Fault::TooLarge);
        }
        self.depth += 1;
        let read = self.expansion(word, quoted);
        self.depth -= 1;
        read
    }

    fn expansion(&mut self, word: &mut Word, quoted: bool) -> Result<(), Fault> {
        self.at += 1;
        match self.peek() {
            Some('\'') if !quoted => self.ansi_quoted(word)?,
            Some('"') if !quoted => self.double_quoted(word)?,
            Some('(') => self.dollar_parenthesis(word, quoted)?,
            Some('[') => {
                self.at += 1;
                let inner = self.arithmetic("]")?;
                word.push(Piece::Arithmetic(inner));
            }
            Some('{') => self.braced(word, quoted)?,
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                let name = self.name();
                word.push(Piece::Parameter { name, change: Change::None, quoted });
            }
            Some(c) if c.is_ascii_digit() || "@*#?-$!".contains(c) => {
                self.at += 1;
                let name = c.to_string();
                word.push(Piece::Parameter { name, change: Change::None, quoted });
            }
            _ => push_text(word, '$', quoted),
        }
        Ok(())
    }

    fn dollar_parenthesis(&mut self, word: &mut Word, quoted: bool) -> Result<(), Fault> {
        let from = self.at;
        if self.peek_at(1) == Some('(') {
            self.at += 2;
            match self.arithmetic("))") {
                Ok(inner) => {
                    word.push(Piece::Arithmetic(inner));
                    return Ok(());
                }
                Err(Fault::TooLarge) => return Err(Fault::TooLarge),
                Err(Fault::Open | Fault::Unexpected) => self.at = from,
            }
        }
        self.at = from + 1;
        let script = self.nested_until(')')?;
        word.push(Piece::Substitution { script, quoted });
        Ok(())
    }

    fn backquoted(&mut self, word: &mut Word, quoted: bool) -> Result<(), Fault> {
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.next().ok_or(Fault::Open)? {
                '`' => break,
                '\\' => match self.next().ok_or(Fault::Open)? {
                    c @ ('$' | '`' | '\\') => text.push(c),
                    '"' if quoted => text.push('"'),
                    c => text.extend(['\\', c]),
                },
                c => text.push(c),
            }
        }
        let script = Self::new(&text, self.depth + 1)?.program()?;
        word.push(Piece::Substitution { script, quoted });
        Ok(())
    }

    fn process(&mut self, word: &mut Word) -> Result<(), Fault> {
        self.at += 2;
        let script = self.nested_until(')')?;
        word.push(Piece::Process(script));
        Ok(())
    }

    /// `${…}`.
    fn braced(&mut self, word: &mut Word, quoted: bool) -> Result<(), Fault> {
        self.at += 1;
        let mut other = false;
        if matches!(self.peek(), Some('!' | '#')) && self.peek_at(1) != Some('}') {
            self.at += 1;
            other = true;
        }
        let mut name = self.name();
        if name.is_empty() {
            let c = self.next().ok_or(Fault::Open)?;
            let special = c.is_ascii_digit() || "@*#?-$!".contains(c);
            name.push(if special { c } else { return Err(Fault::Unexpected) });
            while c.is_ascii_digit() && self.peek().is_some_and(|c| c.is_ascii_digit()) {
                name.extend(self.next());
            }
        }
        let mut index = Word::new();
        if self.eat('[') {
            other = true;
            index = self.arithmetic("]")?;
        }
        let operator = self.operator()?;
        let mut inner = Word::new();
        loop {
            self.burn()?;
            match self.peek().ok_or(Fault::Open)? {
                '}' => break self.at += 1,
                '\'' if quoted => {
                    self.at += 1;
                    push_text(&mut inner, '\'', true);
                }
                _ => self.piece(&mut inner)?,
            }
        }
        inner.extend(index);
        let change = match operator {
            _ if other => Change::Other(inner),
            Operator::End => Change::None,
            Operator::Default { assigned } => Change::Default { word: inner, assigned },
            Operator::Alternative => Change::Alternative(inner),
            Operator::Other => Change::Other(inner),
        };
        word.push(Piece::Parameter { name, change, quoted });
        Ok(())
    }

    fn operator(&mut self) -> Result<Operator, Fault> {
        let colon = self.peek() == Some(':') && matches!(self.peek_at(1), Some('-' | '=' | '+'));
        if colon {
            self.at += 1;
        }
        let operator = match self.peek().ok_or(Fault::Open)? {
            '}' => return Ok(Operator::End),
            '-' => Operator::Default { assigned: false },
            '=' => Operator::Default { assigned: true },
            '+' => Operator::Alternative,
            '?' | ':' | '#' | '%' | '/' | '^' | ',' | '@' => Operator::Other,
            _ => return Err(Fault::Unexpected),
        };
        self.at += 1;
        Ok(operator)
    }

    /// Reads an arithmetic expression and its `end`.
    pub(super) fn arithmetic(&mut self, end: &str) -> Result<Word, Fault> {
        let mut word = Word::new();
        let mut open = 0_usize;
        loop {
            self.burn()?;
            let c = self.peek().ok_or(Fault::Open)?;
            if open == 0 && self.looks_at(end) {
                self.at += end.len();
                return Ok(word);
            }
            match c {
                '(' | '[' => open += 1,
                ')' | ']' => open = open.checked_sub(1).ok_or(Fault::Unexpected)?,
                _ => {}
            }
            self.piece(&mut word)?;
        }
    }

    fn ansi_quoted(&mut self, word: &mut Word) -> Result<(), Fault> {
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.next().ok_or(Fault::Open)? {
                '\'' => break,
                '\\' => {
                    let c = self.escape()?;
                    text.extend(c);
                }
                c => text.push(c),
            }
        }
        word.push(Piece::Text { text, quoted: true });
        Ok(())
    }

    /// What stands after a backslash in `$'…'`.
    fn escape(&mut self) -> Result<Option<char>, Fault> {
        let c = self.next().ok_or(Fault::Open)?;
        Ok(Some(match c {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'e' | 'E' => '\u{1b}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            'x' => return Ok(self.number(16, 2)),
            'u' => return Ok(self.number(16, 4)),
            'U' => return Ok(self.number(16, 8)),
            'c' => return Ok(self.next().and_then(|c| char::from_u32(u32::from(c) & 0x1f))),
            '0'..='7' => {
                self.at -= 1;
                return Ok(self.number(8, 3));
            }
            c => c,
        }))
    }

    fn number(&mut self, radix: u32, digits: usize) -> Option<char> {
        let mut value = 0_u32;
        for _ in 0..digits {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(radix)) else { break };
            value = value.wrapping_mul(radix).wrapping_add(digit);
            self.at += 1;
        }
        char::from_u32(value)
    }

    fn tilde_may_stand(&self, from: usize) -> bool {
        let before = self.at.checked_sub(1).and_then(|at| self.char(at));
        self.at == from || matches!(before, Some('=' | ':'))
    }

    fn tilde(&mut self, word: &mut Word) {
        self.at += 1;
        let mut user = String::new();
        while let Some(c) = self.peek().filter(|c| c.is_alphanumeric() || "._-+".contains(*c)) {
            user.push(c);
            self.at += 1;
        }
        word.push(Piece::Tilde(user));
    }

    fn extends_glob(&self, from: usize) -> bool {
        let before = self.at.checked_sub(1).and_then(|at| self.char(at));
        self.at > from && matches!(before, Some('?' | '*' | '+' | '@' | '!'))
    }

    fn glob_group(&mut self, word: &mut Word) -> Result<(), Fault> {
        let mut open = 0_usize;
        loop {
            self.burn()?;
            match self.peek().ok_or(Fault::Open)? {
                '(' => open += 1,
                ')' => open = open.saturating_sub(1),
                _ => {}
            }
            self.piece(word)?;
            if open == 0 {
                push_text(word, '*', false);
                return Ok(());
            }
        }
    }
}

enum Operator {
    End,
    Default { assigned: bool },
    Alternative,
    Other,
}

fn push_text(word: &mut Word, c: char, quoted: bool) {
    match word.last_mut() {
        Some(Piece::Text { text, quoted: same }) if *same == quoted => text.push(c),
        _ => word.push(Piece::Text { text: c.to_string(), quoted }),
    }
}
