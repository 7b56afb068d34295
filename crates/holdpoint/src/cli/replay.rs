//! `holdpoint replay`: decides every recorded action again, from its recorded request, facts and
//! policies, and compares byte for byte. Must look at nothing but the ledger.

use super::log::parse_time;
use super::look::{Look, Tone, count, escaped, json_lines};
use super::operator::StoreArgs;
use super::{Exit, Format, Globals, answer};
use holdpoint_control::decide;
use holdpoint_policy::{Guard, PolicySet, PolicySets};
use holdpoint_server::policies::recorded_guard;
use holdpoint_server::store::{Access, RecordQuery, Store, StoredRecord};
use holdpoint_types::{
    ActionId, ActionRecord, Decision, DecisionRecord, Digest, Field, GatewayId, GuardRecord,
    PolicySource, RecordBody, Timestamp, canonical_bytes,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;

/// How many records are read at a time.
const PAGE: u32 = 500;
/// How many differences are shown; all are counted.
const SHOWN_MAX: usize = 50;

/// Decide every recorded action again, and report any difference.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only decisions from this time on: `1h`, `2 days`, or RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<Timestamp>,
    #[command(flatten)]
    store: StoreArgs,
}

/// What came of deciding again.
#[derive(Debug, Default)]
struct Replay {
    since: Option<Timestamp>,
    policies: BTreeMap<Digest, Arc<PolicySet>>,
    guards: BTreeMap<Digest, Arc<Guard>>,
    /// The guard sets that each process had in force.
    guarding: BTreeMap<GatewayId, BTreeMap<String, Guarding>>,
    /// The newest version of each guard set that was in force.
    newest: BTreeMap<String, u64>,
    /// Policy sets that could not be loaded as they were, with why.
    unloadable: BTreeMap<Digest, String>,
    same: u64,
    differing: u64,
    /// The first of the differences.
    differences: Vec<Difference>,
}

/// A guard set that a process had in force.
#[derive(Debug)]
struct Guarding {
    policy: Digest,
    /// The newer version that had been in force before, if there was one.
    back_from: Option<u64>,
}

/// A decision that came out otherwise.
#[derive(Debug)]
struct Difference {
    seq: u64,
    action: ActionId,
    why: Why,
}

/// How it differs.
#[derive(Debug)]
enum Why {
    /// Another decision: what was recorded, and what it is now.
    Other(Decision, Box<Decision>),
    /// It cannot be decided again.
    Undecidable(String),
}

/// Runs `holdpoint replay`: exit 5 if any decision comes out otherwise.
///
/// # Errors
/// When there is no store, or it cannot be read.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    let store = args.store.open(globals, Access::ReadOnly)?;
    let mut replay = Replay { since: args.since, ..Replay::default() };
    replay.run(&store)?;
    answer(&match globals.format {
        Format::Json => json_lines(&replay.to_json()),
        Format::Text => replay.render(&Look::of_terminal()),
    })?;
    Ok(if replay.differing == 0 { Exit::Ok } else { Exit::Unverified })
}

// === impl Replay ===

impl Replay {
    fn run(&mut self, store: &Store) -> anyhow::Result<()> {
        let size = store.size()?;
        let mut query = RecordQuery { limit: PAGE, ..RecordQuery::default() };
        loop {
            let records = store.records(&query)?;
            let Some(last) = records.last() else { break };
            query.after_seq = Some(last.seq);
            progress(last.seq.saturating_add(1), size);
            for stored in records {
                self.take(stored);
            }
        }
        Ok(())
    }

    fn take(&mut self, stored: StoredRecord) {
        let wanted = self.since.is_none_or(|since| stored.record.at_ms >= since);
        match stored.record.body {
            RecordBody::PolicyLoaded { policy, sources, guard: None } => {
                self.load(policy, &sources);
            }
            RecordBody::PolicyLoaded { policy, sources, guard: Some(guard) } => {
                self.load_guard(stored.record.gateway, policy, (&guard, &sources));
            }
            RecordBody::Decision(record) if wanted => {
                self.decide_again((stored.seq, stored.record.gateway), &record);
            }
            _ => {}
        }
    }

    fn load(&mut self, recorded: Digest, sources: &[PolicySource]) {
        if self.policies.contains_key(&recorded) {
            return;
        }
        let why = match PolicySet::load(sources) {
            Ok(set) if set.digest() == recorded => {
                self.policies.insert(recorded, Arc::new(set));
                return;
            }
            Ok(set) => format!("its files have the digest {} here", set.digest()),
            Err(faults) => {
                let first = faults.first().map(ToString::to_string).unwrap_or_default();
                format!("it does not load here: {first}")
            }
        };
        self.unloadable.insert(recorded, why);
    }

    /// A guard set counts here as far as the keys that its record names signed it.
    fn load_guard(
        &mut self,
        gateway: GatewayId,
        recorded: Digest,
        (record, sources): (&GuardRecord, &[PolicySource]),
    ) {
        let why = match recorded_guard(record, sources) {
            Ok(guard) if guard.digest() == recorded => {
                let (name, version) = (guard.name().to_owned(), guard.manifest().version);
                let newest = self.newest.entry(name.clone()).or_insert(version);
                let back_from = (version < *newest).then_some(*newest);
                *newest = version.max(*newest);
                let guarding = self.guarding.entry(gateway).or_default();
                guarding.insert(name, Guarding { policy: recorded, back_from });
                self.guards.insert(recorded, Arc::new(guard));
                return;
            }
            Ok(guard) => format!("it has the digest {} here", guard.digest()),
            Err(fault) => fault.to_string(),
        };
        self.unloadable.insert(recorded, why);
    }

    fn decide_again(
        &mut self,
        (seq, gateway): (u64, GatewayId),
        record: &ActionRecord<DecisionRecord>,
    ) {
        let why = match self.again(gateway, record) {
            Ok(again) if same_bytes(&again, &record.more.decision) => {
                self.same = self.same.saturating_add(1);
                return;
            }
            Ok(again) => Why::Other(record.more.decision.clone(), Box::new(again)),
            Err(why) => Why::Undecidable(why),
        };
        self.differing = self.differing.saturating_add(1);
        if self.differences.len() < SHOWN_MAX {
            self.differences.push(Difference { seq, action: record.action, why });
        }
    }

    fn again(
        &self,
        gateway: GatewayId,
        record: &ActionRecord<DecisionRecord>,
    ) -> Result<Decision, String> {
        let policy = match &record.lineage.policy_version {
            Field::Present(policy) => policy,
            Field::Absent(why) => return Err(format!("it names no policy set: {why}")),
        };
        let unknown = |policy: &Digest| match self.unloadable.get(policy) {
            Some(why) => format!("the policy set {policy}: {why}"),
            None => format!("no record before it holds the policy set {policy}"),
        };
        let set = self.policies.get(policy).ok_or_else(|| unknown(policy))?;
        let DecisionRecord { request, facts, guards, .. } = &record.more;
        let speaking = guards.values();
        let speaking = speaking.map(|one| self.guards.get(one).ok_or_else(|| unknown(one)));
        let speaking: Vec<_> = speaking.map(|one| one.cloned()).collect::<Result<_, _>>()?;
        let concerned = self.guarding.get(&gateway).into_iter().flatten().filter(|(_, one)| {
            self.guards.get(&one.policy).is_some_and(|guard| guard.guards(facts))
        });
        for (name, one) in concerned {
            if let Some(newer) = one.back_from {
                return Err(format!("the guard set `{name}` had gone back from version {newer}"));
            }
            if !guards.contains_key(name) {
                return Err(format!("the guard set `{name}` was in force and had no voice"));
            }
        }
        Ok(decide(request, facts, &PolicySets::new(Arc::clone(set), speaking)))
    }

    fn to_json(&self) -> Value {
        json!({
            "replayed": self.same.saturating_add(self.differing),
            "same": self.same,
            "differing": self.differing,
            "policies": self.policies.len().saturating_add(self.guards.len()),
            "differences": self.differences.iter().map(Difference::to_json).collect::<Vec<_>>(),
        })
    }

    fn render(&self, look: &Look) -> String {
        let mut text = String::new();
        for difference in &self.differences {
            text.push_str(&difference.render(look));
        }
        let hidden = self.differing.saturating_sub(u64::try_from(SHOWN_MAX).unwrap_or(u64::MAX));
        if hidden > 0 {
            text.push_str(&format!("… {}\n", count(hidden, "more difference")));
        }
        let policies = self.policies.len().saturating_add(self.guards.len());
        let policies = u64::try_from(policies).unwrap_or(u64::MAX);
        let sets = count(policies, "policy set");
        let (tone, verdict) = match self.differing {
            0 => {
                (Tone::Good, format!("{} decided again, all the same", count(self.same, "action")))
            }
            some => (Tone::Bad, format!("{} differ, {} are the same", some, self.same)),
        };
        text.push_str(&format!("{} ({sets})\n", look.paint(tone, &verdict)));
        text
    }
}

// === impl Difference ===

impl Difference {
    fn to_json(&self) -> Value {
        let (recorded, again, why) = match &self.why {
            Why::Other(recorded, again) => (Some(recorded), Some(again), None),
            Why::Undecidable(why) => (None, None, Some(why)),
        };
        json!({
            "seq": self.seq,
            "action": self.action,
            "recorded": recorded,
            "again": again,
            "undecidable_because": why,
        })
    }

    fn render(&self, look: &Look) -> String {
        let title = look.paint(Tone::Bad, &format!("#{} {}", self.seq, self.action));
        match &self.why {
            Why::Other(recorded, again) => format!(
                "{title}: {} was recorded, {} comes out\n{}",
                recorded.ruling(),
                again.ruling(),
                only_in(recorded, again, "-") + &only_in(again, recorded, "+"),
            ),
            Why::Undecidable(why) => {
                format!("{title}: cannot be decided again: {}\n", escaped(why))
            }
        }
    }
}

/// The causes of one decision that the other does not have.
fn only_in(one: &Decision, other: &Decision, mark: &str) -> String {
    let own = one.causes().filter(|cause| !other.causes().any(|found| found == *cause));
    let line = |cause: &holdpoint_types::Cause| {
        let rule = cause.rule.as_deref().unwrap_or("no rule");
        let (rule, text) = (escaped(rule), escaped(&cause.text));
        format!("  {mark} {} {} [{rule}] {text}\n", cause.ruling, cause.reason)
    };
    own.map(line).collect()
}

/// Two decisions are the same if their canonical bytes are.
fn same_bytes(one: &Decision, other: &Decision) -> bool {
    match (canonical_bytes(one), canonical_bytes(other)) {
        (Ok(one), Ok(other)) => one == other,
        (Err(_), _) | (_, Err(_)) => false,
    }
}

/// Shows how far it is, on a terminal.
fn progress(done: u64, size: u64) {
    let mut out = std::io::stderr().lock();
    if size > u64::from(PAGE) && out.is_terminal() {
        let end = if done >= size { "\r\u{1b}[K" } else { "" };
        // A progress line that cannot be shown is no fault.
        let _ = write!(out, "\rreplayed {done} of {size}{end}").and_then(|()| out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::Replay;
    use crate::cli::look::tests::look;
    use crate::cli::samples::{self, stored};
    use expect_test::expect;
    use holdpoint_control::decide;
    use holdpoint_ledger::{Signer, sign_note};
    use holdpoint_policy::{Guard, GuardScope, Manifest, PolicySet, PolicySets, starter_pack};
    use holdpoint_types::{Decision, Digest, Field, GuardRecord, RecordBody};

    fn decisions() -> Vec<holdpoint_server::store::StoredRecord> {
        let set = PolicySet::load(&starter_pack()).unwrap();
        let policy = set.digest();
        let loaded = RecordBody::PolicyLoaded { policy, sources: starter_pack(), guard: None };
        let set = PolicySets::from(set);
        let mut records = vec![stored(0, loaded)];
        for (seq, sample) in [(1, samples::permitted()), (2, samples::denied())] {
            let RecordBody::Decision(mut record) = sample.record.body else { panic!("a decision") };
            record.more.decision = decide(&record.more.request, &record.more.facts, &set);
            record.lineage.policy_version = Field::Present(set.digest());
            records.push(stored(seq, RecordBody::Decision(record)));
        }
        records
    }

    /// A set that guards where every sample acts, signed by `ada`.
    fn guard() -> (Digest, GuardRecord) {
        guard_of(1)
    }

    fn guard_of(version: u64) -> (Digest, GuardRecord) {
        let scope = GuardScope { surfaces: ["prod".to_owned()].into(), ..Default::default() };
        let (name, files) = ("crown".to_owned(), Default::default());
        let text = Manifest { name, version, expires: None, scope, files }.text();
        let ada = Signer::new("ada", &[1; 32]).unwrap();
        let record = GuardRecord {
            note: sign_note(&text, &ada).unwrap(),
            signers: vec![ada.verifier().to_string()],
            signatures_min: 1,
            signed_by: vec!["ada".to_owned()],
        };
        (Guard::load(&text, &[], record.clone()).unwrap().digest(), record)
    }

    #[test]
    fn a_guard_set_that_went_back_is_found() {
        let mut records = decisions();
        for version in [2, 1] {
            let (policy, record) = guard_of(version);
            let guard = Some(Box::new(record));
            let loaded = RecordBody::PolicyLoaded { policy, sources: vec![], guard };
            records.insert(records.len() - 2, stored(9, loaded));
        }
        let told = replayed(records).render(&look());
        assert!(told.contains("the guard set `crown` had gone back from version 2"), "{told}");
        assert!(told.contains("2 differ, 0 are the same"), "{told}");
    }

    #[test]
    fn a_guard_set_that_had_no_voice_is_found() {
        let (policy, record) = guard();
        let with = |record: GuardRecord, named: bool| {
            let guard = Some(Box::new(record));
            let loaded = RecordBody::PolicyLoaded { policy, sources: vec![], guard };
            let mut records = decisions();
            records.insert(1, stored(9, loaded));
            for stored in &mut records {
                let RecordBody::Decision(decided) = &mut stored.record.body else { continue };
                decided.more.guards.extend(named.then(|| ("crown".to_owned(), policy)));
            }
            replayed(records)
        };
        expect![[r#"
            #1 019826f1-3a00-7707-8707-070707070707: cannot be decided again: the guard set `crown` was in force and had no voice
            #2 019826f1-3a00-7707-8707-070707070707: cannot be decided again: the guard set `crown` was in force and had no voice
            2 differ, 0 are the same (2 policy sets)
        "#]].assert_eq(&with(record.clone(), false).render(&look()));
        // It denies, where nothing of it was recorded.
        expect![[r#"
            #1 019826f1-3a00-7707-8707-070707070707: permit was recorded, deny comes out
              + deny no_guard_permits [crown] no policy permits `coder` to use `fs__read_file` (read) in `prod` with a grant
            #2 019826f1-3a00-7707-8707-070707070707: halt was recorded, halt comes out
              + deny no_guard_permits [crown] no policy permits `coder` to use `fs__rm` (destructive) in `prod` without a grant
            2 differ, 0 are the same (2 policy sets)
        "#]].assert_eq(&with(record.clone(), true).render(&look()));
        let forged = GuardRecord { note: record.note.replace("version 1", "version 2"), ..record };
        expect![[r#"
            #1 019826f1-3a00-7707-8707-070707070707: cannot be decided again: the policy set sha256:f3a1592ce96cfab093af992430c4da3955161f13cbb76c241815f4fb95e16fd6: the signature of `ada` does not fit the note
            #2 019826f1-3a00-7707-8707-070707070707: cannot be decided again: the policy set sha256:f3a1592ce96cfab093af992430c4da3955161f13cbb76c241815f4fb95e16fd6: the signature of `ada` does not fit the note
            2 differ, 0 are the same (1 policy set)
        "#]].assert_eq(&with(forged, true).render(&look()));
    }

    fn replayed(records: Vec<holdpoint_server::store::StoredRecord>) -> Replay {
        let mut replay = Replay::default();
        records.into_iter().for_each(|record| replay.take(record));
        replay
    }

    #[test]
    fn what_was_decided_is_decided_again() {
        let replay = replayed(decisions());
        assert_eq!((replay.same, replay.differing), (2, 0));
        expect![[r#"
            2 actions decided again, all the same (1 policy set)
        "#]]
        .assert_eq(&replay.render(&look()));
    }

    #[test]
    fn a_changed_decision_is_found() {
        let mut records = decisions();
        let RecordBody::Decision(record) = &mut records[2].record.body else {
            panic!("a decision")
        };
        let kept = record.more.decision.causes().take(1).cloned();
        record.more.decision = Decision::from_iter(kept.collect::<Vec<_>>());
        let replay = replayed(records);
        expect![[r##"
            #2 019826f1-3a00-7707-8707-070707070707: deny was recorded, halt comes out
              + deny destructive_not_granted [no rule] The tool is classified as destructive and the agent has no grant that names it.
              + deny parameters_invalid [schema] at `/size`: 3 is not of type "string"
              + deny policy_forbids [change-freeze] A change freeze is in force: nothing but reads.
              + halt stopped [stop 7 on agent:coder] it deletes
            1 differ, 1 are the same (1 policy set)
        "##]].assert_eq(&replay.render(&look()));
        assert_eq!(replay.to_json()["differing"], 1);
    }

    #[test]
    fn a_decision_without_its_policies_is_no_success() {
        let replay = replayed(decisions().split_off(1));
        assert_eq!((replay.same, replay.differing), (0, 2));
        expect![[r#"
            #1 019826f1-3a00-7707-8707-070707070707: cannot be decided again: no record before it holds the policy set sha256:be91e9969fcc554280502c31be5c226065778c3c347922379107372bf1fbbbd0
            #2 019826f1-3a00-7707-8707-070707070707: cannot be decided again: no record before it holds the policy set sha256:be91e9969fcc554280502c31be5c226065778c3c347922379107372bf1fbbbd0
            2 differ, 0 are the same (0 policy sets)
        "#]].assert_eq(&replay.render(&look()));
    }
}
