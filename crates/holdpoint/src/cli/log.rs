//! `holdpoint log`: the records, one on a line, newest last.
//! Must not change anything.

use super::line::{line, to_json};
use super::look::{Look, json_line, json_lines};
use super::operator::{self, StoreArgs};
use super::{Exit, Format, Globals, answer, tail};
use anyhow::Context as _;
use clap::builder::PossibleValuesParser;
use holdpoint_server::store::{Access, RecordQuery, Store, StoredRecord};
use holdpoint_types::{AgentName, RecordBody, Ruling, Timestamp, ToolRef};
use serde_json::json;

/// How many records are shown unless `--limit` says otherwise.
const LIMIT: u32 = 100;
/// The kinds of records.
const KINDS: [&str; 29] = [
    "decision",
    "outcome",
    "task_given",
    "checked",
    "started",
    "found_in_doubt",
    "settings_loaded",
    "policy_loaded",
    "tool_pinned",
    "tool_quarantined",
    "stopped",
    "released",
    "key_issued",
    "keys_revoked",
    "plan_proposed",
    "plan_accepted",
    "plan_refused",
    "plan_ended",
    "plan_looked",
    "asked",
    "replied",
    "credential_issued",
    "credential_deleted",
    "approved",
    "disapproved",
    "reverted",
    "granted",
    "grant_revoked",
    "expired",
];

/// Show records, newest last. For programs: `records`, or with `--follow` one record on a line.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    filters: Filters,
    /// From this time on: `1h`, `2 days`, or RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<Timestamp>,
    /// Before this time.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<Timestamp>,
    /// At most this many, the newest.
    #[arg(long, value_name = "NUMBER", default_value_t = LIMIT,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// Go on with new records as they come.
    #[arg(long, short, conflicts_with_all = ["until", "in_doubt"])]
    follow: bool,
    /// Only decisions that permitted something whose outcome nobody recorded.
    #[arg(long, conflicts_with_all = ["decision", "kind", "until"])]
    in_doubt: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Which records.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Filters {
    /// About this agent.
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentName>,
    /// About this tool.
    #[arg(long, value_name = "SERVER__TOOL")]
    tool: Option<ToolRef>,
    /// Whose target contains this text.
    #[arg(long, value_name = "TEXT")]
    resource: Option<String>,
    /// Decisions that ruled so: permit, plan-only, hold, deny or halt.
    #[arg(long, value_name = "RULING", value_parser = parse_ruling)]
    decision: Option<Ruling>,
    /// Of this kind.
    #[arg(long, value_parser = PossibleValuesParser::new(KINDS))]
    kind: Option<String>,
}

// === impl Filters ===

impl Filters {
    /// The query for these records.
    pub fn query(&self) -> RecordQuery {
        RecordQuery {
            agent: self.agent.clone(),
            tool: self.tool.clone(),
            resource: self.resource.clone(),
            ruling: self.decision,
            kind: self.kind.clone(),
            ..RecordQuery::default()
        }
    }

    /// True if a record about an action fits what is asked about its agent, tool and resource.
    fn fits(&self, stored: &StoredRecord) -> bool {
        let RecordBody::Decision(decision) = &stored.record.body else { return false };
        let request = &decision.more.request;
        let resource = &decision.more.facts.target.resource;
        self.agent.as_ref().is_none_or(|agent| *agent == request.agent)
            && self.tool.as_ref().is_none_or(|tool| *tool == request.tool)
            && self.resource.as_ref().is_none_or(|text| resource.contains(text))
    }
}

/// Runs `holdpoint log`.
///
/// # Errors
/// When there is no store, or it cannot be read.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    let store = args.store.open(globals, Access::ReadOnly)?;
    if args.in_doubt {
        answer(&whole(&in_doubt(&store, args)?, globals.format))?;
        return Ok(Exit::Ok);
    }
    // Asked before the records are read, so that none falls between.
    let size = store.size()?;
    let records = newest(&store, args)?;
    let cut = u32::try_from(records.len()).is_ok_and(|found| found >= args.limit);
    if args.follow {
        answer(&each(&records, globals.format))?;
        let next = records.last().map_or(size, |last| last.seq.saturating_add(1).max(size));
        return tail::follow(&store, args.filters.query(), next, globals.format);
    }
    answer(&whole(&records, globals.format))?;
    if cut && globals.format == Format::Text {
        operator::note(&format!("only the newest {}; there may be more: --limit", args.limit));
    }
    Ok(Exit::Ok)
}

fn newest(store: &Store, args: &Args) -> anyhow::Result<Vec<StoredRecord>> {
    let query = RecordQuery {
        since: args.since,
        until: args.until,
        limit: args.limit,
        newest_first: true,
        ..args.filters.query()
    };
    let mut records = store.records(&query)?;
    records.reverse();
    Ok(records)
}

/// The decisions of the actions in doubt, oldest first.
fn in_doubt(store: &Store, args: &Args) -> anyhow::Result<Vec<StoredRecord>> {
    let mut found = Vec::new();
    for action in store.in_doubt()? {
        let records = store.of_action(action)?.into_iter();
        found.extend(records.filter(|stored| args.filters.fits(stored)));
    }
    let since = args.since.unwrap_or(Timestamp(i64::MIN));
    found.retain(|stored| stored.record.at_ms >= since);
    found.sort_by_key(|stored| stored.seq);
    let limit = usize::try_from(args.limit).context("the limit is too large")?;
    let surplus = found.len().saturating_sub(limit);
    Ok(found.split_off(surplus))
}

/// All records that there will be: for programs, one object with `records`.
fn whole(records: &[StoredRecord], format: Format) -> String {
    match format {
        Format::Text => each(records, format),
        Format::Json => {
            let records: Vec<_> = records.iter().map(to_json).collect();
            json_lines(&json!({ "records": records }))
        }
    }
}

/// Records that others will follow: one on a line, for programs too.
pub fn each(records: &[StoredRecord], format: Format) -> String {
    let look = Look::of_terminal();
    let one = |stored: &StoredRecord| match format {
        Format::Json => json_line(&to_json(stored)),
        Format::Text => format!("{}\n", line(stored, &look)),
    };
    records.iter().map(one).collect()
}

/// A ruling's word.
///
/// # Errors
/// When it is none.
fn parse_ruling(text: &str) -> Result<Ruling, String> {
    let found = Ruling::ALL.into_iter().find(|ruling| ruling.as_str() == text);
    found.ok_or_else(|| "use permit, plan-only, hold, deny or halt".to_owned())
}

/// A time, or how long ago.
///
/// # Errors
/// When it is neither, or lies outside what a time can be.
pub fn parse_time(text: &str) -> Result<Timestamp, String> {
    time_at(text, &jiff::ZonedDateTime::now())
}

fn time_at(text: &str, now: &jiff::ZonedDateTime) -> Result<Timestamp, String> {
    let text = text.trim();
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(Timestamp(time.as_millisecond()));
    }
    let zone = now.time_zone().clone();
    let civil = text.parse::<jiff::civil::DateTime>().ok();
    if let Some(time) = civil.and_then(|civil| civil.to_zoned_datetime(zone).ok()) {
        return Ok(Timestamp(time.timestamp().as_millisecond()));
    }
    let span: Option<jiff::Span> = text.parse().ok();
    let earlier =
        span.filter(|span| !span.is_negative()).and_then(|span| now.checked_sub(span).ok());
    let earlier = earlier.ok_or_else(|| {
        "use how long ago (`90s`, `1h`, `2 days`) or a time (`2026-07-18T09:00:00Z`)".to_owned()
    })?;
    Ok(Timestamp(earlier.timestamp().as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::{KINDS, time_at};
    use crate::cli::samples;
    use holdpoint_types::Timestamp;
    use proptest::prelude::*;

    #[test]
    fn times_are_absolute_or_relative() {
        let now: jiff::ZonedDateTime = "2026-07-18T12:00:00+02:00[Europe/Berlin]".parse().unwrap();
        let at = |text: &str| time_at(text, &now).map(|at| at.0 - now.timestamp().as_millisecond());
        for (text, before_ms) in [
            ("1h", 3_600_000),
            ("90s", 90_000),
            ("2 days", 172_800_000),
            ("1h 30m", 5_400_000),
            ("2026-07-18T09:00:00Z", 3_600_000),
            ("2026-07-18T09:00:00", 10_800_000),
            ("2026-07-18", 43_200_000),
        ] {
            assert_eq!(at(text), Ok(-before_ms), "{text}");
        }
        for text in ["", "yesterday", "-1h", "1h ago ago", "9999999999 years"] {
            assert!(at(text).is_err(), "{text}: {:?}", at(text));
        }
    }

    #[test]
    fn every_kind_can_be_asked_for() {
        let kinds: Vec<_> =
            samples::one_of_each().iter().map(|stored| stored.record.body.kind()).collect();
        for kind in KINDS {
            assert!(kinds.contains(&kind), "{kind}");
        }
        for kind in kinds {
            assert!(KINDS.contains(&kind), "{kind}");
        }
    }

    proptest! {
        #[test]
        fn reading_a_time_never_panics(text in any::<String>()) {
            let now = jiff::Timestamp::UNIX_EPOCH.to_zoned_datetime(jiff::tz::TimeZone::UTC);
            let _: Result<Timestamp, String> = time_at(&text, &now);
        }
    }
}
