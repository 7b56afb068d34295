//! One Rust file, read once: its tokens, its syntax tree and which of its lines are test code.
//!
//! Owns the reading. Must never judge: rules live in `shape`.

use super::Broken;
use proc_macro2::{TokenStream, TokenTree};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::str::FromStr;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, ItemMod, Meta, Token};

/// A parsed Rust file.
pub struct Source<'t> {
    /// The file, relative to the workspace.
    pub file: &'t str,
    /// Its text.
    pub body: &'t str,
    /// Its syntax tree.
    pub tree: syn::File,
    /// Every token, groups opened, in the order of the text.
    pub tokens: Vec<Flat>,
    /// Lines of `#[cfg(test)]` modules, counted from 1.
    tests: Vec<RangeInclusive<usize>>,
}

/// One token and where it stands.
pub struct Flat {
    /// The first line, counted from 1.
    pub line: usize,
    /// The last line.
    pub end: usize,
    /// How many characters it has, if it stands in one line.
    pub chars: usize,
    /// What it is.
    pub kind: Kind,
}

/// What a token is, as far as rules care.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// A word.
    Word(String),
    /// One character of punctuation, or a bracket.
    Mark(char),
    /// A literal.
    Literal,
}

struct TestModules(Vec<RangeInclusive<usize>>);

// === impl Source ===

impl<'t> Source<'t> {
    /// Reads a file.
    ///
    /// # Errors
    /// When the text is no Rust; the broken rule is named `syntax`.
    pub fn parse(file: &'t str, body: &'t str) -> Result<Self, Broken> {
        let fault = |line, text: String| Broken::new(file, line, "syntax", text);
        let stream = TokenStream::from_str(body)
            .map_err(|error| fault(error.span().start().line, error.to_string()))?;
        let tree = syn::parse_file(body)
            .map_err(|error| fault(error.span().start().line, error.to_string()))?;
        let mut tokens = Vec::new();
        flatten(stream, &mut tokens);
        let mut modules = TestModules(Vec::new());
        modules.visit_file(&tree);
        Ok(Self { file, body, tree, tokens, tests: modules.0 })
    }

    /// True if the line is test code.
    pub fn is_test_line(&self, line: usize) -> bool {
        self.is_test_file() || self.tests.iter().any(|lines| lines.contains(&line))
    }

    /// True if the whole file is test code: it lies in a `tests` or `benches` folder, or is the
    /// file of a module named `tests`, which only tests may have (the rule `test-module`).
    pub fn is_test_file(&self) -> bool {
        let mut parts = self.file.split('/');
        let name = parts.next_back();
        name == Some("tests.rs") || parts.any(|part| part == "tests" || part == "benches")
    }

    /// How many lines are not test code.
    pub fn lines_of_code(&self) -> usize {
        (1..=self.body.lines().count()).filter(|line| !self.is_test_line(*line)).count()
    }
}

impl<'ast> Visit<'ast> for TestModules {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if is_test_only(&module.attrs) {
            let first = module.attrs.first().map_or(module.span(), Spanned::span);
            self.0.push(first.start().line..=module.span().end().line);
        } else {
            visit::visit_item_mod(self, module);
        }
    }
}

/// True if an attribute is `#[cfg(test)]`, or `#[cfg(all(test, …))]`.
pub fn is_test_only(attributes: &[Attribute]) -> bool {
    let mut conditions = attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    conditions.any(|attribute| attribute.parse_args().is_ok_and(|meta: Meta| wants_test(&meta)))
}

fn wants_test(condition: &Meta) -> bool {
    match condition {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("all") => {
            let parts = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
            parts.is_ok_and(|parts| parts.iter().any(wants_test))
        }
        Meta::List(_) | Meta::NameValue(_) => false,
    }
}

/// The name of every function that stands in test code, macros and `compile_fail` examples
/// included.
pub fn test_names(sources: &[Source<'_>]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for source in sources {
        names.extend(compile_fail_names(source.body));
        for pair in source.tokens.windows(2) {
            let [before, after] = pair else { continue };
            let (Kind::Word(keyword), Kind::Word(name)) = (&before.kind, &after.kind) else {
                continue;
            };
            if keyword == "fn" && source.is_test_line(after.line) {
                names.insert(name.clone());
            }
        }
    }
    names
}

/// The first function of every example that must not compile: such an example is a test.
fn compile_fail_names(body: &str) -> Vec<String> {
    let lines: Vec<_> = body.lines().map(str::trim_start).collect();
    let named = lines.windows(2).filter_map(|pair| {
        let [fence, first] = pair else { return None };
        fence.strip_prefix("/// ```compile_fail")?;
        let (name, _) = first.strip_prefix("/// fn ")?.split_once('(')?;
        Some(name.to_owned())
    });
    named.collect()
}

fn flatten(stream: TokenStream, tokens: &mut Vec<Flat>) {
    for tree in stream {
        let span = tree.span();
        let (line, end) = (span.start().line, span.end().line);
        let chars = span.end().column.saturating_sub(span.start().column);
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = brackets(&group);
                tokens.push(Flat { line, end: line, chars: 1, kind: Kind::Mark(open) });
                flatten(group.stream(), tokens);
                tokens.push(Flat { line: end, end, chars: 1, kind: Kind::Mark(close) });
            }
            TokenTree::Ident(word) => {
                tokens.push(Flat { line, end, chars, kind: Kind::Word(word.to_string()) });
            }
            TokenTree::Punct(mark) => {
                tokens.push(Flat { line, end, chars, kind: Kind::Mark(mark.as_char()) });
            }
            TokenTree::Literal(_) => tokens.push(Flat { line, end, chars, kind: Kind::Literal }),
        }
    }
}

fn brackets(group: &proc_macro2::Group) -> (char, char) {
    match group.delimiter() {
        proc_macro2::Delimiter::Parenthesis => ('(', ')'),
        proc_macro2::Delimiter::Brace => ('{', '}'),
        proc_macro2::Delimiter::Bracket => ('[', ']'),
        proc_macro2::Delimiter::None => (' ', ' '),
    }
}

#[cfg(test)]
mod tests {
    use super::{Source, test_names};

    const BODY: &str =
        "//! Doc.\nfn a() {}\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn b() {}\n}\n";

    #[test]
    fn test_modules_are_told_from_code() {
        let source = Source::parse("crates/x/src/a.rs", BODY).unwrap();
        assert_eq!(source.lines_of_code(), 2);
        assert!(source.is_test_line(3) && source.is_test_line(7) && !source.is_test_line(2));
        assert_eq!(test_names(&[source]).into_iter().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn conditions_that_want_a_test_make_test_code() {
        for (condition, test) in
            [("all(test, unix)", true), ("any(test, unix)", false), ("not(test)", false)]
        {
            let body = format!("#[cfg({condition})]\nmod tests {{}}\n");
            let source = Source::parse("a.rs", &body).unwrap();
            assert_eq!(source.is_test_line(2), test, "{condition}");
        }
    }

    #[test]
    fn test_files_are_told_from_code() {
        for file in
            ["crates/x/tests/it/main.rs", "crates/x/src/a/tests.rs", "crates/x/benches/b.rs"]
        {
            let source = Source::parse(file, BODY).unwrap();
            assert_eq!(source.lines_of_code(), 0, "{file}");
        }
    }

    #[test]
    fn tests_inside_macros_are_found() {
        let body =
            "#[cfg(test)]\nmod tests {\n proptest! {\n #[test]\n fn law(x in 0..9) {}\n }\n}\n";
        let source = Source::parse("a.rs", body).unwrap();
        assert!(test_names(&[source]).contains("law"));
    }
}
