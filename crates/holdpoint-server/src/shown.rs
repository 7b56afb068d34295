//! What others wrote, as people may see it: on a terminal, on a page, in a message.
//!
//! Owns which characters are never shown as they are, and what of a change is shown. Must not know
//! where it is shown: a page and a message escape further.

use holdpoint_resources::resource::Change;
use holdpoint_types::{ChangeCounts, PreviewFacts};
use serde_json::Value;
use similar::{ChangeTag, TextDiff};
use std::fmt::Write as _;

/// Most changes of a preview that are shown.
pub const CHANGES_MAX: usize = 200;
/// Longest text that is shown in full, in characters.
const WHOLE_CHARS_MAX: usize = 20_000;
/// Most lines of one change.
const LINES_MAX: usize = 60;
/// Longest line, in characters.
const LINE_CHARS_MAX: usize = 200;

/// On which side of a difference a line stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It would be gone.
    Before,
    /// It would be new.
    After,
    /// It stays.
    Both,
}

/// What a change changes, line by line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The first lines, each with its sign, visible and shortened.
    pub lines: Vec<(Side, String)>,
    /// How many more there are.
    pub more: usize,
}

// === impl Side ===

impl Side {
    fn sign(self) -> char {
        match self {
            Self::Before => '-',
            Self::After => '+',
            Self::Both => ' ',
        }
    }
}

// === impl Difference ===

impl Difference {
    /// What `change` changes.
    pub fn of(change: &Change) -> Self {
        let mut lines = Vec::new();
        let (mut before, mut after) = (change.before.clone(), change.after.clone());
        let diff = after.as_mut().and_then(|after| taken_out(&mut before, after));
        sides("", before.as_ref(), after.as_ref(), &mut lines);
        lines.extend(diff.iter().flat_map(|diff| signed(diff)));
        let more = lines.len().saturating_sub(LINES_MAX);
        lines.truncate(LINES_MAX);
        let shown = lines.into_iter().map(|(side, line)| {
            (side, format!("{}{}", side.sign(), shortened(&line, LINE_CHARS_MAX)))
        });
        Self { lines: shown.collect(), more }
    }
}

/// How much a call would change, as its preview says.
pub fn counted(known: &PreviewFacts) -> String {
    let exact = if known.exact { "exactly" } else { "at least" };
    let ChangeCounts { created, updated, deleted } = known.counts;
    format!("{exact}: make {created}, change {updated}, delete {deleted}")
}

/// `text` on one line, without anything that could move a cursor, hide or reorder what is shown.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for found in text.chars() {
        push_visible(&mut shown, found);
    }
    shown
}

/// The first `chars_max` characters of `text`, visible, and how many more there are.
pub fn shortened(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => visible(text),
        Some((end, _)) => {
            let rest = text.get(end..).map_or(0, |rest| rest.chars().count());
            format!("{}… ({rest} more characters)", visible(text.get(..end).unwrap_or(text)))
        }
    }
}

/// The lines of a text that is shown in full, visible. The last one says how much is not shown:
/// nobody shall take a part for all of it.
pub fn whole(text: &str) -> Vec<String> {
    let shown: String = text.chars().take(WHOLE_CHARS_MAX).collect();
    let mut lines: Vec<_> = shown.lines().map(visible).collect();
    let more = text.chars().skip(WHOLE_CHARS_MAX).count();
    if more > 0 {
        lines.push(format!("… ({more} more characters, which `--format json` shows)"));
    }
    lines
}

/// Control characters, and characters that are invisible or change the direction of text.
pub fn is_hidden(found: char) -> bool {
    found.is_control()
        || matches!(found,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

fn push_visible(shown: &mut String, found: char) {
    match found {
        '\n' => shown.push_str("\\n"),
        '\r' => shown.push_str("\\r"),
        '\t' => shown.push_str("\\t"),
        _ if is_hidden(found) => {
            // Writing into a string cannot fail.
            let _ = write!(shown, "\\u{{{:x}}}", u32::from(found));
        }
        _ => shown.push(found),
    }
}

/// The diff of a file, taken out of what it becomes; with it goes what says the same of both sides
/// in other words, and a mode that nobody foresaw.
fn taken_out(before: &mut Option<Value>, after: &mut Value) -> Option<String> {
    let after = after.as_object_mut()?;
    if after.get("kind").and_then(Value::as_str) != Some("file") {
        return None;
    }
    let Value::String(diff) = after.remove("diff")? else { return None };
    let mut before = before.as_mut().and_then(Value::as_object_mut);
    if !after.contains_key("mode")
        && let Some(before) = &mut before
    {
        before.remove("mode");
    }
    for side in [Some(after), before].into_iter().flatten() {
        side.remove("digest");
        side.remove("bytes");
    }
    Some(diff)
}

/// The lines of a unified diff, without its head.
fn signed(diff: &str) -> impl Iterator<Item = (Side, String)> {
    let hunks = diff.lines().skip_while(|line| !line.starts_with("@@"));
    hunks.enumerate().filter_map(|(at, line)| {
        let side = match line.as_bytes().first()? {
            b'-' => Side::Before,
            b'+' => Side::After,
            // The first hunk begins by itself.
            b'@' if at == 0 => return None,
            b'@' => return Some((Side::Both, "…".to_owned())),
            _ => Side::Both,
        };
        Some((side, line.get(1..)?.to_owned()))
    })
}

/// What differs between two values, member by member and line by line.
fn sides(
    name: &str,
    before: Option<&Value>,
    after: Option<&Value>,
    lines: &mut Vec<(Side, String)>,
) {
    if before == after {
        return;
    }
    let members = |value: Option<&Value>| value.and_then(Value::as_object).cloned();
    match (members(before), members(after)) {
        (Some(_), None) | (None, Some(_)) | (Some(_), Some(_))
            if before.is_none_or(Value::is_object) && after.is_none_or(Value::is_object) =>
        {
            let (before, after) = (members(before).unwrap_or_default(), members(after));
            let after = after.unwrap_or_default();
            let new = after.keys().filter(|key| !before.contains_key(*key));
            for key in before.keys().chain(new) {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                sides(&name, before.get(key), after.get(key), lines);
            }
        }
        _ => values(name, (before, after), lines),
    }
}

fn values(
    name: &str,
    (before, after): (Option<&Value>, Option<&Value>),
    lines: &mut Vec<(Side, String)>,
) {
    let long = |value: Option<&Value>| {
        value.and_then(Value::as_str).is_some_and(|text| text.contains('\n'))
    };
    if long(before) || long(after) {
        let text =
            |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let (old, new) = (text(before), text(after));
        let difference = TextDiff::from_lines(&old, &new);
        for hunk in difference.unified_diff().context_radius(2).iter_hunks() {
            for change in hunk.iter_changes() {
                let side = match change.tag() {
                    ChangeTag::Delete => Side::Before,
                    ChangeTag::Insert => Side::After,
                    ChangeTag::Equal => Side::Both,
                };
                lines.push((side, change.value().trim_end_matches('\n').to_owned()));
            }
        }
        return;
    }
    let name = if name.is_empty() { String::new() } else { format!("{name}: ") };
    for (value, side) in [(before, Side::Before), (after, Side::After)] {
        if let Some(value) = value {
            lines.push((side, format!("{name}{value}")));
        }
    }
}
