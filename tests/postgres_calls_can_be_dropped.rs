//! A caller that goes away in the middle of a statement leaves a connection that is as good as before.
#![cfg(all(feature = "testkit", feature = "postgres", unix))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

use std::future::Future;
use std::time::Duration;

use amends::journal::{Command, Verb};
use amends::store::{PostgresStore, PruneFilter, RunFilter, Store as _, StoreError};
use amends::testkit::conformance::Sample;

#[path = "common/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod postgres;
#[path = "common/schemas.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod schemas;

use schemas::Schemas;

/// Polls a call so often, and drops it.
async fn begun<T>(call: impl Future<Output = T>, polls: usize) {
    let mut call = std::pin::pin!(call);
    for _ in 0..polls {
        let poll = std::future::poll_fn(|cx| std::task::Poll::Ready(call.as_mut().poll(cx)));
        if poll.await.is_ready() {
            return;
        }
        tokio::time::sleep(Duration::from_micros(50)).await;
    }
}

#[tokio::test]
async fn calls_that_are_dropped_half_way_spoil_nothing() {
    Schemas::with(async |schemas| {
        // One connection for reads: the next call gets the one that was left.
        let store = PostgresStore::options()
            .schema(schemas.name())
            .pool_size(1)
            .lanes(1)
            .connect(schemas.config())
            .await
            .unwrap();
        let mut samples = [Sample::new("one"), Sample::new("two")];
        for sample in &mut samples {
            store.append(sample.start()).await.unwrap();
            store.append(sample.step("output")).await.unwrap();
        }
        let forget = PruneFilter::ended_before(amends::Timestamp::from_micros(0));
        for polls in 1..60 {
            begun(store.load(samples[polls % 2].run()), polls).await;
            begun(store.scan(&RunFilter::all(), None, 10), polls).await;
            begun(store.submit(&Command::new("one", Verb::Cancel)), polls).await;
            begun(store.prune(&forget, None, 10), polls).await;
            begun(store.append(samples[0].step("unheard")), polls).await;
            let journal = store.load(samples[1].run()).await.unwrap().unwrap();
            assert_eq!((journal.run.as_str(), journal.records.len()), ("two", 2));
        }
        store.append(samples[0].step("last")).await.unwrap();
        let journal = store.load(samples[0].run()).await.unwrap().unwrap();
        assert_eq!(journal.records.len(), 2 + 59 + 1);
        store.close().await;
        let dead = store.find(samples[0].run()).await;
        assert!(matches!(dead, Err(StoreError::Dead { .. })), "{dead:?}");
    })
    .await;
}
