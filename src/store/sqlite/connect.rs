//! Connections to a journal file, as its writer and its readers need them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::store::StoreError;

/// The oldest SQLite that is good enough: in older ones a checkpoint beside a commit of another connection
/// can damage the database (the "WAL-reset bug", fixed in 3.51.3).
const OLDEST: (i32, &str) = (3_051_003, "3.51.3");

#[derive(Debug, thiserror::Error)]
#[error(
    "SQLite is version {found}, and {} or later is needed: in older ones a checkpoint can damage the database",
    OLDEST.1
)]
struct TooOld {
    found: &'static str,
}

/// Refuses a SQLite that can't keep the promises of the store.
pub(super) fn check_version() -> Result<(), StoreError> {
    if rusqlite::version_number() < OLDEST.0 {
        return Err(StoreError::failed(
            "checking the version of SQLite",
            TooOld {
                found: rusqlite::version(),
            },
        ));
    }
    Ok(())
}

/// The file's one name, so that its lock is the same by whatever path it is opened.
pub(super) fn true_path(path: &Path) -> Result<PathBuf, StoreError> {
    let failed = |error: std::io::Error| {
        let what = format!("{}: {error}", path.display());
        StoreError::failed(
            "finding the journal file",
            std::io::Error::new(error.kind(), what),
        )
    };
    match path.canonicalize() {
        Ok(path) => Ok(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
                return Err(failed(error));
            };
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            Ok(parent.canonicalize().map_err(failed)?.join(name))
        }
        Err(error) => Err(failed(error)),
    }
}

/// A connection that reads. Its statements fail where they would change anything.
pub(super) fn reader(path: &Path, busy_timeout: Duration) -> Result<Connection, StoreError> {
    // Without SQLITE_OPEN_URI, so that a file may have any name.
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let conn = Connection::open_with_flags(path, flags)?;
        conn.busy_timeout(busy_timeout)?;
        Ok(conn)
    };
    open().map_err(|error: rusqlite::Error| {
        StoreError::failed("opening the journal file for reading", error)
    })
}

/// A connection that reads and writes, and makes the file where there is none.
pub(super) fn writer(path: &Path, busy_timeout: Duration) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let conn = Connection::open_with_flags(path, flags)?;
        conn.busy_timeout(busy_timeout)?;
        Ok(conn)
    };
    open().map_err(|error: rusqlite::Error| StoreError::failed("opening the journal file", error))
}

/// Sets what makes a commit durable. Not before the file is known to be ours: the first line changes it.
pub(super) fn make_durable(conn: &Connection) -> Result<(), StoreError> {
    let failed =
        |error: rusqlite::Error| StoreError::failed("turning on the write-ahead log", error);
    let mode: String = conn
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(failed)?;
    if mode != "wal" {
        let what = format!(
            "SQLite stays in journal mode `{mode}`: the file system may lack shared memory"
        );
        return Err(StoreError::failed("turning on the write-ahead log", what));
    }
    // `fullfsync` matters on macOS only, where a plain fsync leaves data in the drive's cache.
    // Checkpoints are made by the writer, after it has answered, and so that it sees their errors:
    // SQLite's own are made inside COMMIT and swallow them.
    conn.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON;
         PRAGMA foreign_keys = OFF; PRAGMA wal_autocheckpoint = 0;",
    )
    .map_err(failed)
}
