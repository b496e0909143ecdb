//! A process that was killed while it made the journal file leaves a rollback journal. The next one opens it.
#![cfg(feature = "sqlite")]

use amends::store::SqliteStore;

#[test]
fn a_file_with_a_hot_rollback_journal_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let (torn, file) = (dir.path().join("torn.db"), dir.path().join("sagas.db"));
    let conn = rusqlite::Connection::open(&torn).unwrap();
    // A cache of one page: the transaction reaches the file before it commits, as it does in a kill.
    conn.execute_batch(
        "PRAGMA cache_size = 1; BEGIN; CREATE TABLE t (x); INSERT INTO t VALUES (zeroblob(100000));",
    )
    .unwrap();
    std::fs::copy(&torn, &file).unwrap();
    std::fs::copy(
        dir.path().join("torn.db-journal"),
        dir.path().join("sagas.db-journal"),
    )
    .unwrap();
    SqliteStore::open(&file).unwrap();
}
