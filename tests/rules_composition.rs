//! Rules O1, O2 and K4 for steps inside steps, by their paths; and what I2 and policies mean there.

// The helpers of this file aren't test functions.
#![allow(clippy::similar_names, reason = "it reads as it is meant")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;
mod operators;

use amends::journal::{ResolvedEffect, SkippedEffect, Verb, VerbName};
use amends::policy::{PolicySet, StepRetries};
use amends::*;
use common::*;
use operators::*;

use RecoveryStrategy::{Compensate, Manual, RetryFailed};

fn always(strategy: RecoveryStrategy) -> RecoveryPolicy {
    RecoveryPolicy::new("always", strategy).backoff(calls(9))
}

/// A step that is called once, with one retry for its undo.
fn once(world: &World, name: &str) -> StepSpec<u64, u64> {
    let spec = world.step::<u64>(name).retry(Retry::none());
    spec.compensation_retry(calls(2))
}

/// `pay`, `fulfil` with `pick` and `pack` in it, `reserve` for three items, `mail`: one after the other.
fn order(world: &World, parent: RecoveryPolicy, child: RecoveryPolicy) -> Saga<u64, u64> {
    let mut inner = Saga::builder::<u64>("fulfilment").policy(child);
    let n = inner.input();
    let pick = inner.add(once(world, "pick"), n);
    let pack = inner.add(once(world, "pack"), pick);
    let inner = inner.returns(pack).unwrap();
    let mut saga = Saga::builder::<u64>("order").policy(parent);
    let n = saga.input();
    let pay = saga.add(once(world, "pay"), n);
    let fulfil = saga.add(step("fulfil", &inner), pay);
    let items = once(world, "reserve").for_each();
    let reserve = saga.add(items, fulfil.map(|n| vec![*n, n + 1, n + 2]));
    let mail = saga.add(once(world, "mail").after(reserve), fulfil);
    saga.returns(mail).unwrap()
}

/// Drives run `r` until it is parked, in a life of its own; then `body`.
fn when_parked<O: Payload, T>(
    world: &World,
    saga: &Saga<u64, O>,
    body: impl AsyncFnOnce(Coordinator, PartialResult) -> T,
) -> T {
    world.life(saga, async |coordinator| {
        let run = coordinator.start(saga, "r", 1).await.unwrap();
        let outcome = run.outcome().await.unwrap();
        assert_eq!(outcome.word(), "parked", "{}", outcome.partial().hint());
        body(coordinator, outcome.partial()).await
    })
}

async fn outcome<O: Payload>(coordinator: &Coordinator, saga: &Saga<u64, O>) -> Outcome<O> {
    let run = coordinator.attach(saga, &"r".into()).await.unwrap();
    run.unwrap().outcome().await.unwrap()
}

#[test]
fn o2_a_step_inside_a_child_is_resolved_by_its_path_and_the_run_goes_on() {
    for done in [true, false] {
        let world = World::new();
        let saga = order(&world, always(Manual), always(Manual));
        world.plan("do fulfil/pack", [Act::lost()]);
        let ended = when_parked(&world, &saga, async |coordinator, partial| {
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
            let verb = if done {
                resolve_done("fulfil/pack", 40_u64)
            } else {
                resolve("fulfil/pack", ResolvedEffect::NotDone)
            };
            ok(&coordinator, verb).await;
            ok(&coordinator, plain_retry()).await;
            outcome(&coordinator, &saga).await
        });
        assert_eq!(ended.word(), "completed");
        let calls = world.calls_of("do fulfil/pack").len();
        assert_eq!(calls, if done { 1 } else { 2 });
        let item = &world.calls_of("do reserve[0]")[0].input;
        assert_eq!(item, if done { "40" } else { "2" });
    }
}

#[test]
fn o2_an_item_is_resolved_and_skipped_by_its_place() {
    let world = World::new();
    let saga = order(&world, always(Manual), always(Manual));
    world.plan("do reserve[0]", [Act::lost()]);
    world.plan("do reserve[2]", [Act::rejected()]);
    let ended = when_parked(&world, &saga, async |coordinator, partial| {
        assert!(partial.legal.contains(&VerbName::Skip));
        ok(&coordinator, resolve_done("reserve[0]", 70_u64)).await;
        let (why, _) = no(&coordinator, skip("reserve[0]", SkippedEffect::None, 1_u64)).await;
        assert_eq!(why, "`reserve[0]` is done: it has to be undone first");
        ok(
            &coordinator,
            skip("reserve[2]", SkippedEffect::Done, 72_u64),
        )
        .await;
        ok(&coordinator, plain_retry()).await;
        outcome(&coordinator, &saga).await
    });
    let partial = ended.partial();
    assert_eq!(ended.word(), "completed");
    assert_eq!(
        *partial.output::<Vec<u64>>("reserve").unwrap().unwrap(),
        [70, 1, 72]
    );
    assert_eq!(
        partial.step("reserve[2]").unwrap().status,
        StepStatus::Skipped
    );
    assert_eq!(world.calls_of("do reserve[2]").len(), 1);
}

#[test]
fn o2_what_was_skipped_inside_with_an_effect_is_undone_with_that_output() {
    let world = World::new();
    let saga = order(&world, always(Manual), always(Manual));
    world.plan("do fulfil/pack", [Act::rejected()]);
    world.plan("do mail", [Act::rejected()]);
    let ended = when_parked(&world, &saga, async |coordinator, _| {
        ok(
            &coordinator,
            skip("fulfil/pack", SkippedEffect::Done, 50_u64),
        )
        .await;
        ok(&coordinator, plain_retry()).await;
        assert_eq!(outcome(&coordinator, &saga).await.word(), "parked");
        ok(&coordinator, Verb::Compensate).await;
        outcome(&coordinator, &saga).await
    });
    assert_eq!(ended.word(), "compensated");
    let undos: Vec<String> = world
        .log()
        .into_iter()
        .filter(|line| line.starts_with("undo fulfil"))
        .collect();
    assert_eq!(
        undos,
        ["undo fulfil/pack (done 50)", "undo fulfil/pick (done 1)"]
    );
}

#[test]
fn o2_steps_inside_are_marked_dependents_first_also_across_levels() {
    let world = World::new();
    let saga = order(&world, always(Manual), always(Manual));
    world.plan("do mail", [Act::rejected()]);
    let ended = when_parked(&world, &saga, async |coordinator, _| {
        let refused = async |path: &str| no(&coordinator, mark(path)).await.0;
        assert_eq!(
            refused("fulfil/pick").await,
            "`fulfil/pick`: `fulfil/pack` depends on it, and has to be undone first"
        );
        assert_eq!(
            refused("fulfil/pack").await,
            "`fulfil/pack`: `reserve` depends on it, and has to be undone first"
        );
        assert_eq!(
            refused("reserve").await,
            "`reserve`: name the steps inside it"
        );
        assert_eq!(refused("mail").await, "`mail`: there is nothing to undo");
        ok(&coordinator, mark("reserve[1]")).await;
        assert_eq!(
            refused("reserve[1]").await,
            "`reserve[1]`: there is nothing to undo"
        );
        ok(&coordinator, Verb::Compensate).await;
        outcome(&coordinator, &saga).await
    });
    assert_eq!(ended.word(), "compensated");
    assert_eq!(
        world.log()[7..],
        [
            "undo reserve[2] (done 1)",
            "undo reserve[0] (done 1)",
            "undo fulfil/pack (done 1)",
            "undo fulfil/pick (done 1)",
            "undo pay (done 1)"
        ]
    );
    let by_hand: Vec<_> = ended
        .partial()
        .compensations
        .into_iter()
        .filter_map(|undone| Some((undone.step, undone.by_hand?)))
        .collect();
    assert_eq!(by_hand, [("reserve[1]".to_owned(), "ann".to_owned())]);
}

#[test]
fn o2_an_undo_inside_a_child_that_failed_is_marked_and_the_rest_goes_on() {
    let world = World::new();
    let saga = order(&world, always(Compensate), always(Manual));
    world.plan("do mail", [Act::rejected()]);
    world.plan("undo fulfil/pack", [Act::not_done(), Act::not_done()]);
    let ended = when_parked(&world, &saga, async |coordinator, _| {
        ok(&coordinator, mark("fulfil/pack")).await;
        ok(&coordinator, plain_retry()).await;
        outcome(&coordinator, &saga).await
    });
    assert_eq!(ended.word(), "compensated");
    let log = world.log();
    assert_eq!(
        log[log.len() - 2..],
        ["undo fulfil/pick (done 1)", "undo pay (done 1)"]
    );
    assert_eq!(world.calls_of("undo fulfil/pack").len(), 2);
}

#[test]
fn o2_a_skip_inside_a_child_that_has_undone_itself_is_refused_since_it_would_be_forgotten() {
    let world = World::new();
    let saga = order(&world, always(Manual), always(Compensate));
    world.plan("do fulfil/pack", [Act::rejected()]);
    let ended = when_parked(&world, &saga, async |coordinator, partial| {
        assert_eq!(partial.failing_step.as_deref(), Some("fulfil"));
        let (why, _) = no(
            &coordinator,
            skip("fulfil/pack", SkippedEffect::None, 50_u64),
        )
        .await;
        assert_eq!(
            why,
            "`fulfil/pack`: the step that it is inside of begins anew, and would forget it"
        );
        // The whole may be skipped: it has left nothing.
        ok(&coordinator, skip("fulfil", SkippedEffect::None, 60_u64)).await;
        ok(&coordinator, plain_retry()).await;
        outcome(&coordinator, &saga).await
    });
    assert_eq!(ended.word(), "completed");
    assert_eq!(world.calls_of("do fulfil/pack").len(), 1);
    assert_eq!(world.calls_of("do reserve[0]")[0].input, "60");
}

#[test]
fn o2_a_step_with_steps_inside_is_not_skipped_as_if_it_had_an_effect() {
    let world = World::new();
    let saga = order(&world, always(Manual), always(Compensate));
    world.plan("do fulfil/pack", [Act::rejected()]);
    when_parked(&world, &saga, async |coordinator, _| {
        let (why, _) = no(&coordinator, skip("fulfil", SkippedEffect::Done, 60_u64)).await;
        assert_eq!(
            why,
            "`fulfil`: it has no undo of its own: skip it without an effect, or skip the steps inside it"
        );
    });
}

#[test]
fn o1_what_cannot_be_said_of_a_step_inside_is_refused_with_what_can() {
    let world = World::new();
    let saga = order(&world, always(Manual), always(Manual));
    world.plan("do fulfil/pack", [Act::lost()]);
    when_parked(&world, &saga, async |coordinator, _| {
        let refused = async |verb: Verb| no(&coordinator, verb).await.0;
        let not_done = |path: &str| resolve(path, ResolvedEffect::NotDone);
        assert_eq!(
            refused(not_done("fulfil/pick")).await,
            "`fulfil/pick` is not in doubt"
        );
        assert_eq!(
            refused(not_done("fulfil/label")).await,
            "the saga has no step `fulfil/label`"
        );
        assert_eq!(
            refused(not_done("fulfil[0]")).await,
            "the saga has no step `fulfil[0]`"
        );
        // Its list isn't known yet.
        assert_eq!(
            refused(not_done("reserve[0]")).await,
            "`reserve[0]`: the step that it is inside of is not under way"
        );
        assert_eq!(
            refused(not_done("fulfil")).await,
            "`fulfil`: name the steps inside it"
        );
        assert_eq!(
            refused(skip("fulfil", SkippedEffect::None, 1_u64)).await,
            "`fulfil` is begun: name the steps inside it, or have it undone first"
        );
        assert_eq!(
            refused(skip("fulfil/pack", SkippedEffect::None, 1_u64)).await,
            "`fulfil/pack` is in doubt: `resolve` says what became of it, `mark-compensated` that it was undone"
        );
        let (why, legal) = no(
            &coordinator,
            resolve_done("fulfil/pack", "forty".to_owned()),
        )
        .await;
        assert!(
            why.starts_with("the output given for `fulfil/pack` can't be read:"),
            "{why}"
        );
        assert!(legal.contains(&VerbName::Resolve));
    });
    assert_eq!(world.log().len(), 3);
}

#[test]
fn k4_the_input_of_a_step_inside_is_edited_and_holds_for_its_round() {
    // Where the child waits for an operator itself, and where it has undone itself.
    for child in [Manual, Compensate] {
        let world = World::new();
        let saga = order(&world, always(Manual), always(child));
        world.plan("do fulfil/pack", [Act::rejected(), Act::not_done()]);
        let ended = when_parked(&world, &saga, async |coordinator, _| {
            ok(&coordinator, edited([("fulfil/pack", 77_u64)])).await;
            assert_eq!(outcome(&coordinator, &saga).await.word(), "parked");
            ok(&coordinator, plain_retry()).await;
            outcome(&coordinator, &saga).await
        });
        assert_eq!(ended.word(), "completed");
        let calls: Vec<_> = world
            .calls_of("do fulfil/pack")
            .into_iter()
            .map(|call| (call.round, call.input))
            .collect();
        let call = |round, input: &str| (round, input.to_owned());
        assert_eq!(
            calls,
            [call(1, "1"), call(2, "77"), call(2, "77")],
            "{child:?}"
        );
    }
}

#[test]
fn k4_the_list_of_a_fan_out_that_left_nothing_is_edited_as_a_whole_and_an_item_alone() {
    let world = World::new();
    let saga = order(&world, always(Manual), always(Manual));
    world.plan("do reserve[1]", [Act::rejected()]);
    let ended = when_parked(&world, &saga, async |coordinator, _| {
        let (why, _) = no(&coordinator, edited([("reserve", vec![7_u64])])).await;
        assert_eq!(
            why,
            "`reserve` is begun: name the steps inside it, or have it undone first"
        );
        ok(&coordinator, edited([("reserve[1]", 9_u64)])).await;
        outcome(&coordinator, &saga).await
    });
    assert_eq!(ended.word(), "completed");
    let inputs: Vec<_> = world
        .calls_of("do reserve[1]")
        .into_iter()
        .map(|call| call.input)
        .collect();
    assert_eq!(inputs, ["2", "9"]);
    assert_eq!(world.calls_of("do reserve[0]").len(), 1);
}

#[test]
fn k5_a_step_inside_that_runs_at_most_once_waits_for_a_person_and_takes_their_word() {
    let world = World::new();
    let mut child = Saga::builder::<u64>("child").policy(always(RetryFailed));
    let n = child.input();
    let call = child.add(once(&world, "call").at_most_once(), n);
    let child = child.returns(call).unwrap();
    let mut saga = Saga::builder::<u64>("order").policy(always(RetryFailed));
    let n = saga.input();
    let inner = saga.add(step("inner", &child), n);
    let saga = saga.returns(inner).unwrap();
    world.plan("do inner/call", [Act::Hangs]);
    world.crash_at(&saga, 1, "do inner/call");
    let ended = world.life(&saga, async |coordinator| {
        let partial = outcome(&coordinator, &saga).await.partial();
        let parking = partial.parked.unwrap();
        assert_eq!(parking.reason, journal::ParkReason::AtMostOnceInDoubt);
        assert!(
            parking
                .message
                .starts_with("step `inner/call` must run at most once")
        );
        let (why, _) = no(&coordinator, plain_retry()).await;
        assert_eq!(
            why,
            "retry_failed is not available: `inner/call` runs at most once and is in doubt"
        );
        ok(&coordinator, resolve("inner/call", ResolvedEffect::NotDone)).await;
        ok(&coordinator, plain_retry()).await;
        outcome(&coordinator, &saga).await
    });
    assert_eq!(ended.word(), "completed");
    assert_eq!(world.calls_of("do inner/call").len(), 2);
}

#[test]
fn n1_retries_are_set_for_steps_inside_by_their_paths_and_replaced_while_the_run_is_open() {
    let world = World::new();
    let saga = order(&world, always(Manual), always(Manual));
    let set = PolicySet::new()
        .step(StepRetries::new("fulfil/pack").retry(calls(3)))
        .step(StepRetries::new("reserve").retry(calls(2)));
    world.plan("do fulfil/pack", [Act::not_done(), Act::not_done()]);
    world.plan(
        "do reserve[1]",
        [Act::not_done(), Act::not_done(), Act::not_done()],
    );
    let ended = world.life_with(
        |builder| builder.register(&saga).policies("order", set),
        async |coordinator| {
            let run = coordinator.start(&saga, "r", 1).await.unwrap();
            world.until("do reserve[1]").await;
            // Now that the first attempt of an item is under way it gets more.
            let more = PolicySet::new().step(StepRetries::new("reserve").retry(calls(4)));
            coordinator.replace_policies("order", &more).unwrap();
            run.outcome().await.unwrap()
        },
    );
    assert_eq!(ended.word(), "completed");
    assert_eq!(world.calls_of("do fulfil/pack").len(), 3);
    assert_eq!(world.calls_of("do reserve[1]").len(), 4);
}

#[test]
fn n1_a_set_names_steps_that_are_there_and_its_rules_steps_that_its_policy_sees() {
    let world = World::new();
    let saga = order(&world, always(Manual), always(Manual));
    let about = |step: &str| {
        let rule = policy::Rule::new("about", Manual);
        let rule = rule.when(policy::Condition::Step(step.to_owned()));
        PolicySet::new().recovery(always(Manual).rule(rule))
    };
    let retries = |step: &str| PolicySet::new().step(StepRetries::new(step).retry(calls(2)));
    world.life(&saga, async |coordinator| {
        let said = |set: &PolicySet| match coordinator.replace_policies("order", set) {
            Ok(()) => Vec::new(),
            Err(PoliciesError::Faulty { faults, .. }) => faults,
            Err(other) => panic!("{other}"),
        };
        for known in ["fulfil/pack", "fulfil", "reserve"] {
            assert_eq!(said(&retries(known)), Vec::<String>::new(), "{known}");
        }
        for unknown in ["pack", "fulfil/label", "reserve[0]"] {
            assert_eq!(
                said(&retries(unknown)),
                [format!("the saga has no step `{unknown}`")]
            );
        }
        assert_eq!(said(&about("fulfil")), Vec::<String>::new());
        // What happens inside `fulfil` is put to the policy of the saga inside it.
        assert_eq!(
            said(&about("fulfil/pack")),
            ["rule `about`: `fulfil/pack` is inside another step, so that it never matches: a policy sees the steps of its own saga"]
        );
    });
}

#[test]
fn i2_the_fingerprint_covers_forms_and_what_is_inside_them() {
    let world = World::new();
    let child = |second: &str| {
        let mut child = Saga::builder::<u64>("child");
        let n = child.input();
        let one = child.add(world.step("one"), n);
        let two = child.add(world.step(second), one);
        child.returns(two).unwrap()
    };
    let of = |add: &dyn Fn(&mut SagaBuilder<u64>, Node<u64>) -> SomeNode| {
        let mut saga = Saga::builder::<u64>("order");
        let n = saga.input();
        add(&mut saga, n);
        saga.returns(n).unwrap().fingerprint().to_owned()
    };
    let plain = || world.step::<u64>("a");
    let list = |n: Node<u64>| n.map(|n| vec![*n]);
    let different = [
        of(&|saga, n| saga.add(plain(), n).into()),
        of(&|saga, n| saga.add(plain().only_if(n.map(|_| true)), n).into()),
        of(&|saga, n| saga.add(plain().for_each(), list(n)).into()),
        of(&|saga, n| saga.add(plain().for_each().tolerate(1), list(n)).into()),
        of(&|saga, n| saga.add(plain().fallback(world.step("b")), n).into()),
        of(&|saga, n| saga.add(plain().fallback(world.step("c")), n).into()),
        of(&|saga, n| saga.add(plain().fallback_value(1), n).into()),
        of(&|saga, n| {
            saga.add(first_of("a", [world.step("primary"), world.step("b")]), n)
                .into()
        }),
        of(&|saga, n| saga.add(step("a", &child("two")), n).into()),
        of(&|saga, n| saga.add(step("a", &child("three")), n).into()),
        of(&|saga, n| {
            saga.add(step("a", &child("two")).for_each(), list(n))
                .into()
        }),
    ];
    for (at, one) in different.iter().enumerate() {
        for (other_at, other) in different.iter().enumerate() {
            assert_eq!(one == other, at == other_at, "{at} and {other_at}");
        }
    }
    // Numbers that may change from build to build are no structure.
    let bounded = of(&|saga, n| saga.add(plain().for_each().parallel(4), list(n)).into());
    assert_eq!(bounded, different[2]);
    let more = of(&|saga, n| saga.add(plain().for_each().tolerate(9), list(n)).into());
    assert_eq!(more, different[3]);
    // Pinned: it has to be the same in every process and build, or no run would be found again.
    assert_eq!(
        different[..4],
        [
            "79210348da5fb133e09a25725c0668a6",
            "aa97eff3124cb820992f63bd61fcb1d1",
            "634dfa2415b088c0ffb13b795e421e7b",
            "cca75ce6a5d3aa2845c5924826357c95"
        ]
    );
}

#[cfg(feature = "sqlite")]
#[test]
fn o2_steps_inside_are_helped_by_their_paths_on_a_file_too() {
    use amends::store::SqliteStore;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.db");
    let world = World::new();
    let saga = order(&world, always(Manual), always(Manual));
    world.plan("do fulfil/pack", [Act::lost()]);
    world.plan("do reserve[2]", [Act::rejected()]);
    // One process parks the run twice; each word comes from another one.
    let life =
        |body: &dyn Fn(&Coordinator) -> futures_util::future::LocalBoxFuture<'static, ()>| {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().unwrap();
            runtime.block_on(async {
                let store = SqliteStore::open(&path).unwrap();
                let builder = Coordinator::builder(store).register(&saga);
                let coordinator = builder.build().await.unwrap();
                body(&coordinator).await;
                let run = coordinator.attach(&saga, &"r".into()).await.unwrap();
                let outcome = run.unwrap().outcome().await.unwrap();
                coordinator.shutdown().await;
                outcome
            })
        };
    let started = saga.clone();
    let first = life(&move |coordinator| {
        let (coordinator, saga) = (coordinator.clone(), started.clone());
        Box::pin(async move { drop(coordinator.start(&saga, "r", 1).await.unwrap()) })
    });
    assert_eq!(first.partial().failing_step.as_deref(), Some("fulfil/pack"));
    let second = life(&|coordinator| {
        let coordinator = coordinator.clone();
        Box::pin(async move {
            ok(&coordinator, resolve_done("fulfil/pack", 40_u64)).await;
            ok(&coordinator, plain_retry()).await;
        })
    });
    assert_eq!(second.word(), "parked");
    assert_eq!(second.partial().failing_step.as_deref(), Some("reserve[2]"));
    let last = life(&|coordinator| {
        let coordinator = coordinator.clone();
        Box::pin(async move {
            ok(&coordinator, edited([("reserve[2]", 9_u64)])).await;
        })
    });
    assert_eq!(last.word(), "completed");
    let calls: Vec<_> = world
        .calls()
        .into_iter()
        .map(|call| (call.step, call.input))
        .collect();
    let call = |step: &str, input: &str| (step.to_owned(), input.to_owned());
    assert_eq!(
        calls,
        [
            call("pay", "1"),
            call("fulfil/pick", "1"),
            call("fulfil/pack", "1"),
            call("reserve[0]", "40"),
            call("reserve[1]", "41"),
            call("reserve[2]", "42"),
            call("reserve[2]", "9"),
            call("mail", "40")
        ]
    );
}
