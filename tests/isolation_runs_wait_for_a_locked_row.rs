//! Runs that want one row wait for each other's semantic lock, and an undo lets go of it.

// A test may fail by a panic, in its helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![cfg(all(feature = "sqlite", feature = "testkit"))]

mod isolation;

use std::sync::Arc;

use amends::failure::FailedEffect::NotDone;
use amends::store::MemoryStore;
use amends::{FailureMode, Retry};
use isolation::{Bank, MS, Pay, patient};

#[tokio::test(start_paused = true)]
async fn the_second_run_waits_until_the_first_lets_go_and_then_completes() {
    let bank = Bank::new();
    let saga = bank.saga(patient());
    let coordinator = bank.coordinator(&Arc::new(MemoryStore::new()), &saga).await;
    let pay = Pay {
        approve_after: 450,
        ..Pay::new(30)
    };
    let first = coordinator.start(&saga, "first", pay).await.unwrap();
    tokio::time::sleep(MS(50)).await;
    let second = coordinator
        .start(&saga, "second", Pay::new(20))
        .await
        .unwrap();
    assert_eq!(first.outcome().await.unwrap().word(), "completed");
    let second = second.outcome().await.unwrap();
    assert_eq!(second.word(), "completed");

    let refused = "second refused: run `first` holds the lock until 2026-01-01T00:10:00.000000Z";
    assert_eq!(
        bank.log(),
        [
            "0 first took fresh, moved true".to_owned(),
            format!("50 {refused}"),
            format!("150 {refused}"),
            format!("250 {refused}"),
            format!("350 {refused}"),
            "450 first approved".to_owned(),
            "450 second took fresh, moved true".to_owned(),
            "450 second approved".to_owned(),
        ]
    );
    assert_eq!((bank.balance(), bank.lock()), (50, None));

    let withdraw = second.partial().step("withdraw").unwrap().clone();
    assert_eq!((withdraw.attempts, withdraw.history.len()), (5, 4));
    for attempt in &withdraw.history {
        let failure = attempt.failure.as_ref().unwrap();
        assert_eq!(failure.mode, FailureMode::StepState);
        assert_eq!((failure.effect, failure.retryable), (NotDone, true));
        assert_eq!(failure.retry_after, None, "the deadline is far away");
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_attempt_finds_its_own_lock_and_does_not_wait_for_itself() {
    let bank = Bank::new();
    let saga = bank.saga(patient());
    let coordinator = bank.coordinator(&Arc::new(MemoryStore::new()), &saga).await;
    let pay = Pay {
        lose_answer: true,
        ..Pay::new(30)
    };
    let run = coordinator.start(&saga, "run", pay).await.unwrap();
    assert_eq!(run.outcome().await.unwrap().word(), "completed");
    assert_eq!(
        bank.log(),
        [
            "0 run took fresh, moved true",
            "100 run took again, moved false",
            "100 run approved",
        ]
    );
    assert_eq!((bank.balance(), bank.lock()), (70, None));
}

#[tokio::test(start_paused = true)]
async fn an_undo_lets_go_of_the_lock_and_the_next_run_gets_the_row_at_once() {
    let bank = Bank::new();
    let saga = bank.saga(Retry::none());
    let coordinator = bank.coordinator(&Arc::new(MemoryStore::new()), &saga).await;
    let pay = Pay {
        refuse: true,
        ..Pay::new(30)
    };
    let first = coordinator.start(&saga, "first", pay).await.unwrap();
    assert_eq!(first.outcome().await.unwrap().word(), "compensated");
    let second = coordinator
        .start(&saga, "second", Pay::new(20))
        .await
        .unwrap();
    assert_eq!(second.outcome().await.unwrap().word(), "completed");
    assert_eq!(
        bank.log(),
        [
            "0 first took fresh, moved true",
            "0 first undid done, lock Freed, moved back 30",
            "0 second took fresh, moved true",
            "0 second approved",
        ]
    );
    assert_eq!((bank.balance(), bank.lock()), (80, None));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_refused_for_good_leaves_nothing_and_frees_nothing() {
    let bank = Bank::new();
    let saga = bank.saga(Retry::none());
    let coordinator = bank.coordinator(&Arc::new(MemoryStore::new()), &saga).await;
    let pay = Pay {
        approve_after: 450,
        ..Pay::new(30)
    };
    let first = coordinator.start(&saga, "first", pay).await.unwrap();
    tokio::time::sleep(MS(50)).await;
    let second = coordinator
        .start(&saga, "second", Pay::new(20))
        .await
        .unwrap();
    let refused = second.outcome().await.unwrap();
    assert_eq!(refused.word(), "compensated");
    let partial = refused.partial();
    // The step is atomic, so that what the lock says of the call holds for the attempt: no undo is called.
    assert!(partial.compensations.is_empty(), "{partial:?}");
    assert_eq!(bank.lock().unwrap().run.as_str(), "first");
    assert_eq!(first.outcome().await.unwrap().word(), "completed");
    assert_eq!(
        bank.log(),
        [
            "0 first took fresh, moved true",
            "50 second refused: run `first` holds the lock until 2026-01-01T00:10:00.000000Z",
            "450 first approved",
        ]
    );
    assert_eq!((bank.balance(), bank.lock()), (70, None));
}
