//! `holdpoint tail`: new records as they become durable.
//! Must never show a record that could still be lost, and never hold up those who write.

use super::log::{Filters, each};
use super::operator::{self, StoreArgs};
use super::{Exit, Format, Globals};
use holdpoint_server::store::{Access, RecordQuery, Store};
use std::io::Write as _;
use std::ops::ControlFlow;
use std::time::Duration;

/// How often the store is looked at.
const PAUSE: Duration = Duration::from_millis(100);
/// How many records are read at a time.
const PAGE: u32 = 1000;

/// Show new records as they become durable, until Ctrl-C; for programs, one on a line.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    filters: Filters,
    /// Begin with the last records that there are.
    #[arg(long, value_name = "NUMBER", default_value_t = 0,
          value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    last: u32,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs `holdpoint tail`: exit 0 on Ctrl-C and when nobody reads any more.
///
/// # Errors
/// When there is no store, or it cannot be read.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    let store = args.store.open(globals, Access::ReadOnly)?;
    let next = store.size()?;
    if args.last > 0 {
        let query = args.filters.query();
        let mut records =
            store.records(&RecordQuery { limit: args.last, newest_first: true, ..query })?;
        records.retain(|stored| stored.seq < next);
        records.reverse();
        if show(&each(&records, globals.format))?.is_break() {
            return Ok(Exit::Ok);
        }
    }
    follow(&store, args.filters.query(), next, globals.format)
}

/// Shows the records from position `next` on, for ever.
///
/// # Errors
/// When the store cannot be read, or standard output cannot be written.
pub fn follow(
    store: &Store,
    query: RecordQuery,
    next: u64,
    format: Format,
) -> anyhow::Result<Exit> {
    let query = RecordQuery { after_seq: next.checked_sub(1), limit: PAGE, ..query };
    operator::wait(async {
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(interrupted);
        tokio::select! {
            // Listens before anything is shown, so that no Ctrl-C is lost.
            biased;
            told = &mut interrupted => told.map(|()| Exit::Ok).map_err(Into::into),
            ended = watch(store, query, format) => ended,
        }
    })
}

async fn watch(store: &Store, mut query: RecordQuery, format: Format) -> anyhow::Result<Exit> {
    loop {
        // Asked before the records are read: what comes in between is read next time.
        let size = store.size()?;
        let records = store.records(&query)?;
        if show(&each(&records, format))?.is_break() {
            return Ok(Exit::Ok);
        }
        let last = records.last().map(|last| last.seq);
        query.after_seq = query.after_seq.max(last);
        if u32::try_from(records.len()).is_ok_and(|found| found >= PAGE) {
            tokio::task::yield_now().await;
            continue;
        }
        // Records that the filters leave out are not looked at again.
        query.after_seq = query.after_seq.max(size.checked_sub(1));
        tokio::time::sleep(PAUSE).await;
        while !store.changed()? {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Writes to standard output; breaks if nobody reads it any more.
fn show(text: &str) -> anyhow::Result<ControlFlow<()>> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(error.into()),
    }
}
