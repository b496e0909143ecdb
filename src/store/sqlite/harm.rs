//! How far an error of SQLite reaches: one append, the batch, or the store.
//!
//! The rule behind all of it (W2): an append is refused as *not written* only where that is certain, and
//! where a sync to disk has failed nothing is certain any more. After a failed `fsync` the kernel may have
//! marked the lost pages clean, so a second `fsync` succeeds without having written them, and what one
//! reads back comes from memory and not from the disk: Rebello et al., "Can Applications Recover from fsync
//! Failures?", USENIX ATC 2020. So a failed sync is never retried. The store stops, and what is true is
//! read from the disk by the next process.

use rusqlite::{Error, ErrorCode, ffi};

/// How far an error reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Harm {
    /// Some append of the batch may be to blame: each is tried alone.
    Append,
    /// No append is to blame and none would fare better alone; none is written.
    Batch,
    /// The store stops.
    Store,
}

/// What an error means that came before `COMMIT`. Nothing of the batch has been promised or synced, and
/// rolling back takes it away, so all of it is definitely not written, unless a sync was tried (SQLite
/// syncs the log's header when it begins the log anew).
pub(super) fn of_statement(error: &Error) -> Harm {
    match error.sqlite_error() {
        Some(cause) if is_sync(cause.extended_code) => Harm::Store,
        Some(cause) if is_shared(cause.code) => Harm::Batch,
        _ => Harm::Append,
    }
}

/// What an error of `COMMIT` itself means.
///
/// * A full disk is definite: SQLite writes the frame that commits last, and gives up at the first frame
///   that does not fit, before the sync.
/// * Busy is definite: nothing was begun.
/// * Anything else stops the store. A failed sync may have left the whole transaction in the log, where a
///   later process finds it; so may an error after the sync (the index of the log could not grow, say), and
///   of a failed write nobody knows how much of it arrived. The appends are answered `Dead`, which claims
///   neither that they are written nor that they aren't.
pub(super) fn of_commit(error: &Error) -> Harm {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Harm::Append,
        Some(ErrorCode::DatabaseBusy) => Harm::Batch,
        _ => Harm::Store,
    }
}

/// Whether an error of a checkpoint stops the store.
///
/// Only a failed sync does. Whatever else fails, the log keeps all that was acknowledged, and the next
/// checkpoint writes the same pages again.
pub(super) fn of_checkpoint(error: &Error) -> Harm {
    match error.sqlite_error() {
        Some(cause) if is_sync(cause.extended_code) => Harm::Store,
        _ => Harm::Batch,
    }
}

fn is_sync(extended_code: i32) -> bool {
    matches!(
        extended_code,
        ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC
    )
}

/// Whether every append would meet the same error.
fn is_shared(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::ReadOnly
            | ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::NotADatabase
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: i32) -> Error {
        Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn a_failed_sync_stops_the_store_wherever_it_happens() {
        for code in [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_DIR_FSYNC] {
            assert_eq!(of_statement(&error(code)), Harm::Store);
            assert_eq!(of_commit(&error(code)), Harm::Store);
            assert_eq!(of_checkpoint(&error(code)), Harm::Store);
        }
    }

    #[test]
    fn a_full_disk_is_definite_and_each_append_is_tried_alone() {
        assert_eq!(of_statement(&error(ffi::SQLITE_FULL)), Harm::Append);
        assert_eq!(of_commit(&error(ffi::SQLITE_FULL)), Harm::Append);
        assert_eq!(of_statement(&error(ffi::SQLITE_TOOBIG)), Harm::Append);
    }

    #[test]
    fn a_write_that_fails_at_commit_leaves_nothing_certain() {
        for code in [
            ffi::SQLITE_IOERR_WRITE,
            ffi::SQLITE_IOERR_SHMSIZE,
            ffi::SQLITE_NOMEM,
            ffi::SQLITE_CORRUPT,
        ] {
            assert_eq!(of_commit(&error(code)), Harm::Store);
            assert_eq!(of_statement(&error(code)), Harm::Append);
        }
    }

    #[test]
    fn a_database_that_somebody_else_writes_to_blames_no_append() {
        assert_eq!(of_statement(&error(ffi::SQLITE_BUSY)), Harm::Batch);
        assert_eq!(of_commit(&error(ffi::SQLITE_BUSY)), Harm::Batch);
        assert_eq!(of_checkpoint(&error(ffi::SQLITE_FULL)), Harm::Batch);
    }
}
