//! A worker's lease, as the worker itself sees it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::ids::random_u128;

/// One membership of a fleet, or the sole ownership of a store: what drivers ask before they act.
///
/// It ends for good. A worker that joins again is another member with another id, so that all that the old one
/// drove is claimed anew, by whomever.
pub(crate) struct Member {
    /// What journals call it.
    pub(crate) worker: Arc<str>,
    lease: Option<Lease>,
}

/// The part of a lease during which the worker may act, by its own clock.
struct Lease {
    base: Instant,
    /// In microseconds since `base`.
    until: AtomicU64,
    over: AtomicBool,
}

impl Member {
    /// Who has its store for itself.
    pub(crate) fn sole(name: &str) -> Self {
        Member {
            worker: id_for(name),
            lease: None,
        }
    }

    /// A worker of a fleet that may act until this instant, unless it is extended.
    pub(crate) fn leased(worker: Arc<str>, until: Instant) -> Self {
        let base = Instant::now();
        Member {
            worker,
            lease: Some(Lease {
                base,
                until: AtomicU64::new(micros(until.saturating_duration_since(base))),
                over: AtomicBool::new(false),
            }),
        }
    }

    /// Whether it may not act any more. It looks at the clock, so that a process that was frozen knows
    /// before it does anything else.
    pub(crate) fn is_over(&self) -> bool {
        let Some(lease) = &self.lease else {
            return false;
        };
        if lease.over.load(Ordering::Acquire) {
            return true;
        }
        let over = micros(lease.base.elapsed()) >= lease.until.load(Ordering::Acquire);
        if over {
            // A renewal that is on its way must not revive it: somebody has acted upon its end.
            lease.over.store(true, Ordering::Release);
        }
        over
    }

    /// Lets it act until this instant. Says no where it is over.
    pub(crate) fn extend(&self, until: Instant) -> bool {
        if self.is_over() {
            return false;
        }
        if let Some(lease) = &self.lease {
            let until = micros(until.saturating_duration_since(lease.base));
            lease.until.fetch_max(until, Ordering::AcqRel);
        }
        !self.is_over()
    }

    pub(crate) fn end(&self) {
        if let Some(lease) = &self.lease {
            lease.over.store(true, Ordering::Release);
        }
    }

    /// For how long it may act still.
    pub(crate) fn left(&self) -> Duration {
        let Some(lease) = &self.lease else {
            return Duration::MAX;
        };
        let until = Duration::from_micros(lease.until.load(Ordering::Acquire));
        until.saturating_sub(lease.base.elapsed())
    }
}

/// Two members never have one id: who claims a run must be told from who had it.
pub(super) fn id_for(name: &str) -> Arc<str> {
    format!("{name}-{:012x}", random_u128() & 0xffff_ffff_ffff).into()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("worker", &self.worker)
            .field("over", &self.is_over())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_member_is_over_at_its_instant_and_for_ever() {
        let start = Instant::now();
        let member = Member::leased("w".into(), start + Duration::from_secs(10));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(member.extend(start + Duration::from_secs(20)));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(!member.is_over());
        assert_eq!(member.left(), Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(member.is_over());
        assert!(!member.extend(start + Duration::from_secs(40)));
        assert!(member.is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_the_store_alone_is_never_over() {
        let member = Member::sole("w");
        member.end();
        tokio::time::advance(Duration::from_secs(1_000_000)).await;
        assert!(!member.is_over());
        assert!(member.worker.starts_with("w-"));
    }
}
