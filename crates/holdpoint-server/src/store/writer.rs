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
use parking_lot::Mutex;
use rusqlite::{Connection, TransactionBehavior};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel,
};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Most jobs that may wait for the writer.
const QUEUE_MAX: usize = 4096;
/// Most new jobs in one transaction.
const BATCH_MAX: usize = 1024;
/// Most records that may wait without anybody waiting for them.
const LATER_MAX: usize = 4096;
/// Longest time that such a record waits for company.
const LATER_PAUSE: Duration = Duration::from_millis(20);
/// The same after a failed write.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The handle on the thread. Dropping it waits until all that is queued was tried.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Option<SyncSender<Job>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread lets others know.
#[derive(Debug)]
struct Shared {
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
    // Let go last: while it is held, this process's actions are not in doubt.
    _lock: Option<RunLock>,
}

/// Whether more jobs can come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Queue {
    Open,
    Closed,
}

// === impl Writer ===

impl Writer {
    /// Starts the thread.
    pub(super) fn start(
        connection: Connection,
        (signer, gateway): (Signer, GatewayId),
        lock: Option<RunLock>,
        layout: &Layout,
    ) -> Result<Self, StoreFault> {
        let path = layout.database();
        let shared = Arc::new(Shared::new(super::query::size(&connection)?));
        let metadata = std::fs::metadata(&path).map_err(|error| StoreFault::file(&path, &error))?;
        let mut writer = Loop {
            connection,
            signer,
            gateway,
            shared: Arc::clone(&shared),
            path,
            identity: identity(&metadata),
            trusted: None,
            failing: false,
            _lock: lock,
        };
        // A log whose edge is not signed is refused now, not at the first decision.
        writer.commit(&mut [])?;
        let (queue, jobs) = sync_channel(QUEUE_MAX);
        let thread = std::thread::Builder::new().name("ledger-writer".to_owned());
        let thread = thread.spawn(move || writer.run(&jobs));
        let thread = thread.map_err(|error| StoreFault::Database { detail: error.to_string() })?;
        Ok(Self { queue: Some(queue), shared, thread: Some(thread) })
    }

    /// Queues `work`; the answer comes when it is durable, or failed.
    pub(super) fn now<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Batch<'_>) -> Result<T, StoreFault> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, StoreFault>>, StoreFault> {
        let (reply, answer) = oneshot::channel();
        let work = Work { work: Some(work), value: None, reply };
        self.send(Job::Now(Box::new(work)))?;
        Ok(answer)
    }

    /// Queues a record that nobody waits for.
    pub(super) fn later(&self, draft: Draft) -> Result<(), StoreFault> {
        let before = self.shared.later.fetch_add(1, Ordering::Relaxed);
        let sent = match before < LATER_MAX {
            true => self.send(Job::Later(Box::new(draft))),
            false => Err(StoreFault::Busy),
        };
        if sent.is_err() {
            self.shared.later.fetch_sub(1, Ordering::Relaxed);
        }
        sent
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

    fn send(&self, job: Job) -> Result<(), StoreFault> {
        let queue = self.queue.as_ref().ok_or(StoreFault::Closed)?;
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        queue.try_send(job).map_err(|error| {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            match error {
                TrySendError::Full(_) => StoreFault::Busy,
                TrySendError::Disconnected(_) => StoreFault::Closed,
            }
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the ledger's writer died");
        }
    }
}

// === impl Shared ===

impl Shared {
    fn new(size: u64) -> Self {
        Self {
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
    fn run(mut self, queue: &Receiver<Job>) {
        let mut jobs = Vec::new();
        loop {
            let state = self.fill(queue, &mut jobs);
            let result = self.commit(&mut jobs);
            self.settle(&mut jobs, &result);
            if state == Queue::Closed {
                let lost = jobs.len();
                if lost > 0 {
                    tracing::error!(lost, "records could not be written before the end");
                }
                return;
            }
        }
    }

    /// Waits until there is something to commit, then takes all that waits, up to a limit.
    fn fill(&self, queue: &Receiver<Job>, jobs: &mut Vec<Job>) -> Queue {
        if jobs.is_empty() {
            match queue.recv() {
                Ok(job) => jobs.push(job),
                Err(_) => return Queue::Closed,
            }
        }
        let pause = if self.failing { RETRY_PAUSE } else { LATER_PAUSE };
        let deadline = Instant::now() + pause;
        let limit = jobs.len() + BATCH_MAX;
        while jobs.iter().all(|job| matches!(job, Job::Later(_))) && jobs.len() < limit {
            match queue.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(job) => jobs.push(job),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return Queue::Closed,
            }
        }
        while jobs.len() < limit {
            match queue.try_recv() {
                Ok(job) => jobs.push(job),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Queue::Closed,
            }
        }
        Queue::Open
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

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}
