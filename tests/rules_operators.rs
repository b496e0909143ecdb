//! Rules O1 to O3, and K4: what operators ask of a run, and what becomes of it. Also what C1, D6, I4 and S5
//! say about operators.

// The helpers of this file aren't test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;
mod operators;

use amends::journal::{
    CancelTold, Command, CommandAnswer, ResolvedEffect, SkippedEffect, Verb, VerbName,
};
use amends::store::{Store, SubmitError};
use amends::*;
use common::*;
use operators::*;

use RecoveryStrategy::{RetryAll, RetryFailed, RetryFromCheckpoint};

fn manual() -> RecoveryPolicy {
    RecoveryPolicy::new("by hand", RecoveryStrategy::Manual)
}

fn back() -> RecoveryPolicy {
    RecoveryPolicy::new("back", RecoveryStrategy::Compensate)
}

/// `a`, `b` and `c`, one after the other, one attempt each and two for each undo.
fn chain(world: &World, policy: RecoveryPolicy) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("chain").policy(policy);
    let step = |name: &str| {
        let step = world.step::<u64>(name).retry(Retry::none());
        step.compensation_retry(calls(2))
    };
    let n = saga.input();
    let a = saga.add(step("a"), n);
    let b = saga.add(step("b"), a);
    let c = saga.add(step("c"), b);
    saga.returns(c).unwrap()
}

/// `a` and `b`, which don't depend on each other, and `c` after both.
fn fork(world: &World, policy: RecoveryPolicy, order: UndoOrder) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("fork")
        .policy(policy)
        .undo_order(order);
    let n = saga.input();
    let step = |name: &str| world.step::<u64>(name).compensation_retry(calls(2));
    let a = saga.add(step("a"), n);
    let b = saga.add(step("b"), n);
    let c = world
        .step::<(u64, u64)>("c")
        .retry(Retry::none())
        .compensation_retry(calls(2));
    let c = saga.add(c, (a, b));
    saga.returns(c).unwrap()
}

/// Starts run `r` in a life of its own, and goes on with it when it is parked.
fn when_parked<O: Payload, T>(
    world: &World,
    saga: &Saga<u64, O>,
    then: impl AsyncFnOnce(&Coordinator, &RunHandle<O>, PartialResult) -> T,
) -> T {
    world.life(saga, async |coordinator| {
        let run = coordinator.start(saga, "r", 1).await.unwrap();
        let outcome = run.outcome().await.unwrap();
        assert_eq!(outcome.word(), "parked", "{:?}", story(world));
        then(&coordinator, &run, outcome.partial()).await
    })
}

/// How a step stands: its status, its effect and its round.
fn stands(partial: &PartialResult, step: &str) -> String {
    let step = partial.step(step).unwrap();
    format!("{:?} {:?} {}", step.status, step.effect, step.round)
}

// O1: verbs, their states and effects are one table.

#[test]
fn o1_a_refused_verb_changes_nothing_and_is_told_the_legal_ones() {
    let world = World::new();
    world.plan("do c", [Act::rejected()]);
    let saga = chain(&world, manual());
    when_parked(&world, &saga, async |coordinator, run, _| {
        let before = in_full(&world);
        let (why, legal) = no(coordinator, Verb::Resume).await;
        assert_eq!(
            why,
            "`resume` is not taken while the run is parked: it is parked, not paused: `retry` lets it go on"
        );
        let some = [
            VerbName::Retry,
            VerbName::Compensate,
            VerbName::Cancel,
            VerbName::Skip,
            VerbName::MarkCompensated,
            VerbName::Abandon,
        ];
        assert_eq!(legal, some);
        assert_eq!(in_full(&world), before);
        // Nobody was woken for good: the run still takes what it said that it takes.
        ok(coordinator, Verb::Abandon).await;
        assert_eq!(run.ended().await.unwrap().word(), "abandoned");
    });
}

#[test]
fn o1_the_same_token_again_does_nothing() {
    let world = World::new();
    world.plan("do c", [Act::rejected(), Act::rejected()]);
    let saga = chain(&world, manual());
    when_parked(&world, &saga, async |coordinator, run, _| {
        let retry = Command::new("r", Verb::retry(RetryFailed)).token("ticket");
        assert_eq!(coordinator.command(&retry).await.unwrap(), Told::Done);
        assert_eq!(run.outcome().await.unwrap().word(), "parked");
        let before = in_full(&world);
        assert_eq!(coordinator.command(&retry).await.unwrap(), Told::Done);
        world.store.submit(&retry).await.unwrap();
        let answer = loop {
            let entry = world.store.find_command("ticket").await.unwrap().unwrap();
            match entry.answer {
                Some(answer) => break answer,
                None => tokio::time::sleep(SECOND).await,
            }
        };
        assert_eq!(answer, CommandAnswer::Accepted { told: None });
        assert_eq!(in_full(&world), before);
        assert_eq!(world.calls_of("do c").len(), 2);
    });
}

#[test]
fn o1_a_cancel_under_a_known_token_is_told_what_the_first_was_told() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("o1");
    let n = saga.input();
    let pivot = saga.add(world.step::<u64>("pivot").pivot(), n);
    let after = saga.add(world.step::<u64>("after"), pivot);
    let saga = saga.returns(after).unwrap();
    world.plan("do after", [Act::Done(1).after(SECOND)]);
    world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        world.until("do after").await;
        let cancel = Command::new("r", Verb::Cancel).token("ticket");
        for _ in 0..2 {
            let told = coordinator.command(&cancel).await.unwrap();
            assert_eq!(told, Told::Cancel(CancelTold::TooLate));
        }
        assert_eq!(run.ended().await.unwrap().word(), "completed");
        // Also once the run has ended.
        let told = coordinator.command(&cancel).await.unwrap();
        assert_eq!(told, Told::Cancel(CancelTold::TooLate));
    });
    let cancels = story(&world);
    let cancels = cancels.iter().filter(|word| word.starts_with("cancel"));
    assert_eq!(cancels.count(), 1);
}

#[test]
fn o1_a_command_that_a_crash_left_without_its_answer_is_answered_and_not_carried_out_again() {
    let world = World::new();
    world.plan("do c", [Act::rejected(), Act::rejected()]);
    let saga = chain(&world, manual());
    let retry = Command::new("r", Verb::retry(RetryFailed)).token("ticket");
    when_parked(&world, &saga, async |coordinator, run, _| {
        // In the journal, and a crash before the store has the answer.
        coordinator.command(&retry).await.unwrap();
        assert_eq!(run.outcome().await.unwrap().word(), "parked");
        world.store.submit(&retry).await.unwrap();
    });
    let before = in_full(&world);
    world.life(&saga, async |_coordinator| {
        tokio::time::sleep(SECOND).await;
        let entry = world.store.find_command("ticket").await.unwrap().unwrap();
        assert_eq!(entry.answer, Some(CommandAnswer::Accepted { told: None }));
    });
    // Its journal gets no more than the new owner's claim.
    let after = story(&world);
    assert!(in_full(&world).starts_with(before.trim_end_matches(']')));
    assert_eq!(
        after
            .iter()
            .filter(|word| *word == "decided retry_failed")
            .count(),
        1
    );
    assert_eq!(world.calls_of("do c").len(), 2);
}

#[test]
fn o1_the_same_token_for_something_else_is_an_error() {
    let world = World::new();
    world.plan("do c", [Act::rejected()]);
    let saga = chain(&world, manual());
    when_parked(&world, &saga, async |_, _, _| {
        let retry = Command::new("r", Verb::retry(RetryFailed)).token("ticket");
        world.store.submit(&retry).await.unwrap();
        world.store.submit(&retry).await.unwrap();
        let others = [
            Command::new("r", Verb::Abandon).token("ticket"),
            retry.clone().by("bob"),
        ];
        for other in others {
            let told = world.store.submit(&other).await;
            assert!(
                matches!(&told, Err(SubmitError::TokenTaken { token }) if token == "ticket"),
                "{told:?}"
            );
        }
    });
}

#[test]
fn o1_commands_to_one_run_are_carried_out_in_the_order_in_which_they_came() {
    let world = World::new();
    world.plan("do a", [Act::Done(1).after(10 * SECOND)]);
    let saga = chain(&world, manual());
    let command = |verb, token| Command::new("r", verb).token(token);
    world.life(&saga, async |coordinator| {
        coordinator.start(&saga, "r", 1).await.unwrap();
        // Each append takes a second: the first command is under way, and the second waits for it, when the
        // others come.
        world.appends_take(SECOND);
        let pauses = [
            command(Verb::Pause, "1"),
            command(Verb::Resume, "2"),
            command(Verb::Pause, "3"),
            command(Verb::Abandon, "4"),
        ];
        for (at, pause) in pauses.iter().enumerate() {
            world.store.submit(pause).await.unwrap();
            if at > 0 {
                tokio::time::sleep(SECOND / 10).await;
            }
        }
        tokio::time::sleep(60 * SECOND).await;
        for pause in &pauses {
            let entry = world.store.find_command(&pause.token).await.unwrap();
            assert_eq!(
                entry.unwrap().answer,
                Some(CommandAnswer::Accepted { told: None }),
                "{}",
                pause.token
            );
        }
    });
    let verbs: Vec<String> = story_from(&world, "start a 1");
    assert_eq!(
        verbs,
        [
            "start a 1",
            "paused",
            "resumed",
            "paused",
            "abandon requested",
            "done a",
            "ended abandoned"
        ]
    );
}

#[test]
fn o1_a_run_that_was_given_up_takes_no_more() {
    let world = World::new();
    world.plan("do b", [Act::Done(1).after(10 * SECOND)]);
    let saga = chain(&world, manual());
    world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        world.until("do b").await;
        ok(&coordinator, Verb::Abandon).await;
        let before = in_full(&world);
        for verb in [Verb::Cancel, Verb::Abandon, Verb::Pause, plain_retry()] {
            let (why, legal) = no(&coordinator, verb).await;
            assert!(
                why.ends_with(
                    "while the run is given up: it ends as soon as what is in flight has come in"
                ),
                "{why}"
            );
            assert_eq!(legal, []);
        }
        assert_eq!(in_full(&world), before);
        let partial = run.ended().await.unwrap().partial();
        let left: Vec<&str> = partial.outstanding.iter().map(|left| &*left.step).collect();
        assert_eq!(left, ["a", "b"]);
    });
}

// O2: retry while unwinding.

#[test]
fn o2_retry_while_undoing_runs_undos_that_wait_or_failed_with_attempts_granted_anew() {
    let world = World::new();
    // `a` fails for good, `b` waits a minute for its second attempt.
    world.plan("do c", [Act::rejected()]);
    let wait = Retry::constant()
        .initial(60 * SECOND)
        .jitter(policy::Jitter::None)
        .max_attempts(2);
    world.plan("undo a", [Act::rejected(), Act::not_done(), Act::Done(0)]);
    world.plan("undo b", [Act::not_done(), Act::not_done(), Act::Done(0)]);
    let mut saga = Saga::builder::<u64>("o2").policy(back());
    let n = saga.input();
    let a = saga.add(world.step::<u64>("a").compensation_retry(calls(2)), n);
    let b = saga.add(world.step::<u64>("b").compensation_retry(wait), n);
    let c = saga.add(world.step::<(u64, u64)>("c").retry(Retry::none()), (a, b));
    let saga = saga.returns(c).unwrap();
    let keys = world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        world.until("undo b (done 1)").await;
        tokio::time::sleep(SECOND).await;
        let (at, before) = (world.now(), world.calls().len());
        ok(&coordinator, plain_retry()).await;
        assert_eq!(run.ended().await.unwrap().word(), "compensated");
        let calls: Vec<(String, u64)> = world.calls()[before..]
            .iter()
            .map(|call| {
                (
                    format!("{} {}", call.what, call.step),
                    call.at.saturating_sub(at).as_secs(),
                )
            })
            .collect();
        // Both have two attempts again: at once, and after the delay of each.
        assert_eq!(
            calls,
            [
                ("undo a".to_owned(), 0),
                ("undo b".to_owned(), 0),
                ("undo a".to_owned(), 1),
                ("undo b".to_owned(), 60)
            ]
        );
        let keys = |call: &str| -> Vec<String> {
            let calls = world.calls_of(call).into_iter();
            calls.map(|call| call.key).collect()
        };
        [keys("undo a"), keys("undo b")]
    });
    for keys in keys {
        assert_eq!(keys.len(), 3);
        assert!(
            keys.iter().all(|key| *key == keys[0]),
            "one key for ever: {keys:?}"
        );
    }
}

#[test]
fn o2_retry_while_an_undo_is_in_flight_leaves_that_call_alone() {
    let world = World::new();
    world.plan("do c", [Act::rejected()]);
    world.plan("undo b", [Act::Done(0).after(10 * SECOND)]);
    let saga = chain(&world, back());
    world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        world.until("undo b (done 1)").await;
        ok(&coordinator, plain_retry()).await;
        assert_eq!(run.ended().await.unwrap().word(), "compensated");
    });
    assert_eq!(world.calls_of("undo b").len(), 1);
    assert_eq!(
        story_from(&world, "undos retried"),
        [
            "undos retried",
            "undone b",
            "undo a 1",
            "undone a",
            "ended compensated"
        ]
    );
}

#[test]
fn o2_undos_that_are_retried_one_by_one_stay_one_by_one() {
    let world = World::new();
    world.plan("do b", [Act::Done(1).after(SECOND)]);
    world.plan("do c", [Act::rejected()]);
    // `b` completed last and is undone first; it fails for good, so `a` goes on.
    world.plan("undo b", [Act::rejected()]);
    world.plan("undo a", [Act::Done(0).after(10 * SECOND)]);
    let saga = fork(&world, back(), UndoOrder::Sequential);
    world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        world.until("undo a (done 1)").await;
        ok(&coordinator, plain_retry()).await;
        assert_eq!(run.ended().await.unwrap().word(), "compensated");
    });
    assert_eq!(
        story_from(&world, "undo failed b"),
        [
            "undo failed b",
            "undo a 1",
            "undos retried",
            "undone a",
            "undo b 1",
            "undone b",
            "ended compensated"
        ]
    );
}

#[test]
fn o2_a_plain_retry_of_a_run_parked_while_undoing_goes_on_to_where_it_was_going() {
    for (policy, word) in [
        (back(), "compensated"),
        (RecoveryPolicy::new("again", RetryAll), "completed"),
    ] {
        let world = World::new();
        world.plan("do c", [Act::rejected()]);
        world.plan("undo a", [Act::rejected()]);
        let saga = chain(&world, policy.backoff(calls(9)));
        when_parked(&world, &saga, async |coordinator, run, partial| {
            assert_eq!(stands(&partial, "a"), "UndoFailed Done 1");
            ok(coordinator, plain_retry()).await;
            assert_eq!(run.ended().await.unwrap().word(), word);
        });
        assert_eq!(world.calls_of("undo b").len(), 1);
        assert_eq!(world.calls_of("undo a").len(), 2);
    }
}

#[test]
fn o2_retry_all_while_unwinding_begins_again_only_after_all_is_undone() {
    let world = World::new();
    world.plan("do c", [Act::rejected()]);
    world.plan("undo b", [Act::Done(0).after(10 * SECOND)]);
    let saga = chain(&world, back());
    world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        world.until("undo b (done 1)").await;
        ok(&coordinator, Verb::retry(RetryAll)).await;
        let (why, _) = no(&coordinator, Verb::retry(RetryAll)).await;
        assert_eq!(
            why,
            "retry_all is not available: the run goes forward again once this is undone"
        );
        assert_eq!(run.ended().await.unwrap().word(), "completed");
    });
    assert_eq!(
        story_from(&world, "decided retry_all"),
        [
            "decided retry_all",
            "undone b",
            "undo a 1",
            "undone a",
            "start a 2",
            "done a",
            "start b 2",
            "done b",
            "start c 1",
            "done c",
            "ended completed"
        ]
    );
}

#[test]
fn o2_retry_all_while_unwinding_takes_up_an_undo_that_has_failed_and_survives_a_crash() {
    let world = World::new();
    world.plan("do c", [Act::rejected()]);
    world.plan("undo a", [Act::rejected()]);
    world.plan("undo b", [Act::Done(0).after(10 * SECOND), Act::Done(0)]);
    let saga = fork(&world, back(), UndoOrder::Parallel);
    world.life(&saga, async |coordinator| {
        coordinator.start(&saga, "r", 1).await.unwrap();
        world.until("undo b (done 1)").await;
        tokio::time::sleep(SECOND).await;
        ok(&coordinator, Verb::retry(RetryAll)).await;
    });
    assert_eq!(world.recover(&saga).word(), "completed");
    let undos = |step| world.calls_of(step).len();
    assert_eq!((undos("undo a"), undos("undo b")), (2, 2));
    let rounds: Vec<u32> = world
        .calls_of("do a")
        .iter()
        .map(|call| call.round)
        .collect();
    assert_eq!(rounds, [1, 2]);
}

#[test]
fn o2_retry_all_that_comes_together_with_the_end_of_the_last_undo_begins_again() {
    let world = World::new();
    world.plan("do c", [Act::rejected().after(SECOND)]);
    let saga = chain(&world, back());
    world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        world.until("do c").await;
        world.appends_take(SECOND);
        world.until("undo b (done 1)").await;
        // Within the append that announces the undo of `a`, which will answer at once.
        tokio::time::sleep(SECOND / 2).await;
        ok(&coordinator, Verb::retry(RetryAll)).await;
        assert_eq!(run.ended().await.unwrap().word(), "completed");
    });
    assert_eq!(
        story_from(&world, "undo a 1")[..4],
        ["undo a 1", "undone a", "decided retry_all", "start a 2"]
    );
}

#[test]
fn o2_retry_failed_and_retry_from_checkpoint_are_refused_while_unwinding() {
    let world = World::new();
    world.plan("do c", [Act::rejected()]);
    world.plan("undo b", [Act::Done(0).after(SECOND)]);
    world.plan("undo a", [Act::rejected()]);
    let saga = chain(&world, back());
    let refused = async |coordinator: &Coordinator| {
        let before = in_full(&world);
        for strategy in [RetryFailed, RetryFromCheckpoint] {
            let (why, _) = no(coordinator, Verb::retry(strategy)).await;
            assert_eq!(
                why,
                format!(
                    "{strategy} is not available while the run is being undone: a plain retry goes on undoing, \
                     `retry_all` begins again after all is undone"
                )
            );
        }
        assert_eq!(in_full(&world), before);
    };
    world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        world.until("undo b (done 1)").await;
        refused(&coordinator).await;
        assert_eq!(run.outcome().await.unwrap().word(), "parked");
        refused(&coordinator).await;
    });
}

// O2: skip.

#[test]
fn o2_skip_needs_a_settled_step_and_done_dependencies() {
    let world = World::new();
    world.plan("do b", [Act::lost()]);
    let saga = chain(&world, manual());
    when_parked(&world, &saga, async |coordinator, run, _| {
        let before = in_full(&world);
        for (step, reason) in [
            ("a", "`a` is done: it has to be undone first"),
            (
                "b",
                "`b` is in doubt: `resolve` says what became of it, `mark-compensated` that it was undone",
            ),
            ("c", "`c`: it waits for `b`, which is not done"),
            ("d", "the saga has no step `d`"),
        ] {
            let (why, _) = no(coordinator, skip(step, SkippedEffect::None, 7_u64)).await;
            assert_eq!(why, reason);
        }
        assert_eq!(in_full(&world), before);
        ok(coordinator, resolve("b", ResolvedEffect::NotDone)).await;
        ok(coordinator, skip("b", SkippedEffect::None, 7_u64)).await;
        // One after the other: now `c` has all that it waits for.
        ok(coordinator, skip("c", SkippedEffect::None, 8_u64)).await;
        let partial = coordinator.get(&"r".into()).await.unwrap().unwrap();
        assert_eq!(stands(&partial, "b"), "Skipped NotDone 1");
        assert_eq!((partial.completed, partial.remaining), (3, 0));
        ok(coordinator, plain_retry()).await;
        assert_eq!(run.ended().await.unwrap().completed(), Some(8));
    });
    assert_eq!(world.log(), ["do a", "do b"]);
}

#[test]
fn o2_a_skip_without_effect_is_not_undone_and_one_with_effect_is_undone_with_that_output() {
    for (effect, undos) in [
        (SkippedEffect::None, vec!["undo a (done 1)"]),
        (
            SkippedEffect::Done,
            vec!["undo b (done 7)", "undo a (done 1)"],
        ),
    ] {
        let world = World::new();
        world.plan("do b", [Act::rejected()]);
        world.plan("do c", [Act::rejected()]);
        let saga = chain(&world, manual());
        when_parked(&world, &saga, async |coordinator, run, _| {
            ok(coordinator, skip("b", effect, 7_u64)).await;
            ok(coordinator, plain_retry()).await;
            let partial = run.outcome().await.unwrap().partial();
            assert_eq!(
                partial.parked.unwrap().message,
                "`c` failed; rule `otherwise` of policy `by hand` says manual"
            );
            ok(coordinator, Verb::Compensate).await;
            assert_eq!(run.ended().await.unwrap().word(), "compensated");
        });
        // `c` got the output that was given.
        assert_eq!(world.calls_of("do c")[0].input, "7");
        let log = world.log();
        assert_eq!(log[3..], undos, "{effect:?}");
    }
}

#[test]
fn o2_a_step_that_was_skipped_without_a_call_is_undone_with_its_input_and_key() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("o2").policy(manual());
    let n = saga.input();
    let first = saga.add(world.step::<u64>("first").retry(Retry::none()), n);
    let mapped = saga.add(
        world.step::<String>("mapped"),
        first.map(|n| format!("<{n}>")),
    );
    let last = saga.add(world.step::<u64>("last").retry(Retry::none()), mapped);
    let saga = saga.returns(last).unwrap();
    world.plan("do first", [Act::rejected()]);
    world.plan("do last", [Act::rejected()]);
    when_parked(&world, &saga, async |coordinator, run, _| {
        ok(coordinator, skip("first", SkippedEffect::None, 5_u64)).await;
        ok(coordinator, skip("mapped", SkippedEffect::Done, 6_u64)).await;
        ok(coordinator, plain_retry()).await;
        assert_eq!(run.outcome().await.unwrap().word(), "parked");
        ok(coordinator, Verb::Compensate).await;
        assert_eq!(run.ended().await.unwrap().word(), "compensated");
    });
    let undo = &world.calls_of("undo mapped")[0];
    assert_eq!((&*undo.input, &*undo.effect), ("\"<5>\"", "done 6"));
    let uid = undo.key.split('/').next().unwrap();
    assert_eq!(undo.effect_key, format!("{uid}/mapped/1"));
    assert_eq!(undo.key, format!("{uid}/mapped/1/undo"));
}

#[test]
fn o2_an_output_that_is_none_of_the_steps_is_refused() {
    let world = World::new();
    world.plan("do a", [Act::lost()]);
    let saga = chain(&world, manual());
    when_parked(&world, &saga, async |coordinator, _, _| {
        let before = in_full(&world);
        let (why, _) = no(coordinator, resolve_done("a", "seven".to_owned())).await;
        assert!(
            why.starts_with("the output given for `a` can't be read: "),
            "{why}"
        );
        ok(coordinator, resolve("a", ResolvedEffect::NotDone)).await;
        assert_ne!(in_full(&world), before);
        let before = in_full(&world);
        let (why, _) = no(
            coordinator,
            skip("a", SkippedEffect::Done, "seven".to_owned()),
        )
        .await;
        assert!(
            why.starts_with("the output given for `a` can't be read: "),
            "{why}"
        );
        assert_eq!(in_full(&world), before);
    });
}

#[test]
fn o2_a_skip_holds_until_the_run_begins_anew() {
    let world = World::new();
    world.plan("do b", [Act::rejected()]);
    world.plan("do c", [Act::rejected()]);
    let saga = chain(&world, manual());
    when_parked(&world, &saga, async |coordinator, run, _| {
        ok(coordinator, skip("b", SkippedEffect::None, 7_u64)).await;
        ok(coordinator, plain_retry()).await;
        assert_eq!(run.outcome().await.unwrap().word(), "parked");
        assert_eq!(world.log(), ["do a", "do b", "do c"]);
        ok(coordinator, Verb::retry(RetryAll)).await;
        assert_eq!(run.ended().await.unwrap().word(), "completed");
    });
    assert_eq!(
        world.log()[3..],
        ["undo a (done 1)", "do a", "do b", "do c"]
    );
}

/// `a`, the pivot, and `burn`, which can't be undone, and `last`.
fn past_the_pivot(world: &World) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("pivot").policy(manual());
    let n = saga.input();
    let a = saga.add(world.step::<u64>("a"), n);
    let pivot = saga.add(world.step::<u64>("pivot").pivot().retry(Retry::none()), a);
    let burn = saga.add(world.irreversible::<u64>("burn"), pivot);
    let last = saga.add(world.step::<u64>("last").retry(Retry::none()), burn);
    saga.returns(last).unwrap()
}

#[test]
fn o2_a_pivot_that_was_skipped_without_effect_can_be_gone_behind_again() {
    let world = World::new();
    let saga = past_the_pivot(&world);
    world.plan("do pivot", [Act::rejected()]);
    when_parked(&world, &saga, async |coordinator, run, _| {
        ok(coordinator, skip("pivot", SkippedEffect::None, 7_u64)).await;
        assert_eq!(
            ok(coordinator, Verb::Cancel).await,
            Some(CancelTold::Accepted)
        );
        assert_eq!(run.ended().await.unwrap().word(), "compensated");
    });
    assert_eq!(world.log()[2..], ["undo a (done 1)"]);

    let world = World::new();
    let saga = past_the_pivot(&world);
    world.plan("do pivot", [Act::rejected()]);
    when_parked(&world, &saga, async |coordinator, run, _| {
        ok(coordinator, skip("pivot", SkippedEffect::Done, 7_u64)).await;
        assert_eq!(
            ok(coordinator, Verb::Cancel).await,
            Some(CancelTold::TooLate)
        );
        let (why, _) = no(coordinator, Verb::Compensate).await;
        assert_eq!(
            why,
            "compensate is not available past the pivot: nothing goes back there"
        );
        ok(coordinator, plain_retry()).await;
        assert_eq!(run.ended().await.unwrap().word(), "completed");
    });
}

#[test]
fn o2_behind_a_skipped_pivot_what_cannot_be_undone_is_the_point_of_no_return() {
    let world = World::new();
    let saga = past_the_pivot(&world);
    world.plan("do pivot", [Act::rejected()]);
    world.plan("do burn", [Act::Done(1).after(SECOND)]);
    world.plan("do last", [Act::Done(1).after(SECOND)]);
    when_parked(&world, &saga, async |coordinator, run, _| {
        ok(coordinator, skip("pivot", SkippedEffect::None, 7_u64)).await;
        ok(coordinator, plain_retry()).await;
        world.until("do burn").await;
        assert_eq!(
            ok(coordinator, Verb::Cancel).await,
            Some(CancelTold::Pending)
        );
        world.until("do last").await;
        assert_eq!(
            ok(coordinator, Verb::Cancel).await,
            Some(CancelTold::TooLate)
        );
        assert_eq!(run.ended().await.unwrap().word(), "completed");
    });
    assert_eq!(
        world.log(),
        [
            "do a",
            "do pivot",
            "do burn",
            "woke burn",
            "do last",
            "woke last"
        ]
    );
}

// O2: resolve.

#[test]
fn o2_resolve_done_needs_the_output_where_the_run_may_go_forward() {
    let world = World::new();
    world.plan("do b", [Act::lost()]);
    let saga = chain(&world, manual());
    when_parked(&world, &saga, async |coordinator, run, partial| {
        assert_eq!(stands(&partial, "b"), "Failed InDoubt 1");
        let before = in_full(&world);
        let (why, _) = no(coordinator, resolve("b", ResolvedEffect::Done(None))).await;
        assert_eq!(
            why,
            "`b` is done only with its output: the run may go forward, and its dependents need it"
        );
        let (why, _) = no(coordinator, resolve("a", ResolvedEffect::NotDone)).await;
        assert_eq!(why, "`a` is not in doubt");
        assert_eq!(in_full(&world), before);
        ok(coordinator, resolve_done("b", 7_u64)).await;
        assert_eq!(
            coordinator
                .get(&"r".into())
                .await
                .unwrap()
                .unwrap()
                .standing,
            journal::Standing::Parked
        );
        ok(coordinator, plain_retry()).await;
        assert_eq!(run.ended().await.unwrap().word(), "completed");
    });
    assert_eq!(world.log(), ["do a", "do b", "do c"]);
    assert_eq!(world.calls_of("do c")[0].input, "7");
}

#[test]
fn o2_resolve_done_while_undoing_tells_the_undo_what_is_known() {
    for (word, effect) in [
        (ResolvedEffect::Done(None), "in doubt"),
        (ResolvedEffect::Done(Some(value(7_u64))), "done 7"),
    ] {
        let world = World::new();
        world.plan("do c", [Act::lost()]);
        world.plan("undo c", [Act::rejected()]);
        let saga = chain(&world, back());
        when_parked(&world, &saga, async |coordinator, run, _| {
            ok(coordinator, resolve("c", word)).await;
            let partial = coordinator.get(&"r".into()).await.unwrap().unwrap();
            assert_eq!(partial.standing, journal::Standing::Parked);
            ok(coordinator, plain_retry()).await;
            assert_eq!(run.ended().await.unwrap().word(), "compensated");
        });
        let log = world.log();
        assert_eq!(log[3], "undo c (in doubt)");
        assert_eq!(log[4], format!("undo c ({effect})"));
        assert_eq!(log[5..], ["undo b (done 1)", "undo a (done 1)"]);
    }
}

#[test]
fn o2_resolve_not_done_keeps_the_key_unless_an_undo_has_begun() {
    // It asserts `Never`: the same round goes on under the same key.
    let world = World::new();
    world.plan("do c", [Act::lost()]);
    let saga = chain(&world, manual());
    when_parked(&world, &saga, async |coordinator, run, _| {
        ok(coordinator, resolve("c", ResolvedEffect::NotDone)).await;
        ok(coordinator, plain_retry()).await;
        assert_eq!(run.ended().await.unwrap().word(), "completed");
    });
    let rounds: Vec<u32> = world
        .calls_of("do c")
        .iter()
        .map(|call| call.round)
        .collect();
    assert_eq!(rounds, [1, 1]);

    // What an undo that failed may have closed is never used again (rule K2).
    let world = World::new();
    world.plan("do a", [Act::lost()]);
    world.plan("undo a", [Act::rejected()]);
    let saga = chain(&world, back());
    when_parked(&world, &saga, async |coordinator, run, _| {
        ok(coordinator, resolve("a", ResolvedEffect::NotDone)).await;
        let partial = coordinator.get(&"r".into()).await.unwrap().unwrap();
        assert_eq!(stands(&partial, "a"), "Failed NotDone 2");
        ok(coordinator, Verb::retry(RetryFailed)).await;
        assert_eq!(run.ended().await.unwrap().word(), "completed");
    });
    let rounds: Vec<u32> = world
        .calls_of("do a")
        .iter()
        .map(|call| call.round)
        .collect();
    assert_eq!(rounds, [1, 2]);
}

// O2: mark-compensated.

#[test]
fn o2_what_is_marked_compensated_is_marked_dependents_first_and_runs_again_in_a_new_round() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("o2").policy(manual());
    let n = saga.input();
    let a = saga.add(world.step::<u64>("a"), n);
    let look = saga.add(world.read_only::<u64>("look"), a);
    let b = saga.add(world.step::<u64>("b"), look);
    let c = saga.add(world.step::<u64>("c").retry(Retry::none()), b);
    let saga = saga.returns(c).unwrap();
    world.plan("do c", [Act::lost()]);
    when_parked(&world, &saga, async |coordinator, run, _| {
        let before = in_full(&world);
        for (step, reason) in [
            ("a", "`a`: `b` depends on it, and has to be undone first"),
            ("b", "`b`: `c` depends on it, and has to be undone first"),
            ("look", "`look`: there is nothing to undo"),
        ] {
            assert_eq!(no(coordinator, mark(step)).await.0, reason);
        }
        assert_eq!(in_full(&world), before);
        for step in ["c", "b", "a"] {
            ok(coordinator, mark(step)).await;
            let (why, _) = no(coordinator, mark(step)).await;
            assert_eq!(why, format!("`{step}`: there is nothing to undo"));
        }
        let partial = coordinator.get(&"r".into()).await.unwrap().unwrap();
        assert_eq!(partial.outstanding, []);
        let by_hand: Vec<(&str, u32, Option<&str>)> = partial
            .compensations
            .iter()
            .map(|undone| (&*undone.step, undone.round, undone.by_hand.as_deref()))
            .collect();
        let ann = Some("ann");
        assert_eq!(by_hand, [("c", 1, ann), ("b", 1, ann), ("a", 1, ann)]);
        ok(coordinator, plain_retry()).await;
        assert_eq!(run.ended().await.unwrap().word(), "completed");
    });
    assert_eq!(
        world.log(),
        [
            "do a", "do look", "do b", "do c", "do a", "do look", "do b", "do c"
        ]
    );
    for step in ["do a", "do look", "do b", "do c"] {
        let calls = world.calls_of(step);
        assert_eq!((calls[0].round, calls[1].round), (1, 2), "{step}");
        assert_ne!(calls[0].key, calls[1].key);
    }
}

#[test]
fn o2_marked_then_retried_then_failed_then_compensated_undoes_the_new_rounds_once() {
    let world = World::new();
    world.plan("do c", [Act::lost(), Act::rejected()]);
    let saga = chain(&world, manual());
    when_parked(&world, &saga, async |coordinator, run, _| {
        for step in ["c", "b"] {
            ok(coordinator, mark(step)).await;
        }
        ok(coordinator, Verb::retry(RetryFailed)).await;
        assert_eq!(run.outcome().await.unwrap().word(), "parked");
        ok(coordinator, Verb::Compensate).await;
        let partial = run.ended().await.unwrap().partial();
        assert_eq!(partial.standing, journal::Standing::Compensated);
        assert_eq!(partial.compensations.len(), 4);
    });
    assert_eq!(
        story_from(&world, "decided compensate"),
        [
            "decided compensate",
            "undo b 2",
            "undone b",
            "undo a 1",
            "undone a",
            "ended compensated"
        ]
    );
}

#[test]
fn o2_where_the_last_undo_was_made_by_hand_a_retry_runs_everything_again() {
    // `b` is undone, `a`, which doesn't depend on it, fails to be.
    for order in [UndoOrder::Parallel, UndoOrder::Sequential] {
        let world = World::new();
        world.plan("do c", [Act::rejected()]);
        world.plan("undo a", [Act::rejected()]);
        let saga = fork(&world, back(), order);
        when_parked(&world, &saga, async |coordinator, run, partial| {
            assert_eq!(stands(&partial, "b"), "Undone NotDone 2");
            assert!(
                !partial.legal.contains(&VerbName::Skip),
                "{:?}",
                partial.legal
            );
            ok(coordinator, mark("a")).await;
            let partial = coordinator.get(&"r".into()).await.unwrap().unwrap();
            assert_eq!((partial.completed, partial.remaining), (0, 1));
            assert!(
                partial.legal.contains(&VerbName::Skip),
                "{:?}",
                partial.legal
            );
            ok(coordinator, Verb::retry(RetryFailed)).await;
            assert_eq!(run.ended().await.unwrap().word(), "completed");
        });
        let rounds = |call: &str| -> Vec<u32> {
            world.calls_of(call).iter().map(|call| call.round).collect()
        };
        assert_eq!(rounds("do a"), [1, 2]);
        assert_eq!(rounds("do b"), [1, 2]);
        assert_eq!(rounds("do c"), [1, 1]);
    }
}

#[test]
fn o2_where_the_last_undo_was_made_by_hand_what_was_read_is_read_again() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("o2").policy(back());
    let n = saga.input();
    let a = saga.add(world.step::<u64>("a").compensation_retry(calls(1)), n);
    let root = saga.add(world.read_only::<u64>("root"), n);
    let b = saga.add(world.step::<u64>("b"), root);
    let look = saga.add(world.read_only::<u64>("look"), b);
    let c = saga.add(
        world.step::<(u64, u64)>("c").retry(Retry::none()),
        (a, look),
    );
    let saga = saga.returns(c).unwrap();
    world.plan("do c", [Act::rejected()]);
    world.plan("undo a", [Act::not_done()]);
    when_parked(&world, &saga, async |coordinator, run, _| {
        ok(coordinator, mark("a")).await;
        ok(coordinator, plain_retry()).await;
        assert_eq!(run.ended().await.unwrap().word(), "completed");
    });
    for step in ["a", "root", "b", "look"] {
        let calls = world.calls_of(&format!("do {step}"));
        let rounds: Vec<u32> = calls.iter().map(|call| call.round).collect();
        assert_eq!(rounds, [1, 2], "{step}");
    }
}

#[test]
fn o2_an_undoing_of_failed_steps_that_was_helped_forgets_none_of_them() {
    // Rule `always`: both are undone before they are tried again; the undo of one fails for good.
    let world = World::new();
    let mut saga = Saga::builder::<u64>("o2")
        .policy(RecoveryPolicy::new("again", RetryFailed).backoff(calls(9)));
    let n = saga.input();
    let step = |name: &str| {
        let step = world.step::<u64>(name).retry(Retry::none());
        step.undo_failing(UndoRule::Always)
            .compensation_retry(calls(1))
    };
    let one = saga.add(step("one"), n);
    let two = saga.add(step("two"), n);
    let saga = saga.returns((one, two)).unwrap();
    world.plan("do one", [Act::not_done()]);
    world.plan("do two", [Act::lost()]);
    world.plan("undo two", [Act::not_done()]);
    when_parked(&world, &saga, async |coordinator, run, partial| {
        assert_eq!(stands(&partial, "one"), "Undone NotDone 2");
        assert_eq!(stands(&partial, "two"), "UndoFailed InDoubt 1");
        ok(coordinator, plain_retry()).await;
        assert_eq!(run.ended().await.unwrap().word(), "completed");
    });
    for step in ["do one", "do two"] {
        let rounds: Vec<u32> = world.calls_of(step).iter().map(|call| call.round).collect();
        assert_eq!(rounds, [1, 2], "{step}");
    }
}

// O2: pause.

#[test]
fn o2_a_pause_stops_starts_and_retries_and_awaits_what_is_in_flight() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("o2");
    let n = saga.input();
    let flies = saga.add(world.step::<u64>("flies"), n);
    let sleeps = saga.add(world.step::<u64>("sleeps").retry(calls(3)), n);
    let after = saga.add(world.step::<(u64, u64)>("after"), (flies, sleeps));
    let saga = saga.returns(after).unwrap();
    world.plan("do flies", [Act::Done(1).after(10 * SECOND)]);
    world.plan("do sleeps", [Act::not_done()]);
    world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        world.until("do sleeps").await;
        ok(&coordinator, Verb::Pause).await;
        tokio::time::sleep(100 * SECOND).await;
        // The attempt in flight came in; neither the retry nor what waited for both has started.
        assert_eq!(world.log(), ["do flies", "do sleeps", "woke flies"]);
        let partial = coordinator.get(&"r".into()).await.unwrap().unwrap();
        assert_eq!(partial.standing, journal::Standing::Paused);
        let pause = partial.paused.clone().unwrap();
        assert_eq!((&*pause.by, &*pause.reason), ("ann", "because"));
        assert_eq!(partial.hint(), "paused by ann: `resume` lets it go on");
        assert_eq!(coordinator.driving(), 0);
        ok(&coordinator, Verb::Resume).await;
        assert_eq!(run.ended().await.unwrap().word(), "completed");
    });
    assert_eq!(world.log()[3..], ["do sleeps", "do after"]);
    assert_eq!(world.now().as_secs(), 100);
}

#[test]
fn o2_a_pause_stops_undos_and_their_retries_and_probes() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("o2").policy(back());
    let n = saga.input();
    let a = saga.add(world.step::<u64>("a"), n);
    let b = saga.add(world.step::<u64>("b").compensation_retry(calls(3)), n);
    let c = world.step::<(u64, u64)>("c").retry(Retry::none());
    let c = saga.add(c.probe(world.probe()), (a, b));
    let saga = saga.returns(c).unwrap();
    world.plan("do c", [Act::lost().after(SECOND)]);
    world.plan("undo a", [Act::Done(0).after(10 * SECOND)]);
    world.plan("undo b", [Act::not_done()]);
    world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        world.until("do c").await;
        ok(&coordinator, Verb::Pause).await;
        tokio::time::sleep(100 * SECOND).await;
        assert_eq!(world.log(), ["do a", "do b", "do c", "woke c"]);
        ok(&coordinator, Verb::Resume).await;
        world.until("undo b (done 1)").await;
        ok(&coordinator, Verb::Pause).await;
        tokio::time::sleep(100 * SECOND).await;
        assert_eq!(
            world.log()[4..],
            [
                "probe c",
                "undo c (in doubt)",
                "undo b (done 1)",
                "undo a (done 1)",
                "woke a"
            ]
        );
        ok(&coordinator, Verb::Resume).await;
        assert_eq!(run.ended().await.unwrap().word(), "compensated");
    });
    assert_eq!(world.log()[9..], ["undo b (done 1)"]);
}

#[test]
fn o2_a_pause_survives_crashes_and_what_was_in_flight_is_not_started_again_in_it() {
    let world = World::new();
    let saga = chain(&world, manual());
    world.plan("do b", [Act::Hangs]);
    world.life(&saga, async |coordinator| {
        coordinator.start(&saga, "r", 1).await.unwrap();
        world.until("do b").await;
        ok(&coordinator, Verb::Pause).await;
    });
    for _ in 0..2 {
        world.life(&saga, async |coordinator| {
            coordinator.all_resumed().await;
            tokio::time::sleep(100 * SECOND).await;
            assert_eq!(coordinator.driving(), 0);
        });
    }
    assert_eq!(world.log(), ["do a", "do b"]);
    world.life(&saga, async |coordinator| {
        ok(&coordinator, Verb::Resume).await;
        let run = coordinator
            .attach(&saga, &"r".into())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(run.ended().await.unwrap().word(), "completed");
    });
    assert_eq!(
        story_from(&world, "paused"),
        [
            "paused",
            "claimed 2",
            "claimed 3",
            "resumed",
            "start b 1",
            "done b",
            "start c 1",
            "done c",
            "ended completed"
        ]
    );
}

#[test]
fn o2_a_pause_that_comes_between_the_announcement_and_the_call_prevents_the_call() {
    let world = World::new();
    let saga = chain(&world, back());
    world.plan("do a", [Act::Done(1).after(SECOND)]);
    world.plan("do c", [Act::rejected().after(SECOND)]);
    // A second and a half after the call: within the append that has its result, and announces what follows.
    let within = async |line: &str| {
        world.until(line).await;
        world.appends_take(SECOND);
        tokio::time::sleep(SECOND + SECOND / 2).await;
    };
    world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        for (line, log) in [
            ("do a", &["do a", "woke a"][..]),
            ("do c", &["do a", "woke a", "do b", "do c", "woke c"]),
        ] {
            within(line).await;
            ok(&coordinator, Verb::Pause).await;
            tokio::time::sleep(100 * SECOND).await;
            assert_eq!(world.log(), log);
            ok(&coordinator, Verb::Resume).await;
        }
        assert_eq!(run.ended().await.unwrap().word(), "compensated");
    });
    let story = story(&world);
    for word in ["not started b", "undo not started b"] {
        assert_eq!(
            story.iter().filter(|told| *told == word).count(),
            1,
            "{word}"
        );
    }
    let calls = |call| world.calls_of(call).len();
    assert_eq!((calls("do b"), calls("undo b")), (1, 1));
}

#[test]
fn o2_paused_while_settling_then_crashed_then_cancelled_then_resumed() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("o2").policy(manual());
    let n = saga.input();
    let a = saga.add(world.step::<u64>("a"), n);
    let fails = saga.add(world.step::<u64>("fails").retry(Retry::none()), a);
    let flies = saga.add(world.step::<u64>("flies").probe(world.probe()), a);
    let saga = saga.returns((fails, flies)).unwrap();
    world.plan("do fails", [Act::rejected()]);
    world.plan("do flies", [Act::Hangs]);
    world.life(&saga, async |coordinator| {
        coordinator.start(&saga, "r", 1).await.unwrap();
        world.until("do flies").await;
        tokio::time::sleep(SECOND).await;
        ok(&coordinator, Verb::Pause).await;
    });
    world.life(&saga, async |coordinator| {
        coordinator.all_resumed().await;
        tokio::time::sleep(SECOND).await;
        // Nothing is asked in a pause, so nothing can be decided.
        assert_eq!(world.log(), ["do a", "do fails", "do flies"]);
        assert_eq!(
            ok(&coordinator, Verb::Cancel).await,
            Some(CancelTold::Accepted)
        );
        tokio::time::sleep(SECOND).await;
        assert_eq!(world.log().len(), 3);
        let run = coordinator
            .attach(&saga, &"r".into())
            .await
            .unwrap()
            .unwrap();
        ok(&coordinator, Verb::Resume).await;
        assert_eq!(run.ended().await.unwrap().word(), "compensated");
    });
    assert_eq!(
        world.log()[3..],
        ["probe flies", "undo flies (in doubt)", "undo a (done 1)"]
    );
}

#[test]
fn o2_a_cancel_of_a_paused_run_is_decided_at_once_and_undone_after_the_pause() {
    let world = World::new();
    let saga = chain(&world, manual());
    world.plan("do b", [Act::Done(1).after(SECOND)]);
    world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        world.until("do b").await;
        ok(&coordinator, Verb::Pause).await;
        tokio::time::sleep(10 * SECOND).await;
        ok(&coordinator, Verb::Cancel).await;
        tokio::time::sleep(10 * SECOND).await;
        assert_eq!(
            story_from(&world, "cancel Accepted"),
            ["cancel Accepted", "decided compensate"]
        );
        ok(&coordinator, Verb::Resume).await;
        assert_eq!(run.ended().await.unwrap().word(), "compensated");
    });
}

#[test]
fn o2_a_run_that_is_parked_in_a_pause_is_parked_and_not_paused() {
    let world = World::new();
    let saga = chain(&world, manual());
    world.plan("do a", [Act::rejected().after(SECOND)]);
    world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        world.until("do a").await;
        ok(&coordinator, Verb::Pause).await;
        let partial = run.outcome().await.unwrap().partial();
        assert_eq!(
            (partial.standing, partial.paused),
            (journal::Standing::Parked, None)
        );
        ok(&coordinator, plain_retry()).await;
        assert_eq!(run.ended().await.unwrap().word(), "completed");
    });
}

#[test]
fn o2_a_run_that_rests_on_a_timer_takes_commands() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("o2");
    let n = saga.input();
    let wait = Retry::constant()
        .initial(600 * SECOND)
        .jitter(policy::Jitter::None)
        .max_attempts(3);
    let a = saga.add(world.step::<u64>("a").retry(wait), n);
    let saga = saga.returns(a).unwrap();
    world.plan("do a", [Act::not_done(), Act::not_done()]);
    world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        tokio::time::sleep(SECOND).await;
        assert_eq!(coordinator.driving(), 0);
        let (why, _) = no(&coordinator, plain_retry()).await;
        assert!(why.contains("nothing waits for an operator"), "{why}");
        assert_eq!(coordinator.driving(), 0);
        ok(&coordinator, Verb::Pause).await;
        tokio::time::sleep(1_000 * SECOND).await;
        assert_eq!(world.calls().len(), 1);
        // Its time has come in the pause, so it is tried at once; then it rests on its timer again.
        ok(&coordinator, Verb::Resume).await;
        assert_eq!(run.ended().await.unwrap().word(), "completed");
    });
    let at: Vec<u64> = world.calls().iter().map(|call| call.at.as_secs()).collect();
    assert_eq!(at, [0, 1_001, 1_601]);
}

// O2: abandon.

#[test]
fn o2_abandon_waits_for_attempts_in_flight_and_lists_what_stands() {
    for crash in [false, true] {
        let world = World::new();
        let mut saga = Saga::builder::<u64>("o2");
        let n = saga.input();
        let a = saga.add(world.step::<u64>("a"), n);
        let told = saga.add(world.step::<u64>("told"), a);
        let sleeps = saga.add(world.step::<u64>("sleeps").retry(calls(3)), a);
        let saga = saga.returns((told, sleeps)).unwrap();
        world.plan(
            "do told",
            [Act::WhenTold(Box::new(Act::Done(1).after(SECOND)))],
        );
        world.plan("do sleeps", [Act::not_done()]);
        world.life(&saga, async |coordinator| {
            let run = coordinator.start(&saga, "r", 1).await.unwrap();
            world.until("do sleeps").await;
            ok(&coordinator, Verb::Abandon).await;
            if crash {
                return;
            }
            let partial = run.ended().await.unwrap().partial();
            assert_eq!(partial.standing, journal::Standing::Abandoned);
            let left: Vec<&str> = partial.outstanding.iter().map(|left| &*left.step).collect();
            assert_eq!(left, ["a", "told"]);
            assert_eq!(partial.legal, []);
        });
        if crash {
            let partial = world.recover(&saga).partial();
            assert_eq!(partial.standing, journal::Standing::Abandoned);
            assert_eq!(partial.outstanding[1].effect, EffectReport::InDoubt);
        }
        assert_eq!(world.calls_of("do sleeps").len(), 1);
        let story = story_from(&world, "abandon requested");
        let came = if crash { "claimed 2" } else { "done told" };
        assert_eq!(story, ["abandon requested", came, "ended abandoned"]);
    }
}

#[test]
fn o2_abandon_while_undoing_awaits_the_undo_in_flight_and_starts_no_other() {
    for paused in [false, true] {
        let world = World::new();
        let saga = chain(&world, back());
        world.plan("do c", [Act::rejected()]);
        world.plan("undo b", [Act::Done(0).after(SECOND)]);
        world.life(&saga, async |coordinator| {
            let run = coordinator.start(&saga, "r", 1).await.unwrap();
            world.until("undo b (done 1)").await;
            if paused {
                ok(&coordinator, Verb::Pause).await;
            }
            ok(&coordinator, Verb::Abandon).await;
            let partial = run.ended().await.unwrap().partial();
            assert_eq!(partial.outstanding.len(), 1);
            assert_eq!(partial.outstanding[0].step, "a");
        });
        assert_eq!(
            story_from(&world, "abandon requested"),
            ["abandon requested", "undone b", "ended abandoned"]
        );
    }
}

// O3: ended runs accept no verb.

#[test]
fn o3_an_ended_run_takes_no_verb_and_is_done_again_by_another_that_says_so() {
    let world = World::new();
    let saga = chain(&world, back());
    world.plan("do c", [Act::rejected()]);
    world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        assert_eq!(run.ended().await.unwrap().word(), "compensated");
        let before = in_full(&world);
        for verb in [
            Verb::Cancel,
            Verb::Compensate,
            Verb::Abandon,
            Verb::Pause,
            plain_retry(),
        ] {
            let (why, legal) = no(&coordinator, verb).await;
            assert_eq!(why, "the run has ended: start a new one instead");
            assert_eq!(legal, []);
        }
        assert_eq!(in_full(&world), before);
        let options = StartOptions::new().redo_of("r".into());
        let again = coordinator
            .start_with(&saga, "r2", 1, options)
            .await
            .unwrap();
        assert_eq!(again.ended().await.unwrap().word(), "completed");
        let journal = world.store.load(&"r2".into()).await.unwrap().unwrap();
        let journal::Event::RunStarted(started) = &journal.records[0].events[0] else {
            panic!("no start")
        };
        assert_eq!(started.redo_of.as_deref(), Some("r"));
    });
    // Another run with keys of its own: nothing of the first one is taken for its.
    let uid = |call: &Call| call.key.split('/').next().unwrap().to_owned();
    let calls = world.calls_of("do a");
    assert_ne!(uid(&calls[0]), uid(&calls[1]));
}

// K4: an edited input.

#[test]
fn k4_an_edited_input_opens_a_new_round_with_a_new_key_and_its_undo_gets_it() {
    let world = World::new();
    let saga = chain(&world, manual());
    world.plan("do b", [Act::rejected()]);
    world.plan("do c", [Act::rejected()]);
    when_parked(&world, &saga, async |coordinator, run, _| {
        ok(coordinator, edited([("b", 70_u64)])).await;
        assert_eq!(run.outcome().await.unwrap().word(), "parked");
        ok(coordinator, Verb::Compensate).await;
        assert_eq!(run.ended().await.unwrap().word(), "compensated");
    });
    let said: Vec<(String, u32)> = world
        .calls_of("do b")
        .into_iter()
        .map(|call| (call.input, call.round))
        .collect();
    assert_eq!(said, [("1".to_owned(), 1), ("70".to_owned(), 2)]);
    let calls = world.calls_of("do b");
    assert_ne!(calls[0].key, calls[1].key);
    let undo = &world.calls_of("undo b")[0];
    assert_eq!((&*undo.input, undo.round), ("70", 2));
    assert_eq!(undo.effect_key, calls[1].key);
    // The round that was rejected has nothing to undo; history says that both were.
    assert_eq!(world.calls_of("undo b").len(), 1);
    assert!(story(&world).contains(&"start b 1".to_owned()));
    assert_eq!(
        story_from(&world, "edited b 2")[..3],
        ["edited b 2", "decided retry_failed", "start b 2"]
    );
}

#[test]
fn k4_an_edited_input_holds_for_its_round_over_retries_and_crashes() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("k4").policy(manual());
    let n = saga.input();
    let b = saga.add(world.step::<u64>("b").retry(calls(2)), n);
    let c = saga.add(world.step::<u64>("c").retry(Retry::none()), b);
    let saga = saga.returns(c).unwrap();
    world.plan("do b", [Act::rejected(), Act::not_done(), Act::Hangs]);
    world.plan("do c", [Act::rejected()]);
    when_parked(&world, &saga, async |coordinator, _, _| {
        ok(coordinator, edited([("b", 70_u64)])).await;
        world.until_lines(3).await;
    });
    world.life(&saga, async |coordinator| {
        let run = coordinator
            .attach(&saga, &"r".into())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(run.outcome().await.unwrap().word(), "parked");
        // Undone, and begun anew: the input is what is wired again.
        ok(&coordinator, Verb::retry(RetryAll)).await;
        assert_eq!(run.ended().await.unwrap().word(), "completed");
    });
    let calls = world.calls_of("do b").into_iter();
    let said: Vec<(String, u32)> = calls.map(|call| (call.input, call.round)).collect();
    let said: Vec<(&str, u32)> = said
        .iter()
        .map(|(input, round)| (&**input, *round))
        .collect();
    assert_eq!(said, [("1", 1), ("70", 2), ("70", 2), ("70", 2), ("1", 3)]);
}

#[test]
fn k4_an_edited_input_is_refused_until_the_old_round_has_left_nothing() {
    let world = World::new();
    let saga = chain(&world, manual());
    world.plan("do b", [Act::lost()]);
    when_parked(&world, &saga, async |coordinator, run, _| {
        let before = in_full(&world);
        for (step, reason) in [
            ("a", "`a` is done: it has to be undone first"),
            (
                "b",
                "`b` is in doubt: `resolve` says what became of it, `mark-compensated` that it was undone",
            ),
        ] {
            assert_eq!(no(coordinator, edited([(step, 70_u64)])).await.0, reason);
        }
        assert_eq!(in_full(&world), before);
        ok(coordinator, mark("b")).await;
        ok(coordinator, edited([("b", 70_u64)])).await;
        assert_eq!(run.ended().await.unwrap().word(), "completed");
    });
    let calls = world.calls_of("do b");
    assert_eq!((calls[1].round, &*calls[1].input), (3, "70"));
}

#[test]
fn k4_an_input_that_the_step_cannot_read_is_refused_whole() {
    let world = World::new();
    let saga = chain(&world, manual());
    world.plan("do b", [Act::rejected()]);
    when_parked(&world, &saga, async |coordinator, _, _| {
        let before = in_full(&world);
        let (why, _) = no(coordinator, edited([("b", "seventy".to_owned())])).await;
        assert!(
            why.starts_with("the new input of `b` can't be read: "),
            "{why}"
        );
        // All of it or nothing: the first one by itself would do.
        let (why, _) = no(coordinator, edited([("c", 70_u64), ("d", 1)])).await;
        assert_eq!(why, "the saga has no step `d`");
        let (why, _) = no(coordinator, edited([("c", 70_u64), ("c", 71)])).await;
        assert_eq!(why, "`c`: it gets two new inputs at once");
        assert_eq!(in_full(&world), before);
        assert_eq!(world.calls().len(), 2);
    });
}

#[test]
fn k4_a_step_that_is_undone_whatever_it_said_is_undone_before_its_input_is_edited() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("k4").policy(manual());
    let n = saga.input();
    let a = world
        .step::<u64>("a")
        .retry(Retry::none())
        .undo_failing(UndoRule::Always);
    let a = saga.add(a, n);
    let saga = saga.returns(a).unwrap();
    world.plan("do a", [Act::rejected()]);
    when_parked(&world, &saga, async |coordinator, run, _| {
        let (why, _) = no(coordinator, edited([("a", 70_u64)])).await;
        assert_eq!(
            why,
            "`a` is to be undone whatever its calls said: `mark-compensated` says that it was"
        );
        ok(coordinator, mark("a")).await;
        ok(coordinator, edited([("a", 70_u64)])).await;
        assert_eq!(run.ended().await.unwrap().word(), "completed");
    });
    assert_eq!(world.log(), ["do a", "do a"]);
}

#[test]
fn k4_history_is_never_rewritten() {
    let world = World::new();
    let saga = chain(&world, manual());
    world.plan("do b", [Act::lost()]);
    world.plan("do c", [Act::rejected(), Act::rejected()]);
    when_parked(&world, &saga, async |coordinator, run, _| {
        let mut before = in_full(&world);
        let verbs = [
            mark("b"),
            edited([("b", 70_u64)]),
            skip("c", SkippedEffect::None, 7_u64),
            mark("b"),
            Verb::retry(RetryAll),
        ];
        for verb in verbs {
            ok(coordinator, verb).await;
            tokio::time::sleep(SECOND).await;
            let after = in_full(&world);
            assert!(
                after.starts_with(before.trim_end_matches(']')),
                "appended only"
            );
            before = after;
        }
        assert_eq!(run.outcome().await.unwrap().word(), "parked");
    });
}

// What C1, D6, I4 and S5 say about operators.

#[test]
fn c1_an_operators_retry_that_comes_later_overrides_a_cancel() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("c1").policy(manual());
    let n = saga.input();
    let a = saga.add(world.step::<u64>("a"), n);
    let pivot = saga.add(world.step::<u64>("pivot").pivot().retry(Retry::none()), a);
    let saga = saga.returns(pivot).unwrap();
    world.plan("do pivot", [Act::lost().after(SECOND)]);
    world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        world.until("do pivot").await;
        assert_eq!(
            ok(&coordinator, Verb::Cancel).await,
            Some(CancelTold::Pending)
        );
        let partial = run.outcome().await.unwrap().partial();
        assert_eq!(
            partial.parked.unwrap().reason,
            journal::ParkReason::Unsettled
        );
        ok(&coordinator, Verb::retry(RetryFailed)).await;
        assert_eq!(run.ended().await.unwrap().word(), "completed");
    });
}

#[test]
fn c1_having_undos_run_again_does_not_take_a_cancel_back() {
    let world = World::new();
    let policy = RecoveryPolicy::new("again", RetryAll).backoff(calls(9));
    let saga = chain(&world, policy);
    world.plan("do c", [Act::rejected()]);
    world.plan("undo b", [Act::rejected().after(SECOND)]);
    world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        world.until("undo b (done 1)").await;
        assert_eq!(
            ok(&coordinator, Verb::Cancel).await,
            Some(CancelTold::Accepted)
        );
        assert_eq!(run.outcome().await.unwrap().word(), "parked");
        ok(&coordinator, plain_retry()).await;
        assert_eq!(run.ended().await.unwrap().word(), "compensated");
    });
    assert_eq!(world.calls_of("do a").len(), 1);
}

/// A run whose step `stops` asked it to end while the undo of the doubtful `b` fails.
fn stopped(world: &World, on_stop: OnStop) -> Saga<u64, (u64, u64)> {
    let mut saga = Saga::builder::<u64>("stops")
        .policy(manual())
        .on_stop(on_stop);
    let n = saga.input();
    let a = saga.add(world.step::<u64>("a"), n);
    let b = world.step::<u64>("b").retry(Retry::none()).at_most_once();
    let b = saga.add(b.compensation_retry(calls(1)), a);
    let stops = saga.add(world.step::<u64>("stops").retry(Retry::none()), a);
    world.plan("do b", [Act::in_doubt().after(SECOND)]);
    world.plan("do stops", [Act::Fails(StepError::stop("enough"))]);
    world.plan("undo b", [Act::not_done()]);
    saga.returns((b, stops)).unwrap()
}

#[test]
fn o2_a_plain_retry_of_a_run_that_a_step_asked_to_end_ends_it() {
    for (on_stop, word, undone) in [
        (OnStop::Keep, "stopped", 1),
        (OnStop::Compensate, "compensated", 2),
    ] {
        let world = World::new();
        let saga = stopped(&world, on_stop);
        when_parked(&world, &saga, async |coordinator, run, partial| {
            assert_eq!(stands(&partial, "b"), "UndoFailed InDoubt 1");
            ok(coordinator, plain_retry()).await;
            let partial = run.ended().await.unwrap().partial();
            assert_eq!(
                partial
                    .compensations
                    .iter()
                    .filter(|undo| undo.failure.is_none())
                    .count(),
                undone
            );
            assert_eq!(partial.standing.to_string(), word);
        });
        // Also where somebody has settled by hand what was still to be undone.
        let world = World::new();
        let saga = stopped(&world, on_stop);
        when_parked(&world, &saga, async |coordinator, run, _| {
            ok(coordinator, resolve("b", ResolvedEffect::NotDone)).await;
            ok(coordinator, plain_retry()).await;
            assert_eq!(run.ended().await.unwrap().word(), word);
        });
        assert_eq!(world.calls_of("do b").len(), 1);
    }
}

#[test]
fn o2_a_strategy_by_name_lets_a_run_go_on_that_a_step_asked_to_end() {
    let world = World::new();
    let saga = stopped(&world, OnStop::Keep);
    world.plan("do b", [Act::rejected()]);
    when_parked(&world, &saga, async |coordinator, run, _| {
        ok(coordinator, resolve("b", ResolvedEffect::NotDone)).await;
        ok(coordinator, Verb::retry(RetryFailed)).await;
        // `stops` runs again and asks for nothing; the failure of `b` is put to the policy as any other.
        let partial = run.outcome().await.unwrap().partial();
        assert_eq!(
            (stands(&partial, "stops"), partial.stopped),
            ("Done Done 1".to_owned(), None)
        );
        assert_eq!(partial.parked.unwrap().reason, journal::ParkReason::Manual);
        ok(coordinator, Verb::retry(RetryFailed)).await;
        assert_eq!(run.ended().await.unwrap().word(), "completed");
    });
}

#[test]
fn d6_an_operators_retry_of_undos_resets_the_count_of_recoveries_too() {
    let world = World::new();
    // Two recoveries at most, each of them undoes all, and the second undo of `b` takes long.
    let policy = RecoveryPolicy::new("again", RetryAll)
        .max_recoveries(2)
        .backoff(calls(9));
    let saga = chain(&world, policy);
    world.plan("do c", (0..5).map(|_| Act::rejected()));
    world.plan("undo b", [Act::Done(0), Act::Done(0).after(SECOND)]);
    world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        world
            .until_log(|log| log.iter().filter(|line| line.starts_with("undo b")).count() == 2)
            .await;
        ok(&coordinator, plain_retry()).await;
        assert_eq!(run.outcome().await.unwrap().word(), "parked");
    });
    // Two before the operator's word and two after it.
    let story = story(&world);
    assert_eq!(
        story
            .iter()
            .filter(|word| *word == "decided retry_all")
            .count(),
        4
    );
}

#[test]
fn i4_a_deadline_stands_still_while_a_run_is_paused() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("i4")
        .policy(back())
        .deadline(10 * SECOND);
    let n = saga.input();
    let a = saga.add(world.step::<u64>("a"), n);
    let b = saga.add(world.step::<u64>("b"), a);
    let saga = saga.returns(b).unwrap();
    world.plan("do a", [Act::Done(1).after(3 * SECOND)]);
    world.plan("do b", [Act::Done(1).after(20 * SECOND)]);
    world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        world.until("do a").await;
        tokio::time::sleep(2 * SECOND).await;
        ok(&coordinator, Verb::Pause).await;
        tokio::time::sleep(100 * SECOND).await;
        ok(&coordinator, Verb::Resume).await;
        assert_eq!(run.ended().await.unwrap().word(), "compensated");
        let journal = world.store.load(&"r".into()).await.unwrap().unwrap();
        let passed = journal.records.iter().find(|record| {
            let mut events = record.events.iter();
            events.any(|event| matches!(event, journal::Event::DeadlinePassed { .. }))
        });
        // Two of its ten seconds went by before the pause, the others after it.
        assert_eq!(passed.unwrap().at.since(EPOCH), 110 * SECOND);
    });
}

#[test]
fn s5_what_a_parked_run_says_that_it_takes_it_takes() {
    let world = World::new();
    let saga = chain(&world, manual());
    world.plan("do b", [Act::lost()]);
    when_parked(&world, &saga, async |coordinator, _, partial| {
        let parked = partial.parked.unwrap();
        assert_eq!(parked.reason, journal::ParkReason::Manual);
        assert_eq!(
            parked.message,
            "`b` failed; rule `otherwise` of policy `by hand` says manual"
        );
        let left: Vec<(&str, EffectReport)> = partial
            .outstanding
            .iter()
            .map(|left| (&*left.step, left.effect))
            .collect();
        assert_eq!(
            left,
            [("a", EffectReport::Done), ("b", EffectReport::InDoubt)]
        );
        // Nothing can be skipped while `b` is in doubt.
        assert_eq!(
            partial.legal,
            [
                VerbName::Retry,
                VerbName::Compensate,
                VerbName::Cancel,
                VerbName::MarkCompensated,
                VerbName::Resolve,
                VerbName::Abandon
            ]
        );
        ok(coordinator, resolve("b", ResolvedEffect::NotDone)).await;
        let partial = coordinator.get(&"r".into()).await.unwrap().unwrap();
        assert!(
            partial.legal.contains(&VerbName::Skip),
            "{:?}",
            partial.legal
        );
        assert!(
            !partial.legal.contains(&VerbName::Resolve),
            "{:?}",
            partial.legal
        );
    });
}
