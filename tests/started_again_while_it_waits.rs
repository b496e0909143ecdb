//! A run that waits for its timer goes on, however often it is started again meanwhile.
#![cfg(feature = "sqlite")]

use std::time::Duration;

use amends::store::SqliteStore;
use amends::{Coordinator, FailureMode, Retry, RunId, Saga, StepError, step_fn};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timer_that_rings_during_a_second_start_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut saga = Saga::builder::<u64>("waits");
    let n = saga.input();
    let done = saga.add(
        step_fn(
            "second-time-lucky",
            async |cx: &amends::StepContext, n: &u64| match cx.attempt() {
                1 => Err(StepError::not_done("not yet")
                    .with_mode(FailureMode::SystemNetwork)
                    .retry_after(Duration::from_millis(200))),
                _ => Ok(n + 1),
            },
            async |_cx, _n, _effect| Ok(()),
        )
        .retry(Retry::exponential().max_attempts(3)),
        n,
    );
    let saga = saga.returns(done).unwrap();
    let store = SqliteStore::open(dir.path().join("j.db")).unwrap();
    let coordinator = Coordinator::builder(store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let mut lost = 0;
    for round in 0..20 {
        let id = RunId::new(format!("run-{round}"));
        drop(coordinator.start(&saga, id.clone(), 1).await.unwrap());
        tokio::time::sleep(Duration::from_millis(150)).await;
        let until = tokio::time::Instant::now() + Duration::from_millis(100);
        while tokio::time::Instant::now() < until {
            drop(coordinator.start(&saga, id.clone(), 1).await.unwrap());
        }
        let run = coordinator.start(&saga, id, 1).await.unwrap();
        if tokio::time::timeout(Duration::from_secs(60), run.outcome())
            .await
            .is_err()
        {
            lost += 1;
        }
    }
    assert_eq!(lost, 0, "runs that never went on, of 20");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_runs_that_are_started_again_at_once_after_a_crash_go_on() {
    static HANGS: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    let dir = tempfile::tempdir().unwrap();
    let define = |hangs: bool| {
        HANGS.store(hangs, std::sync::atomic::Ordering::SeqCst);
        let mut saga = Saga::builder::<u64>("crashed");
        let n = saga.input();
        let done = saga.add(
            step_fn(
                "hangs-once",
                async |_cx: &amends::StepContext, n: &u64| {
                    if HANGS.load(std::sync::atomic::Ordering::SeqCst) {
                        std::future::pending::<()>().await;
                    }
                    Ok::<u64, StepError>(n + 1)
                },
                async |_cx, _n, _effect| Ok(()),
            ),
            n,
        );
        saga.returns(done).unwrap()
    };
    let path = dir.path().join("j.db");
    let mut lost = 0;
    for round in 0..10 {
        let ids: Vec<RunId> = (0..50)
            .map(|n| RunId::new(format!("run-{round}-{n}")))
            .collect();
        let saga = define(true);
        let store = SqliteStore::open(&path).unwrap();
        let coordinator = Coordinator::builder(store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        for id in &ids {
            coordinator.start(&saga, id.clone(), 1).await.unwrap();
        }
        drop(coordinator);
        let saga = define(false);
        let store = loop {
            match SqliteStore::open(&path) {
                Ok(store) => break store,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let coordinator = Coordinator::builder(store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        let mut waiting = tokio::task::JoinSet::new();
        for id in ids {
            let (coordinator, saga) = (coordinator.clone(), saga.clone());
            waiting.spawn(async move {
                let run = coordinator.start(&saga, id, 1).await.unwrap();
                tokio::time::timeout(Duration::from_secs(2), run.outcome())
                    .await
                    .is_err()
            });
        }
        while let Some(timed_out) = waiting.join_next().await {
            lost += u32::from(timed_out.unwrap());
        }
        coordinator.shutdown().await;
    }
    assert_eq!(lost, 0, "runs that never went on, of 500");
}
