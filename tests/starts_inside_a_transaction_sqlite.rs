//! A run that is started inside the user's own transaction begins to exist with it, or not at all: SQLite.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use amends::store::{SqliteStore, Store as _, StoreError};
use amends::{Coordinator, Outcome, RunId, Saga, StartError, StartOptions, StartedIn, step_with};
use rusqlite::{Connection, TransactionBehavior};

struct Shop {
    _dir: tempfile::TempDir,
    path: PathBuf,
    calls: Arc<AtomicU64>,
    saga: Saga<u64, u64>,
}

impl Shop {
    async fn new() -> Shop {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop.db");
        let calls = Arc::new(AtomicU64::new(0));
        let shop = Shop {
            _dir: dir,
            saga: saga("order", &calls),
            path,
            calls,
        };
        // The file has its tables from its first owner on.
        SqliteStore::open(&shop.path).unwrap().close().await;
        let orders = "CREATE TABLE orders (id TEXT PRIMARY KEY) STRICT";
        shop.connect().execute_batch(orders).unwrap();
        shop
    }

    fn connect(&self) -> Connection {
        Connection::open(&self.path).unwrap()
    }

    async fn coordinator(&self) -> Coordinator {
        let store = SqliteStore::open(&self.path).unwrap();
        let builder = Coordinator::builder(store).register(&self.saga);
        builder.build().await.unwrap()
    }

    /// Places an order and starts its run in one transaction, and ends that.
    fn order(&self, id: &str, amount: u64, commit: bool) -> Result<StartedIn, StartError> {
        let mut mine = self.connect();
        let immediate = TransactionBehavior::Immediate;
        let transaction = mine.transaction_with_behavior(immediate).unwrap();
        let insert = "INSERT INTO orders VALUES (?) ON CONFLICT DO NOTHING";
        transaction.execute(insert, [id]).unwrap();
        let options = StartOptions::new().label("shop", "7");
        let started = SqliteStore::start_in(&transaction, &self.saga, id, amount, options);
        if commit {
            transaction.commit().unwrap();
        }
        started
    }

    fn orders(&self) -> i64 {
        let count = "SELECT count(*) FROM orders";
        let count = self.connect().query_row(count, [], |row| row.get(0));
        count.unwrap()
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }
}

fn saga(name: &str, calls: &Arc<AtomicU64>) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>(name);
    let amount = saga.input();
    let paid = saga.add(
        step_with(
            "pay",
            Arc::clone(calls),
            async |calls: &Arc<AtomicU64>, _, amount: &u64| {
                calls.fetch_add(1, Ordering::SeqCst);
                Ok(*amount)
            },
            async |_, _, _, _| Ok(()),
        ),
        amount,
    );
    saga.returns(paid).unwrap()
}

/// What came of a run that nobody here has started, once its owner has found it.
async fn output(coordinator: &Coordinator, saga: &Saga<u64, u64>, run: &str) -> u64 {
    let id = RunId::new(run);
    let found = async {
        loop {
            if let Some(run) = coordinator.attach(saga, &id).await.unwrap() {
                break run.outcome().await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // Only so that a run that nobody takes up fails the test.
    match tokio::time::timeout(Duration::from_secs(60), found).await {
        Ok(Outcome::Completed(done)) => done.output,
        other => panic!("{run}: {other:?}"),
    }
}

#[tokio::test]
async fn a_committed_start_is_taken_up_by_the_files_owner() {
    let shop = Shop::new().await;
    let coordinator = shop.coordinator().await;
    assert_eq!(coordinator.all_resumed().await, 0);
    assert_eq!(shop.order("order-1", 7, true).unwrap(), StartedIn::New);
    assert_eq!(output(&coordinator, &shop.saga, "order-1").await, 7);
    // And again, when the owner has already been told once.
    assert_eq!(shop.order("order-2", 8, true).unwrap(), StartedIn::New);
    assert_eq!(output(&coordinator, &shop.saga, "order-2").await, 8);
    assert_eq!((shop.calls(), shop.orders()), (2, 2));

    let found = coordinator.get(&RunId::new("order-1")).await.unwrap();
    assert_eq!(found.unwrap().labels["shop"], "7");
    coordinator.shutdown().await;
}

#[tokio::test]
async fn a_start_that_was_rolled_back_never_was() {
    let shop = Shop::new().await;
    let coordinator = shop.coordinator().await;
    assert_eq!(shop.order("order-1", 7, false).unwrap(), StartedIn::New);
    assert_eq!(shop.order("order-2", 8, true).unwrap(), StartedIn::New);
    assert_eq!(output(&coordinator, &shop.saga, "order-2").await, 8);
    let gone = coordinator.get(&RunId::new("order-1")).await.unwrap();
    assert!(gone.is_none());
    assert_eq!((shop.calls(), shop.orders()), (1, 1));
    // The id is as free as before.
    assert_eq!(shop.order("order-1", 9, true).unwrap(), StartedIn::New);
    assert_eq!(output(&coordinator, &shop.saga, "order-1").await, 9);
    coordinator.shutdown().await;
}

#[tokio::test]
async fn what_is_started_while_nobody_owns_the_file_waits_for_the_next_owner() {
    let shop = Shop::new().await;
    shop.order("order-1", 7, true).unwrap();
    let coordinator = shop.coordinator().await;
    assert_eq!(coordinator.all_resumed().await, 1);
    assert_eq!(output(&coordinator, &shop.saga, "order-1").await, 7);
    assert_eq!(shop.calls(), 1);
    coordinator.shutdown().await;
}

#[tokio::test]
async fn the_same_start_again_is_the_same_run_and_another_is_refused() {
    let shop = Shop::new().await;
    let coordinator = shop.coordinator().await;
    assert_eq!(shop.order("order-1", 7, true).unwrap(), StartedIn::New);
    assert_eq!(shop.order("order-1", 7, true).unwrap(), StartedIn::Same);
    assert_eq!(output(&coordinator, &shop.saga, "order-1").await, 7);
    assert_eq!(shop.order("order-1", 7, true).unwrap(), StartedIn::Same);

    let other = shop.order("order-1", 8, true).unwrap_err();
    assert!(matches!(other, StartError::OtherInput { .. }), "{other}");
    let mut mine = shop.connect();
    let transaction = mine.transaction().unwrap();
    let another = saga("refund", &shop.calls);
    let start =
        |saga, id: &str| SqliteStore::start_in(&transaction, saga, id, 7, StartOptions::new());
    let other = start(&another, "order-1").unwrap_err();
    assert!(matches!(other, StartError::OtherSaga { .. }), "{other}");
    assert!(matches!(
        start(&another, ""),
        Err(StartError::BadId { length: 0 })
    ));
    // The transaction goes on as if nothing had been asked, and holds what was written before and after.
    assert_eq!(start(&shop.saga, "order-2").unwrap(), StartedIn::New);
    assert_eq!(start(&shop.saga, "order-2").unwrap(), StartedIn::Same);
    transaction.commit().unwrap();
    assert_eq!(output(&coordinator, &shop.saga, "order-2").await, 7);

    // The coordinator's own starts and these are of one kind.
    let handle = coordinator.start(&shop.saga, "order-2", 7).await.unwrap();
    assert!(matches!(
        handle.outcome().await.unwrap(),
        Outcome::Completed(_)
    ));
    let refused = coordinator.start(&shop.saga, "order-2", 1).await;
    assert!(matches!(refused, Err(StartError::OtherInput { .. })));
    let handle = coordinator.start(&shop.saga, "order-3", 3).await.unwrap();
    handle.outcome().await.unwrap();
    assert_eq!(shop.order("order-3", 3, true).unwrap(), StartedIn::Same);
    assert_eq!(shop.calls(), 3);
    coordinator.shutdown().await;
}

#[tokio::test]
async fn a_definition_that_nobody_has_registered_is_kept_with_the_run() {
    let shop = Shop::new().await;
    let coordinator = shop.coordinator().await;
    let mut mine = shop.connect();
    let transaction = mine.transaction().unwrap();
    let unknown = saga("refund", &shop.calls);
    SqliteStore::start_in(&transaction, &unknown, "refund-1", 1, StartOptions::new()).unwrap();
    transaction.commit().unwrap();
    let waits = coordinator.get(&RunId::new("refund-1")).await.unwrap();
    assert_eq!(waits.unwrap().steps.len(), 1);
    let without = coordinator.without_definition(9).await.unwrap();
    assert_eq!(without.len(), 1);
    coordinator.shutdown().await;
}

fn refusal(path: &Path, shop: &Shop, set: &str) -> String {
    let mut mine = Connection::open(path).unwrap();
    mine.execute_batch(set).unwrap();
    let transaction = mine.transaction().unwrap();
    let refused = SqliteStore::start_in(&transaction, &shop.saga, "o", 1, StartOptions::new());
    match refused {
        Err(StartError::Store(StoreError::Foreign { what })) => what,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_connection_that_promises_too_little_and_another_file_are_refused() {
    let shop = Shop::new().await;
    let careless = refusal(&shop.path, &shop, "PRAGMA synchronous = NORMAL");
    assert!(careless.contains("synchronous = FULL"), "{careless}");
    let elsewhere = shop.path.with_file_name("elsewhere.db");
    let foreign = refusal(&elsewhere, &shop, "CREATE TABLE mine (x)");
    assert!(foreign.contains("another program"), "{foreign}");
}
