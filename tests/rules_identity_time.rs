//! Rules I1 to I4 of the rules of a run: identity, definitions, time.
// Helpers of tests may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "common/undo.rs"]
mod undo;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use amends::journal::{ParkReason, Standing};
use amends::store::{MemoryStore, Store};
use amends::{
    Outcome, PartialResult, RecoveryPolicy, RecoveryStrategy, Retry, RunHandle, RunId, Saga,
    StartError, StartOptions, Timestamp, read_only_fn, step_fn,
};
use undo::{Act, TestStore, World, events, life, records};

const MS: fn(u64) -> Duration = Duration::from_millis;

fn parked<O: std::fmt::Debug>(outcome: Outcome<O>) -> PartialResult {
    match outcome {
        Outcome::Parked(partial) => partial,
        other => panic!("{other:?}"),
    }
}

/// One step that records its call and gives the number of keys of its input.
fn count_keys(world: &Arc<World>, name: &str, version: u32) -> Saga<HashMap<String, u32>, usize> {
    let mut b = Saga::builder::<HashMap<String, u32>>(name).version(version);
    let input = b.input();
    let acted = b.add(world.step("act"), ());
    let count = b.add(
        read_only_fn("count", async |_cx, keys: &HashMap<String, u32>| {
            Ok(keys.len())
        })
        .after(acted),
        input,
    );
    b.returns(count).unwrap()
}

fn hundred_keys() -> HashMap<String, u32> {
    (0..100)
        .map(|number| (format!("key {number}"), number))
        .collect()
}

async fn i1_on(store: &Arc<impl Store>) {
    let world = World::new();
    let (one, two) = (
        count_keys(&world, "count", 1),
        count_keys(&world, "count", 2),
    );
    let other = count_keys(&world, "another", 1);
    let coordinator = world
        .coordinator(store)
        .register(&one)
        .register(&two)
        .register(&other)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&one, "r", hundred_keys()).await.unwrap();
    assert_eq!(run.outcome().await.unwrap().completed(), Some(100));
    let written = records(&**store, "r").await;

    // The same start again, and one by a newer version: that run, and nothing is executed. A map's order
    // differs from one to the next, which its canonical JSON does not.
    for saga in [&one, &two] {
        let again: RunHandle<usize> = coordinator.start(saga, "r", hundred_keys()).await.unwrap();
        assert_eq!(again.id(), run.id());
        assert_eq!(again.outcome().await.unwrap().completed(), Some(100));
    }
    // Anything else is an error.
    let mut less = hundred_keys();
    less.remove("key 7");
    let refused = coordinator.start(&one, "r", less).await.unwrap_err();
    assert!(
        matches!(&refused, StartError::OtherInput { .. }),
        "{refused:?}"
    );
    assert_eq!(
        refused.to_string(),
        "run `r` was started with another input: a new input needs a new id"
    );
    let refused = coordinator
        .start(&other, "r", hundred_keys())
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, StartError::OtherSaga { .. }),
        "{refused:?}"
    );
    assert_eq!(
        refused.to_string(),
        "run `r` is a run of saga `count`, not of `another`: choose another id"
    );
    assert_eq!(world.began(), ["do act"]);
    assert_eq!(records(&**store, "r").await, written);
    assert_eq!(coordinator.driving(), 0);
}

#[tokio::test(start_paused = true)]
async fn i1_the_same_id_saga_and_input_give_the_same_run_and_anything_else_is_an_error() {
    i1_on(&Arc::new(MemoryStore::new())).await;
    i1_on(&TestStore::new()).await;
}

#[tokio::test(start_paused = true)]
async fn i1_many_starts_at_once_are_one_run() {
    let world = World::new();
    let store = TestStore::new();
    store.delay(MS(100));
    let saga = count_keys(&world, "count", 1);
    world.on("do act", [Act::Done.after(1_000)]);
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let mut starts = tokio::task::JoinSet::new();
    for number in 0..20 {
        let (coordinator, saga) = (coordinator.clone(), saga.clone());
        starts.spawn(async move {
            tokio::time::sleep(MS(number * 70)).await;
            let run = coordinator.start(&saga, "r", hundred_keys()).await.unwrap();
            run.outcome().await.unwrap().completed()
        });
    }
    assert_eq!(starts.join_all().await, vec![Some(100); 20]);
    assert_eq!(world.began(), ["do act"]);
    assert_eq!(
        events(&*store, "r").await,
        [
            "run_started",
            "step_started act",
            "step_done act",
            "step_started count",
            "step_done count",
            "ended completed"
        ]
    );
}

#[test]
fn i1_a_run_of_an_earlier_life_is_the_same_run_and_goes_on() {
    // Starting it again comes before the coordinator has looked at its open runs, and while.
    for delay in [0, 100] {
        let world = World::new();
        let store = TestStore::new();
        let saga = count_keys(&world, "count", 1);
        world.on("do act", [Act::Hang]);
        life(&world, async || {
            let coordinator = world
                .coordinator(&store)
                .register(&saga)
                .build()
                .await
                .unwrap();
            coordinator.start(&saga, "r", hundred_keys()).await.unwrap();
        });
        store.delay(MS(delay));
        life(&world, async || {
            let coordinator = world
                .coordinator(&store)
                .register(&saga)
                .build()
                .await
                .unwrap();
            let run = coordinator.start(&saga, "r", hundred_keys()).await.unwrap();
            let outcome = tokio::time::timeout(MS(60_000), run.outcome()).await;
            let outcome = outcome.expect("somebody drives it").unwrap();
            assert_eq!(outcome.completed(), Some(100), "{delay}");
        });
        assert_eq!(world.began(), ["do act", "do act"], "{delay}");
        let calls = world.calls();
        assert_eq!(calls[0].key, calls[1].key);
        assert_eq!((calls[0].fence, calls[1].fence), (1, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn i1_the_memory_store_keeps_ended_runs_up_to_its_bound_and_open_ones_always() {
    let world = World::new();
    let store = Arc::new(MemoryStore::new().keep_ended(2));
    let saga = count_keys(&world, "count", 1);
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    world.on("do act", [Act::Done.after(60_000)]);
    let open = coordinator
        .start(&saga, "open", hundred_keys())
        .await
        .unwrap();
    tokio::time::sleep(MS(1)).await;
    for id in ["1", "2", "3"] {
        let run = coordinator.start(&saga, id, hundred_keys()).await.unwrap();
        run.outcome().await.unwrap();
    }
    assert_eq!(store.len(), 3);
    assert!(store.find(&"1".into()).await.unwrap().is_none());
    assert!(store.find(&"2".into()).await.unwrap().is_some());
    // The oldest is forgotten, and so is that its id was used.
    let again = coordinator.start(&saga, "1", HashMap::new()).await.unwrap();
    assert_eq!(again.outcome().await.unwrap().completed(), Some(0));
    assert_eq!(open.outcome().await.unwrap().completed(), Some(100));
    assert_eq!(MemoryStore::KEPT, 1_000);
}

#[tokio::test(start_paused = true)]
async fn i1_ids_that_no_store_could_keep_are_refused() {
    let world = World::new();
    let store = Arc::new(MemoryStore::new());
    let saga = count_keys(&world, "count", 1);
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    for (length, fits) in [(0, false), (1, true), (512, true), (513, false)] {
        let start = coordinator
            .start(&saga, "x".repeat(length), HashMap::new())
            .await;
        match start {
            Ok(_) => assert!(fits, "{length}"),
            Err(StartError::BadId { length: found }) => assert!(!fits && found == length),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(store.len(), 2);
}

/// A small saga with everything that a fingerprint may or may not see.
struct Shape {
    saga: &'static str,
    version: u32,
    names: [&'static str; 3],
    read_only: bool,
    checkpoint: bool,
    pivot: bool,
    edge: bool,
    mapped: bool,
    returns_first: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Shape {
            saga: "shape",
            version: 1,
            names: ["a", "b", "c"],
            read_only: false,
            checkpoint: false,
            pivot: false,
            edge: false,
            mapped: false,
            returns_first: false,
        }
    }
}

impl Shape {
    fn fingerprint(&self) -> String {
        let [a, b, c] = self.names;
        let mut builder = Saga::builder::<u64>(self.saga).version(self.version);
        let input = builder.input();
        let first = builder.add(number(a), input);
        let second = if self.read_only {
            read_only_fn(b, async |_cx, n: &u64| Ok(*n))
        } else {
            number(b)
        };
        let second = if self.checkpoint {
            second.checkpoint()
        } else {
            second
        };
        let second = if self.mapped {
            builder.add(second, first.map(|n| n + 1))
        } else {
            builder.add(second, first)
        };
        let mut third = number(c);
        if self.edge {
            third = third.after(first);
        }
        if self.pivot {
            third = third.pivot();
        }
        let third = builder.add(third, second);
        let returned = if self.returns_first { first } else { third };
        let saga = builder.returns(returned).unwrap();
        saga.fingerprint().to_owned()
    }
}

fn number(name: &str) -> amends::StepSpec<u64, u64> {
    step_fn(
        name,
        async |_cx, n: &u64| Ok(*n),
        async |_cx, _n: &u64, _effect| Ok(()),
    )
}

#[test]
fn i2_the_fingerprint_covers_names_kinds_edges_checkpoints_and_forms() {
    let plain = Shape::default().fingerprint();
    assert_eq!(plain.len(), 32);
    // The version vouches for what can't be seen, and is no part of the structure.
    let newer = Shape {
        version: 2,
        ..Shape::default()
    };
    assert_eq!(newer.fingerprint(), plain);
    let others = [
        Shape {
            saga: "form",
            ..Shape::default()
        },
        Shape {
            names: ["a", "b", "d"],
            ..Shape::default()
        },
        Shape {
            read_only: true,
            ..Shape::default()
        },
        Shape {
            checkpoint: true,
            ..Shape::default()
        },
        Shape {
            pivot: true,
            ..Shape::default()
        },
        Shape {
            edge: true,
            ..Shape::default()
        },
        Shape {
            mapped: true,
            ..Shape::default()
        },
        Shape {
            returns_first: true,
            ..Shape::default()
        },
    ];
    let mut seen = vec![plain];
    for other in others {
        let fingerprint = other.fingerprint();
        assert!(!seen.contains(&fingerprint), "{fingerprint} is there twice");
        seen.push(fingerprint);
    }
}

#[test]
fn i2_the_fingerprint_does_not_see_retries_time_outs_policies_types_bodies_or_the_order_of_adding()
{
    let world = World::new();
    let mut b = Saga::builder::<u64>("same");
    let n = b.input();
    let one = b.add(number("one"), n);
    let two = b.add(number("two"), n);
    let plain = b.returns((one, two.map(|n| n + 1))).unwrap();

    let mut b = Saga::builder::<String>("same")
        .deadline(MS(1))
        .policy(RecoveryPolicy::by_progress())
        .siblings(amends::Siblings::Stop { grace: MS(1) })
        .undo_order(amends::UndoOrder::Sequential)
        .on_stop(amends::OnStop::Compensate);
    let text = b.input();
    // Added the other way round, with other types, bodies and settings.
    let two = b.add(
        step_fn(
            "two",
            async |_cx, text: &String| Ok(text.len()),
            async |_cx, _text: &String, _effect| Err(amends::StepError::rejected("never")),
        )
        .retry(Retry::none())
        .compensation_retry(Retry::none())
        .timeout(MS(1))
        .compensation_timeout(MS(1))
        .max_in_flight(1)
        .atomic()
        .at_most_once()
        .undo_failing(amends::UndoRule::Always),
        text,
    );
    let one = b.add(
        step_fn(
            "one",
            async |_cx, text: &String| Ok(text.clone()),
            async |_cx, _text: &String, _effect| Ok(()),
        ),
        text,
    );
    let dressed = b.returns((one, two.map(|n| n * 1_000))).unwrap();
    assert_eq!(plain.fingerprint(), dressed.fingerprint());

    let mut b = Saga::builder::<()>("same");
    let asked = b.add(world.probed("asked"), ());
    let probed = b.returns(asked).unwrap();
    let mut b = Saga::builder::<()>("same");
    let unasked = b.add(world.step("asked"), ());
    let unprobed = b.returns(unasked).unwrap();
    assert_eq!(probed.fingerprint(), unprobed.fingerprint());
}

/// Two steps, and one more where it is said so.
fn grown(world: &Arc<World>, version: u32, more: bool) -> Saga<(), String> {
    let mut b = Saga::builder::<()>("grown").version(version);
    let first = b.add(world.step("first"), ());
    let mut last = b.add(world.step("last").after(first), ());
    if more {
        last = b.add(world.step("more").after(last).checkpoint(), ());
    }
    b.returns(last).unwrap()
}

/// A run that a crash has interrupted in its second step.
fn interrupted(world: &Arc<World>, store: &Arc<TestStore>, saga: &Saga<(), String>) {
    world.on("do last", [Act::Hang]);
    life(world, async || {
        let coordinator = world
            .coordinator(store)
            .register(saga)
            .build()
            .await
            .unwrap();
        coordinator.start(saga, "r", ()).await.unwrap();
        world.seen("do last", 1).await;
    });
    world.forget();
}

#[test]
fn i3_a_run_whose_definition_is_nowhere_is_listed_and_untouched_and_goes_on_by_itself() {
    let world = World::new();
    let store = TestStore::new();
    let (old, new) = (grown(&world, 1, false), grown(&world, 2, true));
    interrupted(&world, &store, &old);
    let sent = store.sent();
    life(&world, async || {
        let coordinator = world
            .coordinator(&store)
            .register(&new)
            .build()
            .await
            .unwrap();
        assert_eq!(coordinator.all_resumed().await, 0);
        tokio::time::sleep(MS(3_600_000)).await;
        let listed = coordinator.without_definition(10).await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].run, RunId::new("r"));
        assert_eq!((listed[0].saga.as_str(), listed[0].version), ("grown", 1));
        assert_eq!(listed[0].standing, Standing::Running);
        assert_eq!(coordinator.driving(), 0);
        // It can be looked at all the same, with what its store knows of its definition.
        let partial = coordinator.get(&"r".into()).await.unwrap().unwrap();
        assert_eq!((partial.completed, partial.total), (1, 2));
        assert!(partial.parked.is_none());
        assert_eq!(coordinator.without_definition(0).await.unwrap(), []);
    });
    assert_eq!(world.began(), [""; 0]);
    assert_eq!(store.sent(), sent, "no event is written about it");
    life(&world, async || {
        let coordinator = world
            .coordinator(&store)
            .register(&new)
            .register(&old)
            .build()
            .await
            .unwrap();
        let run = coordinator
            .attach(&old, &"r".into())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(run.outcome().await.unwrap().word(), "completed");
        assert_eq!(coordinator.without_definition(10).await.unwrap(), []);
    });
    assert_eq!(world.began(), ["do last"]);
}

#[test]
fn i3_a_run_parks_only_where_its_name_and_version_have_another_fingerprint() {
    let world = World::new();
    let store = TestStore::new();
    let (old, changed) = (grown(&world, 1, false), grown(&world, 1, true));
    interrupted(&world, &store, &old);
    life(&world, async || {
        let coordinator = world
            .coordinator(&store)
            .register(&changed)
            .build()
            .await
            .unwrap();
        let run = coordinator
            .attach(&changed, &"r".into())
            .await
            .unwrap()
            .unwrap();
        let partial = parked(run.outcome().await.unwrap());
        let parking = partial.parked.unwrap();
        assert_eq!(parking.reason, ParkReason::DefinitionChanged);
        assert_eq!(
            parking.message,
            "saga `grown` version 1 has changed since the run was started: step `more` is new. \
             Register the old structure, give the new one another version, or declare a migration"
        );
        assert_eq!(coordinator.without_definition(10).await.unwrap(), []);
    });
    assert_eq!(world.began(), [""; 0]);
    // The old structure is back: an operator lets it go on where it was.
    life(&world, async || {
        let coordinator = world
            .coordinator(&store)
            .register(&old)
            .build()
            .await
            .unwrap();
        let run = coordinator
            .attach(&old, &"r".into())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(run.outcome().await.unwrap().word(), "parked");
        coordinator
            .retry(run.id(), RecoveryStrategy::RetryFailed, "me", "put back")
            .await
            .unwrap();
        assert_eq!(run.ended().await.unwrap().word(), "completed");
    });
    assert_eq!(world.began(), ["do last"]);
}

#[test]
fn i3_versions_live_side_by_side_each_with_its_own_runs() {
    let world = World::new();
    let store = TestStore::new();
    let (old, new) = (grown(&world, 1, false), grown(&world, 2, true));
    interrupted(&world, &store, &old);
    life(&world, async || {
        let coordinator = world
            .coordinator(&store)
            .register(&old)
            .register(&new)
            .build()
            .await
            .unwrap();
        let run = coordinator
            .attach(&old, &"r".into())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            run.outcome().await.unwrap().completed().as_deref(),
            Some("last#1")
        );
        let run = coordinator.start(&new, "s", ()).await.unwrap();
        assert_eq!(
            run.outcome().await.unwrap().completed().as_deref(),
            Some("more#1")
        );
        assert_eq!(
            coordinator.get(&"r".into()).await.unwrap().unwrap().version,
            1
        );
        assert_eq!(
            coordinator.get(&"s".into()).await.unwrap().unwrap().version,
            2
        );
    });
    assert_eq!(world.began(), ["do last", "do first", "do last", "do more"]);
}

#[tokio::test]
async fn i3_two_structures_under_one_name_and_version_do_not_make_a_coordinator() {
    let world = World::new();
    let store = Arc::new(MemoryStore::new());
    let error = world
        .coordinator(&store)
        .register(&grown(&world, 1, false))
        .register(&grown(&world, 1, true))
        .build()
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "saga `grown` version 1 is registered twice with different structures: give one of them another version"
    );
}

/// A first step, and a second one after it; any failure parks.
fn with_deadline(world: &Arc<World>, millis: u64) -> Saga<(), String> {
    let manual = RecoveryPolicy::new("ask", RecoveryStrategy::Manual);
    let mut b = Saga::builder::<()>("deadline")
        .deadline(MS(millis))
        .policy(manual);
    let first = b.add(world.step("first"), ());
    let last = b.add(world.step("last").after(first).timeout(MS(3_600_000)), ());
    b.returns(last).unwrap()
}

#[test]
fn i4_deadlines_stand_still_while_a_run_is_parked() {
    // 10 s in all; 4 s are used when the run is parked for a day, over a crash. Then 5 s fit and 7 s don't.
    for (takes, fits) in [(5_000, true), (7_000, false)] {
        let world = World::new();
        let store = TestStore::new();
        let saga = with_deadline(&world, 10_000);
        world.on("do first", [Act::Done.after(3_000)]);
        world.on(
            "do last",
            [Act::Rejected.after(1_000), Act::Done.after(takes)],
        );
        life(&world, async || {
            let coordinator = world
                .coordinator(&store)
                .register(&saga)
                .build()
                .await
                .unwrap();
            let run = coordinator.start(&saga, "r", ()).await.unwrap();
            parked(run.outcome().await.unwrap());
            assert_eq!(world.millis(), 4_000);
            tokio::time::sleep(MS(40_000_000)).await;
        });
        life(&world, async || {
            tokio::time::sleep(MS(46_400_000)).await;
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
            let retried = world.millis();
            assert_eq!(retried, 86_404_000);
            coordinator
                .retry(
                    run.id(),
                    RecoveryStrategy::RetryFailed,
                    "me",
                    "now it works",
                )
                .await
                .unwrap();
            if fits {
                let outcome = run.outcome().await.unwrap();
                assert_eq!(outcome.word(), "completed");
                assert!(!outcome.partial().deadline_passed);
            } else {
                let partial = parked(run.outcome().await.unwrap());
                assert!(partial.deadline_passed);
                let record = store.load(&"r".into()).await.unwrap().unwrap().records;
                let passed = |record: &&amends::journal::Record| {
                    let event = &record.events[0];
                    matches!(
                        event,
                        amends::journal::Event::DeadlinePassed { past_pivot: false }
                    )
                };
                let passed: Vec<Timestamp> = record
                    .iter()
                    .filter(passed)
                    .map(|record| record.at)
                    .collect();
                let began = record[0].at;
                assert_eq!(passed, [began.after(MS(retried + 6_000))]);
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn i4_a_deadline_before_the_pivot_stops_the_forward_part_and_is_put_to_the_policy() {
    let world = World::new();
    let store = Arc::new(MemoryStore::new());
    let mut b = Saga::builder::<()>("late").deadline(MS(5_000));
    let first = b.add(world.step("first"), ());
    let last = b.add(world.step("last").after(first), ());
    let pivot = b.add(world.step("pivot").after(last).pivot(), ());
    let saga = b.returns(pivot).unwrap();
    world.on("do last", [Act::Done.after(8_000)]);
    world.always("undo first", Act::Done.after(20_000));
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    let Outcome::Compensated(partial) = run.outcome().await.unwrap() else {
        panic!("not compensated")
    };
    // What is in flight is awaited, and what it did is undone; the undos take all the time they need.
    assert_eq!(
        world.trace(),
        [
            "do first",
            "did first",
            "do last",
            "did last",
            "undo last",
            "undid last",
            "undo first",
            "undid first"
        ]
    );
    assert_eq!(world.millis(), 28_000);
    assert!(partial.deadline_passed);
    assert_eq!(partial.why.len(), 1);
    assert!(partial.why[0].saw.time_used_up);
    assert_eq!(partial.why[0].rule, "used up");
    let written = events(&*store, "r").await;
    assert_eq!(
        written
            .iter()
            .filter(|event| event.starts_with("deadline_passed"))
            .count(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn i4_a_deadline_wakes_a_run_that_sleeps_longer() {
    let world = World::new();
    let store = Arc::new(MemoryStore::new());
    let mut b = Saga::builder::<()>("asleep").deadline(MS(5_000));
    let first = b.add(world.step("first"), ());
    let last = b.add(
        world
            .step("last")
            .after(first)
            .retry(Retry::constant().initial(MS(600_000))),
        (),
    );
    let saga = b.returns(last).unwrap();
    world.on("do last", [Act::NotDone]);
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    assert_eq!(run.outcome().await.unwrap().word(), "compensated");
    assert_eq!(world.millis(), 5_000);
    assert_eq!(world.began(), ["do first", "do last", "undo first"]);
}

#[tokio::test(start_paused = true)]
async fn i4_past_the_pivot_a_deadline_is_only_reported() {
    // Done before the deadline, or done while it passed.
    for pivot_takes in [1_000, 7_000] {
        let world = World::new();
        let store = Arc::new(MemoryStore::new());
        let mut b = Saga::builder::<()>("past").deadline(MS(5_000));
        let pivot = b.add(world.step("pivot").pivot(), ());
        let last = b.add(world.step("last").after(pivot), ());
        let saga = b.returns(last).unwrap();
        world.on("do pivot", [Act::Done.after(pivot_takes)]);
        world.on("do last", [Act::Done.after(10_000)]);
        let coordinator = world
            .coordinator(&store)
            .register(&saga)
            .build()
            .await
            .unwrap();
        let run = coordinator.start(&saga, "r", ()).await.unwrap();
        let outcome = run.outcome().await.unwrap();
        assert_eq!(outcome.word(), "completed");
        assert!(outcome.partial().deadline_passed);
        assert_eq!(world.began(), ["do pivot", "do last"]);
        assert_eq!(world.millis(), pivot_takes + 10_000);
        let written = events(&*store, "r").await;
        let reported: Vec<&String> = written
            .iter()
            .filter(|event| event.starts_with("deadline_passed"))
            .collect();
        // While the pivot is in flight nobody knows yet.
        let expected: &[&str] = if pivot_takes < 5_000 {
            &["deadline_passed true"]
        } else {
            &["deadline_passed false", "deadline_passed true"]
        };
        assert_eq!(reported, expected);
        assert!(!written.iter().any(|event| event.starts_with("decided")));
    }
}

#[tokio::test(start_paused = true)]
async fn i4_a_start_may_bring_a_deadline_of_its_own() {
    let world = World::new();
    let store = Arc::new(MemoryStore::new());
    let saga = with_deadline(&world, 10_000);
    world.always("do last", Act::Done.after(12_000));
    let coordinator = world
        .coordinator(&store)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let longer = StartOptions::new().deadline(MS(15_000));
    let run = coordinator
        .start_with(&saga, "longer", (), longer)
        .await
        .unwrap();
    assert_eq!(run.outcome().await.unwrap().word(), "completed");
    let run = coordinator.start(&saga, "shorter", ()).await.unwrap();
    assert_eq!(run.outcome().await.unwrap().word(), "parked");
}
