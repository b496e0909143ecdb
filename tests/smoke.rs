//! A run from end to end on each store.
use amends::store::*;
use amends::*;
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Log = Arc<Mutex<Vec<String>>>;

fn saga(log: &Log) -> Saga<u64, (u64, String)> {
    let mut b = Saga::builder::<u64>("demo");
    let n = b.input();
    let mk = |name: &'static str| {
        step_with(
            name,
            log.clone(),
            async |log: &Log, cx, n: &u64| {
                log.lock().unwrap().push(format!("do {}", cx.step()));
                Ok(n + 1)
            },
            async |log: &Log, cx, _n: &u64, e| {
                log.lock()
                    .unwrap()
                    .push(format!("undo {} {:?}", cx.step(), e));
                Ok(())
            },
        )
    };
    let a = b.add(mk("a"), n);
    let bb = b.add(mk("b"), a);
    let c = b.add(
        step_fn(
            "c",
            async |cx: &StepContext, n: &(u64, u64)| -> Result<String, StepError> {
                tokio::time::sleep(Duration::from_millis(5)).await;
                if cx.attempt() == 1 {
                    return Err(StepError::not_done("flaky").with_mode(FailureMode::SystemNetwork));
                }
                if n.0 > 1000 {
                    return Err(StepError::rejected("too much"));
                }
                Ok(format!("{n:?}"))
            },
            async |_cx, _n, _e| Ok(()),
        )
        .retry(Retry::constant().initial(Duration::from_millis(150))),
        (a, bb.map(|n| n * 10)),
    );
    b.returns((bb, c)).unwrap()
}

async fn go(store: Arc<dyn Store>) {
    let log: Log = Arc::default();
    let saga = saga(&log);
    let c = Coordinator::builder_shared(store.clone())
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = c.start(&saga, "r1", 1).await.unwrap();
    let out = run.outcome().await.unwrap();
    println!("{}", serde_json::to_string_pretty(&out.partial()).unwrap());
    assert_eq!(out.completed(), Some((3, "(2, 30)".into())));
    let again = c.start(&saga, "r1", 1).await.unwrap();
    assert!(matches!(
        again.outcome().await.unwrap(),
        Outcome::Completed(_)
    ));
    assert!(matches!(
        c.start(&saga, "r1", 2).await,
        Err(StartError::OtherInput { .. })
    ));
    let run = c.start(&saga, "r2", 5000).await.unwrap();
    let out = run.outcome().await.unwrap();
    let Outcome::Compensated(p) = out else {
        panic!("{out:?}")
    };
    println!("{}", p.hint());
    println!("{:?}", log.lock().unwrap());
    let mut w = c.watch(&"r2".into());
    while let Some(e) = w.next().await.unwrap() {
        println!("{} {:?}", e.seq, e.event);
    }
    c.shutdown().await;
}

#[tokio::test]
async fn memory() {
    go(Arc::new(MemoryStore::new())).await;
}

#[tokio::test]
async fn sqlite() {
    let d = tempfile::tempdir().unwrap();
    go(Arc::new(SqliteStore::open(d.path().join("x.db")).unwrap())).await;
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_came_first_and_a_second_start_of_a_waiting_run_do_no_harm() {
    let log: Log = Arc::default();
    let saga = saga(&log);
    let coordinator = Coordinator::builder(MemoryStore::new())
        .register(&saga)
        .build()
        .await
        .unwrap();
    let mut early = coordinator.watch(&"r".into());
    assert!(early.next().await.unwrap().is_none());
    let early = coordinator.watch(&"r".into());
    let first = coordinator.start(&saga, "r", 1).await.unwrap();
    drop(early);
    // The run sleeps now, without a task; starting it again must not lose its timer.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let second = coordinator.start(&saga, "r", 1).await.unwrap();
    assert!(matches!(
        second.outcome().await.unwrap(),
        Outcome::Completed(_)
    ));
    assert!(matches!(
        first.outcome().await.unwrap(),
        Outcome::Completed(_)
    ));
    assert_eq!(log.lock().unwrap().len(), 2);
}
