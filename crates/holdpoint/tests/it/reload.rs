//! Policies that change while a server governs.

use crate::raw::{call, post, reason};
use crate::world::{PEER, Serve, World, until};
use serde_json::{Value, json};

const READS: &str = r#"
@id("reads")
@reason("Reads are fine.")
permit (principal, action == Action::"read", resource) when { context.granted };
"#;

const NOTHING_TODAY: &str = r#"
@id("nothing-today")
@reason("Not today.")
forbid (principal, action, resource);
"#;

/// Fails for every call that has no parameter of this name.
const FAILS: &str = r#"
@id("fails")
@reason("Looks at what is not there.")
forbid (principal, action, resource) when { 9223372036854775807 + 1 == 0 };
"#;

/// A served world with a folder of policies.
struct Place {
    world: World,
    serve: Serve,
    key: String,
}

// === impl Place ===

impl Place {
    fn new() -> Self {
        let world = World::new(&format!("{PEER}\n[policies]\npath = \"policies\"\n"));
        std::fs::create_dir(world.path().join("policies")).unwrap();
        write(&world, "reads", READS);
        let key = world.key("coder");
        let serve = world.serve();
        Self { world, serve, key }
    }

    fn ask(&self, tool: &str, arguments: Value) -> String {
        reason(&post(&self.serve, ("/peer", &self.key), &call(1, tool, arguments)).body)
    }

    fn echo(&self) -> String {
        self.ask("echo", json!({ "text": "hi" }))
    }

    fn until_echo(&self, expected: &str) {
        until(expected, || (self.echo() == expected).then_some(()));
    }

    fn digests(&self) -> Vec<Value> {
        let records = self.world.records().into_iter();
        let decisions = records.filter(|record| record["kind"] == "decision");
        let mut digests: Vec<_> =
            decisions.map(|it| it["lineage"]["policy_version"]["present"].clone()).collect();
        digests.dedup();
        digests
    }
}

fn write(world: &World, name: &str, text: &str) {
    let folder = world.path().join("policies");
    // As editors do it: no half-written file is ever seen.
    let draft = folder.join(format!(".{name}"));
    std::fs::write(&draft, text).unwrap();
    std::fs::rename(draft, folder.join(format!("{name}.cedar"))).unwrap();
}

fn remove(world: &World, name: &str) {
    std::fs::remove_file(world.path().join(format!("policies/{name}.cedar"))).unwrap();
}

#[test]
fn changed_policies_come_into_force_and_drop_no_call() {
    let place = Place::new();
    assert_eq!(place.echo(), "answered");
    std::thread::scope(|scope| {
        // In flight while the policies change: it was permitted, and ends as it would have.
        let slow = scope.spawn(|| place.ask("hang", json!({})));
        until("the call is in flight", || {
            let status = place.world.json(&["status"]);
            let running = status["gateways"][0]["running"].as_array()?.len();
            (running == 1).then_some(())
        });
        write(&place.world, "nothing", NOTHING_TODAY);
        place.until_echo("policy_forbids");
        assert_eq!(slow.join().unwrap(), "upstream_timeout");
    });
    remove(&place.world, "nothing");
    place.until_echo("answered");
    let digests = place.digests();
    assert_eq!(digests.len(), 3, "{digests:?}");
    assert_eq!(digests.first(), digests.last());
    place.serve.end();
    let loaded = place.world.records().into_iter();
    let loaded: Vec<_> = loaded.filter(|record| record["kind"] == "policy_loaded").collect();
    assert_eq!(loaded.len(), 3);
    assert!(loaded.iter().any(|record| record["policy"] == digests[1]));
    place.world.must(&["verify"]);
    place.world.must(&["replay"]);
}

#[test]
fn broken_policies_change_nothing_and_say_why() {
    let place = Place::new();
    assert_eq!(place.echo(), "answered");
    for (at, broken) in
        ["permit (", "permit (principal, action, resource);", "\u{0}"].into_iter().enumerate()
    {
        write(&place.world, "broken", broken);
        until("the log says why", || {
            let log = place.world.serve_log();
            let refused = log.matches("new policies refused: the old ones stay in force").count();
            (refused > at).then_some(())
        });
        assert!(place.world.serve_log().contains("broken.cedar"), "{}", place.world.serve_log());
        assert_eq!(place.echo(), "answered");
        let check = place.world.run(&["check"]);
        assert_eq!(check.status.code(), Some(2), "{check:?}");
    }
    // A good file beside the broken one changes nothing either: all or nothing.
    write(&place.world, "nothing", NOTHING_TODAY);
    assert_eq!(place.echo(), "answered");
    remove(&place.world, "broken");
    place.until_echo("policy_forbids");
    // No policy at all permits nothing.
    remove(&place.world, "nothing");
    place.until_echo("answered");
    remove(&place.world, "reads");
    place.until_echo("no_policy_permits");
    place.serve.end();
    place.world.must(&["replay"]);
}

#[test]
fn a_policy_that_fails_denies() {
    let place = Place::new();
    assert_eq!(place.echo(), "answered");
    write(&place.world, "fails", FAILS);
    place.until_echo("policy_error");
    place.serve.end();
    place.world.must(&["replay"]);
}

#[test]
fn a_server_with_broken_policies_does_not_start() {
    let place = Place::new();
    place.serve.end();
    write(&place.world, "broken", "permit (");
    let output = place.world.run(&["serve"]);
    assert!([Some(1), Some(2)].contains(&output.status.code()), "{output:?}");
    let said = crate::world::text(&output.stderr);
    assert!(said.contains("broken.cedar"), "{said}");
}

#[test]
fn a_policy_that_does_not_mean_what_it_says_is_warned_of() {
    let place = Place::new();
    let never = "@id(\"never\") @reason(\"r\") forbid (principal, action, resource)\n\
        when { context.certainty == \"sure\" };";
    write(&place.world, "never", never);
    until("the log says so", || {
        let log = place.world.serve_log();
        (log.contains("does not mean what it says") && log.contains("never.cedar:1")).then_some(())
    });
    let check = place.world.run(&["check"]);
    let told = crate::world::text(&check.stderr);
    assert!(check.status.success() && told.contains("`context.certainty` is never"), "{told}");
}
