//! Finds an action by what a person types. Must never guess between two.

use holdpoint_server::store::{RecordQuery, Store};
use holdpoint_types::{ActionId, RecordBody, Timestamp};
use std::fmt;
use std::str::FromStr;

/// Fewest hex digits of an id that are looked for.
const DIGITS_MIN: usize = 6;
/// Hex digits of a whole id.
const DIGITS: usize = 32;
/// Hex digits of the time in an id (RFC 9562, version 7).
const TIME_DIGITS: usize = 12;
/// How much later than its id an action may be recorded, in milliseconds.
const DELAY_MS_MAX: i64 = 600_000;
/// How many records are read at a time.
const PAGE: u32 = 1000;
/// How many candidates are named.
const CANDIDATES_MAX: usize = 10;

/// Which action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The one decided last.
    Last,
    /// The one whose id begins with these lower-case hex digits.
    Prefix(String),
}

/// The text names no action.
#[derive(Debug, thiserror::Error)]
#[error("use an action's id, at least its first {DIGITS_MIN} hex digits, or `last`")]
pub struct InvalidWish;

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Exactly one.
    One(ActionId),
    /// Nothing.
    None,
    /// Several; at most ten of them.
    Many(Vec<ActionId>),
}

// === impl Wanted ===

impl FromStr for Wanted {
    type Err = InvalidWish;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "last" {
            return Ok(Self::Last);
        }
        let digits = digits_of(text);
        let fits = (DIGITS_MIN..=DIGITS).contains(&digits.len());
        if fits && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(Self::Prefix(digits));
        }
        Err(InvalidWish)
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last => f.write_str("last"),
            Self::Prefix(digits) => f.write_str(digits),
        }
    }
}

/// Finds the action that is wanted.
///
/// # Errors
/// When the store cannot be read.
pub fn find(store: &Store, wanted: &Wanted) -> anyhow::Result<Found> {
    match wanted {
        Wanted::Last => last(store),
        Wanted::Prefix(digits) => by_prefix(store, digits),
    }
}

fn last(store: &Store) -> anyhow::Result<Found> {
    let kind = Some("decision".to_owned());
    let query = RecordQuery { kind, newest_first: true, limit: 1, ..RecordQuery::default() };
    let newest = store.records(&query)?;
    let action = newest.first().and_then(|stored| action_of(&stored.record.body));
    Ok(action.map_or(Found::None, Found::One))
}

/// Ids begin with their time, so a prefix says between which times the record must lie.
fn by_prefix(store: &Store, digits: &str) -> anyhow::Result<Found> {
    if let Some(action) = whole(digits) {
        return Ok(Found::One(action));
    }
    let (from, until) = times_of(digits);
    let mut found: Vec<ActionId> = Vec::new();
    let mut query = RecordQuery {
        kind: Some("decision".to_owned()),
        since: Some(from),
        until: Some(until),
        limit: PAGE,
        ..RecordQuery::default()
    };
    loop {
        let records = store.records(&query)?;
        let Some(last) = records.last() else { break };
        query.after_seq = Some(last.seq);
        let actions = records.iter().filter_map(|stored| action_of(&stored.record.body));
        found.extend(actions.filter(|action| digits_of(&action.to_string()).starts_with(digits)));
        if found.len() > CANDIDATES_MAX {
            break;
        }
    }
    found.sort();
    found.dedup();
    found.truncate(CANDIDATES_MAX);
    Ok(match found.as_slice() {
        [] => Found::None,
        [action] => Found::One(*action),
        _ => Found::Many(found),
    })
}

fn action_of(body: &RecordBody) -> Option<ActionId> {
    match body {
        RecordBody::Decision(decision) => Some(decision.action),
        _ => None,
    }
}

fn whole(digits: &str) -> Option<ActionId> {
    if digits.len() == DIGITS { digits.parse().ok() } else { None }
}

/// Between which times a decision about such an action was recorded.
fn times_of(digits: &str) -> (Timestamp, Timestamp) {
    let known: String = digits.chars().take(TIME_DIGITS).collect();
    let filled = |fill: &str| {
        let missing = TIME_DIGITS.saturating_sub(known.len());
        let text = format!("{known}{}", fill.repeat(missing));
        i64::from_str_radix(&text, 16).unwrap_or(i64::MAX)
    };
    let until = filled("f").saturating_add(DELAY_MS_MAX);
    (Timestamp(filled("0")), Timestamp(until))
}

fn digits_of(text: &str) -> String {
    text.chars().filter(|found| *found != '-').map(|found| found.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::{Wanted, times_of, whole};
    use holdpoint_types::{ActionId, Timestamp};
    use proptest::prelude::*;

    #[test]
    fn wishes() {
        assert_eq!("last".parse::<Wanted>().unwrap(), Wanted::Last);
        let prefix: Wanted = "01982-6AB".parse().unwrap();
        assert_eq!(prefix, Wanted::Prefix("019826ab".to_owned()));
        for text in ["", "01982", "newest", "0198-zzzz", &"0".repeat(33), "01982é"] {
            assert!(text.parse::<Wanted>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_prefix_covers_the_time_of_its_action(
            at in 0..(1_i64 << 47), random in any::<[u8; 10]>(), digits in 6..32_usize,
        ) {
            let action = ActionId::new(Timestamp(at), random);
            let text = action.to_string().replace('-', "");
            prop_assert_eq!(whole(&text), Some(action));
            let (from, until) = times_of(&text[..digits]);
            prop_assert!(from.0 <= at && at < until.0, "{from:?} {until:?}");
        }
    }
}
