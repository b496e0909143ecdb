//! Rules D1 to D6: what is decided when something has failed for good.

// The helpers of this file aren't test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use amends::journal::{CancelTold, Cause, Decision, Event, ParkReason};
use amends::policy::{Condition, Rule, Situation};
use amends::*;
use common::*;

use RecoveryStrategy::{Compensate, Manual, RetryAll, RetryFailed, RetryFromCheckpoint};

/// A policy that always takes this strategy, one second later.
fn always(strategy: RecoveryStrategy) -> RecoveryPolicy {
    RecoveryPolicy::new("always", strategy).backoff(calls(9))
}

/// Steps side by side, each called once unless a recovery calls it again.
fn sides(world: &World, policy: RecoveryPolicy, names: &[&str]) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("sides").policy(policy);
    let n = saga.input();
    for name in names {
        saga.add(world.step(name).retry(Retry::none()), n);
    }
    saga.returns(n).unwrap()
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

/// Which rule fired, and what it says, for the first failure of the last decision.
fn answer(partial: &PartialResult) -> (&str, RecoveryStrategy) {
    (&partial.why[0].rule, partial.strategy.unwrap())
}

fn terminal() -> Act {
    Act::Fails(StepError::not_done("no").with_mode(FailureMode::SecurityViolation))
}

#[test]
fn d1_nothing_starts_after_a_failure_and_what_is_in_flight_is_awaited() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("d1").policy(always(Manual));
    let n = saga.input();
    saga.add(world.step("fails"), n);
    let slow = saga.add(world.step("slow"), n);
    let next = saga.add(world.step("next"), slow);
    let sleeps = saga.add(world.step("sleeps").retry(calls(9)), n);
    let saga = saga.returns((next, sleeps)).unwrap();
    world.plan("do fails", [Act::rejected().after(SECOND / 2)]);
    world.plan("do slow", [Act::Done(1).after(5 * SECOND)]);
    world.plan("do sleeps", [Act::in_doubt()]);
    let partial = world.run_to_rest(&saga, 1).partial();
    // The retry of `sleeps` would have come after one second; `next` would have started after five.
    assert_eq!(
        world.log(),
        [
            "do fails",
            "do slow",
            "do sleeps",
            "woke fails",
            "woke slow"
        ]
    );
    assert_eq!(world.now(), 5 * SECOND);
    let stood: Vec<_> = partial
        .steps
        .iter()
        .map(|step| (&*step.name, step.status, step.effect))
        .collect();
    assert_eq!(
        stood,
        [
            ("fails", StepStatus::Failed, EffectReport::NotDone),
            ("slow", StepStatus::Done, EffectReport::Done),
            ("next", StepStatus::Pending, EffectReport::NotDone),
            ("sleeps", StepStatus::Interrupted, EffectReport::InDoubt)
        ]
    );
}

#[test]
fn d1_attempts_in_flight_are_told_to_stop_where_the_saga_says_so() {
    let told = |siblings: Siblings| {
        let world = World::new();
        let mut saga = Saga::builder::<u64>("d1")
            .policy(always(Manual))
            .siblings(siblings);
        let n = saga.input();
        saga.add(world.step("fails"), n);
        saga.add(world.step("listens").timeout(20 * SECOND), n);
        let saga = saga.returns(n).unwrap();
        world.plan("do fails", [Act::rejected().after(SECOND)]);
        world.plan("do listens", [Act::WhenTold(Box::new(Act::not_done()))]);
        world.run_to_rest(&saga, 1);
        world.now()
    };
    let grace = 60 * SECOND;
    assert_eq!(told(Siblings::Stop { grace }), SECOND);
    assert_eq!(told(Siblings::Await), 20 * SECOND);
}

#[test]
fn d1_a_dropped_retrys_doubt_is_undone_with_the_rest() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("d1").policy(always(Compensate));
    let n = saga.input();
    saga.add(world.step("fails"), n);
    saga.add(world.step("sleeps").retry(calls(9)), n);
    let saga = saga.returns(n).unwrap();
    world.plan("do fails", [Act::rejected().after(SECOND / 2)]);
    world.plan("do sleeps", [Act::in_doubt()]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "compensated");
    assert_eq!(
        world.log(),
        [
            "do fails",
            "do sleeps",
            "woke fails",
            "undo sleeps (in doubt)"
        ]
    );
}

#[test]
fn d1_one_decision_is_made_over_all_failures() {
    let world = World::new();
    let saga = sides(&world, RecoveryPolicy::saga(), &["a", "b", "c"]);
    // The definition's order is not the order in which they fail.
    world.plan("do a", [Act::rejected().after(2 * SECOND)]);
    world.plan("do b", [Act::not_done().after(SECOND)]);
    world.plan("do c", [terminal().after(3 * SECOND)]);
    let partial = world.run_to_rest(&saga, 1).partial();
    let decisions = decisions(&world);
    assert_eq!(decisions.len(), 1);
    assert_eq!(decisions[0].failed, ["b", "a", "c"]);
    assert_eq!(decisions[0].cause, Cause::Failures);
    let asked: Vec<_> = decisions[0]
        .why
        .iter()
        .map(|why| (&*why.saw.step, why.says))
        .collect();
    assert_eq!(
        asked,
        [("b", RetryFailed), ("a", Compensate), ("c", Manual)]
    );
    assert_eq!(decisions[0].strategy, Manual);
    assert_eq!(partial.failing_step.as_deref(), Some("b"));
    assert_eq!(partial.failure_mode, Some(FailureMode::SystemNetwork));
}

#[test]
fn d1_the_strictest_answer_wins_whichever_failure_it_is_about() {
    let strictest_last = [
        RetryFailed,
        RetryFromCheckpoint,
        RetryAll,
        Compensate,
        Manual,
    ];
    for (one, for_a) in strictest_last.into_iter().enumerate() {
        for (two, for_b) in strictest_last.into_iter().enumerate() {
            let world = World::new();
            let about =
                |step: &str, then| Rule::new(step, then).when(Condition::Step(step.to_owned()));
            let policy = always(Manual)
                .rule(about("a", for_a))
                .rule(about("b", for_b));
            let saga = sides(&world, policy, &["a", "b"]);
            world.plan("do a", [Act::not_done()]);
            world.plan("do b", [Act::not_done()]);
            world.run_to_rest(&saga, 1);
            let decisions = decisions(&world);
            assert_eq!(decisions.len(), 1);
            assert_eq!(decisions[0].strategy, strictest_last[one.max(two)]);
        }
    }
}

type Settings = fn(StepSpec<u64, u64>) -> StepSpec<u64, u64>;

/// `a`, then `b` with these settings, called once unless a recovery calls it again.
fn pair(world: &World, policy: RecoveryPolicy, settings: Settings) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("pair").policy(policy);
    let n = saga.input();
    let a = saga.add(world.step("a"), n);
    let b = saga.add(settings(world.step("b").retry(Retry::none())), a);
    saga.returns(b).unwrap()
}

#[test]
fn d2_going_forward_a_step_in_doubt_is_executed_again_in_its_round_with_its_key() {
    let world = World::new();
    let saga = pair(&world, always(RetryFailed), |step| step);
    world.plan("do b", [Act::lost()]);
    assert_eq!(world.run_to_rest(&saga, 1).completed(), Some(2));
    assert_eq!(world.log(), ["do a", "do b", "do b"]);
    let calls = world.calls_of("do b");
    assert_eq!(calls[0].key, calls[1].key);
    assert_eq!((calls[0].round, calls[1].round), (1, 1));
}

#[test]
fn d2_with_rule_always_a_step_in_doubt_is_undone_first_and_gets_a_new_round() {
    let world = World::new();
    let always_undone: Settings = |step| step.undo_failing(UndoRule::Always);
    let saga = pair(&world, always(RetryFailed), always_undone);
    world.plan("do b", [Act::lost()]);
    assert_eq!(world.run_to_rest(&saga, 1).completed(), Some(2));
    assert_eq!(world.log(), ["do a", "do b", "undo b (in doubt)", "do b"]);
    let rounds: Vec<_> = world.calls_of("do b").iter().map(|it| it.round).collect();
    assert_eq!(rounds, [1, 2]);
}

#[test]
fn d2_an_at_most_once_step_in_doubt_is_parked() {
    let world = World::new();
    let saga = pair(&world, always(RetryFailed), StepSpec::at_most_once);
    world.plan("do b", [Act::lost()]);
    let partial = world.run_to_rest(&saga, 1).partial();
    assert_eq!(world.log(), ["do a", "do b"]);
    assert_eq!(partial.parked.unwrap().reason, ParkReason::Manual);
    let world = World::new();
    let saga = pair(&world, always(RetryFailed), StepSpec::at_most_once);
    world.plan("do b", [Act::Hangs]);
    world.crash_at(&saga, 1, "do b");
    let partial = world.recover(&saga).partial();
    assert_eq!(world.log(), ["do a", "do b"]);
    let parked = partial.parked.unwrap();
    assert_eq!(parked.reason, ParkReason::AtMostOnceInDoubt);
}

#[test]
fn d2_unwinding_or_outside_what_is_kept_a_step_in_doubt_is_compensated() {
    for (strategy, log) in [
        (
            Compensate,
            ["do a", "do b", "undo b (in doubt)", "undo a (done 1)"].as_slice(),
        ),
        (
            RetryFromCheckpoint,
            &["do a", "do b", "undo b (in doubt)", "do b"],
        ),
        (
            RetryAll,
            &[
                "do a",
                "do b",
                "undo b (in doubt)",
                "undo a (done 1)",
                "do a",
                "do b",
            ],
        ),
    ] {
        let world = World::new();
        let saga = pair(&world, always(strategy), |step| step);
        world.plan("do b", [Act::lost()]);
        world.run_to_rest(&saga, 1);
        assert_eq!(world.log(), log, "{strategy}");
    }
}

#[test]
fn d2_rule_never_asserts_that_nothing_is_left_and_says_what_it_hides() {
    let never: Settings = |step| step.undo_failing(UndoRule::Never);
    let world = World::new();
    let saga = pair(&world, always(Compensate), never);
    world.plan("do b", [Act::lost()]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "compensated");
    assert_eq!(world.log(), ["do a", "do b", "undo a (done 1)"]);
    let partial = outcome.partial();
    assert_eq!(partial.assumed_absent, ["b"]);
    assert_eq!(partial.outstanding, []);
    // Where there was no doubt, none is hidden.
    let world = World::new();
    let saga = pair(&world, always(Compensate), never);
    world.plan("do b", [Act::rejected()]);
    let partial = world.run_to_rest(&saga, 1).partial();
    assert_eq!(partial.assumed_absent, [""; 0]);
    // It is about failed attempts only: what is done is undone.
    let world = World::new();
    let mut saga = Saga::builder::<u64>("three").policy(always(Compensate));
    let n = saga.input();
    let b = saga.add(world.step("b").undo_failing(UndoRule::Never), n);
    let c = saga.add(world.step("c"), b);
    let saga = saga.returns(c).unwrap();
    world.plan("do c", [Act::rejected()]);
    world.run_to_rest(&saga, 1);
    assert_eq!(world.log(), ["do b", "do c", "undo b (done 1)"]);
}

#[test]
fn d2_a_doubt_that_rule_never_hid_is_not_listed_once_the_step_is_done() {
    let world = World::new();
    let never: Settings = |step| step.undo_failing(UndoRule::Never);
    let saga = pair(&world, always(RetryFromCheckpoint), never);
    world.plan("do b", [Act::lost()]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(world.log(), ["do a", "do b", "do b"]);
    assert_eq!(outcome.partial().assumed_absent, [""; 0]);
    assert_eq!(outcome.completed(), Some(2));
}

/// What is seen and decided when `done` of `total` steps are done and the next one fails.
fn by_progress(done: usize, total: usize) -> (u32, u32, RecoveryStrategy) {
    let world = World::new();
    let names: Vec<String> = (0..total).map(|step| format!("s{step}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let saga = chain(
        &world,
        RecoveryPolicy::by_progress().backoff(calls(9)),
        &names,
    );
    world.plan(&format!("do s{done}"), [Act::not_done()]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "completed");
    let decision = &decisions(&world)[0];
    let saw = &decision.why[0].saw;
    (saw.completed, saw.total, decision.strategy)
}

#[test]
fn d3_completion_is_counted_in_whole_numbers_and_boundaries_belong_to_the_upper_band() {
    assert_eq!(by_progress(3, 4), (3, 4, RetryFailed));
    assert_eq!(by_progress(6, 8), (6, 8, RetryFailed));
    assert_eq!(by_progress(5, 7), (5, 7, RetryFromCheckpoint));
    assert_eq!(by_progress(2, 4), (2, 4, RetryFromCheckpoint));
    assert_eq!(by_progress(1, 4), (1, 4, RetryFromCheckpoint));
    assert_eq!(by_progress(2, 9), (2, 9, RetryAll));
    assert_eq!(by_progress(1, 5), (1, 5, RetryAll));
    assert_eq!(by_progress(0, 4), (0, 4, RetryAll));
    // No failure of a step can be about a saga without steps; the policy can be asked all the same.
    let nothing = Situation::new("", FailureMode::SystemNetwork, 0, 0);
    let answer = RecoveryPolicy::by_progress().decide(&nothing);
    assert_eq!(answer.says, RetryFailed);
    // Where 32 bits would wrap around.
    let most = Situation::new("", FailureMode::SystemNetwork, u32::MAX / 2, u32::MAX);
    let answer = RecoveryPolicy::by_progress().decide(&most);
    assert_eq!(answer.says, RetryFromCheckpoint);
}

#[test]
fn d3_only_what_is_done_now_counts() {
    let world = World::new();
    let names = ["a", "b", "c", "d", "e"];
    let policy = RecoveryPolicy::by_progress().backoff(calls(9));
    let saga = chain(&world, policy, &names);
    // `a` is done when `b` fails; it is undone then, and fails itself in its second round.
    world.plan("do a", [Act::Done(1), Act::not_done()]);
    world.plan("do b", [Act::not_done()]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "completed");
    let seen: Vec<_> = decisions(&world)
        .iter()
        .map(|decision| (decision.why[0].saw.completed, decision.strategy))
        .collect();
    assert_eq!(seen, [(1, RetryAll), (0, RetryAll)]);
}

/// `before`, then the `pivot`, then `after`.
fn pivoted(world: &World, policy: RecoveryPolicy) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("pivoted").policy(policy);
    let n = saga.input();
    let before = saga.add(world.step("before").retry(Retry::none()), n);
    let pivot = saga.add(world.step("pivot").pivot().retry(Retry::none()), before);
    let after = saga.add(world.step("after").retry(Retry::none()), pivot);
    saga.returns(after).unwrap()
}

#[test]
fn d4_past_the_pivot_a_policy_that_goes_back_gets_manual_and_is_told_why() {
    for strategy in [Compensate, RetryAll, RetryFromCheckpoint] {
        // The pivot is done, or in doubt.
        for (failing, act) in [("do after", Act::rejected()), ("do pivot", Act::lost())] {
            let world = World::new();
            let saga = pivoted(&world, always(strategy));
            world.plan(failing, [act]);
            let partial = world.run_to_rest(&saga, 1).partial();
            assert_eq!(partial.parked.as_ref().unwrap().reason, ParkReason::Manual);
            assert_eq!(partial.strategy, Some(Manual));
            assert_eq!(partial.compensations, []);
            let why = &partial.why[0];
            assert!(why.saw.past_pivot);
            assert_eq!(why.says, strategy);
            let overruled =
                format!("{strategy} is not available past the pivot: nothing goes back there");
            assert_eq!(why.overruled.as_ref(), Some(&overruled));
            assert!(
                why.to_string()
                    .ends_with(&format!("; overruled: {overruled}"))
            );
            let message = partial.parked.unwrap().message;
            assert!(message.ends_with(&overruled), "{message}");
        }
    }
}

#[test]
fn d4_a_pivot_that_is_not_done_is_not_past() {
    let world = World::new();
    let saga = pivoted(&world, always(Compensate));
    world.plan("do pivot", [Act::rejected()]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "compensated");
    assert!(!outcome.partial().why[0].saw.past_pivot);
    assert_eq!(
        world.log(),
        ["do before", "do pivot", "undo before (done 1)"]
    );
}

#[test]
fn d4_going_forward_stays_available_past_the_pivot() {
    for failing in ["do pivot", "do after"] {
        let world = World::new();
        let saga = pivoted(&world, always(RetryFailed));
        world.plan(failing, [Act::lost()]);
        assert_eq!(world.run_to_rest(&saga, 1).word(), "completed");
        assert_eq!(world.calls_of(failing).len(), 2);
    }
}

#[test]
fn d4_a_cancel_past_the_pivot_comes_too_late() {
    let world = World::new();
    let saga = pivoted(&world, always(Compensate));
    world.plan("do after", [Act::Done(3).after(5 * SECOND)]);
    let outcome = world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        let told = coordinator.cancel(run.id(), "ann", "too late").await;
        assert_eq!(told.unwrap(), CancelTold::TooLate);
        run.outcome().await.unwrap()
    });
    assert_eq!(outcome.completed(), Some(3));
    assert_eq!(
        world.log(),
        ["do before", "do pivot", "do after", "woke after"]
    );
}

#[test]
fn d4_a_deadline_past_the_pivot_is_only_reported() {
    // It passes while a later step runs, and while the pivot itself runs.
    for (slow, woke) in [("do after", "woke after"), ("do pivot", "woke pivot")] {
        let world = World::new();
        let saga = pivoted(&world, always(Compensate));
        world.plan(slow, [Act::Done(1).after(5 * SECOND)]);
        let outcome = world.life(&saga, async |coordinator| {
            let options = StartOptions::new().deadline(2 * SECOND);
            let run = coordinator.start_with(&saga, "r", 1, options).await;
            run.unwrap().outcome().await.unwrap()
        });
        assert_eq!(outcome.word(), "completed", "{slow}");
        let partial = outcome.partial();
        assert!(partial.deadline_passed);
        assert_eq!(decisions(&world), []);
        let mut log = world.log();
        log.retain(|line| line != woke);
        assert_eq!(log, ["do before", "do pivot", "do after"]);
    }
}

#[test]
fn d4_verbs_that_go_back_are_refused_past_the_pivot() {
    for (failing, act) in [("do after", Act::rejected()), ("do pivot", Act::lost())] {
        let world = World::new();
        let saga = pivoted(&world, always(Manual));
        world.plan(failing, [act]);
        assert_eq!(world.run_to_rest(&saga, 1).word(), "parked");
        let before = world.story();
        world.life(&saga, async |coordinator| {
            let run = "r".into();
            for strategy in [Compensate, RetryAll, RetryFromCheckpoint] {
                let refused = coordinator.retry(&run, strategy, "ann", "back").await;
                let refused = refused.unwrap_err().to_string();
                let (why, legal) = refused.split_once(" (it takes now: ").unwrap();
                assert_eq!(
                    why,
                    format!(
                        "run `r`: {strategy} is not available past the pivot: nothing goes back there"
                    )
                );
                assert!(legal.starts_with("retry, cancel, "), "{legal}");
            }
        });
        let mut after = world.story();
        // Looking at the run took it over; nothing else happened.
        after.retain(|event| !event.starts_with("claimed"));
        assert_eq!(after, before);
    }
}

/// What the policy answers when `b` of `a` and `b` ends so.
fn told_by(policy: RecoveryPolicy, act: Act) -> (String, RecoveryStrategy) {
    let world = World::new();
    let saga = chain(&world, policy, &["a", "b"]);
    world.plan("do b", [act]);
    world.run_to_rest(&saga, 1);
    let decision = &decisions(&world)[0];
    (decision.why[0].rule.clone(), decision.strategy)
}

fn saga_policy() -> RecoveryPolicy {
    RecoveryPolicy::saga().backoff(calls(9))
}

#[test]
fn d5_the_preset_saga_before_the_pivot() {
    let told = |policy: RecoveryPolicy, act| {
        let (rule, strategy) = told_by(policy, act);
        format!("{rule}: {strategy}")
    };
    assert_eq!(told(saga_policy(), terminal()), "terminal: manual");
    assert_eq!(
        told(saga_policy(), Act::rejected()),
        "not retryable: compensate"
    );
    let used_up = saga_policy().max_recoveries(0);
    assert_eq!(told(used_up, Act::not_done()), "used up: compensate");
    assert_eq!(
        told(saga_policy(), Act::not_done()),
        "otherwise: retry_failed"
    );
    // The first rule that holds decides: terminal comes before the others.
    let used_up = saga_policy().max_recoveries(0);
    assert_eq!(told(used_up, terminal()), "terminal: manual");
}

#[test]
fn d5_the_preset_saga_compensates_when_time_is_used_up() {
    let world = World::new();
    let saga = chain(&world, saga_policy(), &["a", "b", "c"]);
    world.plan("do b", [Act::Done(2).after(5 * SECOND)]);
    let outcome = world.life(&saga, async |coordinator| {
        let options = StartOptions::new().deadline(2 * SECOND);
        let run = coordinator.start_with(&saga, "r", 1, options).await;
        run.unwrap().outcome().await.unwrap()
    });
    assert_eq!(outcome.word(), "compensated");
    let partial = outcome.partial();
    assert_eq!(answer(&partial), ("used up", Compensate));
    assert!(partial.why[0].saw.time_used_up);
    assert_eq!(
        world.log(),
        [
            "do a",
            "do b",
            "woke b",
            "undo b (done 2)",
            "undo a (done 1)"
        ]
    );
}

#[test]
fn d5_the_preset_saga_past_the_pivot() {
    let told = |act| {
        let world = World::new();
        let saga = pivoted(&world, saga_policy());
        world.plan("do after", [act]);
        world.run_to_rest(&saga, 1);
        let decision = &decisions(&world)[0];
        assert_eq!(decision.why[0].overruled, None);
        format!("{}: {}", decision.why[0].rule, decision.strategy)
    };
    assert_eq!(
        told(Act::not_done()),
        "retryable past the pivot: retry_failed"
    );
    assert_eq!(told(Act::rejected()), "past the pivot: manual");
    assert_eq!(told(terminal()), "terminal: manual");
}

#[test]
fn d5_the_preset_saga_is_the_default() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("plain");
    let n = saga.input();
    let a = saga.add(world.step("a"), n);
    let saga = saga.returns(a).unwrap();
    world.plan("do a", [Act::rejected()]);
    let partial = world.run_to_rest(&saga, 1).partial();
    assert_eq!(partial.why[0].policy, "saga");
    assert_eq!(answer(&partial), ("not retryable", Compensate));
}

#[test]
fn d5_the_preset_by_progress() {
    let policy = || RecoveryPolicy::by_progress().backoff(calls(9));
    let told = |policy: RecoveryPolicy, act| {
        let (rule, strategy) = told_by(policy, act);
        format!("{rule}: {strategy}")
    };
    assert_eq!(told(policy(), terminal()), "terminal: manual");
    assert_eq!(told(policy(), Act::rejected()), "not retryable: manual");
    let used_up = policy().max_recoveries(0);
    assert_eq!(told(used_up, Act::not_done()), "used up: manual");
    assert_eq!(
        told(policy(), Act::not_done()),
        "a quarter done: retry_from_checkpoint"
    );
    assert_eq!(by_progress(3, 4).2, RetryFailed);
    assert_eq!(by_progress(0, 4).2, RetryAll);
    // Time that is used up is put to it as well.
    let world = World::new();
    let saga = chain(&world, policy(), &["a", "b"]);
    world.plan("do a", [Act::Done(2).after(5 * SECOND)]);
    let outcome = world.life(&saga, async |coordinator| {
        let options = StartOptions::new().deadline(2 * SECOND);
        let run = coordinator.start_with(&saga, "r", 1, options).await;
        run.unwrap().outcome().await.unwrap()
    });
    assert_eq!(outcome.word(), "parked");
    assert_eq!(answer(&outcome.partial()), ("used up", Manual));
}

#[test]
fn d5_a_cancel_is_never_put_to_a_policy() {
    let world = World::new();
    let saga = chain(&world, always(Manual), &["a", "b"]);
    world.plan("do b", [Act::Done(2).after(5 * SECOND)]);
    let outcome = world.life(&saga, async |coordinator| {
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        coordinator.cancel(run.id(), "ann", "a slip").await.unwrap();
        run.outcome().await.unwrap()
    });
    assert_eq!(outcome.word(), "compensated");
    let decisions = decisions(&world);
    assert_eq!(decisions.len(), 1);
    assert_eq!(decisions[0].cause, Cause::Cancel);
    assert_eq!(decisions[0].strategy, Compensate);
    assert_eq!(decisions[0].why, []);
}

#[test]
fn d6_each_recovery_grants_attempts_anew_and_waits_with_a_backoff_of_its_own() {
    let world = World::new();
    let backoff = calls(9).initial(10 * SECOND);
    let policy = RecoveryPolicy::saga().backoff(backoff);
    let mut saga = Saga::builder::<u64>("alone").policy(policy);
    let n = saga.input();
    let a = saga.add(world.step("a").retry(calls(2)), n);
    let saga = saga.returns(a).unwrap();
    world.plan("do a", (0..99).map(|_| Act::not_done()));
    let outcome = world.run_to_rest(&saga, 1);
    // Three recoveries, two calls each after the first two.
    let at: Vec<_> = world.calls().iter().map(|call| call.at.as_secs()).collect();
    assert_eq!(at, [0, 1, 11, 12, 22, 23, 33, 34]);
    assert_eq!(outcome.word(), "compensated");
    let partial = outcome.partial();
    assert_eq!(partial.recoveries, 3);
    assert_eq!(partial.step("a").unwrap().attempts, 8);
    assert_eq!(partial.step("a").unwrap().history.len(), 8);
    let recoveries: Vec<_> = decisions(&world).iter().map(|it| it.recovery).collect();
    assert_eq!(recoveries, [1, 2, 3, 0]);
    assert_eq!(answer(&partial), ("used up", Compensate));
}

#[test]
fn d6_the_default_backoff_of_recoveries_doubles_from_one_second_within_its_jitter() {
    let world = World::new();
    let saga = chain(&world, RecoveryPolicy::saga(), &["a"]);
    world.plan("do a", (0..99).map(|_| Act::not_done()));
    world.run_to_rest(&saga, 1);
    let at: Vec<_> = world.calls().iter().map(|call| call.at).collect();
    assert_eq!(at.len(), 4);
    for (waited, longest) in at.windows(2).zip([SECOND, 2 * SECOND, 4 * SECOND]) {
        let waited = waited[1].saturating_sub(waited[0]);
        assert!(waited >= longest / 2 && waited <= longest, "{at:?}");
    }
}

#[test]
fn d6_an_operators_retry_grants_attempts_anew_and_resets_the_count_of_recoveries() {
    let world = World::new();
    let policy = RecoveryPolicy::new("one recovery", RetryFailed)
        .rule(Rule::new("used up", Manual).when(Condition::UsedUp))
        .max_recoveries(1)
        .backoff(calls(9));
    let mut saga = Saga::builder::<u64>("alone").policy(policy);
    let n = saga.input();
    let a = saga.add(world.step("a").retry(calls(2)), n);
    let saga = saga.returns(a).unwrap();
    world.plan("do a", (0..99).map(|_| Act::not_done()));
    assert_eq!(world.run_to_rest(&saga, 1).word(), "parked");
    assert_eq!(world.log().len(), 4);
    let partial = world.life(&saga, async |coordinator| {
        let run = "r".into();
        let retried = coordinator.retry(&run, RetryFailed, "ann", "it is up again");
        retried.await.unwrap();
        let handle = coordinator.attach(&saga, &run).await.unwrap().unwrap();
        handle.outcome().await.unwrap().partial()
    });
    assert_eq!(world.log().len(), 8);
    let all: Vec<_> = decisions(&world)
        .iter()
        .map(|it| (it.strategy, it.recovery))
        .collect();
    assert_eq!(
        all,
        [
            (RetryFailed, 1),
            (Manual, 0),
            (RetryFailed, 0),
            (RetryFailed, 1),
            (Manual, 0)
        ]
    );
    let cause = Cause::Operator {
        by: "ann".to_owned(),
        reason: "it is up again".to_owned(),
    };
    assert_eq!(decisions(&world)[2].cause, cause);
    // Totals are kept: two recoveries, eight attempts.
    assert_eq!(partial.recoveries, 2);
    assert_eq!(partial.step("a").unwrap().attempts, 8);
}

#[test]
fn d6_recoveries_are_bounded_whatever_the_policy_says() {
    for strategy in [RetryFailed, RetryFromCheckpoint, RetryAll] {
        let world = World::new();
        let saga = chain(&world, always(strategy).max_recoveries(2), &["a"]);
        world.plan("do a", (0..9).map(|_| Act::not_done()));
        let outcome = world.run_to_rest(&saga, 1);
        assert_eq!(outcome.word(), "parked");
        assert_eq!(world.log(), ["do a", "do a", "do a"]);
        let partial = outcome.partial();
        assert_eq!(partial.recoveries, 2);
        assert_eq!(partial.why[0].says, strategy);
        assert_eq!(
            partial.why[0].overruled,
            Some(format!(
                "{strategy} is not available: all 2 recoveries are used up"
            ))
        );
    }
}
