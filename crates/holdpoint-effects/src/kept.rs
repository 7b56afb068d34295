//! Checks that must stay: which calls take a piece of code away, or may.
//!
//! Owns which files are watched and what counts as removal. It must never take text that is not
//! seen for text that keeps the check, nor a check in a comment or a string for one that runs.

mod lexer;
mod pattern;

use self::lexer::{Start, Style, Text};
use self::pattern::Pattern;
use crate::place::{Act, Path, Place, Spot, normalise};
use crate::words::matches;
use crate::{Effects, NoteCode};
use holdpoint_types::{Effect, Verb};
use std::fmt;

pub use self::pattern::PatternFault;

/// A piece of code that must stay where it is.
#[derive(Clone)]
pub struct Keep {
    /// Absolute patterns of paths.
    paths: Vec<String>,
    pattern: Pattern,
}

// === impl Keep ===

impl Keep {
    /// Code like `pattern` must stay in the files that `paths` name: absolute patterns, or relative
    /// to the workspace of `place` or, without one, to its folder, or else to any.
    ///
    /// # Errors
    /// When `pattern` is none.
    pub fn new(paths: &[String], pattern: &str, place: &Place) -> Result<Self, PatternFault> {
        let base = place.workspace.as_ref().or(place.cwd.as_ref());
        let base = base.map_or("/**", |base| base.trim_end_matches('/'));
        let absolute = |path: &String| match path.starts_with('/') {
            true => normalise(path),
            false => normalise(&format!("{base}/{path}")),
        };
        let paths = paths.iter().map(absolute).collect();
        Ok(Self { paths, pattern: Pattern::parse(pattern)? })
    }

    fn names(&self, path: &str) -> bool {
        self.paths.iter().any(|pattern| {
            let folder = pattern.strip_suffix("/**");
            matches(pattern, path) || folder.is_some_and(|folder| matches(folder, path))
        })
    }

    /// True if something that it watches may lie at or below `path`, of which what follows a `*` is
    /// not known. Patterns are compared by what stands before their first wildcard.
    fn may_lie_in(&self, path: &str) -> bool {
        let known = path.split(['*', '?', '[']).next().unwrap_or_default();
        self.paths.iter().any(|pattern| {
            let literal = pattern.split(['*', '?']).next().unwrap_or_default();
            let below = |rest: &str| known.len() < path.len() || rest.starts_with('/');
            known.starts_with(literal) && literal.len() < pattern.len()
                || literal.strip_prefix(known).is_some_and(below)
        })
    }

    /// Why texts that replace others may take the code away.
    fn loses(&self, path: &str, edits: &[(&str, &str)]) -> Option<&'static str> {
        let edits: Vec<_> = edits.iter().copied().filter(|(old, new)| old != new).collect();
        Style::of(path).into_iter().find_map(|style| {
            let cuts = edits.iter().find_map(|(old, new)| self.cuts(style, old, new));
            cuts.or_else(|| style.starts().find_map(|start| self.fewer(style, start, &edits)))
        })
    }

    /// Why there may be fewer of it, if each of the texts begins like this.
    fn fewer(&self, style: &Style, start: Start, edits: &[(&str, &str)]) -> Option<&'static str> {
        let count = |text: &str| {
            self.pattern.count(&Text::read_from(start, text, style)).ok_or("too much to look for")
        };
        // Each alone: what another edit puts somewhere else may do nothing there.
        let mut begins = edits.iter().filter(|(old, _)| style.may_begin(start, old));
        begins.find_map(|(old, new)| match (count(old), count(new)) {
            (Ok(old), Ok(new)) => (new < old).then_some("an edit takes away"),
            (Err(why), _) | (_, Err(why)) => Some(why),
        })
    }

    /// Why `new` in place of `old` may change what stands before and behind it.
    fn cuts(&self, style: &'static Style, old: &str, new: &str) -> Option<&'static str> {
        let (old_text, new_text) = (Text::read(old, style), Text::read(new, style));
        let odd = old_text.odd.0 + new_text.odd.0 > 0 || old_text.odd.1 != new_text.odd.1;
        let open = old_text.open.is_some_and(|open| !style.is_line(open));
        // What stands in a string may be the whole of the old text.
        let within = !old.contains(['\n', '"', '\'', '`']);
        let inside = style.starts().filter(|start| match start {
            Start::Code => false,
            Start::Comment => style.may_begin(*start, old),
            Start::Quoted(_) => within && !(style.ends_with_line(*start) && new.contains('\n')),
        });
        let mut inside = inside.map(|start| {
            let ends = |text| Text::read_from(start, text, style).open;
            // A comment that ends earlier than before hides nothing.
            ends(old) == ends(new) || start == Start::Comment && ends(new).is_none()
        });
        if odd || open || old_text.open != new_text.open || inside.any(|same| !same) {
            return Some("a comment or string may be left open beside");
        }
        if old_text.balance() != new_text.balance() {
            return Some("a bracket is left open beside");
        }
        let stays = self.pattern.edges_stay(&old_text, &new_text) && !joins(style, old, new);
        (!stays).then_some("an edit cuts through")
    }

    fn is_in(&self, path: &str, contents: &str) -> bool {
        Style::of(path).iter().all(|style| {
            let found = self.pattern.count(&Text::read(contents, style));
            found.is_some_and(|found| found > 0)
        })
    }

    fn note(&self, why: &str, path: &str, effects: &mut Effects) {
        let pattern = self.pattern.as_str();
        effects.note(NoteCode::CheckRemoved, format!("{why} `{pattern}`: {path}"));
    }
}

impl fmt::Debug for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {:?}", self.pattern.as_str(), self.paths)
    }
}

/// True if the edges of `new` may make another word or sign with what stands beside them than those
/// of `old` did.
fn joins(style: &Style, old: &str, new: &str) -> bool {
    let edges = |text: &str| (text.chars().next(), text.chars().next_back());
    let ((old_first, old_last), (first, last)) = (edges(old), edges(new));
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let edge =
        |old: Option<char>, new: Option<char>| old != new && new.is_some_and(|c| style.is_edge(c));
    let ends = |c: char| is_word(c) || ")]}\"'`,;".contains(c);
    let glued = last.is_some_and(is_word) && !old_last.is_some_and(ends);
    let closed = new.is_empty()
        && old_last != Some('\n')
        && !old_first.is_some_and(is_word)
        && !old_last.is_some_and(ends);
    // Two quotes at an edge may be a part of three.
    let quotes = |text: &str| {
        let run = |signs: &mut dyn Iterator<Item = char>| {
            let first = signs.next().filter(|c| "\"'`".contains(*c))?;
            (signs.next() == Some(first)).then_some(first)
        };
        (run(&mut text.chars()), run(&mut text.chars().rev()))
    };
    let torn = quotes(old) != quotes(new);
    edge(old_first, first) || edge(old_last, last) || glued || closed || torn
}

/// Notes what `act` on the file or folder at `path` takes away.
pub(crate) fn touched(spot: &Spot<'_>, act: &Act, path: &Path, effects: &mut Effects) {
    for keep in watching(spot) {
        let certain = path.rooted && !path.bounded;
        let named = certain && keep.names(&path.text);
        // What has no extension may be a folder.
        let name = path.text.rsplit('/').next().unwrap_or_default();
        let inside = || !path.rooted || keep.may_lie_in(&path.text);
        let why = match act {
            Act::Read | Act::Create | Act::Append(_) => continue,
            Act::Write(Some(contents)) if named && !contents.is_unknown() => {
                if keep.is_in(&path.text, &contents.text) {
                    continue;
                }
                "what is written does not have"
            }
            Act::Write(_) if named || !certain && inside() => "what is written is not seen to have",
            Act::Delete if named || !certain && inside() => "a deletion takes away",
            Act::DeleteTree if named || inside() => "a deletion takes away",
            Act::Update | Act::Replace | Act::Grant if named => "a change or move may take away",
            Act::Update | Act::Replace if (!certain || !name.contains('.')) && inside() => {
                "a change or move may take away"
            }
            Act::Write(_)
            | Act::Delete
            | Act::DeleteTree
            | Act::Update
            | Act::Replace
            | Act::Grant => continue,
        };
        keep.note(why, &path.text, effects);
    }
}

/// Notes what an edit of the file at `path` takes away: each pair is a text and what comes in its
/// place; without any, what is replaced is not known.
pub(crate) fn edited(
    spot: &Spot<'_>,
    path: &Path,
    edits: Option<&[(&str, &str)]>,
    effects: &mut Effects,
) {
    for keep in watching(spot) {
        if path.rooted && !path.bounded && !keep.names(&path.text) {
            continue;
        }
        let why = match edits {
            Some(edits) => keep.loses(&path.text, edits),
            None => Some("it is not told what is replaced, which may have"),
        };
        if let Some(why) = why {
            keep.note(why, &path.text, effects);
        }
    }
}

/// Notes what is changed of which not even the folder is known: `patch`, `unzip`.
pub(crate) fn anywhere(place: &Place, effects: &mut Effects) {
    let changes = |effect: &Effect| {
        matches!(effect.verb, Verb::Update | Verb::Delete) && effect.resource == "file:///*"
    };
    if let Some(keep) = place.keeps.first()
        && effects.iter().any(changes)
    {
        keep.note("files are changed that are not told, and may have", "*", effects);
    }
}

/// The rules for files of this host.
fn watching<'a>(spot: &Spot<'a>) -> impl Iterator<Item = &'a Keep> {
    let own = spot.host == spot.place.host.as_deref();
    spot.place.keeps.iter().filter(move |_| own)
}

#[cfg(test)]
mod tests;
