//! Errors of the HTTP client reqwest.
//!
//! reqwest knows whether a connection had been there; the error inside knows what became of it. Only the
//! former settles the effect: a body that is streamed from elsewhere can put any error at all inside.
//!
//! A client that follows redirects makes several calls, and its error is that of the last one. That is
//! not one effectful call, so the page tells authors of atomic steps to turn them off.

use reqwest::Error;

use super::{Known, Row, causes, find, http, row};
use crate::failure::FailedEffect::{InDoubt, NotDone};
use crate::failure::FailureMode;

/// Whether an error is of a row.
pub(super) type Is = fn(&Error) -> bool;

/// Rows that leave nothing for the causes to say.
pub(super) static WHOLE: &[Row<Is>] = &[
    row(
        "the request can't be built",
        &[Error::is_builder as Is],
        FailureMode::StepValidation,
        NotDone,
        "Nothing is sent before a request is complete.",
    ),
    row(
        "too many redirects, or a forbidden one",
        &[Error::is_redirect as Is],
        FailureMode::StepLogic,
        InDoubt,
        "A redirect is an answer, and 303 is what services answer when they have done it.",
    ),
    row(
        "the answer is not the JSON that was expected",
        &[is_json as Is],
        FailureMode::StepContract,
        InDoubt,
        "The service answered, and most likely has done it; the answer would be the same again.",
    ),
];

/// Rows that tell how far the call had come.
pub(super) static PHASES: &[Row<Is>] = &[
    row(
        "connecting took too long",
        &[is_slow_connect as Is],
        FailureMode::SystemTimeout,
        NotDone,
        "The request is sent over an established connection only, so nothing was sent, to whichever of the host's addresses.",
    ),
    row(
        "connecting failed: name, refusal, proxy, TLS",
        &[is_connect as Is],
        FailureMode::SystemNetwork,
        NotDone,
        "As above. The cause inside tells the mode: of a refused connection it is `resource_api`.",
    ),
    row(
        "a time-out",
        &[Error::is_timeout as Is],
        FailureMode::SystemTimeout,
        InDoubt,
        "The time of the client or of the request ran out: with the request sent, or with half of the answer read.",
    ),
    row(
        "sending, receiving or decoding failed",
        &[
            Error::is_request as Is,
            Error::is_body as Is,
            Error::is_decode as Is,
            Error::is_upgrade as Is,
        ],
        FailureMode::SystemNetwork,
        InDoubt,
        "The connection had been there. The request may have arrived in full, whatever the cause inside is.",
    ),
];

fn is_json(error: &Error) -> bool {
    error.is_decode() && causes(error).any(<dyn std::error::Error>::is::<serde_json::Error>)
}

/// reqwest looks for a failed connect anywhere among the causes. One inside another error of reqwest
/// is that of another call, whose answer was to be this one's body.
fn is_connect(error: &Error) -> bool {
    error.is_connect()
        && error.is_request()
        && !causes(error).any(<dyn std::error::Error>::is::<Error>)
}

fn is_slow_connect(error: &Error) -> bool {
    is_connect(error) && error.is_timeout()
}

pub(super) fn classify(error: &(dyn std::error::Error + 'static)) -> Option<Known> {
    let error = error.downcast_ref::<Error>()?;
    if let Some(status) = error.status() {
        return http::status(status).map(Known::Whole);
    }
    if let Some(row) = find(WHOLE, |is| is(error)) {
        return Some(Known::Whole(row.classification()));
    }
    find(PHASES, |is| is(error)).map(|row| Known::Phase(row.classification()))
}
