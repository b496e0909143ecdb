//! Wall time that follows tokio's virtual time.

use tokio::time::Instant;

use crate::Clock;
use crate::ids::Timestamp;

/// A wall clock that moves with tokio's own: paused, auto-advanced and advanced by hand with it.
///
/// A coordinator sleeps by tokio's clock and compares with the wall clock. In a paused runtime, with the
/// system's clock, it would wait for ever; with this one an hour of backoff passes in no time.
///
/// ```
/// use std::time::Duration;
/// use amends::Clock;
/// use amends::testkit::VirtualClock;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let clock = VirtualClock::new();
/// let before = clock.now();
/// tokio::time::sleep(Duration::from_secs(3_600)).await;
/// assert_eq!(clock.now().since(before), Duration::from_secs(3_600));
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct VirtualClock {
    start: Timestamp,
    made: Instant,
}

impl VirtualClock {
    /// Where virtual time begins unless somebody says otherwise: 2026-01-01T00:00:00Z.
    pub const START: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

    /// A clock that shows [`START`](Self::START) now.
    #[must_use]
    pub fn new() -> Self {
        VirtualClock::starting_at(VirtualClock::START)
    }

    /// A clock that shows this instant now. A second process, in a test, goes on where the first ended.
    #[must_use]
    pub fn starting_at(start: Timestamp) -> Self {
        VirtualClock {
            start,
            made: Instant::now(),
        }
    }
}

impl Default for VirtualClock {
    fn default() -> Self {
        VirtualClock::new()
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        self.start.after(self.made.elapsed())
    }
}
