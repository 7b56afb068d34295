//! What can be wrong with a store, and what to do about it. Must not decide what happens next.

use holdpoint_ledger::{EncodingFault, FrontierFault, NoteFault};
use holdpoint_types::Reason;
use rusqlite::ErrorCode;
use std::path::Path;

/// Why the store did not do what it was asked. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreFault {
    /// No store there.
    #[error(
        "there is no store at `{dir}`; start `holdpoint serve` or `wrap` once, or name another"
    )]
    Absent {
        /// The folder that was asked for.
        dir: String,
    },
    /// This handle may only read.
    #[error("the store was opened for reading only")]
    OpenedReadOnly,
    /// The operating system refuses writes.
    #[error("the store cannot be written ({detail}); check the owner and mode of its folder")]
    NotWritable {
        /// What the system said.
        detail: String,
    },
    /// A part of the store that somebody else can change at will.
    #[error("`{path}` belongs to another user (id {owner}); name a folder of your own")]
    NotOurs {
        /// Which part.
        path: String,
        /// The user id of its owner.
        owner: u32,
    },
    /// No space left.
    #[error("the store is full ({detail}); free disk space, nothing is permitted until then")]
    Full {
        /// What the system said.
        detail: String,
    },
    /// Another process holds the write lock for too long.
    #[error("the store was locked by another process for {seconds} s; look for one that hangs")]
    Locked {
        /// How long this process waited.
        seconds: u64,
    },
    /// More is waiting to be written than may wait.
    #[error("too much is waiting to be written; retry after a pause")]
    Busy,
    /// Not readable as a store.
    #[error("the store is damaged ({detail}); run `holdpoint verify`, then restore a copy")]
    Corrupt {
        /// What does not fit.
        detail: String,
    },
    /// Written by a newer version of the product.
    #[error("the store has format {found}, this version knows {known}; update holdpoint")]
    Newer {
        /// The format found.
        found: i64,
        /// The newest known format.
        known: i64,
    },
    /// The database moved away under this process.
    #[error("`{path}` was removed or replaced while in use; restart holdpoint")]
    Replaced {
        /// The database file.
        path: String,
    },
    /// The private key is absent although there is a log.
    #[error("`{path}` is missing, but there is a log that it signed; restore it")]
    KeyMissing {
        /// The key file.
        path: String,
    },
    /// The private key cannot be used.
    #[error("`{path}` cannot be used as the log's key: {detail}")]
    KeyUnusable {
        /// The key file.
        path: String,
        /// Why.
        detail: String,
    },
    /// Another process already governs under this id.
    #[error("another process already runs as gateway `{gateway}`")]
    GatewayTaken {
        /// The id.
        gateway: String,
    },
    /// A key id that is in use already.
    #[error("there already is a key `{key_id}`")]
    KeyTaken {
        /// The key id.
        key_id: String,
    },
    /// A record that cannot be written down.
    #[error("the record cannot be written: {0}")]
    NotRecordable(EncodingFault),
    /// A record that is too large.
    #[error("the record has {bytes} bytes; the limit is {bytes_max}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// A file of the store cannot be used.
    #[error("`{path}`: {detail}")]
    File {
        /// Which one.
        path: String,
        /// What the system said.
        detail: String,
    },
    /// The database said something else.
    #[error("the store's database failed: {detail}")]
    Database {
        /// What it said.
        detail: String,
    },
    /// The writer is gone: the process is shutting down.
    #[error("the store is closed")]
    Closed,
}

/// How long a process waits for another one's write lock, in seconds.
pub(super) const LOCK_WAIT_S: u64 = 5;

// === impl StoreFault ===

impl StoreFault {
    /// The stable reason code of every fault of the store: nothing runs unrecorded.
    pub fn reason(&self) -> Reason {
        Reason::LedgerUnavailable
    }

    pub(super) fn corrupt(detail: impl Into<String>) -> Self {
        Self::Corrupt { detail: detail.into() }
    }

    pub(crate) fn file(path: &Path, error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let detail = format!("`{}`: {error}", path.display());
        match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                Self::NotWritable { detail }
            }
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full { detail },
            _ => Self::File { path: path.display().to_string(), detail: error.to_string() },
        }
    }
}

impl From<rusqlite::Error> for StoreFault {
    fn from(error: rusqlite::Error) -> Self {
        let detail = error.to_string();
        let Some(code) = error.sqlite_error_code() else {
            // Everything else is a value of another type than the schema says, or a missing row.
            return Self::Corrupt { detail };
        };
        match code {
            ErrorCode::DiskFull => Self::Full { detail },
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
                Self::Locked { seconds: LOCK_WAIT_S }
            }
            ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied => {
                Self::NotWritable { detail }
            }
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Self::Corrupt { detail },
            ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch => Self::Corrupt { detail },
            _ => Self::Database { detail },
        }
    }
}

impl From<EncodingFault> for StoreFault {
    fn from(fault: EncodingFault) -> Self {
        Self::NotRecordable(fault)
    }
}

impl From<FrontierFault> for StoreFault {
    fn from(fault: FrontierFault) -> Self {
        Self::corrupt(fault.to_string())
    }
}

impl From<NoteFault> for StoreFault {
    fn from(fault: NoteFault) -> Self {
        Self::corrupt(fault.to_string())
    }
}
