//! What can go wrong with a participant, before a call and in it.

use std::error::Error;
use std::time::Duration;

use crate::failure::{FailedEffect, FailureMode, HttpFailure, Stale};
use crate::step::StepError;

/// A participant can't be set up as it is described.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetUpError {
    /// The base URL can't be used.
    #[error("the base URL of a participant {why}")]
    Url {
        /// What is wrong with it. The URL itself is not repeated: it may hold a password.
        why: String,
    },
    /// A header can't be sent with each call.
    #[error("the header `{name}` {why}")]
    Header {
        /// Its name. The value is not repeated: it may be a secret.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The client can't be made.
    #[error("the HTTP client can't be made")]
    Client {
        /// Why not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

/// A call of a participant that did not succeed.
///
/// It holds no header and nothing of what was sent, and of the answer at most the value that is not what was
/// expected. `url` is without its query.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// What is to be sent can't be written as JSON: nothing was sent.
    #[error("what is to be sent to {url} can't be written as JSON")]
    Unwritable {
        /// The URL that was to be called.
        url: String,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// There was no answer, or only half of one. The client's own error is among the causes, and tells the
    /// classifier how far the call had come.
    #[error("no whole answer from {url}")]
    NoAnswer {
        /// The URL that was called.
        url: String,
        /// The client's error.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The answer is no success.
    #[error("{url} answered {}", source.status())]
    Refused {
        /// The URL that was called.
        url: String,
        /// The answer, which tells the classifier what it means.
        #[source]
        source: HttpFailure,
    },
    /// The participant answered 202: it has begun, and has not ended.
    #[error("{url} has accepted the call and not ended it")]
    NotEnded {
        /// The URL that was called.
        url: String,
        /// The wait that it asks for.
        retry_after: Option<Duration>,
    },
    /// The participant says that the run is somebody else's.
    #[error("{url} refuses the fence of the call")]
    Stale {
        /// The URL that was called.
        url: String,
        /// The refusal.
        #[source]
        source: Stale,
    },
    /// The participant's barrier refuses the call for good, for one of these reasons:
    ///
    /// * `closed`: it came too late, after an undo or a probe that answered *never*;
    /// * `other-request`: another request has come under its key;
    /// * `bad-result`: the result could not be stored, and the work was rolled back;
    /// * `unrecorded`: a call was begun under its key, and nobody knows what came of it. Only this one is in doubt.
    #[error("{url} refuses the call: {word}")]
    Barrier {
        /// The URL that was called.
        url: String,
        /// The reason.
        word: &'static str,
        /// What is known of the effect.
        effect: FailedEffect,
    },
    /// The answer is longer than the participant's limit. It was not read to its end.
    #[error("the answer of {url} is longer than {limit} bytes")]
    TooLong {
        /// The URL that was called.
        url: String,
        /// The limit.
        limit: usize,
    },
    /// The answer is a success, and not what the step gives.
    #[error("the answer of {url} is not what the step gives")]
    Unreadable {
        /// The URL that was called.
        url: String,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// A client that was handed in has followed a redirect, so that the answer is somebody else's.
    #[error("the call of {url} was redirected")]
    Redirected {
        /// The URL that was called.
        url: String,
    },
}

impl HttpError {
    /// What the call's failure means to the run, where the classifier can't know it from the causes.
    pub(super) fn into_step_error(self) -> StepError {
        match self {
            HttpError::NoAnswer { .. } | HttpError::Refused { .. } | HttpError::Stale { .. } => {
                self.into()
            }
            HttpError::Unwritable { .. } => {
                StepError::not_done(self).with_mode(FailureMode::StepValidation)
            }
            HttpError::NotEnded { retry_after, .. } => {
                let error = StepError::in_doubt(self).with_mode(FailureMode::ApiUnavailable);
                match retry_after {
                    Some(wait) => error.retry_after(wait),
                    None => error,
                }
            }
            // The answer would be the same again. An undo that is refused so has not done its work either.
            HttpError::Barrier { effect, .. } => match effect {
                FailedEffect::NotDone => StepError::not_done(self),
                FailedEffect::InDoubt | FailedEffect::Done => StepError::in_doubt(self),
            }
            .with_mode(FailureMode::StepContract),
            HttpError::TooLong { .. } | HttpError::Unreadable { .. } => {
                StepError::in_doubt(self).with_mode(FailureMode::StepContract)
            }
            HttpError::Redirected { .. } => {
                StepError::in_doubt(self).with_mode(FailureMode::StepLogic)
            }
        }
    }
}
