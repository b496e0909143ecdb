//! The ten promises of the design, each by its number.
// Helpers of tests may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "common/undo.rs"]
mod undo;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends::journal::{CancelTold, Event, ParkReason};
use amends::machine::Refused;
use amends::store::{MemoryStore, RunFilter, Store};
use amends::{
    CommandError, Coordinator, Effect, FailureMode, Outcome, PartialResult, RecoveryPolicy,
    RecoveryStrategy, Resolution, Retry, RunId, Saga, Siblings, StartOptions, Step, StepContext,
    StepError, StepSpec, UndoRule, step, step_fn, step_with,
};
use undo::{Act, Answer, TestStore, World, events, life, records, standing};

const MS: fn(u64) -> Duration = Duration::from_millis;

fn parked<O: std::fmt::Debug>(outcome: Outcome<O>) -> PartialResult {
    match outcome {
        Outcome::Parked(partial) => partial,
        other => panic!("{other:?}"),
    }
}

/// `a` before `b` before `c`.
fn chain(world: &Arc<World>) -> Saga<(), String> {
    let mut b = Saga::builder::<()>("chain");
    let first = b.add(world.step("a"), ());
    let second = b.add(world.step("b").after(first), ());
    let third = b.add(world.step("c").after(second), ());
    b.returns(third).unwrap()
}

/// Looks into the store whenever it is called: what announces this call, and what it depends on, has to
/// be there already.
struct Suspicious(Arc<dyn Store>);

impl Suspicious {
    async fn look(&self, cx: &StepContext, undo: bool) -> Vec<String> {
        let journal = self
            .0
            .load(cx.run())
            .await
            .unwrap()
            .expect("the run is durable");
        let steps = journal.steps;
        let mut done = Vec::new();
        let mut announced = false;
        for event in journal.records.into_iter().flat_map(|record| record.events) {
            match event.map_step(|step| steps.name(step).to_string()) {
                Event::StepStarted {
                    step, attempt, key, ..
                } if !undo => {
                    announced |= step == cx.step()
                        && attempt == cx.attempt()
                        && *key == *cx.idempotency_key();
                }
                Event::UndoStarted {
                    step, attempt, key, ..
                } if undo => {
                    announced |= step == cx.step()
                        && attempt == cx.attempt()
                        && *key == *cx.idempotency_key();
                }
                Event::StepDone { step, .. } => done.push(step),
                Event::Undone { step, .. } => done.retain(|done| *done != step),
                _ => {}
            }
        }
        assert!(
            announced,
            "{} was called before its announcement was durable",
            cx.step()
        );
        done
    }
}

impl Step for Suspicious {
    type Input = ();
    type Output = ();

    async fn execute(&self, cx: &StepContext, (): &()) -> Result<(), StepError> {
        let done = self.look(cx, false).await;
        let expected: &[&str] = match cx.step() {
            "a" => &[],
            "b" => &["a"],
            _ => &["a", "b"],
        };
        assert_eq!(done, expected);
        match (cx.step(), cx.attempt()) {
            ("b", 1) => Err(StepError::not_done("again").with_mode(FailureMode::SystemNetwork)),
            ("c", _) => Err(StepError::rejected("no")),
            _ => Ok(()),
        }
    }

    async fn compensate(&self, cx: &StepContext, (): &(), _: Effect<&()>) -> Result<(), StepError> {
        let done = self.look(cx, true).await;
        let expected: &[&str] = if cx.step() == "b" {
            &["a", "b"]
        } else {
            &["a"]
        };
        assert_eq!(done, expected);
        if cx.step() == "a" && cx.attempt() == 1 {
            return Err(StepError::not_done("again").with_mode(FailureMode::SystemNetwork));
        }
        Ok(())
    }
}

async fn intent_before_effect(store: Arc<dyn Store>) {
    let mut b = Saga::builder::<()>("suspicious");
    let look = |name: &str| {
        let soon = Retry::constant().initial(MS(1));
        step(name, Suspicious(Arc::clone(&store)))
            .retry(soon.clone())
            .compensation_retry(soon)
    };
    let a = b.add(look("a"), ());
    let second = b.add(look("b").after(a), ());
    let third = b.add(look("c").after(second), ());
    let saga = b.returns(third).unwrap();
    let coordinator = Coordinator::builder_shared(Arc::clone(&store))
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    let outcome = run.outcome().await.unwrap();
    assert_eq!(
        outcome.word(),
        "compensated",
        "{:?}",
        outcome.partial().steps
    );
    let partial = outcome.partial();
    let calls: Vec<(u32, usize)> = partial
        .steps
        .iter()
        .map(|step| (step.attempts, step.history.len()))
        .collect();
    // An assertion that failed in a step would show here as one more failed attempt.
    assert_eq!(calls, [(1, 0), (2, 1), (1, 1)]);
    let undone: Vec<(&str, u32)> = partial
        .compensations
        .iter()
        .map(|undone| (&*undone.step, undone.attempts))
        .collect();
    assert_eq!(undone, [("b", 1), ("a", 2)]);
    coordinator.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn promise_1_intent_is_durable_before_the_effect_and_a_result_before_what_depends_on_it() {
    intent_before_effect(Arc::new(MemoryStore::new())).await;
    let slow = TestStore::new();
    slow.delay(MS(100));
    intent_before_effect(slow).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn promise_1_holds_on_a_file_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = amends::store::SqliteStore::open(dir.path().join("runs.db")).unwrap();
    intent_before_effect(Arc::new(store)).await;
}

fn sequence(length: usize) -> Saga<u64, u64> {
    let mut b = Saga::builder::<u64>("sequence");
    let mut node = b.input();
    for number in 0..length {
        let part: StepSpec<u64, u64> = step_fn(
            format!("step {number}"),
            async |_cx, n: &u64| Ok(n + 1),
            async |_cx, _n: &u64, _effect| Ok(()),
        );
        node = b.add(part, node);
    }
    b.returns(node).unwrap()
}

#[tokio::test(start_paused = true)]
async fn promise_1_a_sequence_of_n_steps_costs_n_plus_1_durable_writes() {
    for length in [0, 1, 2, 3, 10, 100] {
        let world = World::new();
        let store = TestStore::new();
        let saga = sequence(length);
        let coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        let run = coordinator.start(&saga, "r", 0).await.unwrap();
        assert_eq!(
            run.outcome().await.unwrap().completed(),
            Some(length as u64)
        );
        assert_eq!(store.sent().len(), length + 1);
    }
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn promise_1_a_lone_sequence_of_n_steps_costs_n_plus_1_commits_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(amends::store::SqliteStore::open(dir.path().join("runs.db")).unwrap());
    let saga = sequence(5);
    let shared: Arc<dyn Store> = Arc::clone(&store) as Arc<dyn Store>;
    let coordinator = Coordinator::builder_shared(shared)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let (commits, appends) = (store.commits(), store.appends());
    let run = coordinator.start(&saga, "r", 0).await.unwrap();
    assert_eq!(run.outcome().await.unwrap().completed(), Some(5));
    assert_eq!(store.appends() - appends, 6);
    assert_eq!(store.commits() - commits, 6);
    coordinator.shutdown().await;
}

#[test]
fn promise_2_at_least_once_with_one_key_that_an_undo_ends() {
    let world = World::new();
    let store = TestStore::new();
    let mut b =
        Saga::builder::<()>("keys").policy(RecoveryPolicy::new("all", RecoveryStrategy::RetryAll));
    let a = b.add(
        world
            .step("a")
            .retry(Retry::constant().initial(MS(10)).max_attempts(2)),
        (),
    );
    let c = b.add(world.step("c").after(a), ());
    let saga = b.returns(c).unwrap();
    // A failure in doubt, a crash, a success; then all is undone, over a crash, and begun again.
    world.on("do a", [Act::Doubt, Act::Hang, Act::Done]);
    world.on("do c", [Act::Rejected]);
    world.on("undo a", [Act::Hang]);
    for line in ["do a", "undo a"] {
        life(&world, async || {
            let coordinator = world
                .coordinator(&store)
                .register(&saga)
                .build()
                .await
                .unwrap();
            coordinator.start(&saga, "r", ()).await.unwrap();
            world.seen(line, if line == "do a" { 2 } else { 1 }).await;
        });
    }
    life(&world, async || {
        let coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        let run = coordinator.start(&saga, "r", ()).await.unwrap();
        assert_eq!(run.outcome().await.unwrap().word(), "completed");
    });
    let keys: Vec<String> = world
        .calls()
        .iter()
        .map(|call| format!("{} {}", call.what, call.key.split_once('/').unwrap().1))
        .collect();
    assert_eq!(
        keys,
        [
            "do a a/1",
            "do a a/1",
            "do a a/1",
            "do c c/1",
            "undo a a/1/undo",
            "undo a a/1/undo",
            "do a a/2",
            "do c c/1"
        ]
    );
    let mut uids: Vec<String> = world
        .calls()
        .iter()
        .map(|call| call.key.split('/').next().unwrap().to_owned())
        .collect();
    uids.dedup();
    assert_eq!(uids.len(), 1);
    assert_eq!(uids[0].len(), 32);
}

#[test]
fn promise_2_a_step_marked_at_most_once_is_never_repeated_while_in_doubt() {
    for crash in [false, true] {
        let world = World::new();
        let store = TestStore::new();
        let mut b = Saga::builder::<()>("once");
        let once = b.add(world.step("once").at_most_once(), ());
        let saga = b.returns(once).unwrap();
        // A definite "not done" may be tried again; a doubt may not.
        world.on(
            "do once",
            [Act::NotDone, if crash { Act::Hang } else { Act::Doubt }],
        );
        life(&world, async || {
            let coordinator = world
                .coordinator(&store)
                .register(&saga)
                .build()
                .await
                .unwrap();
            let run = coordinator.start(&saga, "r", ()).await.unwrap();
            world.seen("do once", 2).await;
            if !crash {
                parked(run.outcome().await.unwrap());
            }
        });
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
            let partial = parked(run.outcome().await.unwrap());
            assert_eq!(standing(&partial), ["once in_doubt"]);
            assert_eq!(world.began(), ["do once", "do once"]);
            let refused = coordinator
                .retry(run.id(), RecoveryStrategy::RetryFailed, "me", "try")
                .await;
            assert!(matches!(
                refused,
                Err(CommandError::Refused {
                    why: Refused::Unavailable(_),
                    ..
                })
            ));
            // An operator knows: it did not happen.
            coordinator
                .resolve(
                    run.id(),
                    "once",
                    Resolution::<String>::NotDone,
                    "me",
                    "I looked",
                )
                .await
                .unwrap();
            coordinator
                .retry(run.id(), RecoveryStrategy::RetryFailed, "me", "try")
                .await
                .unwrap();
            assert_eq!(run.ended().await.unwrap().word(), "completed");
        });
        assert_eq!(world.count("do once"), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn promise_3_compensation_goes_in_reverse_and_luck_has_no_part_in_it() {
    // The same graph with all kinds of durations: what is undone before what stays the same.
    for seed in 0..20_u64 {
        let world = World::new();
        let store = Arc::new(MemoryStore::new());
        let mut b = Saga::builder::<()>("diamond");
        let top = b.add(world.step("top"), ());
        let left = b.add(world.step("left").after(top), ());
        let right = b.add(world.step("right").after(top), ());
        let doubtful = b.add(world.step("doubtful").after(left).retry(Retry::none()), ());
        let bottom = b.add(world.step("bottom").after(right).after(doubtful), ());
        let saga = b
            .policy(RecoveryPolicy::new("undo", RecoveryStrategy::Compensate))
            .returns(bottom)
            .unwrap();
        let mut random = fastrand::Rng::with_seed(seed);
        for name in ["top", "left", "right", "doubtful"] {
            let act = if name == "doubtful" {
                Act::Doubt
            } else {
                Act::Done
            };
            world.on(&format!("do {name}"), [act.after(random.u64(1..50))]);
            world.on(
                &format!("undo {name}"),
                [Act::Done.after(random.u64(1..50))],
            );
        }
        let coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        let run = coordinator.start(&saga, "r", ()).await.unwrap();
        assert_eq!(run.outcome().await.unwrap().word(), "compensated");
        let trace = world.trace();
        let at = |line: &str| trace.iter().position(|seen| seen == line).unwrap();
        for (later, earlier) in [("doubtful", "left"), ("left", "top"), ("right", "top")] {
            let (undid, undo) = (format!("undid {later}"), format!("undo {earlier}"));
            assert!(at(&undid) < at(&undo), "{seed}: {trace:?}");
        }
        assert_eq!(world.of_kind("undo").len(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn promise_4_the_failing_step_is_undone_as_its_definition_says() {
    use UndoRule::{Always, InDoubt, Never};
    for (rule, fails, probe, undone) in [
        (InDoubt, Act::Strange, None, true),
        (InDoubt, Act::Rejected, None, false),
        (Always, Act::Strange, None, true),
        (Always, Act::Rejected, None, true),
        (Never, Act::Strange, None, false),
        (Never, Act::Rejected, None, false),
        // The probe is asked first.
        (InDoubt, Act::Strange, Some(Act::NotDone), false),
        (InDoubt, Act::Strange, Some(Act::Doubt), true),
        (InDoubt, Act::Strange, Some(Act::Panic), true),
    ] {
        let world = World::new();
        let store = Arc::new(MemoryStore::new());
        let mut b = Saga::builder::<()>("failing");
        let first = b.add(world.step("first"), ());
        let part = if probe.is_some() {
            world.probed("fails")
        } else {
            world.step("fails")
        };
        let node = b.add(part.after(first).undo_failing(rule), ());
        let saga = b.returns(node).unwrap();
        world.on("do fails", [fails.clone()]);
        world.on("probe fails", probe.clone());
        let coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        let run = coordinator.start(&saga, "r", ()).await.unwrap();
        let outcome = run.outcome().await.unwrap();
        assert_eq!(outcome.word(), "compensated");
        let mut expected = vec!["do first", "do fails"];
        expected.extend(probe.as_ref().map(|_| "probe fails"));
        expected.extend(undone.then_some("undo fails"));
        expected.push("undo first");
        assert_eq!(world.began(), expected, "{rule:?} {fails:?} {probe:?}");
        if undone {
            assert_eq!(world.calls_of("undo fails")[0].effect, "in doubt");
        }
        // What `never` asserts to have left nothing is said.
        let hidden = rule == Never && fails == Act::Strange;
        let assumed: &[&str] = if hidden { &["fails"] } else { &[] };
        assert_eq!(outcome.partial().assumed_absent, assumed);
    }
}

#[tokio::test(start_paused = true)]
async fn promise_4_a_probe_that_says_done_cancels_the_failure() {
    let world = World::new();
    let store = Arc::new(MemoryStore::new());
    let mut b = Saga::builder::<()>("probed");
    let asked = b.add(world.probed("asked"), ());
    let last = b.add(world.step("last").after(asked), ());
    let saga = b.returns(asked).unwrap();
    let _ = last;
    world.on("do asked", [Act::Strange]);
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    assert_eq!(
        run.outcome().await.unwrap().completed().as_deref(),
        Some("asked#1")
    );
    assert_eq!(world.began(), ["do asked", "probe asked", "do last"]);
}

#[tokio::test(start_paused = true)]
async fn promise_5_a_failed_compensation_parks_and_is_never_called_compensated() {
    let world = World::new();
    let store = Arc::new(MemoryStore::new());
    let mut b = Saga::builder::<()>("stuck");
    let bad = b.add(
        world
            .step("bad")
            .compensation_retry(Retry::constant().initial(MS(1_000)).max_attempts(3)),
        (),
    );
    let good = b.add(world.step("good"), ());
    let last = b.add(world.step("last").after(bad).after(good), ());
    let saga = b.returns(last).unwrap();
    world.on("do last", [Act::Rejected]);
    world.always("undo bad", Act::NotDone);
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    let partial = parked(run.outcome().await.unwrap());
    assert_eq!(world.count("undo bad"), 3);
    assert_eq!(world.millis(), 2_000);
    assert_eq!(
        partial.parked.as_ref().unwrap().reason,
        ParkReason::CompensationFailed
    );
    assert_eq!(standing(&partial), ["bad done"]);
    assert!(
        !events(&*store, "r")
            .await
            .iter()
            .any(|event| event.starts_with("ended"))
    );
    // It has a budget of its own each time that an operator lets it go on.
    coordinator
        .retry(run.id(), RecoveryStrategy::Compensate, "me", "again")
        .await
        .unwrap();
    tokio::time::sleep(MS(60_000)).await;
    let partial = parked(run.outcome().await.unwrap());
    assert_eq!(world.count("undo bad"), 6);
    assert_eq!(world.count("undo good"), 1);
    assert_eq!(standing(&partial), ["bad done"]);
    world.always("undo bad", Act::Done);
    coordinator
        .retry(run.id(), RecoveryStrategy::Compensate, "me", "mended")
        .await
        .unwrap();
    let outcome = run.ended().await.unwrap();
    assert_eq!(outcome.word(), "compensated");
    assert_eq!(standing(&outcome.partial()), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn promise_6_siblings_of_a_failing_step_are_awaited_or_told_to_stop_and_awaited() {
    for (siblings, act, expected, ends_at) in [
        (Siblings::Await, Act::Done.after(5_000), "did slow", 5_000),
        // It looks, and ends early.
        (
            Siblings::Stop { grace: MS(10_000) },
            Act::Told(Box::new(Act::NotDone.after(500))),
            "did slow",
            1_500,
        ),
        // It doesn't look, and is dropped after its grace.
        (
            Siblings::Stop { grace: MS(2_000) },
            Act::Hang,
            "cut slow",
            3_000,
        ),
    ] {
        let world = World::new();
        let store = Arc::new(MemoryStore::new());
        let mut b = Saga::builder::<()>("siblings").siblings(siblings);
        let slow = b.add(world.step("slow"), ());
        let fails = b.add(world.step("fails"), ());
        let other = b.add(world.step("other"), ());
        let last = b.add(world.step("last").after(slow).after(fails).after(other), ());
        let saga = b.returns(last).unwrap();
        world.on("do slow", [act]);
        world.on("do fails", [Act::Rejected.after(1_000)]);
        // A second failure comes in at the same time: one decision is made over both.
        world.on("do other", [Act::Rejected.after(1_000)]);
        let coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        let run = coordinator.start(&saga, "r", ()).await.unwrap();
        let outcome = run.outcome().await.unwrap();
        assert_eq!(outcome.word(), "compensated");
        assert_eq!(world.millis(), ends_at, "{siblings:?}");
        let trace = world.trace();
        // When control is back, nothing of ours runs: every call has ended.
        let begun = trace
            .iter()
            .filter(|line| line.starts_with("do ") || line.starts_with("undo "));
        let over = trace.iter().filter(|line| {
            ["did ", "undid ", "cut "]
                .iter()
                .any(|past| line.starts_with(past))
        });
        assert_eq!(begun.count(), over.count(), "{trace:?}");
        assert!(trace.contains(&expected.to_owned()), "{trace:?}");
        let decided: Vec<String> = events(&*store, "r").await;
        assert_eq!(
            decided
                .iter()
                .filter(|event| event.starts_with("decided"))
                .count(),
            1
        );
        let partial = outcome.partial();
        let saw: Vec<&str> = partial
            .why
            .iter()
            .map(|why| why.saw.step.as_str())
            .collect();
        assert_eq!(saw[..2], ["fails", "other"]);
        assert_eq!(partial.failing_step.as_deref(), Some("fails"));
        let undone: usize = world.count("undo slow");
        assert_eq!(
            undone,
            usize::from(siblings == Siblings::Await || expected == "cut slow")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn promise_6_a_cancel_waits_then_compensates_where_nothing_can_reach_it() {
    let world = World::new();
    let store = Arc::new(MemoryStore::new());
    let mut b = Saga::builder::<()>("cancel").deadline(MS(30_000));
    let a = b.add(world.step("a"), ());
    let c = b.add(world.step("c").after(a), ());
    let saga = b.returns(c).unwrap();
    world.on("do a", [Act::Done.after(10_000)]);
    world.on(
        "undo a",
        [Act::NotDone.after(20_000), Act::Done.after(20_000)],
    );
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    for _ in 0..8 {
        let told = coordinator.cancel(run.id(), "me", "stop").await.unwrap();
        assert_eq!(told, CancelTold::Accepted);
        tokio::time::sleep(MS(4_000)).await;
    }
    let outcome = run.outcome().await.unwrap();
    assert_eq!(outcome.word(), "compensated");
    assert_eq!(
        world.trace(),
        ["do a", "did a", "undo a", "undid a", "undo a", "undid a"]
    );
    assert!(!outcome.partial().deadline_passed);
}

#[tokio::test(start_paused = true)]
async fn promise_7_a_run_has_one_end_that_is_true_and_the_same_details_whoever_asks() {
    for (act, word) in [
        (Act::Done, "completed"),
        (Act::Rejected, "compensated"),
        (Act::Stop, "stopped"),
        (Act::Panic, "abandoned"),
    ] {
        let world = World::new();
        let store = TestStore::new();
        let manual = amends::policy::Rule::new("ask", RecoveryStrategy::Manual).when(
            amends::policy::Condition::Mode(vec![FailureMode::StepLogic]),
        );
        let mut b = Saga::builder::<()>("ends").policy(RecoveryPolicy::saga().first(manual));
        let a = b.add(world.step("a"), ());
        let c = b.add(world.step("c").after(a), ());
        let saga = b.returns(c).unwrap();
        world.on("do c", [act]);
        let coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        let options = StartOptions::new().label("customer", "42");
        let run = coordinator
            .start_with(&saga, "r", (), options)
            .await
            .unwrap();
        let waits = tokio::spawn({
            let run = coordinator.attach(&saga, run.id()).await.unwrap().unwrap();
            async move { run.ended().await.unwrap().partial() }
        });
        if word == "abandoned" {
            // Parked is no end: whoever waits learns of it, and can wait on.
            let partial = parked(run.outcome().await.unwrap());
            assert_eq!(standing(&partial), ["a done", "c in_doubt"]);
            tokio::time::sleep(MS(1_000)).await;
            assert!(!waits.is_finished());
            coordinator
                .abandon(run.id(), "me", "too old")
                .await
                .unwrap();
        }
        let outcome = run.ended().await.unwrap();
        assert_eq!(outcome.word(), word);
        let partial = outcome.partial();
        assert_eq!(waits.await.unwrap(), partial);
        let stored = coordinator.get(run.id()).await.unwrap().unwrap();
        assert_eq!(
            serde_json::to_value(&stored).unwrap(),
            serde_json::to_value(&partial).unwrap(),
            "the journal says the same"
        );
        let json = serde_json::to_string(&partial).unwrap();
        assert_eq!(
            serde_json::from_str::<PartialResult>(&json).unwrap(),
            partial
        );
        assert_eq!(partial.labels["customer"], "42");
        let stands: &[&str] = match word {
            "stopped" => &["a done"],
            "abandoned" => &["a done", "c in_doubt"],
            _ => &[],
        };
        // What stopped in doubt was settled first.
        assert_eq!(standing(&partial), stands, "{word}");
        let written = events(&*store, "r").await;
        let ends: Vec<usize> = written
            .iter()
            .enumerate()
            .filter(|(_, event)| event.starts_with("ended"))
            .map(|(place, _)| place)
            .collect();
        assert_eq!(ends, [written.len() - 1]);
        // An ended run accepts no command.
        for refused in [
            coordinator.cancel(run.id(), "me", "?").await.map(drop),
            coordinator
                .retry(run.id(), RecoveryStrategy::RetryAll, "me", "?")
                .await,
            coordinator.abandon(run.id(), "me", "?").await,
        ] {
            assert!(matches!(
                refused,
                Err(CommandError::Refused {
                    why: Refused::Ended,
                    ..
                })
            ));
        }
        assert_eq!(events(&*store, "r").await, written);
    }
}

/// A run with a retry, a doubt, a recovery from a checkpoint, an undo that fails once, and an end.
fn eventful(world: &Arc<World>, ends_well: bool) -> Saga<(), String> {
    let policy = RecoveryPolicy::new("back", RecoveryStrategy::RetryFromCheckpoint)
        .max_recoveries(1)
        .rule(
            amends::policy::Rule::new("enough", RecoveryStrategy::Compensate)
                .when(amends::policy::Condition::UsedUp),
        );
    let mut b = Saga::builder::<()>("eventful").policy(policy);
    let a = b.add(world.step("a").checkpoint(), ());
    let left = b.add(
        world
            .probed("left")
            .after(a)
            .retry(Retry::constant().initial(MS(50))),
        (),
    );
    let right = b.add(world.step("right").after(a), ());
    let last = b.add(
        world
            .step("last")
            .after(left)
            .after(right)
            .retry(Retry::none()),
        (),
    );
    world.on("do left", [Act::Doubt]);
    world.always("probe left", Act::Doubt);
    world.on("undo right", [Act::NotDone]);
    // A crash may swallow the answer of a call, and the next call then gets the next one.
    if ends_well {
        world.on("do last", [Act::NotDone]);
    } else {
        world.always("do last", Act::NotDone);
    }
    b.returns(last).unwrap()
}

#[test]
fn promise_8_a_crash_at_every_write_is_a_pause() {
    for ends_well in [true, false] {
        let expected = if ends_well {
            "completed"
        } else {
            "compensated"
        };
        // How many writes there are without a crash.
        let world = World::new();
        let store = TestStore::new();
        let saga = eventful(&world, ends_well);
        life(&world, async || {
            let coordinator = world
                .coordinator(&store)
                .register(&saga)
                .build()
                .await
                .unwrap();
            let run = coordinator.start(&saga, "r", ()).await.unwrap();
            assert_eq!(run.outcome().await.unwrap().word(), expected);
        });
        let writes = store.sent().len() as u64;
        assert!(writes > 8, "{writes}");

        for dies_at in 1..=writes {
            for dies in [Answer::Stuck, Answer::WriteStuck] {
                let world = World::new();
                let store = TestStore::new();
                let saga = eventful(&world, ends_well);
                store.judge(move |sent| {
                    if sent.seq == dies_at {
                        dies
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
                    tokio::select! {
                        run = coordinator.start(&saga, "r", ()) => {
                            tokio::select! {
                                outcome = run.as_ref().unwrap().outcome() => panic!("{outcome:?}"),
                                () = store.stuck() => {}
                            }
                        }
                        () = store.stuck() => {}
                    }
                });
                store.judge(|_| Answer::Write);
                // Twice, so that what recovery itself wrote is recovered from as well.
                for _ in 0..2 {
                    life(&world, async || {
                        let coordinator = world
                            .coordinator(&store)
                            .register(&saga)
                            .build()
                            .await
                            .unwrap();
                        let run = coordinator.start(&saga, "r", ()).await.unwrap();
                        let outcome = run.outcome().await.unwrap();
                        assert_eq!(outcome.word(), expected, "{dies_at} {dies:?}");
                    });
                }
                check_effects(&world, ends_well, &format!("{dies_at} {dies:?}"));
            }
        }
    }
}

/// What a participant that honours keys would see: each execute key takes effect once, is undone under
/// one key, and nothing is undone before what depended on it.
fn check_effects(world: &World, ends_well: bool, place: &str) {
    let mut present: Vec<(String, String)> = Vec::new();
    let mut voided: Vec<String> = Vec::new();
    for call in world.calls() {
        let (kind, step) = call.what.split_once(' ').unwrap();
        match kind {
            "do" => {
                assert!(
                    !voided.contains(&call.key),
                    "{place}: {} after its undo",
                    call.key
                );
                let held = present.iter().find(|(name, _)| name == step);
                match held {
                    Some((_, key)) => assert_eq!(*key, call.key, "{place}: a second effect"),
                    None => present.push((step.to_owned(), call.key.clone())),
                }
            }
            "undo" => {
                assert_eq!(call.key, format!("{}/undo", call.effect_key), "{place}");
                let dependents: &[&str] = match step {
                    "a" => &["left", "right", "last"],
                    "left" | "right" => &["last"],
                    _ => &[],
                };
                let certain = |name: &str| present.iter().any(|(held, _)| held == name);
                // `last` says each time that it did nothing, so it does not have to be undone.
                for dependent in dependents.iter().filter(|name| **name != "last") {
                    assert!(!certain(dependent), "{place}: {step} before {dependent}");
                }
                present.retain(|(_, key)| *key != call.effect_key);
                voided.push(call.effect_key.clone());
            }
            _ => {}
        }
    }
    present.retain(|(name, _)| name != "last" || ends_well);
    let mut standing: Vec<&str> = present.iter().map(|(name, _)| name.as_str()).collect();
    standing.sort_unstable();
    let expected: &[&str] = if ends_well {
        &["a", "last", "left", "right"]
    } else {
        &[]
    };
    assert_eq!(standing, expected, "{place}");
}

#[test]
fn promise_9_a_changed_definition_never_runs_by_accident() {
    let build = |world: &Arc<World>, change: usize, version: u32| {
        let mut b = Saga::builder::<()>("shop").version(version);
        let a = b.add(world.step("a"), ());
        let name = if change == 1 { "renamed" } else { "b" };
        let second = if change == 2 {
            world.read(name)
        } else {
            world.step(name)
        };
        let second = if change == 3 {
            second.checkpoint()
        } else {
            second
        };
        let second = if change == 4 { second } else { second.after(a) };
        let second = b.add(second, ());
        let mut third = world.step("c").after(second);
        if change == 5 {
            third = third.pivot();
        }
        let third = b.add(third, ());
        let mut returned = third;
        if change == 6 {
            returned = b.add(world.step("d").after(third), ());
        }
        if change == 7 {
            b.returns(a)
        } else {
            b.returns(returned)
        }
        .unwrap()
    };
    for (change, difference) in [
        (
            1,
            "`c` came after [b] and comes after [renamed]; step `renamed` is new",
        ),
        (2, "step `b` was compensatable and is read-only"),
        (3, "step `b` was not a checkpoint and is"),
        (4, "`b` came after [a] and comes after []"),
        (5, "step `c` was not the pivot and is"),
        (6, "step `d` is new"),
        (7, "what `returns` gives is wired otherwise"),
    ] {
        let world = World::new();
        let store = TestStore::new();
        let old = build(&world, 0, 1);
        world.on("do b", [Act::Hang]);
        life(&world, async || {
            let coordinator = world
                .coordinator(&store)
                .register(&old)
                .build()
                .await
                .unwrap();
            coordinator.start(&old, "r", ()).await.unwrap();
        });
        world.forget();
        let (changed, newer) = (build(&world, change, 1), build(&world, change, 2));
        life(&world, async || {
            let coordinator = world
                .coordinator(&store)
                .register(&changed)
                .build()
                .await
                .unwrap();
            let run = coordinator
                .attach(&changed, &"r".into())
                .await
                .unwrap()
                .unwrap();
            let partial = parked(run.outcome().await.unwrap());
            let parking = partial.parked.unwrap();
            assert_eq!(parking.reason, ParkReason::DefinitionChanged);
            assert!(parking.message.contains(difference), "{}", parking.message);
        });
        assert_eq!(world.began(), [""; 0], "{difference}");
        // Under another version both live side by side, and steps are matched by name.
        life(&world, async || {
            let coordinator = world
                .coordinator(&store)
                .register(&newer)
                .register(&old)
                .build()
                .await
                .unwrap();
            coordinator
                .retry(
                    &RunId::new("r"),
                    RecoveryStrategy::RetryFailed,
                    "me",
                    "put back",
                )
                .await
                .unwrap();
            let run = coordinator
                .attach(&old, &"r".into())
                .await
                .unwrap()
                .unwrap();
            assert_eq!(
                run.ended().await.unwrap().completed().as_deref(),
                Some("c#1")
            );
        });
        assert_eq!(world.began(), ["do b", "do c"], "{difference}");
    }
}

/// Calls everything there is, from inside.
async fn busybody(slot: &Mutex<Option<Coordinator>>, cx: &StepContext) -> Result<(), StepError> {
    let coordinator = slot.lock().unwrap().clone().unwrap();
    let run = cx.run();
    let partial = coordinator.get(run).await.unwrap().unwrap();
    assert_eq!(partial.step(cx.step()).unwrap().name, cx.step());
    coordinator.list(&RunFilter::all(), None, 10).await.unwrap();
    coordinator.without_definition(10).await.unwrap();
    let mut watch = coordinator.watch(run);
    assert!(matches!(
        watch.next().await.unwrap().unwrap().event,
        Event::RunStarted(_)
    ));
    assert!(coordinator.driving() >= 1);
    Ok(())
}

async fn no_lock_is_held(store: Arc<dyn Store>) {
    let slot: Arc<Mutex<Option<Coordinator>>> = Arc::default();
    let mut b = Saga::builder::<u64>("busy");
    let input = b.input();
    let busy = b.add(
        step_with(
            "busy",
            Arc::clone(&slot),
            async |slot: &Arc<Mutex<Option<Coordinator>>>, cx: &StepContext, _depth: &u64| {
                busybody(slot, cx).await
            },
            async |slot: &Arc<Mutex<Option<Coordinator>>>,
                   cx: &StepContext,
                   _depth: &u64,
                   _effect| { busybody(slot, cx).await },
        ),
        input,
    );
    let panics = b.add(
        step_fn(
            "panics",
            async |_cx, depth: &u64| -> Result<(), StepError> { panic!("at {depth}") },
            async |_cx, _depth: &u64, _effect| Ok(()),
        )
        .after(busy),
        input,
    );
    let saga = b.returns(panics).unwrap();
    let coordinator = Coordinator::builder_shared(store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    *slot.lock().unwrap() = Some(coordinator.clone());
    for number in 0..10 {
        let run = coordinator
            .start(&saga, format!("run {number}"), number)
            .await
            .unwrap();
        let outcome = run.outcome().await.unwrap();
        assert_eq!(outcome.word(), "compensated");
        let partial = outcome.partial();
        let failure = partial.step("panics").unwrap().failure.clone().unwrap();
        assert_eq!(failure.mode, FailureMode::StepLogic);
        assert_eq!(failure.message, format!("it panicked: at {number}"));
        assert!(!failure.retryable);
        assert!(
            partial
                .compensations
                .iter()
                .all(|undone| undone.failure.is_none())
        );
        assert_eq!(partial.compensations.len(), 2);
    }
    slot.lock().unwrap().take();
    coordinator.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn promise_10_no_lock_is_held_while_user_code_runs_and_a_panic_is_a_failure() {
    no_lock_is_held(Arc::new(MemoryStore::new())).await;
    no_lock_is_held(TestStore::new()).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn promise_10_no_transaction_is_open_while_user_code_runs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("runs.db");
    let store = amends::store::SqliteStore::open(&path).unwrap();
    no_lock_is_held(Arc::new(store)).await;

    // Somebody else may write while a step runs.
    let store = amends::store::SqliteStore::open(&path).unwrap();
    let mut b = Saga::builder::<()>("writes");
    let writes = b.add(
        step_with(
            "writes",
            path.clone(),
            async |path: &std::path::PathBuf, _cx: &StepContext, (): &()| {
                let other = rusqlite::Connection::open(path).unwrap();
                other.busy_timeout(MS(0)).unwrap();
                other.execute_batch("BEGIN IMMEDIATE; ROLLBACK;").unwrap();
                Ok(())
            },
            async |_path: &std::path::PathBuf, _cx, (): &(), _effect| Ok(()),
        )
        .retry(Retry::none()),
        (),
    );
    let saga = b.returns(writes).unwrap();
    let coordinator = Coordinator::builder(store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "writes", ()).await.unwrap();
    assert_eq!(run.outcome().await.unwrap().word(), "completed");
    coordinator.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn promise_7_a_stop_settles_doubts_before_it_ends() {
    let world = World::new();
    let store = TestStore::new();
    let saga = chain(&world);
    world.on("do b", [Act::Stop]);
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    let Outcome::Stopped(partial) = run.outcome().await.unwrap() else {
        panic!("not stopped")
    };
    assert_eq!(partial.stopped.as_deref(), Some("enough"));
    assert_eq!(standing(&partial), ["a done"]);
    assert_eq!(world.began(), ["do a", "do b"]);
    assert_eq!(records(&*store, "r").await.len(), 3);
}
