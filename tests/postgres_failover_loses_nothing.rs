//! A primary dies, its synchronous standby takes over, and nothing that was acknowledged is lost (rule W2).
//!
//! Clients find the new primary as they do behind a name or an address that moves: through a proxy that leads to
//! it. `AMENDS_FAILOVERS` says how often the primary dies; three times if it is not set.

// Helpers of tests; the lints know test functions only.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![cfg(all(feature = "testkit", feature = "postgres", unix))]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends::RunId;
use amends::journal::AppendId;
use amends::store::{Append, AppendError, PostgresStore, Store as _};
use amends::testkit::conformance::Sample;
use tokio::sync::watch;

#[path = "common/postgres.rs"]
mod postgres;
#[path = "common/proxy.rs"]
mod proxy;

use postgres::{STANDBY, Server, Stop};
use proxy::{Proxy, Wire};

const WRITERS: usize = 8;
/// So many appends are acknowledged between one death and the next.
const BETWEEN: usize = 300;

/// What was acknowledged: the appends of each run, in their order.
type Acknowledged = Arc<Mutex<BTreeMap<String, Vec<AppendId>>>>;

/// A primary with a standby that streams from it, and what is between the two.
struct Pair {
    primary: Server,
    standby: Server,
    between: Proxy,
}

impl Pair {
    /// Two new servers; the standby is synchronous.
    async fn new() -> Self {
        let primary = Server::own(&[]).await;
        // Before the standby is copied, so that it waits for one of its own when it is the primary.
        primary.set("synchronous_standby_names", STANDBY).await;
        Pair::of(primary, 0).await
    }

    /// A standby for this primary.
    async fn of(primary: Server, number: usize) -> Self {
        let between = Proxy::start(primary.tcp(), Wire::Pieces);
        let slot = format!("standby_{number}");
        let standby = primary.standby_by(&slot, between.port()).await;
        Pair {
            primary,
            standby,
            between,
        }
    }
}

async fn store(server: &Server, proxy: &Proxy) -> PostgresStore {
    let options = PostgresStore::options().lanes(2).pool_size(2);
    let address = server.address_by(proxy.port());
    options.connect(&address).await.unwrap()
}

/// Sends an append until it is acknowledged, as a coordinator does.
async fn append(store: &PostgresStore, append: Append) {
    loop {
        match store.append(append.clone()).await {
            Ok(()) => return,
            Err(AppendError::Unknown(_) | AppendError::NotWritten(_)) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(lost) => panic!("{}, record {}: {lost}", append.run, append.record.seq),
        }
    }
}

/// Appends to a run until told to stop, and writes down what was acknowledged.
async fn write(
    store: Arc<PostgresStore>,
    run: String,
    acknowledged: Acknowledged,
    count: watch::Sender<usize>,
    stop: watch::Receiver<bool>,
) {
    let mut sample = Sample::new(&*run);
    let mut next = sample.start();
    while !*stop.borrow() {
        let id = next.record.append_id;
        append(&store, next).await;
        let mut all = acknowledged.lock().unwrap();
        all.entry(run.clone()).or_default().push(id);
        drop(all);
        count.send_modify(|count| *count += 1);
        next = sample.step("done");
    }
}

/// What was acknowledged by then has to be there, in its order.
async fn check(store: &PostgresStore, acknowledged: &BTreeMap<String, Vec<AppendId>>) {
    for (run, ids) in acknowledged {
        let journal = store.load(&RunId::new(&**run)).await.unwrap();
        let journal = journal.unwrap_or_else(|| panic!("run {run} is lost"));
        let records = journal.records.iter();
        let there: Vec<AppendId> = records.map(|record| record.append_id).collect();
        assert!(
            there.starts_with(ids),
            "run {run}: {} records were acknowledged, {} are there",
            ids.len(),
            there.len()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w2_nothing_acknowledged_is_lost_when_the_standby_takes_over() {
    let times = std::env::var("AMENDS_FAILOVERS").map_or(3, |times| times.parse().unwrap());
    let mut pair = Pair::new().await;
    let proxy = Proxy::start(pair.primary.tcp(), Wire::Postgres);
    let store = Arc::new(store(&pair.primary, &proxy).await);
    let acknowledged = Acknowledged::default();
    let (count, mut counted) = watch::channel(0);
    let (stop, stopped) = watch::channel(false);
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let (store, acknowledged) = (Arc::clone(&store), Arc::clone(&acknowledged));
            let run = format!("run-{number}");
            tokio::spawn(write(
                store,
                run,
                acknowledged,
                count.clone(),
                stopped.clone(),
            ))
        })
        .collect();

    for time in 1..=times {
        let before = *counted.borrow();
        counted
            .wait_for(|count| *count >= before + BETWEEN)
            .await
            .unwrap();
        // The standby falls behind. Appends are written, and may not be acknowledged; it would show if they were.
        pair.between.hold(true);
        let reached = *counted.borrow() + 10 * BETWEEN;
        tokio::select! {
            _ = waits_for_standby(&pair.primary, || false) => {}
            _ = counted.wait_for(|count| *count >= reached) => {}
        }
        pair.primary.stop(Stop::Kill).await;
        let acknowledged = acknowledged.lock().unwrap().clone();
        pair.standby.promote().await;
        proxy.lead_to(pair.standby.tcp());
        check(&store, &acknowledged).await;
        // Its commits wait for a standby of its own, as those of the old one did: none is one server's alone.
        pair = Pair::of(pair.standby, time).await;
    }
    let before = *counted.borrow();
    counted
        .wait_for(|count| *count >= before + BETWEEN)
        .await
        .unwrap();
    stop.send_replace(true);
    for writer in writers {
        writer.await.unwrap();
    }
    let acknowledged = acknowledged.lock().unwrap().clone();
    assert_eq!(acknowledged.len(), WRITERS);
    check(&store, &acknowledged).await;
    store.close().await;
}

/// Waits until a commit waits for the standby, and gives the session that it is in. It must not be answered
/// before.
async fn waits_for_standby(server: &Server, is_answered: impl Fn() -> bool) -> i32 {
    let client = server.connect().await;
    let sql = "select pid from pg_stat_activity where wait_event = 'SyncRep'";
    loop {
        if let Some(row) = client.query(sql, &[]).await.unwrap().first() {
            assert!(!is_answered());
            return row.get(0);
        }
        assert!(!is_answered(), "no standby has it");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until a standby shows all that it has got: an acknowledged commit is on its disk, and seen there later.
async fn has_replayed(standby: &Server) {
    let client = standby.connect().await;
    let sql = "select pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()";
    while !client.query_one(sql, &[]).await.unwrap().get::<_, bool>(0) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How many records of the run a server has.
async fn records(server: &Server) -> i64 {
    let client = server.connect().await;
    postgres::count(&client, "amends.journal").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w2_what_a_standby_never_got_is_never_acknowledged() {
    let Pair {
        primary,
        standby,
        between: _between,
    } = Pair::new().await;
    let proxy = Proxy::start(primary.tcp(), Wire::Postgres);
    let store = Arc::new(store(&primary, &proxy).await);
    let mut sample = Sample::new("run");
    append(&store, sample.start()).await;
    standby.stop(Stop::Immediate).await;

    // The primary has it, and nobody else.
    let second = sample.step("second");
    let again = || {
        tokio::spawn({
            let (store, second) = (Arc::clone(&store), second.clone());
            async move { store.append(second).await }
        })
    };
    let mut sent = again();
    let session = waits_for_standby(&primary, || sent.is_finished()).await;

    // Somebody cancels the wait: the server commits, says that all is well, and warns.
    let operator = primary.connect().await;
    let sql = format!("select pg_cancel_backend({session})");
    operator.batch_execute(&sql).await.unwrap();
    let answer = sent.await.unwrap();
    assert!(matches!(answer, Err(AppendError::Unknown(_))), "{answer:?}");
    assert_eq!(records(&primary).await, 2);

    // Sent again it finds its own row, which is no more durable for that.
    sent = again();
    waits_for_standby(&primary, || sent.is_finished()).await;

    // The wait ends with its session, and the row is there after a restart.
    primary.stop(Stop::Fast).await;
    let answer = sent.await.unwrap();
    assert!(matches!(answer, Err(AppendError::Unknown(_))), "{answer:?}");
    primary.start().await;
    assert_eq!(records(&primary).await, 2);
    sent = again();
    waits_for_standby(&primary, || sent.is_finished()).await;

    // The standby never got it.
    primary.stop(Stop::Kill).await;
    let answer = sent.await.unwrap();
    assert!(matches!(answer, Err(AppendError::Unknown(_))), "{answer:?}");
    standby.start().await;
    standby.promote().await;
    assert_eq!(records(&standby).await, 1);

    // It is as if it had never been sent, and is written now, by both.
    proxy.lead_to(standby.tcp());
    let next = standby.standby("next").await;
    append(&store, second.clone()).await;
    append(&store, sample.step("third")).await;
    has_replayed(&next).await;
    assert_eq!(records(&next).await, 3);
    store.close().await;
}
