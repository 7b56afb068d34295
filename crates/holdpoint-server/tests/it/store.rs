//! The store between processes: they share one log, die at any moment, and obey each other's stops.
//!
//! Children are this test binary again: [`child`] does what the environment says.

use holdpoint_server::store::{
    Access, Admission, RecordQuery, ReleaseOf, Store, StoreFault, StoreOptions,
};
use holdpoint_types::{
    ActionId, ActionRecord, AgentFacts, Cause, Decision, DecisionRecord, Door, Epoch, Facts, Field,
    GatewayId, GrantFacts, Lineage, Mode, OutcomeRecord, OutcomeStatus, Reason, Record, RecordBody,
    Request, Ruling, StopScope, TargetFacts, Timestamp,
};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Lines};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

const ROLE: &str = "HOLDPOINT_TEST_ROLE";
const DIR: &str = "HOLDPOINT_TEST_DIR";
/// How many calls a child has under way at the same time.
const CONCURRENT: u8 = 8;
/// How often a child is killed.
const KILLS: u64 = 48;
const NOBODY: u32 = 65_534;

/// A child process whose lines are read.
struct Spawned {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// One acknowledged admission, as a child printed it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Acknowledged {
    seq: u64,
    action: String,
}

// === impl Spawned ===

impl Spawned {
    fn new(program: &Path, role: &str, dir: &Path) -> Self {
        Self::start(Command::new(program), role, dir)
    }

    fn start(mut command: Command, role: &str, dir: &Path) -> Self {
        command.args(["--exact", "store::child", "--nocapture", "--test-threads=1"]);
        command.env(ROLE, role).env(DIR, dir).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line that says `word`, without that word.
    fn next(&mut self, word: &str) -> Option<String> {
        let line = self.lines.by_ref().map_while(Result::ok);
        let mut said = line.filter_map(|line| line.strip_prefix(word).map(str::to_owned));
        said.next()
    }

    fn next_acknowledged(&mut self) -> Option<Acknowledged> {
        let line = self.next("seq ")?;
        let (seq, action) = line.strip_suffix(" .")?.split_once(' ')?;
        Some(Acknowledged { seq: seq.parse().unwrap(), action: action.to_owned() })
    }

    fn end(mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}

fn this_program() -> std::path::PathBuf {
    std::env::current_exe().unwrap()
}

fn random_id<T>(make: impl Fn(Timestamp, [u8; 10]) -> T) -> T {
    let mut random = [0; 10];
    getrandom::fill(&mut random).unwrap();
    make(now(), random)
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_millis()).unwrap())
}

fn open(dir: &Path, access: Access) -> Result<Store, StoreFault> {
    Store::open(dir, StoreOptions::new(random_id(GatewayId::new), access))
}

fn lineage() -> Lineage {
    let none = || "test".to_owned();
    Lineage {
        user_intent: Field::Absent(none()),
        policy_version: Field::Absent(none()),
        retrieved_context: Field::Absent(none()),
        tool: Field::Present("db__query".parse().unwrap()),
        parameters: Field::Absent(none()),
        target_resource: Field::Absent(none()),
        tool_output: Field::Absent(none()),
        post_validation: Field::Absent(none()),
    }
}

fn permit(store: &Store, action: ActionId) -> Record {
    let request = Request {
        action,
        agent: "coder".parse().unwrap(),
        door: Door::McpStdio,
        tool: "db__query".parse().unwrap(),
        parameters: json!({ "sql": "SELECT 1" }),
        task: None,
        intent: None,
        retrieved: vec![],
        host_call: None,
        at: now(),
    };
    let target = TargetFacts {
        resource: "pg://prod/users".into(),
        environment: "prod".into(),
        environment_resolved: true,
        surfaces: BTreeSet::new(),
    };
    let facts = Facts {
        agent: Some(AgentFacts { owner: None, mode: Mode::Auto }),
        tool: None,
        grant: GrantFacts::default(),
        target,
        effects: Vec::new(),
        freezes: BTreeSet::new(),
        freeze_exceptions: Default::default(),
        stops: vec![],
        epoch: Epoch(0),
        findings: vec![],
        preview: None,
        unseen: None,
        approval: None,
        plan: None,
    };
    let decision = [Cause::new(Ruling::Permit, Reason::CouldNotDecide, "test")];
    let decision = Decision::from_iter(decision);
    let (guards, checks) = Default::default();
    let more = DecisionRecord { request, facts, decision, guards, checks, approval: None };
    let agent = "coder".parse().unwrap();
    let body = ActionRecord { action, agent, lineage: lineage(), more };
    let body = RecordBody::Decision(Box::new(body));
    Record { at_ms: now(), gateway: store.gateway(), body }
}

fn outcome(store: &Store, action: ActionId) -> Record {
    let status = OutcomeStatus::Succeeded;
    let more =
        OutcomeRecord { status, reason: None, detail: None, duration_ms: 0, checks: Vec::new() };
    let agent = "coder".parse().unwrap();
    let body = ActionRecord { action, agent, lineage: lineage(), more };
    let body = RecordBody::Outcome(Box::new(body));
    Record { at_ms: now(), gateway: store.gateway(), body }
}

/// Admits `count` actions one after the other, each followed by its outcome; says every
/// acknowledgement. Ends when the epoch moves.
async fn admit_many(store: Store, count: u64) {
    for _ in 0..count {
        let action = random_id(ActionId::new);
        match store.admit(permit(&store, action), Epoch(0)).await.unwrap() {
            Admission::Recorded { seq } => println!("seq {seq} {action} ."),
            Admission::EpochMoved { epoch } => {
                println!("moved {}", epoch.0);
                return;
            }
            Admission::ApprovalMoved => panic!("no approval is part of it"),
            Admission::PlanMoved => panic!("nobody has a plan"),
        }
        store.append_later(outcome(&store, action)).unwrap();
    }
}

async fn admit_concurrently(store: &Store, count: u64) {
    let tasks = (0..CONCURRENT).map(|_| tokio::spawn(admit_many(store.clone(), count)));
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    store.flush().await.unwrap();
}

async fn play(role: &str, dir: &Path) {
    match role {
        "few" => admit_concurrently(&open(dir, Access::Govern).unwrap(), 40).await,
        "endless" => admit_concurrently(&open(dir, Access::Govern).unwrap(), u64::MAX).await,
        "stop" => {
            let store = open(dir, Access::Operate).unwrap();
            let (reason, by) = ("test".to_owned(), "ana".to_owned());
            let (stop, epoch) = store.stop(StopScope::All, reason, by, now()).await.unwrap();
            println!("stopped {} {}", stop.id, epoch.0);
        }
        "look" => {
            let govern = open(dir, Access::Govern).unwrap_err();
            println!("govern {}", refusal(&govern));
            let store = open(dir, Access::ReadOnly).unwrap();
            println!("read {}", store.records(&RecordQuery::default()).unwrap().len());
            println!("verified {}", Store::verify(dir, store.verifier(), None).unwrap().records);
        }
        other => panic!("no role `{other}`"),
    }
}

fn refusal(fault: &StoreFault) -> &'static str {
    match fault {
        StoreFault::NotOurs { .. } => "not ours",
        StoreFault::NotWritable { .. } => "not writable",
        _ => "otherwise",
    }
}

/// What a child does; nothing when the tests run it as one of them.
#[test]
fn child() {
    let (Ok(role), Ok(dir)) = (std::env::var(ROLE), std::env::var(DIR)) else { return };
    println!();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(play(&role, Path::new(&dir)));
}

fn verified_size(dir: &Path) -> u64 {
    let key = std::fs::read_to_string(dir.join("ledger.pub")).unwrap();
    Store::verify(dir, &key.trim_end().parse().unwrap(), None).unwrap().records
}

/// The action of every decision in the log, by position.
fn decisions(store: &Store) -> BTreeMap<u64, ActionId> {
    let kind = Some("decision".to_owned());
    let query = RecordQuery { kind, limit: u32::MAX, ..RecordQuery::default() };
    let records = store.records(&query).unwrap().into_iter();
    let action = |body: &RecordBody| match body {
        RecordBody::Decision(decision) => decision.action,
        other => panic!("a {}", other.kind()),
    };
    records.map(|record| (record.seq, action(&record.record.body))).collect()
}

#[test]
fn two_processes_keep_one_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut children = [(); 2].map(|()| Spawned::new(&this_program(), "few", dir.path()));
    let mut acknowledged = BTreeSet::new();
    for child in &mut children {
        while let Some(next) = child.next_acknowledged() {
            assert!(acknowledged.insert(next));
        }
    }
    children.into_iter().for_each(Spawned::end);
    let all = 2 * u64::from(CONCURRENT) * 40;
    assert_eq!(acknowledged.len() as u64, all);
    assert_eq!(verified_size(dir.path()), 2 * all);
    let store = open(dir.path(), Access::ReadOnly).unwrap();
    let found = decisions(&store).into_iter();
    let found = found.map(|(seq, action)| Acknowledged { seq, action: action.to_string() });
    assert_eq!(found.collect::<BTreeSet<_>>(), acknowledged);
    assert_eq!(store.in_doubt(), Ok(vec![]));
}

#[test]
fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 0..KILLS {
        let mut child = Spawned::new(&this_program(), "endless", dir.path());
        // A different moment each round: 1 to 97 acknowledgements.
        for _ in 0..=(round * 37 % 97) {
            acknowledged.insert(child.next_acknowledged().unwrap());
        }
        child.child.kill().unwrap();
        // What it had said before it died counts too.
        while let Some(next) = child.next_acknowledged() {
            acknowledged.insert(next);
        }
        assert!(!child.child.wait().unwrap().success());
        let size = verified_size(dir.path());
        assert!(acknowledged.last().unwrap().seq < size, "round {round}");
    }
    let store = open(dir.path(), Access::Govern).unwrap();
    let found = decisions(&store);
    for Acknowledged { seq, action } in &acknowledged {
        assert_eq!(found.get(seq).map(ToString::to_string).as_ref(), Some(action));
    }
    // Every decision without an outcome is in doubt now: its process is dead.
    let done = |action: &ActionId| store.of_action(*action).unwrap().len() == 2;
    let open: BTreeSet<_> = found.into_values().filter(|action| !done(action)).collect();
    assert_eq!(store.in_doubt().unwrap().into_iter().collect::<BTreeSet<_>>(), open);
}

#[test]
fn a_stop_by_another_process_ends_all_admissions() {
    let dir = tempfile::tempdir().unwrap();
    let mut governing = [(); 2].map(|()| Spawned::new(&this_program(), "endless", dir.path()));
    for child in &mut governing {
        child.next_acknowledged().unwrap();
    }
    let mut stopping = Spawned::new(&this_program(), "stop", dir.path());
    assert_eq!(stopping.next("stopped ").as_deref(), Some("1 1"));
    stopping.end();
    let store = open(dir.path(), Access::Operate).unwrap();
    let kind = Some("stopped".to_owned());
    let stops = store.records(&RecordQuery { kind, ..RecordQuery::default() }).unwrap();
    for mut child in governing {
        // Each of its calls comes back with the new epoch, and the process ends by itself.
        assert_eq!(child.next("moved ").as_deref(), Some("1"));
        while child.next("moved ").is_some() {}
        child.end();
    }
    let last = decisions(&store).into_keys().next_back().unwrap();
    assert!(last < stops[0].seq, "decision {last} after stop {}", stops[0].seq);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let what = ReleaseOf::Scope(StopScope::All);
    let release = store.release(what, "test".to_owned(), "ben".to_owned(), now());
    let (released, epoch) = runtime.block_on(release).unwrap();
    assert_eq!((released.len(), epoch), (1, Epoch(2)));
    verified_size(dir.path());
}

#[test]
fn a_folder_that_cannot_be_written_can_be_read_and_verified() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Spawned::new(&this_program(), "few", dir.path());
    while child.next_acknowledged().is_some() {}
    child.end();
    let size = verified_size(dir.path());

    // Root writes everywhere: look as somebody else, with a program that they can reach.
    let root = rustix::process::geteuid().is_root();
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    let elsewhere = tempfile::tempdir().unwrap();
    let program = elsewhere.path().join("look");
    std::fs::copy(this_program(), &program).unwrap();
    mode(elsewhere.path(), 0o755);
    // What is kept from others by default is handed out.
    mode(&dir.path().join("ledger.db"), 0o444);
    mode(&dir.path().join("run"), 0o555);
    mode(dir.path(), 0o555);
    let mut command = Command::new(&program);
    if root {
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut child = Spawned::start(command, "look", dir.path());
    let refusal = if root { "not ours" } else { "not writable" };
    assert_eq!(child.next("govern ").as_deref(), Some(refusal));
    assert_eq!(child.next("read ").as_deref(), Some("100"));
    assert_eq!(child.next("verified ").map(|text| text.parse()), Some(Ok(size)));
    while child.next("").is_some() {}
    child.end();
    mode(dir.path(), 0o755);
}

#[test]
fn a_store_is_its_owners_alone_whatever_the_umask() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    let mut command = Command::new("sh");
    command.args(["-c", "umask 000; exec \"$@\"", "sh"]).arg(this_program());
    let mut child = Spawned::start(command, "endless", &dir);
    child.next_acknowledged().unwrap();
    let mode = |name: &str| dir.join(name).metadata().unwrap().permissions().mode() & 0o777;
    for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.key"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    assert_eq!((mode(""), mode("run")), (0o700, 0o700));
    child.child.kill().unwrap();
    child.child.wait().unwrap();
}
