//! Checks after actions: what is due is asked, and what was found is recorded.
//!
//! INVARIANT: a check that was due has exactly one record, whoever made it; one that nobody made in
//! time counts as failed. Must never hold up a call.

use super::Governor;
use crate::store::{CheckRow, StoreFault};
use crate::validators::Checked;
use holdpoint_control::check_record;
use holdpoint_types::{
    ActionRecord, CheckRecord, DecisionRecord, Field, Finding, FindingResult, GatewayId,
    OutcomeRecord, Reason, RecordBody, Severity, Timestamp, ToolOutput,
};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Most checks that are made at one time.
const AT_ONCE_MAX: usize = 8;
/// How many due checks are taken up in one look.
const TAKEN_MAX: u32 = 256;
/// How long after a fault a check is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// How late a check may be made and still count, in milliseconds.
const LATE_MS_MAX: i64 = 60_000;

/// The checks that this process makes.
pub(super) struct Checks {
    open: AtomicU64,
    running: Mutex<BTreeSet<CheckRow>>,
    slots: Arc<Semaphore>,
}

/// What the records say about the action of a check.
struct Story {
    decision: ActionRecord<DecisionRecord>,
    outcome: Option<OutcomeRecord>,
    output: Field<ToolOutput>,
}

// === impl Checks ===

impl Default for Checks {
    fn default() -> Self {
        let slots = Arc::new(Semaphore::new(AT_ONCE_MAX));
        Self { open: AtomicU64::new(0), running: Mutex::default(), slots }
    }
}

// === impl Governor ===

impl Governor {
    /// Counts so many further checks; false if too many wait already.
    pub(super) fn may_promise(&self, checks: usize) -> bool {
        let open = &self.inner.checks.open;
        let may =
            checks == 0 || open.load(Ordering::Relaxed) < self.inner.limits.load().checks_open_max;
        if may && checks > 0 {
            // Until they are counted in the store.
            open.fetch_add(u64::try_from(checks).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        may
    }

    /// How many checks are still to be made, as they were counted last.
    pub(crate) fn open_checks(&self) -> u64 {
        self.inner.checks.open.load(Ordering::Relaxed)
    }

    /// Counts the checks that are still to be made, and begins those that are due.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn begin_checks(&self) -> Result<(), StoreFault> {
        let checks = &self.inner.checks;
        checks.open.store(self.inner.store.open_check_count()?, Ordering::Relaxed);
        let mut living: BTreeMap<GatewayId, bool> = BTreeMap::new();
        for row in self.inner.store.due_checks(self.now(), TAKEN_MAX)? {
            let is_others = match living.get(&row.gateway) {
                Some(lives) => *lives,
                None => {
                    let other = row.gateway != self.gateway();
                    let lives = other && self.inner.store.is_live(row.gateway)?;
                    living.insert(row.gateway, lives);
                    lives
                }
            };
            if is_others || checks.running.lock().contains(&row) {
                continue;
            }
            let Ok(slot) = Arc::clone(&checks.slots).try_acquire_owned() else { break };
            checks.running.lock().insert(row.clone());
            let governor = self.clone();
            tokio::spawn(async move {
                if let Err(fault) = governor.check(&row).await {
                    tracing::error!(action = %row.action, %fault, "a check could not be recorded");
                    tokio::time::sleep(AGAIN).await;
                }
                governor.inner.checks.running.lock().remove(&row);
                drop(slot);
            });
        }
        Ok(())
    }

    async fn check(&self, row: &CheckRow) -> Result<(), StoreFault> {
        let Some(story) = self.story(row)? else {
            let detail = format!("action {} has no decision", row.action);
            return Err(StoreFault::Corrupt { detail });
        };
        let finding = self.finding(row, &story).await;
        let (found, action) = (finding.clone(), row.action);
        let (agent, tool) =
            (story.decision.agent.clone(), story.decision.more.request.tool.clone());
        let check = CheckRecord { due_ms: row.due.due_ms };
        let body = check_record(story.decision, story.output, check, finding);
        if !self.inner.store.checked(row.clone(), body, self.now()).await? {
            return Ok(());
        }
        self.inner.telemetry.checked(&found);
        let (validator, evidence, severity) =
            (&found.validator, found.told(), found.severity.as_str());
        let text = "a check after an action failed";
        match (found.result, found.severity) {
            (FindingResult::Pass | FindingResult::Warn, _) => {
                tracing::debug!(%action, validator, "a check after an action");
            }
            (_, Severity::Low | Severity::Medium) => {
                tracing::warn!(%action, %agent, %tool, validator, evidence, severity, text);
            }
            (_, Severity::High | Severity::Critical) => {
                tracing::error!(%action, %agent, %tool, validator, evidence, severity, text);
            }
        }
        Ok(())
    }

    async fn finding(&self, row: &CheckRow, story: &Story) -> Finding {
        let validators = self.inner.validators.load_full();
        let (due, now) = (row.due.due_ms, self.now());
        let output = match &story.output {
            Field::Present(output) => Some(output),
            Field::Absent(_) => None,
        };
        let ended = Checked {
            decision: &story.decision.more,
            outcome: story.outcome.as_ref(),
            output,
            times: (due, now),
        };
        let found = validators.check(&row.due.validator, &ended).await;
        found.map_or_else(|| gone(row), |found| in_time(found, due, now))
    }

    fn story(&self, row: &CheckRow) -> Result<Option<Story>, StoreFault> {
        let (mut decision, mut outcome) = (None, None);
        let mut output = Field::Absent("nobody recorded how it ended".to_owned());
        for stored in self.inner.store.of_action(row.action)? {
            match stored.record.body {
                RecordBody::Decision(record) => decision = Some(*record),
                RecordBody::Outcome(record) => {
                    output = record.lineage.tool_output;
                    outcome = Some(record.more);
                }
                _ => {}
            }
        }
        Ok(decision.map(|decision| Story { decision, outcome, output }))
    }
}

/// What is found where the validator is not there any more.
fn gone(row: &CheckRow) -> Finding {
    let missing = (FindingResult::Opaque, Reason::CheckMissing);
    let evidence = "no validator of this name is asked after calls any more";
    Finding::new(row.due.validator.clone(), missing, evidence)
}

/// A check that came too late says how things are now, not how they were: it does not pass.
fn in_time(found: Finding, due: Timestamp, now: Timestamp) -> Finding {
    let late_ms = now.0.saturating_sub(due.0);
    let is_good = matches!(found.result, FindingResult::Pass | FindingResult::Warn);
    if late_ms <= LATE_MS_MAX || !is_good {
        return found;
    }
    let said = format!("{}: {}", found.result.as_str(), found.evidence);
    let evidence = format!("made {} s late; then {said}", late_ms / 1000);
    let (result, reason) = (FindingResult::Opaque, Reason::CheckMissing);
    Finding { result, reason, evidence, ..found }
}

#[cfg(test)]
mod tests {
    use super::in_time;
    use holdpoint_types::{Finding, FindingResult, Reason, Timestamp};

    #[test]
    fn a_check_that_comes_too_late_does_not_pass() {
        let check = |result: FindingResult, late_ms: i64, expected: (FindingResult, Reason)| {
            let reason = Reason::ValidatorObjects;
            let found = Finding::new("rows", (result, reason), "all there");
            let found = in_time(found, Timestamp(1_000), Timestamp(1_000 + late_ms));
            assert_eq!((found.result, found.reason), expected);
            assert!(found.evidence.contains("all there"), "{}", found.evidence);
        };
        let said = |result| (result, Reason::ValidatorObjects);
        let missing = (FindingResult::Opaque, Reason::CheckMissing);
        check(FindingResult::Pass, 0, said(FindingResult::Pass));
        check(FindingResult::Pass, 60_000, said(FindingResult::Pass));
        check(FindingResult::Pass, 60_001, missing);
        check(FindingResult::Warn, 60_001, missing);
        check(FindingResult::Fail, 3_600_000, said(FindingResult::Fail));
    }
}
