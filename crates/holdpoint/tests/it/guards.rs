//! Guard sets: who signs what, what comes into force, and what calls then get.

use crate::operate::get;
use crate::raw::{call, post, reason};
use crate::world::{PEER, Serve, World, text, until};
use serde_json::{Value, json};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Output;

/// Touching is fine, but for one folder below what is guarded.
const CROWN: &str = r#"
@id("touch")
@reason("Touching the vault is fine.")
permit (principal, action == Action::"write", resource)
when { context.granted };

@id("never-keys")
@reason("Nobody touches the keys.")
forbid (principal, action, resource)
when { resource.address like "*/keys/*" };
"#;

const STRICTER: &str = r#"
@id("nothing")
@reason("Nobody touches anything.")
forbid (principal, action, resource);
"#;

/// A folder with a guard set over the surface `vault`, of whose three signers two must sign.
struct Place {
    world: World,
}

// === impl Place ===

impl Place {
    /// The set's files lie there; nobody has signed them.
    fn new() -> Self {
        let place = Self { world: World::new("") };
        for name in ["ada", "bob", "carol"] {
            place.world.write_config("");
            let made = place.world.run(&["policy", "keygen", name, "--out", name]);
            assert!(made.status.success(), "{made:?}");
            std::fs::write(place.path(&format!("{name}.pub")), made.stdout).unwrap();
        }
        std::fs::create_dir(place.path("crown")).unwrap();
        for folder in ["vault", "vault/keys", "open"] {
            std::fs::create_dir(place.world.files().join(folder)).unwrap();
        }
        place.write(CROWN);
        place.configure(&["ada", "bob", "carol"], "");
        place
    }

    fn configure(&self, signers: &[&str], more: &str) {
        let public = |name: &&str| std::fs::read_to_string(self.path(&format!("{name}.pub")));
        let signers: Vec<_> =
            signers.iter().map(|name| public(name).unwrap().trim_end().to_owned()).collect();
        let peer = PEER.replace("[listen]\n", "[listen]\noperations = \"127.0.0.1:0\"\n");
        self.world.write_config(&format!(
            "{peer}\n[[surface]]\nname = \"vault\"\nresources = [\"file://${{files}}/vault/**\"]\n\
             [policies.guard.crown]\npath = \"crown\"\nsurfaces = [\"vault\"]\n\
             signers = {signers:?}\nsignatures = 2\n{more}"
        ));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.path().join(name)
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path("crown/crown.cedar"), text).unwrap();
    }

    fn sign(&self, name: &str) -> String {
        self.world.must(&["policy", "sign", "crown", "--key", name])
    }

    fn sign_by_two(&self) {
        self.sign("ada");
        self.sign("bob");
    }

    fn touch(&self, (serve, key): (&Serve, &str), path: &str) -> String {
        let path = self.world.files().join(path).display().to_string();
        let asked = call(1, "touch", json!({ "path": path }));
        reason(&post(serve, ("/peer", key), &asked).body)
    }

    /// How `serve` complains, which must not start.
    #[track_caller]
    fn no_start(&self, why: &str) {
        let run = self.world.run(&["serve"]);
        assert!(!run.status.success(), "{run:?}");
        let told = text(&run.stderr);
        assert!(told.contains("the guard set `crown`") && told.contains(why), "{told}");
        let check = self.world.run(&["check"]);
        assert_eq!(check.status.code(), Some(2), "{check:?}");
    }

    fn refused(&self) -> Option<Value> {
        let status = self.world.json(&["status"]);
        Some(status["gateways"][0]["policies_refused"].clone()).filter(|told| !told.is_null())
    }
}

fn complaint(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    text(&output.stderr)
}

#[test]
fn a_guard_set_counts_once_enough_signed_it_and_then_both_sets_must_permit() {
    let place = Place::new();
    let world = &place.world;
    place.no_start("it is not signed");
    let told = place.sign("ada");
    assert!(told.contains("signed by  ada: 2 must sign, not yet bob, carol"), "{told}");
    assert!(told.contains("surface vault\nfile sha256:"), "{told}");
    place.no_start("1 of its signers signed it, 2 must: not yet bob, carol");
    assert_eq!(place.sign("ada"), told, "signing twice is signing once");
    place.no_start("1 of its signers signed it, 2 must");
    let told = place.sign("bob");
    assert!(told.contains("signed by  ada, bob: enough"), "{told}");
    let check = world.must(&["check"]);
    assert!(check.contains("guard set crown: version 1, sha256:"), "{check}");
    assert!(check.contains(", signed by ada, bob\n"), "{check}");

    let key = world.key("coder");
    let serve = world.serve();
    let calls = (&serve, key.as_str());
    assert_eq!(place.touch(calls, "open/a"), "answered");
    assert_eq!(place.touch(calls, "vault/a"), "answered");
    assert_eq!(place.touch(calls, "vault/keys/a"), "guard_forbids");
    let listed = call(2, "echo", json!({ "text": "hi" }));
    assert_eq!(reason(&post(&serve, ("/peer", &key), &listed).body), "answered");

    let status = world.json(&["status"]);
    let guard = &status["gateways"][0]["guards"][0];
    assert_eq!(guard["name"], "crown");
    assert_eq!(guard["signed_by"], json!(["ada", "bob"]));
    assert_eq!(guard["surfaces"], json!(["vault"]));
    let line = "guard set crown over vault: version 1, sha256:";
    assert!(world.must(&["status"]).contains(line));
    let asked = json!({ "tool": "peer__touch", "arguments": {
        "path": world.files().join("vault/keys/b") } });
    std::fs::write(place.path("call.json"), asked.to_string()).unwrap();
    let tried = world.run(&["try", "call.json", "--as", "coder"]);
    assert_eq!(tried.status.code(), Some(3), "{tried:?}");
    let tried = text(&tried.stdout);
    assert!(tried.contains("guarded by  crown sha256:"), "{tried}");
    assert!(tried.contains("deny guard_forbids [crown/never-keys]: Nobody touches"), "{tried}");
    let why = world.must(&["why", "last"]);
    assert!(!why.contains("guard "), "the last call touched nothing that is guarded: {why}");
    serve.end();

    let records = world.records();
    let guards: Vec<_> = records.iter().filter(|one| one["guard"].is_object()).collect();
    assert_eq!(guards.len(), 1);
    let digest = &guards[0]["policy"];
    assert_eq!(*digest, guard["digest"]);
    assert!(guards[0]["guard"]["note"].as_str().unwrap().contains("\u{2014} bob "));
    let decisions: Vec<_> = records.iter().filter(|one| one["kind"] == "decision").collect();
    let named: Vec<_> = decisions.iter().map(|one| &one["guards"]["crown"]).collect();
    assert_eq!(named, [&Value::Null, digest, digest, &Value::Null]);
    let forbidden = decisions[2]["action"].as_str().unwrap();
    let why = world.must(&["why", forbidden]);
    assert!(
        why.contains(&format!("guard  crown {}, signed by ada, bob", text_of(digest))),
        "{why}"
    );
    world.must(&["verify"]);
    assert!(world.must(&["replay"]).contains("4 actions decided again, all the same (2 policy"));
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn what_was_not_signed_does_not_come_into_force() {
    let place = Place::new();
    place.sign_by_two();
    let world = &place.world;
    let key = world.key("coder");
    let serve = world.serve();
    let calls = (&serve, key.as_str());
    assert_eq!(place.touch(calls, "vault/a"), "answered");
    let first = std::fs::read_to_string(place.path("crown/guard.note")).unwrap();

    // Whoever can write the folder, but has no key.
    place.write("");
    let told = until("it is refused", || place.refused());
    assert!(text_of(&told).contains("`crown.cedar` was changed"), "{told}");
    assert!(world.serve_log().contains("new policies refused: the old ones stay in force"));
    let (_, page) = get(&serve, "/metrics");
    let counted = "holdpoint_reloads_total{what=\"policies\",result=\"refused\"}";
    assert!(page.contains(counted), "{page}");
    assert!(world.must(&["status"]).contains("new policies refused: the guard set `crown`"));
    assert_eq!(place.touch(calls, "vault/b"), "answered");
    std::fs::remove_file(place.path("crown/guard.note")).unwrap();
    until("it is refused", || {
        place.refused().filter(|told| text_of(told).contains("it is not signed"))
    });

    // One signature of two is not enough; with the second the new set is in force.
    place.write(STRICTER);
    std::fs::write(place.path("crown/guard.note"), &first).unwrap();
    place.sign("carol");
    until("it is refused", || place.refused().filter(|told| text_of(told).contains("1 of its")));
    assert_eq!(place.touch(calls, "vault/c"), "answered");
    place.sign("bob");
    until("it is in force", || place.refused().is_none().then_some(()));
    assert_eq!(place.touch(calls, "vault/d"), "guard_forbids");
    assert_eq!(place.touch(calls, "open/d"), "answered");

    // The old set, as it was signed, does not come back: neither now nor with a restart.
    place.write(CROWN);
    std::fs::write(place.path("crown/guard.note"), &first).unwrap();
    let told = until("it is refused", || place.refused());
    assert!(text_of(&told).contains("version 1 is not newer than version 2"), "{told}");
    assert_eq!(place.touch(calls, "vault/e"), "guard_forbids");
    serve.end();
    let run = world.run(&["serve"]);
    assert!(complaint(&run).contains("version 1 is not newer than version 2"), "{run:?}");
    // Signed anew, it does.
    let told = place.sign("ada");
    assert!(told.contains("version 3\n"), "{told}");
    place.sign("bob");
    let serve = world.serve();
    assert_eq!(place.touch((&serve, &key), "vault/f"), "answered");
    serve.end();
    world.must(&["verify"]);
    world.must(&["replay"]);
}

#[test]
fn what_guards_is_declared_once_and_changes_with_a_restart() {
    let place = Place::new();
    place.sign_by_two();
    let world = &place.world;
    let key = world.key("coder");
    let serve = world.serve();
    // Whoever can write the configuration, too, takes a signer out or the whole set.
    place.configure(&["ada", "bob"], "");
    serve.signal(rustix::process::Signal::HUP);
    until("it is refused", || {
        world.serve_log().contains("`policies.guard` can only change with a restart").then_some(())
    });
    assert_eq!(place.touch((&serve, &key), "vault/keys/a"), "guard_forbids");
    serve.end();
    // Without the set it starts, and says what is gone.
    world.write_config(PEER);
    let check = text(&world.run(&["check"]).stderr);
    assert!(check.contains("the guard set `crown` was in force and is not declared"), "{check}");
    world.serve().end();
    assert!(world.serve_log().contains("this guard set was in force and is not declared any more"));
    // A set that guards something else than its signers meant.
    place.configure(&["ada", "bob"], "environments = [\"prod\"]\n");
    place.no_start("what is signed guards surface `vault`, the configuration says surface `vault`");
}

#[test]
fn keys_are_kept_from_others_and_sign_only_what_loads() {
    let place = Place::new();
    let world = &place.world;
    let ada = place.path("ada");
    let mode = std::fs::metadata(&ada).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let secret = std::fs::read_to_string(&ada).unwrap();
    let again = world.run(&["policy", "keygen", "ada", "--out", "ada"]);
    assert!(complaint(&again).contains("cannot make `ada`"), "{again:?}");
    assert_eq!(std::fs::read_to_string(&ada).unwrap(), secret);

    std::fs::set_permissions(&ada, Permissions::from_mode(0o640)).unwrap();
    let run = world.run(&["policy", "sign", "crown", "--key", "ada"]);
    assert!(complaint(&run).contains("others may read `ada`"), "{run:?}");
    std::fs::set_permissions(&ada, Permissions::from_mode(0o600)).unwrap();
    let run = world.run(&["policy", "sign", "other", "--key", "ada"]);
    assert!(complaint(&run).contains("no guard set is called `other`: there is `crown`"));
    world.must(&["policy", "keygen", "mallory", "--out", "mallory"]);
    let run = world.run(&["policy", "sign", "crown", "--key", "mallory"]);
    assert!(complaint(&run).contains("`mallory` is not among the signers of `crown`"), "{run:?}");
    std::fs::write(place.path("junk"), secret.replace("PRIVATE", "PUBLIC")).unwrap();
    std::fs::set_permissions(place.path("junk"), Permissions::from_mode(0o600)).unwrap();
    let run = world.run(&["policy", "sign", "crown", "--key", "junk"]);
    let told = complaint(&run);
    // The last of five parts, in which a `+` is a digit.
    let hidden = secret.splitn(5, '+').last().unwrap().trim_end();
    assert!(hidden.len() > 40, "this is no key");
    assert!(told.contains("`junk` is no key") && !told.contains(hidden), "{told}");

    place.write("permit (principal, action, resource);");
    let run = world.run(&["policy", "sign", "crown", "--key", "ada"]);
    let told = complaint(&run);
    assert!(told.contains("crown.cedar") && told.contains("would not load"), "{told}");
    assert!(!place.path("crown/guard.note").exists());

    place.write(CROWN);
    let run = world.run(&["policy", "sign", "crown", "--key", "ada", "--expires", "2001-01-01"]);
    assert!(complaint(&run).contains("a time to come"), "{run:?}");
    let told = world.must(&["policy", "sign", "crown", "--key", "ada", "--expires", "90 days"]);
    assert!(told.contains("\nexpires-ms "), "{told}");
    // Whoever signs second signs what the first did, and begins nothing of their own.
    let run = world.run(&["policy", "sign", "crown", "--key", "bob", "--expires", "90 days"]);
    assert!(complaint(&run).contains("leave out `--expires`"), "{run:?}");
    assert!(place.sign("bob").contains("\nexpires-ms "));
    let digests = world.json(&["policy", "digest"]);
    assert_eq!(digests["guards"][0]["signed_by"], json!(["ada", "bob"]));
    let shown = world.must(&["policy", "digest", "crown"]);
    assert!(shown.contains(text_of(&digests["guards"][0]["digest"])), "{shown}");
}
