//! A row that was damaged costs its own run what comes after it, is told by what it is, and harms nothing
//! else; a file that is not ours is left as it is.
#![cfg(all(feature = "testkit", feature = "sqlite"))]
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests; the lints know test functions only.

use std::path::{Path, PathBuf};

use amends::journal::{FormError, Standing};
use amends::store::{Damage, LoadError, RunFilter, SqliteStore, Store as _, StoreError};
use amends::testkit::conformance::Sample;
use rusqlite::Connection;
use xxhash_rust::xxh3::xxh3_64;

/// A file with two runs of five records each, and a change that is made to it from outside.
async fn changed(sql: &str) -> (tempfile::TempDir, SqliteStore) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sagas.db");
    let store = SqliteStore::open(&file).unwrap();
    for id in ["sound", "hurt"] {
        let mut sample = Sample::new(id);
        store.append(sample.start()).await.unwrap();
        for step in 2..=5 {
            store
                .append(sample.step(&format!("output {step}")))
                .await
                .unwrap();
        }
    }
    store.close().await;
    let changed = Connection::open(&file).unwrap().execute(sql, []).unwrap();
    assert!(changed > 0, "the change has changed nothing");
    (dir, SqliteStore::open(file).unwrap())
}

/// What a load of the run `hurt` says after this change: the place, the damage, and how much is before it.
async fn damage(sql: &str) -> (u64, Damage, usize) {
    let (_dir, store) = changed(sql).await;
    assert_eq!(
        store
            .load(&"sound".into())
            .await
            .unwrap()
            .unwrap()
            .records
            .len(),
        5
    );
    assert_eq!(
        store
            .scan(&RunFilter::open(), None, 10)
            .await
            .unwrap()
            .len(),
        2
    );
    match store.load(&"hurt".into()).await {
        Err(LoadError::Unreadable {
            run,
            seq,
            what,
            before,
            ..
        }) => {
            assert_eq!((run.as_str(), before.run.as_str()), ("hurt", "hurt"));
            (seq, what, before.records.len())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_row_that_was_changed_is_told_by_its_checksum() {
    let changes = [
        "UPDATE journal SET events = replace(events, 'output 3', 'output 8') WHERE run = 2 AND seq = 3",
        "UPDATE journal SET events = CAST(x'5bff5d' AS TEXT) WHERE run = 2 AND seq = 3",
        "UPDATE journal SET at = at + 1 WHERE run = 2 AND seq = 3",
        "UPDATE journal SET append_id = zeroblob(16) WHERE run = 2 AND seq = 3",
        "UPDATE journal SET append_id = x'00' WHERE run = 2 AND seq = 3",
        "UPDATE journal SET form = 2 WHERE run = 2 AND seq = 3",
        "UPDATE journal SET form = -1 WHERE run = 2 AND seq = 3",
        "UPDATE journal SET checksum = checksum + 1 WHERE run = 2 AND seq = 3",
        // Another run's record, and another place's, whole as they are.
        "UPDATE journal SET (append_id, at, events, checksum) = (SELECT append_id, at, events, checksum FROM journal
         WHERE run = 1 AND seq = 3) WHERE run = 2 AND seq = 3",
        "UPDATE journal SET (append_id, at, events, checksum) = (SELECT append_id, at, events, checksum FROM journal
         WHERE run = 2 AND seq = 4) WHERE run = 2 AND seq = 3",
    ];
    for change in changes {
        assert_eq!(damage(change).await, (3, Damage::Checksum, 2), "{change}");
    }
}

#[tokio::test]
async fn a_row_that_is_gone_is_told_by_its_place() {
    assert_eq!(
        damage("DELETE FROM journal WHERE run = 2 AND seq = 3").await,
        (3, Damage::Missing, 2)
    );
    assert_eq!(
        damage("DELETE FROM journal WHERE run = 2 AND seq = 1").await,
        (1, Damage::Missing, 0)
    );
    assert_eq!(
        damage("DELETE FROM journal WHERE run = 2").await,
        (1, Damage::Missing, 0)
    );
}

#[tokio::test]
async fn a_form_that_this_build_does_not_know_is_told_by_its_version() {
    let (dir, store) = changed("UPDATE journal SET form = 99 WHERE run = 2 AND seq = 4").await;
    store.close().await;
    let file = dir.path().join("sagas.db");
    let conn = Connection::open(&file).unwrap();
    let (append_id, at, events): (Vec<u8>, i64, String) = conn
        .query_row(
            "SELECT append_id, at, events FROM journal WHERE run = 2 AND seq = 4",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .unwrap();
    // As docs/format.md says it.
    let mut bytes = Vec::new();
    bytes.extend(4_i64.to_le_bytes());
    bytes.extend(99_u32.to_le_bytes());
    bytes.extend(at.to_le_bytes());
    bytes.extend(append_id);
    bytes.extend(4_u32.to_le_bytes());
    bytes.extend(b"hurt");
    bytes.extend(events.as_bytes());
    let checksum = xxh3_64(&bytes).cast_signed();
    conn.execute(
        "UPDATE journal SET checksum = ? WHERE run = 2 AND seq = 4",
        [checksum],
    )
    .unwrap();

    let error = SqliteStore::open(&file)
        .unwrap()
        .load(&"hurt".into())
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("record 4 of run `hurt`") && text.contains("form version 99"),
        "{text}"
    );
    let LoadError::Unreadable {
        seq: 4,
        what: Damage::Form(FormError::Version { found: 99 }),
        before,
        ..
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(before.records.len(), 3);
}

#[tokio::test]
async fn a_run_that_the_lists_have_lost_is_not_hidden() {
    let (_dir, store) = changed("DELETE FROM open_runs WHERE run = 2").await;
    assert_eq!(
        store.find(&"hurt".into()).await.unwrap().unwrap().standing,
        Standing::Running
    );
    assert_eq!(
        store.scan(&RunFilter::all(), None, 10).await.unwrap().len(),
        2
    );
    let (_dir, store) = changed("UPDATE open_runs SET standing = 'asleep' WHERE run = 2").await;
    assert_eq!(
        store.find(&"hurt".into()).await.unwrap().unwrap().standing,
        Standing::Running
    );
}

/// What is said about a file that is refused, which has to be left as it was, with nothing beside it.
fn foreign(make: impl FnOnce(&Path)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("other.db");
    make(&file);
    let before = std::fs::read(&file).unwrap();
    let refused = |opened: Result<SqliteStore, StoreError>| match opened {
        Err(StoreError::Foreign { what }) => what,
        other => panic!("{other:?}"),
    };
    let what = refused(SqliteStore::open(&file));
    assert_eq!(refused(SqliteStore::open_reader(&file)), what);
    assert_eq!(std::fs::read(&file).unwrap(), before);
    // Whoever reads a database that uses a write-ahead log makes SQLite's two files beside it.
    let mut beside: Vec<PathBuf> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    beside.retain(|path| {
        !path.to_string_lossy().ends_with("-wal") && !path.to_string_lossy().ends_with("-shm")
    });
    assert_eq!(beside, [file]);
    what
}

#[test]
fn a_database_of_another_program_is_left_alone() {
    let what = foreign(|file| {
        Connection::open(file)
            .unwrap()
            .execute_batch("CREATE TABLE t (x)")
            .unwrap();
    });
    assert!(
        what.contains("other.db` is the database of another program"),
        "{what}"
    );
    let what = foreign(|file| {
        std::fs::write(
            file,
            "these are some notes, and no database at all ".repeat(100),
        )
        .unwrap();
    });
    assert!(what.contains("is not a SQLite database"), "{what}");
}

#[test]
fn a_schema_of_a_later_version_is_left_alone() {
    let what = foreign(|file| {
        SqliteStore::open(file).unwrap();
        Connection::open(file)
            .unwrap()
            .pragma_update(None, "user_version", 4)
            .unwrap();
        std::fs::remove_file(format!("{}.lock", file.display())).unwrap();
    });
    assert!(
        what.contains("schema version 4") && what.contains("knows version 3 at most"),
        "{what}"
    );
}

#[test]
fn nothing_and_nowhere_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty.db");
    std::fs::write(&empty, "").unwrap();
    assert!(matches!(
        SqliteStore::open_reader(&empty),
        Err(StoreError::Foreign { .. })
    ));
    let absent = SqliteStore::open_reader(dir.path().join("absent.db")).unwrap_err();
    assert!(matches!(absent, StoreError::Failed { .. }), "{absent:?}");
    let nowhere = SqliteStore::open(dir.path().join("no/such/folder/x.db")).unwrap_err();
    let cause = std::error::Error::source(&nowhere).unwrap().to_string();
    assert!(cause.contains("no/such/folder/x.db"), "{cause}");
    // An owner takes an empty file for a new one.
    SqliteStore::open(&empty).unwrap();
    SqliteStore::open_reader(&empty).unwrap();
}
