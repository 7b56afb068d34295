//! The writer: one thread that owns the writing connection and commits in groups.
//!
//! It takes everything that waits into one transaction, signs one checkpoint, makes both durable,
//! and only then answers all who wait. Must never answer earlier, and must never trust what it
//! remembers about the log over what it reads inside the transaction.

use super::batch::{Batch, Draft};
use super::fault::StoreFault;
use super::files::{Layout, RunLock};
use super::rows::Lag;
use holdpoint_ledger::{Frontier, Signer};
use holdpoint_types::GatewayId;
use parking_lot::{Condvar, Mutex, MutexGuard};
use rusqlite::hooks::Wal;
use rusqlite::{Connection, TransactionBehavior};
use std::collections::VecDeque;
use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Most changes that may wait for the writer.
const QUEUE_MAX: usize = 4096;
/// Most changes in one transaction.
const BATCH_MAX: usize = 1024;
/// Most records that may wait without anybody waiting for them.
const LATER_MAX: usize = 4096;
/// Longest time that such a record waits for company.
const LATER_PAUSE: Duration = Duration::from_millis(20);
/// The same after a failed write.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Pages of the write-ahead log that are moved into the database when nothing else is to be done.
const FOLD_AT_REST: u64 = 256;
/// Pages of the write-ahead log that are moved at once. Not more: a file that grows takes longer to
/// flush than one that is written over.
const FOLD_AT_ONCE: u64 = 1024;

/// The handle on the thread. Dropping it waits until all that is queued was tried.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What others tell the thread, and what it lets them know.
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    /// How many records the log had after this process's last commit.
    own_size: AtomicU64,
    /// True if another process wrote between two commits of this one.
    foreign: AtomicBool,
    /// How many records wait without anybody waiting for them.
    later: AtomicUsize,
    /// How many jobs wait, those that somebody waits for included.
    waiting: AtomicUsize,
    /// When something was made durable last, in milliseconds after `begun`.
    committed_ms: AtomicU64,
    begun: Instant,
    /// Why the last write failed.
    fault: Mutex<Option<StoreFault>>,
}

/// What waits for the next transaction, in the order in which it came: another order would be
/// another order of times.
#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// How many of them somebody waits for.
    wanted: usize,
    /// True while the thread waits for a call without looking at the clock.
    resting: bool,
    /// True once nothing more can come.
    closed: bool,
    /// True once nobody takes anything any more.
    gone: bool,
}

/// One thing to write.
enum Job {
    Now(Box<dyn Change>),
    Later(Box<Draft>),
}

/// Something that happens inside a transaction, and somebody who waits for its end.
trait Change: Send {
    fn run(&mut self, batch: &mut Batch<'_>) -> Result<(), StoreFault>;
    fn answer(self: Box<Self>, result: Result<(), StoreFault>);
}

struct Work<T, F> {
    work: Option<F>,
    value: Option<T>,
    reply: oneshot::Sender<Result<T, StoreFault>>,
}

/// The thread's own state.
struct Loop {
    connection: Connection,
    signer: Signer,
    gateway: GatewayId,
    shared: Arc<Shared>,
    path: PathBuf,
    identity: (u64, u64),
    trusted: Option<Frontier>,
    failing: bool,
    /// Pages in the write-ahead log, after the last commit.
    pages: Arc<AtomicU64>,
    // Let go last: while it is held, this process's actions are not in doubt.
    _lock: Option<RunLock>,
}

/// Says that the thread is gone, however it went, so that nobody waits for it.
struct Gone(Arc<Shared>);

/// Whether more can come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Closed,
}

// === impl Writer ===

impl Writer {
    /// Starts the thread.
    pub(super) fn start(
        mut connection: Connection,
        (signer, gateway): (Signer, GatewayId),
        lock: Option<RunLock>,
        layout: &Layout,
    ) -> Result<Self, StoreFault> {
        let path = layout.database();
        let shared = Arc::new(Shared::new(super::query::size(&connection)?));
        let metadata = std::fs::metadata(&path).map_err(|error| StoreFault::file(&path, &error))?;
        let pages = watch_pages(&mut connection)?;
        let mut writer = Loop {
            connection,
            signer,
            gateway,
            shared: Arc::clone(&shared),
            path,
            identity: identity(&metadata),
            trusted: None,
            failing: false,
            pages,
            _lock: lock,
        };
        // A log whose edge is not signed is refused now, not at the first decision.
        writer.commit(&mut [])?;
        let thread = std::thread::Builder::new().name("ledger-writer".to_owned());
        let gone = Gone(Arc::clone(&shared));
        let thread = thread.spawn(move || {
            let _gone = gone;
            writer.run();
        });
        let thread = thread.map_err(|error| StoreFault::Database { detail: error.to_string() })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Queues `work`; the answer comes when it is durable, or failed.
    pub(super) fn now<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Batch<'_>) -> Result<T, StoreFault> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, StoreFault>>, StoreFault> {
        let (reply, answer) = oneshot::channel();
        let work = Box::new(Work { work: Some(work), value: None, reply });
        let mut queue = self.shared.queue.lock();
        if queue.gone {
            return Err(StoreFault::Closed);
        }
        if queue.wanted >= QUEUE_MAX {
            return Err(StoreFault::Busy);
        }
        queue.jobs.push_back(Job::Now(work));
        queue.wanted += 1;
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        drop(queue);
        self.shared.wake.notify_one();
        Ok(answer)
    }

    /// Queues a record that nobody waits for. It goes along with the next change, or by itself
    /// when the pause is over: only a thread that rests is woken for it.
    pub(super) fn later(&self, draft: Draft) -> Result<(), StoreFault> {
        let shared = &self.shared;
        if shared.later.fetch_add(1, Ordering::Relaxed) >= LATER_MAX {
            shared.later.fetch_sub(1, Ordering::Relaxed);
            return Err(StoreFault::Busy);
        }
        let mut queue = shared.queue.lock();
        if queue.gone {
            return Err(StoreFault::Closed);
        }
        queue.jobs.push_back(Job::Later(Box::new(draft)));
        shared.waiting.fetch_add(1, Ordering::Relaxed);
        if std::mem::take(&mut queue.resting) {
            drop(queue);
            shared.wake.notify_one();
        }
        Ok(())
    }

    /// What made the last write fail.
    pub(super) fn health(&self) -> Result<(), StoreFault> {
        self.shared.fault.lock().clone().map_or(Ok(()), Err)
    }

    /// How many records the log had after this process's last commit.
    pub(super) fn own_size(&self) -> u64 {
        self.shared.own_size.load(Ordering::Acquire)
    }

    /// True once after another process wrote between two commits of this one.
    pub(super) fn take_foreign(&self) -> bool {
        self.shared.foreign.swap(false, Ordering::AcqRel)
    }

    /// How far the log is behind.
    pub(super) fn lag(&self) -> Lag {
        let shared = &self.shared;
        let committed = Duration::from_millis(shared.committed_ms.load(Ordering::Relaxed));
        let commit_age = shared.begun.elapsed().saturating_sub(committed);
        Lag { waiting: shared.waiting.load(Ordering::Relaxed), commit_age }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the ledger's writer died");
        }
    }
}

// === impl Gone ===

impl Drop for Gone {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        queue.gone = true;
        // Whoever waits is told by the end of what he waits on.
        queue.jobs.clear();
        queue.wanted = 0;
        *self.0.fault.lock() = Some(StoreFault::Closed);
    }
}

// === impl Shared ===

impl Shared {
    fn new(size: u64) -> Self {
        Self {
            queue: Mutex::default(),
            wake: Condvar::new(),
            own_size: AtomicU64::new(size),
            foreign: AtomicBool::new(false),
            later: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            committed_ms: AtomicU64::new(0),
            begun: Instant::now(),
            fault: Mutex::new(None),
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("own_size", &self.own_size).finish_non_exhaustive()
    }
}

// === impl Queue ===

impl Queue {
    /// Gives what came first, up to a limit.
    fn take(&mut self, jobs: &mut Vec<Job>) -> State {
        let count = self.jobs.len().min(BATCH_MAX);
        let known = jobs.len();
        jobs.extend(self.jobs.drain(..count));
        let wanted = jobs.iter().skip(known).filter(|job| matches!(job, Job::Now(_))).count();
        self.wanted -= wanted;
        match self.closed && self.jobs.is_empty() {
            true => State::Closed,
            false => State::Open,
        }
    }
}

// === impl Job ===

impl Job {
    fn run(&mut self, batch: &mut Batch<'_>) -> Result<(), StoreFault> {
        match self {
            Self::Now(change) => change.run(batch),
            Self::Later(draft) => batch.append(draft).map(|_| ()),
        }
    }
}

// === impl Work ===

impl<T, F> Change for Work<T, F>
where
    T: Send,
    F: FnOnce(&mut Batch<'_>) -> Result<T, StoreFault> + Send,
{
    fn run(&mut self, batch: &mut Batch<'_>) -> Result<(), StoreFault> {
        let work = self.work.take().ok_or(StoreFault::Closed)?;
        self.value = Some(work(batch)?);
        Ok(())
    }

    fn answer(self: Box<Self>, result: Result<(), StoreFault>) {
        let Self { value, reply, .. } = *self;
        let answer = result.and_then(|()| value.ok_or(StoreFault::Closed));
        // Whoever asked may have gone; what was written stays written.
        let _ = reply.send(answer);
    }
}

// === impl Loop ===

impl Loop {
    fn run(mut self) {
        let mut jobs = Vec::new();
        loop {
            let state = self.fill(&mut jobs);
            let result = self.commit(&mut jobs);
            self.settle(&mut jobs, &result);
            if state == State::Closed {
                let lost = jobs.len();
                if lost > 0 {
                    tracing::error!(lost, "records could not be written before the end");
                }
                return;
            }
            if self.pages.load(Ordering::Relaxed) >= FOLD_AT_ONCE {
                self.fold();
            }
        }
    }

    /// Waits until there is something to commit, then takes all that waits, up to a limit.
    fn fill(&self, jobs: &mut Vec<Job>) -> State {
        let shared = Arc::clone(&self.shared);
        let mut queue = shared.queue.lock();
        let pause = if self.failing { RETRY_PAUSE } else { LATER_PAUSE };
        let mut deadline = Instant::now() + pause;
        while queue.wanted == 0 && !queue.closed {
            if !shared.wake.wait_until(&mut queue, deadline).timed_out() {
                continue;
            }
            if !queue.jobs.is_empty() || !jobs.is_empty() {
                break;
            }
            // Nothing was asked for a while: now housekeeping is in nobody's way.
            if self.pages.load(Ordering::Relaxed) >= FOLD_AT_REST {
                MutexGuard::unlocked(&mut queue, || self.fold());
                continue;
            }
            queue.resting = true;
            shared.wake.wait_while(&mut queue, |queue| {
                queue.resting && queue.wanted == 0 && !queue.closed
            });
            queue.resting = false;
            deadline = Instant::now() + pause;
        }
        queue.take(jobs)
    }

    /// Moves the write-ahead log into the database, as far as readers allow.
    fn fold(&self) {
        // Whatever comes of it, the records are durable where they are.
        let sql = "PRAGMA wal_checkpoint(PASSIVE)";
        if let Err(fault) = self.connection.query_row(sql, [], |_| Ok(())) {
            tracing::warn!(%fault, "the write-ahead log could not be moved into the database");
        }
        self.pages.store(0, Ordering::Relaxed);
    }

    /// One transaction: all of `jobs`, or nothing.
    fn commit(&mut self, jobs: &mut [Job]) -> Result<(), StoreFault> {
        self.check_identity()?;
        let behavior = TransactionBehavior::Immediate;
        let txn = self.connection.transaction_with_behavior(behavior)?;
        let signer = (&self.signer, self.gateway);
        let mut batch = Batch::open(&txn, signer, self.trusted.as_ref())?;
        let begun_at = batch.begun_at();
        for job in jobs {
            job.run(&mut batch)?;
        }
        let frontier = batch.close()?;
        txn.commit()?;
        if begun_at != self.shared.own_size.load(Ordering::Acquire) {
            self.shared.foreign.store(true, Ordering::Release);
        }
        self.shared.own_size.store(frontier.size(), Ordering::Release);
        self.trusted = Some(frontier);
        Ok(())
    }

    /// Answers everybody. Records that nobody waits for stay for another try if this one failed.
    fn settle(&mut self, jobs: &mut Vec<Job>, result: &Result<(), StoreFault>) {
        self.failing = result.is_err();
        *self.shared.fault.lock() = result.clone().err();
        let asked = jobs.len();
        if let Err(fault) = result {
            tracing::error!(%fault, "the ledger could not be written");
        }
        for job in std::mem::take(jobs) {
            match job {
                Job::Now(change) => change.answer(result.clone()),
                Job::Later(draft) if self.failing => jobs.push(Job::Later(draft)),
                Job::Later(_) => {
                    self.shared.later.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
        let settled = asked.saturating_sub(jobs.len());
        self.shared.waiting.fetch_sub(settled, Ordering::Relaxed);
        if !self.failing {
            let now = u64::try_from(self.shared.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.shared.committed_ms.store(now, Ordering::Relaxed);
        }
    }

    /// A database that was removed or replaced still takes writes, but nobody would find them
    /// again.
    fn check_identity(&self) -> Result<(), StoreFault> {
        let metadata = std::fs::metadata(&self.path);
        if metadata.is_ok_and(|metadata| identity(&metadata) == self.identity) {
            return Ok(());
        }
        Err(StoreFault::Replaced { path: self.path.display().to_string() })
    }
}

/// Keeps count of the pages in the write-ahead log. Takes over from SQLite when they are moved into
/// the database: it would do so in the middle of a commit that somebody waits for.
fn watch_pages(connection: &mut Connection) -> Result<Arc<AtomicU64>, StoreFault> {
    let pages = Arc::new(AtomicU64::new(0));
    let noted = Arc::clone(&pages);
    connection.wal_hook(Some(move |_: &mut Wal, pages: i32| {
        noted.store(u64::try_from(pages).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }))?;
    Ok(pages)
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}
