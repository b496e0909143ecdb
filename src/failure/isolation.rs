//! What an isolation aid refuses, as an error.
//!
//! The errors live in this room and not beside the aids, so that the classifier can know them without
//! knowing anything of steps.

use std::time::Duration;

use crate::ids::{RunId, Timestamp};

/// A semantic lock could not be taken, kept or released. The call that says so wrote nothing.
///
/// What each variant means to a run is told by the tables of [`failure`](crate::failure): all are
/// `agent_state` and not done, and only [`Held`](LockError::Held) is retryable. By `?` alone that *not done* counts for a
/// step that is [`.atomic()`](crate::StepSpec::atomic); any other step whose attempt has done nothing else
/// says so itself, by [`.not_done()?`](crate::ResultExt::not_done).
///
/// ```
/// use std::time::Duration;
/// use amends::failure::{Classifier, FailedEffect, FailureMode};
/// use amends::isolation::LockError;
/// use amends::{RunId, Timestamp};
///
/// let held = LockError::Held {
///     by: RunId::new("order-4711"),
///     until: Timestamp::from_micros(1_767_225_600_400_000),
///     left: Duration::from_millis(400),
/// };
/// assert_eq!(held.to_string(), "run `order-4711` holds the lock until 2026-01-01T00:00:00.400000Z");
///
/// let known = Classifier::new().classify(&held);
/// assert_eq!((known.mode, known.effect), (FailureMode::StepState, FailedEffect::NotDone));
/// assert_eq!((known.retryable, known.retry_after), (true, Some(Duration::from_millis(400))));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another run holds the lock. It is retryable: the holder lets go some day, and at `until` at the
    /// latest.
    #[error("run `{by}` holds the lock until {until}")]
    Held {
        /// The run that holds it.
        by: RunId,
        /// From when on it may be taken over.
        until: Timestamp,
        /// How long that was away when the lock was refused; never zero.
        left: Duration,
    },
    /// This call comes from a coordinator that has lost the run to another one without knowing it: the
    /// run holds the lock under a higher fence. Nothing that it does is journalled any more.
    #[error("fence {fence} of run `{run}` is stale: its lock was last held under fence {seen}")]
    Stale {
        /// The run, whose lock it is.
        run: RunId,
        /// The fence of this call.
        fence: u64,
        /// The fence that the lock has.
        seen: u64,
    },
    /// The run does not hold the lock any more: it was released, or its time ran out and another run
    /// took it over. What this run has read behind the lock may be out of date.
    #[error("run `{run}` does not hold the lock any more: {}", holder(by.as_ref()))]
    Lost {
        /// The run that should hold it.
        run: RunId,
        /// Who holds it now, if anyone does.
        by: Option<RunId>,
    },
}

fn holder(by: Option<&RunId>) -> String {
    by.map_or_else(
        || "nobody does".to_owned(),
        |run| format!("run `{run}` does"),
    )
}

impl LockError {
    /// The longest wait that a refused lock asks for: 1 s.
    pub const NEAR: Duration = Duration::from_secs(1);

    /// How long to wait before the next attempt: until the holder's time is up, where that is no
    /// farther than [`NEAR`](Self::NEAR).
    ///
    /// Nobody knows when a holder lets go, only when it must. Where that is far away, the step's own
    /// [`Retry`](crate::Retry) says how often to look; a wait to the deadline would oversleep every
    /// release before it.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            LockError::Held { left, .. } if *left <= Self::NEAR => Some(*left),
            _ => None,
        }
    }
}

/// What a run had read is not what is there now.
///
/// It is `agent_state`, not done and not retryable: the same attempt would meet the same change. Let the
/// run compensate, which the default policy does, or write a rule that goes back to before the read; see
/// [`isolation`](crate::isolation). As with [`LockError`], an attempt that has done nothing else says
/// [`.not_done()?`](crate::ResultExt::not_done).
///
/// ```
/// use amends::isolation::expect_unchanged;
///
/// let changed = expect_unchanged(&7, &8).unwrap_err();
/// assert_eq!(changed.to_string(), "version 7 was read, and now there is version 8");
/// let gone = expect_unchanged(&7, None).unwrap_err();
/// assert_eq!(gone.to_string(), "version 7 was read, and now there is nothing");
/// assert_eq!(gone.current, None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("version {read} was read, and now there is {}", now(current.as_ref()))]
#[non_exhaustive]
pub struct Changed {
    /// The version that was read.
    pub read: String,
    /// The version that is there now; `None` where the row is gone.
    pub current: Option<String>,
}

fn now(current: Option<&String>) -> String {
    current.map_or_else(
        || "nothing".to_owned(),
        |version| format!("version {version}"),
    )
}
