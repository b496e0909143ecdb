//! Rules U1 to U4 of the rules of a run: undoing.
// Helpers of tests may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "common/undo.rs"]
mod undo;

use std::sync::Arc;
use std::time::Duration;

use amends::journal::{CancelTold, ParkReason};
use amends::machine::Refused;
use amends::store::MemoryStore;
use amends::{
    CommandError, Effect, FailureMode, Outcome, PartialResult, RecoveryPolicy, RecoveryStrategy,
    Retry, RunId, Saga, SomeNode, StepContext, StepError, UndoOrder, step_fn,
};
use undo::{Act, Answer, TestStore, World, after_all, events, life, records, standing};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// Runs a saga to its rest in a coordinator of its own.
async fn run<O: amends::Payload>(world: &Arc<World>, saga: &Saga<(), O>) -> Outcome<O> {
    let store = Arc::new(MemoryStore::new());
    let coordinator = world
        .coordinator(&store)
        .register(saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(saga, "r", ()).await.unwrap();
    run.outcome().await.unwrap()
}

fn compensated<O: std::fmt::Debug>(outcome: Outcome<O>) -> PartialResult {
    match outcome {
        Outcome::Compensated(partial) => partial,
        other => panic!("{other:?}"),
    }
}

fn parked<O: std::fmt::Debug>(outcome: Outcome<O>) -> PartialResult {
    match outcome {
        Outcome::Parked(partial) => partial,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn u1_undo_order_is_the_reverse_of_the_dependency_order() {
    let world = World::new();
    let mut b = Saga::builder::<()>("diamond");
    let top = b.add(world.step("top"), ());
    let left = b.add(world.step("left").after(top), ());
    let right = b.add(world.step("right").after(top), ());
    let bottom = b.add(world.step("bottom").after(left).after(right), ());
    let last = b.add(world.step("last").after(bottom), ());
    let saga = b.returns(last).unwrap();
    world.on("do last", [Act::Rejected]);
    world.on("undo left", [Act::Done.after(10)]);
    world.on("undo right", [Act::Done.after(20)]);

    let partial = compensated(run(&world, &saga).await);

    let trace = world.trace();
    let undoing = trace.iter().position(|line| line == "undo bottom").unwrap();
    // The two that don't depend on each other are undone side by side; what both came from, after both.
    assert_eq!(
        trace[undoing..],
        [
            "undo bottom",
            "undid bottom",
            "undo right",
            "undo left",
            "undid left",
            "undid right",
            "undo top",
            "undid top",
        ]
    );
    let undone: Vec<&str> = partial
        .compensations
        .iter()
        .map(|undone| undone.step.as_str())
        .collect();
    assert_eq!(undone, ["bottom", "left", "right", "top"]);
    assert_eq!(standing(&partial), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn u1_undo_order_is_transitive_through_read_only_steps_and_steps_without_an_effect() {
    let world = World::new();
    let mut b = Saga::builder::<()>("through");
    let first = b.add(world.step("first"), ());
    let look = b.add(world.read("look").after(first), ());
    let look_again = b.add(world.read("look-again").after(look), ());
    let second = b.add(world.step("second").after(look_again), ());
    // It did not happen, and stands between `third` and nothing.
    let third = b.add(world.step("third").after(second), ());
    let saga = b.returns(third).unwrap();
    world.on("do third", [Act::Rejected]);
    world.on("undo second", [Act::Done.after(50)]);

    compensated(run(&world, &saga).await);

    assert_eq!(
        world.trace(),
        [
            "do first",
            "did first",
            "do look",
            "did look",
            "do look-again",
            "did look-again",
            "do second",
            "did second",
            "do third",
            "did third",
            "undo second",
            "undid second",
            "undo first",
            "undid first",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn u1_undo_order_holds_through_a_step_whose_doubt_turns_out_to_be_nothing() {
    let world = World::new();
    let mut b = Saga::builder::<()>("never");
    let first = b.add(world.step("first"), ());
    let doubtful = b.add(
        world.probed("doubtful").after(first).retry(Retry::none()),
        (),
    );
    let saga = b
        .policy(RecoveryPolicy::new("undo", RecoveryStrategy::Compensate))
        .returns(doubtful)
        .unwrap();
    world.on("do doubtful", [Act::Strange]);
    // Unknown before the decision, and while it is undone the participant knows more.
    world.on("probe doubtful", [Act::Doubt.after(10)]);

    compensated(run(&world, &saga).await);

    assert_eq!(
        world.began(),
        [
            "do first",
            "do doubtful",
            "probe doubtful",
            "undo doubtful",
            "undo first",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn u1_independent_undos_go_one_by_one_in_reverse_order_of_completion_where_the_saga_says_so()
{
    let world = World::new();
    let mut b = Saga::builder::<()>("one-by-one").undo_order(UndoOrder::Sequential);
    let names = ["a", "b", "c", "d"];
    let nodes: Vec<SomeNode> = names
        .iter()
        .map(|name| b.add(world.step(name), ()).into())
        .collect();
    let last = b.add(after_all(world.step("last"), nodes), ());
    let saga = b.returns(last).unwrap();
    for (name, takes) in [("a", 30), ("b", 10), ("c", 40), ("d", 20)] {
        world.on(&format!("do {name}"), [Act::Done.after(takes)]);
        world.always(&format!("undo {name}"), Act::Done.after(100));
    }
    world.on("do last", [Act::Rejected]);
    // An undo that waits for its retry holds the others up: one by one.
    world.on("undo a", [Act::NotDone]);

    compensated(run(&world, &saga).await);

    let trace = world.trace();
    let undoing = trace.iter().position(|line| line == "undo c").unwrap();
    assert_eq!(
        trace[undoing..],
        [
            "undo c", "undid c", "undo a", "undid a", "undo a", "undid a", "undo d", "undid d",
            "undo b", "undid b",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn u1_one_by_one_never_undoes_a_step_before_what_depended_on_it() {
    let world = World::new();
    let mut b = Saga::builder::<()>("chains").undo_order(UndoOrder::Sequential);
    let a1 = b.add(world.step("a1"), ());
    let a2 = b.add(world.step("a2").after(a1), ());
    let b1 = b.add(world.step("b1"), ());
    let b2 = b.add(world.step("b2").after(b1), ());
    let last = b.add(world.step("last").after(a2).after(b2), ());
    let saga = b.returns(last).unwrap();
    for (name, takes) in [("a1", 10), ("b1", 20), ("a2", 30), ("b2", 5)] {
        world.on(&format!("do {name}"), [Act::Done.after(takes)]);
    }
    world.on("do last", [Act::Rejected]);

    compensated(run(&world, &saga).await);

    // Done at: a1 10, b1 20, b2 25, a2 40.
    assert_eq!(world.of_kind("undo"), ["a2", "b2", "b1", "a1"]);
}

#[tokio::test(start_paused = true)]
async fn u1_steps_of_later_rounds_are_undone_before_what_they_depend_on() {
    let world = World::new();
    let mut b = Saga::builder::<()>("rounds");
    let a = b.add(world.step("a").checkpoint(), ());
    let c = b.add(world.step("c").after(a), ());
    let d = b.add(world.step("d").after(c).retry(Retry::none()), ());
    let saga = b
        .policy(
            RecoveryPolicy::new("again", RecoveryStrategy::RetryFromCheckpoint).rule(
                amends::policy::Rule::new("enough", RecoveryStrategy::Compensate)
                    .when(amends::policy::Condition::RecoveriesAtLeast(2)),
            ),
        )
        .returns(d)
        .unwrap();
    world.always("do d", Act::NotDone);

    let partial = compensated(run(&world, &saga).await);

    assert_eq!(
        world.began(),
        [
            "do a", "do c", "do d", "undo c", "do c", "do d", "undo c", "do c", "do d", "undo c",
            "undo a"
        ]
    );
    let uid = world.calls()[0].key.split('/').next().unwrap().to_owned();
    let keys: Vec<String> = world
        .calls()
        .iter()
        .map(|call| {
            call.key
                .strip_prefix(&format!("{uid}/"))
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(
        keys,
        [
            "a/1", "c/1", "d/1", "c/1/undo", "c/2", "d/1", "c/2/undo", "c/3", "d/1", "c/3/undo",
            "a/1/undo"
        ]
    );
    let undone: Vec<(&str, u32)> = partial
        .compensations
        .iter()
        .map(|undone| (undone.step.as_str(), undone.round))
        .collect();
    assert_eq!(undone, [("c", 1), ("c", 2), ("c", 3), ("a", 1)]);
}

/// Two done steps and one that fails: `a` before `b` before `c`.
fn chain(world: &Arc<World>) -> Saga<(), String> {
    let mut b = Saga::builder::<()>("chain");
    let first = b.add(world.step("a"), ());
    let second = b.add(world.step("b").after(first), ());
    let third = b.add(world.step("c").after(second), ());
    b.returns(third).unwrap()
}

#[tokio::test(start_paused = true)]
async fn u2_the_decision_to_unwind_is_one_record_before_the_first_undo() {
    let world = World::new();
    let store = TestStore::new();
    let saga = chain(&world);
    world.on("do c", [Act::Rejected]);
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    compensated(run.outcome().await.unwrap());
    // The failure, the decision and the announcement of the first undo are one write.
    assert_eq!(
        records(&*store, "r").await,
        [
            vec!["run_started", "step_started a"],
            vec!["step_done a", "step_started b"],
            vec!["step_done b", "step_started c"],
            vec!["step_failed c", "decided compensate", "undo_started b"],
            vec!["undone b", "undo_started a"],
            vec!["undone a", "ended compensated"],
        ]
    );
}

#[test]
fn u2_once_the_decision_is_durable_no_crash_turns_the_run_forward() {
    // The process dies at every append after the decision, before or after it was written.
    for (last, dies) in [
        (4, Answer::WriteStuck),
        (5, Answer::Stuck),
        (5, Answer::WriteStuck),
        (6, Answer::Stuck),
        (6, Answer::WriteStuck),
    ] {
        let world = World::new();
        let store = TestStore::new();
        let saga = chain(&world);
        world.on("do c", [Act::Rejected]);
        store.judge(move |sent| {
            if sent.seq == last {
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
            let run = coordinator.start(&saga, "r", ()).await.unwrap();
            tokio::select! {
                () = store.stuck() => {}
                outcome = run.outcome() => panic!("{outcome:?}"),
            }
        });
        store.judge(|_| Answer::Write);
        let before = world.calls().len();
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
            let partial = compensated(run.outcome().await.unwrap());
            assert_eq!(standing(&partial), [""; 0]);
            assert_eq!(coordinator.driving(), 0);
        });
        let later = world.calls().split_off(before);
        assert!(
            later.iter().all(|call| call.what.starts_with("undo ")),
            "{last} {dies:?}: {later:?}"
        );
        let mut undone = world.of_kind("undo");
        undone.dedup();
        assert_eq!(undone, ["b", "a"], "{last} {dies:?}");
        let written = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(events(&*store, "r"));
        let count = |what: &str| written.iter().filter(|event| *event == what).count();
        assert_eq!(count("decided compensate"), 1);
        assert_eq!(count("undone b"), 1);
        assert_eq!(count("undone a"), 1);
        assert_eq!(written.last().unwrap(), "ended compensated");
    }
}

#[tokio::test(start_paused = true)]
async fn u2_only_retry_all_or_an_operator_go_forward_again_and_only_after_all_is_undone() {
    let world = World::new();
    let store = TestStore::new();
    let mut b = Saga::builder::<()>("chain");
    let first = b.add(world.step("a").compensation_retry(Retry::none()), ());
    let second = b.add(world.step("b").after(first), ());
    let third = b.add(world.step("c").after(second), ());
    let saga = b.returns(third).unwrap();
    world.on("do c", [Act::Rejected]);
    world.on("undo a", [Act::NotDone]);
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    let partial = parked(run.outcome().await.unwrap());
    assert_eq!(standing(&partial), ["a done"]);

    for forward in [
        RecoveryStrategy::RetryFailed,
        RecoveryStrategy::RetryFromCheckpoint,
    ] {
        let refused = coordinator.retry(run.id(), forward, "me", "try").await;
        assert!(
            matches!(
                refused,
                Err(CommandError::Refused {
                    why: Refused::Unavailable(_),
                    ..
                })
            ),
            "{refused:?}"
        );
    }
    assert_eq!(world.of_kind("do"), ["a", "b", "c"]);

    coordinator
        .retry(run.id(), RecoveryStrategy::RetryAll, "me", "it works now")
        .await
        .unwrap();
    let Outcome::Completed(done) = run.ended().await.unwrap() else {
        panic!("not completed")
    };
    // `a` is undone at last, and only then does anything start; `c` never happened, so it keeps its round.
    assert_eq!(
        world.began(),
        [
            "do a", "do b", "do c", "undo b", "undo a", "undo a", "do a", "do b", "do c"
        ]
    );
    let rounds: Vec<u32> = done.partial().steps.iter().map(|step| step.round).collect();
    assert_eq!(rounds, [2, 2, 1]);
}

#[tokio::test(start_paused = true)]
async fn u2_the_policys_retry_all_goes_forward_after_all_is_undone() {
    let world = World::new();
    let mut b = Saga::builder::<()>("all");
    let first = b.add(world.step("a"), ());
    let second = b.add(world.step("b").after(first).retry(Retry::none()), ());
    let saga = b
        .policy(RecoveryPolicy::new("all", RecoveryStrategy::RetryAll))
        .returns(second)
        .unwrap();
    world.on("do b", [Act::Doubt]);
    world.on("undo b", [Act::Done.after(500)]);
    let outcome = run(&world, &saga).await;
    assert_eq!(outcome.word(), "completed");
    assert_eq!(
        world.trace(),
        [
            "do a", "did a", "do b", "did b", "undo b", "undid b", "undo a", "undid a", "do a",
            "did a", "do b", "did b"
        ]
    );
    assert_eq!(world.calls_of("undo b")[0].effect, "in doubt");
    assert_eq!(world.calls_of("undo a")[0].effect, "a#1");
}

#[tokio::test(start_paused = true)]
async fn u3_an_undo_is_tried_ten_times_with_growing_waits_by_default() {
    let world = World::new();
    let saga = chain(&world);
    world.on("do c", [Act::Rejected]);
    world.always("undo b", Act::NotDone);

    let partial = parked(run(&world, &saga).await);

    let tries = world.calls_of("undo b");
    assert_eq!(tries.len(), 10);
    let attempts: Vec<u32> = tries.iter().map(|call| call.attempt).collect();
    assert_eq!(attempts, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    let mut full = 200;
    for pair in tries.windows(2) {
        let waited = pair[1].at - pair[0].at;
        assert!(
            (full / 2..=full).contains(&waited),
            "waited {waited} ms of {full} ms"
        );
        full = (full * 2).min(60_000);
    }
    assert_eq!(
        partial.parked.as_ref().unwrap().reason,
        ParkReason::CompensationFailed
    );
    assert_eq!(partial.compensations.len(), 1);
    assert_eq!(partial.compensations[0].attempts, 10);
}

#[tokio::test(start_paused = true)]
async fn u3_the_waits_of_an_undo_grow_to_a_minute() {
    let world = World::new();
    let mut b = Saga::builder::<()>("long");
    let first = b.add(
        world.step("a").compensation_retry(
            Retry::compensation()
                .max_attempts(14)
                .jitter(amends::policy::Jitter::None),
        ),
        (),
    );
    let last = b.add(world.step("last").after(first), ());
    let saga = b.returns(last).unwrap();
    world.on("do last", [Act::Rejected]);
    world.always("undo a", Act::NotDone);
    parked(run(&world, &saga).await);
    let tries = world.calls_of("undo a");
    let waits: Vec<u64> = tries
        .windows(2)
        .map(|pair| pair[1].at - pair[0].at)
        .collect();
    assert_eq!(
        waits,
        [
            200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 60_000, 60_000, 60_000,
            60_000
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn u3_an_undo_does_not_share_the_attempts_of_its_execute() {
    let world = World::new();
    let mut b = Saga::builder::<()>("budgets");
    let first = b.add(
        world
            .step("a")
            .retry(Retry::constant().max_attempts(3))
            .compensation_retry(Retry::constant().max_attempts(2)),
        (),
    );
    let last = b.add(world.step("last").after(first), ());
    let saga = b.returns(last).unwrap();
    world.on("do a", [Act::NotDone, Act::NotDone]);
    world.on("undo a", [Act::NotDone]);
    world.on("do last", [Act::Rejected]);
    compensated(run(&world, &saga).await);
    assert_eq!(world.count("do a"), 3);
    assert_eq!(world.count("undo a"), 2);
    let attempts: Vec<u32> = world
        .calls_of("undo a")
        .iter()
        .map(|call| call.attempt)
        .collect();
    assert_eq!(attempts, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn u3_an_undo_has_its_own_time_out() {
    let world = World::new();
    let mut b = Saga::builder::<()>("time-out");
    let first = b.add(
        world
            .step("a")
            .timeout(MS(100))
            .compensation_timeout(MS(2_000)),
        (),
    );
    let last = b.add(world.step("last").after(first), ());
    let saga = b.returns(last).unwrap();
    world.on("do last", [Act::Rejected]);
    // Longer than the time-out of the execute, and fine; before that, once too long.
    world.on("undo a", [Act::Hang, Act::Done.after(1_900)]);
    let partial = compensated(run(&world, &saga).await);
    let tries = world.calls_of("undo a");
    assert_eq!(tries.len(), 2);
    let pause = tries[1].at - tries[0].at - 2_000;
    assert!(
        (100..=200).contains(&pause),
        "the time-out is 2 s, and then the retry waits {pause} ms"
    );
    assert_eq!(partial.compensations[0].took_us, 1_900_000);
    let trace = world.trace();
    assert_eq!(trace[4..], ["undo a", "cut a", "undo a", "undid a"]);
}

#[tokio::test(start_paused = true)]
async fn u3_the_forward_deadline_does_not_touch_undos() {
    let world = World::new();
    let store = Arc::new(MemoryStore::new());
    let mut b = Saga::builder::<()>("deadline").deadline(MS(1_000));
    let first = b.add(world.step("a").compensation_timeout(MS(60_000)), ());
    let last = b.add(world.step("last").after(first), ());
    let saga = b.returns(last).unwrap();
    world.on("do last", [Act::Rejected.after(500)]);
    world.on(
        "undo a",
        [Act::NotDone.after(3_000), Act::Done.after(50_000)],
    );
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    let partial = compensated(run.outcome().await.unwrap());
    assert!(!partial.deadline_passed);
    assert!(world.millis() > 53_000);
    assert_eq!(
        events(&*store, "r").await,
        [
            "run_started",
            "step_started a",
            "step_done a",
            "step_started last",
            "step_failed last",
            "decided compensate",
            "undo_started a",
            "undo_failed a",
            "undo_started a",
            "undone a",
            "ended compensated",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn u3_an_undo_cannot_be_cancelled() {
    let world = World::new();
    let store = Arc::new(MemoryStore::new());
    let saga = {
        let mut b = Saga::builder::<()>("cancel");
        let first = b.add(world.step("a"), ());
        let second = b.add(
            step_fn(
                "b",
                async |_cx: &StepContext, (): &()| Ok(()),
                async |cx: &StepContext, (): &(), _effect: Effect<&()>| {
                    // Nobody tells it to stop, however long it looks.
                    tokio::select! {
                        () = cx.cancelled() => Err(StepError::not_done("told to stop")),
                        () = tokio::time::sleep(MS(20_000)) => Ok(()),
                    }
                },
            )
            .after(first),
            (),
        );
        let last = b.add(world.step("last").after(second), ());
        b.returns(last).unwrap()
    };
    world.on("do last", [Act::Rejected]);
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    tokio::time::sleep(MS(5_000)).await;
    for _ in 0..2 {
        let told = coordinator.cancel(run.id(), "me", "hurry").await.unwrap();
        assert_eq!(told, CancelTold::Accepted);
        tokio::time::sleep(MS(1_000)).await;
    }
    let partial = compensated(run.outcome().await.unwrap());
    assert_eq!(world.millis(), 20_000);
    assert_eq!(partial.cancel.as_ref().unwrap().told, CancelTold::Accepted);
    assert!(
        partial
            .compensations
            .iter()
            .all(|undone| undone.failure.is_none())
    );
    assert!(!world.calls_of("undo a")[0].told_to_stop);
    let written = events(&*store, "r").await;
    assert_eq!(
        written
            .iter()
            .filter(|event| event.starts_with("decided"))
            .count(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn u3_when_an_undo_fails_for_good_those_that_do_not_depend_on_it_go_on_then_the_run_parks() {
    for order in [UndoOrder::Parallel, UndoOrder::Sequential] {
        let world = World::new();
        let mut b = Saga::builder::<()>("stuck").undo_order(order);
        let before = b.add(world.step("before"), ());
        let bad = b.add(
            world
                .step("bad")
                .after(before)
                .compensation_retry(Retry::constant().max_attempts(2)),
            (),
        );
        let one = b.add(world.step("one"), ());
        let two = b.add(world.step("two").after(one), ());
        let last = b.add(world.step("last").after(bad).after(two), ());
        let saga = b.returns(last).unwrap();
        world.on("do bad", [Act::Done.after(100)]);
        world.on("do last", [Act::Rejected]);
        world.always("undo bad", Act::NotDone);
        world.on("undo two", [Act::Done.after(10_000)]);

        let partial = parked(run(&world, &saga).await);

        assert_eq!(world.count("undo bad"), 2, "{order:?}");
        assert_eq!(world.count("undo two"), 1, "{order:?}");
        assert_eq!(world.count("undo one"), 1, "{order:?}");
        // It waits for the undo of what depended on it, which never came.
        assert_eq!(world.count("undo before"), 0, "{order:?}");
        let parking = partial.parked.as_ref().unwrap();
        assert_eq!(parking.reason, ParkReason::CompensationFailed);
        assert_eq!(
            parking.message,
            "the undo failed for good of `bad` (not now)"
        );
        assert_eq!(standing(&partial), ["before done", "bad done"], "{order:?}");
        let key = partial.outstanding[1].key.as_ref().unwrap();
        assert_eq!(*key, world.calls_of("do bad")[0].key);
        let failed: Vec<&str> = partial
            .compensations
            .iter()
            .filter(|undone| undone.failure.is_some())
            .map(|undone| undone.step.as_str())
            .collect();
        assert_eq!(failed, ["bad"]);
    }
}

#[test]
fn u4_undos_that_were_interrupted_are_called_again_with_the_same_key() {
    let world = World::new();
    let store = TestStore::new();
    let mut b = Saga::builder::<()>("crash");
    // One attempt: interruptions are not charged to it.
    let first = b.add(world.step("a").compensation_retry(Retry::none()), ());
    let last = b.add(world.step("last").after(first), ());
    let saga = b.returns(last).unwrap();
    world.on("do last", [Act::Rejected]);
    world.on("undo a", [Act::Hang, Act::Hang]);
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
    life(&world, async || {
        let _coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        world.seen("undo a", 2).await;
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
        let partial = compensated(run.outcome().await.unwrap());
        assert_eq!(partial.compensations.len(), 1);
        assert_eq!(partial.compensations[0].attempts, 3);
    });
    assert_eq!(
        world.began(),
        ["do a", "do last", "undo a", "undo a", "undo a"]
    );
    let undos = world.calls_of("undo a");
    let done = &world.calls_of("do a")[0];
    for (undo, fence) in undos.iter().zip([1, 2, 3]) {
        assert_eq!(undo.key, format!("{}/undo", done.key));
        assert_eq!(undo.effect_key, done.key);
        assert_eq!(undo.effect, "a#1");
        assert_eq!(undo.round, 1);
        assert_eq!(undo.fence, fence);
        assert_eq!(u64::from(undo.attempt), fence);
    }
}

#[test]
fn u4_undos_side_by_side_that_were_interrupted_are_all_called_again_and_nothing_else() {
    let world = World::new();
    let store = TestStore::new();
    let mut b = Saga::builder::<()>("crash");
    let root = b.add(world.step("root"), ());
    let nodes: Vec<SomeNode> = ["a", "b", "c"]
        .iter()
        .map(|name| b.add(world.step(name).after(root), ()).into())
        .collect();
    let last = b.add(after_all(world.step("last"), nodes), ());
    let saga = b.returns(last).unwrap();
    world.on("do last", [Act::Rejected]);
    world.on("undo a", [Act::Hang]);
    world.on("undo c", [Act::Hang]);
    life(&world, async || {
        let coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        coordinator.start(&saga, "r", ()).await.unwrap();
        world.seen("undid b", 1).await;
        // Until the end of `b` is durable.
        tokio::time::sleep(MS(1)).await;
    });
    world.forget();
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
        compensated(run.outcome().await.unwrap());
    });
    assert_eq!(world.began(), ["undo a", "undo c", "undo root"]);
}

#[test]
fn an_undo_that_waits_for_its_retry_is_not_called_twice_after_an_operator_went_on() {
    // `slow` waits an hour for its retry while `crashing` brings the process down three times, so the
    // run is parked in between; the operator's `compensate` begins afresh.
    let world = World::new();
    let store = TestStore::new();
    let mut b = Saga::builder::<()>("stale");
    let slow = b.add(
        world
            .step("slow")
            .compensation_retry(Retry::constant().initial(MS(60_000))),
        (),
    );
    let crashing = b.add(world.step("crashing").compensation_timeout(MS(600_000)), ());
    let last = b.add(world.step("last").after(slow).after(crashing), ());
    let saga = b.returns(last).unwrap();
    world.on("do last", [Act::Rejected]);
    world.on("undo slow", [Act::NotDone]);
    world.on("undo crashing", [Act::Hang, Act::Hang, Act::Hang]);
    for crash in 1..=3 {
        life(&world, async || {
            let coordinator = world
                .coordinator(&store)
                .register(&saga)
                .build()
                .await
                .unwrap();
            coordinator.start(&saga, "r", ()).await.unwrap();
            world.seen("undo crashing", crash).await;
            tokio::time::sleep(MS(10)).await;
        });
    }
    // It goes on long enough for the old timer to ring.
    world.on("undo crashing", [Act::Done.after(300_000)]);
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
        assert_eq!(partial.parked.unwrap().reason, ParkReason::Interrupted);
        coordinator
            .retry(
                &RunId::new("r"),
                RecoveryStrategy::Compensate,
                "me",
                "go on",
            )
            .await
            .unwrap();
        compensated(run.ended().await.unwrap());
    });
    assert_eq!(world.count("undo slow"), 2);
    assert_eq!(world.count("undo crashing"), 4);
    let rounds: Vec<u32> = world.calls().iter().map(|call| call.round).collect();
    assert!(rounds.iter().all(|&round| round == 1), "{rounds:?}");
}

#[tokio::test(start_paused = true)]
async fn the_failure_of_an_undo_is_told_with_its_mode_and_message() {
    let world = World::new();
    let mut b = Saga::builder::<()>("words");
    let first = b.add(world.step("a").compensation_retry(Retry::none()), ());
    let last = b.add(world.step("last").after(first), ());
    let saga = b.returns(last).unwrap();
    world.on("do last", [Act::Rejected]);
    world.always("undo a", Act::Doubt);
    let partial = parked(run(&world, &saga).await);
    let failure = partial.compensations[0].failure.as_ref().unwrap();
    assert_eq!(failure.mode, FailureMode::SystemNetwork);
    assert_eq!(failure.message, "the answer was lost");
    assert_eq!(
        (failure.step.as_str(), failure.round, failure.attempt),
        ("a", 1, 1)
    );
    assert_eq!(partial.failing_step.as_deref(), Some("last"));
    assert_eq!(
        partial.hint(),
        "parked: the undo failed for good of `a` (the answer was lost); standing: a. It takes: retry, \
         compensate, cancel, mark-compensated, abandon"
    );
}

#[tokio::test(start_paused = true)]
async fn u3_an_undo_that_fails_with_an_error_that_nobody_knows_is_called_again() {
    let calls = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let mut b = amends::Saga::builder::<()>("patient");
    let first = b.add(
        amends::step_with(
            "first",
            Arc::clone(&calls),
            async |_, _cx, _n: &()| Ok(()),
            async |calls: &Arc<std::sync::atomic::AtomicU32>, _cx, _n, _effect| {
                let call = calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                if call < 3 {
                    "not a number".parse::<u32>()?;
                }
                Ok(())
            },
        ),
        (),
    );
    let second = amends::step_fn(
        "second",
        async |_cx, _n: &()| -> Result<(), amends::StepError> {
            Err(amends::StepError::rejected("no"))
        },
        async |_cx, _n, _effect| Ok(()),
    );
    let second = b.add(second.after(first), ());
    let saga = b.returns(second).unwrap();
    let coordinator = amends::Coordinator::builder(amends::store::MemoryStore::new())
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    assert_eq!(run.outcome().await.unwrap().word(), "compensated");
    assert_eq!(calls.load(std::sync::atomic::Ordering::SeqCst), 4);
}
