//! A lock outlives its run by no more than its time, and the old owner of a run gets nothing by it.

// A test may fail by a panic, in its helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![cfg(all(feature = "sqlite", feature = "testkit"))]

mod isolation;

use std::sync::Arc;

use amends::failure::FailedEffect::NotDone;
use amends::store::MemoryStore;
use amends::{FailureMode, OutcomeError};
use isolation::{Bank, MS, Pay, patient};

/// A process with virtual time, which is killed at the end.
fn process<T>(body: impl AsyncFnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(body())
}

#[test]
fn a_dead_runs_lock_is_taken_over_at_its_deadline_and_the_dead_one_learns_that_it_lost_it() {
    let store = Arc::new(MemoryStore::new());
    let mut bank = None;
    process(async || {
        let bank = bank.insert(Bank::new());
        let saga = bank.saga(patient());
        let coordinator = bank.coordinator(&store, &saga).await;
        let pay = Pay {
            lock_for: 10_000,
            approve_after: 5_000,
            ..Pay::new(30)
        };
        coordinator.start(&saga, "first", pay).await.unwrap();
        tokio::time::sleep(MS(1_000)).await;
    });
    let bank = bank.unwrap();
    process(async || {
        bank.goes_on_at(8_950);
        let saga = bank.saga(patient());
        let others = bank.coordinator(&Arc::new(MemoryStore::new()), &saga).await;
        let pay = Pay {
            approve_after: 20_000,
            ..Pay::new(20)
        };
        let second = others.start(&saga, "second", pay).await.unwrap();
        tokio::time::sleep(MS(5_000)).await;

        // The first run comes back and finds its step `approve` interrupted.
        let coordinator = bank.coordinator(&store, &saga).await;
        let first = coordinator
            .attach(&saga, &"first".into())
            .await
            .unwrap()
            .unwrap();
        let first = first.outcome().await.unwrap();
        assert_eq!(first.word(), "compensated");
        let partial = first.partial();
        assert_eq!(partial.failing_step.as_deref(), Some("approve"));
        let failure = partial.step("approve").unwrap().failure.clone().unwrap();
        assert_eq!(failure.mode, FailureMode::StepState);
        assert_eq!((failure.effect, failure.retryable), (NotDone, false));
        assert_eq!(bank.lock().unwrap().run.as_str(), "second");

        let second = second.outcome().await.unwrap();
        assert_eq!(second.word(), "completed");
        let withdraw = second.partial().step("withdraw").unwrap().clone();
        let waits: Vec<_> = withdraw
            .history
            .iter()
            .map(|attempt| {
                attempt
                    .failure
                    .as_ref()
                    .and_then(|failure| failure.retry_after)
            })
            .collect();
        assert_eq!(waits, [None, Some(MS(950))]);
    });
    let refused = "second refused: run `first` holds the lock until 2026-01-01T00:00:10.000000Z";
    assert_eq!(
        bank.log(),
        [
            "0 first took fresh, moved true",
            // The deadline is 1050 ms away, which is not near: the step's own wait of 100 ms.
            &format!("8950 {refused}"),
            // Now it is near, and the wait is until then.
            &format!("9050 {refused}"),
            "10000 second took over from first, moved true",
            "18950 first refused: run `first` does not hold the lock any more: run `second` does",
            "18950 first undid the approval",
            "18950 first undid done, lock Kept, moved back 30",
            "30000 second approved",
        ]
    );
    assert_eq!((bank.balance(), bank.lock()), (80, None));
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_lost_the_run_without_knowing_it_is_refused_by_its_stale_fence() {
    let bank = Bank::new();
    let store = Arc::new(MemoryStore::new());
    let saga = bank.saga(patient());
    let old = bank.coordinator(&store, &saga).await;
    let pay = Pay {
        slow_fence: 1,
        approve_after: 9_000,
        ..Pay::new(30)
    };
    let lost = old.start(&saga, "run", pay).await.unwrap();
    tokio::time::sleep(MS(1_000)).await;

    let new = bank.coordinator(&store, &saga).await;
    let run = new.attach(&saga, &"run".into()).await.unwrap().unwrap();
    tokio::time::sleep(MS(1)).await;
    assert_eq!(bank.lock().unwrap().fence, 2);
    let answer = lost.outcome().await;
    assert!(
        matches!(answer, Err(OutcomeError::Lost { .. })),
        "{answer:?}"
    );
    assert_eq!(run.outcome().await.unwrap().word(), "completed");
    assert_eq!(
        bank.log(),
        [
            "1000 run took fresh, moved true",
            "5000 run refused: fence 1 of run `run` is stale: its lock was last held under fence 2",
            "10000 run approved",
        ]
    );
    assert_eq!((bank.balance(), bank.lock()), (70, None));
}
