//! Names as labels, bounded in number: a monitoring system must not drown in what others invent.
//! Must never forget a name that it gave out once: counters do not jump between labels.

use parking_lot::RwLock;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// Stands for every name beyond the limit.
const OTHER: &str = "_other";
/// Stands for whatever nobody declared.
const UNKNOWN: &str = "_unknown";

/// The names that have a label of their own: the first ones that came.
pub(super) struct Names {
    known: RwLock<BTreeSet<String>>,
    max: usize,
}

// === impl Names ===

impl Names {
    pub(super) fn new(max: usize) -> Self {
        Self { known: RwLock::default(), max }
    }

    /// The label for `name`; for none, the one for what is unknown.
    pub(super) fn label(&self, name: Option<&str>) -> Cow<'static, str> {
        let Some(name) = name else { return Cow::Borrowed(UNKNOWN) };
        if self.known.read().contains(name) {
            return Cow::Owned(name.to_owned());
        }
        let mut known = self.known.write();
        if known.len() < self.max || known.contains(name) {
            known.insert(name.to_owned());
            return Cow::Owned(name.to_owned());
        }
        Cow::Borrowed(OTHER)
    }
}

#[cfg(test)]
mod tests {
    use super::Names;

    #[test]
    fn names_beyond_the_limit_share_one_label() {
        let names = Names::new(2);
        let labels =
            [Some("a"), Some("b"), Some("c"), None, Some("a")].map(|name| names.label(name));
        assert_eq!(labels, ["a", "b", "_other", "_unknown", "a"]);
    }
}
