//! Undoing: what is undone, in which order, and what comes after.
//!
//! A region of the graph is unwound from its ends: a step is settled once all steps of the region that
//! depend on it are. Steps without an effect are settled at once, so that the order holds through them
//! (rule U1).

use std::time::Duration;

use crate::failure::Failure;
use crate::ids::Timestamp;
use crate::machine::kept::CallEnded;
use crate::machine::scope::{
    Direction, EffectNow, NodeState, Phase, Scope, ScopeIx, Status, UndoStatus,
};
use crate::machine::state::{Compensation, State};
use crate::saga::{Gathering, Graph, NodeIx, StepKind, UndoRule};
use crate::step::{Probed, Value};

impl NodeState {
    /// The round is over, and its key with it (rule K2).
    pub(super) fn next_round(&mut self) {
        self.round += 1;
        self.round_attempts = 0;
        self.undo_begun = false;
        self.key = None;
        self.undo_key = None;
        self.mapped.clear();
        self.let_start = false;
        self.edited = None;
        self.skipped = false;
        self.output = None;
        self.progress = None;
        self.partial = None;
    }
}

impl Scope {
    /// Whether the step's round has, or may have, an effect that has to be undone.
    pub(super) fn wants_undo(&self, graph: &Graph, step: NodeIx) -> bool {
        let (node, definition) = (self.seen(step), graph.step(step));
        match definition.kind {
            StepKind::ReadOnly => false,
            // Past the pivot nothing is unwound; a doubt that has to be settled can't be here.
            StepKind::Irreversible => node.effect != EffectNow::NotDone,
            StepKind::Compensatable => match (node.effect, definition.undo_rule) {
                (EffectNow::Done, _)
                | (EffectNow::InDoubt, UndoRule::InDoubt | UndoRule::Always) => true,
                (EffectNow::NotDone, UndoRule::Always) => node.round_attempts > 0,
                (EffectNow::InDoubt | EffectNow::NotDone, _) => false,
            },
        }
    }

    /// Unwinds the steps that `region` names, then goes on with `then`.
    pub(super) fn unwind_region(
        &mut self,
        graph: &Graph,
        region: impl Fn(&Scope, NodeIx) -> bool,
        then: Direction,
    ) {
        let steps: Vec<NodeIx> = (0..self.nodes.len())
            .map(NodeIx::new)
            .filter(|&step| region(self, step))
            .collect();
        self.unwind_steps(graph, &steps, then);
    }

    /// A graceful stop keeps what is done and settles what is in doubt (rules E7, F5).
    pub(super) fn unwind_doubts(&mut self, graph: &Graph) {
        // What is inside a step settles its own doubts.
        let in_doubt = |scope: &Scope, step: NodeIx| {
            scope.seen(step).effect == EffectNow::InDoubt && graph.step(step).inside().is_none()
        };
        self.unwind_region(graph, in_doubt, Direction::Stopped);
    }

    fn unwind_steps(&mut self, graph: &Graph, steps: &[NodeIx], then: Direction) {
        self.phase = Phase::Unwinding;
        // An undo that slept when the run was parked begins afresh: its timer must not ring for it again.
        self.keep_waits_only();
        for step in self.steps() {
            let under_way = self.is_undoing(graph, step);
            if !under_way && self.seen(step).undo == UndoStatus::Running {
                // What is inside it is undone from its end once more.
                self.undo_over(graph, step);
            }
            let node = self.node(step);
            node.in_region = false;
            if !under_way {
                node.undo = UndoStatus::Idle;
            }
        }
        for &step in steps {
            self.node(step).in_region = true;
        }
        self.unwind.then = then;
        self.unwind.remaining = u32::try_from(steps.len()).unwrap_or(u32::MAX);
        self.unwind.ready.clear();
        self.unwind.latest.clear();
        let mut free = Vec::new();
        for &step in steps {
            let dependents = &graph.step(step).dependents;
            let blockers = dependents
                .iter()
                .filter(|dependent| self.seen(**dependent).in_region)
                .count();
            self.node(step).blockers = u32::try_from(blockers).unwrap_or(u32::MAX);
            if blockers == 0 {
                free.push(step);
            }
        }
        self.settle(graph, free);
    }

    /// Drops all timers but those of steps that wait, which go on whatever happens beside them.
    fn keep_waits_only(&mut self) {
        let mut timers = std::mem::take(&mut self.timers);
        timers.retain(|(_, step)| matches!(self.seen(*step).status, Status::Awaiting { .. }));
        self.timers = timers;
    }

    /// Whether the step's `compensate` is being called. A sub-saga may be undoing itself when what is around it
    /// is undone, too: then the call that is under way is not made a second time.
    fn is_undoing(&self, graph: &Graph, step: NodeIx) -> bool {
        self.seen(step).undo == UndoStatus::Running && graph.step(step).inside().is_none()
    }

    /// Settles steps that nothing in the region depends on any more: those with an effect are to be
    /// undone, the others are done with, which may free what they depend on.
    fn settle(&mut self, graph: &Graph, mut free: Vec<NodeIx>) {
        while let Some(step) = free.pop() {
            if self.wants_undo(graph, step) {
                if !self.is_undoing(graph, step) {
                    self.undo_ready(graph, step);
                }
                continue;
            }
            if self.seen(step).effect == EffectNow::InDoubt {
                // Rule `never` asserts that nothing is there; it is said so in the outcome.
                let node = self.node(step);
                node.effect = EffectNow::NotDone;
                node.assumed_absent = true;
            }
            if self.seen(step).child.is_some() {
                self.left_inside.push(step);
            }
            self.settled(graph, step, &mut free);
        }
    }

    fn settled(&mut self, graph: &Graph, step: NodeIx, free: &mut Vec<NodeIx>) {
        self.unwind.remaining = self.unwind.remaining.saturating_sub(1);
        for &before in &graph.step(step).dependencies {
            let node = self.node(before);
            if node.in_region {
                node.blockers = node.blockers.saturating_sub(1);
                if node.blockers == 0 {
                    free.push(before);
                }
            }
        }
    }

    /// A probe said that there is nothing to undo.
    pub(super) fn settle_without_undo(&mut self, graph: &Graph, step: NodeIx) {
        self.node(step).undo = UndoStatus::Idle;
        self.settle(graph, vec![step]);
    }

    pub(super) fn undo_ready(&mut self, graph: &Graph, step: NodeIx) {
        let inside = self.seen(step).child.is_some();
        let irrevocable = !inside || self.seen(step).beyond != EffectNow::NotDone;
        if graph.step(step).kind == StepKind::Irreversible && irrevocable {
            // It can't be undone, so the run will be parked with it; a probe may still settle it.
            let asks = graph.step(step).probed && self.wants_probe(step);
            if !asks {
                return;
            }
        }
        let completed = self.seen(step).completed;
        self.node(step).undo = UndoStatus::Ready;
        if Scope::is_sequential(graph) {
            self.unwind.latest.push((completed, step));
        } else {
            self.unwind.ready.push_back(step);
        }
    }

    /// The undo that comes next, if one may start now.
    pub(super) fn next_undo(&self, graph: &Graph, now: Timestamp) -> Option<NodeIx> {
        let mut timers = self.undo_timers();
        let due = timers.next().filter(|(until, _)| *until <= now);
        if let Some((_, step)) = due {
            return Some(step);
        }
        if Scope::is_sequential(graph) {
            // One by one: an undo that waits for its retry holds the others up.
            let busy =
                self.unwind.running > 0 || self.probes > 0 || self.undo_timers().next().is_some();
            return self
                .unwind
                .latest
                .peek()
                .filter(|_| !busy)
                .map(|(_, step)| *step);
        }
        let next = self.unwind.ready.front().copied();
        next.filter(|_| !self.is_full_of_undos(graph))
    }

    /// The coordinator has taken the step out of the queue, to undo or to probe it.
    pub(super) fn undo_taken(&mut self, step: NodeIx) {
        if let UndoStatus::Sleeping { until } = self.seen(step).undo {
            self.timers.remove(&(until, step));
        }
        if self.unwind.ready.front() == Some(&step) {
            self.unwind.ready.pop_front();
        }
        if self
            .unwind
            .latest
            .peek()
            .is_some_and(|(_, latest)| *latest == step)
        {
            self.unwind.latest.pop();
        }
    }

    pub(super) fn undo_started(&mut self, step: NodeIx, inside: bool, at: Timestamp) {
        self.undo_taken(step);
        let node = self.node(step);
        if inside {
            // What was under way in it is over.
            node.call_ends(CallEnded::Interrupted, 0, at);
        }
        node.undo = UndoStatus::Running;
        node.undo_begun = true;
        node.undo_attempts += 1;
        node.undo_charged += 1;
        node.undo_since.get_or_insert(at);
        node.call_begins(true, at);
        self.unwind.running += 1;
        self.unwind.inside += u32::from(inside);
    }

    pub(super) fn undo_over(&mut self, graph: &Graph, step: NodeIx) {
        self.node(step).undo = UndoStatus::Idle;
        self.unwind.running = self.unwind.running.saturating_sub(1);
        if graph.step(step).inside().is_some() {
            self.unwind.inside = self.unwind.inside.saturating_sub(1);
        }
    }

    pub(super) fn undone(
        &mut self,
        graph: &Graph,
        step: NodeIx,
        took: Duration,
        at: Timestamp,
    ) -> Compensation {
        self.undo_over(graph, step);
        self.leaves(step);
        let node = self.node(step);
        node.call_ends(CallEnded::Done, micros(took), at);
        let number = self.number(step);
        let node = self.node(step);
        let record = Compensation {
            step: number,
            round: node.round,
            attempts: node.undo_attempts,
            ended_at: at,
            took,
            effect: node.effect,
            by_hand: None,
            failure: None,
        };
        node.status = Status::Undone;
        node.effect = EffectNow::NotDone;
        node.beyond = EffectNow::NotDone;
        node.interruptions = 0;
        node.undo_failure = None;
        node.next_round();
        let mut free = Vec::new();
        self.settled(graph, step, &mut free);
        self.settle(graph, free);
        record
    }

    pub(super) fn undo_failed(
        &mut self,
        graph: &Graph,
        step: NodeIx,
        failure: &Failure,
        retry_at: Option<Timestamp>,
        took: Duration,
        at: Timestamp,
    ) -> Option<Compensation> {
        self.undo_over(graph, step);
        let node = self.node(step);
        node.interruptions = 0;
        node.undo_failure = Some(Box::new(failure.clone()));
        let end = CallEnded::Failed {
            failure: Box::new(failure.clone()),
            retry_at,
        };
        node.call_ends(end, micros(took), at);
        if let Some(until) = retry_at {
            node.undo_delay = Some(until.since(at));
            node.undo = UndoStatus::Sleeping { until };
            self.timers.insert((until, step));
            return None;
        }
        node.undo = UndoStatus::Failed;
        let number = self.number(step);
        let node = self.node(step);
        let record = Compensation {
            step: number,
            round: node.round,
            attempts: node.undo_attempts,
            ended_at: at,
            took,
            effect: node.effect,
            by_hand: None,
            failure: Some(Box::new(failure.clone())),
        };
        Some(record)
    }

    /// An operator undid the step of a parked run by hand. What was read from its output is read again.
    pub(super) fn undone_by_hand(
        &mut self,
        graph: &Graph,
        step: NodeIx,
        by: &str,
        at: Timestamp,
    ) -> Compensation {
        let after = self.descendants(graph, step);
        self.leaves(step);
        self.failures.retain(|&failed| failed != step);
        let number = self.number(step);
        let node = self.node(step);
        let record = Compensation {
            step: number,
            round: node.round,
            attempts: node.undo_attempts,
            ended_at: at,
            took: Duration::ZERO,
            effect: node.effect,
            by_hand: Some(by.to_owned()),
            failure: None,
        };
        node.status = Status::Undone;
        node.effect = EffectNow::NotDone;
        node.undo = UndoStatus::Idle;
        node.undo_failure = None;
        node.interruptions = 0;
        node.next_round();
        if self.phase == Phase::Unwinding && self.seen(step).in_region {
            // The undoing inside a step of a parked run: it goes on where this was, once somebody lets it.
            let mut free = Vec::new();
            self.settled(graph, step, &mut free);
            self.settle(graph, free);
            return record;
        }
        for &step in &after {
            // Nothing that has an effect is among them.
            if self.seen(step).status == Status::Done {
                self.begin_anew(graph, step);
            }
        }
        for step in after.into_iter().chain([step]) {
            let unmet = self.unmet(graph, step);
            self.node(step).unmet = unmet;
            if unmet > 0 {
                // What waits begins to wait anew once that is done again.
                self.stop_waiting(step);
                self.node(step).status = Status::Waiting;
            }
        }
        if self.seen(step).unmet == 0 {
            self.set_idle(step, Status::Undone);
        }
        self.leave_region(graph);
        record
    }

    /// An operator's word about a doubt of a parked run.
    pub(super) fn resolved(&mut self, graph: &Graph, step: NodeIx, answer: &Probed<Value>) {
        self.probed(graph, step, answer);
        if *answer == Probed::Never {
            let node = self.node(step);
            node.undo = UndoStatus::Idle;
            node.undo_failure = None;
            self.leave_region(graph);
        }
    }

    /// Where operators have settled by hand all that a parked run still had to undo, its steps begin anew as
    /// they do after any undoing: what was undone runs again, in new rounds, once somebody lets the run go on.
    fn leave_region(&mut self, graph: &Graph) {
        if self.phase != Phase::Parked || self.is_half_undone(graph) {
            return;
        }
        self.keep_waits_only();
        let region: Vec<(NodeIx, Status)> = (0..self.nodes.len())
            .map(NodeIx::new)
            .filter(|&step| self.seen(step).in_region)
            .map(|step| (step, self.seen(step).status))
            .collect();
        for &(step, _) in &region {
            self.begin_anew(graph, step);
            self.node(step).undo = UndoStatus::Idle;
        }
        for (step, was) in region {
            let unmet = self.unmet(graph, step);
            self.node(step).unmet = unmet;
            match was {
                _ if unmet > 0 => {}
                Status::Undone | Status::Failed | Status::Dropped | Status::Stopped => {
                    self.set_idle(step, was);
                }
                Status::Waiting
                | Status::Ready
                | Status::Running
                | Status::Sleeping { .. }
                | Status::Awaiting { .. }
                | Status::Absorbed
                | Status::Done => {
                    self.node(step).status = Status::Ready;
                    self.ready.push_back(step);
                }
            }
        }
    }

    fn unmet(&self, graph: &Graph, step: NodeIx) -> u32 {
        let before = graph.step(step).dependencies.iter();
        let unmet = before.filter(|before| self.seen(**before).status != Status::Done);
        u32::try_from(unmet.count()).unwrap_or(u32::MAX)
    }

    /// Undos that failed or wait for their retry are tried again, with their attempts granted anew.
    pub(super) fn retry_undos(&mut self, graph: &Graph) {
        for index in 0..self.nodes.len() {
            let step = NodeIx::new(index);
            let node = self.node(step);
            node.undo_charged = 0;
            node.undo_since = None;
            node.undo_delay = None;
            match node.undo {
                UndoStatus::Sleeping { until } => {
                    self.timers.remove(&(until, step));
                    self.undo_ready(graph, step);
                }
                UndoStatus::Failed => self.undo_ready(graph, step),
                UndoStatus::Idle | UndoStatus::Ready | UndoStatus::Running => {}
            }
        }
    }

    /// The region is settled and the graph goes forward: its steps begin anew.
    pub(super) fn begin_region_anew(&mut self, graph: &Graph, hold: Option<Timestamp>) {
        let region: Vec<NodeIx> = self
            .steps()
            .filter(|&step| self.seen(step).in_region)
            .collect();
        for &step in &region {
            self.begin_anew(graph, step);
        }
        let mut ready = Vec::new();
        for &step in &region {
            let unmet = self.unmet(graph, step);
            let node = self.node(step);
            node.unmet = unmet;
            node.status = Status::Waiting;
            if unmet == 0 {
                node.status = Status::Ready;
                ready.push(step);
            }
        }
        self.phase = Phase::Forward { hold };
        for step in ready {
            self.in_doubt_again(graph, step);
        }
        self.go_forward(graph, hold);
    }

    /// What was undone stays out of it, and what comes instead may start.
    fn go_on_without(&mut self, graph: &Graph) {
        for step in self.steps() {
            if std::mem::take(&mut self.node(step).in_region) {
                self.leaves(step);
                self.node(step).status = Status::Absorbed;
                self.absorbed += 1;
            }
        }
        self.phase = Phase::Forward { hold: None };
        if graph.gathers == Gathering::Fallback {
            let next = self
                .steps()
                .find(|&step| self.seen(step).status == Status::Waiting);
            if let Some(next) = next {
                self.node(next).status = Status::Ready;
                self.ready.push_back(next);
            }
        }
        self.go_forward(graph, None);
    }

    /// The step's effect was undone by something else.
    pub(super) fn is_undone(&mut self, step: NodeIx) {
        if self.seen(step).effect == EffectNow::NotDone {
            return;
        }
        self.leaves(step);
        let node = self.node(step);
        node.status = Status::Undone;
        node.effect = EffectNow::NotDone;
        node.beyond = EffectNow::NotDone;
        node.next_round();
    }

    /// The step is not any more what it was, as far as it was counted.
    fn leaves(&mut self, step: NodeIx) {
        match self.seen(step).status {
            Status::Done => self.done -= 1,
            Status::Absorbed => self.absorbed -= 1,
            // Calls are never under way here: it is a step with steps inside.
            Status::Running => self.open = self.open.saturating_sub(1),
            Status::Awaiting { .. } => self.stop_waiting(step),
            _ => {}
        }
        if std::mem::take(&mut self.node(step).passed_over) {
            self.passed_over -= 1;
        }
    }

    fn begin_anew(&mut self, graph: &Graph, step: NodeIx) {
        let was_done = self.seen(step).status == Status::Done;
        self.leaves(step);
        if was_done {
            self.node(step).output = None;
        }
        let node = self.node(step);
        node.in_region = false;
        // What feeds it may have been undone: a `map` is asked again, its condition, too, and it is not
        // underway any more.
        node.mapped.clear();
        node.let_start = false;
        node.progress = None;
        // A skip holds until the run begins anew.
        node.skipped = false;
        let read_only = graph.step(step).kind == StepKind::ReadOnly;
        let begun_inside = graph.step(step).inside().is_some() && node.round_attempts > 0;
        if read_only && (was_done || begun_inside) {
            // A read-only step that runs again does so in a new round (rule K2).
            node.effect = EffectNow::NotDone;
            node.next_round();
        } else if node.undo_begun {
            // Its undo was called and failed, and then somebody said that nothing was there: what the
            // undo did may have the participant refuse the old key for ever (rule K2).
            node.next_round();
        }
        // So that its dependents see it as not done, whichever is looked at first.
        node.status = Status::Waiting;
    }
}

impl State {
    /// The region of a scope is settled: where it goes forward, it does so now.
    pub(super) fn after_unwinding(&mut self, graph: &Graph, ix: ScopeIx) {
        let then = self.scope(ix).unwind.then;
        let cancelled = ix == ScopeIx::ROOT && self.is_cancelled();
        let scope = &mut self.scopes[ix.at()];
        match then {
            // It would be undone at once: the decision about the cancel comes first.
            Direction::Forward { .. } if cancelled && !scope.is_pivot_done(graph) => {}
            Direction::Forward { hold } => {
                scope.begin_region_anew(graph, hold);
                self.stir_inside(ix);
            }
            Direction::Without => scope.go_on_without(graph),
            Direction::Compensated | Direction::Stopped => {}
        }
    }

    /// Undos that failed or wait are tried again, wherever they are.
    pub(super) fn retry_all_undos(&mut self, root: &Graph) {
        for index in 0..self.scopes.len() {
            let ix = ScopeIx(u32::try_from(index).unwrap_or(u32::MAX));
            if index == 0 || self.scope(ix).phase == Phase::Unwinding {
                let graph = self.graph_of(root, ix);
                self.scopes[index].retry_undos(graph);
                self.after(root, ix);
            }
        }
    }
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}
