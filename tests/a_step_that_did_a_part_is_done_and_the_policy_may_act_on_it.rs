//! A step returns output and says that it did a part: it is done, and only a rule that names that changes where
//! the run goes.

// The helpers of this file aren't test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use amends::failure::{FailedEffect, PartialSuccess};
use amends::journal::{Cause, Command, Event, Verb, form_of};
use amends::policy::{Condition, PolicySet, Rule};
use amends::store::Store as _;
use amends::*;
use common::*;

const NOTE: &str = "3 lines are out of stock";

/// `a`, then `b`, which does as many of ten lines as its plan says and is done; then `c`.
fn saga(world: &World, policy: RecoveryPolicy) -> Saga<u64, u64> {
    saga_of(world, policy, PartialSuccess::new(7, 10, NOTE))
}

fn saga_of(world: &World, policy: RecoveryPolicy, part: PartialSuccess) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("order").policy(policy);
    let n = saga.input();
    let a = saga.add(world.step("a"), n);
    let b = saga.add(partly("b", part), a);
    let c = saga.add(world.step("c"), b);
    saga.returns(c).unwrap()
}

/// Says that it did a part, in its first round; gives 7.
fn partly(name: &str, part: PartialSuccess) -> StepSpec<u64, u64> {
    step_with(
        name,
        part,
        async |part, cx: &StepContext, _: &u64| {
            if cx.round() == 1 {
                cx.did_part(part.clone());
            }
            Ok(7)
        },
        async |_, _, _, _| Ok(()),
    )
}

fn names_it(then: RecoveryStrategy) -> RecoveryPolicy {
    let mode = Condition::Mode(vec![FailureMode::PartialStepFailures]);
    RecoveryPolicy::saga().first(Rule::new("in part", then).when(mode))
}

fn records(world: &World) -> Vec<String> {
    let records = world.records().into_iter();
    records.map(|events| events.join(", ")).collect()
}

#[test]
fn it_is_done_and_the_run_goes_forward_where_no_rule_names_it() {
    let always = |strategy| RecoveryPolicy::new("always", strategy);
    for policy in [
        RecoveryPolicy::saga(),
        RecoveryPolicy::by_progress(),
        always(RecoveryStrategy::Compensate),
        // It is about failures of that step.
        always(RecoveryStrategy::Manual).rule(
            Rule::new("b", RecoveryStrategy::Compensate).when(Condition::Step("b".to_owned())),
        ),
        names_it(RecoveryStrategy::RetryFailed),
    ] {
        let world = World::new();
        let outcome = world.run_to_rest(&saga(&world, policy.clone()), 1);
        assert_eq!(outcome.word(), "completed", "{policy}");
        assert_eq!(
            records(&world),
            [
                "run started, start a 1",
                "done a, start b 1",
                "done b, start c 1",
                "done c, ended completed"
            ],
            "{policy}"
        );
        let partial = outcome.partial();
        let step = partial.step("b").unwrap();
        assert_eq!(step.status, StepStatus::Done);
        assert_eq!(step.partial, Some(PartialSuccess::new(7, 10, NOTE)));
        assert_eq!(partial.output::<u64>("b").unwrap().as_deref(), Some(&7));
        assert_eq!((partial.completed, partial.recoveries), (3, 0));
        assert_eq!(partial.step("a").unwrap().partial, None);
    }
}

#[test]
fn a_note_that_lacks_nothing_and_one_of_a_call_that_fails_say_nothing() {
    let world = World::new();
    let policy = names_it(RecoveryStrategy::Manual);
    let mut saga = Saga::builder::<u64>("order").policy(policy);
    let n = saga.input();
    let all = saga.add(partly("all", PartialSuccess::new(10, 10, NOTE)), n);
    let fails = step_fn(
        "fails",
        async |cx: &StepContext, _: &u64| {
            if cx.attempt() == 1 {
                cx.did_part(PartialSuccess::new(7, 10, NOTE));
                return Err(StepError::not_done("x").with_mode(FailureMode::SystemNetwork));
            }
            Ok(1)
        },
        async |_, _, _| Ok(()),
    );
    let fails = saga.add(fails.retry(calls(2)), all);
    let saga = saga.returns(fails).unwrap();
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "completed");
    let partial = outcome.partial();
    assert!(partial.steps.iter().all(|step| step.partial.is_none()));
    assert!(world.journal().iter().all(|events| form_of(events) == 1));
}

#[test]
fn a_rule_that_says_compensate_undoes_it_with_all_that_is_done() {
    let by_mode = Condition::Mode(vec![FailureMode::PartialStepFailures]);
    for condition in [by_mode, Condition::Effect(FailedEffect::Done)] {
        let world = World::new();
        let rule = Rule::new("in part", RecoveryStrategy::Compensate).when(condition);
        let saga = saga(&world, RecoveryPolicy::saga().first(rule));
        let outcome = world.run_to_rest(&saga, 1);
        assert_eq!(outcome.word(), "compensated");
        assert_eq!(
            records(&world),
            [
                "run started, start a 1",
                "done a, start b 1",
                "done b, decided compensate, undo b 1",
                "undone b, undo a 1",
                "undone a, ended compensated"
            ]
        );
        let partial = outcome.partial();
        assert_eq!(partial.failing_step.as_deref(), Some("b"));
        assert_eq!(partial.failure_mode, Some(FailureMode::PartialStepFailures));
        assert_eq!(partial.cause, Some(Cause::Failures));
        let why = &partial.why[0];
        assert_eq!(why.rule, "in part");
        assert_eq!(why.saw.effect, FailedEffect::Done);
        assert_eq!((why.saw.completed, why.saw.total), (2, 3));
        // It was undone, and has nothing to say of itself any more.
        assert_eq!(partial.step("b").unwrap().partial, None);
        assert_eq!(partial.compensations[0].effect, EffectReport::Done);
        assert!(partial.outstanding.is_empty());
    }
}

#[test]
fn a_rule_that_says_manual_parks_the_run_and_a_retry_goes_on_with_what_is_done() {
    let world = World::new();
    let saga = saga(&world, names_it(RecoveryStrategy::Manual));
    world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        let partial = run.outcome().await.unwrap().partial();
        let parked = partial.parked.as_ref().unwrap();
        assert_eq!(
            parked.message,
            "`b` is done in part; rule `in part` of policy `saga` says manual"
        );
        assert_eq!(partial.step("b").unwrap().status, StepStatus::Done);
        assert!(partial.step("b").unwrap().partial.is_some());
        let retry = Verb::Retry {
            strategy: None,
            edits: Vec::new(),
        };
        let retry = Command::new("r", retry).by("ada").reason("fine").token("t");
        coordinator.command(&retry).await.unwrap();
        assert_eq!(run.ended().await.unwrap().word(), "completed");
    });
    assert_eq!(
        world.story(),
        [
            "run started",
            "start a 1",
            "done a",
            "start b 1",
            "done b",
            "decided manual",
            "parked manual",
            "Commanded { token: \"t\" }",
            "decided retry_failed",
            "start c 1",
            "done c",
            "ended completed"
        ]
    );
}

#[test]
fn a_rule_that_says_retry_all_begins_again_in_new_rounds() {
    let world = World::new();
    let saga = saga(&world, names_it(RecoveryStrategy::RetryAll));
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "completed");
    assert_eq!(
        records(&world),
        [
            "run started, start a 1",
            "done a, start b 1",
            "done b, decided retry_all, undo b 1",
            "undone b, undo a 1",
            "undone a",
            "start a 2",
            "done a, start b 2",
            "done b, start c 1",
            "done c, ended completed"
        ]
    );
    let partial = outcome.partial();
    assert_eq!(partial.recoveries, 1);
    // Its second round did all of it.
    assert_eq!(partial.step("b").unwrap().partial, None);
}

#[test]
fn what_the_run_is_parked_for_is_the_part_and_not_an_earlier_failure_of_the_step() {
    let world = World::new();
    let step = step_fn(
        "b",
        async |cx: &StepContext, n: &u64| {
            if cx.attempt() == 1 {
                return Err(StepError::not_done("busy").with_mode(FailureMode::SystemNetwork));
            }
            cx.did_part(PartialSuccess::new(0, 2, NOTE));
            Ok(*n)
        },
        async |_, _, _| Ok(()),
    );
    let mut saga = Saga::builder::<u64>("order").policy(names_it(RecoveryStrategy::Manual));
    let n = saga.input();
    let b = saga.add(step.retry(calls(2)), n);
    let saga = saga.returns(b).unwrap();
    let partial = world.run_to_rest(&saga, 1).partial();
    assert_eq!(partial.failing_step.as_deref(), Some("b"));
    assert_eq!(partial.failure_mode, Some(FailureMode::PartialStepFailures));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let entry = runtime.block_on(world.store.find(&"r".into()));
    let trouble = entry.unwrap().unwrap().trouble.unwrap();
    assert_eq!(
        (&*trouble.step, &*trouble.mode),
        ("b", "partial_step_failures")
    );
}

#[test]
fn it_comes_to_rest_as_a_failure_does_and_is_decided_together_with_others() {
    let world = World::new();
    let effect = Condition::Effect(FailedEffect::Done);
    let policy = RecoveryPolicy::new("p", RecoveryStrategy::Compensate)
        .rule(Rule::new("in part", RecoveryStrategy::Manual).when(effect));
    let mut saga = Saga::builder::<u64>("sides").policy(policy);
    let n = saga.input();
    let b = saga.add(partly("b", PartialSuccess::new(7, 10, NOTE)), n);
    world.plan(
        "do slow",
        [Act::Fails(StepError::rejected("no")).after(SECOND)],
    );
    let slow = saga.add(world.step("slow"), n);
    let next = saga.add(world.step("next"), b);
    let saga = saga.returns((slow, next)).unwrap();
    let partial = world.run_to_rest(&saga, 1_u64).partial();
    // `next` never starts; what is in flight is awaited; the strictest answer counts for both.
    assert_eq!(
        records(&world),
        [
            "run started, start b 1, start slow 1",
            "done b",
            "failed slow, decided manual, parked manual"
        ]
    );
    let says: Vec<_> = partial
        .why
        .iter()
        .map(|why| (&*why.saw.step, why.says))
        .collect();
    assert_eq!(
        says,
        [
            ("b", RecoveryStrategy::Manual),
            ("slow", RecoveryStrategy::Compensate)
        ]
    );
    assert_eq!(
        partial.parked.unwrap().message,
        "`slow` failed and `b` is done in part; rule `in part` of policy `p` says manual"
    );
}

#[test]
fn a_crash_before_the_decision_changes_nothing() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("sides").policy(names_it(RecoveryStrategy::Compensate));
    let n = saga.input();
    let b = saga.add(partly("b", PartialSuccess::new(7, 10, NOTE)), n);
    world.plan("do slow", [Act::Hangs, Act::Done(1)]);
    let slow = saga.add(world.step("slow"), n);
    let next = saga.add(world.step("next"), b);
    let saga = saga.returns((slow, next)).unwrap();
    world.life(&saga, async |coordinator| {
        let _run = coordinator.start(&saga, "r", 1).await.unwrap();
        tokio::time::sleep(SECOND).await;
    });
    assert_eq!(world.recover(&saga).word(), "compensated");
    assert_eq!(
        records(&world)[..3],
        [
            "run started, start b 1, start slow 1",
            "done b",
            "claimed 2, decided compensate, undo b 1, undo slow 1"
        ]
    );
}

#[test]
fn past_the_pivot_nothing_goes_back_for_it() {
    let world = World::new();
    let part = PartialSuccess::new(1, 2, NOTE);
    let mut saga = Saga::builder::<u64>("sends").policy(names_it(RecoveryStrategy::Compensate));
    let n = saga.input();
    let sends = irreversible_fn("send", async |cx: &StepContext, n: &u64| {
        cx.did_part(PartialSuccess::new(1, 2, NOTE));
        Ok(*n)
    });
    let sent = saga.add(sends.pivot(), n);
    let saga = saga.returns(sent).unwrap();
    let partial = world.run_to_rest(&saga, 1).partial();
    assert_eq!(partial.strategy, Some(RecoveryStrategy::Manual));
    assert_eq!(
        partial.why[0].overruled.as_deref(),
        Some("compensate is not available past the pivot: nothing goes back there")
    );
    assert_eq!(partial.step("send").unwrap().partial, Some(part));
}

#[test]
fn a_mode_of_ones_own_or_of_services_is_known_by_its_rule() {
    let services = FailureMode::PartialServiceFailures;
    let part = PartialSuccess::new(1, 3, "two carriers are down").with_mode(services.clone());
    for (named, word) in [
        (services, "compensated"),
        (FailureMode::PartialStepFailures, "completed"),
    ] {
        let world = World::new();
        let rule =
            Rule::new("in part", RecoveryStrategy::Compensate).when(Condition::Mode(vec![named]));
        let policy = RecoveryPolicy::saga().first(rule);
        let saga = saga_of(&world, policy, part.clone());
        assert_eq!(world.run_to_rest(&saga, 1).word(), word);
    }
}

#[test]
fn a_policy_that_has_no_answer_any_more_lets_the_run_go_on_without_a_recovery() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("sides").policy(names_it(RecoveryStrategy::Compensate));
    let n = saga.input();
    let b = saga.add(partly("b", PartialSuccess::new(7, 10, NOTE)), n);
    world.plan("do slow", [Act::Done(1).after(SECOND)]);
    let slow = saga.add(world.step("slow"), n);
    let next = saga.add(world.step("next"), b);
    let saga = saga.returns((slow, next)).unwrap();
    let outcome = world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1_u64).await.unwrap();
        tokio::time::sleep(SECOND / 2).await;
        let set = PolicySet::new().recovery(RecoveryPolicy::saga().max_recoveries(0));
        coordinator.replace_policies("sides", &set).unwrap();
        run.outcome().await.unwrap()
    });
    assert_eq!(outcome.word(), "completed");
    assert_eq!(
        records(&world),
        [
            "run started, start b 1, start slow 1",
            "done b",
            "done slow, decided retry_failed, start next 1",
            "done next, ended completed"
        ]
    );
    assert_eq!(outcome.partial().recoveries, 0);
}

#[test]
fn the_note_is_written_with_the_end_of_the_step_in_form_3() {
    let world = World::new();
    world.run_to_rest(&saga(&world, names_it(RecoveryStrategy::Manual)), 1);
    let done = world.journal()[2].clone();
    assert_eq!(form_of(&done[..1]), 3);
    // A decision about it says what was seen in a word that older readers don't know.
    let Event::Decided(_) = &done[1] else {
        panic!("{done:?}")
    };
    assert_eq!(form_of(&done[1..2]), 3);
    let Event::StepDone { took_us, .. } = &done[0] else {
        panic!("{done:?}")
    };
    assert_eq!(
        serde_json::to_string(&done[0]).unwrap(),
        format!(
            r#"{{"step_done":{{"step":"b","output":7,"partial":{{"done":7,"of":10,"message":"{NOTE}","mode":"partial_step_failures"}},"asks":true,"took_us":{took_us}}}}}"#
        )
    );
    let text = serde_json::to_string(&done).unwrap();
    assert_eq!(
        serde_json::from_str::<Vec<Event<String>>>(&text).unwrap(),
        done
    );
    // The others are as they were.
    let forms: Vec<u32> = world
        .journal()
        .iter()
        .map(|events| form_of(events))
        .collect();
    assert_eq!(forms, [1, 1, 3]);
}
