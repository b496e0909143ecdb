//! A time-out beyond the end of time is none: a call that waits is awaited, and its undo too.

use std::time::Duration;

use amends::store::MemoryStore;
use amends::{Coordinator, Outcome, Saga, Siblings, StepError, step_fn};

#[tokio::test]
async fn calls_that_may_take_for_ever_are_awaited_like_others() {
    let mut saga = Saga::builder::<u32>("patient")
        .version(1)
        .siblings(Siblings::Stop {
            grace: Duration::MAX,
        });
    let input = saga.input();
    let waits = step_fn(
        "waits",
        async |cx, number: &u32| {
            cx.heartbeat();
            tokio::task::yield_now().await;
            Ok(*number)
        },
        async |_cx, _number, _effect| {
            tokio::task::yield_now().await;
            Ok(())
        },
    );
    let waits = waits
        .timeout(Duration::MAX)
        .heartbeat(Duration::MAX)
        .compensation_timeout(Duration::MAX);
    let waited = saga.add(waits, input);
    let fails = step_fn(
        "fails",
        async |_cx, _number: &u32| Err::<u32, _>(StepError::rejected("no")),
        async |_cx, _number, _effect| Ok(()),
    );
    let failed = saga.add(fails, waited);
    let saga = saga.returns(failed).unwrap();
    let coordinator = Coordinator::builder(MemoryStore::new())
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "run", 1).await.unwrap();
    let Outcome::Compensated(partial) = run.outcome().await.unwrap() else {
        panic!("it was not undone")
    };
    assert_eq!(partial.compensations[0].step, "waits");
}
