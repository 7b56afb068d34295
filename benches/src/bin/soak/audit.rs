//! The ledger read record by record, and held against what agents and servers saw.
//! Must never write to the store, nor believe the gateway where the ledger can be asked.

use crate::stage::{Seen, Stage};
use anyhow::{Context as _, bail};
use holdpoint_ledger::decode;
use holdpoint_types::{OutcomeStatus, Record, RecordBody, Ruling, Stop, StopId};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// Most breaches that are told in words.
const TOLD_MAX: usize = 20;

/// What the ledger says so far.
pub struct Audit {
    database: Connection,
    next: i64,
    /// What became of each text.
    fates: HashMap<String, Fate>,
    /// Permitted actions without an outcome, by id: their texts.
    open: HashMap<String, String>,
    stops: BTreeMap<StopId, Stop>,
    counts: BTreeMap<&'static str, u64>,
    permitted: u64,
    acknowledged: usize,
    effects: usize,
    checks: u64,
    reasons: BTreeMap<String, u64>,
    told: Vec<String>,
    broken: u64,
}

/// What the ledger says about the call with one text.
#[derive(Clone, Copy)]
enum Fate {
    Refused,
    Permitted,
    Ended(OutcomeStatus),
}

// === impl Audit ===

impl Audit {
    /// Opens the stage's ledger for reading.
    pub fn open(stage: &Stage) -> anyhow::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Connection::open_with_flags(stage.store().join("ledger.db"), flags)?;
        Ok(Self {
            database,
            next: 0,
            fates: HashMap::new(),
            open: HashMap::new(),
            stops: BTreeMap::new(),
            counts: BTreeMap::new(),
            permitted: 0,
            acknowledged: 0,
            effects: 0,
            checks: 0,
            reasons: BTreeMap::new(),
            told: Vec::new(),
            broken: 0,
        })
    }

    /// Reads what was recorded since the last time.
    pub fn read(&mut self, stage: &Stage) -> anyhow::Result<()> {
        let mut found = Vec::new();
        {
            let query = "SELECT seq, body FROM records WHERE seq >= ?1 ORDER BY seq";
            let mut query = self.database.prepare_cached(query)?;
            let mut rows = query.query([self.next])?;
            while let Some(row) = rows.next()? {
                let (seq, body): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
                found.push((seq, decode(&body).with_context(|| format!("record {seq}"))?));
            }
        }
        for (seq, record) in found {
            self.next = seq + 1;
            self.take(seq, record);
        }
        self.reasons = stage.reasons();
        Ok(())
    }

    /// Holds the ledger against what was seen before it was read.
    pub fn compare(&mut self, seen: &Seen) {
        self.acknowledged = seen.acknowledged.len();
        self.effects = seen.effects.len();
        for text in &seen.acknowledged {
            let fate = self.fates.get(text).copied();
            let sound = matches!(fate, Some(Fate::Ended(OutcomeStatus::Succeeded)));
            self.expect(sound, || format!("`{text}` was answered, recorded is {}", named(fate)));
        }
        let mut counts = HashMap::new();
        for text in &seen.effects {
            let permitted = matches!(self.fates.get(text), Some(Fate::Permitted | Fate::Ended(_)));
            self.expect(permitted, || format!("`{text}` ran without a record"));
            let forbidden = seen.stopped.contains(text);
            self.expect(!forbidden, || format!("`{text}` ran after its stop was acknowledged"));
            *counts.entry(text).or_insert(0_u32) += 1;
        }
        for (text, count) in counts {
            self.expect(count == 1, || format!("`{text}` ran {count} times"));
        }
    }

    /// Demands that every permitted action has an outcome.
    pub fn nothing_open(&mut self) -> anyhow::Result<()> {
        // By the records: the table of open actions follows them a block at a time.
        let open = self.open.len();
        self.expect(open == 0, || format!("{open} actions are stuck"));
        Ok(())
    }

    /// Runs `holdpoint verify`.
    pub fn verify(&mut self, stage: &Stage) -> anyhow::Result<()> {
        let output = stage.command().arg("verify").output()?;
        let told = String::from_utf8_lossy(&output.stdout);
        match output.status.code() {
            Some(0) => {}
            Some(5) => self.expect(false, || format!("the ledger does not verify: {told}")),
            _ => bail!("verify: {}", String::from_utf8_lossy(&output.stderr)),
        }
        self.checks += 1;
        Ok(())
    }

    /// Counts a breach unless `sound`.
    pub fn expect(&mut self, sound: bool, what: impl FnOnce() -> String) {
        if sound {
            return;
        }
        self.broken += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(what());
        }
    }

    /// How many promises were broken.
    pub fn broken(&self) -> u64 {
        self.broken
    }

    /// The ledger's columns of the table.
    pub fn row(&self) -> String {
        format!(
            "{:>8} {:>9} {:>12} {:>7} {:>6}",
            self.next, self.permitted, self.acknowledged, self.effects, self.broken
        )
    }

    fn take(&mut self, seq: i64, record: Record) {
        *self.counts.entry(record.body.kind()).or_default() += 1;
        match record.body {
            RecordBody::Decision(decided) => {
                let request = &decided.more.request;
                let text = request.parameters.get("text").and_then(Value::as_str);
                let text = text.unwrap_or_default().to_owned();
                let permitted = decided.more.decision.ruling() == Ruling::Permit;
                let stop = self.stops.values();
                let stop = stop.filter(|stop| stop.scope.covers(&decided.agent, &request.tool));
                let stopped = permitted && stop.count() > 0;
                self.expect(!stopped, || format!("record {seq} permits what was stopped"));
                let fate = if permitted { Fate::Permitted } else { Fate::Refused };
                let before = self.fates.insert(text.clone(), fate);
                self.expect(before.is_none(), || format!("`{text}` was decided twice"));
                if permitted {
                    self.permitted += 1;
                    self.open.insert(decided.action.to_string(), text);
                }
            }
            RecordBody::Outcome(ended) => match self.open.remove(&ended.action.to_string()) {
                Some(text) => {
                    self.fates.insert(text, Fate::Ended(ended.more.status));
                }
                None => self.expect(false, || format!("record {seq} ends what nobody permitted")),
            },
            RecordBody::Stopped { stop, .. } => {
                self.stops.insert(stop.id, stop);
            }
            RecordBody::Released { id, .. } => {
                self.stops.remove(&id);
            }
            // Nothing of what else there is counts here.
            _ => {}
        }
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ended = BTreeMap::new();
        for fate in self.fates.values() {
            *ended.entry(named(Some(*fate))).or_insert(0_u64) += 1;
        }
        writeln!(f, "records by kind: {}", list(&self.counts))?;
        writeln!(f, "calls by their end: {}", list(&ended))?;
        writeln!(f, "what agents were told instead of an answer: {}", list(&self.reasons))?;
        writeln!(f, "verified {} times; {} broken promises", self.checks, self.broken)?;
        self.told.iter().try_for_each(|told| writeln!(f, "  {told}"))
    }
}

fn list(counts: &BTreeMap<impl fmt::Display, u64>) -> String {
    let all: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    all.join(", ")
}

fn named(fate: Option<Fate>) -> &'static str {
    match fate {
        None => "nothing",
        Some(Fate::Refused) => "refused",
        Some(Fate::Permitted) => "no outcome",
        Some(Fate::Ended(status)) => status.as_str(),
    }
}
