//! Workers, a database, a participant with its barrier, and what is on its way between them.

use std::collections::BTreeSet;

use stateright::{Model, Property};

/// How far the exploration goes. Time has no bound: only what is left of each lease is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) workers: usize,
    pub(crate) runs: usize,
    /// How long a lease lasts by the database's clock, in ticks.
    pub(crate) lease: u8,
    /// Claims of each run.
    pub(crate) claims: u8,
    /// Rounds of the step: after an undo it may be executed again, under a new key.
    pub(crate) rounds: u8,
    /// Connections lost while an append is awaited.
    pub(crate) lost_answers: u8,
    /// Calls that a worker gives up while they are on their way.
    pub(crate) timeouts: u8,
    /// Times that the primary dies, and the standby goes on with what it has.
    pub(crate) failovers: u8,
    /// Whether workers may hand over what they hold before their lease is over.
    pub(crate) leaving: bool,
}

/// A protection that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// A claim is written wherever the journal ends by now, not after what the claimant has read.
    ClaimsWithoutCondition,
    /// All other records are written so.
    AppendsWithoutCondition,
    /// A claim leaves the fence as it was.
    ClaimsWithoutFence,
    /// The barrier doesn't look at the fence.
    BarrierIgnoresFences,
    /// The participant forgets which keys it has seen.
    ParticipantForgetsKeys,
    /// An undo that comes before its execute leaves nothing behind.
    EmptyUndoLeavesNoTrace,
    /// A worker calls before it knows that its intent is durable.
    ActsBeforeAcknowledged,
    /// A worker whose append collided goes on as if it had been written.
    IgnoresCollisions,
    /// A resent append that finds its own row is acknowledged though no standby may have the row.
    OwnRowIsEnough,
    /// A claim whose answer was lost is sent again, though the journal that it was made for may be gone.
    SendsClaimsAgain,
    /// A worker counts its lease from when it heard of it.
    CountsFromTheAnswer,
    /// A worker never stops by its own clock.
    NeverStopsItself,
    /// A lease that is over can be renewed, and the worker goes on with its runs.
    RenewsWhatIsOver,
}

/// What a record of a run's journal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Says {
    Started,
    /// By this worker, or by one whose lease is over for good.
    Claimed(Option<u8>),
    /// The step's execute of this round may be called.
    Execute(u8),
    /// Its undo may be called, and its execute never again.
    Undo(u8),
    Completed(u8),
    Compensated,
}

impl Says {
    fn ends(self) -> bool {
        matches!(self, Says::Completed(_) | Says::Compensated)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Row {
    says: Says,
    id: u8,
    /// Whether its writer was told that it is durable.
    acknowledged: bool,
    /// Whether its writer held the run by the journal before it.
    by_owner: bool,
}

/// An append on its way to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Append {
    seq: u8,
    says: Says,
    id: u8,
    /// The sequence of the claim by which its writer holds the run; 0 for a claim itself.
    claim: u8,
}

/// A call on its way to the participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Call {
    undo: bool,
    round: u8,
    fence: u8,
    claim: u8,
}

/// How far an append that a worker waits for has come, as far as the worker's connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Link {
    Sent,
    /// Written, and waiting for the standby.
    Written,
    /// The connection was lost: nobody knows.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Attempt {
    NotCalled,
    Calling,
    /// Given up while it was on its way.
    TimedOut,
    /// Answered: the effect is there, or undone.
    Answered,
}

/// What a worker has of a run. It holds the run by the claim at sequence `claim`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Hold {
    Nothing,
    /// It waits for this append; `last` is what its view of the journal says of the step.
    Waits {
        append: Append,
        link: Link,
        fence: u8,
        last: Says,
        /// Only with a flaw: it has begun to call already.
        ahead: Option<Attempt>,
    },
    Has {
        seq: u8,
        claim: u8,
        fence: u8,
        last: Says,
        attempt: Attempt,
        /// Only with a flaw: one of its appends collided.
        collided: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Renewal {
    None,
    /// Granted, and the answer has been on its way for so many ticks.
    Granted(u8),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Worker {
    /// What is left of its lease by the database's clock.
    lease: u8,
    /// How long it still trusts its lease, by its own clock.
    trust: u8,
    renewal: Renewal,
    holds: Vec<Hold>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    #[default]
    Unknown,
    Done,
    /// Undone, or undone before it was ever done: nothing comes under this key any more.
    Gone,
}

/// What the participant keeps of a run, and what has happened in the world.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Participant {
    fence: u8,
    /// The claim behind the newest call that it let in.
    claim: u8,
    keys: [Key; 2],
    executed: [u8; 2],
    undone: [u8; 2],
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Run {
    journal: Vec<Row>,
    /// How many rows the standby has.
    synced: u8,
    appends: BTreeSet<Append>,
    calls: BTreeSet<Call>,
    participant: Participant,
    lost_answers: u8,
    timeouts: u8,
}

/// What must never happen, and what has to be possible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Seen {
    called_without_lease: bool,
    called_after_collision: bool,
    acknowledged_twice: bool,
    acknowledged_and_lost: bool,
    stale_call_was_let_in: bool,
    executed_after_undo: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct State {
    workers: Vec<Worker>,
    runs: Vec<Run>,
    failovers: u8,
    seen: Seen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Tick,
    /// It arrives when it is sent: the longer it takes, the less the worker trusts the lease that it gets,
    /// so an answer that takes as long allows more.
    Renew(usize),
    RenewalIsHeard(usize),
    Leave(usize),
    Claim(usize, usize),
    Append(usize, usize, Says),
    AppendArrives(usize, Append),
    StandbyFollows,
    ConnectionIsLost(usize, usize),
    AppendAgain(usize, usize),
    StandbyTakesOver,
    Call(usize, usize),
    CallArrives(usize, Call),
    GiveUpCall(usize, usize),
}

pub(crate) struct Protocol {
    bounds: Bounds,
    flaw: Option<Flaw>,
}

impl Protocol {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Protocol { bounds, flaw: None }
    }

    pub(crate) fn flawed(mut self, flaw: Flaw) -> Self {
        self.flaw = Some(flaw);
        self
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    /// Whether a commit waits for a standby that may have to take over.
    fn has_standby(&self) -> bool {
        self.bounds.failovers > 0
    }

    /// How long a worker trusts its lease by its own clock, from before it asked for it: two thirds.
    fn trust(&self) -> u8 {
        self.bounds.lease * 2 / 3
    }

    fn trusts(&self, worker: &Worker) -> bool {
        worker.trust > 0 || self.has(Flaw::NeverStopsItself)
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let worker = Worker {
            lease: 0,
            trust: 0,
            renewal: Renewal::None,
            holds: vec![Hold::Nothing; self.bounds.runs],
        };
        let started = Row {
            says: Says::Started,
            id: 0,
            acknowledged: true,
            by_owner: true,
        };
        let run = Run {
            journal: vec![started],
            synced: 1,
            appends: BTreeSet::new(),
            calls: BTreeSet::new(),
            participant: Participant::default(),
            lost_answers: 0,
            timeouts: 0,
        };
        vec![State {
            workers: vec![worker; self.bounds.workers],
            runs: vec![run; self.bounds.runs],
            failovers: 0,
            seen: Seen::default(),
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.runs.iter().all(Run::is_over) {
            return;
        }
        if state
            .workers
            .iter()
            .any(|worker| worker.feels_time(self.trust()))
        {
            steps.push(Step::Tick);
        }
        for (index, worker) in state.workers.iter().enumerate() {
            self.actions_of_lease(index, worker, steps);
            for (run, hold) in worker.holds.iter().enumerate() {
                self.actions_of_worker(state, index, run, hold, steps);
            }
        }
        for (index, run) in state.runs.iter().enumerate() {
            steps.extend(
                run.appends
                    .iter()
                    .map(|append| Step::AppendArrives(index, *append)),
            );
            steps.extend(run.calls.iter().map(|call| Step::CallArrives(index, *call)));
        }
        if state.runs.iter().any(|run| run.synced < run.end()) {
            steps.push(Step::StandbyFollows);
        }
        if state.failovers < self.bounds.failovers {
            steps.push(Step::StandbyTakesOver);
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Tick => {
                for worker in &mut state.workers {
                    worker.lease = worker.lease.saturating_sub(1);
                    worker.trust = worker.trust.saturating_sub(1);
                    worker.renewal = worker.renewal.older(self.trust());
                }
            }
            Step::Renew(worker) => {
                let worker = &mut state.workers[worker];
                if worker.lease > 0 || self.has(Flaw::RenewsWhatIsOver) {
                    worker.lease = self.bounds.lease;
                    worker.renewal = Renewal::Granted(0);
                } else {
                    worker.drop_all();
                }
            }
            Step::RenewalIsHeard(worker) => {
                let worker = &mut state.workers[worker];
                let Renewal::Granted(age) = worker.renewal else {
                    return None;
                };
                let counted = if self.has(Flaw::CountsFromTheAnswer) {
                    0
                } else {
                    age
                };
                worker.trust = worker.trust.max(self.trust().saturating_sub(counted));
                worker.renewal = Renewal::None;
            }
            Step::Leave(worker) => {
                state.workers[worker].drop_all();
                state.workers[worker].lease = 0;
                state.disown(worker);
            }
            Step::Claim(worker, run) => {
                if !state.workers[worker].has_runs() {
                    state.workers[worker].lease = self.bounds.lease;
                    state.workers[worker].trust = self.trust();
                }
                let (by, at) = (u8::try_from(worker).ok(), &mut state.runs[run]);
                let append = Append {
                    seq: at.end() + 1,
                    says: Says::Claimed(by),
                    id: 0,
                    claim: 0,
                };
                let last = at.last();
                let fence = if self.has(Flaw::ClaimsWithoutFence) {
                    1
                } else {
                    at.claims() + 1
                };
                state.send(worker, run, append, fence, last);
            }
            Step::Append(worker, run, says) => {
                let Hold::Has {
                    seq,
                    claim,
                    fence,
                    last,
                    ..
                } = state.workers[worker].holds[run]
                else {
                    return None;
                };
                let append = Append {
                    seq: seq + 1,
                    says,
                    id: 0,
                    claim,
                };
                state.send(worker, run, append, fence, last);
                if self.has(Flaw::ActsBeforeAcknowledged)
                    && let Hold::Waits { ahead, .. } = &mut state.workers[worker].holds[run]
                {
                    *ahead = Some(Attempt::NotCalled);
                }
            }
            Step::AppendArrives(run, append) => self.append_arrives(&mut state, run, append),
            Step::StandbyFollows => self.sync(&mut state),
            Step::ConnectionIsLost(worker, run) => {
                let resends = self.has(Flaw::SendsClaimsAgain);
                state.workers[worker].holds[run].lose_connection(resends);
                state.runs[run].lost_answers += 1;
            }
            Step::AppendAgain(worker, run) => {
                let Hold::Waits { append, link, .. } = &mut state.workers[worker].holds[run] else {
                    return None;
                };
                *link = Link::Sent;
                state.runs[run].appends.insert(*append);
            }
            Step::StandbyTakesOver => {
                state.failovers += 1;
                for run in &mut state.runs {
                    let kept = usize::from(run.synced);
                    let lost = run.journal.iter().skip(kept).any(|row| row.acknowledged);
                    state.seen.acknowledged_and_lost |= lost;
                    run.journal.truncate(kept);
                    run.appends.clear();
                }
                for worker in &mut state.workers {
                    let resends = self.has(Flaw::SendsClaimsAgain);
                    worker
                        .holds
                        .iter_mut()
                        .for_each(|hold| hold.lose_connection(resends));
                }
            }
            Step::Call(worker, run) => self.call(&mut state, worker, run)?,
            Step::CallArrives(run, call) => self.call_arrives(&mut state, run, call),
            Step::GiveUpCall(worker, run) => {
                state.workers[worker].holds[run].set_attempt(Attempt::TimedOut);
                state.runs[run].timeouts += 1;
            }
        }
        if self.flaw.is_none() {
            state.forget_what_does_nothing(self.has_standby());
        }
        Some(state.canonical())
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::always("a key takes effect once at most", |_, state: &State| {
                let runs = state.runs.iter();
                runs.flat_map(|run| run.participant.executed)
                    .all(|times| times <= 1)
            }),
            Property::always(
                "an effect has an intent in the journal",
                |_, state: &State| state.runs.iter().all(Run::effects_have_intents),
            ),
            Property::always("an end is true", |_, state: &State| {
                state.runs.iter().all(Run::end_is_true)
            }),
            Property::always("nothing comes after an end", |_, state: &State| {
                let before_last = |run: &Run| run.journal.len() - 1;
                let mut runs = state.runs.iter();
                runs.all(|run| {
                    !run.journal[..before_last(run)]
                        .iter()
                        .any(|row| row.says.ends())
                })
            }),
            Property::always(
                "an execute is never called after its undo",
                |_, state: &State| !state.seen.executed_after_undo,
            ),
            Property::always("only the owner writes", |_, state: &State| {
                state
                    .runs
                    .iter()
                    .flat_map(|run| &run.journal)
                    .all(|row| row.by_owner)
            }),
            Property::always(
                "one append per sequence is acknowledged",
                |_, state: &State| !state.seen.acknowledged_twice,
            ),
            Property::always("what was acknowledged is never lost", |_, state: &State| {
                !state.seen.acknowledged_and_lost
            }),
            Property::always("no call after a collision", |_, state: &State| {
                !state.seen.called_after_collision
            }),
            Property::always("no call without a lease", |_, state: &State| {
                !state.seen.called_without_lease
            }),
            Property::always("no stale call is let in", |_, state: &State| {
                !state.seen.stale_call_was_let_in
            }),
        ];
        if self.flaw.is_none() {
            all.extend([
                Property::sometimes("a run completes", |_, state: &State| {
                    state.ends_after(0, |says| matches!(says, Says::Completed(_)))
                }),
                Property::sometimes("a run is compensated", |_, state: &State| {
                    state.ends_after(0, |says| says == Says::Compensated)
                }),
            ]);
        }
        if self.flaw.is_none() && self.bounds.claims > 1 {
            all.extend([
                Property::sometimes("a run completes after a take-over", |_, state: &State| {
                    state.ends_after(2, |says| matches!(says, Says::Completed(_)))
                }),
                Property::sometimes(
                    "a run is compensated after a take-over",
                    |_, state: &State| state.ends_after(2, |says| says == Says::Compensated),
                ),
                Property::sometimes("a stale call is on its way", |_, state: &State| {
                    let stale = |run: &Run| {
                        run.calls
                            .iter()
                            .any(|call| call.fence < run.participant.fence)
                    };
                    state.runs.iter().any(stale)
                }),
                Property::sometimes("a late append will collide", |_, state: &State| {
                    let late = |run: &Run| run.appends.iter().any(|append| append.seq <= run.end());
                    state.runs.iter().any(late)
                }),
            ]);
        }
        all
    }
}

impl Protocol {
    fn actions_of_lease(&self, index: usize, worker: &Worker, steps: &mut Vec<Step>) {
        match worker.renewal {
            Renewal::None if worker.trust < self.trust() && worker.has_runs() => {
                steps.push(Step::Renew(index));
            }
            Renewal::Granted(_) => steps.push(Step::RenewalIsHeard(index)),
            Renewal::None => {}
        }
        if self.bounds.leaving && worker.has_runs() && worker.lease > 0 && !worker.is_busy() {
            steps.push(Step::Leave(index));
        }
    }

    fn actions_of_worker(
        &self,
        state: &State,
        worker: usize,
        run: usize,
        hold: &Hold,
        steps: &mut Vec<Step>,
    ) {
        let at = &state.runs[run];
        match *hold {
            Hold::Nothing => {
                // A worker also claims what bears its name and what it doesn't drive.
                let due = at.owner().is_none_or(|owner| {
                    usize::from(owner) == worker || state.workers[usize::from(owner)].lease == 0
                });
                let trusts = self.trusts(&state.workers[worker]);
                let joins = !state.workers[worker].has_runs();
                let may = at.claims() < self.bounds.claims && at.claims_on_their_way() < 2;
                if due && may && (joins || trusts) && !at.last().ends() {
                    steps.push(Step::Claim(worker, run));
                }
            }
            Hold::Waits { link, ahead, .. } => {
                if link == Link::Lost {
                    steps.push(Step::AppendAgain(worker, run));
                } else if at.lost_answers < self.bounds.lost_answers {
                    steps.push(Step::ConnectionIsLost(worker, run));
                }
                if ahead == Some(Attempt::NotCalled) {
                    steps.push(Step::Call(worker, run));
                }
            }
            Hold::Has { last, attempt, .. } => {
                let calls = matches!(last, Says::Execute(_) | Says::Undo(_));
                if calls
                    && matches!(attempt, Attempt::NotCalled | Attempt::TimedOut)
                    && self.trusts(&state.workers[worker])
                {
                    steps.push(Step::Call(worker, run));
                }
                if attempt == Attempt::Calling && at.timeouts < self.bounds.timeouts {
                    steps.push(Step::GiveUpCall(worker, run));
                }
                if attempt == Attempt::Calling {
                    return;
                }
                let done = attempt == Attempt::Answered;
                let mut append = |says| steps.push(Step::Append(worker, run, says));
                match last {
                    Says::Started => append(Says::Execute(1)),
                    Says::Execute(round) => {
                        if done {
                            append(Says::Completed(round));
                        }
                        append(Says::Undo(round));
                    }
                    Says::Undo(round) if done => {
                        append(Says::Compensated);
                        if round < self.bounds.rounds {
                            append(Says::Execute(round + 1));
                        }
                    }
                    Says::Undo(_) | Says::Claimed(_) | Says::Completed(_) | Says::Compensated => {}
                }
            }
        }
    }

    fn append_arrives(&self, state: &mut State, run: usize, append: Append) {
        let at = &mut state.runs[run];
        at.appends.remove(&append);
        let is_claim = matches!(append.says, Says::Claimed(_));
        let anywhere = if is_claim {
            self.has(Flaw::ClaimsWithoutCondition)
        } else {
            self.has(Flaw::AppendsWithoutCondition)
        };
        let there = at.journal.get(usize::from(append.seq) - 1).copied();
        let own = there.is_some_and(|row| row.id == append.id);
        if !own && (append.seq == at.end() + 1 || anywhere) {
            let by_owner = is_claim || append.claim == at.claim();
            at.journal.push(Row {
                says: append.says,
                id: append.id,
                acknowledged: false,
                by_owner,
            });
            state.hear(run, append.id);
        } else if own && self.has(Flaw::OwnRowIsEnough) {
            state.hear(run, append.id);
            state.acknowledge(run, append.id);
        } else {
            if own {
                state.hear(run, append.id);
            } else {
                state.collide(run, append.id, self.has(Flaw::IgnoresCollisions));
            }
        }
        if !self.has_standby() {
            self.sync(state);
        }
    }

    /// The standby has everything, and whoever waited for that is told.
    fn sync(&self, state: &mut State) {
        for run in 0..state.runs.len() {
            state.runs[run].synced = state.runs[run].end();
            let written: Vec<u8> = state
                .workers
                .iter()
                .filter_map(|worker| match worker.holds[run] {
                    Hold::Waits {
                        append,
                        link: Link::Written,
                        ..
                    } => Some(append.id),
                    _ => None,
                })
                .collect();
            for id in written {
                state.acknowledge(run, id);
            }
        }
    }

    fn call(&self, state: &mut State, worker: usize, run: usize) -> Option<()> {
        let (last, fence, claim, collided) = match state.workers[worker].holds[run] {
            Hold::Has {
                last,
                fence,
                claim,
                collided,
                ..
            } => (last, fence, claim, collided),
            Hold::Waits { append, fence, .. } => (append.says, fence, append.claim, false),
            Hold::Nothing => return None,
        };
        let (undo, round) = match last {
            Says::Execute(round) => (false, round),
            Says::Undo(round) => (true, round),
            _ => return None,
        };
        state.seen.called_without_lease |= state.workers[worker].lease == 0
            || state.runs[run].owner() != u8::try_from(worker).ok();
        state.seen.called_after_collision |= collided;
        let journal = &state.runs[run].journal;
        state.seen.executed_after_undo |=
            !undo && journal.iter().any(|row| row.says == Says::Undo(round));
        let call = Call {
            undo,
            round,
            fence,
            claim,
        };
        state.runs[run].calls.insert(call);
        state.workers[worker].holds[run].set_attempt(Attempt::Calling);
        Some(())
    }

    fn call_arrives(&self, state: &mut State, run: usize, call: Call) {
        let at = &mut state.runs[run];
        at.calls.remove(&call);
        let participant = &mut at.participant;
        let stale = call.fence < participant.fence && !self.has(Flaw::BarrierIgnoresFences);
        if !stale {
            let round = usize::from(call.round) - 1;
            let forgets = self.has(Flaw::ParticipantForgetsKeys);
            match (call.undo, participant.keys[round]) {
                (false, Key::Unknown) => {
                    participant.executed[round] += 1;
                    participant.keys[round] = Key::Done;
                }
                (false, Key::Done | Key::Gone) => participant.executed[round] += u8::from(forgets),
                (true, Key::Unknown) if self.has(Flaw::EmptyUndoLeavesNoTrace) => {}
                (true, Key::Unknown) => participant.keys[round] = Key::Gone,
                (true, Key::Done) => {
                    participant.undone[round] += 1;
                    participant.keys[round] = Key::Gone;
                }
                (true, Key::Gone) => {}
            }
            state.seen.stale_call_was_let_in |= call.claim < participant.claim;
            participant.fence = participant.fence.max(call.fence);
            participant.claim = participant.claim.max(call.claim);
        }
        for worker in &mut state.workers {
            worker.holds[run].hear_call(call, stale);
        }
    }
}

impl State {
    /// Puts an append on its way, under an id that nothing else bears.
    fn send(&mut self, worker: usize, run: usize, append: Append, fence: u8, last: Says) {
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
        let id = (0..).find(|id| !taken.contains(id)).unwrap_or(u8::MAX);
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
    fn waiting(&mut self, run: usize, id: u8) -> Option<&mut Hold> {
        let mut holds = self.workers.iter_mut().map(|worker| &mut worker.holds[run]);
        holds.find(|hold| {
            matches!(hold, Hold::Waits { append, link, .. } if append.id == id && *link != Link::Lost)
        })
    }

    /// The append was written: its answer comes when the standby has it, too.
    fn hear(&mut self, run: usize, id: u8) {
        if let Some(Hold::Waits { link, .. }) = self.waiting(run, id) {
            *link = Link::Written;
        }
    }

    /// Another append has that sequence: the run is somebody else's.
    fn collide(&mut self, run: usize, id: u8, ignored: bool) {
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
    fn acknowledge(&mut self, run: usize, id: u8) {
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
    fn disown(&mut self, worker: usize) {
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
    fn ends_after(&self, claims: u8, how: fn(Says) -> bool) -> bool {
        let mut runs = self.runs.iter();
        runs.any(|run| run.claims() >= claims && run.last().ends() && how(run.last()))
    }

    /// Drops what is on its way, would be refused on arrival for ever, and is awaited by nobody.
    fn forget_what_does_nothing(&mut self, has_standby: bool) {
        for (index, run) in self.runs.iter_mut().enumerate() {
            let holds = || self.workers.iter().map(|worker| &worker.holds[index]);
            let (end, fence) = (run.end(), run.participant.fence);
            let awaited = |id: u8| holds().any(|hold| hold.waits_for(id));
            run.appends
                .retain(|append| has_standby || append.seq > end || awaited(append.id));
            let calling = |call: &Call| holds().any(|hold| hold.calls(call));
            run.calls
                .retain(|call| call.fence >= fence || calling(call));
        }
    }

    /// The same state with its workers in one of many orders: which worker is which makes no difference.
    fn canonical(mut self) -> Self {
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
    fn number_appends(&mut self, run: usize) {
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
    fn owns(&self, worker: usize) -> Vec<u8> {
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
    fn end(&self) -> u8 {
        u8::try_from(self.journal.len()).unwrap_or(u8::MAX)
    }

    /// What the journal says of the step.
    fn last(&self) -> Says {
        let mut says = self.journal.iter().rev().map(|row| row.says);
        says.find(|says| !matches!(says, Says::Claimed(_)))
            .unwrap_or(Says::Started)
    }

    fn claims(&self) -> u8 {
        let claims = self
            .journal
            .iter()
            .filter(|row| matches!(row.says, Says::Claimed(_)));
        u8::try_from(claims.count()).unwrap_or(u8::MAX)
    }

    fn claims_on_their_way(&self) -> usize {
        let mut says = self.appends.iter().map(|append| append.says);
        says.by_ref()
            .filter(|says| matches!(says, Says::Claimed(_)))
            .count()
    }

    /// The sequence of the last claim; 0 where there is none.
    fn claim(&self) -> u8 {
        let at = self
            .journal
            .iter()
            .rposition(|row| matches!(row.says, Says::Claimed(_)));
        at.map_or(0, |at| u8::try_from(at).unwrap_or(u8::MAX) + 1)
    }

    fn owner(&self) -> Option<u8> {
        self.journal.iter().rev().find_map(|row| match row.says {
            Says::Claimed(by) => Some(by),
            _ => None,
        })?
    }

    /// Only the last claim says who owns the run, unless a fail-over may take it back.
    fn forget_old_owners(&mut self) {
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

    fn is_over(&self) -> bool {
        self.last().ends() && self.calls.is_empty() && self.appends.is_empty()
    }

    fn says(&self, says: Says) -> bool {
        self.journal.iter().any(|row| row.says == says)
    }

    fn effects_have_intents(&self) -> bool {
        (1..)
            .zip(self.participant.keys)
            .zip(self.participant.executed)
            .all(|((round, key), executed)| {
                (executed == 0 || self.says(Says::Execute(round)))
                    && (key != Key::Gone || self.says(Says::Undo(round)))
            })
    }

    fn end_is_true(&self) -> bool {
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
    fn says(&self) -> Says {
        if self.undo {
            Says::Undo(self.round)
        } else {
            Says::Execute(self.round)
        }
    }
}

impl Worker {
    fn has_runs(&self) -> bool {
        self.holds.iter().any(|hold| *hold != Hold::Nothing)
    }

    fn feels_time(&self, trust: u8) -> bool {
        self.lease > 0 || self.trust > 0 || self.renewal.ages(trust)
    }

    /// Whether an append or a call of it is on its way.
    fn is_busy(&self) -> bool {
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

    fn drop_all(&mut self) {
        self.holds.fill(Hold::Nothing);
        self.trust = 0;
    }
}

impl Hold {
    /// What a worker has once it takes this append for written at `seq`.
    fn holding(
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

    fn waits_for(&self, id: u8) -> bool {
        matches!(self, Hold::Waits { append, .. } if append.id == id)
    }

    /// Whether it waits for the answer to this call.
    fn calls(&self, call: &Call) -> bool {
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
    fn lose_connection(&mut self, resends_claims: bool) {
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

    fn set_attempt(&mut self, now: Attempt) {
        match self {
            Hold::Waits { ahead, .. } => *ahead = Some(now),
            Hold::Has { attempt, .. } => *attempt = now,
            Hold::Nothing => {}
        }
    }

    /// The participant's answer, for whoever still waits for this call.
    fn hear_call(&mut self, call: Call, stale: bool) {
        if self.calls(&call) {
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
    fn ages(self, trust: u8) -> bool {
        matches!(self, Renewal::Granted(age) if age < trust)
    }

    fn older(self, trust: u8) -> Self {
        match self {
            Renewal::Granted(age) if age < trust => Renewal::Granted(age + 1),
            same => same,
        }
    }
}
