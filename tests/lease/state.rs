//! What a state of the model says of itself, and how one becomes another.

use std::collections::BTreeSet;

use super::{Append, Attempt, Call, Hold, Key, Link, Renewal, Run, Says, State, Worker};

impl State {
    /// Puts an append on its way, under an id that nothing else bears.
    pub(super) fn send(
        &mut self,
        worker: usize,
        run: usize,
        append: Append,
        fence: u8,
        last: Says,
    ) {
        let at = &self.runs[run];
        let waiting = self
            .workers
            .iter()
            .filter_map(|worker| match worker.holds[run] {
                Hold::Waits { append, .. } => Some(append.id),
                _ => None,
            });
        let ids = at.journal.iter().map(|row| row.id);
        let ids = ids.chain(at.appends.iter().map(|append| append.id));
        let taken: BTreeSet<u8> = ids.chain(waiting).collect();
        let id = (0..u8::MAX)
            .find(|id| !taken.contains(id))
            .unwrap_or(u8::MAX);
        let append = Append { id, ..append };
        self.runs[run].appends.insert(append);
        self.workers[worker].holds[run] = Hold::Waits {
            append,
            link: Link::Sent,
            fence,
            last,
            ahead: None,
        };
    }

    /// What waits for this append over a connection that stands.
    pub(super) fn waiting(&mut self, run: usize, id: u8) -> Option<&mut Hold> {
        let mut holds = self.workers.iter_mut().map(|worker| &mut worker.holds[run]);
        holds.find(|hold| {
            matches!(hold, Hold::Waits { append, link, .. } if append.id == id && *link != Link::Lost)
        })
    }

    /// The append was written: its answer comes when the standby has it, too.
    pub(super) fn hear(&mut self, run: usize, id: u8) {
        if let Some(Hold::Waits { link, .. }) = self.waiting(run, id) {
            *link = Link::Written;
        }
    }

    /// Another append has that sequence: the run is somebody else's.
    pub(super) fn collide(&mut self, run: usize, id: u8, ignored: bool) {
        if let Some(hold) = self.waiting(run, id) {
            *hold = match *hold {
                Hold::Waits {
                    append,
                    fence,
                    last,
                    ahead,
                    ..
                } if ignored => Hold::holding(append, append.seq, fence, last, ahead, true),
                _ => Hold::Nothing,
            };
        }
    }

    /// The writer learns that its append is durable, and goes on.
    pub(super) fn acknowledge(&mut self, run: usize, id: u8) {
        let journal = &mut self.runs[run].journal;
        let Some(at) = journal.iter().position(|row| row.id == id) else {
            return;
        };
        journal[at].acknowledged = true;
        let asked = journal.clone();
        let Some(hold) = self.waiting(run, id) else {
            return;
        };
        let Hold::Waits {
            append,
            fence,
            last,
            ahead,
            ..
        } = *hold
        else {
            return;
        };
        let seq = u8::try_from(at).unwrap_or(u8::MAX) + 1;
        *hold = Hold::holding(append, seq, fence, last, ahead, false);
        let other = asked.get(usize::from(append.seq) - 1);
        self.seen.acknowledged_twice |=
            other.is_some_and(|other| other.id != id && other.acknowledged);
    }

    /// The worker's lease is over for good: nobody waits for it any more.
    pub(super) fn disown(&mut self, worker: usize) {
        let worker = u8::try_from(worker).ok();
        let disowned = |says: Says| match says {
            Says::Claimed(by) if by == worker => Says::Claimed(None),
            other => other,
        };
        for run in &mut self.runs {
            for row in &mut run.journal {
                row.says = disowned(row.says);
            }
            let appends = std::mem::take(&mut run.appends).into_iter();
            let says = |append: Append| Append {
                says: disowned(append.says),
                ..append
            };
            run.appends = appends.map(says).collect();
        }
    }

    /// Whether a run with so many claims at least has ended so.
    pub(super) fn ends_after(&self, claims: u8, how: fn(Says) -> bool) -> bool {
        let mut runs = self.runs.iter();
        runs.any(|run| run.claims() >= claims && run.last().ends() && how(run.last()))
    }

    /// Drops what is on its way, would be refused on arrival for ever, and is awaited by nobody.
    pub(super) fn forget_what_does_nothing(&mut self, has_standby: bool) {
        for (index, run) in self.runs.iter_mut().enumerate() {
            let holds = || self.workers.iter().map(|worker| &worker.holds[index]);
            let (end, fence) = (run.end(), run.participant.fence);
            let awaited = |id: u8| holds().any(|hold| hold.waits_for(id));
            run.appends
                .retain(|append| has_standby || append.seq > end || awaited(append.id));
            let calling = |call: &Call| holds().any(|hold| hold.calls(*call));
            run.calls
                .retain(|call| call.fence >= fence || calling(call));
        }
    }

    /// The same state with its workers in one of many orders: which worker is which makes no difference.
    pub(super) fn canonical(mut self) -> Self {
        for index in 0..self.runs.len() {
            self.number_appends(index);
        }
        for index in 0..self.workers.len() {
            let owns_nothing = self.owns(index).iter().all(|id| *id == 0);
            let worker = &mut self.workers[index];
            if !worker.has_runs() && (worker.lease == 0 || owns_nothing) {
                (worker.lease, worker.trust, worker.renewal) = (0, 0, Renewal::None);
                self.disown(index);
            }
        }
        for run in &mut self.runs {
            run.forget_old_owners();
        }
        let mut order: Vec<usize> = (0..self.workers.len()).collect();
        order.sort_by_key(|index| (&self.workers[*index], self.owns(*index)));
        let renamed = |says: Says| match says {
            Says::Claimed(Some(by)) => {
                let now = order.iter().position(|old| *old == usize::from(by));
                Says::Claimed(now.and_then(|now| u8::try_from(now).ok()))
            }
            other => other,
        };
        let named = |append: Append| Append {
            says: renamed(append.says),
            ..append
        };
        let mut workers: Vec<Worker> = order.iter().map(|old| self.workers[*old].clone()).collect();
        for worker in &mut workers {
            for hold in &mut worker.holds {
                if let Hold::Waits { append, .. } = hold {
                    *append = named(*append);
                }
            }
        }
        self.workers = workers;
        for run in &mut self.runs {
            for row in &mut run.journal {
                row.says = renamed(row.says);
            }
            run.appends = std::mem::take(&mut run.appends)
                .into_iter()
                .map(named)
                .collect();
        }
        self
    }

    /// Gives the appends of a run new ids, in the order of their sequences: which id is which says nothing.
    pub(super) fn number_appends(&mut self, run: usize) {
        let at = &mut self.runs[run];
        let mut ids: Vec<u8> = at.journal.iter().map(|row| row.id).collect();
        let mut others: Vec<Append> = at.appends.iter().copied().collect();
        others.extend(
            self.workers
                .iter()
                .filter_map(|worker| match worker.holds[run] {
                    Hold::Waits { append, .. } => Some(append),
                    _ => None,
                }),
        );
        others.sort();
        for append in others {
            if !ids.contains(&append.id) {
                ids.push(append.id);
            }
        }
        let now = |old: u8| {
            let now = ids.iter().position(|id| *id == old);
            now.and_then(|now| u8::try_from(now).ok())
                .unwrap_or(u8::MAX)
        };
        at.journal.iter_mut().for_each(|row| row.id = now(row.id));
        let appends = std::mem::take(&mut at.appends).into_iter();
        at.appends = appends
            .map(|append| Append {
                id: now(append.id),
                ..append
            })
            .collect();
        for worker in &mut self.workers {
            if let Hold::Waits { append, .. } = &mut worker.holds[run] {
                append.id = now(append.id);
            }
        }
    }

    /// Where this worker is named as the claimant: tells workers apart that are otherwise alike.
    pub(super) fn owns(&self, worker: usize) -> Vec<u8> {
        let by = Says::Claimed(u8::try_from(worker).ok());
        let of = |run: &Run| {
            let rows = run.journal.iter().map(|row| (row.says, row.id));
            let appends = run.appends.iter().map(|append| (append.says, append.id));
            let mut ids = rows
                .chain(appends)
                .filter(|(says, _)| *says == by)
                .map(|(_, id)| id);
            ids.next().map_or(0, |id| id + 1)
        };
        self.runs.iter().map(of).collect()
    }
}

impl Run {
    /// The sequence of the journal's last record.
    pub(super) fn end(&self) -> u8 {
        u8::try_from(self.journal.len()).unwrap_or(u8::MAX)
    }

    /// What the journal says of the step.
    pub(super) fn last(&self) -> Says {
        let mut says = self.journal.iter().rev().map(|row| row.says);
        says.find(|says| !matches!(says, Says::Claimed(_)))
            .unwrap_or(Says::Started)
    }

    pub(super) fn claims(&self) -> u8 {
        let claims = self
            .journal
            .iter()
            .filter(|row| matches!(row.says, Says::Claimed(_)));
        u8::try_from(claims.count()).unwrap_or(u8::MAX)
    }

    pub(super) fn claims_on_their_way(&self) -> usize {
        let mut says = self.appends.iter().map(|append| append.says);
        says.by_ref()
            .filter(|says| matches!(says, Says::Claimed(_)))
            .count()
    }

    /// The sequence of the last claim; 0 where there is none.
    pub(super) fn claim(&self) -> u8 {
        let at = self
            .journal
            .iter()
            .rposition(|row| matches!(row.says, Says::Claimed(_)));
        at.map_or(0, |at| u8::try_from(at).unwrap_or(u8::MAX) + 1)
    }

    pub(super) fn owner(&self) -> Option<u8> {
        self.journal.iter().rev().find_map(|row| match row.says {
            Says::Claimed(by) => Some(by),
            _ => None,
        })?
    }

    /// Only the last claim says who owns the run, unless a fail-over may take it back.
    pub(super) fn forget_old_owners(&mut self) {
        let last = self.claim();
        if self.synced == self.end() {
            let old = usize::from(last.saturating_sub(1));
            for row in &mut self.journal[..old] {
                if matches!(row.says, Says::Claimed(_)) {
                    row.says = Says::Claimed(None);
                }
            }
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.last().ends() && self.calls.is_empty() && self.appends.is_empty()
    }

    pub(super) fn says(&self, says: Says) -> bool {
        self.journal.iter().any(|row| row.says == says)
    }

    pub(super) fn effects_have_intents(&self) -> bool {
        (1..)
            .zip(self.participant.keys)
            .zip(self.participant.executed)
            .all(|((round, key), executed)| {
                (executed == 0 || self.says(Says::Execute(round)))
                    && (key != Key::Gone || self.says(Says::Undo(round)))
            })
    }

    pub(super) fn end_is_true(&self) -> bool {
        let standing =
            |round: usize| self.participant.executed[round] - self.participant.undone[round];
        match self.last() {
            Says::Completed(done) => {
                (0..2).all(|round| standing(round) == u8::from(round + 1 == usize::from(done)))
            }
            Says::Compensated => (0..2).all(|round| standing(round) == 0),
            _ => true,
        }
    }
}

impl Call {
    /// The intent that it carries out.
    pub(super) fn says(self) -> Says {
        if self.undo {
            Says::Undo(self.round)
        } else {
            Says::Execute(self.round)
        }
    }
}

impl Worker {
    pub(super) fn has_runs(&self) -> bool {
        self.holds.iter().any(|hold| *hold != Hold::Nothing)
    }

    pub(super) fn feels_time(&self, trust: u8) -> bool {
        self.lease > 0 || self.trust > 0 || self.renewal.ages(trust)
    }

    /// Whether an append or a call of it is on its way.
    pub(super) fn is_busy(&self) -> bool {
        self.holds.iter().any(|hold| {
            matches!(
                hold,
                Hold::Waits { .. }
                    | Hold::Has {
                        attempt: Attempt::Calling,
                        ..
                    }
            )
        })
    }

    pub(super) fn drop_all(&mut self) {
        self.holds.fill(Hold::Nothing);
        self.trust = 0;
    }
}

impl Hold {
    /// What a worker has once it takes this append for written at `seq`.
    pub(super) fn holding(
        append: Append,
        seq: u8,
        fence: u8,
        last: Says,
        ahead: Option<Attempt>,
        collided: bool,
    ) -> Self {
        let (claim, last) = match append.says {
            Says::Claimed(_) => (seq, last),
            ends if ends.ends() => return Hold::Nothing,
            says => (append.claim, says),
        };
        let attempt = ahead.unwrap_or(Attempt::NotCalled);
        Hold::Has {
            seq,
            claim,
            fence,
            last,
            attempt,
            collided,
        }
    }

    pub(super) fn waits_for(&self, id: u8) -> bool {
        matches!(self, Hold::Waits { append, .. } if append.id == id)
    }

    /// Whether it waits for the answer to this call.
    pub(super) fn calls(&self, call: Call) -> bool {
        let (of, now) = match self {
            Hold::Has {
                claim,
                last,
                attempt: Attempt::Calling,
                ..
            } => (*claim, *last),
            _ => return false,
        };
        of == call.claim && now == call.says()
    }

    /// Nobody knows what became of the append. One that the worker made while it held the run is sent again,
    /// since all before it is durable; a claim was made for a journal that nobody may ever see again.
    pub(super) fn lose_connection(&mut self, resends_claims: bool) {
        match self {
            Hold::Waits { append, .. }
                if matches!(append.says, Says::Claimed(_)) && !resends_claims =>
            {
                *self = Hold::Nothing;
            }
            Hold::Waits { link, .. } => *link = Link::Lost,
            Hold::Nothing | Hold::Has { .. } => {}
        }
    }

    pub(super) fn set_attempt(&mut self, now: Attempt) {
        match self {
            Hold::Waits { ahead, .. } => *ahead = Some(now),
            Hold::Has { attempt, .. } => *attempt = now,
            Hold::Nothing => {}
        }
    }

    /// The participant's answer, for whoever still waits for this call.
    pub(super) fn hear_call(&mut self, call: Call, stale: bool) {
        if self.calls(call) {
            if stale {
                *self = Hold::Nothing;
            } else {
                self.set_attempt(Attempt::Answered);
            }
        }
    }
}

impl Renewal {
    /// An age counts until a grant of that age is worth nothing.
    pub(super) fn ages(self, trust: u8) -> bool {
        matches!(self, Renewal::Granted(age) if age < trust)
    }

    pub(super) fn older(self, trust: u8) -> Self {
        match self {
            Renewal::Granted(age) if age < trust => Renewal::Granted(age + 1),
            same => same,
        }
    }
}
