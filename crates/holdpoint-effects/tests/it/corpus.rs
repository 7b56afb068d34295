//! The corpus: calls with the effects that their target would show. Must never be written from
//! what the analysers say.

use holdpoint_effects::{Database, Dialect, Effects, sql};
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
        self.benign += usize::from(case.class != "destructive");
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
fn run(family: &str, at_least: usize, analyse: fn(&str, &str) -> Effects) {
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
            report.judge(&file, &case, &analyse(&file, &case.input));
        }
    }
    println!("{family}: {} cases, {} of them benign", report.cases, report.benign);
    println!("misses: {}\n{}", report.misses.len(), report.misses.join("\n"));
    println!("false alarms: {}\n{}", report.false_alarms.len(), report.false_alarms.join("\n"));
    assert!(report.misses.is_empty() && report.false_alarms.is_empty(), "{family}");
    assert!(report.cases >= at_least, "{family} has lost cases");
    assert!(report.benign * 5 >= report.cases * 2, "{family} has too few benign look-alikes");
}

#[test]
fn sql_does_what_the_database_would_do() {
    run("sql", 300, |file, text| {
        let (dialect, address) = match file {
            "postgres" => (Dialect::Postgres, "pg://shop-prod/shop"),
            "sqlite" => (Dialect::Sqlite, "sqlite://shop-prod"),
            "mysql" => (Dialect::Mysql, "mysql://shop-prod/shop"),
            other => panic!("{other} is no dialect"),
        };
        let mut effects = Effects::default();
        sql(text, &Database::new(dialect, address), &mut effects);
        effects
    });
}
