//! Errors of tokio-postgres, by SQLSTATE.
//!
//! A server that reports an error has rolled the statement back, and with it the transaction; also where
//! the statement is `COMMIT`. In doubt is what ends the session instead, since that may come between a
//! commit and the word of it.

use std::error::Error;

use tokio_postgres::error::{DbError, Severity};
use tokio_postgres::types::WasNull;

use super::{Known, Row, find, passing, row};
use crate::failure::FailedEffect::{InDoubt, NotDone};
use crate::failure::FailureMode;

/// By the first characters of the SQLSTATE; a longer key stands before the shorter ones that it begins
/// with.
pub(super) static STATES: &[Row<&str>] = &[
    row(
        "a value or a constraint is violated, a limit exceeded, or a function raised it",
        &["22", "23", "44", "54", "P0"],
        FailureMode::StepValidation,
        NotDone,
        "Rolled back; a deferred constraint refuses its commit.",
    ),
    row(
        "statement completion unknown",
        &["40003"],
        FailureMode::SystemNetwork,
        InDoubt,
        "It says so itself.",
    ),
    passing(
        "serialization failure, deadlock, other rollbacks",
        &["40"],
        FailureMode::StepState,
        NotDone,
        "Rolled back because of another transaction at the same time; the next attempt may well succeed.",
    ),
    row(
        "cancelled, by `statement_timeout` too; `lock_timeout`; idle in a transaction for too long",
        &["57014", "55P03", "25P03"],
        FailureMode::SystemTimeout,
        NotDone,
        "Rolled back. A commit under way is not cancelled.",
    ),
    row(
        "`transaction_timeout`",
        &["25P04"],
        FailureMode::SystemTimeout,
        InDoubt,
        "It ends the session, which may come between a commit and the word of it.",
    ),
    row(
        "the server starts up or shuts down and takes no connections, or has too many",
        &["57P03", "53300"],
        FailureMode::ApiUnavailable,
        NotDone,
        "Refused at the connect, before the first statement.",
    ),
    row(
        "the session is ended: an administrator, a shutdown, a crash of another session",
        &["57P"],
        FailureMode::ApiUnavailable,
        InDoubt,
        "It may come between a commit and the word of it.",
    ),
    row(
        "the connection is rejected",
        &["08001", "08004"],
        FailureMode::ApiUnavailable,
        NotDone,
        "Refused at the connect, before the first statement.",
    ),
    row(
        "any other error of the connection",
        &["08"],
        FailureMode::SystemNetwork,
        InDoubt,
        "The statement may have arrived, and only its answer be lost.",
    ),
    row(
        "the server's disk is full",
        &["53100"],
        FailureMode::SystemDisk,
        NotDone,
        "Rolled back.",
    ),
    row(
        "a configured limit is reached",
        &["53400"],
        FailureMode::QuotaExceeded,
        NotDone,
        "Rolled back.",
    ),
    row(
        "the server's memory or other resources are short",
        &["53"],
        FailureMode::ApiUnavailable,
        NotDone,
        "Rolled back. It is the server's memory and not the process's own, and passes.",
    ),
    row(
        "wrong role or password; no permission",
        &["28", "42501"],
        FailureMode::PermissionDenied,
        NotDone,
        "Refused at the connect, or rolled back.",
    ),
    row(
        "there is no such database",
        &["3D"],
        FailureMode::ServiceMissing,
        NotDone,
        "Refused at the connect.",
    ),
    row(
        "the server or the transaction only reads",
        &["25006"],
        FailureMode::ApiUnavailable,
        NotDone,
        "As a rule a standby that the client was led to while servers changed places.",
    ),
    row(
        "the state of the transaction or of the object forbids it",
        &["25", "55"],
        FailureMode::StepState,
        NotDone,
        "Rolled back. In a transaction that has failed already, nothing runs but its rollback.",
    ),
    row(
        "wrong SQL: syntax, unknown names, features, prepared statements",
        &["42", "0A", "26", "3F"],
        FailureMode::StepLogic,
        NotDone,
        "Refused before it runs, or rolled back.",
    ),
    row(
        "an error of the system below; damaged data",
        &["58", "XX001", "XX002"],
        FailureMode::SystemDisk,
        InDoubt,
        "What a server says of its work is worth little when its disk fails.",
    ),
];

/// What is no answer of the server.
pub(super) static CLOSED: &[Row<()>] = &[row(
    "connection closed",
    &[()],
    FailureMode::SystemNetwork,
    InDoubt,
    "Also where it is lost at a commit whose word is on its way: the commit may have happened.",
)];

pub(super) static NULL: &[Row<()>] = &[row(
    "a column is null where that is not expected",
    &[()],
    FailureMode::StepContract,
    InDoubt,
    "Found when a row is read: the statement ran.",
)];

/// An error that carries an I/O error is unknown here, so that its cause decides; so is one of the
/// client's own about columns, parameters and rows, some of which come after the statement ran.
pub(super) fn classify(error: &(dyn Error + 'static)) -> Option<Known> {
    let known = if let Some(error) = error.downcast_ref::<DbError>() {
        let mut known =
            find(STATES, |start| error.code().code().starts_with(start))?.classification();
        // A server that panics while it writes a commit reports the cause, not the commit's fate.
        if error.parsed_severity() == Some(Severity::Panic) {
            known.effect = InDoubt;
        }
        known
    } else if error.is::<WasNull>() {
        NULL.first()?.classification()
    } else if error.downcast_ref::<tokio_postgres::Error>()?.is_closed() {
        CLOSED.first()?.classification()
    } else {
        return None;
    };
    Some(Known::Whole(known))
}
