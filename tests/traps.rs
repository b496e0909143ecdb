//! Traps that other engines fell into, each a test.
// Helpers of tests may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "common/undo.rs"]
mod undo;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use amends::journal::{CancelTold, FormError, ParkReason, Standing};
use amends::store::{Damage, MemoryStore, RunFilter, Store};
use amends::{
    Coordinator, Effect, FailureMode, Outcome, OutcomeError, PartialResult, Probe, Probed,
    RecoveryPolicy, RecoveryStrategy, Retry, RunId, Saga, SomeNode, Step, StepContext, StepError,
    read_only_fn, step, step_fn, step_with,
};
use serde::{Deserialize, Serialize};
use undo::{Act, Answer, TestStore, World, after_all, events, life, records, standing};

const MS: fn(u64) -> Duration = Duration::from_millis;

fn parked<O: std::fmt::Debug>(outcome: Outcome<O>) -> PartialResult {
    match outcome {
        Outcome::Parked(partial) => partial,
        other => panic!("{other:?}"),
    }
}

/// Fails the test instead of hanging it, in virtual time.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(MS(86_400_000), future)
        .await
        .expect("it hangs")
}

/// `a` before `b` before `c`.
fn chain(world: &Arc<World>) -> Saga<(), String> {
    let mut b = Saga::builder::<()>("chain");
    let first = b.add(world.step("a"), ());
    let second = b.add(world.step("b").after(first), ());
    let third = b.add(world.step("c").after(second), ());
    b.returns(third).unwrap()
}

async fn resume(
    world: &Arc<World>,
    store: &Arc<TestStore>,
    saga: &Saga<(), String>,
) -> Outcome<String> {
    let coordinator = world
        .coordinator(store)
        .register(saga)
        .build()
        .await
        .unwrap();
    let run = coordinator
        .attach(saga, &"r".into())
        .await
        .unwrap()
        .unwrap();
    soon(run.outcome()).await.unwrap()
}

#[test]
fn a_crash_in_the_middle_of_compensation_resumes_compensating() {
    let world = World::new();
    let store = TestStore::new();
    let saga = chain(&world);
    world.on("do c", [Act::Rejected]);
    world.on("undo a", [Act::Hang]);
    life(&world, async || {
        let coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        coordinator.start(&saga, "r", ()).await.unwrap();
        world.seen("undo a", 1).await;
    });
    world.forget();
    let outcome = life(&world, async || resume(&world, &store, &saga).await);
    assert_eq!(outcome.word(), "compensated");
    assert_eq!(world.began(), ["undo a"]);
}

#[test]
fn a_step_that_ends_between_the_failure_and_the_undoing_is_undone_too() {
    // By its own end, and by a crash that leaves it in doubt.
    for crash in [false, true] {
        let world = World::new();
        let store = TestStore::new();
        let mut b = Saga::builder::<()>("late");
        let late = b.add(world.step("late"), ());
        let fails = b.add(world.step("fails"), ());
        let last = b.add(world.step("last").after(late).after(fails), ());
        let saga = b.returns(last).unwrap();
        world.on("do late", [Act::Done.after(10_000)]);
        world.on("do fails", [Act::Rejected.after(1_000)]);
        life(&world, async || {
            let coordinator = world
                .coordinator(&store)
                .register(&saga)
                .build()
                .await
                .unwrap();
            let run = coordinator.start(&saga, "r", ()).await.unwrap();
            if crash {
                tokio::time::sleep(MS(5_000)).await;
            } else {
                assert_eq!(run.outcome().await.unwrap().word(), "compensated");
            }
        });
        if crash {
            let outcome = life(&world, async || resume(&world, &store, &saga).await);
            assert_eq!(outcome.word(), "compensated");
        }
        assert_eq!(world.of_kind("do"), ["late", "fails"]);
        assert_eq!(world.of_kind("undo"), ["late"]);
        let told = if crash { "in doubt" } else { "late#1" };
        assert_eq!(world.calls_of("undo late")[0].effect, told);
    }
}

/// A thousand runs in their second step when the process dies.
const MANY: usize = 1_000;

#[test]
fn one_unreadable_run_among_a_thousand_parks_alone() {
    let world = World::new();
    let store = TestStore::new();
    let saga = chain(&world);
    world.always("do b", Act::Hang);
    life(&world, async || {
        let coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        for number in 0..MANY {
            coordinator
                .start(&saga, format!("run {number}"), ())
                .await
                .unwrap();
        }
        world.seen("do b", MANY).await;
    });
    let newer = Damage::Form(FormError::Version { found: 99 });
    store.damage("run 500", newer);
    world.always("do b", Act::Done);
    life(&world, async || {
        let coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        assert_eq!(coordinator.all_resumed().await, MANY as u64);
        world.seen("did c", MANY - 1).await;
        tokio::time::sleep(MS(1)).await;
        let open = coordinator
            .list(&RunFilter::open(), None, 10)
            .await
            .unwrap();
        assert_eq!(open.len(), 1);
        assert_eq!(open[0].run.as_str(), "run 500");
        assert_eq!(
            coordinator.unreadable(),
            [(
                RunId::new("run 500"),
                "record 2 of run `run 500` can't be read: the record has form \
                 version 99, and this build reads versions up to 3"
                    .to_owned()
            )]
        );
        let run = coordinator
            .attach(&saga, &"run 500".into())
            .await
            .unwrap()
            .unwrap();
        let partial = parked(soon(run.outcome()).await.unwrap());
        assert_eq!(partial.parked.unwrap().reason, ParkReason::Unreadable);
        drop(run);
        assert_eq!(coordinator.driving(), 0);
    });
    assert_eq!(world.count("do c"), MANY - 1);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_wakes_a_run_that_waits_for_a_retry() {
    let world = World::new();
    let store = Arc::new(MemoryStore::new());
    let mut b = Saga::builder::<()>("asleep");
    let first = b.add(world.step("a"), ());
    let second = b.add(
        world
            .step("b")
            .after(first)
            .retry(Retry::constant().initial(MS(86_000_000))),
        (),
    );
    let saga = b.returns(second).unwrap();
    world.on("do b", [Act::NotDone]);
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    tokio::time::sleep(MS(1_000)).await;
    assert_eq!(coordinator.driving(), 0, "it sleeps without a task");
    let told = coordinator.cancel(run.id(), "me", "no more").await.unwrap();
    assert_eq!(told, CancelTold::Accepted);
    assert_eq!(soon(run.outcome()).await.unwrap().word(), "compensated");
    assert_eq!(world.millis(), 1_000);
    assert_eq!(world.began(), ["do a", "do b", "undo a"]);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_during_compensation_does_not_stop_it() {
    let world = World::new();
    let saga = chain(&world);
    let store = Arc::new(MemoryStore::new());
    world.on("do c", [Act::Rejected]);
    world.on(
        "undo b",
        [Act::NotDone.after(5_000), Act::Done.after(5_000)],
    );
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    for _ in 0..9 {
        tokio::time::sleep(MS(1_000)).await;
        coordinator.cancel(run.id(), "me", "faster").await.unwrap();
    }
    assert_eq!(soon(run.outcome()).await.unwrap().word(), "compensated");
    assert_eq!(world.of_kind("undo"), ["b", "b", "a"]);
    assert!(world.calls().iter().all(|call| !call.told_to_stop));
    assert!(!world.trace().iter().any(|line| line.starts_with("cut ")));
}

#[tokio::test(start_paused = true)]
async fn a_failing_compensation_neither_panics_nor_stops_the_independent_ones() {
    let world = World::new();
    let store = Arc::new(MemoryStore::new());
    let mut b = Saga::builder::<()>("undo-fails");
    let nodes: Vec<SomeNode> = ["a", "b", "c"]
        .iter()
        .map(|name| {
            b.add(world.step(name).compensation_retry(Retry::none()), ())
                .into()
        })
        .collect();
    let last = b.add(after_all(world.step("last"), nodes), ());
    let saga = b.returns(last).unwrap();
    world.on("do last", [Act::Rejected]);
    world.on("undo a", [Act::Panic]);
    world.on("undo b", [Act::Strange]);
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    let partial = parked(soon(run.outcome()).await.unwrap());
    assert_eq!(standing(&partial), ["a done", "b done"]);
    assert_eq!(world.of_kind("undo").len(), 3);
    let mut failures: Vec<&str> = partial
        .compensations
        .iter()
        .filter_map(|undone| Some(&*undone.failure.as_ref()?.message))
        .collect();
    failures.sort_unstable();
    assert_eq!(failures, ["boom", "it panicked: scripted panic (Panic)"]);
    // The operator has mended it.
    coordinator
        .retry(run.id(), RecoveryStrategy::Compensate, "me", "mended")
        .await
        .unwrap();
    assert_eq!(soon(run.ended()).await.unwrap().word(), "compensated");
    assert_eq!(world.count("undo c"), 1);
}

#[tokio::test(start_paused = true)]
async fn words_in_a_message_are_not_taken_for_a_class() {
    for message in [
        "boom",
        "oom",
        "out of memory",
        "timeout",
        "connection refused",
        "quota exceeded",
    ] {
        let mut b = Saga::builder::<String>("words");
        let message_node = b.input();
        let fails = b.add(
            step_fn(
                "fails",
                async |_cx, message: &String| -> Result<(), StepError> {
                    Err(std::io::Error::other(message.clone()).into())
                },
                async |_cx, _message, _effect| Ok(()),
            ),
            message_node,
        );
        let saga = b.returns(fails).unwrap();
        let coordinator = Coordinator::builder(MemoryStore::new())
            .register(&saga)
            .build()
            .await
            .unwrap();
        let run = coordinator
            .start(&saga, "r", message.to_owned())
            .await
            .unwrap();
        let partial = soon(run.outcome()).await.unwrap().partial();
        assert_eq!(
            partial.failure_mode,
            Some(FailureMode::StepLogic),
            "{message}"
        );
        assert_eq!(
            partial.steps[0].attempts, 1,
            "what nobody knows is not retried"
        );
    }
}

#[test]
fn a_run_that_is_resumed_from_all_sides_at_once_runs_once() {
    let world = World::new();
    let store = TestStore::new();
    let saga = chain(&world);
    world.on("do b", [Act::Hang]);
    life(&world, async || {
        let coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        coordinator.start(&saga, "r", ()).await.unwrap();
    });
    world.forget();
    world.on("do b", [Act::Done.after(1_000)]);
    store.delay(MS(50));
    life(&world, async || {
        // It is taken up, started again, and cancelled, all before anything is written.
        let coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        let starts = (0..10).map(|number| {
            let (coordinator, saga) = (coordinator.clone(), saga.clone());
            tokio::spawn(async move {
                tokio::time::sleep(MS(number * 13)).await;
                let run = coordinator.start(&saga, "r", ()).await.unwrap();
                soon(run.outcome()).await.unwrap().word()
            })
        });
        for start in starts.collect::<Vec<_>>() {
            assert_eq!(start.await.unwrap(), "completed");
        }
        assert_eq!(coordinator.resumed(), 1);
    });
    assert_eq!(world.began(), ["do b", "do c"]);
    let written = life(&world, async || events(&*store, "r").await);
    assert_eq!(
        written.iter().filter(|event| *event == "claimed").count(),
        1
    );
}

#[test]
fn a_finished_run_that_is_started_again_gives_the_stored_result_and_runs_nothing() {
    let world = World::new();
    let store = TestStore::new();
    let saga = chain(&world);
    for life_number in 0..3 {
        life(&world, async || {
            let coordinator = world
                .coordinator(&store)
                .register(&saga)
                .build()
                .await
                .unwrap();
            let run = coordinator.start(&saga, "r", ()).await.unwrap();
            let output = soon(run.outcome()).await.unwrap().completed();
            assert_eq!(output.as_deref(), Some("c#1"), "{life_number}");
        });
    }
    assert_eq!(world.began(), ["do a", "do b", "do c"]);
}

/// A future of the user's own that panics where it is told to.
struct Explosive {
    on_poll: bool,
    on_drop: bool,
}

impl Future for Explosive {
    type Output = Result<(), StepError>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(!self.on_poll, "poll");
        Poll::Pending
    }
}

impl Drop for Explosive {
    fn drop(&mut self) {
        assert!(!self.on_drop, "drop");
    }
}

/// Where the user's code panics.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bomb {
    Call,
    Poll,
    Drop,
}

impl Step for Bomb {
    type Input = ();
    type Output = ();

    fn execute(
        &self,
        _: &StepContext,
        (): &(),
    ) -> impl Future<Output = Result<(), StepError>> + Send {
        assert!(*self != Bomb::Call, "call");
        Explosive {
            on_poll: *self == Bomb::Poll,
            on_drop: *self == Bomb::Drop,
        }
    }

    async fn compensate(&self, _: &StepContext, (): &(), _: Effect<&()>) -> Result<(), StepError> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_execute_is_a_failure_in_doubt_wherever_it_happens() {
    for (bomb, mode, message) in [
        (Bomb::Call, FailureMode::StepLogic, "it panicked: call"),
        (Bomb::Poll, FailureMode::StepLogic, "it panicked: poll"),
        // Its future is dropped at the time-out, and panics then.
        (Bomb::Drop, FailureMode::StepTimeout, "no answer within 1s"),
    ] {
        let world = World::new();
        let store = Arc::new(MemoryStore::new());
        let mut b = Saga::builder::<()>("bomb");
        let first = b.add(world.step("first"), ());
        let bomb_node = b.add(
            step("bomb", bomb)
                .timeout(MS(1_000))
                .retry(Retry::none())
                .after(first),
            (),
        );
        let saga = b
            .policy(RecoveryPolicy::saga().max_recoveries(0))
            .returns(bomb_node)
            .unwrap();
        let coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        let run = coordinator.start(&saga, "r", ()).await.unwrap();
        let outcome = soon(run.outcome()).await.unwrap();
        assert_eq!(outcome.word(), "compensated", "{bomb:?}");
        let partial = outcome.partial();
        let failure = partial.step("bomb").unwrap().failure.clone().unwrap();
        assert_eq!((failure.mode, failure.message.as_str()), (mode, message));
        let undone: Vec<&str> = partial
            .compensations
            .iter()
            .map(|undone| &*undone.step)
            .collect();
        assert_eq!(undone, ["bomb", "first"], "in doubt, so it is undone");
    }
}

/// Answers a probe with a panic.
struct PanicsWhenAsked;

impl Probe for PanicsWhenAsked {
    type Input = ();
    type Output = String;

    async fn probe(&self, _: &StepContext, (): &()) -> Result<Probed<String>, StepError> {
        panic!("asked")
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_probe_is_an_unknown_answer() {
    let world = World::new();
    let store = Arc::new(MemoryStore::new());
    let mut b = Saga::builder::<()>("probe");
    let doubtful = b.add(world.step("doubtful").probe(PanicsWhenAsked), ());
    let saga = b.returns(doubtful).unwrap();
    world.on("do doubtful", [Act::Strange]);
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    assert_eq!(soon(run.outcome()).await.unwrap().word(), "compensated");
    assert_eq!(world.began(), ["do doubtful", "undo doubtful"]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_map_is_a_failure_of_the_step_that_wanted_it_and_of_the_output_parks() {
    let world = World::new();
    let store = TestStore::new();
    let mut b = Saga::builder::<()>("map");
    let first = b.add(world.step("first"), ());
    let wants = b.add(
        step_fn(
            "wants",
            async |_cx, text: &String| Ok(text.clone()),
            async |_cx, _text: &String, _effect| Ok(()),
        ),
        first.map(|text| -> String { panic!("no map for {text}") }),
    );
    let saga = b.returns(wants).unwrap();
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    let outcome = soon(run.outcome()).await.unwrap();
    assert_eq!(outcome.word(), "compensated");
    let failure = outcome
        .partial()
        .step("wants")
        .unwrap()
        .failure
        .clone()
        .unwrap();
    assert_eq!(failure.mode, FailureMode::StepLogic);
    assert_eq!(
        failure.message,
        "its input can't be made: the `map` that makes an input panicked: no map for first#1"
    );
    assert_eq!(world.began(), ["do first", "undo first"]);

    let mut b = Saga::builder::<()>("output");
    let first = b.add(world.step("first"), ());
    let saga = b
        .returns(first.map(|_| -> String { panic!("no output") }))
        .unwrap();
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "s", ()).await.unwrap();
    let partial = parked(soon(run.outcome()).await.unwrap());
    assert_eq!(partial.parked.unwrap().reason, ParkReason::OutputFailed);
}

/// A value whose code panics when it is written, read or cloned.
#[derive(Debug)]
struct Fragile {
    when: String,
}

impl Clone for Fragile {
    fn clone(&self) -> Self {
        assert!(self.when != "cloned", "cloned");
        Fragile {
            when: self.when.clone(),
        }
    }
}

impl Serialize for Fragile {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(self.when != "written", "written");
        self.when.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Fragile {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let when = String::deserialize(deserializer)?;
        assert!(when != "read", "read");
        Ok(Fragile { when })
    }
}

fn fragile(world: &Arc<World>) -> Saga<String, String> {
    let mut b = Saga::builder::<String>("fragile");
    let when = b.input();
    let first = b.add(world.step("first"), ());
    let made = b.add(
        step_with(
            "made",
            Arc::clone(world),
            async |world: &Arc<World>, _cx, when: &String| {
                world.note("made");
                Ok(Fragile { when: when.clone() })
            },
            async |world: &Arc<World>, _cx, _when: &String, effect| {
                let effect = if effect == Effect::InDoubt {
                    "in doubt"
                } else {
                    "done"
                };
                world.note(format!("unmade {effect}"));
                Ok(())
            },
        )
        .after(first),
        when,
    );
    let used = b.add(
        step_fn(
            "used",
            async |_cx, (fragile, _): &(Fragile, String)| Ok(fragile.when.clone()),
            async |_cx, _input: &(Fragile, String), _effect| Ok(()),
        ),
        (made, when),
    );
    b.returns(used).unwrap()
}

impl PartialEq for Fragile {
    fn eq(&self, other: &Self) -> bool {
        self.when == other.when
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_values_own_code_is_a_failure_too() {
    for when in ["written", "cloned"] {
        let world = World::new();
        let store = TestStore::new();
        let saga = fragile(&world);
        let coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        let run = coordinator
            .start(&saga, "r", when.to_owned())
            .await
            .unwrap();
        let outcome = soon(run.outcome()).await.unwrap();
        let partial = outcome.partial();
        let failed = if when == "written" { "made" } else { "used" };
        assert_eq!(partial.failing_step.as_deref(), Some(failed), "{when}");
        let failure = partial.step(failed).unwrap().failure.clone().unwrap();
        assert!(failure.message.contains("panicked"), "{failure}");
        assert_eq!(coordinator.driving(), 0);
        // Nothing else suffers.
        let other = coordinator
            .start(&saga, "fine", "never".to_owned())
            .await
            .unwrap();
        assert_eq!(
            soon(other.outcome()).await.unwrap().completed().as_deref(),
            Some("never")
        );
    }
}

#[test]
fn a_value_that_panics_when_it_is_read_fails_the_step_that_wants_it() {
    let world = World::new();
    let store = TestStore::new();
    let saga = fragile(&world);
    store.judge(|sent| {
        // The process dies when `made` is done and nobody has used it yet.
        if sent.events.iter().any(|event| event == "step_done made") {
            Answer::WriteStuck
        } else {
            Answer::Write
        }
    });
    life(&world, async || {
        let coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        coordinator
            .start(&saga, "r", "read".to_owned())
            .await
            .unwrap();
        store.stuck().await;
    });
    store.judge(|_| Answer::Write);
    life(&world, async || {
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
        let outcome = soon(run.outcome()).await.unwrap();
        assert_eq!(outcome.word(), "parked");
        assert_eq!(coordinator.driving(), 0);
    });
}

#[tokio::test(start_paused = true)]
async fn a_future_that_never_returns_is_dropped_at_its_time_out() {
    let world = World::new();
    let store = Arc::new(MemoryStore::new());
    let mut b = Saga::builder::<()>("never");
    let never = b.add(world.step("never"), ());
    let saga = b
        .policy(RecoveryPolicy::saga().max_recoveries(0))
        .returns(never)
        .unwrap();
    world.always("do never", Act::Hang);
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    let outcome = soon(run.outcome()).await.unwrap();
    assert_eq!(outcome.word(), "compensated");
    // Three attempts of 30 s each, each dropped before the next.
    let mut expected = ["do never", "cut never"].repeat(3);
    expected.extend(["undo never", "undid never"]);
    assert_eq!(world.trace(), expected);
    let begins: Vec<u64> = world
        .calls_of("do never")
        .iter()
        .map(|call| call.at / 30_000)
        .collect();
    assert_eq!(begins, [0, 1, 2]);
}

/// The same structure, with another type for what the first step gives.
fn typed<T: amends::Payload + Default>(world: &Arc<World>) -> Saga<(), T> {
    let mut b = Saga::builder::<()>("typed");
    let first = b.add(
        step_with(
            "first",
            Arc::clone(world),
            async |world: &Arc<World>, _cx, (): &()| {
                world.note("do first");
                Ok(T::default())
            },
            async |world: &Arc<World>, _cx, (): &(), _effect: Effect<&T>| {
                world.note("undo first");
                Ok(())
            },
        ),
        (),
    );
    let wait = b.add(world.step("wait").after(first), ());
    let last = b.add(
        step_with(
            "last",
            Arc::clone(world),
            async |world: &Arc<World>, _cx, value: &T| {
                world.note("do last");
                Ok(value.clone())
            },
            async |_world: &Arc<World>, _cx, _value: &T, _effect: Effect<&T>| Ok(()),
        )
        .after(wait),
        first,
    );
    b.returns(last).unwrap()
}

#[test]
fn a_deploy_that_changed_a_type_parks_the_run_and_loses_nothing() {
    let world = World::new();
    let store = TestStore::new();
    let (old, new) = (typed::<u64>(&world), typed::<BTreeMap<String, u64>>(&world));
    assert_eq!(old.fingerprint(), new.fingerprint());
    world.on("do wait", [Act::Hang]);
    life(&world, async || {
        let coordinator = world
            .coordinator(&store)
            .register(&old)
            .build()
            .await
            .unwrap();
        coordinator.start(&old, "r", ()).await.unwrap();
        world.seen("do wait", 1).await;
    });
    world.forget();
    life(&world, async || {
        let coordinator = world
            .coordinator(&store)
            .register(&new)
            .build()
            .await
            .unwrap();
        let run = coordinator
            .attach(&new, &"r".into())
            .await
            .unwrap()
            .unwrap();
        let partial = parked(soon(run.outcome()).await.unwrap());
        let failure = partial.step("last").unwrap().failure.clone().unwrap();
        assert_eq!(failure.mode, FailureMode::StepContract);
        assert!(
            failure
                .message
                .starts_with("its input can't be made: the stored JSON is not a")
        );
        assert_eq!(standing(&partial), ["first done", "wait done"]);
        assert_eq!(partial.output::<u64>("first").unwrap().as_deref(), Some(&0));
    });
    assert_eq!(world.of_kind("undo"), [""; 0]);
    // The old code is back.
    life(&world, async || {
        let coordinator = world
            .coordinator(&store)
            .register(&old)
            .build()
            .await
            .unwrap();
        let run = coordinator
            .attach(&old, &"r".into())
            .await
            .unwrap()
            .unwrap();
        coordinator
            .retry(run.id(), RecoveryStrategy::RetryFailed, "me", "rolled back")
            .await
            .unwrap();
        assert_eq!(soon(run.ended()).await.unwrap().completed(), Some(0));
    });
    assert_eq!(world.trace(), ["do wait", "did wait", "do last"]);
}

#[test]
fn an_undo_whose_output_cannot_be_read_parks_and_goes_on_with_the_old_code() {
    let world = World::new();
    let store = TestStore::new();
    let (old, new) = (typed::<u64>(&world), typed::<BTreeMap<String, u64>>(&world));
    world.on("do wait", [Act::Hang]);
    life(&world, async || {
        let coordinator = world
            .coordinator(&store)
            .register(&old)
            .build()
            .await
            .unwrap();
        coordinator.start(&old, "r", ()).await.unwrap();
        world.seen("do wait", 1).await;
        coordinator.cancel(&"r".into(), "me", "no").await.unwrap();
    });
    life(&world, async || {
        let coordinator = world
            .coordinator(&store)
            .register(&new)
            .build()
            .await
            .unwrap();
        let run = coordinator
            .attach(&new, &"r".into())
            .await
            .unwrap()
            .unwrap();
        let partial = parked(soon(run.outcome()).await.unwrap());
        assert_eq!(
            partial.parked.as_ref().unwrap().reason,
            ParkReason::CompensationFailed
        );
        assert_eq!(standing(&partial), ["first done"]);
    });
    assert!(!world.trace().contains(&"undo first".to_owned()));
    life(&world, async || {
        let coordinator = world
            .coordinator(&store)
            .register(&old)
            .build()
            .await
            .unwrap();
        let run = coordinator
            .attach(&old, &"r".into())
            .await
            .unwrap()
            .unwrap();
        coordinator
            .retry(run.id(), RecoveryStrategy::Compensate, "me", "rolled back")
            .await
            .unwrap();
        assert_eq!(soon(run.ended()).await.unwrap().word(), "compensated");
    });
    assert_eq!(
        world
            .trace()
            .iter()
            .filter(|line| *line == "undo first")
            .count(),
        1
    );
}

/// Counts how many of its kind are alive.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        Counted(Arc::clone(alive))
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        Counted::new(&self.0)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Serialize for Counted {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <()>::deserialize(deserializer).map(|()| Counted::new(&Arc::default()))
    }
}

#[tokio::test(start_paused = true)]
async fn finished_runs_cost_the_coordinator_no_memory() {
    let alive = Arc::new(AtomicUsize::new(0));
    let mut b = Saga::builder::<Counted>("counted");
    let input = b.input();
    let one = b.add(
        step_fn(
            "one",
            async |_cx, counted: &Counted| Ok(counted.clone()),
            async |_cx, _counted: &Counted, _effect| Ok(()),
        ),
        input,
    );
    let two = b.add(
        read_only_fn("two", async |_cx, (one, _): &(Counted, Counted)| {
            tokio::time::sleep(MS(10)).await;
            Ok(one.clone())
        }),
        (one, input),
    );
    let saga = b.returns(two).unwrap();
    let store = MemoryStore::new().keep_ended(0);
    let coordinator = Coordinator::builder(store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    for number in 0..1_000 {
        let run = coordinator
            .start(&saga, format!("run {number}"), Counted::new(&alive))
            .await
            .unwrap();
        drop(soon(run.outcome()).await.unwrap());
        // One more who only looks.
        assert!(coordinator.attach(&saga, run.id()).await.unwrap().is_none());
    }
    assert_eq!(coordinator.driving(), 0);
    assert_eq!(
        alive.load(Ordering::SeqCst),
        0,
        "no input and no output is kept"
    );
}

#[tokio::test(start_paused = true)]
async fn a_run_that_waits_has_no_task_and_keeps_no_values() {
    let alive = Arc::new(AtomicUsize::new(0));
    let world = World::new();
    let mut b = Saga::builder::<()>("waits");
    let flaky = b.add(
        step_with(
            "flaky",
            Arc::clone(&alive),
            async |alive: &Arc<AtomicUsize>, cx: &StepContext, (): &()| {
                let held = Counted::new(alive);
                tokio::time::sleep(MS(1)).await;
                if cx.attempt() == 1 {
                    return Err(StepError::not_done("later").with_mode(FailureMode::SystemNetwork));
                }
                Ok(held)
            },
            async |_alive: &Arc<AtomicUsize>, _cx, (): &(), _effect: Effect<&Counted>| Ok(()),
        )
        .retry(Retry::constant().initial(MS(60_000))),
        (),
    );
    let saga = b.returns(flaky).unwrap();
    let store = Arc::new(MemoryStore::new());
    let coordinator = world
        .coordinator(&store)
        .keep_resident(MS(50))
        .register(&saga)
        .build()
        .await
        .unwrap();
    coordinator.all_resumed().await;
    tokio::task::yield_now().await;
    let before = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    let mut handles = Vec::new();
    for number in 0..100 {
        handles.push(
            coordinator
                .start(&saga, format!("run {number}"), ())
                .await
                .unwrap(),
        );
    }
    assert_eq!(coordinator.driving(), 100);
    tokio::time::sleep(MS(1_000)).await;
    assert_eq!(coordinator.driving(), 0);
    assert_eq!(
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks(),
        before
    );
    assert_eq!(alive.load(Ordering::SeqCst), 0);
    let waiting = RunFilter::open().standing(Standing::Waiting { until: world.now() });
    assert_eq!(
        coordinator.list(&waiting, None, 1_000).await.unwrap().len(),
        100
    );
    for run in handles {
        assert_eq!(soon(run.outcome()).await.unwrap().word(), "completed");
    }
    assert_eq!(world.millis(), 60_002);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_awaits_attempts_in_flight_and_a_new_coordinator_goes_on() {
    let world = World::new();
    let store = TestStore::new();
    let saga = chain(&world);
    world.on("do b", [Act::Done.after(20_000)]);
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    tokio::time::sleep(MS(1_000)).await;
    coordinator.shutdown().await;
    assert_eq!(world.millis(), 20_000);
    assert_eq!(world.trace(), ["do a", "did a", "do b", "did b"]);
    assert!(matches!(
        run.outcome().await,
        Err(OutcomeError::Closed { .. })
    ));
    assert_eq!(coordinator.driving(), 0);
    // Its result is kept: the next one begins with `c`.
    let outcome = resume(&world, &store, &saga).await;
    assert_eq!(outcome.word(), "completed");
    assert_eq!(world.began(), ["do a", "do b", "do c"]);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_drops_what_outlasts_its_grace() {
    let world = World::new();
    let store = TestStore::new();
    let saga = chain(&world);
    world.on("do b", [Act::Hang]);
    let coordinator = world
        .coordinator(&store)
        .shutdown_grace(MS(5_000))
        .register(&saga)
        .build()
        .await
        .unwrap();
    coordinator.start(&saga, "r", ()).await.unwrap();
    coordinator.shutdown().await;
    assert_eq!(world.millis(), 5_000);
    assert_eq!(world.trace(), ["do a", "did a", "do b", "cut b"]);
    let outcome = resume(&world, &store, &saga).await;
    assert_eq!(outcome.word(), "completed");
    let calls = world.calls_of("do b");
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0].key, calls[1].key);
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_is_dropped_in_the_middle_leaves_its_runs_to_the_next() {
    let world = World::new();
    let store = TestStore::new();
    let saga = chain(&world);
    world.on("do b", [Act::Hang]);
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    tokio::time::sleep(MS(1_000)).await;
    drop((run, coordinator));
    tokio::time::sleep(MS(1)).await;
    assert_eq!(world.trace(), ["do a", "did a", "do b", "cut b"]);
    let outcome = resume(&world, &store, &saga).await;
    assert_eq!(outcome.word(), "completed");
    assert_eq!(world.began(), ["do a", "do b", "do b", "do c"]);
}

#[tokio::test(start_paused = true)]
async fn a_layered_graph_is_not_walked_exponentially() {
    // 40 layers of 4 steps, each after all of the layer before: 4^40 paths.
    let world = World::new();
    let store = Arc::new(MemoryStore::new());
    let mut b = Saga::builder::<()>("layers").policy(
        RecoveryPolicy::new("back", RecoveryStrategy::RetryFromCheckpoint)
            .max_recoveries(1)
            .rule(
                amends::policy::Rule::new("enough", RecoveryStrategy::Compensate)
                    .when(amends::policy::Condition::UsedUp),
            ),
    );
    let mut layer: Vec<SomeNode> = Vec::new();
    for depth in 0..40 {
        layer = (0..4)
            .map(|place| {
                let part = after_all(world.step(&format!("{depth}-{place}")), layer.clone());
                let part = if (depth, place) == (20, 0) {
                    part.checkpoint()
                } else {
                    part
                };
                b.add(part, ()).into()
            })
            .collect();
    }
    let last = b.add(
        after_all(world.step("last"), layer).retry(Retry::none()),
        (),
    );
    let saga = b.returns(last).unwrap();
    world.always("do last", Act::NotDone);
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    assert_eq!(soon(run.outcome()).await.unwrap().word(), "compensated");
    // The checkpoint keeps its own layer's one and the 20 layers before it; the rest went round twice.
    let kept = 20 * 4 + 1;
    assert_eq!(world.of_kind("do").len(), 160 + 1 + (160 - kept) + 1);
    assert_eq!(world.of_kind("undo").len(), (160 - kept) + 160);
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_one_write_with_its_wake_up_and_a_failure_one_with_its_decision() {
    let world = World::new();
    let store = TestStore::new();
    let saga = chain(&world);
    world.on("do b", [Act::NotDone, Act::Rejected]);
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    world.seen("did b", 1).await;
    tokio::time::sleep(MS(1)).await;
    // The wake-up is in the list of runs as soon as the failure is in the journal.
    let entry = store.find(&"r".into()).await.unwrap().unwrap();
    assert!(
        matches!(entry.standing, Standing::Waiting { .. }),
        "{entry:?}"
    );
    soon(run.outcome()).await.unwrap();
    assert_eq!(
        records(&*store, "r").await[2..],
        [
            vec!["step_failed b"],
            vec!["step_started b"],
            vec!["step_failed b", "decided compensate", "undo_started a"],
            vec!["undone a", "ended compensated"],
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_undo_does_not_overtake_its_execute() {
    let world = World::new();
    let store = Arc::new(MemoryStore::new());
    let saga = chain(&world);
    world.on("do a", [Act::Done.after(10_000)]);
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    coordinator.cancel(run.id(), "me", "at once").await.unwrap();
    soon(run.outcome()).await.unwrap();
    assert_eq!(world.trace(), ["do a", "did a", "undo a", "undid a"]);
}

#[test]
fn a_resumed_run_neither_skips_what_failed_nor_repeats_what_is_done() {
    let world = World::new();
    let store = TestStore::new();
    let mut b = Saga::builder::<()>("resume");
    let done = b.add(world.step("done"), ());
    let looked = b.add(world.read("looked").after(done), ());
    let flaky = b.add(
        world
            .step("flaky")
            .after(looked)
            .retry(Retry::constant().initial(MS(60_000))),
        (),
    );
    let saga = b.returns(flaky).unwrap();
    world.on("do flaky", [Act::NotDone]);
    life(&world, async || {
        let coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        coordinator.start(&saga, "r", ()).await.unwrap();
        tokio::time::sleep(MS(30_000)).await;
    });
    let outcome = life(&world, async || resume(&world, &store, &saga).await);
    assert_eq!(outcome.word(), "completed");
    assert_eq!(
        world.began(),
        ["do done", "do looked", "do flaky", "do flaky"]
    );
    assert_eq!(world.millis(), 60_000, "a restart resets no timer");
    assert_eq!(outcome.partial().step("flaky").unwrap().attempts, 2);
}

#[test]
fn a_restart_grants_no_new_attempts() {
    let world = World::new();
    let store = TestStore::new();
    let mut b = Saga::builder::<()>("budget").policy(RecoveryPolicy::saga().max_recoveries(0));
    let flaky = b.add(
        world
            .step("flaky")
            .retry(Retry::constant().initial(MS(60_000)).max_attempts(3)),
        (),
    );
    let saga = b.returns(flaky).unwrap();
    world.always("do flaky", Act::NotDone);
    for _ in 0..2 {
        life(&world, async || {
            let coordinator = world
                .coordinator(&store)
                .register(&saga)
                .build()
                .await
                .unwrap();
            coordinator.start(&saga, "r", ()).await.unwrap();
            tokio::time::sleep(MS(61_000)).await;
        });
    }
    let outcome = life(&world, async || resume(&world, &store, &saga).await);
    assert_eq!(outcome.word(), "compensated");
    assert_eq!(world.count("do flaky"), 3);
}

#[cfg(feature = "sqlite")]
mod in_a_file {
    use super::*;
    use amends::store::SqliteStore;

    /// A thousand runs that rest for a second, in a file.
    fn resting() -> Saga<u64, u64> {
        let mut b = Saga::builder::<u64>("resting");
        let input = b.input();
        let first = b.add(
            step_fn(
                "first",
                async |_cx, n: &u64| Ok(*n),
                async |_cx, _n: &u64, _effect| Ok(()),
            ),
            input,
        );
        let flaky = b.add(
            step_fn(
                "flaky",
                async |cx: &StepContext, n: &u64| match cx.attempt() {
                    1 => Err(StepError::not_done("later").with_mode(FailureMode::SystemNetwork)),
                    _ => Ok(n + 1),
                },
                async |_cx, _n: &u64, _effect| Ok(()),
            )
            .retry(Retry::constant().initial(MS(1_000))),
            first,
        );
        b.returns(flaky).unwrap()
    }

    #[tokio::test]
    async fn one_damaged_row_among_a_thousand_runs_parks_its_run_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runs.db");
        let saga = resting();
        let store = SqliteStore::open(&path).unwrap();
        let coordinator = Coordinator::builder(store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        let mut starts = tokio::task::JoinSet::new();
        for number in 0..MANY as u64 {
            let (coordinator, saga) = (coordinator.clone(), saga.clone());
            starts.spawn(async move {
                coordinator
                    .start(&saga, format!("run {number}"), number)
                    .await
                    .unwrap();
            });
        }
        starts.join_all().await;
        coordinator.shutdown().await;
        drop(coordinator);

        // One row is overwritten, and another is from the future.
        let file = rusqlite::Connection::open(&path).unwrap();
        for (run, change) in [
            ("run 500", "events = replace(events, '500', '501')"),
            ("run 700", "form = 99"),
        ] {
            let changed = file
                .execute(
                    &format!(
                        "UPDATE journal SET {change} WHERE seq = 1 AND run = (SELECT run FROM runs WHERE id = ?)"
                    ),
                    [run],
                )
                .unwrap();
            assert_eq!(changed, 1);
        }
        drop(file);

        let store = SqliteStore::open(&path).unwrap();
        let coordinator = Coordinator::builder(store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        coordinator.all_resumed().await;
        for number in (0..MANY as u64).filter(|number| ![500, 700].contains(number)) {
            let id = RunId::new(format!("run {number}"));
            let run = coordinator.attach(&saga, &id).await.unwrap().unwrap();
            assert_eq!(run.outcome().await.unwrap().completed(), Some(number + 1));
        }
        let mut unreadable: Vec<String> = coordinator
            .unreadable()
            .into_iter()
            .map(|(run, _)| run.to_string())
            .collect();
        unreadable.sort();
        // The timers of the two may not have rung yet; asking for them says the same.
        for id in ["run 500", "run 700"] {
            let error = coordinator.get(&id.into()).await.unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("record 1 of run `{id}` can't be read")),
                "{error}"
            );
        }
        assert!(
            unreadable
                .iter()
                .all(|id| id == "run 500" || id == "run 700"),
            "{unreadable:?}"
        );
        let open = coordinator
            .list(&RunFilter::open(), None, 10)
            .await
            .unwrap();
        let open: Vec<&str> = open.iter().map(|entry| entry.run.as_str()).collect();
        assert_eq!(open, ["run 500", "run 700"]);
        coordinator.shutdown().await;
    }

    #[tokio::test]
    async fn an_output_of_64_mib_is_kept_and_read_again() {
        const SIZE: usize = 64 << 20;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runs.db");
        let mut b = Saga::builder::<()>("large");
        let large = b.add(
            step_fn(
                "large",
                async |_cx, (): &()| Ok(Arc::new("x".repeat(SIZE))),
                async |_cx, (): &(), _effect| Ok(()),
            ),
            (),
        );
        let length = b.add(
            read_only_fn("length", async |_cx, text: &Arc<String>| Ok(text.len())),
            large,
        );
        let saga = b.returns(length).unwrap();
        for life in 1..=2 {
            let store = SqliteStore::open(&path).unwrap();
            let coordinator = Coordinator::builder(store)
                .register(&saga)
                .build()
                .await
                .unwrap();
            let run = if life == 1 {
                coordinator.start(&saga, "r", ()).await.unwrap()
            } else {
                let run = coordinator.attach(&saga, &"r".into()).await.unwrap();
                run.unwrap()
            };
            let outcome = run.outcome().await.unwrap();
            if life == 2 {
                let text = outcome.partial().output::<String>("large").unwrap();
                assert_eq!(text.unwrap().len(), SIZE);
            }
            assert_eq!(outcome.completed(), Some(SIZE));
            coordinator.shutdown().await;
        }
    }

    #[tokio::test]
    async fn an_output_that_no_record_can_hold_stalls_its_run_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::options()
            .max_record_bytes(10_000)
            .open(dir.path().join("runs.db"))
            .unwrap();
        let mut b = Saga::builder::<usize>("sized");
        let size = b.input();
        let calls = Arc::new(AtomicUsize::new(0));
        let made = b.add(
            step_with(
                "made",
                Arc::clone(&calls),
                async |calls: &Arc<AtomicUsize>, _cx, size: &usize| {
                    calls.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    Ok("x".repeat(*size))
                },
                async |_calls: &Arc<AtomicUsize>, _cx, _size: &usize, _effect| Ok(()),
            ),
            size,
        );
        let saga = b.returns(made).unwrap();
        let coordinator = Coordinator::builder(store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        let stalls = coordinator.start(&saga, "too large", 20_000).await.unwrap();
        for number in 0..20 {
            let run = coordinator
                .start(&saga, format!("run {number}"), number)
                .await
                .unwrap();
            assert_eq!(
                run.outcome().await.unwrap().completed().unwrap().len(),
                number
            );
        }
        let partial = coordinator.get(stalls.id()).await.unwrap().unwrap();
        assert_eq!(partial.steps[0].attempts, 1);
        assert!(
            partial.steps[0].failure.is_none(),
            "a failed append is not the step's failure"
        );
        assert_eq!(calls.load(Ordering::SeqCst), 21);
        coordinator.shutdown().await;
    }

    #[test]
    fn sqlite_is_no_version_that_can_corrupt_its_log() {
        assert!(
            rusqlite::version_number() >= 3_051_003,
            "{}",
            rusqlite::version()
        );
    }
}
