//! The partial result is whole, reads back from JSON to an equal value, and says what was decided.
#![cfg(feature = "sqlite")]
// Helpers of tests may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use amends::journal::{Cause, Standing};
use amends::store::{MemoryStore, SqliteStore, Store};
use amends::{
    Coordinator, EffectReport, FailureMode, Outcome, PartialResult, RecoveryStrategy, Retry, Saga,
    StartOptions, StepContext, StepError, StepStatus, step_fn,
};

/// `a`, then `b`, then `c`, which fails once and then refuses amounts above 1,000.
fn saga() -> Saga<u64, (u64, String)> {
    let mut saga = Saga::builder::<u64>("demo").version(3);
    let n = saga.input();
    let more = |name| {
        step_fn(
            name,
            async |_cx, n: &u64| Ok(n + 1),
            async |_cx, _n, _effect| Ok(()),
        )
    };
    let a = saga.add(more("a"), n);
    let b = saga.add(more("b"), a);
    let c = step_fn(
        "c",
        async |cx: &StepContext, (a, tenfold): &(u64, u64)| {
            tokio::time::sleep(Duration::from_millis(3)).await;
            match (cx.attempt(), a) {
                (1, _) => Err(StepError::not_done("busy").with_mode(FailureMode::SystemNetwork)),
                (_, ..=1_000) => Ok(format!("{a} and {tenfold}")),
                _ => Err(StepError::rejected("too much")),
            }
        },
        async |_cx, _n, _effect| Ok(()),
    );
    let c = c.retry(Retry::constant().initial(Duration::from_millis(2)));
    let c = saga.add(c, (a, b.map(|b| b * 10)));
    saga.returns((b, c)).unwrap()
}

fn reads_back(partial: &PartialResult) {
    let json = serde_json::to_string(partial).unwrap();
    assert!(json.starts_with(r#"{"schema":1,"#), "{json}");
    let read: PartialResult = serde_json::from_str(&json).unwrap();
    assert_eq!(read, *partial);
}

async fn both_ends_on(store: Arc<dyn Store>) {
    let saga = saga();
    let coordinator = Coordinator::builder_shared(store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let options = StartOptions::new()
        .label("customer", "42")
        .trace_id("4bf92f3577b34da6a3ce929d0e0e4736");
    let run = coordinator
        .start_with(&saga, "good", 1, options)
        .await
        .unwrap();
    let done = run.outcome().await.unwrap();
    let partial = done.partial();
    assert_eq!(done.completed(), Some((3, "2 and 30".to_owned())));
    assert_eq!(
        (
            partial.completed,
            partial.total,
            partial.remaining,
            partial.percent()
        ),
        (3, 3, 0, 100)
    );
    assert_eq!((partial.saga.as_str(), partial.version), ("demo", 3));
    assert_eq!(partial.trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(partial.labels["customer"], "42");
    assert_eq!(partial.failing_step, None);
    assert_eq!(partial.outstanding, []);
    assert_eq!(partial.hint(), "all steps are done");
    let c = partial.step("c").unwrap();
    assert_eq!(
        (c.status, c.attempts, c.history.len()),
        (StepStatus::Done, 2, 1)
    );
    // Measured around the call, which sleeps for 3 ms; never inferred from a neighbour.
    assert!(
        c.duration() >= Duration::from_millis(3),
        "{:?}",
        c.duration()
    );
    assert!(c.started_at < c.ended_at && c.history[0].ended_at <= c.started_at.unwrap());
    assert_eq!(
        partial.output::<String>("c").unwrap().unwrap().as_str(),
        "2 and 30"
    );
    reads_back(&partial);

    let run = coordinator.start(&saga, "refused", 5_000).await.unwrap();
    let Outcome::Compensated(partial) = run.outcome().await.unwrap() else {
        panic!("not compensated");
    };
    assert_eq!(partial.standing, Standing::Compensated);
    assert_eq!(
        (partial.completed, partial.total, partial.percent()),
        (0, 3, 0)
    );
    assert_eq!(partial.failing_step.as_deref(), Some("c"));
    assert_eq!(partial.failure_mode, Some(FailureMode::StepValidation));
    assert_eq!(partial.strategy, Some(RecoveryStrategy::Compensate));
    assert_eq!(partial.cause, Some(Cause::Failures));
    assert_eq!(partial.why[0].rule, "not retryable");
    let undone: Vec<_> = partial
        .compensations
        .iter()
        .map(|undone| {
            (
                undone.step.as_str(),
                undone.effect,
                undone.failure.is_none(),
            )
        })
        .collect();
    assert_eq!(
        undone,
        [
            ("b", EffectReport::Done, true),
            ("a", EffectReport::Done, true)
        ]
    );
    assert_eq!(partial.hint(), "all that was done is undone");
    reads_back(&partial);
    // Whoever asks later is told the same.
    assert_eq!(
        coordinator.get(&"refused".into()).await.unwrap().unwrap(),
        partial
    );
    coordinator.shutdown().await;
}

#[tokio::test]
async fn both_ends_are_told_in_full_in_memory() {
    both_ends_on(Arc::new(MemoryStore::new())).await;
}

#[tokio::test]
async fn both_ends_are_told_in_full_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    both_ends_on(Arc::new(
        SqliteStore::open(folder.path().join("x.db")).unwrap(),
    ))
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_came_before_the_start_does_no_harm() {
    let saga = saga();
    let coordinator = Coordinator::builder(MemoryStore::new())
        .register(&saga)
        .build()
        .await
        .unwrap();
    let mut early = coordinator.watch(&"r".into());
    assert!(early.next().await.unwrap().is_none());
    let waits = coordinator.watch(&"r".into());
    let run = coordinator.start(&saga, "r", 1).await.unwrap();
    assert!(matches!(
        run.outcome().await.unwrap(),
        Outcome::Completed(_)
    ));
    drop((early, waits));
    let mut late = coordinator.watch(&"r".into());
    let mut seen = 0;
    while late.next().await.unwrap().is_some() {
        seen += 1;
    }
    // Start; three steps that start and end, one of them twice; the end.
    assert_eq!(seen, 10);
}
