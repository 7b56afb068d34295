//! Rules about Markdown: links that resolve, promises that name their test, no unfinished work.
//!
//! Owns the reading of tables and links. Must never judge whether a test proves its promise.

use super::shape::unfinished_word;
use super::{Broken, Text};
use std::collections::BTreeSet;
use std::path::Path;

const SPECIFICATION: &str = "SPECIFICATION.md";

/// What a promise says that no test proves yet.
const PENDING: &str = "[test pending]";

/// One line of a document outside fenced code.
struct Line<'t> {
    number: usize,
    text: &'t str,
}

// === functions ===

/// Checks every document among `texts`; `tests` are the names of all test functions.
pub fn check(root: &Path, texts: &[Text], tests: &BTreeSet<String>) -> Vec<Broken> {
    let mut broken = Vec::new();
    for text in texts.iter().filter(|text| text.file.ends_with(".md")) {
        let lines = prose(&text.body);
        broken.extend(unfinished(text));
        broken.extend(links(root, &text.file, &lines));
        let tables = proofs(&text.file, &lines, tests, &mut broken);
        if text.file == SPECIFICATION && tables == 0 {
            let advice = "write promises as a table with a column called `test`";
            broken.push(Broken::new(SPECIFICATION, 1, "promises", advice));
        }
    }
    broken
}

/// A tree without promises breaks a rule, too.
pub fn missing(texts: &[Text]) -> Option<Broken> {
    let there = texts.iter().any(|text| text.file == SPECIFICATION);
    (!there).then(|| Broken::new(SPECIFICATION, 1, "promises", "write this file"))
}

fn prose(body: &str) -> Vec<Line<'_>> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for (index, text) in body.lines().enumerate() {
        let fence = text.trim_start().starts_with("```");
        if !fenced && !fence {
            lines.push(Line { number: index + 1, text });
        }
        fenced ^= fence;
    }
    lines
}

fn unfinished(text: &Text) -> Vec<Broken> {
    let marks = text.body.lines().enumerate().filter_map(|(index, line)| {
        let word = unfinished_word(line)?;
        let advice = format!("`{word}`: write it, or leave it out");
        Some(Broken::new(&text.file, index + 1, "unfinished", advice))
    });
    marks.collect()
}

/// Relative links must lead to a file or folder inside the tree.
fn links(root: &Path, file: &str, lines: &[Line<'_>]) -> Vec<Broken> {
    let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut broken = Vec::new();
    for line in lines {
        for target in targets(line.text) {
            let path = target.split('#').next().unwrap_or_default();
            let elsewhere = path.is_empty() || path.contains("://") || path.starts_with("mailto:");
            if elsewhere || leads_somewhere(root, folder, path) {
                continue;
            }
            let advice = format!("`{path}` does not exist; correct or remove the link");
            broken.push(Broken::new(file, line.number, "links", advice));
        }
    }
    broken
}

/// True if `path`, seen from `folder`, stays inside the tree and exists.
fn leads_somewhere(root: &Path, folder: &str, path: &str) -> bool {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.pop().is_none() => return false,
            ".." => {}
            part => parts.push(part),
        }
    }
    !path.starts_with('/') && root.join(parts.join("/")).exists()
}

/// The targets of `[text](target)`, `![text](target)` and `[label]: target`, outside inline code.
fn targets(line: &str) -> Vec<&str> {
    let code: Vec<&str> = line.split('`').step_by(2).collect();
    let inline = code.iter().flat_map(|text| text.split("](").skip(1));
    let inline = inline.filter_map(|rest| rest.split([')', ' ']).next());
    let labelled = line.strip_prefix('[').and_then(|rest| rest.split_once("]: "));
    let labelled = labelled.and_then(|(_, rest)| rest.split_whitespace().next());
    inline.chain(labelled).collect()
}

/// Checks every table that has a column called `test`, and counts such tables.
fn proofs(
    file: &str,
    lines: &[Line<'_>],
    tests: &BTreeSet<String>,
    broken: &mut Vec<Broken>,
) -> usize {
    let mut tables = 0;
    let mut column = None;
    let mut previous = 0;
    for line in lines {
        let Some(cells) = cells(line.text) else { continue };
        if line.number != previous + 1 || previous == 0 {
            column = cells.iter().position(|cell| cell.eq_ignore_ascii_case("test"));
            tables += usize::from(column.is_some());
        } else if let Some(cell) = column.map(|column| cells.get(column).copied().unwrap_or("")) {
            broken.extend(
                proof(cell, tests).map(|advice| Broken::new(file, line.number, "promises", advice)),
            );
        }
        previous = line.number;
    }
    tables
}

/// The cells of a table's row.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?;
    let inner = inner.strip_suffix('|').unwrap_or(inner);
    Some(inner.split('|').map(str::trim).collect())
}

/// What is wrong with one cell of a `test` column.
fn proof(cell: &str, tests: &BTreeSet<String>) -> Option<String> {
    let rule = cell.chars().all(|letter| matches!(letter, '-' | ':')) && !cell.is_empty();
    if rule || cell.contains(PENDING) {
        return None;
    }
    let named: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
    if named.is_empty() {
        return Some(format!("name the test in backticks, or say `{PENDING}`"));
    }
    let name = |path: &str| path.rsplit("::").next().unwrap_or(path).to_owned();
    let missing = named.into_iter().find(|path| !tests.contains(&name(path)))?;
    Some(format!("no test is called `{missing}`; correct the name, or say `{PENDING}`"))
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::Text;
    use expect_test::{Expect, expect};
    use std::collections::BTreeSet;
    use std::path::Path;

    fn rule(file: &str, body: &str, expected: Expect) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let text = Text { file: file.to_owned(), body: body.to_owned() };
        let tests = BTreeSet::from(["the_proof".to_owned()]);
        let found = check(root, &[text], &tests);
        expected.assert_eq(&found.iter().map(|b| format!("{b}\n")).collect::<String>());
    }

    #[test]
    fn links_that_resolve_pass() {
        rule(
            "A.md",
            "[a](src/main.rs) [b](src#top) [c](#here) [d](https://x.example/y)",
            expect![""],
        );
        rule("src/A.md", "[a](../Cargo.toml)\n```\n[x](gone.md)\n```\n`[x](gone.md)`", expect![""]);
    }

    #[test]
    fn links_that_lead_nowhere_or_outside_are_found() {
        rule(
            "src/A.md",
            "[a](gone.md)\n![b](../../Cargo.toml \"t\")\n[c]: /etc",
            expect![[r#"
            src/A.md:1: links: `gone.md` does not exist; correct or remove the link
            src/A.md:2: links: `../../Cargo.toml` does not exist; correct or remove the link
            src/A.md:3: links: `/etc` does not exist; correct or remove the link
        "#]],
        );
    }

    #[test]
    fn promises_name_a_test_or_say_that_it_is_pending() {
        let head = "| promise | test |\n|---|---|\n";
        let good = format!("{head}| a | `x::tests::the_proof` |\n| b | [test pending] |\n");
        rule("SPECIFICATION.md", &good, expect![""]);
        let bad = format!("{head}| a | `the_prof` |\n| b | somewhere |\n| c |\n");
        rule(
            "docs/threat-model.md",
            &bad,
            expect![[r#"
            docs/threat-model.md:3: promises: no test is called `the_prof`; correct the name, or say `[test pending]`
            docs/threat-model.md:4: promises: name the test in backticks, or say `[test pending]`
            docs/threat-model.md:5: promises: name the test in backticks, or say `[test pending]`
        "#]],
        );
    }

    #[test]
    fn a_specification_without_promises_is_none() {
        rule(
            "SPECIFICATION.md",
            "| a | b |\n|---|---|\n| c | d |\n",
            expect![[r#"
            SPECIFICATION.md:1: promises: write promises as a table with a column called `test`
        "#]],
        );
    }

    #[test]
    fn unfinished_documents() {
        let body = format!("Fine.\n{}: more", concat!("TO", "DO"));
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let text = Text { file: "A.md".to_owned(), body };
        let found = check(root, &[text], &BTreeSet::new());
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].line, found[0].rule), (2, "unfinished"));
    }
}
