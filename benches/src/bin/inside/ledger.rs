//! Durable records per second: through the store, beside a raw file and a bare SQLite table that
//! commit in groups just as the store does. Must never count a record before it is durable.

use anyhow::{Context, bail};
use holdpoint_bench::{Latencies, SAID};
use holdpoint_ledger::encode;
use holdpoint_server::store::{Access, Admission, Store, StoreOptions};
use holdpoint_types::{
    ActionId, ActionRecord, AgentFacts, Cause, ClassSource, Decision, DecisionRecord, Digest, Door,
    EffectClass, Epoch, Facts, Field, GatewayId, GrantFacts, Lineage, Mode, Reason, Record,
    RecordBody, Request, Ruling, TargetFacts, Timestamp, ToolFacts, ToolState,
};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Most records in one group.
const GROUP_MAX: usize = 1_024;

/// Bytes that wait to be durable, and who waits.
type Job = (Arc<Vec<u8>>, oneshot::Sender<()>);

/// A way to make records durable.
#[derive(Clone)]
enum Way {
    Store(Store),
    Raw(SyncSender<Job>, Arc<Vec<u8>>),
}

/// `waiters` tasks that each write a record, wait until it is durable, and write the next.
pub(super) fn measure(
    way: &str,
    (waiters, seconds): (usize, f64),
    folder: &Path,
) -> anyhow::Result<Value> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    std::fs::create_dir_all(folder)?;
    let bytes = Arc::new(encode(&record(0)?)?);
    let record_bytes = bytes.len();
    let way = match way {
        "store" => Way::Store(Store::open(
            folder,
            StoreOptions::new(GatewayId::new(Timestamp(1), [1; 10]), Access::Govern),
        )?),
        "file" => Way::Raw(into_file(&folder.join("raw.log"))?, bytes),
        "sqlite" => Way::Raw(into_sqlite(&folder.join("raw.db"))?, bytes),
        _ => bail!("a way is `store`, `file` or `sqlite`, not `{way}`"),
    };
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let latencies = runtime.block_on(async {
        let tasks = (0..waiters).map(|_| tokio::spawn(way.clone().write_until(end)));
        let mut all = Latencies::default();
        for task in tasks.collect::<Vec<_>>() {
            all.merge(task.await??);
        }
        anyhow::Ok(all)
    })?;
    let per_second = latencies.count() as f64 / seconds;
    let mut report = latencies.report();
    report["per_second"] = per_second.into();
    report["record_bytes"] = record_bytes.into();
    Ok(report)
}

// === impl Way ===

impl Way {
    async fn write_until(self, end: Instant) -> anyhow::Result<Latencies> {
        let mut latencies = Latencies::default();
        let mut number = 0;
        loop {
            let begun = Instant::now();
            if begun >= end {
                return Ok(latencies);
            }
            number += 1;
            match &self {
                Self::Store(store) => match store.admit(record(number)?, Epoch(0)).await? {
                    Admission::Recorded { .. } => {}
                    other => bail!("not recorded: {other:?}"),
                },
                Self::Raw(queue, bytes) => {
                    let (tell, told) = oneshot::channel();
                    queue.send((Arc::clone(bytes), tell)).context("the writer ended")?;
                    told.await?;
                }
            }
            latencies.add(begun.elapsed());
        }
    }
}

fn into_file(path: &Path) -> anyhow::Result<SyncSender<Job>> {
    let mut file = File::create(path)?;
    Ok(spawn(move |group| {
        let all: Vec<u8> = group.iter().flat_map(|(bytes, _)| bytes.iter().copied()).collect();
        file.write_all(&all)?;
        Ok(file.sync_data()?)
    }))
}

fn into_sqlite(path: &Path) -> anyhow::Result<SyncSender<Job>> {
    let mut database = Connection::open(path)?;
    let _mode: String = database.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    database.pragma_update(None, "synchronous", "FULL")?;
    database.execute_batch("CREATE TABLE records (seq INTEGER PRIMARY KEY, body BLOB NOT NULL)")?;
    Ok(spawn(move |group| {
        let txn = database.transaction()?;
        for (bytes, _) in group {
            let mut insert = txn.prepare_cached("INSERT INTO records (body) VALUES (?1)")?;
            insert.execute([bytes.as_slice()])?;
        }
        Ok(txn.commit()?)
    }))
}

/// A thread that takes all that waits, makes it durable at once, and tells everybody.
fn spawn(mut commit: impl FnMut(&[Job]) -> anyhow::Result<()> + Send + 'static) -> SyncSender<Job> {
    let (queue, jobs): (_, Receiver<Job>) = sync_channel(GROUP_MAX);
    std::thread::spawn(move || {
        while let Ok(first) = jobs.recv() {
            let mut group = vec![first];
            group.extend(jobs.try_iter().take(GROUP_MAX));
            if commit(&group).is_err() {
                // Who waits hears that nobody will answer.
                return;
            }
            for (_, tell) in group {
                let _ = tell.send(());
            }
        }
    });
    queue
}

/// A decision as the gateway records one.
fn record(number: u64) -> anyhow::Result<Record> {
    let at = Timestamp(1_753_000_000_000);
    let mut random = [0; 10];
    random[2..].copy_from_slice(&number.to_be_bytes());
    let (action, agent, tool) = (ActionId::new(at, random), "caller".parse()?, "echo__echo");
    let request = Request {
        action,
        agent: "caller".parse()?,
        door: Door::McpHttp,
        tool: tool.parse()?,
        parameters: json!({ "text": SAID }),
        task: None,
        intent: None,
        retrieved: Vec::new(),
        at,
        host_call: None,
    };
    let reason = Reason::PermittedByPolicy;
    let decision = Decision::from_iter([Cause::new(Ruling::Permit, reason, reason.meaning())]);
    let (facts, guards, checks) = (facts()?, Default::default(), Vec::new());
    let more = DecisionRecord { request, facts, decision, guards, checks, approval: None };
    let lineage = lineage(tool)?;
    let body = RecordBody::Decision(Box::new(ActionRecord { action, agent, lineage, more }));
    Ok(Record { at_ms: at, gateway: GatewayId::new(Timestamp(1), [1; 10]), body })
}

fn facts() -> anyhow::Result<Facts> {
    Ok(Facts {
        agent: Some(AgentFacts { owner: Some("bench".parse()?), mode: Mode::Auto }),
        tool: Some(ToolFacts {
            definition: Digest::of(b"definition"),
            state: ToolState::Pinned,
            class: EffectClass::Read,
            class_source: ClassSource::Operator,
            open_world: true,
        }),
        grant: GrantFacts { by: Some("read echo__*".to_owned()) },
        target: TargetFacts {
            resource: "mcp://echo/echo".to_owned(),
            environment: "dev".to_owned(),
            environment_resolved: true,
            surfaces: Default::default(),
        },
        effects: Vec::new(),
        freezes: Default::default(),
        stops: Vec::new(),
        epoch: Epoch(0),
        findings: Vec::new(),
        preview: None,
        unseen: None,
        approval: None,
        plan: None,
        freeze_exceptions: Default::default(),
    })
}

fn lineage(tool: &str) -> anyhow::Result<Lineage> {
    let absent = "no post-action validator is configured";
    Ok(Lineage {
        user_intent: Field::Absent("nobody declared what the user wanted".to_owned()),
        policy_version: Field::Present(Digest::of(b"policy")),
        retrieved_context: Field::Absent("the agent declared nothing".to_owned()),
        tool: Field::Present(tool.parse()?),
        parameters: Field::Present(Digest::of(b"parameters")),
        target_resource: Field::Present("mcp://echo/echo".to_owned()),
        tool_output: Field::Absent("not executed yet".to_owned()),
        post_validation: Field::Absent(absent.to_owned()),
    })
}
