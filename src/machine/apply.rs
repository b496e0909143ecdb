//! Folding one event into the state.

use std::sync::Arc;
use std::time::Duration;

use crate::failure::{FailedEffect, Failure};
use crate::ids::Timestamp;
use crate::journal::{CancelTold, Event, ParkReason, Parking};
use crate::machine::kept::CallEnded;
use crate::machine::scope::{
    Direction, EffectNow, Phase, Scope, ScopeIx, Status, Told, UndoStatus,
};
use crate::machine::state::{Cancel, Paused, Place, State};
use crate::saga::{Graph, NodeIx, StepKind};
use crate::step::{Probed, StepIx, Value};

/// So many interruptions of one step in a row park the run (rule F3).
const INTERRUPTIONS: u32 = 3;

impl State {
    /// Folds one event that happened at `at`.
    ///
    /// Events have to be those that [`decide`](Self::decide) and the like produced, in their order. What a
    /// journal of another graph would do is undefined but safe: nothing panics.
    pub fn apply(&mut self, graph: &Graph, event: &Event<StepIx>, at: Timestamp) {
        self.keep_moment(event, at);
        let scope = match event.step() {
            Some(step) => {
                let place = self.place(graph, step);
                self.apply_to_step(graph, place, event, at);
                let node = self.scope(place.scope).seen(place.step);
                for inside in [node.child, node.undoer].into_iter().flatten() {
                    // What it tells depends on the step around it.
                    self.account(graph, inside);
                }
                place.scope
            }
            None => self.apply_to_run(graph, event, at),
        };
        self.after(graph, scope);
    }

    /// Folds an event that is about one step.
    fn apply_to_step(
        &mut self,
        root: &Graph,
        place: Place<'_>,
        event: &Event<StepIx>,
        at: Timestamp,
    ) {
        let Place {
            scope: ix,
            step,
            graph,
        } = place;
        let scope = &mut self.scopes[ix.at()];
        match event {
            Event::StepStarted {
                round,
                key,
                mapped,
                items,
                ..
            } => {
                let node = scope.node(step);
                node.round = *round;
                node.let_start = true;
                node.key = Some(key.clone());
                node.mapped.clone_from(mapped);
                match graph.step(step).inside() {
                    None => scope.step_started(step, at),
                    Some(inside) => {
                        scope.opened(step, at);
                        self.open(root, place, inside, *items, at);
                    }
                }
            }
            Event::StepDone {
                output,
                partial,
                asks,
                took_us,
                ..
            } => {
                scope.attempt_over(graph, step, CallEnded::Done, *took_us, at);
                scope.now_done(graph, step, output.clone());
                if let Some(part) = partial {
                    scope.did_part(graph, step, part, *asks);
                }
                self.close_all(root, ix, step);
            }
            Event::StepFailed {
                failure,
                retry_at,
                took_us,
                ..
            } => {
                let end = CallEnded::Failed {
                    failure: failure.clone(),
                    retry_at: *retry_at,
                };
                scope.attempt_over(graph, step, end, *took_us, at);
                if let Some(inside) = graph.step(step).inside()
                    && !self.leaves_the_decision(ix, step, inside)
                {
                    // It has undone itself, and is one failed step (rule N1).
                    self.scopes[ix.at()].undone_inside(step);
                    self.close_all(root, ix, step);
                }
                self.scopes[ix.at()].step_failed(graph, step, failure, *retry_at, at);
            }
            Event::StepStopped {
                reason, took_us, ..
            } => {
                scope.attempt_over(graph, step, CallEnded::Stopped, *took_us, at);
                // An end like any other: an earlier doubt is undone by when its round came to an end.
                scope.completions += 1;
                let completed = scope.completions;
                scope.node(step).completed = completed;
                // An operator may let the run go on all the same.
                scope.set_idle(step, Status::Stopped);
                scope.in_doubt_again(graph, step);
                scope.drain(graph);
                self.stop.get_or_insert_with(|| reason.clone());
                self.drain_root(root);
            }
            Event::StepInterrupted { took_us, .. } => {
                scope.attempt_over(graph, step, CallEnded::Interrupted, *took_us, at);
                scope.interrupted(graph, step);
            }
            Event::Progress { value, .. } => scope.node(step).progressed(value),
            Event::StepNotStarted { .. } => scope.step_not_started(graph, step),
            Event::PassedOver { .. } => scope.pass_over(graph, step),
            Event::WaitBegan { round, until, .. } => {
                self.wait_began(ix, step, *round, *until, at);
            }
            Event::WaitOver {
                expired,
                output,
                failure,
                ..
            } => {
                self.wait_over(ix, step, *expired, at);
                let scope = &mut self.scopes[ix.at()];
                match (output, failure) {
                    (_, Some(failure)) => scope.step_failed(graph, step, failure, None, at),
                    (output, None) => {
                        let output = output.clone().unwrap_or_else(Value::null);
                        scope.now_done(graph, step, output);
                    }
                }
            }
            Event::Probed { answer, .. } => {
                if std::mem::take(&mut scope.node(step).probing) {
                    scope.probes -= 1;
                }
                scope.probed(graph, step, answer);
                self.go_on_if_nothing_is_wrong(graph, ix);
            }
            Event::UndoStarted { key, .. } => {
                scope.node(step).undo_key = Some(key.clone());
                let inside = graph.step(step).inside();
                let done = scope.seen(step).status == Status::Done;
                scope.undo_started(step, inside.is_some(), at);
                if let Some(undo) = graph.step(step).undone_by().filter(|_| done) {
                    self.open_undo(root, place, undo);
                } else if let (Some(inside), Some(child)) = (inside, scope.seen(step).child) {
                    let all = |_: &Scope, _: NodeIx| true;
                    let then = Direction::Compensated;
                    // An undo that had been given up has its attempts anew where this one is tried again.
                    self.scopes[child.at()].grant_anew();
                    self.scopes[child.at()].unwind_region(inside, all, then);
                    self.after(root, child);
                }
            }
            Event::Undone { took_us, .. } => {
                let took = Duration::from_micros(*took_us);
                let undoer = scope.seen(step).undoer;
                let active = undoer.filter(|undoer| self.scope(*undoer).phase != Phase::Ended);
                if let (Some(undoer), Some(child)) = (active, self.scope(ix).seen(step).child) {
                    self.scopes[undoer.at()].phase = Phase::Ended;
                    self.all_undone(child);
                }
                let record = self.scopes[ix.at()].undone(graph, step, took, at);
                self.compensations.push(record);
                self.close_all(root, ix, step);
            }
            Event::UndoFailed {
                failure,
                retry_at,
                took_us,
                ..
            } => {
                let took = Duration::from_micros(*took_us);
                let record = scope.undo_failed(graph, step, failure, *retry_at, took, at);
                let undoer = scope.seen(step).undoer;
                self.compensations.extend(record);
                if let Some(undoer) = undoer {
                    // It has undone itself, and begins again when the undo is tried again.
                    self.scopes[undoer.at()].phase = Phase::Ended;
                }
            }
            Event::UndoNotStarted { .. } => {
                let node = scope.node(step);
                node.undo_attempts = node.undo_attempts.saturating_sub(1);
                node.undo_charged = node.undo_charged.saturating_sub(1);
                node.call_forgotten();
                scope.undo_over(graph, step);
                scope.undo_ready(graph, step);
            }
            Event::Resolved { answer, .. } => scope.resolved(graph, step, answer),
            Event::InputEdited { round, input, .. } => scope.input_edited(step, *round, input),
            Event::Skipped { effect, output, .. } => scope.skipped(graph, step, *effect, output),
            Event::MarkedCompensated { by, .. } => {
                let record = scope.undone_by_hand(graph, step, by, at);
                self.compensations.push(record);
            }
            // The others are about no step.
            _ => {}
        }
    }

    /// Folds an event that is about the run, or about one of its scopes; says which.
    fn apply_to_run(&mut self, graph: &Graph, event: &Event<StepIx>, at: Timestamp) -> ScopeIx {
        match event {
            Event::Claimed { fence, worker } => {
                self.worker = Arc::from(worker.as_str());
                self.claimed(graph, *fence, at);
            }
            Event::Decided(decision) => return self.decided(graph, decision, at),
            Event::CancelRequested { by, reason, told } => {
                self.cancel_requested(graph, by, reason, *told, at);
            }
            Event::CancelTooLate => {
                if let Some(cancel) = &mut self.cancel {
                    cancel.told = CancelTold::TooLate;
                    cancel.pending = false;
                }
                self.go_on_if_nothing_is_wrong(graph, ScopeIx::ROOT);
            }
            Event::DeadlinePassed { past_pivot } => {
                self.deadline_reported = true;
                self.time_is_up = !past_pivot;
                if *past_pivot {
                    self.go_on_if_nothing_is_wrong(graph, ScopeIx::ROOT);
                } else {
                    self.drain_root(graph);
                }
            }
            Event::Signalled(signalled) => return self.signalled(graph, signalled),
            Event::Commanded { token } => self.tokens.push(token.clone()),
            Event::UndosRetried { .. } => {
                // An operator's retry resets the count of recoveries (rule D6).
                self.recoveries = 0;
                self.retry_all_undos(graph);
            }
            Event::Paused { by, reason } => {
                self.paused = Some(Paused {
                    by: by.clone(),
                    reason: reason.clone(),
                    at,
                });
            }
            Event::Resumed { .. } => self.leave_pause(at),
            Event::AbandonRequested { by, reason } => {
                self.abandon
                    .get_or_insert_with(|| (by.clone(), reason.clone()));
            }
            Event::Parked(parking) => {
                // A changed definition parks a run out of the blue: a retry that sleeps is dropped then, else
                // whoever lets the run go on clears its timer, and nothing takes it up.
                self.drain_root(graph);
                // Parked is more than paused: whoever lets the run go on ends both.
                self.leave_pause(at);
                self.parked = Some((**parking).clone());
                self.parked_at = at;
                self.root_mut().park_wanted = None;
                self.root_mut().phase = Phase::Parked;
            }
            Event::Ended(end) => {
                self.end = Some(end.clone());
                self.ended_at = Some(at);
                self.drop_all_waits(graph);
                self.root_mut().phase = Phase::Ended;
                self.leave_what_is_open(at);
            }
            // The state began with the start, and was brought to another definition before the migration; the
            // others are about a step.
            _ => {}
        }
        ScopeIx::ROOT
    }

    /// The run has ended: steps whose insides came to no end are not under way any more.
    fn leave_what_is_open(&mut self, at: Timestamp) {
        for index in 1..self.scopes.len() {
            let Some((around, step)) = self.scopes[index].inside else {
                continue;
            };
            let node = self.scopes[around.at()].node(step);
            if node.status == Status::Running {
                node.status = Status::Dropped;
                node.call_ends(CallEnded::Interrupted, 0, at);
            }
        }
    }

    pub(super) fn root_mut(&mut self) -> &mut Scope {
        &mut self.scopes[0]
    }

    /// What every change of a scope means for those around it.
    pub(super) fn after(&mut self, root: &Graph, ix: ScopeIx) {
        let graph = self.graph_of(root, ix);
        for step in std::mem::take(&mut self.scopes[ix.at()].left_inside) {
            self.close_all(root, ix, step);
        }
        if self.scope(ix).phase == Phase::Unwinding && self.scope(ix).unwind.remaining == 0 {
            self.after_unwinding(graph, ix);
        }
        self.scopes[ix.at()].skip_stale();
        if ix == ScopeIx::ROOT {
            return self.stir(ix);
        }
        if let Some(parking) = self.scopes[ix.at()].park_wanted.take() {
            self.want_parked(root, parking);
        } else if self.scope(ix).is_stuck() && !self.is_concerned_by_an_undo(ix) {
            let parking = self.scope(ix).stuck_unwinding(graph);
            self.want_parked(root, parking);
        }
        self.tell_beyond(root, ix);
        self.account(root, ix);
        self.stir_with_those_around(ix);
    }

    /// Has a scope asked what it wants, before those around it.
    fn stir_with_those_around(&mut self, ix: ScopeIx) {
        if let Some((around, _)) = self.scope(ix).inside {
            self.stir_with_those_around(around);
        }
        self.stir(ix);
    }

    /// Has a scope asked what it wants.
    pub(super) fn stir(&mut self, ix: ScopeIx) {
        if !std::mem::replace(&mut self.scopes[ix.at()].stirred, true) {
            self.stirred.push(ix);
        }
    }

    /// Has all scopes inside this one asked: what held them may be gone. Only those, since in a fan-out of
    /// sub-sagas many may decide one after another.
    pub(super) fn stir_inside(&mut self, ix: ScopeIx) {
        if ix == ScopeIx::ROOT {
            for ix in 1..self.scopes.len() {
                self.stir(ScopeIx(u32::try_from(ix).unwrap_or(u32::MAX)));
            }
            return;
        }
        for index in 0..self.scope(ix).nodes.len() {
            if let Some(child) = self.scope(ix).nodes[index].child {
                self.stir(child);
                self.stir_inside(child);
            }
        }
    }

    /// Whether the undo of the step that it is the inside of is under way, still to come, or has failed for
    /// good because of it: then that undo is what the run is parked for, if it is.
    fn is_concerned_by_an_undo(&self, ix: ScopeIx) -> bool {
        let scope = self.scope(ix);
        let undo = |(around, step): (ScopeIx, NodeIx)| self.scope(around).seen(step).undo;
        let concerned = scope
            .inside
            .is_some_and(|inside| undo(inside) != UndoStatus::Idle);
        !scope.undoes && concerned || self.is_to_be_undone(ix)
    }

    /// Whether the scope is undone because the step that it is the inside of is undone.
    pub(super) fn is_undone_from_outside(&self, ix: ScopeIx) -> bool {
        if self.scope(ix).undoes {
            return false;
        }
        self.scope(ix)
            .inside
            .is_some_and(|(around, step)| self.scope(around).seen(step).undo == UndoStatus::Running)
    }

    /// Keeps the counts of the scopes around this one, so that none has to be searched.
    pub(super) fn account(&mut self, root: &Graph, ix: ScopeIx) {
        let Some((around, _)) = self.scope(ix).inside else {
            return;
        };
        let unsettled = u32::from(self.is_unsettled(root, ix));
        let scope = &mut self.scopes[ix.at()];
        let told = Told {
            calls: scope.calls() + scope.below.calls,
            unsettled: unsettled + scope.below.unsettled,
            awaiting: scope.awaiting + scope.below.awaiting,
        };
        let before = std::mem::replace(&mut scope.told, told);
        if before != told {
            let below = &mut self.scopes[around.at()].below;
            below.calls = below.calls + told.calls - before.calls;
            below.unsettled = below.unsettled + told.unsettled - before.unsettled;
            below.awaiting = below.awaiting + told.awaiting - before.awaiting;
            self.account(root, around);
        }
    }

    /// Whether the scope has something to decide, to undo or to complete before anything around it is decided.
    fn is_unsettled(&self, root: &Graph, ix: ScopeIx) -> bool {
        let scope = self.scope(ix);
        match scope.phase {
            // Its output is still to be made.
            Phase::Forward { .. } => scope.is_complete(self.graph_of(root, ix)),
            // A fan-out that has told its failure leaves the decision to the saga around it.
            Phase::Draining => !scope.failures.is_empty() && !self.has_told_its_failure(ix),
            Phase::Unwinding => {
                scope.unwind.remaining > 0 || scope.unwind.then != Direction::Stopped
            }
            Phase::Parked | Phase::Ended => false,
        }
    }

    /// Whether the step that the scope is the inside of has failed because of it. Until that step begins
    /// again it stays told, also where the step waits for its turn by now.
    pub(super) fn has_told_its_failure(&self, ix: ScopeIx) -> bool {
        let scope = self.scope(ix);
        let running = |(around, step)| {
            let around: &Scope = self.scope(around);
            around.seen(step).status == Status::Running
        };
        !scope.undoes && scope.inside.is_some_and(|inside| !running(inside))
    }

    /// Whether a step with steps inside has failed with all that they did still there: the saga around it
    /// decides what becomes of them.
    fn leaves_the_decision(&self, ix: ScopeIx, step: NodeIx, inside: &Graph) -> bool {
        let child = self.scope(ix).seen(step).child;
        !inside.is_saga() && child.is_some_and(|child| self.scope(child).phase == Phase::Draining)
    }

    /// Tells the step around the scope whether what happened inside can't be taken back any more.
    fn tell_beyond(&mut self, root: &Graph, ix: ScopeIx) {
        if self.scope(ix).undoes {
            return;
        }
        let graph = self.graph_of(root, ix);
        let Some((around, step)) = self.scope(ix).inside else {
            return;
        };
        let beyond = if graph.is_saga() {
            self.scope(ix).pivot_effect(graph)
        } else if self.graph_of(root, around).step(step).kind == StepKind::Irreversible {
            self.scope(around).seen(step).effect
        } else {
            return;
        };
        self.scopes[around.at()].node(step).beyond = beyond;
        self.tell_beyond(root, around);
    }

    /// All that was done in a scope is undone by something else.
    fn all_undone(&mut self, ix: ScopeIx) {
        for step in self.scope(ix).steps() {
            if let Some(child) = self.scope(ix).seen(step).child {
                self.all_undone(child);
            }
            self.scopes[ix.at()].is_undone(step);
        }
        self.scopes[ix.at()].phase = Phase::Ended;
    }

    /// The scope inside a step has come to an end.
    fn close(&mut self, around: ScopeIx, step: NodeIx) {
        let Some(child) = self.scope(around).seen(step).child else {
            return;
        };
        let scope = &mut self.scopes[child.at()];
        if scope.phase == Phase::Ended {
            return;
        }
        scope.drop_waits();
        scope.phase = Phase::Ended;
        scope.timers.clear();
    }

    /// What is inside a step is over, as deep as it goes: what changes nothing was left as it was when something
    /// else was faster, and no undo says that it is over.
    fn close_all(&mut self, root: &Graph, around: ScopeIx, step: NodeIx) {
        let Some(child) = self.scope(around).seen(step).child else {
            return;
        };
        for inside in self.scope(child).steps() {
            self.close_all(root, child, inside);
        }
        self.close(around, step);
        self.account(root, child);
    }

    /// Nothing waits any more in a run that has ended.
    fn drop_all_waits(&mut self, root: &Graph) {
        if !self.is_awaiting() {
            return;
        }
        for index in (0..self.scopes.len()).rev() {
            self.scopes[index].drop_waits();
            self.account(root, ScopeIx(u32::try_from(index).unwrap_or(u32::MAX)));
        }
    }

    /// All that was in flight is interrupted: the process that drove it is gone (rule F3).
    fn claimed(&mut self, root: &Graph, fence: u64, at: Timestamp) {
        self.fence = fence;
        for index in 0..self.scopes.len() {
            let ix = ScopeIx(u32::try_from(index).unwrap_or(u32::MAX));
            let graph = self.graph_of(root, ix);
            self.scopes[index].claimed(graph, at);
            if index > 0 {
                self.after(root, ix);
            }
        }
    }

    /// A failure that a probe cancelled, a cancel that came too late: where nothing else is wrong, the
    /// run goes forward, and the retries that were dropped are taken up again.
    fn go_on_if_nothing_is_wrong(&mut self, graph: &Graph, ix: ScopeIx) {
        let of_the_run = self.time_is_up || self.stop.is_some() || self.is_cancelled();
        let scope = &mut self.scopes[ix.at()];
        let wrong = !scope.failures.is_empty()
            || scope.park_wanted.is_some()
            || (ix == ScopeIx::ROOT && of_the_run);
        if scope.phase == Phase::Draining && !wrong {
            scope.go_forward(graph, None);
            self.stir_inside(ix);
        }
    }

    fn cancel_requested(
        &mut self,
        graph: &Graph,
        by: &str,
        reason: &str,
        told: CancelTold,
        at: Timestamp,
    ) {
        let pending = told != CancelTold::TooLate;
        self.cancel = Some(Cancel {
            by: by.to_owned(),
            reason: reason.to_owned(),
            told,
            pending,
        });
        if pending && self.is_parked() {
            self.leave_parking(at);
            self.root_mut().phase = Phase::Draining;
        } else if pending {
            self.drain_root(graph);
        }
    }

    /// Deadlines stand still while a run is parked (rule I4).
    pub(super) fn leave_parking(&mut self, at: Timestamp) {
        if self.parked.take().is_some() {
            let stood = at.since(self.parked_at);
            self.stand_still(stood);
        }
    }

    /// They stand still while it is paused, too.
    fn leave_pause(&mut self, at: Timestamp) {
        if let Some(paused) = self.paused.take() {
            let stood = at.since(paused.at);
            self.stand_still(stood);
            self.stir_inside(ScopeIx::ROOT);
        }
    }

    fn stand_still(&mut self, stood: Duration) {
        self.stood += stood;
        let of_scopes = self.scopes.iter_mut().map(|scope| &mut scope.deadline);
        for deadline in of_scopes.chain([&mut self.deadline]).flatten() {
            *deadline = deadline.after(stood);
        }
    }

    pub(super) fn want_parked(&mut self, root: &Graph, parking: Parking) {
        self.root_mut().park_wanted.get_or_insert(parking);
        self.drain_root(root);
        self.stir(ScopeIx::ROOT);
    }

    fn drain_root(&mut self, root: &Graph) {
        self.root_mut().drain(root);
    }
}

impl Scope {
    /// All that was in flight here is interrupted (rule F3).
    fn claimed(&mut self, graph: &Graph, at: Timestamp) {
        for step in self.steps() {
            if graph.step(step).inside().is_some() {
                // What is inside is interrupted, and nothing else.
                continue;
            }
            if self.seen(step).status == Status::Running {
                self.attempt_over(graph, step, CallEnded::Lost, 0, at);
                self.node(step).interruptions += 1;
                self.interrupted(graph, step);
            }
            if self.seen(step).undo == UndoStatus::Running {
                self.node(step).interruptions += 1;
                let charged = &mut self.node(step).undo_charged;
                *charged = charged.saturating_sub(1);
                self.undo_over(graph, step);
                self.node(step).call_ends(CallEnded::Lost, 0, at);
                // The same key again (rule U4).
                self.undo_ready(graph, step);
            }
            if self.seen(step).interruptions >= INTERRUPTIONS && self.park_wanted.is_none() {
                let name = self.name(graph, step);
                let message = format!(
                    "step `{name}` was interrupted {INTERRUPTIONS} times in a row without progress: \
                     it may be what brings the process down"
                );
                self.want_parked(graph, Parking::new(ParkReason::Interrupted, message));
            }
        }
    }

    /// What people call the step here.
    pub(super) fn name(&self, graph: &Graph, step: NodeIx) -> String {
        graph.path(&self.path, step)
    }

    /// The step is done without having been called: those behind it may start.
    fn pass_over(&mut self, graph: &Graph, step: NodeIx) {
        self.now_done(graph, step, Value::null());
        self.passed_over += 1;
        let node = self.node(step);
        node.passed_over = true;
        node.effect = EffectNow::NotDone;
    }

    /// The steps inside a step begin, or go on.
    fn opened(&mut self, step: NodeIx, at: Timestamp) {
        let node = self.node(step);
        node.status = Status::Running;
        node.withheld = false;
        node.attempts += 1;
        node.round_attempts += 1;
        node.started_at = Some(at);
        node.effect = node.effect.max(EffectNow::InDoubt);
        // Whatever has come to an end did so before it: it is undone first (rule U1).
        node.completed = u64::MAX;
        node.call_begins(false, at);
        self.open += 1;
    }

    /// All that was done inside a step is undone, and it was not done itself.
    fn undone_inside(&mut self, step: NodeIx) {
        let node = self.node(step);
        node.effect = EffectNow::NotDone;
        node.beyond = EffectNow::NotDone;
        // Its next try is a new one, with inputs made anew.
        node.next_round();
    }

    fn step_started(&mut self, step: NodeIx, at: Timestamp) {
        if let Status::Sleeping { until } = self.seen(step).status {
            self.timers.remove(&(until, step));
        }
        let node = self.node(step);
        node.status = Status::Running;
        node.withheld = false;
        node.attempts += 1;
        node.round_attempts += 1;
        node.charged += 1;
        node.charged_since.get_or_insert(at);
        node.probed = false;
        node.started_at = Some(at);
        node.call_begins(false, at);
        self.in_flight += 1;
    }

    /// An attempt has come to an end, whatever it was.
    fn attempt_over(
        &mut self,
        graph: &Graph,
        step: NodeIx,
        end: CallEnded,
        took_us: u64,
        at: Timestamp,
    ) {
        let node = self.node(step);
        node.call_ends(end, took_us, at);
        node.took = Duration::from_micros(took_us);
        node.ended_at = Some(at);
        let under_way = if graph.step(step).inside().is_some() {
            &mut self.open
        } else {
            &mut self.in_flight
        };
        *under_way = under_way.saturating_sub(1);
    }

    /// The effect is there, by the step's word or by a probe's.
    pub(super) fn now_done(&mut self, graph: &Graph, step: NodeIx, output: Value) {
        self.completions += 1;
        let completed = self.completions;
        match self.seen(step).status {
            Status::Sleeping { until } => {
                self.timers.remove(&(until, step));
            }
            Status::Absorbed => self.absorbed -= 1,
            // An operator had the run go on without what it waited for.
            Status::Awaiting { .. } => self.stop_waiting(step),
            _ => {}
        }
        let node = self.node(step);
        node.status = Status::Done;
        node.effect = EffectNow::Done;
        // What was asserted to be absent is known now, and will be undone like any other effect.
        node.assumed_absent = false;
        node.output = Some(output);
        // The same key took effect after all, and is accounted for by what is done.
        node.assumed_absent = false;
        node.completed = completed;
        node.interruptions = 0;
        node.withheld = false;
        self.done += 1;
        for &dependent in &graph.step(step).dependents {
            let node = self.node(dependent);
            node.unmet = node.unmet.saturating_sub(1);
            if node.unmet == 0 && matches!(node.status, Status::Waiting | Status::Undone) {
                node.status = Status::Ready;
                self.ready.push_back(dependent);
            }
        }
    }

    fn step_failed(
        &mut self,
        graph: &Graph,
        step: NodeIx,
        failure: &Failure,
        retry_at: Option<Timestamp>,
        at: Timestamp,
    ) {
        let read_only = graph.step(step).kind == StepKind::ReadOnly;
        self.completions += 1;
        let completed = self.completions;
        let node = self.node(step);
        node.completed = completed;
        node.interruptions = 0;
        if failure.effect == FailedEffect::InDoubt && !read_only {
            // A refusal after a doubt does not clear the doubt (rule E3).
            node.effect = node.effect.max(EffectNow::InDoubt);
        }
        node.failure = Some(Box::new(failure.clone()));
        match (retry_at, self.phase) {
            (Some(until), Phase::Forward { .. }) => {
                let node = self.node(step);
                node.last_delay = Some(until.since(at));
                node.status = Status::Sleeping { until };
                self.timers.insert((until, step));
            }
            // A retry that would sleep now is dropped, its doubt stays (rule D1).
            (Some(_), _) => self.set_idle(step, Status::Dropped),
            (None, _) if self.absorbs(graph) => {
                self.node(step).status = Status::Absorbed;
                self.absorbed += 1;
            }
            (None, _) => {
                self.set_idle(step, Status::Failed);
                self.failures.push(step);
                self.drain(graph);
            }
        }
        if retry_at.is_none() || self.phase == Phase::Draining {
            self.in_doubt_again(graph, step);
        }
    }

    /// Neither success nor failure: the future is gone, and nobody knows (rules F2, F3).
    fn interrupted(&mut self, graph: &Graph, step: NodeIx) {
        let read_only = graph.step(step).kind == StepKind::ReadOnly;
        self.completions += 1;
        let completed = self.completions;
        let forward = matches!(self.phase, Phase::Forward { .. });
        let node = self.node(step);
        node.completed = completed;
        // An interruption isn't charged to `max_attempts`.
        node.charged = node.charged.saturating_sub(1);
        if !read_only {
            node.effect = node.effect.max(EffectNow::InDoubt);
        }
        if forward {
            node.status = Status::Ready;
        } else {
            self.set_idle(step, Status::Dropped);
        }
        self.in_doubt_again(graph, step);
    }

    fn step_not_started(&mut self, graph: &Graph, step: NodeIx) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let forward = matches!(self.phase, Phase::Forward { .. });
        let node = self.node(step);
        node.attempts = node.attempts.saturating_sub(1);
        node.round_attempts = node.round_attempts.saturating_sub(1);
        node.charged = node.charged.saturating_sub(1);
        node.call_forgotten();
        if node.attempts == 0 {
            node.started_at = None;
        }
        if forward {
            node.status = Status::Ready;
        } else {
            self.set_idle(step, Status::Dropped);
        }
        self.in_doubt_again(graph, step);
    }

    /// The step isn't in flight any more: it is probed if that could help, started again if it may be.
    pub(super) fn in_doubt_again(&mut self, graph: &Graph, step: NodeIx) {
        let (node, definition) = (self.seen(step), graph.step(step));
        if node.effect == EffectNow::InDoubt {
            if definition.probed && !node.probed {
                self.to_probe.push_back(step);
                return;
            }
            let forward = matches!(self.phase, Phase::Forward { .. });
            if definition.at_most_once && forward && node.status == Status::Ready {
                let message = format!(
                    "step `{}` must run at most once and nobody knows whether it did: say what became of it",
                    self.name(graph, step)
                );
                self.want_parked(graph, Parking::new(ParkReason::AtMostOnceInDoubt, message));
                return;
            }
        }
        if self.seen(step).status == Status::Ready {
            self.ready.push_back(step);
        }
    }

    pub(super) fn probed(&mut self, graph: &Graph, step: NodeIx, answer: &Probed<Value>) {
        self.node(step).probed = true;
        if self.seen(step).effect != EffectNow::InDoubt {
            return;
        }
        let unwinding = self.phase == Phase::Unwinding;
        match answer {
            // Once unwinding is journalled the answer only gives the undo its output (rule E4).
            Probed::Done(output) if unwinding => {
                let node = self.node(step);
                node.effect = EffectNow::Done;
                node.output = Some(output.clone());
                self.undo_ready(graph, step);
            }
            Probed::Done(output) => {
                self.failures.retain(|&failed| failed != step);
                self.now_done(graph, step, output.clone());
            }
            Probed::Never => {
                self.node(step).effect = EffectNow::NotDone;
                if unwinding {
                    self.settle_without_undo(graph, step);
                } else {
                    self.in_doubt_again(graph, step);
                }
            }
            Probed::Unknown if unwinding => self.undo_ready(graph, step),
            Probed::Unknown => self.in_doubt_again(graph, step),
        }
    }

    pub(super) fn want_parked(&mut self, graph: &Graph, parking: Parking) {
        self.park_wanted.get_or_insert(parking);
        self.drain(graph);
    }

    /// No attempt starts any more; sleeping retries are dropped (rule D1). Undoing isn't touched.
    pub(super) fn drain(&mut self, graph: &Graph) {
        if !matches!(self.phase, Phase::Forward { .. }) {
            return;
        }
        self.phase = Phase::Draining;
        for (until, step) in std::mem::take(&mut self.timers) {
            if let Status::Awaiting { .. } = self.seen(step).status {
                // A wait is no attempt: it goes on, and is looked at once the run goes forward again.
                self.timers.insert((until, step));
                continue;
            }
            self.set_idle(step, Status::Dropped);
            self.in_doubt_again(graph, step);
        }
    }

    /// The step rests until the run goes forward again.
    pub(super) fn set_idle(&mut self, step: NodeIx, status: Status) {
        self.node(step).status = status;
        self.idle.push(step);
    }
}
