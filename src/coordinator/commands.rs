//! Commands about a run: how they reach its driver, and what they are answered.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::coordinator::error::{CommandError, GetError};
use crate::coordinator::slot::Command;
use crate::coordinator::{Coordinator, Shared};
use crate::ids::RunId;
use crate::journal::{CancelTold, Event};
use crate::machine::{Refused, State};
use crate::policy::RecoveryStrategy;
use crate::saga::Graph;
use crate::step::{Payload, Probed, StepIx, Value};

/// What somebody asks of a run.
#[derive(Clone, Debug)]
pub(crate) enum Verb {
    Cancel {
        by: String,
        reason: String,
    },
    Retry {
        strategy: RecoveryStrategy,
        by: String,
        reason: String,
    },
    Resolve {
        step: String,
        answer: Probed<Value>,
        by: String,
        reason: String,
    },
    Abandon {
        by: String,
        reason: String,
    },
}

impl Verb {
    /// The event that the verb becomes in this state.
    pub(super) fn event(&self, state: &State, graph: &Graph) -> Result<Event<StepIx>, Refused> {
        match self {
            Verb::Cancel { by, reason } => state.cancel_event(graph, by, reason),
            Verb::Retry {
                strategy,
                by,
                reason,
            } => state.retry_event(graph, *strategy, by, reason),
            Verb::Resolve {
                step,
                answer,
                by,
                reason,
            } => state.resolve_event(graph, step, answer.clone(), by, reason),
            Verb::Abandon { by, reason } => state.abandon_event(by, reason),
        }
    }
}

/// What an operator knows about an effect in doubt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution<T> {
    /// It happened, and this is its output.
    Done(T),
    /// It did not happen, and will be refused if it still arrives.
    NotDone,
}

impl Coordinator {
    /// Asks for a run to be cancelled: nothing new starts, what is in flight is awaited, and what is done
    /// is undone in reverse. Wakes a run that waits.
    ///
    /// The answer says what that means now (rule C1): with [`CancelTold::Pending`] the pivot's fate
    /// decides, with [`CancelTold::TooLate`] the run goes forward. Cancelling again does no harm.
    ///
    /// # Errors
    ///
    /// Where there is no such run, or it has ended.
    ///
    /// # Cancel safety
    ///
    /// The command is on its way once this was polled; dropping the future only drops the answer.
    pub async fn cancel(
        &self,
        run: &RunId,
        by: impl Into<String>,
        reason: impl Into<String>,
    ) -> Result<CancelTold, CommandError> {
        let told = self
            .command(
                run,
                Verb::Cancel {
                    by: by.into(),
                    reason: reason.into(),
                },
            )
            .await?;
        Ok(told.unwrap_or(CancelTold::Accepted))
    }

    /// Lets a parked run go on with this strategy: `compensate` undoes it, the others retry. Grants
    /// attempts and recoveries anew (rule D6).
    ///
    /// # Errors
    ///
    /// Where there is no such run, it isn't parked, or the strategy isn't available.
    pub async fn retry(
        &self,
        run: &RunId,
        strategy: RecoveryStrategy,
        by: impl Into<String>,
        reason: impl Into<String>,
    ) -> Result<(), CommandError> {
        self.command(
            run,
            Verb::Retry {
                strategy,
                by: by.into(),
                reason: reason.into(),
            },
        )
        .await
        .map(drop)
    }

    /// Says what became of an effect in doubt of a parked run. The run stays parked until it is retried.
    ///
    /// # Errors
    ///
    /// Where there is no such run, it isn't parked, or the step isn't in doubt.
    pub async fn resolve<T: Payload>(
        &self,
        run: &RunId,
        step: impl Into<String>,
        resolution: Resolution<T>,
        by: impl Into<String>,
        reason: impl Into<String>,
    ) -> Result<(), CommandError> {
        let answer = match resolution {
            Resolution::Done(output) => Probed::Done(Value::typed(Arc::new(output))),
            Resolution::NotDone => Probed::Never,
        };
        let verb = Verb::Resolve {
            step: step.into(),
            answer,
            by: by.into(),
            reason: reason.into(),
        };
        self.command(run, verb).await.map(drop)
    }

    /// Gives a parked run up: it ends `Abandoned`, and its outcome lists what stands.
    ///
    /// # Errors
    ///
    /// Where there is no such run, or it isn't parked.
    pub async fn abandon(
        &self,
        run: &RunId,
        by: impl Into<String>,
        reason: impl Into<String>,
    ) -> Result<(), CommandError> {
        self.command(
            run,
            Verb::Abandon {
                by: by.into(),
                reason: reason.into(),
            },
        )
        .await
        .map(drop)
    }

    async fn command(&self, run: &RunId, verb: Verb) -> Result<Option<CancelTold>, CommandError> {
        let shared = self.shared();
        let closed = || CommandError::Closed {
            run: run.clone(),
            why: shared.why_closed(),
        };
        if shared.is_closing() {
            return Err(closed());
        }
        let slot = shared.slot(run);
        if !slot.is_active() {
            // Before anything is woken: a run that isn't there, or is over, stays so.
            let entry = shared.store.find(run).await.map_err(GetError::Store);
            let refused = match entry {
                Err(error) => Some(CommandError::Get(error)),
                Ok(None) if !slot.is_active() => Some(CommandError::NoSuchRun { run: run.clone() }),
                Ok(Some(entry)) if entry.standing.is_end() => Some(CommandError::Refused {
                    run: run.clone(),
                    why: Refused::Ended,
                }),
                Ok(_) => None,
            };
            if let Some(refused) = refused {
                shared.forget_slot(&slot);
                return Err(refused);
            }
        }
        let (answer, answered) = oneshot::channel();
        if slot.send(Command { verb, answer }) {
            Shared::begin_driving(shared, slot);
        }
        answered.await.unwrap_or_else(|_| Err(closed()))
    }
}
