//! Grants for a limited time: they open what they name, and nothing after their end.

use crate::raw::{Pipe, call, post, reason};
use crate::world::{PEER, World, text, until};
use serde_json::{Value, json};

/// What an agent without a grant is told.
const REFUSED: &str = "no_policy_permits+not_granted";

/// A world whose `coder` may only read, unless somebody grants more.
fn world(more: &str) -> World {
    let both = r#"[{ class = "read", tools = ["*"] }, { class = "write", tools = ["*"] }]"#;
    let config = PEER.replace(both, r#"[{ class = "read", tools = ["*"] }]"#);
    assert_ne!(config, PEER);
    World::new(&format!("{config}\n{more}\n"))
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

fn grant<'a>(tools: &'a str, length: &'a str) -> Vec<&'a str> {
    let mut all = vec!["grant", "coder", "--class", "write", "--tools", tools];
    all.extend(["--for", length, "--because", "the release of today"]);
    all
}

#[test]
fn warnings_of_the_configuration_are_told_once() {
    let world = world("[agent.idle]\nowner = \"platform\"");
    pipe(&world).end();
    for command in [&["approvals"][..], &grant("peer__touch", "1h"), &["grant", "list"]] {
        let run = world.run(command);
        let told = text(&run.stderr);
        assert_eq!(run.status.code(), Some(0), "{told}");
        assert_eq!(told.matches("`idle` has no standing grants").count(), 1, "{command:?}: {told}");
    }
}

#[test]
fn a_grant_for_a_limited_time_opens_what_it_names_until_it_ends() {
    let world = world("");
    let mut pipe = pipe(&world);
    let touch = |pipe: &mut Pipe, id: u64| reason(&pipe.call(id, "touch", path(&world, "made")));
    assert_eq!(touch(&mut pipe, 1), REFUSED);
    let granted = world.json(&grant("peer__touch", "3s"));
    let (number, end) = (granted["id"].as_u64().unwrap(), granted["until_ms"].as_i64().unwrap());
    // The process that runs already learns of it.
    until("the grant counts", || (touch(&mut pipe, 2) == "answered").then_some(()));
    let arguments = json!({ "path": world.files().join("lines"), "text": "x" });
    assert_eq!(reason(&pipe.call(3, "append", arguments)), REFUSED);
    assert!(world.must(&["grant", "list"]).contains("the release of today"));
    until("the grant is over", || (touch(&mut pipe, 4) == REFUSED).then_some(()));
    pipe.end();
    assert!(world.must(&["grant", "list"]).contains("nothing is granted"));
    // Nothing was permitted from its end on, and what was says by what.
    let records = world.records();
    let permits = records.iter().filter(|record| {
        record["kind"] == "decision"
            && record["request"]["tool"] == "peer__touch"
            && record["facts"]["grant"]["by"].is_string()
    });
    let mut seen = 0;
    for record in permits {
        let by = record["facts"]["grant"]["by"].as_str().unwrap();
        assert!(by.starts_with(&format!("grant {number} (until ")), "{by}");
        assert!(record["request"]["at"].as_i64().unwrap() < end, "{record}");
        seen += 1;
    }
    assert!(seen > 0, "no decision by the grant in {records:?}");
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[test]
fn a_grant_for_a_limited_time_survives_a_restart_and_ends_when_it_is_revoked() {
    let world = world("");
    let key = world.key("coder");
    let granted = world.json(&grant("peer__*", "2h"));
    let number = granted["id"].as_u64().unwrap().to_string();
    let serve = world.serve();
    let touch = |serve: &_, id: u64| {
        let call = call(id, "touch", path(&world, "made"));
        reason(&post(serve, ("/peer", &key), &call).body)
    };
    assert_eq!(touch(&serve, 1), "answered");
    serve.kill();
    let serve = world.serve();
    assert_eq!(touch(&serve, 2), "answered");
    // A change of the configuration leaves it in force.
    let config = std::fs::read_to_string(world.path().join("holdpoint.toml")).unwrap();
    world.write_config(&config.replace("platform on-call", "somebody else"));
    serve.signal(rustix::process::Signal::HUP);
    let loaded = || {
        world.json(&["log", "--kind", "settings_loaded"])["records"].as_array()?.first().cloned()
    };
    until("the settings are loaded", loaded);
    assert_eq!(touch(&serve, 3), "answered");
    let told = world.must(&["grant", "revoke", &number, "--because", "done"]);
    assert!(told.contains("counts for nothing"), "{told}");
    until("the grant is revoked", || (touch(&serve, 4) == REFUSED).then_some(()));
    let again = world.run(&["grant", "revoke", &number, "--because", "again"]);
    assert_eq!(again.status.code(), Some(1), "{}", text(&again.stderr));
    serve.end();
    let serve = world.serve();
    assert_eq!(touch(&serve, 5), REFUSED);
    serve.end();
    let log = world.must(&["log", "--kind", "grant_revoked"]);
    assert!(log.contains("done"), "{log}");
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[test]
fn a_grant_for_a_tool_that_nobody_saw_is_given_with_a_warning() {
    let world = world("");
    let warns = |tools: &str, says: &str| {
        let run = world.run(&grant(tools, "1h"));
        let told = text(&run.stderr);
        assert_eq!(run.status.code(), Some(0), "{tools}: {told}");
        assert!(told.contains(says), "{tools}: {told}");
    };
    world.key("coder");
    warns("peer__touch", "none was seen yet");
    pipe(&world).end();
    warns("peer__tuoch", "did you mean `peer__touch`?");
    let quiet = world.run(&grant("peer__touch", "1h"));
    assert_eq!(text(&quiet.stderr), "");
    // It counts for the agent wherever its grants are listed.
    let listed = world.must(&["agent", "list"]);
    let timed = listed.lines().filter(|line| line.trim_start().starts_with("timed  write "));
    assert_eq!(timed.count(), 3, "{listed}");
    assert_eq!(world.json(&["agent", "list"])[0]["timed_grants"].as_array().unwrap().len(), 3);
}

#[test]
fn a_grant_needs_an_agent_an_end_a_reason_and_somebody_who_may() {
    let world = world("");
    world.key("coder");
    let wrong = |arguments: &[&str], says: &str| {
        let run = world.run(arguments);
        let err = text(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{arguments:?}: {err}");
        assert!(err.contains(says), "{arguments:?}: {err}");
    };
    for (length, says) in [("25h", "24 hours"), ("0s", "24 hours"), ("soon", "such as")] {
        wrong(&grant("peer__*", length), says);
    }
    wrong(&grant("peer__ä", "1h"), "no tool name can hold");
    for (tools, says) in [
        ("notthere__*", "no server `notthere` (there are `peer`)"),
        ("touch", "tools are `server__tool`"),
    ] {
        wrong(&grant(tools, "1h"), says);
    }
    let mut nobody = grant("peer__*", "1h");
    nobody[1] = "nobody";
    wrong(&nobody, "not declared");
    let mut destructive = grant("peer__*", "1h");
    destructive[3] = "destructive";
    wrong(&destructive, "in full");
    let silent = grant("peer__*", "1h");
    wrong(&silent[..silent.len() - 2], "--because");
    wrong(&["grant"], "--class");
    assert!(world.must(&["grant", "list"]).contains("nothing is granted"));
    // Where operators are declared, whoever may approve for the owner of the agent.
    let config = std::fs::read_to_string(world.path().join("holdpoint.toml")).unwrap();
    let run = std::process::Command::new("id").arg("-un").output().unwrap();
    let user = text(&run.stdout).trim().to_owned();
    std::fs::write(world.path().join("ada.key"), "ada's key of at least thirty-two characters")
        .unwrap();
    let operator = |user: &str, more: &str| {
        let head = "[operator.ada]\nkey = { from_file = \"ada.key\" }";
        world.write_config(&format!("{config}\n{head}\nuser = \"{user}\"\n{more}\n"));
    };
    let refused = |says: &str| {
        let run = world.run(&grant("peer__*", "1h"));
        assert_eq!(run.status.code(), Some(1), "{}", text(&run.stderr));
        assert!(text(&run.stderr).contains(says), "{}", text(&run.stderr));
    };
    operator("somebody-else", "teams = [\"platform\"]");
    refused("belongs to no declared operator");
    operator(&user, "");
    refused("none of the roles");
    operator(&user, "teams = [\"platform\"]");
    assert_eq!(world.json(&grant("peer__*", "1h"))["by"], "ada");
}
