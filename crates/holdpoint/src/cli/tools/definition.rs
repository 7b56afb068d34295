//! A tool's definition, and what changed in it, as text. Must not say whether a change is good.

use crate::cli::look::{Look, Tone, escaped};
use holdpoint_types::canonical_bytes;
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

/// How many unchanged lines are shown around a change.
const AROUND: usize = 3;

/// The definition with sorted keys, a line for each value.
pub fn pretty(definition: &Value) -> String {
    let lines: Vec<_> = sorted(definition).lines().map(escaped).collect();
    lines.join("\n") + "\n"
}

/// What changed from `pinned` to `seen`, line by line.
pub fn changes(pinned: &Value, seen: &Value, look: &Look) -> String {
    let (pinned, seen) = (sorted(pinned), sorted(seen));
    let diff = TextDiff::from_lines(&pinned, &seen);
    let mut text = String::new();
    for (number, group) in diff.grouped_ops(AROUND).iter().enumerate() {
        if number > 0 {
            text.push_str("  …\n");
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let (tone, mark) = match change.tag() {
                ChangeTag::Equal => (Tone::Plain, ' '),
                ChangeTag::Delete => (Tone::Bad, '-'),
                ChangeTag::Insert => (Tone::Good, '+'),
            };
            let line = escaped(change.value().trim_end_matches('\n'));
            text.push_str(&look.paint(tone, &format!("{mark} {line}")));
            text.push('\n');
        }
    }
    text
}

/// Sorted keys, so that only what the digest covers shows as a change.
fn sorted(definition: &Value) -> String {
    let canonical = canonical_bytes(definition).ok();
    let canonical: Option<Value> = canonical.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    format!("{:#}\n", canonical.as_ref().unwrap_or(definition))
}
