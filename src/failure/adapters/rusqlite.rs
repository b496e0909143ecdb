//! Errors of rusqlite, by SQLite's result codes.
//!
//! SQLite rolls a failed statement back, and what a failed `COMMIT` was to commit is not committed; the
//! exceptions are in doubt here.

use std::error::Error;

use rusqlite::ErrorCode as Code;
use rusqlite::{Error as Failed, ffi};

use super::{Known, Row, find, row};
use crate::failure::FailedEffect::{InDoubt, NotDone};
use crate::failure::{Classification, FailureMode};

pub(super) static CODES: &[Row<Code>] = &[
    row(
        "`SQLITE_BUSY`, `SQLITE_LOCKED`, `SQLITE_PROTOCOL`",
        &[
            Code::DatabaseBusy,
            Code::DatabaseLocked,
            Code::FileLockingProtocolFailed,
        ],
        FailureMode::SystemTimeout,
        NotDone,
        "Another connection has the lock, for longer than the busy time-out. The statement changed nothing; a `COMMIT` has not committed.",
    ),
    row(
        "`SQLITE_CONSTRAINT` (unique, foreign key, check, …), `SQLITE_MISMATCH`, `SQLITE_TOOBIG`",
        &[Code::ConstraintViolation, Code::TypeMismatch, Code::TooBig],
        FailureMode::StepValidation,
        NotDone,
        "The statement is rolled back, unless it says `OR FAIL`: then rows before the one that failed stay, and it is not one effect.",
    ),
    row(
        "`SQLITE_INTERRUPT`",
        &[Code::OperationInterrupted],
        FailureMode::SystemTimeout,
        NotDone,
        "The application called it off, for time as a rule. The statement is rolled back, and its transaction too if it writes; a commit under way is not interrupted.",
    ),
    row(
        "`SQLITE_FULL`",
        &[Code::DiskFull],
        FailureMode::SystemDisk,
        NotDone,
        "Unlike a plain file, what was half written is not part of the database.",
    ),
    row(
        "`SQLITE_READONLY`",
        &[Code::ReadOnly],
        FailureMode::SystemDisk,
        NotDone,
        "Refused before the first write.",
    ),
    row(
        "`SQLITE_AUTH`, `SQLITE_PERM`",
        &[
            Code::AuthorizationForStatementDenied,
            Code::PermissionDenied,
        ],
        FailureMode::PermissionDenied,
        NotDone,
        "Refused before the statement runs.",
    ),
    row(
        "`SQLITE_SCHEMA`",
        &[Code::SchemaChanged],
        FailureMode::StepState,
        NotDone,
        "The schema changed again and again while the statement was prepared; it did not run.",
    ),
    row(
        "`SQLITE_RANGE`",
        &[Code::ParameterOutOfRange],
        FailureMode::StepLogic,
        NotDone,
        "A parameter that the statement does not have, found before it runs.",
    ),
    row(
        "`SQLITE_IOERR`, `SQLITE_CANTOPEN`",
        &[Code::SystemIoFailure, Code::CannotOpen],
        FailureMode::SystemDisk,
        InDoubt,
        "The disk failed. At a commit nobody knows what of it is on the disk; the next opening of the file decides.",
    ),
    row(
        "`SQLITE_CORRUPT`, `SQLITE_NOTADB`",
        &[Code::DatabaseCorrupt, Code::NotADatabase],
        FailureMode::SystemDisk,
        InDoubt,
        "The file is damaged, so what it says of the statement is worth nothing.",
    ),
    row(
        "`SQLITE_NOMEM`",
        &[Code::OutOfMemory],
        FailureMode::SystemOutOfMemory,
        InDoubt,
        "Memory can run out at any moment of a call.",
    ),
];

/// Whether an error is of a row.
pub(super) type Is = fn(&Failed) -> bool;

/// What rusqlite finds at fault itself.
pub(super) static OWN: &[Row<Is>] = &[
    row(
        "a fault at a place in the SQL (`SqlInputError`), wrong parameters, several statements where one is expected",
        &[is_before as Is],
        FailureMode::StepLogic,
        NotDone,
        "Found before the statement runs.",
    ),
    row(
        "a column that is not of the type asked for",
        &[is_conversion as Is],
        FailureMode::StepContract,
        InDoubt,
        "Found when a row is read: the statement ran.",
    ),
];

fn is_before(error: &Failed) -> bool {
    matches!(
        error,
        Failed::SqlInputError { .. }
            | Failed::InvalidParameterName(_)
            | Failed::InvalidParameterCount(..)
            | Failed::ToSqlConversionFailure(_)
            | Failed::NulError(_)
            | Failed::MultipleStatement
    )
}

fn is_conversion(error: &Failed) -> bool {
    matches!(
        error,
        Failed::FromSqlConversionFailure(..)
            | Failed::IntegralValueOutOfRange(..)
            | Failed::Utf8Error(..)
            | Failed::InvalidColumnType(..)
    )
}

/// `SQLITE_ERROR` (a missing table, but also a failing function half-way), `SQLITE_ABORT` and the like say too little, and what a missing or a superfluous row
/// means is for the step to say: these are unknown.
pub(super) fn classify(error: &(dyn Error + 'static)) -> Option<Known> {
    if let Some(error) = error.downcast_ref::<ffi::Error>() {
        return code(error.code).map(Known::Whole);
    }
    let error = error.downcast_ref::<Failed>()?;
    let known = match error.sqlite_error_code() {
        Some(of_sqlite) => code(of_sqlite),
        None => find(OWN, |is| is(error)).map(Row::classification),
    };
    known.map(Known::Whole)
}

fn code(code: Code) -> Option<Classification> {
    find(CODES, |key| *key == code).map(Row::classification)
}
