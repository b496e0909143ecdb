//! A claim whose answer was lost is not sent again, as any other append is: it was made for the journal as it was
//! read, and a fail-over may have taken that back (rule W2). The run is read and claimed anew.
// Helpers of tests may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "common/line.rs"]
mod line;
#[path = "common/undo.rs"]
mod undo;

use std::sync::Arc;
use std::time::Duration;

use amends::Saga;
use amends::journal::Event;
use amends::store::Store as _;
use line::{LEASE, Line, Lost, shared_store};
use undo::{Act, World};

fn pair(world: &Arc<World>) -> Saga<(), String> {
    let mut b = Saga::builder::<()>("pair");
    let first = b.add(world.step("a"), ());
    let second = b.add(world.step("b").after(first), ());
    b.returns(second).unwrap()
}

async fn claimed_again(lost: Lost) -> (Vec<u64>, Vec<u64>) {
    let world = World::new();
    world.on("do b", [Act::Hang]);
    let (store, saga) = (shared_store(&world), pair(&world));
    let first = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    first.start(&saga, "r", ()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(first);

    let line = Line::to(&store);
    line.lose(1, lost);
    let other = world
        .coordinator(&line)
        .register(&saga)
        .build()
        .await
        .unwrap();
    tokio::time::sleep(LEASE * 2).await;
    let run = other.attach(&saga, &"r".into()).await.unwrap().unwrap();
    assert_eq!(run.outcome().await.unwrap().word(), "completed");
    let journal = store.load(&"r".into()).await.unwrap().unwrap();
    let fences = journal
        .records
        .iter()
        .flat_map(|record| &record.events)
        .filter_map(|event| match event {
            Event::Claimed { fence, .. } => Some(*fence),
            _ => None,
        });
    (
        fences.collect(),
        world.calls().iter().map(|call| call.fence).collect(),
    )
}

#[tokio::test(start_paused = true)]
async fn w2_a_claim_that_was_written_is_made_once_more_since_nobody_made_its_calls() {
    assert_eq!(
        claimed_again(Lost::Answer).await,
        (vec![2, 3], vec![1, 1, 3])
    );
}

#[tokio::test(start_paused = true)]
async fn w2_a_claim_that_was_not_written_is_made_again() {
    assert_eq!(claimed_again(Lost::Request).await, (vec![2], vec![1, 1, 2]));
}
