//! Going forward: which step may start, and under which key.

use std::cell::RefCell;
use std::sync::Arc;

use crate::ids::Timestamp;
use crate::journal::Event;
use crate::machine::scope::{EffectNow, Phase, Scope, ScopeIx, Status, UndoStatus};
use crate::machine::state::State;
use crate::saga::{Gathering, Graph, NodeIx, UNDO};
use crate::step::{StepIx, Value};

impl Scope {
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
        while let Some(&step) = self.answered.front()
            && !self.is_awaiting(step)
        {
            self.answered.pop_front();
        }
        // A probe that was asked before an undo is not in the journal, so a fold takes undos out of turn.
        let is_ready = |step: NodeIx| self.nodes[step.at()].undo == UndoStatus::Ready;
        while self
            .unwind
            .ready
            .front()
            .is_some_and(|&step| !is_ready(step))
        {
            self.unwind.ready.pop_front();
        }
        while self
            .unwind
            .latest
            .peek()
            .is_some_and(|&(_, step)| !is_ready(step))
        {
            self.unwind.latest.pop();
        }
    }

    fn may_start(&self, step: NodeIx) -> bool {
        let node = self.seen(step);
        node.status == Status::Ready && !node.withheld
    }

    pub(super) fn next_ready(&self) -> Option<NodeIx> {
        self.ready
            .iter()
            .copied()
            .find(|&step| self.may_start(step))
    }

    pub(super) fn next_to_probe(&self) -> Option<NodeIx> {
        self.to_probe
            .iter()
            .copied()
            .find(|&step| self.wants_probe(step))
    }

    pub(super) fn wants_probe(&self, step: NodeIx) -> bool {
        let node = self.seen(step);
        node.effect == EffectNow::InDoubt
            && !node.probed
            && !node.probing
            && node.status != Status::Running
    }
}

impl State {
    /// The key of the round's effect: made once and kept (rules K1, K2). One that was skipped has it, too, for
    /// its undo.
    pub(crate) fn effect_key(&self, graph: &Graph, step: StepIx) -> Arc<str> {
        let node = self.node(step);
        node.key.clone().unwrap_or_else(|| {
            thread_local! {
                static KEY: RefCell<String> = const { RefCell::new(String::new()) };
            }
            // Made for each step of each run: in a buffer that stays, and without the machinery of `format!`.
            KEY.with_borrow_mut(|key| {
                key.clear();
                key.push_str(&self.header.uid);
                key.push('/');
                let (scope, step) = self.whereabouts(step);
                self.push_escaped(graph, scope, step, key);
                key.push('/');
                push_number(node.round, key);
                Arc::from(key.as_str())
            })
        })
    }

    /// The event that announces the next `execute` of a step.
    #[must_use]
    pub fn start_event(
        &self,
        graph: &Graph,
        step: StepIx,
        mapped: Vec<Value>,
        items: Option<u32>,
    ) -> Event<StepIx> {
        let node = self.node(step);
        let key = self.effect_key(graph, step);
        let place = self.place(graph, step);
        let scope = self.scope(place.scope);
        let before = &place.graph.step(place.step).dependencies;
        let rounds = before.iter().map(|before| scope.seen(*before).round);
        let fed_by = if rounds.clone().all(|round| round == 1) {
            Vec::new()
        } else {
            rounds.collect()
        };
        Event::StepStarted {
            step,
            round: node.round,
            attempt: node.attempts + 1,
            key,
            fed_by,
            mapped,
            items,
        }
    }

    /// The event that begins a wait.
    #[must_use]
    pub fn wait_event(&self, graph: &Graph, step: StepIx, now: Timestamp) -> Event<StepIx> {
        let place = self.place(graph, step);
        let limit = place.graph.step(place.step).limit();
        Event::WaitBegan {
            step,
            round: self.node(step).round,
            // A limit beyond the end of time is none.
            until: limit
                .map(|limit| now.after(limit))
                .filter(|until| *until != Timestamp::NEVER),
        }
    }

    /// The event that announces the next `compensate` of a step.
    #[must_use]
    pub fn undo_event(&self, graph: &Graph, step: StepIx) -> Event<StepIx> {
        let node = self.node(step);
        let key = node
            .undo_key
            .clone()
            .unwrap_or_else(|| Arc::from([&*self.effect_key(graph, step), "/undo"].concat()));
        Event::UndoStarted {
            step,
            round: node.round,
            attempt: node.undo_attempts + 1,
            key,
        }
    }

    /// Adds a step's path as it stands in keys.
    fn push_escaped(&self, root: &Graph, ix: ScopeIx, step: NodeIx, key: &mut String) {
        let graph = self.graph_of(root, ix);
        let name = &graph.step(step).escaped;
        let Some((around, outer)) = self.scope(ix).inside else {
            key.push_str(name);
            return;
        };
        self.push_escaped(root, around, outer, key);
        if self.scope(ix).undoes {
            key.push_str(UNDO);
        }
        match graph.gathers {
            Gathering::Each { .. } => {
                key.push('[');
                push_number(step.0, key);
                key.push(']');
            }
            Gathering::Saga | Gathering::Fallback | Gathering::Race => {
                key.push('/');
                key.push_str(name);
            }
        }
    }

    /// The coordinator asks the probe now. Not an event: a crash just asks again.
    pub fn begin_probe(&mut self, graph: &Graph, step: StepIx) {
        let (ix, step) = self.whereabouts(step);
        let scope = &mut self.scopes[ix.at()];
        if scope.phase == Phase::Unwinding {
            scope.undo_taken(step);
            scope.node(step).undo = UndoStatus::Idle;
        }
        scope.node(step).probing = true;
        scope.probes += 1;
        scope.skip_stale();
        self.account(graph, ix);
        self.stir(ix);
    }

    /// The coordinator has no permit for this step (rule F1): it isn't offered until
    /// [`release`](Self::release). Not an event.
    pub fn withhold(&mut self, step: StepIx) {
        let (ix, step) = self.whereabouts(step);
        let scope = &mut self.scopes[ix.at()];
        if let Status::Sleeping { until } = scope.seen(step).status {
            scope.timers.remove(&(until, step));
            scope.node(step).status = Status::Ready;
        }
        scope.node(step).withheld = true;
        scope.skip_stale();
        self.stir(ix);
    }

    /// The coordinator has a permit for this step now: it is offered next, if it still may start.
    pub fn release(&mut self, step: StepIx) {
        let (ix, step) = self.whereabouts(step);
        let scope = &mut self.scopes[ix.at()];
        let withheld = std::mem::take(&mut scope.node(step).withheld);
        if withheld && scope.seen(step).status == Status::Ready {
            scope.ready.push_front(step);
        }
        self.stir(ix);
    }

    /// Whether the step is waiting for a permit that it still wants.
    #[must_use]
    pub fn is_withheld(&self, step: StepIx) -> bool {
        self.node(step).withheld
    }
}

fn push_number(number: u32, text: &mut String) {
    if number >= 10 {
        push_number(number / 10, text);
    }
    text.extend(char::from_digit(number % 10, 10));
}
