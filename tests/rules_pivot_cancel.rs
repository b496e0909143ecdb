//! Rules P1, P2 and C1 of the rules of a run: the pivot, and cancelling.
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
    CommandError, Coordinator, FailureMode, Fault, Outcome, PartialResult, RecoveryPolicy,
    RecoveryStrategy, Resolution, Retry, RunHandle, RunId, Saga, SagaBuilder, SagaError, Siblings,
    UndoRule, irreversible, step,
};
use undo::{Act, TestStore, World, events, life, standing};

const MS: fn(u64) -> Duration = Duration::from_millis;

async fn start<O: amends::Payload>(
    world: &Arc<World>,
    store: &Arc<MemoryStore>,
    saga: &Saga<(), O>,
) -> (Coordinator, RunHandle<O>) {
    let coordinator = world
        .coordinator(store)
        .register(saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(saga, "r", ()).await.unwrap();
    (coordinator, run)
}

async fn run<O: amends::Payload>(world: &Arc<World>, saga: &Saga<(), O>) -> Outcome<O> {
    let (_coordinator, run) = start(world, &Arc::default(), saga).await;
    run.outcome().await.unwrap()
}

async fn cancel(coordinator: &Coordinator) -> CancelTold {
    coordinator
        .cancel(&RunId::new("r"), "me", "changed my mind")
        .await
        .unwrap()
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

fn completed<O: std::fmt::Debug>(outcome: &Outcome<O>) -> PartialResult {
    match outcome {
        Outcome::Completed(done) => done.partial(),
        other => panic!("{other:?}"),
    }
}

fn faults<O>(built: Result<Saga<(), O>, SagaError>) -> Vec<String> {
    match built {
        Ok(_) => Vec::new(),
        Err(error) => error.faults().iter().map(Fault::to_string).collect(),
    }
}

fn builder() -> SagaBuilder<()> {
    Saga::builder::<()>("pivot")
}

#[tokio::test(start_paused = true)]
async fn p1_a_saga_has_one_pivot_at_most() {
    let world = World::new();
    let mut b = builder();
    let one = b.add(world.step("one").pivot(), ());
    let two = b.add(world.step("two").after(one).pivot(), ());
    assert_eq!(
        faults(b.returns(two)),
        [
            "2 steps are marked as the pivot (`one`, `two`): a saga has one point of no return at most"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn p1_every_other_step_comes_before_the_pivot_or_after_it_or_is_read_only() {
    let world = World::new();
    let mut b = builder();
    let before = b.add(world.step("before"), ());
    let beside = b.add(world.step("beside").after(before), ());
    let pivot = b.add(world.step("pivot").after(before).pivot(), ());
    let looks = b.add(world.read("looks"), ());
    let after = b.add(world.step("after").after(pivot).after(looks), ());
    // Something that joins both is after the pivot; what it joins is still beside.
    let joins = b.add(world.step("joins").after(beside).after(after), ());
    assert_eq!(
        faults(b.returns(joins)),
        [
            "`beside` neither comes before the pivot `pivot` nor after it: order them by data or with `.after(..)`"
        ]
    );

    // Ancestors and descendants through read-only steps count, and so does order without data.
    let mut b = builder();
    let before = b.add(world.step("before"), ());
    let looks = b.add(world.read("looks").after(before), ());
    let pivot = b.add(world.step("pivot").after(looks).pivot(), ());
    let looks_again = b.add(world.read("looks-again").after(pivot), ());
    let after = b.add(world.step("after").after(looks_again), ());
    assert_eq!(faults(b.returns(after)), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn p1_an_irreversible_action_is_the_pivot_or_comes_after_it() {
    let world = World::new();
    let mut b = builder();
    let burn = b.add(irreversible("burn", world.action()), ());
    assert_eq!(
        faults(b.returns(burn)),
        [
            "`burn` is irreversible, and this saga has no pivot: mark it `.pivot()`, or let it come `.after(..)` the pivot"
        ]
    );

    let mut b = builder();
    let burn = b.add(irreversible("burn", world.action()), ());
    let beside = b.add(irreversible("beside", world.action()), ());
    let pivot = b.add(world.step("pivot").after(burn).pivot(), ());
    assert_eq!(
        faults(b.returns((pivot, beside))),
        [
            "`burn` is irreversible, and comes before the pivot `pivot`: mark it `.pivot()`, or let it come `.after(..)` the pivot",
            "`beside` is irreversible, and is not ordered after the pivot `pivot`: mark it `.pivot()`, or let it come `.after(..)` the pivot",
        ]
    );

    let mut b = builder();
    let pivot = b.add(irreversible("pivot", world.action()).pivot(), ());
    let burn = b.add(irreversible("burn", world.action()).after(pivot), ());
    assert_eq!(faults(b.returns(burn)), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn p1_a_read_only_step_is_no_pivot() {
    let world = World::new();
    let mut b = builder();
    let looks = b.add(world.read("looks").pivot(), ());
    assert_eq!(
        faults(b.returns(looks)),
        ["`looks` is read-only and can't be the pivot: it changes nothing"]
    );
}

/// `before`, then the pivot, then `after`; what fails is decided by the default policy without recoveries.
fn around_a_pivot(world: &Arc<World>, retry: Retry) -> Saga<(), String> {
    let mut b = builder().policy(RecoveryPolicy::saga().max_recoveries(0));
    let before = b.add(world.step("before"), ());
    let pivot = b.add(world.probed("pivot").after(before).retry(retry).pivot(), ());
    let after = b.add(world.step("after").after(pivot).retry(Retry::none()), ());
    b.returns(after).unwrap()
}

fn twice() -> Retry {
    Retry::constant().initial(MS(500)).max_attempts(2)
}

#[tokio::test(start_paused = true)]
async fn p2_a_pivot_in_doubt_is_probed_then_executed_again_with_its_key_then_parked() {
    let world = World::new();
    let saga = around_a_pivot(&world, twice());
    world.always("do pivot", Act::Doubt);
    world.always("probe pivot", Act::Doubt);
    let partial = parked(run(&world, &saga).await);
    assert_eq!(
        world.began(),
        [
            "do before",
            "do pivot",
            "probe pivot",
            "do pivot",
            "probe pivot"
        ]
    );
    let keys: Vec<String> = world
        .calls_of("do pivot")
        .into_iter()
        .map(|call| call.key)
        .collect();
    assert_eq!(keys[0], keys[1]);
    let asked: Vec<String> = world
        .calls_of("probe pivot")
        .into_iter()
        .map(|call| call.effect_key)
        .collect();
    assert_eq!(asked, keys);
    assert_eq!(standing(&partial), ["before done", "pivot in_doubt"]);
    assert_eq!(partial.parked.unwrap().reason, ParkReason::Manual);
    let why = &partial.why[0];
    assert!(why.saw.past_pivot);
    assert_eq!(why.rule, "used up past the pivot");
}

#[tokio::test(start_paused = true)]
async fn p2_a_pivot_in_doubt_is_executed_again_by_recovery_too_and_nothing_is_undone() {
    let world = World::new();
    let mut b = builder();
    let before = b.add(world.step("before"), ());
    let pivot = b.add(
        world
            .step("pivot")
            .after(before)
            .retry(Retry::none())
            .pivot(),
        (),
    );
    let saga = b.returns(pivot).unwrap();
    world.on("do pivot", [Act::Doubt, Act::NotDone, Act::Doubt]);
    let outcome = run(&world, &saga).await;
    let partial = completed(&outcome);
    assert_eq!(
        world.began(),
        ["do before", "do pivot", "do pivot", "do pivot", "do pivot"]
    );
    let mut keys: Vec<String> = world
        .calls_of("do pivot")
        .into_iter()
        .map(|call| call.key)
        .collect();
    keys.dedup();
    assert_eq!(keys.len(), 1, "one round, one key");
    assert_eq!(partial.recoveries, 3);
}

#[tokio::test(start_paused = true)]
async fn p2_a_pivot_whose_probe_says_done_is_past() {
    let world = World::new();
    let saga = around_a_pivot(&world, Retry::none());
    world.on("do pivot", [Act::Strange]);
    let outcome = run(&world, &saga).await;
    completed(&outcome);
    assert_eq!(
        world.began(),
        ["do before", "do pivot", "probe pivot", "do after"]
    );
}

#[tokio::test(start_paused = true)]
async fn p2_a_pivot_that_certainly_did_not_happen_fails_like_any_step_before_it() {
    for (execute, probe) in [(Act::Rejected, None), (Act::Strange, Some(Act::NotDone))] {
        let world = World::new();
        let saga = around_a_pivot(&world, Retry::none());
        world.on("do pivot", [execute]);
        world.on("probe pivot", probe.clone());
        let partial = compensated(run(&world, &saga).await);
        assert_eq!(world.of_kind("do"), ["before", "pivot"]);
        assert_eq!(world.of_kind("undo"), ["before"]);
        assert_eq!(world.of_kind("probe").len(), usize::from(probe.is_some()));
        assert_eq!(standing(&partial), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn p2_a_pivot_that_runs_at_most_once_and_is_in_doubt_is_parked_without_another_call() {
    let world = World::new();
    let mut b = builder();
    let before = b.add(world.step("before"), ());
    let pivot = b.add(
        world
            .probed("pivot")
            .after(before)
            .retry(twice())
            .at_most_once()
            .pivot(),
        (),
    );
    let saga = b.returns(pivot).unwrap();
    world.on("do pivot", [Act::Doubt]);
    world.always("probe pivot", Act::Doubt);
    let partial = parked(run(&world, &saga).await);
    assert_eq!(world.began(), ["do before", "do pivot", "probe pivot"]);
    assert_eq!(standing(&partial), ["before done", "pivot in_doubt"]);
}

#[tokio::test(start_paused = true)]
async fn past_the_pivot_a_policy_that_goes_back_gets_manual_and_the_explanation_says_why() {
    for strategy in [
        RecoveryStrategy::Compensate,
        RecoveryStrategy::RetryAll,
        RecoveryStrategy::RetryFromCheckpoint,
    ] {
        let world = World::new();
        let mut b = builder().policy(RecoveryPolicy::new("back", strategy));
        let pivot = b.add(world.step("pivot").pivot(), ());
        let after = b.add(world.step("after").after(pivot).retry(Retry::none()), ());
        let saga = b.returns(after).unwrap();
        world.on("do after", [Act::Rejected]);
        let (coordinator, handle) = start(&world, &Arc::default(), &saga).await;
        let partial = parked(handle.outcome().await.unwrap());
        assert_eq!(world.of_kind("undo"), [""; 0]);
        assert_eq!(
            partial.why[0].overruled.as_deref(),
            Some(&*format!(
                "{strategy} is not available past the pivot: nothing goes back there"
            ))
        );
        let refused = coordinator.retry(handle.id(), strategy, "me", "try").await;
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
}

#[tokio::test(start_paused = true)]
async fn c1_a_cancel_before_the_pivot_is_accepted_and_all_is_undone_after_what_is_in_flight() {
    let world = World::new();
    let store = Arc::new(MemoryStore::new());
    let saga = around_a_pivot(&world, Retry::none());
    world.on("do before", [Act::Done.after(10_000)]);
    let (coordinator, run) = start(&world, &store, &saga).await;
    tokio::time::sleep(MS(1_000)).await;
    assert_eq!(cancel(&coordinator).await, CancelTold::Accepted);
    let partial = compensated(run.outcome().await.unwrap());
    assert_eq!(
        world.trace(),
        ["do before", "did before", "undo before", "undid before"]
    );
    assert_eq!(world.millis(), 10_000, "what is in flight is awaited");
    let report = partial.cancel.unwrap();
    assert_eq!(
        (report.told, &*report.by, &*report.reason),
        (CancelTold::Accepted, "me", "changed my mind")
    );
    assert_eq!(
        events(&*store, "r").await,
        [
            "run_started",
            "step_started before",
            "cancel_requested accepted",
            "step_done before",
            "decided compensate",
            "undo_started before",
            "undone before",
            "ended compensated",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn c1_an_attempt_in_flight_can_see_the_cancel() {
    let world = World::new();
    let saga = around_a_pivot(&world, Retry::none());
    world.on("do before", [Act::Told(Box::new(Act::NotDone))]);
    let (coordinator, run) = start(&world, &Arc::default(), &saga).await;
    tokio::time::sleep(MS(1_000)).await;
    assert_eq!(cancel(&coordinator).await, CancelTold::Accepted);
    compensated(run.outcome().await.unwrap());
    assert_eq!(world.trace(), ["do before", "did before"]);
    assert_eq!(world.millis(), 1_000);
}

#[tokio::test(start_paused = true)]
async fn c1_a_cancel_wakes_a_run_that_sleeps_and_drops_the_retry() {
    let world = World::new();
    let mut b = builder();
    let first = b.add(world.step("a"), ());
    let second = b.add(
        world
            .step("b")
            .after(first)
            .retry(Retry::constant().initial(MS(3_600_000))),
        (),
    );
    let saga = b.returns(second).unwrap();
    world.on("do b", [Act::Doubt]);
    let (coordinator, run) = start(&world, &Arc::default(), &saga).await;
    tokio::time::sleep(MS(1_000)).await;
    assert_eq!(cancel(&coordinator).await, CancelTold::Accepted);
    compensated(run.outcome().await.unwrap());
    // The retry is dropped; its doubt is not.
    assert_eq!(world.began(), ["do a", "do b", "undo b", "undo a"]);
    assert_eq!(world.calls_of("undo b")[0].effect, "in doubt");
    assert_eq!(world.millis(), 1_000);
}

#[tokio::test(start_paused = true)]
async fn c1_a_cancel_that_comes_between_the_announcement_and_the_call_prevents_the_call() {
    let world = World::new();
    let store = TestStore::new();
    let saga = around_a_pivot(&world, Retry::none());
    store.delay(MS(100));
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let starting = tokio::spawn({
        let (coordinator, saga) = (coordinator.clone(), saga.clone());
        async move { coordinator.start(&saga, "r", ()).await.unwrap() }
    });
    // The start of `before` is being written, or waits to be.
    tokio::time::sleep(MS(50)).await;
    assert_eq!(cancel(&coordinator).await, CancelTold::Accepted);
    let run = starting.await.unwrap();
    compensated(run.outcome().await.unwrap());
    assert_eq!(world.began(), [""; 0]);
    assert_eq!(
        events(&*store, "r").await,
        [
            "run_started",
            "step_started before",
            "step_not_started before",
            "cancel_requested accepted",
            "decided compensate",
            "ended compensated"
        ]
    );
}

#[test]
fn c1_after_the_cancel_is_journalled_no_execute_starts_on_recovery_neither() {
    let world = World::new();
    let store = TestStore::new();
    let mut b = builder();
    let a = b.add(world.step("a"), ());
    let c = b.add(world.step("c").after(a), ());
    let d = b.add(world.step("d").after(a), ());
    let last = b.add(world.step("last").after(c).after(d), ());
    let saga = b.returns(last).unwrap();
    world.on("do c", [Act::Hang]);
    world.on("do d", [Act::NotDone]);
    life(&world, async || {
        let coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        let _run = coordinator.start(&saga, "r", ()).await.unwrap();
        world.seen("did d", 1).await;
        assert_eq!(cancel(&coordinator).await, CancelTold::Accepted);
        tokio::time::sleep(MS(5_000)).await;
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
        let partial = compensated(run.outcome().await.unwrap());
        assert_eq!(partial.cancel.unwrap().told, CancelTold::Accepted);
    });
    // `c` was cut off by the crash: in doubt, and undone as that; `d` did not happen.
    assert_eq!(world.began(), ["undo c", "undo a"]);
    assert_eq!(world.calls()[0].effect, "in doubt");
}

#[tokio::test(start_paused = true)]
async fn c1_pending_while_the_pivot_is_in_flight_then_not_done_unwinds() {
    let world = World::new();
    let store = Arc::default();
    let saga = around_a_pivot(&world, Retry::none());
    world.on("do pivot", [Act::NotDone.after(1_000)]);
    let (coordinator, run) = start(&world, &store, &saga).await;
    tokio::time::sleep(MS(500)).await;
    assert_eq!(cancel(&coordinator).await, CancelTold::Pending);
    compensated(run.outcome().await.unwrap());
    assert_eq!(world.began(), ["do before", "do pivot", "undo before"]);
    assert!(
        events(&*store, "r")
            .await
            .contains(&"cancel_requested pending".to_owned())
    );
}

#[tokio::test(start_paused = true)]
async fn c1_pending_while_the_pivot_is_in_flight_then_done_is_too_late_and_goes_forward() {
    let world = World::new();
    let store = Arc::default();
    let saga = around_a_pivot(&world, Retry::none());
    world.on("do pivot", [Act::Done.after(1_000)]);
    let (coordinator, run) = start(&world, &store, &saga).await;
    tokio::time::sleep(MS(500)).await;
    assert_eq!(cancel(&coordinator).await, CancelTold::Pending);
    let outcome = run.outcome().await.unwrap();
    let partial = completed(&outcome);
    assert_eq!(partial.cancel.unwrap().told, CancelTold::TooLate);
    assert_eq!(world.began(), ["do before", "do pivot", "do after"]);
    // What starts now is not told to stop.
    assert!(!world.calls_of("do after")[0].told_to_stop);
    assert_eq!(
        events(&*store, "r").await[4..],
        [
            "cancel_requested pending",
            "step_done pivot",
            "cancel_too_late",
            "step_started after",
            "step_done after",
            "ended completed",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn c1_pending_while_the_pivot_is_in_doubt_is_settled_by_the_probe() {
    for (probe, word) in [(Act::Done, "completed"), (Act::NotDone, "compensated")] {
        let world = World::new();
        let saga = around_a_pivot(&world, Retry::constant().initial(MS(60_000)));
        world.on("do pivot", [Act::Doubt]);
        world.on("probe pivot", [probe]);
        let (coordinator, run) = start(&world, &Arc::default(), &saga).await;
        tokio::time::sleep(MS(500)).await;
        assert_eq!(cancel(&coordinator).await, CancelTold::Pending);
        let outcome = run.outcome().await.unwrap();
        assert_eq!(outcome.word(), word);
        assert_eq!(world.count("do pivot"), 1);
        assert_eq!(world.count("probe pivot"), 1);
        let told = outcome.partial().cancel.unwrap().told;
        if word == "completed" {
            assert_eq!(told, CancelTold::TooLate);
        } else {
            assert_eq!(world.of_kind("undo"), ["before"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn c1_pending_that_the_probe_cannot_settle_parks() {
    let world = World::new();
    let saga = around_a_pivot(&world, Retry::none());
    world.on("do pivot", [Act::Strange.after(1_000)]);
    world.on("probe pivot", [Act::Doubt]);
    let (coordinator, run) = start(&world, &Arc::default(), &saga).await;
    tokio::time::sleep(MS(500)).await;
    assert_eq!(cancel(&coordinator).await, CancelTold::Pending);
    let partial = parked(run.outcome().await.unwrap());
    assert_eq!(world.began(), ["do before", "do pivot", "probe pivot"]);
    let parking = partial.parked.as_ref().unwrap();
    assert_eq!(parking.reason, ParkReason::Unsettled);
    assert_eq!(
        parking.message,
        "the run was cancelled, and nobody knows whether its pivot took effect"
    );
    assert_eq!(standing(&partial), ["before done", "pivot in_doubt"]);
    assert_eq!(partial.cancel.unwrap().told, CancelTold::Pending);
}

#[tokio::test(start_paused = true)]
async fn c1_an_operator_who_settles_a_pending_cancel_as_done_makes_it_too_late() {
    let world = World::new();
    let saga = around_a_pivot(&world, Retry::none());
    world.on("do pivot", [Act::Strange.after(1_000)]);
    world.on("probe pivot", [Act::Doubt]);
    let (coordinator, run) = start(&world, &Arc::default(), &saga).await;
    tokio::time::sleep(MS(500)).await;
    assert_eq!(cancel(&coordinator).await, CancelTold::Pending);
    parked(run.outcome().await.unwrap());
    let resolution = Resolution::Done("pivot#1".to_owned());
    coordinator
        .resolve(run.id(), "pivot", resolution, "me", "the bank says so")
        .await
        .unwrap();
    coordinator
        .retry(run.id(), RecoveryStrategy::RetryFailed, "me", "go on")
        .await
        .unwrap();
    let outcome = run.ended().await.unwrap();
    let partial = completed(&outcome);
    assert_eq!(
        world.began(),
        ["do before", "do pivot", "probe pivot", "do after"]
    );
    assert_eq!(partial.cancel.unwrap().told, CancelTold::TooLate);
    assert!(!world.calls_of("do after")[0].told_to_stop);
}

#[tokio::test(start_paused = true)]
async fn c1_past_the_pivot_a_cancel_is_too_late_and_the_run_goes_forward() {
    let world = World::new();
    let store = Arc::default();
    let saga = around_a_pivot(&world, Retry::none());
    world.on("do after", [Act::Done.after(1_000)]);
    let (coordinator, run) = start(&world, &store, &saga).await;
    tokio::time::sleep(MS(500)).await;
    for _ in 0..2 {
        assert_eq!(cancel(&coordinator).await, CancelTold::TooLate);
    }
    let outcome = run.outcome().await.unwrap();
    let partial = completed(&outcome);
    assert_eq!(partial.cancel.unwrap().told, CancelTold::TooLate);
    assert_eq!(world.began(), ["do before", "do pivot", "do after"]);
    let written = events(&*store, "r").await;
    assert_eq!(
        written
            .iter()
            .filter(|event| *event == "cancel_requested too_late")
            .count(),
        2
    );
}

#[tokio::test(start_paused = true)]
async fn c1_past_the_pivot_a_cancel_during_the_undo_of_a_failed_step_is_too_late() {
    let world = World::new();
    let mut b = builder();
    let pivot = b.add(world.step("pivot").pivot(), ());
    let after = b.add(
        world
            .step("after")
            .after(pivot)
            .retry(Retry::none())
            .undo_failing(UndoRule::Always),
        (),
    );
    let saga = b.returns(after).unwrap();
    world.on("do after", [Act::NotDone]);
    // The recovery undoes what failed before it tries again: `always`.
    world.on("undo after", [Act::Done.after(1_000)]);
    let (coordinator, run) = start(&world, &Arc::default(), &saga).await;
    world.seen("undo after", 1).await;
    assert_eq!(cancel(&coordinator).await, CancelTold::TooLate);
    let outcome = run.outcome().await.unwrap();
    assert_eq!(
        completed(&outcome).cancel.unwrap().told,
        CancelTold::TooLate
    );
    assert_eq!(
        world.began(),
        ["do pivot", "do after", "undo after", "do after"]
    );
    assert!(!world.calls()[3].told_to_stop);
}

#[tokio::test(start_paused = true)]
async fn c1_cancelling_again_does_no_harm_and_an_ended_run_refuses() {
    let world = World::new();
    let saga = around_a_pivot(&world, Retry::none());
    world.on("do before", [Act::Done.after(1_000)]);
    let (coordinator, run) = start(&world, &Arc::default(), &saga).await;
    for _ in 0..3 {
        assert_eq!(cancel(&coordinator).await, CancelTold::Accepted);
    }
    compensated(run.outcome().await.unwrap());
    assert_eq!(world.began(), ["do before", "undo before"]);
    let refused = coordinator.cancel(run.id(), "me", "again").await;
    assert!(
        matches!(
            refused,
            Err(CommandError::Refused {
                why: Refused::Ended,
                ..
            })
        ),
        "{refused:?}"
    );
    let nobody = coordinator
        .cancel(&RunId::new("nobody"), "me", "again")
        .await;
    assert!(
        matches!(nobody, Err(CommandError::NoSuchRun { .. })),
        "{nobody:?}"
    );
    assert_eq!(coordinator.driving(), 0);
}

#[tokio::test(start_paused = true)]
async fn c1_a_cancel_of_a_parked_run_undoes_it() {
    let world = World::new();
    let mut b = builder().policy(RecoveryPolicy::new("ask", RecoveryStrategy::Manual));
    let a = b.add(world.step("a"), ());
    let c = b.add(world.step("c").after(a), ());
    let saga = b.returns(c).unwrap();
    world.on("do c", [Act::Rejected]);
    let (coordinator, run) = start(&world, &Arc::default(), &saga).await;
    parked(run.outcome().await.unwrap());
    assert_eq!(cancel(&coordinator).await, CancelTold::Accepted);
    compensated(run.ended().await.unwrap());
    assert_eq!(world.began(), ["do a", "do c", "undo a"]);
}

#[tokio::test(start_paused = true)]
async fn c1_a_cancel_wins_over_the_policy_where_a_step_fails_meanwhile() {
    let world = World::new();
    let mut b = builder()
        .policy(RecoveryPolicy::new("ask", RecoveryStrategy::Manual))
        .siblings(Siblings::Await);
    let a = b.add(world.step("a"), ());
    let c = b.add(step("c", Fails).after(a), ());
    let saga = b.returns(c).unwrap();
    let store = Arc::default();
    let (coordinator, run) = start(&world, &store, &saga).await;
    assert_eq!(cancel(&coordinator).await, CancelTold::Accepted);
    let partial = compensated(run.outcome().await.unwrap());
    assert_eq!(partial.why, []);
    assert_eq!(partial.cause, Some(amends::journal::Cause::Cancel));
    assert_eq!(partial.failure_mode, Some(FailureMode::SecurityViolation));
    assert_eq!(world.of_kind("undo"), ["a"]);
}

/// Fails terminally when it is told to stop.
struct Fails;

impl amends::Step for Fails {
    type Input = ();
    type Output = ();

    async fn execute(&self, cx: &amends::StepContext, (): &()) -> Result<(), amends::StepError> {
        cx.cancelled().await;
        Err(amends::StepError::not_done("no").with_mode(FailureMode::SecurityViolation))
    }

    async fn compensate(
        &self,
        _: &amends::StepContext,
        (): &(),
        _: amends::Effect<&()>,
    ) -> Result<(), amends::StepError> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn p2_a_stop_beside_a_pivot_in_doubt_parks_the_run_and_undoes_nothing() {
    let undone = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let mut b = amends::Saga::builder::<()>("stops");
    let pivot = amends::step_with(
        "pivot",
        Arc::clone(&undone),
        async |_, _cx, _n: &()| -> Result<(), amends::StepError> {
            Err(amends::StepError::in_doubt("the reply was lost"))
        },
        async |undone: &Arc<std::sync::atomic::AtomicU32>, _cx, _n, _effect| {
            undone.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Ok(())
        },
    );
    let pivot = b.add(pivot.pivot().retry(amends::Retry::none()), ());
    let stops = amends::read_only_fn(
        "stops",
        async |_cx, _n: &()| -> Result<(), amends::StepError> {
            Err(amends::StepError::stop("enough"))
        },
    );
    let stops = b.add(stops, ());
    let saga = b.returns((pivot, stops)).unwrap();
    let coordinator = amends::Coordinator::builder(amends::store::MemoryStore::new())
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    let partial = run.outcome().await.unwrap().partial();
    assert_eq!(
        partial.parked.unwrap().reason,
        amends::journal::ParkReason::Unsettled
    );
    assert_eq!(partial.outstanding.len(), 1);
    assert_eq!(undone.load(std::sync::atomic::Ordering::SeqCst), 0);
}
