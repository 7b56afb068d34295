//! Change freezes: what recurs is in force when it should be, and an exception is for one call and
//! needs two people.

use crate::raw::{Pipe, call, exchange, post, reason};
use crate::world::{PEER, Serve, World, until};
use serde_json::{Value, json};

const ADA: &str = "ada's key of at least thirty-two characters";
const BOB: &str = "bob's key of at least thirty-two characters";

/// A freeze that is in force at any time of any week.
const ALWAYS: &str = r#"
[[freeze]]
name = "always"
every = ["mon 00:00 - sun 23:59", "sun 23:00 - mon 01:00"]
time_zone = "America/New_York"
"#;

const PEOPLE: &str = r#"
[operator.ada]
key = { from_file = "ada.key" }
teams = ["platform"]

[operator.bob]
key = { from_file = "bob.key" }
roles = ["release"]

[approval.freeze-exception]
count = 2
roles = ["owner", "release"]
"#;

fn world(more: &str) -> World {
    let world = World::new(&format!("{PEER}\n{PEOPLE}\n{more}"));
    for (name, key) in [("ada", ADA), ("bob", BOB)] {
        std::fs::write(world.path().join(format!("{name}.key")), key).unwrap();
    }
    world
}

fn say(serve: &Serve, key: &str, id: &str) -> Value {
    let head = [format!("Authorization: Bearer {key}"), "Content-Type: application/json".into()];
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let body = json!({ "answer": "yes", "because": "the release cannot wait" }).to_string();
    exchange(serve, &format!("POST /api/v1/approvals/{id}"), &head, body.as_bytes()).body
}

fn held(answer: &Value) -> String {
    let held = &answer["result"]["_meta"]["io.holdpoint/decision"]["held"];
    held["id"].as_str().unwrap_or_else(|| panic!("no approval in {answer}")).to_owned()
}

#[test]
fn a_recurring_freeze_forbids_changes() {
    let world = world(ALWAYS);
    let mut pipe = Pipe::wrap(&world);
    pipe.tell(&json!({ "jsonrpc": "2.0", "id": 0, "method": "tools/list" }));
    pipe.answer(0);
    let path = json!({ "path": world.files().join("made") });
    let told = pipe.call(1, "touch", path.clone());
    assert!(reason(&told).contains("policy_forbids"), "{told}");
    let file = world.files().join("made");
    assert!(!file.exists());
    assert!(world.must(&["status"]).contains("freeze always  in force"), "no freeze in the status");
    pipe.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[test]
fn a_freeze_lets_a_single_call_through_that_two_people_except() {
    let world = world(&format!("{ALWAYS}exception = \"freeze-exception\"\n"));
    let key = world.key("coder");
    let serve = world.serve();
    let touch = |id: u64| {
        let arguments = json!({ "path": world.files().join("made") });
        post(&serve, ("/peer", &key), &call(id, "touch", arguments)).body
    };
    let first = touch(1);
    assert_eq!(reason(&first), "freeze_holds", "{first}");
    let id = held(&first);
    let one = say(&serve, ADA, &id);
    assert_eq!((&one["state"], &one["needs"]), (&json!("waits"), &json!({"freeze-exception": 2})));
    // Who said yes is none of those who still could.
    assert_eq!(one["could_approve"], json!(["bob"]));
    assert_eq!(held(&touch(2)), id);
    assert!(!world.files().join("made").exists());
    assert_eq!(say(&serve, BOB, &id)["state"], "given");
    assert_eq!(reason(&touch(3)), "answered");
    assert!(world.files().join("made").exists());
    assert_ne!(held(&touch(4)), id);
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[test]
fn an_approval_from_before_a_freeze_is_no_exception() {
    let mode = PEER.replace("[agent.coder]\n", "[agent.coder]\nmode = \"approve-writes\"\n");
    let world = world("");
    world.write_config(&format!("{mode}\n{PEOPLE}"));
    let key = world.key("coder");
    let serve = world.serve();
    let touch = |id: u64| {
        let arguments = json!({ "path": world.files().join("made") });
        post(&serve, ("/peer", &key), &call(id, "touch", arguments)).body
    };
    let before = held(&touch(1));
    assert_eq!(say(&serve, ADA, &before)["state"], "given");
    world.write_config(&format!("{mode}\n{PEOPLE}\n{ALWAYS}exception = \"freeze-exception\"\n"));
    serve.signal(rustix::process::Signal::HUP);
    let loaded = || {
        world.json(&["log", "--kind", "settings_loaded"])["records"].as_array()?.first().cloned()
    };
    until("the settings are loaded", loaded);
    let during = held(&touch(2));
    assert_ne!(during, before);
    assert_eq!(say(&serve, ADA, &during)["needs"], json!({"freeze-exception": 2, "owner": 1}));
    assert_eq!(held(&touch(3)), during);
    assert!(!world.files().join("made").exists());
    say(&serve, BOB, &during);
    assert_eq!(reason(&touch(4)), "answered");
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}
