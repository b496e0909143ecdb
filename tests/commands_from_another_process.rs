//! A command is a durable row: whoever owns the run picks it up, now or at the next start.
#![cfg(all(feature = "sqlite", feature = "testkit"))]
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests; the lints know test functions only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use amends::journal::{Command, CommandAnswer, Verb, VerbName};
use amends::store::{RunFilter, SqliteStore, Store, SubmitError};
use amends::{
    Coordinator, Outcome, RecoveryPolicy, RecoveryStrategy, RunId, Saga, StepContext, StepError,
    step_with,
};

/// One step that is rejected until somebody mends what is wrong, in a saga that parks then.
fn saga(mended: &Arc<AtomicBool>) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("place-order")
        .policy(RecoveryPolicy::new("eyes", RecoveryStrategy::Manual));
    let total = saga.input();
    let charged = saga.add(
        step_with(
            "charge-card",
            Arc::clone(mended),
            async |mended: &Arc<AtomicBool>, _: &StepContext, total: &u64| {
                if mended.load(Ordering::SeqCst) {
                    Ok(*total)
                } else {
                    Err(StepError::rejected("the card is blocked"))
                }
            },
            async |_, _, _, _| Ok(()),
        ),
        total,
    );
    saga.returns(charged).unwrap()
}

async fn answer(store: &SqliteStore, token: &str) -> CommandAnswer {
    for _ in 0..1_000 {
        let entry = store.find_command(token).await.unwrap().unwrap();
        if let Some(answer) = entry.answer {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no answer to {token}");
}

#[tokio::test]
async fn a_retry_handed_in_from_outside_is_picked_up_by_the_owner_and_answered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sagas.db");
    let mended = Arc::new(AtomicBool::new(false));
    let saga = saga(&mended);
    let coordinator = Coordinator::builder(SqliteStore::open(&path).unwrap())
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "order-1", 7).await.unwrap();
    assert!(matches!(run.outcome().await.unwrap(), Outcome::Parked(_)));

    let outside = SqliteStore::open_reader(&path).unwrap();
    let listed = outside
        .scan(&RunFilter::open().mode("agent_validation"), None, 9)
        .await
        .unwrap();
    assert_eq!(listed.len(), 1, "found by what went wrong");
    let refused = Command::new("order-1", Verb::Resume).by("ada");
    outside.submit(&refused).await.unwrap();
    let CommandAnswer::Refused { why, legal } = answer(&outside, &refused.token).await else {
        panic!("taken")
    };
    assert!(why.contains("parked, not paused"), "{why}");
    assert_eq!(
        legal,
        [
            VerbName::Retry,
            VerbName::Compensate,
            VerbName::Cancel,
            VerbName::Skip,
            VerbName::Abandon
        ]
    );

    mended.store(true, Ordering::SeqCst);
    let retry = Command::new("order-1", Verb::retry(RecoveryStrategy::RetryFailed))
        .by("ada")
        .reason("the bank has answered")
        .token("ticket-9");
    outside.submit(&retry).await.unwrap();
    outside.submit(&retry).await.unwrap();
    assert_eq!(
        answer(&outside, "ticket-9").await,
        CommandAnswer::Accepted { told: None }
    );
    let Outcome::Completed(done) = run.ended().await.unwrap() else {
        panic!("not completed")
    };
    assert_eq!(done.output, 7);
    let other = Command::new("order-1", Verb::Cancel).token("ticket-9");
    assert!(matches!(
        outside.submit(&other).await,
        Err(SubmitError::TokenTaken { .. })
    ));
    let nowhere = Command::new("order-2", Verb::Cancel);
    assert!(matches!(
        outside.submit(&nowhere).await,
        Err(SubmitError::NoSuchRun { .. })
    ));
    // The same token again, to whoever drives the run: nothing happens.
    assert_eq!(
        coordinator.command(&retry).await.unwrap(),
        amends::Told::Done
    );
    coordinator.shutdown().await;
}

#[tokio::test]
async fn a_command_waits_for_the_next_start_where_nobody_runs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sagas.db");
    let mended = Arc::new(AtomicBool::new(false));
    let saga = saga(&mended);
    let coordinator = Coordinator::builder(SqliteStore::open(&path).unwrap())
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "order-1", 7).await.unwrap();
    assert!(matches!(run.outcome().await.unwrap(), Outcome::Parked(_)));
    coordinator.shutdown().await;

    let outside = SqliteStore::open_reader(&path).unwrap();
    let retry = Command::new("order-1", Verb::retry(RecoveryStrategy::RetryFailed)).by("ada");
    outside.submit(&retry).await.unwrap();
    outside.close().await;

    mended.store(true, Ordering::SeqCst);
    let coordinator = Coordinator::builder(SqliteStore::open(&path).unwrap())
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator
        .attach(&saga, &RunId::new("order-1"))
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(run.ended().await.unwrap(), Outcome::Completed(_)));
    coordinator.shutdown().await;
}

/// The same name and version with another structure.
fn changed() -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("place-order");
    let total = saga.input();
    let checked = saga.add(
        amends::read_only_fn("check", async |_: &StepContext, total: &u64| Ok(*total)),
        total,
    );
    saga.returns(checked).unwrap()
}

#[tokio::test]
async fn a_run_whose_definition_has_changed_can_be_given_up_and_not_retried() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sagas.db");
    let saga = saga(&Arc::new(AtomicBool::new(false)));
    let coordinator = Coordinator::builder(SqliteStore::open(&path).unwrap())
        .register(&saga)
        .build()
        .await
        .unwrap();
    for id in ["order-1", "order-2"] {
        let run = coordinator.start(&saga, id, 7).await.unwrap();
        assert!(matches!(run.outcome().await.unwrap(), Outcome::Parked(_)));
    }
    coordinator.shutdown().await;

    let outside = SqliteStore::open_reader(&path).unwrap();
    let coordinator = Coordinator::builder(SqliteStore::open(&path).unwrap())
        .register(&changed())
        .build()
        .await
        .unwrap();
    let retry = Command::new("order-1", Verb::retry(RecoveryStrategy::RetryFailed));
    outside.submit(&retry).await.unwrap();
    let CommandAnswer::Refused { why, legal } = answer(&outside, &retry.token).await else {
        panic!("taken")
    };
    assert!(
        why.contains("has changed since the run was started"),
        "{why}"
    );
    assert_eq!(legal, [VerbName::Abandon]);
    let abandon = Command::new("order-1", Verb::Abandon).by("ada");
    outside.submit(&abandon).await.unwrap();
    assert_eq!(
        answer(&outside, &abandon.token).await,
        CommandAnswer::Accepted { told: None }
    );
    let entry = outside.find(&RunId::new("order-1")).await.unwrap().unwrap();
    assert_eq!(entry.standing, amends::journal::Standing::Abandoned);
    coordinator.shutdown().await;

    // Nor is one forgotten whose saga is gone altogether.
    let another = Saga::builder::<u64>("another");
    let input = another.input();
    let another: Saga<u64, u64> = another.returns(input).unwrap();
    let coordinator = Coordinator::builder(SqliteStore::open(&path).unwrap())
        .register(&another)
        .build()
        .await
        .unwrap();
    let retry = Command::new("order-2", Verb::retry(RecoveryStrategy::RetryFailed));
    let abandon = Command::new("order-2", Verb::Abandon).by("ada");
    outside.submit(&retry).await.unwrap();
    outside.submit(&abandon).await.unwrap();
    assert_eq!(
        answer(&outside, &abandon.token).await,
        CommandAnswer::Accepted { told: None }
    );
    let kept = outside.find_command(&retry.token).await.unwrap().unwrap();
    assert_eq!(kept.answer, None, "left for whoever has the code");
    coordinator.shutdown().await;
}
