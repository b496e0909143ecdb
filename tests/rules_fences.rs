//! The coordinator's part of rule W4: a stale fence is loss of ownership, and never a step's failure.
// Helpers of tests may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "common/undo.rs"]
mod undo;

use std::sync::Arc;
use std::time::Duration;

use amends::journal::ParkReason;
use amends::store::Store;
use amends::{Outcome, OutcomeError, PartialResult, RecoveryStrategy, Retry, RunHandle, Saga};
use undo::{Act, TestStore, World, events, life};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// `a` before `b`, which is never tried again.
fn pair(world: &Arc<World>) -> Saga<(), String> {
    let mut b = Saga::builder::<()>("pair");
    let first = b.add(world.step("a"), ());
    let second = b.add(world.probed("b").after(first).retry(Retry::none()), ());
    b.returns(second).unwrap()
}

fn fences(world: &World, what: &str) -> Vec<u64> {
    let calls = world.calls_of(what);
    calls.iter().map(|call| call.fence).collect()
}

/// All calls of it have one key, which is told.
fn key(world: &World, what: &str) -> String {
    let calls = world.calls_of(what);
    for call in &calls {
        assert_eq!(call.key, calls[0].key, "{what}");
    }
    calls[0].key.clone()
}

async fn parked(run: &RunHandle<String>) -> PartialResult {
    match run.outcome().await.unwrap() {
        Outcome::Parked(partial) => partial,
        other => panic!("{other:?}"),
    }
}

fn count(events: &[String], word: &str) -> usize {
    events.iter().filter(|event| *event == word).count()
}

#[tokio::test(start_paused = true)]
async fn w4_stale_is_loss_of_ownership_and_the_old_owner_does_not_even_try_to_write() {
    // What the old owner calls for ten seconds, and what has to go before.
    let kinds: [(&str, &[(&str, Act)]); 3] = [
        ("do b", &[]),
        ("probe b", &[("do b", Act::Doubt)]),
        ("undo a", &[("do b", Act::Rejected)]),
    ];
    for (what, before) in kinds {
        let world = World::new();
        let store = TestStore::new();
        let saga = pair(&world);
        for (call, act) in before {
            world.on(call, [act.clone()]);
        }
        world.on(what, [Act::Stale.after(10_000), Act::Done]);
        world.always("probe b", Act::Doubt);
        let old = world.coordinator(&store).worker("old").register(&saga);
        let old = old.build().await.unwrap();
        let lost = old.start(&saga, "r", ()).await.unwrap();
        world.seen(what, 1).await;
        tokio::time::sleep(MS(1_000)).await;

        let new = world.coordinator(&store).worker("new").register(&saga);
        let new = new.build().await.unwrap();
        let run = new.attach(&saga, &"r".into()).await.unwrap().unwrap();
        let expected = if what == "undo a" {
            "compensated"
        } else {
            "completed"
        };
        assert_eq!(run.outcome().await.unwrap().word(), expected, "{what}");
        let sent = store.sent().len();

        let answer = lost.outcome().await;
        assert!(
            matches!(answer, Err(OutcomeError::Lost { .. })),
            "{answer:?}"
        );
        assert_eq!(world.millis(), 10_000, "{what}");
        assert_eq!(old.driving(), 0);
        // Had the refusal been taken for the call's end, an append would have collided.
        assert_eq!(store.sent().len(), sent, "{what}");
        assert_eq!(fences(&world, what), [1, 2], "{what}");
        key(&world, what);
    }
}

#[tokio::test(start_paused = true)]
async fn w4_stale_while_the_run_is_ours_has_it_claimed_anew_and_costs_no_attempt() {
    let world = World::new();
    let store = TestStore::new();
    let saga = pair(&world);
    world.on("do b", [Act::Stale, Act::Stale]);
    world.always("probe b", Act::Doubt);
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    assert_eq!(run.outcome().await.unwrap().word(), "completed");
    assert_eq!(
        events(&*store, "r").await,
        [
            "run_started",
            "step_started a",
            "step_done a",
            "step_started b",
            "claimed",
            "probed b",
            "step_started b",
            "claimed",
            "probed b",
            "step_started b",
            "step_done b",
            "ended completed"
        ]
    );
    assert_eq!(fences(&world, "do b"), [1, 2, 3]);
    assert!(key(&world, "do b").ends_with("/b/1"));
    assert_eq!(world.count("do a"), 1);
}

#[tokio::test(start_paused = true)]
async fn w4_a_participant_that_tells_what_it_has_seen_is_called_above_that_at_once() {
    // As after a restore of the journals: the participant has met later owners.
    for (what, before) in [
        ("do b", None),
        ("probe b", Some(("do b", Act::Doubt))),
        ("undo a", Some(("do b", Act::Rejected))),
    ] {
        let world = World::new();
        let store = TestStore::new();
        let saga = pair(&world);
        if let Some((call, act)) = before {
            world.on(call, [act]);
        }
        world.always("probe b", Act::Doubt);
        world.always(what, Act::From(40));
        let coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        let run = coordinator.start(&saga, "r", ()).await.unwrap();
        let expected = if what == "undo a" {
            "compensated"
        } else {
            "completed"
        };
        assert_eq!(run.outcome().await.unwrap().word(), expected, "{what}");
        assert_eq!(fences(&world, what), [1, 41], "{what}");
        key(&world, what);
        assert_eq!(count(&events(&*store, "r").await, "claimed"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn w4_a_fence_out_of_all_reason_raises_the_runs_by_one_only() {
    for told in [u64::MAX, 10_003] {
        let world = World::new();
        let store = TestStore::new();
        let saga = pair(&world);
        world.on("do b", [Act::From(told)]);
        world.on("probe b", [Act::Doubt]);
        let coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        let run = coordinator.start(&saga, "r", ()).await.unwrap();
        assert_eq!(run.outcome().await.unwrap().word(), "completed");
        assert_eq!(fences(&world, "do b"), [1, 2], "{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn w4_a_run_that_is_ours_and_refused_for_ever_is_parked_after_three_calls_and_can_be_retried()
{
    for (what, before) in [
        ("do b", None),
        ("probe b", Some(("do b", Act::Doubt))),
        ("undo a", Some(("do b", Act::Rejected))),
    ] {
        let world = World::new();
        let store = TestStore::new();
        let saga = pair(&world);
        world.always("probe b", Act::Doubt);
        if let Some((call, act)) = before {
            world.on(call, [act]);
        }
        world.always(what, Act::Stale);
        let coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        let run = coordinator.start(&saga, "r", ()).await.unwrap();
        let partial = parked(&run).await;
        assert_eq!(fences(&world, what), [1, 2, 3], "{what}");
        let parking = partial.parked.as_ref().unwrap();
        assert_eq!(parking.reason, ParkReason::StaleFence, "{what}");
        assert_eq!(
            parking.message,
            "a participant refuses fence 3 of the run as stale (fence 3 is stale: the participant has seen a higher one), \
             and no other coordinator has the run. \
             Either it remembers what the journal does not, as after a restore from a backup, or it errs. \
             The fence is 4 now: a retry calls it under that one"
        );
        let written = events(&*store, "r").await;
        assert_eq!(
            written[written.len() - 2..],
            ["claimed", "parked stale_fence"]
        );
        assert_eq!(count(&written, "claimed"), 3);
        assert_eq!(coordinator.driving(), 0);
        // Nothing is spinning: an hour later nothing was called.
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        assert_eq!(world.count(what), 3);

        world.always(what, Act::From(4));
        let strategy = match what {
            "undo a" => RecoveryStrategy::Compensate,
            _ => RecoveryStrategy::RetryFailed,
        };
        coordinator
            .retry(&"r".into(), strategy, "me", "it was restarted")
            .await
            .unwrap();
        let expected = if what == "undo a" {
            "compensated"
        } else {
            "completed"
        };
        assert_eq!(run.outcome().await.unwrap().word(), expected, "{what}");
        assert_eq!(fences(&world, what), [1, 2, 3, 4], "{what}");
        key(&world, what);
    }
}

#[test]
fn w4_a_run_that_was_interrupted_before_is_parked_for_the_refusal_and_not_for_the_interruptions() {
    let world = World::new();
    let store = TestStore::new();
    let saga = pair(&world);
    world.always("probe b", Act::Doubt);
    world.on("do b", [Act::Hang, Act::Hang, Act::Stale]);
    for times in 1..=2 {
        life(&world, async || {
            let coordinator = world
                .coordinator(&store)
                .register(&saga)
                .build()
                .await
                .unwrap();
            coordinator.start(&saga, "r", ()).await.unwrap();
            world.seen("do b", times).await;
        });
    }
    life(&world, async || {
        let coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        let run = coordinator
            .attach(&saga, &"r".into())
            .await
            .unwrap()
            .unwrap();
        let partial = parked(&run).await;
        assert_eq!(partial.parked.unwrap().reason, ParkReason::StaleFence);
        assert_eq!(fences(&world, "do b"), [1, 2, 3]);
        let journal = store.load(&"r".into()).await.unwrap().unwrap();
        assert_eq!(journal.records.last().unwrap().events.len(), 2);
    });
}

#[tokio::test(start_paused = true)]
async fn w4_what_else_is_in_flight_is_dropped_and_called_again_with_its_key() {
    let world = World::new();
    let store = TestStore::new();
    let mut b = Saga::builder::<()>("fork");
    let left = b.add(world.step("left"), ());
    let right = b.add(world.step("right"), ());
    let saga: Saga<(), (String, String)> = b.returns((left, right)).unwrap();
    world.on("do left", [Act::Done.after(5_000)]);
    world.on("do right", [Act::Stale.after(1_000)]);
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    assert_eq!(run.outcome().await.unwrap().word(), "completed");
    assert_eq!(
        world.trace(),
        [
            "do left",
            "do right",
            "did right",
            "cut left",
            "do left",
            "did left",
            "do right",
            "did right"
        ]
    );
    assert_eq!(world.millis(), 1_000);
    assert_eq!(fences(&world, "do left"), [1, 2]);
    key(&world, "do left");
}
