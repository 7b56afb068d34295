//! What changes while a process governs: policies, settings, limits, grants for a limited time.
//!
//! INVARIANT: what comes into force is recorded before it decides anything. Must never leave half
//! of a change in force.

use super::{Governor, Limits};
use crate::operate;
use crate::policies;
use crate::store::StoreFault;
use crate::validators::Validators;
use holdpoint_control::{Settings, Timed};
use holdpoint_policy::{Guard, PolicySets};
use holdpoint_types::{Digest, RecordBody, ServerName, Timestamp};
use std::collections::BTreeSet;
use std::sync::Arc;

// === impl Governor ===

impl Governor {
    /// Replaces the policies; calls being decided keep the set that they began with.
    ///
    /// # Errors
    /// When the new set cannot be recorded; the old one stays in force.
    pub async fn replace_policies(&self, policies: PolicySets) -> Result<(), StoreFault> {
        let before = self.policy();
        self.record_policies(&policies, &digests(&before)).await?;
        self.inner.policy.store(Arc::new(policies));
        if let Err(fault) = self.void_plans(before.digest()).await {
            // Nothing is lost: each is looked at again when it is called upon.
            tracing::error!(%fault, "plans whose basis moved cannot be ended");
        }
        Ok(())
    }

    /// Records the sets that come into force, but for those that are `known` to be.
    pub(super) async fn record_policies(
        &self,
        policies: &PolicySets,
        known: &BTreeSet<Digest>,
    ) -> Result<(), StoreFault> {
        let store = self.store().dir();
        policies::keep(store, policies).map_err(|fault| StoreFault::file(store, &fault))?;
        for (policy, record) in records(policies) {
            if !known.contains(&policy) {
                self.write(record).await?;
            }
        }
        Ok(())
    }

    /// Replaces the operator's validators; calls being decided keep those that they began with.
    pub fn replace_validators(&self, validators: Validators) {
        self.inner.validators.store(Arc::new(validators));
    }

    /// Replaces the operator's settings, the limits, and the servers whose tools refuse parameters
    /// that their schema does not name; calls being decided keep what they began with. True if the
    /// settings differ from those in force.
    ///
    /// # Errors
    /// When the new settings cannot be recorded; all that was stays in force.
    pub async fn replace_settings(
        &self,
        settings: Settings,
        strict: BTreeSet<ServerName>,
        limits: Limits,
    ) -> Result<bool, StoreFault> {
        let pins = self.pins()?;
        let configuration = settings.digest();
        let differs = configuration != self.settings().digest();
        if differs {
            self.write(RecordBody::SettingsLoaded { configuration }).await?;
            // What is granted for a limited time stays granted.
            self.inner.settings.rcu(|old| settings.with_timed(old.timed().to_vec()));
        }
        self.inner.limits.store(Arc::new(limits));
        self.catalog().replace_strict(strict);
        self.catalog().repin(&pins);
        Ok(differs)
    }

    /// The operator's settings as they count at `at`: no grant counts after its end, whenever it
    /// was read.
    pub(super) fn settings_at(&self, at: Timestamp) -> Arc<Settings> {
        let settings = self.inner.settings.load_full();
        let Some(fresh) = settings.without_ended(at).map(Arc::new) else { return settings };
        // Whoever was quicker put something newer there.
        self.inner.settings.compare_and_swap(&settings, Arc::clone(&fresh));
        fresh
    }

    /// Reads from the store what is granted for a limited time.
    pub(super) fn read_grants(&self) -> Result<(), StoreFault> {
        let timed = operate::in_force(&self.inner.store, self.now())?;
        let settings = self.inner.settings.load();
        let known = settings.timed().iter().map(Timed::grant);
        if !known.eq(timed.iter().map(Timed::grant)) {
            self.inner.settings.rcu(|settings| settings.with_timed(timed.clone()));
        }
        Ok(())
    }
}

/// The digests of all sets.
fn digests(policies: &PolicySets) -> BTreeSet<Digest> {
    policies.guards().map(Guard::digest).chain([policies.digest()]).collect()
}

/// The record of each set, by its digest.
fn records(policies: &PolicySets) -> Vec<(Digest, RecordBody)> {
    let ordinary = (policies.ordinary(), policies.digest(), None);
    let guards = policies.guards();
    let guards = guards.map(|one| (one.set(), one.digest(), Some(Box::new(one.record().clone()))));
    let each = guards.chain([ordinary]).map(|(set, policy, guard)| {
        let sources = set.sources().to_vec();
        (policy, RecordBody::PolicyLoaded { policy, sources, guard })
    });
    each.collect()
}
