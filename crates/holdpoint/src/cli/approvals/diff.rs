//! A preview for people: what would be made, changed and deleted, side by side. Must not show what
//! was redacted, nor let a value write to the terminal.

use crate::cli::look::{Look, Tone, count, escaped, shortened};
use holdpoint_resources::resource::{Change, Preview};
use serde_json::Value;

/// Most changes that are shown.
const CHANGES_MAX: usize = 200;
/// Most lines of one change.
const LINES_MAX: usize = 60;
/// Longest line, in characters.
const LINE_CHARS_MAX: usize = 200;

/// The whole of a preview.
pub fn render(preview: &Preview, look: &Look) -> String {
    let mut text = String::new();
    for change in preview.changes.iter().take(CHANGES_MAX) {
        text.push_str(&one(change, look));
    }
    let more = preview.changes.len().saturating_sub(CHANGES_MAX);
    if more > 0 {
        let more = count(u64::try_from(more).unwrap_or(u64::MAX), "more change");
        text.push_str(&format!("    … {more}; `--format json` shows all\n"));
    }
    for note in &preview.notes {
        let note = escaped(note);
        text.push_str(&format!("    {} {note}\n", look.paint(Tone::Careful, "note")));
    }
    text
}

/// One change on a line, without what it is made of.
pub fn headline(change: &Change, look: &Look) -> String {
    let (tone, word) = match (&change.before, &change.after) {
        (None, _) => (Tone::Good, "create"),
        (Some(_), Some(_)) => (Tone::Careful, "change"),
        (Some(_), None) => (Tone::Bad, "delete"),
    };
    format!("{} {}", look.paint(tone, word), escaped(&change.resource))
}

fn one(change: &Change, look: &Look) -> String {
    let mut lines = Vec::new();
    sides("", change.before.as_ref(), change.after.as_ref(), &mut lines);
    let mut text = format!("    {}\n", headline(change, look));
    for (tone, line) in lines.iter().take(LINES_MAX) {
        let line = shortened(line, LINE_CHARS_MAX);
        text.push_str(&format!("      {}\n", look.paint(*tone, &line)));
    }
    if lines.len() > LINES_MAX {
        text.push_str(&format!("      … {} more lines\n", lines.len() - LINES_MAX));
    }
    text
}

/// What differs between two values, member by member and line by line.
fn sides(
    name: &str,
    before: Option<&Value>,
    after: Option<&Value>,
    lines: &mut Vec<(Tone, String)>,
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
    lines: &mut Vec<(Tone, String)>,
) {
    let long = |value: Option<&Value>| {
        value.and_then(Value::as_str).is_some_and(|text| text.contains('\n'))
    };
    if long(before) || long(after) {
        let text =
            |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let (old, new) = (text(before), text(after));
        let difference = similar::TextDiff::from_lines(&old, &new);
        for hunk in difference.unified_diff().context_radius(2).iter_hunks() {
            for change in hunk.iter_changes() {
                let (tone, sign) = match change.tag() {
                    similar::ChangeTag::Delete => (Tone::Bad, '-'),
                    similar::ChangeTag::Insert => (Tone::Good, '+'),
                    similar::ChangeTag::Equal => (Tone::Dim, ' '),
                };
                let line = change.value().trim_end_matches('\n');
                lines.push((tone, format!("{sign}{}", escaped(line))));
            }
        }
        return;
    }
    let name = if name.is_empty() { String::new() } else { format!("{}: ", escaped(name)) };
    for (side, tone, sign) in [(before, Tone::Bad, '-'), (after, Tone::Good, '+')] {
        if let Some(value) = side {
            lines.push((tone, format!("{sign}{name}{}", escaped(&value.to_string()))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::render;
    use crate::cli::look::tests::look;
    use expect_test::expect;
    use holdpoint_resources::resource::{Change, Preview};
    use holdpoint_types::{Disclosure, Reversibility};
    use serde_json::json;

    #[test]
    fn a_preview_shows_what_differs_and_nothing_else() {
        let change =
            |resource: &str, before, after| Change { resource: resource.to_owned(), before, after };
        let text = |text: &str| Some(json!({ "text": text, "mode": 420 }));
        let preview = Preview {
            changes: vec![
                change(
                    "pg://x/public.users/id=7",
                    Some(json!({ "id": 7, "name": "ada", "role": null })),
                    Some(json!({ "id": 7, "name": "Ada\u{1b}[2J", "role": "admin" })),
                ),
                change("pg://x/public.users/id=8", Some(json!({ "id": 8 })), None),
                change("file:///srv/a", text("one\ntwo\nthree\n"), text("one\n2\nthree\n")),
            ],
            exact: true,
            guarantee: Reversibility::Exact,
            until: None,
            disclosure: Disclosure::Contained,
            notes: vec!["a sequence moves on".to_owned()],
        };
        expect![[r#"
            would do
                change pg://x/public.users/id=7
                  -name: "ada"
                  +name: "Ada\u001b[2J"
                  -role: null
                  +role: "admin"
                delete pg://x/public.users/id=8
                  -id: 8
                change file:///srv/a
                   one
                  -two
                  +2
                   three
                note a sequence moves on
        "#]]
        .assert_eq(&format!("would do\n{}", render(&preview, &look())));
    }
}
