//! Patterns of code: words and signs as they stand, `$X` for one argument, `$$$` for any number of
//! pieces in balanced brackets. Must never take longer than a fixed amount of work.

use super::lexer::{BRACKETS, Piece, Style, Text};
use std::cell::Cell;
use std::collections::BTreeSet;

/// Most pieces of a pattern.
const PATTERN_PIECES_MAX: usize = 64;
/// Most pieces that one `$$$` stands for.
const SPAN_PIECES_MAX: usize = 512;
/// Most comparisons for one text.
const WORK_MAX: usize = 1 << 21;

/// Code as it must stay.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    text: String,
    parts: Vec<Part>,
    /// The same from the end to the beginning.
    mirrored: Vec<Part>,
}

/// A text that is no pattern of code.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PatternFault {
    /// Nothing in it, or too much.
    #[error("a pattern has 1 to {PATTERN_PIECES_MAX} words and signs")]
    Length,
    /// It does not say where it begins and ends.
    #[error("a pattern begins and ends with what stands in the code, not with `$`")]
    Edge,
    /// Brackets or quotes do not pair.
    #[error("the brackets or quotes of a pattern do not pair")]
    Unbalanced,
    /// No word in it that would tell it from other code.
    #[error("a pattern has a word of at least three letters")]
    NoWord,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Piece(Piece),
    /// `$X`.
    One,
    /// `$$$`.
    Many,
}

/// How far a pattern goes from some place of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    No,
    /// The text ends before this part of it.
    Cut(usize),
    Whole,
}

struct Search<'a> {
    parts: &'a [Part],
    pieces: &'a [Piece],
    /// The text may go on within its first and its last piece.
    joins: (bool, bool),
    work: Cell<usize>,
}

// === impl Pattern ===

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, PatternFault> {
        let read = Text::read(text, Style::plain());
        if read.open.is_some() || read.balance() != [0; 3] {
            return Err(PatternFault::Unbalanced);
        }
        let mut parts = Vec::new();
        let mut pieces = read.pieces.into_iter().peekable();
        while let Some(piece) = pieces.next() {
            let dollar = Piece::Sign('$');
            if piece != dollar {
                parts.push(Part::Piece(piece));
                continue;
            }
            if pieces.next_if_eq(&dollar).is_some() {
                parts.push(if pieces.next_if_eq(&dollar).is_some() {
                    Part::Many
                } else {
                    return Err(PatternFault::Edge);
                });
                pieces.next_if(is_name);
                continue;
            }
            let named = pieces.next_if(is_name).is_some();
            parts.push(if named { Part::One } else { Part::Piece(dollar) });
        }
        if parts.is_empty() || parts.len() > PATTERN_PIECES_MAX {
            return Err(PatternFault::Length);
        }
        let edges = [parts.first(), parts.last()];
        if edges.iter().any(|part| !matches!(part, Some(Part::Piece(_)))) {
            return Err(PatternFault::Edge);
        }
        let tells = |part: &Part| matches!(part, Part::Piece(Piece::Word(word)) if word.len() >= 3);
        if !parts.iter().any(tells) {
            return Err(PatternFault::NoWord);
        }
        let mirrored = parts.iter().rev().map(Part::mirrored).collect();
        Ok(Self { text: text.to_owned(), parts, mirrored })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// How often it stands in the text; none if that takes too long to tell.
    pub(super) fn count(&self, text: &Text) -> Option<usize> {
        let search = Search::new(&self.parts, text, (false, false));
        let starts = 0..text.pieces.len();
        let found = starts.filter(|at| search.fit(0, *at) == Fit::Whole).count();
        (search.work.get() < WORK_MAX).then_some(found)
    }

    /// True if what reaches over the edges of the old text, as far as that can be seen, does so
    /// with the new text as well.
    pub(super) fn edges_stay(&self, old: &Text, new: &Text) -> bool {
        let back = |text: &Text| Text {
            pieces: text.pieces.iter().rev().map(mirrored).collect(),
            open: None,
            odd: (0, 0),
            joins: (text.joins.1, text.joins.0),
        };
        let (old_back, new_back) = (back(old), back(new));
        [(&self.parts, old, new), (&self.mirrored, &old_back, &new_back)].iter().all(
            |(parts, old, new)| {
                let ends = cut(parts, old);
                let inner = inner(parts, old);
                (ends.is_none() || ends == cut(parts, new))
                    && (inner.is_empty() || inner.is_subset(&self::inner(parts, new)))
            },
        )
    }
}

/// The part of the pattern before which the text ends, for the longest beginning of it, and what it
/// has of that part's word.
fn cut<'t>(parts: &'t [Part], text: &'t Text) -> Option<(usize, Option<&'t Piece>)> {
    let search = Search::new(parts, text, (false, text.joins.1));
    let part = (0..text.pieces.len()).find_map(|at| match search.fit(0, at) {
        Fit::Cut(part) => Some(part),
        Fit::No | Fit::Whole => None,
    })?;
    Some((part, search.half_word(part)))
}

/// Where a text begins and ends within a pattern, and its words there.
type Inner<'t> = (usize, usize, Option<&'t Piece>, Option<&'t Piece>);

/// Between which parts the whole text may lie, if it has something of the pattern.
fn inner<'t>(parts: &'t [Part], text: &'t Text) -> BTreeSet<Inner<'t>> {
    let search = Search::new(parts, text, text.joins);
    let mut found = BTreeSet::new();
    for (from, part) in parts.iter().enumerate().filter(|_| !text.pieces.is_empty()) {
        let least = if matches!(part, Part::Piece(_)) { from } else { from + 1 };
        match search.fit(from, 0) {
            Fit::Cut(to) if to > least || to == from && least == from => {
                let first = text.pieces.first().filter(|_| text.joins.0 && to > from);
                found.insert((from, to, first, search.half_word(to)));
            }
            Fit::Cut(_) | Fit::No | Fit::Whole => {}
        }
    }
    found
}

// === impl Search ===

impl<'a> Search<'a> {
    fn new(parts: &'a [Part], text: &'a Text, joins: (bool, bool)) -> Self {
        Self { parts, pieces: &text.pieces, joins, work: Cell::new(0) }
    }

    /// The last piece, if it is the beginning of the word of a part.
    fn half_word(&self, part: usize) -> Option<&'a Piece> {
        let Some(Part::Piece(wanted)) = self.parts.get(part) else { return None };
        let last = self.pieces.last().filter(|_| self.joins.1);
        last.filter(|last| within(wanted, last, (self.pieces.len() == 1, true)))
    }

    fn fit(&self, part: usize, at: usize) -> Fit {
        self.work.set(self.work.get() + 1);
        if self.work.get() >= WORK_MAX {
            return Fit::No;
        }
        let Some(wanted) = self.parts.get(part) else { return Fit::Whole };
        let (least, comma) = match wanted {
            Part::Piece(wanted) => return self.fit_piece(wanted, part, at),
            Part::One => (1, false),
            Part::Many => (0, true),
        };
        let mut best = Fit::No;
        let (mut depth, mut end) = (0_i64, at);
        loop {
            if depth == 0 && end - at >= least {
                match (self.fit(part + 1, end), best) {
                    (Fit::Whole, _) => return Fit::Whole,
                    (Fit::Cut(at), Fit::No) => best = Fit::Cut(at),
                    (Fit::Cut(_) | Fit::No, _) => {}
                }
            }
            let Some(piece) = self.pieces.get(end) else {
                return if best == Fit::No { Fit::Cut(part) } else { best };
            };
            depth += depth_of(piece);
            let separates = matches!(piece, Piece::Sign(',' | ';'));
            if depth < 0 || end - at >= SPAN_PIECES_MAX || depth == 0 && separates && !comma {
                return best;
            }
            end += 1;
        }
    }

    fn fit_piece(&self, wanted: &Piece, part: usize, at: usize) -> Fit {
        let Some(found) = self.pieces.get(at) else { return Fit::Cut(part) };
        if found == wanted {
            return self.fit(part + 1, at + 1);
        }
        let last = at + 1 == self.pieces.len() && self.joins.1;
        let first = at == 0 && self.joins.0;
        match within(wanted, found, (first, last)) {
            // The rest of the word is not seen, and so nor is what follows it.
            true if last && (!first || !ends_with(wanted, found)) => Fit::Cut(part),
            true => self.fit(part + 1, at + 1),
            false => Fit::No,
        }
    }
}

// === impl Part ===

impl Part {
    fn mirrored(&self) -> Self {
        match self {
            Self::Piece(piece) => Self::Piece(mirrored(piece)),
            Self::One => Self::One,
            Self::Many => Self::Many,
        }
    }
}

/// True if `found` may be what is left of the word `wanted` where a text is cut at its beginning,
/// its end or both.
fn within(wanted: &Piece, found: &Piece, (begins, ends): (bool, bool)) -> bool {
    let (Piece::Word(wanted), Piece::Word(found)) = (wanted, found) else { return false };
    match (begins, ends) {
        (true, true) => wanted.contains(found.as_str()),
        (true, false) => wanted.ends_with(found.as_str()),
        (false, true) => wanted.starts_with(found.as_str()),
        (false, false) => false,
    }
}

fn ends_with(wanted: &Piece, found: &Piece) -> bool {
    within(wanted, found, (true, false))
}

fn mirrored(piece: &Piece) -> Piece {
    let turned = |text: &String| text.chars().rev().collect();
    match piece {
        Piece::Word(text) => Piece::Word(turned(text)),
        Piece::Quoted(text) => Piece::Quoted(turned(text)),
        Piece::Sign(sign) => {
            let pair = BRACKETS.iter().find(|(open, close)| open == sign || close == sign);
            Piece::Sign(
                pair.map_or(*sign, |(open, close)| if open == sign { *close } else { *open }),
            )
        }
    }
}

fn depth_of(piece: &Piece) -> i64 {
    let Piece::Sign(sign) = piece else { return 0 };
    let opens = BRACKETS.iter().any(|(open, _)| open == sign);
    let closes = BRACKETS.iter().any(|(_, close)| close == sign);
    i64::from(opens) - i64::from(closes)
}

/// The name of a metavariable: capitals.
fn is_name(piece: &Piece) -> bool {
    let capital = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    matches!(piece, Piece::Word(word) if word.chars().all(capital))
}
