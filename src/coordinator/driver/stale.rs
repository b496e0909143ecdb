//! A participant refused the run's fence (rule W4).
//!
//! It is the participant's word that another coordinator has the run, and the journal is the truth about
//! that. In neither case is anything journalled of the call: who has lost a run writes nothing, and whoever
//! still has it meets a participant that errs, or one that remembers more than the journal does, as after a
//! restore from a backup. For the latter a higher fence makes the call good.

use std::sync::Arc;
use std::time::Duration;

use super::{Driver, Gone, InFlight};
use crate::coordinator::Shared;
use crate::coordinator::attempt::Came;
use crate::coordinator::error::GetError;
use crate::coordinator::resume::{Found, Loaded};
use crate::failure::Stale;
use crate::ids::RunId;
use crate::journal::{AppendId, Event, ParkReason, Parking};
use crate::store::LoadError;

/// So often a run that is still ours is claimed anew before it is parked.
const CLAIMS: u32 = 2;

/// How far a claim raises the fence at most. A participant that tells of a fence out of all reason must not
/// be able to use the numbers up.
const REASONABLE: u64 = 10_000;

/// How long the first look at a journal that can't be read is away from the next one, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

impl Driver {
    /// The first refusal among the calls that are over. Nothing else of them is taken in then: the results
    /// of a run that is lost are dropped (rule W3).
    pub(super) fn refused_as_stale(&self) -> Option<Stale> {
        self.over.iter().find_map(|end| match end.came {
            Came::Stale(stale) => Some(stale),
            Came::Execute(_) | Came::Undo(_) | Came::Probe(..) => None,
        })
    }

    /// Lets go of the run if the journal says that it is somebody else's. If it is ours, gives the driver
    /// that goes on with it.
    pub(super) async fn look_whose(mut self: Box<Self>, stale: Stale) -> Option<Box<Driver>> {
        tracing::warn!(run = %self.slot.run, fence = stale.fence, seen = stale.seen, "a participant says that the run is somebody else's: its journal is looked at");
        // What is in flight ends here: whoever has the run makes the call again.
        self.over.clear();
        self.calls = InFlight::default();
        let loaded = match read_again(Arc::clone(&self.shared), self.slot.run.clone()).await {
            None => {
                self.leave(&Gone::Closed);
                return None;
            }
            // A worker whose lease is over claims nothing, even where nobody else has done so yet.
            Some(Ok(Some(loaded))) if self.is_ours(&loaded) && !self.member.is_over() => loaded,
            Some(Ok(_)) => {
                self.leave(&Gone::Lost);
                return None;
            }
            Some(Err(_)) => {
                self.give_back();
                return None;
            }
        };
        let Found::Here(registered) = loaded.found else {
            self.give_back();
            return None;
        };
        let (read, seq) = (loaded.state, loaded.seq);
        self.spans.leaves();
        let claims = self.claims + 1;
        let next = read.fence() + 1;
        let fence = match stale.seen {
            Some(seen) if seen >= next && seen - next < REASONABLE => seen + 1,
            _ => next,
        };
        let Driver {
            shared,
            slot,
            member,
            _permit: permit,
            _guard: guard,
            ..
        } = *self;
        let worker = member.worker.to_string();
        let now = shared.clock.now();
        let (read, last) = (Box::new(read), (seq, AppendId::random()));
        let mut driver = Driver::new(&shared, slot, registered, read, last, (member, permit));
        // Only now, so that a shutdown never takes the run for one that nobody drives.
        drop(guard);
        driver.claims = claims;
        driver.first(Event::Claimed { fence, worker }, now);
        // A claim interrupts what was in flight, and too many interruptions park a run (rule F3): that
        // would not tell why.
        if claims > CLAIMS || driver.state.is_to_be_parked() {
            let message = format!(
                "a participant refuses fence {} of the run as stale ({stale}), and no other coordinator has the run. \
                 Either it remembers what the journal does not, as after a restore from a backup, or it errs. \
                 The fence is {fence} now: a retry calls it under that one",
                stale.fence
            );
            let parking = Parking::new(ParkReason::StaleFence, message);
            driver.first(Event::Parked(Box::new(parking)), now);
        }
        Some(driver)
    }

    /// Whether nobody has claimed the run since this driver got it.
    fn is_ours(&self, loaded: &Loaded) -> bool {
        let now = &loaded.state;
        *now.worker == *self.member.worker && now.fence() == self.state.fence() && !now.is_ended()
    }

    /// Has the run taken up like any other that is found in the store: it can't be driven as it is, and that
    /// is told there.
    fn give_back(self) {
        self.spans.leaves();
        let Driver {
            shared,
            slot,
            _permit: permit,
            _guard: guard,
            ..
        } = self;
        drop((permit, guard));
        Shared::begin_driving(&Arc::clone(&shared), slot);
    }
}

/// The run as its journal says it is now. Nothing where this coordinator is closing: the run stays as it
/// is, and the next start takes it up.
async fn read_again(shared: Arc<Shared>, run: RunId) -> Option<Result<Option<Loaded>, GetError>> {
    let mut wait = FIRST_WAIT;
    while !shared.is_closing() {
        match shared.load_state(&run).await {
            Err(GetError::Store(error) | GetError::Load(LoadError::Store(error))) => {
                tracing::warn!(%run, %error, "the journal can't be read: trying again in {wait:?}");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
            loaded => return Some(loaded),
        }
    }
    None
}
