//! Operators' commands under crashes: each is asked of the coordinator or handed in through the store, and the
//! process is killed before and after every append, and before and after every answer that is kept.
//!
//! What was answered as taken is in the journal once, what was refused is not in it, and none stays without
//! an answer. Run with `--nocapture`: one line per shape says what was explored.
// The helpers below are test code like the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![cfg(feature = "testkit")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends::journal::{InputEdit, ResolvedEffect, SkippedEffect, Verb};
use amends::policy::{RecoveryPolicy, RecoveryStrategy};
use amends::step::Value;
use amends::testkit::{Explored, Explorer, Fault, Scenario, Violation, When, World};
use amends::{PartialResult, Retry, Saga, UndoOrder};

type Built = Saga<u64, ()>;
type Explore = Box<dyn Fn() -> Result<Explored, Violation> + Send + Sync>;
type Ask = fn(&PartialResult) -> Verb;

const DONE: &[&str] = &["completed"];
const EITHER: &[&str] = &["compensated", "completed"];
const DONE_OR_PARKED: &[&str] = &["completed", "parked"];
const GIVEN_UP: &[&str] = &["abandoned", "completed"];
const EITHER_OR_PARKED: &[&str] = &["compensated", "completed", "parked"];

/// What is explored under one name.
struct Shape {
    name: &'static str,
    scenarios: Vec<Explore>,
}

impl Shape {
    fn new(name: &'static str) -> Self {
        Shape {
            name,
            scenarios: Vec::new(),
        }
    }

    /// The same commands both ways: asked, with every recovery killed in turn, and handed in.
    fn told(
        mut self,
        saga: fn(&World) -> Built,
        faults: fn(World) -> World,
        commands: &[(When, Ask)],
        ends: &'static [&'static str],
    ) -> Self {
        for handed_in in [false, true] {
            let (name, commands) = (self.name, commands.to_vec());
            let explore = move || {
                let explorer = Explorer::new(name);
                let explorer = if handed_in { explorer.once() } else { explorer };
                explorer.explore(|| {
                    let world = faults(World::seeded(7));
                    let scenario = Scenario::new(saga(&world), 1, world).ends(ends);
                    commands.iter().fold(scenario, |scenario, &(when, verb)| {
                        if handed_in {
                            scenario.handed_in(when, verb)
                        } else {
                            scenario.asked(when, verb)
                        }
                    })
                })
            };
            self.scenarios.push(Box::new(explore));
        }
        self
    }
}

/// `s0`, `s1` and `s2`, one after the other: one attempt each, and one for each undo.
fn chain(world: &World, policy: RecoveryStrategy) -> Built {
    let mut saga = Saga::builder::<u64>("chain").policy(RecoveryPolicy::new("planned", policy));
    let step = |name: &str| {
        let step = world.step::<u64>(name).retry(Retry::none());
        step.compensation_retry(Retry::none())
    };
    let n = saga.input();
    let s0 = saga.add(step("s0"), n);
    let s1 = saga.add(step("s1").after(s0), n);
    saga.add(step("s2").after(s1), n);
    saga.returns(()).unwrap()
}

fn by_hand(world: &World) -> Built {
    chain(world, RecoveryStrategy::Manual)
}

fn back(world: &World) -> Built {
    chain(world, RecoveryStrategy::Compensate)
}

/// `s0` and `s1` side by side, `s2` after both; undone one by one.
fn fork(world: &World) -> Built {
    let mut saga = Saga::builder::<u64>("fork")
        .policy(RecoveryPolicy::new("planned", RecoveryStrategy::Compensate))
        .undo_order(UndoOrder::Sequential);
    let step = |name: &str| {
        let step = world.step::<u64>(name).retry(Retry::none());
        step.compensation_retry(Retry::none())
    };
    let n = saga.input();
    let s0 = saga.add(step("s0"), n);
    let s1 = saga.add(step("s1"), n);
    saga.add(step("s2").after(s0).after(s1), n);
    saga.returns(()).unwrap()
}

fn retry(strategy: Option<RecoveryStrategy>) -> Verb {
    let edits = Vec::new();
    Verb::Retry { strategy, edits }
}

/// The key of the round that a step is in: the output that its participant would give.
fn key(partial: &PartialResult, step: &str) -> Value {
    let uid = partial.outstanding[0].key.as_deref().unwrap();
    let uid = uid.split('/').next().unwrap();
    let round = partial.step(step).unwrap().round;
    Value::typed(Arc::new(format!("{uid}/{step}/{round}")))
}

fn skip(partial: &PartialResult, effect: SkippedEffect) -> Verb {
    Verb::Skip {
        step: "s2".to_owned(),
        effect,
        output: key(partial, "s2"),
    }
}

fn resolve(step: &str, effect: ResolvedEffect) -> Verb {
    let step = step.to_owned();
    Verb::Resolve { step, effect }
}

fn mark(step: &str) -> Verb {
    let step = step.to_owned();
    Verb::MarkCompensated { step }
}

fn edit() -> Verb {
    Verb::Retry {
        strategy: Some(RecoveryStrategy::RetryFailed),
        edits: vec![InputEdit {
            step: "s2".to_owned(),
            input: Value::typed(Arc::new(70_u64)),
        }],
    }
}

const RETRY_FAILED: Ask = |_| retry(Some(RecoveryStrategy::RetryFailed));
const RETRY_FROM_CHECKPOINT: Ask = |_| retry(Some(RecoveryStrategy::RetryFromCheckpoint));
const RETRY_ALL: Ask = |_| retry(Some(RecoveryStrategy::RetryAll));
const RETRY: Ask = |_| retry(None);
const CANCEL: Ask = |_| Verb::Cancel;
const COMPENSATE: Ask = |_| Verb::Compensate;
const PAUSE: Ask = |_| Verb::Pause;
const RESUME: Ask = |_| Verb::Resume;
const ABANDON: Ask = |_| Verb::Abandon;

const SOON: When = When::Later(Duration::from_secs(10));

fn shapes() -> Vec<Shape> {
    use When::{Appends, Parked};

    let plain: fn(World) -> World = |world| world;
    let slow: fn(World) -> World = |world| {
        let slow = || Fault::Slow(Duration::from_secs(1));
        world.fail_at("s1", 1, slow()).fail_undo_at("s1", 1, slow())
    };
    let lost_reply: fn(World) -> World = |world| world.fail_at("s2", 1, Fault::LostReply);
    let lost_request: fn(World) -> World = |world| world.fail_at("s2", 1, Fault::LostRequest);
    let rejected: fn(World) -> World = |world| world.fail_at("s2", 1, Fault::Rejected);
    let undo_fails: fn(World) -> World = |world| {
        let world = world.fail_calls("s2", .., Fault::LostReply);
        world.fail_undo_at("s0", 1, Fault::NotDone)
    };
    let doubt_stays: fn(World) -> World = |world| {
        let world = world.fail_at("s2", 1, Fault::LostRequest);
        world.fail_undo_at("s2", 1, Fault::NotDone)
    };
    let none: Ask = |partial| skip(partial, SkippedEffect::None);
    let done: Ask = |partial| skip(partial, SkippedEffect::Done);
    let resolve_done: Ask = |partial| resolve("s2", ResolvedEffect::Done(Some(key(partial, "s2"))));
    let resolve_not_done: Ask = |_| resolve("s2", ResolvedEffect::NotDone);
    let resolve_unknown: Ask = |_| resolve("s2", ResolvedEffect::Done(None));

    let mut shapes = vec![
        Shape::new("retry")
            .told(by_hand, lost_reply, &[(Parked, RETRY_FAILED)], DONE)
            .told(
                by_hand,
                lost_reply,
                &[(Parked, RETRY_FROM_CHECKPOINT)],
                DONE,
            )
            .told(by_hand, lost_reply, &[(Parked, RETRY_ALL)], DONE),
        Shape::new("compensate").told(by_hand, lost_reply, &[(Parked, COMPENSATE)], EITHER),
        Shape::new("skip")
            .told(by_hand, rejected, &[(Parked, none), (SOON, RETRY)], DONE)
            .told(by_hand, rejected, &[(Parked, done), (SOON, RETRY)], DONE)
            .told(
                by_hand,
                rejected,
                &[(Parked, done), (SOON, COMPENSATE)],
                EITHER,
            )
            .told(by_hand, rejected, &[(Parked, done), (SOON, CANCEL)], EITHER),
        Shape::new("mark-compensated")
            .told(
                by_hand,
                lost_reply,
                &[
                    (Parked, |_| mark("s2")),
                    (SOON, |_| mark("s1")),
                    (SOON, RETRY),
                ],
                DONE,
            )
            .told(
                by_hand,
                lost_reply,
                &[
                    (Parked, |_| mark("s1")),
                    (SOON, |_| mark("s2")),
                    (SOON, COMPENSATE),
                ],
                EITHER,
            )
            .told(
                fork,
                undo_fails,
                &[(Parked, |_| mark("s0")), (SOON, RETRY_ALL)],
                EITHER_OR_PARKED,
            ),
        Shape::new("resolve")
            .told(
                by_hand,
                lost_reply,
                &[(Parked, resolve_done), (SOON, RETRY)],
                DONE,
            )
            .told(
                by_hand,
                lost_request,
                &[(Parked, resolve_not_done), (SOON, RETRY)],
                DONE,
            )
            .told(
                back,
                doubt_stays,
                &[(Parked, resolve_not_done), (SOON, RETRY_ALL)],
                EITHER,
            )
            .told(
                back,
                doubt_stays,
                &[(Parked, resolve_unknown), (SOON, RETRY)],
                EITHER,
            ),
        // A crash leaves the first round in doubt, and then the edit is refused.
        Shape::new("edit")
            .told(by_hand, rejected, &[(Parked, |_| edit())], DONE_OR_PARKED)
            .told(
                by_hand,
                rejected,
                &[(Parked, |_| edit()), (Parked, COMPENSATE)],
                EITHER,
            ),
        Shape::new("undos again")
            .told(back, undo_fails, &[(Parked, RETRY)], EITHER)
            .told(fork, undo_fails, &[(Parked, RETRY)], EITHER)
            .told(fork, undo_fails, &[(Parked, COMPENSATE)], EITHER),
    ];
    let mut cancel = Shape::new("cancel");
    let mut pause = Shape::new("pause and resume");
    let mut abandon = Shape::new("abandon");
    let mut turned = Shape::new("turned while undoing");
    for appends in 1..=4 {
        let when = Appends(appends);
        cancel = cancel.told(back, plain, &[(when, CANCEL)], EITHER);
        pause = pause.told(back, slow, &[(when, PAUSE), (SOON, RESUME)], DONE);
        abandon = abandon.told(by_hand, slow, &[(when, ABANDON)], GIVEN_UP);
        // The fourth append has the failure, with the decision and the first undo.
        let when = Appends(appends + 3);
        if appends % 2 == 0 {
            turned = turned
                .told(back, lost_reply, &[(when, RETRY_ALL)], EITHER)
                .told(
                    back,
                    lost_reply,
                    &[(when, PAUSE), (SOON, RESUME), (SOON, RETRY)],
                    EITHER,
                );
        }
        abandon = abandon.told(
            back,
            lost_reply,
            &[(when, ABANDON)],
            &["abandoned", "completed", "compensated"],
        );
    }
    pause = pause.told(
        by_hand,
        rejected,
        &[(Appends(1), PAUSE), (SOON, CANCEL), (SOON, RESUME)],
        EITHER,
    );
    shapes.extend([cancel, pause, abandon, turned]);
    shapes
}

#[test]
fn every_command_survives_a_crash_at_every_append_and_is_carried_out_once() {
    let shapes = shapes();
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let broken = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get().min(8));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(shape) = shapes.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut sum = Explored::default();
                    for explore in &shape.scenarios {
                        match explore() {
                            Ok(more) => sum += more,
                            Err(violation) => broken.lock().unwrap().push(violation),
                        }
                    }
                    tell(&format!("{:<30} {sum}", shape.name));
                    results.lock().unwrap().push(sum);
                }
            });
        }
    });
    let mut all = Explored::default();
    for explored in results.into_inner().unwrap() {
        all += explored;
    }
    tell(&format!(
        "explored commands: {} shapes, {} scenarios, {} crash points, {} crash-and-recover runs",
        shapes.len(),
        all.scenarios,
        all.crash_points,
        all.runs
    ));
    let broken = broken.into_inner().unwrap();
    for violation in &broken {
        println!("{violation}");
    }
    assert!(broken.is_empty(), "{} promises were broken", broken.len());
    for word in ["completed", "compensated", "abandoned"] {
        assert!(all.rests.contains_key(word), "no run is ever {word}");
    }
}

/// Says it past the harness's capture, so that it shows in every run.
fn tell(line: &str) {
    use std::io::Write as _;
    let mut shown = std::io::stderr();
    writeln!(shown, "{line}").unwrap();
}
