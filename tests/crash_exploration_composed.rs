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

use amends::policy::{Condition, Jitter, RecoveryPolicy, RecoveryStrategy, Rule};
use amends::testkit::{Explored, Explorer, Fault, Operator, Scenario, Violation, World};
use amends::{Retry, Saga, StepSpec, UndoOrder, first_of, step};

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
const ANY: &[&str] = &["completed", "compensated", "parked"];

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
            &ways()[..3],
        ),
        Shape::new("child tried again by its parent").faults(
            |world| {
                let policy = back(RecoveryStrategy::RetryFailed);
                around(world, policy, &pair(world, undoes()))
            },
            &[
                (|world| world.fail_at("in/y", 1, Fault::Rejected), DONE),
                (|world| world.fail_calls("in/y", ..=2, Fault::LostReply), DONE),
                (|world| world.fail_calls("in/y", .., Fault::LostReply), UNDONE),
            ],
        ),
        Shape::new("list, all or nothing").each_of(
            &["a", "each[0]", "each[2]", "b"],
            |world| list(world, |item| step_of(item.for_each())),
            &ways()[..3],
        ),
    ]
}

fn step_of(part: impl amends::Part<Input = Vec<u64>, Output = Vec<String>>) -> StepSpec<Vec<u64>, Vec<String>> {
    part.into_spec()
}

/// `a`, then `each` over three items, then `b`.
fn list(
    world: &World,
    each: impl FnOnce(StepSpec<u64, String>) -> StepSpec<Vec<u64>, Vec<String>>,
) -> Built {
    let mut saga = Saga::builder::<u64>("list").policy(undoes());
    let n = saga.input();
    let a = saga.add(call(world, "a"), n);
    let each = saga.add(each(call(world, "each")).after(a), n.map(three));
    saga.add(call(world, "b").after(each), n);
    saga.returns(()).unwrap()
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
