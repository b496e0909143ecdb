//! The word that a coordinator has lost its run.

use std::error::Error;

use super::barrier::BarrierError;
use super::classify::chain;
use super::isolation::LockError;

/// A participant refused a call because it has seen the run under a higher fence (rule W4).
///
/// It is no failure of the step: another coordinator has the run. Whoever drove it looks at the journal, and
/// lets go. What came of the call is not journalled, nothing more is called, and the run goes on with its
/// new owner. Where the journal says that the run has not changed hands, the fence is raised and the
/// call made again, twice at most; then the run is parked as
/// [`StaleFence`](crate::journal::ParkReason::StaleFence).
///
/// It counts wherever it stands in the chain of causes of what an `execute`, a `compensate` or a probe
/// returns, and whatever is said about it by
/// [`not_done`](crate::StepError::not_done) and the like. The crate's own aids say it; a client of your own service says it so:
///
/// ```
/// use amends::failure::Stale;
/// use amends::{StepContext, StepError};
///
/// fn answer(cx: &StepContext, highest: u64) -> Result<(), StepError> {
///     if highest > cx.fence() {
///         return Err(Stale::new(cx.fence()).seen(highest).into());
///     }
///     Ok(())
/// }
/// assert_eq!(Stale::new(3).seen(4).to_string(), "fence 3 is stale: the participant has seen fence 4");
/// assert_eq!(Stale::new(3).to_string(), "fence 3 is stale: the participant has seen a higher one");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fence {fence} is stale: the participant has seen {}", higher(*seen))]
#[non_exhaustive]
pub struct Stale {
    /// The fence of the call.
    pub fence: u64,
    /// The highest fence that the participant has seen, where it told.
    pub seen: Option<u64>,
}

fn higher(seen: Option<u64>) -> String {
    seen.map_or_else(|| "a higher one".to_owned(), |seen| format!("fence {seen}"))
}

impl Stale {
    /// A call under this fence was refused.
    #[must_use]
    pub fn new(fence: u64) -> Self {
        Stale { fence, seen: None }
    }

    /// The highest fence that the participant has seen.
    #[must_use]
    pub fn seen(mut self, fence: u64) -> Self {
        self.seen = Some(fence);
        self
    }

    /// The refusal in this error or among its causes, from whichever aid it comes.
    #[must_use]
    pub fn find(error: &(dyn Error + 'static)) -> Option<Self> {
        chain(error).find_map(|error| {
            if let Some(stale) = error.downcast_ref::<Stale>() {
                return Some(*stale);
            }
            if let Some(BarrierError::Stale { fence, seen, .. }) = error.downcast_ref() {
                return Some(Stale::new(*fence).seen(*seen));
            }
            match error.downcast_ref::<LockError>()? {
                LockError::Stale { fence, seen, .. } => Some(Stale::new(*fence).seen(*seen)),
                LockError::Held { .. } | LockError::Lost { .. } => None,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::ids::RunId;

    #[test]
    fn it_is_found_wherever_it_stands_in_the_chain() {
        let stale = Stale::new(2).seen(5);
        assert_eq!(Stale::find(&stale), Some(stale));
        let wrapped = io::Error::other(io::Error::other(stale));
        assert_eq!(Stale::find(&wrapped), Some(stale));
        assert_eq!(Stale::find(&io::Error::other("fence 2 is stale")), None);
    }

    #[test]
    fn a_lock_under_a_higher_fence_says_it_too_and_a_lock_that_is_held_does_not() {
        let run = RunId::new("r");
        let lock = LockError::Stale {
            run: run.clone(),
            fence: 1,
            seen: 2,
        };
        assert_eq!(Stale::find(&lock), Some(Stale::new(1).seen(2)));
        assert_eq!(Stale::find(&LockError::Lost { run, by: None }), None);
    }
    #[test]
    fn a_barrier_says_it_too_and_its_other_refusals_do_not() {
        let refused = BarrierError::Stale {
            run: "5f0a".to_owned(),
            fence: 1,
            seen: 2,
        };
        assert_eq!(Stale::find(&refused), Some(Stale::new(1).seen(2)));
        let wrapped = io::Error::other(refused);
        assert_eq!(Stale::find(&wrapped), Some(Stale::new(1).seen(2)));
        let closed = BarrierError::Closed {
            key: "5f0a/a/1".to_owned(),
        };
        assert_eq!(Stale::find(&closed), None);
    }
}
