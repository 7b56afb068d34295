//! Shell texts, read as bash would read them.
//!
//! Owns the grammar, what is known of variables, and the walk through every command that may run.
//! It must never take what it cannot read, or a program that it does not know, for harmless.

mod builtins;
mod expand;
mod lexer;
mod parser;
mod redirects;
mod run;
mod syntax;

pub(crate) use run::{Feed, Shell};

use crate::effects::{Effects, NESTING_MAX, NoteCode, TEXT_BYTES_MAX};
use crate::place::{Place, Spot};

/// Adds what running `text` in a shell at `place` would do.
pub fn shell(text: &str, place: &Place, effects: &mut Effects) {
    let mut shell = Shell::new(place, effects);
    shell.text(text);
}

/// Adds what `text` would do if it ran at `spot`, some levels of nesting down.
pub(crate) fn shell_at(text: &str, spot: Spot<'_>, depth: usize, effects: &mut Effects) {
    let mut shell = Shell::new(spot.place, effects);
    shell.state.host = spot.host.map(str::to_owned);
    shell.state.cwd = spot.cwd.map(str::to_owned);
    shell.depth = depth;
    shell.text(text);
}

// === impl Shell ===

impl Shell<'_> {
    /// Runs `text` in this very shell.
    pub(crate) fn text(&mut self, text: &str) {
        if text.len() > TEXT_BYTES_MAX || self.depth > NESTING_MAX {
            self.note_opaque(NoteCode::TooLarge, "the shell text is too long or too deep");
            return;
        }
        match parser::parse(text, 0) {
            Ok(script) => {
                self.depth += 1;
                self.script(&script);
                self.depth -= 1;
            }
            Err(parser::Fault::TooLarge) => {
                self.note_opaque(NoteCode::TooLarge, "the shell text is too long or too deep");
            }
            Err(parser::Fault::Open | parser::Fault::Unexpected) => {
                self.note_opaque(NoteCode::Unreadable, "the shell text could not be parsed");
            }
        }
    }
}

#[cfg(test)]
mod tests;
