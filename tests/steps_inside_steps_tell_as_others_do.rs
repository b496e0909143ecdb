//! What calls tell inside sub-sagas and fan-outs: progress is each step's own, and a part is the affair of the
//! policy of the saga that the step is a step of.

// The helpers of this file aren't test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::sync::{Arc, Mutex};

use amends::failure::{FailedEffect, PartialSuccess};
use amends::policy::{Condition, Rule};
use amends::*;
use common::*;

fn in_part(then: RecoveryStrategy) -> RecoveryPolicy {
    let rule = Rule::new("in part", then).when(Condition::Effect(FailedEffect::Done));
    RecoveryPolicy::saga().first(rule)
}

/// Does 7 of 10, once.
fn partly(name: &str) -> StepSpec<u64, u64> {
    step_fn(
        name,
        async |cx: &StepContext, n: &u64| {
            if cx.attempt() == 1 {
                cx.did_part(PartialSuccess::new(7, 10, "3 are missing"));
            }
            Ok(*n)
        },
        async |_, _, _| Ok(()),
    )
}

/// `before`, then a child of `a` and `part`, then `after`.
fn nested(world: &World, child: RecoveryPolicy, parent: RecoveryPolicy) -> Saga<u64, u64> {
    let mut inner = Saga::builder::<u64>("inner").policy(child);
    let n = inner.input();
    let a = inner.add(world.step("a"), n);
    let part = inner.add(partly("part"), a);
    let inner = inner.returns(part).unwrap();
    let mut outer = Saga::builder::<u64>("outer").policy(parent);
    let n = outer.input();
    let before = outer.add(world.step("before"), n);
    let child = outer.add(step("child", &inner), before);
    let after = outer.add(world.step("after"), child);
    outer.returns(after).unwrap()
}

#[test]
fn a_part_inside_a_sub_saga_is_not_put_to_the_policy_around_it() {
    let world = World::new();
    let manual = in_part(RecoveryStrategy::Manual);
    let saga = nested(&world, RecoveryPolicy::saga(), manual);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "completed");
    let partial = outcome.partial();
    let note = partial.step("child/part").unwrap().partial.as_ref();
    assert_eq!(note.map(|note| (note.done, note.of)), Some((7, 10)));
    assert_eq!(partial.step("child").unwrap().partial, None);
}

#[test]
fn a_sub_saga_that_undoes_itself_for_a_part_is_one_failed_step_with_its_mode() {
    let world = World::new();
    let saga = nested(
        &world,
        in_part(RecoveryStrategy::Compensate),
        RecoveryPolicy::new("park", RecoveryStrategy::Manual),
    );
    let partial = world.run_to_rest(&saga, 1).partial();
    assert_eq!(
        world.story(),
        [
            "run started",
            "start before 1",
            "done before",
            "start child 1",
            "start child/a 1",
            "done child/a",
            "start child/part 1",
            "done child/part",
            "decided compensate in child",
            "undo child/part 1",
            "undone child/part",
            "undo child/a 1",
            "undone child/a",
            "failed child",
            "decided manual",
            "parked manual"
        ]
    );
    let failure = partial.step("child").unwrap().failure.as_ref().unwrap();
    assert_eq!(failure.mode, FailureMode::PartialStepFailures);
    assert_eq!(failure.effect, FailedEffect::NotDone);
    assert_eq!(
        failure.message,
        "`inner` was undone: `part` was done in part"
    );
    let standing: Vec<&str> = partial.outstanding.iter().map(|it| &*it.step).collect();
    assert_eq!(standing, ["before"]);
}

#[test]
fn a_sub_saga_that_parks_for_a_part_parks_the_run_and_goes_on_when_told() {
    use amends::journal::{Command, Verb};

    let world = World::new();
    let saga = nested(
        &world,
        in_part(RecoveryStrategy::Manual),
        RecoveryPolicy::saga(),
    );
    world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        let partial = run.outcome().await.unwrap().partial();
        assert_eq!(
            partial.parked.unwrap().message,
            "`child/part` is done in part; rule `in part` of policy `saga` says manual"
        );
        let retry = Verb::Retry {
            strategy: None,
            edits: Vec::new(),
        };
        let retry = Command::new("r", retry).by("ada").reason("ok").token("t");
        coordinator.command(&retry).await.unwrap();
        assert_eq!(run.ended().await.unwrap().word(), "completed");
    });
    // Nothing was called again.
    assert_eq!(world.log(), ["do before", "do child/a", "do after"]);
}

#[test]
fn a_part_of_an_item_is_a_note_and_nothing_more() {
    let world = World::new();
    let policy = in_part(RecoveryStrategy::Manual);
    let mut saga = Saga::builder::<Vec<u64>>("each").policy(policy);
    let items = saga.input();
    let all = saga.add(partly("item").for_each(), items);
    let saga = saga.returns(all).unwrap();
    let outcome = world.run_to_rest(&saga, vec![1, 2]);
    assert_eq!(outcome.word(), "completed");
    let partial = outcome.partial();
    assert!(partial.step("item[0]").unwrap().partial.is_some());
    assert!(partial.step("item[1]").unwrap().partial.is_some());
}

#[test]
fn a_fan_out_that_went_on_without_some_items_is_done_in_part() {
    for (policy, word) in [
        (RecoveryPolicy::saga(), "completed"),
        (in_part(RecoveryStrategy::Compensate), "compensated"),
        (in_part(RecoveryStrategy::Manual), "parked"),
    ] {
        let world = World::new();
        world.plan("do item[1]", [Act::Fails(StepError::rejected("no room"))]);
        let mut saga = Saga::builder::<Vec<u64>>("each").policy(policy);
        let items = saga.input();
        let all = saga.add(world.step::<u64>("item").for_each().tolerate(1), items);
        let after = saga.add(world.step("after"), all.map(Vec::len));
        let saga = saga.returns(after).unwrap();
        let outcome = world.run_to_rest(&saga, vec![1, 2, 3]);
        assert_eq!(outcome.word(), word);
        let partial = outcome.partial();
        let note = PartialSuccess::new(2, 3, "`item[1]` said: no room");
        let kept = (word != "compensated").then_some(note);
        assert_eq!(partial.step("item").unwrap().partial, kept);
        let went_on = world.log().contains(&"do after".to_owned());
        assert_eq!(went_on, word == "completed");
        let undone = ["undo item[0] (done 1)", "undo item[2] (done 1)"];
        let log = world.log();
        let undone = undone.iter().all(|line| log.contains(&(*line).to_owned()));
        assert_eq!(undone, word == "compensated", "{log:?}");
    }
}

#[test]
fn a_fan_out_of_which_all_items_are_done_lacks_nothing() {
    let world = World::new();
    let mut saga = Saga::builder::<Vec<u64>>("each").policy(in_part(RecoveryStrategy::Manual));
    let items = saga.input();
    let all = saga.add(world.step::<u64>("item").for_each().tolerate(1), items);
    let after = saga.add(world.step("after"), all.map(Vec::len));
    let saga = saga.returns(after).unwrap();
    let outcome = world.run_to_rest(&saga, vec![1, 2]);
    assert_eq!(outcome.word(), "completed");
    assert_eq!(outcome.partial().step("item").unwrap().partial, None);
}

#[test]
fn each_item_of_a_fan_out_inside_a_sub_saga_has_its_own_progress_and_silence() {
    let world = World::new();
    let read = Arc::new(Mutex::new(Vec::new()));
    let item = step_with(
        "item",
        Arc::clone(&read),
        async |read, cx: &StepContext, n: &u64| {
            let known = cx.last_progress::<u64>()?.map(|known| *known);
            read.lock().unwrap().push((cx.step().to_owned(), known));
            cx.report_progress(*n * 10);
            match (cx.attempt(), n) {
                // Silent for too long, and cut off by a crash.
                (1, 1) | (1 | 2, 2) => std::future::pending().await,
                _ => Ok(*n),
            }
        },
        async |_, _, _, _| Ok(()),
    );
    let item = item.heartbeat(5 * SECOND).retry(calls(2));
    let mut inner = Saga::builder::<Vec<u64>>("inner");
    let items = inner.input();
    let all = inner.add(item.for_each(), items);
    let inner = inner.returns(all).unwrap();
    let mut outer = Saga::builder::<Vec<u64>>("outer");
    let items = outer.input();
    let child = outer.add(step("child", &inner), items);
    let saga = outer.returns(child).unwrap();
    world.life(&saga, async |coordinator| {
        let _run = coordinator.start(&saga, "r", vec![1, 2]).await.unwrap();
        tokio::time::sleep(8 * SECOND).await;
    });
    assert_eq!(world.recover(&saga).completed(), Some(vec![1, 2]));
    let path = |item: u64| format!("child/item[{item}]");
    assert_eq!(
        read.lock().unwrap().clone(),
        [
            (path(0), None),
            (path(1), None),
            (path(0), Some(10)),
            (path(1), Some(20)),
            (path(1), Some(20)),
        ]
    );
}
