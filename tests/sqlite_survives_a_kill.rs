//! A process is killed in the middle of its appends: what it was told is written is there.
#![cfg(all(feature = "testkit", feature = "sqlite", unix))]
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests; the lints know test functions only.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use amends::store::{RunFilter, SqliteStore, Store as _};
use amends::testkit::conformance::Sample;

#[allow(dead_code)]
mod children;
use children::{Process, role, tell};

const RUNS: u64 = 8;

/// Appends to eight runs at once, for ever, and tells each append that was acknowledged; or opens new files
/// one after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some((round, file)) = role() else { return };
    if round == "opens" {
        for number in 0.. {
            drop(SqliteStore::open(format!("{file}.{number}")).unwrap());
            tell("opened");
        }
    }
    let store = Arc::new(
        SqliteStore::options()
            .wal_bytes(256 << 10)
            .open(file)
            .unwrap(),
    );
    let tasks: Vec<_> = (0..RUNS)
        .map(|number| {
            let (store, mut sample) =
                (Arc::clone(&store), Sample::new(format!("{round}/{number}")));
            tokio::spawn(async move {
                store.append(sample.start()).await.unwrap();
                tell(&format!("{} 1", sample.run()));
                for seq in 2_u64.. {
                    store.append(sample.step(&"x".repeat(200))).await.unwrap();
                    tell(&format!("{} {seq}", sample.run()));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// Lets a child append until it has told `many` appends, kills it, and gives the last place told per run.
fn killed_after(many: usize, round: usize, file: &Path) -> BTreeMap<String, u64> {
    let mut child = Process::start(&round.to_string(), file);
    let mut told = Vec::new();
    while told.len() < many {
        told.push(child.line().unwrap());
    }
    child.kill();
    told.extend(child.rest());
    let mut last = BTreeMap::new();
    for line in told {
        let (run, seq) = line.split_once(' ').unwrap();
        last.insert(run.to_owned(), seq.parse().unwrap());
    }
    last
}

#[tokio::test]
async fn every_acknowledged_append_is_there_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sagas.db");
    let mut all = BTreeMap::new();
    for round in 0..5 {
        all.extend(killed_after(100 + 400 * round, round, &file));
        // The lock ended with the process: no waiting, no second try.
        let store = SqliteStore::open(&file).unwrap();
        for (run, &acknowledged) in &all {
            let journal = store.load(&run.as_str().into()).await.unwrap().unwrap();
            let places: Vec<u64> = journal.records.iter().map(|record| record.seq).collect();
            let there = places.len() as u64;
            assert!(
                places.iter().copied().eq(1..=there),
                "run {run} has gaps: {places:?}"
            );
            // One more may have been written and not yet told; never two, since each waits for its answer.
            assert!(
                (acknowledged..=acknowledged + 1).contains(&there),
                "run {run}: {acknowledged} were acknowledged and {there} are there"
            );
        }
        let listed = store.scan(&RunFilter::open(), None, 1_000).await.unwrap();
        assert!(
            listed.len() >= all.len(),
            "{} runs of {} are listed",
            listed.len(),
            all.len()
        );
        store.close().await;
    }
    assert_eq!(all.len(), 5 * usize::try_from(RUNS).unwrap());
}

#[test]
fn a_file_whose_making_was_cut_short_is_opened_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..10 {
        let mut child = Process::start("opens", &dir.path().join(round.to_string()));
        for _ in 0..2 {
            assert_eq!(child.line().as_deref(), Some("opened"));
        }
        // Somewhere in the making of the next file, another place each time.
        std::thread::sleep(std::time::Duration::from_micros(700 * round));
        child.kill();
    }
    let mut opened = 0;
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let file = entry.unwrap().path();
        // `<round>.<number>`, and not what SQLite or the lock has put beside it.
        let ours = file
            .extension()
            .unwrap()
            .to_str()
            .unwrap()
            .parse::<u32>()
            .is_ok();
        if ours {
            drop(SqliteStore::open(&file).unwrap());
            opened += 1;
        }
    }
    assert!(opened >= 20, "{opened} files");
}
