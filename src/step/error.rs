//! How a step says that it failed, stopped, or can't know.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::failure::{Classifier, FailedEffect, Failure, FailureMode, Stale};

/// What a step returns when it does not succeed.
///
/// Any error converts into it by `?` and keeps its type, so that the [`Classifier`] can look at it and at
/// its whole cause chain. Where the step knows better it says so:
///
/// * [`rejected`](Self::rejected): a business refusal; nothing was done, trying again is no use;
/// * [`not_done`](Self::not_done), [`in_doubt`](Self::in_doubt), or in place, `call().await.not_done()?`
///   (see [`ResultExt`]): the step's own word about *this* attempt;
/// * [`stop`](Self::stop): no failure at all; the run ends here and keeps what it has done.
///
/// `Box<dyn Error + Send + Sync>` does not implement `Error` and so can't convert by `?`:
/// use [`StepError::boxed`].
///
/// ```
/// use std::time::Duration;
/// use amends::{FailureMode, ResultExt, StepError};
///
/// fn reserve(free: u32) -> Result<(), StepError> {
///     if free == 0 {
///         return Err(StepError::rejected("sold out"));
///     }
///     let _row: u32 = "12".parse().not_done()?; // nothing was sent yet
///     Err(StepError::in_doubt("the answer was lost")
///         .with_mode(FailureMode::SystemNetwork)
///         .retry_after(Duration::from_millis(250)))
/// }
/// assert!(reserve(0).is_err());
/// ```
pub struct StepError {
    kind: ErrorKind,
    mode: Option<FailureMode>,
    retryable: Option<bool>,
    retry_after: Option<Duration>,
}

pub(crate) enum ErrorKind {
    Failed {
        source: Box<dyn Error + Send + Sync>,
        said: Option<FailedEffect>,
    },
    Stop(String),
}

impl StepError {
    fn failed(source: Box<dyn Error + Send + Sync>, said: Option<FailedEffect>) -> Self {
        StepError {
            kind: ErrorKind::Failed { source, said },
            mode: None,
            retryable: None,
            retry_after: None,
        }
    }

    /// A business refusal: this attempt did nothing, and asking again would give the same answer.
    ///
    /// Mode [`FailureMode::StepValidation`] unless [`with_mode`](Self::with_mode) says otherwise.
    pub fn rejected(reason: impl Into<String>) -> Self {
        StepError::failed(reason.into().into(), Some(FailedEffect::NotDone))
            .with_mode(FailureMode::StepValidation)
            .retryable(false)
    }

    /// The step's own word that this attempt did nothing.
    pub fn not_done(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        StepError::failed(error.into(), Some(FailedEffect::NotDone))
    }

    /// The step's own word that this attempt may have done something.
    pub fn in_doubt(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        StepError::failed(error.into(), Some(FailedEffect::InDoubt))
    }

    /// Ends the run early, without a failure: what is done is kept and the run ends `Stopped`
    /// (or is undone, where the saga says [`OnStop::Compensate`](crate::OnStop::Compensate)).
    pub fn stop(reason: impl Into<String>) -> Self {
        StepError {
            kind: ErrorKind::Stop(reason.into()),
            mode: None,
            retryable: None,
            retry_after: None,
        }
    }

    /// Takes a boxed error, which `?` can't: the classifier decides about it.
    #[must_use]
    pub fn boxed(error: Box<dyn Error + Send + Sync>) -> Self {
        StepError::failed(error, None)
    }

    /// Says the failure's class, over the classifier's head.
    #[must_use]
    pub fn with_mode(mut self, mode: FailureMode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Says whether the step's retry policy may try again. A terminal mode is never retried.
    #[must_use]
    pub fn retryable(mut self, retryable: bool) -> Self {
        self.retryable = Some(retryable);
        self
    }

    /// The participant asked to be left alone for so long: overrides the policy's delay, not its limits.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Whether the step itself said if trying again could help.
    pub(crate) fn says_whether_to_retry(&self) -> bool {
        self.retryable.is_some() || self.mode.is_some()
    }

    /// The word of a participant that the run is somebody else's by now, if that is what went wrong.
    pub(crate) fn stale(&self) -> Option<Stale> {
        match &self.kind {
            ErrorKind::Failed { source, .. } => Stale::find(source.as_ref()),
            ErrorKind::Stop(_) => None,
        }
    }

    pub(crate) fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// The whole story, for the journal. `atomic` is the step's declaration: only then does a `NotDone`
    /// that nobody but a classifier derived count (rule E2).
    pub(crate) fn into_failure(self, classifier: &Classifier, atomic: bool) -> Failure {
        let (source, said) = match self.kind {
            ErrorKind::Failed { source, said } => (source, said),
            ErrorKind::Stop(reason) => (reason.into(), Some(FailedEffect::InDoubt)),
        };
        let class = classifier.classify(source.as_ref());
        let effect = match (said, class.effect) {
            (Some(said), _) => said,
            (None, FailedEffect::NotDone) if atomic => FailedEffect::NotDone,
            (None, _) => FailedEffect::InDoubt,
        };
        let retryable = match (self.retryable, &self.mode) {
            (Some(said), _) => said,
            (None, Some(mode)) => mode.is_retryable(),
            (None, None) => class.retryable,
        };
        let mut causes = Vec::new();
        let mut next = source.source();
        // An error type may point back at itself; nobody reads past this.
        while let Some(cause) = next.filter(|_| causes.len() < 64) {
            causes.push(cause.to_string());
            next = cause.source();
        }
        Failure::new(self.mode.unwrap_or(class.mode), source.to_string())
            .causes(causes)
            .effect(effect)
            .retryable(retryable)
            .retry_after(self.retry_after.or(class.retry_after))
    }
}

// `StepError` itself does not implement `Error`, as `anyhow::Error` doesn't: only so can every error convert by `?`.
impl<E: Error + Send + Sync + 'static> From<E> for StepError {
    fn from(error: E) -> Self {
        StepError::failed(Box::new(error), None)
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ErrorKind::Failed { source, .. } => write!(f, "{source}"),
            ErrorKind::Stop(reason) => write!(f, "stop: {reason}"),
        }
    }
}

impl fmt::Debug for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("StepError");
        match &self.kind {
            ErrorKind::Failed { source, said } => out.field("source", source).field("said", said),
            ErrorKind::Stop(reason) => out.field("stop", reason),
        };
        out.field("mode", &self.mode)
            .field("retryable", &self.retryable)
            .finish_non_exhaustive()
    }
}

/// Lets a step say in place what became of a call: `bank.charge(..).await.not_done()?`.
pub trait ResultExt<T> {
    /// If this failed, then nothing was done.
    ///
    /// # Errors
    ///
    /// The error, with the step's word on it.
    fn not_done(self) -> Result<T, StepError>;

    /// If this failed, then nobody knows whether it was done.
    ///
    /// # Errors
    ///
    /// The error, with the step's word on it.
    fn in_doubt(self) -> Result<T, StepError>;
}

impl<T, E: Error + Send + Sync + 'static> ResultExt<T> for Result<T, E> {
    fn not_done(self) -> Result<T, StepError> {
        self.map_err(StepError::not_done)
    }

    fn in_doubt(self) -> Result<T, StepError> {
        self.map_err(StepError::in_doubt)
    }
}
