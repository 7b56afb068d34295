//! The store's folder: where files lie, who may read them, the log's key, and the run locks.
//! Must not touch the database.

use super::fault::StoreFault;
use holdpoint_ledger::{Signer, Verifier};
use holdpoint_types::{Digest, GatewayId};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{DirBuilder, File, FileType, Metadata, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// What the names of logs begin with; the rest is made from the public key.
const NAME_PREFIX: &str = "holdpoint.local/";
/// The mode bits of everybody but the owner.
const OTHERS: u32 = 0o077;
/// How often taking a lock is tried again while others look whether it is held.
const LOCK_TRIES: u32 = 16;
const LOCK_PAUSE: Duration = Duration::from_millis(1);

/// A private key, as bytes.
pub(super) type Secret = Zeroizing<[u8; 32]>;

/// Where the files of a store lie.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    dir: PathBuf,
}

/// Held by a live process that governs; let go by the operating system when it dies.
#[derive(Debug)]
pub(super) struct RunLock {
    path: PathBuf,
    _file: File,
}

// === impl Layout ===

impl Layout {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn database(&self) -> PathBuf {
        self.dir.join("ledger.db")
    }

    pub(super) fn key(&self) -> PathBuf {
        self.dir.join("ledger.key")
    }

    pub(super) fn verifier(&self) -> PathBuf {
        self.dir.join("ledger.pub")
    }

    pub(super) fn link_key(&self) -> PathBuf {
        self.dir.join("links.key")
    }

    pub(super) fn run(&self) -> PathBuf {
        self.dir.join("run")
    }

    fn lock(&self, gateway: &str) -> PathBuf {
        self.run().join(format!("{gateway}.lock"))
    }

    /// Makes the folders, for their owner only, and takes from others what they may do in older
    /// ones.
    pub(super) fn create_folders(&self) -> Result<(), StoreFault> {
        let run = self.run();
        create_folder(&self.dir)?;
        self.secure_folder()?;
        create_folder(&run)?;
        if let Some(metadata) = owned(&run, FileType::is_dir)? {
            tighten(&run, &metadata)?;
        }
        // Others who may read the key may have read it: `load_key` refuses that.
        owned(&self.key(), FileType::is_file)?;
        for part in ["ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db-journal"] {
            let path = self.dir.join(part);
            if let Some(metadata) = owned(&path, FileType::is_file)? {
                tighten(&path, &metadata)?;
            }
        }
        Ok(())
    }

    /// Makes an empty database, for its owner only: SQLite gives the files beside it the same mode.
    pub(super) fn create_database(&self) -> Result<(), StoreFault> {
        let path = self.database();
        if path.exists() {
            return Ok(());
        }
        publish(&path, b"", 0o600).map_err(|error| StoreFault::file(&path, &error))
    }

    fn secure_folder(&self) -> Result<(), StoreFault> {
        // The folder itself may be reached through a link; what lies in it may not.
        let metadata = std::fs::metadata(&self.dir);
        let metadata = metadata.map_err(|error| StoreFault::file(&self.dir, &error))?;
        check_owner(&self.dir, &metadata)?;
        if metadata.mode() & OTHERS != 0 && !self.is_dedicated()? {
            let detail = "others may use it, and it holds other things than a store; name a \
                          folder of its own";
            let path = self.dir.display().to_string();
            return Err(StoreFault::File { path, detail: detail.to_owned() });
        }
        tighten(&self.dir, &metadata)
    }

    /// True if the folder is a store, or empty: nobody else needs to reach what is in it.
    fn is_dedicated(&self) -> Result<bool, StoreFault> {
        if self.key().exists() || self.database().exists() {
            return Ok(true);
        }
        let entries = std::fs::read_dir(&self.dir);
        let mut entries = entries.map_err(|error| StoreFault::file(&self.dir, &error))?;
        Ok(entries.next().is_none())
    }
}

// === impl RunLock ===

impl RunLock {
    /// Takes the lock of `gateway`, and removes what dead processes left behind.
    pub(super) fn take(layout: &Layout, gateway: GatewayId) -> Result<Self, StoreFault> {
        sweep(layout)?;
        let path = layout.lock(&gateway.to_string());
        for _ in 0..LOCK_TRIES {
            let mut how = OpenOptions::new();
            how.create(true).truncate(false).write(true).mode(0o600);
            let file = how.open(&path).map_err(|error| StoreFault::file(&path, &error))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // Another process may have swept the file away before it was locked.
                Ok(()) if is_same_file(&file, &path) => return Ok(Self { path, _file: file }),
                // Or is about to: whoever only looks lets go at once.
                Ok(()) | Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
                Err(error) => return Err(StoreFault::file(&path, &error.into())),
            }
        }
        Err(StoreFault::GatewayTaken { gateway: gateway.to_string() })
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // Not removing it is harmless: the next process sweeps it away.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn create_folder(path: &Path) -> Result<(), StoreFault> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| StoreFault::file(path, &error))
}

/// What is at `path`, if anything is: no link, of the right kind, and ours. Opens nothing: closing
/// a file would let go of this process's own locks on it.
fn owned(path: &Path, is_kind: impl Fn(&FileType) -> bool) -> Result<Option<Metadata>, StoreFault> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreFault::file(path, &error)),
    };
    if !is_kind(&metadata.file_type()) {
        let detail = "it is a link, or of another kind than a store has there".to_owned();
        return Err(StoreFault::File { path: path.display().to_string(), detail });
    }
    check_owner(path, &metadata)?;
    Ok(Some(metadata))
}

/// Refuses what another user owns, who could change it at will. Root may work for anybody.
fn check_owner(path: &Path, metadata: &Metadata) -> Result<(), StoreFault> {
    let (us, owner) = (rustix::process::geteuid(), metadata.uid());
    if us.as_raw() == owner || us.is_root() {
        return Ok(());
    }
    Err(StoreFault::NotOurs { path: path.display().to_string(), owner })
}

/// Takes from everybody but the owner what they may do with `path`, and says so.
fn tighten(path: &Path, metadata: &Metadata) -> Result<(), StoreFault> {
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS == 0 {
        return Ok(());
    }
    let (path_text, had) = (path.display(), format!("{mode:04o}"));
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        // Root, in a folder whose owner can put a link to anything in this place at any time.
        tracing::warn!(path = %path_text, mode = had, "others may reach the store; its owner \
            should take that from them");
        return Ok(());
    }
    let narrow = Permissions::from_mode(mode & 0o700);
    match std::fs::set_permissions(path, narrow) {
        // SQLite of another process has just removed a file that it no longer needs.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreFault::file(path, &error)),
        Ok(()) => {}
    }
    tracing::warn!(path = %path_text, mode = had, "others could reach the store; only its owner \
        can now; run `holdpoint verify` if they may have written to it");
    Ok(())
}

/// True if the process that governs as `gateway` lives.
pub(super) fn is_live(layout: &Layout, gateway: &GatewayId) -> Result<bool, StoreFault> {
    is_locked(&layout.lock(&gateway.to_string())).map(|lock| matches!(lock, Lock::Held))
}

/// Reads the log's private key, or makes one if there is no log yet.
pub(super) fn load_or_create_key(layout: &Layout) -> Result<Signer, StoreFault> {
    let path = layout.key();
    if !path.exists() {
        // The key is made before the database: another process may have just made both.
        if layout.database().exists() && !path.exists() {
            return Err(StoreFault::KeyMissing { path: path.display().to_string() });
        }
        create_secret(&path).map_err(|error| StoreFault::file(&path, &error))?;
    }
    load_key(&path)
}

/// Writes the public key beside the log if it is not there; refuses another log's.
pub(super) fn publish_verifier(layout: &Layout, verifier: &Verifier) -> Result<(), StoreFault> {
    let path = layout.verifier();
    if path.exists() {
        if load_verifier(layout)? == *verifier {
            return Ok(());
        }
        let detail = "it does not fit the private key beside it".to_owned();
        return Err(StoreFault::KeyUnusable { path: path.display().to_string(), detail });
    }
    let text = format!("{verifier}\n");
    let published = publish(&path, text.as_bytes(), 0o644);
    published.map_err(|error| StoreFault::file(&path, &error))
}

/// Reads the public key beside the log.
pub(super) fn load_verifier(layout: &Layout) -> Result<Verifier, StoreFault> {
    let path = layout.verifier();
    if !path.exists() {
        return Err(StoreFault::Absent { dir: layout.dir().display().to_string() });
    }
    let text = std::fs::read_to_string(&path);
    let text = text.map_err(|error| StoreFault::file(&path, &error))?;
    text.trim_end()
        .parse()
        .map_err(|fault: holdpoint_ledger::NoteFault| unusable(&path, &fault.to_string()))
}

/// Whether somebody holds a lock file.
enum Lock {
    Held,
    Free(File),
    Absent,
}

fn is_locked(path: &Path) -> Result<Lock, StoreFault> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Lock::Absent),
        Err(error) => return Err(StoreFault::file(path, &error)),
    };
    // Shared: two processes that look at the same time must not take each other for the owner.
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(Lock::Free(file)),
        Err(Errno::WOULDBLOCK) => Ok(Lock::Held),
        Err(error) => Err(StoreFault::file(path, &error.into())),
    }
}

/// Removes the lock files of dead processes. They are locked meanwhile, so that a process that is
/// about to lock one of them notices.
fn sweep(layout: &Layout) -> Result<(), StoreFault> {
    let run = layout.run();
    let entries = std::fs::read_dir(&run).map_err(|error| StoreFault::file(&run, &error))?;
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "lock")
            && let Lock::Free(_held) = is_locked(&path)?
        {
            let _ = std::fs::remove_file(&path);
        }
    }
    Ok(())
}

fn is_same_file(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(theirs)) = (file.metadata(), std::fs::metadata(path)) else { return false };
    (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())
}

/// The key that signs links, made if there is none.
pub(super) fn load_or_create_link_key(layout: &Layout) -> Result<Secret, StoreFault> {
    let path = layout.link_key();
    if !path.exists() {
        create_secret(&path).map_err(|error| StoreFault::file(&path, &error))?;
    }
    load_secret(&path)
}

/// The key that signs links, if there is one.
pub(super) fn load_link_key(layout: &Layout) -> Result<Option<Secret>, StoreFault> {
    let path = layout.link_key();
    if path.exists() { load_secret(&path).map(Some) } else { Ok(None) }
}

fn create_secret(path: &Path) -> std::io::Result<()> {
    let mut secret = Zeroizing::new([0; 32]);
    let filled = getrandom::fill(secret.as_mut_slice());
    filled.map_err(|error| std::io::Error::other(error.to_string()))?;
    let text = Zeroizing::new(format!("{}\n", hex::encode(*secret)));
    publish(path, text.as_bytes(), 0o600)
}

fn load_key(path: &Path) -> Result<Signer, StoreFault> {
    name_by_key(&*load_secret(path)?).map_err(|fault| unusable(path, &fault.to_string()))
}

fn load_secret(path: &Path) -> Result<Secret, StoreFault> {
    let metadata = std::fs::metadata(path).map_err(|error| StoreFault::file(path, &error))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(unusable(path, "others may read it; set its mode to 0600"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| StoreFault::file(path, &error))?;
    let text = Zeroizing::new(text);
    let mut secret = Zeroizing::new([0; 32]);
    let decoded = hex::decode_to_slice(text.trim_end(), secret.as_mut_slice());
    decoded.map_err(|_| unusable(path, "it does not hold 64 hex digits"))?;
    Ok(secret)
}

fn unusable(path: &Path, detail: &str) -> StoreFault {
    StoreFault::KeyUnusable { path: path.display().to_string(), detail: detail.to_owned() }
}

/// The signer of this key; its name is made from its public half, so that no two logs share one.
fn name_by_key(secret: &[u8; 32]) -> Result<Signer, holdpoint_ledger::NoteFault> {
    let unnamed = Signer::new(NAME_PREFIX, secret)?;
    let digest = Digest::of(unnamed.verifier().public_key());
    Signer::new(&format!("{NAME_PREFIX}{}", digest.short()), secret)
}

/// Writes a whole file durably, unless there is one: another process may be quicker, and its file
/// stays.
fn publish(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(std::io::Error::other("not a file name"));
    };
    let unique = format!(".{}.{}", name.to_string_lossy(), std::process::id());
    let draft = dir.join(unique);
    let mut file =
        OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    // Closed before it has its name: closing lets go of all locks of this process on a file.
    drop(file);
    let linked = std::fs::hard_link(&draft, path);
    std::fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => File::open(dir)?.sync_all(),
    }
}
