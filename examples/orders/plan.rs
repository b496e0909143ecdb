//! When the parent strikes: drawn from the seed, and tied to the progress of the orders rather than
//! to the clock, so that a slow machine gets the same day as a fast one.

use std::collections::VecDeque;
use std::time::Duration;

use fastrand::Rng;

use crate::service::Kind;

/// The blows that are still to come, each with the number of ended orders at which it falls.
pub(crate) struct Plan {
    kills: VecDeque<usize>,
    outages: VecDeque<(usize, Outage)>,
    rng: Rng,
}

/// Longer than a step waits for an answer.
const REST: Duration = Duration::from_millis(600);

/// How far the day has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Orders that have ended.
    pub(crate) ended: usize,
    /// Whether these are all.
    pub(crate) all_ended: bool,
    /// How long the coordinator has been ready, if it is.
    pub(crate) lives: Option<Duration>,
}

/// A service that is down for a while.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outage {
    pub(crate) kind: Kind,
    pub(crate) lasts: Duration,
}

impl Plan {
    /// Spreads `kills` over the day, and takes each service down once.
    pub(crate) fn new(orders: usize, kills: usize, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x6b69_6c6c);
        let kills = (0..kills)
            .map(|index| (orders * index + rng.usize(0..=orders)) / (kills + 1))
            .collect();
        Self {
            kills,
            outages: outages(orders, &mut rng),
            rng,
        }
    }

    /// How long to wait before the next SIGKILL, if one is due at this progress.
    ///
    /// The moment is left to chance; it may be in the middle of a recovery. But every other time the
    /// coordinator gets the time to finish what it was interrupted in: a step that is interrupted three
    /// times in a row looks as if it brings the process down, and its run would be parked for that.
    pub(crate) fn kill_due(&mut self, progress: Progress) -> Option<Duration> {
        let at = *self.kills.front()?;
        if progress.all_ended {
            // It has nothing left to do but read its journal, and is quick.
            return Some(Duration::from_millis(self.rng.u64(1..10)));
        }
        if at > progress.ended {
            return None;
        }
        let chance = Duration::from_millis(self.rng.u64(1..120));
        if self.kills.len().is_multiple_of(2) {
            return Some(chance);
        }
        let rest = REST.saturating_sub(progress.lives?);
        Some(rest.max(chance))
    }

    /// Crosses a SIGKILL off the list.
    pub(crate) fn killed(&mut self) {
        self.kills.pop_front();
    }

    /// Whether the coordinator has to be killed again.
    pub(crate) fn has_kills(&self) -> bool {
        !self.kills.is_empty()
    }

    /// The next outage, if one is due at this progress.
    pub(crate) fn outage_due(&mut self, ended: usize) -> Option<Outage> {
        let (at, _) = *self.outages.front()?;
        if at > ended {
            return None;
        }
        self.outages.pop_front().map(|(_, outage)| outage)
    }
}

/// Takes each service down once in the course of the day.
pub(crate) fn outages(orders: usize, rng: &mut Rng) -> VecDeque<(usize, Outage)> {
    let mut kinds = [Kind::Stock, Kind::Payments, Kind::Parcels];
    rng.shuffle(&mut kinds);
    (kinds.into_iter().enumerate())
        .map(|(index, kind)| {
            let lasts = Duration::from_millis(rng.u64(300..1_000));
            let at = (orders * index + rng.usize(0..=orders)) / kinds.len();
            (at, Outage { kind, lasts })
        })
        .collect()
}
