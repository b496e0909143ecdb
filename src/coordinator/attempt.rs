//! Calling user code: with a time-out, with panics caught, and never with a lock held.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use crate::coordinator::limits::{Limits, Permits};
use crate::failure::{Classifier, Failure, FailureMode, Stale};
use crate::machine::AttemptResult;
use crate::saga::BoxFuture;
use crate::step::{ErrorKind, Probed, Pulse, StepError, StepIx, StopSignal, Value, panic_message};

/// A call that is over.
#[derive(Debug)]
pub(super) struct CallEnd {
    pub(super) step: StepIx,
    pub(super) came: Came,
    pub(super) took: Duration,
    /// What it told last of how far it came, if that is not written yet.
    pub(super) progress: Option<Value>,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Came {
    Execute(AttemptResult),
    Undo(AttemptResult),
    Probe(Probed<Value>, Option<String>),
    /// The participant says that the run is somebody else's by now (rule W4). No event is made of it.
    Stale(Stale),
}

/// How a call is made.
pub(super) struct Call {
    pub(super) step: StepIx,
    pub(super) timeout: Duration,
    /// How long it may be silent.
    pub(super) heartbeat: Option<Duration>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) classifier: Arc<Classifier>,
    /// Whether a classifier's `NotDone` counts (rule E2).
    pub(super) atomic: bool,
    /// Whether the output has to be JSON before its event can be appended.
    pub(super) encodes: bool,
}

/// How a guarded future ended.
enum Guarded<T> {
    Returned(Result<T, StepError>),
    Panicked(String),
    TimedOut,
    Silent,
    Dropped,
}

impl<T> Guarded<T> {
    /// The word that the run is somebody else's, wherever it stands in the error.
    fn stale(&self) -> Option<Stale> {
        match self {
            Guarded::Returned(Err(error)) => error.stale(),
            _ => None,
        }
    }
}

/// Runs a future of the user's: panics become failures, and past its time-out, or after too long a silence, it
/// is dropped (rules F2, F4).
async fn guard<T>(
    call: &Call,
    future: BoxFuture<Result<T, StepError>>,
    stop: Option<&StopSignal>,
) -> Guarded<T> {
    if call.heartbeat.is_some() {
        // It was announced earlier, and may have waited since.
        call.pulse.beat();
    }
    let mut caught = AssertUnwindSafe(future).catch_unwind();
    let ended = tokio::select! {
        biased;
        returned = &mut caught => match returned {
            Ok(returned) => return Guarded::Returned(returned),
            Err(panic) => return Guarded::Panicked(panic_message(&*panic)),
        },
        () = tokio::time::sleep(call.timeout) => Guarded::TimedOut,
        () = call.pulse.stops(call.heartbeat) => Guarded::Silent,
        () = dropped(stop) => Guarded::Dropped,
    };
    // Dropping it runs user code too.
    drop(std::panic::catch_unwind(AssertUnwindSafe(move || {
        drop(caught);
    })));
    ended
}

async fn dropped(stop: Option<&StopSignal>) {
    match stop {
        Some(stop) => stop.dropped().await,
        None => std::future::pending().await,
    }
}

impl Call {
    fn panicked(message: &str) -> Failure {
        Failure::new(FailureMode::StepLogic, format!("it panicked: {message}")).retryable(false)
    }

    fn timed_out(&self) -> Failure {
        Failure::new(
            FailureMode::StepTimeout,
            format!("no answer within {:?}", self.timeout),
        )
    }

    fn silent(&self) -> Failure {
        let limit = self.heartbeat.unwrap_or_default();
        Failure::new(
            FailureMode::StepTimeout,
            format!("no heartbeat within {limit:?}"),
        )
    }

    pub(super) async fn execute(
        self,
        future: BoxFuture<Result<Value, StepError>>,
        stop: Option<Arc<StopSignal>>,
        permits: Permits,
    ) -> CallEnd {
        let began = Instant::now();
        let ended = guard(&self, future, stop.as_deref()).await;
        let last = self.pulse.end();
        let stale = ended.stale();
        let result = match ended {
            Guarded::Returned(Ok(mut output)) => match self.encodes.then(|| output.encode()) {
                // The effect is there, but can't be told: in doubt, and no retry would help.
                Some(Err(error)) => AttemptResult::Failed(Failure::new(
                    FailureMode::StepContract,
                    error.to_string(),
                )),
                Some(Ok(())) | None => match last.part {
                    Some(part) => AttemptResult::DoneInPart(output, Box::new(part)),
                    None => AttemptResult::Done(output),
                },
            },
            Guarded::Returned(Err(error)) => match error.kind() {
                ErrorKind::Stop(reason) => AttemptResult::Stopped(reason.clone()),
                ErrorKind::Failed { .. } => {
                    AttemptResult::Failed(error.into_failure(&self.classifier, self.atomic))
                }
            },
            Guarded::Panicked(message) => AttemptResult::Failed(Call::panicked(&message)),
            Guarded::TimedOut => AttemptResult::Failed(self.timed_out()),
            Guarded::Silent => AttemptResult::Failed(self.silent()),
            Guarded::Dropped => AttemptResult::Interrupted,
        };
        drop(permits);
        CallEnd {
            step: self.step,
            came: stale.map_or(Came::Execute(result), Came::Stale),
            took: began.elapsed(),
            progress: last.progress,
        }
    }

    pub(super) async fn undo(
        self,
        future: BoxFuture<Result<(), StepError>>,
        limits: Limits,
    ) -> CallEnd {
        // An undo may wait for its permits here: calling it again after a crash is no doubt (rule U4).
        let Some(_permits) = limits.acquire().await else {
            return CallEnd {
                step: self.step,
                came: Came::Undo(AttemptResult::NotStarted),
                took: Duration::ZERO,
                progress: None,
            };
        };
        let began = Instant::now();
        let ended = guard(&self, future, None).await;
        let stale = ended.stale();
        let result = match ended {
            Guarded::Returned(Ok(())) => AttemptResult::Undone,
            Guarded::Returned(Err(error)) => {
                let said = error.says_whether_to_retry();
                let failure = error.into_failure(&self.classifier, self.atomic);
                // Undoing again is always safe, so an error that nobody knows is no reason to stop: only
                // the step's own word, or a terminal mode, is (rule U3).
                AttemptResult::Failed(if said {
                    failure
                } else {
                    failure.retryable(true)
                })
            }
            Guarded::Panicked(message) => AttemptResult::Failed(Call::panicked(&message)),
            Guarded::TimedOut | Guarded::Dropped => AttemptResult::Failed(self.timed_out()),
            Guarded::Silent => AttemptResult::Failed(self.silent()),
        };
        CallEnd {
            step: self.step,
            came: stale.map_or(Came::Undo(result), Came::Stale),
            took: began.elapsed(),
            progress: None,
        }
    }

    /// A probe that fails answers `Unknown` (rule E4).
    pub(super) async fn probe(
        self,
        future: BoxFuture<Result<Probed<Value>, StepError>>,
    ) -> CallEnd {
        let began = Instant::now();
        let ended = guard(&self, future, None).await;
        let stale = ended.stale();
        let (answer, error) = match ended {
            Guarded::Returned(Ok(Probed::Done(mut output))) => {
                match self.encodes.then(|| output.encode()) {
                    Some(Err(error)) => (Probed::Unknown, Some(error.to_string())),
                    Some(Ok(())) | None => (Probed::Done(output), None),
                }
            }
            Guarded::Returned(Ok(answer)) => (answer, None),
            Guarded::Returned(Err(error)) => (Probed::Unknown, Some(error.to_string())),
            Guarded::Panicked(message) => {
                (Probed::Unknown, Some(format!("it panicked: {message}")))
            }
            Guarded::TimedOut | Guarded::Silent | Guarded::Dropped => {
                (Probed::Unknown, Some(self.timed_out().message))
            }
        };
        CallEnd {
            step: self.step,
            came: stale.map_or(Came::Probe(answer, error), Came::Stale),
            took: began.elapsed(),
            progress: None,
        }
    }
}
