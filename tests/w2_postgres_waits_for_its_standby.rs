//! Rule W2 with a synchronous standby: a commit that the server reports although nobody waited for the standby any more
//! is not taken for one.
#![cfg(all(feature = "testkit", feature = "postgres", unix))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

use std::time::Duration;

use amends::store::{Append, AppendError, PostgresStore, Store as _, StoreError};
use amends::testkit::conformance::Sample;
use tokio_postgres::Client;

#[path = "common/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod postgres;

use postgres::{Server, connect};

/// Appends, and cancels the wait for the standby when it has begun.
async fn cancelled(store: &PostgresStore, client: &Client, append: Append) -> AppendError {
    let mut appending = store.append(append);
    let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    loop {
        tokio::select! {
            answer = &mut appending => break answer.unwrap_err(),
            () = tokio::time::sleep(Duration::from_millis(5)) => {
                client.query(cancel, &[]).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn w2_a_wait_for_the_standby_that_was_cancelled_leaves_the_append_unknown() {
    let server = Server::own(&[]).await;
    let address = server.address_by(server.port());
    let store = PostgresStore::options()
        .lanes(1)
        .connect(&address)
        .await
        .unwrap();
    let client = connect(&server.config_by(server.port())).await.unwrap();
    let mut sample = Sample::new("run");
    store.append(sample.start()).await.unwrap();
    let next = sample.step("output");

    server.set("synchronous_standby_names", "nobody").await;
    let answer = cancelled(&store, &client, next.clone()).await;
    assert!(matches!(answer, AppendError::Unknown(_)), "{answer:?}");
    // Others see it, and it is not safe: sent again it finds itself, and its confirmation waits as well.
    assert_eq!(
        store
            .load(sample.run())
            .await
            .unwrap()
            .unwrap()
            .records
            .len(),
        2
    );
    let answer = cancelled(&store, &client, next.clone()).await;
    assert!(matches!(answer, AppendError::Unknown(_)), "{answer:?}");
    let mut appending = store.append(next.clone());
    let early = tokio::time::timeout(Duration::from_millis(300), &mut appending).await;
    assert!(
        early.is_err(),
        "acknowledged without the standby: {early:?}"
    );

    server.set("synchronous_standby_names", "").await;
    appending.await.unwrap();
    assert_eq!(
        store
            .load(sample.run())
            .await
            .unwrap()
            .unwrap()
            .records
            .len(),
        2
    );
}

#[tokio::test]
async fn a_server_that_does_not_wait_for_its_disk_is_refused_also_when_it_begins_later() {
    let server = Server::own(&[]).await;
    let address = server.address_by(server.port());
    let store = PostgresStore::connect(&address).await.unwrap();
    let mut sample = Sample::new("run");
    store.append(sample.start()).await.unwrap();
    let next = sample.step("output");
    server.set("synchronous_commit", "off").await;
    match PostgresStore::connect(&address).await {
        Err(StoreError::Foreign { what }) => {
            assert!(what.contains("`synchronous_commit` is off"), "{what}");
        }
        other => panic!("{other:?}"),
    }
    let answer = store.append(next.clone()).await;
    assert!(matches!(answer, Err(AppendError::Unknown(_))), "{answer:?}");
    let answer = store.append(next.clone()).await;
    assert!(matches!(answer, Err(AppendError::Unknown(_))), "{answer:?}");
    server.set("synchronous_commit", "on").await;
    store.append(next).await.unwrap();
    assert_eq!(
        store
            .load(sample.run())
            .await
            .unwrap()
            .unwrap()
            .records
            .len(),
        2
    );
}
