//! Steps that are done in part: noted, and put to the policy where a rule names that.

use crate::failure::{FailedEffect, Failure, FailureMode, PartialSuccess};
use crate::ids::Timestamp;
use crate::journal::{Decision, Event};
use crate::machine::scope::{NodeState, Scope, ScopeIx, Status};
use crate::machine::state::State;
use crate::policy::{Explanation, RecoveryStrategy, Situation};
use crate::saga::{Gathering, Graph, NodeIx};
use crate::step::{StepIx, Value};

impl NodeState {
    /// What the step says of itself, where it is done in part.
    pub(crate) fn in_part(&self) -> Option<&PartialSuccess> {
        let done = self.status == Status::Done;
        self.partial.as_deref().filter(|_| done)
    }

    /// The class of what went wrong with it last.
    pub(crate) fn went_wrong(&self) -> Option<&FailureMode> {
        let failed = || Some(&self.failure.as_ref()?.mode);
        self.in_part().map(|part| &part.mode).or_else(failed)
    }
}

impl State {
    /// The event for a step with steps inside whose output was made of theirs. A fan-out that went on without
    /// some of its items is done in part.
    pub(crate) fn gathered(
        &self,
        root: &Graph,
        step: StepIx,
        output: Value,
        now: Timestamp,
    ) -> Event<StepIx> {
        let node = self.node(step);
        let took = node.started_at.map(|began| now.since(began));
        let partial = node.child.and_then(|child| self.tolerated(root, child));
        Event::StepDone {
            step,
            output,
            asks: partial
                .as_ref()
                .is_some_and(|part| self.asks_about(root, step, part, now)),
            partial: partial.map(Box::new),
            took_us: took.map_or(0, |took| {
                u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
            }),
        }
    }

    fn tolerated(&self, root: &Graph, ix: ScopeIx) -> Option<PartialSuccess> {
        let scope = self.scope(ix);
        let is_fan_out = matches!(self.graph_of(root, ix).gathers, Gathering::Each { .. });
        let failed = || {
            scope
                .nodes
                .iter()
                .filter(|it| it.status == Status::Absorbed)
        };
        let first = failed().next().filter(|_| is_fan_out)?;
        let (of, without) = (scope.nodes.len() as u64, failed().count() as u64);
        let said = first.failure.as_ref();
        let said = said.map(|failure| format!("`{}` said: {}", failure.step, failure.message));
        let message = said.unwrap_or_default();
        Some(PartialSuccess::new(of - without, of, message))
    }

    /// Whether the policy has an answer to a step that ends so. It is asked again when all has come to rest.
    ///
    /// Only sagas have policies: of a part of a fan-out or a choice it is a note and nothing more.
    pub(super) fn asks_about(
        &self,
        root: &Graph,
        step: StepIx,
        part: &PartialSuccess,
        now: Timestamp,
    ) -> bool {
        let place = self.place(root, step);
        let graph = place.graph;
        let mut saw = self.situation_in_part(graph, place.scope, place.step, part, now);
        // It is not folded yet.
        saw.completed += 1;
        saw.past_pivot |= graph.step(place.step).pivot;
        graph.is_saga() && graph.policy.decide(&saw).says != RecoveryStrategy::RetryFailed
    }

    pub(super) fn situation_in_part(
        &self,
        graph: &Graph,
        ix: ScopeIx,
        step: NodeIx,
        part: &PartialSuccess,
        now: Timestamp,
    ) -> Situation {
        // A policy is written for its saga, whatever that is put inside of (rule N1).
        let name = graph.step(step).name.to_string();
        let mut saw = self.situation(graph, ix, name, part.mode.clone(), now);
        saw.effect = FailedEffect::Done;
        saw
    }
}

impl Scope {
    /// Folds what a step says that is done. Where the policy has an answer, all comes to rest for it as for a
    /// failure (rule D1), though the step stays done.
    pub(super) fn did_part(
        &mut self,
        graph: &Graph,
        step: NodeIx,
        part: &PartialSuccess,
        asks: bool,
    ) {
        self.node(step).partial = Some(Box::new(part.clone()));
        if asks {
            self.failures.push(step);
            self.drain(graph);
        }
    }
}

/// Whether nothing failed, and no rule wants more than that the run goes on: no recovery, then.
pub(super) fn simply_goes_on(why: &[Explanation], strictest: RecoveryStrategy) -> bool {
    let mut all = why.iter();
    strictest == RecoveryStrategy::RetryFailed
        && !why.is_empty()
        && all.all(|why| why.saw.effect == FailedEffect::Done)
}

/// The failure of a sub-saga that has undone itself because a step of it was done in part, if that is why.
pub(super) fn undone_for_a_part(saga: &str, decision: &Decision<StepIx>) -> Option<Failure> {
    let saw = &decision.why.first()?.saw;
    (saw.effect == FailedEffect::Done).then(|| {
        let message = format!("`{saga}` was undone: `{}` was done in part", saw.step);
        Failure::new(saw.mode.clone(), message)
    })
}
