//! Looking at a journal file from outside, also at one that can't be opened as a store.

use std::fs::{self, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use crate::store::StoreError;
use crate::store::sqlite::schema::{self, Found};
use crate::store::sqlite::{SqliteStore, connect, lock, wal};

/// What a journal file is like, from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SqliteReport {
    /// The file, by its one name.
    pub path: PathBuf,
    /// The version of SQLite in this build.
    pub sqlite: &'static str,
    /// The version of the tables; nothing where there are none yet.
    pub schema: Option<i32>,
    /// The version that this build makes.
    pub newest_schema: i32,
    /// Who has it.
    pub owner: SqliteOwner,
    /// How large the database is.
    pub database_bytes: u64,
    /// How large its write-ahead log is.
    pub wal_bytes: u64,
}

/// Who owns a journal file now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SqliteOwner {
    /// Nobody.
    Nobody,
    /// This process of this machine, by what it wrote itself.
    Process(u32),
    /// Some process.
    Unknown,
}

impl SqliteStore {
    /// Looks at a file without opening it as a store: also one that has an owner, or an older schema.
    ///
    /// It tries the owner's lock for a moment; a coordinator that is started at the same instant may be
    /// told that the file is in use.
    ///
    /// # Errors
    ///
    /// [`StoreError::Foreign`] where the file is something else or of a newer version,
    /// [`StoreError::Failed`] where there is none or it can't be read.
    pub fn examine(path: impl AsRef<Path>) -> Result<SqliteReport, StoreError> {
        let options = SqliteStore::options();
        let path = connect::true_path(path.as_ref())?;
        let conn = connect::reader(&path, options.busy_timeout)?;
        let schema = match schema::identify(&conn, &path)? {
            Found::Nothing => None,
            Found::Journals { version } => Some(version),
        };
        let size = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
        Ok(SqliteReport {
            sqlite: rusqlite::version(),
            schema,
            newest_schema: schema::SCHEMA_VERSION,
            owner: owner(&path),
            database_bytes: size(&path),
            wal_bytes: size(Path::new(&wal::beside(&path))),
            path,
        })
    }
}

fn owner(database: &Path) -> SqliteOwner {
    let path = lock::beside(database);
    // Not made where it is missing: then nobody has ever owned the file.
    let Ok(file) = OpenOptions::new().read(true).open(&path) else {
        return SqliteOwner::Nobody;
    };
    match file.try_lock_shared() {
        Ok(()) => {
            // Where this fails, the handle's end still lets go.
            let _ = file.unlock();
            SqliteOwner::Nobody
        }
        Err(TryLockError::WouldBlock) => fs::read_to_string(&path)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .map_or(SqliteOwner::Unknown, SqliteOwner::Process),
        Err(TryLockError::Error(_)) => SqliteOwner::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_seen_while_it_has_the_file_and_can_still_open_it_after() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sagas.db");
        let store = SqliteStore::open(&path).unwrap();
        let seen = SqliteStore::examine(&path).unwrap();
        assert_eq!(seen.owner, SqliteOwner::Process(std::process::id()));
        assert_eq!(seen.schema, Some(seen.newest_schema));
        assert!(seen.wal_bytes > 0);
        drop(store);
        assert_eq!(
            SqliteStore::examine(&path).unwrap().owner,
            SqliteOwner::Nobody
        );
        drop(SqliteStore::open(&path).unwrap());
    }
}
