//! Every store keeps the promises of the trait, and the suite that says so can tell.
#![cfg(all(feature = "testkit", feature = "sqlite"))]
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests; the lints know test functions only.

use std::time::Duration;

use amends::store::{FleetTerms, MemoryStore, SqliteStore, Store as _};
use amends::testkit::conformance::{self, MakeStore};

struct Files(tempfile::TempDir);

impl MakeStore for Files {
    type Store = SqliteStore;

    async fn make(&self) -> SqliteStore {
        let name = amends::RunId::random();
        SqliteStore::open(self.0.path().join(format!("{name}.db"))).unwrap()
    }

    async fn reopen(&self, store: SqliteStore) -> Option<SqliteStore> {
        let path = store.path().to_owned();
        store.close().await;
        Some(SqliteStore::open(path).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_store_keeps_its_promises() {
    conformance::check(&async || MemoryStore::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_store_that_is_shared_serves_a_fleet() {
    let shared = async |lease| {
        let terms = FleetTerms::new(lease, Duration::from_millis(50));
        MemoryStore::new().shared_by_workers(terms)
    };
    conformance::check_fleet(&shared).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sqlite_store_keeps_its_promises() {
    conformance::check(&Files(tempfile::tempdir().unwrap())).await;
}

#[tokio::test(flavor = "current_thread")]
async fn and_on_one_thread_too() {
    conformance::check(&Files(tempfile::tempdir().unwrap())).await;
}
