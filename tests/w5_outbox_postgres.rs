//! Whoever follows the outbox misses nothing, in whichever order transactions are committed (rule W5): PostgreSQL.
#![cfg(all(feature = "postgres", unix))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

#[path = "common/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod postgres;
#[path = "common/schemas.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod schemas;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use amends::journal::Event;
use amends::store::{Outbox, PostgresStore, PruneFilter, Published, Store};
use amends::{Coordinator, RunId, Saga, StartOptions, StartedIn, Timestamp, step_fn};
use schemas::Schemas;
use tokio_postgres::Transaction;

fn saga() -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("order");
    let amount = saga.input();
    let mut last = amount;
    for name in ["reserve", "pay", "ship"] {
        let step = step_fn(name, async |_, n: &u64| Ok(n + 1), async |_, _, _| Ok(()));
        last = saga.add(step, last);
    }
    saga.returns(last).unwrap()
}

async fn connect(schemas: &Schemas, schema: &str) -> PostgresStore {
    let options = PostgresStore::options().schema(schema);
    options.connect(schemas.config()).await.unwrap()
}

/// A schema whose outbox is on.
async fn with_outbox(test: impl AsyncFnOnce(&Schemas, PostgresStore)) {
    Schemas::with(async |schemas| {
        let store = schemas.store().await;
        store.turn_outbox_on().await.unwrap();
        test(&schemas, store).await;
    })
    .await;
}

/// Writes the start of a run into a transaction.
async fn begin(store: &PostgresStore, transaction: &Transaction<'_>, run: &str) {
    let (saga, options) = (saga(), StartOptions::new());
    let started = store.start_in(transaction, &saga, run, 1, options);
    assert_eq!(started.await.unwrap(), StartedIn::New);
}

async fn start(store: &PostgresStore, schemas: &Schemas, run: &str) {
    let mut client = schemas.client().await;
    let transaction = client.transaction().await.unwrap();
    begin(store, &transaction, run).await;
    transaction.commit().await.unwrap();
}

fn places(published: &[Published]) -> Vec<(u64, &str, u64)> {
    let place = |one: &'_ Published| (one.position, one.seq);
    let places = published.iter().map(|one| (place(one), one.run.as_str()));
    places
        .map(|((position, seq), run)| (position, run, seq))
        .collect()
}

#[tokio::test]
async fn w5_what_appended_first_and_committed_last_is_not_lost() {
    with_outbox(async |schemas, store| {
        let mut client = schemas.client().await;
        let early = client.transaction().await.unwrap();
        begin(&store, &early, "early").await;

        // The open transaction holds up nobody.
        start(&store, schemas, "late-1").await;
        start(&store, schemas, "late-2").await;
        let read = store.published(0, 100).await.unwrap();
        assert_eq!(places(&read), [(1, "late-1", 1), (2, "late-2", 1)]);
        assert_eq!(read[0].saga, "order");
        let events = read[0].events.as_ref().unwrap();
        assert!(matches!(&events[..], [Event::RunStarted(_)]));
        assert!(store.published(2, 100).await.unwrap().is_empty());

        early.commit().await.unwrap();
        let read = store.published(2, 100).await.unwrap();
        assert_eq!(places(&read), [(3, "early", 1)]);
        assert!(store.published(3, 100).await.unwrap().is_empty());
        // And what was read is where it was.
        assert_eq!(
            places(&store.published(1, 1).await.unwrap()),
            [(2, "late-2", 1)]
        );
    })
    .await;
}

#[tokio::test]
async fn w5_what_was_rolled_back_has_no_position() {
    with_outbox(async |schemas, store| {
        let mut client = schemas.client().await;
        let transaction = client.transaction().await.unwrap();
        begin(&store, &transaction, "gone").await;
        transaction.rollback().await.unwrap();
        start(&store, schemas, "there").await;
        let read = store.published(0, 100).await.unwrap();
        assert_eq!(places(&read), [(1, "there", 1)]);
    })
    .await;
}

/// Follows the outbox in pieces of odd sizes until it has come to its end after it was told that all is written.
async fn follow(store: PostgresStore, limit: usize, over: Arc<AtomicBool>) -> Vec<Published> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let last = over.load(Ordering::SeqCst);
        let read = store.published(after, limit).await.unwrap();
        let Some(newest) = read.last() else {
            if last {
                return all;
            }
            continue;
        };
        after = newest.position;
        all.extend(read);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w5_readers_beside_writers_see_every_record_once_and_in_order() {
    with_outbox(async |schemas, store| {
        const WRITERS: u64 = 6;
        const EACH: u64 = 12;
        let store = Arc::new(store);
        let coordinator = {
            let worker = connect(schemas, store.schema()).await;
            let builder = Coordinator::builder(worker).register(&saga());
            builder.build().await.unwrap()
        };
        let over = Arc::new(AtomicBool::new(false));
        let mut readers = Vec::new();
        for limit in [1, 7, 100] {
            let reader = connect(schemas, store.schema()).await;
            readers.push(tokio::spawn(follow(reader, limit, Arc::clone(&over))));
        }
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            let (store, mut client) = (Arc::clone(&store), schemas.client().await);
            writers.push(tokio::spawn(async move {
                for n in 0..EACH {
                    let run = format!("run-{writer}-{n}");
                    let transaction = client.transaction().await.unwrap();
                    begin(&store, &transaction, &run).await;
                    // Held open for different times, so that transactions overtake each other.
                    tokio::time::sleep(Duration::from_millis((writer * 7 + n * 3) % 11)).await;
                    transaction.commit().await.unwrap();
                }
            }));
        }
        for writer in writers {
            writer.await.unwrap();
        }
        for writer in 0..WRITERS {
            for n in 0..EACH {
                let run = RunId::new(format!("run-{writer}-{n}"));
                let run = coordinator.attach(&saga(), &run).await.unwrap().unwrap();
                assert_eq!(run.outcome().await.unwrap().word(), "completed");
            }
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
            assert_eq!(runs.len() as u64, WRITERS * EACH);
            for (run, seqs) in runs {
                let journal = store.load(run).await.unwrap().unwrap();
                let all: Vec<u64> = journal.records.iter().map(|record| record.seq).collect();
                assert_eq!(seqs, all, "{run}");
            }
            let first = first.get_or_insert_with(|| read.clone());
            assert_eq!(*first, read, "positions are the same for all");
        }
    })
    .await;
}

#[tokio::test]
async fn w5_a_forgotten_record_leaves_its_position_to_nobody() {
    with_outbox(async |schemas, store| {
        let worker = connect(schemas, store.schema()).await;
        let coordinator = Coordinator::builder(worker).register(&saga()).build();
        let coordinator = coordinator.await.unwrap();
        for run in ["first", "second"] {
            let run = coordinator.start(&saga(), run, 1).await.unwrap();
            run.outcome().await.unwrap();
        }
        coordinator.shutdown().await;
        let before = store.published(0, 100).await.unwrap();
        let highest = before.last().unwrap().position;
        assert_eq!(highest, before.len() as u64);
        let of_first = before
            .iter()
            .filter(|one| one.run.as_str() == "first")
            .count();

        // The newest run stays, whatever else is forgotten.
        let filter = PruneFilter::ended_before(Timestamp::from_micros(i64::MAX));
        assert_eq!(store.prune(&filter, None, 100).await.unwrap().runs, 1);
        let left = store.published(0, 100).await.unwrap();
        assert_eq!(left.len(), before.len() - of_first);
        start(&store, schemas, "third").await;
        assert_eq!(store.prune(&filter, None, 100).await.unwrap().runs, 1);
        let read = store.published(0, 100).await.unwrap();
        assert_eq!(places(&read), [(highest + 1, "third", 1)]);
        let rows = format!(
            "SELECT (SELECT count(*) FROM {0}.outbox) + (SELECT count(*) FROM {0}.unsequenced)",
            store.schema()
        );
        let left: i64 = schemas
            .client()
            .await
            .query_one(&rows, &[])
            .await
            .unwrap()
            .get(0);
        assert_eq!(left, 1);
    })
    .await;
}

#[tokio::test]
async fn an_outbox_that_is_not_on_costs_nothing_and_begins_where_it_is_turned_on() {
    Schemas::with(async |schemas| {
        let store = schemas.store().await;
        start(&store, &schemas, "before").await;
        assert!(store.published(0, 100).await.unwrap().is_empty());
        store.turn_outbox_on().await.unwrap();
        store.turn_outbox_on().await.unwrap();
        start(&store, &schemas, "after").await;
        let read = store.published(0, 100).await.unwrap();
        assert_eq!(places(&read), [(1, "after", 1)]);
        let notes = format!(
            "SELECT last_value FROM {}.unsequenced_note_seq",
            store.schema()
        );
        let notes: i64 = schemas
            .client()
            .await
            .query_one(&notes, &[])
            .await
            .unwrap()
            .get(0);
        assert_eq!(notes, 1);
    })
    .await;
}

#[tokio::test]
async fn a_cursor_is_kept_by_name_and_never_goes_back() {
    with_outbox(async |schemas, store| {
        assert_eq!(store.cursor("mailer").await.unwrap(), 0);
        store.advance("mailer", 7).await.unwrap();
        store.advance("mailer", 3).await.unwrap();
        store.advance("biller", 4).await.unwrap();
        let again = connect(schemas, store.schema()).await;
        assert_eq!(again.cursor("mailer").await.unwrap(), 7);
        assert_eq!(again.cursor("biller").await.unwrap(), 4);
    })
    .await;
}
