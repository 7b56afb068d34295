//! Rules in one form for all clouds, and whether one covers another. Must never call a rule
//! covered that might allow something more: to be covered is proven, not guessed.

use std::fmt;

/// Longest pattern that is compared.
const PATTERN_BYTES_MAX: usize = 2048;

/// A set of principals, actions or resources.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Set {
    /// Everything there is.
    All,
    /// What matches a pattern of `*` and `?`.
    Like(String),
    /// Everything that matches none of these patterns.
    Except(Vec<String>),
}

/// One thing that a policy allows or denies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rule {
    pub(super) allows: bool,
    pub(super) who: Set,
    pub(super) what: Set,
    pub(super) on: Set,
    /// The condition in a canonical form; empty if there is none.
    pub(super) when: String,
    /// The condition ties whoever it is to somebody known.
    pub(super) narrowed: bool,
    /// The resource is set elsewhere: where the document is attached.
    pub(super) scoped: bool,
}

// === impl Set ===

impl Set {
    /// A pattern; `*` alone is everything.
    pub(super) fn like(pattern: &str) -> Self {
        match pattern.chars().all(|letter| letter == '*') && !pattern.is_empty() {
            true => Self::All,
            false => Self::Like(pattern.to_owned()),
        }
    }

    /// True if `other` is a part of this, for sure.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Like(one), Self::Like(other)) => matches(one, other),
            (Self::Except(none), Self::Except(other)) => {
                none.iter().all(|one| other.iter().any(|other| matches(other, one)))
            }
            (Self::Like(_) | Self::Except(_), _) => false,
        }
    }

    /// True if it is all resources, or all of a kind.
    pub(super) fn is_wide(&self) -> bool {
        match self {
            Self::All | Self::Except(_) => true,
            Self::Like(pattern) => {
                let open = |text: &str| !text.is_empty() && text.chars().all(is_star);
                let bare = pattern.replace([':', '/'], "");
                if open(&bare) && bare.contains('*') {
                    return true;
                }
                let mut parts = pattern.splitn(6, ':');
                let (arn, service) = (parts.next() == Some("arn"), parts.nth(1));
                match parts.nth(2) {
                    // `arn:aws:s3:*`: less than a name, and open.
                    None => arn && pattern.ends_with('*'),
                    // `role/*`, `function:*`: all of a kind, but `bucket/*` is one bucket.
                    Some(name) => {
                        let rest = name.split_once(['/', ':']).filter(|_| service != Some("s3"));
                        arn && (name.starts_with('*')
                            || open(name)
                            || rest.is_some_and(|(_, rest)| open(rest)))
                    }
                }
            }
        }
    }
}

fn is_star(letter: char) -> bool {
    matches!(letter, '*' | '?')
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Like(pattern) => f.write_str(pattern),
            Self::Except(patterns) => write!(f, "all but {}", patterns.join(", ")),
        }
    }
}

// === impl Rule ===

impl Rule {
    /// True if this says at least what `other` says.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.allows == other.allows
            && (self.when.is_empty() || self.when == other.when)
            && self.who.covers(&other.who)
            && self.what.covers(&other.what)
            && self.on.covers(&other.on)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {} on {}", self.what, self.who, self.on)
    }
}

// === functions ===

/// True if `pattern` matches `text`, whose own `*` only another `*` can match.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    if pattern.len().max(text.len()) > PATTERN_BYTES_MAX {
        return pattern == text;
    }
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut seen) = (0, 0);
    // Where the last star was, and how much of the text it has taken.
    let mut star: Option<(usize, usize)> = None;
    while let Some(letter) = text.get(seen) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(b'?') if *letter != b'*' => {
                at += 1;
                seen += 1;
            }
            Some(sign) if sign == letter && *sign != b'?' => {
                at += 1;
                seen += 1;
            }
            _ => {
                let Some((start, taken)) = star else { return false };
                star = Some((start, taken + 1));
                at = start + 1;
                seen = taken + 1;
            }
        }
    }
    pattern.get(at..).unwrap_or(&[]).iter().all(|sign| *sign == b'*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_pattern_covers_a_narrower_one() {
        for (pattern, text, expected) in [
            ("s3:*", "s3:get*", true),
            ("s3:get*", "s3:*", false),
            ("a?c", "abc", true),
            ("a?c", "a*c", false),
            ("*", "", true),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1b2b3", false),
            ("a?", "a?", true),
            ("ab", "a?", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
