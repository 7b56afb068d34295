//! Redirections and here-documents of a shell text. Owns which operator means what; must never
//! open what they name.

use super::parser::{Fault, Parser};
use super::syntax::{Piece, Redirect, RedirectKind, Word};
use std::cell::OnceCell;
use std::rc::Rc;

/// A here-document whose text has not come yet.
pub(super) struct Waiting {
    end: String,
    quoted: bool,
    tabs: bool,
    body: Rc<OnceCell<Word>>,
}

// === impl Parser ===

impl Parser {
    pub(super) fn redirect(&mut self) -> Result<Option<Redirect>, Fault> {
        let from = self.at;
        let Some(kind) = self.redirect_operator() else {
            self.at = from;
            return Ok(None);
        };
        let tabs = kind == RedirectKind::HereDocument && self.eat('-');
        self.blanks();
        let start = self.at;
        let word = self.word()?.ok_or(Fault::Unexpected)?;
        let body = Rc::new(OnceCell::new());
        if kind == RedirectKind::HereDocument {
            let raw: String = self.chars.get(start..self.at).unwrap_or_default().iter().collect();
            let quoted = raw.contains(['\'', '"', '\\']);
            let end = raw.replace(['\'', '"', '\\'], "");
            self.waiting.push(Waiting { end, quoted, tabs, body: Rc::clone(&body) });
        }
        Ok(Some(Redirect { kind, word, body }))
    }

    fn redirect_operator(&mut self) -> Option<RedirectKind> {
        let first = self.peek()?;
        if !(first.is_ascii_digit() || matches!(first, '{' | '<' | '>' | '&')) {
            return None;
        }
        if self.peek() == Some('{') {
            self.at += 1;
            let named = !self.name().is_empty() && self.eat('}');
            if !named || !matches!(self.peek(), Some('<' | '>')) {
                return None;
            }
        }
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        if !matches!(self.peek(), Some('<' | '>' | '&')) {
            return None;
        }
        let table = [
            ("&>>", RedirectKind::Append),
            ("&>", RedirectKind::Write),
            ("<<<", RedirectKind::HereString),
            ("<<", RedirectKind::HereDocument),
            ("<>", RedirectKind::ReadWrite),
            ("<&", RedirectKind::Duplicate),
            (">&", RedirectKind::Duplicate),
            (">>", RedirectKind::Append),
            (">|", RedirectKind::Write),
            ("<", RedirectKind::Read),
            (">", RedirectKind::Write),
        ];
        let (text, kind) = table.into_iter().find(|(text, _)| self.looks_at(text))?;
        if text.len() == 1 && self.peek_at(1) == Some('(') {
            return None;
        }
        self.at += text.len();
        Some(kind)
    }

    /// Reads the texts of here-documents that were announced on the line before.
    pub(super) fn documents(&mut self) -> Result<(), Fault> {
        for waiting in std::mem::take(&mut self.waiting) {
            let mut text = String::new();
            while self.peek().is_some() {
                self.burn()?;
                let mut line = String::new();
                while let Some(c) = self.next().filter(|c| *c != '\n') {
                    line.push(c);
                }
                let line = if waiting.tabs { line.trim_start_matches('\t') } else { &line };
                if line == waiting.end {
                    break;
                }
                text.push_str(line);
                text.push('\n');
            }
            let word = match waiting.quoted {
                true => vec![Piece::Text { text, quoted: true }],
                false => Self::soft_text(&text, self.depth + 1)?,
            };
            // Read once, filled once: a second time cannot come.
            let _ = waiting.body.set(word);
        }
        Ok(())
    }
}
