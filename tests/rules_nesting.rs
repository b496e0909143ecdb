//! Rules N1 and N2: a saga inside a saga. Also what C1, D1, D6, F3, F5, I4, K2, S1 to S4, U1 and U3 mean there.

// The helpers of this file aren't test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;
mod operators;

use amends::journal::{ParkReason, Verb};
use amends::policy::{Condition, Rule};
use amends::*;
use common::*;
use operators::*;

use RecoveryStrategy::{Compensate, Manual, RetryAll, RetryFailed, RetryFromCheckpoint};

fn always(strategy: RecoveryStrategy) -> RecoveryPolicy {
    RecoveryPolicy::new("always", strategy).backoff(calls(9))
}

/// `pick`, then `pack`, one attempt each: what `fulfil` is made of in most tests.
fn fulfilment(world: &World, policy: RecoveryPolicy) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("fulfilment").policy(policy);
    let n = saga.input();
    let one = |name: &str| world.step::<u64>(name).retry(Retry::none());
    let pick = saga.add(one("pick").compensation_retry(calls(2)), n);
    let pack = saga.add(one("pack").compensation_retry(calls(2)), pick);
    saga.returns(pack).unwrap()
}

/// `pay`, then this saga as `fulfil`, then `mail`.
fn order(world: &World, policy: RecoveryPolicy, child: &Saga<u64, u64>) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("order").policy(policy);
    let n = saga.input();
    let one = |name: &str| world.step::<u64>(name).retry(Retry::none());
    let pay = saga.add(one("pay"), n);
    let fulfil = saga.add(step("fulfil", child), pay);
    let mail = saga.add(one("mail"), fulfil);
    saga.returns(mail).unwrap()
}

/// Takes run `r` up again, asks for these verbs, and drives it until it ends or is parked.
fn told<O: Payload>(
    world: &World,
    saga: &Saga<u64, O>,
    verbs: impl IntoIterator<Item = Verb>,
) -> Outcome<O> {
    world.life(saga, async |coordinator| {
        for verb in verbs {
            ok(&coordinator, verb).await;
        }
        let run = coordinator.attach(saga, &"r".into()).await.unwrap();
        run.unwrap().outcome().await.unwrap()
    })
}

fn stands(partial: &PartialResult) -> Vec<(&str, StepStatus, EffectReport)> {
    let steps = partial.steps.iter();
    steps
        .map(|step| (&*step.name, step.status, step.effect))
        .collect()
}

fn outstanding(partial: &PartialResult) -> Vec<(&str, EffectReport)> {
    let outstanding = partial.outstanding.iter();
    outstanding
        .map(|stands| (&*stands.step, stands.effect))
        .collect()
}

#[test]
fn n1_a_child_that_compensates_undoes_itself_and_is_one_failure_that_left_nothing() {
    let world = World::new();
    let child = fulfilment(&world, always(Compensate));
    let saga = order(&world, always(Manual), &child);
    world.plan("do fulfil/pack", [Act::rejected()]);
    let partial = world.run_to_rest(&saga, 1).partial();
    assert_eq!(
        world.log(),
        [
            "do pay",
            "do fulfil/pick",
            "do fulfil/pack",
            "undo fulfil/pick (done 1)"
        ]
    );
    assert_eq!(
        world.story(),
        [
            "run started",
            "start pay 1",
            "done pay",
            "start fulfil 1",
            "start fulfil/pick 1",
            "done fulfil/pick",
            "start fulfil/pack 1",
            "failed fulfil/pack",
            "decided compensate in fulfil",
            "undo fulfil/pick 1",
            "undone fulfil/pick",
            "failed fulfil",
            "decided manual",
            "parked manual"
        ]
    );
    // The parent is told of one failure, of the child's mode, that left nothing.
    assert_eq!(partial.why.len(), 1);
    let saw = &partial.why[0].saw;
    assert_eq!(
        (&*saw.step, &saw.mode, saw.effect),
        (
            "fulfil",
            &FailureMode::StepValidation,
            failure::FailedEffect::NotDone
        )
    );
    assert_eq!(
        stands(&partial),
        [
            ("pay", StepStatus::Done, EffectReport::Done),
            ("fulfil", StepStatus::Failed, EffectReport::NotDone),
            ("fulfil/pick", StepStatus::Undone, EffectReport::NotDone),
            ("fulfil/pack", StepStatus::Failed, EffectReport::NotDone),
            ("mail", StepStatus::Pending, EffectReport::NotDone)
        ]
    );
    assert_eq!(outstanding(&partial), [("pay", EffectReport::Done)]);
}

#[test]
fn n1_a_childs_policy_sees_its_own_steps_by_the_names_that_they_have_in_it() {
    // The same definition is driven alone and inside another, and its rules match there as here.
    let about_pack = || Rule::new("pack", Manual).when(Condition::Step("pack".to_owned()));
    for nested in [false, true] {
        let world = World::new();
        let child = fulfilment(&world, always(Compensate).rule(about_pack()));
        let partial = if nested {
            let saga = order(&world, always(Compensate), &child);
            world.plan("do fulfil/pack", [Act::rejected()]);
            world.run_to_rest(&saga, 1).partial()
        } else {
            world.plan("do pack", [Act::rejected()]);
            world.run_to_rest(&child, 1).partial()
        };
        assert_eq!(partial.why[0].rule, "pack", "nested: {nested}");
        assert_eq!(partial.strategy, Some(Manual));
    }
}

#[test]
fn n1_a_childs_manual_parks_the_whole_run_with_all_that_stands() {
    let world = World::new();
    let child = fulfilment(&world, always(Manual));
    let mut saga = Saga::builder::<u64>("order").policy(always(Compensate));
    let n = saga.input();
    let pay = saga.add(world.step("pay"), n);
    let fulfil = saga.add(step("fulfil", &child), pay);
    let beside = saga.add(world.step("beside"), pay);
    let late = saga.add(world.step("late"), beside);
    let saga = saga.returns((fulfil, late)).unwrap();
    world.plan("do fulfil/pack", [Act::lost()]);
    world.plan("do beside", [Act::Done(5).after(9 * SECOND)]);
    let outcome = world.run_to_rest(&saga, 1);
    let partial = outcome.partial();
    assert_eq!(outcome.word(), "parked");
    // What is in flight in the parent is awaited, and nothing starts there any more.
    assert_eq!(
        world.log(),
        [
            "do pay",
            "do fulfil/pick",
            "do beside",
            "do fulfil/pack",
            "woke beside"
        ]
    );
    let parking = partial.parked.clone().unwrap();
    assert_eq!(parking.reason, ParkReason::Manual);
    assert_eq!(
        parking.message,
        "`fulfil/pack` failed; rule `otherwise` of policy `always` says manual"
    );
    assert_eq!(partial.failing_step.as_deref(), Some("fulfil/pack"));
    assert_eq!(partial.failure_mode, Some(FailureMode::SystemNetwork));
    assert_eq!(
        outstanding(&partial),
        [
            ("pay", EffectReport::Done),
            ("fulfil/pick", EffectReport::Done),
            ("fulfil/pack", EffectReport::InDoubt),
            ("beside", EffectReport::Done)
        ]
    );
}

#[test]
fn n1_a_childs_own_undo_that_fails_for_good_parks_the_whole_run() {
    let world = World::new();
    let child = fulfilment(&world, always(Compensate));
    let saga = order(&world, always(Compensate), &child);
    world.plan("do fulfil/pack", [Act::rejected()]);
    world.plan("undo fulfil/pick", [Act::not_done(), Act::not_done()]);
    let partial = world.run_to_rest(&saga, 1).partial();
    assert_eq!(
        world.log(),
        [
            "do pay",
            "do fulfil/pick",
            "do fulfil/pack",
            "undo fulfil/pick (done 1)",
            "undo fulfil/pick (done 1)"
        ]
    );
    let parking = partial.parked.clone().unwrap();
    assert_eq!(parking.reason, ParkReason::CompensationFailed);
    assert_eq!(
        parking.message,
        "the undo failed for good of `fulfil/pick` (refused)"
    );
    assert_eq!(
        stands(&partial)[1..4],
        [
            ("fulfil", StepStatus::Running, EffectReport::InDoubt),
            ("fulfil/pick", StepStatus::UndoFailed, EffectReport::Done),
            ("fulfil/pack", StepStatus::Failed, EffectReport::NotDone)
        ]
    );
    // With its attempts granted anew it goes on to where it was going.
    world.plan("undo fulfil/pick", [Act::not_done()]);
    let outcome = told(&world, &saga, [plain_retry()]);
    assert_eq!(outcome.word(), "compensated");
    assert_eq!(
        world.log()[5..],
        [
            "undo fulfil/pick (done 1)",
            "undo fulfil/pick (done 1)",
            "undo pay (done 1)"
        ]
    );
}

#[test]
fn n1_a_failed_child_a_failed_step_and_a_parked_child_are_told_apart() {
    // What failed is one of the parent's own steps, of which one is a child.
    let ends = |fails: &str, child: RecoveryPolicy| {
        let world = World::new();
        let child = fulfilment(&world, child);
        let saga = order(&world, always(Compensate), &child);
        world.plan(fails, [Act::rejected()]);
        let outcome = world.run_to_rest(&saga, 1);
        let partial = outcome.partial();
        let fulfil = partial.step("fulfil").unwrap();
        let pack = partial.step("fulfil/pack").unwrap();
        (
            outcome.word(),
            partial.failing_step.clone().unwrap(),
            fulfil.status,
            pack.status,
            fulfil.failure.as_ref().map(ToString::to_string),
        )
    };
    use StepStatus::{Failed, Running, Undone};
    let (word, failing, fulfil, pack, why) = ends("do fulfil/pack", always(Compensate));
    assert_eq!((word, &*failing), ("compensated", "fulfil"));
    assert_eq!((fulfil, pack), (Failed, Failed));
    assert!(
        why.unwrap()
            .contains("`fulfilment` failed and was undone: no")
    );
    let (word, failing, fulfil, pack, why) = ends("do mail", always(Compensate));
    assert_eq!((word, &*failing), ("compensated", "mail"));
    assert_eq!((fulfil, pack, why), (Undone, Undone, None));
    let (word, failing, fulfil, pack, why) = ends("do fulfil/pack", always(Manual));
    assert_eq!((word, &*failing), ("parked", "fulfil/pack"));
    assert_eq!((fulfil, pack, why), (Running, Failed, None));
}

#[test]
fn k2_a_step_inside_goes_on_counting_its_rounds_when_the_whole_is_undone() {
    let world = World::new();
    let child = fulfilment(&world, always(Compensate));
    let saga = order(&world, always(RetryAll).max_recoveries(2), &child);
    // First the child's own failure, then the parent's, then success.
    world.plan("do fulfil/pack", [Act::rejected()]);
    world.plan("do mail", [Act::rejected()]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "completed");
    let uid = world.calls_of("do pay")[0]
        .key
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    let keys = |call: &str| -> Vec<String> {
        let calls = world.calls_of(call).into_iter();
        let key = |key: String| key.strip_prefix(&*uid).unwrap().to_owned();
        calls.map(|call| key(call.key)).collect()
    };
    assert_eq!(
        keys("do fulfil/pick"),
        ["/fulfil/pick/1", "/fulfil/pick/2", "/fulfil/pick/3"]
    );
    // It was refused in its first round, which left nothing to undo.
    assert_eq!(
        keys("do fulfil/pack"),
        ["/fulfil/pack/1", "/fulfil/pack/1", "/fulfil/pack/2"]
    );
    assert_eq!(
        keys("undo fulfil/pick"),
        ["/fulfil/pick/1/undo", "/fulfil/pick/2/undo"]
    );
    assert_eq!(keys("undo fulfil/pack"), ["/fulfil/pack/1/undo"]);
    let partial = outcome.partial();
    let rounds: Vec<_> = partial
        .steps
        .iter()
        .map(|step| (&*step.name, step.round))
        .collect();
    assert_eq!(
        rounds,
        [
            ("pay", 3),
            ("fulfil", 3),
            ("fulfil/pick", 3),
            ("fulfil/pack", 2),
            ("mail", 1)
        ]
    );
}

#[test]
fn d6_recoveries_of_children_are_counted_on_the_run() {
    let world = World::new();
    let child = fulfilment(&world, always(RetryFailed).max_recoveries(3));
    let saga = order(&world, always(RetryFailed).max_recoveries(3), &child);
    world.plan("do fulfil/pick", [Act::not_done(), Act::Done(1)]);
    world.plan("do fulfil/pack", [Act::not_done(), Act::Done(1)]);
    world.plan("do mail", [Act::not_done(), Act::not_done()]);
    let partial = world.run_to_rest(&saga, 1).partial();
    assert_eq!(partial.recoveries, 3);
    let decided: Vec<String> = world
        .story()
        .into_iter()
        .filter(|event| event.starts_with("decided"))
        .collect();
    assert_eq!(
        decided,
        [
            "decided retry_failed in fulfil",
            "decided retry_failed in fulfil",
            "decided retry_failed",
            "decided manual"
        ]
    );
    assert_eq!(
        partial.why[0].overruled.as_deref(),
        Some("retry_failed is not available: all 3 recoveries are used up")
    );
}

#[test]
fn s1_retry_failed_of_the_parent_keeps_what_is_done_inside() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("order").policy(always(RetryFailed).max_recoveries(1));
    let n = saga.input();
    let item = world.step::<u64>("reserve").retry(Retry::none());
    let reserve = saga.add(item.for_each(), n.map(|n| vec![*n, n + 1, n + 2]));
    let saga = saga.returns(reserve).unwrap();
    world.plan("do reserve[1]", [Act::lost()]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(
        world.log(),
        [
            "do reserve[0]",
            "do reserve[1]",
            "do reserve[2]",
            "do reserve[1]"
        ]
    );
    let calls = world.calls_of("do reserve[1]");
    assert_eq!(calls[0].key, calls[1].key);
    assert_eq!(outcome.completed(), Some(vec![1, 2, 1]));
}

#[test]
fn s2_retry_from_checkpoint_keeps_a_child_that_is_done_and_undoes_one_that_is_not() {
    let world = World::new();
    let mut saga =
        Saga::builder::<u64>("order").policy(always(RetryFromCheckpoint).max_recoveries(1));
    let child = fulfilment(&world, always(RetryAll));
    let n = saga.input();
    let first = saga.add(step("first", &child).checkpoint(), n);
    let second = saga.add(step("second", &child).checkpoint(), first);
    let beside = saga.add(world.step("beside").retry(Retry::none()), first);
    let saga = saga.returns((second, beside)).unwrap();
    world.plan("do second/pack", [Act::Done(1).after(SECOND)]);
    world.plan("do beside", [Act::rejected().after(SECOND / 2)]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "completed");
    assert_eq!(
        world.log(),
        [
            "do first/pick",
            "do first/pack",
            "do second/pick",
            "do beside",
            "do second/pack",
            "woke beside",
            "woke second/pack",
            "do beside"
        ]
    );
}
