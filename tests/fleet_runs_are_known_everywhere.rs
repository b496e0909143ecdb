//! A run that one worker drives is awaited, watched, steered and started again from any other.
// Helpers of tests may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "common/line.rs"]
mod line;
#[path = "common/undo.rs"]
mod undo;

use std::sync::Arc;
use std::time::Duration;

use amends::journal::{CancelTold, Command, Standing, Verb};
use amends::store::{MemoryStore, Store};
use amends::{CommandError, Coordinator, RecoveryStrategy, RunId, Saga, StartError, wait_for};
use line::{LEASE, shared_store};
use undo::{Act, World, events};

const S: fn(u64) -> Duration = Duration::from_secs;

fn pair(world: &Arc<World>) -> Saga<u64, String> {
    let mut b = Saga::builder::<u64>("pair");
    let first = b.add(world.step("a"), ());
    let second = b.add(world.step("b").after(first), ());
    b.returns(second).unwrap()
}

async fn two(
    world: &Arc<World>,
    store: &Arc<MemoryStore>,
    saga: &Saga<u64, String>,
) -> (Coordinator, Coordinator) {
    let build = async |name: &str| {
        let builder = world.coordinator(store).worker(name).register(saga);
        builder.build().await.unwrap()
    };
    (build("one").await, build("two").await)
}

/// Nobody but the run's own worker ever claimed it.
async fn was_never_claimed(store: &MemoryStore, run: &str) {
    let events = events(store, run).await;
    assert!(!events.iter().any(|event| event == "claimed"), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn a_run_is_started_here_and_awaited_there() {
    let world = World::new();
    world.always("do b", Act::Done.after(5_000));
    let (store, saga) = (shared_store(&world), pair(&world));
    let (one, two) = two(&world, &store, &saga).await;
    one.start(&saga, "r", 1).await.unwrap();
    let there = two.attach(&saga, &"r".into()).await.unwrap().unwrap();
    let mut watch = two.watch(&"r".into());
    assert_eq!(
        there.outcome().await.unwrap().completed().as_deref(),
        Some("b#1")
    );
    assert!(
        (5_000..5_200).contains(&world.millis()),
        "{}",
        world.millis()
    );
    let mut seen = 0;
    while watch.next().await.unwrap().is_some() {
        seen += 1;
    }
    assert_eq!(seen, events(&*store, "r").await.len());
    was_never_claimed(&store, "r").await;

    // The same start from the other worker gives the same run; another input doesn't.
    let again = two.start(&saga, "r", 1).await.unwrap();
    assert_eq!(again.outcome().await.unwrap().word(), "completed");
    let other = two.start(&saga, "r", 2).await.unwrap_err();
    assert!(matches!(other, StartError::OtherInput { .. }), "{other}");
    assert_eq!(world.count("do b"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_repeated_elsewhere_does_not_take_the_run_away() {
    let world = World::new();
    world.always("do b", Act::Done.after(5_000));
    let (store, saga) = (shared_store(&world), pair(&world));
    let (one, two) = two(&world, &store, &saga).await;
    one.start(&saga, "r", 1).await.unwrap();
    let there = two.start(&saga, "r", 1).await.unwrap();
    assert_eq!(there.outcome().await.unwrap().word(), "completed");
    was_never_claimed(&store, "r").await;
    assert_eq!(world.began(), ["do a", "do b"]);
}

#[tokio::test(start_paused = true)]
async fn many_who_wait_ask_the_store_together() {
    let world = World::new();
    world.always("do b", Act::Done.after(5_000));
    let (store, saga) = (shared_store(&world), pair(&world));
    let (one, two) = two(&world, &store, &saga).await;
    let mut waiting = tokio::task::JoinSet::new();
    for run in 0..100 {
        let run = RunId::new(format!("r{run}"));
        one.start(&saga, run.clone(), 1).await.unwrap();
        let there = two.attach(&saga, &run).await.unwrap().unwrap();
        waiting.spawn(async move { there.outcome().await.unwrap().word() });
    }
    assert_eq!(waiting.join_all().await, vec!["completed"; 100]);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_is_carried_out_by_the_runs_own_worker() {
    let world = World::new();
    world.always("do b", Act::Done.after(5_000));
    let (store, saga) = (shared_store(&world), pair(&world));
    let (one, two) = two(&world, &store, &saga).await;
    let run = one.start(&saga, "r", 1).await.unwrap();
    tokio::time::sleep(S(1)).await;
    let told = two
        .cancel(&"r".into(), "me", "changed my mind")
        .await
        .unwrap();
    assert_eq!(told, CancelTold::Accepted);
    assert_eq!(run.outcome().await.unwrap().word(), "compensated");
    was_never_claimed(&store, "r").await;
    let over = two.cancel(&"r".into(), "me", "again").await.unwrap_err();
    assert!(matches!(over, CommandError::Refused { .. }), "{over}");
    let none = two.cancel(&"x".into(), "me", "").await.unwrap_err();
    assert!(matches!(none, CommandError::NoSuchRun { .. }), "{none}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_comes_back_with_what_would_be_taken() {
    let world = World::new();
    world.always("do b", Act::Done.after(5_000));
    let (store, saga) = (shared_store(&world), pair(&world));
    let (one, two) = two(&world, &store, &saga).await;
    one.start(&saga, "r", 1).await.unwrap();
    let strategy = RecoveryStrategy::RetryFailed;
    let here = one
        .retry(&"r".into(), strategy, "me", "")
        .await
        .unwrap_err();
    let there = two
        .retry(&"r".into(), strategy, "me", "")
        .await
        .unwrap_err();
    assert_eq!(there.to_string(), here.to_string());
}

#[tokio::test(start_paused = true)]
async fn a_parked_run_whose_worker_is_gone_is_retried_from_any_other() {
    let world = World::new();
    world.on("do b", [Act::Strange]);
    world.always("undo a", Act::Rejected);
    let (store, saga) = (shared_store(&world), pair(&world));
    let (one, two) = two(&world, &store, &saga).await;
    let run = one.start(&saga, "r", 1).await.unwrap();
    assert_eq!(run.outcome().await.unwrap().word(), "parked");
    let there = two.attach(&saga, &"r".into()).await.unwrap().unwrap();
    assert_eq!(there.outcome().await.unwrap().word(), "parked");
    drop(run);
    drop(one);
    tokio::time::sleep(LEASE * 2).await;
    assert_eq!(two.resumed(), 0, "a parked run waits for an operator");
    world.always("undo a", Act::Done);
    two.retry(&"r".into(), RecoveryStrategy::RetryAll, "me", "mended")
        .await
        .unwrap();
    assert_eq!(there.ended().await.unwrap().word(), "completed");
    let claims = events(&*store, "r").await;
    assert_eq!(claims.iter().filter(|event| *event == "claimed").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_command_in_the_store_is_carried_out_once_by_the_worker_that_has_the_code() {
    let world = World::new();
    world.always("do a", Act::Done.after(20_000));
    let (store, saga) = (shared_store(&world), pair(&world));
    let stranger = {
        let mut b = Saga::builder::<u64>("other");
        let only = b.add(world.step("z"), ());
        b.returns(only).unwrap()
    };
    let foreign = world
        .coordinator(&store)
        .worker("foreign")
        .register(&stranger)
        .build()
        .await
        .unwrap();
    let (one, two) = two(&world, &store, &saga).await;
    one.start(&saga, "r", 1).await.unwrap();
    tokio::time::sleep(S(1)).await;
    let pause = Command::new("r", Verb::Pause).by("me").reason("look");
    store.submit(&pause).await.unwrap();
    tokio::time::sleep(S(21)).await;
    let standing = store.find(&"r".into()).await.unwrap().unwrap().standing;
    assert_eq!(standing, Standing::Paused);
    was_never_claimed(&store, "r").await;

    // Its worker goes. The one without the code leaves it to the other.
    one.shutdown().await;
    let resume = Command::new("r", Verb::Resume).by("me").reason("seen");
    foreign.command(&resume).await.unwrap();
    let run = two.attach(&saga, &"r".into()).await.unwrap().unwrap();
    assert_eq!(run.outcome().await.unwrap().word(), "completed");
    assert_eq!(foreign.worker().split('-').next(), Some("foreign"));
    let journal = store.load(&"r".into()).await.unwrap().unwrap();
    let claimed: Vec<String> = journal
        .records
        .iter()
        .flat_map(|record| &record.events)
        .filter_map(|event| match event {
            amends::journal::Event::Claimed { worker, .. } => Some(worker.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(claimed, [two.worker()]);
}

#[tokio::test(start_paused = true)]
async fn a_signal_from_any_worker_reaches_the_wait() {
    let world = World::new();
    let mut b = Saga::builder::<u64>("waits");
    let paid = b.add(wait_for::<u64>("paid"), ());
    let saga = b.returns(paid).unwrap();
    let store = shared_store(&world);
    let build = async || {
        world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap()
    };
    let (one, two) = (build().await, build().await);
    let run = one.start(&saga, "r", 1).await.unwrap();
    tokio::time::sleep(S(1)).await;
    two.signal(&"r".into(), "paid", 7_u64).await.unwrap();
    assert_eq!(run.outcome().await.unwrap().completed(), Some(7));
}

#[tokio::test(start_paused = true)]
async fn workers_are_listed_with_what_they_are_and_own() {
    let world = World::new();
    world.always("do b", Act::Hang);
    let (store, saga) = (shared_store(&world), pair(&world));
    let builder = world
        .coordinator(&store)
        .worker("shop")
        .worker_label("zone", "a");
    let shop = builder.register(&saga).build().await.unwrap();
    let (one, _two) = two(&world, &store, &saga).await;
    shop.start(&saga, "r", 1).await.unwrap();
    tokio::time::sleep(S(1)).await;
    drop(shop);
    tokio::time::sleep(LEASE / 2).await;
    let told: Vec<(String, bool, u64)> = one
        .workers()
        .await
        .unwrap()
        .into_iter()
        .map(|entry| (entry.worker.name, entry.live, entry.runs))
        .collect();
    let named = |name: &str, runs| (name.to_owned(), true, runs);
    assert_eq!(told, [named("one", 0), named("shop", 1), named("two", 0)]);
    let shop = one.workers().await.unwrap().remove(1).worker;
    assert_eq!(shop.labels["zone"], "a");
    assert_eq!(shop.definitions, [("pair".to_owned(), 1)]);
}
