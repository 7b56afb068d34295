//! Takes secrets out of previews before anybody looks at them. Must not change what is executed or
//! what is captured: only what is shown.

use crate::resource::{Change, Preview};
use holdpoint_types::Digest;
use serde_json::Value;

/// Parts of names whose values are secrets.
const SECRET_NAMES: [&str; 13] = [
    "password",
    "passwd",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "private_key",
    "privatekey",
    "credential",
    "authorization",
    "access_key",
    "connection_string",
];
/// How the texts of well-known kinds of secrets begin.
const SECRET_BEGINNINGS: [&str; 13] = [
    "-----BEGIN ",
    "AKIA",
    "ASIA",
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "sk-",
    "hp_",
    "eyJhbGciOi",
];
/// Shortest text that counts as one of those, in bytes.
const SECRET_BYTES_MIN: usize = 16;

/// `preview` as it may be shown. A hidden value still shows whether it changes: equal values have
/// equal marks, in this preview only.
#[must_use]
pub fn redacted(mut preview: Preview) -> Preview {
    for Change { resource, before, after } in &mut preview.changes {
        *resource = without_secret(resource);
        let named = is_secret_name(resource.rsplit(['/', '.']).next().unwrap_or_default());
        for side in [before, after].into_iter().flatten() {
            hide(side, named);
        }
    }
    preview
}

/// `value` as it may be told to others.
#[must_use]
pub fn redacted_value(mut value: Value) -> Value {
    hide(&mut value, false);
    value
}

/// `text` as it may be told to others.
#[must_use]
pub fn redacted_text(text: &str) -> String {
    let mut told = without_secret(text);
    hide_in(&mut told);
    told
}

fn hide(value: &mut Value, secret: bool) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                hide(value, secret || is_secret_name(name));
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|value| hide(value, secret)),
        Value::String(text) => {
            if secret {
                *text = mark(text);
            } else {
                hide_in(text);
            }
        }
        Value::Number(_) if secret => *value = mark(&value.to_string()).into(),
        Value::Number(_) | Value::Bool(_) | Value::Null => {}
    }
}

/// An address without the value of a key that is a secret: `…/sess/token=ghp_…`.
fn without_secret(resource: &str) -> String {
    let Some((before, key)) = resource.rsplit_once('/') else { return resource.to_owned() };
    let parts = key.split(',').map(|part| match part.split_once('=') {
        Some((name, value)) if is_secret_name(name) || looks_secret(value) => {
            format!("{name}={}", mark(value))
        }
        Some(_) | None => part.to_owned(),
    });
    format!("{before}/{}", parts.collect::<Vec<_>>().join(","))
}

/// Hides what looks like a secret inside a longer text, and the right side of `NAME=secret` and
/// `name: secret` lines.
fn hide_in(text: &mut String) {
    if !text.contains(['\n', ' ', '=', ':']) {
        if looks_secret(text) {
            *text = mark(text);
        }
        return;
    }
    if text.contains("-----BEGIN ") && text.contains("PRIVATE KEY") {
        *text = mark(text);
        return;
    }
    let lines = text.split_inclusive('\n').map(|line| {
        let sides = line.split_once(['=', ':']);
        if let Some((name, value)) = sides
            && is_secret_name(name)
            && !value.trim().is_empty()
        {
            let kept = line.len() - value.len();
            let end = if line.ends_with('\n') { "\n" } else { "" };
            return format!("{}{}{end}", line.get(..kept).unwrap_or_default(), mark(value.trim()));
        }
        let words = line.split_inclusive(' ').map(|word| {
            let bare =
                word.trim_matches(|found: char| found.is_whitespace() || "\"',;".contains(found));
            if looks_secret(bare) { word.replace(bare, &mark(bare)) } else { word.to_owned() }
        });
        words.collect::<String>()
    });
    *text = lines.collect();
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|part| name.contains(part))
}

fn looks_secret(text: &str) -> bool {
    text.len() >= SECRET_BYTES_MIN
        && SECRET_BEGINNINGS.iter().any(|beginning| text.starts_with(beginning))
}

/// What is shown in place of a secret: enough to see that two differ, too little to guess one.
fn mark(text: &str) -> String {
    let digest = Digest::of(text.as_bytes()).to_string();
    let short: String = digest.chars().skip("sha256:".len()).take(4).collect();
    format!("‹hidden {short}›")
}

#[cfg(test)]
mod tests {
    use super::{redacted, redacted_text, redacted_value};
    use crate::resource::{Change, Preview};
    use holdpoint_types::{Disclosure, Reversibility};
    use serde_json::json;

    fn preview(changes: Vec<Change>) -> Preview {
        Preview {
            changes,
            exact: true,
            guarantee: Reversibility::Exact,
            until: None,
            disclosure: Disclosure::Contained,
            notes: Vec::new(),
        }
    }

    #[test]
    fn secrets_do_not_show_and_everything_else_does() {
        let row = json!({
            "id": 7, "name": "ada", "password_hash": "$2b$12$aaaaaaaaaaaaaaa", "pin_token": 1234,
            "notes": "uses ghp_0123456789abcdefghij now",
            "config": { "api_key": ["k-1"], "url": "https://example.com/a=b" },
        });
        let env = "HOST=db\nDB_PASSWORD=hunter2hunter2\n# end\n";
        let change = |resource: &str, after| Change {
            resource: resource.to_owned(),
            before: None,
            after: Some(after),
        };
        let shown = redacted(preview(vec![
            change("pg://x/public.users/id=7", row),
            change("file:///srv/.env", json!({ "text": env })),
            change("file:///srv/secret", json!({ "text": "short" })),
            change("sqlite://x/sess/token=ghp_keykeykeykeykey,id=4", json!({ "a": 1 })),
        ]));
        let text = serde_json::to_string(&shown).unwrap();
        for secret in ["$2b$12$", "1234", "ghp_", "k-1", "hunter2", "short", "keykey"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
        for plain in
            ["ada", "uses ", " now", "https://example.com/a=b", "HOST=db", "# end", "\"id\":7"]
        {
            assert!(text.contains(plain), "{plain}: {text}");
        }
    }

    #[test]
    fn what_is_told_to_others_holds_no_secret() {
        let told = redacted_value(json!({ "path": "/x", "auth": { "token": "hunter2" } }));
        assert_eq!(told["path"], "/x");
        assert!(!told.to_string().contains("hunter2"), "{told}");
        for text in [
            "pg://x/sess/token=hunter2",
            "PASSWORD=hunter2",
            "it holds ghp_hunter2hunter2hunter2 here",
        ] {
            assert!(!redacted_text(text).contains("hunter2"), "{text}");
        }
        assert_eq!(redacted_text("file:///srv/app/x"), "file:///srv/app/x");
    }

    #[test]
    fn a_changed_secret_shows_as_changed() {
        let side = |text: &str| Some(json!({ "token": text }));
        let change = |before, after| Change { resource: "x".to_owned(), before, after };
        let one = redacted(preview(vec![change(side("a"), side("b"))])).changes.remove(0);
        assert_ne!(one.before, one.after);
        let same = redacted(preview(vec![change(side("a"), side("a"))])).changes.remove(0);
        assert_eq!(same.before, same.after);
    }
}
