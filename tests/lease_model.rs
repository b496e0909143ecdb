//! The lease protocol of a fleet (`docs/fleet.md`), explored in all its interleavings: rules W1 to W4.
//!
//! Each protection is also left out once, and then the checker has to find what that breaks.

// Helpers outside the test functions may fail loudly, too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "lease/model.rs"]
mod model;

use model::{Bounds, Flaw, Protocol};
use stateright::{Checker, HasDiscoveries, Model};

/// Explores everything within the bounds, and asserts every property, and that every example is found.
fn holds(title: &str, bounds: Bounds) {
    let checker = Protocol::new(bounds).checker().spawn_bfs().join();
    println!(
        "{title}: {} states, {} transitions, {} steps deep at most",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth()
    );
    assert!(checker.is_done(), "{title} was not explored to its end");
    checker.assert_properties();
}

/// Explores the protocol with a flaw until the property that it breaks is broken.
fn breaks(flaw: Flaw, property: &'static str, bounds: Bounds) {
    let protocol = Protocol::new(bounds).flawed(flaw);
    let found = HasDiscoveries::AnyOf([property].into());
    let checker = protocol.checker().finish_when(found).spawn_bfs().join();
    let path = checker
        .discovery(property)
        .unwrap_or_else(|| panic!("with {flaw:?}, {property:?} still holds"));
    let steps = path.into_actions();
    println!("{flaw:?} breaks {property:?} in {} steps:", steps.len());
    for step in steps {
        println!("    {step:?}");
    }
}

const TWO: Bounds = Bounds {
    workers: 2,
    runs: 1,
    lease: 2,
    claims: 2,
    rounds: 1,
    lost_answers: 0,
    timeouts: 0,
    failovers: 0,
    leaving: false,
};

const THREE: Bounds = Bounds { workers: 3, ..TWO };

#[test]
fn three_workers_take_over_from_each_other() {
    let bounds = Bounds {
        lease: 3,
        leaving: true,
        ..THREE
    };
    holds("3 workers, a lease of 3 ticks, hand-over", bounds);
}

#[test]
fn commits_whose_answer_is_lost_do_no_harm() {
    holds(
        "2 workers, 1 lost answer",
        Bounds {
            lost_answers: 1,
            ..TWO
        },
    );
}

#[test]
fn calls_that_are_given_up_do_no_harm() {
    holds("2 workers, 1 call given up", Bounds { timeouts: 1, ..TWO });
}

#[test]
fn a_standby_that_takes_over_does_no_harm() {
    let bounds = Bounds {
        failovers: 1,
        ..TWO
    };
    holds("2 workers, 1 fail-over", bounds);
}

#[test]
#[ignore = "two million states: minutes, unless with --release"]
fn three_workers_keep_every_promise_further_on() {
    let both = Bounds {
        lost_answers: 1,
        timeouts: 1,
        ..TWO
    };
    holds("2 workers, 1 lost answer, 1 call given up", both);
    holds(
        "3 workers, 1 lost answer",
        Bounds {
            lost_answers: 1,
            ..THREE
        },
    );
    holds(
        "3 workers, 1 call given up",
        Bounds {
            timeouts: 1,
            ..THREE
        },
    );
    holds("3 workers, 3 claims", Bounds { claims: 3, ..THREE });
    holds(
        "2 workers, 2 rounds, 1 call given up",
        Bounds {
            rounds: 2,
            timeouts: 1,
            ..TWO
        },
    );
    let failing = Bounds {
        failovers: 1,
        lost_answers: 1,
        ..TWO
    };
    holds("2 workers, 1 fail-over, 1 lost answer", failing);
    holds(
        "2 workers, 2 runs, 1 claim each",
        Bounds {
            runs: 2,
            claims: 1,
            ..TWO
        },
    );
    holds(
        "3 workers, 2 runs, 1 claim each",
        Bounds {
            runs: 2,
            claims: 1,
            ..THREE
        },
    );
}

#[test]
fn w1_claims_and_results_have_to_be_conditional() {
    breaks(
        Flaw::ClaimsWithoutCondition,
        "nothing comes after an end",
        TWO,
    );
    breaks(Flaw::AppendsWithoutCondition, "only the owner writes", TWO);
}

#[test]
fn w1_a_worker_has_to_stop_by_its_own_clock_before_its_lease_ends() {
    let property = "no call without a lease";
    breaks(Flaw::NeverStopsItself, property, TWO);
    breaks(Flaw::CountsFromTheAnswer, property, TWO);
    breaks(Flaw::RenewsWhatIsOver, property, TWO);
}

#[test]
fn w2_nothing_may_rest_on_an_append_that_was_not_acknowledged() {
    let unknown = Bounds {
        failovers: 1,
        lost_answers: 1,
        ..TWO
    };
    breaks(
        Flaw::ActsBeforeAcknowledged,
        "an effect has an intent in the journal",
        TWO,
    );
    breaks(
        Flaw::OwnRowIsEnough,
        "what was acknowledged is never lost",
        unknown,
    );
    breaks(
        Flaw::SendsClaimsAgain,
        "an effect has an intent in the journal",
        unknown,
    );
}

#[test]
fn w3_a_worker_whose_append_collided_has_to_stop() {
    breaks(Flaw::IgnoresCollisions, "no call after a collision", TWO);
}

#[test]
fn w4_fences_have_to_rise_and_to_be_looked_at() {
    let property = "no stale call is let in";
    breaks(Flaw::ClaimsWithoutFence, property, TWO);
    breaks(Flaw::BarrierIgnoresFences, property, TWO);
}

#[test]
fn w4_keys_have_to_be_remembered_also_those_of_undos_that_found_nothing() {
    let bounds = Bounds { timeouts: 1, ..TWO };
    breaks(
        Flaw::ParticipantForgetsKeys,
        "a key takes effect once at most",
        bounds,
    );
    breaks(Flaw::EmptyUndoLeavesNoTrace, "an end is true", bounds);
}
