//! Retry is a step's affair: what it mends is no failure of the run, and what it can't comes to recovery.
// Helper functions of tests aren't test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::time::Duration;

use amends::journal::Event;
use amends::*;
use common::*;

fn alone(world: &World, retry: Retry) -> Saga<u64, u64> {
    let mut saga =
        Saga::builder::<u64>("alone").policy(RecoveryPolicy::new("park", RecoveryStrategy::Manual));
    let n = saga.input();
    let a = saga.add(world.step("a").retry(retry), n);
    saga.returns(a).unwrap()
}

fn decided(world: &World) -> usize {
    let events = world.journal().concat();
    events
        .iter()
        .filter(|event| matches!(event, Event::Decided(_)))
        .count()
}

#[test]
fn a_step_that_fails_twice_and_then_succeeds_is_one_completed_step() {
    let world = World::new();
    let saga = alone(&world, calls(3));
    world.plan("do a", [Act::not_done(), Act::not_done()]);
    let partial = world.run_to_rest(&saga, 1).partial();
    assert_eq!((partial.completed, partial.total), (1, 1));
    assert_eq!(partial.step("a").unwrap().attempts, 3);
    assert_eq!(partial.recoveries, 0);
    assert_eq!(decided(&world), 0);
}

#[test]
fn max_attempts_are_calls_and_one_is_no_retry() {
    for (most, made) in [(1, 1), (2, 2), (3, 3)] {
        let world = World::new();
        let saga = alone(&world, calls(most));
        world.plan("do a", (0..9).map(|_| Act::not_done()));
        let partial = world.run_to_rest(&saga, 1).partial();
        assert_eq!(world.calls().len(), made);
        assert_eq!(partial.failure_mode, Some(FailureMode::SystemNetwork));
        assert_eq!(decided(&world), 1);
    }
}

#[test]
fn a_terminal_failure_is_never_retried_whatever_the_retry_says() {
    let world = World::new();
    let saga = alone(&world, calls(9).only([FailureMode::SystemNetwork]));
    let terminal = StepError::not_done("no").with_mode(FailureMode::BudgetExceeded);
    world.plan("do a", [Act::not_done(), Act::Fails(terminal)]);
    let partial = world.run_to_rest(&saga, 1).partial();
    assert_eq!(world.calls().len(), 2);
    assert_eq!(partial.failure_mode, Some(FailureMode::BudgetExceeded));
}

#[test]
fn the_wait_that_an_error_asks_for_goes_before_the_computed_one_but_not_before_the_limits() {
    let world = World::new();
    let saga = alone(&world, calls(3));
    let busy = || {
        let error = StepError::not_done("busy").with_mode(FailureMode::RateLimited);
        Act::Fails(error.retry_after(90 * SECOND))
    };
    world.plan("do a", (0..9).map(|_| busy()));
    assert_eq!(world.run_to_rest(&saga, 1).word(), "parked");
    let at: Vec<_> = world.calls().iter().map(|call| call.at).collect();
    assert_eq!(at, [Duration::ZERO, 90 * SECOND, 180 * SECOND]);
}
