//! The machine by itself: runs that nobody carries out and no store keeps.

// Each user of this file uses a part of it.
#![allow(clippy::unwrap_used, clippy::panic, dead_code, unreachable_pub)]

use std::sync::Arc;
use std::time::Duration;

use amends::failure::{FailedEffect, Failure};
use amends::journal::{End, Event, RunStarted};
use amends::machine::{AttemptResult, State, Todo};
use amends::{FailureMode, Graph, Saga, StepError, Timestamp, Value, step_fn};

/// So many steps in a row.
pub fn chain(steps: usize) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("chain");
    let mut node = saga.input();
    for step in 0..steps {
        let step = step_fn(
            format!("s{step}"),
            async |_cx, number: &u64| Ok::<u64, StepError>(number + 1),
            async |_cx, _number, _effect| Ok(()),
        );
        node = saga.add(step, node);
    }
    saga.returns(node).unwrap()
}

/// The start of a run of it.
pub fn started(graph: &Graph) -> Arc<RunStarted> {
    let started = serde_json::json!({
        "saga": "chain", "version": 1, "fingerprint": graph.fingerprint(), "worker": "w", "input": 1,
        "uid": "00000000000000000000000000000001", "trace_id": "00000000000000000000000000000002",
    });
    Arc::new(serde_json::from_value(started).unwrap())
}

/// Asks the machine what to do and tells it that it was done, until the run is over. Where `fails` says so, the last
/// step fails for good, so that all others are undone. Says how many events there were.
pub fn drive(graph: &Graph, started: &Arc<RunStarted>, fails: bool) -> u64 {
    let at = Timestamp::from_micros(1_000_000);
    let took = Duration::from_micros(1);
    let mut state = State::begin(graph, started, at);
    let mut events = 1;
    let mut running = None;
    let mut undoing = None;
    let mut left = graph.steps().len();
    loop {
        let event = match state.decide(graph, at) {
            Todo::Start(step) => {
                running = Some(step);
                left -= 1;
                state.start_event(graph, step, Vec::new(), None)
            }
            Todo::Undo(step) => {
                undoing = Some(step);
                state.undo_event(graph, step)
            }
            Todo::Wait { .. } => {
                if let Some(step) = undoing.take() {
                    state.undo_ended(graph, step, AttemptResult::Undone, took, at)
                } else {
                    let result = if fails && left == 0 {
                        let failure = Failure::new(FailureMode::StepValidation, "no");
                        AttemptResult::Failed(failure.effect(FailedEffect::NotDone))
                    } else {
                        AttemptResult::Done(Value::typed(Arc::new(1_u64)))
                    };
                    state.step_ended(graph, running.take().unwrap(), result, took, at)
                }
            }
            Todo::Append(event) => event,
            Todo::Complete => Event::Ended(End::Completed {
                output: Value::typed(Arc::new(1_u64)),
            }),
            Todo::Rest => return events,
            other => panic!("{other:?}"),
        };
        state.apply(graph, &event, at);
        events += 1;
    }
}
