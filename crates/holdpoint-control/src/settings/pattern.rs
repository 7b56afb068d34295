//! Patterns over tools and resources: reading them, and matching many at once.
//! Must not know what a match means, nor treat anything but `*`, `**` and `?` as special.

mod overlap;

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use holdpoint_types::ToolRef;
use std::collections::BTreeSet;
use std::fmt;

/// Longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 512;

/// A pattern over tools: `*` stands for any characters, `?` for one.
///
/// Grants and surfaces match it against `server__tool`, classification against the tool's own name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ToolPattern(String);

/// A pattern over resources: `*` stays within a segment, `**` spans segments, `?` is one
/// character.
///
/// A pattern that ends in `/**` also matches what stands before it: a folder is part of its
/// content.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResourcePattern(String);

/// A text that cannot be used as a pattern.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PatternFault {
    /// Nothing could ever match it.
    #[error("a pattern must not be empty")]
    Empty,
    /// Longer than any name it could match.
    #[error("a pattern must not be longer than {PATTERN_BYTES_MAX} bytes")]
    TooLong,
    /// A tool name cannot hold this character.
    #[error("`{pattern}` holds {found:?}, which no tool name can hold")]
    ToolCharacter {
        /// The pattern.
        pattern: String,
        /// The character.
        found: char,
    },
    /// `**` where `*` is meant.
    #[error("`{0}` holds `**`; one `*` already matches everything in a tool's name")]
    ToolStars(String),
    /// The pattern has no scheme, so no resource can match it.
    #[error("`{0}` does not begin with a scheme such as `file://`")]
    NoScheme(String),
    /// `**` glued to other characters.
    #[error("`{0}` holds `**` beside other characters; it must stand alone between slashes")]
    Stars(String),
    /// Resources are compared in their normal form, which this pattern is not.
    #[error("`{pattern}` never matches, because resources are compared as `{normal}`")]
    NotNormal {
        /// The pattern.
        pattern: String,
        /// Its normal form.
        normal: String,
    },
    /// A control character.
    #[error("{0:?} holds a control character")]
    Control(String),
    /// The matcher refused it.
    #[error("`{pattern}` cannot be compiled: {detail}")]
    Compile {
        /// The pattern.
        pattern: String,
        /// What the matcher said.
        detail: String,
    },
}

/// Many patterns that are matched at once; each belongs to an owner, named by its position.
#[derive(Clone, Debug, Default)]
pub(super) struct Matcher {
    set: GlobSet,
    owners: Vec<usize>,
}

/// Tools by patterns.
#[derive(Debug)]
pub struct ToolSet(Matcher);

/// Resources by patterns.
#[derive(Debug)]
pub struct ResourceSet(Matcher);

// === impl ToolPattern ===

impl ToolPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When it is empty, too long, or holds what no tool name can hold.
    pub fn parse(text: &str) -> Result<Self, PatternFault> {
        check_size(text)?;
        let plain = |found: char| found.is_ascii_alphanumeric() || "_-./*?".contains(found);
        if let Some(found) = text.chars().find(|found| !plain(*found)) {
            return Err(PatternFault::ToolCharacter { pattern: text.to_owned(), found });
        }
        if text.contains("**") {
            return Err(PatternFault::ToolStars(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The one tool that it names in full; absent if it has a wildcard or names no tool.
    pub fn full_name(&self) -> Option<ToolRef> {
        if self.has_wildcard() { None } else { self.0.parse().ok() }
    }

    /// True if it can match more than one tool.
    pub fn has_wildcard(&self) -> bool {
        self.0.contains(['*', '?'])
    }

    /// The server in which all its matches lie, if the pattern says so in full.
    pub fn server(&self) -> Option<&str> {
        let (server, _) = self.0.split_once("__")?;
        if server.contains(['*', '?']) { None } else { Some(server) }
    }

    fn globs(&self) -> Result<Vec<Glob>, PatternFault> {
        Ok(vec![glob(&self.0, GlobBuilder::new(&self.0).literal_separator(false))?])
    }
}

impl fmt::Display for ToolPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl ResourcePattern ===

impl ResourcePattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When it is empty, too long, has no scheme, is not in normal form, or glues `**` to text.
    pub fn parse(text: &str) -> Result<Self, PatternFault> {
        check_size(text)?;
        if text.chars().any(char::is_control) {
            return Err(PatternFault::Control(text.to_owned()));
        }
        let Some((_, rest)) = super::template::split_scheme(text) else {
            return Err(PatternFault::NoScheme(text.to_owned()));
        };
        if rest.split('/').any(|segment| segment.contains("**") && segment != "**") {
            return Err(PatternFault::Stars(text.to_owned()));
        }
        let normal = super::template::normalise(text);
        if normal != text {
            return Err(PatternFault::NotNormal { pattern: text.to_owned(), normal });
        }
        Ok(Self(text.to_owned()))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True if some resource is matched by both patterns.
    pub fn overlaps(&self, other: &Self) -> bool {
        overlap::of_patterns(&self.0, &other.0)
    }

    /// True if nothing but the scheme is left once wildcards are taken out.
    pub fn is_everything(&self) -> bool {
        let rest = super::template::split_scheme(&self.0).map_or("", |(_, rest)| rest);
        rest.chars().all(|found| "*?/".contains(found))
    }

    /// True if it can match more than one resource.
    pub fn has_wildcard(&self) -> bool {
        self.0.contains(['*', '?'])
    }

    /// Its scheme.
    pub fn scheme(&self) -> &str {
        super::template::split_scheme(&self.0).map_or("", |(scheme, _)| scheme)
    }

    fn globs(&self) -> Result<Vec<Glob>, PatternFault> {
        let itself = self.0.strip_suffix("/**");
        let texts = [Some(self.0.as_str()), itself];
        texts.into_iter().flatten().map(|text| self.glob(text)).collect()
    }

    fn glob(&self, text: &str) -> Result<Glob, PatternFault> {
        let escaped = escape(text);
        let mut builder = GlobBuilder::new(&escaped);
        glob(&self.0, builder.literal_separator(true).backslash_escape(false))
    }
}

impl fmt::Display for ResourcePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Matcher ===

impl Matcher {
    /// Compiles patterns over tools, each with the position of its owner.
    pub(super) fn of_tools<'a>(
        patterns: impl IntoIterator<Item = (usize, &'a ToolPattern)>,
    ) -> Result<Self, PatternFault> {
        Self::build(patterns.into_iter().map(|(owner, pattern)| (owner, pattern.globs())))
    }

    /// Compiles patterns over resources, each with the position of its owner.
    pub(super) fn of_resources<'a>(
        patterns: impl IntoIterator<Item = (usize, &'a ResourcePattern)>,
    ) -> Result<Self, PatternFault> {
        Self::build(patterns.into_iter().map(|(owner, pattern)| (owner, pattern.globs())))
    }

    /// The owners of all patterns that match `text`.
    pub(super) fn owners(&self, text: &str) -> BTreeSet<usize> {
        let matches = self.set.matches(text).into_iter();
        matches.filter_map(|at| self.owners.get(at).copied()).collect()
    }

    fn build(
        patterns: impl Iterator<Item = (usize, Result<Vec<Glob>, PatternFault>)>,
    ) -> Result<Self, PatternFault> {
        let mut builder = GlobSetBuilder::new();
        let mut owners = Vec::new();
        for (owner, globs) in patterns {
            for glob in globs? {
                builder.add(glob);
                owners.push(owner);
            }
        }
        let set = builder.build().map_err(|error| compile_fault("", &error))?;
        Ok(Self { set, owners })
    }
}

// === impl ToolSet ===

impl ToolSet {
    /// The tools that one of `patterns` matches.
    ///
    /// # Errors
    /// When the patterns are together too large to compile.
    pub fn new(patterns: &[ToolPattern]) -> Result<Self, PatternFault> {
        Matcher::of_tools(patterns.iter().map(|pattern| (0, pattern))).map(Self)
    }

    /// True if `tool` is among them.
    pub fn contains(&self, tool: &ToolRef) -> bool {
        !self.0.owners(&tool.to_string()).is_empty()
    }
}

// === impl ResourceSet ===

impl ResourceSet {
    /// The resources that one of `patterns` matches.
    ///
    /// # Errors
    /// When the patterns are together too large to compile.
    pub fn new(patterns: &[ResourcePattern]) -> Result<Self, PatternFault> {
        Matcher::of_resources(patterns.iter().map(|pattern| (0, pattern))).map(Self)
    }

    /// True if `resource` is among them.
    pub fn contains(&self, resource: &str) -> bool {
        !self.0.owners(resource).is_empty()
    }
}

fn check_size(text: &str) -> Result<(), PatternFault> {
    if text.is_empty() {
        return Err(PatternFault::Empty);
    }
    if text.len() > PATTERN_BYTES_MAX { Err(PatternFault::TooLong) } else { Ok(()) }
}

fn glob(pattern: &str, builder: &mut GlobBuilder<'_>) -> Result<Glob, PatternFault> {
    builder.build().map_err(|error| compile_fault(pattern, &error))
}

fn compile_fault(pattern: &str, error: &globset::Error) -> PatternFault {
    let pattern = error.glob().unwrap_or(pattern).to_owned();
    PatternFault::Compile { pattern, detail: error.kind().to_string() }
}

/// Puts what the matcher would find special, and we do not, into one-character classes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for found in text.chars() {
        if "[]{}".contains(found) {
            escaped.extend(['[', found, ']']);
        } else {
            escaped.push(found);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::{Matcher, PatternFault, ResourcePattern, ToolPattern};
    use proptest::prelude::*;

    fn resource_matches(pattern: &str, resource: &str) -> bool {
        let pattern = ResourcePattern::parse(pattern).unwrap();
        let matcher = Matcher::of_resources([(7, &pattern)]).unwrap();
        matcher.owners(resource).contains(&7)
    }

    fn tool_matches(pattern: &str, tool: &str) -> bool {
        let pattern = ToolPattern::parse(pattern).unwrap();
        let matcher = Matcher::of_tools([(0, &pattern)]).unwrap();
        !matcher.owners(tool).is_empty()
    }

    #[test]
    fn a_tool_pattern_crosses_every_character() {
        for (pattern, tool, expected) in [
            ("*", "fs__read_file", true),
            ("fs__*", "fs__read_file", true),
            ("fs__*", "fs__a/b.c", true),
            ("fs__*", "fs2__read_file", false),
            ("*__read_*", "fs__read_file", true),
            ("fs__read_?", "fs__read_x", true),
            ("fs__read_?", "fs__read_xy", false),
            ("fs__read", "fs__read_file", false),
            ("fs__read", "xfs__read", false),
            ("fs__READ", "fs__read", false),
        ] {
            assert_eq!(tool_matches(pattern, tool), expected, "{pattern} {tool}");
        }
    }

    #[test]
    fn a_resource_pattern_knows_segments() {
        for (pattern, resource, expected) in [
            ("file:///srv/prod/**", "file:///srv/prod/a", true),
            ("file:///srv/prod/**", "file:///srv/prod/a/b/.c", true),
            ("file:///srv/prod/**", "file:///srv/prod", true),
            ("file:///srv/prod/**", "file:///srv/production", false),
            ("file:///srv/prod/*", "file:///srv/prod/a", true),
            ("file:///srv/prod/*", "file:///srv/prod/a/b", false),
            ("file:///**", "file:///", true),
            ("file:///**", "file:///x/y", true),
            ("file:///srv/**/secrets/**", "file:///srv/a/b/secrets/key", true),
            ("file:///srv/**/secrets/**", "file:///srv/secrets", true),
            ("file:///**/.env", "file:///srv/app/.env", true),
            ("file:///**/.env", "file:///.env", true),
            ("file:///**/end.", "file:///a/end.", true),
            ("pg://orders-*/**", "pg://orders-prod/public.users", true),
            ("pg://orders-*/**", "pg://orders-prod", true),
            ("pg://orders-*/**", "pg://other/orders-prod/x", false),
            ("file:///app/[id]/{a,b}", "file:///app/[id]/{a,b}", true),
            ("file:///app/[id]/{a,b}", "file:///app/i/a", false),
            ("file:///a\\b", "file:///a\\b", true),
            ("file:///a?c", "file:///abc", true),
            ("file:///a?c", "file:///a/c", false),
            ("file:///Prod/**", "file:///prod/x", false),
            ("file:///p/**", "file:///p/line\nbreak", true),
        ] {
            assert_eq!(resource_matches(pattern, resource), expected, "{pattern} {resource}");
        }
    }

    #[test]
    fn bad_patterns_are_refused_with_their_reason() {
        assert_eq!(ToolPattern::parse(""), Err(PatternFault::Empty));
        assert_eq!(ToolPattern::parse(&"a".repeat(513)), Err(PatternFault::TooLong));
        for text in ["a b", "fs__[a]", "{a,b}", "ä*", "x\0"] {
            let fault = ToolPattern::parse(text).unwrap_err();
            assert!(matches!(fault, PatternFault::ToolCharacter { .. }), "{text}");
        }
        assert!(matches!(ToolPattern::parse("fs__**"), Err(PatternFault::ToolStars(_))));
        for text in ["/srv/prod/**", "**", "*://x", "://x", "9p://x"] {
            let fault = ResourcePattern::parse(text).unwrap_err();
            assert!(matches!(fault, PatternFault::NoScheme(_)), "{text}");
        }
        for text in ["file:///a**", "file:///**b/c", "file:///***"] {
            let fault = ResourcePattern::parse(text).unwrap_err();
            assert!(matches!(fault, PatternFault::Stars(_)), "{text}");
        }
        for text in ["file:///a/../b", "file:///a//b", "file:///a/", "file:///./a", "FILE:///a"] {
            let fault = ResourcePattern::parse(text).unwrap_err();
            assert!(matches!(fault, PatternFault::NotNormal { .. }), "{text}");
        }
        assert!(matches!(ResourcePattern::parse("file:///a\n"), Err(PatternFault::Control(_))));
    }

    #[test]
    fn a_pattern_knows_what_it_names() {
        let full = ToolPattern::parse("fs__delete").unwrap();
        assert_eq!(full.full_name(), Some("fs__delete".parse().unwrap()));
        assert_eq!(full.server(), Some("fs"));
        let wild = ToolPattern::parse("f*__delete").unwrap();
        assert_eq!((wild.full_name(), wild.server()), (None, None));
        assert_eq!(ToolPattern::parse("delete").unwrap().full_name(), None);
    }

    #[test]
    fn patterns_overlap_where_a_resource_fits_both() {
        for (one, other, expected) in [
            ("file:///srv/**", "file:///srv/prod/**", true),
            ("file:///srv/**", "file:///**/.env", true),
            ("file:///srv/*/x", "file:///srv/prod/*", true),
            ("file:///srv/*/x", "file:///srv/prod/y", false),
            ("file:///srv/app/**", "file:///srv/prod/**", false),
            ("file:///srv/*", "file:///srv/a/b", false),
            ("file:///srv/**", "file:///srv", true),
            ("file:///a?c", "file:///a*", true),
            ("file:///a?c", "file:///*b", false),
            ("file:///*a*", "file:///b*b", true),
            ("pg://orders/**", "pg://orders-prod/**", false),
            ("pg://*/public.users", "pg://orders/public.*", true),
            ("pg://x/**", "file:///**", false),
        ] {
            let parse = |text| ResourcePattern::parse(text).unwrap();
            assert_eq!(parse(one).overlaps(&parse(other)), expected, "{one} {other}");
            assert_eq!(parse(other).overlaps(&parse(one)), expected, "{other} {one}");
        }
    }

    #[test]
    fn a_pattern_of_wildcards_is_everything() {
        for text in ["file:///**", "file:///*/?*", "pg://**", "pg://*/**", "mcp://*"] {
            assert!(ResourcePattern::parse(text).unwrap().is_everything(), "{text}");
        }
        for text in ["file:///**/.env", "pg://orders/**", "file:///a"] {
            assert!(!ResourcePattern::parse(text).unwrap().is_everything(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_fits_both_patterns_shows_that_they_overlap(
            one in "file://(/(a|b|\\*|\\?|a\\*|\\*\\*)){1,4}",
            other in "file://(/(a|b|\\*|\\?|a\\*|\\*\\*)){1,4}",
            resource in "file://(/[ab]{1,2}){1,5}",
        ) {
            let (one, other) = (ResourcePattern::parse(&one), ResourcePattern::parse(&other));
            let (one, other) = (one.unwrap(), other.unwrap());
            let both = [&one, &other]
                .iter()
                .all(|pattern| resource_matches(pattern.as_str(), &resource));
            prop_assert!(!both || one.overlaps(&other), "{one} {other} {resource}");
            prop_assert!(one.overlaps(&one));
        }

        #[test]
        fn a_pattern_without_wildcards_matches_itself_alone(
            one in "file://(/[a-c\\[\\]{}!\\\\.]{1,3}[a-c]){1,3}",
            other in "file://(/[a-c\\[\\]{}!\\\\.]{1,3}[a-c]){1,3}",
        ) {
            prop_assert!(resource_matches(&one, &one));
            prop_assert_eq!(resource_matches(&one, &other), one == other);
        }

        #[test]
        fn reading_never_panics(text in any::<String>()) {
            if let Ok(pattern) = ResourcePattern::parse(&text) {
                Matcher::of_resources([(0, &pattern)]).unwrap();
            }
            if let Ok(pattern) = ToolPattern::parse(&text) {
                Matcher::of_tools([(0, &pattern)]).unwrap();
            }
        }
    }
}
