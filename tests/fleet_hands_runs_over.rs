//! What a worker drove is taken up by the others when it is gone: at once where it says so, after its lease
//! where it doesn't, and not before.
// Helpers of tests may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "common/line.rs"]
mod line;
#[path = "common/undo.rs"]
mod undo;

use std::sync::Arc;
use std::time::Duration;

use amends::store::{MemoryStore, Store};
use amends::{Coordinator, RunId, Saga, delay};
use line::{LEASE, LOOK, Line, shared_store};
use undo::{Act, World, events};

const S: fn(u64) -> Duration = Duration::from_secs;

fn pair(world: &Arc<World>) -> Saga<(), String> {
    let mut b = Saga::builder::<()>("pair");
    let first = b.add(world.step("a"), ());
    let second = b.add(world.step("b").after(first), ());
    b.returns(second).unwrap()
}

async fn worker(
    world: &Arc<World>,
    store: &Arc<impl Store>,
    name: &str,
    saga: &Saga<(), String>,
) -> Coordinator {
    let builder = world.coordinator(store).worker(name).register(saga);
    builder.build().await.unwrap()
}

/// When the second try of `b` began, in milliseconds.
fn taken_over_at(world: &World) -> u64 {
    world.calls_of("do b")[1].at
}

#[tokio::test(start_paused = true)]
async fn a_dead_workers_run_is_taken_over_within_its_lease_and_a_second() {
    let world = World::new();
    world.on("do b", [Act::Hang]);
    let (store, saga) = (shared_store(&world), pair(&world));
    let first = worker(&world, &store, "first", &saga).await;
    let other = worker(&world, &store, "other", &saga).await;
    first.start(&saga, "r", ()).await.unwrap();
    tokio::time::sleep(S(25)).await;
    assert_eq!(world.count("do b"), 1, "its lease is renewed");

    let died = world.millis();
    drop(first);
    let run = other.attach(&saga, &"r".into()).await.unwrap().unwrap();
    assert_eq!(run.outcome().await.unwrap().word(), "completed");
    let took = taken_over_at(&world) - died;
    // The lease was last renewed up to a third of it before.
    let lease = u64::try_from(LEASE.as_millis()).unwrap();
    assert!((lease / 2..=lease + 1_000).contains(&took), "{took} ms");
    let fences: Vec<u64> = world.calls().iter().map(|call| call.fence).collect();
    assert_eq!(fences, [1, 1, 2]);
    assert_eq!(other.resumed(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_shuts_down_hands_its_runs_over_at_once() {
    let world = World::new();
    world.on("do b", [Act::Hang]);
    let (store, saga) = (shared_store(&world), pair(&world));
    let builder = world.coordinator(&store).register(&saga);
    let first = builder.shutdown_grace(S(1)).build().await.unwrap();
    let other = worker(&world, &store, "other", &saga).await;
    first.start(&saga, "r", ()).await.unwrap();
    tokio::time::sleep(S(1)).await;
    first.shutdown().await;
    let left = world.millis();

    let run = other.attach(&saga, &"r".into()).await.unwrap().unwrap();
    assert_eq!(run.outcome().await.unwrap().word(), "completed");
    let look = u64::try_from(LOOK.as_millis()).unwrap();
    let took = taken_over_at(&world) - left;
    assert!(took <= look * 6 / 5, "{took} ms");
    let workers = other.workers().await.unwrap();
    assert_eq!(workers.len(), 1);
    assert_eq!(workers[0].worker.name, "other");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_waits_is_taken_over_when_its_time_has_come() {
    let world = World::new();
    let mut b = Saga::builder::<()>("waits");
    let first = b.add(world.step("a"), ());
    let pause = b.add(delay("pause", S(600)).after(first), ());
    let last = b.add(world.step("b").after(pause), ());
    let saga = b.returns(last).unwrap();
    let store = shared_store(&world);
    let first = worker(&world, &store, "first", &saga).await;
    let other = worker(&world, &store, "other", &saga).await;
    first.start(&saga, "r", ()).await.unwrap();
    tokio::time::sleep(S(1)).await;
    drop(first);
    tokio::time::sleep(S(590)).await;
    assert_eq!(other.resumed(), 0, "nothing is to be done yet");
    tokio::time::sleep(S(11)).await;
    assert_eq!(world.began(), ["do a", "do b"]);
    assert_eq!(other.resumed(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_cannot_renew_stops_at_two_thirds_and_joins_again_under_another_name() {
    let world = World::new();
    world.on("do b", [Act::Hang, Act::Done.after(20_000)]);
    let (store, saga) = (shared_store(&world), pair(&world));
    let line = Line::to(&store);
    let cut_off = worker(&world, &line, "w", &saga).await;
    let run = cut_off.start(&saga, "r", ()).await.unwrap();
    tokio::time::sleep(S(1)).await;
    assert_eq!(cut_off.driving(), 1);
    let old = cut_off.worker();

    line.cut();
    tokio::time::sleep(LEASE / 3 * 2).await;
    assert_eq!(cut_off.driving(), 0, "it has stopped itself");
    assert_eq!(world.trace().last().unwrap(), "cut b");
    assert_eq!(events(&*store, "r").await.len(), 4);
    let late = cut_off.start(&saga, "s", ()).await.unwrap_err().to_string();
    assert!(late.contains("has lost its lease"), "{late}");

    // Nobody else is there: it takes up its own run again, as somebody else.
    line.mend();
    assert_eq!(run.outcome().await.unwrap().word(), "completed");
    assert_ne!(cut_off.worker(), old);
    let fences: Vec<u64> = world.calls().iter().map(|call| call.fence).collect();
    assert_eq!(fences, [1, 1, 2]);
    assert_eq!(
        cut_off
            .start(&saga, "s", ())
            .await
            .unwrap()
            .outcome()
            .await
            .unwrap()
            .word(),
        "completed"
    );
}

#[tokio::test(start_paused = true)]
async fn runs_of_nobody_spread_over_all_who_have_room() {
    let world = World::new();
    world.always("do a", Act::Done.after(1_000));
    let (store, saga) = (shared_store(&world), pair(&world));
    // Started by workers that are gone.
    for run in 0..300 {
        let gone = worker(&world, &store, "gone", &saga).await;
        drop(
            gone.start(&saga, RunId::new(format!("r{run}")), ())
                .await
                .unwrap(),
        );
        drop(gone);
    }
    tokio::time::sleep(LEASE).await;
    let all = async |store: &Arc<MemoryStore>, name: &str| {
        let builder = world.coordinator(store).worker(name).register(&saga);
        builder.max_runs(50).build().await.unwrap()
    };
    let early = all(&store, "early").await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!((early.driving(), early.resumed()), (50, 50));
    let joined = all(&store, "joined").await;
    while early.resumed() + joined.resumed() < 300 {
        tokio::time::sleep(S(1)).await;
    }
    assert!(
        joined.resumed() >= 100,
        "{} and {}",
        early.resumed(),
        joined.resumed()
    );
    tokio::time::sleep(S(10)).await;
    let ended = store.counts().await.unwrap();
    assert_eq!(ended.standing(amends::journal::Standing::Completed), 300);
    // Each was claimed once, by one of them.
    let fences: Vec<u64> = world
        .calls_of("do b")
        .iter()
        .map(|call| call.fence)
        .collect();
    assert_eq!(fences, vec![2; 300]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_takes_up_only_runs_whose_definition_it_has() {
    let world = World::new();
    let store = shared_store(&world);
    let version = |version: u32| {
        let mut b = Saga::builder::<()>("pair").version(version);
        let first = b.add(world.step("a"), ());
        let second = b.add(world.step("b").after(first), ());
        b.returns(second).unwrap()
    };
    let (old, new) = (version(1), version(2));
    world.on("do b", [Act::Hang, Act::Hang]);
    let first = world
        .coordinator(&store)
        .register(&old)
        .register(&new)
        .build()
        .await
        .unwrap();
    first.start(&old, "old", ()).await.unwrap();
    first.start(&new, "new", ()).await.unwrap();
    tokio::time::sleep(S(1)).await;
    drop(first);

    let only_new = worker(&world, &store, "new", &new).await;
    tokio::time::sleep(LEASE * 2).await;
    let ends = async |run: &str| events(&*store, run).await.last().unwrap().clone();
    assert_eq!(ends("new").await, "ended completed");
    assert_eq!(ends("old").await, "step_started b");
    let waiting = only_new.without_definition(10).await.unwrap();
    assert_eq!(waiting.len(), 1);

    let only_old = worker(&world, &store, "old", &old).await;
    tokio::time::sleep(S(2)).await;
    assert_eq!(ends("old").await, "ended completed");
    assert_eq!((only_new.resumed(), only_old.resumed()), (1, 1));
}
