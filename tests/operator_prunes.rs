//! Ended runs are forgotten in small pieces, beside a coordinator at work, and only after they were exported
//! where that was asked for.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

#[allow(dead_code)]
mod children;
mod operating;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use amends::Timestamp;
use amends::journal::Standing;
use amends::operator::{Operator, PruneTotals, Retention};
use amends::store::{MemoryStore, PruneFilter, RunFilter, SqliteStore, Store};
use children::Process;
use operating::{GOES_WELL, coordinator, one_of_each, order, run_to_rest, trip};

/// All runs that have ended by now, whatever the clock's grain.
fn all_ended() -> PruneFilter {
    PruneFilter::ended_before(Timestamp::now().after(Duration::from_secs(60)))
}

async fn ids(store: &dyn Store) -> Vec<String> {
    let all = store.scan(&RunFilter::all(), None, 10_000).await.unwrap();
    all.iter().map(|entry| entry.run.to_string()).collect()
}

async fn prune(store: &Arc<SqliteStore>, retention: &Retention) -> (PruneTotals, Vec<u64>) {
    let mut told = Vec::new();
    let operator = Operator::new(store.clone());
    let totals = operator
        .prune(retention, |so_far| told.push(so_far.runs))
        .await
        .unwrap();
    (totals, told)
}

async fn file(dir: &Path) -> Arc<SqliteStore> {
    let path = dir.join("sagas.db");
    one_of_each(Arc::new(SqliteStore::open(&path).unwrap())).await;
    Arc::new(SqliteStore::open_reader(&path).unwrap())
}

#[tokio::test]
async fn only_what_has_ended_goes_and_never_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let store = file(dir.path()).await;
    let dry = Operator::new(store.clone())
        .prune_dry_run(&all_ended())
        .await
        .unwrap();
    let by: Vec<(&str, u64)> = dry.by_standing.into_iter().collect();
    assert_eq!(by, [("compensated", 1), ("completed", 1), ("stopped", 1)]);
    assert_eq!(dry.runs, 3);
    assert_eq!(ids(&*store).await.len(), 7, "a dry run forgets nothing");
    let (totals, told) = prune(&store, &Retention::new(all_ended()).batch(2)).await;
    assert_eq!(totals.runs, 3);
    // The last piece finds nothing more.
    assert_eq!(told, [2, 3, 3]);
    // `run-7` has ended, too, and is the newest.
    assert_eq!(ids(&*store).await, ["run-2", "run-4", "run-6", "run-7"]);
    assert!(store.load(&"run-1".into()).await.unwrap().is_none());
    let (totals, _) = prune(&store, &Retention::new(all_ended())).await;
    assert_eq!(totals.runs, 0);
}

#[tokio::test]
async fn age_and_status_choose_what_goes() {
    let dir = tempfile::tempdir().unwrap();
    let store = file(dir.path()).await;
    let long_ago = PruneFilter::ended_before(Timestamp::from_micros(
        Timestamp::now().as_micros() - 3_600_000_000,
    ));
    assert_eq!(prune(&store, &Retention::new(long_ago)).await.0.runs, 0);
    let stopped = all_ended()
        .standing(Standing::Stopped)
        .standing(Standing::Parked);
    assert_eq!(prune(&store, &Retention::new(stopped)).await.0.runs, 1);
    assert_eq!(
        ids(&*store).await,
        ["run-1", "run-2", "run-4", "run-5", "run-6", "run-7"]
    );
}

#[tokio::test]
async fn what_is_exported_first_is_what_goes_and_can_be_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = file(dir.path()).await;
    let kept = dir.path().join("old.jsonl");
    let retention = Retention::new(all_ended()).batch(2).export_first(&kept);
    let (totals, _) = prune(&store, &retention).await;
    assert_eq!((totals.runs, totals.kept.len()), (3, 0));
    assert_eq!(ids(&*store).await, ["run-2", "run-4", "run-6", "run-7"]);
    let back = Arc::new(MemoryStore::new());
    let text = std::fs::read(&kept).unwrap();
    let taken = Operator::new(back.clone())
        .import(&*text, |_, _| (), |_| ())
        .await
        .unwrap();
    assert!(taken.complete);
    assert_eq!(ids(&*back).await, ["run-1", "run-3", "run-5"]);
    // An export is never written over.
    let again = Operator::new(store).prune(&retention, |_| ()).await;
    assert!(again.is_err());
    assert_eq!(std::fs::read(&kept).unwrap(), text);
}

#[tokio::test]
async fn a_run_that_cannot_be_exported_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = file(dir.path()).await;
    let conn = rusqlite::Connection::open(store.path()).unwrap();
    conn.execute_batch("UPDATE journal SET at = at + 1 WHERE run = 3 AND seq = 2")
        .unwrap();
    let retention = Retention::new(all_ended()).export_first(dir.path().join("old.jsonl"));
    let (totals, _) = prune(&store, &retention).await;
    assert_eq!(totals.runs, 2);
    assert_eq!(totals.kept.len(), 1);
    assert_eq!(totals.kept[0].0.as_str(), "run-3");
    assert_eq!(
        ids(&*store).await,
        ["run-2", "run-3", "run-4", "run-6", "run-7"]
    );
}

#[tokio::test]
async fn what_comes_to_match_after_the_export_is_not_forgotten_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = file(dir.path()).await;
    // As the export of a batch leaves it: two of the three were chosen.
    let chosen = store.scan(&RunFilter::all(), None, 3).await.unwrap();
    let numbers = [chosen[0].number, chosen[2].number];
    let pruned = store
        .prune(&all_ended().numbers(numbers), None, 10)
        .await
        .unwrap();
    assert_eq!(pruned.runs, 2);
    assert_eq!(
        ids(&*store).await,
        ["run-2", "run-4", "run-5", "run-6", "run-7"]
    );
}

/// The body of the processes that tests start; nothing in the test's own process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some((role, path)) = children::role() else {
        return;
    };
    assert_eq!(role, "works");
    let mended = Arc::default();
    let coordinator = coordinator(Arc::new(SqliteStore::open(&path).unwrap()), &mended).await;
    let trip = trip(&mended);
    children::tell("works");
    // Until the parent has seen enough: runs of both ends, many at once.
    let (end, mut ended) = tokio::sync::watch::channel(false);
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = std::io::stdin().read_line(&mut line);
        let _ = end.send(true);
    });
    let mut done = 0_u64;
    while !*ended.borrow_and_update() {
        let runs: Vec<_> = (0..20_u64)
            .map(|lane| {
                let (coordinator, trip) = (coordinator.clone(), trip.clone());
                let id = format!("work-{done:06}-{lane}");
                tokio::spawn(async move {
                    let run = coordinator
                        .start(&trip, id.as_str(), lane % 2)
                        .await
                        .unwrap();
                    run.outcome().await.unwrap().word()
                })
            })
            .collect();
        for (lane, run) in runs.into_iter().enumerate() {
            let wanted = if lane % 2 == 0 {
                "completed"
            } else {
                "compensated"
            };
            assert_eq!(run.await.unwrap(), wanted);
        }
        done += 20;
    }
    children::tell(&done.to_string());
    coordinator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_coordinator_of_another_process_both_go_on_without_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sagas.db");
    one_of_each(Arc::new(SqliteStore::open(&path).unwrap())).await;
    let mut worker = Process::start("works", &path);
    assert_eq!(worker.line().as_deref(), Some("works"));
    let store = Arc::new(SqliteStore::open_reader(&path).unwrap());
    let retention = Retention::new(all_ended())
        .batch(10)
        .pause(Duration::from_millis(1));
    let (mut forgotten, mut newest) = (0, 0);
    // Until it has forgotten runs that were made while it was at work.
    while forgotten < 40 {
        forgotten += prune(&store, &retention).await.0.runs;
        let last = store
            .scan(&RunFilter::all().newest_first(), None, 1)
            .await
            .unwrap();
        assert!(last[0].number >= newest, "no number is given twice");
        newest = last[0].number;
    }
    worker.end();
    let done: u64 = worker.line().unwrap().parse().unwrap();
    let left = ids(&*store).await;
    assert_eq!(
        done + 7 - forgotten,
        store.counts().await.unwrap().all(),
        "each run was forgotten once or is there"
    );
    for open in ["run-2", "run-4", "run-6"] {
        assert!(left.iter().any(|run| run == open), "{open}");
    }
    let found = |finding: &amends::operator::Finding| panic!("{finding}");
    Operator::new(store)
        .verify(&RunFilter::all(), found, |_| ())
        .await
        .unwrap();
}

#[tokio::test]
async fn in_the_coordinator_s_own_process_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(dir.path().join("sagas.db")).unwrap());
    let mended = Arc::default();
    let coordinator = coordinator(store.clone(), &mended).await;
    let order = order(&mended);
    for number in 0..30 {
        run_to_rest(&coordinator, &order, &format!("run-{number:02}"), GOES_WELL).await;
    }
    let (totals, _) = prune(&store, &Retention::new(all_ended()).batch(7)).await;
    assert_eq!(totals.runs, 29);
    // An id that was forgotten can be used again, and numbers go on.
    let before: BTreeSet<String> = ids(&*store).await.into_iter().collect();
    assert_eq!(before.len(), 1);
    let again = run_to_rest(&coordinator, &order, "run-00", GOES_WELL).await;
    assert_eq!(again.outcome().await.unwrap().word(), "completed");
    assert_eq!(ids(&*store).await, ["run-29", "run-00"]);
    coordinator.shutdown().await;
}
