//! Large fan-outs, many sub-sagas and deep ones: on each store, to the end and back, and over a restart.
//!
//! What is counted here is writes, events and calls, which have to grow with the number of steps and not
//! faster. What a step costs in time and memory is told by `cargo bench --bench fan_out`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "what the tests share is outside of their functions"
)]

use std::collections::BTreeMap;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use amends::store::{MemoryStore, Store};
use amends::{
    Coordinator, FailureMode, Node, Outcome, Payload, RecoveryPolicy, RecoveryStrategy, Retry,
    Saga, StepContext, StepError, StepSpec, StepStatus, step, step_with,
};

/// What steps do to the world, which outlives every process.
#[derive(Default)]
struct World {
    executed: Mutex<BTreeMap<String, u32>>,
    undone: Mutex<Vec<String>>,
    under_way: AtomicU64,
    /// So many calls were under way at once, at most: of each direction.
    most: [AtomicU64; 2],
    /// Whether calls take more than one turn.
    slow: AtomicBool,
    /// Numbers from here on never come back.
    held_from: AtomicU64,
}

impl World {
    fn new() -> Arc<Self> {
        let world = World::default();
        world.held_from.store(u64::MAX, Ordering::SeqCst);
        Arc::new(world)
    }

    fn calls(&self) -> u32 {
        self.executed.lock().unwrap().values().sum()
    }

    fn undone(&self) -> Vec<String> {
        std::mem::take(&mut self.undone.lock().unwrap())
    }

    async fn under_way(&self, back: bool) {
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most[usize::from(back)].fetch_max(now, Ordering::SeqCst);
        if self.slow.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        self.under_way.fetch_sub(1, Ordering::SeqCst);
    }

    /// A step that adds one; numbers that end with `refuses` are refused.
    fn step(self: &Arc<Self>, name: impl Into<String>, refuses: Option<u64>) -> StepSpec<u64, u64> {
        step_with(
            name,
            (Arc::clone(self), refuses),
            async |(world, refuses): &(Arc<World>, Option<u64>), cx: &StepContext, number: &u64| {
                let path = cx.step().to_owned();
                *world.executed.lock().unwrap().entry(path).or_default() += 1;
                if *number >= world.held_from.load(Ordering::SeqCst) {
                    return std::future::pending().await;
                }
                world.under_way(false).await;
                match refuses {
                    Some(digit) if number % 10 == *digit => Err(StepError::rejected("no")),
                    _ => Ok(number + 1),
                }
            },
            async |(world, _), cx, _number, _effect| {
                world.under_way(true).await;
                world.undone.lock().unwrap().push(cx.step().to_owned());
                Ok(())
            },
        )
        .retry(Retry::none())
    }

    /// This, then a step that may refuse, so that all is undone.
    fn then<O: Payload>(
        self: &Arc<Self>,
        refuses: bool,
        part: impl amends::Part<Input = Vec<u64>, Output = O>,
    ) -> Saga<Vec<u64>, O> {
        let mut saga = Saga::builder::<Vec<u64>>("all").policy(compensate());
        let list = saga.input();
        let all: Node<O> = saga.add(part, list);
        if refuses {
            saga.add(self.step("last", Some(0)).after(all), list.map(|_| 0));
        }
        saga.returns(all).unwrap()
    }
}

/// One after another.
fn chain(name: &str, steps: u64, step: impl Fn(String) -> StepSpec<u64, u64>) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>(name).policy(compensate());
    let mut node = saga.input();
    for number in 0..steps {
        node = saga.add(step(format!("s{number}")), node);
    }
    saga.returns(node).unwrap()
}

/// Ten times.
fn ten(name: &str, item: StepSpec<u64, u64>) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>(name).policy(compensate());
    let list = saga.input().map(|_| (0..10_u64).collect::<Vec<u64>>());
    let all = saga.add(item.for_each(), list);
    saga.returns(all.map(|all| all.iter().sum::<u64>()))
        .unwrap()
}

fn compensate() -> RecoveryPolicy {
    RecoveryPolicy::new("back", RecoveryStrategy::Compensate)
}

struct Came<O> {
    outcome: Outcome<O>,
    records: usize,
    events: usize,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

async fn coordinator<O>(store: &Arc<dyn Store>, saga: &Saga<Vec<u64>, O>) -> Coordinator {
    Coordinator::builder_shared(Arc::clone(store))
        .register(saga)
        .build()
        .await
        .unwrap()
}

fn run<O: Payload>(store: &Arc<dyn Store>, saga: &Saga<Vec<u64>, O>, items: u64) -> Came<O> {
    runtime().block_on(async {
        let coordinator = coordinator(store, saga).await;
        let list = (0..items).collect();
        let run = coordinator.start(saga, "run", list).await.unwrap();
        let outcome = run.outcome().await.unwrap();
        let journal = store.load(run.id()).await.unwrap().unwrap();
        let events = journal.records.iter().map(|record| record.events.len());
        Came {
            outcome,
            records: journal.records.len(),
            events: events.sum(),
        }
    })
}

/// Does it on each store.
fn on_each_store(test: impl Fn(&dyn Fn() -> Arc<dyn Store>)) {
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
    test(&|| Arc::clone(&memory));
    #[cfg(feature = "sqlite")]
    {
        let folder = tempfile::tempdir().unwrap();
        test(&|| sqlite(folder.path()));
    }
}

#[cfg(feature = "sqlite")]
fn sqlite(folder: &std::path::Path) -> Arc<dyn Store> {
    Arc::new(amends::store::SqliteStore::open(folder.join("sagas.db")).unwrap())
}

/// Prints no more than where lists differ first.
#[track_caller]
fn same(left: &[String], right: &[String]) {
    let differ = left
        .iter()
        .zip(right)
        .position(|(left, right)| left != right);
    let at = differ.unwrap_or(left.len().min(right.len()));
    assert_eq!(
        left.get(at..).unwrap_or(&[]).first(),
        right.get(at..).unwrap_or(&[]).first(),
        "at {at}"
    );
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

fn numbered(name: &str, numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    let numbers = numbers.into_iter();
    numbers.map(|number| format!("{name}[{number}]")).collect()
}

#[test]
fn ten_thousand_items_run_with_two_writes_and_are_undone_with_two_more() {
    on_each_store(|store| {
        let world = World::new();
        let saga = world.then(false, world.step("item", None).for_each());
        let came = run(&store(), &saga, 10_000);
        // All begin in one record with the run's start, and all end in one with the run's end.
        assert_eq!((came.records, came.events), (2, 20_004));
        assert_eq!(came.outcome.completed(), Some((1..=10_000).collect()));
        assert_eq!(world.calls(), 10_000);
        assert_eq!(world.undone(), Vec::<String>::new());
    });
    on_each_store(|store| {
        let world = World::new();
        let saga = world.then(true, world.step("item", None).for_each());
        let came = run(&store(), &saga, 10_000);
        assert_eq!(came.outcome.word(), "compensated");
        assert_eq!((came.records, came.events), (4, 40_009));
        same(&world.undone(), &numbered("item", (0..10_000).rev()));
        assert_eq!(came.outcome.partial().compensations.len(), 10_001);
        assert_eq!(came.outcome.partial().outstanding, []);
    });
}

#[test]
fn ten_thousand_items_run_eight_at_a_time_and_are_undone_eight_at_a_time() {
    on_each_store(|store| {
        let world = World::new();
        world.slow.store(true, Ordering::SeqCst);
        let saga = world.then(true, world.step("item", None).for_each().parallel(8));
        let came = run(&store(), &saga, 10_000);
        assert_eq!(came.outcome.word(), "compensated");
        assert_eq!(
            world
                .most
                .each_ref()
                .map(|most| most.load(Ordering::SeqCst)),
            [8, 8]
        );
        assert_eq!(world.calls(), 10_001);
        same(
            &sorted(world.undone()),
            &sorted(numbered("item", 0..10_000)),
        );
        // As many events as without the bound, in as many more writes as there are eights.
        assert_eq!((came.records, came.events), (2 * 1_250 + 2, 40_009));
    });
}

#[test]
fn of_ten_thousand_items_a_thousand_may_fail() {
    on_each_store(|store| {
        let world = World::new();
        let item = world.step("item", Some(9)).for_each().tolerate(1_000);
        let saga = world.then(true, item);
        let came = run(&store(), &saga, 10_000);
        assert_eq!(came.outcome.word(), "compensated");
        assert_eq!(world.calls(), 10_001);
        let done = (0..10_000).filter(|number| number % 10 != 9);
        same(&world.undone(), &numbered("item", done.rev()));
        // Nine thousand undos are begun and ended; the failed items left nothing.
        assert_eq!((came.records, came.events), (4, 20_009 + 18_000));
    });
}

#[test]
fn a_thousand_sub_sagas_of_three_steps_run_with_one_write_a_step_and_are_undone_likewise() {
    on_each_store(|store| {
        let world = World::new();
        let child = chain("child", 3, |name| world.step(name, None));
        let saga = world.then(true, step("order", &child).for_each());
        let came = run(&store(), &saga, 1_000);
        assert_eq!(came.outcome.word(), "compensated");
        assert_eq!(world.calls(), 3_001);
        // Orders don't depend on each other, but the steps of each do.
        let undone = world.undone();
        for (undone, number) in undone.chunks(1_000).zip([2, 1, 0]) {
            let orders = numbered("order", 0..1_000).into_iter();
            let expected = orders.map(|order| format!("{order}/s{number}"));
            same(&sorted(undone.to_vec()), &sorted(expected.collect()));
        }
        assert_eq!(undone.len(), 3_000);
        assert_eq!((came.records, came.events), (8, 4 * 4_001 + 5));
        assert_eq!(came.outcome.partial().steps.len(), 4_002);
    });
}

#[test]
fn of_a_thousand_sub_sagas_a_hundred_undo_themselves() {
    on_each_store(|store| {
        let world = World::new();
        let child = chain("child", 3, |name| {
            let refuses = (name == "s2").then_some(9);
            world.step(name, refuses)
        });
        let saga = world.then(false, step("order", &child).for_each().tolerate(100));
        let came = run(&store(), &saga, 1_000);
        let outputs = came.outcome.clone().completed().unwrap();
        let failed = outputs
            .iter()
            .enumerate()
            .filter(|(_, output)| output.is_err());
        let failed: Vec<u64> = failed.map(|(number, _)| number as u64).collect();
        let expected: Vec<u64> = (0..1_000).filter(|number| number % 10 == 7).collect();
        assert_eq!(failed, expected);
        let undone = world.undone();
        assert_eq!(undone.len(), 200);
        let s1 = numbered("order", expected.iter().copied());
        let s1: Vec<String> = s1.iter().map(|order| format!("{order}/s1")).collect();
        same(&sorted(undone[..100].to_vec()), &sorted(s1));
        assert_eq!((came.records, came.events), (6, 8_004 + 100 * 5));
    });
}

#[test]
fn fan_outs_in_sub_sagas_in_fan_outs_begin_together_and_end_together() {
    on_each_store(|store| {
        let world = World::new();
        let inner = ten("inner", world.step("item", None));
        let middle = ten("middle", step("of", &inner));
        let saga = world.then(true, step("of", &middle).for_each());
        let came = run(&store(), &saga, 10);
        assert_eq!(came.outcome.word(), "compensated");
        assert_eq!(world.calls(), 1_001);
        let undone = world.undone();
        assert_eq!(undone.len(), 1_000);
        assert!(undone.contains(&"of[3]/of[1]/item[4]".to_owned()));
        // Each layer has its fan-out, and each item above the last layer a sub-saga.
        let steps = 1 + 10 + 10 + 100 + 100 + 1_000;
        assert_eq!(came.outcome.partial().steps.len(), steps + 1);
        assert_eq!((came.records, came.events), (4, 4 * steps + 5));
    });
}

#[test]
fn a_chain_of_a_thousand_sub_sagas_runs_with_one_write_each() {
    on_each_store(|store| {
        let world = World::new();
        let child = chain("child", 1, |name| world.step(name, None));
        let children = chain("children", 1_000, |name| step(name, &child));
        let saga = world.then(true, step("all", &children).for_each());
        let came = run(&store(), &saga, 1);
        assert_eq!(came.outcome.word(), "compensated");
        let expected = (0..1_000)
            .rev()
            .map(|number| format!("all[0]/s{number}/s0"));
        same(&world.undone(), &expected.collect::<Vec<_>>());
        let steps = 1 + 1 + 1_000 + 1_000;
        assert_eq!((came.records, came.events), (2_002, 4 * steps + 5));
    });
}

#[test]
fn sub_sagas_may_be_fifty_deep() {
    on_each_store(|store| {
        let world = World::new();
        let mut deep = chain("deepest", 2, |name| world.step(name, None));
        for _ in 0..49 {
            deep = chain("around", 1, |name| step(name, &deep));
        }
        let saga = world.then(true, step("deep", &deep).for_each());
        let came = run(&store(), &saga, 1);
        assert_eq!(came.outcome.word(), "compensated");
        let path = format!("deep[0]{}", "/s0".repeat(49));
        assert_eq!(world.undone(), [format!("{path}/s1"), format!("{path}/s0")]);
        assert_eq!((came.records, came.events), (6, 4 * 53 + 5));
    });
}

#[test]
fn a_run_of_ten_thousand_items_goes_on_in_the_middle() {
    on_each_store(|store| {
        let world = World::new();
        world.held_from.store(5_000, Ordering::SeqCst);
        let saga = world.then(false, world.step("item", None).for_each());
        let first = store();
        runtime().block_on(async {
            let coordinator = coordinator(&first, &saga).await;
            let list = (0..10_000).collect();
            let run = coordinator.start(&saga, "run", list).await.unwrap();
            // The first half is done, and written down as done.
            while first.load(run.id()).await.unwrap().unwrap().records.len() < 2 {
                tokio::task::yield_now().await;
            }
        });
        drop(first);
        world.held_from.store(u64::MAX, Ordering::SeqCst);
        let second = store();
        runtime().block_on(async {
            let coordinator = coordinator(&second, &saga).await;
            let run = coordinator.attach(&saga, &"run".into()).await.unwrap();
            let outcome = run.unwrap().outcome().await.unwrap();
            let last = outcome.partial().step("item[9999]").unwrap().clone();
            assert_eq!((last.status, last.attempts), (StepStatus::Done, 2));
            assert_eq!(outcome.completed(), Some((1..=10_000).collect()));
            let journal = second.load(&"run".into()).await.unwrap().unwrap();
            let records = journal.records.iter().map(|record| record.events.len());
            // The claim is written together with what begins again.
            assert_eq!(records.collect::<Vec<_>>(), [10_002, 5_000, 5_001, 5_002]);
        });
        let executed = world.executed.lock().unwrap();
        assert_eq!(
            executed.values().filter(|calls| **calls == 1).count(),
            5_000
        );
        assert_eq!(
            executed.values().filter(|calls| **calls == 2).count(),
            5_000
        );
    });
}

#[test]
fn all_of_ten_thousand_items_may_fail_at_once() {
    on_each_store(|store| {
        let world = World::new();
        let item = world.step("item", Some(0)).for_each();
        let saga = world.then(false, item);
        let came = runtime().block_on(async {
            let store = store();
            let coordinator = coordinator(&store, &saga).await;
            let list = (0..10_000).map(|number| number * 10).collect();
            let run = coordinator.start(&saga, "run", list).await.unwrap();
            run.outcome().await.unwrap()
        });
        let partial = came.partial();
        assert_eq!(partial.failing_step.as_deref(), Some("item[0]"));
        assert_eq!(partial.failure_mode, Some(FailureMode::StepValidation));
        assert_eq!(world.undone(), Vec::<String>::new());
    });
}
