//! Policies that look at what a call would do: each rule that `docs/reversibility.md` shows, on real
//! databases.

use crate::postgres::Postgres;
use crate::raw::{call, post, reason};
use crate::world::{PEER, Serve, World, until};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const ORDERS: &str = r#"
[server.orders]
environment = "dev"
serves = { sqlite = "orders.db" }
"#;

/// The rules that the documentation shows, by name.
fn rules(names: &[&str]) -> String {
    let docs = include_str!("../../../../docs/reversibility.md");
    let shown = docs.split("```cedar\n").nth(1).unwrap().split("```").next().unwrap();
    let one = |name: &&str| {
        let begin = shown.find(&format!("@id(\"{name}\")")).unwrap_or_else(|| panic!("no {name}"));
        let rule = shown.get(begin..).unwrap();
        format!("{};\n", rule.split(';').next().unwrap())
    };
    names.iter().map(one).collect()
}

/// A world with these servers, in which `coder` may do everything that these policies permit.
fn world(servers: &str, policies: &str) -> World {
    let world = World::new(&format!(
        r#"
[listen]
http = "127.0.0.1:0"

[policies]
path = "policies"

[team.platform]
on_call = "platform on-call"

[agent.coder]
owner = "platform"
grants = [
  {{ class = "read", tools = ["*"] }},
  {{ class = "write", tools = ["*"] }},
  {{ class = "destructive", tools = ["orders__sql_execute"] }},
]
{servers}
"#
    ));
    govern_by(&world, policies);
    world
}

fn govern_by(world: &World, policies: &str) {
    let folder = world.path().join("policies");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("rules.cedar"), policies).unwrap();
}

/// A database of 150 rows, 1 to 150.
fn orders(world: &World) -> rusqlite::Connection {
    let database = rusqlite::Connection::open(world.path().join("orders.db")).unwrap();
    let rows = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 150)
        INSERT INTO t SELECT i, 'old' FROM n;";
    database.execute_batch(rows).unwrap();
    database
}

fn new_rows(database: &rusqlite::Connection) -> i64 {
    database.query_row("SELECT count(*) FROM t WHERE v = 'new'", [], |row| row.get(0)).unwrap()
}

fn execute(serve: &Serve, key: &str, sql: &str) -> Value {
    post(serve, ("/orders", key), &call(1, "sql_execute", json!({ "sql": sql }))).body
}

/// The rules that spoke against a call.
fn against(answer: &Value) -> String {
    answer["result"]["_meta"]["io.holdpoint/decision"].to_string()
}

fn held(answer: &Value) -> String {
    let held = &answer["result"]["_meta"]["io.holdpoint/decision"]["held"];
    held["id"].as_str().unwrap_or_else(|| panic!("no approval in {answer}")).to_owned()
}

fn proved(world: &World, serve: Serve) {
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[test]
fn a_policy_forbids_to_change_too_much() {
    let world = world(ORDERS, &rules(&["granted", "few-at-once"]));
    let database = orders(&world);
    let key = world.key("coder");
    let serve = world.serve();
    let update = |ids: &str| {
        execute(&serve, &key, &format!("UPDATE t SET v = 'new' WHERE id BETWEEN {ids}"))
    };
    let much = update("1 AND 101");
    assert_eq!(reason(&much), "policy_forbids", "{much}");
    assert!(against(&much).contains("few-at-once"), "{much}");
    assert_eq!(new_rows(&database), 0);
    assert_eq!(reason(&update("1 AND 100")), "answered");
    assert_eq!(new_rows(&database), 100);
    proved(&world, serve);
}

#[test]
fn a_policy_holds_what_can_be_taken_back_for_a_time_only() {
    let for_a_time = rules(&["irreversible-waits"]).replace("irreversible\"", "exact_until\"");
    let world = world(ORDERS, &format!("{}{for_a_time}", rules(&["granted"])));
    let database = orders(&world);
    let key = world.key("coder");
    let serve = world.serve();
    let rows = execute(&serve, &key, "UPDATE t SET v = 'new' WHERE id = 1");
    assert_eq!(reason(&rows), "answered", "{rows}");
    let schema = "ALTER TABLE t ADD COLUMN w TEXT";
    let asked = execute(&serve, &key, schema);
    let id = held(&asked);
    assert!(database.prepare("SELECT w FROM t").is_err(), "only a preview");
    world.must(&["approve", &id, "--because", "fine"]);
    let done = execute(&serve, &key, schema);
    assert_eq!(reason(&done), "answered", "{done}");
    database.prepare("SELECT w FROM t").unwrap();
    proved(&world, serve);
}

#[test]
fn a_policy_holds_what_can_never_be_taken_back() {
    let postgres = Postgres::start();
    postgres.run("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'old')");
    let servers = "[server.orders]\nenvironment = \"dev\"\n\
                   serves = { postgres = { from_file = \"orders.url\" } }\n";
    let world = world(servers, &rules(&["granted", "irreversible-waits"]));
    let url = format!("postgresql://shop@/shop?host={}", postgres.host());
    std::fs::write(world.path().join("orders.url"), url).unwrap();
    let key = world.key("coder");
    let serve = world.serve();
    let rows = execute(&serve, &key, "UPDATE t SET v = 'new' WHERE id = 1");
    assert_eq!(reason(&rows), "answered", "{rows}");
    let schema = "ALTER TABLE t ADD COLUMN w text";
    let id = held(&execute(&serve, &key, schema));
    let columns = "SELECT count(*) FROM information_schema.columns WHERE table_name = 't'";
    assert_eq!(postgres.ask(columns), "2");
    world.must(&["approve", &id, "--because", "fine"]);
    let done = execute(&serve, &key, schema);
    assert_eq!(reason(&done), "answered", "{done}");
    assert_eq!(postgres.ask(columns), "3");
    proved(&world, serve);
}

#[test]
fn a_policy_holds_what_nobody_could_see() {
    let policies = rules(&["granted", "unseen-waits"]);
    // What is seen is held only until it is.
    let seeing = world(ORDERS, &policies);
    let database = orders(&seeing);
    let key = seeing.key("coder");
    let serve = seeing.serve();
    let seen = execute(&serve, &key, "UPDATE t SET v = 'new' WHERE id = 1");
    assert_eq!(reason(&seen), "answered", "{seen}");
    assert_eq!(new_rows(&database), 1);
    proved(&seeing, serve);
    // Nothing stands for this server.
    let blind = World::new(&format!("{PEER}\n[policies]\npath = \"policies\"\n"));
    govern_by(&blind, &policies);
    let key = blind.key("coder");
    let serve = blind.serve();
    let file = blind.files().canonicalize().unwrap().join("one");
    let touch = call(1, "touch", json!({ "path": file }));
    let asked = post(&serve, ("/peer", &key), &touch).body;
    let id = held(&asked);
    assert!(!file.exists());
    blind.must(&["approve", &id, "--because", "fine"]);
    let done = post(&serve, ("/peer", &key), &touch).body;
    assert_eq!(reason(&done), "answered", "{done}");
    assert!(file.exists());
    proved(&blind, serve);
}

#[test]
fn a_policy_that_forbids_the_unknown_forbids_everything() {
    let never = "@id(\"only-exact\") @reason(\"no\") forbid (principal, action, resource) \
                 unless { context.guarantee == \"exact\" };\n";
    let world = world(ORDERS, &format!("{}{never}", rules(&["granted"])));
    let database = orders(&world);
    let key = world.key("coder");
    let serve = world.serve();
    let told = execute(&serve, &key, "UPDATE t SET v = 'new' WHERE id = 1");
    assert_eq!(reason(&told), "policy_forbids", "{told}");
    assert_eq!(new_rows(&database), 0);
    // Nobody looked at what is denied anyway.
    let records = world.records();
    let decided: Vec<_> = records.iter().filter(|one| one["kind"] == "decision").collect();
    assert!(!decided.is_empty() && decided.iter().all(|one| one["facts"]["preview"].is_null()));
    proved(&world, serve);
}

#[test]
fn a_target_is_left_to_others_after_a_long_look_that_led_to_nothing() {
    let two = format!(
        "{}[agent.other]\nowner = \"platform\"\ngrants = [{{ class = \"write\", tools = [\"*\"] }}]\n",
        ORDERS.replace("\"orders.db\"", "\"orders.db\", statement_timeout_ms = 1500")
    );
    let world = world(&two, &rules(&["granted"]));
    let database = orders(&world);
    let (coder, other) = (world.key("coder"), world.key("other"));
    let serve = world.serve();
    let small = |key: &str, id: u32| {
        execute(&serve, key, &format!("UPDATE t SET v = 'new' WHERE id = {id}"))
    };
    let endless = "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                   SELECT i, 'new' FROM n WHERE i < 0";
    // Several at one time are looked at one after the other: the first spoils it for all.
    let mut reasons: Vec<_> = std::thread::scope(|scope| {
        let asked = [(), (), ()].map(|()| scope.spawn(|| execute(&serve, &coder, endless)));
        asked.map(|one| reason(&one.join().unwrap())).to_vec()
    });
    reasons.sort();
    assert_eq!(reasons, ["preview_too_soon", "preview_too_soon", "preview_unavailable"]);
    let began = Instant::now();
    let soon = small(&coder, 1);
    assert_eq!(reason(&soon), "preview_too_soon", "{soon}");
    assert!(soon.to_string().contains("led to nothing, so others have it"), "{soon}");
    assert!(soon.to_string().contains("retry in "), "{soon}");
    assert_eq!(reason(&small(&other, 2)), "answered");
    let rows =
        post(&serve, ("/orders", &coder), &call(1, "sql_query", json!({ "sql": "SELECT 1" })));
    assert_eq!(reason(&rows.body), "answered", "who only reads keeps nobody away");
    while reason(&small(&coder, 1)) == "preview_too_soon" {
        assert!(began.elapsed() < Duration::from_secs(30), "it never gets its turn again");
    }
    assert_eq!(reason(&small(&coder, 3)), "answered");
    assert_eq!(new_rows(&database), 3);
    proved(&world, serve);
}

#[test]
fn what_is_large_runs_whole_after_an_approval_of_its_size_and_is_taken_back() {
    let small = ORDERS.replace("\"orders.db\"", "\"orders.db\", rows_max = 100");
    let world = world(&small, &rules(&["granted"]));
    let database = orders(&world);
    let key = world.key("coder");
    let serve = world.serve();
    let update = "UPDATE t SET v = 'new' WHERE v = 'old'";
    let told = execute(&serve, &key, update);
    assert_eq!(reason(&told), "preview_too_large", "{told}");
    let text = told["result"]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("too large: 150 rows, and `rows_max` is 100"), "{text}");
    let first = held(&told);
    let approve = |id: &str| world.must(&["approve", id, "--because", "all of them, in one go"]);
    approve(&first);
    // Somebody adds a row: that many nobody has approved.
    database.execute("INSERT INTO t VALUES (151, 'old')", []).unwrap();
    let anew = execute(&serve, &key, update);
    let second = held(&anew);
    assert_ne!(first, second);
    // Whoever said yes, and the agent, learn why that was in vain.
    let told = anew["result"]["content"][0]["text"].as_str().unwrap();
    assert!(told.contains(&format!("The yes to {first} is none to this")), "{told}");
    assert!(world.must(&["approvals", &second]).contains(&format!("instead of   {first}")));
    approve(&second);
    let done = execute(&serve, &key, update);
    assert_eq!((reason(&done).as_str(), new_rows(&database)), ("answered", 151), "{done}");
    // What somebody changes after it is kept.
    database.execute("UPDATE t SET v = 'mine' WHERE id = 151", []).unwrap();
    let action = until("the outcome is recorded", || {
        let log = world.json(&["log", "--kind", "outcome"]);
        Some(log["records"][0]["action"].as_str()?.to_owned())
    });
    let back = world.run(&["revert", &action, "--because", "wrong table"]);
    let said = crate::world::text(&back.stdout);
    assert!(said.contains("150 changed back"), "{said}");
    assert_eq!(new_rows(&database), 0);
    proved(&world, serve);
}

#[test]
fn an_approval_of_a_size_is_none_of_what_a_policy_holds_once_it_is_seen() {
    let small = ORDERS.replace("\"orders.db\"", "\"orders.db\", rows_max = 100");
    let many = rules(&["irreversible-waits"])
        .replace("irreversible-waits", "many-wait")
        .replace("context.guarantee == \"irreversible\"", "context.changes > 120");
    let world = world(&small, &format!("{}{many}", rules(&["granted"])));
    let database = orders(&world);
    let key = world.key("coder");
    let serve = world.serve();
    let update = "UPDATE t SET v = 'new' WHERE v = 'old'";
    let approve = |id: &str| world.must(&["approve", id, "--because", "so many are fine"]);
    let first = execute(&serve, &key, update);
    assert_eq!(reason(&first), "preview_too_large", "{first}");
    approve(&held(&first));
    // What is seen now is what the rule is about, and nobody has said yes to that.
    let second = execute(&serve, &key, update);
    assert_eq!(reason(&second), "policy_holds", "{second}");
    assert!(against(&second).contains("many-wait"), "{second}");
    assert_ne!(held(&first), held(&second));
    assert_eq!(new_rows(&database), 0);
    // While that waits, nobody looks again, however often the agent asks.
    database.execute("INSERT INTO t VALUES (151, 'old')", []).unwrap();
    database.execute("UPDATE t SET v = 'mine' WHERE id = 1", []).unwrap();
    let again = execute(&serve, &key, update);
    assert_eq!((reason(&again).as_str(), held(&again)), ("policy_holds", held(&second)));
    database.execute("UPDATE t SET v = 'old' WHERE id = 1", []).unwrap();
    database.execute("DELETE FROM t WHERE id = 151", []).unwrap();
    approve(&held(&second));
    assert_eq!(reason(&execute(&serve, &key, update)), "answered");
    assert_eq!(new_rows(&database), 150);
    proved(&world, serve);
}

#[test]
fn what_is_too_large_to_see_is_refused_at_once_where_no_approval_could_make_it_run() {
    let small = ORDERS.replace("\"orders.db\"", "\"orders.db\", rows_max = 10");
    let world = world(&small, &rules(&["granted"]));
    let database = orders(&world);
    let key = world.key("coder");
    let serve = world.serve();
    let told = execute(&serve, &key, "UPDATE t SET v = 'new' WHERE id BETWEEN 1 AND 150");
    assert_eq!(reason(&told), "change_too_large", "{told}");
    let text = told["result"]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("denied"), "{text}");
    assert!(text.contains("too large: 150 rows, and `rows_max` is 10"), "{text}");
    assert!(text.contains("no approval can make this one run"), "{text}");
    assert_eq!(world.json(&["approvals"])["approvals"], json!([]), "nobody is asked");
    let few = "UPDATE t SET v = 'new' WHERE id BETWEEN 1 AND 10";
    assert_eq!(reason(&execute(&serve, &key, few)), "answered");
    assert_eq!(new_rows(&database), 10);
    proved(&world, serve);
}

#[test]
fn what_is_too_large_to_see_runs_after_an_approval_where_its_server_can_run_it() {
    let watched = "undo = { files = [\"${files}\"] }\n\
                   tool.append.effects = [{ family = \"file\", act = \"write\", path = \"/path\" }]\n";
    let world = World::new(&format!("{PEER}{watched}"));
    let large = world.files().canonicalize().unwrap().join("large");
    std::fs::File::create(&large).unwrap().set_len(9 << 20).unwrap();
    let key = world.key("coder");
    let serve = world.serve();
    let append = call(1, "append", json!({ "path": large }));
    let asked = post(&serve, ("/peer", &key), &append).body;
    assert_eq!(reason(&asked), "unseen_too_large", "{asked}");
    assert!(asked.to_string().contains("too large: "), "{asked}");
    let id = held(&asked);
    world.must(&["approve", &id, "--because", "it is a log"]);
    let done = post(&serve, ("/peer", &key), &append).body;
    assert_eq!(reason(&done), "answered", "{done}");
    assert_eq!(std::fs::metadata(&large).unwrap().len(), (9 << 20) + 5);
    proved(&world, serve);
}

#[test]
fn check_and_serve_warn_of_a_role_that_leaves_its_transactions() {
    let postgres = Postgres::start();
    let servers = "[server.orders]\nenvironment = \"dev\"\n\
                   serves = { postgres = { from_file = \"orders.url\" } }\n";
    let world = world(servers, &rules(&["granted"]));
    let connect = |role: &str| {
        let url = format!("postgresql://{role}@/shop?host={}", postgres.host());
        std::fs::write(world.path().join("orders.url"), url).unwrap();
    };
    let warned = || {
        let report = world.json(&["check"]);
        assert_eq!(report["fit"], true, "{report}");
        report["diagnostics"].to_string()
    };
    connect("shop");
    let told = warned();
    assert!(told.contains("server `orders`: its role is a superuser"), "{told}");
    assert!(told.contains("docs/reversibility.md"), "{told}");
    let serve = world.serve();
    let log = world.path().join("serve.log");
    let began = Instant::now();
    while !std::fs::read_to_string(&log).unwrap().contains("its role is a superuser") {
        assert!(began.elapsed() < Duration::from_secs(30), "serve says nothing");
        std::thread::yield_now();
    }
    serve.end();
    postgres.run("CREATE ROLE plain LOGIN");
    connect("plain");
    assert!(!warned().contains("its role"), "{}", warned());
    drop(postgres);
    let told = warned();
    assert!(told.contains("server `orders`: it cannot be looked at"), "{told}");
}

#[test]
fn a_dropped_table_is_deleted_and_that_recorded_when_its_time_is_over() {
    let postgres = Postgres::start();
    postgres.run("CREATE TABLE t (id int PRIMARY KEY)");
    let servers = "[server.orders]\nenvironment = \"dev\"\n\
                   serves = { postgres = { from_file = \"orders.url\" } }\n\
                   [invariant.stateful_delete]\nresult = \"off\"\n";
    let world = world(servers, &rules(&["granted"]));
    let url = format!("postgresql://shop@/shop?host={}", postgres.host());
    std::fs::write(world.path().join("orders.url"), url).unwrap();
    let key = world.key("coder");
    let serve = world.serve();
    let done = execute(&serve, &key, "DROP TABLE t");
    assert_eq!(reason(&done), "answered", "{done}");
    serve.end();
    let trash = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'holdpoint%'";
    let schema = postgres.ask(trash);
    // The time passes.
    postgres.run(&format!(
        "DO $$ BEGIN EXECUTE format('COMMENT ON SCHEMA {schema} IS %L', regexp_replace( \
         obj_description('{schema}'::regnamespace), 'until [0-9]+', 'until 1')); END $$"
    ));
    let serve = world.serve();
    let began = Instant::now();
    while !postgres.ask(trash).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(30), "it is not deleted");
    }
    let records = world.json(&["log", "--kind", "expired"]);
    let records = records["records"].as_array().unwrap();
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0]["server"], "orders");
    let address = format!("pg://orders/{schema}");
    assert_eq!(records[0]["resource"], address.as_str());
    proved(&world, serve);
}

#[test]
fn what_cannot_be_taken_back_is_not_sent() {
    let world = world(ORDERS, &rules(&["granted"]));
    let database = orders(&world);
    let key = world.key("coder");
    let serve = world.serve();
    // Where undo is kept there is no folder, and there cannot be one.
    std::fs::write(world.store().join("archive"), "in the way").unwrap();
    let told = execute(&serve, &key, "UPDATE t SET v = 'new' WHERE id = 1");
    assert_eq!(reason(&told), "target_moved", "{told}");
    assert!(told.to_string().contains("what would take it back cannot be kept"), "{told}");
    assert_eq!(new_rows(&database), 0);
    std::fs::remove_file(world.store().join("archive")).unwrap();
    assert_eq!(reason(&execute(&serve, &key, "UPDATE t SET v = 'new' WHERE id = 1")), "answered");
    assert_eq!(new_rows(&database), 1);
    proved(&world, serve);
}

#[test]
fn approvals_and_grants_that_do_not_follow_from_the_records_are_found() {
    let held_rows = rules(&["irreversible-waits"]).replace("irreversible\"", "exact\"");
    let world = world(ORDERS, &format!("{}{held_rows}", rules(&["granted"])));
    let _database = orders(&world);
    let key = world.key("coder");
    let serve = world.serve();
    let ask = |id: u32| execute(&serve, &key, &format!("UPDATE t SET v = 'new' WHERE id = {id}"));
    let (one, two) = (held(&ask(1)), held(&ask(2)));
    world.must(&["approve", &one, "--because", "fine"]);
    world.must(&["deny", &two, "--because", "no"]);
    let grant = ["--tools", "orders__sql_query", "--for", "2h", "--because", "today"];
    world.must(&[&["grant", "coder", "--class", "read"][..], &grant].concat());
    serve.end();
    world.must(&["verify"]);
    let file = world.store().join("ledger.db");
    let tamper = |sql: &str| {
        let ledger = rusqlite::Connection::open(&file).unwrap();
        ledger.execute_batch("BEGIN").unwrap();
        assert!(ledger.execute(sql, []).unwrap() > 0, "{sql} changes nothing");
        ledger.execute_batch("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    };
    let sound = {
        rusqlite::Connection::open(&file)
            .unwrap()
            .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
            .unwrap();
        std::fs::read(&file).unwrap()
    };
    for (sql, list) in [
        ("DELETE FROM approvals", "approvals"),
        ("UPDATE approvals SET binding = zeroblob(32)", "approvals"),
        ("UPDATE approvals SET expires_ms = expires_ms + 86400000", "approvals"),
        ("UPDATE approvals SET epoch = epoch + 1", "approvals"),
        ("UPDATE approvals SET facts = replace(facts, '\"denied\"', '\"x\"')", "approvals"),
        (
            // Another name for each: a last digit that was 0 is 1, and any other is 0.
            "INSERT INTO approvals SELECT substr(id, 1, 35) || (substr(id, 36) = '0'), binding, \
          agent, owner, tool, epoch, asked_ms, expires_ms, facts FROM approvals LIMIT 1",
            "approvals",
        ),
        ("DELETE FROM grants", "grants"),
        ("UPDATE grants SET until_ms = until_ms + 1", "grants"),
        ("UPDATE grants SET class = 'destructive'", "grants"),
        ("UPDATE grants SET tools = replace(tools, 'sql_query', '*')", "grants"),
        (
            "INSERT INTO grants SELECT id + 1, agent, class, tools, until_ms, by, because FROM grants",
            "grants",
        ),
    ] {
        tamper(sql);
        let run = world.run(&["verify"]);
        let told = [run.stdout.as_slice(), &run.stderr].concat();
        let told = String::from_utf8_lossy(&told);
        assert!(!run.status.success(), "{sql}: {told}");
        assert!(told.contains(&format!("list of {list}")), "{sql}: {told}");
        std::fs::write(&file, &sound).unwrap();
    }
    world.must(&["verify"]);
}
