//! Who owns a journal file: the process that holds the lock of the file beside it.
//!
//! The lock is the operating system's, so it ends with the process, however that ends: after a SIGKILL
//! the next owner opens the file at once, without a time to wait out and without a guess. It is taken on
//! `<database>.lock` and not on the database, because SQLite has locks of its own there, and closing any
//! other handle of the same file would drop them. The file beside stays where it is: removing it would let
//! two processes lock two files of one name.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use crate::store::StoreError;

/// The lock, for as long as this lives.
#[derive(Debug)]
pub(super) struct OwnerLock {
    file: File,
}

/// Unlocks by word, and not only by closing the file: another thread may be between `fork` and `exec`,
/// and the copy of the handle that its child has would hold the lock on for that moment.
impl Drop for OwnerLock {
    fn drop(&mut self) {
        // Where this fails, the handle's end still lets go.
        let _ = self.file.unlock();
    }
}

impl OwnerLock {
    /// Takes the lock of a database, or says who has it.
    pub(super) fn take(database: &Path) -> Result<Self, StoreError> {
        let path = beside(database);
        let failed = |error| StoreError::failed("taking the lock of the journal file", error);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {
                // Only a help for the message below, so nothing depends on it being written.
                let _ = file
                    .set_len(0)
                    .and_then(|()| write!(file, "{}", std::process::id()));
                Ok(OwnerLock { file })
            }
            Err(TryLockError::WouldBlock) => Err(in_use(database, &path, &mut file)),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

pub(super) fn beside(database: &Path) -> PathBuf {
    let mut name = OsString::from(database);
    name.push(".lock");
    PathBuf::from(name)
}

fn in_use(database: &Path, lock: &Path, file: &mut File) -> StoreError {
    let mut holder = String::new();
    let read = file
        .rewind()
        .and_then(|()| file.read_to_string(&mut holder));
    let holder = match (read, holder.trim().parse::<u32>()) {
        (Ok(_), Ok(pid)) if pid == std::process::id() => "this process".to_owned(),
        (Ok(_), Ok(pid)) => format!("process {pid}"),
        _ => "another process".to_owned(),
    };
    StoreError::InUse {
        what: format!(
            "`{}` is in use: {holder} holds `{}`, and one coordinator at a time owns a journal file; stop that one, \
             use another file, or open this one with `SqliteStore::open_reader`",
            database.display(),
            lock.display(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_owner_is_told_who_has_the_file_and_the_third_gets_it() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("sagas.db");
        let first = OwnerLock::take(&database).unwrap();
        let StoreError::InUse { what } = OwnerLock::take(&database).unwrap_err() else {
            panic!("another error")
        };
        assert!(
            what.contains("sagas.db")
                && what.contains("this process holds")
                && what.contains("open_reader"),
            "{what}"
        );
        drop(first);
        OwnerLock::take(&database).unwrap();
    }
}
