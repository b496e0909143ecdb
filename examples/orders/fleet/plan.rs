//! When the fleet is struck, and how: drawn from the seed, and tied to the progress of the orders.
//!
//! The blows come in phases, each of a few at once. A phase begins with orders of its own, and is struck when
//! a few of them have ended, in the middle of the others. Then there is time to take up what was interrupted.

use std::collections::VecDeque;

use fastrand::Rng;

use crate::Day;
use crate::plan::{Outage, outages};
use crate::postgres::Stop;
use crate::proxy::Trick;

/// Something bad, to one worker or to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// SIGKILL to a worker.
    Kill,
    /// SIGSTOP to a worker until its lease has run out and others have its runs; then SIGCONT.
    Freeze,
    /// The connection of a worker is cut in the middle of its next commit.
    Cut(Trick),
    /// A restart of PostgreSQL.
    Restart(Stop),
}

/// The blows that are still to come.
pub(crate) struct Plan {
    phases: VecDeque<Vec<Blow>>,
    outages: VecDeque<(usize, Outage)>,
    orders: usize,
    /// How many phases there are, and how many have begun.
    all: usize,
    begun: usize,
    /// At how many ended orders the phase that has begun is struck, until it is.
    strikes_at: Option<usize>,
    pub(crate) rng: Rng,
}

impl Plan {
    /// `kills` times SIGKILL, and what goes with them: a freeze for every four, a restart for every ten, a cut
    /// commit for every two.
    pub(crate) fn new(orders: usize, day: &Day) -> Self {
        let mut rng = Rng::with_seed(day.seed ^ 0x666c_6565);
        let mut phases = phases(day, &mut rng);
        rng.shuffle(&mut phases);
        let all = phases.len();
        Self {
            phases: phases.into(),
            outages: outages(orders, &mut rng),
            orders,
            all,
            begun: 0,
            strikes_at: None,
            rng,
        }
    }

    /// The blows that fall at this progress, if their time has come. Where the last phase is over, the next
    /// one begins.
    pub(crate) fn due(&mut self, ended: usize) -> Option<Vec<Blow>> {
        if self.is_over() {
            return None;
        }
        let Some(strikes_at) = self.strikes_at else {
            let before = self.released();
            self.begun += 1;
            let few = (self.released() - before) / 3;
            self.strikes_at = Some((ended + self.rng.usize(0..=few)).min(self.orders));
            return None;
        };
        if ended < strikes_at {
            return None;
        }
        self.strikes_at = None;
        self.phases.pop_front()
    }

    /// Whether what was under way at the last strike may be struck once more, by the next one.
    pub(crate) fn has_struck_once(&self) -> bool {
        (self.all - self.phases.len()) % 2 == 1
    }

    /// The next outage of a service, if one is due at this progress.
    pub(crate) fn outage_due(&mut self, ended: usize) -> Option<Outage> {
        let (at, _) = *self.outages.front()?;
        if at > ended {
            return None;
        }
        self.outages.pop_front().map(|(_, outage)| outage)
    }

    /// How many orders may have been started by now.
    pub(crate) fn released(&self) -> usize {
        if self.is_over() {
            return self.orders;
        }
        self.orders * self.begun / self.all
    }

    /// Whether there are no more blows.
    pub(crate) fn is_over(&self) -> bool {
        self.phases.is_empty()
    }
}

fn phases(day: &Day, rng: &mut Rng) -> Vec<Vec<Blow>> {
    if day.kills == 0 {
        return Vec::new();
    }
    // Somebody has to be left.
    let most = usize::from(day.workers).saturating_sub(1).clamp(1, 3);
    let mut phases = Vec::new();
    let mut kills = day.kills;
    while kills > 0 {
        let at_once = rng.usize(1..=most).min(kills);
        phases.push(vec![Blow::Kill; at_once]);
        kills -= at_once;
    }
    let mut freezes = (day.kills / 4).max(1);
    for phase in &mut phases {
        if freezes > 0 && phase.len() < most {
            phase.push(Blow::Freeze);
            freezes -= 1;
        }
    }
    phases.extend((0..freezes).map(|_| vec![Blow::Freeze]));
    let restarts = [Stop::Immediate, Stop::Fast].into_iter().cycle();
    let restarts = restarts.take((day.kills / 10).max(2));
    phases.extend(restarts.map(|how| vec![Blow::Restart(how)]));
    let cuts = [Trick::LoseAnswer, Trick::LoseAnswer, Trick::Drop];
    for cut in cuts.into_iter().cycle().take((day.kills / 2).max(2)) {
        let phase = rng.usize(0..phases.len());
        phases[phase].push(Blow::Cut(cut));
    }
    phases
}
