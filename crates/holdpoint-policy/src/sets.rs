//! All the sets of which a call needs a permit: the ordinary one, and the guards of what it
//! touches.
//! Must never let a set take back what another said.

use crate::guard::Guard;
use crate::set::PolicySet;
use holdpoint_types::{Cause, Digest, Facts, Request};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The policy sets in force. Share it in an `Arc`.
#[derive(Debug)]
pub struct PolicySets {
    ordinary: Arc<PolicySet>,
    guards: BTreeMap<String, Arc<Guard>>,
}

// === impl PolicySets ===

impl PolicySets {
    /// The ordinary set, with guards. Of two with one name, the later counts.
    pub fn new<G: Into<Arc<Guard>>>(
        ordinary: impl Into<Arc<PolicySet>>,
        guards: impl IntoIterator<Item = G>,
    ) -> Self {
        let guards = guards.into_iter().map(Into::into);
        let named = guards.map(|guard: Arc<Guard>| (guard.name().to_owned(), guard));
        Self { ordinary: ordinary.into(), guards: named.collect() }
    }

    /// The same guards beside another ordinary set.
    #[must_use]
    pub fn with_ordinary(&self, ordinary: impl Into<Arc<PolicySet>>) -> Self {
        Self { ordinary: ordinary.into(), guards: self.guards.clone() }
    }

    /// The set that speaks about every call.
    pub fn ordinary(&self) -> &PolicySet {
        &self.ordinary
    }

    /// The guards, by name.
    pub fn guards(&self) -> impl ExactSizeIterator<Item = &Guard> {
        self.guards.values().map(|guard| &**guard)
    }

    /// The ordinary set's digest, by which decisions name it.
    pub fn digest(&self) -> Digest {
        self.ordinary.digest()
    }

    /// The guards that have a voice in a call with these facts: their digests.
    pub fn guards_of(&self, facts: &Facts) -> BTreeMap<String, Digest> {
        let speaking = self.guards().filter(|guard| guard.guards(facts));
        speaking.map(|guard| (guard.name().to_owned(), guard.digest())).collect()
    }

    /// What all of them say about a call. Never empty.
    pub fn evaluate(&self, request: &Request, facts: &Facts) -> Vec<Cause> {
        let mut causes = self.ordinary.evaluate(request, facts);
        causes.extend(self.guards().flat_map(|guard| guard.evaluate(request, facts)));
        causes
    }
}

impl From<PolicySet> for PolicySets {
    fn from(ordinary: PolicySet) -> Self {
        Self { ordinary: Arc::new(ordinary), guards: BTreeMap::new() }
    }
}
