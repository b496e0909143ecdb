//! Statuses of gRPC calls.
//!
//! A status comes from the service, or from the library on either side, which has codes of its own for
//! what goes wrong between them. A code is *not done* only where no library gives it to a call that
//! was sent.

use std::error::Error;

use tonic::{Code, ConnectError, Status};

use super::{Known, Row, causes, find, passing, row};
use crate::failure::FailedEffect::{InDoubt, NotDone};
use crate::failure::FailureMode;

pub(super) static ROWS: &[Row<Code>] = &[
    row(
        "",
        &[Code::Ok],
        FailureMode::StepLogic,
        InDoubt,
        "Not an error; whoever made one of it knows why.",
    ),
    row(
        "",
        &[Code::Cancelled],
        FailureMode::SystemTimeout,
        InDoubt,
        "The call was given up under way. tonic says it of a call that exceeds its own time-out.",
    ),
    row(
        "",
        &[Code::Unknown],
        FailureMode::StepLogic,
        InDoubt,
        "Says nothing, not even whether trying again could help. A transport error inside tells the mode.",
    ),
    row(
        "",
        &[Code::InvalidArgument],
        FailureMode::StepValidation,
        NotDone,
        "The service refuses what was sent before it acts on it. No library gives it.",
    ),
    row(
        "",
        &[Code::DeadlineExceeded],
        FailureMode::SystemTimeout,
        InDoubt,
        "Time ran out on one side; by its definition the call may have succeeded.",
    ),
    row(
        "",
        &[Code::NotFound],
        FailureMode::StepValidation,
        NotDone,
        "What the request names is not there, so there was nothing to act on. (Of a probe it proves nothing.)",
    ),
    row(
        "",
        &[Code::AlreadyExists],
        FailureMode::StepState,
        NotDone,
        "This call made nothing. (That an earlier one did may be the reason.)",
    ),
    row(
        "",
        &[Code::PermissionDenied, Code::Unauthenticated],
        FailureMode::PermissionDenied,
        NotDone,
        "Refused before anything was done, by the service or on the way to it.",
    ),
    row(
        "",
        &[Code::ResourceExhausted],
        FailureMode::RateLimited,
        InDoubt,
        "Most often too many calls; but also a disk that is full half-way, and libraries give it for an answer larger than they accept, with the effect behind it.",
    ),
    row(
        "",
        &[Code::FailedPrecondition],
        FailureMode::StepState,
        NotDone,
        "The state of the thing forbids it. No library gives it.",
    ),
    passing(
        "",
        &[Code::Aborted],
        FailureMode::StepState,
        NotDone,
        "The service rolled back because of another call at the same time. No library gives it.",
    ),
    row(
        "",
        &[Code::OutOfRange],
        FailureMode::StepValidation,
        InDoubt,
        "A value past the end; but tonic gives it for an answer larger than it accepts, with the effect behind it.",
    ),
    row(
        "",
        &[Code::Unimplemented],
        FailureMode::StepLogic,
        InDoubt,
        "Usually there is no such method; but libraries give it for an answer that they can't decompress, with the effect behind it.",
    ),
    row(
        "",
        &[Code::Internal],
        FailureMode::ApiUnavailable,
        InDoubt,
        "Something broke within the service or the protocol, before the effect or after it.",
    ),
    row(
        "",
        &[Code::Unavailable],
        FailureMode::ApiUnavailable,
        InDoubt,
        "A service that is overloaded refuses with it; but libraries give it for a connection lost under way too. A transport error inside tells the mode.",
    ),
    row(
        "",
        &[Code::DataLoss],
        FailureMode::SystemDisk,
        InDoubt,
        "Something is lost that can't be had back; what else was done nobody says.",
    ),
];

pub(super) static CONNECT: &[Row<()>] = &[row(
    "`ConnectError` inside",
    &[()],
    FailureMode::ApiUnavailable,
    NotDone,
    "No connection came about, so nothing was sent. The cause inside tells the mode.",
)];

/// The codes that tonic gives to errors of the transport, which then know better what happened.
const OF_THE_TRANSPORT: [Code; 3] = [Code::Unknown, Code::Internal, Code::Unavailable];

pub(super) fn classify(error: &(dyn Error + 'static)) -> Option<Known> {
    if error.is::<ConnectError>() {
        return Some(Known::Phase(CONNECT.first()?.classification()));
    }
    let status = error.downcast_ref::<Status>()?;
    let code = status.code();
    if OF_THE_TRANSPORT.contains(&code) {
        let row = if causes(error).any(<dyn Error>::is::<ConnectError>) {
            CONNECT.first()?.classification()
        } else {
            find(ROWS, |key| *key == code)?.classification()
        };
        return Some(Known::Phase(row));
    }
    Some(Known::Whole(
        find(ROWS, |key| *key == code)?.classification(),
    ))
}
