//! Errors of the isolation aids.
//!
//! The aids are pure: what they refuse, they refuse before the caller writes.

use std::error::Error;

use super::{Known, Row, find, passing, row};
use crate::failure::FailedEffect::NotDone;
use crate::failure::isolation::{Changed, LockError};
use crate::failure::{FailureMode, Stale};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Held,
    Stale,
    Lost,
    Changed,
}

pub(super) static ROWS: &[Row<Refusal>] = &[
    passing(
        "`LockError::Held`",
        &[Refusal::Held],
        FailureMode::StepState,
        NotDone,
        "Another run has the row, and lets go in the end. Where its time is up within a second, that is the wait.",
    ),
    row(
        "`failure::Stale`, `LockError::Stale`",
        &[Refusal::Stale],
        FailureMode::StepState,
        NotDone,
        "The coordinator has lost the run to another one, which goes on. A run never takes it for a failure: whoever drove it lets go (rule W4).",
    ),
    row(
        "`LockError::Lost`",
        &[Refusal::Lost],
        FailureMode::StepState,
        NotDone,
        "The lock ran out or was released under the run. What it read behind the lock can't be relied on, however often it asks.",
    ),
    row(
        "`Changed`",
        &[Refusal::Changed],
        FailureMode::StepState,
        NotDone,
        "What was read is out of date. Only reading again helps, and that is an earlier step's affair.",
    ),
];

pub(super) fn classify(error: &(dyn Error + 'static)) -> Option<Known> {
    let (refusal, wait) = match error.downcast_ref::<LockError>() {
        Some(held @ LockError::Held { .. }) => (Refusal::Held, held.retry_after()),
        Some(LockError::Stale { .. }) => (Refusal::Stale, None),
        Some(LockError::Lost { .. }) => (Refusal::Lost, None),
        None if error.is::<Stale>() => (Refusal::Stale, None),
        None => (error.is::<Changed>().then_some(Refusal::Changed)?, None),
    };
    let known = find(ROWS, |key| *key == refusal)?.classification();
    Some(Known::Whole(known.retry_after(wait)))
}
