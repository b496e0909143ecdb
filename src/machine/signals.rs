//! Signals, and the steps that wait for them (rule I5).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::ids::Timestamp;
use crate::journal::{Event, Signalled, StepMoves};
use crate::machine::command::{Asked, Refused};
use crate::machine::kept::CallEnded;
use crate::machine::scope::{Phase, Scope, ScopeIx, Status};
use crate::machine::state::State;
use crate::saga::{Graph, NodeIx};
use crate::step::{StepIx, Value};

/// What the sender of a signal is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SignalTold {
    /// It is in the run's journal: the wait has it, or will have it.
    Accepted,
    /// The wait was over when it came. It is kept in the journal as late, and nothing else becomes of it.
    Late,
}

/// The signals of a run; made with the first of them, since most runs get none.
#[derive(Clone, Debug, Default)]
pub(super) struct Signals(Option<Box<Accepted>>);

/// In the order in which they were accepted.
#[derive(Clone, Debug, Default)]
struct Accepted {
    all: Vec<Signal>,
    tokens: HashMap<Arc<str>, usize>,
    /// Those that no wait has taken yet, by name.
    queues: HashMap<Arc<str>, VecDeque<usize>>,
}

#[derive(Clone, Debug)]
struct Signal {
    name: Arc<str>,
    /// What the sender sent, before the wait made something of it.
    sent: Value,
    kept: Value,
    told: SignalTold,
}

impl Signals {
    fn with_token(&self, token: &str) -> Option<&Signal> {
        let accepted = self.0.as_ref()?;
        accepted.all.get(*accepted.tokens.get(token)?)
    }

    pub(super) fn knows(&self, token: &str) -> bool {
        self.with_token(token).is_some()
    }

    fn next(&self, name: &str) -> Option<&Signal> {
        let accepted = self.0.as_ref()?;
        accepted.all.get(*accepted.queues.get(name)?.front()?)
    }

    /// What no wait has taken yet is for the steps under their new names. Who sent what is kept as it was said.
    pub(super) fn rename(&mut self, moves: &StepMoves) {
        let Some(accepted) = &mut self.0 else {
            return;
        };
        let queues = std::mem::take(&mut accepted.queues).into_iter();
        accepted.queues = queues
            .filter_map(|(name, queue)| Some((Arc::from(moves.new_name(&name)?), queue)))
            .collect();
    }

    fn take(&mut self, name: &str) {
        if let Some(accepted) = &mut self.0
            && let Some(queue) = accepted.queues.get_mut(name)
        {
            queue.pop_front();
            if queue.is_empty() {
                accepted.queues.remove(name);
            }
        }
    }
}

impl State {
    /// The event that a signal becomes.
    ///
    /// `kept` is what the wait makes of it: see [`Event::Signalled`].
    pub(super) fn signal_event(
        &self,
        graph: &Graph,
        name: &str,
        sent: &Value,
        asked: Asked<'_>,
        token: Option<&str>,
    ) -> Result<Event<StepIx>, Refused> {
        if !graph.waits_for(name) {
            return Err(Refused::NoSuchSignal {
                name: name.to_owned(),
                known: graph.signals(),
            });
        }
        if let Some(why) = self.no_such_item(graph, name) {
            let name = name.to_owned();
            return Err(Refused::BadSignal { name, why });
        }
        let step = self.step_named(graph, name);
        let late = step.is_some_and(|step| self.comes_late(step, asked.at));
        let (by, reason) = (asked.by.to_owned(), asked.reason.to_owned());
        Ok(Event::Signalled(Box::new(Signalled {
            name: Arc::from(name),
            token: token.map(Arc::from),
            sent: sent.clone(),
            kept: sent.clone(),
            at: asked.at,
            late,
            by,
            reason,
        })))
    }

    /// Whether the journal has the signal with this token already: then nothing happens.
    ///
    /// # Errors
    ///
    /// Where it has another one, or another command, under this token.
    pub(super) fn has_signal(
        &self,
        name: &str,
        sent: &Value,
        token: &str,
    ) -> Result<bool, Refused> {
        let refused = || Err(Refused::TokenTaken(token.to_owned()));
        match self.signals.with_token(token) {
            Some(known) if *known.name == *name && known.sent == *sent => Ok(true),
            Some(_) => refused(),
            None if self.knows(token) => refused(),
            None => Ok(false),
        }
    }

    /// What the sender of the signal with this token was told.
    #[must_use]
    pub fn signal_told(&self, token: Option<&str>) -> SignalTold {
        let signal = match token {
            Some(token) => self.signals.with_token(token),
            None => self
                .signals
                .0
                .as_ref()
                .and_then(|accepted| accepted.all.last()),
        };
        signal.map_or(SignalTold::Accepted, |signal| signal.told)
    }

    /// Folds a signal: it is kept for the wait of its name.
    pub(super) fn signalled(&mut self, graph: &Graph, signalled: &Signalled) -> ScopeIx {
        let Signalled {
            name,
            token,
            sent,
            kept,
            late,
            ..
        } = signalled;
        let signals = self.signals.0.get_or_insert_default();
        let place = signals.all.len();
        let token = token.as_ref().map(|token| (Arc::clone(token), place));
        signals.tokens.extend(token);
        signals.all.push(Signal {
            name: Arc::clone(name),
            sent: sent.clone(),
            kept: kept.clone(),
            told: if *late {
                SignalTold::Late
            } else {
                SignalTold::Accepted
            },
        });
        if *late {
            return ScopeIx::ROOT;
        }
        let queue = signals.queues.entry(Arc::clone(name)).or_default();
        queue.push_back(place);
        let Some(step) = self.step_named(graph, name) else {
            return ScopeIx::ROOT;
        };
        let (ix, step) = self.whereabouts(step);
        self.scopes[ix.at()].answered.push_back(step);
        ix
    }

    /// What is kept of the signal that a waiting step takes next.
    pub(crate) fn signal_for(&self, step: StepIx) -> Option<&Value> {
        let signal = self.signals.next(&self.table.name(step))?;
        Some(&signal.kept)
    }

    /// Folds the beginning of a wait.
    pub(super) fn wait_began(
        &mut self,
        ix: ScopeIx,
        step: NodeIx,
        round: u32,
        until: Option<Timestamp>,
        at: Timestamp,
    ) {
        let scope = &mut self.scopes[ix.at()];
        let node = scope.node(step);
        node.round = round;
        node.status = Status::Awaiting { until };
        node.let_start = true;
        node.withheld = false;
        node.attempts += 1;
        node.round_attempts += 1;
        node.expired = false;
        node.started_at = Some(at);
        node.call_begins(false, at);
        scope.awaiting += 1;
        scope.timers.extend(until.map(|until| (until, step)));
        let number = scope.number(step);
        if self.signal_for(number).is_some() {
            self.scopes[ix.at()].answered.push_back(step);
        }
    }

    /// Folds the end of a wait, as far as it is about waiting.
    pub(super) fn wait_over(&mut self, ix: ScopeIx, step: NodeIx, expired: bool, at: Timestamp) {
        let scope = &mut self.scopes[ix.at()];
        let number = scope.number(step);
        scope.stop_waiting(step);
        let node = scope.node(step);
        node.expired = expired;
        node.ended_at = Some(at);
        node.took = at.since(node.started_at.unwrap_or(at));
        let took_us = u64::try_from(node.took.as_micros()).unwrap_or(u64::MAX);
        node.call_ends(CallEnded::Done, took_us, at);
        if !expired {
            let name = self.table.name(number);
            self.signals.take(&name);
        }
    }

    /// Whether a step waits for a signal, and not for a time only.
    pub(crate) fn waits_for_signal(&self, root: &Graph, step: StepIx) -> bool {
        let place = self.place(root, step);
        place.graph.step(place.step).waits_for_signal()
    }

    /// Whether some step waits for a signal or a time.
    pub(crate) fn is_awaiting(&self) -> bool {
        self.root().awaiting + self.root().below.awaiting > 0
    }

    /// Whether a signal that was accepted at this instant comes after the wait of its name.
    fn comes_late(&self, step: StepIx, at: Timestamp) -> bool {
        let (ix, step) = self.whereabouts(step);
        let scope = self.scope(ix);
        let node = scope.seen(step);
        match node.status {
            Status::Awaiting { until } => until.is_some_and(|until| until < at),
            // It took its signal; the next one is for the next round, if there is one.
            Status::Done if !node.expired => false,
            // Something else was faster, or all around it was undone, and nothing is left that could take it.
            _ => node.expired || scope.phase == Phase::Ended,
        }
    }

    /// Why no item of a fan-out that has begun will ever wait for a signal of this name.
    fn no_such_item(&self, root: &Graph, name: &str) -> Option<String> {
        let places = name.match_indices('[').map(|(place, _)| place);
        places.into_iter().find_map(|place| {
            let (path, item) = (&name[..place], &name[place + 1..]);
            let item: usize = item.split(']').next()?.parse().ok()?;
            let node = self.node(self.step_named(root, path)?);
            let items = self.scope(node.child?).nodes.len();
            let begun = matches!(node.status, Status::Running | Status::Done);
            (begun && item >= items).then(|| format!("`{path}` has {items} items, from 0"))
        })
    }
}

impl State {
    /// The next waiting step of a scope that has got its signal. One that waits anew may still be queued from
    /// the time before.
    pub(super) fn next_answered(&self, ix: ScopeIx) -> Option<NodeIx> {
        let scope = self.scope(ix);
        if scope.answered.is_empty() {
            return None;
        }
        let mut answered = scope.answered.iter().copied();
        answered
            .find(|&step| scope.is_awaiting(step) && self.signal_for(scope.number(step)).is_some())
    }
}

impl Scope {
    /// No step here waits any more: what is around it went on without.
    pub(super) fn drop_waits(&mut self) {
        if self.awaiting == 0 {
            return;
        }
        for step in self.steps() {
            if let Status::Awaiting { .. } = self.seen(step).status {
                self.stop_waiting(step);
            }
        }
    }

    /// The step doesn't wait any more, whatever came of it.
    pub(super) fn stop_waiting(&mut self, step: NodeIx) {
        if let Status::Awaiting { until } = self.seen(step).status {
            if let Some(until) = until {
                self.timers.remove(&(until, step));
            }
            self.awaiting -= 1;
            self.node(step).status = Status::Dropped;
        }
    }

    pub(super) fn is_awaiting(&self, step: NodeIx) -> bool {
        matches!(self.seen(step).status, Status::Awaiting { .. })
    }
}
