//! Appends for tests of stores, without a coordinator.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{RunId, Timestamp};
use crate::journal::{
    AppendId, End, Event, Migrated, ParkReason, Parking, Record, RunStarted, Standing, StepMoves,
};
use crate::saga::{Outline, OutlineForm};
use crate::step::{StepIx, StepTable, Value};
use crate::store::Append;

/// Makes the appends of one run one after the other, as a coordinator would.
///
/// ```
/// use amends::journal::Standing;
/// use amends::store::{MemoryStore, Store as _};
/// use amends::testkit::conformance::Sample;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::new();
/// let mut sample = Sample::new("order-1");
/// store.append(sample.start()).await?;
/// store.append(sample.step("done")).await?;
/// store.append(sample.stand(Standing::Completed)).await?;
/// assert_eq!(store.load(sample.run()).await?.unwrap().records.len(), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Sample {
    run: RunId,
    saga: String,
    version: u32,
    seq: u64,
    next_id: AppendId,
    at: Timestamp,
    standing: Standing,
    steps: StepTable,
    worker: String,
}

impl Sample {
    /// A run that has not started yet, of saga `sample`, version 1.
    #[must_use]
    pub fn new(run: impl Into<RunId>) -> Self {
        Sample {
            run: run.into(),
            saga: "sample".to_owned(),
            version: 1,
            seq: 0,
            next_id: AppendId::random(),
            at: Timestamp::from_micros(1_795_392_000_000_000),
            standing: Standing::Running,
            steps: StepTable::new(vec!["first".into(), "second".into()]),
            worker: "conformance".to_owned(),
        }
    }

    /// A run that this worker starts.
    #[must_use]
    pub fn by(mut self, worker: impl Into<String>) -> Self {
        self.worker = worker.into();
        self
    }

    /// A run of another saga.
    #[must_use]
    pub fn of(mut self, saga: impl Into<String>, version: u32) -> Self {
        (self.saga, self.version) = (saga.into(), version);
        self
    }

    /// The same run, from here on with its steps numbered the other way round: numbers mean nothing without
    /// the table that comes with each append.
    #[must_use]
    pub fn renumbered(&self) -> Self {
        let names = self.steps.names();
        Sample {
            steps: StepTable::new(names.into_iter().rev().collect()),
            ..self.clone()
        }
    }

    /// The same run, in the hands of another owner: its appends have other ids.
    #[must_use]
    pub fn rival(&self) -> Self {
        Sample {
            next_id: AppendId::random(),
            ..self.clone()
        }
    }

    /// The run.
    #[must_use]
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// The start.
    pub fn start(&mut self) -> Append {
        let started = Event::RunStarted(Arc::new(RunStarted {
            saga: self.saga.as_str().into(),
            version: self.version,
            fingerprint: "0".repeat(64).into(),
            uid: "1".repeat(32).into(),
            trace_id: "2".repeat(32).into(),
            traceparent: None,
            tracestate: None,
            input: Value::typed(Arc::new(4711_u32)),
            input_digest: None,
            deadline: None,
            labels: BTreeMap::from([("customer".to_owned(), "42".to_owned())]),
            redo_of: None,
            worker: self.worker.as_str().into(),
        }));
        let events = vec![started, step_started(0)];
        self.append(events, Standing::Running)
    }

    /// The next record: a step succeeded with this text as its output, and the next one starts.
    pub fn step(&mut self, output: &str) -> Append {
        self.step_with(Value::typed(Arc::new(output.to_owned())))
    }

    /// The next record, with any output.
    pub fn step_with(&mut self, output: Value) -> Append {
        let events = vec![
            Event::StepDone {
                step: StepIx(0),
                output,
                partial: None,
                asks: false,
                took_us: 1_500,
            },
            step_started(1),
        ];
        self.append(events, self.standing)
    }

    /// The next record: this worker claims the run.
    pub fn claim(&mut self, worker: impl Into<String>) -> Append {
        let (fence, worker) = (self.seq + 1, worker.into());
        self.append(vec![Event::Claimed { fence, worker }], Standing::Running)
    }

    /// The next record: from now on the run stands so.
    pub fn stand(&mut self, standing: Standing) -> Append {
        let (by, reason) = ("a test".to_owned(), "because".to_owned());
        let event = match standing {
            Standing::Running => Event::Claimed {
                fence: self.seq,
                worker: by,
            },
            Standing::Waiting { .. } => Event::StepNotStarted { step: StepIx(1) },
            Standing::Paused => Event::Paused { by, reason },
            Standing::Parked => Event::Parked(Box::new(Parking::new(ParkReason::Manual, reason))),
            Standing::Completed => Event::Ended(End::Completed {
                output: Value::typed(Arc::new(1)),
            }),
            Standing::Compensated => Event::Ended(End::Compensated),
            Standing::Stopped => Event::Ended(End::Stopped { reason }),
            Standing::Abandoned => Event::Ended(End::Abandoned { by, reason }),
        };
        self.append(vec![event], standing)
    }

    /// The next record: the run goes on with this version of its saga.
    pub fn migrate(&mut self, version: u32) -> Append {
        let from = Outline {
            saga: self.saga.as_str().into(),
            version: std::mem::replace(&mut self.version, version),
            fingerprint: "0".repeat(64),
            steps: Vec::new(),
            gathers: OutlineForm::Saga,
        };
        let to = (version, &*"1".repeat(64));
        let migrated = Migrated::new(from, to, StepMoves::default(), "a test", "because");
        let event = Event::Migrated(Box::new(migrated));
        self.append(vec![event], Standing::Parked)
    }

    /// Skips places, so that the next append leaves a gap; or goes back, with a negative number.
    pub fn skip(&mut self, places: i64) {
        self.seq = self.seq.saturating_add_signed(places);
    }

    fn append(&mut self, events: Vec<Event>, standing: Standing) -> Append {
        self.seq += 1;
        self.next_id = self.next_id.next();
        self.at = Timestamp::from_micros(self.at.as_micros() + 1_000);
        let record = Record {
            seq: self.seq,
            append_id: self.next_id,
            at: self.at,
            events,
        };
        let mut append = Append::new(self.run.clone(), record, self.steps.clone(), standing);
        append.standing_changed = self.seq == 1 || standing != self.standing;
        self.standing = standing;
        append
    }
}

fn step_started(step: u32) -> Event {
    Event::StepStarted {
        step: StepIx(step),
        round: 1,
        attempt: 1,
        key: format!("{}/{step}/1", "1".repeat(32)).into(),
        fed_by: Vec::new(),
        mapped: Vec::new(),
        items: None,
    }
}
