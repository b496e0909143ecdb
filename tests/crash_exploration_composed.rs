//! Sagas made of sagas, lists, choices and conditions are killed before and after every append, and their
//! recoveries again.
//!
//! Run with `--nocapture`: one line per shape says what was explored. With `SHAPES=race` in the environment
//! only shapes whose names contain that are, and their numbers aren't asserted. With `--ignored` the recoveries
//! of the longest shapes are killed, too.
// The helpers below are test code like the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![cfg(feature = "testkit")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use amends::journal::Verb;
use amends::policy::{Condition, Jitter, RecoveryPolicy, RecoveryStrategy, Rule};
use amends::testkit::{Explored, Explorer, Fault, Scenario, Violation, When, World};
use amends::{Part, Retry, Saga, StepSpec, UndoOrder, delay, first_of, step, wait_for};

type Built = Saga<u64, ()>;
type Explore = Box<dyn Fn(&Explorer) -> Result<Explored, Violation> + Send + Sync>;

/// What goes wrong, and how the run may end then.
type Plan = (fn(World) -> World, &'static [&'static str]);

const DONE: &[&str] = &["completed"];
const UNDONE: &[&str] = &["compensated"];
const EITHER: &[&str] = &["completed", "compensated"];
const PARKED: &[&str] = &["parked"];
const UNDONE_OR_PARKED: &[&str] = &["compensated", "parked"];
const DONE_OR_PARKED: &[&str] = &["completed", "parked"];
const STOPPED_OR_DONE: &[&str] = &["completed", "stopped"];
const ANY: &[&str] = &["completed", "compensated", "parked", "abandoned"];

/// A family of scenarios that differ in what goes wrong.
struct Shape {
    name: &'static str,
    /// Whether recoveries are killed in turn only where there is time for it.
    long: bool,
    scenarios: Vec<Explore>,
}

impl Shape {
    fn new(name: &'static str) -> Self {
        Shape {
            name,
            long: false,
            scenarios: Vec::new(),
        }
    }

    fn long(mut self) -> Self {
        self.long = true;
        self
    }

    fn scenario(mut self, make: impl Fn() -> Scenario<u64, ()> + Send + Sync + 'static) -> Self {
        self.scenarios
            .push(Box::new(move |explorer| explorer.explore(&make)));
        self
    }

    /// The same saga under each of these faults, in a world that answers at once and in one that doesn't.
    fn faults(mut self, saga: fn(&World) -> Built, faults: &[Plan]) -> Self {
        for (at, &(fault, ends)) in faults.iter().enumerate() {
            let seed = u64::try_from(at).unwrap();
            self = self.scenario(move || {
                let world = match seed % 2 {
                    0 => World::new(),
                    _ => World::seeded(seed),
                };
                let world = fault(world);
                Scenario::new(saga(&world), 1, world).ends(ends)
            });
        }
        self
    }

    /// The same saga with each of these steps going wrong in each of these ways.
    fn each_of(
        mut self,
        steps: &[&'static str],
        saga: fn(&World) -> Built,
        faults: &[(Fault, bool, &'static [&'static str])],
    ) -> Self {
        for (number, &step) in steps.iter().enumerate() {
            for (at, (fault, always, ends)) in faults.iter().enumerate() {
                let (fault, always, ends) = (fault.clone(), *always, *ends);
                let seed = u64::try_from(number * 10 + at).unwrap();
                self = self.scenario(move || {
                    let world = World::seeded(seed);
                    let world = match always {
                        true => world.fail_calls(step, .., fault.clone()),
                        false => world.fail_at(step, 1, fault.clone()),
                    };
                    Scenario::new(saga(&world), 1, world).ends(ends)
                });
            }
        }
        self
    }
}

/// Two attempts, a second apart: enough for a retry, and journals stay short.
fn two_attempts() -> Retry {
    Retry::constant()
        .initial(Duration::from_secs(1))
        .max_attempts(2)
}

/// So many recoveries, without jitter.
fn recovers(policy: RecoveryPolicy, times: u32) -> RecoveryPolicy {
    policy.max_recoveries(times).backoff(
        Retry::constant()
            .jitter(Jitter::None)
            .max_attempts(u32::MAX),
    )
}

/// Goes back by this strategy once, and is undone after that.
fn back(strategy: RecoveryStrategy) -> RecoveryPolicy {
    let policy = RecoveryPolicy::new("back", strategy)
        .rule(Rule::new("used up", RecoveryStrategy::Compensate).when(Condition::UsedUp));
    recovers(policy, 1)
}

fn undoes() -> RecoveryPolicy {
    recovers(RecoveryPolicy::saga(), 0)
}

fn call(world: &World, name: &str) -> StepSpec<u64, String> {
    world.step(name).retry(two_attempts())
}

/// These steps, one after the other.
fn chain(name: &str, policy: RecoveryPolicy, steps: Vec<StepSpec<u64, String>>) -> Built {
    let mut saga = Saga::builder::<u64>(name).policy(policy);
    let n = saga.input();
    let mut last = None;
    for step in steps {
        let step = match last {
            Some(last) => step.after(last),
            None => step,
        };
        last = Some(saga.add(step, n));
    }
    saga.returns(()).unwrap()
}

/// `x` and `y`, one after the other.
fn pair(world: &World, policy: RecoveryPolicy) -> Built {
    chain("pair", policy, vec![call(world, "x"), call(world, "y")])
}

/// `a`, then the child as `in`, then `b`.
fn around(world: &World, policy: RecoveryPolicy, child: &Built) -> Built {
    let mut saga = Saga::builder::<u64>("around").policy(policy);
    let n = saga.input();
    let a = saga.add(call(world, "a"), n);
    let inside = saga.add(step("in", child).after(a), n);
    saga.add(call(world, "b").after(inside), n);
    saga.returns(()).unwrap()
}

/// Ways to go wrong, for good or in the first call, and how a run that undoes itself may end then.
fn ways() -> Vec<(Fault, bool, &'static [&'static str])> {
    vec![
        (Fault::Rejected, true, UNDONE),
        (Fault::LostReply, true, UNDONE),
        (Fault::LostRequest, false, DONE),
        (Fault::PanicAfterEffect, true, UNDONE),
        (Fault::Late, true, UNDONE),
    ]
}

/// Items 0, 1 and 2 of a list.
fn three(n: &u64) -> Vec<u64> {
    vec![*n, n + 1, n + 2]
}

fn shapes() -> Vec<Shape> {
    vec![
        Shape::new("child between steps").each_of(
            &["a", "in/x", "in/y", "b"],
            |world| around(world, undoes(), &pair(world, undoes())),
            &ways(),
        ),
        Shape::new("child tried again by its parent").faults(
            |world| {
                let policy = back(RecoveryStrategy::RetryFailed);
                around(world, policy, &pair(world, undoes()))
            },
            &[
                (|world| world.fail_at("in/y", 1, Fault::Rejected), DONE),
                (
                    |world| world.fail_calls("in/y", ..=2, Fault::LostReply),
                    DONE,
                ),
                (
                    |world| world.fail_calls("in/y", .., Fault::LostReply),
                    UNDONE,
                ),
                (|world| world.fail_at("b", 1, Fault::Rejected), DONE),
            ],
        ),
        Shape::new("child that tries again by itself").faults(
            |world| {
                let child = pair(world, back(RecoveryStrategy::RetryAll));
                around(world, undoes(), &child)
            },
            &[
                (|world| world.fail_at("in/y", 1, Fault::Rejected), DONE),
                (
                    |world| world.fail_calls("in/y", ..=2, Fault::LostReply),
                    DONE,
                ),
                (
                    |world| world.fail_calls("in/y", .., Fault::Rejected),
                    UNDONE,
                ),
            ],
        ),
        Shape::new("parent begins all again").faults(
            |world| {
                let policy = back(RecoveryStrategy::RetryAll);
                around(world, policy, &pair(world, undoes()))
            },
            &[
                (|world| world.fail_at("b", 1, Fault::Rejected), DONE),
                (|world| world.fail_calls("b", ..=2, Fault::LostReply), DONE),
                (|world| world.fail_at("in/y", 1, Fault::Rejected), DONE),
            ],
        ),
        Shape::new("child kept as a checkpoint").faults(
            |world| {
                let child = pair(world, undoes());
                let policy = back(RecoveryStrategy::RetryFromCheckpoint);
                let mut saga = Saga::builder::<u64>("kept").policy(policy);
                let n = saga.input();
                let kept = saga.add(step("kept", &child).checkpoint(), n);
                let again = saga.add(step("again", &child).after(kept), n);
                saga.add(call(world, "b").after(again), n);
                saga.returns(()).unwrap()
            },
            &[
                (|world| world.fail_at("b", 1, Fault::Rejected), DONE),
                (|world| world.fail_at("again/y", 1, Fault::Rejected), DONE),
                (|world| world.fail_at("kept/y", 1, Fault::Rejected), DONE),
            ],
        ),
        Shape::new("children by progress").faults(
            |world| {
                let progress = || recovers(RecoveryPolicy::by_progress(), 1);
                let child = pair(world, progress());
                let mut saga = Saga::builder::<u64>("progress").policy(progress());
                let n = saga.input();
                let first = saga.add(step("first", &child), n);
                saga.add(step("second", &child).after(first), n);
                saga.returns(()).unwrap()
            },
            &[
                (
                    |world| world.fail_calls("first/x", ..=2, Fault::LostReply),
                    DONE,
                ),
                (
                    |world| world.fail_calls("second/y", ..=2, Fault::LostReply),
                    DONE,
                ),
                (
                    |world| world.fail_calls("second/y", .., Fault::NotDone),
                    PARKED,
                ),
            ],
        ),
        Shape::new("children side by side")
            .faults(
                |world| {
                    let child = pair(world, undoes());
                    let mut saga = Saga::builder::<u64>("beside").policy(undoes());
                    let n = saga.input();
                    saga.add(step("one", &child), n);
                    saga.add(step("two", &child), n);
                    saga.returns(()).unwrap()
                },
                &[
                    (|world| world, DONE),
                    (
                        |world| world.fail_calls("one/y", .., Fault::Rejected),
                        UNDONE,
                    ),
                    (
                        |world| world.fail_calls("one/x", .., Fault::LostReply),
                        UNDONE,
                    ),
                    (
                        |world| {
                            world.fail_calls("one/y", .., Fault::Rejected).fail_calls(
                                "two/x",
                                ..,
                                Fault::LostReply,
                            )
                        },
                        UNDONE,
                    ),
                ],
            )
            .long(),
        Shape::new("three deep").each_of(
            &["a", "in/a", "in/in/x", "in/in/y", "in/b", "b"],
            three_deep,
            &ways()[..2],
        ),
        Shape::new("three deep, tried again")
            .faults(
                |world| {
                    let inner = pair(world, back(RecoveryStrategy::RetryAll));
                    let middle = around(world, back(RecoveryStrategy::RetryFailed), &inner);
                    around(world, back(RecoveryStrategy::RetryFromCheckpoint), &middle)
                },
                &[
                    (|world| world.fail_at("in/in/y", 1, Fault::Rejected), DONE),
                    (
                        |world| world.fail_calls("in/in/y", ..=2, Fault::Rejected),
                        EITHER,
                    ),
                    (|world| world.fail_at("in/b", 1, Fault::Rejected), DONE),
                    (|world| world.fail_at("b", 1, Fault::Rejected), DONE),
                ],
            )
            .long(),
        Shape::new("list, all or nothing")
            .each_of(
                &["a", "each[0]", "each[2]", "b"],
                |world| list(world, undoes(), |item| item.for_each().into_spec()),
                &ways(),
            )
            .long(),
        Shape::new("list, tried again").faults(
            |world| {
                let policy = back(RecoveryStrategy::RetryFailed);
                list(world, policy, |item| item.for_each().into_spec())
            },
            &[
                (|world| world.fail_at("each[1]", 1, Fault::Rejected), DONE),
                (
                    |world| world.fail_calls("each[1]", ..=2, Fault::LostReply),
                    DONE,
                ),
                (
                    |world| {
                        world.fail_at("each[0]", 1, Fault::Rejected).fail_calls(
                            "each[2]",
                            ..,
                            Fault::LostReply,
                        )
                    },
                    UNDONE,
                ),
            ],
        ),
        Shape::new("list, one at a time").faults(
            |world| {
                list(world, undoes(), |item| {
                    item.for_each().parallel(1).into_spec()
                })
            },
            &[
                (|world| world, DONE),
                (
                    |world| world.fail_calls("each[1]", .., Fault::Rejected),
                    UNDONE,
                ),
                (
                    |world| world.fail_calls("each[2]", .., Fault::LostReply),
                    UNDONE,
                ),
                (|world| world.fail_at("each[1]", 1, Fault::LostReply), DONE),
                (|world| world.fail_calls("b", .., Fault::Rejected), UNDONE),
            ],
        ),
        Shape::new("list that tolerates one")
            .faults(
                |world| tolerating(world, call(world, "each")),
                &[
                    (
                        |world| world.fail_calls("each[1]", .., Fault::Rejected),
                        DONE,
                    ),
                    (
                        |world| world.fail_calls("each[1]", .., Fault::LostReply),
                        DONE,
                    ),
                    (|world| world.fail_calls("each[0]", .., Fault::Late), DONE),
                    (
                        |world| {
                            world
                                .fail_calls("each[1]", .., Fault::LostReply)
                                .fail_calls("b", .., Fault::Rejected)
                        },
                        UNDONE,
                    ),
                    (
                        |world| {
                            world
                                .fail_calls("each[0]", .., Fault::LostReply)
                                .fail_calls("each[2]", .., Fault::PanicAfterEffect)
                        },
                        UNDONE,
                    ),
                ],
            )
            .long(),
        Shape::new("tolerated item asked by a probe")
            .faults(
                |world| tolerating(world, call(world, "each").probe(world.asked())),
                // Items that are killed before their effects are answered with `Never`, which closes their keys.
                &[
                    (
                        |world| world.fail_calls("each[1]", .., Fault::LostReply),
                        EITHER,
                    ),
                    (
                        |world| world.fail_calls("each[1]", .., Fault::LostRequest),
                        EITHER,
                    ),
                ],
            )
            .long(),
        Shape::new("list asked by a probe while it is undone")
            .faults(
                |world| {
                    let each = call(world, "each").probe(world.asked());
                    let mut saga = Saga::builder::<u64>("probed").policy(undoes());
                    let n = saga.input();
                    saga.add(each.for_each(), n.map(three));
                    saga.returns(()).unwrap()
                },
                &[(
                    |world| {
                        world
                            .fail_calls("each[2]", .., Fault::PanicAfterEffect)
                            .fail_undo_calls("each[2]", ..=2, Fault::LostReply)
                    },
                    EITHER,
                )],
            )
            .long(),
        Shape::new("tolerated item that can't be undone")
            .faults(
                |world| {
                    let each = call(world, "each").compensation_retry(two_attempts());
                    tolerating(world, each)
                },
                &[(
                    |world| {
                        world
                            .fail_calls("each[1]", .., Fault::LostReply)
                            .fail_undo_calls("each[1]", .., Fault::NotDone)
                    },
                    DONE_OR_PARKED,
                )],
            )
            .long(),
        Shape::new("list of children")
            .faults(
                |world| {
                    let child = pair(world, undoes());
                    let mut saga = Saga::builder::<u64>("lists").policy(undoes());
                    let n = saga.input();
                    let each = step("each", &child).for_each().parallel(2);
                    let each = saga.add(each, n.map(three));
                    saga.add(call(world, "b").after(each), n);
                    saga.returns(()).unwrap()
                },
                &[
                    (|world| world, DONE),
                    (
                        |world| world.fail_calls("each[1]/y", .., Fault::Rejected),
                        UNDONE,
                    ),
                    (
                        |world| world.fail_calls("each[2]/x", .., Fault::LostReply),
                        UNDONE,
                    ),
                    (|world| world.fail_calls("b", .., Fault::Rejected), UNDONE),
                ],
            )
            .long(),
        Shape::new("list of children that tolerates one")
            .faults(
                |world| {
                    let child = pair(world, undoes());
                    let mut saga = Saga::builder::<u64>("tolerant").policy(undoes());
                    let n = saga.input();
                    let each = step("each", &child).for_each().tolerate(1);
                    let each = saga.add(each, n.map(three));
                    saga.add(call(world, "b").after(each), n);
                    saga.returns(()).unwrap()
                },
                &[
                    (
                        |world| world.fail_calls("each[1]/y", .., Fault::Rejected),
                        DONE,
                    ),
                    (
                        |world| world.fail_calls("each[0]/y", .., Fault::LostReply),
                        DONE,
                    ),
                    (
                        |world| {
                            world
                                .fail_calls("each[0]/x", .., Fault::LostReply)
                                .fail_calls("each[2]/y", .., Fault::LostReply)
                        },
                        UNDONE,
                    ),
                ],
            )
            .long(),
        Shape::new("list in a child in a list")
            .faults(
                list_in_child_in_list,
                &[
                    (|world| world, DONE),
                    (
                        |world| world.fail_calls("ship[1]/items[0]", .., Fault::Rejected),
                        UNDONE,
                    ),
                    (
                        |world| world.fail_calls("ship[0]/items[1]", .., Fault::LostReply),
                        UNDONE,
                    ),
                    (
                        |world| world.fail_calls("ship[1]/label", .., Fault::LostReply),
                        UNDONE,
                    ),
                    (|world| world.fail_calls("b", .., Fault::Rejected), UNDONE),
                ],
            )
            .long(),
        Shape::new("list in a child in a list, tried again")
            .faults(
                |world| list_in_child_in_list_under(world, || back(RecoveryStrategy::RetryFailed)),
                &[
                    (
                        |world| world.fail_at("ship[1]/items[0]", 1, Fault::Rejected),
                        DONE,
                    ),
                    (
                        |world| world.fail_calls("ship[0]/label", ..=2, Fault::LostReply),
                        DONE,
                    ),
                    (
                        |world| {
                            world
                                .fail_at("ship[0]/items[1]", 1, Fault::Rejected)
                                .fail_calls("ship[1]/items[0]", ..=2, Fault::LostReply)
                        },
                        EITHER,
                    ),
                ],
            )
            .long(),
        Shape::new("list in a list").faults(
            |world| {
                let mut saga = Saga::builder::<u64>("square").policy(undoes());
                let n = saga.input();
                let rows = call(world, "cell").for_each().into_spec().for_each();
                let rows = saga.add(rows, n.map(|n| vec![vec![*n, 2], vec![], vec![3]]));
                saga.add(call(world, "b").after(rows), n);
                saga.returns(()).unwrap()
            },
            &[
                (|world| world, DONE),
                (
                    |world| world.fail_calls("cell[0][1]", .., Fault::LostReply),
                    UNDONE,
                ),
                (|world| world.fail_calls("b", .., Fault::Rejected), UNDONE),
            ],
        ),
        Shape::new("fallback").faults(
            |world| choosing(world, call(world, "way")),
            &[
                (|world| world, DONE),
                (
                    |world| world.fail_calls("way/primary", .., Fault::Rejected),
                    DONE,
                ),
                (
                    |world| world.fail_calls("way/primary", .., Fault::LostReply),
                    DONE,
                ),
                (
                    |world| world.fail_calls("way/primary", .., Fault::Late),
                    DONE,
                ),
                (
                    |world| world.fail_calls("way/primary", .., Fault::PanicAfterEffect),
                    DONE,
                ),
                (
                    |world| {
                        world
                            .fail_calls("way/primary", .., Fault::LostReply)
                            .fail_calls("way/other", .., Fault::LostReply)
                    },
                    UNDONE,
                ),
                (
                    |world| {
                        world
                            .fail_calls("way/primary", .., Fault::LostReply)
                            .fail_calls("b", .., Fault::LostReply)
                    },
                    UNDONE,
                ),
            ],
        ),
        Shape::new("fallback after a probe").faults(
            |world| choosing(world, call(world, "way").probe(world.asked())),
            &[
                (
                    |world| world.fail_calls("way/primary", .., Fault::LostReply),
                    DONE,
                ),
                (
                    |world| world.fail_calls("way/primary", .., Fault::LostRequest),
                    DONE,
                ),
                (
                    |world| {
                        world
                            .fail_calls("way/primary", .., Fault::LostRequest)
                            .fail_calls("way/other", .., Fault::LostReply)
                    },
                    EITHER,
                ),
            ],
        ),
        Shape::new("fallback whose primary can't be undone").faults(
            |world| choosing(world, call(world, "way").compensation_retry(two_attempts())),
            &[(
                |world| {
                    world
                        .fail_calls("way/primary", .., Fault::LostReply)
                        .fail_undo_calls("way/primary", .., Fault::NotDone)
                },
                DONE_OR_PARKED,
            )],
        ),
        Shape::new("fallback to a value").faults(
            |world| {
                let mut saga = Saga::builder::<u64>("value").policy(undoes());
                let n = saga.input();
                let way = call(world, "way").fallback_value("none".to_owned());
                let way = saga.add(way, n);
                saga.add(call(world, "b").after(way), n);
                saga.returns(()).unwrap()
            },
            &[
                (
                    |world| world.fail_calls("way/primary", .., Fault::LostReply),
                    DONE,
                ),
                (
                    |world| {
                        world
                            .fail_calls("way/primary", .., Fault::LostReply)
                            .fail_calls("b", .., Fault::Rejected)
                    },
                    UNDONE,
                ),
            ],
        ),
        Shape::new("fallback from a child to a child").faults(
            |world| {
                let child = pair(world, undoes());
                let mut saga = Saga::builder::<u64>("children").policy(undoes());
                let n = saga.input();
                let way = step("way", &child).fallback(step("other", &child));
                let way = saga.add(way, n);
                saga.add(call(world, "b").after(way), n);
                saga.returns(()).unwrap()
            },
            &[
                (
                    |world| world.fail_calls("way/primary/y", .., Fault::Rejected),
                    DONE,
                ),
                (
                    |world| world.fail_calls("way/primary/y", .., Fault::LostReply),
                    DONE,
                ),
                (
                    |world| {
                        world
                            .fail_calls("way/primary/y", .., Fault::LostReply)
                            .fail_calls("way/other/y", .., Fault::Rejected)
                    },
                    UNDONE,
                ),
                (
                    |world| {
                        world
                            .fail_calls("way/primary/x", .., Fault::LostReply)
                            .fail_calls("b", .., Fault::Rejected)
                    },
                    UNDONE,
                ),
            ],
        ),
        Shape::new("race").faults(
            racing,
            &[
                (|world| world, DONE),
                (
                    |world| world.fail_at("race/x", 1, Fault::Slow(Duration::from_secs(20))),
                    DONE,
                ),
                (
                    |world| world.fail_calls("race/x", .., Fault::Rejected),
                    DONE,
                ),
                (
                    |world| world.fail_calls("race/x", .., Fault::LostReply),
                    DONE,
                ),
                (|world| world.fail_calls("race/y", .., Fault::Late), DONE),
                (
                    |world| {
                        world.fail_calls("race/x", .., Fault::LostReply).fail_calls(
                            "race/y",
                            ..,
                            Fault::Rejected,
                        )
                    },
                    UNDONE,
                ),
                (|world| world.fail_calls("b", .., Fault::Rejected), UNDONE),
            ],
        ),
        Shape::new("race of children")
            .faults(
                |world| {
                    let child = pair(world, undoes());
                    let mut saga = Saga::builder::<u64>("children").policy(undoes());
                    let n = saga.input();
                    let ways = [step("p", &child), step("q", &child)];
                    let race = saga.add(first_of("race", ways), n);
                    saga.add(call(world, "b").after(race), n);
                    saga.returns(()).unwrap()
                },
                &[
                    (|world| world, DONE),
                    (
                        |world| world.fail_at("race/p/y", 1, Fault::Slow(Duration::from_secs(20))),
                        DONE,
                    ),
                    (
                        |world| world.fail_calls("race/p/y", .., Fault::LostReply),
                        DONE,
                    ),
                    (
                        |world| {
                            world
                                .fail_calls("race/p/y", .., Fault::Rejected)
                                .fail_calls("race/q/x", .., Fault::LostReply)
                        },
                        UNDONE,
                    ),
                ],
            )
            .long(),
        Shape::new("conditions").each_of(
            &["a", "yes", "after", "each/x", "b"],
            conditional,
            &ways()[..3],
        ),
        Shape::new("conditions, all again").faults(
            |world| conditional_under(world, back(RecoveryStrategy::RetryAll)),
            &[
                (|world| world.fail_at("b", 1, Fault::Rejected), DONE),
                (
                    |world| world.fail_calls("after", ..=2, Fault::LostReply),
                    DONE,
                ),
            ],
        ),
        Shape::new("child with the pivot").faults(
            |world| {
                let x = call(world, "x");
                let y = call(world, "y").pivot();
                let z = call(world, "z");
                let child = chain("pivotal", undoes(), vec![x, y, z]);
                let mut saga = Saga::builder::<u64>("around").policy(undoes());
                let n = saga.input();
                let a = saga.add(call(world, "a"), n);
                let inside = saga.add(step("in", &child).pivot().after(a), n);
                saga.add(call(world, "b").after(inside), n);
                saga.returns(()).unwrap()
            },
            &[
                (|world| world, DONE),
                (
                    |world| world.fail_calls("in/x", .., Fault::LostReply),
                    UNDONE,
                ),
                (
                    |world| world.fail_calls("in/y", .., Fault::Rejected),
                    UNDONE_OR_PARKED,
                ),
                (|world| world.fail_at("in/y", 1, Fault::LostReply), DONE),
                (
                    |world| world.fail_calls("in/y", .., Fault::LostReply),
                    PARKED,
                ),
                (
                    |world| world.fail_calls("in/z", .., Fault::Rejected),
                    PARKED,
                ),
                (|world| world.fail_calls("b", .., Fault::Rejected), PARKED),
            ],
        ),
        Shape::new("absorbed past the pivot")
            .faults(
                |world| {
                    let mut saga = Saga::builder::<u64>("past").policy(undoes());
                    let n = saga.input();
                    let a = saga.add(call(world, "a").pivot(), n);
                    let way = call(world, "way").fallback(call(world, "other"));
                    let way = saga.add(way.after(a), n);
                    let each = call(world, "each").for_each().tolerate(1);
                    saga.add(each.after(way), n.map(three));
                    saga.returns(()).unwrap()
                },
                &[
                    (
                        |world| world.fail_calls("way/primary", .., Fault::LostReply),
                        DONE,
                    ),
                    (
                        |world| world.fail_calls("each[0]", .., Fault::LostReply),
                        DONE,
                    ),
                    (|world| world.fail_calls("each", .., Fault::Rejected), DONE),
                ],
            )
            .long(),
        Shape::new("undo that fails in a child").faults(
            |world| {
                let undo = |name| call(world, name).compensation_retry(two_attempts());
                let child = chain("stuck", undoes(), vec![undo("x"), undo("y"), undo("z")]);
                around(world, undoes(), &child)
            },
            &[
                (
                    |world| {
                        world
                            .fail_calls("in/z", .., Fault::Rejected)
                            .fail_undo_calls("in/y", .., Fault::NotDone)
                    },
                    PARKED,
                ),
                (
                    |world| {
                        world.fail_calls("b", .., Fault::LostReply).fail_undo_calls(
                            "in/y",
                            ..,
                            Fault::LostReply,
                        )
                    },
                    PARKED,
                ),
                (
                    |world| {
                        world.fail_calls("b", .., Fault::Rejected).fail_undo_at(
                            "in/y",
                            1,
                            Fault::LostReply,
                        )
                    },
                    UNDONE,
                ),
            ],
        ),
        helped("undo that fails in a child, and help", |world| {
            let world = world
                .fail_calls("in/z", .., Fault::Rejected)
                .fail_undo_calls("in/y", ..=2, Fault::NotDone);
            let undo = |name| call(&world, name).compensation_retry(two_attempts());
            let child = chain("stuck", undoes(), vec![undo("x"), undo("y"), undo("z")]);
            (around(&world, undoes(), &child), world)
        }),
        helped("undo of a child that fails, and help", |world| {
            let world = world.fail_at("b", 1, Fault::Rejected).fail_undo_calls(
                "in/y",
                ..=2,
                Fault::NotDone,
            );
            let undo = |name| call(&world, name).compensation_retry(two_attempts());
            let child = chain("stuck", undoes(), vec![undo("x"), undo("y"), undo("z")]);
            (around(&world, undoes(), &child), world)
        }),
        helped("manual in a child, and help", |world| {
            let world = world.fail_at("in/y", 1, Fault::LostReply);
            let policy = RecoveryPolicy::new("by hand", RecoveryStrategy::Manual);
            let once = call(&world, "y").retry(Retry::none());
            let child = chain("manual", policy, vec![call(&world, "x"), once]);
            (around(&world, undoes(), &child), world)
        }),
        helped("manual three deep in a list, and help", |world| {
            let world = world.fail_at("each[1]/in/y", 1, Fault::LostReply);
            let policy = RecoveryPolicy::new("by hand", RecoveryStrategy::Manual);
            let once = call(&world, "y").retry(Retry::none());
            let child = chain("manual", policy, vec![call(&world, "x"), once]);
            let middle = around(&world, undoes(), &child);
            let mut saga = Saga::builder::<u64>("deep").policy(undoes());
            let n = saga.input();
            let each = step("each", &middle).for_each().parallel(1);
            saga.add(each, n.map(|n| vec![*n, 2]));
            (saga.returns(()).unwrap(), world)
        })
        .long(),
        Shape::new("child undone by another saga").faults(
            |world| undone_by_another(world, undoes(), undoes()),
            &[
                (|world| world.fail_calls("b", .., Fault::Rejected), UNDONE),
                (|world| world.fail_calls("b", .., Fault::LostReply), UNDONE),
                (
                    |world| world.fail_calls("in/y", .., Fault::LostReply),
                    PARKED,
                ),
                // What undoes it fails, undoes itself, and is tried again.
                (
                    |world| {
                        let world = world.fail_calls("b", .., Fault::Rejected);
                        world.fail_at("in[undo]/y", 1, Fault::Rejected)
                    },
                    UNDONE,
                ),
            ],
        ),
        Shape::new("child that another saga can't undo")
            .faults(
                |world| undone_by_another(world, undoes(), undoes()),
                &[(
                    |world| {
                        let world = world.fail_calls("b", .., Fault::Rejected);
                        world.fail_calls("in[undo]/y", .., Fault::Rejected)
                    },
                    PARKED,
                )],
            )
            .long(),
        Shape::new("child undone by another saga, all again").faults(
            |world| {
                let policy = back(RecoveryStrategy::RetryAll);
                undone_by_another(world, policy, back(RecoveryStrategy::RetryFailed))
            },
            &[
                (|world| world.fail_at("b", 1, Fault::Rejected), DONE),
                (
                    |world| {
                        let world = world.fail_at("b", 1, Fault::Rejected);
                        world.fail_at("in[undo]/y", 1, Fault::LostReply)
                    },
                    DONE,
                ),
            ],
        ),
        Shape::new("child that only looks")
            .faults(
                |world| looking(world, back(RecoveryStrategy::RetryAll)),
                &[
                    (
                        |world| {
                            let world = world.fail_at("s", 1, Fault::Rejected);
                            world.fail_at("in/y", 1, Fault::LostReply)
                        },
                        DONE,
                    ),
                    (
                        |world| {
                            world
                                .fail_at("s", 1, Fault::Rejected)
                                .fail_at("a", 2, Fault::Slow(Duration::from_secs(20)))
                                .fail_at("in/x", 1, Fault::LostReply)
                        },
                        DONE,
                    ),
                    (
                        |world| {
                            world
                                .fail_at("s", 1, Fault::Rejected)
                                .fail_calls("a", 2.., Fault::Rejected)
                                .fail_at("in/x", 1, Fault::LostReply)
                        },
                        EITHER,
                    ),
                    (|world| world.fail_at("in/y", 1, Fault::Rejected), DONE),
                    (
                        |world| world.fail_calls("in/y", .., Fault::Rejected),
                        UNDONE,
                    ),
                ],
            )
            .long(),
        helped("manual in a child that only looks, and help", |world| {
            let world =
                world
                    .fail_at("in/y", 1, Fault::Rejected)
                    .fail_calls("a", 2.., Fault::Rejected);
            let policy = RecoveryPolicy::new("by hand", RecoveryStrategy::Manual);
            (looking_under(&world, undoes(), policy), world)
        }),
        Shape::new("undone one by one")
            .faults(
                |world| {
                    let child = |name| {
                        let mut child = Saga::builder::<u64>(name)
                            .policy(undoes())
                            .undo_order(UndoOrder::Sequential);
                        let n = child.input();
                        child.add(call(world, "x"), n);
                        child.add(call(world, "y"), n);
                        child.returns(()).unwrap()
                    };
                    let mut saga = Saga::builder::<u64>("sequential")
                        .policy(undoes())
                        .undo_order(UndoOrder::Sequential);
                    let n = saga.input();
                    let one = saga.add(step("one", &child("one")), n);
                    let two = saga.add(step("two", &child("two")), n);
                    saga.add(call(world, "b").after(one).after(two), n);
                    saga.returns(()).unwrap()
                },
                &[
                    (|world| world.fail_calls("b", .., Fault::Rejected), UNDONE),
                    (|world| world.fail_calls("b", .., Fault::LostReply), UNDONE),
                    (
                        |world| world.fail_calls("two/y", .., Fault::LostReply),
                        UNDONE,
                    ),
                ],
            )
            .long(),
        Shape::new("stop inside")
            .faults(
                |world| {
                    let mut saga = Saga::builder::<u64>("stopping").policy(undoes());
                    let n = saga.input();
                    let each = call(world, "each").for_each();
                    saga.add(each, n.map(|n| vec![*n, 2]));
                    let child = pair(world, undoes());
                    saga.add(step("in", &child), n);
                    saga.returns(()).unwrap()
                },
                &[
                    (
                        |world| world.fail_at("in/y", 1, Fault::Stop),
                        STOPPED_OR_DONE,
                    ),
                    (
                        |world| {
                            world.fail_calls("in/x", .., Fault::Stop).fail_calls(
                                "each[1]",
                                ..,
                                Fault::LostReply,
                            )
                        },
                        &["stopped"],
                    ),
                    (
                        |world| {
                            world.fail_calls("each[0]", .., Fault::Stop).fail_at(
                                "in/x",
                                1,
                                Fault::LostReply,
                            )
                        },
                        &["stopped"],
                    ),
                ],
            )
            .long(),
        cancelled("cancelled", list_in_child_in_list),
        cancelled("cancelled between ways", |world| {
            choosing(world, call(world, "way"))
        }),
        cancelled("cancelled race", racing),
        Shape::new("waits and a delay").faults(
            |world| {
                let hour = Duration::from_secs(3_600);
                let mut child = Saga::builder::<u64>("waiting").policy(undoes());
                let n = child.input();
                let x = child.add(call(world, "x"), n);
                let slept = child.add(delay("nap", hour).after(x), ());
                let word = wait_for::<u64>("word").within(hour).or(7);
                let word = child.add(word.after(slept), ());
                child.add(world.step::<u64>("y").retry(two_attempts()), word);
                let child = child.returns(()).unwrap();
                around(world, undoes(), &child)
            },
            &[
                (|world| world, DONE),
                (
                    |world| world.fail_calls("in/y", .., Fault::LostReply),
                    UNDONE,
                ),
                (|world| world.fail_calls("b", .., Fault::Rejected), UNDONE),
            ],
        ),
        Shape::new("wait that is over in a child").faults(
            |world| {
                let hour = Duration::from_secs(3_600);
                let mut child = Saga::builder::<u64>("waiting").policy(undoes());
                let n = child.input();
                let x = child.add(call(world, "x"), n);
                child.add(wait_for::<u64>("word").within(hour).after(x), ());
                let child = child.returns(()).unwrap();
                around(world, undoes(), &child)
            },
            &[(|world| world, UNDONE)],
        ),
    ]
}

/// A child in a child.
fn three_deep(world: &World) -> Built {
    let inner = pair(world, undoes());
    let middle = around(world, undoes(), &inner);
    around(world, undoes(), &middle)
}

/// `a`, then `each` over three items, then `b`.
fn list(
    world: &World,
    policy: RecoveryPolicy,
    each: impl FnOnce(StepSpec<u64, String>) -> StepSpec<Vec<u64>, Vec<String>>,
) -> Built {
    let mut saga = Saga::builder::<u64>("list").policy(policy);
    let n = saga.input();
    let a = saga.add(call(world, "a"), n);
    let each = saga.add(each(call(world, "each")).after(a), n.map(three));
    saga.add(call(world, "b").after(each), n);
    saga.returns(()).unwrap()
}

/// `each` over three items, of which one may fail, then `b`.
fn tolerating(world: &World, each: StepSpec<u64, String>) -> Built {
    let mut saga = Saga::builder::<u64>("tolerating").policy(undoes());
    let n = saga.input();
    let each = saga.add(each.for_each().tolerate(1), n.map(three));
    saga.add(call(world, "b").after(each), n);
    saga.returns(()).unwrap()
}

/// Each of two shipments has two items and then a label; then `b`.
fn list_in_child_in_list(world: &World) -> Built {
    list_in_child_in_list_under(world, undoes)
}

fn list_in_child_in_list_under(world: &World, policy: fn() -> RecoveryPolicy) -> Built {
    let mut ship = Saga::builder::<u64>("shipment").policy(policy());
    let n = ship.input();
    let two = |n: &u64| vec![*n, n + 1];
    let items = ship.add(call(world, "items").for_each(), n.map(two));
    ship.add(call(world, "label").after(items), n);
    let ship = ship.returns(()).unwrap();
    let mut saga = Saga::builder::<u64>("order").policy(policy());
    let n = saga.input();
    let shipped = saga.add(step("ship", &ship).for_each(), n.map(two));
    saga.add(call(world, "b").after(shipped), n);
    saga.returns(()).unwrap()
}

/// `a`, then a child past its own pivot, then `b`: another saga takes the child back.
fn undone_by_another(world: &World, policy: RecoveryPolicy, of_undo: RecoveryPolicy) -> Built {
    let steps = vec![call(world, "x"), call(world, "y").pivot()];
    let child = chain("child", undoes(), steps);
    let mut undo = Saga::builder::<(u64, ())>("undo").policy(of_undo);
    let n = undo.input().map(|(n, ())| *n);
    let x = undo.add(call(world, "x"), n);
    undo.add(call(world, "y").after(x), undo.input().map(|(n, ())| n + 1));
    let undo: Saga<(u64, ()), ()> = undo.returns(()).unwrap();
    let mut saga = Saga::builder::<u64>("taken-back").policy(policy);
    let n = saga.input();
    let a = saga.add(call(world, "a"), n);
    let child = step("in", &child).compensate_with(&undo);
    let child = saga.add(child.after(a), n);
    saga.add(call(world, "b").after(child), n);
    saga.returns(()).unwrap()
}

/// After `a`, `s` beside a child that changes nothing.
fn looking(world: &World, policy: RecoveryPolicy) -> Built {
    looking_under(world, policy, undoes())
}

fn looking_under(world: &World, policy: RecoveryPolicy, inner: RecoveryPolicy) -> Built {
    let look = |name: &str| world.read_only(name).retry(two_attempts());
    let child = chain("look", inner, vec![look("x"), look("y")]);
    let mut saga = Saga::builder::<u64>("looking").policy(policy);
    let n = saga.input();
    let a = saga.add(call(world, "a"), n);
    saga.add(call(world, "s").after(a), n);
    saga.add(step("in", &child).after(a), n);
    saga.returns(()).unwrap()
}

/// This way or another, then `b`.
fn choosing(world: &World, way: StepSpec<u64, String>) -> Built {
    let mut saga = Saga::builder::<u64>("choosing").policy(undoes());
    let n = saga.input();
    let way = saga.add(way.fallback(call(world, "other")), n);
    saga.add(call(world, "b").after(way), n);
    saga.returns(()).unwrap()
}

/// The faster of two ways, then `b`.
fn racing(world: &World) -> Built {
    let mut saga = Saga::builder::<u64>("racing").policy(undoes());
    let n = saga.input();
    let race = first_of("race", [call(world, "x"), call(world, "y")]);
    let race = saga.add(race, n);
    saga.add(call(world, "b").after(race), n);
    saga.returns(()).unwrap()
}

/// Steps that are wanted and steps that aren't: by the input, by an output, and a child.
fn conditional(world: &World) -> Built {
    conditional_under(world, undoes())
}

fn conditional_under(world: &World, policy: RecoveryPolicy) -> Built {
    let child = pair(world, undoes());
    let mut saga = Saga::builder::<u64>("conditional").policy(policy);
    let n = saga.input();
    let a = saga.add(call(world, "a"), n);
    let yes = call(world, "yes").only_if(a.map(|key| key.contains("/a/")));
    let yes = saga.add(yes, n);
    let no = call(world, "no").only_if(n.map(|n| *n > 1)).after(a);
    let no = saga.add(no, n);
    let after = saga.add(call(world, "after").after(yes).after(no), n);
    let wanted = step("each", &child).only_if(n.map(|n| *n == 1));
    let wanted = saga.add(wanted.after(after), n);
    let unwanted = step("none", &child).only_if(n.map(|n| *n == 2));
    let unwanted = saga.add(unwanted.after(after), n);
    saga.add(call(world, "b").after(wanted).after(unwanted), n);
    saga.returns(()).unwrap()
}

/// Parked, and helped in each way. An operator may be refused: then the run stays as it is.
fn helped(name: &'static str, make: fn(World) -> (Built, World)) -> Shape {
    let retry = |strategy| Verb::Retry {
        strategy,
        edits: Vec::new(),
    };
    // A crash in the only attempt that would fail is an interruption, and the next one succeeds.
    let helps: [(Verb, &'static [&'static str]); 5] = [
        (Verb::Abandon, &["abandoned", "completed", "compensated"]),
        (Verb::Compensate, EITHER),
        (retry(None), EITHER),
        (retry(Some(RecoveryStrategy::RetryFailed)), ANY),
        (retry(Some(RecoveryStrategy::RetryAll)), EITHER),
    ];
    let shape = Shape::new(name);
    helps.into_iter().fold(shape, |shape, (verb, ends)| {
        shape.scenario(move || {
            let (saga, world) = make(World::new());
            let verb = verb.clone();
            Scenario::new(saga, 1, world)
                .asked(When::Parked, move |_| verb.clone())
                .ends(ends)
        })
    })
}

/// Cancelled after each of its appends.
fn cancelled(name: &'static str, saga: fn(&World) -> Built) -> Shape {
    (1..=5).fold(Shape::new(name).long(), |shape, appends| {
        shape.scenario(move || {
            let world = World::seeded(appends)
                .fail_at("ship[0]/items[1]", 1, Fault::LostReply)
                .fail_calls("way/primary", .., Fault::LostReply)
                .fail_calls("race/x", .., Fault::LostReply);
            Scenario::new(saga(&world), 1, world)
                .cancelled_after(appends)
                .ends(EITHER)
        })
    })
}

#[test]
fn every_composed_shape_survives_a_crash_at_every_append() {
    explore_all(false);
}

#[test]
#[ignore = "takes minutes"]
fn every_composed_shape_survives_a_second_crash_at_every_append() {
    explore_all(true);
}

fn explore_all(deep: bool) {
    let only = std::env::var("SHAPES").ok();
    let mut shapes = shapes();
    shapes.retain(|shape| {
        only.as_ref()
            .is_none_or(|only| shape.name.contains(only.as_str()))
    });
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let broken = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get().min(8));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(shape) = shapes.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let explorer = Explorer::new(shape.name);
                    let explorer = match shape.long && !deep {
                        true => explorer.once(),
                        false => explorer,
                    };
                    let mut sum = Explored::default();
                    for explore in &shape.scenarios {
                        match explore(&explorer) {
                            Ok(more) => sum += more,
                            Err(violation) => broken.lock().unwrap().push(violation),
                        }
                    }
                    tell(&format!("{:<34} {sum}", shape.name));
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
        "explored: {} shapes, {} crash points, {} crash-and-recover runs",
        shapes.len(),
        all.crash_points,
        all.runs
    ));
    let broken = broken.into_inner().unwrap();
    for violation in &broken {
        println!("{violation}");
    }
    assert!(broken.is_empty(), "{} promises were broken", broken.len());
    if only.is_some() {
        return;
    }
    assert!(shapes.len() >= 20);
    for word in ["completed", "compensated", "stopped", "parked", "abandoned"] {
        assert!(all.rests.contains_key(word), "no run is ever {word}");
    }
}

/// Says it past the harness's capture, so that it shows in every run.
fn tell(line: &str) {
    use std::io::Write as _;
    let mut shown = std::io::stderr();
    writeln!(shown, "{line}").unwrap();
}
