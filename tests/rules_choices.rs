//! Rules for `fallback`, `first_of` and `only_if`: E4, E7, K2, K3, D3, S3, S4 and U1 where there is a choice.

// The helpers of this file aren't test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;
mod operators;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use amends::journal::{ParkReason, Verb};
use amends::*;
use common::*;
use operators::*;

use RecoveryStrategy::{Compensate, Manual, RetryAll, RetryFailed};

fn always(strategy: RecoveryStrategy) -> RecoveryPolicy {
    RecoveryPolicy::new("always", strategy).backoff(calls(9))
}

/// A step that is called once, with one retry for its undo.
fn once(world: &World, name: &str) -> StepSpec<u64, u64> {
    let spec = world.step::<u64>(name).retry(Retry::none());
    spec.compensation_retry(calls(2))
}

/// `flight`, made so, then `hotel`.
fn trip(
    world: &World,
    policy: RecoveryPolicy,
    flight: impl Part<Input = u64, Output = u64>,
) -> Saga<u64, (u64, u64)> {
    let mut saga = Saga::builder::<u64>("trip").policy(policy);
    let n = saga.input();
    let flight = saga.add(flight, n);
    let hotel = saga.add(once(world, "hotel"), flight);
    saga.returns((flight, hotel)).unwrap()
}

fn statuses(partial: &PartialResult) -> Vec<(&str, StepStatus)> {
    let steps = partial.steps.iter();
    steps.map(|step| (&*step.name, step.status)).collect()
}

#[test]
fn e7_a_primary_in_doubt_is_probed_and_undone_before_its_fallback_starts() {
    let world = World::new();
    let flight = once(&world, "flight").probe(world.probe());
    let saga = trip(
        &world,
        always(Manual),
        flight.fallback(once(&world, "other")),
    );
    world.plan("do flight/primary", [Act::lost()]);
    world.plan("undo flight/primary", [Act::Done(0).after(SECOND)]);
    world.plan("do flight/other", [Act::Done(8)]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(
        world.log(),
        [
            "do flight/primary",
            "probe flight/primary",
            "undo flight/primary (in doubt)",
            "woke flight/primary",
            "do flight/other",
            "do hotel"
        ]
    );
    assert_eq!(
        world.story(),
        [
            "run started",
            "start flight 1",
            "start flight/primary 1",
            "failed flight/primary",
            "probed flight/primary: unknown",
            "without flight/primary",
            "undo flight/primary 1",
            "undone flight/primary",
            "start flight/other 1",
            "done flight/other",
            "done flight",
            "start hotel 1",
            "done hotel",
            "ended completed"
        ]
    );
    assert_eq!(
        statuses(&outcome.partial()),
        [
            ("flight", StepStatus::Done),
            ("flight/primary", StepStatus::Failed),
            ("flight/other", StepStatus::Done),
            ("hotel", StepStatus::Done)
        ]
    );
    assert_eq!(outcome.completed(), Some((8, 1)));
}

#[test]
fn e7_a_probe_that_says_done_keeps_the_primary_and_no_fallback_starts() {
    let world = World::new();
    let flight = once(&world, "flight").probe(world.probe());
    let saga = trip(
        &world,
        always(Manual),
        flight.fallback(once(&world, "other")),
    );
    world.plan("do flight/primary", [Act::lost()]);
    world.plan("probe flight/primary", [Act::Says(Probed::Done(6))]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(
        world.log(),
        ["do flight/primary", "probe flight/primary", "do hotel"]
    );
    assert_eq!(outcome.completed(), Some((6, 1)));
}

#[test]
fn e7_a_primary_that_left_nothing_is_not_undone() {
    let world = World::new();
    let flight = once(&world, "flight").fallback(once(&world, "other"));
    let saga = trip(&world, always(Manual), flight);
    world.plan("do flight/primary", [Act::rejected()]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "completed");
    assert_eq!(
        world.log(),
        ["do flight/primary", "do flight/other", "do hotel"]
    );
}

#[test]
fn e7_a_primary_that_cannot_be_settled_parks_the_run_and_help_lets_it_go_on() {
    let world = World::new();
    let flight = once(&world, "flight").fallback(once(&world, "other"));
    let saga = trip(&world, always(Compensate), flight);
    world.plan("do flight/primary", [Act::lost()]);
    world.plan("undo flight/primary", [Act::not_done(), Act::not_done()]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "parked");
    let partial = outcome.partial();
    let parking = partial.parked.clone().unwrap();
    assert_eq!(parking.reason, ParkReason::CompensationFailed);
    assert_eq!(world.calls_of("do flight/other"), []);
    let outcome = world.life(&saga, async |coordinator| {
        let run = "r".into();
        let told = coordinator.resolve(
            &run,
            "flight/primary",
            Resolution::<u64>::NotDone,
            "ann",
            "asked",
        );
        told.await.unwrap();
        coordinator
            .retry(&run, RetryFailed, "ann", "go on")
            .await
            .unwrap();
        let handle = coordinator.attach(&saga, &run).await.unwrap().unwrap();
        handle.outcome().await.unwrap()
    });
    assert_eq!(outcome.word(), "completed");
    assert_eq!(world.log()[3..], ["do flight/other", "do hotel"]);
}

#[test]
fn e7_a_crash_between_the_undo_of_a_primary_and_its_fallback_changes_nothing() {
    let world = World::new();
    let flight = once(&world, "flight").fallback(once(&world, "other"));
    let saga = trip(&world, always(Manual), flight);
    world.plan("do flight/primary", [Act::lost()]);
    world.plan("undo flight/primary", [Act::Hangs]);
    world.plan("do flight/other", [Act::Hangs, Act::Done(4)]);
    world.crash_at(&saga, 1, "undo flight/primary (in doubt)");
    world.resume_and_crash(&saga, 4);
    let outcome = world.recover(&saga);
    assert_eq!(
        world.log(),
        [
            "do flight/primary",
            "undo flight/primary (in doubt)",
            "undo flight/primary (in doubt)",
            "do flight/other",
            "do flight/other",
            "do hotel"
        ]
    );
    assert_eq!(outcome.completed(), Some((4, 1)));
}

#[test]
fn e7_whoever_loses_a_race_is_undone_before_the_step_is_done() {
    let world = World::new();
    let taxi = first_of(
        "taxi",
        [once(&world, "x"), once(&world, "y"), once(&world, "z")],
    );
    let saga = trip(&world, always(Manual), taxi);
    world.plan("do taxi/x", [Act::Done(1).after(2 * SECOND)]);
    world.plan("do taxi/y", [Act::Done(2).after(SECOND)]);
    world.plan("do taxi/z", [Act::lost().after(3 * SECOND)]);
    world.plan("undo taxi/x", [Act::Done(0).after(SECOND)]);
    let outcome = world.run_to_rest(&saga, 1);
    let log = world.log();
    let at = |line: &str| log.iter().position(|logged| logged == line).unwrap();
    assert!(at("undo taxi/z (in doubt)") < at("do hotel"));
    assert!(at("undo taxi/x (done 1)") < at("do hotel"));
    assert_eq!(world.calls_of("undo taxi/y"), []);
    let partial = outcome.partial();
    assert_eq!(
        statuses(&partial)[..2],
        [("taxi", StepStatus::Done), ("taxi/x", StepStatus::Undone)]
    );
    assert_eq!(outcome.completed(), Some((2, 1)));
}

#[test]
fn e7_a_loser_that_cannot_be_settled_parks_the_run() {
    let world = World::new();
    let taxi = first_of("taxi", [once(&world, "x"), once(&world, "y")]);
    let saga = trip(&world, always(Compensate), taxi);
    world.plan("do taxi/x", [Act::Done(1)]);
    world.plan("do taxi/y", [Act::lost()]);
    world.plan("undo taxi/y", [Act::not_done(), Act::not_done()]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "parked");
    assert_eq!(world.calls_of("do hotel"), []);
    let partial = outcome.partial();
    let standing: Vec<_> = partial
        .outstanding
        .iter()
        .map(|stands| (&*stands.step, stands.effect))
        .collect();
    assert_eq!(
        standing,
        [
            ("taxi/x", EffectReport::Done),
            ("taxi/y", EffectReport::InDoubt)
        ]
    );
}

#[test]
fn e7_losers_are_settled_past_the_pivot_too() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("order").policy(always(Manual));
    let n = saga.input();
    let pay = saga.add(world.irreversible::<u64>("pay").pivot(), n);
    let taxi = first_of("taxi", [once(&world, "x"), once(&world, "y")]);
    let taxi = saga.add(taxi, pay);
    let saga = saga.returns(taxi).unwrap();
    world.plan("do taxi/x", [Act::lost()]);
    world.plan("do taxi/y", [Act::Done(5).after(SECOND)]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(
        world.log(),
        [
            "do pay",
            "do taxi/x",
            "do taxi/y",
            "woke taxi/y",
            "undo taxi/x (in doubt)"
        ]
    );
    assert_eq!(outcome.completed(), Some(5));
}

#[test]
fn s1_a_race_that_all_have_lost_is_run_again_by_all() {
    let world = World::new();
    let taxi = first_of("taxi", [once(&world, "x"), once(&world, "y")]);
    let saga = trip(&world, always(RetryFailed), taxi);
    world.plan("do taxi/x", [Act::rejected(), Act::Done(5)]);
    world.plan("do taxi/y", [Act::rejected(), Act::rejected()]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(
        world.log(),
        [
            "do taxi/x",
            "do taxi/y",
            "do taxi/x",
            "do taxi/y",
            "do hotel"
        ]
    );
    assert_eq!(outcome.completed(), Some((5, 1)));
}

#[test]
fn s4_what_was_chosen_is_undone_like_any_other_and_nothing_else() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("trip").policy(always(Compensate));
    let n = saga.input();
    let flight = saga.add(once(&world, "flight").fallback(once(&world, "other")), n);
    let taxi = first_of("taxi", [once(&world, "x"), once(&world, "y")]);
    let taxi = saga.add(taxi, flight);
    let value = saga.add(once(&world, "seat").fallback_value(3), taxi);
    saga.add(once(&world, "fails"), value);
    let saga = saga.returns(n).unwrap();
    world.plan("do flight/primary", [Act::rejected()]);
    world.plan("do taxi/x", [Act::rejected()]);
    world.plan("do seat/primary", [Act::rejected()]);
    world.plan("do fails", [Act::rejected()]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "compensated");
    assert_eq!(
        world.log(),
        [
            "do flight/primary",
            "do flight/other",
            "do taxi/x",
            "do taxi/y",
            "do seat/primary",
            "do fails",
            "undo taxi/y (done 1)",
            "undo flight/other (done 1)"
        ]
    );
    assert_eq!(world.calls_of("do fails")[0].input, "3");
    assert_eq!(outcome.partial().outstanding, []);
}

#[test]
fn k2_a_primary_that_was_undone_has_a_new_round_when_all_begins_again() {
    let world = World::new();
    let flight = once(&world, "flight").fallback(once(&world, "other"));
    let saga = trip(&world, always(RetryAll), flight);
    world.plan("do flight/primary", [Act::lost(), Act::Done(3)]);
    world.plan("do hotel", [Act::rejected()]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(
        world.log(),
        [
            "do flight/primary",
            "undo flight/primary (in doubt)",
            "do flight/other",
            "do hotel",
            "undo flight/other (done 1)",
            "do flight/primary",
            "do hotel"
        ]
    );
    let rounds: Vec<_> = world
        .calls_of("do flight/primary")
        .iter()
        .map(|call| call.round)
        .collect();
    assert_eq!(rounds, [1, 2]);
    assert_eq!(
        statuses(&outcome.partial()),
        [
            ("flight", StepStatus::Done),
            ("flight/primary", StepStatus::Done),
            ("flight/other", StepStatus::PassedOver),
            ("hotel", StepStatus::Done)
        ]
    );
    assert_eq!(outcome.completed(), Some((3, 2)));
}

#[test]
fn k3_a_verdict_stands_for_its_round_through_crashes() {
    // The closure says yes first, and no ever after; or the other way round.
    for first in [true, false] {
        let world = World::new();
        let asked = Arc::new(AtomicU64::new(0));
        let saga = || {
            let asked = Arc::clone(&asked);
            let mut saga = Saga::builder::<u64>("trip").policy(always(Compensate));
            let n = saga.input();
            let verdict = n.map(move |_| (asked.fetch_add(1, Ordering::SeqCst) == 0) == first);
            let insure = saga.add(once(&world, "insure").only_if(verdict), n);
            let book = saga.add(once(&world, "book").after(insure), n);
            let saga = saga.returns((insure, book));
            saga.unwrap()
        };
        if first {
            world.plan("do insure", [Act::Hangs]);
            world.crash_at(&saga(), 1, "do insure");
        } else {
            world.plan("do book", [Act::Hangs]);
            world.crash_at(&saga(), 1, "do book");
        }
        let outcome = world.recover(&saga());
        let calls = world.calls_of("do insure").len();
        assert_eq!(calls, if first { 2 } else { 0 });
        assert_eq!(asked.load(Ordering::SeqCst), 1, "first: {first}");
        let insured = outcome.completed().unwrap().0;
        assert_eq!(insured, first.then_some(2));
    }
}

#[test]
fn k3_a_verdict_stands_where_the_call_was_announced_and_not_made() {
    let world = World::new();
    let holds = Arc::new(AtomicBool::new(true));
    let mut saga = Saga::builder::<u64>("trip").policy(always(Compensate));
    let n = saga.input();
    let verdict = {
        let holds = Arc::clone(&holds);
        n.map(move |_| holds.load(Ordering::SeqCst))
    };
    let first = saga.add(once(&world, "first"), n);
    let insure = saga.add(once(&world, "insure").only_if(verdict).after(first), n);
    let saga = saga.returns(insure).unwrap();
    world.plan("do first", [Act::Done(1).after(SECOND)]);
    let outcome = world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        world.until("do first").await;
        world.appends_take(SECOND);
        // Within the append that announces `insure`.
        tokio::time::sleep(SECOND + SECOND / 2).await;
        ok(&coordinator, Verb::Pause).await;
        holds.store(false, Ordering::SeqCst);
        ok(&coordinator, Verb::Resume).await;
        run.outcome().await.unwrap()
    });
    let story = story(&world);
    assert!(
        story.contains(&"not started insure".to_owned()),
        "{story:?}"
    );
    assert_eq!(world.log()[2..], ["do insure"]);
    assert_eq!(outcome.completed(), Some(Some(1)));
}

#[test]
fn k3_a_verdict_about_what_was_undone_is_made_anew_where_the_step_itself_left_nothing() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("trip").policy(always(RetryAll));
    let n = saga.input();
    let price = saga.add(once(&world, "price"), n);
    let insure = once(&world, "insure").only_if(price.map(|price| *price > 5));
    let insure = saga.add(insure, price);
    let saga = saga.returns(insure).unwrap();
    world.plan("do price", [Act::Done(9), Act::Done(1)]);
    world.plan("do insure", [Act::rejected()]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(
        world.log(),
        ["do price", "do insure", "undo price (done 9)", "do price"]
    );
    assert_eq!(outcome.completed(), Some(None));
}

#[test]
fn k3_a_verdict_is_made_anew_in_a_new_round() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("trip").policy(always(RetryAll));
    let n = saga.input();
    let price = saga.add(once(&world, "price"), n);
    let insure = once(&world, "insure").only_if(price.map(|price| *price > 5));
    let insure = saga.add(insure, price);
    let book = saga.add(once(&world, "book").after(insure), price);
    let saga = saga.returns((insure, book)).unwrap();
    world.plan("do price", [Act::Done(9), Act::Done(1), Act::Done(8)]);
    world.plan("do book", [Act::rejected(), Act::rejected()]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(
        world.log(),
        [
            "do price",
            "do insure",
            "do book",
            "undo insure (done 1)",
            "undo price (done 9)",
            "do price",
            "do book",
            "undo price (done 1)",
            "do price",
            "do insure",
            "do book"
        ]
    );
    assert_eq!(outcome.completed(), Some((Some(2), 3)));
}

#[test]
fn d3_a_step_that_was_passed_over_is_in_neither_number() {
    let policy = RecoveryPolicy::by_progress();
    // `done` of `done + 1` steps are done when `fails` fails for good; `passed` more are passed over.
    let decided = |done: u64, waiting: u64, passed: u64| {
        let world = World::new();
        let mut saga = Saga::builder::<u64>("trip").policy(policy.clone());
        let n = saga.input();
        let mut last = SomeNode::from(n);
        for at in 0..passed {
            let spec = once(&world, &format!("passed-{at}")).only_if(n.map(|_| false));
            last = saga.add(spec.after(last), n).into();
        }
        for at in 0..done {
            last = saga
                .add(once(&world, &format!("done-{at}")).after(last), n)
                .into();
        }
        last = saga.add(once(&world, "fails").after(last), n).into();
        for at in 1..waiting {
            last = saga
                .add(once(&world, &format!("waits-{at}")).after(last), n)
                .into();
        }
        let saga = saga.returns(n).unwrap();
        world.plan("do fails", [Act::not_done()]);
        let partial = world.life(&saga, async |coordinator| {
            let run = coordinator.start(&saga, "r", 1).await.unwrap();
            run.outcome().await.unwrap().partial()
        });
        let first = world
            .story()
            .into_iter()
            .find(|event| event.starts_with("decided"));
        assert_eq!(u64::from(partial.total), done + waiting);
        first.unwrap()
    };
    for passed in [0, 5] {
        assert_eq!(decided(3, 1, passed), "decided retry_failed");
        assert_eq!(decided(5, 2, passed), "decided retry_from_checkpoint");
        assert_eq!(decided(1, 3, passed), "decided retry_from_checkpoint");
        assert_eq!(decided(1, 4, passed), "decided retry_all");
    }
}

#[test]
fn u1_the_order_of_undos_goes_through_what_was_passed_over() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("trip").policy(always(Compensate));
    let n = saga.input();
    let a = saga.add(once(&world, "a"), n);
    let maybe = saga.add(once(&world, "maybe").only_if(a.map(|_| false)), a);
    let b = saga.add(once(&world, "b").after(maybe), n);
    saga.add(once(&world, "fails").after(b), n);
    let saga = saga.returns(n).unwrap();
    world.plan("do fails", [Act::rejected()]);
    world.plan("undo b", [Act::Done(0).after(SECOND)]);
    let partial = world.run_to_rest(&saga, 1).partial();
    assert_eq!(
        world.log(),
        [
            "do a",
            "do b",
            "do fails",
            "undo b (done 1)",
            "woke b",
            "undo a (done 1)"
        ]
    );
    assert_eq!(
        partial.step("maybe").unwrap().status,
        StepStatus::PassedOver
    );
}
