//! Rule W2 at a server that can be lost at any moment: an append whose answer did not come is unknown, is sent again
//! as it was, and ends up in the journal once.
#![cfg(all(feature = "testkit", feature = "postgres", unix))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

use std::time::Duration;

use amends::journal::Standing;
use amends::store::{Append, AppendError, PostgresStore, RunFilter, Store as _};
use amends::testkit::conformance::Sample;
use tokio_postgres::Client;

#[path = "common/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod postgres;
#[path = "common/proxy.rs"]
mod proxy;

use postgres::{Server, Stop, connect};
use proxy::{Proxy, Trick, Wire};

/// A server, a proxy before it, a store by that, and a session by none.
struct Rig {
    server: Server,
    proxy: Proxy,
    store: PostgresStore,
    client: Client,
}

impl Rig {
    async fn new() -> Rig {
        let server = Server::own(&[]).await;
        let proxy = Proxy::start(server.tcp(), Wire::Postgres);
        let store = PostgresStore::options()
            .lanes(1)
            .statement_timeout(Duration::from_secs(20))
            .connect(&server.address_by(proxy.port()))
            .await
            .unwrap();
        let client = connect(&server.config_by(server.port())).await.unwrap();
        Rig {
            server,
            proxy,
            store,
            client,
        }
    }

    async fn number(&self, sql: &str) -> i64 {
        self.client.query_one(sql, &[]).await.unwrap().get(0)
    }

    async fn confirmations(&self) -> i64 {
        self.number("SELECT sum(times)::bigint FROM amends.confirmations")
            .await
    }

    async fn records(&self) -> i64 {
        self.number("SELECT count(*) FROM amends.journal").await
    }
}

fn is_unknown(answer: &Result<(), AppendError>) -> bool {
    matches!(answer, Err(AppendError::Unknown(_)))
}

/// What is in each statement that writes records, and in no other.
const WRITES: &str = ".append(";

/// A start, a step, an end and a change of standing: all that an append may write.
fn each_kind() -> Vec<(&'static str, Vec<Append>, Append)> {
    let mut kinds = Vec::new();
    let mut start = Sample::new("start");
    kinds.push(("a start", Vec::new(), start.start()));
    let mut step = Sample::new("step");
    let before = vec![step.start()];
    kinds.push(("a step", before, step.step("output")));
    for standing in [Standing::Parked, Standing::Completed] {
        let mut sample = Sample::new(standing.as_str());
        let before = vec![sample.start()];
        kinds.push(("a change", before, sample.stand(standing)));
    }
    let mut migrated = Sample::new("migrated");
    let before = vec![migrated.start()];
    kinds.push(("a migration", before, migrated.migrate(2)));
    kinds
}

#[tokio::test]
async fn w2_an_answer_that_was_lost_is_unknown_and_found_again_by_a_commit_that_writes() {
    let rig = Rig::new().await;
    for (what, before, append) in each_kind() {
        for append in before {
            rig.store.append(append).await.unwrap();
        }
        let (records, confirmed) = (rig.records().await, rig.confirmations().await);
        let mut played = rig.proxy.play(Trick::LoseAnswer, WRITES, 1);
        let answer = rig.store.append(append.clone()).await;
        played.played().await;
        assert!(is_unknown(&answer), "{what}: {answer:?}");
        assert_eq!(rig.records().await, records + 1, "{what} is there");
        assert_eq!(rig.confirmations().await, confirmed);

        rig.store.append(append.clone()).await.unwrap();
        assert_eq!(rig.records().await, records + 1, "{what} is there once");
        assert_eq!(
            rig.confirmations().await,
            confirmed + 1,
            "{what} is confirmed by a write"
        );
        // Also where the answer to that is lost.
        let mut played = rig.proxy.play(Trick::LoseAnswer, "confirmed AS", 1);
        let answer = rig.store.append(append.clone()).await;
        played.played().await;
        assert!(is_unknown(&answer), "{what}: {answer:?}");
        rig.store.append(append).await.unwrap();
        assert_eq!(rig.confirmations().await, confirmed + 3, "{what}");
    }
    assert_eq!(rig.store.oddities().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn w2_what_never_arrived_is_unknown_and_written_when_it_is_sent_again() {
    let rig = Rig::new().await;
    for (what, before, append) in each_kind() {
        for append in before {
            rig.store.append(append).await.unwrap();
        }
        let (records, confirmed) = (rig.records().await, rig.confirmations().await);
        let mut played = rig.proxy.play(Trick::Drop, WRITES, 1);
        let answer = rig.store.append(append.clone()).await;
        played.played().await;
        assert!(is_unknown(&answer), "{what}: {answer:?}");
        assert_eq!(rig.records().await, records, "{what} is not there");
        rig.store.append(append).await.unwrap();
        assert_eq!(rig.records().await, records + 1, "{what}");
        assert_eq!(
            rig.confirmations().await,
            confirmed,
            "nothing had to be confirmed"
        );
    }
    assert_eq!(rig.store.oddities().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn w2_what_arrives_after_it_was_sent_again_changes_nothing() {
    let rig = Rig::new().await;
    for (what, before, append) in each_kind() {
        for append in before {
            rig.store.append(append).await.unwrap();
        }
        let mut played = rig.proxy.play(Trick::Later, WRITES, 1);
        let answer = rig.store.append(append.clone()).await;
        played.played().await;
        assert!(is_unknown(&answer), "{what}: {answer:?}");
        rig.store.append(append).await.unwrap();
        let all = || async {
            rig.store
                .scan_journals(&RunFilter::all(), None, 100)
                .await
                .unwrap()
        };
        let before = format!("{:?}", all().await);
        rig.proxy.deliver().await;
        assert_eq!(format!("{:?}", all().await), before, "{what}");
    }
    assert_eq!(rig.store.oddities().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn w2_what_arrives_when_somebody_else_owns_the_run_changes_nothing() {
    let rig = Rig::new().await;
    let mut sample = Sample::new("run");
    rig.store.append(sample.start()).await.unwrap();
    let (mut owner, late) = (sample.rival(), sample.stand(Standing::Completed));
    let _played = rig.proxy.play(Trick::Later, WRITES, 1);
    assert!(is_unknown(&rig.store.append(late.clone()).await));
    rig.store
        .append(owner.stand(Standing::Parked))
        .await
        .unwrap();
    rig.proxy.deliver().await;
    let entry = rig.store.find(sample.run()).await.unwrap().unwrap();
    assert_eq!((entry.standing, rig.records().await), (Standing::Parked, 2));
    let answer = rig.store.append(late).await;
    assert!(matches!(answer, Err(AppendError::Conflict)), "{answer:?}");
    assert_eq!(rig.store.oddities().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn w2_what_follows_an_unknown_append_was_not_written() {
    let rig = Rig::new().await;
    let mut sample = Sample::new("run");
    rig.store.append(sample.start()).await.unwrap();
    let (one, two) = (sample.step("one"), sample.step("two"));
    let _played = rig.proxy.play(Trick::Drop, WRITES, 1);
    let first = rig.store.append(one.clone());
    let second = rig.store.append(two.clone());
    assert!(is_unknown(&first.await));
    // It was never sent: at its place it would have been taken for another owner's.
    let second = second.await;
    assert!(
        matches!(second, Err(AppendError::NotWritten(_))),
        "{second:?}"
    );
    rig.store.append(one).await.unwrap();
    rig.store.append(two).await.unwrap();
    assert_eq!(rig.records().await, 3);
}

#[tokio::test]
async fn w2_without_an_answer_in_time_an_append_is_unknown() {
    let rig = Rig::new().await;
    let store = PostgresStore::options()
        .lanes(1)
        .statement_timeout(Duration::from_millis(300))
        .connect(&rig.server.address_by(rig.proxy.port()))
        .await
        .unwrap();
    let mut sample = Sample::new("run");
    store.append(sample.start()).await.unwrap();
    let next = sample.step("output");
    rig.proxy.hold(true);
    let answer = tokio::time::timeout(Duration::from_secs(15), store.append(next.clone())).await;
    let answer = answer.expect("it waits beyond its time");
    assert!(is_unknown(&answer), "{answer:?}");
    rig.proxy.hold(false);
    assert_eq!(rig.records().await, 2, "it was written all the same");
    store.append(next).await.unwrap();
    assert_eq!(rig.records().await, 2);
}

#[tokio::test]
async fn w2_a_server_that_is_killed_in_the_middle_leaves_it_unknown_and_one_that_is_gone_has_not_written()
 {
    let rig = Rig::new().await;
    let mut sample = Sample::new("run");
    rig.store.append(sample.start()).await.unwrap();
    for how in [Stop::Fast, Stop::Immediate] {
        let next = sample.step("output");
        let client = connect(&rig.server.config_by(rig.server.port()))
            .await
            .unwrap();
        client
            .batch_execute("BEGIN; LOCK TABLE amends.journal IN EXCLUSIVE MODE")
            .await
            .unwrap();
        let appending = rig.store.append(next.clone());
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        while client.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        rig.server.stop(how).await;
        let answer = appending.await;
        // Where the session that holds the lock is ended before the one that waits, this one commits first.
        let committed = answer.is_ok() && how == Stop::Fast;
        assert!(committed || is_unknown(&answer), "{answer:?}");
        let answer = rig.store.append(next.clone()).await;
        assert!(
            matches!(answer, Err(AppendError::NotWritten(_))),
            "{answer:?}"
        );
        rig.server.start().await;
        rig.store.append(next).await.unwrap();
    }
    let journal = rig.store.load(sample.run()).await.unwrap().unwrap();
    assert_eq!(journal.records.len(), 3);
}
