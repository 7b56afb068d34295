//! What is known about functions, settings and system tables, from `data/sql.toml`. Must never
//! know a name that is not in that file: a list that cannot be read knows nothing.

use super::Dialect;
use holdpoint_types::Verb;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

static LISTS: LazyLock<Lists> =
    LazyLock::new(|| toml::from_str(include_str!("../../data/sql.toml")).unwrap_or_default());

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    common: Known,
    postgres: Known,
    sqlite: Known,
    mysql: Known,
}

/// What is known of one dialect.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Known {
    harmless: BTreeSet<String>,
    verbs: BTreeMap<String, Verb>,
    /// Commands of the client program that only look.
    pub(super) client_harmless: BTreeSet<String>,
    /// Settings, or pragmas without a value, that change nothing that matters.
    pub(super) settings: BTreeSet<String>,
    /// Settings after which text is read in another way.
    pub(super) quoting: BTreeSet<String>,
    /// Pragmas that look at what stands between their brackets.
    pub(super) lookups: BTreeSet<String>,
    /// Pragmas that a session may set.
    pub(super) session: BTreeSet<String>,
    /// Modules of virtual tables that keep their data in the database.
    pub(super) modules: BTreeSet<String>,
    /// Tables that hold credentials, as they are called in a resource.
    pub(super) credentials: BTreeSet<String>,
}

/// What a function does besides looking at its arguments.
pub(super) enum Call {
    Harmless,
    Does(Verb),
    Unknown,
}

/// What is known of `dialect`.
pub(super) fn known(dialect: Dialect) -> &'static Known {
    match dialect {
        Dialect::Postgres => &LISTS.postgres,
        Dialect::Sqlite => &LISTS.sqlite,
        Dialect::Mysql => &LISTS.mysql,
    }
}

/// What the built-in function `name` does.
pub(super) fn function(dialect: Dialect, name: &str) -> Call {
    let known = known(dialect);
    if let Some(verb) = known.verbs.get(name) {
        return Call::Does(*verb);
    }
    match known.harmless.contains(name) || LISTS.common.harmless.contains(name) {
        true => Call::Harmless,
        false => Call::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::Lists;

    #[test]
    fn the_list_can_be_read_and_calls_nothing_harmless_that_does_something() {
        let lists: Lists = toml::from_str(include_str!("../../data/sql.toml")).unwrap();
        for known in [&lists.postgres, &lists.sqlite, &lists.mysql] {
            assert!(known.harmless.len() > 40);
            for name in known.verbs.keys() {
                assert!(!known.harmless.contains(name), "{name}");
                assert!(!lists.common.harmless.contains(name), "{name}");
            }
        }
    }
}
