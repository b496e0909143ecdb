//! What is to be done next.

use crate::failure::{FailedEffect, Failure, FailureMode};
use std::sync::Arc;
use std::time::Duration;

use crate::ids::Timestamp;
use crate::journal::{Cause, Decision, End, Event, ParkReason, Parking};
use crate::machine::attempt::AttemptResult;
use crate::machine::part::undone_for_a_part;
use crate::machine::scope::{Direction, EffectNow, Phase, Scope, ScopeIx, Status, UndoStatus};
use crate::machine::state::State;
use crate::policy::RecoveryStrategy;
use crate::saga::{Gathering, Graph, NodeIx, OnStop, Siblings};
use crate::step::StepIx;

/// The next thing to do. Whoever drives the machine does it, applies the events that belong to it, and
/// asks again, until it says [`Todo::Wait`] or [`Todo::Rest`]; then it appends what it has gathered.
#[derive(Clone, Debug, PartialEq)]
pub enum Todo {
    /// Announce and call the step's `execute`.
    Start(StepIx),
    /// Announce and call the step's `compensate`.
    Undo(StepIx),
    /// Ask the step's probe.
    Probe(StepIx),
    /// Append this event.
    Append(Event<StepIx>),
    /// Make the saga's output and append the end.
    Complete,
    /// Make the output of this step, out of what is inside it, and append that it is done.
    Gather(StepIx),
    /// The step has got its signal: make of it what it makes of signals, and append that it has waited.
    Take(StepIx),
    /// The step's time is up: make of that what it makes of it, and append that it has waited.
    Expire(StepIx),
    /// Wait for what is in flight, or until this instant.
    Wait {
        /// When there is something to do even if nothing happens.
        until: Option<Timestamp>,
    },
    /// Nothing will happen by itself: the run is parked, or over.
    Rest,
}

/// Why a run that a step asked to end waits for an operator.
pub(super) const UNSETTLED_STOP: &str =
    "a step asked to end the run, and nobody knows whether its pivot took effect";

impl State {
    /// What is to be done at `now`.
    ///
    /// It changes nothing but what the state remembers about who was asked already.
    #[must_use]
    pub fn decide(&mut self, graph: &Graph, now: Timestamp) -> Todo {
        if let Some((by, reason)) = self.abandon.as_ref().filter(|_| !self.is_ended()) {
            return if self.has_in_flight() {
                Todo::Wait { until: None }
            } else {
                let (by, reason) = (by.clone(), reason.clone());
                Todo::Append(Event::Ended(End::Abandoned { by, reason }))
            };
        }
        if matches!(self.root().phase, Phase::Parked | Phase::Ended) {
            return Todo::Rest;
        }
        while let Some(&(at, ix)) = self.alarms.first()
            && at <= now
        {
            self.silence(ix);
            self.stir(ix);
        }
        while let Some(&ix) = self.stirred.last() {
            match self.decide_in(graph, ix, now) {
                Todo::Start(_)
                | Todo::Undo(_)
                | Todo::Probe(_)
                | Todo::Take(_)
                | Todo::Expire(_)
                    if self.is_paused() => {}
                Todo::Wait { until } => self.wake_at(ix, until),
                todo => return todo,
            }
            self.stirred.pop();
            self.scopes[ix.at()].stirred = false;
        }
        let until = self.alarms.first().map(|(at, _)| *at);
        Todo::Wait {
            until: until.filter(|_| !self.is_paused()),
        }
    }

    fn silence(&mut self, ix: ScopeIx) {
        if let Some(alarm) = self.scopes[ix.at()].alarm.take() {
            self.alarms.remove(&(alarm, ix));
        }
    }

    fn wake_at(&mut self, ix: ScopeIx, until: Option<Timestamp>) {
        if self.scopes[ix.at()].alarm == until {
            return;
        }
        self.silence(ix);
        self.scopes[ix.at()].alarm = until;
        self.alarms.extend(until.map(|until| (until, ix)));
    }

    fn decide_in(&self, root: &Graph, ix: ScopeIx, now: Timestamp) -> Todo {
        let scope = self.scope(ix);
        // The run is to be parked: what is in flight is awaited, and nothing else is done.
        if ix != ScopeIx::ROOT && self.root().park_wanted.is_some() {
            return Todo::Wait { until: None };
        }
        // What was decided around it is about all of it: its undo begins from there.
        let decides = matches!(scope.phase, Phase::Forward { .. } | Phase::Draining);
        if decides && self.is_to_be_undone(ix) {
            return Todo::Wait { until: None };
        }
        let todo = match scope.phase {
            Phase::Forward { hold } => self.decide_forward(root, ix, hold, now),
            Phase::Draining => self.decide_drained(root, ix, now),
            Phase::Unwinding => self.decide_unwinding(root, ix, now),
            Phase::Parked | Phase::Ended => Next::Wait(None),
        };
        match todo {
            Next::Start(step) => Todo::Start(scope.number(step)),
            Next::Undo(step) => Todo::Undo(scope.number(step)),
            Next::Probe(step) => Todo::Probe(scope.number(step)),
            Next::ProbeInside(step) => Todo::Probe(step),
            Next::Take(step) => Todo::Take(scope.number(step)),
            Next::Expire(step) => Todo::Expire(scope.number(step)),
            Next::Append(event) => Todo::Append(event),
            Next::Complete if scope.undoes => match self.inside_of(ix) {
                Some(step) => Todo::Append(Event::Undone { step, took_us: 0 }),
                None => Todo::Wait { until: None },
            },
            Next::Complete => match self.inside_of(ix) {
                None => Todo::Complete,
                Some(step) => Todo::Gather(step),
            },
            Next::Wait(until) => Todo::Wait { until },
        }
    }

    /// Whether a step that the scope is inside of, however deep, is going to be undone. What undoes a step is not
    /// a part of what is undone.
    pub(super) fn is_to_be_undone(&self, ix: ScopeIx) -> bool {
        self.around_in_step(ix).any(|(around, step)| {
            let around = self.scope(around);
            around.phase == Phase::Unwinding && around.seen(step).in_region
        })
    }

    /// Since when a scope may start something, as far as those around it are asked; never if it may not.
    fn allowed_from(&self, root: &Graph, ix: ScopeIx, now: Timestamp) -> Option<Timestamp> {
        let mut from = None;
        for (around, step) in self.around_in_step(ix) {
            let Phase::Forward { hold } = self.scope(around).phase else {
                return Some(Timestamp::NEVER);
            };
            let late = self.is_late(self.graph_of(root, around), around, now);
            if late || self.is_lost(root, around, step) {
                return Some(Timestamp::NEVER);
            }
            from = from.max(hold);
        }
        from
    }

    /// Whether attempts in flight are to be told to stop, and how long they have.
    #[must_use]
    pub fn stops_siblings(&self, graph: &Graph) -> Option<std::time::Duration> {
        match (graph.siblings, self.root().phase) {
            (Siblings::Stop { grace }, Phase::Draining) => Some(grace),
            _ => None,
        }
    }

    /// Whether somebody asked for the run to end, so that attempts that look should hurry.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancel.as_ref().is_some_and(|cancel| cancel.pending)
    }

    /// Whether attempts that look for it should hurry: nobody wants the run to go on.
    #[must_use]
    pub fn is_unwanted(&self) -> bool {
        self.is_cancelled() || self.abandon.is_some()
    }

    /// Whether another way than this one has been chosen.
    fn is_lost(&self, root: &Graph, ix: ScopeIx, step: NodeIx) -> bool {
        let chosen = self.scope(ix).done > 0 && self.scope(ix).seen(step).status != Status::Done;
        chosen && self.graph_of(root, ix).gathers == Gathering::Race
    }

    /// Whether a step is one of several ways that race, or inside one.
    pub(crate) fn is_racing(&self, root: &Graph, step: StepIx) -> bool {
        let (ix, _) = self.whereabouts(step);
        let race = |ix| self.graph_of(root, ix).gathers == Gathering::Race;
        ix != ScopeIx::ROOT && (race(ix) || self.around(ix).any(|(ix, _)| race(ix)))
    }

    /// The steps under way that are in vain once this one is done, as one of several ways.
    pub(crate) fn losers(&self, root: &Graph, winner: StepIx) -> Vec<StepIx> {
        let (ix, winner) = self.whereabouts(winner);
        let mut losers = Vec::new();
        if self.graph_of(root, ix).gathers == Gathering::Race && self.scope(ix).done > 0 {
            let others = self.scope(ix).steps().filter(|step| *step != winner);
            others.for_each(|step| self.under_way(ix, step, &mut losers));
        }
        losers
    }

    fn under_way(&self, ix: ScopeIx, step: NodeIx, found: &mut Vec<StepIx>) {
        let scope = self.scope(ix);
        match scope.seen(step).child {
            None if scope.seen(step).status == Status::Running => found.push(scope.number(step)),
            None => {}
            Some(child) => {
                let inside = self.scope(child).steps();
                inside.for_each(|step| self.under_way(child, step, found));
            }
        }
    }

    /// Whether a call is in vain: it is one of several ways, or inside one, and another one was faster.
    pub(crate) fn is_in_vain(&self, root: &Graph, step: StepIx) -> bool {
        let (ix, step) = self.whereabouts(step);
        let here = std::iter::once((ix, step));
        here.chain(self.around(ix))
            .any(|(ix, step)| self.is_lost(root, ix, step))
    }

    fn decide_forward(
        &self,
        root: &Graph,
        ix: ScopeIx,
        hold: Option<Timestamp>,
        now: Timestamp,
    ) -> Next {
        let (graph, scope) = (self.graph_of(root, ix), self.scope(ix));
        let is_root = ix == ScopeIx::ROOT;
        if is_root && self.is_cancelled() && scope.is_pivot_done(graph) {
            // An operator, or an undo that ended, let the run go on: whoever cancelled it is told.
            return Next::Append(Event::CancelTooLate);
        }
        let counts = is_root && !self.deadline_reported && !self.is_paused();
        let deadline = self.deadline.filter(|_| counts);
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Next::Append(Event::DeadlinePassed {
                past_pivot: scope.is_past_pivot(graph),
            });
        }
        if self.is_late(graph, ix, now) {
            return self.decide_late(root, ix, now);
        }
        let deadline = earliest(deadline, scope.deadline.filter(|&deadline| deadline > now));
        if scope.is_complete(graph) {
            return self.complete(graph, ix);
        }
        let one_is_enough = matches!(graph.gathers, Gathering::Fallback | Gathering::Race);
        if one_is_enough && scope.done > 0 {
            return Next::Wait(None);
        }
        let from = self.allowed_from(root, ix, now);
        if from == Some(Timestamp::NEVER) {
            return Next::Wait(None);
        }
        if let Some(hold) = hold.max(from).filter(|&hold| hold > now) {
            return Next::Wait(earliest(Some(hold), deadline));
        }
        if let Some(step) = scope.next_to_probe() {
            return Next::Probe(step);
        }
        if let Some(step) = self.next_answered(ix) {
            return Next::Take(step);
        }
        // A timer that is due but whose probe is being asked is in flight, not due.
        let due = scope.timers.iter().take_while(|(until, _)| *until <= now);
        for &(_, step) in due {
            let node = scope.seen(step);
            if let Status::Awaiting { .. } = node.status {
                return Next::Expire(step);
            }
            if graph.step(step).probed && scope.wants_probe(step) {
                return Next::Probe(step);
            }
            if !node.probing {
                return Next::Start(step);
            }
        }
        if let Some(step) = scope.next_ready().filter(|_| !scope.is_full(graph)) {
            return Next::Start(step);
        }
        Next::Wait(earliest(scope.next_timer(now), deadline))
    }

    /// All that is needed is done. What failed on the way, and may have left something, is undone before the
    /// output is made (rule E7).
    fn complete(&self, graph: &Graph, ix: ScopeIx) -> Next {
        let scope = self.scope(ix);
        if let (Gathering::Each { .. }, Some(step)) = (graph.gathers, scope.next_to_probe()) {
            // It may turn out to be done, and then there is nothing to go without (rule E4).
            return Next::Probe(step);
        }
        let chosen = scope.chosen();
        let left = |step: &NodeIx| match graph.gathers {
            Gathering::Saga => false,
            Gathering::Each { .. } | Gathering::Fallback => {
                scope.seen(*step).status == Status::Absorbed && scope.wants_undo(graph, *step)
            }
            Gathering::Race => Some(*step) != chosen && scope.wants_undo(graph, *step),
        };
        let absorbed = scope.absorbed > 0 || graph.gathers == Gathering::Race;
        let left: Vec<StepIx> = if absorbed {
            let left = scope.steps().filter(left);
            left.map(|step| scope.number(step)).collect()
        } else {
            Vec::new()
        };
        if left.is_empty() {
            return Next::Complete;
        }
        Next::Append(self.without(ix, left))
    }

    /// The decision to go on without steps.
    fn without(&self, ix: ScopeIx, failed: Vec<StepIx>) -> Event<StepIx> {
        Event::Decided(Arc::new(Decision {
            cause: Cause::Absorbed,
            scope: self.inside_of(ix),
            strategy: RecoveryStrategy::RetryFailed,
            stop: false,
            failed,
            why: Vec::new(),
            recovery: 0,
            resume_at: None,
        }))
    }

    /// Whether a saga inside another has used up the time that it has itself (rule N2). Past its pivot nothing
    /// goes back, and its time counts no more.
    pub(super) fn is_late(&self, graph: &Graph, ix: ScopeIx, now: Timestamp) -> bool {
        let scope = self.scope(ix);
        let late = scope.deadline.is_some_and(|deadline| deadline <= now);
        late && !self.is_paused() && !scope.is_past_pivot(graph)
    }

    /// The time of a saga inside another is up: nothing starts in it, and once all is quiet its policy is asked.
    fn decide_late(&self, root: &Graph, ix: ScopeIx, now: Timestamp) -> Next {
        let scope = self.scope(ix);
        // Where what is around it is being decided, it has no word.
        let has_a_word = self.allowed_from(root, ix, now) != Some(Timestamp::NEVER);
        if !has_a_word || scope.has_in_flight() {
            return Next::Wait(None);
        }
        if let Some(step) = scope.next_to_probe() {
            return Next::Probe(step);
        }
        if let Some(step) = self.doubt_inside(root, ix) {
            return Next::ProbeInside(step);
        }
        if scope.below.unsettled > 0 {
            return Next::Wait(None);
        }
        Next::Append(Event::Decided(Arc::new(self.ask_policy(root, ix, now))))
    }

    /// Rule D1: all attempts have come in, then all doubts are probed, then one decision is made.
    fn decide_drained(&self, root: &Graph, ix: ScopeIx, now: Timestamp) -> Next {
        let (graph, scope) = (self.graph_of(root, ix), self.scope(ix));
        if self.has_told_its_failure(ix) {
            return Next::Wait(None);
        }
        if let Gathering::Each { .. } | Gathering::Race = graph.gathers {
            // What failed may turn out to be done, and then there is nothing to tell (rule E4).
            if let Some(step) = scope.next_to_probe() {
                return Next::Probe(step);
            }
            if scope.probes > 0 {
                return Next::Wait(None);
            }
            // The saga around it decides, and begins to wait for what is in flight at once.
            return self.tell_failure(graph, ix);
        }
        if scope.in_flight + scope.below.calls > 0 {
            return Next::Wait(None);
        }
        if let Some(step) = scope.next_to_probe() {
            return Next::Probe(step);
        }
        if let Some(step) = self.doubt_inside(root, ix) {
            return Next::ProbeInside(step);
        }
        if scope.probes > 0 || scope.below.unsettled > 0 && scope.park_wanted.is_none() {
            return Next::Wait(None);
        }
        if graph.gathers == Gathering::Fallback {
            let next = scope
                .steps()
                .any(|step| scope.seen(step).status == Status::Waiting);
            return if next {
                Next::Append(self.without(ix, self.failed_in(ix)))
            } else {
                self.tell_failure(graph, ix)
            };
        }
        if ix == ScopeIx::ROOT {
            if self.cancel.as_ref().is_some_and(|cancel| cancel.pending) {
                return self.carry_out_cancel(graph);
            }
            if let Some(reason) = &self.stop {
                let Some((strategy, stop)) = self.way_to_stop(graph) else {
                    return Next::Append(Event::Parked(Box::new(Parking::new(
                        ParkReason::Unsettled,
                        UNSETTLED_STOP,
                    ))));
                };
                let cause = Cause::Stop {
                    reason: reason.clone(),
                };
                return Next::Append(self.plain_decision(cause, strategy, stop));
            }
            if let Some(parking) = &scope.park_wanted {
                return Next::Append(Event::Parked(Box::new(parking.clone())));
            }
            if self.time_is_up && scope.is_past_pivot(graph) {
                return Next::Append(Event::DeadlinePassed { past_pivot: true });
            }
        } else if scope.failures.is_empty() {
            // A step inside asked to end the run, which is the whole run's affair.
            return Next::Wait(None);
        }
        Next::Append(Event::Decided(Arc::new(self.ask_policy(root, ix, now))))
    }

    /// A step inside the steps of a scope that is to be asked about before the scope decides: what is inside
    /// goes on as if nothing had happened, but for its starts, and asks no probes then.
    fn doubt_inside(&self, root: &Graph, from: ScopeIx) -> Option<StepIx> {
        for (index, scope) in self.scopes.iter().enumerate().skip(1) {
            let ix = ScopeIx(u32::try_from(index).unwrap_or(u32::MAX));
            let goes_on = matches!(scope.phase, Phase::Forward { .. });
            if !goes_on || !self.around(ix).any(|(around, _)| around == from) {
                continue;
            }
            let graph = self.graph_of(root, ix);
            let mut sleeping = scope.timers.iter().map(|(_, step)| *step);
            let asks = |step: &NodeIx| graph.step(*step).probed && scope.wants_probe(*step);
            let step = scope.next_to_probe().or_else(|| sleeping.find(asks));
            if let Some(step) = step {
                return Some(scope.number(step));
            }
        }
        None
    }

    /// A step with steps inside has failed because of them.
    fn tell_failure(&self, graph: &Graph, ix: ScopeIx) -> Next {
        let scope = self.scope(ix);
        let (Some(step), Some(&first)) = (self.inside_of(ix), scope.failures.first()) else {
            return Next::Wait(None);
        };
        let Some(first) = scope.seen(first).failure.as_deref() else {
            return Next::Wait(None);
        };
        let failure = match graph.gathers {
            Gathering::Each {
                tolerate: Some(tolerate),
                ..
            } => {
                let (failed, items) = (
                    scope.absorbed as usize + scope.failures.len(),
                    scope.nodes.len(),
                );
                let most = tolerate.of(items);
                let message = format!(
                    "{failed} of {items} items failed, and at most {most} may: the last one said: {}",
                    first.message
                );
                Failure::new(FailureMode::PartialStepFailures, message)
                    .causes(first.causes.clone())
                    .effect(FailedEffect::InDoubt)
            }
            _ => first.clone(),
        };
        Next::Append(self.composite_failed(step, failure))
    }

    /// The event for the failure of a step with steps inside; it takes no retry (rule N2).
    fn composite_failed(&self, step: StepIx, failure: Failure) -> Event<StepIx> {
        let node = self.node(step);
        let failure = if failure.step.is_empty() {
            failure.at(&*self.table.name(step), node.round, node.attempts)
        } else {
            failure
        };
        Event::StepFailed {
            step,
            failure: Box::new(failure),
            retry_at: None,
            gave_up: None,
            took_us: 0,
        }
    }

    /// How a run ends that a step asked to end (rule F5). Past the pivot nothing goes back, and a stop starts
    /// nothing: a pivot in doubt leaves no way.
    pub(super) fn way_to_stop(&self, graph: &Graph) -> Option<(RecoveryStrategy, bool)> {
        let root = self.root();
        if !root.is_past_pivot(graph) && graph.on_stop == OnStop::Compensate {
            return Some((RecoveryStrategy::Compensate, false));
        }
        let settled = !root.is_past_pivot(graph) || root.is_pivot_done(graph);
        settled.then_some((RecoveryStrategy::RetryFailed, true))
    }

    /// Rule C1, once nothing is in flight.
    fn carry_out_cancel(&self, graph: &Graph) -> Next {
        match self.root().pivot_effect(graph) {
            EffectNow::Done => Next::Append(Event::CancelTooLate),
            EffectNow::InDoubt => {
                let message =
                    "the run was cancelled, and nobody knows whether its pivot took effect";
                Next::Append(Event::Parked(Box::new(Parking::new(
                    ParkReason::Unsettled,
                    message,
                ))))
            }
            EffectNow::NotDone => Next::Append(self.plain_decision(
                Cause::Cancel,
                RecoveryStrategy::Compensate,
                false,
            )),
        }
    }

    /// A decision that no policy was asked about.
    pub(super) fn plain_decision(
        &self,
        cause: Cause,
        strategy: RecoveryStrategy,
        stop: bool,
    ) -> Event<StepIx> {
        let failed = self.failed_in(ScopeIx::ROOT);
        Event::Decided(Arc::new(Decision {
            cause,
            scope: None,
            strategy,
            stop,
            failed,
            why: Vec::new(),
            recovery: 0,
            resume_at: None,
        }))
    }

    fn decide_unwinding(&self, root: &Graph, ix: ScopeIx, now: Timestamp) -> Next {
        let (graph, scope) = (self.graph_of(root, ix), self.scope(ix));
        if let Some(parking) = &scope.park_wanted {
            if scope.has_in_flight() {
                return Next::Wait(None);
            }
            return Next::Append(Event::Parked(Box::new(parking.clone())));
        }
        if let Some(step) = scope.next_undo(graph, now) {
            return if graph.step(step).probed && scope.wants_probe(step) {
                Next::Probe(step)
            } else {
                Next::Undo(step)
            };
        }
        if scope.unwind.remaining == 0 && !scope.has_in_flight() {
            return self.unwound(root, ix, now);
        }
        if scope.is_stuck() {
            let parking = scope.stuck_unwinding(graph);
            return match self.inside_of(ix) {
                None => Next::Append(Event::Parked(Box::new(parking))),
                // The undo of the step that it is the inside of has failed: the undos beside it go on (rule U3).
                Some(step) if self.is_undone_from_outside(ix) => {
                    Next::Append(self.undo_failed_inside(step, ix, &parking))
                }
                // The run is to be parked because of it.
                Some(_) => Next::Wait(None),
            };
        }
        Next::Wait(
            scope
                .undo_timers()
                .map(|(until, _)| until)
                .find(|until| *until > now),
        )
    }

    fn undo_failed_inside(&self, step: StepIx, ix: ScopeIx, parking: &Parking) -> Event<StepIx> {
        let scope = self.scope(ix);
        let inner = scope
            .nodes
            .iter()
            .find_map(|node| node.undo_failure.as_deref());
        // Whoever reads of it has to look for the step whose undo it was.
        let failure = inner.cloned().unwrap_or_else(|| {
            let node = self.node(step);
            Failure::new(FailureMode::StepState, parking.message.clone())
                .retryable(false)
                .at(&*self.table.name(step), node.round, node.undo_attempts)
        });
        Event::UndoFailed {
            step,
            failure: Box::new(failure),
            retry_at: None,
            gave_up: None,
            took_us: 0,
        }
    }

    /// All that was to be undone is undone.
    fn unwound(&self, root: &Graph, ix: ScopeIx, now: Timestamp) -> Next {
        let graph = self.graph_of(root, ix);
        let scope = self.scope(ix);
        if let Some(step) = self.inside_of(ix) {
            return match scope.unwind.then {
                // What was to undo it has failed and undone itself.
                Direction::Compensated if scope.undoes => {
                    Next::Append(self.undo_undone(root, step, ix, now))
                }
                Direction::Compensated if self.is_undone_from_outside(ix) => {
                    Next::Append(Event::Undone { step, took_us: 0 })
                }
                // Nothing is left for the undo of the step, which is still to come.
                Direction::Compensated if self.is_to_be_undone(ix) => Next::Wait(None),
                Direction::Compensated => Next::Append(self.undone_by_itself(graph, step, ix)),
                // The whole run stops. Going forward is part of the last undo's event, and never seen here.
                Direction::Stopped | Direction::Forward { .. } | Direction::Without => {
                    Next::Wait(None)
                }
            };
        }
        let cancelled = self.cancel.as_ref().is_some_and(|cancel| cancel.pending);
        match scope.unwind.then {
            Direction::Compensated => Next::Append(Event::Ended(End::Compensated)),
            // A cancel that came meanwhile: what was to be kept is undone too.
            Direction::Stopped | Direction::Forward { .. } if cancelled => {
                self.carry_out_cancel(graph)
            }
            Direction::Stopped if scope.below.unsettled > 0 => Next::Wait(None),
            Direction::Stopped => Next::Append(Event::Ended(End::Stopped {
                reason: self.stop.clone().unwrap_or_default(),
            })),
            // Going forward is part of the last undo's event; this is never seen.
            Direction::Forward { .. } | Direction::Without => Next::Wait(None),
        }
    }

    /// What was to undo a step has failed, and its policy had it undone: it is tried again like any undo.
    fn undo_undone(
        &self,
        root: &Graph,
        step: StepIx,
        ix: ScopeIx,
        now: Timestamp,
    ) -> Event<StepIx> {
        let failed = match self.undone_by_itself(self.graph_of(root, ix), step, ix) {
            Event::StepFailed { failure, .. } => *failure,
            event => return event,
        };
        // Undoing again is always safe (rule U3).
        let failed = AttemptResult::Failed(failed.retryable(true));
        self.undo_ended(root, step, failed, Duration::ZERO, now)
    }

    /// A sub-saga has undone itself: it is one failed step of the saga around it, with the mode of what
    /// failed in it (rule N1).
    fn undone_by_itself(&self, graph: &Graph, step: StepIx, ix: ScopeIx) -> Event<StepIx> {
        let decision = self.scope(ix).last_decision.as_deref();
        if let Some(failure) = decision.and_then(|why| undone_for_a_part(&graph.saga, why)) {
            return self.composite_failed(step, failure.effect(FailedEffect::NotDone));
        }
        let failed = decision.and_then(|decision| decision.failed.first());
        let failure = failed.and_then(|&failed| self.node(failed).failure.as_deref());
        let failure = if let Some(failure) = failure {
            let message = format!(
                "`{}` failed and was undone: {}",
                graph.saga, failure.message
            );
            Failure::new(failure.mode.clone(), message)
                .causes(failure.causes.clone())
                .retryable(failure.retryable)
        } else {
            let asked = decision.and_then(|decision| decision.why.first());
            let mode = asked.map_or(FailureMode::StepLogic, |why| why.saw.mode.clone());
            let message = format!("the time of `{}` was up, and it was undone", graph.saga);
            Failure::new(mode, message)
        };
        self.composite_failed(step, failure.effect(FailedEffect::NotDone))
    }
}

/// What a scope wants next, its steps by its own numbers.
enum Next {
    Start(NodeIx),
    Undo(NodeIx),
    Probe(NodeIx),
    /// The same for a step further inside, by its number in the run.
    ProbeInside(StepIx),
    Take(NodeIx),
    Expire(NodeIx),
    Append(Event<StepIx>),
    Complete,
    Wait(Option<Timestamp>),
}

impl Scope {
    fn next_timer(&self, now: Timestamp) -> Option<Timestamp> {
        let mut timers = self.timers.iter().map(|(until, _)| *until);
        timers.find(|until| *until > now)
    }

    pub(super) fn stuck_unwinding(&self, graph: &Graph) -> Parking {
        let named = |step: NodeIx| format!("`{}`", self.name(graph, step));
        let failed: Vec<String> = self
            .steps()
            .filter(|&step| self.seen(step).undo == UndoStatus::Failed)
            .map(|step| match &self.seen(step).undo_failure {
                Some(failure) if !failure.step.is_empty() => {
                    format!("`{}` ({})", failure.step, failure.message)
                }
                Some(failure) => format!("{} ({})", named(step), failure.message),
                None => named(step),
            })
            .collect();
        if failed.is_empty() {
            let in_doubt = |step: &NodeIx| {
                let node = self.seen(*step);
                node.in_region && node.effect == EffectNow::InDoubt
            };
            let doubts: Vec<String> = self.steps().filter(in_doubt).map(named).collect();
            let message = format!(
                "nobody knows what became of {}, and it can't be undone",
                doubts.join(", ")
            );
            return Parking::new(ParkReason::Unsettled, message);
        }
        Parking::new(
            ParkReason::CompensationFailed,
            format!("the undo failed for good of {}", failed.join(", ")),
        )
    }
}

fn earliest(one: Option<Timestamp>, two: Option<Timestamp>) -> Option<Timestamp> {
    match (one, two) {
        (Some(one), Some(two)) => Some(one.min(two)),
        (one, two) => one.or(two),
    }
}
