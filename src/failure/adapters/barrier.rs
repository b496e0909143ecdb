//! Errors of the participant's barrier.
//!
//! It refuses before the participant has done anything, in a transaction that is rolled back.

use std::error::Error;

use super::{Known, Row, find, row};
use crate::failure::FailedEffect::{InDoubt, NotDone};
use crate::failure::FailureMode;
use crate::failure::barrier::{BarrierError, CallError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Stale,
    Closed,
    OtherRequest,
    Unrecorded,
    Call,
    Result,
}

pub(super) static ROWS: &[Row<Refusal>] = &[
    row(
        "`BarrierError::Stale`",
        &[Refusal::Stale],
        FailureMode::StepState,
        NotDone,
        "The coordinator has lost the run to another one, which goes on. It is taken as that loss, and not as a failure of the step.",
    ),
    row(
        "`BarrierError::Closed`",
        &[Refusal::Closed],
        FailureMode::StepContract,
        NotDone,
        "An execute after its undo, which no run makes that knows its own journal. Someone has to look.",
    ),
    row(
        "`BarrierError::OtherRequest`",
        &[Refusal::OtherRequest],
        FailureMode::StepContract,
        NotDone,
        "One key stands for one request. Under this one another is known already, and trying again changes neither.",
    ),
    row(
        "`BarrierError::Unrecorded`",
        &[Refusal::Unrecorded],
        FailureMode::StepContract,
        InDoubt,
        "An earlier call may have done its work and has not recorded it. Only the service's own rows can say.",
    ),
    row(
        "`BarrierError::Call`, `CallError`",
        &[Refusal::Call],
        FailureMode::StepLogic,
        NotDone,
        "The call does not say what the barrier has to know; refused before the first statement.",
    ),
    row(
        "`BarrierError::Result`",
        &[Refusal::Result],
        FailureMode::StepContract,
        NotDone,
        "The result can't be stored, so the transaction that made it has to be rolled back.",
    ),
];

/// Of `BarrierError::Database` its cause decides.
pub(super) fn classify(error: &(dyn Error + 'static)) -> Option<Known> {
    let refusal = match error.downcast_ref::<BarrierError>() {
        Some(BarrierError::Stale { .. }) => Refusal::Stale,
        Some(BarrierError::Closed { .. }) => Refusal::Closed,
        Some(BarrierError::OtherRequest { .. }) => Refusal::OtherRequest,
        Some(BarrierError::Unrecorded { .. }) => Refusal::Unrecorded,
        Some(BarrierError::Call(_)) => Refusal::Call,
        Some(BarrierError::Result(_)) => Refusal::Result,
        Some(BarrierError::Database(_)) => return None,
        None => error.is::<CallError>().then_some(Refusal::Call)?,
    };
    let known = find(ROWS, |key| *key == refusal)?.classification();
    Some(Known::Whole(known))
}
