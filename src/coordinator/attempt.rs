//! Calling user code: with a time-out, with panics caught, and never with a lock held.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::coordinator::limits::{Limits, Permits};
use crate::failure::{Classifier, Failure, FailureMode, Stale};
use crate::machine::AttemptResult;
use crate::saga::BoxFuture;
use crate::step::{
    ErrorKind, Probed, StepContext, StepError, StepIx, StopSignal, Value, panic_message,
};

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
    /// What the call was told, and where it tells how far it has come.
    pub(super) cx: StepContext,
    /// Whether a classifier's `NotDone` counts (rule E2).
    pub(super) atomic: bool,
    /// Whether the output has to be JSON before its event can be appended.
    pub(super) encodes: bool,
}

/// What user code returns.
type Returned<T> = Result<T, StepError>;

/// How a guarded future ended.
enum Guarded<T> {
    Returned(Returned<T>),
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

/// Polls a future of the user's once, with panics caught.
fn poll_once<T>(future: &mut BoxFuture<Returned<T>>, cx: &mut Context<'_>) -> Poll<Guarded<T>> {
    match std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Ready(returned)) => Poll::Ready(Guarded::Returned(returned)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(panic) => Poll::Ready(Guarded::Panicked(panic_message(&*panic))),
    }
}

/// Runs a future of the user's: panics become failures, and past its time-out, or after too long a silence, it
/// is dropped (rules F2, F4).
async fn guard<T>(
    call: &Call,
    mut future: BoxFuture<Returned<T>>,
    began: Instant,
    stop: Option<&StopSignal>,
) -> Guarded<T> {
    let ended = tokio::select! {
        biased;
        ended = poll_fn(|cx| poll_once(&mut future, cx)) => return ended,
        () = until(began.checked_add(call.timeout)) => Guarded::TimedOut,
        () = call.cx.pulse().stops(call.heartbeat) => Guarded::Silent,
        () = dropped(stop) => Guarded::Dropped,
    };
    // Dropping it runs user code too.
    drop(std::panic::catch_unwind(AssertUnwindSafe(move || {
        drop(future);
    })));
    ended
}

/// A time-out beyond the end of time is none.
async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
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

    /// Polls an `execute` for the first time. Most calls in a test, and many others, are over then, and cost
    /// neither a time-out nor a box of their own.
    pub(super) fn execute(
        self,
        mut future: BoxFuture<Returned<Value>>,
        stop: Option<Arc<StopSignal>>,
        permits: Permits,
        classifier: &Arc<Classifier>,
        cx: &mut Context<'_>,
    ) -> Result<CallEnd, BoxFuture<CallEnd>> {
        let began = self.begins();
        if let Poll::Ready(ended) = poll_once(&mut future, cx) {
            drop(future);
            return Ok(self.executed(ended, began, classifier));
        }
        let classifier = Arc::clone(classifier);
        Err(Box::pin(async move {
            let ended = guard(&self, future, began, stop.as_deref()).await;
            drop(permits);
            self.executed(ended, began, &classifier)
        }))
    }

    /// It was announced earlier, and may have waited since.
    fn begins(&self) -> Instant {
        if self.heartbeat.is_some() {
            self.cx.heartbeat();
        }
        Instant::now()
    }

    fn executed(self, ended: Guarded<Value>, began: Instant, classifier: &Classifier) -> CallEnd {
        let last = self.cx.pulse().end();
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
                    AttemptResult::Failed(error.into_failure(classifier, self.atomic))
                }
            },
            Guarded::Panicked(message) => AttemptResult::Failed(Call::panicked(&message)),
            Guarded::TimedOut => AttemptResult::Failed(self.timed_out()),
            Guarded::Silent => AttemptResult::Failed(self.silent()),
            Guarded::Dropped => AttemptResult::Interrupted,
        };
        CallEnd {
            step: self.step,
            came: stale.map_or(Came::Execute(result), Came::Stale),
            took: began.elapsed(),
            progress: last.progress,
        }
    }

    /// Polls a `compensate` for the first time, once it has its permits: it may wait for them here, since
    /// calling it again after a crash is no doubt (rule U4).
    pub(super) fn undo(
        self,
        mut future: BoxFuture<Returned<()>>,
        limits: Limits,
        classifier: &Arc<Classifier>,
        cx: &mut Context<'_>,
    ) -> Result<CallEnd, BoxFuture<CallEnd>> {
        let Some(permits) = limits.try_acquire() else {
            let classifier = Arc::clone(classifier);
            return Err(Box::pin(async move {
                let Some(permits) = limits.acquire().await else {
                    return CallEnd {
                        step: self.step,
                        came: Came::Undo(AttemptResult::NotStarted),
                        took: Duration::ZERO,
                        progress: None,
                    };
                };
                let began = self.begins();
                let ended = guard(&self, future, began, None).await;
                drop(permits);
                self.undone(ended, began, &classifier)
            }));
        };
        let began = self.begins();
        if let Poll::Ready(ended) = poll_once(&mut future, cx) {
            drop(future);
            return Ok(self.undone(ended, began, classifier));
        }
        let classifier = Arc::clone(classifier);
        Err(Box::pin(async move {
            let ended = guard(&self, future, began, None).await;
            drop(permits);
            self.undone(ended, began, &classifier)
        }))
    }

    fn undone(self, ended: Guarded<()>, began: Instant, classifier: &Classifier) -> CallEnd {
        let stale = ended.stale();
        let result = match ended {
            Guarded::Returned(Ok(())) => AttemptResult::Undone,
            Guarded::Returned(Err(error)) => {
                let said = error.says_whether_to_retry();
                let failure = error.into_failure(classifier, self.atomic);
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
    pub(super) async fn probe(self, future: BoxFuture<Returned<Probed<Value>>>) -> CallEnd {
        let began = self.begins();
        let ended = guard(&self, future, began, None).await;
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
