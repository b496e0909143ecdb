//! What an error of the server says about what was written, and how far it reaches (rule W2).
//!
//! An append is refused as *not written* only where the server itself says so, in an error after which it goes
//! on: severity `ERROR`. Then the transaction was rolled back. Whatever ends the connection says nothing, because a
//! commit may have been written before and the word of it lost; so says nothing what takes too long.

use std::time::Duration;

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, Severity, SqlState};

/// How far an error reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Harm {
    /// Nothing was written because others were in the way: it is tried again at once.
    Again,
    /// Some append of the batch may be to blame: nothing was written, and halves are tried.
    Append,
    /// No append is to blame, and none would fare better alone; nothing was written.
    Batch,
    /// Nobody knows what was written.
    Unknown,
}

pub(super) fn of(error: &Error) -> Harm {
    error.as_db_error().map_or(Harm::Unknown, of_answer)
}

fn of_answer(error: &DbError) -> Harm {
    // A server before 9.6, which says its severity only in its own language, would be unknown, and is not served.
    match error.parsed_severity() {
        Some(Severity::Error) => of_state(error.code()),
        _ => Harm::Unknown,
    }
}

/// What an error of severity `ERROR` means.
fn of_state(state: &SqlState) -> Harm {
    match state.code() {
        // "Statement completion unknown" and "transaction resolution unknown": poolers and proxies say so.
        "40003" | "08007" => Harm::Unknown,
        // Serialisation, deadlock, and a lock that was not to be had.
        "40001" | "40P01" | "55P03" => Harm::Again,
        // Cancelled before it was committed, by a person or a time-out of the server.
        "57014" => Harm::Batch,
        code => match code.get(..2) {
            // No connection, features that are not there, a transaction that can't write, no such statement, no
            // right, no table, and a server without room or memory, or in the hands of its operator.
            Some("08" | "25" | "26" | "28" | "3D" | "3F" | "42" | "53" | "57" | "58") => {
                Harm::Batch
            }
            // A value that can't be stored, a text that is too long for an index, a limit: whatever it is, a half
            // without it can be written.
            _ => Harm::Append,
        },
    }
}

/// How often something is tried again that got in the way of others, and after which pauses.
#[derive(Debug, Default)]
pub(super) struct Tries(u32);

impl Tries {
    const MOST: u32 = 10;

    /// The next pause: it grows to half a second, with jitter. Nothing where it was tried often enough.
    pub(super) fn next(&mut self) -> Option<Duration> {
        if self.0 >= Self::MOST {
            return None;
        }
        let most = (2_u64 << self.0).min(500);
        self.0 += 1;
        Some(Duration::from_micros(
            1_000 * most / 2 + fastrand::u64(0..=1_000 * most / 2),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(code: &str) -> Harm {
        of_state(&SqlState::from_code(code))
    }

    #[test]
    fn w2_what_the_server_rolled_back_is_definite() {
        assert_eq!(state("40001"), Harm::Again);
        assert_eq!(state("40P01"), Harm::Again);
        assert_eq!(state("55P03"), Harm::Again);
        assert_eq!(state("22021"), Harm::Append);
        assert_eq!(state("54000"), Harm::Append);
        assert_eq!(state("XX000"), Harm::Append);
        assert_eq!(state("53100"), Harm::Batch);
        assert_eq!(state("42501"), Harm::Batch);
        assert_eq!(state("57014"), Harm::Batch);
    }

    #[test]
    fn w2_what_nobody_knows_is_unknown() {
        assert_eq!(state("40003"), Harm::Unknown);
        assert_eq!(state("08007"), Harm::Unknown);
    }

    #[test]
    fn it_is_not_tried_for_ever() {
        let mut tries = Tries::default();
        let pauses: Vec<Duration> = std::iter::from_fn(|| tries.next()).collect();
        assert_eq!(pauses.len(), 10);
        assert!(
            pauses
                .iter()
                .all(|pause| *pause <= Duration::from_millis(500))
        );
    }
}
