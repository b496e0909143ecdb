//! Policies are replaced in a running coordinator: what is decided from then on is decided by the new ones.
// Helper functions of tests aren't test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::time::Duration;

use amends::journal::{Decision, Event};
use amends::policy::{Condition, PolicySet, Rule, StepRetries};
use amends::*;
use common::*;

use RecoveryStrategy::{Compensate, Manual, RetryFailed};

fn always(strategy: RecoveryStrategy) -> RecoveryPolicy {
    RecoveryPolicy::new(format!("always {strategy}"), strategy).backoff(calls(9))
}

fn alone(world: &World, retry: Retry) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("alone").policy(always(Manual));
    let n = saga.input();
    let a = saga.add(world.step("a").retry(retry), n);
    saga.returns(a).unwrap()
}

fn decisions(world: &World) -> Vec<Decision<String>> {
    let events = world.journal().concat().into_iter();
    events
        .filter_map(|event| match event {
            Event::Decided(decision) => Some(std::sync::Arc::unwrap_or_clone(decision)),
            _ => None,
        })
        .collect()
}

/// Which version of a policy decided, and what.
fn deciders(world: &World) -> Vec<(String, RecoveryStrategy)> {
    decisions(world)
        .iter()
        .map(|decision| (decision.why[0].digest.clone(), decision.strategy))
        .collect()
}

fn by(policy: &RecoveryPolicy, strategy: RecoveryStrategy) -> (String, RecoveryStrategy) {
    (policy.digest().to_owned(), strategy)
}

#[test]
fn an_attempt_in_flight_fails_under_the_new_policy() {
    let world = World::new();
    let saga = alone(&world, Retry::none());
    world.plan("do a", [Act::not_done().after(10 * SECOND)]);
    let new = always(Compensate);
    let outcome = world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        world.until("do a").await;
        let set = PolicySet::new().recovery(new.clone());
        coordinator.replace_policies("alone", &set).unwrap();
        run.outcome().await.unwrap()
    });
    assert_eq!(outcome.word(), "compensated");
    assert_eq!(deciders(&world), [by(&new, Compensate)]);
}

#[test]
fn each_decision_of_one_run_holds_the_digest_of_the_policy_that_made_it() {
    let world = World::new();
    let first = always(RetryFailed);
    let second = always(RetryFailed).max_recoveries(7);
    let third = always(Compensate);
    let mut saga = Saga::builder::<u64>("alone").policy(first.clone());
    let n = saga.input();
    let a = saga.add(world.step("a").retry(Retry::none()), n);
    let saga = saga.returns(a).unwrap();
    let slow = || Act::not_done().after(10 * SECOND);
    world.plan("do a", [slow(), slow(), slow()]);
    let outcome = world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        for (calls, policy) in [(2, &second), (3, &third)] {
            while world.calls().len() < calls {
                tokio::time::sleep(SECOND).await;
            }
            let set = PolicySet::new().recovery(policy.clone());
            coordinator.replace_policies("alone", &set).unwrap();
        }
        run.outcome().await.unwrap()
    });
    assert_eq!(outcome.word(), "compensated");
    assert_eq!(
        deciders(&world),
        [
            by(&first, RetryFailed),
            by(&second, RetryFailed),
            by(&third, Compensate)
        ]
    );
    let saw: Vec<u32> = decisions(&world)
        .iter()
        .map(|decision| decision.why[0].saw.max_recoveries)
        .collect();
    assert_eq!(saw, [3, 7, 3]);
}

/// How often `a` is called when its retry is replaced in the middle of its first call.
fn calls_with_retry_replaced(replaced: &PolicySet, keep_resident: bool) -> usize {
    let world = World::new();
    let saga = alone(&world, calls(2));
    world.plan("do a", (0..9).map(|_| Act::not_done().after(SECOND)));
    let outcome = world.life_with(
        |builder| {
            let resident = if keep_resident {
                3600 * SECOND
            } else {
                SECOND / 10
            };
            builder.register(&saga).keep_resident(resident)
        },
        async |coordinator| {
            let run = coordinator.start(&saga, "r", 1).await.unwrap();
            world.until("do a").await;
            coordinator.replace_policies("alone", replaced).unwrap();
            run.outcome().await.unwrap()
        },
    );
    assert_eq!(outcome.word(), "parked");
    world.calls_of("do a").len()
}

#[test]
fn a_replaced_retry_counts_from_the_next_verdict_on() {
    for resident in [true, false] {
        let times = |set: &PolicySet| calls_with_retry_replaced(set, resident);
        assert_eq!(times(&PolicySet::new()), 2);
        assert_eq!(times(&PolicySet::new().retry(calls(5))), 5);
        // The verdict on the call that is in flight is the first that the new policy gives.
        assert_eq!(times(&PolicySet::new().retry(Retry::none())), 1);
        let by_pattern = PolicySet::new()
            .retry(calls(9))
            .step(StepRetries::new("b*").retry(calls(8)))
            .step(StepRetries::new("*").retry(calls(3)));
        assert_eq!(times(&by_pattern), 3);
    }
}

#[test]
fn a_run_that_sleeps_wakes_when_it_would_have_and_goes_on_under_the_new_retry() {
    let world = World::new();
    let hour = Retry::constant().initial(3600 * SECOND).max_attempts(9);
    let saga = alone(&world, hour);
    world.plan("do a", (0..9).map(|_| Act::not_done()));
    let outcome = world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        world.until("do a").await;
        tokio::time::sleep(SECOND).await;
        assert_eq!(coordinator.driving(), 0);
        let set = PolicySet::new().retry(calls(3));
        coordinator.replace_policies("alone", &set).unwrap();
        run.outcome().await.unwrap()
    });
    assert_eq!(outcome.word(), "parked");
    let at: Vec<_> = world.calls().iter().map(|call| call.at).collect();
    assert_eq!(at, [Duration::ZERO, 3600 * SECOND, 3601 * SECOND]);
}

#[test]
fn a_replaced_retry_of_undos_counts_too() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("alone").policy(always(Compensate));
    let n = saga.input();
    let a = saga.add(world.step("a").compensation_retry(calls(9)), n);
    let b = saga.add(world.step("b").retry(Retry::none()), a);
    let saga = saga.returns(b).unwrap();
    world.plan("do b", [Act::rejected().after(SECOND)]);
    world.plan("undo a", (0..9).map(|_| Act::not_done()));
    let outcome = world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        world.until("do b").await;
        let set = PolicySet::new()
            .compensation_retry(calls(8))
            .step(StepRetries::new("a").compensation_retry(calls(2)));
        coordinator.replace_policies("alone", &set).unwrap();
        run.outcome().await.unwrap()
    });
    assert_eq!(outcome.word(), "parked");
    assert_eq!(world.calls_of("undo a").len(), 2);
}

#[test]
fn a_parked_run_is_decided_by_the_new_policy_once_it_goes_on() {
    let world = World::new();
    let saga = alone(&world, Retry::none());
    world.plan("do a", [Act::rejected(), Act::rejected()]);
    let new = always(Compensate);
    let outcome = world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        assert_eq!(run.outcome().await.unwrap().word(), "parked");
        let set = PolicySet::new().recovery(new.clone());
        coordinator.replace_policies("alone", &set).unwrap();
        // Parked it stays: only a new failure is a new question.
        assert!(
            coordinator
                .get(run.id())
                .await
                .unwrap()
                .unwrap()
                .parked
                .is_some()
        );
        let retried = coordinator.retry(run.id(), RetryFailed, "ann", "again");
        retried.await.unwrap();
        let handle = coordinator.attach(&saga, run.id()).await.unwrap().unwrap();
        handle.outcome().await.unwrap()
    });
    assert_eq!(outcome.word(), "compensated");
    let decisions = decisions(&world);
    assert_eq!(decisions.len(), 3);
    assert_eq!(decisions[0].why[0].digest, always(Manual).digest());
    assert_eq!(decisions[2].why[0].digest, new.digest());
}

#[test]
fn all_versions_of_the_saga_are_replaced_and_no_other_saga() {
    let world = World::new();
    let of = |name: &str, version: u32| {
        let mut saga = Saga::builder::<u64>(name)
            .version(version)
            .policy(always(Manual));
        let n = saga.input();
        let step = format!("{name}-{version}");
        let a = saga.add(world.step(&step).retry(Retry::none()), n);
        world.plan(&format!("do {step}"), [Act::rejected()]);
        saga.returns(a).unwrap()
    };
    let (one, two, other) = (of("alone", 1), of("alone", 2), of("other", 1));
    let words = world.life_with(
        |builder| builder.register(&one).register(&two).register(&other),
        async |coordinator| {
            let set = PolicySet::new().recovery(always(Compensate));
            coordinator.replace_policies("alone", &set).unwrap();
            let mut words = Vec::new();
            for (saga, id) in [(&one, "r"), (&two, "r2"), (&other, "r3")] {
                let run = coordinator.start(saga, id, 1).await.unwrap();
                words.push(run.outcome().await.unwrap().word());
            }
            words
        },
    );
    assert_eq!(words, ["compensated", "compensated", "parked"]);
}

#[test]
fn an_empty_set_gives_the_definitions_policies_back() {
    let world = World::new();
    let saga = alone(&world, calls(2));
    world.plan("do a", (0..9).map(|_| Act::not_done()));
    world.life(&saga, async |coordinator| {
        let set = PolicySet::new()
            .recovery(always(Compensate))
            .retry(calls(5));
        coordinator.replace_policies("alone", &set).unwrap();
        // A set counts against the definition, not against the set before.
        let set = PolicySet::new().recovery(always(Manual).named("other"));
        coordinator.replace_policies("alone", &set).unwrap();
        coordinator
            .replace_policies("alone", &PolicySet::new())
            .unwrap();
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        assert_eq!(run.outcome().await.unwrap().word(), "parked");
    });
    assert_eq!(world.calls().len(), 2);
    assert_eq!(deciders(&world), [by(&always(Manual), Manual)]);
}

#[test]
fn a_faulty_set_is_refused_with_all_its_faults_and_nothing_is_replaced() {
    let world = World::new();
    let saga = alone(&world, Retry::none());
    world.plan("do a", [Act::rejected()]);
    world.life(&saga, async |coordinator| {
        let faulty = PolicySet::new()
            .recovery(
                always(Compensate).first(
                    Rule::new("typo", Manual)
                        .when(Condition::Step("b".to_owned()))
                        .when(Condition::CompletedAtLeast {
                            numerator: 1,
                            denominator: 0,
                        }),
                ),
            )
            .retry(Retry::none().max_attempts(0))
            .step(StepRetries::new("b").retry(Retry::none()))
            .step(StepRetries::new("b*"));
        let refused = coordinator.replace_policies("alone", &faulty);
        assert_eq!(
            refused.map_err(|error| error.to_string()),
            Err("policies for saga `alone`: rule `typo`: a completion of 1/0; \
                 retry: max_attempts is 0: it counts calls, so that 1 is no retry; \
                 step `b*`: it says no retry; \
                 rule `typo`: the saga has no step `b`, so that it never matches; \
                 the saga has no step `b`"
                .to_owned())
        );
        let refused = coordinator.replace_policies("alone-2", &PolicySet::new());
        assert_eq!(
            refused.map_err(|error| error.to_string()),
            Err("policies for saga `alone-2`: it is not registered with this coordinator, which has `alone`".to_owned())
        );
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        assert_eq!(run.outcome().await.unwrap().word(), "parked");
    });
    assert_eq!(deciders(&world), [by(&always(Manual), Manual)]);
}

#[test]
fn a_coordinator_can_begin_with_policies_and_the_next_one_begins_with_its_own() {
    let world = World::new();
    let saga = alone(&world, Retry::none());
    world.plan("do a", (0..3).map(|_| Act::rejected()));
    let set = PolicySet::new().recovery(always(RetryFailed).max_recoveries(1));
    world.life_with(
        |builder| builder.policies("alone", set.clone()).register(&saga),
        async |coordinator| {
            coordinator.start(&saga, "r", 1).await.unwrap();
            world.until("do a").await;
        },
    );
    assert_eq!(world.recover(&saga).word(), "parked");
    assert_eq!(
        deciders(&world),
        [
            by(set.recovery_policy().unwrap(), RetryFailed),
            by(&always(Manual), Manual)
        ]
    );
}

#[tokio::test]
async fn policies_for_a_saga_that_is_not_registered_build_no_coordinator() {
    let error = Coordinator::builder(amends::store::MemoryStore::new())
        .policies("nobody", PolicySet::new())
        .build()
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "policies for saga `nobody`: it is not registered with this coordinator, which has none"
    );
}
