//! Checks after actions: what is due is asked, and what was found is recorded.
//!
//! INVARIANT: a check that was due has exactly one record, whoever made it; one that nobody made in
//! time counts as failed. Must never hold up a call.

use super::Governor;
use crate::store::{CheckRow, DueQuery, StoreFault};
use crate::validators::Checked;
use holdpoint_control::check_record;
use holdpoint_types::{
    ActionId, ActionRecord, Cause, CheckPlan, CheckRecord, Decision, DecisionRecord, Facts, Field,
    Finding, FindingResult, GatewayId, OutcomeRecord, Reason, RecordBody, Request, Ruling,
    Severity, Timestamp, ToolOutput,
};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Most checks that are made at one time.
const AT_ONCE_MAX: usize = 32;
/// Most of them that ask one validator: a slow one must not make the others late.
const AT_ONCE_EACH_MAX: usize = 4;
/// How many due checks are looked at.
const TAKEN_MAX: u32 = 256;
/// How long after a fault a check is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// How late a check may be made and still count, in milliseconds.
pub const LATE_MS_MAX: i64 = 60_000;
/// How often it is looked for checks that are due, if none ends before.
const LOOK: Duration = Duration::from_millis(200);
/// How often checks are counted, and actions of dead processes are looked for.
const COUNT: Duration = Duration::from_secs(1);
/// How long a process that ends goes on with checks that are due.
const LAST: Duration = Duration::from_secs(5);

/// The checks that this process makes.
#[derive(Default)]
pub(super) struct Checks {
    open: AtomicU64,
    is_full: AtomicBool,
    overdue_ms: AtomicI64,
    /// True while its validator is asked, false while it waits to be tried again.
    running: Mutex<BTreeMap<CheckRow, bool>>,
    living: Mutex<BTreeSet<GatewayId>>,
    /// Actions that are known to be in doubt.
    in_doubt: Mutex<BTreeSet<ActionId>>,
    ended: Notify,
}

/// A check that is being made.
struct Running<'a> {
    governor: &'a Governor,
    row: &'a CheckRow,
}

/// What the records say about the action of a check.
struct Story {
    decision: ActionRecord<DecisionRecord>,
    outcome: Option<OutcomeRecord>,
    output: Field<ToolOutput>,
}

// === impl Checks ===

impl Checks {
    /// How many validators are asked right now, and those that are asked often enough.
    fn busy(&self) -> (usize, BTreeSet<String>) {
        let running = self.running.lock();
        let mut each: BTreeMap<&str, usize> = BTreeMap::new();
        for (row, _) in running.iter().filter(|(_, asked)| **asked) {
            *each.entry(&row.due.validator).or_default() += 1;
        }
        let full = each.iter().filter(|(_, count)| **count >= AT_ONCE_EACH_MAX);
        (each.values().sum(), full.map(|(name, _)| (*name).to_owned()).collect())
    }
}

// === impl Running ===

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let checks = &self.governor.inner.checks;
        checks.running.lock().remove(self.row);
        checks.ended.notify_one();
    }
}

// === impl Governor ===

impl Governor {
    /// The checks that a call needs after it, and the decision: who is permitted to make it is
    /// denied if too many checks wait already.
    pub(super) fn promise_checks(
        &self,
        request: &Request,
        facts: &Facts,
        decision: Decision,
    ) -> (Vec<CheckPlan>, Decision) {
        if decision.ruling() != Ruling::Permit {
            return (Vec::new(), decision);
        }
        let plans = self.inner.validators.load().plans(request, facts);
        if self.may_promise(plans.iter().map(|plan| plan.after_s.len()).sum()) {
            return (plans, decision);
        }
        let full = Reason::ChecksFull;
        (plans, decision.join([Cause::new(Ruling::Deny, full, full.meaning())]))
    }

    /// Counts so many further checks; false if too many wait already.
    fn may_promise(&self, promised: usize) -> bool {
        let checks = &self.inner.checks;
        if promised == 0 {
            return true;
        }
        if checks.open.load(Ordering::Relaxed) >= self.inner.limits.load().checks_open_max {
            if !checks.is_full.swap(true, Ordering::Relaxed) {
                tracing::error!("too many checks wait: calls that need some are denied");
            }
            return false;
        }
        // Until they are counted in the store.
        let promised = u64::try_from(promised).unwrap_or(u64::MAX);
        checks.open.fetch_add(promised, Ordering::Relaxed);
        true
    }

    /// How many checks are still to be made, as they were counted last.
    pub(crate) fn open_checks(&self) -> u64 {
        self.inner.checks.open.load(Ordering::Relaxed)
    }

    /// How long the longest overdue check waits.
    pub(crate) fn checks_overdue(&self) -> Duration {
        let ms = self.inner.checks.overdue_ms.load(Ordering::Relaxed);
        Duration::from_millis(u64::try_from(ms).unwrap_or(0))
    }

    /// Makes the checks that are due, until `done`.
    pub(crate) async fn make_checks(&self, done: CancellationToken) {
        let (mut failing, mut counted) = (false, Instant::now());
        loop {
            tokio::select! {
                () = done.cancelled() => return,
                () = self.inner.checks.ended.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            let mut looked = self.begin_checks().map(|_| ());
            if looked.is_ok() && counted.elapsed() >= COUNT {
                counted = Instant::now();
                looked = self.count_checks().and(self.find_in_doubt().await);
                looked = looked.and(self.settle_plans().await);
            }
            match looked {
                Ok(()) => failing = false,
                Err(fault) if !failing => {
                    failing = true;
                    tracing::error!(%fault, "it cannot be read which checks are due");
                }
                Err(_) => {}
            }
        }
    }

    /// Makes what is due before the process ends, for a moment: nobody else may come.
    pub(crate) async fn make_last_checks(&self) {
        let deadline = Instant::now() + LAST;
        while Instant::now() < deadline {
            match self.begin_checks() {
                Ok(true) => {}
                Ok(false) if self.inner.checks.running.lock().is_empty() => return,
                Ok(false) => {}
                Err(_) => return,
            }
            tokio::select! {
                () = self.inner.checks.ended.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Notes what is known to be in doubt, and counts what waits.
    pub(super) fn know_checks(&self, in_doubt: &[ActionId]) -> Result<(), StoreFault> {
        self.inner.checks.in_doubt.lock().extend(in_doubt);
        self.count_checks()
    }

    fn count_checks(&self) -> Result<(), StoreFault> {
        let checks = &self.inner.checks;
        let (open, first) = self.inner.store.open_check_count()?;
        checks.open.store(open, Ordering::Relaxed);
        if open < self.inner.limits.load().checks_open_max {
            checks.is_full.store(false, Ordering::Relaxed);
        }
        let overdue_ms = first.map_or(0, |first| self.now().0.saturating_sub(first.0));
        checks.overdue_ms.store(overdue_ms.max(0), Ordering::Relaxed);
        *checks.living.lock() = self.inner.store.living_checkers()?;
        Ok(())
    }

    /// Records actions of processes that died since; what is due after them is due now.
    async fn find_in_doubt(&self) -> Result<(), StoreFault> {
        let mut found = self.inner.store.in_doubt()?;
        found.retain(|action| !self.inner.checks.in_doubt.lock().contains(action));
        if found.is_empty() {
            return Ok(());
        }
        tracing::warn!(actions = found.len(), "a process died: what its calls did is in doubt");
        let in_doubt = found.clone();
        self.write(RecordBody::FoundInDoubt { in_doubt }).await?;
        self.inner.checks.in_doubt.lock().extend(found);
        Ok(())
    }

    /// Begins checks that are due. True if it began one.
    fn begin_checks(&self) -> Result<bool, StoreFault> {
        let checks = &self.inner.checks;
        let (mut asked, busy) = checks.busy();
        if asked >= AT_ONCE_MAX {
            return Ok(false);
        }
        let now = self.now();
        let mut living = checks.living.lock().clone();
        living.remove(&self.gateway());
        let wanted = DueQuery {
            now,
            overdue: Timestamp(now.0.saturating_sub(LATE_MS_MAX)),
            own: self.gateway(),
            living,
            able: self.inner.validators.load().checkers(),
            busy,
            most: TAKEN_MAX,
        };
        let mut began = false;
        for row in self.inner.store.due_checks(&wanted)? {
            let (_, busy) = checks.busy();
            let taken = checks.running.lock().contains_key(&row);
            if taken || busy.contains(&row.due.validator) || asked >= AT_ONCE_MAX {
                continue;
            }
            checks.running.lock().insert(row.clone(), true);
            (asked, began) = (asked + 1, true);
            let governor = self.clone();
            tokio::spawn(async move { governor.make(row).await });
        }
        Ok(began)
    }

    async fn make(&self, row: CheckRow) {
        let _running = Running { governor: self, row: &row };
        if let Err(fault) = self.check(&row).await {
            tracing::error!(action = %row.action, %fault, "a check could not be recorded");
            self.inner.checks.running.lock().insert(row.clone(), false);
            tokio::time::sleep(AGAIN).await;
        }
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
