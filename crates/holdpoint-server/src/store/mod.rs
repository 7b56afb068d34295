//! The embedded store: one folder that holds the log, the control state, pins and keys.
//!
//! Owns the folder's layout and every SQL statement. Several processes may have one store open: all
//! correctness rests on SQLite transactions, none on memory. Must never decide anything about an
//! action, and must never answer before what it answers for is durable.
//!
//! ```text
//! DIR/ledger.db     SQLite, WAL, synchronous=FULL
//! DIR/ledger.key    private key of the log, mode 0600
//! DIR/ledger.pub    public key, a C2SP verifier key: all that `verify` needs
//! DIR/links.key     signs links to approvals, mode 0600; made when links are wanted first
//! DIR/run/ID.lock   held by each live process that governs
//! ```

mod approvals;
mod batch;
mod blocks;
mod changes;
mod checks;
mod fault;
mod files;
mod grants;
mod open;
mod plans;
mod query;
mod reverts;
mod rows;
mod schema;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

pub use approvals::{ApprovalRow, Spoken};
pub use fault::StoreFault;
pub use grants::NewGrant;
pub use plans::{OnProposal, PLAN_CHECKER, PlanRow, PlanRuling, Proposed};
pub use rows::{
    Access, Admission, CheckRow, ControlRow, DueQuery, Inclusion, KeyRow, Lag, NewCredential,
    NewKey, Pin, PinRow, RecordQuery, ReleaseOf, Seen, StoreOptions, StoredRecord,
};
pub use verify::VerifyFault;

use batch::{Batch, Draft};
use files::{Layout, RunLock};
use holdpoint_ledger::{Verified, Verifier};
use holdpoint_types::{
    ActionId, AgentName, Digest, Epoch, GatewayId, Record, RecordBody, ServerName, Stop, StopScope,
    Timestamp, ToolRef,
};
use parking_lot::Mutex;
use rusqlite::Connection;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use writer::Writer;

/// A handle on an open store. Cheap to clone; the last one to go waits for what is queued.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    // Dropped first: the last connection to close empties the write-ahead log, and must be able to.
    reader: Mutex<Connection>,
    writer: Option<Writer>,
    seen: Mutex<query::Seen>,
    layout: Layout,
    verifier: Verifier,
    gateway: GatewayId,
}

// === impl Store: opening ===

impl Store {
    /// Opens the store in `dir`, creating it if it is absent and may be written. Blocks.
    ///
    /// # Errors
    /// When it is absent and only to be read, of a newer format, damaged, or cannot be written.
    pub fn open(dir: &Path, options: StoreOptions) -> Result<Self, StoreFault> {
        let layout = Layout::new(dir);
        let gateway = options.gateway;
        if options.access == Access::ReadOnly {
            return Self::open_to_read(layout, gateway);
        }
        layout.create_folders()?;
        let signer = files::load_or_create_key(&layout)?;
        let verifier = signer.verifier();
        files::publish_verifier(&layout, &verifier)?;
        let lock = match options.access {
            Access::Govern => Some(RunLock::take(&layout, gateway)?),
            Access::Operate | Access::ReadOnly => None,
        };
        let connection = schema::open_to_write(&layout)?;
        let writer = Writer::start(connection, (signer, gateway), lock, &layout)?;
        let reader = schema::open_to_read(&layout)?;
        Self::assemble(layout, (reader, Some(writer)), verifier, gateway)
    }

    fn open_to_read(layout: Layout, gateway: GatewayId) -> Result<Self, StoreFault> {
        let verifier = files::load_verifier(&layout)?;
        let reader = schema::open_to_read(&layout)?;
        Self::assemble(layout, (reader, None), verifier, gateway)
    }

    fn assemble(
        layout: Layout,
        (reader, writer): (Connection, Option<Writer>),
        verifier: Verifier,
        gateway: GatewayId,
    ) -> Result<Self, StoreFault> {
        let seen = Mutex::new(query::Seen::now(&reader)?);
        let reader = Mutex::new(reader);
        let inner = Inner { writer, reader, seen, layout, verifier, gateway };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        self.inner.layout.dir()
    }

    /// The folder for locks and control sockets of live processes.
    pub fn run_dir(&self) -> std::path::PathBuf {
        self.inner.layout.run()
    }

    /// The public key of the log.
    pub fn verifier(&self) -> &Verifier {
        &self.inner.verifier
    }

    /// The process that opened it.
    pub fn gateway(&self) -> GatewayId {
        self.inner.gateway
    }

    /// What made the last write fail, until a later write succeeds.
    ///
    /// # Errors
    /// That fault.
    pub fn health(&self) -> Result<(), StoreFault> {
        self.inner.writer.as_ref().map_or(Ok(()), Writer::health)
    }

    /// How far the log is behind; nothing waits in a store that is only read.
    pub fn lag(&self) -> Lag {
        self.inner.writer.as_ref().map(Writer::lag).unwrap_or_default()
    }

    /// Verifies the store in `dir` offline: every record against its hash, the tree and every
    /// signed checkpoint, then everything that is derived from the records. `against` is an earlier
    /// checkpoint that was kept elsewhere; without it, a log that was cut back to one of its own
    /// checkpoints cannot be told from a shorter log.
    ///
    /// # Errors
    /// The first thing that does not fit, and where.
    pub fn verify(
        dir: &Path,
        key: &Verifier,
        against: Option<&str>,
    ) -> Result<Verified, VerifyFault> {
        verify::verify(&Layout::new(dir), key, against)
    }
}

// === impl Store: records ===

impl Store {
    /// Writes one record; durable when it resolves. Gives its position in the log.
    ///
    /// # Errors
    /// When it could not be made durable; then it is not in the log.
    pub async fn append(&self, record: Record) -> Result<u64, StoreFault> {
        let draft = Draft::new(record)?;
        self.change(move |batch| batch.append(&draft)).await
    }

    /// Writes the record of a decision, if the store is still in `epoch`: both are one transaction,
    /// which is what makes a stop by another process binding.
    ///
    /// # Errors
    /// When it could not be made durable; then it is not in the log.
    pub async fn admit(&self, record: Record, epoch: Epoch) -> Result<Admission, StoreFault> {
        let draft = Draft::new(record)?;
        let admit = move |batch: &mut Batch<'_>| {
            let now = batch.epoch();
            if now != epoch {
                return Ok(Admission::EpochMoved { epoch: now });
            }
            if !batch.stands(&draft)? {
                return Ok(Admission::ApprovalMoved);
            }
            if !batch.plan_stands(&draft)? {
                return Ok(Admission::PlanMoved);
            }
            batch.append(&draft).map(|seq| Admission::Recorded { seq })
        };
        self.change(admit).await
    }

    /// Queues a record that nobody waits for, such as an outcome. It is written with the next
    /// batch, after at most about 20 ms, and kept for another try when that fails.
    ///
    /// # Errors
    /// When it cannot be written down, or too much is queued already.
    pub fn append_later(&self, record: Record) -> Result<(), StoreFault> {
        self.writer()?.later(Draft::new(record)?)
    }

    /// Waits until everything that was queued before is durable.
    ///
    /// # Errors
    /// When it could not be made durable; it stays queued.
    pub async fn flush(&self) -> Result<(), StoreFault> {
        self.change(|_| Ok(())).await
    }

    /// The records that `query` wants.
    ///
    /// # Errors
    /// When the store cannot be read, or a record does not fit its hash.
    pub fn records(&self, query: &RecordQuery) -> Result<Vec<StoredRecord>, StoreFault> {
        query::records(&self.inner.reader.lock(), query)
    }

    /// The records of one action, oldest first.
    ///
    /// # Errors
    /// As [`Self::records`].
    pub fn of_action(&self, action: ActionId) -> Result<Vec<StoredRecord>, StoreFault> {
        query::of_action(&self.inner.reader.lock(), action)
    }

    /// The records of what people said to approvals (`approved`, `disapproved`) and of what was
    /// taken back (`reverted`) since `since`, oldest first. Reads no others.
    ///
    /// # Errors
    /// As [`Self::records`].
    pub fn of_people(&self, since: Timestamp) -> Result<Vec<StoredRecord>, StoreFault> {
        query::of_people(&self.inner.reader.lock(), since)
    }

    /// True while the process with this id lives.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub fn is_live(&self, gateway: GatewayId) -> Result<bool, StoreFault> {
        files::is_live(&self.inner.layout, &gateway)
    }

    /// The checks that are due and wanted, the longest overdue first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn due_checks(&self, wanted: &DueQuery) -> Result<Vec<CheckRow>, StoreFault> {
        checks::due(&self.inner.reader.lock(), wanted)
    }

    /// The processes that live and have open checks.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub fn living_checkers(&self) -> Result<BTreeSet<GatewayId>, StoreFault> {
        let all = checks::gateways(&self.inner.reader.lock())?;
        let mut living = BTreeSet::new();
        for gateway in all {
            if self.is_live(gateway)? {
                living.insert(gateway);
            }
        }
        Ok(living)
    }

    /// All checks that are still to be made, the first one due first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn open_checks(&self) -> Result<Vec<CheckRow>, StoreFault> {
        checks::open(&self.inner.reader.lock())
    }

    /// How many checks are still to be made, and when the first is due.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn open_check_count(&self) -> Result<(u64, Option<Timestamp>), StoreFault> {
        checks::count(&self.inner.reader.lock())
    }

    /// Records the check `row`. False, and nothing is written, if somebody did before.
    ///
    /// # Errors
    /// When it could not be made durable; it stays open.
    pub async fn checked(
        &self,
        row: CheckRow,
        body: RecordBody,
        at: Timestamp,
    ) -> Result<bool, StoreFault> {
        self.change(move |batch| changes::checked(batch, &row, body, at)).await
    }

    /// When the newest record was written.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn last_at(&self) -> Result<Option<Timestamp>, StoreFault> {
        query::last_at(&self.inner.reader.lock())
    }

    /// How many records the log has.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn size(&self) -> Result<u64, StoreFault> {
        query::size(&self.inner.reader.lock())
    }

    /// The newest signed checkpoint; none while the log is empty.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn checkpoint(&self) -> Result<Option<String>, StoreFault> {
        query::checkpoint(&self.inner.reader.lock())
    }

    /// Proves that record `seq` is in the log that the newest checkpoint signs. Reads every leaf
    /// hash.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn inclusion(&self, seq: u64) -> Result<Option<Inclusion>, StoreFault> {
        query::inclusion(&self.inner.reader.lock(), &self.inner.verifier, seq)
    }
}

// === impl Store: control state ===

impl Store {
    /// The epoch and the stops, read at one point in time.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn control(&self) -> Result<ControlRow, StoreFault> {
        query::control(&self.inner.reader.lock())
    }

    /// True if another process wrote to the store since this was asked last (now and then also
    /// without need). Cheap: made for asking every few milliseconds.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn changed(&self) -> Result<bool, StoreFault> {
        let foreign = self.inner.writer.as_ref().is_some_and(Writer::take_foreign);
        let own_size = self.inner.writer.as_ref().map(Writer::own_size);
        let reader = self.inner.reader.lock();
        Ok(self.inner.seen.lock().moved(&reader, own_size)? || foreign)
    }

    /// Stops `scope`. When it resolves, no process can admit anything with an older epoch.
    ///
    /// # Errors
    /// When it could not be made durable; then nothing is stopped.
    pub async fn stop(
        &self,
        scope: StopScope,
        reason: String,
        by: String,
        at: Timestamp,
    ) -> Result<(Stop, Epoch), StoreFault> {
        self.change(move |batch| changes::stop(batch, (scope, reason), by, at)).await
    }

    /// Releases stops; gives those that were released (none if none fits) and the epoch now.
    ///
    /// # Errors
    /// When it could not be made durable; then nothing is released.
    pub async fn release(
        &self,
        what: ReleaseOf,
        reason: String,
        by: String,
        at: Timestamp,
    ) -> Result<(Vec<Stop>, Epoch), StoreFault> {
        self.change(move |batch| changes::release(batch, (&what, &reason), &by, at)).await
    }

    /// Pins a definition, replacing any pin of the tool and lifting its quarantine: for operators.
    /// Gives the digest that was pinned before. What is merely seen first goes through
    /// [`Self::pin_first`].
    ///
    /// # Errors
    /// When it could not be made durable.
    pub async fn pin(
        &self,
        pin: Pin,
        by: String,
        at: Timestamp,
    ) -> Result<Option<Digest>, StoreFault> {
        self.change(move |batch| changes::pin(batch, &pin, &by, at)).await
    }

    /// Pins those definitions whose tools have no pin yet, as `first-sight`. Gives the pins that
    /// now stand for these tools, in the same order.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub async fn pin_first(
        &self,
        pins: Vec<Pin>,
        at: Timestamp,
    ) -> Result<Vec<PinRow>, StoreFault> {
        self.change(move |batch| changes::pin_first(batch, &pins, at)).await
    }

    /// All pins, by tool.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn pins(&self) -> Result<Vec<PinRow>, StoreFault> {
        query::pins(&self.inner.reader.lock())
    }

    /// Notes that a tool that is pinned as `pinned` was `seen` with another definition. Recorded
    /// once for each definition; false if it was noted before, or the pin is another one by now.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub async fn note_quarantine(
        &self,
        tool: ToolRef,
        pinned: Digest,
        seen: Digest,
        definition: Value,
        at: Timestamp,
    ) -> Result<bool, StoreFault> {
        let seen = Seen { definition: seen, json: definition, at };
        self.change(move |batch| changes::quarantine(batch, (&tool, pinned), &seen)).await
    }

    /// Forgets the other definition of a tool that offers its `pinned` one again. Not recorded:
    /// every decision says what it was made about.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub async fn note_restored(&self, tool: ToolRef, pinned: Digest) -> Result<(), StoreFault> {
        self.change(move |batch| changes::restore(batch, (&tool, pinned))).await
    }

    /// Issues a key. The key itself is never stored.
    ///
    /// # Errors
    /// When it could not be made durable, or the key id is taken.
    pub async fn issue_key(
        &self,
        key: NewKey,
        by: String,
        at: Timestamp,
    ) -> Result<(), StoreFault> {
        let key_id = key.key_id.clone();
        let issued = self.change(move |batch| changes::issue_key(batch, &key, by, at)).await?;
        if issued { Ok(()) } else { Err(StoreFault::KeyTaken { key_id }) }
    }

    /// Revokes all keys of an agent; gives how many that were.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub async fn revoke_keys(
        &self,
        agent: AgentName,
        by: String,
        at: Timestamp,
    ) -> Result<u64, StoreFault> {
        self.change(move |batch| changes::revoke_keys(batch, agent, by, at)).await
    }

    /// Records that a credential for an upstream server was issued.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub async fn credential_issued(
        &self,
        new: NewCredential,
        by: String,
        at: Timestamp,
    ) -> Result<(), StoreFault> {
        self.change(move |batch| changes::credential_issued(batch, new, by, at)).await
    }

    /// Records that a credential for a server was deleted: an agent's, or the shared one.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub async fn credential_deleted(
        &self,
        which: (ServerName, Option<AgentName>),
        by: String,
        at: Timestamp,
    ) -> Result<(), StoreFault> {
        self.change(move |batch| changes::credential_deleted(batch, which, by, at)).await
    }

    /// The key with this id, revoked or not.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn key(&self, key_id: &str) -> Result<Option<KeyRow>, StoreFault> {
        query::key(&self.inner.reader.lock(), key_id)
    }

    /// All keys, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn keys(&self) -> Result<Vec<KeyRow>, StoreFault> {
        query::keys(&self.inner.reader.lock())
    }

    fn writer(&self) -> Result<&Writer, StoreFault> {
        self.inner.writer.as_ref().ok_or(StoreFault::OpenedReadOnly)
    }

    /// Runs `work` in the writer's next transaction; resolves when that is durable.
    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Batch<'_>) -> Result<T, StoreFault> + Send + 'static,
    ) -> Result<T, StoreFault> {
        let answer = self.writer()?.now(work)?;
        answer.await.map_err(|_| StoreFault::Closed)?
    }
}
