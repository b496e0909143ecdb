//! A step that waits takes one signal each time it waits, and no more (rule I5).
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "what the tests share is outside of their functions"
)]
#![cfg(feature = "testkit")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use amends::store::MemoryStore;
use amends::testkit::VirtualClock;
use amends::{
    Coordinator, RecoveryPolicy, RecoveryStrategy, Retry, Saga, StepError, StepStatus, step_with,
    wait_for,
};

#[tokio::test(start_paused = true)]
async fn a_signal_that_came_before_the_wait_is_not_taken_again_in_the_next_round() {
    let calls = Arc::new(AtomicU32::new(0));
    let again = RecoveryPolicy::new("again", RecoveryStrategy::RetryAll);
    let mut saga = Saga::builder::<u64>("order").policy(again);
    let early = saga.add(wait_for::<u64>("early"), ());
    let paid = saga.add(wait_for::<u64>("paid").after(early), ());
    let pay = step_with(
        "pay",
        Arc::clone(&calls),
        async |calls: &Arc<AtomicU32>, _cx, paid: &u64| match calls.fetch_add(1, Ordering::SeqCst) {
            0 => Err(StepError::rejected("not this time")),
            _ => Ok(*paid),
        },
        async |_, _cx, _paid, _effect| Ok(()),
    );
    let pay = saga.add(pay.retry(Retry::none()), paid);
    let saga = saga.returns(pay).unwrap();
    let coordinator = Coordinator::builder(MemoryStore::new())
        .register(&saga)
        .clock(VirtualClock::new())
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", 0).await.unwrap();

    // It lies there before its wait begins, and is taken when it does.
    coordinator.signal(run.id(), "paid", 1_u64).await.unwrap();
    coordinator.signal(run.id(), "early", 1_u64).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    coordinator.signal(run.id(), "early", 2_u64).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    let partial = coordinator.get(run.id()).await.unwrap().unwrap();
    assert_eq!(partial.step("paid").unwrap().status, StepStatus::Waiting);

    coordinator.signal(run.id(), "paid", 7_u64).await.unwrap();
    assert_eq!(run.outcome().await.unwrap().completed(), Some(7));
}
