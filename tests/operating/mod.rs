//! Runs of every kind for the tests of operators' work, over any store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use amends::store::Store;
use amends::{
    Coordinator, FailureMode, Outcome, RecoveryPolicy, RecoveryStrategy, Retry, RunHandle, Saga,
    StartOptions, StepContext, StepError, step_fn, step_with,
};

/// What happens in the second step of three.
pub(crate) const GOES_WELL: u64 = 0;
pub(crate) const IS_REJECTED: u64 = 1;
pub(crate) const ASKS_TO_STOP: u64 = 2;
pub(crate) const WAITS_AN_HOUR: u64 = 3;
pub(crate) const FINDS_NO_NETWORK: u64 = 4;

async fn charge(mended: &Arc<AtomicBool>, _: &StepContext, kind: &u64) -> Result<u64, StepError> {
    match *kind {
        _ if mended.load(Ordering::SeqCst) => Ok(*kind),
        IS_REJECTED => Err(StepError::rejected("the card is blocked")),
        ASKS_TO_STOP => Err(StepError::stop("sold out")),
        WAITS_AN_HOUR => Err(StepError::not_done("no answer yet")
            .with_mode(FailureMode::SystemTimeout)
            .retryable(true)),
        FINDS_NO_NETWORK => Err(StepError::not_done("no route")
            .with_mode(FailureMode::SystemNetwork)
            .retryable(false)),
        _ => Ok(*kind),
    }
}

/// Three steps, of which the second does what the input says until somebody mends it. Parks where it fails.
pub(crate) fn order(mended: &Arc<AtomicBool>) -> Saga<u64, u64> {
    made("place-order", mended, RecoveryStrategy::Manual)
}

/// The same, but undone where it fails.
pub(crate) fn trip(mended: &Arc<AtomicBool>) -> Saga<u64, u64> {
    made("book-trip", mended, RecoveryStrategy::Compensate)
}

fn made(name: &str, mended: &Arc<AtomicBool>, fails: RecoveryStrategy) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>(name).policy(RecoveryPolicy::new("test", fails));
    let kind = saga.input();
    let hour = Retry::constant()
        .initial(Duration::from_secs(3600))
        .max_attempts(2);
    let reserved = saga.add(
        step_fn(
            "reserve",
            async |_cx, kind: &u64| Ok(*kind),
            async |_cx, _kind, _effect| Ok(()),
        ),
        kind,
    );
    let charged = saga.add(
        step_with("charge", Arc::clone(mended), charge, async |_, _, _, _| {
            Ok(())
        })
        .retry(hour),
        reserved,
    );
    let shipped = saga.add(
        step_fn(
            "ship",
            async |_cx, kind: &u64| Ok(*kind),
            async |_cx, _kind, _effect| Ok(()),
        ),
        charged,
    );
    saga.returns(shipped).unwrap()
}

/// A coordinator with both sagas.
pub(crate) async fn coordinator(store: Arc<dyn Store>, mended: &Arc<AtomicBool>) -> Coordinator {
    Coordinator::builder_shared(store)
        .register(&order(mended))
        .register(&trip(mended))
        .build()
        .await
        .unwrap()
}

/// Starts a run and waits until it has ended, is parked, or waits for its retry.
pub(crate) async fn run_to_rest(
    coordinator: &Coordinator,
    saga: &Saga<u64, u64>,
    id: &str,
    kind: u64,
) -> RunHandle<u64> {
    let options = StartOptions::new().label("kind", kind.to_string());
    let run = coordinator
        .start_with(saga, id, kind, options)
        .await
        .unwrap();
    if kind == WAITS_AN_HOUR {
        while coordinator.driving() > 0 {
            tokio::task::yield_now().await;
        }
    } else {
        let outcome: Outcome<u64> = run.outcome().await.unwrap();
        drop(outcome);
    }
    run
}

/// Two completed, two parked, one stopped, one that waits, one compensated: `run-1` to `run-7`.
pub(crate) async fn one_of_each(store: Arc<dyn Store>) {
    let mended = Arc::new(AtomicBool::new(false));
    let (order, trip) = (order(&mended), trip(&mended));
    let coordinator = coordinator(store, &mended).await;
    for (id, saga, kind) in [
        ("run-1", &order, GOES_WELL),
        ("run-2", &order, IS_REJECTED),
        ("run-3", &order, ASKS_TO_STOP),
        ("run-4", &order, FINDS_NO_NETWORK),
        ("run-5", &trip, IS_REJECTED),
        ("run-6", &order, WAITS_AN_HOUR),
        ("run-7", &trip, GOES_WELL),
    ] {
        run_to_rest(&coordinator, saga, id, kind).await;
    }
    coordinator.shutdown().await;
}
