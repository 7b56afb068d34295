//! The operator's commands, run as an operator runs them, on a store that is filled here.

use holdpoint_control::decide;
use holdpoint_policy::{PolicySet, starter_pack};
use holdpoint_server::store::{Access, Pin, Store, StoreOptions};
use holdpoint_types::{
    ActionId, ActionRecord, AgentFacts, ClassSource, DecisionRecord, Digest, Door, EffectClass,
    Facts, Field, GatewayId, GrantFacts, Lineage, Mode, OutcomeRecord, OutcomeStatus, Record,
    RecordBody, Request, TargetFacts, Timestamp, ToolFacts, ToolRef, ToolState, canonical_digest,
};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

const CONFIG: &str = "# kept\n[team.platform]\n\n[agent.coder]\nowner = \"platform\"\n\
    grants = [{ class = \"read\", tools = [\"fs__*\"] }]\n\n[server.fs]\ncommand = [\"fs\"]\n\
    read = [\"read_*\"]\n";

/// A folder with a configuration and perhaps a store.
struct Desk {
    dir: TempDir,
}

/// A process that is killed when a test fails.
struct Running(Child);

// === impl Desk ===

impl Desk {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("hp").tempdir().unwrap();
        std::fs::write(dir.path().join("holdpoint.toml"), CONFIG).unwrap();
        Self { dir }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdpoint"));
        command.current_dir(self.dir.path()).env_remove("HOLDPOINT_CONFIG");
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs the program; gives its exit code, standard output and standard error.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }

    /// Runs the program and demands this exit code; gives its standard output.
    fn expect(&self, code: i32, arguments: &[&str]) -> String {
        let (found, out, err) = self.run(arguments);
        assert_eq!(found, code, "{arguments:?}\n{out}\n{err}");
        out
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--format", "json"];
        all.extend(arguments);
        serde_json::from_str(&self.expect(0, &all)).unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> String {
        std::fs::read_to_string(self.file("holdpoint.toml")).unwrap()
    }

    fn store(&self) -> Store {
        let gateway = GatewayId::new(now(), [9; 10]);
        Store::open(&self.file(".holdpoint"), StoreOptions::new(gateway, Access::Govern)).unwrap()
    }
}

// === impl Running ===

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn append(store: &Store, body: RecordBody) {
    let record = Record { at_ms: now(), gateway: store.gateway(), body };
    wait(store.append(record)).unwrap();
}

/// Records that the starter pack is in force, then the decision about one call.
fn decide_one(store: &Store, (class, tool): (EffectClass, &str)) -> ActionId {
    let set = PolicySet::load(&starter_pack()).unwrap();
    let sources = set.sources().to_vec();
    append(store, RecordBody::PolicyLoaded { policy: set.digest(), sources, guard: None });
    let action =
        ActionId::new(now(), Digest::of(tool.as_bytes()).as_bytes()[..10].try_into().unwrap());
    let request = Request {
        action,
        agent: "coder".parse().unwrap(),
        door: Door::McpStdio,
        tool: tool.parse().unwrap(),
        parameters: json!({ "path": "x\u{1b}[2J" }),
        task: None,
        intent: None,
        retrieved: vec![],
        host_call: None,
        at: now(),
    };
    let facts = facts(class);
    let policy = set.digest();
    let decision = decide(&request, &facts, &set.into());
    let lineage = lineage(&request, policy);
    let agent = request.agent.clone();
    let (guards, checks) = Default::default();
    let more = DecisionRecord { request, facts, decision, guards, checks, approval: None };
    append(store, RecordBody::Decision(Box::new(ActionRecord { action, agent, lineage, more })));
    action
}

fn facts(class: EffectClass) -> Facts {
    Facts {
        agent: Some(AgentFacts { owner: "platform".parse().ok(), mode: Mode::Auto }),
        tool: Some(ToolFacts {
            definition: Digest::of(b""),
            state: ToolState::Pinned,
            class,
            class_source: ClassSource::Operator,
            open_world: false,
        }),
        grant: GrantFacts { by: (class == EffectClass::Read).then(|| "read fs__*".to_owned()) },
        target: TargetFacts {
            resource: "file:///srv/x".to_owned(),
            environment: "dev".to_owned(),
            environment_resolved: true,
            surfaces: Default::default(),
        },
        effects: Vec::new(),
        freezes: Default::default(),
        freeze_exceptions: Default::default(),
        stops: vec![],
        epoch: Default::default(),
        findings: vec![],
        preview: None,
        unseen: None,
        approval: None,
        plan: None,
    }
}

fn lineage(request: &Request, policy: Digest) -> Lineage {
    let absent = || "nobody said".to_owned();
    Lineage {
        user_intent: Field::Absent(absent()),
        policy_version: Field::Present(policy),
        retrieved_context: Field::Absent(absent()),
        tool: Field::Present(request.tool.clone()),
        parameters: Field::Present(canonical_digest(&request.parameters).unwrap()),
        target_resource: Field::Present("file:///srv/x".to_owned()),
        tool_output: Field::Absent(absent()),
        post_validation: Field::Absent(absent()),
    }
}

/// Records that an action succeeded.
fn succeed(store: &Store, action: ActionId) {
    let records = store.of_action(action).unwrap();
    let RecordBody::Decision(decision) = &records[0].record.body else { panic!("a decision") };
    let (agent, lineage) = (decision.agent.clone(), decision.lineage.clone());
    let (status, reason, detail) = (OutcomeStatus::Succeeded, None, None);
    let more = OutcomeRecord { status, reason, detail, duration_ms: 5, checks: Vec::new() };
    append(store, RecordBody::Outcome(Box::new(ActionRecord { action, agent, lineage, more })));
}

#[test]
fn a_stop_without_a_server_is_in_the_store_until_it_is_released() {
    let desk = Desk::new();
    let (code, _, err) = desk.run(&["status"]);
    assert_eq!(code, 1, "a store that does not exist is not made by looking: {err}");
    for wrong in [
        &["stop", "--reason", "x"][..],
        &["stop", "--all"],
        &["stop", "--all", "--reason", " "],
        &["stop", "--all", "--agent", "coder", "--reason", "x"],
        &["release", "1", "--all", "--reason", "x"],
        &["release", "--reason", "x"],
    ] {
        desk.expect(2, wrong);
    }
    let (code, _, err) = desk.run(&["stop", "--all", "--reason", "now"]);
    assert!(code == 1 && !desk.file(".holdpoint").exists(), "nobody would obey it: {err}");
    drop(desk.store());
    let text = desk.expect(0, &["stop", "--agent", "coder", "--reason", "it deletes"]);
    assert!(text.starts_with("stop 1 on agent:coder is in force\n"), "{text}");
    assert!(text.contains("no process governs now"), "{text}");
    desk.expect(0, &["stop", "--tool", "fs__rm", "--reason", "me too"]);

    let nothing = desk.expect(1, &["release", "--all", "--reason", "done"]);
    assert!(nothing.contains("stop 1 on agent:coder"), "`--all` is not every stop: {nothing}");
    let status = desk.json(&["status"]);
    assert_eq!((&status["epoch"], status["stops"].as_array().unwrap().len()), (&json!(2), 2));

    let released = desk.json(&["release", "--agent", "coder", "--reason", "looked at"]);
    assert_eq!(released["stops"][0]["id"], 1);
    assert_eq!(released["in_force"][0]["scope"], "tool:fs__rm");
    desk.expect(0, &["release", "2", "--reason", "done"]);
    let text = desk.expect(1, &["release", "2", "--reason", "done"]);
    assert!(text.contains("no stop is in force"), "{text}");
}

#[test]
fn a_stop_works_without_a_readable_configuration() {
    let desk = Desk::new();
    drop(desk.store());
    std::fs::write(desk.file("holdpoint.toml"), "broken = ").unwrap();
    desk.expect(2, &["stop", "--all", "--reason", "now"]);
    desk.expect(0, &["stop", "--all", "--reason", "now", "--store", ".holdpoint"]);
    let (code, _, err) = desk.run(&["stop", "--all", "--reason", "now", "--store", ".holdpiont"]);
    assert!(code == 1 && !desk.file(".holdpiont").exists(), "nobody would obey it: {err}");
    let text = desk.expect(0, &["status", "--store", ".holdpoint"]);
    assert!(text.contains("stop 1 on all"), "{text}");
}

#[test]
fn an_agent_is_declared_and_gets_keys() {
    let desk = Desk::new();
    assert_eq!(desk.json(&["agent", "list"])[0]["keys"], json!([]));
    let new = ["agent", "add", "bot.v2", "--owner", "platform", "--mode", "plan-only"];
    let text = desk.expect(0, &[&new[..], &["--grant", "read:fs__*"]].concat());
    let key = text.lines().find(|line| line.starts_with("hp_")).unwrap();
    assert!(desk.config().starts_with(CONFIG), "{}", desk.config());
    assert!(desk.config().contains("[agent.\"bot.v2\"]"), "{}", desk.config());
    assert!(!desk.expect(0, &["log"]).contains(key), "the key is nowhere");

    let again = desk.json(&new);
    assert_ne!(again["key"], key);
    let list = desk.json(&["agent", "list"]);
    assert_eq!((&list[0]["agent"], &list[0]["mode"]), (&json!("bot.v2"), &json!("plan-only")));
    assert_eq!(list[0]["keys"].as_array().unwrap().len(), 2);

    let before = desk.config();
    for (wrong, said) in [
        (&["agent", "add", "x", "--owner", "nobody"][..], "[team.nobody]"),
        (
            &[
                "agent", "add", "coder", "--owner", "platform", "--mode", "auto", "--grant",
                "read:*",
            ],
            "other grants",
        ),
        (&["agent", "add", "x", "--owner", "platform", "--grant", "destructive:*"], "in full"),
        (&["agent", "add", "X y", "--owner", "platform"], "agent name"),
    ] {
        let (code, _, err) = desk.run(wrong);
        assert_eq!(code, 2, "{err}");
        assert!(err.contains(said), "{err}");
    }
    assert_eq!(desk.config(), before);

    assert_eq!(desk.json(&["agent", "revoke", "bot.v2"])["revoked"], 2);
    assert_eq!(desk.json(&["agent", "revoke", "bot.v2"])["revoked"], 0);
    desk.expect(1, &["agent", "revoke", "nobody"]);
}

#[test]
fn an_action_can_be_found_explained_and_decided_again() {
    let desk = Desk::new();
    let (read, rm) = {
        let store = desk.store();
        let read = decide_one(&store, (EffectClass::Read, "fs__read_file"));
        succeed(&store, read);
        (read, decide_one(&store, (EffectClass::Destructive, "fs__rm")))
    };
    let last = desk.json(&["why", "last"]);
    assert_eq!((&last["action"], &last["state"]), (&json!(rm), &json!("refused")));
    let first = desk.json(&["why", &read.to_string()]);
    assert_eq!((&first["ruling"], &first["state"]), (&json!("permit"), &json!("ended")));
    for record in first["records"].as_array().unwrap() {
        assert_eq!(record["verified"], true, "{record}");
    }
    let text = desk.expect(0, &["why", &read.to_string()]);
    assert!(!text.contains('\u{1b}'), "{text}");
    // Both were decided within the same second, so only the random part tells them apart.
    let digits = read.to_string().replace('-', "");
    assert!(desk.run(&["why", &digits[..6]]).2.contains("more than one"));
    assert_eq!(desk.json(&["why", &digits[..20]])["action"], json!(read));
    desk.expect(1, &["why", "00000000"]);
    desk.expect(1, &["why", "00000000-0000-0000-0000-000000000000"]);
    desk.expect(2, &["why", "newest"]);

    let count = |arguments: &[&str]| {
        let mut all = vec!["log"];
        all.extend(arguments);
        desk.json(&all)["records"].as_array().unwrap().len()
    };
    assert_eq!(count(&["--kind", "decision"]), 2);
    assert_eq!(count(&["--decision", "permit"]), 1);
    assert_eq!(count(&["--tool", "fs__rm", "--agent", "coder", "--since", "1h"]), 1);
    assert_eq!(count(&["--until", "2020-01-01"]), 0);
    assert_eq!(count(&["--limit", "2"]), 2);
    assert_eq!(count(&["--in-doubt"]), 0);

    let replay = desk.json(&["replay"]);
    assert_eq!((&replay["same"], &replay["differing"]), (&json!(2), &json!(0)));
}

#[test]
fn an_action_without_an_outcome_is_in_doubt_once_its_process_is_gone() {
    let desk = Desk::new();
    let store = desk.store();
    let read = decide_one(&store, (EffectClass::Read, "fs__read_file"));
    assert_eq!(desk.json(&["why", "last"])["state"], "running");
    drop(store);
    assert_eq!(desk.json(&["why", "last"])["state"], "in_doubt");
    let doubts = desk.json(&["log", "--in-doubt"]);
    assert_eq!(doubts["records"][0]["action"], json!(read));
    assert_eq!(desk.json(&["log", "--in-doubt", "--agent", "other"])["records"], json!([]));
    assert_eq!(desk.json(&["status"])["in_doubt"], 1);
}

#[test]
fn a_changed_log_is_found_offline() {
    let desk = Desk::new();
    drop(desk.store());
    desk.expect(0, &["stop", "--all", "--reason", "first"]);
    std::fs::write(desk.file("kept"), desk.expect(0, &["checkpoint"])).unwrap();
    desk.expect(0, &["release", "1", "--reason", "second"]);
    let key = desk.json(&["checkpoint"])["key"].as_str().unwrap().to_owned();
    let (code, out, err) = desk.run(&["verify"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("verified: 2 records"), "{out}");
    assert!(err.contains("beside the log"), "{err}");
    let full = ["verify", "--key", &key, "--against", "kept"];
    assert_eq!(desk.json(&full)["verified"], true);
    desk.expect(2, &["verify", "--key", "no key"]);

    let database = rusqlite::Connection::open(desk.file(".holdpoint/ledger.db")).unwrap();
    let change = "UPDATE records SET body = \
        CAST(replace(CAST(body AS TEXT), 'first', 'other') AS BLOB) WHERE seq = 0";
    assert_eq!(database.execute(change, []).unwrap(), 1);
    drop(database);
    let text = desk.expect(5, &full);
    assert!(text.starts_with("NOT VERIFIED: record 0"), "{text}");
    desk.expect(1, &["log"]);

    let mut bytes = std::fs::read(desk.file(".holdpoint/ledger.db")).unwrap();
    bytes[..16].fill(0);
    std::fs::write(desk.file(".holdpoint/ledger.db"), bytes).unwrap();
    desk.expect(5, &full);
    desk.expect(1, &["verify", "--key", &key, "--store", "nowhere"]);
}

#[test]
fn a_changed_tool_is_shown_and_pinned() {
    let desk = Desk::new();
    let one =
        json!({ "name": "read_x", "description": "Reads.", "annotations": {"readOnlyHint": true} });
    let two = json!({ "name": "read_x", "description": "Reads and more." });
    let digest = |json: &Value| canonical_digest(json).unwrap();
    let tool: ToolRef = "fs__read_x".parse().unwrap();
    {
        let store = desk.store();
        let pin = Pin::new(tool.clone(), digest(&one), one.clone());
        wait(store.pin_first(vec![pin], now())).unwrap();
        let noted = store.note_quarantine(tool, digest(&one), digest(&two), two.clone(), now());
        assert!(wait(noted).unwrap());
    }
    let list = desk.json(&["tools"]);
    assert_eq!((&list[0]["state"], &list[0]["class"]), (&json!("changed"), &json!("read")));
    assert_eq!(list[0]["agents"][0]["agent"], "coder");
    let shown = desk.expect(0, &["tools", "show", "fs__read_x"]);
    assert!(shown.contains("+   \"description\": \"Reads and more.\""), "{shown}");
    let (code, _, err) = desk.run(&["tools", "show", "fs__read_y"]);
    assert!(code == 1 && err.contains("did you mean `fs__read_x`?"), "{err}");

    desk.expect(1, &["tools", "pin", "fs__read_x", "--digest", &digest(&one).to_string()]);
    assert_eq!(desk.json(&["tools"])[0]["state"], "changed");
    let pinned = desk.json(&["tools", "pin", "fs__read_x", "--digest", &digest(&two).to_string()]);
    assert_eq!(
        (&pinned["previous"], &pinned["definition"]),
        (&json!(digest(&one)), &json!(digest(&two)))
    );
    assert_eq!(desk.json(&["tools"])[0]["state"], "pinned");
    let again = desk.expect(0, &["tools", "pin", "fs__read_x"]);
    assert!(again.contains("did not change"), "{again}");
    assert!(desk.expect(0, &["tools", "suggest", "fs"]).contains("\"read_x\""));
    desk.expect(1, &["tools", "suggest", "other"]);
}

#[test]
fn a_tail_shows_what_comes_and_ends_when_told() {
    let desk = Desk::new();
    drop(desk.store());
    desk.expect(0, &["stop", "--all", "--reason", "before"]);
    desk.expect(0, &["release", "1", "--reason", "also before"]);
    let tail = |arguments: &[&str]| {
        let mut child = desk.command(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        (Running(child), out)
    };
    let next = |out: &mut BufReader<_>| {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        serde_json::from_str::<Value>(&line).unwrap()
    };
    let (mut child, mut out) = tail(&["--format", "json", "tail", "--last", "1"]);
    assert_eq!(next(&mut out)["reason"], "also before");
    desk.expect(0, &["stop", "--all", "--reason", "now"]);
    assert_eq!(next(&mut out)["stop"]["reason"], "now");
    let pid = rustix::process::Pid::from_child(&child.0);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(0));

    let (mut child, mut out) = tail(&["--format", "json", "log", "--follow", "--limit", "1"]);
    assert_eq!(next(&mut out)["kind"], "stopped");
    drop(out);
    desk.expect(0, &["release", "2", "--reason", "nobody reads this"]);
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
}
