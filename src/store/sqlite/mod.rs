//! Journals in a SQLite file.
//!
//! The way of an append: encoded on the caller's thread (`store::record`), queued (`queue`), written with whatever
//! else is queued in one transaction (`writer`, `rows`), answered after `COMMIT`. An error is judged by
//! how far it reaches (`harm`). Reads have connections of their own (`reader`, `scan`). One process owns a
//! file (`lock`); what the file holds is in `schema` and `checksum`, and in `docs/format.md` for everybody.

mod census;
mod checksum;
mod commands;
mod connect;
mod definitions;
mod examine;
mod harm;
mod inside;
mod lock;
mod options;
mod outbox;
mod queue;
mod reader;
mod rows;
mod scan;
mod schema;
mod wal;
mod writer;

pub use examine::{SqliteOwner, SqliteReport};
pub use options::SqliteOptions;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use rusqlite::limits::Limit;
use tokio::sync::Notify;

use crate::ids::RunId;
use crate::journal::{Command, CommandAnswer, Journal};
use crate::saga::Outline;
use crate::store::record::NewRecord;
use crate::store::{
    Append, AppendError, Appending, CommandEntry, Counts, KnownDefinition, LoadError, Outbox,
    PruneFilter, Pruned, RunEntry, RunFilter, Store, StoreError, SubmitError,
};

use lock::OwnerLock;
use queue::{Queue, Stopped, Write};
use reader::Readers;
use writer::Counts as Written;

/// A store in a SQLite file.
///
/// An append that was acknowledged is on the disk: `synchronous=FULL`, one sync per commit, and appends
/// that are in flight together share a commit. One process owns the file, by a lock of the operating system
/// on the file `<name>.lock` beside it; a process that was killed has lost the lock already. Other processes
/// can read it meanwhile, with [`SqliteStore::open_reader`] or with the `sqlite3` shell.
///
/// After a failed sync, or any commit of which nobody knows what reached the disk, the store is dead: it
/// acknowledges nothing more, retries nothing, and still reads. What is true is then read from the disk by
/// whoever opens the file next.
///
/// The file has to be on a local disk: the write-ahead log needs shared memory.
///
/// ```
/// use amends::store::{RunFilter, SqliteStore, Store as _};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("sagas.db");
/// let store = SqliteStore::open(&path)?;
/// assert!(store.scan(&RunFilter::open(), None, 10).await?.is_empty());
/// assert!(SqliteStore::open(&path).is_err(), "it has an owner");
/// store.close().await;
/// # Ok(())
/// # }
/// ```
pub struct SqliteStore {
    path: PathBuf,
    /// Where appends go; nothing in a store of somebody who doesn't own the file.
    queue: Option<Arc<Queue>>,
    /// Where commands go of somebody who doesn't: begun with the first.
    outside: OnceLock<Arc<Queue>>,
    options: SqliteOptions,
    readers: Readers,
    counts: Arc<Written>,
    /// Told when another process may have handed in a command, or started a run.
    arrived: Arc<Arrivals>,
}

/// Who is told of what others have written to the file.
#[derive(Debug, Default)]
struct Arrivals {
    commands: Notify,
    runs: Notify,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.path)
            .field("owns", &self.queue.is_some())
            .finish_non_exhaustive()
    }
}

/// How long a store that is dropped without being closed waits for its writer.
const PATIENCE: Duration = Duration::from_secs(5);

impl SqliteStore {
    /// Opens a file as its one owner, with all [defaults](SqliteOptions), and makes it where there is none.
    ///
    /// This blocks while the log of a crashed owner is recovered: some milliseconds.
    ///
    /// # Errors
    ///
    /// [`StoreError::InUse`] where another process owns the file, [`StoreError::Foreign`] where it holds
    /// something else or is of a newer version (it is left as it is), [`StoreError::Failed`] where it can't
    /// be opened or SQLite is older than 3.51.3.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        SqliteStore::options().open(path)
    }

    /// Opens a file that another process may own, to read it and to hand in commands: appends are answered
    /// [`Dead`](AppendError::Dead).
    ///
    /// # Errors
    ///
    /// [`StoreError::Foreign`] where the file holds no journals, [`StoreError::Failed`] where there is none
    /// or it can't be opened. Reading a file that uses a write-ahead log needs the right to write in its
    /// folder, unless somebody else has it open.
    pub fn open_reader(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        SqliteStore::options().open_reader(path)
    }

    /// Opens a file otherwise than by default.
    pub fn options() -> SqliteOptions {
        SqliteOptions::default()
    }

    fn open_with(path: &Path, options: SqliteOptions) -> Result<Self, StoreError> {
        connect::check_version()?;
        let path = connect::true_path(path)?;
        if path.exists() {
            // Before anything is made beside it: a file that is not ours is left alone.
            // A process that was killed while it made the file leaves a rollback journal, which only a
            // writer can roll back: then the file is looked at below, under the lock.
            match schema::identify(&connect::reader(&path, options.busy_timeout)?, &path) {
                Err(error) if schema::needs_a_writer(&error) => {}
                looked => drop(looked?),
            }
        }
        let lock = OwnerLock::take(&path)?;
        let conn = connect::writer(&path, options.busy_timeout)?;
        let found = schema::identify(&conn, &path)?;
        connect::make_durable(&conn)?;
        schema::migrate(&conn, found)?;
        let prepared = conn
            .set_limit(Limit::SQLITE_LIMIT_LENGTH, options.max_record_bytes)
            // What a killed owner has left in the log may be in the kernel's memory only. It is made durable
            // before anybody reads it and acts on it.
            .and_then(|_| wal::passive(&conn))
            .and_then(|()| wal::grow(&conn, &path, options.wal_bytes));
        if let Err(error) = prepared {
            wal::leave(&conn);
            return Err(StoreError::failed("preparing the journal file", error));
        }

        let readers = Readers::new(path.clone(), options.readers, options.busy_timeout);
        let mut store = SqliteStore {
            path,
            queue: None,
            outside: OnceLock::new(),
            options,
            readers,
            counts: Arc::default(),
            arrived: Arc::default(),
        };
        store.queue = Some(store.begin_writing(conn, Some(lock))?);
        Ok(store)
    }

    fn open_reader_with(path: &Path, options: &SqliteOptions) -> Result<Self, StoreError> {
        connect::check_version()?;
        let path = connect::true_path(path)?;
        let conn = connect::reader(&path, options.busy_timeout)?;
        schema::must_be_current(schema::identify(&conn, &path)?, &path)?;
        let readers = Readers::new(path.clone(), options.readers, options.busy_timeout);
        Ok(SqliteStore {
            path,
            queue: None,
            outside: OnceLock::new(),
            options: options.clone(),
            readers,
            counts: Arc::default(),
            arrived: Arc::default(),
        })
    }

    fn begin_writing(
        &self,
        conn: Connection,
        lock: Option<OwnerLock>,
    ) -> Result<Arc<Queue>, StoreError> {
        let queue = Arc::new(Queue::default());
        let (its_queue, options) = (Arc::clone(&queue), self.options.clone());
        let (counts, arrived) = (Arc::clone(&self.counts), Arc::clone(&self.arrived));
        std::thread::Builder::new()
            .name("amends-sqlite".to_owned())
            .spawn(move || writer::run(its_queue, lock, conn, &options, &counts, &arrived))
            .map_err(|error| StoreError::failed("starting the writer thread", error))?;
        Ok(queue)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many transactions this store has committed: each is one sync of the disk. A checkpoint, about one
    /// in a hundred commits, costs three more: of the log, of the database, and of the log that begins anew.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.counts.commits.load(Ordering::Relaxed)
    }

    /// How many appends it has written in them.
    #[must_use]
    pub fn appends(&self) -> u64 {
        self.counts.appends.load(Ordering::Relaxed)
    }

    fn push(&self, write: Write) -> Result<Appending, Stopped> {
        let queue = self.queue.as_ref().ok_or(Stopped::NotOwner)?;
        queue.push(write).map(Appending::channel)
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn append(&self, append: Append) -> Appending {
        match NewRecord::encode(append, checksum::of_record) {
            Ok(record) => self
                .push(Write::Record(record))
                .unwrap_or_else(|why| Appending::ready(Err(why.into()))),
            Err(error) => Appending::ready(Err(AppendError::not_written(error))),
        }
    }

    async fn load(&self, run: &RunId) -> Result<Option<Journal>, LoadError> {
        self.load_after(run, 0).await
    }

    async fn load_after(&self, run: &RunId, seq: u64) -> Result<Option<Journal>, LoadError> {
        let run = run.clone();
        let load = move |conn: &_| reader::load(conn, &run, seq);
        self.readers.read("loading a journal", load).await
    }

    async fn find(&self, run: &RunId) -> Result<Option<RunEntry>, StoreError> {
        let run = run.clone();
        self.readers
            .read("finding a run", move |conn| scan::find(conn, &run))
            .await
    }

    async fn scan(
        &self,
        filter: &RunFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<RunEntry>, StoreError> {
        let filter = filter.clone();
        self.readers
            .read("listing runs", move |conn| {
                scan::scan(conn, &filter, after, limit)
            })
            .await
    }

    async fn scan_journals(
        &self,
        filter: &RunFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(RunEntry, Result<Option<Journal>, LoadError>)>, StoreError> {
        let filter = filter.clone();
        self.readers
            .read("reading journals", move |conn| {
                reader::scan_journals(conn, &filter, after, limit)
            })
            .await
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        self.readers.read("counting runs", census::counts).await
    }

    async fn oddities(&self) -> Result<Vec<String>, StoreError> {
        self.readers
            .read("checking the journal file", census::oddities)
            .await
    }

    async fn submit(&self, command: &Command) -> Result<(), SubmitError> {
        self.hand_in(command).await
    }

    async fn open_commands(
        &self,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<CommandEntry>, StoreError> {
        self.readers
            .read("reading commands", move |conn| {
                commands::open(conn, after, limit)
            })
            .await
    }

    async fn open_commands_of(&self, run: &RunId) -> Result<Vec<CommandEntry>, StoreError> {
        let run = run.clone();
        self.readers
            .read("reading commands", move |conn| {
                commands::open_of(conn, &run)
            })
            .await
    }

    async fn answer_command(&self, token: &str, answer: &CommandAnswer) -> Result<(), StoreError> {
        self.keep_answer(token, answer).await
    }

    async fn find_command(&self, token: &str) -> Result<Option<CommandEntry>, StoreError> {
        let token = token.to_owned();
        self.readers
            .read("reading a command", move |conn| {
                commands::find(conn, &token)
            })
            .await
    }

    async fn commands_arrived(&self) {
        self.arrived.commands.notified().await;
    }

    async fn runs_arrived(&self) {
        self.arrived.runs.notified().await;
    }

    async fn prune(
        &self,
        filter: &PruneFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Pruned, StoreError> {
        self.forget(filter, after, limit).await
    }

    async fn remember(&self, outline: &Outline) -> Result<(), StoreError> {
        let doing = "keeping a definition";
        let json =
            serde_json::to_string(outline).map_err(|error| StoreError::failed(doing, error))?;
        let written = match self.push(Write::Outline {
            of: outline.clone(),
            json,
        }) {
            Ok(written) => written.await,
            Err(why) => Err(why.into()),
        };
        written.map_err(|error| match error {
            AppendError::Dead(why) => StoreError::Dead {
                what: why.to_string(),
            },
            error => StoreError::failed(doing, error),
        })
    }

    async fn register(&self, definitions: &[KnownDefinition]) -> Result<(), StoreError> {
        self.keep_definitions(definitions).await
    }

    async fn definitions(&self) -> Result<Vec<KnownDefinition>, StoreError> {
        self.readers
            .read("reading definitions", definitions::all)
            .await
    }

    async fn recall(
        &self,
        saga: &str,
        version: u32,
        fingerprint: &str,
    ) -> Result<Option<Outline>, StoreError> {
        let key = (saga.to_owned(), version, fingerprint.to_owned());
        self.readers
            .read("reading a definition", move |conn| {
                reader::recall(conn, &key)
            })
            .await
    }

    fn outbox(&self) -> Option<&dyn Outbox> {
        Some(self)
    }

    /// Writes what is queued, copies the log into the database, and lets go of the file and its lock.
    /// Afterwards the store neither appends nor reads.
    async fn close(&self) {
        self.readers.close().await;
        let Some(queue) = self.queue.as_ref().or_else(|| self.outside.get()) else {
            return;
        };
        queue.close();
        let queue = Arc::clone(queue);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                // It fails only where the runtime is shutting down, and then nobody waits.
                let _ = runtime.spawn_blocking(move || queue.wait_gone(None)).await;
            }
            Err(_) => queue.wait_gone(None),
        }
    }
}

/// Does what [`close`](Store::close) does, and waits for it: some milliseconds, five seconds at most.
/// Better close a store before it is dropped in async code.
impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.readers.close_idle();
        if let Some(queue) = self.queue.as_ref().or_else(|| self.outside.get()) {
            queue.close();
            queue.wait_gone(Some(PATIENCE));
        }
    }
}
