//! What a call tells besides its result: that it lives, how far it has come, that it did a part.
//!
//! A report is a value in a cell: a newer one replaces it, so that reports can neither wait nor pile up.
//! Whoever drives the run takes it from there when it writes.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use crate::failure::PartialSuccess;
use crate::step::{CallKind, Payload, PayloadError, StepContext, StepIx, Value};

/// So long passes between two records of one step's progress, however much it reports.
const LEAST_APART: Duration = Duration::from_secs(1);
/// So long passes at most before progress is written for its own sake.
const MOST_APART: Duration = Duration::from_secs(10);

impl StepContext {
    /// Tells that this call lives.
    ///
    /// Where the definition sets a limit ([`StepSpec::heartbeat`](crate::StepSpec::heartbeat) or
    /// [`compensation_heartbeat`](crate::StepSpec::compensation_heartbeat)), silence for longer than that
    /// is a time-out: the call's future is dropped, and its effect is in doubt. The time-out of the whole
    /// call passes whatever it tells.
    ///
    /// Never waits and writes nothing: call it as often as you like, from any thread.
    pub fn heartbeat(&self) {
        self.parts.pulse.beat();
    }

    /// Tells how far this `execute` has come, which is a [`heartbeat`](Self::heartbeat), too.
    ///
    /// The next call of the step in this round reads it with [`last_progress`](Self::last_progress), also
    /// after a crash. Never waits: the newest report replaces the one before, and is written with the end
    /// of the call at the latest. In between it is written every ten seconds, or after half the heartbeat
    /// limit where that is shorter, though never more than once a second; where the run has something to
    /// write anyway, it goes along. So a crash loses the reports of up to ten seconds, and a report is no
    /// promise that an effect was made: write what is safe to go on from.
    ///
    /// A value that can't be written as JSON is left out, with a warning. In `compensate` and in a probe
    /// this is a heartbeat and nothing more: an undo has to be complete each time.
    ///
    /// ```
    /// # use amends::store::MemoryStore;
    /// # use amends::{Coordinator, FailureMode, Retry, Saga, StepContext, StepError, step_fn};
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let copy = step_fn(
    ///     "copy",
    ///     async |cx: &StepContext, rows: &u64| {
    ///         let from = cx.last_progress::<u64>()?.map_or(0, |done| *done);
    ///         for row in from..*rows {
    ///             if row == 7 && cx.attempt() == 1 {
    ///                 return Err(StepError::in_doubt("reset").with_mode(FailureMode::SystemNetwork));
    ///             }
    ///             cx.report_progress(row + 1);
    ///         }
    ///         Ok(*rows - from)
    ///     },
    ///     async |_cx, _rows, _effect| Ok(()),
    /// )
    /// .heartbeat(Duration::from_secs(20))
    /// .timeout(Duration::from_secs(2 * 3_600))
    /// .retry(Retry::constant().initial(Duration::from_millis(1)));
    ///
    /// let mut saga = Saga::builder::<u64>("migrate");
    /// let rows = saga.input();
    /// let copied = saga.add(copy, rows);
    /// let saga = saga.returns(copied)?;
    /// let coordinator = Coordinator::builder(MemoryStore::new()).register(&saga).build().await?;
    /// let outcome = coordinator.start(&saga, "once", 10).await?.outcome().await?;
    /// assert_eq!(outcome.completed(), Some(3)); // the second attempt copied the rows that were left
    /// # Ok(())
    /// # }
    /// ```
    pub fn report_progress<P: Payload>(&self, progress: P) {
        self.heartbeat();
        if self.parts.call == CallKind::Execute {
            self.parts
                .pulse
                .report(self, Value::typed(Arc::new(progress)));
        }
    }

    /// Tells that this `execute` did a part of its items only, and returns an output all the same.
    ///
    /// The step is done: its output goes to its dependents, and its effect is undone like any other. The note
    /// is journalled with it and shown, and the run goes on, unless a rule of the recovery policy names it (by
    /// its mode or by `effect = "done"`) and says something other than `retry_failed`. The last note of a call
    /// counts; one that lacks nothing, one of a call that fails, and one of an undo or a probe say nothing.
    ///
    /// ```
    /// # use amends::store::MemoryStore;
    /// # use amends::{Coordinator, Saga, StepContext, step_fn};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use amends::failure::PartialSuccess;
    ///
    /// let reserve = step_fn(
    ///     "reserve",
    ///     async |cx: &StepContext, lines: &Vec<u32>| {
    ///         let there: Vec<u32> = lines.iter().copied().filter(|line| *line < 100).collect();
    ///         let (done, of) = (there.len() as u64, lines.len() as u64);
    ///         cx.did_part(PartialSuccess::new(done, of, "the others are out of stock"));
    ///         Ok(there)
    ///     },
    ///     async |_cx, _lines, _effect| Ok(()),
    /// );
    /// # let mut saga = Saga::builder::<Vec<u32>>("order");
    /// # let lines = saga.input();
    /// # let reserved = saga.add(reserve, lines);
    /// # let saga = saga.returns(reserved)?;
    /// # let coordinator = Coordinator::builder(MemoryStore::new()).register(&saga).build().await?;
    /// # let run = coordinator.start(&saga, "order-7", vec![1, 2, 300]).await?;
    /// let outcome = run.outcome().await?;
    /// let partial = outcome.partial();
    /// let note = partial.step("reserve").and_then(|step| step.partial.as_ref()).unwrap();
    /// assert_eq!((note.done, note.of), (2, 3));
    /// assert_eq!(outcome.completed(), Some(vec![1, 2]));
    /// # Ok(())
    /// # }
    /// ```
    pub fn did_part(&self, part: PartialSuccess) {
        if self.parts.call == CallKind::Execute {
            self.parts.pulse.told().part = Some(part);
        }
    }

    /// How far this step had come in this round when the call was made, by the last report that was
    /// written. In `compensate` and in a probe: how far `execute` had come.
    ///
    /// Nothing where nothing was reported. Forgotten when the round ends, and when what feeds the step is
    /// made anew.
    ///
    /// # Errors
    ///
    /// [`PayloadError::Decode`] where it isn't a `P`.
    pub fn last_progress<P: Payload>(&self) -> Result<Option<Arc<P>>, PayloadError> {
        self.parts.progress.as_ref().map(Value::get).transpose()
    }
}

/// One call's signs of life.
pub(crate) struct Pulse {
    step: StepIx,
    made: Instant,
    /// When the last sign came, in nanoseconds since `made`.
    last: AtomicU64,
    /// How long after the last record progress is written for its own sake.
    apart: Duration,
    told: Mutex<Told>,
    /// Weak, since what was heard holds the pulses.
    reports: Weak<Reports>,
}

struct Told {
    /// The newest report, until it is written.
    news: Option<Value>,
    written_at: Instant,
    part: Option<PartialSuccess>,
    /// Whether the call has ended: what a task that it left behind reports is nobody's progress.
    over: bool,
}

impl Pulse {
    pub(crate) fn new(
        step: StepIx,
        limit: Option<Duration>,
        made: Instant,
        reports: &Arc<Reports>,
    ) -> Self {
        let half = limit.map_or(MOST_APART, |limit| limit / 2);
        Pulse {
            step,
            made,
            last: AtomicU64::new(0),
            apart: half.clamp(LEAST_APART, MOST_APART),
            told: Mutex::new(Told {
                news: None,
                written_at: made,
                part: None,
                over: false,
            }),
            reports: Arc::downgrade(reports),
        }
    }

    pub(crate) fn step(&self) -> StepIx {
        self.step
    }

    /// No code of the user's runs under this lock, and it is never held across an await.
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn beat(&self) {
        let since = Instant::now().saturating_duration_since(self.made);
        let nanos = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        self.last.fetch_max(nanos, Ordering::AcqRel);
    }

    fn report(&self, cx: &StepContext, progress: Value) {
        let mut told = self.told();
        let before = if told.over {
            Some(progress)
        } else {
            told.news.replace(progress)
        };
        drop(told);
        if before.is_none()
            && let Some(reports) = self.reports.upgrade()
        {
            reports.hear(cx.clone());
        }
    }

    /// Ends once the call was silent for longer than the limit; never where there is none.
    pub(crate) async fn stops(&self, limit: Option<Duration>) {
        let Some(limit) = limit else {
            return std::future::pending().await;
        };
        loop {
            let last = Duration::from_nanos(self.last.load(Ordering::Acquire));
            let Some(until) = (self.made + last).checked_add(limit) else {
                return std::future::pending().await;
            };
            if until <= Instant::now() {
                return;
            }
            // In a box, since most calls have no limit, and each would carry it along.
            Box::pin(tokio::time::sleep_until(until)).await;
        }
    }

    /// The call has ended; this is the last that it told.
    pub(crate) fn end(&self) -> LastWords {
        let mut told = self.told();
        told.over = true;
        LastWords {
            progress: told.news.take(),
            part: told.part.take().filter(PartialSuccess::lacks_something),
        }
    }

    /// When there is news: from when on it may be written with something else, and when for its own sake.
    pub(crate) fn news_from(&self) -> Option<(Instant, Instant)> {
        let told = self.told();
        let from = told.written_at;
        told.news
            .is_some()
            .then(|| (from + LEAST_APART, from + self.apart))
    }

    /// The newest report, to be written now.
    pub(crate) fn take_news(&self, now: Instant) -> Option<Value> {
        let mut told = self.told();
        let news = told.news.take();
        if news.is_some() {
            told.written_at = now;
        }
        news
    }
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pulse")
    }
}

/// What a call told last.
pub(crate) struct LastWords {
    /// How far it came, if that is not written yet.
    pub(crate) progress: Option<Value>,
    /// That it did a part only.
    pub(crate) part: Option<PartialSuccess>,
}

/// Where the calls of one driver say that they have news.
#[derive(Default)]
pub(crate) struct Reports {
    heard: Mutex<Vec<StepContext>>,
    /// Wakes the driver: a report may come from a task or a thread of the step's own.
    pub(crate) waker: AtomicWaker,
}

impl Reports {
    fn heard(&self) -> MutexGuard<'_, Vec<StepContext>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, cx: StepContext) {
        self.heard().push(cx);
        self.waker.wake();
    }

    /// The calls that had something to tell since this was asked last.
    pub(crate) fn take(&self) -> Vec<StepContext> {
        std::mem::take(&mut self.heard())
    }
}
