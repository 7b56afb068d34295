//! What Holdpoint serves itself: seen before it happens, approved as what was seen, taken back
//! afterwards, through real clients and on real databases and repositories.

use crate::postgres::Postgres;
use crate::raw::{call, exchange, post, reason};
use crate::world::{Serve, World, left_out, text};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A world whose `coder` has every change of what `orders`, `repo` and the like serve approved.
pub fn world(mode: &str, servers: &str) -> World {
    let destructive = if servers.contains("orders") { "\"orders__sql_execute\"" } else { "" };
    World::new(&format!(
        r#"
[listen]
http = "127.0.0.1:0"

[team.platform]
on_call = "platform on-call"

[agent.coder]
owner = "platform"
mode = "{mode}"
grants = [
  {{ class = "read", tools = ["*"] }},
  {{ class = "write", tools = ["*"] }},
  {{ class = "destructive", tools = [{destructive}] }},
]
{servers}
"#
    ))
}

const ORDERS: &str = r#"
[server.orders]
environment = "dev"
serves = { sqlite = "orders.db" }
"#;

/// Runs a program and demands success; gives standard output.
pub fn must(program: &str, arguments: &[&str], dir: &Path) -> String {
    let run = Command::new(program).args(arguments).current_dir(dir).output().unwrap();
    assert!(run.status.success(), "{program} {arguments:?}: {}", text(&run.stderr));
    text(&run.stdout)
}

pub fn sqlite(world: &World, sql: &str) -> String {
    must("sqlite3", &["orders.db", sql], world.path())
}

pub fn execute(serve: &Serve, key: &str, sql: &str) -> Value {
    let message = call(1, "sql_execute", json!({ "sql": sql }));
    post(serve, ("/orders", key), &message).body
}

/// The id of the approval that an answer names.
pub fn held(answer: &Value) -> String {
    let held = &answer["result"]["_meta"]["io.holdpoint/decision"]["held"];
    held["id"].as_str().unwrap_or_else(|| panic!("no approval in {answer}")).to_owned()
}

fn last_permitted(world: &World) -> String {
    let log = world.json(&["log", "--kind", "decision", "--decision", "permit"]);
    log["records"].as_array().unwrap().last().unwrap()["action"].as_str().unwrap().to_owned()
}

#[test]
fn a_change_of_rows_is_seen_approved_made_and_taken_back() {
    let world = world("approve-writes", ORDERS);
    sqlite(
        &world,
        "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, password TEXT);
         INSERT INTO users VALUES (1,'ada','hunter2'), (2,'bob','hunter3'), (3,'cleo','hunter4')",
    );
    let before = sqlite(&world, "SELECT * FROM users");
    let key = world.key("coder");
    let serve = world.serve();
    let query = call(9, "sql_query", json!({ "sql": "SELECT count(*) AS n FROM users" }));
    let read = post(&serve, ("/orders", &key), &query).body;
    assert_eq!(reason(&read), "answered", "{read}");

    let sql = "UPDATE users SET name = upper(name) WHERE id < 3; DELETE FROM users WHERE id = 3";
    let asked = execute(&serve, &key, sql);
    let id = held(&asked);
    let preview = &asked["result"]["_meta"]["io.holdpoint/decision"]["held"]["preview"];
    assert_eq!(preview["counts"], json!({ "created": 0, "updated": 2, "deleted": 1 }), "{asked}");
    assert_eq!((&preview["guarantee"], &preview["exact"]), (&json!("exact"), &json!(true)));
    assert_eq!(sqlite(&world, "SELECT * FROM users"), before, "only a preview");
    let shown = world.must(&["approvals", &id]);
    assert!(shown.contains("\"ADA\"") && shown.contains("delete"), "{shown}");
    assert!(!shown.contains("hunter4"), "a secret shows: {shown}");

    world.must(&["approve", &id, "--because", "fine"]);
    // The target moves by one byte: what was approved is not what would happen.
    sqlite(&world, "UPDATE users SET name = 'adb' WHERE id = 1");
    assert_ne!(held(&execute(&serve, &key, sql)), id);
    sqlite(&world, "UPDATE users SET name = 'ada' WHERE id = 1");
    let done = execute(&serve, &key, sql);
    assert_eq!(reason(&done), "answered", "{done}");
    assert_eq!(sqlite(&world, "SELECT name FROM users"), "ADA\nBOB\n");
    let action = last_permitted(&world);

    // Somebody corrects a row meanwhile: that is kept, and said.
    sqlite(&world, "UPDATE users SET name = 'Bobby' WHERE id = 2");
    let look = world.run(&["revert", &action, "--dry-run"]);
    assert_eq!(look.status.code(), Some(5), "{}", text(&look.stdout));
    assert!(text(&look.stdout).contains("keep"), "{}", text(&look.stdout));
    let run = world.run(&["revert", &action, "--because", "wrong rows"]);
    let told = text(&run.stdout);
    assert_eq!(run.status.code(), Some(5), "{told}{}", text(&run.stderr));
    assert!(told.contains("partly") && told.contains("kept"), "{told}");
    assert_eq!(sqlite(&world, "SELECT name FROM users"), "ada\nBobby\ncleo\n");
    // A revert is not taken back: that would make the change again, and nobody would see it.
    let revert = last_permitted(&world);
    assert_ne!(revert, action);
    for words in [&["revert", &revert, "--dry-run"][..], &["revert", &revert, "--because", "oops"]]
    {
        let run = world.run(words);
        let told = text(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{told}{}", text(&run.stdout));
        assert!(told.contains(&format!("is a revert itself, of {action}")), "{told}");
        assert!(told.contains("have the call made again instead"), "{told}");
    }
    assert_eq!(sqlite(&world, "SELECT name FROM users"), "ada\nBobby\ncleo\n");
    // The second time changes nothing.
    let again = world.run(&["revert", &action, "--because", "once more"]);
    assert!(text(&again.stdout).contains("partly"), "{}", text(&again.stdout));
    sqlite(&world, "UPDATE users SET name = 'bob' WHERE id = 2");
    let now = world.must(&["revert", &action, "--because", "all is as it was"]);
    assert!(now.contains("unchanged"), "{now}");
    assert_eq!(sqlite(&world, "SELECT * FROM users"), before);
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
    let log = world.must(&["log", "--kind", "reverted"]);
    assert!(log.contains("wrong rows"), "{log}");
}

#[test]
fn why_tells_the_whole_story_and_status_what_waits_for_people() {
    let world = world("approve-writes", ORDERS);
    sqlite(&world, "CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'a')");
    let key = world.key("coder");
    let serve = world.serve();
    let sql = "UPDATE t SET v = 'secret-b' WHERE id = 1";
    let id = held(&execute(&serve, &key, sql));
    let status = world.must(&["status"]);
    assert!(status.contains("1 call, the oldest"), "{status}");
    assert!(status.contains("holdpoint approvals"), "{status}");
    let why = world.must(&["why", &id]);
    assert!(why.contains("exactly: make 0, change 1, delete 0"), "{why}");
    assert!(why.contains(&format!("{id}, waits")) && why.contains("missing"), "{why}");
    world.must(&["approve", &id, "--because", "seen it"]);
    assert_eq!(world.json(&["status"])["approvals"]["given"], 1);
    assert_eq!(reason(&execute(&serve, &key, sql)), "answered");
    let action = last_permitted(&world);
    for one in [&id, &action] {
        let why = world.must(&["why", one]);
        assert!(why.contains(&format!("{id}, used")) && why.contains("seen it"), "{why}");
        assert_eq!(world.json(&["why", one])["approval"]["used_by"], json!(action));
    }

    // Nobody can read the target: that is stuck, and shown until it is not.
    let database = world.path().join("orders.db");
    let sound = std::fs::read(&database).unwrap();
    std::fs::write(&database, [b'x'; 4096]).unwrap();
    let run = world.run(&["revert", &action, "--because", "wrong row"]);
    assert_eq!(run.status.code(), Some(5), "{}{}", text(&run.stdout), text(&run.stderr));
    let status = world.must(&["status"]);
    assert!(status.contains(&format!("stuck revert of {action}")), "{status}");
    assert!(status.contains(&format!("holdpoint why {action}")), "{status}");
    assert!(world.must(&["why", &action]).contains("stuck"));
    std::fs::write(&database, sound).unwrap();
    world.must(&["revert", &action, "--because", "the row again"]);
    let told = world.json(&["status"]);
    assert_eq!((&told["stuck_reverts"], &told["approvals"]["waiting"]), (&json!([]), &json!(0)));
    let why = world.json(&["why", &action]);
    let became: Vec<_> =
        why["reverts"].as_array().unwrap().iter().map(|one| &one["status"]).collect();
    assert_eq!(became, ["stuck", "restored"]);
    let back = why["reverts"][1]["action"].as_str().unwrap();
    let of = world.json(&["why", back])["takes_back"].take();
    assert_eq!((&of["of"], &of["became"]["because"]), (&json!(action), &json!("the row again")));

    let grant = ["grant", "coder", "--class", "write", "--tools", "orders__*"];
    world.must(&[&grant[..], &["--for", "1h", "--because", "tonight"]].concat());
    assert!(world.must(&["status"]).contains("coder write orders__*  until"));
    serve.end();
    world.must(&["verify"]);
}

#[test]
fn unapproved_changes_are_made_in_the_transaction_that_was_seen() {
    let world = world("auto", ORDERS);
    sqlite(&world, "CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'a')");
    let key = world.key("coder");
    let serve = world.serve();
    let done = execute(&serve, &key, "UPDATE t SET v = 'b' WHERE id = 1");
    assert_eq!(reason(&done), "answered", "{done}");
    // What would fail is told before, and nothing is held open.
    assert_eq!(reason(&execute(&serve, &key, "INSERT INTO t VALUES (1, 'x')")), "target_refuses");
    assert_eq!(
        reason(&execute(&serve, &key, "UPDATE nothing SET v = 1 WHERE id = 1")),
        "target_refuses"
    );
    sqlite(&world, "INSERT INTO t VALUES (2, 'human')");
    let records = world.records();
    let decision = records.iter().find(|one| one["facts"]["preview"].is_object()).unwrap();
    assert_eq!(decision["facts"]["preview"]["counts"]["updated"], 1, "{decision}");
    let back = world.must(&["revert", &last_permitted(&world), "--because", "undo it"]);
    assert!(back.contains("restored"), "{back}");
    assert_eq!(sqlite(&world, "SELECT v FROM t"), "a\nhuman\n");
    // What takes actions back lies sealed.
    for file in std::fs::read_dir(world.store().join("archive")).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!text(&bytes).contains("human"), "a value lies in plain text");
    }
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[test]
fn an_agent_that_may_only_plan_sees_what_would_happen() {
    let world = world("plan-only", ORDERS);
    sqlite(&world, "CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'a')");
    let key = world.key("coder");
    let serve = world.serve();
    let told = execute(&serve, &key, "UPDATE t SET v = 'b' WHERE id = 1");
    assert_eq!(reason(&told), "agent_plan_only");
    let words = told["result"]["content"][0]["text"].as_str().unwrap();
    assert!(words.contains("change 1"), "{words}");
    assert_eq!(sqlite(&world, "SELECT v FROM t"), "a\n");
    serve.end();
}

/// A repository `repo` with one commit of one file.
fn repository(world: &World) -> PathBuf {
    let repo = world.path().join("repo");
    std::fs::create_dir(&repo).unwrap();
    must("git", &["init", "-q", "-b", "main"], &repo);
    std::fs::write(repo.join("a.txt"), "one\n").unwrap();
    must("git", &["add", "."], &repo);
    let who = ["-c", "user.name=ada", "-c", "user.email=ada@x.test"];
    must("git", &[&who[..], &["commit", "-qm", "first"]].concat(), &repo);
    repo
}

#[test]
fn a_commit_is_seen_approved_made_and_taken_back() {
    let world = world(
        "approve-writes",
        "[server.repo]\nenvironment = \"dev\"\nserves = { git = \"repo\" }\n",
    );
    let repo = repository(&world);
    let first = must("git", &["rev-parse", "main"], &repo);
    std::fs::write(repo.join("a.txt"), "two\n").unwrap();
    let key = world.key("coder");
    let serve = world.serve();
    let commit = || {
        let arguments = json!({ "message": "second", "paths": ["a.txt"] });
        post(&serve, ("/repo", &key), &call(1, "git_commit", arguments)).body
    };
    let id = held(&commit());
    assert!(world.must(&["approvals", &id]).contains("two"));
    world.must(&["approve", &id, "--because", "fine"]);
    let done = commit();
    assert_eq!(reason(&done), "answered", "{done}");
    assert_ne!(must("git", &["rev-parse", "main"], &repo), first);
    // What never ran, and a revert, are not the last thing that changed something.
    let wrong = post(&serve, ("/repo", &key), &call(2, "git_commit", json!({ "paths": 1 }))).body;
    assert_ne!(reason(&wrong), "answered", "{wrong}");
    let back = world.must(&["revert", "last", "--because", "not now"]);
    assert!(back.contains("restored"), "{back}");
    let again = world.must(&["revert", "last", "--because", "not now"]);
    assert!(again.contains("unchanged"), "{again}");
    assert_eq!(must("git", &["rev-parse", "main"], &repo), first);
    let again = world.must(&["revert", &last_of(&world, "git_commit"), "--because", "again"]);
    assert!(again.contains("unchanged"), "{again}");
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

/// The last permitted action of a tool.
fn last_of(world: &World, tool: &str) -> String {
    let log = world.json(&["log", "--kind", "decision", "--decision", "permit"]);
    let records = log["records"].as_array().unwrap();
    let mine = records.iter().rfind(|one| one["request"]["tool"].as_str().unwrap().ends_with(tool));
    mine.unwrap()["action"].as_str().unwrap().to_owned()
}

#[test]
fn rows_of_postgres_are_seen_approved_changed_and_taken_back() {
    let postgres = Postgres::start();
    postgres.run(
        "CREATE TABLE customers (id int PRIMARY KEY, name text, total numeric DEFAULT 0);
         CREATE TABLE orders (id int PRIMARY KEY,
             customer int REFERENCES customers ON DELETE CASCADE, amount numeric,
             doubled numeric GENERATED ALWAYS AS (amount * 2) STORED);
         INSERT INTO customers VALUES (1, 'ada'), (2, 'bob');
         INSERT INTO orders VALUES (10, 1, 5.50), (11, 1, 7), (12, 2, 9)",
    );
    let servers = "[server.orders]\nenvironment = \"dev\"\n\
                   serves = { postgres = { from_file = \"orders.url\" } }\n";
    let world = world("approve-writes", servers);
    let url = format!("postgresql://shop@/shop?host={}", postgres.host());
    std::fs::write(world.path().join("orders.url"), url).unwrap();
    let key = world.key("coder");
    let serve = world.serve();
    let sql = "DELETE FROM customers WHERE id = 1";
    let asked = execute(&serve, &key, sql);
    let id = held(&asked);
    let preview = &asked["result"]["_meta"]["io.holdpoint/decision"]["held"]["preview"];
    assert_eq!(preview["counts"]["deleted"], 3, "the cascade counts: {asked}");
    assert_eq!(postgres.ask("SELECT count(*) FROM orders"), "3");
    assert!(world.must(&["approvals", &id]).contains("5.50"));
    world.must(&["approve", &id, "--because", "fine"]);
    // One byte of a row that the cascade takes along: what was approved would not happen.
    postgres.run("UPDATE orders SET amount = 5.51 WHERE id = 10");
    assert_ne!(held(&execute(&serve, &key, sql)), id);
    postgres.run("UPDATE orders SET amount = 5.50 WHERE id = 10");
    let done = execute(&serve, &key, sql);
    assert_eq!(reason(&done), "answered", "{done}");
    assert_eq!(postgres.ask("SELECT count(*) FROM orders"), "1");
    let back = world.must(&["revert", &last_permitted(&world), "--because", "wrong customer"]);
    assert!(back.contains("restored"), "{back}");
    assert_eq!(
        postgres.ask(
            "SELECT string_agg(concat_ws(':', id, amount, doubled), ' ' ORDER BY id) FROM orders"
        ),
        "10:5.50:11.00 11:7:14 12:9:18",
    );
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[test]
fn a_revert_says_which_secrets_it_lacks_and_needs_no_others() {
    let servers = "[server.repo]\nenvironment = \"dev\"\nserves = { git = \"repo\" }\n\
                   env = { REPO_TOKEN = { from_env = \"REPO_TOKEN\" }, \
                   REPO_CODE = { from_env = \"REPO_CODE\" } }\n\
                   [server.other]\nenvironment = \"dev\"\ncommand = [\"node\", \"${peer}\"]\n\
                   env = { OTHER_TOKEN = { from_env = \"OTHER_TOKEN\" } }\n";
    let world = world("auto", servers);
    let repo = repository(&world);
    let key = world.key("coder");
    let given = |mut command: Command, names: &[&str]| {
        command.envs(names.iter().map(|name| (*name, "a-secret-text")));
        command
    };
    let serve = world.command(&["serve", "--format", "json"]);
    let serve = world.serve_by(given(serve, &["REPO_TOKEN", "REPO_CODE", "OTHER_TOKEN"]));
    std::fs::write(repo.join("a.txt"), "other\n").unwrap();
    let commit = call(1, "git_commit", json!({ "message": "other", "paths": ["a.txt"] }));
    let done = post(&serve, ("/repo", &key), &commit).body;
    assert_eq!(reason(&done), "answered", "{done}");
    let action = last_permitted(&world);
    let revert = ["revert", &action, "--because", "not that"];

    let run = world.run(&revert);
    let told = text(&run.stderr);
    assert_eq!(run.status.code(), Some(2), "{told}");
    for name in ["REPO_TOKEN", "REPO_CODE"] {
        assert!(told.contains(&format!("server `repo`: the environment variable `{name}`")));
    }
    assert!(told.contains("set the variables for this command"), "{told}");
    assert!(!told.contains("OTHER_TOKEN"), "it is not needed: {told}");
    let mut command = given(world.command(&revert), &["REPO_TOKEN", "REPO_CODE"]);
    let run = command.output().unwrap();
    assert_eq!(run.status.code(), Some(0), "{}{}", text(&run.stdout), text(&run.stderr));
    serve.end();
    world.must(&["verify"]);
}

#[test]
fn files_of_a_server_are_seen_approved_written_and_put_back() {
    let world = World::new(
        r#"
[listen]
http = "127.0.0.1:0"

[team.platform]
on_call = "platform on-call"

[agent.coder]
owner = "platform"
mode = "approve-writes"
grants = [
  { class = "read", tools = ["*"] },
  { class = "write", tools = ["*"] },
  { class = "destructive", tools = ["orders__write_file", "orders__edit_file"] },
]

[server.orders]
command = ["node", "${npm:filesystem}", "${files}"]
environment = "dev"
read = ["read_*", "list_*"]
undo = { files = ["${files}"] }
tool.write_file.effects = [
  { family = "file", act = "write", path = "/path", contents = "/content" },
]
tool.edit_file.effects = [
  { family = "file", act = "edit", path = "/path", contents = "/edits" },
]
"#,
    );
    let file = world.files().join("notes.txt");
    std::fs::write(&file, "one\ntwo\nthree\n").unwrap();
    let key = world.key("coder");
    let serve = world.serve();
    let write = |content: &str| {
        let arguments = json!({ "path": file, "content": content });
        post(&serve, ("/orders", &key), &call(1, "write_file", arguments)).body
    };
    let asked = write("one\n2\nthree\n");
    let id = held(&asked);
    let shown = world.must(&["approvals", &id]);
    assert!(shown.contains("-two") && shown.contains("+2"), "{shown}");
    world.must(&["approve", &id, "--because", "fine"]);
    // One byte of the file.
    std::fs::write(&file, "one\ntwo\nthreE\n").unwrap();
    assert_ne!(held(&write("one\n2\nthree\n")), id);
    std::fs::write(&file, "one\ntwo\nthree\n").unwrap();
    let done = write("one\n2\nthree\n");
    assert_eq!(reason(&done), "answered", "{done}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one\n2\nthree\n");
    let action = last_of(&world, "write_file");
    let back = world.must(&["revert", &action, "--because", "not so"]);
    assert!(back.contains("restored"), "{back}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one\ntwo\nthree\n");
    // What somebody wrote meanwhile is kept.
    std::fs::write(&file, "mine\n").unwrap();
    let run = world.run(&["revert", &action, "--because", "again"]);
    assert_eq!(run.status.code(), Some(5), "{}", text(&run.stdout));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine\n");
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[test]
fn a_terraform_plan_is_seen_approved_applied_and_taken_back() {
    let there = Command::new("terraform").arg("version").output();
    if there.is_err() {
        // CI has no way to install it.
        left_out("a plan of Terraform: there is no `terraform`");
        return;
    }
    let servers = "[server.infra]\nenvironment = \"dev\"\nserves = { terraform = \"infra\" }\n";
    let world = world("approve-writes", servers);
    let config = std::fs::read_to_string(world.path().join("holdpoint.toml")).unwrap();
    world.write_config(&config.replace("tools = []", "tools = [\"infra__terraform_apply\"]"));
    let infra = world.path().join("infra");
    std::fs::create_dir(&infra).unwrap();
    let module = |value: &str| {
        let text = format!("resource \"terraform_data\" \"a\" {{\n  input = \"{value}\"\n}}\n");
        std::fs::write(infra.join("main.tf"), text).unwrap();
    };
    module("one");
    must("terraform", &["init", "-input=false"], &infra);
    let key = world.key("coder");
    let serve = world.serve();
    let run = |tool: &str, arguments: Value| {
        post(&serve, ("/infra", &key), &call(1, tool, arguments)).body
    };
    let state = || must("terraform", &["show", "-no-color"], &infra);
    let apply = |value: &str| {
        module(value);
        let planned = run("terraform_plan", json!({}));
        let plan = planned["result"]["structuredContent"]["plan"].clone();
        assert!(plan.as_str().unwrap().starts_with("sha256:"), "{planned}");
        let id = held(&run("terraform_apply", json!({ "plan": plan })));
        assert!(world.must(&["approvals", &id]).contains(value));
        world.must(&["approve", &id, "--because", "fine"]);
        let done = run("terraform_apply", json!({ "plan": plan }));
        assert_eq!(reason(&done), "answered", "{done}");
    };
    apply("one");
    apply("two");
    assert!(state().contains("\"two\""), "{}", state());
    let back = world.must(&["revert", &last_of(&world, "terraform_apply"), "--because", "no"]);
    assert!(back.contains("restored"), "{back}");
    assert!(state().contains("\"one\""), "{}", state());
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[test]
fn an_operator_takes_back_what_happened_in_prod_and_while_the_agent_is_stopped() {
    let prod = "[server.orders]\nserves = { sqlite = \"orders.db\" }\n\
                [operator.ada]\nuser = \"root\"\nteams = [\"platform\"]\n";
    let world = world("auto", prod);
    let config = std::fs::read_to_string(world.path().join("holdpoint.toml")).unwrap();
    let me = text(&Command::new("id").arg("-un").output().unwrap().stdout);
    world.write_config(&config.replace("\"root\"", &format!("\"{}\"", me.trim())));
    sqlite(&world, "CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'a')");
    let key = world.key("coder");
    let serve = world.serve();
    let sql = "UPDATE t SET v = 'b' WHERE id = 1";
    let asked = execute(&serve, &key, sql);
    let held = &asked["result"]["_meta"]["io.holdpoint/decision"]["held"]["id"];
    world.must(&["approve", held.as_str().unwrap(), "--because", "fine"]);
    assert_eq!(reason(&execute(&serve, &key, sql)), "answered");
    let action = last_permitted(&world);
    world.must(&["stop", "--agent", "coder", "--reason", "look first"]);
    let back = world.must(&["revert", &action, "--because", "wrong"]);
    assert!(back.contains("restored"), "{back}");
    assert_eq!(sqlite(&world, "SELECT v FROM t"), "a\n");
    // A stop on everything is one on reverts, too.
    world.must(&["stop", "--all", "--reason", "nothing moves"]);
    sqlite(&world, "UPDATE t SET v = 'b'");
    let run = world.run(&["revert", &action, "--because", "again"]);
    assert_eq!(run.status.code(), Some(3), "{}", text(&run.stdout));
    assert_eq!(sqlite(&world, "SELECT v FROM t"), "b\n");
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[test]
fn a_revert_waits_for_somebody_else_where_a_policy_wants_that() {
    let folder = "[policies]\npath = \"policies\"\n\
                  [operator.ada]\nuser = \"root\"\nteams = [\"platform\"]\n\
                  [operator.bob]\nkey = { from_file = \"bob.key\" }\nteams = [\"platform\"]\n";
    let world = world("auto", &format!("{ORDERS}{folder}"));
    let config = std::fs::read_to_string(world.path().join("holdpoint.toml")).unwrap();
    let me = text(&Command::new("id").arg("-un").output().unwrap().stdout);
    world.write_config(&config.replace("\"root\"", &format!("\"{}\"", me.trim())));
    let bob = "bob's key of at least thirty-two characters";
    std::fs::write(world.path().join("bob.key"), bob).unwrap();
    let starter = include_str!("../../../../policies/starter.cedar");
    let two = "@id(\"two-take-back\")\n@reason(\"Two take back.\")\n@hold(\"owner\")\n\
               permit (principal, action, resource) when { context.door == \"operator\" };\n";
    std::fs::create_dir(world.path().join("policies")).unwrap();
    std::fs::write(world.path().join("policies/all.cedar"), format!("{starter}\n{two}")).unwrap();
    sqlite(&world, "CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'a')");
    let key = world.key("coder");
    let serve = world.serve();
    assert_eq!(reason(&execute(&serve, &key, "UPDATE t SET v = 'b' WHERE id = 1")), "answered");
    let action = last_permitted(&world);
    let run = world.run(&["--format", "json", "revert", &action, "--because", "wrong"]);
    assert_eq!(run.status.code(), Some(4), "{}", text(&run.stdout));
    let told: Value = serde_json::from_slice(&run.stdout).unwrap();
    let id = told["reverts"][0]["refused"]["held"]["id"].as_str().unwrap();
    // Who asks does not approve.
    let own = world.run(&["approve", id, "--because", "my own"]);
    assert_ne!(own.status.code(), Some(0), "{}", text(&own.stdout));
    let head = [format!("Authorization: Bearer {bob}"), "Content-Type: application/json".into()];
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let body = json!({ "answer": "yes", "because": "right" }).to_string();
    let what = format!("POST /api/v1/approvals/{id}");
    assert_eq!(exchange(&serve, &what, &head, body.as_bytes()).status, 200);
    let back = world.must(&["revert", &action, "--because", "wrong"]);
    assert!(back.contains("restored"), "{back}");
    assert_eq!(sqlite(&world, "SELECT v FROM t"), "a\n");
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[test]
fn a_held_call_is_not_taken_back_and_leads_to_what_ran_after_its_approval() {
    let world = world("approve-writes", ORDERS);
    sqlite(&world, "CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'a')");
    let key = world.key("coder");
    let serve = world.serve();
    let change = || execute(&serve, &key, "UPDATE t SET v = 'b' WHERE id = 1");
    let id = held(&change());
    let refused = || {
        let run = world.run(&["revert", &id, "--because", "wrong"]);
        assert_eq!(run.status.code(), Some(2), "{}", text(&run.stdout));
        text(&run.stderr)
    };
    let list = text(&world.run(&["approvals"]).stdout);
    assert!(list.contains("would do exactly: make 0, change 1, delete 0"), "{list}");
    assert!(refused().contains("never ran (hold)"), "{}", refused());
    // What somebody can do is told as long as somebody can.
    let can = || world.must(&["why", &id]).contains("you can");
    assert!(can());
    world.must(&["approve", &id, "--because", "fine"]);
    assert_eq!(reason(&change()), "answered");
    assert!(!can());
    let action = last_permitted(&world);
    assert!(refused().contains(&format!("{action}: revert that")), "{}", refused());
    assert!(world.must(&["revert", &action, "--because", "wrong"]).contains("restored"));
    serve.end();
}

#[test]
fn an_operator_sees_over_http_what_a_held_call_would_do() {
    let bob = "bob's key of at least thirty-two characters";
    let people = "[operator.bob]\nkey = { from_file = \"bob.key\" }\nteams = [\"platform\"]\n";
    let world = world("approve-writes", &format!("{ORDERS}{people}"));
    std::fs::write(world.path().join("bob.key"), bob).unwrap();
    sqlite(
        &world,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v, password);
         INSERT INTO t VALUES (1, 'a', 'hunter2')",
    );
    let key = world.key("coder");
    let serve = world.serve();
    let id = held(&execute(&serve, &key, "DELETE FROM t WHERE id = 1"));
    let see = |id: &str, key: &str| {
        let head = format!("Authorization: Bearer {key}");
        exchange(&serve, &format!("GET /api/v1/approvals/{id}"), &[&head], b"")
    };
    let seen = see(&id, bob);
    assert_eq!((seen.status, &seen.body), (200, &world.json(&["approvals", &id])));
    let change = &seen.body["preview"]["changes"][0];
    assert_eq!(change["before"]["v"], "a", "{change}");
    assert!(!seen.body.to_string().contains("hunter2"), "a secret shows: {}", seen.body);
    assert_eq!(see(&id, &key).status, 401);
    assert_eq!(see("01a21990", bob).status, 400);
    assert_eq!(see("01a21990-95f4-7571-81ee-c6980006268e", bob).status, 404);
    serve.end();
}

#[test]
fn a_kill_at_any_moment_leaves_a_state_that_is_known() {
    let world = world("approve-writes", ORDERS);
    sqlite(&world, "CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 0)");
    let key = world.key("coder");
    let (mut before, mut after) = (0, 0);
    for round in 1..=12_u64 {
        let serve = world.serve();
        let sql = format!("UPDATE t SET v = {round} WHERE id = 1");
        let id = held(&execute(&serve, &key, &sql));
        world.must(&["approve", &id, "--because", "go on"]);
        let was = sqlite(&world, "SELECT v FROM t");
        let call = call(1, "sql_execute", json!({ "sql": sql }));
        std::thread::scope(|scope| {
            let calling = scope.spawn(|| crate::raw::try_post(&serve, ("/orders", &key), &call));
            // Every round a little later: before the preview, in it, before the commit, after it.
            std::thread::sleep(std::time::Duration::from_millis(round * 2));
            serve.kill_now();
            let _ = calling.join();
        });
        drop(serve);
        let now = sqlite(&world, "SELECT v FROM t");
        match now == format!("{round}\n") {
            true => after += 1,
            false => {
                assert_eq!(now, was, "neither before nor after");
                before += 1;
            }
        }
        let log = world.records();
        let permitted = log.iter().rfind(|one| {
            let of = one["facts"]["approval"]["id"] == json!(id);
            one["kind"] == "decision" && of
        });
        // What happened has its record; what has no record did not happen.
        assert!(permitted.is_some() || now == was, "round {round}: an effect without its record");
        if let Some(permitted) = permitted.filter(|_| now != was) {
            let action = permitted["action"].as_str().unwrap();
            let back = world.must(&["revert", action, "--because", "after the kill"]);
            assert!(back.contains("restored"), "round {round}: {back}");
            assert_eq!(sqlite(&world, "SELECT v FROM t"), was, "round {round}");
        }
        // A yes that was used is used, one that was not can be used.
        let serve = world.serve();
        let again = execute(&serve, &key, &sql);
        match permitted {
            Some(_) => assert_ne!(held(&again), id),
            None => assert_eq!(reason(&again), "answered", "{again}"),
        }
        serve.end();
        world.must(&["verify"]);
    }
    assert!(before > 0 || after > 0);
    world.must(&["replay"]);
}
