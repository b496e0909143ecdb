//! Going forward: which step may start, and under which key.

use std::sync::Arc;

use crate::ids::Timestamp;
use crate::journal::Event;
use crate::machine::state::{EffectNow, Phase, State, Status, UndoStatus};
use crate::saga::Graph;
use crate::step::{StepIx, Value};

impl State {
    /// Takes up what was left, from `hold` on.
    pub(super) fn go_forward(&mut self, graph: &Graph, hold: Option<Timestamp>) {
        self.phase = Phase::Forward { hold };
        let mut idle = std::mem::take(&mut self.idle).into_iter();
        while let Some(step) = idle.next() {
            if matches!(
                self.seen(step).status,
                Status::Dropped | Status::Failed | Status::Stopped | Status::Undone
            ) {
                self.node(step).status = Status::Ready;
                self.in_doubt_again(graph, step);
                if !matches!(self.phase, Phase::Forward { .. }) {
                    // A step that must run at most once is in doubt: the run is to be parked instead, and
                    // whoever helps it takes up this step and the others behind it.
                    self.set_idle(step, Status::Dropped);
                    self.idle.extend(idle);
                    return;
                }
            }
        }
    }

    /// The key of the round's effect: made once and kept (rules K1, K2). One that was skipped has it, too, for
    /// its undo.
    pub(crate) fn effect_key(&self, graph: &Graph, step: StepIx) -> Arc<str> {
        let node = self.seen(step);
        node.key.clone().unwrap_or_else(|| {
            let uid = &self.header.uid;
            Arc::from(format!("{uid}/{}/{}", graph.step(step).escaped, node.round))
        })
    }

    /// The event that announces the next `execute` of a step.
    #[must_use]
    pub fn start_event(&self, graph: &Graph, step: StepIx, mapped: Vec<Value>) -> Event<StepIx> {
        let node = self.seen(step);
        let key = self.effect_key(graph, step);
        let before = &graph.step(step).dependencies;
        let fed_by = if before.iter().all(|before| self.seen(*before).round == 1) {
            Vec::new()
        } else {
            before
                .iter()
                .map(|before| self.seen(*before).round)
                .collect()
        };
        Event::StepStarted {
            step,
            round: node.round,
            attempt: node.attempts + 1,
            key,
            fed_by,
            mapped,
        }
    }

    /// The event that announces the next `compensate` of a step.
    #[must_use]
    pub fn undo_event(&self, graph: &Graph, step: StepIx) -> Event<StepIx> {
        let node = self.seen(step);
        let key = node
            .undo_key
            .clone()
            .unwrap_or_else(|| Arc::from(format!("{}/undo", self.effect_key(graph, step))));
        Event::UndoStarted {
            step,
            round: node.round,
            attempt: node.undo_attempts + 1,
            key,
        }
    }

    /// Drops queue entries whose step has moved on, so that the front is always true.
    pub(super) fn skip_stale(&mut self) {
        while let Some(&step) = self.ready.front()
            && !self.may_start(step)
        {
            self.ready.pop_front();
        }
        while let Some(&step) = self.to_probe.front()
            && !self.wants_probe(step)
        {
            self.to_probe.pop_front();
        }
    }

    fn may_start(&self, step: StepIx) -> bool {
        let node = self.seen(step);
        node.status == Status::Ready && !node.withheld
    }

    pub(super) fn next_ready(&self) -> Option<StepIx> {
        self.ready
            .iter()
            .copied()
            .find(|&step| self.may_start(step))
    }

    pub(super) fn next_to_probe(&self) -> Option<StepIx> {
        self.to_probe
            .iter()
            .copied()
            .find(|&step| self.wants_probe(step))
    }

    pub(super) fn wants_probe(&self, step: StepIx) -> bool {
        let node = self.seen(step);
        node.effect == EffectNow::InDoubt
            && !node.probed
            && !node.probing
            && node.status != Status::Running
    }

    /// The coordinator asks the probe now. Not an event: a crash just asks again.
    pub fn begin_probe(&mut self, step: StepIx) {
        if self.phase == Phase::Unwinding {
            self.undo_taken(step);
            self.node(step).undo = UndoStatus::Idle;
        }
        self.node(step).probing = true;
        self.probes += 1;
        self.skip_stale();
    }

    /// The coordinator has no permit for this step (rule F1): it isn't offered until
    /// [`release`](Self::release). Not an event.
    pub fn withhold(&mut self, step: StepIx) {
        if let Status::Sleeping { until } = self.seen(step).status {
            self.timers.remove(&(until, step));
            self.node(step).status = Status::Ready;
        }
        self.node(step).withheld = true;
        self.skip_stale();
    }

    /// The coordinator has a permit for this step now: it is offered next, if it still may start.
    pub fn release(&mut self, step: StepIx) {
        if std::mem::take(&mut self.node(step).withheld) && self.seen(step).status == Status::Ready
        {
            self.ready.push_front(step);
        }
    }

    /// Whether the step is waiting for a permit that it still wants.
    #[must_use]
    pub fn is_withheld(&self, step: StepIx) -> bool {
        self.seen(step).withheld
    }
}
