//! Folding one event into the state.

use std::time::Duration;

use crate::failure::{FailedEffect, Failure};
use crate::ids::Timestamp;
use crate::journal::{CancelTold, Event, ParkReason, Parking};
use crate::machine::kept::CallEnded;
use crate::machine::state::{Cancel, EffectNow, Paused, Phase, State, Status, UndoStatus};
use crate::saga::{Graph, StepKind};
use crate::step::{Probed, StepIx, Value};

/// So many interruptions of one step in a row park the run (rule F3).
const INTERRUPTIONS: u32 = 3;

impl State {
    /// Folds one event that happened at `at`.
    ///
    /// Events have to be those that [`decide`](Self::decide) and the like produced, in their order. What a
    /// journal of another graph would do is undefined but safe: nothing panics.
    pub fn apply(&mut self, graph: &Graph, event: &Event<StepIx>, at: Timestamp) {
        self.keep_moment(graph, event, at);
        match event {
            // The state began with it.
            Event::RunStarted(_) => {}
            Event::Claimed { fence, worker } => {
                self.worker.clone_from(worker);
                self.claimed(graph, *fence, at);
            }
            Event::StepStarted {
                step,
                round,
                key,
                mapped,
                ..
            } => {
                let node = self.node(*step);
                node.round = *round;
                node.key = Some(key.clone());
                node.mapped.clone_from(mapped);
                self.step_started(*step, at);
            }
            Event::StepDone {
                step,
                output,
                partial,
                asks,
                took_us,
            } => {
                self.attempt_over(*step, CallEnded::Done, *took_us, at);
                self.now_done(graph, *step, output.clone());
                if let Some(part) = partial {
                    self.did_part(graph, *step, part, *asks);
                }
            }
            Event::StepFailed {
                step,
                failure,
                retry_at,
                took_us,
                ..
            } => {
                let end = CallEnded::Failed {
                    failure: failure.clone(),
                    retry_at: *retry_at,
                };
                self.attempt_over(*step, end, *took_us, at);
                self.step_failed(graph, *step, failure, *retry_at, at);
            }
            Event::StepStopped {
                step,
                reason,
                took_us,
            } => {
                self.attempt_over(*step, CallEnded::Stopped, *took_us, at);
                // An end like any other: an earlier doubt is undone by when its round came to an end.
                self.completions += 1;
                let completed = self.completions;
                let node = self.node(*step);
                node.completed = completed;
                // An operator may let the run go on all the same.
                self.set_idle(*step, Status::Stopped);
                self.stop.get_or_insert_with(|| reason.clone());
                self.in_doubt_again(graph, *step);
                self.drain(graph);
            }
            Event::StepInterrupted { step, took_us } => {
                self.attempt_over(*step, CallEnded::Interrupted, *took_us, at);
                self.interrupted(graph, *step);
            }
            Event::Progress { step, value } => self.node(*step).progressed(value),
            Event::StepNotStarted { step } => self.step_not_started(graph, *step),
            Event::Probed { step, answer, .. } => {
                if std::mem::take(&mut self.node(*step).probing) {
                    self.probes -= 1;
                }
                self.probed(graph, *step, answer);
            }
            Event::Decided(decision) => self.decided(graph, decision, at),
            Event::UndoStarted { step, key, .. } => {
                self.node(*step).undo_key = Some(key.clone());
                self.undo_started(*step, at);
            }
            Event::Undone { step, took_us } => {
                self.undone(graph, *step, Duration::from_micros(*took_us), at);
            }
            Event::UndoFailed {
                step,
                failure,
                retry_at,
                took_us,
                ..
            } => {
                self.undo_failed(
                    *step,
                    failure,
                    *retry_at,
                    Duration::from_micros(*took_us),
                    at,
                );
            }
            Event::UndoNotStarted { step } => {
                let node = self.node(*step);
                node.undo_attempts = node.undo_attempts.saturating_sub(1);
                node.undo_charged = node.undo_charged.saturating_sub(1);
                node.call_forgotten();
                self.undo_over(*step);
                self.undo_ready(graph, *step);
            }
            Event::CancelRequested { by, reason, told } => {
                self.cancel_requested(graph, by, reason, *told, at);
            }
            Event::CancelTooLate => {
                if let Some(cancel) = &mut self.cancel {
                    cancel.told = CancelTold::TooLate;
                    cancel.pending = false;
                }
                self.go_on_if_nothing_is_wrong(graph);
            }
            Event::DeadlinePassed { past_pivot } => {
                self.deadline_reported = true;
                self.time_is_up = !past_pivot;
                if *past_pivot {
                    self.go_on_if_nothing_is_wrong(graph);
                } else {
                    self.drain(graph);
                }
            }
            Event::Resolved { step, answer, .. } => self.resolved(graph, *step, answer),
            Event::Commanded { token } => self.tokens.push(token.clone()),
            Event::InputEdited {
                step, round, input, ..
            } => self.input_edited(*step, *round, input),
            Event::Skipped {
                step,
                effect,
                output,
                ..
            } => self.skipped(graph, *step, *effect, output),
            Event::MarkedCompensated { step, by, .. } => self.undone_by_hand(graph, *step, by, at),
            Event::UndosRetried { .. } => {
                // An operator's retry resets the count of recoveries (rule D6).
                self.recoveries = 0;
                self.retry_undos(graph);
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
                // Parked is more than paused: whoever lets the run go on ends both.
                self.leave_pause(at);
                self.park_wanted = None;
                self.parked = Some((**parking).clone());
                self.parked_at = at;
                self.phase = Phase::Parked;
            }
            Event::Ended(end) => {
                self.end = Some(end.clone());
                self.ended_at = Some(at);
                self.phase = Phase::Ended;
            }
        }
        self.skip_stale();
    }

    /// All that was in flight is interrupted: the process that drove it is gone (rule F3).
    fn claimed(&mut self, graph: &Graph, fence: u64, at: Timestamp) {
        self.fence = fence;
        for index in 0..self.nodes.len() {
            let step = StepIx::new(index);
            if self.node(step).status == Status::Running {
                self.attempt_over(step, CallEnded::Lost, 0, at);
                self.node(step).interruptions += 1;
                self.interrupted(graph, step);
            }
            if self.node(step).undo == UndoStatus::Running {
                self.node(step).interruptions += 1;
                let charged = &mut self.node(step).undo_charged;
                *charged = charged.saturating_sub(1);
                self.undo_over(step);
                self.node(step).call_ends(CallEnded::Lost, 0, at);
                // The same key again (rule U4).
                self.undo_ready(graph, step);
            }
            if self.node(step).interruptions >= INTERRUPTIONS && self.park_wanted.is_none() {
                let name = &graph.step(step).name;
                let message = format!(
                    "step `{name}` was interrupted {INTERRUPTIONS} times in a row without progress: \
                     it may be what brings the process down"
                );
                self.want_parked(graph, Parking::new(ParkReason::Interrupted, message));
            }
        }
    }

    fn step_started(&mut self, step: StepIx, at: Timestamp) {
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
    fn attempt_over(&mut self, step: StepIx, end: CallEnded, took_us: u64, at: Timestamp) {
        let node = self.node(step);
        node.call_ends(end, took_us, at);
        node.took = Duration::from_micros(took_us);
        node.ended_at = Some(at);
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// The effect is there, by the step's word or by a probe's.
    pub(super) fn now_done(&mut self, graph: &Graph, step: StepIx, output: Value) {
        self.completions += 1;
        let completed = self.completions;
        let node = self.node(step);
        if let Status::Sleeping { until } = node.status {
            self.timers.remove(&(until, step));
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
        step: StepIx,
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
    fn interrupted(&mut self, graph: &Graph, step: StepIx) {
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

    fn step_not_started(&mut self, graph: &Graph, step: StepIx) {
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
    pub(super) fn in_doubt_again(&mut self, graph: &Graph, step: StepIx) {
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
                    definition.name
                );
                self.want_parked(graph, Parking::new(ParkReason::AtMostOnceInDoubt, message));
                return;
            }
        }
        if self.seen(step).status == Status::Ready {
            self.ready.push_back(step);
        }
    }

    pub(super) fn probed(&mut self, graph: &Graph, step: StepIx, answer: &Probed<Value>) {
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
                self.go_on_if_nothing_is_wrong(graph);
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

    /// A failure that a probe cancelled, a cancel that came too late: where nothing else is wrong, the
    /// run goes forward, and the retries that were dropped are taken up again.
    fn go_on_if_nothing_is_wrong(&mut self, graph: &Graph) {
        let wrong = !self.failures.is_empty()
            || self.time_is_up
            || self.stop.is_some()
            || self.park_wanted.is_some()
            || self.cancel.as_ref().is_some_and(|cancel| cancel.pending);
        if self.phase == Phase::Draining && !wrong {
            self.go_forward(graph, None);
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
        if pending && self.phase == Phase::Parked {
            self.leave_parking(at);
            self.phase = Phase::Draining;
        } else if pending {
            self.drain(graph);
        }
    }

    /// Deadlines stand still while a run is parked (rule I4).
    pub(super) fn leave_parking(&mut self, at: Timestamp) {
        if self.parked.take().is_some() {
            let stood = at.since(self.parked_at);
            self.stood += stood;
            self.deadline = self.deadline.map(|deadline| deadline.after(stood));
        }
    }

    /// They stand still while it is paused, too.
    fn leave_pause(&mut self, at: Timestamp) {
        if let Some(paused) = self.paused.take() {
            let stood = at.since(paused.at);
            self.stood += stood;
            self.deadline = self.deadline.map(|deadline| deadline.after(stood));
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
        for (_, step) in std::mem::take(&mut self.timers) {
            self.set_idle(step, Status::Dropped);
            self.in_doubt_again(graph, step);
        }
    }

    /// The step rests until the run goes forward again.
    pub(super) fn set_idle(&mut self, step: StepIx, status: Status) {
        self.node(step).status = status;
        self.idle.push(step);
    }
}
