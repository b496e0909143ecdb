//! A definition is checked as a whole: every fault at once, and a fingerprint that never moves by accident.
// Helper functions outside of tests unwrap too: a definition that fails to build is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod faults;
mod fingerprint;
mod wiring_at_run_time;

use amends::{Saga, SagaBuilder, StepContext, StepSpec, irreversible_fn, read_only_fn, step_fn};

fn work(name: &str) -> StepSpec<(), ()> {
    step_fn(
        name,
        async |_: &StepContext, (): &()| Ok(()),
        async |_, (), _| Ok(()),
    )
}

fn look(name: &str) -> StepSpec<(), ()> {
    read_only_fn(name, async |_: &StepContext, (): &()| Ok(()))
}

fn send(name: &str) -> StepSpec<(), ()> {
    irreversible_fn(name, async |_: &StepContext, (): &()| Ok(()))
}

fn builder() -> SagaBuilder<()> {
    Saga::builder::<()>("saga")
}

fn built(builder: SagaBuilder<()>) -> Saga<(), ()> {
    builder.returns(()).unwrap()
}
