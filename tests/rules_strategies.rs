//! Rules S1 to S5: what each strategy keeps, undoes and runs again.

// The helpers of this file aren't test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::collections::HashSet;

use amends::failure::FailedEffect;
use amends::journal::{Event, ParkReason};
use amends::*;
use common::*;

use RecoveryStrategy::{Compensate, Manual, RetryAll, RetryFailed, RetryFromCheckpoint};

/// A policy that always takes this strategy, one second later.
fn always(strategy: RecoveryStrategy) -> RecoveryPolicy {
    RecoveryPolicy::new("always", strategy).backoff(calls(9))
}

/// The round of each call, as `do a 1`.
fn rounds(world: &World) -> Vec<String> {
    let calls = world.calls().into_iter();
    calls
        .map(|call| format!("{} {} {}", call.what, call.step, call.round))
        .collect()
}

/// No step was executed or undone while something that depends on it was done or in doubt (rule S3).
/// `edges` are pairs of a step and one that depends on it.
fn nothing_was_pulled_from_under(world: &World, edges: &[(&str, &str)]) {
    let mut standing: HashSet<String> = HashSet::new();
    for event in world.journal().concat() {
        match event {
            Event::StepStarted { step, .. } | Event::UndoStarted { step, .. } => {
                for (_, after) in edges.iter().filter(|(before, _)| *before == step) {
                    assert!(
                        !standing.contains(*after),
                        "`{step}` while `{after}` stands: {:?}",
                        world.story()
                    );
                }
            }
            Event::StepDone { step, .. } => drop(standing.insert(step)),
            Event::StepFailed { step, failure, .. } if failure.effect == FailedEffect::InDoubt => {
                standing.insert(step);
            }
            Event::Undone { step, .. } => drop(standing.remove(&step)),
            _ => {}
        }
    }
}

/// `a`, then `b` and `c` side by side; `fails` needs both.
fn diamond(world: &World, policy: RecoveryPolicy) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("diamond")
        .policy(policy)
        .undo_order(UndoOrder::Sequential);
    let n = saga.input();
    let a = saga.add(world.step("a"), n);
    let b = saga.add(world.step("b"), a);
    let c = saga.add(world.step("c"), a);
    let fails = world.step::<(u64, u64)>("fails").retry(Retry::none());
    let fails = saga.add(fails, (b, c));
    saga.returns(fails).unwrap()
}

const DIAMOND: [(&str, &str); 4] = [("a", "b"), ("a", "c"), ("b", "fails"), ("c", "fails")];

#[test]
fn s1_retry_failed_keeps_every_done_step_and_runs_the_others() {
    let world = World::new();
    let saga = diamond(&world, always(RetryFailed));
    world.plan("do fails", [Act::lost()]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(
        rounds(&world),
        ["do a 1", "do b 1", "do c 1", "do fails 1", "do fails 1"]
    );
    assert_eq!(outcome.partial().compensations, []);
    assert_eq!(outcome.completed(), Some(2));
    nothing_was_pulled_from_under(&world, &DIAMOND);
}

#[test]
fn s1_retry_failed_settles_nothing_and_takes_dropped_retries_up_again() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("s1").policy(always(RetryFailed));
    let n = saga.input();
    saga.add(world.step("fails").retry(Retry::none()), n);
    let sleeps = saga.add(world.step("sleeps").retry(calls(9)), n);
    let after = saga.add(world.step("after"), sleeps);
    let saga = saga.returns(after).unwrap();
    world.plan("do fails", [Act::not_done().after(SECOND / 2)]);
    world.plan("do sleeps", [Act::in_doubt()]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "completed");
    // The doubt of `sleeps` is neither undone nor waited for: the same key goes out again.
    let mut calls = rounds(&world);
    calls[2..4].sort();
    assert_eq!(
        calls,
        [
            "do fails 1",
            "do sleeps 1",
            "do fails 1",
            "do sleeps 1",
            "do after 1"
        ]
    );
    let keys = world.calls_of("do sleeps");
    assert_eq!(keys[0].key, keys[1].key);
}

/// `by-data` feeds the checkpoint `cp`, which also comes after `by-order`; `beside` is independent. Then
/// `look`, read-only, `late` and `fails`, one after the other.
fn checkpointed(world: &World, policy: RecoveryPolicy) -> Saga<u64, (u64, u64)> {
    let mut saga = Saga::builder::<u64>("checkpointed")
        .policy(policy)
        .undo_order(UndoOrder::Sequential);
    let n = saga.input();
    let by_data = saga.add(world.step("by-data"), n);
    let by_order = saga.add(world.step::<u64>("by-order"), n);
    let beside = saga.add(world.step("beside"), n);
    let cp = world.step("cp").checkpoint().after(by_order);
    let cp = saga.add(cp.retry(Retry::none()), by_data);
    let look = saga.add(world.read_only("look"), cp);
    let late = saga.add(world.step("late"), look);
    let fails = saga.add(world.step("fails").retry(Retry::none()), late);
    saga.returns((fails, beside)).unwrap()
}

const CHECKPOINTED: [(&str, &str); 5] = [
    ("by-data", "cp"),
    ("by-order", "cp"),
    ("cp", "late"),
    ("late", "fails"),
    ("cp", "fails"),
];

#[test]
fn s2_retry_from_checkpoint_keeps_checkpoints_with_their_ancestors_and_undoes_the_rest() {
    let world = World::new();
    let saga = checkpointed(&world, always(RetryFromCheckpoint));
    world.plan("do fails", [Act::lost()]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "completed");
    let mut calls = rounds(&world);
    // What begins anew starts in no particular order where nothing orders it.
    calls[10..12].sort();
    assert_eq!(
        calls,
        [
            "do by-data 1",
            "do by-order 1",
            "do beside 1",
            "do cp 1",
            "do look 1",
            "do late 1",
            "do fails 1",
            "undo fails 1",
            "undo late 1",
            "undo beside 1",
            "do beside 2",
            "do look 2",
            "do late 2",
            "do fails 2"
        ]
    );
    nothing_was_pulled_from_under(&world, &CHECKPOINTED);
}

#[test]
fn s2_a_checkpoint_that_is_not_done_keeps_nothing() {
    let world = World::new();
    let saga = checkpointed(&world, always(RetryFromCheckpoint));
    world.plan("do cp", [Act::not_done()]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "completed");
    let calls = rounds(&world);
    assert_eq!(
        calls[..7],
        [
            "do by-data 1",
            "do by-order 1",
            "do beside 1",
            "do cp 1",
            "undo beside 1",
            "undo by-order 1",
            "undo by-data 1"
        ]
    );
    // It did nothing, so its round is not over.
    assert_eq!(world.calls_of("do cp")[1].round, 1);
    assert_eq!(world.calls_of("do by-data")[1].round, 2);
    nothing_was_pulled_from_under(&world, &CHECKPOINTED);
}

#[test]
fn s2_a_saga_without_checkpoints_keeps_all_that_is_done() {
    let world = World::new();
    let saga = diamond(&world, always(RetryFromCheckpoint));
    world.plan("do fails", [Act::lost()]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "completed");
    assert_eq!(
        rounds(&world),
        [
            "do a 1",
            "do b 1",
            "do c 1",
            "do fails 1",
            "undo fails 1",
            "do fails 2"
        ]
    );
    nothing_was_pulled_from_under(&world, &DIAMOND);
}

#[test]
fn s3_retry_all_undoes_everything_and_begins_again_in_new_rounds() {
    let world = World::new();
    let saga = diamond(&world, always(RetryAll));
    world.plan("do fails", [Act::lost(), Act::rejected()]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "completed");
    assert_eq!(
        rounds(&world),
        [
            "do a 1",
            "do b 1",
            "do c 1",
            "do fails 1",
            "undo fails 1",
            "undo c 1",
            "undo b 1",
            "undo a 1",
            "do a 2",
            "do b 2",
            "do c 2",
            "do fails 2",
            "undo c 2",
            "undo b 2",
            "undo a 2",
            "do a 3",
            "do b 3",
            "do c 3",
            "do fails 2"
        ]
    );
    nothing_was_pulled_from_under(&world, &DIAMOND);
}

/// `a`, then `pivot`, which can't be undone, then `fails`.
fn final_step(world: &World, policy: RecoveryPolicy) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("final").policy(policy);
    let n = saga.input();
    let a = saga.add(world.step("a"), n);
    let pivot = saga.add(world.irreversible("pivot").pivot(), a);
    let fails = saga.add(world.step("fails").retry(Retry::none()), pivot);
    saga.returns(fails).unwrap()
}

#[test]
fn s3_retry_all_is_refused_where_a_completed_step_cannot_be_undone() {
    let world = World::new();
    let saga = final_step(&world, always(RetryAll));
    world.plan("do fails", [Act::not_done()]);
    let partial = world.run_to_rest(&saga, 1).partial();
    assert_eq!(world.log(), ["do a", "do pivot", "do fails"]);
    assert_eq!(partial.strategy, Some(Manual));
    assert_eq!(partial.why[0].says, RetryAll);
    assert_eq!(partial.parked.unwrap().reason, ParkReason::Manual);
    world.life(&saga, async |coordinator| {
        let refused = coordinator
            .retry(&"r".into(), RetryAll, "ann", "again")
            .await;
        assert!(matches!(refused, Err(CommandError::Refused { .. })));
        let partial = coordinator.get(&"r".into()).await.unwrap().unwrap();
        assert_eq!(partial.outstanding.len(), 2);
    });
    assert_eq!(world.log(), ["do a", "do pivot", "do fails"]);
}

#[test]
fn s3_no_strategy_executes_a_step_while_a_done_descendant_stands() {
    for strategy in [RetryFailed, RetryFromCheckpoint, RetryAll] {
        for failing in ["do by-data", "do cp", "do late", "do fails", "do beside"] {
            for act in [Act::lost, Act::not_done, Act::rejected] {
                let world = World::new();
                let saga = checkpointed(&world, always(strategy));
                world.plan(failing, [act(), act()]);
                assert_eq!(world.run_to_rest(&saga, 1).word(), "completed");
                nothing_was_pulled_from_under(&world, &CHECKPOINTED);
            }
        }
    }
}

#[test]
fn s3_no_verb_executes_a_step_while_a_done_descendant_stands() {
    for strategy in [RetryFailed, RetryFromCheckpoint, RetryAll] {
        let world = World::new();
        let saga = checkpointed(&world, always(Manual));
        world.plan("do fails", [Act::lost()]);
        assert_eq!(world.run_to_rest(&saga, 1).word(), "parked");
        let end = world.life(&saga, async |coordinator| {
            let run = "r".into();
            let retried = coordinator.retry(&run, strategy, "ann", "go on").await;
            retried.unwrap();
            let handle = coordinator.attach(&saga, &run).await.unwrap().unwrap();
            handle.ended().await.unwrap().word()
        });
        assert_eq!(end, "completed");
        nothing_was_pulled_from_under(&world, &CHECKPOINTED);
    }
}

#[test]
fn s4_compensate_undoes_everything_that_was_and_nothing_else() {
    let world = World::new();
    let saga = diamond(&world, always(Compensate));
    world.plan("do fails", [Act::rejected()]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "compensated");
    // `fails` never was; the others are undone, the last one first.
    assert_eq!(
        world.log()[4..],
        ["undo c (done 1)", "undo b (done 1)", "undo a (done 1)"]
    );
    let partial = outcome.partial();
    assert_eq!(partial.outstanding, []);
    assert_eq!(partial.completed, 0);
    assert!(
        partial
            .steps
            .iter()
            .all(|step| step.effect == EffectReport::NotDone)
    );
}

#[test]
fn s4_a_run_is_never_called_compensated_while_something_stands() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("s4").policy(always(Compensate));
    let n = saga.input();
    let a = saga.add(world.step("a"), n);
    let b = saga.add(world.step("b").compensation_retry(Retry::none()), a);
    let beside = saga.add(world.step("beside"), a);
    let fails = saga.add(world.step::<(u64, u64)>("fails"), (b, beside));
    let saga = saga.returns(fails).unwrap();
    world.plan("do fails", [Act::rejected()]);
    world.plan("undo b", [Act::rejected()]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "parked");
    let partial = outcome.partial();
    let standing: Vec<_> = partial
        .outstanding
        .iter()
        .map(|it| (&*it.step, it.effect))
        .collect();
    assert_eq!(
        standing,
        [("a", EffectReport::Done), ("b", EffectReport::Done)]
    );
    assert_eq!(
        partial.parked.as_ref().unwrap().reason,
        ParkReason::CompensationFailed
    );
    // Once the undo works, the word is true.
    let end = world.life(&saga, async |coordinator| {
        let run = "r".into();
        let retried = coordinator.retry(&run, Compensate, "ann", "it is up again");
        retried.await.unwrap();
        let handle = coordinator.attach(&saga, &run).await.unwrap().unwrap();
        handle.ended().await.unwrap().word()
    });
    assert_eq!(end, "compensated");
    let undone = world.log().into_iter().filter(|it| it.starts_with("undo"));
    let mut undone: Vec<_> = undone.collect();
    undone[..2].sort();
    assert_eq!(
        undone,
        [
            "undo b (done 1)",
            "undo beside (done 1)",
            "undo b (done 1)",
            "undo a (done 1)"
        ]
    );
}

#[test]
fn s5_manual_parks_with_its_reason_what_stands_and_what_helps() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("s5").policy(always(Manual));
    let n = saga.input();
    let look = saga.add(world.read_only("look"), n);
    let a = saga.add(world.step("a"), look);
    let b = saga.add(world.step("b").retry(Retry::none()), a);
    let saga = saga.returns(b).unwrap();
    world.plan("do b", [Act::lost()]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "parked");
    let partial = outcome.partial();
    let parked = partial.parked.clone().unwrap();
    assert_eq!(parked.reason, ParkReason::Manual);
    assert_eq!(
        parked.message,
        "`b` failed; rule `otherwise` of policy `always` says manual"
    );
    let standing: Vec<_> = partial
        .outstanding
        .iter()
        .map(|it| (&*it.step, it.effect, it.key.clone()))
        .collect();
    let key = |call: &str| Some(world.calls_of(call)[0].key.clone());
    assert_eq!(
        standing,
        [
            ("a", EffectReport::Done, key("do a")),
            ("b", EffectReport::InDoubt, key("do b"))
        ]
    );
    assert_eq!(
        partial.hint(),
        format!(
            "parked: {}; standing: a, b. It takes: retry, compensate, cancel, mark-compensated, resolve, abandon",
            parked.message
        )
    );
    // Nothing happens by itself, and after a restart the run says the same.
    let again = world.recover(&saga).partial();
    assert_eq!(again.parked, partial.parked);
    assert_eq!(again.outstanding, partial.outstanding);
    assert_eq!(world.log(), ["do look", "do a", "do b"]);
}

#[test]
fn s5_a_parked_run_that_is_abandoned_says_what_stands() {
    let world = World::new();
    let saga = diamond(&world, always(Manual));
    world.plan("do fails", [Act::lost()]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "parked");
    let outcome = world.life(&saga, async |coordinator| {
        let run = "r".into();
        let given_up = coordinator.abandon(&run, "ann", "written off").await;
        given_up.unwrap();
        let handle = coordinator.attach(&saga, &run).await.unwrap().unwrap();
        handle.ended().await.unwrap()
    });
    assert_eq!(outcome.word(), "abandoned");
    let partial = outcome.partial();
    let standing: Vec<_> = partial.outstanding.iter().map(|it| &*it.step).collect();
    assert_eq!(standing, ["a", "b", "c", "fails"]);
}
