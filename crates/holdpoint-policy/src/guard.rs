//! A guard set: policies of higher integrity over a part of what calls can touch.
//!
//! Owns which calls it has a voice in and what it says in them. It only ever adds voices, so it can
//! make nothing milder. Must not check signatures: who loads one has opened its note.

use crate::fault::PolicyFault;
use crate::manifest::{GuardScope, Manifest, ManifestFault};
use crate::schema::schema_text;
use crate::set::PolicySet;
use holdpoint_types::{
    Cause, Digest, Facts, GuardRecord, PolicySource, Reason, Request, Ruling, canonical_digest,
};
use serde_json::json;

/// A guard set, loaded whole.
#[derive(Debug)]
pub struct Guard {
    manifest: Manifest,
    digest: Digest,
    set: PolicySet,
    record: GuardRecord,
}

/// Why files are not the guard set that was signed.
#[derive(Debug, thiserror::Error)]
pub enum GuardFault {
    /// What was signed is no manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestFault),
    /// The files are not those that were signed.
    #[error("the files are not those that were signed: {0}")]
    Files(String),
    /// The policies are wrong.
    #[error("the policies are not valid: {}", first(.0))]
    Policies(Vec<PolicyFault>),
    /// The digest cannot be computed.
    #[error("its digest cannot be computed: {0}")]
    Digest(#[from] serde_json::Error),
}

// === impl Guard ===

impl Guard {
    /// Loads the files of a set whose `signed` text its signers signed; `record` says how.
    ///
    /// # Errors
    /// When the files are not exactly those that were signed, or are not valid.
    pub fn load(
        signed: &str,
        sources: &[PolicySource],
        record: GuardRecord,
    ) -> Result<Self, GuardFault> {
        let manifest = Manifest::parse(signed)?;
        if let Some(differs) = difference(&manifest, sources) {
            return Err(GuardFault::Files(differs));
        }
        let set = PolicySet::load(sources).map_err(GuardFault::Policies)?;
        let schema = Digest::of(schema_text().as_bytes());
        let digest = canonical_digest(&json!({ "schema": schema, "signed": signed }))?;
        Ok(Self { manifest, digest, set, record })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// What was signed.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The set's digest: of the canonical JSON of the schema's digest and the signed text.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Its policies.
    pub fn set(&self) -> &PolicySet {
        &self.set
    }

    /// What it was signed with.
    pub fn record(&self) -> &GuardRecord {
        &self.record
    }

    /// What it guards.
    pub fn scope(&self) -> &GuardScope {
        &self.manifest.scope
    }

    /// True if it has a voice in a call with these facts.
    pub fn guards(&self, facts: &Facts) -> bool {
        facts.aims().any(|aim| self.scope().covers(aim.target))
    }

    /// What it says about a call, each voice under the set's name: nothing if the call touches
    /// nothing that it guards.
    pub fn evaluate(&self, request: &Request, facts: &Facts) -> Vec<Cause> {
        if !self.guards(facts) {
            return Vec::new();
        }
        if self.manifest.expires.is_some_and(|expires| request.at >= expires) {
            let reason = Reason::GuardExpired;
            let cause = Cause::new(Ruling::Deny, reason, reason.meaning());
            return vec![cause.by_rule(self.name())];
        }
        let guarded = facts.aims().filter(|aim| self.scope().covers(aim.target));
        let causes = self.set.evaluate_aims(request, facts, guarded).into_iter();
        causes.map(|cause| self.voiced(cause)).collect()
    }

    fn voiced(&self, cause: Cause) -> Cause {
        let reason = match cause.reason {
            Reason::PolicyForbids => Reason::GuardForbids,
            Reason::NoPolicyPermits => Reason::NoGuardPermits,
            other => other,
        };
        let rule = match &cause.rule {
            Some(rule) => format!("{}/{rule}", self.name()),
            None => self.name().to_owned(),
        };
        Cause { reason, ..cause }.by_rule(rule)
    }
}

/// The first of the faults.
fn first(faults: &[PolicyFault]) -> String {
    faults.first().map(ToString::to_string).unwrap_or_default()
}

/// How `sources` differ from what was signed, in words.
fn difference(manifest: &Manifest, sources: &[PolicySource]) -> Option<String> {
    let here = Manifest::digests(sources);
    let signed = &manifest.files;
    let added = here.keys().filter(|name| !signed.contains_key(*name));
    let removed = signed.keys().filter(|name| !here.contains_key(*name));
    let changed = here
        .iter()
        .filter(|(name, digest)| signed.get(*name).is_some_and(|before| before != *digest));
    let told = added.map(|name| format!("`{name}` was added"));
    let told = told.chain(removed.map(|name| format!("`{name}` is missing")));
    let told = told.chain(changed.map(|(name, _)| format!("`{name}` was changed")));
    let told: Vec<_> = told.collect();
    // Two files of one name have one entry here.
    let twice = (here.len() != sources.len()).then(|| "two files have one name".to_owned());
    let told = if told.is_empty() { twice.into_iter().collect() } else { told };
    (!told.is_empty()).then(|| told.join(", "))
}
