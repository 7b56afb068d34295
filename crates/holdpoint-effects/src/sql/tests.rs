//! Tests of the SQL family.

use super::{Database, Dialect, sql};
use crate::effects::Effects;
use expect_test::{Expect, expect};

fn check(dialect: Dialect, text: &str, expected: Expect) {
    let address = match dialect {
        Dialect::Postgres => "pg://p/o",
        Dialect::Sqlite => "sqlite://s",
        Dialect::Mysql => "mysql://m/o",
    };
    let mut effects = Effects::default();
    sql(text, &Database::new(dialect, address), &mut effects);
    let mut out = String::new();
    for effect in effects.iter() {
        let (verb, class) = (effect.verb, effect.class);
        let more = format!("{:?} {}", effect.extent, effect.certainty.as_str());
        out.push_str(&format!("{verb} {class} {} {more}\n", effect.resource));
    }
    for note in effects.notes() {
        out.push_str(&format!("! {}\n", note.code.as_str()));
    }
    expected.assert_eq(&out);
}

#[test]
fn every_statement_of_a_batch_counts() {
    check(
        Dialect::Postgres,
        "SELECT 1; DROP TABLE a; garbage here; DELETE FROM b",
        expect![[r#"
        delete destructive pg://p/o/public.a Whole exact
        delete destructive pg://p/o/public.b Whole exact
        unknown destructive pg://p/o Whole opaque
        ! unreadable
        ! mass_change
        ! stateful_delete
    "#]],
    );
}

#[test]
fn a_write_within_a_query_is_a_write() {
    let text = "/* fix */ WITH x AS (DELETE FROM companies RETURNING 1) SELECT count(*) FROM x";
    check(
        Dialect::Postgres,
        text,
        expect![[r#"
        delete destructive pg://p/o/public.companies Whole exact
        ! mass_change
    "#]],
    );
}

#[test]
fn a_named_query_hides_a_table_only_where_it_can_be_seen() {
    check(
        Dialect::Postgres,
        "WITH u AS (SELECT * FROM u) SELECT * FROM u",
        expect![[r#"
        read read pg://p/o/public.u Part exact
    "#]],
    );
    check(
        Dialect::Postgres,
        "WITH u AS (SELECT 1) SELECT * FROM u",
        expect![[r#"
        read read pg://p/o Part exact
    "#]],
    );
    check(
        Dialect::Postgres,
        "SELECT * FROM (WITH u AS (SELECT 1) SELECT 1) x, u",
        expect![[r#"
        read read pg://p/o/public.u Part exact
    "#]],
    );
}
