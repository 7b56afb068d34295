//! Patches: unified diffs, with or without git's headings, and the envelope of `apply_patch`.
//!
//! Owns which files a patch touches and what it puts in place of what. It must never skip a line
//! that it does not understand within a file's part: that makes the patch unreadable.

use crate::kept;
use crate::place::{Act, Place};
use crate::words::Arg;
use crate::{Effects, NoteCode, TEXT_BYTES_MAX};

/// Most files of one patch.
const FILES_MAX: usize = 64;

/// What a patch does to one file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Change {
    /// The file before; none if it is made.
    from: Option<String>,
    /// The file after; none if it is deleted.
    to: Option<String>,
    /// What each hunk takes away and puts there, with the lines around it.
    hunks: Vec<(String, String)>,
    /// What it puts there is not shown.
    binary: bool,
}

/// Adds what applying `text` does: a unified diff, or an `apply_patch` envelope.
pub fn patch(text: &str, place: &Place, effects: &mut Effects) {
    let opaque = |effects: &mut Effects, code, why: &str| {
        effects.add_opaque("file:///*", code, why);
    };
    if text.len() > TEXT_BYTES_MAX {
        return opaque(effects, NoteCode::TooLarge, "the patch is too long");
    }
    let text = text.replace("\r\n", "\n");
    let envelope = text.trim_start().starts_with("*** Begin Patch");
    match if envelope { enveloped(&text) } else { unified(&text) } {
        Some(changes) if changes.len() > FILES_MAX => {
            opaque(effects, NoteCode::TooLarge, "the patch has too many files");
        }
        Some(changes) if !changes.is_empty() => {
            changes.iter().for_each(|change| apply(change, place, effects));
        }
        Some(_) | None => opaque(effects, NoteCode::Unreadable, "no patch that can be read"),
    }
}

fn apply(change: &Change, place: &Place, effects: &mut Effects) {
    let spot = place.spot();
    let mut touch = |act: Act, file: &str| {
        spot.touch(act, &Arg::known(file), "changed by the patch", effects);
    };
    let added: String = change.hunks.iter().map(|(_, new)| new.as_str()).collect();
    match (&change.from, &change.to) {
        (Some(from), Some(to)) => {
            if from != to {
                touch(Act::Update, from);
                touch(Act::Replace, to);
            }
            if change.binary {
                return touch(Act::Write(None), to);
            }
            touch(Act::Append(Some(Arg::known(added))), to);
            let hunks: Vec<_> =
                change.hunks.iter().map(|(old, new)| (old.as_str(), new.as_str())).collect();
            kept::edited(&spot, &spot.path(&Arg::known(from.as_str())), Some(&hunks), effects);
        }
        (Some(from), None) => touch(Act::Delete, from),
        (None, Some(to)) if change.binary => touch(Act::Write(None), to),
        (None, Some(to)) => touch(Act::Write(Some(Arg::known(added))), to),
        (None, None) => {}
    }
}

/// The changes of a unified diff; none if it is not one.
fn unified(text: &str) -> Option<Vec<Change>> {
    let mut changes: Vec<Change> = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("diff --git ") {
            let (from, to) = git_names(rest)?;
            changes.push(Change { from: Some(from), to: Some(to), ..Change::default() });
        } else if let Some(from) = line.strip_prefix("--- ") {
            let to = lines.next()?.strip_prefix("+++ ")?;
            let (from, to) = (name(from)?, name(to)?);
            let headed = changes.last().is_some_and(|change| {
                change.hunks.is_empty()
                    && !change.binary
                    && line_follows_heading(change, &from, &to)
            });
            if !headed {
                changes.push(Change::default());
            }
            let change = changes.last_mut()?;
            (change.from, change.to) = (from, to);
        } else if let Some(header) = line.strip_prefix("@@ ") {
            let (old, new) = counts(header)?;
            let hunk = hunk(&mut lines, (old, new))?;
            changes.last_mut()?.hunks.push(hunk);
        } else if line.starts_with("new file mode") {
            changes.last_mut()?.from = None;
        } else if line.starts_with("deleted file mode") {
            changes.last_mut()?.to = None;
        } else if let Some(from) = line.strip_prefix("rename from ") {
            changes.last_mut()?.from = Some(from.to_owned());
        } else if let Some(to) = line.strip_prefix("rename to ") {
            changes.last_mut()?.to = Some(to.to_owned());
        } else if line.starts_with("Binary files ") || line == "GIT binary patch" {
            changes.last_mut()?.binary = true;
        } else if line.starts_with(['+', '-', '@']) && line != "-- " && line != "---" {
            // A line of a hunk that no heading counts.
            return None;
        }
    }
    Some(changes)
}

/// True if `---` and `+++` belong to the `diff --git` before them.
fn line_follows_heading(change: &Change, from: &Option<String>, to: &Option<String>) -> bool {
    let same = |a: &Option<String>, b: &Option<String>| a.is_none() || b.is_none() || a == b;
    same(&change.from, from) && same(&change.to, to)
}

/// `a/x b/x`, or with quotes where a name has odd signs.
fn git_names(rest: &str) -> Option<(String, String)> {
    let middle = rest.match_indices(" b/").map(|(at, _)| at);
    let mut pairs = middle.filter_map(|at| {
        let (from, to) = rest.split_at_checked(at)?;
        Some((from.strip_prefix("a/")?.to_owned(), to.strip_prefix(" b/")?.to_owned()))
    });
    let first = pairs.next()?;
    // A name with ` b/` in it is told by both being the same.
    let same = pairs.find(|(from, to)| from == to);
    Some(if first.0 == first.1 { first } else { same.unwrap_or(first) })
}

/// `a/x`, without a time behind it; none within if there is no such file.
fn name(text: &str) -> Option<Option<String>> {
    let text = text.split('\t').next().unwrap_or(text).trim_end();
    if text.starts_with('"') || text.is_empty() {
        return None;
    }
    if text == "/dev/null" {
        return Some(None);
    }
    let bare = text.strip_prefix("a/").or_else(|| text.strip_prefix("b/")).unwrap_or(text);
    Some(Some(bare.to_owned()))
}

/// How many lines a hunk has before and after: `-1,3 +1,4 @@`.
fn counts(header: &str) -> Option<(usize, usize)> {
    let mut words = header.split(' ');
    let mut count = |sign: char| {
        let range = words.next()?.strip_prefix(sign)?;
        range.split_once(',').map_or(Some(1), |(_, count)| count.parse().ok())
    };
    let found = (count('-')?, count('+')?);
    (words.next() == Some("@@")).then_some(found)
}

fn hunk<'t>(
    lines: &mut std::iter::Peekable<impl Iterator<Item = &'t str>>,
    (mut old_left, mut new_left): (usize, usize),
) -> Option<(String, String)> {
    let (mut old, mut new) = (String::new(), String::new());
    let push = |text: &mut String, line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    while old_left > 0 || new_left > 0 {
        let line = lines.next()?;
        let (sign, rest) = match line.chars().next() {
            Some(sign) => (sign, line.get(1..).unwrap_or_default()),
            None => (' ', ""),
        };
        if matches!(sign, ' ' | '-') {
            old_left = old_left.checked_sub(1)?;
            push(&mut old, rest);
        }
        if matches!(sign, ' ' | '+') {
            new_left = new_left.checked_sub(1)?;
            push(&mut new, rest);
        }
        if !matches!(sign, ' ' | '-' | '+' | '\\') {
            return None;
        }
    }
    Some((old, new))
}

/// The changes of an `apply_patch` envelope; none if it is not one.
fn enveloped(text: &str) -> Option<Vec<Change>> {
    let mut changes: Vec<Change> = Vec::new();
    let mut lines = text.trim().lines().skip(1);
    loop {
        let line = lines.next()?;
        let named = |prefix: &str| line.strip_prefix(prefix).map(|name| name.trim().to_owned());
        if line == "*** End Patch" {
            return lines.next().is_none().then_some(changes);
        } else if let Some(to) = named("*** Add File: ") {
            changes.push(Change { to: Some(to), ..Change::default() });
        } else if let Some(from) = named("*** Delete File: ") {
            changes.push(Change { from: Some(from), ..Change::default() });
        } else if let Some(name) = named("*** Update File: ") {
            changes.push(Change { from: Some(name.clone()), to: Some(name), ..Change::default() });
        } else if let Some(to) = named("*** Move to: ") {
            changes.last_mut()?.to = Some(to);
        } else if line.starts_with("@@") {
            changes.last_mut()?.hunks.push(Default::default());
        } else if line != "*** End of File" {
            let change = changes.last_mut()?;
            if change.hunks.is_empty() {
                change.hunks.push(Default::default());
            }
            let (old, new) = change.hunks.last_mut()?;
            let (sign, rest) = line.split_at_checked(1).unwrap_or((" ", ""));
            for (text, signs) in [(old, " -"), (new, " +")] {
                if signs.contains(sign) {
                    text.push_str(rest);
                    text.push('\n');
                }
            }
            if !" +-".contains(sign) {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests;
