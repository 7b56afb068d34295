//! Which facts the policies of a set look at, so that no other has to be put to Cedar.
//!
//! Must never miss one. A policy can look at a fact only by writing its name, as a word or as a
//! whole string (`context["granted"]`); one with an escape in it could write any name.

use crate::statements::words;
use std::collections::BTreeSet;

/// The names of facts in the schema, and the two ways to look at parameters.
const NAMES: [&str; 29] = [
    "granted",
    "planned",
    "freezes",
    "tool",
    "task",
    "call",
    "environment",
    "environment_resolved",
    "surfaces",
    "door",
    "verb",
    "certainty",
    "extent",
    "reversibility",
    "guarantee",
    "disclosure",
    "exact",
    "changes",
    "created",
    "updated",
    "deleted",
    "owner",
    "mode",
    "server",
    "class",
    "open_world",
    "address",
    "hasTag",
    "getTag",
];

/// The names that some policy of a set may look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sight {
    seen: BTreeSet<&'static str>,
}

// === impl Sight ===

impl Sight {
    /// What the policies with these texts look at.
    pub(crate) fn of<'a>(policies: impl Iterator<Item = &'a str>) -> Self {
        let seen = policies.flat_map(words).flat_map(|word| {
            // A string with an escape in it could spell any name.
            let any = word.contains('\\');
            NAMES.into_iter().filter(move |name| any || *name == word)
        });
        Self { seen: seen.collect() }
    }

    /// This sight, and everything else besides the parameters: those are subject to a limit, which
    /// must not depend on who asks.
    pub(crate) fn with_everything_but_parameters(&self) -> Self {
        let parameters = |name: &&str| ["hasTag", "getTag"].contains(name);
        let rest = NAMES.into_iter().filter(|name| !parameters(name));
        Self { seen: self.seen.iter().copied().chain(rest).collect() }
    }

    /// True if some policy may look at `name`.
    pub(crate) fn sees(&self, name: &str) -> bool {
        self.seen.contains(name)
    }

    /// True if some policy may look at the parameters.
    pub(crate) fn sees_parameters(&self) -> bool {
        self.sees("hasTag") || self.sees("getTag")
    }
}

#[cfg(test)]
mod tests {
    use super::{NAMES, Sight};
    use crate::schema::schema_text;

    fn seen(text: &str) -> String {
        let sight = Sight::of([text].into_iter());
        sight.seen.into_iter().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn names_are_seen_as_words_and_as_strings() {
        assert_eq!(seen("when { context.granted && context has task };"), "granted task");
        assert_eq!(seen(r#"when { context["door"] == "try" };"#), "door");
        assert_eq!(seen(r#"@reason("the mode of a call") permit(a) // mode"#), "");
        assert_eq!(seen("when{context.call.getTag(\"x\")like\"y\"};"), "call getTag");
        assert_eq!(seen("unless{principal.mode/server//door\rclass"), "class mode server");
        assert_eq!(seen(r#"when { context["\u{64}oor"] };"#).split(' ').count(), NAMES.len());
    }

    #[test]
    fn every_attribute_of_the_schema_has_a_name() {
        let declared = schema_text().lines().filter_map(|line| line.trim().split_once(": "));
        let declared: Vec<_> = declared
            .map(|(name, _)| name.trim_end_matches('?'))
            .filter(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
            .collect();
        assert!(declared.len() > 10, "{declared:?}");
        for name in declared {
            assert!(NAMES.contains(&name), "{name}");
        }
    }
}
