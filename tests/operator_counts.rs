//! A store in numbers: from its lists, and from its journals where asked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

mod operating;

use std::sync::Arc;

use amends::journal::{Command, Standing, Verb};
use amends::operator::Operator;
use amends::store::{MemoryStore, RunFilter, Store, Trouble};
use operating::one_of_each;

async fn counted(store: Arc<dyn Store>) {
    let operator = Operator::new(store.clone());
    for run in ["run-2", "run-4"] {
        store
            .submit(&Command::new(run, Verb::Cancel))
            .await
            .unwrap();
    }
    let stats = operator.stats().await.unwrap();
    let runs: Vec<(&str, &str, u64)> = stats
        .counts
        .runs
        .iter()
        .flat_map(|(saga, of)| {
            of.iter()
                .map(|(word, count)| (saga.as_str(), *word, *count))
        })
        .collect();
    let wanted = [
        ("book-trip", "compensated", 1),
        ("book-trip", "completed", 1),
        ("place-order", "completed", 1),
        ("place-order", "parked", 2),
        ("place-order", "stopped", 1),
        ("place-order", "waiting", 1),
    ];
    assert_eq!(runs, wanted);
    assert_eq!(stats.counts.all(), 7);
    assert_eq!(stats.counts.standing(Standing::Completed), 2);
    let parked: Vec<_> = stats.counts.parked.clone().into_iter().collect();
    let trouble = |mode| Some(Trouble::new("charge", mode));
    assert_eq!(
        parked,
        [
            (trouble("agent_validation"), 1),
            (trouble("system_network"), 1)
        ]
    );
    assert_eq!(stats.counts.open_commands, 2);
    assert_eq!(stats.oldest_open.unwrap().run.as_str(), "run-2");
    assert_eq!(stats.oldest_parked.unwrap().run.as_str(), "run-2");
}

#[tokio::test]
async fn lists_are_counted_in_memory() {
    let store = Arc::new(MemoryStore::new());
    one_of_each(store.clone()).await;
    counted(store).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn lists_are_counted_in_sqlite() {
    use amends::store::SqliteStore;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sagas.db");
    one_of_each(Arc::new(SqliteStore::open(&path).unwrap())).await;
    counted(Arc::new(SqliteStore::open_reader(&path).unwrap())).await;
}

#[tokio::test]
async fn journals_tell_of_attempts_and_durations() {
    let store = Arc::new(MemoryStore::new());
    one_of_each(store.clone()).await;
    let operator = Operator::new(store);
    let filter = RunFilter::all();
    let mut seen = Vec::new();
    let stats = operator
        .journal_stats(&filter, 100, |runs| seen.push(runs))
        .await
        .unwrap();
    assert_eq!((stats.runs, stats.unreadable, seen), (7, 0, vec![7]));
    assert_eq!(stats.runs_took.count(), 4, "of those that have ended");
    let steps: Vec<_> = stats
        .steps
        .iter()
        .map(|((saga, step), of)| {
            (
                saga.as_str(),
                step.as_str(),
                of.attempts,
                of.failures,
                of.undos,
                of.took.count(),
            )
        })
        .collect();
    let wanted = [
        ("book-trip", "charge", 2, 1, 0, 1),
        ("book-trip", "reserve", 2, 0, 1, 2),
        ("book-trip", "ship", 1, 0, 0, 1),
        ("place-order", "charge", 5, 3, 0, 1),
        ("place-order", "reserve", 5, 0, 0, 5),
        ("place-order", "ship", 1, 0, 0, 1),
    ];
    assert_eq!(steps, wanted);
    let newest = operator.journal_stats(&filter, 2, |_| ()).await.unwrap();
    assert_eq!(newest.runs, 2);
    let sagas: Vec<&str> = newest.steps.keys().map(|(saga, _)| saga.as_str()).collect();
    assert_eq!(
        sagas,
        [
            "book-trip",
            "book-trip",
            "book-trip",
            "place-order",
            "place-order"
        ]
    );
}
