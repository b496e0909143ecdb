//! Inputs, outputs and what is made of them are in no span, no event and no metric, at any level.
#![cfg(feature = "metrics")]
// Helper functions of tests aren't test functions; not every test file uses all of the capture.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    dead_code,
    unreachable_pub
)]

mod capture;

use std::sync::Arc;
use std::time::Duration;

use amends::store::{MemoryStore, Store};
use amends::{
    Coordinator, FailureMode, Outcome, Payload, Retry, Saga, StartOptions, StepContext, StepError,
    step_fn,
};
use capture::Capture;
use metrics_util::debugging::DebuggingRecorder;

const SECRET: &str = "4111-1111-1111-1111";
const WORDS: &str = "the card was refused";

/// `hold` gives back what it is given, after a retry; `charge` gets a `map` of it and fails; `hold` is undone.
fn saga() -> Saga<String, String> {
    let mut saga = Saga::builder::<String>("secretive");
    let card = saga.input();
    let hold = step_fn(
        "hold",
        async |cx: &StepContext, card: &String| match cx.attempt() {
            1 => Err(StepError::not_done("busy").with_mode(FailureMode::SystemNetwork)),
            _ => Ok(format!("held {card}")),
        },
        async |cx: &StepContext, _card: &String, _effect| match cx.attempt() {
            1 => Err(StepError::not_done("busy").with_mode(FailureMode::SystemNetwork)),
            _ => Ok(()),
        },
    )
    .retry(Retry::constant().initial(Duration::from_millis(5)))
    .compensation_retry(Retry::constant().initial(Duration::from_millis(5)));
    let kept = saga.add(hold, card);
    let charge = step_fn(
        "charge",
        async |_cx, _card: &String| Err::<String, _>(StepError::rejected(WORDS)),
        async |_cx, _card, _effect| Ok(()),
    );
    let charged = saga.add(charge, kept.map(|kept| format!("{kept}!")));
    saga.returns(charged).unwrap()
}

/// All that a subscriber and a recorder are told while the story is told.
fn all_that_is_told(story: impl Future<Output = ()>) -> String {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let (capture, _guard) = Capture::listen();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || runtime.block_on(story));
    drop(runtime);
    let told = format!("{:?}\n{:?}", capture.seen(), snapshotter.snapshot());
    // Else nothing would have been looked at.
    for part in ["amends.attempt", "amends_runs_ended_total", "secretive"] {
        assert!(told.contains(part), "{part}");
    }
    told
}

async fn runs_on(store: Arc<dyn Store>) {
    let saga = saga();
    let coordinator = Coordinator::builder_shared(store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let options = StartOptions::new().label("card", SECRET);
    let started = coordinator.start_with(&saga, "r", SECRET.to_owned(), options);
    let outcome = started.await.unwrap().outcome().await.unwrap();
    assert!(matches!(outcome, Outcome::Compensated(_)), "{outcome:?}");
    // Neither is what is refused.
    let other = coordinator.start(&saga, "r", format!("{SECRET}2"));
    other.await.map(drop).unwrap_err();
    coordinator.shutdown().await;
}

#[test]
fn neither_payloads_nor_labels_are_told_by_a_run_in_memory() {
    let told = all_that_is_told(runs_on(Arc::new(MemoryStore::new())));
    assert!(!told.contains("4111"), "{told}");
    assert!(told.contains(WORDS), "a step's own words are");
}

#[cfg(feature = "sqlite")]
#[test]
fn neither_payloads_nor_labels_are_told_by_a_run_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let store = amends::store::SqliteStore::open(folder.path().join("x.db")).unwrap();
    let told = all_that_is_told(runs_on(Arc::new(store)));
    assert!(!told.contains("4111"), "{told}");
    assert!(told.contains(WORDS), "a step's own words are");
}

/// The same structure with another type, as after a careless deploy.
fn careless<T: Payload>() -> Saga<T, ()> {
    let mut saga = Saga::builder::<T>("secretive");
    let input = saga.input();
    let hangs = step_fn(
        "hangs",
        async |cx: &StepContext, _input: &T| {
            if cx.attempt() == 1 {
                std::future::pending::<()>().await;
            }
            Ok(())
        },
        async |_cx, _input, _effect| Ok(()),
    )
    .retry(Retry::none())
    .compensation_retry(Retry::none());
    let hung = saga.add(hangs, input);
    saga.returns(hung).unwrap()
}

#[cfg(feature = "sqlite")]
#[test]
fn a_payload_that_does_not_fit_any_more_is_not_told_either() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.db");
    let told = all_that_is_told(async {
        let store = Arc::new(amends::store::SqliteStore::open(&path).unwrap());
        let saga = careless::<String>();
        let coordinator = Coordinator::builder_shared(store.clone())
            .register(&saga)
            .shutdown_grace(Duration::ZERO)
            .build()
            .await
            .unwrap();
        let run = coordinator.start(&saga, "r", SECRET.to_owned()).await;
        drop(run.unwrap());
        coordinator.shutdown().await;
        drop((coordinator, store));

        let store = amends::store::SqliteStore::open(&path).unwrap();
        let saga = careless::<u64>();
        let coordinator = Coordinator::builder(store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        coordinator.all_resumed().await;
        while coordinator.driving() > 0 {
            tokio::task::yield_now().await;
        }
        coordinator.shutdown().await;
    });
    assert!(!told.contains("4111"), "{told}");
    assert!(told.contains("invalid type, expected u64"), "{told}");
}
