//! HTTP statuses.
//!
//! An answer is of the service, or of anything between: a proxy, a gateway, a balancer. A status is
//! *not done* only where nobody sends it after it has let a request through.

use std::error::Error;
use std::ops::RangeInclusive;

use http::StatusCode;

use super::{Known, Row, find, row};
use crate::failure::FailedEffect::{InDoubt, NotDone};
use crate::failure::{Classification, FailureMode, HttpFailure};

pub(super) static ROWS: &[Row<u16>] = &[
    row(
        "",
        &[400, 413, 414, 415, 416, 422, 428, 431],
        FailureMode::StepValidation,
        NotDone,
        "The service refuses what was sent before it acts on it.",
    ),
    row(
        "",
        &[404, 410],
        FailureMode::StepValidation,
        NotDone,
        "What the request names is not there, so there was nothing to act on. (Of a probe it proves nothing.)",
    ),
    row(
        "",
        &[401, 403, 407, 451, 511],
        FailureMode::PermissionDenied,
        NotDone,
        "Refused before anything was done, by the service or on the way to it.",
    ),
    row(
        "",
        &[402],
        FailureMode::QuotaExceeded,
        NotDone,
        "Refused until someone pays; waiting a moment will not help.",
    ),
    row(
        "",
        &[405, 411, 417, 426, 501, 505],
        FailureMode::StepLogic,
        NotDone,
        "The service does not offer what the step's code asks for, or not in this way.",
    ),
    row(
        "",
        &[406],
        FailureMode::StepLogic,
        InDoubt,
        "Many a framework finds out that it can't write the answer as asked for after its handler has run.",
    ),
    row(
        "",
        &[408, 504],
        FailureMode::SystemTimeout,
        InDoubt,
        "Time ran out somewhere. Servers send the first for a slow handler too, and a gateway sends the second after it has forwarded the request.",
    ),
    row(
        "",
        &[409, 412, 423],
        FailureMode::StepState,
        NotDone,
        "The state of the thing forbids it: this call changed nothing. (That an earlier one did may be the reason.)",
    ),
    row(
        "",
        &[421, 425],
        FailureMode::SystemNetwork,
        NotDone,
        "The request came over the wrong connection, or too early on it, and is not handled there.",
    ),
    row(
        "",
        &[429],
        FailureMode::RateLimited,
        NotDone,
        "Turned away at the door. With `Retry-After`, that is the wait.",
    ),
    row(
        "",
        &[500],
        FailureMode::ApiUnavailable,
        InDoubt,
        "Something broke within the service, before its effect or after it.",
    ),
    row(
        "",
        &[502, 503],
        FailureMode::ApiUnavailable,
        InDoubt,
        "A service that is overloaded refuses with 503; but a proxy sends the same when the service behind it hung up on a forwarded request. With `Retry-After`, that is the wait.",
    ),
    row(
        "",
        &[507],
        FailureMode::SystemDisk,
        InDoubt,
        "What was stored before the space ran out may be there.",
    ),
];

/// What the class of a status says that is in no row.
pub(super) static CLASSES: &[Row<RangeInclusive<u16>>] = &[
    row(
        "any other 4xx",
        &[400..=499],
        FailureMode::StepValidation,
        InDoubt,
        "By its class a refusal; but proxies use numbers of their own for clients that went away, with the request forwarded.",
    ),
    row(
        "any other 5xx",
        &[500..=599],
        FailureMode::ApiUnavailable,
        InDoubt,
        "As 500.",
    ),
    row(
        "1xx, 3xx, 6xx and above",
        &[0..=399, 600..=u16::MAX],
        FailureMode::StepLogic,
        InDoubt,
        "Not an answer that the step understands. 303 is what services answer when they have done it.",
    ),
];

pub(super) fn status(status: StatusCode) -> Option<Classification> {
    let number = status.as_u16();
    find(ROWS, |key| *key == number)
        .map(Row::classification)
        .or_else(|| find(CLASSES, |range| range.contains(&number)).map(Row::classification))
}

pub(super) fn classify(error: &(dyn Error + 'static)) -> Option<Known> {
    let failure = error.downcast_ref::<HttpFailure>()?;
    let known = status(failure.status())?;
    Some(Known::Whole(known.retry_after(failure.retry_after())))
}
