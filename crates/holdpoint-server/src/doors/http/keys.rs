//! Bearer keys of agents and operators. Only hashes are kept; comparison takes constant time.
//! Must never log, record or return a key after it was made.

use crate::store::{Store, StoreFault};
use arc_swap::ArcSwap;
use holdpoint_types::{AgentName, Digest};
use std::collections::BTreeMap;
use std::fmt;
use subtle::ConstantTimeEq;

/// What every agent key begins with, so that scanners find leaked ones.
const PREFIX: &str = "hp_";
/// Random bytes in the public and in the secret part.
const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;

/// A new key: `hp_<12 hex digits>_<64 hex digits>`. Its `Debug` shows only the public part.
pub struct AgentKey {
    id: String,
    text: String,
}

/// No randomness could be had to make a key.
#[derive(Debug, thiserror::Error)]
#[error("no key can be made without randomness: {0}")]
pub struct InvalidKey(String);

/// An operator's key, by its digest.
#[derive(Clone)]
pub struct OperatorKey {
    /// Who it is.
    pub name: String,
    /// Digest of the whole key.
    pub digest: Digest,
}

/// The agents' keys in force.
pub(super) struct Keys {
    by_id: ArcSwap<BTreeMap<String, (AgentName, Digest)>>,
}

// === impl AgentKey ===

impl AgentKey {
    /// Makes a key.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate() -> Result<Self, InvalidKey> {
        let mut random = [0; ID_BYTES + SECRET_BYTES];
        getrandom::fill(&mut random).map_err(|fault| InvalidKey(fault.to_string()))?;
        let (id, secret) = random.split_at(ID_BYTES);
        let id = hex::encode(id);
        let text = format!("{PREFIX}{id}_{}", hex::encode(secret));
        Ok(Self { id, text })
    }

    /// The public part, by which a key is found and named in records.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The key itself: shown once, kept nowhere.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// What is kept. The key has 256 random bits, so a plain hash cannot be turned back.
    pub fn digest(&self) -> Digest {
        Digest::of(self.text.as_bytes())
    }
}

impl fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgentKey({})", self.id)
    }
}

// === impl OperatorKey ===

impl OperatorKey {
    /// True if `key` is this operator's.
    pub fn fits(&self, key: &str) -> bool {
        same(&Digest::of(key.as_bytes()), &self.digest)
    }
}

impl fmt::Debug for OperatorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OperatorKey({})", self.name)
    }
}

// === impl Keys ===

impl Keys {
    pub(super) fn read(store: &Store) -> Result<Self, StoreFault> {
        let keys = Self { by_id: ArcSwap::default() };
        keys.refresh(store)?;
        Ok(keys)
    }

    pub(super) fn refresh(&self, store: &Store) -> Result<(), StoreFault> {
        let rows = store.keys()?.into_iter().filter(|row| row.revoked_at.is_none());
        let by_id = rows.map(|row| (row.key_id, (row.agent, row.hash)));
        self.by_id.store(std::sync::Arc::new(by_id.collect()));
        Ok(())
    }

    /// The agent whose key this is.
    pub(super) fn agent(&self, key: &str) -> Option<AgentName> {
        let (id, _) = key.strip_prefix(PREFIX)?.split_once('_')?;
        let keys = self.by_id.load();
        let (agent, digest) = keys.get(id)?;
        same(&Digest::of(key.as_bytes()), digest).then(|| agent.clone())
    }
}

/// True if this was meant as an agent key, valid or not.
pub(super) fn looks_like_one(key: &str) -> bool {
    key.starts_with(PREFIX)
}

fn same(one: &Digest, other: &Digest) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::AgentKey;

    #[test]
    fn a_key_hides_itself() {
        let key = AgentKey::generate().unwrap();
        assert_eq!(key.reveal().len(), 3 + 12 + 1 + 64);
        assert!(!format!("{key:?}").contains(&key.reveal()[16..]));
        assert_ne!(key.reveal(), AgentKey::generate().unwrap().reveal());
    }
}
