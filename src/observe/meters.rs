//! What is counted and measured, through the facade `metrics`: whoever installs a recorder gets it.
//!
//! Handles are made once: a coordinator's and its definitions' when it is built, a store's when it is
//! opened. An event costs no look-up. The recorder has to be installed before.
//!
//! Labels are names from definitions and words from short lists, never anything of a single run.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use tokio::time::Instant;

use crate::journal::{Cause, End, Event, Standing};
use crate::policy::RecoveryStrategy;
use crate::saga::Graph;
use crate::step::{CallKind, StepIx};
use crate::store::{RunFilter, Store, StoreError};

const RUNS_STARTED: &str = "amends_runs_started_total";
const RUNS_ENDED: &str = "amends_runs_ended_total";
const RUNS_IN_FLIGHT: &str = "amends_runs_in_flight";
const RUNS_PARKED: &str = "amends_runs_parked";
const ATTEMPTS: &str = "amends_attempts_total";
const ATTEMPT_DURATION: &str = "amends_attempt_duration_seconds";
const RETRIES: &str = "amends_retries_total";
const RECOVERIES: &str = "amends_recoveries_total";
const COMPENSATIONS: &str = "amends_compensations_total";
const APPEND_DURATION: &str = "amends_append_duration_seconds";
#[cfg(any(feature = "sqlite", feature = "postgres"))]
const BATCH_SIZE: &str = "amends_store_batch_size";
#[cfg(any(feature = "sqlite", feature = "postgres"))]
const QUEUE_DEPTH: &str = "amends_store_queue_depth";

const ENDS: [&str; 4] = ["completed", "compensated", "stopped", "abandoned"];
const CAUSES: [&str; 4] = ["failures", "cancel", "stop", "operator"];
const OUTCOMES: [&str; 4] = ["done", "failed", "stopped", "interrupted"];

/// So many entries of the list of parked runs are counted in one go.
const PAGE: usize = 1024;

/// A coordinator's handles.
pub(crate) struct Meters {
    append: Histogram,
    sagas: HashMap<String, Arc<SagaMeters>>,
}

impl Meters {
    pub(crate) fn new() -> Self {
        describe_counter!(RUNS_STARTED, Unit::Count, "Runs whose start is durable");
        describe_counter!(RUNS_ENDED, Unit::Count, "Runs that have ended");
        describe_gauge!(
            RUNS_IN_FLIGHT,
            Unit::Count,
            "Runs that are being driven now"
        );
        describe_gauge!(
            RUNS_PARKED,
            Unit::Count,
            "Runs that wait for an operator now"
        );
        describe_counter!(ATTEMPTS, Unit::Count, "Calls of steps that are over");
        describe_histogram!(
            ATTEMPT_DURATION,
            Unit::Seconds,
            "How long calls of steps took"
        );
        describe_counter!(RETRIES, Unit::Count, "Failed calls that are made again");
        describe_counter!(
            RECOVERIES,
            Unit::Count,
            "Decisions on what becomes of a run"
        );
        describe_counter!(
            COMPENSATIONS,
            Unit::Count,
            "Effects undone, or given up undoing"
        );
        describe_histogram!(
            APPEND_DURATION,
            Unit::Seconds,
            "How long records took to be durable"
        );
        Meters {
            append: histogram!(APPEND_DURATION),
            sagas: HashMap::new(),
        }
    }

    /// The handles of a definition. Versions of one saga share what is told by saga only.
    pub(crate) fn definition(&mut self, graph: &Graph) -> DefinitionMeters {
        let saga = &graph.saga;
        let of_saga = self
            .sagas
            .entry(saga.to_string())
            .or_insert_with(|| Arc::new(SagaMeters::new(saga, &self.append)));
        DefinitionMeters(Arc::new(Definition {
            saga: Arc::clone(of_saga),
            steps: graph
                .all_steps()
                .iter()
                .map(|(path, step)| step.is_called().then(|| StepMeters::new(saga, path)))
                .collect(),
        }))
    }

    /// Counts the runs that were parked before this coordinator came. It drives nothing yet, so none of
    /// them can be counted twice, or be gone before it is counted.
    pub(crate) async fn count_parked(&self, store: &dyn Store) -> Result<(), StoreError> {
        let (filter, mut after) = (RunFilter::open().standing(Standing::Parked), None);
        loop {
            let page = store.scan(&filter, after, PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = Some(last.number);
            for entry in page {
                if let Some(saga) = self.sagas.get(&entry.saga) {
                    saga.park(1);
                }
            }
        }
    }
}

struct SagaMeters {
    started: Counter,
    ended: [Counter; ENDS.len()],
    in_flight: Gauge,
    parked: Gauge,
    /// This coordinator's part of the gauge, which it takes along when it goes.
    parked_here: AtomicI64,
    recoveries: [[Counter; CAUSES.len()]; RecoveryStrategy::ALL.len()],
    append: Histogram,
}

impl SagaMeters {
    fn new(saga: &str, append: &Histogram) -> Self {
        let saga: Arc<str> = saga.into();
        SagaMeters {
            started: counter!(RUNS_STARTED, "saga" => Arc::clone(&saga)),
            ended: ENDS.map(|end| counter!(RUNS_ENDED, "saga" => Arc::clone(&saga), "end" => end)),
            in_flight: gauge!(RUNS_IN_FLIGHT, "saga" => Arc::clone(&saga)),
            parked: gauge!(RUNS_PARKED, "saga" => Arc::clone(&saga)),
            parked_here: AtomicI64::new(0),
            recoveries: RecoveryStrategy::ALL.map(|strategy| {
                let strategy = strategy.as_str();
                CAUSES.map(|cause| {
                    let saga = Arc::clone(&saga);
                    counter!(RECOVERIES, "saga" => saga, "strategy" => strategy, "cause" => cause)
                })
            }),
            append: append.clone(),
        }
    }

    fn park(&self, more: i32) {
        self.parked_here.fetch_add(more.into(), Ordering::Relaxed);
        self.parked.increment(more);
    }

    fn recovery(&self, strategy: RecoveryStrategy, cause: usize) {
        let all = RecoveryStrategy::ALL.iter().zip(&self.recoveries);
        for (_, causes) in all.filter(|(other, _)| **other == strategy) {
            causes[cause].increment(1);
        }
    }
}

impl Drop for SagaMeters {
    #[allow(clippy::cast_precision_loss, reason = "a count of runs")]
    fn drop(&mut self) {
        self.parked
            .decrement(self.parked_here.load(Ordering::Relaxed) as f64);
    }
}

struct StepMeters {
    retries: Counter,
    execute: [Counter; OUTCOMES.len()],
    execute_took: Histogram,
    /// Of a compensation only the first two outcomes exist.
    compensate: [Counter; 2],
    compensate_took: Histogram,
    undone: Counter,
    not_undone: Counter,
}

impl StepMeters {
    fn new(saga: &str, step: &str) -> Self {
        let names = [("saga", saga.to_owned()), ("step", step.to_owned())];
        let (execute, compensate) = (CallKind::Execute.as_str(), CallKind::Compensate.as_str());
        let with = |label: &'static str, word: &'static str| {
            let mut labels = names.to_vec();
            labels.push((label, word.to_owned()));
            labels
        };
        let attempts = |call, outcome: &'static str| {
            let mut labels = with("call", call);
            labels.push(("outcome", outcome.to_owned()));
            counter!(ATTEMPTS, &labels)
        };
        StepMeters {
            retries: counter!(RETRIES, &names),
            execute: OUTCOMES.map(|outcome| attempts(execute, outcome)),
            execute_took: histogram!(ATTEMPT_DURATION, &with("call", execute)),
            compensate: [OUTCOMES[0], OUTCOMES[1]].map(|outcome| attempts(compensate, outcome)),
            compensate_took: histogram!(ATTEMPT_DURATION, &with("call", compensate)),
            undone: counter!(COMPENSATIONS, &with("outcome", "ok")),
            not_undone: counter!(COMPENSATIONS, &with("outcome", "failed")),
        }
    }
}

struct Definition {
    saga: Arc<SagaMeters>,
    /// Nothing for those that call nothing, but have steps inside, or wait.
    steps: Vec<Option<StepMeters>>,
}

/// The handles of one definition.
#[derive(Clone)]
pub(crate) struct DefinitionMeters(Arc<Definition>);

impl DefinitionMeters {
    /// Begins to count what one driver does.
    pub(crate) fn run(&self, parked: bool) -> RunCounts {
        self.0.saga.in_flight.increment(1);
        RunCounts {
            meters: Arc::clone(&self.0),
            parked,
            noted: Vec::new(),
        }
    }
}

/// What one driver counts. Nothing is told before it is durable, so that no count is of something that a
/// lost append took back.
pub(crate) struct RunCounts {
    meters: Arc<Definition>,
    parked: bool,
    noted: Vec<Noted>,
}

enum Noted {
    Started,
    Executed {
        step: usize,
        outcome: usize,
        took_us: u64,
        retried: bool,
    },
    Compensated {
        step: usize,
        end: UndoEnd,
        took_us: u64,
    },
    Decided {
        strategy: RecoveryStrategy,
        cause: usize,
    },
    Ended(usize),
}

#[derive(PartialEq)]
enum UndoEnd {
    Done,
    Retried,
    GaveUp,
}

impl RunCounts {
    /// Looks at an event before it is appended. `place` is that of its step among all of the definition.
    pub(crate) fn note(&mut self, event: &Event<StepIx>, place: impl Fn(StepIx) -> usize) {
        let executed = |step: &StepIx, outcome, took_us: &u64, retried| Noted::Executed {
            step: place(*step),
            outcome,
            took_us: *took_us,
            retried,
        };
        let compensated = |step: &StepIx, end, took_us: &u64| Noted::Compensated {
            step: place(*step),
            end,
            took_us: *took_us,
        };
        self.noted.push(match event {
            Event::RunStarted(_) => Noted::Started,
            Event::StepDone { step, took_us, .. } => executed(step, 0, took_us, false),
            Event::StepFailed {
                step,
                retry_at,
                took_us,
                ..
            } => executed(step, 1, took_us, retry_at.is_some()),
            Event::StepStopped { step, took_us, .. } => executed(step, 2, took_us, false),
            Event::StepInterrupted { step, took_us } => executed(step, 3, took_us, false),
            Event::Undone { step, took_us } => compensated(step, UndoEnd::Done, took_us),
            Event::UndoFailed {
                step,
                retry_at,
                took_us,
                ..
            } => {
                let end = match retry_at {
                    Some(_) => UndoEnd::Retried,
                    None => UndoEnd::GaveUp,
                };
                compensated(step, end, took_us)
            }
            // What is decided inside a step is that step's affair.
            Event::Decided(decision) if decision.scope.is_some() => return,
            Event::Decided(decision) => Noted::Decided {
                strategy: decision.strategy,
                cause: match decision.cause {
                    Cause::Failures => 0,
                    Cause::Cancel => 1,
                    Cause::Stop { .. } => 2,
                    Cause::Operator { .. } => 3,
                    // Nothing has gone wrong for the run.
                    Cause::Absorbed => return,
                },
            },
            Event::Ended(end) => Noted::Ended(match end {
                End::Completed { .. } => 0,
                End::Compensated => 1,
                End::Stopped { .. } => 2,
                End::Abandoned { .. } => 3,
            }),
            _ => return,
        });
    }

    /// Tells what was noted, now that it is durable.
    pub(crate) fn durable(&mut self, parked: bool) {
        let Definition { saga, steps } = &*self.meters;
        for noted in self.noted.drain(..) {
            match noted {
                Noted::Started => saga.started.increment(1),
                Noted::Executed {
                    step,
                    outcome,
                    took_us,
                    retried,
                } => {
                    let Some(Some(step)) = steps.get(step) else {
                        continue;
                    };
                    step.execute[outcome].increment(1);
                    step.execute_took.record(Duration::from_micros(took_us));
                    if retried {
                        step.retries.increment(1);
                    }
                }
                Noted::Compensated { step, end, took_us } => {
                    let Some(Some(step)) = steps.get(step) else {
                        continue;
                    };
                    let outcome = usize::from(end != UndoEnd::Done);
                    step.compensate[outcome].increment(1);
                    step.compensate_took.record(Duration::from_micros(took_us));
                    match end {
                        UndoEnd::Done => step.undone.increment(1),
                        UndoEnd::Retried => step.retries.increment(1),
                        UndoEnd::GaveUp => step.not_undone.increment(1),
                    }
                }
                Noted::Decided { strategy, cause } => saga.recovery(strategy, cause),
                Noted::Ended(end) => saga.ended[end].increment(1),
            }
        }
        if parked != self.parked {
            self.parked = parked;
            saga.park(if parked { 1 } else { -1 });
        }
    }

    /// Begins to measure an append.
    pub(crate) fn appending() -> Appending {
        Appending(Instant::now())
    }

    /// The append is durable.
    pub(crate) fn appended(&self, appending: &Appending) {
        self.meters.saga.append.record(appending.0.elapsed());
    }
}

impl Drop for RunCounts {
    fn drop(&mut self) {
        self.meters.saga.in_flight.decrement(1);
    }
}

/// When an append began.
pub(crate) struct Appending(Instant);

/// How many writes wait for a store's writer.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[derive(Debug)]
pub(crate) struct QueueDepth(Gauge);

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl Default for QueueDepth {
    fn default() -> Self {
        describe_gauge!(
            QUEUE_DEPTH,
            Unit::Count,
            "Writes that wait for the writer now"
        );
        QueueDepth(gauge!(QUEUE_DEPTH))
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl QueueDepth {
    pub(crate) fn grew(&self) {
        self.0.increment(1);
    }

    #[allow(clippy::cast_precision_loss, reason = "the length of a queue")]
    pub(crate) fn shrank(&self, by: usize) {
        self.0.decrement(by as f64);
    }
}

/// How many writes a store's writer commits together.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[derive(Debug)]
pub(crate) struct BatchSize(Histogram);

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl Default for BatchSize {
    fn default() -> Self {
        describe_histogram!(
            BATCH_SIZE,
            Unit::Count,
            "Writes that one commit made durable"
        );
        BatchSize(histogram!(BATCH_SIZE))
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl BatchSize {
    #[allow(clippy::cast_precision_loss, reason = "the length of a batch")]
    pub(crate) fn committed(&self, writes: usize) {
        self.0.record(writes as f64);
    }
}
