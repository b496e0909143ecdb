//! Sagas of every shape are killed before and after every append, and their recoveries again.
//!
//! Run with `--nocapture`: one line per shape says what was explored. With `SHAPES=diamond` in the
//! environment only shapes whose names contain that are, and their numbers aren't asserted.
// The helpers below are test code like the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![cfg(feature = "testkit")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use amends::policy::{Jitter, RecoveryPolicy, RecoveryStrategy};
use amends::testkit::{Explored, Explorer, Fault, Operator, Scenario, Violation, World};
use amends::{
    Node, OnStop, Probe, Probed, Retry, Saga, SagaBuilder, Siblings, StepContext, StepError,
    StepSpec, UndoOrder, UndoRule,
};

type Built = Saga<u64, ()>;
type Spec = StepSpec<u64, String>;
type Explore = Box<dyn Fn(&Explorer) -> Result<Explored, Violation> + Send + Sync>;

/// What goes wrong, and how the run may end then.
type Plan = (fn(World) -> World, &'static [&'static str]);

/// A family of scenarios that differ in what goes wrong.
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
                let world = if seed % 2 == 0 {
                    World::new()
                } else {
                    World::seeded(seed)
                };
                let world = fault(world);
                Scenario::new(saga(&world), 1, world).ends(ends)
            });
        }
        self
    }
}

impl Shape {
    /// The same saga with each of its steps `s0`, `s1`, .. going wrong in each of these ways.
    fn each_step(
        mut self,
        steps: usize,
        saga: fn(&World) -> Built,
        faults: &[(Fault, bool, &'static [&'static str])],
    ) -> Self {
        for step in 0..steps {
            for (at, (fault, always, ends)) in faults.iter().enumerate() {
                let (fault, always, ends) = (fault.clone(), *always, *ends);
                let seed = u64::try_from(step * 10 + at).unwrap();
                self = self.scenario(move || {
                    let name = format!("s{step}");
                    let world = World::seeded(seed);
                    let world = if always {
                        world.fail_calls(name, .., fault.clone())
                    } else {
                        world.fail_at(name, 1, fault.clone())
                    };
                    Scenario::new(saga(&world), 1, world).ends(ends)
                });
            }
        }
        self
    }
}

/// Ways to go wrong, for good or in the first call, and how a run before its pivot may end.
fn ways() -> Vec<(Fault, bool, &'static [&'static str])> {
    vec![
        (Fault::Rejected, true, UNDONE),
        (Fault::LostReply, true, UNDONE),
        (Fault::LostRequest, false, DONE),
        (Fault::NoAnswerAfterEffect, false, DONE),
        (Fault::PanicAfterEffect, true, UNDONE),
        (Fault::Late, true, UNDONE),
    ]
}

/// Steps that have the run's input, put in order by `after`.
struct Graph {
    saga: SagaBuilder<u64>,
    nodes: Vec<Node<String>>,
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

impl Graph {
    fn new() -> Self {
        Graph::with(|saga| saga)
    }

    fn with(change: impl FnOnce(SagaBuilder<u64>) -> SagaBuilder<u64>) -> Self {
        let saga = Saga::builder::<u64>("shape").policy(recovers(RecoveryPolicy::saga(), 0));
        Graph {
            saga: change(saga),
            nodes: Vec::new(),
        }
    }

    /// Adds a step after those with these numbers.
    fn add(mut self, spec: Spec, after: &[usize]) -> Self {
        let spec = spec.retry(two_attempts());
        let spec = after
            .iter()
            .fold(spec, |spec, &at| spec.after(self.nodes[at]));
        let input = self.saga.input();
        self.nodes.push(self.saga.add(spec, input));
        self
    }

    fn build(self) -> Built {
        self.saga.returns(()).unwrap()
    }
}

/// `s0`, `s1`, .. one after the other.
fn chain_of(graph: Graph, steps: Vec<Spec>) -> Built {
    let steps = steps.into_iter().enumerate();
    let graph = steps.fold(graph, |graph, (at, step)| match at.checked_sub(1) {
        Some(before) => graph.add(step, &[before]),
        None => graph.add(step, &[]),
    });
    graph.build()
}

fn plain(world: &World, length: usize) -> Vec<Spec> {
    (0..length).map(|at| world.step(format!("s{at}"))).collect()
}

fn chain(world: &World, length: usize) -> Built {
    chain_of(Graph::new(), plain(world, length))
}

fn diamond(world: &World) -> Graph {
    Graph::new()
        .add(world.step("s0"), &[])
        .add(world.step("s1"), &[0])
        .add(world.step("s2"), &[0])
        .add(world.step("s3"), &[1, 2])
}

/// Three layers of three steps, each after all of the layer before.
fn layers(world: &World) -> Built {
    let specs = plain(world, 9).into_iter().enumerate();
    let graph = specs.fold(Graph::new(), |graph, (at, spec)| match at / 3 {
        0 => graph.add(spec, &[]),
        layer => graph.add(spec, &[layer * 3 - 3, layer * 3 - 2, layer * 3 - 1]),
    });
    graph.build()
}

fn wide(graph: Graph, world: &World, steps: usize) -> Graph {
    plain(world, steps)
        .into_iter()
        .fold(graph, |graph, step| graph.add(step, &[]))
}

/// A participant that can't tell.
struct Silent;

impl Probe for Silent {
    type Input = u64;
    type Output = String;

    async fn probe(&self, _: &StepContext, _: &u64) -> Result<Probed<String>, StepError> {
        Ok(Probed::Unknown)
    }
}

const DONE: &[&str] = &["completed"];
const UNDONE: &[&str] = &["compensated"];
const EITHER: &[&str] = &["completed", "compensated"];
const PARKED: &[&str] = &["parked"];

/// What can go wrong with a step `s1` that has an undo, under the default policy.
const S1: &[Plan] = &[
    (|world| world.fail_calls("s1", .., Fault::Rejected), UNDONE),
    (|world| world.fail_calls("s1", .., Fault::LostReply), UNDONE),
    // A refusal never clears an earlier doubt.
    (
        |world| {
            world
                .fail_at("s1", 1, Fault::LostReply)
                .fail_calls("s1", 2.., Fault::Rejected)
        },
        UNDONE,
    ),
    (|world| world.fail_at("s1", 1, Fault::NotDone), DONE),
    (|world| world.fail_at("s1", 1, Fault::Late), DONE),
    (
        |world| world.fail_at("s1", 1, Fault::NoAnswerAfterEffect),
        DONE,
    ),
    // A crash in the middle of the attempt is an interruption, and the next attempt succeeds.
    (
        |world| world.fail_at("s1", 1, Fault::PanicAfterEffect),
        EITHER,
    ),
];

fn shapes() -> Vec<Shape> {
    vec![
        Shape::new("single step").faults(
            |world| chain(world, 1),
            &[
                (|world| world, DONE),
                (|world| world.fail_calls("s0", .., Fault::Rejected), UNDONE),
                (|world| world.fail_calls("s0", .., Fault::NotDone), UNDONE),
                (|world| world.fail_calls("s0", .., Fault::LostReply), UNDONE),
                (
                    |world| world.fail_calls("s0", .., Fault::LostRequest),
                    UNDONE,
                ),
                (|world| world.fail_calls("s0", .., Fault::Late), UNDONE),
                (|world| world.fail_calls("s0", .., Fault::NoAnswer), UNDONE),
                (
                    |world| world.fail_calls("s0", .., Fault::PanicAfterEffect),
                    UNDONE,
                ),
                (|world| world.fail_calls("s0", .., Fault::Twice), DONE),
                (
                    |world| world.fail_calls("s0", .., Fault::Slow(Duration::from_secs(20))),
                    DONE,
                ),
            ],
        ),
        Shape::new("no step at all").faults(|world| chain(world, 0), &[(|world| world, DONE)]),
        Shape::new("chain of 3").faults(|world| chain(world, 3), S1),
        Shape::new("chain of 3, last fails").faults(
            |world| chain(world, 3),
            &[
                (|world| world.fail_calls("s2", .., Fault::Rejected), UNDONE),
                (|world| world.fail_calls("s2", .., Fault::LostReply), UNDONE),
                (|world| world.fail_calls("s2", .., Fault::Late), UNDONE),
                (|world| world.fail_calls("s2", .., Fault::Panic), UNDONE),
            ],
        ),
        Shape::new("chain of 6").faults(
            |world| chain(world, 6),
            &[
                (|world| world, DONE),
                (|world| world.fail_calls("s5", .., Fault::Rejected), UNDONE),
                (|world| world.fail_at("s3", 1, Fault::LostReply), DONE),
            ],
        ),
        Shape::new("diamond").faults(|world| diamond(world).build(), S1),
        Shape::new("diamond, each step").each_step(4, |world| diamond(world).build(), &ways()),
        // While one branch fails, the other could still go on.
        Shape::new("two branches, each step").each_step(
            4,
            |world| {
                Graph::new()
                    .add(world.step("s0"), &[])
                    .add(world.step("s1"), &[])
                    .add(world.step("s2"), &[0])
                    .add(world.step("s3"), &[1])
                    .build()
            },
            &ways()[..2],
        ),
        Shape::new("chain of 5, each step").each_step(5, |world| chain(world, 5), &ways()),
        Shape::new("layers, each step").each_step(9, layers, &ways()[..2]),
        Shape::new("recovered, then undone").each_step(
            3,
            |world| {
                let graph = Graph::with(|saga| saga.policy(recovers(RecoveryPolicy::saga(), 1)));
                chain_of(graph, plain(world, 3))
            },
            &ways()[1..2],
        ),
        Shape::new("5 side by side").faults(
            |world| wide(Graph::new(), world, 5).build(),
            &[
                (|world| world, DONE),
                (|world| world.fail_calls("s1", .., Fault::Rejected), UNDONE),
                (|world| world.fail_at("s3", 1, Fault::LostReply), DONE),
                (
                    |world| {
                        world.fail_calls("s1", .., Fault::Rejected).fail_calls(
                            "s3",
                            ..,
                            Fault::LostReply,
                        )
                    },
                    UNDONE,
                ),
            ],
        ),
        Shape::new("3 layers of 3").faults(
            layers,
            &[
                (|world| world, DONE),
                (|world| world.fail_calls("s4", .., Fault::Rejected), UNDONE),
                (
                    |world| world.fail_calls("s7", .., Fault::PanicAfterEffect),
                    UNDONE,
                ),
            ],
        ),
        Shape::new("read-only in the middle").faults(
            |world| {
                let steps = vec![world.step("s0"), world.read_only("s1"), world.step("s2")];
                chain_of(Graph::new(), steps)
            },
            &[
                (|world| world.fail_calls("s1", .., Fault::NotDone), UNDONE),
                (|world| world.fail_at("s1", 1, Fault::LostReply), DONE),
                (|world| world.fail_calls("s2", .., Fault::LostReply), UNDONE),
            ],
        ),
        Shape::new("pivot in the middle").faults(
            |world| {
                let pivot = world.step("s1").pivot();
                chain_of(
                    Graph::new(),
                    vec![world.step("s0"), pivot, world.step("s2")],
                )
            },
            &[
                (|world| world, DONE),
                (|world| world.fail_calls("s0", .., Fault::LostReply), UNDONE),
                // A refusal after an attempt that was interrupted leaves the doubt.
                (
                    |world| world.fail_calls("s1", .., Fault::Rejected),
                    UNDONE_OR_PARKED,
                ),
                (|world| world.fail_calls("s1", .., Fault::LostReply), PARKED),
                (|world| world.fail_at("s1", 1, Fault::LostReply), DONE),
                (|world| world.fail_calls("s2", .., Fault::Rejected), PARKED),
                (|world| world.fail_at("s2", 1, Fault::Late), DONE),
            ],
        ),
        Shape::new("irreversible past the pivot").faults(
            |world| {
                let steps = vec![
                    world.step("s0"),
                    world.irreversible("s1").pivot(),
                    world.irreversible("s2"),
                ];
                chain_of(Graph::new(), steps)
            },
            &[
                (|world| world, DONE),
                (
                    |world| world.fail_calls("s1", .., Fault::Rejected),
                    UNDONE_OR_PARKED,
                ),
                (|world| world.fail_at("s1", 1, Fault::NoAnswer), DONE),
                (|world| world.fail_calls("s2", .., Fault::LostReply), PARKED),
            ],
        ),
        Shape::new("one checkpoint").faults(
            |world| {
                let steps = vec![
                    world.step("s0").checkpoint(),
                    world.step("s1"),
                    world.step("s2"),
                ];
                chain_of(going_back(RecoveryStrategy::RetryFromCheckpoint), steps)
            },
            &[
                (|world| world.fail_calls("s2", ..=2, Fault::NotDone), DONE),
                (|world| world.fail_calls("s2", ..=2, Fault::LostReply), DONE),
                (|world| world.fail_at("s2", 1, Fault::Rejected), DONE),
            ],
        ),
        Shape::new("two checkpoints and a branch").faults(
            |world| {
                going_back(RecoveryStrategy::RetryFromCheckpoint)
                    .add(world.step("s0"), &[])
                    .add(world.step("s1"), &[0])
                    .add(world.step("s2").checkpoint(), &[0])
                    .add(world.step("s3").checkpoint(), &[1, 2])
                    .add(world.step("s4"), &[3])
                    .build()
            },
            &[
                (|world| world.fail_at("s4", 1, Fault::Rejected), DONE),
                (|world| world.fail_at("s3", 1, Fault::Rejected), DONE),
                (|world| world.fail_at("s1", 1, Fault::Rejected), DONE),
            ],
        ),
        Shape::new("at most once").faults(
            |world| {
                let once = world.step("s1").at_most_once();
                chain_of(Graph::new(), vec![world.step("s0"), once])
            },
            &[
                (|world| world, &["completed", "parked"]),
                (
                    |world| world.fail_at("s1", 1, Fault::NotDone),
                    &["completed", "parked"],
                ),
                (
                    |world| world.fail_at("s1", 1, Fault::LostReply),
                    &["compensated", "parked"],
                ),
            ],
        ),
        Shape::new("at most once, with a probe").faults(
            |world| {
                let once = world.step("s1").at_most_once().probe(world.asked());
                chain_of(Graph::new(), vec![world.step("s0"), once])
            },
            &[
                (|world| world, EITHER_OR_PARKED),
                (
                    |world| world.fail_at("s1", 1, Fault::LostReply),
                    EITHER_OR_PARKED,
                ),
                (
                    |world| world.fail_at("s1", 1, Fault::LostRequest),
                    EITHER_OR_PARKED,
                ),
            ],
        ),
        Shape::new("atomic").faults(
            |world| {
                chain_of(
                    Graph::new(),
                    vec![world.step("s0"), world.step("s1").atomic()],
                )
            },
            S1,
        ),
        Shape::new("undo always").faults(
            |world| {
                let always = world.step("s1").undo_failing(UndoRule::Always);
                let graph = Graph::with(|saga| saga.policy(recovers(RecoveryPolicy::saga(), 1)));
                chain_of(graph, vec![world.step("s0"), always])
            },
            &[
                (|world| world.fail_calls("s1", .., Fault::Rejected), UNDONE),
                (|world| world.fail_calls("s1", ..=2, Fault::NotDone), DONE),
                (|world| world.fail_calls("s1", ..=2, Fault::LostReply), DONE),
            ],
        ),
        Shape::new("undo never").faults(
            |world| {
                let never = world.step("s1").undo_failing(UndoRule::Never);
                chain_of(Graph::new(), vec![world.step("s0"), never])
            },
            &[
                (
                    |world| world.fail_calls("s1", .., Fault::LostRequest),
                    UNDONE,
                ),
                (|world| world.fail_calls("s1", .., Fault::Rejected), UNDONE),
            ],
        ),
        Shape::new("a probe that knows").faults(
            |world| {
                let asked = world.step("s1").probe(world.asked());
                chain_of(Graph::new(), vec![world.step("s0"), asked])
            },
            &[
                // An attempt that is killed before its effect is answered with `Never`. That closes its
                // key, so the next call is refused, and the run is undone.
                (|world| world.fail_calls("s1", .., Fault::LostReply), EITHER),
                (|world| world.fail_at("s1", 1, Fault::LostRequest), UNDONE),
                (
                    |world| world.fail_calls("s1", .., Fault::PanicAfterEffect),
                    EITHER,
                ),
            ],
        ),
        Shape::new("a probe that can't tell").faults(
            |world| {
                chain_of(
                    Graph::new(),
                    vec![world.step("s0"), world.step("s1").probe(Silent)],
                )
            },
            S1,
        ),
        Shape::new("undone one by one").faults(
            |world| {
                let graph = Graph::with(|saga| saga.undo_order(UndoOrder::Sequential));
                wide(graph, world, 4)
                    .add(world.step("last"), &[0, 1, 2, 3])
                    .build()
            },
            &[
                (
                    |world| world.fail_calls("last", .., Fault::Rejected),
                    UNDONE,
                ),
                (
                    |world| world.fail_calls("last", .., Fault::Rejected),
                    UNDONE,
                ),
            ],
        ),
        Shape::new("stop and keep").faults(
            |world| diamond(world).build(),
            &[
                (|world| world.fail_at("s3", 1, Fault::Stop), STOPPED_OR_DONE),
                (|world| world.fail_at("s1", 1, Fault::Stop), STOPPED_OR_DONE),
                (
                    |world| {
                        world
                            .fail_calls("s1", .., Fault::Stop)
                            .fail_at("s2", 1, Fault::LostReply)
                    },
                    &["stopped"],
                ),
            ],
        ),
        Shape::new("stop and undo").faults(
            |world| {
                let graph = Graph::with(|saga| saga.on_stop(OnStop::Compensate));
                chain_of(graph, plain(world, 3))
            },
            &[
                (|world| world.fail_calls("s2", .., Fault::Stop), UNDONE),
                (|world| world.fail_calls("s1", .., Fault::Stop), UNDONE),
            ],
        ),
        Shape::new("siblings are told to stop").faults(
            |world| {
                let grace = Duration::from_millis(10);
                let graph = Graph::with(|saga| saga.siblings(Siblings::Stop { grace }));
                wide(graph, world, 3)
                    .add(world.step("last"), &[0, 1, 2])
                    .build()
            },
            &[
                (
                    |world| {
                        world.fail_calls("s1", .., Fault::Rejected).fail_calls(
                            "s2",
                            ..,
                            Fault::NoAnswerAfterEffect,
                        )
                    },
                    UNDONE,
                ),
                (|world| world.fail_calls("s1", .., Fault::LostReply), UNDONE),
            ],
        ),
        Shape::new("maps and tuples").faults(
            mapped,
            &[
                (|world| world, DONE),
                (|world| world.fail_calls("s2", .., Fault::LostReply), UNDONE),
                (|world| world.fail_at("s1", 1, Fault::LostReply), DONE),
            ],
        ),
        Shape::new("by progress").faults(
            |world| {
                let policy = recovers(RecoveryPolicy::by_progress(), 1);
                chain_of(Graph::with(|saga| saga.policy(policy)), plain(world, 4))
            },
            &[
                (|world| world.fail_calls("s0", ..=2, Fault::LostReply), DONE),
                (|world| world.fail_calls("s3", ..=2, Fault::LostReply), DONE),
                (|world| world.fail_calls("s3", .., Fault::Rejected), PARKED),
            ],
        ),
        Shape::new("all again").faults(
            |world| chain_of(going_back(RecoveryStrategy::RetryAll), plain(world, 3)),
            &[
                (|world| world.fail_at("s2", 1, Fault::Rejected), DONE),
                (|world| world.fail_calls("s2", ..=2, Fault::LostReply), DONE),
                (
                    |world| world.fail_at("s1", 1, Fault::PanicAfterEffect),
                    DONE,
                ),
            ],
        ),
        Shape::new("an undo that fails for good").faults(
            diamond_with_impatient_undos,
            &[
                (
                    |world| {
                        world.fail_calls("s3", .., Fault::Rejected).fail_undo_calls(
                            "s1",
                            ..,
                            Fault::NotDone,
                        )
                    },
                    PARKED,
                ),
                (
                    |world| {
                        world.fail_calls("s3", .., Fault::Rejected).fail_undo_calls(
                            "s1",
                            ..,
                            Fault::LostReply,
                        )
                    },
                    PARKED,
                ),
            ],
        ),
        Shape::new("an undo that succeeds at last").faults(
            diamond_with_impatient_undos,
            &[
                (
                    |world| {
                        world.fail_calls("s3", .., Fault::LostReply).fail_undo_at(
                            "s1",
                            1,
                            Fault::LostReply,
                        )
                    },
                    UNDONE,
                ),
                (
                    |world| {
                        world
                            .fail_calls("s3", .., Fault::Rejected)
                            .fail_undo_at("s2", 1, Fault::NoAnswerAfterEffect)
                            .fail_undo_calls("s0", .., Fault::Twice)
                    },
                    UNDONE,
                ),
            ],
        ),
        parked_and_helped(),
        cancelled("cancelled", |world| diamond(world).build(), EITHER),
        cancelled(
            "cancelled around the pivot",
            |world| {
                let pivot = world.step("s1").pivot();
                chain_of(
                    Graph::new(),
                    vec![world.step("s0"), pivot, world.step("s2")],
                )
            },
            EITHER_OR_PARKED,
        ),
        Shape::new("out of time").faults(
            |world| {
                let graph = Graph::with(|saga| saga.deadline(Duration::from_secs(10)));
                chain_of(graph, plain(world, 3))
            },
            &[
                (
                    |world| world.fail_at("s1", 1, Fault::Slow(Duration::from_secs(20))),
                    EITHER,
                ),
                (|world| world.fail_calls("s2", .., Fault::NoAnswer), UNDONE),
            ],
        ),
        Shape::new("3 runs in one store").scenario(|| {
            let world = World::seeded(1).fail_at("s1", 1, Fault::LostReply);
            Scenario::new(chain(&world, 2), 1, world)
                .and_run(2)
                .and_run(3)
                .ends(DONE)
        }),
        Shape::new("one at a time").faults(
            |world| {
                let specs = plain(world, 3)
                    .into_iter()
                    .map(|spec| spec.max_in_flight(1));
                specs
                    .fold(Graph::new(), |graph, spec| graph.add(spec, &[]))
                    .build()
            },
            &[
                (|world| world, DONE),
                (|world| world.fail_calls("s1", .., Fault::Rejected), UNDONE),
            ],
        ),
    ]
}

const EITHER_OR_PARKED: &[&str] = &["completed", "compensated", "parked"];
const UNDONE_OR_PARKED: &[&str] = &["compensated", "parked"];
const STOPPED_OR_DONE: &[&str] = &["completed", "stopped"];

/// Goes back by this strategy once, and is undone after that.
fn going_back(strategy: RecoveryStrategy) -> Graph {
    use amends::policy::{Condition, Rule};
    let policy = RecoveryPolicy::new("back", strategy)
        .rule(Rule::new("used up", RecoveryStrategy::Compensate).when(Condition::UsedUp));
    Graph::with(|saga| saga.policy(recovers(policy, 1)))
}

fn diamond_with_impatient_undos(world: &World) -> Built {
    let undo = |name: &str| world.step(name).compensation_retry(two_attempts());
    Graph::new()
        .add(undo("s0"), &[])
        .add(undo("s1"), &[0])
        .add(undo("s2"), &[0])
        .add(undo("s3"), &[1, 2])
        .build()
}

fn mapped(world: &World) -> Built {
    let mut saga = Saga::builder::<u64>("mapped").policy(recovers(RecoveryPolicy::saga(), 0));
    let input = saga.input();
    let first = saga.add(
        world.step::<u64>("s0").retry(two_attempts()),
        input.map(|n| n + 1),
    );
    let second = saga.add(
        world.step::<(String, u64)>("s1").retry(two_attempts()),
        (first, input),
    );
    let third = world.step::<(usize, u64, String)>("s2");
    saga.add(
        third.retry(two_attempts()),
        (first.map(String::len), input.map(|n| n * 10), second),
    );
    saga.returns(()).unwrap()
}

/// Parked by its policy, and helped in each way.
fn parked_and_helped() -> Shape {
    let helps: [(Operator, &'static [&'static str]); 5] = [
        (Operator::Abandons, &["abandoned"]),
        (Operator::Retries(RecoveryStrategy::Compensate), UNDONE),
        (Operator::Retries(RecoveryStrategy::RetryFailed), DONE),
        (
            Operator::Retries(RecoveryStrategy::RetryFromCheckpoint),
            DONE,
        ),
        (Operator::Retries(RecoveryStrategy::RetryAll), DONE),
    ];
    let shape = Shape::new("parked and helped");
    helps.into_iter().fold(shape, |shape, (operator, ends)| {
        shape.scenario(move || {
            let world = World::new().fail_at("s2", 1, Fault::LostReply);
            let policy = RecoveryPolicy::new("by hand", RecoveryStrategy::Manual);
            let graph = Graph::with(|saga| saga.policy(policy));
            let mut steps = plain(&world, 2);
            steps[0] = world.step("s0").checkpoint();
            let graph = steps
                .into_iter()
                .enumerate()
                .fold(graph, |graph, (at, step)| {
                    let before: Vec<usize> = at.checked_sub(1).into_iter().collect();
                    graph.add(step, &before)
                });
            let input = graph.saga.input();
            let mut graph = graph;
            let after = graph.nodes[1];
            // One attempt, so that its failure is for good.
            graph.saga.add(
                world.step::<u64>("s2").retry(Retry::none()).after(after),
                input,
            );
            // A crash in its only attempt is an interruption, and the next one succeeds.
            let ends: Vec<&'static str> = ends.iter().copied().chain(["completed"]).collect();
            Scenario::new(graph.build(), 1, world)
                .when_parked(operator)
                .ends(&ends)
        })
    })
}

/// Cancelled after each of its appends.
fn cancelled(
    name: &'static str,
    saga: fn(&World) -> Built,
    ends: &'static [&'static str],
) -> Shape {
    (1..=4).fold(Shape::new(name), |shape, appends| {
        shape.scenario(move || {
            let world = World::seeded(appends).fail_at("s1", 1, Fault::LostReply);
            Scenario::new(saga(&world), 1, world)
                .cancelled_after(appends)
                .ends(ends)
        })
    })
}

#[test]
fn every_shape_survives_a_crash_at_every_append() {
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
                    let mut sum = Explored::default();
                    for explore in &shape.scenarios {
                        match explore(&explorer) {
                            Ok(more) => sum += more,
                            Err(violation) => broken.lock().unwrap().push(violation),
                        }
                    }
                    println!("{:<30} {sum}", shape.name);
                    results.lock().unwrap().push(sum);
                }
            });
        }
    });
    let mut all = Explored::default();
    for explored in results.into_inner().unwrap() {
        all += explored;
    }
    println!(
        "explored: {} shapes, {} crash points, {} crash-and-recover runs",
        shapes.len(),
        all.crash_points,
        all.runs
    );
    let broken = broken.into_inner().unwrap();
    for violation in &broken {
        println!("{violation}");
    }
    assert!(broken.is_empty(), "{} promises were broken", broken.len());
    if only.is_some() {
        return;
    }
    assert!(shapes.len() >= 20);
    assert!(all.runs >= 30_000, "only {} runs", all.runs);
    for word in ["completed", "compensated", "stopped", "parked", "abandoned"] {
        assert!(all.rests.contains_key(word), "no run is ever {word}");
    }
}
