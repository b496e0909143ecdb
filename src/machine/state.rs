//! What is known of a run: the fold of its journal, with the queues that make deciding cheap.

use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::failure::{Failure, PartialSuccess};
use crate::ids::Timestamp;
use crate::journal::{CancelTold, Decision, End, Parking, RunStarted, Standing};
use crate::machine::kept::{Call, Moment};
use crate::saga::{Feed, Graph, StepKind, UndoOrder};
use crate::step::{StepIx, Value};

/// The state of one run.
#[derive(Clone, Debug)]
pub struct State {
    pub(crate) header: Box<RunStarted>,
    pub(crate) started_at: Timestamp,
    pub(crate) ended_at: Option<Timestamp>,
    pub(crate) fence: u64,
    /// Who started the run, or claimed it last.
    pub(crate) worker: String,
    pub(crate) deadline: Option<Timestamp>,
    pub(crate) deadline_reported: bool,
    pub(crate) nodes: Vec<NodeState>,
    pub(crate) phase: Phase,
    /// Steps that are done.
    pub(crate) done: u32,
    /// Calls of `execute` that are under way.
    pub(super) in_flight: u32,
    /// Probes that are being asked.
    pub(super) probes: u32,
    /// Steps that may start, in the order in which they became ready. Entries whose step has moved on
    /// are skipped, so that nothing has to be searched for.
    pub(super) ready: VecDeque<StepIx>,
    /// Steps in doubt that have a probe which wasn't asked yet. Stale entries are skipped, too.
    pub(super) to_probe: VecDeque<StepIx>,
    /// When sleeping attempts and undos go on.
    pub(super) timers: BTreeSet<(Timestamp, StepIx)>,
    /// Steps that failed or were dropped, to be taken up again. Stale entries are skipped, too.
    pub(super) idle: Vec<StepIx>,
    /// Steps that failed for good since the last decision, in order.
    pub(super) failures: Vec<StepIx>,
    /// Whether the deadline is to be put to the policy.
    pub(super) time_is_up: bool,
    pub(crate) cancel: Option<Cancel>,
    pub(crate) stop: Option<String>,
    pub(crate) paused: Option<Paused>,
    /// Who gives the run up, and why: it ends as soon as nothing is in flight.
    pub(super) abandon: Option<(String, String)>,
    /// Tokens of the commands that are in the journal.
    pub(super) tokens: Vec<Arc<str>>,
    /// The run has to be parked as soon as nothing is in flight.
    pub(super) park_wanted: Option<Parking>,
    pub(crate) parked: Option<Parking>,
    pub(super) parked_at: Timestamp,
    /// How long the run has been parked or paused so far, but for what goes on now.
    pub(super) stood: Duration,
    pub(crate) recoveries: u32,
    pub(crate) recoveries_total: u32,
    pub(crate) last_decision: Option<Box<Decision<StepIx>>>,
    pub(super) unwind: Unwind,
    pub(crate) compensations: Vec<Compensation>,
    /// The latest of what happened to the run as a whole.
    pub(crate) moments: VecDeque<Moment>,
    pub(super) completions: u64,
    pub(crate) end: Option<End>,
}

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Steps start as they become ready, but not before `hold`.
    Forward { hold: Option<Timestamp> },
    /// Nothing starts; what is in flight is awaited, doubts are probed, then one decision is made.
    Draining,
    /// Undos run; nothing goes forward.
    Unwinding,
    /// An operator is waited for.
    Parked,
    /// It is over.
    Ended,
}

/// A cancel that was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Cancel {
    pub(crate) by: String,
    pub(crate) reason: String,
    pub(crate) told: CancelTold,
    /// Whether it is still to be carried out.
    pub(crate) pending: bool,
}

/// A pause, and since when.
#[derive(Clone, Debug)]
pub(crate) struct Paused {
    pub(crate) by: String,
    pub(crate) reason: String,
    pub(crate) at: Timestamp,
}

/// What a round's attempts left, joined (rule E3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum EffectNow {
    NotDone,
    InDoubt,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Something before it isn't done.
    Waiting,
    /// It may start, once it was probed if it is in doubt.
    Ready,
    /// Its `execute` is in flight.
    Running,
    /// Its next attempt waits.
    Sleeping {
        until: Timestamp,
    },
    /// Its retry was dropped, or its attempt interrupted, when something else went wrong.
    Dropped,
    Done,
    /// It failed for good.
    Failed,
    /// It asked to end the run.
    Stopped,
    /// Its effect was undone and it hasn't run since.
    Undone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UndoStatus {
    /// Not concerned, or settled.
    Idle,
    Ready,
    Running,
    Sleeping {
        until: Timestamp,
    },
    /// It failed for good.
    Failed,
}

/// One step's part of the state.
#[derive(Clone, Debug)]
pub(crate) struct NodeState {
    pub(crate) status: Status,
    pub(crate) effect: EffectNow,
    /// Steps before it that aren't done.
    pub(super) unmet: u32,
    pub(crate) round: u32,
    /// Calls of `execute`, over the run's life.
    pub(crate) attempts: u32,
    /// Calls in this round.
    pub(super) round_attempts: u32,
    /// Calls that count against `max_attempts`, since they were granted last.
    pub(super) charged: u32,
    /// When the first of them began.
    pub(super) charged_since: Option<Timestamp>,
    pub(super) last_delay: Option<Duration>,
    /// Interruptions in a row.
    pub(super) interruptions: u32,
    /// Whether the probe was asked since the last attempt.
    pub(super) probed: bool,
    /// Whether the probe is being asked now: known to this process only.
    pub(super) probing: bool,
    /// Whether it waits for a permit: known to this process only.
    pub(super) withheld: bool,
    /// Whether rule `never` hid a doubt.
    pub(crate) assumed_absent: bool,
    pub(crate) key: Option<Arc<str>>,
    /// The key of the round's undo, once that was announced: made once, too (rule K1).
    pub(crate) undo_key: Option<Arc<str>>,
    pub(crate) mapped: Vec<Value>,
    /// The round's input where an operator replaced it.
    pub(crate) edited: Option<Value>,
    /// Whether it is done by an operator's word, without having been called.
    pub(crate) skipped: bool,
    pub(crate) output: Option<Value>,
    /// How far the round's `execute` came, by its own word.
    pub(crate) progress: Option<Value>,
    /// What the step says that is done in part.
    pub(super) partial: Option<Box<PartialSuccess>>,
    pub(crate) failure: Option<Box<Failure>>,
    /// Its place in the order of completions; larger is later.
    pub(super) completed: u64,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) ended_at: Option<Timestamp>,
    pub(crate) took: Duration,
    /// The latest calls of both kinds, in order.
    pub(crate) calls: VecDeque<Call>,
    pub(super) in_region: bool,
    /// Steps that depended on it and are to be undone first.
    pub(super) blockers: u32,
    pub(crate) undo: UndoStatus,
    /// Whether an undo of this round was announced: its execute key is spent then (rule K2).
    pub(super) undo_begun: bool,
    pub(crate) undo_attempts: u32,
    pub(super) undo_charged: u32,
    pub(super) undo_since: Option<Timestamp>,
    pub(super) undo_delay: Option<Duration>,
    pub(crate) undo_failure: Option<Box<Failure>>,
}

/// One undo that has come to an end, in order.
#[derive(Clone, Debug)]
pub(crate) struct Compensation {
    pub(crate) step: StepIx,
    pub(crate) round: u32,
    pub(crate) attempts: u32,
    pub(crate) ended_at: Timestamp,
    pub(crate) took: Duration,
    /// What the effect was when it was undone.
    pub(crate) effect: EffectNow,
    /// Who said that it was undone, where no `compensate` did.
    pub(crate) by_hand: Option<String>,
    /// Nothing where it succeeded.
    pub(crate) failure: Option<Box<Failure>>,
}

/// Where a run goes once what is to be undone is undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// On, but not before this instant.
    Forward { hold: Option<Timestamp> },
    /// To the end `Compensated`.
    Compensated,
    /// To the end `Stopped`.
    Stopped,
}

/// The undoing that is under way.
#[derive(Clone, Debug)]
pub(super) struct Unwind {
    pub(super) then: Direction,
    /// Steps of the region that aren't settled.
    pub(super) remaining: u32,
    /// Undos in flight.
    pub(super) running: u32,
    /// Undos that may start: in order of readiness, or the last completed first.
    pub(super) ready: VecDeque<StepIx>,
    pub(super) latest: BinaryHeap<(u64, StepIx)>,
}

impl State {
    /// The state of a run of which nothing is known but its start.
    #[must_use]
    pub fn begin(graph: &Graph, started: &RunStarted, at: Timestamp) -> Self {
        let nodes: Vec<NodeState> = graph
            .steps
            .iter()
            .map(|step| NodeState::new(u32::try_from(step.dependencies.len()).unwrap_or(u32::MAX)))
            .collect();
        let ready = (0..nodes.len())
            .filter(|&index| nodes[index].unmet == 0)
            .map(StepIx::new)
            .collect();
        let mut state = State {
            header: Box::new(started.clone()),
            started_at: at,
            ended_at: None,
            fence: 1,
            worker: started.worker.clone(),
            deadline: started.deadline,
            deadline_reported: false,
            nodes,
            phase: Phase::Forward { hold: None },
            done: 0,
            in_flight: 0,
            probes: 0,
            ready,
            to_probe: VecDeque::new(),
            timers: BTreeSet::new(),
            idle: Vec::new(),
            failures: Vec::new(),
            time_is_up: false,
            cancel: None,
            stop: None,
            paused: None,
            abandon: None,
            tokens: Vec::new(),
            park_wanted: None,
            parked: None,
            parked_at: at,
            stood: Duration::ZERO,
            recoveries: 0,
            recoveries_total: 0,
            last_decision: None,
            unwind: Unwind {
                then: Direction::Compensated,
                remaining: 0,
                running: 0,
                ready: VecDeque::new(),
                latest: BinaryHeap::new(),
            },
            compensations: Vec::new(),
            moments: VecDeque::new(),
            completions: 0,
            end: None,
        };
        for index in 0..state.nodes.len() {
            if state.nodes[index].unmet == 0 {
                state.nodes[index].status = Status::Ready;
            }
        }
        state
    }

    pub(super) fn node(&mut self, step: StepIx) -> &mut NodeState {
        &mut self.nodes[step.at()]
    }

    pub(super) fn seen(&self, step: StepIx) -> &NodeState {
        &self.nodes[step.at()]
    }

    /// Whether the pivot is done or in doubt (rule D4).
    #[must_use]
    pub fn is_past_pivot(&self, graph: &Graph) -> bool {
        self.pivot_effect(graph) != EffectNow::NotDone
    }

    /// Whether the pivot is done for certain: then a cancel comes too late (rule C1).
    pub(super) fn is_pivot_done(&self, graph: &Graph) -> bool {
        self.pivot_effect(graph) == EffectNow::Done
    }

    /// What the point of no return has left.
    pub(super) fn pivot_effect(&self, graph: &Graph) -> EffectNow {
        let effects = self.no_return(graph).map(|node| node.effect);
        effects.max().unwrap_or(EffectNow::NotDone)
    }

    /// The steps behind which nothing goes back: the pivot. Where an operator skipped it and it left nothing,
    /// these are the steps after it that can't be undone.
    pub(super) fn no_return(&self, graph: &Graph) -> impl Iterator<Item = &NodeState> {
        let pivot = graph.pivot.map(|pivot| self.seen(pivot));
        let skipped =
            pivot.is_some_and(|pivot| pivot.skipped && pivot.effect == EffectNow::NotDone);
        let irreversible = graph
            .steps
            .iter()
            .zip(&self.nodes)
            .filter(move |(step, _)| skipped && step.kind == StepKind::Irreversible)
            .map(|(_, node)| node);
        pivot.filter(|_| !skipped).into_iter().chain(irreversible)
    }

    /// Whether the run is over.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Whether the run waits for an operator.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        self.phase == Phase::Parked
    }

    /// Whether an operator paused the run.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// Whether a step's future, or a probe's, is under way.
    #[must_use]
    pub fn has_in_flight(&self) -> bool {
        self.in_flight > 0 || self.probes > 0 || self.unwind.running > 0
    }

    /// The run's fencing token.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.fence
    }

    /// How the run stands, for the store's list. `until` is what [`decide`](Self::decide) waits for.
    #[must_use]
    pub fn standing(&self, until: Option<Timestamp>) -> Standing {
        match (&self.end, self.phase, until) {
            (Some(End::Completed { .. }), ..) => Standing::Completed,
            (Some(End::Compensated), ..) => Standing::Compensated,
            (Some(End::Stopped { .. }), ..) => Standing::Stopped,
            (Some(End::Abandoned { .. }), ..) => Standing::Abandoned,
            (None, Phase::Parked, _) => Standing::Parked,
            (None, ..) if self.paused.is_some() && !self.has_in_flight() => Standing::Paused,
            (None, _, Some(until)) if !self.has_in_flight() => Standing::Waiting { until },
            (None, ..) => Standing::Running,
        }
    }

    /// Where jitter for a step comes from: the same in every process (FNV-1a over uid and name).
    pub(super) fn seed(&self, graph: &Graph, step: StepIx) -> u64 {
        let name = &graph.step(step).name;
        let bytes = self.header.uid.bytes().chain(name.bytes());
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    pub(super) fn is_sequential(graph: &Graph) -> bool {
        graph.undo_order == UndoOrder::Sequential
    }
}

impl NodeState {
    fn new(unmet: u32) -> Self {
        NodeState {
            status: Status::Waiting,
            effect: EffectNow::NotDone,
            unmet,
            round: 1,
            attempts: 0,
            round_attempts: 0,
            charged: 0,
            charged_since: None,
            last_delay: None,
            interruptions: 0,
            probed: false,
            probing: false,
            withheld: false,
            assumed_absent: false,
            key: None,
            undo_key: None,
            mapped: Vec::new(),
            edited: None,
            skipped: false,
            output: None,
            progress: None,
            partial: None,
            failure: None,
            completed: 0,
            started_at: None,
            ended_at: None,
            took: Duration::ZERO,
            calls: VecDeque::new(),
            in_region: false,
            blockers: 0,
            undo: UndoStatus::Idle,
            undo_begun: false,
            undo_attempts: 0,
            undo_charged: 0,
            undo_since: None,
            undo_delay: None,
            undo_failure: None,
        }
    }
}

impl Feed for State {
    fn input(&self) -> &Value {
        &self.header.input
    }

    fn output(&self, step: StepIx) -> Option<&Value> {
        self.nodes
            .get(step.at())
            .and_then(|node| node.output.as_ref())
    }
}
