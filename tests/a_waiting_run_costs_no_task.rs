//! A run that only waits is a row of the store, and a timer where it has a limit: nobody drives it, and a restart
//! doesn't read its journal.
// Helpers of tests may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![cfg(feature = "testkit")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends::journal::{Command, CommandAnswer, Journal, Standing};
use amends::store::{
    Append, Appending, CommandEntry, LoadError, MemoryStore, PruneFilter, Pruned, RunEntry,
    RunFilter, Store, StoreError, SubmitError,
};
use amends::testkit::VirtualClock;
use amends::{Coordinator, Outline, RunHandle, RunId, Saga, Timestamp, delay, wait_for};

const DAY: Duration = Duration::from_secs(86_400);

/// A store that writes down which journals are read.
#[derive(Debug)]
struct Watched {
    inner: MemoryStore,
    loads: Mutex<Vec<String>>,
    looks: AtomicU64,
}

impl Watched {
    fn new() -> Arc<Self> {
        Arc::new(Watched {
            inner: MemoryStore::new(),
            loads: Mutex::default(),
            looks: AtomicU64::new(0),
        })
    }

    fn take_loads(&self) -> Vec<String> {
        std::mem::take(&mut self.loads.lock().unwrap())
    }
}

#[async_trait::async_trait]
impl Store for Watched {
    fn append(&self, append: Append) -> Appending {
        self.inner.append(append)
    }

    async fn load(&self, run: &RunId) -> Result<Option<Journal>, LoadError> {
        self.loads.lock().unwrap().push(run.to_string());
        self.inner.load(run).await
    }

    async fn find(&self, run: &RunId) -> Result<Option<RunEntry>, StoreError> {
        self.inner.find(run).await
    }

    async fn scan(
        &self,
        filter: &RunFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<RunEntry>, StoreError> {
        self.inner.scan(filter, after, limit).await
    }

    async fn remember(&self, outline: &Outline) -> Result<(), StoreError> {
        self.inner.remember(outline).await
    }

    async fn recall(
        &self,
        saga: &str,
        version: u32,
        fingerprint: &str,
    ) -> Result<Option<Outline>, StoreError> {
        self.inner.recall(saga, version, fingerprint).await
    }

    async fn submit(&self, command: &Command) -> Result<(), SubmitError> {
        self.inner.submit(command).await
    }

    async fn open_commands(
        &self,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<CommandEntry>, StoreError> {
        self.inner.open_commands(after, limit).await
    }

    async fn open_commands_of(&self, run: &RunId) -> Result<Vec<CommandEntry>, StoreError> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.inner.open_commands_of(run).await
    }

    async fn answer_command(&self, token: &str, answer: &CommandAnswer) -> Result<(), StoreError> {
        self.inner.answer_command(token, answer).await
    }

    async fn find_command(&self, token: &str) -> Result<Option<CommandEntry>, StoreError> {
        self.inner.find_command(token).await
    }

    async fn commands_arrived(&self) {
        self.inner.commands_arrived().await;
    }

    async fn prune(
        &self,
        filter: &PruneFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Pruned, StoreError> {
        self.inner.prune(filter, after, limit).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

async fn coordinator(
    store: &Arc<Watched>,
    clock: VirtualClock,
    sagas: (&Saga<u64, u64>, &Saga<u64, u64>),
) -> Coordinator {
    let store = Arc::clone(store) as Arc<dyn Store>;
    let builder = Coordinator::builder_shared(store).clock(clock);
    let builder = builder.register(sagas.0).register(sagas.1);
    builder.build().await.unwrap()
}

fn sagas() -> (Saga<u64, u64>, Saga<u64, u64>) {
    let mut b = Saga::builder::<u64>("paid");
    let paid = b.add(wait_for::<u64>("paid"), ());
    let paid = b.returns(paid).unwrap();
    let mut b = Saga::builder::<u64>("later");
    let n = b.input();
    b.add(delay("a-day", DAY), ());
    let later = b.returns(n).unwrap();
    (paid, later)
}

#[tokio::test(start_paused = true)]
async fn a_restart_reads_no_journal_of_a_run_that_waits_and_a_signal_reads_one() {
    const MANY: u64 = 50;
    let (store, clock) = (Watched::new(), VirtualClock::new());
    let (paid, later) = sagas();
    let first = coordinator(&store, clock, (&paid, &later)).await;
    for number in 0..MANY {
        let id = format!("paid-{number}");
        drop(first.start(&paid, id, number).await.unwrap());
        let id = format!("later-{number}");
        drop(first.start(&later, id, number).await.unwrap());
    }
    tokio::time::sleep(DAY / 2).await;
    assert_eq!(first.driving(), 0);
    drop(first);
    store.take_loads();

    let second = coordinator(&store, clock, (&paid, &later)).await;
    assert_eq!(second.all_resumed().await, 2 * MANY);
    tokio::time::sleep(DAY / 4).await;
    assert_eq!(second.driving(), 0);
    assert_eq!(store.take_loads(), [""; 0]);
    let entry = store.find(&RunId::new("paid-7")).await.unwrap().unwrap();
    let never = Standing::Waiting {
        until: Timestamp::NEVER,
    };
    assert_eq!(entry.standing, never);

    second
        .signal(&"paid-7".into(), "paid", 9_u64)
        .await
        .unwrap();
    assert_eq!(store.take_loads(), ["paid-7"]);
    let run: RunHandle<u64> = second.start(&paid, "paid-7", 7).await.unwrap();
    assert_eq!(run.outcome().await.unwrap().completed(), Some(9));
    store.take_loads();

    tokio::time::sleep(DAY / 4 + Duration::from_secs(1)).await;
    let mut woken = store.take_loads();
    woken.sort_unstable();
    let mut all: Vec<String> = (0..MANY).map(|number| format!("later-{number}")).collect();
    all.sort_unstable();
    assert_eq!(woken, all, "each timer wakes its run once");
    // Whether a signal came in time is asked where a wait for one is about to be over, and only there.
    assert_eq!(store.looks.load(Ordering::SeqCst), 0);
    let runs = store.counts().await.unwrap().runs;
    assert_eq!(runs["later"]["completed"], MANY);
    assert_eq!(runs["paid"]["waiting"], MANY - 1);
}
