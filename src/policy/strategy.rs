//! The five answers to a failure.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is done about the failures of a run.
///
/// The order is strictness: of several answers to several failures the greatest wins (rule D1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecoveryStrategy {
    /// Keeps every completed output; runs again only what failed, was in doubt, or never started.
    RetryFailed,
    /// Keeps each completed checkpoint and its ancestors, undoes the rest in reverse, goes on from there.
    RetryFromCheckpoint,
    /// Undoes all in reverse, then begins again in new rounds.
    RetryAll,
    /// Undoes all in reverse; the run ends `Compensated`.
    Compensate,
    /// Parks the run for an operator.
    Manual,
}

impl RecoveryStrategy {
    /// All of them, from the mildest to the strictest.
    pub const ALL: [RecoveryStrategy; 5] = [
        RecoveryStrategy::RetryFailed,
        RecoveryStrategy::RetryFromCheckpoint,
        RecoveryStrategy::RetryAll,
        RecoveryStrategy::Compensate,
        RecoveryStrategy::Manual,
    ];

    /// The word for it in journals and policies.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            RecoveryStrategy::RetryFailed => "retry_failed",
            RecoveryStrategy::RetryFromCheckpoint => "retry_from_checkpoint",
            RecoveryStrategy::RetryAll => "retry_all",
            RecoveryStrategy::Compensate => "compensate",
            RecoveryStrategy::Manual => "manual",
        }
    }

    /// Whether the run goes forward with it, at once or after undoing.
    #[must_use]
    pub fn retries(self) -> bool {
        match self {
            RecoveryStrategy::RetryFailed
            | RecoveryStrategy::RetryFromCheckpoint
            | RecoveryStrategy::RetryAll => true,
            RecoveryStrategy::Compensate | RecoveryStrategy::Manual => false,
        }
    }

    /// Whether it may undo what is done.
    #[must_use]
    pub fn goes_back(self) -> bool {
        match self {
            RecoveryStrategy::RetryFromCheckpoint
            | RecoveryStrategy::RetryAll
            | RecoveryStrategy::Compensate => true,
            RecoveryStrategy::RetryFailed | RecoveryStrategy::Manual => false,
        }
    }
}

impl fmt::Display for RecoveryStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
