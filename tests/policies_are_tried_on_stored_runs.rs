//! What a policy would have decided about runs of the past: the machine is asked where they failed.
// Helper functions of tests aren't test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::time::Duration;

use amends::journal::Journal;
use amends::machine::{ReplayError, Trial, TrialError};
use amends::policy::{Condition, PolicySet, Rule};
use amends::store::Store;
use amends::*;
use common::*;
use futures_util::FutureExt;

use RecoveryStrategy::{Compensate, Manual, RetryAll, RetryFailed, RetryFromCheckpoint};

fn always(strategy: RecoveryStrategy) -> RecoveryPolicy {
    RecoveryPolicy::new("always", strategy).backoff(calls(9))
}

fn chain(world: &World, policy: RecoveryPolicy, names: &[&str], pivot: &str) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("chain").policy(policy);
    let mut last = saga.input();
    for name in names {
        let step = world.step(name).retry(Retry::none());
        let step = if *name == pivot { step.pivot() } else { step };
        last = saga.add(step, last);
    }
    saga.returns(last).unwrap()
}

fn journal(world: &World) -> Journal {
    let loaded = world.store.load(&"r".into()).now_or_never();
    loaded.expect("at once").unwrap().expect("it was started")
}

fn under(policy: RecoveryPolicy) -> PolicySet {
    PolicySet::new().recovery(policy)
}

fn answers(trial: &Trial) -> Vec<(RecoveryStrategy, RecoveryStrategy)> {
    trial
        .decisions
        .iter()
        .map(|tried| (tried.recorded, tried.would))
        .collect()
}

#[test]
fn under_the_policy_that_decided_each_answer_is_exactly_the_recorded_one() {
    let world = World::new();
    let policy = RecoveryPolicy::saga()
        .backoff(calls(9))
        .max_recoveries(2)
        .first(
            Rule::new("slow", RetryFailed)
                .when(Condition::ElapsedAtLeast(Duration::from_secs(1)))
                .when(Condition::NotUsedUp),
        );
    let saga = chain(&world, policy.clone(), &["a", "b"], "");
    world.plan("do b", (0..9).map(|_| Act::not_done().after(SECOND / 2)));
    assert_eq!(world.run_to_rest(&saga, 1).word(), "compensated");
    for set in [PolicySet::new(), under(policy)] {
        let trial = Trial::with_graph(&journal(&world), saga.graph(), &set).unwrap();
        assert_eq!(trial.decisions.len(), 3);
        for tried in &trial.decisions {
            assert_eq!(tried.would, tried.recorded);
            assert_eq!(tried.would_why, tried.recorded_why);
        }
        assert!(!trial.differs());
    }
}

#[test]
fn another_policy_is_asked_at_each_decision_and_what_follows_a_difference_is_marked() {
    let world = World::new();
    let saga = chain(&world, always(RetryFailed), &["a", "b", "c", "d"], "");
    world.plan("do c", (0..9).map(|_| Act::not_done()));
    assert_eq!(world.run_to_rest(&saga, 1).word(), "parked");
    let set = under(
        RecoveryPolicy::by_progress()
            .named("mine")
            .first(
                Rule::new("first", RetryFailed)
                    .when(Condition::Step("c".to_owned()))
                    .when(Condition::NotUsedUp),
            )
            .max_recoveries(1),
    );
    let trial = Trial::with_graph(&journal(&world), saga.graph(), &set).unwrap();
    // Of the three recoveries that were, the set allows one; the fourth time both park.
    assert_eq!(
        answers(&trial),
        [
            (RetryFailed, RetryFailed),
            (RetryFailed, Manual),
            (RetryFailed, Manual),
            (Manual, Manual)
        ]
    );
    let after: Vec<bool> = trial
        .decisions
        .iter()
        .map(|tried| tried.after_a_difference)
        .collect();
    assert_eq!(after, [false, false, true, true]);
    assert_eq!(trial.decisions[1].would_why[0].rule, "used up");
    assert_eq!(trial.decisions[1].failed, ["c"]);
    assert_eq!(
        trial.to_string(),
        "2023-11-14T22:13:20.000000Z record 4: `c` failed: was retry_failed (`otherwise`), stays retry_failed (`first`)\n\
         2023-11-14T22:13:21.000000Z record 6: `c` failed: was retry_failed (`otherwise`), would be manual (`used up`)\n\
         2023-11-14T22:13:22.000000Z record 8: `c` failed: was retry_failed (`otherwise`), would be manual (`used up`), had the run come here\n\
         2023-11-14T22:13:23.000000Z record 10: `c` failed: was manual (`otherwise` overruled), stays manual (`used up`), had the run come here\n"
    );
}

#[test]
fn what_is_not_available_is_overruled_in_a_trial_too() {
    let world = World::new();
    let saga = chain(&world, always(RetryFailed), &["a", "b"], "a");
    world.plan("do b", [Act::not_done()]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "completed");
    for strategy in [RetryFromCheckpoint, RetryAll, Compensate] {
        let set = under(always(strategy));
        let trial = Trial::with_graph(&journal(&world), saga.graph(), &set).unwrap();
        assert_eq!(answers(&trial), [(RetryFailed, Manual)]);
        assert_eq!(
            trial.decisions[0].would_why[0].overruled.as_deref(),
            Some(&*format!(
                "{strategy} is not available past the pivot: nothing goes back there"
            ))
        );
    }
}

#[test]
fn an_outline_from_the_store_is_enough_but_for_what_it_does_not_hold() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("once").policy(always(Manual));
    let n = saga.input();
    let a = saga.add(world.step("a").at_most_once(), n);
    let saga = saga.returns(a).unwrap();
    world.plan("do a", [Act::in_doubt()]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "parked");
    let outline = world
        .store
        .recall("once", 1, saga.fingerprint())
        .now_or_never();
    let outline = outline.unwrap().unwrap().expect("the coordinator left it");
    let journal = journal(&world);
    let set = under(always(RetryFailed));
    let exact = Trial::with_graph(&journal, saga.graph(), &set).unwrap();
    assert_eq!(answers(&exact), [(Manual, Manual)]);
    assert!(exact.decisions[0].would_why[0].overruled.is_some());
    let nearly = Trial::with_outline(&journal, &outline, &set).unwrap();
    assert_eq!(answers(&nearly), [(Manual, RetryFailed)]);
}

#[test]
fn decisions_without_a_policy_are_counted_and_not_tried() {
    let world = World::new();
    let saga = chain(&world, always(Manual), &["a"], "");
    world.plan("do a", [Act::rejected()]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "parked");
    world.life(&saga, async |coordinator| {
        coordinator
            .cancel(&"r".into(), "ann", "never mind")
            .await
            .unwrap();
        let handle = coordinator.attach(&saga, &"r".into()).await.unwrap();
        handle.unwrap().outcome().await.unwrap();
    });
    let set = under(always(Compensate));
    let trial = Trial::with_graph(&journal(&world), saga.graph(), &set).unwrap();
    assert_eq!(answers(&trial), [(Manual, Compensate)]);
    assert_eq!(trial.not_asked, 1);
    assert_eq!(
        trial.to_string(),
        "2023-11-14T22:13:20.000000Z record 2: `a` failed: was manual (`otherwise`), would be compensate (`otherwise`)\n\
         1 decision is made without a policy\n"
    );
}

#[test]
fn a_journal_that_does_not_fit_the_definition_is_refused() {
    let world = World::new();
    let saga = chain(&world, always(Manual), &["a"], "");
    world.plan("do a", [Act::rejected()]);
    world.run_to_rest(&saga, 1);
    let mut journal = journal(&world);
    let other = chain(&World::new(), always(Manual), &["b"], "");
    assert_eq!(
        Trial::with_graph(&journal, other.graph(), &PolicySet::new()),
        Err(ReplayError::NoSuchStep("a".to_owned()).into())
    );
    let mut named = Saga::builder::<u64>("other");
    let n = named.input();
    let a = named.add(world.step("a"), n);
    let named = named.returns(a).unwrap();
    assert_eq!(
        Trial::with_graph(&journal, named.graph(), &PolicySet::new()),
        Err(TrialError::OtherSaga {
            found: "chain".into(),
            wanted: "other".into()
        })
    );
    journal.records.remove(0);
    assert_eq!(
        Trial::with_graph(&journal, saga.graph(), &PolicySet::new()),
        Err(ReplayError::NoStart.into())
    );
    journal.records.clear();
    assert_eq!(
        Trial::with_graph(&journal, saga.graph(), &PolicySet::new()),
        Err(ReplayError::NoStart.into())
    );
}
