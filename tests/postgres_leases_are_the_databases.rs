//! Leases by the database's clock: what is given to others was no longer anybody's, also where statements overtake one
//! another.
#![cfg(all(feature = "testkit", feature = "postgres", unix))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

use std::time::Duration;

use amends::journal::Standing;
use amends::store::{Claim, Fleet as _, PostgresStore, Renewal, RunFilter, Store as _, Worker};
use amends::testkit::conformance::Sample;

#[path = "common/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod postgres;
#[path = "common/schemas.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod schemas;

use schemas::Schemas;

/// A store with two workers, of which `a` owns the run `run`; a lease lasts an hour.
async fn fleet(schemas: &Schemas) -> PostgresStore {
    let options = PostgresStore::options().schema(schemas.name());
    let options = options.lease(Duration::from_secs(3_600));
    let store = options.connect(schemas.config()).await.unwrap();
    for id in ["a", "b"] {
        store
            .join(&Worker::new(id, id).drives("sample", 1))
            .await
            .unwrap();
    }
    store
        .append(Sample::new("run").by("a").start())
        .await
        .unwrap();
    store
}

fn of(store: &PostgresStore, sql: &str) -> String {
    sql.replace("{}", &format!("\"{}\"", store.schema()))
}

async fn due(store: &PostgresStore) -> usize {
    store
        .claim_due("b", &[("sample".to_owned(), 1)], 10)
        .await
        .unwrap()
        .len()
}

const EXPIRE: &str =
    "UPDATE {}.workers SET until = clock_timestamp() - interval '1 second' WHERE id = 'a'";
const RENEW: &str =
    "UPDATE {}.workers SET until = clock_timestamp() + interval '1 hour' WHERE id = 'a'";

#[tokio::test]
async fn a_renewal_that_is_committed_late_keeps_what_it_renewed() {
    Schemas::with(async |schemas| {
        let store = fleet(&schemas).await;
        let client = schemas.client().await;
        client.execute(&of(&store, EXPIRE), &[]).await.unwrap();
        // The renewal was begun in time, and its commit takes long.
        client
            .batch_execute(&of(&store, &format!("BEGIN; {RENEW}")))
            .await
            .unwrap();
        let run = "run".into();
        let mut claims =
            std::pin::pin!(async { (due(&store).await, store.claim("b", &run).await.unwrap()) });
        let early = tokio::time::timeout(Duration::from_millis(300), &mut claims).await;
        assert!(
            early.is_err(),
            "given away while its owner renews: {early:?}"
        );
        client.batch_execute("COMMIT").await.unwrap();
        assert_eq!(claims.await, (0, Claim::Theirs("a".to_owned())));
        assert_eq!(store.renew("a").await.unwrap(), Renewal::Renewed);
    })
    .await;
}

#[tokio::test]
async fn a_renewal_that_comes_after_its_runs_were_given_away_is_lost() {
    Schemas::with(async |schemas| {
        let store = fleet(&schemas).await;
        let client = schemas.client().await;
        client.execute(&of(&store, EXPIRE), &[]).await.unwrap();
        assert_eq!(due(&store).await, 1);
        // Whatever the clock says then.
        client.execute(&of(&store, RENEW), &[]).await.unwrap();
        assert_eq!(store.renew("a").await.unwrap(), Renewal::Lost);
        assert_eq!(
            store.claim("a", &"run".into()).await.unwrap(),
            Claim::Theirs("b".to_owned())
        );
        let given = store
            .claim_due("a", &[("sample".to_owned(), 1)], 10)
            .await
            .unwrap();
        assert!(given.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_is_gone_is_remembered_as_long_as_runs_are_its_own() {
    Schemas::with(async |schemas| {
        let store = fleet(&schemas).await;
        let client = schemas.client().await;
        let long_ago = EXPIRE.replace("1 second", "2 hours");
        client.execute(&of(&store, &long_ago), &[]).await.unwrap();
        store
            .append(Sample::new("new").by("a").start())
            .await
            .unwrap();
        let names = async || {
            let sql = of(
                &store,
                "SELECT string_agg(id, ' ' ORDER BY id) FROM {}.workers",
            );
            client
                .query_one(&sql, &[])
                .await
                .unwrap()
                .get::<_, String>(0)
        };
        // Nobody has looked for the dead yet; then somebody does, and the run that is left has its owner's number.
        store.join(&Worker::new("c", "c")).await.unwrap();
        assert_eq!(names().await, "a b c");
        let given = store
            .claim_due("b", &[("sample".to_owned(), 1)], 1)
            .await
            .unwrap();
        assert_eq!(given.len(), 1);
        store.join(&Worker::new("d", "d")).await.unwrap();
        assert_eq!(names().await, "a b c d");
        assert_eq!(due(&store).await, 1);
        store.join(&Worker::new("e", "e")).await.unwrap();
        assert_eq!(names().await, "b c d e");
    })
    .await;
}

#[tokio::test]
async fn definitions_are_handled_by_whoever_lives() {
    Schemas::with(async |schemas| {
        let store = fleet(&schemas).await;
        let outline = amends::saga::Outline {
            saga: "sample".to_owned(),
            version: 1,
            fingerprint: "abc".to_owned(),
            steps: Vec::new(),
            gathers: amends::OutlineForm::default(),
        };
        store.remember(&outline).await.unwrap();
        store.register(&[]).await.unwrap();
        let handled = async || {
            let known = store.definitions().await.unwrap();
            known[0].handling.is_some()
        };
        assert!(
            handled().await,
            "two workers drive it, whoever registered last"
        );
        store.leave("a").await.unwrap();
        assert!(handled().await);
        store.leave("b").await.unwrap();
        assert!(!handled().await);
    })
    .await;
}

#[tokio::test]
async fn a_claim_passes_over_a_run_that_is_being_changed_and_waits_for_nobody() {
    Schemas::with(async |schemas| {
        let store = fleet(&schemas).await;
        store.leave("a").await.unwrap();
        let mut other = Sample::new("other");
        store.append(other.start()).await.unwrap();
        let until = amends::Timestamp::from_micros(7);
        store
            .append(other.stand(Standing::Waiting { until }))
            .await
            .unwrap();
        let client = schemas.client().await;
        let hold = "BEGIN; SELECT 1 FROM {}.open_runs WHERE run = 1 FOR UPDATE";
        client.batch_execute(&of(&store, hold)).await.unwrap();
        assert_eq!(due(&store).await, 1);
        assert_eq!(
            store.scan(&RunFilter::open(), None, 9).await.unwrap().len(),
            2
        );
        client.batch_execute("COMMIT").await.unwrap();
        assert_eq!(due(&store).await, 1);
    })
    .await;
}
