//! Steps that wait: for a signal, for somebody's word, for a time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use amends::journal::{Command, CommandAnswer, Verb};
use amends::store::{MemoryStore, Store};
use amends::testkit::VirtualClock;
use amends::{
    Approval, Coordinator, FailureMode, RunHandle, Saga, SignalTold, StepStatus, Value, approval,
    delay, step, wait_for,
};

const HOUR: Duration = Duration::from_secs(3_600);

async fn coordinator<I: 'static, O: 'static>(
    store: &Arc<MemoryStore>,
    saga: &Saga<I, O>,
) -> Coordinator {
    Coordinator::builder_shared(Arc::clone(store) as Arc<dyn Store>)
        .register(saga)
        .clock(VirtualClock::new())
        .build()
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_signal_may_come_before_the_wait_and_after_a_restart() {
    let store = Arc::new(MemoryStore::new());
    let mut saga = Saga::builder::<u64>("order");
    saga.add(delay("cool-down", HOUR), ());
    let paid = saga.add(wait_for::<u64>("paid"), ());
    let again = saga.add(wait_for::<u64>("again").after(paid), ());
    let saga = saga.returns((paid, again)).unwrap();
    let first = coordinator(&store, &saga).await;
    let run = first.start(&saga, "r", 1).await.unwrap();
    assert_eq!(
        first.signal(run.id(), "again", 7_u64).await.unwrap(),
        SignalTold::Accepted
    );
    tokio::time::sleep(2 * HOUR).await;
    let partial = first.get(run.id()).await.unwrap().unwrap();
    assert_eq!(partial.step("paid").unwrap().status, StepStatus::Waiting);
    println!("{:?}", partial.standing);
    drop((run, first));
    let second = coordinator(&store, &saga).await;
    tokio::time::sleep(HOUR).await;
    second.signal(&"r".into(), "paid", 5_u64).await.unwrap();
    let run: RunHandle<(u64, u64)> = second.start(&saga, "r", 1).await.unwrap();
    assert_eq!(run.outcome().await.unwrap().completed(), Some((5, 7)));
}

#[tokio::test(start_paused = true)]
async fn a_late_signal_is_told_and_the_run_compensates() {
    let store = Arc::new(MemoryStore::new());
    let mut child = Saga::builder::<u64>("child");
    let paid = child.add(wait_for::<u64>("paid").within(HOUR), ());
    let child = child.returns(paid).unwrap();
    let mut saga = Saga::builder::<u64>("order");
    let n = saga.input();
    let inner = saga.add(step("inner", &child), n);
    let boss = saga.add(approval("boss").approvers(["ada"]).within(HOUR), ());
    let saga = saga.returns((inner, boss)).unwrap();
    let coordinator = coordinator(&store, &saga).await;
    let run = coordinator.start(&saga, "r", 1).await.unwrap();
    assert!(coordinator.signal(run.id(), "paid", 1_u64).await.is_err());
    println!(
        "{}",
        coordinator
            .signal(run.id(), "paid", 1_u64)
            .await
            .unwrap_err()
    );
    println!(
        "{}",
        coordinator
            .signal(run.id(), "inner/paid", "x".to_owned())
            .await
            .unwrap_err()
    );
    println!(
        "{}",
        coordinator
            .approve(run.id(), "boss", "eve", "x")
            .await
            .unwrap_err()
    );
    coordinator
        .approve(run.id(), "boss", "ada", "fine")
        .await
        .unwrap();
    let outcome = run.outcome().await.unwrap();
    assert_eq!(outcome.word(), "compensated");
    assert_eq!(
        outcome.partial().failure_mode,
        Some(FailureMode::StepTimeout)
    );
    let boss = outcome.partial();
    println!(
        "{:?}",
        boss.steps
            .iter()
            .map(|step| (step.name.clone(), step.status))
            .collect::<Vec<_>>()
    );
    let _ = Approval::TimedOut;
    let _ = (
        Command::new("r", Verb::Cancel),
        CommandAnswer::Late,
        Value::typed(Arc::new(1_u8)),
    );
}
