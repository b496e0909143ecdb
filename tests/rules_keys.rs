//! Rules K1 to K5: keys, rounds and inputs.

// The helpers of this file aren't test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use amends::journal::{Event, ParkReason, Standing};
use amends::store::{Append, Store};
use amends::*;
use common::*;
use futures_util::FutureExt;

/// A policy that always takes this strategy, one second later.
fn always(strategy: RecoveryStrategy) -> RecoveryPolicy {
    RecoveryPolicy::new("always", strategy).backoff(calls(9))
}

/// `a`, then `b`, which is called once unless a recovery calls it again.
fn pair(world: &World, policy: RecoveryPolicy) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("pair").policy(policy);
    let n = saga.input();
    let a = saga.add(world.step("a"), n);
    let b = saga.add(world.step("b").retry(Retry::none()), a);
    saga.returns(b).unwrap()
}

fn uid(world: &World) -> String {
    match &world.journal()[0][0] {
        Event::RunStarted(started) => started.uid.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Round and key of each call, in order.
fn rounds_and_keys(world: &World, call: &str) -> Vec<(u32, String)> {
    let calls = world.calls_of(call).into_iter();
    calls.map(|call| (call.round, call.key)).collect()
}

fn rounds(world: &World, call: &str) -> Vec<u32> {
    world.calls_of(call).iter().map(|call| call.round).collect()
}

#[test]
fn k1_a_run_has_a_random_uid_from_its_start() {
    let mut uids = Vec::new();
    for _ in 0..2 {
        let world = World::new();
        let saga = pair(&world, RecoveryPolicy::saga());
        world.run_to_rest(&saga, 1);
        let uid = uid(&world);
        assert_eq!(uid.len(), 32);
        assert!(uid.bytes().all(|byte| byte.is_ascii_hexdigit()), "{uid}");
        uids.push(uid);
    }
    // The same run id, saga and input: only the uid tells the two runs apart.
    assert_ne!(uids[0], uids[1]);
}

#[test]
fn k1_a_key_is_uid_escaped_path_and_round_and_the_undo_says_so() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("pair");
    let n = saga.input();
    let odd = saga.add(world.step("take money, ä%"), n);
    let b = saga.add(world.step("b"), odd);
    let saga = saga.returns(b).unwrap();
    world.plan("do b", [Act::rejected()]);
    world.run_to_rest(&saga, 1);
    let uid = uid(&world);
    let execute = &world.calls_of("do take money, ä%")[0];
    let undo = &world.calls_of("undo take money, ä%")[0];
    let parts: Vec<&str> = execute.key.split('/').collect();
    // What separates the parts doesn't occur in them.
    assert_eq!(parts.len(), 3, "{}", execute.key);
    assert_eq!((parts[0], parts[2]), (&*uid, "1"));
    assert!(execute.key.bytes().all(|byte| byte.is_ascii_graphic()));
    assert_eq!(execute.effect_key, execute.key);
    assert_eq!(undo.key, format!("{}/undo", execute.key));
    assert_eq!(undo.effect_key, execute.key);
    assert_eq!(world.calls_of("do b")[0].key, format!("{uid}/b/1"));
}

#[test]
fn k1_steps_whose_names_differ_never_share_a_key() {
    let world = World::new();
    let names = ["a b", "a_b", "a%20b", "a%b", "A b", "a\u{a0}b"];
    let mut saga = Saga::builder::<u64>("names");
    let n = saga.input();
    for name in names {
        saga.add(world.step(name), n);
    }
    let saga = saga.returns(n).unwrap();
    assert_eq!(world.run_to_rest(&saga, 1).word(), "completed");
    let mut keys: Vec<String> = world.calls().into_iter().map(|call| call.key).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), names.len());
}

#[test]
fn k1_every_attempt_of_a_round_has_the_key_that_its_start_event_holds() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("alone");
    let n = saga.input();
    let a = saga.add(world.step("a").retry(calls(3)), n);
    let saga = saga.returns(a).unwrap();
    world.plan("do a", [Act::not_done(), Act::in_doubt(), Act::Hangs]);
    world.life(&saga, async |coordinator| {
        let _run = coordinator.start(&saga, "r", 1).await.unwrap();
        world.until_lines(3).await;
    });
    assert_eq!(world.recover(&saga).word(), "completed");
    let called: Vec<_> = world.calls().into_iter().map(|call| call.key).collect();
    let journalled: Vec<_> = world
        .journal()
        .concat()
        .into_iter()
        .filter_map(|event| match event {
            Event::StepStarted { key, .. } => Some(key.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(called.len(), 4);
    assert_eq!(journalled, called);
    assert!(called.iter().all(|key| *key == called[0]), "{called:?}");
}

/// A world whose run `r` hangs in `a`, which its journal says was started under another key than this
/// code would make: a release before this one may have escaped names otherwise.
fn with_a_foreign_key(policy: fn() -> RecoveryPolicy) -> (World, Saga<u64, u64>) {
    let before = World::new();
    before.plan("do a", [Act::Hangs]);
    before.crash_at(&pair(&before, policy()), 1, "do a");
    let journal = before.store.load(&"r".into()).now_or_never().unwrap();
    let journal = journal.unwrap().unwrap();
    let world = World::new();
    let saga = pair(&world, policy());
    for mut record in journal.records {
        for event in &mut record.events {
            if let Event::StepStarted { key, .. } = event {
                *key = Arc::from("made-long-ago");
            }
        }
        let steps = journal.steps.clone();
        let append = Append::new("r".into(), record, steps, Standing::Running);
        let answer = world.store.append(append).now_or_never();
        answer.unwrap().unwrap();
    }
    (world, saga)
}

#[test]
fn k1_a_key_is_read_from_the_journal_and_not_made_again() {
    let (world, saga) = with_a_foreign_key(|| always(RecoveryStrategy::Compensate));
    world.plan("do a", [Act::not_done()]);
    world.plan("do b", [Act::rejected()]);
    assert_eq!(world.recover(&saga).word(), "compensated");
    let again = world.calls_of("do a");
    assert_eq!(again[0].key, "made-long-ago");
    assert!(again.iter().all(|call| call.key == "made-long-ago"));
    let undo = &world.calls_of("undo a")[0];
    assert_eq!(undo.effect_key, "made-long-ago");
    assert_eq!(undo.key, "made-long-ago/undo");
    // A round that was opened since has a key of today.
    let (world, saga) = with_a_foreign_key(|| always(RecoveryStrategy::RetryAll));
    world.plan("do b", [Act::rejected()]);
    assert_eq!(world.recover(&saga).word(), "completed");
    let keys = rounds_and_keys(&world, "do a");
    assert_eq!(keys[0], (1, "made-long-ago".to_owned()));
    assert_eq!(keys[1], (2, format!("{}/a/2", uid(&world))));
}

#[test]
fn k2_an_undo_opens_a_new_round_and_nothing_resets_it() {
    let world = World::new();
    let saga = pair(&world, always(RecoveryStrategy::RetryAll));
    world.plan("do b", [Act::lost(), Act::lost(), Act::Hangs]);
    world.life(&saga, async |coordinator| {
        let _run = coordinator.start(&saga, "r", 1).await.unwrap();
        world.until_lines(10).await;
    });
    assert_eq!(world.recover(&saga).word(), "completed");
    let uid = uid(&world);
    assert_eq!(rounds(&world, "do a"), [1, 2, 3]);
    assert_eq!(rounds(&world, "do b"), [1, 2, 3, 3]);
    let keys: Vec<_> = rounds_and_keys(&world, "do b");
    let expected = [1, 2, 3, 3].map(|round| (round, format!("{uid}/b/{round}")));
    assert_eq!(keys, expected);
    let undone: Vec<_> = rounds_and_keys(&world, "undo b");
    let expected = [1, 2].map(|round| (round, format!("{uid}/b/{round}/undo")));
    assert_eq!(undone, expected);
}

#[test]
fn k2_not_done_keeps_the_round_through_retries_and_recoveries() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("alone").policy(always(RecoveryStrategy::RetryAll));
    let n = saga.input();
    let a = saga.add(world.step("a").retry(calls(2)), n);
    let saga = saga.returns(a).unwrap();
    world.plan("do a", [Act::not_done(), Act::not_done(), Act::not_done()]);
    assert_eq!(world.run_to_rest(&saga, 1).completed(), Some(4));
    assert_eq!(rounds(&world, "do a"), [1, 1, 1, 1]);
    let keys = rounds_and_keys(&world, "do a");
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    assert_eq!(world.log(), ["do a", "do a", "do a", "do a"]);
}

#[test]
fn k2_a_probes_never_keeps_the_round() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("alone").policy(always(RecoveryStrategy::RetryAll));
    let n = saga.input();
    let a = world.step("a").probe(world.probe()).retry(Retry::none());
    let a = saga.add(a, n);
    let saga = saga.returns(a).unwrap();
    world.plan("do a", [Act::lost()]);
    world.plan("probe a", [Act::Says(Probed::Never)]);
    assert_eq!(world.run_to_rest(&saga, 1).completed(), Some(2));
    assert_eq!(world.log(), ["do a", "probe a", "do a"]);
    assert_eq!(rounds(&world, "do a"), [1, 1]);
}

#[test]
fn k2_resolve_not_done_keeps_the_round() {
    let world = World::new();
    let saga = pair(&world, always(RecoveryStrategy::Manual));
    world.plan("do b", [Act::lost()]);
    world.run_to_rest(&saga, 1);
    let output = world.life(&saga, async |coordinator| {
        let run = "r".into();
        let resolved =
            coordinator.resolve::<u64>(&run, "b", Resolution::NotDone, "ann", "not there");
        resolved.await.unwrap();
        let retried = coordinator.retry(&run, RecoveryStrategy::RetryFailed, "ann", "go on");
        retried.await.unwrap();
        let handle = coordinator.attach(&saga, &run).await.unwrap().unwrap();
        handle.ended().await.unwrap().completed()
    });
    assert_eq!(output, Some(2));
    assert_eq!(rounds(&world, "do b"), [1, 1]);
    let keys = rounds_and_keys(&world, "do b");
    assert_eq!(keys[0], keys[1]);
}

#[test]
fn k2_a_read_only_step_that_runs_again_does_so_in_a_new_round() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("looking").policy(always(RecoveryStrategy::RetryAll));
    let n = saga.input();
    let look = saga.add(world.read_only("look"), n);
    let a = saga.add(world.step("a").retry(Retry::none()), look);
    let saga = saga.returns(a).unwrap();
    world.plan("do look", [Act::Done(10), Act::Done(20)]);
    world.plan("do a", [Act::rejected()]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "completed");
    assert_eq!(rounds(&world, "do look"), [1, 2]);
    // `a` did nothing, so it keeps its round, although what it is fed is new.
    assert_eq!(rounds(&world, "do a"), [1, 1]);
    let inputs: Vec<_> = world
        .calls_of("do a")
        .into_iter()
        .map(|it| it.input)
        .collect();
    assert_eq!(inputs, ["10", "20"]);
}

#[test]
fn k2_once_an_undo_has_started_its_execute_key_is_never_used_again() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("pair").policy(always(RecoveryStrategy::Compensate));
    let n = saga.input();
    let a = world.step("a").retry(Retry::none());
    let a = saga.add(a.compensation_retry(Retry::none()), n);
    let saga = saga.returns(a).unwrap();
    world.plan("do a", [Act::lost()]);
    world.plan("undo a", [Act::rejected()]);
    let parked = world.run_to_rest(&saga, 1).partial();
    assert_eq!(
        parked.parked.unwrap().reason,
        ParkReason::CompensationFailed
    );
    // An operator says that nothing was there, and has all begin again: the undo that was called may
    // have told the participant to refuse the old key for ever.
    let output = world.life(&saga, async |coordinator| {
        let run = "r".into();
        let resolved =
            coordinator.resolve::<u64>(&run, "a", Resolution::NotDone, "ann", "not there");
        resolved.await.unwrap();
        let retried = coordinator.retry(&run, RecoveryStrategy::RetryAll, "ann", "again");
        retried.await.unwrap();
        let handle = coordinator.attach(&saga, &run).await.unwrap().unwrap();
        handle.ended().await.unwrap().completed()
    });
    assert_eq!(output, Some(2));
    assert_eq!(world.log(), ["do a", "undo a (in doubt)", "do a"]);
    assert_eq!(rounds(&world, "do a"), [1, 2]);
}

#[test]
fn k2_a_step_has_at_most_one_unsettled_effect() {
    let world = World::new();
    let saga = pair(&world, always(RecoveryStrategy::RetryAll));
    world.plan("do b", [Act::lost(), Act::lost(), Act::lost()]);
    world.run_to_rest(&saga, 1);
    // Between two executes of different rounds there is always the undo of the earlier one.
    let mut open: Option<u32> = None;
    for call in world.calls().iter().filter(|call| call.step == "b") {
        match call.what {
            "do" => {
                assert!(open.is_none_or(|round| round == call.round), "{call:?}");
                open = Some(call.round);
            }
            _ => assert_eq!(open.take(), Some(call.round)),
        }
    }
    assert_eq!(rounds(&world, "do b"), [1, 2, 3, 4]);
    assert_eq!(rounds(&world, "undo b"), [1, 2, 3]);
}

#[test]
fn k3_the_start_event_says_which_rounds_fed_the_input() {
    let world = World::new();
    let mut saga =
        Saga::builder::<u64>("fed").policy(always(RecoveryStrategy::RetryFromCheckpoint));
    let n = saga.input();
    let kept = saga.add(world.step("kept").checkpoint(), n);
    let redone = saga.add(world.step("redone"), kept);
    let fed = saga.add(
        world.step::<(u64, u64)>("fed").retry(Retry::none()),
        (redone, kept),
    );
    let saga = saga.returns(fed).unwrap();
    world.plan("do fed", [Act::lost()]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "completed");
    let journal = world.journal().concat();
    let fed: Vec<_> = journal
        .iter()
        .filter_map(|event| match event {
            Event::StepStarted {
                step,
                round,
                fed_by,
                ..
            } if step == "fed" => Some((*round, fed_by.clone())),
            _ => None,
        })
        .collect();
    // Where all rounds are 1 the list is left out; otherwise it has the order of the definition.
    assert_eq!(fed, [(1, vec![]), (2, vec![2, 1])]);
}

#[test]
fn k3_compensate_gets_what_that_execute_got() {
    let world = World::new();
    let saga = pair(&world, always(RecoveryStrategy::RetryAll));
    world.plan("do a", [Act::Done(10), Act::Done(20)]);
    world.plan("do b", [Act::lost(), Act::Hangs]);
    // Each round's undo is called by another process than its execute.
    world.plan("undo b", [Act::Hangs]);
    world.crash_at(&saga, 1, "undo b (in doubt)");
    world.life(&saga, async |_| world.until_lines(7).await);
    world.plan("do b", [Act::lost()]);
    assert_eq!(world.recover(&saga).word(), "completed");
    let seen = |call: &str| -> Vec<(u32, String)> {
        let calls = world.calls_of(call).into_iter();
        calls.map(|call| (call.round, call.input)).collect()
    };
    let pairs = |pairs: &[(u32, &str)]| -> Vec<(u32, String)> {
        let pairs = pairs.iter();
        pairs
            .map(|(round, it)| (*round, (*it).to_owned()))
            .collect()
    };
    assert_eq!(
        seen("do b"),
        pairs(&[(1, "10"), (2, "20"), (2, "20"), (3, "3")])
    );
    assert_eq!(seen("undo b"), pairs(&[(1, "10"), (1, "10"), (2, "20")]));
}

#[test]
fn k3_what_a_map_made_is_journalled_and_plain_inputs_are_not() {
    let world = World::new();
    let calls_of_map = Arc::new(AtomicU64::new(100));
    let mut saga = Saga::builder::<u64>("mapped").policy(always(RecoveryStrategy::Compensate));
    let n = saga.input();
    let a = saga.add(world.step("a"), n);
    let counter = Arc::clone(&calls_of_map);
    // A closure that isn't pure stands for one that a deploy has changed.
    let mapped = a.map(move |_| counter.fetch_add(1, Ordering::SeqCst));
    let b = saga.add(world.step::<(u64, u64)>("b"), (a, mapped));
    let c = saga.add(world.step("c"), b);
    let saga = saga.returns(c).unwrap();
    world.plan("do c", [Act::rejected()]);
    world.plan("undo b", [Act::Hangs]);
    world.crash_at(&saga, 1, "undo b (done 1)");
    assert_eq!(world.recover(&saga).word(), "compensated");
    assert_eq!(calls_of_map.load(Ordering::SeqCst), 101);
    let inputs: Vec<_> = world
        .calls()
        .into_iter()
        .filter(|call| call.step == "b")
        .map(|call| call.input)
        .collect();
    assert_eq!(inputs[0], "(1, 100)");
    assert!(inputs.iter().all(|input| *input == inputs[0]), "{inputs:?}");
    let journalled: Vec<_> = world
        .journal()
        .concat()
        .into_iter()
        .filter_map(|event| match event {
            Event::StepStarted { step, mapped, .. } => Some((step, mapped)),
            _ => None,
        })
        .collect();
    let [a, b, c] = &journalled[..] else {
        panic!("{journalled:?}")
    };
    assert_eq!((&*a.0, a.1.len()), ("a", 0));
    assert_eq!((&*b.0, b.1.len()), ("b", 1));
    assert_eq!(*b.1[0].get::<u64>().unwrap(), 100);
    assert_eq!((&*c.0, c.1.len()), ("c", 0));
}

#[test]
fn k5_a_definite_not_done_of_an_at_most_once_step_may_be_retried() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("once").policy(always(RecoveryStrategy::RetryFailed));
    let n = saga.input();
    let a = saga.add(world.step("a").at_most_once().retry(calls(2)), n);
    let saga = saga.returns(a).unwrap();
    world.plan("do a", [Act::not_done(), Act::not_done(), Act::not_done()]);
    assert_eq!(world.run_to_rest(&saga, 1).completed(), Some(4));
    assert_eq!(rounds(&world, "do a"), [1, 1, 1, 1]);
}

/// `a`, then `b`, which runs at most once.
fn once(world: &World, policy: RecoveryPolicy, probed: bool) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("once").policy(policy);
    let n = saga.input();
    let a = saga.add(world.step("a"), n);
    let mut b = world.step("b").at_most_once().retry(calls(5));
    if probed {
        b = b.probe(world.probe());
    }
    let b = saga.add(b, a);
    saga.returns(b).unwrap()
}

#[test]
fn k5_an_at_most_once_step_in_doubt_is_not_executed_again_by_retry_recovery_or_crash() {
    for strategy in [
        RecoveryStrategy::RetryFailed,
        RecoveryStrategy::RetryFromCheckpoint,
        RecoveryStrategy::RetryAll,
    ] {
        let world = World::new();
        let saga = once(&world, always(strategy), false);
        world.plan("do b", [Act::in_doubt()]);
        let partial = world.run_to_rest(&saga, 1).partial();
        assert_eq!(world.log(), ["do a", "do b"], "{strategy}");
        assert_eq!(partial.parked.unwrap().reason, ParkReason::Manual);
        assert_eq!(
            partial.why[0].overruled,
            Some(format!(
                "{strategy} is not available: `b` runs at most once and is in doubt"
            ))
        );
    }
    let world = World::new();
    let saga = once(&world, always(RecoveryStrategy::RetryAll), false);
    world.plan("do b", [Act::Hangs]);
    world.crash_at(&saga, 1, "do b");
    let partial = world.recover(&saga).partial();
    assert_eq!(world.log(), ["do a", "do b"]);
    assert_eq!(
        partial.parked.unwrap().reason,
        ParkReason::AtMostOnceInDoubt
    );
    // Another restart changes nothing.
    assert_eq!(world.recover(&saga).word(), "parked");
    assert_eq!(world.log(), ["do a", "do b"]);
}

#[test]
fn k5_a_doubt_that_came_before_counts_for_an_at_most_once_step() {
    // Interrupted, found absent by the probe, refused, in doubt: only the last one is a doubt.
    let world = World::new();
    let saga = once(&world, always(RecoveryStrategy::Manual), true);
    world.plan("do b", [Act::Hangs, Act::not_done(), Act::in_doubt()]);
    world.plan(
        "probe b",
        [Act::Says(Probed::Never), Act::Says(Probed::Unknown)],
    );
    world.crash_at(&saga, 1, "do b");
    let partial = world.recover(&saga).partial();
    assert_eq!(
        world.log(),
        ["do a", "do b", "probe b", "do b", "do b", "probe b"]
    );
    assert_eq!(partial.parked.unwrap().reason, ParkReason::Manual);
    assert_eq!(rounds(&world, "do b"), [1, 1, 1]);
}

#[test]
fn k5_an_operators_word_lets_an_at_most_once_step_go_on() {
    let resolved = |resolution: Resolution<u64>| {
        let world = World::new();
        let saga = once(&world, always(RecoveryStrategy::RetryFailed), false);
        world.plan("do b", [Act::Hangs]);
        world.crash_at(&saga, 1, "do b");
        assert_eq!(world.recover(&saga).word(), "parked");
        let output = world.life(&saga, async |coordinator| {
            let run = "r".into();
            let go_on = RecoveryStrategy::RetryFailed;
            let refused = coordinator.retry(&run, go_on, "ann", "go on").await;
            assert_eq!(
                refused.unwrap_err().to_string(),
                "run `r`: retry_failed is not available: `b` runs at most once and is in doubt \
                 (it takes now: retry, compensate, cancel, mark-compensated, resolve, abandon)"
            );
            let told = coordinator.resolve(&run, "b", resolution, "ann", "I asked");
            told.await.unwrap();
            let retried = coordinator.retry(&run, go_on, "ann", "go on").await;
            retried.unwrap();
            let handle = coordinator.attach(&saga, &run).await.unwrap().unwrap();
            handle.ended().await.unwrap().completed()
        });
        (output, rounds(&world, "do b"))
    };
    assert_eq!(resolved(Resolution::Done(70)), (Some(70), vec![1]));
    assert_eq!(resolved(Resolution::NotDone), (Some(2), vec![1, 1]));
}

#[test]
fn k5_an_operator_may_have_an_at_most_once_step_undone_and_executed_in_a_new_round() {
    let world = World::new();
    let saga = once(&world, always(RecoveryStrategy::Manual), false);
    world.plan("do b", [Act::in_doubt()]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "parked");
    let output = world.life(&saga, async |coordinator| {
        let run = "r".into();
        let retried = coordinator.retry(&run, RecoveryStrategy::RetryAll, "ann", "again");
        retried.await.unwrap();
        let handle = coordinator.attach(&saga, &run).await.unwrap().unwrap();
        handle.ended().await.unwrap().completed()
    });
    assert_eq!(output, Some(2));
    assert_eq!(
        world.log(),
        [
            "do a",
            "do b",
            "undo b (in doubt)",
            "undo a (done 1)",
            "do a",
            "do b"
        ]
    );
    assert_eq!(rounds(&world, "do b"), [1, 2]);
}
