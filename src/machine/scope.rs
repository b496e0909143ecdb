//! One graph's part of a run: the saga itself, or a sub-saga, a fan-out, a choice of steps inside it.
//!
//! The same code folds and decides for each of them. A scope knows its own steps by their [`NodeIx`], and
//! nothing of what is around it; [`State`](super::State) joins them.

use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::failure::{Failure, PartialSuccess};
use crate::ids::Timestamp;
use crate::journal::{Decision, Parking};
use crate::machine::kept::Call;
use crate::saga::{Gathering, Graph, NodeIx, StepKind, UndoOrder};
use crate::step::{StepIx, Value};

/// The number of a scope in its run; the saga itself has 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ScopeIx(pub(crate) u32);

impl ScopeIx {
    pub(crate) const ROOT: ScopeIx = ScopeIx(0);

    pub(crate) fn at(self) -> usize {
        self.0 as usize
    }
}

/// The state of one graph.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// The step that this scope is the inside of; nothing for the saga itself.
    pub(crate) inside: Option<(ScopeIx, NodeIx)>,
    /// Whether it undoes that step, instead of being what it does.
    pub(crate) undoes: bool,
    /// The path of that step; empty for the saga itself.
    pub(crate) path: Arc<str>,
    /// The numbers of its steps in the run; empty for the saga itself, whose steps have the same number in both.
    pub(super) numbers: Vec<StepIx>,
    pub(crate) nodes: Vec<NodeState>,
    /// Items of earlier rounds that had more of them: their rounds go on counting (rule K2).
    pub(super) spare: Vec<NodeState>,
    pub(crate) phase: Phase,
    /// The round of the step that it is the inside of: in another one it begins again.
    pub(super) round: u32,
    /// When its time is up, where it is a saga inside another that has a limit of its own (rule N2).
    pub(super) deadline: Option<Timestamp>,
    /// Steps that are done.
    pub(crate) done: u32,
    /// Steps that are done because their condition spared them.
    pub(crate) passed_over: u32,
    /// Steps that failed for good, and that what is around them goes on without.
    pub(super) absorbed: u32,
    /// Steps that wait for a signal or a time.
    pub(super) awaiting: u32,
    /// Steps whose signals have come. Entries whose step has moved on are skipped.
    pub(super) answered: VecDeque<NodeIx>,
    /// Calls of `execute` that are under way.
    pub(super) in_flight: u32,
    /// Probes that are being asked.
    pub(super) probes: u32,
    /// Steps with steps of their own inside that have begun and not come to an end.
    pub(super) open: u32,
    /// Steps that may start, in the order in which they became ready. Entries whose step has moved on
    /// are skipped, so that nothing has to be searched for.
    pub(super) ready: VecDeque<NodeIx>,
    /// Steps in doubt that have a probe which wasn't asked yet. Stale entries are skipped, too.
    pub(super) to_probe: VecDeque<NodeIx>,
    /// When sleeping attempts and undos go on.
    pub(super) timers: BTreeSet<(Timestamp, NodeIx)>,
    /// Steps that failed or were dropped, to be taken up again. Stale entries are skipped, too.
    pub(super) idle: Vec<NodeIx>,
    /// Steps that failed for good since the last decision, in order.
    pub(super) failures: Vec<NodeIx>,
    /// The run has to be parked as soon as nothing is in flight.
    pub(super) park_wanted: Option<Parking>,
    pub(crate) last_decision: Option<Arc<Decision<StepIx>>>,
    pub(super) unwind: Unwind,
    /// Steps with steps inside that were settled without an undo: what is inside them is over.
    pub(super) left_inside: Vec<NodeIx>,
    pub(super) completions: u64,
    /// What was told to the scopes around it: calls under way in it and below, and scopes that have to
    /// settle something first.
    pub(super) told: Told,
    /// The sum of what the scopes inside it told.
    pub(super) below: Told,
    /// When it has something to do by itself.
    pub(super) alarm: Option<Timestamp>,
    /// Whether it is to be asked what it wants.
    pub(super) stirred: bool,
}

/// What a scope tells those around it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Calls and probes that are under way.
    pub(super) calls: u32,
    /// Scopes that have something to decide or to undo before anything around them is decided.
    pub(super) unsettled: u32,
    /// Steps that wait for a signal or a time.
    pub(super) awaiting: u32,
}

/// What a scope is doing.
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
    /// It waits for a signal, or for a time.
    Awaiting {
        until: Option<Timestamp>,
    },
    /// Its retry was dropped, or its attempt interrupted, when something else went wrong.
    Dropped,
    Done,
    /// It failed for good.
    Failed,
    /// It failed for good, and what is around it goes on without it.
    Absorbed,
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
    /// The scope of the steps inside it, once it has begun.
    pub(crate) child: Option<ScopeIx>,
    /// The scope of what undoes it as a whole, once that has begun.
    pub(crate) undoer: Option<ScopeIx>,
    /// Whether what happened inside it can't be taken back any more.
    pub(super) beyond: EffectNow,
    /// Whether it waited, and its time was up.
    pub(super) expired: bool,
    /// Whether its condition spared it: done, without having been called.
    pub(crate) passed_over: bool,
    /// Whether it was let start: its condition, if it has one, holds for what feeds it now (rule K3).
    pub(crate) let_start: bool,
    pub(crate) round: u32,
    /// Calls of `execute`, over the run's life.
    pub(crate) attempts: u32,
    /// Calls in this round.
    pub(crate) round_attempts: u32,
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

/// Where a run goes once what is to be undone is undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// On, but not before this instant.
    Forward { hold: Option<Timestamp> },
    /// To the end `Compensated`.
    Compensated,
    /// To the end `Stopped`.
    Stopped,
    /// On without the steps that were undone, which stay as they are.
    Without,
}

/// The undoing that is under way.
#[derive(Clone, Debug)]
pub(super) struct Unwind {
    pub(super) then: Direction,
    /// Steps of the region that aren't settled.
    pub(super) remaining: u32,
    /// Undos in flight, those of steps with steps of their own inside among them.
    pub(super) running: u32,
    /// How many of them these are.
    pub(super) inside: u32,
    /// Undos that may start: in order of readiness, or the last completed first.
    pub(super) ready: VecDeque<NodeIx>,
    pub(super) latest: BinaryHeap<(u64, NodeIx)>,
}

impl Scope {
    /// The state of a graph of which nothing has begun, with so many steps.
    pub(super) fn begin(
        graph: &Graph,
        steps: usize,
        inside: Option<(ScopeIx, NodeIx)>,
        path: Arc<str>,
    ) -> Self {
        let nodes: Vec<NodeState> = (0..steps)
            .map(|index| {
                let before = graph.step(NodeIx::new(index)).dependencies.len();
                NodeState::new(u32::try_from(before).unwrap_or(u32::MAX))
            })
            .collect();
        let mut scope = Scope {
            inside,
            undoes: false,
            path,
            numbers: Vec::new(),
            nodes,
            spare: Vec::new(),
            phase: Phase::Forward { hold: None },
            round: 1,
            deadline: None,
            done: 0,
            passed_over: 0,
            absorbed: 0,
            awaiting: 0,
            answered: VecDeque::new(),
            in_flight: 0,
            probes: 0,
            open: 0,
            ready: VecDeque::new(),
            to_probe: VecDeque::new(),
            timers: BTreeSet::new(),
            idle: Vec::new(),
            failures: Vec::new(),
            park_wanted: None,
            last_decision: None,
            unwind: Unwind {
                then: Direction::Compensated,
                remaining: 0,
                running: 0,
                inside: 0,
                ready: VecDeque::new(),
                latest: BinaryHeap::new(),
            },
            left_inside: Vec::new(),
            completions: 0,
            told: Told::default(),
            below: Told::default(),
            alarm: None,
            stirred: false,
        };
        for index in 0..scope.nodes.len() {
            if scope.nodes[index].unmet == 0 {
                scope.nodes[index].status = Status::Ready;
                scope.ready.push_back(NodeIx::new(index));
            }
        }
        scope
    }

    /// Begins again, with so many steps: all that was done is undone, or left nothing.
    pub(super) fn begin_again(&mut self, graph: &Graph, steps: usize) {
        self.timers.clear();
        self.ready.clear();
        self.to_probe.clear();
        self.idle.clear();
        self.failures.clear();
        self.park_wanted = None;
        self.grant_anew();
        for node in &mut self.nodes {
            node.in_region = true;
            node.undo = UndoStatus::Idle;
        }
        // First all that there were, so that nothing of them is counted any more.
        self.begin_region_anew(graph, None);
        while self.nodes.len() > steps {
            self.spare.extend(self.nodes.pop());
        }
        self.ready.retain(|step| step.at() < steps);
        while self.nodes.len() < steps {
            let step = NodeIx::new(self.nodes.len());
            let mut new = self.spare.pop().unwrap_or_else(|| NodeState::new(0));
            new.status = Status::Ready;
            self.nodes.push(new);
            self.ready.push_back(step);
        }
    }

    pub(super) fn node(&mut self, step: NodeIx) -> &mut NodeState {
        &mut self.nodes[step.at()]
    }

    pub(crate) fn seen(&self, step: NodeIx) -> &NodeState {
        &self.nodes[step.at()]
    }

    /// All steps, by their numbers in the graph.
    pub(crate) fn steps(&self) -> impl Iterator<Item = NodeIx> + use<> {
        (0..self.nodes.len()).map(NodeIx::new)
    }

    /// The number of a step in the run.
    pub(crate) fn number(&self, step: NodeIx) -> StepIx {
        match self.numbers.get(step.at()) {
            Some(number) => *number,
            None => StepIx(step.0),
        }
    }

    /// What the point of no return has left.
    pub(super) fn pivot_effect(&self, graph: &Graph) -> EffectNow {
        let effects = self.no_return(graph).map(NodeState::irrevocable);
        effects.max().unwrap_or(EffectNow::NotDone)
    }

    /// Whether the pivot is done or in doubt (rule D4).
    pub(super) fn is_past_pivot(&self, graph: &Graph) -> bool {
        self.pivot_effect(graph) != EffectNow::NotDone
    }

    /// Whether the pivot is done for certain: then a cancel comes too late (rule C1).
    pub(super) fn is_pivot_done(&self, graph: &Graph) -> bool {
        self.pivot_effect(graph) == EffectNow::Done
    }

    /// The steps behind which nothing goes back: the pivot. Where an operator skipped it and it left nothing,
    /// these are the steps after it that can't be undone.
    pub(super) fn no_return(&self, graph: &Graph) -> impl Iterator<Item = &NodeState> {
        let pivot = graph.pivot.map(|pivot| self.seen(pivot));
        let skipped =
            pivot.is_some_and(|pivot| pivot.skipped && pivot.effect == EffectNow::NotDone);
        let irreversible = self
            .steps()
            .filter(move |&step| skipped && graph.step(step).kind == StepKind::Irreversible)
            .map(|step| self.seen(step));
        pivot.filter(|_| !skipped).into_iter().chain(irreversible)
    }

    /// Whether all its steps that are needed are done, so that its output can be made.
    pub(super) fn is_complete(&self, graph: &Graph) -> bool {
        let done = match graph.gathers {
            Gathering::Saga => self.done as usize == self.nodes.len(),
            Gathering::Each { .. } => (self.done + self.absorbed) as usize == self.nodes.len(),
            Gathering::Fallback | Gathering::Race => self.done > 0,
        };
        matches!(self.phase, Phase::Forward { .. }) && done && !self.has_in_flight()
    }

    /// The step whose output is that of a choice.
    pub(crate) fn chosen(&self) -> Option<NodeIx> {
        let done = self
            .steps()
            .filter(|&step| self.seen(step).status == Status::Done);
        done.min_by_key(|&step| self.seen(step).completed)
    }

    /// Whether a step that has just failed for good is one that the rest goes on without.
    pub(super) fn absorbs(&self, graph: &Graph) -> bool {
        let most = match graph.gathers {
            Gathering::Each {
                tolerate: Some(tolerate),
                ..
            } => tolerate.of(self.nodes.len()),
            Gathering::Race => self.nodes.len().saturating_sub(1),
            Gathering::Saga | Gathering::Each { tolerate: None, .. } | Gathering::Fallback => 0,
        };
        (self.absorbed as usize) < most
    }

    /// Whether no more steps may begin, of those that are bounded.
    pub(super) fn is_full(&self, graph: &Graph) -> bool {
        graph.most_at_once().is_some_and(|most| {
            let sleeping = u32::try_from(self.undo_timers().count()).unwrap_or(u32::MAX);
            self.in_flight + self.open + self.awaiting + sleeping >= most
        })
    }

    /// The same of undos. One that waits for its next attempt is under way.
    pub(super) fn is_full_of_undos(&self, graph: &Graph) -> bool {
        graph.most_at_once().is_some_and(|most| {
            let sleeping = u32::try_from(self.undo_timers().count()).unwrap_or(u32::MAX);
            self.unwind.running + self.probes + sleeping >= most
        })
    }

    /// Whether it has undone the step that it belongs to.
    pub(crate) fn has_undone(&self) -> bool {
        self.undoes && self.phase == Phase::Ended
    }

    /// Whether it is being undone and nothing more can be done about it.
    pub(super) fn is_stuck(&self) -> bool {
        let nothing_comes = self.unwind.ready.is_empty()
            && self.unwind.latest.is_empty()
            && self.undo_timers().next().is_none()
            && self.unwind.running == 0
            && self.probes == 0;
        self.phase == Phase::Unwinding && self.unwind.remaining > 0 && nothing_comes
    }

    /// When undos that failed are tried again. Steps that wait have timers, too, which mean nothing here.
    pub(super) fn undo_timers(&self) -> impl Iterator<Item = (Timestamp, NodeIx)> {
        let timers = self.timers.iter().copied();
        timers.filter(|(_, step)| !matches!(self.seen(*step).status, Status::Awaiting { .. }))
    }

    /// Whether a step's future, or a probe's, is under way, here or further inside.
    pub(super) fn has_in_flight(&self) -> bool {
        self.calls() + self.below.calls > 0
    }

    /// Calls and probes that are under way here.
    pub(super) fn calls(&self) -> u32 {
        self.in_flight + self.probes + self.unwind.running - self.unwind.inside
    }

    /// Whether a region that was being unwound still has something to undo.
    pub(super) fn is_half_undone(&self, graph: &Graph) -> bool {
        self.steps()
            .any(|step| self.seen(step).in_region && self.wants_undo(graph, step))
    }

    pub(super) fn is_sequential(graph: &Graph) -> bool {
        graph.undo_order == UndoOrder::Sequential
    }
}

impl NodeState {
    pub(crate) fn new(unmet: u32) -> Self {
        NodeState {
            status: Status::Waiting,
            effect: EffectNow::NotDone,
            unmet,
            child: None,
            undoer: None,
            beyond: EffectNow::NotDone,
            expired: false,
            passed_over: false,
            let_start: false,
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

impl NodeState {
    /// What stands that can't be taken back: of a step with steps inside, what its own point of no return left.
    pub(super) fn irrevocable(&self) -> EffectNow {
        if self.child.is_some() {
            self.beyond
        } else {
            self.effect
        }
    }
}
