//! The store in PostgreSQL keeps the promises of the trait, also where several of them share one server.
#![cfg(all(feature = "testkit", feature = "postgres", unix))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

#[path = "common/pgbouncer.rs"]
mod pgbouncer;
#[path = "common/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod postgres;
#[path = "common/schemas.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod schemas;

use amends::store::{PostgresOptions, PostgresStore, Store as _};
use amends::testkit::conformance::{self, MakeStore};

use schemas::Schemas;

/// Stores with these options, each with a schema to itself, at the server that this leads to.
struct Stores(Schemas, String, fn(&str) -> PostgresOptions);

impl MakeStore for Stores {
    type Store = PostgresStore;

    async fn make(&self) -> PostgresStore {
        let options = (self.2)(&self.0.name());
        options.connect(&self.1).await.unwrap()
    }

    async fn reopen(&self, store: PostgresStore) -> Option<PostgresStore> {
        let schema = store.schema().to_owned();
        store.close().await;
        let options = (self.2)(&schema);
        Some(options.connect(&self.1).await.unwrap())
    }
}

async fn check(options: fn(&str) -> PostgresOptions) {
    Schemas::with(async |schemas| {
        let config = schemas.config().to_owned();
        conformance::check(&Stores(schemas, config, options)).await;
    })
    .await;
}

fn plain(schema: &str) -> PostgresOptions {
    PostgresStore::options()
        .schema(schema)
        .pool_size(2)
        .lanes(2)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_postgres_store_keeps_its_promises() {
    check(plain).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn and_those_to_a_fleet() {
    Schemas::with(async |schemas| {
        let leased = async |lease| {
            let options = plain(&schemas.name()).lease(lease);
            options.connect(schemas.config()).await.unwrap()
        };
        conformance::check_fleet(&leased).await;
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn and_on_one_thread_with_one_connection_for_each_kind_of_work() {
    check(|schema| plain(schema).pool_size(1).lanes(1).max_batch(3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn and_with_prepared_statements() {
    check(|schema| plain(schema).prepare_statements(true)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_on_one_server_at_once_keep_them_too() {
    let checks = (0..4).map(|_| tokio::spawn(check(plain)));
    for check in checks.collect::<Vec<_>>() {
        check.await.unwrap();
    }
}

/// Three sessions for some hundred connections: each transaction gets whichever is free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn and_through_a_pooler_that_gives_each_transaction_another_session() {
    Schemas::with(async |schemas| {
        let server = postgres::Server::shared().await.config();
        let pooler = tokio::task::spawn_blocking(move || pgbouncer::PgBouncer::start(&server, 3));
        let pooler = pooler.await.unwrap();
        let config = schemas::text(&pooler.config());
        conformance::check(&Stores(schemas, config, plain)).await;
    })
    .await;
}
