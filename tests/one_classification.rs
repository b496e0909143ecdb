//! Retry, journal and recovery read one answer about an error, and a step's own word goes over its head.

// A test may fail by a panic, in its helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![cfg(feature = "testkit")]

use std::io;
use std::sync::Arc;
use std::time::Duration;

use amends::failure::FailedEffect::{InDoubt, NotDone};
use amends::store::MemoryStore;
use amends::testkit::VirtualClock;
use amends::{
    Coordinator, FailureMode, PartialResult, RecoveryPolicy, Retry, Saga, StepError, step_with,
};
use tokio::time::Instant;

/// Runs a saga of one atomic step that fails like this each time, and gives how it ended, and how long
/// that took.
async fn failing(how: impl Fn() -> StepError + Send + Sync + 'static) -> (PartialResult, Duration) {
    let mut saga = Saga::builder::<()>("fails");
    let input = saga.input();
    let step = step_with(
        "charge",
        Arc::new(how),
        async |how, _cx, (): &()| -> Result<(), StepError> { Err(how()) },
        async |_how, _cx, (): &(), _effect| Ok(()),
    );
    let retry = Retry::constant()
        .initial(Duration::from_secs(1))
        .max_attempts(2);
    let charge = saga.add(step.atomic().retry(retry), input);
    let saga = saga
        .policy(RecoveryPolicy::saga().max_recoveries(0))
        .returns(charge)
        .unwrap();
    let coordinator = Coordinator::builder(MemoryStore::new())
        .register(&saga)
        .clock(VirtualClock::new())
        .build()
        .await
        .unwrap();
    let began = Instant::now();
    let run = coordinator.start(&saga, "run", ()).await.unwrap();
    let partial = run.outcome().await.unwrap().partial();
    (partial, began.elapsed())
}

/// What a reset connection says when it is read: no word of it is looked at.
fn reset() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionReset,
        "reset by peer: quota exceeded",
    )
}

#[tokio::test(start_paused = true)]
async fn what_is_retried_is_what_is_recorded_and_what_the_policy_sees() {
    let (partial, _) = failing(|| reset().into()).await;
    let charge = partial.step("charge").unwrap();
    assert_eq!(charge.attempts, 2);
    let failure = charge.failure.clone().unwrap();
    assert_eq!(failure.mode, FailureMode::SystemNetwork);
    assert_eq!((failure.effect, failure.retryable), (InDoubt, true));
    assert_eq!(partial.failure_mode, Some(FailureMode::SystemNetwork));
    assert_eq!(partial.why.len(), 1);
    let saw = &partial.why[0].saw;
    assert_eq!(saw.mode, FailureMode::SystemNetwork);
    assert_eq!((saw.effect, saw.retryable), (InDoubt, true));
}

#[tokio::test(start_paused = true)]
async fn the_steps_own_word_wins_over_the_classifier() {
    let (partial, _) = failing(|| {
        StepError::not_done(reset())
            .with_mode(FailureMode::BudgetExceeded)
            .retry_after(Duration::from_secs(9))
    })
    .await;
    let charge = partial.step("charge").unwrap();
    assert_eq!(charge.attempts, 1, "a terminal mode is not retried");
    let failure = charge.failure.clone().unwrap();
    assert_eq!(failure.mode, FailureMode::BudgetExceeded);
    assert_eq!((failure.effect, failure.retryable), (NotDone, false));
    assert_eq!(failure.retry_after, Some(Duration::from_secs(9)));
}

#[tokio::test(start_paused = true)]
async fn a_failure_tells_its_whole_story() {
    #[derive(Debug, thiserror::Error)]
    #[error("the charge failed")]
    struct Charge(#[source] io::Error);

    let (partial, _) = failing(|| Charge(reset()).into()).await;
    let history = &partial.step("charge").unwrap().history;
    assert_eq!(history.len(), 2);
    for (report, attempt) in history.iter().zip(1..) {
        let failure = report.failure.clone().unwrap();
        assert_eq!(
            (failure.step.as_str(), failure.round, failure.attempt),
            ("charge", 1, attempt)
        );
        assert_eq!(failure.message, "the charge failed");
        assert_eq!(failure.causes, ["reset by peer: quota exceeded"]);
        assert_eq!(failure.mode, FailureMode::SystemNetwork);
    }
}

#[cfg(feature = "http-status")]
#[tokio::test(start_paused = true)]
async fn a_retry_waits_for_as_long_as_the_answer_asks() {
    use amends::failure::HttpFailure;
    use http::header::RETRY_AFTER;
    use http::{HeaderMap, StatusCode};

    for (asked, took) in [("30", 30), ("0", 1), ("-5", 1), ("soon", 1)] {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, asked.parse().unwrap());
        let (partial, elapsed) = failing(move || {
            let busy = HttpFailure::check(StatusCode::TOO_MANY_REQUESTS, &headers);
            busy.unwrap_err().into()
        })
        .await;
        let charge = partial.step("charge").unwrap();
        assert_eq!(charge.attempts, 2);
        let failure = charge.failure.clone().unwrap();
        assert_eq!(failure.mode, FailureMode::RateLimited);
        // The step is atomic, so that the adapter's word about the call is the attempt's.
        assert_eq!((failure.effect, failure.retryable), (NotDone, true));
        assert_eq!(elapsed.as_secs(), took, "{asked}");
    }
}
