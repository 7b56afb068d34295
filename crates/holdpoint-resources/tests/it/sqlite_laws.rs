//! What holds for every change of a SQLite database: what was previewed is what is committed, and
//! a revert gives back all that nobody touched since.

use crate::sqlite::Stage;
use base64::Engine;
use holdpoint_resources::Ended;
use holdpoint_resources::resource::{Preview, Resource, TargetState, Undo};
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use proptest::test_runner::TestCaseError;
use proptest::{prop_assert, prop_assert_eq};
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const SCHEMA: &str = "
    CREATE TABLE people (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, age INT,
        loud TEXT AS (upper(name)), twice AS (age * 2) STORED);
    CREATE TABLE orders (id INTEGER PRIMARY KEY,
        who REFERENCES people ON DELETE CASCADE ON UPDATE CASCADE, sum REAL DEFAULT 1.5);
    CREATE TABLE parts (code TEXT COLLATE NOCASE, n INT,
        of REFERENCES orders ON DELETE SET NULL, PRIMARY KEY (code, n)) WITHOUT ROWID;
    CREATE TABLE words (word TEXT PRIMARY KEY, v);
    CREATE TABLE log (what, of);
    CREATE UNIQUE INDEX one_word ON words (v) WHERE v > 3;
    CREATE TRIGGER told AFTER UPDATE OF age ON people BEGIN
        INSERT INTO log VALUES ('aged', NEW.id);
        UPDATE people SET name = name || '+' WHERE id = NEW.id AND NEW.age > 5;
    END;
    CREATE TRIGGER born AFTER INSERT ON people BEGIN
        UPDATE people SET age = coalesce(age, 0) + 1 WHERE id = NEW.id;
        INSERT INTO words VALUES ('of' || NEW.id, NULL) ON CONFLICT DO UPDATE SET v = 0;
    END;
    CREATE TRIGGER gone BEFORE DELETE ON orders BEGIN
        INSERT INTO log VALUES (OLD.sum, OLD.id);
        DELETE FROM words WHERE v = OLD.id;
    END;
    INSERT INTO people (id, name, age) VALUES (1, 'ann', 3), (2, 'bob', 4), (3, 'cyd', 5);
    INSERT INTO orders VALUES (1, 1, 2), (2, 1, 2.25), (3, 2, 'x'), (4, 3, NULL);
    INSERT INTO parts VALUES ('x', 1, 1), ('Y', 2, 2), ('z', 3, 4);
    INSERT INTO words VALUES ('one', 1), ('two', 2), (NULL, 3), (NULL, x'00');
    INSERT INTO log VALUES (1, 1), (1, 1);
";
const TABLES: [(&str, &[&str]); 5] = [
    ("log", &[]),
    ("orders", &["id"]),
    ("parts", &["code", "n"]),
    ("people", &["id"]),
    ("words", &["word"]),
];

type Rows = BTreeMap<String, Value>;

/// All rows by their addresses.
fn rows(stage: &Stage) -> Rows {
    let conn = Connection::open(&stage.path).unwrap();
    let mut found = Rows::new();
    for (table, key) in TABLES {
        let rowid = if table == "parts" { "0" } else { "rowid" };
        let mut statement = conn.prepare(&format!("SELECT {rowid} AS r, * FROM {table}")).unwrap();
        let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let cell = |at: usize| form(row.get_ref(at).unwrap());
            let image: Map<String, Value> =
                (1..names.len()).map(|at| (names[at].clone(), cell(at))).collect();
            let whole = !key.is_empty() && key.iter().all(|name| !image[*name].is_null());
            let part = |name: &&str| match &image[*name] {
                Value::String(text) => format!("{name}={}", text.replace('+', "%2B")),
                other => format!("{name}={other}"),
            };
            let key = match whole {
                true => key.iter().map(part).collect::<Vec<_>>().join(","),
                false => format!("rowid={}", cell(0)),
            };
            found.insert(format!("sqlite://orders/{table}/{key}"), image.into());
        }
    }
    found
}

fn form(cell: ValueRef<'_>) -> Value {
    match cell {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(whole) => whole.into(),
        ValueRef::Real(real) if real.fract() == 0.0 => json!({ "real": format!("{real:?}") }),
        ValueRef::Real(real) => real.into(),
        ValueRef::Text(bytes) => String::from_utf8(bytes.to_vec()).unwrap().into(),
        ValueRef::Blob(bytes) => {
            json!({ "blob": base64::engine::general_purpose::STANDARD.encode(bytes) })
        }
    }
}

/// One statement that changes rows, or fails.
fn statements() -> impl Strategy<Value = String> {
    let or = prop_oneof![
        4 => Just(""), 1 => Just("OR REPLACE"), 1 => Just("OR IGNORE"), 1 => Just("OR FAIL"),
    ];
    let name = "[a-d]{1,2}";
    let small = 0..7_i64;
    prop_oneof![
        (or.clone(), name, small.clone())
            .prop_map(|(or, name, age)| format!("INSERT {or} INTO people (name, age) VALUES ('{name}', {age})")),
        (or.clone(), small.clone(), name, small.clone())
            .prop_map(|(or, id, name, age)| format!("UPDATE {or} people SET name = '{name}', age = {age} WHERE id = {id}")),
        (small.clone(), small.clone())
            .prop_map(|(id, by)| format!("UPDATE people SET age = age + {by} WHERE id >= {id}")),
        (small.clone(), small.clone())
            .prop_map(|(id, to)| format!("UPDATE people SET id = {to} WHERE id = {id}")),
        small.clone().prop_map(|id| format!("DELETE FROM people WHERE id = {id}")),
        (or.clone(), small.clone(), small.clone(), any::<i16>())
            .prop_map(|(or, id, who, sum)| format!("INSERT {or} INTO orders VALUES ({id}, {who}, {sum})")),
        (small.clone(), small.clone())
            .prop_map(|(from, by)| format!("UPDATE orders SET sum = sum / {by}, who = NULL WHERE id > {from}")),
        small.clone().prop_map(|id| format!("DELETE FROM orders WHERE id % 3 = {id}")),
        (or.clone(), "[xyzXYZ]", small.clone(), small.clone())
            .prop_map(|(or, code, n, of)| format!("INSERT {or} INTO parts VALUES ('{code}', {n}, {of})")),
        Just("UPDATE parts SET code = CASE WHEN code = 'x' THEN 'X' ELSE lower(code) END".to_owned()),
        (or.clone(), small.clone())
            .prop_map(|(or, n)| format!("UPDATE {or} parts SET n = n + {n}")),
        (or.clone(), name, small.clone())
            .prop_map(|(or, word, v)| format!("UPDATE {or} words SET word = '{word}' WHERE v = {v} OR word > 'b'")),
        (or, name, small.clone())
            .prop_map(|(or, word, v)| format!("INSERT {or} INTO words VALUES ('{word}', {v}), (NULL, {v})")),
        (name, small.clone()).prop_map(|(word, v)| format!(
            "INSERT INTO words VALUES ('{word}', {v}) ON CONFLICT (word) DO UPDATE SET v = excluded.v + 1"
        )),
        Just("UPDATE words SET v = 4 - v WHERE v < 5".to_owned()),
        small.clone().prop_map(|v| format!("DELETE FROM words WHERE v <= {v}")),
        small.prop_map(|of| format!("DELETE FROM log WHERE of = {of}")),
        Just("INSERT INTO log SELECT name, id FROM people; DELETE FROM people WHERE age > 4".to_owned()),
    ]
}

/// One call, and what other people did after it.
type Act = (String, Vec<String>);

/// What was previewed is what is committed. Absent for what the database refuses.
async fn commit(stage: &Stage, sql: &str) -> Result<Option<(Preview, Undo, Rows)>, TestCaseError> {
    let Ok((preview, prepared)) = stage.preview(sql).await else { return Ok(None) };
    let before = rows(stage);
    let writer = Connection::open(&stage.path).unwrap();
    writer.busy_timeout(Duration::ZERO).unwrap();
    prop_assert!(writer.execute_batch("INSERT INTO log VALUES ('late', 0)").is_err());
    let undo = stage.sqlite.undo(&prepared).unwrap();
    let ended = stage.execute(sql, prepared).await.ended;
    let committed = matches!(ended, Ended::Answered { tool_error: false, .. });
    prop_assert!(committed, "{ended:?}");
    let after = rows(stage);
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differ = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    let differ: Vec<_> = differ.map(|name| (&**name, before.get(name), after.get(name))).collect();
    let shown = preview.changes.iter();
    let shown =
        shown.map(|change| (&*change.resource, change.before.as_ref(), change.after.as_ref()));
    let mut shown: Vec<_> = shown.collect();
    shown.sort_by_key(|(name, ..)| *name);
    prop_assert_eq!(differ, shown, "{}", sql);
    Ok(Some((preview, undo, before)))
}

/// All comes back as it was but for the conflicts that are told, and nothing else moves.
async fn take_back(
    stage: &Stage,
    (preview, undo, before): (Preview, Undo, Rows),
    edits: &[String],
) -> Result<(), TestCaseError> {
    let edited = rows(stage);
    let (_, kept) = stage.revert(&undo).await;
    let kept: BTreeSet<String> = kept.into_iter().map(|(resource, _)| resource).collect();
    let reverted = rows(stage);
    if edits.is_empty() {
        prop_assert!(kept.is_empty() && reverted == before, "{:?}", kept);
    }
    let mut untouched = edited;
    for change in &preview.changes {
        untouched.remove(&change.resource);
        let now = reverted.get(&change.resource);
        let back = kept.contains(&change.resource) || now == change.before.as_ref();
        prop_assert!(back, "{:?} {:?} {:?}", change, now, edits);
    }
    for (name, row) in &untouched {
        prop_assert_eq!(reverted.get(name), Some(row), "{:?}", edits);
    }
    if let TargetState::Changed(conflicts) = stage.sqlite.verify(&undo).await.unwrap() {
        let mut other = conflicts.iter().filter(|one| one.why != "is as before the action");
        prop_assert!(other.all(|one| kept.contains(&one.resource)), "{:?}", conflicts);
    }
    prop_assert_eq!(stage.revert(&undo).await.0, Vec::<String>::new());
    prop_assert_eq!(rows(stage), reverted);
    Ok(())
}

async fn law(acts: Vec<Act>) -> Result<(), TestCaseError> {
    let stage = Stage::new(SCHEMA);
    for (sql, edits) in acts {
        if let Some(committed) = commit(&stage, &sql).await? {
            let writer = Connection::open(&stage.path).unwrap();
            for edit in &edits {
                // One that fails may have done a part of it.
                let _ = writer.execute_batch(edit);
            }
            take_back(&stage, committed, &edits).await?;
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn what_sqlite_commits_was_previewed_and_reverts_but_for_conflicts(
        acts in vec((statements(), vec(statements(), 0..3)), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(law(acts))?;
    }
}
