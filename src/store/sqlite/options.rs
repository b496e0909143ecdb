//! How a journal file is opened.

use std::path::Path;
use std::time::Duration;

use crate::store::{SqliteStore, StoreError};

/// How a journal file is opened. What isn't set has a default that was measured to be good.
///
/// ```
/// use amends::store::SqliteStore;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("sagas.db");
/// let store = SqliteStore::options().max_batch(64).readers(2).open(&path)?;
/// assert_eq!(store.commits(), 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "options do nothing until `open` is called"]
pub struct SqliteOptions {
    pub(super) max_batch: usize,
    pub(super) max_batch_bytes: usize,
    pub(super) max_record_bytes: i32,
    pub(super) wal_bytes: u64,
    pub(super) readers: u32,
    pub(super) busy_timeout: Duration,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        SqliteOptions {
            max_batch: 1_024,
            max_batch_bytes: 16 << 20,
            max_record_bytes: 1_000_000_000,
            wal_bytes: 4 << 20,
            readers: 4,
            busy_timeout: Duration::from_secs(5),
        }
    }
}

impl SqliteOptions {
    /// How many appends are committed together at most. Default 1,024; at least 1.
    pub fn max_batch(mut self, appends: usize) -> Self {
        self.max_batch = appends.max(1);
        self
    }

    /// With how many bytes of events a batch is full: the append that reaches it is the last of its commit.
    /// Default 16 MiB.
    pub fn max_batch_bytes(mut self, bytes: usize) -> Self {
        self.max_batch_bytes = bytes.max(1);
        self
    }

    /// How large one record may be, in bytes of its written form. An append that is larger is answered
    /// [`NotWritten`](crate::store::AppendError::NotWritten). Default and most that SQLite takes: 1,000,000,000.
    pub fn max_record_bytes(mut self, bytes: u32) -> Self {
        self.max_record_bytes = i32::try_from(bytes)
            .unwrap_or(i32::MAX)
            .clamp(1_000, 1_000_000_000);
        self
    }

    /// How large the write-ahead log is, in bytes: it is brought to this size when the store is opened, and
    /// copied into the database whenever it is full. Default 4 MiB.
    ///
    /// A larger one is copied less often, and makes opening slower, above all after a crash.
    pub fn wal_bytes(mut self, bytes: u64) -> Self {
        self.wal_bytes = bytes;
        self
    }

    /// How many reads run at once at most. Default 4; at least 1.
    pub fn readers(mut self, connections: u32) -> Self {
        self.readers = connections.clamp(1, 1_000);
        self
    }

    /// How long to wait for another process that writes to the file or recovers it. Nobody should write but
    /// the owner; a person in the `sqlite3` shell may. Default 5 s.
    pub fn busy_timeout(mut self, at_most: Duration) -> Self {
        self.busy_timeout = at_most;
        self
    }

    /// Opens the file as its one owner, and makes it where there is none.
    ///
    /// This blocks while the log of a crashed owner is recovered: some milliseconds.
    ///
    /// # Errors
    ///
    /// As [`SqliteStore::open`].
    pub fn open(&self, path: impl AsRef<Path>) -> Result<SqliteStore, StoreError> {
        SqliteStore::open_with(path.as_ref(), self.clone())
    }

    /// Opens the file for reading beside its owner.
    ///
    /// # Errors
    ///
    /// As [`SqliteStore::open_reader`].
    pub fn open_reader(&self, path: impl AsRef<Path>) -> Result<SqliteStore, StoreError> {
        SqliteStore::open_reader_with(path.as_ref(), self)
    }
}
