//! The rule about limits: each one, set by the operator or fixed in the code, is in
//! `docs/limits.md`.
//!
//! Owns what counts as a limit. Must never judge whether a limit is a good one.

use super::{Broken, Text};
use std::collections::BTreeSet;

const PAGE: &str = "docs/limits.md";
/// Where the operator's limits are declared.
const RAW: &str = "crates/holdpoint/src/config/raw.rs";

/// Checks that the page names every limit among `texts`, and none that is gone.
pub fn check(texts: &[Text]) -> Vec<Broken> {
    let page = texts.iter().find(|text| text.file == PAGE).map_or("", |text| text.body.as_str());
    let named = named(page);
    let mut broken = Vec::new();
    let mut there = BTreeSet::new();
    for text in texts {
        let Some(file) = short(&text.file) else { continue };
        for (line, name) in constants(&text.body) {
            let limit = (file.clone(), name.to_owned());
            if !named.contains(&limit) {
                let advice = format!("name `{file}` `{name}` in {PAGE}");
                broken.push(Broken::new(&text.file, line, "limits", advice));
            }
            there.insert(limit);
        }
    }
    for (file, name) in named.difference(&there) {
        broken.push(Broken::new(PAGE, 1, "limits", format!("`{file}` has no `{name}`")));
    }
    let raw = texts.iter().find(|text| text.file == RAW).map_or("", |text| text.body.as_str());
    let missing = keys(raw).filter(|(_, key)| !page.contains(&format!("\n| `{key}`")));
    broken.extend(missing.map(|(line, key)| {
        Broken::new(RAW, line, "limits", format!("write a row for `{key}` in {PAGE}"))
    }));
    broken
}

/// The limits that the page names: a file in backticks, and constants after it.
fn named(page: &str) -> BTreeSet<(String, String)> {
    let mut file = "";
    let mut found = BTreeSet::new();
    for word in page.split('`').skip(1).step_by(2) {
        if word.ends_with(".rs") {
            file = word;
        } else if word.ends_with("_MAX") {
            found.insert((file.to_owned(), word.to_owned()));
        }
    }
    found
}

/// How the page calls a file of a crate; nothing for files without limits of the product.
fn short(file: &str) -> Option<String> {
    let (folder, rest) = file.strip_prefix("crates/")?.split_once("/src/")?;
    let ours = rest.ends_with(".rs") && !rest.contains("tests") && !rest.ends_with("fuzzing.rs");
    let name = folder.strip_prefix("holdpoint-").unwrap_or(folder);
    ours.then(|| format!("{name}/{rest}"))
}

/// The names of constants that end in `MAX`, outside of tests, with their lines from 1.
fn constants(body: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = body.lines().take_while(|line| *line != "#[cfg(test)]").enumerate();
    lines.filter_map(|(index, line)| {
        let rest = line.strip_prefix("pub").map_or(line, |rest| {
            rest.split_once("const ").map_or(rest, |(before, _)| &rest[before.len()..])
        });
        let name = rest.strip_prefix("const ")?.split(':').next()?;
        name.ends_with("_MAX").then_some((index + 1, name))
    })
}

/// The keys of `[limits]`, with their lines from 1.
fn keys(raw: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = raw.lines().enumerate();
    let lines = lines.skip_while(|(_, line)| !line.starts_with("pub struct RawLimits {"));
    lines.skip(1).take_while(|(_, line)| *line != "}").filter_map(|(index, line)| {
        let name = line.trim_start().strip_prefix("pub ")?.split(':').next()?;
        Some((index + 1, name))
    })
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::Text;
    use expect_test::expect;

    #[test]
    fn every_limit_is_on_the_page_and_no_other() {
        let text = |file: &str, body: &str| Text { file: file.into(), body: body.into() };
        let raw =
            "pub struct RawLimits {\n    /// Bytes.\n    pub bytes_max: X,\n    pub ms: X,\n}\n";
        let code = "/// A.\nconst A_MAX: u8 = 1;\npub(super) const B_MAX: u8 = 1;\nconst C: u8 = 1;\n\
                    #[cfg(test)]\nmod tests {\nconst D_MAX: u8 = 1;\n}\n";
        let page = "| key |\n|---|\n| `ms` |\n\n`types/x.rs` `A_MAX` and `GONE_MAX`\n";
        let texts = [
            text("crates/holdpoint/src/config/raw.rs", raw),
            text("crates/holdpoint-types/src/x.rs", code),
            text("docs/limits.md", page),
        ];
        let found: String = check(&texts).iter().map(|broken| format!("{broken}\n")).collect();
        expect![[r#"
            crates/holdpoint-types/src/x.rs:3: limits: name `types/x.rs` `B_MAX` in docs/limits.md
            docs/limits.md:1: limits: `types/x.rs` has no `GONE_MAX`
            crates/holdpoint/src/config/raw.rs:3: limits: write a row for `bytes_max` in docs/limits.md
        "#]]
        .assert_eq(&found);
    }
}
