//! What holds for any input. Must never depend on what an input means.

use holdpoint_effects::{
    Cluster, Database, Dialect, Effects, iam, kubernetes_manifest, sql, terraform,
};
use holdpoint_types::Verb;
use proptest::prelude::*;

const DIALECTS: [Dialect; 3] = [Dialect::Postgres, Dialect::Sqlite, Dialect::Mysql];

/// What can be repeated to make a tree deep, with what stands before and behind.
const LINKS: &[(&str, &str, &str)] = &[
    ("SELECT 1", "+1", ""),
    ("SELECT a", "::int", ""),
    ("SELECT a", " IS NULL", ""),
    ("SELECT 1", " UNION SELECT 1", ""),
    ("DELETE FROM t WHERE a", " OR a", ""),
    ("DELETE FROM t WHERE a = 1", " AND b = 2", ""),
    ("SELECT ", "NOT ", "a"),
    ("SELECT ", "-", "1"),
    ("SELECT ", "(", "1"),
    ("SELECT ", "(SELECT ", "1"),
    ("SELECT ", "CASE WHEN ", "1"),
    ("SELECT a", "[1", ""),
    ("SELECT * FROM a", " JOIN a", ""),
    ("SELECT * FROM ", "(", "a"),
    ("", "EXPLAIN ", "SELECT 1"),
    ("", "PREPARE p AS ", "SELECT 1"),
    ("SELECT a", ".b", ""),
    ("SELECT a", " AT TIME ZONE 'x'", ""),
    ("SELECT a", " COLLATE c", ""),
    ("SELECT f", "()", ""),
    ("", "WITH a AS (", "SELECT 1"),
    ("SELECT ", "f(", "1"),
    ("SELECT 1", ", 1", ""),
    ("", "BEGIN ", ""),
    ("SELECT ", "INTERVAL ", "1"),
    ("SELECT a", " BETWEEN a", " AND a"),
    ("CREATE TABLE a (b ", "ARRAY<", "int"),
    ("/*", "/*", ""),
    ("SELECT * FROM a", " LEFT JOIN a ON true", ""),
    ("SELECT * FROM a", " NATURAL JOIN a", ""),
    ("SELECT * FROM a", " CROSS APPLY a", ""),
    ("SELECT * FROM a", ", LATERAL a", ""),
    ("SELECT 1", " EXCEPT SELECT 1", ""),
    ("SELECT ", "PRIOR ", "a"),
    ("SELECT ", "EXISTS ", "a"),
    ("SELECT ", "DISTINCT ", "a"),
    ("SELECT ", "~ ", "a"),
    ("SELECT ", "@", "a"),
    ("SELECT ", "! ", "a"),
    ("SELECT a", " !", ""),
    ("SELECT a", "->b", ""),
    ("SELECT a", "[1]", ""),
    ("SELECT a", " LIKE a", ""),
    ("SELECT a", " ESCAPE a", ""),
    ("", "IF a THEN ", ""),
    ("", "WHILE a ", ""),
    ("CREATE TABLE a (b int", " DEFAULT 1", ")"),
    ("CREATE TABLE a (b int", " REFERENCES c", ")"),
    ("ALTER TABLE a", " ADD b int,", ""),
    ("GRANT SELECT", ", SELECT", " ON a TO b"),
    ("SELECT ", "DATE ", "a"),
    ("SELECT ", "BINARY ", "a"),
    ("SELECT ", "x'1' ", "a"),
    ("CREATE TABLE a (b ", "SETOF ", "int)"),
    ("SELECT a::", "Nullable(", "int"),
    ("", "CREATE FUNCTION a() RETURN ", ""),
    ("", "CREATE VIEW a AS ", "SELECT 1"),
    ("", "COPY (", "SELECT 1"),
    ("", "INSERT INTO a ", "SELECT 1"),
    ("", "DECLARE a CURSOR FOR ", "SELECT 1"),
    ("SELECT * FROM a", " TABLESAMPLE x (1)", ""),
    ("SELECT * FROM a", " PIVOT (b(c) FOR d IN (e))", ""),
    ("SELECT 1 ", "|> WHERE a ", ""),
    ("SELECT f(1)", " OVER (a)", ""),
    ("SELECT ", "a -> ", "b"),
    ("SELECT f(", "a => ", "b)"),
];

fn of_sql(text: &str, dialect: Dialect) -> Effects {
    let mut effects = Effects::default();
    sql(text, &Database::new(dialect, "x://y/z"), &mut effects);
    effects
}

/// Every document analyser, on one text.
fn of_documents(text: &str) -> Vec<Effects> {
    let cluster = Cluster { address: "k8s://c".to_owned(), namespace: "n".to_owned() };
    let mut all = vec![Effects::default(); 4];
    if let [plan, policy, changed, manifest] = all.as_mut_slice() {
        terraform(text, "s", plan);
        iam(None, text, "x://y", policy);
        iam(Some(text), text, "x://y", changed);
        kubernetes_manifest(text, &cluster, Verb::Update, manifest);
    }
    all
}

/// Scraps of JSON and YAML.
fn document_scraps() -> impl Strategy<Value = String> {
    let scrap = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "\n",
        "  ",
        "- ",
        "---\n",
        "&a ",
        "*a ",
        "!!binary ",
        "<<: ",
        "kind: ",
        "apiVersion: v1\n",
        "metadata: {name: a}\n",
        "Pod\n",
        "containers: ",
        "null",
        "true",
        "\"Statement\":",
        "\"Effect\":\"Allow\",",
        "\"Action\":\"*\"",
        "\"bindings\":",
        "\"resource_changes\":",
        "\"format_version\":\"1\",",
        "\"terraform_version\":\"1\",",
        "\"change\":{\"actions\":[\"delete\"]}",
        "'",
        "|\n",
        ">\n",
        "\u{feff}",
        "\t",
        "?",
        "%",
    ]);
    prop::collection::vec(scrap, 0..40).prop_map(|scraps| scraps.concat())
}

/// Scraps of SQL, so that some of what is put together means something.
fn scraps() -> impl Strategy<Value = String> {
    let scrap = prop::sample::select(vec![
        "SELECT ",
        "* FROM ",
        "a ",
        "b ",
        "DELETE FROM ",
        "WHERE ",
        "1=1 ",
        "UPDATE ",
        "SET x = 1 ",
        "(",
        ")",
        ",",
        ";",
        "'",
        "\"",
        "`",
        "$$",
        "$a$",
        "/*",
        "*/",
        "/*!",
        "-- ",
        "\n",
        "\\",
        "E'",
        "WITH a AS (",
        "UNION ",
        "AND ",
        "OR ",
        "NOT ",
        "EXPLAIN ",
        "ANALYZE ",
        "COPY a TO ",
        "DROP TABLE ",
        "TRUNCATE ",
        "INSERT INTO a ",
        "VALUES (1) ",
        "RETURNING * ",
        "CASE WHEN ",
        "THEN 1 ELSE 2 END ",
        "f(",
        "::int ",
        "[",
        "]",
        "é",
        "\u{202e}",
        "\0",
        "CREATE TRIGGER ",
        "BEGIN ",
        "END ",
        "EXISTS (",
        "IN (",
        "LIKE '%' ",
        "GRANT ALL ON a TO b ",
        "PRAGMA ",
    ]);
    prop::collection::vec(scrap, 0..40).prop_map(|scraps| scraps.concat())
}

proptest! {
    #[test]
    fn any_bytes_in_a_result_out(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let text = String::from_utf8_lossy(&bytes);
        for dialect in DIALECTS {
            prop_assert!(of_sql(&text, dialect).class().is_some());
        }
    }

    #[test]
    fn any_document_in_a_result_out(
        text in prop_oneof![".{0,200}", document_scraps()],
    ) {
        for effects in of_documents(&text) {
            prop_assert!(effects.class().is_some());
        }
    }

    #[test]
    fn any_scraps_in_a_result_out(text in scraps()) {
        for dialect in DIALECTS {
            prop_assert!(of_sql(&text, dialect).class().is_some());
        }
    }

    /// A statement behind the others never hides them, unless they left a quote or comment open:
    /// then they were opaque.
    #[test]
    fn a_statement_appended_never_makes_it_milder(first in scraps(), second in scraps()) {
        for dialect in DIALECTS {
            let alone = of_sql(&first, dialect);
            let both = of_sql(&format!("{first}\n;\n{second}"), dialect);
            let hidden = !alone.is_opaque() && alone.class() > both.class();
            prop_assert!(!hidden, "{:?} {} {}", dialect, first, second);
        }
    }
}

/// The deepest and longest chains that are let through fit on the stack of a thread.
#[test]
fn long_chains_and_deep_nesting_are_judged_or_refused() {
    for (start, link, end) in LINKS {
        for times in [10, 45, 400, 1400, 20_000] {
            let text = format!("{start}{}{end}", link.repeat(times));
            for dialect in DIALECTS {
                assert!(of_sql(&text, dialect).class().is_some(), "{link} x {times}");
            }
        }
    }
}

/// Deep and wide documents are judged or refused, and neither takes the stack nor the afternoon.
#[test]
fn deep_and_wide_documents_are_judged_or_refused() {
    for (start, link, end) in [
        ("", "[", ""),
        ("", "{\"a\":", ""),
        ("", "a: [", ""),
        ("", "- ", "x"),
        ("", "? ", "x"),
        ("a: ", "&a ", "x"),
        ("", "!!a ", "x"),
        ("{\"bindings\":[", "{\"role\":\"r\",\"members\":[\"a\",\"b\"]},", "]}"),
        ("", "---\n", ""),
        ("", "a: b\n", ""),
    ] {
        for times in [30, 100, 3000, 20_000] {
            let text = format!("{start}{}{end}", link.repeat(times));
            for effects in of_documents(&text) {
                assert!(effects.class().is_some(), "{link} x {times}");
            }
        }
    }
}
