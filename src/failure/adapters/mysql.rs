//! Errors of `mysql_async`, by the numbers of MySQL and MariaDB.
//!
//! A server that reports an error has rolled the statement back where its tables are of a transactional
//! engine, as InnoDB's are. In doubt is what ends the session instead, since that may come between a commit
//! and the word of it.

use std::error::Error;

use mysql_async::{DriverError, Error as Failed, ServerError};

use super::{Known, Row, find, passing, row};
use crate::failure::FailedEffect::{InDoubt, NotDone};
use crate::failure::FailureMode;

/// By the server's number.
pub(super) static CODES: &[Row<u16>] = &[
    row(
        "a constraint or a value is violated",
        &[
            1022, 1048, 1062, 1169, 1216, 1217, 1264, 1292, 1364, 1366, 1406, 1451, 1452, 1644,
            1690, 3819, 4025,
        ],
        FailureMode::StepValidation,
        NotDone,
        "The statement is rolled back.",
    ),
    passing(
        "a deadlock; a row that another transaction has changed",
        &[1213, 1020],
        FailureMode::StepState,
        NotDone,
        "The whole transaction is rolled back because of another one at the same time; the next attempt may well succeed.",
    ),
    row(
        "a lock is waited for too long; a statement is interrupted or takes too long",
        &[1205, 1317, 1969, 3024],
        FailureMode::SystemTimeout,
        NotDone,
        "The statement is rolled back; what the transaction did before it goes with the transaction.",
    ),
    row(
        "too many connections, or too many of this user",
        &[1040, 1203, 1226],
        FailureMode::ApiUnavailable,
        NotDone,
        "Refused at the connect, before the first statement.",
    ),
    row(
        "the server or the transaction only reads",
        &[1290, 1792, 1836],
        FailureMode::ApiUnavailable,
        NotDone,
        "As a rule a replica that the client was led to while servers changed places.",
    ),
    row(
        "the server shuts down, or ends the session",
        &[1053, 1152, 1184, 1927, 3169],
        FailureMode::ApiUnavailable,
        InDoubt,
        "It may come between a commit and the word of it.",
    ),
    row(
        "wrong user or password; no permission",
        &[1044, 1045, 1142, 1143, 1227, 1370, 1698],
        FailureMode::PermissionDenied,
        NotDone,
        "Refused at the connect, or before the statement runs.",
    ),
    row(
        "there is no such database",
        &[1049],
        FailureMode::ServiceMissing,
        NotDone,
        "Refused at the connect.",
    ),
    row(
        "wrong SQL: syntax, unknown names",
        &[1054, 1064, 1136, 1146, 1149, 1305],
        FailureMode::StepLogic,
        NotDone,
        "Refused before it runs.",
    ),
    row(
        "the table or the disk is full",
        &[1021, 1114],
        FailureMode::SystemDisk,
        NotDone,
        "The statement is rolled back.",
    ),
];

/// What is no answer of the server.
pub(super) static CLOSED: &[Row<()>] = &[row(
    "the connection is closed",
    &[()],
    FailureMode::SystemNetwork,
    InDoubt,
    "Also where it is lost at a commit whose word is on its way: the commit may have happened.",
)];

/// An error that carries an I/O error is unknown here, so that its cause decides; so are those of the client's own
/// about columns and parameters.
pub(super) fn classify(error: &(dyn Error + 'static)) -> Option<Known> {
    let known = if let Some(error) = error.downcast_ref::<ServerError>() {
        find(CODES, |code| *code == error.code)?.classification()
    } else if is_closed(error) {
        CLOSED.first()?.classification()
    } else {
        return None;
    };
    Some(Known::Whole(known))
}

fn is_closed(error: &(dyn Error + 'static)) -> bool {
    let driver = match error.downcast_ref::<Failed>() {
        Some(Failed::Driver(driver)) => Some(driver),
        Some(_) => None,
        None => error.downcast_ref::<DriverError>(),
    };
    matches!(driver, Some(DriverError::ConnectionClosed))
}
