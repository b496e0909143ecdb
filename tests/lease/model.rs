//! Workers, a database, a participant with its barrier, and what is on its way between them.

use std::collections::BTreeSet;

use stateright::{Model, Property};

#[path = "state.rs"]
mod state;

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
            Step::StandbyFollows => Self::sync(&mut state),
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
                    let told = run.journal.iter().skip(kept).any(|row| row.acknowledged);
                    state.seen.acknowledged_and_lost |= told;
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
            Step::Call(worker, run) => Self::call(&mut state, worker, run)?,
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
        } else if own {
            state.hear(run, append.id);
        } else {
            state.collide(run, append.id, self.has(Flaw::IgnoresCollisions));
        }
        if !self.has_standby() {
            Self::sync(state);
        }
    }

    /// The standby has everything, and whoever waited for that is told.
    fn sync(state: &mut State) {
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

    fn call(state: &mut State, worker: usize, run: usize) -> Option<()> {
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
        let refused = call.fence < participant.fence && !self.has(Flaw::BarrierIgnoresFences);
        if !refused {
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
            worker.holds[run].hear_call(call, refused);
        }
    }
}
