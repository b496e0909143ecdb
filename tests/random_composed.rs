//! Definitions made at random, of sagas in sagas, lists, choices and conditions up to three deep, with random
//! faults: each is run, and killed before and after every append.
//!
//! No model says what has to become of each: the oracles of the exploration say what must not. Nothing is
//! lost, repeated, called or undone out of order, and no run is left hanging; its end is true, and it
//! is parked only where something in it could park it. `RANDOM_FROM` and `RANDOM_COUNT` in the environment
//! choose the seeds.
// The helpers below are test code like the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![cfg(feature = "testkit")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use amends::policy::{Condition, Jitter, RecoveryPolicy, RecoveryStrategy, Rule};
use amends::testkit::{Explored, Explorer, Fault, Scenario, World};
use amends::{
    Node, OnStop, Part, Payload, Retry, Saga, SagaBuilder, Siblings, SomeNode, StepSpec, UndoOrder,
    UndoRule, first_of, step,
};

/// Sagas inside sagas inside the saga.
const DEPTH: u32 = 3;

struct Making<'a> {
    random: fastrand::Rng,
    world: &'a World,
    /// The paths of all that is called.
    called: Vec<String>,
    /// Whether something in it may have a run parked.
    may_park: bool,
}

fn retry(attempts: u32) -> Retry {
    Retry::constant()
        .initial(Duration::from_secs(1))
        .jitter(Jitter::None)
        .max_attempts(attempts)
}

impl Making<'_> {
    fn one_of(&mut self, times: u32) -> bool {
        self.random.u32(0..times) == 0
    }

    fn policy(&mut self) -> RecoveryPolicy {
        let back = |strategy| {
            RecoveryPolicy::new("back", strategy)
                .rule(Rule::new("used up", RecoveryStrategy::Compensate).when(Condition::UsedUp))
        };
        let policy = match self.random.u32(0..6) {
            0 | 1 => RecoveryPolicy::saga(),
            2 => back(RecoveryStrategy::RetryFailed),
            3 => back(RecoveryStrategy::RetryFromCheckpoint),
            4 => back(RecoveryStrategy::RetryAll),
            _ => {
                self.may_park = true;
                RecoveryPolicy::by_progress()
            }
        };
        policy
            .max_recoveries(self.random.u32(0..3))
            .backoff(retry(u32::MAX))
    }

    /// A step that is called.
    fn call(&mut self, name: &str, path: String) -> StepSpec<u64, String> {
        self.called.push(path);
        let attempts = self.random.u32(1..3);
        if self.one_of(6) {
            return self.world.read_only(name).retry(retry(attempts));
        }
        let mut step = self.world.step(name).retry(retry(attempts));
        step = step.compensation_retry(retry(2));
        if self.one_of(5) {
            step = step.probe(self.world.asked());
        }
        if self.one_of(8) {
            step = step.undo_failing(UndoRule::Always);
        }
        step
    }

    fn saga(&mut self, name: &str, path: &str, depth: u32) -> Saga<u64, ()> {
        let mut saga = Saga::builder::<u64>(name).policy(self.policy());
        if self.one_of(4) {
            saga = saga.undo_order(UndoOrder::Sequential);
        }
        if self.one_of(4) {
            saga = saga.on_stop(OnStop::Compensate);
        }
        if self.one_of(6) {
            let grace = Duration::from_millis(10);
            saga = saga.siblings(Siblings::Stop { grace });
        }
        let mut before: Vec<SomeNode> = Vec::new();
        for number in 0..self.random.u32(1..=3) {
            let name = format!("s{number}");
            let path = match path {
                "" => name.clone(),
                path => format!("{path}/{name}"),
            };
            let after: Vec<SomeNode> = before
                .iter()
                .copied()
                .filter(|_| self.random.bool())
                .collect();
            before.push(self.add(&mut saga, &name, &path, &after, depth));
        }
        saga.returns(()).unwrap()
    }

    /// Adds something under this name.
    fn add(
        &mut self,
        saga: &mut SagaBuilder<u64>,
        name: &str,
        path: &str,
        after: &[SomeNode],
        depth: u32,
    ) -> SomeNode {
        let n = saga.input();
        let forms = if depth < DEPTH { 12 } else { 7 };
        match self.random.u32(0..forms) {
            0 | 1 => {
                let spec = self.call(name, path.to_owned());
                self.put(saga, spec, n, after)
            }
            2 => {
                let items = self.random.u64(0..4);
                let spec = self.items(name, path, items, depth);
                self.put_list(saga, spec, items, after)
            }
            3 => {
                let primary = self.call(name, format!("{path}/primary"));
                let other = self.call("other", format!("{path}/other"));
                let spec = primary.fallback(other).into_spec();
                self.put(saga, spec, n, after)
            }
            4 => {
                let primary = self.call(name, format!("{path}/primary"));
                let spec = primary.fallback_value("value".to_owned()).into_spec();
                self.put(saga, spec, n, after)
            }
            5 => {
                let ways = ["x", "y"].map(|way| self.call(way, format!("{path}/{way}")));
                let spec = first_of(name, ways).into_spec();
                self.put(saga, spec, n, after)
            }
            6 => {
                let wanted = self.random.bool();
                let spec = self.call(name, path.to_owned());
                let spec = spec.only_if(n.map(move |n| (*n == 1) == wanted));
                self.put(saga, spec, n, after)
            }
            7 | 8 => {
                let child = self.saga("child", path, depth + 1);
                let mut spec = step(name, &child);
                if self.one_of(4) {
                    // Its undo has attempts enough for what may fail.
                    let inside = self.saga("undo", &format!("{path}[undo]/u"), depth + 1);
                    let mut undo = Saga::builder::<(u64, ())>("undo").policy(self.policy());
                    let n = undo.input().map(|(n, ())| *n);
                    undo.add(step("u", &inside), n);
                    spec = spec.compensate_with::<()>(&undo.returns(()).unwrap());
                }
                self.put(saga, spec, n, after)
            }
            9 => {
                let primary = self.saga("child", &format!("{path}/primary"), depth + 1);
                let other = self.saga("child", &format!("{path}/other"), depth + 1);
                let spec = step(name, &primary).fallback(step("other", &other));
                self.put(saga, spec.into_spec(), n, after)
            }
            10 => {
                let ways = ["x", "y"].map(|way| {
                    let child = self.saga("child", &format!("{path}/{way}"), depth + 1);
                    step(way, &child)
                });
                self.put(saga, first_of(name, ways).into_spec(), n, after)
            }
            _ => {
                let items = self.random.u64(0..3);
                let known = self.called.len();
                let child = self.saga("child", "", depth + 1);
                let inside = self.called.split_off(known);
                for item in 0..items {
                    let paths = inside.iter().map(|at| format!("{path}[{item}]/{at}"));
                    self.called.extend(paths);
                }
                let parallel = self.random.u32(1..4);
                let each = step(name, &child).for_each().parallel(parallel);
                if self.random.bool() {
                    return self.put_list(saga, each.tolerate(1).into_spec(), items, after);
                }
                self.put_list(saga, each.into_spec(), items, after)
            }
        }
    }

    /// A call for each of so many items, or a choice for each.
    fn items(
        &mut self,
        name: &str,
        path: &str,
        items: u64,
        depth: u32,
    ) -> StepSpec<Vec<u64>, Vec<String>> {
        let choice = depth < DEPTH && self.one_of(3);
        let known = self.called.len();
        let spec = if choice {
            let primary = self.call(name, "/primary".to_owned());
            let other = self.call("other", "/other".to_owned());
            primary.fallback(other).into_spec()
        } else {
            self.call(name, String::new())
        };
        let inside = self.called.split_off(known);
        for item in 0..items {
            let paths = inside.iter().map(|at| format!("{path}[{item}]{at}"));
            self.called.extend(paths);
        }
        let each = spec.for_each().parallel(self.random.u32(1..4));
        each.into_spec()
    }

    fn put<O: Payload>(
        &mut self,
        saga: &mut SagaBuilder<u64>,
        spec: StepSpec<u64, O>,
        n: Node<u64>,
        after: &[SomeNode],
    ) -> SomeNode {
        let spec = after.iter().fold(spec, |spec, &node| spec.after(node));
        let spec = match self.one_of(5) {
            true => spec.checkpoint(),
            false => spec,
        };
        saga.add(spec, n).into()
    }

    fn put_list<O: Payload>(
        &mut self,
        saga: &mut SagaBuilder<u64>,
        spec: StepSpec<Vec<u64>, O>,
        items: u64,
        after: &[SomeNode],
    ) -> SomeNode {
        let spec = after.iter().fold(spec, |spec, &node| spec.after(node));
        let list = saga
            .input()
            .map(move |n| (0..items).map(|item| n + item).collect::<Vec<u64>>());
        saga.add(spec, list).into()
    }
}

/// What is run under a seed, the same whenever it is made.
fn scenario(seed: u64) -> Scenario<u64, ()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let world = match random.bool() {
        true => World::seeded(seed),
        false => World::new(),
    };
    let mut making = Making {
        random,
        world: &world,
        called: Vec::new(),
        may_park: false,
    };
    let saga = making.saga("random", "", 1);
    let Making {
        mut random,
        called,
        mut may_park,
        ..
    } = making;
    let mut faulty = world.clone();
    for _ in 0..random.u32(0..4) {
        let Some(step) = random.choice(&called) else {
            break;
        };
        let fault = match random.u32(0..9) {
            0 | 1 => Fault::Rejected,
            2 | 3 => Fault::LostReply,
            4 => Fault::LostRequest,
            5 => Fault::PanicAfterEffect,
            6 => Fault::Late,
            7 => Fault::NotDone,
            _ => Fault::Stop,
        };
        let first = random.u32(1..3);
        faulty = match random.u32(0..3) {
            0 => faulty.fail_calls(step, .., fault),
            _ => faulty.fail_calls(step, first..=first + 1, fault),
        };
    }
    if random.u32(0..4) == 0
        && let Some(step) = random.choice(&called)
    {
        let last = random.u32(1..4);
        // Two attempts of an undo are all there are.
        may_park |= last > 1;
        faulty = faulty.fail_undo_calls(step, ..=last, Fault::LostReply);
    }
    let words: &[&str] = match may_park {
        true => &["completed", "compensated", "stopped", "parked"],
        false => &["completed", "compensated", "stopped"],
    };
    let scenario = Scenario::new(saga, 1, faulty).ends(words);
    match random.u32(0..5) {
        0 => scenario.cancelled_after(random.u64(1..6)),
        _ => scenario,
    }
}

#[test]
fn random_compositions_are_true_to_the_rules_wherever_they_are_killed() {
    let number = |name: &str, other: u64| {
        let given = std::env::var(name).ok();
        given.map_or(other, |given| given.parse().unwrap())
    };
    let (from, count) = (number("RANDOM_FROM", 1), number("RANDOM_COUNT", 60));
    let next = AtomicU64::new(from);
    let (sum, broken) = (Mutex::new(Explored::default()), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get().min(8));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count {
                        return;
                    }
                    let explorer = Explorer::new(format!("seed {seed}")).once();
                    match explorer.explore(|| scenario(seed)) {
                        Ok(more) => *sum.lock().unwrap() += more,
                        Err(violation) => broken.lock().unwrap().push(violation),
                    }
                }
            });
        }
    });
    let (sum, broken) = (sum.into_inner().unwrap(), broken.into_inner().unwrap());
    tell(&format!("random compositions: {sum}"));
    for violation in &broken {
        println!("{violation}");
    }
    assert!(broken.is_empty(), "{} promises were broken", broken.len());
    if count >= 60 {
        for word in ["completed", "compensated", "stopped", "parked"] {
            assert!(sum.rests.contains_key(word), "no run is ever {word}");
        }
    }
}

/// Says it past the harness's capture, so that it shows in every run.
fn tell(line: &str) {
    use std::io::Write as _;
    let mut shown = std::io::stderr();
    writeln!(shown, "{line}").unwrap();
}
