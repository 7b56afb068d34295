//! Expansion: from the words of a text to arguments, as far as the text alone says them.
//!
//! Owns what is known of variables, and brace expansion. It must never guess a value that comes
//! from outside of the text: that part is unknown.

use super::run::{EXPANDED_BYTES_MAX, Shell};
use super::syntax::{Change, Piece, Word};
use crate::NoteCode;
use crate::words::{Arg, UNKNOWN};

/// Most arguments that braces may make of one word.
const BRACES_MAX: usize = 64;

/// A character or piece of a word, for brace expansion.
#[derive(Clone)]
enum Atom {
    Char(char),
    Piece(Piece),
}

/// Arguments while they are put together.
#[derive(Default)]
struct Fields {
    done: Vec<Arg>,
    open: Option<Arg>,
}

// === impl Fields ===

impl Fields {
    fn open(&mut self) -> &mut Arg {
        self.open.get_or_insert_with(Arg::default)
    }

    fn close(&mut self) {
        self.done.extend(self.open.take());
    }

    fn push(&mut self, value: &Arg, quoted: bool) {
        if quoted {
            let open = self.open();
            open.text.push_str(&value.text);
            open.glob |= value.glob;
            return;
        }
        if value.is_unknown() {
            let open = self.open();
            open.text.push_str(&value.text);
            open.glob |= value.glob;
            open.loose = true;
            return;
        }
        // Blanks in an unquoted value part arguments.
        for (at, part) in value.text.split([' ', '\t', '\n']).enumerate() {
            if at > 0 {
                self.close();
            }
            if !part.is_empty() {
                let open = self.open();
                open.glob |= value.glob || part.contains(['*', '?', '[']);
                open.text.push_str(part);
            }
        }
    }
}

// === impl Shell ===

impl Shell<'_> {
    /// The arguments that `words` become; what is substituted in them is run.
    pub(super) fn arguments(&mut self, words: &[Word]) -> Vec<Arg> {
        let mut arguments = Vec::new();
        for word in words {
            let braced = |piece: &Piece| match piece {
                Piece::Text { text, quoted } => !quoted && text.contains('{'),
                Piece::Parameter { .. }
                | Piece::Substitution { .. }
                | Piece::Process(_)
                | Piece::Arithmetic(_)
                | Piece::Tilde(_) => false,
            };
            if !word.iter().any(braced) {
                self.fields(word, &mut arguments);
                continue;
            }
            let atoms = atoms(word);
            let mut words = Vec::new();
            let open = atoms.iter().filter(|atom| matches!(atom, Atom::Char('{'))).count();
            if open <= BRACES_MAX {
                expand_braces(&atoms, &mut words);
            }
            if open > BRACES_MAX || words.len() >= BRACES_MAX {
                arguments.push(Arg::unknown_many());
            }
            for word in words {
                self.fields(&pieces(word), &mut arguments);
            }
        }
        arguments
    }

    /// The one value of a word that is not split: an assignment, a redirection, a `case`.
    pub(super) fn value(&mut self, word: &Word) -> Arg {
        let mut value = Arg::default();
        for piece in word {
            let (part, _) = self.piece(piece);
            value.text.push_str(&part.text);
            value.glob |= part.glob;
        }
        value
    }

    fn fields(&mut self, word: &Word, arguments: &mut Vec<Arg>) {
        let mut fields = Fields::default();
        for piece in word {
            match piece {
                Piece::Text { text, quoted } => {
                    let open = fields.open();
                    open.text.push_str(text);
                    // A lone `[` is the name of a command.
                    let bracket = text.contains('[') && text != "[";
                    open.glob |= !quoted && (bracket || text.contains(['*', '?']));
                }
                Piece::Parameter { name, change: Change::None, quoted }
                    if name == "@" || name == "*" && !quoted =>
                {
                    // Within a word it hides the word: a text that is run alone has no arguments.
                    let empty = |piece: &Piece| match piece {
                        Piece::Text { text, .. } => text.is_empty(),
                        Piece::Parameter { name, .. } => name == "@" || name == "*",
                        Piece::Substitution { .. }
                        | Piece::Process(_)
                        | Piece::Arithmetic(_)
                        | Piece::Tilde(_) => false,
                    };
                    let given = self.state.positional != [Arg::unknown_many()];
                    let alone = given || word.iter().all(empty);
                    if alone {
                        self.positional(&mut fields, *quoted);
                    }
                }
                Piece::Parameter { .. }
                | Piece::Substitution { .. }
                | Piece::Process(_)
                | Piece::Arithmetic(_)
                | Piece::Tilde(_) => {
                    let (value, quoted) = self.piece(piece);
                    fields.push(&value, quoted);
                }
            }
        }
        fields.close();
        arguments.append(&mut fields.done);
    }

    fn positional(&mut self, fields: &mut Fields, quoted: bool) {
        for (at, value) in self.state.positional.clone().iter().enumerate() {
            if at > 0 {
                fields.close();
            }
            fields.push(value, quoted);
        }
    }

    /// The value of one piece, and whether it stays in one argument.
    fn piece(&mut self, piece: &Piece) -> (Arg, bool) {
        match piece {
            Piece::Text { text, .. } => (Arg::known(text.as_str()), true),
            Piece::Parameter { name, change, quoted } => (self.parameter(name, change), *quoted),
            Piece::Substitution { script, quoted } => {
                (self.substitution(script).unwrap_or_else(Arg::unknown), *quoted)
            }
            Piece::Process(script) => {
                let output = self.substitution(script);
                self.state.processes.extend(output);
                (Arg::known("/dev/fd/63"), true)
            }
            Piece::Arithmetic(word) => {
                self.calculate(word);
                (Arg::unknown(), true)
            }
            Piece::Tilde(user) => (self.tilde(user), true),
        }
    }

    fn tilde(&self, user: &str) -> Arg {
        let known = |text: Option<&str>| text.map_or_else(Arg::unknown, Arg::known);
        match user {
            "" if self.state.host != self.place.host => Arg::unknown(),
            "" => self.held("HOME"),
            "+" => known(self.state.cwd.as_deref()),
            "-" => Arg::unknown(),
            "root" => Arg::known("/root"),
            user => Arg::known(format!("/home/{user}")),
        }
    }

    /// Arithmetic changes variables, and runs what stands in the index of an array.
    fn calculate(&mut self, word: &Word) {
        let text = self.value(word).text;
        let names = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let changes = text.contains('=') || text.contains("++") || text.contains("--");
        for name in names.filter(|name| !name.is_empty()) {
            let Some(value) = self.state.variables.get_mut(name) else { continue };
            if value.text.contains("$(") || value.text.contains('`') {
                self.opaque("a variable in arithmetic holds a command");
            } else if changes {
                *value = Arg::unknown();
            }
        }
    }

    fn parameter(&mut self, name: &str, change: &Change) -> Arg {
        match change {
            Change::None => self.variable(name),
            Change::Default { word, assigned } => {
                let default = self.value(word);
                let value = self.variable(name);
                if !value.text.is_empty() {
                    return value;
                }
                if *assigned {
                    self.assign(name, default.clone());
                }
                default
            }
            Change::Alternative(word) => {
                let alternative = self.value(word);
                match self.variable(name) {
                    value if value.is_unknown() => Arg::unknown(),
                    value if value.text.is_empty() => value,
                    _ => alternative,
                }
            }
            Change::Other(word) => {
                let change = self.value(word);
                let value = self.held(name).text;
                // `${x@P}` reads the value as a prompt, and a prompt runs what stands in it.
                let runs = value.contains("$(") || value.contains('`') || value.contains(UNKNOWN);
                if change.text.starts_with('P') && runs {
                    self.opaque("a variable is read as a prompt, which runs commands");
                }
                Arg::unknown()
            }
        }
    }

    fn variable(&mut self, name: &str) -> Arg {
        let value = self.held(name);
        self.expanded = self.expanded.saturating_add(value.text.len());
        if self.expanded > EXPANDED_BYTES_MAX {
            self.note_opaque(NoteCode::TooLarge, "variables make too much text");
            return Arg::unknown();
        }
        value
    }

    fn held(&self, name: &str) -> Arg {
        if let Some(value) = self.state.variables.get(name) {
            return value.clone();
        }
        let known = |text: Option<&str>| text.map_or_else(Arg::unknown, Arg::known);
        match name {
            "HOME" => known(self.place.home.as_deref()),
            "PWD" => known(self.state.cwd.as_deref()),
            "IFS" => Arg::known(" "),
            "0" => Arg::known("bash"),
            "@" | "*" => {
                let texts: Vec<&str> =
                    self.state.positional.iter().map(|value| value.text.as_str()).collect();
                Arg::known(texts.join(" "))
            }
            _ => match name.parse::<usize>() {
                Ok(at) => {
                    let given = &self.state.positional;
                    let several = given.iter().take(at).any(|value| value.loose);
                    let value = at.checked_sub(1).and_then(|at| given.get(at));
                    if several { Arg::unknown() } else { value.cloned().unwrap_or_default() }
                }
                Err(_) => Arg::unknown(),
            },
        }
    }
}

fn atoms(word: &Word) -> Vec<Atom> {
    let mut atoms = Vec::new();
    for piece in word {
        match piece {
            Piece::Text { text, quoted: false } => atoms.extend(text.chars().map(Atom::Char)),
            Piece::Text { .. }
            | Piece::Parameter { .. }
            | Piece::Substitution { .. }
            | Piece::Process(_)
            | Piece::Arithmetic(_)
            | Piece::Tilde(_) => atoms.push(Atom::Piece(piece.clone())),
        }
    }
    atoms
}

fn pieces(atoms: Vec<Atom>) -> Word {
    let mut word = Word::new();
    for atom in atoms {
        match (atom, word.last_mut()) {
            (Atom::Char(c), Some(Piece::Text { text, quoted: false })) => text.push(c),
            (Atom::Char(c), _) => word.push(Piece::Text { text: c.to_string(), quoted: false }),
            (Atom::Piece(piece), _) => word.push(piece),
        }
    }
    word
}

/// Adds to `words` what the first pair of braces makes of `atoms`, or `atoms` as they are.
fn expand_braces(atoms: &[Atom], words: &mut Vec<Vec<Atom>>) {
    if words.len() >= BRACES_MAX {
        return;
    }
    for (at, atom) in atoms.iter().enumerate() {
        if !matches!(atom, Atom::Char('{')) {
            continue;
        }
        let Some((parts, end)) = brace_parts(atoms, at) else { continue };
        for part in parts {
            let before = atoms.get(..at).unwrap_or_default();
            let after = atoms.get(end..).unwrap_or_default();
            let joined: Vec<Atom> = before.iter().chain(&part).chain(after).cloned().collect();
            expand_braces(&joined, words);
        }
        return;
    }
    words.push(atoms.to_vec());
}

/// The alternatives between the brace at `from` and its end, and where that is.
fn brace_parts(atoms: &[Atom], from: usize) -> Option<(Vec<Vec<Atom>>, usize)> {
    let (mut parts, mut part, mut open) = (Vec::new(), Vec::new(), 0_usize);
    for (at, atom) in atoms.iter().enumerate().skip(from + 1) {
        match atom {
            Atom::Char('}') if open == 0 => {
                if parts.is_empty() {
                    return Some((sequence(&part)?, at + 1));
                }
                parts.push(part);
                return Some((parts, at + 1));
            }
            Atom::Char(',') if open == 0 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            Atom::Char('{') => open += 1,
            Atom::Char('}') => open -= 1,
            Atom::Char(_) | Atom::Piece(_) => {}
        }
        part.push(atom.clone());
    }
    None
}

/// `1..9` and `a..e`.
fn sequence(part: &[Atom]) -> Option<Vec<Vec<Atom>>> {
    let text: Option<String> = part
        .iter()
        .map(|atom| match atom {
            Atom::Char(c) => Some(*c),
            Atom::Piece(_) => None,
        })
        .collect();
    let text = text?;
    let (first, last) = text.split_once("..")?;
    let chars = |text: &str| -> Vec<Atom> { text.chars().map(Atom::Char).collect() };
    if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
        let count = usize::try_from(last.abs_diff(first)).unwrap_or(usize::MAX);
        if count >= BRACES_MAX {
            return Some(vec![vec![Atom::Char(UNKNOWN)]]);
        }
        let (low, high) = (first.min(last), first.max(last));
        return Some((low..=high).map(|number| chars(&number.to_string())).collect());
    }
    let one = |text: &str| {
        let mut chars = text.chars();
        chars.next().filter(|c| chars.next().is_none() && c.is_ascii_alphabetic())
    };
    let (first, last) = (one(first)?, one(last)?);
    let (low, high) = (first.min(last), first.max(last));
    Some((low..=high).map(|c| vec![Atom::Char(c)]).collect())
}
