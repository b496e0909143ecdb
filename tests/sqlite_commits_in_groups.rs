//! Appends that are in flight together share a commit, and one that can't be stored takes no other with it.
#![cfg(all(feature = "testkit", feature = "sqlite"))]
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests; the lints know test functions only.

use std::sync::Arc;
use std::time::Duration;

use amends::store::{AppendError, Appending, SqliteOptions, SqliteStore, Store as _};
use amends::testkit::conformance::Sample;
use rusqlite::Connection;

/// A store whose writer is held up in the commit of one run, `first`, until the test lets it go: what is
/// appended meanwhile is in the queue together.
struct Held {
    dir: tempfile::TempDir,
    store: SqliteStore,
    first: Appending,
    holder: Connection,
}

impl Held {
    async fn open(options: SqliteOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sagas.db");
        let store = options.open(&file).unwrap();
        let holder = Connection::open(&file).unwrap();
        holder.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut first = store.append(Sample::new("first").start());
        // Until the writer has taken it from the queue there is nothing to see; a second is plenty.
        let held = tokio::time::timeout(Duration::from_secs(1), &mut first).await;
        assert!(held.is_err(), "the writer is not held up: {held:?}");
        Held {
            dir,
            store,
            first,
            holder,
        }
    }

    async fn let_go(self) -> (tempfile::TempDir, SqliteStore) {
        self.holder.execute_batch("ROLLBACK").unwrap();
        self.first.await.unwrap();
        (self.dir, self.store)
    }
}

fn patient() -> SqliteOptions {
    SqliteStore::options().busy_timeout(Duration::from_secs(60))
}

#[tokio::test]
async fn what_waits_together_is_committed_together() {
    let held = Held::open(patient()).await;
    let answers: Vec<_> = (0..100)
        .map(|run| held.store.append(Sample::new(format!("run-{run}")).start()))
        .collect();
    let (_dir, store) = held.let_go().await;
    for answer in answers {
        answer.await.unwrap();
    }
    assert_eq!((store.appends(), store.commits()), (101, 2));
}

#[tokio::test]
async fn a_batch_has_a_bound_in_appends_and_in_bytes() {
    let held = Held::open(patient().max_batch(10)).await;
    let answers: Vec<_> = (0..95)
        .map(|run| held.store.append(Sample::new(format!("run-{run}")).start()))
        .collect();
    let (_dir, store) = held.let_go().await;
    for answer in answers {
        answer.await.unwrap();
    }
    assert_eq!((store.appends(), store.commits()), (96, 11));

    let held = Held::open(patient().max_batch_bytes(10_000)).await;
    let mut sample = Sample::new("run");
    let mut answers = vec![held.store.append(sample.start())];
    answers.extend((0..8).map(|_| held.store.append(sample.step(&"x".repeat(6_000)))));
    let (_dir, store) = held.let_go().await;
    for answer in answers {
        answer.await.unwrap();
    }
    // The start and two, three times two: the append that reaches the bound is still in.
    assert_eq!((store.appends(), store.commits()), (10, 5));
}

#[tokio::test]
async fn an_append_that_is_too_large_takes_no_other_with_it() {
    let held = Held::open(patient().max_record_bytes(100_000)).await;
    let mut large = Sample::new("large");
    let mut answers = vec![held.store.append(large.start())];
    let mut others: Vec<Sample> = (0..30)
        .map(|run| Sample::new(format!("run-{run}")))
        .collect();
    answers.extend(
        others[..15]
            .iter_mut()
            .map(|sample| held.store.append(sample.start())),
    );
    let too_large = held.store.append(large.step(&"x".repeat(200_000)));
    answers.extend(
        others[15..]
            .iter_mut()
            .map(|sample| held.store.append(sample.start())),
    );
    let (_dir, store) = held.let_go().await;
    match too_large.await {
        Err(error @ AppendError::NotWritten(_)) => {
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(cause.contains("too big"), "{cause}");
        }
        other => panic!("{other:?}"),
    }
    for answer in answers {
        answer.await.unwrap();
    }
    // The first by itself, then each of the batch alone.
    assert_eq!((store.appends(), store.commits()), (32, 32));
    // Its place is free, and the run goes on.
    large.skip(-1);
    store.append(large.step("small")).await.unwrap();
    assert_eq!(
        store
            .load(large.run())
            .await
            .unwrap()
            .unwrap()
            .records
            .len(),
        2
    );
}

#[tokio::test]
async fn a_file_that_somebody_else_writes_to_blames_no_append() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sagas.db");
    let store = SqliteStore::options()
        .busy_timeout(Duration::from_millis(20))
        .open(&file)
        .unwrap();
    let other = Connection::open(&file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let starts: Vec<_> = (0..20)
        .map(|run| Sample::new(format!("run-{run}")).start())
        .collect();
    let answers: Vec<_> = starts
        .iter()
        .map(|start| store.append(start.clone()))
        .collect();
    for answer in answers {
        assert!(matches!(answer.await, Err(AppendError::NotWritten(_))));
    }
    assert!(store.find(&"run-0".into()).await.unwrap().is_none());
    other.execute_batch("ROLLBACK").unwrap();
    for start in starts {
        store.append(start).await.unwrap();
    }
    assert_eq!(store.appends(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_shares_commits() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(dir.path().join("sagas.db")).unwrap());
    let tasks: Vec<_> = (0..256)
        .map(|run| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut sample = Sample::new(format!("run-{run}"));
                store.append(sample.start()).await.unwrap();
                for _ in 0..15 {
                    store.append(sample.step("output")).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(store.appends(), 256 * 16);
    assert!(
        store.commits() < store.appends() / 4,
        "{} commits of {} appends",
        store.commits(),
        store.appends()
    );
}
