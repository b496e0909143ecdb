//! Large definitions: a chain of 10,000 steps and a graph of 100 layers of 100.
//!
//! What is counted here is writes, events and calls, which have to grow with the number of steps and not
//! faster. Time is only printed, and only on demand:
//! `cargo test --release --test scale -- --ignored --nocapture`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "what the tests share is outside of their functions"
)]

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use amends::store::{MemoryStore, Store};
use amends::{Coordinator, Node, Outcome, Saga, StepError, step_with};

/// What is called: the step's number, and whether it is its undo.
type Calls = Arc<Mutex<Vec<(usize, bool)>>>;

/// Layers of steps, each of which needs its own column in the layer before, and `fan` columns in all.
#[derive(Clone, Copy)]
struct Shape {
    layers: usize,
    width: usize,
    fan: usize,
}

impl Shape {
    fn chain(steps: usize) -> Self {
        Shape {
            layers: steps,
            width: 1,
            fan: 1,
        }
    }

    fn steps(self) -> usize {
        self.layers * self.width
    }

    /// The last step is refused where the run is to go back.
    fn saga(self, calls: &Calls, refused: bool) -> Saga<u64, u64> {
        let mut builder = Saga::builder::<u64>("scale");
        let mut before: Vec<Node<u64>> = Vec::new();
        let last = self.steps() - 1;
        for layer in 0..self.layers {
            let mut these = Vec::new();
            for column in 0..self.width {
                let number = layer * self.width + column;
                let state = (Arc::clone(calls), number, refused && number == last);
                let mut part = step_with(
                    format!("s{number}"),
                    state,
                    async |(calls, number, refused): &(Calls, usize, bool), _cx, input: &u64| {
                        calls.lock().unwrap().push((*number, false));
                        if *refused {
                            return Err(StepError::rejected("the last one is refused"));
                        }
                        Ok(input + 1)
                    },
                    async |(calls, number, _), _cx, _input, _effect| {
                        calls.lock().unwrap().push((*number, true));
                        Ok(())
                    },
                );
                for other in 1..self.fan.min(before.len()) {
                    part = part.after(before[(column + other) % self.width]);
                }
                let input = before
                    .get(column)
                    .copied()
                    .unwrap_or_else(|| builder.input());
                these.push(builder.add(part, input));
            }
            before = these;
        }
        builder.returns(before[self.width - 1]).unwrap()
    }
}

struct Came {
    outcome: Outcome<u64>,
    records: usize,
    events: usize,
    calls: Vec<(usize, bool)>,
    /// Building the definition is not part of it.
    took: Duration,
}

async fn run(shape: Shape, refused: bool) -> Came {
    let calls = Calls::default();
    let saga = shape.saga(&calls, refused);
    let store = Arc::new(MemoryStore::new());
    let coordinator = Coordinator::builder_shared(Arc::clone(&store) as Arc<dyn Store>)
        .register(&saga)
        .build()
        .await
        .unwrap();
    let began = Instant::now();
    let handle = coordinator.start(&saga, "run", 0).await.unwrap();
    let outcome = handle.outcome().await.unwrap();
    let took = began.elapsed();
    let journal = store.load(handle.id()).await.unwrap().unwrap();
    let calls = calls.lock().unwrap().clone();
    Came {
        outcome,
        records: journal.records.len(),
        events: journal
            .records
            .iter()
            .map(|record| record.events.len())
            .sum(),
        calls,
        took,
    }
}

#[tokio::test]
async fn a_chain_of_ten_thousand_steps_runs_with_one_write_a_step() {
    let came = run(Shape::chain(10_000), false).await;
    assert_eq!(came.outcome.clone().completed(), Some(10_000));
    let partial = came.outcome.partial();
    assert_eq!((partial.completed, partial.total), (10_000, 10_000));
    let forward: Vec<_> = (0..10_000).map(|number| (number, false)).collect();
    assert_eq!(came.calls, forward);
    assert_eq!((came.records, came.events), (10_001, 20_002));
}

#[tokio::test]
async fn a_chain_of_ten_thousand_steps_is_undone_in_reverse() {
    let came = run(Shape::chain(10_000), true).await;
    let Outcome::Compensated(partial) = came.outcome else {
        panic!("{:?}", came.outcome.word())
    };
    assert_eq!(partial.compensations.len(), 9_999);
    assert_eq!(partial.outstanding, []);
    let forward = (0..10_000).map(|number| (number, false));
    let back = (0..9_999).rev().map(|number| (number, true));
    let expected: Vec<_> = forward.chain(back).collect();
    assert_eq!(came.calls, expected);
    assert_eq!((came.records, came.events), (20_000, 40_001));
}

#[tokio::test]
async fn a_hundred_layers_of_a_hundred_steps_run_with_one_write_a_layer() {
    let shape = Shape {
        layers: 100,
        width: 100,
        fan: 100,
    };
    let came = run(shape, false).await;
    assert_eq!(came.outcome.clone().completed(), Some(100));
    assert_eq!(came.calls.len(), 10_000);
    let layers: Vec<usize> = came.calls.iter().map(|(number, _)| number / 100).collect();
    assert!(layers.is_sorted(), "a step ran before the layer before it");
    assert_eq!((came.records, came.events), (101, 20_002));
}

#[tokio::test]
async fn a_hundred_layers_of_a_hundred_steps_are_undone_layer_by_layer() {
    let shape = Shape {
        layers: 100,
        width: 100,
        fan: 100,
    };
    let came = run(shape, true).await;
    assert!(matches!(came.outcome, Outcome::Compensated(_)));
    let undone: Vec<usize> = came.calls[10_000..]
        .iter()
        .map(|(number, undo)| {
            assert!(undo, "s{number} was executed after the decision");
            99 - number / 100
        })
        .collect();
    assert_eq!(undone.len(), 9_999);
    assert!(undone.is_sorted(), "a step was undone before what needs it");
    assert_eq!((came.records, came.events), (201, 40_001));
}

/// Prints microseconds per step. The goal is that the last column is at most 1.5.
#[tokio::test]
#[ignore = "a measurement: nothing is asserted"]
async fn time_per_step() {
    println!("us per step          10      100    1,000   10,000   10,000 / 1,000");
    for (name, layered) in [("chain", false), ("layers", true)] {
        for (direction, refused) in [("runs", false), ("compensates", true)] {
            let mut line = format!("{name:6} {direction:11}");
            let mut per_step = Vec::new();
            for (steps, layers) in [(10, 5), (100, 10), (1_000, 25), (10_000, 100)] {
                let shape = if layered {
                    Shape {
                        layers,
                        width: steps / layers,
                        fan: 3,
                    }
                } else {
                    Shape::chain(steps)
                };
                // The best of several says most about the code, and least about its neighbours.
                let mut best = Duration::MAX;
                for _ in 0..(200_000 / steps).clamp(15, 2_000) {
                    best = best.min(run(shape, refused).await.took);
                }
                let each = best.as_secs_f64() * 1e6 / shape.steps() as f64;
                write!(line, " {each:8.3}").unwrap();
                per_step.push(each);
            }
            println!("{line}   {:8.2}", per_step[3] / per_step[2]);
        }
    }
}
