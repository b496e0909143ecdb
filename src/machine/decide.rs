//! What is to be done next.

use crate::ids::Timestamp;
use crate::journal::{Cause, Decision, End, Event, ParkReason, Parking};
use crate::machine::state::{Direction, EffectNow, Phase, State, UndoStatus};
use crate::policy::RecoveryStrategy;
use crate::saga::{Graph, OnStop, Siblings};
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
    #[must_use]
    pub fn decide(&self, graph: &Graph, now: Timestamp) -> Todo {
        if let Some((by, reason)) = self.abandon.as_ref().filter(|_| !self.is_ended()) {
            return if self.has_in_flight() {
                Todo::Wait { until: None }
            } else {
                let (by, reason) = (by.clone(), reason.clone());
                Todo::Append(Event::Ended(End::Abandoned { by, reason }))
            };
        }
        let todo = match self.phase {
            Phase::Forward { hold } => self.decide_forward(graph, hold, now),
            Phase::Draining => self.decide_drained(graph, now),
            Phase::Unwinding => self.decide_unwinding(graph, now),
            Phase::Parked | Phase::Ended => Todo::Rest,
        };
        match todo {
            Todo::Start(_) | Todo::Undo(_) | Todo::Probe(_) | Todo::Wait { .. }
                if self.is_paused() =>
            {
                Todo::Wait { until: None }
            }
            todo => todo,
        }
    }

    /// Whether attempts in flight are to be told to stop, and how long they have.
    #[must_use]
    pub fn stops_siblings(&self, graph: &Graph) -> Option<std::time::Duration> {
        match (graph.siblings, self.phase) {
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

    fn decide_forward(&self, graph: &Graph, hold: Option<Timestamp>, now: Timestamp) -> Todo {
        if self.is_cancelled() && self.is_pivot_done(graph) {
            // An operator, or an undo that ended, let the run go on: whoever cancelled it is told.
            return Todo::Append(Event::CancelTooLate);
        }
        let counts = !self.deadline_reported && !self.is_paused();
        let deadline = self.deadline.filter(|_| counts);
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Todo::Append(Event::DeadlinePassed {
                past_pivot: self.is_past_pivot(graph),
            });
        }
        if let Some(hold) = hold.filter(|&hold| hold > now) {
            return Todo::Wait {
                until: earliest(Some(hold), deadline),
            };
        }
        if let Some(step) = self.next_to_probe() {
            return Todo::Probe(step);
        }
        // A timer that is due but whose probe is being asked is in flight, not due.
        let due = self.timers.iter().take_while(|(until, _)| *until <= now);
        for &(_, step) in due {
            let node = self.seen(step);
            if graph.step(step).probed && self.wants_probe(step) {
                return Todo::Probe(step);
            }
            if !node.probing {
                return Todo::Start(step);
            }
        }
        if let Some(step) = self.next_ready() {
            return Todo::Start(step);
        }
        if self.done as usize == self.nodes.len() && !self.has_in_flight() {
            return Todo::Complete;
        }
        let timer = self
            .timers
            .iter()
            .map(|(until, _)| *until)
            .find(|until| *until > now);
        Todo::Wait {
            until: earliest(timer, deadline),
        }
    }

    /// Rule D1: all attempts have come in, then all doubts are probed, then one decision is made.
    fn decide_drained(&self, graph: &Graph, now: Timestamp) -> Todo {
        if self.in_flight > 0 {
            return Todo::Wait { until: None };
        }
        if let Some(step) = self.next_to_probe() {
            return Todo::Probe(step);
        }
        if self.probes > 0 {
            return Todo::Wait { until: None };
        }
        if self.cancel.as_ref().is_some_and(|cancel| cancel.pending) {
            return self.carry_out_cancel(graph);
        }
        if let Some(reason) = &self.stop {
            let Some((strategy, stop)) = self.way_to_stop(graph) else {
                return Todo::Append(Event::Parked(Box::new(Parking::new(
                    ParkReason::Unsettled,
                    UNSETTLED_STOP,
                ))));
            };
            let cause = Cause::Stop {
                reason: reason.clone(),
            };
            return Todo::Append(self.plain_decision(cause, strategy, stop));
        }
        if let Some(parking) = &self.park_wanted {
            return Todo::Append(Event::Parked(Box::new(parking.clone())));
        }
        if self.time_is_up && self.is_past_pivot(graph) {
            return Todo::Append(Event::DeadlinePassed { past_pivot: true });
        }
        Todo::Append(Event::Decided(Box::new(self.ask_policy(graph, now))))
    }

    /// How a run ends that a step asked to end (rule F5). Past the pivot nothing goes back, and a stop starts
    /// nothing: a pivot in doubt leaves no way.
    pub(super) fn way_to_stop(&self, graph: &Graph) -> Option<(RecoveryStrategy, bool)> {
        if !self.is_past_pivot(graph) && graph.on_stop == OnStop::Compensate {
            return Some((RecoveryStrategy::Compensate, false));
        }
        let settled = !self.is_past_pivot(graph) || self.is_pivot_done(graph);
        settled.then_some((RecoveryStrategy::RetryFailed, true))
    }

    /// Rule C1, once nothing is in flight.
    fn carry_out_cancel(&self, graph: &Graph) -> Todo {
        match self.pivot_effect(graph) {
            EffectNow::Done => Todo::Append(Event::CancelTooLate),
            EffectNow::InDoubt => {
                let message =
                    "the run was cancelled, and nobody knows whether its pivot took effect";
                Todo::Append(Event::Parked(Box::new(Parking::new(
                    ParkReason::Unsettled,
                    message,
                ))))
            }
            EffectNow::NotDone => Todo::Append(self.plain_decision(
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
        let failed = self.failures.clone();
        Event::Decided(Box::new(Decision {
            cause,
            strategy,
            stop,
            failed,
            why: Vec::new(),
            recovery: 0,
            resume_at: None,
        }))
    }

    fn decide_unwinding(&self, graph: &Graph, now: Timestamp) -> Todo {
        if let Some(parking) = &self.park_wanted {
            if self.has_in_flight() {
                return Todo::Wait { until: None };
            }
            return Todo::Append(Event::Parked(Box::new(parking.clone())));
        }
        let next = self.next_undo(graph, now);
        if let Some(step) = next {
            return if graph.step(step).probed && self.wants_probe(step) {
                Todo::Probe(step)
            } else {
                Todo::Undo(step)
            };
        }
        if self.unwind.remaining == 0 && !self.has_in_flight() {
            return self.unwound(graph);
        }
        let timer = self
            .timers
            .iter()
            .map(|(until, _)| *until)
            .find(|until| *until > now);
        if !self.has_in_flight() && timer.is_none() {
            return Todo::Append(Event::Parked(Box::new(self.stuck_unwinding(graph))));
        }
        Todo::Wait { until: timer }
    }

    /// All that was to be undone is undone.
    fn unwound(&self, graph: &Graph) -> Todo {
        let cancelled = self.cancel.as_ref().is_some_and(|cancel| cancel.pending);
        match self.unwind.then {
            Direction::Compensated => Todo::Append(Event::Ended(End::Compensated)),
            // A cancel that came meanwhile: what was to be kept is undone too.
            Direction::Stopped | Direction::Forward { .. } if cancelled => {
                self.carry_out_cancel(graph)
            }
            Direction::Stopped => Todo::Append(Event::Ended(End::Stopped {
                reason: self.stop.clone().unwrap_or_default(),
            })),
            // Going forward is part of the last undo's event; this is never seen.
            Direction::Forward { .. } => Todo::Wait { until: None },
        }
    }

    fn stuck_unwinding(&self, graph: &Graph) -> Parking {
        let failed: Vec<String> = graph
            .steps
            .iter()
            .zip(&self.nodes)
            .filter(|(_, node)| node.undo == UndoStatus::Failed)
            .map(|(step, node)| match &node.undo_failure {
                Some(failure) => format!("`{}` ({})", step.name, failure.message),
                None => format!("`{}`", step.name),
            })
            .collect();
        if failed.is_empty() {
            let doubts: Vec<String> = graph
                .steps
                .iter()
                .zip(&self.nodes)
                .filter(|(_, node)| node.in_region && node.effect == EffectNow::InDoubt)
                .map(|(step, _)| format!("`{}`", step.name))
                .collect();
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
