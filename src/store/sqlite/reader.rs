//! A few connections that read, beside the writer and never in its way: a write-ahead log lets each of
//! them see the last commit. What they do runs on tokio's threads for blocking work.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _};
use tokio::sync::Semaphore;

use crate::ids::RunId;
use crate::journal::Journal;
use crate::saga::Outline;
use crate::store::assembly::{Assembly, Stored};
use crate::store::{LoadError, RunEntry, RunFilter, StoreError};

use super::{checksum, connect, scan};

/// A run in the list, with its journal.
pub(super) type Found = (RunEntry, Result<Option<Journal>, LoadError>);

/// The readers of one file.
#[derive(Debug)]
pub(super) struct Readers {
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
    most: u32,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    busy_timeout: Duration,
    /// Connections that nobody uses. There are never more than permits.
    idle: Mutex<Vec<Connection>>,
}

impl Shared {
    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Readers {
    pub(super) fn new(path: PathBuf, most: u32, busy_timeout: Duration) -> Self {
        let shared = Shared {
            path,
            busy_timeout,
            idle: Mutex::default(),
        };
        Readers {
            shared: Arc::new(shared),
            permits: Arc::new(Semaphore::new(most as usize)),
            most,
        }
    }

    /// Reads with a connection of its own, when one is free.
    ///
    /// Dropped half-way, the reading goes on to its end and its result is dropped.
    pub(super) async fn read<T, E>(
        &self,
        doing: &'static str,
        read: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else {
            return Err(StoreError::Dead {
                what: "it was closed".to_owned(),
            }
            .into());
        };
        let shared = Arc::clone(&self.shared);
        let work = move || {
            let idle = shared.idle().pop();
            let conn = match idle {
                Some(conn) => conn,
                None => connect::reader(&shared.path, shared.busy_timeout)?,
            };
            let result = read(&conn);
            // One that failed may be in an odd state; a new one costs little.
            if result.is_ok() {
                shared.idle().push(conn);
            }
            drop(permit);
            result
        };
        let failed = |cause: Box<dyn std::error::Error + Send + Sync>| {
            Err(StoreError::failed(doing, cause).into())
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => runtime
                .spawn_blocking(work)
                .await
                .unwrap_or_else(|error| failed(error.into())),
            Err(error) => failed(error.into()),
        }
    }

    /// Waits for those that read, closes all connections, and refuses more.
    pub(super) async fn close(&self) {
        // An error says that this has been done before.
        let all = self.permits.acquire_many(self.most).await;
        self.permits.close();
        drop(all);
        self.shared.idle().clear();
    }

    /// Closes the connections that nobody uses, and refuses more.
    pub(super) fn close_idle(&self) {
        self.permits.close();
        self.shared.idle().clear();
    }
}

/// A run's journal after the record `after`, which is 0 for all of it.
pub(super) fn load(
    conn: &Connection,
    run: &RunId,
    after: u64,
) -> Result<Option<Journal>, LoadError> {
    let failed = |error: rusqlite::Error| StoreError::failed("loading a journal", error);
    let number = conn
        .prepare_cached("SELECT run FROM runs WHERE id = ?")
        .and_then(|mut find| {
            find.query_row([run.as_str()], |row| row.get::<_, i64>(0))
                .optional()
        })
        .map_err(failed)?;
    match number {
        Some(number) => load_number(conn, run, number, after).map(Some),
        None => Ok(None),
    }
}

/// The runs that match, each with its journal, as of one moment.
pub(super) fn scan_journals(
    conn: &Connection,
    filter: &RunFilter,
    after: Option<u64>,
    limit: usize,
) -> Result<Vec<Found>, StoreError> {
    let failed = |error| StoreError::failed("beginning to read", error);
    // Only read from, so that what becomes of it at its end does not matter.
    let _moment = conn.unchecked_transaction().map_err(failed)?;
    let entries = scan::scan(conn, filter, after, limit)?;
    let with_journal = |entry: RunEntry| {
        let number = entry.number.cast_signed();
        let journal = load_number(conn, &entry.run, number, 0).map(Some);
        (entry, journal)
    };
    Ok(entries.into_iter().map(with_journal).collect())
}

/// The journal of the run with this number after the record `after`.
fn load_number(
    conn: &Connection,
    run: &RunId,
    number: i64,
    after: u64,
) -> Result<Journal, LoadError> {
    let failed = |error: rusqlite::Error| StoreError::failed("loading a journal", error);
    let mut rows = conn
        .prepare_cached(
            "SELECT seq, form, append_id, at, events, checksum FROM journal
             WHERE run = ? AND seq > ? ORDER BY seq",
        )
        .map_err(failed)?;
    let after_seq = i64::try_from(after).unwrap_or(i64::MAX);
    let mut rows = rows.query([number, after_seq]).map_err(failed)?;
    let mut journal = Assembly::new(run, after);
    while let Some(row) = rows.next().map_err(failed)? {
        let sound = record(row, &mut journal).map_err(failed)?;
        if !sound {
            break;
        }
    }
    journal.finish()
}

/// Hands one row on; says no where it is damaged.
fn record(row: &rusqlite::Row<'_>, journal: &mut Assembly) -> rusqlite::Result<bool> {
    // By bytes, so that text that is no text any more is found by the checksum and not by a conversion.
    let (append_id, events) = (row.get_ref(2)?.as_bytes()?, row.get_ref(4)?.as_bytes()?);
    let checksum: i64 = row.get(5)?;
    let stored = Stored {
        seq: row.get(0)?,
        form: row.get(1)?,
        append_id,
        at: row.get(3)?,
        events,
    };
    Ok(journal.push(&stored, |covered| checksum::of_record(covered) == checksum))
}

/// The outline that was kept of a definition.
pub(super) fn recall(
    conn: &Connection,
    key: &(String, u32, String),
) -> Result<Option<Outline>, StoreError> {
    let failed = |error| StoreError::failed("reading a definition", error);
    let json = conn
        .prepare_cached(
            "SELECT outline FROM definitions WHERE saga = ? AND version = ? AND fingerprint = ?",
        )
        .and_then(|mut find| {
            find.query_row((&key.0, key.1, &key.2), |row| row.get::<_, String>(0))
                .optional()
        })
        .map_err(failed)?;
    json.map(|json| serde_json::from_str(&json))
        .transpose()
        .map_err(|error| StoreError::failed("reading a definition", error))
}
