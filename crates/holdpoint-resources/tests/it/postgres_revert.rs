//! Changes of a real PostgreSQL that are taken back, and what is kept.

use super::cluster::{
    Database, LIMITS, change, dump, execute_with, must, one, preview, revert, reverting,
};
use holdpoint_resources::Ended;
use holdpoint_resources::resource::{Conflict, Resource as _, ResourceFault, TargetState};
use holdpoint_types::Reversibility;
use serde_json::json;

fn conflict(resource: &str, why: &str) -> Conflict {
    Conflict { resource: resource.to_owned(), why: why.to_owned() }
}

/// Changes, takes back twice, and compares whole tables.
async fn there_and_back(setup: &str, tables: &[&str], sql: &str) {
    let database = Database::new(setup).await;
    let (postgres, client) = (database.postgres(), database.client().await);
    let before = dump(&client, tables).await;
    let (seen, undo) = change(&postgres, sql).await;
    let undo = undo.unwrap();
    assert_eq!(seen.guarantee, Reversibility::Exact, "{seen:?}");
    assert_ne!(dump(&client, tables).await, before, "it changes nothing: {sql}");
    let reverted = revert(&postgres, &undo).await;
    assert_eq!(reverted.conflicts, [], "{sql}");
    assert_eq!(reverted.preview.changes.len(), seen.changes.len());
    assert_eq!(dump(&client, tables).await, before, "{sql}");
    assert_eq!(postgres.verify(&undo).await.unwrap(), TargetState::Before);
    let again = revert(&postgres, &undo).await;
    assert_eq!((again.preview.changes.len(), again.conflicts.len()), (0, 0));
    assert_eq!(again.preview.guarantee, Reversibility::NoEffect);
    assert_eq!(dump(&client, tables).await, before, "{sql}");
}

#[tokio::test]
async fn every_type_comes_back_as_it_was() {
    let setup = "SET datestyle = 'German'; CREATE TYPE mood AS ENUM ('sad', 'so ''so\"', 'happy');
        CREATE TYPE pair AS (a int, b text); CREATE DOMAIN small AS int CHECK (value < 100);
        CREATE TABLE odd (id numeric(20, 3) PRIMARY KEY, b bytea, n numeric, f4 float4, f8 float8,
            t timestamptz, d date, i interval, j json, jb jsonb, x xml, u uuid, a text[],
            m mood, p pair, s small, c char(5), bp bpchar, v varchar(9), bits varbit, inet inet,
            r int4range, ts tsvector, flag bool, mo money, ti timetz, pt point, q \"char\",
            deep int[][], ps pair[], g int GENERATED ALWAYS AS (length(v)) STORED);
        INSERT INTO odd VALUES
            (1.000, '\\x00ff', 'NaN', '-0', 'Infinity', 'infinity', '-infinity', '1 mon -3 days',
             '{\"a\" :  1, \"a\":2}', '{\"z\": 1.10}', '<a> &amp; </a>', gen_random_uuid(),
             ARRAY['NULL', NULL, 'a\"b\\', ''], 'so ''so\"', ROW(NULL, 'x,y'), 99, 'ab', 'ab   ',
             ' ', B'101', '10.0.0.1/8', '[1,5)', 'a:1 b', true, '12.30', '12:00:00.123456+02:30',
             '(1,2)', 'z', '{{1,NULL},{3,4}}', ARRAY[ROW(1, '\"'), NULL]::pair[]),
            (2, '', 1e-40, 3.4028235e38, 5e-324, '4713-01-01 BC', '0044-03-15 BC', '0',
             'null', 'null', NULL, NULL, '{}', NULL, ROW(NULL, NULL), NULL, '', '', '', '', NULL,
             'empty', '', false, NULL, NULL, NULL, '', NULL, '{}')";
    for sql in [
        "DELETE FROM odd",
        "UPDATE odd SET b = NULL, n = 0, f4 = 1, f8 = 1, t = now(), d = NULL, i = NULL, j = '1', \
         jb = NULL, x = NULL, u = NULL, a = NULL, m = 'sad', p = NULL, s = NULL, c = NULL, \
         bp = NULL, v = 'abc', bits = NULL, r = NULL, ts = NULL, flag = NULL, mo = NULL, \
         ti = NULL, pt = NULL, q = NULL, deep = NULL, ps = NULL",
        "UPDATE odd SET id = id + 10",
        "UPDATE odd SET bp = 'ab' WHERE id = 1",
        "INSERT INTO odd (id, v) VALUES (3, '\\')",
    ] {
        there_and_back(setup, &["odd"], sql).await;
    }
}

#[tokio::test]
async fn rows_that_refer_to_each_other_come_back_together() {
    let setup = "CREATE TABLE a (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, b int, \
            parent int REFERENCES a ON DELETE CASCADE, mail text UNIQUE);
        CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a ON DELETE CASCADE,
            d int UNIQUE DEFERRABLE);
        ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b ON DELETE CASCADE;
        CREATE TABLE c (b int REFERENCES b ON UPDATE CASCADE ON DELETE CASCADE, n int,
            PRIMARY KEY (b, n));
        INSERT INTO a (mail) VALUES ('x'), ('y'), (NULL);
        INSERT INTO b VALUES (1, 1, 1), (2, 2, 2), (3, 3, 3);
        UPDATE a SET b = 4 - id, parent = (id % 3) + 1;
        INSERT INTO c SELECT b, n FROM generate_series(1, 3) b, generate_series(1, 2) n";
    let tables = ["a", "b", "c"];
    for sql in [
        "DELETE FROM a",
        "DELETE FROM b WHERE id = 2; UPDATE a SET parent = NULL",
        "UPDATE c SET n = n + 1 WHERE n = 2; UPDATE b SET id = id + 10 WHERE id = 3 AND false",
        "WITH new AS (INSERT INTO a (parent, mail) VALUES (1, 'z') RETURNING id) \
         UPDATE b SET a = new.id FROM new WHERE b.id = 1",
        "UPDATE b SET d = 4 - d",
        "UPDATE a SET mail = 'q' WHERE id = 1; UPDATE a SET mail = 'x' WHERE id = 2; \
         UPDATE a SET mail = 'y' WHERE id = 3",
        "UPDATE a SET mail = NULL WHERE id = 1; INSERT INTO a (mail) VALUES ('x')",
    ] {
        there_and_back(setup, &tables, sql).await;
    }
}

#[tokio::test]
async fn triggers_are_not_run_again_where_we_may_keep_them_quiet() {
    let setup = "CREATE TABLE t (id int PRIMARY KEY, n int, changed timestamptz);
        CREATE TABLE log (id serial PRIMARY KEY, t int, what text);
        CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          NEW.changed := clock_timestamp(); RETURN NEW; END $$;
        CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION stamp();
        CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          INSERT INTO log (t, what) VALUES (coalesce(NEW.id, OLD.id), TG_OP); RETURN NULL; END $$;
        CREATE TRIGGER log AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW
          EXECUTE FUNCTION log();
        ALTER TABLE t ENABLE ALWAYS TRIGGER log;
        INSERT INTO t VALUES (1, 1), (2, 2)";
    let sql = "UPDATE t SET n = 3; DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (3, 3)";
    there_and_back(setup, &["t", "log"], sql).await;
    let database = Database::new(setup).await;
    let postgres = database.postgres();
    let (_, undo) = change(&postgres, sql).await;
    revert(&postgres, &undo.unwrap()).await;
    let states = "SELECT string_agg(tgname::text || tgenabled::text, ',' ORDER BY tgname) FROM pg_trigger \
                  WHERE tgrelid = 't'::regclass";
    assert_eq!(database.value(states).await, "logA,stampO");
}

#[tokio::test]
async fn triggers_of_others_are_promised_and_reported_as_what_they_are() {
    let database = Database::new(
        "CREATE TABLE t (id int PRIMARY KEY, n int, version int);
         CREATE FUNCTION bump() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           NEW.version := OLD.version + 1; RETURN NEW; END $$;
         CREATE TRIGGER bump BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION bump();
         INSERT INTO t VALUES (1, 1, 1), (2, 2, 1); GRANT ALL ON t TO PUBLIC",
    )
    .await;
    database.root().await.batch_execute("CREATE ROLE visitor LOGIN").await.unwrap();
    let postgres = database.postgres_as("visitor", LIMITS);
    let (seen, undo) = change(&postgres, "UPDATE t SET n = 9 WHERE id = 1").await;
    assert_eq!(seen.guarantee, Reversibility::Compensable);
    assert!(seen.notes[0].contains("public.t") && seen.exact, "{seen:?}");
    let reverted = revert(&postgres, &undo.unwrap()).await;
    let why = "a trigger or rule made something else of it";
    assert_eq!(reverted.conflicts, [conflict("pg://shop/public.t/id=1", why)]);
    assert_eq!(database.value("SELECT (n, version) FROM t WHERE id = 1").await, "(1,3)");
}

#[tokio::test]
async fn what_somebody_changed_since_is_kept_and_reported() {
    let database = Database::new(
        "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT n, n FROM \
         generate_series(1, 6) n",
    )
    .await;
    let postgres = database.postgres();
    let sql = "UPDATE t SET n = -n WHERE id <= 3; DELETE FROM t WHERE id = 4; \
               INSERT INTO t VALUES (7, 7), (8, 8)";
    let (_, undo) = change(&postgres, sql).await;
    let undo = undo.unwrap();
    database
        .run(
            "UPDATE t SET n = 100 WHERE id = 1; DELETE FROM t WHERE id = 2; \
             INSERT INTO t VALUES (4, 44); UPDATE t SET n = 88 WHERE id = 8",
        )
        .await;
    let expected = [
        conflict("pg://shop/public.t/id=1", "somebody changed it since"),
        conflict("pg://shop/public.t/id=2", "somebody deleted it since"),
        conflict("pg://shop/public.t/id=4", "somebody changed it since"),
        conflict("pg://shop/public.t/id=8", "somebody changed it since"),
    ];
    let TargetState::Changed(found) = postgres.verify(&undo).await.unwrap() else { panic!() };
    assert_eq!(found.len(), 4, "{found:?}");
    let reverted = revert(&postgres, &undo).await;
    assert_eq!(reverted.conflicts, expected);
    let left = "SELECT string_agg(id || '=' || n, ' ' ORDER BY id) FROM t";
    let now = "1=100 3=3 4=44 5=5 6=6 8=88";
    assert_eq!(database.value(left).await, now);
    let again = revert(&postgres, &undo).await;
    assert_eq!((again.preview.changes.len(), again.conflicts), (0, expected.to_vec()));
    assert_eq!(database.value(left).await, now);
}

#[tokio::test]
async fn rows_that_others_added_never_go_with_what_is_taken_back() {
    let database = Database::new(
        "CREATE TABLE a (id int PRIMARY KEY);
         CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a ON DELETE CASCADE);
         CREATE TABLE c (id int PRIMARY KEY, b int REFERENCES b ON DELETE SET NULL);
         CREATE TABLE d (id int PRIMARY KEY, a int REFERENCES a);
         INSERT INTO a VALUES (1)",
    )
    .await;
    let postgres = database.postgres();
    let sql = "INSERT INTO a VALUES (2), (3), (4); INSERT INTO b VALUES (1, 2), (2, 3)";
    let (_, undo) = change(&postgres, sql).await;
    database.run("INSERT INTO c VALUES (1, 1); INSERT INTO d VALUES (1, 4)").await;
    let reverted = revert(&postgres, &undo.unwrap()).await;
    let refer = "rows that were added since refer to it";
    let expected = [
        conflict("pg://shop/public.a/id=2", refer),
        conflict("pg://shop/public.a/id=4", "a constraint of the database forbids it now"),
        conflict("pg://shop/public.b/id=1", refer),
    ];
    assert_eq!(reverted.conflicts, expected);
    let count = "SELECT (SELECT string_agg(id::text, ',' ORDER BY id) FROM a) || ' ' || \
                 (SELECT string_agg(id::text, ',') FROM b) || ' ' || (SELECT b FROM c)";
    assert_eq!(database.value(count).await, "1,2,4 1 1");
}

#[tokio::test]
async fn what_no_longer_fits_is_kept_and_reported() {
    let database = Database::new(
        "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE t (id int PRIMARY KEY, \
         p int REFERENCES p, mail text UNIQUE, n int); INSERT INTO p VALUES (1), (2);
         INSERT INTO t VALUES (1, 1, 'a', 1), (2, 2, 'b', 2), (3, NULL, 'c', 3)",
    )
    .await;
    let postgres = database.postgres();
    let (_, undo) = change(&postgres, "DELETE FROM t").await;
    database.run("DELETE FROM p WHERE id = 1; INSERT INTO t VALUES (9, NULL, 'b', 9)").await;
    let reverted = revert(&postgres, undo.as_ref().unwrap()).await;
    let why = "a constraint of the database forbids it now";
    let expected =
        [conflict("pg://shop/public.t/id=1", why), conflict("pg://shop/public.t/id=2", why)];
    assert_eq!(reverted.conflicts, expected);
    assert_eq!(database.value("SELECT count(*) FROM t").await, "2");
    for (sql, why) in [
        ("ALTER TABLE t DROP CONSTRAINT t_pkey", "the key of its table was changed"),
        ("ALTER TABLE t ALTER n TYPE bigint", "a column of its table was changed"),
        ("DROP TABLE t", "its table is gone"),
    ] {
        database.run(sql).await;
        let reverted = revert(&postgres, undo.as_ref().unwrap()).await;
        assert_eq!(reverted.preview.changes, []);
        assert_eq!(reverted.conflicts[0], conflict("pg://shop/public.t/id=1", why));
        let state = postgres.verify(undo.as_ref().unwrap()).await.unwrap();
        assert!(matches!(state, TargetState::Changed(_)), "{state:?}");
    }
}

#[tokio::test]
async fn a_column_that_was_added_since_is_left_alone() {
    let database =
        Database::new("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1)")
            .await;
    let postgres = database.postgres();
    let (_, undo) = change(&postgres, "UPDATE t SET n = 2").await;
    database.run("ALTER TABLE t ADD extra text DEFAULT 'new'").await;
    assert_eq!(revert(&postgres, &undo.unwrap()).await.conflicts, []);
    assert_eq!(database.value("SELECT t FROM t").await, "(1,1,new)");
}

#[tokio::test]
async fn a_revert_that_is_dropped_changes_nothing_and_can_itself_be_taken_back() {
    let database =
        Database::new("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1)")
            .await;
    let postgres = database.postgres();
    let (_, undo) = change(&postgres, "UPDATE t SET n = 2").await;
    let undo = undo.unwrap();
    let ready = reverting(&postgres, &undo).await.unwrap();
    assert_eq!(ready.preview.changes.len(), 1);
    drop(ready);
    assert_eq!(postgres.verify(&undo).await.unwrap(), TargetState::After);
    let ready = reverting(&postgres, &undo).await.unwrap();
    let redo = postgres.undo(&ready.prepared).unwrap();
    let call = ("holdpoint_revert", &json!({}));
    must(execute_with(&postgres, call, ready.prepared).await);
    revert(&postgres, &redo).await;
    assert_eq!(postgres.verify(&undo).await.unwrap(), TargetState::After);
}

#[tokio::test]
async fn somebody_who_writes_at_the_same_time_is_not_overwritten() {
    let database =
        Database::new("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1)")
            .await;
    let postgres = database.postgres();
    let (_, undo) = change(&postgres, "UPDATE t SET n = 2").await;
    let client = database.client().await;
    client.batch_execute("BEGIN; UPDATE t SET n = 5").await.unwrap();
    let fault = reverting(&postgres, undo.as_ref().unwrap()).await.unwrap_err();
    assert!(matches!(fault, ResourceFault::Unavailable(_)), "{fault:?}");
    client.batch_execute("COMMIT").await.unwrap();
    let reverted = revert(&postgres, &undo.unwrap()).await;
    assert_eq!(reverted.conflicts.len(), 1);
    assert_eq!(one(&client, "SELECT n FROM t").await, "5");
}

#[tokio::test]
async fn what_was_kept_and_cannot_be_read_is_refused() {
    let database = Database::new("").await;
    let postgres = database.postgres();
    let undo = holdpoint_resources::resource::Undo {
        guarantee: Reversibility::Exact,
        until: None,
        data: json!({ "kind": "other" }),
    };
    assert!(matches!(postgres.verify(&undo).await, Err(ResourceFault::Invalid(_))));
    assert!(matches!(reverting(&postgres, &undo).await, Err(ResourceFault::Invalid(_))));
}

#[tokio::test]
async fn a_change_of_nothing_has_nothing_to_take_back() {
    let database = Database::new("CREATE TABLE t (id int PRIMARY KEY, n int)").await;
    let postgres = database.postgres();
    database.run("INSERT INTO t VALUES (1, 1)").await;
    let (seen, prepared) = preview(&postgres, "UPDATE t SET n = n").await.unwrap();
    assert_eq!((seen.changes.len(), seen.guarantee), (0, Reversibility::NoEffect));
    assert!(postgres.undo(&prepared).is_none());
    let call = ("sql_execute", &json!({ "sql": "UPDATE t SET n = n" }));
    let ended = execute_with(&postgres, call, prepared).await.ended;
    assert!(matches!(ended, Ended::Answered { tool_error: false, .. }), "{ended:?}");
}
