//! Permitted actions that have not ended, as far as the log knows. Must never take a process that
//! is gone for the end of what its host executes.

use super::batch::{Batch, Draft};
use super::fault::StoreFault;
use super::{Store, files, query};
use holdpoint_types::{ActionId, Door, Record, RecordBody};
use std::collections::BTreeMap;

/// How long a host may take to say how an action ended that it executes, in milliseconds: a day, as
/// a task may.
pub(super) const HOST_PATIENCE_MS: i64 = 24 * 60 * 60 * 1000;

// === impl Store ===

impl Store {
    /// Actions that were permitted, have no outcome, and whose process is gone. What a host
    /// executes outlives the process that decided it, but no more than a day, as the log counts
    /// time.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn in_doubt(&self) -> Result<Vec<ActionId>, StoreFault> {
        let (open, last) = {
            let reader = self.inner.reader.lock();
            (query::open_actions(&reader)?, query::last_at(&reader)?)
        };
        let last = last.map_or(i64::MIN, |last| last.0);
        let mut living = BTreeMap::new();
        let mut doubtful = Vec::new();
        for (action, gateway) in open {
            let lives = match living.get(&gateway) {
                Some(lives) => *lives,
                None => files::is_live(&self.inner.layout, &gateway)?,
            };
            living.insert(gateway, lives);
            let made_at = action.made_at().map_or(i64::MIN, |at| at.0);
            let is_old = last.saturating_sub(made_at) > HOST_PATIENCE_MS;
            let is_doubtful = match (lives, is_old) {
                (false, true) => true,
                (true, false) => false,
                (false, false) => !self.is_at_host(action)?,
                (true, true) => self.is_at_host(action)?,
            };
            if is_doubtful {
                doubtful.push(action);
            }
        }
        Ok(doubtful)
    }

    /// Permitted actions without an outcome, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn open_actions(&self) -> Result<Vec<ActionId>, StoreFault> {
        let open = query::open_actions(&self.inner.reader.lock())?;
        Ok(open.into_iter().map(|(action, _)| action).collect())
    }

    /// Writes the outcome of `action`, if it has none; durable when it resolves. False if somebody
    /// was first.
    ///
    /// # Errors
    /// When it could not be made durable; then it is not in the log.
    pub async fn append_outcome(
        &self,
        action: ActionId,
        record: Record,
    ) -> Result<bool, StoreFault> {
        let draft = Draft::new(record)?;
        let append = move |batch: &mut Batch<'_>| {
            let records = query::of_action_in(batch.txn(), action)?;
            let is_outcome = |body: &RecordBody| matches!(body, RecordBody::Outcome(_));
            if records.iter().any(|stored| is_outcome(&stored.record.body)) {
                return Ok(false);
            }
            batch.append(&draft).map(|_| true)
        };
        self.change(append).await
    }

    /// True if the action was handed over to the host that asked.
    fn is_at_host(&self, action: ActionId) -> Result<bool, StoreFault> {
        let records = self.of_action(action)?;
        Ok(records.iter().any(|stored| match &stored.record.body {
            RecordBody::Decision(decided) => decided.more.request.door == Door::Hook,
            _ => false,
        }))
    }
}
