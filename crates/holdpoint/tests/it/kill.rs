//! `kill -9` at many points of a load of writes: nothing runs unrecorded, nothing that was
//! acknowledged is lost, and what is in doubt is listed, not guessed.

use crate::raw::{Pipe, call, post, reason};
use crate::world::{PATIENCE, PEER, World, npm_server, until};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// How many writes are asked for in one round.
const LOAD: usize = 24;

/// A second server, which is not ours.
const FILESYSTEM: &str = r#"
[server.fs]
command = ["node", "${npm:filesystem}", "${files}"]
environment = "dev"
write = ["write_file"]
tool.write_file.resource = "file://{/path}"
"#;

/// When the process is killed.
#[derive(Clone, Copy, Debug)]
enum When {
    /// After this many answers.
    Answers(usize),
    /// This long after the load began.
    After(Duration),
}

// === impl When ===

impl When {
    /// Points that are spread over the whole of a round.
    fn spread(rounds: usize) -> impl Iterator<Item = Self> {
        (0..rounds).map(move |round| match round % 2 {
            0 => Self::Answers(round * LOAD / rounds),
            _ => Self::After(Duration::from_micros(round as u64 * 2_000)),
        })
    }
}

/// The file that one write of one round makes.
fn file(world: &World, round: usize, write: usize) -> PathBuf {
    world.files().join(format!("{round}-{write}"))
}

fn id_of(round: usize, write: usize) -> i64 {
    i64::try_from(round * 1000 + write).unwrap()
}

/// Collects the ids that were acknowledged until the moment to kill.
fn acknowledged(pipe: &Pipe, when: When) -> BTreeSet<i64> {
    let began = Instant::now();
    let mut ids = BTreeSet::new();
    let mut note = |answer: Value| {
        assert_eq!(reason(&answer), "answered", "{answer}");
        ids.insert(answer["id"].as_i64().unwrap());
    };
    match when {
        When::Answers(answers) => (0..answers).for_each(|_| note(pipe.next().unwrap())),
        When::After(time) => {
            while let Some(left) = time.checked_sub(began.elapsed()) {
                if let Some(answer) = pipe.next_within(left) {
                    note(answer);
                }
            }
        }
    }
    ids
}

/// One round with a wrap: the paths whose writes were acknowledged.
fn kill_wrap(world: &World, round: usize, when: When) -> Vec<PathBuf> {
    let mut pipe = Pipe::wrap(world);
    assert_eq!(reason(&pipe.call("up", "echo", json!({ "text": "" }))), "answered");
    for write in 0..LOAD {
        pipe.begin(id_of(round, write), "touch", json!({ "path": file(world, round, write) }));
    }
    let mut ids = acknowledged(&pipe, when);
    pipe.kill();
    // What was on its way when it died counts as acknowledged too.
    while let Some(answer) = pipe.next() {
        assert_eq!(reason(&answer), "answered", "{answer}");
        ids.insert(answer["id"].as_i64().unwrap());
    }
    let all = (0..LOAD).filter(|write| ids.contains(&id_of(round, *write)));
    all.map(|write| file(world, round, write)).collect()
}

/// One round with a serve and concurrent clients.
fn kill_serve(world: &World, key: &str, round: usize, when: When) -> Vec<PathBuf> {
    let serve = world.serve();
    let up = post(&serve, ("/peer", key), &call("up", "echo", json!({ "text": "" })));
    assert_eq!(reason(&up.body), "answered");
    let (tell, told) = channel();
    std::thread::scope(|scope| {
        for client in 0..4 {
            let (tell, serve) = (tell.clone(), &serve);
            scope.spawn(move || {
                for write in (0..LOAD).filter(|write| write % 4 == client) {
                    let path = file(world, round, write);
                    let message = call(1, "touch", json!({ "path": path }));
                    let Some(answer) = crate::raw::try_post(serve, ("/peer", key), &message) else {
                        return;
                    };
                    assert_eq!(reason(&answer.body), "answered", "{answer:?}");
                    tell.send(path).unwrap();
                }
            });
        }
        drop(tell);
        let mut paths = Vec::new();
        match when {
            When::Answers(answers) => {
                paths.extend((0..answers).map(|_| told.recv_timeout(PATIENCE).unwrap()));
            }
            When::After(time) => std::thread::sleep(time),
        }
        serve.kill_now();
        paths.extend(told.iter());
        paths
    })
}

/// Checks everything that must hold after the kills. `tool` made the files.
fn check(world: &World, tool: &str, acknowledged: &[PathBuf]) {
    // A server that lost its governor may still work off what it was given.
    until("the servers are gone", || world.processes("node").is_empty().then_some(()));
    world.must(&["verify"]);
    world.must(&["replay"]);
    let records = world.records();
    let is = |kind: &'static str| records.iter().filter(move |record| record["kind"] == kind);
    let of_tool = |record: &&Value| record["lineage"]["tool"]["present"] == tool;
    let permitted: BTreeMap<&str, &Value> = is("decision")
        .filter(of_tool)
        .filter(|record| record["decision"].as_array().unwrap().len() == 1)
        .map(|record| (record["request"]["parameters"]["path"].as_str().unwrap(), record))
        .collect();
    let made = std::fs::read_dir(world.files()).unwrap();
    let made: Vec<_> = made.map(|entry| entry.unwrap().path()).collect();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    for path in &made {
        let decision = permitted.get(text(path).as_str());
        let decision = decision.unwrap_or_else(|| panic!("{} ran unrecorded", path.display()));
        assert_eq!(decision["decision"][0]["ruling"], "permit", "{decision}");
    }
    for path in acknowledged {
        assert!(permitted.contains_key(text(path).as_str()), "{} was lost", path.display());
        assert!(made.contains(path), "{} was not made", path.display());
    }

    let ended: BTreeSet<_> = is("outcome").map(|record| record["action"].as_str()).collect();
    let open = is("decision").filter(|record| {
        let causes = record["decision"].as_array().unwrap();
        causes.iter().all(|cause| cause["ruling"] == "permit")
            && !ended.contains(&record["action"].as_str())
    });
    let open: BTreeSet<_> = open.map(|record| record["action"].clone().to_string()).collect();
    assert!(!open.is_empty(), "no kill fell between a decision and its outcome");
    assert_eq!(in_doubt(world), open);
    // Who starts next says so in the log, and guesses nothing.
    world.serve().end();
    let started = world.records().into_iter().rfind(|record| record["kind"] == "started").unwrap();
    let said = started["in_doubt"].as_array().unwrap().iter().map(Value::to_string);
    assert_eq!(said.collect::<BTreeSet<_>>(), open);
    assert_eq!(in_doubt(world), open);
    let outcomes = world.records().into_iter().filter(|record| record["kind"] == "outcome");
    assert_eq!(outcomes.count(), is("outcome").count());
    world.must(&["verify"]);
}

fn in_doubt(world: &World) -> BTreeSet<String> {
    let answer = world.json(&["log", "--in-doubt", "--limit", "1000000"]);
    let records = answer["records"].as_array().unwrap();
    records.iter().map(|record| record["action"].to_string()).collect()
}

#[test]
fn a_killed_wrap_ran_nothing_unrecorded_and_lost_nothing_acknowledged() {
    let world = World::new(PEER);
    let mut acknowledged = Vec::new();
    for (round, when) in When::spread(32).enumerate() {
        acknowledged.extend(kill_wrap(&world, round, when));
    }
    assert!(!acknowledged.is_empty());
    check(&world, "peer__touch", &acknowledged);
}

#[test]
fn a_killed_serve_ran_nothing_unrecorded_and_lost_nothing_acknowledged() {
    let world = World::new(PEER);
    let key = world.key("coder");
    let mut acknowledged = Vec::new();
    for (round, when) in When::spread(16).enumerate() {
        acknowledged.extend(kill_serve(&world, &key, round, when));
    }
    assert!(!acknowledged.is_empty());
    check(&world, "peer__touch", &acknowledged);
}

#[test]
fn a_killed_wrap_of_a_server_that_is_not_ours_keeps_the_same_promises() {
    let grant = r#"{ class = "destructive", tools = ["fs__write_file"] }]"#;
    let config = PEER.replace("{ class = \"write\", tools = [\"*\"] }]", grant);
    let world = World::new(&format!("{config}{FILESYSTEM}"));
    let (program, files) = (npm_server("filesystem"), world.files());
    let (program, files) = (program.to_str().unwrap(), files.to_str().unwrap());
    let mut acknowledged = Vec::new();
    for (round, when) in When::spread(4).enumerate() {
        let words = ["wrap", "--agent", "coder", "--server", "fs", "--", "node", program, files];
        let mut pipe = Pipe::of(world.command(&words));
        pipe.tell(&json!({ "jsonrpc": "2.0", "id": "up", "method": "initialize", "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": { "name": "test", "version": "1" },
        } }));
        pipe.answer("up");
        pipe.tell(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        for write in 0..LOAD {
            let path = file(&world, round, write);
            let arguments = json!({ "path": path, "content": "written" });
            pipe.begin(id_of(round, write), "write_file", arguments);
        }
        let ids = self::acknowledged(&pipe, when);
        pipe.kill();
        let all = (0..LOAD).filter(|write| ids.contains(&id_of(round, *write)));
        acknowledged.extend(all.map(|write| file(&world, round, write)));
    }
    assert!(!acknowledged.is_empty());
    // The server writes a file beside it first, and renames it.
    until("the servers are gone", || world.processes("node").is_empty().then_some(()));
    for entry in std::fs::read_dir(world.files()).unwrap().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "tmp") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    check(&world, "fs__write_file", &acknowledged);
}
