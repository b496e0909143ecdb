//! Rules F1 to F5: starting, stopping, crashing.

// The helpers of this file aren't test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::time::Duration;

use amends::failure::FailedEffect;
use amends::journal::{CancelTold, ParkReason};
use amends::*;
use common::*;
use futures_util::FutureExt;

fn park() -> RecoveryPolicy {
    RecoveryPolicy::new("park", RecoveryStrategy::Manual)
}

/// `a` and `b` side by side.
fn side_by_side(world: &World) -> Saga<u64, (u64, u64)> {
    let mut saga = Saga::builder::<u64>("sides");
    let n = saga.input();
    let a = saga.add(world.step("a"), n);
    let b = saga.add(world.step("b"), n);
    saga.returns((a, b)).unwrap()
}

fn chain(world: &World, names: &[&str]) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("chain");
    let mut last = saga.input();
    for name in names {
        last = saga.add(world.step(name), last);
    }
    saga.returns(last).unwrap()
}

/// The uncancelled part of a story, in one line per record.
fn records(world: &World) -> Vec<String> {
    let records = world.records().into_iter();
    records.map(|events| events.join(", ")).collect()
}

#[test]
fn f1_without_limits_n_steps_cost_n_plus_one_writes() {
    let names = ["a", "b", "c", "d"];
    for steps in 0..=names.len() {
        let world = World::new();
        let saga = chain(&world, &names[..steps]);
        assert_eq!(world.run_to_rest(&saga, 1).word(), "completed");
        assert_eq!(world.records().len(), steps + 1);
    }
    let world = World::new();
    let saga = chain(&world, &names[..2]);
    world.run_to_rest(&saga, 1);
    assert_eq!(
        records(&world),
        [
            "run started, start a 1",
            "done a, start b 1",
            "done b, ended completed"
        ]
    );
}

#[test]
fn f1_a_start_is_appended_only_with_its_permits_in_hand() {
    let world = World::new();
    let saga = side_by_side(&world);
    world.plan("do a", [Act::Done(1).after(SECOND)]);
    world.life_with(
        |builder| builder.register(&saga).max_attempts(1),
        async |coordinator| {
            let run = coordinator.start(&saga, "r", 1).await.unwrap();
            assert_eq!(records(&world), ["run started, start a 1"]);
            assert_eq!(run.outcome().await.unwrap().word(), "completed");
        },
    );
    assert_eq!(world.log(), ["do a", "woke a", "do b"]);
    // The permit that `a` gave back is in hand when its result is appended.
    assert_eq!(
        records(&world),
        [
            "run started, start a 1",
            "done a, start b 1",
            "done b, ended completed"
        ]
    );
}

#[test]
fn f1_where_a_limit_bites_the_result_is_appended_alone() {
    let world = World::new();
    let saga = chain(&world, &["a", "b"]);
    let mut other = Saga::builder::<u64>("other");
    let n = other.input();
    let x = other.add(world.step("x"), n);
    let other = other.returns(x).unwrap();
    world.plan("do a", [Act::Done(1).after(SECOND)]);
    world.plan("do x", [Act::Done(1).after(SECOND)]);
    world.life_with(
        |builder| builder.register(&saga).register(&other).max_attempts(1),
        async |coordinator| {
            let run = coordinator.start(&saga, "r", 1).await.unwrap();
            let first_in_line = coordinator.start(&other, "other", 1).await.unwrap();
            assert_eq!(run.outcome().await.unwrap().word(), "completed");
            let waited = first_in_line.outcome().await.unwrap();
            assert_eq!(waited.word(), "completed");
        },
    );
    assert_eq!(world.log(), ["do a", "woke a", "do x", "woke x", "do b"]);
    assert_eq!(
        records(&world),
        [
            "run started, start a 1",
            "done a",
            "start b 1",
            "done b, ended completed"
        ]
    );
}

#[test]
fn f1_a_start_waits_for_its_steps_own_permit() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("one at a time");
    let n = saga.input();
    let a = saga.add(world.step("a").max_in_flight(1), n);
    let saga = saga.returns(a).unwrap();
    world.plan("do a", [Act::Done(1).after(SECOND)]);
    world.life(&saga, async |coordinator| {
        let first = coordinator.start(&saga, "first", 1).await.unwrap();
        let second = coordinator.start(&saga, "r", 1).await.unwrap();
        // The second run exists, and nothing says that its step has started.
        assert_eq!(records(&world), ["run started"]);
        assert_eq!(first.outcome().await.unwrap().word(), "completed");
        assert_eq!(second.outcome().await.unwrap().word(), "completed");
    });
    assert_eq!(world.log(), ["do a", "woke a", "do a"]);
    assert_eq!(
        records(&world),
        ["run started", "start a 1", "done a, ended completed"]
    );
}

#[test]
fn f1_a_start_beyond_the_limit_on_runs_writes_nothing_until_its_turn() {
    let world = World::new();
    let saga = chain(&world, &["a"]);
    world.plan("do a", [Act::Done(1).after(SECOND)]);
    world.life_with(
        |builder| builder.register(&saga).max_runs(1),
        async |coordinator| {
            let first = coordinator.start(&saga, "first", 1).await.unwrap();
            let second = coordinator.start(&saga, "r", 1);
            tokio::pin!(second);
            let early = tokio::time::timeout(SECOND / 2, second.as_mut()).await;
            assert!(early.is_err());
            assert_eq!(world.store.len(), 1);
            let second = second.await.unwrap();
            assert_eq!(world.now(), SECOND);
            assert_eq!(first.outcome().await.unwrap().word(), "completed");
            assert_eq!(second.outcome().await.unwrap().word(), "completed");
        },
    );
}

#[test]
fn f1_a_cancel_before_the_first_poll_appends_not_started() {
    let world = World::new();
    let saga = chain(&world, &["a"]);
    world.appends_take(SECOND);
    world.life(&saga, async |coordinator| {
        let starting = coordinator.start(&saga, "r", 1);
        let cancelling = async {
            // The first append is under way: the step is announced and not yet called.
            tokio::time::sleep(SECOND / 2).await;
            coordinator.cancel(&"r".into(), "ann", "a slip").await
        };
        let (run, told) = tokio::join!(starting, cancelling);
        assert_eq!(told.unwrap(), CancelTold::Accepted);
        let outcome = run.unwrap().outcome().await.unwrap();
        assert_eq!(outcome.word(), "compensated");
        let partial = outcome.partial();
        assert_eq!(partial.step("a").unwrap().attempts, 0);
        assert_eq!(partial.step("a").unwrap().effect, EffectReport::NotDone);
    });
    assert_eq!(world.log(), [""; 0]);
    assert_eq!(
        world.story(),
        [
            "run started",
            "start a 1",
            "not started a",
            "cancel Accepted",
            "decided compensate",
            "ended compensated"
        ]
    );
}

#[test]
fn f1_a_shutdown_before_the_first_poll_appends_not_started() {
    let world = World::new();
    let saga = chain(&world, &["a"]);
    world.appends_take(SECOND);
    world.life(&saga, async |coordinator| {
        let starting = coordinator.start(&saga, "r", 1);
        let closing = async {
            tokio::time::sleep(SECOND / 2).await;
            coordinator.shutdown().await;
        };
        let (run, ()) = tokio::join!(starting, closing);
        drop(run);
    });
    assert_eq!(world.log(), [""; 0]);
    assert_eq!(world.story(), ["run started", "start a 1", "not started a"]);
    // What was not called is not in doubt, and its attempt is not counted.
    world.appends_take(Duration::ZERO);
    assert_eq!(world.recover(&saga).completed(), Some(1));
    assert_eq!(world.calls_of("do a")[0].attempt, 1);
}

#[test]
fn f2_an_attempt_has_thirty_seconds_unless_it_is_told_otherwise() {
    let timed_out_after = |settings: fn(StepSpec<u64, u64>) -> StepSpec<u64, u64>| {
        let world = World::new();
        let mut saga = Saga::builder::<u64>("slow").policy(park());
        let n = saga.input();
        let a = saga.add(settings(world.step("a").retry(Retry::none())), n);
        let saga = saga.returns(a).unwrap();
        world.plan("do a", [Act::Hangs]);
        let partial = world.run_to_rest(&saga, 1).partial();
        assert_eq!(world.log(), ["do a", "dropped a"]);
        let failure = partial.step("a").unwrap().failure.clone().unwrap();
        assert_eq!(failure.mode, FailureMode::StepTimeout);
        assert_eq!(failure.effect, FailedEffect::InDoubt);
        world.now()
    };
    assert_eq!(timed_out_after(|step| step), 30 * SECOND);
    assert_eq!(timed_out_after(|step| step.timeout(5 * SECOND)), 5 * SECOND);
    // An undo's time-out is its own.
    let of_the_undo = |step: StepSpec<u64, u64>| step.compensation_timeout(5 * SECOND);
    assert_eq!(timed_out_after(of_the_undo), 30 * SECOND);
}

#[test]
fn f2_a_time_out_acts_at_await_points_only() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("busy");
    let n = saga.input();
    let busy = step_fn(
        "busy",
        // The clock moves on while it runs, but it never gives way, so nothing can act on it.
        async |_cx, n: &u64| {
            let _ = tokio::time::advance(10 * SECOND).now_or_never();
            Ok(*n)
        },
        async |_cx, _n, _effect| Ok(()),
    );
    let busy = saga.add(busy.timeout(5 * SECOND), n);
    let saga = saga.returns(busy).unwrap();
    assert_eq!(world.run_to_rest(&saga, 7).completed(), Some(7));
    assert_eq!(world.now(), 10 * SECOND);
}

/// `fails` after one second; `slow` beside it does as planned; what comes after `slow` never starts.
fn stopped(world: &World, siblings: Siblings) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("stopped")
        .policy(park())
        .siblings(siblings);
    let n = saga.input();
    saga.add(world.step("fails"), n);
    let slow = saga.add(world.step("slow"), n);
    let next = saga.add(world.step("next"), slow);
    world.plan("do fails", [Act::rejected().after(SECOND)]);
    saga.returns(next).unwrap()
}

#[test]
fn f2_a_stop_has_a_grace_period_and_then_the_future_is_dropped_and_in_doubt() {
    let world = World::new();
    let grace = 3 * SECOND;
    let saga = stopped(&world, Siblings::Stop { grace });
    world.plan("do slow", [Act::Done(1).after(20 * SECOND)]);
    let partial = world.run_to_rest(&saga, 1).partial();
    assert_eq!(
        world.log(),
        ["do fails", "do slow", "woke fails", "dropped slow"]
    );
    assert_eq!(world.now(), SECOND + grace);
    let slow = partial.step("slow").unwrap();
    assert_eq!(slow.effect, EffectReport::InDoubt);
    assert_eq!(partial.step("next").unwrap().status, StepStatus::Pending);
}

#[test]
fn f2_an_attempt_that_ends_within_the_grace_period_is_what_it_says() {
    let world = World::new();
    let grace = 3 * SECOND;
    let saga = stopped(&world, Siblings::Stop { grace });
    let told = Act::Fails(StepError::not_done("I was told to stop"));
    world.plan("do slow", [Act::WhenTold(Box::new(told.after(SECOND)))]);
    let partial = world.run_to_rest(&saga, 1).partial();
    assert_eq!(
        world.log(),
        ["do fails", "do slow", "woke fails", "woke slow"]
    );
    assert_eq!(world.now(), 2 * SECOND);
    let slow = partial.step("slow").unwrap();
    assert_eq!(slow.effect, EffectReport::NotDone);
}

#[test]
fn f2_without_a_stop_the_time_out_is_all_that_ends_an_attempt() {
    let world = World::new();
    let saga = stopped(&world, Siblings::Await);
    world.plan("do slow", [Act::Done(1).after(20 * SECOND)]);
    let partial = world.run_to_rest(&saga, 1).partial();
    assert_eq!(
        world.log(),
        ["do fails", "do slow", "woke fails", "woke slow"]
    );
    assert_eq!(world.now(), 20 * SECOND);
    assert_eq!(partial.step("slow").unwrap().effect, EffectReport::Done);
    assert_eq!(partial.step("next").unwrap().status, StepStatus::Pending);
}

#[test]
fn f2_the_documents_say_what_a_time_out_cannot_reach() {
    let docs = include_str!("../src/saga/part.rs").replace("\n    /// ", " ");
    assert!(
        docs.contains(
            "Acts at await points only: a call that blocks its thread is not interrupted."
        )
    );
    let docs = include_str!("../src/step/mod.rs").replace("\n/// ", " ");
    assert!(docs.contains("Work that `execute` has spawned elsewhere is not stopped with it: that is the step's own affair."));
}

#[test]
fn f3_a_crash_is_no_failure_and_is_not_charged_to_max_attempts() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("alone");
    let n = saga.input();
    let a = saga.add(world.step("a").retry(calls(2)), n);
    let saga = saga.returns(a).unwrap();
    world.plan(
        "do a",
        [Act::Hangs, Act::not_done(), Act::Hangs, Act::not_done()],
    );
    world.crash_at(&saga, 1, "do a");
    world.resume_and_crash(&saga, 3);
    let outcome = world.recover(&saga);
    // Two calls that failed, and two that were cut off: both retries are used up only now.
    let story = world.story();
    assert_eq!(
        story[..9],
        [
            "run started",
            "start a 1",
            "claimed 2",
            "start a 1",
            "failed a, again",
            "start a 1",
            "claimed 3",
            "start a 1",
            "failed a"
        ]
    );
    assert_eq!(story[9], "decided retry_failed");
    let partial = outcome.partial();
    assert_eq!(outcome.completed(), Some(5));
    let a = partial.step("a").unwrap();
    assert_eq!(a.attempts, 5);
    let history: Vec<_> = a
        .history
        .iter()
        .map(|taken| (taken.attempt, taken.failure.is_some()))
        .collect();
    assert_eq!(history, [(1, false), (2, true), (3, false), (4, true)]);
}

#[test]
fn f3_what_a_crash_cut_off_goes_on_with_the_probe_and_then_by_executing_again() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("probed");
    let n = saga.input();
    let a = saga.add(world.step("a").probe(world.probe()), n);
    let saga = saga.returns(a).unwrap();
    world.plan("do a", [Act::Hangs]);
    world.crash_at(&saga, 1, "do a");
    assert_eq!(world.recover(&saga).completed(), Some(2));
    assert_eq!(world.log(), ["do a", "probe a", "do a"]);
    let calls = world.calls_of("do a");
    assert_eq!(calls[0].key, calls[1].key);
    assert_eq!((calls[0].fence, calls[1].fence), (1, 2));
}

#[test]
fn f3_three_interruptions_in_a_row_park_the_run() {
    let world = World::new();
    let saga = chain(&world, &["a", "b"]);
    world.plan("do b", [Act::Hangs, Act::Hangs, Act::Hangs]);
    world.crash_at(&saga, 1, "do b");
    world.resume_and_crash(&saga, 3);
    world.resume_and_crash(&saga, 4);
    let partial = world.recover(&saga).partial();
    assert_eq!(world.log(), ["do a", "do b", "do b", "do b"]);
    let parked = partial.parked.unwrap();
    assert_eq!(parked.reason, ParkReason::Interrupted);
    assert_eq!(
        parked.message,
        "step `b` was interrupted 3 times in a row without progress: it may be what brings the process down"
    );
    assert_eq!(partial.outstanding.len(), 2);
    // An operator's retry gives it three more.
    world.life(&saga, async |coordinator| {
        let (run, go_on) = ("r".into(), RecoveryStrategy::RetryFailed);
        let retried = coordinator.retry(&run, go_on, "ann", "more memory");
        retried.await.unwrap();
        let run = coordinator.attach(&saga, &run).await.unwrap();
        let outcome = run.unwrap().ended().await.unwrap();
        assert_eq!(outcome.completed(), Some(4));
    });
}

#[test]
fn f3_progress_between_interruptions_resets_their_count() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("alone");
    let n = saga.input();
    let a = saga.add(world.step("a").retry(calls(3)), n);
    let saga = saga.returns(a).unwrap();
    // A failure in between is progress: the process survived the call.
    world.plan(
        "do a",
        [
            Act::Hangs,
            Act::Hangs,
            Act::not_done(),
            Act::Hangs,
            Act::Hangs,
        ],
    );
    world.crash_at(&saga, 1, "do a");
    world.resume_and_crash(&saga, 2);
    world.resume_and_crash(&saga, 4);
    world.resume_and_crash(&saga, 5);
    assert_eq!(world.recover(&saga).completed(), Some(6));
}

#[test]
fn f3_an_undo_that_is_interrupted_three_times_parks_the_run_too() {
    let world = World::new();
    let saga = chain(&world, &["a", "b"]);
    world.plan("do b", [Act::rejected()]);
    world.plan("undo a", [Act::Hangs, Act::Hangs, Act::Hangs]);
    world.crash_at(&saga, 1, "undo a (done 1)");
    world.resume_and_crash(&saga, 4);
    world.resume_and_crash(&saga, 5);
    let partial = world.recover(&saga).partial();
    assert_eq!(partial.parked.unwrap().reason, ParkReason::Interrupted);
    assert_eq!(world.log().len(), 5);
}

#[test]
fn f4_a_panic_is_of_mode_step_logic_and_in_doubt() {
    let world = World::new();
    let saga = chain(&world, &["a", "b"]);
    world.plan("do b", [Act::Panics]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "compensated");
    // In doubt, so it is undone; not retryable, so it was called once.
    assert_eq!(
        world.log(),
        ["do a", "do b", "undo b (in doubt)", "undo a (done 1)"]
    );
    let partial = outcome.partial();
    assert_eq!(partial.failure_mode, Some(FailureMode::StepLogic));
    let failure = partial.step("b").unwrap().failure.clone().unwrap();
    assert_eq!(failure.mode, FailureMode::StepLogic);
    assert_eq!(failure.effect, FailedEffect::InDoubt);
    assert_eq!(failure.message, "it panicked: as planned");
}

#[test]
fn f4_a_panic_of_an_atomic_step_is_in_doubt_too() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("atomic").policy(park());
    let n = saga.input();
    let a = saga.add(world.step("a").atomic(), n);
    let saga = saga.returns(a).unwrap();
    world.plan("do a", [Act::Panics]);
    let partial = world.run_to_rest(&saga, 1).partial();
    assert_eq!(partial.outstanding[0].effect, EffectReport::InDoubt);
}

/// `first`; then `stops` after one second and `slow` beside it; then `next` after both.
fn stopping(world: &World, on_stop: OnStop) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("stopping").on_stop(on_stop);
    let n = saga.input();
    let first = saga.add(world.step("first"), n);
    let stops = saga.add(world.step("stops"), first);
    let slow = saga.add(world.step("slow"), first);
    let next = saga.add(world.step::<(u64, u64)>("next"), (stops, slow));
    let enough = Act::Fails(StepError::stop("enough"));
    world.plan("do stops", [enough.after(SECOND)]);
    saga.returns(next).unwrap()
}

#[test]
fn f5_a_stop_starts_nothing_awaits_what_is_in_flight_and_keeps_what_is_done() {
    let world = World::new();
    let saga = stopping(&world, OnStop::Keep);
    world.plan("do slow", [Act::Done(9).after(5 * SECOND)]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "stopped");
    assert_eq!(world.now(), 5 * SECOND);
    assert_eq!(
        world.log(),
        ["do first", "do stops", "do slow", "woke stops", "woke slow"]
    );
    let partial = outcome.partial();
    assert_eq!(partial.stopped.as_deref(), Some("enough"));
    let stood: Vec<_> = partial
        .steps
        .iter()
        .map(|step| (&*step.name, step.status))
        .collect();
    assert_eq!(
        stood,
        [
            ("first", StepStatus::Done),
            ("stops", StepStatus::Stopped),
            ("slow", StepStatus::Done),
            ("next", StepStatus::Pending)
        ]
    );
    assert_eq!(
        world.story()[5..],
        [
            "stopped stops",
            "done slow",
            "decided to stop",
            "ended stopped"
        ]
    );
}

#[test]
fn f5_a_stop_settles_doubts_before_it_ends_the_run() {
    let world = World::new();
    let saga = stopping(&world, OnStop::Keep);
    world.plan("do slow", [Act::in_doubt().after(5 * SECOND)]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "stopped");
    assert_eq!(
        world.log(),
        [
            "do first",
            "do stops",
            "do slow",
            "woke stops",
            "woke slow",
            "undo slow (in doubt)"
        ]
    );
    assert_eq!(
        world.story()[5..],
        [
            "stopped stops",
            "failed slow, again",
            "decided to stop",
            "undo slow 1",
            "undone slow",
            "ended stopped"
        ]
    );
}

#[test]
fn f5_the_step_that_stops_has_its_own_earlier_doubt_settled() {
    let world = World::new();
    let saga = chain(&world, &["a", "b"]);
    let stop = Act::Fails(StepError::stop("enough"));
    world.plan("do b", [Act::in_doubt(), stop]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "stopped");
    assert_eq!(world.log(), ["do a", "do b", "do b", "undo b (in doubt)"]);
}

#[test]
fn f5_a_stop_unwinds_where_the_saga_says_so() {
    let world = World::new();
    let saga = stopping(&world, OnStop::Compensate);
    world.plan("do slow", [Act::Done(9).after(5 * SECOND)]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "compensated");
    assert_eq!(
        world.log()[5..],
        ["undo slow (done 9)", "undo first (done 1)"]
    );
    assert_eq!(outcome.partial().stopped.as_deref(), Some("enough"));
}

#[test]
fn f5_a_stop_that_a_crash_follows_still_stops() {
    let world = World::new();
    let saga = stopping(&world, OnStop::Keep);
    world.plan("do slow", [Act::Hangs]);
    world.crash_at(&saga, 1, "woke stops");
    let outcome = world.recover(&saga);
    assert_eq!(outcome.word(), "stopped");
    assert_eq!(world.log()[4..], ["undo slow (in doubt)"]);
}
