//! A preview for people: what would be made, changed and deleted, side by side. Must not show what
//! was redacted, nor let a value write to the terminal.

use crate::cli::look::{Look, Tone, count, escaped};
use holdpoint_resources::resource::{Change, Preview};
use holdpoint_server::shown::{CHANGES_MAX, Difference, Side};

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
    let Difference { lines, more } = Difference::of(change);
    let mut text = format!("    {}\n", headline(change, look));
    for (side, line) in &lines {
        let tone = match side {
            Side::Before => Tone::Bad,
            Side::After => Tone::Good,
            Side::Both => Tone::Dim,
        };
        text.push_str(&format!("      {}\n", look.paint(tone, line)));
    }
    if more > 0 {
        text.push_str(&format!("      … {more} more lines\n"));
    }
    text
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
        let diff = "--- /srv/b\n+++ /srv/b\n@@ -1,2 +1,2 @@\n one\n-two\n+2\n@@ -9 +9 @@\n-x\n\
                    +--- y\n\\ No newline at end of file\n";
        let preview = Preview {
            changes: vec![
                change(
                    "pg://x/public.users/id=7",
                    Some(json!({ "id": 7, "name": "ada", "role": null })),
                    Some(json!({ "id": 7, "name": "Ada\u{1b}[2J", "role": "admin" })),
                ),
                change("pg://x/public.users/id=8", Some(json!({ "id": 8 })), None),
                change("file:///srv/a", text("one\ntwo\nthree\n"), text("one\n2\nthree\n")),
                change(
                    "file:///srv/b",
                    Some(
                        json!({ "kind": "file", "digest": "sha256:1", "bytes": 9, "mode": "0644" }),
                    ),
                    Some(json!({ "kind": "file", "digest": "sha256:2", "bytes": 9, "diff": diff })),
                ),
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
                change file:///srv/b
                   one
                  -two
                  +2
                   …
                  -x
                  +--- y
                    No newline at end of file
                note a sequence moves on
        "#]]
        .assert_eq(&format!("would do\n{}", render(&preview, &look())));
    }
}
