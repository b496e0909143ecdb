//! One process owns a journal file; others read it, or are told who has it.
#![cfg(all(feature = "testkit", feature = "sqlite"))]
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests; the lints know test functions only.

use std::io::Read as _;

use amends::store::{AppendError, RunFilter, SqliteStore, Store as _, StoreError};
use amends::testkit::conformance::Sample;

#[allow(dead_code)]
mod children;
use children::{Process, role, tell};

/// Owns the file and writes to it, or reads it, until its standard input ends.
#[tokio::test]
async fn child() {
    let Some((role, file)) = role() else { return };
    match role.as_str() {
        "owner" => {
            let store = SqliteStore::open(file).unwrap();
            let mut sample = Sample::new("run");
            store.append(sample.start()).await.unwrap();
            tell("ready");
            let ended =
                std::thread::spawn(|| std::io::stdin().read_to_end(&mut Vec::new()).unwrap());
            while !ended.is_finished() {
                store.append(sample.step("output")).await.unwrap();
            }
            store.close().await;
        }
        "reader" => {
            let store = SqliteStore::open_reader(file).unwrap();
            let listed = store.scan(&RunFilter::open(), None, 10).await.unwrap();
            let journal = store.load(&listed[0].run).await.unwrap().unwrap();
            tell(&format!("{} {}", listed[0].run, journal.records.len()));
        }
        other => panic!("no such role: {other}"),
    }
}

fn in_use(file: &std::path::Path) -> String {
    match SqliteStore::open(file) {
        Err(StoreError::InUse { what }) => what,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_second_owner_is_told_who_has_the_file_while_readers_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sagas.db");
    let mut owner = Process::start("owner", &file);
    assert_eq!(owner.line().as_deref(), Some("ready"));

    let what = in_use(&file);
    let real = file.canonicalize().unwrap();
    for word in [
        format!("`{}` is in use", real.display()),
        format!("process {}", owner.id()),
        "open_reader".to_owned(),
    ] {
        assert!(what.contains(&word), "`{word}` is missing in: {what}");
    }

    // What the owner writes meanwhile is seen by each later load.
    let reader = SqliteStore::open_reader(&file).unwrap();
    let mut seen = 0;
    while seen < 200 {
        let records = reader
            .load(&"run".into())
            .await
            .unwrap()
            .unwrap()
            .records
            .len();
        assert!(
            records >= seen,
            "a later load gave {records} records, and an earlier one {seen}"
        );
        seen = records;
    }
    assert_eq!(
        reader.find(&"run".into()).await.unwrap().unwrap().saga,
        "sample"
    );

    owner.end();
    let store = SqliteStore::open(&file).unwrap();
    assert!(
        store
            .load(&"run".into())
            .await
            .unwrap()
            .unwrap()
            .records
            .len()
            >= seen
    );
}

#[cfg(unix)]
#[test]
fn a_killed_owner_has_lost_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sagas.db");
    for _ in 0..3 {
        let mut owner = Process::start("owner", &file);
        assert_eq!(owner.line().as_deref(), Some("ready"));
        in_use(&file);
        owner.kill();
        // At once, and every time.
        drop(SqliteStore::open(&file).unwrap());
        std::fs::remove_file(&file).unwrap();
    }
}

#[tokio::test]
async fn another_process_reads_what_this_one_writes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sagas.db");
    let store = SqliteStore::open(&file).unwrap();
    let mut sample = Sample::new("mine");
    store.append(sample.start()).await.unwrap();
    for done in 2..=4 {
        store.append(sample.step("output")).await.unwrap();
        assert_eq!(
            Process::start("reader", &file).rest(),
            [format!("mine {done}")]
        );
    }
}

#[tokio::test]
async fn a_reader_neither_appends_nor_remembers() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sagas.db");
    let owner = SqliteStore::open(&file).unwrap();
    let mut sample = Sample::new("run");
    owner.append(sample.start()).await.unwrap();
    owner.close().await;

    let reader = SqliteStore::open_reader(&file).unwrap();
    match reader.append(sample.step("output")).await {
        Err(error @ AppendError::Dead(_)) => {
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert_eq!(
                cause,
                "it was opened by somebody who doesn't own it: only the owner appends"
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        reader
            .load(sample.run())
            .await
            .unwrap()
            .unwrap()
            .records
            .len(),
        1
    );
    // It is no owner: another one can come.
    SqliteStore::open(&file).unwrap();
}

#[tokio::test]
async fn a_store_lets_go_when_it_is_closed_or_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sagas.db");
    let mut sample = Sample::new("run");

    let first = SqliteStore::open(&file).unwrap();
    first.append(sample.start()).await.unwrap();
    first.close().await;
    let second = SqliteStore::open(&file).unwrap();
    assert!(matches!(
        first.append(sample.clone().step("late")).await,
        Err(AppendError::Dead(_))
    ));
    assert!(matches!(
        first.find(sample.run()).await,
        Err(StoreError::Dead { .. })
    ));
    first.close().await;

    // Dropped with appends that nobody awaits: they are finished first.
    for _ in 0..50 {
        drop(second.append(sample.step("output")));
    }
    drop(second);
    let third = SqliteStore::open(&file).unwrap();
    assert_eq!(
        third
            .load(sample.run())
            .await
            .unwrap()
            .unwrap()
            .records
            .len(),
        51
    );
    third.close().await;

    let left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(
        left.len(),
        2,
        "beside the database and its lock nothing is left: {left:?}"
    );
}

#[cfg(unix)]
#[test]
fn a_file_has_one_owner_by_whatever_name_it_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("sagas.db"), dir.path().join("link.db"));
    let _store = SqliteStore::open(&file).unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    in_use(&link);
    in_use(&dir.path().join(".").join("sagas.db"));
}
