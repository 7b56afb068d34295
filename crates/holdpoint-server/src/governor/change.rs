//! What changes while a process governs: policies, settings, limits.
//!
//! INVARIANT: what comes into force is recorded before it decides anything. Must never leave half
//! of a change in force.

use super::{Governor, Limits};
use crate::store::StoreFault;
use crate::validators::Validators;
use holdpoint_control::Settings;
use holdpoint_policy::PolicySet;
use holdpoint_types::{PolicySource, RecordBody, ServerName};
use std::collections::BTreeSet;
use std::sync::Arc;

// === impl Governor ===

impl Governor {
    /// Replaces the policies; calls being decided keep the set that they began with.
    ///
    /// # Errors
    /// When the new set cannot be recorded; the old one stays in force.
    pub async fn replace_policy(&self, policy: PolicySet) -> Result<(), StoreFault> {
        if policy.digest() == self.policy().digest() {
            return Ok(());
        }
        let record = policy_record(&policy);
        self.write(record).await?;
        self.inner.policy.store(Arc::new(policy));
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
            self.inner.settings.store(Arc::new(settings));
        }
        self.inner.limits.store(Arc::new(limits));
        self.catalog().replace_strict(strict);
        self.catalog().repin(&pins);
        Ok(differs)
    }
}

/// The record of a policy set that comes into force.
pub(super) fn policy_record(policy: &PolicySet) -> RecordBody {
    let sources: Vec<PolicySource> = policy.sources().to_vec();
    RecordBody::PolicyLoaded { policy: policy.digest(), sources }
}
