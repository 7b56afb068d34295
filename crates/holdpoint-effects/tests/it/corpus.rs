//! The corpus: calls with the effects that their target would show. Must never be written from
//! what the analysers say.

use holdpoint_effects::{
    Cluster, Database, Dialect, Effects, iam, kubernetes_manifest, sql, terraform,
};
use holdpoint_types::Verb;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::Path;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Case>,
}

/// One call and what it would do: all effects and all notes, none left out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// The policy document that is written over.
    before: Option<String>,
    /// What is done with the objects of a manifest.
    verb: Option<Verb>,
    input: String,
    class: String,
    /// Each a verb and a resource.
    effects: BTreeSet<String>,
    #[serde(default)]
    notes: BTreeSet<String>,
}

/// What a family gets wrong.
#[derive(Default)]
struct Report {
    cases: usize,
    benign: usize,
    /// Should have been stricter.
    misses: Vec<String>,
    /// Should have been milder.
    false_alarms: Vec<String>,
}

// === impl Report ===

impl Report {
    fn judge(&mut self, file: &str, case: &Case, found: &Effects) {
        self.cases += 1;
        // A change of rights is always destructive; it is benign if nothing is wrong with it.
        let grants = case.effects.iter().all(|effect| effect.starts_with("grant "));
        let benign = case.class != "destructive" || (grants && case.notes.is_empty());
        self.benign += usize::from(benign);
        let effects: BTreeSet<_> =
            found.iter().map(|effect| format!("{} {}", effect.verb, effect.resource)).collect();
        let notes: BTreeSet<_> = found.notes().map(|note| note.code.as_str().to_owned()).collect();
        let class = found.class().map_or("none", |class| class.as_str());
        let ranks = ["none", "read", "write", "destructive"];
        let rank = |class: &str| ranks.iter().position(|rank| *rank == class).unwrap();
        let place = format!("{file}: {}", case.name);
        if rank(class) < rank(&case.class) {
            self.misses.push(format!("{place}: {class}, not {}", case.class));
        }
        if rank(class) > rank(&case.class) {
            self.false_alarms.push(format!("{place}: {class}, not {}", case.class));
        }
        for lacking in case.effects.difference(&effects).chain(case.notes.difference(&notes)) {
            self.misses.push(format!("{place}: no `{lacking}`"));
        }
        for alarm in effects.difference(&case.effects).chain(notes.difference(&case.notes)) {
            self.false_alarms.push(format!("{place}: `{alarm}`"));
        }
    }
}

/// Runs every file of `family` through `analyse`, which also gets the name of the file.
#[expect(clippy::disallowed_methods, reason = "the corpus is files")]
fn run(family: &str, at_least: usize, analyse: fn(&str, &Case) -> Effects) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(family);
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut report = Report::default();
    for path in paths {
        let file = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let cases: File = toml::from_str(&text).unwrap();
        for case in cases.case {
            report.judge(&file, &case, &analyse(&file, &case));
        }
    }
    println!("{family}: {} cases, {} of them benign", report.cases, report.benign);
    println!("misses: {}\n{}", report.misses.len(), report.misses.join("\n"));
    println!("false alarms: {}\n{}", report.false_alarms.len(), report.false_alarms.join("\n"));
    assert!(report.misses.is_empty() && report.false_alarms.is_empty(), "{family}");
    assert!(report.cases >= at_least, "{family} has lost cases");
    assert!(report.benign * 3 >= report.cases, "{family} has too few benign look-alikes");
}

#[test]
fn sql_does_what_the_database_would_do() {
    run("sql", 300, |file, case| {
        let (dialect, address) = match file {
            "postgres" => (Dialect::Postgres, "pg://shop-prod/shop"),
            "sqlite" => (Dialect::Sqlite, "sqlite://shop-prod"),
            "mysql" => (Dialect::Mysql, "mysql://shop-prod/shop"),
            other => panic!("{other} is no dialect"),
        };
        let mut effects = Effects::default();
        sql(&case.input, &Database::new(dialect, address), &mut effects);
        effects
    });
}

#[test]
fn terraform_does_what_the_plan_says() {
    run("terraform", 80, |_, case| {
        let mut effects = Effects::default();
        terraform(&case.input, "shop-prod", &mut effects);
        effects
    });
}

#[test]
fn kubernetes_does_what_the_manifest_says() {
    run("kubernetes", 70, |_, case| {
        let cluster = Cluster { address: "k8s://prod".to_owned(), namespace: "default".to_owned() };
        let mut effects = Effects::default();
        kubernetes_manifest(&case.input, &cluster, case.verb.unwrap(), &mut effects);
        effects
    });
}

#[test]
fn iam_allows_what_is_new() {
    run("iam", 60, |_, case| {
        let mut effects = Effects::default();
        iam(case.before.as_deref(), &case.input, "aws://prod/role/ci", &mut effects);
        effects
    });
}
