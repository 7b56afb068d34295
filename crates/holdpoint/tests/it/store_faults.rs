//! Stores that are full, damaged or gone: nothing runs unrecorded.

use crate::raw::{Pipe, call, post, reason, wrap_command};
use crate::world::{PEER, World, text, until};
use serde_json::json;
use std::process::Command;

/// `touch` until the ledger says no: how many files were asked for, all but the last of which were
/// acknowledged.
fn touch_until_denied(world: &World, mut ask: impl FnMut(serde_json::Value) -> String) -> usize {
    for at in 0..5_000 {
        let words = "x".repeat(4_000);
        let path = world.files().join(at.to_string());
        let answer = ask(json!({ "path": path, "words": words }));
        if answer == "ledger_unavailable" {
            assert!(!path.exists(), "it ran unrecorded");
            return at;
        }
        assert_eq!(answer, "answered");
        assert!(path.exists());
    }
    panic!("the store never got full");
}

/// Files that exist and the decisions that permitted one.
fn permits_and_files(world: &World) -> (usize, usize) {
    let records = world.records();
    let permits = records.iter().filter(|record| {
        let permit = |cause: &serde_json::Value| cause["ruling"] == "permit";
        record["kind"] == "decision" && record["decision"].as_array().unwrap().iter().all(permit)
    });
    (permits.count(), std::fs::read_dir(world.files()).unwrap().count())
}

#[test]
fn a_full_store_denies_and_works_again_when_there_is_room() {
    let world = World::new(PEER);
    let key = world.key("coder");
    // No file may grow beyond this many blocks of 512 bytes, as if the disk were full.
    let mut limited = Command::new("sh");
    limited.current_dir(world.path()).env("NO_COLOR", "1").args([
        "-c",
        "trap '' XFSZ; ulimit -f 1200; exec \"$0\" \"$@\"",
        env!("CARGO_BIN_EXE_holdpoint"),
        "--format",
        "json",
        "serve",
    ]);
    let serve = world.serve_by(limited);
    let ask = |arguments| reason(&post(&serve, ("/peer", &key), &call(1, "touch", arguments)).body);
    let made = touch_until_denied(&world, ask);
    assert!(made > 0);
    for at in 0..5 {
        let path = world.files().join(format!("more-{at}"));
        assert_eq!(ask(json!({ "path": path })), "ledger_unavailable");
        assert!(!path.exists());
    }
    assert_eq!(permits_and_files(&world), (made, made));
    world.must(&["verify"]);
    // Stopping is harder to get wrong than to get through: it says that it did not work.
    serve.kill();
    let serve = world.serve();
    let path = world.files().join("again");
    let answer = post(&serve, ("/peer", &key), &call(1, "touch", json!({ "path": path })));
    assert_eq!(reason(&answer.body), "answered");
    serve.end();
    world.must(&["verify"]);
}

#[test]
fn a_store_that_is_removed_under_a_server_denies() {
    let world = World::new(PEER);
    let key = world.key("coder");
    let serve = world.serve();
    let touch = |name: &str| {
        let path = world.files().join(name);
        let message = call(1, "touch", json!({ "path": path }));
        (reason(&post(&serve, ("/peer", &key), &message).body), path.exists())
    };
    assert_eq!(touch("before"), ("answered".to_owned(), true));
    std::fs::remove_file(world.store().join("ledger.db")).unwrap();
    assert_eq!(touch("after"), ("ledger_unavailable".to_owned(), false));
    assert_eq!(touch("later"), ("ledger_unavailable".to_owned(), false));
    serve.kill();
}

#[test]
fn a_store_that_is_removed_under_a_wrap_denies() {
    let world = World::new(PEER);
    let mut pipe = Pipe::wrap(&world);
    let before = world.files().join("before");
    assert_eq!(reason(&pipe.call(1, "touch", json!({ "path": before }))), "answered");
    std::fs::remove_dir_all(world.store()).unwrap();
    let after = world.files().join("after");
    let answer = pipe.call(2, "touch", json!({ "path": after }));
    assert_eq!((reason(&answer).as_str(), after.exists()), ("ledger_unavailable", false));
}

/// Moves into the database what still lies in its write-ahead log, where it would hide what is
/// damaged below it.
fn settle(world: &World) {
    let ledger = rusqlite::Connection::open(world.store().join("ledger.db")).unwrap();
    ledger.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
}

/// Damages a store that has a few records, and demands that nothing governs on it.
fn refuses(what: &str, said: &str, damage: impl FnOnce(&World)) {
    let world = World::new(PEER);
    let mut pipe = Pipe::wrap(&world);
    assert_eq!(reason(&pipe.call(1, "echo", json!({ "text": "hi" }))), "answered");
    assert_eq!(pipe.end().0, Some(0));
    settle(&world);
    damage(&world);
    let output = world.run(&["serve"]);
    let words = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{what}: {words}");
    assert!(words.contains(said), "{what}: {words}");
    let mut pipe = Pipe::wrap(&world);
    let file = world.files().join("file");
    pipe.begin(1, "touch", json!({ "path": file }));
    assert_eq!(pipe.end(), (Some(1), vec![]), "{what}");
    until("the servers are gone", || world.processes("peer.mjs").is_empty().then_some(()));
    assert!(!file.exists(), "{what}");
}

#[test]
fn nothing_governs_on_a_damaged_store() {
    let database = |world: &World| world.store().join("ledger.db");
    refuses("garbage", "damaged", |world| {
        std::fs::write(database(world), "this is no database, and it is long enough").unwrap();
    });
    refuses("a cut header", "damaged", |world| {
        let mut bytes = std::fs::read(database(world)).unwrap();
        bytes[..64].fill(0x55);
        std::fs::write(database(world), bytes).unwrap();
    });
    refuses("no key", "ledger.key", |world| {
        std::fs::remove_file(world.store().join("ledger.key")).unwrap();
    });
    refuses("another key", "ledger", |world| {
        std::fs::write(world.store().join("ledger.key"), format!("{}\n", "ab".repeat(32))).unwrap();
    });
    refuses("a key that others read", "0600", |world| {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(world.store().join("ledger.key"), mode).unwrap();
    });
}

#[test]
fn a_flipped_byte_in_the_middle_is_found_by_verify() {
    let world = World::new(PEER);
    let mut pipe = Pipe::wrap(&world);
    for at in 0..20 {
        let answer = pipe.call(at, "echo", json!({ "text": format!("needle-{at}") }));
        assert_eq!(reason(&answer), "answered");
    }
    pipe.end();
    world.must(&["verify"]);
    settle(&world);
    let path = world.store().join("ledger.db");
    let mut bytes = std::fs::read(&path).unwrap();
    // A record may lie across pages; one of them is whole in its place.
    let whole = |at: usize| format!("needle-{at}\"").into_bytes();
    let find = |needle: Vec<u8>| bytes.windows(needle.len()).position(|window| window == needle);
    let at = (0..20).find_map(|at| find(whole(at))).unwrap();
    bytes[at + 7] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let output = world.run(&["verify"]);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let world = World::new(PEER);
    let wrap = wrap_command(&world);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "exec \"$@\" 2>/dev/full", "sh"]);
    command.arg(wrap.get_program()).args(wrap.get_args()).current_dir(world.path());
    command.env("HOLDPOINT_LOG", "trace");
    let mut pipe = Pipe::of(command);
    pipe.tell(&json!({ "jsonrpc": "2.0", "id": 0, "method": "tools/list" }));
    pipe.answer(0);
    for id in 1..20 {
        let path = world.files().join(id.to_string());
        let answer = pipe.call(id, "touch", json!({ "path": path }));
        assert_eq!(reason(&answer), "answered", "{answer}");
    }
    drop(pipe);
    world.must(&["verify"]);
}
