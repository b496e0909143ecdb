//! Rules N1 and N2: a saga inside a saga. Also what C1, D1, D6, F3, F5, I4, K2, S1 to S4, U1 and U3 mean there.

// The helpers of this file aren't test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::similar_names,
    clippy::items_after_statements,
    reason = "it reads as it is meant"
)]

mod common;
mod operators;

use amends::journal::{CancelTold, ParkReason, Verb, VerbName};
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

#[test]
fn d1_a_failure_inside_a_child_stops_starts_in_the_child_only_until_the_child_has_failed() {
    let world = World::new();
    let mut child = Saga::builder::<u64>("child").policy(always(Compensate));
    let n = child.input();
    let one = |name: &str| world.step::<u64>(name).retry(Retry::none());
    let fails = child.add(one("fails"), n);
    let slow = child.add(one("slow"), n);
    let next = child.add(one("next"), slow);
    let child = child.returns((fails, next)).unwrap();
    let mut saga = Saga::builder::<u64>("order").policy(always(Compensate));
    let n = saga.input();
    let inner = saga.add(step("inner", &child), n);
    let beside = saga.add(one("beside"), n);
    let after = saga.add(one("after"), beside);
    let later = saga.add(one("later"), after);
    let saga = saga.returns((inner, later)).unwrap();
    world.plan("do inner/fails", [Act::rejected().after(SECOND)]);
    world.plan("do inner/slow", [Act::Done(1).after(4 * SECOND)]);
    world.plan("do beside", [Act::Done(1).after(2 * SECOND)]);
    world.plan("do after", [Act::Done(1).after(4 * SECOND)]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "compensated");
    assert_eq!(
        world.log(),
        [
            "do inner/fails",
            "do inner/slow",
            "do beside",
            // The child's failure is its own affair so far.
            "woke inner/fails",
            "woke beside",
            "do after",
            "woke inner/slow",
            "undo inner/slow (done 1)",
            // Now it has failed, and nothing starts in the parent, either.
            "woke after",
            "undo after (done 1)",
            "undo beside (done 1)"
        ]
    );
}

#[test]
fn d3_a_child_counts_as_one_step_of_its_parent_and_its_policy_counts_its_own() {
    // What the preset decides where so many of so many steps are done.
    let decided = |done: usize, total: usize, expected: &str| {
        let world = World::new();
        let mut pair = Saga::builder::<u64>("pair");
        let n = pair.input();
        let one = pair.add(world.step("one"), n);
        let two = pair.add(world.step("two"), one);
        let pair = pair.returns(two).unwrap();
        let mut saga = Saga::builder::<u64>("order").policy(RecoveryPolicy::by_progress());
        let n = saga.input();
        let mut last = n;
        for at in 0..done {
            last = saga.add(step(format!("done-{at}"), &pair), last);
        }
        last = saga.add(world.step("fails").retry(Retry::none()), last);
        for at in done + 1..total {
            last = saga.add(step(format!("waits-{at}"), &pair), last);
        }
        let saga = saga.returns(last).unwrap();
        world.plan("do fails", [Act::not_done()]);
        let partial = world.run_to_rest(&saga, 1).partial();
        assert_eq!(partial.completed as usize, total);
        let saw = &partial.why[0].saw;
        assert_eq!((saw.completed as usize, saw.total as usize), (done, total));
        let story = world.story();
        let first = story.iter().find(|event| event.starts_with("decided"));
        assert_eq!(first.unwrap(), expected, "{done} of {total}");
    };
    decided(3, 4, "decided retry_failed");
    decided(2, 3, "decided retry_from_checkpoint");
    decided(1, 4, "decided retry_from_checkpoint");
    decided(1, 5, "decided retry_all");
    decided(0, 1, "decided retry_all");
}

#[test]
fn f3_three_interruptions_of_one_step_inside_a_child_park_the_run() {
    let world = World::new();
    let child = fulfilment(&world, always(Compensate));
    let saga = order(&world, always(Compensate), &child);
    world.plan("do fulfil/pack", [Act::Hangs, Act::Hangs, Act::Hangs]);
    world.crash_at(&saga, 1, "do fulfil/pack");
    world.resume_and_crash(&saga, 4);
    world.resume_and_crash(&saga, 5);
    let partial = world.recover(&saga).partial();
    assert_eq!(
        partial.parked.clone().unwrap().reason,
        ParkReason::Interrupted
    );
    assert_eq!(
        world.log(),
        [
            "do pay",
            "do fulfil/pick",
            "do fulfil/pack",
            "do fulfil/pack",
            "do fulfil/pack"
        ]
    );
    // Somebody says that it is not the step that brings the process down.
    assert_eq!(told(&world, &saga, [plain_retry()]).word(), "completed");
    assert_eq!(world.log()[5..], ["do fulfil/pack", "do mail"]);
    let keys: Vec<_> = world
        .calls_of("do fulfil/pack")
        .into_iter()
        .map(|call| call.key)
        .collect();
    assert_eq!(keys, vec![keys[0].clone(); 4]);
}

#[test]
fn f5_a_stop_inside_a_child_stops_the_whole_run_and_keeps_what_is_done() {
    let world = World::new();
    let child = fulfilment(&world, always(Compensate));
    let mut saga = Saga::builder::<u64>("order").policy(always(Compensate));
    let n = saga.input();
    let pay = saga.add(world.step("pay"), n);
    let one = saga.add(step("one", &child), pay);
    let two = saga.add(step("two", &child), pay);
    let saga = saga.returns((one, two)).unwrap();
    world.plan("do one/pick", [Act::Done(1).after(2 * SECOND)]);
    world.plan(
        "do two/pack",
        [Act::Fails(StepError::stop("enough")).after(SECOND)],
    );
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "stopped");
    assert_eq!(
        world.log(),
        [
            "do pay",
            "do one/pick",
            "do two/pick",
            "do two/pack",
            "woke two/pack",
            "woke one/pick"
        ]
    );
    let partial = outcome.partial();
    assert_eq!(partial.stopped.as_deref(), Some("enough"));
    assert_eq!(
        outstanding(&partial),
        [
            ("pay", EffectReport::Done),
            ("one/pick", EffectReport::Done),
            ("two/pick", EffectReport::Done)
        ]
    );
    assert_eq!(
        partial.step("two/pack").unwrap().status,
        StepStatus::Stopped
    );
}

#[test]
fn f5_a_stop_inside_a_child_settles_doubts_in_other_children_and_else_parks() {
    let stopped = |undo: Vec<Act>| {
        let world = World::new();
        let mut child = Saga::builder::<u64>("child").policy(always(Manual));
        let n = child.input();
        let work = world
            .step("work")
            .retry(calls(9))
            .compensation_retry(calls(2));
        let work = child.add(work, n);
        let child = child.returns(work).unwrap();
        let mut saga = Saga::builder::<u64>("order").policy(always(Manual));
        let n = saga.input();
        let one = saga.add(step("one", &child), n);
        let two = saga.add(step("two", &child), n);
        let saga = saga.returns((one, two)).unwrap();
        world.plan("do one/work", [Act::in_doubt()]);
        world.plan(
            "do two/work",
            [Act::Fails(StepError::stop("enough")).after(SECOND / 2)],
        );
        world.plan("undo one/work", undo);
        let outcome = world.run_to_rest(&saga, 1);
        (outcome.word(), world.log().split_off(3))
    };
    assert_eq!(
        stopped(vec![]),
        ("stopped", vec!["undo one/work (in doubt)".to_owned()])
    );
    assert_eq!(
        stopped(vec![Act::not_done(), Act::not_done()]),
        ("parked", vec!["undo one/work (in doubt)".to_owned(); 2])
    );
}

#[test]
fn u1_undo_order_is_the_reverse_across_levels() {
    let world = World::new();
    let mut inner = Saga::builder::<u64>("inner");
    let n = inner.input();
    let first = inner.add(world.step("first"), n);
    let second = inner.add(world.step("second"), first);
    let inner = inner.returns(second).unwrap();
    let mut middle = Saga::builder::<u64>("middle");
    let n = middle.input();
    let before = middle.add(world.step("before"), n);
    let deep = middle.add(step("deep", &inner), before);
    let after = middle.add(world.step("after"), deep);
    let middle = middle.returns(after).unwrap();
    let mut saga = Saga::builder::<u64>("outer").policy(always(Compensate));
    let n = saga.input();
    let pay = saga.add(world.step("pay"), n);
    let middle = saga.add(step("mid", &middle), pay);
    let mail = saga.add(world.step("mail"), middle);
    saga.add(world.step("fails").retry(Retry::none()), mail);
    let saga = saga.returns(mail).unwrap();
    world.plan("do fails", [Act::rejected()]);
    for slow in [
        "mail",
        "mid/after",
        "mid/deep/second",
        "mid/deep/first",
        "mid/before",
    ] {
        world.plan(&format!("undo {slow}"), [Act::Done(0).after(SECOND)]);
    }
    assert_eq!(world.run_to_rest(&saga, 1).word(), "compensated");
    assert_eq!(
        world.log()[7..],
        [
            "undo mail (done 1)",
            "woke mail",
            "undo mid/after (done 1)",
            "woke mid/after",
            "undo mid/deep/second (done 1)",
            "woke mid/deep/second",
            "undo mid/deep/first (done 1)",
            "woke mid/deep/first",
            "undo mid/before (done 1)",
            "woke mid/before",
            "undo pay (done 1)"
        ]
    );
}

#[test]
fn u1_one_by_one_a_child_that_is_under_way_is_undone_before_what_was_done_beside_it() {
    let world = World::new();
    let child = fulfilment(&world, always(Compensate));
    let mut saga = Saga::builder::<u64>("order")
        .policy(always(Compensate))
        .undo_order(UndoOrder::Sequential);
    let n = saga.input();
    let fulfil = saga.add(step("fulfil", &child), n);
    let beside = saga.add(world.step("beside"), n);
    let saga = saga.returns((fulfil, beside)).unwrap();
    world.plan("do beside", [Act::Done(1).after(SECOND)]);
    world.plan("do fulfil/pick", [Act::Done(1).after(3 * SECOND)]);
    let outcome = world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        world.until("woke beside").await;
        ok(&coordinator, Verb::Cancel).await;
        run.outcome().await.unwrap()
    });
    assert_eq!(outcome.word(), "compensated");
    assert_eq!(
        world.log(),
        [
            "do fulfil/pick",
            "do beside",
            "woke beside",
            "woke fulfil/pick",
            "undo fulfil/pick (done 1)",
            "undo beside (done 1)"
        ]
    );
}

#[test]
fn u3_an_undo_that_fails_inside_a_child_holds_up_only_what_it_depends_on_then_the_run_parks() {
    let world = World::new();
    let child = fulfilment(&world, always(Manual));
    let mut saga = Saga::builder::<u64>("order").policy(always(Compensate));
    let n = saga.input();
    let pay = saga.add(world.step("pay"), n);
    let one = saga.add(step("one", &child), pay);
    let two = saga.add(step("two", &child), n);
    let tests = saga.add(
        world.step::<(u64, u64)>("fails").retry(Retry::none()),
        (one, two),
    );
    let saga = saga.returns(tests).unwrap();
    world.plan("do fails", [Act::rejected()]);
    world.plan("undo one/pack", [Act::not_done(), Act::not_done()]);
    world.plan("undo two/pack", [Act::Done(0).after(9 * SECOND)]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "parked");
    let undos = |world: &World| -> Vec<String> {
        let log = world.log().into_iter();
        log.filter(|line| line.starts_with("undo")).collect()
    };
    assert_eq!(
        undos(&world),
        [
            "undo two/pack (done 1)",
            "undo one/pack (done 1)",
            "undo one/pack (done 1)",
            "undo two/pick (done 1)"
        ]
    );
    let partial = outcome.partial();
    assert_eq!(
        partial.parked.clone().unwrap().reason,
        ParkReason::CompensationFailed
    );
    assert_eq!(
        outstanding(&partial),
        [
            ("pay", EffectReport::Done),
            ("one/pick", EffectReport::Done),
            ("one/pack", EffectReport::Done)
        ]
    );
    world.plan("undo one/pack", [Act::not_done()]);
    assert_eq!(told(&world, &saga, [plain_retry()]).word(), "compensated");
    assert_eq!(
        undos(&world)[4..],
        [
            "undo one/pack (done 1)",
            "undo one/pack (done 1)",
            "undo one/pick (done 1)",
            "undo pay (done 1)"
        ]
    );
}

#[test]
fn u4_undos_inside_a_child_that_were_interrupted_are_called_again_with_their_keys() {
    let world = World::new();
    let child = fulfilment(&world, always(Compensate));
    let saga = order(&world, always(Compensate), &child);
    world.plan("do mail", [Act::rejected()]);
    world.plan("undo fulfil/pick", [Act::Hangs]);
    world.crash_at(&saga, 1, "undo fulfil/pick (done 1)");
    assert_eq!(world.recover(&saga).word(), "compensated");
    assert_eq!(
        world.log()[4..],
        [
            "undo fulfil/pack (done 1)",
            "undo fulfil/pick (done 1)",
            "undo fulfil/pick (done 1)",
            "undo pay (done 1)"
        ]
    );
    let keys: Vec<_> = world
        .calls_of("undo fulfil/pick")
        .into_iter()
        .map(|call| call.key)
        .collect();
    assert_eq!(keys[0], keys[1]);
}

#[test]
fn c1_a_cancel_while_a_child_is_under_way_awaits_its_calls_and_undoes_it() {
    let world = World::new();
    let child = fulfilment(&world, always(RetryFailed));
    let saga = order(&world, always(RetryFailed), &child);
    world.plan("do fulfil/pick", [Act::Done(4).after(2 * SECOND)]);
    let outcome = world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        world.until("do fulfil/pick").await;
        let told = ok(&coordinator, Verb::Cancel).await;
        assert_eq!(told, Some(CancelTold::Accepted));
        run.outcome().await.unwrap()
    });
    assert_eq!(outcome.word(), "compensated");
    assert_eq!(
        world.log(),
        [
            "do pay",
            "do fulfil/pick",
            "woke fulfil/pick",
            "undo fulfil/pick (done 4)",
            "undo pay (done 1)"
        ]
    );
    let partial = outcome.partial();
    assert_eq!(partial.failing_step, None);
    assert_eq!(partial.step("fulfil").unwrap().status, StepStatus::Undone);
    // Nothing is under way in a run that has ended.
    for step in &partial.steps {
        for call in &step.calls {
            assert_ne!(call.end, CallEnd::UnderWay, "{}", step.name);
        }
    }
}

#[test]
fn c1_after_the_cancel_nothing_starts_inside_a_child_on_recovery_neither() {
    let world = World::new();
    let child = fulfilment(&world, always(RetryFailed));
    let saga = order(&world, always(RetryFailed), &child);
    world.plan("do fulfil/pick", [Act::Hangs]);
    world.life(&saga, async |coordinator| {
        let _run = coordinator.start(&saga, "r", 1).await.unwrap();
        world.until("do fulfil/pick").await;
        ok(&coordinator, Verb::Cancel).await;
    });
    assert_eq!(world.recover(&saga).word(), "compensated");
    assert_eq!(
        world.log(),
        [
            "do pay",
            "do fulfil/pick",
            "undo fulfil/pick (in doubt)",
            "undo pay (done 1)"
        ]
    );
}

/// `a`, then the pivot `charge`, then `b`: a child that is the pivot of its parent, which has `pay` before it
/// and `mail` after it.
fn with_pivot(world: &World, policy: RecoveryPolicy) -> Saga<u64, u64> {
    let mut child = Saga::builder::<u64>("child").policy(policy.clone());
    let n = child.input();
    let one = |name: &str| world.step::<u64>(name).retry(Retry::none());
    let a = child.add(one("a"), n);
    let charge = world.irreversible::<u64>("charge").retry(Retry::none());
    let charge = child.add(charge.probe(world.probe()).pivot(), a);
    let b = child.add(one("b"), charge);
    let child = child.returns(b).unwrap();
    let mut saga = Saga::builder::<u64>("order").policy(policy);
    let n = saga.input();
    let pay = saga.add(one("pay"), n);
    let inner = saga.add(step("inner", &child).pivot(), pay);
    let mail = saga.add(one("mail"), inner);
    saga.returns(mail).unwrap()
}

#[test]
fn c1_a_cancel_while_a_childs_pivot_is_in_flight_is_pending_and_its_fate_decides() {
    let cancelled = |act: Act| {
        let world = World::new();
        let saga = with_pivot(&world, always(Compensate));
        world.plan("do inner/charge", [act.after(SECOND)]);
        let outcome = world.life(&saga, async |coordinator| {
            let run = coordinator.start(&saga, "r", 1).await.unwrap();
            world.until("do inner/charge").await;
            let told = ok(&coordinator, Verb::Cancel).await;
            assert_eq!(told, Some(CancelTold::Pending));
            run.outcome().await.unwrap()
        });
        let told = outcome.partial().cancel.unwrap().told;
        (outcome.word(), told, world.log().split_off(4))
    };
    let (word, told, log) = cancelled(Act::Done(1));
    assert_eq!((word, told), ("completed", CancelTold::TooLate));
    assert_eq!(log, ["do inner/b", "do mail"]);
    let (word, told, log) = cancelled(Act::rejected());
    assert_eq!((word, told), ("compensated", CancelTold::Pending));
    assert_eq!(log, ["undo inner/a (done 1)", "undo pay (done 1)"]);
}

#[test]
fn c1_a_cancel_before_and_after_a_childs_pivot_is_accepted_and_too_late() {
    let cancelled = |at: &str| {
        let world = World::new();
        let saga = with_pivot(&world, always(Compensate));
        world.plan(at, [Act::Done(1).after(SECOND)]);
        let (told, outcome) = world.life(&saga, async |coordinator| {
            let run = coordinator.start(&saga, "r", 1).await.unwrap();
            world.until(at).await;
            let told = ok(&coordinator, Verb::Cancel).await;
            (told.unwrap(), run.outcome().await.unwrap())
        });
        (told, outcome.word(), world.log().pop().unwrap())
    };
    let last = |line: &str| line.to_owned();
    assert_eq!(
        cancelled("do inner/a"),
        (
            CancelTold::Accepted,
            "compensated",
            last("undo pay (done 1)")
        )
    );
    assert_eq!(
        cancelled("do inner/b"),
        (CancelTold::TooLate, "completed", last("do mail"))
    );
    assert_eq!(
        cancelled("do mail"),
        (CancelTold::TooLate, "completed", last("woke mail"))
    );
}

#[test]
fn c1_a_cancel_while_a_childs_pivot_is_in_doubt_is_settled_by_its_probe_or_parks() {
    let cancelled = |answer: Probed<u64>| {
        let world = World::new();
        let saga = with_pivot(&world, always(Compensate));
        world.plan("do inner/charge", [Act::Hangs]);
        world.plan("probe inner/charge", [Act::Says(answer)]);
        world.life(&saga, async |coordinator| {
            let _run = coordinator.start(&saga, "r", 1).await.unwrap();
            world.until("do inner/charge").await;
            ok(&coordinator, Verb::Cancel).await;
        });
        // The crash leaves the pivot in doubt.
        let outcome = world.recover(&saga);
        let told = outcome.partial().cancel.unwrap().told;
        (outcome.word(), told, world.log().split_off(3))
    };
    let (word, told, log) = cancelled(Probed::Done(4));
    assert_eq!(log, ["probe inner/charge", "do inner/b", "do mail"]);
    assert_eq!((word, told), ("completed", CancelTold::TooLate));
    let (word, told, log) = cancelled(Probed::Never);
    assert_eq!(
        log,
        [
            "probe inner/charge",
            "undo inner/a (done 1)",
            "undo pay (done 1)"
        ]
    );
    assert_eq!((word, told), ("compensated", CancelTold::Pending));
    let (word, told, log) = cancelled(Probed::Unknown);
    assert_eq!(log, ["probe inner/charge"]);
    assert_eq!((word, told), ("parked", CancelTold::Pending));
}

#[test]
fn d4_past_a_childs_pivot_nothing_goes_back_in_the_child_nor_around_it() {
    for fails in ["do inner/b", "do mail"] {
        let world = World::new();
        let saga = with_pivot(&world, always(Compensate));
        world.plan(fails, [Act::rejected()]);
        let partial = world.run_to_rest(&saga, 1).partial();
        let undone = world.log().iter().any(|line| line.starts_with("undo"));
        assert!(!undone, "{fails}: {:?}", world.log());
        assert_eq!(partial.strategy, Some(Manual), "{fails}");
        assert_eq!(
            partial.why[0].overruled.as_deref(),
            Some("compensate is not available past the pivot: nothing goes back there"),
            "{fails}"
        );
        assert!(!partial.legal.contains(&VerbName::Compensate), "{fails}");
    }
    // Before it all goes back, first the child by itself.
    let world = World::new();
    let saga = with_pivot(&world, always(Compensate));
    world.plan("do inner/charge", [Act::rejected()]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "compensated");
    assert_eq!(
        world.log()[3..],
        ["undo inner/a (done 1)", "undo pay (done 1)"]
    );
}

#[test]
fn p2_a_childs_pivot_in_doubt_is_probed_then_called_again_then_parked() {
    let world = World::new();
    let saga = with_pivot(&world, RecoveryPolicy::saga().max_recoveries(1));
    world.plan("do inner/charge", [Act::in_doubt(), Act::in_doubt()]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "parked");
    assert_eq!(
        world.log()[2..],
        [
            "do inner/charge",
            "probe inner/charge",
            "do inner/charge",
            "probe inner/charge"
        ]
    );
    let keys: Vec<_> = world
        .calls_of("do inner/charge")
        .into_iter()
        .map(|call| call.key)
        .collect();
    assert_eq!(keys[0], keys[1]);
}

fn faults(builder: SagaBuilder<u64>) -> Vec<String> {
    let faults = builder.returns::<()>(()).map(drop).unwrap_err();
    faults.faults().iter().map(ToString::to_string).collect()
}

#[test]
fn p1_a_child_with_a_pivot_cannot_be_undone_and_may_be_the_pivot() {
    let world = World::new();
    let mut child = Saga::builder::<u64>("child");
    let n = child.input();
    let charge = child.add(world.step::<u64>("charge").pivot(), n);
    let child = child.returns(charge).unwrap();
    let built = |settings: fn(StepSpec<u64, u64>) -> StepSpec<u64, u64>| {
        let mut saga = Saga::builder::<u64>("order");
        let n = saga.input();
        let pay = saga.add(world.step::<u64>("pay"), n);
        saga.add(settings(step("inner", &child)), pay);
        saga
    };
    assert_eq!(
        faults(built(|spec| spec)),
        [
            "`inner` is irreversible, and this saga has no pivot: mark it `.pivot()`, or let it come `.after(..)` \
             the pivot"
        ]
    );
    let saga = built(StepSpec::pivot).returns::<()>(()).unwrap();
    assert_eq!(saga.graph().steps()[1].kind(), StepKind::Irreversible);
    assert!(saga.graph().steps()[1].is_pivot());
}

#[test]
fn p1_no_pivot_under_a_fan_out_a_choice_or_a_condition() {
    let world = World::new();
    let pivot = || world.step::<u64>("pay").pivot();
    let plain = || world.step::<u64>("other");
    let with = |add: &dyn Fn(&mut SagaBuilder<u64>, Node<u64>)| {
        let mut saga = Saga::builder::<u64>("order");
        let n = saga.input();
        add(&mut saga, n);
        faults(saga)
    };
    let each = with(&|saga, n| {
        saga.add(pivot().for_each(), n.map(|n| vec![*n]));
    });
    assert_eq!(
        each,
        ["`pay`: `pivot` makes no sense here: the pivot is one step, or a sub-saga"]
    );
    let race = with(&|saga, n| {
        saga.add(first_of("race", [pivot(), plain()]), n);
    });
    assert_eq!(
        race,
        ["`race/pay`: `pivot` makes no sense here: the pivot is one step, or a sub-saga"]
    );
    let fallback = with(&|saga, n| {
        saga.add(pivot().fallback(plain()), n);
    });
    assert_eq!(
        fallback,
        ["`pay/primary`: `pivot` makes no sense here: the pivot is one step, or a sub-saga"]
    );
    let second = with(&|saga, n| {
        saga.add(plain().fallback(pivot()), n);
    });
    assert_eq!(
        second,
        ["`other/pay`: `pivot` makes no sense here: the pivot is one step, or a sub-saga"]
    );
    let condition = with(&|saga, n| {
        saga.add(pivot().only_if(n.map(|_| true)), n);
    });
    assert_eq!(
        condition,
        ["`pay`: `pivot` makes no sense here: a pivot can't depend on a condition"]
    );
    // Whoever loses a race has to be undone.
    let race = with(&|saga, n| {
        let pivot = saga.add(pivot(), n);
        saga.add(
            first_of("race", [world.irreversible::<u64>("x"), plain()]),
            pivot,
        );
    });
    assert_eq!(
        race,
        ["`race/x`: `irreversible` makes no sense here: whoever loses a race has to be undone"]
    );
}

#[test]
fn p1_what_cannot_be_undone_inside_a_form_makes_the_whole_so() {
    let world = World::new();
    let sends = || world.irreversible::<u64>("send");
    let with = |add: &dyn Fn(&mut SagaBuilder<u64>, Node<u64>)| {
        let mut saga = Saga::builder::<u64>("order");
        let n = saga.input();
        add(&mut saga, n);
        faults(saga)
    };
    let fault = |step: &str| {
        vec![format!(
            "`{step}` is irreversible, and this saga has no pivot: mark it `.pivot()`, or let it come `.after(..)` \
             the pivot"
        )]
    };
    let each = with(&|saga, n| {
        saga.add(sends().for_each(), n.map(|n| vec![*n]));
    });
    assert_eq!(each, fault("send"));
    let fallback = with(&|saga, n| {
        saga.add(world.step::<u64>("call").fallback(sends()), n);
    });
    assert_eq!(fallback, fault("call"));
    let maybe = with(&|saga, n| {
        saga.add(sends().only_if(n.map(|_| true)), n);
    });
    assert_eq!(maybe, fault("send"));
}

#[test]
fn n2_a_step_with_steps_inside_takes_no_setting_that_is_about_a_call() {
    let world = World::new();
    let child = fulfilment(&world, always(Compensate));
    type Settings = fn(StepSpec<u64, u64>) -> StepSpec<u64, u64>;
    let settings: [(&str, Settings); 8] = [
        ("retry", |spec| spec.retry(Retry::none())),
        ("timeout", |spec| spec.timeout(SECOND)),
        ("compensation_retry", |spec| {
            spec.compensation_retry(Retry::none())
        }),
        ("compensation_timeout", |spec| {
            spec.compensation_timeout(SECOND)
        }),
        ("undo_failing", |spec| spec.undo_failing(UndoRule::Always)),
        ("atomic", StepSpec::atomic),
        ("at_most_once", StepSpec::at_most_once),
        ("max_in_flight", |spec| spec.max_in_flight(3)),
    ];
    for (setting, add) in settings {
        let mut saga = Saga::builder::<u64>("order");
        let n = saga.input();
        saga.add(add(step("fulfil", &child)), n);
        assert_eq!(
            faults(saga),
            [format!(
                "`fulfil`: `{setting}` makes no sense here: it is not called itself: say it of the steps inside"
            )]
        );
    }
    let mut saga = Saga::builder::<u64>("order");
    let n = saga.input();
    saga.add(step("fulfil", &child).probe(world.probe()), n);
    assert_eq!(
        faults(saga),
        [
            "`fulfil`: `probe` makes no sense here: it is not called itself: say it of the steps inside"
        ]
    );
}

#[test]
fn i4_the_deadline_of_the_run_passes_inside_a_child_too() {
    let world = World::new();
    let child = fulfilment(&world, always(Manual));
    let mut saga = Saga::builder::<u64>("order")
        .policy(RecoveryPolicy::saga())
        .deadline(2 * SECOND);
    let n = saga.input();
    let pay = saga.add(world.step("pay"), n);
    let fulfil = saga.add(step("fulfil", &child), pay);
    let saga = saga.returns(fulfil).unwrap();
    world.plan("do fulfil/pick", [Act::Done(1).after(5 * SECOND)]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "compensated");
    assert_eq!(
        world.log(),
        [
            "do pay",
            "do fulfil/pick",
            "woke fulfil/pick",
            "undo fulfil/pick (done 1)",
            "undo pay (done 1)"
        ]
    );
    assert!(outcome.partial().deadline_passed);
}

#[test]
fn i4_past_a_childs_pivot_a_deadline_is_only_reported() {
    let world = World::new();
    let saga = with_pivot(&world, RecoveryPolicy::saga());
    world.plan("do inner/b", [Act::Done(1).after(5 * SECOND)]);
    let outcome = world.life(&saga, async |coordinator| {
        let options = StartOptions::new().deadline(SECOND);
        let run = coordinator
            .start_with(&saga, "r", 1, options)
            .await
            .unwrap();
        run.outcome().await.unwrap()
    });
    assert_eq!(outcome.word(), "completed");
    assert!(outcome.partial().deadline_passed);
}

/// `inner` with a limit of its own, `work` and `more` in it, in a run that has another.
fn limited(world: &World, child: RecoveryPolicy, limits: [Option<u32>; 2]) -> Saga<u64, u64> {
    let mut inner = Saga::builder::<u64>("limited").policy(child);
    let mut saga = Saga::builder::<u64>("order").policy(always(Compensate));
    let [of_child, of_run] = limits;
    if let Some(limit) = of_child {
        inner = inner.deadline(limit * SECOND);
    }
    if let Some(limit) = of_run {
        saga = saga.deadline(limit * SECOND);
    }
    let n = inner.input();
    let work = inner.add(world.step("work"), n);
    let more = inner.add(world.step("more"), work);
    let inner = inner.returns(more).unwrap();
    let n = saga.input();
    let pay = saga.add(world.step("pay"), n);
    let inner = saga.add(step("inner", &inner), pay);
    saga.returns(inner).unwrap()
}

#[test]
fn n2_a_child_may_shorten_the_deadline_for_itself_and_its_policy_is_asked() {
    let world = World::new();
    let saga = limited(&world, RecoveryPolicy::saga(), [Some(3), None]);
    // Its time counts from its own start.
    world.plan("do pay", [Act::Done(1).after(10 * SECOND)]);
    world.plan("do inner/work", [Act::Done(1).after(5 * SECOND)]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "compensated");
    assert_eq!(
        world.log(),
        [
            "do pay",
            "woke pay",
            "do inner/work",
            "woke inner/work",
            "undo inner/work (done 1)",
            "undo pay (done 1)"
        ]
    );
    let partial = outcome.partial();
    assert_eq!(partial.failing_step.as_deref(), Some("inner"));
    assert_eq!(partial.failure_mode, Some(FailureMode::SystemTimeout));
    let failure = partial.step("inner").unwrap().failure.clone().unwrap();
    assert_eq!(
        failure.message,
        "the time of `limited` was up, and it was undone"
    );
    // It is the child's deadline that passed, not the run's.
    assert!(!partial.deadline_passed);
}

#[test]
fn n2_a_childs_deadline_wakes_it_from_a_long_sleep() {
    let world = World::new();
    let mut inner = Saga::builder::<u64>("limited").deadline(3 * SECOND);
    let n = inner.input();
    let patient = calls(2).initial(100 * SECOND);
    let work = inner.add(world.step("work").retry(patient), n);
    let inner = inner.returns(work).unwrap();
    let mut saga = Saga::builder::<u64>("order").policy(always(Compensate));
    let n = saga.input();
    let inner = saga.add(step("inner", &inner), n);
    let saga = saga.returns(inner).unwrap();
    world.plan("do inner/work", [Act::in_doubt()]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "compensated");
    assert_eq!(world.log(), ["do inner/work", "undo inner/work (in doubt)"]);
    assert_eq!(world.now(), 3 * SECOND);
}

#[test]
fn n2_a_child_does_not_lengthen_the_deadline_of_the_run() {
    let world = World::new();
    let saga = limited(&world, always(Manual), [Some(100), Some(2)]);
    world.plan("do inner/work", [Act::Done(1).after(5 * SECOND)]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "compensated");
    assert_eq!(world.calls_of("do inner/more"), []);
    assert!(outcome.partial().deadline_passed);
}

#[test]
fn n2_after_a_childs_deadline_a_person_may_let_it_go_on() {
    let world = World::new();
    let saga = limited(&world, always(Manual), [Some(3), None]);
    world.plan("do inner/work", [Act::Done(1).after(5 * SECOND)]);
    let partial = world.run_to_rest(&saga, 1).partial();
    assert_eq!(
        partial.parked.unwrap().message,
        "the time of `inner` is up; rule `otherwise` of policy `always` says manual"
    );
    assert_eq!(world.log(), ["do pay", "do inner/work", "woke inner/work"]);
    assert_eq!(told(&world, &saga, [plain_retry()]).word(), "completed");
    assert_eq!(world.log()[3..], ["do inner/more"]);
}

#[test]
fn n2_a_childs_deadline_stands_still_while_the_run_is_paused() {
    let world = World::new();
    let saga = limited(&world, always(Compensate), [Some(3), None]);
    world.plan("do inner/work", [Act::Done(1).after(2 * SECOND)]);
    let outcome = world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        world.until("do inner/work").await;
        ok(&coordinator, Verb::Pause).await;
        tokio::time::sleep(50 * SECOND).await;
        ok(&coordinator, Verb::Resume).await;
        run.outcome().await.unwrap()
    });
    assert_eq!(outcome.word(), "completed");
}

#[test]
fn n2_a_childs_deadline_outlives_a_crash() {
    let world = World::new();
    let saga = limited(&world, always(Compensate), [Some(3), None]);
    world.plan("do inner/work", [Act::Done(1).after(2 * SECOND)]);
    world.plan(
        "do inner/more",
        [Act::Hangs, Act::Done(1).after(2 * SECOND)],
    );
    world.crash_at(&saga, 1, "do inner/more");
    assert_eq!(world.recover(&saga).word(), "compensated");
    assert_eq!(
        world.log()[4..],
        [
            "do inner/more",
            "woke inner/more",
            "undo inner/more (done 1)",
            "undo inner/work (done 1)",
            "undo pay (done 1)"
        ]
    );
}
