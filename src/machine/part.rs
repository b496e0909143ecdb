//! Steps that are done in part: noted, and put to the policy where a rule names that.

use crate::failure::{FailedEffect, FailureMode, PartialSuccess};
use crate::ids::Timestamp;
use crate::machine::state::{NodeState, State, Status};
use crate::policy::{Explanation, RecoveryStrategy, Situation};
use crate::saga::Graph;
use crate::step::StepIx;

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
    /// Whether the policy has an answer to a step that ends so. It is asked again when all has come to rest.
    pub(super) fn asks_about(
        &self,
        graph: &Graph,
        step: StepIx,
        part: &PartialSuccess,
        now: Timestamp,
    ) -> bool {
        let mut saw = self.situation_in_part(graph, step, part, now);
        // It is not folded yet.
        saw.completed += 1;
        saw.past_pivot |= graph.step(step).pivot;
        graph.policy.decide(&saw).says != RecoveryStrategy::RetryFailed
    }

    pub(super) fn situation_in_part(
        &self,
        graph: &Graph,
        step: StepIx,
        part: &PartialSuccess,
        now: Timestamp,
    ) -> Situation {
        let name = graph.step(step).name.to_string();
        let mut saw = self.situation(graph, name, part.mode.clone(), now);
        saw.effect = FailedEffect::Done;
        saw
    }

    /// Folds what a step says that is done. Where the policy has an answer, all comes to rest for it as for a
    /// failure (rule D1), though the step stays done.
    pub(super) fn did_part(
        &mut self,
        graph: &Graph,
        step: StepIx,
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
