//! Whoever follows the outbox misses nothing (rule W5): SQLite, where positions are places in the journal.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use amends::journal::Event;
use amends::store::{Outbox, PruneFilter, Published, SqliteStore, Store};
use amends::{Coordinator, RunId, Saga, StartOptions, Timestamp, step_fn, step_with};
use tokio::sync::Notify;

fn saga() -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("order");
    let mut last = saga.input();
    for name in ["reserve", "pay", "ship"] {
        let step = step_fn(name, async |_, n: &u64| Ok(n + 1), async |_, _, _| Ok(()));
        last = saga.add(step, last);
    }
    saga.returns(last).unwrap()
}

/// One step, which waits for the gate where its input isn't 0.
fn gated(gate: &Arc<Notify>) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("gated");
    let input = saga.input();
    let done = saga.add(
        step_with(
            "wait",
            Arc::clone(gate),
            async |gate: &Arc<Notify>, _, input: &u64| {
                if *input > 0 {
                    gate.notified().await;
                }
                Ok(*input)
            },
            async |_, _, _, _| Ok(()),
        ),
        input,
    );
    saga.returns(done).unwrap()
}

async fn coordinator(path: &Path) -> Coordinator {
    let store = SqliteStore::open(path).unwrap();
    let builder = Coordinator::builder(store).register(&saga());
    builder.build().await.unwrap()
}

async fn complete(coordinator: &Coordinator, run: &str) {
    let run = coordinator.start(&saga(), run, 1).await.unwrap();
    assert_eq!(run.outcome().await.unwrap().word(), "completed");
}

async fn follow(path: PathBuf, limit: usize, over: Arc<AtomicBool>) -> Vec<Published> {
    let store = SqliteStore::open_reader(path).unwrap();
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let last = over.load(Ordering::SeqCst);
        let read = store.published(after, limit).await.unwrap();
        match read.last() {
            Some(newest) => after = newest.position,
            None if last => break,
            None => {}
        }
        all.extend(read);
    }
    store.close().await;
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w5_readers_beside_writers_see_every_record_once_and_in_order() {
    const RUNS: u64 = 40;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sagas.db");
    let coordinator = coordinator(&path).await;
    let over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = [1, 7, 100]
        .into_iter()
        .map(|limit| tokio::spawn(follow(path.clone(), limit, Arc::clone(&over))))
        .collect();
    for n in 0..RUNS / 2 {
        complete(&coordinator, &format!("mine-{n}")).await;
        // Another connection writes, too.
        let mut other = rusqlite::Connection::open(&path).unwrap();
        let transaction = other
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .unwrap();
        let (run, options) = (format!("theirs-{n}"), StartOptions::new());
        SqliteStore::start_in(&transaction, &saga(), run, 1, options).unwrap();
        transaction.commit().unwrap();
    }
    for n in 0..RUNS / 2 {
        complete(&coordinator, &format!("theirs-{n}")).await;
    }
    coordinator.shutdown().await;
    over.store(true, Ordering::SeqCst);

    let mut first: Option<Vec<Published>> = None;
    for reader in readers {
        let read = reader.await.unwrap();
        let positions: Vec<u64> = read.iter().map(|one| one.position).collect();
        assert_eq!(positions, (1..=read.len() as u64).collect::<Vec<_>>());
        let mut runs: BTreeMap<&RunId, Vec<u64>> = BTreeMap::new();
        for one in &read {
            runs.entry(&one.run).or_default().push(one.seq);
        }
        assert_eq!(runs.len() as u64, RUNS);
        let gapless = |seqs: &Vec<u64>| *seqs == (1..=seqs.len() as u64).collect::<Vec<_>>();
        assert!(
            runs.values().all(|seqs| gapless(seqs) && seqs.len() > 1),
            "{runs:?}"
        );
        let of_run = read.iter().filter(|one| one.run.as_str() == "mine-0");
        let events: Vec<_> = of_run.flat_map(|one| one.events.clone().unwrap()).collect();
        assert!(matches!(&events[0], Event::RunStarted(_)));
        assert!(matches!(&events[1], Event::StepStarted { step, .. } if step == "reserve"));
        assert!(matches!(events.last().unwrap(), Event::Ended(_)));
        let first = first.get_or_insert_with(|| read.clone());
        assert_eq!(*first, read, "positions are the same for all");
    }
}

#[tokio::test]
async fn w5_a_forgotten_record_leaves_its_position_to_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sagas.db");
    let gate = Arc::new(Notify::new());
    let gated = gated(&gate);
    let store = SqliteStore::open(&path).unwrap();
    let builder = Coordinator::builder(store).register(&gated);
    let coordinator = builder.build().await.unwrap();
    let outside = SqliteStore::open_reader(&path).unwrap();
    // The older run ends last, and so has the highest position.
    let older = coordinator.start(&gated, "older", 1).await.unwrap();
    let newer = coordinator.start(&gated, "newer", 0).await.unwrap();
    assert_eq!(newer.outcome().await.unwrap().word(), "completed");
    gate.notify_one();
    assert_eq!(older.outcome().await.unwrap().word(), "completed");
    coordinator.shutdown().await;

    let mut other = rusqlite::Connection::open(&path).unwrap();
    let store = SqliteStore::open(&path).unwrap();
    let all = store.published(0, 100).await.unwrap();
    let last = all.last().unwrap();
    assert_eq!(last.run.as_str(), "older");
    let highest = last.position;
    let filter = PruneFilter::ended_before(Timestamp::from_micros(i64::MAX));
    let after_prune = async |expected: u64| {
        assert_eq!(
            store.prune(&filter, None, 100).await.unwrap().runs,
            expected
        );
        store.published(0, 100).await.unwrap()
    };
    let left = after_prune(1).await;
    assert!(
        left.iter().all(|one| one.run.as_str() == "newer"),
        "{left:?}"
    );
    let transaction = other.transaction().unwrap();
    SqliteStore::start_in(&transaction, &saga(), "newest", 1, StartOptions::new()).unwrap();
    transaction.commit().unwrap();
    let read = outside.published(highest, 100).await.unwrap();
    assert_eq!(read.len(), 1, "a reader that had come to {highest} goes on");
    assert_eq!(read[0].position, highest + 1);

    // Also where nothing of the highest is left at the next start.
    after_prune(1).await;
    store.close().await;
    let store = SqliteStore::open(&path).unwrap();
    let transaction = other.transaction().unwrap();
    SqliteStore::start_in(&transaction, &saga(), "again", 1, StartOptions::new()).unwrap();
    transaction.commit().unwrap();
    let read = store.published(0, 100).await.unwrap();
    let positions: Vec<u64> = read.iter().map(|one| one.position).collect();
    assert_eq!(positions, [highest + 1, highest + 2]);
    store.close().await;
    outside.close().await;
}

#[tokio::test]
async fn a_damaged_record_is_told_and_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sagas.db");
    let coordinator = coordinator(&path).await;
    complete(&coordinator, "one").await;
    complete(&coordinator, "two").await;
    coordinator.shutdown().await;
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute("UPDATE journal SET at = at + 1 WHERE pos = 2", [])
        .unwrap();
    let store = SqliteStore::open_reader(&path).unwrap();
    let read = store.published(0, 100).await.unwrap();
    let damaged: Vec<u64> = read
        .iter()
        .filter(|one| one.events.is_err())
        .map(|one| one.position)
        .collect();
    assert_eq!(damaged, [2]);
    assert!(read.len() > 4);
    store.close().await;
}

#[tokio::test]
async fn a_cursor_is_kept_by_name_by_whoever_reads_and_never_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sagas.db");
    let owner = SqliteStore::open(&path).unwrap();
    let reader = SqliteStore::open_reader(&path).unwrap();
    assert_eq!(reader.cursor("mailer").await.unwrap(), 0);
    reader.advance("mailer", 7).await.unwrap();
    owner.advance("mailer", 3).await.unwrap();
    owner.advance("biller", 4).await.unwrap();
    assert_eq!(owner.cursor("mailer").await.unwrap(), 7);
    assert_eq!(reader.cursor("biller").await.unwrap(), 4);
    reader.close().await;
    owner.close().await;
}
