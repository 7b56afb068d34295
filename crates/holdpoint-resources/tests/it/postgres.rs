//! Changes of a real PostgreSQL: seen before, executed as seen, and what cannot be.

use super::cluster::{
    Database, LIMITS, change, dump, execute, execute_with, must, nowhere, one, preview,
    preview_with, tool,
};
use super::permits::{NOW, permit};
use holdpoint_resources::resource::{Proposed, Resource as _, ResourceFault, TargetState};
use holdpoint_resources::{Cancels, Ended};
use holdpoint_resources::{Postgres, PostgresLimits};
use holdpoint_types::{Disclosure, Reason, Reversibility};
use serde_json::{Value, json};

const USERS: &str = "CREATE TABLE users (id int PRIMARY KEY, name text, \
    loud text GENERATED ALWAYS AS (upper(name)) STORED); \
    INSERT INTO users VALUES (1, 'ann'), (2, 'bob'), (3, NULL);";

fn rows(value: &Value) -> &Value {
    &value["structuredContent"]["statements"][0]["rows"]
}

#[tokio::test]
async fn a_change_of_rows_is_seen_exactly_and_nothing_is_changed() {
    let database = Database::new(USERS).await;
    let postgres = database.postgres();
    let sql = "UPDATE users SET name = 'eve' WHERE id = 1; DELETE FROM users WHERE id = 2; \
               INSERT INTO users VALUES (7, 'new')";
    let (seen, prepared) = preview(&postgres, sql).await.unwrap();
    let expected = json!([
        {
            "resource": "pg://shop/public.users/id=1",
            "before": { "id": 1, "name": "ann", "loud": "ANN" },
            "after": { "id": 1, "name": "eve", "loud": "EVE" },
        },
        {
            "resource": "pg://shop/public.users/id=2",
            "before": { "id": 2, "name": "bob", "loud": "BOB" },
        },
        {
            "resource": "pg://shop/public.users/id=7",
            "after": { "id": 7, "name": "new", "loud": "NEW" },
        },
    ]);
    assert_eq!(serde_json::to_value(&seen.changes).unwrap(), expected);
    assert!(seen.exact && seen.notes.is_empty(), "{seen:?}");
    assert_eq!(seen.guarantee, Reversibility::Exact);
    let undo = postgres.undo(&prepared).unwrap();
    drop(prepared);
    assert_eq!(postgres.verify(&undo).await.unwrap(), TargetState::Before);
    let (again, prepared) = preview(&postgres, sql).await.unwrap();
    assert_eq!(again.digest().unwrap(), seen.digest().unwrap());
    let answer = must(execute(&postgres, sql, prepared).await);
    assert_eq!(answer["structuredContent"]["statements"][2]["row_count"], 1);
    assert_eq!(postgres.verify(&undo).await.unwrap(), TargetState::After);
    assert_eq!(
        database.value("SELECT string_agg(loud, ',' ORDER BY id) FROM users").await,
        "EVE,NEW"
    );
}

#[tokio::test]
async fn one_other_byte_gives_another_digest() {
    let database = Database::new(USERS).await;
    let postgres = database.postgres();
    let digest = async |sql: &str| preview(&postgres, sql).await.unwrap().0.digest().unwrap();
    let first = digest("UPDATE users SET name = 'x' WHERE id < 3").await;
    assert_ne!(digest("UPDATE users SET name = 'y' WHERE id < 3").await, first);
    assert_eq!(digest("UPDATE users SET name = 'x' WHERE id <= 2").await, first);
    database.run("UPDATE users SET name = 'bo' WHERE id = 2").await;
    assert_ne!(digest("UPDATE users SET name = 'x' WHERE id < 3").await, first);
}

#[tokio::test]
async fn what_cascades_and_triggers_change_is_seen() {
    let database = Database::new(
        "CREATE TABLE owners (id int PRIMARY KEY);
         CREATE TABLE pets (id int PRIMARY KEY, owner int REFERENCES owners ON DELETE CASCADE);
         CREATE TABLE toys (id int PRIMARY KEY, pet int REFERENCES pets ON DELETE SET NULL);
         CREATE TABLE counts (what text PRIMARY KEY, n int);
         CREATE TABLE late (id int PRIMARY KEY);
         CREATE FUNCTION lost() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           UPDATE counts SET n = n - 1 WHERE what = TG_TABLE_NAME; RETURN NULL; END $$;
         CREATE TRIGGER lost AFTER DELETE ON pets FOR EACH ROW EXECUTE FUNCTION lost();
         CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           BEGIN INSERT INTO late VALUES (OLD.id); EXCEPTION WHEN unique_violation THEN NULL; END;
           RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER late AFTER DELETE ON owners DEFERRABLE INITIALLY DEFERRED
           FOR EACH ROW EXECUTE FUNCTION late();
         INSERT INTO owners VALUES (1), (2);
         INSERT INTO pets VALUES (1, 1), (2, 1), (3, 2);
         INSERT INTO toys VALUES (1, 1), (2, 3);
         INSERT INTO counts VALUES ('pets', 3)",
    )
    .await;
    let postgres = database.postgres();
    let (seen, _) = change(&postgres, "DELETE FROM owners WHERE id = 1").await;
    let changed: Vec<&str> = seen.changes.iter().map(|change| change.resource.as_str()).collect();
    assert_eq!(
        changed,
        [
            "pg://shop/public.counts/what=pets",
            "pg://shop/public.late/id=1",
            "pg://shop/public.owners/id=1",
            "pg://shop/public.pets/id=1",
            "pg://shop/public.pets/id=2",
            "pg://shop/public.toys/id=1",
        ]
    );
    assert_eq!(seen.changes[0].after.as_ref().unwrap()["n"], 1);
    assert_eq!(seen.guarantee, Reversibility::Exact);
    assert_eq!(database.value("SELECT n FROM counts").await, "1");
}

#[tokio::test]
async fn rows_that_others_lock_at_the_same_time_are_told_apart() {
    let database = Database::new(
        "CREATE TABLE owners (id int PRIMARY KEY, name text);
         CREATE TABLE pets (id int PRIMARY KEY, owner int REFERENCES owners);
         INSERT INTO owners SELECT n, 'o' FROM generate_series(1, 20) n",
    )
    .await;
    // Two open transactions hold the same row: their locks become one of several transactions.
    let (first, second) = (database.client().await, database.client().await);
    first.batch_execute("BEGIN; INSERT INTO pets VALUES (1, 3)").await.unwrap();
    second.batch_execute("BEGIN; INSERT INTO pets VALUES (2, 3)").await.unwrap();
    let postgres = database.postgres();
    let sql = "UPDATE owners SET name = 'p' WHERE id IN (3, 4)";
    let (seen, prepared) = preview(&postgres, sql).await.unwrap();
    let third = database.client().await;
    third.batch_execute("BEGIN; INSERT INTO pets VALUES (3, 4)").await.unwrap();
    let changed: Vec<&str> = seen.changes.iter().map(|change| change.resource.as_str()).collect();
    assert_eq!(changed, ["pg://shop/public.owners/id=3", "pg://shop/public.owners/id=4"]);
    must(execute(&postgres, sql, prepared).await);
}

#[tokio::test]
async fn the_very_transaction_that_was_seen_is_committed() {
    let database = Database::new("CREATE TABLE dice (id int PRIMARY KEY, face float8)").await;
    let postgres = database.postgres();
    let sql = "INSERT INTO dice SELECT n, random() FROM generate_series(1, 5) n RETURNING face";
    let (_, prepared) = preview(&postgres, sql).await.unwrap();
    let undo = postgres.undo(&prepared).unwrap();
    let answer = must(execute(&postgres, sql, prepared).await);
    assert_eq!(postgres.verify(&undo).await.unwrap(), TargetState::After);
    let rolled = database.value("SELECT face FROM dice WHERE id = 1").await;
    assert_eq!(rows(&answer)[0][0], rolled);
}

#[tokio::test]
async fn nothing_stays_locked_by_what_is_dropped() {
    let database = Database::new(USERS).await;
    let postgres = database.postgres();
    let (_, prepared) = preview(&postgres, "UPDATE users SET name = 'x'").await.unwrap();
    let other = database.client().await;
    other.batch_execute("SET lock_timeout = '200ms'").await.unwrap();
    assert!(other.batch_execute("UPDATE users SET name = 'y'").await.is_err());
    drop(prepared);
    other.batch_execute("SET lock_timeout = '20s'; UPDATE users SET name = 'y'").await.unwrap();
}

#[tokio::test]
async fn a_statement_that_is_given_up_is_ended_on_the_server() {
    let database = Database::new(USERS).await;
    let postgres = database.postgres();
    let (client, sql) = (database.root().await, "SELECT pg_sleep(19), 'given up'");
    {
        let mut running = std::pin::pin!(preview(&postgres, sql));
        let started = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
                       AND query LIKE 'EXECUTE holdpoint%' AND datname = current_database()";
        loop {
            tokio::select! {
                _ = &mut running => panic!("it slept too short"),
                count = one(&client, started) => if count == "1" { break },
            }
        }
    }
    let begun = std::time::Instant::now();
    let left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'holdpoint' \
                AND datname = current_database()";
    while one(&client, left).await != "0" {
        assert!(begun.elapsed().as_secs() < 10, "it still runs");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_others_hold_is_not_waited_for() {
    let database = Database::new(USERS).await;
    let other = database.client().await;
    other.batch_execute("BEGIN; UPDATE users SET name = 'z' WHERE id = 2").await.unwrap();
    let postgres = database.postgres();
    let locked = preview(&postgres, "UPDATE users SET name = 'x'").await.unwrap_err();
    let ResourceFault::Unavailable(why) = &locked else { panic!("{locked:?}") };
    assert!(why.contains("lock"), "{why}");
    let limits =
        PostgresLimits { statement_timeout: std::time::Duration::from_millis(100), ..LIMITS };
    let postgres = database.postgres_as("app", limits);
    let late = preview(&postgres, "SELECT pg_sleep(5)").await.unwrap_err();
    let ResourceFault::Unavailable(why) = &late else { panic!("{late:?}") };
    assert!(why.contains("statement_timeout"), "{why}");
}

#[tokio::test]
async fn too_many_rows_and_too_many_bytes_are_not_looked_at() {
    let database = Database::new(
        "CREATE TABLE many (id int PRIMARY KEY, fat text);
         INSERT INTO many SELECT n, repeat('x', 1000) FROM generate_series(1, 700) n",
    )
    .await;
    let postgres = database.postgres();
    let fault = async |postgres: &Postgres, sql: &str| preview(postgres, sql).await.unwrap_err();
    for sql in ["UPDATE many SET fat = ''", "DELETE FROM many"] {
        let told = fault(&postgres, sql).await.to_string();
        assert_eq!(told, "too large: 700 rows, and `rows_max` is 500");
    }
    let insert = "INSERT INTO many SELECT n, '' FROM generate_series(1001, 1501) n";
    assert_eq!(
        fault(&postgres, insert).await.to_string(),
        "too large: 501 rows, and `rows_max` is 500"
    );
    preview(&postgres, "UPDATE many SET fat = '' WHERE id <= 500").await.unwrap();
    // What people approved by its size is looked at whole, and can be taken back.
    let sql = "DELETE FROM many";
    let (tool, parameters) = (tool("sql_execute"), json!({ "sql": sql }));
    let proposed = Proposed { tool: &tool, parameters: &parameters, effects: &[], now: NOW };
    let (seen, prepared) = postgres.preview_whole(proposed).await.unwrap().unwrap();
    assert_eq!((seen.counts().deleted, seen.guarantee), (700, Reversibility::Exact));
    let undo = postgres.undo(&prepared).unwrap();
    must(execute(&postgres, sql, prepared).await);
    assert_eq!(database.value("SELECT count(*) FROM many").await, "0");
    let back = super::cluster::revert(&postgres, &undo).await;
    assert_eq!((back.preview.counts().created, back.conflicts.len()), (700, 0));
    let limits = PostgresLimits { rows_max: 50, ..LIMITS };
    let small = database.postgres_as("app", limits);
    let never = preview(&small, "INSERT INTO many SELECT n, '' FROM generate_series(2001, 2501) n");
    let never = never.await.unwrap_err();
    assert!(matches!(&never, ResourceFault::TooLarge(_)), "{never}");
    let limits = PostgresLimits { preview_bytes_max: 10_000, ..LIMITS };
    let postgres = database.postgres_as("app", limits);
    // The same statement is of another size once there are more rows.
    let sql = "DELETE FROM many WHERE fat LIKE 'y%'";
    let fat = "INSERT INTO many SELECT n, repeat('y', 1000) FROM generate_series";
    for (rows, more) in [(20, "(9001, 9020) n"), (21, "(9021, 9021) n")] {
        database.run(&format!("{fat}{more}")).await;
        let heavy = fault(&postgres, sql).await;
        let told = format!("too large: {rows} rows with more than 10000 bytes");
        assert_eq!(heavy.to_string(), told);
    }
}

#[tokio::test]
async fn a_permit_for_something_else_executes_nothing() {
    let database = Database::new(USERS).await;
    let postgres = database.postgres();
    let sql = "DELETE FROM users";
    let calls = [
        ("sql_execute", json!({ "sql": "DELETE FROM users " })),
        ("sql_query", json!({ "sql": sql })),
    ];
    for (name, parameters) in &calls {
        let (_, prepared) = preview(&postgres, sql).await.unwrap();
        let ended = execute_with(&postgres, (name, parameters), prepared).await.ended;
        let refused = matches!(ended, Ended::NotSent { reason: Reason::CouldNotDecide, .. });
        assert!(refused, "{ended:?}");
    }
    assert_eq!(database.value("SELECT count(*) FROM users").await, "3");
}

#[tokio::test]
async fn a_transaction_that_is_gone_or_too_old_is_not_executed() {
    let database = Database::new(USERS).await;
    let postgres = database.postgres();
    let sql = "DELETE FROM users";
    let (_, prepared) = preview(&postgres, sql).await.unwrap();
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                WHERE application_name = 'holdpoint' AND datname = current_database()";
    one(&database.root().await, kill).await;
    let ended = execute(&postgres, sql, prepared).await.ended;
    assert!(matches!(ended, Ended::NotSent { .. }), "{ended:?}");
    let limits = PostgresLimits { hold_open_max: std::time::Duration::ZERO, ..LIMITS };
    let postgres = database.postgres_as("app", limits);
    let (_, prepared) = preview(&postgres, sql).await.unwrap();
    let ended = execute(&postgres, sql, prepared).await.ended;
    let late = matches!(ended, Ended::NotSent { reason: Reason::TargetMoved, .. });
    assert!(late, "{ended:?}");
    assert_eq!(database.value("SELECT count(*) FROM users").await, "3");
}

#[tokio::test]
async fn a_stop_before_the_commit_executes_nothing() {
    let database = Database::new(USERS).await;
    let postgres = database.postgres();
    let parameters = json!({ "sql": "DELETE FROM users" });
    let (_, prepared) = preview_with(&postgres, "sql_execute", &parameters).await.unwrap();
    let cancels = Cancels::default();
    cancels.stop.cancel();
    let permit = permit(&tool("sql_execute"), &parameters);
    let around = (cancels.clone(), nowhere());
    let ended = postgres.execute(permit, prepared, around).await.ended;
    let stopped = matches!(ended, Ended::NotSent { reason: Reason::CancelledByStop, .. });
    assert!(stopped && cancels.gone.is_cancelled(), "{ended:?}");
    assert_eq!(database.value("SELECT count(*) FROM users").await, "3");
}

#[tokio::test]
async fn reading_changes_nothing_whatever_it_is_told() {
    let database = Database::new(USERS).await;
    let postgres = database.postgres();
    let read = async |parameters: Value| {
        let (seen, prepared) = preview_with(&postgres, "sql_query", &parameters).await.unwrap();
        assert_eq!(seen.guarantee, Reversibility::NoEffect);
        execute_with(&postgres, ("sql_query", &parameters), prepared).await
    };
    let found = must(
        read(json!({
            "sql": "SELECT id, name, $2::bytea FROM users WHERE name = $1 OR id = 3 ORDER BY id",
            "params": ["ann' OR ''='", null],
        }))
        .await,
    );
    assert_eq!(rows(&found), &json!([["3", null, null]]));
    let found = must(read(json!({ "sql": "EXPLAIN SELECT 1" })).await);
    assert!(rows(&found)[0][0].as_str().unwrap().contains("Result"), "{found}");
    for sql in [
        "WITH gone AS (DELETE FROM users RETURNING 1) SELECT * FROM gone",
        "EXPLAIN ANALYZE DELETE FROM users",
        "SELECT nextval('a_sequence')",
        "SELECT 1 FROM nowhere",
    ] {
        let ended = read(json!({ "sql": sql })).await.ended;
        assert!(matches!(ended, Ended::Answered { tool_error: true, .. }), "{sql}: {ended:?}");
    }
    assert_eq!(database.value("SELECT count(*) FROM users").await, "3");
}

#[tokio::test]
async fn an_answer_has_a_limit() {
    let database = Database::new(USERS).await;
    let postgres = database.postgres();
    let parameters = json!({ "sql": "SELECT n FROM generate_series(1, 700) n" });
    let (_, prepared) = preview_with(&postgres, "sql_query", &parameters).await.unwrap();
    let answer = must(execute_with(&postgres, ("sql_query", &parameters), prepared).await);
    let statement = &answer["structuredContent"]["statements"][0];
    assert_eq!(statement["rows"].as_array().unwrap().len(), 500);
    assert_eq!((&statement["row_count"], &statement["rows_left_out"]), (&json!(700), &json!(200)));
}

#[tokio::test]
async fn what_would_leave_the_two_phases_is_refused() {
    let database = Database::new(USERS).await;
    let postgres = database.postgres();
    for sql in [
        "BEGIN",
        "COMMIT",
        "DELETE FROM users; COMMIT",
        "DELETE FROM users; ROLLBACK; SELECT 1",
        "/* x */ commit and chain",
        "SAVEPOINT a",
        "PREPARE TRANSACTION 'x'",
        "COMMIT PREPARED 'x'",
        "SET lock_timeout = 0",
        "SET SESSION AUTHORIZATION root",
        "RESET ALL",
        "DISCARD ALL",
        "COPY users TO STDOUT",
        "COPY users FROM PROGRAM 'id'",
        "LISTEN x",
        "TRUNCATE users",
        "LOCK users",
        "LOAD 'x'",
        "DECLARE c CURSOR FOR SELECT 1",
        "EXPLAIN ANALYZE DELETE FROM users",
        "DELETE FROM users; DROP TABLE users",
        "hello",
    ] {
        let fault = preview(&postgres, sql).await.unwrap_err();
        assert!(matches!(fault, ResourceFault::Refused(_)), "{sql}: {fault:?}");
    }
    for parameters in [
        json!({ "sql": 7 }),
        json!({ "query": "SELECT 1" }),
        json!({ "sql": "SELECT 1; SELECT $1", "params": [1] }),
        json!({ "sql": "SELECT $1", "params": ["\0"] }),
        json!({ "sql": "SELECT $1", "params": 7 }),
        json!({ "sql": "" }),
        json!([]),
    ] {
        let fault = preview_with(&postgres, "sql_execute", &parameters).await.unwrap_err();
        assert!(matches!(fault, ResourceFault::Invalid(_)), "{parameters}: {fault:?}");
    }
    let twice = json!({ "sql": "SELECT 1; SELECT 2" });
    assert!(preview_with(&postgres, "sql_query", &twice).await.is_err());
    assert_eq!(database.value("SELECT count(*) FROM users").await, "3");
}

#[tokio::test]
async fn a_call_of_another_server_or_tool_is_not_looked_at() {
    let database = Database::new("").await;
    let postgres = database.postgres();
    let other = holdpoint_types::ToolRef::new("other".parse().unwrap(), "sql_execute").unwrap();
    for tool in [&other, &tool("sql_describe")] {
        let parameters = &json!({ "sql": "nonsense" });
        let proposed = Proposed { tool, parameters, effects: &[], now: NOW };
        assert!(postgres.preview(proposed).await.unwrap().is_none(), "{tool}");
    }
}

#[tokio::test]
async fn what_cannot_be_seen_is_named_and_never_called_exact() {
    let database = Database::new(
        "CREATE TABLE keyless (a int); CREATE TABLE numbered (id serial PRIMARY KEY, a int);
         CREATE TABLE hidden (id int PRIMARY KEY);
         CREATE FUNCTION hide() RETURNS void LANGUAGE sql SECURITY DEFINER AS
           'INSERT INTO hidden VALUES (1), (2)';
         CREATE FUNCTION define() RETURNS void LANGUAGE plpgsql AS
           $$ BEGIN DROP TABLE keyless; END $$;
         GRANT EXECUTE ON FUNCTION hide() TO PUBLIC",
    )
    .await;
    database.root().await.batch_execute("CREATE ROLE guest LOGIN").await.unwrap();
    let (app, guest) = (database.postgres(), database.postgres_as("guest", LIMITS));
    let (seen, _) = preview(&app, "INSERT INTO keyless VALUES (1), (1), (2)").await.unwrap();
    assert!(!seen.exact && seen.changes.is_empty(), "{seen:?}");
    assert_eq!(seen.guarantee, Reversibility::Irreversible);
    assert!(seen.notes[0].contains("3 rows written to public.keyless"), "{seen:?}");
    let (seen, _) = preview(&guest, "SELECT hide()").await.unwrap();
    assert!(!seen.exact, "{seen:?}");
    assert!(seen.notes[0].contains("2 rows written to public.hidden"), "{seen:?}");
    let (seen, _) = preview(&app, "INSERT INTO numbered (a) VALUES (1)").await.unwrap();
    assert!(seen.notes[0].contains("public.numbered_id_seq"), "{seen:?}");
    let large = preview(&app, "SELECT lo_create(0)").await.unwrap().0;
    assert!(!large.exact && large.notes[0].contains("pg_largeobject"), "{large:?}");
    for sql in ["SELECT define()", "SELECT * INTO other FROM hidden"] {
        let fault = preview(&app, sql).await.unwrap_err();
        assert!(matches!(fault, ResourceFault::Impossible(_)), "{sql}: {fault:?}");
    }
    assert_eq!(dump(&database.client().await, &["keyless"]).await["keyless"].len(), 0);
}

#[tokio::test]
async fn what_does_not_end_with_a_transaction_is_not_tried() {
    let database = Database::new(
        "CREATE TABLE t (id int PRIMARY KEY); CREATE SEQUENCE s;
         CREATE TABLE \"Odd name\" (id int PRIMARY KEY REFERENCES t ON DELETE CASCADE);
         CREATE FUNCTION deep() RETURNS bigint LANGUAGE sql BEGIN ATOMIC
           SELECT setval('s', 1000); END;
         CREATE FUNCTION deeper() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN PERFORM deep(); RETURN NULL; END $$;
         CREATE FUNCTION copies() RETURNS void LANGUAGE plpgsql AS
           $$ BEGIN EXECUTE 'COPY t TO PROGRAM ''id'''; END $$;
         CREATE FUNCTION builds() RETURNS void LANGUAGE plpgsql AS
           $$ BEGIN EXECUTE format('SELECT set%s(''s'', 1000)', 'val'); END $$;
         CREATE FUNCTION build_later() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN PERFORM builds(); RETURN NULL; END $$;
         CREATE TABLE built (id int PRIMARY KEY);
         CREATE TRIGGER later AFTER INSERT ON built FOR EACH ROW EXECUTE FUNCTION build_later();
         CREATE VIEW hidden AS SELECT setval('s', 1000);
         CREATE TRIGGER deeper AFTER DELETE ON \"Odd name\" FOR EACH ROW
           EXECUTE FUNCTION deeper();
         CREATE TYPE pair AS (a int);
         CREATE FUNCTION op(int, int) RETURNS boolean LANGUAGE sql AS
           $$ SELECT setval('s', 1000) IS NOT NULL $$;
         CREATE OPERATOR ### (LEFTARG = int, RIGHTARG = int, FUNCTION = op);
         CREATE FUNCTION made(int) RETURNS pair LANGUAGE sql AS
           $$ SELECT ROW(setval('s', 1000)::int)::pair $$;
         CREATE CAST (int AS pair) WITH FUNCTION made(int);
         INSERT INTO t VALUES (1); INSERT INTO \"Odd name\" VALUES (1)",
    )
    .await;
    let postgres = database.postgres();
    for sql in [
        "SELECT 1 ### 2",
        "SELECT CAST(1 AS pair)",
        "DO $$ BEGIN EXECUTE 'select set' || 'val(''s'', 1000)'; END $$",
        "SELECT query_to_xml('select set' || 'val(''s'', 1000)', true, true, '')",
        "SELECT * FROM ts_stat('select set' || 'val(''s'', 1000)')",
        "DELETE FROM t",
        "DELETE FROM \"Odd name\"",
        "SELECT setval('s', 1000)",
        "DO $$ BEGIN EXECUTE 'select setval(''s'', 1000)'; END $$",
        "SELECT copies()",
        "SELECT builds()",
        "INSERT INTO built VALUES (1)",
        "SELECT table_to_xml(('hid' || 'den')::regclass, true, true, '')",
    ] {
        let (seen, prepared) = preview(&postgres, sql).await.unwrap();
        assert_eq!(seen.guarantee, Reversibility::Irreversible, "{sql}");
        assert!(!seen.exact && seen.disclosure == Disclosure::Left, "{sql}: {seen:?}");
        assert!(postgres.undo(&prepared).is_none());
    }
    let parameters = json!({ "sql": "SELECT setval('s', 1000)" });
    let (seen, _) = preview_with(&postgres, "sql_query", &parameters).await.unwrap();
    assert!(!seen.exact, "{seen:?}");
    assert!(preview(&postgres, "SELECT U&\"set\\0076al\"('s', 1)").await.is_err());
    assert_eq!(database.value("SELECT last_value FROM s").await, "1");
    // With a permit it is run, once.
    let (_, prepared) = preview(&postgres, "DELETE FROM t").await.unwrap();
    must(execute(&postgres, "DELETE FROM t", prepared).await);
    assert_eq!(database.value("SELECT last_value FROM s").await, "1000");
    assert_eq!(database.value("SELECT count(*) FROM t").await, "0");
}

#[tokio::test]
async fn what_listeners_are_told_is_named() {
    let database = Database::new("CREATE TABLE t (id int PRIMARY KEY)").await;
    let postgres = database.postgres();
    for sql in ["NOTIFY x", "INSERT INTO t SELECT 1 FROM pg_notify('x', 'y')"] {
        let (seen, _) = preview(&postgres, sql).await.unwrap();
        assert!(!seen.exact && seen.disclosure == Disclosure::Wider, "{sql}: {seen:?}");
        assert_eq!(seen.guarantee, Reversibility::Compensable);
    }
}

#[tokio::test]
async fn what_changes_each_time_is_named() {
    let database = Database::new("CREATE TABLE t (id int PRIMARY KEY, at timestamptz)").await;
    let postgres = database.postgres();
    let sql = "INSERT INTO t VALUES (1, clock_timestamp())";
    let digest = async || {
        let (seen, _) = preview(&postgres, sql).await.unwrap();
        assert!(seen.notes[0].contains("clock_timestamp"), "{seen:?}");
        seen.digest().unwrap()
    };
    assert_ne!(digest().await, digest().await);
}

#[tokio::test]
async fn definitions_are_changed_unseen_and_outside_a_transaction_where_need_be() {
    let database = Database::new(USERS).await;
    let postgres = database.postgres();
    let concurrently = "CREATE INDEX CONCURRENTLY ON users (name)";
    for sql in ["CREATE INDEX ON users (name)", concurrently, "VACUUM users"] {
        let (seen, prepared) = preview(&postgres, sql).await.unwrap();
        assert!(!seen.exact && seen.guarantee == Reversibility::Irreversible, "{sql}");
        must(execute(&postgres, sql, prepared).await);
    }
    let indexes = "SELECT count(*) FROM pg_indexes WHERE tablename = 'users'";
    assert_eq!(database.value(indexes).await, "3");
    let sql = "ALTER TABLE users ADD CHECK (id > 100)";
    let (_, prepared) = preview(&postgres, sql).await.unwrap();
    let ended = execute(&postgres, sql, prepared).await.ended;
    assert!(matches!(ended, Ended::Answered { tool_error: true, .. }), "{ended:?}");
}

#[tokio::test]
async fn definitions_without_end_are_not_read() {
    let body = |calls: &str| format!("'SELECT ''{}'', {calls}'", "x ".repeat(700_000));
    let mut setup = "CREATE FUNCTION f0() RETURNS int LANGUAGE sql AS 'SELECT 1';".to_owned();
    for at in 1..=25 {
        let before = at - 1;
        let create = format!("CREATE FUNCTION f{at}() RETURNS int LANGUAGE sql AS");
        setup.push_str(&format!("{create} 'SELECT f{before}()';"));
    }
    let long = "RETURNS record LANGUAGE sql AS";
    let (first, second) = (body("g2()"), body("g3()"));
    setup.push_str(&format!("CREATE FUNCTION g3() {long} {};", body("1")));
    setup.push_str(&format!("CREATE FUNCTION g2() {long} {second};"));
    setup.push_str(&format!("CREATE FUNCTION g1() {long} {first};"));
    let database = Database::new(&setup).await;
    let postgres = database.postgres();
    preview(&postgres, "SELECT f15(), g2()").await.unwrap();
    for sql in ["SELECT f25()", "SELECT g1()"] {
        let fault = preview(&postgres, sql).await.unwrap_err();
        assert!(matches!(fault, ResourceFault::TooLarge(_)), "{sql}: {fault:?}");
    }
}

#[tokio::test]
async fn so_many_connections_rest() {
    let database = Database::new(USERS).await;
    let client = database.root().await;
    let (barrier, count) = (
        tokio::sync::Barrier::new(6),
        "SELECT count(*) FROM pg_stat_activity \
        WHERE application_name = 'holdpoint' AND datname = current_database()",
    );
    let limits = PostgresLimits { lock_timeout: std::time::Duration::from_secs(15), ..LIMITS };
    let postgres = database.postgres_as("app", limits);
    let one_of_six = async || {
        let sql = "SELECT pg_advisory_lock_shared(1)";
        barrier.wait().await;
        drop(preview(&postgres, sql).await.unwrap());
    };
    // All six wait for one lock, so all look at one time.
    client.batch_execute("SELECT pg_advisory_lock(1)").await.unwrap();
    let begun = std::time::Instant::now();
    let release = async {
        while one(&client, count).await != "12" {
            assert!(begun.elapsed().as_secs() < 10, "they do not wait");
        }
        client.batch_execute("SELECT pg_advisory_unlock(1)").await.unwrap();
    };
    let six = futures::future::join_all((0..6).map(|_| one_of_six()));
    tokio::join!(six, release);
    while one(&client, count).await != "4" {
        assert!(begun.elapsed().as_secs() < 20, "too many rest");
    }
}

#[tokio::test]
async fn drawn_numbers_and_the_time_are_the_same_when_it_is_looked_at_again() {
    let database = Database::new(
        "CREATE TABLE people (id bigserial PRIMARY KEY, name text, at timestamptz DEFAULT now(),
           day timestamp DEFAULT now());
         CREATE TABLE pets (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
           owner bigint REFERENCES people, n int);
         INSERT INTO people (name) SELECT 'p' FROM generate_series(1, 8)",
    )
    .await;
    let postgres = database.postgres();
    let sql = "WITH new AS (INSERT INTO people (name) VALUES ('a'), ('b'), ('c') RETURNING id) \
               INSERT INTO pets (owner, n) SELECT id, 10 FROM new; \
               INSERT INTO pets (owner, n) VALUES (1, 2), (9, 1)";
    let (seen, prepared) = preview(&postgres, sql).await.unwrap();
    let resources: Vec<&str> = seen.changes.iter().map(|change| change.resource.as_str()).collect();
    assert_eq!(
        resources,
        [
            "people/id=*1",
            "people/id=*2",
            "people/id=*3",
            "pets/id=*1",
            "pets/id=*2",
            "pets/id=*3",
            "pets/id=*4",
            "pets/id=*5"
        ]
        .map(|resource| format!("pg://shop/public.{resource}"))
    );
    let number = |nth: u64| json!({ "next_of": "public.people_id_seq", "nth": nth });
    let time = json!({ "time_of": "execution" });
    let person = json!({ "id": number(2), "name": "b", "at": time, "day": time });
    assert_eq!(seen.changes[1].after, Some(person));
    assert_eq!(seen.changes[4].after.as_ref().unwrap()["owner"], number(2));
    assert_eq!(seen.changes[6].after.as_ref().unwrap()["owner"], "1");
    // Numbers of the first look are gone: the second look draws 12, 13 and 14.
    drop(prepared);
    let sql = sql.replace("(9, 1)", "(1, 1)");
    let first = preview(&postgres, &sql).await.unwrap().0.digest().unwrap();
    database.run("SELECT nextval('people_id_seq')").await;
    let (again, prepared) = preview(&postgres, &sql).await.unwrap();
    assert_eq!(again.digest().unwrap(), first);
    // A number that is written, not drawn, is shown as it is.
    let (other, _) = preview(&postgres, "INSERT INTO people (id) VALUES (7000)").await.unwrap();
    assert_eq!(other.changes[0].resource, "pg://shop/public.people/id=7000");
    let undo = postgres.undo(&prepared).unwrap();
    must(execute(&postgres, &sql, prepared).await);
    assert_eq!(postgres.verify(&undo).await.unwrap(), TargetState::After);
    super::cluster::revert(&postgres, &undo).await;
    assert_eq!(database.value("SELECT count(*) FROM people").await, "8");
}

#[tokio::test]
async fn a_role_that_could_leave_its_transactions_is_named() {
    let database = Database::new("").await;
    let root = database.root().await;
    let roles = "CREATE ROLE runner LOGIN CREATEROLE; CREATE ROLE between;
        GRANT pg_execute_server_program TO between; GRANT between TO runner";
    root.batch_execute(roles).await.unwrap();
    let warnings = async |role: &str| database.postgres_as(role, LIMITS).warnings().await.unwrap();
    assert_eq!(warnings("app").await, [""; 0]);
    let superuser = warnings("root").await;
    assert_eq!(superuser, ["its role is a superuser, whom nothing keeps inside of a transaction"]);
    assert_eq!(
        warnings("runner").await,
        [
            "its role gives rights to itself and others (`CREATEROLE`)",
            "its role runs programs on its server (`pg_execute_server_program`)",
        ]
    );
    let nobody = database.postgres_as("nobody_at_all", LIMITS).warnings().await;
    assert!(nobody.is_err(), "{nobody:?}");
}
