//! Rules about one Rust file: its opening, lengths, names, imports and forbidden words.
//!
//! Owns the limits of STYLE.md. Must never look at a second file.

use super::Broken;
use super::source::{Flat, Kind, Source, is_test_only};
use std::collections::BTreeSet;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{FnArg, Ident, Item, Signature, UseTree, Visibility};

const LINE_CHARS_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 70;
const PARAMETERS_MAX: usize = 5;
const FILE_LINES_MAX: usize = 600;

/// Words that say nothing when they end a type's name.
const EMPTY_SUFFIXES: &[&str] =
    &["Manager", "Handler", "Helper", "Helpers", "Util", "Utils", "Common"];

/// Words that mean too many things to stand alone as a name.
const EMPTY_NAMES: &[&str] = &[
    "context", "session", "model", "token", "manager", "handler", "helper", "helpers", "util",
    "utils", "common",
];

/// Marks of unfinished work. Split, so that this file does not break its own rule.
const UNFINISHED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Macros that have no place in finished code.
const UNFINISHED_MACROS: &[&str] = &["todo", "unimplemented", "dbg"];

/// Glob imports that tests may use, and why: (path, reason).
const GLOBS_IN_TESTS: &[(&str, &str)] =
    &[("proptest::prelude", "the macros of proptest name what the prelude brings")];

struct Names<'s> {
    source: &'s Source<'s>,
    broken: Vec<Broken>,
}

// === impl Names ===

impl Names<'_> {
    fn report(&mut self, line: usize, rule: &'static str, advice: impl Into<String>) {
        self.broken.push(Broken::new(self.source.file, line, rule, advice));
    }

    fn type_name(&mut self, name: &Ident) {
        let text = name.to_string();
        let line = name.span().start().line;
        if let Some(suffix) = EMPTY_SUFFIXES.iter().find(|suffix| text.ends_with(**suffix)) {
            self.report(line, "names", format!("`{text}` ends in `{suffix}`; say what it is"));
        }
        self.bare_name(&text, line);
    }

    fn bare_name(&mut self, text: &str, line: usize) {
        if EMPTY_NAMES.contains(&text.to_lowercase().as_str()) {
            self.report(line, "names", format!("`{text}` alone is vague; use a precise word"));
        }
    }

    fn function(&mut self, signature: &Signature, end: usize) {
        let line = signature.span().start().line;
        let name = &signature.ident;
        let lines = end.saturating_sub(line) + 1;
        if lines > FUNCTION_LINES_MAX {
            let advice =
                format!("`{name}` has {lines} lines; split it, {FUNCTION_LINES_MAX} is the limit");
            self.report(line, "function-length", advice);
        }
        let typed = |argument: &&FnArg| matches!(argument, FnArg::Typed(_));
        let count = signature.inputs.iter().filter(typed).count();
        if count > PARAMETERS_MAX {
            let advice =
                format!("`{name}` takes {count}; group them, {PARAMETERS_MAX} is the limit");
            self.report(line, "parameters", advice);
        }
    }

    fn globs(&mut self, tree: &UseTree, path: &str) {
        match tree {
            UseTree::Path(part) => {
                let deeper = if path.is_empty() {
                    part.ident.to_string()
                } else {
                    format!("{path}::{}", part.ident)
                };
                self.globs(&part.tree, &deeper);
            }
            UseTree::Group(group) => group.items.iter().for_each(|item| self.globs(item, path)),
            UseTree::Glob(glob) => self.glob(glob.span().start().line, path),
            UseTree::Name(_) | UseTree::Rename(_) => {}
        }
    }

    fn glob(&mut self, line: usize, path: &str) {
        let known = GLOBS_IN_TESTS.iter().any(|(allowed, _)| *allowed == path);
        if !(known && self.source.is_test_line(line)) {
            self.report(line, "glob-import", format!("name what you use of `{path}`"));
        }
    }
}

impl<'ast> Visit<'ast> for Names<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, item.span().end().line);
        self.bare_name(&item.sig.ident.to_string(), item.sig.ident.span().start().line);
        visit::visit_item_fn(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        for member in &item.items {
            let syn::ImplItem::Fn(function) = member else { continue };
            self.function(&function.sig, function.span().end().line);
            // The names in an implementation of a trait are the trait's.
            if item.trait_.is_none() {
                let name = &function.sig.ident;
                self.bare_name(&name.to_string(), name.span().start().line);
            }
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.function(&item.sig, item.span().end().line);
        self.bare_name(&item.sig.ident.to_string(), item.sig.ident.span().start().line);
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.type_name(&item.ident);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.type_name(&item.ident);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.type_name(&item.ident);
        visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.type_name(&item.ident);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let line = item.ident.span().start().line;
        self.bare_name(&item.ident.to_string(), line);
        if item.ident == "tests" && !is_test_only(&item.attrs) && !self.source.is_test_file() {
            self.report(line, "test-module", "write `#[cfg(test)]` above `mod tests`");
        }
        visit::visit_item_mod(self, item);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.globs(&item.tree, "");
    }
}

// === functions ===

/// Every rule of this file broken by `source`.
pub fn check(source: &Source<'_>) -> Vec<Broken> {
    let mut names = Names { source, broken: Vec::new() };
    names.visit_file(&source.tree);
    let mut broken = names.broken;
    broken.extend(opening(source));
    broken.extend(file_name(source));
    broken.extend(long_lines(source));
    broken.extend(long_file(source));
    broken.extend(unfinished(source));
    broken.extend(allows(source));
    broken.extend(lib_root(source));
    broken
}

/// The file opens with documentation of at least one sentence.
fn opening(source: &Source<'_>) -> Option<Broken> {
    let opening = source.body.lines().map_while(|line| line.strip_prefix("//!"));
    let text = opening.collect::<Vec<_>>().join(" ");
    let sentence = text.split_whitespace().count() >= 3 && text.contains(['.', ':']);
    let advice = "open with `//!` and a sentence: what the file owns, what it must never do";
    (!sentence).then(|| Broken::new(source.file, 1, "opening", advice))
}

fn file_name(source: &Source<'_>) -> Option<Broken> {
    let name = source.file.rsplit('/').next()?.strip_suffix(".rs")?;
    let advice = format!("a file called `{name}` is vague; use a precise word");
    EMPTY_NAMES.contains(&name).then(|| Broken::new(source.file, 1, "names", advice))
}

fn long_lines(source: &Source<'_>) -> Vec<Broken> {
    let snapshots = snapshot_lines(source);
    let numbered = source.body.lines().enumerate().map(|(index, line)| (index + 1, line));
    let long = numbered.filter_map(|(number, line)| {
        let chars = line.chars().count();
        (chars > LINE_CHARS_MAX && !snapshots.contains(&number)).then_some((number, chars))
    });
    long.map(|(number, chars)| {
        let advice = format!("{chars} characters; break it, {LINE_CHARS_MAX} is the limit");
        Broken::new(source.file, number, "line-length", advice)
    })
    .collect()
}

/// Lines of test code that a long literal fills: we do not break what a program printed.
fn snapshot_lines(source: &Source<'_>) -> BTreeSet<usize> {
    let literals = source.tokens.iter().filter(|flat| flat.kind == Kind::Literal);
    let fills = |flat: &&Flat| flat.end > flat.line || flat.chars > LINE_CHARS_MAX / 2;
    let long = literals.filter(fills).filter(|flat| source.is_test_line(flat.line));
    long.flat_map(|flat| flat.line..=flat.end).collect()
}

fn long_file(source: &Source<'_>) -> Option<Broken> {
    let lines = source.lines_of_code();
    let advice = format!("{lines} lines besides tests; split it, {FILE_LINES_MAX} is the limit");
    (lines > FILE_LINES_MAX).then(|| Broken::new(source.file, 1, "file-length", advice))
}

fn unfinished(source: &Source<'_>) -> Vec<Broken> {
    let mut broken = Vec::new();
    for (index, line) in source.body.lines().enumerate() {
        if let Some(word) = unfinished_word(line) {
            let advice = format!("`{word}`: finish it, or open an issue and remove the mark");
            broken.push(Broken::new(source.file, index + 1, "unfinished", advice));
        }
    }
    for pair in source.tokens.windows(2) {
        let [before, after] = pair else { continue };
        let (Kind::Word(word), Kind::Mark('!')) = (&before.kind, &after.kind) else { continue };
        if UNFINISHED_MACROS.contains(&word.as_str()) {
            let advice = format!("`{word}!` has no place here; remove it");
            broken.push(Broken::new(source.file, before.line, "unfinished", advice));
        }
    }
    broken
}

/// The first mark of unfinished work in a line.
pub fn unfinished_word(line: &str) -> Option<&'static str> {
    let mut words = line.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
    words.find_map(|word| UNFINISHED.iter().copied().find(|mark| *mark == word))
}

/// `#[allow(…)]` silences a lint for ever, `#[expect(…, reason = "…")]` says why and for how long.
fn allows(source: &Source<'_>) -> Vec<Broken> {
    let mut broken = Vec::new();
    let mut attribute = None;
    for flats in source.tokens.windows(3) {
        let [first, second, third] = flats else { continue };
        let opens = match (&first.kind, &second.kind, &third.kind) {
            (Kind::Mark('#'), Kind::Mark('['), Kind::Word(word)) => Some(word),
            (Kind::Mark('!'), Kind::Mark('['), Kind::Word(word)) => Some(word),
            _ => None,
        };
        if let Some(word) = opens {
            attribute = Some(word.as_str());
            if word == "allow" {
                broken.push(allow_at(source, third.line));
            }
        }
        let inside = (&second.kind, &third.kind);
        let nested = matches!(inside, (Kind::Word(word), Kind::Mark('(')) if word == "allow");
        if nested && attribute == Some("cfg_attr") {
            broken.push(allow_at(source, second.line));
        }
        if third.kind == Kind::Mark(']') {
            attribute = None;
        }
    }
    broken
}

fn allow_at(source: &Source<'_>, line: usize) -> Broken {
    let advice = "write `#[expect(lint, reason = \"…\")]` instead of `allow`";
    Broken::new(source.file, line, "allow", advice)
}

/// `lib.rs` is docs, attributes, modules and explicit re-exports.
fn lib_root(source: &Source<'_>) -> Vec<Broken> {
    if !source.file.ends_with("src/lib.rs") {
        return Vec::new();
    }
    let advice = "move this item to a module; lib.rs is docs, modules and explicit re-exports";
    let foreign = source.tree.items.iter().filter(|item| !belongs_in_lib(item));
    foreign
        .map(|item| Broken::new(source.file, item.span().start().line, "lib-root", advice))
        .collect()
}

fn belongs_in_lib(item: &Item) -> bool {
    match item {
        Item::Mod(module) => module.content.is_none(),
        Item::Use(import) => matches!(import.vis, Visibility::Public(_)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::source::Source;
    use expect_test::{Expect, expect};

    fn found(file: &str, body: &str) -> String {
        let source = Source::parse(file, body).map_err(|broken| broken.to_string()).unwrap();
        let mut broken = check(&source);
        broken.sort();
        broken.iter().map(|broken| format!("{broken}\n")).collect()
    }

    /// Checks `code` under a good opening, so that it starts in line 2.
    fn rule(code: &str, expected: Expect) {
        let body = format!("//! Owns an example: nothing else.\n{code}\n");
        expected.assert_eq(&found("a.rs", &body));
    }

    #[test]
    fn good_code_breaks_nothing() {
        rule("use std::fmt;\npub struct Permit;\nfn decide(permit: Permit) {}", expect![""]);
    }

    #[test]
    fn opening() {
        let expected = expect![[r#"
            a.rs:1: opening: open with `//!` and a sentence: what the file owns, what it must never do
        "#]];
        for body in ["fn a() {}\n", "\n//! Owns an example: nothing else.\n", "//! Skeleton.\n"] {
            expected.assert_eq(&found("a.rs", body));
        }
    }

    #[test]
    fn line_length_counts_characters_and_spares_snapshots_in_tests_only() {
        let exact = format!("// {}", "é".repeat(97));
        rule(&exact, expect![""]);
        let literal = format!("const A: &str = \"\n{}\n\";", "x".repeat(101));
        rule(&format!("#[cfg(test)]\nmod tests {{\n{literal}\n}}"), expect![""]);
        let short = format!("const A: &str = \"{}\";", "x".repeat(90));
        rule(&format!("#[cfg(test)]\nmod tests {{\n{short}\n}}"), expect![""]);
        rule(
            &literal,
            expect![[r#"
            a.rs:3: line-length: 101 characters; break it, 100 is the limit
        "#]],
        );
    }

    #[test]
    fn function_length_counts_from_the_signature_to_the_brace() {
        let function =
            |lines: usize| format!("fn long() {{\n{}}}", "    work();\n".repeat(lines - 2));
        rule(&function(70), expect![""]);
        rule(
            &function(71),
            expect![[r#"
            a.rs:2: function-length: `long` has 71 lines; split it, 70 is the limit
        "#]],
        );
        rule(
            &format!("impl A {{\n{}\n}}", function(71)),
            expect![[r#"
            a.rs:3: function-length: `long` has 71 lines; split it, 70 is the limit
        "#]],
        );
    }

    #[test]
    fn parameters_count_without_self() {
        rule("impl A { fn a(&self, b: B, c: C, d: D, e: E, f: F) {} }", expect![""]);
        rule(
            "trait A { fn a(b: B, c: C, d: D, e: E, f: F, g: G); }",
            expect![[r#"
            a.rs:2: parameters: `a` takes 6; group them, 5 is the limit
        "#]],
        );
    }

    #[test]
    fn file_length_leaves_tests_out() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}", "// A line.\n".repeat(700));
        rule(&tests, expect![""]);
        rule(
            &"// A line.\n".repeat(599),
            expect![[r#"
            a.rs:1: file-length: 601 lines besides tests; split it, 600 is the limit
        "#]],
        );
    }

    #[test]
    fn lib_root() {
        let body =
            "//! Owns an example: nothing else.\nmod a;\npub use a::A;\nuse a::B;\nmod c {}\n";
        expect![[r#"
            crates/x/src/lib.rs:4: lib-root: move this item to a module; lib.rs is docs, modules and explicit re-exports
            crates/x/src/lib.rs:5: lib-root: move this item to a module; lib.rs is docs, modules and explicit re-exports
        "#]]
        .assert_eq(&found("crates/x/src/lib.rs", body));
    }

    #[test]
    fn glob_imports() {
        rule(
            "use a::{b, c::*};",
            expect![[r#"
            a.rs:2: glob-import: name what you use of `a::c`
        "#]],
        );
        rule("#[cfg(test)]\nmod tests {\nuse proptest::prelude::*;\n}", expect![""]);
        rule(
            "#[cfg(test)]\nmod tests {\nuse super::*;\n}",
            expect![[r#"
            a.rs:4: glob-import: name what you use of `super`
        "#]],
        );
        rule(
            "use proptest::prelude::*;",
            expect![[r#"
            a.rs:2: glob-import: name what you use of `proptest::prelude`
        "#]],
        );
    }

    #[test]
    fn allow_is_found_in_every_form() {
        rule(
            "#[allow(dead_code)]\nfn a() {}",
            expect![[r#"
            a.rs:2: allow: write `#[expect(lint, reason = "…")]` instead of `allow`
        "#]],
        );
        rule(
            "#![allow(dead_code)]",
            expect![[r#"
            a.rs:2: allow: write `#[expect(lint, reason = "…")]` instead of `allow`
        "#]],
        );
        rule(
            "#[cfg_attr(test, allow(dead_code))]\nfn a() {}",
            expect![[r#"
            a.rs:2: allow: write `#[expect(lint, reason = "…")]` instead of `allow`
        "#]],
        );
        rule(
            "macro_rules! m { () => { #[allow(dead_code)] fn a() {} } }",
            expect![[r#"
            a.rs:2: allow: write `#[expect(lint, reason = "…")]` instead of `allow`
        "#]],
        );
        rule("#[expect(dead_code, reason = \"why\")]\nfn allow() { allow() }", expect![""]);
    }

    #[test]
    fn unfinished_work() {
        let mark = concat!("FIX", "ME");
        let body =
            format!("//! Owns an example: nothing else.\n// {mark}: later\nfn a() {{ todo!() }}");
        expect![[r#"
            a.rs:2: unfinished: `MARK`: finish it, or open an issue and remove the mark
            a.rs:3: unfinished: `todo!` has no place here; remove it
        "#]]
        .assert_eq(&found("a.rs", &body).replace(mark, "MARK"));
        rule("fn todo() { todo() }\n// A METHODOLOGY, XXXL.", expect![""]);
    }

    #[test]
    fn vague_names() {
        rule(
            "struct CallHandler;\nenum Context { A }\nfn token() {}\nmod util {}",
            expect![[r#"
            a.rs:2: names: `CallHandler` ends in `Handler`; say what it is
            a.rs:3: names: `Context` alone is vague; use a precise word
            a.rs:4: names: `token` alone is vague; use a precise word
            a.rs:5: names: `util` alone is vague; use a precise word
        "#]],
        );
        rule("impl Foreign for A { fn context(&self) {} }\nfn bearer_token() {}", expect![""]);
        expect![[r#"
            src/session.rs:1: names: a file called `session` is vague; use a precise word
        "#]]
        .assert_eq(&found("src/session.rs", "//! Owns an example: nothing else.\n"));
    }

    #[test]
    fn a_module_named_tests_is_only_built_for_tests() {
        rule(
            "mod tests;",
            expect![[r#"
            a.rs:2: test-module: write `#[cfg(test)]` above `mod tests`
        "#]],
        );
    }
}
