//! What the participant's barrier refuses, as an error.
//!
//! The errors live in this room and not beside the barrier, so that the classifier can know them without
//! knowing anything of steps.

use std::error::Error;

/// The barrier let nobody in, or could not tell.
///
/// Whatever it says, this call has done nothing: roll the transaction back. What each variant means to a
/// run is told by the tables of [`failure`](crate::failure); a service that is asked over HTTP hands
/// [`code`](Self::code) on, with the status [`status`](Self::status).
///
/// ```
/// use amends::barrier::BarrierError;
/// use amends::failure::{Classifier, FailedEffect, FailureMode};
///
/// let late = BarrierError::Closed { key: "5f0a/charge/1".to_owned() };
/// assert_eq!(late.to_string(), "`5f0a/charge/1` is closed: its effect was undone, or will never be");
/// assert_eq!((late.code(), late.status(), late.is_stale()), ("closed", 409, false));
///
/// let known = Classifier::new().classify(&late);
/// assert_eq!((known.mode, known.effect), (FailureMode::StepContract, FailedEffect::NotDone));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BarrierError {
    /// The call comes from a coordinator that has lost the run to another one without knowing it: a
    /// call of the run with a higher fence has been here.
    #[error("fence {fence} of run {run} is stale: fence {seen} has been here")]
    Stale {
        /// The run's uid, with which its keys begin.
        run: String,
        /// The fence of this call.
        fence: u64,
        /// The highest fence that was seen.
        seen: u64,
    },
    /// An `execute` that comes too late: its effect was undone, or a compensate or a probe that came
    /// first has closed its key.
    #[error("`{key}` is closed: its effect was undone, or will never be")]
    Closed {
        /// The effect's key.
        key: String,
    },
    /// The key is known, and it was another request that came under it.
    #[error("another request has come under the key `{key}`")]
    OtherRequest {
        /// The effect's key.
        key: String,
    },
    /// Somebody went in under this key, and committed without recording what came of it; or this very
    /// transaction went in before. Whether there is an effect only the service's own rows can say.
    #[error("a call of `{key}` was begun, and its result never recorded")]
    Unrecorded {
        /// The effect's key.
        key: String,
    },
    /// The call does not say what a call has to say.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The result can't be written as JSON.
    #[error("the result can't be stored")]
    Result(#[source] serde_json::Error),
    /// The database failed. Its own error is the source, and decides.
    #[error("the barrier's database failed")]
    Database(#[source] Box<dyn Error + Send + Sync>),
}

impl BarrierError {
    /// Whether the coordinator behind the call has lost the run. It is no failure of the step.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        matches!(self, BarrierError::Stale { .. })
    }

    /// One stable word, for the header `Amends-Barrier` of an answer.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            BarrierError::Stale { .. } => "stale",
            BarrierError::Closed { .. } => "closed",
            BarrierError::OtherRequest { .. } => "other-request",
            BarrierError::Unrecorded { .. } => "unrecorded",
            BarrierError::Call(_) => "bad-call",
            BarrierError::Result(_) => "bad-result",
            BarrierError::Database(_) => "database",
        }
    }

    /// The HTTP status that goes with it.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            BarrierError::Stale { .. }
            | BarrierError::Closed { .. }
            | BarrierError::Unrecorded { .. } => 409,
            BarrierError::OtherRequest { .. } => 422,
            BarrierError::Call(_) => 400,
            BarrierError::Result(_) => 500,
            BarrierError::Database(_) => 503,
        }
    }

    #[cfg_attr(
        not(any(feature = "tokio-postgres", feature = "sqlite", feature = "mysql")),
        expect(dead_code, reason = "only the adapters meet databases")
    )]
    pub(crate) fn database(error: impl Error + Send + Sync + 'static) -> Self {
        BarrierError::Database(Box::new(error))
    }
}

/// A call that lacks something, or says it in a way that the barrier can't store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// A header, or a part of the call, that has to be there is missing.
    #[error("the call has no `{what}`")]
    Missing {
        /// Its name.
        what: &'static str,
    },
    /// It is there, and not of the form that it has to have.
    #[error("the call's `{what}` is not {form}")]
    Malformed {
        /// Its name.
        what: &'static str,
        /// The form that it has to have.
        form: &'static str,
    },
    /// A call of one kind was handed to the function for another.
    #[error("the call is {is}, and was taken for {taken}")]
    OtherKind {
        /// What the call is.
        is: &'static str,
        /// What it was taken for.
        taken: &'static str,
    },
}
