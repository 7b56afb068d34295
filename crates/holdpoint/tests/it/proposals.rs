//! What people approve again and again becomes a rule that is proposed, tried and never applied by
//! itself; with the rule in place, such calls need nobody, and larger ones still do.

use crate::raw::reason;
use crate::undo::{execute, held, sqlite, world};
use crate::world::{Serve, World, until};
use serde_json::{Value, json};

const PROD: &str = r#"
[server.orders]
environment = "prod"
serves = { sqlite = "orders.db" }

[policies]
path = "policies"
"#;

/// A served database of a hundred rows in `prod`, with the starter pack to be changed.
fn prod(mode: &str) -> (World, String) {
    let world = world(mode, PROD);
    let policies = world.path().join("policies");
    std::fs::create_dir(&policies).unwrap();
    let starter = include_str!("../../../../policies/starter.cedar");
    std::fs::write(policies.join("starter.cedar"), starter).unwrap();
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)";
    sqlite(
        &world,
        &format!(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, v INT); {rows} INSERT INTO t SELECT i, 0 FROM n"
        ),
    );
    let key = world.key("coder");
    (world, key)
}

/// Changes one row and deletes the first `deleted` that there are.
fn tidy(deleted: u32) -> String {
    format!(
        "UPDATE t SET v = v + 1 WHERE id = 100; \
         DELETE FROM t WHERE id IN (SELECT id FROM t WHERE id < 100 ORDER BY id LIMIT {deleted})"
    )
}

/// Has one such call approved and makes it; gives what `approve` printed.
fn approved(world: &World, (serve, key): (&Serve, &str), sql: &str) -> String {
    let id = held(&execute(serve, key, sql));
    let told = world.must(&["approve", &id, "--because", "seen it"]);
    let answer = execute(serve, key, sql);
    assert_eq!(reason(&answer), "answered", "{answer}");
    settled(world);
    told
}

/// Waits for the outcomes of what ran: they are recorded after the agent has its answer.
fn settled(world: &World) {
    let many = |kind: &[&str]| {
        let all = world.json(&[&["log", "--limit", "1000", "--kind"], kind].concat());
        all["records"].as_array().unwrap().len()
    };
    until("every outcome is recorded", || {
        (many(&["outcome"]) >= many(&["decision", "--decision", "permit"])).then_some(())
    });
}

fn proposals(world: &World) -> Vec<Value> {
    settled(world);
    world.json(&["approvals", "--propose"])["proposals"].as_array().unwrap().clone()
}

/// Why classes are left out, each with how many of its calls were approved.
fn left_out(world: &World) -> Vec<(String, u64)> {
    settled(world);
    let told = world.json(&["approvals", "--propose"]);
    let one =
        |one: &Value| (one["why"].as_str().unwrap().to_owned(), one["approved"].as_u64().unwrap());
    let mut all: Vec<_> = told["left_out"].as_array().unwrap().iter().map(one).collect();
    all.sort();
    all
}

/// The starter pack as a proposal says.
fn with(world: &World, proposal: &Value) {
    let file = world.path().join("policies/starter.cedar");
    let mut text = std::fs::read_to_string(&file).unwrap();
    for rule in proposal["instead"].as_array().unwrap() {
        let head = format!("@id(\"{}\")", rule["id"].as_str().unwrap());
        let from = text.find(&head).unwrap();
        let end = from + text[from..].find(';').unwrap() + 1;
        text.replace_range(from..end, rule["text"].as_str().unwrap());
    }
    text.push_str(&format!("\n{}\n", proposal["rule"]["text"].as_str().unwrap()));
    std::fs::write(&file, text).unwrap();
}

#[test]
fn three_approvals_of_a_class_propose_a_rule_that_works_and_lets_nothing_larger_pass() {
    let (world, key) = prod("auto");
    let serve = world.serve();
    let place = (&serve, key.as_str());
    for deleted in [2, 3] {
        let told = approved(&world, place, &tidy(deleted));
        assert!(!told.contains("--propose"), "{told}");
    }
    assert_eq!(proposals(&world), Vec::<Value>::new());
    let none = world.must(&["approvals", "--propose"]);
    assert!(none.contains("no class of calls"), "{none}");
    assert!(none.contains("2 approved calls: 3 are needed, of the last 30 days"), "{none}");
    // The same tool, and another thing.
    approved(&world, place, "INSERT INTO t VALUES (1000, 1)");
    assert_eq!(proposals(&world), Vec::<Value>::new());

    let id = held(&execute(&serve, &key, &tidy(1)));
    let told = world.must(&["approve", &id, "--because", "seen it"]);
    assert!(told.contains("approved 3 times in 30 days"), "{told}");
    assert_eq!(proposals(&world), Vec::<Value>::new(), "it has not run");
    let expected = [("too_few".to_owned(), 1), ("too_few_ran".to_owned(), 3)];
    assert_eq!(left_out(&world), expected);
    assert_eq!(reason(&execute(&serve, &key, &tidy(1))), "answered");
    let all = proposals(&world);
    let [one] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!(one["changes_max"], json!({ "created": 0, "updated": 1, "deleted": 3 }), "{one}");
    assert_eq!(one["held_by"], json!(["prod-environment-holds"]));
    assert_eq!(one["effects"].as_array().unwrap().len(), 3, "{one}");
    let approvals = one["approvals"].as_array().unwrap();
    assert_eq!((approvals.len(), &approvals[2]["id"]), (3, &json!(id)));
    assert_eq!(approvals[0]["said"][0]["because"], "seen it");
    let shown = world.must(&["approvals", "--propose"]);
    for part in ["3 approved calls", &id, "context.deleted <= 3", "nothing was changed"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(sqlite(&world, "SELECT count(*) FROM t"), "95\n");

    // Nothing is applied by itself.
    let again = held(&execute(&serve, &key, &tidy(2)));
    world.must(&["approvals", &again]);
    with(&world, one);
    world.must(&["check"]);
    let loaded =
        || world.json(&["log", "--kind", "policy_loaded"])["records"].as_array()?.get(1).cloned();
    until("the policy is loaded", loaded);
    let answer = execute(&serve, &key, &tidy(3));
    assert_eq!(reason(&answer), "answered", "{answer}");
    assert_eq!(sqlite(&world, "SELECT count(*) FROM t"), "92\n");
    held(&execute(&serve, &key, &tidy(4)));
    held(&execute(&serve, &key, "UPDATE t SET v = 9 WHERE id > 98 AND id < 1000"));
    held(&execute(&serve, &key, "INSERT INTO t VALUES (1001, 1)"));
    assert_eq!(proposals(&world), Vec::<Value>::new(), "it is permitted already");
    assert_eq!(left_out(&world), [("permitted".to_owned(), 3), ("too_few".to_owned(), 1)]);
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[test]
fn a_no_or_a_revert_in_a_class_keeps_it_from_being_proposed() {
    let (world, key) = prod("auto");
    let serve = world.serve();
    let place = (&serve, key.as_str());
    for _ in 0..3 {
        approved(&world, place, &tidy(1));
        approved(&world, place, "UPDATE t SET v = v + 1 WHERE id = 99");
    }
    assert_eq!(proposals(&world).len(), 2);
    let id = held(&execute(&serve, &key, &tidy(40)));
    world.must(&["deny", &id, "--because", "too many"]);
    let left = proposals(&world);
    assert_eq!((left.len(), &left[0]["changes_max"]["deleted"]), (1, &json!(0)), "{left:?}");
    assert_eq!(left_out(&world), [("said_no".to_owned(), 3)]);
    let told = approved(&world, place, &tidy(1));
    assert!(!told.contains("--propose"), "{told}");
    let action = left[0]["approvals"][2]["action"].as_str().unwrap();
    world.must(&["revert", action, "--because", "it was wrong"]);
    assert_eq!(proposals(&world), Vec::<Value>::new());
    assert_eq!(left_out(&world), [("said_no".to_owned(), 4), ("taken_back".to_owned(), 3)]);
    serve.end();
}

#[test]
fn what_no_rule_can_let_pass_is_said_so() {
    let (world, key) = prod("approve-writes");
    let serve = world.serve();
    for _ in 0..3 {
        let told = approved(&world, (&serve, &key), &tidy(1));
        assert!(!told.contains("--propose"), "{told}");
    }
    let all = proposals(&world);
    assert_eq!((all.len(), &all[0]["rule"]), (1, &Value::Null), "{all:?}");
    let why = all[0]["impossible"][0].as_str().unwrap();
    assert!(why.contains("agent_approve_writes"), "{why}");
    let shown = world.must(&["approvals", "--propose"]);
    assert!(shown.contains("no rule") && !shown.contains("nothing was changed"), "{shown}");
    serve.end();
    // What holds now counts, not what held then.
    let file = world.path().join("holdpoint.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    world.write_config(&config.replace("mode = \"approve-writes\"", "mode = \"auto\""));
    let all = proposals(&world);
    assert_eq!((all.len(), &all[0]["impossible"]), (1, &Value::Null), "{all:?}");
    assert!(all[0]["rule"]["text"].as_str().unwrap().contains("context.deleted <= 1"));
    world.write_config(&config.replace("[agent.coder]", "[agent.other]"));
    assert_eq!(proposals(&world), Vec::<Value>::new());
    assert_eq!(left_out(&world), [("no_agent".to_owned(), 3)]);
}
