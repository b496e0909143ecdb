//! Commands from outside: what is answered, and which events they become.

use crate::journal::{CancelTold, Cause, Decision, End, Event};
use crate::machine::recovery::AskedBy;
use crate::machine::state::{Direction, EffectNow, Phase, State, Status};
use crate::policy::RecoveryStrategy;
use crate::saga::Graph;
use crate::step::{Probed, StepIx, Value};

/// A command that the run's state does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The run is over (rule O3).
    #[error("the run has ended: start a new one instead")]
    Ended,
    /// Only a parked run takes this command.
    #[error("the run is not parked: only `cancel` is accepted now")]
    NotParked,
    /// The strategy is not available in this state.
    #[error("{0}")]
    Unavailable(String),
    /// The saga has no such step.
    #[error("the saga has no step `{0}`")]
    NoSuchStep(String),
    /// Only an effect in doubt can be resolved.
    #[error("`{0}` is not in doubt")]
    NotInDoubt(String),
}

impl State {
    /// What a cancel would be told now (rule C1).
    ///
    /// # Errors
    ///
    /// [`Refused::Ended`].
    pub fn cancel_event(
        &self,
        graph: &Graph,
        by: &str,
        reason: &str,
    ) -> Result<Event<StepIx>, Refused> {
        if self.is_ended() {
            return Err(Refused::Ended);
        }
        let pivot = graph.pivot.map(|pivot| self.seen(pivot));
        let told = match pivot {
            _ if self.phase == Phase::Unwinding && self.unwind.then == Direction::Compensated => {
                CancelTold::Accepted
            }
            Some(pivot) if pivot.effect == EffectNow::Done => CancelTold::TooLate,
            Some(pivot)
                if pivot.effect == EffectNow::InDoubt || pivot.status == Status::Running =>
            {
                CancelTold::Pending
            }
            Some(_) | None => CancelTold::Accepted,
        };
        Ok(Event::CancelRequested {
            by: by.to_owned(),
            reason: reason.to_owned(),
            told,
        })
    }

    /// What the last cancel was told, as far as it is known by now.
    #[must_use]
    pub fn cancel_told(&self) -> Option<CancelTold> {
        self.cancel.as_ref().map(|cancel| cancel.told)
    }

    /// The event of an operator's retry, or compensate, of a parked run (rules D6, O2).
    ///
    /// # Errors
    ///
    /// Where the run isn't parked, or the strategy isn't available.
    pub fn retry_event(
        &self,
        graph: &Graph,
        strategy: RecoveryStrategy,
        by: &str,
        reason: &str,
    ) -> Result<Event<StepIx>, Refused> {
        self.must_be_parked()?;
        if strategy == RecoveryStrategy::Manual {
            return Err(Refused::Unavailable("the run is parked already".to_owned()));
        }
        let unwinding = self.unwind.remaining > 0;
        let forward = matches!(
            strategy,
            RecoveryStrategy::RetryFailed | RecoveryStrategy::RetryFromCheckpoint
        );
        if unwinding && forward {
            return Err(Refused::Unavailable(format!(
                "{strategy} is not available while the run is being undone: `compensate` goes on undoing, \
                 `retry_all` begins again after all is undone"
            )));
        }
        if let Some(why) = self.unavailable(graph, strategy, AskedBy::Operator) {
            return Err(Refused::Unavailable(why));
        }
        let cause = Cause::Operator {
            by: by.to_owned(),
            reason: reason.to_owned(),
        };
        Ok(Event::Decided(Box::new(Decision {
            cause,
            strategy,
            stop: false,
            failed: self.failures.clone(),
            why: Vec::new(),
            recovery: 0,
            resume_at: None,
        })))
    }

    /// The event of an operator's word about an effect in doubt.
    ///
    /// # Errors
    ///
    /// Where the run isn't parked, or the step isn't in doubt.
    pub fn resolve_event(
        &self,
        graph: &Graph,
        step: &str,
        answer: Probed<Value>,
        by: &str,
        reason: &str,
    ) -> Result<Event<StepIx>, Refused> {
        self.must_be_parked()?;
        let ix = graph
            .step_named(step)
            .ok_or_else(|| Refused::NoSuchStep(step.to_owned()))?;
        if self.seen(ix).effect != EffectNow::InDoubt {
            return Err(Refused::NotInDoubt(step.to_owned()));
        }
        Ok(Event::Resolved {
            step: ix,
            answer,
            by: by.to_owned(),
            reason: reason.to_owned(),
        })
    }

    /// The event with which an operator gives a parked run up.
    ///
    /// # Errors
    ///
    /// Where the run isn't parked.
    pub fn abandon_event(&self, by: &str, reason: &str) -> Result<Event<StepIx>, Refused> {
        self.must_be_parked()?;
        Ok(Event::Ended(End::Abandoned {
            by: by.to_owned(),
            reason: reason.to_owned(),
        }))
    }

    fn must_be_parked(&self) -> Result<(), Refused> {
        match self.phase {
            Phase::Ended => Err(Refused::Ended),
            Phase::Parked => Ok(()),
            Phase::Forward { .. } | Phase::Draining | Phase::Unwinding => Err(Refused::NotParked),
        }
    }
}
