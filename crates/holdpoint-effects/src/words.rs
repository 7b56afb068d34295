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
        self.text.replace(UNKNOWN, "*")
    }
}

/// The arguments as one line for people.
pub(crate) fn line(args: &[Arg]) -> String {
    let shown: Vec<String> = args.iter().map(Arg::shown).collect();
    shown.join(" ")
}

/// True if `text` matches `pattern`: `*` is anything but `/`, `**` is anything, `?` one character.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to go on if what follows a star does not fit: after the star, and one later in the
    // text. A `*` ends at a `/`, and then the `**` before it has its turn.
    let mut shallow: Option<(usize, usize)> = None;
    let mut deep: Option<(usize, usize)> = None;
    while t < text.len() || p < pattern.len() {
        let c = text.get(t).copied();
        match (pattern.get(p).copied(), c) {
            (Some('*'), _) if pattern.get(p + 1) == Some(&'*') => {
                p += 2;
                (deep, shallow) = (Some((p, t)), None);
            }
            (Some('*'), _) => {
                p += 1;
                shallow = Some((p, t));
            }
            (Some('?'), Some(c)) if c != '/' => (p, t) = (p + 1, t + 1),
            (Some(wanted), Some(c)) if wanted == c => (p, t) = (p + 1, t + 1),
            _ => {
                let fits = |(_, from): &(usize, usize)| text.get(*from).is_some_and(|c| *c != '/');
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
    use super::matches;

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
}
