//! Rules E1 to E7: what an attempt leaves in the world, and how a doubt is settled.

// The helpers of this file aren't test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::io;

use amends::failure::FailedEffect;
use amends::journal::{Event, ParkReason};
use amends::*;
use common::*;

/// A policy that leaves all as it is, so that a test can look at it.
fn park() -> RecoveryPolicy {
    RecoveryPolicy::new("park", RecoveryStrategy::Manual)
}

/// A policy that undoes all, whatever happened.
fn undo_all() -> RecoveryPolicy {
    RecoveryPolicy::new("undo all", RecoveryStrategy::Compensate)
}

type Settings = fn(StepSpec<u64, u64>) -> StepSpec<u64, u64>;

/// One step `a` with these settings, called once unless they say otherwise.
fn alone(world: &World, policy: RecoveryPolicy, settings: Settings) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("alone").policy(policy);
    let n = saga.input();
    let a = saga.add(settings(world.step("a").retry(Retry::none())), n);
    saga.returns(a).unwrap()
}

/// `a`, then `b` with these settings, called once unless they say otherwise.
fn pair(world: &World, policy: RecoveryPolicy, settings: Settings) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("pair").policy(policy);
    let n = saga.input();
    let a = saga.add(world.step("a"), n);
    let b = saga.add(settings(world.step("b").retry(Retry::none())), a);
    saga.returns(b).unwrap()
}

/// What one call of `a` that ends so leaves: its effect, and its failure's mode.
fn left_by(act: Act, settings: Settings) -> (EffectReport, FailureMode) {
    let world = World::new();
    let saga = alone(&world, park(), settings);
    world.plan("do a", [act]);
    let partial = world.run_to_rest(&saga, 1).partial();
    assert_eq!(world.log()[0], "do a");
    let step = partial.step("a").unwrap();
    (step.effect, step.failure.clone().unwrap().mode)
}

fn effect_of(partial: &PartialResult, step: &str) -> EffectReport {
    partial.step(step).unwrap().effect
}

#[derive(Debug, thiserror::Error)]
#[error("nobody has seen this before")]
struct Unheard;

#[test]
fn e1_an_attempt_that_returns_is_done_and_one_that_refuses_is_not_done() {
    let world = World::new();
    let saga = alone(&world, park(), |step| step);
    world.plan("do a", [Act::Done(7)]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(effect_of(&outcome.partial(), "a"), EffectReport::Done);
    assert_eq!(outcome.completed(), Some(7));
    assert_eq!(
        left_by(Act::rejected(), |step| step),
        (EffectReport::NotDone, FailureMode::StepValidation)
    );
}

#[test]
fn e1_a_time_out_a_panic_a_reset_and_a_lost_reply_are_in_doubt() {
    let in_doubt = |act, mode| assert_eq!(left_by(act, |step| step), (EffectReport::InDoubt, mode));
    in_doubt(Act::Hangs, FailureMode::StepTimeout);
    in_doubt(Act::Panics, FailureMode::StepLogic);
    let reset = io::Error::from(io::ErrorKind::ConnectionReset);
    in_doubt(Act::Fails(reset.into()), FailureMode::SystemNetwork);
    let cut_off = io::Error::from(io::ErrorKind::UnexpectedEof);
    in_doubt(Act::Fails(cut_off.into()), FailureMode::SystemNetwork);
}

#[test]
fn e1_a_future_that_is_dropped_is_in_doubt_and_no_failure() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("two")
        .policy(park())
        .siblings(Siblings::Stop { grace: SECOND });
    let n = saga.input();
    let a = saga.add(world.step("a"), n);
    let b = saga.add(world.step("b"), n);
    let saga = saga.returns((a, b)).unwrap();
    world.plan("do a", [Act::rejected()]);
    world.plan("do b", [Act::Hangs]);
    let partial = world.run_to_rest(&saga, 1).partial();
    assert_eq!(world.log(), ["do a", "do b", "dropped b"]);
    let b = partial.step("b").unwrap();
    assert_eq!(
        (b.effect, b.status),
        (EffectReport::InDoubt, StepStatus::Interrupted)
    );
    assert_eq!(b.failure, None);
    assert_eq!(
        world.story(),
        [
            "run started",
            "start a 1",
            "start b 1",
            "failed a",
            "interrupted b",
            "decided manual",
            "parked manual"
        ]
    );
}

#[test]
fn e1_an_attempt_that_a_crash_cut_off_is_in_doubt() {
    let world = World::new();
    let saga = pair(&world, undo_all(), |step| step);
    world.plan("do b", [Act::Hangs, Act::rejected()]);
    world.crash_at(&saga, 1, "do b");
    assert_eq!(world.recover(&saga).word(), "compensated");
    assert_eq!(
        world.log(),
        [
            "do a",
            "do b",
            "do b",
            "undo b (in doubt)",
            "undo a (done 1)"
        ]
    );
}

#[test]
fn e1_an_error_that_no_classifier_knows_is_in_doubt_and_not_retried() {
    let world = World::new();
    let saga = alone(&world, park(), |step| step.retry(calls(5)));
    world.plan("do a", [Act::Fails(Unheard.into())]);
    let partial = world.run_to_rest(&saga, 1).partial();
    assert_eq!(world.log(), ["do a"]);
    let failure = partial.step("a").unwrap().failure.clone().unwrap();
    assert_eq!(failure.effect, FailedEffect::InDoubt);
    assert!(!failure.retryable);
    assert_eq!(failure.mode, FailureMode::StepLogic);
}

#[test]
fn e1_a_stop_ends_an_attempt_with_its_reason_and_leaves_nothing() {
    let world = World::new();
    let saga = pair(&world, park(), |step| step);
    world.plan("do b", [Act::Fails(StepError::stop("enough"))]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "stopped");
    let partial = outcome.partial();
    assert_eq!(partial.stopped.as_deref(), Some("enough"));
    let b = partial.step("b").unwrap();
    assert_eq!(
        (b.status, b.effect),
        (StepStatus::Stopped, EffectReport::NotDone)
    );
    assert_eq!(b.failure, None);
}

#[test]
fn e2_the_steps_own_word_counts_without_any_declaration() {
    let own = || Act::Fails(StepError::not_done("nothing was sent"));
    assert_eq!(left_by(own(), |step| step).0, EffectReport::NotDone);
    let rejected = left_by(Act::rejected(), |step| step);
    assert_eq!(rejected.0, EffectReport::NotDone);
    // The step's word is about the very error that a classifier would see otherwise.
    let reset = || Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionReset));
    let said = Act::Fails(reset().not_done().unwrap_err());
    assert_eq!(
        left_by(said, |step| step),
        (EffectReport::NotDone, FailureMode::SystemNetwork)
    );
}

#[test]
fn e2_a_derived_not_done_counts_for_atomic_steps_only() {
    let refused = || Act::Fails(io::Error::from(io::ErrorKind::ConnectionRefused).into());
    let mode = FailureMode::ApiUnavailable;
    assert_eq!(
        left_by(refused(), StepSpec::atomic),
        (EffectReport::NotDone, mode.clone())
    );
    assert_eq!(
        left_by(refused(), |step| step),
        (EffectReport::InDoubt, mode)
    );
    // What a classifier takes for doubtful stays so for an atomic step.
    let reset = Act::Fails(io::Error::from(io::ErrorKind::ConnectionReset).into());
    assert_eq!(left_by(reset, StepSpec::atomic).0, EffectReport::InDoubt);
}

#[test]
fn e2_the_steps_word_is_about_its_own_attempt_only() {
    let world = World::new();
    let saga = alone(&world, park(), |step| step.retry(calls(2)));
    world.plan("do a", [Act::in_doubt(), Act::not_done()]);
    let partial = world.run_to_rest(&saga, 1).partial();
    let step = partial.step("a").unwrap();
    let said: Vec<_> = step
        .history
        .iter()
        .map(|taken| taken.failure.as_ref().unwrap().effect)
        .collect();
    assert_eq!(said, [FailedEffect::InDoubt, FailedEffect::NotDone]);
    assert_eq!(step.effect, EffectReport::InDoubt);
}

#[test]
fn e3_a_later_refusal_does_not_clear_an_earlier_doubt() {
    let world = World::new();
    let saga = alone(&world, undo_all(), |step| step.retry(calls(3)));
    world.plan("do a", [Act::in_doubt(), Act::not_done(), Act::rejected()]);
    let partial = world.run_to_rest(&saga, 1).partial();
    assert_eq!(world.log(), ["do a", "do a", "do a", "undo a (in doubt)"]);
    assert_eq!(partial.why[0].saw.effect, FailedEffect::InDoubt);
    assert_eq!(partial.compensations[0].effect, EffectReport::InDoubt);
    // Without the doubt there is nothing to undo.
    let world = World::new();
    let saga = alone(&world, undo_all(), |step| step.retry(calls(3)));
    world.plan("do a", [Act::not_done(), Act::not_done(), Act::rejected()]);
    let partial = world.run_to_rest(&saga, 1).partial();
    assert_eq!(world.log(), ["do a", "do a", "do a"]);
    assert_eq!(partial.why[0].saw.effect, FailedEffect::NotDone);
}

#[test]
fn e3_a_doubt_outlives_a_crash_and_a_recovery() {
    let world = World::new();
    let policy = RecoveryPolicy::saga().max_recoveries(1).backoff(calls(9));
    let saga = alone(&world, policy, |step| step);
    // In doubt by a crash; refused twice, with a recovery in between; then used up.
    world.plan("do a", [Act::Hangs, Act::not_done(), Act::not_done()]);
    world.crash_at(&saga, 1, "do a");
    assert_eq!(world.recover(&saga).word(), "compensated");
    assert_eq!(world.log(), ["do a", "do a", "do a", "undo a (in doubt)"]);
    assert_eq!(
        world.story(),
        [
            "run started",
            "start a 1",
            "claimed 2",
            "start a 1",
            "failed a",
            "decided retry_failed",
            "start a 1",
            "failed a",
            "decided compensate",
            "undo a 1",
            "undone a",
            "ended compensated"
        ]
    );
}

#[test]
fn e3_a_done_attempt_outweighs_an_earlier_doubt() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("pair");
    let n = saga.input();
    let a = saga.add(world.step("a").retry(calls(2)), n);
    let b = saga.add(world.step("b"), a);
    let saga = saga.returns(b).unwrap();
    world.plan("do a", [Act::in_doubt(), Act::Done(7)]);
    world.plan("do b", [Act::rejected()]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "compensated");
    assert_eq!(world.log(), ["do a", "do a", "do b", "undo a (done 7)"]);
}

#[test]
fn e3_a_probe_settles_a_doubt() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("alone").policy(undo_all());
    let n = saga.input();
    let a = world.step("a").probe(world.probe()).retry(Retry::none());
    let a = saga.add(a, n);
    let saga = saga.returns(a).unwrap();
    world.plan("do a", [Act::lost()]);
    world.plan("probe a", [Act::Says(Probed::Never)]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "compensated");
    assert_eq!(world.log(), ["do a", "probe a"]);
}

#[test]
fn e3_a_resolve_settles_a_doubt_either_way() {
    let resolved = |resolution: Resolution<u64>| {
        let world = World::new();
        let saga = pair(&world, park(), |step| step);
        world.plan("do b", [Act::lost(), Act::rejected()]);
        world.run_to_rest(&saga, 1);
        let outcome = world.life(&saga, async |coordinator| {
            let run = "r".into();
            let told = coordinator.resolve(&run, "b", resolution, "ann", "I asked");
            told.await.unwrap();
            let parked = coordinator.get(&run).await.unwrap().unwrap();
            let retried =
                coordinator.retry(&run, RecoveryStrategy::Compensate, "ann", "take it back");
            retried.await.unwrap();
            let handle = coordinator.attach(&saga, &run).await.unwrap().unwrap();
            let outcome = handle.ended().await.unwrap();
            (effect_of(&parked, "b"), outcome.word())
        });
        (outcome, world.log())
    };
    let (outcome, log) = resolved(Resolution::NotDone);
    assert_eq!(outcome, (EffectReport::NotDone, "compensated"));
    assert_eq!(log, ["do a", "do b", "undo a (done 1)"]);
    let (outcome, log) = resolved(Resolution::Done(70));
    assert_eq!(outcome, (EffectReport::Done, "compensated"));
    assert_eq!(log, ["do a", "do b", "undo b (done 70)", "undo a (done 1)"]);
}

#[test]
fn e3_an_undo_settles_a_doubt() {
    let world = World::new();
    let saga = alone(&world, undo_all(), |step| step);
    world.plan("do a", [Act::lost()]);
    let partial = world.run_to_rest(&saga, 1).partial();
    assert_eq!(effect_of(&partial, "a"), EffectReport::NotDone);
    assert_eq!(partial.outstanding, []);
}

/// `a`, then `b`, which is probed.
fn probed(world: &World, policy: RecoveryPolicy, retry: Retry) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("probed").policy(policy);
    let n = saga.input();
    let a = saga.add(world.step("a"), n);
    let b = saga.add(world.step("b").probe(world.probe()).retry(retry), a);
    saga.returns(b).unwrap()
}

#[test]
fn e4_the_probe_is_asked_before_the_policy_and_done_cancels_the_failure() {
    let world = World::new();
    let saga = probed(&world, undo_all(), Retry::none());
    world.plan("do b", [Act::lost()]);
    world.plan("probe b", [Act::Says(Probed::Done(70))]);
    assert_eq!(world.run_to_rest(&saga, 1).completed(), Some(70));
    assert_eq!(world.log(), ["do a", "do b", "probe b"]);
    assert_eq!(
        world.story(),
        [
            "run started",
            "start a 1",
            "done a",
            "start b 1",
            "failed b",
            "probed b: done",
            "ended completed"
        ]
    );
    let probe = &world.calls_of("probe b")[0];
    let execute = &world.calls_of("do b")[0];
    assert_eq!(probe.effect_key, execute.key);
    assert_eq!((&*probe.input, probe.round), ("1", 1));
}

#[test]
fn e4_only_never_spares_the_undo() {
    let undone_after = |answer: Act| {
        let world = World::new();
        let saga = probed(&world, undo_all(), Retry::none());
        world.plan("do b", [Act::lost()]);
        world.plan("probe b", [answer]);
        assert_eq!(world.run_to_rest(&saga, 1).word(), "compensated");
        let story = world.story();
        let probed = story.iter().position(|event| event.starts_with("probed b"));
        let decided = story.iter().position(|event| event == "decided compensate");
        assert!(probed.unwrap() < decided.unwrap(), "{story:?}");
        let mut log = world.log();
        log.retain(|line| !line.starts_with("dropped"));
        log
    };
    assert_eq!(
        undone_after(Act::Says(Probed::Never)),
        ["do a", "do b", "probe b", "undo a (done 1)"]
    );
    let in_doubt = [
        "do a",
        "do b",
        "probe b",
        "undo b (in doubt)",
        "undo a (done 1)",
    ];
    assert_eq!(undone_after(Act::Says(Probed::Unknown)), in_doubt);
    // A 404, a refusal, a panic and silence are no proof of absence.
    let not_found = io::Error::from(io::ErrorKind::NotFound);
    assert_eq!(undone_after(Act::Fails(not_found.into())), in_doubt);
    assert_eq!(undone_after(Act::rejected()), in_doubt);
    assert_eq!(undone_after(Act::not_done()), in_doubt);
    assert_eq!(undone_after(Act::Panics), in_doubt);
    assert_eq!(undone_after(Act::Hangs), in_doubt);
}

#[test]
fn e4_a_failing_probe_is_journalled_as_unknown_with_its_error() {
    let world = World::new();
    let saga = probed(&world, park(), Retry::none());
    world.plan("do b", [Act::lost()]);
    world.plan("probe b", [Act::not_done()]);
    world.run_to_rest(&saga, 1);
    let journal = world.journal().concat();
    let told: Vec<_> = journal
        .iter()
        .filter_map(|event| match event {
            Event::Probed { answer, error, .. } => Some((answer.clone(), error.as_deref())),
            _ => None,
        })
        .collect();
    assert_eq!(told, [(Probed::Unknown, Some("refused"))]);
}

#[test]
fn e4_a_step_in_doubt_is_probed_before_it_is_executed_again() {
    let world = World::new();
    let saga = probed(&world, undo_all(), calls(3));
    world.plan("do b", [Act::in_doubt(), Act::in_doubt(), Act::in_doubt()]);
    let never = || Act::Says(Probed::Never);
    world.plan("probe b", [Act::Says(Probed::Unknown), never(), never()]);
    assert_eq!(world.run_to_rest(&saga, 1).word(), "compensated");
    assert_eq!(
        world.log(),
        [
            "do a",
            "do b",
            "probe b",
            "do b",
            "probe b",
            "do b",
            "probe b",
            "undo a (done 1)"
        ]
    );
    // After a crash too, and there `Done` saves the call.
    let world = World::new();
    let saga = probed(&world, undo_all(), Retry::none());
    world.plan("do b", [Act::Hangs]);
    world.plan("probe b", [Act::Says(Probed::Done(70))]);
    world.crash_at(&saga, 1, "do b");
    assert_eq!(world.recover(&saga).completed(), Some(70));
    assert_eq!(world.log(), ["do a", "do b", "probe b"]);
}

/// A run that is parked with a doubt that nobody has probed: its definition changed when it crashed.
/// An operator has it undone under its own definition, and the probe answers so.
fn probed_while_unwinding(answer: Probed<u64>) -> (World, &'static str) {
    let world = World::new();
    let saga = probed(&world, park(), Retry::none());
    world.plan("do b", [Act::Hangs]);
    world.crash_at(&saga, 1, "do b");
    let mut other = Saga::builder::<u64>("probed");
    let n = other.input();
    let a = other.add(world.step("renamed"), n);
    let other = other.returns(a).unwrap();
    let parked = world.recover(&other).partial();
    assert_eq!(parked.parked.unwrap().reason, ParkReason::DefinitionChanged);
    world.plan("probe b", [Act::Says(answer)]);
    let end = world.life(&saga, async |coordinator| {
        let run = "r".into();
        let retried = coordinator.retry(&run, RecoveryStrategy::Compensate, "ann", "undo it");
        retried.await.unwrap();
        let handle = coordinator.attach(&saga, &run).await.unwrap().unwrap();
        handle.ended().await.unwrap().word()
    });
    (world, end)
}

#[test]
fn e4_once_unwinding_is_journalled_done_only_gives_the_undo_its_output() {
    let (world, end) = probed_while_unwinding(Probed::Done(70));
    assert_eq!(end, "compensated");
    assert_eq!(
        world.log(),
        [
            "do a",
            "do b",
            "probe b",
            "undo b (done 70)",
            "undo a (done 1)"
        ]
    );
    let (world, end) = probed_while_unwinding(Probed::Never);
    assert_eq!(end, "compensated");
    assert_eq!(world.log(), ["do a", "do b", "probe b", "undo a (done 1)"]);
    let (world, end) = probed_while_unwinding(Probed::Unknown);
    assert_eq!(end, "compensated");
    assert_eq!(
        world.log(),
        [
            "do a",
            "do b",
            "probe b",
            "undo b (in doubt)",
            "undo a (done 1)"
        ]
    );
}

#[test]
fn e5_an_undo_of_a_doubt_that_succeeds_makes_the_effect_absent_and_its_key_spent() {
    let world = World::new();
    let policy = RecoveryPolicy::new("again", RecoveryStrategy::RetryAll).backoff(calls(9));
    let saga = alone(&world, policy, |step| step);
    world.plan("do a", [Act::lost()]);
    assert_eq!(world.run_to_rest(&saga, 1).completed(), Some(2));
    assert_eq!(world.log(), ["do a", "undo a (in doubt)", "do a"]);
    let undo = &world.calls_of("undo a")[0];
    let executes = world.calls_of("do a");
    assert_eq!(undo.effect_key, executes[0].key);
    assert_ne!(executes[1].key, executes[0].key);
    assert_eq!((executes[0].round, executes[1].round), (1, 2));
}

#[test]
fn e5_the_documents_say_who_keeps_the_promise() {
    let docs = include_str!("../src/step/mod.rs").replace("\n/// ", " ");
    assert!(docs.contains("the effect is absent **and can't appear any more under this key**"));
    assert!(docs.contains(
        "For a remote participant only the participant itself can keep the second half, by \
         remembering keys that were undone and refusing them."
    ));
}

/// `look` is read-only, `a` comes after it.
fn looking(world: &World, policy: RecoveryPolicy) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("looking").policy(policy);
    let n = saga.input();
    let look = saga.add(world.read_only("look").retry(Retry::none()), n);
    let a = saga.add(world.step("a").retry(Retry::none()), look);
    saga.returns(a).unwrap()
}

#[test]
fn e6_a_read_only_action_is_never_in_doubt() {
    let in_doubt = [Act::Hangs, Act::Panics, Act::in_doubt(), Act::lost()];
    for act in in_doubt {
        let world = World::new();
        let saga = looking(&world, park());
        world.plan("do look", [act]);
        let partial = world.run_to_rest(&saga, 1).partial();
        assert_eq!(effect_of(&partial, "look"), EffectReport::NotDone);
        assert_eq!(partial.why[0].saw.effect, FailedEffect::NotDone);
        assert_eq!(partial.outstanding, []);
        let failure = partial.step("look").unwrap().failure.clone().unwrap();
        assert_eq!(failure.effect, FailedEffect::NotDone);
    }
    // Nor after a crash, nor when its future was dropped.
    let world = World::new();
    let saga = looking(&world, undo_all());
    world.plan("do look", [Act::Hangs, Act::rejected()]);
    world.crash_at(&saga, 1, "do look");
    let partial = world.recover(&saga).partial();
    assert_eq!(world.log(), ["do look", "do look"]);
    assert_eq!(partial.why[0].saw.effect, FailedEffect::NotDone);
    let world = World::new();
    let mut saga = Saga::builder::<u64>("two")
        .policy(park())
        .siblings(Siblings::Stop { grace: SECOND });
    let n = saga.input();
    let a = saga.add(world.step("a"), n);
    let look = saga.add(world.read_only("look"), n);
    let saga = saga.returns((a, look)).unwrap();
    world.plan("do a", [Act::rejected()]);
    world.plan("do look", [Act::Hangs]);
    let partial = world.run_to_rest(&saga, 1).partial();
    assert_eq!(world.log(), ["do a", "do look", "dropped look"]);
    assert_eq!(effect_of(&partial, "look"), EffectReport::NotDone);
}

#[test]
fn e6_a_read_only_action_is_never_undone() {
    let world = World::new();
    let saga = looking(&world, undo_all());
    world.plan("do a", [Act::lost()]);
    let partial = world.run_to_rest(&saga, 1).partial();
    assert_eq!(world.log(), ["do look", "do a", "undo a (in doubt)"]);
    assert_eq!(partial.compensations.len(), 1);
    assert_eq!(partial.outstanding, []);
}

/// `first`, then `stops` and `doubtful` side by side.
fn stopping(world: &World, settings: Settings) -> Saga<u64, (u64, u64)> {
    let mut saga = Saga::builder::<u64>("stopping").policy(park());
    let n = saga.input();
    let first = saga.add(world.step("first"), n);
    let stops = saga.add(world.step("stops"), first);
    let doubtful = settings(world.step("doubtful").retry(Retry::none()));
    let doubtful = saga.add(doubtful, first);
    world.plan("do stops", [Act::Fails(StepError::stop("enough"))]);
    saga.returns((stops, doubtful)).unwrap()
}

#[test]
fn e7_a_graceful_stop_undoes_doubts_before_the_run_ends() {
    let world = World::new();
    let saga = stopping(&world, |step| step);
    world.plan("do doubtful", [Act::lost().after(SECOND)]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "stopped");
    let partial = outcome.partial();
    assert_eq!(
        world.log(),
        [
            "do first",
            "do stops",
            "do doubtful",
            "woke doubtful",
            "undo doubtful (in doubt)"
        ]
    );
    assert_eq!(effect_of(&partial, "first"), EffectReport::Done);
    assert_eq!(effect_of(&partial, "doubtful"), EffectReport::NotDone);
    let standing: Vec<_> = partial
        .outstanding
        .iter()
        .map(|it| (&*it.step, it.effect))
        .collect();
    assert_eq!(standing, [("first", EffectReport::Done)]);
}

#[test]
fn e7_a_graceful_stop_asks_the_probe_first() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("stopping").policy(park());
    let n = saga.input();
    let stops = saga.add(world.step("stops"), n);
    let settings = world.step("doubtful").probe(world.probe()).retry(calls(2));
    let doubtful = saga.add(settings, n);
    let saga = saga.returns((stops, doubtful)).unwrap();
    world.plan(
        "do stops",
        [Act::Fails(StepError::stop("enough")).after(SECOND / 2)],
    );
    // The retry sleeps when the run is stopped: it is dropped, and its doubt stays.
    world.plan("do doubtful", [Act::in_doubt()]);
    world.plan("probe doubtful", [Act::Says(Probed::Never)]);
    let partial = world.run_to_rest(&saga, 1).partial();
    assert_eq!(
        world.log(),
        ["do stops", "do doubtful", "woke stops", "probe doubtful"]
    );
    assert_eq!(effect_of(&partial, "doubtful"), EffectReport::NotDone);
    assert_eq!(partial.stopped.as_deref(), Some("enough"));
}

#[test]
fn e7_a_run_whose_doubt_cannot_be_settled_parks_and_does_not_stop() {
    let world = World::new();
    let saga = stopping(&world, |step| step.compensation_retry(Retry::none()));
    world.plan("do doubtful", [Act::lost()]);
    world.plan("undo doubtful", [Act::rejected()]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "parked");
    let partial = outcome.partial();
    assert_eq!(
        partial.parked.as_ref().unwrap().reason,
        ParkReason::CompensationFailed
    );
    let standing: Vec<_> = partial
        .outstanding
        .iter()
        .map(|it| (&*it.step, it.effect))
        .collect();
    assert_eq!(
        standing,
        [
            ("first", EffectReport::Done),
            ("doubtful", EffectReport::InDoubt)
        ]
    );
}

#[test]
fn e7_no_run_completes_with_a_doubt() {
    // A doubt that a later attempt settles.
    let world = World::new();
    let saga = probed(&world, RecoveryPolicy::saga().backoff(calls(9)), calls(2));
    world.plan("do b", [Act::in_doubt(), Act::Done(5)]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(effect_of(&outcome.partial(), "b"), EffectReport::Done);
    assert_eq!(outcome.completed(), Some(5));
    // A doubt that nothing settles keeps the run from completing, past the pivot too.
    let world = World::new();
    let mut saga = Saga::builder::<u64>("pivoted").policy(park());
    let n = saga.input();
    let pivot = saga.add(world.step("pivot").pivot(), n);
    let last = saga.add(world.step("last").retry(Retry::none()), pivot);
    let saga = saga.returns(last).unwrap();
    world.plan("do last", [Act::lost()]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "parked");
    assert_eq!(effect_of(&outcome.partial(), "last"), EffectReport::InDoubt);
}

#[test]
fn e7_a_stop_past_the_pivot_settles_doubts_too() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("pivoted").policy(park());
    let n = saga.input();
    let pivot = saga.add(world.step("pivot").pivot(), n);
    let stops = saga.add(world.step("stops"), pivot);
    let doubtful = saga.add(world.step("doubtful").retry(Retry::none()), pivot);
    let saga = saga.returns((stops, doubtful)).unwrap();
    world.plan("do stops", [Act::Fails(StepError::stop("enough"))]);
    world.plan("do doubtful", [Act::lost()]);
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "stopped");
    assert_eq!(
        world.log(),
        [
            "do pivot",
            "do stops",
            "do doubtful",
            "undo doubtful (in doubt)"
        ]
    );
    assert_eq!(effect_of(&outcome.partial(), "pivot"), EffectReport::Done);
    assert_eq!(
        effect_of(&outcome.partial(), "doubtful"),
        EffectReport::NotDone
    );
}
