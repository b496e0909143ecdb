//! Where wall time comes from.

use std::fmt;

use crate::ids::Timestamp;

/// The wall clock that journals, deadlines and timers go by.
///
/// Timers sleep by tokio's clock and compare with this one, so the two have to run at the same rate; the
/// test kit has one that follows tokio's virtual time.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// What time it is.
    fn now(&self) -> Timestamp;
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
