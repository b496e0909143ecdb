//! Rules for `for_each`: E4, E7, K1 to K3, D1, D3, D6, F3, F5, S1 to S4, U1 and U3 for items of a list.

// The helpers of this file aren't test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;
mod operators;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use amends::failure::{FailedEffect, Failure};
use amends::journal::{Event, ParkReason};
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

/// `reserve` for so many items, then `ship`.
fn lines(
    world: &World,
    policy: RecoveryPolicy,
    items: impl Part<Input = Vec<u64>, Output = Vec<u64>>,
) -> Saga<u64, (Vec<u64>, u64)> {
    let mut saga = Saga::builder::<u64>("order").policy(policy);
    let n = saga.input();
    let reserve = saga.add(items, n.map(|n| (0..*n).collect()));
    let ship = saga.add(once(world, "ship").after(reserve), n);
    saga.returns((reserve, ship)).unwrap()
}

/// The same where so many items may fail.
fn some_lines(
    world: &World,
    policy: RecoveryPolicy,
    items: impl Part<Input = Vec<u64>, Output = Vec<Result<u64, Failure>>>,
) -> Saga<u64, Vec<Result<u64, Failure>>> {
    let mut saga = Saga::builder::<u64>("order").policy(policy);
    let n = saga.input();
    let reserve = saga.add(items, n.map(|n| (0..*n).collect()));
    saga.add(once(world, "ship").after(reserve), n);
    saga.returns(reserve).unwrap()
}

fn keys(world: &World, call: &str) -> Vec<String> {
    let key = |call: Call| {
        let (_, rest) = call.key.split_once('/').unwrap();
        rest.to_owned()
    };
    world.calls_of(call).into_iter().map(key).collect()
}

fn statuses(partial: &PartialResult) -> Vec<(&str, StepStatus)> {
    let steps = partial.steps.iter();
    steps.map(|step| (&*step.name, step.status)).collect()
}

#[test]
fn e7_what_a_tolerated_item_may_have_left_is_undone_before_the_step_is_done() {
    let world = World::new();
    let saga = some_lines(
        &world,
        always(Manual),
        once(&world, "reserve").for_each().tolerate(2),
    );
    world.plan("do reserve[0]", [Act::lost()]);
    world.plan("do reserve[2]", [Act::rejected()]);
    let outcome = world.run_to_rest(&saga, 3);
    assert_eq!(
        world.story(),
        [
            "run started",
            "start reserve 1",
            "start reserve[0] 1",
            "start reserve[1] 1",
            "start reserve[2] 1",
            "failed reserve[0]",
            "done reserve[1]",
            "failed reserve[2]",
            "without reserve[0]",
            "undo reserve[0] 1",
            "undone reserve[0]",
            "done reserve",
            "start ship 1",
            "done ship",
            "ended completed"
        ]
    );
    let effects: Vec<_> = outcome
        .partial()
        .steps
        .iter()
        .map(|step| (step.name.clone(), step.status, step.effect))
        .collect();
    let step = |name: &str, status, effect| (name.to_owned(), status, effect);
    assert_eq!(
        effects,
        [
            step("reserve", StepStatus::Done, EffectReport::Done),
            step("reserve[0]", StepStatus::Failed, EffectReport::NotDone),
            step("reserve[1]", StepStatus::Done, EffectReport::Done),
            step("reserve[2]", StepStatus::Failed, EffectReport::NotDone),
            step("ship", StepStatus::Done, EffectReport::Done)
        ]
    );
    let output = outcome.completed().unwrap();
    let modes: Vec<_> = output
        .iter()
        .map(|item| item.as_ref().map_err(|failure| failure.mode.clone()))
        .collect();
    assert_eq!(
        modes,
        [
            Err(FailureMode::SystemNetwork),
            Ok(&1),
            Err(FailureMode::StepValidation)
        ]
    );
}

#[test]
fn e7_the_probe_of_a_tolerated_item_is_asked_first_and_done_takes_its_failure_back() {
    // Whichever item it is: the last one to come in, too.
    for lost in ["reserve[0]", "reserve[1]"] {
        let world = World::new();
        let item = once(&world, "reserve").probe(world.probe());
        let saga = some_lines(&world, always(Manual), item.for_each().tolerate(1));
        world.plan(&format!("do {lost}"), [Act::lost()]);
        world.plan(&format!("probe {lost}"), [Act::Says(Probed::Done(7))]);
        let outcome = world.run_to_rest(&saga, 2);
        assert_eq!(
            world.log(),
            [
                "do reserve[0]",
                "do reserve[1]",
                &format!("probe {lost}"),
                "do ship"
            ],
            "{lost}"
        );
        let output = outcome.completed().unwrap();
        let output: BTreeSet<u64> = output.into_iter().map(Result::unwrap).collect();
        assert_eq!(output, BTreeSet::from([1, 7]), "{lost}");
    }
}

#[test]
fn e4_the_probe_of_an_item_is_asked_before_the_policy_and_done_cancels_the_failure() {
    let world = World::new();
    let item = once(&world, "reserve").probe(world.probe());
    let saga = lines(&world, always(Compensate), item.for_each());
    world.plan("do reserve[0]", [Act::lost()]);
    world.plan("do reserve[1]", [Act::Done(3).after(SECOND)]);
    world.plan("probe reserve[0]", [Act::Says(Probed::Done(7))]);
    let outcome = world.run_to_rest(&saga, 2);
    assert_eq!(
        world.log(),
        [
            "do reserve[0]",
            "do reserve[1]",
            "probe reserve[0]",
            "woke reserve[1]",
            "do ship"
        ]
    );
    assert_eq!(outcome.completed(), Some((vec![7, 3], 1)));
}

#[test]
fn e7_a_tolerated_item_whose_probe_says_never_is_not_undone() {
    let world = World::new();
    let item = once(&world, "reserve").probe(world.probe());
    let saga = some_lines(&world, always(Manual), item.for_each().tolerate(1));
    world.plan("do reserve[1]", [Act::lost()]);
    world.plan("probe reserve[1]", [Act::Says(Probed::Never)]);
    assert_eq!(world.run_to_rest(&saga, 2).word(), "completed");
    assert_eq!(
        world.log(),
        [
            "do reserve[0]",
            "do reserve[1]",
            "probe reserve[1]",
            "do ship"
        ]
    );
}

#[test]
fn e7_a_tolerated_item_that_cannot_be_settled_parks_the_run() {
    let world = World::new();
    let saga = some_lines(
        &world,
        always(Compensate),
        once(&world, "reserve").for_each().tolerate(1),
    );
    world.plan("do reserve[1]", [Act::lost()]);
    world.plan("undo reserve[1]", [Act::not_done(), Act::not_done()]);
    let outcome = world.run_to_rest(&saga, 2);
    let partial = outcome.partial();
    assert_eq!(outcome.word(), "parked");
    let parking = partial.parked.clone().unwrap();
    assert_eq!(parking.reason, ParkReason::CompensationFailed);
    assert_eq!(
        parking.message,
        "the undo failed for good of `reserve[1]` (refused)"
    );
    // Nothing starts behind a step that isn't settled.
    assert_eq!(world.calls_of("do ship"), []);
    let standing: Vec<_> = partial
        .outstanding
        .iter()
        .map(|stands| (&*stands.step, stands.effect))
        .collect();
    assert_eq!(
        standing,
        [
            ("reserve[0]", EffectReport::Done),
            ("reserve[1]", EffectReport::InDoubt)
        ]
    );
}

#[test]
fn e7_tolerated_items_are_settled_past_the_pivot_too() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("order").policy(always(Manual));
    let n = saga.input();
    let pay = saga.add(world.irreversible::<u64>("pay").pivot(), n);
    let mail = once(&world, "mail").for_each().tolerate(1);
    let mail = saga.add(mail, pay.map(|n| vec![*n, n + 1]));
    let saga = saga.returns(mail).unwrap();
    world.plan("do mail[0]", [Act::lost()]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "completed");
    assert_eq!(
        world.log(),
        [
            "do pay",
            "do mail[0]",
            "do mail[1]",
            "undo mail[0] (in doubt)"
        ]
    );
}

#[test]
fn e7_more_failures_than_are_tolerated_fail_the_step_as_partial_step_failures() {
    let world = World::new();
    let saga = some_lines(
        &world,
        always(Manual),
        once(&world, "reserve").for_each().tolerate(1),
    );
    world.plan("do reserve[0]", [Act::rejected()]);
    world.plan("do reserve[2]", [Act::rejected()]);
    let partial = world.run_to_rest(&saga, 4).partial();
    assert_eq!(partial.failure_mode, Some(FailureMode::PartialStepFailures));
    assert_eq!(
        partial
            .step("reserve")
            .unwrap()
            .failure
            .as_ref()
            .unwrap()
            .message,
        "2 of 4 items failed, and at most 1 may: the last one said: no"
    );
    // The outputs of the others are told all the same.
    let outputs: Vec<_> = (0..4)
        .map(|item| {
            partial
                .output::<u64>(&format!("reserve[{item}]"))
                .unwrap()
                .map(|n| *n)
        })
        .collect();
    assert_eq!(outputs, [None, Some(1), None, Some(1)]);
}

#[test]
fn k1_the_key_of_an_item_is_uid_path_with_its_place_and_round() {
    let world = World::new();
    let inner = once(&world, "box").for_each();
    let mut child = Saga::builder::<u64>("parcel");
    let n = child.input();
    let boxes = child.add(inner, n.map(|n| vec![*n, *n]));
    let child = child.returns(boxes).unwrap();
    let mut saga = Saga::builder::<u64>("order").policy(always(Compensate));
    let n = saga.input();
    let ship = saga.add(
        step("ship 1/2".replace('/', "-"), &child).for_each(),
        n.map(|n| vec![*n]),
    );
    saga.add(once(&world, "fails").after(ship), n);
    let saga = saga.returns(ship).unwrap();
    world.plan("do fails", [Act::rejected()]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "compensated");
    assert_eq!(
        keys(&world, "do ship 1-2[0]/box[1]"),
        ["ship%201-2[0]/box[1]/1"]
    );
    assert_eq!(
        keys(&world, "undo ship 1-2[0]/box[1]"),
        ["ship%201-2[0]/box[1]/1/undo"]
    );
    let mut seen = BTreeSet::new();
    for call in world.calls() {
        assert!(seen.insert(call.key.clone()), "{} twice", call.key);
    }
}

#[test]
fn k2_items_go_on_counting_their_rounds_through_lists_of_other_lengths() {
    let world = World::new();
    // 3 items, then 1, then 4.
    let lengths = Arc::new(AtomicU64::new(0));
    let mut saga = Saga::builder::<u64>("order").policy(always(RetryAll).max_recoveries(3));
    let n = saga.input();
    let list = {
        let lengths = Arc::clone(&lengths);
        n.map(move |_| {
            let at = lengths.fetch_add(1, Ordering::SeqCst);
            vec![0_u64; [3, 1, 4][usize::try_from(at).unwrap()]]
        })
    };
    let reserve = saga.add(once(&world, "reserve").for_each(), list);
    let ship = saga.add(once(&world, "ship").after(reserve), n);
    let saga = saga.returns((reserve, ship)).unwrap();
    world.plan("do ship", [Act::rejected(), Act::rejected()]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(
        keys(&world, "do reserve[0]"),
        ["reserve[0]/1", "reserve[0]/2", "reserve[0]/3"]
    );
    assert_eq!(
        keys(&world, "do reserve[1]"),
        ["reserve[1]/1", "reserve[1]/2"]
    );
    assert_eq!(
        keys(&world, "do reserve[2]"),
        ["reserve[2]/1", "reserve[2]/2"]
    );
    assert_eq!(keys(&world, "do reserve[3]"), ["reserve[3]/1"]);
    let steps: Vec<_> = outcome
        .partial()
        .steps
        .iter()
        .map(|step| (step.name.clone(), step.round, step.attempts))
        .collect();
    let step = |name: &str, round, attempts| (name.to_owned(), round, attempts);
    assert_eq!(
        steps,
        [
            step("reserve", 3, 3),
            step("reserve[0]", 3, 3),
            step("reserve[1]", 2, 2),
            step("reserve[2]", 2, 2),
            step("reserve[3]", 1, 1),
            step("ship", 1, 3)
        ]
    );
    assert_eq!(outcome.completed().unwrap().0.len(), 4);
}

#[test]
fn k3_a_list_is_not_made_again_where_its_items_are_tried_again_in_the_same_round() {
    let world = World::new();
    let lists = Arc::new(AtomicU64::new(0));
    let made = Arc::clone(&lists);
    let mut saga = Saga::builder::<u64>("order").policy(always(RetryFailed));
    let n = saga.input();
    let list = n.map(move |_| vec![10 * made.fetch_add(1, Ordering::SeqCst) + 1; 2]);
    let reserve = saga.add(once(&world, "reserve").for_each(), list);
    let saga = saga.returns(reserve).unwrap();
    world.plan("do reserve[1]", [Act::rejected()]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "completed");
    assert_eq!(lists.load(Ordering::SeqCst), 1);
    let calls = world.calls();
    assert_eq!(calls.len(), 3);
    assert!(calls.iter().all(|call| call.input == "1"), "{calls:?}");
}

#[test]
fn k3_the_items_of_a_list_stay_what_they_were_when_the_closure_has_changed_its_mind() {
    let world = World::new();
    let lists = Arc::new(AtomicU64::new(0));
    let saga = || {
        let lists = Arc::clone(&lists);
        let mut saga = Saga::builder::<u64>("order").policy(always(Compensate));
        let n = saga.input();
        let list = n.map(move |_| {
            let at = lists.fetch_add(1, Ordering::SeqCst);
            vec![10 * at + 1; usize::try_from(at).unwrap() + 2]
        });
        let reserve = saga.add(once(&world, "reserve").for_each(), list);
        saga.add(once(&world, "ship").after(reserve), n);
        saga.returns(reserve).unwrap()
    };
    world.plan("do reserve[1]", [Act::Hangs]);
    world.plan("do ship", [Act::rejected()]);
    world.crash_at(&saga(), 1, "do reserve[1]");
    assert_eq!(world.recover(&saga()).word(), "compensated");
    assert_eq!(lists.load(Ordering::SeqCst), 1);
    assert_eq!(
        world.log(),
        [
            "do reserve[0]",
            "do reserve[1]",
            "do reserve[1]",
            "do ship",
            "undo reserve[1] (done 2)",
            "undo reserve[0] (done 1)"
        ]
    );
    assert!(
        world.calls().iter().all(|call| call.input == "1"),
        "{:?}",
        world.calls()
    );
    let items: Vec<_> = world
        .journal()
        .concat()
        .into_iter()
        .filter_map(|event| match event {
            Event::StepStarted { step, items, .. } => Some((step, items)),
            _ => None,
        })
        .filter(|(step, _)| step == "reserve")
        .collect();
    assert_eq!(items, [("reserve".to_owned(), Some(2))]);
}

#[test]
fn d1_after_an_item_failed_no_item_starts_and_those_in_flight_are_awaited() {
    let world = World::new();
    let item = once(&world, "reserve").for_each().parallel(2);
    let saga = lines(&world, always(Manual), item);
    world.plan("do reserve[0]", [Act::rejected().after(SECOND)]);
    world.plan("do reserve[1]", [Act::Done(5).after(3 * SECOND)]);
    let partial = world.run_to_rest(&saga, 4).partial();
    assert_eq!(
        world.log(),
        [
            "do reserve[0]",
            "do reserve[1]",
            "woke reserve[0]",
            "woke reserve[1]"
        ]
    );
    assert_eq!(world.now(), 3 * SECOND);
    assert_eq!(
        statuses(&partial),
        [
            ("reserve", StepStatus::Failed),
            ("reserve[0]", StepStatus::Failed),
            ("reserve[1]", StepStatus::Done),
            ("reserve[2]", StepStatus::Pending),
            ("reserve[3]", StepStatus::Pending),
            ("ship", StepStatus::Pending)
        ]
    );
}

#[test]
fn d3_a_fan_out_counts_as_one_step_and_a_tolerated_item_counts_for_nothing() {
    // Of four steps of the saga two are done when `fails` fails, whatever many items there are.
    let saw = |items: u64| {
        let world = World::new();
        let mut saga = Saga::builder::<u64>("order").policy(always(Manual));
        let n = saga.input();
        let first = once(&world, "reserve").for_each().tolerate(1);
        let first = saga.add(first, n.map(|n| (0..*n).collect::<Vec<_>>()));
        let second = saga.add(once(&world, "pay").after(first), n);
        let fails = saga.add(once(&world, "fails"), second);
        let last = saga.add(once(&world, "last"), fails);
        let saga = saga.returns(last).unwrap();
        world.plan("do reserve[0]", [Act::rejected()]);
        world.plan("do fails", [Act::rejected()]);
        let partial = world.run_to_rest(&saga, items).partial();
        let saw = partial.why[0].saw.clone();
        assert_eq!(
            (partial.completed, partial.total),
            (saw.completed, saw.total)
        );
        (saw.completed, saw.total)
    };
    assert_eq!(saw(1), (2, 4));
    assert_eq!(saw(40), (2, 4));
}

#[test]
fn d6_a_recovery_of_the_run_grants_attempts_anew_inside_too() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("order").policy(always(RetryFailed).max_recoveries(1));
    let n = saga.input();
    let item = world.step::<u64>("reserve").retry(calls(2)).for_each();
    let reserve = saga.add(item, n.map(|n| vec![*n]));
    let beside = saga.add(once(&world, "beside"), n);
    let saga = saga.returns((reserve, beside)).unwrap();
    // The item has used up one of two attempts when the run recovers from another failure.
    world.plan(
        "do reserve[0]",
        [Act::not_done(), Act::not_done(), Act::Done(3)],
    );
    world.plan("do beside", [Act::rejected().after(SECOND / 2)]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.completed(), Some((vec![3], 2)));
}

#[test]
fn u1_parallel_bounds_undos_as_it_bounds_calls() {
    let most_at_once = |starts: &str, ends: &str, world: &World| {
        let mut most = 0_i32;
        let mut now = 0;
        for line in world.log() {
            if line.starts_with(starts) {
                now += 1;
            } else if line.starts_with(ends) {
                now -= 1;
            }
            most = most.max(now);
        }
        most
    };
    let world = World::new();
    let item = once(&world, "reserve").for_each().parallel(2);
    let saga = lines(&world, always(Compensate), item);
    for item in 0..5 {
        let slow = || Act::Done(1).after(Duration::from_millis(100 + item));
        world.plan(&format!("do reserve[{item}]"), [slow()]);
        world.plan(&format!("undo reserve[{item}]"), [slow()]);
    }
    world.plan("do ship", [Act::rejected()]);
    assert_eq!(world.run_to_rest(&saga, 5).word(), "compensated");
    let log = world.log();
    let ship = log.iter().position(|line| line == "do ship").unwrap();
    assert_eq!((ship, log.len()), (10, 21));
    assert_eq!(most_at_once("do reserve", "woke", &world), 2);
    let mut now = 0_i32;
    let most = log[ship + 1..].iter().map(|line| {
        now += if line.starts_with("undo") { 1 } else { -1 };
        now
    });
    assert_eq!(most.max(), Some(2));
}

#[test]
fn u1_items_are_undone_one_by_one_last_completed_first_where_the_saga_says_so() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("order")
        .policy(always(Compensate))
        .undo_order(UndoOrder::Sequential);
    let n = saga.input();
    let reserve = saga.add(once(&world, "reserve").for_each(), n.map(|n| vec![*n; 3]));
    let ship = saga.add(once(&world, "ship").after(reserve), n);
    let saga = saga.returns(ship).unwrap();
    for (item, wait) in [(0, 2), (1, 3), (2, 1)] {
        world.plan(
            &format!("do reserve[{item}]"),
            [Act::Done(item).after(wait * SECOND)],
        );
        world.plan(
            &format!("undo reserve[{item}]"),
            [Act::Done(0).after(SECOND)],
        );
    }
    world.plan("do ship", [Act::rejected()]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "compensated");
    let undone: Vec<_> = world.log().split_off(7);
    assert_eq!(
        undone,
        [
            "undo reserve[1] (done 1)",
            "woke reserve[1]",
            "undo reserve[0] (done 0)",
            "woke reserve[0]",
            "undo reserve[2] (done 2)",
            "woke reserve[2]"
        ]
    );
}

#[test]
fn u3_an_items_undo_that_fails_holds_up_no_other_and_then_the_run_parks_and_takes_help() {
    let world = World::new();
    let saga = lines(
        &world,
        always(Compensate),
        once(&world, "reserve").for_each(),
    );
    world.plan("do ship", [Act::rejected()]);
    world.plan("undo reserve[0]", [Act::not_done(), Act::not_done()]);
    world.plan("undo reserve[1]", [Act::Done(0).after(9 * SECOND)]);
    let partial = world.run_to_rest(&saga, 3).partial();
    assert_eq!(
        world.log()[4..],
        [
            "undo reserve[2] (done 1)",
            "undo reserve[1] (done 1)",
            "undo reserve[0] (done 1)",
            "undo reserve[0] (done 1)",
            "woke reserve[1]"
        ]
    );
    assert_eq!(
        statuses(&partial)[..4],
        [
            ("reserve", StepStatus::UndoFailed),
            ("reserve[0]", StepStatus::UndoFailed),
            ("reserve[1]", StepStatus::Undone),
            ("reserve[2]", StepStatus::Undone)
        ]
    );
    // An operator's retry grants its attempts anew.
    world.plan("undo reserve[0]", [Act::not_done()]);
    let outcome = world.life(&saga, async |coordinator| {
        ok(&coordinator, plain_retry()).await;
        let run = "r".into();
        let handle = coordinator.attach(&saga, &run).await.unwrap().unwrap();
        handle.outcome().await.unwrap()
    });
    assert_eq!(outcome.word(), "compensated");
    assert_eq!(
        world.log()[9..],
        ["undo reserve[0] (done 1)", "undo reserve[0] (done 1)"]
    );
}

#[test]
fn f3_three_interruptions_of_one_item_park_the_run() {
    let world = World::new();
    let saga = lines(&world, always(Manual), once(&world, "reserve").for_each());
    world.plan("do reserve[1]", [Act::Hangs, Act::Hangs, Act::Hangs]);
    world.crash_at(&saga, 2, "do reserve[1]");
    world.resume_and_crash(&saga, 3);
    world.resume_and_crash(&saga, 4);
    let partial = world.recover(&saga).partial();
    let parking = partial.parked.clone().unwrap();
    assert_eq!(parking.reason, ParkReason::Interrupted);
    assert!(
        parking
            .message
            .starts_with("step `reserve[1]` was interrupted 3 times")
    );
    assert_eq!(
        world.log(),
        [
            "do reserve[0]",
            "do reserve[1]",
            "do reserve[1]",
            "do reserve[1]"
        ]
    );
    let item = partial.step("reserve[1]").unwrap();
    assert_eq!((item.attempts, item.effect), (3, EffectReport::InDoubt));
}

#[test]
fn f5_a_stop_in_an_item_ends_the_run_and_keeps_what_is_done_and_settles_doubts() {
    let world = World::new();
    let item = world.step::<u64>("reserve").retry(calls(5)).for_each();
    let saga = lines(&world, always(Manual), item);
    world.plan(
        "do reserve[0]",
        [Act::Fails(StepError::stop("enough")).after(SECOND / 2)],
    );
    world.plan("do reserve[1]", [Act::in_doubt()]);
    world.plan("do reserve[2]", [Act::Done(7).after(3 * SECOND)]);
    let outcome = world.run_to_rest(&saga, 3);
    assert_eq!(outcome.word(), "stopped");
    assert_eq!(
        world.log(),
        [
            "do reserve[0]",
            "do reserve[1]",
            "do reserve[2]",
            "woke reserve[0]",
            "woke reserve[2]",
            "undo reserve[1] (in doubt)"
        ]
    );
    let partial = outcome.partial();
    assert_eq!(partial.stopped.as_deref(), Some("enough"));
    let outstanding: Vec<_> = partial
        .outstanding
        .iter()
        .map(|o| (&*o.step, o.effect))
        .collect();
    assert_eq!(outstanding, [("reserve[2]", EffectReport::Done)]);
}

#[test]
fn s4_compensate_undoes_what_items_that_failed_and_their_siblings_have_left() {
    let world = World::new();
    let saga = lines(
        &world,
        always(Compensate),
        once(&world, "reserve").for_each(),
    );
    world.plan("do reserve[1]", [Act::lost()]);
    world.plan("do reserve[2]", [Act::rejected()]);
    let outcome = world.run_to_rest(&saga, 4);
    assert_eq!(outcome.word(), "compensated");
    assert_eq!(
        world.log()[4..],
        [
            "undo reserve[3] (done 1)",
            "undo reserve[1] (in doubt)",
            "undo reserve[0] (done 1)"
        ]
    );
    let partial = outcome.partial();
    assert_eq!(partial.outstanding, []);
    let saw = &partial.why[0].saw;
    assert_eq!((&*saw.step, saw.effect), ("reserve", FailedEffect::InDoubt));
}

#[test]
fn n1_who_failed_is_told_and_what_finished_keeps_its_output_over_a_thousand_orders_of_completion() {
    for seed in 0..1_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let world = World::new();
        let mut child = Saga::builder::<u64>("child").policy(always(Compensate));
        let n = child.input();
        let work = child.add(once(&world, "work"), n);
        let child = child.returns(work).unwrap();
        let mut saga = Saga::builder::<u64>("order").policy(always(Manual));
        let n = saga.input();
        let items = saga.add(once(&world, "item").for_each(), n.map(|n| vec![*n; 4]));
        let one = saga.add(step("one", &child), n);
        let two = saga.add(once(&world, "two"), n);
        let saga = saga.returns((items, one, two)).unwrap();
        let names = [
            "item[0]", "item[1]", "item[2]", "item[3]", "one/work", "two",
        ];
        let fails = random.usize(..names.len());
        let mut waits = [0; 6];
        for (at, name) in names.iter().enumerate() {
            waits[at] = random.u64(..50);
            let act = if at == fails {
                Act::rejected()
            } else {
                Act::Done(at as u64 + 100)
            };
            world.plan(
                &format!("do {name}"),
                [act.after(Duration::from_millis(waits[at]))],
            );
        }
        let partial = world.run_to_rest(&saga, 1).partial();
        for (at, name) in names.iter().enumerate() {
            let output = partial.output::<u64>(name).unwrap().map(|output| *output);
            let wanted = (at != fails).then_some(at as u64 + 100);
            assert_eq!(output, wanted, "seed {seed}: {name} of {waits:?}");
        }
        let one = partial.output::<u64>("one").unwrap().map(|output| *output);
        assert_eq!(one, (fails != 4).then_some(104), "seed {seed}");
        // What failed is told by its name: an item, the child as one step of the parent, a step of the parent.
        let failing = if fails == 4 { "one" } else { names[fails] };
        assert_eq!(
            partial.failing_step.as_deref(),
            Some(failing),
            "seed {seed}"
        );
        assert_eq!(
            partial.failure_mode,
            Some(FailureMode::StepValidation),
            "seed {seed}"
        );
        let failed: Vec<_> = partial
            .steps
            .iter()
            .filter(|step| step.status == StepStatus::Failed)
            .map(|step| &*step.name)
            .collect();
        let wanted = match fails {
            0..4 => vec!["item", names[fails]],
            4 => vec!["one", "one/work"],
            _ => vec!["two"],
        };
        assert_eq!(failed, wanted, "seed {seed}");
    }
}

#[test]
fn n1_a_cancel_is_told_from_a_failure_over_a_thousand_orders_of_completion() {
    for seed in 0..1_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let world = World::new();
        let mut child = Saga::builder::<u64>("child").policy(always(Manual));
        let n = child.input();
        let work = child.add(once(&world, "work"), n);
        let child = child.returns(work).unwrap();
        let mut saga = Saga::builder::<u64>("order").policy(always(Manual));
        let n = saga.input();
        let items = saga.add(step("item", &child).for_each(), n.map(|n| vec![*n; 3]));
        let two = saga.add(once(&world, "two"), n);
        let saga = saga.returns((items, two)).unwrap();
        let names = ["item[0]/work", "item[1]/work", "item[2]/work", "two"];
        let mut wait = || Duration::from_millis(random.u64(1..50));
        for name in names {
            world.plan(&format!("do {name}"), [Act::Done(7).after(wait())]);
        }
        let cancelled_after = wait();
        let outcome = world.life(&saga, async |coordinator| {
            let run = coordinator.start(&saga, "r", 1).await.unwrap();
            tokio::time::sleep(cancelled_after).await;
            let told = coordinator.cancel(&"r".into(), "ann", "enough").await;
            (told.is_ok(), run.outcome().await.unwrap())
        });
        let (told, outcome) = outcome;
        let partial = outcome.partial();
        if !told {
            // It came after the end.
            assert_eq!(outcome.word(), "completed", "seed {seed}");
            continue;
        }
        assert_eq!(outcome.word(), "compensated", "seed {seed}");
        assert_eq!(partial.cause, Some(journal::Cause::Cancel), "seed {seed}");
        assert_eq!(
            (&partial.failing_step, &partial.failure_mode),
            (&None, &None),
            "seed {seed}"
        );
        // Whatever was called has come in, and is undone; nothing has failed.
        for name in names {
            let step = partial.step(name).unwrap();
            assert_eq!(step.status, StepStatus::Undone, "seed {seed}: {name}");
            assert_eq!(world.calls_of(&format!("undo {name}")).len(), 1);
        }
        assert_eq!(partial.outstanding, [], "seed {seed}");
    }
}
