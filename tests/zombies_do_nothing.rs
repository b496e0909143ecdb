//! A worker that was frozen beyond its lease and woken again: whatever it was about to write or to call, it
//! writes over nobody and calls nothing more (rules W1 and W3).
//!
//! A process is frozen by not running it; another one goes on in the same virtual time.
// Helpers of tests may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "common/line.rs"]
mod line;
#[path = "common/undo.rs"]
mod undo;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use amends::journal::Verb;
use amends::store::MemoryStore;
use amends::{Coordinator, Retry, RunId, Saga, delay, read_only, step};
use line::{Held, Line, shared_store};
use undo::{Act, Process, World, events, standing};

const RUN: &str = "r";

/// What happens to a run while nobody disturbs it.
struct Story {
    name: &'static str,
    script: fn(&World),
    saga: fn(&Arc<World>) -> Saga<(), String>,
    /// What is asked of it, and when, in milliseconds.
    asks: Option<(u64, Verb)>,
}

fn chain(world: &Arc<World>) -> Saga<(), String> {
    let mut b = Saga::builder::<()>("story");
    let first = b.add(world.step("a"), ());
    let second = b.add(world.step("b").after(first).retry(Retry::constant()), ());
    let third = b.add(world.step("c").after(second).retry(Retry::none()), ());
    b.returns(third).unwrap()
}

fn probing(world: &Arc<World>) -> Saga<(), String> {
    let mut b = Saga::builder::<()>("story");
    let first = b.add(world.step("a"), ());
    let second = b.add(world.probed("b").after(first).retry(Retry::none()), ());
    b.returns(second).unwrap()
}

fn inside(world: &Arc<World>) -> Saga<(), String> {
    let mut child = Saga::builder::<()>("child");
    let only = child.add(world.step("inner"), ());
    let child = child.returns(only).unwrap();
    let mut b = Saga::builder::<()>("story");
    let first = b.add(step("nested", &child), ());
    let looked = b.add(read_only("look", world.action()).after(first), ());
    let waited = b.add(delay("pause", Duration::from_secs(2)).after(looked), ());
    let last = b.add(world.step("c").after(waited).retry(Retry::none()), ());
    b.returns(last).unwrap()
}

fn stories() -> Vec<Story> {
    let plain: fn(&World) = |_| {};
    vec![
        Story {
            name: "all goes well",
            script: plain,
            saga: chain,
            asks: None,
        },
        Story {
            name: "a step fails for good, and all is undone",
            script: |world| world.always("do c", Act::Rejected),
            saga: chain,
            asks: None,
        },
        Story {
            name: "a step is retried, and an undo too",
            script: |world| {
                world.on("do b", [Act::NotDone, Act::Doubt]);
                world.always("do c", Act::Rejected);
                world.on("undo a", [Act::NotDone]);
            },
            saga: chain,
            asks: None,
        },
        Story {
            name: "a step in doubt is probed",
            script: |world| {
                world.on("do b", [Act::Doubt]);
                world.always("probe b", Act::NotDone);
            },
            saga: probing,
            asks: None,
        },
        Story {
            name: "a step asks to stop",
            script: |world| world.always("do b", Act::Stop),
            saga: chain,
            asks: None,
        },
        Story {
            name: "it is cancelled",
            script: |world| world.on("do b", [Act::Done.after(3_000)]),
            saga: chain,
            asks: Some((1_000, Verb::Cancel)),
        },
        Story {
            name: "steps inside a step, and a pause",
            script: plain,
            saga: inside,
            asks: None,
        },
        Story {
            name: "steps inside a step are undone",
            script: |world| world.always("do c", Act::Rejected),
            saga: inside,
            asks: None,
        },
        Story {
            name: "an undo fails for good, and the run is parked",
            script: |world| {
                world.always("do c", Act::Rejected);
                world.always("undo b", Act::Rejected);
            },
            saga: chain,
            asks: None,
        },
    ]
}

/// One process with a worker, and its line to the store.
struct Life {
    process: Process,
    line: Arc<Line>,
    coordinator: Option<Coordinator>,
}

impl Life {
    fn begin(world: &Arc<World>, store: &Arc<MemoryStore>, saga: &Saga<(), String>) -> Self {
        let (mut process, line) = (Process::new(), Line::to(store));
        let coordinator = process.run(world, async || {
            let builder = world.coordinator(&line).register(saga);
            builder.build().await.unwrap()
        });
        Life {
            process,
            line,
            coordinator: Some(coordinator),
        }
    }

    /// Starts the run, asks what is to be asked, and goes on for so long.
    fn tell(
        &mut self,
        world: &Arc<World>,
        saga: &Saga<(), String>,
        tale: &Story,
        until: impl AsyncFnOnce(),
    ) {
        let coordinator = self.coordinator.clone().unwrap();
        let (saga, asks) = (saga.clone(), tale.asks.clone());
        self.process.run(world, async || {
            let started = coordinator.clone();
            tokio::spawn(async move { drop(started.start(&saga, RUN, ()).await) });
            if let Some((after, verb)) = asks {
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(after)).await;
                    let command = amends::journal::Command::new(RunId::new(RUN), verb);
                    drop(coordinator.command(&command).await);
                });
            }
            until().await;
        });
    }
}

/// How a run ended, in words.
async fn end(coordinator: &Coordinator) -> Option<Vec<String>> {
    Some(standing(&coordinator.get(&RunId::new(RUN)).await.unwrap()?))
}

/// What comes of a tale if nobody disturbs it, and what its worker appends.
fn undisturbed(tale: &Story) -> (Vec<String>, Vec<Vec<String>>) {
    let world = World::new();
    (tale.script)(&world);
    let (store, saga) = (shared_store(&world), (tale.saga)(&world));
    let mut only = Life::begin(&world, &store, &saga);
    only.tell(&world, &saga, tale, async || {
        tokio::time::sleep(Duration::from_secs(300)).await;
    });
    let coordinator = only.coordinator.clone().unwrap();
    let end = only.process.run(&world, async || end(&coordinator).await);
    (end.expect(tale.name), only.line.sent())
}

#[test]
fn w3_a_worker_woken_after_its_lease_writes_over_nobody_and_calls_nothing() {
    let mut kinds = BTreeSet::new();
    let mut woken = 0;
    for tale in stories() {
        let (expected, appends) = undisturbed(&tale);
        for nth in 1..=appends.len() {
            kinds.extend(
                appends[nth - 1]
                    .iter()
                    .map(|event| event.split(' ').next().unwrap().to_owned()),
            );
            for held in [Held::Answer, Held::Request] {
                let at = format!(
                    "{}: append {nth} ({:?}), {held:?} held",
                    tale.name,
                    appends[nth - 1]
                );
                wake_after(&tale, nth, held, &expected, &at);
                woken += 1;
            }
        }
    }
    eprintln!(
        "zombies: {woken} woken, at appends with {}",
        kinds.iter().cloned().collect::<Vec<_>>().join(", ")
    );
    for kind in [
        "run_started",
        "step_started",
        "step_done",
        "step_failed",
        "decided",
        "undo_started",
        "undone",
        "undo_failed",
        "probed",
        "cancel_requested",
        "step_stopped",
        "wait_began",
        "wait_over",
        "parked",
        "ended",
    ] {
        assert!(kinds.contains(kind), "{kind} in {kinds:?}");
    }
}

fn wake_after(tale: &Story, nth: usize, held: Held, expected: &[String], at: &str) {
    let world = World::new();
    (tale.script)(&world);
    let (store, saga) = (shared_store(&world), (tale.saga)(&world));
    let mut zombie = Life::begin(&world, &store, &saga);
    let line = Arc::clone(&zombie.line);
    line.hold(nth, held);
    zombie.tell(&world, &saga, tale, async || line.holds().await);

    // Frozen: another worker has its time.
    let mut other = Life::begin(&world, &store, &saga);
    let taken = other.coordinator.clone().unwrap();
    other.process.run(&world, async || {
        tokio::time::sleep(Duration::from_secs(120)).await;
    });

    // Woken.
    let before = world.began().len();
    line.let_go();
    zombie.process.run(&world, async || {
        tokio::time::sleep(Duration::from_secs(120)).await;
    });
    let after = other.process.run(&world, async || {
        tokio::time::sleep(Duration::from_secs(120)).await;
        end(&taken).await
    });
    let calls = world.calls();
    let late: Vec<_> = calls
        .iter()
        .skip(before)
        .filter(|call| call.fence == 1)
        .collect();
    assert!(late.is_empty(), "{at}: {late:?}");
    // A cancel that was lost with its worker was never acknowledged, so the run may end otherwise.
    if tale.asks.is_none() {
        assert_eq!(
            after.as_deref(),
            Some(expected),
            "{at}: {:?}",
            world.began()
        );
    } else {
        let journal = other
            .process
            .run(&world, async || events(&*store, RUN).await);
        assert!(
            journal.last().unwrap().starts_with("ended"),
            "{at}: {journal:?}"
        );
    }
    for what in world
        .calls()
        .iter()
        .map(|call| call.what.clone())
        .collect::<BTreeSet<_>>()
    {
        let keys: BTreeSet<(u32, String)> = world
            .calls_of(&what)
            .into_iter()
            .map(|call| (call.round, call.key))
            .collect();
        let rounds: BTreeSet<u32> = keys.iter().map(|(round, _)| *round).collect();
        assert_eq!(
            keys.len(),
            rounds.len(),
            "{at}: one key a round of {what}: {keys:?}"
        );
    }
}

#[test]
fn w3_an_attempt_that_was_frozen_beyond_the_lease_goes_not_one_step_further() {
    let world = World::new();
    world.on("do b", [Act::Done.after(10_000), Act::Done.after(5_000)]);
    let (store, saga) = (shared_store(&world), chain(&world));
    let tale = Story {
        name: "",
        script: |_| {},
        saga: chain,
        asks: None,
    };
    let mut zombie = Life::begin(&world, &store, &saga);
    zombie.tell(&world, &saga, &tale, async || {
        tokio::time::sleep(Duration::from_secs(2)).await;
    });
    assert_eq!(world.began(), ["do a", "do b"]);

    let mut other = Life::begin(&world, &store, &saga);
    other.process.run(&world, async || {
        tokio::time::sleep(Duration::from_secs(120)).await;
    });
    assert_eq!(world.began(), ["do a", "do b", "do b", "do c"]);

    zombie.process.run(&world, async || {
        tokio::time::sleep(Duration::from_secs(120)).await;
    });
    let fences: Vec<u64> = world.calls().iter().map(|call| call.fence).collect();
    assert_eq!(fences, [1, 1, 2, 2]);
    // The first `do b` was cut off where it stood: it never came to its end.
    let ends = world
        .trace()
        .iter()
        .filter(|line| line.starts_with("did b"))
        .count();
    assert_eq!(ends, 1, "{:?}", world.trace());
    let written = zombie.line.sent().len();
    assert_eq!(written, 2, "{:?}", zombie.line.sent());
}
