//! Waits have limits in wall time: from a millisecond to years, over restarts, with a clock that is set.
// Helpers of tests may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![cfg(feature = "testkit")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use amends::journal::{Event, Standing};
use amends::store::{MemoryStore, Store};
use amends::testkit::VirtualClock;
use amends::{Clock, Coordinator, RunId, Saga, SignalTold, StepStatus, Timestamp, delay, wait_for};
use tokio::time::Instant;

const HOUR: Duration = Duration::from_secs(3_600);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// A wall clock that somebody sets.
#[derive(Clone, Debug)]
struct Wall {
    clock: VirtualClock,
    set_by: Arc<AtomicI64>,
}

impl Wall {
    fn new() -> Self {
        Wall {
            clock: VirtualClock::new(),
            set_by: Arc::default(),
        }
    }

    fn set_forward(&self, hours: i64) {
        self.set_by
            .fetch_add(hours * 3_600_000_000, Ordering::SeqCst);
    }
}

impl Clock for Wall {
    fn now(&self) -> Timestamp {
        let by = self.set_by.load(Ordering::SeqCst);
        Timestamp::from_micros(self.clock.now().as_micros() + by)
    }
}

async fn coordinator<I: 'static, O: 'static>(
    store: &Arc<MemoryStore>,
    clock: impl Clock,
    saga: &Saga<I, O>,
) -> Coordinator {
    let store = Arc::clone(store) as Arc<dyn Store>;
    let builder = Coordinator::builder_shared(store).clock(clock);
    builder.register(saga).build().await.unwrap()
}

fn pause(length: Duration) -> Saga<u64, u64> {
    let mut b = Saga::builder::<u64>("pause");
    let n = b.input();
    b.add(delay("cool-down", length), ());
    b.returns(n).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_as_long_as_it_says_from_a_millisecond_to_a_year() {
    for length in [Duration::from_millis(1), HOUR, YEAR] {
        let (store, saga) = (Arc::new(MemoryStore::new()), pause(length));
        let coordinator = coordinator(&store, VirtualClock::new(), &saga).await;
        let began = Instant::now();
        let run = coordinator.start(&saga, "r", 7).await.unwrap();
        assert_eq!(run.outcome().await.unwrap().completed(), Some(7));
        assert_eq!(began.elapsed(), length);
    }
}

#[tokio::test(start_paused = true)]
async fn a_year_passes_over_restarts_and_nobody_drives_the_run_meanwhile() {
    let (store, saga) = (Arc::new(MemoryStore::new()), pause(YEAR));
    let clock = VirtualClock::new();
    let began = clock.now();
    let mut life = coordinator(&store, clock, &saga).await;
    let run = life.start(&saga, "r", 7).await.unwrap();
    drop(run);
    for _ in 0..5 {
        tokio::time::sleep(YEAR / 6).await;
        assert_eq!(life.driving(), 0);
        let partial = life.get(&RunId::new("r")).await.unwrap().unwrap();
        let until = began.after(YEAR);
        assert_eq!(partial.standing, Standing::Waiting { until });
        assert_eq!(
            partial.step("cool-down").unwrap().status,
            StepStatus::Waiting
        );
        drop(life);
        life = coordinator(&store, clock, &saga).await;
    }
    let run = life.start(&saga, "r", 7).await.unwrap();
    assert_eq!(run.outcome().await.unwrap().completed(), Some(7));
    assert_eq!(clock.now(), began.after(YEAR));
}

#[tokio::test(start_paused = true)]
async fn what_ran_out_while_nobody_was_there_goes_on_at_the_next_start() {
    let (store, saga) = (Arc::new(MemoryStore::new()), pause(HOUR));
    let clock = VirtualClock::new();
    let first = coordinator(&store, clock, &saga).await;
    drop(first.start(&saga, "r", 7).await.unwrap());
    drop(first);
    tokio::time::sleep(YEAR).await;
    let began = Instant::now();
    let second = coordinator(&store, clock, &saga).await;
    let run = second.start(&saga, "r", 7).await.unwrap();
    assert_eq!(run.outcome().await.unwrap().completed(), Some(7));
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_makes_a_wait_longer_and_one_that_is_set_forward_shorter() {
    for (set_forward, takes) in [(-2, 5), (2, 1)] {
        let (store, saga) = (Arc::new(MemoryStore::new()), pause(3 * HOUR));
        let clock = Wall::new();
        let coordinator = coordinator(&store, clock.clone(), &saga).await;
        let began = Instant::now();
        let run = coordinator.start(&saga, "r", 7).await.unwrap();
        tokio::time::sleep(HOUR / 2).await;
        clock.set_forward(set_forward);
        assert_eq!(run.outcome().await.unwrap().completed(), Some(7));
        // Whoever sleeps looks at the wall clock every ten minutes.
        let late = began.elapsed() - HOUR * takes;
        assert!(late <= Duration::from_secs(600), "{late:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_no_clock_reaches_is_none() {
    let mut b = Saga::builder::<u64>("order");
    let paid = b.add(wait_for::<u64>("paid").within(Duration::MAX), ());
    let saga = b.returns(paid).unwrap();
    let store = Arc::new(MemoryStore::new());
    let coordinator = coordinator(&store, VirtualClock::new(), &saga).await;
    let run = coordinator.start(&saga, "r", 7).await.unwrap();
    tokio::time::sleep(YEAR).await;
    let until = Timestamp::NEVER;
    let partial = coordinator.get(run.id()).await.unwrap().unwrap();
    assert_eq!(partial.standing, Standing::Waiting { until });
    // Nobody is told of the year 294247.
    let json = serde_json::to_string(&partial).unwrap();
    assert!(
        json.contains(r#""standing":{"waiting":{"until":null}}"#),
        "{json}"
    );
    assert!(!json.contains(&i64::MAX.to_string()), "{json}");
    let read: amends::PartialResult = serde_json::from_str(&json).unwrap();
    assert_eq!(read.standing, Standing::Waiting { until });
    coordinator.signal(run.id(), "paid", 5_u64).await.unwrap();
    assert_eq!(run.outcome().await.unwrap().completed(), Some(5));
}

#[tokio::test(start_paused = true)]
async fn a_value_stands_in_for_a_signal_that_does_not_come() {
    let mut b = Saga::builder::<u64>("order");
    let paid = b.add(wait_for::<u64>("paid").within(HOUR).or(0), ());
    let after = b.add(delay("cool-down", HOUR).after(paid), ());
    b.add(wait_for::<u64>("ended").after(after), ());
    let saga = b.returns(paid).unwrap();
    let store = Arc::new(MemoryStore::new());
    let coordinator = coordinator(&store, VirtualClock::new(), &saga).await;
    let run = coordinator.start(&saga, "r", 7).await.unwrap();
    tokio::time::sleep(HOUR + Duration::from_millis(1)).await;
    let partial = coordinator.get(run.id()).await.unwrap().unwrap();
    assert_eq!(partial.step("paid").unwrap().status, StepStatus::Done);
    assert_eq!(
        partial.output::<u64>("paid").unwrap().as_deref(),
        Some(&0),
        "its node carries the value"
    );
    // The value was taken: what comes now is late, though nothing has failed.
    let told = coordinator.signal(run.id(), "paid", 5_u64).await.unwrap();
    assert_eq!(told, SignalTold::Late);
    coordinator.signal(run.id(), "ended", 1_u64).await.unwrap();
    assert_eq!(run.outcome().await.unwrap().completed(), Some(0));
    let journal = store.load(&RunId::new("r")).await.unwrap().unwrap();
    let over = journal.records.iter().flat_map(|record| &record.events);
    let expired: Vec<bool> = over
        .filter_map(|event| match event {
            Event::WaitOver { expired, .. } => Some(*expired),
            _ => None,
        })
        .collect();
    assert_eq!(expired, [true, true, false]);
}
