//! A limit of the fleet holds over all workers, and outlives none of them.
// Helpers of tests may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "common/line.rs"]
mod line;
#[path = "common/undo.rs"]
mod undo;

use std::sync::Arc;
use std::time::Duration;

use amends::store::{Fleet as _, MemoryStore, Store};
use amends::{Coordinator, Retry, RunId, Saga};
use line::{LEASE, shared_store};
use undo::{Act, World};

const S: fn(u64) -> Duration = Duration::from_secs;

fn narrow(world: &Arc<World>, most: u32) -> Saga<(), String> {
    let mut b = Saga::builder::<()>("narrow");
    let only = b.add(
        world
            .step("a")
            .max_in_flight_in_fleet(most)
            .retry(Retry::none()),
        (),
    );
    b.returns(only).unwrap()
}

async fn worker(
    world: &Arc<World>,
    store: &Arc<impl Store>,
    saga: &Saga<(), String>,
) -> Coordinator {
    world
        .coordinator(store)
        .register(saga)
        .build()
        .await
        .unwrap()
}

/// The most attempts that were in flight at once.
fn most_at_once(world: &World) -> usize {
    let (mut now, mut most) = (0_usize, 0);
    for line in world.trace() {
        if line.starts_with("do ") || line.starts_with("undo ") {
            now += 1;
        } else {
            now -= 1;
        }
        most = most.max(now);
    }
    most
}

#[tokio::test(start_paused = true)]
async fn attempts_of_all_workers_together_stay_within_the_limit() {
    let world = World::new();
    world.always("do a", Act::Done.after(200));
    let (store, saga) = (shared_store(&world), narrow(&world, 3));
    let workers = [
        worker(&world, &store, &saga).await,
        worker(&world, &store, &saga).await,
        worker(&world, &store, &saga).await,
    ];
    let mut runs = tokio::task::JoinSet::new();
    for run in 0..90 {
        let (here, saga) = (workers[run % 3].clone(), saga.clone());
        runs.spawn(async move {
            let run = here
                .start(&saga, RunId::new(format!("r{run}")), ())
                .await
                .unwrap();
            run.outcome().await.unwrap().word()
        });
    }
    assert_eq!(runs.join_all().await, vec!["completed"; 90]);
    assert_eq!(most_at_once(&world), 3);
    // 90 attempts of 200 ms, 3 at a time: nobody waited long for a free permit.
    assert!(
        (6_000..12_000).contains(&world.millis()),
        "{}",
        world.millis()
    );
    let turns: Vec<u64> = workers.iter().map(Coordinator::resumed).collect();
    assert_eq!(turns, [0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn undos_are_attempts_too() {
    let world = World::new();
    world.always("do b", Act::Rejected);
    world.always("undo a", Act::Done.after(200));
    let mut b = Saga::builder::<()>("narrow");
    let first = b.add(world.step("a").max_in_flight_in_fleet(2), ());
    let second = b.add(world.step("b").after(first), ());
    let saga = b.returns(second).unwrap();
    let store = shared_store(&world);
    let workers = [
        worker(&world, &store, &saga).await,
        worker(&world, &store, &saga).await,
    ];
    let mut runs = tokio::task::JoinSet::new();
    for run in 0..20 {
        let (here, saga) = (workers[run % 2].clone(), saga.clone());
        runs.spawn(async move {
            let run = here
                .start(&saga, RunId::new(format!("r{run}")), ())
                .await
                .unwrap();
            run.outcome().await.unwrap().word()
        });
    }
    assert_eq!(runs.join_all().await, vec!["compensated"; 20]);
    let (mut now, mut most) = (0_usize, 0);
    for line in world.trace() {
        match line.as_str() {
            "undo a" => now += 1,
            "undid a" => now -= 1,
            _ => {}
        }
        most = most.max(now);
    }
    assert_eq!(most, 2);
}

#[tokio::test(start_paused = true)]
async fn permits_of_a_worker_that_is_gone_are_free_after_its_lease() {
    let world = World::new();
    world.on("do a", [Act::Hang]);
    let (store, saga): (Arc<MemoryStore>, _) = (shared_store(&world), narrow(&world, 1));
    let gone = worker(&world, &store, &saga).await;
    let other = worker(&world, &store, &saga).await;
    gone.start(&saga, "held", ()).await.unwrap();
    tokio::time::sleep(S(1)).await;
    let waiting = other.start(&saga, "waits", ()).await.unwrap();
    tokio::time::sleep(S(1)).await;
    assert_eq!(world.began(), ["do a"]);
    drop(gone);
    assert_eq!(waiting.outcome().await.unwrap().word(), "completed");
    let lease = u64::try_from(LEASE.as_millis()).unwrap();
    assert!(
        world.millis() <= 2_000 + lease + 1_000,
        "{}",
        world.millis()
    );
    // The run of the one that is gone was taken over, and had its turn.
    tokio::time::sleep(S(5)).await;
    assert_eq!(world.began().len(), 3);
    let free = store
        .take_permits(&other.worker(), "narrow/a", 1, 5)
        .await
        .unwrap();
    assert_eq!(free, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_is_alone_keeps_the_limit_by_itself() {
    let world = World::new();
    world.always("do a", Act::Done.after(200));
    let (store, saga) = (Arc::new(MemoryStore::new()), narrow(&world, 2));
    let alone = worker(&world, &store, &saga).await;
    let mut runs = tokio::task::JoinSet::new();
    for run in 0..10 {
        let (here, saga) = (alone.clone(), saga.clone());
        runs.spawn(async move {
            let run = here
                .start(&saga, RunId::new(format!("r{run}")), ())
                .await
                .unwrap();
            run.outcome().await.unwrap().word()
        });
    }
    assert_eq!(runs.join_all().await, vec!["completed"; 10]);
    assert_eq!((most_at_once(&world), world.millis()), (2, 1_000));
}
