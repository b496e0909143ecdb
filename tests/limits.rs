//! Limits on runs, attempts and steps hold whatever the runs do.
// Helpers of tests may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "common/undo.rs"]
mod undo;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends::journal::{Event, Record};
use amends::store::{MemoryStore, Store as _};
use amends::{
    Coordinator, FailureMode, OutcomeError, Saga, SomeNode, StepContext, StepError, UndoOrder,
    step_fn, step_with,
};
use undo::{Act, TestStore, World, after_all};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// Fails the test instead of hanging it, in virtual time.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(MS(86_400_000), future)
        .await
        .expect("it hangs")
}

/// How many of something there are, and the most there ever were.
#[derive(Debug, Default)]
struct HighWater {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl HighWater {
    fn rise(self: &Arc<Self>) -> Ebb {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        Ebb(Arc::clone(self))
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

struct Ebb(Arc<HighWater>);

impl Drop for Ebb {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What is counted while runs go on: all attempts, and those of the step `narrow`.
#[derive(Clone, Debug, Default)]
struct Limits {
    all: Arc<HighWater>,
    narrow: Arc<HighWater>,
    runs: Arc<Mutex<BTreeMap<String, usize>>>,
    most_runs: Arc<AtomicUsize>,
}

impl Limits {
    async fn work(&self, cx: &StepContext, takes: u64) {
        let _all = self.all.rise();
        let _narrow = (cx.step() == "narrow").then(|| self.narrow.rise());
        let run = cx.run().to_string();
        {
            let mut runs = self.runs.lock().unwrap();
            *runs.entry(run.clone()).or_default() += 1;
            self.most_runs.fetch_max(runs.len(), Ordering::SeqCst);
        }
        tokio::time::sleep(MS(takes)).await;
        let mut runs = self.runs.lock().unwrap();
        let calls = runs.get_mut(&run).unwrap();
        *calls -= 1;
        if *calls == 0 {
            runs.remove(&run);
        }
    }

    fn part(&self, name: &str) -> amends::StepSpec<u64, u64> {
        step_with(
            name,
            self.clone(),
            async |limits: &Limits, cx: &StepContext, number: &u64| {
                // A spread of durations, failures before and after others, and some retries.
                limits
                    .work(cx, 5 + (number * 7 + u64::from(cx.attempt()) * 3) % 40)
                    .await;
                let fails = number.is_multiple_of(3) && cx.step() == "last";
                let early = number.is_multiple_of(5) && cx.step() == "wide-2";
                let flaky = number.is_multiple_of(4) && cx.step() == "narrow" && cx.attempt() == 1;
                if fails || early {
                    return Err(StepError::rejected("as planned"));
                }
                if flaky {
                    return Err(StepError::not_done("again").with_mode(FailureMode::SystemNetwork));
                }
                Ok(*number)
            },
            async |limits: &Limits, cx: &StepContext, number: &u64, _effect| {
                limits.work(cx, 5 + number % 20).await;
                if number.is_multiple_of(7) && cx.attempt() == 1 {
                    return Err(StepError::not_done("again").with_mode(FailureMode::SystemNetwork));
                }
                Ok(())
            },
        )
    }

    fn saga(&self) -> Saga<u64, u64> {
        let mut b = Saga::builder::<u64>("limits");
        let input = b.input();
        let first = b.add(self.part("first"), input);
        let mut nodes: Vec<SomeNode> = (0..4)
            .map(|place| b.add(self.part(&format!("wide-{place}")), first).into())
            .collect();
        nodes.push(b.add(self.part("narrow").max_in_flight(2), first).into());
        let last = b.add(after_all(self.part("last"), nodes), first);
        b.returns(last).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn limits_on_runs_attempts_and_steps_are_never_exceeded() {
    const RUNS: u64 = 200;
    for (runs, attempts) in [(1, 1), (3, 2), (50, 7), (1_000, 10), (5, 1_000)] {
        let limits = Limits::default();
        let saga = limits.saga();
        let coordinator = Coordinator::builder(MemoryStore::new())
            .clock(World::new().clock())
            .keep_resident(MS(3_600_000))
            .max_runs(runs)
            .max_attempts(attempts)
            .register(&saga)
            .build()
            .await
            .unwrap();
        let mut all = tokio::task::JoinSet::new();
        for number in 1..=RUNS {
            let (coordinator, saga) = (coordinator.clone(), saga.clone());
            all.spawn(async move {
                let run = coordinator
                    .start(&saga, format!("run {number}"), number)
                    .await
                    .unwrap();
                (number, run.outcome().await.unwrap().word())
            });
        }
        let ends = soon(all.join_all()).await;
        for (number, word) in ends {
            let fails = number.is_multiple_of(3) || number.is_multiple_of(5);
            assert_eq!(
                word,
                if fails { "compensated" } else { "completed" },
                "{number}"
            );
        }
        // Reached, and not exceeded.
        let (most, most_runs) = (limits.all.most(), limits.most_runs.load(Ordering::SeqCst));
        if attempts < 1_000 {
            assert_eq!(most, attempts);
            assert!(most_runs <= runs, "{most_runs} runs of {runs}");
        } else {
            assert_eq!(most_runs, runs);
        }
        assert_eq!(limits.narrow.most(), attempts.min(2));
        assert_eq!(limits.all.now.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_comes_too_late_does_not_keep_the_undo_from_its_own() {
    let world = World::new();
    let store = Arc::new(MemoryStore::new());
    let mut b = Saga::builder::<()>("late-permit");
    let first = b.add(world.step("first"), ());
    let fails = b.add(world.step("fails").after(first), ());
    let waits = b.add(world.step("waits").after(first), ());
    let last = b.add(world.step("last").after(fails).after(waits), ());
    let saga = b.returns(last).unwrap();
    world.on("do fails", [Act::Rejected.after(100)]);
    let coordinator = world
        .coordinator(&store)
        .max_attempts(1)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    assert_eq!(soon(run.outcome()).await.unwrap().word(), "compensated");
    assert_eq!(world.began(), ["do first", "do fails", "undo first"]);
    // And the permit is free again.
    let run = coordinator.start(&saga, "s", ()).await.unwrap();
    assert_eq!(soon(run.outcome()).await.unwrap().word(), "completed");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_let_undos_past_their_limit() {
    let world = World::new();
    let store = TestStore::new();
    let mut b = Saga::builder::<()>("undos");
    let nodes: Vec<SomeNode> = ["a", "b", "c"]
        .iter()
        .map(|name| b.add(world.step(name), ()).into())
        .collect();
    let last = b.add(after_all(world.step("last"), nodes), ());
    let saga = b.undo_order(UndoOrder::Parallel).returns(last).unwrap();
    world.on("do last", [Act::Rejected]);
    for name in ["a", "b", "c"] {
        world.always(&format!("undo {name}"), Act::Done.after(1_000));
    }
    let coordinator = world
        .coordinator(&store)
        .max_attempts(1)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    tokio::time::sleep(MS(500)).await;
    assert_eq!(world.of_kind("undo").len(), 1);
    coordinator.shutdown().await;
    assert_eq!(world.of_kind("undo").len(), 1, "nothing more starts");
    assert!(matches!(
        run.outcome().await,
        Err(OutcomeError::Closed { .. })
    ));
    drop((run, coordinator));
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator
        .attach(&saga, &"r".into())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(soon(run.outcome()).await.unwrap().word(), "compensated");
    let mut undone = world.of_kind("undo");
    undone.sort();
    assert_eq!(undone, ["a", "b", "c"]);
}

#[tokio::test]
async fn items_over_a_limit_are_done_and_begun_in_one_record() {
    let mut saga = Saga::builder::<Vec<u32>>("many").version(1);
    let items = saga.input();
    let item = step_fn(
        "item",
        async |_cx, item: &u32| Ok(*item),
        async |_cx, _item, _effect| Ok(()),
    );
    let done = saga.add(item.max_in_flight(2).for_each(), items);
    let saga = saga.returns(done).unwrap();
    let store = Arc::new(MemoryStore::new());
    let coordinator = Coordinator::builder_shared(store.clone())
        .register(&saga)
        .build()
        .await
        .unwrap();
    let items = (0..8).collect();
    let run = coordinator.start(&saga, "run", items).await.unwrap();
    run.outcome().await.unwrap();
    let journal = store.load(&"run".into()).await.unwrap().unwrap();
    // Two begin with the run, two more as those are done, three times; with the last two it ends.
    let begun = |record: &Record| {
        let begun = record.events.iter();
        begun
            .filter(|event| matches!(event, Event::StepStarted { key, .. } if key.contains('[')))
            .count()
    };
    let begun: Vec<usize> = journal.records.iter().map(begun).collect();
    assert_eq!(begun, [2, 2, 2, 2, 0]);
}
