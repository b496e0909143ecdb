//! Rules W1 to W3 of the rules of a run: ownership and commits.
// Helpers of tests may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "common/undo.rs"]
mod undo;

use std::sync::Arc;
use std::time::Duration;

use amends::journal::{AppendId, Event, ParkReason, Record, Standing};
use amends::store::{Append, AppendError, Damage, MemoryStore, Store};
use amends::{CommandError, OutcomeError, Retry, RunId, Saga, StartError};
use undo::{Act, Answer, TestStore, World, events, life, records};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// `a` before `b` before `c`.
fn chain(world: &Arc<World>) -> Saga<(), String> {
    let mut b = Saga::builder::<()>("chain");
    let first = b.add(world.step("a"), ());
    let second = b.add(world.step("b").after(first), ());
    let third = b.add(world.step("c").after(second).retry(Retry::none()), ());
    b.returns(third).unwrap()
}

#[tokio::test(start_paused = true)]
async fn w1_a_claim_takes_the_next_sequence_and_raises_the_fence_so_the_old_owner_collides() {
    let world = World::new();
    let store = Arc::new(MemoryStore::new());
    let saga = chain(&world);
    world.on("do b", [Act::Done.after(10_000), Act::Done.after(15_000)]);
    let old = world
        .coordinator(&store)
        .worker("old")
        .register(&saga)
        .build()
        .await
        .unwrap();
    let lost = old.start(&saga, "r", ()).await.unwrap();
    tokio::time::sleep(MS(1_000)).await;
    let before = store
        .load(&"r".into())
        .await
        .unwrap()
        .unwrap()
        .records
        .len() as u64;

    let new = world
        .coordinator(&store)
        .worker("new")
        .register(&saga)
        .build()
        .await
        .unwrap();
    assert_eq!(new.all_resumed().await, 1);
    let run = new.attach(&saga, &"r".into()).await.unwrap().unwrap();
    tokio::time::sleep(MS(1)).await;

    let journal = store.load(&"r".into()).await.unwrap().unwrap();
    let claim = journal.records.last().unwrap();
    assert_eq!(claim.seq, before + 1);
    let Event::Claimed { fence: 2, worker } = &claim.events[0] else {
        panic!("{:?}", claim.events)
    };
    assert_eq!(*worker, new.worker());
    assert!(worker.starts_with("new-"));

    // The old owner still has its attempt in flight; its result collides, and it does nothing more.
    let answer = lost.outcome().await;
    assert!(
        matches!(answer, Err(OutcomeError::Lost { .. })),
        "{answer:?}"
    );
    assert_eq!(world.millis(), 10_000);
    assert_eq!(old.driving(), 0);
    assert_eq!(run.outcome().await.unwrap().word(), "completed");
    assert_eq!(world.began(), ["do a", "do b", "do b", "do c"]);
    let fences: Vec<u64> = world.calls().iter().map(|call| call.fence).collect();
    assert_eq!(fences, [1, 1, 2, 2]);
    let keys: Vec<String> = world
        .calls_of("do b")
        .into_iter()
        .map(|call| call.key)
        .collect();
    assert_eq!(keys[0], keys[1]);
}

#[test]
fn w1_each_claim_raises_the_fence_by_one_and_a_run_that_stays_is_not_claimed_again() {
    let world = World::new();
    let store = TestStore::new();
    let saga = chain(&world);
    world.on("do b", [Act::Hang, Act::Hang]);
    // It rests, and is read again by the same coordinator: no claim.
    world.on("do c", [Act::NotDone]);
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
        assert_eq!(run.outcome().await.unwrap().word(), "completed");
        let written = events(&*store, "r").await;
        assert_eq!(
            written.iter().filter(|event| *event == "claimed").count(),
            2
        );
    });
    let fences: Vec<u64> = world
        .calls_of("do b")
        .iter()
        .map(|call| call.fence)
        .collect();
    assert_eq!(fences, [1, 2, 3]);
    let fences: Vec<u64> = world
        .calls_of("do c")
        .iter()
        .map(|call| call.fence)
        .collect();
    assert_eq!(fences, [3, 3]);
}

#[tokio::test(start_paused = true)]
async fn w2_an_unknown_commit_is_sent_again_the_same_and_nothing_is_done_before_an_answer() {
    for unknown in [Answer::WriteUnknown, Answer::Unknown] {
        let world = World::new();
        let store = TestStore::new();
        let saga = chain(&world);
        // The record that says `a` is done and `b` starts: unknown five times.
        let mut left = 5;
        store.judge(move |sent| {
            if sent.seq == 2 && left > 0 {
                left -= 1;
                unknown
            } else {
                Answer::Write
            }
        });
        let coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        let run = coordinator.start(&saga, "r", ()).await.unwrap();
        tokio::time::sleep(MS(40)).await;
        assert_eq!(
            world.began(),
            ["do a"],
            "{unknown:?}: `b` waits for an answer"
        );
        let outcome = run.outcome().await.unwrap();
        assert_eq!(outcome.word(), "completed");
        assert_eq!(world.began(), ["do a", "do b", "do c"]);
        assert!(
            outcome
                .partial()
                .steps
                .iter()
                .all(|step| step.history.is_empty())
        );
        let again: Vec<_> = store
            .sent()
            .into_iter()
            .filter(|sent| sent.seq == 2)
            .collect();
        assert_eq!(again.len(), 6);
        assert!(again.iter().all(|sent| *sent == again[0]), "{again:?}");
        assert_eq!(
            records(&*store, "r").await,
            [
                vec!["run_started", "step_started a"],
                vec!["step_done a", "step_started b"],
                vec!["step_done b", "step_started c"],
                vec!["step_done c", "ended completed"],
            ]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn w2_a_start_whose_commit_is_unknown_is_sent_again_and_a_refused_one_is_told() {
    // What can't be written later says nothing about what may have been written before.
    for first in [
        vec![Answer::WriteUnknown],
        vec![Answer::Unknown],
        vec![Answer::WriteUnknown, Answer::NotWritten],
        vec![Answer::Unknown, Answer::NotWritten, Answer::NotWritten],
    ] {
        let world = World::new();
        let store = TestStore::new();
        let saga = chain(&world);
        let mut answers = first.clone().into_iter();
        store.judge(move |_| answers.next().unwrap_or(Answer::Write));
        let coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        let run = coordinator.start(&saga, "r", ()).await.unwrap();
        assert_eq!(
            run.outcome().await.unwrap().word(),
            "completed",
            "{first:?}"
        );
        assert_eq!(world.began(), ["do a", "do b", "do c"]);
    }

    let world = World::new();
    let store = TestStore::new();
    let saga = chain(&world);
    store.judge(|_| Answer::NotWritten);
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let error = coordinator.start(&saga, "r", ()).await.unwrap_err();
    assert!(matches!(error, StartError::Closed { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "run `r` was not started: the store did not take it (the disk is full). Start it again with the \
         same id later: if it was written after all, that gives the same run"
    );
    assert_eq!(world.began(), [""; 0]);
    assert_eq!(store.sent().len(), 1);
    store.judge(|_| Answer::Write);
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    assert_eq!(run.outcome().await.unwrap().word(), "completed");
}

#[tokio::test(start_paused = true)]
async fn w2_a_failed_append_is_not_the_steps_failure_and_only_that_run_stalls_with_its_result_kept()
{
    let world = World::new();
    let store = TestStore::new();
    let saga = chain(&world);
    let mut left = 100;
    store.judge(move |sent| {
        if sent.run.as_str() == "stalls" && sent.seq == 3 && left > 0 {
            left -= 1;
            Answer::NotWritten
        } else {
            Answer::Write
        }
    });
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let stalls = coordinator.start(&saga, "stalls", ()).await.unwrap();
    tokio::time::sleep(MS(60_000)).await;
    assert_eq!(world.began(), ["do a", "do b"]);
    for id in ["1", "2", "3"] {
        let run = coordinator.start(&saga, id, ()).await.unwrap();
        assert_eq!(run.outcome().await.unwrap().word(), "completed");
    }
    let outcome = stalls.outcome().await.unwrap();
    assert_eq!(outcome.word(), "completed");
    let partial = outcome.partial();
    assert!(
        partial
            .steps
            .iter()
            .all(|step| step.attempts == 1 && step.history.is_empty())
    );
    assert_eq!(world.count("do b"), 4, "its result was kept: once per run");
    let again: Vec<_> = store
        .sent()
        .into_iter()
        .filter(|sent| sent.run.as_str() == "stalls" && sent.seq == 3)
        .collect();
    assert_eq!(again.len(), 101);
    assert!(again.iter().all(|sent| *sent == again[0]));
}

#[tokio::test(start_paused = true)]
async fn w2_results_that_come_in_while_an_append_stalls_are_kept() {
    let world = World::new();
    let store = TestStore::new();
    let mut b = Saga::builder::<()>("wide");
    let one = b.add(world.step("one"), ());
    let two = b.add(world.step("two"), ());
    let last = b.add(world.step("last").after(one).after(two), ());
    let saga = b.returns(last).unwrap();
    world.on("do two", [Act::Done.after(500)]);
    // The end of `one` can't be written for some seconds; `two` ends meanwhile.
    let mut left = 10;
    store.judge(move |sent| {
        if sent.seq == 2 && left > 0 {
            left -= 1;
            Answer::NotWritten
        } else {
            Answer::Write
        }
    });
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    world.seen("did two", 1).await;
    assert_eq!(world.millis(), 500);
    let outcome = run.outcome().await.unwrap();
    assert_eq!(outcome.word(), "completed");
    assert!(world.millis() > 10_000);
    assert_eq!(
        world.trace()[..4],
        ["do one", "did one", "do two", "did two"]
    );
    assert_eq!(
        records(&*store, "r").await,
        [
            vec!["run_started", "step_started one", "step_started two"],
            vec!["step_done one"],
            vec!["step_done two", "step_started last"],
            vec!["step_done last", "ended completed"],
        ]
    );
}

#[test]
fn w2_a_dead_store_acknowledges_nothing_and_nothing_more_starts() {
    let world = World::new();
    let store = TestStore::new();
    let saga = chain(&world);
    life(&world, async || {
        store.judge(|sent| {
            if sent.run.as_str() == "r" && sent.seq == 2 {
                Answer::Dead
            } else {
                Answer::Write
            }
        });
        let coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        world.on("do a", [Act::Done.after(10), Act::Done.after(60_000)]);
        let run = coordinator.start(&saga, "r", ()).await.unwrap();
        let other = coordinator.start(&saga, "other", ()).await.unwrap();
        for outcome in [run.outcome().await, other.outcome().await] {
            let Err(error) = outcome else {
                panic!("nothing is acknowledged")
            };
            assert!(matches!(error, OutcomeError::Closed { .. }), "{error:?}");
            assert!(error.to_string().contains("the sync failed"), "{error}");
        }
        // The other run was cut off, without waiting for its attempt.
        assert_eq!(world.millis(), 10);
        assert_eq!(world.of_kind("do"), ["a", "a"]);
        assert_eq!(world.of_kind("undo"), [""; 0]);
        let refused = coordinator.start(&saga, "more", ()).await;
        assert!(
            matches!(refused, Err(StartError::Closed { .. })),
            "{refused:?}"
        );
        let refused = coordinator.cancel(&"r".into(), "me", "why").await;
        assert!(
            matches!(refused, Err(CommandError::Closed { .. })),
            "{refused:?}"
        );
        assert_eq!(coordinator.driving(), 0);
    });
    assert_eq!(store.sent().len(), 3);
    // What is true is read from the store by the next one: `a` was not acknowledged, so it is in doubt.
    world.forget();
    store.judge(|_| Answer::Write);
    life(&world, async || {
        let coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        for id in ["r", "other"] {
            let run = coordinator
                .attach(&saga, &id.into())
                .await
                .unwrap()
                .unwrap();
            assert_eq!(run.outcome().await.unwrap().word(), "completed");
        }
    });
    assert_eq!(world.count("do a"), 2);
    assert_eq!(world.count("do c"), 2);
}

#[tokio::test(start_paused = true)]
async fn w2_the_same_append_again_is_a_success_and_another_one_collides() {
    let world = World::new();
    let store = Arc::new(MemoryStore::new());
    let saga = chain(&world);
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    coordinator
        .start(&saga, "r", ())
        .await
        .unwrap()
        .outcome()
        .await
        .unwrap();
    let journal = store.load(&"r".into()).await.unwrap().unwrap();
    for record in journal.records.clone() {
        let append = |record: Record| {
            Append::new(
                RunId::new("r"),
                record,
                journal.steps.clone(),
                Standing::Completed,
            )
        };
        store.append(append(record.clone())).await.unwrap();
        let other = Record {
            append_id: AppendId::random(),
            ..record
        };
        let collided = store.append(append(other)).await;
        assert!(
            matches!(collided, Err(AppendError::Conflict)),
            "{collided:?}"
        );
    }
    assert_eq!(store.load(&"r".into()).await.unwrap().unwrap(), journal);
}

#[tokio::test(start_paused = true)]
async fn w3_an_owner_that_lost_its_run_drops_its_results_starts_nothing_and_undoes_nothing() {
    // What it would have done next: start a step, undo one, end the run, try again later.
    for act in [Act::Done, Act::Rejected, Act::NotDone, Act::Stop] {
        let world = World::new();
        let store = TestStore::new();
        let saga = chain(&world);
        world.on("do b", [act.clone().after(5_000)]);
        let coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        let run = coordinator.start(&saga, "r", ()).await.unwrap();
        tokio::time::sleep(MS(1_000)).await;
        store.judge(|_| Answer::Conflict);
        let before = records(&*store, "r").await;
        let answer = run.outcome().await;
        assert!(
            matches!(answer, Err(OutcomeError::Lost { .. })),
            "{act:?}: {answer:?}"
        );
        let attempts = store.sent().len();
        tokio::time::sleep(MS(3_600_000)).await;
        assert_eq!(world.began(), ["do a", "do b"], "{act:?}");
        assert_eq!(records(&*store, "r").await, before);
        assert_eq!(store.sent().len(), attempts, "it appends nothing more");
        assert_eq!(coordinator.driving(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn w3_an_owner_that_lost_its_run_while_undoing_undoes_nothing_more() {
    let world = World::new();
    let store = TestStore::new();
    let saga = chain(&world);
    world.on("do c", [Act::Rejected]);
    world.on("undo b", [Act::Done.after(5_000)]);
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    world.seen("undo b", 1).await;
    store.judge(|_| Answer::Conflict);
    assert!(matches!(
        run.outcome().await,
        Err(OutcomeError::Lost { .. })
    ));
    tokio::time::sleep(MS(3_600_000)).await;
    assert_eq!(world.of_kind("undo"), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn w3_other_attempts_in_flight_of_a_run_that_is_lost_are_dropped() {
    let world = World::new();
    let store = TestStore::new();
    let mut b = Saga::builder::<()>("wide");
    let one = b.add(world.step("one"), ());
    let two = b.add(world.step("two"), ());
    let last = b.add(world.step("last").after(one).after(two), ());
    let saga = b.returns(last).unwrap();
    world.on("do one", [Act::Done.after(1_000)]);
    world.on("do two", [Act::Done.after(20_000)]);
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    store.judge(|_| Answer::Conflict);
    assert!(matches!(
        run.outcome().await,
        Err(OutcomeError::Lost { .. })
    ));
    tokio::task::yield_now().await;
    assert_eq!(world.trace(), ["do one", "do two", "did one", "cut two"]);
    assert_eq!(world.millis(), 1_000);
}

#[test]
fn a_journal_that_cannot_be_read_is_given_as_parked_with_its_place_and_what_is_wrong() {
    let world = World::new();
    let store = TestStore::new();
    let saga = chain(&world);
    life(&world, async || {
        let coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        coordinator
            .start(&saga, "r", ())
            .await
            .unwrap()
            .outcome()
            .await
            .unwrap();
        store.damage("r", Damage::Checksum);
        let partial = coordinator.get(&"r".into()).await.unwrap().unwrap();
        assert_eq!(partial.standing, Standing::Parked);
        // What comes before the damage is still told.
        assert_eq!(partial.completed, 2);
        let parking = partial.parked.unwrap();
        assert_eq!(parking.reason, ParkReason::Unreadable);
        assert_eq!(
            parking.message,
            "record 4 of run `r` can't be read: its checksum does not match, so the row was changed or damaged"
        );
    });
}
