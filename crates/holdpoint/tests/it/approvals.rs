//! Held calls: asked for, decided by people, and made again. None of it makes anybody wait, and a
//! yes is for exactly one call, once.

use crate::raw::{Answer, Pipe, call, exchange, modern, modern_able, post, post_modern, reason};
use crate::world::{PEER, Serve, World, text, until};
use serde_json::{Value, json};

const ADA: &str = "ada's key of at least thirty-two characters";
const BOB: &str = "bob's key of at least thirty-two characters";
const CLEO: &str = "cleo's key of at least thirty-two characters";

/// A world whose `coder` has every write approved, and with these further tables.
fn world(more: &str) -> World {
    let config = PEER.replace("[agent.coder]\n", "[agent.coder]\nmode = \"approve-writes\"\n");
    World::new(&format!("{config}\n{more}\n"))
}

/// The same with operators: ada and bob are of the owning team, cleo is of none, and `coder` acts
/// for bob.
fn people(more: &str) -> World {
    let operators = r#"
[operator.ada]
key = { from_file = "ada.key" }
teams = ["platform"]
roles = ["dba"]

[operator.bob]
key = { from_file = "bob.key" }
teams = ["platform"]

[operator.cleo]
key = { from_file = "cleo.key" }
"#;
    let world = world(&format!("{operators}\n{more}"));
    for (name, key) in [("ada", ADA), ("bob", BOB), ("cleo", CLEO)] {
        std::fs::write(world.path().join(format!("{name}.key")), key).unwrap();
    }
    world
}

fn pipe(world: &World) -> Pipe {
    let mut pipe = Pipe::wrap(world);
    pipe.tell(&json!({ "jsonrpc": "2.0", "id": 0, "method": "tools/list" }));
    pipe.answer(0);
    pipe
}

fn path(world: &World, name: &str) -> Value {
    json!({ "path": world.files().join(name) })
}

/// Every approval that is listed.
fn listed(world: &World) -> Vec<Value> {
    let run = world.run(&["--format", "json", "approvals", "--all"]);
    let told: Value = serde_json::from_slice(&run.stdout).unwrap();
    told["approvals"].as_array().unwrap().clone()
}

/// The id of the approval that an answer names.
fn held(answer: &Value) -> String {
    assert!(reason(answer).contains("agent_approve_writes"), "{answer}");
    let held = &answer["result"]["_meta"]["io.holdpoint/decision"]["held"];
    held["id"].as_str().unwrap_or_else(|| panic!("no approval in {answer}")).to_owned()
}

/// What the API says to `body` about the approval.
fn say(serve: &Serve, key: &str, id: &str, answer: &str) -> Answer {
    say_because(serve, key, id, (answer, "looked at it"))
}

fn say_because(serve: &Serve, key: &str, id: &str, (answer, because): (&str, &str)) -> Answer {
    let head = [format!("Authorization: Bearer {key}"), "Content-Type: application/json".into()];
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let body = json!({ "answer": answer, "because": because }).to_string();
    exchange(serve, &format!("POST /api/v1/approvals/{id}"), &head, body.as_bytes())
}

#[test]
fn a_held_call_runs_once_after_its_approval() {
    let world = world("");
    let mut pipe = pipe(&world);
    let first = pipe.call(1, "touch", path(&world, "made"));
    let id = held(&first);
    let told = first["result"]["content"][0]["text"].as_str().unwrap();
    assert!(told.contains(&id) && told.contains("same call again"), "{told}");
    // The same call again asks for the same approval.
    assert_eq!(held(&pipe.call(2, "touch", path(&world, "made"))), id);
    let list = world.run(&["approvals"]);
    assert_eq!(list.status.code(), Some(4), "{}", text(&list.stdout));
    assert!(text(&list.stdout).contains(&id) && text(&list.stdout).contains("peer__touch"));
    assert!(world.must(&["approvals", &id[30..]]).contains("/made"));
    assert!(!world.files().join("made").exists());

    let told = world.must(&["approve", &id, "--because", "it is only a file"]);
    assert!(told.contains("exactly this call once"), "{told}");
    // Another call is another call.
    assert_ne!(held(&pipe.call(3, "touch", path(&world, "other"))), id);
    assert_eq!(reason(&pipe.call(4, "touch", path(&world, "made"))), "answered");
    assert!(world.files().join("made").exists());
    // The yes is used up.
    assert_ne!(held(&pipe.call(5, "touch", path(&world, "made"))), id);
    let gone = world.run(&["approve", &id, "--because", "again"]);
    assert_eq!(gone.status.code(), Some(2), "{}", text(&gone.stderr));
    pipe.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
    let log = world.must(&["log", "--kind", "approved"]);
    assert!(log.contains("it is only a file"), "{log}");
}

#[test]
fn a_no_is_told_to_the_agent_and_cannot_become_a_yes() {
    let world = world("");
    let mut pipe = pipe(&world);
    let id = held(&pipe.call(1, "touch", path(&world, "made")));
    world.must(&["deny", &id, "--because", "wrong folder"]);
    let answer = pipe.call(2, "touch", path(&world, "made"));
    assert_eq!(reason(&answer), "approval_denied");
    let told = answer["result"]["content"][0]["text"].as_str().unwrap();
    assert!(told.contains("wrong folder"), "{told}");
    let late = world.run(&["approve", &id, "--because", "or not"]);
    assert_ne!(late.status.code(), Some(0));
    assert!(text(&late.stderr).contains("said no before"), "{}", text(&late.stderr));
    assert_eq!(reason(&pipe.call(3, "touch", path(&world, "made"))), "approval_denied");
    pipe.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[test]
fn an_approval_after_its_time_counts_for_nothing() {
    let world = world("[approval.owner]\nexpires_s = 1");
    let mut pipe = pipe(&world);
    let late = held(&pipe.call(1, "touch", path(&world, "late")));
    let given = held(&pipe.call(2, "touch", path(&world, "given")));
    world.must(&["approve", &given, "--because", "in time"]);
    until("the approvals are over", || {
        listed(&world).iter().all(|one| one["state"] == "expired").then_some(())
    });
    let run = world.run(&["approve", &late, "--because", "too late"]);
    assert!(text(&run.stderr).contains("ended"), "{}", text(&run.stderr));
    assert_ne!(run.status.code(), Some(0));
    // One that was given in time and not used in time is over as well.
    assert_ne!(held(&pipe.call(3, "touch", path(&world, "given"))), given);
    assert!(!world.files().join("given").exists());
    pipe.end();
    world.must(&["verify"]);
}

#[test]
fn a_stop_makes_approvals_void() {
    let world = world("");
    let mut pipe = pipe(&world);
    let given = held(&pipe.call(1, "touch", path(&world, "given")));
    let asked = held(&pipe.call(2, "touch", path(&world, "asked")));
    world.must(&["approve", &given, "--because", "before the stop"]);
    world.must(&["stop", "--tool", "peer__nothing", "--reason", "something else"]);
    let run = world.run(&["approve", &asked, "--because", "after the stop"]);
    assert_ne!(run.status.code(), Some(0));
    assert!(text(&run.stderr).contains("void"), "{}", text(&run.stderr));
    assert_ne!(held(&pipe.call(3, "touch", path(&world, "given"))), given);
    assert!(!world.files().join("given").exists());
    pipe.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[test]
fn another_byte_of_parameters_or_policy_needs_another_approval() {
    let folder = "[policies]\npath = \"policies\"";
    let world = world(folder);
    let starter = include_str!("../../../../policies/starter.cedar");
    let policies = world.path().join("policies");
    std::fs::create_dir(&policies).unwrap();
    std::fs::write(policies.join("all.cedar"), starter).unwrap();
    let mut pipe = pipe(&world);
    let id = held(&pipe.call(1, "touch", path(&world, "made")));
    world.must(&["approve", &id, "--because", "fine"]);
    assert_ne!(held(&pipe.call(2, "touch", path(&world, "madf"))), id);
    // One byte of the policies: a comment.
    std::fs::write(policies.join("all.cedar"), format!("{starter}\n//")).unwrap();
    let loaded =
        || world.json(&["log", "--kind", "policy_loaded"])["records"].as_array()?.get(1).cloned();
    until("the policy is loaded", loaded);
    assert_ne!(held(&pipe.call(3, "touch", path(&world, "made"))), id);
    assert!(!world.files().join("made").exists());
    // Back to the byte that was approved, the approval is what it was.
    std::fs::write(policies.join("all.cedar"), starter).unwrap();
    until("the call is approved", || {
        (reason(&pipe.call(4, "touch", path(&world, "made"))) == "answered").then_some(())
    });
    pipe.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[test]
fn only_those_who_may_approve_and_only_as_often_as_they_are() {
    let world = people("[approval.owner]\ncount = 2\nroles = [\"owner\", \"dba\"]");
    let key = world.key("coder");
    let serve = world.serve();
    let touch =
        |id: u64| post(&serve, ("/peer", &key), &call(id, "touch", path(&world, "made"))).body;
    let id = held(&touch(1));
    // Not the agent itself, not somebody without the role.
    assert_eq!(say(&serve, &key, &id, "yes").status, 401);
    assert_eq!(reason(&say(&serve, CLEO, &id, "yes").body), "approver_refused");
    assert_eq!(say(&serve, ADA, "no-id", "yes").status, 400);
    for because in ["", " ", "a\nb", &"x".repeat(1001)] {
        assert_eq!(say_because(&serve, ADA, &id, ("yes", because)).status, 400, "{because}");
    }
    assert_eq!(say(&serve, ADA, &id.replace(&id[..4], "ffff"), "yes").status, 404);
    // The same person twice is one person.
    for _ in 0..2 {
        let answer = say(&serve, ADA, &id, "yes");
        assert_eq!((answer.status, &answer.body["state"]), (200, &json!("waits")));
    }
    assert_eq!(held(&touch(2)), id);
    assert_eq!(say(&serve, BOB, &id, "yes").body["state"], "given");
    assert_eq!(reason(&touch(3)), "answered");
    // The account of this process is no declared operator's.
    let id = held(&touch(4));
    let run = world.run(&["approve", &id, "--because", "I am here"]);
    assert!(text(&run.stderr).contains("belongs to no declared operator"));
    assert_ne!(run.status.code(), Some(0));
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[test]
fn who_asks_for_something_does_not_approve_it() {
    let world = people("");
    let config = std::fs::read_to_string(world.path().join("holdpoint.toml")).unwrap();
    let asks = "mode = \"approve-writes\"\nrequesters = [\"ada\"]\n";
    world.write_config(&config.replace("mode = \"approve-writes\"\n", asks));
    let key = world.key("coder");
    let serve = world.serve();
    let touch =
        |id: u64| post(&serve, ("/peer", &key), &call(id, "touch", path(&world, "made"))).body;
    let id = held(&touch(1));
    let own = say(&serve, ADA, &id, "yes");
    assert_eq!((own.status, reason(&own.body).as_str()), (403, "approver_refused"));
    assert_eq!(say(&serve, BOB, &id, "yes").status, 200);
    assert_eq!(reason(&touch(2)), "answered");
    serve.end();
}

#[test]
fn racing_approvers_and_racing_calls_give_one_effect() {
    let world = people("[approval.owner]\ncount = 2");
    let key = world.key("coder");
    let serve = world.serve();
    let append = |id: u64| {
        let arguments = json!({ "path": world.files().join("lines"), "text": "x" });
        post(&serve, ("/peer", &key), &call(id, "append", arguments)).body
    };
    for round in 1..=5_usize {
        let id = held(&append(1));
        std::thread::scope(|scope| {
            for key in [ADA, BOB, ADA, BOB] {
                scope.spawn(|| say(&serve, key, &id, "yes"));
            }
        });
        let answers: Vec<_> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..6).map(|call| scope.spawn(move || append(10 + call))).collect();
            all.into_iter().map(|one| reason(&one.join().unwrap())).collect()
        });
        let answered = answers.iter().filter(|reason| *reason == "answered").count();
        assert_eq!(answered, 1, "{answers:?}");
        let lines = std::fs::read_to_string(world.files().join("lines")).unwrap();
        assert_eq!(lines.lines().count(), round, "{lines}");
        // What the others asked for is denied, so that the next round begins anew.
        for row in listed(&world) {
            say(&serve, ADA, row["id"].as_str().unwrap(), "no");
        }
        world.must(&["stop", "--tool", "peer__nothing", "--reason", "a new epoch"]);
    }
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[test]
fn a_modern_client_is_asked_to_come_back_and_an_older_one_is_told() {
    let world = world("");
    let key = world.key("coder");
    let serve = world.serve();
    let arguments = || json!({ "name": "touch", "arguments": path(&world, "made") });
    let able = || json!({ "elicitation": {} });
    let send = |message: &Value| post_modern(&serve, ("/peer", &key), message).body;
    let first = send(&modern_able(1, "tools/call", (arguments(), able())));
    let result = &first["result"];
    assert_eq!(result["resultType"], "input_required", "{first}");
    assert_eq!(result["inputRequests"]["approval"]["method"], "elicitation/create");
    let id = result["_meta"]["io.holdpoint/approval"]["id"].as_str().unwrap().to_owned();
    let back = |id: u64| {
        let mut params = arguments();
        params["requestState"] = result["requestState"].clone();
        params["inputResponses"] = json!({ "approval": { "action": "accept", "content": {} } });
        modern_able(id, "tools/call", (params, able()))
    };
    // What the client says is no approval.
    assert_eq!(send(&back(2))["result"]["resultType"], "input_required");
    assert!(!world.files().join("made").exists());
    world.must(&["approve", &id, "--because", "fine"]);
    assert_eq!(reason(&send(&back(3))), "answered");
    assert!(world.files().join("made").exists());
    // A modern client that cannot ask its user gets an error with the id, like an older one.
    let unable = send(&modern(4, "tools/call", arguments()));
    assert_eq!(unable["result"]["isError"], true, "{unable}");
    let id = held(&unable);
    assert_eq!(
        held(&post(&serve, ("/peer", &key), &call(5, "touch", path(&world, "made"))).body),
        id
    );
    serve.end();
    world.must(&["verify"]);
}

#[test]
fn approvals_survive_kill_and_restart() {
    let world = world("");
    let key = world.key("coder");
    let touch = |serve: &Serve, id: u64| {
        post(serve, ("/peer", &key), &call(id, "touch", path(&world, "made"))).body
    };
    let serve = world.serve();
    let id = held(&touch(&serve, 1));
    serve.kill();
    world.must(&["approve", &id, "--because", "while nobody governs"]);
    let serve = world.serve();
    let answer = touch(&serve, 2);
    assert_eq!(reason(&answer), "answered", "{answer}");
    serve.kill();
    let serve = world.serve();
    assert_ne!(held(&touch(&serve, 3)), id);
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[test]
fn so_many_calls_of_an_agent_wait_for_approvals() {
    let world = world("");
    let mut pipe = pipe(&world);
    for number in 1..=100 {
        held(&pipe.call(number, "touch", path(&world, &format!("file-{number}"))));
    }
    let one_more = pipe.call(101, "touch", path(&world, "one-more"));
    assert_eq!(reason(&one_more), "approvals_full");
    // What waits already is no further one, and one that is decided makes room.
    let first = held(&pipe.call(102, "touch", path(&world, "file-1")));
    world.must(&["approve", &first, "--because", "fine"]);
    assert_eq!(reason(&pipe.call(103, "touch", path(&world, "file-1"))), "answered");
    held(&pipe.call(104, "touch", path(&world, "one-more")));
    pipe.end();
}

#[test]
fn an_approval_is_for_the_settings_and_the_server_that_it_was_asked_under() {
    let world = world("");
    let key = world.key("coder");
    let config = std::fs::read_to_string(world.path().join("holdpoint.toml")).unwrap();
    let touch = |serve: &Serve, id: u64| {
        post(serve, ("/peer", &key), &call(id, "touch", path(&world, "made"))).body
    };
    let serve = world.serve();
    let id = held(&touch(&serve, 1));
    // Nothing, and too little of an id, names no approval.
    for too_little in ["", &id[..5]] {
        let run = world.run(&["approve", too_little, "--because", "oops"]);
        assert_eq!(run.status.code(), Some(2), "{}", text(&run.stderr));
    }
    world.must(&["approve", &id, "--because", "fine"]);
    serve.end();
    // Another place, and another program behind the same name.
    for other in [
        config.replace("environment = \"dev\"", "environment = \"staging\""),
        config.replace("peer.mjs\"]", "peer.mjs\", \"another\"]"),
    ] {
        assert_ne!(other, config);
        world.write_config(&other);
        let serve = world.serve();
        assert_ne!(held(&touch(&serve, 2)), id);
        serve.end();
    }
    assert!(!world.files().join("made").exists());
    world.write_config(&config);
    let serve = world.serve();
    assert_eq!(reason(&touch(&serve, 3)), "answered");
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}
