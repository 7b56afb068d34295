//! The arrows between crates: who may depend on whom, and where heavy dependencies may live.
//!
//! Owns the table of ARCHITECTURE.md. Must never look at Rust code: Cargo decides what compiles.

use super::{Broken, Text};
use anyhow::Context;
use std::collections::BTreeMap;
use toml::{Table, Value};

/// Each crate and the crates of ours that it may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("holdpoint-types", &[]),
    ("holdpoint-policy", &["holdpoint-types"]),
    ("holdpoint-effects", &["holdpoint-types"]),
    ("holdpoint-ledger", &["holdpoint-types"]),
    (
        "holdpoint-control",
        &["holdpoint-types", "holdpoint-policy", "holdpoint-effects", "holdpoint-ledger"],
    ),
    ("holdpoint-resources", &["holdpoint-types", "holdpoint-ledger", "holdpoint-control"]),
    (
        "holdpoint-server",
        &[
            "holdpoint-types",
            "holdpoint-policy",
            "holdpoint-effects",
            "holdpoint-ledger",
            "holdpoint-control",
            "holdpoint-resources",
        ],
    ),
    (
        "holdpoint",
        &[
            "holdpoint-types",
            "holdpoint-policy",
            "holdpoint-effects",
            "holdpoint-ledger",
            "holdpoint-control",
            "holdpoint-resources",
            "holdpoint-server",
        ],
    ),
    (
        "holdpoint-bench",
        &[
            "holdpoint-types",
            "holdpoint-policy",
            "holdpoint-effects",
            "holdpoint-ledger",
            "holdpoint-control",
            "holdpoint-resources",
            "holdpoint-server",
        ],
    ),
    (
        "holdpoint-fuzz",
        &[
            "holdpoint-types",
            "holdpoint-policy",
            "holdpoint-effects",
            "holdpoint-ledger",
            "holdpoint-control",
            "holdpoint-resources",
            "holdpoint-server",
        ],
    ),
    ("xtask", &[]),
];

/// Crates without I/O, clock, randomness and threads; clippy holds them to it.
const PURE: &[&str] = &[
    "holdpoint-types",
    "holdpoint-policy",
    "holdpoint-effects",
    "holdpoint-ledger",
    "holdpoint-control",
];

/// What every pure crate's `clippy.toml` must ban, besides whatever else it bans.
const PURE_BANS: &[&str] = &[
    "std::time::SystemTime::now",
    "std::time::Instant::now",
    "std::env::var",
    "std::fs::File::open",
    "std::thread::spawn",
    "std::collections::HashMap",
];

/// The crates where the world may be touched.
const EDGES: &[&str] =
    &["holdpoint-resources", "holdpoint-server", "holdpoint", "holdpoint-bench", "holdpoint-fuzz"];

/// Dependencies that live in few crates only: (name, crates). A name stands for its family too:
/// `tokio` for `tokio-util`, `opentelemetry` for `opentelemetry_sdk`.
const KEPT: &[(&str, &[&str])] = &[
    ("tokio", EDGES),
    ("axum", EDGES),
    ("hyper", EDGES),
    ("rmcp", EDGES),
    ("rusqlite", EDGES),
    ("sqlx", EDGES),
    ("reqwest", EDGES),
    ("opentelemetry", EDGES),
    ("cedar-policy", &["holdpoint-policy", "holdpoint-fuzz"]),
];

/// One crate's manifest.
struct Manifest<'t> {
    file: &'t str,
    body: &'t str,
    name: String,
    table: Table,
}

/// One dependency as the manifest names it.
struct Edge {
    name: String,
    line: usize,
    dev: bool,
}

// === impl Manifest ===

impl<'t> Manifest<'t> {
    fn parse(text: &'t Text) -> anyhow::Result<Option<Self>> {
        let table: Table = text.body.parse().with_context(|| text.file.clone())?;
        let package = table.get("package").and_then(Value::as_table);
        let Some(name) = package.and_then(|package| package.get("name")?.as_str()) else {
            return Ok(None);
        };
        let name = name.to_owned();
        Ok(Some(Self { file: &text.file, body: &text.body, name, table }))
    }

    fn edges(&self, renames: &BTreeMap<String, String>) -> Vec<Edge> {
        let mut edges = Vec::new();
        self.edges_in(&self.table, renames, &mut edges);
        let targets = self.table.get("target").and_then(Value::as_table);
        for target in targets.into_iter().flat_map(Table::values) {
            if let Some(target) = target.as_table() {
                self.edges_in(target, renames, &mut edges);
            }
        }
        edges
    }

    fn edges_in(&self, table: &Table, renames: &BTreeMap<String, String>, edges: &mut Vec<Edge>) {
        for (section, dev) in
            [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)]
        {
            let Some(section) = table.get(section).and_then(Value::as_table) else { continue };
            for (key, value) in section {
                let own = value.get("package").and_then(Value::as_str);
                let name = own.or(renames.get(key).map(String::as_str)).unwrap_or(key);
                edges.push(Edge { name: name.to_owned(), line: self.line_of(key), dev });
            }
        }
    }

    /// The line that names the dependency; good enough for a message.
    fn line_of(&self, key: &str) -> usize {
        let names = |line: &str| {
            let rest = line.trim_start().strip_prefix(key);
            rest.is_some_and(|rest| rest.trim_start().starts_with(['=', '.']))
        };
        self.body.lines().position(names).map_or(1, |index| index + 1)
    }

    fn inherits_lints(&self) -> bool {
        let lints = self.table.get("lints");
        lints.and_then(|lints| lints.get("workspace")?.as_bool()) == Some(true)
    }
}

// === functions ===

/// Every broken arrow in the manifests among `texts`.
///
/// # Errors
/// When a `Cargo.toml` is no TOML.
pub fn check(texts: &[Text]) -> anyhow::Result<Vec<Broken>> {
    let manifests = texts.iter().filter(|text| text.file.ends_with("Cargo.toml"));
    let renames = renames(texts)?;
    let mut broken = Vec::new();
    for text in manifests {
        let Some(manifest) = Manifest::parse(text)? else { continue };
        broken.extend(check_manifest(&manifest, &renames));
        if PURE.contains(&manifest.name.as_str()) {
            broken.extend(check_purity(&manifest, texts));
        }
    }
    Ok(broken)
}

fn check_manifest(manifest: &Manifest<'_>, renames: &BTreeMap<String, String>) -> Vec<Broken> {
    let Some((name, allowed)) = ARROWS.iter().find(|(name, _)| *name == manifest.name) else {
        let advice = format!("`{}` has no row in ARROWS of xtask; add one", manifest.name);
        return vec![Broken::new(manifest.file, 1, "arrows", advice)];
    };
    let mut broken = Vec::new();
    if !manifest.inherits_lints() {
        let advice = "write `[lints]` and `workspace = true`";
        broken.push(Broken::new(manifest.file, 1, "lints", advice));
    }
    for edge in manifest.edges(renames) {
        let ours = ARROWS.iter().any(|(ours, _)| *ours == edge.name);
        if ours && !allowed.contains(&edge.name.as_str()) {
            let advice =
                format!("`{name}` must not depend on `{}`; see ARCHITECTURE.md", edge.name);
            broken.push(Broken::new(manifest.file, edge.line, "arrows", advice));
        }
        broken.extend(check_kept(manifest, &edge));
    }
    broken
}

/// Heavy dependencies stay where they are allowed; tests may use them anywhere.
fn check_kept(manifest: &Manifest<'_>, edge: &Edge) -> Option<Broken> {
    let family = |name: &str| {
        let rest = edge.name.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
    };
    let (_, homes) = KEPT.iter().find(|(name, _)| family(name))?;
    if edge.dev || homes.contains(&manifest.name.as_str()) {
        return None;
    }
    let advice = format!("`{}` belongs only in {}", edge.name, homes.join(", "));
    Some(Broken::new(manifest.file, edge.line, "arrows", advice))
}

/// A pure crate's `clippy.toml` bans what a pure crate may not do.
fn check_purity(manifest: &Manifest<'_>, texts: &[Text]) -> Vec<Broken> {
    let file = manifest.file.replace("Cargo.toml", "clippy.toml");
    let body = texts.iter().find(|text| text.file == file).map_or("", |text| text.body.as_str());
    let missing = PURE_BANS.iter().filter(|ban| !body.contains(&format!("\"{ban}\"")));
    missing.map(|ban| Broken::new(&file, 1, "purity", format!("disallow `{ban}`"))).collect()
}

/// Dependencies that the workspace gives another name: name here to name in the registry.
fn renames(texts: &[Text]) -> anyhow::Result<BTreeMap<String, String>> {
    let Some(text) = texts.iter().find(|text| text.file == "Cargo.toml") else {
        return Ok(BTreeMap::new());
    };
    let table: Table = text.body.parse().with_context(|| text.file.clone())?;
    let shared = table.get("workspace").and_then(|workspace| workspace.get("dependencies"));
    let shared = shared.and_then(Value::as_table).into_iter().flatten();
    let renamed = shared
        .filter_map(|(key, value)| Some((key.clone(), value.get("package")?.as_str()?.to_owned())));
    Ok(renamed.collect())
}

#[cfg(test)]
mod tests {
    use super::{ARROWS, PURE_BANS, check};
    use crate::tidy::Text;
    use expect_test::{Expect, expect};

    fn text(file: &str, body: &str) -> Text {
        Text { file: file.to_owned(), body: body.to_owned() }
    }

    fn rule(name: &str, dependencies: &str, expected: Expect) {
        let head = format!("[package]\nname = \"{name}\"\n[lints]\nworkspace = true\n");
        let manifest = text("c/Cargo.toml", &format!("{head}{dependencies}"));
        let bans: String = PURE_BANS.iter().map(|ban| format!("\"{ban}\"\n")).collect();
        let root = "[workspace.dependencies]\nruntime = { package = \"tokio\", version = \"1\" }\n";
        let texts = [manifest, text("c/clippy.toml", &bans), text("Cargo.toml", root)];
        let broken = check(&texts).unwrap();
        expected.assert_eq(&broken.iter().map(|b| format!("{b}\n")).collect::<String>());
    }

    #[test]
    fn allowed_arrows_pass() {
        rule(
            "holdpoint-ledger",
            "[dependencies]\nholdpoint-types = {}\nsha2 = \"1\"\n",
            expect![""],
        );
        rule("holdpoint-server", "[dependencies]\ntokio-util = \"1\"\n", expect![""]);
        rule("holdpoint-policy", "[dependencies]\ncedar-policy = \"4\"\n", expect![""]);
        rule("holdpoint-ledger", "[dev-dependencies]\ntokio = \"1\"\n", expect![""]);
    }

    #[test]
    fn policy_and_ledger_never_see_each_other_not_even_in_tests() {
        rule(
            "holdpoint-ledger",
            "[dependencies]\nholdpoint-policy.workspace = true\n",
            expect![[r#"
            c/Cargo.toml:6: arrows: `holdpoint-ledger` must not depend on `holdpoint-policy`; see ARCHITECTURE.md
        "#]],
        );
        rule(
            "holdpoint-policy",
            "[dev-dependencies]\nholdpoint-ledger = {}\n",
            expect![[r#"
            c/Cargo.toml:6: arrows: `holdpoint-policy` must not depend on `holdpoint-ledger`; see ARCHITECTURE.md
        "#]],
        );
    }

    #[test]
    fn heavy_dependencies_stay_at_the_edges_under_any_name() {
        let renamed = "[target.'cfg(unix)'.dependencies]\nrt = { package = \"tokio-util\" }\n";
        rule(
            "holdpoint-control",
            renamed,
            expect![[r#"
                c/Cargo.toml:6: arrows: `tokio-util` belongs only in holdpoint-resources, holdpoint-server, holdpoint, holdpoint-bench, holdpoint-fuzz
            "#]],
        );
        rule(
            "xtask",
            "[build-dependencies]\nruntime = { workspace = true }\n",
            expect![[r#"
                c/Cargo.toml:6: arrows: `tokio` belongs only in holdpoint-resources, holdpoint-server, holdpoint, holdpoint-bench, holdpoint-fuzz
            "#]],
        );
        rule(
            "holdpoint-server",
            "[dependencies]\ncedar-policy = \"4\"\n",
            expect![[r#"
                c/Cargo.toml:6: arrows: `cedar-policy` belongs only in holdpoint-policy, holdpoint-fuzz
            "#]],
        );
    }

    #[test]
    fn an_unknown_crate_needs_a_row() {
        rule(
            "holdpoint-extra",
            "",
            expect![[r#"
            c/Cargo.toml:1: arrows: `holdpoint-extra` has no row in ARROWS of xtask; add one
        "#]],
        );
    }

    #[test]
    fn lints_and_purity_are_not_optional() {
        let manifest = text("c/Cargo.toml", "[package]\nname = \"holdpoint-types\"\n");
        let broken = check(&[manifest]).unwrap();
        assert_eq!(broken.iter().filter(|broken| broken.rule == "lints").count(), 1);
        assert_eq!(broken.iter().filter(|b| b.rule == "purity").count(), PURE_BANS.len());
    }

    #[test]
    fn the_table_has_no_cycle() {
        // Each row may only name rows above it.
        for (row, (name, allowed)) in ARROWS.iter().enumerate() {
            let above = |other: &&str| ARROWS[..row].iter().any(|(upper, _)| upper == other);
            assert!(allowed.iter().all(above), "{name}");
        }
    }
}
