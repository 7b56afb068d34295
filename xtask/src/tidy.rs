//! The house style as a check: every rule of STYLE.md that a machine can judge.
//!
//! Owns which files are looked at and how a broken rule is reported. Must never repair a file or
//! know a rule that a reader cannot find in STYLE.md.

use anyhow::Context;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

mod arrows;
mod docs;
mod limits;
mod shape;
mod source;

use source::Source;

/// Folders that hold nothing of ours.
const FOREIGN: &[&str] = &["target", "node_modules", ".git", ".holdpoint"];

/// One place where a rule is broken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Broken {
    /// The file, relative to the workspace.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The name of the rule.
    pub rule: &'static str,
    /// What to do about it.
    pub advice: String,
}

/// What a run found.
#[derive(Debug, Default)]
pub struct Report {
    /// How many files were looked at.
    pub files: usize,
    /// Every broken rule, by file and line.
    pub broken: Vec<Broken>,
}

/// One text file of the tree.
pub struct Text {
    /// The file, relative to the workspace, with `/` between folders.
    pub file: String,
    /// What it holds.
    pub body: String,
}

// === impl Broken ===

impl Broken {
    fn new(file: &str, line: usize, rule: &'static str, advice: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, rule, advice: advice.into() }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.file, self.line, self.rule, self.advice)
    }
}

// === impl Report ===

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for broken in &self.broken {
            writeln!(f, "{broken}")?;
        }
        write!(f, "tidy: {} files, {} broken rules", self.files, self.broken.len())
    }
}

/// Checks the whole tree under `root`.
///
/// # Errors
/// When a file cannot be read or a `Cargo.toml` is no TOML: broken rules are no errors.
pub fn check(root: &Path) -> anyhow::Result<Report> {
    let texts = texts_under(root)?;
    let mut report = Report { files: texts.len(), ..Report::default() };
    let mut sources = Vec::new();
    for text in texts.iter().filter(|text| text.file.ends_with(".rs")) {
        match Source::parse(&text.file, &text.body) {
            Ok(source) => sources.push(source),
            Err(broken) => report.broken.push(broken),
        }
    }
    for source in &sources {
        report.broken.extend(shape::check(source));
    }
    report.broken.extend(arrows::check(&texts)?);
    report.broken.extend(docs::check(root, &texts, &source::test_names(&sources)));
    report.broken.extend(docs::missing(&texts));
    report.broken.extend(limits::check(&texts));
    report.broken.sort();
    report.broken.dedup();
    Ok(report)
}

/// Every Rust, Markdown and Cargo file of the tree, in a fixed order.
fn texts_under(root: &Path) -> anyhow::Result<Vec<Text>> {
    let mut paths = Vec::new();
    collect(root, &mut paths)?;
    paths.sort();
    paths.into_iter().map(|path| read(root, &path)).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let kind = entry.file_type()?;
        if kind.is_dir() && !FOREIGN.contains(&name.as_ref()) {
            collect(&entry.path(), paths)?;
        } else if kind.is_file() && is_ours(&name) {
            paths.push(entry.path());
        }
    }
    Ok(())
}

fn is_ours(name: &str) -> bool {
    name == "Cargo.toml"
        || name == "clippy.toml"
        || [".rs", ".md"].iter().any(|end| name.ends_with(end))
}

fn read(root: &Path, path: &Path) -> anyhow::Result<Text> {
    let body = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let file = path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/");
    Ok(Text { file, body })
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn broken_rules_are_listed_by_file_and_line_with_advice() {
        let tree = Tree::new("tidy-report");
        tree.write(
            "crates/holdpoint-types/src/lib.rs",
            "//! Owns one word and nothing else.\nfn a() {}\n",
        );
        tree.write("crates/holdpoint-types/src/bad.rs", "fn broken( {\n");
        tree.write("crates/holdpoint-types/target/skip.rs", "fn broken( {\n");
        tree.write("README.md", "[gone](docs/gone.md)\n");
        let report = check(&tree.root).unwrap().to_string();
        expect_test::expect![[r#"
            README.md:1: links: `docs/gone.md` does not exist; correct or remove the link
            SPECIFICATION.md:1: promises: write this file
            crates/holdpoint-types/src/bad.rs:1: syntax: cannot parse string into token stream
            crates/holdpoint-types/src/lib.rs:2: lib-root: move this item to a module; lib.rs is docs, modules and explicit re-exports
            tidy: 3 files, 4 broken rules"#]]
        .assert_eq(&report);
    }

    struct Tree {
        root: std::path::PathBuf,
    }

    impl Tree {
        fn new(name: &str) -> Self {
            let root =
                std::env::temp_dir().join(format!("holdpoint-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&root).unwrap();
            Self { root }
        }

        fn write(&self, file: &str, body: &str) {
            let path = self.root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, body).unwrap();
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.root).unwrap();
        }
    }
}
