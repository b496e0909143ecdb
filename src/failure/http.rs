//! An HTTP answer that is not a success, as an error.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};

use super::retry_after;

/// An HTTP answer that is not a success, with the wait that it asks for.
///
/// A client's own error for such an answer keeps the status and forgets `Retry-After`. So ask this
/// instead, of whatever client hands out a status and headers of the crate `http`:
///
/// ```
/// use amends::StepError;
/// use amends::failure::HttpFailure;
/// use http::header::RETRY_AFTER;
/// use http::{HeaderMap, StatusCode};
///
/// fn read(status: StatusCode, headers: &HeaderMap) -> Result<(), StepError> {
///     // With reqwest: HttpFailure::check(response.status(), response.headers())?;
///     HttpFailure::check(status, headers)?;
///     Ok(())
/// }
///
/// let mut headers = HeaderMap::new();
/// headers.insert(RETRY_AFTER, "30".parse()?);
/// let busy = read(StatusCode::TOO_MANY_REQUESTS, &headers).unwrap_err();
/// assert_eq!(busy.to_string(), "the service answered 429 Too Many Requests");
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
///
/// What each status means to a run, and why, is told by the tables of [this module](crate::failure).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the service answered {status}")]
pub struct HttpFailure {
    status: StatusCode,
    retry_after: Option<Duration>,
}

impl HttpFailure {
    /// Nothing where the status is a success (2xx), else the failure that it is.
    ///
    /// A redirect is not a success: it is an answer of another kind than the step asked for, and what
    /// it did before it nobody says.
    ///
    /// # Errors
    ///
    /// The failure, to be returned from a step by `?`.
    pub fn check(status: StatusCode, headers: &HeaderMap) -> Result<(), Self> {
        if status.is_success() {
            return Ok(());
        }
        Err(Self {
            status,
            retry_after: retry_after::wait(headers, SystemTime::now()),
        })
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// How long `Retry-After` asks to wait; `None` where it is missing, malformed, zero or past.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}
