//! How a driver goes away: for a while, at the end, or because the run is not its own any more.

use std::sync::Arc;

use super::{Driver, Gone};
use crate::coordinator::error::CommandError;
use crate::coordinator::shared::Shared;
use crate::coordinator::slot::{Settled, Started};
use crate::machine::State;
use crate::partial::Snapshot;

impl Driver {
    /// Whether nothing will happen for a while.
    pub(super) fn may_rest(&self) -> bool {
        let nothing_runs =
            self.calls.is_empty() && self.asked.is_empty() && self.granted.is_empty();
        let long = match self.until {
            Some(until) => until.since(self.shared.clock.now()) > self.shared.resident,
            None => self.state.is_parked() || self.state.is_paused(),
        };
        nothing_runs && long && !self.shared.is_closing()
    }

    /// Lets go of everything but a timer entry. Says no if a command came meanwhile.
    pub(super) fn rest(&mut self) -> bool {
        if self.slot.has_commands() {
            return false;
        }
        let parked = self.state.is_parked();
        if parked {
            let why = self
                .state
                .parked
                .as_ref()
                .map(|parked| parked.message.as_str())
                .unwrap_or_default();
            tracing::warn!(run = %self.slot.run, saga = %self.graph.saga, %why, "the run is parked");
        }
        let settled = parked.then(|| Settled::Parked(Arc::new(self.snapshot(self.state.clone()))));
        if !self.slot.deactivate_if_idle(settled) {
            return false;
        }
        self.spans.rests(&self.state);
        // Only now: a timer that rings while the run is still driven would do nothing.
        if let Some(until) = self.until.filter(|_| !parked) {
            self.shared.timers.add(until, self.slot.run.clone());
        }
        self.shared.forget_slot(&self.slot);
        true
    }

    fn snapshot(&self, state: Box<State>) -> Snapshot {
        Snapshot {
            run: self.slot.run.clone(),
            state,
            graph: Arc::clone(&self.graph),
        }
    }

    pub(super) fn end(self: Box<Self>) {
        self.spans.rests(&self.state);
        let shared = Arc::clone(&self.shared);
        let slot = Arc::clone(&self.slot);
        let settled = Settled::Ended(Arc::new(Snapshot {
            run: slot.run.clone(),
            state: self.state,
            graph: self.graph,
        }));
        shared.remove_slot(&slot);
        for command in slot.retire(settled) {
            let refused =
                CommandError::refused(&slot.run, crate::machine::Refused::Ended, Vec::new());
            drop(command.answer.send(Err(refused)));
        }
    }

    pub(super) fn leave(self: Box<Self>, gone: &Gone) {
        self.spans.leaves();
        let slot = &self.slot;
        let why = match gone {
            Gone::Lost | Gone::Stale(_) => "the run belongs to somebody else".to_owned(),
            Gone::NotStarted(why) => why.clone(),
            Gone::Closed => self.shared.why_closed(),
        };
        if self.starting && matches!(gone, Gone::Lost) {
            slot.set_started(Started::Taken);
            return Shared::look_again(&self.shared, Arc::clone(slot));
        }
        if self.starting {
            slot.set_started(Started::Failed(why.clone()));
        }
        self.shared.remove_slot(slot);
        if matches!(gone, Gone::Lost | Gone::Stale(_)) && self.shared.is_in_fleet() {
            // Whoever waits here waits for the other worker, and commands are sent there.
            drop(slot.retire_idle());
            return Shared::look_later(&self.shared, &slot.run);
        }
        let settled = match gone {
            Gone::Lost | Gone::Stale(_) => Settled::Lost,
            Gone::NotStarted(_) | Gone::Closed => Settled::Closed(why.clone()),
        };
        let mut commands = slot.retire(settled);
        commands.extend(self.answers.into_iter().map(|(command, _)| command));
        for command in commands {
            let closed = CommandError::Closed {
                run: slot.run.clone(),
                why: why.clone(),
            };
            drop(command.answer.send(Err(closed)));
        }
    }
}
