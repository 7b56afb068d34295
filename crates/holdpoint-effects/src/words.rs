//! Arguments as far as they are known. Owns how an unknown part is marked; must never take an
//! unknown part for empty.

/// Stands in a text for a part that is not known. The same sign in an input is not known either.
pub(crate) const UNKNOWN: char = '\u{fffd}';

/// One argument of a command, or one value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arg {
    /// The text, with [`UNKNOWN`] where a part is not known.
    pub(crate) text: String,
    /// A wildcard in it is not quoted: the shell puts names of files in its place.
    pub(crate) glob: bool,
    /// An unknown part is not quoted: there may be several arguments, and options among them.
    pub(crate) loose: bool,
}

// === impl Arg ===

impl Arg {
    pub(crate) fn known(text: impl Into<String>) -> Self {
        Self { text: text.into(), glob: false, loose: false }
    }

    pub(crate) fn unknown() -> Self {
        Self::known(UNKNOWN)
    }

    /// Not known, and perhaps several.
    pub(crate) fn unknown_many() -> Self {
        Self { loose: true, ..Self::unknown() }
    }

    /// True if a part is not known.
    pub(crate) fn is_unknown(&self) -> bool {
        self.text.contains(UNKNOWN)
    }

    /// True if not even the beginning is known.
    pub(crate) fn starts_unknown(&self) -> bool {
        self.text.starts_with(UNKNOWN)
    }

    /// The text, if all of it is known and the shell leaves it as it is.
    pub(crate) fn exact(&self) -> Option<&str> {
        (!self.is_unknown() && !self.glob).then_some(self.text.as_str())
    }

    /// For people and addresses: `*` for what is not known.
    pub(crate) fn shown(&self) -> String {
        match self.is_unknown() {
            true => self.text.replace(UNKNOWN, "*"),
            false => self.text.clone(),
        }
    }
}

/// The arguments as one line for people.
pub(crate) fn line(args: &[Arg]) -> String {
    let mut line = String::with_capacity(args.iter().map(|arg| arg.text.len() + 1).sum());
    for (at, arg) in args.iter().enumerate() {
        if at > 0 {
            line.push(' ');
        }
        let mut parts = arg.text.split(UNKNOWN);
        line.push_str(parts.next().unwrap_or_default());
        parts.for_each(|part| {
            line.push('*');
            line.push_str(part);
        });
    }
    line
}

/// A pattern of paths: `*` is anything but `/`, `**` is anything, `?` one byte. A folder whose
/// content it names is named by it too.
#[derive(Debug, serde::Deserialize)]
#[serde(from = "String")]
pub(crate) struct Pattern {
    text: String,
    form: Form,
    /// Nothing fits that has no name beginning with a dot.
    dotted: bool,
}

/// The forms that most patterns have, so that most texts need one comparison.
#[derive(Debug)]
enum Form {
    /// No wildcard.
    Exact,
    /// `**` and a text.
    Ends,
    /// A text and `/**`.
    Below,
    /// `**`, a text and `/**`.
    Within,
    /// What stands before the first wildcard, and behind the last.
    Wild { start: usize, end: usize },
}

// === impl Pattern ===

impl From<String> for Pattern {
    fn from(text: String) -> Self {
        let plain = |text: &str| !text.contains(['*', '?']);
        let (start, end) = (text.strip_prefix("**"), text.strip_suffix("/**"));
        let inner = start.and_then(|start| start.strip_suffix("/**"));
        let (text, form) = match (inner, start, end) {
            (Some(inner), _, _) if plain(inner) => (inner.to_owned(), Form::Within),
            (_, Some(start), _) if plain(start) => (start.to_owned(), Form::Ends),
            (_, _, Some(end)) if plain(end) => (end.to_owned(), Form::Below),
            _ if plain(&text) => (text, Form::Exact),
            _ => {
                let start = text.find(['*', '?']).unwrap_or_default();
                let end = text.rfind(['*', '?']).map_or(0, |at| text.len() - at - 1);
                (text, Form::Wild { start, end })
            }
        };
        let dotted = text.starts_with("/.");
        Self { text, form, dotted }
    }
}

impl Pattern {
    /// True if it speaks of the home folder.
    pub(crate) fn is_home(&self) -> bool {
        self.text.starts_with('~')
    }

    /// True if it can only fit a text with a name that begins with a dot.
    pub(crate) fn is_dotted(&self) -> bool {
        self.dotted
    }

    pub(crate) fn fits(&self, text: &str) -> bool {
        let own = self.text.as_str();
        // One byte tells most of them apart: the one behind the first `/`, or the last.
        let (second, last) = (text.as_bytes().get(1), text.as_bytes().last());
        let differs = match self.form {
            Form::Exact | Form::Below => own.as_bytes().get(1) != second,
            Form::Ends => own.as_bytes().last() != last,
            Form::Within => false,
            Form::Wild { start, end } => {
                start > 1 && own.as_bytes().get(1) != second
                    || end > 0 && !own.ends_with("/**") && own.as_bytes().last() != last
            }
        };
        if differs {
            return false;
        }
        match self.form {
            Form::Exact => own == text,
            Form::Ends => text.ends_with(own),
            Form::Below => {
                text.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Form::Within => {
                text.ends_with(own)
                    || text
                        .match_indices(own)
                        .any(|(at, _)| text.as_bytes().get(at + own.len()) == Some(&b'/'))
            }
            Form::Wild { start, end } => {
                let (own, text) = (own.as_bytes(), text.as_bytes());
                let folder = own.strip_suffix(b"/**");
                let starts = text.get(..start) == own.get(..start);
                let ends = text.len().checked_sub(end).and_then(|at| text.get(at..))
                    == own.get(own.len().saturating_sub(end)..);
                starts
                    && (ends && wild(own, text) || folder.is_some_and(|folder| wild(folder, text)))
            }
        }
    }
}

/// True if `text` matches `pattern`, in the signs of a [`Pattern`].
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    match pattern.contains(['*', '?']) {
        true => wild(pattern.as_bytes(), text.as_bytes()),
        false => pattern == text,
    }
}

fn wild(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on if what follows a star does not fit: after the star, and one later in the
    // text. A `*` ends at a `/`, and then the `**` before it has its turn.
    let mut shallow: Option<(usize, usize)> = None;
    let mut deep: Option<(usize, usize)> = None;
    while t < text.len() || p < pattern.len() {
        match (pattern.get(p).copied(), text.get(t).copied()) {
            (Some(b'*'), _) if pattern.get(p + 1) == Some(&b'*') => {
                p += 2;
                (deep, shallow) = (Some((p, t)), None);
            }
            (Some(b'*'), _) => {
                p += 1;
                shallow = Some((p, t));
            }
            (Some(b'?'), Some(c)) if c != b'/' => (p, t) = (p + 1, t + 1),
            (Some(wanted), Some(c)) if wanted == c => (p, t) = (p + 1, t + 1),
            _ => {
                let fits = |(_, from): &(usize, usize)| text.get(*from).is_some_and(|c| *c != b'/');
                if let Some((after, from)) = shallow.filter(fits) {
                    (p, t) = (after, from + 1);
                    shallow = Some((p, t));
                } else if let Some((after, from)) = deep.filter(|(_, from)| *from < text.len()) {
                    (p, t) = (after, from + 1);
                    (deep, shallow) = (Some((p, t)), None);
                } else {
                    return false;
                }
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::{Pattern, matches};

    #[test]
    fn patterns_match_as_in_gitignore() {
        for (pattern, text, expected) in [
            ("*.tfstate", "x.tfstate", true),
            ("*.tfstate", "a/x.tfstate", false),
            ("**/.env", "/srv/app/.env", true),
            ("**/*.tfstate", "/srv/app/x.tfstate", true),
            ("**/a/*/b", "/a/x/a/y/b", true),
            ("**/a/*/b", "/a/x/y/b", false),
            ("/etc/cron.d/**", "/etc/cron.d/x", true),
            ("/dev/sd?", "/dev/sda", true),
            ("/dev/sd?", "/dev/sda1", false),
            ("describe-*", "describe-instances", true),
            ("", "", true),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn every_form_of_a_pattern_says_what_the_general_one_says() {
        let patterns =
            ["/a/b", "**/b", "/a/**", "**/a/**", "~/a/*", "**/*.b", "/a*/**", "/*", "**/b/c"];
        let texts = [
            "/a", "/a/b", "/a/b/c", "/b", "/x/a", "/x/a/b", "/ab", "/x/ab/c", "~/a/b", "/c.b", "/",
        ];
        for pattern in patterns {
            for text in texts {
                let folder = pattern.strip_suffix("/**");
                let general =
                    matches(pattern, text) || folder.is_some_and(|folder| matches(folder, text));
                let fits = Pattern::from(pattern.to_owned()).fits(text);
                assert_eq!(fits, general, "{pattern} {text}");
            }
        }
    }
}
