//! What the simulated participants do, and the store that fails to order.
// The helpers below are test code like the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![cfg(feature = "testkit")]

use std::sync::Arc;
use std::time::Duration;

use amends::store::{MemoryStore, Store};
use amends::testkit::{CrashingStore, Fault, Happened, StoreFault, VirtualClock, World};
use amends::{Coordinator, Probed, Saga, UndoOrder};

const KEY: &str = "0123456789abcdef0123456789abcdef/charge%20card/1";

fn happened(world: &World) -> Vec<Happened> {
    world.log().into_iter().map(|event| event.what).collect()
}

#[tokio::test(start_paused = true)]
async fn a_repeated_call_gets_the_first_result_and_has_no_second_effect() {
    let world = World::new();
    assert_eq!(world.execute(KEY, 1).await.unwrap(), 1);
    assert_eq!(world.execute(KEY, 2).await.unwrap(), 1);
    assert_eq!(world.effects("charge card"), 1);
    assert_eq!(world.standing(), ["charge card"]);
    let expected = [
        Happened::Called,
        Happened::TookEffect,
        Happened::Called,
        Happened::Duplicate,
    ];
    assert_eq!(happened(&world), expected);
}

#[tokio::test(start_paused = true)]
async fn an_effect_that_arrives_after_its_undo_is_refused() {
    let world = World::new().fail_at("charge card", 1, Fault::Late);
    assert!(world.execute(KEY, 1).await.is_err());
    world.compensate(&format!("{KEY}/undo")).await.unwrap();
    assert_eq!(world.standing(), Vec::<String>::new());
    let undo_key = format!("{KEY}/undo");
    let expected = [
        Happened::Called,
        Happened::UndoCalled { undo_key },
        Happened::NothingToUndo,
        Happened::Refused,
    ];
    assert_eq!(happened(&world), expected);
    assert!(world.execute(KEY, 1).await.is_err(), "the key is closed");
}

#[tokio::test(start_paused = true)]
async fn an_effect_that_is_late_and_not_undone_takes_place_at_last() {
    let world = World::new().fail_at("charge card", 1, Fault::Late);
    assert!(world.execute(KEY, 1).await.is_err());
    assert_eq!(world.effects("charge card"), 0);
    world.deliver_late();
    assert_eq!(world.effects("charge card"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_says_never_closes_the_key() {
    let world = World::new();
    assert_eq!(world.probe::<u64>(KEY).await.unwrap(), Probed::Never);
    assert!(world.execute(KEY, 1_u64).await.is_err());
    let world = World::new();
    world.execute(KEY, 7_u64).await.unwrap();
    assert_eq!(world.probe::<u64>(KEY).await.unwrap(), Probed::Done(7));
}

#[tokio::test(start_paused = true)]
async fn faults_are_counted_by_call_and_the_first_plan_counts() {
    let world = World::new()
        .fail_at("charge card", 2, Fault::LostReply)
        .fail_calls("charge card", 2..=3, Fault::NotDone);
    let mut worked = Vec::new();
    for _ in 0..4 {
        worked.push(world.execute(KEY, 1).await.is_ok());
    }
    assert_eq!(worked, [true, false, false, true]);
    assert_eq!(world.calls("charge card"), 4);
    assert_eq!(world.effects("charge card"), 1);
}

/// The order in which five concurrent steps took effect, and were undone.
async fn order_with(seed: u64) -> Vec<String> {
    let world = World::seeded(seed).fail_calls("last", .., Fault::Rejected);
    let mut saga = Saga::builder::<u64>("wide").undo_order(UndoOrder::Parallel);
    let input = saga.input();
    let last = ["a", "b", "c", "d", "e"]
        .into_iter()
        .fold(world.step::<u64>("last"), |last, name| {
            last.after(saga.add(world.step::<u64>(name), input))
        });
    saga.add(last, input);
    let saga = saga.returns(()).unwrap();
    let coordinator = Coordinator::builder(MemoryStore::new())
        .clock(VirtualClock::new())
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "wide", 1).await.unwrap();
    assert_eq!(run.outcome().await.unwrap().word(), "compensated");
    let log = world.log().into_iter();
    log.filter(|event| matches!(event.what, Happened::TookEffect | Happened::Undone))
        .map(|event| event.step)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_seed_fixes_the_order_of_concurrent_completions() {
    let orders = [
        order_with(1).await,
        order_with(2).await,
        order_with(3).await,
    ];
    assert_eq!(order_with(1).await, orders[0]);
    assert!(
        orders[0] != orders[1] || orders[1] != orders[2],
        "{orders:?}"
    );
    for order in &orders {
        assert_eq!(order.len(), 10);
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_whose_answer_was_lost_is_sent_again_and_written_once() {
    for fault in [
        StoreFault::AnswerLost,
        StoreFault::RequestLost,
        StoreFault::NotWritten,
    ] {
        let world = World::new();
        let mut saga = Saga::builder::<u64>("order");
        let input = saga.input();
        let paid = saga.add(world.step::<u64>("charge"), input);
        let saga = saga.returns(paid).unwrap();
        let disk: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let store = CrashingStore::over(Arc::clone(&disk)).fail_at(2, fault);
        let signal = store.crash_signal();
        let coordinator = Coordinator::builder(store)
            .clock(VirtualClock::new())
            .register(&saga)
            .build()
            .await
            .unwrap();
        let run = coordinator.start(&saga, "order-1", 1).await.unwrap();
        assert_eq!(run.outcome().await.unwrap().word(), "completed");
        assert_eq!(signal.appends(), 3, "{fault}: one of them twice");
        let journal = disk.load(&"order-1".into()).await.unwrap().unwrap();
        assert_eq!(journal.records.len(), 2);
        assert_eq!(world.calls("charge"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn virtual_time_goes_on_where_another_clock_ended() {
    use amends::Clock;
    let first = VirtualClock::new();
    tokio::time::advance(Duration::from_secs(90)).await;
    let second = VirtualClock::starting_at(first.now());
    assert_eq!(
        second.now().since(VirtualClock::START),
        Duration::from_secs(90)
    );
}
