//! Sagas of every shape are killed before and after every append, and their recoveries again.
//!
//! Run with `--nocapture`: one line per shape says what was explored.
// The helpers below are test code like the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![cfg(feature = "testkit")]

use std::sync::Mutex;
use std::time::{Duration, Instant};

use amends::policy::{RecoveryPolicy, RecoveryStrategy};
use amends::testkit::{Explored, Explorer, Fault, Operator, Scenario, World};
use amends::{
    Node, OnStop, Probe, Probed, Retry, Saga, SagaBuilder, Siblings, StepContext, StepError,
    StepSpec, UndoOrder, UndoRule,
};

type Built = Saga<u64, ()>;
type Nodes = Vec<Node<String>>;

/// Two attempts, 1 s apart: enough for a retry, and short journals.
fn retry() -> Retry {
    Retry::constant()
        .initial(Duration::from_secs(1))
        .max_attempts(2)
}

/// A policy that recovers once only, so that journals stay short.
fn once(policy: RecoveryPolicy) -> RecoveryPolicy {
    policy.max_recoveries(1)
}

struct Graph {
    saga: SagaBuilder<u64>,
    nodes: Nodes,
}

impl Graph {
    fn new() -> Self {
        Graph {
            saga: Saga::builder::<u64>("shape").policy(once(RecoveryPolicy::saga())),
            nodes: Vec::new(),
        }
    }

    fn with(change: impl FnOnce(SagaBuilder<u64>) -> SagaBuilder<u64>) -> Self {
        let graph = Graph::new();
        Graph {
            saga: change(graph.saga),
            nodes: graph.nodes,
        }
    }

    /// Adds a step after those with these numbers.
    fn add(&mut self, spec: StepSpec<u64, String>, after: &[usize]) -> &mut Self {
        let spec = after
            .iter()
            .fold(spec.retry(retry()), |spec, &at| spec.after(self.nodes[at]));
        let input = self.saga.input();
        self.nodes.push(self.saga.add(spec, input));
        self
    }

    fn build(self) -> Built {
        self.saga.returns(()).unwrap()
    }
}

fn chain(world: &World, length: usize) -> Built {
    let mut graph = Graph::new();
    for at in 0..length {
        let before: Vec<usize> = at.checked_sub(1).into_iter().collect();
        graph.add(world.step(format!("s{at}")), &before);
    }
    graph.build()
}

#[test]
fn quick() {
    let began = Instant::now();
    let mut all = Explored::default();
    for seed in 0..2 {
        for fault in [
            Fault::Rejected,
            Fault::NotDone,
            Fault::LostReply,
            Fault::Late,
            Fault::Panic,
        ] {
            let e = Explorer::new("chain 3")
                .explore(|| {
                    let world = if seed == 0 {
                        World::new()
                    } else {
                        World::seeded(seed)
                    }
                    .fail_calls("s2", .., fault.clone());
                    Scenario::new(chain(&world, 3), 1, world)
                })
                .unwrap();
            println!("{fault:?}: {e}");
            all += e;
        }
    }
    println!("{all} in {:?}", began.elapsed());
}
