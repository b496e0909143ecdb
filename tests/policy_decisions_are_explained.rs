//! Every decision says which policy and rule made it, what they saw, and why each rule before did not.
// Helper functions of tests aren't test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::time::Duration;

use amends::failure::{Category, CustomMode, FailedEffect, Severity};
use amends::journal::{Command, Decision, Event, Verb};
use amends::policy::{Condition, Explanation, Rule, Situation};
use amends::*;
use common::*;

use RecoveryStrategy::{Compensate, Manual, RetryAll, RetryFailed};

fn saw() -> Situation {
    Situation::new("charge-card", FailureMode::SystemNetwork, 2, 4)
}

fn with(change: impl FnOnce(&mut Situation)) -> Situation {
    let mut saw = saw();
    change(&mut saw);
    saw
}

fn of_mode(mode: FailureMode) -> Situation {
    Situation::new("charge-card", mode, 2, 4)
}

/// A policy with this condition alone.
fn only(condition: Condition) -> RecoveryPolicy {
    RecoveryPolicy::new("one rule", Manual).rule(Rule::new("it", RetryAll).when(condition))
}

/// Steps one after the other, each called once unless a recovery calls it again.
fn chain(world: &World, policy: RecoveryPolicy, names: &[&str]) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("chain").policy(policy);
    let mut last = saga.input();
    for name in names {
        last = saga.add(world.step(name).retry(Retry::none()), last);
    }
    saga.returns(last).unwrap()
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

#[test]
fn each_condition_holds_from_its_boundary_on_and_says_why_it_does_not() {
    let second = Duration::from_secs(1);
    let custom =
        |severity| FailureMode::from(CustomMode::new("fraud", Category::Policy).severity(severity));
    let rows = [
        (
            Condition::Terminal,
            of_mode(FailureMode::SystemOutOfMemory),
            saw(),
            "system_network is not terminal",
        ),
        (
            Condition::NotTerminal,
            saw(),
            of_mode(FailureMode::SystemOutOfMemory),
            "system_oom is terminal",
        ),
        (
            Condition::Retryable,
            saw(),
            with(|saw| saw.retryable = false),
            "the failure is not retryable",
        ),
        (
            Condition::NotRetryable,
            with(|saw| saw.retryable = false),
            saw(),
            "the failure is retryable",
        ),
        (
            Condition::UsedUp,
            with(|saw| saw.recoveries = 3),
            with(|saw| saw.recoveries = 2),
            "2 of 3 recoveries used, time is left",
        ),
        (
            Condition::UsedUp,
            with(|saw| saw.time_used_up = true),
            saw(),
            "0 of 3 recoveries used, time is left",
        ),
        (
            Condition::NotUsedUp,
            with(|saw| saw.recoveries = 2),
            with(|saw| saw.recoveries = 3),
            "3 of 3 recoveries used",
        ),
        (
            Condition::NotUsedUp,
            saw(),
            with(|saw| saw.time_used_up = true),
            "the run's time is used up",
        ),
        (
            Condition::PastPivot,
            with(|saw| saw.past_pivot = true),
            saw(),
            "the run is before the pivot",
        ),
        (
            Condition::BeforePivot,
            saw(),
            with(|saw| saw.past_pivot = true),
            "the run is past the pivot",
        ),
        (
            Condition::CompletedAtLeast {
                numerator: 1,
                denominator: 2,
            },
            saw(),
            with(|saw| saw.completed = 1),
            "1 of 4 done is less than 1/2",
        ),
        (
            Condition::Mode(vec![FailureMode::SystemDisk, FailureMode::SystemNetwork]),
            saw(),
            of_mode(FailureMode::SystemTimeout),
            "the mode is system_timeout, not system_disk or system_network",
        ),
        (
            Condition::Mode(vec![custom(Severity::Low)]),
            of_mode(custom(Severity::High)),
            saw(),
            "the mode is system_network, not fraud",
        ),
        (
            Condition::Category(Category::System),
            saw(),
            of_mode(FailureMode::StepTimeout),
            "the category is agent, not system",
        ),
        (
            Condition::SeverityAtLeast(Severity::High),
            saw(),
            of_mode(FailureMode::RateLimited),
            "the severity is medium, below high",
        ),
        (
            Condition::SeverityAtLeast(Severity::High),
            of_mode(custom(Severity::Critical)),
            of_mode(custom(Severity::Medium)),
            "the severity is medium, below high",
        ),
        (
            Condition::Step("charge-*".to_owned()),
            saw(),
            with(|saw| saw.step = "ship".to_owned()),
            "`ship` does not match `charge-*`",
        ),
        (
            Condition::Step("charge-card".to_owned()),
            saw(),
            with(|saw| saw.step.clear()),
            "the run itself failed, and no step that matches `charge-card`",
        ),
        (
            Condition::Effect(FailedEffect::InDoubt),
            with(|saw| saw.effect = FailedEffect::InDoubt),
            saw(),
            "the effect is not done, not in doubt",
        ),
        (
            Condition::RecoveriesAtLeast(2),
            with(|saw| saw.recoveries = 2),
            with(|saw| saw.recoveries = 1),
            "1 recoveries used, fewer than 2",
        ),
        (
            Condition::ElapsedAtLeast(90 * second),
            with(|saw| saw.elapsed = 90 * second),
            with(|saw| saw.elapsed = Duration::from_millis(89_999)),
            "1m29s999ms after the start, less than 1m30s",
        ),
    ];
    for (condition, holds, fails, because) in rows {
        let policy = only(condition.clone());
        let (yes, no) = (policy.decide(&holds), policy.decide(&fails));
        assert_eq!((&*yes.rule, yes.says), ("it", RetryAll), "{condition:?}");
        assert_eq!(yes.passed_over, []);
        assert_eq!((&*no.rule, no.says), ("otherwise", Manual), "{condition:?}");
        assert_eq!(no.passed_over.len(), 1);
        assert_eq!(no.passed_over[0].rule, "it");
        assert_eq!(no.passed_over[0].because, because);
        assert_eq!(no.saw, fails);
    }
}

#[test]
fn the_first_rule_whose_conditions_all_hold_decides() {
    let policy = RecoveryPolicy::new("p", RetryFailed)
        .rule(
            Rule::new("both", Manual)
                .when(Condition::Retryable)
                .when(Condition::PastPivot),
        )
        .rule(Rule::new("wide", Compensate).when(Condition::Retryable))
        .rule(Rule::new("later and stricter", Manual).when(Condition::Retryable));
    let why = policy.decide(&saw());
    assert_eq!((&*why.rule, why.says), ("wide", Compensate));
    assert_eq!(why.passed_over.len(), 1);
    // The first condition that does not hold is the reason.
    assert_eq!(why.passed_over[0].because, "the run is before the pivot");
    let why = policy.decide(&with(|saw| saw.past_pivot = true));
    assert_eq!((&*why.rule, why.says), ("both", Manual));
    assert_eq!(why.passed_over, []);
}

#[test]
fn the_digest_is_that_of_what_the_policy_says() {
    let rule = || Rule::new("r", Manual).when(Condition::Terminal);
    let other = || Rule::new("s", Manual).when(Condition::PastPivot);
    let make = || {
        RecoveryPolicy::new("p", RetryFailed)
            .rule(rule())
            .rule(other())
    };
    let one = make();
    assert_eq!(one.digest(), make().digest());
    let json = serde_json::to_string(&one).unwrap();
    let read: RecoveryPolicy = serde_json::from_str(&json).unwrap();
    assert_eq!(read, one);
    assert_eq!(read.digest(), one.digest());
    let others = [
        make().named("q"),
        make().max_recoveries(4),
        make().backoff(Retry::linear()),
        make().first(Rule::new("t", Manual)),
        make().rule(Rule::new("t", Manual)),
        RecoveryPolicy::new("p", Compensate)
            .rule(rule())
            .rule(other()),
        RecoveryPolicy::new("p", RetryFailed)
            .rule(other())
            .rule(rule()),
        RecoveryPolicy::new("p", RetryFailed)
            .rule(Rule::new("r", Manual).when(Condition::NotTerminal))
            .rule(other()),
    ];
    let mut digests: Vec<&str> = others.iter().map(RecoveryPolicy::digest).collect();
    digests.push(one.digest());
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), others.len() + 1);
    // Asked before and after a change, it is that of the policy as it is.
    let digest = one.digest().to_owned();
    assert_ne!(one.max_recoveries(9).digest(), digest);
    // Journals hold these for ever: a preset that changes gets another digest, and this test tells.
    assert_eq!(RecoveryPolicy::saga().digest(), "38a091561d53");
    assert_eq!(RecoveryPolicy::by_progress().digest(), "7f626ef18b74");
}

#[test]
fn an_explanation_from_before_digests_and_times_is_read() {
    let old = r#"{"policy":"saga","rule":"not retryable","says":"compensate","saw":{"step":"a","mode":"agent_logic","retryable":false,"effect":"not_done","completed":1,"total":3,"past_pivot":false,"recoveries":0,"max_recoveries":3,"time_used_up":false},"passed_over":[{"rule":"terminal","because":"agent_logic is not terminal"}]}"#;
    let why: Explanation = serde_json::from_str(old).unwrap();
    assert_eq!(why.digest, "");
    assert_eq!(why.saw.elapsed, Duration::ZERO);
    // What wasn't there isn't written either.
    assert_eq!(serde_json::to_string(&why).unwrap(), old);
    assert_eq!(
        why.to_text(),
        "Step `a` failed with agent_logic (category agent, severity low): not retryable, effect not done.\n\
         \x20 Seen:         1 of 3 steps done, before the pivot, 0 of 3 recoveries used, 0ms after the start\n\
         \x20 Says:         compensate, by the rule `not retryable` of the policy `saga`\n\
         \x20 Passed over:  `terminal`: agent_logic is not terminal\n"
    );
}

#[test]
fn the_journal_holds_the_digest_of_the_policy_that_decided() {
    let world = World::new();
    let policy = RecoveryPolicy::saga().named("mine");
    let saga = chain(&world, policy.clone(), &["a"]);
    world.plan("do a", [Act::rejected()]);
    let partial = world.run_to_rest(&saga, 1).partial();
    assert_eq!(decisions(&world)[0].why, partial.why);
    assert_eq!(partial.why[0].policy, "mine");
    assert_eq!(partial.why[0].digest, policy.digest());
}

#[test]
fn a_decision_is_told_on_several_lines() {
    let world = World::new();
    let policy = RecoveryPolicy::new("bold", RetryAll)
        .rule(Rule::new("eyes", Manual).when(Condition::SeverityAtLeast(Severity::Critical)))
        .rule(
            Rule::new("ships", RetryFailed)
                .when(Condition::PastPivot)
                .when(Condition::Step("ship-*".to_owned())),
        );
    let digest = policy.digest().to_owned();
    let mut saga = Saga::builder::<u64>("told").policy(policy);
    let n = saga.input();
    let paid = saga.add(world.step("pay").pivot(), n);
    saga.add(world.step("ship").retry(Retry::none()), paid);
    saga.add(world.step("mail").retry(Retry::none()), paid);
    let saga = saga.returns(paid).unwrap();
    world.plan("do ship", [Act::not_done().after(1500 * SECOND / 1000)]);
    world.plan("do mail", [Act::in_doubt()]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "parked");
    let decisions = decisions(&world);
    assert_eq!(decisions.len(), 1);
    let part = |step: &str, effect: &str| {
        format!(
            "Step `{step}` failed with system_network (category system, severity high): retryable, effect {effect}.\n\
             \x20 Seen:         1 of 3 steps done, past the pivot, 0 of 3 recoveries used, 1s500ms after the start\n\
             \x20 Says:         retry_all, by the rule `otherwise` of the policy `bold` ({digest})\n\
             \x20 Passed over:  `eyes`: the severity is high, below critical\n\
             \x20               `ships`: `{step}` does not match `ship-*`\n\
             \x20 Overruled:    retry_all is not available past the pivot: nothing goes back there\n"
        )
    };
    assert_eq!(
        decisions[0].to_text(String::as_str),
        format!(
            "Decided: manual, because `mail` and `ship` failed.\n{}{}",
            part("mail", "in doubt"),
            part("ship", "not done")
        )
    );
    let line = decisions[0].why[0].to_string();
    assert!(!line.contains('\n'), "{line}");
    assert!(line.starts_with("step `mail` failed with system_network: rule `otherwise` of policy `bold` says retry_all"), "{line}");
}

#[test]
fn a_recovery_tells_its_number_and_when_it_goes_on() {
    let world = World::new();
    let policy = RecoveryPolicy::new("always", RetryFailed).backoff(calls(9));
    let saga = chain(&world, policy, &["a"]);
    world.plan("do a", [Act::not_done()]);
    world.run_to_rest(&saga, 1);
    let text = decisions(&world)[0].to_text(String::as_str);
    assert_eq!(
        text.lines().next(),
        Some(
            "Decided: retry_failed, because `a` failed. It is recovery 1, and goes on at 2023-11-14T22:13:21.000000Z."
        )
    );
}

#[test]
fn several_answers_are_told_with_the_rule_that_the_strictest_counts() {
    let world = World::new();
    let policy = RecoveryPolicy::new("p", RetryFailed)
        .rule(Rule::new("not retryable", Compensate).when(Condition::NotRetryable));
    let mut saga = Saga::builder::<u64>("sides").policy(policy);
    let n = saga.input();
    saga.add(world.step("a").retry(Retry::none()), n);
    saga.add(world.step("b").retry(Retry::none()), n);
    let saga = saga.returns(n).unwrap();
    world.plan("do a", [Act::not_done()]);
    world.plan("do b", [Act::rejected()]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "compensated");
    let text = decisions(&world)[0].to_text(String::as_str);
    let lines: Vec<&str> = text.lines().take(2).collect();
    assert_eq!(
        lines,
        [
            "Decided: compensate, because `a` and `b` failed.",
            "Of several answers the strictest is taken."
        ]
    );
    assert_eq!(text.matches("  Says: ").count(), 2);
}

#[test]
fn decisions_that_no_policy_is_asked_for_say_who_made_them() {
    let first = |world: &World| decisions(world)[0].to_text(String::as_str);
    let world = World::new();
    let saga = chain(&world, RecoveryPolicy::saga(), &["a"]);
    world.plan("do a", [Act::Done(1).after(SECOND)]);
    world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        coordinator.cancel(run.id(), "ann", "a slip").await.unwrap();
        run.outcome().await.unwrap();
    });
    assert_eq!(
        first(&world),
        "Decided: compensate, because the run was cancelled; no policy is asked about that.\n"
    );

    let world = World::new();
    let saga = chain(&world, RecoveryPolicy::saga(), &["a"]);
    world.plan("do a", [Act::Fails(StepError::stop("enough"))]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "stopped");
    assert_eq!(
        first(&world),
        "Decided: to stop and keep what is done, because a step asked to end the run: enough; no policy is asked about that.\n"
    );

    let world = World::new();
    let saga = chain(&world, RecoveryPolicy::new("always", Manual), &["a"]);
    world.plan("do a", [Act::rejected()]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "parked");
    world.life(&saga, async |coordinator| {
        let run = "r".into();
        let retried = coordinator.retry(&run, RetryFailed, "ann", "the card is valid again");
        retried.await.unwrap();
        let handle = coordinator.attach(&saga, &run).await.unwrap().unwrap();
        handle.outcome().await.unwrap();
    });
    assert_eq!(
        decisions(&world)[1].to_text(String::as_str),
        "Decided: retry_failed, because ann said so: the card is valid again; no policy is asked about that.\n"
    );
}

#[test]
fn a_rule_goes_by_the_time_since_the_start() {
    let world = World::new();
    let policy = RecoveryPolicy::new("patient", RetryFailed)
        .max_recoveries(99)
        .backoff(calls(9))
        .rule(
            Rule::new("long enough", Compensate)
                .when(Condition::ElapsedAtLeast(Duration::from_secs(3))),
        );
    let saga = chain(&world, policy, &["a"]);
    world.plan("do a", (0..9).map(|_| Act::not_done()));
    assert_eq!(world.run_to_rest(&saga, 1).word(), "compensated");
    let seen: Vec<_> = decisions(&world)
        .iter()
        .map(|decision| (decision.why[0].saw.elapsed, decision.strategy))
        .collect();
    assert_eq!(
        seen,
        [
            (Duration::ZERO, RetryFailed),
            (SECOND, RetryFailed),
            (2 * SECOND, RetryFailed),
            (3 * SECOND, Compensate),
        ]
    );
}

#[test]
fn the_time_for_which_a_run_is_parked_or_paused_does_not_count() {
    let world = World::new();
    let saga = chain(&world, RecoveryPolicy::new("always", Manual), &["a"]);
    let later = || Act::rejected().after(2 * SECOND);
    world.plan("do a", [later(), later(), later()]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "parked");
    world.life(&saga, async |coordinator| {
        let run = RunId::from("r");
        tokio::time::sleep(3600 * SECOND).await;
        let retried = coordinator.retry(&run, RetryFailed, "ann", "again");
        retried.await.unwrap();
        let handle = coordinator.attach(&saga, &run).await.unwrap().unwrap();
        assert_eq!(handle.outcome().await.unwrap().word(), "parked");
        tokio::time::sleep(3600 * SECOND).await;
        // Paused after one second, so that the failure comes while it stands still.
        let retried = coordinator.retry(&run, RetryFailed, "ann", "once more");
        retried.await.unwrap();
        tokio::time::sleep(SECOND).await;
        let pause = Command::new("r", Verb::Pause).by("ann").reason("a look");
        coordinator.command(&pause).await.unwrap();
        let handle = coordinator.attach(&saga, &run).await.unwrap().unwrap();
        assert_eq!(handle.outcome().await.unwrap().word(), "parked");
    });
    let waits: Vec<_> = decisions(&world)
        .iter()
        .filter_map(|decision| decision.why.first())
        .map(|why| why.saw.elapsed)
        .collect();
    assert_eq!(waits, [2 * SECOND, 4 * SECOND, 5 * SECOND]);
}

#[test]
fn a_pause_that_is_over_does_not_count() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("alone").policy(RecoveryPolicy::new("always", Manual));
    let n = saga.input();
    let a = saga.add(world.step("a").retry(calls(2)), n);
    let saga = saga.returns(a).unwrap();
    world.plan("do a", [Act::not_done(), Act::not_done().after(2 * SECOND)]);
    world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        world.until("do a").await;
        tokio::time::sleep(SECOND / 2).await;
        let verb = |verb| Command::new("r", verb).by("ann").reason("a look");
        coordinator.command(&verb(Verb::Pause)).await.unwrap();
        tokio::time::sleep(3600 * SECOND).await;
        coordinator.command(&verb(Verb::Resume)).await.unwrap();
        assert_eq!(run.outcome().await.unwrap().word(), "parked");
    });
    // Half a second before the pause, and two in the second call.
    assert_eq!(decisions(&world)[0].why[0].saw.elapsed, 5 * SECOND / 2);
}

#[test]
fn the_page_shows_an_explanation_as_it_is() {
    let mut saw = saw();
    saw.effect = FailedEffect::InDoubt;
    saw.past_pivot = true;
    saw.recoveries = 3;
    saw.elapsed = 14 * SECOND;
    let text = RecoveryPolicy::saga().decide(&saw).to_text();
    let page = include_str!("../docs/policies.md");
    assert!(page.contains(&text), "{text}");
}
