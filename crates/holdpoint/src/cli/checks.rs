//! `holdpoint checks`: what was found after actions, and what is still to be looked at.
//! Must not make a check: whoever governs does that.

use super::log::{each, parse_time};
use super::look::{Look, Table, Tone, count, escaped, json_lines};
use super::operator::{self, StoreArgs};
use super::{Exit, Format, Globals, answer};
use holdpoint_server::governor::LATE_MS_MAX;
use holdpoint_server::store::{Access, CheckRow, RecordQuery, Store, StoredRecord};
use holdpoint_types::{Field, FindingResult, RecordBody, Timestamp};
use serde_json::{Value, json};
use std::collections::VecDeque;

/// How many records are read at a time.
const PAGE: u32 = 1_000;
/// Most checks that are shown, the newest.
const MADE_MAX: usize = 10_000;
/// How far back failures are shown, in milliseconds.
const SINCE_MS: i64 = 24 * 60 * 60 * 1000;
/// How many that are due are shown to people.
const SHOWN_MAX: usize = 20;

/// Show the checks after actions that failed, and those that are due. Exit 5 if any failed, or is
/// overdue.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Failures from this time on: `1h`, `2 days`, or RFC 3339 [default: 1 day].
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<Timestamp>,
    /// Show those that passed, too.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs `holdpoint checks`.
///
/// # Errors
/// When there is no store, or it cannot be read.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    let store = args.store.open(globals, Access::ReadOnly)?;
    let look = Look::of_terminal();
    let since = args.since.unwrap_or(Timestamp(look.now.0.saturating_sub(SINCE_MS)));
    let made = made(&store, since, args.all)?;
    let due = store.open_checks()?;
    let late = due.iter().filter(|row| is_late(row, look.now)).count();
    let failed = late > 0 || made.iter().any(has_failed);
    answer(&match globals.format {
        Format::Text => text(&made, &due, &look),
        Format::Json => {
            let checks: Vec<_> = made.iter().map(super::line::to_json).collect();
            let due: Vec<_> = due.iter().map(row).collect();
            json_lines(&json!({ "checks": checks, "due": due }))
        }
    })?;
    Ok(if failed { Exit::Unverified } else { Exit::Ok })
}

/// The checks that were made since then and failed, or all of them; oldest first.
fn made(store: &Store, since: Timestamp, all: bool) -> anyhow::Result<Vec<StoredRecord>> {
    let kind = Some("checked".to_owned());
    let since = Some(since);
    let mut query = RecordQuery { kind, since, limit: PAGE, ..RecordQuery::default() };
    let mut made = VecDeque::new();
    loop {
        let page = store.records(&query)?;
        let Some(last) = page.last() else { return Ok(made.into()) };
        query.after_seq = Some(last.seq);
        made.extend(page.into_iter().filter(|one| all || has_failed(one)));
        if let Some(surplus) = made.len().checked_sub(MADE_MAX).filter(|surplus| *surplus > 0) {
            made.drain(..surplus);
            operator::note(&format!("only the newest {MADE_MAX}; there are more: --since"));
        }
    }
}

/// True if it should have been made, and does not count any more.
fn is_late(row: &CheckRow, now: Timestamp) -> bool {
    now.0.saturating_sub(row.due.due_ms.0) > LATE_MS_MAX
}

fn has_failed(stored: &StoredRecord) -> bool {
    let RecordBody::Checked(checked) = &stored.record.body else { return false };
    match &checked.lineage.post_validation {
        Field::Present(findings) => findings
            .iter()
            .any(|found| matches!(found.result, FindingResult::Fail | FindingResult::Opaque)),
        Field::Absent(_) => true,
    }
}

fn text(made: &[StoredRecord], due: &[CheckRow], look: &Look) -> String {
    let mut table = Table::default();
    for row in due.iter().take(SHOWN_MAX) {
        let late = is_late(row, look.now);
        let when = format!("{}{}", look.age(row.due.due_ms), if late { ", not made" } else { "" });
        let tone = if late { Tone::Bad } else { Tone::Plain };
        let validator = escaped(&row.due.validator);
        let action = row.action.to_string();
        table.push(vec![(tone, when), (tone, validator), (Tone::Dim, action)]);
    }
    let number = |some: usize| u64::try_from(some).unwrap_or(u64::MAX);
    let more = match due.len().checked_sub(SHOWN_MAX) {
        None | Some(0) => String::new(),
        Some(more) => format!("  … {more} more\n"),
    };
    let late = due.iter().any(|row| is_late(row, look.now));
    let made = match made.is_empty() {
        true if late => "no check that was made has failed\n".to_owned(),
        true => "no check has failed\n".to_owned(),
        false => each(made, Format::Text),
    };
    format!("{made}{} due\n{}{more}", count(number(due.len()), "check"), table.render("  ", look))
}

fn row(row: &CheckRow) -> Value {
    json!({ "action": row.action, "validator": row.due.validator, "due_ms": row.due.due_ms })
}
